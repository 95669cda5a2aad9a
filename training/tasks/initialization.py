"""Initial weights of the towers, from published text models, configurations or earlier phases."""

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

lexmotion.register()  # `import lexmotion` does not register when started by `-m` or the `lexmotion` command


def seed_weights(arguments: RunArguments, task: str) -> None:
    """Seed the random weights from the run's seed and the task."""
    set_seed(derive_seed(arguments.task.seed, task, "weights") % 2**32)


def initial_text_model(arguments: ModelArguments, processor: Any) -> LexMotionTextModel:
    """
    Return the untrained text tower, with the weights of `text_model` or random ones according to `text_config`.

    Raises:
        ValueError: if neither is given, or the vocabulary is not that of the processor.
    """
    fields = dict(arguments.text_config or {})
    encoder = dict(fields.pop("encoder_config", None) or {})
    tokenizer, active_ids = processor.tokenizer, torch.tensor(processor.lexicon.active_ids)
    if arguments.text_model is not None:
        model = LexMotionTextModel.from_text_pretrained(
            resolve_text_model(arguments.text_model), active_ids=active_ids, **fields
        )
        check_vocabulary(str(arguments.text_model), model.config.vocab_size, tokenizer)
        return model
    if not encoder:
        raise ValueError("text_model: got None; set it (pretrained) or encoder_config in text_config (random weights)")
    kind = encoder.pop("model_type", "bert")
    config = AutoConfig.for_model(
        kind, **{"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, **encoder}
    )
    model = LexMotionTextModel(LexMotionTextConfig(encoder_config=config, **fields))
    model.set_active_words(active_ids)
    return model


def check_vocabulary(text_model: str, words: int, tokenizer: Any) -> None:
    """Raise a ValueError if a text model's vocabulary has fewer words than the processor's tokenizer."""
    if words < len(tokenizer):
        raise ValueError(
            f"text_model {text_model}: {words} words, but the processor's tokenizer has {len(tokenizer)}; prepare the "
            f"data with --text-model {text_model}"
        )


def motion_config(arguments: ModelArguments, processor: Any, text: LexMotionTextConfig) -> LexMotionMotionConfig:
    """Return `motion_config` completed with the features and parts of the processor and the text tower's words."""
    extractor = processor.feature_extractor
    features = {
        "num_features": extractor.num_features,
        "parts": extractor.parts,
        "num_frames": extractor.max_frames,
        "word_embedding_size": text.hidden_size,
    }
    shared = ("vocab_size", "num_active_words", "head_kind", "top_k", "head_act")
    words = {name: getattr(text, name) for name in shared}
    return LexMotionMotionConfig(**{**features, **words, **(arguments.motion_config or {})})


def current_text_model(arguments: ModelArguments, processor: Any) -> LexMotionTextModel:
    """Return the text tower of a finished phase i, else the initial one."""
    if arguments.init_text is not None:
        return LexMotionForLexicalMaskedLM.from_pretrained(phase_model_folder(arguments.init_text)).text_model
    return initial_text_model(arguments, processor)


def model_fields(arguments: RunArguments, processor: Any) -> dict[str, Any]:
    """Return `model_config`, with the tokenizer's words that begin an event if segments are pooled."""
    fields = dict(arguments.model.model_config or {})
    if fields.get("num_segments", 1) > 1 and "event_words" not in fields:
        fields["event_words"] = event_word_ids(processor.tokenizer)
    return fields


def join_towers(arguments: RunArguments, processor: Any) -> LexMotionModel:
    """Return the dual encoder of phase i's text tower and phase ii's motion tower, or of initial ones."""
    text_model = current_text_model(arguments.model, processor)
    motion_model: LexMotionMotionModel | None = None
    config = motion_config(arguments.model, processor, text_model.config)
    if arguments.model.init_motion is not None:
        folder = phase_model_folder(arguments.model.init_motion)
        motion_model = LexMotionForContrastiveMaskedMotion.from_pretrained(folder).motion_model
    return LexMotionModel.from_towers(text_model, config, motion_model, **model_fields(arguments, processor))
