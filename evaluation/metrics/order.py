"""The order test: a caption must fit its motion better than the same caption with its events exchanged.

A model that ignores order would prefer half of all captions, and more if it has only learned which order is usual
("walks, then stops"). So the same pairs are also scored with the other motions: their preference is habit.
"""

import re
from collections.abc import Sequence

import numpy as np

from lexmotion.processing.corpora.event_order import swap_events

MIDDLE_95 = 1.959963984540054  # normal quantile
NO_CAPTION = "no caption of this split names several events in order ('sits down, then stands up'); use another split"
CONNECTIVE = re.compile(r"\b(then|next|finally|afterwards?|followed)\b", re.IGNORECASE)


def multi_event_captions(captions: Sequence[Sequence[str]]) -> tuple[list[str], list[str], np.ndarray]:
    """
    Find the captions that name several events in order.

    Args:
        captions: all captions of each of N motions.

    Returns:
        C captions, the same with their events exchanged, and their motions (C,).
    """
    found = [
        (caption, swapped, motion)
        for motion, texts in enumerate(captions)
        for caption in dict.fromkeys(texts)
        if (swapped := swap_events(caption)) is not None
    ]
    return [one[0] for one in found], [one[1] for one in found], np.array([one[2] for one in found], dtype=np.int64)


def share_won(true: np.ndarray, swapped: np.ndarray) -> np.ndarray:
    """Return 1 if the first score is higher, 0 if it is lower, a half if they tie."""
    return 0.5 * (1.0 + np.sign(np.asarray(true, np.float64) - np.asarray(swapped, np.float64)))


def clustered_interval(won: np.ndarray, motions: np.ndarray) -> tuple[float, float]:
    """
    Compute the 95 % interval of a mean over captions; those of one motion are not independent and count as one draw.

    Args:
        won: (C,) in [0, 1].
        motions: motion that each caption belongs to (C,).
    """
    mean = float(won.mean())
    _, cluster = np.unique(motions, return_inverse=True)
    sums = np.bincount(cluster, weights=won - mean)
    clusters = len(sums)
    correction = clusters / max(clusters - 1, 1)
    half = MIDDLE_95 * float(np.sqrt(correction * (sums**2).sum())) / len(won)
    return max(mean - half, 0.0), min(mean + half, 1.0)


def order_metrics(
    true: np.ndarray, swapped: np.ndarray, captions: Sequence[str], motions: np.ndarray
) -> dict[str, float | int]:
    """
    Run the order test on scores.

    Args:
        true, swapped: scores of the captions and of the swapped ones with all motions (C, N).
        captions: the captions (C).
        motions: column of each caption's own motion (C,).

    Returns:
        `share` of captions that beat their swapped version, ties half, with its 95 % interval `low` and `high`; the
        number of `captions` and `motions`; `other_motions`, the mean share with the motions of other captions, which
        habit alone reaches; `share_then` and `share_before_after` by connective, with `captions_*`.

    Raises:
        ValueError: if there is no caption.
    """
    if not len(captions):
        raise ValueError(NO_CAPTION)
    won = share_won(true, swapped)
    own = won[np.arange(len(captions)), motions]
    low, high = clustered_interval(own, motions)
    figures: dict[str, float | int] = {"share": float(own.mean()), "low": low, "high": high}
    figures |= {"captions": len(captions), "motions": len(np.unique(motions))}
    if won.shape[1] > 1:
        figures["other_motions"] = float((won.sum() - own.sum()) / (won.size - len(captions)))
    exchanged = np.array([CONNECTIVE.search(text) is not None for text in captions])
    for name, rows in (("then", exchanged), ("before_after", ~exchanged)):
        if rows.any():
            figures[f"share_{name}"] = float(own[rows].mean())
            figures[f"captions_{name}"] = int(rows.sum())
    return figures
