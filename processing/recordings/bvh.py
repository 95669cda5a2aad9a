"""BVH files: a strict parser whose errors name the line, joint positions by forward kinematics, and a writer.

A BVH file is a tree of joints (`HIERARCHY`: the offset of each joint from its parent, and the channels that move it)
and one line of channel values a frame (`MOTION`). Channels come in any number and order: rotations are composed in the
order in which they stand, a position channel takes the place of that coordinate of the offset.
"""

from __future__ import annotations

import io
import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import numpy as np

AXES = "XYZ"
CHANNELS = tuple(f"{axis}{kind}" for kind in ("position", "rotation") for axis in AXES)
END_SUFFIX = "_end"

_CHANNEL_OF = {channel.lower(): channel for channel in CHANNELS}
_STATEMENT = re.compile(r"[{}]|[^{}]+")
_FRAMES = re.compile(r"frames\s*:\s*(\S+)\s*$", re.IGNORECASE)
_FRAME_TIME = re.compile(r"frame\s+time\s*:\s*(\S+)\s*$", re.IGNORECASE)


@dataclass(frozen=True)
class BVH:
    """
    A parsed BVH file, in its own unit and axes.

    Args:
        names (`tuple[str, ...]` of length N): joints and end sites; parents come before their children. An end site
            is called after its joint, `Head_end`.
        parents (`tuple[int, ...]`): parent of each, -1 for the root.
        offsets (`np.ndarray` of shape `(N, 3)`): from the parent.
        channels (`tuple[tuple[str, ...], ...]`): channels of each in the order of the file, as in `CHANNELS`; none for
            end sites.
        values (`np.ndarray` of shape `(T, C)`, float64): channel values, joint by joint; rotations in degrees.
        frame_time (`float`): seconds a frame, as the file says: 0 is seen.
        end_sites (`frozenset[int]`): which of the names are end sites.
    """

    names: tuple[str, ...]
    parents: tuple[int, ...]
    offsets: np.ndarray
    channels: tuple[tuple[str, ...], ...]
    values: np.ndarray
    frame_time: float
    end_sites: frozenset[int] = frozenset()

    @property
    def rest_positions(self) -> np.ndarray:
        """(N, 3) positions where every channel is zero: sums of offsets."""
        rest = np.array(self.offsets, dtype=np.float64)
        for joint, parent in enumerate(self.parents):
            if parent >= 0:
                rest[joint] += rest[parent]
        return rest

    def positions(self, joints: Sequence[int] | None = None) -> np.ndarray:
        """
        Where joints are in every frame.

        Args:
            joints (`Sequence[int]`, *optional*): which; unset, all. Only their ancestors are computed.

        Returns:
            `np.ndarray` of shape `(T, len(joints), 3)`, float64, in the file's unit and axes.
        """
        wanted = list(range(len(self.names))) if joints is None else list(joints)
        needed = self._with_ancestors(wanted)
        num_frames = len(self.values)
        places = np.zeros((len(self.names), num_frames, 3))
        turns: dict[int, np.ndarray] = {}  # global rotations as quaternions (T, 4), w first
        half = np.deg2rad(self.values) / 2
        cos, sin = np.cos(half), np.sin(half)
        column = 0
        for joint, parent in enumerate(self.parents):
            channels = self.channels[joint]
            if joint in needed:
                offset = np.broadcast_to(self.offsets[joint], (num_frames, 3)).copy()
                turn = turns.get(parent)
                local = None
                for number, channel in enumerate(channels, start=column):
                    axis = AXES.index(channel[0])
                    if channel.endswith("position"):
                        offset[:, axis] = self.values[:, number]
                    else:
                        local = _turn_about(local, axis, cos[:, number], sin[:, number])
                places[joint] = offset if turn is None else places[parent] + rotate(turn, offset)
                if local is None:
                    local = np.tile([1.0, 0.0, 0.0, 0.0], (num_frames, 1))
                turns[joint] = local if turn is None else multiply(turn, local)
            column += len(channels)
        return places[wanted].transpose(1, 0, 2)

    def _with_ancestors(self, joints: Iterable[int]) -> set[int]:
        found: set[int] = set()
        for joint in joints:
            while joint >= 0 and joint not in found:
                found.add(joint)
                joint = self.parents[joint]
        return found


