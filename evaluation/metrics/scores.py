"""The score of a caption and a motion, a blend of the cosines of their words, their segments and their dense vectors.

Captions and motions are encoded once, in parts; weights are chosen afterwards.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from .retrieval import cosine_similarity, unit_rows


@dataclass
class ScoreParts:
    """
    The parts of a score for N captions or N motions.

    Args:
        words: (N, V) float32 CSR, as in the inverted index; of a dense baseline an (N, D) array.
        segments: (N, K A) float32 CSR, unit vectors of the K segments side by side, divided by the root of K: the
            product with another's is the mean cosine. None if the model pools none.
        dense: (N, d) float32 unit vectors; None if the model has none.
    """

    words: Any
    segments: sparse.csr_matrix | None = None
    dense: np.ndarray | None = None


def blend(texts: ScoreParts, motions: ScoreParts, segment_weight: float, hybrid_weight: float) -> np.ndarray:
    """
    Compute the scores (1 - h) [(1 - w) cosine(words) + w cosine(segments)] + h cosine(dense) of one model.

    Args:
        texts, motions: N captions and M motions.
        segment_weight, hybrid_weight: w and h; the weight of a part that the model does not have is 0.

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
    Build vectors whose products are the scores of [`blend`], for tools that take one vector per item.

    Args:
        parts: N captions or N motions.
        segment_weight, hybrid_weight: see `blend`.

    Returns:
        (N, S) float32, CSR if the words are: the unit vectors of words, segments and dense part side by side, each
        times the root of its weight.
    """
    w = 0.0 if parts.segments is None else segment_weight
    h = 0.0 if parts.dense is None else hybrid_weight
    weighted = (((1 - h) * (1 - w), unit_rows(parts.words)), ((1 - h) * w, parts.segments), (h, parts.dense))
    columns = [float(weight) ** 0.5 * vectors for weight, vectors in weighted if weight]
    if not sparse.issparse(columns[0]):
        return np.hstack(columns).astype(np.float32, copy=False)
    return sparse.hstack([sparse.csr_matrix(vectors) for vectors in columns], format="csr", dtype=np.float32)
