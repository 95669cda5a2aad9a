"""KIT Motion-Language as Guo et al. publish it: 21 joints, published in millimetres, Y up, 12.5 frames a second."""

from collections.abc import Iterator
from pathlib import Path

from .folders import CorpusFolder, FolderLayout
from .records import MotionRecord

KIT_ML = FolderLayout(name="kit-ml", skeleton_name="kit-ml")


def read_kit_ml(source: str | Path, split: str = "train", **options) -> Iterator[MotionRecord]:
    """
    Yield the motions of one split of a KIT-ML folder.

    Args:
        source (`str` or `Path`): folder with `new_joints` or `new_joint_vecs`, `texts` and the split files.
        split (`str`): `train`, `validation`, `test`, or a name given in `splits`.
        options: passed to [`~processing.corpora.folders.CorpusFolder`].

    Yields:
        [`MotionRecord`]: positions (T, 21, 3) in metres, converted from the published millimetres.
    """
    options.setdefault("splits", {split: None})
    return CorpusFolder(source, KIT_ML, **options).records("validation" if split == "val" else split)
