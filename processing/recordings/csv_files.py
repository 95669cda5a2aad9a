"""Read CSV files: a header with three columns per joint (`left_hip_x`, ...), optionally a column `time`."""

from __future__ import annotations

import csv
import math
import re
from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .options import ReadingOptions
from .recording import FASTEST, MAX_LINE, Problem, Recording, check_values, short_lines, stated_fps

_SECONDS = dict.fromkeys(("", "s", "sec", "secs", "second", "seconds"), 1.0)
_SECONDS |= dict.fromkeys(("ms", "msec", "milliseconds"), 0.001)
_TIME = re.compile(r"(time|t|timestamp|seconds)[ _]{0,2}[\[(]?(?P<unit>[a-z]*)[\])]?", re.IGNORECASE)
_FRAME_NAMES = ("", "frame", "frames", "index")
_AXIS_JOINT = re.compile(r"^(?P<axis>[xyz])[ _.]?(?P<joint>\d+)$", re.IGNORECASE)
_NUMBERED = re.compile(r"^(joint|j)?[ _]*\d*$", re.IGNORECASE)
_UNEVEN = 0.2  # tolerance, as a share of the median step of a time column


def csv_recording(path: Path, options: ReadingOptions) -> Recording:
    """Read a table as a recording; numbered joints are joints without names."""
    header, values = _table(path)
    joints = _joints(header, path)
    columns = [[axes[axis] for axis in "xyz"] for axes in joints.values()]
    names = () if all(_NUMBERED.match(name) for name in joints) else tuple(joints)
    recording = Recording("CSV", values[:, columns], names=names)
    times = [(number, name) for number, name in enumerate(header) if _seconds(name) is not None]
    if times and len(values) > 1:
        number, name = times[0]
        _read_fps(recording, values[:, number], name, path, options)
    return recording


def _table(path: Path) -> tuple[list[str], np.ndarray]:
    """Read the header and the (rows, columns) values, in memory of the size of the values."""
    header: list[str] = []
    numbers = array("d")
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
        first = stream.readline(MAX_LINE)
        stream.seek(0)
        separator = max(",;\t", key=first.count)
        rows = csv.reader(short_lines(stream, str(path)), delimiter=separator)
        try:
            for row in filter(None, rows):
                if header:
                    numbers.extend(_numbers(row, len(header), rows.line_num, separator, path))
                    check_values(len(numbers), str(path))
                else:
                    header = [name.strip() for name in row]
        except csv.Error as error:
            raise ValueError(f"{path}, line {rows.line_num}: malformed ({error}); close its quotes") from error
    if not header:
        raise ValueError(f"{path}: the file is empty; export it again")
    return header, np.array(numbers, dtype=np.float64).reshape(-1, len(header))


def _seconds(name: str) -> float | None:
    """Return the seconds per unit of a time column, None for other columns.

    Example:
        >>> _seconds("Time (Seconds)"), _seconds("time_ms"), _seconds("left_hip_x")
        (1.0, 0.001, None)
    """
    match = _TIME.fullmatch(name)
    return None if match is None else _SECONDS.get(match["unit"].lower())


def _split(name: str) -> tuple[str, str] | None:
    """Return the joint and the axis of a column, None for other columns."""
    match = _AXIS_JOINT.match(name)
    if match is not None:
        return match["joint"], match["axis"].lower()
    bare = name.removesuffix(")").removesuffix("]")
    axis = bare[-1:].lower()
    return (bare[:-1].rstrip(" _.:-[("), axis) if axis and axis in "xyz" else None


def _joints(header: Sequence[str], path: Path) -> dict[str, dict[str, int]]:
    """Map each joint to its columns by axis, in the order of the header."""
    joints: dict[str, dict[str, int]] = {}
    seen: dict[tuple[str, str], int] = {}
    for number, name in enumerate(header):
        found = None if name.lower() in _FRAME_NAMES or _seconds(name) is not None else _split(name)
        if found is None:
            continue
        joint, axis = found
        times = seen[joint, axis] = seen.get((joint, axis), -1) + 1
        joints.setdefault(joint if joint and not times else f"{joint}{times}", {})[axis] = number
    incomplete = [name for name, axes in joints.items() if len(axes) != 3]
    if incomplete or not joints:
        lacking = " and ".join(axis for name in incomplete[:1] for axis in "xyz" if axis not in joints[name])
        shown = [name[:40] for name in [*incomplete[:1], *header[:6]]]
        reason = f"joint {shown[0]!r} has no {lacking}" if incomplete else f"got {', '.join(shown)}"
        needed = "three columns per joint, such as left_hip_x, left_hip_y, left_hip_z"
        raise ValueError(f"{path}: wrong header, {reason}; write {needed}")
    return joints


def _numbers(row: Sequence[str], width: int, line: int, separator: str, path: Path) -> list[float]:
    if len(row) != width:
        hint = " (decimal commas need ; between the columns)" if separator == "," and len(row) > width else ""
        raise ValueError(
            f"{path}, line {line}: got {len(row)} values; write {width}, one per column of the header{hint}"
        )
    numbers = []
    for cell in row:
        if separator != ",":
            cell = cell.replace(",", ".", 1)  # decimal comma
        try:
            numbers.append(float(cell) if cell.strip() else math.nan)
        except ValueError:
            raise ValueError(f"{path}, line {line}: got {cell[:40]!r}; write a number") from None
    return numbers


def _read_fps(recording: Recording, time: np.ndarray, name: str, path: Path, options: ReadingOptions) -> None:
    """Set the frame rate by a column of times; rounded times have uneven steps, but the right sum."""
    steps = np.diff(time) * (_seconds(name) or 1.0)
    step = float(np.median(steps))
    if not (math.isfinite(step) and 0 < step < 1):
        remedy = "write seconds, in steps below 1, or name a column of milliseconds time_ms"
        raise ValueError(f"{path}: the column {name[:40]!r} increases by {step:g} s per row; {remedy}")
    uneven = int((np.abs(steps - step) > _UNEVEN * step).sum())
    if uneven:
        message = f"{uneven} of {len(steps)} time steps are uneven"
        recording.problems.append(Problem("warning", message, "resample the recording"))
    else:
        step = float(steps.mean())
    what = f"the time column increases by {step:g} seconds per row"
    stated_fps(recording, float(f"{1 / max(step, 0.1 / FASTEST):.6g}"), what, "time column", options.fps is not None)
