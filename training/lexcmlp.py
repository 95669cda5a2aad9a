"""Phase iv, LexCMLP: align motion and text inside one vocabulary."""

import hashlib
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from scipy import sparse
from transformers.utils import logging

from lexmotion.evaluation.encoding import sentence_vectors
from lexmotion.evaluation.retrieval import evaluate_retrieval
from lexmotion.processing.text_models import resolve_text_model

from .arguments import LexCMLPArguments
from .collators import BagOfWords, BatchRandom, CaptionMasker, choose_captions
from .corpus import TrainingCorpus
from .schedules import SparsityController
from .trainer import PhaseTrainer

logger = logging.get_logger(__name__)

CALIBRATION_ROWS = 128  # clips whose scores set the level the heads start from


class LexCMLPTrainer(PhaseTrainer):
    """
    Phase iv: multi-positive contrast, FLOPS held at a target number of active words, and the masked LM kept on.

    The checkpoint is chosen by Rsum on the evaluation split, first captions, identical captions counted as right
    (protocol `all-duplicates`).
    """

    phase = "lexcmlp"
    metric = "rsum"
    greater_is_better = True
    args: LexCMLPArguments

    def setup(self) -> None:
        config = self.model.config.motion_config
        self.clips = self.clip_sampler(config.patch_frames)
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
        threshold = self.model.config.false_negative_threshold
        self.caption_vectors = None
        if self.args.caption_features and threshold is not None:
            self.caption_vectors = self.sentence_vectors()

    def row_lengths(self) -> torch.Tensor:
        return self.clips.windows(self.train_corpus)

    def prepare_schedules(self) -> None:
        warmup = round(self.args.flops_warmup_ratio * self.num_steps)
        self.sparsity = {
            "text": SparsityController(
                self.args.text_flops_weight, warmup, self.args.text_target_words, self.args.sparsity_interval
            ),
            "motion": SparsityController(
                self.args.motion_flops_weight, warmup, self.args.motion_target_words, self.args.sparsity_interval
            ),
        }

    def prepare_weights(self) -> None:
        """Begin with `initial_active_words` active: the softmax phases leave the level of the scores undetermined."""
        if self.args.initial_active_words is None:
            return
        rows = torch.linspace(0, len(self.train_corpus) - 1, min(len(self.train_corpus), CALIBRATION_ROWS)).long()
        batch = self.to_device(self.collate(self.train_corpus, rows, BatchRandom(0, 1), augment=False))
        self.model.eval()
        with torch.no_grad():
            output = self.model(**batch)
        sides = {
            "text": (self.model.text_model.lexical_head, output.text_model_output.text_scores),
            "motion": (self.model.motion_model.lexical_head, output.motion_model_output.motion_scores),
        }
        for side, (head, scores) in sides.items():
            words = min(self.args.initial_active_words, scores.shape[1] // 2)
            logger.info(
                f"{side} biases shifted by {head.calibrate(scores, words):.3f}: {words} words active on average"
            )

    def sentence_vectors(self) -> torch.Tensor:
        """(2, C, d) unit vectors of the training captions, as written and mirrored; computed once, kept in a file."""
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
                self.output_dir.mkdir(parents=True, exist_ok=True)
                aside = path.with_suffix(".tmp")
                save_file({"vectors": vectors}, aside, metadata={"key": key})
                aside.replace(path)
        return vectors

    @torch.no_grad()
    def mean_pooled(self, texts: list[str], batch_size: int = 128) -> torch.Tensor:
        """(N, d) unit sentence vectors of the text tower as this phase found it."""
        encoder = self.model.text_model.encoder.eval()
        parts = []
        for start in range(0, len(texts), batch_size):
            tokens = self.processor.tokenizer(
                texts[start : start + batch_size],
                padding=True,
                truncation=True,
                max_length=self.data.max_text_length,
                return_tensors="pt",
            )
            states = encoder(
                input_ids=tokens["input_ids"].to(encoder.device),
                attention_mask=tokens["attention_mask"].to(encoder.device),
            ).last_hidden_state.cpu()
            weight = tokens["attention_mask"][..., None].float()
            parts.append(torch.nn.functional.normalize((states * weight).sum(1) / weight.sum(1), dim=-1))
        return torch.cat(parts)

    def collate(
        self, corpus: TrainingCorpus, rows: torch.Tensor, random: BatchRandom, augment: bool
    ) -> dict[str, torch.Tensor]:
        per_clip = self.args.captions_per_motion if augment else 1
        mirrored = self.clips.mirrored(random) if augment else torch.zeros(len(rows), dtype=torch.bool)
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
        if not augment:
            return batch
        if self.caption_vectors is not None:
            batch["caption_features"] = self.caption_vectors[sides.long(), captions.flatten()].float()
        if self.words is not None:
            batch["bow_weights"] = self.words.batch(rows, mirrored)
        if self.args.mlm_weight > 0:
            first_ids, first_mask, _ = corpus.captions.batch(captions[:, 0], mirrored)
            masked, _ = self.masker(first_ids, first_mask, random)
            batch["mlm_input_ids"] = masked.input_ids
            batch["mlm_attention_mask"] = first_mask
            batch["mlm_labels"] = masked.labels
        return batch

    def compute_loss(self, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        output = model(**batch, return_loss=True)
        step = self.state.step
        loss = output.contrastive_loss
        loss = loss + self.sparsity["text"].weight(step) * output.text_flops_loss
        loss = loss + self.sparsity["motion"].weight(step) * output.motion_flops_loss
        parts = {
            "contrastive_loss": output.contrastive_loss,
            "text_flops_loss": output.text_flops_loss,
            "motion_flops_loss": output.motion_flops_loss,
            "text_active_words": output.text_active_words,
            "motion_active_words": output.motion_active_words,
        }
        if output.bow_loss is not None:
            loss = loss + self.args.grounding_loss_weight * output.grounding_loss
            loss = loss + self.args.bow_loss_weight * output.bow_loss
            parts["grounding_loss"] = output.grounding_loss
            parts["bow_loss"] = output.bow_loss
        if output.mlm_loss is not None:
            loss = loss + self.args.mlm_weight * output.mlm_loss
            parts["mlm_loss"] = output.mlm_loss
        return {"loss": loss, **parts}

    def after_step(self, losses: dict[str, float]) -> None:
        for side, controller in self.sparsity.items():
            controller.observe(self.state.step, losses[f"{side}_active_words"])
            losses[f"{side}_flops_weight"] = controller.weight(self.state.step)

    def phase_state(self) -> dict[str, Any]:
        return {side: controller.state_dict() for side, controller in self.sparsity.items()}

    def load_phase_state(self, state: dict[str, Any]) -> None:
        for side, controller in self.sparsity.items():
            controller.load_state_dict(state[side])

    def encode(self, corpus: TrainingCorpus) -> tuple[torch.Tensor, torch.Tensor]:
        """Word vectors of every clip's first caption and of every clip: (R, V) each, on the CPU."""
        size = self.args.eval_batch_size or self.args.batch_size
        texts, motions = [], []
        nothing = BatchRandom(0, 1)
        for start in range(0, len(corpus), size):
            rows = torch.arange(start, min(start + size, len(corpus)))
            batch = self.to_device(self.collate(corpus, rows, nothing, augment=False))
            with self.accelerator.autocast():
                text = self.model.text_model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
                motion = self.model.motion_model(
                    motion_values=batch["motion_values"], motion_attention_mask=batch["motion_attention_mask"]
                )
            texts.append(text.text_embeds.float().cpu())
            motions.append(motion.motion_embeds.float().cpu())
        return torch.cat(texts), torch.cat(motions)

    def evaluate(self) -> dict[str, float]:
        """Retrieval on the evaluation split, and how many words are active."""
        texts, motions = self.encode(self.eval_corpus)
        scores = torch.nn.functional.normalize(texts, dim=1) @ torch.nn.functional.normalize(motions, dim=1).T
        values = retrieval_figures(scores, self.eval_corpus)
        values["text_active_words"] = float((texts > 0).sum(dim=1).float().mean())
        values["motion_active_words"] = float((motions > 0).sum(dim=1).float().mean())
        return values

    def load_final_weights(self) -> None:
        super().load_final_weights()
        if self.args.inference_top_k is not None:
            self.model.set_top_k(self.args.inference_top_k)

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


def retrieval_figures(scores: torch.Tensor, corpus: TrainingCorpus) -> dict[str, float]:
    """`rsum`, `t2m_r1` ... `m2t_medr` of (R captions, R motions) scores, identical captions counted as right."""
    results = evaluate_retrieval(scores.numpy(), corpus.ids, corpus.first_captions(), ["all-duplicates"])
    return {
        name.replace("/", "_").lower(): float(value)
        for name, value in results["all-duplicates"].items()
        if "/" in name or name == "Rsum"
    }


def main(argv: list[str] | None = None) -> None:
    """Run the phase alone: `accelerate launch -m lexmotion.training.lexcmlp --config small --output_dir DIR ...`"""
    from .pipeline import run_phase_command

    run_phase_command("lexcmlp", argv)


if __name__ == "__main__":
    main()
