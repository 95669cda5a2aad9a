"""
LexMotion: motion and text as sparse vectors over one word vocabulary.

Two towers (`LexMotionTextModel`, `LexMotionMotionModel`), the dual encoder of phase iv (`LexMotionModel`, LexCMLP)
and one head class for each pre-training phase: LexMLM, CMMM, LexMMM (Lyu et al., ICLR 2025; details the paper leaves
open follow LexMAE, LexLIP, CMAE and MAMP, and are ours where none speaks).

Letters in shape comments: B batch, L text tokens, T frames, F motion features, N = Nt x Np motion tokens (time
windows x body parts, time-major), D hidden size, E word-embedding size, V vocabulary, A active words.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn
from transformers import AutoModel, AutoModelForMaskedLM
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs, can_return_tuple, logging
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from .configuration_lexmotion import LexMotionConfig, LexMotionMotionConfig, LexMotionTextConfig
from .encoding_lexmotion import MotionEncodingMixin, TextEncodingMixin
from .lexical_head import LexicalHead
from .losses_lexmotion import (
    bag_of_words,
    caption_positives,
    cosine,
    cross_entropy,
    flops,
    gather,
    info_nce,
    masked_mse,
    order_contrast,
    share_an_id,
)
from .segment_pooling import event_units, pool_segments, window_units

logger = logging.get_logger(__name__)

MINIMUM_REAL_FRAMES = 0.25  # a window with fewer real frames than this share is not a token
IGNORED = -100
LIKE_LENGTH, MINIMUM_GROUP = 0.75, 256  # rows run together: at least this share of the longest; tokens of a group


# ------------------------------------------------------------------------------------------------------------- outputs


class WithLoss(ModelOutput):
    """An output whose `*_loss` fields are parts of one loss."""

    @property
    def loss(self) -> torch.Tensor | None:
        """The parts together, unweighted, as an attribute (no field); the trainers here weigh each part."""
        parts = [value for name, value in self.items() if name.endswith("_loss")]
        return sum(parts[1:], parts[0]) if parts else None


@dataclass
class LexMotionTextOutput(ModelOutput):
    """
    Args:
        text_embeds (B, V): word weights of the caption, non-negative.
        last_hidden_state (B, L, E): token states.
        text_scores (B, A): pooled word scores before saturation, in the order of the head's `active_ids`.
        winning_tokens (B, A) int32: the token each pooled score came from.
        segment_scores (B, K, A): as `text_scores`, of every segment, on request.
        dense_embeds (B, d): the dense vector, of a `LexMotionModel` that has one.
        token_logits (B, L, A): word scores of every token, on request.
        hidden_states (layers + 1) x (B, L, E), attentions (layers) x (B, heads, L, L): on request.
    """

    text_embeds: torch.FloatTensor | None = None
    last_hidden_state: torch.FloatTensor | None = None
    text_scores: torch.FloatTensor | None = None
    winning_tokens: torch.IntTensor | None = None
    segment_scores: torch.FloatTensor | None = None
    dense_embeds: torch.FloatTensor | None = None
    token_logits: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None

    @property
    def pooler_output(self) -> torch.FloatTensor | None:
        """`text_embeds`, by the name that any tower's pooled vector has in transformers."""
        return self.text_embeds


@dataclass
class LexMotionMotionOutput(ModelOutput):
    """
    Args:
        motion_embeds (B, V): word weights of the motion, non-negative.
        last_hidden_state (B, N, D): token states, time-major; zero where the token was masked out or is padding.
        token_attention_mask (B, N) bool: the tokens that were read.
        grid (Nt, Np): time windows and body parts; token n is window n // Np, part n % Np.
        motion_scores (B, A), winning_tokens (B, A), segment_scores (B, K, A), dense_embeds (B, d), token_logits
        (B, N, A): as in the text output.
        hidden_states (layers + 1) x (B, n, D), attentions (layers) x (B, heads, n, n): on request. With a `token_mask`
            n counts the seen tokens of the fullest row, seen ones first; the last hidden state is `last_hidden_state`.
    """

    motion_embeds: torch.FloatTensor | None = None
    last_hidden_state: torch.FloatTensor | None = None
    token_attention_mask: torch.BoolTensor | None = None
    grid: tuple[int, int] | None = None
    motion_scores: torch.FloatTensor | None = None
    winning_tokens: torch.IntTensor | None = None
    segment_scores: torch.FloatTensor | None = None
    dense_embeds: torch.FloatTensor | None = None
    token_logits: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None

    @property
    def pooler_output(self) -> torch.FloatTensor | None:
        """`motion_embeds`, by the name that any tower's pooled vector has in transformers."""
        return self.motion_embeds


@dataclass
class LexMotionLexicalMaskedLMOutput(WithLoss):
    """
    Args:
        encoder_loss, decoder_loss (): cross-entropy of the encoder and of the weak decoder at their masked words.
        importance (B, V): p, the softmax of the pooled word scores. bottleneck (B, E): b, what the decoder is told.
        hidden_states, attentions: of the text tower, on request.
    """

    encoder_loss: torch.FloatTensor | None = None
    decoder_loss: torch.FloatTensor | None = None
    importance: torch.FloatTensor | None = None
    bottleneck: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None


@dataclass
class LexMotionContrastiveMaskedMotionOutput(WithLoss):
    """
    Args:
        position_loss, velocity_loss (): squared error at the masked tokens, of values and of their frame differences.
        contrastive_loss (): masked student against full teacher (CMAE). Both mean over processes.
        reconstruction (B, T', F): predicted values at masked tokens, zero elsewhere; T' is a whole number of windows.
            None while training.
        pooled (B, C): the student's projected feature, unit length.
        hidden_states, attentions: of the student's encoder, seen tokens first, on request.
    """

    position_loss: torch.FloatTensor | None = None
    velocity_loss: torch.FloatTensor | None = None
    contrastive_loss: torch.FloatTensor | None = None
    reconstruction: torch.FloatTensor | None = None
    pooled: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None


@dataclass
class LexMotionLexicalMaskedMotionOutput(WithLoss):
    """
    Args:
        caption_loss (): masked words of the caption, read through the motion's words (reading A).
        motion_loss (): masked motion rebuilt through its words (reading B). bow_loss (): words of the captions.
        mlm_loss (): the text encoder's own masked words, when asked for. importance (B, V): p of the motion.
        hidden_states, attentions: of the motion tower, on request.
    """

    caption_loss: torch.FloatTensor | None = None
    motion_loss: torch.FloatTensor | None = None
    bow_loss: torch.FloatTensor | None = None
    mlm_loss: torch.FloatTensor | None = None
    importance: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None


@dataclass
class LexMotionOutput(WithLoss):
    """
    Args:
        contrastive_loss (): symmetric multi-positive InfoNCE between lexical vectors, segments blended in.
        dense_contrastive_loss (): the same between dense vectors.
        order_loss (): captions against themselves with their events exchanged.
        grounding_loss (): the same between motion vectors and the bare words of the captions (VDR), when asked for.
        bow_loss (): the motion's words are its captions' words, as in phase iii, when asked for.
        text_flops_loss, motion_flops_loss (): FLOPS of the unnormalised vectors. mlm_loss (): masked words of the
            captions.
        logits_per_text (Bt, Bm), logits_per_motion (Bm, Bt): cosine over temperature, this process's pairs.
        text_embeds (Bt, V), motion_embeds (Bm, V): word weights. *_active_words (): mean number of non-zero words.
        text_model_output, motion_model_output: what the towers returned.
    """

    contrastive_loss: torch.FloatTensor | None = None
    dense_contrastive_loss: torch.FloatTensor | None = None
    order_loss: torch.FloatTensor | None = None
    grounding_loss: torch.FloatTensor | None = None
    bow_loss: torch.FloatTensor | None = None
    text_flops_loss: torch.FloatTensor | None = None
    motion_flops_loss: torch.FloatTensor | None = None
    mlm_loss: torch.FloatTensor | None = None
    logits_per_text: torch.FloatTensor | None = None
    logits_per_motion: torch.FloatTensor | None = None
    text_embeds: torch.FloatTensor | None = None
    motion_embeds: torch.FloatTensor | None = None
    text_active_words: torch.FloatTensor | None = None
    motion_active_words: torch.FloatTensor | None = None
    text_model_output: LexMotionTextOutput | None = None
    motion_model_output: LexMotionMotionOutput | None = None

    def to_tuple(self) -> tuple:
        return tuple(value.to_tuple() if isinstance(value, ModelOutput) else value for value in self.values())


