"""Inspection of a motion file: what it contains, measures of the motion, and problems with remedies."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..skeletons import HUMANML3D, Skeleton, get_skeleton
from .detection import BONES_WRONG, LIKELY_HEIGHTS, UNITS, body_height, bone_change, detect_units
from .options import ReadingOptions
from .reading import Motion, MotionError, check_file, read_motion
from .recording import Problem

MIN_FRAMES = 8  # of the model's input, at the skeleton's frame rate
MAX_FRAMES = 224
NEAR_FLOOR = 0.05  # metres; a foot below this height above the floor is on it
SLIDING_SPEED = 0.5  # metres per second, see `foot_sliding`
SPIKE_SPEED = 20.0  # metres per second; among the fastest athletes only a thrower's hand is faster
SPIKE_JUMP = 4.0  # how much faster than the frames around it a spike is
BONE_CHANGE = 0.05  # standard deviation of a bone's length over its mean
LOW_FPS = 10.0


@dataclass(frozen=True)
class Inspection:
    """Findings about a file.

    Args:
        path: the file.
        facts: `value`, `confidence` and `reason` of each property of the file, see [`Motion`].
        measures: see [`measure_motion`]; empty if the file cannot be read.
        problems: worst first.
        motion: the motion, if it can be read.
    """

    path: str
    facts: dict[str, dict[str, Any]]
    measures: dict[str, float]
    problems: list[Problem]
    motion: Motion | None = field(default=None, repr=False)

    @property
    def usable(self) -> bool:
        """Whether a model can use this motion."""
        return not any(problem.severity == "error" for problem in self.problems)

    def to_dict(self) -> dict[str, Any]:
        """Return the findings as JSON values, without the motion."""
        problems = [asdict(problem) for problem in self.problems]
        findings = {"facts": self.facts, "measures": self.measures, "problems": problems}
        return {"path": self.path, "usable": self.usable, **findings}


def inspect_motion(
    path: str | os.PathLike, options: ReadingOptions | None = None, skeleton: str | None = None
) -> Inspection:
    """Read a motion file as far as possible, measure the motion and list its problems.

    The arguments are those of [`load_motion`]. A file that cannot be read has one problem of severity `error`; a
    missing file raises `FileNotFoundError`.
    """
    check_file(Path(path))
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
    """Measure a motion; frames with NaN are ignored.

    Args:
        positions: (T, J, 3) metres, Y up.
        fps: frames per second.
        skeleton: joint layout.

    Returns:
        `frames`, `seconds`, `nan_frames`, `height` (standing, metres, from the bones), `floor` (height of the lowest
        foot, 5th percentile over frames, metres), `feet_on_floor` (share of frames with a foot within 5 cm of it),
        `foot_sliding` (see [`foot_sliding`]), `top_speed` (of any joint, m/s), `speed_spikes` (frames), `bone_change`
        (of the bone that changes most, standard deviation over mean) and `path_length` (of the root over the floor,
        metres).
    """
    finite = np.isfinite(positions).all(axis=(1, 2))
    clean = positions[finite].astype(np.float64)
    feet = clean[:, list(skeleton.contact_joints), 1].min(axis=1)
    floor = float(np.percentile(feet, 5))
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
        "bone_change": bone_change(clean, skeleton),
        "path_length": float(steps.sum()),
    }


def foot_sliding(positions: np.ndarray, fps: float, skeleton: Skeleton, floor: float = 0.0) -> float:
    """Compute the share of frames in which a toe that stays on the floor moves faster than 0.5 m/s.

    This is the foot skating ratio of Karunratanakul et al., "Guided Motion Diffusion" (ICCV 2023): a toe is on the
    floor if it is below 5 cm in both of two consecutive frames. The ratio of a single frame is 0.

    Args:
        positions: (T, J, 3) metres, Y up, finite.
        fps: frames per second.
        skeleton: joint layout.
        floor: height of the floor in metres.
    """
    if len(positions) < 2:
        return 0.0
    toes = positions[:, [skeleton.joint_names.index(f"{side}_foot") for side in ("left", "right")]]
    low = toes[..., 1] < floor + NEAR_FLOOR
    speed = np.linalg.norm(np.diff(toes[..., [0, 2]], axis=0), axis=-1) * fps
    return float((low[1:] & low[:-1] & (speed > SLIDING_SPEED)).any(axis=1).mean())


def speed_spikes(speed: np.ndarray) -> np.ndarray:
    """Find steps in which a joint jumps, or jumps away and back.

    A jump is faster than 20 m/s and four times as fast as the steps around it.

    Args:
        speed: (T - 1, J) metres per second.

    Returns:
        (T - 1,) boolean.
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
    """Yield the problems that the measures of a motion show."""
    skeleton = get_skeleton(motion.skeleton)
    seconds, height, top_speed = measures["seconds"], measures["height"], measures["top_speed"]
    frames, limit = int(seconds * skeleton.fps), MAX_FRAMES / skeleton.fps
    if frames < MIN_FRAMES:
        message = f"{seconds:.2f} s are {frames} frames at {skeleton.fps:g} fps; models need at least {MIN_FRAMES}"
        yield Problem("error", message, "use a longer piece, or check the frame rate (fps=...)")
    elif frames > MAX_FRAMES:
        message = f"{seconds:.1f} s are longer than the {limit:.1f} s of most training motions"
        yield Problem("note", message, "cut it into pieces: models read only the beginning")
    low, high = LIKELY_HEIGHTS
    unlikely = motion.source["units"].confidence != "low" and not low <= height <= high
    nearest = detect_units(height).value
    better = "" if nearest == "m" else f" ({nearest} instead of metres would fit better)"
    spikes = measures["speed_spikes"]
    check = "check the frame rate (fps=...) and the unit (units=...)"
    warnings = (
        (
            unlikely,
            f"the body would be {height:.2f} m tall{better}",
            f"unless it is a child, pass the unit with units=... ({', '.join(UNITS)})",
        ),
        (
            motion.fps < LOW_FPS,
            f"{motion.fps:g} frames per second are too few for quick movements",
            "check the frame rate (fps=...)",
        ),
        (
            spikes,
            f"speed spikes in {spikes} frame(s): a joint at up to {top_speed:.0f} m/s",
            f"filter or cut out these frames, or {check}",
        ),
        (not spikes and top_speed > 2 * SPIKE_SPEED, f"joints reach {top_speed:.0f} m/s", check),
        (
            BONE_CHANGE < measures["bone_change"] <= BONES_WRONG,  # more is found while reading
            f"the length of a bone varies by {measures['bone_change']:.0%} (standard deviation over mean)",
            "such motion comes from pose estimation: smooth it, or solve it on a skeleton of fixed bones",
        ),
        (
            top_speed == 0 and measures["frames"] > 1,
            "nothing moves: all frames are equal",
            "check that the animation was exported",
        ),
        (
            measures["feet_on_floor"] < 0.2,
            f"a foot is near the floor in only {measures['feet_on_floor']:.0%} of the frames",
            "look at the figure: the up axis (up=...) may be wrong, or the body hangs, jumps or lies",
        ),
        (
            measures["foot_sliding"] > 0.35,
            f"a foot slides over the floor in {measures['foot_sliding']:.0%} of the frames",
            "unless the body dances or skates, repair the feet where the motion was recorded or retargeted",
        ),
    )
    yield from (Problem("warning", message, remedy) for found, message, remedy in warnings if found)
