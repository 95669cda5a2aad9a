"""
Fast encoding of captions and motions as sparse lexical vectors.

Computes what `forward` computes, without what only training needs: inputs of similar length are batched together, one
tokenizer call reads thousands of captions, and only the scores of active words are computed, which become the rows of
a sparse matrix; no (B, V) tensor is built. Inputs are read window by window, so only the sparse result grows with the
corpus.
"""

import contextlib
import functools
import hashlib
import json
import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from tqdm.auto import tqdm
from transformers import AutoFeatureExtractor, AutoProcessor, AutoTokenizer
from transformers.utils import logging

from .lexical_head import LexicalHead, max_pooled_projection, saturate
from .views_lexmotion import as_vocabulary, average_views, mirrored_columns, views_of

try:
    from scipy import sparse
except ImportError:  # models loaded as remote code need it only for encoding
    sparse = None

logger = logging.get_logger(__name__)

PRECISIONS = ("auto", "fp32", "bf16")
NO_LIMIT = 1 << 30
SPECIAL_TOKENS = ("pad", "unk", "cls", "sep", "mask", "bos", "eos")
_VOCABULARIES: weakref.WeakKeyDictionary[Any, tuple[int, str]] = weakref.WeakKeyDictionary()  # size and hash of tokens
CAPTION_WINDOW, MOTION_WINDOW = 1 << 14, 1 << 10  # inputs that are in memory and sorted by length together
CPU_BATCH, ACCELERATOR_BATCH = 64, 512


@functools.cache
def _cpu() -> set[str]:
    """Return the words with which Linux describes the processor, such as instruction sets; empty elsewhere."""
    try:
        return set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].split())
    except OSError:
        return set()


def encoding_dtype(precision: str, device: torch.device) -> torch.dtype:
    """
    Return the dtype of matrix products.

    Args:
        precision: `"fp32"`, `"bf16"`, or `"auto"`: bfloat16 if the processor multiplies it faster than float32
            (AVX512-BF16, AMX, GPUs since Ampere), otherwise float32.
        device: device of the model.

    Raises:
        ValueError: if the precision is unknown.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision: got {precision!r}; pass one of {', '.join(PRECISIONS)}")
    if precision != "auto":
        return torch.bfloat16 if precision == "bf16" else torch.float32
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        fast = device.type == "cpu" and not _cpu().isdisjoint({"avx512_bf16", "amx_bf16"})
    return torch.bfloat16 if fast else torch.float32


@contextlib.contextmanager
def usable_threads() -> Iterator[None]:
    """Limit torch's threads to the cores that the process may use; restores the number afterwards."""
    before = torch.get_num_threads()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else before
    if cores >= before:
        yield
        return
    torch.set_num_threads(cores)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _onednn_products() -> Iterator[None]:
    matmul = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = matmul.fp32_precision
    matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = before


@functools.cache
def _onednn_is_better() -> bool:
    if "AuthenticAMD" not in _cpu() or "avx512f" not in _cpu() or not torch.backends.mkldnn.is_available():
        return False
    if not hasattr(getattr(torch.backends.mkldnn, "matmul", None), "fp32_precision"):  # torch < 2.9
        return False
    numbers = torch.full((64, 64), 1.0 + 2.0**-12)  # 1 in bfloat16
    with _onednn_products(), torch.no_grad():
        return torch.equal(numbers @ torch.eye(64), numbers)


def exact_products() -> contextlib.AbstractContextManager:
    """
    Return the context that doubles the speed of float32 matrix products on AMD processors with AVX-512, at full
    accuracy.

    On these, torch uses MKL, which ignores AVX-512, and oneDNN is faster. torch's only switch to oneDNN also permits
    bfloat16, which oneDNN uses on AMX only; one test product makes sure that the results are exact.
    """
    return _onednn_products() if _onednn_is_better() else contextlib.nullcontext()


