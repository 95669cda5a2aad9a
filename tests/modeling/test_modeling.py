import pytest
import tiny
import torch
from transformers import AutoModel, AutoModelForPreTraining

from lexmotion import (
    LexMotionForContrastiveMaskedMotion,
    LexMotionForLexicalMaskedLM,
    LexMotionForLexicalMaskedMotion,
    LexMotionModel,
    LexMotionMotionModel,
    LexMotionTextModel,
    layers_lexmotion,
)


@pytest.fixture(scope="module")
def model():
    return tiny.dual_model()


def test_padding_changes_no_embedding(model):
    ids, mask = tiny.captions()
    values, frames = tiny.motions()
    with torch.no_grad():
        text = model.get_text_features(ids, mask).text_embeds
        motion = model.get_motion_features(values, frames).motion_embeds
        short = model.get_text_features(ids[1:2, :5], mask[1:2, :5]).text_embeds
        clip = model.get_motion_features(values[2:3, :13], frames[2:3, :13]).motion_embeds
    torch.testing.assert_close(short[0], text[1], atol=1e-5, rtol=0)
    torch.testing.assert_close(clip[0], motion[2], atol=1e-5, rtol=0)


def test_what_stands_in_the_padding_is_not_read(model):
    values, frames = tiny.motions()
    dirty = torch.where(frames.bool()[..., None], values, 1e4)
    with torch.no_grad():
        clean, other = (model.get_motion_features(v, frames).motion_embeds for v in (values, dirty))
    torch.testing.assert_close(clean, other, atol=1e-5, rtol=0)


def test_batch_equals_single(model):
    ids, mask = tiny.captions()
    values, frames = tiny.motions()
    with torch.no_grad():
        together = model(ids, values, mask, frames)
        for row in range(len(ids)):
            alone = model(ids[row : row + 1], values[row : row + 1], mask[row : row + 1], frames[row : row + 1])
            torch.testing.assert_close(alone.text_embeds[0], together.text_embeds[row], atol=1e-5, rtol=0)
            torch.testing.assert_close(alone.motion_embeds[0], together.motion_embeds[row], atol=1e-5, rtol=0)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_attention_implementations_agree(model, implementation, tmp_path):
    model.save_pretrained(tmp_path)
    other = LexMotionModel.from_pretrained(tmp_path, attn_implementation=implementation).eval()
    values, frames = tiny.motions()
    with torch.no_grad():
        torch.testing.assert_close(
            other.get_motion_features(values, frames).motion_embeds,
            model.get_motion_features(values, frames).motion_embeds,
            atol=1e-5,
            rtol=1e-5,
        )


def test_save_and_load_are_bit_equal_through_auto_model(model, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path).eval()
    assert isinstance(loaded, LexMotionModel)
    ids, mask = tiny.captions()
    values, frames = tiny.motions()
    with torch.no_grad():
        ours, theirs = (m(ids, values, mask, frames) for m in (model, loaded))
    assert torch.equal(ours.text_embeds, theirs.text_embeds)
    assert torch.equal(ours.motion_embeds, theirs.motion_embeds)
    assert loaded.motion_model.word_embeddings.weight is loaded.text_model.word_embeddings


@pytest.mark.parametrize(
    ("tower", "arguments"),
    [(LexMotionTextModel, tiny.captions()), (LexMotionMotionModel, tiny.motions())],
)
def test_a_tower_loads_alone_from_the_whole_checkpoint(model, tower, arguments, tmp_path):
    model.save_pretrained(tmp_path / "whole")
    alone = tower.from_pretrained(tmp_path / "whole").eval()
    alone.save_pretrained(tmp_path / "alone")
    again = tower.from_pretrained(tmp_path / "alone").eval()
    whole = model.text_model if tower is LexMotionTextModel else model.motion_model
    with torch.no_grad():
        expected = whole(*arguments)[0]
        assert torch.equal(alone(*arguments)[0], expected)
        assert torch.equal(again(*arguments)[0], expected)


