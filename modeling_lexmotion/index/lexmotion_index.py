"""Word search: an exact index over lexical vectors that explains each score by the words behind it."""

import contextlib
import logging
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from ..views_lexmotion import views_of
from . import EMBEDDED, connect
from .engine import Books, Found, IndexEngine, Metadata, Query, Ranked, Rows
from .folder import IndexFolder, check_free
from .segments import PROCESSOR, SEGMENTS, State, Texts, merge_segments, metadata_line, open_state
from .tables import made_here
from .words import Words, canonical, is_one_motion

logger = logging.getLogger(__name__)

Boost = Mapping[Any, float] | None
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_LOCAL_PATH = re.compile(r"~?[/\\]|~\w*[/\\]|[A-Za-z]:[/\\]|file:")

CARD = """---
library_name: lexmotion
tags: [lexmotion, sparse-retrieval, motion-retrieval]
---

# A LexMotion index of {items} items

```python
from lexmotion import LexMotionIndex

index = LexMotionIndex.from_pretrained("{repo_id}")
{query}
    print(hit.id, hit.score, hit.words)
```
"""
QUERY = 'for hit in index.search("a person kicks with the left leg", k=10):'
QUERY_WITHOUT_MODEL = """# This index names no model: to search by text, pass model="OWNER/NAME" to from_pretrained.
for hit in index.search(index.to_csr()[0], k=10)[0]:"""


@dataclass(frozen=True)
class Hit:
    """
    An item that was found.

    Args:
        id: id of the item.
        score: cosine of query and item.
        metadata: metadata of the item.
        words: the shared words, each with its contribution to the score, largest first. Their sum is the score, except
            for the contributions of word pieces, which are not shown.
    """

    id: Any
    score: float
    metadata: dict[str, Any]
    words: list[tuple[str, float]]

    def to_dict(self) -> dict[str, Any]:
        """Return the hit as a dictionary for JSON."""
        return asdict(self)


