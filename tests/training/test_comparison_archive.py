"""Results in one archive: written whole, read in place, and refused where they are damaged."""

import dataclasses
import json
import os
import shutil
import signal
import time
import tracemalloc
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lexmotion.common.files import write_json
from lexmotion.training.comparison import archive
from lexmotion.training.comparison.archive import MAX_MEMBER, add_results, read_results
from lexmotion.training.comparison.rows import ROWS
from lexmotion.training.comparison.runner import Comparison

DOCS = Path(__file__).resolve().parents[2] / "docs"
NAME = "iv/seed0/result.json"


def result(row="iv", seed=0, value=1.0):
    return {"row": row, "seed": seed, "label": f"† {row}", "definition": {"kind": "ridge"}, "value": value}


def write_folder(folder, results):
    """The output folder of a comparison that has these results."""
    for one in results:
        place = folder / one["row"] / f"seed{one['seed']}"
        place.mkdir(parents=True)
        write_json(place / "result.json", one)
    return folder


def write_zip(path, members, method=zipfile.ZIP_DEFLATED):
    """A zip file of (name, text), as anyone may make it."""
    with zipfile.ZipFile(path, "w", method) as file:
        for name, text in members:
            file.writestr(name, text)
    return path


# ---- there and back


def test_an_archive_gives_what_its_folder_gave(tmp_path):
    given_results = [result("iv", 1), result("a-b", 0), result("a", 0), result("i+iii+iv", 10)]
    folder = write_folder(tmp_path / "folder", given_results)
    path = tmp_path / "deep" / "results.zip"
    assert add_results(path, given_results) == (4, 0)
    assert [(place.relative_to(path), one) for place, one in read_results(path)] == [
        (place.relative_to(folder), one) for place, one in read_results(folder)
    ]
    with zipfile.ZipFile(path) as file:
        assert all(file.read(name) == (folder / name).read_bytes() for name in file.namelist())
        assert file.namelist() == sorted(file.namelist())


def test_a_folder_that_is_not_there_has_no_results(tmp_path):
    assert read_results(tmp_path / "nowhere") == []


def test_the_same_results_give_the_same_bytes(tmp_path, monkeypatch):
    given_results = [result(row, seed) for row in ("iv", "tmr") for seed in (0, 1)]
    at_once, one_by_one = tmp_path / "at_once.zip", tmp_path / "one_by_one.zip"
    add_results(at_once, given_results)
    monkeypatch.setattr(time, "time", lambda: 2e9)
    for one in reversed(given_results):
        add_results(one_by_one, [one])
    assert one_by_one.read_bytes() == at_once.read_bytes()


def test_an_archive_that_has_it_all_is_not_written_again(tmp_path):
    path = write_zip(tmp_path / "results.zip", [(NAME, json.dumps(result()))])  # other bytes than ours
    before = path.read_bytes()
    assert add_results(path, [result()]) == (0, 0)
    assert path.read_bytes() == before
    assert add_results(path, [result(value=2.0), result("tmr")]) == (1, 1)
    assert {place.parent.parent.name: one["value"] for place, one in read_results(path)} == {"iv": 2.0, "tmr": 1.0}
    with pytest.raises(ValueError, match="train a row"):
        add_results(tmp_path / "empty.zip", [])
    assert not (tmp_path / "empty.zip").exists()


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_writer_that_is_killed_loses_nothing(tmp_path, monkeypatch, moment):
    path = tmp_path / "results.zip"
    add_results(path, [result()])
    before = path.read_bytes()
    child = os.fork()
    if child == 0:
        setattr(os, moment, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        try:
            add_results(path, [result("tmr")])
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert path.read_bytes() == before
    assert add_results(path, [result("tmr")]) == (1, 0) and len(read_results(path)) == 2
    assert not list(tmp_path.glob(".*.partial"))


def test_writers_at_once_lose_nothing_of_each_other(tmp_path):
    path = tmp_path / "results.zip"
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda seed: add_results(path, [result(seed=seed)]), range(16))) == [(1, 0)] * 16
    assert len(read_results(path)) == 16


# ---- what is damaged


@pytest.fixture
def refuse(tmp_path):
    """Reading and adding to an archive fail with one line that names it, `told` and the remedy; nothing changes."""

    def check(path, told):
        before = path.read_bytes()
        for use in (read_results, lambda path: add_results(path, [result()])):
            with pytest.raises(ValueError, match=told) as error:
                use(path)
            assert str(path) in str(error.value) and f"--archive {path}" in str(error.value)
            assert "\n" not in str(error.value) and len(str(error.value)) < 1000
        assert path.read_bytes() == before

    return check


