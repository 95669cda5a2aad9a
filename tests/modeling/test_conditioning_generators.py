"""
Generators run unedited with the conditioner: stand-ins make the calls of MDM, T2M-GPT, MoMask and T2M.

What is run is what `docs/drop_in.md` says, command by command, from the folder of each stand-in.
"""

import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
import torch
from tiny import motion_config, text_config

from lexmotion import LexMotionConfig, LexMotionModel
from lexmotion.conditioning import ClipShim, LexMotionTextConditioner, T2MTextEncoder, install_clip_shim, run

STAND_INS = Path(__file__).parent / "stand_ins"
PAGE = (Path(__file__).resolve().parents[2] / "docs" / "drop_in.md").read_text(encoding="utf-8")
CAPTIONS = ["a person walks forward", "someone kicks with the left leg and then turns around slowly", ""]
OTHERS = ["jump", "a man waves", "run"]
PUBLISHED = ("clip", "model", "models", "networks", "train", "utils")


def blocks(heading: str, language: str = "python") -> list[str]:
    """The blocks of code below a heading."""
    section = re.search(rf"^##+ {re.escape(heading)}$(.*?)(?=^#|\Z)", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert section, f"docs/drop_in.md has no heading {heading!r}"
    return re.findall(rf"```{language}\n(.*?)```", section.group(1), flags=re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_tokenizer):
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    model = LexMotionModel(LexMotionConfig(text_config=text_config(), motion_config=motion_config()))
    with torch.no_grad():
        model.text_model.word_embeddings.normal_()
    model.save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def published(monkeypatch):
    """Work in the folder of a stand-in, and leave no module of it behind."""

    def forget():
        for name in [name for name in sys.modules if name.split(".")[0] in PUBLISHED]:
            monkeypatch.delitem(sys.modules, name)

    def enter(name: str) -> None:
        monkeypatch.chdir(STAND_INS / name)
        monkeypatch.syspath_prepend(STAND_INS / name)

    forget()
    yield enter
    for name in [name for name in sys.modules if name.split(".")[0] in PUBLISHED]:
        del sys.modules[name]


@pytest.fixture
def launch(folder, published, monkeypatch):
    """Run the command of a heading in the folder of a stand-in; returns the names that its program leaves."""

    def start(stand_in: str, heading: str) -> dict:
        published(stand_in)
        ran: dict = {}
        for name in ("run_path", "run_module"):
            original = getattr(runpy, name)
            monkeypatch.setattr(runpy, name, lambda *a, original=original, **k: ran.update(original(*a, **k)))
        monkeypatch.setattr(sys, "argv", [""])
        monkeypatch.setattr(sys, "path", ["", *sys.path])
        monkeypatch.setattr(run, "restore_removed_names", lambda: None)  # of the whole process
        (command,) = blocks(heading, "bash")
        words = shlex.split(command.replace("MODEL", str(folder)))
        assert words[:3] == ["python", "-m", "lexmotion.conditioning.run"]
        run.main(words[3:])
        return ran

    return start


def train_a_step(network, loss_of) -> None:
    """Forward, backward, optimiser step, with all that must hold of the text encoder meanwhile."""
    encoder = next(module for module in network.modules() if isinstance(module, LexMotionTextConditioner))
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    network.train()
    assert network.training and not any(module.training for module in encoder.modules())
    optimizer = torch.optim.AdamW(network.parameters_wo_clip(), lr=1e-3)
    losses = []
    for _ in range(4):
        torch.manual_seed(0)  # the same dropout
        loss = loss_of(network)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] and all(torch.tensor(losses).isfinite())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in encoder.parameters())
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    own = [name for name in network.state_dict() if not name.startswith("clip_model.")]
    assert own and len(network.state_dict()) == len(own) + len(before)


def resume(network, fresh) -> None:
    """Save without the text encoder and load as MDM does: only keys of it may be missing."""
    state = {name: value for name, value in network.state_dict().items() if not name.startswith("clip_model.")}
    missing, unexpected = fresh.load_state_dict(state, strict=False)
    assert not unexpected and missing and all(name.startswith("clip_model.") for name in missing)


