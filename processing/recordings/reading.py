"""Motion files in and out: arrays, BVH, AMASS and CSV -> joint positions in metres, Y up; positions -> BVH.

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

import csv
import math
import os
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..motion_features import features_to_positions
from ..skeletons import HUMANML3D, SKELETONS, Skeleton, get_skeleton
from .amass import amass_positions
from .bvh import read_bvh, write_bvh
from .detection import (
    UP_AXES,
    Fact,
    body_height,
    detect_units,
    detect_up,
    metres_per_unit,
    sides_agree,
    to_y_up,
)
from .inverse_kinematics import positions_to_bvh
from .rigs import RigMatch, match_rig

FORMATS = (".npy", ".npz", ".bvh", ".csv")

_ARRAY_NAMES = ("positions", "joints", "joint_positions", "motion", "features", "joint_vecs")
_FPS_NAMES = ("fps", "mocap_framerate", "mocap_frame_rate", "framerate", "frame_rate")
_TIME_NAMES = ("time", "t", "timestamp", "seconds", "time_s")
_FRAME_NAMES = ("", "frame", "frames", "index")
_JOINT_AXIS = re.compile(r"^(?P<joint>.*?)[ _.:\-\[(]*(?P<axis>[xyz])[\])]?$", re.IGNORECASE)
_AXIS_JOINT = re.compile(r"^(?P<axis>[xyz])[ _.]?(?P<joint>\d+)$", re.IGNORECASE)
_NUMBERED = re.compile(r"^(joint|j)?[ _]*\d*$", re.IGNORECASE)
_UNEVEN = 0.2  # of the usual step of a time column


@dataclass(frozen=True)
class Problem:
    """
    Something wrong with a motion.

    Args:
        severity (`str`): `error` (it cannot be used), `warning` (look at it) or `note`.
        message (`str`): what is wrong, with the value.
        remedy (`str`): what to do.
    """

    severity: str
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()


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


@dataclass
class _Recording:
    """What a file holds, before joints, unit and axes are known."""

    format: str
    positions: np.ndarray  # (T, N, 3) float64
    names: tuple[str, ...] = ()  # of the N joints; none where they are a skeleton's own
    fps: Fact | None = None
    units: Fact | None = None
    up: Fact | None = None
    rest: np.ndarray | None = None  # (N, 3)
    features: np.ndarray | None = None
    problems: list[Problem] = field(default_factory=list)


def load_motion(
    path: str | os.PathLike,
    fps: float | None = None,
    skeleton: str | None = None,
    units: str | float | None = None,
    up: str | None = None,
    mapping: str | os.PathLike | Mapping[str, Any] | None = None,
    *,
    key: str | None = None,
    body_model: str | os.PathLike | None = None,
) -> Motion:
    """
    Read a motion file.

    Args:
        path (`str` or `os.PathLike`): `.npy`, `.npz`, `.bvh` or `.csv`, see the top of this file.
        fps (`float`, *optional*): frames a second; unset, what the file says, else the skeleton's.
        skeleton (`str`, *optional*): joint layout wanted, `"humanml3d"` or `"kit-ml"`; another one is an error.
        units (`str` or `float`, *optional*): one of `UNITS`, or metres in a unit; unset, detected.
        up (`str`, *optional*): the file's vertical axis, one of `UP_AXES`; unset, detected.
        mapping (*optional*): which joints are which, see [`match_rig`]; unset, by the built-in tables.
        key (`str`, *optional*): array of an `.npz` file to read; unset, the one that can be a motion.
        body_model (`str` or `os.PathLike`, *optional*): SMPL-H model for AMASS files, a `.npz` file or its folder.

    Returns:
        [`Motion`]: in metres, Y up, at the file's frame rate.

    Raises:
        FileNotFoundError: there is no such file, mapping or body model.
        ImportError: an AMASS file, and `smplx` is not installed.
        ValueError: the file is malformed, has a shape of no skeleton, lacks joints, or holds NaN. The message has the
            value and the remedy.

    Example:

        >>> np.save("kick.npy", np.random.default_rng(0).normal(size=(40, 22, 3)))
        >>> motion = load_motion("kick.npy", units="m", up="y")
        >>> motion.positions.shape, motion.fps, motion.source["fps"].confidence
        ((40, 22, 3), 20.0, 'assumed')
    """
    motion = read_motion(path, fps, skeleton, units, up, mapping, key=key, body_model=body_model)
    for problem in motion.problems:
        if problem.severity == "error":
            raise ValueError(f"{path}: {problem}")
    return motion


def read_motion(
    path: str | os.PathLike,
    fps: float | None = None,
    skeleton: str | None = None,
    units: str | float | None = None,
    up: str | None = None,
    mapping: str | os.PathLike | Mapping[str, Any] | None = None,
    *,
    key: str | None = None,
    body_model: str | os.PathLike | None = None,
) -> Motion:
    """[`load_motion`], except that some frames with NaN are no error but a problem of severity `error`."""
    path = Path(path)
    wanted = None if skeleton is None else get_skeleton(skeleton)
    if fps is not None:
        _check_fps(fps, "fps")
    if up is not None and up not in UP_AXES:
        raise ValueError(f"Unknown up axis {up!r}: choose one of {', '.join(UP_AXES)}.")
    scale = None if units is None else metres_per_unit(units)

    recording = _read_file(path, key, body_model)
    if recording.features is not None and (units is not None or up is not None):
        raise ValueError(f"{path} holds published features, whose unit and axis are known: leave units and up out.")
    try:
        positions, layout, match = _joints(path, recording, mapping, wanted)
        finite = np.isfinite(positions).all(axis=(1, 2))
        if not finite.any():
            raise ValueError(f"{path}: all of {len(finite)} frames hold NaN or infinity. Export the motion again.")
    except ValueError as error:
        raise MotionError(str(error), _facts_at_hand(recording)) from error
    clean = positions[finite]
    rig = match.rig if match is not None else None
    units_fact = recording.units or detect_units(body_height(clean, layout), rig)
    if scale is not None:
        units_fact = Fact(units, "given")
    rest = match.apply(recording.rest[None], recording.names)[0] if match and recording.rest is not None else None
    up_fact = recording.up or detect_up(clean, layout, rest, usually_y=match is None)
    if up is not None:
        up_fact = Fact(up, "given")
    fps_fact = _fps_fact(fps, recording, layout)

    factor = metres_per_unit(units_fact.value)
    positions = to_y_up(positions * factor, up_fact.value)
    source = {
        "format": Fact(recording.format, "read"),
        "skeleton": Fact(layout.name, "read", f"{layout.num_joints} of {recording.positions.shape[1]} joints"),
    }
    if match is not None:
        derived = f"{', '.join(match.between)} lie between its joints" if match.between else ""
        source["mapping"] = Fact(match.rig, "given" if mapping is not None else "high", derived)
    source |= {"fps": fps_fact, "units": units_fact, "up": up_fact}
    problems = [*recording.problems, *_problems(positions, finite, layout, source)]
    return Motion(
        np.ascontiguousarray(positions, dtype=np.float32),
        float(fps_fact.value),
        layout.name,
        source,
        problems,
        recording.features,
    )


def _check_fps(fps: Any, name: str) -> None:
    if isinstance(fps, bool) or not isinstance(fps, (int, float, np.number)) or not (0 < fps < math.inf):
        raise ValueError(f"{name} must be a positive number of frames per second, got {fps!r}.")


def _fps_fact(fps: float | None, recording: _Recording, layout: Skeleton) -> Fact:
    if fps is not None:
        return Fact(float(fps), "given")
    return recording.fps or Fact(layout.fps, "assumed", f"the frame rate of {layout.name}; the file names none")


def _facts_at_hand(recording: _Recording) -> dict[str, Fact]:
    frames, joints = recording.positions.shape[:2]
    facts = {"format": Fact(recording.format, "read"), "frames": Fact(frames, "read"), "joints": Fact(joints, "read")}
    return facts if recording.fps is None else facts | {"fps": recording.fps}


def _joints(
    path: Path,
    recording: _Recording,
    mapping: str | os.PathLike | Mapping[str, Any] | None,
    wanted: Skeleton | None,
) -> tuple[np.ndarray, Skeleton, RigMatch | None]:
    """Positions (T, J, 3) of a skeleton's joints, the skeleton, and by which names."""
    if not len(recording.positions):
        raise ValueError(f"{path} has 0 frames: export the motion again.")
    if recording.names:
        try:
            match = match_rig(recording.names, mapping, wanted)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        return match.apply(recording.positions, recording.names), match.skeleton, match
    if mapping is not None:
        raise ValueError(f"{path} holds joints without names, in a skeleton's own order: leave the mapping out.")
    count = recording.positions.shape[1]
    layout = next((layout for layout in SKELETONS.values() if layout.num_joints == count), None)
    if layout is None:
        raise ValueError(f"{path}: no skeleton has {count} joints; there are {_joint_counts()}.")
    if wanted not in (None, layout):
        assert wanted is not None
        raise ValueError(
            f"{path} has the {count} joints of {layout.name!r}, but {wanted.name!r} is wanted: use a model of "
            f"{layout.name!r}, or retarget the motion."
        )
    return recording.positions, layout, None


