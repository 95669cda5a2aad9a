"""
LexMotion: motion and text as sparse vectors over one word vocabulary.

Two towers (`LexMotionTextModel`, `LexMotionMotionModel`) and the dual encoder (`LexMotionModel`). The models of the
pretraining phases are in `pretraining_lexmotion.py` (Lyu et al., ICLR 2025; details that the paper leaves open follow
LexMAE, LexLIP, CMAE and MAMP, or are our own).

Letters in shape comments: B batch, L text tokens, T frames, F motion features, N = Nt x Np motion tokens (time windows
x body parts, time-major), D hidden size, E word-embedding size, V vocabulary, A active words.
"""

import copy
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import AutoModel, AutoModelForMaskedLM
from transformers.configuration_utils import PreTrainedConfig
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_utils import PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs, can_return_tuple, logging
from transformers.utils.output_capturing import capture_outputs

from .checksums_lexmotion import MODEL_FILES, check_checksums, check_weights, write_checksums
from .configuration_lexmotion import LexMotionConfig, LexMotionMotionConfig, LexMotionTextConfig
from .encoding_lexmotion import MotionEncodingMixin, TextEncodingMixin, text_positions
from .layers_lexmotion import (
    GridPositions,
    LexMotionAttention,
    LexMotionLayer,
    by_length,
    check_motion_values,
    masked_mean,
    vit_layers,
)
from .lexical_head import LexicalHead
from .losses_lexmotion import cosine, cross_entropy, paired_clip_ids, same_clip, symmetric_info_nce
from .segment_pooling import event_units, pool_segments, window_units

logger = logging.get_logger(__name__)

MINIMUM_REAL_FRAMES = 0.25  # windows with a smaller share of real frames are not tokens
IGNORED = -100


@dataclass
class LexMotionTextOutput(ModelOutput):
    """
    Output of the text tower.

    Args:
        text_embeds: (B, V) word weights of the captions, non-negative.
        last_hidden_state: (B, L, E) token states.
        text_scores: (B, A) pooled word scores before saturation, in the order of the head's `active_ids`.
        winning_tokens: (B, A) int32, the token of each pooled score.
        segment_scores: (B, K, A), as `text_scores`, per segment, on request.
        dense_embeds: (B, d) dense vectors, of a `LexMotionModel` that has them.
        token_logits: (B, L, A) word scores per token, on request.
        hidden_states, attentions: (layers + 1) x (B, L, E) and (layers) x (B, heads, L, L), on request.
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
        """`text_embeds`, under transformers' name for pooled vectors."""
        return self.text_embeds


@dataclass
class LexMotionMotionOutput(ModelOutput):
    """
    Output of the motion tower; the fields missing below are as in the text output.

    Args:
        motion_embeds: (B, V) word weights of the motions, non-negative.
        last_hidden_state: (B, N, D) token states, time-major; zero for masked tokens and padding.
        token_attention_mask: (B, N) bool, the tokens that were encoded.
        grid: (Nt, Np), time windows and body parts; token n is window n // Np, part n % Np.
        token_logits: (B, N, A) word scores per token, on request.
        hidden_states, attentions: (layers + 1) x (B, n, D) and (layers) x (B, heads, n, n), on request. With a
            `token_mask`, n is the largest number of visible tokens in a row, which come first; the last hidden state
            is `last_hidden_state`.
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
        """`motion_embeds`, under transformers' name for pooled vectors."""
        return self.motion_embeds


@dataclass
class LexMotionOutput(ModelOutput):
    """
    Output of the dual encoder.

    Args:
        loss: symmetric multi-positive InfoNCE of the scores in the batch, on request.
        logits_per_text, logits_per_motion: (Bt, Bm) and (Bm, Bt), score over temperature, of this process's pairs.
        text_embeds, motion_embeds: (Bt, V) and (Bm, V) word weights.
        text_model_output, motion_model_output: outputs of the towers.
    """

    loss: torch.FloatTensor | None = None
    logits_per_text: torch.FloatTensor | None = None
    logits_per_motion: torch.FloatTensor | None = None
    text_embeds: torch.FloatTensor | None = None
    motion_embeds: torch.FloatTensor | None = None
    text_model_output: LexMotionTextOutput | None = None
    motion_model_output: LexMotionMotionOutput | None = None

    def to_tuple(self) -> tuple:
        return tuple(value.to_tuple() if isinstance(value, ModelOutput) else value for value in self.values())


