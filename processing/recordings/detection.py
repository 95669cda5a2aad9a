"""Detection of the unit, the vertical axis and exchanged sides of a motion file.

Every finding is a [`Fact`] with a confidence; values from the caller override all of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..skeletons import Skeleton

# Metres per unit. "cmu" is the unit of the CMU database: 0.45 of its units are an inch.
UNITS = {"m": 1.0, "cm": 0.01, "mm": 0.001, "in": 0.0254, "ft": 0.3048, "cmu": 0.0254 / 0.45}
_UNIT_WORDS = {
    **dict.fromkeys(("metre", "metres", "meter", "meters"), "m"),
    **dict.fromkeys(("centimetre", "centimetres", "centimeter", "centimeters"), "cm"),
    **dict.fromkeys(("millimetre", "millimetres", "millimeter", "millimeters"), "mm"),
    **dict.fromkeys(("inch", "inches"), "in"),
    **dict.fromkeys(("foot", "feet"), "ft"),
}
# Added to the misfit of rare units, which are chosen only if they fit clearly better.
_RARE = {"in": 0.2, "ft": 0.2, "cmu": 0.2}
ADULT_HEIGHT = 1.7  # metres
# Standing height over the length of the bones from ankle to hip and pelvis to head, of HumanML3D's reference body.
HEIGHT_OF_CHAIN = 1.15
LIKELY_HEIGHTS, POSSIBLE_HEIGHTS = (1.35, 2.1), (0.9, 2.5)  # metres, as estimated from the bones

FURTHEST = 1e5  # metres from the origin; float32 positions beyond have steps of more than a centimetre
BONES_WRONG = 0.2  # a bone that varies more, see `bone_change`, is not a bone
POINTS = 0.5  # a foot less across its lower leg, as a share of its length, points nowhere
SIDES_WRONG = 2.0  # ratio of the lengths of a left and a right limb
# Orders in which other corpora store the same 22 joints.
JOINT_ORDERS = {
    "LAFAN1": (
        *("pelvis", "left_hip", "left_knee", "left_ankle", "left_foot"),
        *("right_hip", "right_knee", "right_ankle", "right_foot", "spine1", "spine2", "spine3", "neck", "head"),
        *("left_collar", "left_shoulder", "left_elbow", "left_wrist"),
        *("right_collar", "right_shoulder", "right_elbow", "right_wrist"),
    )
}

# Rows: x, y and z of the Y-up body in the file's coordinates. All are rotations, so left stays left.
_TO_Y_UP = {
    "y": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "-y": ((1, 0, 0), (0, -1, 0), (0, 0, -1)),
    "z": ((1, 0, 0), (0, 0, 1), (0, -1, 0)),
    "-z": ((1, 0, 0), (0, 0, -1), (0, 1, 0)),
    "x": ((0, -1, 0), (1, 0, 0), (0, 0, 1)),
    "-x": ((0, 1, 0), (-1, 0, 0), (0, 0, 1)),
}
UP_AXES = tuple(_TO_Y_UP)


@dataclass(frozen=True)
class Fact:
    """A known property of a file.

    Args:
        value: its value.
        confidence: `given` (by the caller), `read` (from the file or its format), `high`, `medium`, `low` (detected),
            or `assumed` (without evidence).
        reason: evidence for it.
    """

    value: Any
    confidence: str
    reason: str = ""


def metres_per_unit(units: str | float) -> float:
    """Return the metres per unit of one of `UNITS`, its full name, or a number, also as text.

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
        raise ValueError(f"units: got {units!r}; pass one of {', '.join(UNITS)}, or metres per unit as a number")
    return number


def to_y_up(positions: np.ndarray, up: str) -> np.ndarray:
    """Rotate positions (..., 3) with vertical axis `up` so that Y points up."""
    return positions @ np.array(_TO_Y_UP[up], dtype=positions.dtype).T


def _joint(skeleton: Skeleton, name: str) -> int:
    return skeleton.joint_names.index(name)


