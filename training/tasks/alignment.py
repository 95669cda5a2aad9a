"""Alignment of captions and motions, shared by phase iv and the baselines; Rsum selects the best checkpoint."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers.utils import logging

from lexmotion.common.files import atomic_path
from lexmotion.evaluation.encoding.vectors import sentence_vectors
from lexmotion.evaluation.metrics.retrieval import evaluate_retrieval
from lexmotion.lexical_head import LexicalHead
from lexmotion.processing.corpora.text_models import resolve_text_model

from ..arguments import argument
from ..batches.captions import choose_captions
from ..batches.corpus import TrainingCorpus
from ..batches.order import Batch, BatchRandom
from ..schedules import SparsityController
from .lexmotion_task import LexMotionArguments, LexMotionTrainer

logger = logging.get_logger(__name__)

CALIBRATION_ROWS = 128  # clips whose scores set the initial biases of the heads


@dataclass
class AlignmentArguments(LexMotionArguments):
    """Alignment of captions and motions, with sparse lexical vectors."""

    captions_per_motion: int = argument(1, "Captions per clip in a batch, 1 to 3.")
    caption_features: bool = argument(
        True, "Exclude captions of equal meaning from the negatives, by sentence vectors of caption_feature_model."
    )
    caption_feature_model: str | None = argument(
        None, "Encoder of those sentence vectors. None: text_model, or the initial text tower of this phase."
    )
    initial_active_words: int | None = argument(
        256, "Initial mean number of active words, set by shifting the biases of both heads. None: no shift."
    )
    text_flops_weight: float = argument(1e-3, "FLOPS weight of captions after the warm-up.")
    motion_flops_weight: float = argument(2e-3, "FLOPS weight of motions after the warm-up.")
    flops_warmup_ratio: float = argument(1 / 3, "Share of the steps over which the FLOPS weights grow quadratically.")
    text_target_words: int | None = argument(64, "Target of mean active words per caption. None: no control.")
    motion_target_words: int | None = argument(128, "Target of mean active words per motion. None: no control.")
    sparsity_interval: int = argument(50, "Steps between corrections of the FLOPS weights by 1.05 or 0.95.")

    def __post_init__(self):
        super().__post_init__()
        if not 1 <= self.captions_per_motion <= 3:
            raise ValueError(f"captions_per_motion: got {self.captions_per_motion}; pass 1, 2 or 3")


class AlignmentTrainer(LexMotionTrainer):
    """
    Align captions and motions.

    The checkpoint is selected by Rsum on the evaluation split, with first captions; identical captions count as
    correct (protocol `all-duplicates`).
    """

    metric = "rsum"
    greater_is_better = True
    args: AlignmentArguments
    frame_multiple = 1  # batches are padded to a multiple of this many frames

    def setup(self) -> None:
        self.clips = self.clip_sampler(self.frame_multiple)
        self.caption_vectors = None
        if self.args.caption_features and self.caption_threshold() is not None:
            self.caption_vectors = self.sentence_vectors()

    def row_lengths(self) -> Tensor:
        return self.clips.windows(self.train_corpus)

    def prepare_schedules(self) -> None:
        warmup, args = round(self.args.flops_warmup_ratio * self.num_steps), self.args
        sides = {
            "text": (args.text_flops_weight, warmup, args.text_target_words),
            "motion": (args.motion_flops_weight, warmup, args.motion_target_words),
        }
        self.sparsity = {side: SparsityController(*ramp, args.sparsity_interval) for side, ramp in sides.items()}

    def lexical_heads(self) -> dict[str, LexicalHead]:
        """Return the heads of `text` and `motion`; none for dense vectors."""
        raise NotImplementedError

    def caption_threshold(self) -> float | None:
        """Return the cosine of sentence vectors above which captions mean the same; None if it is not needed."""
        raise NotImplementedError

    def calibration_scores(self, batch: Batch) -> dict[str, Tensor]:
        """Return the word scores before saturation of each side that has a head, (B, A)."""
        raise NotImplementedError

    def embed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the vectors of a batch's captions and motions, as compared by retrieval."""
        raise NotImplementedError

    def text_encoder(self) -> torch.nn.Module:
        """Return the transformer for sentence vectors if no other model is given."""
        raise NotImplementedError

    def prepare_weights(self) -> None:
        """Shift the biases to `initial_active_words`, as the softmax phases leave the level of scores undetermined."""
        heads = self.lexical_heads()
        if self.args.initial_active_words is None or not heads:
            return
        rows = torch.linspace(0, len(self.train_corpus) - 1, min(len(self.train_corpus), CALIBRATION_ROWS)).long()
        batch = self.to_device(self.collate(self.train_corpus, rows, BatchRandom(0, 1), augment=False))
        self.model.eval()
        with torch.no_grad():
            scores = self.calibration_scores(batch)
        for side, head in heads.items():
            words = min(self.args.initial_active_words, scores[side].shape[1] // 2)
            logger.info(
                f"{side} biases shifted by {head.calibrate(scores[side], words):.3f}: {words} words active on average"
            )

    def sentence_vectors(self) -> Tensor:
        """Return (2, C, d) unit vectors of the training captions, original and mirrored, cached in a file."""
        table = self.train_corpus.captions
        both = [*table.texts, *table.mirrored_texts]
        source = self.args.caption_feature_model or self.arguments.model.text_model
        key = hashlib.sha256("\n".join([source or self.fingerprint, *both]).encode()).hexdigest()
        path = self.output_dir / "caption_features.safetensors"
        with self.accelerator.main_process_first():
            if path.is_file():
                with safe_open(path, "pt") as file:
                    if (file.metadata() or {}).get("key") == key:
                        return file.get_tensor("vectors")
            texts = list(dict.fromkeys(both))
            logger.info(f"sentence vectors of {len(texts)} captions from {source or 'the text tower'}")
            if source is not None:
                vectors = torch.from_numpy(sentence_vectors(texts, resolve_text_model(source)))
            else:
                vectors = self.mean_pooled(texts)
            at = {text: number for number, text in enumerate(texts)}
            vectors = vectors[torch.tensor([at[text] for text in both])].view(2, len(table), -1).contiguous()
            if self.accelerator.is_main_process:
                with atomic_path(path) as aside:
                    save_file({"vectors": vectors}, aside, metadata={"key": key})
        return vectors

    @torch.no_grad()
    def mean_pooled(self, texts: list[str], batch_size: int = 128) -> Tensor:
        """Return (N, d) unit sentence vectors of the initial text tower of this phase."""
        encoder = self.text_encoder().eval()
        length, parts = self.data.max_text_length, []
        for start in range(0, len(texts), batch_size):
            some = texts[start : start + batch_size]
            tokens = self.processor.tokenizer(
                some, padding=True, truncation=True, max_length=length, return_tensors="pt"
            )
            inputs = {name: tokens[name].to(encoder.device) for name in ("input_ids", "attention_mask")}
            states = encoder(**inputs).last_hidden_state.cpu()
            weight = tokens["attention_mask"][..., None].float()
            parts.append(torch.nn.functional.normalize((states * weight).sum(1) / weight.sum(1), dim=-1))
        return torch.cat(parts)

    def collate(self, corpus: TrainingCorpus, rows: Tensor, random: BatchRandom, augment: bool) -> Batch:
        per_clip = self.args.captions_per_motion if augment else 1
        everywhere = self.clips.mirrored(random, whole=True) if augment else torch.zeros(len(rows), dtype=torch.bool)
        mirrored = random.own(everywhere) if augment else everywhere
        values, frames = self.clips.values(corpus, rows, mirrored, random if augment else None)
        captions = choose_captions(corpus, rows, per_clip, random if augment else None)
        sides = mirrored.repeat_interleave(per_clip)
        input_ids, attention_mask, hashes = corpus.captions.batch(captions.flatten(), sides)
        batch = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "motion_values": values,
            "motion_attention_mask": frames,
            "text_clip_ids": rows.repeat_interleave(per_clip),
            "motion_clip_ids": rows,
            "caption_ids": hashes,
        }
        if augment:
            if self.caption_vectors is not None:
                batch["caption_features"] = self.caption_vectors[sides.long(), captions.flatten()].float()
            batch.update(self.collate_more(batch, corpus, rows, everywhere, captions, random))
        return batch

    def collate_more(
        self, batch: Batch, corpus: Any, rows: Tensor, mirrored: Tensor, captions: Tensor, random: BatchRandom
    ) -> Batch:
        """
        Return further or changed entries of a training batch.

        Args:
            batch: the pairs, made from rows (B,) and captions (B, per clip).
            mirrored: (global batch,) bool; `random.own` selects the rows of this process.
        """
        return {}

    def sparsity_loss(self, output: Any) -> Tensor:
        """Return the FLOPS terms at their current weights."""
        text, motion = (self.sparsity[side].weight(self.state.step) for side in ("text", "motion"))
        return text * output.text_flops_loss + motion * output.motion_flops_loss

    def after_step(self, losses: dict[str, float]) -> None:
        if not self.lexical_heads():
            return
        for side, controller in self.sparsity.items():
            controller.observe(self.state.step, losses[f"{side}_active_words"])
            losses[f"{side}_flops_weight"] = controller.weight(self.state.step)

    def phase_state(self) -> dict[str, Any]:
        return {side: controller.state_dict() for side, controller in self.sparsity.items()}

    def load_phase_state(self, state: dict[str, Any]) -> None:
        for side, controller in self.sparsity.items():
            controller.load_state_dict(state[side])

    def encode(
        self, corpus: TrainingCorpus, embed: Callable[..., tuple[Tensor, Tensor]] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Apply `embed` (default: `self.embed`) to each clip and its first caption; the results are on the CPU."""
        embed = embed or self.embed
        size = self.args.eval_batch_size or self.args.batch_size
        parts = []
        nothing = BatchRandom(0, 1)
        for start in range(0, len(corpus), size):
            rows = torch.arange(start, min(start + size, len(corpus)))
            batch = self.to_device(self.collate(corpus, rows, nothing, augment=False))
            with self.accelerator.autocast():
                parts.append([embeds.float().cpu() for embeds in embed(batch)])
        texts, motions = zip(*parts, strict=True)
        return torch.cat(texts), torch.cat(motions)

    def evaluate(self) -> dict[str, float]:
        """Return retrieval figures and the mean active words on the evaluation split."""
        texts, motions = self.encode(self.eval_corpus)
        scores = torch.nn.functional.normalize(texts, dim=1) @ torch.nn.functional.normalize(motions, dim=1).T
        values = retrieval_figures(scores, self.eval_corpus)
        if self.lexical_heads():
            values["text_active_words"] = float((texts > 0).sum(dim=1).float().mean())
            values["motion_active_words"] = float((motions > 0).sum(dim=1).float().mean())
        return values


def retrieval_figures(scores: Tensor, corpus: TrainingCorpus) -> dict[str, float]:
    """Return `rsum`, `t2m_r1` ... `m2t_medr` of (R captions, R motions) scores; identical captions count as right."""
    results = evaluate_retrieval(scores.numpy(), corpus.ids, corpus.first_captions(), ["all-duplicates"])
    return {
        name.replace("/", "_").lower(): float(value)
        for name, value in results["all-duplicates"].items()
        if "/" in name or name == "Rsum"
    }
