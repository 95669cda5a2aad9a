"""A prepared split: one packed tensor of joint positions and one table of captions, ready to be indexed."""

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
from transformers.utils import logging

from lexmotion.common.files import sha256_of
from lexmotion.processing.corpora.text_mirroring import mirror_caption

from ..provenance import digest
from .packing import Strings, as_lists, as_tensor, clip_batch

logger = logging.get_logger(__name__)

TOKENIZED_AT_ONCE = 16384  # captions whose ids are Python lists at one time


def caption_hash(caption: str) -> int:
    """A caption as a signed 64-bit number, equal for captions that differ only in case and spacing."""
    digest = hashlib.blake2b(" ".join(caption.lower().split()).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def corpus_hashes(folder: str | os.PathLike) -> dict[str, str]:
    """sha256 of every file of data, captions and processor of a prepared folder, in the order of the names."""
    folder = Path(folder)
    files = sorted(
        file for part in ("data", "processor", "text") for file in (folder / part).rglob("*") if file.is_file()
    )
    if not files:
        raise FileNotFoundError(f"{folder} is not a prepared folder: it has no data/ and no processor/; run `prepare`")
    return {file.relative_to(folder).as_posix(): sha256_of(file) for file in files}


def corpus_fingerprint(hashes: dict[str, str]) -> str:
    """sha256 over what `corpus_hashes` gave."""
    return hashlib.sha256("".join(f"{name}\0{value}\n" for name, value in hashes.items()).encode()).hexdigest()


@dataclass
class CaptionTable:
    """
    Captions as token ids without padding, each in its own words and mirrored (left for right).

    Args:
        texts: the captions (C), and `mirrored_texts` (C).
        tokens: (sum of lengths,) int32 ids, caption after caption, the mirrored ones behind the others.
        starts, lengths: (2, C) int64 first token and tokens of each; index 1 is the mirrored text.
        hashes: (2, C) int64, see `caption_hash`.
        pad_token_id: fills the batches.
    """

    texts: Sequence[str]
    mirrored_texts: Sequence[str]
    tokens: torch.Tensor
    starts: torch.Tensor
    lengths: torch.Tensor
    hashes: torch.Tensor
    pad_token_id: int

    @classmethod
    def build(
        cls, texts: Sequence[str], mirrored_texts: Sequence[str], tokenizer: Any, max_length: int
    ) -> "CaptionTable":
        """Tokenise once; captions longer than `max_length` tokens are cut."""
        return cls.from_batch(cls.pack(texts, mirrored_texts, tokenizer, max_length), tokenizer)

    @staticmethod
    def pack(texts: Sequence[str], mirrored_texts: Sequence[str], tokenizer: Any, max_length: int) -> pa.RecordBatch:
        """What `from_batch` reads, a row a caption, the mirrored ones behind the others: `text`, `tokens`, `hash`."""
        if len(texts) != len(mirrored_texts):
            raise ValueError(f"{len(texts)} captions but {len(mirrored_texts)} mirrored ones")
        if not len(texts):
            raise ValueError("there is no caption to train on")
        parts: list[tuple[pa.Array, np.ndarray, np.ndarray, np.ndarray]] = []
        for side in (texts, mirrored_texts):
            for start in range(0, len(side), TOKENIZED_AT_ONCE):
                some = list(side[start : start + TOKENIZED_AT_ONCE])
                ids = tokenizer(some, truncation=True, max_length=max_length)["input_ids"]
                parts.append(
                    (
                        pa.array(some, pa.large_string()),
                        np.fromiter(itertools.chain.from_iterable(ids), np.int32),
                        np.fromiter(map(len, ids), np.int64, len(ids)),
                        np.fromiter(map(caption_hash, some), np.int64, len(some)),
                    )
                )
        words, tokens, lengths, hashes = zip(*parts, strict=True)
        return pa.record_batch(
            {
                "text": pa.concat_arrays(words),
                "tokens": as_lists(pa.array(np.concatenate(tokens)), np.concatenate(lengths)),
                "hash": pa.array(np.concatenate(hashes)),
            }
        )

    @classmethod
    def from_batch(cls, batch: pa.RecordBatch, tokenizer: Any) -> "CaptionTable":
        """On the memory of what `pack` gave, without a copy."""
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
        """Of the texts as written."""
        return digest(list(self.texts))

    def batch(self, captions: torch.Tensor, mirrored: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """
        Chosen captions, padded to the longest of them.

        Args:
            captions: (B,) int64 indices. mirrored: (B,) bool, take the mirrored text.

        Returns:
            input_ids (B, L) int64, attention_mask (B, L) int64 and hashes (B,) int64.
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
    One split, in memory or memory-mapped; then its tensors must not be written to.

    Args:
        ids: R clip ids.
        frames: (sum of lengths, J, 3) float32 joint positions in metres, clips one after another.
        offsets: (R,) int64 first frame of each clip. lengths: (R,) int64 frames. fps: (R,) float32.
        base_ids: (R,) int64, equal for clips cut from one motion or mirrored from it.
        captions: the captions of all clips, clip by clip.
        caption_starts, caption_counts: (R,) int64.
        skeleton: name of the joint layout.
    """

    ids: Sequence[str]
    frames: torch.Tensor
    offsets: torch.Tensor
    lengths: torch.Tensor
    fps: torch.Tensor
    base_ids: torch.Tensor
    captions: CaptionTable
    caption_starts: torch.Tensor
    caption_counts: torch.Tensor
    skeleton: str

    @classmethod
    def from_split(cls, split: Any, tokenizer: Any, max_text_length: int = 40) -> "TrainingCorpus":
        """
        Read rows one by one into memory: a split of `load_prepared` or any iterable of its rows.

        Raises:
            ValueError: the split is empty or mixes skeletons.
        """
        if hasattr(split, "with_format"):
            split = split.with_format("numpy")
        rows = list(split)
        spoken = [row for row in rows if len(row["captions"])]
        if len(spoken) < len(rows):
            logger.warning(f"{len(rows) - len(spoken)} clips have no caption and are left out")
        clips: dict[str, Any] = {
            name: [kind(row[name]) for row in spoken]
            for name, kind in (("id", str), ("base_id", str), ("fps", float), ("skeleton", str), ("captions", len))
        }
        texts, mirrored = (
            [str(caption) for row in spoken for caption in row[name]] for name in ("captions", "mirrored_captions")
        )
        motions = [np.asarray(row["motion"], dtype=np.float32) for row in spoken]
        frames = np.concatenate([np.zeros(0, np.float32), *map(np.ravel, motions)])
        batch = clip_batch(pa.table(clips), np.array([len(motion) for motion in motions]), pa.array(frames))
        return cls.from_batch(batch, CaptionTable.build(texts, mirrored, tokenizer, max_text_length))

    @classmethod
    def from_batch(cls, batch: pa.RecordBatch, captions: CaptionTable) -> "TrainingCorpus":
        """On the memory of a `clip_batch`, without a copy."""
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

    def first_captions(self) -> list[str]:
        """The first caption of every clip, the one retrieval protocols use."""
        return [self.captions.texts[start] for start in self.caption_starts.tolist()]


def packed_frames(batch: pa.RecordBatch) -> torch.Tensor:
    """(sum of lengths, J, 3) float32 joint positions of a `clip_batch`, on its memory."""
    motion = batch["motion"]
    return as_tensor(motion.values.values).view(-1, motion.type.value_type.list_size // 3, 3)


def read_extra_captions(path: str | os.PathLike, excluded_ids: Iterable[str] = ()) -> list[str]:
    """
    Captions without motion, for the text-only phase.

    Args:
        path: a `.txt` with one caption a line, or a `.jsonl` whose lines have `captions` (list) and optionally `id`; a
            folder stands for its `train.jsonl`.
        excluded_ids: ids (without a leading `M`) whose captions are left out: those of the held-out splits.

    Raises:
        ValueError: a line that is not what the suffix promises, with its number.
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
                raise ValueError(
                    f"{path}, line {number}: expected a JSON object with `captions`, got {line[:60]!r}"
                ) from error
            if str(entry.get("id", "")).removeprefix("M") in excluded:
                skipped += 1
            else:
                captions += [caption for caption in found if caption]
    logger.info(f"{path}: {len(captions)} captions; {skipped} held-out motions left out")
    return captions


def with_mirrored(texts: Sequence[str], mirrored: Sequence[str], extra: Sequence[str]) -> tuple[list[str], list[str]]:
    """Captions and their mirror images with further ones appended, none of which repeats a text."""
    known = set(texts)
    fresh = [caption for caption in dict.fromkeys(extra) if caption not in known]
    return [*texts, *fresh], [*mirrored, *map(mirror_caption, fresh)]
