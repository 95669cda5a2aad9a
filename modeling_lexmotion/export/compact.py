"""A trained model in a fraction of its size: fewer tokens, and matrices of 8 or 16 bits.

Two thirds of a small model can be embeddings of tokens that no caption of its corpus contains. [`prune_vocabulary`]
removes them, and `shipped/packed.py` stores what is left in less than half of the space.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..common.files import full_disk_named
from ..encoding_lexmotion import bind_processor
from ..lexical_head import LexicalHead
from ..shipped.packed import MOST_BYTES, pack, unpack
from .sparse_encoder import PROBES

logger = logging.getLogger(__name__)

VOCABULARY = 8192
CONTINUATION = "##"
CARDS = ("README.md", "card.json", "recipe.yaml", "words.png")  # of the model, copied to the compact one
PROBED = 256  # captions that both models encode


@dataclass(frozen=True)
class CompactReport:
    """What [`compact`] wrote.

    Args:
        folder: the compact model.
        size, full_size: bytes of its files, and of those of the model.
        tokens, full_tokens: sizes of the vocabularies.
        weight_error: largest error of a weight relative to the largest weight of its matrix.
        text_difference, motion_difference: largest difference of a word weight in the vectors of the compared captions
            and motions; the second is None without motions.
        text_cosine, motion_cosine: smallest cosine of a vector with that of the full model.
        texts, motions: number of compared captions, all of whose tokens are kept, and of compared motions.
    """

    folder: Path
    size: int
    full_size: int
    tokens: int
    full_tokens: int
    weight_error: float
    text_difference: float
    text_cosine: float
    motion_difference: float | None = None
    motion_cosine: float | None = None
    texts: int = 0
    motions: int = 0

    def summary(self) -> str:
        """Return the report in two lines."""
        lines = [
            f"{self.size / 1e6:.1f} MB, {self.tokens:,} tokens (full model: {self.full_size / 1e6:.1f} MB, "
            f"{self.full_tokens:,} tokens); largest error of a weight {self.weight_error:.2%} of its matrix's largest",
            f"word weights of {self.texts} captions differ by at most {self.text_difference:.3f}, "
            f"cosine at least {self.text_cosine:.4f}",
        ]
        if self.motion_difference is not None:
            lines[1] += f"; of {self.motions} motions {self.motion_difference:.3f} and {self.motion_cosine:.4f}"
        return "\n".join(lines)


def compact(
    model: Any,
    processor: Any,
    folder: str | os.PathLike,
    vocabulary: int | None = VOCABULARY,
    captions: Iterable[str] = (),
    motions: Sequence[Any] = (),
    most_bytes: int = MOST_BYTES,
) -> CompactReport:
    """
    Save a trained model in a compact form, which every command reads like the model itself.

    Commands and `lexmotion.pretrained(folder)` unpack it once into a cache. Ids of words differ from those of the full
    model, so an index or vectors made with one cannot be searched with the other.

    Args:
        model: `LexMotionModel` in float32.
        processor: its processor.
        folder: folder to write, new or empty.
        vocabulary: number of tokens to keep, see [`kept_tokens`]; None keeps all.
        captions: captions whose tokens are all kept, besides those that the lexicon has counted.
        motions: motions to compare the vectors of both models with, as `encode_motion` takes them.
        most_bytes: size of the weights up to which matrices are float16 instead of 8-bit integers, see `pack`.

    Returns:
        The size, and how far weights and vectors differ from those of the full model.

    Raises:
        FileExistsError: if the folder is not empty.
        ValueError: if the model is no dual encoder with a lexicon, or its tokenizer is not a WordPiece one.

    Example:
        >>> from lexmotion.evaluation.loading import load_model  # doctest: +SKIP
        >>> print(compact(*load_model("runs/small/model"), "compact/small").summary())  # doctest: +SKIP
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder}: not empty; choose another folder, or remove it")
    if not hasattr(model, "motion_model") or getattr(processor, "lexicon", None) is None:
        raise ValueError(f"model: got a {type(model).__name__}; pass a LexMotionModel whose processor has a lexicon")
    captions = list(captions)
    kept = kept_tokens(processor, getattr(model.config, "event_words", None) or (), vocabulary, captions)
    small, small_processor = prune_vocabulary(model, processor, kept)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with full_disk_named(folder), tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as work:
        ready, again = Path(work, "ready"), Path(work, "again")
        full_size = _saved_size(model, processor, Path(work, "full"))
        small.save_pretrained(ready)
        small_processor.save_pretrained(ready)
        for name in CARDS:
            source = Path(model.name_or_path or ".", name)
            if model.name_or_path and source.is_file():
                shutil.copyfile(source, ready / name)
        weight_error = pack(ready, most_bytes)
        again.mkdir()
        unpack(ready, again)
        found = _compared(model, processor, again, small_processor, kept, captions, motions)
        ready.chmod(0o755)
        os.replace(ready, folder)
    size = sum(file.stat().st_size for file in folder.iterdir())
    return CompactReport(folder, size, full_size, len(kept), len(processor.tokenizer), weight_error, **found)


