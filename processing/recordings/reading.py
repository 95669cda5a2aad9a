"""Read motion files as joint positions in metres, Y up.

| file | content | joints |
|---|---|---|
| `.npy` | positions (T, 22 or 21, 3), also flattened, or features (T, 263 or 251) | HumanML3D's or KIT-ML's |
| | several of these, see `batches` | the same |
| `.npz` | such an array among others; or AMASS (`poses`, `trans`), of a mean body without a body model | the same |
| `.bvh` | a body with joint names of a rig of [`match_rig`] or of a mapping | by name |
| `.csv` | a header with three columns per joint (`left_hip_x`, ...), optionally `time` | by name, or by number |
| `.c3d`, `.trc` | markers or joint centres, see `marker_sets` | from known markers, else by name |
| `.amc` | rotations of the skeleton in the `.asf` file beside it | by name |
| `.glb`, `.gltf` | an animated skeleton | by name |
| `.json` | landmarks of MediaPipe Pose, see `landmarks` | from landmarks |

Missing facts are detected, see [`orientation`]: the unit from the lengths of legs and trunk, the up axis from the
rest pose, the floor and the way the body stands. Each such finding is a [`Fact`] with a confidence, and can be
overridden. Pickles are parsed as data and never executed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from lexmotion.common.options import merge_options

from ..skeletons import HUMANML3D, Skeleton, get_skeleton, skeleton_for_joints
from .arrays import arrays_recording
from .asf_amc import amc_recording, asf_recording
from .bvh import bvh_recording
from .c3d import c3d_recording
from .csv_files import csv_recording
from .detection import (
    FURTHEST,
    UP_AXES,
    Fact,
    body_height,
    crossed_pairs,
    finite_frames,
    metres_per_unit,
    sides_agree,
    sort_joints,
    starts_in_rest,
    to_y_up,
    unlike_a_body,
)
from .gltf import gltf_recording
from .landmarks import landmarks_recording
from .options import ReadingOptions
from .orientation import Decision, Traits, decide_sources, facts_of, traits_of
from .recording import Problem, Recording, SeveralMotionsError, check_fps
from .rigs import RigMatch, match_rig
from .trc import trc_recording

READERS: dict[str, Callable[[Path, ReadingOptions], Recording]] = {
    ".npy": arrays_recording,
    ".npz": arrays_recording,
    ".bvh": bvh_recording,
    ".csv": csv_recording,
    ".amc": amc_recording,
    ".asf": asf_recording,
    ".c3d": c3d_recording,
    ".trc": trc_recording,
    ".glb": gltf_recording,
    ".gltf": gltf_recording,
    ".json": landmarks_recording,
}
FORMATS = tuple(READERS)
NAMED = (".bvh", ".csv", ".amc", ".c3d", ".trc", ".glb", ".gltf")  # whose joints have names
WITH_KEYS = (".npy", ".npz", ".glb", ".gltf")  # which can hold several motions
MAX_FILE = 256 * 2**20  # bytes of a file that is no array, as many as 20 million values need as text
FROM_FBX = (
    "import bpy; bpy.ops.wm.read_factory_settings(use_empty=True); bpy.ops.import_scene.fbx(filepath='kick.fbx'); "
    "bpy.ops.export_scene.gltf(filepath='kick.glb')"
)


@dataclass(frozen=True)
class Motion:
    """A motion, independent of the file format.

    Args:
        positions: (T, J, 3) float32 joint positions in metres, Y up.
        fps: frames per second.
        skeleton: name of the joint layout.
        source: facts about the file: `format`, `skeleton`, `mapping` (if joints have names), `fps`, `units`, `up`.
        problems: problems found while reading.
        features: (T, F) float32 published features, if the file contains them.
    """

    positions: np.ndarray = field(repr=False)
    fps: float
    skeleton: str
    source: dict[str, Fact]
    problems: list[Problem]
    features: np.ndarray | None = field(default=None, repr=False)

    @property
    def model_input(self) -> np.ndarray:
        """Input for the feature extractor: features if the file contains them, else positions."""
        return self.positions if self.features is None else self.features

    @property
    def fps_is_known(self) -> bool:
        """Whether the frame rate is given by the caller or the file."""
        return self.source["fps"].confidence != "assumed"


class MotionError(ValueError):
    """Error for a file that could be read, but not understood as a motion; `facts` are those known nevertheless."""

    def __init__(self, message: str, facts: dict[str, Fact]):
        super().__init__(message)
        self.facts = facts


def load_motion(
    path: str | os.PathLike, options: ReadingOptions | None = None, skeleton: str | None = None, **fields: Any
) -> Motion:
    """Read a motion file.

    Args:
        path: a file of one of `FORMATS`, see the top of this file; FILE#KEY selects one of several motions.
        options: facts that the file does not contain; None: all facts are read or detected.
        skeleton: required joint layout, `"humanml3d"` or `"kit-ml"`; None: any.
        fields: fields of [`ReadingOptions`] by name (`fps`, `units`, `up`, `mapping`, `key`, `body_model`), which
            replace those of `options`.

    Returns:
        The motion in metres, Y up, at the file's frame rate.

    Raises:
        FileNotFoundError: if the file, the mapping or the body model does not exist.
        ImportError: if a body model is given for an AMASS file and `smplx` is not installed.
        TypeError: if an option is unknown.
        SeveralMotionsError: if the file holds several motions and `key` names none; a ValueError.
        ValueError: if the file is malformed, has joints of another or no skeleton, lacks joints, or contains NaN.

    Example:
        >>> np.save("kick.npy", np.random.default_rng(0).normal(size=(40, 22, 3)))
        >>> motion = load_motion("kick.npy", units="m", up="y")
        >>> motion.positions.shape, motion.fps, motion.source["fps"].confidence
        ((40, 22, 3), 20.0, 'assumed')
    """
    motion = read_motion(path, merge_options(ReadingOptions, options, fields), skeleton)
    for problem in motion.problems:
        if problem.severity == "error":
            raise ValueError(f"{path}: {problem}")
    return motion


@np.errstate(over="ignore", invalid="ignore")  # what overflows is refused as NaN or infinity
def read_motion(
    path: str | os.PathLike,
    options: ReadingOptions,
    skeleton: str | None = None,
    decisions: Mapping[str, Decision] = MappingProxyType({}),
) -> Motion:
    """Read a file like [`load_motion`], with NaN as a problem of severity `error` instead of an exception.

    Args:
        path: see [`load_motion`], as `options` and `skeleton`.
        options: facts that the file does not contain.
        skeleton: required joint layout.
        decisions: unit and vertical axis of sources, see [`decide_sources`].
    """
    path = Path(path)
    recording, positions, layout, match = _read_joints(path, options, skeleton)
    finite = np.isfinite(positions).all(axis=(1, 2))
    traits = _traits(recording, finite_frames(positions), layout, match)
    source = _facts(recording, options, layout, match, facts_of(traits, decisions))
    scale = metres_per_unit(source["units"].value)
    _check_range(path, positions, scale)
    positions = to_y_up(positions * scale, source["up"].value)
    if recording.features is None and finite[:12].all():
        rest = None if recording.rest is None or match is None else scale * _rest(recording, match)
        if starts_in_rest(positions, layout, rest):
            positions, finite = positions[1:], finite[1:]
            recording.problems.append(Problem("note", "frame 0 is the rest pose, not the motion, and is left out"))
    return Motion(
        np.ascontiguousarray(positions, dtype=np.float32),
        float(source["fps"].value),
        layout.name,
        source,
        [*recording.problems, *_mapping_problems(match), *_problems(positions, finite, layout, source)],
        recording.features,
    )


@np.errstate(over="ignore", invalid="ignore")
def read_traits(path: str | os.PathLike, options: ReadingOptions, skeleton: str | None = None) -> Traits | None:
    """Read what a file shows of its unit and vertical axis; None: it states both. Errors are those of [`read_motion`].

    The arguments are those of [`read_motion`].
    """
    recording, positions, layout, match = _read_joints(Path(path), options, skeleton)
    if recording.units is not None and recording.up is not None:
        return None
    return _traits(recording, finite_frames(positions), layout, match)


def options_of_corpus(
    paths: Sequence[str | os.PathLike], options: ReadingOptions, skeleton: str | None = None
) -> list[ReadingOptions]:
    """Infer unit and up axis of several files together, and return the options to read each of them with.

    Files that are clear or cannot be read keep `options`.

    Args:
        paths: motion files.
        options: facts that the files do not contain.
        skeleton: required joint layout.
    """
    found: dict[int, Traits] = {}
    for number, path in enumerate(paths if len(paths) > 1 else ()):
        try:
            traits = read_traits(path, options, skeleton)
        except (ValueError, OSError, ImportError):
            continue
        found |= {} if traits is None else {number: traits}
    decisions, chosen = decide_sources(list(found.values())), [options] * len(paths)
    for number, traits in found.items():
        better = {
            name: fact.value
            for name, fact, alone in zip(
                ("units", "up"), facts_of(traits, decisions), facts_of(traits, {}), strict=True
            )
            if getattr(options, name) is None and fact.confidence != "low"
            if fact.value != alone.value or alone.confidence == "low"
        }
        chosen[number] = replace(options, **better)
    return chosen


def _read_joints(
    path: Path, options: ReadingOptions, skeleton: str | None
) -> tuple[Recording, np.ndarray, Skeleton, RigMatch | None]:
    """Return a file's recording, and what [`_joints`] finds in it; at least one frame is finite."""
    wanted = None if skeleton is None else get_skeleton(skeleton)
    _check(options)
    recording = _read_file(path, options)
    if recording.features is not None and (options.units is not None or options.up is not None):
        raise ValueError(f"{path}: the unit and axis of published features are known; remove units=... and up=...")
    try:
        _check_range(path, recording.positions, metres_per_unit(options.units or "mm"))
        positions, layout, match = _joints(path, recording, options.mapping, wanted)
        finite = np.isfinite(positions).all(axis=(1, 2))
        if not finite.any():
            raise ValueError(f"{path}: all {len(finite)} frames contain NaN or infinity; export the motion again")
        if not body_height(finite_frames(positions), layout) > 1e-9:
            raise ValueError(f"{path}: all joints are in one place; export the joint positions again")
    except ValueError as error:
        raise MotionError(str(error), _known_facts(recording)) from error
    return recording, positions, layout, match


