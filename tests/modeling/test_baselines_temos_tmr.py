"""TEMOS and its contrastive child TMR: one set of promises, kept by both in both representations."""

import pytest
import torch
from tiny import VOCABULARY, captions, motions
from torch import nn

from lexmotion.baselines import TemosConfig, TemosModel, TmrConfig, TmrModel
from lexmotion.baselines.temos import kl_divergence, masked_smooth_l1

KINDS = [(model, form) for model in (TemosModel, TmrModel) for form in ("dense", "lexicon")]
every_kind = pytest.mark.parametrize(("kind", "form"), KINDS, ids=[f"{k.__name__}-{f}" for k, f in KINDS])
DISTILBERT = {"model_type": "distilbert", "vocab_size": VOCABULARY, "dim": 32, "n_layers": 1, "n_heads": 2}


def tiny(kind, form="dense", **fields):
    torch.manual_seed(0)
    defaults = {
        "encoder_config": DISTILBERT | {"hidden_dim": 48},
        "representation": form,
        "num_features": 12,
        "num_frames": 24,
        "latent_size": 16,
        "num_hidden_layers": 2,
        "intermediate_size": 32,
    }
    return kind(kind.config_class(**(defaults | fields)))


def batch() -> dict[str, torch.Tensor]:
    (ids, mask), (values, frames) = captions(), motions()
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "motion_values": values,
        "motion_attention_mask": frames,
        "caption_features": torch.eye(4),
    }


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_tmr_has_the_published_number_of_parameters():
    # 4.80 M is the published text head on a text encoder 256 wide; on DistilBERT's 768 its input map is wider.
    def parts(width: int) -> list[int]:
        encoder = {"model_type": "distilbert", "dim": width, "n_layers": 1, "n_heads": 4}
        with torch.device("meta"):
            model = TmrModel(TmrConfig(encoder_config=encoder))
        return [count(part) for part in (model.motion_encoder, model.text_head, model.motion_decoder)]

    assert [round(size / 1e6, 2) for size in parts(256)] == [4.81, 4.80, 6.39]
    assert round(sum(parts(256)) / 1e6, 1) == 16.0
    assert [wide - narrow for wide, narrow in zip(parts(768), parts(256), strict=True)] == [0, 512 * 256, 0]


def test_the_published_weights_are_the_defaults():
    temos, tmr = TemosConfig(), TmrConfig()
    shared = {"text_reconstruction_loss": 1.0, "motion_reconstruction_loss": 1.0, "kl_loss": 1e-5, "latent_loss": 1e-5}
    assert temos.loss_weights == shared and tmr.loss_weights == shared | {"contrastive_loss": 0.1}
    assert (tmr.temperature, tmr.false_negative_threshold, tmr.train_text_encoder) == (0.1, 0.6, False)
    assert TmrConfig(loss_weights={"contrastive_loss": 2.0}).loss_weights == {"contrastive_loss": 2.0}


def test_kl_divergence_is_that_of_normal_distributions():
    generator = torch.Generator().manual_seed(0)
    mean, log_variance, other_mean, other_log_variance = torch.randn(4, 3, 5, generator=generator)
    p, q = (
        torch.distributions.Normal(m, (0.5 * v).exp())
        for m, v in ((mean, log_variance), (other_mean, other_log_variance))
    )
    torch.testing.assert_close(
        kl_divergence(mean, log_variance, other_mean, other_log_variance), torch.distributions.kl_divergence(p, q)
    )


