"""A prepared split as one packed tensor of joint positions and one table of captions."""

import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from transformers.utils import logging

from lexmotion.common.files import remembered_digests
from lexmotion.processing.corpora.report import DIGESTS
from lexmotion.processing.text_mirroring import mirror_caption

from ..provenance import digest
from .packing import Strings, as_lists, as_tensor, clip_batch

logger = logging.get_logger(__name__)

TOKENIZED_AT_ONCE = 16384  # captions per tokenizer call, whose ids are Python lists


def caption_hash(caption: str) -> int:
    """Return a signed 64-bit hash, equal for captions that differ only in case and spacing."""
    digest = hashlib.blake2b(" ".join(caption.lower().split()).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def corpus_hashes(folder: str | os.PathLike) -> dict[str, str]:
    """Return the SHA-256 of every data, motion, caption and processor file of a prepared folder, sorted by name."""
    folder = Path(folder)
    parts = ("data", "motion", "processor", "text")
    files = sorted(file for part in parts for file in (folder / part).rglob("*") if file.is_file())
    if not files:
        raise FileNotFoundError(f"{folder}: no data/ and no processor/; create the folder with `lexmotion prepare`")
    digests = remembered_digests(files, DIGESTS)
    return {file.relative_to(folder).as_posix(): digests[file] for file in files}


def corpus_fingerprint(hashes: dict[str, str]) -> str:
    """Return the SHA-256 of the result of `corpus_hashes`."""
    return hashlib.sha256("".join(f"{name}\0{value}\n" for name, value in hashes.items()).encode()).hexdigest()


@dataclass
class CaptionTable:
    """
    Captions as token ids without padding, original and mirrored (left and right exchanged).

    Args:
        texts, mirrored_texts: the C captions.
        tokens: (sum of lengths,) int32 ids of all captions, then of all mirrored ones.
        starts, lengths: (2, C) int64 first token and number of tokens; index 1 is the mirrored text.
        hashes: (2, C) int64, see `caption_hash`.
        pad_token_id: id that pads batches.
    """

    texts: Sequence[str]
    mirrored_texts: Sequence[str]
    tokens: Tensor
    starts: Tensor
    lengths: Tensor
    hashes: Tensor
    pad_token_id: int

    @classmethod
    def build(
        cls, texts: Sequence[str], mirrored_texts: Sequence[str], tokenizer: Any, max_length: int
    ) -> "CaptionTable":
        """Tokenize captions, truncating them to `max_length` tokens."""
        return cls.from_batch(cls.pack(texts, mirrored_texts, tokenizer, max_length), tokenizer)

    @staticmethod
    def pack(texts: Sequence[str], mirrored_texts: Sequence[str], tokenizer: Any, max_length: int) -> pa.RecordBatch:
        """Return the input of `from_batch`: `text`, `tokens` and `hash` per caption, the mirrored ones last."""
        if len(texts) != len(mirrored_texts):
            raise ValueError(f"mirrored_texts: got {len(mirrored_texts)}; pass one for each of {len(texts)} captions")
        if not len(texts):
            raise ValueError("texts: got 0 captions; pass at least 1")
        parts: list[tuple[pa.Array, np.ndarray, np.ndarray, np.ndarray]] = []
        for side in (texts, mirrored_texts):
            for start in range(0, len(side), TOKENIZED_AT_ONCE):
                some = list(side[start : start + TOKENIZED_AT_ONCE])
                ids = tokenizer(some, truncation=True, max_length=max_length)["input_ids"]
                tokens = np.fromiter(itertools.chain.from_iterable(ids), np.int32)
                lengths = np.fromiter(map(len, ids), np.int64, len(ids))
                hashes = np.fromiter(map(caption_hash, some), np.int64, len(some))
                parts.append((pa.array(some, pa.large_string()), tokens, lengths, hashes))
        words, *numbers = zip(*parts, strict=True)
        tokens, lengths, hashes = map(np.concatenate, numbers)
        lists = as_lists(pa.array(tokens), lengths)
        return pa.record_batch({"text": pa.concat_arrays(words), "tokens": lists, "hash": pa.array(hashes)})

    @classmethod
    def from_batch(cls, batch: pa.RecordBatch, tokenizer: Any) -> "CaptionTable":
        """Build the table on the memory of the result of `pack`, without a copy."""
        texts, tokens, hashes = batch.columns
        count = len(batch) // 2
        bounds = as_tensor(tokens.offsets)
        return cls(
            texts=Strings(texts[:count]),
            mirrored_texts=Strings(texts[count:]),
            tokens=as_tensor(tokens.values),
            starts=bounds[:-1].view(2, -1),
            lengths=bounds.diff().view(2, -1),
            hashes=as_tensor(hashes).view(2, -1),
            pad_token_id=tokenizer.pad_token_id,
        )

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def fingerprint(self) -> str:
        """Return a hash of the original texts."""
        return digest(list(self.texts))

    def batch(self, captions: Tensor, mirrored: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """
        Return input_ids (B, L) int64, padded to the longest caption, attention_mask (B, L) int64, hashes (B,) int64.

        Args:
            captions: (B,) int64 indices.
            mirrored: (B,) bool, whether to take the mirrored text.
        """
        side = mirrored.long()
        lengths = self.lengths[side, captions]
        column = torch.arange(int(lengths.max()))
        real = column < lengths[:, None]
        at = (self.starts[side, captions][:, None] + column).clamp_(max=len(self.tokens) - 1)
        return self.tokens[at].long().masked_fill_(~real, self.pad_token_id), real.long(), self.hashes[side, captions]


@dataclass
class TrainingCorpus:
    """
    One split, in memory or memory-mapped (then its tensors are read-only).

    Args:
        ids: R clip ids.
        frames: (sum of lengths, J, 3) float32 joint positions in metres of all clips.
        offsets, lengths: (R,) int64 first frame and number of frames of each clip.
        fps: (R,) float32.
        base_ids: (R,) int64, equal for clips cut or mirrored from one motion.
        captions: captions of all clips, in order.
        caption_starts, caption_counts: (R,) int64 first caption and number of captions of each clip.
        skeleton: name of the joint layout.
    """

    ids: Sequence[str]
    frames: Tensor
    offsets: Tensor
    lengths: Tensor
    fps: Tensor
    base_ids: Tensor
    captions: CaptionTable
    caption_starts: Tensor
    caption_counts: Tensor
    skeleton: str

    @classmethod
    def from_split(cls, split: Any, tokenizer: Any, max_text_length: int = 40) -> "TrainingCorpus":
        """
        Read a split of `load_prepared`, or any iterable of its rows, into memory.

        Raises:
            ValueError: if the split is empty or mixes skeletons.
        """
        if hasattr(split, "with_format"):
            split = split.with_format("numpy")
        every = list(split)
        rows = [row for row in every if len(row["captions"])]
        if len(rows) < len(every):
            logger.warning(f"{len(every) - len(rows)} clips have no caption and are left out")
        kinds: dict[str, Any] = {"id": str, "base_id": str, "fps": float, "skeleton": str, "captions": len}
        clips: dict[str, Any] = {name: [kind(row[name]) for row in rows] for name, kind in kinds.items()}
        texts, mirrored = (
            [str(caption) for row in rows for caption in row[name]] for name in ("captions", "mirrored_captions")
        )
        motions = [np.asarray(row["motion"], dtype=np.float32) for row in rows]
        frames = np.concatenate([np.zeros(0, np.float32), *map(np.ravel, motions)])
        batch = clip_batch(pa.table(clips), np.array([len(motion) for motion in motions]), pa.array(frames))
        return cls.from_batch(batch, CaptionTable.build(texts, mirrored, tokenizer, max_text_length))

    @classmethod
    def from_batch(cls, batch: pa.RecordBatch, captions: CaptionTable) -> "TrainingCorpus":
        """Build the corpus on the memory of a `clip_batch`, without a copy."""
        motion = batch["motion"]
        bounds, counts = as_tensor(motion.offsets), as_tensor(batch["captions"])
        return cls(
            ids=Strings(batch["id"]),
            frames=packed_frames(batch),
            offsets=bounds[:-1],
            lengths=bounds.diff(),
            fps=as_tensor(batch["fps"]),
            base_ids=as_tensor(batch["base"]),
            captions=captions,
            caption_starts=counts.cumsum(0) - counts,
            caption_counts=counts,
            skeleton=batch.schema.metadata[b"skeleton"].decode(),
        )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def fingerprint(self) -> str:
        """Return a hash of the ids and lengths; that of the prepared folder includes the motions themselves."""
        return digest([list(self.ids), self.lengths.tolist()])

    def first_captions(self) -> list[str]:
        """Return the first caption of every clip, as used by retrieval protocols."""
        return [self.captions.texts[start] for start in self.caption_starts.tolist()]


def packed_frames(batch: pa.RecordBatch) -> Tensor:
    """Return the (sum of lengths, J, 3) float32 joint positions of a `clip_batch`, without a copy."""
    motion = batch["motion"]
    return as_tensor(motion.values.values).view(-1, motion.type.value_type.list_size // 3, 3)


def read_extra_captions(path: str | os.PathLike, excluded_ids: Iterable[str] = ()) -> list[str]:
    """
    Read captions without motion, for the text-only phase.

    Args:
        path: a `.txt` with one caption per line, or a `.jsonl` whose lines have `captions` (list) and optionally `id`;
            in a folder, its `train.jsonl`.
        excluded_ids: ids whose captions are left out, i.e. those of held-out splits; a leading `M` is ignored.

    Raises:
        ValueError: if a line of a `.jsonl` is malformed.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "train.jsonl"
    excluded = {name.removeprefix("M") for name in excluded_ids}
    captions: list[str] = []
    skipped = 0
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            line = line.strip()
            if not line:
                continue
            if path.suffix != ".jsonl":
                captions.append(line)
                continue
            try:
                entry = json.loads(line)
                found = [str(caption).strip() for caption in entry["captions"]]
            except (ValueError, KeyError, TypeError) as error:
                remedy = f"write a JSON object with `captions`, not {line[:60]!r}"
                raise ValueError(f"{path}, line {number}: {remedy}") from error
            if str(entry.get("id", "")).removeprefix("M") in excluded:
                skipped += 1
            else:
                captions += [caption for caption in found if caption]
    logger.info(f"{path}: {len(captions)} captions, without those of {skipped} held-out motions")
    return captions


def with_mirrored(texts: Sequence[str], mirrored: Sequence[str], extra: Sequence[str]) -> tuple[list[str], list[str]]:
    """Append new captions to captions and their mirror images, skipping those already present."""
    known = set(texts)
    fresh = [caption for caption in dict.fromkeys(extra) if caption not in known]
    return [*texts, *fresh], [*mirrored, *map(mirror_caption, fresh)]
