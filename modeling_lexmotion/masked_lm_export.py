"""A text tower as a plain masked language model of transformers, which other libraries read as a SPLADE encoder."""

import copy
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForMaskedLM

NEVER = -1e4  # bias of a word that must not fire

# Model type -> the parts of its masked-LM head: dense layer, LayerNorm, output bias.
HEADS = {
    "bert": ("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions.bias"),
    "distilbert": ("vocab_transform", "vocab_layer_norm", "vocab_projector.bias"),
}


def as_masked_lm(text_model: Any) -> Any:
    """
    The text tower as `BertForMaskedLM` or `DistilBertForMaskedLM`; the way back of `from_text_pretrained`.

    log(1 + ReLU) of its logits, maximum over tokens, is `text_embeds`: sentence-transformers computes just that with
    `SparseEncoder(modules=[Transformer(folder, transformer_task="fill-mask"), SpladePooling("max")])`. Words that are
    not active get a bias no score overcomes. `top_k` and `min_words` have no place there: SparseEncoder
    calls the first `max_active_dims`.

    Args:
        text_model: a `LexMotionTextModel` with a `splade` head.

    Returns:
        a model of its own (weights are copied), in evaluation mode.

    Raises:
        ValueError: the head is of another kind.
    """
    head, encoder_config = text_model.lexical_head, copy.deepcopy(text_model.config.encoder_config)
    if head.kind != "splade":
        raise ValueError(f"only a head of kind 'splade' is a masked-LM head, this model has {head.kind!r}")
    encoder_config.tie_word_embeddings = True
    model = AutoModelForMaskedLM.from_config(encoder_config)
    getattr(model, model.base_model_prefix).load_state_dict(text_model.encoder.state_dict())
    dense, norm, bias = HEADS[encoder_config.model_type]
    model.get_submodule(dense).load_state_dict(head.dense.state_dict())
    model.get_submodule(norm).load_state_dict(head.layer_norm.state_dict())
    with torch.no_grad():
        words = model.get_parameter(bias).fill_(NEVER)
        words[head.active_ids] = head.bias[head.active_ids].to(words)
    model.tie_weights()
    return model.eval()


def save_masked_lm(text_model: Any, tokenizer: Any, folder: str | Path) -> None:
    """
    Save [`as_masked_lm`] and its tokenizer as a checkpoint of their own.

    Args:
        text_model: a `LexMotionTextModel` with a `splade` head. tokenizer: its own. folder: where to.
    """
    as_masked_lm(text_model).save_pretrained(folder)
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer._set_processor_class(None)  # else its readers would look for the LexMotionProcessor it is part of
    tokenizer.save_pretrained(folder)