def test_reconstruction_counts_real_frames_alone():
    targets = torch.zeros(2, 3, 2)
    values = torch.tensor([[[0.5, 0.0], [2.0, 0.0], [9.0, 9.0]], [[0.0, 0.0], [9.0, 9.0], [9.0, 9.0]]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    assert float(masked_smooth_l1(values, targets, mask)) == pytest.approx((0.125 + 1.5) / 6)


@every_kind
def test_padding_changes_no_embedding(kind, form):
    model = tiny(kind, form).eval()
    (ids, mask), (values, frames) = captions(), motions()
    with torch.no_grad():
        output = model(ids, values, mask, frames)
        caption = model.get_text_features(ids[1:2, :5], mask[1:2, :5])
        clip = model.get_motion_features(values[2:3, :13])
    assert output.motion_embeds.shape == (4, VOCABULARY if form == "lexicon" else 16)
    torch.testing.assert_close(caption[0], output.text_embeds[1], atol=1e-5, rtol=0)
    torch.testing.assert_close(clip[0], output.motion_embeds[2], atol=1e-5, rtol=0)


@every_kind
def test_embeddings_tell_inputs_apart(kind, form):
    model = tiny(kind, form).eval()
    (ids, mask), (values, frames) = captions(), motions()
    with torch.no_grad():
        text, motion = model.get_text_features(ids, mask), model.get_motion_features(values, frames)
    assert torch.pdist(text).min() > 1e-3 and torch.pdist(motion).min() > 1e-3
    if form == "lexicon":
        assert (text >= 0).all() and (motion >= 0).all()


@every_kind
def test_gradient_reaches_every_trained_part_and_no_frozen_one(kind, form):
    model = tiny(kind, form).train()
    model(**batch(), return_loss=True).loss.backward()
    dead = [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and (parameter.grad is None or not parameter.grad.any())
    ]
    assert dead == []
    assert all(parameter.grad is None for parameter in model.text_encoder.parameters())


@every_kind
def test_save_and_load_are_bit_equal(kind, form, tmp_path):
    model = tiny(kind, form).eval()
    model.save_pretrained(tmp_path)
    loaded = kind.from_pretrained(tmp_path).eval()
    assert loaded.config.representation == form
    with torch.no_grad():
        ours, theirs = (m(**batch(), return_loss=True) for m in (model, loaded))
    assert torch.equal(ours.text_embeds, theirs.text_embeds)
    assert torch.equal(ours.motion_embeds, theirs.motion_embeds)
    assert torch.equal(ours.loss, theirs.loss)


@every_kind
def test_every_loss_is_named_and_only_normal_latents_diverge(kind, form):
    output = tiny(kind, form)(**batch(), return_loss=True)
    named = {name for name in output if name.endswith("_loss")}
    expected = {"text_reconstruction_loss", "motion_reconstruction_loss", "latent_loss"}
    expected |= {"kl_loss"} if form == "dense" else {"text_flops_loss", "motion_flops_loss"}
    assert named == expected | ({"contrastive_loss"} if kind is TmrModel else set())
    assert all(output[name].isfinite() and output[name] > 0 for name in named)


def test_latents_are_samples_in_training_and_means_else():
    model = tiny(TemosModel, hidden_dropout=0.0)
    values, frames = motions()
    training = model.train().encode_motion(values, frames)
    mean = model.eval().encode_motion(values, frames)
    assert torch.equal(mean.latent, mean.mean) and torch.equal(mean.embeds, mean.mean)
    torch.testing.assert_close(training.mean, mean.mean, atol=1e-5, rtol=0)
    assert (training.latent - training.mean).std() > 0.1


def test_captions_of_one_clip_are_compared_with_its_motion():
    model = tiny(TmrModel).eval()
    (ids, mask), (values, frames) = captions(), motions()
    double = {"input_ids": ids.repeat(2, 1), "attention_mask": mask.repeat(2, 1)}
    clips = torch.arange(4)
    with torch.no_grad():
        once = model(**batch() | {"caption_features": None}, return_loss=True)
        twice = model(
            **double,
            motion_values=values,
            motion_attention_mask=frames,
            text_clip_ids=clips.repeat(2),
            motion_clip_ids=clips,
            return_loss=True,
        )
    for name in ("text_reconstruction_loss", "motion_reconstruction_loss", "kl_loss", "latent_loss"):
        torch.testing.assert_close(twice[name], once[name])
    assert twice.logits_per_text.shape == (8, 4)


def test_like_captions_are_filtered_at_the_published_cosine():
    model = tiny(TmrModel).eval()
    alike, apart = torch.eye(4), torch.eye(4)
    alike[1, :2], apart[1, :2] = torch.tensor([0.61, 0.7924]), torch.tensor([0.59, 0.8074])
    with torch.no_grad():
        plain, near, far = (
            model(**batch() | {"caption_features": features}, return_loss=True).contrastive_loss
            for features in (torch.eye(4), alike, apart)
        )
    assert torch.equal(far, plain) and near < plain


@every_kind
def test_four_samples_are_overfitted(kind, form):
    # In evaluation mode: a sample's noise drowns a latent of 16 numbers for hundreds of steps.
    model = tiny(kind, form, num_hidden_layers=1).eval()
    data = batch()
    values = data["motion_values"] = data["motion_values"][:, :1].expand(-1, 22, -1)  # four poses, held
    blind = masked_smooth_l1(values.mean(dim=0).expand_as(values), values, data["motion_attention_mask"])
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(40):
        output = model(**data, return_loss=True)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
    # A decoder that does not read its latent can do no better than the mean motion.
    assert max(output.text_reconstruction_loss, output.motion_reconstruction_loss) < 0.5 * blind
    if kind is TmrModel:
        assert output.contrastive_loss < 0.1
        assert output.logits_per_text.argmax(dim=1).tolist() == [0, 1, 2, 3]
        assert output.logits_per_motion.argmax(dim=1).tolist() == [0, 1, 2, 3]


def test_a_width_that_heads_cannot_share_is_refused():
    with pytest.raises(ValueError, match=r"latent_size\b.*\b18\b.*num_attention_heads\b.*\b4\b"):
        TemosConfig(latent_size=18)