def kept_tokens(
    processor: Any, ids: Iterable[int] = (), vocabulary: int | None = VOCABULARY, captions: Iterable[str] = ()
) -> np.ndarray:
    """
    Choose the tokens of a smaller vocabulary.

    Always kept are special and added tokens, active words, tokens that the lexicon has counted in captions, tokens of
    `captions`, and single characters and their continuations, into which unknown words are split. Other pieces follow
    in the order of their ids, which in vocabularies of BERT is that of their frequency, up to `vocabulary`.

    Args:
        processor: processor with a tokenizer and a lexicon.
        ids: further ids to keep.
        vocabulary: number of tokens; None keeps all, and a number below that of the tokens always kept is exceeded.
        captions: see above.

    Returns:
        (K,) int64, ascending.

    Raises:
        ValueError: if the number is not positive.
    """
    tokenizer, lexicon = processor.tokenizer, processor.lexicon
    size = len(tokenizer)
    if vocabulary is None:
        return np.arange(size)
    if vocabulary < 1:
        raise ValueError(f"vocabulary: got {vocabulary}; pass a positive number of tokens")
    keep = np.zeros(size, dtype=bool)
    tokens = tokenizer.convert_ids_to_tokens(list(range(size)))
    keep[[id for id, token in enumerate(tokens) if len(token.removeprefix(CONTINUATION)) == 1]] = True
    keep[[*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values(), *ids]] = True
    keep |= lexicon.active[:size] | (lexicon.document_frequency[:size] > 0)
    for batch in _batches(captions):
        keep[[id for row in tokenizer(batch, add_special_tokens=False)["input_ids"] for id in row]] = True
    others = np.flatnonzero(~keep & ~lexicon.special[:size])
    keep[others[: max(vocabulary - int(keep.sum()), 0)]] = True
    return np.flatnonzero(keep)


def prune_vocabulary(model: Any, processor: Any, kept: np.ndarray) -> tuple[Any, Any]:
    """
    Return a copy of a model and its processor with a part of the vocabulary.

    A motion has the same weights for the same words. A caption has the same vector if all its tokens are kept: the
    longest piece that matches is the same. Other words are split into smaller pieces.

    Args:
        model: `LexMotionModel`.
        processor: its processor.
        kept: ids to keep, ascending, with all active words and special tokens; new ids are the places in it.

    Raises:
        ValueError: if the tokenizer is not a WordPiece one.
    """
    new_id = {int(old): new for new, old in enumerate(kept)}
    tokenizer = pruned_tokenizer(processor.tokenizer, new_id)
    lexicon = processor.lexicon
    small_lexicon = type(lexicon)(
        tokenizer,
        lexicon.document_frequency[kept],
        lexicon.num_documents,
        np.array([new_id[int(id)] for id in lexicon.active_ids]),
        lexicon.vocabulary_filter,
        lexicon.min_document_frequency,
        None if lexicon.piece_ids is None else np.flatnonzero(np.isin(kept, lexicon.piece_ids)),
    )
    small_processor = type(processor)(
        feature_extractor=processor.feature_extractor, tokenizer=tokenizer, lexicon=small_lexicon
    )
    small = type(model)(_pruned_config(model.config, new_id)).eval()
    rows = torch.from_numpy(np.ascontiguousarray(kept))
    vocab_size = model.config.text_config.vocab_size
    state = {}
    for name, tensor in model.state_dict().items():
        tensor = tensor.detach().cpu()
        if name.endswith("active_ids"):
            state[name] = torch.tensor([new_id[id] for id in tensor.tolist()])
        elif _is_per_word(model, name, vocab_size):
            state[name] = tensor[rows]
        else:
            state[name] = tensor
    small.load_state_dict(state)
    small.tie_weights()
    bind_processor(small, small_processor)
    return small, small_processor


