"""The conditioner: what its vectors are, and that nothing a generator does around it changes them."""

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import motion_config, text_config
from transformers import AutoModel

from lexmotion import LexMotionConfig, LexMotionModel, LexMotionMotionModel, LexMotionTextModel
from lexmotion.conditioning import LexMotionTextConditioner, LexMotionTextConditionerConfig
from lexmotion.conditioning.text_conditioner import FixedProjection, VectorCache, orthogonal

CAPTIONS = ["a person walks forward", "someone kicks with the left leg and then turns around slowly", "jump", ""]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_tokenizer):
    """A `LexMotionModel` and its tokenizer."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    model = LexMotionModel(LexMotionConfig(text_config=text_config(), motion_config=motion_config()))
    with torch.no_grad():
        model.text_model.word_embeddings.normal_()
        model.text_model.lexical_head.bias.normal_(std=0.5)
    model.set_active_words(range(9, 90))
    model.save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def conditioner(folder):
    return LexMotionTextConditioner.from_pretrained(folder)


def counted(conditioner) -> list[int]:
    """Rows of every batch the tower reads from now on."""
    sizes: list[int] = []
    conditioner.text_model.register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    return sizes


# ------------------------------------------------------------------------------------------------------ what comes out


def test_the_vector_is_the_projected_sentence_state_and_words(conditioner):
    tokens = conditioner.tokenizer(CAPTIONS, padding=True, return_tensors="pt")
    with torch.no_grad():
        output = conditioner.text_model(tokens["input_ids"], tokens["attention_mask"])
    words = output.text_embeds @ conditioner.text_model.word_embeddings / output.text_embeds.sum(1, keepdim=True)
    parts = [(part - part.mean(1, keepdim=True)) / part.std(1, correction=0, keepdim=True).clamp(min=1e-6)
             for part in (output.last_hidden_state[:, 0], words)]  # fmt: skip
    expected = torch.cat(parts, dim=1) @ conditioner.text_projection.weight.T
    torch.testing.assert_close(conditioner.encode_text(CAPTIONS), expected, atol=1e-3, rtol=1e-3)


def test_what_was_said_before_is_forgotten_when_the_encoder_changes(conditioner):
    before = conditioner.encode_text(CAPTIONS)
    with torch.no_grad():
        conditioner.text_projection.weight.mul_(2.0)
    torch.testing.assert_close(conditioner.encode_text(CAPTIONS), 2.0 * before)
    conditioner.text_model.lexical_head.top_k = 1
    assert not torch.allclose(conditioner.encode_text(CAPTIONS), 2.0 * before)


def test_a_width_of_nothing_is_refused(folder):
    with pytest.raises(ValueError, match=r"\bdim\b.*\b0\b"):
        LexMotionTextConditioner.from_pretrained(folder, dim=0)


@pytest.mark.parametrize(
    ("output", "dim", "shape"),
    [
        ("pooled", None, 512),
        ("sequence", 24, 24),
        ("pooled", 24, 24),
        ("lexical", None, 99),
        ("lexical", 16, 16),
        ("tokens", 512, 512),
    ],
)
def test_widths(folder, output, dim, shape):
    conditioner = LexMotionTextConditioner.from_pretrained(folder, output=output, dim=dim)
    found = conditioner(CAPTIONS)
    if output == "tokens":
        found, mask = found
        assert mask.dtype == torch.bool and mask.shape == found.shape[:2]
        assert conditioner.encode_text(CAPTIONS).shape == (4, 512)
    assert found.shape[0] == 4 and found.shape[-1] == shape and found.dtype == torch.float32


def test_lexical_output_is_the_towers_word_weights(folder, tiny_tokenizer):
    found = LexMotionTextConditioner.from_pretrained(folder, output="lexical").encode_text(CAPTIONS[:3])
    tower = LexMotionTextModel.from_pretrained(folder)
    expected = tower.encode_text(CAPTIONS[:3], tiny_tokenizer, precision="fp32").toarray()
    torch.testing.assert_close(found, torch.from_numpy(expected), atol=1e-5, rtol=1e-5)
    assert (found > 0).any()


def test_tokens_keep_the_geometry_of_the_states(conditioner):
    states, mask = conditioner.encode_tokens(CAPTIONS)
    tokens = conditioner.tokenizer(CAPTIONS, padding=True, return_tensors="pt")
    with torch.no_grad():
        raw = conditioner.text_model(**tokens).last_hidden_state
    assert states.shape == (*mask.shape, 768) and mask.sum(1).tolist() == tokens["attention_mask"].sum(1).tolist()
    assert not states[~mask].any()
    scale = 768 / raw.shape[-1]
    torch.testing.assert_close(states[0] @ states[0].T / scale, raw[0] @ raw[0].T * (mask[0][:, None] & mask[0]))


def test_words_are_means_of_their_pieces(conditioner):
    sentences = [["cartwheel", "left"], ["kneels"]]  # cart ##wheel, knee ##ls
    states, mask, vectors = conditioner.encode_words(sentences)
    tokens = conditioner.tokenizer("cartwheel left", return_tensors="pt")
    with torch.no_grad():
        raw = conditioner.text_model(**tokens).last_hidden_state[0]
    expected = torch.stack([raw[0], raw[1:3].mean(0), raw[3], raw[4]])  # start, two words, end
    torch.testing.assert_close(states[0], expected, atol=1e-5, rtol=1e-5)
    assert states.shape[:2] == (2, 4) and mask.tolist() == [[True] * 4, [True] * 3 + [False]]
    torch.testing.assert_close(vectors, conditioner.encode_text(["cartwheel left", "kneels"]))


def test_words_past_the_limit_are_not_read(conditioner):
    conditioner.config.max_length = 6
    states, mask, _ = conditioner.encode_words([["walk"] * 3 + ["cartwheel"] * 3])
    assert mask[0].tolist() == [True] * 5 + [False] * 2 + [True] and not states[0, 5:7].any()


# --------------------------------------------------------------------------------------------- one caption, one vector


def test_padding_batch_order_and_ids_change_nothing(conditioner):
    together = conditioner.encode_text(CAPTIONS)
    for place, caption in enumerate(CAPTIONS):
        conditioner.cache.clear()
        torch.testing.assert_close(conditioner.encode_text(caption)[0], together[place], atol=1e-5, rtol=1e-4)
    ids = conditioner.tokenizer(CAPTIONS, padding="max_length", max_length=64, return_tensors="pt")["input_ids"]
    assert torch.equal(conditioner.encode_text(ids.int()), conditioner.encode_text(CAPTIONS))


def test_each_caption_is_read_once(conditioner):
    sizes = counted(conditioner)
    first = conditioner.encode_text([*CAPTIONS, CAPTIONS[0]])
    assert torch.equal(conditioner.encode_text(CAPTIONS), first[:4]) and torch.equal(first[0], first[4])
    assert sizes == [4]
    conditioner.encode_text(["kick", CAPTIONS[1]])
    assert sizes == [4, 1]


def test_what_is_returned_is_the_callers(conditioner):
    first = conditioner.encode_text(CAPTIONS)
    kept = first.clone()
    first.zero_()
    assert torch.equal(conditioner.encode_text(CAPTIONS), kept)


def test_other_weights_empty_the_cache(conditioner):
    before = conditioner.encode_text(CAPTIONS)
    parent = torch.nn.ModuleDict({"clip_model": conditioner})
    state = {name: value + 0.1 if "dense.weight" in name else value for name, value in parent.state_dict().items()}
    parent.load_state_dict(state)
    assert not torch.allclose(conditioner.encode_text(CAPTIONS), before)


def test_sampling_first_does_not_spoil_training(conditioner):
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        conditioner.encode_text(CAPTIONS)
    linear = torch.nn.Linear(512, 3)
    vectors = conditioner.encode_text(CAPTIONS)
    linear(vectors).sum().backward()
    conditioner.cache.clear()
    torch.testing.assert_close(conditioner.encode_text(CAPTIONS), vectors, atol=1e-6, rtol=0)


def test_autocast_around_changes_nothing(conditioner):
    with torch.autocast("cpu", torch.bfloat16):
        tokens, _ = conditioner.encode_tokens(CAPTIONS)
        words, _, _ = conditioner.encode_words([["walk", "cartwheel"]])
    conditioner.cache.clear()
    assert torch.equal(conditioner.encode_tokens(CAPTIONS)[0], tokens)
    assert torch.equal(conditioner.encode_words([["walk", "cartwheel"]])[0], words)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_precision_follows_the_weights(conditioner, dtype):
    exact = conditioner.encode_text(CAPTIONS)
    lowered = conditioner.to(dtype).encode_text(CAPTIONS)
    assert lowered.dtype == dtype and conditioner.encode_tokens(CAPTIONS)[0].dtype == dtype
    assert torch.nn.functional.cosine_similarity(lowered.float(), exact).min() > 0.99


@given(
    capacity=st.integers(0, 60),
    requests=st.lists(st.tuples(st.integers(0, 6), st.integers(1, 5)), max_size=40),
)
@settings(max_examples=60, deadline=None)
def test_the_cache_holds_what_was_used_last(capacity, requests):
    cache, model = VectorCache(capacity), {}
    for key, size in requests:
        if cache.get(("text", (key,))) is None:
            assert key not in model
            cache.put(("text", (key,)), torch.zeros(size))
            model[key] = 4 * size
        else:
            model[key] = model.pop(key)
        while sum(model.values()) > capacity:
            del model[next(iter(model))]
        assert cache.bytes == sum(model.values()) <= capacity and len(cache) == len(model)


# -------------------------------------------------------------------------------------------------------- frozen, safe


def test_frozen_and_in_evaluation_mode_whatever_a_parent_does(conditioner):
    parent = torch.nn.ModuleDict({"clip_model": conditioner}).train()
    assert parent.training and not any(module.training for module in conditioner.modules())
    parent.requires_grad_(True)
    assert not conditioner.encode_text(CAPTIONS).requires_grad
    assert not conditioner.encode_tokens(CAPTIONS)[0].requires_grad
    assert all(name.startswith("clip_model.") for name in parent.state_dict())
    assert {"clip_model.text_projection.weight", "clip_model.text_projection.center"} <= set(parent.state_dict())


def test_starts_frozen_in_every_way_of_loading(folder, conditioner, tmp_path):
    conditioner.save_pretrained(tmp_path)
    fresh = LexMotionTextConditioner(conditioner.config)
    for model in (conditioner, LexMotionTextConditioner.from_pretrained(tmp_path), fresh):
        assert not model.training and not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["copy", "pickle"]
)
def test_copies_are_equal_and_their_own(conditioner, copied):
    before = conditioner.encode_text(CAPTIONS)
    twin = copied(conditioner)
    assert len(twin.cache) == 0 and len(conditioner.cache) == 4
    with torch.no_grad():
        next(twin.parameters()).add_(1.0)
    conditioner.cache.clear()
    assert torch.equal(conditioner.encode_text(CAPTIONS), before)
    assert not torch.allclose(twin.encode_text(CAPTIONS), before)


# -------------------------------------------------------------------------------------------------- loading and saving


def test_save_then_load_is_equal(folder, tmp_path):
    conditioner = LexMotionTextConditioner.from_pretrained(folder, output="tokens", dim=40)
    conditioner.fit_projection(CAPTIONS)
    conditioner.save_pretrained(tmp_path)
    for again in (LexMotionTextConditioner.from_pretrained(tmp_path), AutoModel.from_pretrained(tmp_path)):
        assert torch.equal(again.encode_text(CAPTIONS), conditioner.encode_text(CAPTIONS))
        assert torch.equal(again(CAPTIONS)[0], conditioner(CAPTIONS)[0]) and again(CAPTIONS)[0].shape[-1] == 40


def test_the_folder_of_a_text_tower_will_do(folder, tmp_path, tiny_tokenizer, conditioner):
    LexMotionTextModel.from_pretrained(folder).save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    again = LexMotionTextConditioner.from_pretrained(tmp_path)
    assert torch.equal(again.encode_text(CAPTIONS), conditioner.encode_text(CAPTIONS))


def test_every_loading_has_the_same_projection(folder, conditioner):
    torch.manual_seed(99)
    again = LexMotionTextConditioner.from_pretrained(folder)
    assert torch.equal(again.text_projection.weight, conditioner.text_projection.weight)
    assert torch.equal(again.token_projection.weight, conditioner.token_projection.weight)


@pytest.mark.parametrize(("rows", "columns"), [(5, 9), (9, 5), (4, 4)], ids=["narrower", "wider", "as wide"])
def test_projections_keep_variance_and_angles(rows, columns):
    basis = orthogonal(rows, columns, seed=3)
    small = min(rows, columns)
    product = basis @ basis.T if rows <= columns else basis.T @ basis
    torch.testing.assert_close(product, torch.eye(small))
    projection = FixedProjection(columns, rows, seed=3)
    projection.reset_parameters()
    numbers = torch.randn(20000, columns, generator=torch.Generator().manual_seed(0))
    assert abs(projection(numbers).square().mean() - 1) < 0.05


def test_a_fitted_projection_keeps_the_most_variance():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(400, 12, generator=generator) * torch.linspace(3, 0.1, 12) + 5
    projection = FixedProjection(12, 4, seed=0)
    projection.reset_parameters()
    share = projection.fit(features)
    variances = features.var(0, correction=0).sort(descending=True).values
    assert share >= variances[:4].sum() / variances.sum() - 1e-6 and share < 1
    out = projection(features)
    torch.testing.assert_close(out.mean(0), torch.zeros(4), atol=1e-4, rtol=0)
    assert abs(out.var(0, correction=0).mean() - 1) < 1e-4
    covariance = torch.cov(out.T)
    assert (covariance - covariance.diag().diag()).abs().max() < 1e-4


def test_a_fit_into_more_room_keeps_everything(conditioner):
    assert conditioner.fit_projection(CAPTIONS) == pytest.approx(1.0)
    vectors = conditioner.encode_text(CAPTIONS)
    torch.testing.assert_close(vectors.mean(0), torch.zeros(512), atol=1e-4, rtol=0)
    assert len(conditioner.cache) == 4  # what came before the fit is gone


ERRORS = [
    (lambda c: LexMotionTextConditionerConfig(output="sentence"), "output.*'sentence'.*'lexical'"),
    (lambda c: LexMotionTextConditionerConfig(dim=None), r"dim\b.*output='pooled'"),
    (lambda c: LexMotionTextConditionerConfig(token_dim=0), r"token_dim\b.*\b0\b"),
    (lambda c: LexMotionTextConditionerConfig(max_length=2), r"max_length\b.*\b2\b"),
    (lambda c: c.encode_text([]), "captions"),
    (lambda c: c.encode_text(torch.rand(2, 5)), r"torch\.float32.*\(2, 5\).*integers"),
    (lambda c: c.encode_text(torch.tensor([[2, 99, 3]])), r"\b2\.\.99\b.*\b77\b.*\b99\b"),
    (lambda c: c.encode_text(torch.ones(1, 78, dtype=torch.int64)), r"\b78\b.*\b77\b"),
    (lambda c: c.fit_projection(["jump", "jump"]), r"captions\b.*\b1\b"),
    (lambda c: LexMotionTextConditioner(c.config).encode_text(["jump"]), "tokenizer.*from_pretrained"),
    (lambda c: c.save_pretrained("unused", push_to_hub=True), "tokenizer.*push_to_hub"),
]


@pytest.mark.parametrize(("call", "message"), ERRORS, ids=[message for _, message in ERRORS])
def test_errors_say_what_to_do(conditioner, call, message):
    with pytest.raises(ValueError, match=message):
        call(conditioner)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("runs/small/model", "no model folder 'runs/small/model' in {here}"),
        ("runs/model", "runs/model: no such folder in {here}, and no such model on the Hub"),
        ("empty", r"no model in the folder 'empty' \(no config.json\)"),
    ],
)
def test_a_missing_folder_is_said_to_be_missing_and_where(tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=message.format(here=tmp_path)):
        LexMotionTextConditioner.from_pretrained(name, local_files_only=True)


def test_folders_that_will_not_do(folder, conditioner, tmp_path, tiny_tokenizer):
    LexMotionTextModel.from_pretrained(folder).save_pretrained(tmp_path / "tower")
    with pytest.raises(ValueError, match="/tower.*tokenizer="):
        LexMotionTextConditioner.from_pretrained(tmp_path / "tower")
    LexMotionMotionModel(motion_config()).save_pretrained(tmp_path / "motion")
    with pytest.raises(ValueError, match="/motion.*'lexmotion_motion'.*lexmotion_text"):
        LexMotionTextConditioner.from_pretrained(tmp_path / "motion", tokenizer=tiny_tokenizer)
    model = LexMotionModel.from_pretrained(folder)
    state = {name: value for name, value in model.state_dict().items() if "encoder.layer.0.output" not in name}
    model.save_pretrained(tmp_path / "lacking", state_dict=state)
    with pytest.raises(ValueError, match=r"/lacking.*\b4\b.*encoder\.layer\.0\.output"):
        LexMotionTextConditioner.from_pretrained(tmp_path / "lacking", tokenizer=tiny_tokenizer)
    conditioner.save_pretrained(tmp_path / "saved")
    with pytest.raises(ValueError, match="/saved.*dim=512.*dim=256"):
        LexMotionTextConditioner.from_pretrained(tmp_path / "saved", dim=256)