@pytest.mark.parametrize("heading", ["MDM", "MDM with BERT"])
def test_mdm(launch, heading):
    ran = launch("mdm", heading)
    network, fresh = ran["network"], ran["fresh"]
    motion, target = torch.randn(2, 7, 3, 6)
    train_a_step(network, lambda network: (network(motion, CAPTIONS) - target).square().mean())
    network.eval()
    with torch.no_grad():
        output = network(motion, CAPTIONS)
        assert not torch.allclose(output, network(motion, OTHERS), atol=1e-4)
        resume(network, fresh)
        fresh.eval()
        torch.testing.assert_close(fresh(motion, CAPTIONS), output)


def test_mdm_with_bert_reads_the_states_of_the_tokens(launch, folder):
    states, padding = launch("mdm", "MDM with BERT")["network"].encode_text(CAPTIONS)
    expected, mask = LexMotionTextConditioner.from_pretrained(folder).encode_tokens(CAPTIONS)
    torch.testing.assert_close(states, expected.transpose(0, 1))
    assert torch.equal(padding, ~mask)


def test_mdm_reads_22_tokens(launch):
    network = launch("mdm", "MDM")["network"]
    words = "walk run jump kick wave turn step sit stand raise " * 3
    twenty = " ".join(words.split()[:20])
    vectors, _ = network.encode_text([words, twenty, " ".join(words.split()[:19])])
    assert vectors.shape == (1, 3, 512)
    assert torch.equal(vectors[0, 0], vectors[0, 1]) and not torch.allclose(vectors[0, 0], vectors[0, 2])


def test_t2m_gpt(launch, folder):
    ran = launch("t2m_gpt", "T2M-GPT")
    encoder = ran["clip_model"]
    assert isinstance(encoder, LexMotionTextConditioner) and ran["losses"][-1] < ran["losses"][0]
    assert all(parameter.grad is None for parameter in encoder.parameters())
    own = LexMotionTextConditioner.from_pretrained(folder)
    assert all(torch.equal(value, own.state_dict()[name]) for name, value in encoder.state_dict().items())
    vectors = encoder.encode_text(ran["clip"].tokenize(ran["clip_text"]))
    torch.testing.assert_close(vectors, own.encode_text(ran["clip_text"]), atol=1e-5, rtol=1e-4)
    with torch.no_grad():
        logits = [ran["network"](ran["codes"][:, :-1], own.encode_text(texts)) for texts in (CAPTIONS, OTHERS)]
    assert not torch.allclose(*logits, atol=1e-4)


@pytest.mark.parametrize(("kind", "shape"), [("MaskTransformer", (3, 5)), ("ResidualTransformer", (3, 5, 2))])
def test_momask(launch, kind, shape):
    network, fresh = launch("momask", "MoMask")["networks"][kind]
    ids = torch.randint(8, shape)
    target = torch.randint(8, (3 * 5,))
    train_a_step(
        network,
        lambda network: torch.nn.functional.cross_entropy(network(ids, CAPTIONS).flatten(0, 1), target),
    )
    network.eval()
    output = network(ids, CAPTIONS)
    assert not torch.allclose(output, network(ids, OTHERS), atol=1e-4)
    resume(network, fresh)
    torch.testing.assert_close(fresh.eval()(ids, CAPTIONS), output)


def test_t2m(launch, folder):
    ran = launch("t2m", "T2M")
    encoder, own = ran["text_enc"], LexMotionTextConditioner.from_pretrained(folder)
    assert isinstance(encoder, T2MTextEncoder) and ran["losses"][-1] < ran["losses"][0]
    assert encoder.training and not any(module.training for module in encoder.clip_model.modules())
    assert all(parameter.grad is None for parameter in encoder.clip_model.parameters())
    assert all(torch.equal(value, own.state_dict()[name]) for name, value in encoder.clip_model.state_dict().items())
    assert encoder.word_head.weight.grad.any() and encoder.sentence_head.weight.grad.any()

    with torch.no_grad():
        words, sentences, movements = ran["generate"](ran["batch"])
        others = ran["generate"](ran["collate"](["left/ADJ"] * 3, ran["w_vectorizer"]))[2]
    assert words.shape == (3, 6, 1024) and sentences.shape == (3, 1024)  # 4 words, start and end
    assert not words[1, 5].any() and not words[2, 3:].any() and words[2, 2].any()
    assert not torch.allclose(movements, others, atol=1e-4)
    assert encoder.read(*ran["batch"][::2]) == [
        ["a", "person", "walks", "forward"],
        ["person", "cartwheel", "[UNK]"],
        ["jump"],
    ]
    expected = own.encode_text(["a person walks forward", "person cartwheel [UNK]", "jump"])
    with torch.no_grad():
        torch.testing.assert_close(sentences, encoder.sentence_head(expected), atol=1e-4, rtol=1e-3)