@pytest.mark.parametrize(
    "name",
    [
        "/iv/seed0/result.json",
        "../seed0/result.json",
        "iv/../iv/seed0/result.json",
        "C:/seed0/result.json",
        "./seed0/result.json",
        "iv/seed0/weights.json",
        "iv/",
        "iv/seed0/result.json/",
        "x" * 60_000,
    ],
)
def test_a_member_that_is_no_result_by_its_name_is_refused(tmp_path, refuse, name):
    members = [("tmr/seed0/result.json", json.dumps(result("tmr"))), (name, json.dumps(result()))]
    refuse(write_zip(tmp_path / "results.zip", members), name[:60].replace(".", r"\."))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_is_there_twice_is_refused(tmp_path, refuse):
    refuse(write_zip(tmp_path / "results.zip", [(NAME, json.dumps(result()))] * 2), NAME)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b"[1]",
        b'{"row": "iv", "seed": 0}',
        b'{"row": ["iv"], "seed": 0, "definition": {}}',
        b'{"row": "iv", "seed": ' + b"9" * 5000 + b', "definition": {}}',
    ],
)
def test_a_member_that_is_no_result_by_its_text_is_refused(tmp_path, refuse, text):
    refuse(write_zip(tmp_path / "results.zip", [(NAME, text)]), NAME)


def test_a_folder_names_the_result_that_is_no_json(tmp_path):
    folder = write_folder(tmp_path / "out", [result()])
    (folder / NAME).write_text("{")
    with pytest.raises(ValueError, match=f"{NAME}.*delete {folder / 'iv' / 'seed0'}"):
        read_results(folder)


def test_what_would_unpack_to_too_much_is_refused_unread(tmp_path, refuse, monkeypatch):
    large = write_zip(tmp_path / "large.zip", [(NAME, b" " * (MAX_MEMBER + 1))])
    tracemalloc.start()
    refuse(large, f"{MAX_MEMBER + 1:,}")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MAX_MEMBER / 2
    many = write_zip(tmp_path / "many.zip", [(f"iv/seed{seed}/result.json", b" " * 1000) for seed in range(5)])
    monkeypatch.setattr(archive, "MAX_TOTAL", 3999)
    refuse(many, "iv/seed3.*4,000")
    monkeypatch.setattr(archive, "MAX_ARCHIVE", 500)
    refuse(many, "500 bytes")


def test_a_member_that_lies_about_its_size_is_not_unpacked(tmp_path, refuse):
    path = tmp_path / "results.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(NAME, b" " * (16 * MAX_MEMBER))
        file.infolist()[0].file_size = 100
    tracemalloc.start()
    refuse(path, NAME)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MAX_MEMBER / 2


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_method_that_unpacks_without_a_bound_is_refused(tmp_path, refuse, method):
    refuse(write_zip(tmp_path / "results.zip", [(NAME, json.dumps(result()))], method), NAME)


def test_an_encrypted_member_is_refused(tmp_path, refuse):
    path = write_zip(tmp_path / "results.zip", [(NAME, json.dumps(result()))])
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1
    path.write_bytes(content)
    refuse(path, NAME)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_damage_is_told_or_does_not_matter(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("damaged") / "results.zip"
    add_results(path, [result(), result("tmr")])
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)
    try:
        found = read_results(path)
    except ValueError as error:
        assert str(path) in str(error) and "--archive" in str(error)
    else:
        assert all(one in (result(), result("tmr")) for _, one in found)


def test_an_archive_that_could_not_be_read_again_is_not_written(tmp_path, monkeypatch):
    path = tmp_path / "results.zip"
    add_results(path, [result()])
    before = path.read_bytes()
    for name, limit in (("MAX_MEMBER", 300), ("MAX_TOTAL", 400), ("MAX_ARCHIVE", len(before) + 10)):
        with monkeypatch.context() as patch:
            patch.setattr(archive, name, limit)
            with pytest.raises(ValueError, match="another archive"):
                add_results(path, [{**result("tmr"), "note": "x" * 300}])
    with pytest.raises(ValueError, match="'../seed0/result.json'"):
        add_results(path, [result("..")])
    assert path.read_bytes() == before


# ---- in a comparison


@pytest.fixture
def compare(prepared, recipe, tmp_path):
    """compare(name, **options) -> a comparison on the tiny corpus, in `tmp_path / name`."""

    def make(name, **options):
        return Comparison(prepared, tmp_path / name, recipe, notify=lambda _: None, **options)

    return make


