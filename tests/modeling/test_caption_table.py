"""Tables of captions: the copy of `clip` beside one answers as the model does, in old environments too."""

import ast
import importlib.util
import sys

import numpy as np
import pytest
import torch
from test_conditioning_generators import folder  # noqa: F401

from lexmotion import encode_captions
from lexmotion.conditioning import ClipShim, LexMotionTextConditioner, clip_table, save_caption_table
from lexmotion.evaluation.encoding import captions as reading

LONG = "someone kicks with the left leg and then turns around slowly and then walks forward and sits down on the left"
CAPTIONS = ["a person walks forward", LONG, "jump"]
# All of torch that the copy may use: what torch 1.7 has.
OLD_TORCH = {"arange", "cuda", "device", "from_numpy", "int32", "int64", "nn", "tensor", "zeros"}
OLD_NN = {"Module", "Parameter", "functional", "utils"}


@pytest.fixture(scope="module")
def conditioner(folder):  # noqa: F811
    return LexMotionTextConditioner.from_pretrained(folder)


@pytest.fixture(scope="module")
def table(conditioner, tmp_path_factory):
    """A table with states of tokens; never changed."""
    path = tmp_path_factory.mktemp("table") / "captions.npz"
    save_caption_table(conditioner, CAPTIONS, path, tokens=True)
    return path


