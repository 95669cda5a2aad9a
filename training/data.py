"""Training data: a prepared corpus on disk, or splits in memory."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from lexmotion.common.pretrained import loading_from
from lexmotion.processing.corpora.prepare import PrepareReport
from lexmotion.processing.processing_lexmotion import LexMotionProcessor

from .arguments import RunArguments
from .batches.corpus import (
    CaptionTable,
    TrainingCorpus,
    corpus_fingerprint,
    corpus_hashes,
    packed_frames,
    read_extra_captions,
    with_mirrored,
)
from .batches.packing import cached_batch, pack_clips, read_captions
from .provenance import digest

EXTRA_MOTIONS = "motion/train.parquet"  # of a prepared folder
CORPUS_FACTS = ("source", "layout", "fingerprint", "skeleton", "fps", "options")  # copied from report to run record


@dataclass(frozen=True)
class Splits:
    """
    Data of a trainer. A task without a prepared corpus can return it from its `read`.

    Args:
        train, evaluation: objects with a length, whose rows are read by the trainer's `collate`.
        processor: converts raw inputs to tensors; saved with the model.
        fingerprint: hash of the content; a run resumes only if it is equal.
    """

    train: Any
    evaluation: Any = None
    processor: Any = None
    fingerprint: str = ""

    def load(self, arguments: RunArguments) -> "Splits":
        """Return these splits, whatever the arguments."""
        return self

    def facts(self) -> dict[str, Any]:
        """Return the description of the data in a run record."""
        splits = {"train": self.train, "evaluation": self.evaluation}
        rows = {name: len(split) for name, split in splits.items() if split is not None}
        return {"folder": None, "fingerprint": self.fingerprint, "report": None, "rows": rows}


@dataclass
class PreparedData:
    """
    A prepared folder, shared by the tasks of a run.

    Args:
        folder, processor: the folder and its processor.
        splits: Parquet files of each split.
        hashes, fingerprint: hash of every file (see `corpus_hashes`), and of them all.
    """

    folder: Path
    processor: Any
    splits: dict[str, list[Path]]
    hashes: dict[str, str]
    fingerprint: str
    corpora: dict[tuple[str, int], TrainingCorpus] = field(default_factory=dict)
    processors: dict[str, LexMotionProcessor] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: str | os.PathLike) -> "PreparedData":
        """Open a folder; its splits are read on demand."""
        folder = Path(folder)
        report = PrepareReport.load(folder)
        report.check_files(folder)
        hashes = corpus_hashes(folder)
        with loading_from(folder / "processor"):
            processor = LexMotionProcessor.from_pretrained(folder / "processor", trust_remote_code=False)
        splits = {name: sorted((folder / "data").glob(f"{name}-*.parquet")) for name in report.splits}
        return cls(folder, processor, splits, hashes, corpus_fingerprint(hashes))

    def load(self, arguments: RunArguments) -> Splits:
        """Return the splits and the processor given by the arguments."""
        data = arguments.data
        train, evaluation = (self.corpus(split, data.max_text_length) for split in (data.train_split, data.eval_split))
        return Splits(train, evaluation, self.processor_for(data.representation), self.fingerprint)

    def facts(self) -> dict[str, Any]:
        """Return the description of the data in a run record."""
        report = PrepareReport.load(self.folder)
        facts = {name: getattr(report, name) for name in CORPUS_FACTS}
        rows = {name: sum(pq.read_metadata(file).num_rows for file in files) for name, files in self.splits.items()}
        if EXTRA_MOTIONS in self.hashes:
            rows["extra motions"] = pq.read_metadata(self.folder / EXTRA_MOTIONS).num_rows
        return {"folder": str(self.folder), "fingerprint": self.fingerprint, "report": facts, "rows": rows}

    def corpus(self, split: str | None, max_text_length: int) -> Any:
        """Return a memory-mapped split, or None for None."""
        if split is None:
            return None
        if split not in self.splits:
            known, remedy = (
                ", ".join(self.splits),
                "prepare it, or set train_split and eval_split (null: no evaluation)",
            )
            raise ValueError(f"{self.folder}: no split {split!r}, only {known}; {remedy}")
        key = (split, max_text_length)
        if key not in self.corpora:
            files = self.splits[split]
            captions = self.caption_table(
                f"{split}-captions", self.split_hashes(split), lambda: read_captions(files), max_text_length
            )
            self.corpora[key] = TrainingCorpus.from_batch(self.clips(split), captions)
        return self.corpora[key]

    def split_hashes(self, split: str) -> list[str]:
        """Return the hashes of a split's files."""
        return [self.hashes[file.relative_to(self.folder).as_posix()] for file in self.splits[split]]

    def clips(self, split: str) -> pa.RecordBatch:
        """Return the clips of a split without their captions, memory-mapped; see `pack_clips`."""
        key, files = digest(self.split_hashes(split)), self.splits[split]
        return cached_batch(self.folder, f"{split}-clips", key, lambda scratch: pack_clips(files, scratch))

    def motions(self, arguments: RunArguments) -> TrainingCorpus | None:
        """
        Return the clips of the training split, captioned or not, and the extra motions; None without extra motions.

        Captions are those of the training split; no clip has an index to one.
        """
        if EXTRA_MOTIONS not in self.hashes:
            return None
        split = arguments.data.train_split
        captions = self.corpus(split, arguments.data.max_text_length).captions
        files = [*self.splits[split], self.folder / EXTRA_MOTIONS]
        key = digest([*self.split_hashes(split), self.hashes[EXTRA_MOTIONS]])
        batch = cached_batch(
            self.folder, f"{split}-motions", key, lambda scratch: pack_clips(files, scratch, captioned_only=False)
        )
        corpus = TrainingCorpus.from_batch(batch, captions)
        none = torch.zeros_like(corpus.caption_counts)
        return replace(corpus, caption_starts=none, caption_counts=none)

    def processor_for(self, representation: str | None) -> LexMotionProcessor:
        """
        Return the folder's processor, with its feature extractor refitted if `representation` differs from its own.

        As in `prepare`, it is fitted to the motions of the split `train` and their mirror images.

        Raises:
            ValueError: if the representation is unknown, or the folder has no split `train`.
        """
        if representation in (None, self.processor.feature_extractor.representation):
            return self.processor
        if representation not in self.processors:
            if "train" not in self.splits:
                remedy = "prepare it, or set representation to null"
                raise ValueError(f"{self.folder}: no split 'train' to fit {representation!r} to; {remedy}")
            clips = self.clips("train")
            motions = packed_frames(clips).split(pc.list_value_length(clips["motion"]).to_pylist())
            self.processors[representation] = self.processor.with_representation(
                representation, motions, clips["fps"].to_pylist(), mirror=True
            )
        return self.processors[representation]

    def captions(self, arguments: RunArguments) -> CaptionTable:
        """Return the captions of phase i: the text corpus, else the training captions, and `extra_captions`."""
        data = arguments.data
        text = self.folder / "text" / "train.parquet"  # written without held-out motions
        extra = None
        if data.extra_captions is not None:
            extra = read_extra_captions(data.extra_captions, self.held_out_ids(data.train_split))
        elif not text.is_file():
            return self.corpus(data.train_split, data.max_text_length).captions

        def read() -> tuple[Sequence[str], Sequence[str]]:
            texts, mirrored = read_captions([text] if text.is_file() else self.splits[data.train_split])
            return (texts, mirrored) if extra is None else with_mirrored(texts, mirrored, extra)

        source = [self.fingerprint, data.train_split, extra]
        return self.caption_table("text-captions", source, read, data.max_text_length)

    def caption_table(
        self,
        name: str,
        source: list[Any],
        read: Callable[[], tuple[Sequence[str], Sequence[str]]],
        max_text_length: int,
    ) -> CaptionTable:
        """Return memory-mapped tokenized captions, cached for this `source`, processor and length."""
        tokenizer = self.processor.tokenizer
        processor = {file: value for file, value in self.hashes.items() if file.startswith("processor/")}
        key = digest([source, processor, max_text_length])
        batch = cached_batch(self.folder, name, key, lambda _: CaptionTable.pack(*read(), tokenizer, max_text_length))
        return CaptionTable.from_batch(batch, tokenizer)

    def held_out_ids(self, train_split: str) -> set[str]:
        """Return the ids and base ids of all splits but the training split."""
        others = [str(file) for split, files in self.splits.items() if split != train_split for file in files]
        if not others:
            return set()
        return {name for column in pq.read_table(others, columns=["id", "base_id"]) for name in column.to_pylist()}