def _traits(recording: Recording, clean: np.ndarray, layout: Skeleton, match: RigMatch | None) -> Traits:
    if match is None:
        return traits_of(clean, layout, recording.format, layout.name, array=True)
    rest = None if recording.rest is None else _rest(recording, match)
    return traits_of(clean, layout, recording.format, match.rig, rest)


def _check(options: ReadingOptions) -> None:
    """Raise a `ValueError` if an option has an impossible value."""
    if options.fps is not None:
        check_fps(options.fps, "fps")
    if options.up is not None and options.up not in UP_AXES:
        raise ValueError(f"up: got {options.up!r}; pass one of {', '.join(UP_AXES)}")
    if options.units is not None:
        metres_per_unit(options.units)


def _check_range(path: Path, positions: np.ndarray, scale: float) -> None:
    """Raise a `ValueError` if float32 cannot hold these positions of `scale` metres per unit."""
    furthest = float(np.abs(np.where(np.isfinite(positions), positions, 0.0)).max(initial=0.0))
    if furthest * scale > FURTHEST:
        message = f"a joint has the coordinate {furthest:g}, more than {FURTHEST / 1000:g} km from the origin"
        raise ValueError(f"{path}: {message}; move the motion to the origin, or pass the unit with units=...")


def split_key(path: Path) -> tuple[Path, str | None]:
    """Return the file and the key of FILE#KEY, which selects one of several motions; None: no key.

    Example:
        >>> split_key(Path("results.npy#3"))
        (PosixPath('results.npy'), '3')
    """
    name, mark, key = path.name.rpartition("#")
    is_key = bool(mark) and Path(name).suffix.lower() in WITH_KEYS and not path.exists()
    return (path.with_name(name), key) if is_key else (path, None)


