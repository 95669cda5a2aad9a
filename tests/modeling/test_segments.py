"""Word scores of segments: order counts, and nothing else changes."""

import pytest
import torch
from tiny import alignment, captions, dual_config, dual_model, motions

from lexmotion import LexMotionConfig, LexMotionModel
from lexmotion.segment_pooling import event_units, rows_of_segments, rows_of_units

ACTIVE = range(10, 90)
THEN, NEXT = 20, 21


def segmented_model(num_segments: int = 2, **fields) -> LexMotionModel:
    torch.manual_seed(0)
    model = LexMotionModel(dual_config(num_segments=num_segments, **fields))
    model.set_active_words(ACTIVE)
    return model.eval()


def pairs() -> dict[str, torch.Tensor]:
    ids, mask = captions()
    values, frames = motions()
    return {"input_ids": ids, "attention_mask": mask, "motion_values": values, "motion_attention_mask": frames}


def test_without_segments_nothing_is_added():
    model = dual_model()
    same = LexMotionModel(LexMotionConfig(**dual_config(segment_weight=0.9, hybrid_weight=0.9).to_dict()))
    assert list(same.state_dict()) == list(model.state_dict())
    output = model(**pairs())
    assert output.text_model_output.segment_scores is None
    y_t, y_m = (torch.nn.functional.normalize(z, dim=1) for z in (output.text_embeds, output.motion_embeds))
    torch.testing.assert_close(output.logits_per_text, y_t @ y_m.T / model.config.temperature)


@pytest.mark.parametrize("num_segments", [2, 3, 5])
@pytest.mark.parametrize("event_words", [None, [THEN]])
def test_the_vectors_of_the_index_do_not_change(num_segments, event_words):
    plain, segmented = dual_model(), segmented_model(num_segments, event_words=event_words)
    assert list(plain.state_dict()) == list(segmented.state_dict())
    batch = pairs()
    batch["input_ids"][:2, 4] = THEN
    expected, output = plain(**batch), segmented(**batch)
    for name in ("text", "motion"):
        torch.testing.assert_close(output[f"{name}_embeds"], expected[f"{name}_embeds"])
        ours, theirs = output[f"{name}_model_output"], expected[f"{name}_model_output"]
        assert (ours.winning_tokens == theirs.winning_tokens).all()
        scores = ours.text_scores if name == "text" else ours.motion_scores
        assert torch.equal(ours.segment_scores.amax(dim=1), scores)


def test_a_segment_is_the_pooling_of_its_tokens():
    model, batch = segmented_model(2), pairs()
    output = model.get_motion_features(
        batch["motion_values"], batch["motion_attention_mask"], output_token_logits=True
    )
    # 22 frames in windows of 4: 6 windows of 3 parts, but row 2 has 13 frames: 4 windows, the last of one frame
    half = {0: 3, 2: 2}
    for row, windows in half.items():
        logits = output.token_logits[row, : 2 * windows * 3].unflatten(0, (2, -1))
        torch.testing.assert_close(output.segment_scores[row], logits.amax(dim=1))


def test_padding_does_not_move_the_segments():
    model, batch = segmented_model(3), pairs()
    row = 2
    alone = model.get_motion_features(batch["motion_values"][row : row + 1, :13])
    together = model.get_motion_features(batch["motion_values"], batch["motion_attention_mask"])
    torch.testing.assert_close(alone.segment_scores[0], together.segment_scores[row])
    alone = model.get_text_features(batch["input_ids"][1:2, :5])
    together = model.get_text_features(batch["input_ids"], batch["attention_mask"])
    torch.testing.assert_close(alone.segment_scores[0], together.segment_scores[1])


def test_events_begin_at_their_words():
    #                      a   b  then  c  next then d  pad
    ids = torch.tensor([[1, 30, 31, THEN, 32, NEXT, THEN, 33, 0], [1, THEN, 30, 31, 32, 2, THEN, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1, 0, 0, 0]])
    units = event_units(ids, mask, [THEN, NEXT])
    assert units[0, :8].tolist() == [0, 0, 0, 1, 1, 2, 2, 2]
    assert units[1, :6].tolist() == [0] * 6
    assert event_units(ids, mask)[1, :6].tolist() == [0, 1, 2, 3, 4, 5]


