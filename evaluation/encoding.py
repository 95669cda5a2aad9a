"""Captions and motions -> sparse lexical vectors, in length-sorted batches."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse
from tqdm.auto import tqdm


@dataclass
class EncodedSplit:
    """
    A prepared split in word space, row i of everything is motion i.

    Args:
        ids (N), captions (N): the first caption of each motion; all_captions (N): lists of captions.
        text_embeds, motion_embeds: (N, V) float32 CSR.
    """

    ids: list[str]
    captions: list[str]
    all_captions: list[list[str]]
    text_embeds: sparse.csr_matrix
    motion_embeds: sparse.csr_matrix


def _batches(lengths: Sequence[int], batch_size: int, description: str, progress: bool) -> Iterable[np.ndarray]:
    order = np.argsort(np.asarray(lengths), kind="stable")[::-1]
    starts = range(0, len(order), batch_size)
    for start in tqdm(starts, desc=description, disable=not progress, leave=False):
        yield order[start : start + batch_size]


def _stack(parts: list[sparse.csr_matrix], rows: list[np.ndarray], width: int) -> sparse.csr_matrix:
    if not parts:
        return sparse.csr_matrix((0, width), dtype=np.float32)
    return sparse.vstack(parts, format="csr")[np.argsort(np.concatenate(rows), kind="stable")]


@torch.inference_mode()
def encode_texts(
    model: Any,
    processor: Any,
    texts: Sequence[str],
    batch_size: int = 64,
    max_length: int = 77,
    progress: bool = False,
) -> sparse.csr_matrix:
    """
    Word vectors of captions.

    Args:
        model: a `LexMotionModel` or `LexMotionTextModel`. processor: its `LexMotionProcessor`. texts: N captions.

    Returns:
        (N, V) float32 CSR, in the order of `texts`.
    """
    empty = [number for number, text in enumerate(texts) if not text.strip()]
    if empty:
        raise ValueError(f"caption {empty[0]} is empty; give every motion a caption or leave it out")
    tower = getattr(model, "text_model", model)
    was_training = tower.training
    tower.eval()
    parts, rows = [], []
    for batch in _batches([len(text) for text in texts], batch_size, "captions", progress):
        tokens = processor.tokenizer(
            [texts[row] for row in batch], padding=True, truncation=True, max_length=max_length, return_tensors="pt"
        ).to(tower.device)
        embeds = tower(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).text_embeds
        parts.append(sparse.csr_matrix(embeds.float().cpu().numpy()))
        rows.append(batch)
    tower.train(was_training)
    return _stack(parts, rows, tower.config.vocab_size)


@torch.inference_mode()
def encode_motions(
    model: Any,
    processor: Any,
    motions: Sequence[np.ndarray],
    fps: float | Sequence[float] | None = None,
    batch_size: int = 64,
    progress: bool = False,
) -> sparse.csr_matrix:
    """
    Word vectors of motions.

    Args:
        model: a `LexMotionModel` or `LexMotionMotionModel`. processor: its processor.
        motions: N arrays (T, J, 3) or (T, 263 | 251). fps: of all, or one for each; the processor's own when None.

    Returns:
        (N, V) float32 CSR, in the order of `motions`.
    """
    tower = getattr(model, "motion_model", model)
    was_training = tower.training
    tower.eval()
    parts, rows = [], []
    for batch in _batches([len(motion) for motion in motions], batch_size, "motions", progress):
        if fps is None or isinstance(fps, int | float):
            groups: list[tuple[np.ndarray, float | None]] = [(batch, fps)]
        else:
            rates = np.asarray([fps[row] for row in batch])
            groups = [(batch[rates == rate], float(rate)) for rate in np.unique(rates)]
        for group, rate in groups:
            values = processor.feature_extractor([motions[row] for row in group], fps=rate, return_tensors="pt").to(
                tower.device
            )
            embeds = tower(**values).motion_embeds
            parts.append(sparse.csr_matrix(embeds.float().cpu().numpy()))
            rows.append(group)
    tower.train(was_training)
    return _stack(parts, rows, tower.config.vocab_size)


def split_motions(dataset: Any) -> tuple[list[np.ndarray], list[float]]:
    """The motions of a prepared split as (T, J, 3) float32 arrays, and their frame rates."""
    dataset = dataset.with_format("numpy")
    motions = [np.asarray(row["motion"], dtype=np.float32) for row in dataset]
    return [motion.reshape(motion.shape[0], -1, 3) for motion in motions], [float(rate) for rate in dataset["fps"]]


def encode_dataset(
    model: Any, processor: Any, dataset: Any, batch_size: int = 64, progress: bool = False
) -> EncodedSplit:
    """Encode a prepared split: every motion, and the first caption of each."""
    motions, rates = split_motions(dataset)
    all_captions = [list(captions) for captions in dataset["captions"]]
    captions = [texts[0] for texts in all_captions]
    return EncodedSplit(
        ids=list(dataset["id"]),
        captions=captions,
        all_captions=all_captions,
        text_embeds=encode_texts(model, processor, captions, batch_size, progress=progress),
        motion_embeds=encode_motions(model, processor, motions, rates, batch_size, progress=progress),
    )


@torch.inference_mode()
def sentence_vectors(texts: Sequence[str], path: str, batch_size: int = 64, progress: bool = False) -> np.ndarray:
    """
    Unit sentence vectors of an independent text model, for the `threshold` protocol (TMR uses all-mpnet-base-v2).

    Args:
        texts: N captions. path: folder or Hub name of an encoder whose mean-pooled states are sentence vectors.

    Returns:
        (N, d) float32.
    """
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(path), AutoModel.from_pretrained(path).eval()
    vectors = np.empty((len(texts), model.config.hidden_size), dtype=np.float32)
    for batch in _batches([len(text) for text in texts], batch_size, "sentences", progress):
        tokens = tokenizer([texts[row] for row in batch], padding=True, truncation=True, return_tensors="pt")
        weight = tokens["attention_mask"][..., None].float()
        states = model(**tokens).last_hidden_state
        pooled = (states * weight).sum(1) / weight.sum(1)
        vectors[batch] = torch.nn.functional.normalize(pooled, dim=-1).numpy()
    return vectors
