"""
What every baseline shares: a text encoder, motions, and vectors of both compared by their cosine.

A baseline says how a caption and a motion become an `Encoding` and which losses it is trained with; this file does the
rest, so that the rows of a table differ by their models alone. Each comes in two representations: `"dense"`, as
published, and `"lexicon"` (the paper's dagger rows), where the same tower ends in LexMotion's lexical head over the
text encoder's word embeddings and the lexical vector takes the place of the dense one.

Letters in shape comments: Bt captions and Bm motions of a batch, L text tokens, T frames, F motion features, D latent
size, E word-embedding size, V vocabulary, A active words.
"""

import copy
import inspect
from dataclasses import dataclass
from typing import Any, Self

import torch
from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import MODEL_FOR_TEXT_ENCODING_MAPPING, AutoConfig, AutoModelForTextEncoding
from transformers.configuration_utils import PreTrainedConfig, SubConfigSpec
from transformers.utils import ModelOutput

from ..configuration_lexmotion import HEAD_KINDS
from ..layers_lexmotion import by_length, check_motion_values
from ..lexical_head import LexicalHead
from ..losses_lexmotion import cosine, false_negatives, flops, paired_clip_ids, same_clip, symmetric_info_nce
from ..modeling_lexmotion import LexMotionPreTrainedModel, LexMotionTextModel

REPRESENTATIONS = ("dense", "lexicon")
LEXICAL_ENCODERS = ("bert", "distilbert")  # WordPiece words and a masked-LM head that names them


@dataclass
class RetrieverOutput(ModelOutput):
    """
    Args:
        loss (): the parts below, weighted by the configuration's `loss_weights`.
        contrastive_loss (): InfoNCE, both directions. margin_loss (): pairs near, strangers a margin apart.
        text_reconstruction_loss, motion_reconstruction_loss (): motions decoded from captions and from motions.
        kl_loss, latent_loss (): distance between the distributions and between the latents of a pair.
        text_flops_loss, motion_flops_loss (): FLOPS of the lexical vectors; the trainer ramps their weight.
        logits_per_text (Bt, Bm), logits_per_motion (Bm, Bt): cosine over temperature, this process's pairs.
        text_embeds (Bt, D or V), motion_embeds (Bm, D or V): what retrieval compares, not normalised.
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
        encoder_config (`dict` or `PreTrainedConfig`):
            The text encoder, DistilBERT sizes when left out; any of `AutoModelForTextEncoding`, T5 encoders too, but
            `bert` or `distilbert` where vectors are lexical.
        train_text_encoder (`bool`): whether the text encoder is trained; a frozen one stays in evaluation mode.
        num_features (`int`): width F of `motion_values` (B, T, F).
        num_frames (`int`): longest motion in frames.
        latent_size (`int`): width D of the dense embeddings.
        representation (`str`): `"dense"`, or `"lexicon"`: a vector over the words of the text encoder.
        num_active_words, head_kind, top_k: of the lexical heads, as in [`LexMotionTextConfig`].
        tie_word_embeddings (`bool`):
            Whether the lexical heads score words by the text encoder's embeddings; False: by random ones of their own,
            which shows what it is worth that the words were near each other before any motion was seen.
        temperature (`float`): divides the cosines.
        false_negative_threshold (`float`, *optional*):
            Pairs whose captions' sentence vectors have a cosine above it are no negatives; None keeps them all.
        loss_weights (`dict[str, float]`, *optional*):
            Weight of each named loss in `loss`; a loss without a weight counts nothing there.
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
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        if self.representation not in REPRESENTATIONS:
            raise ValueError(f"representation must be one of {REPRESENTATIONS}, got {self.representation!r}")
        self.check_encoder()
        if self.head_kind not in HEAD_KINDS:
            raise ValueError(f"head_kind must be one of {HEAD_KINDS}, got {self.head_kind!r}")
        if self.temperature <= 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")
        self.loss_weights = dict(self.loss_weights or {"contrastive_loss": 1.0})
        unknown = sorted(set(self.loss_weights) - set(LOSSES))
        if unknown:
            raise ValueError(f"loss_weights names no loss: {', '.join(unknown)}; known are {', '.join(LOSSES)}")

    @property
    def vocab_size(self) -> int:
        return self.encoder_config.vocab_size

    @property
    def head_act(self) -> str:
        """Activation of the lexical heads, the text encoder's own."""
        return getattr(self.encoder_config, "hidden_act", None) or self.encoder_config.activation

    @property
    def is_lexical(self) -> bool:
        return self.representation == "lexicon"

    def check_encoder(self) -> None:
        """Raise ValueError where no baseline can be built on the text encoder."""
        kind = self.encoder_config.model_type
        if self.is_lexical and kind not in LEXICAL_ENCODERS:
            raise ValueError(
                f"lexical vectors need a text encoder of model type {' or '.join(LEXICAL_ENCODERS)}, got {kind!r}"
            )
        if type(self.encoder_config) not in MODEL_FOR_TEXT_ENCODING_MAPPING:
            raise ValueError(f"the text encoder must be one of AutoModelForTextEncoding's, got model type {kind!r}")


