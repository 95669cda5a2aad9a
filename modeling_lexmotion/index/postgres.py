"""
The engine for PostgreSQL with pgvector, which stores vectors as `sparsevec`.

    TABLE            id, vector sparsevec, words int[] with an index for must and must_not, metadata jsonb
    TABLE_books      one row: width of the vectors, kind of ids, next number, items

Every change is one transaction, which locks the row of TABLE_books: any number of processes can write, one at a time,
and an unfinished change is rolled back. A search reads the whole table: pgvector's own index is approximate and
limited to 1,000 words, so it is not used.
"""

import contextlib
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import psycopg
from pgvector import SparseVector
from pgvector.psycopg import register_vector
from psycopg import conninfo, errors, sql
from psycopg.types.json import Jsonb
from scipy import sparse

from .engine import Books, Metadata, Rows, WordPieces
from .folder import IndexFolder
from .tables import TableEngine, unit_rows

TIMEOUT = 10  # seconds to wait for a server
OLDEST = (0, 7)  # first version of pgvector with sparsevec
BATCH = 2000  # rows in memory at once
KINDS = {"int": sql.SQL("bigint"), "str": sql.SQL('text COLLATE "C"')}  # ordered as Python orders texts
SECRETS = ("password", "sslpassword")


class PostgresEngine(TableEngine):
    """
    `IndexEngine` in PostgreSQL.

    Args:
        entry: `uri`, a connection string or URI of libpq, completed from the environment as by psql, and `table`, by
            default a new name.
        folder: folder of the index.
    """

    most: ClassVar[int] = 1 << 20

    def __init__(self, entry: Mapping[str, Any], folder: IndexFolder):
        super().__init__(folder)
        uri = entry.get("uri")
        if not uri:
            raise ValueError(
                "engine 'postgres' without an address; pass uri='postgresql://USER@HOST/DATABASE' or --uri"
            )
        try:
            self._settings: dict[str, Any] = dict(conninfo.conninfo_to_dict(uri))
        except psycopg.ProgrammingError:
            # Neither the address nor libpq's message is shown, as both may contain the password.
            raise ValueError("invalid address of Postgres; pass postgresql://USER@HOST/DATABASE") from None
        shown: dict[str, Any] = {name: value for name, value in self._settings.items() if name not in SECRETS}
        self.uri = conninfo.make_conninfo(**shown)
        self.table = entry.get("table") or f"lexmotion_{secrets.token_hex(6)}"
        self._open: psycopg.Connection | None = None
        self._width: int | None = None  # set once the table of rows exists
        names = {"rows": self.table, "books": f"{self.table}_books"}
        self._named: dict[str, Any] = {key: sql.Identifier(name) for key, name in names.items()}

    def check(self) -> None:
        with self._errors():
            self._connection()

    def entry(self) -> dict[str, Any]:
        return {"engine": "postgres", "uri": self.uri, "table": self.table}

    def _connection(self) -> psycopg.Connection:
        if self._open is None or self._open.closed:
            self._open = self._connect()
        return self._open

    def _connect(self) -> psycopg.Connection:
        settings: dict[str, Any] = {"connect_timeout": TIMEOUT, "application_name": "lexmotion"} | self._settings
        deadline = time.monotonic() + TIMEOUT
        while True:
            try:
                connection = psycopg.connect(**settings, autocommit=True)
                break
            except psycopg.OperationalError as error:
                starting = "starting up" in str(error) or "recovery" in str(error)  # briefly, after a crash
                if not starting or time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: psycopg.Connection) -> None:
        installed = "SELECT extversion FROM pg_extension WHERE extname = 'vector'"
        found = connection.execute(installed).fetchone()
        if found is None:
            try:
                connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
            except psycopg.Error as error:
                raise ValueError(
                    f"no pgvector in Postgres at {self.uri!r} ({_line(error)}); install pgvector 0.7 or later there "
                    "and have a superuser run CREATE EXTENSION vector in the database"
                ) from error
            found = connection.execute(installed).fetchone()
        assert found is not None
        if tuple(int(part) for part in found[0].split(".")[:2]) < OLDEST:
            raise ValueError(
                f"pgvector of Postgres at {self.uri!r}: got version {found[0]}, without sparse vectors; install 0.7 "
                "or later, then run ALTER EXTENSION vector UPDATE"
            )
        connection.execute("SET jit = off")  # compiling these queries takes longer than it saves
        register_vector(connection)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Return the context that turns a lost connection into an error that names the address."""
        try:
            yield
        except errors.InsufficientPrivilege as error:
            raise PermissionError(
                f"Postgres at {self.uri!r}: {_line(error)}; grant this user the right, or connect as another"
            ) from error
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            if isinstance(error, errors.QueryCanceled | errors.LockNotAvailable | errors.DiskFull):
                raise
            raise ConnectionError(
                f"Postgres at {self.uri!r} cannot be reached ({_line(error)}); start it, pass another address with "
                "uri=... or --uri, or set PGPASSWORD"
            ) from error

    def _run(self, statement: str, values: Sequence[Any] = ()) -> psycopg.Cursor:
        """Run one statement, in which `{rows}` and `{books}` are the tables; reconnects after a lost connection."""
        with self._errors():
            query = sql.SQL(statement).format(**self._named)
            return self._connection().cursor(binary=True).execute(query, values)

    def create(self, width: int, id_kind: str | None) -> None:
        with self._errors(), self._connection().transaction():
            self._run(
                "CREATE TABLE {books} (width int NOT NULL, id_kind text, next_number bigint NOT NULL DEFAULT 0, "
                "items bigint NOT NULL DEFAULT 0)"
            )
            self._run("INSERT INTO {books} (width) VALUES (%s)", [width])
            self._named["mark"] = sql.Literal(self.mark)
            self._run("COMMENT ON TABLE {books} IS {mark}")

    def _known_width(self) -> int | None:
        """Return the width of the rows, which never changes; None before their table exists."""
        if self._width is None:
            found = self._run("SELECT width FROM {books} WHERE id_kind IS NOT NULL").fetchone()
            self._width = None if found is None else found[0]
        return self._width

    def _create_rows(self, width: int, id_kind: str) -> None:
        self._named["kind"] = KINDS[id_kind]
        self._named["width"] = sql.Literal(width)
        self._run(
            "CREATE TABLE {rows} (id {kind} PRIMARY KEY, vector sparsevec({width}) NOT NULL, words int[] NOT NULL, "
            "metadata jsonb NOT NULL)"
        )
        # `put` creates the index on words after the first rows, which is faster than updating it row by row.

    def open(self, width: int) -> None:
        try:
            found = self._run("SELECT width FROM {books}").fetchone()
        except errors.UndefinedTable as error:
            raise FileNotFoundError(
                f"no table {self.table} in Postgres at {self.uri!r}; pass its address with uri=... or --uri, or build "
                "the index again"
            ) from error
        if found is None or found[0] != width:
            raise ValueError(
                f"table {self.table} at {self.uri!r}: got {found} words for an index of {width}; pass another uri"
            )

    def books(self) -> Books:
        found = self._run("SELECT id_kind, next_number, items FROM {books}").fetchone()
        assert found is not None
        return Books(*found)

    @contextlib.contextmanager
    def change(self) -> Iterator[Books]:
        with self._folder.writing(alone=False), self._errors(), self._connection().transaction():
            found = self._run("SELECT id_kind, next_number, items FROM {books} FOR UPDATE").fetchone()
            assert found is not None
            yield Books(*found)

    def keep(self, books: Books) -> None:
        before = self._run("SELECT id_kind, width FROM {books}").fetchone()
        assert before is not None
        if before[0] is None and books.id_kind is not None:
            self._create_rows(before[1], books.id_kind)
        values = [books.id_kind, books.next_number, books.items]
        self._run("UPDATE {books} SET id_kind = %s, next_number = %s, items = %s", values)

    def locate(self, ids: Sequence[Any]) -> dict[Any, None]:
        if not ids or self._known_width() is None:
            return {}
        return {row[0]: None for row in self._run("SELECT id FROM {rows} WHERE id = ANY(%s)", [list(ids)])}

    def put(self, ids: Any, vectors: sparse.csr_matrix, metadata: Metadata, replaced: Mapping[Any, Any]) -> None:
        rows = unit_rows(ids, vectors, metadata)
        if replaced:
            self.remove(replaced)
        indexed = self._run("SELECT count(*) FROM pg_indexes WHERE tablename = %s", [self.table]).fetchone()
        kind = "int8" if isinstance(rows.ids[0], int) else "text"
        copy = sql.SQL("COPY {rows} (id, vector, words, metadata) FROM STDIN (FORMAT binary)").format(**self._named)
        with self._errors(), self._connection().cursor().copy(copy) as stream:
            stream.set_types([kind, "sparsevec", "int4[]", "jsonb"])
            for id, words, weights, item in rows.each():
                vector = SparseVector(dict(zip(words, weights, strict=True)), rows.vectors.shape[1])
                stream.write_row((id, vector, words, Jsonb(item)))
        if indexed == (1,):
            self._run("CREATE INDEX ON {rows} USING gin (words)")

    def remove(self, located: Mapping[Any, Any]) -> None:
        self._run("DELETE FROM {rows} WHERE id = ANY(%s)", [sorted(located)])

    def metadata(self, id: Any) -> dict[str, Any] | None:
        found = self._run("SELECT metadata FROM {rows} WHERE id = %s", [id]).fetchone()
        return None if found is None else found[0]

    def nearest(
        self, words: np.ndarray, weights: np.ndarray, count: int, must: Sequence[int], must_not: WordPieces
    ) -> Rows:
        width = self._known_width()
        if width is None:
            return Rows.of([], int(words.max()) + 1)
        conditions = ["words @> %s::int[]"] * bool(must) + ["NOT words @> %s::int[]"] * len(must_not)
        values = [list(must)] * bool(must) + [list(pieces) for pieces in must_not]
        query = SparseVector(dict(zip(words.tolist(), weights.tolist(), strict=True)), width)
        where = f"WHERE {' AND '.join(conditions)} " if conditions else ""
        statement = f"SELECT id, vector, metadata FROM {{rows}} {where}ORDER BY vector <#> %s, id LIMIT %s"
        return _rows(self._run(statement, [*values, query, count]).fetchall(), width)

    def rows(self, vectors: bool = True, metadata: bool = True) -> Iterator[Rows]:
        width = self._known_width()
        if width is None:
            return
        with self._errors(), self._connection().transaction():
            query = sql.SQL("SELECT id, vector, metadata FROM {rows} ORDER BY id").format(**self._named)
            with self._connection().cursor(f"rows_{secrets.token_hex(4)}", binary=True) as cursor:
                cursor.execute(query)
                while found := cursor.fetchmany(BATCH):
                    yield _rows(found, width)

    def optimize(self) -> None:
        if self._known_width() is not None:
            self._run("VACUUM (ANALYZE) {rows}")

    def info(self) -> dict[str, Any]:
        statement = (
            "SELECT current_setting('server_version'), "
            "(SELECT extversion FROM pg_extension WHERE extname = 'vector'), "
            "coalesce(pg_total_relation_size(to_regclass(%s)), 0)"
        )
        found = self._run(statement, [self.table]).fetchone()
        assert found is not None
        return {"server": found[0], "pgvector": found[1], "bytes": found[2]}

    def found_mark(self) -> str | None:
        statement = "SELECT coalesce(obj_description(oid, 'pg_class'), '') FROM pg_class WHERE oid = to_regclass(%s)"
        found = self._run(statement, [self._named["books"].as_string()]).fetchone()
        return None if found is None else found[0]

    def remove_table(self) -> None:
        self._run("DROP TABLE IF EXISTS {rows}, {books}")

    def close(self) -> None:
        if self._open is not None:
            self._open.close()


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _rows(found: Sequence[tuple[Any, ...]], width: int) -> Rows:
    return Rows.of([(id, vector.indices(), vector.values(), metadata) for id, vector, metadata in found], width)
