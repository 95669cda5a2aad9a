"""MotionPatches: the picture it makes of a motion, its ViT against padding, its sizes against the published ones."""

import doctest
import math

import numpy as np
import pytest
import torch
from tiny import VOCABULARY, captions
from torch import nn
from transformers import GPT2Config, T5Config, T5EncoderModel

from lexmotion.baselines import motion_patches
from lexmotion.baselines.motion_patches import (
    HUMANML3D_CHAINS,
    MotionPatchEmbeddings,
    MotionPatchesConfig,
    MotionPatchesModel,
    chain_resampling,
)
from lexmotion.processing.skeletons import get_skeleton

ENCODER = {
    "model_type": "distilbert",
    "vocab_size": VOCABULARY,
    "dim": 32,
    "n_layers": 1,
    "n_heads": 2,
    "hidden_dim": 48,
}
CHAINS = [[0, 1, 2], [0, 3], [1, 4]]
REPRESENTATIONS = pytest.mark.parametrize("representation", ["dense", "lexicon"])


def config(**fields) -> MotionPatchesConfig:
    defaults = {
        "encoder_config": ENCODER,
        "num_features": 15,
        "num_frames": 24,
        "latent_size": 8,
        "chains": CHAINS,
        "patch_size": 4,
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    return MotionPatchesConfig(**(defaults | fields))


def model(**fields) -> MotionPatchesModel:
    torch.manual_seed(0)
    return MotionPatchesModel(config(**fields))


def motions(rows: int = 4, frames: int = 22) -> tuple[torch.Tensor, torch.Tensor]:
    values = torch.randn(rows, frames, 15, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(rows, frames, dtype=torch.int64)
    mask[2:3, 13:] = 0
    return values, mask


def size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_chains_are_those_of_the_skeletons():
    assert get_skeleton("humanml3d").chains == HUMANML3D_CHAINS
    kit = get_skeleton("kit-ml")
    assert MotionPatchesConfig(num_features=63, chains=kit.chains).chains == [list(chain) for chain in kit.chains]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_features": 263}, r"num_features.*\b263\b"),
        ({"chains": [[0, 5]]}, r"\[\[0, 5\]\].*0\.\.4"),
        ({"chains": [[0, -1]]}, r"chains.*\[\[0, -1\]\]"),
        ({"chains": [[0], []]}, r"chains.*\[\[0\], \[\]\]"),
        ({"chains": []}, r"chains.* \[\]"),
        ({"num_attention_heads": 5}, r"hidden_size.*\b24\b.*num_attention_heads.*\b5\b"),
        ({"text_pooling": "max"}, "'max'.*'cls', 'mean'"),
    ],
)
def test_a_wrong_field_is_named(fields, message):
    with pytest.raises(ValueError, match=message):
        config(**fields)


def test_a_chain_is_interpolated_from_its_first_joint_to_its_last():
    height = np.random.default_rng(0).normal(size=22)
    points = chain_resampling([list(chain) for chain in HUMANML3D_CHAINS], 22, 16) @ torch.tensor(height).float()
    for chain, resampled in zip(HUMANML3D_CHAINS, points.view(5, 16), strict=True):
        expected = np.interp(np.linspace(0, len(chain) - 1, 16), range(len(chain)), height[list(chain)])
        np.testing.assert_allclose(resampled.numpy(), expected, atol=1e-5)
    assert torch.equal(chain_resampling([[3]], 5, 4), torch.eye(5)[[3] * 4])  # one joint: everywhere the same


