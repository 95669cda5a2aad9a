"""
The engine for Milvus: a file of Milvus Lite by default, or a server or cluster through the same client.

A collection has the fields id, vector (sparse, inner product, an exact inverted index), words (an array, for must and
must_not) and metadata (JSON); the next number and the kind of ids are properties of the collection. Milvus has no
transactions: a change that is interrupted may be applied in part, one that has returned is complete. The lock of the
index's folder excludes a second writer, but not one with a copy of the folder: do not write through two copies at
once. Only one process at a time can open a file of Milvus Lite.
"""

import contextlib
import logging
import os
import secrets
import shutil
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

import numpy as np
from pymilvus import DataType, MilvusClient, MilvusException
from scipy import sparse

from .engine import Books, Metadata, Rows, WordPieces
from .folder import IndexBusyError, IndexFolder
from .segments import ENGINE_ROWS
from .tables import TableEngine, unit_rows

TOKEN = "LEXMOTION_MILVUS_TOKEN"
TIMEOUT = 10.0  # seconds to wait for a server
BATCH = 1000  # rows per message
MOST_WORDS, LONGEST_ID = 4096, 1024  # entries of an array (limit of Milvus) and bytes of a string id (our limit)
KIND, NEXT, WIDTH = "lexmotion.id_kind", "lexmotion.next_number", "lexmotion.words"  # properties of a collection
MARKED = "lexmotion.mark"
ESCAPES = str.maketrans({"\\": r"\\", "'": r"\'", '"': r"\"", "\n": r"\n", "\r": r"\r", "\t": r"\t"})

_opened: Counter[str] = Counter()  # number of clients in this process per file of Milvus Lite
_guard = threading.Lock()


