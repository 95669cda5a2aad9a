"""
Retrieval with every caption of a clip as a query, per clip, so that two systems can be compared clip by clip.

Which of its captions stands for a clip changes Rsum more than the choice of system does. Here each caption counts, and
every clip counts once, whatever its number of captions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .retrieval import DIRECTIONS, RECALL_AT, as_rows, row_ranks

RESAMPLES = 10_000
# Resampled means per block, which bounds the memory to a few tens of MB.
_BLOCK_CELLS = 1 << 22


def clip_recalls(similarity: Any, counts: Sequence[int]) -> np.ndarray:
    """
    Compute the recalls of every clip under `all-strict`, averaged over its captions.

    From text to motion, each caption is a query to the gallery of motions. From motion to text, each caption of the
    clip is looked for in a gallery with one caption per clip: gallery `r` of `max(counts)` holds caption `r mod n` of
    a clip with `n` captions. Ties get their mean position, as in `ranks`.

    Args:
        similarity: score of every caption with every motion (C, N), the captions of a clip side by side; an array or
            `ScoreRows`, which is read twice, block by block.
        counts: number of captions of each clip (N), at least 1.

    Returns:
        (N, 2, 5) float64 from 0 to 1: text to motion and motion to text, at 1, 2, 3, 5 and 10. The sum of its mean
        over clips, times 100, is Rsum.

    Raises:
        ValueError: if the counts do not add up to C, their number is not N, one is below 1, or a score is NaN.

    Example:
        >>> clip_recalls([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]], [2, 1])[:, 0, 0]
        array([0.5, 1. ])
    """
    scores = as_rows(similarity)
    each = np.asarray(counts, dtype=np.int64)
    if scores.shape != (each.sum(), len(each)) or (each < 1).any():
        raise ValueError(
            f"similarity matrix: got shape {scores.shape} for {each.sum()} captions of {len(each)} clips; "
            "pass (captions, clips), with at least one caption per clip"
        )
    clips, cutoffs = np.arange(len(each)), np.array(RECALL_AT)
    starts: Any = np.cumsum(each) - each
    owner = np.repeat(clips, each)
    own = np.empty(len(owner))  # score of each caption with its clip
    hits = np.zeros((len(owner), len(DIRECTIONS), len(RECALL_AT)))
    for start, block in scores.blocks():
        rows = slice(start, start + len(block))
        found = row_ranks(block, owner[rows, None] == clips, "average", start, "caption")
        hits[rows, 0] = found[:, None] < cutoffs
        own[rows] = block[np.arange(len(block)), owner[rows]]
    shown = starts + np.arange(each.max())[:, None] % each  # (turns, N) caption of each clip in each gallery
    before, tied = np.zeros((2, *shown.shape), dtype=np.int64)
    for start, block in scores.blocks():
        for turn, captions in enumerate(shown):
            seen = block[captions[(captions >= start) & (captions < start + len(block))] - start]
            before[turn] += np.count_nonzero(seen > own[captions], axis=0)
            tied[turn] += np.count_nonzero(seen == own[captions], axis=0)
    places = before + (tied - 1) / 2
    for turn, captions in enumerate(shown):
        hits[captions, 1] += places[turn, :, None] < cutoffs
    hits[:, 1] /= np.bincount(shown.ravel(), minlength=len(owner))[:, None]
    return np.add.reduceat(hits, starts, axis=0) / each[:, None, None]


def clip_scores(recalls: np.ndarray) -> np.ndarray:
    """Return the score of each clip (N,), whose mean is Rsum (at most 1000), of `clip_recalls` (N, 2, 5)."""
    return 100.0 * recalls.sum(axis=(1, 2))


def recall_metrics(recalls: np.ndarray) -> dict[str, float]:
    """Return the means over clips of `clip_recalls` (N, 2, 5): `t2m/R1` to `m2t/R10` (percent), and `Rsum`."""
    means = 100.0 * recalls.mean(axis=0)
    figures = {
        f"{direction}/R{k}": float(means[row, column])
        for row, direction in enumerate(DIRECTIONS)
        for column, k in enumerate(RECALL_AT)
    }
    return figures | {"Rsum": float(means.sum())}


def paired_interval(
    scores: Any, other: Any, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float, float]:
    """
    Compute the mean difference of two systems on the same clips, with a bootstrap interval over clips.

    Args:
        scores, other: score of each clip, the same clips in the same order, (N,); or (S, N) for S seeds, which are
            averaged first.
        level: coverage of the interval (percentile bootstrap, Efron and Tibshirani 1993).
        resamples: number of resampled sets of clips.
        seed: seed of the resampling.

    Returns:
        Mean difference, lower and upper end of the interval.

    Raises:
        ValueError: if the numbers of clips differ or are 0.
    """
    one, two = (np.atleast_2d(np.asarray(values, dtype=np.float64)).mean(axis=0) for values in (scores, other))
    if one.shape != two.shape or not one.size:
        raise ValueError(
            f"scores: got {one.size} and {two.size} clips; pass the scores of the same clips, at least one"
        )
    difference = one - two
    random = np.random.default_rng(seed)
    step = max(1, _BLOCK_CELLS // len(difference))
    means = [
        difference[random.integers(len(difference), size=(min(step, resamples - start), len(difference)))].mean(axis=1)
        for start in range(0, resamples, step)
    ]
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return float(difference.mean()), float(low), float(high)