def test_units_share_the_time_equally():
    units = torch.tensor([[0, 1, 2, 3, 4], [0, 0, 1, 1, 9]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]])
    rows, count = rows_of_units(units, mask, 3)
    assert count.tolist() == [3, 2]
    assert rows[0].tolist() == [0, 0, 1, 1, 2] and rows[1, :4].tolist() == [0, 0, 1, 1]
    shared = rows_of_segments(torch.tensor([3, 2, 1]), 3)
    assert torch.equal(shared[0], torch.eye(3, dtype=torch.bool))
    assert shared[1].tolist() == [[True, False, False], [True, True, False], [False, True, False]]
    assert shared[2].tolist() == [[True, False, False]] * 3


def test_one_event_fills_every_segment():
    model, (ids, mask) = segmented_model(3, event_words=[THEN]), captions()
    ids[ids == THEN] = THEN + 1
    output = model.get_text_features(ids, mask)
    torch.testing.assert_close(output.segment_scores, output.text_scores[:, None].expand(-1, 3, -1))


@pytest.mark.parametrize("limited", [False, True])
def test_the_score_is_the_blend_and_hears_order(limited):
    model = segmented_model(2, segment_weight=0.25)
    output = model(**pairs())
    if limited:  # the words of a segment keep to the limits of a vector, in the model's score as in its parts
        model.set_word_limits(text=(2, 20), motion=(3, 30))
        model.limit_motion_words(output.motion_model_output.motion_scores, 0.6)
        output = model(**pairs())
    heads = {"text": model.text_model.lexical_head, "motion": model.motion_model.lexical_head}
    parts = {
        side: torch.nn.functional.normalize(head.weigh(output[f"{side}_model_output"].segment_scores), dim=-1)
        for side, head in heads.items()
    }
    whole = torch.nn.functional.cosine_similarity(output.text_embeds[:, None], output.motion_embeds[None], dim=-1)
    ordered = torch.einsum("tka,mka->tm", parts["text"], parts["motion"]) / 2
    expected = 0.75 * whole + 0.25 * ordered
    torch.testing.assert_close(output.logits_per_text * model.config.temperature, expected)
    flipped = torch.einsum("tka,mka->tm", parts["text"].flip(1), parts["motion"]) / 2
    assert (flipped - ordered).abs().max() > 1e-4


def test_the_order_loss_is_a_contrast_of_two_and_skips_filling():
    model, batch = segmented_model(2), pairs()
    swapped, mask = captions(2, seed=5)
    rows = torch.tensor([3, -1])
    clips = {"text_clip_ids": torch.tensor([7, 8, 9, 5]), "motion_clip_ids": torch.tensor([5, 9, 8, 7])}
    more = {"swapped_input_ids": swapped, "swapped_attention_mask": mask, "swapped_rows": rows}
    head = alignment(model)
    loss = head(**batch, **clips, **more).order_loss
    motion = model.score_vectors(model.get_motion_features(batch["motion_values"], batch["motion_attention_mask"]))[0]
    true = model.score_vectors(model.get_text_features(batch["input_ids"], batch["attention_mask"]))[3]
    other = model.score_vectors(model.get_text_features(swapped, mask))[0]
    expected = torch.nn.functional.softplus((other @ motion - true @ motion) / model.config.temperature)
    torch.testing.assert_close(loss, expected)
    more["swapped_rows"] = torch.tensor([-1, -1])
    assert head(**batch, **clips, **more).order_loss == 0


def test_gradients_reach_both_towers_through_segments_alone():
    model, batch = segmented_model(2), pairs()
    output = model(**batch)
    text, motion = output.text_model_output, output.motion_model_output
    (text.segment_scores.sum() + motion.segment_scores.sum()).backward()
    for weight in (model.text_model.lexical_head.dense.weight, model.motion_model.projection.weight):
        assert weight.grad.abs().max() > 0


def test_hidden_windows_leave_no_empty_segment():
    model, batch = segmented_model(3), pairs()
    hidden = torch.zeros(4, 18, dtype=torch.bool)
    hidden[0, 6:12] = True  # the middle third of row 0
    output = model.get_motion_features(batch["motion_values"], batch["motion_attention_mask"], token_mask=hidden)
    assert torch.isfinite(output.segment_scores).all()
    torch.testing.assert_close(output.segment_scores[0, 1], output.motion_scores[0])


def test_configuration_errors_name_the_value():
    with pytest.raises(ValueError, match=r"num_segments\b.*\b0\b"):
        dual_config(num_segments=0)
    with pytest.raises(ValueError, match=r"segment_weight\b.*\b1\.0\b"):
        dual_config(segment_weight=1.0)
