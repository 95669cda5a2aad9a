"""The order test and the parts of a score."""

import numpy as np
import pytest
import torch
from datasets import Dataset

from lexmotion.evaluation.encoding.vectors import encode_captions, encode_dataset, encode_motions, similarity
from lexmotion.evaluation.metrics.order import clustered_interval, multi_event_captions, order_metrics, share_won
from lexmotion.evaluation.model_evaluation import order_of_split

TOLD = [
    ["a person walks forward slowly then raises both arms up", "someone kicks"],
    ["a person jumps up"],
    ["the person kicks, then walks forward", "the person kicks, then walks forward"],
    ["a man walks forward before raising both arms"],
]


@pytest.fixture(scope="module")
def split(motions):
    return Dataset.from_dict(
        {
            "id": [f"{row:06d}" for row in range(len(motions))],
            "motion": [motion.reshape(len(motion), -1).tolist() for motion in motions],
            "fps": [20.0] * len(motions),
            "captions": TOLD,
        }
    )


@pytest.fixture(scope="module")
def parted(configs, processor):
    """A model with segments and a dense vector."""
    from lexmotion import LexMotionConfig, LexMotionModel

    torch.manual_seed(1)
    config = LexMotionConfig(
        text_config=configs[0], motion_config=configs[1], num_segments=2, dense_size=4, hybrid_weight=0.3
    )
    model = LexMotionModel(config)
    model.set_active_words(processor.lexicon.active_ids)
    return model.eval()


def test_captions_are_found_with_their_motions_and_each_once():
    captions, swapped, motions = multi_event_captions(TOLD)
    assert motions.tolist() == [0, 2, 3]
    assert swapped[1] == "the person walks forward, then kicks"
    assert swapped[2] == "a man walks forward after raising both arms"
    assert len(captions) == 3


def test_ties_count_half():
    assert share_won([2.0, 1.0, 1.0], [1.0, 2.0, 1.0]).tolist() == [1.0, 0.0, 0.5]


def test_figures_of_known_scores():
    captions = ["a man sits then stands", "a man jumps then runs", "a man walks before turning"]
    true = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.5]])
    swapped = np.array([[0.5, 0.5], [0.5, 0.5], [0.0, 1.0]])
    figures = order_metrics(true, swapped, captions, np.array([0, 1, 1]))
    assert figures["share"] == pytest.approx(2 / 3)
    assert figures["other_motions"] == pytest.approx((0 + 0 + 0.5) / 3)
    assert (figures["captions"], figures["motions"]) == (3, 2)
    assert (figures["share_then"], figures["captions_then"]) == (1.0, 2)
    assert (figures["share_before_after"], figures["captions_before_after"]) == (0.0, 1)
    assert 0.0 <= figures["low"] < figures["share"] < figures["high"] <= 1.0


def test_captions_of_one_motion_are_no_independent_draws():
    won = np.tile([1.0, 0.0], 50)
    alone = clustered_interval(won, np.arange(100))
    together = clustered_interval(won, np.arange(100) % 10)  # every motion wins all or none
    assert alone[1] - alone[0] == pytest.approx(2 * 1.96 * 0.5 / 99**0.5, rel=1e-3)
    assert together[1] - together[0] > 2.5 * (alone[1] - alone[0])


def test_no_multi_event_caption_is_an_error(model, processor, split):
    plain = split.remove_columns("captions").add_column("captions", [["a man jumps"]] * len(split))
    with pytest.raises(ValueError, match="events"):
        order_of_split(model, processor, plain)


def test_the_test_runs_on_models_with_and_without_parts(model, parted, processor, split):
    for tested in (model, parted):
        figures = order_of_split(tested, processor, split, batch_size=2)
        assert figures["captions"] == 3 and 0.0 <= figures["share"] <= 1.0
        assert ("share_words" in figures) == (tested is parted)


def test_the_score_of_a_split_is_the_models_own(parted, processor, split, motions):
    encoded = encode_dataset(parted, processor, split, batch_size=3)
    inputs = processor(text=encoded.captions, motion=motions, fps=20, return_tensors="pt")
    with torch.no_grad():
        expected = parted(**inputs).logits_per_text * parted.config.temperature
    np.testing.assert_allclose(similarity(encoded), expected.numpy(), atol=1e-5)
    words = similarity(encoded, segment_weight=0.0, hybrid_weight=0.0)
    assert np.abs(words - similarity(encoded)).max() > 1e-3


def test_words_of_both_paths_are_equal(parted, processor, split):
    captions = [texts[0] for texts in TOLD]
    np.testing.assert_allclose(
        encode_captions(parted, processor, captions).words.toarray(),
        parted.encode_text(captions, processor=processor, precision="fp32").toarray(),
        atol=1e-5,
    )
    np.testing.assert_allclose(
        encode_motions(parted, processor, split, batch_size=3).words.toarray(),
        parted.encode_motion(split, processor=processor, precision="fp32").toarray(),
        atol=1e-5,
    )


def test_order_of_the_batches_does_not_matter(parted, processor):
    captions = [texts[0] for texts in TOLD]
    one, three = (encode_captions(parted, processor, captions, batch_size) for batch_size in (1, 3))
    np.testing.assert_allclose(one.dense, three.dense, atol=1e-5)
    np.testing.assert_allclose(one.segments.toarray(), three.segments.toarray(), atol=1e-5)


@pytest.mark.parametrize("representation", ["dense", "lexicon"])
def test_baselines_are_encoded_and_tested_for_order_too(representation, configs, processor, split, motions):
    from lexmotion.baselines import TmrConfig, TmrModel

    torch.manual_seed(0)
    config = TmrConfig(
        encoder_config=configs[0].encoder_config,
        num_features=processor.feature_extractor.num_features,
        num_frames=32,
        representation=representation,
        latent_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    baseline = TmrModel(config).eval()
    encoded = encode_dataset(baseline, processor, split, batch_size=3)
    inputs = processor(text=encoded.captions, motion=motions, fps=20, return_tensors="pt")
    with torch.no_grad():
        texts = baseline.get_text_features(inputs["input_ids"], inputs["attention_mask"])
        seen = baseline.get_motion_features(inputs["motion_values"], inputs["motion_attention_mask"])
    expected = torch.nn.functional.cosine_similarity(texts[:, None], seen[None], dim=-1)
    np.testing.assert_allclose(similarity(encoded), expected.numpy(), atol=1e-5)
    assert order_of_split(baseline, processor, split)["captions"] == 3
