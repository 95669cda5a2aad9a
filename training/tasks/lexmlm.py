"""Phase i, LexMLM: teach the language model which words of a caption carry it. Text only."""

from typing import Any

import torch

from ..arguments import LexMLMArguments
from ..batches.corpus import CaptionTable, TrainingCorpus
from ..batches.masks import CaptionMasker
from ..batches.order import BatchRandom
from ..trainer import ACCEPTANCE_ROWS, PhaseTrainer


class LexMLMTrainer(PhaseTrainer):
    """
    Phase i. A row is a caption.

    Args:
        captions: what is trained on, held-out motions left out; the captions of `train_corpus` when not given.
    """

    phase = "lexmlm"
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

    def row_lengths(self) -> torch.Tensor:
        return self.captions.lengths[0]

    def caption_tables(self) -> list[CaptionTable]:
        return [*super().caption_tables(), self.captions]

    def row_names(self, rows: torch.Tensor) -> list[str]:
        return [repr(self.captions.texts[row]) for row in rows.tolist()]

    def collate(
        self, corpus: TrainingCorpus, rows: torch.Tensor, random: BatchRandom, augment: bool
    ) -> dict[str, torch.Tensor]:
        table = self.captions if augment else corpus.captions
        captions = rows if augment else corpus.caption_starts[rows]
        mirrored = random.uniform() < (self.data.mirror_probability if augment else 0.0)
        input_ids, attention_mask, _ = table.batch(captions, mirrored)
        encoder, decoder = self.masker(input_ids, attention_mask, random)
        return {
            "input_ids": encoder.input_ids,
            "attention_mask": attention_mask,
            "labels": encoder.labels,
            "decoder_input_ids": decoder.input_ids,
            "decoder_labels": decoder.labels,
        }

    def compute_loss(self, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        output = model(**batch)
        loss = output.encoder_loss + self.args.decoder_loss_weight * output.decoder_loss
        return {"loss": loss, "encoder_loss": output.encoder_loss, "decoder_loss": output.decoder_loss}

    def acceptance(self) -> dict[str, float]:
        from lexmotion.evaluation.acceptance import evaluate_lexmlm

        from .initialization import build_lexmlm

        base_model = build_lexmlm(self.arguments, self.processor).to(self.device)
        batches = (batch for _, batch in self.evaluation_batches(limit=ACCEPTANCE_ROWS, shared=False))
        return evaluate_lexmlm(self.model, batches, self.processor.lexicon, base_model)


def main(argv: list[str] | None = None) -> None:
    """Run the phase alone: `accelerate launch -m lexmotion.training.tasks.lexmlm --config small ...`"""
    from ..pipeline import run_phase_command

    run_phase_command("lexmlm", argv)


if __name__ == "__main__":
    main()
