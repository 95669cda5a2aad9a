"""A text tower as a plain masked language model of transformers, which other libraries read as a SPLADE encoder."""

import copy
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForMaskedLM

NEVER = -1e4  # bias of a word that must not fire
CAPTION_TOKENS = 77  # read of a caption, as `encode_text` does
PROBES = ("a person walks forward slowly", "jump", "someone kicks with the left leg, then turns around and sits down")
TOLERANCE = 1e-4  # of a word weight, between two ways to multiply the same float32 matrices

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
    not active get a bias no score overcomes. `top_k` and `min_words` have no place there, see
    [`save_sparse_encoder`].

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
    # Else its readers would look for the LexMotionProcessor it is part of, or was loaded with.
    tokenizer._set_processor_class(None)
    tokenizer.init_kwargs.pop("processor_class", None)
    tokenizer.save_pretrained(folder)


def _without_minimum(text_model: Any, tokenizer: Any) -> np.ndarray:
    """(N, V), vectors of the probes as they are with no `min_words`."""
    head = text_model.lexical_head
    least, head.min_words = head.min_words, 0
    try:
        return text_model.encode_text(PROBES, tokenizer, precision="fp32").toarray()
    finally:
        head.min_words = least


def save_sparse_encoder(text_model: Any, tokenizer: Any, folder: str | Path, drop_minimum: bool = False) -> float:
    """
    Save the text tower as a model of sentence-transformers: `SparseEncoder(folder)` gives its vectors.

    Its words are the active words, `top_k` becomes `max_active_dims`, 77 tokens are read of a caption, and the
    similarity is the cosine. It is read back and compared with the model before the folder appears.

    Args:
        text_model: a `LexMotionTextModel` with a `splade` head, in float32. tokenizer: its own.
        folder: where to; must not exist, or be empty.
        drop_minimum: leave out `min_words`, which SparseEncoder cannot compute: captions with fewer words above zero
            keep those, all others have equal vectors. Otherwise such a model is refused.

    Returns:
        the largest difference of a word's weight between both, over a few captions.

    Raises:
        ImportError: sentence-transformers is not installed.
        FileExistsError: the folder holds something.
        ValueError: the head does what SparseEncoder cannot: another kind than `splade`, `min_words` that are not
            dropped, `word_share`; or the vectors are not equal.
    """
    try:
        from sentence_transformers import SparseEncoder
        from sentence_transformers.base.modules import Transformer
        from sentence_transformers.sparse_encoder.modules import SpladePooling
    except ImportError as error:
        raise ImportError("this export needs sentence-transformers: `pip install sentence-transformers`") from error
    folder, head = Path(folder), text_model.lexical_head
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} holds something already: choose another folder, or remove it")
    if head.min_words and not drop_minimum:
        raise ValueError(
            f"this model gives every caption at least {head.min_words} words (min_words), which SparseEncoder cannot: "
            "ask for drop_minimum (--drop-minimum) if captions with fewer words above zero may keep those"
        )
    if head.word_share is not None:
        raise ValueError(
            f"this text tower drops words below thresholds (word_share {head.word_share}), which SparseEncoder cannot"
        )
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.model_max_length = CAPTION_TOKENS
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as work:
        masked_lm, ready = Path(work, "masked_lm"), Path(work, "ready")
        save_masked_lm(text_model, tokenizer, masked_lm)
        modules = [Transformer(str(masked_lm), transformer_task="fill-mask"), SpladePooling(pooling_strategy="max")]
        options = {"similarity_fn_name": "cosine", "max_active_dims": head.top_k, "device": "cpu"}
        SparseEncoder(modules=modules, **options).save_pretrained(str(ready), create_model_card=False)
        theirs = SparseEncoder(str(ready), device="cpu").encode(list(PROBES), show_progress_bar=False).to_dense()
        ours = _without_minimum(text_model, tokenizer)
        difference = float(np.abs(ours - theirs.numpy()).max())
        if difference > TOLERANCE:
            raise ValueError(
                f"SparseEncoder gives other vectors than this model, by up to {difference:.2g} a word, so nothing was "
                "saved: is the tokenizer the model's own?"
            )
        os.replace(ready, folder)
    return difference
