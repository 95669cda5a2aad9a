"""A prepared split in memory: one packed tensor of joint positions and one table of captions, ready to be indexed."""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from transformers.utils import logging

from lexmotion.processing.corpora.text_mirroring import mirror_caption

from .checkpoints import file_hash

logger = logging.get_logger(__name__)


def caption_hash(caption: str) -> int:
    """A caption as a signed 64-bit number, equal for captions that differ only in case and spacing."""
    digest = hashlib.blake2b(" ".join(caption.lower().split()).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def corpus_fingerprint(folder: str | os.PathLike) -> str:
    """sha256 over data, captions and processor of a prepared folder, in the order of the file names."""
    folder = Path(folder)
    digest = hashlib.sha256()
    files = sorted(
        file for part in ("data", "processor", "text") for file in (folder / part).rglob("*") if file.is_file()
    )
    if not files:
        raise FileNotFoundError(f"{folder} is not a prepared folder: it has no data/ and no processor/; run `prepare`")
    for file in files:
        digest.update(f"{file.relative_to(folder).as_posix()}\0{file_hash(file)}\n".encode())
    return digest.hexdigest()


@dataclass
class CaptionTable:
    """
    Captions as token ids, each in its own words and mirrored (left for right).

    Args:
        texts: the captions (C), and `mirrored_texts` (C).
        input_ids: (2, C, L) int32, padded with `pad_token_id`; index 1 is the mirrored text.
        lengths: (2, C) int64 tokens of each.
        hashes: (2, C) int64, see `caption_hash`.
    """

    texts: list[str]
    mirrored_texts: list[str]
    input_ids: torch.Tensor
    lengths: torch.Tensor
    hashes: torch.Tensor

    @classmethod
    def build(
        cls, texts: Sequence[str], mirrored_texts: Sequence[str], tokenizer: Any, max_length: int
    ) -> "CaptionTable":
        """Tokenise once; captions longer than `max_length` tokens are cut."""
        texts, mirrored_texts = list(texts), list(mirrored_texts)
        if len(texts) != len(mirrored_texts):
            raise ValueError(f"{len(texts)} captions but {len(mirrored_texts)} mirrored ones")
        both = texts + mirrored_texts
        if not both:
            raise ValueError("there is no caption to train on")
        ids = tokenizer(both, truncation=True, max_length=max_length)["input_ids"]
        lengths = np.fromiter(map(len, ids), dtype=np.int64, count=len(ids))
        table = np.full((len(ids), int(lengths.max())), tokenizer.pad_token_id, dtype=np.int32)
        table[np.arange(table.shape[1]) < lengths[:, None]] = np.concatenate([np.asarray(row) for row in ids])
        hashes = np.fromiter(map(caption_hash, both), dtype=np.int64, count=len(both))
        shape = (2, len(texts))
        return cls(
            texts,
            mirrored_texts,
            torch.from_numpy(table.reshape(*shape, -1)),
            torch.from_numpy(lengths.reshape(shape)),
            torch.from_numpy(hashes.reshape(shape)),
        )

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def max_length(self) -> int:
        return self.input_ids.shape[-1]

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
        longest = int(lengths.max())
        input_ids = self.input_ids[side, captions, :longest].long()
        return input_ids, (torch.arange(longest) < lengths[:, None]).long(), self.hashes[side, captions]


@dataclass
class TrainingCorpus:
    """
    One split, in memory.

    Args:
        ids: R clip ids.
        frames: (sum of lengths, J, 3) float32 joint positions in metres, clips one after another.
        offsets: (R,) int64 first frame of each clip. lengths: (R,) int64 frames. fps: (R,) float32.
        base_ids: (R,) int64, equal for clips cut from one motion or mirrored from it.
        captions: the captions of all clips, clip by clip.
        caption_starts, caption_counts: (R,) int64.
        skeleton: name of the joint layout.
    """

    ids: list[str]
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
        Read a split of `load_prepared` (a `datasets.Dataset` or any iterable of its rows).

        Raises:
            ValueError: the split is empty or mixes skeletons.
        """
        if hasattr(split, "with_format"):
            split = split.with_format("numpy")
        ids: list[str] = []
        motions: list[np.ndarray] = []
        fps: list[float] = []
        bases: list[str] = []
        texts: list[str] = []
        mirrored: list[str] = []
        counts: list[int] = []
        skeletons: set[str] = set()
        silent = 0
        for row in split:
            captions = [str(caption) for caption in row["captions"]]
            if not captions:
                silent += 1
                continue
            motion = np.asarray(row["motion"], dtype=np.float32)
            motions.append(motion.reshape(len(motion), -1, 3))
            ids.append(str(row["id"]))
            bases.append(str(row["base_id"]))
            fps.append(float(row["fps"]))
            skeletons.add(str(row["skeleton"]))
            texts += captions
            mirrored += [str(caption) for caption in row["mirrored_captions"]]
            counts.append(len(captions))
        if silent:
            logger.warning(f"{silent} clips have no caption and are left out")
        if not ids:
            raise ValueError("the split has no clip with a caption")
        if len(skeletons) > 1:
            raise ValueError(
                f"one run trains on one skeleton, the split holds {sorted(skeletons)}; prepare them apart"
            )
        lengths = torch.tensor([len(motion) for motion in motions])
        caption_counts = torch.tensor(counts)
        base_index = {name: index for index, name in enumerate(dict.fromkeys(bases))}
        return cls(
            ids=ids,
            frames=torch.from_numpy(np.concatenate(motions)),
            offsets=lengths.cumsum(0) - lengths,
            lengths=lengths,
            fps=torch.tensor(fps),
            base_ids=torch.tensor([base_index[name] for name in bases]),
            captions=CaptionTable.build(texts, mirrored, tokenizer, max_text_length),
            caption_starts=caption_counts.cumsum(0) - caption_counts,
            caption_counts=caption_counts,
            skeleton=skeletons.pop(),
        )

    def __len__(self) -> int:
        return len(self.ids)

    def first_captions(self) -> list[str]:
        """The first caption of every clip, the one retrieval protocols use."""
        return [self.captions.texts[start] for start in self.caption_starts.tolist()]

    def all_captions(self) -> list[list[str]]:
        """Every caption of every clip."""
        return [
            self.captions.texts[start : start + count]
            for start, count in zip(self.caption_starts.tolist(), self.caption_counts.tolist(), strict=True)
        ]


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


def text_corpus(folder: str | os.PathLike) -> tuple[list[str], list[str]] | None:
    """
    The captions a prepared folder keeps for text-only training, and the mirrored ones; None when it keeps none.

    Held-out motions were left out when the folder was prepared.
    """
    path = Path(folder) / "text" / "train.parquet"
    if not path.is_file():
        return None
    table = pq.read_table(path, columns=["captions", "mirrored_captions"])
    texts, mirrored = (pc.list_flatten(table[name]).to_pylist() for name in ("captions", "mirrored_captions"))
    return texts, mirrored


def with_mirrored(texts: list[str], mirrored: list[str], extra: Sequence[str]) -> tuple[list[str], list[str]]:
    """Captions and their mirror images with further ones appended, none of which repeats a text."""
    known = set(texts)
    fresh = [caption for caption in dict.fromkeys(extra) if caption not in known]
    return texts + fresh, mirrored + [mirror_caption(caption) for caption in fresh]
