"""Phase iv, LexCMLP: align motion and text in one vocabulary."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from scipy import sparse
from torch import Tensor
from transformers.utils import logging

from lexmotion import LexMotionForContrastiveAlignment, LexMotionForLexicalMaskedMotion, LexMotionModel
from lexmotion.lexical_head import LexicalHead

from ..arguments import RunArguments, argument
from ..batches.captions import BagOfWords, Relatives
from ..batches.corpus import CaptionTable, TrainingCorpus
from ..batches.event_swaps import SwappedCaptions
from ..batches.masks import MASK_WEIGHTING_HELP, CaptionMasker, MotionMasker, valid_tokens
from ..batches.mixing import PartMixer
from ..batches.order import Batch, BatchRandom
from .alignment import AlignmentArguments, AlignmentTrainer, retrieval_figures
from .initialization import finished_phase, join_towers, model_fields, seed_weights
from .lexmotion_task import FROZEN, PEAK, LexMotionTask

logger = logging.get_logger(__name__)


@dataclass
class LexCMLPArguments(AlignmentArguments):
    """Phase iv, alignment."""

    text_learning_rate: float | None = argument(2e-5, f"{PEAK} the text encoder. {FROZEN}")
    weight_decay: float = argument(0.1, "AdamW weight decay; biases and normalisation layers are exempt.")
    num_epochs: float = argument(60.0, "Passes over the clips, used if num_steps is None.")
    ema_decay: float = argument(0.999, "Decay of the weight average that is evaluated and saved. 0: no average.")
    contrastive_loss_weight: float = argument(
        1.0, "Weight of the contrast of words. 0: the words are not trained, only dense vectors (with dense_size)."
    )
    grounding_loss_weight: float = argument(
        0.0, "Weight of the contrast between motions and the content words of their captions (VDR). 0: off."
    )
    bow_loss_weight: float = argument(
        0.0, "Weight of phase iii's bag-of-words grounding, without which the words lose their meaning. 0: off."
    )
    order_loss_weight: float = argument(
        0.0, "Weight of the contrast with captions whose events are swapped ('stands up, then sits down'). 0: off."
    )
    dense_loss_weight: float = argument(1.0, "Weight of the contrast of dense vectors (with dense_size).")
    distillation_loss_weight: float = argument(
        0.0, "Weight of the divergence of word similarities from those of dense vectors (with dense_size). 0: off."
    )
    text_word_limits: list[int] | None = argument(
        None, "Minimum and maximum words per caption in the finished model. None: all active words."
    )
    motion_word_limits: list[int] | None = argument(None, "Minimum and maximum words per motion, likewise.")
    motion_word_share: float | None = argument(
        None, "Largest share of training motions in which a word is active in the finished model. None: no limit."
    )
    encoder_mask_ratio: float = argument(0.3, "Share of the words masked in the masked LM.")
    mask_weighting: Literal["uniform", "idf", "content"] = argument("uniform", MASK_WEIGHTING_HELP)
    mlm_weight: float = argument(0.2, "Weight of the masked LM, which preserves the meaning of the words. 0: off.")
    false_negative_threshold: float | None = argument(
        0.6, "Cosine above which captions mean the same, used with caption_features (TMR). None: off."
    )
    hard_negative_beta: float | None = argument(
        None, "Weight of hard-negative reweighting in the contrast (0.15 in MGA-CLAP). None: off."
    )
    exclude_relatives: bool = argument(
        True,
        "Exclude from the negatives clips of the same source (mirror twins, sub-ranges) and motions with an identical "
        "caption.",
    )
    part_mix_probability: float = argument(
        0.0,
        "Probability that a clip takes some body parts from another of the batch (part CutMix) and becomes a positive "
        "of both captions, weighted by their shares. 0: off.",
    )
    token_drop_ratio: float = argument(0.0, "Share of the tokens dropped from the motion tower's input. 0: off.")
    caption_word_dropout: float = argument(0.0, "Probability that a word of the aligned caption is masked. 0: off.")

    def __post_init__(self):
        super().__post_init__()
        for name in ("part_mix_probability", "caption_word_dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: got {getattr(self, name)}; pass a probability in [0, 1]")
        for name in ("text_word_limits", "motion_word_limits"):
            limits = getattr(self, name)
            if limits is not None and (len(limits) != 2 or not 0 <= limits[0] <= limits[1]):
                raise ValueError(f"{name}: got {limits}; pass minimum and maximum with 0 <= minimum <= maximum")
        if self.motion_word_share is not None and not 0 < self.motion_word_share < 1:
            raise ValueError(f"motion_word_share: got {self.motion_word_share}; pass a value in (0, 1)")
        if not 0 <= self.token_drop_ratio < 1:
            raise ValueError(f"token_drop_ratio: got {self.token_drop_ratio}; pass a value in [0, 1)")

    def check(self, run: RunArguments) -> None:
        without_dense = not (run.model.model_config or {}).get("dense_size")
        if self.distillation_loss_weight > 0 and without_dense:
            got = self.distillation_loss_weight
            raise ValueError(f"distillation_loss_weight: got {got} without dense vectors; set model_config.dense_size")
        if self.contrastive_loss_weight == 0 and without_dense:
            raise ValueError(
                "contrastive_loss_weight: got 0 without dense vectors; set model_config.dense_size as well"
            )
        kinds = [(fields or {}).get("head_kind") for fields in (run.model.text_config, run.model.motion_config)]
        if self.motion_word_share is not None and "vdr" in kinds:
            share = self.motion_word_share
            raise ValueError(f"motion_word_share: got {share}; omit it for head_kind 'vdr', whose words are never 0")


class LexCMLPTrainer(AlignmentTrainer):
    """Phase iv: multi-positive contrast, FLOPS with a target number of active words, and a masked LM."""

    args: LexCMLPArguments

    @property
    def dual_encoder(self) -> LexMotionModel:
        """Return the dual encoder inside the model with the losses."""
        return self.model.model

    def caption_threshold(self) -> float | None:
        return self.args.false_negative_threshold

    def setup(self) -> None:
        self.frame_multiple = self.model.config.motion_config.patch_frames
        super().setup()
        if self.args.motion_word_share is not None:
            self.dual_encoder.motion_model.lexical_head.check_can_limit()  # fail before training, not after
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
        model = self.dual_encoder
        return {"text": model.text_model.lexical_head, "motion": model.motion_model.lexical_head}

    def features(self, batch: Batch) -> tuple[Any, Any]:
        """Return the outputs of the towers for a batch."""
        text = self.dual_encoder.get_text_features(batch["input_ids"], batch["attention_mask"])
        motion = self.dual_encoder.get_motion_features(batch["motion_values"], batch["motion_attention_mask"])
        return text, motion

    def calibration_scores(self, batch: Batch) -> dict[str, Tensor]:
        text, motion = self.features(batch)
        return {"text": text.text_scores, "motion": motion.motion_scores}

    def embed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        text, motion = self.features(batch)
        return text.text_embeds, motion.motion_embeds

    def score_vectors(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return vectors whose products are the model's scores: words, then segments and dense vectors."""
        text, motion = self.features(batch)
        return self.dual_encoder.score_vectors(text), self.dual_encoder.score_vectors(motion)

    def evaluate(self) -> dict[str, float]:
        """Return retrieval figures by the model's score and the mean active words on the evaluation split."""
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
        self, batch: Batch, corpus: Any, rows: Tensor, mirrored: Tensor, captions: Tensor, random: BatchRandom
    ) -> Batch:
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
            more |= self.masker(first_ids, first_mask, random)[0].inputs("mlm_", first_mask)
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

    def mix_parts(self, batch: Batch, corpus: TrainingCorpus, mirrored: Tensor, random: BatchRandom) -> Batch:
        """
        Return motions with parts of other clips of the global batch, and their targets.

        The other clips are cropped again but mirrored as in their own row, so that their captions there hold.
        """
        if random.rows is None:
            raise ValueError("BatchRandom.rows: got None; pass the rows of the global batch, whose parts are mixed")
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

    def compute_loss(self, model: torch.nn.Module, batch: Batch) -> dict[str, Tensor]:
        output = model(**batch)
        weight = self.args.contrastive_loss_weight
        loss = weight * output.contrastive_loss + self.sparsity_loss(output) if weight else torch.zeros(())
        sides = [f"{side}_{part}" for part in ("flops_loss", "active_words") for side in ("text", "motion")]
        parts = {name: output[name] for name in ("contrastive_loss", *sides)}
        weights = {
            "grounding_loss": self.args.grounding_loss_weight,
            "bow_loss": self.args.bow_loss_weight,
            "mlm_loss": self.args.mlm_weight,
            "order_loss": self.args.order_loss_weight,
            "dense_contrastive_loss": self.args.dense_loss_weight,
            "distillation_loss": self.args.distillation_loss_weight,
        }
        for name, weight in weights.items():
            if weight and output.get(name) is not None:
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
        """Limit every word to be active in at most `share` of the unaugmented training motions."""

        def motion_scores(batch: Batch) -> tuple[Tensor, Tensor]:
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


