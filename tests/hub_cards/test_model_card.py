"""Cards: golden texts, figures read back by the Hub's own reader, and the same card wherever the model is."""

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml
from huggingface_hub import DatasetCard as HubDatasetCard
from huggingface_hub import ModelCard as HubModelCard
from huggingface_hub import constants
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results

from lexmotion.hub_cards.dataset_card import DatasetCard
from lexmotion.hub_cards.model_card import ModelCard, Result, load_evaluation, read_results

HERE = Path(__file__).parent
REGENERATE = os.environ.get("LEXMOTION_REGENERATE_GOLDEN")  # =1 writes the expected files anew; look at the difference


def is_golden(name, text):
    path = HERE / name
    if REGENERATE:
        path.write_text(text, encoding="utf-8")
    return text == path.read_text(encoding="utf-8")


@pytest.fixture
def record():
    report = {
        "source": "synthetic",
        "layout": "humanml3d",
        "options": {
            "layout": "humanml3d",
            "splits": {"train": "train.txt", "test": "test.txt"},
            "text_model": "corpus",
            "processor": False,
            "representation": "positions",
            "max_frames": 224,
            "fps": 20.0,
            "vocabulary_filter": "corpus",
            "min_document_frequency": 2,
            "extra_captions": ["more.jsonl"],
            "exclude_ids": [],
            "mirror": "listed",
        },
    }
    return {
        "recipe": {"name": "tiny", "seed": 3, "phases": {"lexmlm": {"num_steps": 10}}},
        "seed": 3,
        "dataset": {"folder": "nowhere", "fingerprint": "abc", "rows": {"train": 10, "test": 4}, "report": report},
        "versions": {"torch": "2.13.0", "lexmotion": "0.1.0"},
        "commit": "deadbeef",
        "machine": {"processor": "A processor", "cores": 2},
        "finished": "2026-01-01T00:00:00+00:00",
        "phases": {
            "lexmlm": {"device": "cpu", "acceptance": {"gain_over_zeroed": 0.31234}},
            "cmmm": {"device": "cpu", "acceptance": {"masked_error": 0.02}},
        },
    }


@pytest.fixture
def evaluation():
    sides = {f"{side}/{name}": 12.5 for side in ("t2m", "m2t") for name in ("R1", "R2", "R3", "R5", "R10", "MedR")}
    row = {**sides, "Rsum": 125.0, "gallery_size": 240, "ties": "average", "num_captions": 240, "seed": None}
    drawn = {**row, "gallery_size": 32, "seed": 0, "batch_size": 32, "t2m/R1": 81.123456}
    return {
        "split": "test",
        "retrieval": {"all-strict": row, "small-batches": drawn},
        "retrieval_words": {"all-strict": {**row, "t2m/R1": 11.0}},
        "lexical": {"motion_active_words": 92.02, "antonym_auc": float("nan")},
        "order": {"share": 0.6, "captions": 186},
    }


@pytest.fixture
def card(record, evaluation):
    return ModelCard.from_run_record(
        record,
        "user/lexmotion-tiny",
        [evaluation],
        facts={"parameters": 216000, "parts of the time": 2},
        words=[("a person jumps | twice", ["jump", "leap"]), ("someone walks\nforward", ["walk", "forward"])],
        picture="words.png",
    )


def test_the_card_is_the_golden_card(card):
    assert is_golden("golden_model_card.md", card.render())


def test_a_card_without_figures_says_so():
    text = ModelCard("tiny", "tiny", "synthetic", "lexmotion quickstart").render()
    assert "Not evaluated yet." in text
    assert "model-index" not in text and "## What it sees" not in text and "## Training" not in text


