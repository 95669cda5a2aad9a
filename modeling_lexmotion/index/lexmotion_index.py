"""
Search by words: an exact inverted index over lexical vectors, whose results say which words made them.

A vector of words is a list of postings, so the score of all items is a sum over the few words of a query: one pass
over the postings of each, then the best of a thousand rows at a time, and a closer look at the best of these.
"""

import contextlib
import difflib
import functools
import importlib
import logging
import math
import os
import secrets
import socket
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from filelock import FileLock, Timeout
from scipy import sparse

from .segments import (
    BLOCK,
    MANIFEST,
    PROCESSOR,
    SEGMENTS,
    Segment,
    State,
    describe_file,
    id_keys,
    make_segment,
    merge_segments,
    open_state,
    read_manifest,
    sweep,
    sync_folder,
    write_manifest,
)

logger = logging.getLogger(__name__)

LOCK, WRITER = "writer.lock", "writer.pid"
EMBEDDED = "embedded"
MERGE_FACTOR = 8  # so many segments of like size become one
ACCELERATED_ENTRIES = 1 << 20  # below, compiling takes longer than it saves
CARD = """---
library_name: lexmotion
tags: [lexmotion, sparse-retrieval, motion-retrieval]
---

# A LexMotion index of {items} items

```python
from lexmotion import LexMotionIndex

index = LexMotionIndex.from_pretrained("{repo_id}")
for hit in index.search("a person kicks with the left leg", k=10):
    print(hit.id, hit.score, hit.words)
```
"""


class IndexBusyError(OSError):
    """Somebody else writes the index."""


class Found(Protocol):
    """Rows that hits are among: a `Segment`, or what an engine returned."""

    def weights_of(self, words: np.ndarray, rows: np.ndarray) -> np.ndarray: ...

    def item_metadata(self, row: int) -> dict[str, Any]: ...


