"""The score of a caption and a motion, a blend of the cosines of their words, their segments and their dense vectors.

Captions and motions are encoded once, in parts; weights are chosen afterwards.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from .retrieval import ScoreRows, unit_rows


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


def blend(texts: ScoreParts, motions: ScoreParts, segment_weight: float, hybrid_weight: float) -> ScoreRows:
    """
    Return the scores (1 - h) [(1 - w) cosine(words) + w cosine(segments)] + h cosine(dense) of one model.

    Args:
        texts, motions: N captions and M motions.
        segment_weight, hybrid_weight: w and h; the weight of a part that the model does not have is 0.

    Returns:
        (N, M) float32, computed when it is read.
    """
    words = _products(unit_rows(texts.words), unit_rows(motions.words))
    segments = dense = None
    if texts.segments is not None and motions.segments is not None and segment_weight:
        segments = _products(texts.segments, motions.segments)
    if texts.dense is not None and motions.dense is not None and hybrid_weight:
        dense = _products(texts.dense, motions.dense)

    def rows(start: int, stop: int) -> np.ndarray:
        scores = words(start, stop)
        if segments is not None:
            scores = (1 - segment_weight) * scores + segment_weight * segments(start, stop)
        if dense is not None:
            scores = (1 - hybrid_weight) * scores + hybrid_weight * dense(start, stop)
        return scores.astype(np.float32, copy=False)

    return ScoreRows((texts.words.shape[0], motions.words.shape[0]), rows)


def _products(a: Any, b: Any) -> Callable[[int, int], np.ndarray]:
    """Return a function for blocks of rows of the product of (N, D) and the transpose of (M, D)."""
    if not sparse.issparse(a):
        return lambda start, stop: a[start:stop] @ b.T
    # A few captions as dense columns: faster than the product of sparse matrices, whose rows have few zeros.
    return lambda start, stop: (b @ np.ascontiguousarray(a[start:stop].toarray().T)).T


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