def _joint_counts() -> str:
    return ", ".join(f"{layout.num_joints} ({layout.name})" for layout in SKELETONS.values())


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


# ---------------------------------------------------------------------------------------------------------------------
# Formats
# ---------------------------------------------------------------------------------------------------------------------


def _read_file(path: Path, key: str | None, body_model: str | os.PathLike | None) -> _Recording:
    if not path.is_file():
        raise FileNotFoundError(f"There is no motion file {str(path)!r}: check the path.")
    suffix = path.suffix.lower()
    if key is not None and suffix != ".npz":
        raise ValueError(f"{path} holds no named arrays: a key ({key!r}) is for .npz files.")
    if suffix in (".npy", ".npz"):
        return _read_arrays(path, key, body_model)
    if suffix == ".bvh":
        return _read_bvh(path)
    if suffix == ".csv":
        return _read_csv(path)
    hint = " Pickles can run code when they are read." if suffix in (".pkl", ".pickle", ".pt", ".pth") else ""
    raise ValueError(
        f"{path} ends in {suffix or 'nothing'}; motions are read from {', '.join(FORMATS)}.{hint} Save joint "
        "positions with np.save(path, array)."
    )


def _load_numpy(path: Path) -> Any:
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise _unreadable(path, error) from error


def _unreadable(what: str | os.PathLike, error: Exception) -> ValueError:
    if "pickle" in str(error).lower():
        reason = "holds a pickle or objects, which can run code when they are read, so it is not read"
    else:
        reason = f"is no NumPy file, or cut off ({error})"
    return ValueError(f"{what} {reason}. Save joint positions as plain numbers with np.save(path, array).")


