"""Read CSV files: a header with three columns per joint (`left_hip_x`, ...), optionally a column `time`."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .detection import Fact
from .options import ReadingOptions
from .recording import Problem, Recording

_TIME_NAMES = ("time", "t", "timestamp", "seconds", "time_s")
_FRAME_NAMES = ("", "frame", "frames", "index")
_JOINT_AXIS = re.compile(r"^(?P<joint>.*?)[ _.:\-\[(]*(?P<axis>[xyz])[\])]?$", re.IGNORECASE)
_AXIS_JOINT = re.compile(r"^(?P<axis>[xyz])[ _.]?(?P<joint>\d+)$", re.IGNORECASE)
_NUMBERED = re.compile(r"^(joint|j)?[ _]*\d*$", re.IGNORECASE)
_UNEVEN = 0.2  # tolerance, as a share of the median step of a time column


def csv_recording(path: Path, options: ReadingOptions) -> Recording:
    """Read a table as a recording; numbered joints are joints without names."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
        text = stream.read()
    first = text.split("\n", 1)[0]
    separator = max(",;\t", key=first.count)
    rows = [(number, row) for number, row in enumerate(csv.reader(text.splitlines(), delimiter=separator), 1) if row]
    if not rows:
        raise ValueError(f"{path}: the file is empty; export it again")
    header = [name.strip() for name in rows[0][1]]
    joints = _joints(header, path)
    numbers = [_numbers(row, len(header), number, path) for number, row in rows[1:]]
    values = np.array(numbers, dtype=np.float64).reshape(-1, len(header))
    columns = [[axes[axis] for axis in "xyz"] for axes in joints.values()]
    names = () if all(_NUMBERED.match(name) for name in joints) else tuple(joints)
    time = [values[:, number] for number, name in enumerate(header) if name.lower() in _TIME_NAMES]
    fps, problems = _fps(time[0], path) if time and len(values) > 1 else (None, [])
    return Recording("CSV", values[:, columns], names=names, fps=fps, problems=problems)


def _joints(header: Sequence[str], path: Path) -> dict[str, dict[str, int]]:
    """Map each joint to its columns by axis, in the order of the header."""
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
        needed = "three columns per joint, such as left_hip_x, left_hip_y, left_hip_z"
        raise ValueError(f"{path}: wrong header, {reason}; write {needed}")
    return joints


def _numbers(row: Sequence[str], width: int, line: int, path: Path) -> list[float]:
    if len(row) != width:
        raise ValueError(f"{path}, line {line}: got {len(row)} values; write {width}, one per column of the header")
    numbers = []
    for cell in row:
        try:
            numbers.append(float(cell) if cell.strip() else math.nan)
        except ValueError:
            raise ValueError(f"{path}, line {line}: got {cell[:40]!r}; write a number") from None
    return numbers


def _fps(time: np.ndarray, path: Path) -> tuple[Fact, list[Problem]]:
    steps = np.diff(time)
    step = float(np.median(steps))
    if not (math.isfinite(step) and 0 < step < 1):
        raise ValueError(f"{path}: the time column increases by {step:g} per row; write seconds, in steps below 1")
    uneven = int((np.abs(steps - step) > _UNEVEN * step).sum())
    message = f"{uneven} of {len(steps)} time steps are uneven"
    problems = [Problem("warning", message, "resample the recording")] if uneven else []
    return Fact(float(f"{1 / step:.6g}"), "read", "time column"), problems