@dataclass
class Encoding:
    """
    What a tower says of its inputs; baselines add fields for their losses.

    Args:
        embeds: (B, D), or (B, A) non-negative weights of the active words.
    """

    embeds: torch.Tensor


@dataclass
class Pairs:
    """
    Which caption describes which motion of a batch.

    Args:
        text_ids: (Bt,) and motion_ids: (Bm,) clip of every row. caption_features: (Bt, d) unit sentence vectors.
    """

    text_ids: torch.Tensor
    motion_ids: torch.Tensor
    caption_features: torch.Tensor | None = None

    def motion_of_text(self) -> torch.Tensor:
        """(Bt,) row of the motion that each caption describes.

        Raises:
            ValueError: a caption's clip is not among the motions.
        """
        same = self.text_ids[:, None] == self.motion_ids[None, :]
        alone = ~same.any(dim=1)
        if alone.any():
            raise ValueError(
                f"the batch has no motion of clip {int(self.text_ids[alone][0])}; give the motion of every caption"
            )
        return same.int().argmax(dim=1)


def pair_contrast(
    text: torch.Tensor,
    motion: torch.Tensor,
    pairs: Pairs,
    temperature: float | torch.Tensor,
    false_negative_threshold: float | None = None,
) -> torch.Tensor:
    """
    InfoNCE of the pairs in both directions, this process's rows against the rows of all.

    Args:
        text: (Bt, D) and motion: (Bm, D), unit length.
        false_negative_threshold: see [`false_negatives`]; with `None`, or without `caption_features`, there are none.
    """
    targets, ignored = same_clip(pairs.text_ids, pairs.motion_ids), None
    if pairs.caption_features is not None and false_negative_threshold is not None:
        ignored = false_negatives(pairs.caption_features, targets, false_negative_threshold)
    return symmetric_info_nce(text, motion, targets, ignored, temperature)


class LexicalReadout(nn.Module):
    """
    Token states -> weights of the active words, through LexMotion's head.

    Args:
        width: of the states, which are mapped to the word-embedding size first; None: they are the text encoder's own,
            which the head reads as they are.
    """

    def __init__(self, config: RetrieverConfig, width: int | None):
        super().__init__()
        encoder = config.encoder_config
        self.projection = None
        if width is not None:
            # A text state leaves its encoder through a LayerNorm; the copied head expects these to do so too.
            self.projection = nn.Sequential(
                nn.Linear(width, encoder.hidden_size), nn.LayerNorm(encoder.hidden_size, eps=1e-6)
            )
        self.head = LexicalHead(config, encoder.hidden_size)

    def scores(self, states: torch.Tensor, mask: torch.Tensor, word_embeddings: torch.Tensor) -> torch.Tensor:
        """(B, N, width), (B, N), (V, E) -> pooled word scores before saturation (B, A)."""
        if self.projection is not None:
            states = self.projection(states)
        return self.head.pool(states, mask, word_embeddings)[0]

    def forward(self, states: torch.Tensor, mask: torch.Tensor, word_embeddings: torch.Tensor) -> torch.Tensor:
        """(B, N, width), (B, N), (V, E) -> word weights (B, A)."""
        return self.head.weigh(self.scores(states, mask, word_embeddings)).float()


def _no_pooler(config: RetrieverConfig) -> dict[str, bool]:
    """Nobody reads BERT's pooled state, and weights without a gradient would worry DDP."""
    kind = MODEL_FOR_TEXT_ENCODING_MAPPING[type(config.encoder_config)]
    pools = "add_pooling_layer" in inspect.signature(kind.__init__).parameters
    return {"add_pooling_layer": False} if pools else {}


