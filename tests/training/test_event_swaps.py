"""Swapped captions in a batch, and a phase that learns from them."""

import math

import pytest
import torch

from lexmotion.training.batches.corpus import CaptionTable
from lexmotion.training.batches.event_swaps import SwappedCaptions

TEXTS = ["a person jumps", "a person steps left, then jumps", "a person walks then turns right"]


@pytest.fixture(scope="module")
def tokenizer(data):
    return data.processor.tokenizer


def test_rows_point_at_the_captions_they_were_made_from(tokenizer):
    table = CaptionTable.build(TEXTS, TEXTS, tokenizer, 32)
    swaps = SwappedCaptions(table, tokenizer, 32)
    batch = swaps.batch(torch.tensor([2, 0, 1]), torch.tensor([False, False, True]))
    assert batch["swapped_rows"].tolist() == [0, 2]
    expected = tokenizer(["a person turns right then walks", "a person jumps, then steps right"], padding=True)
    assert batch["swapped_input_ids"].tolist() == expected["input_ids"]
    assert batch["swapped_attention_mask"].tolist() == expected["attention_mask"]


def test_a_batch_without_any_is_filled(tokenizer):
    swaps = SwappedCaptions(CaptionTable.build(TEXTS, TEXTS, tokenizer, 32), tokenizer, 32)
    batch = swaps.batch(torch.tensor([0, 0]), torch.tensor([False, True]))
    assert batch["swapped_rows"].tolist() == [-1] and len(batch["swapped_input_ids"]) == 1


def test_a_corpus_of_single_events_is_refused(tokenizer):
    with pytest.raises(ValueError, match="order_loss_weight"):
        SwappedCaptions(CaptionTable.build(TEXTS[:1], TEXTS[:1], tokenizer, 32), tokenizer, 32)


def test_the_phase_trains_and_evaluates_with_segments_dense_vectors_and_order(make_trainer, read_log, tmp_path):
    trainer = make_trainer(
        "lexcmlp",
        order_loss_weight=0.5,
        distillation_loss_weight=0.5,
        model_config={"num_segments": 2, "dense_size": 8},
    )
    assert trainer.processor.tokenizer.convert_tokens_to_ids("then") in trainer.model.config.event_words
    trainer.train()
    steps = [line for line in read_log(tmp_path / "run") if "order_loss" in line]
    assert steps and all(line["order_loss"] > 0 and line["dense_contrastive_loss"] > 0 for line in steps)
    assert all(line["distillation_loss"] > 0 for line in steps)
    trainer.model.eval()
    with torch.no_grad():
        values = trainer.evaluate()
    assert math.isfinite(values["rsum"]) and values["text_active_words"] > 0


def test_without_the_options_the_score_is_the_cosine_of_the_words(make_trainer):
    trainer = make_trainer("lexcmlp")
    trainer.average = None
    trainer.model.eval()
    with torch.no_grad():
        texts, motions = trainer.encode(trainer.eval_corpus)
        scored, seen = trainer.encode(trainer.eval_corpus, trainer.score_vectors)
    expected = torch.nn.functional.normalize(texts, dim=1) @ torch.nn.functional.normalize(motions, dim=1).T
    torch.testing.assert_close(scored @ seen.T, expected)
