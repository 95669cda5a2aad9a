"""The functions behind the verbs take a model by its name or as an object; metrics take neither."""

import ast
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lexmotion import LexMotionForContrastiveMaskedMotion, LexMotionForLexicalMaskedLM
from lexmotion.__main__ import main
from lexmotion.encoding_lexmotion import bind_processor
from lexmotion.evaluation import metrics
from lexmotion.evaluation.encoding.shards import encode, load_encoded
from lexmotion.evaluation.explain import explain
from lexmotion.evaluation.loading import load_model, load_motion_encoder, read_motion_for, ready_model, save_model
from lexmotion.evaluation.metrics.retrieval import PROTOCOLS
from lexmotion.evaluation.model_evaluation import evaluate, evaluate_order, evaluate_ridge_floor
from lexmotion.evaluation.probe import evaluate_probe


@pytest.fixture
def loaded(trained):
    model, processor = load_model(trained / "model", "cpu")
    return model.train(), processor


def test_a_model_is_measured_by_its_name_or_as_it_is(trained, loaded):
    dataset, ids = trained / "prepared", ["000007", "000009"]
    named = evaluate(str(trained / "model"), dataset, "test", dissimilar_ids=ids)
    assert evaluate(loaded[0], dataset, "test", processor=loaded[1], dissimilar_ids=ids) == named
    assert evaluate(loaded[0], dataset, "test", "all-strict")["retrieval"].keys() == {"all-strict"}
    assert json.loads(json.dumps(named)) == named
    assert named["all_captions"]["all"]["clips"] == 4 and 0 < named["all_captions"]["all"]["Rsum"] <= 1000
    assert (named["model"], named["dataset"], named["split"]) == (str(trained / "model"), str(dataset), "test")
    assert named["retrieval_words"] and named["lexical"]["text_active_words"] > 0
    for protocol, row in named["retrieval"].items():
        size = 2 if protocol == "dissimilar" else 4
        assert protocol in PROTOCOLS and (row["protocol"], row["gallery_size"]) == (protocol, size) and row["ties"]


def test_the_ridge_floor_is_measured_without_a_model(trained):
    found = evaluate_ridge_floor(trained / "prepared", "test", penalty=10.0)
    assert found["model"].endswith("10") and found["retrieval"].keys() == {"all-strict", "all-duplicates"}
    assert found["retrieval"]["all-strict"]["gallery_size"] == 4


def test_a_tower_is_probed_against_random_weights(trained, tmp_path, capsys):
    found = evaluate_probe(trained / "model", trained / "prepared", "test", penalty=10.0, seeds=2)
    assert json.loads(json.dumps(found)) == found and len(found["untrained"]) == 2
    rsum = [probe["all_captions"]["all"]["Rsum"] for probe in (found["trained"], *found["untrained"])]
    assert found["difference"]["mean"] == pytest.approx(rsum[0] - sum(rsum[1:]) / 2, abs=0.01)
    assert found["difference"]["low"] <= found["difference"]["mean"] <= found["difference"]["high"]
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", "probe", "--model", str(trained / "model"), "--dataset", str(trained / "prepared"),
              "--split", "test", "--seeds", "1", "--output", str(tmp_path / "probe.json")])  # fmt: skip
    printed = capsys.readouterr().out
    assert ended.value.code == 0 and "this tower" in printed and "random weights" in printed
    assert json.loads((tmp_path / "probe.json").read_text())["split"] == "test"


def test_the_student_of_phase_ii_is_probed(processor, configs, tmp_path):
    model = LexMotionForContrastiveMaskedMotion(configs[1])
    model.motion_model.set_active_words(processor.lexicon.active_ids)
    with torch.no_grad():
        model.motion_model.encoder.norm.bias += 1.0
    bind_processor(model, processor)
    save_model(model, processor, tmp_path / "cmmm" / "model")
    encoder, found = load_motion_encoder(tmp_path / "cmmm")
    assert torch.equal(encoder.norm.bias, model.motion_model.encoder.norm.bias)
    assert found.feature_extractor.statistics_hash == processor.feature_extractor.statistics_hash
    with pytest.raises(FileNotFoundError, match="'.*nowhere'.*cmmm"):
        load_motion_encoder(tmp_path / "nowhere")
    text = LexMotionForLexicalMaskedLM(configs[0])
    text.text_model.set_active_words(torch.tensor(processor.lexicon.active_ids))
    bind_processor(text, processor)
    save_model(text, processor, tmp_path / "lexmlm")
    with pytest.raises(ValueError, match="LexMotionForLexicalMaskedLM has no motion tower.*phase ii"):
        load_motion_encoder(tmp_path / "lexmlm")


def test_a_split_without_events_has_no_order(trained):
    with pytest.raises(ValueError, match="events"):
        evaluate_order(trained / "model", trained / "prepared", "test")


def test_a_motion_is_explained_from_its_file_or_as_an_array(trained, loaded):
    file = trained / "new_joints" / "000003.npy"
    found = explain(trained / "model", file, text="a person walks 3 times", k=3)
    read, fps = read_motion_for(loaded[1], file)
    same = explain(loaded[0], read.model_input, "a person walks 3 times", loaded[1], fps, k=3)
    assert found.words == same.words and found.score == same.score
    assert np.array_equal(found.maps, same.maps)


def test_a_corpus_is_encoded_by_name_or_as_it_is(trained, loaded, tmp_path):
    one = encode(trained / "model", trained / "prepared", tmp_path / "named", splits=["test"])
    encode(loaded[0], str(trained / "prepared"), tmp_path / "loaded", splits=["test"], processor=loaded[1])
    named, as_it_is = (load_encoded(tmp_path / name) for name in ("named", "loaded"))
    assert (one.total("motions"), one.total("captions")) == named.motion_embeds.shape[:1] + named.text_embeds.shape[:1]
    assert named.motion_ids == as_it_is.motion_ids and (named.motion_embeds != as_it_is.motion_embeds).nnz == 0


def test_mistakes_are_said_with_their_remedy(model, trained, tmp_path):
    with pytest.raises(ValueError, match="LexMotionModel.*processor="):
        ready_model(model)
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}.*lexmotion train"):
        ready_model(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere.*lexmotion train"):
        evaluate("./nowhere", trained / "prepared", "test")


@pytest.mark.parametrize("file", sorted(Path(metrics.__file__).parent.glob("*.py")), ids=lambda file: file.stem)
def test_no_metric_takes_a_model(file):
    tree = ast.parse(file.read_text(encoding="utf-8"))
    public = [node for node in tree.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]
    names = {part.arg for node in public for part in ast.walk(node.args) if isinstance(part, ast.arg)}
    assert not names & {"model", "processor"}
    modules = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    modules |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert not any(module.split(".")[0] == "torch" or module.startswith("encoding") for module in modules)
    assert all(not module.startswith("lexmotion.") or module.startswith("lexmotion.processing.") for module in modules)