def test_a_checkpoint_of_t2m_contains_its_encoder(folder):
    table = {word: torch.randn(4).numpy() for word in ("walk", "jump", "unk")}
    encoder, other = (T2MTextEncoder(LexMotionTextConditioner.from_pretrained(folder), table) for _ in range(2))
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1)
    batch = torch.from_numpy(table["walk"]).expand(1, 3, 4), None, torch.tensor([3])
    expected = encoder(*batch)[1]
    assert not torch.allclose(other(*batch)[1], expected)
    other.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(other(*batch)[1], expected)


def test_t2m_with_vectors_of_another_table(folder, published):
    conditioner = LexMotionTextConditioner.from_pretrained(folder)
    encoder = T2MTextEncoder(conditioner, {"walk": torch.ones(4).numpy(), "unk": torch.zeros(4).numpy()})
    with pytest.raises(ValueError, match=r"(?i)word 1\b.*caption 0\b.*WordVectorizer\.word2vec"):
        encoder(torch.full((1, 3, 4), 2.0), torch.zeros(1, 3, 15), torch.tensor([3]))
    with pytest.raises(ValueError, match=r"word_vectors.*\(3,\), \(4,\)"):
        T2MTextEncoder(conditioner, {"walk": torch.ones(4).numpy(), "unk": torch.zeros(3).numpy()})


# ---------------------------------------------------------------------------------------------------------- the shim


def test_tokenize_answers_as_clip_does(folder):
    shim = ClipShim(folder)
    table = shim.tokenize(CAPTIONS)
    assert table.shape == (3, 77) and table.dtype == torch.int32
    assert shim.tokenize("jump", context_length=5).tolist() == [[*shim.tokenize("jump")[0, :5].tolist()]]
    with pytest.raises(RuntimeError, match=r"\b6\b.*\b4\b.*truncate=True"):
        shim.tokenize(["jump", CAPTIONS[0]], context_length=4)
    cut = shim.tokenize([CAPTIONS[0]], context_length=4, truncate=True)[0].tolist()
    assert cut[:3] == table[0, :3].tolist() and cut[3] == shim.tokenize("jump")[0, 2]  # [SEP] stays


def test_the_shim_is_gone_after_its_block(folder, published, monkeypatch):
    monkeypatch.setitem(sys.modules, "clip", other := type(sys)("clip"))
    with install_clip_shim(folder) as shim:
        import clip
        import clip.model

        assert clip is shim and clip.model is sys.modules["clip.model"]
        model, preprocess = clip.load("ViT-B/32", device="cpu", jit=False)
        state = {name: value.clone() for name, value in model.state_dict().items()}
        clip.model.convert_weights(model)
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
        with pytest.raises(NotImplementedError, match="image"):
            preprocess("a picture")
    assert sys.modules["clip"] is other and "clip.model" not in sys.modules


def test_the_shim_takes_a_conditioner_and_gives_copies(folder):
    conditioner = LexMotionTextConditioner.from_pretrained(folder, dim=24)
    shim = ClipShim(conditioner)
    first, second = shim.load()[0], shim.load()[0]
    assert first is not second and first is not conditioner and first.encode_text(CAPTIONS).shape == (3, 24)
    with pytest.raises(ValueError, match=r"\bdim\b"):
        ClipShim(conditioner, dim=12)


def test_padding_must_be_zero(folder):
    conditioner = LexMotionTextConditioner.from_pretrained(folder)
    conditioner.tokenizer.pad_token = "[UNK]"
    with pytest.raises(ValueError, match=r"padding.*\b0\b.*\b1\b"):
        ClipShim(conditioner)