class LinearMaps(TorchFunctionMode):
    """
    Runs linear maps in `dtype` and leaves everything else unchanged.

    Weights are cast once, not per batch (autocast caches only casts of trainable weights, and passes its cache on to
    an enclosing autocast). Attention is not cast: its products are too small for oneDNN.
    """

    def __init__(self, dtype: torch.dtype):
        super().__init__()
        self.dtype = dtype
        self.weights: dict[nn.Parameter, torch.Tensor] = {}

    def _cast(self, value: Any) -> Any:
        if not isinstance(value, nn.Parameter):
            return value
        if value not in self.weights:
            self.weights[value] = value.to(self.dtype)
        return self.weights[value]

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is not nn.functional.linear:
            return function(*args, **(kwargs or {}))
        with exact_products() if self.dtype == torch.float32 else contextlib.nullcontext():
            return function(*map(self._cast, args), **(kwargs or {}))


def tokenizer_hash(tokenizer: Any, size: int | None = None) -> str | None:
    """
    Return the SHA-256 of a tokenizer's tokens in the order of their ids and of its special ids; None for others.

    Args:
        tokenizer: the tokenizer.
        size: only the first tokens, this many; None: all.
    """
    if not hasattr(tokenizer, "convert_ids_to_tokens"):
        return None
    size, known = len(tokenizer) if size is None else size, _VOCABULARIES.get(tokenizer)
    if known is None or known[0] != size:
        tokens = json.dumps(tokenizer.convert_ids_to_tokens(list(range(size))))
        known = _VOCABULARIES[tokenizer] = (size, hashlib.sha256(tokens.encode()).hexdigest())
    special = [getattr(tokenizer, f"{name}_token_id", None) for name in SPECIAL_TOKENS]
    return hashlib.sha256(json.dumps([known[1], *special]).encode()).hexdigest()


def _hashes(processor: Any) -> dict[str, str | None]:
    """Return the hashes of tokenizer, lexicon and statistics of a processor or its part; None for missing ones."""
    extractor, lexicon = getattr(processor, "feature_extractor", processor), getattr(processor, "lexicon", None)
    return {
        "lexicon_hash": getattr(lexicon, "hash", None),
        "statistics_hash": getattr(extractor, "statistics_hash", None),
        "tokenizer_hash": tokenizer_hash(getattr(processor, "tokenizer", processor)),
    }


def _with_towers(config: Any) -> list[Any]:
    towers = (getattr(config, name, None) for name in ("text_config", "motion_config"))
    return [config, *(tower for tower in towers if tower is not None)]


def bind_processor(model: nn.Module, processor: Any) -> None:
    """
    Write the hashes of the processor's tokenizer, lexicon and statistics into a model's configurations, for
    [`check_processor`].

    Raises:
        ValueError: if the model was trained with another tokenizer, or its active words are not those of the lexicon.
    """
    hashes, lexicon = _hashes(processor), getattr(processor, "lexicon", None)
    if lexicon is not None:
        words = [int(word) for word in lexicon.active_ids]
        for head in (module for module in model.modules() if isinstance(module, LexicalHead)):
            if head.active_ids.tolist() != words:
                raise ValueError(
                    f"the model's {head.active_ids.numel()} active words are not the {len(words)} of the lexicon; "
                    "start from a model trained with this corpus's processor"
                )
    tokenizer = getattr(processor, "tokenizer", None)
    if tokenizer is not None and hasattr(tokenizer, "model_max_length"):  # captions are cut as the model cuts them
        tokenizer.model_max_length = min(tokenizer.model_max_length, text_positions(getattr(model, "config", None)))
    configs = [config for module in model.modules() for config in _with_towers(getattr(module, "config", None))]
    for config in configs:
        _compare("tokenizer_hash", hashes["tokenizer_hash"], {getattr(config, "tokenizer_hash", None)})
    for config in configs:
        for name, value in hashes.items():
            if hasattr(config, name) and value is not None:
                setattr(config, name, value)


