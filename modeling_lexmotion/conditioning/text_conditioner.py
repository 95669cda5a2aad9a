"""
Frozen text encoder for motion generators: captions -> vectors of the generator's width.

    c = [LN(h_CLS) ; LN(E^T z / sum z)],  vector = P c

h_CLS is the sentence state of the text tower, z are its word weights, and E^T z / sum z is the weighted mean embedding
of the words that LexMotion predicts for the caption. The paper states only that its representation was used as
input of the generators; this form is ours.

P is fixed. Generators freeze their text encoder, call it without gradients and add a linear layer of their own, so a
trainable P would stay at its initial values. Its rows are orthonormal, which preserves angles between captions and
unit variance. `fit_projection` replaces it by the principal components of given captions.
"""

import copy
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import AutoTokenizer
from transformers import initialization as init
from transformers.configuration_utils import PreTrainedConfig

from ..common.names import checked_model_name
from ..configuration_lexmotion import LexMotionConfig, LexMotionTextConfig
from ..encoding_lexmotion import ACCELERATOR_BATCH, CPU_BATCH, LinearMaps, check_processor
from ..modeling_lexmotion import LexMotionPreTrainedModel, LexMotionTextModel
from ..shipped import resolved
from .clip_table import CLIP_PARTS, Shared, cut, missing_part

OUTPUTS = ("pooled", "sequence", "tokens", "lexical")
TOWERS = (LexMotionConfig.model_type, LexMotionTextConfig.model_type)
CACHE_BYTES = 256 << 20
HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "revision", "subfolder", "token")

Texts = str | Sequence[str] | torch.Tensor
TokenIds = tuple[int, ...]