def test_what_the_page_says_of_saving(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"MODEL": str(folder), "captions": [*CAPTIONS, *OTHERS]}
    exec(blocks("What the vector is")[0], names)
    vectors = ClipShim("conditioner").load()[0].encode_text(CAPTIONS)
    assert torch.equal(vectors, names["conditioner"].encode_text(CAPTIONS))


def test_what_the_page_says_of_python(folder, published):
    names = {"MODEL": str(folder)}
    exec(blocks("From Python")[0], names)
    assert names["vectors"].shape == (1, 512) and names["sequence"].shape == (1, 1, 768)
    torch.testing.assert_close(names["encoder"].encode_text(["a person walks forward"]), names["sequence"][:, 0])
    sys.modules["clip"].remove()


# ------------------------------------------------------------------------------------------- other models, other uses


OPENAI = {
    "__init__.py": "from .clip import *\n",
    "clip.py": """
import torch
from . import model
from .model import build_model
def available_models(): return ["ViT-B/32", "ViT-B/16"]
def load(name, device="cpu", jit=False): return build_model(name), None
def tokenize(texts, context_length=77, truncate=False):
    table = torch.zeros(len(texts), context_length, dtype=torch.int64)
    for place, text in enumerate(texts):
        ids = [49406, *(len(word) for word in text.split()), 49407][:context_length]
        table[place, : len(ids)] = torch.tensor(ids)
    return table
""",
    "model.py": """
import torch
def build_model(name):
    network = torch.nn.Module()
    network.name, network.token_embedding = name, torch.nn.Embedding(49408, 2)
    return network
def convert_weights(network): network.half()
""",
    "simple_tokenizer.py": "WORDS = 49408\n",
}


@pytest.fixture
def openai_clip(tmp_path, monkeypatch):
    """A package that looks as OpenAI's does, first on the path."""
    (tmp_path / "clip").mkdir()
    for name, code in OPENAI.items():
        (tmp_path / "clip" / name).write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in [name for name in sys.modules if name.startswith("openai_clip_behind_lexmotion")]:
        del sys.modules[name]


def test_other_models_and_other_uses_pass_through(folder, published, openai_clip):
    with install_clip_shim(folder) as shim:
        import clip
        import clip.simple_tokenizer

        ours, _ = clip.load("ViT-B/32", device="cpu")
        vectors = ours.encode_text(clip.tokenize(CAPTIONS))
        theirs, _ = clip.load("ViT-B/16", device="cpu")
        ids = clip.tokenize(CAPTIONS)
        assert ids[0].max() == 49407 and theirs.token_embedding(ids).shape == (3, 77, 2)
        assert torch.equal(ours.encode_text(ids), vectors)
        assert torch.equal(clip.load("ViT-B/32", device="cpu")[0].encode_text(ids), vectors)
        for model in (ours, theirs):
            clip.model.convert_weights(model)
        assert theirs.token_embedding.weight.dtype == torch.float16 and ours.dtype == torch.float32
        assert clip.simple_tokenizer.WORDS == 49408 and clip.model.build_model("x").name == "x"
        assert clip.available_models() == ["ViT-B/32", "ViT-B/16"] and shim.unused() == []


def test_other_models_and_other_uses_end_in_one_line_without_openai(folder, monkeypatch):
    shim = ClipShim(folder, replaced=["ViT-L/14"])
    monkeypatch.setattr(sys, "path", [])
    model = shim.load("ViT-L/14", device="cpu")[0]
    for call, error, message in [
        (lambda: shim.load("ViT-B/16"), RuntimeError, r"'ViT-B/16'.*ViT-L/14 only.*install.*--replace"),
        (lambda: shim.simple_tokenizer, AttributeError, "simple_tokenizer.*install"),
        (lambda: shim.model.CLIP, AttributeError, "clip.model.CLIP.*install"),
        (lambda: model.token_embedding, AttributeError, r"clip_model\.token_embedding.*not replaced"),
        (lambda: model.visual, AttributeError, r"clip_model\.visual.*not replaced"),
    ]:
        with pytest.raises(error, match=message) as raised:
            call()
        assert "\n" not in str(raised.value)
    assert not hasattr(model, "logit_scale") and shim.tokenize(CAPTIONS).shape == (3, 77)
    assert shim.unused() == [] and shim.available_models() == ["ViT-L/14"]


