"""The rule that chooses the motions to show: by their captions, never by a model's results on them."""

from typing import Any

import numpy as np
from scipy import sparse

CANDIDATES = 100

RULE = (
    "chosen only by their captions: of {candidates} motions drawn with seed {seed}, those whose captions best "
    "represent the captions of the split (greedily, each nearest to most captions not yet represented)"
)


def representative(bags: Any, count: int, candidates: Any = None) -> np.ndarray:
    """
    Choose items that represent all: each one raises the similarity of every item to the nearest chosen one the most.

    This is the greedy solution of facility location: common contents come first, and none twice.

    Args:
        bags: words of the items' captions, array or sparse matrix (N, V), at least zero.
        count: number of items.
        candidates: rows to choose from; None uses all.

    Returns:
        Rows (count,) int64 in the order chosen; the first row among equals.

    Raises:
        ValueError: if there are fewer candidates than `count`, or `count` is below 1.
    """
    rows = np.arange(bags.shape[0]) if candidates is None else np.sort(np.asarray(candidates, dtype=np.int64))
    if not 1 <= count <= len(rows):
        raise ValueError(f"count: got {count} of {len(rows)} motions; pass 1 to {len(rows)}")
    bags = sparse.csr_array(bags).astype(np.float64)
    lengths = np.sqrt(np.asarray(bags.multiply(bags).sum(axis=1))).ravel()
    unit = sparse.csr_array(sparse.diags_array(1.0 / np.maximum(lengths, 1e-12)) @ bags)
    similarity = (unit[rows] @ unit.T).toarray()  # (C, N)
    covered = np.zeros(similarity.shape[1])
    chosen: list[int] = []
    for _ in range(count):
        gain = np.maximum(similarity - covered, 0.0).sum(axis=1)
        gain[chosen] = -1.0
        best = int(gain.argmax())
        chosen.append(best)
        covered = np.maximum(covered, similarity[best])
    return rows[chosen]


def drawn_candidates(size: int, seed: int, most: int = CANDIDATES) -> np.ndarray:
    """Draw `most` of `size` rows without replacement, ascending."""
    return np.sort(np.random.default_rng(seed).permutation(size)[:most])
