"""Initial weights of the towers, from published text models, configurations or earlier phases."""

import importlib.util
import os
from typing import Any

import torch
from transformers import AutoConfig, set_seed
from transformers.utils import logging

from lexmotion import (
    LexMotionForContrastiveMaskedMotion,
    LexMotionForLexicalMaskedLM,
    LexMotionModel,
    LexMotionMotionConfig,
    LexMotionMotionModel,
    LexMotionTextConfig,
    LexMotionTextModel,
)
from lexmotion.common.pretrained import loading_from
from lexmotion.encoding_lexmotion import tokenizer_hash
from lexmotion.processing.corpora.event_order import event_word_ids
from lexmotion.processing.corpora.text_models import resolve_text_model, text_model_tokenizer
from lexmotion.processing.corpora.whole_words import whole_words

from ..arguments import ModelArguments, RunArguments
from ..batches.order import derive_seed
from ..checkpoints import phase_model_folder

logger = logging.get_logger(__name__)

TRACKERS = {"tensorboard": ("tensorboard", "tensorboardX"), "comet_ml": ("comet_ml",), "dvclive": ("dvclive",)}


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
        added_words = check_tokenizer(arguments.text_model, tokenizer)
        model = LexMotionTextModel.from_text_pretrained(
            resolve_text_model(arguments.text_model), active_ids=None, added_words=added_words, **fields
        )
        check_vocabulary(str(arguments.text_model), model.config.vocab_size, tokenizer)
        model.set_active_words(active_ids)
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


def check_packages(arguments: RunArguments) -> None:
    """Raise an ImportError if a package that the arguments need, for text weights or logging, is not installed."""
    for name in (getattr(arguments.model, "text_model", None), getattr(arguments.task, "caption_feature_model", None)):
        if name is not None:
            resolve_text_model(name)
    for tracker in arguments.task.log_with:
        if not any(importlib.util.find_spec(module) for module in TRACKERS.get(tracker, (tracker,))):
            remedy = f"run `pip install {tracker}`, or leave it out with --set log_with=[]"
            raise ImportError(f"log_with {tracker!r}: its package is not installed; {remedy}")


def check_text_model(arguments: RunArguments, processor: Any) -> None:
    """Check the tokenizer of the text weights that a task starts from, if any; see `check_tokenizer`."""
    model = vars(arguments.model)
    if processor is not None and model.get("text_model") and not (model.get("init_text") or model.get("init_model")):
        check_tokenizer(model["text_model"], processor.tokenizer)


def check_tokenizer(text_model: str, tokenizer: Any) -> dict[int, list[int]]:
    """
    Check that the weights of a text model belong to the processor's tokenizer, which may have whole words in addition.

    Returns:
        The ids of the whole words that `prepare` added to the text model's tokenizer, with the ids of their pieces.

    Raises:
        ImportError: if the package of the text model is not installed.
        ValueError: if the tokenizer is another one.
    """
    own = text_model_tokenizer(text_model)
    if own is None:
        logger.warning(f"text_model {text_model}: no tokenizer beside the weights, so that of the data is not checked")
        return whole_words(tokenizer)
    added = whole_words(tokenizer, first_id=len(own))
    extended = len(tokenizer) >= len(own) and list(added) == list(range(len(own), len(tokenizer)))
    if not extended or tokenizer_hash(own) != tokenizer_hash(tokenizer, len(own)):
        raise ValueError(
            f"text_model {text_model}: its tokenizer ({len(own)} tokens) is not that of the prepared data "
            f"({len(tokenizer)} tokens), so the weights would read other words; prepare the data again with "
            f"`lexmotion prepare SOURCE --output-dir DIR --text-model {text_model}`, or with --recipe RECIPE"
        )
    return added


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


def finished_phase(kind: Any, folder: str | os.PathLike) -> Any:
    """Return the model of a finished task's folder, of a class of this package."""
    with loading_from(folder):
        return kind.from_pretrained(phase_model_folder(folder))


def current_text_model(arguments: ModelArguments, processor: Any) -> LexMotionTextModel:
    """Return the text tower of a finished phase i, else the initial one."""
    if arguments.init_text is not None:
        return finished_phase(LexMotionForLexicalMaskedLM, arguments.init_text).text_model
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
        motion_model = finished_phase(LexMotionForContrastiveMaskedMotion, arguments.model.init_motion).motion_model
    return LexMotionModel.from_towers(text_model, config, motion_model, **model_fields(arguments, processor))
