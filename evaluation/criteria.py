"""Acceptance criteria: the figures of a task, judged against their own baselines.

Only criteria that need no second training run; gains must exceed the half-width of their 95 % interval.
"""

import operator
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Criterion:
    """
    One acceptance criterion of a task and its verdict.

    Args:
        text: the criterion with both numbers.
        value: the figure.
        reference: the number it is compared with.
        met: whether the criterion is met; never for NaN.
    """

    text: str
    value: float
    reference: float
    met: bool

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary that JSON can hold."""
        return asdict(self)


# (figure, comparison, name of the reference figure or a number, text); a text may use {value} and {reference}.
Rule = tuple[str, str, str | float, str]
COMPARISONS = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}


def judge(rules: Sequence[Rule], figures: Mapping[str, float]) -> list[Criterion]:
    """
    Judge the criteria of a task, as far as `figures` contain their numbers.

    Args:
        rules: of the task.
        figures: its acceptance figures, see `lexmotion.evaluation.acceptance`.

    Example:
        >>> rules = [("coverage", ">", "prior", "{value:.0%} of the words, prior {reference:.0%}")]
        >>> [criterion.text for criterion in judge(rules, {"coverage": 0.62, "prior": 0.31})]
        ['62% of the words, prior 31%']
    """
    criteria = []
    for name, comparison, other, text in rules:
        reference = figures.get(other) if isinstance(other, str) else other
        value = figures.get(name)
        if value is None or reference is None:
            continue
        met = COMPARISONS[comparison](value, reference)
        criteria.append(Criterion(text.format(value=value, reference=reference), value, reference, met))
    return criteria
