"""Motions as rows of stick figures, and the colours, fonts and files of all pictures.

Colours are Okabe and Ito's, which colour-blind readers can distinguish: blue is the body's left side and words that
motion and text share, orange the body's right side. Figures are made without pyplot, so no window and no global state
are touched. `matplotlib` is imported when a picture is drawn.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lexmotion.common.files import atomic_path
from lexmotion.processing.skeletons import Skeleton, get_skeleton, skeleton_for_joints

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, DARK, GREY, LIGHT = "#0072B2", "#D55E00", "#333333", "#B5B5B5", "#E9E9E9"
SIDE_COLORS = {"left": BLUE, "right": ORANGE, "middle": DARK}
# From the front, turned a little to the body's left, slightly from above: degrees.
VIEW = (30.0, 12.0)
FONT = {"font.family": ["DejaVu Sans"], "font.size": 9.0, "axes.titlesize": 9.0}


def new_figure(width: float, height: float) -> Figure:
    """Create a figure of `width` x `height` inches that needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def escape_text(text: str) -> str:
    """Escape text so that matplotlib does not read it as a formula."""
    return text.replace("$", r"\$")


def save_figure(figure: Figure, path: str | os.PathLike, dpi: int = 150) -> Path:
    """
    Write a figure in one step, so that a reader sees either the old file or the new one, and return its path.

    Args:
        figure: the picture.
        path: file to write; its ending determines the format (.png, .svg, .pdf).
        dpi: dots per inch.

    Raises:
        ValueError: if matplotlib does not write the format.
    """
    from matplotlib import rc_context

    path = Path(path)
    kind = path.suffix.removeprefix(".").lower()
    if kind not in figure.canvas.get_supported_filetypes():
        raise ValueError(f"picture: got format {path.suffix or 'none'!r}; use .png, .svg or .pdf")
    # Without date and version the same data give the same file.
    metadata: dict[str, dict[str, Any]] = {"png": {"Software": None}, "svg": {"Date": None}}
    metadata["pdf"] = {"CreationDate": None}
    with atomic_path(path) as aside, rc_context(FONT | {"svg.hashsalt": "lexmotion", "pdf.fonttype": 42}):
        figure.savefig(aside, format=kind, dpi=dpi, metadata=metadata.get(kind))  # letters stay text in a PDF
    return path


def root_figure(ax: Axes) -> Figure:
    """Return the top-level figure, also of axes inside a sub-figure."""
    return ax.figure.canvas.figure


def _positions_and_skeleton(positions: Any, skeleton: str | Skeleton | None) -> tuple[np.ndarray, Skeleton]:
    positions = np.asarray(positions, dtype=np.float64)
    if positions.ndim != 3 or positions.shape[-1] != 3 or not len(positions):
        raise ValueError(f"motion: expected shape (frames, joints, 3), got {positions.shape}")
    broken = ~np.isfinite(positions).all(axis=(1, 2))
    if broken.any():
        raise ValueError(f"frame {int(broken.argmax())}: got NaN or infinite positions; repair the motion")
    if skeleton is None:
        layout = skeleton_for_joints(positions.shape[1])
    else:
        layout = get_skeleton(skeleton) if isinstance(skeleton, str) else skeleton
    if layout.num_joints != positions.shape[1]:
        joints = f"{positions.shape[1]} joints, the skeleton {layout.name!r} {layout.num_joints}"
        raise ValueError(f"skeleton: the motion has {joints}; pass the skeleton of the motion")
    return positions, layout


def _bone_sides(skeleton: Skeleton) -> tuple[np.ndarray, list[str]]:
    """Return (parent, joint) of every bone, and the side it is coloured by."""
    left = {joint for pair in skeleton.mirror_pairs for joint in pair[:1]}
    right = {joint for pair in skeleton.mirror_pairs for joint in pair[1:]}
    bones = [(parent, joint) for joint, parent in enumerate(skeleton.parents) if parent >= 0]
    sides = ["left" if joint in left else "right" if joint in right else "middle" for _, joint in bones]
    return np.asarray(bones), sides


def project(positions: np.ndarray, view: tuple[float, float] = VIEW) -> np.ndarray:
    """
    Project Y-up positions orthographically.

    Args:
        positions: points (..., 3).
        view: degrees around the vertical axis from the front (Z+ towards the viewer; the viewer's right is the body's
            left), then degrees from above.

    Returns:
        (..., 3): right, up, towards the viewer.
    """
    turn, tilt = np.deg2rad(view)
    x, y, z = np.moveaxis(positions, -1, 0)
    right, depth = x * np.cos(turn) - z * np.sin(turn), x * np.sin(turn) + z * np.cos(turn)
    return np.stack([right, y * np.cos(tilt) - depth * np.sin(tilt), y * np.sin(tilt) + depth * np.cos(tilt)], axis=-1)


