"""Phase i, LexMLM: train the language model, on text only, to find the important words of a caption."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from lexmotion import LexMotionForLexicalMaskedLM

from ..arguments import RunArguments, argument
from ..batches.corpus import CaptionTable, TrainingCorpus
from ..batches.masks import MASK_WEIGHTING_HELP, CaptionMasker
from ..batches.order import Batch, BatchRandom
from .initialization import initial_text_model, seed_weights
from .lexcmlp import final_model
from .lexmotion_task import ACCEPTANCE_ROWS, FROZEN, PEAK, LexMotionArguments, LexMotionTask, LexMotionTrainer


@dataclass
class LexMLMArguments(LexMotionArguments):
    """Phase i, text only."""

    learning_rate: float = argument(5e-5, "Peak learning rate of all parameters without a rate of their own.")
    decoder_learning_rate: float | None = argument(5e-4, f"{PEAK} the weak decoder. {FROZEN}")
    lr_scheduler: Literal["cosine", "linear", "constant"] = argument("linear", "Decay after the warm-up.")
    num_epochs: float = argument(30.0, "Passes over the captions, used if num_steps is None.")
    batch_size: int = argument(256, "Captions per global batch.")
    encoder_mask_ratio: float = argument(0.3, "Share of the words masked for the encoder (LexMAE).")
    decoder_mask_ratio: float = argument(0.5, "Share of the words masked for the decoder (LexMAE).")
    decoder_overlap: bool = argument(True, "Include the encoder's masks in the decoder's (LexMAE; false: LexLIP).")
    mask_weighting: Literal["uniform", "idf", "content"] = argument("uniform", MASK_WEIGHTING_HELP)
    encoder_loss_weight: float = argument(
        1.0,
        "Weight of the encoder's own masked-LM loss. 0: the encoder learns from the decoder's loss alone.",
        before=1.0,
    )
    decoder_loss_weight: float = argument(1.0, "Weight of the decoder's loss.")

    def __post_init__(self):
        super().__post_init__()
        weights = {"encoder_loss_weight": self.encoder_loss_weight, "decoder_loss_weight": self.decoder_loss_weight}
        for name, weight in weights.items():
            if weight < 0:
                raise ValueError(f"{name}: got {weight}; pass 0 (off) or more")
        if not any(weights.values()):
            raise ValueError(f"{' and '.join(weights)}: got 0 for both; set one of them above 0")


class LexMLMTrainer(LexMotionTrainer):
    """
    Phase i: train the text tower, with a weak decoder, to reconstruct masked captions. Each row is a caption.

    Args:
        captions: training captions, without held-out motions; if not given, those of `train_corpus`.
    """

    args: LexMLMArguments

    def __init__(self, *args: Any, captions: CaptionTable | None = None, **kwargs: Any):
        self.captions: Any = captions
        super().__init__(*args, **kwargs)

    def setup(self) -> None:
        if self.captions is None:
            self.captions = self.train_corpus.captions
        self.masker = CaptionMasker(
            self.processor.lexicon,
            self.processor.tokenizer.mask_token_id,
            self.args.encoder_mask_ratio,
            self.args.decoder_mask_ratio,
            self.args.decoder_overlap,
            self.args.mask_weighting,
            self.data.max_text_length,
        )

    def row_lengths(self) -> Tensor:
        return self.captions.lengths[0]

    def caption_tables(self) -> list[CaptionTable]:
        return [*super().caption_tables(), self.captions]

    def row_names(self, rows: Tensor) -> list[str]:
        return [repr(self.captions.texts[row]) for row in rows.tolist()]

    def collate(self, corpus: TrainingCorpus, rows: Tensor, random: BatchRandom, augment: bool) -> Batch:
        table = self.captions if augment else corpus.captions
        captions = rows if augment else corpus.caption_starts[rows]
        mirrored = random.uniform() < (self.data.mirror_probability if augment else 0.0)
        input_ids, attention_mask, _ = table.batch(captions, mirrored)
        encoder, decoder = self.masker(input_ids, attention_mask, random)
        hidden = {"decoder_input_ids": decoder.input_ids, "decoder_labels": decoder.labels}
        return {**encoder.inputs("", attention_mask), **hidden}

    def compute_loss(self, model: torch.nn.Module, batch: Batch) -> dict[str, Tensor]:
        weights = {"encoder_loss": self.args.encoder_loss_weight, "decoder_loss": self.args.decoder_loss_weight}
        if weights["encoder_loss"] == 0:
            batch = {name: value for name, value in batch.items() if name != "labels"}
        output = model(**batch)
        parts = {name: output[name] for name in weights if output.get(name) is not None}
        return {"loss": sum(weights[name] * value for name, value in parts.items()), **parts}

    def acceptance(self) -> dict[str, float]:
        from lexmotion.evaluation.acceptance import evaluate_lexmlm

        base_model = build_lexmlm(self.arguments, self.processor).to(self.device)
        batches = (batch for _, batch in self.evaluation_batches(limit=ACCEPTANCE_ROWS, shared=False))
        return evaluate_lexmlm(self.model, batches, self.processor.lexicon, base_model)


def build_lexmlm(arguments: RunArguments, processor: Any) -> LexMotionForLexicalMaskedLM:
    """Return the initial text tower with a random weak decoder."""
    seed_weights(arguments, "lexmlm")
    text_model = initial_text_model(arguments.model, processor)
    model = LexMotionForLexicalMaskedLM(text_model.config)
    model.text_model.load_state_dict(text_model.state_dict())
    return model


def read_captions(arguments: RunArguments, data: Any) -> dict[str, CaptionTable]:
    """Return the captions of phase i, which may have no motion."""
    return {"captions": data.captions(arguments)}


LEXMLM = LexMotionTask(
    "lexmlm",
    "i LexMLM",
    LexMLMTrainer,
    build_lexmlm,
    arguments=LexMLMArguments,
    inputs=read_captions,
    finish=final_model,
    criteria=(
        (
            "gain_over_zeroed",
            ">",
            "gain_over_zeroed_ci",
            "gain over a zeroed bottleneck {value:.2f} ± {reference:.2f} nat",
        ),
        (
            "gain_over_shuffled",
            ">",
            "gain_over_shuffled_ci",
            "gain over another caption's {value:.2f} ± {reference:.2f} nat",
        ),
        (
            "content_word_share",
            ">",
            "base_content_word_share",
            "content words in the top 10: {value:.0%}, untouched {reference:.0%}",
        ),
    ),
    share=0.15,
)
