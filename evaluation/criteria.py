"""Did a phase do what it is for? Acceptance figures judged against their own baselines, one criterion a line.

The criteria are those of the method's sections 6.1 to 6.4 that need no second training run.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

Figures = Mapping[str, float]


@dataclass(frozen=True)
class Criterion:
    """One promise of a phase and whether it is kept.

    Args:
        text: What is promised, with both numbers.
        value: The figure.
        reference: What it is compared with.
        met: Whether it is kept; a NaN keeps nothing.
    """

    text: str
    value: float
    reference: float
    met: bool

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe form."""
        return asdict(self)


def _above(figures: Figures, name: str, reference: float, text: str) -> Criterion | None:
    value = figures.get(name)
    if value is None:
        return None
    return Criterion(text.format(value=value, reference=reference), value, reference, value > reference)


def _below(figures: Figures, name: str, reference: float, text: str) -> Criterion | None:
    value = figures.get(name)
    if value is None:
        return None
    return Criterion(text.format(value=value, reference=reference), value, reference, value < reference)


def _lexmlm(f: Figures) -> list[Criterion | None]:
    return [
        *(
            _above(
                {"lower": f[f"gain_over_{other}"] - f.get(f"gain_over_{other}_ci", 0.0)},
                "lower",
                0.0,
                f"bottleneck helps against {other}: {f[f'gain_over_{other}']:.2f} "
                f"+- {f.get(f'gain_over_{other}_ci', 0.0):.2f} nat a masked word",
            )
            for other in ("zeroed", "shuffled")
            if f"gain_over_{other}" in f
        ),
        _above(
            f, "content_word_share", f.get("base_content_word_share", math.nan),
            "caption's content words among the top 10: {value:.0%} (untouched model {reference:.0%})",
        ),
    ]  # fmt: skip


def _cmmm(f: Figures) -> list[Criterion | None]:
    return [
        _below(
            f, "masked_error", f.get("interpolation_error", math.nan),
            "error at hidden joints {value:.3f} (straight lines in time {reference:.3f})",
        ),
        _below(f, "masked_error", f.get("mean_pose_error", math.nan), "and mean pose {reference:.3f}"),
        _above(
            f, "same_clip_r1", f.get("same_clip_chance", math.nan),
            "another crop of the clip is found: R@1 {value:.0f} (chance {reference:.1f})",
        ),
        _above(f, "feature_spread", 0.5, "features not collapsed: spread {value:.2f} (over {reference})"),
    ]  # fmt: skip


def _lexmmm(f: Figures) -> list[Criterion | None]:
    return [
        *(
            [
                _above(
                    {"lower": f["gain_over_shuffled"] - f.get("gain_over_shuffled_ci", 0.0)},
                    "lower",
                    0.0,
                    f"the motion's words help to fill its caption: {f['gain_over_shuffled']:.2f} "
                    f"+- {f.get('gain_over_shuffled_ci', 0.0):.2f} nat over another motion's",
                )
            ]
            if "gain_over_shuffled" in f
            else []
        ),
        _above(
            f, "coverage_top20", 0.4,
            "caption words among the motion's top 20: {value:.0%} (over {reference:.0%})",
        ),
        _above(f, "coverage_top20", f.get("prior_top20", math.nan), "and corpus prior {reference:.0%}"),
    ]  # fmt: skip


def _lexcmlp(f: Figures) -> list[Criterion | None]:
    return [
        _above(
            f, "coverage_top10", f.get("prior_top10", math.nan),
            "caption words among the motion's top 10: {value:.0%} (corpus prior {reference:.0%})",
        ),
        *(
            _below(f, f"{side}_universal", 0.5, f"{side}: {{value:.0f}} words active in over half of the items")
            for side in ("text", "motion")
        ),
    ]  # fmt: skip


CRITERIA: dict[str, Callable[[Figures], list[Criterion | None]]] = {
    "lexmlm": _lexmlm,
    "cmmm": _cmmm,
    "lexmmm": _lexmmm,
    "lexcmlp": _lexcmlp,
}


def judge(phase: str, figures: Figures) -> list[Criterion]:
    """The criteria of a phase, as far as `figures` hold what they need.

    Args:
        phase: `lexmlm`, `cmmm`, `lexmmm` or `lexcmlp`.
        figures: Acceptance figures of that phase, see `lexmotion.evaluation.acceptance`.

    Raises:
        ValueError: unknown phase.

    Example:
        >>> [c.met for c in judge("lexcmlp", {"coverage_top10": 0.62, "prior_top10": 0.31})]
        [True]
    """
    if phase not in CRITERIA:
        raise ValueError(f"unknown phase {phase!r}; the phases are {', '.join(CRITERIA)}")
    return [criterion for criterion in CRITERIA[phase](figures) if criterion is not None]