@torch.no_grad()
def append_words(model: PreTrainedModel, added_words: Mapping[int, Sequence[int]]) -> None:
    """
    Give a text model embeddings of additional words: each the mean of the embeddings of its pieces.

    Args:
        model: resized if an id is beyond its embeddings.
        added_words: id of each word -> ids of its pieces.
    """
    size = 1 + max(added_words)
    if size > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(size, mean_resizing=False)
    weight = model.get_input_embeddings().weight
    for word, pieces in added_words.items():
        weight[word] = weight[list(pieces)].mean(dim=0)


def _forget_folders(config: PreTrainedConfig) -> None:
    """Clear the folders or Hub names that the parts of a model were loaded from, which are written to config.json."""
    for name in config.sub_configs:
        part = getattr(config, name, None)
        if isinstance(part, PreTrainedConfig):
            part._name_or_path = ""
            _forget_folders(part)


class LexMotionPreTrainedModel(PreTrainedModel):
    config: LexMotionConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["LexMotionLayer", "LexMotionMotionEmbeddings"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    accepts_loss_kwargs = False  # for transformers.Trainer: the loss is always a mean over the batch

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):
        """
        Load as in transformers, but only safetensors: the other format can run code when it is loaded.

        Raises:
            ValueError: if a file of a folder differs from its `checksums.json`, or a weight is NaN or infinite.
        """
        kwargs.setdefault("use_safetensors", True)
        name = pretrained_model_name_or_path
        if name is not None:
            check_checksums(os.path.join(name, kwargs.get("subfolder") or ""))
        loaded = super().from_pretrained(name, *args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        check_weights(model, name)
        for head in (module for module in model.modules() if isinstance(module, LexicalHead)):
            ids = head.active_ids
            if not ids.is_meta and (ids[0] < 0 or ids[-1] >= head.vocab_size or (ids.diff() <= 0).any()):
                raise ValueError(f"{name}: damaged weights, active_ids are no ascending ids; restore a copy")
        return loaded

    def save_pretrained(self, save_directory, *args, **kwargs) -> None:
        """Save as in transformers, with `checksums.json` and without the local folders that parts were loaded from."""
        _forget_folders(self.config)
        super().save_pretrained(save_directory, *args, **kwargs)
        if kwargs.get("is_main_process", True):
            write_checksums(save_directory, MODEL_FILES)

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, LexicalHead | GridPositions):
            module.reset_parameters()

    def resize_token_embeddings(self, *args, **kwargs) -> nn.Embedding:
        """
        Resize as in transformers, for a tokenizer that gained or lost words; the lexical vectors change with it.

        New words are active only if all words are (otherwise call `set_active_words`); removed words become inactive.
        """
        size = self.get_input_embeddings().num_embeddings
        embeddings = super().resize_token_embeddings(*args, **kwargs)
        for tower in self.modules():
            if isinstance(tower, LexMotionTextModel | LexMotionMotionModel):
                head = tower.lexical_head
                head.resize(embeddings.num_embeddings)
                if isinstance(tower, LexMotionTextModel) and head.vocab_size != size:
                    tower.config.tokenizer_hash = None
                tower.config.vocab_size = head.vocab_size
                if tower.config.num_active_words is not None:
                    tower.config.num_active_words = head.active_ids.numel()
        return embeddings

    def _use_active_words(self, heads: Sequence[LexicalHead], configs: Sequence, active_ids) -> None:
        ids = torch.as_tensor(active_ids, dtype=torch.int64, device=self.device).unique()
        if ids.numel() == 0 or ids[0] < 0 or ids[-1] >= heads[0].vocab_size:
            got = f"{ids.numel()} ids" + (f" in {int(ids[0])}..{int(ids[-1])}" if ids.numel() else "")
            raise ValueError(f"active_ids: got {got}; pass ids of the vocabulary of {heads[0].vocab_size} words")
        for head, config in zip(heads, configs, strict=True):
            head.active_ids = ids.clone()
            config.num_active_words = ids.numel()


