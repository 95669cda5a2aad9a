"""
Exact scores of the rows of segments, and the best of them.

A vector of words is a list of postings, so the score of all items is a sum over the few words of a query: one pass
over the postings of each, then the best of a thousand rows at a time, and a closer look at the best of these. Scores
are summed in float32 word by word, in the order of the vocabulary, and are the same whatever segments a row is in.
"""

import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .engine import Query, Ranked
from .segments import BLOCK, Segment

ACCELERATED_ENTRIES = 1 << 20  # below, compiling takes longer than it saves


@functools.cache
def compiled() -> Callable | None:
    """Scores of all rows, compiled by numba; None if it is not installed."""
    try:
        import numba
    except ImportError:
        return None

    @numba.njit(nogil=True)
    def accumulate(starts, documents, weights, columns, words, slots, query, scores):
        scores[:] = 0
        for place in range(len(words)):
            factor = query[place]
            if slots[place] >= 0:
                column = columns[slots[place]]
                for row in range(len(scores)):
                    scores[row] += factor * column[row]
            else:
                for entry in range(starts[words[place]], starts[words[place] + 1]):
                    scores[documents[entry]] += factor * weights[entry]

    return accumulate


class Scorer:
    """
    Ranks the rows of segments.

    Args:
        accelerate: by numba; None: if it is installed and a segment is large.

    Raises:
        ImportError: `accelerate` is True, and numba is not installed.
    """

    def __init__(self, accelerate: bool | None = None):
        if accelerate and compiled() is None:
            raise ImportError("accelerate=True needs numba: run `pip install lexmotion[index]`, or leave it out")
        self.accelerate = accelerate
        self._scratch = threading.local()

    def rank(
        self,
        segments: Sequence[Segment],
        queries: Sequence[Query],
        k: int,
        must: Sequence[Sequence[int]],
        must_not: Sequence[Sequence[int]],
    ) -> list[Ranked]:
        """See `IndexEngine.rank`."""
        excluded = [_excluded(segment, must, must_not) for segment in segments]
        ranked: list[Ranked] = []
        for query in queries:
            parts = []
            for place, (segment, out) in enumerate(zip(segments, excluded, strict=True)):
                scores = self._scores(segment, *query)
                if out is not None:
                    scores[: segment.rows][out] = 0
                rows = best_rows(scores, k)
                values, rows = _of_equals(segment, scores[rows], rows, k)
                parts.append((values, place, rows))
            ranked.append((_best(parts, segments, k), segments))
        return ranked

    def _scores(self, segment: Segment, words: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Scores of a segment's rows, rounded up to whole blocks; overwritten by the next call in this thread."""
        rows = segment.columns.shape[1]
        scores, products = self._scratch_of(rows)
        slots = segment.slots(words)
        if self.accelerate or (self.accelerate is None and segment.entries >= ACCELERATED_ENTRIES):
            accumulate = compiled()
            if accumulate is not None:
                postings = (segment.starts, segment.documents, segment.weights)
                accumulate(*postings, segment.columns, words, slots, weights, scores)
                return scores
        scores[:] = 0
        for word, slot, weight in zip(words.tolist(), slots.tolist(), weights, strict=True):
            if slot >= 0:
                scores += np.multiply(segment.columns[slot], weight, out=products)
            else:
                documents, values = segment.posting(word)
                np.add.at(scores, documents, values * weight)
        return scores

    def _scratch_of(self, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Two arrays (rows,) float32 of this thread."""
        scratch = getattr(self._scratch, "arrays", None)
        if scratch is None or scratch.shape[1] < rows:
            scratch = self._scratch.arrays = np.empty((2, rows), np.float32)
        return scratch[0, :rows], scratch[1, :rows]


def best_rows(scores: np.ndarray, k: int) -> np.ndarray:
    """
    Rows of the k largest scores above zero, and of all that are equal to the k-th.

    Args:
        scores: (rows,) float32, a multiple of `BLOCK`, at least zero.
    """
    blocks = scores.reshape(-1, BLOCK)
    maxima = blocks.max(axis=1)
    # The k-th largest of the blocks' best is no more than the k-th largest of all.
    bound = np.partition(maxima, -k)[-k] if k < len(maxima) else np.float32(0)
    chosen = np.flatnonzero((maxima >= bound) & (maxima > 0))
    values = blocks[chosen].ravel()
    rows = (chosen[:, None] * BLOCK + np.arange(BLOCK)).ravel()
    candidates = np.flatnonzero((values >= bound) & (values > 0))
    if len(candidates) > k:
        values = values[candidates]
        candidates = candidates[values >= np.partition(values, -k)[-k]]
    return rows[candidates]


def _excluded(segment: Segment, must: Sequence[Sequence[int]], must_not: Sequence[Sequence[int]]) -> np.ndarray | None:
    """Rows that are no hits, as numbers or (rows,) bool; None when all may be."""
    if not must and not must_not:
        return segment.deleted if len(segment.deleted) else None
    out = ~segment.kept()
    for pieces in must:
        out |= ~_having(segment, pieces)
    for pieces in must_not:
        out |= _having(segment, pieces)
    return out


def _having(segment: Segment, pieces: Sequence[int]) -> np.ndarray:
    """(rows,) bool: items with all pieces of a word."""
    having = np.ones(segment.rows, bool)
    for piece in pieces:
        one = np.zeros(segment.rows, bool)
        one[segment.posting(piece)[0]] = True
        having &= one
    return having


def _of_equals(segment: Segment, values: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores and rows of hits; where ids ascend with rows, of those equal to the last only as many as are needed."""
    if segment.ascending and len(rows) > k:
        last = values.min()
        ahead = values > last
        equal = np.flatnonzero(~ahead)[: k - int(ahead.sum())]
        chosen = np.concatenate([np.flatnonzero(ahead), equal])
        values, rows = values[chosen], rows[chosen]
    return values, rows


def _best(
    parts: Sequence[tuple[np.ndarray, int, np.ndarray]], segments: Sequence[Segment], k: int
) -> list[tuple[float, Any, int, int]]:
    """The k best of all segments, smaller ids first among equals."""
    if not parts:
        return []
    values = np.concatenate([part[0] for part in parts])
    places = np.concatenate([np.full(len(part[0]), part[1]) for part in parts])
    rows = np.concatenate([part[2] for part in parts])
    if len(values) > k:
        near = values >= np.partition(values, -k)[-k]
        values, places, rows = values[near], places[near], rows[near]
    found = zip(values.tolist(), places.tolist(), rows.tolist(), strict=True)
    return sorted((-value, segments[place].id(row), place, row) for value, place, row in found)[:k]