def test_folders_and_archives_are_reused_together(compare, tmp_path):
    row = ROWS["ridge"]
    first = compare("first").run([row], [0])
    assert compare("first").archive(tmp_path / "first.zip") == (1, 0)
    shutil.rmtree(tmp_path / "first")
    write_folder(tmp_path / "others", [result("others")])
    add_results(tmp_path / "others.zip", [result("more")])
    sources = [tmp_path / name for name in ("others", "others.zip", "first.zip")]
    here = compare("here", reuse=sources)
    assert here.run([row], [0]) == first and not here.output_dir.exists()
    assert [place.relative_to(tmp_path).parts[0] for place, _ in here.stored()] == [path.name for path in sources]
    assert here.archive(tmp_path / "all.zip") == (1, 0)  # what does not belong to this comparison is left out
    assert [one for _, one in read_results(tmp_path / "all.zip")] == first
    with pytest.raises(FileNotFoundError, match=r"nowhere\.zip"):
        compare("third", reuse=[tmp_path / "nowhere.zip"])


def test_an_archived_result_of_another_run_is_refused_by_name(compare, tmp_path):
    first = compare("first", overrides=["num_steps=1"])
    first.run([ROWS["iv"]], [0])
    path = tmp_path / "results.zip"
    first.archive(path)
    with pytest.raises(ValueError, match=f"{path}/iv/seed0/result.json.*leave out reuse='{path}'"):
        compare("second", overrides=["num_steps=2"], reuse=[path]).run([ROWS["iv"]], [0])


def test_a_result_on_another_split_is_measured_again(compare, tmp_path):
    compare("first").run([ROWS["ridge"]], [0])
    (other,) = compare("second", split="validation", reuse=[tmp_path / "first"]).run([ROWS["ridge"]], [0])
    assert other["split"] == "validation"


def test_a_result_of_another_corpus_is_refused_in_words(compare, tmp_path):
    compare("first").run([ROWS["ridge"]], [0])
    compare("first").archive(tmp_path / "results.zip")
    other = compare("second", reuse=[tmp_path / "results.zip"])
    other.data = dataclasses.replace(other.data, fingerprint="f" * 64)
    with pytest.raises(ValueError, match="measured on a corpus other than.*leave out reuse=") as error:
        other.run([ROWS["ridge"]], [0])
    assert "ffff" not in str(error.value)


def test_the_command_writes_an_archive_and_the_same_page_from_it(prepared, recipe_file, tmp_path, monkeypatch, capsys):
    from lexmotion import cli

    monkeypatch.setenv(cli.DEBUG_VARIABLE, "1")
    path = tmp_path / "results.zip"

    def command(place, *words):
        monkeypatch.chdir(place)
        given_words = ["compare", "--dataset", str(prepared), "--recipe", str(recipe_file), "--rows", "ridge"]
        cli.main([*given_words, "--seeds", "1", "--output-dir", "out", "--report", "page.md", *words])

    places = [tmp_path / name for name in ("there", "here")]
    for place, words in zip(places, (["--archive", str(path)], ["--reuse", str(path)]), strict=True):
        place.mkdir()
        with pytest.raises(SystemExit) as stop:
            command(place, *words)
        assert stop.value.code == 0
    assert "1 added, 0 replaced" in " ".join(capsys.readouterr().out.split())
    there, here = ((place / "page.md").read_bytes() for place in places)
    assert there == here and not (places[1] / "out" / "ridge").exists()

    path.write_bytes(path.read_bytes()[:-30])
    (tmp_path / "damaged").mkdir()
    with pytest.raises(ValueError, match=f"{path}.*--archive"):
        command(tmp_path / "damaged", "--archive", str(path))
    assert not (tmp_path / "damaged" / "out").exists()


# ---- the results of this repository


def test_the_archive_of_the_documentation_is_written_as_we_write_it(tmp_path):
    results = [one for _, one in read_results(DOCS / "results.zip")]
    commits = {one["commit"][:12] for one in results if one["trainings"]}
    page = (DOCS / "results.md").read_text(encoding="utf-8")
    assert results and all(commit in page for commit in commits)
    add_results(tmp_path / "results.zip", results)
    with zipfile.ZipFile(DOCS / "results.zip") as ours, zipfile.ZipFile(tmp_path / "results.zip") as anew:
        assert ours.namelist() == anew.namelist()
        assert all(ours.read(name) == anew.read(name) for name in ours.namelist())
