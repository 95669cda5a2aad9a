"""Motion files -> joint positions in metres, Y up.

| file | holds | joints |
|---|---|---|
| `.npy` | positions (T, 22 or 21, 3), also flattened, or features (T, 263 or 251) | HumanML3D's or KIT-ML's |
| `.npz` | such an array among others; or AMASS (`poses`, `trans`), which needs `smplx` and a body model | the same |
| `.bvh` | a body whose joints [`match_rig`] knows or a mapping names | by name |
| `.csv` | a header with three columns a joint (`left_hip_x`, ...), optionally `time` | by name, or by number |

What a file does not say is detected: the unit by the length of legs and trunk, the vertical axis by the way the body
stands. Each such finding is a [`Fact`] with a confidence, and can be overridden. Pickles are never read.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..skeletons import HUMANML3D, Skeleton, get_skeleton, skeleton_for_joints
from .arrays import arrays_recording
from .bvh import bvh_recording
from .csv_files import csv_recording
from .detection import UP_AXES, Fact, body_height, detect_units, detect_up, metres_per_unit, sides_agree, to_y_up
from .options import ReadingOptions
from .recording import Problem, Recording, check_fps
from .rigs import RigMatch, match_rig

READERS: dict[str, Callable[[Path, ReadingOptions], Recording]] = {
    ".npy": arrays_recording,
    ".npz": arrays_recording,
    ".bvh": bvh_recording,
    ".csv": csv_recording,
}
FORMATS = tuple(READERS)


@dataclass(frozen=True)
class Motion:
    """
    A motion, whatever file it came from.

    Args:
        positions (`np.ndarray` of shape `(T, J, 3)`, float32): joint positions in metres, Y up.
        fps (`float`): frames a second.
        skeleton (`str`): name of the joint layout.
        source (`dict[str, Fact]`): what is known about the file: `format`, `skeleton`, `mapping` (where joints have
            names), `fps`, `units` and `up`.
        problems (`list[Problem]`): found while reading.
        features (`np.ndarray` of shape `(T, F)`, float32, *optional*): the published features, where the file holds
            these.
    """

    positions: np.ndarray = field(repr=False)
    fps: float
    skeleton: str
    source: dict[str, Fact]
    problems: list[Problem]
    features: np.ndarray | None = field(default=None, repr=False)

    @property
    def model_input(self) -> np.ndarray:
        """What to give the feature extractor: features where the file holds them, else positions."""
        return self.positions if self.features is None else self.features

    @property
    def fps_is_known(self) -> bool:
        """Whether the caller or the file told the frame rate."""
        return self.source["fps"].confidence != "assumed"


class MotionError(ValueError):
    """
    A file that could be read, but not understood as a motion.

    Args:
        message (`str`): what is wrong, with value and remedy.
        facts (`dict[str, Fact]`): what is known all the same.
    """

    def __init__(self, message: str, facts: dict[str, Fact]):
        super().__init__(message)
        self.facts = facts


def load_motion(
    path: str | os.PathLike, options: ReadingOptions | None = None, skeleton: str | None = None, **fields: Any
) -> Motion:
    """
    Read a motion file.

    Args:
        path: An `.npy`, `.npz`, `.bvh` or `.csv` file, see the top of this file.
        options: What the file does not say about itself; None: all of it is read or detected.
        skeleton: Joint layout wanted, `"humanml3d"` or `"kit-ml"`; another one is an error. None: any.
        fields: Fields of [`ReadingOptions`] by name (`fps`, `units`, `up`, `mapping`, `key`, `body_model`), in place
            of those of `options`.

    Returns:
        [`Motion`]: in metres, Y up, at the file's frame rate.

    Raises:
        FileNotFoundError: the file, the mapping or the body model does not exist.
        ImportError: an AMASS file, and `smplx` is not installed.
        ValueError: the file is malformed, has a shape of no skeleton, lacks joints, or holds NaN. The message has the
            value and the remedy.

    Example:

        >>> np.save("kick.npy", np.random.default_rng(0).normal(size=(40, 22, 3)))
        >>> motion = load_motion("kick.npy", units="m", up="y")
        >>> motion.positions.shape, motion.fps, motion.source["fps"].confidence
        ((40, 22, 3), 20.0, 'assumed')
    """
    motion = read_motion(path, replace(options or ReadingOptions(), **fields), skeleton)
    for problem in motion.problems:
        if problem.severity == "error":
            raise ValueError(f"{path}: {problem}")
    return motion


def read_motion(path: str | os.PathLike, options: ReadingOptions, skeleton: str | None = None) -> Motion:
    """Read as [`load_motion`] does, except that frames with NaN are a problem of severity `error` and no exception."""
    path = Path(path)
    wanted = None if skeleton is None else get_skeleton(skeleton)
    _check(options)
    recording = _read_file(path, options)
    if recording.features is not None and (options.units is not None or options.up is not None):
        raise ValueError(f"{path} holds published features, whose unit and axis are known: leave units and up out.")
    try:
        positions, layout, match = _joints(path, recording, options.mapping, wanted)
        finite = np.isfinite(positions).all(axis=(1, 2))
        if not finite.any():
            raise ValueError(f"{path}: all of {len(finite)} frames hold NaN or infinity. Export the motion again.")
    except ValueError as error:
        raise MotionError(str(error), _facts_at_hand(recording)) from error
    source = _facts(recording, options, positions[finite], layout, match)
    positions = to_y_up(positions * metres_per_unit(source["units"].value), source["up"].value)
    return Motion(
        np.ascontiguousarray(positions, dtype=np.float32),
        float(source["fps"].value),
        layout.name,
        source,
        [*recording.problems, *_problems(positions, finite, layout, source)],
        recording.features,
    )


def _check(options: ReadingOptions) -> None:
    """Raise a `ValueError` on an option that no file could have."""
    if options.fps is not None:
        check_fps(options.fps, "fps")
    if options.up is not None and options.up not in UP_AXES:
        raise ValueError(f"Unknown up axis {options.up!r}: choose one of {', '.join(UP_AXES)}.")
    if options.units is not None:
        metres_per_unit(options.units)


def _read_file(path: Path, options: ReadingOptions) -> Recording:
    if not path.is_file():
        raise FileNotFoundError(f"There is no motion file {str(path)!r}: check the path.")
    suffix = path.suffix.lower()
    if options.key is not None and suffix != ".npz":
        raise ValueError(f"{path} holds no named arrays: a key ({options.key!r}) is for .npz files.")
    if suffix not in READERS:
        hint = " Pickles can run code when they are read." if suffix in (".pkl", ".pickle", ".pt", ".pth") else ""
        raise ValueError(
            f"{path} ends in {suffix or 'nothing'}; motions are read from {', '.join(FORMATS)}.{hint} Save joint "
            "positions with np.save(path, array)."
        )
    return READERS[suffix](path, options)


def _facts(
    recording: Recording, options: ReadingOptions, clean: np.ndarray, layout: Skeleton, match: RigMatch | None
) -> dict[str, Fact]:
    """What is known about a file: as given, else as read, else as detected from the finite frames `clean`."""
    facts = {
        "format": Fact(recording.format, "read"),
        "skeleton": Fact(layout.name, "read", f"{layout.num_joints} of {recording.positions.shape[1]} joints"),
    }
    if match is not None:
        derived = f"{', '.join(match.between)} lie between its joints" if match.between else ""
        facts["mapping"] = Fact(match.rig, "given" if options.mapping is not None else "high", derived)
    if options.fps is not None:
        facts["fps"] = Fact(float(options.fps), "given")
    else:
        unnamed = f"the frame rate of {layout.name}; the file names none"
        facts["fps"] = recording.fps or Fact(layout.fps, "assumed", unnamed)
    if options.units is not None:
        facts["units"] = Fact(options.units, "given")
    else:
        facts["units"] = recording.units or detect_units(body_height(clean, layout), match.rig if match else None)
    if options.up is not None:
        facts["up"] = Fact(options.up, "given")
    else:
        rest = match.apply(recording.rest[None], recording.names)[0] if match and recording.rest is not None else None
        facts["up"] = recording.up or detect_up(clean, layout, rest, usually_y=match is None)
    return facts


def _facts_at_hand(recording: Recording) -> dict[str, Fact]:
    frames, joints = recording.positions.shape[:2]
    facts = {"format": Fact(recording.format, "read"), "frames": Fact(frames, "read"), "joints": Fact(joints, "read")}
    return facts if recording.fps is None else facts | {"fps": recording.fps}


def _joints(
    path: Path,
    recording: Recording,
    mapping: str | os.PathLike | Mapping[str, Any] | None,
    wanted: Skeleton | None,
) -> tuple[np.ndarray, Skeleton, RigMatch | None]:
    """Positions (T, J, 3) of a skeleton's joints, the skeleton, and by which names."""
    if not len(recording.positions):
        raise ValueError(f"{path} has 0 frames: export the motion again.")
    count = recording.positions.shape[1]
    if mapping is not None and not recording.names:
        raise ValueError(f"{path} holds joints without names, in a skeleton's own order: leave the mapping out.")
    try:
        if recording.names:
            match = match_rig(recording.names, mapping, wanted)
            return match.apply(recording.positions, recording.names), match.skeleton, match
        layout = skeleton_for_joints(count)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if wanted not in (None, layout):
        assert wanted is not None
        raise ValueError(
            f"{path} has the {count} joints of {layout.name!r}, but {wanted.name!r} is wanted: use a model of "
            f"{layout.name!r}, or retarget the motion."
        )
    return recording.positions, layout, None


