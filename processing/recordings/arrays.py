"""Read NumPy files: positions or published features of a skeleton, alone (`.npy`) or among other arrays (`.npz`)."""

from __future__ import annotations

import math
import os
import zipfile
from pathlib import Path
from typing import IO

import numpy as np
import torch

from ..motion_features import features_to_positions
from ..skeletons import HUMANML3D, SKELETONS, Skeleton
from .amass import amass_positions
from .detection import Fact, are_normalised
from .options import ReadingOptions
from .recording import Recording, check_values, stated_fps

_ARRAY_NAMES = ("positions", "joints", "joint_positions", "motion", "features", "joint_vecs")
MAX_MEMBERS = 1000  # of an archive, which are searched for a motion
# Rotations of a body model, not joints, if they are flat.
_ROTATION_NAMES = ("body_pose", "pose_body", "global_orient", "root_orient", "poses", "pose", "thetas", "smpl_pose")
_FPS_NAMES = ("fps", "mocap_framerate", "mocap_frame_rate", "framerate", "frame_rate")


def arrays_recording(path: Path, options: ReadingOptions) -> Recording:
    """Read a NumPy file as a recording: its array, one of several arrays, or the joints of an AMASS body."""
    with path.open("rb") as stream:
        is_archive = stream.read(2) == b"PK"
    if not is_archive:
        return _from_array(load_array(path), str(path), "npy")
    with _Archive(path) as archive:
        if options.key is None and {"poses", "trans"} <= set(archive.files):
            return _amass(archive, path, options)
        name = options.key if options.key is not None else _choose_array(archive, path)
        if name not in archive.files:
            names = ", ".join(archive.files) or "nothing, the file is empty"
            raise ValueError(f"{path}: no array named {name!r}; pass --key with one of {names}")
        recording = _from_array(archive.read(name), f"{path}, array {name!r}", f"npz, array {name!r}")
        _set_fps(recording, archive, path, options)
    return recording


def load_array(path: Path) -> np.ndarray:
    """Load the array of an `.npy` file without pickles; a `ValueError` if it is damaged or its header is wrong."""
    try:
        with path.open("rb") as stream:
            if stream.read(1) == b"\x80":
                raise ValueError("pickle")
            stream.seek(0)
            _check_header(stream, path.stat().st_size)
            stream.seek(0)
            return np.lib.format.read_array(stream, allow_pickle=False)
    except Exception as error:  # NumPy raises many kinds for damaged files, MemoryError among them
        raise _unreadable(path, error) from error


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
    if "pickle" in str(error).lower():
        reason = "not read because it contains a pickle or objects, which can run code"
    else:
        reason = f"not a NumPy file, or truncated ({error})"
    return ValueError(f"{what}: {reason}; save joint positions as plain numbers with np.save(path, array)")


def _choose_array(archive: _Archive, path: Path) -> str:
    """Return the name of the only array that can be a motion; of several, the one with a usual name."""
    shapes = {name: archive.shape(name) for name in archive.files[:MAX_MEMBERS]}
    found = [
        name
        for name, shape in shapes.items()
        if _layout_of(shape) and (name not in _ROTATION_NAMES or len(shape) == 3)
    ]
    usual = [name for name in _ARRAY_NAMES if name in found]
    if len(found) == 1 or usual:
        return (usual or found)[0]
    if found:
        raise ValueError(f"{path}: {len(found)} arrays can be motions; pass --key with one of {', '.join(found)}")
    present = ", ".join(f"{name} {shape or '(unreadable)'}" for name, shape in shapes.items()) or "nothing"
    rotations = ", ".join(name for name in shapes if name in _ROTATION_NAMES)
    hint = f" ({rotations}: rotations of SMPL; pose its body model and keep 22 joints)" if rotations else ""
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


def _from_array(array: np.ndarray, what: str, label: str) -> Recording:
    found = _layout_of(array.shape)
    if found is None:
        hint = ""
        if array.ndim == 3 and array.shape[2] == 3 and array.shape[1] > HUMANML3D.num_joints:
            hint = " (if these are SMPL's joints, keep the first 22: array[:, :22])"
        elif array.ndim == 4 and len(array) == 1:
            hint = " (one motion per file: array[0])"
        raise ValueError(f"{what}: got shape {array.shape}; save {_shapes()}{hint}")
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{what}: got values of type {array.dtype}; save numbers")
    layout, kind = found
    if kind != "features":
        return Recording(label, array.reshape(-1, layout.num_joints, 3).astype(np.float64), flat=kind == "flat")
    with np.errstate(over="ignore"):
        features = np.ascontiguousarray(array, dtype=np.float32)
    finite = np.isfinite(features).all(axis=1)
    if finite.any() and are_normalised(features[finite], layout):
        reason = "foot contacts are not in 0..1 or heights are negative, so the features are normalised"
        raise ValueError(f"{what}: {reason}; undo it with features * std + mean")
    positions = features_to_positions(torch.from_numpy(features), layout).numpy() * layout.metres_per_unit
    positions[~finite] = np.nan  # also if what is broken does not enter the positions
    units, up = (Fact(value, "read", "features as published") for value in ("m", "y"))
    return Recording(f"{label}, features", positions.astype(np.float64), units=units, up=up, features=features)


def _set_fps(recording: Recording, archive: _Archive, path: Path, options: ReadingOptions) -> None:
    for name in _FPS_NAMES:
        if name in archive.files:
            value = archive.read(name)
            if value.size != 1 or value.dtype.kind not in "fiu":
                raise ValueError(f"{path}, array {name!r}: got shape {value.shape}; save a single frame rate")
            where = f"array {name!r}"
            stated_fps(recording, float(value.item()), f"{where} is {value.item():g}", where, options.fps is not None)
            return


def _amass(archive: _Archive, path: Path, options: ReadingOptions) -> Recording:
    keys = [key for key in ("poses", "trans", "betas", "gender") if key in archive.files]
    positions = amass_positions({key: archive.read(key) for key in keys}, options.body_model, str(path))
    units, up = Fact("m", "read", "AMASS"), Fact("z", "read", "AMASS")
    recording = Recording("AMASS", positions.astype(np.float64), units=units, up=up)
    _set_fps(recording, archive, path, options)
    return recording
