"""Phase iii, LexMMM: half a motion, said in words, must fill its caption and rebuild its other half."""

from collections.abc import Iterator

import torch

from ..arguments import LexMMMArguments
from ..batches.captions import BagOfWords, choose_captions
from ..batches.corpus import TrainingCorpus
from ..batches.masks import CaptionMasker, MotionMasker, valid_tokens
from ..batches.order import BatchRandom
from ..trainer import ACCEPTANCE_ROWS, PhaseTrainer


class LexMMMTrainer(PhaseTrainer):
    """Phase iii: reading A (caption), reading B (motion), grounding in the captions' words, the masked LM kept on."""

    phase = "lexmmm"
    args: LexMMMArguments

    def setup(self) -> None:
        config = self.model.config.motion_config
        self.clips = self.clip_sampler(config.patch_frames)
        self.motion_masker = MotionMasker(config.num_windows, config.num_parts, self.args.mask_kinds)
        self.caption_masker = CaptionMasker(
            self.processor.lexicon,
            self.processor.tokenizer.mask_token_id,
            self.args.encoder_mask_ratio,
            self.args.decoder_mask_ratio,
            weighting=self.args.mask_weighting,
            max_length=self.data.max_text_length,
        )
        self.words = {
            id(corpus): BagOfWords(corpus, self.processor.lexicon)
            for corpus in (self.train_corpus, self.eval_corpus)
            if corpus is not None
        }

    def row_lengths(self) -> torch.Tensor:
        return self.clips.windows(self.train_corpus)

    def collate(
        self, corpus: TrainingCorpus, rows: torch.Tensor, random: BatchRandom, augment: bool
    ) -> dict[str, torch.Tensor]:
        config = self.model.config.motion_config
        mirrored = self.clips.mirrored(random) if augment else torch.zeros(len(rows), dtype=torch.bool)
        values, frames = self.clips.values(corpus, rows, mirrored, random if augment else None)
        (token_mask, decoder_token_mask), _ = self.motion_masker(
            valid_tokens(frames, config.patch_frames, config.num_parts),
            [self.args.mask_ratio, self.args.decoder_motion_mask_ratio],
            random,
        )
        captions = choose_captions(corpus, rows, 1, random if augment else None).squeeze(1)
        input_ids, attention_mask, _ = corpus.captions.batch(captions, mirrored)
        encoder, decoder = self.caption_masker(input_ids, attention_mask, random)
        batch = {"motion_values": values, "motion_attention_mask": frames, "token_mask": token_mask}
        if self.args.motion_loss_weight > 0:
            batch["decoder_token_mask"] = decoder_token_mask
        if self.args.caption_loss_weight > 0:
            batch["decoder_input_ids"] = decoder.input_ids
            batch["decoder_attention_mask"] = attention_mask
            batch["decoder_labels"] = decoder.labels
        if self.args.bow_loss_weight > 0:
            batch["bow_weights"] = self.words[id(corpus)].batch(rows, mirrored)
        if self.args.mlm_weight > 0:
            batch["mlm_input_ids"] = encoder.input_ids
            batch["mlm_attention_mask"] = attention_mask
            batch["mlm_labels"] = encoder.labels
        return batch

    def compute_loss(self, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        output = model(**batch)
        weights = {
            "caption_loss": self.args.caption_loss_weight,
            "motion_loss": self.args.motion_loss_weight,
            "bow_loss": self.args.bow_loss_weight,
            "mlm_loss": self.args.mlm_weight,
        }
        parts = {name: output[name] for name in weights if output.get(name) is not None}
        if not parts:
            raise ValueError("every loss weight of lexmmm is 0: nothing to learn")
        return {"loss": sum(weights[name] * value for name, value in parts.items()), **parts}

    def acceptance(self) -> dict[str, float]:
        from lexmotion.evaluation.acceptance import evaluate_lexmmm, word_frequency

        lexicon = self.processor.lexicon
        words = self.words[id(self.train_corpus)]
        prior = word_frequency(words.words_of(), words.vocab_size)
        batches = list(self.acceptance_batches())
        return evaluate_lexmmm(self.model, batches, lexicon, prior)

    def acceptance_batches(self) -> Iterator[dict[str, torch.Tensor]]:
        """Evaluation batches with every part in them, whatever the loss weights."""
        weights = {name: getattr(self.args, name) for name in ("caption_loss_weight", "bow_loss_weight")}
        self.args.caption_loss_weight = self.args.bow_loss_weight = 1.0
        try:
            for _, batch in self.evaluation_batches(limit=ACCEPTANCE_ROWS, shared=False):
                yield batch
        finally:
            vars(self.args).update(weights)


def main(argv: list[str] | None = None) -> None:
    """Run the phase alone: `accelerate launch -m lexmotion.training.tasks.lexmmm --config small ...`"""
    from ..pipeline import run_phase_command

    run_phase_command("lexmmm", argv)


if __name__ == "__main__":
    main()
