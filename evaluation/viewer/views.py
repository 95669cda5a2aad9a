"""Motions and the words a model reads in them as plain data, for the viewer in a browser (`viewer.js`).

Arrays are sent as base64 of small integers: 40 kB for ten seconds of a body, words and their maps included.
"""

import base64
import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from lexmotion.processing.skeletons import JOINT_PARTS, Skeleton, get_skeleton, part_names

from ..explain import Explanation

FOLDER = Path(__file__).parent
PREVIEW_FRAMES = 24
WORDS_SHOWN = 24


def encoded_bytes(array: np.ndarray) -> str:
    """Encode an array as little-endian bytes in base64."""
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")


def packed_motion(positions: np.ndarray, fps: float) -> dict[str, Any]:
    """
    Pack positions (T, J, 3) in metres into 16-bit integers: a millimetre up to 32 m from the origin.

    Returns:
        `frames`, `joints`, `fps`, `scale` (metres per unit) and `data`.

    Raises:
        ValueError: if the shape is not that of a motion, or a position is not finite.
    """
    if positions.ndim != 3 or positions.shape[-1] != 3 or not len(positions) or not np.isfinite(positions).all():
        raise ValueError(f"positions: expected finite numbers (frames, joints, 3), got {positions.shape}")
    scale = max(float(np.abs(positions).max()), 1.0) / 32767
    numbers = np.rint(positions / scale).astype("<i2")
    frames, joints = positions.shape[:2]
    return {"frames": frames, "joints": joints, "fps": float(fps), "scale": scale, "data": encoded_bytes(numbers)}


def preview(positions: np.ndarray, fps: float) -> dict[str, Any]:
    """Pack at most `PREVIEW_FRAMES` frames of a motion, for a small moving picture."""
    frames = np.unique(np.linspace(0, len(positions) - 1, PREVIEW_FRAMES).round().astype(int))
    seconds = max(len(positions) - 1, 1) / fps
    return packed_motion(positions[frames], max(len(frames) - 1, 1) / seconds)


def skeleton_view(skeleton: str | Skeleton, num_parts: int) -> dict[str, Any]:
    """
    Return the layout that a body is drawn by.

    Args:
        num_parts: body parts of the model's grid, 5 chains or 14 joint parts.

    Returns:
        `bones` (parent, joint), the `sides` they are coloured by, the body part each belongs to (-1: none), names of
        the parts, the `head` and the corners of the `trunk`.
    """
    layout = get_skeleton(skeleton)
    left = {left for left, _ in layout.mirror_pairs}
    right = {right for _, right in layout.mirror_pairs}
    name = layout.joint_names.index
    corners = ("left_shoulder", "right_shoulder", "right_hip", "left_hip")
    return {
        "bones": [list(bone) for bone in layout.bones],
        "sides": ["left" if joint in left else "right" if joint in right else "middle" for _, joint in layout.bones],
        "partOfBone": bone_parts(layout, num_parts),
        "parts": part_names(num_parts),
        "head": name("head"),
        "trunk": [name(corner) for corner in corners],
    }


def bone_parts(skeleton: Skeleton, num_parts: int) -> list[int]:
    """Return the body part of every bone; -1 in a grid whose parts are not those of the package."""
    if num_parts == len(skeleton.parts):
        owner = {joint: number for number, chain in enumerate(skeleton.parts.values()) for joint in chain[1:]}
        return [owner[joint] for _, joint in skeleton.bones]
    if num_parts == len(JOINT_PARTS):
        names = skeleton.joint_names
        return [JOINT_PARTS.index(_joint_part(names[parent], names[joint])) for parent, joint in skeleton.bones]
    return [-1] * len(skeleton.bones)


def _joint_part(parent: str, joint: str) -> str:
    """Return the one of `JOINT_PARTS` whose angle moves the bone from `parent` to `joint`."""
    side = joint.split("_")[0]
    parent = parent.removeprefix(f"{side}_")
    if side not in ("left", "right"):
        if joint in ("neck", "head"):
            return "neck_head"
        return "chest" if parent == "spine2" else "spine"
    if joint.endswith("_hip"):
        return "pelvis"
    if joint.endswith(("_collar", "_shoulder")):
        return f"{side}_collar"
    ends = {"shoulder": "shoulder", "elbow": "elbow_wrist", "hip": "hip"}
    return f"{side}_{ends.get(parent, 'knee_ankle')}"


def explained_view(
    positions: np.ndarray,
    fps: float,
    explanation: Explanation,
    query_words: Sequence[tuple[str, float]] = (),
    contributions: Mapping[str, float] | None = None,
    num_words: int = WORDS_SHOWN,
) -> dict[str, Any]:
    """
    Return a motion, its words and where each was read, beside the words of a query.

    Args:
        positions: (T, J, 3), as to be displayed.
        explanation: explanation of the motion.
        query_words: (word, weight) of the query, heaviest first.
        contributions: share of the score per shared word; None uses those of the explanation.
        num_words: number of the motion's words, besides all shared ones.

    Returns:
        `motion`; `words`, each with `weight`, `query`, `contribution`, `part`, `start`, `end`; `onlyQuery`; `maps` of
        the words in their order: 8-bit numbers (words, windows, parts), 255 being the largest score of the word.
    """
    if contributions is None:
        contributions = {item.word: item.contribution for item in explanation.shared}
    asked = dict(query_words)
    kept = [
        number
        for number, item in enumerate(explanation.words)
        if number < num_words or contributions.get(item.word, 0.0) > 0
    ]
    windows, parts = explanation.grid
    maps = explanation.maps[kept].reshape(len(kept), -1)
    tops = np.maximum(maps.max(axis=1, initial=0.0, keepdims=True), 1e-9)
    words = [explanation.words[number] for number in kept]
    here = {item.word for item in explanation.words}
    data = encoded_bytes(np.rint(255 * np.clip(maps / tops, 0, 1)).astype(np.uint8))
    return {
        "motion": packed_motion(positions, fps),
        "words": [
            {
                "word": item.word,
                "weight": round(item.weight, 4),
                "query": round(asked.get(item.word, 0.0), 4),
                "contribution": round(contributions.get(item.word, 0.0), 4),
                "part": item.part,
                "start": round(item.start, 3),
                "end": round(item.end, 3),
            }
            for item in words
        ],
        "onlyQuery": [[word, round(weight, 4)] for word, weight in query_words if word not in here][:num_words],
        "maps": {"windows": windows, "parts": parts, "windowSeconds": explanation.window_seconds, "data": data},
    }


def page(name: str, title: str, data: Mapping[str, Any], **fields: str) -> str:
    """
    Return a self-contained page: `viewer/NAME.html` with its style, its program and the viewer's embedded.

    Args:
        name: name of the page.
        title: title in words.
        data: content of `LEXMOTION_DATA` in its program.
        fields: other placeholders of the template, HTML.
    """
    files = ("viewer.css", "viewer.js", f"{name}.html", f"{name}.css", f"{name}.js")
    text = {file: (FOLDER / file).read_text(encoding="utf-8") for file in files}
    # "</" in a caption would end the script.
    content = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    content = content.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return Template(text[f"{name}.html"]).substitute(
        title=html.escape(title),
        style=text["viewer.css"] + text[f"{name}.css"],
        program=f"const LEXMOTION_DATA = {content};\n{text['viewer.js']}\n{text[f'{name}.js']}",
        **fields,
    )
