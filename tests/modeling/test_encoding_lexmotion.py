"""Encoding is `forward` without its waste: the same vectors, sparse, in any order, window, precision and mode."""

import copy

import numpy as np
import pytest
import torch
from tiny import text_config
from transformers.dynamic_module_utils import get_imports

from lexmotion import LexMotionTextModel, encoding_lexmotion
from lexmotion.encoding_lexmotion import LinearMaps, encoding_dtype, exact_products, longest_first, usable_threads
from lexmotion.export.sparse_encoder import as_masked_lm, save_masked_lm
from lexmotion.lexical_head import LexicalHead

CAPTIONS = [
    "a person walks forward",
    "someone kicks with the left leg and then turns around slowly",
    "jump",
    "the man raises both hands up and down twice",
    "a person walks forward",
    "both arms around the head",
    "run",
]


def tower(active=None, **fields) -> LexMotionTextModel:
    torch.manual_seed(0)
    model = LexMotionTextModel(text_config(**fields))
    if active is not None:
        model.set_active_words(active)
    with torch.no_grad():
        model.encoder.get_input_embeddings().weight.normal_()
        model.lexical_head.bias.normal_(std=0.5)
    return model.eval()


@torch.no_grad()
def dense(model, tokenizer, texts) -> np.ndarray:
    tokens = tokenizer(texts, padding=True, return_tensors="pt")
    return model(tokens["input_ids"], tokens["attention_mask"]).text_embeds.float().numpy()


HEADS = {
    "all words": {},
    "active words": {"active": range(10, 90)},
    "top words": {"active": range(5, 95), "top_k": 6},
    "few words": {"active": range(5, 95), "min_words": 60, "top_k": 70},
    "vdr": {"active": range(10, 90), "head_kind": "vdr"},
    "vdr, top words": {"head_kind": "vdr", "top_k": 9},
    "distilbert": {"model_type": "distilbert"},
}


@pytest.mark.parametrize("fields", HEADS.values(), ids=list(HEADS))
def test_vectors_are_those_of_forward(tiny_tokenizer, fields):
    model = tower(**fields)
    found = model.encode_text(CAPTIONS, tiny_tokenizer, batch_size=2, precision="fp32")
    expected = dense(model, tiny_tokenizer, CAPTIONS)
    assert found.dtype == np.float32 and found.has_canonical_format and found.indices.dtype == np.int32
    assert np.array_equal(found.toarray() > 0, expected > 0) and found.nnz
    np.testing.assert_allclose(found.toarray(), expected, atol=2e-6)


def test_windows_and_batches_change_nothing(tiny_tokenizer, monkeypatch):
    model = tower()
    whole = model.encode_text(CAPTIONS, tiny_tokenizer, precision="fp32").toarray()
    monkeypatch.setattr(encoding_lexmotion, "CAPTION_WINDOW", 3)
    for size in (1, 2, 64):
        cut = model.encode_text(CAPTIONS, tiny_tokenizer, batch_size=size, precision="fp32").toarray()
        np.testing.assert_allclose(cut, whole, atol=2e-6)


def test_one_tokenizer_call_for_a_window(tiny_tokenizer):
    calls = []

    class Counted:
        pad_token_id = tiny_tokenizer.pad_token_id

        def __len__(self):
            return len(tiny_tokenizer)

        def __call__(self, texts, **options):
            calls.append(len(texts))
            return tiny_tokenizer(texts, **options)

    tower().encode_text(CAPTIONS, Counted(), batch_size=2)
    assert calls == [len(CAPTIONS)]


def test_no_vector_of_the_whole_vocabulary_is_built(tiny_tokenizer, monkeypatch):
    def refuse(*_):
        raise AssertionError("a (B, V) tensor was built")

    monkeypatch.setattr(LexicalHead, "scatter", refuse)
    assert tower(range(10, 90)).encode_text(CAPTIONS, tiny_tokenizer).shape == (len(CAPTIONS), 99)


def test_long_captions_are_cut(tiny_tokenizer):
    model = tower()
    long = " ".join(["walk"] * 200)
    found = model.encode_text([long], tiny_tokenizer, max_length=9, precision="fp32").toarray()
    np.testing.assert_allclose(found, dense(model, tiny_tokenizer, [" ".join(["walk"] * 7)]), atol=2e-6)


