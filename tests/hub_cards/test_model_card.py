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
