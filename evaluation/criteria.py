"""Did a phase do what it is for? Acceptance figures judged against their own baselines, one criterion a line.

Only criteria that need no second training run; gains must exceed the half-width of their 95 % interval.
"""

import operator
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any


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


# (figure, comparison, name of the reference figure or a number, text); a text may use {value} and {reference}.
Rule = tuple[str, Callable[[float, float], bool], str | float, str]

RULES: dict[str, list[Rule]] = {
    "lexmlm": [
        (
            "gain_over_zeroed",
            operator.gt,
            "gain_over_zeroed_ci",
            "gain over a zeroed bottleneck {value:.2f} ± {reference:.2f} nat",
        ),
        (
            "gain_over_shuffled",
            operator.gt,
            "gain_over_shuffled_ci",
            "gain over another caption's {value:.2f} ± {reference:.2f} nat",
        ),
        (
            "content_word_share",
            operator.gt,
            "base_content_word_share",
            "content words in the top 10: {value:.0%}, untouched {reference:.0%}",
        ),
    ],
    "cmmm": [
        (
            "masked_error",
            operator.lt,
            "interpolation_error",
            "hidden joints off by {value:.3f}, interpolation {reference:.3f}",
        ),
        (
            "masked_error",
            operator.lt,
            "mean_pose_error",
            "hidden joints off by {value:.3f}, mean pose {reference:.3f}",
        ),
        ("same_clip_r1", operator.gt, "same_clip_chance", "same clip found R@1 {value:.0f}, chance {reference:.1f}"),
        ("feature_spread", operator.gt, 0.5, "feature spread {value:.2f}, collapsed under {reference}"),
    ],
    "lexmmm": [
        (
            "gain_over_shuffled",
            operator.gt,
            "gain_over_shuffled_ci",
            "gain over another motion's words {value:.2f} ± {reference:.2f} nat",
        ),
        ("coverage_top20", operator.ge, 0.4, "caption words in the top 20: {value:.0%}, {reference:.0%} wanted"),
        (
            "coverage_top20",
            operator.gt,
            "prior_top20",
            "caption words in the top 20: {value:.0%}, prior {reference:.0%}",
        ),
    ],
    "lexcmlp": [
        (
            "coverage_top10",
            operator.gt,
            "prior_top10",
            "caption words in the top 10: {value:.0%}, prior {reference:.0%}",
        ),
        ("text_universal", operator.le, 0.0, "words in over half of the captions: {value:.0f}, none wanted"),
        ("motion_universal", operator.le, 0.0, "words in over half of the motions: {value:.0f}, none wanted"),
    ],
}


def judge(phase: str, figures: Mapping[str, float]) -> list[Criterion]:
    """The criteria of a phase, as far as `figures` hold what they need.

    Args:
        phase: `lexmlm`, `cmmm`, `lexmmm` or `lexcmlp`.
        figures: Acceptance figures of that phase, see `lexmotion.evaluation.acceptance`.

    Raises:
        ValueError: unknown phase.

    Example:
        >>> [criterion.text for criterion in judge("lexcmlp", {"coverage_top10": 0.62, "prior_top10": 0.31})]
        ['caption words in the top 10: 62%, prior 31%']
    """
    if phase not in RULES:
        raise ValueError(f"unknown phase {phase!r}; the phases are {', '.join(RULES)}")
    criteria = []
    for name, compare, other, text in RULES[phase]:
        reference = figures.get(other) if isinstance(other, str) else other
        value = figures.get(name)
        if value is None or reference is None:
            continue
        criteria.append(
            Criterion(text.format(value=value, reference=reference), value, reference, compare(value, reference))
        )
    return criteria
