"""
Train a LexMotionModel with `transformers.Trainer`: one contrastive phase from random weights, no recipe.

    lexmotion quickstart --output-dir quickstart
    python examples/train_with_transformers_trainer.py quickstart/prepared --max-steps 20

`LexMotionModel.forward(..., return_loss=True)` returns the contrastive loss of the batch as `loss`, which is all that
`Trainer` asks of a model. `lexmotion train` does more: four phases, sparse vectors, false negatives left out.
"""

import argparse
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainingArguments

from lexmotion import (
    LexMotionConfig,
    LexMotionModel,
    LexMotionMotionConfig,
    LexMotionProcessor,
    LexMotionTextConfig,
)
from lexmotion.processing.corpora.prepare import load_prepared


class PairCollator:
    """Clips of a prepared corpus -> a batch of captions and motions, one caption drawn for each clip."""

    def __init__(self, processor: LexMotionProcessor, max_text_length: int = 40):
        self.processor, self.max_text_length = processor, max_text_length

    def __call__(self, clips: Sequence[dict[str, Any]]) -> dict[str, Any]:
        batch = self.processor(
            text=[random.choice(list(clip["captions"])) for clip in clips],
            motion=[clip["motion"] for clip in clips],
            fps=[float(clip["fps"]) for clip in clips],
            text_kwargs={"max_length": self.max_text_length, "truncation": True, "padding": True},
            motion_kwargs={"kind": "positions"},
        )
        return {**batch, "return_loss": True}


def build_model(processor: LexMotionProcessor, width: int) -> LexMotionModel:
    """A small dual encoder with random weights for the words and the features of this processor."""
    sizes = {"hidden_size": width, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 4 * width}
    words, extractor = len(processor.tokenizer), processor.feature_extractor
    text_config = LexMotionTextConfig(encoder_config={"model_type": "bert", "vocab_size": words, **sizes})
    motion_config = LexMotionMotionConfig(
        num_features=extractor.num_features,
        parts=extractor.parts,
        num_frames=extractor.max_frames,
        vocab_size=words,
        word_embedding_size=width,
        **sizes,
    )
    model = LexMotionModel(LexMotionConfig(text_config=text_config, motion_config=motion_config))
    model.set_active_words(processor.lexicon.active_ids)
    return model


def main(argv: Sequence[str] | None = None) -> Trainer:
    """Train, save model and processor, and print the loss on the validation split."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prepared", type=Path, help="Folder written by `lexmotion prepare` or `lexmotion quickstart`.")
    parser.add_argument("--output-dir", type=Path, default=Path("trainer-run"), help="Where the model is saved.")
    parser.add_argument("--max-steps", type=int, default=500, help="Optimiser steps.")
    parser.add_argument("--batch-size", type=int, default=32, help="Clips in a batch.")
    parser.add_argument("--learning-rate", type=float, default=5e-4, help="Peak learning rate.")
    parser.add_argument("--width", type=int, default=128, help="Hidden size of both towers.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of weights, batches and captions.")
    options = parser.parse_args(argv)

    torch.manual_seed(options.seed)
    corpus = load_prepared(options.prepared, ["train", "validation"]).with_format("numpy")
    processor = LexMotionProcessor.from_pretrained(options.prepared / "processor")
    arguments = TrainingArguments(
        output_dir=str(options.output_dir),
        max_steps=options.max_steps,
        per_device_train_batch_size=options.batch_size,
        per_device_eval_batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        warmup_steps=options.max_steps // 10,
        lr_scheduler_type="cosine",
        logging_steps=max(options.max_steps // 20, 1),
        remove_unused_columns=False,  # the collator reads the columns, not the model
        prediction_loss_only=True,
        save_strategy="no",
        report_to="none",
        seed=options.seed,
    )
    trainer = Trainer(
        model=build_model(processor, options.width),
        args=arguments,
        data_collator=PairCollator(processor),
        train_dataset=corpus["train"],
        eval_dataset=corpus["validation"],
    )
    trainer.train()
    loss = trainer.evaluate()["eval_loss"]
    trainer.save_model()
    processor.save_pretrained(options.output_dir)
    print(f"validation loss {loss:.3f}; model and processor are in {options.output_dir}")
    return trainer


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:  # such as a missing folder
        sys.exit(f"error: {error}")