@strict
class LexMotionTextConditionerConfig(PreTrainedConfig):
    r"""
    Configuration of [`LexMotionTextConditioner`].

    Args:
        text_config: configuration of the text tower.
        output: output of a call: `"pooled"` (sentence and words), `"sequence"` (the same as a sequence of one, for
            MLD), `"tokens"` or `"lexical"` (words only).
        dim: width of caption vectors, 512 as in CLIP ViT-B/32. With `"lexical"` it may be `None`: the vector is then
            the word weights themselves, one value per word of the vocabulary.
        token_dim: width of token vectors, 768 as in DistilBERT.
        max_length: maximum number of tokens per caption.
        projection_seed: random seed of the projections, before they are fitted.
    """

    model_type = "lexmotion_text_conditioner"
    sub_configs_defaults = {"text_config": LexMotionTextConfig}

    text_config: dict | PreTrainedConfig | None = None
    output: str = "pooled"
    dim: int | None = 512
    token_dim: int = 768
    max_length: int = 77
    projection_seed: int = 0
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        if self.output not in OUTPUTS:
            raise ValueError(f"output: got {self.output!r}; pass one of {OUTPUTS}")
        if self.dim is None and self.output != "lexical":
            raise ValueError(f"dim: got None with output={self.output!r}; pass a width, or output='lexical'")
        for name in ("dim", "token_dim"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: got {value}; pass a positive width")
        if self.max_length < 3:
            raise ValueError(f"max_length: got {self.max_length}; pass at least 3, for a word between [CLS] and [SEP]")


def orthogonal(rows: int, columns: int, seed: int) -> torch.Tensor:
    """Return a (rows, columns) matrix, orthonormal along its shorter side, identical per seed on every machine."""
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randn(max(rows, columns), min(rows, columns), generator=generator, dtype=torch.float64)
    basis, triangle = torch.linalg.qr(numbers)
    basis = basis * triangle.diagonal().sign()  # the signs of a QR decomposition differ between libraries
    return (basis if rows >= columns else basis.T).float()


class FixedProjection(nn.Module):
    """
    Fixed linear map x -> W (x - center), stored as buffers: saved with the weights but never trained.

    Input of unit variance gives output of unit variance.
    """

    weight: torch.Tensor
    center: torch.Tensor

    def __init__(self, in_size: int, out_size: int, seed: int):
        super().__init__()
        self.seed = seed
        self.register_buffer("weight", torch.empty(out_size, in_size))
        self.register_buffer("center", torch.empty(in_size))

    def reset_parameters(self) -> None:
        out_size, in_size = self.weight.shape
        init.copy_(self.weight, orthogonal(out_size, in_size, self.seed) * max(1.0, out_size / in_size) ** 0.5)
        init.zeros_(self.center)

    @torch.no_grad()
    def fit(self, features: torch.Tensor) -> float:
        """
        Centre on `features` (N, in_size) and, if in_size > out_size, project on their principal components.

        Returns:
            the fraction of the variance kept.
        """
        out_size, in_size = self.weight.shape
        features = features.double()
        center = features.mean(dim=0)
        variances, basis = torch.linalg.eigh((features - center).T @ (features - center) / len(features))
        total = variances.sum()
        if out_size < in_size:
            variances, basis = variances[-out_size:].flip(0), basis[:, -out_size:].flip(1)  # largest first
            weight = (basis * basis.gather(0, basis.abs().argmax(dim=0)[None]).sign()).T
        else:
            weight = orthogonal(out_size, in_size, self.seed).double()
        kept = variances.sum()
        self.center.copy_(center)
        self.weight.copy_(weight * (out_size / kept.clamp(min=1e-12)).sqrt())  # unit variance, components unequal
        return float(kept / total)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(features - self.center.to(features), self.weight.to(features))


class VectorCache:
    """
    LRU cache of vectors on the CPU, limited in bytes. Copies and pickles of it are empty.

    Args:
        capacity: capacity in bytes; 0 disables the cache.
    """

    def __init__(self, capacity: int = CACHE_BYTES):
        self.capacity, self.bytes = capacity, 0
        self._vectors: OrderedDict[tuple[str, TokenIds], torch.Tensor] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self):
        return type(self), (self.capacity,)

    def __len__(self) -> int:
        return len(self._vectors)

    def get(self, key: tuple[str, TokenIds]) -> torch.Tensor | None:
        with self._lock:
            vector = self._vectors.get(key)
            if vector is not None:
                self._vectors.move_to_end(key)
            return vector

    def put(self, key: tuple[str, TokenIds], vector: torch.Tensor) -> None:
        with self._lock:
            if key not in self._vectors:
                self._vectors[key] = vector
                self.bytes += vector.nbytes
            while self.bytes > self.capacity:
                self.bytes -= self._vectors.popitem(last=False)[1].nbytes

    def clear(self) -> None:
        with self._lock:
            self._vectors.clear()
            self.bytes = 0


