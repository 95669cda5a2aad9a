"""Phase ii, CMMM: contrastive masked motion modelling, from motion alone."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from lexmotion import LexMotionForContrastiveMaskedMotion

from ..arguments import RunArguments, argument
from ..batches.corpus import TrainingCorpus
from ..batches.displacement import JointDisplacement
from ..batches.masks import MotionMasker, valid_tokens
from ..batches.order import Batch, BatchRandom
from ..data import PreparedData
from ..schedules import cosine_momentum
from .initialization import initial_text_model, motion_config, seed_weights
from .lexcmlp import final_model
from .lexmotion_task import ACCEPTANCE_ROWS, LexMotionArguments, LexMotionTask, LexMotionTrainer


@dataclass
class CMMMArguments(LexMotionArguments):
    """Phase ii, motion only."""

    learning_rate: float = argument(1.5e-4, "Peak learning rate of all parameters without a rate of their own.")
    weight_decay: float = argument(0.05, "AdamW weight decay; biases and normalisation layers are exempt.")
    adam_beta2: float = argument(0.95, "AdamW beta 2.")
    num_epochs: float = argument(200.0, "Passes over the clips, used if num_steps is None.")
    batch_size: int = argument(256, "Clips per global batch.")
    mask_ratio: float = argument(0.65, "Share of the tokens masked for the student.")
    mask_kinds: list[str] = argument(["random", "tubes", "blocks"], "Kinds of masks, used equally often.")
    contrast_temperature: float = argument(0.07, "Temperature of the student-teacher contrast (CMAE).")
    teacher_momentum: float = argument(0.996, "Initial momentum of the teacher; it grows to 1 along a cosine.")
    velocity_target: Literal["differences", "displacement"] = argument(
        "differences",
        "Target of the velocity loss: the frame differences of all normalised values, or the displacement of the "
        "joints, normalised per token (MAMP).",
        before="differences",
    )
    velocity_loss_weight: float = argument(1.0, "Weight of the velocity loss.")
    contrastive_loss_weight: float = argument(1.0, "Weight of the student-teacher contrast. 0: reconstruction only.")
    reconstruction_loss_weight: float = argument(1.0, "Weight of the position and velocity losses. 0: contrast only.")


class CMMMTrainer(LexMotionTrainer):
    """
    Phase ii: a student reads a masked crop of a clip, its momentum teacher another, unmasked crop.

    Args:
        motions: clips to train on, with or without captions; if not given, those of `train_corpus`.
    """

    args: CMMMArguments

    def __init__(self, *args: Any, motions: TrainingCorpus | None = None, **kwargs: Any):
        self.motions: Any = motions
        super().__init__(*args, **kwargs)

    def setup(self) -> None:
        if self.motions is None:
            self.motions = self.train_corpus
        config = self.model.config
        self.clips = self.clip_sampler(config.patch_frames)
        self.masker = MotionMasker(config.num_windows, config.num_parts, self.args.mask_kinds)
        self.displacement = None
        if self.args.velocity_target == "displacement":
            self.displacement = JointDisplacement(self.processor.feature_extractor)

    def row_lengths(self) -> Tensor:
        return self.clips.windows(self.motions)

    def row_names(self, rows: Tensor) -> list[str]:
        return [self.motions.ids[row] for row in rows.tolist()]

    def collate(self, corpus: TrainingCorpus, rows: Tensor, random: BatchRandom, augment: bool) -> Batch:
        corpus = self.motions if augment else corpus
        mirrored = self.clips.mirrored(random) if augment else torch.zeros(len(rows), dtype=torch.bool)
        values, frames = self.clips.values(corpus, rows, mirrored, random if augment else None)
        config = self.model.config
        (token_mask,), _ = self.masker(
            valid_tokens(frames, config.patch_frames, config.num_parts), [self.args.mask_ratio], random
        )
        batch = {"motion_values": values, "motion_attention_mask": frames, "token_mask": token_mask}
        if self.args.contrastive_loss_weight > 0:
            # Held-out clips are cropped too, with the evaluation's fixed seed: the contrast needs two views.
            teacher_values, teacher_frames = self.clips.values(corpus, rows, mirrored, random)
            batch["teacher_motion_values"] = teacher_values
            batch["teacher_motion_attention_mask"] = teacher_frames
            batch["clip_ids"] = corpus.base_ids[rows]
        return batch

    def resume(self) -> None:
        super().resume()
        if self.motions is not self.train_corpus and self.state.step == 0:
            more = len(self.motions) - len(self.train_corpus)
            if self.accelerator.is_main_process:
                self.log.trim(-1)  # lines of a run without a checkpoint
            self.log.write({"step": 0, "split_clips": len(self.train_corpus), "extra_motions": more})

    def compute_loss(self, model: torch.nn.Module, batch: Batch) -> dict[str, Tensor]:
        target: dict[str, Any] = {}
        if self.displacement is not None:
            target["displacements"] = self.displacement(batch["motion_values"])
            target["displacement_columns"] = self.displacement.columns
        output = model(**batch, **target)
        losses = {"position_loss": output.position_loss, "velocity_loss": output.velocity_loss}
        loss = self.args.reconstruction_loss_weight * (
            output.position_loss + self.args.velocity_loss_weight * output.velocity_loss
        )
        if output.contrastive_loss is not None:
            losses["contrastive_loss"] = output.contrastive_loss
            loss = loss + self.args.contrastive_loss_weight * output.contrastive_loss
        return {"loss": loss, **losses}

    def after_step(self, losses: dict[str, float]) -> None:
        self.model.update_teacher(cosine_momentum(self.state.step, self.num_steps, self.args.teacher_momentum))

    def acceptance(self) -> dict[str, float]:
        from lexmotion.evaluation.acceptance import evaluate_cmmm

        batches = (batch for _, batch in self.evaluation_batches(limit=ACCEPTANCE_ROWS, shared=False))
        return evaluate_cmmm(self.model, batches, self.processor.feature_extractor)


def build_cmmm(arguments: RunArguments, processor: Any) -> LexMotionForContrastiveMaskedMotion:
    """Return the model with random weights; only the sizes of the text tower matter."""
    seed_weights(arguments, "cmmm")
    text = initial_text_model(arguments.model, processor).config
    seed_weights(arguments, "cmmm")
    config = motion_config(arguments.model, processor, text)
    model = LexMotionForContrastiveMaskedMotion(config, arguments.task.contrast_temperature)
    model.motion_model.set_active_words(processor.lexicon.active_ids)  # unused in this phase, but saved
    return model


def read_motions(arguments: RunArguments, data: Any) -> dict[str, TrainingCorpus]:
    """Return the clips of phase ii if the data has extra motions; they count in the fingerprint of the data."""
    motions = data.motions(arguments) if isinstance(data, PreparedData) else None
    return {} if motions is None else {"motions": motions}


CMMM = LexMotionTask(
    "cmmm",
    "ii CMMM",
    CMMMTrainer,
    build_cmmm,
    arguments=CMMMArguments,
    moved={"motion_config": ("contrast_temperature",)},
    inputs=read_motions,
    finish=final_model,
    criteria=(
        (
            "masked_error",
            "<",
            "interpolation_error",
            "hidden joints off by {value:.3f}, interpolation {reference:.3f}",
        ),
        ("masked_error", "<", "mean_pose_error", "hidden joints off by {value:.3f}, mean pose {reference:.3f}"),
        ("same_clip_r1", ">", "same_clip_chance", "same clip found R@1 {value:.0f}, chance {reference:.1f}"),
        ("feature_spread", ">", 0.5, "feature spread {value:.2f}, collapsed under {reference}"),
    ),
    share=0.15,
)