def test_embeddings_are_non_negative_and_zero_outside_the_active_words(model):
    with torch.no_grad():
        embeds = model.get_motion_features(*tiny.motions()).motion_embeds
    assert embeds.shape == (4, tiny.VOCABULARY)
    assert (embeds >= 0).all() and embeds[:, :10].sum() == 0 and embeds[:, 90:].sum() == 0


def test_masked_tokens_are_not_seen_by_the_encoder(model):
    values, frames = tiny.motions(rows=1, frames=24)
    frames[:] = 1
    token_mask = torch.zeros(1, 18, dtype=torch.bool)
    token_mask[:, 6:9] = True  # window 2, all parts
    changed = values.clone()
    changed[:, 8:12] += 5.0
    with torch.no_grad():
        first, second = (model.motion_model(v, frames, token_mask) for v in (values, changed))
    assert torch.equal(first.motion_embeds, second.motion_embeds)
    assert not first.token_attention_mask[0, 6:9].any()
    assert first.last_hidden_state[0, 6:9].abs().sum() == 0


def test_hiding_no_token_equals_no_mask(model):
    values, frames = tiny.motions()
    with torch.no_grad():
        plain = model.motion_model(values, frames)
        masked = model.motion_model(values, frames, torch.zeros(4, 18, dtype=torch.bool))
    torch.testing.assert_close(plain.motion_embeds, masked.motion_embeds, atol=1e-5, rtol=0)


def test_token_logits_explain_the_pooled_scores(model):
    with torch.no_grad():
        output = model.get_motion_features(*tiny.motions(), output_token_logits=True)
    logits = output.token_logits.masked_fill(~output.token_attention_mask[..., None], -torch.inf)
    best, winner = logits.max(dim=1)
    torch.testing.assert_close(best, output.motion_scores, atol=1e-5, rtol=1e-5)
    assert torch.equal(winner, output.winning_tokens.long())
    assert output.grid == (6, 3)


def test_a_one_frame_motion_still_has_a_token(model):
    with torch.no_grad():
        output = model.get_motion_features(torch.randn(1, 1, 12))
    assert output.token_attention_mask.sum() == 3 and output.motion_embeds.isfinite().all()


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 8, 5), r"motion_values.*\(2, 8, 5\).*frames, 12\)"),
        ((2, 40, 12), r"motion_values.*\b40\b.*\b24\b"),
        ((8, 12), r"motion_values.*\(8, 12\).*frames, 12\)"),
    ],
)
def test_wrong_motion_shapes_are_refused(model, shape, message):
    with pytest.raises(ValueError, match=message):
        model.get_motion_features(torch.zeros(shape))


def test_towers_without_a_common_vocabulary_are_refused():
    with pytest.raises(ValueError, match=r"motion_config.*\b7\b.*\b99\b.*vocab_size"):
        type(tiny.dual_config())(text_config=tiny.text_config(), motion_config=tiny.motion_config(vocab_size=7))


def test_unknown_words_are_refused(model):
    with pytest.raises(ValueError, match=r"active_ids.*5\.\.99\b.*\b99\b"):
        model.set_active_words([5, 99])


def test_labels_outside_the_active_words_are_refused(model):
    ids, mask = tiny.captions()
    hidden = torch.zeros(*ids.shape, 32)
    with pytest.raises(ValueError, match=r"\b3\b.*active word"):
        model.text_model.masked_lm_loss(hidden, torch.where(mask.bool(), 3, -100))


def test_identity_head_keeps_the_geometry_of_an_encoder_without_one(tmp_path):
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(tmp_path)
    tower = LexMotionTextModel.from_text_pretrained(str(tmp_path), active_ids=range(5, 50))
    head = tower.lexical_head
    assert torch.equal(head.dense.weight, torch.eye(16)) and head.bias.abs().sum() == 0
    assert tower.config.num_active_words == 45


