"""Phase iv, LexCMLP: align motion and text inside one vocabulary."""

from typing import Any

import torch
from scipy import sparse
from transformers.utils import logging

from lexmotion import LexMotionModel
from lexmotion.lexical_head import LexicalHead

from ..arguments import LexCMLPArguments
from ..batches.collators import (
    BagOfWords,
    BatchRandom,
    CaptionMasker,
    MotionMasker,
    PartMixer,
    Relatives,
    valid_tokens,
)
from ..batches.corpus import CaptionTable, TrainingCorpus
from ..batches.event_swaps import SwappedCaptions
from .alignment import AlignmentTrainer, retrieval_figures

logger = logging.get_logger(__name__)


class LexCMLPTrainer(AlignmentTrainer):
    """Phase iv: multi-positive contrast, FLOPS held at a target number of active words, and the masked LM kept on."""

    phase = "lexcmlp"
    args: LexCMLPArguments

    @property
    def dual_encoder(self) -> LexMotionModel:
        """What the phase trains and hands on; the head around it knows the losses."""
        return self.model.model

    def caption_threshold(self) -> float | None:
        return self.args.false_negative_threshold

    def setup(self) -> None:
        self.frame_multiple = self.model.config.motion_config.patch_frames
        super().setup()
        if self.args.motion_word_share is not None:
            self.dual_encoder.motion_model.lexical_head.check_can_limit()  # not only once everything is trained
        self.masker = CaptionMasker(
            self.processor.lexicon,
            self.processor.tokenizer.mask_token_id,
            self.args.encoder_mask_ratio,
            overlap=False,
            weighting=self.args.mask_weighting,
            max_length=self.data.max_text_length,
        )
        self.words = None
        if self.args.grounding_loss_weight > 0 or self.args.bow_loss_weight > 0:
            self.words = BagOfWords(self.train_corpus, self.processor.lexicon)
        config = self.model.config.motion_config
        self.relatives = Relatives(self.train_corpus) if self.args.exclude_relatives else None
        self.part_mixer = PartMixer(config.parts, config.num_features, self.args.part_mix_probability)
        self.token_dropper = MotionMasker(config.num_windows, config.num_parts, ["random"])
        self.swaps = None
        if self.args.order_loss_weight > 0:
            self.swaps = SwappedCaptions(
                self.train_corpus.captions, self.processor.tokenizer, self.data.max_text_length
            )

    def caption_tables(self) -> list[CaptionTable]:
        tables = super().caption_tables()
        return tables if self.swaps is None else [*tables, self.swaps.table]

    def lexical_heads(self) -> dict[str, LexicalHead]:
        return {
            "text": self.dual_encoder.text_model.lexical_head,
            "motion": self.dual_encoder.motion_model.lexical_head,
        }

    def features(self, batch: dict[str, torch.Tensor]) -> tuple[Any, Any]:
        """What the towers make of a batch."""
        text = self.dual_encoder.get_text_features(batch["input_ids"], batch["attention_mask"])
        motion = self.dual_encoder.get_motion_features(batch["motion_values"], batch["motion_attention_mask"])
        return text, motion

    def calibration_scores(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        text, motion = self.features(batch)
        return {"text": text.text_scores, "motion": motion.motion_scores}

    def embed(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        text, motion = self.features(batch)
        return text.text_embeds, motion.motion_embeds

    def score_vectors(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Vectors of a batch whose products are the model's scores: words first, then segments and dense vectors."""
        text, motion = self.features(batch)
        return self.dual_encoder.score_vectors(text), self.dual_encoder.score_vectors(motion)

    def evaluate(self) -> dict[str, float]:
        """Retrieval on the evaluation split by the model's score, and how many words are active."""
        texts, motions = self.encode(self.eval_corpus, self.score_vectors)
        values = retrieval_figures(texts @ motions.T, self.eval_corpus)
        words = self.dual_encoder.text_model.lexical_head.active_ids.shape[0]
        values["text_active_words"] = float((texts[:, :words] > 0).sum(dim=1).float().mean())
        values["motion_active_words"] = float((motions[:, :words] > 0).sum(dim=1).float().mean())
        return values

    def text_encoder(self) -> torch.nn.Module:
        return self.dual_encoder.text_model.encoder

    def finished_model(self) -> LexMotionModel:
        return self.dual_encoder

    def collate_more(
        self,
        batch: dict[str, torch.Tensor],
        corpus: TrainingCorpus,
        rows: torch.Tensor,
        mirrored: torch.Tensor,
        captions: torch.Tensor,
        random: BatchRandom,
    ) -> dict[str, torch.Tensor]:
        more, own = {}, random.own(mirrored)
        if self.words is not None:
            more["bow_weights"] = self.words.batch(rows, own)
        if self.swaps is not None:
            more.update(self.swaps.batch(captions.flatten(), own.repeat_interleave(captions.shape[1])))
        if self.relatives is not None:
            more["text_relative_ids"] = self.relatives.of_texts(rows, own, captions)
            more["motion_relative_ids"] = self.relatives.of_motions(rows, own)
        if self.args.mlm_weight > 0:
            first_ids, first_mask, _ = corpus.captions.batch(captions[:, 0], own)
            masked, _ = self.masker(first_ids, first_mask, random)
            more["mlm_input_ids"] = masked.input_ids
            more["mlm_attention_mask"] = first_mask
            more["mlm_labels"] = masked.labels
        if self.args.part_mix_probability > 0:
            more |= self.mix_parts({**batch, **more}, corpus, mirrored, random)
        if self.args.token_drop_ratio > 0:
            config = self.model.config.motion_config
            valid = valid_tokens(batch["motion_attention_mask"], config.patch_frames, config.num_parts)
            (more["token_mask"],), _ = self.token_dropper(valid, [self.args.token_drop_ratio], random)
        if self.args.caption_word_dropout > 0:
            draws = random.uniform(captions.shape[1], self.data.max_text_length).flatten(0, 1)
            more["input_ids"] = self.masker.drop(
                batch["input_ids"], batch["attention_mask"], self.args.caption_word_dropout, draws
            )
        return more

    def mix_parts(
        self, batch: dict[str, torch.Tensor], corpus: TrainingCorpus, mirrored: torch.Tensor, random: BatchRandom
    ) -> dict[str, torch.Tensor]:
        """
        Motions with parts of others of the global batch, and all that says what is right for them.

        The others are cut anew, but mirrored as they are in their own row, so that their captions there are true.
        """
        if random.rows is None:
            raise ValueError("parts are taken from the global batch: give its rows to BatchRandom")
        partners, taken = random.partners(), self.part_mixer.choose(random)
        rows, turned = random.rows[partners], mirrored[partners]
        values, shares = batch["motion_values"].clone(), torch.zeros(len(rows))
        chosen, view = taken.any(dim=1), random.only(taken.any(dim=1))
        if chosen.any():
            values[chosen], shares[chosen] = self.part_mixer(
                *(values[chosen], batch["motion_attention_mask"][chosen]),
                *self.clips.values(corpus, rows[chosen], turned[chosen], view),
                taken[chosen],
            )
        changed = {"motion_values": values, "mixed_clip_ids": rows, "mixed_shares": shares}
        if self.words is not None:
            bags = torch.lerp(batch["bow_weights"], self.words.batch(rows, turned), shares[:, None])
            changed["bow_weights"] = bags / bags.sum(dim=1, keepdim=True).clamp(min=1e-12)
        if self.relatives is not None:
            own = batch["motion_relative_ids"]
            theirs = torch.where(chosen[:, None], self.relatives.of_motions(rows, turned), own)
            changed["motion_relative_ids"] = torch.cat([own, theirs], dim=1)
        return changed

    def compute_loss(self, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        output = model(**batch)
        loss = output.contrastive_loss + self.sparsity_loss(output)
        parts = {
            "contrastive_loss": output.contrastive_loss,
            "text_flops_loss": output.text_flops_loss,
            "motion_flops_loss": output.motion_flops_loss,
            "text_active_words": output.text_active_words,
            "motion_active_words": output.motion_active_words,
        }
        weights = {
            "grounding_loss": self.args.grounding_loss_weight,
            "bow_loss": self.args.bow_loss_weight,
            "mlm_loss": self.args.mlm_weight,
            "order_loss": self.args.order_loss_weight,
            "dense_contrastive_loss": self.args.dense_loss_weight,
        }
        for name, weight in weights.items():
            if output.get(name) is not None:
                loss = loss + weight * output[name]
                parts[name] = output[name]
        return {"loss": loss, **parts}

    def load_final_weights(self) -> None:
        super().load_final_weights()
        if self.args.motion_word_share is not None:
            self.limit_motion_words(self.args.motion_word_share)
        limits = (self.args.text_word_limits, self.args.motion_word_limits)
        self.dual_encoder.set_word_limits(*(pair and (pair[0], pair[1]) for pair in limits))

    @torch.no_grad()
    def limit_motion_words(self, share: float) -> None:
        """No word above zero in more than `share` of the training motions, as recorded."""

        def motion_scores(batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
            motion = self.dual_encoder.get_motion_features(batch["motion_values"], batch["motion_attention_mask"])
            return motion.motion_scores, motion.motion_scores[:0]

        self.model.eval()
        scores, _ = self.encode(self.train_corpus, motion_scores)
        limited = self.dual_encoder.limit_motion_words(scores, share)
        logger.info(f"{limited} words scored above zero in over {share:.0%} of the training motions and were limited")

    def acceptance(self) -> dict[str, float]:
        from lexmotion.evaluation.acceptance import evaluate_lexical_space, word_frequency

        lexicon = self.processor.lexicon
        with torch.no_grad():
            texts, motions = self.encode(self.eval_corpus)
        train_words = BagOfWords(self.train_corpus, lexicon)
        return evaluate_lexical_space(
            sparse.csr_matrix(texts.numpy()),
            sparse.csr_matrix(motions.numpy()),
            BagOfWords(self.eval_corpus, lexicon).words_of(),
            lexicon,
            word_frequency(train_words.words_of(), train_words.vocab_size),
        )


def main(argv: list[str] | None = None) -> None:
    """Run the phase alone: `accelerate launch -m lexmotion.training.tasks.lexcmlp --config small ...`"""
    from ..pipeline import run_phase_command

    run_phase_command("lexcmlp", argv)


if __name__ == "__main__":
    main()
