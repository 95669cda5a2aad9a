"""Another representation than the prepared folder's: refitted once, trained with, saved beside the model."""

import json
from pathlib import Path

import numpy as np
import pytest

from lexmotion import LexMotionModel, LexMotionProcessor
from lexmotion.evaluation.explain import explain
from lexmotion.processing.corpora.prepare import prepare
from lexmotion.processing.corpora.synthetic import generate_corpus
from lexmotion.processing.skeletons import JOINT_PARTS
from lexmotion.training.data import PreparedData
from lexmotion.training.pipeline import train
from lexmotion.training.recipe import run_arguments
from lexmotion.training.tasks import PHASES


def test_the_own_representation_is_the_own_processor(data):
    assert data.processor_for(None) is data.processor
    assert data.processor_for("positions") is data.processor


@pytest.mark.parametrize("representation", ["humanml3d", "joint_angles"])
def test_refitting_gives_what_prepare_would_have_given(data, tmp_path, representation):
    source = generate_corpus(tmp_path / "source", {"train": 48, "validation": 12, "test": 12}, seed=0)
    prepare(source, tmp_path / "prepared", max_frames=64, representation=representation)
    expected = LexMotionProcessor.from_pretrained(tmp_path / "prepared" / "processor")
    refitted = data.processor_for(representation)
    assert data.processor_for(representation) is refitted
    ours, theirs = refitted.feature_extractor, expected.feature_extractor
    assert (ours.representation, ours.max_frames, ours.fps) == (representation, 64, theirs.fps)
    np.testing.assert_allclose(ours.mean, theirs.mean, atol=1e-5)
    np.testing.assert_allclose(ours.std, theirs.std, atol=1e-5)
    assert refitted.lexicon.hash == expected.lexicon.hash == data.processor.lexicon.hash
    assert data.processor.feature_extractor.representation == "positions"


def test_without_a_training_split_there_is_nothing_to_fit_on(data):
    held_out = PreparedData(data.folder, data.processor, {"test": data.splits["test"]}, data.hashes, data.fingerprint)
    with pytest.raises(ValueError, match="'train'.*'joint_angles'"):
        held_out.processor_for("joint_angles")


def test_an_unknown_representation_is_found_before_the_run():
    with pytest.raises(ValueError, match="'angles'.*positions, humanml3d, joint_angles"):
        run_arguments("lexcmlp", {"representation": "angles"})


def test_all_phases_train_on_joint_angles(prepared, data, recipe, tmp_path):
    short = {"num_steps": 2, "eval_steps": 2, "representation": "joint_angles"}
    record = train(recipe, prepared, tmp_path / "run", short)
    for phase in PHASES:
        assert record["phases"][phase]["training"]["steps"] == 2
    figures = record["phases"]["cmmm"]["acceptance"]
    assert 0 < figures["masked_error"] < 2 and 0 < figures["interpolation_error"] < 2  # distances of unit vectors

    for folder in ("model", "lexcmlp/model"):
        model = LexMotionModel.from_pretrained(tmp_path / "run" / folder)
        processor = LexMotionProcessor.from_pretrained(tmp_path / "run" / folder)
        extractor = processor.feature_extractor
        assert extractor.representation == "joint_angles" and extractor.num_features == 71
        assert model.config.motion_config.parts == extractor.parts and len(extractor.parts) == 14
    corpus = data.corpus("validation", 32)
    motion = corpus.frames[: int(corpus.lengths[0])].numpy()
    found = explain(model, motion, processor=processor, fps=20.0)
    assert found.grid[1] == 14 and {word.part for word in found.words} <= {p.replace("_", " ") for p in JOINT_PARTS}

    result = json.loads(Path(tmp_path / "run" / "lexcmlp" / "result.json").read_text())
    assert result["arguments"]["representation"] == "joint_angles"
    with pytest.raises(ValueError, match="run/lexmlm.*output_dir"):
        train(recipe, prepared, tmp_path / "run", {**short, "representation": None})
