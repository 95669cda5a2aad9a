"""The model card: golden text, machine-readable results that the Hub's own reader accepts, safe writing."""

from pathlib import Path

import pytest
from huggingface_hub import ModelCard as HubModelCard

from lexmotion.hub_cards.model_card import ModelCard, RetrievalResult

GOLDEN = Path(__file__).with_name("golden_model_card.md")


@pytest.fixture
def card():
    metrics = {"R@1": 41.5, "R@2": 60.25, "R@3": 70.0, "R@5": 81.123456, "R@10": 90.0, "MedR": 2.0}
    return ModelCard(
        name="user/lexmotion-tiny",
        recipe="tiny",
        corpus="synthetic",
        corpus_license="Apache-2.0, generated",
        fingerprint="0123456789abcdef",
        command="lexmotion quickstart --seed 0",
        seeds=[0, 1],
        versions={"torch": "2.13.0", "lexmotion": "0.1.0"},
        commit="deadbeef",
        hardware="CPU, 2 cores",
        results=[
            RetrievalResult("test", "all-strict", 200, "text_to_motion", metrics),
            RetrievalResult("test", "all-strict", 200, "motion_to_text", {**metrics, "MedR": 1.5}),
            RetrievalResult("test", "dissimilar", 100, "text_to_motion", {"R@1": 55.0}),
        ],
        phases={
            "lexmlm": {"bottleneck_gain_over_zero": 0.31234},
            "cmmm": {"masked_error": 0.02, "mean_pose_error": 0.1},
        },
        words=[("a person jumps | twice", ["jump", "leap"]), ("someone walks\nforward", ["walk", "forward"])],
    )


def test_the_card_is_the_golden_card(card):
    assert card.render() == GOLDEN.read_text(encoding="utf-8")


def test_the_hub_reads_back_every_result(card):
    read = HubModelCard(card.render()).data
    values = {(r.task_type, r.dataset_config, r.metric_type): r.metric_value for r in read.eval_results}
    assert len(values) == 13
    assert values["motion-to-text-retrieval", "all-strict, gallery of 200", "MedR"] == 1.5
    assert values["text-to-motion-retrieval", "dissimilar, gallery of 100", "R@1"] == 55.0
    assert read.license == "apache-2.0" and read.library_name == "transformers"


def test_a_card_without_figures_says_so():
    text = ModelCard("tiny", "tiny", "synthetic", "lexmotion quickstart").render()
    assert "Not evaluated yet." in text
    assert "model-index" not in text and "## What it sees" not in text and "## Training" not in text


def test_saving_writes_the_text_and_leaves_nothing_else(card, tmp_path):
    path = card.save(tmp_path / "model")
    assert path.read_text(encoding="utf-8") == card.render()
    assert [file.name for file in path.parent.iterdir()] == ["README.md"]


def test_an_unknown_direction_is_refused():
    with pytest.raises(ValueError, match="sideways"):
        RetrievalResult("test", "all-strict", 200, "sideways", {})


@pytest.fixture
def record():
    return {
        "recipe": {"name": "tiny"},
        "seed": 3,
        "dataset": {"folder": "prepared", "fingerprint": "abc", "rows": {"train": 10}},
        "versions": {"torch": "2.13.0"},
        "commit": "deadbeef",
        "finished": "2026-01-01T00:00:00+00:00",
        "phases": {
            "lexmlm": {"device": "cpu", "acceptance": {"gain_over_zeroed": 0.5}},
            "cmmm": {"device": "cpu", "acceptance": {}},
        },
    }


def test_a_run_record_fills_the_card(record):
    metrics = {f"{side}/{name}": 12.5 for side in ("t2m", "m2t") for name in ("R1", "R2", "R3", "R5", "R10", "MedR")}
    evaluation = {"split": "test", "retrieval": {"all-strict": {**metrics, "gallery_size": 240, "Rsum": 125.0}}}
    card = ModelCard.from_run_record(record, "user/model", "synthetic", [evaluation], hardware="CPU, 2 cores")
    assert (card.recipe, card.seeds, card.fingerprint, card.hardware) == ("tiny", [3], "abc", "CPU, 2 cores")
    assert [row.direction for row in card.results] == ["text_to_motion", "motion_to_text"]
    assert card.results[0].metrics == dict.fromkeys(("R@1", "R@2", "R@3", "R@5", "R@10", "MedR"), 12.5)
    text = card.render()
    assert "| lexmlm | gain over zeroed | 0.5 |" in text and "--set seed=3" in text


def test_an_unfinished_run_gets_no_card(record):
    with pytest.raises(ValueError, match="not finished"):
        ModelCard.from_run_record({**record, "finished": None}, "user/model", "synthetic")
