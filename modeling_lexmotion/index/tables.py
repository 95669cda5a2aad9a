"""
Base of the engines that keep the rows in a table of another system.

The system returns candidates, which are scored here as the embedded engine does: scores are equal to the last bit, and
of equal scores smaller ids come first, unless more than `most` rows tie with the last hit up to rounding. The index's
folder stays as it was built, so copies of it work elsewhere if the address is given; the index always shows the
table's current rows.
"""

import contextlib
import hashlib
import socket
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from scipy import sparse

from .engine import IndexEngine, Metadata, Query, Ranked, Rows, WordPieces
from .folder import IndexFolder
from .segments import Segment, inverse_norms, is_rows_file, make_segment, metadata_line

MARK = "lexmotion-index"
MARGIN = 16  # rows requested beyond k, so that ties can be put in order
ROUNDING = 1e-5  # engines sum in another order; scores are at most 1


def mark_of(folder: Path | None, table: str) -> str:
    """
    Return the mark by which an index knows a table that it made: it depends on the machine and on the folder itself,
    so a copy of the folder has another, and the author of a foreign manifest cannot know it.
    """
    machine = ""
    with contextlib.suppress(OSError):
        machine = Path("/etc/machine-id").read_text().strip()
    place = None if folder is None or not folder.exists() else folder.stat().st_ino
    text = "\n".join([machine or f"{uuid.getnode():x}", socket.gethostname(), str(place), table])
    return f"{MARK} {hashlib.sha256(text.encode()).hexdigest()[:32]}"


def made_here(entry: Mapping[str, Any], folder: Path | None) -> bool:
    """Return whether the index in this folder made the table of an engine's entry, or has it in a file there."""
    return is_rows_file(entry["uri"]) or entry.get("mark") == mark_of(folder, entry["table"])


class TableEngine(IndexEngine):
    """`IndexEngine` over a table; `most` is the number of rows that `nearest` can return."""

    most: ClassVar[int]
    uri: str
    table: str

    def __init__(self, folder: IndexFolder):
        self._folder = folder

    @property
    def mark(self) -> str:
        """See `mark_of`."""
        return mark_of(self._folder.path, self.table)

    def create(self, width: int, id_kind: str | None) -> None:
        """Create the table with its `mark`, for vectors of `width` words."""
        raise NotImplementedError

    def found_mark(self) -> str | None:
        """Return the mark of the table; "" if it has none, None if it does not exist."""
        raise NotImplementedError

    def remove_table(self) -> None:
        """Delete the table."""
        raise NotImplementedError

    def drop(self) -> None:
        """Delete all rows permanently. Raises PermissionError if the table is not this index's own."""
        found = self.found_mark()
        if found is not None and found != self.mark:
            raise PermissionError(f"{self.table} at {self.uri}: not made by the index in {self._folder.path}")
        if found is not None:
            self.remove_table()
        self.close()

    def nearest(
        self, words: np.ndarray, weights: np.ndarray, count: int, must: Sequence[int], must_not: WordPieces
    ) -> Rows:
        """
        Return at most `count` rows of the largest inner products, best first up to the engine's rounding.

        Args:
            words, weights: of the query, at least one.
            must: pieces that every row contains.
            must_not: words of which no row contains all pieces.
        """
        raise NotImplementedError

    @contextlib.contextmanager
    def creating(self, width: int, id_kind: str | None) -> Iterator[None]:
        self.create(width, id_kind)
        try:
            yield
            self.optimize()
            self._folder.commit(replace(self._folder.state, engine=self.entry() | {"mark": self.mark}))
        except BaseException:
            self.drop()
            raise

    def rank(self, queries: Sequence[Query], k: int, must: WordPieces, must_not: WordPieces) -> list[Ranked]:
        if k > self.most:
            raise ValueError(f"k: got {k}; pass at most {self.most}, the limit of this engine")
        pieces = sorted({piece for word in must for piece in word})
        ranked: list[Ranked] = []
        for words, weights in queries:
            rows, scores = self._candidates(words, weights, k, pieces, must_not)
            positive = np.flatnonzero(scores > 0).tolist()
            ranked.append((sorted((-float(scores[row]), rows.ids[row], 0, row) for row in positive)[:k], (rows,)))
        return ranked

    def _candidates(
        self, words: np.ndarray, weights: np.ndarray, k: int, must: Sequence[int], must_not: WordPieces
    ) -> tuple[Rows, np.ndarray]:
        """Return rows that include the k best, and their scores summed as the embedded engine does."""
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
                return rows, scores  # all others are worse than the k-th, whatever their rounding
            count *= 4

    def segments(self) -> list[Segment]:
        rows = Rows.join(self.rows(), self._folder.state.vocab_size)
        if not rows.ids:
            return []
        ids = np.array(rows.ids, np.int64) if isinstance(rows.ids[0], int) else rows.ids
        return [make_segment(rows.vectors, ids, rows.metadata)]

    def used(self) -> np.ndarray:
        """Return (V,) bool, all True: an engine cannot quickly tell which words its items have."""
        return np.ones(self._folder.state.vocab_size, bool)

    def wait(self) -> None:
        """Return at once: there is no background work."""

    def refresh(self) -> bool:
        return False


def unit_rows(ids: Any, vectors: sparse.csr_matrix, metadata: Metadata) -> Rows:
    """
    Convert the arguments of `IndexEngine.put` to rows of length 1, rounded once as in a segment. Raises ValueError if
    metadata is no JSON.
    """
    lengths = np.repeat(inverse_norms(vectors), np.diff(vectors.indptr))
    unit = (vectors.data * lengths).astype(np.float32)
    matrix = sparse.csr_matrix((unit, vectors.indices, vectors.indptr), shape=vectors.shape)
    listed = ids.tolist() if isinstance(ids, np.ndarray) else ids
    for id, item in zip(listed, metadata or (), strict=bool(metadata)):
        metadata_line(id, item)
    return Rows(listed, matrix, list(metadata or [{}] * len(listed)))
