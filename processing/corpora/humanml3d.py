"""HumanML3D (Guo et al., CVPR 2022): 22 joints in metres, Y up, 20 frames a second."""

from collections.abc import Iterator
from pathlib import Path

from .folders import CorpusFolder, FolderLayout
from .records import MotionRecord

HUMANML3D = FolderLayout(name="humanml3d", skeleton_name="humanml3d")


def read_humanml3d(source: str | Path, split: str = "train", **options) -> Iterator[MotionRecord]:
    """
    Yield the motions of one split of a HumanML3D folder.

    Args:
        source (`str` or `Path`): folder with `new_joints` or `new_joint_vecs`, `texts` and the split files.
        split (`str`): `train`, `validation`, `test`, or a name given in `splits`.
        options: passed to [`~processing.corpora.folders.CorpusFolder`].

    Yields:
        [`MotionRecord`]: positions (T, 22, 3) in metres.
    """
    options.setdefault("splits", {split: None})
    return CorpusFolder(source, HUMANML3D, **options).records("validation" if split == "val" else split)
