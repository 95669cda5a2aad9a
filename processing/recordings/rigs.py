"""Match the joints of a recording to those of a skeleton: tables of common rigs, and mapping files.

The source of a skeleton's joint is a joint of the recording, or a point between two of them: `("Spine", "Spine1",
0.6)` is 60 % of the way from the first to the second.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import reprlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from ..skeletons import HUMANML3D, SKELETONS, Skeleton
from .kinematics import END_SUFFIX

Between = tuple[str, str, float]
Source = str | Between

SIDES = ("left", "right")
MAX_MAPPING, MAX_BRACKETS = 2**16, 500  # bytes; brackets, in which the YAML parser takes quadratic time
_SHOWN = 64  # characters of a name in messages
MAPPING_EXAMPLE = '{"left_knee": "LeftLeg", "spine2": ["Spine", "Spine1", 0.5], ...}'


@dataclass(frozen=True)
class Rig:
    """A naming convention.

    Args:
        name: name of the rig in reports and for `mapping`.
        joints: joint of the skeleton -> sources, of which the first available one is used; names as from [`plain`].
        marker: pattern that one of the recording's names must match.
        skeleton: layout of the joints.
    """

    name: str
    joints: Mapping[str, tuple[Source, ...]]
    marker: str = ""
    skeleton: Skeleton = HUMANML3D


@dataclass(frozen=True)
class RigMatch:
    """A match of a recording's names.

    Args:
        rig: name of the convention, or of the mapping file.
        skeleton: layout of the joints.
        sources: joint -> (name, name, fraction) in the recording's names; equal names for a single joint.
    """

    rig: str
    skeleton: Skeleton
    sources: dict[str, Between]

    @property
    def between(self) -> list[str]:
        """Joints that lie between two joints of the recording."""
        return [joint for joint, (first, second, _) in self.sources.items() if first != second]

    @property
    def repeated(self) -> list[tuple[str, str]]:
        """Pairs of joints that have the same source."""
        first: dict[Between, str] = {}
        known = [(first.setdefault(source, joint), joint) for joint, source in self.sources.items()]
        return [(one, other) for one, other in known if one != other]

    def apply(self, positions: np.ndarray, names: Sequence[str]) -> np.ndarray:
        """Compute (T, J, 3) positions of the skeleton from (T, N, 3) positions of `names`."""
        index = {name: place for place, name in enumerate(names)}
        chosen = [self.sources[joint] for joint in self.skeleton.joint_names]
        first = positions[:, [index[name] for name, _, _ in chosen]]
        second = positions[:, [index[name] for _, name, _ in chosen]]
        return first + np.array([fraction for _, _, fraction in chosen])[:, None] * (second - first)


_LIMB_NAMES = {"hip": "upleg", "knee": "leg", "ankle": "foot"}
_LIMB_NAMES |= {"collar": "shoulder", "shoulder": "arm", "elbow": "forearm", "wrist": "hand"}


def _limbs(toe: tuple[str, ...]) -> dict[str, tuple[Source, ...]]:
    """Return the names of hips, legs and arms in MotionBuilder, CMU's conversion, Mixamo and LAFAN1."""
    joints: dict[str, tuple[Source, ...]] = {"pelvis": ("hips",)}
    for side in SIDES:
        joints |= {f"{side}_{joint}": (f"{side}{name}",) for joint, name in _LIMB_NAMES.items()}
        joints[f"{side}_foot"] = tuple(f"{side}{name}" for name in toe)
    return joints


def _spine(spine1: Source, spine2: Source, spine3: Source, neck: Source = "neck") -> dict[str, tuple[Source, ...]]:
    spine: dict[str, tuple[Source, ...]] = {"spine1": (spine1,), "spine2": (spine2,), "spine3": (spine3,)}
    necks: tuple[Source, ...] = (neck, (spine3, "head", 0.5)) if isinstance(spine3, str) else (neck,)
    return spine | {"neck": necks, "head": ("head",)}


def _sided(pelvis: str, **words: str) -> dict[str, tuple[Source, ...]]:
    """Return the pelvis and the limbs by their words, each of which has its side in full or as a letter."""
    joints: dict[str, tuple[Source, ...]] = {"pelvis": tuple(pelvis.split())}
    for joint, options in words.items():
        for side in SIDES:
            names = ([f"{side}{word}", f"{word}{side[0]}", f"{side[0]}{word}"] for word in options.split())
            joints[f"{side}_{joint}"] = tuple(name for group in names for name in group)
    return joints