@pytest.mark.parametrize("model_type", ["bert", "distilbert"])
def test_a_masked_lm_head_is_taken_over(tmp_path, model_type):
    from transformers import AutoModelForMaskedLM

    torch.manual_seed(0)
    published = AutoModelForMaskedLM.from_config(tiny.text_config(model_type).encoder_config).eval()
    published.save_pretrained(tmp_path)
    tower = LexMotionTextModel.from_text_pretrained(str(tmp_path)).eval()
    ids, mask = tiny.captions()
    with torch.no_grad():
        logits = published(input_ids=ids, attention_mask=mask).logits
        ours = tower(ids, mask, output_token_logits=True).token_logits
    torch.testing.assert_close(ours, logits, atol=1e-5, rtol=1e-5)


def lexmlm():
    torch.manual_seed(0)
    model = LexMotionForLexicalMaskedLM(tiny.text_config())
    model.text_model.set_active_words(range(10, 90))
    return model


def test_lexmlm_bottleneck_speaks_to_the_decoder():
    model = lexmlm().eval()
    ids, mask = tiny.captions()
    labels = tiny.labels_for(ids, (2,))
    output = model(ids, mask, labels, ids.where(labels == -100, 1), labels)
    torch.testing.assert_close(output.importance.sum(dim=1), torch.ones(4))
    gradient = torch.autograd.grad(output.decoder_loss, model.text_model.lexical_head.bias)[0]
    assert gradient.abs().sum() > 0
    told = (ids, mask, labels)
    other = model.text_decoder(model.text_model, output.bottleneck + 1.0 * torch.randn(32), *told)
    assert other != model.text_decoder(model.text_model, output.bottleneck, *told)


def test_lexmlm_loads_through_auto_model_for_pretraining(tmp_path):
    model = lexmlm().eval()
    model.save_pretrained(tmp_path)
    loaded = AutoModelForPreTraining.from_pretrained(tmp_path).eval()
    ids, mask = tiny.captions()
    assert torch.equal(loaded(ids, mask).importance, model(ids, mask).importance)


def cmmm():
    torch.manual_seed(0)
    return LexMotionForContrastiveMaskedMotion(tiny.motion_config())


def test_cmmm_parts_and_teacher():
    model = cmmm()
    values, frames = tiny.motions()
    token_mask = torch.rand(4, 18) < 0.5
    output = model(values, frames, token_mask, values, frames, torch.arange(4))
    (output.position_loss + output.velocity_loss + output.contrastive_loss).backward()
    assert all(parameter.grad is None for parameter in model.teacher_encoder.parameters())
    with torch.no_grad():
        for parameter in model.motion_model.encoder.parameters():
            parameter.add_(1.0)
    student = next(model.motion_model.encoder.parameters())
    teacher = next(model.teacher_encoder.parameters())
    before = teacher.clone()
    model.update_teacher(0.9)
    torch.testing.assert_close(teacher, 0.9 * before + 0.1 * student)


def test_cmmm_rebuilds_only_hidden_tokens():
    model = cmmm().eval()
    values, frames = tiny.motions()
    token_mask = torch.zeros(4, 18, dtype=torch.bool)
    token_mask[:, 4] = True  # window 1, part 1
    output = model(values, frames, token_mask)
    touched = output.reconstruction.abs().sum(dim=0) > 0
    assert touched[4:8, 6:12].all() and touched.sum() == 4 * 6


def test_cmmm_losses_ignore_padding():
    model = cmmm().eval()
    values, frames = tiny.motions()
    token_mask = torch.ones(4, 18, dtype=torch.bool)
    token_mask[:, :3] = False
    dirty = torch.where(frames.bool()[..., None], values, 50.0)
    first, second = (model(v, frames, token_mask) for v in (values, dirty))
    torch.testing.assert_close(first.position_loss, second.position_loss)
    torch.testing.assert_close(first.velocity_loss, second.velocity_loss)


