import gc
import shutil
import threading
import time

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from lexmotion.common.files import sha256_of, write_json
from lexmotion.processing.corpora.prepare import load_prepared
from lexmotion.processing.corpora.report import PrepareReport
from lexmotion.training.batches import packing
from lexmotion.training.batches.corpus import CaptionTable, TrainingCorpus
from lexmotion.training.batches.packing import Strings, cached_batch, pack_clips, read_captions
from lexmotion.training.data import PreparedData
from lexmotion.training.tasks import PHASES

KEY = "0123456789abcdef" * 4


@pytest.fixture(scope="module")
def plain(prepared, data):
    """split -> the corpus read row by row into memory."""
    splits = load_prepared(prepared)
    return {name: TrainingCorpus.from_split(splits[name], data.processor.tokenizer, 32) for name in splits}


def batch_of(*numbers):
    return pa.record_batch({"number": pa.array(numbers)})


# ---- the same corpus


@pytest.mark.parametrize("split", ["train", "validation"])
def test_the_packed_corpus_is_the_plain_one_bit_for_bit(plain, data, split):
    packed, reference = data.corpus(split, 32), plain[split]
    assert list(packed.ids) == list(reference.ids) and packed.skeleton == reference.skeleton
    for name in ("frames", "offsets", "lengths", "fps", "base_ids", "caption_starts", "caption_counts"):
        mine, other = getattr(packed, name), getattr(reference, name)
        assert mine.dtype == other.dtype and torch.equal(mine, other), name
    for name in ("tokens", "starts", "lengths", "hashes"):
        assert torch.equal(getattr(packed.captions, name), getattr(reference.captions, name)), name
    assert list(packed.captions.texts) == list(reference.captions.texts)
    assert list(packed.captions.mirrored_texts) == list(reference.captions.mirrored_texts)
    assert packed.first_captions() == reference.first_captions()


@pytest.mark.parametrize("phase", PHASES)
def test_batches_and_losses_are_those_of_the_plain_corpus(make_trainer, read_log, plain, data, phase):
    mapped = make_trainer(phase, "mapped", num_steps=3)
    memory = make_trainer(phase, "memory", num_steps=3, train_corpus=plain["train"])
    with mapped.batches() as ours, memory.batches() as theirs:
        for _ in range(3):
            (rows, batch), (other_rows, other) = next(ours), next(theirs)
            assert torch.equal(rows, other_rows) and batch.keys() == other.keys()
            assert all(torch.equal(batch[name], other[name]) for name in batch)
    mapped.train()
    memory.train()
    assert read_log(mapped.output_dir) == read_log(memory.output_dir)
    assert "loss" in read_log(mapped.output_dir)[0]


def test_tensors_stand_on_the_file(data):
    corpus = data.corpus("train", 32)
    (path,) = (data.folder / "cache").glob("train-clips-*.arrow")
    motion = pa.ipc.open_file(str(path)).get_batch(0)["motion"]
    assert len(motion) == len(corpus)
    gc.collect()  # what other tests left goes now, not while this one counts
    held = pa.total_allocated_bytes()
    again = PreparedData.read(data.folder).corpus("train", 32)
    assert pa.total_allocated_bytes() <= held
    assert torch.equal(again.frames, corpus.frames)
    with open("/proc/self/maps", encoding="utf-8") as maps:
        places = [line.split()[0].split("-") for line in maps if str(path.resolve()) in line]
    assert any(int(low, 16) <= again.frames.data_ptr() < int(high, 16) for low, high in places)


def test_captions_are_padded_to_the_longest_of_the_batch(data):
    table, tokenizer = data.corpus("train", 32).captions, data.processor.tokenizer
    captions = torch.tensor([5, 0, 17, len(table) - 1])
    mirrored = torch.tensor([False, True, True, True])
    ids, mask, _ = table.batch(captions, mirrored)
    texts = [(table.texts, table.mirrored_texts)[turned][row] for row, turned in zip(captions, mirrored, strict=True)]
    expected = tokenizer(texts, padding=True, return_tensors="pt")
    assert torch.equal(ids, expected["input_ids"]) and torch.equal(mask, expected["attention_mask"])
    assert ids.dtype == mask.dtype == torch.int64