def pruned_tokenizer(tokenizer: Any, new_id: dict[int, int]) -> Any:
    """
    Return a tokenizer with some of the tokens under new ids.

    Args:
        tokenizer: fast WordPiece tokenizer.
        new_id: old id -> new id.

    Raises:
        ValueError: if the tokenizer is of another kind.
    """
    from transformers import AutoTokenizer

    content = json.loads(tokenizer.backend_tokenizer.to_str()) if hasattr(tokenizer, "backend_tokenizer") else {}
    kind = content.get("model", {}).get("type")
    if kind != "WordPiece":
        raise ValueError(f"tokenizer: got {kind or type(tokenizer).__name__}; pass vocabulary=None to keep its tokens")
    vocabulary = content["model"]["vocab"]
    content["model"]["vocab"] = {token: new_id[id] for token, id in vocabulary.items() if id in new_id}
    for token in content["added_tokens"]:
        token["id"] = new_id[token["id"]]
    if (processing := content.get("post_processor")) is not None:
        if processing["type"] == "TemplateProcessing":
            for token in processing["special_tokens"].values():
                token["ids"] = [new_id[id] for id in token["ids"]]
        elif processing["type"] == "BertProcessing":
            for name in ("sep", "cls"):
                processing[name] = [processing[name][0], new_id[processing[name][1]]]
        else:
            raise ValueError(f"tokenizer: got post-processor {processing['type']}; pass vocabulary=None to keep it")
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        Path(folder, "vocab.txt").unlink(missing_ok=True)
        Path(folder, "tokenizer.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        small = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    for name in ("name_or_path", "_name_or_path"):
        small.init_kwargs.pop(name, None)
    small.name_or_path = ""
    return small


def _pruned_config(config: Any, new_id: dict[int, int]) -> Any:
    """Return a copy of a configuration whose ids are the new ones, without the hashes of the old vocabulary."""
    small = copy.deepcopy(config)
    encoder = small.text_config.encoder_config
    for part in (small.text_config, small.motion_config, encoder):
        part.vocab_size = len(new_id)
    for name in ("lexicon_hash", "tokenizer_hash", "statistics_hash"):
        for part in (small.text_config, small.motion_config):
            if hasattr(part, name):
                setattr(part, name, None)
    for name in ("pad_token_id", "bos_token_id", "eos_token_id", "sep_token_id", "cls_token_id"):
        if isinstance(getattr(encoder, name, None), int):
            setattr(encoder, name, new_id[getattr(encoder, name)])
    if small.event_words is not None:
        small.event_words = [new_id[id] for id in small.event_words]
    return small


def _is_per_word(model: Any, name: str, vocab_size: int) -> bool:
    """Return whether a tensor of a model has a row per token: word embeddings, and biases and thresholds of heads."""
    owner, _, leaf = name.rpartition(".")
    module = model.get_submodule(owner)
    if isinstance(module, LexicalHead):
        return leaf in ("bias", "thresholds")
    return isinstance(module, torch.nn.Embedding) and module.num_embeddings == vocab_size and "word_embed" in name


def _batches(captions: Iterable[str], size: int = 4096) -> Iterable[list[str]]:
    batch: list[str] = []
    for caption in captions:
        batch.append(caption)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _saved_size(model: Any, processor: Any, folder: Path) -> int:
    """Return the bytes of the files of a saved model."""
    own = Path(model.name_or_path) if model.name_or_path else None
    if own is None or not (own / "config.json").is_file():
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        own = folder
    size = sum(file.stat().st_size for file in own.iterdir() if file.is_file() and file.name not in CARDS)
    shutil.rmtree(folder, ignore_errors=True)
    return size


def _compared(
    model: Any,
    processor: Any,
    folder: Path,
    small_processor: Any,
    kept: np.ndarray,
    captions: Sequence[str],
    motions: Sequence[Any],
) -> dict[str, Any]:
    """Encode captions and motions with the full model and with the unpacked one, and return how far they differ."""
    small = type(model).from_pretrained(folder).eval()
    texts = list(dict.fromkeys([*PROBES, *captions]))
    known = set(kept.tolist())
    ids = processor.tokenizer(texts, verbose=False)["input_ids"]
    texts = [text for text, row in zip(texts, ids, strict=True) if known.issuperset(row)]
    if not texts:
        active = processor.lexicon.active_ids.tolist()
        texts = [" ".join(processor.lexicon.words([id for id in active if not processor.lexicon.subword[id]][:8]))]
    texts = [texts[int(place)] for place in np.linspace(0, len(texts) - 1, min(len(texts), PROBED))]
    found: dict[str, Any] = {"texts": len(texts), "motions": len(motions)}
    pairs = {"text": (model.encode_text(texts, processor), small.encode_text(texts, small_processor))}
    if len(motions):
        own_vectors = small.encode_motion(motions, processor=small_processor)
        pairs["motion"] = (model.encode_motion(motions, processor=processor), own_vectors)
    for side, (full, own) in pairs.items():
        full, own = full[:, kept].toarray(), own.toarray()
        norms = np.linalg.norm(full, axis=1) * np.linalg.norm(own, axis=1)
        found[f"{side}_difference"] = float(np.abs(full - own).max())
        found[f"{side}_cosine"] = float(((full * own).sum(axis=1) / np.maximum(norms, 1e-12)).min())
    return found


__all__ = ["VOCABULARY", "CompactReport", "compact", "kept_tokens", "prune_vocabulary", "pruned_tokenizer"]
