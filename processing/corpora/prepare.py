"""
From a corpus folder to what training reads: Parquet splits and the fitted processor.

    data/{train,validation,test}-00000-of-0000N.parquet    one row a motion, see `corpus_features`
    text/train.parquet                                     captions for text-only training, with the extra ones
    processor/                                             tokenizer, motion statistics and lexicon, from train only
    report.json                                            what was read, what was skipped and why, fingerprint

Motions are stored as joint positions in metres, flattened joint by joint. The folder appears complete or not at all;
the same input and options give the same bytes, and a folder that already holds them is left alone.
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Array2D, DatasetDict, Features, IterableDatasetDict, List, Value, load_dataset
from datasets.features.features import Array2DExtensionType
from tqdm.auto import tqdm
from transformers import AutoTokenizer
from transformers.utils import logging

from ..feature_extraction_lexmotion import LexMotionFeatureExtractor
from ..lexicon import Lexicon
from ..processing_lexmotion import LexMotionProcessor
from ..skeletons import Skeleton
from ..text_models import resolve_text_model
from .folders import DEFAULT_SPLITS, MIN_FRAMES, CorpusFolder, FolderLayout, base_id_of, read_ids
from .humanml3d import HUMANML3D
from .kit_ml import KIT_ML
from .records import MotionRecord
from .text_mirroring import mirror_caption
from .word_tokenizer import train_tokenizer

logger = logging.get_logger(__name__)

FORMAT_VERSION = 1
LAYOUTS: dict[str, FolderLayout] = {layout.name: layout for layout in (HUMANML3D, KIT_ML)}

# Trains a tokenizer on the captions of the corpus.
CORPUS_TEXT_MODEL = "corpus"

_SHARD_BYTES = 256 * 2**20
_WORD = re.compile("[a-z]+")


def corpus_features(skeleton: Skeleton) -> Features:
    """
    Columns of a prepared split.

    `motion` is (T, J * 3) float32: joint positions in metres, joint-major (x, y, z of joint 0 first). `base_id` and
    `source_clip` tell which rows show the same movement or come from the same recording, `mirrored` which rows are
    mirror images; `mirrored_captions` describe the mirror image of the row.
    """
    text = Value("string")
    return Features(
        {
            "id": text,
            "base_id": text,
            "source_clip": text,
            "mirrored": Value("bool"),
            "start": Value("float32"),
            "end": Value("float32"),
            "motion": Array2D((None, skeleton.num_joints * 3), "float32"),
            "num_frames": Value("int32"),
            "fps": Value("float32"),
            "skeleton": text,
            "captions": List(text),
            "mirrored_captions": List(text),
            "split": text,
            "source": text,
        }
    )


TEXT_FEATURES = Features(
    {"id": Value("string"), "captions": List(Value("string")), "mirrored_captions": List(Value("string"))}
)


@dataclass
class PrepareReport:
    """
    What [`prepare`] did; saved as `report.json`.

    Args:
        fingerprint (`str`): hash of every input byte and option.
        layout, source, skeleton (`str`), fps (`float`): what the motions are.
        options (`dict`): as given.
        splits (`dict`): of each split: motions listed and written, mirrored ones, captions, frames, seconds.
        skipped (`list[dict]`): `split`, `id`, `reason`, `detail` of everything left out.
        skipped_by_reason (`dict[str, int]`): counts of the same.
        shared (`dict[str, dict[str, int]]`): base motions and source clips that two splits have in common.
        text (`dict`): rows of the text-only corpus and how many extra ones were left out.
        processor (`dict`): where it comes from and its hashes.
        files (`dict[str, int]`): size of every file written.
        reused (`bool`): nothing had to be done; not saved.
    """

    fingerprint: str
    layout: str
    source: str
    skeleton: str
    fps: float
    options: dict[str, Any]
    splits: dict[str, dict[str, Any]] = field(default_factory=dict)
    skipped: list[dict[str, str]] = field(default_factory=list)
    skipped_by_reason: dict[str, int] = field(default_factory=dict)
    shared: dict[str, dict[str, int]] = field(default_factory=dict)
    text: dict[str, int] = field(default_factory=dict)
    processor: dict[str, Any] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)
    reused: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The report as it is saved."""
        values = asdict(self)
        del values["reused"]
        return {"format_version": FORMAT_VERSION, **values}

    @classmethod
    def load(cls, folder: str | Path) -> "PrepareReport":
        """Read the report of a prepared folder."""
        path = Path(folder) / "report.json"
        if not path.is_file():
            raise FileNotFoundError(
                f"{folder} is not a prepared corpus (no report.json): run `lexmotion prepare` first."
            )
        values = json.loads(path.read_text(encoding="utf-8"))
        version = values.pop("format_version", None)
        if version != FORMAT_VERSION:
            raise ValueError(
                f"{path} has format {version}, this version reads {FORMAT_VERSION}: prepare the corpus again."
            )
        return cls(**values)

    def summary(self) -> str:
        """A few lines for a person."""
        lines = [
            f"{name}: {split['motions']} of {split['listed']} motions, "
            f"{split['captions']} captions, {split['seconds'] / 60:.1f} min"
            for name, split in self.splits.items()
        ]
        if self.skipped:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.skipped_by_reason.items())
            lines.append(f"skipped: {reasons}")
        return "\n".join(lines)