def check_processor(config: Any, processor: Any) -> None:
    """
    Check that a model was trained with the tokens, the words and the normalization of a processor.

    Args:
        config: configuration of the model; if it has no hashes, as in old checkpoints, every processor is accepted.
        processor: a `LexMotionProcessor`, or only its tokenizer or feature extractor.

    Raises:
        ValueError: if the tokenizer, the lexicon or the statistics differ.
    """
    for name, found in _hashes(processor).items():
        _compare(name, found, {getattr(part, name, None) for part in _with_towers(config)})


def _compare(name: str, found: str | None, kept: set[str | None]) -> None:
    expected = {value for value in kept if value is not None}
    if found is not None and expected and expected != {found}:
        what = name.removesuffix("_hash")
        trained = " and ".join(sorted(value[:12] for value in expected))
        raise ValueError(
            f"the processor's {what}: got hash {found[:12]} for a model trained with {trained}, so its vectors "
            "would be wrong; load the processor saved with the model"
        )


def text_positions(config: Any) -> int:
    """Return the most tokens that the text encoder of a configuration takes; `NO_LIMIT` if it has no limit."""
    encoders = (getattr(part, "encoder_config", None) for part in _with_towers(config))
    return min((getattr(one, "max_position_embeddings", None) or NO_LIMIT for one in encoders), default=NO_LIMIT)


def note_cut_captions(tokenizer: Any, captions: Sequence[str], ids: Sequence[Sequence[int]], limit: int) -> None:
    """Warn if captions have more tokens than the `limit` that was kept of them as `ids`."""
    full = [place for place, row in enumerate(ids) if len(row) >= limit]
    if full:
        counts = map(len, tokenizer([captions[place] for place in full], verbose=False)["input_ids"])
        cut = [(place, count) for place, count in zip(full, counts, strict=True) if count > limit]
        if cut:
            logger.warning(
                f"{len(cut)} of {len(captions)} captions are too long, and the model reads their first {limit} tokens "
                f"(the longest has {max(count for _, count in cut)}): {captions[cut[0][0]][:60]!r} ...; shorten them"
            )


