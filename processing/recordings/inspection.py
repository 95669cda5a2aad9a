"""What a motion file is, and what may be wrong with it: measures of a motion, and problems with remedies."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..skeletons import HUMANML3D, Skeleton, get_skeleton
from .detection import LIKELY_HEIGHTS, UNITS, body_height, detect_units
from .options import ReadingOptions
from .reading import Motion, MotionError, read_motion
from .recording import Problem

MIN_FRAMES = 8  # of the model's input, at the skeleton's frame rate
MAX_FRAMES = 224
NEAR_FLOOR = 0.05  # metres above the floor at which a foot is on it
SLIDING_SPEED = 0.5  # metres a second, see `foot_sliding`
SPIKE_SPEED = 20.0  # metres a second: faster than a joint of the fastest athletes but for a thrower's hand
SPIKE_JUMP = 4.0  # how much faster than the frames around it a spike is
BONE_CHANGE = 0.05  # standard deviation of a bone's length over its mean
LOW_FPS = 10.0


@dataclass(frozen=True)
class Inspection:
    """
    What was found out about a file.

    Args:
        path (`str`): the file.
        facts (`dict[str, dict]`): `value`, `confidence` and `reason` of what the file is, see [`Motion`].
        measures (`dict[str, float]`): see [`measure_motion`]; empty where the file cannot be read.
        problems (`list[Problem]`): worst first.
        motion ([`Motion`], *optional*): the motion, where it can be read.
    """

    path: str
    facts: dict[str, dict[str, Any]]
    measures: dict[str, float]
    problems: list[Problem]
    motion: Motion | None = field(default=None, repr=False)

    @property
    def usable(self) -> bool:
        """Whether a model can be given this motion."""
        return not any(problem.severity == "error" for problem in self.problems)

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {
            "path": self.path,
            "usable": self.usable,
            "facts": self.facts,
            "measures": self.measures,
            "problems": [asdict(problem) for problem in self.problems],
        }


def inspect_motion(
    path: str | os.PathLike, options: ReadingOptions | None = None, skeleton: str | None = None
) -> Inspection:
    """
    Read a file as far as it goes, measure the motion and list its problems.

    Args:
        path: The file.
        options, skeleton: As of [`load_motion`].

    Returns:
        [`Inspection`]: a file that cannot be read has one problem of severity `error`.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no motion file {str(path)!r}: check the path.")
    try:
        motion = read_motion(path, options or ReadingOptions(), skeleton)
    except (ValueError, OSError, ImportError) as error:
        known = error.facts if isinstance(error, MotionError) else {}
        facts = {name: asdict(fact) for name, fact in known.items()}
        return Inspection(str(path), facts, {}, [Problem("error", str(error))])
    measures = measure_motion(motion.positions, motion.fps, get_skeleton(motion.skeleton))
    problems = [*motion.problems, *find_problems(motion, measures)]
    problems.sort(key=lambda problem: ("error", "warning", "note").index(problem.severity))
    facts = {name: asdict(fact) for name, fact in motion.source.items()}
    return Inspection(str(path), facts, measures, problems, motion)


def measure_motion(positions: np.ndarray, fps: float, skeleton: Skeleton = HUMANML3D) -> dict[str, float]:
    """
    Figures of a motion. Frames with NaN are left out.

    Args:
        positions (`np.ndarray` of shape `(T, J, 3)`): metres, Y up.
        fps (`float`): frames a second.
        skeleton ([`Skeleton`]): joint layout.

    Returns:
        `dict[str, float]`: `frames`, `seconds`, `nan_frames`, `height` (standing, metres, from the bones), `floor`
        (height of the lowest foot, 5th percentile of frames, metres), `feet_on_floor` (share of frames with a foot
        within 5 cm of it), `foot_sliding` (see [`foot_sliding`]), `top_speed` (of any joint, m/s), `speed_spikes`
        (frames), `bone_change` (of the bone that changes most, standard deviation over mean), `path_length` (of the
        root over the floor, metres).
    """
    finite = np.isfinite(positions).all(axis=(1, 2))
    clean = positions[finite].astype(np.float64)
    feet = clean[:, list(skeleton.contact_joints), 1].min(axis=1)
    floor = float(np.percentile(feet, 5))
    bones = np.linalg.norm(np.diff(clean[:, np.array(skeleton.bones)], axis=2)[:, :, 0], axis=-1)
    speed = np.linalg.norm(np.diff(clean, axis=0), axis=-1) * fps  # (T - 1, J)
    steps = np.linalg.norm(np.diff(clean[:, 0][:, [0, 2]], axis=0), axis=-1)
    return {
        "frames": len(positions),
        "seconds": len(positions) / fps,
        "nan_frames": int((~finite).sum()),
        "height": body_height(clean, skeleton),
        "floor": floor,
        "feet_on_floor": float((feet < floor + NEAR_FLOOR).mean()),
        "foot_sliding": foot_sliding(clean, fps, skeleton, floor),
        "top_speed": float(speed.max(initial=0.0)),
        "speed_spikes": int(speed_spikes(speed).sum()),
        "bone_change": float((bones.std(axis=0) / np.maximum(bones.mean(axis=0), 1e-9)).max()),
        "path_length": float(steps.sum()),
    }