class LexMotionTextConditioner(LexMotionPreTrainedModel):
    """
    Text tower as text encoder of a generator: frozen, always in evaluation mode, with cached outputs.

    Args:
        config: see [`LexMotionTextConditionerConfig`].
        tokenizer: tokenizer of the tower.

    Example:

    ```python
    >>> import torch
    >>> from lexmotion import LexMotionTextConfig
    >>> encoder = {"model_type": "bert", "vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 1,
    ...            "num_attention_heads": 2, "intermediate_size": 64}
    >>> config = LexMotionTextConditionerConfig(text_config=LexMotionTextConfig(encoder_config=encoder))
    >>> conditioner = LexMotionTextConditioner(config)
    >>> conditioner.encode_text(torch.tensor([[2, 17, 40, 3, 0, 0]])).shape
    torch.Size([1, 512])

    ```
    """

    config: LexMotionTextConditionerConfig
    config_class = LexMotionTextConditionerConfig
    base_model_prefix = "text_model"
    input_modalities = ("text",)

    def __init__(self, config: LexMotionTextConditionerConfig, tokenizer: Any = None):
        super().__init__(config)
        width = config.text_config.hidden_size
        self.tokenizer = tokenizer
        self.text_model = LexMotionTextModel(config.text_config)
        self.text_projection = None
        if config.dim is not None:
            parts = 1 if config.output == "lexical" else 2
            self.text_projection = FixedProjection(parts * width, config.dim, config.projection_seed)
        self.token_projection = None
        if config.token_dim != width:
            self.token_projection = FixedProjection(width, config.token_dim, config.projection_seed)
        self.cache = VectorCache()
        self.translated = Shared()  # token ids of OpenAI's clip -> of the tower; see `Clip.tokenize`
        self._mark: tuple | None = None
        self.post_init()
        self.requires_grad_(False)
        self.eval()

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, FixedProjection):
            module.reset_parameters()

    # ------------------------------------------------------------------------------------------- loading and saving

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *inputs,
        output: str | None = None,
        dim: int | None = None,
        tokenizer: Any = None,
        **kwargs,
    ) -> "LexMotionTextConditioner":
        """
        Load a conditioner from a model, a text tower or a saved conditioner.

        Args:
            path: folder or Hub name of a `LexMotionModel`, a `LexMotionTextModel` or a saved conditioner, or name of
                a model of the package, see `lexmotion.pretrained`.
            output: `"pooled"` (the default), `"sequence"`, `"tokens"` or `"lexical"`.
            dim: width of the output; None: 512, but 768 for `"tokens"` and the vocabulary for `"lexical"`.
            tokenizer: None loads the one saved with the weights.
            kwargs: arguments of `PreTrainedModel.from_pretrained`.

        Raises:
            FileNotFoundError: if there is no such folder, or no model in it or of that name on the Hub.
            ValueError: if `path` has no text tower or no tokenizer, or a saved conditioner has another width.
        """
        hub = {name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs}
        path = resolved(path)
        checked_model_name(path, "pass the folder or Hub name of a LexMotionModel", kwargs.get("subfolder", ""))
        try:
            kind = PreTrainedConfig.get_config_dict(path, **hub)[0].get("model_type")
        except OSError as error:
            if Path(path).is_dir():
                raise
            raise FileNotFoundError(
                f"{path}: no such folder in {Path.cwd()}, and no such model on the Hub ({str(error).splitlines()[0]})"
            ) from error
        if tokenizer is None:
            tokenizer = cls._saved_tokenizer(path, hub)
        if kind == cls.config_class.model_type:
            loaded = super().from_pretrained(path, *inputs, **kwargs)
            model = loaded[0] if isinstance(loaded, tuple) else loaded
            width = model.config.token_dim if model.config.output == "tokens" else model.config.dim
            if (output or model.config.output, width if dim is None else dim) != (model.config.output, width):
                raise ValueError(
                    f"{path}: saved with output={model.config.output!r} and dim={width}, got output={output!r} and "
                    f"dim={dim}; omit them, or load from the LexMotionModel"
                )
            check_processor(model.config, tokenizer)
            model.tokenizer = tokenizer
            model.requires_grad_(False).eval()
            return loaded
        if kind not in TOWERS:
            raise ValueError(
                f"{path}: model type {kind!r} has no LexMotion text tower; pass a model of type {', '.join(TOWERS)}"
            )
        tower, info = LexMotionTextModel.from_pretrained(path, *inputs, **kwargs | {"output_loading_info": True})
        if info["missing_keys"]:
            raise ValueError(
                f"{path}: {len(info['missing_keys'])} weights of the text tower are missing, including "
                f"{sorted(info['missing_keys'])[0]}; pass the folder of a LexMotionModel"
            )
        return cls.from_text_model(tower, tokenizer, output or "pooled", dim)

    @classmethod
    def from_text_model(
        cls, text_model: LexMotionTextModel, tokenizer: Any, output: str = "pooled", dim: int | None = None
    ) -> "LexMotionTextConditioner":
        """Wrap a tower in memory, without copying it; arguments as in `from_pretrained`."""
        widths: dict[str, int | None] = {"dim": 512 if dim is None else dim}
        if output == "tokens":
            widths = {"token_dim": 768 if dim is None else dim}
        elif output == "lexical":
            widths = {"dim": dim}
        check_processor(text_model.config, tokenizer)
        config = cls.config_class(text_config=copy.deepcopy(text_model.config), output=output, **widths)
        model = cls(config, tokenizer)
        model.text_model = text_model
        model.name_or_path = text_model.name_or_path
        return model.to(device=text_model.device, dtype=text_model.dtype).requires_grad_(False).eval()

    @staticmethod
    def _saved_tokenizer(path: str | Path, hub: dict) -> Any:
        try:
            return AutoTokenizer.from_pretrained(path, trust_remote_code=False, **hub)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{path}: no readable tokenizer; save the model's processor there (processor.save_pretrained), or "
                "pass tokenizer="
            ) from error

    def save_pretrained(self, save_directory: str | Path, **kwargs) -> None:
        """Save weights, projections, configuration and tokenizer, for `from_pretrained`."""
        if kwargs.get("push_to_hub"):
            raise ValueError("push_to_hub=True: would push without the tokenizer; call push_to_hub(name) instead")
        super().save_pretrained(save_directory, **kwargs)
        if self.tokenizer is not None:
            tokenizer = copy.deepcopy(self.tokenizer)
            tokenizer._set_processor_class(None)  # otherwise loading it would look for a LexMotionProcessor
            tokenizer.save_pretrained(save_directory)

    def __getattr__(self, name: str) -> Any:
        if name in CLIP_PARTS:  # of a program that took this for CLIP
            raise missing_part(name)
        return super().__getattr__(name)

    # ---------------------------------------------------------------------------------------------------- stays frozen

    def train(self, mode: bool = True) -> "LexMotionTextConditioner":
        """Stay in evaluation mode, since `train()` of a generator would turn on dropout here."""
        return super().train(False)

    def _apply(self, *args, **kwargs):
        self.cache.clear()  # device or precision changed
        return super()._apply(*args, **kwargs)

    def _load_from_state_dict(self, *args, **kwargs):
        self.cache.clear()  # weights changed
        return super()._load_from_state_dict(*args, **kwargs)

    # -------------------------------------------------------------------------------------------------------- encoding

    def forward(self, texts: Texts) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Return `encode_tokens` for output `"tokens"`, else `encode_text`, as (B, 1, D) for `"sequence"`."""
        if self.config.output == "tokens":
            return self.encode_tokens(texts)
        vectors = self.encode_text(texts)
        return vectors[:, None] if self.config.output == "sequence" else vectors

    def encode_text(self, texts: Texts) -> torch.Tensor:
        """
        Encode each caption as one vector.

        Args:
            texts: B captions, possibly empty strings; or their token ids (B, L), right-padded with the padding id of
                the tokenizer (0 in BERT vocabularies).

        Returns:
            (B, `config.dim`) vectors, or (B, V) word weights, on the device and in the precision of the weights.

        Raises:
            ValueError: if ids are outside the vocabulary or too many, or for captions if the tokenizer is missing.
        """
        rows = self._token_ids(texts)
        if not rows and isinstance(texts, torch.Tensor):
            width = self.config.text_config.vocab_size if self.config.dim is None else self.config.dim
            return torch.zeros(0, width, device=self.device, dtype=self.dtype)
        return torch.stack(self._remembered("text", rows)).to(self.device, self.dtype)

    def encode_tokens(self, texts: Texts) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Encode each token as one vector.

        Args:
            texts: as in `encode_text`.

        Returns:
            (B, T, `config.token_dim`) vectors, zero in the padding, and a bool mask (B, T), True = token. T is the
            length of the longest caption in the batch.
        """
        states, mask = self._states(self._token_ids(texts))
        if self.token_projection is not None:
            with self._own_precision():
                states = self.token_projection(states) * mask[..., None]
        return states, mask

    def encode_words(self, sentences: Sequence[Sequence[str]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """
        Encode each word as one vector, the mean of its word pieces, for generators that work on words.

        Args:
            sentences: B lists of words, with `tokenizer.unk_token` for unknown words.

        Returns:
            states (B, T, H) of start, words and end of each sentence, in the width of the tower; a bool mask (B, T),
            True = encoded (False for words beyond `config.max_length` tokens); and the vectors (B, D) of
            `encode_text`. T is the number of words of the longest sentence + 2.
        """
        tokenizer, counts = self._need_tokenizer(), [len(words) for words in sentences]
        flat = [word for words in sentences for word in words]
        pieces = iter(tokenizer(flat, add_special_tokens=False)["input_ids"] if flat else [])
        rows, owners = [], []
        for words in sentences:
            ids, owner = [tokenizer.cls_token_id], [0]
            for place in range(len(words)):
                of_word = next(pieces) or [tokenizer.unk_token_id]
                ids += of_word
                owner += [place + 1] * len(of_word)
            keep = self.longest - 1
            rows.append((*ids[:keep], tokenizer.sep_token_id))
            owners.append(torch.tensor([*owner[:keep], len(words) + 1]))
        states, _ = self._states(rows)  # (B, L, H)
        slots = max(counts, default=0) + 2
        word_of = nn.utils.rnn.pad_sequence(owners, batch_first=True, padding_value=slots).to(states.device)  # (B, L)
        share = nn.functional.one_hot(word_of, slots + 1)[..., :slots].to(states)  # (B, L, T)
        number = share.sum(dim=1)[..., None]  # (B, T, 1)
        with self._own_precision():
            means = share.mT @ states / number.clamp(min=1)
        return means, number[..., 0] > 0, torch.stack(self._remembered("text", rows)).to(states)

    @torch.no_grad()
    def fit_projection(self, captions: Sequence[str]) -> float:
        """
        Fit the projection of `encode_text` to the principal components of the generator's training captions.

        Fit before training the generator, then call `save_pretrained`: the generator depends on this projection.

        Args:
            captions: captions; pass thousands, to cover all directions.

        Returns:
            the fraction of the variance kept in `config.dim` dimensions.

        Raises:
            ValueError: for fewer than two distinct captions, or if the vectors are not projected.
        """
        if self.text_projection is None:
            raise ValueError("dim: got None, so word weights are not projected; pass dim to fit a projection")
        if len(set(captions)) < 2:
            raise ValueError(f"captions: got {len(set(captions))} distinct; pass at least 2")
        share = self.text_projection.fit(torch.stack(self._remembered("features", self._token_ids(captions))))
        self.cache.clear()
        return share

    def _need_tokenizer(self) -> Any:
        if self.tokenizer is None:
            raise ValueError("tokenizer: got None; load the conditioner with from_pretrained, or set .tokenizer")
        return self.tokenizer

    @property
    def longest(self) -> int:
        """Maximum number of tokens per caption."""
        return min(self.config.max_length, self.text_model.encoder.config.max_position_embeddings)

    def token_rows(self, texts: Sequence[str]) -> list[tuple[TokenIds, int]]:
        """Return for each caption its token ids, at most `longest`, and the number of all its tokens."""
        if not texts:
            return []
        rows = self._need_tokenizer()(list(texts), verbose=False)["input_ids"]
        return [(cut(tuple(row), self.longest), len(row)) for row in rows]

    def _token_ids(self, texts: Texts) -> list[TokenIds]:
        """Return the token ids of each caption, without padding; they are also the cache keys."""
        if not isinstance(texts, torch.Tensor):
            return [row for row, _ in self.token_rows([texts] if isinstance(texts, str) else texts)]
        if texts.ndim != 2 or texts.is_floating_point():
            raise ValueError(f"token ids: got {texts.dtype} of shape {tuple(texts.shape)}; pass integers (B, L)")
        vocabulary, longest = self.config.text_config.vocab_size, self.longest
        pad = 0 if self.tokenizer is None else self.tokenizer.pad_token_id
        rows = []
        for row in texts.tolist():
            while len(row) > 1 and row[-1] == pad:
                row.pop()
            row = self.translated.get(tuple(row), tuple(row))
            if len(row) > longest or min(row) < 0 or max(row) >= vocabulary:
                raise ValueError(
                    f"token ids: got {len(row)} ids in {min(row)}..{max(row)}, the text tower takes at most {longest} "
                    f"below {vocabulary}; use the tokenizer of the conditioner"
                )
            rows.append(row)
        return rows

    def _states(self, rows: list[TokenIds]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return token states (B, L, H), zero in the padding, and their mask (B, L)."""
        states = nn.utils.rnn.pad_sequence(self._remembered("tokens", rows), batch_first=True)
        lengths = torch.tensor([len(row) for row in rows])
        mask = torch.arange(states.shape[1]) < lengths[:, None]
        return states.to(self.device, self.dtype), mask.to(self.device)

    def _forget_another_state(self) -> None:
        """Clear the cache if a weight, a buffer or a word limit has changed since it was filled."""
        head = self.text_model.lexical_head
        tensors = (*self.parameters(), *self.buffers())
        versions = tuple((id(tensor), tensor._version) for tensor in tensors if not tensor.is_inference())
        mark = (versions, head.top_k, head.min_words, head.word_share)
        if mark != self._mark:
            self.cache.clear()
            self._mark = mark

    def _remembered(self, kind: str, rows: list[TokenIds]) -> list[torch.Tensor]:
        """Return the results of `_compute` for the rows, from the cache if possible."""
        if not rows:
            raise ValueError("captions: got 0; pass at least 1")
        self._forget_another_state()
        found = {row: vector for row in dict.fromkeys(rows) if (vector := self.cache.get((kind, row))) is not None}
        missing = sorted((row for row in dict.fromkeys(rows) if row not in found), key=len, reverse=True)
        size = CPU_BATCH if self.device.type == "cpu" else ACCELERATOR_BATCH
        for start in range(0, len(missing), size):
            batch = missing[start : start + size]
            for row, vector in zip(batch, self._compute(kind, batch), strict=True):
                found[row] = vector
                self.cache.put((kind, row), vector)
        return [found[row] for row in rows]

    def _own_precision(self) -> torch.autocast:
        """Disable autocast of the surrounding generator."""
        return torch.autocast(self.device.type, enabled=False)

    def _compute(self, kind: str, rows: list[TokenIds]) -> list[torch.Tensor]:
        """
        Compute one output per row, as separate float32 tensors on the CPU.

        Args:
            kind: `"tokens"`: states (L, H); `"features"`: c before its projection; `"text"`: the projected vector.
        """
        device = self.device
        # The first call may come from sampling in inference mode, but cached tensors must also work in training.
        with torch.inference_mode(False), torch.no_grad(), self._own_precision(), LinearMaps(self.dtype):
            ids = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
            lengths = torch.tensor([len(row) for row in rows])
            mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
            output = self.text_model(input_ids=ids.to(device), attention_mask=mask.to(device))
            states = output.last_hidden_state.float()
            if kind == "tokens":
                return [row[:length].clone() for row, length in zip(states.cpu(), lengths.tolist(), strict=True)]
            if kind == "text" and self.text_projection is None:
                return list(output.text_embeds.float().cpu().clone().unbind())
            head = self.text_model.lexical_head
            weights = head.weigh(output.text_scores).float()  # (B, A)
            rows_of_words = head.active_rows(self.text_model.word_embeddings).float()  # (A, H)
            words = weights @ rows_of_words / weights.sum(dim=-1, keepdim=True).clamp(min=1e-6)  # (B, H)
            parts = [words] if self.config.output == "lexical" else [states[:, 0], words]
            features = torch.cat([nn.functional.layer_norm(part, part.shape[-1:]) for part in parts], dim=-1)
            if kind == "text" and self.text_projection is not None:
                features = self.text_projection(features)
            return [row.clone() for row in features.cpu()]


__all__ = ["FixedProjection", "LexMotionTextConditioner", "LexMotionTextConditionerConfig", "VectorCache"]
