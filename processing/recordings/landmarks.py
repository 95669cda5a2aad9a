"""Read the landmarks of MediaPipe Pose from JSON: 33 per frame, in metres around the hips, y down.

MediaPipe defines no file format, so common forms are read: a list of frames, alone or as `frames` beside `fps`;
a frame as a list of landmarks, or an object that names them as one of `_WORLD`; landmarks as objects
with `x`, `y` and `z`, as lists of at least three numbers, or as one object by their names. The landmarks in the image,
which contain no depth in metres, are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..skeletons import HUMANML3D
from .detection import Fact
from .json_files import as_number, parse_json
from .marker_sets import LONGEST_GAP, fill_gaps, joints_from_landmarks
from .options import ReadingOptions
from .recording import Problem, Recording, check_values, stated_fps

_SIDED = ("eye_inner", "eye", "eye_outer")
_NAMES = (
    "nose",
    *(f"{side}_{name}" for side in ("left", "right") for name in _SIDED),
    *(
        f"{side}_{name}"
        for name in (
            *("ear", "mouth", "shoulder", "elbow", "wrist", "pinky", "index", "thumb"),
            *("hip", "knee", "ankle", "heel", "foot_index"),
        )
        for side in ("left", "right")
    ),
)
_NUMBER = {name: number for number, name in enumerate(_NAMES)}
_WORLD = ("poseworldlandmarks", "worldlandmarks", "landmarksworld", "landmarks3d", "keypoints3d")
_IMAGE = ("poselandmarks", "landmarks", "normalizedlandmarks", "keypoints")
_FRAMES = ("frames", "data", "results", "poses")
_RATES = ("fps", "framerate", "frame_rate")
_TIMES = {"timestampms": 0.001, "timems": 0.001, "time": 1.0, "times": 1.0, "t": 1.0, "timestamp": 1.0}
_USED = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle", "heel", "foot_index", "ear")
_CENTRED = 0.05  # metres between the hips' middle and the origin of world landmarks
_EXAMPLE = '{"fps": 30, "frames": [{"pose_world_landmarks": [{"x": 0.1, "y": -0.5, "z": 0.0}, ...]}, ...]}'


def _plain(name: Any) -> str:
    return str(name).lower().replace("_", "").replace("-", "")


_PLAIN = tuple(map(_plain, _NAMES))


def landmarks_recording(path: Path, options: ReadingOptions) -> Recording:
    """Read landmarks as a recording of HumanML3D's joints."""
    content = parse_json(path.read_bytes(), str(path))
    frames, rate, named = _frames(content, path)
    check_values(3 * len(_NAMES) * len(frames), str(path))
    points = np.full((len(frames), len(_NAMES), 3), np.nan)
    for number, frame in enumerate(frames):
        landmarks, world = _landmarks(frame, number, path)
        named = named or world
        if landmarks is not None:
            points[number] = _points(landmarks, number, path)
    if np.isnan(points).all():
        raise ValueError(f"{path}: no landmarks in any of {len(frames)} frames; save them as {_EXAMPLE}")
    _check_world(points, named, path)
    where = "fps" if rate is not None else "times of the frames"
    rate = rate if rate is not None else _times(frames)
    recording = _recording(points, rate or 30.0)
    if rate is not None:
        stated_fps(recording, rate, f"the frame rate is {rate:g}", where, options.fps is not None)
    return recording


def _frames(content: Any, path: Path) -> tuple[list[Any], float | None, bool]:
    """Return the frames, the frame rate and whether the landmarks are named as those of the world."""
    rate, named = None, False
    if isinstance(content, dict):
        rate = next((as_number(content[name]) for name in _RATES if name in content), None)
        found = {_plain(name): value for name, value in content.items()}
        place = next((name for name in (*_WORLD, *_FRAMES, *_IMAGE) if isinstance(found.get(name), list)), None)
        if place is None:
            shown = ", ".join(str(name)[:40] for name in list(content)[:10])
            raise ValueError(f"{path}: no list of frames, got {shown}; save landmarks as {_EXAMPLE}")
        if place in _IMAGE:
            raise ValueError(f"{path}: {_only_image(place)}")
        named, content = place in _WORLD, found[place]
    if not isinstance(content, list) or not content:
        raise ValueError(f"{path}: got no frames; save landmarks as {_EXAMPLE}")
    return content, rate, named