def _read_arrays(path: Path, key: str | None, body_model: str | os.PathLike | None) -> _Recording:
    loaded = _load_numpy(path)
    if isinstance(loaded, np.ndarray):
        return _from_array(loaded, str(path), "npy")
    with loaded as archive:
        if key is None and {"poses", "trans"} <= set(archive.files):
            return _read_amass(archive, path, body_model)
        name = key if key is not None else _choose_array(archive, path)
        if name not in archive.files:
            raise ValueError(f"{path} has no array {name!r}; there are {', '.join(archive.files) or 'none'}.")
        recording = _from_array(_member(archive, name, path), f"{path}, array {name!r}", f"npz, array {name!r}")
        recording.fps = _archive_fps(archive, path)
    return recording


def _member(archive: Any, name: str, path: Path) -> np.ndarray:
    try:
        return archive[name]
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise _unreadable(f"{path}, array {name!r},", error) from error


def _choose_array(archive: Any, path: Path) -> str:
    """The one array that can be a motion; of several, the one with a usual name."""
    shapes = {}
    for name in archive.files:
        try:
            shapes[name] = archive[name].shape
        except (ValueError, EOFError, OSError, zipfile.BadZipFile):
            shapes[name] = ()
    found = [name for name, shape in shapes.items() if _layout_of(shape) is not None]
    usual = [name for name in _ARRAY_NAMES if name in found]
    if len(found) == 1 or usual:
        return (usual or found)[0]
    at_hand = ", ".join(f"{name} {shape or '(unreadable)'}" for name, shape in shapes.items()) or "nothing"
    if found:
        raise ValueError(f"{path} has several motions: choose one of {', '.join(found)} with --key.")
    raise ValueError(f"{path} has no array of a motion, {_shapes()}; there is {at_hand}.")


def _layout_of(shape: tuple[int, ...]) -> tuple[Skeleton, str] | None:
    """Skeleton and kind (`positions`, `flat` or `features`) of an array of this shape."""
    for layout in SKELETONS.values():
        if len(shape) == 3 and shape[1:] == (layout.num_joints, 3):
            return layout, "positions"
        if len(shape) == 2 and shape[1] == 3 * layout.num_joints:
            return layout, "flat"
        if len(shape) == 2 and shape[1] == layout.num_features:
            return layout, "features"
    return None


