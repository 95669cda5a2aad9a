"""
Base of the baselines: a text encoder, a motion encoder, and vectors of both compared by cosine.

A baseline defines how captions and motions become an `Encoding` and which losses it is trained with; everything else
is shared, so that the rows of a table differ only by their models. Each has two representations: `"dense"`, as
published, and `"lexicon"` (the paper's dagger rows), in which the same tower ends in LexMotion's lexical head over the
text encoder's word embeddings and the lexical vector replaces the dense one.

Letters in shape comments: Bt captions and Bm motions of a batch, L text tokens, T frames, F motion features, D latent
size, E word-embedding size, V vocabulary, A active words.
"""

import copy
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import MODEL_FOR_TEXT_ENCODING_MAPPING, AutoConfig, AutoModelForTextEncoding
from transformers.configuration_utils import PreTrainedConfig, SubConfigSpec
from transformers.utils import ModelOutput

from ..configuration_lexmotion import HEAD_KINDS, check_sizes
from ..layers_lexmotion import by_length, check_motion_values
from ..lexical_head import LexicalHead
from ..losses_lexmotion import cosine, false_negatives, flops, paired_clip_ids, same_clip, symmetric_info_nce
from ..modeling_lexmotion import LexMotionPreTrainedModel, LexMotionTextModel, append_words

REPRESENTATIONS = ("dense", "lexicon")
LEXICAL_ENCODERS = ("bert", "distilbert")  # with WordPiece words and a masked-LM head


@dataclass
class RetrieverOutput(ModelOutput):
    """
    Output of a baseline.

    Args:
        loss: sum of the parts below, weighted by `loss_weights` of the configuration.
        contrastive_loss, margin_loss: InfoNCE in both directions, and a margin between non-pairs.
        text_reconstruction_loss, motion_reconstruction_loss: motions decoded from captions and from motions.
        kl_loss, latent_loss: distance between the distributions and between the latents of a pair.
        text_flops_loss, motion_flops_loss: FLOPS of the lexical vectors, with a weight that the trainer increases.
        logits_per_text, logits_per_motion: (Bt, Bm) and (Bm, Bt), cosine over temperature, of this process's pairs.
        text_embeds, motion_embeds: (Bt, D or V) and (Bm, D or V), vectors for retrieval, not normalized.
    """

    loss: torch.FloatTensor | None = None
    contrastive_loss: torch.FloatTensor | None = None
    margin_loss: torch.FloatTensor | None = None
    text_reconstruction_loss: torch.FloatTensor | None = None
    motion_reconstruction_loss: torch.FloatTensor | None = None
    kl_loss: torch.FloatTensor | None = None
    latent_loss: torch.FloatTensor | None = None
    text_flops_loss: torch.FloatTensor | None = None
    motion_flops_loss: torch.FloatTensor | None = None
    logits_per_text: torch.FloatTensor | None = None
    logits_per_motion: torch.FloatTensor | None = None
    text_embeds: torch.FloatTensor | None = None
    motion_embeds: torch.FloatTensor | None = None


LOSSES = tuple(name for name in RetrieverOutput.__dataclass_fields__ if name.endswith("_loss"))


