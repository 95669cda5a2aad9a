"""What a motion file does not say about itself: its unit, its vertical axis, whether its sides are exchanged.

Every finding is a [`Fact`] with a confidence; a caller's word goes before all of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..skeletons import Skeleton

# Metres in a unit. "cmu" is that of the CMU database: 0.45 of its units are an inch.
UNITS = {"m": 1.0, "cm": 0.01, "mm": 0.001, "in": 0.0254, "ft": 0.3048, "cmu": 0.0254 / 0.45}
_UNIT_WORDS = {
    **dict.fromkeys(("metre", "metres", "meter", "meters"), "m"),
    **dict.fromkeys(("centimetre", "centimetres", "centimeter", "centimeters"), "cm"),
    **dict.fromkeys(("millimetre", "millimetres", "millimeter", "millimeters"), "mm"),
    **dict.fromkeys(("inch", "inches"), "in"),
    **dict.fromkeys(("foot", "feet"), "ft"),
}
# Rare units must fit clearly better to be chosen: added to the misfit.
_RARE = {"in": 0.2, "ft": 0.2, "cmu": 0.2}
ADULT_HEIGHT = 1.7  # metres
# Standing height over the way from ankle to hip and pelvis to head along the bones, of HumanML3D's reference body.
HEIGHT_OF_CHAIN = 1.15
LIKELY_HEIGHTS, POSSIBLE_HEIGHTS = (1.35, 2.1), (0.9, 2.5)  # metres, of the chain's estimate

# Rows: x, y and z of the Y-up body in the file's coordinates. All are rotations: left stays left.
_TO_Y_UP = {
    "y": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "-y": ((1, 0, 0), (0, -1, 0), (0, 0, -1)),
    "z": ((1, 0, 0), (0, 0, 1), (0, -1, 0)),
    "-z": ((1, 0, 0), (0, 0, -1), (0, 1, 0)),
    "x": ((0, -1, 0), (1, 0, 0), (0, 0, 1)),
    "-x": ((0, 1, 0), (-1, 0, 0), (0, 0, 1)),
}
UP_AXES = tuple(_TO_Y_UP)

STANDS = 0.6  # mean cosine between the body's long axis and a coordinate axis: it stands along that axis
STANDS_CLEARLY = 0.85
# A lowest point this far from 0, in heights of the body, is no floor; one this near is no accident.
OFF_FLOOR, ON_FLOOR = 0.05, 0.005


@dataclass(frozen=True)
class Fact:
    """
    Something known about a file.

    Args:
        value: what it is.
        confidence (`str`): `given` (by the caller), `read` (the file or its format says so), `high`, `medium`, `low`
            (detected), or `assumed` (nothing tells).
        reason (`str`): why.
    """

    value: Any
    confidence: str
    reason: str = ""


def metres_per_unit(units: str | float) -> float:
    """
    Metres in a unit.

    Args:
        units (`str` or `float`): one of `UNITS`, its name in full, or the number itself, also as text.

    Raises:
        ValueError: it is none of these.

    Example:

        >>> metres_per_unit("centimetres"), metres_per_unit("0.5")
        (0.01, 0.5)
    """
    if isinstance(units, str):
        name = units.strip().lower()
        if (name := _UNIT_WORDS.get(name, name)) in UNITS:
            return UNITS[name]
    try:
        number = float(units)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"Unknown units {units!r}: give one of {', '.join(UNITS)}, or metres in a unit as a number.")
    return number


def to_y_up(positions: np.ndarray, up: str) -> np.ndarray:
    """Turn positions (..., 3) with vertical axis `up` such that Y points up."""
    return positions @ np.array(_TO_Y_UP[up], dtype=positions.dtype).T


def _joint(skeleton: Skeleton, name: str) -> int:
    return skeleton.joint_names.index(name)


def body_height(positions: np.ndarray, skeleton: Skeleton) -> float:
    """
    Standing height, estimated from the bones whatever the pose: legs and trunk, times `HEIGHT_OF_CHAIN`.

    Args:
        positions (`np.ndarray` of shape `(T, J, 3)`): finite positions in any unit.
        skeleton ([`Skeleton`]): joint layout.

    Returns:
        `float`: in the unit of the positions, the median over frames.
    """
    lengths = np.median(np.linalg.norm(np.diff(positions[:, np.array(skeleton.bones)], axis=2)[:, :, 0], axis=-1), 0)
    of_joint = dict(zip((joint for _, joint in skeleton.bones), lengths, strict=True))
    legs = sum(
        of_joint[_joint(skeleton, f"{side}_{name}")] for side in ("left", "right") for name in ("knee", "ankle")
    )
    trunk = sum(of_joint[joint] for joint in skeleton.parts["torso"][1:])
    return float(HEIGHT_OF_CHAIN * (legs / 2 + trunk))


def detect_units(height: float, rig: str | None = None) -> Fact:
    """
    The unit in which a body of this height is likeliest.

    Args:
        height (`float`): see [`body_height`].
        rig (`str`, *optional*): naming convention of the joints; that of CMU makes CMU's unit no rarity.

    Returns:
        [`Fact`]: one of `UNITS`.

    Example:

        >>> detect_units(172.0).value, detect_units(30.0, "cmu").value
        ('cm', 'cmu')
    """
    if not height > 0:
        return Fact("m", "low", "the body has no size")

    def misfit(unit: str) -> float:
        rare = 0.0 if unit == rig else _RARE.get(unit, 0.0)
        return abs(math.log(height * UNITS[unit] / ADULT_HEIGHT)) + rare

    unit = min(UNITS, key=misfit)
    metres = height * UNITS[unit]
    confidence = "low"
    if POSSIBLE_HEIGHTS[0] <= metres <= POSSIBLE_HEIGHTS[1]:
        confidence = "high" if LIKELY_HEIGHTS[0] <= metres <= LIKELY_HEIGHTS[1] else "medium"
    return Fact(unit, confidence, f"the body would be {metres:.2f} m tall")


def _long_axis(positions: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """(T, 3) from the ankles to between neck and head."""
    top = positions[:, [_joint(skeleton, "neck"), _joint(skeleton, "head")]].mean(axis=1)
    return top - positions[:, [_joint(skeleton, f"{side}_ankle") for side in ("left", "right")]].mean(axis=1)


def _standing_along(positions: np.ndarray, skeleton: Skeleton) -> tuple[str, float]:
    """The axis nearest to the body's long axis over all frames, and their mean cosine."""
    axis = _long_axis(positions, skeleton)
    length = np.linalg.norm(axis, axis=-1, keepdims=True)
    mean = (axis / np.where(length > 0, length, 1.0)).mean(axis=0)
    number = int(np.abs(mean).argmax())
    return ("-" if mean[number] < 0 else "") + "xyz"[number], float(abs(mean[number]))


