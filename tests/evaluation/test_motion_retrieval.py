"""The metric module: loads offline, computes what `lexmotion.evaluation.metrics.retrieval` does, combines."""

import os
from pathlib import Path

import numpy as np
import pytest
import yaml

from lexmotion.evaluation.metrics.retrieval import evaluate_retrieval, retrieval_metrics

FOLDER = Path(__file__).resolve().parents[2] / "evaluation" / "hub_metrics" / "motion_retrieval"
SIMILARITY = np.random.default_rng(0).normal(size=(40, 40)).astype(np.float32) + 2 * np.eye(40, dtype=np.float32)
CAPTIONS = [f"a person walks {number // 2} times" for number in range(40)]  # each twice


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """Loads from the folder, with no Hub to ask and a cache of its own."""
    folder = tmp_path_factory.mktemp("evaluate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        import evaluate

        patch.setattr(evaluate.config, "HF_EVALUATE_OFFLINE", True)
        patch.setattr(evaluate.config, "HF_MODULES_CACHE", os.fspath(folder / "modules"))
        yield lambda path=FOLDER: evaluate.load(str(path), cache_dir=str(folder / "cache"))


def test_computes_the_metrics_of_the_package(load):
    metric = load()
    found = metric.compute(predictions=SIMILARITY, references=range(40))
    assert found == retrieval_metrics(SIMILARITY, np.arange(40))
    assert found["t2m/R1"] < 100 and found["gallery_size"] == 40
    by_file = load(FOLDER / "motion_retrieval.py")  # as the Space does
    assert by_file.compute(predictions=SIMILARITY, references=range(40)) == found


def test_several_captions_of_a_motion(load):
    wide = SIMILARITY[:, :20]
    motions = np.arange(40) % 20
    found = load().compute(predictions=wide, references=motions, ties="pessimistic")
    assert found == retrieval_metrics(wide, motions, "pessimistic") and found["num_captions"] == 40


def test_batches_added_one_by_one(load):
    metric = load()
    for start in range(0, 40, 7):
        metric.add_batch(predictions=SIMILARITY[start : start + 7], references=list(range(40))[start : start + 7])
    assert metric.compute() == retrieval_metrics(SIMILARITY, np.arange(40))


def test_protocols(load):
    found = load().compute(predictions=SIMILARITY, references=range(40), captions=CAPTIONS, protocols="all")
    expected = evaluate_retrieval(SIMILARITY, [f"{place:09d}" for place in range(40)], CAPTIONS, "all")
    assert {name.split("/")[0] for name in found} == {"all-strict", "all-duplicates", "small-batches"}
    assert found == {f"{protocol}/{name}": value for protocol, one in expected.items() for name, value in one.items()}
    assert found["all-duplicates/Rsum"] > found["all-strict/Rsum"]


def test_combines(load):
    import evaluate

    both = evaluate.combine({"first": load(), "second": load()}, force_prefix=True)
    found = both.compute(predictions=SIMILARITY.tolist(), references=list(range(40)))
    expected = retrieval_metrics(SIMILARITY, np.arange(40))
    assert found == {f"{name}_{key}": value for name in ("first", "second") for key, value in expected.items()}


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"predictions": [[0.1, 0.2], [0.3]], "references": [0, 1]}, r"\[1, 2\]"),
        (
            {"predictions": SIMILARITY, "references": range(40), "protocols": "all-duplicates"},
            "'all-duplicates'.*captions=",
        ),
        ({"predictions": SIMILARITY, "references": [1] * 40, "captions": CAPTIONS}, r"references.*\b40\b.*\[1, 1, 1"),
    ],
)
def test_errors_say_what_to_do(load, inputs, message):
    with pytest.raises(ValueError, match=message):
        load().compute(**inputs)


def test_the_folder_is_a_space():
    _, front, _ = (FOLDER / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    card = yaml.safe_load(front)
    assert card["sdk"] == "gradio" and {"evaluate", "metric"} <= set(card["tags"])
    assert (FOLDER / card["app_file"]).is_file()
    compile((FOLDER / card["app_file"]).read_text(encoding="utf-8"), "app.py", "exec")
    requirements = (FOLDER / "requirements.txt").read_text(encoding="utf-8").split()
    assert "lexmotion" in requirements and FOLDER.name == (FOLDER / f"{FOLDER.name}.py").stem