def foot_sliding(positions: np.ndarray, fps: float, skeleton: Skeleton, floor: float = 0.0) -> float:
    """
    Share of frames in which a toe that stays on the floor moves over it faster than 0.5 m/s.

    This is the foot skating ratio of Karunratanakul et al., "Guided Motion Diffusion" (ICCV 2023): a toe is on the
    floor where it is below 5 cm in both of two consecutive frames.

    Args:
        positions (`np.ndarray` of shape `(T, J, 3)`): metres, Y up, finite.
        fps (`float`): frames a second.
        skeleton ([`Skeleton`]): joint layout.
        floor (`float`): height of the floor.

    Returns:
        `float`: 0 of a single frame.
    """
    if len(positions) < 2:
        return 0.0
    toes = positions[:, [skeleton.joint_names.index(f"{side}_foot") for side in ("left", "right")]]
    low = toes[..., 1] < floor + NEAR_FLOOR
    speed = np.linalg.norm(np.diff(toes[..., [0, 2]], axis=0), axis=-1) * fps
    return float((low[1:] & low[:-1] & (speed > SLIDING_SPEED)).any(axis=1).mean())


def speed_spikes(speed: np.ndarray) -> np.ndarray:
    """
    Steps in which a joint jumps, or jumps away and back: faster than 20 m/s, and four times as fast as around it.

    Args:
        speed (`np.ndarray` of shape `(T - 1, J)`): metres a second.

    Returns:
        `np.ndarray` of shape `(T - 1,)`: boolean.
    """
    padded = np.pad(speed, ((1, 1), (0, 0)))
    before, after = padded[:-2], padded[2:]
    fast = speed > SPIKE_SPEED
    alone = speed > SPIKE_JUMP * np.maximum(before, after)
    # A joint that jumps away and back is fast twice.
    there_and_back = (after > SPIKE_SPEED) & (speed > SPIKE_JUMP * before)
    back = (before > SPIKE_SPEED) & (speed > SPIKE_JUMP * after)
    return (fast & (alone | there_and_back | back)).any(axis=1)


def find_problems(motion: Motion, measures: Mapping[str, float]) -> Iterator[Problem]:
    """Problems that the measures of a motion show."""
    skeleton = get_skeleton(motion.skeleton)
    frames = int(measures["seconds"] * skeleton.fps)
    if frames < MIN_FRAMES:
        yield Problem(
            "error",
            f"{measures['seconds']:.2f} s are {frames} frames at {skeleton.fps:g} a second; models need {MIN_FRAMES}.",
            "Use a longer piece, or check the frame rate (--fps).",
        )
    elif frames > MAX_FRAMES:
        yield Problem(
            "note",
            f"{measures['seconds']:.1f} s are more than the {MAX_FRAMES / skeleton.fps:.1f} s models usually see.",
            "Cut it into pieces: only the beginning is read.",
        )
    low, high = LIKELY_HEIGHTS
    if motion.source["units"].confidence != "low" and not low <= measures["height"] <= high:
        nearest = detect_units(measures["height"])
        yield Problem(
            "warning",
            f"The body would be {measures['height']:.2f} m tall.",
            f"If it is no child, give the unit with --units ({', '.join(UNITS)})"
            + (f"; {nearest.value} of what was read would fit better." if nearest.value != "m" else "."),
        )
    if motion.fps < LOW_FPS:
        yield Problem(
            "warning", f"{motion.fps:g} frames a second are few: quick movements are lost.", "Check it (--fps)."
        )
    if measures["speed_spikes"]:
        yield Problem(
            "warning",
            f"Speed spikes in {measures['speed_spikes']} frame(s): a joint at up to {measures['top_speed']:.0f} m/s.",
            "Filter or cut out these frames, or check the frame rate (--fps) and the unit (--units).",
        )
    elif measures["top_speed"] > 2 * SPIKE_SPEED:
        yield Problem(
            "warning",
            f"Joints reach {measures['top_speed']:.0f} m/s.",
            "Check the frame rate (--fps) and the unit (--units).",
        )
    yield from _body_problems(measures)


def _body_problems(measures: Mapping[str, float]) -> Iterator[Problem]:
    if measures["bone_change"] > BONE_CHANGE:
        yield Problem(
            "warning",
            f"A bone changes its length by {measures['bone_change']:.0%} (standard deviation over mean).",
            "Such motion comes from pose estimation: smooth it, or solve it on a skeleton of fixed bones.",
        )
    if measures["top_speed"] == 0 and measures["frames"] > 1:
        yield Problem("warning", "Nothing moves: all frames are equal.", "Check that the animation was exported.")
    if measures["feet_on_floor"] < 0.2:
        yield Problem(
            "warning",
            f"A foot is near the floor in only {measures['feet_on_floor']:.0%} of the frames.",
            "Look at the figure: the vertical axis (--up) may be another, or the body hangs, jumps or lies.",
        )
    if measures["foot_sliding"] > 0.35:
        yield Problem(
            "warning",
            f"A foot slides over the floor in {measures['foot_sliding']:.0%} of the frames.",
            "If the body does not dance or skate, repair the feet where the motion was recorded or retargeted.",
        )