@pytest.mark.parametrize("frozen", [False, True], ids=["trainable", "frozen"])
def test_bf16_is_near_and_casts_a_weight_once(tiny_tokenizer, frozen, monkeypatch):
    model = tower().requires_grad_(not frozen)
    casts = []
    lower = LinearMaps._cast

    def counted(self, value):
        casts.append(isinstance(value, torch.nn.Parameter) and value not in self.weights)
        return lower(self, value)

    monkeypatch.setattr(LinearMaps, "_cast", counted)
    found = model.encode_text(CAPTIONS, tiny_tokenizer, batch_size=1, precision="bf16")
    assert sum(casts) == sum(len(list(m.parameters())) for m in model.modules() if isinstance(m, torch.nn.Linear))
    expected = dense(model, tiny_tokenizer, CAPTIONS)
    assert not np.array_equal(found.toarray(), expected)
    lengths = np.linalg.norm(expected, axis=1) * np.linalg.norm(found.toarray(), axis=1)
    assert ((found.toarray() * expected).sum(axis=1) / lengths).min() > 0.999


def test_weights_in_half_precision_are_used_as_they_are(tiny_tokenizer):
    model = tower().to(torch.bfloat16)
    found = model.encode_text(CAPTIONS, tiny_tokenizer).toarray()
    np.testing.assert_allclose(found, dense(model, tiny_tokenizer, CAPTIONS), atol=0.1)
    with pytest.raises(ValueError, match="dtype=torch.float32"):
        model.encode_text(CAPTIONS, tiny_tokenizer, precision="fp32")


def test_training_goes_on_undisturbed(tiny_tokenizer):
    """Mode, gradients and an autocast around the call are as before."""
    model = tower().train()
    tokens = tiny_tokenizer(CAPTIONS, padding=True, return_tensors="pt")
    with torch.autocast("cpu", torch.bfloat16):
        first = model.encode_text(CAPTIONS, tiny_tokenizer, precision="fp32")
        assert model.training
        model(tokens["input_ids"], tokens["attention_mask"]).text_embeds.sum().backward()
    assert all(weight.grad is not None for weight in model.encoder.encoder.parameters())
    second = model.eval().encode_text(CAPTIONS, tiny_tokenizer, precision="fp32")
    assert (first != second).nnz == 0
    with pytest.raises(ValueError, match=r"(?i)caption 1\b"):
        model.train().encode_text(["a person walks", "  "], tiny_tokenizer)
    assert model.training


MISTAKES = {
    "precision.*'half'.*auto, fp32, bf16": {"precision": "half"},
    r"batch_size\b.*\b0\b": {"batch_size": 0},
    "LexMotionTextModel.*processor=": {"processor": None},
}


@pytest.mark.parametrize(("message", "options"), MISTAKES.items(), ids=[next(iter(o)) for o in MISTAKES.values()])
def test_mistakes(tiny_tokenizer, message, options):
    with pytest.raises(ValueError, match=message):
        tower().encode_text(CAPTIONS, **({"processor": tiny_tokenizer} | options))


def test_what_is_no_text_is_refused(tiny_tokenizer):
    with pytest.raises(ValueError, match=r"caption 1\b.*\b3\b"):
        tower().encode_text(["walks", 3], tiny_tokenizer)


def test_a_foreign_tokenizer_is_refused(tiny_tokenizer):
    model = tower()
    model.config.encoder_config.vocab_size = 20
    with pytest.raises(ValueError, match=r"\b96\b.*\b20\b"):
        model.encode_text(CAPTIONS, tiny_tokenizer)


def test_a_tower_finds_the_tokenizer_saved_beside_it(tiny_tokenizer, tmp_path):
    model = tower()
    model.save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    loaded = LexMotionTextModel.from_pretrained(tmp_path)
    assert (loaded.encode_text(CAPTIONS) != model.encode_text(CAPTIONS, tiny_tokenizer)).nnz == 0
    (tmp_path / "tokenizer.json").unlink()  # it is read once
    assert loaded.encode_text(CAPTIONS).nnz


