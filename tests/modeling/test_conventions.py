"""What users of transformers expect of a model beyond its forward pass."""

import pytest
import tiny
import torch

from lexmotion import LexMotionForContrastiveMaskedMotion, LexMotionModel, LexMotionMotionModel

GROWN, SHRUNK = tiny.VOCABULARY + 5, 60


def vectors(model) -> tuple[torch.Tensor, torch.Tensor]:
    ids, mask = tiny.captions()
    values, frames = tiny.motions()
    with torch.no_grad():
        output = model(ids.clamp(max=SHRUNK - 1), values, mask, frames)
    return output.text_embeds, output.motion_embeds


@pytest.mark.parametrize("size", [GROWN, SHRUNK])
def test_word_vectors_follow_the_tokenizer(tmp_path, size):
    model = tiny.dual_model(active=range(tiny.VOCABULARY))
    model.config.text_config.num_active_words = model.config.motion_config.num_active_words = None
    model.limit_motion_words(torch.randn(20, tiny.VOCABULARY), 0.5)
    before, kept = vectors(model), min(size, tiny.VOCABULARY)
    model.resize_token_embeddings(size)
    after = vectors(model)
    for old, new in zip(before, after, strict=True):
        assert new.shape[1] == size
        torch.testing.assert_close(new[:, :kept], old[:, :kept])
    config = model.config
    assert config.text_config.vocab_size == config.motion_config.vocab_size == size
    assert model.text_model.word_embeddings.data_ptr() == model.motion_model.word_embeddings.weight.data_ptr()
    model.save_pretrained(tmp_path)
    for saved, loaded in zip(after, vectors(LexMotionModel.from_pretrained(tmp_path).eval()), strict=True):
        assert torch.equal(saved, loaded)


def test_active_words_stay_when_words_come_and_go():
    model = LexMotionMotionModel(tiny.motion_config())
    model.set_active_words(range(10, 90))
    model.resize_token_embeddings(GROWN)
    assert model.lexical_head.active_ids.tolist() == list(range(10, 90)) and model.config.num_active_words == 80
    model.resize_token_embeddings(SHRUNK)
    assert model.lexical_head.active_ids.tolist() == list(range(10, SHRUNK)) and model.config.num_active_words == 50
    with pytest.raises(ValueError, match=r"\b8\b.*\b50\b.*\b10\b.*set_active_words"):
        model.resize_token_embeddings(8)


def test_a_teacher_that_a_checkpoint_lacks_is_the_loaded_student(tmp_path):
    new = LexMotionForContrastiveMaskedMotion(tiny.motion_config())
    assert all(torch.equal(teacher, student) for teacher, student in new.teacher_parameters())
    torch.manual_seed(3)
    LexMotionMotionModel(tiny.motion_config()).save_pretrained(tmp_path)
    model = LexMotionForContrastiveMaskedMotion.from_pretrained(tmp_path)
    assert all(torch.equal(teacher, student) for teacher, student in model.teacher_parameters())


def test_the_loss_is_the_sum_of_its_parts():
    model = tiny.dual_model()
    ids, mask = tiny.captions()
    values, frames = tiny.motions()
    assert model(ids, values, mask, frames).loss is None
    output = model(ids, values, mask, frames, return_loss=True)
    parts = (output.contrastive_loss, output.text_flops_loss, output.motion_flops_loss)
    assert torch.equal(output.loss, sum(parts[1:], parts[0]))


def test_layers_of_the_motion_tower_on_request():
    model = LexMotionMotionModel._from_config(tiny.motion_config(), attn_implementation="eager").eval()
    values, frames = tiny.motions()
    token_mask = torch.zeros(len(values), 18, dtype=torch.bool)
    token_mask[:, ::3] = True
    output = model(values, frames, token_mask, output_hidden_states=True, output_attentions=True)
    assert [tuple(states.shape[1:]) for states in output.hidden_states] == [(12, 24), (12, 24), (18, 24)]
    assert output.hidden_states[-1] is output.last_hidden_state and len(output.attentions) == 2
    torch.testing.assert_close(output.attentions[0].sum(dim=-1), torch.ones(4, 2, 12))
    assert model(values, frames).hidden_states is None
