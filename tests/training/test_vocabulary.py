import copy

import pytest
import torch

from lexmotion import (
    LexMotionConfig,
    LexMotionForContrastiveAlignment,
    LexMotionModel,
    LexMotionMotionConfig,
    LexMotionTextConfig,
)
from lexmotion.training.batches.vocabulary import CompactEmbedding, compact_vocabulary

VOCABULARY, ACTIVE, USED = 60, range(10, 30), [0, 2, 3, 12, 31, 40]


@pytest.fixture
def model():
    torch.manual_seed(0)
    encoder = {
        "model_type": "bert",
        "vocab_size": VOCABULARY,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    motion = LexMotionMotionConfig(
        num_features=6,
        parts=[[0, 1, 2], [3, 4, 5]],
        patch_frames=4,
        num_frames=8,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        vocab_size=VOCABULARY,
        word_embedding_size=16,
    )
    model = LexMotionModel(
        LexMotionConfig(text_config=LexMotionTextConfig(encoder_config=encoder), motion_config=motion)
    )
    model.set_active_words(ACTIVE)
    return model


def batch():
    generator = torch.Generator().manual_seed(1)
    ids = torch.tensor([[2, 12, 31, 3], [2, 40, 12, 0], [2, 31, 3, 0]])
    return {
        "input_ids": ids,
        "attention_mask": (ids != 0).long(),
        "motion_values": torch.randn(3, 8, 6, generator=generator),
        "mlm_input_ids": ids,
        "mlm_attention_mask": (ids != 0).long(),
        "mlm_labels": torch.where(ids == 12, ids, -100),
    }


def train(model, steps=4):
    trainable = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=1e-2, weight_decay=0.0)
    head = LexMotionForContrastiveAlignment(model.config)
    head.model, losses = model, []
    for _ in range(steps):
        output = head(**batch())
        loss = output.contrastive_loss + output.mlm_loss + 0.1 * output.text_flops_loss
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(trainable, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append((loss.item(), norm.item()))
    return losses


def test_training_few_rows_equals_training_all(model):
    other = copy.deepcopy(model)
    with compact_vocabulary(model, torch.tensor(USED)):
        compact = train(model)
        assert model.get_input_embeddings().weight.shape == (len(set(USED) | set(ACTIVE)), 16)
    torch.testing.assert_close(torch.tensor(compact), torch.tensor(train(other)))
    for (name, ours), wanted in zip(model.state_dict().items(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, wanted, msg=lambda text, name=name: f"{name}: {text}")


def test_unused_rows_stay_and_the_towers_share_one_matrix_again(model):
    before = model.get_input_embeddings().weight.detach().clone()
    full = model.get_input_embeddings()
    with compact_vocabulary(model, torch.tensor(USED)):
        assert model.text_model.get_input_embeddings() is model.motion_model.get_input_embeddings()
        train(model)
    after = model.get_input_embeddings().weight
    assert model.get_input_embeddings() is full is model.motion_model.get_input_embeddings()
    unused = sorted(set(range(VOCABULARY)) - set(USED) - set(ACTIVE))
    assert torch.equal(after[unused], before[unused])
    assert not torch.equal(after[12], before[12])


def test_an_error_inside_gives_the_whole_vocabulary_back(model):
    with pytest.raises(RuntimeError, match="stop"), compact_vocabulary(model, torch.tensor(USED)):
        raise RuntimeError("stop")
    assert not isinstance(model.get_input_embeddings(), CompactEmbedding)


def test_a_token_nobody_announced_is_named(model):
    with compact_vocabulary(model, torch.tensor(USED)), pytest.raises(ValueError, match=r"\b55\b"):
        model.get_text_features(input_ids=torch.tensor([[2, 55, 3]]))


def test_a_vocabulary_in_full_use_is_left_alone(model):
    full = model.get_input_embeddings()
    with compact_vocabulary(model, torch.arange(VOCABULARY)):
        assert model.get_input_embeddings() is full


def test_a_model_without_a_tower_is_refused_by_name():
    with (
        pytest.raises(ValueError, match="Conv1d.*LexMotionTextModel"),
        compact_vocabulary(torch.nn.Conv1d(4, 4, 3), torch.arange(3)),
    ):
        pass
