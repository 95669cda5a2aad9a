"""Choose one of the motions of an array that holds several, as generators of motion save them.

| shape | from |
|---|---|
| (B, T, J, 3) | most generators, also with B = 1 |
| (B, J, 3, T) and (J, 3, T) | MDM, alone or as `motion` in its `results.npy` |
| (B, T, F) and (B, F, 1, T) | published features |

A motion that is shorter than the array is followed by padding, which is left out: where the file contains lengths, as
they say, else frames of zeros at the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..skeletons import SKELETONS
from .pickled import as_array
from .recording import Problem, SeveralMotionsError

_JOINTS = {(layout.num_joints, 3) for layout in SKELETONS.values()}
_FEATURES = {layout.num_features for layout in SKELETONS.values()}
_MOTION_NAMES = ("motion", "motions", "joints", "positions")
LENGTH_NAMES = ("lengths", "length", "m_lens", "m_length")


def is_batch(shape: Sequence[int]) -> bool:
    """Whether an array of this shape holds several motions, or one in another order of its axes."""
    return _frames_axis(tuple(shape)) is not None


def _frames_axis(shape: tuple[int, ...]) -> int | None:
    """Return the axis of the frames in an array of several motions; 2 in (J, 3, T), which is one motion."""
    if len(shape) == 4 and shape[2:] in _JOINTS:
        return 1
    if len(shape) == 4 and (shape[1:3] in _JOINTS or (shape[1] in _FEATURES and shape[2] == 1)):
        return 3
    if len(shape) == 3 and shape[1:] not in _JOINTS:
        return 1 if shape[2] in _FEATURES else 2 if shape[:2] in _JOINTS else None
    return None


def motions_of(content: Any) -> tuple[Any, Any]:
    """Return the motions and lengths of an unpickled array of objects: a dictionary such as MDM's, or motions.

    Raises:
        ValueError: if it contains no array of motions.
    """
    content = as_array(content)
    if isinstance(content, list) and len(content) == 1 and isinstance(content[0], dict):
        content = content[0]
    if isinstance(content, dict):
        motion, lengths = (
            next((as_array(content[key]) for key in names if key in content), None)
            for names in (_MOTION_NAMES, LENGTH_NAMES)
        )
        if motion is None:
            shown = ", ".join(str(key)[:40] for key in list(content)[:10])
            raise ValueError(f"no array named {' or '.join(_MOTION_NAMES)}, got {shown}")
        return motion, lengths
    return content, None


def choose_motion(content: Any, lengths: Any, key: str | None, what: str) -> tuple[np.ndarray, Problem | None]:
    """Return a motion as (T, J, 3), (T, 3 J) or (T, F), and a note if padding is left out.

    Args:
        content: an array of one or several motions, or a list of motions.
        lengths: number of frames of each motion, None if the file does not contain it.
        key: number of the motion, from 0; None: the only one.
        what: name of the file in messages.

    Raises:
        SeveralMotionsError: if there are several motions and no key.
        ValueError: if the motion does not exist, or the lengths do not fit.
    """
    try:
        motions = list(_motions(content))
    except ValueError as error:
        raise ValueError(f"{what}: {error}; save motions as arrays") from error
    if len(motions) == 1 and motions[0].ndim < 2:
        return motions[0], None  # which is refused for its shape
    if not motions or min(motion.ndim for motion in motions) < 2:
        raise ValueError(f"{what}: no motions, or items that are not arrays; save the motions again")
    if key is None and len(motions) == 1:
        key = "0"
    ends = _lengths(lengths, motions, what)
    if key is None:
        shown = ", ".join(map(str, ends[:10])) + (", ..." if len(ends) > 10 else "")
        message = f"{what}: {len(motions)} motions of {shown} frames; pass key=... with a number from 0"
        raise SeveralMotionsError(f"{message} to {len(motions) - 1}", [str(n) for n in range(len(motions))])
    if len(motions) == 1 and key != "0":
        raise ValueError(f"{what}: the array is one motion; remove key={key[:40]!r}")
    if not key.isdecimal() or len(key) > 9 or int(key) >= len(motions):
        raise ValueError(f"{what}: no motion {key[:20]!r}; pass key=... with a number from 0 to {len(motions) - 1}")
    motion, end = motions[int(key)], ends[int(key)]
    if end == len(motion):
        return motion, None
    return motion[:end], Problem("note", f"frames {end} to {len(motion) - 1} are padding and were left out")


def _motions(content: Any) -> Iterator[np.ndarray]:
    if isinstance(content, list):
        for item in content:
            yield from _motions(item if isinstance(item, np.ndarray) else _array(item))
        return
    array = content if isinstance(content, np.ndarray) else _array(content)
    axis = _frames_axis(array.shape)
    if axis == 1:
        yield from array
    elif axis == 3:
        yield from map(_in_order, array)
    else:
        yield array if axis is None else array.transpose(2, 0, 1)


def _in_order(motion: np.ndarray) -> np.ndarray:
    """Turn (J, 3, T) to (T, J, 3), and (F, 1, T) to (T, F)."""
    turned = motion.transpose(2, 0, 1)
    return turned[..., 0] if turned.shape[2] == 1 else turned


def _array(value: Any) -> np.ndarray:
    array = as_array(value)
    if not isinstance(array, np.ndarray):
        raise ValueError(f"expected an array of a motion, got {type(array).__name__}")
    return array


def _lengths(lengths: Any, motions: Sequence[np.ndarray], what: str) -> list[int]:
    """Return the number of frames of each motion."""
    if lengths is None:
        return [_without_zeros(motion) for motion in motions]
    found = as_array(lengths)
    whole = [number for number in found if isinstance(number, int)] if isinstance(found, (list, tuple)) else []
    numbers = found.reshape(-1) if isinstance(found, np.ndarray) else np.array(whole, dtype=object)
    if numbers.dtype.kind not in "iuO" or len(numbers) != len(motions):
        raise ValueError(f"{what}: got {len(numbers)} lengths for {len(motions)} motions; save one per motion")
    ends = numbers.tolist()
    for number, (end, motion) in enumerate(zip(ends, motions, strict=True)):
        if not 0 < end <= len(motion):
            raise ValueError(f"{what}: motion {number} has the length {end}; it has {len(motion)} frames")
    return ends


def _without_zeros(motion: np.ndarray) -> int:
    """Return the number of frames up to the last that is not all zeros; all frames if there is none."""
    if not len(motion) or motion[-1].any():
        return len(motion)
    some = np.flatnonzero(motion.reshape(len(motion), -1).any(axis=1))
    return int(some[-1]) + 1 if len(some) else len(motion)
