import dataclasses
import json
import shutil

import pytest
import torch

from lexmotion import LexMotionModel, LexMotionProcessor
from lexmotion.training import provenance
from lexmotion.training.__main__ import main
from lexmotion.training.batches.corpus import corpus_fingerprint, corpus_hashes, read_extra_captions, with_mirrored
from lexmotion.training.data import PreparedData
from lexmotion.training.pipeline import train
from lexmotion.training.tasks import PHASES, TASKS


@pytest.fixture(scope="module")
def short():
    return {"num_steps": 2, "eval_steps": 2}


def test_all_phases_run_in_order_and_leave_a_model_and_a_record(prepared, recipe, short, tmp_path):
    seen = []
    record = train(recipe, prepared, tmp_path / "run", short, on_task=lambda phase, _: seen.append(phase))
    assert seen == list(PHASES)
    assert json.loads((tmp_path / "run" / "run.json").read_text()) == json.loads(json.dumps(record))
    assert record["dataset"]["fingerprint"] == corpus_fingerprint(corpus_hashes(prepared))
    assert record["recipe"]["num_steps"] == 2
    assert {"torch", "transformers", "python", "lexmotion"} <= set(record["versions"])
    assert record["finished"] >= record["started"]
    for phase in PHASES:
        assert record["phases"][phase]["training"]["steps"] == 2
        assert record["phases"][phase]["acceptance"], phase
    model = LexMotionModel.from_pretrained(tmp_path / "run" / "model")
    processor = LexMotionProcessor.from_pretrained(tmp_path / "run" / "model")
    embeds = model.get_text_features(**processor(text=["a person walks"], return_tensors="pt")).text_embeds
    assert embeds.shape == (1, len(processor.tokenizer))

    # Each phase begins where the one before ended.
    phase_i = json.loads((tmp_path / "run" / "lexmmm" / "result.json").read_text())["arguments"]
    assert phase_i["init_text"].endswith("lexmlm") and phase_i["init_motion"].endswith("cmmm")
    again = train(recipe, prepared, tmp_path / "run", short)
    assert again["phases"] == json.loads(json.dumps(record["phases"]))

    # An unfinished phase is taken up again, the finished ones are kept.
    before = (tmp_path / "run" / "cmmm" / "result.json").stat().st_mtime_ns
    shutil.rmtree(tmp_path / "run" / "lexcmlp")
    third = train(recipe, prepared, tmp_path / "run", short)
    assert (tmp_path / "run" / "cmmm" / "result.json").stat().st_mtime_ns == before
    assert third["phases"]["lexcmlp"]["training"]["best"] == record["phases"]["lexcmlp"]["training"]["best"]

    with pytest.raises(ValueError, match="run/lexmlm.*output_dir"):
        train(recipe, prepared, tmp_path / "run", {**short, "seed": 5})


@pytest.mark.parametrize(
    ("skipped", "last"),
    [(("lexmlm", "cmmm", "lexmmm"), "lexcmlp"), (("lexcmlp",), "lexmmm"), (("lexmmm", "lexcmlp"), "cmmm")],
)
def test_phases_can_be_left_out(prepared, recipe, short, tmp_path, skipped, last):
    for phase in skipped:
        recipe["phases"][phase] = False
    record = train(recipe, prepared, tmp_path, short)
    assert list(record["phases"])[-1] == last
    model = LexMotionModel.from_pretrained(tmp_path / "model")
    if last == "cmmm":
        from lexmotion import LexMotionForContrastiveMaskedMotion

        tower = LexMotionForContrastiveMaskedMotion.from_pretrained(tmp_path / "cmmm" / "model").motion_model
        for name, weight in tower.encoder.state_dict().items():
            assert torch.equal(weight, model.motion_model.encoder.state_dict()[name])


def test_a_phase_finished_elsewhere_is_copied_where_nothing_differs(prepared, recipe, short, tmp_path, monkeypatch):
    first = train(recipe, prepared, tmp_path / "first", short)
    trained = []
    for name, task in list(TASKS.items()):

        class Counted(task.trainer):
            def train(self):
                trained.append(self.name)
                return super().train()

        monkeypatch.setitem(TASKS, name, dataclasses.replace(task, trainer=Counted))
    again = train(recipe, prepared, tmp_path / "again", short, reuse=[tmp_path / "first"])
    assert not trained and again["phases"] == first["phases"]
    for phase in first["phases"]:
        for file in ("model/model.safetensors", "log.jsonl", "result.json"):
            assert (tmp_path / "again" / phase / file).read_bytes() == (tmp_path / "first" / phase / file).read_bytes()

    recipe["phases"]["lexmmm"]["learning_rate"] = 1e-5  # phase iii differs, so phase iv begins elsewhere
    train(recipe, prepared, tmp_path / "other", short, reuse=[tmp_path / "first"])
    assert trained == ["lexmmm", "lexcmlp"]


def test_a_finished_phase_without_its_model_is_trained_again(prepared, recipe, short, tmp_path):
    recipe["phases"] = {"lexmlm": recipe["phases"]["lexmlm"]}
    train(recipe, prepared, tmp_path / "first", short)
    shutil.rmtree(tmp_path / "first" / "lexmlm" / "model")
    train(recipe, prepared, tmp_path / "again", short, reuse=[tmp_path / "first"])
    assert (tmp_path / "again" / "lexmlm" / "model").is_dir()