def _floor_gap(positions: np.ndarray, up: str, height: float) -> float:
    """How far the lowest point of all is from 0, in heights of the body."""
    lowest = to_y_up(positions, up)[..., 1].min()
    return abs(float(lowest)) / max(height, 1e-9)


def detect_up(
    positions: np.ndarray, skeleton: Skeleton, rest: np.ndarray | None = None, usually_y: bool = False
) -> Fact:
    """
    The vertical axis, by how the body stands in motion and at rest, and where the floor is.

    Args:
        positions (`np.ndarray` of shape `(T, J, 3)`): finite positions.
        skeleton ([`Skeleton`]): joint layout.
        rest (`np.ndarray` of shape `(J, 3)`, *optional*): the rest pose of a BVH file.
        usually_y (`bool`): the file's layout is one that has Y up, so that a body that lies is no reason to doubt it.

    Returns:
        [`Fact`]: one of `UP_AXES`.
    """
    height = body_height(positions, skeleton)
    moving, cosine = _standing_along(positions, skeleton)
    stands = f"the body stands along {moving} (mean cosine {cosine:.2f})"
    if usually_y:
        if moving == "y" and cosine >= STANDS:
            return Fact("y", "high", stands)
        gap = _floor_gap(positions, "y", height)
        if gap < ON_FLOOR:
            return Fact("y", "medium", "usual in this layout, and the lowest y is 0")
        if cosine >= STANDS_CLEARLY and gap > OFF_FLOOR:
            return Fact(moving, "medium", f"{stands} and the lowest y is not 0")
        return Fact("y", "low", f"usual in this layout, but {stands}")
    resting, rest_cosine = moving, 0.0
    if rest is not None and np.linalg.norm(_long_axis(rest[None], skeleton)) > 0.5 * height:
        resting, rest_cosine = _standing_along(rest[None], skeleton)
    if rest_cosine < STANDS_CLEARLY:  # there is no rest pose that stands
        if _floor_gap(positions, moving, height) > OFF_FLOOR:
            for up in ("y", "z"):
                if _floor_gap(positions, up, height) < ON_FLOOR:
                    return Fact(up, "low", f"{stands}, but the lowest point of all has {up} = 0")
        if cosine >= STANDS:
            return Fact(moving, "high" if cosine >= STANDS_CLEARLY else "medium", stands)
        best = min(("y", "z"), key=lambda up: _floor_gap(positions, up, height))
        return Fact(best, "low", f"the body stands along no axis; its lowest point is nearest to {best} = 0")
    if resting == moving:
        return Fact(moving, "high" if cosine >= STANDS else "medium", f"{stands}, as in the rest pose")
    if cosine < STANDS:
        return Fact(resting, "medium", f"the rest pose stands along {resting}; the body hardly ever stands")
    best = min((resting, moving), key=lambda up: _floor_gap(positions, up, height))
    if best == resting and _floor_gap(positions, best, height) < ON_FLOOR:
        return Fact(best, "medium", f"the rest pose stands along {best}, and the lowest point has {best} = 0")
    return Fact(best, "low", f"{stands}, the rest pose along {resting}; the lowest point is nearest to {best} = 0")


def sides_agree(positions: np.ndarray, skeleton: Skeleton) -> float:
    """
    Whether left and right are where toes and hips say, as a right-handed Y-up frame has them.

    Args:
        positions (`np.ndarray` of shape `(T, J, 3)`): finite positions, Y up.
        skeleton ([`Skeleton`]): joint layout.

    Returns:
        `float`: mean cosine on the floor between the way the toes point and the way the hips face, over frames in
        which the body is upright: 1 as it should be, -1 where left and right are exchanged, 0 without such frames.
    """
    axis = _long_axis(positions, skeleton)
    positions = positions[axis[:, 1] > STANDS_CLEARLY * np.linalg.norm(axis, axis=-1)]
    if not len(positions):
        return 0.0
    left, right = (
        {name: positions[:, _joint(skeleton, f"{side}_{name}")] for name in ("hip", "shoulder", "ankle", "foot")}
        for side in ("left", "right")
    )
    lateral = left["hip"] - right["hip"] + left["shoulder"] - right["shoulder"]
    forward = np.stack([-lateral[:, 2], lateral[:, 0]], axis=-1)  # x and z of lateral x up
    toes = (left["foot"] - left["ankle"] + right["foot"] - right["ankle"])[:, [0, 2]]
    length = np.linalg.norm(forward, axis=-1) * np.linalg.norm(toes, axis=-1)
    return float((np.sum(forward * toes, axis=-1) / np.where(length > 0, length, 1.0)).mean())