class _SplitWriter:
    """Write records to Parquet shards with small row groups, without holding more than one group."""

    def __init__(self, folder: Path, split: str, features: Features, row_group_size: int):
        self.folder, self.split, self.row_group_size = folder, split, row_group_size
        self.features = features
        self.schema = features.arrow_schema
        self.rows: list[MotionRecord] = []
        self.writer: pq.ParquetWriter | None = None
        self.shards: list[Path] = []
        self.bytes_in_shard = 0

    def add(self, record: MotionRecord) -> None:
        self.rows.append(record)
        if len(self.rows) == self.row_group_size:
            self._flush()

    def close(self) -> None:
        self._flush()
        if self.writer is None and not self.shards:
            self._open()
        self._close_shard()
        for number, shard in enumerate(self.shards):
            shard.rename(self.folder / f"{self.split}-{number:05d}-of-{len(self.shards):05d}.parquet")

    def _open(self) -> pq.ParquetWriter:
        path = self.folder / f"{self.split}-{len(self.shards):05d}.partial"
        self.shards.append(path)
        self.writer = pq.ParquetWriter(path, self.schema, compression="zstd", use_dictionary=False)
        return self.writer

    def _close_shard(self) -> None:
        if self.writer is not None:
            self.writer.close()
            self.writer = None
            self.bytes_in_shard = 0

    def _flush(self) -> None:
        if not self.rows:
            return
        writer = self.writer or self._open()
        table = pa.Table.from_arrays([self._column(name) for name in self.schema.names], schema=self.schema)
        writer.write_table(table, row_group_size=self.row_group_size)
        self.bytes_in_shard += table.nbytes
        self.rows = []
        if self.bytes_in_shard >= _SHARD_BYTES:
            self._close_shard()

    def _column(self, name: str) -> pa.Array:
        if name != "motion":
            values = [getattr(record, name) for record in self.rows]
            return pa.array(values, type=self.schema.field(name).type)
        motion_type = self.schema.field(name).type
        width = self.features["motion"].shape[1]
        frames = np.array([record.num_frames for record in self.rows])
        flat = np.concatenate([record.positions.reshape(-1) for record in self.rows])
        per_frame = pa.ListArray.from_arrays(
            pa.array(np.arange(0, len(flat) + 1, width, dtype=np.int32)), pa.array(flat)
        )
        per_motion = pa.ListArray.from_arrays(
            pa.array(np.concatenate([[0], np.cumsum(frames)]).astype(np.int32)), per_frame
        )
        if isinstance(motion_type, Array2DExtensionType):
            return pa.ExtensionArray.from_storage(motion_type, per_motion)
        return per_motion


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _fingerprint(options: Mapping[str, Any], files: Iterable[tuple[str, Path]], progress: bool) -> str:
    """Hash of the options and of the name and content of every input file."""
    digest = hashlib.sha256(json.dumps({"format": FORMAT_VERSION, **options}, sort_keys=True).encode())
    for name, path in tqdm(list(files), desc="checking input", unit="file", disable=None if progress else True):
        digest.update(f"\n{name}\0{_sha256(path)}".encode())
    return digest.hexdigest()


