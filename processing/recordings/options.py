"""How a motion file is read."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ReadingOptions:
    """
    What a motion file does not say about itself, or says wrongly. The command line shows these texts, too.

    Args:
        fps: Frames per second of the file. By default what it says, else the frame rate of the model.
        units: Unit of the file: m, cm, mm, in, ft, cmu, or metres per unit. By default inferred from body height.
        up: Vertical axis of the file: y, z, x, -y, -z or -x. By default inferred from posture.
        mapping: Which joint is which: cmu, mixamo, lafan1, motionbuilder, smpl, or a JSON or YAML file of
            {joint: name in the file}; in Python a dictionary, too. By default inferred from the names of the joints.
        key: Array of an .npz file to read. By default the one that can be a motion.
        body_model: Your SMPL-H model, for AMASS files: a .npz file or its folder.
    """

    fps: float | None = None
    units: str | float | None = None
    up: str | None = None
    mapping: str | os.PathLike | Mapping[str, Any] | None = None
    key: str | None = None
    body_model: str | os.PathLike | None = None
