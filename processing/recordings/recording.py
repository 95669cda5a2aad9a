"""What a motion file holds before its joints, unit and axes are known: what the reader of each format returns."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .detection import Fact


@dataclass(frozen=True)
class Problem:
    """
    Something wrong with a motion.

    Args:
        severity (`str`): `error` (it cannot be used), `warning` (look at it) or `note`.
        message (`str`): what is wrong, with the value.
        remedy (`str`): what to do.
    """

    severity: str
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()


@dataclass
class Recording:
    """What a file holds, before joints, unit and axes are known."""

    format: str
    positions: np.ndarray  # (T, N, 3) float64
    names: tuple[str, ...] = ()  # of the N joints; none where they are a skeleton's own
    fps: Fact | None = None
    units: Fact | None = None
    up: Fact | None = None
    rest: np.ndarray | None = None  # (N, 3)
    features: np.ndarray | None = None
    problems: list[Problem] = field(default_factory=list)


def check_fps(fps: Any, name: str) -> None:
    """Raise a `ValueError` that calls the value `name`, unless it is a frame rate."""
    if isinstance(fps, bool) or not isinstance(fps, (int, float, np.number)) or not (0 < fps < math.inf):
        raise ValueError(f"{name} must be a positive number of frames per second, got {fps!r}.")
