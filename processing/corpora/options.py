"""What a prepared corpus is made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

CORPUS_TEXT_MODEL = "corpus"  # a tokenizer built from the captions of the corpus
MIN_FRAMES = 8


@dataclass(frozen=True)
class PrepareOptions:
    """
    All that decides what [`prepare`] writes besides the corpus itself; recorded in `report.json`.

    Args:
        layout: `humanml3d` (also the synthetic corpus), `kit-ml`, or `files` for a folder of motion files of any
            format with a table of captions, see [`~processing.corpora.motion_files`].
        source_name: Name of the corpus in the column `source`; None: the name of its folder.
        splits: Split name -> file; only these are prepared, and None as file stands for the usual one. None: those of
            `train.txt`, `val.txt` (the split `validation`) and `test.txt` that exist.
        text_model: Whose tokenizer to use: `minilm`, a folder, a Hub name, or `corpus` for a small word-level one
            built from the training captions.
        processor: Folder of a fitted processor to use as it is; needed without a training split. None: fit one.
        representation: What the processor makes of a motion: `positions`, `humanml3d` (263 or 251 features) or
            `joint_angles`, see [`LexMotionFeatureExtractor`].
        max_frames: Frames the processor keeps of a motion.
        fps: Frame rate of the processor; None: the corpus's own. Stored motions keep theirs.
        vocabulary_filter: Which word pieces become dimensions of the lexicon: `corpus`, `words` or `all`.
        min_document_frequency: Captions a word must be in to count as seen by the filter `corpus`.
        extra_captions: JSON-lines files of `{"id", "captions"}` for the lexicon and the text-only corpus. Ids of the
            held-out splits are left out, those in the folder's own `val.txt` and `test.txt` included.
        exclude_ids: Files of further ids to leave out of the extra captions.
        mirror: `listed`, `derive` or `none`, see [`~processing.corpora.folders.CorpusFolder`].
        skip_shorter_than: Fewest frames of a motion or sub-range; shorter ones are skipped.
        skip_longer_than: Most frames of a motion or sub-range; None: no limit.
        row_group_size: Listed motions per Parquet row group, the unit of streaming and of the work.
    """

    layout: str = "humanml3d"
    source_name: str | None = None
    splits: Mapping[str, str | None] | None = None
    text_model: str = CORPUS_TEXT_MODEL
    processor: str | Path | None = None
    representation: str = "positions"
    max_frames: int = 224
    fps: float | None = None
    vocabulary_filter: str = "corpus"
    min_document_frequency: int = 1
    extra_captions: Sequence[str | Path] = ()
    exclude_ids: Sequence[str | Path] = ()
    mirror: str = "listed"
    skip_shorter_than: int = MIN_FRAMES
    skip_longer_than: int | None = None
    row_group_size: int = 64
