"""Words of motions and captions: as bars, as maps over time and body, and both in the explanation of a pair."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lexmotion.processing.skeletons import Skeleton, part_names

from .drawing import BLUE, DARK, FONT, GREY, escape_text, motion_strip, new_figure, root_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..explain import Explanation


def word_bars(
    words: Sequence[str],
    weights: Sequence[float],
    highlight: Collection[str] = (),
    ax: Axes | None = None,
    title: str | None = None,
    num_rows: int | None = None,
    decimals: int = 2,
) -> Figure:
    """
    Draw words as horizontal bars in the given order, highlighted ones blue and bold.

    Args:
        words: the words, most important first; an empty list is noted in the figure.
        weights: their weights, at least zero.
        highlight: words to highlight, such as those that a caption shares.
        ax: axes to draw on; None creates a figure.
        title: line above.
        num_rows: rows to leave room for, so that lists side by side have equal bars.
        decimals: decimals of the weights beside the bars.

    Returns:
        The figure drawn on.
    """
    if len(words) != len(weights):
        raise ValueError(f"got {len(words)} words, but {len(weights)} weights; pass one weight per word")
    if ax is None:
        figure = new_figure(3.2, 0.6 + 0.22 * max(len(words), 1))
        ax = figure.add_subplot()
    stressed = set(highlight)
    places = [float(place) for place in range(len(words))]
    values = np.asarray(weights, dtype=np.float64)
    longest = float(values.max(initial=0.0)) or 1.0
    ax.barh(places, values, height=0.72, color=[BLUE if word in stressed else GREY for word in words], linewidth=0)
    ax.set_yticks(places, [escape_text(word) for word in words])
    for label, word in zip(ax.get_yticklabels(), words, strict=True):
        label.set_fontweight("bold" if word in stressed else "normal")
        label.set_color(BLUE if word in stressed else DARK)
    for place, value in zip(places, values, strict=True):
        ax.text(
            value + 0.02 * longest, place, f"{value:.{decimals}f}", va="center", ha="left", fontsize=7, color="#777777"
        )
    if not len(words):
        ax.text(0.5, 0.5, "no active word", transform=ax.transAxes, ha="center", va="center", color="#777777")
    ax.set_xlim(0, 1.18 * longest)
    ax.set_ylim(max(len(words), num_rows or 1) - 0.4, -0.6)
    ax.set_xticks([])
    ax.tick_params(axis="y", length=0)
    ax.spines[:].set_visible(False)
    if title:
        ax.set_title(title, loc="left", color=DARK, fontweight="bold")
    return root_figure(ax)


def word_maps(
    maps: Any,
    words: Sequence[str],
    window_seconds: float | None = None,
    parts: Sequence[str] | None = None,
    highlight: Collection[str] = (),
    axes: Sequence[Axes] | None = None,
) -> Figure:
    """
    Draw where each word was read: for every body part a map of word x time window.

    Args:
        maps: score of each word at each time window and body part (W, Nt, Np), at least zero.
        words: the words (W).
        window_seconds: length of a time window; if None, windows are numbered.
        parts: names of the body parts (Np); if None, those of the skeletons.
        highlight: words to highlight.
        axes: axes to draw on (Np); None creates a figure.

    Returns:
        The figure drawn on.

    Raises:
        ValueError: if shapes differ, or there is no word.
    """
    scores = np.where(np.isfinite(maps := np.asarray(maps, dtype=np.float64)), maps, 0.0)
    if scores.ndim != 3 or len(scores) != len(words) or 0 in scores.shape:
        raise ValueError(f"maps: expected shape ({len(words)}, windows, parts), none of them 0, got {scores.shape}")
    _, windows, num_parts = scores.shape
    titles = list(parts) if parts is not None else part_names(num_parts)
    if len(titles) != num_parts:
        raise ValueError(f"parts: got {len(titles)} names for {num_parts} body parts; pass one name per part")
    if axes is None:
        figure = new_figure(1.3 + 1.35 * num_parts, 1.0 + 0.24 * len(words))
        axes = list(figure.subplots(1, num_parts, sharey=True, squeeze=False)[0])
    top = float(scores.max()) or 1.0
    seconds = window_seconds or 1.0
    stressed = set(highlight)
    for number, (ax, title) in enumerate(zip(axes, titles, strict=True)):
        extent = (0.0, windows * seconds, len(words) - 0.5, -0.5)
        style: dict[str, Any] = {"cmap": "cividis", "vmin": 0.0, "vmax": top, "interpolation": "nearest"}
        ax.imshow(scores[:, :, number], extent=extent, aspect="auto", **style)
        ax.set_title(title, color=DARK, fontsize=8)
        ax.tick_params(length=0, labelsize=7, colors="#777777")
        ax.set_yticks(np.arange(len(words)), [escape_text(word) for word in words])
        ax.tick_params(axis="y", labelleft=number == 0)
        ax.set_yticks(np.arange(len(words) + 1) - 0.5, minor=True)
        ax.grid(which="minor", axis="y", color="white", lw=1.0)
        ax.tick_params(which="minor", length=0)
        ax.spines[:].set_visible(False)
        if number == 0:
            for label, word in zip(ax.get_yticklabels(), words, strict=True):
                label.set(color=BLUE if word in stressed else DARK, fontsize=9)
                label.set_fontweight("bold" if word in stressed else "normal")
    axes[num_parts // 2].set_xlabel("seconds" if window_seconds else "time window", color="#777777", fontsize=8)
    bar = axes[0].figure.colorbar(axes[0].images[0], ax=list(axes), fraction=0.03, pad=0.01, aspect=12)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=7, colors="#777777")
    return root_figure(axes[0])


def explanation_figure(
    explanation: Explanation,
    positions: Any,
    k: int = 10,
    fps: float | None = None,
    skeleton: str | Skeleton | None = None,
) -> Figure:
    """
    Draw an explanation: caption, stick figures, top words of motion and text, and where each word was read.

    Args:
        explanation: of a motion, with or without a caption; words on both lists are highlighted.
        positions: the motion (T, J, 3), Y up.
        k: words per side, heaviest first.
        fps, skeleton: see [`motion_strip`].

    Returns:
        The figure, for [`save_figure`].
    """
    from matplotlib import rc_context

    words = [(item.word, item.weight) for item in explanation.words[:k]]
    caption = None if explanation.text is None else explanation.text_words[:k]
    shared = {word for word, _ in words} & {word for word, _ in caption or ()}
    num_rows = max(len(words), len(caption or ()))
    heights = [1.9, 0.55 + 0.21 * max(num_rows, 3), *([0.85 + 0.21 * len(words)] if words else [])]
    with rc_context(FONT):
        figure = new_figure(9.0, sum(heights) + (0.5 if explanation.text else 0.1))
        bands = figure.subfigures(len(heights), 1, height_ratios=heights, hspace=0.02, squeeze=False)[:, 0]
        motion_strip(positions, skeleton, fps, 10, ax=bands[0].add_subplot())
        if explanation.text:
            score = "" if explanation.score is None else f"   similarity {explanation.score:.2f}"
            line = f"“{explanation.text.strip()}”{score}"
            figure.suptitle(escape_text(textwrap.fill(line, 100)), fontsize=11, color=DARK, style="italic")
        columns = bands[1].subplots(1, 1 if caption is None else 2, squeeze=False)[0]
        word_bars(*split_pairs(words), shared, columns[0], "words of the motion", num_rows)
        if caption is not None:
            word_bars(*split_pairs(caption), shared, columns[1], "words of the caption", num_rows)
        if words:
            axes = list(bands[2].subplots(1, explanation.grid[1], sharey=True, squeeze=False)[0])
            names = [word for word, _ in words]
            word_maps(explanation.maps[: len(words)], names, explanation.window_seconds, None, shared, axes)
    return figure


def split_pairs(words: Sequence[tuple[str, float]]) -> tuple[list[str], list[float]]:
    """Split (word, weight) pairs into words and weights."""
    return [word for word, _ in words], [float(weight) for _, weight in words]
