"""T2M: its margin loss by hand, its recurrent encoders against padding, its sizes against the paper's."""

import doctest

import pytest
import torch
from tiny import VOCABULARY, captions, motions
from torch import nn

from lexmotion.baselines import t2m
from lexmotion.baselines.retriever import Pairs
from lexmotion.baselines.t2m import MovementEncoder, T2MConfig, T2MModel, margin_loss

ENCODER = {
    "model_type": "distilbert",
    "vocab_size": VOCABULARY,
    "dim": 32,
    "n_layers": 1,
    "n_heads": 2,
    "hidden_dim": 48,
}
REPRESENTATIONS = pytest.mark.parametrize("representation", ["dense", "lexicon"])


def config(**fields) -> T2MConfig:
    defaults = {
        "encoder_config": ENCODER,
        "num_features": 12,
        "num_frames": 24,
        "latent_size": 8,
        "movement_size": 16,
        "motion_hidden_size": 12,
        "text_hidden_size": 10,
    }
    return T2MConfig(**(defaults | fields))


def model(**fields) -> T2MModel:
    torch.manual_seed(0)
    return T2MModel(config(**fields))


def trained_parameters(retriever: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in retriever.named_parameters() if parameter.requires_grad}


def size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_margin_loss_of_two_pairs_by_hand():
    text, motion = torch.eye(2), torch.tensor([[0.6, 0.8], [0.0, 1.0]])
    pairs = Pairs(torch.arange(2), torch.arange(2))
    # Pairs: d^2 = 0.8 and 0. Strangers: d = sqrt(2), beyond the margin, and sqrt(0.4).
    expected = (0.8 + 0.0) / 2 + (0.0 + (1.0 - 0.4**0.5) ** 2) / 2
    assert float(margin_loss(text, motion, pairs, 1.0)) == pytest.approx(expected, abs=1e-6)


def test_two_captions_of_a_motion_are_both_its_pairs():
    text, motion = torch.eye(3), torch.eye(3)[:2]
    pairs = Pairs(torch.tensor([5, 7, 5]), torch.tensor([5, 7]))
    # Pairs (0, 0), (1, 1), (2, 0): d^2 = 0, 0, 2. Strangers are all at a right angle: d = sqrt(2), within 1.5.
    expected = 2.0 / 3 + (1.5 - 2.0**0.5) ** 2
    assert float(margin_loss(text, motion, pairs, 1.5)) == pytest.approx(expected, abs=1e-6)


def test_vectors_at_one_point_have_a_finite_gradient():
    text = torch.eye(2)[[0, 0]].requires_grad_()
    margin_loss(text, torch.eye(2)[[0, 0]], Pairs(torch.arange(2), torch.arange(2)), 1.0).backward()
    assert text.grad.isfinite().all()


def test_processes_together_compute_the_big_batch(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    text, motion = (nn.functional.normalize(torch.randn(6, 4, generator=generator)) for _ in range(2))
    ids = torch.arange(6)
    whole = margin_loss(text, motion, Pairs(ids, ids), 1.5)
    halves = []
    for rows in (slice(0, 3), slice(3, 6)):
        m, i = motion[rows], ids[rows]
        gathered = {id(m): motion, id(i): ids}
        monkeypatch.setattr(t2m, "gather", lambda tensor, gathered=gathered: gathered[id(tensor)])
        halves.append(margin_loss(text[rows], m, Pairs(i, i), 1.5))
    torch.testing.assert_close(sum(halves) / 2, whole)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"margin": 0.0}, r"margin\b.*\b0\.0\b"),
        ({"margin": 10.0}, r"margin\b.*\b10\.0\b"),
        ({"false_negative_threshold": 0.8}, r"false_negative_threshold\b.*\b0\.8\b"),
    ],
)
def test_a_wrong_field_is_named(fields, message):
    with pytest.raises(ValueError, match=message):
        config(**fields)


@pytest.mark.parametrize(("frames", "snippets"), [(1, 1), (4, 1), (5, 2), (13, 4), (16, 4)])
def test_a_snippet_is_four_frames_and_none_is_lost(frames, snippets):
    torch.manual_seed(0)
    encoder = MovementEncoder(config()).eval()
    values = torch.randn(1, frames, 12, requires_grad=True)
    states, lengths = encoder(values, torch.tensor([frames]))
    assert states.shape == (1, snippets, 16) and lengths.tolist() == [snippets]
    states.square().sum().backward()
    assert (values.grad.abs().sum(dim=-1) > 0).all()


@REPRESENTATIONS
def test_forward_shapes_and_named_losses(representation):
    (ids, mask), (values, frames) = captions(), motions()
    output = model(representation=representation)(ids, values, mask, frames, return_loss=True)
    width = VOCABULARY if representation == "lexicon" else 8
    assert output.text_embeds.shape == output.motion_embeds.shape == (4, width)
    assert output.contrastive_loss is None
    assert torch.equal(output.loss, output.margin_loss)
    assert (output.text_flops_loss is None) == (representation == "dense")


