"""Rows of coloured cells under a strip of stick figures, one figure and one column per time window."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .drawing import DARK, FONT, draw_poses, escape_text, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 7.2  # inches, at most
LARGEST_COLUMN = 0.62
MARGIN = 0.12


def timeline(
    positions: Any,
    windows: int,
    window_seconds: float,
    rows: Sequence[int],
    fps: float | None = None,
    skeleton: str | None = None,
    title: str | None = None,
    margins: tuple[float, float] = (0.95, 0.18),
    row_height: float = 0.17,
    gap: float = 0.06,
) -> tuple[Figure, list[Axes]]:
    """
    Draw a strip with one figure per time window, and empty axes below it whose columns are aligned with the figures.

    Args:
        positions: joint positions (T, J, 3), Y up.
        windows, window_seconds: number of columns, and length of each.
        rows: number of rows of cells in each of the axes below.
        fps, skeleton: see [`motion_strip`].
        title: title above.
        margins: inches left of the cells, for their labels, and right of them.
        row_height, gap: inches per row, and above each axes.

    Returns:
        The figure, and its axes: x from 0 to `windows`, y from `rows` at the bottom to 0.

    Raises:
        ValueError: if there are no windows, or a shape does not fit.
    """
    from matplotlib import rc_context

    from lexmotion.processing.skeletons import skeleton_for_joints

    if windows < 1 or not window_seconds > 0:
        raise ValueError(f"windows, window_seconds: got {windows} and {window_seconds}; pass positive numbers")
    labels, right = margins
    rate = skeleton_for_joints(np.shape(positions)[1]).fps if fps is None else fps
    middles = (np.arange(windows) + 0.5) * window_seconds * rate
    frames = np.clip(middles.astype(int), 0, len(positions) - 1)
    column = min(LARGEST_COLUMN, (WIDTH - labels - right) / windows)
    width = labels + windows * column + right
    title = None if title is None else escape_text(textwrap.fill(title.strip(), max(int(12.5 * width), 30)))
    with rc_context(FONT):
        figure = new_figure(width, 1.0)
        figure.set_layout_engine("none")
        strip_axes = figure.add_axes((0, 0, 1, 1))
        strip = draw_poses(strip_axes, positions, frames, skeleton, fps, seconds=False)
        inches = column / strip.step
        low, high = strip.floor - 0.04 * strip.height, 1.12 * strip.height
        strip_height = (high - low) * inches
        head = MARGIN + (0.0 if title is None else 0.17 * (title.count("\n") + 1) + 0.08)
        height = head + strip_height + gap * len(rows) + row_height * sum(rows) + 0.42
        figure.set_size_inches(width, height)

        def place(top: float, tall: float) -> tuple[float, float, float, float]:
            return (labels / width, 1 - (top + tall) / height, windows * column / width, tall / height)

        strip_axes.set_aspect("auto")
        strip_axes.set_position(place(head, strip_height))
        strip_axes.set_xlim(strip.places[0] - strip.step / 2, strip.places[-1] + strip.step / 2)
        strip_axes.set_ylim(low, high)
        for artist in strip_axes.get_children():
            artist.set_clip_on(False)
        top = head + strip_height
        axes = []
        for number in rows:
            ax = figure.add_axes(place(top + gap, number * row_height))
            ax.set(xlim=(0, windows), ylim=(number, 0))
            ax.tick_params(length=0, labelsize=7, colors="#777777")
            ax.set_xticks([])
            ax.spines[:].set_visible(False)
            axes.append(ax)
            top += gap + number * row_height
        ticks = np.arange(0, windows + 1, max(1, -(-windows // 14)))
        axes[-1].set_xticks(ticks, [f"{tick * window_seconds:.1f}" for tick in ticks])
        axes[-1].set_xlabel("seconds", color="#777777", fontsize=7.5)
        if title is not None:
            figure.text(0.5, 1 - MARGIN / height, title, ha="center", va="top", fontsize=9, color=DARK, style="italic")
    return figure, axes


def cells(ax: Axes, colors: Any, labels: Sequence[str]) -> None:
    """
    Fill axes of [`timeline`].

    Args:
        ax: one of the axes.
        colors: red, green, blue from 0 to 1 (rows, windows, 3).
        labels: labels of the rows.
    """
    height, width = np.shape(colors)[:2]
    ax.pcolormesh(np.arange(width + 1), np.arange(height + 1), colors, edgecolors="white", linewidth=0.8)
    ax.set_yticks(np.arange(height) + 0.5, [escape_text(label) for label in labels])
