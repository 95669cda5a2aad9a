"""Files of a saved model: damage is named, edits have a remedy, and nothing asks whether to run a folder's code."""

import ast
import builtins
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lexmotion import LexMotionFeatureExtractor, LexMotionProcessor, LexMotionTextConfig, LexMotionTextModel
from lexmotion.checksums_lexmotion import CHECKSUMS, check_checksums, write_checksums
from lexmotion.common.pretrained import loading_from
from lexmotion.evaluation.loading import load_model, load_processor

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder of a text model, with its checksums."""
    folder = tmp_path_factory.mktemp("saved")
    encoder = {"model_type": "bert", "vocab_size": 30, "hidden_size": 8, "num_hidden_layers": 1}
    config = LexMotionTextConfig(encoder_config=encoder | {"num_attention_heads": 1, "intermediate_size": 8})
    config.encoder_config._name_or_path = "/home/me/bert"
    LexMotionTextModel(config).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / "model"))


def processor_of(tokenizer, **fields):
    return LexMotionProcessor(LexMotionFeatureExtractor(**fields), tokenizer)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", CHECKSUMS])
def test_a_flipped_bit_of_a_model_is_named(folder, name):
    for place in (0.3, 0.9):
        content = bytearray((folder / name).read_bytes())
        content[int(place * len(content))] ^= 1
        (folder / name).write_bytes(content)
        with pytest.raises(ValueError, match=r"model/[\w.]+: .*(restore|delete)"):
            LexMotionTextModel.from_pretrained(folder)


def test_a_missing_file_is_named_and_others_may_be_added(folder):
    (folder / "README.md").write_text("mine")
    check_checksums(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"model\.safetensors: missing"):
        check_checksums(folder)


def test_edits_are_accepted_without_checksums_and_after_saving_again(folder):
    config = json.loads((folder / "config.json").read_text()) | {"top_k": 3}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=rf"config\.json.*{CHECKSUMS}"):
        LexMotionTextModel.from_pretrained(folder)
    (folder / CHECKSUMS).unlink()
    model = LexMotionTextModel.from_pretrained(folder)
    assert model.config.top_k == 3
    model.config.top_k = 4
    model.save_pretrained(folder)
    assert LexMotionTextModel.from_pretrained(folder).config.top_k == 4


@pytest.mark.parametrize("content", ['{"../../x": "0"}', '{"a": 1}', "[]"])
def test_checksums_of_another_form_are_refused(folder, content):
    (folder / CHECKSUMS).write_text(content)
    with pytest.raises(ValueError, match=rf"{CHECKSUMS}: damaged"):
        check_checksums(folder)


def test_a_processor_saved_over_another_is_not_compared_with_it(folder, tiny_tokenizer):
    processor_of(tiny_tokenizer).save_pretrained(folder)
    write_checksums(folder)
    assert {"tokenizer.json", "processor_config.json"} <= json.loads((folder / CHECKSUMS).read_text()).keys()
    processor_of(tiny_tokenizer, max_frames=32).save_pretrained(folder)
    check_checksums(folder)
    LexMotionTextModel.from_pretrained(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(folder, value):
    (folder / CHECKSUMS).unlink()
    weights = load_file(folder / "model.safetensors")
    weights["lexical_head.dense.bias"][2] = torch.tensor(value)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"1 of 8 values of lexical_head\.dense\.bias"):
        LexMotionTextModel.from_pretrained(folder)


def test_damaged_ids_of_words_and_missing_weights_are_named(folder):
    (folder / CHECKSUMS).unlink()
    weights = load_file(folder / "model.safetensors")
    weights["lexical_head.active_ids"][2] = 99
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="active_ids"):
        LexMotionTextModel.from_pretrained(folder)
    weights["lexical_head.active_ids"][2] = 2
    weights["lexical_head.dense.biaz"] = weights.pop("lexical_head.dense.bias")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"1 weights are missing, including lexical_head\.dense\.bias"):
        load_model(folder)


def test_no_local_folder_is_saved(saved):
    assert "/home/me" not in (saved / "config.json").read_text()


CLASSES = [
    ("config.json", {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config"}}),
    ("processor_config.json", {"processor_class": "Evil", "auto_map": {"AutoProcessor": "evil.Processor"}}),
    ("tokenizer_config.json", {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}}),
]


@pytest.mark.parametrize(("name", "content"), CLASSES)
def test_code_of_a_folder_is_named_and_nobody_is_asked(folder, name, content, tiny_tokenizer, monkeypatch):
    monkeypatch.setattr(builtins, "input", lambda *_: pytest.fail("asked"))
    processor_of(tiny_tokenizer).save_pretrained(folder)
    (folder / CHECKSUMS).unlink()
    known = json.loads((folder / name).read_text()) if (folder / name).is_file() else {}
    (folder / name).write_text(json.dumps(known | content))
    load = load_model if name == "config.json" else load_processor
    with pytest.raises(ValueError, match=rf"{name} names the class 'evil\.\w+'.*never run"):
        load(folder)


def test_every_class_found_by_name_is_loaded_without_the_code_of_the_folder():
    rooms = ("modeling_lexmotion", "processing", "training", "evaluation", "hub_cards")
    texts = {file: file.read_text(encoding="utf-8") for room in rooms for file in (ROOT / room).rglob("*.py")}
    free = [
        f"{file.relative_to(ROOT)}:{node.lineno}"
        for file, text in texts.items()
        if re.search(r"Auto\w+\.from_pretrained", text)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).startswith("Auto")
        and ast.unparse(node.func).endswith(".from_pretrained")
        and not any(word.arg == "trust_remote_code" or word.arg is None for word in node.keywords)
    ]
    assert free == []


ERRORS = [KeyError("x"), RuntimeError("a\nb " * 99), ValueError("long " * 99), json.JSONDecodeError("x", "", 0)]


@pytest.mark.parametrize("error", ERRORS)
def test_an_error_of_another_library_is_one_short_line(error):
    with pytest.raises(ValueError, match="there: cannot be loaded") as raised, loading_from("there"):
        raise error
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 500
