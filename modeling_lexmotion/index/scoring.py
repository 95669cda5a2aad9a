"""
Exact scores of the rows of segments, and the k best.

Postings are grouped by word, so scoring all items takes one pass over the postings of the query's few words; the best
are then found in blocks of `BLOCK` rows, of which only the best are examined closely. Scores are summed in float32
word by word, in the order of the vocabulary, and do not depend on the segment of a row.
"""

import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .engine import Query, Ranked, WordPieces
from .segments import BLOCK, Segment

ACCELERATED_ENTRIES = 1 << 20  # with fewer, compiling takes longer than it saves


@functools.cache
def compiled() -> Callable | None:
    """Return the scoring loop compiled by numba, once for all processes; None if numba is not installed."""
    try:
        import numba
    except ImportError:
        return None

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

    try:
        return numba.njit(nogil=True, cache=True)(accumulate)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        return numba.njit(nogil=True)(accumulate)


class Scorer:
    """
    Ranks the rows of segments.

    Args:
        accelerate: use numba; None uses it if it is installed and a segment is large.

    Raises:
        ImportError: if `accelerate` is True and numba is not installed.
    """

    def __init__(self, accelerate: bool | None = None):
        if accelerate and compiled() is None:
            raise ImportError("accelerate=True without numba; run `pip install lexmotion[index]` or pass None")
        self.accelerate = accelerate
        self._scratch = threading.local()

    def rank(
        self, segments: Sequence[Segment], queries: Sequence[Query], k: int, must: WordPieces, must_not: WordPieces
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
        """Return the scores of a segment's rows, padded to full blocks; overwritten by the thread's next call."""
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
        """Return two float32 arrays (rows,) owned by this thread."""
        scratch = getattr(self._scratch, "arrays", None)
        if scratch is None or scratch.shape[1] < rows:
            scratch = self._scratch.arrays = np.empty((2, rows), np.float32)
        return scratch[0, :rows], scratch[1, :rows]


def best_rows(scores: np.ndarray, k: int) -> np.ndarray:
    """
    Return the rows of the k largest scores above zero, and all that tie with the k-th.

    Args:
        scores: (rows,) float32, at least zero; rows is a multiple of `BLOCK`.
    """
    blocks = scores.reshape(-1, BLOCK)
    maxima = blocks.max(axis=1)
    # The k-th largest block maximum is a lower bound of the k-th largest score.
    bound = np.partition(maxima, -k)[-k] if k < len(maxima) else np.float32(0)
    chosen = np.flatnonzero((maxima >= bound) & (maxima > 0))
    values = blocks[chosen].ravel()
    rows = (chosen[:, None] * BLOCK + np.arange(BLOCK)).ravel()
    candidates = np.flatnonzero((values >= bound) & (values > 0))
    if len(candidates) > k:
        values = values[candidates]
        candidates = candidates[values >= np.partition(values, -k)[-k]]
    return rows[candidates]


def _excluded(segment: Segment, must: WordPieces, must_not: WordPieces) -> np.ndarray | None:
    """Return the rows that cannot be hits, as numbers or (rows,) bool; None if there are none."""
    if not must and not must_not:
        return segment.deleted if len(segment.deleted) else None
    out = ~segment.kept()
    for pieces in must:
        out |= ~_having(segment, pieces)
    for pieces in must_not:
        out |= _having(segment, pieces)
    return out


def _having(segment: Segment, pieces: Sequence[int]) -> np.ndarray:
    """Return (rows,) bool: rows with all pieces of a word."""
    having = np.ones(segment.rows, bool)
    for piece in pieces:
        one = np.zeros(segment.rows, bool)
        one[segment.posting(piece)[0]] = True
        having &= one
    return having


def _of_equals(segment: Segment, values: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return scores and rows of hits; if ids ascend with rows, only as many ties of the last as are needed."""
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
    """Return the k best of all segments, smaller ids first among ties."""
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