def longest_first(lengths: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """Yield the positions of `lengths` (N,) in batches of similar length, longest first."""
    order = np.argsort(-lengths, kind="stable")
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


class _WordVectors:
    """
    The lexical head at inference: token states -> the entries of a sparse matrix.

    Args:
        head: lexical head of the tower.
        word_embeddings: (V, D), its output matrix; the active rows are gathered and cast once.
    """

    def __init__(self, head: LexicalHead, word_embeddings: torch.Tensor, dtype: torch.dtype):
        active = head.active_ids
        everything = len(active) == head.vocab_size
        self.head, self.active, self.dtype = head, active, dtype
        self.weight = (word_embeddings if everything else word_embeddings[active]).to(dtype)
        self.bias = head.bias if everything else head.bias[active]

    def __call__(self, hidden: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(B, N, D), (B, N) -> rows, int32 vocabulary ids and float32 weights of the words above zero, row by row."""
        head = self.head
        states = head.transform(hidden)
        with exact_products() if self.dtype == torch.float32 else contextlib.nullcontext():
            scores, _ = max_pooled_projection(states, self.weight, self.bias, mask)  # (B, A)
        scores = scores.float()
        if head.kind == "splade" and head.top_k is None and not head.min_words and head.word_share is None:
            rows, places = (scores > 0).nonzero(as_tuple=True)
            weights = saturate(scores[rows, places], head.kind)
        else:
            embeds = head.weigh(scores)
            rows, places = embeds.nonzero(as_tuple=True)
            weights = embeds[rows, places]
        return rows, self.active[places].int(), weights


@torch.inference_mode()
def _encode(
    tower: Any,
    word_embeddings: torch.Tensor,
    token_states: Callable[..., tuple[torch.Tensor, torch.Tensor]],
    inputs: Callable[[slice], tuple[np.ndarray, Callable[[np.ndarray], dict[str, torch.Tensor]]]],
    count: int,
    window: int,
    description: str,
    batch_size: int | None,
    precision: str,
    progress: bool,
    average: Callable[["sparse.csr_matrix"], "sparse.csr_matrix"] | None = None,
) -> "sparse.csr_matrix":
    """
    Encode a corpus with one of the towers.

    Args:
        token_states: inputs of a batch -> token states (B, N, D) and their mask (B, N).
        inputs: slice of at most `window` items -> lengths of their views (the first of all, the second, ...), and a
            function from positions among these to a batch.
        count: N, the number of items.
        average: from the vectors of all views of a window to those of its items; None if each item has one.

    Returns:
        (N, V) float32 CSR.
    """
    if sparse is None:
        raise ImportError("encoding returns scipy matrices, but scipy is not installed; run `pip install scipy`")
    device = tower.device
    dtype = encoding_dtype(precision, device)
    if tower.dtype != torch.float32:  # rounded or double-precision weights are used as they are
        if precision == "fp32":
            raise ValueError(f"precision 'fp32': got {tower.dtype} weights; load the model with dtype=torch.float32")
        dtype = tower.dtype
    if batch_size is None:
        batch_size = CPU_BATCH if device.type == "cpu" else ACCELERATOR_BATCH
    if batch_size < 1:
        raise ValueError(f"batch_size: got {batch_size}; pass at least 1")
    words = _WordVectors(tower.lexical_head, word_embeddings, dtype)
    is_half = dtype in (torch.bfloat16, torch.float16)
    lowered = torch.autocast(device.type, dtype if is_half else None, enabled=is_half, cache_enabled=False)
    parts = []
    was_training = tower.training
    tower.eval()
    try:
        with usable_threads(), lowered, tqdm(total=count, desc=description, disable=not progress, leave=False) as bar:
            linear_maps = LinearMaps(dtype)
            for start in range(0, count, window):
                items = min(window, count - start)
                lengths, collate = inputs(slice(start, start + items))
                found = []
                for places in longest_first(lengths, batch_size):
                    batch = {name: value.to(device) for name, value in collate(places).items()}
                    with linear_maps:
                        entries = words(*token_states(**batch))
                    rows, ids, weights = (column.cpu().numpy() for column in entries)
                    found.append((places[rows], ids, weights))
                    bar.update(int((places < items).sum()))
                rows, ids, weights = (np.concatenate(column) for column in zip(*found, strict=True))
                order = np.argsort(rows, kind="stable")
                ends = np.bincount(rows, minlength=len(lengths)).cumsum()
                shape, row_starts = (len(lengths), tower.config.vocab_size), np.concatenate([[0], ends])
                vectors = sparse.csr_matrix((weights[order], ids[order], row_starts), shape=shape)
                parts.append(vectors if average is None else average(vectors))
    finally:
        tower.train(was_training)
    if not parts:
        return sparse.csr_matrix((0, tower.config.vocab_size), dtype=np.float32)
    return sparse.vstack(parts, format="csr") if len(parts) > 1 else parts[0]


class _WithProcessor:
    name_or_path: str
    config: Any

    def _processor_part(self, processor: Any, name: str, auto_class: Any) -> Any:
        """Return the tokenizer or feature extractor: from `processor`, or the one saved with the weights."""
        if processor is not None:
            check_processor(self.config, processor)
            return getattr(processor, name, processor)
        parts = self.__dict__.setdefault("_processor_parts", {})
        if name not in parts:
            if not self.name_or_path:
                raise ValueError(
                    f"this {type(self).__name__} was not loaded from a folder or the Hub and has no processor; pass "
                    "processor=LexMotionProcessor.from_pretrained(...)"
                )
            # If the model's own code was loaded from there, the user trusts it.
            trusted = type(self).__module__.startswith("transformers_modules.")
            hashes = {key for config in _with_towers(self.config) for key, value in vars(config).items() if value}
            if name == "tokenizer" and "lexicon_hash" in hashes and "tokenizer_hash" not in hashes:
                auto_class = AutoProcessor  # an older model, whose tokenizer only the saved lexicon can identify
            found = auto_class.from_pretrained(self.name_or_path, trust_remote_code=trusted)
            check_processor(self.config, found)
            parts[name] = getattr(found, name, found)
        return parts[name]

    def _mirrored_ids(self, processor: Any) -> np.ndarray:
        """Return `LexMotionProcessor.mirrored_ids` of `processor`, or of the one saved with the weights."""
        found = self._processor_part(None, "processor", AutoProcessor) if processor is None else processor
        if not hasattr(found, "mirrored_ids"):
            raise ValueError(
                f"views: a {type(found).__name__} has no words to swap for the mirror image; pass the model's "
                "LexMotionProcessor, or views=1"
            )
        return found.mirrored_ids


class TextEncodingMixin(_WithProcessor):
    """Adds `encode_text` to a text tower, or to a model with one as `text_model`."""

    def encode_text(
        self,
        texts: str | Sequence[str],
        processor: Any = None,
        batch_size: int | None = None,
        max_length: int | None = None,
        precision: str = "auto",
        progress: bool = False,
    ) -> "sparse.csr_matrix":
        """
        Encode captions as word vectors.

        Args:
            texts: N captions, or one.
            processor: the model's `LexMotionProcessor` or its tokenizer; None loads the one saved with the weights.
            batch_size: captions per batch; None for 64 on a CPU, 512 elsewhere.
            max_length: tokens read per caption; None for as many as tower and tokenizer take. A warning names longer
                captions.
            precision: of the matrix products: `"fp32"`, equal to `forward` up to the rounding of another batch;
                `"bf16"`; or `"auto"`, bf16 if the processor is faster at it.
            progress: show a progress bar.

        Returns:
            (N, V) float32 CSR, in the order of `texts`.

        Raises:
            ValueError: if a caption is empty, the tokenizer belongs to another model, or no processor is found.
        """
        tower: Any = getattr(self, "text_model", self)
        tokenizer = self._processor_part(processor, "tokenizer", AutoTokenizer)
        if len(tokenizer) > tower.config.vocab_size:
            sizes = f"got {len(tokenizer)} words for a model with {tower.config.vocab_size}"
            raise ValueError(f"tokenizer: {sizes}; pass the processor saved with this model")

        texts = [texts] if isinstance(texts, str) else texts
        limit = min(text_positions(tower.config), getattr(tokenizer, "model_max_length", NO_LIMIT))
        limit = limit if max_length is None else min(limit, max_length)

        def inputs(window: slice):
            captions = list(texts[window])
            for place, caption in enumerate(captions):
                if not isinstance(caption, str) or not caption.strip():
                    raise ValueError(f"caption {window.start + place}: got {caption!r}; pass a text, or leave it out")
            only_ids = {"return_attention_mask": False, "return_token_type_ids": False}
            ids = tokenizer(captions, truncation=True, max_length=limit, **only_ids)["input_ids"]
            note_cut_captions(tokenizer, captions, ids, limit)
            lengths = np.fromiter(map(len, ids), dtype=np.int64, count=len(ids))

            def collate(places: np.ndarray) -> dict[str, torch.Tensor]:
                real = np.arange(lengths[places].max()) < lengths[places, None]
                table = np.full(real.shape, tokenizer.pad_token_id or 0, dtype=np.int64)
                table[real] = np.concatenate([ids[place] for place in places])
                return {"input_ids": torch.from_numpy(table), "attention_mask": torch.from_numpy(real).long()}

            return lengths, collate

        def token_states(input_ids: torch.Tensor, attention_mask: torch.Tensor):
            return tower.encoder(input_ids=input_ids, attention_mask=attention_mask)[0], attention_mask

        corpus = (inputs, len(texts), CAPTION_WINDOW, "captions")
        return _encode(tower, tower.word_embeddings, token_states, *corpus, batch_size, precision, progress)


class MotionEncodingMixin(_WithProcessor):
    """Adds `encode_motion` to a motion tower, or to a model with one as `motion_model`."""

    def encode_motion(
        self,
        motions: Any,
        fps: float | Sequence[float] | None = None,
        processor: Any = None,
        batch_size: int | None = None,
        precision: str = "auto",
        progress: bool = False,
        views: int = 1,
    ) -> "sparse.csr_matrix":
        """
        Encode motions as word vectors.

        Args:
            motions: N arrays (T, J, 3) in metres or (T, 263 | 251), or `Motion`s of `load_motion`; or one of them; or
                a batch (N, T, J, 3) or (N, T, F); or a split of a prepared corpus, a
                `datasets.Dataset` with the columns `motion` and `fps`, of which at most a thousand rows are in memory
                at a time.
            fps: frame rate of all arrays, or one per array; None for the processor's own. Splits contain theirs.
            processor: the model's `LexMotionProcessor` or its feature extractor; None loads the one saved with the
                weights.
            batch_size: motions per batch; None for 64 on a CPU, 512 elsewhere.
            precision, progress: as in `encode_text`.
            views: 1 encodes each motion as it is. 2 averages its vector and that of its mirror image, with words
                swapped back (left and right); 4 also averages those of its first 85 % of frames and its last 85 %.
                The average keeps as many words as these vectors have on average.

        Returns:
            (N, V) float32 CSR, in the order of `motions`.

        Raises:
            ValueError: if the feature extractor refuses a motion, `fps` is passed with a split, no processor is
                found, or `views` is another number or needs words that the processor does not have.
        """
        tower: Any = getattr(self, "motion_model", self)
        extractor = self._processor_part(processor, "feature_extractor", AutoFeatureExtractor)
        is_split = hasattr(motions, "column_names")
        if is_split:
            if fps is not None:
                raise ValueError(f"fps: got {fps} with a split, which contains its own; leave it out or pass arrays")
            motions = motions.select_columns(["motion", "fps"]).with_format("numpy")
        else:
            motions, fps = extractor.as_list(motions, fps)
        given = np.asarray(extractor.fps if fps is None else fps, dtype=np.float64)
        if given.ndim and len(given) != len(motions):
            raise ValueError(f"got {len(given)} fps for {len(motions)} motions; pass one number, or one per motion")

        seen, average = views_of(views), None
        if len(seen) > 1:
            active = tower.lexical_head.active_ids.cpu().numpy()
            columns = mirrored_columns(self._mirrored_ids(processor), active)
            columns = as_vocabulary(columns, active, tower.config.vocab_size)
            average = functools.partial(average_views, mirrored=[view.mirrored for view in seen], columns=columns)

        def inputs(window: slice):
            rows = motions[window]
            clips = list(rows["motion"] if is_split else rows)
            rates = rows["fps"] if is_split else np.broadcast_to(given, len(motions))[window]
            frames = np.fromiter(map(len, clips), dtype=np.float64, count=len(clips))
            lengths = np.minimum(frames * extractor.fps / rates, extractor.max_frames)

            def collate(places: np.ndarray) -> dict[str, torch.Tensor]:
                which, items = np.divmod(places, len(clips))
                chosen = [clips[item] for item in items]
                options = {"views": [seen[view] for view in which]} if average else {}
                return extractor(chosen, fps=rates[items].tolist(), return_tensors="pt", **options)

            return np.concatenate([(view.stop - view.start) * lengths for view in seen]), collate

        def token_states(motion_values: torch.Tensor, motion_attention_mask: torch.Tensor):
            states, seen, *_ = tower.encoder(motion_values, motion_attention_mask)
            return tower.projection_norm(tower.projection(states)), seen

        corpus = (inputs, len(motions), MOTION_WINDOW, "motions")
        options = (batch_size, precision, progress, average)
        return _encode(tower, tower.word_embeddings.weight, token_states, *corpus, *options)
