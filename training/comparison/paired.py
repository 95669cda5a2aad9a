"""Rows over all captions of a clip, on short and long clips apart, with paired intervals over clips."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lexmotion.evaluation.metrics.all_captions import paired_interval
from lexmotion.evaluation.model_evaluation import SHORT_SECONDS, clip_parts

from .rows import REFERENCE

PARTS = {"all": "all clips", "short": f"clips under {SHORT_SECONDS:g} s", "long": "longer clips"}
Results = Mapping[str, Sequence[Mapping[str, Any]]]


def of_gallery(results: Results, gallery: str) -> Results:
    """Return the results that were also measured on a further gallery, with the figures of it alone."""
    return {
        name: [
            {**result, **result["galleries"][gallery]} for result in of_row if gallery in result.get("galleries", {})
        ]
        for name, of_row in results.items()
    }


def by_clip(results: Results) -> dict[str, dict[str, Any]]:
    """
    Return the figures over all captions of every row that was scored with them.

    Args:
        results: results as returned by `Comparison.collect`, or `of_gallery`.

    Returns:
        Row -> `seeds`; `rsum`: part -> list of Rsum by seed; and, for every row but LexMotion, `behind`: part -> mean,
        lower and upper end of the 95 % interval of LexMotion minus this row, over their common seeds (a row that
        nothing is trained for has the same scores for all). A part without clips is left out.
    """
    scored = {name: [result for result in of_row if result.get("clips")] for name, of_row in results.items()}
    scored = {name: of_row for name, of_row in scored.items() if of_row}
    found: dict[str, dict[str, Any]] = {}
    for name, of_row in scored.items():
        rsum = {
            part: [result["all_captions"][part]["Rsum"] for result in of_row]
            for part in PARTS
            if of_row[0]["all_captions"][part] is not None
        }
        found[name] = {"seeds": [result["seed"] for result in of_row], "rsum": rsum, "behind": None}
        if name != REFERENCE and REFERENCE in scored:
            found[name]["behind"] = differences(scored[REFERENCE], of_row)
    return found


def differences(
    reference: Sequence[Mapping[str, Any]], row: Sequence[Mapping[str, Any]]
) -> dict[str, tuple[float, float, float]] | None:
    """Return part -> mean, lower and upper end of reference minus row; None without common seeds or the same clips."""
    clips = reference[0]["clips"]
    common = {result["seed"] for result in reference}
    if row[0]["trainings"]:
        common &= {result["seed"] for result in row}
        row = [result for result in row if result["seed"] in common]
    own = [result for result in reference if result["seed"] in common]
    if not own or any(result["clips"]["id"] != clips["id"] for result in (*own, *row)):
        return None
    one, two = (np.array([result["clips"]["score"] for result in side]) for side in (own, row))
    parts = clip_parts(np.array(clips["seconds"]))
    return {part: paired_interval(one[:, mask], two[:, mask]) for part, mask in parts.items() if mask.any()}


def interval_text(interval: Sequence[float] | None) -> str:
    """
    Format a difference with its interval.

    Example:
        >>> interval_text((12.34, 1.0, 23.6))
        '+12.3 [+1.0, +23.6]'
    """
    if interval is None:
        return ""
    mean, low, high = interval
    return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]"
