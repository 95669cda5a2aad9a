import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, BertConfig, BertForMaskedLM

from lexmotion.baselines.retriever import RetrieverModel
from lexmotion.evaluation.encoding.vectors import encode_dataset
from lexmotion.evaluation.metrics.retrieval import cosine_similarity, evaluate_retrieval
from lexmotion.evaluation.model_evaluation import evaluate
from lexmotion.processing.corpora.prepare import load_prepared
from lexmotion.processing.processing_lexmotion import LexMotionProcessor
from lexmotion.training.pipeline import run_task
from lexmotion.training.recipe import baseline_values, load_recipe, run_arguments
from lexmotion.training.tasks import TASKS
from lexmotion.training.tasks.baseline import build_baseline

SMALL_TRANSFORMER = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
SIZES = {
    "temos": {"latent_size": 16, **SMALL_TRANSFORMER},
    "tmr": {"latent_size": 16, **SMALL_TRANSFORMER},
    "t2m": {"latent_size": 16, "movement_size": 16, "motion_hidden_size": 16, "text_hidden_size": 16},
    "motion_patches": {"latent_size": 16, "hidden_size": 16, **SMALL_TRANSFORMER},
}


SHARED = (
    "seed",
    "max_text_length",
    "batch_size",
    "num_steps",
    "logging_steps",
    "eval_steps",
    "learning_rate",
    "use_cpu",
)


@pytest.fixture(scope="module")
def text_model(data, tmp_path_factory):
    """A masked LM of the corpus's own words."""
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    words = len(data.processor.tokenizer)
    config = BertConfig(vocab_size=words, hidden_size=32, max_position_embeddings=64, **SMALL_TRANSFORMER)
    BertForMaskedLM(config).save_pretrained(folder)
    data.processor.tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def arguments(recipe, text_model, prepared, tmp_path):
    def make(system, vectors="dense", name="run", **more):
        values = {
            **{name: value for name, value in recipe.items() if name in SHARED},
            "text_model": text_model,
            "dataset": str(prepared),
            "output_dir": str(tmp_path / name),
            "system": system,
            "vectors": vectors,
            "baseline_config": SIZES[system],
            "initial_active_words": 20,
            **more,
        }
        if system == "motion_patches":
            values["representation"] = "positions"
        return run_arguments("baseline", values)

    return make


@pytest.mark.parametrize("vectors", ["dense", "lexicon"])
@pytest.mark.parametrize("system", SIZES)
def test_a_baseline_learns_its_pairs(arguments, data, system, vectors):
    """With nothing to hold it back, the loss falls."""
    more = {"num_steps": 30, "learning_rate": 3e-3, "eval_split": None, "save_steps": 0, "mirror_probability": 0.0}
    flops = {"text_flops_weight": 0.0, "motion_flops_weight": 0.0}
    run = arguments(system, vectors, **more, **flops, crop_ratio=1.0, speed_range=0.0, warmup_ratio=0.0)
    result = run_task(run, data)
    assert result["training"]["steps"] == 30
    log = Path(run.task.output_dir, "log.jsonl").read_text(encoding="utf-8")
    losses = [json.loads(line)["loss"] for line in log.splitlines()]
    assert sum(losses[-4:]) < 0.9 * sum(losses[:4])


def test_the_trained_baseline_scores_as_its_trainer_says(arguments, data, prepared):
    run = arguments("tmr", mixed_precision="no")
    result = run_task(run, data)
    folder = run.task.output_dir + "/model"
    model, processor = AutoModel.from_pretrained(folder), LexMotionProcessor.from_pretrained(folder)
    assert isinstance(model, RetrieverModel)
    encoded = encode_dataset(model, processor, load_prepared(prepared, ["validation"])["validation"], batch_size=5)
    scores = cosine_similarity(encoded.text_embeds, encoded.motion_embeds)
    rsum = evaluate_retrieval(scores, encoded.ids, encoded.captions, ["all-duplicates"])["all-duplicates"]["Rsum"]
    assert rsum == pytest.approx(result["training"]["best"]["rsum"], abs=0.5)
    measured = evaluate(folder, prepared, "validation", ["all-duplicates"])  # dense vectors have no words
    assert measured["retrieval"]["all-duplicates"]["Rsum"] == pytest.approx(rsum) and "lexical" not in measured


def make_trainer(run, data):
    return TASKS["baseline"].make_trainer(run, data)


def test_lexical_vectors_begin_with_as_many_words_as_asked_for(arguments, data):
    trainer = make_trainer(arguments("motion_patches", "lexicon", initial_active_words=30), data)
    with trainer.ready():
        for vectors in trainer.encode(trainer.train_corpus):
            assert (vectors > 0).sum(dim=1).float().mean() == pytest.approx(30, abs=3)


def test_a_baseline_is_the_same_in_one_sitting_and_in_two(arguments, data):
    whole = run_task(arguments("tmr", "lexicon", "whole"), data)
    halves = arguments("tmr", "lexicon", "halves", max_minutes=1e-6, save_steps=1)
    assert make_trainer(halves, data).train()["stopped"] is not None
    halves.task.max_minutes = None
    assert make_trainer(halves, data).train()["evaluation"] == whole["training"]["evaluation"]


def test_a_vocabulary_of_another_model_is_refused(arguments, data, tmp_path):
    BertConfig(vocab_size=12, hidden_size=32, **SMALL_TRANSFORMER).save_pretrained(tmp_path)
    BertForMaskedLM(BertConfig(vocab_size=12, hidden_size=32, **SMALL_TRANSFORMER)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"\b12\b.*\b257\b.*--text-model"):
        build_baseline(arguments("tmr", text_model=str(tmp_path)), data.processor)
    with pytest.raises(ValueError, match="text_model"):
        build_baseline(arguments("tmr", text_model=None), data.processor)


@pytest.mark.parametrize("recipe", ["small", "kit", "base"])
@pytest.mark.parametrize("system", SIZES)
def test_recipes_name_every_baseline(recipe, system):
    values = baseline_values(load_recipe(recipe), system, "lexicon")
    run = run_arguments("baseline", values)
    assert (run.task.system, run.task.vectors) == (system, "lexicon")
    assert "motion_config" not in (values.get("baseline_config") or {})


def test_an_unknown_baseline_is_named_with_those_there_are():
    with pytest.raises(ValueError, match="'clip'.*temos"):
        baseline_values(load_recipe("small"), "clip")
