"""
Captions and motions -> sparse lexical vectors, at the speed of the matrix products.

What `forward` computes, without what only training needs: batches of like length, one tokenizer call for thousands of
captions, scores of the active words alone, and from them the rows of a sparse matrix; no (B, V) tensor is built.
Inputs are taken a window at a time, so that memory does not grow with the corpus, only with its sparse result.
"""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from tqdm.auto import tqdm
from transformers import AutoFeatureExtractor, AutoTokenizer

from .lexical_head import LexicalHead, max_pooled_projection, saturate

try:
    from scipy import sparse
except ImportError:  # a model that came as remote code is usable without, as long as it encodes nothing
    sparse = None

PRECISIONS = ("auto", "fp32", "bf16")
CAPTION_WINDOW, MOTION_WINDOW = 1 << 14, 1 << 10  # inputs sorted by length together, and in memory at a time
CPU_BATCH, ACCELERATOR_BATCH = 64, 512


# ------------------------------------------------------------------------------------------------------- the machine


@functools.cache
def _cpu() -> set[str]:
    """Words with which Linux describes the processor, vendor and instruction sets among them; empty elsewhere."""
    try:
        description = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0]
    except OSError:
        return set()
    return set(description.split())


def encoding_dtype(precision: str, device: torch.device) -> torch.dtype:
    """
    What matrix products are computed in.

    Args:
        precision: `"fp32"`, `"bf16"`, or `"auto"`: bfloat16 where the processor multiplies it faster than float32
            (AVX512-BF16, AMX, GPUs since Ampere), else float32.
        device: where the model is.

    Raises:
        ValueError: another precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if precision != "auto":
        return torch.bfloat16 if precision == "bf16" else torch.float32
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        fast = device.type == "cpu" and not _cpu().isdisjoint({"avx512_bf16", "amx_bf16"})
    return torch.bfloat16 if fast else torch.float32


@contextlib.contextmanager
def usable_threads() -> Iterator[None]:
    """No more threads than the process may use cores, nor than it was told to use; as before afterwards."""
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
    numbers = torch.full((64, 64), 1.0 + 2.0**-12)  # bfloat16 would make ones of them
    with _onednn_products(), torch.no_grad():
        return torch.equal(numbers @ torch.eye(64), numbers)


def exact_products() -> contextlib.AbstractContextManager:
    """
    Float32 matrix products on AMD processors with AVX-512 at twice the speed, with float32's accuracy.

    torch gives them to MKL, which leaves AVX-512 unused there; oneDNN does not. torch's only switch to oneDNN permits
    bfloat16 as well, which oneDNN takes up on AMX alone: that it does not is tried once, on numbers that would show.
    """
    return _onednn_products() if _onednn_is_better() else contextlib.nullcontext()


class LinearMaps(TorchFunctionMode):
    """
    Linear maps in `dtype`, and everything else as it comes.

    Weights are cast once, not at every batch (autocast keeps a cast only of weights that train, and hands it on to an
    autocast around it). Attention is left alone: its products are too small for oneDNN.
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


# ------------------------------------------------------------------------------------- which processor a model is for


def _hashes(processor: Any) -> dict[str, str | None]:
    """Hashes of the lexicon and the statistics of a processor or a part of it; None where it has none."""
    extractor, lexicon = getattr(processor, "feature_extractor", processor), getattr(processor, "lexicon", None)
    return {
        "lexicon_hash": getattr(lexicon, "hash", None),
        "statistics_hash": getattr(extractor, "statistics_hash", None),
    }


def _with_towers(config: Any) -> list[Any]:
    towers = (getattr(config, name, None) for name in ("text_config", "motion_config"))
    return [config, *(tower for tower in towers if tower is not None)]


def bind_processor(model: nn.Module, processor: Any) -> None:
    """
    Write into a model's configurations which lexicon and which statistics it is trained with, so that others are
    refused by [`check_processor`].

    Raises:
        ValueError: the active words of the model are not those of the lexicon.
    """
    hashes, lexicon = _hashes(processor), getattr(processor, "lexicon", None)
    if lexicon is not None:
        words = [int(word) for word in lexicon.active_ids]
        for head in (module for module in model.modules() if isinstance(module, LexicalHead)):
            if head.active_ids.tolist() != words:
                raise ValueError(
                    f"the model has {head.active_ids.numel()} active words, which are not the {len(words)} of the "
                    "corpus's lexicon: start from a model trained with this corpus's processor"
                )
    for module in model.modules():
        for config in _with_towers(getattr(module, "config", None)):
            for name, value in hashes.items():
                if hasattr(config, name) and value is not None:
                    setattr(config, name, value)


