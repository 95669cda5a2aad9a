"""Acceptance criteria: the figures of a phase, judged against their own baselines.

Only criteria that need no second training run; gains must exceed the half-width of their 95 % interval.
"""

import operator
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Criterion:
    """
    One criterion of a phase and whether it is met.

    Args:
        text: criterion with both numbers.
        value: the figure.
        reference: the number it is compared with.
        met: whether it is met; False if a number is NaN.
    """

    text: str
    value: float
    reference: float
    met: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, JSON-safe."""
        return asdict(self)


# (figure, comparison, name of the reference figure or a number, text); a text may use {value} and {reference}.
Rule = tuple[str, Callable[[float, float], bool], str | float, str]


def _gain_rule(name: str, other: str) -> Rule:
    text = f"gain over {other} {{value:.2f}} ± {{reference:.2f}} nat"
    return f"gain_over_{name}", operator.gt, f"gain_over_{name}_ci", text


def _prior_rule(k: int) -> Rule:
    text = f"caption words in the top {k}: {{value:.0%}}, prior {{reference:.0%}}"
    return f"coverage_top{k}", operator.gt, f"prior_top{k}", text


_OFF = "hidden joints off by {value:.3f}, "
RULES: dict[str, list[Rule]] = {
    "lexmlm": [
        _gain_rule("zeroed", "a zeroed bottleneck"),
        _gain_rule("shuffled", "another caption's"),
        (
            "content_word_share",
            operator.gt,
            "base_content_word_share",
            "content words in the top 10: {value:.0%}, untouched {reference:.0%}",
        ),
    ],
    "cmmm": [
        ("masked_error", operator.lt, "interpolation_error", _OFF + "interpolation {reference:.3f}"),
        ("masked_error", operator.lt, "mean_pose_error", _OFF + "mean pose {reference:.3f}"),
        ("same_clip_r1", operator.gt, "same_clip_chance", "same clip found R@1 {value:.0f}, chance {reference:.1f}"),
        ("feature_spread", operator.gt, 0.5, "feature spread {value:.2f}, collapsed under {reference}"),
    ],
    "lexmmm": [
        _gain_rule("shuffled", "another motion's words"),
        ("coverage_top20", operator.ge, 0.4, "caption words in the top 20: {value:.0%}, {reference:.0%} wanted"),
        _prior_rule(20),
    ],
    "lexcmlp": [
        _prior_rule(10),
        ("text_universal", operator.le, 0.0, "words in over half of the captions: {value:.0f}, none wanted"),
        ("motion_universal", operator.le, 0.0, "words in over half of the motions: {value:.0f}, none wanted"),
    ],
}


def judge(phase: str, figures: Mapping[str, float]) -> list[Criterion]:
    """
    Judge the criteria of a phase, as far as `figures` contain their numbers.

    Args:
        phase: `lexmlm`, `cmmm`, `lexmmm` or `lexcmlp`.
        figures: acceptance figures of that phase, see `lexmotion.evaluation.acceptance`.

    Raises:
        ValueError: if the phase is unknown.

    Example:
        >>> [criterion.text for criterion in judge("lexcmlp", {"coverage_top10": 0.62, "prior_top10": 0.31})]
        ['caption words in the top 10: 62%, prior 31%']
    """
    if phase not in RULES:
        raise ValueError(f"phase: got {phase!r}; choose one of {', '.join(RULES)}")
    criteria = []
    for name, compare, other, text in RULES[phase]:
        reference = figures.get(other) if isinstance(other, str) else other
        value = figures.get(name)
        if value is not None and reference is not None:
            shown = text.format(value=value, reference=reference)
            criteria.append(Criterion(shown, value, reference, compare(value, reference)))
    return criteria
