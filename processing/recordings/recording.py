"""Raw content of a motion file, as the reader of each format returns it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TextIO

import numpy as np

from .detection import Fact


@dataclass(frozen=True)
class Problem:
    """A problem of a motion: its severity, a description with the value, and a remedy.

    The severity is `error` (the motion cannot be used), `warning` (it may be wrong) or `note`; a
    note without a remedy states what was changed while reading.
    """

    severity: str
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        return "; ".join(filter(None, (self.message, self.remedy)))


class SeveralMotionsError(ValueError):
    """Error for a file with several motions if none is selected; `keys` are the keys to select from."""

    def __init__(self, message: str, keys: list[str]):
        super().__init__(message)
        self.keys = keys


@dataclass
class Recording:
    """Content of a motion file, before joints, unit and axes are known."""

    format: str
    positions: np.ndarray  # (T, N, 3) float64
    names: tuple[str, ...] = ()  # of the N joints; none if they are a skeleton's own
    fps: Fact | None = None
    units: Fact | None = None
    up: Fact | None = None
    rest: np.ndarray | None = None  # (N, 3)
    features: np.ndarray | None = None
    flat: bool = False  # whether the positions were (T, 3 N), as SMPL's axis angles are
    problems: list[Problem] = field(default_factory=list)


MAX_VALUES = 20_000_000  # of a motion: 300,000 frames of 22 joints
MAX_LINE = 2**20  # characters of a line: 10,000 joints of a BVH file
SLOWEST, FASTEST = 1.0, 2000.0  # frames per second


def check_values(count: int, what: str) -> None:
    """Raise a `ValueError` that names the file `what` if it has more values than fit into memory safely."""
    if count > MAX_VALUES:
        raise ValueError(f"{what}: got {count:,} values, at most {MAX_VALUES:,} are read; cut the motion into pieces")


def short_lines(stream: TextIO, name: str) -> Iterator[str]:
    """Yield the lines of a text file; a `ValueError` that names the file `name` for one of more than `MAX_LINE`."""
    for number, line in enumerate(iter(lambda: stream.readline(MAX_LINE + 1), ""), start=1):
        if len(line) > MAX_LINE:
            message = f"longer than {MAX_LINE:,} characters; write one frame per line"
            raise ValueError(f"{name}, line {number}: {message}")
        yield line


def stated_fps(recording: Recording, rate: float, what: str, where: str, given: bool) -> None:
    """Set the frame rate that a file states, or warn that it is impossible unless another one is `given`.

    Args:
        recording: recording to change.
        rate: frames per second.
        what: description of the statement in the warning, with its value.
        where: place of the statement.
        given: whether the caller gives the frame rate.
    """
    if SLOWEST <= rate <= FASTEST:
        whole = round(rate)  # files contain six or seven digits of the time
        recording.fps = Fact(float(whole) if abs(rate - whole) < 5e-4 * whole else rate, "read", where)
    elif not given:
        message = f"{what}, which is not {SLOWEST:g} to {FASTEST:g} frames per second"
        recording.problems.append(Problem("warning", message, "pass the frame rate with fps=..."))


def check_fps(fps: Any, name: str) -> None:
    """Raise a `ValueError` that names the value `name` if it is no frame rate."""
    if isinstance(fps, bool) or not isinstance(fps, (int, float, np.number)) or not SLOWEST <= fps <= FASTEST:
        raise ValueError(f"{name}: got {fps!r}; pass {SLOWEST:g} to {FASTEST:g} frames per second")