def test_the_hub_reads_back_every_metric_and_its_protocol(card, evaluation):
    read = HubModelCard(card.render()).data
    values = {(r.task_type, r.dataset_config, r.metric_type): r.metric_value for r in read.eval_results}
    assert len(values) == 3 * 2 * 7 + 1 + 2  # what is not a number is left out
    assert values["text-to-motion-retrieval", "small-batches, gallery of 32", "R@1"] == 81.1235
    assert values["motion-to-text-retrieval", "all-strict, gallery of 240", "Rsum"] == 125.0
    assert values["text-to-motion-retrieval", "all-strict, words alone, gallery of 240", "R@1"] == 11.0
    assert values["order", "events exchanged", "share"] == 0.6
    drawn = next(r for r in read.eval_results if r.dataset_config.startswith("small-batches"))
    assert drawn.dataset_args == {"ties": "average", "num_captions": 240, "seed": 0, "batch_size": 32}


def test_the_head_keeps_the_rules_of_the_hub(card):
    head = yaml.safe_load(card.render().split("---\n")[1])
    assert isinstance(head["license"], str) and head["license"] == "apache-2.0"
    assert head["library_name"] == "transformers" and head["pipeline_tag"] == "zero-shot-motion-classification"
    name, results = model_index_to_eval_results(head["model-index"])
    assert name == "user/lexmotion-tiny"
    again = eval_results_to_model_index(name, results)
    assert [row["metrics"] for row in again[0]["results"]] == [
        row["metrics"] for row in head["model-index"][0]["results"]
    ]
    for row in head["model-index"][0]["results"]:
        assert row["task"]["type"] and {"name", "type"} <= set(row["dataset"]) and row["metrics"]
        assert all(isinstance(metric["value"], float | int) for metric in row["metrics"])


def test_the_hubs_own_validation_passes(card, hub, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    HubModelCard(card.render()).validate()
    assert hub.asked_for("POST", "/api/validate-yaml") == 1
    broken = card.render().replace("license: apache-2.0", "license: other")
    with pytest.raises(ValueError, match="license_name"):
        HubModelCard(broken).validate()


def test_each_row_has_the_command_that_measures_it(card):
    text = card.render()
    base = "lexmotion evaluate retrieval --model user/lexmotion-tiny --dataset DIR --split test"
    for command in (
        f"{base} --protocol all-strict\n",
        f"{base} --protocol small-batches --seed 0\n",
        "lexmotion evaluate order --model user/lexmotion-tiny --dataset DIR --split test\n",
        "lexmotion train --recipe recipe.yaml --dataset DIR --output-dir OUTPUT\n",
    ):
        assert command in text


def test_the_commands_of_a_card_exist(card, record):
    import shlex

    from typer.main import get_command

    from lexmotion import cli

    for line in [line for line in card.render().splitlines() if line.startswith("lexmotion ")]:
        words, command = shlex.split(line)[1:], get_command(cli.app)
        while hasattr(command, "commands"):
            command = command.commands[words.pop(0)]
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known, line


def test_a_run_record_fills_the_card(record):
    card = ModelCard.from_run_record(record, "user/model", hardware="one GPU")
    assert (card.recipe, card.seeds, card.fingerprint, card.hardware) == ("tiny", [3], "abc", "one GPU")
    assert (card.corpus, card.license, card.commit) == ("synthetic", "apache-2.0", "deadbeef")
    assert "A processor, 2 cores (cpu)" in ModelCard.from_run_record(record, "user/model").render()


def test_weights_follow_the_terms_of_their_corpus(record):
    record["dataset"]["report"] |= {"source": "humanml3d", "fingerprint": "f00d"}
    assert ModelCard.from_run_record(record, "user/model").fingerprint == "f00d"  # as on the card of the corpus
    head = ModelCard.from_run_record(record, "user/model").data()
    assert (head.license, head.license_name) == ("other", "humanml3d-amass") and head.license_link
    assert ModelCard.from_run_record(record, "user/model").relicensed("mit").data().license_name is None
    del record["dataset"]["report"]  # as older records are
    assert ModelCard.from_run_record(record, "user/model").corpus == "not recorded"


def test_an_unfinished_run_gets_no_card(record):
    with pytest.raises(ValueError, match="'user/model'.*lexmotion train"):
        ModelCard.from_run_record({**record, "finished": None}, "user/model")


def test_an_unknown_task_and_an_empty_file_are_refused():
    with pytest.raises(ValueError, match="'sideways'.*text_to_motion"):
        Result("sideways", "test", "all-strict", {})
    with pytest.raises(ValueError, match="retrieval, lexical, order.*lexmotion evaluate retrieval --output"):
        read_results({"split": "test"})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1]", "list"),
        ('{"retrieval": ', "Expecting value"),
        ('{"retrieval": {"all-strict": {"Rsum": 1.0}}}', "'gallery_size'"),
        ('{"retrieval": [1]}', "no attribute"),
    ],
)
def test_a_file_without_results_is_named(content, message, tmp_path):
    (tmp_path / "figures.json").write_text(content)
    with pytest.raises(ValueError, match=rf"figures\.json.*{message}"):
        load_evaluation(tmp_path / "figures.json")