def motions_in(path: Path, options: ReadingOptions) -> list[Path]:
    """Return FILE#KEY for each motion of a file with several, else the file itself; see [`split_key`].

    A file that cannot be read is returned as well, so that reading it raises the error.
    """
    if path.suffix.lower() in WITH_KEYS and options.key is None:
        try:
            _read_file(path, options)
        except SeveralMotionsError as error:
            return [path.with_name(f"{path.name}#{key}") for key in error.keys]
        except (ValueError, OSError, ImportError):
            pass
    return [path]


def check_file(path: Path) -> None:
    """Raise a `FileNotFoundError` if the file does not exist, and an `IsADirectoryError` if it is a folder."""
    path, _ = split_key(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path}: is a folder; pass a motion file")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: motion file not found; check the path")


def _read_file(path: Path, options: ReadingOptions) -> Recording:
    check_file(path)
    path, key = split_key(path)
    options = options if key is None else replace(options, key=key)
    suffix = path.suffix.lower()
    if options.key is not None and suffix not in WITH_KEYS:
        message = f"no named arrays; remove key={options.key!r}, which is for {', '.join(WITH_KEYS)} files"
        raise ValueError(f"{path}: {message}")
    if suffix not in READERS:
        raise ValueError(f"{path}: {_unsupported(suffix)}")
    size = path.stat().st_size
    if suffix not in (".npy", ".npz") and size > MAX_FILE:
        raise ValueError(
            f"{path}: got {size / 2**20:.0f} MB, at most {MAX_FILE >> 20} are read; split it into several files"
        )
    return READERS[suffix](path, options)


