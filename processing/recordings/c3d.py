"""Read C3D files: markers or joint centres of optical motion capture, see https://www.c3d.org.

The reader is our own because libraries for the format crash on damaged files. It reads the three processor types and
both storage formats, and ignores analog channels and events.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .detection import UP_AXES, Fact
from .marker_sets import marker_recording
from .options import ReadingOptions
from .recording import Problem, Recording, check_values, stated_fps

_BLOCK = 512
_MAGIC = 80  # second byte of the header and of the parameters
_INTEL, _DEC, _MIPS = 84, 85, 86
_MAX_PARAMETERS = 10_000
_MAX_VALUE = 255 * _BLOCK  # bytes of a parameter, as many as all of them can have


def c3d_recording(path: Path, options: ReadingOptions) -> Recording:
    """Read the points of a C3D file: joints of a body if its markers are known, else points by their labels."""
    content = path.read_bytes()
    try:
        file = _C3D(content)
        points, stated = file.points()
    except (struct.error, IndexError, OverflowError) as error:
        raise ValueError(f"{path}: the C3D file is truncated or damaged; export it again") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    rate = file.number("POINT", "RATE", file.header_rate)
    recording = marker_recording("C3D", points, file.labels(points.shape[1]), rate, options, _facts(file))
    if stated != len(points):
        message = f"the header states {stated} frames, but the file has {len(points)}, which are read"
        recording.problems.append(Problem("note", message))
    stated_fps(recording, rate, f"POINT:RATE is {rate:g}", "POINT:RATE", options.fps is not None)
    return recording


def _facts(file: _C3D) -> dict[str, Fact]:
    """Return the vertical axis and the unit that the file states."""
    facts = {}
    vertical = (file.texts("POINT", "Y_SCREEN") or [""])[0].lower().removeprefix("+")
    if vertical in UP_AXES:
        facts["up"] = Fact(vertical, "read", "POINT:Y_SCREEN")
    unit = (file.texts("POINT", "UNITS") or [""])[0].lower()
    if unit in ("m", "cm", "mm"):
        facts["units"] = Fact(unit, "read", "POINT:UNITS")
    return facts


class _C3D:
    """Header, parameters and points of a C3D file."""

    def __init__(self, content: bytes):
        if len(content) < 2 * _BLOCK or content[1] != _MAGIC:
            raise ValueError("not a C3D file, or truncated; export it again")
        self.content = content
        start = (content[0] - 1) * _BLOCK
        if start < 0:
            raise ValueError("the header names no parameters; export the file again")
        self.processor = content[start + 3]
        if self.processor not in (_INTEL, _DEC, _MIPS):
            raise ValueError(f"unknown processor type {self.processor}; export the file again")
        self.order = ">" if self.processor == _MIPS else "<"
        words = struct.unpack_from(f"{self.order}256H", content)
        self.used, self.analog, self.first, self.last = words[1], words[2], words[3], words[4]
        self.data_block = words[8]
        self.header_scale, self.header_rate = self._floats(12, 1)[0], self._floats(20, 1)[0]
        self.parameters = self._read_parameters(start)

    def _floats(self, start: int, count: int) -> np.ndarray:
        """Decode `count` floats from byte `start`."""
        raw = self.content[start : start + 4 * count]
        if len(raw) < 4 * count:
            raise IndexError
        if self.processor == _DEC:  # words in the other order, exponents larger by two
            swapped = np.frombuffer(raw, "<u2").reshape(-1, 2)[:, ::-1].tobytes()
            return np.frombuffer(swapped, "<f4").astype(np.float64) / 4
        return np.frombuffer(raw, f"{self.order}f4").astype(np.float64)

    def _read_parameters(self, start: int) -> Mapping[tuple[str, str], int]:
        """Return the places of the values by group and name."""
        groups: dict[int, str] = {}
        found: dict[tuple[int, str], int] = {}
        place = start + 4
        for _ in range(_MAX_PARAMETERS):
            length, group = struct.unpack_from("2b", self.content, place)
            length = abs(length)
            if not length or not group:
                break
            name = self.content[place + 2 : place + 2 + length].decode("latin-1").strip().upper()
            place += 2 + length
            step = struct.unpack_from(f"{self.order}h", self.content, place)[0]
            if group < 0:
                groups[-group] = name
            else:
                found[group, name] = place + 2
            if step <= 0:
                break
            place += step
        return {(groups.get(group, ""), name): place for (group, name), place in found.items()}

    def _value(self, group: str, name: str) -> Any:
        """Return the value of a parameter: an array of numbers, a list of texts, or None if there is none."""
        place = self.parameters.get((group, name))
        if place is None:
            return None
        kind, rank = struct.unpack_from("bB", self.content, place)
        shape = tuple(self.content[place + 2 : place + 2 + rank])
        place += 2 + rank
        count = math.prod(shape)
        if abs(kind) * count > min(len(self.content) - place, _MAX_VALUE):
            raise IndexError
        match kind:
            case -1:
                width = shape[0] if shape else 1
                text = self.content[place : place + count].decode("latin-1")
                return [text[at : at + width].strip(" \0") for at in range(0, count, width)] if width else []
            case 1:
                return np.frombuffer(self.content[place : place + count], "u1")
            case 2:
                return np.frombuffer(self.content[place : place + 2 * count], f"{self.order}u2")
            case 4:
                return self._floats(place, count)
        return None

    def number(self, group: str, name: str, default: float) -> float:
        """Return the first number of a parameter."""
        value = self._value(group, name)
        number = float(value[0]) if isinstance(value, np.ndarray) and len(value) else float(default)
        if not math.isfinite(number):
            raise ValueError(f"{group}:{name} is {number}; export the file again")
        return number

    def texts(self, group: str, name: str) -> list[str]:
        value = self._value(group, name)
        return value if isinstance(value, list) else []

    def labels(self, count: int) -> tuple[str, ...]:
        """Return a name for each of `count` points; further names than 255 are in LABELS2, and so on."""
        names = list(self.texts("POINT", "LABELS"))
        for number in range(2, 2 + count // 255):
            names += self.texts("POINT", f"LABELS{number}")
        names = [name or f"point{number}" for number, name in enumerate(names[:count])]
        names += [f"point{number}" for number in range(len(names), count)]
        seen: dict[str, int] = {}
        for number, name in enumerate(names):
            seen[name] = times = seen.get(name, 0) + 1
            if times > 1:
                names[number] = f"{name}#{times}"
        return tuple(names)

    def points(self) -> tuple[np.ndarray, int]:
        """Return the (T, N, 3) points, NaN if a point was not seen, and the number of frames that the file states."""
        scale = self.number("POINT", "SCALE", self.header_scale)
        count = int(self.number("POINT", "USED", self.used))
        if not 0 < count <= 65535:
            raise ValueError(f"the file has {count} points; export the markers")
        as_floats = scale < 0
        size = 4 if as_floats else 2
        start = (int(self.number("POINT", "DATA_START", self.data_block)) - 1) * _BLOCK
        width = 4 * count + self.analog
        if not 0 < start < len(self.content):
            raise ValueError("no point data; export the file again")
        available = (len(self.content) - start) // (width * size)
        stated = self._stated_frames()
        if stated - available > 1 or not available:
            raise ValueError(
                f"the header states {stated} frames, but the file has {available} and is truncated; export it again"
            )
        frames = min(stated, available)
        check_values(frames * width, "C3D")
        if as_floats:
            values = self._floats(start, frames * width).reshape(frames, width)
        else:
            raw = self.content[start : start + 2 * frames * width]
            values = np.frombuffer(raw, f"{self.order}i2").reshape(frames, width).astype(np.float64)
        points = values[:, : 4 * count].reshape(frames, count, 4)
        positions = points[..., :3] if as_floats else points[..., :3] * scale
        return np.where(points[..., 3:] < 0, np.nan, positions), stated

    def _stated_frames(self) -> int:
        """Return the number of frames; the header can count to 65,535, so that long files state it elsewhere too."""
        stated = self.last - self.first + 1
        ends = [self._value("TRIAL", f"ACTUAL_{end}_FIELD") for end in ("START", "END")]
        words = [end for end in ends if isinstance(end, np.ndarray) and len(end) == 2]
        if len(words) == 2:
            first, last = (int(low) + 65536 * int(high) for low, high in words)
            stated = last - first + 1 if last >= first else stated
        elif self.last == 65535:
            stated = int(self.number("POINT", "LONG_FRAMES", self.number("POINT", "FRAMES", stated)))
        if stated < 1:
            raise ValueError("the motion has 0 frames; export it again")
        return stated
