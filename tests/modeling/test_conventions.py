"""What users of transformers expect of a model beyond its forward pass."""

import json

import pytest
import tiny
import torch

from lexmotion import (
    LexMotionForContrastiveAlignment,
    LexMotionForContrastiveMaskedMotion,
    LexMotionModel,
    LexMotionMotionModel,
)

GROWN, SHRUNK = tiny.VOCABULARY + 5, 60


def pairs() -> tuple[torch.Tensor, ...]:
    """Captions, motions and their masks, in the order of `forward`."""
    (ids, mask), (values, frames) = tiny.captions(), tiny.motions()
    return ids, values, mask, frames


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
    output = tiny.alignment(model)(ids, values, mask, frames)
    parts = (output.contrastive_loss, output.text_flops_loss, output.motion_flops_loss)
    assert torch.equal(output["loss"], sum(parts[1:], parts[0]))


def test_the_plain_loss_is_the_contrast_of_the_scores():
    model = tiny.dual_model()
    output = model(*pairs(), return_loss=True)
    logits, right = output.logits_per_text, torch.arange(4)
    expected = 0.5 * sum(torch.nn.functional.cross_entropy(scores, right) for scores in (logits, logits.T))
    torch.testing.assert_close(output["loss"], expected)
    clips = torch.tensor([1, 1, 2, 3])  # two captions of one clip, and the motion of it twice
    assert model(*pairs(), clips, clips, return_loss=True).loss > 0


def test_the_head_of_phase_four_has_no_weights_of_its_own(tmp_path):
    model = tiny.dual_model()
    expected = tiny.alignment(model)(*pairs()).loss
    model.save_pretrained(tmp_path / "model")
    head = LexMotionForContrastiveAlignment.from_pretrained(tmp_path / "model", hard_negative_beta=0.5).eval()
    assert head.hard_negative_beta == 0.5 and head(*pairs()).loss != expected
    head.hard_negative_beta = None
    assert torch.equal(head(*pairs()).loss, expected)
    head.save_pretrained(tmp_path / "head")
    loaded = LexMotionModel.from_pretrained(tmp_path / "head").eval()
    for ours, wanted in zip(vectors(loaded), vectors(model), strict=True):
        assert torch.equal(ours, wanted)


def test_captions_that_say_the_same_are_no_negatives_below_the_threshold():
    model, features = tiny.dual_model(), torch.nn.functional.one_hot(torch.tensor([0, 0, 1, 2])).float()

    def contrast(**options):
        return tiny.alignment(model, **options)(*pairs(), caption_features=features).contrastive_loss

    plain = tiny.alignment(model)(*pairs())
    assert torch.equal(contrast(false_negative_threshold=None), plain.contrastive_loss)
    logits = plain.logits_per_text.masked_fill(
        torch.block_diag(1 - torch.eye(2), torch.zeros(2, 2)).bool(), -torch.inf
    )
    right = torch.arange(4)
    expected = 0.5 * sum(torch.nn.functional.cross_entropy(scores, right) for scores in (logits, logits.T))
    torch.testing.assert_close(contrast(), expected)


def test_a_checkpoint_that_names_training_options_loads_without_them(tmp_path):
    model = tiny.dual_model()
    model.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    old = {"false_negative_threshold": 0.3, "hard_negative_beta": 0.15}
    config["motion_config"]["contrast_temperature"] = 0.1
    path.write_text(json.dumps(config | old))
    (tmp_path / "checksums.json").unlink()
    loaded = LexMotionModel.from_pretrained(tmp_path).eval()
    saved = loaded.config.to_dict()
    assert old.keys().isdisjoint(saved) and "contrast_temperature" not in saved["motion_config"]
    for ours, wanted in zip(vectors(loaded), vectors(model), strict=True):
        assert torch.equal(ours, wanted)


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