# --------------------------------------------------------------------------------------------------------- transformer


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs,
):
    weights = query @ key.transpose(-1, -2) * scaling
    if attention_mask is not None:
        weights = weights + attention_mask
    weights = nn.functional.softmax(weights, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights


class LexMotionAttention(nn.Module):
    def __init__(self, config, hidden_size: int, num_heads: int, dropout: float):
        super().__init__()
        self.config = config
        self.head_dim = hidden_size // num_heads
        self.scaling = self.head_dim**-0.5
        self.dropout = dropout
        self.is_causal = False
        self.q_proj = nn.Linear(hidden_size, hidden_size)
        self.k_proj = nn.Linear(hidden_size, hidden_size)
        self.v_proj = nn.Linear(hidden_size, hidden_size)
        self.out_proj = nn.Linear(hidden_size, hidden_size)

    def forward(self, hidden_states, attention_mask=None, **kwargs):
        shape = (*hidden_states.shape[:-1], -1, self.head_dim)
        kind = hidden_states.device.type
        if torch.is_autocast_enabled(kind):  # once, not in each of the three products
            hidden_states = hidden_states.to(torch.get_autocast_dtype(kind))
        query, key, value = (
            projection(hidden_states).view(shape).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        attention: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        output, weights = attention(
            self,
            query,
            key,
            value,
            attention_mask,
            is_causal=False,
            scaling=self.scaling,
            dropout=self.dropout if self.training else 0.0,
            **kwargs,
        )
        return self.out_proj(output.reshape(*hidden_states.shape[:-1], -1).contiguous()), weights


class DropPath(nn.Module):
    """Stochastic depth: drops a residual branch for whole samples while training."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, branch: torch.Tensor) -> torch.Tensor:
        if self.rate == 0.0 or not self.training:
            return branch
        keep = torch.rand(branch.shape[0], *[1] * (branch.ndim - 1), device=branch.device) >= self.rate
        return branch * keep.to(branch.dtype) / (1.0 - self.rate)


class LexMotionLayer(GradientCheckpointingLayer):
    """Pre-LayerNorm transformer block, as in ViT."""

    def __init__(
        self,
        config: LexMotionMotionConfig | LexMotionTextConfig,
        hidden_size: int,
        num_heads: int,
        intermediate_size: int,
        hidden_act: str = "gelu",
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        drop_path: float = 0.0,
        layer_norm_eps: float = 1e-6,
    ):
        super().__init__()
        self.layernorm_before = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.attention = LexMotionAttention(config, hidden_size, num_heads, attention_dropout)
        self.layernorm_after = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.intermediate = nn.Linear(hidden_size, intermediate_size)
        self.output = nn.Linear(intermediate_size, hidden_size)
        self.activation = ACT2FN[hidden_act]
        self.dropout = nn.Dropout(dropout)
        self.drop_path = DropPath(drop_path)

    def forward(self, hidden_states, attention_mask=None, **kwargs):
        attended, _ = self.attention(self.layernorm_before(hidden_states), attention_mask, **kwargs)
        hidden_states = hidden_states + self.drop_path(self.dropout(attended))
        mlp = self.output(self.activation(self.intermediate(self.layernorm_after(hidden_states))))
        return hidden_states + self.drop_path(self.dropout(mlp))


class LexMotionDecoder(nn.Module):
    """A short stack of blocks with a final LayerNorm; weak on purpose (method of LexMAE, MAE)."""

    def __init__(self, config, hidden_size: int, num_heads: int, num_layers: int):
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(
            [LexMotionLayer(config, hidden_size, num_heads, 4 * hidden_size) for _ in range(num_layers)]
        )
        self.norm = nn.LayerNorm(hidden_size, eps=1e-6)

    def forward(self, hidden_states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        attention_mask = create_bidirectional_mask(self.config, inputs_embeds=hidden_states, attention_mask=mask)
        for layer in self.layers:
            hidden_states = layer(hidden_states, attention_mask)
        return self.norm(hidden_states)


def by_length(run: Callable, mask: torch.Tensor, *inputs: torch.Tensor) -> torch.Tensor:
    """
    Token states of a padded batch, rows of like length run together: on a CPU, padding is work.

    Captions drawn at random are a third of the longest on average, so this is most of a text tower's time. On other
    devices, where launching is the cost, the batch runs as it is.

    Args:
        run: (mask (G, n), *inputs (G, n, ...)) -> states (G, n, D). mask: (B, L), zero = padding, at the end.
        inputs: (B, L, ...) each.

    Returns:
        (B, L, D); where a group is shorter than the batch, its padding is zero.
    """
    if mask.device.type != "cpu" or torch.compiler.is_compiling():
        return run(mask, *inputs)
    size = mask.shape[1]
    lengths = (mask.bool() * torch.arange(1, size + 1)).amax(dim=1).clamp(min=1)
    order = lengths.argsort(descending=True, stable=True)
    longest_first = lengths[order].tolist()
    starts = [0]
    for row, length in enumerate(longest_first):
        longest = longest_first[starts[-1]]
        if length < LIKE_LENGTH * longest and (row - starts[-1]) * longest >= MINIMUM_GROUP:
            starts.append(row)
    if len(starts) == 1 and longest_first[0] == size:
        return run(mask, *inputs)
    states = []
    for start, stop in zip(starts, [*starts[1:], len(longest_first)], strict=True):
        rows, length = order[start:stop], longest_first[start]
        group = run(mask[rows, :length], *(values[rows, :length] for values in inputs))
        states.append(nn.functional.pad(group, (0, 0, 0, size - length)))
    return torch.cat(states)[order.argsort()]


# ---------------------------------------------------------------------------------------------------------- base class


def sinusoids(positions: int, width: int) -> torch.Tensor:
    """(positions, width) sines and cosines of falling frequency (Vaswani et al. 2017, section 3.5)."""
    frequencies = 10000.0 ** (-torch.arange(0, width, 2) / width)
    angles = torch.arange(positions)[:, None] * frequencies
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :width]


class LexMotionPreTrainedModel(PreTrainedModel):
    config: LexMotionConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["LexMotionLayer", "LexMotionMotionEmbeddings"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):
        """As in transformers, of safetensors alone: the other format can run code when it is read."""
        kwargs.setdefault("use_safetensors", True)
        return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, LexicalHead):
            module.reset_parameters()
        elif isinstance(module, LexMotionMotionEmbeddings | MotionTokenDecoder):
            if module.config.position_init == "sincos":
                init.copy_(module.time_embeddings, sinusoids(*module.time_embeddings.shape[::2])[:, None])
                init.normal_(module.part_embeddings)
            else:
                init.normal_(module.time_embeddings, std=module.config.initializer_range)
                init.normal_(module.part_embeddings, std=module.config.initializer_range)
            if isinstance(module, MotionTokenDecoder):
                init.normal_(module.mask_token, std=module.config.initializer_range)

    def resize_token_embeddings(self, *args, **kwargs) -> nn.Embedding:
        """
        As in transformers, for a tokenizer that gained or lost words; the lexical vectors follow.

        New words can be active where all words are (else `set_active_words` says so); a word that is gone is active no
        more.
        """
        embeddings = super().resize_token_embeddings(*args, **kwargs)
        for tower in self.modules():
            if isinstance(tower, LexMotionTextModel | LexMotionMotionModel):
                head = tower.lexical_head
                head.resize(embeddings.num_embeddings)
                tower.config.vocab_size = head.vocab_size
                if tower.config.num_active_words is not None:
                    tower.config.num_active_words = head.active_ids.numel()
        return embeddings

    def _use_active_words(self, heads: Sequence[LexicalHead], configs: Sequence, active_ids) -> None:
        ids = torch.as_tensor(active_ids, dtype=torch.int64, device=self.device).unique()
        if ids.numel() == 0 or ids[0] < 0 or ids[-1] >= heads[0].vocab_size:
            raise ValueError(
                f"active_ids must be ids of the vocabulary of {heads[0].vocab_size} words, got {ids.numel()} ids"
                + (f" in {int(ids[0])}..{int(ids[-1])}" if ids.numel() else "")
            )
        for head, config in zip(heads, configs, strict=True):
            head.active_ids = ids.clone()
            config.num_active_words = ids.numel()


# ---------------------------------------------------------------------------------------------------------- text tower


class LexMotionTextPreTrainedModel(TextEncodingMixin, LexMotionPreTrainedModel):
    config: LexMotionTextConfig
    base_model_prefix = "text_model"
    input_modalities = ("text",)
    # Loading a tower from a whole model leaves the rest behind on purpose.
    _keys_to_ignore_on_load_unexpected = [r"^motion_model\.", r"^text_decoder\."]


class LexMotionTextModel(LexMotionTextPreTrainedModel):
    """
    A BERT-family encoder whose pooled output is a sparse vector over its own vocabulary.

    Example:

    ```python
    >>> from lexmotion import LexMotionTextConfig, LexMotionTextModel
    >>> encoder = {"model_type": "bert", "vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 1,
    ...            "num_attention_heads": 2, "intermediate_size": 64}
    >>> model = LexMotionTextModel(LexMotionTextConfig(encoder_config=encoder))
    >>> model(input_ids=torch.tensor([[2, 17, 40, 3]])).text_embeds.shape
    torch.Size([1, 99])

    ```
    """

    def __init__(self, config: LexMotionTextConfig):
        super().__init__(config)
        encoder_config = config.encoder_config
        if encoder_config.model_type not in ("bert", "distilbert"):
            raise ValueError(
                f"the text encoder must be of model type bert or distilbert, got {encoder_config.model_type!r}"
            )
        pooler = {"add_pooling_layer": False} if encoder_config.model_type == "bert" else {}
        self.encoder = AutoModel.from_config(encoder_config, **pooler)
        self.lexical_head = LexicalHead(
            encoder_config.hidden_size,
            encoder_config.vocab_size,
            config.num_active_words,
            config.head_kind,
            getattr(encoder_config, "hidden_act", None) or encoder_config.activation,
            config.top_k,
            min_words=config.min_words,
        )
        self.post_init()

    @property
    def word_embeddings(self) -> torch.Tensor:
        """(V, E), the matrix that reads words in and writes words out."""
        return self.encoder.get_input_embeddings().weight

    def get_input_embeddings(self) -> nn.Module:
        return self.encoder.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.encoder.set_input_embeddings(value)

    def set_active_words(self, active_ids) -> None:
        """Restrict the head to these vocabulary ids, in ascending order."""
        self._use_active_words([self.lexical_head], [self.config], active_ids)

    @classmethod
    def from_text_pretrained(cls, path: str, active_ids=None, **config_fields) -> "LexMotionTextModel":
        """
        Start from a published masked LM or sentence encoder of the BERT family.

        Args:
            path: local folder or Hub name. A missing masked-LM head becomes the identity transform, not noise.
            active_ids: vocabulary ids the head may activate.
            config_fields: further fields of [`LexMotionTextConfig`].
        """
        verbosity = logging.get_verbosity()
        logging.set_verbosity_error()  # what is missing is said below, in one line
        try:
            masked_lm, info = AutoModelForMaskedLM.from_pretrained(
                path, output_loading_info=True, dtype=torch.float32, use_safetensors=True
            )
        finally:
            logging.set_verbosity(verbosity)
        encoder_config = copy.deepcopy(masked_lm.config)
        if encoder_config.model_type not in ("bert", "distilbert"):
            raise ValueError(
                f"{path} is of model type {encoder_config.model_type!r}; the text tower reads bert and distilbert"
            )
        model = cls(LexMotionTextConfig(encoder_config=encoder_config, **config_fields))
        model.encoder.load_state_dict(getattr(masked_lm, masked_lm.base_model_prefix).state_dict(), strict=False)
        head = model.lexical_head
        if any("transform" in key or "vocab_transform" in key for key in info["missing_keys"]):
            logger.info(f"{path} has no masked-LM head: the lexical head starts as the identity transform.")
            head.reset_to_identity()
        else:
            state = masked_lm.state_dict()
            if encoder_config.model_type == "bert":
                dense, norm = "cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm"
                bias = "cls.predictions.bias"
            else:
                dense, norm, bias = "vocab_transform", "vocab_layer_norm", "vocab_projector.bias"
            with torch.no_grad():
                if head.kind == "splade":
                    head.dense.weight.copy_(state[f"{dense}.weight"])
                    head.dense.bias.copy_(state[f"{dense}.bias"])
                    head.bias.copy_(state[bias])
                head.layer_norm.weight.copy_(state[f"{norm}.weight"])
                head.layer_norm.bias.copy_(state[f"{norm}.bias"])
        if active_ids is not None:
            model.set_active_words(active_ids)
        return model

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        num_segments: int = 1,
        event_words: Sequence[int] | None = None,
        output_token_logits: bool = False,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> LexMotionTextOutput:
        """
        Args:
            input_ids: (B, L). attention_mask: (B, L), zero = padding.
            num_segments, event_words: as in [`LexMotionConfig`]; segments are told from `input_ids`.
            output_token_logits: also return the word scores of every token, (B, L, A).
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids (B, L) and inputs_embeds (B, L, E)")
        given = input_ids if input_ids is not None else inputs_embeds
        if attention_mask is None:
            attention_mask = torch.ones(given.shape[:2], dtype=torch.int64, device=given.device)
        wants_layers, wants_attentions = output_hidden_states, output_attentions
        if wants_layers is None:
            wants_layers = self.config.output_hidden_states or self.encoder.config.output_hidden_states
        if wants_attentions is None:
            wants_attentions = self.config.output_attentions or self.encoder.config.output_attentions
        if input_ids is not None and not wants_layers and not wants_attentions:
            states: dict | ModelOutput = {}
            hidden = self.encode(input_ids, attention_mask)  # (B, L, E)
        else:
            states = self.encoder(
                input_ids=input_ids,
                attention_mask=attention_mask,
                inputs_embeds=inputs_embeds,
                output_hidden_states=wants_layers,
                output_attentions=wants_attentions,
                return_dict=True,
            )
            hidden = states.last_hidden_state
        head, segments = self.lexical_head, None
        if num_segments > 1 and input_ids is not None:
            units = event_units(input_ids, attention_mask, event_words)
            scores, winners, segments = pool_segments(
                head, hidden, attention_mask, self.word_embeddings, units, num_segments
            )
        else:
            scores, winners = head.pool(hidden, attention_mask, self.word_embeddings)  # (B, A)
        return LexMotionTextOutput(
            text_embeds=head.embed(scores),  # (B, V)
            last_hidden_state=hidden,
            text_scores=scores,
            winning_tokens=winners,
            segment_scores=segments,
            token_logits=head.token_logits(hidden, self.word_embeddings) if output_token_logits else None,
            hidden_states=states.get("hidden_states"),
            attentions=states.get("attentions"),
        )

    def encode(self, input_ids: torch.LongTensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """(B, L), (B, L) -> the encoder's last states (B, L, E); those of padding mean nothing."""

        def run(mask, ids):
            return self.encoder(input_ids=ids, attention_mask=mask, return_dict=True).last_hidden_state

        return by_length(run, attention_mask, input_ids)

    def masked_lm_loss(self, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """
        Cross-entropy over the active words at the labelled tokens only.

        Args:
            hidden: (B, L, E). labels: (B, L) vocabulary ids, -100 elsewhere; a word outside the active ones is an
                error.
        """
        where = labels != IGNORED
        position = torch.searchsorted(self.lexical_head.active_ids, labels[where])
        position = position.clamp(max=self.lexical_head.active_ids.numel() - 1)
        wrong = self.lexical_head.active_ids[position] != labels[where]
        if wrong.any():
            raise ValueError(
                f"label {int(labels[where][wrong][0])} is not an active word of the lexical head; mask active words "
                "only"
            )
        return cross_entropy(self.lexical_head.token_logits(hidden[where], self.word_embeddings), position)


class BottleneckedTextDecoder(nn.Module):
    """
    The weak decoder of LexMLM and LexMMM: fills a heavily masked caption from its remains and one vector, b.

    Position 0 ([CLS]) is replaced by b (LexMAE); the output words are scored by the encoder's own lexical head.
    """

    def __init__(self, config: LexMotionTextConfig):
        super().__init__()
        width = config.hidden_size
        self.bottleneck_norm = nn.LayerNorm(width, eps=1e-6)
        self.decoder = LexMotionDecoder(config, width, config.num_attention_heads, config.num_decoder_layers)

    def forward(
        self,
        text_model: LexMotionTextModel,
        bottleneck: torch.Tensor,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor,
        labels: torch.LongTensor,
    ) -> torch.Tensor:
        """bottleneck (B, E); input_ids, attention_mask, labels (B, L) -> mean cross-entropy ()."""
        words = text_model.encoder.embeddings(input_ids)  # (B, L, E)
        told = self.bottleneck_norm(bottleneck.to(words.dtype))[:, None]  # (B, 1, E)
        tokens = torch.cat([told, words[:, 1:]], dim=1)  # (B, L, E)
        hidden = by_length(lambda mask, states: self.decoder(states, mask), attention_mask, tokens)
        return text_model.masked_lm_loss(hidden, labels)


class LexMotionForLexicalMaskedLM(LexMotionTextPreTrainedModel):
    """
    Phase i, LexMLM: what half a sentence cannot tell must come through a bottleneck made of words.

    x_e, x_d = two maskings of one caption;  S = head(encoder(x_e));  L_enc = CE(S at masked words);
    p = softmax(max_i S_i);  b = sg(E)^T p;  L_dec = CE(decoder([b; emb(x_d)]) at masked words).
    """

    def __init__(self, config: LexMotionTextConfig):
        super().__init__(config)
        self.text_model = LexMotionTextModel(config)
        self.text_decoder = BottleneckedTextDecoder(config)
        self.post_init()

    def bottleneck(
        self, input_ids, attention_mask, **kwargs
    ) -> tuple[LexMotionTextOutput, torch.Tensor, torch.Tensor]:
        """(B, L) -> the tower's output, p (B, V), b (B, E)."""
        output = self.text_model(input_ids=input_ids, attention_mask=attention_mask, return_dict=True, **kwargs)
        head = self.text_model.lexical_head
        log_importance, bottleneck = head.bottleneck(output.text_scores, self.text_model.word_embeddings)
        return output, head.scatter(log_importance.exp()), bottleneck

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        decoder_input_ids: torch.LongTensor | None = None,
        decoder_labels: torch.LongTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> LexMotionLexicalMaskedLMOutput:
        """All (B, L): x_e with its mask and labels, x_d with its labels (-100 = not asked). No labels, no loss."""
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        encoded, importance, bottleneck = self.bottleneck(input_ids, attention_mask, **kwargs)
        encoder_loss = decoder_loss = None
        if labels is not None:
            encoder_loss = self.text_model.masked_lm_loss(encoded.last_hidden_state, labels)
        if decoder_labels is not None:
            decoder_loss = self.text_decoder(
                self.text_model, bottleneck, decoder_input_ids, attention_mask, decoder_labels
            )
        return LexMotionLexicalMaskedLMOutput(
            encoder_loss=encoder_loss,
            decoder_loss=decoder_loss,
            importance=importance,
            bottleneck=bottleneck,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )


# -------------------------------------------------------------------------------------------------------- motion tower


class LexMotionMotionEmbeddings(nn.Module):
    """Motion values -> a grid of tokens: one linear map for each body part, separable time and part embeddings."""

    def __init__(self, config: LexMotionMotionConfig):
        super().__init__()
        self.config = config
        self.patch_frames = config.patch_frames
        width = config.hidden_size
        self.patch_embeddings = nn.ModuleList(
            [nn.Linear(config.patch_frames * len(part), width) for part in config.parts]
        )
        self.time_embeddings = nn.Parameter(torch.zeros(config.num_windows, 1, width))
        self.part_embeddings = nn.Parameter(torch.zeros(1, config.num_parts, width))

    def check(self, motion_values: torch.Tensor) -> None:
        if motion_values.ndim != 3 or motion_values.shape[-1] != self.config.num_features:
            raise ValueError(
                f"motion_values must be (batch, frames, {self.config.num_features}), got "
                f"{tuple(motion_values.shape)}; prepare motions with this model's processor"
            )
        if motion_values.shape[1] > self.config.num_windows * self.patch_frames:
            raise ValueError(
                f"motion_values has {motion_values.shape[1]} frames, this model reads at most "
                f"{self.config.num_frames}; "
                "let the processor crop it, or cut it into clips"
            )

    def windows(self, motion_values: torch.Tensor, frame_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Cut into time windows: (B, T, F), (B, T) -> values (B, Nt, P, F), zero padded, and real frames (B, Nt, P).
        """
        batch, frames, features = motion_values.shape
        missing = -frames % self.patch_frames
        real = nn.functional.pad(frame_mask.bool(), (0, missing))
        values = nn.functional.pad(motion_values, (0, 0, 0, missing)).masked_fill(~real[..., None], 0.0)
        return (
            values.view(batch, -1, self.patch_frames, features),
            real.view(batch, -1, self.patch_frames),
        )

    def forward(self, motion_values, frame_mask) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, T, F), (B, T) -> token embeddings (B, Nt, Np, D), which tokens are real (B, Nt, Np) bool."""
        self.check(motion_values)
        values, real = self.windows(motion_values, frame_mask)
        dtype = self.time_embeddings.dtype
        grid = torch.stack(
            [
                embed(values[..., part].flatten(2).to(dtype))
                for embed, part in zip(self.patch_embeddings, self.config.parts, strict=True)
            ],
            dim=2,
        )
        grid = grid + self.time_embeddings[: grid.shape[1]] + self.part_embeddings
        share = real.float().mean(dim=-1)  # (B, Nt)
        valid = share >= MINIMUM_REAL_FRAMES
        # The first window of a motion shorter than a quarter window is all there is to see of it.
        valid[:, 0] |= share[:, 0] > 0
        return grid, valid[:, :, None].expand(-1, -1, grid.shape[2])


class LexMotionMotionEncoder(nn.Module):
    """Embeddings, ViT blocks and final LayerNorm; masked tokens are left out of the computation, not replaced."""

    def __init__(self, config: LexMotionMotionConfig):
        super().__init__()
        self.config = config
        self.embeddings = LexMotionMotionEmbeddings(config)
        rates = torch.linspace(0, config.drop_path_rate, config.num_hidden_layers, device="cpu").tolist()
        self.layers = nn.ModuleList(
            [
                LexMotionLayer(
                    config,
                    config.hidden_size,
                    config.num_attention_heads,
                    config.intermediate_size,
                    config.hidden_act,
                    config.hidden_dropout,
                    config.attention_dropout,
                    rate,
                    config.layer_norm_eps,
                )
                for rate in rates
            ]
        )
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, motion_values, frame_mask, token_mask=None):
        """
        Args:
            motion_values: (B, T, F). frame_mask: (B, T). token_mask: (B, N) bool, True = hidden from the encoder.

        Returns:
            states (B, N, D), zero where unseen; seen (B, N) bool; valid (B, N) bool, seen or masked; (Nt, Np).
        """
        grid, valid = self.embeddings(motion_values, frame_mask)  # (B, Nt, Np, D), (B, Nt, Np)
        shape = (grid.shape[1], grid.shape[2])
        tokens, valid = grid.flatten(1, 2), valid.flatten(1)
        seen = valid if token_mask is None else valid & ~token_mask
        order = None
        if token_mask is not None:
            # Seen tokens first, in order; the batch keeps as many columns as its fullest row needs.
            order = seen.int().argsort(dim=1, descending=True, stable=True)[:, : max(int(seen.sum(1).max()), 1)]
            tokens = tokens.gather(1, order[..., None].expand(-1, -1, tokens.shape[-1]))
            read = seen.gather(1, order)
        else:
            read = seen
        attention_mask = create_bidirectional_mask(self.config, inputs_embeds=tokens, attention_mask=read)
        for layer in self.layers:
            tokens = layer(tokens, attention_mask)
        states = self.norm(tokens).masked_fill(~read[..., None], 0.0)
        if order is not None:
            full = states.new_zeros(*seen.shape, states.shape[-1])
            states = full.scatter(1, order[..., None].expand_as(states), states)
        return states, seen, valid, shape


class LexMotionMotionPreTrainedModel(MotionEncodingMixin, LexMotionPreTrainedModel):
    config: LexMotionMotionConfig
    base_model_prefix = "motion_model"
    main_input_name = "motion_values"
    input_modalities = ("motion",)
    _keys_to_ignore_on_load_unexpected = [r"^text_model\."]


class LexMotionMotionModel(LexMotionMotionPreTrainedModel):
    """
    A ViT over body parts x time windows whose pooled output is a sparse vector over the text tower's vocabulary.

    Example:

    ```python
    >>> from lexmotion import LexMotionMotionConfig, LexMotionMotionModel
    >>> config = LexMotionMotionConfig(num_features=66, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
    ...                                intermediate_size=64, vocab_size=99, word_embedding_size=16)
    >>> model = LexMotionMotionModel(config)
    >>> model(motion_values=torch.randn(2, 40, 66)).motion_embeds.shape
    torch.Size([2, 99])

    ```
    """

    _can_record_outputs = {"hidden_states": LexMotionLayer, "attentions": LexMotionAttention}

    def __init__(self, config: LexMotionMotionConfig):
        super().__init__(config)
        self.encoder = LexMotionMotionEncoder(config)
        width = config.word_embedding_size
        self.word_embeddings = nn.Embedding(config.vocab_size, width)
        # A text state leaves its encoder through a LayerNorm; the copied head expects the motion state to do so too.
        self.projection = nn.Linear(config.hidden_size, width)
        self.projection_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.lexical_head = LexicalHead(
            width,
            config.vocab_size,
            config.num_active_words,
            config.head_kind,
            config.head_act,
            config.top_k,
            min_words=config.min_words,
            word_share=config.word_share,
        )
        self.post_init()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):
        """As in transformers. In a whole model's checkpoint the shared word embeddings stand under the text tower."""
        shared = {r"^text_model\.encoder\.embeddings\.word_embeddings\.": "motion_model.word_embeddings."}
        kwargs.setdefault("key_mapping", shared)
        return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

    def get_input_embeddings(self) -> nn.Module:
        return self.word_embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.word_embeddings = value

    def set_active_words(self, active_ids) -> None:
        """Restrict the head to these vocabulary ids, in ascending order."""
        self._use_active_words([self.lexical_head], [self.config], active_ids)

    @capture_outputs
    def forward(
        self,
        motion_values: torch.FloatTensor,
        motion_attention_mask: torch.Tensor | None = None,
        token_mask: torch.BoolTensor | None = None,
        freeze_words: bool = False,
        num_segments: int = 1,
        output_token_logits: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> LexMotionMotionOutput:
        """
        Args:
            motion_values: (B, T, F), normalised by the processor. motion_attention_mask: (B, T), zero = padding.
            token_mask: (B, N) bool, True = hidden from the encoder (phases ii and iii).
            freeze_words: no gradient reaches the word embeddings (phase iii: they belong to the text tower).
            num_segments: parts of each motion's real time windows that are also pooled apart; 1: none.
            output_token_logits: also return the word scores of every token, (B, N, A).
        """
        if motion_attention_mask is None:
            motion_attention_mask = torch.ones(motion_values.shape[:2], dtype=torch.int64, device=motion_values.device)
        states, seen, _, grid = self.encoder(motion_values, motion_attention_mask, token_mask)
        words = self.projection_norm(self.projection(states))  # (B, N, E)
        head, word_embeddings = self.lexical_head, self.word_embeddings.weight
        if freeze_words:
            word_embeddings = word_embeddings.detach()
        segments = None
        if num_segments > 1:
            units = window_units(seen, grid[1])
            scores, winners, segments = pool_segments(head, words, seen, word_embeddings, units, num_segments)
        else:
            scores, winners = head.pool(words, seen, word_embeddings)  # (B, A)
        return LexMotionMotionOutput(
            motion_embeds=head.embed(scores),  # (B, V)
            last_hidden_state=states,
            token_attention_mask=seen,
            grid=grid,
            motion_scores=scores,
            winning_tokens=winners,
            segment_scores=segments,
            token_logits=head.token_logits(words, word_embeddings) if output_token_logits else None,
        )


class MotionTokenDecoder(nn.Module):
    """Rebuilds hidden motion tokens from the seen ones: mask tokens, own positions, one output map a part."""

    def __init__(self, config: LexMotionMotionConfig, num_layers: int, with_targets: bool = True):
        super().__init__()
        width = config.decoder_hidden_size
        heads = max(width // 64, 1)
        self.config = config
        self.input = nn.Linear(config.hidden_size, width)
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.time_embeddings = nn.Parameter(torch.zeros(config.num_windows, 1, width))
        self.part_embeddings = nn.Parameter(torch.zeros(1, config.num_parts, width))
        self.decoder = LexMotionDecoder(config, width, heads, num_layers)
        if with_targets:
            # Twice the patch: positions and their temporal difference (MAMP).
            self.output = nn.ModuleList(
                [nn.Linear(width, 2 * config.patch_frames * len(part)) for part in config.parts]
            )

    def decode(self, states, seen, valid, prefix: torch.Tensor | None = None) -> torch.Tensor:
        """states (B, N, D), seen and valid (B, N), prefix (B, 1, W) or None -> (B, N, W)."""
        tokens = torch.where(seen[..., None], self.input(states), self.mask_token.to(states.dtype))
        windows = states.shape[1] // self.config.num_parts
        position = (self.time_embeddings[:windows] + self.part_embeddings).flatten(0, 1)  # (N, W)
        tokens = tokens + position.to(tokens.dtype)
        if prefix is None:
            return self.decoder(tokens, valid)
        mask = torch.cat([valid.new_ones(valid.shape[0], 1), valid], dim=1)
        return self.decoder(torch.cat([prefix.to(tokens.dtype), tokens], dim=1), mask)[:, 1:]

    def predict(self, decoded: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """(B, N, W) -> for each part, values and frame differences, both (B, Nt, P, len(part))."""
        grid = decoded.unflatten(1, (-1, self.config.num_parts))  # (B, Nt, Np, W)
        predictions = []
        for number, (output, part) in enumerate(zip(self.output, self.config.parts, strict=True)):
            both = output(grid[:, :, number]).unflatten(-1, (2, self.config.patch_frames, len(part)))
            predictions.append((both[:, :, 0], both[:, :, 1]))
        return predictions


def reconstruction_losses(
    encoder: LexMotionMotionEncoder,
    predictions: list[tuple[torch.Tensor, torch.Tensor]],
    motion_values: torch.Tensor,
    frame_mask: torch.Tensor,
    hidden: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Squared errors of positions and velocities at the hidden tokens, real frames only.

    Args:
        predictions: for each part (values, differences), each (B, Nt, P, len(part)).
        motion_values: (B, T, F) in normalised units. frame_mask: (B, T). hidden: (B, N) bool, tokens to rebuild.

    Returns:
        position loss () and velocity loss ().
    """
    values, real = encoder.embeddings.windows(motion_values, frame_mask)  # (B, Nt, P, F), (B, Nt, P)
    asked = hidden.unflatten(1, (-1, len(predictions)))  # (B, Nt, Np)
    flat_real = real.flatten(1, 2)
    step_real = nn.functional.pad(flat_real[:, 1:] & flat_real[:, :-1], (1, 0)).view_as(real)
    positions, velocities = [], []
    for number, (part, (position, velocity)) in enumerate(zip(encoder.config.parts, predictions, strict=True)):
        wanted = values[..., part]  # (B, Nt, P, len(part))
        step = nn.functional.pad(wanted.flatten(1, 2).diff(dim=1), (0, 0, 1, 0)).view_as(wanted)
        positions.append((position, wanted, asked[:, :, number, None] & real))
        velocities.append((velocity, step, asked[:, :, number, None] & step_real))
    return masked_mse(positions), masked_mse(velocities)


def rebuilt_motion(
    predictions: list[tuple[torch.Tensor, torch.Tensor]],
    parts: list[list[int]],
    num_features: int,
    hidden: torch.Tensor,
) -> torch.Tensor:
    """Predicted values of the hidden tokens (B, N) laid out as (B, Nt * P, F), zero elsewhere."""
    asked = hidden.unflatten(1, (-1, len(parts)))
    batch, windows, frames = predictions[0][0].shape[:3]
    rebuilt = torch.zeros(batch, windows, frames, num_features, device=hidden.device)
    for number, (part, (position, _)) in enumerate(zip(parts, predictions, strict=True)):
        rebuilt[..., part] = position.detach().float() * asked[:, :, number, None, None]
    return rebuilt.flatten(1, 2)


class LexMotionForContrastiveMaskedMotion(LexMotionMotionPreTrainedModel):
    """
    Phase ii, CMMM: rebuild hidden body parts and windows, and know the motion again from what is left of it.

    f sees the masked grid, f' = EMA(f) the whole grid of another crop;
    L_pos, L_vel = squared errors at hidden tokens;
    q = predictor(projector(mean(feature decoder(f)))),  k = projector'(mean(f'));
    L_con = 2 tau CE(q k / tau)  (CMAE).
    """

    # The student's layers record themselves; the decoders' and the teacher's do not.
    _can_record_outputs = {
        "hidden_states": OutputRecorder(LexMotionLayer, layer_name="motion_model"),
        "attentions": OutputRecorder(LexMotionAttention, index=1, layer_name="motion_model"),
    }

    def __init__(self, config: LexMotionMotionConfig):
        super().__init__(config)
        self.motion_model = LexMotionMotionModel(config)
        # This phase has no words: the lexical part waits, untouched, for phase iii.
        for module in (
            self.motion_model.word_embeddings,
            self.motion_model.projection,
            self.motion_model.projection_norm,
            self.motion_model.lexical_head,
        ):
            module.requires_grad_(False)
        self.motion_decoder = MotionTokenDecoder(config, config.num_decoder_layers)
        self.feature_decoder = MotionTokenDecoder(config, config.num_feature_decoder_layers, with_targets=False)
        self.feature_output = nn.Linear(config.decoder_hidden_size, config.hidden_size)
        wide, narrow = config.contrast_hidden_size, config.contrast_size
        self.projector = nn.Sequential(nn.Linear(config.hidden_size, wide), nn.GELU(), nn.Linear(wide, narrow))
        self.predictor = nn.Sequential(nn.Linear(narrow, wide), nn.GELU(), nn.Linear(wide, narrow))
        self.teacher_encoder = LexMotionMotionEncoder(config).requires_grad_(False)
        self.teacher_projector = copy.deepcopy(self.projector).requires_grad_(False)
        self.post_init()

    def teacher_parameters(self) -> Iterator[tuple[nn.Parameter, nn.Parameter]]:
        """Each parameter of the teacher with the student's."""
        yield from zip(self.teacher_encoder.parameters(), self.motion_model.encoder.parameters(), strict=True)
        yield from zip(self.teacher_projector.parameters(), self.projector.parameters(), strict=True)

    def initialize_weights(self) -> None:
        """As in transformers; what a checkpoint lacks of the teacher is the student's, so that it starts as a copy."""
        super().initialize_weights()
        for teacher, student in self.teacher_parameters():
            init.copy_(teacher, student)

    @torch.no_grad()
    def reset_teacher(self) -> None:
        """Make the teacher a copy of the student, as it starts; call after loading other student weights."""
        for teacher, student in self.teacher_parameters():
            teacher.copy_(student)

    @torch.no_grad()
    def update_teacher(self, momentum: float) -> None:
        """Teacher <- momentum x teacher + (1 - momentum) x student, after every optimiser step."""
        teachers, students = zip(*self.teacher_parameters(), strict=True)
        torch._foreach_lerp_(list(teachers), list(students), 1.0 - momentum)

    @capture_outputs
    def forward(
        self,
        motion_values: torch.FloatTensor,
        motion_attention_mask: torch.Tensor | None = None,
        token_mask: torch.BoolTensor | None = None,
        teacher_motion_values: torch.FloatTensor | None = None,
        teacher_motion_attention_mask: torch.Tensor | None = None,
        clip_ids: torch.LongTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> LexMotionContrastiveMaskedMotionOutput:
        """
        Args:
            motion_values, motion_attention_mask: (B, T, F), (B, T), the student's crop.
            token_mask: (B, N) bool, True = hidden; nothing is to be rebuilt without.
            teacher_motion_values, teacher_motion_attention_mask: the teacher's crop of the same clips; no contrast
                without.
            clip_ids: (B,) equal for crops and mirror twins of one clip: they are not each other's negatives.
        """
        if motion_attention_mask is None:
            motion_attention_mask = torch.ones(motion_values.shape[:2], dtype=torch.int64, device=motion_values.device)
        states, seen, valid, _ = self.motion_model.encoder(motion_values, motion_attention_mask, token_mask)
        predictions = self.motion_decoder.predict(self.motion_decoder.decode(states, seen, valid))
        hidden = valid & ~seen
        position_loss, velocity_loss = reconstruction_losses(
            self.motion_model.encoder, predictions, motion_values, motion_attention_mask, hidden
        )
        contrastive_loss = pooled = None
        if teacher_motion_values is not None:
            features = self.feature_output(self.feature_decoder.decode(states, seen, valid))
            query = self.predictor(self.projector(_mean(features, valid)))  # (B, C)
            with torch.no_grad():
                full, full_seen, _, _ = self.teacher_encoder(teacher_motion_values, teacher_motion_attention_mask)
                key = self.teacher_projector(_mean(full, full_seen))
            pooled, key = cosine(query.float()), gather(cosine(key.float()))
            tau = self.config.contrast_temperature
            rows = torch.arange(pooled.shape[0], device=pooled.device) + _rank_offset(pooled.shape[0])
            positives = rows[:, None] == torch.arange(key.shape[0], device=pooled.device)
            ignored = None if clip_ids is None else clip_ids[:, None] == gather(clip_ids)[None, :]
            contrastive_loss = 2.0 * tau * info_nce(pooled @ key.T / tau, positives, ignored)
        return LexMotionContrastiveMaskedMotionOutput(
            position_loss=position_loss,
            velocity_loss=velocity_loss,
            contrastive_loss=contrastive_loss,
            reconstruction=None
            if self.training
            else rebuilt_motion(predictions, self.config.parts, motion_values.shape[-1], hidden),
            pooled=pooled,
        )


def _mean(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean over the marked tokens: (B, N, D), (B, N) -> (B, D)."""
    weight = mask.to(states.dtype)[..., None]
    return (states * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1.0)


def _rank_offset(rows: int) -> int:
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_rank() * rows if distributed else 0


# -------------------------------------------------------------------------------------------------------- dual encoder


class Pairing(NamedTuple):
    """
    What is right for what in a batch, over all processes.

    Args:
        targets: (all Bt, all Bm) float, how right a motion is for a caption; 0: not.
        ignored: (all Bt, all Bm) bool, no negatives, whether right or not.
        clips: (all Bm,) clip of every motion.
    """

    targets: torch.Tensor
    ignored: torch.Tensor
    clips: torch.Tensor


class LexMotionModel(TextEncodingMixin, MotionEncodingMixin, LexMotionPreTrainedModel):
    """
    The dual encoder, trained by phase iv, LexCMLP: motion and its captions near each other in one space of words.

    z_t, z_m = lexical vectors;  y = z / |z|;  s = y_t y_m^T / tau;  L_con = multi-positive InfoNCE both ways, plus
    FLOPS of both and the masked-LM loss kept on.

    Example:

    ```python
    >>> from lexmotion import LexMotionModel, LexMotionProcessor  # doctest: +SKIP
    >>> model = LexMotionModel.from_pretrained("user/lexmotion-small")  # doctest: +SKIP
    >>> processor = LexMotionProcessor.from_pretrained("user/lexmotion-small")  # doctest: +SKIP
    >>> inputs = processor(text=["a person jumps"], motion=positions, fps=20, return_tensors="pt")  # doctest: +SKIP
    >>> model(**inputs).logits_per_text  # doctest: +SKIP

    ```
    """

    _tied_weights_keys = {
        "motion_model.word_embeddings.weight": "text_model.encoder.embeddings.word_embeddings.weight"
    }

    def __init__(self, config: LexMotionConfig):
        super().__init__(config)
        self.text_model = LexMotionTextModel._from_config(config.text_config)
        self.motion_model = LexMotionMotionModel._from_config(config.motion_config)
        self.text_readout = self.motion_readout = None
        if config.dense_size is not None:
            self.text_readout = nn.Linear(config.text_config.hidden_size, config.dense_size)
            self.motion_readout = nn.Linear(config.motion_config.hidden_size, config.dense_size)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.text_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.text_model.set_input_embeddings(value)
        self.motion_model.set_input_embeddings(value)

    def set_active_words(self, active_ids) -> None:
        """Restrict both heads to these vocabulary ids."""
        self._use_active_words(
            [self.text_model.lexical_head, self.motion_model.lexical_head],
            [self.config.text_config, self.config.motion_config],
            active_ids,
        )

    def set_word_limits(
        self, text: tuple[int, int | None] | None = None, motion: tuple[int, int | None] | None = None
    ) -> None:
        """
        From now on every vector has at least and at most so many words (VDR's sparsity at inference).

        Args:
            text, motion: (least, most) of a side, `most` None for no limit; a side left out keeps its own.
        """
        sides = (
            (text, self.config.text_config, self.text_model),
            (motion, self.config.motion_config, self.motion_model),
        )
        for limits, config, tower in sides:
            if limits is None:
                continue
            least, most = limits
            if least < 0 or (most is not None and most < max(least, 1)):
                raise ValueError(f"expected (least, most) words with 0 <= least <= most, got {limits}")
            for holder in (config, tower.config, tower.lexical_head):
                holder.min_words, holder.top_k = least, most

    def limit_motion_words(self, motion_scores: torch.Tensor, share: float) -> int:
        """
        From now on no word is active in more than `share` of motions like these ([`LexicalHead.limit_frequency`]).

        Args:
            motion_scores: (B, A) `motion_scores` of a sample. share: in (0, 1).

        Returns:
            How many words were limited.
        """
        head = self.motion_model.lexical_head
        limited = head.limit_frequency(motion_scores.to(head.bias.device), share)
        for config in (self.config.motion_config, self.motion_model.config):
            config.word_share = share
        return limited

    @classmethod
    def from_towers(
        cls,
        text_model: LexMotionTextModel,
        motion_config: LexMotionMotionConfig,
        motion_model: LexMotionMotionModel | None = None,
        **config_fields,
    ) -> "LexMotionModel":
        """
        Join a text tower and a motion tower (random when not given); the text head is copied to the motion.

        Args:
            text_model: phase i's result. motion_model: phase ii's result.
            motion_config: sizes of the motion tower; its vocabulary fields are taken from the text tower.
            config_fields: further fields of [`LexMotionConfig`].
        """
        text_config = copy.deepcopy(text_model.config)
        motion_config = copy.deepcopy(motion_config)
        motion_config.vocab_size = text_config.vocab_size
        motion_config.word_embedding_size = text_config.hidden_size
        motion_config.num_active_words = text_config.num_active_words
        motion_config.head_kind = text_config.head_kind
        motion_config.top_k = text_config.top_k
        motion_config.word_share = None  # the copied head knows no thresholds for motions
        encoder_config = text_config.encoder_config
        motion_config.head_act = getattr(encoder_config, "hidden_act", None) or encoder_config.activation
        model = cls(LexMotionConfig(text_config=text_config, motion_config=motion_config, **config_fields))
        model.text_model.load_state_dict(text_model.state_dict())
        if motion_model is not None:
            model.motion_model.encoder.load_state_dict(motion_model.encoder.state_dict())
        model.motion_model.lexical_head.load_state_dict(text_model.lexical_head.state_dict())
        model.tie_weights()
        return model

    @classmethod
    def from_text_pretrained(
        cls, path: str, motion_config: LexMotionMotionConfig, active_ids=None, **config_fields
    ) -> "LexMotionModel":
        """A dual encoder on published text weights (see [`LexMotionTextModel.from_text_pretrained`])."""
        text_model = LexMotionTextModel.from_text_pretrained(
            path, active_ids, head_kind=motion_config.head_kind, top_k=motion_config.top_k
        )
        return cls.from_towers(text_model, motion_config, **config_fields)

    @can_return_tuple
    def get_text_features(
        self, input_ids=None, attention_mask=None, **kwargs: Unpack[TransformersKwargs]
    ) -> LexMotionTextOutput:
        """(B, L) -> `text_embeds` (B, V), the rest of the tower's output, segments and the dense vector."""
        if self.config.num_segments > 1:
            kwargs = {
                "num_segments": self.config.num_segments,
                "event_words": self.config.event_words,
                **kwargs,
            }
        output = self.text_model(input_ids=input_ids, attention_mask=attention_mask, return_dict=True, **kwargs)
        if self.text_readout is not None:
            states = output.last_hidden_state  # (B, L, E)
            valid = states.new_ones(states.shape[:2]) if attention_mask is None else attention_mask
            output.dense_embeds = self.text_readout(_mean(states, valid))
        return output

    @can_return_tuple
    def get_motion_features(
        self, motion_values=None, motion_attention_mask=None, **kwargs: Unpack[TransformersKwargs]
    ) -> LexMotionMotionOutput:
        """(B, T, F) -> `motion_embeds` (B, V), the rest of the tower's output, segments and the dense vector."""
        if self.config.num_segments > 1:
            kwargs = {"num_segments": self.config.num_segments, **kwargs}
        output = self.motion_model(
            motion_values=motion_values, motion_attention_mask=motion_attention_mask, return_dict=True, **kwargs
        )
        if self.motion_readout is not None:
            output.dense_embeds = self.motion_readout(_mean(output.last_hidden_state, output.token_attention_mask))
        return output

    def score_vectors(self, output: LexMotionTextOutput | LexMotionMotionOutput) -> torch.Tensor:
        """
        (B, S) vectors of captions or motions: the product of one of each is their score, in [0, 1] without the dense
        part.

        Args:
            output: of `get_text_features` or `get_motion_features`. The first A columns are the active words of the
                whole, then come the segments' and the dense vector, each scaled by the root of its weight.
        """
        return self._with_dense(self._lexical_vectors(output), output)

    def _with_dense(self, lexical: torch.Tensor, output: LexMotionTextOutput | LexMotionMotionOutput) -> torch.Tensor:
        """(B, ...) lexical vectors -> score vectors."""
        if output.dense_embeds is None:
            return lexical
        weight = self.config.hybrid_weight
        return torch.cat([(1 - weight) ** 0.5 * lexical, weight**0.5 * cosine(output.dense_embeds.float())], dim=1)

    def _lexical_vectors(self, output: LexMotionTextOutput | LexMotionMotionOutput) -> torch.Tensor:
        """(B, A) unit vectors of the whole; with segments (B, A + K A), whose product is the blend of the cosines."""
        if isinstance(output, LexMotionTextOutput):
            head, scores = self.text_model.lexical_head, output.text_scores
        else:
            head, scores = self.motion_model.lexical_head, output.motion_scores
        whole = cosine(head.weigh(scores).float())
        if output.segment_scores is None:
            return whole
        segments = cosine(head.weigh(output.segment_scores).float())  # (B, K, A)
        weight = self.config.segment_weight
        scale = (weight / segments.shape[1]) ** 0.5
        return torch.cat([(1 - weight) ** 0.5 * whole, scale * segments.flatten(1)], dim=1)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor,
        motion_values: torch.FloatTensor,
        attention_mask: torch.Tensor | None = None,
        motion_attention_mask: torch.Tensor | None = None,
        text_clip_ids: torch.LongTensor | None = None,
        motion_clip_ids: torch.LongTensor | None = None,
        caption_ids: torch.LongTensor | None = None,
        caption_features: torch.FloatTensor | None = None,
        text_relative_ids: torch.LongTensor | None = None,
        motion_relative_ids: torch.LongTensor | None = None,
        mixed_clip_ids: torch.LongTensor | None = None,
        mixed_shares: torch.FloatTensor | None = None,
        token_mask: torch.BoolTensor | None = None,
        bow_weights: torch.FloatTensor | None = None,
        mlm_input_ids: torch.LongTensor | None = None,
        mlm_attention_mask: torch.Tensor | None = None,
        mlm_labels: torch.LongTensor | None = None,
        swapped_input_ids: torch.LongTensor | None = None,
        swapped_attention_mask: torch.Tensor | None = None,
        swapped_rows: torch.LongTensor | None = None,
        return_loss: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> LexMotionOutput:
        """
        Args:
            input_ids, attention_mask: (Bt, L). motion_values, motion_attention_mask: (Bm, T, F), (Bm, T).
            text_clip_ids: (Bt,) and motion_clip_ids: (Bm,) say which clip a row belongs to; row i with row i when
                left out.
            caption_ids: (Bt,) equal for equal captions: a motion with an identical caption is right too.
            caption_features: (Bt, d) unit sentence vectors; pairs above `false_negative_threshold` are no negatives.
            text_relative_ids: (Bt, Kt) and motion_relative_ids: (Bm, Km); a pair with an id in common is no negative.
            mixed_clip_ids: (Bm,) clip that a part of each motion was taken from, and mixed_shares: (Bm,) how much of
                it, in [0, 1): the motion is right for the captions of both, in these proportions.
            token_mask: (Bm, N) bool, True = hidden from the motion tower.
            bow_weights: (Bm, V) words of the captions of each motion, for the grounding and bag-of-words losses.
            mlm_*: (Bx, L) a masked copy of captions, for the loss kept on from phase i.
            swapped_*: (Bs, L) captions with their events exchanged, and (Bs,) the rows of the captions they were made
                from, -1 for a row that only fills the batch.
            return_loss: also return the parts of the loss, unweighted.
        """
        text = self.get_text_features(input_ids, attention_mask, return_dict=True, **kwargs)
        motion = self.get_motion_features(
            motion_values, motion_attention_mask, token_mask=token_mask, return_dict=True, **kwargs
        )
        # Everything below sees the active words alone: the others are zero in every vector.
        text_head, motion_head = self.text_model.lexical_head, self.motion_model.lexical_head
        if not torch.equal(text_head.active_ids, motion_head.active_ids):
            raise ValueError("the towers activate different words; call set_active_words on the whole model")
        z_t, z_m = text_head.weigh(text.text_scores).float(), motion_head.weigh(motion.motion_scores).float()
        bow_weights = None if bow_weights is None else bow_weights[:, motion_head.active_ids]  # (Bm, A)
        y_t, y_m = self._lexical_vectors(text), self._lexical_vectors(motion)  # (Bt, A), (Bm, A); longer with segments
        logits = self._with_dense(y_t, text) @ self._with_dense(y_m, motion).T / self.config.temperature  # (Bt, Bm)
        parts = {}
        if return_loss:
            compared = {"contrastive_loss": (y_t, y_m)}
            if self.text_readout is not None:
                compared["dense_contrastive_loss"] = (
                    cosine(text.dense_embeds.float()),
                    cosine(motion.dense_embeds.float()),
                )
            pairing = self._pairing(
                *(z_t.shape[0], z_m.shape[0]),
                *(text_clip_ids, motion_clip_ids, caption_ids, caption_features),
                *(text_relative_ids, motion_relative_ids, mixed_clip_ids, mixed_shares),
            )
            parts = self._loss_parts(z_t, z_m, compared, pairing, bow_weights)
            if swapped_input_ids is not None:
                swapped = self.get_text_features(swapped_input_ids, swapped_attention_mask, return_dict=True)
                y_s = self._lexical_vectors(swapped)
                own = swapped_rows if text_clip_ids is None else text_clip_ids[swapped_rows]
                if motion_clip_ids is not None:
                    own = (own[:, None] == motion_clip_ids).int().argmax(dim=1)  # (Bs,) rows of motions
                true, other = (y_t[swapped_rows] * y_m[own]).sum(dim=1), (y_s * y_m[own]).sum(dim=1)
                parts["order_loss"] = order_contrast(true, other, swapped_rows >= 0, self.config.temperature)
            if bow_weights is not None:
                log_importance = motion.motion_scores.float().log_softmax(dim=-1)
                parts["bow_loss"] = bag_of_words(log_importance, bow_weights)
            if mlm_labels is not None:
                states = self.text_model.encode(mlm_input_ids, mlm_attention_mask)
                parts["mlm_loss"] = self.text_model.masked_lm_loss(states, mlm_labels)
        return LexMotionOutput(
            **parts,
            logits_per_text=logits,
            logits_per_motion=logits.T,
            text_embeds=text.text_embeds,
            motion_embeds=motion.motion_embeds,
            text_active_words=(z_t > 0).sum(dim=1).float().mean(),
            motion_active_words=(z_m > 0).sum(dim=1).float().mean(),
            text_model_output=text,
            motion_model_output=motion,
        )

    def _pairing(
        self,
        num_texts: int,
        num_motions: int,
        text_clip_ids: torch.Tensor | None,
        motion_clip_ids: torch.Tensor | None,
        caption_ids: torch.Tensor | None,
        caption_features: torch.Tensor | None,
        text_relative_ids: torch.Tensor | None,
        motion_relative_ids: torch.Tensor | None,
        mixed_clip_ids: torch.Tensor | None,
        mixed_shares: torch.Tensor | None,
    ) -> Pairing:
        """What is right for what, over all processes; arguments as in `forward`."""
        device = self.device
        if text_clip_ids is None or motion_clip_ids is None:
            if num_texts != num_motions:
                raise ValueError(
                    f"{num_texts} captions and {num_motions} motions cannot be paired row by row; "
                    "give text_clip_ids and motion_clip_ids"
                )
            text_clip_ids = motion_clip_ids = torch.arange(num_texts, device=device) + _rank_offset(num_texts)
        if caption_ids is None:
            caption_ids = torch.arange(num_texts, device=device) + _rank_offset(num_texts)
        texts, motions, captions = (gather(ids) for ids in (text_clip_ids, motion_clip_ids, caption_ids))
        targets = caption_positives(texts, motions, captions).float()
        if mixed_clip_ids is not None:
            shares = gather(mixed_shares)
            targets = (1.0 - shares) * targets + shares * caption_positives(texts, gather(mixed_clip_ids), captions)
        ignored = torch.zeros_like(targets, dtype=torch.bool)
        if text_relative_ids is not None:
            ignored |= share_an_id(gather(text_relative_ids), gather(motion_relative_ids))
        threshold = self.config.false_negative_threshold
        if caption_features is not None and threshold is not None:
            features = gather(caption_features)
            alike = (features @ features.T) > threshold  # (all Bt, all Bt)
            ignored |= (alike.float() @ targets) > 0
        return Pairing(targets, ignored, motions)

    def _loss_parts(self, z_t, z_m, compared, pairing: Pairing, bow_weights) -> dict[str, torch.Tensor]:
        # Local rows against the rows of all processes: their sum over processes is the big batch's loss.
        t_rows = slice(_rank_offset(z_t.shape[0]), _rank_offset(z_t.shape[0]) + z_t.shape[0])
        m_rows = slice(_rank_offset(z_m.shape[0]), _rank_offset(z_m.shape[0]) + z_m.shape[0])
        tau, beta = self.config.temperature, self.config.hard_negative_beta

        def contrast(text_vectors, motion_vectors, all_texts, all_motions, targets, ignored, rows):
            t2m = info_nce(text_vectors @ all_motions.T / tau, targets[rows], ignored[rows], beta)
            m2t = info_nce(motion_vectors @ all_texts.T / tau, targets.T[m_rows], ignored.T[m_rows], beta)
            return 0.5 * (t2m + m2t)

        parts = {
            name: contrast(texts, motions, gather(texts), gather(motions), pairing.targets, pairing.ignored, t_rows)
            for name, (texts, motions) in compared.items()
        }
        parts |= {"text_flops_loss": flops(z_t), "motion_flops_loss": flops(z_m)}
        if bow_weights is not None:
            words, y_m = cosine(bow_weights.float()), cosine(z_m)
            same_clip = pairing.clips[:, None] == pairing.clips[None, :]
            # Like captions stay negatives here: where their words differ, that difference is the lesson.
            none = torch.zeros_like(same_clip)
            parts["grounding_loss"] = contrast(words, y_m, gather(words), gather(y_m), same_clip, none, m_rows)
        return parts


class LexMotionForLexicalMaskedMotion(LexMotionPreTrainedModel):
    """
    Phase iii, LexMMM: half a motion must say in words what fills its caption and rebuilds its other half.

    S = head(encoder(masked motion));  p_m = softmax(max_n S_n);  b_m = sg(E)^T p_m;
    L_m2t: phase i's decoder fills the masked caption from b_m (reading A);  L_m2m: a weak motion decoder rebuilds the
    motion from b_m and a quarter of the grid (reading B);  L_bow: p_m speaks the captions' words (STAIR).
    """

    main_input_name = "motion_values"

    def __init__(self, config: LexMotionConfig):
        super().__init__(config)
        self.model = LexMotionModel(config)
        self.text_decoder = BottleneckedTextDecoder(config.text_config)
        motion = config.motion_config
        self.motion_decoder = MotionTokenDecoder(motion, motion.num_bottleneck_decoder_layers)
        self.bottleneck_projection = nn.Linear(motion.word_embedding_size, motion.decoder_hidden_size)
        self.patch_states = LexMotionMotionEmbeddings(motion)  # the decoder's own eyes: no encoder context leaks in
        self.post_init()

    def bottleneck(self, motion_values, motion_attention_mask, token_mask=None, **kwargs):
        """(B, T, F) -> the motion tower's output, log p (B, A), p (B, V), b (B, E); no gradient reaches E."""
        tower = self.model.motion_model
        output = tower(motion_values, motion_attention_mask, token_mask, freeze_words=True, return_dict=True, **kwargs)
        head = tower.lexical_head
        log_importance, bottleneck = head.bottleneck(output.motion_scores, tower.word_embeddings.weight)
        return output, log_importance, head.scatter(log_importance.exp()), bottleneck

    @can_return_tuple
    def forward(
        self,
        motion_values: torch.FloatTensor,
        motion_attention_mask: torch.Tensor | None = None,
        token_mask: torch.BoolTensor | None = None,
        decoder_token_mask: torch.BoolTensor | None = None,
        decoder_input_ids: torch.LongTensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        decoder_labels: torch.LongTensor | None = None,
        bow_weights: torch.FloatTensor | None = None,
        mlm_input_ids: torch.LongTensor | None = None,
        mlm_attention_mask: torch.Tensor | None = None,
        mlm_labels: torch.LongTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> LexMotionLexicalMaskedMotionOutput:
        """
        Args:
            motion_values, motion_attention_mask: (B, T, F), (B, T). token_mask: (B, N) bool, hidden from the encoder.
            decoder_token_mask: (B, N) bool, hidden from the motion decoder and asked of it; no motion loss without.
            decoder_*: (B, L) a masked caption of each motion; no caption loss without labels.
            bow_weights: (B, V) IDF weights of the content words of all captions; no bag-of-words loss without.
            mlm_*: (Bx, L) masked captions for the text encoder's own loss.
        """
        if motion_attention_mask is None:
            motion_attention_mask = torch.ones(motion_values.shape[:2], dtype=torch.int64, device=motion_values.device)
        output, log_importance, importance, bottleneck = self.bottleneck(
            motion_values, motion_attention_mask, token_mask, **kwargs
        )
        losses = {}
        text_model = self.model.text_model
        if decoder_labels is not None:
            losses["caption_loss"] = self.text_decoder(
                text_model, bottleneck, decoder_input_ids, decoder_attention_mask, decoder_labels
            )
        if decoder_token_mask is not None:
            grid, valid = self.patch_states(motion_values, motion_attention_mask)
            tokens, valid = grid.flatten(1, 2), valid.flatten(1)
            prefix = self.bottleneck_projection(bottleneck.to(tokens.dtype))[:, None]
            decoded = self.motion_decoder.decode(tokens, valid & ~decoder_token_mask, valid, prefix)
            position_loss, velocity_loss = reconstruction_losses(
                self.model.motion_model.encoder,
                self.motion_decoder.predict(decoded),
                motion_values,
                motion_attention_mask,
                valid & decoder_token_mask,
            )
            losses["motion_loss"] = position_loss + velocity_loss
        if bow_weights is not None:
            active = self.model.motion_model.lexical_head.active_ids
            losses["bow_loss"] = bag_of_words(log_importance, bow_weights[:, active])
        if mlm_labels is not None:
            states = text_model.encode(mlm_input_ids, mlm_attention_mask)
            losses["mlm_loss"] = text_model.masked_lm_loss(states, mlm_labels)
        return LexMotionLexicalMaskedMotionOutput(
            **losses, importance=importance, hidden_states=output.hidden_states, attentions=output.attentions
        )


__all__ = [
    "LexMotionForContrastiveMaskedMotion",
    "LexMotionForLexicalMaskedLM",
    "LexMotionForLexicalMaskedMotion",
    "LexMotionModel",
    "LexMotionMotionModel",
    "LexMotionPreTrainedModel",
    "LexMotionTextModel",
]
