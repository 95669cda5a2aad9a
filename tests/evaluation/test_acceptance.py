import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from lexmotion import (
    LexMotionForContrastiveMaskedMotion,
    LexMotionForLexicalMaskedLM,
    LexMotionForLexicalMaskedMotion,
)
from lexmotion.evaluation import acceptance


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 12), st.integers(0, 999))
def test_interpolation_equals_numpy(frames, seed):
    random = np.random.default_rng(seed)
    values, known = random.normal(size=(frames, 3)), random.random((frames, 3)) < 0.5
    ours = acceptance.interpolate(torch.from_numpy(values)[None], torch.from_numpy(known)[None])[0].numpy()
    time = np.arange(frames)
    for column in range(3):
        at = known[:, column]
        expected = np.interp(time, time[at], values[at, column]) if at.any() else np.zeros(frames)
        np.testing.assert_allclose(ours[:, column], expected, atol=1e-6)


def text_batch(processor, captions):
    tokens = processor.tokenizer(captions, padding=True, return_tensors="pt")
    ids = tokens["input_ids"]
    active = torch.isin(ids, torch.as_tensor(processor.lexicon.active_ids))
    seen = active & (torch.arange(ids.shape[1]) % 3 > 0)
    mask = processor.tokenizer.mask_token_id
    return {
        "input_ids": torch.where(active & ~seen, mask, ids),
        "attention_mask": tokens["attention_mask"],
        "labels": torch.where(active & ~seen, ids, -100),
        # The decoder sees no word at all: what it knows came through the bottleneck.
        "decoder_input_ids": torch.where(active, mask, ids),
        "decoder_labels": torch.where(active, ids, -100),
    }


@pytest.fixture(scope="module")
def lexmlm(configs, processor):
    torch.manual_seed(0)
    model = LexMotionForLexicalMaskedLM(configs[0])
    model.text_model.set_active_words(processor.lexicon.active_ids)
    return model


def test_lexmlm_sees_the_caption_as_it_was(processor, captions):
    batch = text_batch(processor, captions)
    original = processor.tokenizer(captions, padding=True, return_tensors="pt")["input_ids"]
    assert torch.equal(acceptance._unmasked(batch), original)


def test_lexmlm_learns_to_use_its_bottleneck(lexmlm, processor, captions):
    batch = text_batch(processor, captions)
    optimizer = torch.optim.AdamW(lexmlm.parameters(), lr=1e-2)
    lexmlm.train()
    for _ in range(60):
        output = lexmlm(**batch)
        (output.encoder_loss + output.decoder_loss).backward()
        optimizer.step()
        optimizer.zero_grad()
    figures = acceptance.evaluate_lexmlm(lexmlm, [batch, batch], processor.lexicon, base_model=lexmlm)
    assert lexmlm.training
    assert figures["gain_over_zeroed"] > 0 and figures["gain_over_shuffled_ci"] >= 0
    for name in ("stop_word_share", "content_word_share"):
        assert 0 <= figures[name] <= 1 and figures[name] == figures[f"base_{name}"]


def motion_batch(processor, motions):
    values = processor.feature_extractor(motions, fps=20.0)
    generator = torch.Generator().manual_seed(0)
    return {**values, "token_mask": torch.rand(len(motions), 20, generator=generator) < 0.5}


def test_cmmm_against_its_baselines(configs, processor, motions):
    torch.manual_seed(0)
    model = LexMotionForContrastiveMaskedMotion(configs[1])
    batch = motion_batch(processor, motions)
    batch |= {
        "teacher_motion_values": batch["motion_values"],
        "teacher_motion_attention_mask": batch["motion_attention_mask"],
    }
    figures = acceptance.evaluate_cmmm(model, [batch], processor.feature_extractor)
    # A sway of five centimetres around a fixed pose: straight lines are near, the mean pose of all motions is not.
    assert 0 < figures["interpolation_error"] < figures["mean_pose_error"]
    assert figures["same_clip_r1"] == 100.0 and figures["same_clip_chance"] == 25.0
    values = batch["motion_values"]
    perfect = model(**batch)
    perfect.reconstruction = values
    model.forward = lambda **_: perfect
    assert acceptance.evaluate_cmmm(model, [batch], processor.feature_extractor)["masked_error"] == 0.0


@pytest.mark.parametrize(("representation", "first", "count"), [("positions", 0, 66), ("humanml3d", 4, 63)])
def test_position_columns(representation, first, count):
    from lexmotion import LexMotionFeatureExtractor

    columns = acceptance.position_columns(LexMotionFeatureExtractor(representation))
    assert columns.tolist() == list(range(first, first + count))


def test_lexmmm_figures(configs, processor, captions, motions, model):
    torch.manual_seed(0)
    phase = LexMotionForLexicalMaskedMotion(model.config)
    phase.model.set_active_words(processor.lexicon.active_ids)
    text = text_batch(processor, captions)
    bow = torch.from_numpy(processor.lexicon.bow_weights([[caption] for caption in captions]))
    batch = motion_batch(processor, motions) | {
        "decoder_input_ids": text["decoder_input_ids"],
        "decoder_attention_mask": text["attention_mask"],
        "decoder_labels": text["decoder_labels"],
        "bow_weights": bow,
    }
    prior = acceptance.word_frequency([row.nonzero()[:, 0].tolist() for row in bow], bow.shape[1])
    figures = acceptance.evaluate_lexmmm(phase, [batch], processor.lexicon, prior)
    assert {"caption_loss", "gain_over_shuffled", "gain_content_words", "gain_stop_words"} <= set(figures)
    assert 0 < figures["prior_top20"] <= 1 and 0 <= figures["coverage_top20"] <= 1


def test_a_perfect_space_has_perfect_figures(processor, captions):
    lexicon = processor.lexicon
    content = [lexicon.content_ids(caption) for caption in captions]
    embeds = np.zeros((len(captions), lexicon.vocab_size), dtype=np.float32)
    for row, words in enumerate(content):
        embeds[row, words] = 1.0
    embeds = sparse.csr_matrix(embeds)
    figures = acceptance.evaluate_lexical_space(embeds, embeds, content, lexicon, np.ones(lexicon.vocab_size))
    assert figures["coverage_top10"] == 1.0 and figures["overlap_top20"] == 1.0
    assert figures["motion_empty"] == 0 and figures["text_active_words"] == figures["motion_active_words"]
    assert figures["prior_top10"] < 1.0


def test_one_batch_gives_no_finite_interval():
    assert acceptance._gain([1.0], [2.0], [3]) == (1.0, float("inf"))
    gain, interval = acceptance._gain([1.0, 1.0], [2.0, 4.0], [1, 1])
    assert gain == 2.0 and 0 < interval < float("inf")
