"""Options of the preparation of a corpus."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

CORPUS_TEXT_MODEL = "corpus"  # a tokenizer built from the captions of the corpus
MIN_FRAMES = 8


@dataclass(frozen=True)
class PrepareOptions:
    """Options that determine the output of [`prepare`]; recorded in `report.json`, and the command line's help.

    Args:
        layout: Layout of the corpus: humanml3d (also the synthetic one), kit-ml, or files for a folder of motion files
            of any format with a table of captions.
        source_name: Name of the corpus in the column `source`. By default the name of its folder.
        splits: Split name -> file, or several files whose ids add up; only these are prepared, and None selects the
            standard file. By default those of `train.txt`, `val.txt` (the split `validation`) and `test.txt` that
            exist.
        leave_out: Files of ids (one a line, or a .csv with a column id) that are prepared in no split, with their
            captions; for damaged clips. Mirrored twins are left out as well.
        overlay: Folders of the same layout whose motion and caption files replace SOURCE's of the same id, the last
            folder first. Split files can name ids that only an overlay has.
        text_model: Model of the tokenizer: corpus (a word-level one built from the captions), minilm (extra minilm), a
            folder or a Hub name.
        processor: Folder of a fitted processor to use unchanged; required without a training split. By default one is
            fitted.
        representation: Input of the model: positions, humanml3d (263 or 251 features) or joint_angles (14 body parts
            instead of 5).
        max_frames: Maximum frames per motion.
        fps: Frame rate of the model's input. By default the corpus's own; stored motions keep theirs.
        units: Unit of the motion files, only for the layout files: m, cm, mm, in, ft, cmu, or metres per unit. By
            default inferred from all files of a rig together.
        up: Up axis of the motion files, only for the layout files: y, z, x, -y, -z or -x. By default inferred from all
            files of a rig together.
        vocabulary_filter: Words of the lexical space: corpus, words or all.
        min_document_frequency: Minimum number of captions that contain a word of the filter corpus.
        captions: JSON-lines file of {id, captions} that replaces the captions of the corpus, for example to test a
            model on other words for the same motions. Motions without an entry are left out.
        whole_words: Add words that the tokenizer cuts into pieces (jo ##gs) to it as whole words, if at least this
            many captions, extra ones included, contain them; 0: none. Needs a text model of the BERT family.
        extra_captions: JSON-lines files of {id, captions} without motion, for lexicon and phase i. Ids of held-out
            splits, including the corpus's own val.txt and test.txt, are excluded.
        extra_motion: Folders in the layout of SOURCE, with or without texts, for phase ii (motion) and, like extra
            captions, for lexicon and phase i. Motions are those of train.txt, else all; or pass one list of ids in
            the folder. Ids of held-out splits are excluded.
        exclude_ids: Files of further ids whose extra captions and extra motions are excluded; ids of the splits are
            still prepared.
        mirror: Mirrored twins as rows: listed (those in the split files), derive (of every training motion) or none.
        skip_shorter_than: Minimum frames of a motion or sub-range; shorter ones are skipped.
        skip_longer_than: Maximum frames of a motion or sub-range; longer ones are skipped. By default unlimited.
        row_group_size: Listed motions per Parquet row group, the unit of streaming and of the work.
    """

    layout: str = "humanml3d"
    source_name: str | None = None
    splits: Mapping[str, str | Sequence[str] | None] | None = None
    leave_out: Sequence[str | Path] = ()
    overlay: Sequence[str | Path] = ()
    text_model: str = CORPUS_TEXT_MODEL
    processor: str | Path | None = None
    representation: str = "positions"
    max_frames: int = 224
    fps: float | None = None
    units: str | float | None = None
    up: str | None = None
    vocabulary_filter: str = "corpus"
    min_document_frequency: int = 1
    captions: str | Path | None = None
    whole_words: int = 0
    extra_captions: Sequence[str | Path] = ()
    extra_motion: Sequence[str | Path] = ()
    exclude_ids: Sequence[str | Path] = ()
    mirror: str = "listed"
    skip_shorter_than: int = MIN_FRAMES
    skip_longer_than: int | None = None
    row_group_size: int = 64

    def __post_init__(self) -> None:
        for name in ("max_frames", "min_document_frequency", "row_group_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}; pass at least 1")
        if self.whole_words < 0:
            raise ValueError(f"whole_words: got {self.whole_words}; pass 0 (none) or a number of captions")