class LexMotionIndex(contextlib.AbstractContextManager["LexMotionIndex"]):
    """
    Exact search over items by their words; made by `build` or `from_pretrained`.

    The score is the cosine of query and item, summed in float32 word by word in the order of the vocabulary, so it
    does not depend on how items are split into segments. Items that share no word with the query are not hits; of
    equal scores, smaller ids come first.

    An engine stores the rows: the embedded one in the index's folder or in memory, others in Milvus or Postgres, see
    `build`. Calls, results and errors are the same for all.

    With a folder, `add` and `delete` return once the change is on disk. Any number of processes can read an index
    while one writes it; each reads the state that it opened until `refresh`. The first change makes an index object
    the only writer of its folder, until `close`. Postgres takes any number of writers, one at a time; Milvus has no
    transactions, and writers through copies of the folder are not excluded.

    Args:
        folder: folder of the index.
        engine: a connected engine.
        model, processor: as in `from_pretrained`.

    Example:

        >>> import numpy as np
        >>> from lexmotion import LexMotionIndex
        >>> index = LexMotionIndex.build(np.array([[3.0, 4.0, 0.0], [0.0, 1.0, 0.0]]), ids=["walk", "run"])
        >>> [(hit.id, round(hit.score, 2)) for hit in index.search(np.array([0.0, 1.0, 0.0]))]
        [('run', 1.0), ('walk', 0.8)]
    """

    def __init__(self, folder: IndexFolder, engine: IndexEngine, model: Any = None, processor: Any = None):
        self.folder, self.engine = folder.path, engine
        self.place, self._words = folder, Words(folder, engine, model, processor)
        self.notes = self._words.notes  # text of a query -> remarks: its unknown words, and whether it is too long

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
        views: int = 1,
    ) -> "LexMotionIndex":
        """
        Build an index of vectors.

        Args:
            embeddings: (N, V) weights of words, sparse or dense, at least zero; N may be 0.
            metadata: N dictionaries that can be written as JSON.
            ids: N distinct integers or N distinct strings; 0, 1, 2, ... by default.
            folder: folder of the index; None keeps it in memory.
            processor: the model's processor or its tokenizer, which gives words their names; saved with the index.
            model: model that encodes queries: a folder, a Hub name or a loaded model.
            accelerate: use numba; None uses it if it is installed and the index is large.
            overwrite: replace an existing index.
            engine: where the rows are stored: `"embedded"` (in the folder), `"milvus"` (a file of Milvus Lite, or a
                cluster) or `"postgres"` (with pgvector 0.7 or later). The last two are extras of that name and need a
                folder, which holds the address and the processor.
            uri: address of the engine. Milvus: a file that ends in .db (by default one in the folder) or
                `http://HOST:19530`, with its token in LEXMOTION_MILVUS_TOKEN. Postgres: a connection string or
                `postgresql://USER@HOST/DATABASE`. Passwords are used but never stored; later they are read from
                PGPASSWORD or ~/.pgpass, as by other clients of Postgres.
            views: number of views per motion that the vectors were encoded with, see `LexMotionModel.encode_motion`;
                the index encodes further motions and example motions in the same way.

        Raises:
            ValueError: if ids are repeated, lengths differ, the folder contains an index or other files, or the
                engine or the number of views is unknown.
            ImportError: if the engine is not installed.
            ConnectionError: if it cannot be reached.
        """
        check_build(engine, uri, folder, overwrite)
        views_of(views)
        matrix = canonical(embeddings)
        given, next_number = _checked_items(matrix.shape[0], metadata, ids, Books())
        books = Books().after(given, 0, next_number)
        state = State(vocab_size=matrix.shape[1], model=_model_name(model), views=views)
        place = IndexFolder(None if folder is None else Path(folder), state)
        with place.making(overwrite):
            kept = connect({"engine": engine, "uri": uri, "accelerate": accelerate}, place)
            place.store_processor(processor)
            with kept.creating(matrix.shape[1], books.id_kind), kept.change():
                if len(given):
                    kept.keep(books)
                    kept.put(given, matrix, metadata, {})
            _clear(place)
            if engine != EMBEDDED:
                place.release()  # the next change locks it again, if the engine needs that
        return cls(place, kept, model, processor)

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
        Open an index; postings stay on disk and are read when used.

        Args:
            name: folder or Hub name.
            model, processor: used instead of those named in the index and saved with it.
            verify: compare checksums, which reads all files once; otherwise only sizes.
            accelerate: as in `build`.
            revision, token: of the Hub.
            uri: address of the engine, instead of the one in the index; required if the index was not built in this
                folder on this machine (from the Hub, copied or moved between disks), because otherwise its author
                would choose where your passwords are sent.

        Raises:
            FileNotFoundError: if the folder contains no index.
            IndexDamagedError: if a file differs from what was written.
            ValueError: if an index that was not built here has an engine and `uri` is not given.
            ConnectionError: if its engine cannot be reached.
        """
        folder, writable = Path(name), True
        if not folder.is_dir() and str(name).count("/") == 1 and not str(name).startswith((".", "/", "~")):
            from huggingface_hub import snapshot_download

            folder, writable = Path(snapshot_download(str(name), revision=revision, token=token)), False
        state = open_state(folder, verify)
        entry = state.engine or {"engine": EMBEDDED}
        if state.engine is None and uri is not None:
            raise ValueError(f"uri: got {uri!r} for an embedded index ({folder}); leave it out")
        if state.engine is not None and uri is None and not made_here(entry, folder):
            raise ValueError(
                f"{str(name)!r} was not built in this folder and stores its rows in {entry['engine']!r} at "
                f"{entry['uri']!r}, where your passwords would be sent; if you trust this address, pass it as uri=... "
                "or --uri"
            )
        place = IndexFolder(folder, state, writable)
        kept = connect(entry | ({} if uri is None else {"uri": uri}) | {"accelerate": accelerate}, place)
        kept.open(state.vocab_size)
        return cls(place, kept, model, processor)

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """
        Write a copy to another folder as an embedded index, replacing an index there in one step.

        Raises:
            IndexBusyError: if another process is writing there.
        """
        _save(self, Path(folder), self.place.state.model)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | bool | None = None,
        commit_message: str = "Upload index",
        revision: str | None = None,
        model: str | None = None,
    ) -> Any:
        """
        Upload the items as one segment in one commit. Deleted items are left out, and paths of this machine in
        metadata are cut to their last part. Returns the commit.

        Args:
            repo_id, private, token, commit_message, revision: of the Hub.
            model: Hub name of the model that encodes queries, in place of the one that the index names; "" for none.

        Raises:
            ValueError: if the model is a local folder.
        """
        from huggingface_hub import HfApi

        name = self.place.state.model if model is None else model or None
        if name is not None and (Path(name).is_dir() or not _HUB_NAME.fullmatch(name)):
            raise ValueError(
                f"model {name!r} of the index is a folder of this machine; push it with its own push_to_hub and pass "
                "model='OWNER/NAME', or model='' to leave it out"
            )
        api = HfApi(token=token)
        api.create_repo(repo_id, private=private, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            _save(self, Path(folder), name, public=True)
            query = QUERY if name is not None else QUERY_WITHOUT_MODEL
            card = CARD.format(items=len(self), repo_id=repo_id, query=query)
            Path(folder, "README.md").write_text(card, encoding="utf-8")
            return api.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                commit_message=commit_message,
                revision=revision,
                ignore_patterns=["writer.*"],
                delete_patterns=[f"{SEGMENTS}/*", f"{PROCESSOR}*/*"],
            )

    def __len__(self) -> int:
        return self.engine.books().items

    def __repr__(self) -> str:
        entry = self.engine.entry()
        place = "in memory" if self.folder is None else f"in {self.folder}"
        place = f"{entry['engine']} at {entry['uri']}" if "uri" in entry else place
        return f"LexMotionIndex({len(self)} items, {self.vocab_size} words, {place})"

    def __exit__(self, *_: Any) -> None:
        self.close()

    @property
    def vocab_size(self) -> int:
        """V, the number of words."""
        return self.place.state.vocab_size

    @property
    def ids(self) -> list[Any]:
        """Ids of all items, in the order of `to_csr`."""
        return [id for part in self.engine.rows(vectors=False, metadata=False) for id in part.ids]

    @property
    def id_kind(self) -> type | None:
        """int or str; None while the index is empty."""
        return self.engine.books().id_type

    def __contains__(self, id: Any) -> bool:
        return bool(_known_kind([id], self.id_kind) and self.engine.locate([id]))

    def metadata(self, id: Any) -> dict[str, Any]:
        """Return the metadata of an item; raises KeyError if no item has this id."""
        found = self.engine.metadata(id) if _known_kind([id], self.id_kind) else None
        if found is None:
            raise KeyError(id)
        return found

    def to_csr(self) -> sparse.csr_matrix:
        """Return the rows that are searched, (N, V) of length 1, in the order of `ids`."""
        return Rows.join(self.engine.rows(metadata=False), self.vocab_size).vectors

    def items(self) -> tuple[list[Any], sparse.csr_matrix, list[dict[str, Any]]]:
        """Return ids, rows as in `to_csr` and metadata of all items, for another `build`."""
        rows = Rows.join(self.engine.rows(), self.vocab_size)
        return rows.ids, rows.vectors, rows.metadata

    def info(self) -> dict[str, Any]:
        """Return figures of the index: its engine, number of items and the engine's own figures."""
        books = self.engine.books()
        return {
            "folder": None if self.folder is None else str(self.folder),
            **self.engine.entry(),
            "items": books.items,
            **self.engine.info(),
            "vocab_size": self.vocab_size,
            "ids": books.id_kind,
            "model": self.place.state.model,
            "views": self.place.state.views,
            "score": "cosine",
        }

    def add(
        self,
        embeddings: Any,
        metadata: Sequence[dict] | None = None,
        ids: Sequence[Any] | None = None,
        replace: bool = False,
    ) -> list[Any]:
        """
        Add items and return their ids; with a folder, returns once they are on disk. Merging continues in the
        background.

        Args:
            embeddings, metadata, ids: as in `build`; by default, integer ids continue from the last.
            replace: replace items whose ids exist already, in the same step.

        Raises:
            ValueError: if an id exists already or is of another kind.
            IndexBusyError: if another process is writing the index.
        """
        with self.engine.change() as books:
            matrix = canonical(embeddings, self.vocab_size)
            given, next_number = _checked_items(matrix.shape[0], metadata, ids, books)
            added = given.tolist() if isinstance(given, np.ndarray) else given
            there = self.engine.locate(added) if added and books.id_kind else {}
            if there and not replace:
                first = next(id for id in added if id in there)
                raise ValueError(f"id {first!r} is in the index already; delete it first or pass replace=True")
            if added:
                self.engine.keep(books.after(given, len(there), next_number))
                self.engine.put(given, matrix, metadata, there)
        return added

    def delete(self, ids: Any, missing_ok: bool = False) -> int:
        """
        Delete items and return their number; with a folder, returns once the change is on disk.

        Args:
            ids: one id or several.
            missing_ok: ignore unknown ids.

        Raises:
            ValueError: if an id is unknown; nothing is deleted then.
            IndexBusyError: if another process is writing the index.
        """
        wanted = list(dict.fromkeys(int(id) if isinstance(id, int | np.integer) else id for id in _listed(ids)))
        with self.engine.change() as books:
            there = self.engine.locate(_known_kind(wanted, books.id_type))
            missing = [id for id in wanted if id not in there]
            if missing and not missing_ok:
                raise ValueError(f"id {missing[0]!r} is not in the index, nothing was deleted; pass missing_ok=True")
            if there:
                self.engine.keep(books.without(len(there)))
                self.engine.remove(there)
        return len(there)

    def merge(self) -> None:
        """Merge all segments into one without the deleted items and wait for it; engines clean up in their own way."""
        self.engine.optimize()

    def wait(self) -> None:
        """Wait until no merge is running in the background."""
        self.engine.wait()

    def close(self) -> None:
        """Wait for merges, disconnect and let others write. The index can still be searched, and changed again."""
        self.engine.close()
        self.place.release()

    def refresh(self) -> bool:
        """Read the changes of other processes. Returns whether there were any; engines are always up to date."""
        return self.engine.refresh()

    @property
    def model(self) -> Any:
        """The model that encodes queries, loaded at first use; None if the index names none."""
        return self._words.model

    @property
    def processor(self) -> Any:
        """The processor or tokenizer that reads words, loaded at first use; None if the index has none."""
        return self._words.processor

    def word_ids(self, text: str | int) -> list[int]:
        """Return the dimensions of all pieces of one word or several; raises ValueError for unknown words."""
        return self._words.ids_of(text)

    def words_of(self, vector: Any, k: int | None = None) -> list[tuple[str, float]]:
        """Return the k heaviest words of a vector (all by default) with their weights, heaviest first; no pieces."""
        row = canonical(vector, self.vocab_size)[0]
        order = np.argsort(-row.data, kind="stable")
        order = order[self._words.whole(row.indices[order].tolist())][:k]
        return list(zip(self._words.names(row.indices[order].tolist()), row.data[order].tolist(), strict=True))

    def encode(self, text: Any = None, motion: Any = None, fps: Any = None) -> sparse.csr_matrix:
        """
        Encode queries with the index's model. Returns (N, V) CSR.

        A warning names unknown words of a text; a text of unknown words alone has an empty row, which finds nothing.

        Args:
            text: one text or several.
            motion, fps: one array (T, J, 3) or (T, F) or several, and their frame rate in Hz. They are encoded with
                as many views as the items, see `build`.

        Raises:
            ValueError: if the index has no model, a text is empty, or not exactly one of text and motion is given.
        """
        return self._words.encode(text, motion, fps)

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
        Find the k items with the largest scores.

        Args:
            query: a text or vector (V,), or several: a list of texts or a matrix (Q, V), sparse or dense. A text whose
                words are all unknown finds nothing. Without any query, the words of `must` and `boost` are the query,
                each with weight 1.
            k: maximum number of hits.
            text, motion, fps: instead of `query`, as in `encode`.
            must, must_not: words (texts or their numbers) that every hit contains, or that no hit contains; a word is
                contained if all its pieces are.
            boost: factors by which words of the query are multiplied, before the query is normalized.

        Returns:
            [`Hit`]s, best first; for several queries, one list per query.

        Raises:
            ValueError: if a word is unknown, the query is missing or invalid, or k is below 1.
        """
        given = [name for name, value in (("query", query), ("text", text), ("motion", motion)) if value is not None]
        if len(given) > 1:
            raise ValueError(f"query: got {' and '.join(given)}; pass one of them")
        if isinstance(query, str) or (isinstance(query, list | tuple) and query and isinstance(query[0], str)):
            query, text = None, query
        if text is not None or motion is not None:
            single = isinstance(text, str) or is_one_motion(motion)
            query = self.encode(text, motion, fps)
        elif query is None:
            single = True
            query = self._words.query_of([*_listed(must), *(boost or {})])
        else:
            single = not sparse.issparse(query) and np.ndim(query) == 1
        ranked = self._rank(query, k, must, must_not, boost)
        found = [_hits(hits, rows, asked, self._words) for (hits, rows), asked in ranked]
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
        """Search with vectors (Q, V) as in `search`, but return only ids and scores of each query."""
        found = [hits for (hits, _), _ in self._rank(queries, k, must, must_not, boost)]
        return [([hit[1] for hit in hits], np.array([-hit[0] for hit in hits], np.float32)) for hits in found]

    def _rank(
        self, queries: Any, k: int, must: Iterable[str | int], must_not: Iterable[str | int], boost: Boost
    ) -> list[tuple[Ranked, Query]]:
        """Return the hits of each query, and the query after boosting."""
        asked = self._words.queries(queries, boost)
        if k < 1:
            raise ValueError(f"k: got {k}; pass at least 1")
        wanted, unwanted = ([self.word_ids(word) for word in _listed(words)] for words in (must, must_not))
        return list(zip(self.engine.rank(asked, k, wanted, unwanted), asked, strict=True))


def _listed(values: Any) -> Any:
    """Return one word or id as a list, and several unchanged."""
    return [values] if isinstance(values, str | int | np.integer) else values


def check_build(
    engine: str, uri: str | None = None, folder: str | os.PathLike | None = None, overwrite: bool = False
) -> None:
    """Check, before encoding, that `LexMotionIndex.build` can use an engine and a folder; raises the same errors."""
    path = None if folder is None else Path(folder)
    if path is not None:
        check_free(path, overwrite)
    if path is None and engine != EMBEDDED:
        raise ValueError(f"engine={engine!r} without a folder; pass folder=... for the address and the processor")
    connect({"engine": engine, "uri": uri}, IndexFolder(path, State(vocab_size=0))).close()


def _model_name(model: Any) -> str | None:
    if model is None or isinstance(model, str):
        return model
    return os.fspath(model) if isinstance(model, os.PathLike) else getattr(model, "name_or_path", None) or None


def _save(index: LexMotionIndex, folder: Path, model: str | None, public: bool = False) -> None:
    """
    Write an index to a folder as an embedded one that names this model; with `public`, without deleted items and
    without paths of this machine.
    """
    if index.folder is not None and folder.exists() and folder.samefile(index.folder):
        return  # every change has been written already
    segments, books, state = index.engine.segments(), index.engine.books(), index.place.state
    if public and segments:
        merged = merge_segments(segments)
        items = range(merged.rows if merged.metadata is not None else 0)
        lines = [metadata_line(merged.id(row), _public(merged.item_metadata(row))) for row in items]
        segments = [replace(merged, metadata=Texts.of(lines) if lines else None)]
    old, ids = state, (books.id_kind, books.next_number)
    state = State(old.vocab_size, (), *ids, model, generation=old.generation, views=old.views)
    other = IndexFolder(folder, state)
    with other.making(overwrite=True):
        other.store_processor(index.processor)
        other.commit(replace(other.state, segments=tuple(other.store(segments))))
        _clear(other)
    other.release()


def _public(value: Any, key: str = "") -> Any:
    """Return metadata with the last part of each path of a machine; captions are no paths."""
    if isinstance(value, dict):
        return {name: _public(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [_public(item, key) for item in value]
    if isinstance(value, str) and not key.startswith("caption") and _LOCAL_PATH.match(value):
        return ([part for part in re.split(r"[/\\]", value) if part] or [""])[-1]
    return value


def _clear(folder: IndexFolder) -> None:
    """Remove the files of a replaced index, and its table if it had an engine."""
    entry = (folder.replaced or {}).get("engine")
    if entry is not None:
        try:
            if not made_here(entry, folder.path):
                raise PermissionError(f"not made by the index in {folder.path}")
            connect(entry, folder).drop()
        except (ImportError, OSError) as error:
            logger.warning("table %s at %s stays: %s; drop it yourself", entry["table"], entry["uri"], error)
    folder.sweep()


def _checked_items(count: int, metadata: Metadata, ids: Any, books: Books) -> tuple[Any, int]:
    """
    Return the ids of new items, (N,) int64 or a list of strings, and the next number after them. Raises ValueError if
    lengths differ, or ids are repeated or of another kind.
    """
    if metadata is not None and len(metadata) != count:
        raise ValueError(f"metadata: got {len(metadata)} for {count} vectors; pass one per vector")
    next_number = books.next_number
    if ids is not None:
        ids = _checked_ids(ids, count, books.id_type)
    elif books.id_kind == "str":
        raise ValueError("ids: got None for an index whose ids are texts; pass ids of the new items")
    else:
        ids = np.arange(next_number, next_number + count)
    if count and isinstance(ids, np.ndarray):
        next_number = max(next_number, int(ids.max()) + 1)
    return ids, next_number


def _known_kind(ids: Iterable[Any], kind: type | None) -> list[Any]:
    """Return those ids that an index whose ids are of this kind may have, so that engines are asked for no other."""
    return [id for id in ids if isinstance(id, kind or ()) and _storable(id)]


def _storable(id: Any) -> bool:
    """Return whether every engine can store an id: an integer of 64 bits, or a text without NUL and surrogates."""
    if isinstance(id, int):
        return -(1 << 63) <= id < 1 << 63
    return not re.search("[\0\ud800-\udfff]", id)


def _checked_ids(ids: Any, count: int, kind: type | None) -> Any:
    """Return ids as (N,) int64, or as a list of strings."""
    found = ids.tolist() if isinstance(ids, np.ndarray) else list(ids)
    found = [int(id) if isinstance(id, np.integer) else id for id in found]
    if len(found) != count:
        raise ValueError(f"got {len(found)} ids for {count} vectors; pass one per vector")
    expected = kind or (type(found[0]) if found else int)
    for id in found:
        if type(id) is not expected or expected not in (int, str):
            raise ValueError(f"ids: pass only integers or only texts, as in the index; got {id!r}")
        if not _storable(id):
            raise ValueError(f"ids: got {id!r}; pass integers of 64 bits, or texts without NUL and surrogates")
    if len(set(found)) < count:
        twice = next(id for id, times in Counter(found).items() if times > 1)
        raise ValueError(f"id {twice!r} is given twice; pass a different id for every item")
    return np.array(found, np.int64) if expected is int else found


def _hits(found: Sequence[tuple], rows_of: Sequence[Found], query: Query, words: Words) -> list[Hit]:
    """Add metadata and the words shared with the query to the hits of `Ranked`."""
    shared: list[list[tuple[float, int]]] = [[] for _ in found]
    for place in {hit[2] for hit in found}:
        numbers = [number for number, hit in enumerate(found) if hit[2] == place]
        rows = np.array([found[number][3] for number in numbers], np.int32)
        products = rows_of[place].weights_of(query[0], rows) * query[1][:, None].astype(np.float64)
        for number, column in zip(numbers, products.T, strict=True):
            own = np.flatnonzero(column)
            shared[number] = sorted(zip((-column[own]).tolist(), query[0][own].tolist(), strict=True))
    hits = []
    for (score, id, place, row), pairs in zip(found, shared, strict=True):
        kept = words.whole([word for _, word in pairs])
        pairs = [pair for pair, whole in zip(pairs, kept, strict=True) if whole]
        names = words.names([word for _, word in pairs])
        named = [(name, -product) for name, (product, _) in zip(names, pairs, strict=True)]
        hits.append(Hit(id, -score, rows_of[place].item_metadata(row), named))
    return hits
