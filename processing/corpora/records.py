"""One motion with its captions, as every reader gives it and as a prepared corpus stores it."""

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class MotionRecord:
    """
    One crop of one motion and the captions that describe it.

    Args:
        id (`str`): unique in its corpus. A sub-range of motion `000123` is `000123@1.5-4`, a mirrored motion
            `M000123`.
        base_id (`str`): the motion it was cut from, without `M` and sub-range: equal for everything that shows the
            same movement.
        source_clip (`str`): the recording `base_id` was cut from where the corpus says so, otherwise `base_id`.
        mirrored (`bool`): left and right are exchanged with regard to the recording.
        start, end (`float`): the crop in seconds of the stored motion.
        positions (`np.ndarray` of shape `(T, J, 3)`, float32): joint positions in **metres**, Y up (KIT-ML's
            published millimetres are converted).
        fps (`float`): frames a second.
        skeleton (`str`): name of the joint layout.
        captions (`list[str]`): descriptions, in the order of the file.
        mirrored_captions (`list[str]`): the same for the mirror image, one for one.
        split (`str`): `train`, `validation`, `test` or another name given by the user.
        source (`str`): name of the corpus.
    """

    id: str
    base_id: str
    source_clip: str
    mirrored: bool
    start: float
    end: float
    positions: np.ndarray = field(repr=False)
    fps: float
    skeleton: str
    captions: list[str]
    mirrored_captions: list[str]
    split: str
    source: str

    @property
    def num_frames(self) -> int:
        return len(self.positions)


@dataclass(frozen=True)
class Skipped:
    """Something a reader left out: its split, its motion, the reason in a few fixed words, and the detail."""

    split: str
    id: str
    reason: str
    detail: str = ""