# ---------------------------------------------------------------------------------------------------------------------
# Quaternions, w first
# ---------------------------------------------------------------------------------------------------------------------


def multiply(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Product of quaternions (..., 4): the rotation `right`, then `left`."""
    aw, ax, ay, az = np.moveaxis(left, -1, 0)
    bw, bx, by, bz = np.moveaxis(right, -1, 0)
    return np.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        axis=-1,
    )


def rotate(turn: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Vectors (..., 3) turned by unit quaternions (..., 4)."""
    w, axis = turn[..., :1], turn[..., 1:]
    twice = 2 * np.cross(axis, vector)
    return vector + w * twice + np.cross(axis, twice)


def _turn_about(turn: np.ndarray | None, axis: int, cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
    """`turn`, then inside its frame a rotation about a coordinate axis, by cos and sin (T,) of half the angle."""
    step = np.zeros((len(cos), 4))
    step[:, 0], step[:, 1 + axis] = cos, sin
    return step if turn is None else multiply(turn, step)


# ---------------------------------------------------------------------------------------------------------------------
# Reading
# ---------------------------------------------------------------------------------------------------------------------


def read_bvh(path: str | os.PathLike) -> BVH:
    """Parse a file, see [`parse_bvh`]."""
    path = Path(path)
    return parse_bvh(path.read_text(encoding="utf-8-sig", errors="replace"), path.name)


def parse_bvh(text: str, name: str = "BVH") -> BVH:
    """
    Parse the text of a BVH file.

    Args:
        text (`str`): content.
        name (`str`, *optional*): what errors call it.

    Returns:
        [`BVH`]: with at least one frame.

    Raises:
        ValueError: the text breaks the format or is cut off; the message names the line and what is due there.

    Example:

        >>> text = '''HIERARCHY
        ... ROOT Hips
        ... {
        ...   OFFSET 0 0 0
        ...   CHANNELS 4 Yposition Zrotation Xrotation Yrotation
        ...   End Site
        ...   {
        ...     OFFSET 0 10 0
        ...   }
        ... }
        ... MOTION
        ... Frames: 1
        ... Frame Time: 0.05
        ... 90 90 0 0'''
        >>> bvh = parse_bvh(text)
        >>> bvh.names, bvh.positions()[0].round(6).tolist()
        (('Hips', 'Hips_end'), [[0.0, 90.0, 0.0], [-10.0, 90.0, 0.0]])
    """
    lines = text.splitlines()
    tree = _Hierarchy(name)
    after = tree.read(lines)
    count, frame_time, first = _motion_header(lines, after, name)
    width = sum(len(node.channels) for node in tree.nodes)
    values = _motion_values(lines, first, count, width, name)
    return BVH(
        names=tuple(node.name for node in tree.nodes),
        parents=tuple(node.parent for node in tree.nodes),
        offsets=np.array([node.offset for node in tree.nodes], dtype=np.float64),
        channels=tuple(tuple(node.channels) for node in tree.nodes),
        values=values,
        frame_time=frame_time,
        end_sites=frozenset(number for number, node in enumerate(tree.nodes) if node.is_end),
    )


def _fail(name: str, line: int, message: str) -> NoReturn:
    raise ValueError(f"{name}, line {line}: {message}")


def _shown(words: str) -> str:
    words = words.strip()
    return repr(words if len(words) <= 40 else words[:37] + "...")


def _number(word: str, name: str, line: int, what: str) -> float:
    try:
        number = float(word)
    except ValueError:
        _fail(name, line, f"{what} must be a number, got {_shown(word)}.")
    if not math.isfinite(number):
        _fail(name, line, f"{what} must be finite, got {word}.")
    return number


@dataclass
class _Node:
    name: str
    parent: int
    line: int
    is_end: bool
    offset: list[float] = field(default_factory=list)
    channels: list[str] = field(default_factory=list)


class _Hierarchy:
    """Reads the part of the file up to `MOTION`, statement by statement."""

    def __init__(self, name: str):
        self.name = name
        self.nodes: list[_Node] = []
        self.lines_of: dict[str, int] = {}
        self.open: list[int] = []
        self.expects_brace = False

    def read(self, lines: Sequence[str]) -> int:
        """Fill `nodes`. Returns the number of lines up to and including `MOTION`."""
        started = False
        for number, line in enumerate(lines, start=1):
            for statement in _STATEMENT.findall(line):
                words = statement.split()
                if not words:
                    continue
                keyword = words[0].upper()
                if not started:
                    if keyword != "HIERARCHY":
                        _fail(self.name, number, f"a BVH file starts with HIERARCHY, got {_shown(line)}.")
                    started = True
                elif keyword == "MOTION" and not self.open and not self.expects_brace:
                    if not self.nodes:
                        _fail(self.name, number, "there is no ROOT before MOTION.")
                    return number
                else:
                    self._statement(keyword, words, number)
        where = f"inside joint {self.nodes[self.open[-1]].name!r}" if self.open else "before MOTION"
        _fail(self.name, len(lines) or 1, f"the file ends {where}: it is cut off. Export or download it again.")

    def _statement(self, keyword: str, words: list[str], line: int) -> None:
        if self.expects_brace != (keyword == "{"):
            due = "'{' after the name of a joint" if self.expects_brace else "no '{' here"
            _fail(self.name, line, f"expected {due}, got {_shown(' '.join(words))}.")
        match keyword:
            case "{":
                self.open.append(len(self.nodes) - 1)
                self.expects_brace = False
            case "}":
                self._close(line)
            case "ROOT" | "JOINT" | "END":
                self._begin(keyword, " ".join(words[1:]), line)
            case "OFFSET":
                self._offset(words[1:], line)
            case "CHANNELS":
                self._channels(words[1:], line)
            case _:
                _fail(
                    self.name,
                    line,
                    f"expected JOINT, End Site, OFFSET, CHANNELS or '}}', got {_shown(' '.join(words))}.",
                )

    def _here(self, line: int) -> _Node:
        if not self.open:
            _fail(self.name, line, "this belongs inside the braces of a joint.")
        return self.nodes[self.open[-1]]

    def _begin(self, keyword: str, label: str, line: int) -> None:
        parent = self.open[-1] if self.open else -1
        if keyword == "ROOT":
            if self.nodes:
                _fail(self.name, line, f"a second ROOT ({label}): split the file, one body each.")
        elif self._here(line).is_end:
            _fail(self.name, line, "an End Site has no children.")
        if keyword == "END":
            label = f"{self.nodes[parent].name}{END_SUFFIX}"
            while label in self.lines_of:
                label += END_SUFFIX
        elif not label:
            _fail(self.name, line, f"{keyword} needs a name.")
        elif label in self.lines_of:
            _fail(self.name, line, f"joint {label!r} is also in line {self.lines_of[label]}: rename one of them.")
        self.lines_of[label] = line
        self.nodes.append(_Node(label, parent, line, keyword == "END"))
        self.expects_brace = True

    def _offset(self, words: list[str], line: int) -> None:
        node = self._here(line)
        if len(words) != 3:
            _fail(self.name, line, f"OFFSET of {node.name!r} needs 3 numbers, got {len(words)}.")
        node.offset = [_number(word, self.name, line, f"OFFSET of {node.name!r}") for word in words]

    def _channels(self, words: list[str], line: int) -> None:
        node = self._here(line)
        if node.is_end:
            _fail(self.name, line, "an End Site has no channels.")
        named = words[1:]
        if not words or words[0] != str(len(named)):
            _fail(
                self.name,
                line,
                f"CHANNELS of {node.name!r} announces {words[0] if words else 'no number'}, but names {len(named)}.",
            )
        unknown = [word for word in named if word.lower() not in _CHANNEL_OF]
        if unknown:
            _fail(self.name, line, f"unknown channel {_shown(unknown[0])}: there are {', '.join(CHANNELS)}.")
        node.channels = [_CHANNEL_OF[word.lower()] for word in named]
        if len(set(node.channels)) != len(node.channels):
            _fail(self.name, line, f"joint {node.name!r} names a channel twice: {' '.join(named)}.")

    def _close(self, line: int) -> None:
        node = self._here(line)
        if not node.offset:
            _fail(self.name, line, f"{node.name!r} (line {node.line}) has no OFFSET.")
        self.open.pop()


def _motion_header(lines: Sequence[str], start: int, name: str) -> tuple[int, float, int]:
    """Number of frames, frame time, and the number of lines before the first frame."""
    found: list[tuple[str, int]] = []
    for label, pattern in (("Frames: N", _FRAMES), ("Frame Time: SECONDS", _FRAME_TIME)):
        while start < len(lines) and not lines[start].strip():
            start += 1
        if start == len(lines):
            _fail(name, start or 1, f"the file ends before {label!r}: it is cut off. Export or download it again.")
        match = pattern.match(lines[start].strip())
        start += 1
        if match is None:
            _fail(name, start, f"expected {label!r}, got {_shown(lines[start - 1])}.")
        found.append((match.group(1), start))
    (frames, frames_line), (seconds, time_line) = found
    if not frames.isdigit() or int(frames) < 1:
        _fail(name, frames_line, f"the number of frames must be at least 1, got {_shown(frames)}.")
    return int(frames), _number(seconds, name, time_line, "Frame Time"), start


def _motion_values(lines: Sequence[str], start: int, count: int, width: int, name: str) -> np.ndarray:
    """(count, width) channel values; the error of a bad line names it."""
    numbered = [(number, line) for number, line in enumerate(lines[start:], start=start + 1) if line.strip()]
    if len(numbered) != count:
        cause = "it is cut off" if len(numbered) < count else "the header is wrong"
        other = f", or write 'Frames: {len(numbered)}' to take those there are" if numbered else ""
        raise ValueError(
            f"{name}: the header announces {count} frames, but there are {len(numbered)}: {cause}. Export it "
            f"again{other}."
        )
    if not width:
        raise ValueError(f"{name}: no joint has channels, so nothing moves.")
    try:
        values = np.loadtxt([line for _, line in numbered], dtype=np.float64, comments=None, ndmin=2)
    except ValueError:
        values = np.empty((0, 0))
    if values.shape != (count, width) or not np.isfinite(values).all():
        _blame_line(numbered, width, name)
    return values


def _blame_line(numbered: Iterable[tuple[int, str]], width: int, name: str) -> NoReturn:
    for number, line in numbered:
        words = line.split()
        if len(words) != width:
            _fail(name, number, f"{len(words)} values where the channels of all joints are {width}.")
        for word in words:
            _number(word, name, number, "a channel value")
    raise ValueError(f"{name}: the channel values cannot be read.")


# ---------------------------------------------------------------------------------------------------------------------
# Writing
# ---------------------------------------------------------------------------------------------------------------------


def format_bvh(bvh: BVH) -> str:
    """The text of a BVH file, six digits after the point."""
    children: dict[int, list[int]] = {}
    for joint, parent in enumerate(bvh.parents):
        children.setdefault(parent, []).append(joint)
    lines = ["HIERARCHY"]
    starts = np.cumsum([0, *map(len, bvh.channels)])
    columns: list[int] = []  # in the order in which the tree names them

    def add(joint: int, depth: int) -> None:
        indent, inner = "  " * depth, "  " * (depth + 1)
        kind = "End Site" if joint in bvh.end_sites else f"{'JOINT' if depth else 'ROOT'} {bvh.names[joint]}"
        lines.extend([indent + kind, indent + "{"])
        lines.append(inner + "OFFSET " + " ".join(f"{value:.6f}" for value in bvh.offsets[joint]))
        if joint not in bvh.end_sites:
            channels = bvh.channels[joint]
            columns.extend(range(starts[joint], starts[joint + 1]))
            lines.append(inner + " ".join(["CHANNELS", str(len(channels)), *channels]))
        for child in children.get(joint, ()):
            add(child, depth + 1)
        lines.append(indent + "}")

    add(children[-1][0], 0)
    lines += ["MOTION", f"Frames: {len(bvh.values)}", f"Frame Time: {bvh.frame_time:.8f}"]
    table = io.StringIO()
    np.savetxt(table, bvh.values[:, columns], fmt="%.6f")
    return "\n".join(lines) + "\n" + table.getvalue()


def write_bvh(path: str | os.PathLike, bvh: BVH) -> Path:
    """Write a BVH file in one step, so that an interrupted program leaves no half file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(format_bvh(bvh), encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path