def _unsupported(suffix: str) -> str:
    if suffix == ".fbx":
        return f'FBX files are not read; convert them with blender --background --python-expr "{FROM_FBX}"'
    hint = " (pickles can run code)" if suffix in (".pkl", ".pickle", ".pt", ".pth") else ""
    message = f"unsupported file type {suffix or 'without suffix'}{hint}, expected {', '.join(FORMATS)}"
    return f"{message}; save joint positions with np.save(path, array)"


def _facts(
    recording: Recording,
    options: ReadingOptions,
    layout: Skeleton,
    match: RigMatch | None,
    detected: tuple[Fact, Fact],
) -> dict[str, Fact]:
    """Collect the facts about a file: as given, else as read, else unit and vertical axis as `detected`."""
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
        unnamed = f"the frame rate of {layout.name}; the file contains none"
        facts["fps"] = recording.fps or Fact(layout.fps, "assumed", unnamed)
    stated = {"units": (options.units, recording.units), "up": (options.up, recording.up)}
    for (name, (given, read)), fact in zip(stated.items(), detected, strict=True):
        facts[name] = Fact(given, "given") if given is not None else read or fact
    return facts


def _rest(recording: Recording, match: RigMatch) -> np.ndarray:
    """Return the (J, 3) rest pose of the skeleton's joints in the file's unit."""
    assert recording.rest is not None
    return match.apply(recording.rest[None], recording.names)[0]


def _known_facts(recording: Recording) -> dict[str, Fact]:
    frames, joints = recording.positions.shape[:2]
    facts = {"format": Fact(recording.format, "read"), "frames": Fact(frames, "read"), "joints": Fact(joints, "read")}
    return facts if recording.fps is None else facts | {"fps": recording.fps}


