"""What an index acknowledged stays, whoever is killed; what is damaged is named; who writes, writes alone."""

import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading

import index_trials
import numpy as np
import pytest

from lexmotion import LexMotionIndex
from lexmotion.common.files import DiskFullError
from lexmotion.index import embedded
from lexmotion.index import folder as folders
from lexmotion.index import segments as index_storage
from lexmotion.index.folder import IndexBusyError
from lexmotion.index.segments import IndexDamagedError

V = 12
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def rows(number, seed=0):
    return np.random.default_rng(seed).random((number, V))


@pytest.fixture
def folder(tmp_path, tiny_tokenizer):
    """An index of two segments, metadata and a tokenizer, with a deletion."""
    place = tmp_path / "index"
    vectors = np.zeros((6, len(tiny_tokenizer)))
    vectors[:, :V] = rows(6)
    with LexMotionIndex.build(
        vectors[:4], [{"n": n} for n in range(4)], folder=place, processor=tiny_tokenizer
    ) as index:
        index.add(vectors[4:])
        index.delete(1)
    return place


def state(index):
    return index.ids, index.to_csr().toarray().tolist()


@pytest.mark.parametrize("part", ["write_file", "write_manifest"])
def test_a_full_disk_is_named_and_the_index_stays_as_it_was(folder, part, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    names = {path.name for path in (folder / "segments").iterdir()}
    with LexMotionIndex.from_pretrained(folder) as index:
        before, more = state(index), np.eye(1, index.vocab_size)
        with monkeypatch.context() as patch, pytest.raises(DiskFullError, match="index: .*free"):
            patch.setattr(index_storage if part == "write_file" else folders, part, full)
            index.add(more)
        assert state(index) == before
    with LexMotionIndex.from_pretrained(folder) as again:
        assert state(again) == before
        again.delete(before[0][0])
        again.add(more)
    assert part == "write_manifest" or names < {path.name for path in (folder / "segments").iterdir()}


# ---------------------------------------------------------------------------------------------------------------------
# Killed
# ---------------------------------------------------------------------------------------------------------------------


@needs_fork
def test_killed_writers_lose_nothing_acknowledged():
    command = [sys.executable, index_trials.__file__, "--trials", "36"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    report = json.loads(done.stdout) if done.stdout else pytest.fail(done.stderr)
    assert report["faults"] == [] and done.returncode == 0
    assert report["trials"] == 36 and report["acknowledged"] > 36
    assert report["undone"] > 5 and report["interrupted"]["add"] > 3  # the moments were not all idle ones


@needs_fork
@pytest.mark.parametrize(
    ("loss", "told"),
    [
        (lambda index: index.delete(0), "4 items in place of 5"),
        (lambda index: index.add(rows(1, 5) @ np.eye(V, index.vocab_size), ids=[99]), "6 items in place of 5"),
        (lambda index: index.add(index_trials.vectors({0: 2}), [{"version": 1}], [0], replace=True), "have changed"),
        (
            lambda index: index.add(index_trials.vectors({0: 1}), [{"version": 2}], [0], replace=True),
            "earlier version",
        ),
    ],
)
def test_a_loss_would_be_noticed(tmp_path, loss, told):
    items = {id: 1 for id in range(5)}
    metadata = [{"version": 1}] * 5
    with LexMotionIndex.build(index_trials.vectors(items), metadata, list(items), folder=tmp_path / "index") as index:
        assert index_trials._differs(tmp_path / "index", items) == ""
        loss(index)
    assert told in index_trials._differs(tmp_path / "index", items)


def test_files_are_on_the_disk_before_the_manifest_names_them(folder, monkeypatch):
    events = []
    fsync, replace = os.fsync, os.replace

    def synced(handle):
        events.append(os.readlink(f"/proc/self/fd/{handle}") if sys.platform == "linux" else "file")
        fsync(handle)

    def replaced(old, new):
        events.append(f"-> {new}")
        replace(old, new)

    with LexMotionIndex.from_pretrained(folder) as index:
        monkeypatch.setattr(os, "fsync", synced)
        monkeypatch.setattr(os, "replace", replaced)
        index.add(np.eye(index.vocab_size)[:1], [{"new": True}])
        monkeypatch.undo()
        name = index.engine.segments()[-1].name
    if sys.platform != "linux":
        pytest.skip("which files were synchronised is read from /proc")
    segments = folder / "segments"
    before = {str(segments / f"{name}.safetensors"), str(segments / f"{name}.jsonl")}
    assert set(events[:2]) == before
    assert events[2:] == [
        str(segments),
        str(folder / "manifest.json.tmp"),
        f"-> {folder / 'manifest.json'}",
        str(folder),
    ]


@pytest.mark.parametrize("change", ["add", "delete", "merge"])
def test_a_change_that_fails_changes_nothing(folder, change, monkeypatch):
    before = state(LexMotionIndex.from_pretrained(folder))
    write_file = index_storage.write_file

    def full(path, parts):
        if path.name == "manifest.json.tmp":
            raise OSError(28, "No space left on device")
        return write_file(path, parts)

    with LexMotionIndex.from_pretrained(folder) as index:
        monkeypatch.setattr(index_storage, "write_file", full)
        with pytest.raises(OSError, match="full.*free some space"):
            {
                "add": lambda: index.add(np.eye(index.vocab_size)[:2]),
                "delete": lambda: index.delete(0),
                "merge": index.merge,
            }[change]()
        monkeypatch.undo()
        assert state(index) == before == state(LexMotionIndex.from_pretrained(folder))
        index.add(np.eye(index.vocab_size)[:1], ids=[50])
    with LexMotionIndex.from_pretrained(folder) as index:
        index.delete(50)  # becomes the writer, and removes what was left over
        assert state(index) == before
        named = {file for segment in index.engine.segments() for file in segment.files}
        assert {path.name for path in (folder / "segments").iterdir()} == named


# ---------------------------------------------------------------------------------------------------------------------
# Damaged
# ---------------------------------------------------------------------------------------------------------------------


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("writer."))


def test_a_flipped_byte_is_found_and_the_file_named(folder):
    kinds = set()
    for path in files(folder):
        content = path.read_bytes()
        for place in {0, len(content) // 2, len(content) - 2}:
            path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
            with pytest.raises(IndexDamagedError, match=f"{path.name}.*build"):
                LexMotionIndex.from_pretrained(folder)
        path.write_bytes(content)
        kinds.add(path.suffix)
    assert kinds == {".json", ".jsonl", ".safetensors"}
    assert len(LexMotionIndex.from_pretrained(folder)) == 5


@pytest.mark.parametrize("verify", [True, False])
def test_a_truncated_file_is_found_and_named(folder, verify):
    for path in files(folder):
        content = path.read_bytes()
        for length in {0, 1, len(content) // 2, len(content) - 2}:
            path.write_bytes(content[:length])
            with pytest.raises(IndexDamagedError, match=f"{path.name}.*build"):
                LexMotionIndex.from_pretrained(folder, verify=verify)
        path.write_bytes(content)


def test_a_missing_file_is_named(folder):
    for path in files(folder):
        content = path.read_bytes()
        path.unlink()
        with pytest.raises((IndexDamagedError, FileNotFoundError), match=path.name):
            LexMotionIndex.from_pretrained(folder)
        path.write_bytes(content)


def test_another_format_is_refused(folder):
    content = json.loads((folder / "manifest.json").read_text())
    content.pop("sha256")
    content["version"] = 99
    text = json.dumps(content | {"sha256": index_storage._checksum(content)})
    (folder / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match=r"manifest\.json.*\b99\b.*\b1\b"):
        LexMotionIndex.from_pretrained(folder)


# ---------------------------------------------------------------------------------------------------------------------
# Several at once
# ---------------------------------------------------------------------------------------------------------------------


def test_a_second_writer_is_refused_until_the_first_is_done(folder):
    first, second = (LexMotionIndex.from_pretrained(folder) for _ in range(2))
    first.delete(0)
    for refused in (lambda: second.delete(2), lambda: second.add(np.eye(second.vocab_size)[0]), second.merge):
        with pytest.raises(IndexBusyError, match=rf"/index\b.*\b{os.getpid()}\b"):
            refused()
    with pytest.raises(IndexBusyError):
        LexMotionIndex.build(np.eye(V), folder=folder, overwrite=True)
    with pytest.raises(IndexBusyError):
        LexMotionIndex.build(np.eye(V)).save_pretrained(folder)
    assert len(second.search(np.ones(second.vocab_size))) == 5  # what it opened
    first.close()
    with pytest.raises(ValueError, match=r"\bid\b.*\b0\b"):
        second.delete(0)  # it knows what the first has done
    second.delete(2)
    assert first.refresh() and first.ids == second.ids == [3, 4, 5]
    second.close()


def test_a_killed_writer_does_not_lock_others_out(folder):
    code = (
        "import sys, time; sys.argv = ['-m']\n"
        "from lexmotion import LexMotionIndex\n"
        f"LexMotionIndex.from_pretrained({str(folder)!r}).delete(0)\n"
        "print('done', flush=True)\n"
        "time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code + "; index"], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "done\n"
        writer.send_signal(signal.SIGKILL)
    with LexMotionIndex.from_pretrained(folder) as index:
        assert index.delete(2) == 1 and index.ids == [3, 4, 5]


def test_a_reader_keeps_what_it_opened_until_it_refreshes(folder):
    reader = LexMotionIndex.from_pretrained(folder)
    query = np.ones(reader.vocab_size)
    before = reader.search(query)
    with LexMotionIndex.from_pretrained(folder) as writer:
        writer.add(np.eye(writer.vocab_size)[:3])
        writer.merge()  # removes the files that the reader has open
        assert reader.search(query) == before and not (folder / "segments" / reader.engine.segments()[0].name).exists()
        assert reader.refresh() and not reader.refresh()
        assert reader.search(query) == writer.search(query) and len(reader) == 8


def _read(folder, stop, counts):
    """Open the index again and again; every state must be a first part of what is written."""
    reader, seen = LexMotionIndex.from_pretrained(folder), []
    while not stop.is_set():
        fresh = LexMotionIndex.from_pretrained(folder)
        reader.refresh()
        for index in (fresh, reader):
            assert sorted(index.ids) == list(range(len(index)))
            hits, scores = index.top_k(np.eye(V)[0], 5)[0]
            assert len(hits) == min(5, len(index)) and np.isfinite(scores).all()
        seen.append(len(reader))
    assert seen == sorted(seen)
    counts.put(len(set(seen)))


@needs_fork
def test_readers_see_whole_states_while_one_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(embedded, "MERGE_FACTOR", 3)
    context = multiprocessing.get_context("fork")
    stop, counts = context.Event(), context.Queue()
    with LexMotionIndex.build(rows(1), folder=tmp_path / "index") as index:
        readers = [context.Process(target=_read, args=(tmp_path / "index", stop, counts)) for _ in range(2)]
        for reader in readers:
            reader.start()
        for number in range(60):
            index.add(rows(2, number))
        stop.set()
        seen = [counts.get(timeout=30) for _ in readers]
        for reader in readers:
            reader.join(30)
    assert [reader.exitcode for reader in readers] == [0, 0] and max(seen) > 3


def test_segments_are_merged_in_the_background(tmp_path, monkeypatch):
    monkeypatch.setattr(embedded, "MERGE_FACTOR", 4)
    with LexMotionIndex.build(rows(1), folder=tmp_path / "index") as index:
        for number in range(40):
            index.add(rows(1, number))
        index.wait()
        assert len(index) == 41 and len(index.engine.segments()) < 8
    assert LexMotionIndex.from_pretrained(tmp_path / "index").ids == index.ids


def test_deletions_during_a_merge_are_kept(tmp_path, monkeypatch):
    index = LexMotionIndex.build(rows(3), folder=tmp_path / "index")
    index.add(rows(3, 1))
    merging, go_on = threading.Event(), threading.Event()
    merge_segments = embedded.merge_segments

    def slow(group):
        merging.set()
        assert go_on.wait(10)
        return merge_segments(group)

    monkeypatch.setattr(embedded, "merge_segments", slow)
    monkeypatch.setattr(embedded, "MERGE_FACTOR", 2)
    index.engine._merge_in_background()
    assert merging.wait(10)
    monkeypatch.setattr(embedded, "MERGE_FACTOR", 99)
    index.delete([0, 4])
    index.add(rows(1, 2))
    go_on.set()
    index.close()
    expected = np.concatenate([rows(3), rows(3, 1), rows(1, 2)])[[1, 2, 3, 5, 6]]
    for found in (index, LexMotionIndex.from_pretrained(tmp_path / "index")):
        assert sorted(found.ids) == [1, 2, 3, 5, 6] and len(found.engine.segments()) == 2
        by_id = dict(zip(found.ids, found.to_csr().toarray().tolist(), strict=True))
        assert [by_id[id] for id in sorted(by_id)] == LexMotionIndex.build(expected).to_csr().toarray().tolist()


def test_a_merge_that_fails_is_told_and_loses_nothing(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(embedded, "MERGE_FACTOR", 2)
    monkeypatch.setattr(embedded, "merge_segments", lambda _: 1 / 0)
    with LexMotionIndex.build(rows(1), folder=tmp_path / "index") as index:
        index.add(rows(2))
        index.wait()
        assert "ZeroDivisionError" in caplog.text
        monkeypatch.undo()
        monkeypatch.setattr(embedded, "MERGE_FACTOR", 2)
        index.add(rows(2))
        index.wait()
        assert len(index) == 5 and len(index.engine.segments()) == 1


def test_threads_search_and_change_one_index():
    index, query = LexMotionIndex.build(rows(50)), np.ones(V)
    faults = []

    def search():
        for _ in range(100):
            hits = index.search(query, 5)
            if len(hits) != 5 or any(a.score < b.score for a, b in zip(hits, hits[1:], strict=False)):
                faults.append(hits)

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(40):
        index.add(rows(3, number))
        index.delete(number)
    for thread in threads:
        thread.join()
    index.close()
    assert not faults and len(index) == 130
