"""BVH files: a strict parser whose errors name the line, and a writer.

A BVH file contains a tree of joints (`HIERARCHY`: the offset of each joint from its parent, and the channels that move
it) and one line of channel values per frame (`MOTION`). A joint can have any channels in any order: rotations are
composed in that order, and a position channel replaces that coordinate of the offset.
"""

from __future__ import annotations

import io
import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from lexmotion.common.files import write_text

from ..skeletons import Skeleton, get_skeleton
from .detection import metres_per_unit
from .inverse_kinematics import positions_to_bvh
from .kinematics import BVH, CHANNELS, END_SUFFIX
from .options import ReadingOptions
from .recording import FASTEST, SLOWEST, Problem, Recording, check_fps, check_values, short_lines, stated_fps

_CHANNEL_OF = {channel.lower(): channel for channel in CHANNELS}
MAX_JOINTS = 10_000
_LARGEST = 1e8  # of offsets and channel values: 100 km in millimetres
_STATEMENT = re.compile(r"[{}]|[^{}]+")
_FRAMES = re.compile(r"frames\s*:\s*(\S+)\s*$", re.IGNORECASE)
_FRAME_TIME = re.compile(r"frame\s+time\s*:\s*(\S+)\s*$", re.IGNORECASE)


# --- reading ---


def read_bvh(path: str | os.PathLike) -> BVH:
    """Parse a BVH file; see [`parse_bvh`]."""
    path = Path(path)
    with path.open(encoding="utf-8-sig", errors="replace") as stream:
        return parse_bvh("".join(short_lines(stream, path.name)), path.name)


def bvh_recording(path: Path, options: ReadingOptions) -> Recording:
    """Read a BVH file as a recording, in its own unit and axes."""
    bvh = read_bvh(path)
    recording = Recording("BVH", bvh.positions(), names=bvh.names, rest=bvh.rest_positions)
    if bvh.stated_frames != len(bvh.values):
        message = f"the header states {bvh.stated_frames} frames, but the file has {len(bvh.values)}, which are read"
        recording.problems.append(Problem("note", message))
    rate = 1 / bvh.frame_time if bvh.frame_time > 1e-9 else 0.0
    what = f"the Frame Time is {bvh.frame_time:g} seconds"
    if SLOWEST <= 1000 * rate <= FASTEST:
        what += " (perhaps milliseconds)"
    stated_fps(recording, rate, what, "Frame Time", options.fps is not None)
    return recording