class MilvusEngine(TableEngine):
    """
    `IndexEngine` in Milvus.

    Args:
        entry: `uri` of a server or a file that ends in .db (by default a new file in the index's folder), and `table`,
            the collection (by default a new name).
        folder: folder of the index.
    """

    most: ClassVar[int] = 16384  # Milvus's limit

    def __init__(self, entry: Mapping[str, Any], folder: IndexFolder):
        super().__init__(folder)
        uri = entry.get("uri") or f"{ENGINE_ROWS}{secrets.token_hex(4)}.db"
        self._token = os.environ.get(TOKEN, "")
        self._path: Path | None = None
        self._own = False
        if "://" in uri:
            parts = urlsplit(uri)
            if parts.password is not None:
                self._token = f"{unquote(parts.username or '')}:{unquote(parts.password)}"
                uri = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        elif uri.endswith(".db"):
            self._own = uri == Path(uri).name and uri.startswith(ENGINE_ROWS)
            self._path = (folder.path or Path()) / uri if self._own else Path(uri).absolute()
            uri = uri if self._own else str(self._path)
        else:
            raise ValueError(f"uri: got {uri!r} for Milvus; pass a file that ends in .db, or http://HOST:19530")
        self.uri, self.table = uri, entry.get("table") or f"lexmotion_{secrets.token_hex(6)}"
        self._open: MilvusClient | None = None
        self._words: int | None = None  # width of the vectors
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it logs every error it raises, with a traceback

    def check(self) -> None:
        if self._path is not None:
            try:
                import milvus_lite  # noqa: F401
            except ImportError as error:
                raise ImportError(f"{self._path} needs milvus-lite; run `pip install lexmotion[milvus]`") from error
            if not self._own and not self._path.parent.is_dir():
                raise FileNotFoundError(f"no folder {str(self._path.parent)!r}; create it or pass another uri")
        if self._path is None or self._path.exists():
            self._client()

    def entry(self) -> dict[str, Any]:
        return {"engine": "milvus", "uri": self.uri, "table": self.table}

    def _client(self) -> MilvusClient:
        if self._open is None:
            self._open = self._connect() if self._path is None else self._open_file(self._path)
            if self._open.has_collection(self.table):
                self._open.load_collection(self.table)  # collections of a reopened file are not loaded
        return self._open

    def _connect(self) -> MilvusClient:
        try:
            return MilvusClient(self.uri, token=self._token, timeout=TIMEOUT)
        except MilvusException as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: MilvusException) -> ConnectionError:
        return ConnectionError(
            f"Milvus at {self.uri} cannot be reached ({error.message}); start it, pass another address with uri=... "
            f"or --uri, or set {TOKEN}"
        )

    def _open_file(self, path: Path) -> MilvusClient:
        logging.getLogger("milvus_lite").setLevel(logging.CRITICAL)
        with _guard:
            try:
                client = MilvusClient(str(path))
            except MilvusException as error:
                raise IndexBusyError(
                    f"{path} cannot be opened ({error.message}), probably because another process has it open; close "
                    "it there, or use a server or the embedded engine, which take any number of readers"
                ) from error
            _opened[str(path)] += 1
        return client

    @contextlib.contextmanager
    def _errors(self) -> Iterator[MilvusClient]:
        """Return the context of the client, which turns a lost connection into an error that names the address."""
        client = self._client()
        try:
            yield client
        except MilvusException as error:
            if not any(word in error.message.lower() for word in ("unavailable", "connect", "deadline")):
                raise
            raise self._unreachable(error) from error

    def create(self, width: int, id_kind: str | None) -> None:
        if self._own:
            self._folder.note([self.uri])
        with self._errors() as client:
            schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
            if id_kind == "str":
                schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=LONGEST_ID)
            else:
                schema.add_field("id", DataType.INT64, is_primary=True)
            schema.add_field("vector", DataType.SPARSE_FLOAT_VECTOR)
            schema.add_field("words", DataType.ARRAY, element_type=DataType.INT32, max_capacity=MOST_WORDS)
            schema.add_field("metadata", DataType.JSON)
            index = client.prepare_index_params()
            index.add_index("vector", index_type="SPARSE_INVERTED_INDEX", metric_type="IP")
            client.create_collection(self.table, schema=schema, index_params=index, consistency_level="Strong")
        self._set({WIDTH: width, KIND: id_kind or "", NEXT: 0, MARKED: self.mark})

    def _set(self, properties: dict[str, Any]) -> None:
        with self._errors() as client:
            texts = {name: str(value) for name, value in properties.items()}
            client.alter_collection_properties(self.table, properties=texts)

    def _properties(self) -> dict[str, str]:
        with self._errors() as client:
            return client.describe_collection(self.table)["properties"]

    def open(self, width: int) -> None:
        with self._errors() as client:
            if not client.has_collection(self.table):
                raise FileNotFoundError(
                    f"no collection {self.table} in Milvus at {self.uri}; pass its address with uri=... or --uri, or "
                    "build the index again"
                )
            found = self._properties().get(WIDTH)
            if found != str(width):
                raise ValueError(
                    f"{self.table} at {self.uri}: got {found} words for an index of {width}; pass another uri"
                )

    def books(self) -> Books:
        properties = self._properties()
        with self._errors() as client:
            count = client.query(self.table, output_fields=["count(*)"])[0]["count(*)"]
        return Books(properties[KIND] or None, int(properties[NEXT]), count)

    @contextlib.contextmanager
    def change(self) -> Iterator[Books]:
        with self._folder.writing():
            yield self.books()

    def keep(self, books: Books) -> None:
        before = self._properties()
        if not before[KIND] and books.id_kind == "str":  # recreate the empty collection with string ids
            with self._errors() as client:
                client.drop_collection(self.table)
            self.create(int(before[WIDTH]), "str")
            self._set({MARKED: before.get(MARKED, "")})  # still of the index that made it
        after = {KIND: books.id_kind or "", NEXT: str(books.next_number)}
        if any(before[name] != value for name, value in after.items()):
            self._set(after)

    def locate(self, ids: Sequence[Any]) -> dict[Any, None]:
        found: dict[Any, None] = {}
        with self._errors() as client:
            for start in range(0, len(ids), BATCH):
                some = client.query(self.table, filter=_among(ids[start : start + BATCH]), output_fields=["id"])
                found |= {row["id"]: None for row in some}
        return found

    def put(self, ids: Any, vectors: sparse.csr_matrix, metadata: Metadata, replaced: Mapping[Any, Any]) -> None:
        rows = unit_rows(ids, vectors, metadata)
        width, lengths = rows.vectors.shape[1], np.diff(rows.vectors.indptr)
        if len(lengths) and lengths.max() > MOST_WORDS:
            raise ValueError(f"vectors: got {lengths.max()} words in an item; Milvus stores at most {MOST_WORDS}")
        long = next((id for id in rows.ids if isinstance(id, str) and len(id.encode()) > LONGEST_ID), None)
        if long is not None:
            raise ValueError(f"ids: got {long[:40]!r}...; pass texts of at most {LONGEST_ID} bytes to Milvus")
        batch: list[dict[str, Any]] = []
        with self._errors() as client:
            write = client.upsert if replaced else client.insert
            for id, words, weights, item in rows.each():
                # Milvus has no empty vectors, so an empty one gets a word beyond the vocabulary.
                vector = dict(zip(words, weights, strict=True)) or {width: 1.0}
                batch.append({"id": id, "vector": vector, "words": words, "metadata": item})
                if len(batch) == BATCH:
                    write(self.table, batch)
                    batch = []
            if batch:
                write(self.table, batch)

    def remove(self, located: Mapping[Any, Any]) -> None:
        ids = sorted(located)
        with self._errors() as client:
            for start in range(0, len(ids), BATCH):
                client.delete(self.table, filter=_among(ids[start : start + BATCH]))

    def metadata(self, id: Any) -> dict[str, Any] | None:
        with self._errors() as client:
            found = client.query(self.table, filter=_among([id]), output_fields=["metadata"])
        return found[0]["metadata"] if found else None

    def nearest(
        self, words: np.ndarray, weights: np.ndarray, count: int, must: Sequence[int], must_not: WordPieces
    ) -> Rows:
        conditions = [f"ARRAY_CONTAINS_ALL(words, {list(must)})"] if must else []
        conditions += [f"not ARRAY_CONTAINS_ALL(words, {list(pieces)})" for pieces in must_not]
        with self._errors() as client:
            found = client.search(
                self.table,
                data=[dict(zip(words.tolist(), weights.tolist(), strict=True))],
                anns_field="vector",
                limit=count,
                filter=" and ".join(conditions),
                output_fields=["vector", "metadata"],
                search_params={"metric_type": "IP"},
            )[0]
        return _rows([(hit["id"], hit["entity"]) for hit in found], self._width())

    def _width(self) -> int:
        if self._words is None:
            self._words = int(self._properties()[WIDTH])
        return self._words

    def rows(self, vectors: bool = True, metadata: bool = True) -> Iterator[Rows]:
        width = self._width()
        with self._errors() as client:
            pages = client.query_iterator(self.table, batch_size=BATCH, output_fields=["id", "vector", "metadata"])
            while page := pages.next():
                yield _rows([(row["id"], row) for row in page], width)
            pages.close()

    def optimize(self) -> None:
        with self._errors() as client:
            client.flush(self.table)
            client.release_collection(self.table)  # rows loaded earlier are searched without the index
            client.load_collection(self.table)

    def info(self) -> dict[str, Any]:
        with self._errors() as client:
            version = client.get_server_version()
        size = None if self._path is None else sum(file.stat().st_size for file in self._path.rglob("*"))
        return {"server": version, "bytes": size}

    def found_mark(self) -> str | None:
        if self._own:  # a file in the folder is of this index, wherever the folder was copied from
            return self.mark
        with self._errors() as client:
            return self._properties().get(MARKED, "") if client.has_collection(self.table) else None

    def remove_table(self) -> None:
        with self._errors() as client:
            client.drop_collection(self.table)
        self.close()
        if self._own and self._path is not None:
            shutil.rmtree(self._path, ignore_errors=True)

    def close(self) -> None:
        if self._open is None:
            return
        self._open.close()
        self._open = None
        if self._path is not None:
            from milvus_lite.server_manager import server_manager_instance

            with _guard:
                _opened[str(self._path)] -= 1
                if not _opened[str(self._path)]:
                    server_manager_instance.release_server(str(self._path))  # or the file stays locked until exit


def _among(ids: Sequence[Any]) -> str:
    """
    Return the filter for items of these ids. The client quotes texts without escaping them, and Milvus Lite cannot
    bind them.
    """
    return f"id in [{', '.join(str(id) if isinstance(id, int) else _quoted(id) for id in ids)}]"


def _quoted(text: str) -> str:
    return "'" + text.translate(ESCAPES) + "'"


def _rows(found: Sequence[tuple[Any, dict[str, Any]]], width: int) -> Rows:
    entries = []
    for id, row in found:
        pairs = [(word, weight) for word, weight in row["vector"].items() if word < width]
        entries.append((id, [pair[0] for pair in pairs], [pair[1] for pair in pairs], row["metadata"]))
    return Rows.of(entries, width)
