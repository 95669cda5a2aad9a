"""Read NumPy files: positions or published features of a skeleton, alone (`.npy`) or among other arrays (`.npz`)."""

from __future__ import annotations

import math
import os
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..skeletons import HUMANML3D, SKELETONS, Skeleton
from .amass import BODY_NAMES, MEAN_BODY, amass_positions, body_parts, mean_positions, stack_rotations
from .batches import LENGTH_NAMES, choose_motion, is_batch, motions_of
from .detection import Fact, are_normalised
from .options import ReadingOptions
from .pickled import MAX_PICKLE, read_pickled
from .recording import Problem, Recording, check_values, stated_fps

_ARRAY_NAMES = ("positions", "joints", "joint_positions", "motion", "features", "joint_vecs")
MAX_MEMBERS = 1000  # of an archive, which are searched for a motion
# Rotations of a body model, not joints, if they are flat.
_ROTATION_NAMES = ("body_pose", "pose_body", "global_orient", "root_orient", "poses", "pose", "thetas", "smpl_pose")
_FPS_NAMES = ("fps", "mocap_framerate", "mocap_frame_rate", "framerate", "frame_rate")


def arrays_recording(path: Path, options: ReadingOptions) -> Recording:
    """Read a NumPy file as a recording: its array, one of several arrays, or the joints of a posed body model."""
    with path.open("rb") as stream:
        is_archive = stream.read(2) == b"PK"
    if not is_archive:
        content, lengths = load_arrays(path)
        array, problem = choose_motion(content, lengths, options.key, str(path))
        return _from_array(array, str(path), "npy", problem)
    with _Archive(path) as archive:
        parts = body_parts(archive.files, options.key)
        if parts is not None:
            return _body(archive, parts, path, options)
        name, _, number = (options.key or "").partition("/")
        if name.isdecimal() and name not in archive.files:
            name, number = "", name
        name = name or _choose_array(archive, path)
        if name not in archive.files:
            names = ", ".join(archive.files) or "nothing, the file is empty"
            raise ValueError(f"{path}: no array named {name!r}; pass key=... with one of {names}")
        what = f"{path}, array {name!r}"
        lengths = next((archive.read(key) for key in LENGTH_NAMES if key in archive.files), None)
        array, problem = choose_motion(archive.read(name), lengths, number or None, what)
        recording = _from_array(array, what, f"npz, array {name!r}", problem)
        _set_fps(recording, archive, path, options)
    return recording


def load_array(path: Path) -> np.ndarray:
    """Load the array of an `.npy` file without pickles; a `ValueError` if it is damaged or its header is wrong."""
    try:
        with path.open("rb") as stream:
            _check_header(stream, path.stat().st_size)
            stream.seek(0)
            return np.lib.format.read_array(stream, allow_pickle=False)
    except Exception as error:  # NumPy raises many kinds for damaged files, MemoryError among them
        raise _unreadable(path, error) from error


def load_arrays(path: Path) -> tuple[Any, Any]:
    """Load an `.npy` file: its array, or the motions and lengths of a dictionary as generators save them."""
    try:
        with path.open("rb") as stream:
            if stream.read(1) == b"\x80":
                raise ValueError("pickle")
            stream.seek(0)
            dtype = _read_header(stream)[1]
            pickled = stream.read(MAX_PICKLE + 1) if dtype.hasobject else None
    except Exception as error:
        raise _unreadable(path, error) from error
    if pickled is None:
        return load_array(path), None
    try:
        return motions_of(read_pickled(pickled))
    except ValueError as error:
        raise _unreadable(path, ValueError(f"pickle: {error}")) from error


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    return shape, dtype