def test_a_length_estimator_of_clip_is_refused(folder, monkeypatch):
    class LengthEstimator(torch.nn.Linear):
        pass

    module = type(sys)("models.length")
    module.LengthEstimator = LengthEstimator
    monkeypatch.setitem(sys.modules, "models.length", module)
    estimator, vectors = LengthEstimator(512, 50), torch.ones(1, 512)
    with install_clip_shim(folder) as shim:
        shim.load(device="cpu")
        shim.load(device="cpu")
        assert estimator(vectors).shape == (1, 50)  # in training
        with pytest.raises(RuntimeError, match="--motion_length.*--own-lengths"):
            estimator.eval()(vectors)
    assert estimator(vectors).shape == (1, 50)
    with install_clip_shim(folder, own_lengths=True) as shim:
        shim.load(device="cpu")
        assert estimator(vectors).shape == (1, 50)


def test_no_captions_are_no_vectors(folder):
    shim = ClipShim(folder)
    assert (ids := shim.tokenize([])).shape == (0, 77)
    assert shim.load(device="cpu")[0].encode_text(ids).shape == (0, 512)


def test_models_of_transformers_are_replaced_by_name(folder):
    from transformers import AutoModel, AutoTokenizer

    before = AutoModel.from_pretrained, AutoTokenizer.from_pretrained
    names = ["./deps/clip-vit-large-patch14", "bert-base-uncased"]
    with install_clip_shim(folder, replaced=names, dim=768) as shim:
        tokenizer, model = AutoTokenizer.from_pretrained(names[0]), AutoModel.from_pretrained(names[0])
        inputs = tokenizer(CAPTIONS, padding="max_length", truncation=True, max_length=tokenizer.model_max_length)
        assert (
            inputs.input_ids.shape == (3, tokenizer.model_max_length) and model.config.text_config.hidden_size == 768
        )
        features = model.get_text_features(inputs.input_ids).unsqueeze(1)  # as MLD does
        assert features.shape == (3, 1, 768)
        torch.testing.assert_close(features[:, 0], shim.new_encoder().encode_text(CAPTIONS))
        hidden = model.text_model(**inputs.to(model.device)).last_hidden_state
        assert hidden.shape == (3, tokenizer.model_max_length, model.config.hidden_size)
        assert hidden[inputs.attention_mask.bool()].any() and not hidden[~inputs.attention_mask.bool()].any()
        assert shim.unused() == names[1:]
        with pytest.raises((OSError, ValueError)):
            AutoModel.from_pretrained("./nothing/here")
    assert (AutoModel.from_pretrained, AutoTokenizer.from_pretrained) == before


# ------------------------------------------------------------------------------------------------------- the launcher


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "runs/small/model", "train.py"], "no model folder 'runs/small/model' in {here}"),
        (["--model", "MODEL", "nothing.py"], "nothing.py: no such script in {here}"),
        (["--model", "MODEL", "tools.nothing"], "tools.nothing: no such module in {here}"),
    ],
)
def test_the_launcher_says_what_is_missing_and_where(folder, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text("raise AssertionError")
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    monkeypatch.setattr(run, "restore_removed_names", lambda: None)
    with pytest.raises(SystemExit) as stop:
        run.main([str(folder) if word == "MODEL" else word for word in words])
    assert stop.value.code.startswith("error: " + message.format(here=tmp_path))


def test_a_program_sees_its_own_arguments_and_folder(folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "show.py").write_text("import sys\nprint(__name__, sys.argv[1:], sys.path[0])")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [""])
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    monkeypatch.setattr(run, "restore_removed_names", lambda: None)
    run.main(["--model", str(folder), "tools/show.py", "--model", "x", "--help"])
    shown = capsys.readouterr()
    assert shown.out.strip() == f"__main__ ['--model', 'x', '--help'] {tmp_path / 'tools'}"
    assert "ViT-B/32 was never loaded" in shown.err and "clip" not in sys.modules
