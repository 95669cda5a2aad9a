"""Read the motion of an AMC file with the skeleton of the ASF file beside it, as Acclaim and CMU write them.

A bone of the ASF file has a direction and length in the coordinates of the world, axes that its rotations refer to,
and a list of the channels that the AMC file contains for it. A joint is where its bone starts, as in a BVH file; the
ends of the last bones have the suffix `_end`.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .detection import UNITS, Fact
from .kinematics import END_SUFFIX, multiply, rotate, turn_about
from .options import ReadingOptions
from .recording import MAX_VALUES, Problem, Recording, check_values, short_lines

MAX_BONES = 10_000
_LARGEST = 1e8
_USUAL_FPS = 120.0  # of CMU and HDM05
_CHANNELS = ("tx", "ty", "tz", "rx", "ry", "rz")


@dataclass
class _Bone:
    name: str
    line: int
    direction: np.ndarray = field(default_factory=lambda: np.zeros(3))
    length: float = 1.0
    axis: np.ndarray = field(default_factory=lambda: np.array([1.0, 0.0, 0.0, 0.0]))
    channels: tuple[str, ...] = ()
    parent: str = ""

    @property
    def offset(self) -> np.ndarray:
        """(3,) from start to end."""
        return self.length * self.direction


@dataclass
class _Skeleton:
    bones: dict[str, _Bone]  # parents first, `root` is the first
    metres_per_unit: float | None
    degrees: bool


def amc_recording(path: Path, options: ReadingOptions) -> Recording:
    """Read an AMC file and its skeleton as a recording, in the file's own unit and axes."""
    skeleton = read_asf(_skeleton_file(path))
    values, degrees = _read_amc(path, skeleton)
    names, positions = _positions(skeleton, values, degrees)
    rest = _positions(skeleton, {name: np.zeros((1, value.shape[1])) for name, value in values.items()}, degrees)[1]
    units = None
    if skeleton.metres_per_unit is not None:
        known = (name for name, unit in UNITS.items() if abs(unit / skeleton.metres_per_unit - 1) < 1e-6)
        units = Fact(next(known, skeleton.metres_per_unit), "read", "length in the ASF file")
    fps = Fact(_USUAL_FPS, "medium", "usual for AMC files, which contain none")
    recording = Recording("ASF/AMC", positions, names=names, rest=rest[0], units=units, fps=fps)
    if options.fps is None:
        message = f"AMC files contain no frame rate, so {_USUAL_FPS:g} is assumed"
        recording.problems.append(Problem("note", message, "pass another one with fps=..."))
    return recording


def asf_recording(path: Path, options: ReadingOptions) -> Recording:
    """Refuse a file that contains a skeleton alone."""
    raise ValueError(f"{path}: contains a skeleton but no motion; pass the .amc file, with this file beside it")


def _skeleton_file(path: Path) -> Path:
    """Find the skeleton of a motion: of the same name, else of the longest that begins it, else the only one."""
    beside = sorted(file for file in path.parent.iterdir() if file.suffix.lower() == ".asf")
    stem = path.stem.lower()
    named = [file for file in beside if re.match(rf"{re.escape(file.stem.lower())}($|[_\-. ])", stem)]
    if named:
        return max(named, key=lambda file: len(file.stem))
    if len(beside) == 1:
        return beside[0]
    found = f"only {len(beside)} others" if beside else "and no other"
    remedy = f"copy it beside the file as {path.stem}.asf"
    raise FileNotFoundError(f"{path}: no skeleton (.asf) for this motion, {found} in the folder; {remedy}")