@pytest.fixture
def clip(table, monkeypatch):
    """`import clip`, as a program in the folder of the copy would."""
    for name in ("clip", "clip.model"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    spec = importlib.util.spec_from_file_location("clip", table.with_name("clip.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules["clip"] = module
    spec.loader.exec_module(module)
    yield sys.modules["clip"]
    sys.modules["clip"].remove()
    sys.modules.pop("clip", None)


def padded(clip, captions):
    """Token ids as MDM makes them: 22, then zeros."""
    ids = clip.tokenize(captions, context_length=22, truncate=True)
    return torch.cat([ids, torch.zeros(len(captions), 55, dtype=ids.dtype)], dim=1)


def test_the_copy_answers_as_the_model_does(clip, conditioner):
    shim = ClipShim(conditioner)
    model, ours = clip.load("ViT-B/32", device="cpu", jit=False)[0], shim.load(device="cpu")[0]
    sys.modules["clip.model"].convert_weights(model)
    texts = [*CAPTIONS, "", "  a person   walks forward\n"]
    for ids, same in [(clip.tokenize(texts), shim.tokenize(texts)), (padded(clip, texts), padded(shim, texts))]:
        assert torch.equal(ids, same)
        torch.testing.assert_close(model.encode_text(ids), ours.encode_text(ids), atol=1e-5, rtol=1e-4)
        (states, mask), (expected, same) = model.encode_tokens(ids), ours.encode_tokens(ids)
        assert torch.equal(mask, same)
        torch.testing.assert_close(states, expected, atol=2e-3, rtol=2e-3)
    assert clip.tokenize([]).shape == (0, 77) and model.encode_text(clip.tokenize([])).shape == (0, 512)
    assert not torch.allclose(model.encode_text(padded(clip, [LONG])), model.encode_text(clip.tokenize([LONG])))
    assert all(not parameter.requires_grad for parameter in model.parameters())


def test_what_the_copy_refuses(clip, table, monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    model = clip.load("ViT-B/32", device="cpu")[0]
    for call, error, message in [
        (lambda: clip.tokenize("fly"), ValueError, f"'fly'.*{table}.*encode-captions.*--captions FILE"),
        (lambda: clip.tokenize(LONG, context_length=20), RuntimeError, r"\b23\b.*\b20\b.*truncate=True"),
        (lambda: model.encode_text(clip.tokenize(LONG, 20, True)), ValueError, r"\b20\b.*--context-length"),
        (lambda: clip.load("ViT-B/16"), RuntimeError, "'ViT-B/16'.*install"),
        (lambda: model.token_embedding, AttributeError, r"clip_model\.token_embedding"),
    ]:
        with pytest.raises(error, match=message) as raised:
            call()
        assert "\n" not in str(raised.value)


def test_the_copy_runs_in_old_environments(table):
    tree = ast.parse(table.with_name("clip.py").read_text(encoding="utf-8"), feature_version=(3, 6))
    imported = {
        alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    } | {node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported - sys.stdlib_module_names == {"numpy", "torch", "transformers"}  # the last with --replace only
    used = {
        (node.value.id, node.attr)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("torch", "nn")
    }
    assert {name for module, name in used if module == "torch"} <= OLD_TORCH
    assert {name for module, name in used if module == "nn"} <= OLD_NN
    assert not any(isinstance(node, ast.NamedExpr | ast.AnnAssign | ast.Match) for node in ast.walk(tree))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert all(not node.args.posonlyargs and node.returns is None for node in functions)


def test_the_copy_starts_programs(table, tmp_path, monkeypatch, capsys):
    (tmp_path / "train.py").write_text(
        "import sys, clip\n"
        "from transformers import AutoModel, AutoTokenizer\n"
        "ids = AutoTokenizer.from_pretrained('some/bert')(['jump', ''], padding=True).input_ids\n"
        "print(sys.argv[1:], AutoModel.from_pretrained('some/bert')(ids).last_hidden_state.shape)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [""])
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    monkeypatch.setattr(clip_table, "__file__", str(table.with_name("clip.py")))
    monkeypatch.setattr(clip_table, "TABLE", table.name)
    clip_table.main(["--replace", "some/bert", "train.py", "--lr", "1"])
    assert capsys.readouterr().out.strip() == "['--lr', '1'] torch.Size([2, 3, 768])"
    with pytest.raises(SystemExit, match="error: nothing.py: no such script"):
        clip_table.main(["nothing.py"])
    monkeypatch.setattr(clip_table, "TABLE", "gone.npz")
    with pytest.raises(SystemExit, match="error: .*gone.npz: no such table"):
        clip_table.main(["train.py"])


def test_a_second_run_adds_captions(conditioner, tmp_path):
    path = tmp_path / "captions.npz"
    first = save_caption_table(conditioner, CAPTIONS[:2], path)
    assert (first.captions, first.added, first.dim, first.tokens) == (3, 3, 512, False)
    again = save_caption_table(conditioner, [*CAPTIONS, CAPTIONS[2]], path)
    assert (again.captions, again.added) == (4, 1)
    with_tokens = save_caption_table(conditioner, [], path, tokens=True)
    assert with_tokens.tokens and with_tokens.added == 0
    whole = tmp_path / "whole" / "captions.npz"
    save_caption_table(conditioner, CAPTIONS, whole, tokens=True)
    with np.load(path) as found, np.load(whole) as expected:
        assert found.files == expected.files
        for name in found.files:
            if found[name].dtype.kind in "SU" or found[name].dtype.kind in "iu":
                assert np.array_equal(found[name], expected[name]), name
            else:
                np.testing.assert_allclose(found[name], expected[name], atol=2e-3)


def test_tables_that_are_refused(conditioner, folder, table, tmp_path):  # noqa: F811
    with pytest.raises(ValueError, match="captions.npz: was written with.*another output"):
        save_caption_table(LexMotionTextConditioner.from_pretrained(folder, dim=24), ["run"], table)
    with pytest.raises(ValueError, match=r"output.*table\.txt.*\.npz"):
        save_caption_table(conditioner, ["run"], tmp_path / "table.txt")
    with pytest.raises(ValueError, match=r"context_lengths.*\b2\b"):
        save_caption_table(conditioner, ["run"], tmp_path / "table.npz", context_lengths=[2])
    (tmp_path / "clip.py").write_text("import torch")
    with pytest.raises(FileExistsError, match="clip.py.*not written by LexMotion"):
        save_caption_table(conditioner, ["run"], tmp_path / "table.npz")
    np.savez(tmp_path / "other.npz", x=np.zeros(1))
    with pytest.raises(ValueError, match=r"other\.npz: not a caption table"):
        clip_table.CaptionTable(tmp_path / "other.npz")
    save_caption_table(conditioner, ["run"], tmp_path / "new" / "table.npz")
    plain = clip_table.CaptionTable(tmp_path / "new" / "table.npz")
    with pytest.raises(ValueError, match="no token states.*--tokens"):
        plain.encode_tokens(torch.tensor([[2, 3]]))


# ------------------------------------------------------------------------------------------------ where captions are


def test_captions_are_read_from_folders_files_and_corpora(conditioner, tmp_path, monkeypatch):
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "1.txt").write_text("a man runs#a/DET man/NOUN#0.0#0.0\n\nhe jumps #2 times\n", encoding="utf-8-sig")
    (texts / "2.txt").write_text("a man sits#a/DET#1.0#2.0")
    expected = ["a man runs", "he jumps ", "he jumps #2 times", "a man sits"]
    assert reading.read_captions(texts) == reading.read_captions(tmp_path) == expected
    (tmp_path / "more.txt").write_text("run\nwalk#60\r\n")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "report.json").write_text("{}")
    monkeypatch.setattr(reading, "load_prepared", lambda path: {"train": {"captions": [["kick"], ["a", "b"]]}})
    assert reading.read_captions(corpus) == ["kick", "a", "b"]
    report = encode_captions(conditioner, [texts, tmp_path / "more.txt", corpus], tmp_path / "t.npz")
    known = clip_table.CaptionTable(tmp_path / "t.npz").captions
    assert known == ["", "a man runs", "he jumps", "he jumps #2 times", "a man sits", "run", "walk", "walk#60", "kick",
                     "a", "b"]  # fmt: skip
    assert report.captions == len(known) and report.clip.is_file()


def test_sources_without_captions_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"'texts' in {tmp_path}"):
        reading.read_captions("texts")
    with pytest.raises(ValueError, match="has none"):
        reading.read_captions(tmp_path)
