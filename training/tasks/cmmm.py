"""Phase ii, CMMM: space and time of the moving body, from motion alone."""

import torch

from ..arguments import CMMMArguments
from ..batches.corpus import TrainingCorpus
from ..batches.masks import MotionMasker, valid_tokens
from ..batches.order import BatchRandom
from ..schedules import cosine_momentum
from ..trainer import ACCEPTANCE_ROWS, PhaseTrainer


class CMMMTrainer(PhaseTrainer):
    """Phase ii: a student sees a masked crop, its slowly following teacher the whole of another crop of the clip."""

    phase = "cmmm"
    args: CMMMArguments

    def setup(self) -> None:
        config = self.model.config
        self.clips = self.clip_sampler(config.patch_frames)
        self.masker = MotionMasker(config.num_windows, config.num_parts, self.args.mask_kinds)

    def row_lengths(self) -> torch.Tensor:
        return self.clips.windows(self.train_corpus)

    def collate(
        self, corpus: TrainingCorpus, rows: torch.Tensor, random: BatchRandom, augment: bool
    ) -> dict[str, torch.Tensor]:
        mirrored = self.clips.mirrored(random) if augment else torch.zeros(len(rows), dtype=torch.bool)
        values, frames = self.clips.values(corpus, rows, mirrored, random if augment else None)
        config = self.model.config
        (token_mask,), _ = self.masker(
            valid_tokens(frames, config.patch_frames, config.num_parts), [self.args.mask_ratio], random
        )
        batch = {"motion_values": values, "motion_attention_mask": frames, "token_mask": token_mask}
        if self.args.contrastive_loss_weight > 0:
            # Held-out clips are cropped too, by the evaluation's fixed generator: the contrast needs two views.
            teacher_values, teacher_frames = self.clips.values(corpus, rows, mirrored, random)
            batch["teacher_motion_values"] = teacher_values
            batch["teacher_motion_attention_mask"] = teacher_frames
            batch["clip_ids"] = corpus.base_ids[rows]
        return batch

    def compute_loss(self, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        output = model(**batch)
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


def main(argv: list[str] | None = None) -> None:
    """Run the phase alone: `accelerate launch -m lexmotion.training.tasks.cmmm --config small ...`"""
    from ..pipeline import run_phase_command

    run_phase_command("cmmm", argv)


if __name__ == "__main__":
    main()