# (minus score, id, place, row) of hits, best first; what they are rows of, by place; words and weights of the query.
Ranked = tuple[list[tuple[float, Any, int, int]], Sequence[Found], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Hit:
    """
    An item that was found.

    Args:
        id: of the item. score: cosine of the query and the item. metadata: of the item.
        words: the words they share, each with what it adds to the score, largest first; the score is their sum.
    """

    id: Any
    score: float
    metadata: dict[str, Any]
    words: list[tuple[str, float]]

    def to_dict(self) -> dict[str, Any]:
        """The hit as JSON holds it."""
        return asdict(self)


@functools.cache
def _compiled() -> Callable | None:
    """Scores of all rows, compiled by numba where it is installed."""
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


def canonical(vectors: Any, vocab_size: int | None = None) -> sparse.csr_matrix:
    """
    Vectors of words as CSR with ascending words, each once, weights above zero; a copy where they are not yet.

    Args:
        vectors: scipy matrix, array or tensor (N, V) or (V,). vocab_size: V that is expected.

    Raises:
        ValueError: another V, or weights below zero or not finite.
    """
    if hasattr(vectors, "detach"):
        dense = vectors.detach().cpu()
        vectors = (dense.to_dense() if dense.is_sparse or dense.is_sparse_csr else dense).float().numpy()
    if not sparse.issparse(vectors):
        vectors = np.atleast_2d(np.asarray(vectors, np.float32))
    matrix = sparse.csr_matrix(vectors, dtype=np.float32)
    if vocab_size is not None and matrix.shape[1] != vocab_size:
        raise ValueError(
            f"vectors have {matrix.shape[1]} dimensions, the index has {vocab_size} words: encode with its model"
        )
    if matrix.nnz and not (matrix.has_canonical_format and matrix.data.min() > 0):
        matrix = matrix.copy()
        matrix.sum_duplicates()
        matrix.eliminate_zeros()
        wrong = matrix.data[~((matrix.data > 0) & np.isfinite(matrix.data))]
        if len(wrong):
            raise ValueError(f"weights of words must be finite and at least zero, got {wrong[0]}")
    if matrix.nnz and not math.isfinite(matrix.data.max()):
        raise ValueError("weights of words must be finite and at least zero, got inf")
    return matrix


class LexMotionIndex:
    """
    Items found by their words.

    The score is the cosine: rows and queries are divided by their lengths. It is summed in float32 word by word, in
    the order of the vocabulary, and is the same whatever segments an item is or was in. Items that share no word with
    the query are no hits; of equal scores, smaller ids come first. Made by `build` or `from_pretrained`.

    With a folder, `add` and `delete` are on the disk when they return. Any number of processes may read an index while
    one writes it, each the state it opened until `refresh`. The first change makes an index object the only writer of
    its folder, until `close`.

    With an engine, the rows are in Milvus or in Postgres, and the folder says where; see `build`. Calls, results and
    errors are the same.

    Example:

        >>> import numpy as np
        >>> from lexmotion import LexMotionIndex
        >>> index = LexMotionIndex.build(np.array([[3.0, 4.0, 0.0], [0.0, 1.0, 0.0]]), ids=["walk", "run"])
        >>> [(hit.id, round(hit.score, 2)) for hit in index.search(np.array([0.0, 1.0, 0.0]))]
        [('run', 1.0), ('walk', 0.8)]
    """

    def __init__(
        self,
        state: State,
        folder: Path | None = None,
        model: Any = None,
        processor: Any = None,
        accelerate: bool | None = None,
        writable: bool = True,
    ):
        if accelerate and _compiled() is None:
            raise ImportError("accelerate=True needs numba: run `pip install lexmotion[index]`, or leave it out")
        self.folder, self.accelerate, self.writable = folder, accelerate, writable
        self._state, self._model, self._processor = state, model, processor
        self._guard = threading.RLock()
        self._scratch = threading.local()
        self._merging: threading.Thread | None = None
        self._replaced: dict[str, Any] | None = None  # the engine of an index that was in the folder
        self._lock = None if folder is None else FileLock(folder / LOCK, thread_local=False)

    # ---------------------------------------------------------------------------------------------- made and saved

    @classmethod
    def build(
        cls,
        embeddings: Any,
        metadata: Sequence[dict] | None = None,
        ids: Sequence[Any] | None = None,
        *,
        folder: str | os.PathLike | None = None,
        processor: Any = None,
        model: Any = None,
        accelerate: bool | None = None,
        overwrite: bool = False,
        engine: str = EMBEDDED,
        uri: str | None = None,
    ) -> "LexMotionIndex":
        """
        An index of vectors.

        Args:
            embeddings: (N, V) weights of words, sparse or dense, at least zero. N may be 0.
            metadata: N dictionaries that JSON can hold. ids: N different integers or N different texts; by default
                0, 1, 2, ...
            folder: where the index lives; in memory alone when None.
            processor: the model's processor, or its tokenizer: with it words have names. It is saved with the index.
            model: that encodes queries: a folder, a Hub name, or the model itself.
            accelerate: by numba; None: where it is installed and an index is large.
            overwrite: replace an index that is there.
            engine: where the rows are: `"embedded"` in the folder; `"milvus"`, a file of Milvus Lite or a cluster;
                `"postgres"`, any with pgvector of 0.7 or later. Each but the first is an extra of its name, and needs
                a folder, which says where the rows are and holds the processor.
            uri: of the engine. Milvus: a file that ends in .db, by default one in the folder, or
                `http://HOST:19530`, with its token in LEXMOTION_MILVUS_TOKEN. Postgres: a connection string or
                `postgresql://USER@HOST/DATABASE`. A password is used and not stored: later it is read from where
                Postgres's clients do, PGPASSWORD or ~/.pgpass.

        Raises:
            ValueError: ids are repeated, lengths differ, the folder holds an index, or there is no such engine.
            ImportError: the engine is not installed. ConnectionError: it cannot be reached.
        """
        check_build(engine, uri, folder, overwrite)
        if engine != EMBEDDED:
            assert folder is not None
            return _engine_index().build_with(
                engine,
                uri,
                Path(folder),
                embeddings,
                metadata,
                ids,
                processor=processor,
                model=model,
                overwrite=overwrite,
            )
        matrix = canonical(embeddings)
        state = State(vocab_size=matrix.shape[1], model=model_name(model))
        if folder is None:
            index = cls(state, None, model, processor, accelerate)
            segments, changes = index._new_segments(matrix, metadata, ids)
            index._commit(segments, **changes)
            return index
        index = cls(state, Path(folder), model, processor, accelerate)
        with index._writing(fresh=True, overwrite=overwrite):
            segments, changes = index._new_segments(matrix, metadata, ids)
            index._commit(tuple(index._stored(segments)), **changes, **index._stored_processor())
            index._sweep()
        return index

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike,
        *,
        model: Any = None,
        processor: Any = None,
        verify: bool = True,
        accelerate: bool | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        uri: str | None = None,
    ) -> "LexMotionIndex":
        """
        Open an index; its postings stay on the disk and are read when they are used.

        Args:
            name: folder, or Hub name. model, processor: instead of those named in the index and saved with it.
            verify: compare checksums, which reads all files once; else sizes alone. accelerate: as in `build`.
            revision, token: of the Hub. uri: address of its engine instead of the one it names; needed for an index
                of the Hub that has one, as whoever uploaded it would choose where passwords are sent.

        Raises:
            FileNotFoundError: no index there. IndexDamagedError: a file is not what was written.
            ValueError: an index of the Hub has an engine, and no `uri` is given.
            ConnectionError: its engine cannot be reached.
        """
        folder, writable = Path(name), True
        if not folder.is_dir() and str(name).count("/") == 1 and not str(name).startswith((".", "/", "~")):
            from huggingface_hub import snapshot_download

            folder, writable = Path(snapshot_download(str(name), revision=revision, token=token)), False
        state = open_state(folder, verify)
        if state.engine is not None:
            if not writable and uri is None:
                raise ValueError(
                    f"{str(name)!r} of the Hub keeps its rows in {state.engine.get('engine')!r} at "
                    f"{state.engine.get('uri')!r}, an address that its author chose, which your passwords would be "
                    "sent to: if you trust it, give it as uri=... or --uri"
                )
            return _engine_index().open(state, folder, uri, model, processor, writable)
        if uri is not None:
            raise ValueError(f"{folder} holds its rows itself, so uri={uri!r} says nothing: leave it out")
        return cls(state, folder, model, processor, accelerate, writable)

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """
        Write the index to another folder, replacing an index that is there in one step. This one stays where it is.
        What an engine holds is copied into the folder, as an embedded index.

        Raises:
            IndexBusyError: somebody writes there.
        """
        self._save(Path(folder), self._state.model)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | bool | None = None,
        commit_message: str = "Upload index",
        revision: str | None = None,
    ) -> Any:
        """Upload the index in one commit, without the name of a model that is a folder here. Returns the commit."""
        from huggingface_hub import HfApi

        api = HfApi(token=token)
        api.create_repo(repo_id, private=private, exist_ok=True)
        name = self._state.model
        with tempfile.TemporaryDirectory() as folder:
            self._save(Path(folder), None if name is None or Path(name).is_dir() else name)
            card = CARD.format(items=len(self), repo_id=repo_id)
            Path(folder, "README.md").write_text(card, encoding="utf-8")
            return api.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                commit_message=commit_message,
                revision=revision,
                ignore_patterns=["writer.*"],
                delete_patterns=[f"{SEGMENTS}/*", f"{PROCESSOR}*/*"],
            )

    def _save(self, folder: Path, model: str | None) -> None:
        if self.folder is not None and folder.exists() and folder.samefile(self.folder):
            return  # every change is there already
        state = replace(self._state, segments=(), model=model, processor=None, processor_files={})
        other = type(self)(state, folder, processor=self.processor)
        with other._writing(fresh=True, overwrite=True):
            other._commit(tuple(other._stored(self._state.segments)), **other._stored_processor())
            other._sweep()
        other.close()

    def __len__(self) -> int:
        return sum(segment.alive for segment in self._state.segments)

    def __repr__(self) -> str:
        place = "in memory" if self.folder is None else f"in {self.folder}"
        return f"LexMotionIndex({len(self)} items, {self.vocab_size} words, {place})"

    def __enter__(self) -> "LexMotionIndex":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    @property
    def vocab_size(self) -> int:
        """V."""
        return self._state.vocab_size

    @property
    def ids(self) -> list[Any]:
        """Of all items, in the order of `to_csr`."""
        return [segment.id(row) for segment in self._state.segments for row in np.flatnonzero(segment.kept()).tolist()]

    @property
    def id_kind(self) -> type | None:
        """int or str; None as long as there are no items."""
        return {"int": int, "str": str, None: None}[self._state.id_kind]

    def __contains__(self, id: Any) -> bool:
        if not isinstance(id, self.id_kind or ()):
            return False
        return any(segment.find([id], id_keys([id]))[0] >= 0 for segment in self._state.segments)

    def metadata(self, id: Any) -> dict[str, Any]:
        """
        Of an item.

        Raises:
            KeyError: there is none of this id.
        """
        for segment in self._state.segments if id in self else ():
            row = int(segment.find([id], id_keys([id]))[0])
            if row >= 0:
                return segment.item_metadata(row)
        raise KeyError(id)

    def to_csr(self) -> sparse.csr_matrix:
        """The rows that are searched, (N, V) of length 1, in the order of `ids`."""
        parts = [segment.to_csr()[np.flatnonzero(segment.kept())] for segment in self._state.segments]
        if not parts:
            return sparse.csr_matrix((0, self.vocab_size), dtype=np.float32)
        return sparse.vstack(parts, format="csr")

    def items(self) -> tuple[list[Any], sparse.csr_matrix, list[dict[str, Any]]]:
        """Ids, rows as `to_csr` and metadata of all items: what another `build` takes."""
        segments = self._state.segments
        rows = [(segment, row) for segment in segments for row in np.flatnonzero(segment.kept()).tolist()]
        metadata = [segment.item_metadata(row) for segment, row in rows]
        return self.ids, self.to_csr(), metadata

    def info(self) -> dict[str, Any]:
        """Figures of the index: items, deleted ones not yet merged away, segments, entries, words in use, bytes."""
        segments = self._state.segments
        files = [entry for segment in segments for entry in segment.files.values()]
        entries = sum(segment.entries for segment in segments)
        return {
            "folder": None if self.folder is None else str(self.folder),
            "engine": EMBEDDED,
            "items": len(self),
            "deleted": sum(len(segment.deleted) for segment in segments),
            "segments": len(segments),
            "entries": entries,
            "words_an_item": entries / max(sum(segment.rows for segment in segments), 1),
            "words_in_use": int(self._used().sum()),
            "vocab_size": self.vocab_size,
            "postings_bytes": 8 * entries,
            "file_bytes": sum(entry["bytes"] for entry in files),
            "ids": self._state.id_kind,
            "model": self._state.model,
            "score": "cosine",
            "generation": self._state.generation,
        }

    # ----------------------------------------------------------------------------------------------------- changes

    def add(
        self,
        embeddings: Any,
        metadata: Sequence[dict] | None = None,
        ids: Sequence[Any] | None = None,
        replace: bool = False,
    ) -> list[Any]:
        """
        Add items. With a folder, they are on the disk when this returns; merging goes on in the background.

        Args:
            embeddings, metadata, ids: as in `build`; without ids, integers go on where they were. replace: ids that
                are there already are replaced, in the same step.

        Returns:
            The ids.

        Raises:
            ValueError: an id is there already, or is of another kind. IndexBusyError: somebody else writes the index.
        """
        with self._writing():
            segments, changes = self._new_segments(embeddings, metadata, ids)
            added = [segment.id(row) for segment in segments for row in range(segment.rows)]
            if not added:
                return []
            old, found = self._find(added)
            if found.any() and not replace:
                raise ValueError(
                    f"id {added[int(found.argmax())]!r} is in the index already: delete it first, or pass replace=True"
                )
            self._commit((*self._tombstoned(old), *self._stored(segments)), **changes)
        self._merge_in_background()
        return added

    def delete(self, ids: Any, missing_ok: bool = False) -> int:
        """
        Delete items. With a folder, they are gone from the disk's manifest when this returns.

        Args:
            ids: one or several. missing_ok: ids that are not there are no mistake.

        Returns:
            How many were deleted.

        Raises:
            ValueError: an id is not there; nothing is deleted then. IndexBusyError: somebody else writes the index.
        """
        wanted = listed_ids(ids)
        with self._writing():
            known = [id for id in wanted if isinstance(id, self.id_kind or ())]
            rows, found = self._find(known)
            missing = [id for id in wanted if id not in set(known)]
            missing += [id for id, there in zip(known, found.tolist(), strict=True) if not there]
            if missing and not missing_ok:
                raise ValueError(f"id {missing[0]!r} is not in the index; nothing was deleted")
            if found.any():
                self._commit(self._tombstoned(rows))
        self._merge_in_background()
        return int(found.sum())

    def merge(self) -> None:
        """Make one segment of all, without the deleted items, and wait for it."""
        self.wait()
        with self._writing():
            segments = self._state.segments
            if len(segments) > 1 or any(len(segment.deleted) for segment in segments):
                self._merge(segments)

    def wait(self) -> None:
        """Until no merge goes on in the background."""
        thread = self._merging
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def close(self) -> None:
        """Wait for merges, and let others write. The index can still be searched, and changed again."""
        self.wait()
        with self._guard:
            if self._lock is not None and self._lock.is_locked:
                self._lock.release()

    def refresh(self) -> bool:
        """Read what another process has changed. Returns whether there was anything."""
        if self.folder is None:
            return False
        with self._guard:
            before = self._state.checksum
            self._state = open_state(self.folder, known=self._state)
            return self._state.checksum != before

    @contextlib.contextmanager
    def _writing(self, fresh: bool = False, overwrite: bool = False) -> Iterator[None]:
        """Alone among threads and processes; `fresh`: nothing but an index to be replaced is expected."""
        with self._guard:
            if self._lock is not None and not self._lock.is_locked:
                self._become_writer(fresh, overwrite)
            yield

    def _become_writer(self, fresh: bool, overwrite: bool) -> None:
        assert self.folder is not None and self._lock is not None
        self._check_writable()
        if fresh:
            (self.folder / SEGMENTS).mkdir(parents=True, exist_ok=True)
            sync_folder(self.folder.parent)
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            writer = ""
            with contextlib.suppress(OSError):
                writer = f" (process {(self.folder / WRITER).read_text()})"
            raise IndexBusyError(
                f"{self.folder} is open for writing elsewhere{writer}: an index has one writer at a time; close that "
                "one first. Reading is always possible"
            ) from error
        try:
            (self.folder / WRITER).write_text(f"{os.getpid()} on {socket.gethostname()}")
            if not fresh:
                self.refresh()
            elif not overwrite:
                check_free(self.folder)
            else:
                with contextlib.suppress(FileNotFoundError, ValueError):  # none, or a damaged one
                    self._replaced = read_manifest(self.folder).get("engine")
            if not fresh:
                sweep(self.folder, self._state)
        except BaseException:
            self._lock.release()
            raise

    def _check_writable(self) -> None:
        if not self.writable:
            raise IndexBusyError(
                f"{self.folder} was downloaded and is not changed: save_pretrained(folder) makes an index of your own"
            )

    def _sweep(self) -> None:
        """Remove what an index that was replaced has left, with its table where an engine kept it."""
        assert self.folder is not None
        if self._replaced is not None:
            try:
                _connect(self._replaced, self.folder).drop()
            except (ImportError, OSError) as error:
                logger.warning("table %s of the replaced index was left: %s", self._replaced["table"], error)
            self._replaced = None
        sweep(self.folder, self._state)

    def _new_segments(
        self, embeddings: Any, metadata: Sequence[dict] | None, ids: Any
    ) -> tuple[list[Segment], dict[str, Any]]:
        """Items as segments in memory, and what they change of the state."""
        matrix = canonical(embeddings, self.vocab_size)
        ids, next_number = checked_items(matrix.shape[0], metadata, ids, self.id_kind, self._state.next_number)
        if not matrix.shape[0]:
            return [], {}
        changes = {"id_kind": "int" if isinstance(ids, np.ndarray) else "str", "next_number": next_number}
        return [make_segment(matrix, ids, metadata)], changes

    def _find(self, ids: Sequence[Any]) -> tuple[list[np.ndarray], np.ndarray]:
        """Of every segment, rows of these ids; and which ids are there."""
        keys = id_keys(ids)
        places = [segment.find(ids, keys) for segment in self._state.segments]
        found = np.zeros(len(ids), bool)
        for rows in places:
            found |= rows >= 0
        return [rows[rows >= 0] for rows in places], found

    def _tombstoned(self, rows: Sequence[np.ndarray]) -> list[Segment]:
        segments = [
            segment.without(gone) if len(gone) else segment
            for segment, gone in zip(self._state.segments, rows, strict=True)
        ]
        return [segment for segment in segments if segment.alive]

    def _stored(self, segments: Iterable[Segment]) -> list[Segment]:
        if self.folder is None:
            return list(segments)
        stored = [segment.save(self.folder / SEGMENTS) for segment in segments]
        sync_folder(self.folder / SEGMENTS)
        return stored

    def _stored_processor(self) -> dict[str, Any]:
        processor = self.processor
        if self.folder is None or processor is None:
            return {}
        name = PROCESSOR + secrets.token_hex(4)
        processor.save_pretrained(self.folder / name)
        files = {path.name: describe_file(path) for path in sorted((self.folder / name).iterdir())}
        sync_folder(self.folder / name)
        return {"processor": name, "processor_files": files}

    def _commit(self, segments: Iterable[Segment], **changes: Any) -> None:
        before = self._state
        state = replace(before, segments=tuple(segments), generation=before.generation + 1, **changes)
        if self.folder is not None:
            state = write_manifest(self.folder, state)
        self._state = state
        if self.folder is not None:
            named = {segment.name for segment in state.segments}
            for segment in before.segments:
                if segment.name not in named:
                    for file in segment.files:
                        with contextlib.suppress(OSError):  # open elsewhere on a system that minds; swept later
                            (self.folder / SEGMENTS / file).unlink()

    def _merge_in_background(self) -> None:
        with self._guard:
            if self._merging is None and _to_merge(self._state.segments):
                self._merging = threading.Thread(target=self._merge_all, name="lexmotion-merge")
                self._merging.start()

    def _merge_all(self) -> None:
        try:
            while True:
                with self._guard:
                    group = _to_merge(self._state.segments)
                    if not group:
                        self._merging = None
                        return
                self._merge(group)
        except Exception:
            logger.exception("merging segments of %s failed; nothing is lost, and the next add tries again", self)
            self._merging = None

    def _merge(self, group: Sequence[Segment]) -> None:
        merged = merge_segments(group)  # segments never change, so others may add and delete meanwhile
        (merged,) = self._stored([merged])
        with self._guard:
            now = {id(segment.documents): segment for segment in self._state.segments}
            base, late = 0, []
            for segment in group:
                numbers = np.cumsum(segment.kept()) - 1 + base
                current = now.get(id(segment.documents))
                gone = np.arange(segment.rows) if current is None else current.deleted
                late.append(numbers[np.setdiff1d(gone, segment.deleted)])
                base += segment.alive
            merged = merged.without(np.concatenate(late))
            old = {id(segment.documents) for segment in group}
            places = [place for place, segment in enumerate(self._state.segments) if id(segment.documents) in old]
            segments = [segment for segment in self._state.segments if id(segment.documents) not in old]
            if merged.alive:
                segments.insert(min(places, default=0), merged)
            self._commit(segments)

    # -------------------------------------------------------------------------------------------------------- words

    @property
    def model(self) -> Any:
        """The model that encodes queries, loaded when first asked for; None where none is named."""
        if self._model is None or isinstance(self._model, str | os.PathLike):
            name = self._model or self._state.model
            if name is None:
                return None
            from transformers import AutoModel

            try:
                self._model = AutoModel.from_pretrained(name).eval()
            except OSError as error:
                raise OSError(f"the index names the model {str(name)!r}: {error}; pass model=... instead") from error
        return self._model

    @property
    def processor(self) -> Any:
        """The processor or tokenizer that words are read with, loaded when first asked for; None without."""
        if self._processor is None and self.folder is not None and self._state.processor is not None:
            from transformers import AutoProcessor, AutoTokenizer

            place = self.folder / self._state.processor
            loader = AutoProcessor if (place / "processor_config.json").is_file() else AutoTokenizer
            self._processor = loader.from_pretrained(place)
        return self._processor

    def word_ids(self, text: str | int) -> list[int]:
        """
        Dimensions of a word or of several: all its pieces.

        Raises:
            ValueError: the vocabulary does not have it, with the words that look like it.
        """
        if not isinstance(text, str):
            if not 0 <= text < self.vocab_size:
                raise ValueError(f"word {text} is outside of the vocabulary of {self.vocab_size}")
            return [int(text)]
        if self.processor is None:
            raise ValueError(f"this index has no tokenizer to read {text!r} with: build it with processor=...")
        tokenizer = getattr(self.processor, "tokenizer", self.processor)
        lexicon = getattr(self.processor, "lexicon", None)
        ids = list(dict.fromkeys(tokenizer(text, add_special_tokens=False)["input_ids"]))
        active = None if lexicon is None else lexicon.active
        unknown = [id for id in ids if id == tokenizer.unk_token_id or (active is not None and not active[id])]
        if unknown or not ids:
            used = np.flatnonzero(self._used())
            words = self._words((used if active is None else used[active[used]]).tolist())
            near = difflib.get_close_matches(text.lower(), words, n=3, cutoff=0.6)
            hint = f"; near it are {', '.join(near)}" if near else ""
            raise ValueError(f"the vocabulary of this index does not have the word {text!r}{hint}")
        return ids

    def _used(self) -> np.ndarray:
        """(V,) bool: words that an item has, or had."""
        used = np.zeros(self.vocab_size, bool)
        for segment in self._state.segments:
            used |= segment.counts > 0
        return used

    def _words(self, ids: Sequence[int]) -> list[str]:
        if self.processor is None:
            return [str(id) for id in ids]
        tokenizer = getattr(self.processor, "tokenizer", self.processor)
        tokens = tokenizer.convert_ids_to_tokens(list(ids))
        return [str(id) if token is None else token for id, token in zip(ids, tokens, strict=True)]

    def words_of(self, vector: Any, k: int | None = None) -> list[tuple[str, float]]:
        """Words and weights of a vector, heaviest first; the k heaviest."""
        row = canonical(vector, self.vocab_size)[0]
        order = np.argsort(-row.data, kind="stable")[:k]
        return list(zip(self._words(row.indices[order].tolist()), row.data[order].tolist(), strict=True))

    def encode(self, text: Any = None, motion: Any = None, fps: Any = None) -> sparse.csr_matrix:
        """
        Vectors of queries, by the index's model.

        Args:
            text: a text or several. motion: an array (T, J, 3) or (T, F), or several; fps: theirs.

        Returns:
            (N, V) CSR.

        Raises:
            ValueError: the index has no model, a text is empty, or neither or both are given.
        """
        if (text is None) == (motion is None):
            raise ValueError("pass a text or a motion, and not both")
        if any(not one.strip() for one in ([text] if isinstance(text, str) else text or ())):
            raise ValueError("the query is empty: say what happens in the motion, or give words that must be there")
        if self.model is None:
            raise ValueError("this index names no model: pass model=... when it is built or loaded, or search vectors")
        if text is not None:
            return self.model.encode_text([text] if isinstance(text, str) else list(text), self.processor)
        motions = [motion] if hasattr(motion, "ndim") else list(motion)
        return self.model.encode_motion(motions, fps, self.processor)

    # ------------------------------------------------------------------------------------------------------- search

    def search(
        self,
        query: Any = None,
        k: int = 10,
        *,
        text: Any = None,
        motion: Any = None,
        fps: Any = None,
        must: Iterable[str | int] = (),
        must_not: Iterable[str | int] = (),
        boost: Mapping[Any, float] | None = None,
    ) -> list[Any]:
        """
        The k items whose words are nearest.

        Args:
            query: a text; a vector (V,); or several: a list of texts, or a matrix (Q, V), sparse or dense. Without
                any query, `must` and `boost` are the query, every word weighing 1.
            k: hits at most.
            text, motion, fps: instead of `query`, as in `encode`.
            must: words every hit has; a word of several pieces is there when all pieces are. must_not: words no hit
                has. Words are texts, or their numbers.
            boost: words whose weight in the query is multiplied, before the query is divided by its length.

        Returns:
            [`Hit`]s, best first; for several queries a list of them each.

        Raises:
            ValueError: an unknown word, a query that is none, or k below 1.
        """
        given = [name for name, value in (("query", query), ("text", text), ("motion", motion)) if value is not None]
        if len(given) > 1:
            raise ValueError(f"got {' and '.join(given)}: pass one query")
        if isinstance(query, str) or (isinstance(query, list | tuple) and query and isinstance(query[0], str)):
            query, text = None, query
        if text is not None or motion is not None:
            single = isinstance(text, str) or hasattr(motion, "ndim")
            query = self.encode(text, motion, fps)
        elif query is None:
            single = True
            query = self._query_of_words([*must, *(boost or {})])
        else:
            single = not sparse.issparse(query) and np.ndim(query) == 1
        queries = self._queries(query, boost)
        found = [self._hits(*each) for each in self._rank(queries, k, must, must_not)]
        return found[0] if single else found

    def top_k(
        self,
        queries: Any,
        k: int = 10,
        *,
        must: Iterable[str | int] = (),
        must_not: Iterable[str | int] = (),
        boost: Mapping[Any, float] | None = None,
    ) -> list[tuple[list[Any], np.ndarray]]:
        """As `search` with vectors (Q, V), without metadata and words: ids and scores of each query."""
        found = self._rank(self._queries(queries, boost), k, must, must_not)
        return [([hit[1] for hit in hits], np.array([-hit[0] for hit in hits], np.float32)) for hits, *_ in found]

    def _query_of_words(self, words: Sequence[str | int]) -> sparse.csr_matrix:
        if not words:
            raise ValueError("there is no query: pass a text, a motion, a vector, or words that must be there")
        ids = sorted({id for word in words for id in self.word_ids(word)})
        row = (np.ones(len(ids), np.float32), (np.zeros(len(ids), np.int64), ids))
        return sparse.csr_matrix(row, shape=(1, self.vocab_size))

    def _queries(self, queries: Any, boost: Mapping[Any, float] | None) -> list[tuple[np.ndarray, np.ndarray]]:
        """Words and weights of each query, boosted, of length 1."""
        matrix = canonical(queries, self.vocab_size)
        factors: dict[int, float] = {}
        for word, factor in (boost or {}).items():
            if not (math.isfinite(factor) and factor >= 0):
                raise ValueError(f"boost of {word!r} must be a number of at least 0, got {factor}")
            ids = self.word_ids(word)
            factors |= dict.fromkeys(ids, factor)
            if not np.isin(ids, matrix.indices).any():
                logger.warning("boosting %r changes nothing: no query has it", word)
        prepared = []
        for start, stop in zip(matrix.indptr, matrix.indptr[1:], strict=False):
            words, weights = matrix.indices[start:stop], matrix.data[start:stop].astype(np.float64)
            if factors:
                weights = weights * [factors.get(word, 1.0) for word in words.tolist()]
            length = np.sqrt(np.square(weights).sum())
            kept = weights > 0
            weights = (weights[kept] / (length or 1.0)).astype(np.float32)
            prepared.append((words[kept].astype(np.int64), weights))
        return prepared

    def _rank(
        self,
        queries: Sequence[tuple[np.ndarray, np.ndarray]],
        k: int,
        must: Iterable[str | int],
        must_not: Iterable[str | int],
    ) -> list[Ranked]:
        """Of each query, its hits; see `Ranked`."""
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        wanted = [self.word_ids(word) for word in must]
        unwanted = [self.word_ids(word) for word in must_not]
        return self._ranked(queries, k, wanted, unwanted)

    def _ranked(
        self,
        queries: Sequence[tuple[np.ndarray, np.ndarray]],
        k: int,
        wanted: Sequence[list[int]],
        unwanted: Sequence[list[int]],
    ) -> list[Ranked]:
        segments = self._state.segments  # one state for all, whatever another thread changes
        excluded = [_excluded(segment, wanted, unwanted) for segment in segments]
        ranked: list[Ranked] = []
        for query in queries:
            parts = []
            for place, (segment, out) in enumerate(zip(segments, excluded, strict=True)):
                scores = self._scores(segment, *query)
                if out is not None:
                    scores[: segment.rows][out] = 0
                rows = best_rows(scores, k)
                parts += [(values, place, some) for values, some in _of_equals(segment, scores[rows], rows, k)]
            hits = _best(parts, segments, k)
            ranked.append((hits, segments, query))
        return ranked

    def _scores(self, segment: Segment, words: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Scores of a segment's rows, rounded up to whole blocks; overwritten by the next call in this thread."""
        rows = segment.columns.shape[1]
        scores, products = self._scratch_of(rows)
        slots = segment.slots(words)
        if self.accelerate or (self.accelerate is None and segment.entries >= ACCELERATED_ENTRIES):
            compiled = _compiled()
            if compiled is not None:
                postings = (segment.starts, segment.documents, segment.weights)
                compiled(*postings, segment.columns, words, slots, weights, scores)
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

    def _hits(
        self,
        found: Sequence[tuple[float, Any, int, int]],
        segments: Sequence[Found],
        query: tuple[np.ndarray, np.ndarray],
    ) -> list[Hit]:
        shared: list[list[tuple[float, int]]] = [[] for _ in found]
        for place in {hit[2] for hit in found}:
            numbers = [number for number, hit in enumerate(found) if hit[2] == place]
            rows = np.array([found[number][3] for number in numbers], np.int32)
            products = segments[place].weights_of(query[0], rows) * query[1][:, None].astype(np.float64)
            for number, column in zip(numbers, products.T, strict=True):
                own = np.flatnonzero(column)
                shared[number] = sorted(zip((-column[own]).tolist(), query[0][own].tolist(), strict=True))
        hits = []
        for (score, id, place, row), pairs in zip(found, shared, strict=True):
            names = self._words([word for _, word in pairs])
            words = [(name, -product) for name, (product, _) in zip(names, pairs, strict=True)]
            hits.append(Hit(id, -score, segments[place].item_metadata(row), words))
        return hits


def _engine_index() -> Any:
    """The class of indexes with an engine, imported when there is one."""
    return importlib.import_module(".engine_index", __package__).EngineIndex


def _connect(entry: dict[str, Any], folder: Path) -> Any:
    return importlib.import_module(__package__).connect(entry, folder)


def check_free(folder: Path) -> None:
    """
    Refuse a folder that must not be built in.

    Raises:
        ValueError: the folder holds an index.
    """
    if (folder / MANIFEST).exists():
        raise ValueError(f"{folder} holds an index: open it with from_pretrained, give another folder, or overwrite")


def check_build(
    engine: str, uri: str | None = None, folder: str | os.PathLike | None = None, overwrite: bool = False
) -> None:
    """
    Whether `LexMotionIndex.build` can use an engine and a folder, asked before anything is encoded; makes nothing.

    Raises:
        As `LexMotionIndex.build`.
    """
    if folder is not None and not overwrite:
        check_free(Path(folder))
    if engine == EMBEDDED:
        if uri is not None:
            raise ValueError(f"uri={uri!r} is an engine's address: name it too, engine='milvus' or engine='postgres'")
        return
    if folder is None:
        raise ValueError(f"engine={engine!r} needs folder=..., which keeps the address and the processor")
    _connect({"engine": engine, "uri": uri}, Path(folder)).close()


def model_name(model: Any) -> str | None:
    if model is None or isinstance(model, str):
        return model
    return os.fspath(model) if isinstance(model, os.PathLike) else getattr(model, "name_or_path", None) or None


def listed_ids(ids: Any) -> list[Any]:
    """One id or several as a list, each once."""
    wanted = dict.fromkeys([ids] if isinstance(ids, str | int | np.integer) else ids)
    return list(dict.fromkeys(int(id) if isinstance(id, np.integer) else id for id in wanted))


def checked_items(
    count: int, metadata: Sequence[dict] | None, ids: Any, id_kind: type | None, next_number: int
) -> tuple[Any, int]:
    """
    Ids of new items, and the number that is next after them.

    Args:
        count: of vectors. metadata, ids: as given. id_kind, next_number: of the index so far.

    Raises:
        ValueError: lengths differ, or ids are repeated or of another kind.
    """
    if metadata is not None and len(metadata) != count:
        raise ValueError(f"got metadata of {len(metadata)} items for {count} vectors: pass one for each")
    if ids is None:
        if id_kind is str:
            raise ValueError("ids of this index are texts: pass ids of the new items too")
        ids = np.arange(next_number, next_number + count)
    else:
        ids = _checked_ids(ids, count, id_kind)
    if count and isinstance(ids, np.ndarray):
        next_number = max(next_number, int(ids.max()) + 1)
    return ids, next_number


def _checked_ids(ids: Any, count: int, kind: type | None) -> Any:
    """(N,) int64, or a list of texts."""
    found = ids.tolist() if isinstance(ids, np.ndarray) else list(ids)
    found = [int(id) if isinstance(id, np.integer) else id for id in found]
    if len(found) != count:
        raise ValueError(f"got {len(found)} ids for {count} vectors: pass one for each")
    expected = kind or (type(found[0]) if found else int)
    for id in found:
        if type(id) is not expected or expected not in (int, str):
            raise ValueError(f"ids must be all integers or all texts, as those of the index are; got {id!r}")
    if len(set(found)) < count:
        twice = next(id for id, times in Counter(found).items() if times > 1)
        raise ValueError(f"id {twice!r} is given twice: every item needs its own")
    return np.array(found, np.int64) if expected is int else found


def _excluded(segment: Segment, must: Sequence[list[int]], must_not: Sequence[list[int]]) -> np.ndarray | None:
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


def _of_equals(
    segment: Segment, values: np.ndarray, rows: np.ndarray, k: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Scores and rows of hits; where ids ascend with rows, of those equal to the last only as many as are needed."""
    if segment.ascending and len(rows) > k:
        last = values.min()
        ahead = values > last
        equal = np.flatnonzero(~ahead)[: k - int(ahead.sum())]
        chosen = np.concatenate([np.flatnonzero(ahead), equal])
        values, rows = values[chosen], rows[chosen]
    yield values, rows


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


def _to_merge(segments: Sequence[Segment]) -> list[Segment]:
    """Segments to be made one: `MERGE_FACTOR` of like size, or one of which half is deleted."""
    sizes: dict[int, list[Segment]] = {}
    for segment in segments:
        if 2 * len(segment.deleted) > segment.rows:
            return [segment]
        level = int(math.log(max(segment.entries, BLOCK), MERGE_FACTOR))
        sizes.setdefault(level, []).append(segment)
    return next((alike for _, alike in sorted(sizes.items()) if len(alike) >= MERGE_FACTOR), [])