def test_captions_are_tokenised_in_pieces(data, monkeypatch):
    texts = [f"a person walks {'slowly ' * (number % 5)}" for number in range(11)]
    whole = CaptionTable.build(texts, texts[::-1], data.processor.tokenizer, 8)
    monkeypatch.setattr("lexmotion.training.batches.corpus.TOKENIZED_AT_ONCE", 4)
    pieces = CaptionTable.build(texts, texts[::-1], data.processor.tokenizer, 8)
    assert list(pieces.texts) == texts and list(pieces.mirrored_texts) == texts[::-1]
    assert all(torch.equal(getattr(whole, name), getattr(pieces, name)) for name in ("tokens", "starts", "hashes"))


# ---- what is packed


def write_rows(path, captions, skeletons=None):
    """A Parquet file of clips with 3, 4, 5, ... frames of two joints."""
    frames = [np.full((3 + row, 6), row, dtype=np.float32).tolist() for row in range(len(captions))]
    rows = {
        "id": [f"{row:03d}" for row in range(len(captions))],
        "base_id": [f"{row // 2:03d}" for row in range(len(captions))],
        "fps": [20.0] * len(captions),
        "skeleton": skeletons or ["humanml3d"] * len(captions),
        "captions": captions,
        "mirrored_captions": captions,
        "motion": frames,
    }
    text = pa.list_(pa.string())
    table = pa.table(rows).cast(
        pa.schema(
            [("id", pa.string()), ("base_id", pa.string()), ("fps", pa.float32()), ("skeleton", pa.string())]
            + [("captions", text), ("mirrored_captions", text), ("motion", pa.list_(pa.list_(pa.float32())))]
        )
    )
    pq.write_table(table, path, row_group_size=2)
    return path


def test_several_files_become_one_buffer_without_the_silent_clips(tmp_path):
    files = [
        write_rows(tmp_path / "a.parquet", [["one"], [], ["two", "three"]]),
        write_rows(tmp_path / "b.parquet", [[], ["four"]]),
    ]
    batch = pack_clips(files, tmp_path / "scratch")
    assert batch["id"].to_pylist() == ["000", "002", "001"]
    assert batch["base"].to_pylist() == [0, 1, 0]
    assert batch["captions"].to_pylist() == [1, 2, 1]
    assert [len(motion) for motion in batch["motion"].to_pylist()] == [3, 5, 4]
    flat = batch["motion"].values.values.to_numpy().reshape(-1, 6)
    assert flat[:, 0].tolist() == [0.0] * 3 + [2.0] * 5 + [1.0] * 4
    assert [list(texts) for texts in read_captions(files)] == [["one", "two", "three", "four"]] * 2


def test_what_cannot_be_trained_on_is_refused(tmp_path):
    silent = write_rows(tmp_path / "silent.parquet", [[], []])
    with pytest.raises(ValueError, match="caption"):
        pack_clips([silent], tmp_path / "scratch")
    mixed = write_rows(tmp_path / "mixed.parquet", [["a"], ["b"]], ["humanml3d", "kit-ml"])
    with pytest.raises(ValueError, match="humanml3d.*kit-ml"):
        pack_clips([mixed], tmp_path / "scratch")


def test_strings_are_a_sequence():
    for array in (pa.array(["a", "b", "c"]), pa.chunked_array([["a"], ["b", "c"]])):
        strings = Strings(array)
        assert len(strings) == 3 and strings[1] == "b" and strings[-1] == "c" and strings[1:] == ["b", "c"]
        assert list(strings) == ["a", "b", "c"] and "c" in strings and "d" not in strings
        with pytest.raises(IndexError):
            strings[3]


# ---- where it is kept


def test_a_batch_is_made_once(tmp_path):
    asked = []

    def make(_):
        asked.append(1)
        return batch_of(1, 2, 3)

    for _ in range(3):
        assert cached_batch(tmp_path, "x", KEY, make)["number"].to_pylist() == [1, 2, 3]
    assert len(asked) == 1
    other = cached_batch(tmp_path, "x", KEY[::-1], lambda _: batch_of(4))
    assert other["number"].to_pylist() == [4]


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def empty(path):
    path.write_bytes(b"")


