"""Raw content of a motion file, as the reader of each format returns it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .detection import Fact


@dataclass(frozen=True)
class Problem:
    """A problem of a motion: its severity, a description with the value, and a remedy.

    The severity is `error` (the motion cannot be used), `warning` (it may be wrong) or `note`.
    """

    severity: str
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        return "; ".join(filter(None, (self.message, self.remedy)))


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
    problems: list[Problem] = field(default_factory=list)


def check_fps(fps: Any, name: str) -> None:
    """Raise a `ValueError` that names the value `name` if it is no frame rate."""
    if isinstance(fps, bool) or not isinstance(fps, (int, float, np.number)) or not (0 < fps < math.inf):
        raise ValueError(f"{name}: got {fps!r}; pass a positive number of frames per second")