@REPRESENTATIONS
def test_padding_changes_no_embedding(representation):
    retriever = model(representation=representation).eval()
    for convolution in retriever.movement_encoder.convolutions:  # a trained one says something even of nothing
        nn.init.ones_(convolution.bias)
    (ids, mask), (values, frames) = captions(), motions()
    dirty = torch.where(frames.bool()[..., None], values, 1e4)
    with torch.no_grad():
        text = retriever.get_text_features(ids, mask)
        motion = retriever.get_motion_features(dirty, frames)
        torch.testing.assert_close(retriever.get_text_features(ids[1:2, :5])[0], text[1], atol=1e-5, rtol=0)
        torch.testing.assert_close(retriever.get_motion_features(values[2:3, :13])[0], motion[2], atol=1e-5, rtol=0)


@REPRESENTATIONS
def test_both_encoders_hear_the_order(representation):
    retriever = model(representation=representation).eval()
    ids, values = captions()[0], motions()[0]
    with torch.no_grad():
        for encode, inputs in ((retriever.get_text_features, ids), (retriever.get_motion_features, values)):
            assert not torch.allclose(encode(inputs), encode(inputs.flip(1)), atol=1e-4)


@REPRESENTATIONS
def test_the_gradient_reaches_every_trained_part(representation):
    retriever = model(representation=representation, train_text_encoder=True, margin=2.0)
    (ids, mask), (values, frames) = captions(), motions()
    retriever(ids, values, mask, frames, return_loss=True).loss.backward()
    silent = [name for name, part in trained_parameters(retriever).items() if not part.grad.abs().sum() > 0]
    assert silent == []


def test_the_text_encoder_is_frozen_as_the_paper_s_word_vectors_are():
    names = trained_parameters(model())
    assert names and not any(name.startswith("text_encoder.") for name in names)


@REPRESENTATIONS
def test_save_and_load_are_bit_equal(representation, tmp_path):
    saved = model(representation=representation).eval()
    saved.save_pretrained(tmp_path)
    loaded = T2MModel.from_pretrained(tmp_path).eval()
    assert loaded.config.margin == 1.0 and loaded.config.loss_weights == {"margin_loss": 1.0}
    (ids, mask), (values, frames) = captions(), motions()
    with torch.no_grad():
        ours, theirs = (retriever(ids, values, mask, frames) for retriever in (saved, loaded))
    assert torch.equal(ours.text_embeds, theirs.text_embeds) and torch.equal(ours.motion_embeds, theirs.motion_embeds)


def test_a_missing_gate_is_drawn_not_left_as_it_was(tmp_path):
    saved = model()
    state = {name: value for name, value in saved.state_dict().items() if not name.startswith("word_encoder.")}
    saved.save_pretrained(tmp_path, state_dict=state)
    loaded = T2MModel.from_pretrained(tmp_path)
    bound = 10**-0.5  # the text encoder's hidden size is 10
    for name, weight in loaded.word_encoder.gru.named_parameters():
        assert weight.abs().max() <= bound and weight.std() > 0.3 * bound, name
    assert loaded.word_encoder.start.std() > 0.3


@REPRESENTATIONS
def test_a_few_steps_overfit_four_samples(representation):
    retriever = model(representation=representation, movement_dropout=0.0)
    (ids, mask), (values, frames) = captions(), motions()
    optimizer = torch.optim.AdamW(trained_parameters(retriever).values(), lr=1e-2)
    losses = []
    for _ in range(60):
        output = retriever(ids, values, mask, frames, return_loss=True)
        losses.append(float(output.loss.detach()))
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
    assert losses[-1] < 0.1 * losses[0]
    with torch.no_grad():
        logits = retriever.eval()(ids, values, mask, frames).logits_per_text
    assert torch.equal(logits.argmax(dim=0), torch.arange(4)) and torch.equal(logits.argmax(dim=1), torch.arange(4))


def test_sizes_are_those_the_paper_describes():
    # The paper's evaluator reads 259 features (no foot contacts) and GloVe's 300 numbers a word.
    with torch.device("meta"):
        paper = T2MModel(T2MConfig(num_features=259, encoder_config=ENCODER | {"dim": 300, "n_heads": 4}))
    gates = 2 * 3 * (2 * 1024 * 1024 + 2 * 1024)  # directions x gates x (two matrices and two biases)
    head = (2048 * 1024 + 1024) + 2 * 1024 + (1024 * 512 + 512)
    assert size(paper.motion_encoder) == (512 * 1024 + 1024) + 2 * 1024 + gates + head
    assert size(paper.movement_encoder) == (259 * 4 * 512 + 512) + (512 * 4 * 512 + 512) + (512 * 512 + 512)
    gates = 2 * 3 * (2 * 512 * 512 + 2 * 512)
    head = (1024 * 512 + 512) + 2 * 512 + (512 * 512 + 512)
    assert size(paper.word_encoder) == (300 * 512 + 512) + 2 * 512 + gates + head


def test_the_example_runs():
    assert doctest.testmod(t2m, optionflags=doctest.NORMALIZE_WHITESPACE).failed == 0
