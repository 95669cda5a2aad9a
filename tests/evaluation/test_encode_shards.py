"""Shards of vectors: complete, resumable, never mixed, and the same from two processes as from one."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from accelerate import PartialState
from typer.testing import CliRunner

from lexmotion import LexMotionConfig, LexMotionModel, cli
from lexmotion.evaluation.encoding import shards as module
from lexmotion.evaluation.encoding.shards import EncodeReport, load_encoded, model_fingerprint
from lexmotion.processing.corpora.prepare import load_prepared, prepare

SPLITS = {"train": 7, "test": 3}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, motions):
    """A prepared corpus of ten motions with two captions each."""
    root = tmp_path_factory.mktemp("corpus")
    for name in ("new_joints", "texts"):
        (root / name).mkdir()
    number = 0
    for split, size in SPLITS.items():
        ids = []
        for _ in range(size):
            ids.append(f"{number:06d}")
            np.save(root / "new_joints" / f"{ids[-1]}.npy", motions[number % len(motions)] + 0.01 * number)
            lines = [f"a person {verb} {number} times#a/DET#0.0#0.0" for verb in ("walks", "jumps")]
            (root / "texts" / f"{ids[-1]}.txt").write_text("\n".join(lines))
            number += 1
        (root / f"{split}.txt").write_text("\n".join(ids))
    prepare(root, root / "prepared", max_frames=32, mirror="none")
    return root / "prepared"


@pytest.fixture(scope="module")
def trained(dataset, tmp_path_factory, configs):
    """Folder of a random model that fits the corpus, with its processor."""
    import torch

    from lexmotion import LexMotionMotionConfig, LexMotionProcessor, LexMotionTextConfig

    processor = LexMotionProcessor.from_pretrained(dataset / "processor")
    words = len(processor.tokenizer)
    text, motion = (config.to_dict() for config in configs)
    text["encoder_config"]["vocab_size"] = motion["vocab_size"] = words
    torch.manual_seed(0)
    model = LexMotionModel(
        LexMotionConfig(text_config=LexMotionTextConfig(**text), motion_config=LexMotionMotionConfig(**motion))
    )
    model.set_active_words(processor.lexicon.active_ids)
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture
def run(dataset, trained):
    """Encode with the trained model, or a changed one, into a folder."""
    from lexmotion import LexMotionProcessor

    def encode(folder, change=None, **options):
        model = LexMotionModel.from_pretrained(trained).eval()
        if change is not None:
            change(model)
        options = {"shard_size": 2, "precision": "fp32"} | options
        return module.encode(model, dataset, folder, processor=LexMotionProcessor.from_pretrained(trained), **options)

    return encode


@pytest.fixture(autouse=True)
def fresh_process_state():
    """What this process learns of its fellows is not for the tests after it."""
    yield
    PartialState._reset_state()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_written_is_what_the_model_says(run, dataset, trained, tmp_path):
    report = run(tmp_path)
    corpus, model = load_prepared(dataset), LexMotionModel.from_pretrained(trained).eval()
    assert (report.written, report.kept) == (6, 0)
    assert [shard["motions"] for shard in report.shards if shard["split"] == "train"] == [2, 2, 2, 1]
    assert (report.total("motions"), report.total("captions")) == (10, 20)
    for split, rows in corpus.items():
        encoded = load_encoded(tmp_path, [split])
        captions = [caption for texts in rows["captions"] for caption in texts]
        assert encoded.motion_ids == list(rows["id"]) and encoded.captions == captions
        assert encoded.text_ids == [name for name in rows["id"] for _ in range(2)]
        motions = model.encode_motion(rows, precision="fp32").toarray()
        np.testing.assert_allclose(encoded.motion_embeds.toarray(), motions, atol=2e-6)
        texts = model.encode_text(captions, precision="fp32").toarray()
        np.testing.assert_allclose(encoded.text_embeds.toarray(), texts, atol=2e-6)
    both = load_encoded(tmp_path)
    assert both.motion_embeds.shape[0] == 10 and both.text_embeds.nnz + both.motion_embeds.nnz == report.total(
        "active_words"
    )


def test_a_shard_speaks_for_itself(run, tmp_path):
    report = run(tmp_path, kinds=["motion"])
    path = tmp_path / "data" / "test-00001-of-00002.parquet"
    table = pq.read_table(path)
    assert table.column_names == ["id", "kind", "caption", "indices", "values"]
    assert table["kind"].to_pylist() == ["motion"] and table["caption"].to_pylist() == [None]
    told = json.loads(pq.read_schema(path).metadata[b"lexmotion"])
    assert told["identity"] == report.identity and told["shard"]["motions"] == 1
    assert load_encoded(tmp_path).captions == []


def test_a_run_goes_on_where_it_stopped(run, tmp_path, monkeypatch):
    expected = run(tmp_path / "whole")
    write, done = module.pq.write_table, []

    def dies_at_the_third(table, path, **options):
        if len(done) == 2:
            path.write_bytes(b"half")
            raise KeyboardInterrupt
        done.append(path)
        write(table, path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(module.pq, "write_table", dies_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "stopped")
    with pytest.raises(FileNotFoundError, match="stopped.*lexmotion encode"):
        load_encoded(tmp_path / "stopped")
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "stopped" / "data").glob("*.parquet")}
    report = run(tmp_path / "stopped")
    assert (len(kept), report.written, report.kept) == (2, 4, 2) and report.shards == expected.shards
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")


def test_splits_can_come_one_by_one(run, tmp_path):
    run(tmp_path / "apart", splits=["test"])
    assert load_encoded(tmp_path / "apart").motion_embeds.shape[0] == SPLITS["test"]
    run(tmp_path / "apart", splits=["train"])
    run(tmp_path / "together")
    assert contents(tmp_path / "apart") == contents(tmp_path / "together")
    with pytest.raises(ValueError, match="'validation'.*test, train"):
        load_encoded(tmp_path / "apart", ["validation"])


def other_weights(model):
    model.text_model.lexical_head.bias.data += 0.1


OTHERS = {
    "model_fingerprint": {"change": other_weights},
    "precision.*'fp32'.*'bf16'": {"precision": "bf16"},
    r"shard_size\b.*\b2\b.*\b3\b": {"shard_size": 3},
    r"kinds\b.*\['text'\]": {"kinds": ["text"]},
}


@pytest.mark.parametrize(("message", "options"), OTHERS.items(), ids=[next(iter(o)) for o in OTHERS.values()])
def test_runs_do_not_mix(run, tmp_path, message, options):
    run(tmp_path, splits=["test"])
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=message):
        run(tmp_path, **options)
    (tmp_path / "index.json").unlink()  # shards alone are enough to know
    with pytest.raises(ValueError, match=message):
        run(tmp_path, **options)
    assert {name: data for name, data in before.items() if name != "index.json"} == contents(tmp_path)


def test_a_damaged_shard_is_named(run, tmp_path):
    run(tmp_path)
    shard = min((tmp_path / "data").glob("*.parquet"))
    content, sound = shard.read_bytes(), load_encoded(tmp_path)
    refused = 0
    for place in [*range(5, len(content) // 2, len(content) // 30), None]:
        damaged = bytearray(content)
        if place is None:
            del damaged[-100:]
        else:
            damaged[place] ^= 1
        shard.write_bytes(damaged)
        try:
            found = load_encoded(tmp_path)
        except ValueError as error:
            assert str(error).startswith(f"{shard}: damaged") and "lexmotion encode" in str(error)
            refused += 1
        else:  # a hint that nobody reads
            assert found.captions == sound.captions and (found.motion_embeds != sound.motion_embeds).nnz == 0
    assert refused > 5


def test_foreign_parquet_is_no_shard(run, tmp_path):
    import pyarrow as pa

    (tmp_path / "data").mkdir()
    pq.write_table(pa.table({"x": [1]}), tmp_path / "data" / "mine.parquet")
    with pytest.raises(ValueError, match=r"mine\.parquet.*lexmotion encode"):
        run(tmp_path)


@pytest.mark.parametrize("kinds", [["sound"], []], ids=["unknown", "none"])
def test_there_are_two_kinds(run, tmp_path, kinds):
    with pytest.raises(ValueError, match="motion.*text"):
        run(tmp_path, kinds=kinds)


def test_the_fingerprint_is_of_weights_and_top_words(trained):
    first, second = (LexMotionModel.from_pretrained(trained) for _ in range(2))
    assert model_fingerprint(first) == model_fingerprint(second)
    second.set_word_limits((0, 3), (0, 3))
    assert model_fingerprint(first) != model_fingerprint(second)
    other_weights(first)
    assert model_fingerprint(first) != model_fingerprint(LexMotionModel.from_pretrained(trained))


def test_an_index_of_another_format_is_refused(run, tmp_path):
    run(tmp_path, splits=["test"])
    index = json.loads((tmp_path / "index.json").read_text())
    (tmp_path / "index.json").write_text(json.dumps(index | {"format_version": 99}))
    with pytest.raises(ValueError, match=r"index\.json.*\b99\b"):
        EncodeReport.load(tmp_path)


def command_line(dataset, trained, folder):
    return [
        *("encode", "--model", str(trained), "--dataset", str(dataset), "--output-dir", str(folder)),
        *("--split", "train", "--split", "test", "--shard-size", "2", "--precision", "fp32", "--device", "cpu"),
    ]


def test_the_command(run, dataset, trained, tmp_path):
    result = CliRunner().invoke(cli.app, command_line(dataset, trained, tmp_path / "command"))
    assert result.exit_code == 0, result.output
    assert "6 shards written" in result.output and "10 motions and 20 captions in 6 shards" in result.output
    assert load_encoded(tmp_path / "command").report.identity == run(tmp_path / "called").identity


def test_two_processes_write_what_one_does(run, dataset, trained, tmp_path):
    run(tmp_path / "one")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Without a GPU, `accelerate launch` starts several processes on one machine only by this flag.
    launch = [
        *(str(Path(sys.executable).with_name("accelerate")), "launch", "--multi_gpu", "--num_processes", "2"),
        *("--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"),
        *("--main_process_port", str(port), "-m", "lexmotion"),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    command = launch + command_line(dataset, trained, tmp_path / "two")
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)
    assert result.returncode == 0, (result.stdout + result.stderr)[-3000:]
    assert result.stdout.count("6 shards written") == 1 and "2 processes" in result.stdout
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    assert one.keys() == two.keys()
    assert all(one[name] == two[name] for name in one if name.endswith(".parquet") or name == "index.json")