def _collars(collar: str, shoulder: str, pattern: str) -> dict[str, tuple[Source, ...]]:
    """Return collars on the way to the arms, for rigs whose own are at the last spine joint."""
    names = {side: [pattern.format(side=side, word=word, s=side[0]) for word in (collar, shoulder)] for side in SIDES}
    return {f"{side}_collar": ((first, second, 0.4),) for side, (first, second) in names.items()}


_TOES = ("toebase", "toe", "footend")
_MOTIONBUILDER = _limbs(_TOES)
_SPINES = (
    _spine("spine", ("spine1", "spine2", 0.5), "spine3"),
    _spine("spine", "spine1", "spine2"),
    _spine("spine", ("spine", "spine1", 0.5), "spine1"),
)
# The CMU conversion has neck and shoulders at the last spine joint. Bones without length do not show the pose, so
# collars lie on the way to the arms and the neck is the joint above.
_CMU = (
    _limbs(_TOES)
    | {f"{side}_collar": ((f"{side}shoulder", f"{side}arm", 0.4),) for side in SIDES}
    | _spine("spine", ("spine", "spine1", 0.6), "spine1", "neck1")
)
# Unity's humanoid and Bandai-Namco.
_UNITY = _sided(
    "hips",
    **{"hip": "upperleg", "knee": "lowerleg", "ankle": "foot", "foot": "toes toe toebase footend"},
    **{"collar": "shoulder", "shoulder": "upperarm", "elbow": "lowerarm", "wrist": "hand"},
)
# 3ds Max's biped, Unreal's mannequin, iClone and Rigify.
_THIGH = _sided(
    "pelvis hip hips spine",
    **{"hip": "thigh", "knee": "calf shin", "ankle": "foot", "foot": "toe0 toebase ball toe footend"},
    **{"collar": "clavicle shoulder", "shoulder": "upperarm", "elbow": "forearm lowerarm", "wrist": "hand"},
)
# Daz and Poser.
_DAZ = _sided(
    "hip pelvis",
    **{"hip": "thigh thighbend", "knee": "shin", "ankle": "foot", "foot": "toe footend"},
    **{"shoulder": "shldr shldrbend", "elbow": "forearm forearmbend", "wrist": "hand"},
) | _collars("collar", "shldr", "{s}{word}")
# Joints named after the anatomy: Xsens, CMU's conversion for 3ds Max, and the first files of Biovision.
_ANATOMY = _sided(
    "hips",
    **{"hip": "hip upleg", "knee": "knee lowleg", "ankle": "ankle foot", "foot": "toe toeend ankleend footend"},
    **{"collar": "collar", "shoulder": "shoulder uparm", "elbow": "elbow lowarm", "wrist": "wrist hand"},
)
_CHESTS = (
    _spine("chest", "chest2", "chest4"),
    _spine("chest", "chest2", "lowerneck"),
    _spine("chest", ("chest", "chest2", 0.6), "chest2"),
    _spine("chest", ("chest", "neck", 0.35), ("chest", "neck", 0.5)),
)
# The bones of Acclaim's ASF files, each at its beginning; neck and collars as in CMU's conversion.
_ASF = _sided(
    "root hips",
    **{"hip": "femur", "knee": "tibia", "ankle": "foot", "foot": "toes footend"},
    **{"shoulder": "humerus", "elbow": "radius", "wrist": "wrist hand"},
) | _collars("clavicle", "humerus", "{s}{word}")
# MakeHuman's default rig, which counts its spine from above, and its older one.
_MAKEHUMAN = _sided(
    "root hips",
    **{"hip": "upperleg01 upleg", "knee": "lowerleg01 loleg", "ankle": "foot", "foot": "toe11 toe footend"},
    **{"collar": "clavicle", "shoulder": "upperarm01 uparm", "elbow": "lowerarm01 loarm", "wrist": "wrist hand"},
)
_SHORT = {joint: joint.replace("left_", "l").replace("right_", "r") for joint in HUMANML3D.joint_names}
_SMPL = {joint: tuple(name.replace("_", "") for name in (joint, short)) for joint, short in _SHORT.items()}
_SMPL["pelvis"] = ("pelvis", "hips")

