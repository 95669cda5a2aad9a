"""`lexmotion.common.files`: the old file or the new one, whole."""

import contextlib
import errno
import json
import os
import resource
import signal
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from lexmotion.common import files
from lexmotion.common.files import (
    DiskFullError,
    atomic_path,
    files_moved_in,
    full_disk_named,
    read_json,
    remembered_digests,
    sha256_of,
    write_json,
    write_text,
)


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})
    with pytest.raises(RuntimeError), atomic_path(path) as aside:
        aside.write_text("half")
        raise RuntimeError
    assert json.loads(path.read_text()) == {"old": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.slow
def test_a_killed_writer_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    script = (
        "import os, signal, sys\nfrom lexmotion.common.files import atomic_path\n"
        "with atomic_path(sys.argv[1]) as aside:\n"
        "    aside.write_text('half')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert path.read_text() == "old"


def test_folders_are_made_and_the_suffix_is_kept(tmp_path):
    with atomic_path(tmp_path / "new" / "a.svg") as aside:
        assert aside.suffix == ".svg" and aside.parent == tmp_path / "new"
        aside.write_bytes(b"x")
    assert (tmp_path / "new" / "a.svg").read_bytes() == b"x"


def test_text_keeps_its_line_ends_and_letters(tmp_path):
    write_text(tmp_path / "a.txt", "ä\r\nb\n")
    assert (tmp_path / "a.txt").read_bytes() == "ä\r\nb\n".encode()


def test_the_hash_is_that_of_the_content(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_of(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_of(os.fspath(tmp_path / "a")) == sha256_of(tmp_path / "a")


def test_a_folder_is_not_replaced_by_a_file(tmp_path):
    with pytest.raises(IsADirectoryError, match="folder.*file"):
        write_text(tmp_path, "x")
    assert list(tmp_path.iterdir()) == []


@contextlib.contextmanager
def small_disk(limit):
    """A system that refuses files of more than `limit` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


WRITERS = {
    "text": lambda path: path.write_text("x" * 9999),
    "numpy": lambda path: np.save(path.open("wb"), np.zeros(9999)),
    "safetensors": lambda path: save_file({"x": np.zeros(9999)}, path),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_full_disk_is_named_and_the_old_file_stays(tmp_path, write):
    (tmp_path / "a").write_text("old")
    with (
        small_disk(1000),
        pytest.raises(DiskFullError, match=r"/a: .*full.*free"),
        atomic_path(tmp_path / "a") as aside,
    ):
        write(aside)
    assert [path.name for path in tmp_path.iterdir()] == ["a"] and (tmp_path / "a").read_text() == "old"


@pytest.mark.parametrize("error", [OSError(errno.EDQUOT, "Disk quota exceeded"), RuntimeError("(os error 28)")])
def test_a_full_disk_is_known_by_number_or_text(error):
    with pytest.raises(DiskFullError, match="here"), full_disk_named("here"):
        raise error
    with pytest.raises(PermissionError), full_disk_named("here"):
        raise PermissionError(errno.EACCES, "no")


def test_a_folder_changes_when_all_its_files_are_written(tmp_path):
    folder = tmp_path / "model"
    with files_moved_in(folder) as aside:
        (aside / "a").write_text("1")
        assert not folder.exists()
    (folder / "mine").write_text("2")
    with pytest.raises(ZeroDivisionError), files_moved_in(folder) as aside:
        (aside / "a").write_text("3")
        raise ZeroDivisionError
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"a": "1", "mine": "2"}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff", b"[" * 100_000])
def test_a_damaged_json_file_is_named(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.json: damaged"):
        read_json(tmp_path / "a.json")


def test_a_file_is_hashed_again_only_if_it_changed(tmp_path, monkeypatch):
    file, memory, read = tmp_path / "a", tmp_path / "new" / "digests.json", []
    monkeypatch.setattr(files, "SETTLED", -1.0)
    monkeypatch.setattr(files, "sha256_of", lambda path: read.append(path) or sha256_of(path))
    file.write_bytes(b"abc")
    for _ in range(2):
        assert remembered_digests([file], memory) == {file: sha256_of(file)}
    assert read == [file]
    file.write_bytes(b"abd")
    os.utime(file, ns=(1, 1))
    assert remembered_digests([file], memory) == {file: sha256_of(file)} and len(read) == 2
    memory.write_text("{")
    assert remembered_digests([file], memory) == {file: sha256_of(file)} and len(read) == 3