def _problems(
    positions: np.ndarray, finite: np.ndarray, layout: Skeleton, source: Mapping[str, Fact]
) -> Iterator[Problem]:
    """What reading alone shows."""
    if not finite.all():
        broken = np.flatnonzero(~finite)
        shown = ", ".join(map(str, broken[:5])) + (", ..." if len(broken) > 5 else "")
        yield Problem(
            "error",
            f"{len(broken)} of {len(finite)} frames hold NaN or infinity (frames {shown}).",
            "Fill the gaps in the program that recorded the motion, or cut these frames off.",
        )
    fps, units, up = source["fps"], source["units"], source["up"]
    if fps.confidence == "assumed":
        yield Problem("note", f"The file names no frame rate: {fps.value:g} assumed.", "Give another one with --fps.")
    if units.confidence == "low":
        yield Problem(
            "warning", f"The unit is unclear: {units.value} assumed, {units.reason}.", "Give it with --units."
        )
    if up.confidence == "low":
        yield Problem(
            "warning",
            f"The vertical axis is unclear: {up.value} taken, {up.reason}.",
            "Give it with --up, try y or z.",
        )
    # KIT-ML's own files are left-handed.
    if layout is HUMANML3D and sides_agree(positions[finite], layout) < -0.5:
        yield Problem(
            "warning",
            "Left and right seem exchanged: the toes point where the hips do not face.",
            "The file may be left-handed: negate one horizontal axis when it is exported, or correct the mapping.",
        )
