"""Which motions of a split are shown: by a rule over their captions, never by how well a model does on them."""

from typing import Any

import numpy as np
from scipy import sparse

CANDIDATES = 100

RULE = (
    "chosen by their captions alone: of {candidates} motions drawn with seed {seed}, those whose captions together "
    "stand best for the captions of the split (each added where it is nearest to most of what is left)"
)


def representative(bags: Any, count: int, candidates: Any = None) -> np.ndarray:
    """
    Items that stand for all: each one added raises the similarity of every item to the nearest chosen one the most.

    The greedy solution of facility location: common contents come first, and no content twice.

    Args:
        bags (`np.ndarray` or `scipy.sparse` matrix of shape `(N, V)`): words of the items' captions, at least zero.
        count (`int`): how many.
        candidates (`np.ndarray`, *optional*): rows to choose from; unset, all.

    Returns:
        `np.ndarray` of shape `(count,)`, int64: rows, first chosen first; of equal ones the first row.

    Raises:
        ValueError: there are fewer candidates than wanted, or `count` is below 1.
    """
    rows = np.arange(bags.shape[0]) if candidates is None else np.sort(np.asarray(candidates, dtype=np.int64))
    if not 1 <= count <= len(rows):
        raise ValueError(f"{count} motions wanted of {len(rows)}: choose from 1 to {len(rows)}.")
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
    """Rows to choose from: `most` of `size`, drawn without replacement, ascending."""
    return np.sort(np.random.default_rng(seed).permutation(size)[:most])
