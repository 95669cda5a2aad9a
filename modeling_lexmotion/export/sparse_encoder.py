"""Export of a text tower as a masked language model of transformers, loaded by other libraries as a SPLADE encoder."""

import copy
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForMaskedLM

from ..encoding_lexmotion import text_positions

NEVER = -1e4  # bias of inactive words
PROBES = ("a person walks forward slowly", "jump", "someone kicks with the left leg, then turns around and sits down")
TOLERANCE = 1e-4  # per word weight, between two implementations of the same float32 matrix products

# Model type -> parts of its masked-LM head: dense layer, LayerNorm, output bias.
HEADS = {
    "bert": ("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions.bias"),
    "distilbert": ("vocab_transform", "vocab_layer_norm", "vocab_projector.bias"),
}


def as_masked_lm(text_model: Any) -> Any:
    """
    Convert the text tower to `BertForMaskedLM` or `DistilBertForMaskedLM`, the inverse of `from_text_pretrained`.

    log(1 + ReLU) of its logits, max-pooled over tokens, is `text_embeds`. sentence-transformers computes the same with
    `SparseEncoder(modules=[Transformer(folder, transformer_task="fill-mask"), SpladePooling("max")])`. Inactive words
    get a large negative bias. `top_k` and `min_words` cannot be represented, see [`save_sparse_encoder`].

    Args:
        text_model: `LexMotionTextModel` with a `splade` head.

    Returns:
        a new model (weights are copied), in evaluation mode.

    Raises:
        ValueError: if the head is of another kind.
    """
    head, encoder_config = text_model.lexical_head, copy.deepcopy(text_model.config.encoder_config)
    if head.kind != "splade":
        raise ValueError(
            f"lexical head: kind {head.kind!r} is not a masked-LM head; export a model with kind 'splade'"
        )
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
    Save the result of [`as_masked_lm`] and the tokenizer as a separate checkpoint.

    Args:
        text_model: `LexMotionTextModel` with a `splade` head.
        tokenizer: tokenizer of the text model.
        folder: output folder.
    """
    as_masked_lm(text_model).save_pretrained(folder)
    tokenizer = copy.deepcopy(tokenizer)
    # Otherwise loading it would look for the LexMotionProcessor it belongs to.
    tokenizer._set_processor_class(None)
    tokenizer.init_kwargs.pop("processor_class", None)
    tokenizer.save_pretrained(folder)


def _without_minimum(text_model: Any, tokenizer: Any) -> np.ndarray:
    """Encode the probes without `min_words`: (N, V) vectors."""
    head = text_model.lexical_head
    least, head.min_words = head.min_words, 0
    try:
        return text_model.encode_text(PROBES, tokenizer, precision="fp32").toarray()
    finally:
        head.min_words = least


def save_sparse_encoder(text_model: Any, tokenizer: Any, folder: str | Path, drop_minimum: bool = False) -> float:
    """
    Save the text tower as a sentence-transformers model, so that `SparseEncoder(folder)` gives the same vectors.

    Only active words are output, `top_k` becomes `max_active_dims`, captions are truncated to 77 tokens, and
    similarity is the cosine. The export is loaded and compared with the model before the folder is written.

    Args:
        text_model: `LexMotionTextModel` with a `splade` head, in float32.
        tokenizer: tokenizer of the text model.
        folder: output folder, new or empty.
        drop_minimum: whether to drop `min_words`, which SparseEncoder does not support. Captions with fewer words
            above zero then keep only those; all other vectors stay equal. If False, such a model is an error.

    Returns:
        the largest difference of a word weight between both, over a few captions.

    Raises:
        ImportError: if sentence-transformers is not installed.
        FileExistsError: if the folder is not empty.
        ValueError: if SparseEncoder does not support the head (a kind other than `splade`, `min_words` without
            `drop_minimum`, `word_share`), or if the vectors differ.
    """
    try:
        from sentence_transformers import SparseEncoder
        from sentence_transformers.base.modules import Transformer
        from sentence_transformers.sparse_encoder.modules import SpladePooling
    except ImportError as error:
        raise ImportError("this export needs sentence-transformers; `pip install sentence-transformers`") from error
    folder, head = Path(folder), text_model.lexical_head
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder}: not empty; choose another folder, or remove it")
    if head.min_words and not drop_minimum:
        raise ValueError(
            f"min_words: got {head.min_words}, but SparseEncoder supports no minimum number of words; pass "
            "drop_minimum=True (--drop-minimum) to export without it"
        )
    if head.word_share is not None:
        raise ValueError(
            f"word_share: SparseEncoder supports no word thresholds, got {head.word_share}; export one without"
        )
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.model_max_length = min(tokenizer.model_max_length, text_positions(text_model.config))
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
                f"SparseEncoder: word weights differ from the model by up to {difference:.2g}, so nothing was saved; "
                "pass the model's own tokenizer"
            )
        os.replace(ready, folder)
    return difference