def _folder_files(label: str, folder: Path, patterns: Sequence[str] = ("*",)) -> Iterator[tuple[str, Path]]:
    found = sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})
    return ((f"{label}/{path.name}", path) for path in found)


def _intact(folder: Path, fingerprint: str) -> PrepareReport | None:
    """The report of a folder that already holds this corpus, else `None`."""
    try:
        report = PrepareReport.load(folder)
    except (OSError, ValueError, TypeError):
        return None
    if report.fingerprint != fingerprint:
        return None
    for name, size in report.files.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != size:
            return None
    report.reused = True
    return report


def _read_id_files(paths: Sequence[str | Path]) -> set[str]:
    ids: set[str] = set()
    for path in paths:
        if not Path(path).is_file():
            raise FileNotFoundError(f"There is no file of ids to exclude {str(path)!r}: check the path.")
        ids.update(base_id_of(motion_id) for motion_id in read_ids(Path(path)))
    return ids


def _read_extra_captions(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Rows of a `.jsonl` file with `id` and `captions`."""
    with path.open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                motion_id, captions = str(row["id"]), row["captions"]
            except (json.JSONDecodeError, KeyError, TypeError) as error:
                raise ValueError(
                    f'{path}, line {number}: expected {{"id": "...", "captions": ["...", ...]}}, got {line[:80]!r}'
                ) from error
            captions = [captions] if isinstance(captions, str) else captions
            yield motion_id, [" ".join(str(caption).split()) for caption in captions if str(caption).strip()]


def _load_tokenizer(text_model: str, captions: Iterable[str]):
    if text_model == CORPUS_TEXT_MODEL:
        return train_tokenizer(captions)
    name = resolve_text_model(text_model)
    try:
        return AutoTokenizer.from_pretrained(name)
    except OSError as error:
        raise OSError(
            f"The tokenizer of the text model {text_model!r} cannot be loaded: give a folder, a hub name that can be "
            "reached, 'minilm', or 'corpus' to build one from the captions."
        ) from error


def _stored_motions(folder: Path, skeleton: Skeleton, progress: bool) -> Iterator[np.ndarray]:
    """Training motions (T, J, 3) back from the Parquet shards."""
    shards = sorted((folder / "data").glob("train-*.parquet"))
    total = sum(pq.read_metadata(shard).num_rows for shard in shards)
    with tqdm(total=total, desc="fitting processor", unit="motion", disable=None if progress else True) as bar:
        for shard in shards:
            for batch in pq.ParquetFile(shard).iter_batches(batch_size=64, columns=["motion"]):
                column = batch.column(0)
                per_motion = column.storage if isinstance(column, pa.ExtensionArray) else column
                frames = per_motion.flatten()
                values = frames.flatten().to_numpy(zero_copy_only=False).reshape(-1, skeleton.num_joints, 3)
                ends = np.cumsum([len(motion) for motion in per_motion])
                for motion in np.split(values, ends[:-1]):
                    bar.update()
                    yield motion


def _check_splits(ids: Mapping[str, list[str]]) -> None:
    names = list(ids)
    for position, first in enumerate(names):
        for second in names[position + 1 :]:
            both = set(ids[first]) & set(ids[second])
            if both:
                raise ValueError(
                    f"{len(both)} ids are in both the {first!r} and the {second!r} split (for example {min(both)!r}): "
                    f"name a split file without them, for example `--split {first}=other.txt`."
                )


def _shared(groups: Mapping[str, tuple[set[str], set[str]]]) -> dict[str, dict[str, int]]:
    """How many base motions and source clips each pair of splits has in common."""
    shared = {}
    names = list(groups)
    for position, first in enumerate(names):
        for second in names[position + 1 :]:
            motions, clips = (len(a & b) for a, b in zip(groups[first], groups[second], strict=True))
            if motions or clips:
                shared[f"{first} and {second}"] = {"base_ids": motions, "source_clips": clips}
    return shared


def prepare(
    source: str | Path,
    layout: str,
    output_dir: str | Path,
    *,
    splits: Mapping[str, str | None] | None = None,
    text_model: str | None = None,
    processor: str | Path | None = None,
    representation: str = "positions",
    max_frames: int = 224,
    fps: float | None = None,
    vocabulary_filter: str = "corpus",
    min_document_frequency: int = 1,
    extra_captions: Sequence[str | Path] = (),
    exclude_ids: Sequence[str | Path] = (),
    mirror: str = "listed",
    skip_shorter_than: int = MIN_FRAMES,
    skip_longer_than: int | None = None,
    source_name: str | None = None,
    row_group_size: int = 64,
    overwrite: bool = False,
    progress: bool = False,
) -> PrepareReport:
    """
    Prepare a motion-caption corpus for training and evaluation.

    Args:
        source (`str` or `Path`): corpus folder.
        layout (`str`): `humanml3d` (also the synthetic corpus) or `kit-ml`.
        output_dir (`str` or `Path`): folder to write; see the top of this file for what is in it.
        splits (`Mapping[str, str | None]`, *optional*): split name -> file, only these are prepared; `None` as file
            for the usual one. Default: those of `train.txt`, `val.txt` (the split `validation`) and `test.txt` that
            exist.
        text_model (`str`, *optional*): whose tokenizer to use: `minilm`, a folder, a hub name, or `corpus` (default)
            for a small word-level one built from the training captions.
        processor (`str` or `Path`, *optional*): folder of a fitted processor to use as it is; needed without a
            training split.
        representation (`str`): what the processor makes of a motion: `positions` or `humanml3d` (263 / 251 features).
        max_frames (`int`): frames the processor keeps of a motion.
        fps (`float`, *optional*): frame rate of the processor, by default the corpus's own. Stored motions keep
            theirs.
        vocabulary_filter (`str`): `corpus`, `words` or `all`: which word pieces become dimensions of the lexicon.
        min_document_frequency (`int`): captions a word must be in to count as seen by the filter `corpus`.
        extra_captions (`Sequence`): `.jsonl` files of `{"id", "captions"}` for the lexicon and the text-only corpus.
            Ids of the held-out splits are left out, those in the folder's own `val.txt` and `test.txt` included.
        exclude_ids (`Sequence`): files of further ids to leave out of the extra captions.
        mirror (`str`): `listed`, `derive` or `none`, see [`~processing.corpora.folders.CorpusFolder`].
        skip_shorter_than, skip_longer_than (`int`): frames outside which a motion or sub-range is skipped.
        source_name (`str`, *optional*): name of the corpus in the column `source`; the folder's name by default.
        row_group_size (`int`): motions of one Parquet row group, the unit of streaming.
        overwrite (`bool`): replace a folder that is not a prepared corpus.
        progress (`bool`): show progress bars on a terminal.

    Returns:
        [`PrepareReport`]: with `reused` set when the folder already held this corpus.

    Raises:
        FileNotFoundError: source, split files, text model folder or processor are missing.
        ValueError: unknown layout; a split that lists or leaves no motion; an id in two splits; no processor without
        train. FileExistsError: the output folder holds something else.

    Example:

        >>> report = prepare("HumanML3D", "humanml3d", "prepared", text_model="minilm")  # doctest: +SKIP
        >>> load_prepared("prepared")["train"][0]["captions"]  # doctest: +SKIP
    """
    if layout not in LAYOUTS:
        raise ValueError(f"Unknown layout {layout!r}: choose one of {', '.join(LAYOUTS)}.")
    if row_group_size < 1:
        raise ValueError(f"row_group_size must be at least 1, got {row_group_size}.")
    output_dir = Path(output_dir)
    folder = CorpusFolder(
        source, LAYOUTS[layout], splits, mirror, skip_shorter_than, skip_longer_than, name=source_name
    )
    skeleton = folder.skeleton
    if "train" not in folder.splits and processor is None:
        raise ValueError(
            f"The splits {', '.join(folder.splits)} cannot fit a processor, statistics come from train only: give "
            "the one of the training corpus with `--processor PREPARED/processor`."
        )
    if processor is not None and not Path(processor).is_dir():
        raise FileNotFoundError(
            f"There is no processor folder {str(processor)!r}: give the `processor` of a prepared corpus."
        )
    missing = [str(path) for path in extra_captions if not Path(path).is_file()]
    if missing:
        raise FileNotFoundError(f"There is no file of extra captions {missing[0]!r}: check the path.")
    excluded = _read_id_files(exclude_ids)
    ids = {split: folder.ids(split) for split in folder.splits}
    _check_splits(ids)

    options = {
        "layout": layout,
        "source": folder.name,
        "splits": {split: path.name for split, path in folder.splits.items()},
        "text_model": text_model or CORPUS_TEXT_MODEL,
        "processor": processor is not None,
        "representation": representation,
        "max_frames": max_frames,
        "fps": fps or skeleton.fps,
        "vocabulary_filter": vocabulary_filter,
        "min_document_frequency": min_document_frequency,
        "extra_captions": [Path(path).name for path in extra_captions],
        "exclude_ids": [Path(path).name for path in exclude_ids],
        "mirror": mirror,
        "skip_shorter_than": skip_shorter_than,
        "skip_longer_than": skip_longer_than,
        "row_group_size": row_group_size,
    }
    inputs = [(os.path.relpath(path, folder.source), path) for path in folder.input_files()]
    inputs += [(f"held-out/{name}", path) for name, path in _usual_held_out(folder).items()]
    inputs += [(f"extra/{number}", Path(path)) for number, path in enumerate([*extra_captions, *exclude_ids])]
    if processor is not None:
        inputs += _folder_files("processor", Path(processor), ("*", "*/*"))
    elif text_model not in (None, CORPUS_TEXT_MODEL):
        text_folder = Path(resolve_text_model(str(text_model)))
        # A folder counts by its content, a short name or hub name by itself.
        if text_folder.is_dir():
            options["text_model"] = str(text_model) if not Path(str(text_model)).is_dir() else text_folder.name
            inputs += _folder_files("tokenizer", text_folder, ("tokenizer*", "vocab*", "special_tokens*", "merges*"))
    fingerprint = _fingerprint(options, inputs, progress)
    done = _intact(output_dir, fingerprint)
    if done is not None:
        logger.info("%s already holds this corpus", output_dir)
        return done
    if (
        output_dir.is_dir()
        and any(output_dir.iterdir())
        and not (output_dir / "report.json").is_file()
        and not overwrite
    ):
        raise FileExistsError(
            f"{output_dir} holds files that are not a prepared corpus: choose another folder, or overwrite it "
            "with `--overwrite`."
        )

    report = PrepareReport(
        fingerprint=fingerprint,
        layout=layout,
        source=folder.name,
        skeleton=skeleton.name,
        fps=skeleton.fps,
        options=options,
    )
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{output_dir.name}.", dir=output_dir.parent))
    try:
        train_captions = _write_splits(folder, temporary, report, row_group_size, progress)
        corpus: dict[str, list[str]] = {}
        if "train" in folder.splits:
            corpus = _text_corpus(folder, train_captions, ids, extra_captions, excluded, report)
            _write_text(temporary, corpus, row_group_size)
        fitted = _processor(
            temporary,
            folder,
            corpus,
            processor,
            text_model,
            representation,
            max_frames,
            fps,
            vocabulary_filter,
            min_document_frequency,
            report,
            progress,
        )
        fitted.save_pretrained(temporary / "processor")
        files = sorted(path for path in temporary.rglob("*") if path.is_file())
        report.files = {path.relative_to(temporary).as_posix(): path.stat().st_size for path in files}
        text = json.dumps(report.to_dict(), indent=2, ensure_ascii=False) + "\n"
        (temporary / "report.json").write_text(text, encoding="utf-8")
        _put_in_place(temporary, output_dir)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return report


def _usual_held_out(folder: CorpusFolder) -> dict[str, Path]:
    """The folder's own `val.txt` and `test.txt`, whether they are prepared or not."""
    paths = {name: folder.source / file for name, file in DEFAULT_SPLITS.items() if name != "train"}
    return {name: path for name, path in paths.items() if path.is_file()}


def _write_splits(
    folder: CorpusFolder, output: Path, report: PrepareReport, row_group_size: int, progress: bool
) -> dict[str, list[str]]:
    """Write every split and fill the report; returns the training captions by base motion."""
    (output / "data").mkdir()
    features = corpus_features(folder.skeleton)
    captions_of: dict[str, list[str]] = {}
    groups: dict[str, tuple[set[str], set[str]]] = {}
    for split in folder.splits:
        writer = _SplitWriter(output / "data", split, features, row_group_size)
        counts: Counter[str] = Counter()
        base_ids, clips = groups.setdefault(split, (set(), set()))
        for record in folder.records(split, progress):
            writer.add(record)
            counts.update(motions=1, mirrored=record.mirrored, captions=len(record.captions), frames=record.num_frames)
            base_ids.add(record.base_id)
            clips.add(record.source_clip)
            if split == "train":
                told = record.mirrored_captions if record.mirrored else record.captions
                known = captions_of.setdefault(record.base_id, [])
                if not (record.mirrored and known):
                    known += [caption for caption in told if caption not in known]
        writer.close()
        if not counts["motions"]:
            reasons = Counter(item.reason for item in folder.skipped if item.split == split).most_common(3)
            why = ", ".join(f"{count} {reason}" for reason, count in reasons)
            raise ValueError(
                f"No motion of the split {split!r} ({folder.splits[split]}) could be read: "
                f"{why or 'nothing is listed'}. Is {folder.source} really laid out as {folder.layout.name!r}?"
            )
        report.splits[split] = {
            "file": folder.splits[split].name,
            "listed": len(folder.ids(split)),
            **{name: int(counts[name]) for name in ("motions", "mirrored", "captions", "frames")},
            "seconds": round(counts["frames"] / folder.skeleton.fps, 2),
        }
    report.skipped = [asdict(item) for item in folder.skipped]
    report.skipped_by_reason = dict(sorted(Counter(item.reason for item in folder.skipped).items()))
    report.shared = _shared(groups)
    for pair, numbers in report.shared.items():
        if numbers["base_ids"]:
            logger.warning("%s share %d base motions: scores on them are not held out", pair, numbers["base_ids"])
    return captions_of


def _text_corpus(
    folder: CorpusFolder,
    train_captions: Mapping[str, list[str]],
    ids: Mapping[str, list[str]],
    extra_captions: Sequence[str | Path],
    excluded: set[str],
    report: PrepareReport,
) -> dict[str, list[str]]:
    """Training captions by motion, extra ones added unless their motion is held out."""
    held_out = {base_id_of(motion_id) for split, listed in ids.items() if split != "train" for motion_id in listed}
    for path in _usual_held_out(folder).values():
        held_out.update(base_id_of(motion_id) for motion_id in path.read_text(encoding="utf-8").split())
    # A training set may be made of a file that is usually held out; what it lists is then no secret.
    held_out -= {base_id_of(motion_id) for motion_id in ids["train"]}
    held_out |= excluded
    corpus = {motion_id: list(captions) for motion_id, captions in train_captions.items()}
    left_out = 0
    for file in extra_captions:
        for motion_id, captions in _read_extra_captions(Path(file)):
            base_id = base_id_of(motion_id)
            if base_id in held_out:
                left_out += 1
                continue
            if base_id != motion_id:
                captions = [mirror_caption(caption) for caption in captions]
            known = corpus.setdefault(base_id, [])
            known += [caption for caption in dict.fromkeys(captions) if caption not in known]
    corpus = {motion_id: captions for motion_id, captions in corpus.items() if captions}
    report.text = {
        "motions": len(corpus),
        "captions": sum(len(captions) for captions in corpus.values()),
        "extra_motions": len(corpus) - len(train_captions),
        "extra_motions_left_out": left_out,
    }
    return corpus


def _write_text(output: Path, corpus: Mapping[str, list[str]], row_group_size: int) -> None:
    (output / "text").mkdir()
    columns = {
        "id": list(corpus),
        "captions": list(corpus.values()),
        "mirrored_captions": [[mirror_caption(caption) for caption in captions] for captions in corpus.values()],
    }
    table = pa.Table.from_pydict(columns, schema=TEXT_FEATURES.arrow_schema)
    pq.write_table(table, output / "text" / "train.parquet", compression="zstd", row_group_size=16 * row_group_size)


def _processor(
    output: Path,
    folder: CorpusFolder,
    corpus: Mapping[str, list[str]],
    given: str | Path | None,
    text_model: str | None,
    representation: str,
    max_frames: int,
    fps: float | None,
    vocabulary_filter: str,
    min_document_frequency: int,
    report: PrepareReport,
    progress: bool,
) -> LexMotionProcessor:
    """Load the processor that was given, or fit one on the training split."""
    skeleton = folder.skeleton
    if given is not None:
        processor = LexMotionProcessor.from_pretrained(given)
        theirs = processor.feature_extractor.skeleton
        if theirs != skeleton.name:
            raise ValueError(
                f"The processor {str(given)!r} is for the skeleton {theirs!r}, the corpus has {skeleton.name!r}."
            )
    else:
        spoken = [caption for captions in corpus.values() for caption in captions]
        mirrored = [mirror_caption(caption) for caption in spoken]
        tokenizer = _load_tokenizer(text_model or CORPUS_TEXT_MODEL, [*spoken, *mirrored])
        # Words that only the mirrored captions hold ("left" where all is right) are part of the space as well.
        words, mirrored_words = (
            {word for caption in captions for word in _WORD.findall(caption.lower())}
            for captions in (spoken, mirrored)
        )
        twins = tokenizer(" ".join(sorted(mirrored_words - words)), add_special_tokens=False)["input_ids"]
        extractor = LexMotionFeatureExtractor(
            representation=representation, skeleton=skeleton.name, fps=fps or skeleton.fps, max_frames=max_frames
        )
        # Training mirrors motions, so their mirror images count too.
        extractor.fit(_stored_motions(output, skeleton, progress), fps=skeleton.fps, mirror=True)
        lexicon = Lexicon.from_corpus(
            spoken,
            tokenizer,
            vocabulary_filter=vocabulary_filter,
            min_document_frequency=min_document_frequency,
            extra_ids=sorted(set(twins) - set(tokenizer.all_special_ids)),
        )
        processor = LexMotionProcessor(feature_extractor=extractor, tokenizer=tokenizer, lexicon=lexicon.to_dict())
    lexicon = processor.lexicon
    report.processor = {
        "fitted": given is None,
        "statistics_hash": processor.feature_extractor.statistics_hash,
        "lexicon_hash": lexicon.hash,
        "vocab_size": len(processor.tokenizer),
        "active_words": int(lexicon.active.sum()),
    }
    return processor


def _put_in_place(temporary: Path, output_dir: Path) -> None:
    """Replace `output_dir` by `temporary`; an interruption leaves the old or the new folder, never a mixture."""
    os.chmod(temporary, 0o755)
    if output_dir.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{output_dir.name}.old.", dir=output_dir.parent))
        os.replace(output_dir, old / output_dir.name)
        os.replace(temporary, output_dir)
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.replace(temporary, output_dir)


def load_prepared(
    folder: str | Path,
    splits: Sequence[str] | None = None,
    streaming: bool = False,
    cache_dir: str | Path | None = None,
) -> DatasetDict | IterableDatasetDict:
    """
    Open a prepared corpus.

    Args:
        folder (`str` or `Path`): output of [`prepare`].
        splits (`Sequence[str]`, *optional*): only these; all by default.
        streaming (`bool`): read row group by row group instead of through the local cache.
        cache_dir (`str` or `Path`, *optional*): where `datasets` keeps its memory-mapped copy.

    Returns:
        `DatasetDict`: columns of [`corpus_features`], no format set; `.with_format("numpy")` gives motions as (T, J *
        3) arrays.

    Raises:
        FileNotFoundError: the folder is not a prepared corpus.
        ValueError: a split it does not have.
    """
    folder = Path(folder)
    report = PrepareReport.load(folder)
    wanted = list(report.splits) if splits is None else list(splits)
    unknown = [split for split in wanted if split not in report.splits]
    if unknown:
        raise ValueError(f"{folder} has no split {unknown[0]!r}, it has {', '.join(report.splits)}.")
    files = {split: sorted(str(path) for path in (folder / "data").glob(f"{split}-*.parquet")) for split in wanted}
    return load_dataset(
        "parquet",
        data_files=files,
        features=corpus_features(LAYOUTS[report.layout].skeleton),
        streaming=streaming,
        cache_dir=None if cache_dir is None else str(cache_dir),
    )