def parse_bvh(text: str, name: str = "BVH") -> BVH:
    """Parse the text of a BVH file.

    Args:
        text: content of the file.
        name: name of the file in error messages.

    Returns:
        The skeleton and at least one frame.

    Raises:
        ValueError: if the text is malformed or truncated; the message names the line and what is expected there.

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
    count, frame_time, first = _motion_header(lines, tree.read(lines), name)
    width = sum(len(node.channels) for node in tree.nodes)
    values = _motion_values(lines, first, count, width, name)
    check_values(len(values) * len(tree.nodes), name)
    return BVH(
        names=tuple(node.name for node in tree.nodes),
        parents=tuple(node.parent for node in tree.nodes),
        offsets=np.array([node.offset for node in tree.nodes], dtype=np.float64),
        channels=tuple(tuple(node.channels) for node in tree.nodes),
        values=values,
        frame_time=frame_time,
        end_sites=frozenset(number for number, node in enumerate(tree.nodes) if node.is_end),
        stated_frames=count,
    )


def _fail(name: str, line: int, message: str) -> NoReturn:
    raise ValueError(f"{name}, line {line}: {message}")


def _shown(words: str) -> str:
    words = words.strip()
    return repr(words if len(words) <= 40 else words[:37] + "...")


def _number(word: str, name: str, line: int, what: str, largest: float = _LARGEST) -> float:
    try:
        number = float(word)
    except ValueError:
        _fail(name, line, f"{what} must be a number, got {_shown(word)}")
    if not math.isfinite(number):
        _fail(name, line, f"{what} must be finite, got {_shown(word)}")
    if abs(number) > largest:
        _fail(name, line, f"{what} must be at most {largest:g}, got {_shown(word)}; export the file again")
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
    """Parser of the part of the file up to `MOTION`, statement by statement."""

    def __init__(self, name: str):
        self.name = name
        self.nodes: list[_Node] = []
        self.lines_of: dict[str, int] = {}
        self.ends: dict[int, int] = {}  # number of the last end site of each joint with several
        self.open: list[int] = []
        self.expects_brace = False

    def _fail(self, line: int, message: str) -> NoReturn:
        _fail(self.name, line, message)

    def read(self, lines: Sequence[str]) -> int:
        """Fill `nodes` and return the number of lines up to and including `MOTION`."""
        started = False
        for number, line in enumerate(lines, start=1):
            for statement in _STATEMENT.findall(line):
                words = statement.split()
                if not words:
                    continue
                keyword = words[0].upper()
                if not started:
                    if keyword != "HIERARCHY":
                        self._fail(number, f"expected HIERARCHY, got {_shown(line)}; save it as BVH")
                    started = True
                elif keyword == "MOTION" and not self.open and not self.expects_brace:
                    if not self.nodes:
                        self._fail(number, "no ROOT before MOTION; export the file again")
                    return number
                else:
                    self._statement(keyword, words, number)
        where = f"inside joint {self.nodes[self.open[-1]].name!r}" if self.open else "before MOTION"
        self._fail(len(lines) or 1, f"the file is truncated {where}; export or download it again")

    def _statement(self, keyword: str, words: list[str], line: int) -> None:
        if self.expects_brace != (keyword == "{"):
            due = "'{' after the name of a joint" if self.expects_brace else "no '{' here"
            self._fail(line, f"expected {due}, got {_shown(' '.join(words))}")
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
                expected = "JOINT, End Site, OFFSET, CHANNELS or '}'"
                self._fail(line, f"expected {expected}, got {_shown(' '.join(words))}")

    def _here(self, line: int) -> _Node:
        if not self.open:
            self._fail(line, "statement outside of a joint; move it inside the braces of one")
        return self.nodes[self.open[-1]]

    def _begin(self, keyword: str, label: str, line: int) -> None:
        parent = self.open[-1] if self.open else -1
        if keyword == "ROOT":
            if self.nodes:
                self._fail(line, f"second ROOT {label}; split the file into one per body")
        elif self._here(line).is_end:
            self._fail(line, "an End Site with children; make it a JOINT")
        if keyword == "END":
            label = first = f"{self.nodes[parent].name}{END_SUFFIX}"
            while label in self.lines_of:
                self.ends[parent] = self.ends.get(parent, 1) + 1
                label = f"{first}{self.ends[parent]}"
        elif not label:
            self._fail(line, f"{keyword} without a name; add one")
        elif label in self.lines_of:
            self._fail(line, f"joint {label!r} is also in line {self.lines_of[label]}; rename one of them")
        self.lines_of[label] = line
        self.nodes.append(_Node(label, parent, line, keyword == "END"))
        if len(self.nodes) > MAX_JOINTS:
            self._fail(line, f"more than {MAX_JOINTS:,} joints and end sites; export only the body")
        self.expects_brace = True

    def _offset(self, words: list[str], line: int) -> None:
        node = self._here(line)
        if len(words) != 3:
            self._fail(line, f"OFFSET of {node.name!r} needs 3 numbers, got {len(words)}")
        node.offset = [_number(word, self.name, line, f"OFFSET of {node.name!r}") for word in words]

    def _channels(self, words: list[str], line: int) -> None:
        node = self._here(line)
        if node.is_end:
            self._fail(line, "an End Site with channels; remove them")
        named = words[1:]
        if not words or words[0] != str(len(named)):
            count = words[0] if words else "nothing"
            self._fail(line, f"CHANNELS of {node.name!r} states {count} for {len(named)} channels; write {len(named)}")
        unknown = [word for word in named if word.lower() not in _CHANNEL_OF]
        if unknown:
            self._fail(line, f"unknown channel {_shown(unknown[0])}; use {', '.join(CHANNELS)}")
        node.channels = [_CHANNEL_OF[word.lower()] for word in named]
        if len(set(node.channels)) != len(node.channels):
            self._fail(line, f"repeated channel of joint {node.name!r}: {' '.join(named)}; remove one")

    def _close(self, line: int) -> None:
        node = self._here(line)
        if not node.offset:
            self._fail(line, f"{node.name!r} (line {node.line}) has no OFFSET; add one")
        self.open.pop()


def _motion_header(lines: Sequence[str], start: int, name: str) -> tuple[int, float, int]:
    """Return the number of frames, the frame time and the number of lines before the first frame."""
    found: list[tuple[str, int]] = []
    for label, pattern in (("Frames: N", _FRAMES), ("Frame Time: SECONDS", _FRAME_TIME)):
        while start < len(lines) and not lines[start].strip():
            start += 1
        if start == len(lines):
            _fail(name, start or 1, f"the file is truncated before {label!r}; export or download it again")
        match = pattern.match(lines[start].strip())
        start += 1
        if match is None:
            _fail(name, start, f"expected {label!r}, got {_shown(lines[start - 1])}")
        found.append((match.group(1), start))
    (frames, frames_line), (seconds, time_line) = found
    if not frames.isdecimal() or len(frames) > 12 or int(frames) < 1:
        _fail(name, frames_line, f"the number of frames must be at least 1, got {_shown(frames)}")
    return int(frames), _number(seconds, name, time_line, "Frame Time", math.inf), start


def _motion_values(lines: Sequence[str], start: int, count: int, width: int, name: str) -> np.ndarray:
    """Return (T, width) channel values, T = `count` or one more or less; an error names the first bad line."""
    numbered = [(number, line) for number, line in enumerate(lines[start:], start=start + 1) if line.strip()]
    if abs(len(numbered) - count) > 1 or not numbered:
        cause = "is truncated" if len(numbered) < count else "has a wrong header"
        other = f", or write 'Frames: {len(numbered)}' to use these" if numbered else ""
        message = f"the header states {count} frames, but the file has {len(numbered)} and {cause}"
        raise ValueError(f"{name}: {message}; export it again{other}")
    if not width:
        raise ValueError(f"{name}: no joint has channels, so nothing moves; export it with the animation")
    check_values(len(numbered) * width, name)
    try:
        values = np.loadtxt([line for _, line in numbered], dtype=np.float64, comments=None, ndmin=2)
    except ValueError:
        values = np.empty((0, 0))
    if values.shape != (len(numbered), width) or not (np.abs(values) <= _LARGEST).all():
        _blame_line(numbered, width, name)
    return values


def _blame_line(numbered: Iterable[tuple[int, str]], width: int, name: str) -> NoReturn:
    for number, line in numbered:
        words = line.split()
        if len(words) != width:
            _fail(name, number, f"got {len(words)} values, the joints have {width} channels; export it again")
        for word in words:
            _number(word, name, number, "a channel value")
    raise ValueError(f"{name}: unreadable channel values; export it again")


# --- writing ---


def format_bvh(bvh: BVH) -> str:
    """Format the text of a BVH file, with six decimal places."""
    children: dict[int, list[int]] = {}
    for joint, parent in enumerate(bvh.parents):
        children.setdefault(parent, []).append(joint)
    lines = ["HIERARCHY"]
    starts = np.cumsum([0, *map(len, bvh.channels)])
    columns: list[int] = []  # in the order of the tree

    def add(joint: int, depth: int) -> None:
        indent, inner = "  " * depth, "  " * (depth + 1)
        kind = "End Site" if joint in bvh.end_sites else f"{'JOINT' if depth else 'ROOT'} {bvh.names[joint]}"
        offset = " ".join(f"{value:.6f}" for value in bvh.offsets[joint])
        lines.extend([indent + kind, indent + "{", f"{inner}OFFSET {offset}"])
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


def save_bvh(
    path: str | os.PathLike,
    positions: Any,
    skeleton: str | Skeleton = "humanml3d",
    fps: float | None = None,
    units: str | float = "cm",
) -> float:
    """Write joint positions as a BVH file for animation programs: a T-pose, and rotations from bone directions.

    Each joint is rotated so that its bones point in the observed directions; if several bones of one joint move
    against each other, each gets a helper joint at the same place. Bones have their median length. The twist of a limb
    about its own axis cannot be inferred from positions and is kept as small as possible.

    Args:
        path: file to write.
        positions: (T, J, 3) metres, Y up.
        skeleton: joint layout.
        fps: frames per second; None: the skeleton's.
        units: unit of the file, one of `UNITS` or metres per unit.

    Returns:
        Largest distance in metres between a joint and its place in the file; nearly 0 if bones keep their length.

    Raises:
        ValueError: if the shape, the frame rate or the unit is invalid, or positions contain NaN.

    Example:
        >>> walk = np.random.default_rng(0).normal(size=(1, 22, 3)) + np.linspace(0, 1, 20)[:, None, None]
        >>> save_bvh("walk.bvh", walk, fps=20) < 1e-5
        True
    """
    layout = get_skeleton(skeleton)
    joints = np.asarray(positions, dtype=np.float64)
    if joints.ndim != 3 or joints.shape[1:] != (layout.num_joints, 3) or not len(joints):
        expected = f"(frames, {layout.num_joints}, 3) for the skeleton {layout.name!r}"
        raise ValueError(f"positions: got shape {joints.shape}; pass {expected}")
    if not np.isfinite(joints).all():
        frame = int((~np.isfinite(joints).all(axis=(1, 2))).argmax())
        raise ValueError(f"positions: frame {frame} contains NaN or infinity; repair it or cut it off")
    rate = layout.fps if fps is None else fps
    check_fps(rate, "fps")
    scale = metres_per_unit(units)
    bvh = positions_to_bvh(joints, layout, rate, scale)
    write_text(path, format_bvh(bvh))
    written = bvh.positions([bvh.names.index(name) for name in layout.joint_names])
    return float(np.linalg.norm(written * scale - joints, axis=-1).max())
