"""Initial weights of the towers: from published text models, from configurations, from earlier phases."""

from typing import Any

import torch
from transformers import AutoConfig, set_seed

import lexmotion
from lexmotion import (
    LexMotionForContrastiveMaskedMotion,
    LexMotionForLexicalMaskedLM,
    LexMotionModel,
    LexMotionMotionConfig,
    LexMotionMotionModel,
    LexMotionTextConfig,
    LexMotionTextModel,
)
from lexmotion.processing.corpora.event_order import event_word_ids
from lexmotion.processing.corpora.text_models import resolve_text_model

from ..arguments import ModelArguments, RunArguments
from ..batches.order import derive_seed
from ..checkpoints import phase_model_folder

lexmotion.register()  # the facade leaves it to the rooms when started by `-m` or the `lexmotion` command


def seed_weights(arguments: RunArguments, task: str) -> None:
    """Random weights are a function of the seed and the task."""
    set_seed(derive_seed(arguments.task.seed, task, "weights") % 2**32)


def initial_text_model(arguments: ModelArguments, processor: Any) -> LexMotionTextModel:
    """
    The text tower before any training: `text_model`'s weights, or random ones after `text_config`.

    Raises:
        ValueError: neither is given, or the vocabulary is not the processor's.
    """
    fields = dict(arguments.text_config or {})
    encoder = dict(fields.pop("encoder_config", None) or {})
    tokenizer, active_ids = processor.tokenizer, torch.tensor(processor.lexicon.active_ids)
    if arguments.text_model is not None:
        model = LexMotionTextModel.from_text_pretrained(
            resolve_text_model(arguments.text_model), active_ids=active_ids, **fields
        )
        if model.config.vocab_size < len(tokenizer):
            raise ValueError(
                f"{arguments.text_model} knows {model.config.vocab_size} words, the processor's tokenizer has "
                f"{len(tokenizer)}; prepare the data with --text-model {arguments.text_model}"
            )
        return model
    if not encoder:
        raise ValueError("give text_model (pretrained) or text_config with encoder_config (random weights)")
    kind = encoder.pop("model_type", "bert")
    config = AutoConfig.for_model(
        kind,
        **{
            "vocab_size": len(tokenizer),
            "pad_token_id": tokenizer.pad_token_id,
            **encoder,
        },
    )
    model = LexMotionTextModel(LexMotionTextConfig(encoder_config=config, **fields))
    model.set_active_words(active_ids)
    return model


def motion_config(arguments: ModelArguments, processor: Any, text: LexMotionTextConfig) -> LexMotionMotionConfig:
    """`motion_config` of the arguments, with features and parts of the processor and the words of the text tower."""
    extractor = processor.feature_extractor
    return LexMotionMotionConfig(
        **{
            "num_features": extractor.num_features,
            "parts": extractor.parts,
            "num_frames": extractor.max_frames,
            "vocab_size": text.vocab_size,
            "word_embedding_size": text.hidden_size,
            "num_active_words": text.num_active_words,
            "head_kind": text.head_kind,
            "top_k": text.top_k,
            "head_act": text.head_act,
            **(arguments.motion_config or {}),
        }
    )


def current_text_model(arguments: ModelArguments, processor: Any) -> LexMotionTextModel:
    """The text tower of a finished phase i, else the initial one."""
    if arguments.init_text is not None:
        return LexMotionForLexicalMaskedLM.from_pretrained(phase_model_folder(arguments.init_text)).text_model
    return initial_text_model(arguments, processor)


def model_fields(arguments: RunArguments, processor: Any) -> dict[str, Any]:
    """`model_config` of the arguments; where segments are pooled, with the tokenizer's words that begin an event."""
    fields = dict(arguments.model.model_config or {})
    if fields.get("num_segments", 1) > 1 and "event_words" not in fields:
        fields["event_words"] = event_word_ids(processor.tokenizer)
    return fields


def join_towers(arguments: RunArguments, processor: Any) -> LexMotionModel:
    """The dual encoder of phase i's text tower and phase ii's motion tower, or of initial ones."""
    text_model = current_text_model(arguments.model, processor)
    motion_model: LexMotionMotionModel | None = None
    config = motion_config(arguments.model, processor, text_model.config)
    if arguments.model.init_motion is not None:
        folder = phase_model_folder(arguments.model.init_motion)
        motion_model = LexMotionForContrastiveMaskedMotion.from_pretrained(folder).motion_model
    return LexMotionModel.from_towers(text_model, config, motion_model, **model_fields(arguments, processor))
