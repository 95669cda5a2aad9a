"""When each word is seen in a motion, and in which part of the body."""

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

NAMED = 0.5  # of a word's highest score; cells above it show their body part
SHORT = {"right": "R", "left": "L"}


def short_part(name: str) -> str:
    """Shorten `right leg` to `R leg`, and the longer names of single joints to their last word."""
    words = name.split()
    if words[0] in SHORT and len(words) > 1:
        return f"{SHORT[words[0]]} {words[-1]}"
    return name if words[0] == "part" else words[-1]


def over_time(maps: Any) -> tuple[np.ndarray, np.ndarray]:
    """
    Find the best body part of every word at every time.

    Args:
        maps: score of each word at each time window and body part (W, Nt, Np), not empty.

    Returns:
        Scores, float64, and body parts, int64, both (W, Nt).
    """
    scores = np.where(np.isfinite(maps := np.asarray(maps, dtype=np.float64)), maps, 0.0)
    if scores.ndim != 3 or 0 in scores.shape:
        raise ValueError(f"maps: expected shape (words, windows, parts), none of them 0, got {scores.shape}")
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
    Draw stick figures over a map of word x time; cells near a word's highest score name the body part it was seen in.

    Args:
        positions: joint positions (T, J, 3), Y up.
        maps: score of each word at each time window and body part (W, Nt, Np).
        words, parts: names of the words (W) and body parts (Np).
        window_seconds: length of a time window.
        products: contributions of words to the score of a pair, written beside them.
        highlight: words to highlight.
        title: title above.
        fps, skeleton: see [`motion_strip`].
    """
    from matplotlib import colormaps

    scores, best = over_time(maps)
    if len(words) != len(scores) or len(parts) != np.shape(maps)[2]:
        names = f"{len(words)} words and {len(parts)} body parts"
        raise ValueError(f"names: got {names} for maps of {np.shape(maps)}; pass one name per word and part")
    windows = scores.shape[1]
    layout: dict[str, Any] = {"margins": (1.05, 0.55 if products else 0.18), "row_height": 0.19}
    figure, (ax,) = timeline(positions, windows, window_seconds, [len(words)], fps, skeleton, title, **layout)
    top = float(scores.max()) or 1.0
    shades = colormaps["cividis"](scores / top)[..., :3]
    cells(ax, shades, words)
    size = 5.5 if scores.shape[1] > 9 else 6.5
    for row, column in np.argwhere((scores >= NAMED * scores.max(axis=1, keepdims=True)) & (scores > 0)):
        weight = "bold" if scores[row].argmax() == column else "normal"
        color = "black" if scores[row, column] > 0.45 * top else "white"
        name = short_part(parts[best[row, column]])
        style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": size, "fontweight": weight}
        ax.text(column + 0.5, row + 0.52, name, color=color, **style)
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
    Draw [`words_over_time`] for an explanation: shared words by contribution, then the motion's heaviest other words.

    Args:
        explanation: explanation of a motion with at least one word, with or without a caption.
        positions: the motion (T, J, 3).
        k: number of words; shared ones take at most four fifths if there are others.
        fps, skeleton: see [`motion_strip`].
    """
    if not explanation.words:
        raise ValueError("explanation: the motion has no active words; explain another motion")
    alone = [word for word in explanation.words if not word.contribution]
    shared = explanation.shared[: k - min(len(alone), k // 5)]
    chosen = shared + alone[: k - len(shared)]
    places = {word.word: place for place, word in enumerate(explanation.words)}
    names, products = [word.word for word in chosen], {word.word: word.contribution for word in shared}
    maps, seconds = explanation.maps[[places[name] for name in names]], explanation.window_seconds
    parts, title = part_names(explanation.grid[1]), explanation.text and f"“{explanation.text.strip()}”"
    return words_over_time(positions, maps, names, seconds, parts, products, set(products), title, fps, skeleton)
