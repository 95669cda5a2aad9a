"""A prepared split in word space, and the sentence vectors of independent text models."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from lexmotion.encoding_lexmotion import LinearMaps, longest_first, usable_threads

from ..metrics.retrieval import cosine_similarity
from ..metrics.scores import ScoreParts, blend, encode_captions, encode_motions


@dataclass
class EncodedSplit:
    """
    A prepared split in word space, row i of everything is motion i.

    Args:
        ids (N), captions (N): the first caption of each motion; all_captions (N): lists of captions.
        text_embeds, motion_embeds: (N, V) float32 CSR; of a dense baseline (N, D) arrays.
        text_parts, motion_parts, segment_weight, hybrid_weight: what the model's own score is made of, see
            `similarity`; the cosine of the embeddings where there are no parts.
    """

    ids: list[str]
    captions: list[str]
    all_captions: list[list[str]]
    text_embeds: Any
    motion_embeds: Any
    text_parts: ScoreParts | None = None
    motion_parts: ScoreParts | None = None
    segment_weight: float = 0.0
    hybrid_weight: float = 0.0


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
    all_captions = [list(captions) for captions in dataset["captions"]]
    captions = [texts[0] for texts in all_captions]
    texts = encode_captions(model, processor, captions, batch_size, progress)
    motions = encode_motions(model, processor, dataset, batch_size, progress)
    return EncodedSplit(
        ids=list(dataset["id"]),
        captions=captions,
        all_captions=all_captions,
        text_embeds=texts.words,
        motion_embeds=motions.words,
        text_parts=texts,
        motion_parts=motions,
        segment_weight=getattr(model.config, "segment_weight", 0.0),
        hybrid_weight=getattr(model.config, "hybrid_weight", 0.0),
    )


def similarity(
    encoded: EncodedSplit, segment_weight: float | None = None, hybrid_weight: float | None = None
) -> np.ndarray:
    """
    The model's own scores of a split, captions x motions.

    Args:
        segment_weight, hybrid_weight: in place of the model's; 0 and 0 leave the cosine of the word vectors.

    Returns:
        (N, N) float32.
    """
    if encoded.text_parts is None or encoded.motion_parts is None:
        return cosine_similarity(encoded.text_embeds, encoded.motion_embeds)
    return blend(
        encoded.text_parts,
        encoded.motion_parts,
        encoded.segment_weight if segment_weight is None else segment_weight,
        encoded.hybrid_weight if hybrid_weight is None else hybrid_weight,
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

    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModel.from_pretrained(path, use_safetensors=True).eval()
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
