"""The metric modules of generation and captioning: load offline, compute what the package does, combine."""

import os
from pathlib import Path

import numpy as np
import pytest
import yaml

from lexmotion.evaluation.metrics.captioning import evaluate_captions
from lexmotion.evaluation.metrics.generation import evaluate_generation
from lexmotion.evaluation.metrics.retrieval import retrieval_metrics

ROOM = Path(__file__).resolve().parents[2] / "evaluation" / "hub_metrics"
NAMES = ("motion_captioning", "motion_generation")
RNG = np.random.default_rng(0)
TEXTS, REAL = RNG.normal(size=(2, 40, 6))
GENERATED = TEXTS + RNG.normal(size=(3, 40, 6))
EMBEDS = {"text_embeds": TEXTS, "generated": GENERATED[0], "real": REAL}
CAPTIONS = [f"a person walks {number} times" for number in range(40)]
TRUTHS = [[f"someone walks {number} times", f"a man walks {number}"] for number in range(40)]


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """Loads from the folder, with no Hub to ask and a cache of its own."""
    folder = tmp_path_factory.mktemp("evaluate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        import evaluate

        patch.setattr(evaluate.config, "HF_EVALUATE_OFFLINE", True)
        patch.setattr(evaluate.config, "HF_MODULES_CACHE", os.fspath(folder / "modules"))
        yield lambda name: evaluate.load(str(ROOM / name), cache_dir=str(folder / "cache"))


def test_generation_computes_the_metrics_of_the_package(load):
    metric = load("motion_generation")
    options = {"pairs": 20, "top_k": 2, "replications": 4, "seed": 5}
    expected = evaluate_generation(TEXTS, GENERATED[0], REAL, **options)
    assert metric.compute(**EMBEDS, **options) == expected
    by_file = load("motion_generation/motion_generation.py")  # as the Space does
    assert by_file.compute(**EMBEDS, **options) == expected


def test_generation_of_several_replications_in_batches(load):
    metric = load("motion_generation")
    samples = GENERATED.swapaxes(0, 1)  # row i: the motions of caption i
    several = RNG.normal(size=(4, 10, 6))
    for start in range(0, 40, 15):
        rows = slice(start, start + 15)
        metric.add_batch(text_embeds=TEXTS[rows], generated=samples[rows], real=REAL[rows])
    found = metric.compute(pairs=20, multimodality_embeds=several)
    assert found == evaluate_generation(TEXTS, GENERATED, REAL, several, pairs=20)
    assert found["generated_sets"] == 3 and found["FID/ci95"] > 0


def test_captioning_computes_the_metrics_of_the_package(load):
    metric = load("motion_captioning")
    assert metric.compute(predictions=CAPTIONS, references=TRUTHS) == evaluate_captions(CAPTIONS, TRUTHS)
    for start in range(0, 40, 15):
        metric.add_batch(predictions=CAPTIONS[start : start + 15], references=TRUTHS[start : start + 15])
    assert metric.compute(tokenizer="words") == evaluate_captions(CAPTIONS, TRUTHS, "words")


SIMILARITY = RNG.normal(size=(320, 320)).astype(np.float32)
WIDE = {name: np.tile(rows, (8, 1)) + RNG.normal(size=(320, 6)) for name, rows in EMBEDS.items()}
OTHERS = {
    "motion_captioning": ((CAPTIONS * 8, TRUTHS * 8), evaluate_captions),
    "motion_retrieval": ((SIMILARITY, list(range(320))), lambda scores, motions: retrieval_metrics(scores, motions)),
}


@pytest.mark.parametrize("other", OTHERS)
def test_generation_combines_with_a_metric_of_other_inputs(load, other):
    import evaluate

    (predictions, references), compute = OTHERS[other]
    both = evaluate.combine([load(other), load("motion_generation")])
    for rows in (slice(0, 200), slice(200, 320)):
        embeds = {name: array[rows] for name, array in WIDE.items()}
        both.add_batch(predictions=predictions[rows], references=references[rows], **embeds)
    found = both.compute()
    expected = {other: compute(predictions, references), "motion_generation": evaluate_generation(**WIDE)}
    for name, result in expected.items():
        assert {key: found.get(key, found.get(f"{name}_{key}")) for key in result} == result


def test_two_tokenisations_combine(load):
    import evaluate

    both = evaluate.combine(
        {"first": load("motion_captioning"), "second": load("motion_captioning")}, force_prefix=True
    )
    found = both.compute(predictions=CAPTIONS, references=TRUTHS)
    expected = evaluate_captions(CAPTIONS, TRUTHS)
    assert found == {f"{name}_{key}": value for name in ("first", "second") for key, value in expected.items()}


@pytest.mark.parametrize(
    ("name", "inputs", "message"),
    [
        ("motion_generation", {"text_embeds": TEXTS, "generated": GENERATED[0]}, r"text_embeds.*\['real'\]"),
        ("motion_generation", {**EMBEDS, "real": [*REAL[:39].tolist(), [1.0]]}, r"\breal\b.*evaluator"),
        ("motion_generation", EMBEDS, r"\b300\b.*\b40\b.*\bpairs\b"),
        ("motion_captioning", {"predictions": ["a"], "references": [[]]}, r"(?i)caption 0\b"),
        ("motion_captioning", {"predictions": ["a"], "references": [["a"], ["b"]]}, "Mismatch in the number"),
    ],
)
def test_errors_say_what_to_do(load, name, inputs, message):
    with pytest.raises(ValueError, match=message):
        load(name).compute(**inputs)


@pytest.mark.parametrize("name", NAMES)
def test_the_folder_is_a_space(name):
    folder = ROOM / name
    _, front, _ = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    card = yaml.safe_load(front)
    assert card["sdk"] == "gradio" and {"evaluate", "metric"} <= set(card["tags"])
    application = (folder / card["app_file"]).read_text(encoding="utf-8")
    compile(application, "app.py", "exec")
    assert f'"{name}.py"' in application and (folder / f"{name}.py").is_file()
    assert "lexmotion" in (folder / "requirements.txt").read_text(encoding="utf-8")
