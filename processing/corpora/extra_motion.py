"""Motions for phase ii beside the splits of a corpus, with captions or without."""

from collections.abc import Iterator
from pathlib import Path

from ..text_mirroring import mirror_caption
from .folders import (
    DEFAULT_SPLITS,
    FEATURES,
    JOINTS,
    CorpusFolder,
    FolderLayout,
    SplitFiles,
    base_id_of,
    read_id_list,
)
from .records import MotionRecord

EXTRA_MOTION = "motion/train"  # in place of a split in blocks and reports, and the name of the file


class ExtraMotionFolder(CorpusFolder):
    """Reader of a folder of further motions: one record per motion, with all its captions, if it has any.

    Args:
        source: folder with `new_joints` or `new_joint_vecs`, and optionally `texts`; or a list of ids inside such a
            folder. The ids of a folder are those of its `train.txt`, else all of its motions without those of its
            `val.txt` and `test.txt`.
        layout: layout of the corpus whose motions these add to.
        min_frames, max_frames: see [`CorpusFolder`].

    Raises:
        FileNotFoundError: if the folder or its motions are missing.
        ValueError: if there are no ids.
    """

    def __init__(self, source: str | Path, layout: FolderLayout, min_frames: int, max_frames: int | None):
        given = Path(source)
        self.listing = given if given.is_file() else None
        if not given.is_dir() and self.listing is None:
            raise FileNotFoundError(f"extra_motion: no folder or list of ids {str(source)!r}; check the path")
        folder = given if self.listing is None else given.parent
        super().__init__(folder, layout, mirror="none", min_frames=min_frames, max_frames=max_frames)

    def _open(self, splits: SplitFiles | None) -> dict[str, list[Path]]:
        self._open_levels()
        if not self.motion_folders[-1]:
            remedy = f"check that it has the layout {self.layout.name!r}"
            raise FileNotFoundError(
                f"extra_motion: no folder {JOINTS} or {FEATURES} in {str(self.source)!r}; {remedy}"
            )
        usual = self.source / DEFAULT_SPLITS["train"]
        if self.listing is None and usual.is_file():
            self.listing = usual
        return {} if self.listing is None else {EXTRA_MOTION: [self.listing]}

    def ids(self, split: str = EXTRA_MOTION) -> list[str]:
        """Return the ids; a mirrored twin is left out, as training mirrors motions itself."""
        if self.listing is not None:
            ids = read_id_list(self.listing)
        else:
            held_out = {key for path in self.held_out_files().values() for key in read_id_list(path)}
            stems = {path.stem for folder in self.motion_folders[-1] for path in folder.glob("*.npy")}
            ids = sorted(stems - held_out)
        if not ids:
            raise ValueError(f"extra_motion: no motion in {str(self.source)!r}; check that it has .npy files")
        known = set(ids)
        return [
            motion_id for motion_id in ids if motion_id == base_id_of(motion_id) or base_id_of(motion_id) not in known
        ]

    def read(self, motion_id: str, split: str, source_clip: str) -> Iterator[MotionRecord]:
        motion_file, text_file = self._motion_path(motion_id), self._text_path(motion_id)
        if motion_file is None:
            return self._skip(split, motion_id, "missing motion file")
        crops = {} if text_file is None else self._read_captions(motion_id, split, *text_file)
        captions = list(dict.fromkeys(caption for texts in crops.values() for caption in texts))
        positions = self._read_positions(motion_id, split, *motion_file)
        if positions is None or not self._fits(motion_id, split, len(positions)):
            return None
        yield MotionRecord(
            id=motion_id,
            base_id=base_id_of(motion_id),
            source_clip=source_clip,
            mirrored=base_id_of(motion_id) != motion_id,
            start=0.0,
            end=len(positions) / self.skeleton.fps,
            positions=positions,
            fps=self.skeleton.fps,
            skeleton=self.skeleton.name,
            captions=captions,
            mirrored_captions=[mirror_caption(caption) for caption in captions],
            split="train",
            source=self.name,
        )
