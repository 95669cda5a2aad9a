"""Compute HumanML3D's joints from the markers of optical motion capture, or from landmarks of pose estimation.

Two kinds of points are understood, under their usual names: markers on the skin as in Vicon's Plug-in Gait, CMU's
recordings and OpenSim's examples, and centres of joints as in the output of Plug-in Gait and of video systems. Joint
centres come from markers in published ways:

- hips: Bell, Pedersen and Brand (1990): 36 % of the distance between the front pelvis markers to the side, 19 % to the
  back and 30 % down from between them;
- shoulders: Rab, Petuskey and Bagley (2002): 17 % of the distance between the shoulder markers below each;
- knees and ankles: between the markers on both sides if there are two, else half a joint's width inside of the outer
  one, along the axis across shank and foot; elbows: between both markers, else the outer one;
- wrists between their two markers; toes at the ball of the foot, three quarters of the way from heel to tip if only
  the tip is known; the spine between pelvis, chest and neck.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..skeletons import HUMANML3D
from .detection import Fact, to_y_up
from .mean_body import COLLAR, TRUNK
from .options import ReadingOptions
from .recording import Problem, Recording

Points = dict[str, np.ndarray]  # name -> (T, 3)

LONGEST_GAP = 0.2  # seconds of a marker out of sight that are filled in
_KNEE, _ANKLE = 0.14, 0.10  # half a joint's width and a marker's radius, as shares of the length of the shank
_BALL = 0.75  # of the foot's length from the heel
_STANDS = 0.85  # mean cosine between the body's long axis and a coordinate axis along which it stands clearly
_SIDES = {"left": "l", "right": "r"}
_SHOWN = 40  # names in messages

# Names of markers without side, which all have `l` or `r` before them or after them.
_SIDED = {
    "asis": "asi asis fwt",
    "psis": "psi psis bwt",
    "knee_outer": "kne kneelat latknee lkneelat",
    "knee_inner": "knm knem kneemed mkne medknee kneem",
    "ankle_outer": "ank anklelat latankle",
    "ankle_inner": "anm ankm anklemed mank medankle anklem",
    "heel": "hee heel",
    "toe": "toe mt2",
    "toe_tip": "bigtoe footindex toetip",
    "acromion": "sho acr acromion acromium shoulderacromion",
    "elbow_outer": "elb elbowlat latelbow elbl",
    "elbow_inner": "elbm elbowmed medelbow melb elm",
    "thumb_side": "wra wristlat wristradius wristthumb",
    "finger_side": "wrb wristmed wristulna wristpinky",
    "forehead": "fhd",
    "occiput": "bhd",
    "hip": "hjc hip fep",
    "knee": "kjc knee feo",
    "ankle": "ajc ankle tio",
    "shoulder": "sjc shoulder clo",
    "elbow": "ejc elbow huo",
    "wrist": "wjc wrist rao",
    "ear": "ear",
}
_CENTRAL = {
    "c7": "c7",
    "t10": "t10",
    "clavicle": "clav",
    "sternum": "strn sternum",
    "sacrum": "sacr sacrum vsacral vsac",
    "neck": "neck",
    "head": "head hedo",
    "nose": "nose",
}
LANDMARKS = (
    *(f"{side}_{name}" for side in _SIDES for name in ("hip", "knee", "ankle", "toe", "shoulder", "elbow", "wrist")),
    "head",
)


def marker_recording(
    format: str,
    points: np.ndarray,
    labels: Sequence[str],
    rate: float,
    options: ReadingOptions,
    facts: Mapping[str, Fact],
) -> Recording:
    """Return joints as a recording if the markers are known, else the points themselves by their labels.

    Args:
        format: name of the file format.
        points: (T, N, 3) in the file's unit and axes; NaN or the origin where a marker is out of sight.
        labels: names of the points.
        rate: frames per second, for the length of gaps.
        options: with a `mapping`, the points are returned as they are.
        facts: `units` and `up` as the file states them; posture overrides a wrong `up`.

    Raises:
        ValueError: if most but not all of the markers that are needed are known, or several bodies have them.
    """
    points = np.where((points == 0).all(axis=-1, keepdims=True), np.nan, points)  # many programs' lost marker
    found = {} if options.mapping is not None else known_markers(points, labels)
    landmarks = _landmarks(found)
    missing = [name for name in LANDMARKS if name not in landmarks]
    if options.mapping is not None or len(missing) > len(LANDMARKS) // 2:
        return Recording(format, points, names=tuple(labels), units=facts.get("units"), up=facts.get("up"))
    if missing:
        shown = ", ".join(labels[:_SHOWN]) + (", ..." if len(labels) > _SHOWN else "")
        remedy = "export these markers, or name the points of all joints in a mapping file (mapping='rig.json')"
        raise ValueError(f"no marker or joint centre for {', '.join(missing)} among {shown}; {remedy}")
    filled = fill_gaps(found, rate)
    positions = joints_from_landmarks(found)
    kind = "markers" if "left_asis" in found else "landmarks"
    recording = Recording(f"{format}, {kind}", positions, HUMANML3D.joint_names, units=facts.get("units"))
    if filled:
        message = f"gaps of at most {LONGEST_GAP:g} s were interpolated, {filled} marker positions in total"
        recording.problems.append(Problem("note", message))
    stated = facts.get("up")
    if stated is not None and not _stands_otherwise(positions, stated.value):
        recording.up = stated
    return recording


def _stands_otherwise(positions: np.ndarray, up: str) -> bool:
    """Whether the body (T, 22, 3) stands clearly, and along another axis than `up`."""
    clean = positions[np.isfinite(positions).all(axis=(1, 2))]
    feet, neck = (HUMANML3D.joint_names.index(name) for name in ("left_ankle", "neck"))
    if not len(clean):
        return False
    mean = to_y_up(_unit(clean[:, neck] - (clean[:, feet] + clean[:, feet + 1]) / 2).mean(axis=0), up)
    return bool(np.abs(mean).max() > _STANDS and mean[1] <= _STANDS)


def known_markers(points: np.ndarray, labels: Sequence[str]) -> Points:
    """Return the points whose labels are known, by the names that `_SIDED` and `_CENTRAL` give them.

    Raises:
        ValueError: if two labels stand for one marker, which are then of two bodies.
    """
    names = {word: name for name, words in _CENTRAL.items() for word in words.split()}
    for name, words in _SIDED.items():
        for side, letter in _SIDES.items():
            names |= {f"{way}{word}": f"{side}_{name}" for word in words.split() for way in (letter, side)}
    found: Points = {}
    source: dict[str, str] = {}
    for number, label in enumerate(labels):
        bare = "".join(filter(str.isalnum, label.rpartition(":")[2].lower())).removesuffix("study")
        if bare not in names:
            continue
        name = names[bare]
        if name in found:
            raise ValueError(
                f"{source[name]} and {label} are both {name.replace('_', ' ')}; split the file into one per body"
            )
        found[name], source[name] = np.array(points[:, number], dtype=np.float64), label
    return found


def fill_gaps(points: Points, rate: float) -> int:
    """Fill in gaps of at most `LONGEST_GAP` between frames in which a point (T, 3) is seen; return their number."""
    longest = LONGEST_GAP * rate if np.isfinite(rate) else 0
    filled = 0
    for place in points.values():
        seen = np.flatnonzero(np.isfinite(place).all(axis=1))
        gaps = np.diff(seen) - 1
        for number in np.flatnonzero((gaps > 0) & (gaps <= longest)):
            start, end = seen[number], seen[number + 1]
            share = np.arange(1, end - start)[:, None] / (end - start)
            place[start + 1 : end] = place[start] + share * (place[end] - place[start])
            filled += end - start - 1
    return int(filled)


def _unit(vector: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vector, axis=-1, keepdims=True)
    return vector / np.where(length > 0, length, 1.0)


def _mean(points: Points, *names: str) -> np.ndarray | None:
    found = [points[name] for name in names if name in points]
    return np.mean(found, axis=0) if len(found) == len(names) else None


def _pelvis(points: Points) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Return the middle of the front markers, the frame of the pelvis (T, 3, 3: left, forward, up) and its width."""
    back = points.get("sacrum")
    back = _mean(points, "left_psis", "right_psis") if back is None else back
    front = _mean(points, "left_asis", "right_asis")
    if front is None or back is None:
        return None
    across = points["left_asis"] - points["right_asis"]
    left = _unit(across)
    forward = front - back
    forward = _unit(forward - (forward * left).sum(axis=-1, keepdims=True) * left)
    frame = np.stack([left, forward, np.cross(forward, left)], axis=1)
    return front, frame, np.linalg.norm(across, axis=-1, keepdims=True)


