"""The interface of index engines, and the rows that engines and the index exchange."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from scipy import sparse

from .segments import Segment

Query = tuple[np.ndarray, np.ndarray]  # words, ascending, and their weights, a vector of length 1
WordPieces = Sequence[Sequence[int]]  # words, each as the dimensions of its pieces
Metadata = Sequence[dict] | None


class Found(Protocol):
    """Rows that hits refer to: a `Segment`, or rows returned by an engine."""

    def weights_of(self, words: np.ndarray, rows: np.ndarray) -> np.ndarray: ...

    def item_metadata(self, row: int) -> dict[str, Any]: ...


# (minus score, id, place, row) of the hits of a query, best first, and the sequence that `place` indexes.
Ranked = tuple[list[tuple[float, Any, int, int]], Sequence[Found]]


@dataclass
class Rows:
    """N items: ids (integers or strings), (N, V) float32 CSR of length 1 with ascending words, and metadata."""

    ids: list[Any]
    vectors: sparse.csr_matrix
    metadata: list[dict[str, Any]]

    @classmethod
    def of(cls, found: Sequence[tuple[Any, Sequence[int], Sequence[float], dict[str, Any]]], width: int) -> "Rows":
        """Build rows from the id, words, weights and metadata of each."""
        starts = np.cumsum([0, *(len(words) for _, words, _, _ in found)])
        indices = np.fromiter((word for _, words, _, _ in found for word in words), np.int32, int(starts[-1]))
        weights = np.fromiter((one for _, _, values, _ in found for one in values), np.float32, int(starts[-1]))
        vectors = sparse.csr_matrix((weights, indices, starts), shape=(len(found), width))
        vectors.sort_indices()
        return cls([row[0] for row in found], vectors, [row[3] for row in found])

    @classmethod
    def join(cls, parts: Iterable["Rows"], width: int) -> "Rows":
        """Concatenate rows."""
        parts = list(parts) or [cls.of([], width)]
        vectors = sparse.vstack([part.vectors for part in parts], format="csr")
        ids, metadata = [id for part in parts for id in part.ids], [item for part in parts for item in part.metadata]
        return cls(ids, vectors, metadata)

    def each(self) -> Iterator[tuple[Any, list[int], list[float], dict[str, Any]]]:
        """Yield the id, words, weights and metadata of each row; the inverse of `of`."""
        bounds = self.vectors.indptr.tolist()
        for row, (id, metadata) in enumerate(zip(self.ids, self.metadata, strict=True)):
            own = slice(bounds[row], bounds[row + 1])
            yield id, self.vectors.indices[own].tolist(), self.vectors.data[own].tolist(), metadata

    def weights_of(self, words: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return the weight of each word in each row, (len(words), len(rows)) float32; 0 if a row lacks the word."""
        return self.vectors[rows][:, words].toarray().T

    def item_metadata(self, row: int) -> dict[str, Any]:
        return self.metadata[row]


@dataclass(frozen=True)
class Books:
    """
    What an engine stores beside the rows: the kind of the ids (`"int"` or `"str"`, None before the first item), the
    next id to assign if none are passed, and the number of items.
    """

    id_kind: str | None = None
    next_number: int = 0
    items: int = 0

    @property
    def id_type(self) -> type | None:
        """Type of the ids; None before the first item."""
        return {"int": int, "str": str, None: None}[self.id_kind]

    def after(self, ids: Any, replaced: int, next_number: int) -> "Books":
        """Return the books after items with these ids are added, `replaced` of them in place of others."""
        kind = "int" if isinstance(ids, np.ndarray) else "str"
        return Books(kind if len(ids) else self.id_kind, next_number, self.items + len(ids) - replaced)

    def without(self, count: int) -> "Books":
        """Return the books after `count` items are deleted."""
        return replace(self, items=self.items - count)


class IndexEngine(Protocol):
    """
    Stores the rows of one index and finds those with the largest inner products.

    An engine is made from its entry in the manifest and the index's folder, see `connect`. A remote engine connects at
    its first request and raises `ConnectionError` with its address if no server answers.
    """

    def check(self) -> None:
        """Check that the address can be used, without creating anything; neither file nor folder need exist yet."""

    def entry(self) -> dict[str, Any]:
        """Return the entry of the manifest that `connect` takes; it never contains a password."""

    def creating(self, width: int, id_kind: str | None) -> AbstractContextManager[None]:
        """
        Return the context for storing the first rows of a new index, inside `IndexFolder.making`: at its end, the
        manifest names the rows; if anything fails, neither rows nor manifest remain. `width` is V, `id_kind` as in
        `Books`.
        """

    def open(self, width: int) -> None:
        """Find the rows. Raises FileNotFoundError if they are gone, ValueError if their width is not `width`."""

    def books(self) -> Books: ...

    def change(self) -> AbstractContextManager[Books]:
        """Return the context of a change: one at a time, applied as a whole if the engine has transactions."""

    def keep(self, books: Books) -> None:
        """Store the books, in a change and before their rows."""

    def locate(self, ids: Sequence[Any]) -> dict[Any, Any]:
        """Return the ids that the index has, each with its location, which is opaque to callers."""

    def put(self, ids: Any, vectors: sparse.csr_matrix, metadata: Metadata, replaced: Mapping[Any, Any]) -> None:
        """
        Add rows, in a change.

        Args:
            ids: (N,) int64, or N strings; vectors: (N, V) canonical CSR of any length; metadata: N dictionaries, or
                None.
            replaced: those of the ids that exist already, from `locate` in this change.
        """

    def remove(self, located: Mapping[Any, Any]) -> None:
        """Delete rows, in a change, by their locations from `locate`."""

    def metadata(self, id: Any) -> dict[str, Any] | None:
        """Return the metadata of an item; None if the index does not have it."""

    def rank(self, queries: Sequence[Query], k: int, must: WordPieces, must_not: WordPieces) -> list[Ranked]:
        """
        Return the k best rows of each query; of equal scores, smaller ids first. Every hit contains all pieces of all
        words of `must`, and of no word of `must_not` all pieces.
        """

    def rows(self, vectors: bool = True, metadata: bool = True) -> Iterator[Rows]:
        """Yield all rows in batches; vectors and metadata may be left empty if they are not requested."""

    def segments(self) -> Sequence[Segment]:
        """Return all rows as segments of the embedded engine."""

    def used(self) -> np.ndarray:
        """Return (V,) bool: words that an item may have."""

    def optimize(self) -> None:
        """Restore full search speed after many changes."""

    def wait(self) -> None:
        """Wait until no background work is left."""

    def refresh(self) -> bool:
        """Read the changes of other processes. Returns whether anything had to be read."""

    def info(self) -> dict[str, Any]:
        """Return `bytes` and other figures of the engine."""

    def drop(self) -> None:
        """Delete all rows permanently."""

    def close(self) -> None:
        """Finish background work and disconnect; the next request connects again."""
