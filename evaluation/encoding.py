"""A prepared split in word space, and the sentence vectors of independent text models."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse
from tqdm.auto import tqdm

from lexmotion.encoding_lexmotion import LinearMaps, longest_first, usable_threads


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


def split_motions(dataset: Any) -> tuple[list[np.ndarray], list[float]]:
    """The motions of a prepared split as (T, J, 3) float32 arrays, and their frame rates."""
    rows = dataset.select_columns(["motion", "fps"]).with_format("numpy")[:]
    return [motion.reshape(len(motion), -1, 3) for motion in rows["motion"]], rows["fps"].tolist()


def encode_dataset(
    model: Any, processor: Any, dataset: Any, batch_size: int = 64, progress: bool = False
) -> EncodedSplit:
    """
    Encode a prepared split: every motion, and the first caption of each.

    In float32 whatever the machine: figures that are published must not depend on where they were computed.
    """
    options = {"processor": processor, "batch_size": batch_size, "precision": "fp32", "progress": progress}
    all_captions = [list(captions) for captions in dataset["captions"]]
    captions = [texts[0] for texts in all_captions]
    return EncodedSplit(
        ids=list(dataset["id"]),
        captions=captions,
        all_captions=all_captions,
        text_embeds=model.encode_text(captions, **options),
        motion_embeds=model.encode_motion(dataset, **options),
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
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    with (
        LinearMaps(torch.float32),
        usable_threads(),
        tqdm(total=len(texts), desc="sentences", disable=not progress, leave=False) as bar,
    ):
        for batch in longest_first(lengths, batch_size):
            tokens = tokenizer([texts[row] for row in batch], padding=True, truncation=True, return_tensors="pt")
            weight = tokens["attention_mask"][..., None].float()
            states = model(**tokens).last_hidden_state
            pooled = (states * weight).sum(1) / weight.sum(1)
            vectors[batch] = torch.nn.functional.normalize(pooled, dim=-1).numpy()
            bar.update(len(batch))
    return vectors