@strict
class RetrieverConfig(PreTrainedConfig):
    r"""
    Fields that all baselines share.

    Args:
        encoder_config: the text encoder, any of `AutoModelForTextEncoding` including T5, but for lexical vectors
            `bert` or `distilbert`; by default with DistilBERT sizes.
        train_text_encoder: train the text encoder; otherwise it stays in evaluation mode.
        num_features, num_frames: width F of `motion_values` (B, T, F), and length of the longest motion in frames.
        latent_size: width D of the dense embeddings.
        representation: `"dense"`, or `"lexicon"` for vectors over the words of the text encoder.
        num_active_words, head_kind, top_k: of the lexical heads, as in [`LexMotionTextConfig`].
        tie_word_embeddings: score words by the text encoder's embeddings; False uses random ones, which shows the
            benefit of embeddings that reflect the meaning of words before any motion was seen.
        temperature: divisor of the cosines.
        false_negative_threshold: pairs whose captions' sentence vectors have a higher cosine are not negatives; None
            keeps all.
        loss_weights: weight of each named loss in `loss`; losses without a weight are not part of it.
        tokenizer_hash: as in [`LexMotionTextConfig`].
    """

    sub_configs_defaults = {"encoder_config": SubConfigSpec(config_class=AutoConfig, model_type="distilbert")}

    encoder_config: dict | PreTrainedConfig | None = None
    train_text_encoder: bool = True
    num_features: int = 263
    num_frames: int = 200
    latent_size: int = 256
    representation: str = "dense"
    num_active_words: int | None = None
    head_kind: str = "splade"
    top_k: int | None = None
    tie_word_embeddings: bool = True
    temperature: float = 0.1
    false_negative_threshold: float | None = None
    loss_weights: dict | None = None
    tokenizer_hash: str | None = None
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        check_sizes(self)
        if self.encoder_config is not None:
            check_sizes(self.encoder_config)
        if self.representation not in REPRESENTATIONS:
            raise ValueError(f"representation: got {self.representation!r}; pass one of {REPRESENTATIONS}")
        self.check_encoder()
        if self.head_kind not in HEAD_KINDS:
            raise ValueError(f"head_kind: got {self.head_kind!r}; pass one of {HEAD_KINDS}")
        if self.temperature <= 0:
            raise ValueError(f"temperature: got {self.temperature}; pass a positive number")
        self.loss_weights = dict(self.loss_weights or {"contrastive_loss": 1.0})
        unknown = sorted(set(self.loss_weights) - set(LOSSES))
        if unknown:
            raise ValueError(f"loss_weights: unknown loss {', '.join(unknown)}; pass one of {', '.join(LOSSES)}")

    @property
    def vocab_size(self) -> int:
        return self.encoder_config.vocab_size

    @property
    def head_act(self) -> str:
        """Activation of the lexical heads, the same as the text encoder's."""
        return getattr(self.encoder_config, "hidden_act", None) or self.encoder_config.activation

    @property
    def is_lexical(self) -> bool:
        return self.representation == "lexicon"

    def check_encoder(self) -> None:
        """Raise ValueError if no baseline can use the text encoder."""
        kind = self.encoder_config.model_type
        if self.is_lexical and kind not in LEXICAL_ENCODERS:
            wanted = " or ".join(LEXICAL_ENCODERS)
            raise ValueError(f"text encoder: got model type {kind!r}; pass {wanted} for lexical vectors")
        if type(self.encoder_config) not in MODEL_FOR_TEXT_ENCODING_MAPPING:
            raise ValueError(f"text encoder: got model type {kind!r}; pass one of AutoModelForTextEncoding's")


@dataclass
class Encoding:
    """
    Output of a tower, to which baselines add fields for their losses.

    Args:
        embeds: (B, D), or (B, A) non-negative weights of the active words.
    """

    embeds: torch.Tensor


@dataclass
class Pairs:
    """
    The pairs of captions and motions in a batch.

    Args:
        text_ids, motion_ids: (Bt,) and (Bm,), the clip of each row.
        caption_features: (Bt, d) unit sentence vectors.
    """

    text_ids: torch.Tensor
    motion_ids: torch.Tensor
    caption_features: torch.Tensor | None = None

    def motion_of_text(self) -> torch.Tensor:
        """Return the row of the motion of each caption, (Bt,); raises ValueError if one is missing."""
        same = self.text_ids[:, None] == self.motion_ids[None, :]
        alone = ~same.any(dim=1)
        if alone.any():
            clip = int(self.text_ids[alone][0])
            raise ValueError(f"motion_ids: no motion of clip {clip} in the batch; pass the motion of every caption")
        return same.int().argmax(dim=1)


def pair_contrast(
    text: torch.Tensor,
    motion: torch.Tensor,
    pairs: Pairs,
    temperature: float | torch.Tensor,
    false_negative_threshold: float | None = None,
) -> torch.Tensor:
    """
    Compute InfoNCE of the pairs in both directions, this process's rows against the rows of all processes.

    Args:
        text, motion: (Bt, D) and (Bm, D), unit length.
        false_negative_threshold: see [`false_negatives`]; ignores none if it is None or without `caption_features`.
    """
    targets, ignored = same_clip(pairs.text_ids, pairs.motion_ids), None
    if pairs.caption_features is not None and false_negative_threshold is not None:
        ignored = false_negatives(pairs.caption_features, targets, false_negative_threshold)
    return symmetric_info_nce(text, motion, targets, ignored, temperature)


class LexicalReadout(nn.Module):
    """
    Weights of the active words from token states, through LexMotion's lexical head.

    Args:
        width: size of the states, which are first mapped to the word-embedding size; None for states of the text
            encoder, which the head reads directly.
    """

    def __init__(self, config: RetrieverConfig, width: int | None):
        super().__init__()
        size, self.projection = config.encoder_config.hidden_size, None
        if width is not None:
            # Text encoders end in a LayerNorm, and the head copied from one expects its output.
            self.projection = nn.Sequential(nn.Linear(width, size), nn.LayerNorm(size, eps=1e-6))
        self.head = LexicalHead(config, size)

    def scores(self, states: torch.Tensor, mask: torch.Tensor, word_embeddings: torch.Tensor) -> torch.Tensor:
        """Return pooled word scores before saturation (B, A), for (B, N, width), (B, N) and (V, E)."""
        if self.projection is not None:
            states = self.projection(states)
        return self.head.pool(states, mask, word_embeddings)[0]

    def forward(self, states: torch.Tensor, mask: torch.Tensor, word_embeddings: torch.Tensor) -> torch.Tensor:
        """Return word weights (B, A), for (B, N, width), (B, N) and (V, E)."""
        return self.head.weigh(self.scores(states, mask, word_embeddings)).float()