def test_cmmm_displacements_are_normalized_per_token():
    model = cmmm().eval()
    values, frames = tiny.motions()
    token_mask = torch.zeros(4, 18, dtype=torch.bool)
    token_mask[:, 4] = True  # window 1, part 1
    part = model.config.parts[1]
    first, second = values.clone(), 3.0 * values + 7.0
    one, other = (
        model(values, frames, token_mask, displacements=d, displacement_columns=part[:2]) for d in (first, second)
    )
    # Shift and scale of a token do not matter, nor do other columns.
    torch.testing.assert_close(one.velocity_loss, other.velocity_loss, rtol=1e-4, atol=1e-4)
    first[..., part[2:]] = 50.0
    again = model(values, frames, token_mask, displacements=first, displacement_columns=part[:2])
    torch.testing.assert_close(one.velocity_loss, again.velocity_loss)
    assert one.position_loss == model(values, frames, token_mask).position_loss
    dirty = torch.where(frames.bool()[..., None], values, 50.0)
    padded = model(values, frames, token_mask, displacements=dirty, displacement_columns=part[:2])
    torch.testing.assert_close(one.velocity_loss, padded.velocity_loss)


def lexmmm():
    torch.manual_seed(0)
    model = LexMotionForLexicalMaskedMotion(tiny.dual_config())
    model.model.set_active_words(range(10, 90))
    return model


def test_lexmmm_parts_and_frozen_words():
    model = lexmmm()
    ids, mask = tiny.captions()
    values, frames = tiny.motions()
    labels = tiny.labels_for(ids)
    bow = torch.zeros(4, tiny.VOCABULARY)
    bow[:, 20] = 1.0
    hidden = torch.rand(4, 18) < 0.5
    output = model(values, frames, hidden, hidden, ids, mask, labels, bow, ids, mask, labels)
    for part in ("caption_loss", "motion_loss", "bow_loss", "mlm_loss"):
        assert output[part].isfinite()
    output.bow_loss.backward()
    assert model.model.text_model.word_embeddings.grad is None
    assert model.model.motion_model.projection.weight.grad.abs().sum() > 0


def test_lexmmm_motion_loss_reads_the_words():
    model = lexmmm().eval()
    values, frames = tiny.motions()
    hidden = torch.ones(4, 18, dtype=torch.bool)
    loss = model(values, frames, None, hidden).motion_loss
    assert torch.autograd.grad(loss, model.model.motion_model.lexical_head.bias)[0].abs().sum() > 0


def test_dual_loss_by_clip_ids_allows_several_captions(model):
    ids, mask = tiny.captions(rows=6)
    values, frames = tiny.motions(rows=3)
    clips = torch.arange(3)
    batch = (ids, values, mask, frames, clips.repeat_interleave(2), clips)
    output = tiny.alignment(model)(*batch, torch.arange(6))
    assert output.logits_per_text.shape == (6, 3)
    assert output.contrastive_loss.isfinite() and output.motion_flops_loss > 0
    assert torch.equal(model(*batch, return_loss=True).loss, output.contrastive_loss)  # no two captions are equal


def test_unpaired_rows_need_clip_ids(model):
    ids, mask = tiny.captions(rows=6)
    values, frames = tiny.motions(rows=3)
    for one, options in ((model, {"return_loss": True}), (tiny.alignment(model), {})):
        with pytest.raises(ValueError, match=r"\b6\b.*\b3\b.*text_clip_ids.*motion_clip_ids"):
            one(ids, values, mask, frames, **options)


def test_motion_head_starts_as_a_copy_of_the_text_head():
    source = lexmlm()
    torch.nn.init.normal_(source.text_model.lexical_head.bias)
    model = LexMotionModel.from_towers(source.text_model, tiny.motion_config())
    for name, value in source.text_model.lexical_head.state_dict().items():
        assert torch.equal(model.motion_model.lexical_head.state_dict()[name], value)
    assert model.motion_model.lexical_head.bias is not model.text_model.lexical_head.bias


