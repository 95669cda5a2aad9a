"""What every engine of an index does, and the rows that pass between an engine and the index."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from scipy import sparse

from .segments import Segment

Query = tuple[np.ndarray, np.ndarray]  # words, ascending, and their weights, of length 1


class Found(Protocol):
    """Rows that hits are among: a `Segment`, or what an engine returned."""

    def weights_of(self, words: np.ndarray, rows: np.ndarray) -> np.ndarray: ...

    def item_metadata(self, row: int) -> dict[str, Any]: ...


# (minus score, id, place, row) of the hits of a query, best first; and what they are rows of, by place.
Ranked = tuple[list[tuple[float, Any, int, int]], Sequence[Found]]


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

    @classmethod
    def join(cls, parts: Iterable["Rows"], width: int) -> "Rows":
        """All rows of several, one after the other."""
        parts = [cls.of([], width), *parts]
        vectors = sparse.vstack([part.vectors for part in parts], format="csr")
        return cls(
            [id for part in parts for id in part.ids], vectors, [item for part in parts for item in part.metadata]
        )

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


@dataclass(frozen=True)
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

    @property
    def id_type(self) -> type | None:
        """Of the ids; None before the first item."""
        return {"int": int, "str": str, None: None}[self.id_kind]

    def after(self, ids: Any, replaced: int, next_number: int) -> "Books":
        """The books when items of these ids have been added, of which some replaced others."""
        kind = "int" if isinstance(ids, np.ndarray) else "str"
        return Books(kind if len(ids) else self.id_kind, next_number, self.items + len(ids) - replaced)

    def without(self, count: int) -> "Books":
        """The books when so many items have been deleted."""
        return replace(self, items=self.items - count)


class IndexEngine(Protocol):
    """
    Keeps the rows of one index, and finds those with the largest inner products.

    An engine is made from its entry in the manifest and the index's folder, see `connect`. One that is elsewhere
    connects when it is asked for something first, and raises `ConnectionError` with its address if nobody answers.
    """

    def check(self) -> None:
        """Check that the address can be used. Makes nothing: a file, and the index's folder, need not exist yet."""

    def entry(self) -> dict[str, Any]:
        """What the index's folder says of the engine, `connect` takes it; never a password."""

    def creating(self, width: int, id_kind: str | None) -> AbstractContextManager[None]:
        """
        Around the first rows of a new index, inside `IndexFolder.making`: the manifest names them in the end, and if
        anything fails, neither rows nor manifest are there.

        Args:
            width: of the vectors. id_kind: of the rows that follow, see `Books`.
        """

    def open(self, width: int) -> None:
        """Find the rows. Raises FileNotFoundError if they are gone, ValueError if their vectors have other words."""

    def books(self) -> Books: ...

    def change(self) -> AbstractContextManager[Books]:
        """Around every change: one at a time, and in force as a whole when it ends, if the engine can."""

    def keep(self, books: Books) -> None:
        """Store the books, in a change and before the rows they are of."""

    def locate(self, ids: Sequence[Any]) -> dict[Any, Any]:
        """Those of the ids that the index has, each with its place, which only the engine understands."""

    def put(
        self, ids: Any, vectors: sparse.csr_matrix, metadata: Sequence[dict] | None, replaced: Mapping[Any, Any]
    ) -> None:
        """
        Add rows, in a change.

        Args:
            ids: (N,) int64, or N texts. vectors: (N, V) canonical CSR of any length. metadata: N dictionaries.
            replaced: ids among them that are there already, from `locate` in this change.
        """

    def remove(self, located: Mapping[Any, Any]) -> None:
        """Delete rows, in a change, by what `locate` has found in it."""

    def metadata(self, id: Any) -> dict[str, Any] | None:
        """Of an item; None if the index does not have it."""

    def rank(
        self,
        queries: Sequence[Query],
        k: int,
        must: Sequence[Sequence[int]],
        must_not: Sequence[Sequence[int]],
    ) -> list[Ranked]:
        """
        The k best rows of each query; of equal scores, smaller ids first.

        Args:
            must: words as lists of their pieces, every hit has all pieces of all. must_not: no hit has all pieces of
                one.
        """

    def rows(self, vectors: bool = True, metadata: bool = True) -> Iterator[Rows]:
        """All rows, some at a time; vectors and metadata may be left empty if they are not needed."""

    def segments(self) -> Sequence[Segment]:
        """All rows as the embedded engine keeps them."""

    def used(self) -> np.ndarray:
        """(V,) bool: words that an item may have."""

    def optimize(self) -> None:
        """What the engine needs after many changes to be as fast as it can."""

    def wait(self) -> None:
        """Until the engine does nothing more in the background."""

    def refresh(self) -> bool:
        """Read what others have changed. Returns whether there was anything that had to be read."""

    def info(self) -> dict[str, Any]:
        """`bytes` and the like."""

    def drop(self) -> None:
        """Remove all rows for good."""

    def close(self) -> None:
        """Finish what goes on in the background, and disconnect; what is asked next connects again."""