def body_height(positions: np.ndarray, skeleton: Skeleton) -> float:
    """Estimate the standing height from bone lengths in any pose: legs and trunk, times `HEIGHT_OF_CHAIN`.

    Args:
        positions: (T, J, 3) finite positions in any unit.
        skeleton: joint layout.

    Returns:
        Height in the unit of the positions, from the median lengths over frames.
    """
    of_joint = _median_lengths(positions, skeleton)
    names = ("left_knee", "left_ankle", "right_knee", "right_ankle")
    legs = sum(of_joint[_joint(skeleton, name)] for name in names)
    trunk = sum(of_joint[joint] for joint in skeleton.parts["torso"][1:])
    return float(HEIGHT_OF_CHAIN * (legs / 2 + trunk))


def finite_frames(positions: np.ndarray) -> np.ndarray:
    """Return the frames (t, J, 3) without NaN and infinity, without a copy if all are."""
    finite = np.isfinite(positions).all(axis=(1, 2))
    return positions if finite.all() else positions[finite]


def bone_lengths(positions: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """Compute the (T, B) lengths of the bones of positions (T, J, 3)."""
    # One by one, as all bones of a long motion at once would take several times its memory.
    lengths = [np.linalg.norm(positions[:, end] - positions[:, start], axis=-1) for start, end in skeleton.bones]
    return np.stack(lengths).T


def _median_lengths(positions: np.ndarray, skeleton: Skeleton) -> dict[int, float]:
    """Return the median length over frames of the bone that ends at each joint."""
    lengths = np.median(bone_lengths(positions, skeleton), axis=0)
    return dict(zip((joint for _, joint in skeleton.bones), lengths, strict=True))


def bone_change(positions: np.ndarray, skeleton: Skeleton) -> float:
    """Return the change of the bone that changes most: standard deviation over mean of its length."""
    bones = bone_lengths(positions, skeleton)
    return float((bones.std(axis=0) / np.maximum(bones.mean(axis=0), 1e-9)).max())


def unlike_a_body(positions: np.ndarray, skeleton: Skeleton) -> str | None:
    """Describe why finite positions (T, J, 3) cannot be these joints of a body; None: they can.

    Rotations, normalised features and joints in another order show by bones that change their length or by limbs
    whose left and right differ.
    """
    change = bone_change(positions, skeleton)
    if change > BONES_WRONG:
        return f"the length of a bone varies by {change:.0%} (standard deviation over mean)"
    lengths = _median_lengths(positions, skeleton)
    for name in ("knee", "ankle", "elbow", "wrist"):
        short, long = sorted(lengths[_joint(skeleton, f"{side}_{name}")] for side in ("left", "right"))
        if long > SIDES_WRONG * short:
            return f"the left and right bones to the {name} differ in length ({short:.3g} and {long:.3g} units)"
    return None


def sort_joints(positions: np.ndarray, skeleton: Skeleton) -> tuple[np.ndarray, str | None]:
    """Sort joints that are in one of `JOINT_ORDERS`: only in the right order do bones keep their length.

    Returns:
        Positions (T, J, 3) in the order of the skeleton, and the name of the order; None: they were in that order.
    """
    clean = finite_frames(positions)
    if len(clean) and bone_change(clean, skeleton) > BONES_WRONG / 4:
        for name, order in JOINT_ORDERS.items():
            if set(order) == set(skeleton.joint_names):
                places = [order.index(joint) for joint in skeleton.joint_names]
                if bone_change(clean[:, places], skeleton) < BONES_WRONG / 20:
                    return positions[:, places], name
    return positions, None


def are_normalised(features: np.ndarray, skeleton: Skeleton) -> bool:
    """Whether features (T, F) have mean 0 and deviation 1: contacts are not in 0..1, or heights are negative."""
    contacts = features[:, skeleton.feature_slices["contacts"]]
    outside = ((contacts < -0.5) | (contacts > 1.5)).mean()
    return bool(outside > 0.05 or np.median(features[:, 3]) * skeleton.metres_per_unit < -0.1)


def detect_units(height: float, rig: str | None = None) -> Fact:
    """Detect the most likely unit of a body of this height, one of `UNITS`.

    Args:
        height: see [`body_height`].
        rig: naming convention of the joints; CMU's unit is not rare among files with CMU's names.

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


def long_axis(positions: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """Return (T, 3) vectors from between the ankles to between neck and head."""
    top = positions[:, [_joint(skeleton, "neck"), _joint(skeleton, "head")]].mean(axis=1)
    return top - positions[:, [_joint(skeleton, f"{side}_ankle") for side in ("left", "right")]].mean(axis=1)


def starts_in_rest(positions: np.ndarray, skeleton: Skeleton, rest: np.ndarray | None) -> bool:
    """Whether the first frame is a rest pose that exporters put before the motion: the body jumps out of it.

    Args:
        positions: (T, J, 3) finite positions in metres.
        skeleton: joint layout.
        rest: (J, 3) rest pose of the file in metres; a T-pose is recognised without.
    """
    if len(positions) < 3:
        return False
    steps = np.linalg.norm(np.diff(positions[:12], axis=0), axis=-1).max(axis=1)
    if steps[0] < 0.1 or steps[0] < 2 * np.median(steps[1:]):
        return False
    first = positions[0]
    if rest is not None:
        apart = [np.linalg.norm(pose[:, None] - pose[None], axis=-1) for pose in (first, rest)]
        if np.abs(apart[0] - apart[1]).max() < 0.02:
            return True

    def direction(start: str, end: str) -> np.ndarray:
        vector = first[_joint(skeleton, end)] - first[_joint(skeleton, start)]
        return vector / max(float(np.linalg.norm(vector)), 1e-9)

    across, up = direction("right_shoulder", "left_shoulder"), direction("pelvis", "neck")
    for side, sign in (("left", 1), ("right", -1)):
        arm = [direction(f"{side}_{a}", f"{side}_{b}") for a, b in (("shoulder", "elbow"), ("elbow", "wrist"))]
        leg = [direction(f"{side}_{a}", f"{side}_{b}") for a, b in (("hip", "knee"), ("knee", "ankle"))]
        if min(*(sign * part @ across for part in arm), *(-part @ up for part in leg)) < 0.96:
            return False
    return True


def crossed_pairs(positions: np.ndarray, skeleton: Skeleton) -> str | None:
    """Name two neighbouring pairs of joints of which one has left and right exchanged, as hips and knees; else None.

    Args:
        positions: (T, J, 3) finite positions.
        skeleton: joint layout.
    """
    across = {}
    for name in ("hip", "knee", "shoulder", "elbow"):
        left, right = (positions[:, _joint(skeleton, f"{side}_{name}")] for side in ("left", "right"))
        length = np.linalg.norm(left - right, axis=-1, keepdims=True)
        across[name] = (left - right) / np.where(length > 0, length, 1.0)
    for first, second in (("hip", "shoulder"), ("hip", "knee"), ("shoulder", "elbow")):
        if float((across[first] * across[second]).sum(axis=-1).mean()) < -0.3:
            return f"{first}s and {second}s"
    return None


def sides_agree(positions: np.ndarray, skeleton: Skeleton) -> float:
    """Measure whether left and right agree with the feet: toes point to the front of the lower leg, in any pose.

    Args:
        positions: (T, J, 3) finite positions.
        skeleton: joint layout.

    Returns:
        Mean cosine between the part of a foot across its lower leg and the front, which lies across the leg and the
        hips: near 1 if correct, near -1 if left and right are exchanged or the file is left-handed, 0 if the feet
        lie along the legs and point nowhere.
    """
    of = {name: positions[:, number] for number, name in enumerate(skeleton.joint_names)}
    lateral = of["left_hip"] - of["right_hip"]
    cosines = []
    for side in ("left", "right"):
        shank, foot = of[f"{side}_knee"] - of[f"{side}_ankle"], of[f"{side}_foot"] - of[f"{side}_ankle"]
        along = shank / np.maximum(np.linalg.norm(shank, axis=-1, keepdims=True), 1e-9)
        across = foot - (foot * along).sum(axis=-1, keepdims=True) * along
        front = np.cross(lateral, along)
        length = np.linalg.norm(across, axis=-1) * np.linalg.norm(front, axis=-1)
        points = np.linalg.norm(across, axis=-1) > POINTS * np.linalg.norm(foot, axis=-1)
        cosine = (across * front).sum(axis=-1) / np.maximum(length, 1e-12)
        cosines.append(np.where(points & (length > 1e-12), cosine, 0.0))
    return float(np.mean(cosines))
