"""What an engine does for an index, and the rows that pass between them."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from scipy import sparse


@dataclass
class Rows:
    """
    Items of an index.

    Args:
        ids: N integers or texts. vectors: (N, V) CSR of length 1, float32, ascending words. metadata: N dictionaries.
    """

    ids: list[Any]
    vectors: sparse.csr_matrix
    metadata: list[dict[str, Any]]

    @classmethod
    def of(cls, found: Sequence[tuple[Any, Sequence[int], Sequence[float], dict[str, Any]]], width: int) -> "Rows":
        """From an id, words, their weights and metadata of each."""
        starts = np.cumsum([0, *(len(words) for _, words, _, _ in found)])
        indices = np.fromiter((word for _, words, _, _ in found for word in words), np.int32, int(starts[-1]))
        weights = np.fromiter((one for _, _, values, _ in found for one in values), np.float32, int(starts[-1]))
        vectors = sparse.csr_matrix((weights, indices, starts), shape=(len(found), width))
        vectors.sort_indices()
        return cls([row[0] for row in found], vectors, [row[3] for row in found])

    def each(self) -> Iterator[tuple[Any, list[int], list[float], dict[str, Any]]]:
        """Inverse of `of`."""
        bounds = self.vectors.indptr.tolist()
        for row, (id, metadata) in enumerate(zip(self.ids, self.metadata, strict=True)):
            own = slice(bounds[row], bounds[row + 1])
            yield id, self.vectors.indices[own].tolist(), self.vectors.data[own].tolist(), metadata

    def weights_of(self, words: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Of each word in each row, (len(words), len(rows)) float32; 0 where it is not."""
        return self.vectors[rows][:, words].toarray().T

    def item_metadata(self, row: int) -> dict[str, Any]:
        return self.metadata[row]


@dataclass
class Books:
    """
    What an engine knows of an index beside its rows.

    Args:
        id_kind: `"int"` or `"str"`, None before the first item. next_number: the id given next where none are.
        items: how many there are.
    """

    id_kind: str | None = None
    next_number: int = 0
    items: int = 0


class IndexEngine(Protocol):
    """
    Keeps the rows of one index, and finds those with the largest inner products.

    An engine is made from an address, a table and the index's folder, see `connect`, and connects when it is asked
    for something first: it raises `ConnectionError` with the address when nobody answers.

    Attributes:
        most: rows that `nearest` can return.
        transactions: whether `change` keeps other writers out; else the index's folder is locked.
    """

    most: ClassVar[int]
    transactions: ClassVar[bool]

    def check(self) -> None:
        """Whether the address can be used. Makes nothing: a file, and the index's folder, need not be there yet."""

    def entry(self) -> dict[str, Any]:
        """What the index's folder says of the engine, `connect` takes it; never a password."""

    def create(self, width: int, id_kind: str | None) -> None:
        """A new table for vectors of `width` words."""

    def open(self, width: int) -> None:
        """Look whether the table is there. Raises FileNotFoundError, or ValueError where its vectors are others."""

    def books(self) -> Books: ...

    def change(self) -> AbstractContextManager[Books]:
        """Around every change. What is not acknowledged is undone where the engine has transactions."""

    def keep(self, books: Books) -> None:
        """Store the books, in a change and before the rows they are of."""

    def present(self, ids: Sequence[Any]) -> set[Any]:
        """Those of the ids that are there."""

    def put(self, rows: Rows, replace: bool) -> None:
        """Add rows, in a change; `replace`: some of them are there already."""

    def remove(self, ids: Sequence[Any]) -> None:
        """Delete rows that are there, in a change."""

    def metadata(self, id: Any) -> dict[str, Any] | None:
        """Of an item; None where there is none."""

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

    def rows(self) -> Iterator[Rows]:
        """All rows, some at a time."""

    def optimize(self) -> None:
        """What the engine needs after many changes to be as fast as it can."""

    def info(self) -> dict[str, Any]:
        """`bytes` and the like."""

    def drop(self) -> None:
        """Remove the table."""

    def close(self) -> None:
        """Disconnect; what is asked next connects again."""