def test_saving_keeps_all_that_the_card_needs(card, tmp_path):
    path = card.save(tmp_path / "model")
    assert path.read_text(encoding="utf-8") == card.render() and card.is_in(path.parent)
    assert sorted(file.name for file in path.parent.iterdir()) == ["README.md", "card.json", "recipe.yaml"]
    again = ModelCard.of_folder(path.parent)
    assert again.render() == card.render()
    assert yaml.safe_load((path.parent / "recipe.yaml").read_text()) == card.recipe_content


# ------------------------------------------------------------------------------------------------- a model that exists


def run(*words):
    from lexmotion import cli

    with pytest.raises(SystemExit) as stop:
        cli.main([str(word) for word in words])
    assert stop.value.code == 0


def test_the_command_writes_it_again_from_the_run_or_from_the_card(model_dir, tmp_path, evaluation, capsys):
    (tmp_path / "results.json").write_text(json.dumps(evaluation))
    run("card", model_dir, "--name", "user/model", "--results", tmp_path / "results.json")
    written = (model_dir / "README.md").read_text()
    assert "user/model" in written and "| test | small-batches | average | 32 | text to motion | 81.12 |" in written
    assert "words.png" in written and (model_dir / "words.png").stat().st_size > 10_000
    assert len(ModelCard.of_folder(model_dir).words) == 3
    moved = tmp_path / "elsewhere" / "model"
    shutil.copytree(model_dir, moved)  # as it is after a download: no run record
    run("card", moved, "--no-picture")
    assert (moved / "README.md").read_text() == written
    run("card", moved, "--no-picture", "--license", "mit", "--corpus", "mine")
    again = ModelCard.of_folder(moved)
    assert (again.license, again.corpus, again.picture) == ("mit", "mine", "words.png")


def test_what_the_user_chose_is_kept(model_dir):
    run("card", model_dir, "--no-picture", "--license", "mit", "--corpus-license", "own recordings")
    run("card", model_dir, "--no-picture", "--corpus", "mine")  # the run record says otherwise
    card = ModelCard.of_folder(model_dir)
    assert (card.license, card.corpus_license, card.corpus) == ("mit", "own recordings", "mine")


def test_the_run_beside_another_folder_is_another_models(model_dir):
    with_run = model_dir.parent
    (with_run / "results.json").write_text("not even read")
    shutil.copytree(model_dir, with_run / "downloaded")
    with pytest.raises(ValueError, match=r"run\.json.*card\.json.*lexmotion train"):
        ModelCard.collect(with_run / "downloaded", "user/model")
    shutil.copytree(model_dir, with_run.parent / "model")  # beside run/run.json, but no output of quickstart
    with pytest.raises(ValueError, match=r"run\.json.*card\.json.*lexmotion train"):
        ModelCard.collect(with_run.parent / "model", "user/model")


