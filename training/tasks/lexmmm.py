"""Phase iii, LexMMM: the words of a half-masked motion must reconstruct its masked caption and its masked half."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from lexmotion import LexMotionForLexicalMaskedLM, LexMotionForLexicalMaskedMotion

from ..arguments import RunArguments, argument
from ..batches.captions import BagOfWords, choose_captions
from ..batches.corpus import TrainingCorpus
from ..batches.masks import MASK_WEIGHTING_HELP, CaptionMasker, MotionMasker, valid_tokens
from ..batches.order import Batch, BatchRandom
from .initialization import finished_phase, join_towers, seed_weights
from .lexcmlp import final_model
from .lexmotion_task import ACCEPTANCE_ROWS, FROZEN, PEAK, LexMotionArguments, LexMotionTask, LexMotionTrainer


@dataclass
class LexMMMArguments(LexMotionArguments):
    """Phase iii, motion and captions."""

    text_learning_rate: float | None = argument(0.0, f"{PEAK} the text encoder. {FROZEN}")
    head_learning_rate: float | None = argument(5e-5, f"{PEAK} the lexical heads. {FROZEN}")
    num_epochs: float = argument(50.0, "Passes over the clips, used if num_steps is None.")
    mask_ratio: float = argument(0.5, "Share of the tokens masked for the motion encoder.")
    decoder_motion_mask_ratio: float = argument(0.75, "Share of the tokens masked for the weak motion decoder.")
    mask_kinds: list[str] = argument(["random", "tubes", "blocks"], "Kinds of masks, used equally often.")
    encoder_mask_ratio: float = argument(0.3, "Share of the words masked for the text encoder (its own masked LM).")
    decoder_mask_ratio: float = argument(0.5, "Share of the words masked for the text decoder.")
    mask_weighting: Literal["uniform", "idf", "content"] = argument("uniform", MASK_WEIGHTING_HELP)
    caption_loss_weight: float = argument(1.0, "Weight of the caption from the motion's words (reading A).")
    motion_loss_weight: float = argument(0.5, "Weight of the motion from its words (reading B).")
    bow_loss_weight: float = argument(0.2, "Weight of the bag-of-words grounding.")
    mlm_weight: float = argument(0.2, "Weight of the masked LM, which preserves the meaning of the words. 0: off.")


class LexMMMTrainer(LexMotionTrainer):
    """Phase iii: reconstruct caption (reading A) and motion (reading B), with bag-of-words and masked-LM losses."""

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

    def row_lengths(self) -> Tensor:
        return self.clips.windows(self.train_corpus)

    def collate(self, corpus: TrainingCorpus, rows: Tensor, random: BatchRandom, augment: bool) -> Batch:
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
            batch |= decoder.inputs("decoder_", attention_mask)
        if self.args.bow_loss_weight > 0:
            batch["bow_weights"] = self.words[id(corpus)].batch(rows, mirrored)
        if self.args.mlm_weight > 0:
            batch |= encoder.inputs("mlm_", attention_mask)
        return batch

    def compute_loss(self, model: torch.nn.Module, batch: Batch) -> dict[str, Tensor]:
        output = model(**batch)
        weights = {
            "caption_loss": self.args.caption_loss_weight,
            "motion_loss": self.args.motion_loss_weight,
            "bow_loss": self.args.bow_loss_weight,
            "mlm_loss": self.args.mlm_weight,
        }
        parts = {name: output[name] for name in weights if output.get(name) is not None}
        if not parts:
            raise ValueError(f"lexmmm: {', '.join(weights)} have weight 0; set one of their weights above 0")
        return {"loss": sum(weights[name] * value for name, value in parts.items()), **parts}

    def acceptance(self) -> dict[str, float]:
        from lexmotion.evaluation.acceptance import evaluate_lexmmm, word_frequency

        words = self.words[id(self.train_corpus)]
        prior = word_frequency(words.words_of(), words.vocab_size)
        return evaluate_lexmmm(self.model, list(self.acceptance_batches()), self.processor.lexicon, prior)

    def acceptance_batches(self) -> Iterator[Batch]:
        """Iterate over evaluation batches with all parts, whatever the loss weights."""
        weights = {name: getattr(self.args, name) for name in ("caption_loss_weight", "bow_loss_weight")}
        self.args.caption_loss_weight = self.args.bow_loss_weight = 1.0
        try:
            for _, batch in self.evaluation_batches(limit=ACCEPTANCE_ROWS, shared=False):
                yield batch
        finally:
            vars(self.args).update(weights)


def build_lexmmm(arguments: RunArguments, processor: Any) -> LexMotionForLexicalMaskedMotion:
    """Return both current towers with phase i's text decoder."""
    seed_weights(arguments, "lexmmm")
    joined = join_towers(arguments, processor)
    model = LexMotionForLexicalMaskedMotion(joined.config)
    model.model.load_state_dict(joined.state_dict())
    model.tie_weights()
    if arguments.model.init_text is not None:
        phase_i = finished_phase(LexMotionForLexicalMaskedLM, arguments.model.init_text)
        model.text_decoder.load_state_dict(phase_i.text_decoder.state_dict())
    return model


LEXMMM = LexMotionTask(
    "lexmmm",
    "iii LexMMM",
    LexMMMTrainer,
    build_lexmmm,
    arguments=LexMMMArguments,
    starts_from={"lexmlm": "init_text", "cmmm": "init_motion"},
    finish=final_model,
    criteria=(
        (
            "gain_over_shuffled",
            ">",
            "gain_over_shuffled_ci",
            "gain over another motion's words {value:.2f} ± {reference:.2f} nat",
        ),
        ("coverage_top20", ">=", 0.4, "caption words in the top 20: {value:.0%}, {reference:.0%} wanted"),
        ("coverage_top20", ">", "prior_top20", "caption words in the top 20: {value:.0%}, prior {reference:.0%}"),
    ),
    share=0.2,
)
