"""
Generators run unedited with the conditioner: stand-ins make the calls of MDM, T2M-GPT, MoMask and T2M.

What is run is what `docs/drop_in.md` says, block by block, from the folder of each stand-in.
"""

import re
import runpy
import sys
from pathlib import Path

import pytest
import torch
from tiny import motion_config, text_config

from lexmotion import LexMotionConfig, LexMotionModel
from lexmotion.conditioning import ClipShim, LexMotionTextConditioner, T2MTextEncoder, install_clip_shim

STAND_INS = Path(__file__).parent / "stand_ins"
PAGE = (Path(__file__).resolve().parents[2] / "docs" / "drop_in.md").read_text(encoding="utf-8")
CAPTIONS = ["a person walks forward", "someone kicks with the left leg and then turns around slowly", ""]
OTHERS = ["jump", "a man waves", "run"]
PUBLISHED = ("clip", "model", "models", "networks", "utils")


def blocks(heading: str) -> list[str]:
    """The Python blocks below a heading that begins so."""
    section = re.search(rf"^## {re.escape(heading)}(?: .*?)?$(.*?)(?=^## |\Z)", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert section, f"docs/drop_in.md has no heading {heading!r}"
    return re.findall(r"```python\n(.*?)```", section.group(1), flags=re.DOTALL)


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


def run_page(heading: str, folder, place: int = 0) -> dict:
    names = {"MODEL": str(folder)}
    exec(compile(blocks(heading)[place], f"docs/drop_in.md: {heading}", "exec"), names)
    return names


def train_a_step(network, loss_of) -> None:
    """Forward, backward, optimiser step, with all that must hold of the text encoder meanwhile."""
    encoder = network.clip_model
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
def test_mdm(folder, published, heading):
    published("mdm")
    if heading == "MDM":
        mdm, options = run_page(heading, folder)["MDM"], {}
    else:
        sys.modules["clip"] = ClipShim(folder)  # which MDM imports even where it is not used
        mdm, options = run_page(heading, folder)["model"].mdm.MDM, {"text_encoder_type": "bert"}
    torch.manual_seed(0)
    network = mdm(**options)
    motion, target = torch.randn(2, 7, 3, 6)
    train_a_step(network, lambda network: (network(motion, CAPTIONS) - target).square().mean())
    network.eval()
    with torch.no_grad():
        output = network(motion, CAPTIONS)
        assert not torch.allclose(output, network(motion, OTHERS), atol=1e-4)
        fresh = mdm(**options)
        resume(network, fresh)
        fresh.eval()
        torch.testing.assert_close(fresh(motion, CAPTIONS), output)


def test_mdm_reads_22_tokens(folder, published):
    published("mdm")
    network = run_page("MDM", folder)["MDM"]()
    words = "walk run jump kick wave turn step sit stand raise " * 3
    twenty = " ".join(words.split()[:20])
    vectors, _ = network.encode_text([words, twenty, " ".join(words.split()[:19])])
    assert vectors.shape == (1, 3, 512)
    assert torch.equal(vectors[0, 0], vectors[0, 1]) and not torch.allclose(vectors[0, 0], vectors[0, 2])


def test_t2m_gpt(folder, published, monkeypatch):
    published("t2m_gpt")
    ran = {}
    run_path = runpy.run_path
    monkeypatch.setattr(runpy, "run_path", lambda *args, **kwargs: ran.update(run_path(*args, **kwargs)))
    run_page("T2M-GPT", folder)
    encoder = ran["clip_model"]
    assert isinstance(encoder, LexMotionTextConditioner) and ran["losses"][-1] < ran["losses"][0]
    assert all(parameter.grad is None for parameter in encoder.parameters())
    own = LexMotionTextConditioner.from_pretrained(folder)
    assert all(torch.equal(value, own.state_dict()[name]) for name, value in encoder.state_dict().items())
    vectors = encoder.encode_text(sys.modules["clip"].tokenize(ran["clip_text"]))
    torch.testing.assert_close(vectors, own.encode_text(ran["clip_text"]), atol=1e-5, rtol=1e-4)
    with torch.no_grad():
        logits = [ran["network"](ran["codes"][:, :-1], own.encode_text(texts)) for texts in (CAPTIONS, OTHERS)]
    assert not torch.allclose(*logits, atol=1e-4)


@pytest.mark.parametrize(("kind", "shape"), [("MaskTransformer", (3, 5)), ("ResidualTransformer", (3, 5, 2))])
def test_momask(folder, published, kind, shape):
    published("momask")
    names = run_page("MoMask", folder)
    torch.manual_seed(0)
    network = names[kind]()
    ids = torch.randint(8, shape)
    target = torch.randint(8, (3 * 5,))
    train_a_step(
        network,
        lambda network: torch.nn.functional.cross_entropy(network(ids, CAPTIONS).flatten(0, 1), target),
    )
    network.eval()
    output = network(ids, CAPTIONS)
    assert not torch.allclose(output, network(ids, OTHERS), atol=1e-4)
    fresh = names[kind]()
    resume(network, fresh)
    torch.testing.assert_close(fresh.eval()(ids, CAPTIONS), output)


def test_t2m(folder, published):
    published("t2m")
    run_page("T2M", folder)
    ran = runpy.run_path("train_comp.py")
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


def test_the_page_has_five_lines_for_each_generator():
    headings = [heading for heading in re.findall(r"^## (.*)$", PAGE, flags=re.MULTILINE) if "What" not in heading]
    assert [heading.split(" (")[0] for heading in headings] == ["MDM", "MDM with BERT", "T2M-GPT", "MoMask", "T2M"]
    for heading in headings:
        lines = [line for block in blocks(heading.split(" (")[0]) for line in block.splitlines() if line]
        assert 0 < len(lines) <= 5, heading
