"""
The score of a caption and a motion, from what it is blended of: words of the whole, words of segments, dense vectors.

Captions and motions are encoded once, in parts; weights are chosen afterwards.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse
from tqdm.auto import tqdm

from lexmotion.baselines.retriever import RetrieverModel
from lexmotion.encoding_lexmotion import LinearMaps, longest_first, usable_threads

from .retrieval import cosine_similarity, unit_rows


@dataclass
class ScoreParts:
    """
    N captions, or N motions, as the parts of a score.

    Args:
        words: (N, V) float32 CSR, what the inverted index holds; of a dense baseline an (N, D) array.
        segments: (N, K A) float32 CSR, unit vectors of the K segments side by side, over the root of K: the product
            with another's is the mean cosine. None: the model pools none.
        dense: (N, d) float32 unit vectors. None: the model has none.
    """

    words: Any
    segments: sparse.csr_matrix | None = None
    dense: np.ndarray | None = None


def has_parts(model: Any) -> bool:
    """Whether the model's score is more than the cosine of its vectors."""
    return not isinstance(model, RetrieverModel) and (
        model.config.num_segments > 1 or model.config.dense_size is not None
    )


def encode_captions(
    model: Any, processor: Any, texts: Sequence[str], batch_size: int = 64, progress: bool = False
) -> ScoreParts:
    """N captions in float32. model: a `LexMotionModel` or a baseline. processor: its `LexMotionProcessor`."""
    if not has_parts(model) and not isinstance(model, RetrieverModel):
        options = {"processor": processor, "batch_size": batch_size, "precision": "fp32", "progress": progress}
        return ScoreParts(model.encode_text(texts, **options))
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))

    def collate(places: np.ndarray) -> dict[str, torch.Tensor]:
        tokens = processor(text=[texts[place] for place in places], return_tensors="pt")
        return {name: tokens[name] for name in ("input_ids", "attention_mask")}

    return _encode(model, model.get_text_features, "text", lengths, collate, batch_size, progress)


def encode_motions(
    model: Any, processor: Any, dataset: Any, batch_size: int = 64, progress: bool = False
) -> ScoreParts:
    """The N motions of a prepared split in float32. model, processor: as in `encode_captions`."""
    if not has_parts(model) and not isinstance(model, RetrieverModel):
        options = {"processor": processor, "batch_size": batch_size, "precision": "fp32", "progress": progress}
        return ScoreParts(model.encode_motion(dataset, **options))
    rows = dataset.select_columns(["motion", "fps"]).with_format("numpy")

    def collate(places: np.ndarray) -> dict[str, torch.Tensor]:
        chosen = rows[places]
        clips = [clip.reshape(len(clip), -1, 3) for clip in chosen["motion"]]
        return processor.feature_extractor(clips, fps=chosen["fps"].tolist(), return_tensors="pt")

    as_they_come = np.zeros(len(dataset))
    return _encode(model, model.get_motion_features, "motion", as_they_come, collate, batch_size, progress)


@torch.inference_mode()
def _encode(
    model: Any,
    features: Callable[..., Any],
    side: str,
    lengths: np.ndarray,
    collate: Callable[[np.ndarray], dict[str, torch.Tensor]],
    batch_size: int,
    progress: bool,
) -> ScoreParts:
    """Batches of like length through `features`, then back in the order of `lengths`."""
    found: list[tuple[Any, Any, Any]] = []
    batches = list(longest_first(lengths, batch_size))
    was_training = model.training
    model.eval()
    try:
        with LinearMaps(torch.float32), usable_threads():
            for places in tqdm(batches, desc=f"{side}s", disable=not progress, leave=False):
                found.append(_parts(model, features(**_to(collate(places), model.device)), side))
    finally:
        model.train(was_training)
    order = np.concatenate(batches).argsort()

    def joined(parts: Sequence[Any]) -> Any:
        if parts[0] is None:
            return None
        return sparse.vstack(parts, format="csr")[order] if sparse.issparse(parts[0]) else np.concatenate(parts)[order]

    return ScoreParts(*map(joined, zip(*found, strict=True)))


def _to(batch: dict[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    return {name: value.to(device) for name, value in batch.items()}


def _parts(model: Any, output: Any, side: str) -> tuple[Any, Any, Any]:
    """Words, segments and dense vectors of a batch."""
    if isinstance(model, RetrieverModel):
        embeds = output.float().cpu().numpy()
        return sparse.csr_matrix(embeds) if model.config.is_lexical else embeds, None, None
    words = sparse.csr_matrix(output[f"{side}_embeds"].float().cpu().numpy())
    segments = dense = None
    if output.segment_scores is not None:
        head = (model.text_model if side == "text" else model.motion_model).lexical_head
        weights = torch.nn.functional.normalize(head.weigh(output.segment_scores).float(), dim=-1)  # (B, K, A)
        segments = sparse.csr_matrix((weights / weights.shape[1] ** 0.5).flatten(1).cpu().numpy())
    if output.dense_embeds is not None:
        dense = torch.nn.functional.normalize(output.dense_embeds.float(), dim=-1).cpu().numpy()
    return words, segments, dense


def blend(texts: ScoreParts, motions: ScoreParts, segment_weight: float, hybrid_weight: float) -> np.ndarray:
    """
    Scores of captions with motions, of one model: (1 - h) [(1 - w) cosine(words) + w cosine(segments)] + h cosine
    (dense).

    Args:
        texts: N captions. motions: M motions. segment_weight: w, hybrid_weight: h; of parts the model does not have
            they count nothing.

    Returns:
        (N, M) float32.
    """
    scores = cosine_similarity(texts.words, motions.words)
    if texts.segments is not None and motions.segments is not None and segment_weight:
        ordered = (texts.segments @ motions.segments.T).toarray()
        scores = (1 - segment_weight) * scores + segment_weight * ordered
    if texts.dense is not None and motions.dense is not None and hybrid_weight:
        scores = (1 - hybrid_weight) * scores + hybrid_weight * (texts.dense @ motions.dense.T)
    return scores.astype(np.float32, copy=False)


def score_vectors(parts: ScoreParts, segment_weight: float, hybrid_weight: float) -> Any:
    """
    Vectors whose products are the scores of [`blend`], for whoever takes one vector an item.

    Args:
        parts: N captions or N motions. segment_weight, hybrid_weight: as of `blend`.

    Returns:
        (N, S) float32, CSR where the words are: the unit vector of the words, then the segments', then the dense one,
        each times the root of its weight.
    """
    w = 0.0 if parts.segments is None else segment_weight
    h = 0.0 if parts.dense is None else hybrid_weight
    weighted = (((1 - h) * (1 - w), unit_rows(parts.words)), ((1 - h) * w, parts.segments), (h, parts.dense))
    columns = [float(weight) ** 0.5 * vectors for weight, vectors in weighted if weight]
    if not sparse.issparse(columns[0]):
        return np.hstack(columns).astype(np.float32, copy=False)
    return sparse.hstack([sparse.csr_matrix(vectors) for vectors in columns], format="csr", dtype=np.float32)