def _shapes() -> str:
    positions = " or ".join(f"(frames, {layout.num_joints}, 3)" for layout in SKELETONS.values())
    features = " or ".join(f"(frames, {layout.num_features})" for layout in SKELETONS.values())
    return f"positions {positions} or features {features}"


def _from_array(array: np.ndarray, what: str, label: str) -> _Recording:
    found = _layout_of(array.shape)
    if found is None:
        hint = ""
        if array.ndim == 3 and array.shape[2] == 3 and array.shape[1] > HUMANML3D.num_joints:
            hint = " If these are SMPL's joints, keep the first 22: array[:, :22]."
        elif array.ndim == 4 and len(array) == 1:
            hint = " Save one motion a file: array[0]."
        raise ValueError(f"{what} has shape {array.shape}; expected {_shapes()}.{hint}")
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{what} has values of type {array.dtype}; expected numbers.")
    layout, kind = found
    if kind != "features":
        return _Recording(label, array.reshape(-1, layout.num_joints, 3).astype(np.float64))
    features = np.ascontiguousarray(array, dtype=np.float32)
    positions = features_to_positions(torch.from_numpy(features), layout).numpy() * layout.metres_per_unit
    return _Recording(
        f"{label}, features",
        positions.astype(np.float64),
        units=Fact("m", "read", "features as published"),
        up=Fact("y", "read", "features as published"),
        features=features,
    )


def _archive_fps(archive: Any, path: Path) -> Fact | None:
    for name in _FPS_NAMES:
        if name in archive.files:
            value = np.asarray(_member(archive, name, path))
            if value.size != 1 or value.dtype.kind not in "fiu":
                raise ValueError(f"{path}, array {name!r} should be one frame rate, got shape {value.shape}.")
            _check_fps(value.item(), f"{path}, {name}")
            return Fact(float(value.item()), "read", f"array {name!r}")
    return None


def _read_amass(archive: Any, path: Path, body_model: str | os.PathLike | None) -> _Recording:
    keys = [key for key in ("poses", "trans", "betas", "gender") if key in archive.files]
    positions = amass_positions({key: _member(archive, key, path) for key in keys}, body_model, str(path))
    return _Recording(
        "AMASS",
        positions.astype(np.float64),
        fps=_archive_fps(archive, path),
        units=Fact("m", "read", "AMASS"),
        up=Fact("z", "read", "AMASS"),
    )


def _read_bvh(path: Path) -> _Recording:
    bvh = read_bvh(path)
    recording = _Recording("BVH", bvh.positions(), names=bvh.names, rest=bvh.rest_positions)
    if bvh.frame_time > 0:
        # Frame times are written with six or seven digits.
        rate = 1 / bvh.frame_time
        whole = round(rate)
        recording.fps = Fact(
            float(whole) if whole and abs(rate - whole) < 5e-4 * whole else rate, "read", "Frame Time"
        )
    else:
        recording.problems.append(
            Problem("warning", f"The Frame Time is {bvh.frame_time:g} seconds.", "Give the frame rate with --fps.")
        )
    return recording


def _read_csv(path: Path) -> _Recording:
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
        text = stream.read()
    first = text.split("\n", 1)[0]
    separator = max(",;\t", key=first.count)
    rows = [(number, row) for number, row in enumerate(csv.reader(text.splitlines(), delimiter=separator), 1) if row]
    if not rows:
        raise ValueError(f"{path} is empty.")
    header = [name.strip() for name in rows[0][1]]
    joints = _csv_joints(header, path)
    values = np.array([_csv_numbers(row, len(header), number, path) for number, row in rows[1:]], dtype=np.float64)
    values = values.reshape(-1, len(header))
    columns = [[axes[axis] for axis in "xyz"] for axes in joints.values()]
    names = tuple(joints)
    if all(_NUMBERED.match(name) for name in names):
        names = ()
    time = [values[:, number] for number, name in enumerate(header) if name.lower() in _TIME_NAMES]
    fps, problems = _csv_fps(time[0], path) if time and len(values) > 1 else (None, [])
    return _Recording("CSV", values[:, columns], names=names, fps=fps, problems=problems)


