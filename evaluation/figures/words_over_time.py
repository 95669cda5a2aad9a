"""A pair over time: when each word is seen in a motion, and in which part of the body."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lexmotion.processing.skeletons import part_names

from .drawing import BLUE, DARK
from .timeline import cells, timeline

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..explain import Explanation

NAMED = 0.5  # of a word's highest score: cells above it tell their body part
SHORT = {"right": "R", "left": "L"}


def short_part(name: str) -> str:
    """`right leg` -> `R leg`; of the longer names of single joints the last word."""
    words = name.split()
    if words[0] in SHORT and len(words) > 1:
        return f"{SHORT[words[0]]} {words[-1]}"
    return name if words[0] == "part" else words[-1]


def over_time(maps: Any) -> tuple[np.ndarray, np.ndarray]:
    """
    The best body part of every word at every time.

    Args:
        maps (`np.ndarray` of shape `(W, Nt, Np)`): score of each word at each time window and body part.

    Returns:
        scores, float64, and body parts, int64, both of shape `(W, Nt)`.

    Raises:
        ValueError: another shape, or an empty one.
    """
    scores = np.where(np.isfinite(maps := np.asarray(maps, dtype=np.float64)), maps, 0.0)
    if scores.ndim != 3 or 0 in scores.shape:
        raise ValueError(f"Maps must have shape (words, windows, parts) and not be empty, got {scores.shape}.")
    return scores.max(axis=2), scores.argmax(axis=2)


def words_over_time(
    positions: Any,
    maps: Any,
    words: Sequence[str],
    window_seconds: float,
    parts: Sequence[str],
    products: Mapping[str, float] | None = None,
    highlight: Collection[str] = (),
    title: str | None = None,
    fps: float | None = None,
    skeleton: str | None = None,
) -> Figure:
    """
    Stick figures over a map of word x time; cells near a word's highest score say in which body part it was seen.

    Args:
        positions (`np.ndarray` of shape `(T, J, 3)`): joint positions, Y up.
        maps (`np.ndarray` of shape `(W, Nt, Np)`): score of each word at each time window and body part.
        words (`Sequence[str]` of length W), parts (`Sequence[str]` of length Np): their names.
        window_seconds (`float`): length of a time window.
        products (`Mapping[str, float]`, *optional*): what words add to the score of a pair, written beside them.
        highlight (`Collection[str]`, *optional*): words to stress. title (`str`, *optional*): written above.
        fps, skeleton: as in [`motion_strip`].

    Raises:
        ValueError: a shape does not fit.
    """
    from matplotlib import colormaps

    scores, best = over_time(maps)
    if len(words) != len(scores) or len(parts) != np.shape(maps)[2]:
        raise ValueError(f"{len(words)} words and {len(parts)} body parts do not name maps of {np.shape(maps)}.")
    figure, (ax,) = timeline(
        positions,
        scores.shape[1],
        window_seconds,
        [len(words)],
        fps,
        skeleton,
        title,
        margins=(1.05, 0.55 if products else 0.18),
        row_height=0.19,
    )
    top = float(scores.max()) or 1.0
    shades = colormaps["cividis"](scores / top)[..., :3]
    cells(ax, shades, words)
    size = 5.5 if scores.shape[1] > 9 else 6.5
    for row, column in np.argwhere((scores >= NAMED * scores.max(axis=1, keepdims=True)) & (scores > 0)):
        is_winner = scores[row].argmax() == column
        ax.text(
            column + 0.5,
            row + 0.52,
            short_part(parts[best[row, column]]),
            ha="center",
            va="center",
            fontsize=size,
            fontweight="bold" if is_winner else "normal",
            color="black" if scores[row, column] > 0.45 * top else "white",
        )
    for label, word in zip(ax.get_yticklabels(), words, strict=True):
        label.set(color=BLUE if word in highlight else DARK, fontsize=8)
        label.set_fontweight("bold" if word in highlight else "normal")
    if products:
        for row, word in enumerate(words):
            added = products.get(word, 0.0)
            text, color = (f"+{added:.3f}", BLUE) if added else ("-", "#777777")
            ax.text(len(scores[0]) + 0.12, row + 0.52, text, va="center", fontsize=7, color=color)
        ax.text(len(scores[0]) + 0.12, -0.25, "adds", va="bottom", fontsize=7, color="#777777")
    return figure


def timeline_of(
    explanation: Explanation, positions: Any, k: int = 14, fps: float | None = None, skeleton: str | None = None
) -> Figure:
    """
    [`words_over_time`] of an explanation: shared words by what they add, then the motion's heaviest other words.

    Args:
        explanation (`Explanation`): of a motion, with or without a caption.
        positions (`np.ndarray` of shape `(T, J, 3)`): the motion.
        k (`int`, *optional*, defaults to 14): words; of shared ones at most four fifths, if there are others.
        fps, skeleton: as in [`motion_strip`].

    Raises:
        ValueError: the motion has no words.
    """
    if not explanation.words:
        raise ValueError("The motion has no words that could be drawn over time.")
    alone = [word for word in explanation.words if not word.contribution]
    shared = explanation.shared[: k - min(len(alone), k // 5)]
    chosen = shared + alone[: k - len(shared)]
    places = {word.word: place for place, word in enumerate(explanation.words)}
    return words_over_time(
        positions,
        explanation.maps[[places[word.word] for word in chosen]],
        [word.word for word in chosen],
        explanation.window_seconds,
        part_names(explanation.grid[1]),
        {word.word: word.contribution for word in shared},
        {word.word for word in shared},
        None if explanation.text is None else f"“{explanation.text.strip()}”",
        fps,
        skeleton,
    )