RIGS = (
    Rig("cmu", _CMU, marker="^(lowerback|lhipjoint)$"),
    *(Rig("mixamo", _MOTIONBUILDER | spine, marker="mixamorig") for spine in _SPINES),
    Rig("lafan1", _limbs(("toe",)) | _SPINES[1], marker="^lefttoe$"),
    *(Rig("motionbuilder", _MOTIONBUILDER | spine) for spine in _SPINES),
    Rig("smpl", _SMPL),
    Rig("unity", _UNITY | _spine("spine", "chest", "upperchest")),
    Rig("unity", _UNITY | _spine("spine", "spine2", "chest")),
    Rig("unity", _UNITY | _spine("spine", ("spine", "chest", 0.5), "chest")),
    Rig("unreal", _THIGH | _spine("spine01", "spine03", "spine05", "neck01"), marker="^spine_?05$"),
    Rig("unreal", _THIGH | _spine("spine01", "spine02", "spine03", "neck01"), marker="^thigh_?l$"),
    Rig("iclone", _THIGH | _spine("waist", "spine01", "spine02", "necktwist01"), marker="^cc_base_"),
    *(Rig("biped", _THIGH | spine, marker=r"^bip0*\d") for spine in (*_SPINES[1:], _SPINES[0])),
    Rig(
        "rigify",
        _THIGH | _spine("spine001", "spine002", "spine003", "spine004") | {"head": ("spine006", "head")},
        marker="^spine001$",
    ),
    Rig("daz", _DAZ | _spine("abdomen", ("abdomen", "chest", 0.6), "chest"), marker="shldr"),
    Rig(
        "daz",
        _DAZ | _spine("abdomenlower", ("abdomenlower", "chestlower", 0.6), "chestlower", "necklower"),
        marker="shldr",
    ),
    Rig(
        "3dsmax",
        _ANATOMY | _CHESTS[2] | _collars("collar", "shoulder", "{side}{word}"),
        marker="^(lowerback|lhipjoint)$",
    ),
    Rig("asf", _ASF | _spine("upperback", ("upperback", "thorax", 0.6), "thorax", "upperneck"), marker="^lfemur$"),
    Rig("makehuman", _MAKEHUMAN | _spine("spine05", "spine03", "spine02", "neck01"), marker="^upperleg01"),
    Rig("makehuman", _MAKEHUMAN | _spine("spine1", "spine2", "spine3"), marker="^loleg_?[lr]$"),
    *(Rig("xsens", _ANATOMY | spine) for spine in _CHESTS),
    *(
        Rig(skeleton.name, {joint: (joint.replace("_", ""),) for joint in skeleton.joint_names}, skeleton=skeleton)
        for skeleton in SKELETONS.values()
        if skeleton is not HUMANML3D
    ),
)
RIG_NAMES = tuple(dict.fromkeys(rig.name for rig in RIGS))

_NAMESPACE = re.compile(r"^.*[:|]|^mixamorig\d*_?|^[mf]_avg_|^cc_base_|^bip0*\d+[ _]*|^(def|org)[-_.]", re.IGNORECASE)
_END = re.compile(rf"(?P<name>.*?)(?P<end>({END_SUFFIX}\d*)?)", re.DOTALL)
_NUMBER = re.compile(r"[_.]\d{2,4}$")


def plain(names: Sequence[str]) -> list[str]:
    """Return names without namespace, shared prefix and suffix, numbers that all of them have, case and punctuation.

    Example:
        >>> plain(["mixamorig:Hips", "mixamorig:LeftUpLeg"]), plain(["Model_Hips", "Model_Left_Up_Leg"])
        (['hips', 'leftupleg'], ['hips', 'leftupleg'])
    """
    parts = [_END.fullmatch(_NAMESPACE.sub("", name)) for name in names]
    bare = [part["name"] if part else name for part, name in zip(parts, names, strict=True)]
    if len(bare) > 1:
        shared = os.path.commonprefix(bare)
        start = max(shared.rfind(mark) for mark in "_-. ") + 1
        shared = os.path.commonprefix([name[start:][::-1] for name in bare])
        end = max(shared.rfind(mark) for mark in "_-. ") + 1
        bare = [name[start : len(name) - end] for name in bare]
        if sum(_NUMBER.search(name) is not None for name in bare) >= 0.9 * len(bare):
            bare = [_NUMBER.sub("", name) for name in bare]
    ends = (part["end"] if part else "" for part in parts)
    return [re.sub("[^a-z0-9]", "", (name + end).lower()) for name, end in zip(bare, ends, strict=True)]