def _csv_joints(header: Sequence[str], path: Path) -> dict[str, dict[str, int]]:
    """Joint -> axis -> column, in the order of the header."""
    joints: dict[str, dict[str, int]] = {}
    seen: dict[tuple[str, str], int] = {}
    for number, name in enumerate(header):
        if name.lower() in (*_TIME_NAMES, *_FRAME_NAMES):
            continue
        match = _AXIS_JOINT.match(name) or _JOINT_AXIS.match(name)
        if match is None:
            continue
        joint, axis = match["joint"].strip(), match["axis"].lower()
        times = seen[joint, axis] = seen.get((joint, axis), -1) + 1
        joints.setdefault(joint if joint and not times else f"{joint}{times}", {})[axis] = number
    incomplete = [name for name, axes in joints.items() if len(axes) != 3]
    if incomplete or not joints:
        lacking = " and ".join(axis for name in incomplete[:1] for axis in "xyz" if axis not in joints[name])
        reason = f"joint {incomplete[0]!r} has no {lacking}" if incomplete else f"got {', '.join(header[:6])}"
        raise ValueError(
            f"{path}: the header must have three columns a joint, such as left_hip_x, left_hip_y, left_hip_z; "
            f"{reason}."
        )
    return joints


def _csv_numbers(row: Sequence[str], width: int, line: int, path: Path) -> list[float]:
    if len(row) != width:
        raise ValueError(f"{path}, line {line}: {len(row)} values, but the header has {width} columns.")
    numbers = []
    for cell in row:
        try:
            numbers.append(float(cell) if cell.strip() else math.nan)
        except ValueError:
            raise ValueError(f"{path}, line {line}: {cell[:40]!r} is no number.") from None
    return numbers


def _csv_fps(time: np.ndarray, path: Path) -> tuple[Fact, list[Problem]]:
    steps = np.diff(time)
    step = float(np.median(steps))
    if not (math.isfinite(step) and 0 < step < 1):
        raise ValueError(f"{path}: the time column steps by {step:g}; expected seconds, rising and below 1.")
    problems = []
    uneven = int((np.abs(steps - step) > _UNEVEN * step).sum())
    if uneven:
        problems.append(
            Problem("warning", f"{uneven} of {len(steps)} time steps are uneven.", "Resample the recording.")
        )
    return Fact(float(f"{1 / step:.6g}"), "read", "time column"), problems


# ---------------------------------------------------------------------------------------------------------------------
# Out
# ---------------------------------------------------------------------------------------------------------------------


def save_bvh(
    path: str | os.PathLike,
    positions: Any,
    skeleton: str | Skeleton = "humanml3d",
    fps: float | None = None,
    units: str | float = "cm",
) -> float:
    """
    Write joint positions as a BVH file that animation programs open: a T-pose, and rotations by bone directions.

    A joint turns by what brings its bones to where they are; a joint with several bones that move against each other
    gets a helper joint of the same place for each. Bones have their median length. Positions do not tell how a limb
    turns about itself: it turns as little as possible.

    Args:
        path (`str` or `os.PathLike`): file to write.
        positions (`np.ndarray` of shape `(T, J, 3)`): metres, Y up.
        skeleton (`str` or [`Skeleton`]): joint layout.
        fps (`float`, *optional*): frames a second; unset, the skeleton's.
        units (`str` or `float`): of the file, one of `UNITS` or metres in a unit.

    Returns:
        `float`: largest distance in metres between a joint and where the file puts it; nearly 0 where every bone keeps
        its length.

    Raises:
        ValueError: wrong shape, NaN, or an fps or unit that makes no sense.

    Example:

        >>> walk = np.random.default_rng(0).normal(size=(1, 22, 3)) + np.linspace(0, 1, 20)[:, None, None]
        >>> save_bvh("walk.bvh", walk, fps=20) < 1e-5
        True
    """
    layout = get_skeleton(skeleton)
    joints = np.asarray(positions, dtype=np.float64)
    if joints.ndim != 3 or joints.shape[1:] != (layout.num_joints, 3) or not len(joints):
        raise ValueError(
            f"Expected positions of shape (frames, {layout.num_joints}, 3) for skeleton {layout.name!r}, got "
            f"{joints.shape}."
        )
    if not np.isfinite(joints).all():
        frame = int((~np.isfinite(joints).all(axis=(1, 2))).argmax())
        raise ValueError(f"Frame {frame} holds NaN or infinity: repair it, or cut it off.")
    rate = layout.fps if fps is None else fps
    _check_fps(rate, "fps")
    scale = metres_per_unit(units)
    bvh = positions_to_bvh(joints, layout, rate, scale)
    write_bvh(path, bvh)
    written = bvh.positions([bvh.names.index(name) for name in layout.joint_names])
    return float(np.linalg.norm(written * scale - joints, axis=-1).max())