def on_the_floor(positions: np.ndarray, skeleton: str) -> np.ndarray:
    """Return positions (T, J, 3) on the floor, facing Z+ at the start, without frames with NaN."""
    import torch

    from lexmotion.processing.motion_features import canonicalize

    finite = np.isfinite(positions).all(axis=(1, 2))
    return canonicalize(torch.from_numpy(positions[finite]), skeleton).numpy()


def facing_front(positions: np.ndarray, skeleton: str) -> np.ndarray:
    """
    Return positions (T, J, 3) as in pictures: [`on_the_floor`], with the body's left at X+.

    The coordinates of KIT-ML are left-handed, so that a picture of them would be a mirror image; x is negated.
    """
    front = on_the_floor(positions, skeleton)
    return front * np.array([-1, 1, 1], front.dtype) if get_skeleton(skeleton).is_left_handed else front


def key_frames(positions: np.ndarray, num_poses: int) -> np.ndarray:
    """
    Choose frames to draw: the first, the last, and between them steps that weigh time and movement equally.

    Args:
        positions: joint positions (T, J, 3).
        num_poses: number of frames, at least 1.

    Returns:
        (<= num_poses,) int64, ascending: fast parts get more frames than still ones.
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
    Draw a motion as a row of stick figures, earliest on the left; the body's right side is orange, its left side blue.

    All figures have one scale and stand side by side, see [`key_frames`]; an arrow on the floor shows the movement
    since the previous figure.

    Args:
        positions: joint positions (T, J, 3), Y up, facing Z+ at the start.
        skeleton: joint layout; if None, inferred from the number of joints.
        fps: frames per second, for the seconds below the figures; if None, the skeleton's.
        num_poses: number of figures.
        ax: axes to draw on; None creates a figure.
        view: see [`project`].

    Returns:
        The figure drawn on.

    Raises:
        ValueError: if the shape or the number of joints does not fit, or a position is NaN.
    """
    positions, layout = _positions_and_skeleton(positions, skeleton)
    fps = layout.fps if fps is None else fps
    if num_poses < 1 or not fps > 0:
        raise ValueError(f"num_poses, fps: got {num_poses} and {fps}; pass positive numbers")
    if ax is None:
        figure = new_figure(1.15 * num_poses, 2.0)
        ax = figure.add_subplot()
    draw_poses(ax, positions, key_frames(positions, num_poses), layout, fps, view)
    return root_figure(ax)


@dataclass(frozen=True)
class Strip:
    """
    Layout of figures in a row, in the coordinates of its axes.

    Args:
        places: x of the figures (P,).
        step: distance between two of them.
        floor, height: y of the floor line, and height of the tallest figure.
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
    Draw the stick figures of [`motion_strip`] for given frames.

    Args:
        frames: frames to draw, ascending.
        seconds: whether to write the time below each figure.
        ax, positions, skeleton, fps, view: see [`motion_strip`].

    Returns:
        Layout of the figures, to draw more above or below them.
    """
    from matplotlib.collections import LineCollection

    positions, layout = _positions_and_skeleton(positions, skeleton)
    fps = layout.fps if fps is None else fps
    frames = np.asarray(frames)
    poses = positions[frames].copy()
    ground = positions[..., 1].min()
    poses[..., 1] -= ground
    roots = poses[:, 0] * [1, 0, 1]
    seen = project(poses - roots[:, None], view)  # (P, J, 3), every figure centred on the origin
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
    # Movement of the root on the floor since the previous figure, shortened if it would reach that figure.
    path = project(roots, view)[:, :2]
    for place, before, now in zip(places[1:], path[:-1], path[1:], strict=True):
        moved = now - before
        length = float(np.linalg.norm(moved))
        if length > 0.08 * height:
            moved = moved * min(1.0, 0.45 * step / length)
            arrow = {"arrowstyle": "-|>", "color": GREY, "lw": 1.2, "shrinkA": 0, "shrinkB": 0}
            ax.annotate("", (place, 0.0), (place - moved[0], -moved[1]), arrowprops=arrow, zorder=2)
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
    """Return the last joint of the spine."""
    return skeleton.parts["torso"][-1]