def test_phase_four_starts_from_phase_three(prepared, recipe, short, tmp_path):
    del recipe["phases"]["lexmlm"], recipe["phases"]["cmmm"]
    recipe["phases"]["lexcmlp"] |= {"learning_rate": 0.0, "eval_split": None, "ema_decay": 0.0}
    recipe["phases"]["lexcmlp"] |= dict.fromkeys(("text_learning_rate", "decoder_learning_rate"), 0.0)
    recipe["phases"]["lexcmlp"] |= {"head_learning_rate": 1e-30, "initial_active_words": None}
    train(recipe, prepared, tmp_path, short)
    from lexmotion import LexMotionForLexicalMaskedMotion

    before = LexMotionForLexicalMaskedMotion.from_pretrained(tmp_path / "lexmmm" / "model").model
    after = LexMotionModel.from_pretrained(tmp_path / "model")
    for name, weight in before.state_dict().items():
        assert torch.allclose(weight, after.state_dict()[name], atol=1e-6), name


def test_one_phase_from_the_command_line(prepared, recipe_file, tmp_path):
    command = ["--config", str(recipe_file), "--dataset", str(prepared), "--num_steps", "1"]
    one = main(["lexmlm", *command, "--output_dir", str(tmp_path / "i")])
    assert one["training"]["steps"] == 1
    three = main(["lexmmm", *command, "--output_dir", str(tmp_path / "iii"), "--init_text", str(tmp_path / "i")])
    assert three["acceptance"]["coverage_top20"] >= 0
    with pytest.raises(SystemExit, match="--output_dir"):
        main(["lexmlm", *command])
    for words, value in (("--num_steps x", "num_steps.*'x'"), ("--config nowhere", "'nowhere'.*tiny")):
        with pytest.raises(SystemExit, match=f"error: .*{value}"):
            main(["lexmlm", *command, *words.split()])
    with pytest.raises(SystemExit, match=r"(?s)config\.json.*model/config\.json"):
        main(["lexmmm", *command, "--output_dir", str(tmp_path / "x"), "--init_text", str(tmp_path)])


def test_mistakes_are_found_before_the_first_phase_runs(prepared, recipe, tmp_path):
    recipe["phases"]["lexcmlp"]["learning_rte"] = 1
    with pytest.raises(ValueError, match="'learning_rte'.*'learning_rate'"):
        train(recipe, prepared, tmp_path)
    assert not any(tmp_path.iterdir())
    with pytest.raises(ValueError, match="phases"):
        train({"seed": 1}, prepared, tmp_path)
    with pytest.raises(ValueError, match="'recipe'.*phase"):
        train({"phases": {}}, prepared, tmp_path)
    with pytest.raises(ValueError, match="'seed'.*key=value"):
        train(recipe, prepared, tmp_path, overrides="seed")
    with pytest.raises(FileNotFoundError, match=r"no report\.json.*\bprepare\b"):
        PreparedData.read(tmp_path)


def test_an_absent_split_is_named(data):
    with pytest.raises(ValueError, match="'dev'.*train, validation, test"):
        data.corpus("dev", 32)
    assert data.corpus(None, 32) is None


def test_the_fingerprint_follows_the_bytes(prepared, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(prepared, copy)
    before = corpus_hashes(prepared)
    assert corpus_hashes(copy) == before
    file = next((copy / "data").glob("train-*"))
    file.write_bytes(file.read_bytes()[:-1] + b"\0")
    assert corpus_fingerprint(corpus_hashes(copy)) != corpus_fingerprint(before)


def test_extra_captions_leave_held_out_motions_out(tmp_path):
    path = tmp_path / "train.jsonl"
    lines = [
        {"id": "000001", "captions": ["turns left", " "]},
        {"id": "M000002", "captions": ["held out"]},
        {"captions": ["no id"]},
    ]
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n\n")
    assert read_extra_captions(tmp_path, ["000002"]) == ["turns left", "no id"]
    text = tmp_path / "more.txt"
    text.write_text("one\n\ntwo\n")
    assert read_extra_captions(text) == ["one", "two"]
    path.write_text("{}\n")
    with pytest.raises(ValueError, match=r"train\.jsonl.*\b1\b.*captions.*'{}'"):
        read_extra_captions(path)
    assert with_mirrored(["a"], ["a"], ["turns left", "a", "turns left"]) == (
        ["a", "turns left"],
        ["a", "turns right"],
    )


def test_phase_one_reads_the_folder_and_the_extra_captions(data, tmp_path):
    from lexmotion.training.recipe import run_arguments

    plain = data.captions(run_arguments("lexmlm", {"max_text_length": 32}))
    assert len(plain) >= 0.5 * len(data.corpus("train", 32).captions)
    extra = tmp_path / "extra.txt"
    extra.write_text("a caption nobody wrote before\n")
    more = data.captions(run_arguments("lexmlm", {"max_text_length": 32, "extra_captions": str(extra)}))
    assert len(more) == len(plain) + 1


def test_the_commit_is_found_or_absent(monkeypatch):
    monkeypatch.setattr(provenance.subprocess, "run", lambda *_, **__: (_ for _ in ()).throw(OSError()))
    assert provenance.commit() is None


def test_a_folder_to_reuse_must_exist(tmp_path):
    with pytest.raises(FileNotFoundError, match="reuse.*'nowhere'"):
        train("tiny", tmp_path / "prepared", tmp_path / "run", reuse=["nowhere"])
    assert list(tmp_path.iterdir()) == []