class LexMotionTextPreTrainedModel(TextEncodingMixin, LexMotionPreTrainedModel):
    config: LexMotionTextConfig
    base_model_prefix = "text_model"
    input_modalities = ("text",)
    # A tower loaded from the checkpoint of a complete model ignores the rest.
    _keys_to_ignore_on_load_unexpected = [r"^motion_model\.", r"^text_decoder\."]


class LexMotionTextModel(LexMotionTextPreTrainedModel):
    """
    A BERT-family encoder whose pooled output is a sparse vector over its vocabulary.

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
            raise ValueError(f"text encoder: got model type {encoder_config.model_type!r}; pass bert or distilbert")
        pooler = {"add_pooling_layer": False} if encoder_config.model_type == "bert" else {}
        self.encoder = AutoModel.from_config(encoder_config, **pooler)
        self.lexical_head = LexicalHead(config, encoder_config.hidden_size)
        self.post_init()

    @property
    def word_embeddings(self) -> torch.Tensor:
        """(V, E), the input and output matrix of words."""
        return self.encoder.get_input_embeddings().weight

    def get_input_embeddings(self) -> nn.Module:
        return self.encoder.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.encoder.set_input_embeddings(value)

    def set_active_words(self, active_ids) -> None:
        """Restrict the head to these vocabulary ids, in ascending order."""
        self._use_active_words([self.lexical_head], [self.config], active_ids)

    @classmethod
    def from_text_pretrained(
        cls, path: str, active_ids=None, added_words: Mapping[int, Sequence[int]] | None = None, **config_fields
    ) -> "LexMotionTextModel":
        """
        Initialize from a published masked LM or sentence encoder of the BERT family.

        Args:
            path: local folder or Hub name. A missing masked-LM head becomes the identity transform, not random
                weights.
            active_ids: vocabulary ids that the head may activate.
            added_words: ids of words that the tokenizer has besides those of the weights, with the ids of the pieces
                in which it would read them otherwise. See [`append_words`]; the head's biases are means as well.
            config_fields: other fields of [`LexMotionTextConfig`].
        """
        verbosity = logging.get_verbosity()
        logging.set_verbosity_error()  # missing weights are reported below, in one line
        try:
            masked_lm, info = AutoModelForMaskedLM.from_pretrained(
                path,
                output_loading_info=True,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
            )
        finally:
            logging.set_verbosity(verbosity)
        encoder_config = copy.deepcopy(masked_lm.config)
        if encoder_config.model_type not in ("bert", "distilbert"):
            raise ValueError(f"{path}: got model type {encoder_config.model_type!r}; pass a bert or distilbert")
        model = cls(LexMotionTextConfig(encoder_config=encoder_config, **config_fields))
        model.encoder.load_state_dict(getattr(masked_lm, masked_lm.base_model_prefix).state_dict(), strict=False)
        head = model.lexical_head
        if any("transform" in key or "vocab_transform" in key for key in info["missing_keys"]):
            logger.info(f"{path}: no masked-LM head; the lexical head is initialized as the identity transform")
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
        if added_words:
            append_words(model, added_words)
            with torch.no_grad():
                for word, pieces in added_words.items():
                    head.bias[word] = head.bias[list(pieces)].mean()
        if active_ids is not None:
            model.set_active_words(active_ids)
        return model

    def _cut(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cut captions (B, L) to the positions of the encoder, keeping the end token, as tokenizers do."""
        limit, lengths = text_positions(self.config), attention_mask.sum(dim=1, keepdim=True)
        longest = int(lengths.max())
        if longest > limit:
            logger.warning(
                f"captions are too long, and the model reads their first {limit} tokens (the longest has {longest}); "
                "shorten them"
            )
        ends = input_ids.gather(1, (lengths - 1).clamp(min=0))
        input_ids, attention_mask = input_ids[:, :limit].clone(), attention_mask[:, :limit]
        input_ids[:, -1:] = torch.where(lengths > limit, ends, input_ids[:, -1:])
        return input_ids, attention_mask

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
        Encode captions.

        Args:
            input_ids, attention_mask: (B, L), the mask zero for padding.
            num_segments, event_words: as in [`LexMotionConfig`]; segments are derived from `input_ids`.
            output_token_logits: also return the word scores per token, (B, L, A).
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("inputs: got both or neither; pass one of input_ids (B, L) and inputs_embeds (B, L, E)")
        given = input_ids if input_ids is not None else inputs_embeds
        if attention_mask is None:
            attention_mask = torch.ones(given.shape[:2], dtype=torch.int64, device=given.device)
        if input_ids is not None and input_ids.shape[1] > text_positions(self.config):
            input_ids, attention_mask = self._cut(input_ids, attention_mask)
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
            words = self.word_embeddings
            scores, winners, segments = pool_segments(head, hidden, attention_mask, words, units, num_segments)
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
        """Return the encoder's last states (B, L, E) for (B, L) twice; those of padding are undefined."""

        def run(mask, ids):
            return self.encoder(input_ids=ids, attention_mask=mask, return_dict=True).last_hidden_state

        return by_length(run, attention_mask, input_ids)

    def masked_lm_loss(self, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """
        Compute the cross-entropy over the active words, at labelled tokens only.

        Args:
            hidden: (B, L, E).
            labels: (B, L) vocabulary ids, -100 elsewhere; other words than active ones raise ValueError.
        """
        where = labels != IGNORED
        position = torch.searchsorted(self.lexical_head.active_ids, labels[where])
        position = position.clamp(max=self.lexical_head.active_ids.numel() - 1)
        wrong = self.lexical_head.active_ids[position] != labels[where]
        if wrong.any():
            raise ValueError(f"labels: {int(labels[where][wrong][0])} is not an active word; mask only active words")
        return cross_entropy(self.lexical_head.token_logits(hidden[where], self.word_embeddings), position)


class LexMotionMotionEmbeddings(GridPositions):
    """Motion values -> a grid of tokens: one linear map per body part, separable time and part embeddings."""

    def __init__(self, config: LexMotionMotionConfig):
        super().__init__()
        self.patch_frames = config.patch_frames
        width, frames = config.hidden_size, config.patch_frames
        self.patch_embeddings = nn.ModuleList([nn.Linear(frames * len(part), width) for part in config.parts])
        self.add_positions(config, width)

    def windows(self, motion_values: torch.Tensor, frame_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cut (B, T, F) and (B, T) into windows: values (B, Nt, P, F), zero padded, and real frames (B, Nt, P)."""
        batch, frames, features = motion_values.shape
        missing = -frames % self.patch_frames
        real = nn.functional.pad(frame_mask.bool(), (0, missing))
        values = nn.functional.pad(motion_values, (0, 0, 0, missing)).masked_fill(~real[..., None], 0.0)
        return values.view(batch, -1, self.patch_frames, features), real.view(batch, -1, self.patch_frames)

    def forward(self, motion_values, frame_mask) -> tuple[torch.Tensor, torch.Tensor]:
        """Return token embeddings (B, Nt, Np, D) and real tokens (B, Nt, Np) bool, for (B, T, F) and (B, T)."""
        config = self.config
        longest = config.num_windows * config.patch_frames
        check_motion_values(motion_values, config.num_features, config.num_frames, longest)
        values, real = self.windows(motion_values, frame_mask)
        dtype, maps = self.time_embeddings.dtype, zip(self.patch_embeddings, config.parts, strict=True)
        grid = torch.stack([embed(values[..., part].flatten(2).to(dtype)) for embed, part in maps], dim=2)
        grid = grid + self.time_embeddings[: grid.shape[1]] + self.part_embeddings
        share = real.float().mean(dim=-1)  # (B, Nt)
        valid = share >= MINIMUM_REAL_FRAMES
        # Even a motion shorter than a quarter window has one token.
        valid[:, 0] |= share[:, 0] > 0
        return grid, valid[:, :, None].expand(-1, -1, grid.shape[2])


class LexMotionMotionEncoder(nn.Module):
    """Embeddings, ViT blocks and final LayerNorm; masked tokens are omitted from the computation, not replaced."""

    def __init__(self, config: LexMotionMotionConfig):
        super().__init__()
        self.config = config
        self.embeddings = LexMotionMotionEmbeddings(config)
        rates = torch.linspace(0, config.drop_path_rate, config.num_hidden_layers, device="cpu").tolist()
        self.layers = vit_layers(config, rates)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, motion_values, frame_mask, token_mask=None):
        """
        Encode (B, T, F) with the frame mask (B, T); tokens where `token_mask` (B, N) bool is True are hidden.

        Returns:
            states (B, N, D), zero for hidden tokens and padding; seen (B, N) bool; valid (B, N) bool, seen or hidden;
            (Nt, Np).
        """
        grid, valid = self.embeddings(motion_values, frame_mask)  # (B, Nt, Np, D), (B, Nt, Np)
        shape = (grid.shape[1], grid.shape[2])
        tokens, valid = grid.flatten(1, 2), valid.flatten(1)
        seen = valid if token_mask is None else valid & ~token_mask
        order = None
        if token_mask is not None:
            # Seen tokens come first, in order; the batch keeps as many columns as the row with most of them needs.
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
        # Text encoders end in a LayerNorm, and the head copied from the text tower expects its output.
        self.projection = nn.Linear(config.hidden_size, width)
        self.projection_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.lexical_head = LexicalHead(config, width)
        self.post_init()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):
        """Load as in transformers; complete models contain the shared word embeddings in the text tower."""
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
        Encode motions.

        Args:
            motion_values: (B, T, F), normalized by the processor.
            motion_attention_mask: (B, T), zero for padding.
            token_mask: (B, N) bool, True for tokens hidden from the encoder (phases ii and iii).
            freeze_words: stop gradients to the word embeddings, which belong to the text tower (phase iii).
            num_segments: parts of each motion's real time windows that are also pooled separately; 1 for none.
            output_token_logits: also return the word scores per token, (B, N, A).
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


class LexMotionModel(TextEncodingMixin, MotionEncodingMixin, LexMotionPreTrainedModel):
    """
    The dual encoder: motions and captions in one space of words, in which pairs are close.

        z_t, z_m = lexical vectors;  y = z / |z|;  s = y_t y_m^T / tau;  L = multi-positive InfoNCE in both directions

    Phase iv trains it with additional losses ([`LexMotionForContrastiveAlignment`]).

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
        heads = [self.text_model.lexical_head, self.motion_model.lexical_head]
        self._use_active_words(heads, [self.config.text_config, self.config.motion_config], active_ids)

    def set_word_limits(
        self, text: tuple[int, int | None] | None = None, motion: tuple[int, int | None] | None = None
    ) -> None:
        """
        Limit the number of words of all vectors (VDR's sparsity at inference).

        Args:
            text, motion: (minimum, maximum) per side, maximum None for no limit; a side set to None keeps its limits.
        """
        configs, towers = (self.config.text_config, self.config.motion_config), (self.text_model, self.motion_model)
        for limits, config, tower in zip((text, motion), configs, towers, strict=True):
            if limits is None:
                continue
            least, most = limits
            if least < 0 or (most is not None and most < max(least, 1)):
                raise ValueError(f"limits: got {limits}; pass (least, most) words with 0 <= least <= most")
            for holder in (config, tower.config, tower.lexical_head):
                holder.min_words, holder.top_k = least, most

    def limit_motion_words(self, motion_scores: torch.Tensor, share: float) -> int:
        """
        Limit each word to a `share` of motions like these ([`LexicalHead.limit_frequency`]).

        Args:
            motion_scores: (B, A) `motion_scores` of a sample.
            share: in (0, 1).

        Returns:
            The number of words with a threshold above zero.
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
        Join a text tower and a motion tower (random by default); the text head is copied to the motion tower.

        Args:
            text_model, motion_model: results of phases i and ii.
            motion_config: sizes of the motion tower; its vocabulary fields are copied from the text tower.
            config_fields: other fields of [`LexMotionConfig`].
        """
        text_config = copy.deepcopy(text_model.config)
        motion_config = copy.deepcopy(motion_config)
        for name in ("vocab_size", "num_active_words", "head_kind", "top_k", "head_act"):
            setattr(motion_config, name, getattr(text_config, name))
        motion_config.word_embedding_size = text_config.hidden_size
        motion_config.word_share = None  # the copied head has no thresholds for motions
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
        """Initialize a dual encoder from published text weights (see [`LexMotionTextModel.from_text_pretrained`])."""
        text_model = LexMotionTextModel.from_text_pretrained(
            path, active_ids, head_kind=motion_config.head_kind, top_k=motion_config.top_k
        )
        return cls.from_towers(text_model, motion_config, **config_fields)

    @can_return_tuple
    def get_text_features(
        self, input_ids=None, attention_mask=None, **kwargs: Unpack[TransformersKwargs]
    ) -> LexMotionTextOutput:
        """Return the text tower's output for (B, L): `text_embeds` (B, V), segments and dense vector."""
        if self.config.num_segments > 1:
            kwargs = {"num_segments": self.config.num_segments, "event_words": self.config.event_words, **kwargs}
        output = self.text_model(input_ids=input_ids, attention_mask=attention_mask, return_dict=True, **kwargs)
        if self.text_readout is not None:
            states = output.last_hidden_state  # (B, L, E)
            valid = states.new_ones(states.shape[:2]) if attention_mask is None else attention_mask
            output.dense_embeds = self.text_readout(masked_mean(states, valid))
        return output

    @can_return_tuple
    def get_motion_features(
        self, motion_values=None, motion_attention_mask=None, **kwargs: Unpack[TransformersKwargs]
    ) -> LexMotionMotionOutput:
        """Return the motion tower's output for (B, T, F): `motion_embeds` (B, V), segments and dense vector."""
        if self.config.num_segments > 1:
            kwargs = {"num_segments": self.config.num_segments, **kwargs}
        output = self.motion_model(
            motion_values=motion_values, motion_attention_mask=motion_attention_mask, return_dict=True, **kwargs
        )
        if self.motion_readout is not None:
            pooled = masked_mean(output.last_hidden_state, output.token_attention_mask)  # (B, D)
            output.dense_embeds = self.motion_readout(pooled)
        return output

    def score_vectors(self, output: LexMotionTextOutput | LexMotionMotionOutput) -> torch.Tensor:
        """
        Return (B, S) vectors of captions or motions, whose dot product is the score, in [0, 1] without the dense part.

        Args:
            output: of `get_text_features` or `get_motion_features`. The first A columns are the active words of the
                complete input, followed by the segments' and the dense vector, each scaled by the square root of its
                weight.
        """
        lexical = self.lexical_vectors(output)
        if output.dense_embeds is None:
            return lexical
        weight = self.config.hybrid_weight
        return torch.cat([(1 - weight) ** 0.5 * lexical, weight**0.5 * cosine(output.dense_embeds.float())], dim=1)

    def lexical_vectors(self, output: LexMotionTextOutput | LexMotionMotionOutput) -> torch.Tensor:
        """Return (B, A) unit vectors; with segments (B, A + K A), whose dot product is the blend of the cosines."""
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
        token_mask: torch.BoolTensor | None = None,
        return_loss: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> LexMotionOutput:
        """
        Score captions and motions.

        Args:
            input_ids, attention_mask: (Bt, L).
            motion_values, motion_attention_mask: (Bm, T, F) and (Bm, T).
            text_clip_ids, motion_clip_ids: (Bt,) and (Bm,), the clip of each row, for the loss; by default, row i is
                paired with row i.
            token_mask: (Bm, N) bool, True for tokens hidden from the motion tower.
            return_loss: also return the contrastive loss.
        """
        text = self.get_text_features(input_ids, attention_mask, return_dict=True, **kwargs)
        motion = self.get_motion_features(
            motion_values, motion_attention_mask, token_mask=token_mask, return_dict=True, **kwargs
        )
        # Only active words are compared; all others are zero in every vector.
        if not torch.equal(self.text_model.lexical_head.active_ids, self.motion_model.lexical_head.active_ids):
            raise ValueError("active words differ between the towers; call set_active_words on the dual encoder")
        s_t, s_m = self.score_vectors(text), self.score_vectors(motion)  # (Bt, S), (Bm, S)
        logits = s_t @ s_m.T / self.config.temperature  # (Bt, Bm)
        loss = None
        if return_loss:
            clips = paired_clip_ids(logits.shape, text_clip_ids, motion_clip_ids, logits.device)
            loss = symmetric_info_nce(s_t, s_m, same_clip(*clips), temperature=self.config.temperature)
        return LexMotionOutput(
            loss=loss,
            logits_per_text=logits,
            logits_per_motion=logits.T,
            text_embeds=text.text_embeds,
            motion_embeds=motion.motion_embeds,
            text_model_output=text,
            motion_model_output=motion,
        )


__all__ = ["LexMotionModel", "LexMotionMotionModel", "LexMotionPreTrainedModel", "LexMotionTextModel"]