class RetrieverModel(LexMotionPreTrainedModel):
    """
    Base of the baselines. A subclass implements `encode_text`, `encode_motion` and `losses`, and calls `post_init`.

    Args:
        text_width, motion_width: of the token states that the lexical readouts pool, see [`LexicalReadout`]; read by
            `representation="lexicon"` alone.
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
        """(V, E), the text encoder's; (A, E), those of the active words alone, where they are not tied."""
        return self.get_input_embeddings().weight if self.words is None else self.words.weight

    @property
    def temperature(self) -> float | torch.Tensor:
        """What the cosines are divided by."""
        return self.config.temperature

    def train(self, mode: bool = True) -> Self:
        """As in torch, but a frozen text encoder stays frozen, its dropouts off."""
        super().train(mode)
        if not self.config.train_text_encoder:
            self.text_encoder.eval().requires_grad_(False)  # here too: `from_pretrained` makes all weights trainable
        return self

    def set_active_words(self, active_ids) -> None:
        """Restrict the lexical vectors to these vocabulary ids.

        Raises:
            ValueError: ids outside the vocabulary, the representation is dense, or the words are not tied.
        """
        if not self.config.is_lexical:
            raise ValueError('a dense representation has no words; build the model with representation="lexicon"')
        if self.words is not None:
            raise ValueError(
                f"this model has {self.words.out_features} word embeddings of its own, which belong to its active "
                "words; give active_ids to from_text_pretrained"
            )
        heads = [self.text_readout.head, self.motion_readout.head]
        self._use_active_words(heads, [self.config, self.config], active_ids)

    @classmethod
    def from_text_pretrained(cls, path: str, config: RetrieverConfig, active_ids=None) -> Self:
        """
        A baseline on published text weights; the rest is random.

        Args:
            path: local folder or Hub name of a text encoder; where vectors are lexical, of a masked LM or sentence
                encoder of the BERT family, whose masked-LM head starts both lexical heads.
            config: of the baseline; its `encoder_config` and `num_active_words` are replaced.
            active_ids: vocabulary ids of the lexical vectors, all when None; not read by a dense representation.
        """
        config = copy.deepcopy(config)
        if config.is_lexical:
            text = LexMotionTextModel.from_text_pretrained(
                path, active_ids, head_kind=config.head_kind, top_k=config.top_k
            )
            config.encoder_config = text.config.encoder_config
            config.num_active_words = text.config.num_active_words
            encoder, head = text.encoder, text.lexical_head.state_dict()
        else:
            config.encoder_config = AutoConfig.from_pretrained(path)
            config.num_active_words, head = None, None
            config.check_encoder()
            encoder = AutoModelForTextEncoding.from_pretrained(path, use_safetensors=True, **_no_pooler(config))
        model = cls(config)  # type: ignore[call-arg]  # a baseline knows its widths
        model.text_encoder.load_state_dict(encoder.state_dict())
        for readout in (model.text_readout, model.motion_readout):
            if readout is not None:
                readout.head.load_state_dict(head)
        if model.words is not None:  # as long as those they stand for: the heads' scores keep their scale
            nn.init.normal_(model.words.weight, std=float(model.get_input_embeddings().weight.detach().std()))
        return model

    def text_states(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """(Bt, L), (Bt, L) -> the text encoder's last states (Bt, L, E); those of padding mean nothing."""

        def run(mask, ids):
            return self.text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state

        with torch.set_grad_enabled(torch.is_grad_enabled() and self.config.train_text_encoder):
            return by_length(run, attention_mask, input_ids)

    def encode_text(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Encoding:
        """(Bt, L), (Bt, L) -> the captions' encoding."""
        raise NotImplementedError

    def encode_motion(self, motion_values: torch.Tensor, motion_attention_mask: torch.Tensor) -> Encoding:
        """(Bm, T, F), (Bm, T) -> the motions' encoding. What stands in the padding is zero."""
        raise NotImplementedError

    def losses(self, text: Any, motion: Any, pairs: Pairs, values: torch.Tensor, mask: torch.Tensor) -> dict:
        """
        The baseline's own losses by their names in [`RetrieverOutput`].

        Args:
            text, motion: what `encode_text` and `encode_motion` returned. values, mask: (Bm, T, F), (Bm, T).
        """
        raise NotImplementedError

    def _motion_inputs(self, values: torch.Tensor, mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Checked, with a mask, and zero in the padding."""
        check_motion_values(values, self.config.num_features, self.config.num_frames, self.config.num_frames)
        if mask is None:
            return values, torch.ones(values.shape[:2], dtype=torch.int64, device=values.device)
        return values.masked_fill(~mask.bool()[..., None], 0.0), mask

    def _spread(self, embeds: torch.Tensor) -> torch.Tensor:
        """(B, A) -> (B, V) where the representation is lexical."""
        return self.text_readout.head.scatter(embeds) if self.config.is_lexical else embeds

    def get_text_features(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None):
        """(Bt, L) -> embeds (Bt, D or V), to be compared by cosine."""
        attention_mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        return self._spread(self.encode_text(input_ids, attention_mask).embeds)

    def get_motion_features(self, motion_values: torch.Tensor, motion_attention_mask: torch.Tensor | None = None):
        """(Bm, T, F) -> embeds (Bm, D or V), to be compared by cosine."""
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
        Args:
            input_ids, attention_mask: (Bt, L). motion_values, motion_attention_mask: (Bm, T, F), (Bm, T).
            text_clip_ids: (Bt,) and motion_clip_ids: (Bm,) say which clip a row belongs to; row i with row i when
                left out.
            caption_features: (Bt, d) unit sentence vectors; pairs above `false_negative_threshold` are no negatives.
            return_loss: also return the losses.
            kwargs: what else LexMotion's batches hold; not read.
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