def scribble(path):
    content = bytearray(path.read_bytes())
    content[-400:-20] = b"\xff" * 380  # the footer
    path.write_bytes(content)


def swap(path):
    cached_batch(path.parent.parent, "x", KEY[::-1], lambda _: batch_of(7))
    next(file for file in path.parent.glob("x-*.arrow") if file != path).replace(path)


def flip(path):
    content = bytearray(path.read_bytes())
    content[content.index((2).to_bytes(8, "little"))] ^= 4  # a number of the column
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [truncate, empty, scribble, swap, flip])
def test_a_damaged_file_is_written_anew_with_a_warning(tmp_path, damage, monkeypatch):
    warnings = []
    monkeypatch.setattr(packing.logger, "warning_once", warnings.append)
    cached_batch(tmp_path, "x", KEY, lambda _: batch_of(1, 2))
    (path,) = (tmp_path / "cache").glob("x-*.arrow")
    sound = path.read_bytes()
    assert not warnings
    damage(path)
    batch = cached_batch(tmp_path, "x", KEY, lambda _: batch_of(1, 2))
    assert batch["number"].to_pylist() == [1, 2]
    assert path.read_bytes() == sound
    assert all(f"{path} is damaged" in warning for warning in warnings) and warnings


def test_a_failed_write_leaves_nothing_behind(tmp_path):
    def fail(scratch):
        scratch.write_bytes(b"half")
        raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match="disk"):
        cached_batch(tmp_path, "x", KEY, fail)
    assert [file.suffix for file in (tmp_path / "cache").iterdir()] in ([], [".lock"])
    assert cached_batch(tmp_path, "x", KEY, lambda _: batch_of(5))["number"].to_pylist() == [5]


def test_of_several_at_once_one_writes(tmp_path):
    asked, found = [], []
    together = threading.Barrier(4)

    def make(scratch):
        asked.append(1)
        time.sleep(0.05)
        return batch_of(1)

    def ask():
        together.wait()
        found.append(cached_batch(tmp_path, "x", KEY, make)["number"].to_pylist())

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[1]] * 4 and len(asked) == 1


def test_a_folder_that_cannot_be_written_is_read_through_the_cache_of_datasets(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "home")
    (tmp_path / "cache").write_text("in the way")
    cached_batch(tmp_path, "x", KEY, lambda _: batch_of(3))
    assert list((tmp_path / "home" / "lexmotion").glob("x-*.arrow"))
    (tmp_path / "elsewhere").write_text("in the way")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "elsewhere")
    with pytest.raises(PermissionError, match="HF_DATASETS_CACHE"):
        cached_batch(tmp_path, "x", KEY, lambda _: batch_of(3))


def test_a_changed_corpus_or_length_is_never_read_from_an_old_file(prepared, data, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(prepared, copy, ignore=shutil.ignore_patterns("cache"))
    before = PreparedData.read(copy)
    corpus = before.corpus("validation", 32)
    files = {file.name for file in (copy / "cache").glob("*.arrow")}
    short = before.corpus("validation", 6)
    assert short.captions.lengths.max() == 6 < corpus.captions.lengths.max()
    added = {file.name for file in (copy / "cache").glob("*.arrow")} - files
    assert len(added) == 1 and added.pop().startswith("validation-captions")  # the clips are shared
    path = next((copy / "data").glob("validation-*.parquet"))
    rows = pq.read_table(path)
    pq.write_table(rows.slice(1), path)
    with pytest.raises(ValueError, match=r"validation.*parquet.*prepare"):
        PreparedData.read(copy)
    report = PrepareReport.load(copy)
    report.files[f"data/{path.name}"], report.sha256[f"data/{path.name}"] = path.stat().st_size, sha256_of(path)
    write_json(copy / "report.json", report.to_dict())
    after = PreparedData.read(copy)
    assert after.fingerprint != before.fingerprint
    assert list(after.corpus("validation", 32).ids) == list(corpus.ids)[1:]