def check_processor(config: Any, processor: Any) -> None:
    """
    Refuse a processor whose words or whose normalisation are not those a model was trained with.

    Args:
        config: of the model. Those saved before hashes were kept have none and accept every processor.
        processor: a `LexMotionProcessor`, or its tokenizer or feature extractor, of which only what it has is checked.

    Raises:
        ValueError: another lexicon or other statistics.
    """
    for name, found in _hashes(processor).items():
        kept = (getattr(part, name, None) for part in _with_towers(config))
        expected = {value for value in kept if value is not None}
        if found is not None and expected and expected != {found}:
            what = name.removesuffix("_hash")
            raise ValueError(
                f"the processor's {what} (hash {found[:12]}) is not the one this model was trained with (hash "
                f"{' and '.join(sorted(value[:12] for value in expected))}): its vectors would mean something else. "
                "Load the processor saved beside the model"
            )


# ---------------------------------------------------------------------------------------------------------- encoding


def longest_first(lengths: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """Places of `lengths` (N,) in batches of like length."""
    order = np.argsort(-lengths, kind="stable")
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


class _WordVectors:
    """
    The lexical head at inference: token states -> the entries of a sparse matrix.

    Args:
        head: of the tower. word_embeddings: (V, D), its output matrix; the active rows are taken and cast once.
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
    batch_size: int | None,
    precision: str,
    description: str,
    progress: bool,
) -> "sparse.csr_matrix":
    """
    The loop of both towers.

    Args:
        token_states: inputs of a batch -> token states (B, N, D) and their mask (B, N).
        inputs: a slice of the corpus, at most `window` items, -> how long each of them is, and a function that takes
            places in the slice to the inputs of a batch.
        count: N, items of the corpus.

    Returns:
        (N, V) float32 CSR.
    """
    if sparse is None:
        raise ImportError("encoding returns scipy matrices, and scipy is not installed: run `pip install scipy`")
    device = tower.device
    dtype = encoding_dtype(precision, device)
    if tower.dtype != torch.float32:  # weights that are rounded already, or finer than any choice
        if precision == "fp32":
            raise ValueError(
                f"the weights are {tower.dtype}: load the model with dtype=torch.float32 to encode in fp32"
            )
        dtype = tower.dtype
    if batch_size is None:
        batch_size = CPU_BATCH if device.type == "cpu" else ACCELERATOR_BATCH
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
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
                lengths, collate = inputs(slice(start, min(start + window, count)))
                found = []
                for places in longest_first(lengths, batch_size):
                    batch = {name: value.to(device) for name, value in collate(places).items()}
                    with linear_maps:
                        entries = words(*token_states(**batch))
                    rows, ids, weights = (column.cpu().numpy() for column in entries)
                    found.append((places[rows], ids, weights))
                    bar.update(len(places))
                rows, ids, weights = (np.concatenate(column) for column in zip(*found, strict=True))
                order = np.argsort(rows, kind="stable")
                ends = np.bincount(rows, minlength=len(lengths)).cumsum()
                shape = (len(lengths), tower.config.vocab_size)
                row_starts = np.concatenate([[0], ends])
                parts.append(sparse.csr_matrix((weights[order], ids[order], row_starts), shape=shape))
    finally:
        tower.train(was_training)
    if not parts:
        return sparse.csr_matrix((0, tower.config.vocab_size), dtype=np.float32)
    return sparse.vstack(parts, format="csr") if len(parts) > 1 else parts[0]


class _WithProcessor:
    name_or_path: str
    config: Any

    def _processor_part(self, processor: Any, name: str, auto_class: Any) -> Any:
        """The tokenizer or feature extractor: given alone or in a processor, else the one saved beside the weights."""
        if processor is not None:
            check_processor(self.config, processor)
            return getattr(processor, name, processor)
        parts = self.__dict__.setdefault("_processor_parts", {})
        if name not in parts:
            if not self.name_or_path:
                raise ValueError(
                    f"this {type(self).__name__} was not loaded from a folder or the Hub, so its processor is "
                    "unknown: pass processor=LexMotionProcessor.from_pretrained(...)"
                )
            # Whoever loaded the model's code from there trusted it.
            trusted = type(self).__module__.startswith("transformers_modules.")
            parts[name] = auto_class.from_pretrained(self.name_or_path, trust_remote_code=trusted or None)
            check_processor(self.config, parts[name])
        return parts[name]


class TextEncodingMixin(_WithProcessor):
    """`encode_text` of a model that is a text tower or has one as `text_model`."""

    def encode_text(
        self,
        texts: Sequence[str],
        processor: Any = None,
        batch_size: int | None = None,
        max_length: int = 77,
        precision: str = "auto",
        progress: bool = False,
    ) -> "sparse.csr_matrix":
        """
        Word vectors of captions.

        Args:
            texts: N captions. processor: the model's `LexMotionProcessor` or its tokenizer; None loads the one saved
                beside the weights.
            batch_size: captions at a time; None: 64 on a CPU, 512 elsewhere.
            max_length: tokens read of a caption.
            precision: of the matrix products: `"fp32"`, equal to `forward` but for the rounding of another batch;
                `"bf16"`; `"auto"`: bf16 where the processor is faster at it.
            progress: show a bar.

        Returns:
            (N, V) float32 CSR, in the order of `texts`.

        Raises:
            ValueError: a caption is empty, the tokenizer is another model's, or there is no processor.
        """
        tower: Any = getattr(self, "text_model", self)
        tokenizer = self._processor_part(processor, "tokenizer", AutoTokenizer)
        if len(tokenizer) > tower.config.vocab_size:
            raise ValueError(
                f"the tokenizer has {len(tokenizer)} words, the model reads {tower.config.vocab_size}: pass the "
                "processor saved with this model"
            )

        def inputs(window: slice):
            captions = list(texts[window])
            for place, caption in enumerate(captions):
                if not caption.strip():
                    raise ValueError(
                        f"caption {window.start + place} is empty; give every motion a caption or leave it out"
                    )
            ids = tokenizer(
                captions,
                truncation=True,
                max_length=max_length,
                return_attention_mask=False,
                return_token_type_ids=False,
            )["input_ids"]
            lengths = np.fromiter(map(len, ids), dtype=np.int64, count=len(ids))

            def collate(places: np.ndarray) -> dict[str, torch.Tensor]:
                real = np.arange(lengths[places].max()) < lengths[places, None]
                table = np.full(real.shape, tokenizer.pad_token_id or 0, dtype=np.int64)
                table[real] = np.concatenate([ids[place] for place in places])
                return {"input_ids": torch.from_numpy(table), "attention_mask": torch.from_numpy(real).long()}

            return lengths, collate

        def token_states(input_ids: torch.Tensor, attention_mask: torch.Tensor):
            return tower.encoder(input_ids=input_ids, attention_mask=attention_mask)[0], attention_mask

        return _encode(
            tower,
            tower.word_embeddings,
            token_states,
            inputs,
            len(texts),
            CAPTION_WINDOW,
            batch_size,
            precision,
            "captions",
            progress,
        )


class MotionEncodingMixin(_WithProcessor):
    """`encode_motion` of a model that is a motion tower or has one as `motion_model`."""

    def encode_motion(
        self,
        motions: Any,
        fps: float | Sequence[float] | None = None,
        processor: Any = None,
        batch_size: int | None = None,
        precision: str = "auto",
        progress: bool = False,
    ) -> "sparse.csr_matrix":
        """
        Word vectors of motions.

        Args:
            motions: N arrays (T, J, 3) in metres or (T, 263 | 251); or a split of a prepared corpus, a
                `datasets.Dataset` with the columns `motion` and `fps`, of which no more than a thousand rows are in
                memory at a time.
            fps: of all arrays, or one for each; None: the processor's own. A split has its own.
            processor: the model's `LexMotionProcessor` or its feature extractor; None loads the one saved beside the
                weights.
            batch_size: motions at a time; None: 64 on a CPU, 512 elsewhere.
            precision, progress: as in `encode_text`.

        Returns:
            (N, V) float32 CSR, in the order of `motions`.

        Raises:
            ValueError: a motion that the feature extractor refuses, `fps` beside a split, or there is no processor.
        """
        tower: Any = getattr(self, "motion_model", self)
        extractor = self._processor_part(processor, "feature_extractor", AutoFeatureExtractor)
        is_split = hasattr(motions, "column_names")
        if is_split:
            if fps is not None:
                raise ValueError("a split says its own fps: leave fps out, or pass a list of arrays")
            motions = motions.select_columns(["motion", "fps"]).with_format("numpy")
        given = np.asarray(extractor.fps if fps is None else fps, dtype=np.float64)
        if given.ndim and len(given) != len(motions):
            raise ValueError(f"got {len(given)} fps for {len(motions)} motions: pass one number, or one for each")

        def inputs(window: slice):
            rows = motions[window]
            clips = list(rows["motion"] if is_split else rows)
            rates = rows["fps"] if is_split else np.broadcast_to(given, len(motions))[window]
            frames = np.fromiter(map(len, clips), dtype=np.float64, count=len(clips))
            lengths = np.minimum(frames * extractor.fps / rates, extractor.max_frames)

            def collate(places: np.ndarray) -> dict[str, torch.Tensor]:
                chosen = [clips[place] for place in places]
                return extractor(chosen, fps=rates[places].tolist(), return_tensors="pt")

            return lengths, collate

        def token_states(motion_values: torch.Tensor, motion_attention_mask: torch.Tensor):
            states, seen, *_ = tower.encoder(motion_values, motion_attention_mask)
            return tower.projection_norm(tower.projection(states)), seen

        return _encode(
            tower,
            tower.word_embeddings.weight,
            token_states,
            inputs,
            len(motions),
            MOTION_WINDOW,
            batch_size,
            precision,
            "motions",
            progress,
        )
