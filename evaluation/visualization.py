"""Pictures of motions and their words: stick-figure strips, word bars, explanations, the picture of the README.

Colours are Okabe and Ito's, told apart by colour-blind readers: blue is the body's left side and what motion and text
share, orange the body's right side. Figures are made without pyplot, so no window and no global state are touched.
`matplotlib` is imported when a picture is drawn.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lexmotion.processing.skeletons import Skeleton, get_skeleton, part_names, skeleton_for_joints

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, DARK, GREY, LIGHT = "#0072B2", "#D55E00", "#333333", "#B5B5B5", "#E9E9E9"
SIDE_COLORS = {"left": BLUE, "right": ORANGE, "middle": DARK}
# Seen from the front and a little from the body's left, slightly from above: degrees.
VIEW = (30.0, 12.0)
FONT = {"font.family": ["DejaVu Sans"], "font.size": 9.0, "axes.titlesize": 9.0}

Words = Sequence[tuple[str, float]]


def new_figure(width: float, height: float) -> Figure:
    """A figure of `width` x `height` inches that needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: str | os.PathLike, dpi: int = 150) -> Path:
    """
    Write a figure in one step: a reader sees the old file or the new one, never half of it.

    Args:
        figure (`Figure`): the picture.
        path (`str` or `os.PathLike`): file to write; its ending says the format (.png, .svg, .pdf).
        dpi (`int`, *optional*, defaults to 150): dots an inch.

    Returns:
        `Path`: the file.

    Raises:
        ValueError: the ending is none that matplotlib writes.
    """
    from matplotlib import rc_context

    path = Path(path)
    kind = path.suffix.removeprefix(".").lower()
    if kind not in figure.canvas.get_supported_filetypes():
        raise ValueError(
            f"Pictures cannot be written as {path.suffix or 'a file without ending'!r}: use .png, .svg or .pdf."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    # Without date and version the same data give the same file.
    metadata: dict[str, Any] = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(
        kind, {}
    )
    try:
        with rc_context(FONT | {"svg.hashsalt": "lexmotion", "pdf.fonttype": 42}):  # letters stay text in a PDF
            figure.savefig(unfinished, format=kind, dpi=dpi, metadata=metadata or None)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def _root_figure(ax: Axes) -> Figure:
    """The whole figure, also of axes inside a sub-figure."""
    return ax.figure.canvas.figure


def _positions_and_skeleton(positions: Any, skeleton: str | Skeleton | None) -> tuple[np.ndarray, Skeleton]:
    positions = np.asarray(positions, dtype=np.float64)
    if positions.ndim != 3 or positions.shape[-1] != 3 or not len(positions):
        raise ValueError(f"A motion must have shape (frames, joints, 3), got {positions.shape}.")
    broken = ~np.isfinite(positions).all(axis=(1, 2))
    if broken.any():
        raise ValueError(f"Frame {int(broken.argmax())} holds NaN or infinite positions: repair the motion.")
    if skeleton is None:
        layout = skeleton_for_joints(positions.shape[1])
    else:
        layout = get_skeleton(skeleton) if isinstance(skeleton, str) else skeleton
    if layout.num_joints != positions.shape[1]:
        raise ValueError(
            f"The motion has {positions.shape[1]} joints, the skeleton {layout.name!r} {layout.num_joints}."
        )
    return positions, layout


def _bone_sides(skeleton: Skeleton) -> tuple[np.ndarray, list[str]]:
    """(parent, joint) of every bone, and the side it is coloured by."""
    left = {joint for pair in skeleton.mirror_pairs for joint in pair[:1]}
    right = {joint for pair in skeleton.mirror_pairs for joint in pair[1:]}
    bones = [(parent, joint) for joint, parent in enumerate(skeleton.parents) if parent >= 0]
    sides = ["left" if joint in left else "right" if joint in right else "middle" for _, joint in bones]
    return np.asarray(bones), sides


def project(positions: np.ndarray, view: tuple[float, float] = VIEW) -> np.ndarray:
    """
    Orthographic view of Y-up positions.

    Args:
        positions (`np.ndarray` of shape `(..., 3)`): points.
        view (`tuple[float, float]`, *optional*): degrees around the vertical axis from the front (Z+ towards the
            reader; the reader's right is the body's left), then degrees from above.

    Returns:
        `np.ndarray` of shape `(..., 3)`: right, up, towards the reader.
    """
    turn, tilt = np.deg2rad(view)
    x, y, z = np.moveaxis(positions, -1, 0)
    right, depth = x * np.cos(turn) - z * np.sin(turn), x * np.sin(turn) + z * np.cos(turn)
    return np.stack([right, y * np.cos(tilt) - depth * np.sin(tilt), y * np.sin(tilt) + depth * np.cos(tilt)], axis=-1)


def facing_front(positions: np.ndarray, skeleton: str) -> np.ndarray:
    """Positions (T, J, 3) as pictures show them: on the floor, facing Z+ at the start, frames with NaN left out."""
    import torch

    from lexmotion.processing.motion_features import canonicalize

    finite = np.isfinite(positions).all(axis=(1, 2))
    return canonicalize(torch.from_numpy(positions[finite]), skeleton).numpy()


def key_frames(positions: np.ndarray, num_poses: int) -> np.ndarray:
    """
    Frames to draw: the first, the last, and between them steps of equal time and movement, half by half.

    Args:
        positions (`np.ndarray` of shape `(T, J, 3)`): joint positions.
        num_poses (`int`): how many frames, at least 1.

    Returns:
        `np.ndarray` of shape `(<= num_poses,)`, int64, ascending: quick parts get more of them than stillness does.
    """
    if len(positions) < 2 or num_poses < 2:
        return np.zeros(1, dtype=np.int64)
    moved = np.linalg.norm(np.diff(positions, axis=0), axis=-1).mean(axis=-1)  # (T - 1,)
    pace = 1.0 / len(moved) + moved / max(float(moved.sum()), 1e-9)
    clock = np.concatenate([[0.0], np.cumsum(pace)])
    return np.unique(np.interp(np.linspace(0, clock[-1], num_poses), clock, np.arange(len(clock))).round().astype(int))


def motion_strip(
    positions: Any,
    skeleton: str | Skeleton | None = None,
    fps: float | None = None,
    num_poses: int = 8,
    ax: Axes | None = None,
    view: tuple[float, float] = VIEW,
) -> Figure:
    """
    A motion as a row of stick figures, earliest on the left; the body's right side is orange, its left side blue.

    All figures have one scale and stand side by side, see [`key_frames`]; an arrow on the floor shows where the body
    came from since the figure before.

    Args:
        positions (`np.ndarray` of shape `(T, J, 3)`): joint positions, Y up, facing Z+ at the start.
        skeleton (`str` or `Skeleton`, *optional*): joint layout; unset, found by the number of joints.
        fps (`float`, *optional*): frames a second, for the seconds below the figures; unset, the skeleton's.
        num_poses (`int`, *optional*, defaults to 8): figures in the row.
        ax (`Axes`, *optional*): where to draw; unset, a new figure.
        view (`tuple[float, float]`, *optional*): see [`project`].

    Returns:
        `Figure`: the figure drawn on.

    Raises:
        ValueError: the shape or the number of joints does not fit, or a position is NaN.
    """
    positions, layout = _positions_and_skeleton(positions, skeleton)
    fps = layout.fps if fps is None else fps
    if num_poses < 1 or not fps > 0:
        raise ValueError(f"num_poses and fps must be positive, got {num_poses} and {fps}.")
    if ax is None:
        figure = new_figure(1.15 * num_poses, 2.0)
        ax = figure.add_subplot()
    draw_poses(ax, positions, key_frames(positions, num_poses), layout, fps, view)
    return _root_figure(ax)


@dataclass(frozen=True)
class Strip:
    """
    Where figures stand in a row, in the coordinates of its axes.

    Args:
        places (P,): of the figures. step: between two of them. floor: height of the line they stand on. height: of
            the tallest.
    """

    places: np.ndarray
    step: float
    floor: float
    height: float


def draw_poses(
    ax: Axes,
    positions: Any,
    frames: Sequence[int] | np.ndarray,
    skeleton: str | Skeleton | None = None,
    fps: float | None = None,
    view: tuple[float, float] = VIEW,
    seconds: bool = True,
) -> Strip:
    """
    The stick figures of [`motion_strip`], of frames of your choice.

    Args:
        frames (`Sequence[int]`): which to draw, ascending. seconds (`bool`): write the time of each below it.
        ax, positions, skeleton, fps, view: as in [`motion_strip`].

    Returns:
        `Strip`: where they stand; what belongs to a frame can be drawn above or below it.
    """
    from matplotlib.collections import LineCollection

    positions, layout = _positions_and_skeleton(positions, skeleton)
    fps = layout.fps if fps is None else fps
    frames = np.asarray(frames)
    poses = positions[frames].copy()
    ground = positions[..., 1].min()
    poses[..., 1] -= ground
    roots = poses[:, 0] * [1, 0, 1]
    seen = project(poses - roots[:, None], view)  # (P, J, 3), every figure over the origin

    # The strip's step fits the widest figure, so that no two overlap; all keep one scale.
    low, high = seen[..., 0].min(axis=1), seen[..., 0].max(axis=1)
    height = max(float(seen[..., 1].max()), 1e-6)
    step = max(float((high[:-1] - low[1:]).max(initial=0.0)) + 0.12 * height, 0.62 * height)
    places = step * np.arange(len(frames))
    bones, sides = _bone_sides(layout)
    width = np.array([3.0 if side == "middle" else 2.4 for side in sides])
    colors = [SIDE_COLORS[side] for side in sides]
    for pose, place in zip(seen, places, strict=True):
        lines = pose[bones][..., :2] + [place, 0]  # (bones, 2, 2)
        order = np.argsort(pose[bones][..., 2].mean(axis=1))  # the far limbs first
        ax.add_collection(
            LineCollection(
                lines[order], colors=[colors[i] for i in order], linewidths=width[order], capstyle="round", zorder=3
            )
        )
        head_x, head_y = pose[_head(layout), :2] + [place, 0.045 * height]
        ax.scatter(head_x, head_y, s=42, color=DARK, zorder=4, linewidths=0)
    # How the root moved over the floor since the last figure, shortened where it would reach that figure.
    path = project(roots, view)[:, :2]
    for place, before, now in zip(places[1:], path[:-1], path[1:], strict=True):
        moved = now - before
        length = float(np.linalg.norm(moved))
        if length > 0.08 * height:
            moved = moved * min(1.0, 0.45 * step / length)
            ax.annotate(
                "",
                (place, 0.0),
                (place - moved[0], -moved[1]),
                arrowprops={"arrowstyle": "-|>", "color": GREY, "lw": 1.2, "shrinkA": 0, "shrinkB": 0},
                zorder=2,
            )
    floor = min(float(seen[..., 1].min()), 0.0) - 0.03 * height
    ax.axhline(floor, color=LIGHT, lw=1.5, zorder=1)
    for place, frame in zip(places, frames, strict=True) if seconds else ():
        ax.text(
            place, floor - 0.04 * height, f"{frame / fps:.1f} s", ha="center", va="top", color="#777777", fontsize=7
        )
    ax.set_xlim(float(low[0]) - 0.15 * height, places[-1] + float(high[-1]) + 0.15 * height)
    ax.set_ylim(floor - 0.16 * height, 1.14 * height)
    ax.set_aspect("equal", adjustable="datalim" if len(frames) == 1 else "box")
    ax.set_axis_off()
    return Strip(places, step, floor, height)


def _head(skeleton: Skeleton) -> int:
    """The last joint of the spine."""
    return skeleton.parts["torso"][-1]


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
    Words as horizontal bars, in the order given, highlighted ones blue and bold.

    Args:
        words (`Sequence[str]`): the words, most important first; none is legal and said so.
        weights (`Sequence[float]`): their weights, at least zero.
        highlight (`Collection[str]`, *optional*): words to stress, such as those a caption shares.
        ax (`Axes`, *optional*): where to draw; unset, a new figure.
        title (`str`, *optional*): line above.
        num_rows (`int`, *optional*): rows to leave room for, so that lists side by side have bars alike.
        decimals (`int`, *optional*, defaults to 2): of the weights written beside the bars.

    Returns:
        `Figure`: the figure drawn on.

    Raises:
        ValueError: numbers of words and weights differ.
    """
    if len(words) != len(weights):
        raise ValueError(f"{len(words)} words, but {len(weights)} weights.")
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
            value + 0.02 * longest,
            place,
            f"{value:.{decimals}f}",
            va="center",
            ha="left",
            fontsize=7,
            color="#777777",
        )
    if not len(words):
        ax.text(0.5, 0.5, "no active word", transform=ax.transAxes, ha="center", va="center", color="#777777")
    ax.set_xlim(0, 1.18 * longest)
    ax.set_ylim(max(len(words), num_rows or 1) - 0.4, -0.6)
    ax.set_xticks([])
    ax.tick_params(axis="y", length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    if title:
        ax.set_title(title, loc="left", color=DARK, fontweight="bold")
    return _root_figure(ax)


def escape_text(text: str) -> str:
    """Text that matplotlib does not take for a formula."""
    return text.replace("$", r"\$")


def word_maps(
    maps: Any,
    words: Sequence[str],
    window_seconds: float | None = None,
    parts: Sequence[str] | None = None,
    highlight: Collection[str] = (),
    axes: Sequence[Axes] | None = None,
) -> Figure:
    """
    Where each word was read: for every body part a map of word x time window.

    Args:
        maps (`np.ndarray` of shape `(W, Nt, Np)`): score of each word at each time window and body part, at least
            zero.
        words (`Sequence[str]` of length W): the words.
        window_seconds (`float`, *optional*): length of a time window; unset, windows are numbered.
        parts (`Sequence[str]` of length Np, *optional*): names of the body parts; unset, those of the skeletons.
        highlight (`Collection[str]`, *optional*): words to stress.
        axes (`Sequence[Axes]` of length Np, *optional*): where to draw; unset, a new figure.

    Returns:
        `Figure`: the figure drawn on.

    Raises:
        ValueError: shapes differ, or there is no word.
    """
    scores = np.where(np.isfinite(maps := np.asarray(maps, dtype=np.float64)), maps, 0.0)
    if scores.ndim != 3 or len(scores) != len(words) or 0 in scores.shape:
        raise ValueError(f"Maps must have shape ({len(words)}, windows, parts) and not be empty, got {scores.shape}.")
    _, windows, num_parts = scores.shape
    titles = list(parts) if parts is not None else part_names(num_parts)
    if len(titles) != num_parts:
        raise ValueError(f"{len(titles)} names for {num_parts} body parts.")
    if axes is None:
        figure = new_figure(1.3 + 1.35 * num_parts, 1.0 + 0.24 * len(words))
        axes = list(figure.subplots(1, num_parts, sharey=True, squeeze=False)[0])
    top = float(scores.max()) or 1.0
    seconds = window_seconds or 1.0
    stressed = set(highlight)
    for number, (ax, title) in enumerate(zip(axes, titles, strict=True)):
        ax.imshow(
            scores[:, :, number],
            cmap="cividis",
            vmin=0.0,
            vmax=top,
            aspect="auto",
            interpolation="nearest",
            extent=(0.0, windows * seconds, len(words) - 0.5, -0.5),
        )
        ax.set_title(title, color=DARK, fontsize=8)
        ax.tick_params(length=0, labelsize=7, colors="#777777")
        ax.set_yticks(np.arange(len(words)), [escape_text(word) for word in words])
        ax.tick_params(axis="y", labelleft=number == 0)
        ax.set_yticks(np.arange(len(words) + 1) - 0.5, minor=True)
        ax.grid(which="minor", axis="y", color="white", lw=1.0)
        ax.tick_params(which="minor", length=0)
        for spine in ax.spines.values():
            spine.set_visible(False)
        if number == 0:
            for label, word in zip(ax.get_yticklabels(), words, strict=True):
                label.set(color=BLUE if word in stressed else DARK, fontsize=9)
                label.set_fontweight("bold" if word in stressed else "normal")
    axes[num_parts // 2].set_xlabel("seconds" if window_seconds else "time window", color="#777777", fontsize=8)
    bar = axes[0].figure.colorbar(axes[0].images[0], ax=list(axes), fraction=0.03, pad=0.01, aspect=12)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=7, colors="#777777")
    return _root_figure(axes[0])


def explanation_figure(
    positions: Any,
    motion_words: Words,
    text_words: Words | None = None,
    caption: str | None = None,
    maps: Any = None,
    map_words: Sequence[str] | None = None,
    window_seconds: float | None = None,
    parts: Sequence[str] | None = None,
    skeleton: str | Skeleton | None = None,
    fps: float | None = None,
    score: float | None = None,
    num_poses: int = 10,
) -> Figure:
    """
    Why a model sees these words: caption, stick figures, top words of motion and text, and where each word was read.

    Args:
        positions (`np.ndarray` of shape `(T, J, 3)`): joint positions, Y up.
        motion_words (`Sequence[tuple[str, float]]`): the motion's top words with weights, heaviest first.
        text_words (`Sequence[tuple[str, float]]`, *optional*): the caption's; words on both lists are highlighted.
        caption (`str`, *optional*): written above.
        maps (`np.ndarray` of shape `(W, Nt, Np)`, *optional*): score of each word at each time window and body part.
        map_words (`Sequence[str]` of length W, *optional*): the words of `maps`; unset, those of `motion_words`.
        window_seconds, parts: as in [`word_maps`].
        skeleton, fps, num_poses: as in [`motion_strip`].
        score (`float`, *optional*): similarity of motion and caption, written beside it.

    Returns:
        `Figure`: ready for [`save_figure`].

    Raises:
        ValueError: a shape does not fit.
    """
    from matplotlib import rc_context

    shared = {word for word, _ in motion_words} & {word for word, _ in text_words or ()}
    list_height = 0.55 + 0.21 * max(len(motion_words), len(text_words or ()), 3)
    names = list(map_words) if map_words is not None else [word for word, _ in motion_words]
    has_maps = maps is not None and np.size(maps) > 0
    map_height = 0.85 + 0.21 * len(names) if has_maps else 0.0
    heights = [1.9, list_height, *([map_height] if has_maps else [])]
    with rc_context(FONT):
        figure = new_figure(9.0, sum(heights) + (0.5 if caption else 0.1))
        bands = figure.subfigures(len(heights), 1, height_ratios=heights, hspace=0.02, squeeze=False)[:, 0]
        motion_strip(positions, skeleton, fps, num_poses, ax=bands[0].add_subplot())
        if caption:
            line = f"“{caption.strip()}”" + (f"   similarity {score:.2f}" if score is not None else "")
            figure.suptitle(escape_text(textwrap.fill(line, 100)), fontsize=11, color=DARK, style="italic")
        columns = bands[1].subplots(1, 1 if text_words is None else 2, squeeze=False)[0]
        num_rows = max(len(motion_words), len(text_words or ()))
        word_bars(*split_pairs(motion_words), shared, columns[0], "words of the motion", num_rows)
        if text_words is not None:
            word_bars(*split_pairs(text_words), shared, columns[1], "words of the caption", num_rows)
        if has_maps:
            num_parts = np.shape(maps)[-1]
            axes = list(bands[2].subplots(1, num_parts, sharey=True, squeeze=False)[0])
            word_maps(maps, names, window_seconds, parts, shared, axes)
    return figure


def split_pairs(words: Words) -> tuple[list[str], list[float]]:
    """Words, and their weights."""
    return [word for word, _ in words], [float(weight) for _, weight in words]


def readme_picture(
    examples: Sequence[Mapping[str, Any]],
    path: str | os.PathLike | None = None,
    num_words: int = 8,
    num_poses: int = 9,
    dpi: int = 150,
) -> Figure:
    """
    Motions beside the words a model sees in them, one a row: the picture of the README.

    Args:
        examples (`Sequence[Mapping]`): one row each, with `positions` `(T, J, 3)`, `words` (pairs of word and weight,
            heaviest first), and optionally `caption`, `highlight` (words to stress; unset, those that stand letter by
            letter in the caption), `skeleton` and `fps`.
        path (`str` or `os.PathLike`, *optional*): file to write.
        num_words (`int`, *optional*, defaults to 8), num_poses (`int`, *optional*, defaults to 9): of each
            row.
        dpi (`int`, *optional*, defaults to 150): dots an inch.

    Returns:
        `Figure`: the picture.

    Raises:
        ValueError: no examples, or a shape does not fit.
    """
    from matplotlib import rc_context

    if not examples:
        raise ValueError("No examples given: a picture needs at least one motion.")
    with rc_context(FONT):
        figure = new_figure(10.0, 2.25 * len(examples) + 0.2)
        rows = figure.subplots(len(examples), 2, squeeze=False, width_ratios=(3.2, 1.0))
        for (left, right), example in zip(rows, examples, strict=True):
            motion_strip(
                example["positions"], example.get("skeleton"), example.get("fps"), num_poses, ax=left, view=VIEW
            )
            caption = example.get("caption")
            words = list(example["words"])[:num_words]
            highlight = example.get("highlight")
            if highlight is None:
                present = set("".join(c if c.isalnum() else " " for c in (caption or "").lower()).split())
                highlight = [word for word, _ in words if word.lower() in present]
            if caption:
                quoted = escape_text(textwrap.fill(f"“{caption.strip()}”", 90))
                left.set_title(quoted, fontsize=10, color=DARK, style="italic", loc="left")
            word_bars(*split_pairs(words), highlight, right, num_rows=num_words)
        figure.supxlabel(
            "body: right side orange, left side blue  ·  words: the model's, blue where the caption has them",
            fontsize=8,
            color="#777777",
        )
    if path is not None:
        save_figure(figure, path, dpi)
    return figure