def _only_image(name: str) -> str:
    return f"{name} are positions in the image; save the world landmarks, which are in metres, as {_EXAMPLE}"


def _landmarks(frame: Any, number: int, path: Path) -> tuple[Any, bool]:
    """Return the landmarks of a frame, None if no person is found, and whether they are named those of the world."""
    named = False
    if isinstance(frame, dict) and not any(_plain(name) in _PLAIN for name in frame):
        found = {_plain(name): value for name, value in frame.items()}
        place = next((name for name in (*_WORLD, "landmarks") if name in found), None)
        image = next((name for name in _IMAGE if found.get(name)), None)
        if place is None and image is not None:
            raise ValueError(f"{path}, frame {number}: {_only_image(image)}")
        named, frame = place in _WORLD, None if place is None else found[place]
    if isinstance(frame, dict) and len(frame) == 1 and isinstance(next(iter(frame.values())), list):
        frame = next(iter(frame.values()))  # {"landmark": [...]}
    if isinstance(frame, list) and frame and isinstance(frame[0], list) and len(frame[0]) == len(_NAMES):
        if len(frame) > 1 and len(frame) != len(_NAMES):
            raise ValueError(f"{path}, frame {number}: {len(frame)} people; save one file per person")
        frame = frame[0] if len(frame) == 1 else frame
    return (frame or None), named


def _points(landmarks: Any, number: int, path: Path) -> np.ndarray:
    """Return the (33, 3) landmarks of a frame."""
    if isinstance(landmarks, dict):
        by_name = {_plain(name): value for name, value in landmarks.items()}
        landmarks = [by_name.get(name) for name in _PLAIN]
    if not isinstance(landmarks, list) or len(landmarks) != len(_NAMES):
        count = len(landmarks) if isinstance(landmarks, list) else "no list of"
        raise ValueError(f"{path}, frame {number}: got {count} landmarks; MediaPipe Pose has {len(_NAMES)}")
    return np.array([_point(landmark) for landmark in landmarks])


def _point(landmark: Any) -> list[float]:
    if isinstance(landmark, Mapping):
        return [as_number(landmark.get(axis)) for axis in "xyz"]
    values = landmark if isinstance(landmark, list) and len(landmark) >= 3 else [None] * 3
    return [as_number(value) for value in values[:3]]


def _check_world(points: np.ndarray, named: bool, path: Path) -> None:
    """Refuse landmarks in the image, in which the hips are not at the origin."""
    hips = points[:, [_NUMBER["left_hip"], _NUMBER["right_hip"]]].mean(axis=1)
    away = np.nanmedian(np.linalg.norm(hips, axis=-1)) if np.isfinite(hips).any() else np.nan
    if not named and not away < _CENTRED:
        raise ValueError(f"{path}: the hips are {away:.2g} from the origin, so these {_only_image('landmarks')}")


def _times(frames: list[Any]) -> float | None:
    """Return the frame rate by the times that frames contain."""
    first = frames[0]
    name = next((name for name in (first if isinstance(first, dict) else ()) if _plain(name) in _TIMES), None)
    if name is None or len(frames) < 2 or not all(isinstance(frame, dict) for frame in frames):
        return None
    scale = _TIMES[_plain(name)]
    times = np.array([as_number(frame.get(name)) for frame in frames])
    steps = np.diff(times) * scale
    if scale == 1.0 and _plain(name) == "timestamp" and np.median(steps) > 1:  # MediaPipe's own are milliseconds
        steps *= 0.001
    step = float(np.median(steps)) if np.isfinite(steps).all() else 0.0
    return 1 / step if step > 0 else None


def _recording(points: np.ndarray, rate: float) -> Recording:
    marks = {f"{side}_{name}": points[:, _NUMBER[f"{side}_{name}"]] for name in _USED for side in ("left", "right")}
    filled = fill_gaps(marks, rate)
    positions = joints_from_landmarks({name.replace("foot_index", "toe_tip"): place for name, place in marks.items()})
    units, up = (Fact(value, "read", "MediaPipe's world landmarks") for value in ("m", "-y"))
    recording = Recording("MediaPipe landmarks", positions, HUMANML3D.joint_names, units=units, up=up)
    recording.problems.append(
        Problem("note", "MediaPipe's landmarks contain no global translation, so the hips stay in place")
    )
    if filled:
        recording.problems.append(
            Problem("note", f"{filled} landmarks in gaps of at most {LONGEST_GAP:g} s were interpolated")
        )
    return recording
