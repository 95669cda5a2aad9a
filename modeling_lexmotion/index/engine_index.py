"""An index whose rows an engine keeps: the same calls, results and errors as of the embedded one."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from . import connect
from .engine import Books, IndexEngine, Rows
from .lexmotion_index import (
    LexMotionIndex,
    canonical,
    checked_items,
    listed_ids,
    model_name,
)
from .segments import State, inverse_norms

MARGIN = 16  # rows asked for beyond k, among which equals are put in order
ROUNDING = 1e-5  # engines sum in other orders; scores are at most 1


class EngineIndex(LexMotionIndex):
    """
    An index whose folder names an engine, where the rows are. Made by `LexMotionIndex.build(engine=...)`, opened by
    `LexMotionIndex.from_pretrained`.

    The engine says which rows may be the best, and how these score is computed here, as the embedded index does: the
    scores are the same to the last bit, and of equal scores smaller ids come first, as long as no more than
    `engine.most` rows are as good as the last hit to rounding. What the folder says stays as it was built, so copies
    of it work elsewhere. The index is always as the engine has it, `refresh` has nothing to do.

    Postgres takes any number of writers, in turns. For Milvus, which has no transactions, the first change makes the
    index the only writer of its folder until `close`; writers through copies of the folder are not kept out.

    Args:
        engine: connected. Others as of `LexMotionIndex`.
    """

    def __init__(
        self, state: State, folder: Path, engine: IndexEngine, model: Any, processor: Any, writable: bool = True
    ):
        super().__init__(state, folder, model, processor, accelerate=False, writable=writable)
        self.engine = engine

    @classmethod
    def build_with(
        cls,
        engine: str,
        uri: str | None,
        folder: Path,
        embeddings: Any,
        metadata: Sequence[dict] | None,
        ids: Sequence[Any] | None,
        *,
        processor: Any,
        model: Any,
        overwrite: bool,
    ) -> "EngineIndex":
        """See `LexMotionIndex.build`."""
        matrix = canonical(embeddings)
        given, _ = checked_items(matrix.shape[0], metadata, ids, None, 0)
        state = State(vocab_size=matrix.shape[1], model=model_name(model))
        nowhere: Any = None  # an engine is reached, and its table made, once the folder is ours
        index = cls(state, folder, nowhere, model, processor)
        with index._writing(fresh=True, overwrite=overwrite):
            try:
                index.engine = connect({"engine": engine, "uri": uri}, folder)
                index.engine.create(matrix.shape[1], _kind(given))
                try:
                    index.add(matrix, metadata, ids)
                    index.engine.optimize()
                    index._commit((), engine=index.engine.entry(), **index._stored_processor())
                except BaseException:
                    index.engine.drop()
                    raise
                index._sweep()
            finally:
                assert index._lock is not None
                index._lock.release()  # taken again by the next change, where the engine needs it
        return index

    @classmethod
    def open(
        cls, state: State, folder: Path, uri: str | None, model: Any, processor: Any, writable: bool
    ) -> "EngineIndex":
        """
        The index of a folder that was built with an engine.

        Args:
            uri: address instead of the one that the folder names.
        """
        assert state.engine is not None
        engine = connect(state.engine | ({} if uri is None else {"uri": uri}), folder)
        engine.open(state.vocab_size)
        return cls(state, folder, engine, model, processor, writable)

    def _save(self, folder: Path, model: str | None) -> None:
        if folder.exists() and self.folder is not None and folder.samefile(self.folder):
            return
        ids, vectors, metadata = self.items()
        with LexMotionIndex.build(
            vectors, metadata, ids or None, folder=folder, processor=self.processor, model=model, overwrite=True
        ):
            pass

    def __len__(self) -> int:
        return self.engine.books().items

    def __repr__(self) -> str:
        entry = self.engine.entry()
        return f"LexMotionIndex({len(self)} items, {self.vocab_size} words, {entry['engine']} at {entry['uri']})"

    @property
    def id_kind(self) -> type | None:
        return {"int": int, "str": str, None: None}[self.engine.books().id_kind]

    def __contains__(self, id: Any) -> bool:
        return isinstance(id, self.id_kind or ()) and bool(self.engine.present([id]))

    def metadata(self, id: Any) -> dict[str, Any]:
        found = self.engine.metadata(id) if isinstance(id, self.id_kind or ()) else None
        if found is None:
            raise KeyError(id)
        return found

    def items(self) -> tuple[list[Any], sparse.csr_matrix, list[dict[str, Any]]]:
        parts = list(self.engine.rows())
        empty = sparse.csr_matrix((0, self.vocab_size), dtype=np.float32)
        vectors = sparse.vstack([empty, *(part.vectors for part in parts)], format="csr")
        return [id for part in parts for id in part.ids], vectors, [item for part in parts for item in part.metadata]

    @property
    def ids(self) -> list[Any]:
        return [id for part in self.engine.rows() for id in part.ids]

    def to_csr(self) -> sparse.csr_matrix:
        return self.items()[1]

    def info(self) -> dict[str, Any]:
        """Figures of the index: its engine and address, items, and what the engine tells."""
        books = self.engine.books()
        return {
            "folder": str(self.folder),
            **self.engine.entry(),
            "items": books.items,
            **self.engine.info(),
            "vocab_size": self.vocab_size,
            "ids": books.id_kind,
            "model": self._state.model,
            "score": "cosine",
        }

    def add(
        self,
        embeddings: Any,
        metadata: Sequence[dict] | None = None,
        ids: Sequence[Any] | None = None,
        replace: bool = False,
    ) -> list[Any]:
        matrix = canonical(embeddings, self.vocab_size)
        with self._changing() as books:
            kind = None if books.id_kind is None else {"int": int, "str": str}[books.id_kind]
            given, books.next_number = checked_items(matrix.shape[0], metadata, ids, kind, books.next_number)
            if not len(given):
                return []
            added = given.tolist() if isinstance(given, np.ndarray) else given
            there = self.engine.present(added) if books.id_kind else set()
            if there and not replace:
                first = next(id for id in added if id in there)
                raise ValueError(f"id {first!r} is in the index already: delete it first, or pass replace=True")
            books.id_kind, books.items = _kind(added), books.items + len(added) - len(there)
            self.engine.keep(books)
            lengths = np.repeat(inverse_norms(matrix), np.diff(matrix.indptr))
            unit = (matrix.data * lengths).astype(np.float32)  # rounded once, as in a segment
            vectors = sparse.csr_matrix((unit, matrix.indices, matrix.indptr), shape=matrix.shape)
            self.engine.put(Rows(added, vectors, list(metadata or [{}] * len(added))), bool(there))
        return added

    @contextlib.contextmanager
    def _changing(self) -> Iterator[Books]:
        """A change of the engine, alone among writers."""
        self._check_writable()
        alone: contextlib.AbstractContextManager[Any] = self._guard if self.engine.transactions else self._writing()
        with alone, self.engine.change() as books:
            yield books

    def delete(self, ids: Any, missing_ok: bool = False) -> int:
        wanted = listed_ids(ids)
        with self._changing() as books:
            there = self.engine.present([id for id in wanted if type(id).__name__ == books.id_kind])
            missing = [id for id in wanted if id not in there]
            if missing and not missing_ok:
                raise ValueError(f"id {missing[0]!r} is not in the index; nothing was deleted")
            if there:
                books.items -= len(there)
                self.engine.keep(books)
                self.engine.remove(sorted(there))
        return len(there)

    def merge(self) -> None:
        """Have the engine put its files in order."""
        self.engine.optimize()

    def close(self) -> None:
        """Disconnect, and let others write. The index can still be used, and connects again."""
        self.engine.close()
        super().close()

    def refresh(self) -> bool:
        return False

    def _used(self) -> np.ndarray:
        """(V,) bool: all of them; which ones an item has, an engine cannot tell quickly."""
        return np.ones(self.vocab_size, bool)

    def _ranked(
        self,
        queries: Sequence[tuple[np.ndarray, np.ndarray]],
        k: int,
        wanted: Sequence[list[int]],
        unwanted: Sequence[list[int]],
    ) -> list[Any]:
        if k > self.engine.most:
            raise ValueError(f"this engine finds at most {self.engine.most} items at once, got k={k}")
        must = sorted({piece for pieces in wanted for piece in pieces})
        ranked = []
        for words, weights in queries:
            rows, scores = self._candidates(words, weights, k, must, unwanted)
            positive = np.flatnonzero(scores > 0).tolist()
            hits = sorted((-float(scores[row]), rows.ids[row], 0, row) for row in positive)[:k]
            ranked.append((hits, (rows,), (words, weights)))
        return ranked

    def _candidates(
        self,
        words: np.ndarray,
        weights: np.ndarray,
        k: int,
        must: Sequence[int],
        must_not: Iterable[Sequence[int]],
    ) -> tuple[Rows, np.ndarray]:
        """Rows among which the k best are, and their scores summed as the embedded index does."""
        count = k + MARGIN if len(words) else 0
        while True:
            count = min(count, self.engine.most)
            if not count:
                return Rows.of([], self.vocab_size), np.zeros(0, np.float32)
            rows = self.engine.nearest(words, weights, count, must, list(must_not))
            scores = np.zeros(len(rows.ids), np.float32)
            for column, weight in zip(rows.weights_of(words, np.arange(len(scores))), weights, strict=True):
                scores += column * weight
            if len(scores) < count or count == self.engine.most:
                return rows, scores
            last = scores.min()
            if last == 0 or last < np.partition(scores, -k)[-k] - ROUNDING:
                return rows, scores  # the others are worse than the k-th, however they were rounded
            count *= 4


def _kind(ids: Any) -> str | None:
    """`"int"` or `"str"`; None where there are no ids."""
    return None if not len(ids) else "int" if isinstance(ids, np.ndarray) else type(ids[0]).__name__
