"""Proportions of a mean adult body, for files that hold a pose but not the body.

Limbs are those of Drillis and Contini (1966) as shares of the standing height, as printed in Winter, "Biomechanics and
Motor Control of Human Movement" (2009), figure 4.1; the hips are placed after Bell, Pedersen and Brand (1990). The
levels of the trunk are the places of HumanML3D's joints in a straight body: vertebrae L4 (spine1), T12 (spine2), T9
(spine3), C7 (neck) and the base of the skull (head). Nothing here comes from a body model.
"""

from __future__ import annotations

import numpy as np

from ..skeletons import HUMANML3D
from .detection import ADULT_HEIGHT

# Heights on the line from between the hips (0) to between the shoulders (1).
TRUNK = {"pelvis": 0.16, "spine1": 0.375, "spine2": 0.625, "spine3": 0.73, "collar": 0.95, "neck": 1.125, "head": 1.3}
COLLAR = 0.4  # share of the way from between the shoulders to a shoulder
# Shares of the standing height.
_THIGH, _SHANK, _UPPER_ARM, _FOREARM, _HIPS_TO_SHOULDERS = 0.245, 0.246, 0.186, 0.146, 0.288
_HALF_HIPS, _HALF_SHOULDERS = (
    0.05,
    0.11,
)  # joint centres: hips 0.36 of the width of the pelvis, shoulders below the skin
_TOE = (0.0, -0.035, 0.075)  # from the ankle to the ball of the foot


def _t_pose() -> np.ndarray:
    trunk = {
        name: np.array([0.0, (level - TRUNK["pelvis"]) * _HIPS_TO_SHOULDERS, 0.0]) for name, level in TRUNK.items()
    }
    shoulder = (1 - TRUNK["pelvis"]) * _HIPS_TO_SHOULDERS
    places = {name: place for name, place in trunk.items() if name != "collar"}
    for side, sign in (("left", 1), ("right", -1)):
        hip = np.array([sign * _HALF_HIPS, -TRUNK["pelvis"] * _HIPS_TO_SHOULDERS, 0.0])
        arm = np.array([sign * _HALF_SHOULDERS, shoulder, 0.0])
        along = np.array([sign, 0.0, 0.0])
        knee = hip - [0.0, _THIGH, 0.0]
        ankle = knee - [0.0, _SHANK, 0.0]
        limb = {"hip": hip, "knee": knee, "ankle": ankle, "foot": ankle + _TOE}
        limb |= {"collar": trunk["collar"] + COLLAR * _HALF_SHOULDERS * along, "shoulder": arm}
        limb |= {"elbow": arm + _UPPER_ARM * along, "wrist": arm + (_UPPER_ARM + _FOREARM) * along}
        places |= {f"{side}_{name}": place for name, place in limb.items()}
    return ADULT_HEIGHT * np.array([places[name] for name in HUMANML3D.joint_names])


# (22, 3) metres from the pelvis, Y up, facing Z+, arms to the sides: the pose in which all rotations of SMPL are zero.
T_POSE = _t_pose()