def test_lexmmm_ties_the_words_of_its_towers_after_loading(tmp_path):
    lexmmm().save_pretrained(tmp_path)
    loaded = LexMotionForLexicalMaskedMotion.from_pretrained(tmp_path).model
    assert loaded.motion_model.word_embeddings.weight is loaded.text_model.word_embeddings


def test_sinusoidal_start_of_the_time_embeddings():
    torch.manual_seed(0)
    model = LexMotionMotionModel(tiny.motion_config(position_init="sincos"))
    time = model.encoder.embeddings.time_embeddings[:, 0]
    torch.testing.assert_close(time.square().sum(dim=1), torch.full((6,), 12.0))  # sin^2 + cos^2, half the width
    assert time.requires_grad and time.unique(dim=0).shape[0] == 6


def test_an_unknown_position_init_is_refused():
    with pytest.raises(ValueError, match="position_init.*'random'.*'sincos'"):
        tiny.motion_config(position_init="random")


def test_word_limits_are_kept_by_both_towers_and_by_the_checkpoint(tmp_path):
    model = tiny.dual_model(seed=1)
    values, frames = tiny.motions()
    model.set_word_limits(text=(3, 3))
    model.set_word_limits(motion=(0, 3))
    model.save_pretrained(tmp_path)
    loaded = LexMotionModel.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        for one in (model, loaded):
            assert ((one.get_text_features(*tiny.captions()).text_embeds > 0).sum(dim=1) == 3).all()
            assert (one.get_motion_features(values, frames).motion_embeds > 0).sum(dim=1).max() == 3


def test_a_limit_on_how_many_motions_a_word_is_in_is_kept_by_the_checkpoint(tmp_path):
    model = tiny.dual_model(seed=1)
    values, frames = tiny.motions(rows=10)
    with torch.no_grad():
        scores = model.get_motion_features(values, frames).motion_scores
        assert model.limit_motion_words(scores, 0.3) > 0
        embeds = model.get_motion_features(values, frames).motion_embeds
    assert ((embeds > 0).sum(dim=0) <= 3).all() and (embeds > 0).any()
    model.save_pretrained(tmp_path)
    loaded = LexMotionModel.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(loaded.get_motion_features(values, frames).motion_embeds, embeds)
    tower = LexMotionMotionModel.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(tower(values, frames).motion_embeds, embeds)


@pytest.mark.parametrize("limits", [(-1, 3), (4, 3), (0, 0)])
def test_word_limits_that_no_vector_can_keep_are_refused(limits):
    with pytest.raises(ValueError, match=r"\(least, most\)"):
        tiny.dual_model().set_word_limits(motion=limits)


def test_rows_run_by_length_give_the_states_of_the_padded_batch(monkeypatch):
    monkeypatch.setattr(layers_lexmotion, "MINIMUM_GROUP", 1)
    model = tiny.dual_model().text_model
    torch.manual_seed(0)
    ids = torch.randint(10, 90, (7, 12))
    mask = (torch.arange(12) < torch.tensor([3, 12, 1, 7, 12, 2, 8])[:, None]).long()
    calls = []
    model.encoder.register_forward_hook(lambda module, inputs, output: calls.append(output.last_hidden_state.shape))
    grouped = model.encode(ids, mask)
    plain = model.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    assert len(calls) > 3 and sum(rows * length for rows, length, _ in calls[:-1]) < ids.numel()
    torch.testing.assert_close(grouped[mask.bool()], plain[mask.bool()])
    gradients = [
        torch.autograd.grad((states * mask[..., None]).square().sum(), model.word_embeddings)
        for states in (grouped, plain)
    ]
    torch.testing.assert_close(*gradients)


def test_towers_with_different_words_are_refused():
    model = tiny.dual_model()
    model.text_model.set_active_words(range(10, 50))
    with pytest.raises(ValueError, match="set_active_words"):
        model(*tiny.captions()[:1], tiny.motions()[0])