def _no_pooler(config: RetrieverConfig) -> dict[str, bool]:
    """Omit BERT's pooler, which is not used; DDP rejects weights without gradients."""
    kind = MODEL_FOR_TEXT_ENCODING_MAPPING[type(config.encoder_config)]
    pools = "add_pooling_layer" in inspect.signature(kind.__init__).parameters
    return {"add_pooling_layer": False} if pools else {}


class RetrieverModel(LexMotionPreTrainedModel):
    """
    Base of the baselines. A subclass implements `encode_text`, `encode_motion` and `losses`, and calls `post_init`.

    Args:
        text_width, motion_width: sizes of the states pooled by the lexical readouts, see [`LexicalReadout`]; only used
            by `representation="lexicon"`.
    """

    config: RetrieverConfig
    base_model_prefix = "retriever"
    main_input_name = "motion_values"
    input_modalities = ("motion", "text")
    supports_gradient_checkpointing = False

    def __init__(self, config: RetrieverConfig, text_width: int | None, motion_width: int):
        super().__init__(config)
        self.text_encoder = AutoModelForTextEncoding.from_config(config.encoder_config, **_no_pooler(config))
        self.text_readout = LexicalReadout(config, text_width) if config.is_lexical else None
        self.motion_readout = LexicalReadout(config, motion_width) if config.is_lexical else None
        self.words = None
        if config.is_lexical and not config.tie_word_embeddings:
            encoder = config.encoder_config
            self.words = nn.Linear(encoder.hidden_size, config.num_active_words or encoder.vocab_size, bias=False)
        self.train()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.text_encoder.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.text_encoder.set_input_embeddings(value)

    @property
    def word_embeddings(self) -> torch.Tensor:
        """(V, E), the text encoder's; if they are not tied, (A, E) of the active words only."""
        return self.get_input_embeddings().weight if self.words is None else self.words.weight

    @property
    def temperature(self) -> float | torch.Tensor:
        """Divisor of the cosines."""
        return self.config.temperature

    def train(self, mode: bool = True) -> Self:
        """Set the mode as in torch, but keep a frozen text encoder in evaluation mode, without dropout."""
        super().train(mode)
        if not self.config.train_text_encoder:
            self.text_encoder.eval().requires_grad_(False)  # `from_pretrained` makes all trainable
        return self

    def set_active_words(self, active_ids) -> None:
        """
        Restrict the lexical vectors to these vocabulary ids.

        Raises:
            ValueError: if ids are outside the vocabulary, the representation is dense, or the words are not tied.
        """
        if not self.config.is_lexical:
            raise ValueError("representation 'dense' has no words; build the model with representation=\"lexicon\"")
        if self.words is not None:
            raise ValueError(
                f"active_ids: this model has {self.words.out_features} untied word embeddings, one per active word; "
                "pass active_ids to from_text_pretrained"
            )
        heads = [self.text_readout.head, self.motion_readout.head]
        self._use_active_words(heads, [self.config, self.config], active_ids)

    @classmethod
    def from_text_pretrained(
        cls,
        path: str,
        config: RetrieverConfig,
        active_ids=None,
        added_words: Mapping[int, Sequence[int]] | None = None,
    ) -> Self:
        """
        Initialize a baseline from published text weights; all other weights are random.

        Args:
            path: local folder or Hub name of a text encoder; for lexical vectors, of a masked LM or sentence encoder
                of the BERT family, whose masked-LM head initializes both lexical heads.
            config: of the baseline; its `encoder_config` and `num_active_words` are replaced.
            active_ids: vocabulary ids of the lexical vectors, None for all; ignored by dense representations.
            added_words: words of the tokenizer that the weights do not have, see [`append_words`].
        """
        config = copy.deepcopy(config)
        if config.is_lexical:
            head_fields = {"head_kind": config.head_kind, "top_k": config.top_k}
            text = LexMotionTextModel.from_text_pretrained(path, active_ids, added_words, **head_fields)
            config.encoder_config = text.config.encoder_config
            config.num_active_words = text.config.num_active_words
            encoder, head = text.encoder, text.lexical_head.state_dict()
        else:
            config.encoder_config = AutoConfig.from_pretrained(path, trust_remote_code=False)
            config.num_active_words, head = None, None
            config.check_encoder()
            encoder = AutoModelForTextEncoding.from_pretrained(
                path, use_safetensors=True, trust_remote_code=False, **_no_pooler(config)
            )
            if added_words:
                append_words(encoder, added_words)
                config.encoder_config.vocab_size = encoder.config.vocab_size
        model = cls(config)  # type: ignore[call-arg]  # subclasses set the widths
        model.text_encoder.load_state_dict(encoder.state_dict())
        for readout in (model.text_readout, model.motion_readout):
            if readout is not None:
                readout.head.load_state_dict(head)
        if model.words is not None:  # of the same scale as the encoder's, so that the heads' scores keep their scale
            nn.init.normal_(model.words.weight, std=float(model.get_input_embeddings().weight.detach().std()))
        return model

    def text_states(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return the text encoder's last states (Bt, L, E) for (Bt, L) twice; those of padding are undefined."""

        def run(mask, ids):
            return self.text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state

        with torch.set_grad_enabled(torch.is_grad_enabled() and self.config.train_text_encoder):
            return by_length(run, attention_mask, input_ids)

    def encode_text(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Encoding:
        """Encode captions (Bt, L) with their mask (Bt, L)."""
        raise NotImplementedError

    def encode_motion(self, motion_values: torch.Tensor, motion_attention_mask: torch.Tensor) -> Encoding:
        """Encode motions (Bm, T, F), zero in the padding, with their mask (Bm, T)."""
        raise NotImplementedError

    def losses(self, text: Any, motion: Any, pairs: Pairs, values: torch.Tensor, mask: torch.Tensor) -> dict:
        """
        Return the baseline's own losses by their names in [`RetrieverOutput`], for the results of `encode_text` and
        `encode_motion` and the motions (Bm, T, F) and their mask (Bm, T).
        """
        raise NotImplementedError

    def _motion_inputs(self, values: torch.Tensor, mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Check motions, and return them with zeros in the padding and with a mask."""
        check_motion_values(values, self.config.num_features, self.config.num_frames, self.config.num_frames)
        if mask is None:
            return values, torch.ones(values.shape[:2], dtype=torch.int64, device=values.device)
        return values.masked_fill(~mask.bool()[..., None], 0.0), mask

    def _spread(self, embeds: torch.Tensor) -> torch.Tensor:
        """Return (B, V) for (B, A) if the representation is lexical; dense embeddings unchanged."""
        return self.text_readout.head.scatter(embeds) if self.config.is_lexical else embeds

    def get_text_features(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None):
        """Return embeds (Bt, D or V) for (Bt, L), to be compared by cosine."""
        attention_mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        return self._spread(self.encode_text(input_ids, attention_mask).embeds)

    def get_motion_features(self, motion_values: torch.Tensor, motion_attention_mask: torch.Tensor | None = None):
        """Return embeds (Bm, D or V) for (Bm, T, F), to be compared by cosine."""
        return self._spread(self.encode_motion(*self._motion_inputs(motion_values, motion_attention_mask)).embeds)

    def forward(
        self,
        input_ids: torch.LongTensor,
        motion_values: torch.FloatTensor,
        attention_mask: torch.Tensor | None = None,
        motion_attention_mask: torch.Tensor | None = None,
        text_clip_ids: torch.LongTensor | None = None,
        motion_clip_ids: torch.LongTensor | None = None,
        caption_features: torch.FloatTensor | None = None,
        return_loss: bool | None = None,
        **kwargs,
    ) -> RetrieverOutput:
        """
        Score captions and motions.

        Args:
            input_ids, attention_mask: (Bt, L).
            motion_values, motion_attention_mask: (Bm, T, F) and (Bm, T).
            text_clip_ids, motion_clip_ids: (Bt,) and (Bm,), the clip of each row; by default, row i is paired with row
                i.
            caption_features: (Bt, d) unit sentence vectors; pairs above `false_negative_threshold` are not negatives.
            return_loss: also return the losses.
            kwargs: other entries of LexMotion's batches, ignored.
        """
        attention_mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        values, mask = self._motion_inputs(motion_values, motion_attention_mask)
        text = self.encode_text(input_ids, attention_mask)
        motion = self.encode_motion(values, mask)
        logits = cosine(text.embeds) @ cosine(motion.embeds).T / self.temperature  # (Bt, Bm)
        parts = {}
        if return_loss:
            clips = paired_clip_ids(logits.shape, text_clip_ids, motion_clip_ids, logits.device)
            pairs = Pairs(*clips, caption_features)
            parts = self.losses(text, motion, pairs, values, mask)
            if self.config.is_lexical:
                parts |= {"text_flops_loss": flops(text.embeds), "motion_flops_loss": flops(motion.embeds)}
            weights = self.config.loss_weights
            parts["loss"] = sum(weights.get(name, 0.0) * part for name, part in parts.items())
        return RetrieverOutput(
            **parts,
            logits_per_text=logits,
            logits_per_motion=logits.T,
            text_embeds=self._spread(text.embeds),
            motion_embeds=self._spread(motion.embeds),
        )
