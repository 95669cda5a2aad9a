import os
import shutil
import signal

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lexmotion.__main__ import main
from lexmotion.processing.corpora import blocks, writing
from lexmotion.processing.corpora import prepare as prepare_module
from lexmotion.processing.corpora.blocks import MOTIONS_PER_WORKER, Shard, count_workers, spread
from lexmotion.processing.corpora.folders import CorpusFolder
from lexmotion.processing.corpora.prepare import PrepareReport, prepare
from lexmotion.processing.corpora.synthetic import generate_corpus

OPTIONS = {"layout": "humanml3d", "row_group_size": 4, "max_frames": 96, "representation": "humanml3d"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Twenty training motions with mirrored twins, a missing one, a sub-range, a broken caption and recordings."""
    folder = tmp_path_factory.mktemp("corpus") / "synthetic"
    generate_corpus(folder, {"train": 20, "validation": 4, "test": 6})
    ids = (folder / "train.txt").read_text().split()
    (folder / "train.txt").write_text("\n".join([*ids[:9], "missing", *ids[9:], f"M{ids[0]}", f"M{ids[11]}"]))
    with (folder / "texts" / f"{ids[2]}.txt").open("a") as stream:
        stream.write("a person moves to the left#a/DET person/NOUN#0.5#1.5\na broken line#x\n")
    (folder / "meta.csv").write_text("id,source_clip\n" + "\n".join(f"{name},{name[:-1]}" for name in ids))
    return folder


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "out"
    prepare(corpus, output_dir=folder, num_workers=1, **OPTIONS)
    return folder


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def make_shards(corpus, folder, count, numbers=None, **options):
    for number in numbers or range(1, count + 1):
        prepare(corpus, output_dir=folder, shard=f"{number}/{count}", **{**OPTIONS, **options})


def copy_of(corpus, tmp_path):
    """The corpus with texts and lists of its own, motions linked."""
    folder = tmp_path / "synthetic"
    shutil.copytree(corpus, folder, ignore=shutil.ignore_patterns("new_joints"))
    (folder / "new_joints").symlink_to(corpus / "new_joints")
    return folder


def test_workers_change_nothing(corpus, tmp_path, monkeypatch):
    readers, writers = tmp_path / "readers", tmp_path / "writers"
    real_read, real_write = CorpusFolder.read, writing._write_file

    def note(folder):
        folder.mkdir(exist_ok=True)
        (folder / str(os.getpid())).touch()

    def read(self, *arguments):
        note(readers)
        return real_read(self, *arguments)

    def write(file, blocks):
        note(writers)
        return real_write(file, blocks)

    monkeypatch.setattr(writing, "FILE_BYTES", 100_000)
    prepare(corpus, output_dir=tmp_path / "one", num_workers=1, **OPTIONS)
    monkeypatch.setattr(CorpusFolder, "read", read)
    monkeypatch.setattr(writing, "_write_file", write)
    report = prepare(corpus, output_dir=tmp_path / "three", num_workers=3, **OPTIONS)
    for folder in (readers, writers):
        processes = {path.name for path in folder.iterdir()}
        assert 1 < len(processes) <= 3  # a fast one may take the share of another on a busy machine
        assert str(os.getpid()) not in processes
    assert contents(tmp_path / "three") == contents(tmp_path / "one")
    assert report.skipped_by_reason == {"malformed caption": 1, "missing motion file": 1}
    assert "data/train-00002-of-00003.parquet" in report.files


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(count=3, size=1, file_bytes=150_000)
@given(count=st.integers(1, 9), size=st.integers(1, 9), file_bytes=st.sampled_from([1, 150_000, 2**28]))
def test_merged_shards_are_the_unsharded_corpus(corpus, tmp_path_factory, count, size, file_bytes):
    folder = tmp_path_factory.mktemp("shards")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "FILE_BYTES", file_bytes)
        prepare(corpus, output_dir=folder / "whole", **{**OPTIONS, "row_group_size": size})
        make_shards(corpus, folder / "parts", count, row_group_size=size)
        assert sorted(path.name for path in (folder / "parts").iterdir()) == ["shards"]
        options = {**OPTIONS, "row_group_size": size}
        report = prepare(corpus, output_dir=folder / "parts", merge_shards=count, **options)
    assert not report.reused
    assert contents(folder / "parts") == contents(folder / "whole")
    assert sorted(path.name for path in folder.iterdir()) == ["parts", "whole"]


def test_a_shard_reads_and_hashes_its_own_motions_only(corpus, tmp_path, monkeypatch):
    touched = []
    real = blocks.sha256_of
    monkeypatch.setattr(blocks, "sha256_of", lambda path: touched.append(path) or real(path))
    report = prepare(corpus, output_dir=tmp_path / "out", shard="2/3", **OPTIONS)
    ids = (corpus / "train.txt").read_text().split()
    # Six blocks of four ids; this shard has the third and fourth.
    own = {name.removeprefix("M") for name in ids[8:16]} - {"missing"}
    names = {path.stem for path in touched if path.parent.name == "texts"}
    assert own <= names
    assert not names & set(ids) - own
    assert report.splits["train"]["listed"] == 8
    assert PrepareReport.load(tmp_path / "out" / "shards" / "00002-of-00003").to_dict() == report.to_dict()


def test_shards_resume(corpus, whole, tmp_path, monkeypatch):
    make_shards(corpus, tmp_path / "out", 2)
    before = contents(tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(prepare_module, "read_blocks", None)
        again = prepare(corpus, output_dir=tmp_path / "out", shard="1/2", **OPTIONS)
    assert again.reused
    assert contents(tmp_path / "out") == before
    # A damaged shard is made again.
    (damaged,) = (tmp_path / "out" / "shards" / "00002-of-00002").rglob("*.arrow")
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with pytest.raises(FileNotFoundError, match=r"\b1 of 2\b.*shard='2/2'.*merge_shards="):
        prepare(corpus, output_dir=tmp_path / "out", merge_shards=2, **OPTIONS)
    assert not prepare(corpus, output_dir=tmp_path / "out", shard="2/2", **OPTIONS).reused
    assert contents(tmp_path / "out") == before
    prepare(corpus, output_dir=tmp_path / "out", merge_shards=2, **OPTIONS)
    assert contents(tmp_path / "out") == contents(whole)


def test_a_merged_corpus_is_left_alone(corpus, tmp_path, monkeypatch):
    make_shards(corpus, tmp_path / "out", 2)
    prepare(corpus, output_dir=tmp_path / "out", merge_shards=2, **OPTIONS)
    monkeypatch.setattr(prepare_module, "read_blocks", None)
    assert prepare(corpus, output_dir=tmp_path / "out", merge_shards=2, **OPTIONS).reused
    assert prepare(corpus, output_dir=tmp_path / "out", **OPTIONS).reused
    with pytest.raises(FileNotFoundError, match=r"\b2 of 2\b.*none.*shard='1/2'.*shard='2/2'"):
        prepare(corpus, output_dir=tmp_path / "out", merge_shards=2, **OPTIONS | {"max_frames": 50})


def test_missing_shards_are_named(corpus, tmp_path):
    make_shards(corpus, tmp_path / "out", 4, numbers=[2, 4])
    with pytest.raises(FileNotFoundError) as error:
        prepare(corpus, output_dir=tmp_path / "out", merge_shards=4, **OPTIONS)
    for words in ("2 of 4", "00002-of-00004, 00004-of-00004", "shard='1/4'", "shard='3/4'", "merge_shards=4"):
        assert words in str(error.value)
    with pytest.raises(FileNotFoundError, match=r"\b20 of 20\b.*shard='8/20' \.\.\."):
        prepare(corpus, output_dir=tmp_path / "out", merge_shards=20, **OPTIONS)


def test_shards_of_another_corpus_are_refused(corpus, tmp_path):
    source, out = copy_of(corpus, tmp_path), tmp_path / "out"
    make_shards(source, out, 2)
    before = contents(out)
    with pytest.raises(FileExistsError, match=r"00001-of-00002.*max_frames.*\b96\b.*\b50\b.*overwrite=True"):
        prepare(source, output_dir=out, shard="1/2", **OPTIONS | {"max_frames": 50})
    with pytest.raises(ValueError, match=r"00001-of-00002.*max_frames.*\b96\b.*\b50\b.*shard='1/2'"):
        prepare(source, output_dir=out, merge_shards=2, **OPTIONS | {"max_frames": 50})
    # The motions of the second half change: the first shard is still right.
    (text,) = (source / "texts").glob(f"{(source / 'train.txt').read_text().split()[-3]}.txt")
    text.write_text("a person sits#a/DET#0.0#0.0\n")
    assert prepare(source, output_dir=out, shard="1/2", **OPTIONS).reused
    with pytest.raises(FileExistsError, match="00002-of-00002.*input.*overwrite=True"):
        prepare(source, output_dir=out, shard="2/2", **OPTIONS)
    assert contents(out) == before
    assert not prepare(source, output_dir=out, shard="2/2", overwrite=True, **OPTIONS).reused
    # Another list of ids concerns every shard.
    (source / "train.txt").write_text((source / "train.txt").read_text() + "\nanother")
    with pytest.raises(ValueError, match="00001-of-00002.*ids.*shard='1/2' and overwrite=True"):
        prepare(source, output_dir=out, merge_shards=2, **OPTIONS)


def test_what_lies_beside_the_shards_is_kept(corpus, tmp_path):
    out = tmp_path / "out"
    make_shards(corpus, out, 2)
    with pytest.raises(FileExistsError, match="merge_shards="):
        prepare(corpus, output_dir=out, **OPTIONS)
    (out / "thesis.txt").write_text("precious")
    for option in ({"merge_shards": 2}, {"shard": "1/3"}):
        with pytest.raises(FileExistsError, match="prepared corpus.*overwrite=True"):
            prepare(corpus, output_dir=out, **option, **OPTIONS)
    assert (out / "thesis.txt").read_text() == "precious"
    prepare(corpus, output_dir=out, merge_shards=2, overwrite=True, **OPTIONS)
    assert sorted(path.name for path in out.iterdir()) == ["data", "processor", "report.json", "text"]


def test_shards_may_wait_inside_an_older_corpus(corpus, whole, tmp_path):
    prepare(corpus, output_dir=tmp_path / "out", **OPTIONS | {"max_frames": 50})
    older = contents(tmp_path / "out")
    make_shards(corpus, tmp_path / "out", 2)
    assert older.items() <= contents(tmp_path / "out").items()
    prepare(corpus, output_dir=tmp_path / "out", merge_shards=2, **OPTIONS)
    assert contents(tmp_path / "out") == contents(whole)


def test_a_failing_shard_leaves_nothing(corpus, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(CorpusFolder, "read", fail)
        with pytest.raises(OSError, match="disk full"):
            prepare(corpus, output_dir=tmp_path / "out", shard="1/2", **OPTIONS)
    assert contents(tmp_path) == {}
    assert not prepare(corpus, output_dir=tmp_path / "out", **OPTIONS).reused


def test_shards_with_a_given_processor(corpus, whole, tmp_path):
    options = {**OPTIONS, "splits": {"test": None}, "processor": whole / "processor"}
    prepare(corpus, output_dir=tmp_path / "whole", **options)
    for number in (1, 2):
        prepare(corpus, output_dir=tmp_path / "parts", shard=f"{number}/2", **options)
    prepare(corpus, output_dir=tmp_path / "parts", merge_shards=2, **options)
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    assert pq.read_metadata(tmp_path / "parts" / "data" / "test-00000-of-00001.parquet").num_rows == 6


@pytest.mark.parametrize("text", ["0/4", "5/4", "a/b", "2", "1/0", "-1/4", "1/4/2", "1.0/4", " 1/4", ""])
def test_malformed_shards(corpus, tmp_path, text):
    with pytest.raises(ValueError, match=f"I/N.*{text!r}"):
        prepare(corpus, output_dir=tmp_path / "out", shard=text, **OPTIONS)
    assert not (tmp_path / "out").exists()


def test_impossible_numbers(corpus, tmp_path):
    for option, words in (
        ({"merge_shards": 0}, r"merge_shards\b.*\b0\b"),
        ({"num_workers": 0}, r"num_workers\b.*\b0\b"),
        ({"shard": "1/2", "merge_shards": 2}, "shard='1/2'.*merge_shards=2"),
    ):
        with pytest.raises(ValueError, match=words):
            prepare(corpus, output_dir=tmp_path / "out", **option, **OPTIONS)


@given(count=st.integers(1, 50), length=st.integers(0, 200))
def test_shards_are_even_and_cover_everything(count, length):
    parts = [Shard(number, count).part_of(length) for number in range(1, count + 1)]
    assert [place for part in parts for place in part] == list(range(length))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_workers_by_default(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    assert count_workers(None, 2 * MOTIONS_PER_WORKER - 1) == 1
    assert count_workers(None, 4 * MOTIONS_PER_WORKER) == 4
    assert count_workers(None, 10**6) == 6
    assert count_workers(9, 1) == 9


def test_a_bad_file_is_the_same_line_of_the_report_from_any_process(corpus, tmp_path):
    source = copy_of(corpus, tmp_path)
    (source / "new_joints").unlink()
    shutil.copytree(corpus / "new_joints", source / "new_joints")
    ids = (source / "train.txt").read_text().split()
    np.save(source / "new_joints" / f"{ids[5]}.npy", np.full((2, 22, 3), 1e30, np.float32))
    lines = []
    for workers in (1, 2):
        place = tmp_path / f"out{workers}"
        report = prepare(source, output_dir=place, num_workers=workers, skip_shorter_than=1, **OPTIONS)
        lines.append([line for line in report.skipped if line["id"] == ids[5]])
    assert lines[0] == lines[1] and len(lines[0]) == 1 and lines[0][0]["split"] == "train"


def note_threads(task, folder):
    (folder / f"{task['number']}-{torch.get_num_threads()}").touch()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_has_one_thread(workers, tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        tasks = [{"split": "train", "number": number} for number in range(2)]
        spread(note_threads, tasks, workers, "reading", False, folder=tmp_path)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0-1", "1-1"]


def end_abruptly(task):
    if task["number"] == 3:
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_is_reported():
    tasks = [{"split": "train", "number": number} for number in range(4)]
    with pytest.raises(OSError, match=r"\b2\b.*num_workers="):
        spread(end_abruptly, tasks, 2, "reading", False)


def test_command(corpus, whole, tmp_path, capsys):
    def command(*words):
        with pytest.raises(SystemExit) as ended:
            main(["prepare", str(corpus), "--output-dir", str(tmp_path / "out"), *words])
        printed = capsys.readouterr()
        return ended.value.code, " ".join((printed.out + printed.err).split())

    for number in (1, 2):
        code, printed = command("--shard", f"{number}/2", "--num-workers", "1")
        assert code == 0
        assert f"written: shard {number}/2 in" in printed
    assert command("--merge-shards", "2")[0] == 0
    assert PrepareReport.load(tmp_path / "out").splits == PrepareReport.load(whole).splits
    assert not (tmp_path / "out" / "shards").exists()
    code, printed = command("--shard", "5/4")
    assert code == 1
    assert "error: " in printed and "I/N" in printed and "'5/4'" in printed
