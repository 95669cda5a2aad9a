"""
Rows in Milvus: a file of Milvus Lite by default, or a server or cluster through the same client.

A collection has id, vector (sparse, inner product, an exact inverted index), words (an array, for must and must_not)
and metadata (JSON); the next number and the kind of ids are among its properties. Milvus has no transactions: a
change that is killed half way may be there in part, one that has returned is whole. The lock of the index's folder
keeps a second writer out, but not one that has a copy of the folder: do not write through two copies at once. Milvus
Lite lets one process alone have its file open.
"""

import contextlib
import json
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

from .engine import Books, Rows
from .folder import IndexBusyError, IndexFolder
from .segments import ENGINE_ROWS
from .tables import TableEngine, unit_rows

TOKEN = "LEXMOTION_MILVUS_TOKEN"
TIMEOUT = 10.0  # seconds until a server is given up
BATCH = 1000  # rows a message
MOST_WORDS, LONGEST_ID = 4096, 1024  # an array's entries and a text's bytes: Milvus's limit, and ours
KIND, NEXT, WIDTH = "lexmotion.id_kind", "lexmotion.next_number", "lexmotion.words"  # properties of a collection

_opened: Counter[str] = Counter()  # files of Milvus Lite that this process has open
_guard = threading.Lock()


class MilvusEngine(TableEngine):
    """
    See `IndexEngine`.

    Args:
        entry: `uri` of a server, or a file that ends in .db; without it, a new file in the index's folder. `table`:
            collection that `create` has made; without it, a new name. folder: of the index.
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
            raise ValueError(f"{uri!r} is no address of Milvus: give a file that ends in .db, or http://HOST:19530")
        self.uri, self.table = uri, entry.get("table") or f"lexmotion_{secrets.token_hex(6)}"
        self._open: MilvusClient | None = None
        self._words: int | None = None  # width of the vectors
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it logs what it raises, with its own stack

    def check(self) -> None:
        if self._path is not None:
            try:
                import milvus_lite  # noqa: F401
            except ImportError as error:
                raise ImportError(
                    f"the file {self._path} is opened by milvus-lite: run `pip install lexmotion[milvus]`"
                ) from error
            if not self._own and not self._path.parent.is_dir():
                raise FileNotFoundError(f"there is no folder {str(self._path.parent)!r} for the file of Milvus Lite")
        if self._path is None or self._path.exists():
            self._client()

    def entry(self) -> dict[str, Any]:
        return {"engine": "milvus", "uri": self.uri, "table": self.table}

    # ---------------------------------------------------------------------------------------------------- connection

    def _client(self) -> MilvusClient:
        if self._open is None:
            self._open = self._connect() if self._path is None else self._open_file(self._path)
            if self._open.has_collection(self.table):
                self._open.load_collection(self.table)  # a file that was closed is not
        return self._open

    def _connect(self) -> MilvusClient:
        try:
            return MilvusClient(self.uri, token=self._token, timeout=TIMEOUT)
        except MilvusException as error:
            raise ConnectionError(
                f"Milvus at {self.uri} cannot be reached: {error.message}. Start it, name another address with "
                f"uri=... or --uri, or set {TOKEN}"
            ) from error

    def _open_file(self, path: Path) -> MilvusClient:
        logging.getLogger("milvus_lite").setLevel(logging.CRITICAL)
        with _guard:
            try:
                client = MilvusClient(str(path))
            except MilvusException as error:
                raise IndexBusyError(
                    f"{path} cannot be opened ({error.message}); most likely another process has it open: Milvus Lite "
                    "lets one at a time, a server or the embedded engine any number of readers"
                ) from error
            _opened[str(path)] += 1
        return client

    @contextlib.contextmanager
    def _errors(self) -> Iterator[MilvusClient]:
        """The client; a lost server is told by its address."""
        client = self._client()
        try:
            yield client
        except MilvusException as error:
            if not any(told in error.message.lower() for told in ("unavailable", "connect", "deadline")):
                raise
            raise ConnectionError(
                f"Milvus at {self.uri} cannot be reached: {error.message}. Start it, or name another address with "
                "uri=... or --uri"
            ) from error

    # -------------------------------------------------------------------------------------------------------- tables

    def create(self, width: int, id_kind: str | None) -> None:
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
        self._set({WIDTH: width, KIND: id_kind or "", NEXT: 0})

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
                    f"Milvus at {self.uri} has no collection {self.table}: it was dropped, or the address is another"
                )
            found = self._properties().get(WIDTH)
            if found != str(width):
                raise ValueError(f"{self.table} at {self.uri} is of {found} words, the index's folder of {width}")

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
        if not before[KIND] and books.id_kind == "str":  # an empty collection of numbers becomes one of texts
            with self._errors() as client:
                client.drop_collection(self.table)
            self.create(int(before[WIDTH]), "str")
        after = {KIND: books.id_kind or "", NEXT: str(books.next_number)}
        if any(before[name] != value for name, value in after.items()):
            self._set(after)

    # ---------------------------------------------------------------------------------------------------------- rows

    def locate(self, ids: Sequence[Any]) -> dict[Any, None]:
        found: dict[Any, None] = {}
        with self._errors() as client:
            for start in range(0, len(ids), BATCH):
                some = client.get(self.table, ids=list(ids[start : start + BATCH]), output_fields=["id"])
                found |= {row["id"]: None for row in some}
        return found

    def put(
        self, ids: Any, vectors: sparse.csr_matrix, metadata: Sequence[dict] | None, replaced: Mapping[Any, Any]
    ) -> None:
        rows = unit_rows(ids, vectors, metadata)
        width = rows.vectors.shape[1]
        lengths = np.diff(rows.vectors.indptr)
        if len(lengths) and lengths.max() > MOST_WORDS:
            raise ValueError(f"Milvus keeps at most {MOST_WORDS} words an item, got {lengths.max()}")
        long = next((id for id in rows.ids if isinstance(id, str) and len(id.encode()) > LONGEST_ID), None)
        if long is not None:
            raise ValueError(f"ids are texts of at most {LONGEST_ID} bytes in Milvus, got {long[:40]!r}...")
        json.dumps(rows.metadata, allow_nan=False)  # raises before anything is written
        batch: list[dict[str, Any]] = []
        with self._errors() as client:
            write = client.upsert if replaced else client.insert
            for id, words, weights, item in rows.each():
                # Milvus has no empty vectors; the word after the last is asked for by nobody.
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
                client.delete(self.table, ids=ids[start : start + BATCH])

    def metadata(self, id: Any) -> dict[str, Any] | None:
        with self._errors() as client:
            found = client.get(self.table, ids=[id], output_fields=["metadata"])
        return found[0]["metadata"] if found else None

    def nearest(
        self,
        words: np.ndarray,
        weights: np.ndarray,
        count: int,
        must: Sequence[int],
        must_not: Sequence[Sequence[int]],
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

    # ----------------------------------------------------------------------------------------------------- upkeep

    def optimize(self) -> None:
        with self._errors() as client:
            client.flush(self.table)
            client.release_collection(self.table)  # what was loaded before is searched without its index
            client.load_collection(self.table)

    def info(self) -> dict[str, Any]:
        with self._errors() as client:
            version = client.get_server_version()
        size = None if self._path is None else sum(file.stat().st_size for file in self._path.rglob("*"))
        return {"server": version, "bytes": size}

    def drop(self) -> None:
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
                    server_manager_instance.release_server(str(self._path))  # else the file is locked until we end


def _rows(found: Sequence[tuple[Any, dict[str, Any]]], width: int) -> Rows:
    entries = []
    for id, row in found:
        pairs = [(word, weight) for word, weight in row["vector"].items() if word < width]
        entries.append((id, [pair[0] for pair in pairs], [pair[1] for pair in pairs], row["metadata"]))
    return Rows.of(entries, width)
