"""How a motion file is read."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ReadingOptions:
    """
    What a motion file does not say about itself, or says wrongly. None reads it from the file, or detects it.

    Args:
        fps: Frames per second; None: what the file says, else the frame rate of the skeleton.
        units: Unit of the coordinates, one of `UNITS` or metres per unit; None: inferred from body height.
        up: Axis that points up, one of `UP_AXES`; None: inferred from posture.
        mapping: Which joint is which: the name of a rig, a mapping, or a file of one, see [`match_rig`]; None:
            inferred from the names of the joints.
        key: Array of an `.npz` file to read; None: the one that can be a motion.
        body_model: SMPL-H model for AMASS files, an `.npz` file or its folder; None: AMASS files cannot be read.
    """

    fps: float | None = None
    units: str | float | None = None
    up: str | None = None
    mapping: str | os.PathLike | Mapping[str, Any] | None = None
    key: str | None = None
    body_model: str | os.PathLike | None = None