def test_a_text_tower_alone_tells_only_what_it_has(model_dir):
    from lexmotion import LexMotionModel

    LexMotionModel.from_pretrained(model_dir).text_model.save_pretrained(model_dir)
    card = ModelCard.collect(model_dir, "user/words")
    text = card.render()
    assert {"words", "text encoder"} <= set(card.facts) and not {"skeleton", "motion layers x width"} & set(card.facts)
    assert "None" not in text and "get_motion_features" not in text
    code = text.split("```python\n")[1].split("```")[0].replace("user/words", str(model_dir))
    exec(compile(code, "card", "exec"), {})


def test_a_model_from_nowhere_gets_no_card(model_dir, tmp_path):
    shutil.copytree(model_dir, tmp_path / "lost" / "model")
    with pytest.raises(ValueError, match=r"run\.json.*card\.json.*lexmotion train"):
        ModelCard.collect(tmp_path / "lost" / "model", "user/model")


# ----------------------------------------------------------------------------------------------------------- datasets


@pytest.fixture
def report():
    split = {"file": "train.txt", "listed": 10, "motions": 9, "mirrored": 2, "captions": 27, "frames": 900}
    options = {
        **{"layout": "humanml3d", "text_model": "minilm", "processor": False, "representation": "humanml3d"},
        **{"max_frames": 208, "fps": 20.0, "vocabulary_filter": "corpus", "min_document_frequency": 2},
        **{"extra_captions": ["more.jsonl"], "exclude_ids": [], "mirror": "listed"},
        "splits": {"train": "train.txt", "test": "test.txt"},
    }
    return {
        **{"fingerprint": "f00d", "layout": "humanml3d", "source": "humanml3d", "skeleton": "humanml3d", "fps": 20.0},
        "options": options,
        "splits": {"train": {**split, "seconds": 45.0}, "test": {**split, "mirrored": 0, "seconds": 45.0}},
        "skipped_by_reason": {"too short": 1},
        "shared": {"train and test": {"base_ids": 0, "source_clips": 4}},
        "text": {"motions": 20, "captions": 60},
        "processor": {
            **{"statistics_hash": "5ea7", "lexicon_hash": "1e71", "active_words": 2688, "vocab_size": 30522},
        },
        "files": {"data/train-00000-of-00001.parquet": 1, "text/train.parquet": 1},
    }


def test_the_dataset_card_is_the_golden_card(report):
    assert is_golden("golden_dataset_card.md", DatasetCard.from_report(report, "user/motions").render())


def test_the_dataset_card_names_extra_motion_and_all_options(report):
    added = {
        "splits": {"train": ["a.txt", "b.txt"]},
        "leave_out": ["bad.txt"],
        "overlay": ["o"],
        "extra_motion": ["m"],
    }
    report = {
        **report,
        "options": {**report["options"], **added},
        "motion": {"motions": 7, "captions": 3},
        "files": {**report["files"], "motion/train.parquet": 1},
    }
    card = DatasetCard.from_report(report, "user/motions")
    text = " ".join(card.render().split())
    assert "`motion/train.parquet` (configuration `motion`) contains 7 further motions with 3 captions" in text
    assert "--split train=a.txt --split train=b.txt" in text
    assert "--leave-out bad.txt --overlay o" in text and "--extra-motion m" in text
    assert card.license.name == "not-recorded"  # of more than one corpus


def test_the_dataset_card_keeps_the_rules_of_the_hub(report, hub, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    card = HubDatasetCard(DatasetCard.from_report(report, "user/motions").render())
    card.validate(repo_type="dataset")
    head = card.data.to_dict()
    assert head["license"] == "other" and head["license_name"] and head["size_categories"] == "n<1K"
    assert [config["config_name"] for config in head["configs"]] == ["default", "text"]
    assert DatasetCard.from_report(report, "user/motions", "cc-by-4.0").data().license == "cc-by-4.0"
