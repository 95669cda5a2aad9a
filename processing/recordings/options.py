"""Options for reading a motion file."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ReadingOptions:
    """Facts that a motion file does not contain, or contains wrongly. These texts are also the command line's help.

    Args:
        fps: Frames per second of the file. By default the rate in the file, else that of the model or skeleton.
        units: Unit of the file: m, cm, mm, in, ft, cmu, or metres per unit. By default inferred from body height.
        up: Up axis of the file: y, z, x, -y, -z or -x. By default inferred from rest pose, floor and posture.
        mapping: Names of the joints: cmu, mixamo, lafan1, motionbuilder, smpl, unity, unreal, iclone, biped, rigify,
            daz, 3dsmax, asf, makehuman, xsens, or a JSON or YAML file of {joint: name in the file}; in Python also a
            dictionary. By default inferred from the names in the file.
        key: Array of an .npz file, number of one of several motions (or ARRAY/NUMBER), or animation of a glTF file. By
            default the only one that can be a motion.
        body_model: Your SMPL-H model, for AMASS files: a .npz file or its folder. By default a mean body.
    """

    fps: float | None = None
    units: str | float | None = None
    up: str | None = None
    mapping: str | os.PathLike | Mapping[str, Any] | None = None
    key: str | None = None
    body_model: str | os.PathLike | None = None