def test_scipy_is_asked_for_only_by_encoding(tiny_tokenizer, monkeypatch):
    assert "scipy" not in get_imports(encoding_lexmotion.__file__)
    monkeypatch.setattr(encoding_lexmotion, "sparse", None)
    with pytest.raises(ImportError, match="pip install scipy"):
        tower().encode_text(CAPTIONS, tiny_tokenizer)


# ---- the machine ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "expected"),
    [({"avx512_bf16"}, torch.bfloat16), ({"amx_bf16"}, torch.bfloat16), ({"avx512f"}, torch.float32)],
)
def test_auto_goes_by_the_processor(monkeypatch, flags, expected):
    monkeypatch.setattr(encoding_lexmotion, "_cpu", lambda: flags)
    assert encoding_dtype("auto", torch.device("cpu")) == expected
    assert encoding_dtype("fp32", torch.device("cpu")) == torch.float32
    assert encoding_dtype("bf16", torch.device("cpu")) == torch.bfloat16


def test_products_keep_float32_and_the_setting():
    torch.manual_seed(0)
    a, b = torch.randn(70, 130), torch.randn(130, 50)
    before = torch.backends.mkldnn.matmul.fp32_precision
    with exact_products():
        product = a @ b
    assert torch.backends.mkldnn.matmul.fp32_precision == before
    torch.testing.assert_close(product, (a.double() @ b.double()).float(), rtol=1e-5, atol=2e-5)


def test_linear_maps_leave_gradients_alone():
    layer, states = torch.nn.Linear(8, 4), torch.randn(3, 8)
    with LinearMaps(torch.float32):
        lowered = layer(states)
    torch.testing.assert_close(lowered, layer(states))
    lowered.sum().backward()
    assert layer.weight.grad is not None


def test_no_more_threads_than_cores(monkeypatch):
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        monkeypatch.setattr(encoding_lexmotion.os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
        with usable_threads():
            assert torch.get_num_threads() == 2
        assert torch.get_num_threads() == 3
        monkeypatch.setattr(encoding_lexmotion.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
        with usable_threads():
            assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_longest_first():
    batches = [batch.tolist() for batch in longest_first(np.array([2, 9, 5, 9, 1]), 2)]
    assert batches == [[1, 3], [2, 0], [4]]


# ---- as a masked language model -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_the_masked_lm_says_the_same(tiny_tokenizer, tmp_path, kind):
    from transformers import AutoModelForMaskedLM

    model = tower(range(10, 90), model_type=kind)
    as_masked_lm(model).save_pretrained(tmp_path)
    reloaded = AutoModelForMaskedLM.from_pretrained(tmp_path).eval()
    tokens = tiny_tokenizer(CAPTIONS, padding=True, return_tensors="pt", return_token_type_ids=False)
    with torch.no_grad():
        logits = reloaded(**tokens).logits.masked_fill(tokens["attention_mask"][..., None] == 0, -torch.inf)
    found = torch.log1p(torch.relu(logits)).amax(dim=1).numpy()
    np.testing.assert_allclose(found, dense(model, tiny_tokenizer, CAPTIONS), atol=2e-6)


def test_only_a_splade_head_is_a_masked_lm_head():
    with pytest.raises(ValueError, match="'vdr'"):
        as_masked_lm(tower(head_kind="vdr"))


def test_sparse_encoder_computes_the_same_vectors(tiny_tokenizer, tmp_path):
    from sentence_transformers import SparseEncoder
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sparse_encoder.modules import SpladePooling

    model = tower(range(10, 90))
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer._set_processor_class("LexMotionProcessor")  # as in a processor, which SparseEncoder would look for
    save_masked_lm(model, tokenizer, tmp_path)
    assert tokenizer._processor_class == "LexMotionProcessor"
    modules = [Transformer(str(tmp_path), transformer_task="fill-mask"), SpladePooling(pooling_strategy="max")]
    theirs = SparseEncoder(modules=modules, device="cpu").encode(CAPTIONS, batch_size=2).to_dense().numpy()
    ours = model.encode_text(CAPTIONS, tiny_tokenizer, precision="fp32").toarray()
    np.testing.assert_allclose(ours, theirs, atol=5e-6)
    assert np.array_equal(ours > 0, theirs > 0) and (ours > 0).any()