def match_rig(
    names: Sequence[str],
    mapping: str | os.PathLike | Mapping[str, Any] | None = None,
    skeleton: Skeleton | None = None,
) -> RigMatch:
    """Find the skeleton's joints among the names of a recording.

    Args:
        names: names of the recording's joints.
        mapping: name of a built-in rig (`RIG_NAMES`), a mapping, or a JSON or YAML file with a mapping: joint of the
            skeleton -> name, or [name, name, fraction]. Other joints are taken from the nearest rig.
        skeleton: required layout; None: the one that matches best.

    Returns:
        A match with a source for every joint.

    Raises:
        FileNotFoundError: if the mapping file does not exist.
        ValueError: if joints are missing, or the mapping names joints that do not exist; the message lists them.

    Example:
        >>> match_rig([joint.replace("left", "L") for joint in HUMANML3D.joint_names]).rig
        'smpl'
    """
    own, label = _own_sources(names, mapping, skeleton)
    called: dict[str, list[str]] = {}
    for short, name in zip(plain(names), names, strict=True):
        called.setdefault(short, []).append(name)
    at_hand = {short: same[0] for short, same in called.items()}
    rigs = [rig for rig in RIGS if skeleton in (None, rig.skeleton)]
    if isinstance(mapping, str) and mapping in RIG_NAMES:
        rigs = [rig for rig in rigs if rig.name == mapping]
        if not rigs and skeleton is not None:
            raise ValueError(f"mapping: the rig {mapping!r} is not for {skeleton.name!r}; pass only one of them")
    else:
        marked = [rig for rig in rigs if not rig.marker or _is_marked(rig, names, at_hand)]
        rigs = [rig for rig in marked if not own or set(own) <= set(rig.skeleton.joint_names)] or marked
    found = [(rig, _sources(rig, at_hand) | own) for rig in rigs]
    rig, sources = max(found, key=lambda item: len(item[1]) / item[0].skeleton.num_joints)
    missing = [joint for joint in rig.skeleton.joint_names if joint not in sources]
    if missing:
        _complain(rig, missing, names, forced=mapping == rig.name)
    _refuse_several_bodies(called, {joint: source for joint, source in sources.items() if joint not in own})
    return RigMatch(label or rig.name, rig.skeleton, {joint: sources[joint] for joint in rig.skeleton.joint_names})


def _refuse_several_bodies(called: Mapping[str, Sequence[str]], sources: Mapping[str, Between]) -> None:
    """Raise a `ValueError` if several of the recording's names, `called` the same, stand for one joint."""
    several = {same[0]: same for same in called.values() if len(same) > 1}
    for joint, (first, second, _) in sources.items():
        if (same := several.get(first) or several.get(second)) is not None:
            shown = " and ".join(name[:_SHOWN] for name in same[:3])
            raise ValueError(
                f"{shown} all stand for {joint}; split the file into one per body, or name the joints of one in a "
                f"mapping file (mapping='rig.json'): {MAPPING_EXAMPLE}"
            )


def _is_marked(rig: Rig, names: Sequence[str], at_hand: Mapping[str, str]) -> bool:
    return any(re.search(rig.marker, name, re.IGNORECASE) for name in (*names, *at_hand))


def _sources(rig: Rig, at_hand: Mapping[str, str]) -> dict[str, Between]:
    """Return the sources of a rig's joints in the recording's own names, for the joints that have one."""
    found = {}
    for joint, options in rig.joints.items():
        for option in options:
            first, second, fraction = (option, option, 0.0) if isinstance(option, str) else option
            if first in at_hand and second in at_hand:
                found[joint] = (at_hand[first], at_hand[second], fraction)
                break
    return found


