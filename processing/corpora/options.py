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

    The command line shows these texts, too.

    Args:
        layout: Layout of the corpus: humanml3d (also the synthetic one), kit-ml, or files for a folder of motion files
            of any format with a table of captions.
        source_name: Name of the corpus in the column `source`. By default the name of its folder.
        splits: Split name -> file; only these are prepared, and None as file stands for the usual one. By default
            those of `train.txt`, `val.txt` (the split `validation`) and `test.txt` that exist.
        text_model: Whose tokenizer to use: corpus (a word-level one built from the captions), minilm (extra minilm), a
            folder or a Hub name.
        processor: Folder of a fitted processor to use as it is; needed without a training split. By default one is
            fitted.
        representation: What the model sees: positions, humanml3d (263 or 251 features) or joint_angles (14 body parts
            in place of 5).
        max_frames: Frames kept of a motion.
        fps: Frame rate of the model's input. By default the corpus's own; stored motions keep theirs.
        vocabulary_filter: Words the space may use: corpus, words or all.
        min_document_frequency: Captions a word must be in to count as seen by the filter corpus.
        extra_captions: JSON-lines files of {id, captions} without motion, for lexicon and phase i. Ids of held-out
            splits are left out, those in the corpus's own val.txt and test.txt included.
        exclude_ids: Files of further ids whose extra captions are left out.
        mirror: Mirrored twins as rows: listed (those in the split files), derive (of every training motion) or none.
        skip_shorter_than: Fewest frames of a motion or sub-range; shorter ones are skipped.
        skip_longer_than: Most frames of a motion or sub-range. By default there is no limit.
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
