"""`lexmotion.common.files`: the old file or the new one, whole."""

import json
import os
import subprocess
import sys

import pytest

from lexmotion.common.files import atomic_path, sha256_of, write_json, write_text


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
