"""Training of the baselines in `lexmotion.baselines` with the loop, batches and evaluation of phase iv."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from lexmotion.baselines import (
    MotionPatchesConfig,
    MotionPatchesModel,
    T2MConfig,
    T2MModel,
    TemosConfig,
    TemosModel,
    TmrConfig,
    TmrModel,
)
from lexmotion.baselines.retriever import LOSSES, LexicalReadout, RetrieverConfig, RetrieverModel
from lexmotion.lexical_head import LexicalHead
from lexmotion.processing.corpora.text_models import resolve_text_model
from lexmotion.processing.skeletons import get_skeleton

from ..arguments import RunArguments, argument
from ..batches.order import Batch
from .alignment import AlignmentArguments, AlignmentTrainer
from .initialization import check_tokenizer, check_vocabulary, seed_weights
from .lexmotion_task import LexMotionTask


class System(NamedTuple):
    """Label, configuration and model of a baseline."""

    label: str
    config: type[RetrieverConfig]
    model: type[RetrieverModel]


SYSTEMS = {
    "temos": System("TEMOS", TemosConfig, TemosModel),
    "t2m": System("T2M", T2MConfig, T2MModel),
    "tmr": System("TMR", TmrConfig, TmrModel),
    "motion_patches": System("MotionPatches", MotionPatchesConfig, MotionPatchesModel),
}


@dataclass
class BaselineArguments(AlignmentArguments):
    """A baseline, trained without earlier phases."""

    system: Literal["temos", "t2m", "tmr", "motion_patches"] = argument("motion_patches", "Name of the baseline.")
    vectors: Literal["dense", "lexicon"] = argument("dense", "Dense embeddings, as published, or lexical vectors.")
    baseline_config: dict | None = argument(
        None, "Fields of the baseline's configuration (JSON); features, frames and chains come from the processor."
    )
    ema_decay: float = argument(0.0, "Decay of the weight average that is evaluated and saved. 0: no average.")


class BaselineTrainer(AlignmentTrainer):
    """Train a baseline with its own losses, plus FLOPS with a target number of active words for lexical vectors."""

    args: BaselineArguments
    model: RetrieverModel

    def readouts(self) -> dict[str, LexicalReadout]:
        """Return the lexical readouts of `text` and `motion`; none for dense vectors."""
        sides = {"text": self.model.text_readout, "motion": self.model.motion_readout}
        return {side: readout for side, readout in sides.items() if readout is not None}

    def caption_threshold(self) -> float | None:
        return self.model.config.false_negative_threshold

    def lexical_heads(self) -> dict[str, LexicalHead]:
        return {side: readout.head for side, readout in self.readouts().items()}

    def calibration_scores(self, batch: Batch) -> dict[str, Tensor]:
        scores: dict[str, Tensor] = {}

        def keep(side: str):
            return lambda readout, inputs: scores.update({side: readout.scores(*inputs)})

        hooks = [readout.register_forward_pre_hook(keep(side)) for side, readout in self.readouts().items()]
        self.model(**batch)
        for hook in hooks:
            hook.remove()
        return scores

    def embed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        return (
            self.model.get_text_features(batch["input_ids"], batch["attention_mask"]),
            self.model.get_motion_features(batch["motion_values"], batch["motion_attention_mask"]),
        )

    def text_encoder(self) -> torch.nn.Module:
        return self.model.text_encoder

    def compute_loss(self, model: torch.nn.Module, batch: Batch) -> dict[str, Tensor]:
        output = model(**batch, return_loss=True)
        parts = {name: output[name] for name in LOSSES if name in output}
        loss = output.loss
        if self.lexical_heads():
            loss = loss + self.sparsity_loss(output)
            for side, embeds in (("text", output.text_embeds), ("motion", output.motion_embeds)):
                parts[f"{side}_active_words"] = (embeds > 0).sum(dim=1).float().mean()
        return {"loss": loss, **parts}


def build_baseline(arguments: RunArguments, processor: Any) -> RetrieverModel:
    """
    Return the baseline with the weights of `text_model`, and random ones elsewhere.

    Raises:
        ValueError: if text_model is not given, or its vocabulary is not that of the processor.
    """
    seed_weights(arguments, "baseline")
    args: BaselineArguments = arguments.task
    if arguments.model.text_model is None:
        raise ValueError("text_model: got None; set it, since a baseline needs a pretrained text encoder")
    extractor = processor.feature_extractor
    system = SYSTEMS[args.system]
    fields = {"num_features": extractor.num_features, "num_frames": extractor.max_frames}
    if system.config is MotionPatchesConfig:
        fields["chains"] = get_skeleton(extractor.skeleton).chains
    config = system.config(**{**fields, "representation": args.vectors, **(args.baseline_config or {})})
    active_ids = torch.tensor(processor.lexicon.active_ids)
    added_words = check_tokenizer(arguments.model.text_model, processor.tokenizer)
    folder = resolve_text_model(arguments.model.text_model)
    model = system.model.from_text_pretrained(folder, config, active_ids, added_words)
    check_vocabulary(arguments.model.text_model, model.get_input_embeddings().num_embeddings, processor.tokenizer)
    return model


BASELINE = LexMotionTask("baseline", "baseline", BaselineTrainer, build_baseline, arguments=BaselineArguments)