def _statements(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the words of each line that has some, without comments, and its number."""
    with path.open(encoding="utf-8-sig", errors="replace") as stream:
        for number, line in enumerate(short_lines(stream, str(path)), start=1):
            words = line.partition("#")[0].split()
            if words:
                yield number, words


class _Reader:
    """Numbers and errors of one file."""

    def __init__(self, path: Path):
        self.path = path

    def fail(self, line: int, message: str) -> ValueError:
        return ValueError(f"{self.path}, line {line}: {message}")

    def numbers(self, words: Sequence[str], line: int, count: int, what: str) -> np.ndarray:
        try:
            values = np.array([float(word) for word in words])
        except ValueError:
            values = np.empty(0)
        if len(values) != count or not (np.abs(values) <= _LARGEST).all():
            shown = " ".join(words)[:40]
            raise self.fail(line, f"{what} needs {count} finite numbers, got {shown!r}; export the file again")
        return values


def read_asf(path: Path) -> _Skeleton:
    """Read a skeleton.

    Raises:
        ValueError: if it is malformed; the message names the line.
    """
    parser = _AsfParser(path)
    section = ""
    for line, words in _statements(path):
        if words[0].startswith(":"):
            section = words[0].lower()
        elif section == ":units":
            parser.unit(words, line)
        elif section == ":root":
            parser.root(words, line)
        elif section == ":bonedata":
            parser.bone(words, line)
        elif section == ":hierarchy":
            parser.children(words, line)
    return parser.skeleton()


class _AsfParser(_Reader):
    def __init__(self, path: Path):
        super().__init__(path)
        self.bones = {"root": _Bone("root", 0, channels=("tx", "ty", "tz", "rx", "ry", "rz"))}
        self.ordered = ["root"]
        self.open: _Bone | None = None
        self.length: float | None = None
        self.degrees = True
        self.root_turn, self.root_axes = np.zeros(3), "XYZ"

    def unit(self, words: list[str], line: int) -> None:
        if words[0].lower() == "length":
            length = float(self.numbers(words[1:], line, 1, "length")[0])
            if not 1e-4 <= length <= 1e4:
                raise self.fail(line, f"length is {length:g}; write the units per inch")
            self.length = None if length == 1 else length
        elif words[0].lower() == "angle":
            self.degrees = len(words) < 2 or words[1].lower().startswith("deg")

    def root(self, words: list[str], line: int) -> None:
        match words[0].lower():
            case "order":
                self.bones["root"].channels = self._channels(words[1:], line)
            case "axis":
                self.root_axes = self._axes(words[1:], line)
            case "orientation":
                self.root_turn = self.numbers(words[1:], line, 3, "orientation")
            case "position":
                self.bones["root"].direction = self.numbers(words[1:], line, 3, "position")

    def bone(self, words: list[str], line: int) -> None:
        keyword = words[0].lower()
        if keyword == "begin":
            self.open = _Bone("", line)
        elif keyword == "end":
            self._close(line)
        elif self.open is None:
            raise self.fail(line, f"expected begin, got {words[0][:40]!r}; export the file again")
        elif keyword == "name":
            self.open.name = " ".join(words[1:])
        elif keyword == "direction":
            direction = self.numbers(words[1:], line, 3, "direction")
            self.open.direction = direction / max(float(np.linalg.norm(direction)), 1e-9)
        elif keyword == "length":
            self.open.length = float(self.numbers(words[1:], line, 1, "length")[0])
        elif keyword == "axis":
            self.open.axis = self._turn(self.numbers(words[1:4], line, 3, "axis"), self._axes(words[4:], line))
        elif keyword == "dof":
            self.open.channels = self._channels(words[1:], line)

    def _close(self, line: int) -> None:
        bone, self.open = self.open, None
        if bone is None or not bone.name:
            raise self.fail(line, "a bone without a name; export the file again")
        if bone.name in self.bones:
            raise self.fail(line, f"bone {bone.name[:40]!r} is also in line {self.bones[bone.name].line}; rename one")
        if len(self.bones) >= MAX_BONES:
            raise self.fail(line, f"more than {MAX_BONES:,} bones; export only the body")
        self.bones[bone.name] = bone

    def children(self, words: list[str], line: int) -> None:
        if words[0].lower() in ("begin", "end") and len(words) == 1:
            return
        parent = words[0]
        for child in words[1:]:
            known = self.bones.get(child)
            if parent not in self.bones or known is None or child == "root":
                raise self.fail(line, f"unknown bone in {parent[:40]} {child[:40]}; export the file again")
            if known.parent:
                raise self.fail(line, f"{child[:40]!r} has two parents, {known.parent[:40]} and {parent[:40]}")
            known.parent = parent
            self.ordered.append(child)

    def _channels(self, words: list[str], line: int) -> tuple[str, ...]:
        channels = tuple(word.lower() for word in words)
        if not set(channels) <= set(_CHANNELS) or len(set(channels)) < len(channels):
            raise self.fail(line, f"got the channels {' '.join(words)[:40]!r}; use each of {' '.join(_CHANNELS)} once")
        return channels

    def _axes(self, words: list[str], line: int) -> str:
        axes = words[0].upper() if words else ""
        if sorted(axes) != ["X", "Y", "Z"]:
            raise self.fail(line, f"got the order of axes {axes[:40]!r}; write one such as XYZ")
        return axes

    def _turn(self, angles: np.ndarray, axes: str) -> np.ndarray:
        """Return the quaternion of angles about X, Y and Z of the world, applied in the order `axes`."""
        values = angles if not self.degrees else np.deg2rad(angles)
        return _rotation(np.array([[values["XYZ".index(axis)] for axis in axes]]), axes)[0]

    def skeleton(self) -> _Skeleton:
        if len(self.ordered) < 2:
            raise ValueError(f"{self.path}: no bones below the root; export the file again")
        self.bones["root"].axis = self._turn(self.root_turn, self.root_axes)
        depth = {"root": 0}
        for name in self.ordered[1:]:  # parents are listed first
            parent = self.bones[name].parent
            if parent not in depth:
                message = f"{name[:40]!r} is listed before its parent {parent[:40]!r}; list parents first"
                raise ValueError(f"{self.path}: {message}")
            depth[name] = depth[parent] + 1
        scale = None if self.length is None else UNITS["in"] / self.length
        return _Skeleton({name: self.bones[name] for name in self.ordered}, scale, self.degrees)


def _read_amc(path: Path, skeleton: _Skeleton) -> tuple[dict[str, np.ndarray], bool]:
    """Return the values (T, channels) of each bone that has channels, and whether rotations are in degrees."""
    reader = _Reader(path)
    widths = {name: len(bone.channels) for name, bone in skeleton.bones.items() if bone.channels}
    values = {name: array("d") for name in widths}
    degrees, frames, total, start = skeleton.degrees, 0, 0, 0
    for line, words in _statements(path):
        if words[0].startswith(":"):
            degrees = {":degrees": True, ":radians": False}.get(words[0].lower(), degrees)
        elif len(words) == 1 and words[0].isdecimal():
            _check_frame(reader, values, widths, frames, start)
            frames, start = frames + 1, line
        elif words[0] in values and frames:
            values[words[0]].extend(reader.numbers(words[1:], line, widths[words[0]], words[0][:40]))
            total += len(words)
            if total > MAX_VALUES:
                check_values(total, str(path))
        elif frames:
            what = "has no channels in" if words[0] in skeleton.bones else "is not in"
            raise reader.fail(line, f"bone {words[0][:40]!r} {what} the skeleton; pass the right .asf file")
    _check_frame(reader, values, widths, frames, start)
    if not frames:
        raise ValueError(f"{path}: the motion has 0 frames; export it again")
    check_values(4 * frames * len(skeleton.bones), str(path))  # quaternions
    return {name: np.array(column).reshape(frames, widths[name]) for name, column in values.items()}, degrees


def _check_frame(
    reader: _Reader, values: dict[str, array[float]], widths: dict[str, int], frames: int, line: int
) -> None:
    for name, width in widths.items():
        if len(values[name]) != frames * width:
            count = "no values" if len(values[name]) < frames * width else "values twice"
            raise reader.fail(line, f"frame {frames} has {count} of {name[:40]!r}; export or download the file again")


def _rotation(angles: np.ndarray, axes: str) -> np.ndarray:
    """Return quaternions (T, 4) of radians (T, len(axes)) about fixed axes, the first one applied first."""
    cos, sin = np.cos(angles / 2), np.sin(angles / 2)
    turn = np.tile([1.0, 0.0, 0.0, 0.0], (len(angles), 1))
    for number in reversed(range(len(axes))):
        turn = turn_about(turn, "XYZ".index(axes[number]), cos[:, number], sin[:, number])
    return turn


def _local(bone: _Bone, values: np.ndarray, degrees: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return rotations (T, 4) and shifts (T, 3) of a bone in the coordinates of its parent."""
    turning = [number for number, channel in enumerate(bone.channels) if channel[0] == "r"]
    angles = values[:, turning]
    turn = _rotation(np.deg2rad(angles) if degrees else angles, "".join(bone.channels[n][1].upper() for n in turning))
    inverse = bone.axis * [1, -1, -1, -1]
    turn = multiply(multiply(np.broadcast_to(bone.axis, turn.shape), turn), np.broadcast_to(inverse, turn.shape))
    shift = np.zeros((len(values), 3))
    for number, channel in enumerate(bone.channels):
        if channel[0] == "t":
            shift[:, "xyz".index(channel[1])] = values[:, number]
    return turn, shift


def _positions(
    skeleton: _Skeleton, values: dict[str, np.ndarray], degrees: bool
) -> tuple[tuple[str, ...], np.ndarray]:
    """Compute the (T, N, 3) starts of all bones, and the ends of those without children, with their names."""
    frames = max(map(len, values.values()), default=1)
    starts: dict[str, np.ndarray] = {}
    turns: dict[str, np.ndarray] = {}
    ends: dict[str, np.ndarray] = {}
    for name, bone in skeleton.bones.items():
        turn, shift = _local(bone, values.get(name, np.zeros((frames, 0))), degrees)
        if name == "root":
            starts[name], turns[name] = bone.offset + shift, turn
            ends[name] = starts[name]
            continue
        starts[name] = ends[bone.parent] + rotate(turns[bone.parent], shift)
        turns[name] = multiply(turns[bone.parent], turn)
        ends[name] = starts[name] + rotate(turns[name], np.broadcast_to(bone.offset, shift.shape))
    last = set(skeleton.bones) - {bone.parent for bone in skeleton.bones.values()}
    names = [*starts, *(f"{name}{END_SUFFIX}" for name in skeleton.bones if name in last)]
    places = [*starts.values(), *(ends[name] for name in skeleton.bones if name in last)]
    return tuple(names), np.stack(places, axis=1)