def _landmarks(points: Points) -> Points:
    """Compute those of `LANDMARKS` that the markers allow."""
    marks = {name: points[name] for name in LANDMARKS[:-1] if name in points}
    pelvis = _pelvis(points)
    for side, sign in (("left", 1.0), ("right", -1.0)):
        if pelvis is not None and f"{side}_hip" not in marks:
            front, frame, width = pelvis
            share = np.array([0.36 * sign, -0.19, -0.30])
            marks[f"{side}_hip"] = front + width * np.einsum("a,tad->td", share, frame)
        for joint, names in {
            "knee": ("knee_outer", "knee_inner"),
            "ankle": ("ankle_outer", "ankle_inner"),
            "elbow": ("elbow_outer", "elbow_inner"),
            "wrist": ("thumb_side", "finger_side"),
        }.items():
            middle = _mean(points, *(f"{side}_{name}" for name in names))
            if middle is not None:
                marks.setdefault(f"{side}_{joint}", middle)
        if f"{side}_elbow_outer" in points:
            marks.setdefault(f"{side}_elbow", points[f"{side}_elbow_outer"])
        heel, tip = (points.get(f"{side}_{name}") for name in ("heel", "toe_tip"))
        if heel is not None and tip is not None:
            marks.setdefault(f"{side}_toe", heel + _BALL * (tip - heel))
        knee, ankle, toe = (points.get(f"{side}_{name}") for name in ("knee_outer", "ankle_outer", "toe"))
        if knee is not None and ankle is not None and heel is not None and toe is not None:
            shank = knee - ankle
            inward = -sign * np.linalg.norm(shank, axis=-1, keepdims=True) * _unit(np.cross(shank, toe - heel))
            marks.setdefault(f"{side}_knee", knee + _KNEE * inward)
            marks.setdefault(f"{side}_ankle", ankle + _ANKLE * inward)
    _add_shoulders(points, marks)
    head = _mean(points, "left_forehead", "right_forehead", "left_occiput", "right_occiput")
    for found in (head, _mean(points, "left_ear", "right_ear"), points.get("nose"), points.get("head")):
        if found is not None:
            marks.setdefault("head", found)
    return marks