def dual_encoder(arguments: RunArguments, processor: Any) -> LexMotionModel:
    """Return phase iii's dual encoder, else the joined towers of earlier phases."""
    seed_weights(arguments, "lexcmlp")
    if arguments.model.init_model is None:
        return join_towers(arguments, processor)
    phase_iii = finished_phase(LexMotionForLexicalMaskedMotion, arguments.model.init_model).model
    config = copy.deepcopy(phase_iii.config)
    for name, value in model_fields(arguments, processor).items():
        setattr(config, name, value)
    model = LexMotionModel(config)
    model.text_model.load_state_dict(phase_iii.text_model.state_dict())
    model.motion_model.load_state_dict(phase_iii.motion_model.state_dict())
    model.tie_weights()
    return model


def build_lexcmlp(arguments: RunArguments, processor: Any) -> LexMotionForContrastiveAlignment:
    """Return the current dual encoder inside the model with the losses of phase iv."""
    args: LexCMLPArguments = arguments.task
    encoder = dual_encoder(arguments, processor)
    model = LexMotionForContrastiveAlignment(encoder.config, args.false_negative_threshold, args.hard_negative_beta)
    model.model = encoder
    return model


def final_model(done: Mapping[str, str], arguments: Mapping[str, RunArguments], processor: Any) -> LexMotionModel:
    """Return the dual encoder of the last phase that has one, else the joined towers of earlier phases."""
    if "lexcmlp" in done:
        return finished_phase(LexMotionModel, done["lexcmlp"])
    run = arguments[list(done)[-1]]
    if "lexmmm" in done:
        run.model.init_model = done["lexmmm"]
        return dual_encoder(run, processor)
    run.model.init_text = done.get("lexmlm", run.model.init_text)
    run.model.init_motion = done.get("cmmm", run.model.init_motion)
    seed_weights(run, "lexcmlp")
    return join_towers(run, processor)


LEXCMLP = LexMotionTask(
    "lexcmlp",
    "iv LexCMLP",
    LexCMLPTrainer,
    build_lexcmlp,
    arguments=LexCMLPArguments,
    moved={"model_config": ("false_negative_threshold", "hard_negative_beta")},
    starts_from={"lexmlm": "init_text", "cmmm": "init_motion", "lexmmm": "init_model"},
    finish=final_model,
    criteria=(
        ("coverage_top10", ">", "prior_top10", "caption words in the top 10: {value:.0%}, prior {reference:.0%}"),
        ("text_universal", "<=", 0.0, "words in over half of the captions: {value:.0f}, none wanted"),
        ("motion_universal", "<=", 0.0, "words in over half of the motions: {value:.0f}, none wanted"),
    ),
    share=0.5,
)