def _complain(rig: Rig, missing: Sequence[str], names: Sequence[str], forced: bool) -> NoReturn:
    shown = ", ".join(name[:_SHOWN] for name in names[:40]) + (", ..." if len(names) > 40 else "")
    if len(missing) > rig.skeleton.num_joints // 2 and not forced:
        what = f"the joints match no known rig ({', '.join(RIG_NAMES)})"
    else:
        nearest = rig.name if forced else f"nearest rig: {rig.name}"
        what = f"{len(missing)} of {rig.skeleton.num_joints} joints are missing ({nearest})"
    raise ValueError(
        f"{what}: no source of {', '.join(missing)} among {shown}; name them in a mapping file "
        f"(mapping='rig.json'): {MAPPING_EXAMPLE}"
    )


def read_mapping(path: str | os.PathLike) -> dict[str, Any]:
    """Read a mapping file, JSON or YAML by its suffix."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such mapping; pass a JSON or YAML file, or one of {', '.join(RIG_NAMES)}")
    try:
        if path.stat().st_size > MAX_MAPPING:
            raise ValueError(f"more than {MAX_MAPPING:,} bytes")
        text = path.read_text(encoding="utf-8-sig")
        if text.count("[") + text.count("{") > MAX_BRACKETS:
            raise ValueError(f"more than {MAX_BRACKETS} brackets")
        if path.suffix.lower() in (".yaml", ".yml"):
            content = _parse_yaml(text)
        else:
            content = json.loads(text, object_pairs_hook=_without_repetition)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: malformed mapping ({error}); write it as {MAPPING_EXAMPLE}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: got a {type(content).__name__}; write the mapping as {MAPPING_EXAMPLE}")
    return content


def _without_repetition(pairs: Sequence[tuple[Any, Any]]) -> dict[Any, Any]:
    """Return pairs as a dictionary; a key that occurs twice raises a `ValueError`."""
    content = dict(pairs)
    if len(content) < len(pairs):
        repeated = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"{str(repeated)[:_SHOWN]!r} is named twice")
    return content


def _parse_yaml(text: str) -> Any:
    import yaml

    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if isinstance(node, yaml.MappingNode):
            _without_repetition([(key.value, None) for key, _ in node.value if isinstance(key, yaml.ScalarNode)])
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def _own_sources(
    names: Sequence[str], mapping: str | os.PathLike | Mapping[str, Any] | None, skeleton: Skeleton | None
) -> tuple[dict[str, Between], str | None]:
    """Return the sources of the user's mapping in the recording's names, and a label for it."""
    if mapping is None or (isinstance(mapping, str) and mapping in RIG_NAMES):
        return {}, None
    if isinstance(mapping, Mapping):
        content, label = mapping, "mapping"
    else:
        content, label = read_mapping(mapping), Path(mapping).name
    skeletons = list(SKELETONS.values()) if skeleton is None else [skeleton]
    joints = {joint for layout in skeletons for joint in layout.joint_names}
    at_hand = dict(zip(plain(names), names, strict=True)) | {name: name for name in names}
    sources: dict[str, Between] = {}
    for joint, source in content.items():
        if joint not in joints:
            raise ValueError(f"{label}: {joint!r} is no joint of {skeletons[0].name}; {_nearest(joint, joints)}")
        sources[joint] = _between(source, f"{label}: {joint}", at_hand)
    return sources, label


def _between(source: Any, where: str, at_hand: Mapping[str, str]) -> Between:
    pair: Any = [source, source, 0.0] if isinstance(source, str) else source
    named = isinstance(pair, (list, tuple)) and len(pair) == 3 and [type(part) for part in pair[:2]] == [str, str]
    if not named or isinstance(pair[2], bool) or not isinstance(pair[2], (int, float)) or not 0 <= pair[2] <= 1:
        raise ValueError(f"{where}: expected a name or [name, name, fraction from 0 to 1], got {reprlib.repr(source)}")
    for name in pair[:2]:
        if name not in at_hand and "".join(plain([name])) not in at_hand:
            near = _nearest(name, set(at_hand.values()))
            raise ValueError(f"{where}: the recording has no joint {name!r}; {near}")
    first, second = (at_hand.get(name) or at_hand["".join(plain([name]))] for name in pair[:2])
    return first, second, float(pair[2])


def _nearest(name: str, names: set[str]) -> str:
    known = sorted(name for name in names if len(name) <= _SHOWN)[:1000]  # difflib is slow on long texts
    close = difflib.get_close_matches(name[:_SHOWN], known, n=3, cutoff=0.4)
    return f"use one of {', '.join(close or known[:40])}"
