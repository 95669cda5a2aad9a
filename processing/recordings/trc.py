"""Read TRC files, the table of markers of OpenSim, Pose2Sim, OpenCap and Motion Analysis."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from .detection import Fact
from .marker_sets import marker_recording
from .options import ReadingOptions
from .recording import Problem, Recording, check_values, short_lines, stated_fps

_UNITS = ("m", "cm", "mm")
_MAX_COLUMNS = 30_002


def trc_recording(path: Path, options: ReadingOptions) -> Recording:
    """Read the markers of a TRC file: joints of a body if they are known, else points by their names."""
    with path.open(encoding="utf-8-sig", errors="replace") as stream:
        lines = short_lines(stream, str(path))
        header, labels, separator = _header(lines, path)
        values = _values(lines, 2 + 3 * len(labels), separator, path)
    if not len(values):
        raise ValueError(f"{path}: the motion has 0 frames; export it again")
    points = values[:, 2:].reshape(len(values), len(labels), 3)
    facts = {}
    unit = header.get("units", "").lower()
    if unit in _UNITS:
        facts["units"] = Fact(unit, "read", "Units of the header")
    rate = _number(header.get("datarate", ""))
    recording = marker_recording("TRC", points, labels, rate, options, facts)
    stated = _number(header.get("numframes", ""))
    if math.isfinite(stated) and stated != len(values):
        if stated - len(values) > 1:
            message = f"the header states {stated:g} frames, but the file has {len(values)} and is truncated"
            raise ValueError(f"{path}: {message}; export it again")
        message = f"the header states {stated:g} frames, but the file has {len(values)}, which are read"
        recording.problems.append(Problem("note", message))
    stated_fps(recording, rate, f"DataRate is {rate:g}", "DataRate", options.fps is not None)
    return recording


def _header(text: Iterator[str], path: Path) -> tuple[dict[str, str], tuple[str, ...], str]:
    """Return the values of the header, the names of the markers, and the separator of the columns."""
    lines = [next(text, "").rstrip("\r\n") for _ in range(5)]
    if not lines[0].lower().startswith("pathfiletype") or not lines[3].lower().startswith("frame"):
        raise ValueError(f"{path}: no header of a TRC file (PathFileType ..., Frame# Time ...); export it again")
    separator = "\t" if "\t" in lines[3] else ","
    rows = [[cell.strip() for cell in line.split(separator)] for line in lines]
    header = dict(zip((name.lower() for name in rows[1]), rows[2], strict=False))
    labels = [name for name in rows[3][2:] if name]
    count = _number(header.get("nummarkers", ""))
    if not labels or len(labels) != len(set(labels)) or count != len(labels) or len(labels) > _MAX_COLUMNS // 3:
        shown = ", ".join(name[:40] for name in labels[:6]) or "none"
        raise ValueError(
            f"{path}, line 4: got {len(labels)} names of markers ({shown}), the header states {count:g}; "
            "write one name per marker, each once"
        )
    return header, tuple(labels), separator


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _values(lines: Iterator[str], width: int, separator: str, path: Path) -> np.ndarray:
    """Read (T, width) numbers, NaN for cells that are empty, in memory of the size of the values."""
    numbers = array("d")
    for line_number, line in enumerate(lines, start=6):
        if not line.strip():
            continue
        cells = line.rstrip("\r\n").split(separator)
        if len(cells) < width and len(cells) >= 2:
            cells += [""] * (width - len(cells))  # a marker at the end that is out of sight
        if len(cells) < width or any(cell.strip() for cell in cells[width:]):
            message = f"got {len(cells)} columns; write {width}, three per marker after frame and time"
            raise ValueError(f"{path}, line {line_number}: {message}")
        numbers.extend(_row(cells[:width], line_number, path))
        check_values(len(numbers), str(path))
    return np.array(numbers, dtype=np.float64).reshape(-1, width)


def _row(cells: Sequence[str], line: int, path: Path) -> list[float]:
    try:
        return [float(cell) if cell.strip() else math.nan for cell in cells]
    except ValueError:
        wrong = next(cell for cell in cells if cell.strip() and math.isnan(_number(cell)) and cell.strip() != "nan")
        raise ValueError(f"{path}, line {line}: got {wrong.strip()[:40]!r}; write a number") from None
