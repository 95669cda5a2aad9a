"""Averages of views of a motion: its own vector, that of its mirror image with words swapped back, and crops."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


class View(NamedTuple):
    """A motion or its mirror image, from the share `start` to the share `stop` of its frames."""

    mirrored: bool = False
    start: float = 0.0
    stop: float = 1.0


VIEWS = {
    1: (View(),),
    2: (View(), View(mirrored=True)),
    4: (View(), View(mirrored=True), View(stop=0.85), View(start=0.15)),
}


def views_of(count: Any) -> tuple[View, ...]:
    """
    Return the views whose vectors are averaged to encode a motion with more than one.

    Args:
        count: 1: the motion; 2: and its mirror image; 4: and its first 85 % of frames and its last 85 %.

    Raises:
        ValueError: if it is another number.
    """
    if not isinstance(count, int) or isinstance(count, bool) or count not in VIEWS:
        raise ValueError(f"views: got {count!r}; pass 1 (the motion), 2 (and its mirror image) or 4 (and two crops)")
    return VIEWS[count]


def mirrored_columns(mirrored_ids: np.ndarray, active_ids: np.ndarray) -> np.ndarray:
    """
    Return the permutation that swaps the words of mirror images among the words of a model.

    Args:
        mirrored_ids: id of each word's mirror image, see `LexMotionProcessor.mirrored_ids`; later ids have none.
        active_ids: (A,) the model's words. One whose mirror image is not among them stays.

    Returns:
        (A,) place of each word's mirror image in `active_ids`; its own inverse.
    """
    own = np.arange(len(active_ids))
    twins = np.arange(max(len(mirrored_ids), active_ids.max() + 1))
    places = np.full(len(twins), -1)
    places[active_ids], twins[: len(mirrored_ids)] = own, mirrored_ids
    found = places[twins[active_ids]]
    return np.where(found < 0, own, found)


def as_vocabulary(columns: np.ndarray, active_ids: np.ndarray, vocab_size: int) -> np.ndarray:
    """Return a permutation of active words (A,) as one of the vocabulary (V,), in which the other words stay."""
    found = np.arange(vocab_size)
    found[active_ids] = active_ids[columns]
    return found


def average_views(vectors: Any, mirrored: Sequence[bool], columns: np.ndarray) -> Any:
    """
    Average the lexical vectors of views.

    Of the words of all, the average keeps the heaviest, as many as the vectors have on average, so that limits on the
    number of words hold and an index does not grow. Averages of unit vectors find motions equally well.

    Args:
        vectors: (K N, C) CSR: the first view of N motions, then the second, ...
        mirrored: per view whether its words are those of the mirror image, to be swapped.
        columns: (C,) column of each column's mirror image.

    Returns:
        (N, C) float32 CSR.
    """
    from scipy import sparse

    views, shape = len(mirrored), (vectors.shape[0] // len(mirrored), vectors.shape[1])
    total = sparse.csr_matrix(shape, dtype=np.float64)
    for number, swapped in enumerate(mirrored):
        block = vectors[number * shape[0] : (number + 1) * shape[0]].astype(np.float64)
        if swapped:
            block = sparse.csr_matrix((block.data, columns[block.indices], block.indptr), shape=shape)
        total = total + block
    words = np.diff(vectors.indptr).reshape(views, -1).sum(axis=0)
    return (_heaviest(total, (words + views // 2) // views) / views).astype(np.float32)


def _heaviest(rows: Any, kept: np.ndarray) -> Any:
    """Keep the `kept` (N,) largest entries of each row of a CSR matrix; of equal ones, those of the first columns."""
    from scipy import sparse

    rows.sort_indices()
    owner = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    order = np.lexsort((-rows.data, owner))  # stable, and every row stays in its place
    ranks = np.arange(len(order)) - rows.indptr[owner]
    chosen = np.sort(order[ranks < kept[owner]])
    ends = np.bincount(owner[chosen], minlength=rows.shape[0]).cumsum()
    starts = np.concatenate([[0], ends])
    return sparse.csr_matrix((rows.data[chosen], rows.indices[chosen], starts), shape=rows.shape)