def test_patches_are_what_a_convolution_of_the_picture_reads():
    torch.manual_seed(0)
    embeddings = MotionPatchEmbeddings(config())
    values = torch.randn(2, 8, 15)
    picture = torch.einsum("kj,btjc->bctk", embeddings.resampling, values.view(2, 8, 5, 3))  # (B, 3, T, 12)
    convolution = nn.functional.conv2d(
        picture, embeddings.projection.weight.view(24, 3, 4, 4), embeddings.projection.bias, stride=4
    )
    tokens = embeddings.projection(embeddings.patches(values))  # (B, Nt, Np, D)
    torch.testing.assert_close(tokens, convolution.permute(0, 2, 3, 1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("frames", "windows"), [(1, 1), (4, 1), (5, 2), (24, 6)])
def test_a_begun_window_is_a_row_of_tokens(frames, windows):
    torch.manual_seed(0)
    tokens, real = MotionPatchEmbeddings(config())(torch.randn(1, frames, 15), torch.ones(1, frames))
    assert tokens.shape == (1, 1 + 3 * windows, 24) and bool(real.all())


def test_a_window_without_a_real_frame_is_no_token():
    torch.manual_seed(0)
    _, real = MotionPatchEmbeddings(config())(*motions())
    assert real[0].all() and real[2].tolist() == [True] * (1 + 3 * 4) + [False] * (3 * 2)  # 13 frames: 4 windows


@REPRESENTATIONS
def test_forward_shapes_and_named_losses(representation):
    (ids, mask), (values, frames) = captions(), motions()
    output = model(representation=representation)(ids, values, mask, frames, return_loss=True)
    width = VOCABULARY if representation == "lexicon" else 8
    assert output.text_embeds.shape == output.motion_embeds.shape == (4, width)
    assert output.margin_loss is None
    assert torch.equal(output.loss, output.contrastive_loss)
    assert (output.text_flops_loss is None) == (representation == "dense")


@REPRESENTATIONS
def test_padding_changes_no_embedding(representation):
    retriever = model(representation=representation).eval()
    (ids, mask), (values, frames) = captions(), motions()
    dirty = torch.where(frames.bool()[..., None], values, 1e4)
    with torch.no_grad():
        text = retriever.get_text_features(ids, mask)
        motion = retriever.get_motion_features(dirty, frames)
        torch.testing.assert_close(retriever.get_text_features(ids[1:2, :5])[0], text[1], atol=1e-5, rtol=0)
        torch.testing.assert_close(retriever.get_motion_features(values[2:3, :13])[0], motion[2], atol=1e-5, rtol=0)


def test_parts_and_times_have_places():
    retriever = model().eval()
    values = motions(rows=1, frames=8)[0]
    with torch.no_grad():
        embeds = retriever.get_motion_features(values)
        swapped_times = retriever.get_motion_features(values.roll(4, dims=1))
        retriever.config.chains = [CHAINS[1], CHAINS[0], CHAINS[2]]
        embeddings = retriever.motion_encoder.embeddings
        embeddings.resampling.copy_(embeddings.resampling_matrix())
        swapped_parts = retriever.get_motion_features(values)
    assert not torch.allclose(embeds, swapped_times, atol=1e-4)
    assert not torch.allclose(embeds, swapped_parts, atol=1e-4)


def test_the_temperature_is_learned_from_where_the_configuration_starts_it():
    retriever = model(temperature=0.2)
    assert retriever.temperature.item() == pytest.approx(0.2)
    with torch.no_grad():
        retriever.logit_scale.fill_(math.log(1e4))
    assert retriever.temperature.item() == pytest.approx(0.01)


@REPRESENTATIONS
def test_the_gradient_reaches_every_trained_part(representation):
    retriever = model(representation=representation)
    (ids, mask), (values, frames) = captions(), motions()
    retriever(ids, values, mask, frames, return_loss=True).loss.backward()
    silent = [name for name, part in retriever.named_parameters() if not part.grad.abs().sum() > 0]
    assert silent == []


@REPRESENTATIONS
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_save_and_load_are_equal_in_every_attention(representation, implementation, tmp_path):
    saved = model(representation=representation).eval()
    with torch.no_grad():
        saved.logit_scale.fill_(1.5)
    saved.save_pretrained(tmp_path)
    loaded = MotionPatchesModel.from_pretrained(tmp_path, attn_implementation=implementation).eval()
    assert loaded.config.chains == CHAINS
    (ids, mask), (values, frames) = captions(), motions()
    with torch.no_grad():
        ours, theirs = (retriever(ids, values, mask, frames) for retriever in (saved, loaded))
    torch.testing.assert_close(ours.text_embeds, theirs.text_embeds, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.motion_embeds, theirs.motion_embeds, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.logits_per_text, theirs.logits_per_text, atol=1e-5, rtol=1e-5)


@REPRESENTATIONS
def test_a_few_steps_overfit_four_samples(representation):
    retriever = model(representation=representation, projection_dropout=0.0)
    (ids, mask), (values, frames) = captions(), motions()
    optimizer = torch.optim.AdamW(retriever.parameters(), lr=3e-3)
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


def test_sizes_are_the_published_ones():
    with torch.device("meta"):
        paper = MotionPatchesModel(MotionPatchesConfig())
    layer = 4 * 768 + 4 * (768 * 768 + 768) + (768 * 3072 + 3072) + (3072 * 768 + 768)
    embeddings = (3 * 16 * 16 * 768 + 768) + 768 + 71 * 768  # patches, [CLS], 14 x 5 places and its own
    assert size(paper.motion_encoder) == 12 * layer + embeddings + 2 * 768
    assert round(size(paper.motion_encoder) / 1e6, 1) == 85.7
    assert round(size(paper.text_encoder) / 1e6, 1) == 66.4  # DistilBERT
    heads = size(paper.text_projection) + size(paper.motion_projection)
    assert heads == 2 * ((768 * 256 + 256) + (256 * 256 + 256) + 2 * 256)


def test_the_example_runs():
    assert doctest.testmod(motion_patches, optionflags=doctest.NORMALIZE_WHITESPACE).failed == 0


def test_a_caption_is_read_by_its_first_token_or_by_all():
    states = torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    torch.testing.assert_close(model().pooled_text(states, mask), states[:, 0])
    expected = torch.stack([states[0, :2].mean(dim=0), states[1].mean(dim=0)])
    torch.testing.assert_close(model(text_pooling="mean").pooled_text(states, mask), expected)


def test_any_text_encoder_can_be_read_a_t5_by_its_mean(tmp_path):
    t5 = T5Config(vocab_size=40, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    T5EncoderModel(t5).save_pretrained(tmp_path)
    small = MotionPatchesConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, latent_size=8
    )
    model = MotionPatchesModel.from_text_pretrained(str(tmp_path), small).eval()
    ids, mask = torch.tensor([[5, 6, 7, 0], [5, 6, 7, 8]]), torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])
    alone = model.get_text_features(ids[:1, :3], mask[:1, :3])
    torch.testing.assert_close(model.get_text_features(ids, mask)[:1], alone)
    model.save_pretrained(tmp_path / "saved")
    again = MotionPatchesModel.from_pretrained(tmp_path / "saved").eval()
    torch.testing.assert_close(again.get_text_features(ids, mask), model.get_text_features(ids, mask))


def test_a_decoder_is_refused_as_text_encoder(tmp_path):
    GPT2Config(vocab_size=40, n_embd=16, n_layer=1, n_head=2).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="'gpt2'"):
        MotionPatchesModel.from_text_pretrained(str(tmp_path), MotionPatchesConfig())