def _joints(
    path: Path, recording: Recording, mapping: str | os.PathLike | Mapping[str, Any] | None, wanted: Skeleton | None
) -> tuple[np.ndarray, Skeleton, RigMatch | None]:
    """Return positions (T, J, 3) of a skeleton's joints, the skeleton, and the match of the names if there are any."""
    if not len(recording.positions):
        raise ValueError(f"{path}: the motion has 0 frames; export it again")
    count = recording.positions.shape[1]
    if mapping is not None and not recording.names:
        raise ValueError(f"{path}: the joints have no names, but the order of a skeleton; remove mapping=...")
    try:
        if recording.names:
            match = match_rig(recording.names, mapping, wanted)
            return match.apply(recording.positions, recording.names), match.skeleton, match
        layout = skeleton_for_joints(count)
        if recording.features is None:
            recording.positions, order = sort_joints(recording.positions, layout)
            if order is not None:
                message = f"the joints are in the order of {order}, in which bones keep their length; they are sorted"
                recording.problems.append(Problem("note", message))
            clean = finite_frames(recording.positions)
            wrong = unlike_a_body(clean, layout) if recording.flat and len(clean) else None
            if wrong is not None:
                shape = f"(frames, {3 * count}) is also the layout of SMPL's axis angles"
                raise ValueError(f"{shape}, and as joint positions {wrong}; save positions (frames, {count}, 3)")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if wanted not in (None, layout):
        assert wanted is not None
        remedy = f"use a model of {layout.name!r}, or retarget the motion"
        raise ValueError(f"{path}: got the {count} joints of {layout.name!r}, not those of {wanted.name!r}; {remedy}")
    return recording.positions, layout, None


def _mapping_problems(match: RigMatch | None) -> Iterator[Problem]:
    if match is not None:
        for one, other in match.repeated:
            message = f"{one} and {other} are both {match.sources[one][0]!r}"
            yield Problem("warning", message, "name another source for one of them in the mapping")


def _problems(
    positions: np.ndarray, finite: np.ndarray, layout: Skeleton, source: Mapping[str, Fact]
) -> Iterator[Problem]:
    """Yield the problems that appear while reading."""
    if not finite.all():
        broken = np.flatnonzero(~finite)
        shown = ", ".join(map(str, broken[:5])) + (", ..." if len(broken) > 5 else "")
        message = f"{len(broken)} of {len(finite)} frames contain NaN or infinity (frames {shown})"
        remedy = "fill the gaps in the program that recorded the motion, or cut these frames off"
        yield Problem("error", message, remedy)
    fps, units, up = source["fps"], source["units"], source["up"]
    if fps.confidence == "assumed":
        message = f"the file contains no frame rate, {fps.value:g} assumed"
        yield Problem("note", message, "pass another one with fps=...")
    for fact, what, remedy in (
        (units, "the unit", "pass it with units=..."),
        (up, "the up axis", "pass it with up=..., try y or z"),
    ):
        if fact.confidence == "low":
            yield Problem("warning", f"{what} is unclear, {fact.value} assumed: {fact.reason}", remedy)
    clean = finite_frames(positions)
    wrong = unlike_a_body(clean, layout)
    if wrong is not None:
        remedy = "check that these are joint positions in the order of the skeleton, and smooth glitches"
        yield Problem("warning", f"{wrong}, so this is hardly a body", remedy)
    crossed = crossed_pairs(clean, layout)
    if crossed is not None:
        message = f"left and right of the {crossed} are exchanged against each other"
        yield Problem("warning", message, "correct the mapping, or the order of the joints")
    # KIT-ML's own files are left-handed.
    if layout is HUMANML3D and sides_agree(clean, layout) < -0.5:
        message = "left and right seem to be exchanged: the toes point away from where the hips face"
        remedy = "the file may be left-handed: negate one horizontal axis on export, or correct the mapping"
        yield Problem("warning", message, remedy)
