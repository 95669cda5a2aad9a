"""
What engines share that keep the rows in a table of another system.

The system says which rows may be the best, and how these score is computed here, as the embedded engine does: the
scores are the same to the last bit, and of equal scores smaller ids come first, as long as no more than `most` rows
are as good as the last hit to rounding. The index's folder stays as it was built, so copies of it work elsewhere. The
index is always as the table has it.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from scipy import sparse

from .engine import IndexEngine, Query, Ranked, Rows
from .folder import IndexFolder
from .segments import Segment, inverse_norms, make_segment

MARGIN = 16  # rows asked for beyond k, among which equals are put in order
ROUNDING = 1e-5  # engines sum in other orders; scores are at most 1


class TableEngine(IndexEngine):
    """
    See `IndexEngine`.

    Args:
        folder: of the index.

    Attributes:
        most: rows that `nearest` can return.
    """

    most: ClassVar[int]

    def __init__(self, folder: IndexFolder):
        self._folder = folder

    def create(self, width: int, id_kind: str | None) -> None:
        """Make the table, for vectors of `width` words."""
        raise NotImplementedError

    def nearest(
        self,
        words: np.ndarray,
        weights: np.ndarray,
        count: int,
        must: Sequence[int],
        must_not: Sequence[Sequence[int]],
    ) -> Rows:
        """
        At most `count` rows of the largest inner products, best first to the engine's rounding.

        Args:
            words, weights: of the query, at least one. must: words every row has. must_not: none of these are all in
                a row.
        """
        raise NotImplementedError

    @contextlib.contextmanager
    def creating(self, width: int, id_kind: str | None) -> Iterator[None]:
        self.create(width, id_kind)
        try:
            yield
            self.optimize()
            self._folder.commit(replace(self._folder.state, engine=self.entry()))
        except BaseException:
            self.drop()
            raise

    def rank(
        self, queries: Sequence[Query], k: int, must: Sequence[Sequence[int]], must_not: Sequence[Sequence[int]]
    ) -> list[Ranked]:
        if k > self.most:
            raise ValueError(f"this engine finds at most {self.most} items at once, got k={k}")
        pieces = sorted({piece for word in must for piece in word})
        ranked: list[Ranked] = []
        for words, weights in queries:
            rows, scores = self._candidates(words, weights, k, pieces, must_not)
            positive = np.flatnonzero(scores > 0).tolist()
            ranked.append((sorted((-float(scores[row]), rows.ids[row], 0, row) for row in positive)[:k], (rows,)))
        return ranked

    def _candidates(
        self, words: np.ndarray, weights: np.ndarray, k: int, must: Sequence[int], must_not: Sequence[Sequence[int]]
    ) -> tuple[Rows, np.ndarray]:
        """Rows among which the k best are, and their scores summed as the embedded engine does."""
        count = k + MARGIN if len(words) else 0
        while True:
            count = min(count, self.most)
            if not count:
                return Rows.of([], self._folder.state.vocab_size), np.zeros(0, np.float32)
            rows = self.nearest(words, weights, count, must, must_not)
            scores = np.zeros(len(rows.ids), np.float32)
            for column, weight in zip(rows.weights_of(words, np.arange(len(scores))), weights, strict=True):
                scores += column * weight
            if len(scores) < count or count == self.most:
                return rows, scores
            last = scores.min()
            if last == 0 or last < np.partition(scores, -k)[-k] - ROUNDING:
                return rows, scores  # the others are worse than the k-th, however they were rounded
            count *= 4

    def segments(self) -> list[Segment]:
        rows = Rows.join(self.rows(), self._folder.state.vocab_size)
        if not rows.ids:
            return []
        ids = np.array(rows.ids, np.int64) if isinstance(rows.ids[0], int) else rows.ids
        return [make_segment(rows.vectors, ids, rows.metadata)]

    def used(self) -> np.ndarray:
        """(V,) bool: all words; which ones an item has, an engine cannot tell quickly."""
        return np.ones(self._folder.state.vocab_size, bool)

    def wait(self) -> None:
        """There is nothing to wait for."""

    def refresh(self) -> bool:
        return False


def unit_rows(ids: Any, vectors: sparse.csr_matrix, metadata: Sequence[dict] | None) -> Rows:
    """Items as `IndexEngine.put` gets them, with vectors of length 1, rounded once as in a segment."""
    lengths = np.repeat(inverse_norms(vectors), np.diff(vectors.indptr))
    unit = (vectors.data * lengths).astype(np.float32)
    matrix = sparse.csr_matrix((unit, vectors.indices, vectors.indptr), shape=vectors.shape)
    listed = ids.tolist() if isinstance(ids, np.ndarray) else ids
    return Rows(listed, matrix, list(metadata or [{}] * len(listed)))