def _add_shoulders(points: Points, marks: Points) -> None:
    top = _mean(points, "left_acromion", "right_acromion")
    hips = _mean(marks, "left_hip", "right_hip")
    if top is None or hips is None:
        return
    width = np.linalg.norm(points["left_acromion"] - points["right_acromion"], axis=-1, keepdims=True)
    for side in _SIDES:
        marks.setdefault(f"{side}_shoulder", points[f"{side}_acromion"] + 0.17 * width * _unit(hips - top))


def _spine(points: Points) -> Points:
    """Return joints of the trunk that markers show, which bends with them."""
    found: Points = {}
    pelvis = _pelvis(points)
    if pelvis is not None:
        front, frame, width = pelvis
        found["pelvis"] = front - 0.19 * width * frame[:, 1]
    for joint, back, chest in (("spine2", "t10", "sternum"), ("neck", "c7", "clavicle")):
        if back in points and chest in points:  # the vertebrae are nearer to the back
            found[joint] = points[back] + 0.35 * (points[chest] - points[back])
    return found


def joints_from_landmarks(points: Points) -> np.ndarray:
    """Compute HumanML3D's joints from points that give all of `LANDMARKS`.

    Args:
        points: (T, 3) by the names of `_SIDED` and `_CENTRAL`.

    Returns:
        (T, 22, 3) in the unit and axes of the points. Joints of the trunk that no marker shows are placed between hips
        and shoulders as in a straight body, see `TRUNK`.
    """
    marks, known = _landmarks(points), _spine(points)
    joints = {name: place for name, place in marks.items() if name != "head"}
    joints |= {f"{side}_foot": joints.pop(f"{side}_toe") for side in _SIDES}
    low, high = ((joints[f"left_{name}"] + joints[f"right_{name}"]) / 2 for name in ("hip", "shoulder"))

    def level(name: str) -> np.ndarray:
        return low + TRUNK[name] * (high - low)

    for name in ("pelvis", "spine2", "neck"):
        joints[name] = known.get(name, level(name))
    for name, start, end in (("spine1", "pelvis", "spine2"), ("spine3", "spine2", "neck")):
        share = (TRUNK[name] - TRUNK[start]) / (TRUNK[end] - TRUNK[start])
        joints[name] = joints[start] + share * (joints[end] - joints[start])
    joints["head"] = joints["neck"] + 0.6 * (marks["head"] - joints["neck"])  # the joint is below the middle
    for side in _SIDES:
        joints[f"{side}_collar"] = level("collar") + COLLAR * (joints[f"{side}_shoulder"] - high)
    return np.stack([joints[name] for name in HUMANML3D.joint_names], axis=1)
