"""A dense vector beside the lexical one."""

import pytest
import torch
from tiny import alignment, captions, dual_config, dual_model, motions

from lexmotion import LexMotionModel


def hybrid_model(**fields) -> LexMotionModel:
    torch.manual_seed(0)
    model = LexMotionModel(dual_config(dense_size=8, **fields))
    model.set_active_words(range(10, 90))
    return model.eval()


def pairs() -> dict[str, torch.Tensor]:
    ids, mask = captions()
    values, frames = motions()
    return {"input_ids": ids, "attention_mask": mask, "motion_values": values, "motion_attention_mask": frames}


def test_only_the_readouts_are_new():
    plain, hybrid = dual_model(), hybrid_model()
    new = {f"{side}_readout.{name}" for side in ("text", "motion") for name in ("weight", "bias")}
    assert set(hybrid.state_dict()) - set(plain.state_dict()) == new
    missing, unexpected = hybrid.load_state_dict(plain.state_dict(), strict=False)
    assert set(missing) == new and not unexpected
    expected, output = plain(**pairs()), hybrid(**pairs())
    torch.testing.assert_close(output.text_embeds, expected.text_embeds)
    torch.testing.assert_close(output.motion_embeds, expected.motion_embeds)


def test_the_score_is_the_weighted_sum_of_cosines():
    model = hybrid_model(hybrid_weight=0.2)
    output = model(**pairs())
    text, motion = output.text_model_output, output.motion_model_output
    cosine = torch.nn.functional.cosine_similarity
    words = cosine(output.text_embeds[:, None], output.motion_embeds[None], dim=-1)
    dense = cosine(text.dense_embeds[:, None], motion.dense_embeds[None], dim=-1)
    torch.testing.assert_close(output.logits_per_text * model.config.temperature, 0.8 * words + 0.2 * dense)
    torch.testing.assert_close(output.logits_per_motion, output.logits_per_text.T)


def test_padding_does_not_change_the_dense_vector():
    model, batch = hybrid_model(), pairs()
    alone = model.get_text_features(batch["input_ids"][1:2, :5]).dense_embeds[0]
    together = model.get_text_features(batch["input_ids"], batch["attention_mask"]).dense_embeds[1]
    torch.testing.assert_close(alone, together)
    alone = model.get_motion_features(batch["motion_values"][2:3, :13]).dense_embeds[0]
    together = model.get_motion_features(batch["motion_values"], batch["motion_attention_mask"]).dense_embeds[2]
    torch.testing.assert_close(alone, together)


def test_its_contrast_trains_the_readouts_and_the_words_have_their_own():
    model, batch = hybrid_model(), pairs()
    output = alignment(model)(**batch)
    output.dense_contrastive_loss.backward(retain_graph=True)
    assert model.text_readout.weight.grad.abs().max() > 0 and model.motion_readout.weight.grad.abs().max() > 0
    assert model.text_model.lexical_head.dense.weight.grad is None
    model.zero_grad()
    output.contrastive_loss.backward()
    assert model.text_readout.weight.grad is None


@pytest.mark.parametrize("fields", [{}, {"num_segments": 2, "event_words": [20]}])
def test_saved_and_loaded_it_scores_the_same(fields, tmp_path):
    model = hybrid_model(**fields)
    expected = model(**pairs()).logits_per_text
    model.save_pretrained(tmp_path)
    loaded = LexMotionModel.from_pretrained(tmp_path).eval()
    assert loaded.config.dense_size == 8 and loaded.config.num_segments == fields.get("num_segments", 1)
    assert torch.equal(loaded(**pairs()).logits_per_text, expected)


def test_it_learns_four_pairs():
    model, batch = hybrid_model(num_segments=2), pairs()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    head = alignment(model.train())
    for _ in range(60):
        output = head(**batch)
        optimizer.zero_grad()
        (output.contrastive_loss + output.dense_contrastive_loss).backward()
        optimizer.step()
    scores = model.eval()(**batch).logits_per_text
    assert scores.argmax(dim=1).tolist() == [0, 1, 2, 3]


def test_configuration_errors_name_the_value():
    with pytest.raises(ValueError, match=r"dense_size\b.*\b0\b"):
        dual_config(dense_size=0)
    with pytest.raises(ValueError, match=r"hybrid_weight\b.*-0\.1\b"):
        dual_config(hybrid_weight=-0.1)
