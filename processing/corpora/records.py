"""A motion with its captions, as returned by every reader and stored in a prepared corpus."""

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class MotionRecord:
    """A motion, or a sub-range of one, and its captions.

    Args:
        id: unique in its corpus. A sub-range of motion `000123` is `000123@1.5-4`, a mirrored motion `M000123`.
        base_id: id without `M` and sub-range, equal for all records of the same movement.
        source_clip: the recording of `base_id` if given by the corpus, otherwise `base_id`.
        mirrored: whether left and right are exchanged relative to the recording.
        start: start of the sub-range in seconds of the stored motion.
        end: end of the sub-range in seconds of the stored motion.
        positions: (T, J, 3) float32 joint positions in metres, Y up; KIT-ML's published millimetres are converted.
        fps: frames per second.
        skeleton: name of the joint layout.
        captions: descriptions, in the order of the file.
        mirrored_captions: descriptions of the mirror image, in the same order.
        split: `train`, `validation`, `test` or another name given by the user.
        source: name of the corpus.
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
    """An item that a reader skipped: its split, its motion, one of a few fixed reasons, and the detail."""

    split: str
    id: str
    reason: str
    detail: str = ""