def _check_header(stream: IO[bytes], size: int) -> None:
    """Raise a `ValueError` if an array of `size` bytes, its header included, is not what the header states."""
    shape, dtype = _read_header(stream)
    if dtype.hasobject:
        raise ValueError("pickle")
    count = math.prod(shape)
    if min(shape, default=0) < 0 or stream.tell() + count * dtype.itemsize != size:
        raise ValueError(f"the header states the shape {shape} of {dtype}, but the file has {size} bytes")
    check_values(max(count, count * dtype.itemsize // 8), "array")


class _Archive:
    """An `.npz` file: headers are read without their arrays, and arrays after their header has been checked."""

    def __init__(self, path: Path):
        self.path = path
        try:
            self.zip = zipfile.ZipFile(path)
        except Exception as error:
            raise _unreadable(path, error) from error
        self.members = {info.filename.removesuffix(".npy"): info for info in self.zip.infolist()}
        self.files = list(self.members)

    def __enter__(self) -> _Archive:
        return self

    def __exit__(self, *error: object) -> None:
        self.zip.close()

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of an array, empty if it is damaged or something else."""
        try:
            with self.zip.open(self.members[name]) as stream:
                return _read_header(stream)[0]
        except Exception:
            return ()

    def read(self, name: str) -> np.ndarray:
        member = self.members[name]
        try:
            with self.zip.open(member) as stream:
                _check_header(stream, member.file_size)
            with self.zip.open(member) as stream:
                return np.lib.format.read_array(stream, allow_pickle=False)
        except Exception as error:
            raise _unreadable(f"{self.path}, array {name!r}", error) from error


def _unreadable(what: str | os.PathLike, error: Exception) -> ValueError:
    if str(error).startswith("pickle"):
        reason = "not read because it contains a pickle or objects, which can run code"
        if detail := str(error).removeprefix("pickle").removeprefix(": "):
            reason += f" ({detail})"
    else:
        reason = f"not a NumPy file, or truncated ({error})"
    return ValueError(f"{what}: {reason}; save joint positions as plain numbers with np.save(path, array)")


def _choose_array(archive: _Archive, path: Path) -> str:
    """Return the name of the only array that can be a motion; of several, the one with a usual name."""
    shapes = {name: archive.shape(name) for name in archive.files[:MAX_MEMBERS]}
    found = [
        name
        for name, shape in shapes.items()
        if (_layout_of(shape) or is_batch(shape))
        and (name not in _ROTATION_NAMES or (len(shape) == 3 and body_parts(archive.files, name) is None))
    ]
    usual = [name for name in _ARRAY_NAMES if name in found]
    if len(found) == 1 or usual:
        return (usual or found)[0]
    if found:
        raise ValueError(f"{path}: {len(found)} arrays can be motions; pass key=... with one of {', '.join(found)}")
    present = ", ".join(f"{name} {shape or '(unreadable)'}" for name, shape in shapes.items()) or "nothing"
    rotations = ", ".join(name for name in shapes if name in _ROTATION_NAMES)
    hint = f" ({rotations}: rotations of SMPL; pose its body model and keep 22 joints)" if rotations else ""
    parts = next((name for name in BODY_NAMES if name in shapes), None)
    if parts is not None and body_parts(archive.files, parts) is not None:
        hint = f" ({rotations}: rotations of SMPL; pass key={parts!r} to pose a mean body with them)"
    raise ValueError(f"{path}: no array can be a motion, got {present}; save {_shapes()}{hint}")


def _layout_of(shape: tuple[int, ...]) -> tuple[Skeleton, str] | None:
    """Return the skeleton and the kind (`positions`, `flat` or `features`) of an array of this shape."""
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


def _from_array(array: np.ndarray, what: str, label: str, problem: Problem | None = None) -> Recording:
    found = _layout_of(array.shape)
    if found is None:
        hint = ""
        if array.ndim == 3 and array.shape[2] == 3 and array.shape[1] > HUMANML3D.num_joints:
            hint = " (if these are SMPL's joints, keep the first 22: array[:, :22])"
        raise ValueError(f"{what}: got shape {array.shape}; save {_shapes()}{hint}")
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{what}: got values of type {array.dtype}; save numbers")
    problems = [] if problem is None else [problem]
    layout, kind = found
    if kind != "features":
        positions = array.reshape(-1, layout.num_joints, 3).astype(np.float64)
        return Recording(label, positions, flat=kind == "flat", problems=problems)
    with np.errstate(over="ignore"):
        features = np.ascontiguousarray(array, dtype=np.float32)
    finite = np.isfinite(features).all(axis=1)
    if finite.any() and are_normalised(features[finite], layout):
        reason = "foot contacts are not in 0..1 or heights are negative, so the features are normalised"
        raise ValueError(f"{what}: {reason}; undo it with features * std + mean")
    import torch  # here, since other files are read without it

    from ..motion_features import features_to_positions

    positions = features_to_positions(torch.from_numpy(features), layout).numpy() * layout.metres_per_unit
    positions[~finite] = np.nan  # also if what is broken does not enter the positions
    units, up = (Fact(value, "read", "features as published") for value in ("m", "y"))
    label = f"{label}, features"
    return Recording(label, positions.astype(np.float64), units=units, up=up, features=features, problems=problems)


def _set_fps(recording: Recording, archive: _Archive, path: Path, options: ReadingOptions) -> None:
    for name in _FPS_NAMES:
        if name in archive.files:
            value = archive.read(name)
            if value.size != 1 or value.dtype.kind not in "fiu":
                raise ValueError(f"{path}, array {name!r}: got shape {value.shape}; save a single frame rate")
            where = f"array {name!r}"
            stated_fps(recording, float(value.item()), f"{where} is {value.item():g}", where, options.fps is not None)
            return


def _body(archive: _Archive, parts: tuple[str, ...], path: Path, options: ReadingOptions) -> Recording:
    """Pose a body model, or a mean body without one."""
    is_amass = options.key is None
    rotations = [archive.read(part) for part in parts]
    content: dict[str, Any] = {name: archive.read(name) for name in ("betas", "gender") if name in archive.files}
    trans = next((archive.read(name) for name in ("trans", "transl") if name in archive.files), None)
    if is_amass and any(array.ndim != 2 for array in rotations):
        shapes = " and ".join(f"{name} {array.shape}" for name, array in zip(parts, rotations, strict=True))
        raise ValueError(f"{path}: got {shapes}; AMASS files contain poses (frames, 66 or more), axis angles")
    poses = stack_rotations(rotations, parts, str(path))
    problems = []
    if trans is None:
        trans = np.zeros((len(poses), 3))
        problems.append(Problem("note", "the file contains no translation, so the body stays in place"))
    if options.body_model is not None:
        positions = amass_positions(content | {"poses": poses, "trans": trans}, options.body_model, str(path))
    else:
        positions = mean_positions(poses, trans, str(path))
        problems.append(MEAN_BODY)
    label = "AMASS" if is_amass else f"npz, rotations {' and '.join(parts)}"
    up = Fact("z", "read", "AMASS") if is_amass else None
    recording = Recording(
        label, positions.astype(np.float64), units=Fact("m", "read", label), up=up, problems=problems
    )
    _set_fps(recording, archive, path, options)
    return recording
