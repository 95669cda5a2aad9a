"""
TEMOS (Petrovich, Black and Varol, ECCV 2022): captions and motions as distributions in one latent space, from which
one decoder reconstructs the motion. There is no contrast: pairs meet because both latents must decode to the same
motion.

Encoders and decoder follow ACTOR (Petrovich et al., ICCV 2021): learned tokens read mean and log-variance from a
transformer, and the decoder queries each frame by its position. Captions are states of a frozen text encoder.

With `representation="lexicon"` the encoders' states enter the lexical head instead of the two tokens. The lexical
vector then replaces the latent: the decoder reads the unit vector's mixture of word embeddings, and there is no
distribution to sample and no divergence.
"""

from dataclasses import dataclass
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import initialization as init

from ..layers_lexmotion import sinusoids
from ..losses_lexmotion import cosine, global_mean
from .retriever import Encoding, LexicalReadout, Pairs, RetrieverConfig, RetrieverModel

LOSS_WEIGHTS = {
    "text_reconstruction_loss": 1.0,
    "motion_reconstruction_loss": 1.0,
    "kl_loss": 1e-5,
    "latent_loss": 1e-5,
}


@strict
class TemosConfig(RetrieverConfig):
    r"""
    Configuration of [`TemosModel`]; the published sizes and loss weights by default.

    Args:
        num_hidden_layers, num_attention_heads, intermediate_size, hidden_dropout: of each encoder and the decoder,
            whose width is `latent_size`.
    """

    model_type = "lexmotion_temos"

    train_text_encoder: bool = False
    num_hidden_layers: int = 6
    num_attention_heads: int = 4
    intermediate_size: int = 1024
    hidden_dropout: float | int = 0.1

    def __post_init__(self, **kwargs):
        self.loss_weights = self.loss_weights or LOSS_WEIGHTS
        super().__post_init__(**kwargs)
        if self.latent_size % self.num_attention_heads:
            heads = self.num_attention_heads
            raise ValueError(f"latent_size: got {self.latent_size}; pass a multiple of num_attention_heads ({heads})")


@dataclass
class LatentEncoding(Encoding):
    """
    Encoding with a latent.

    Args:
        latent: (B, D), input of the decoder: a sample in training, otherwise the mean.
        mean, log_variance: (B, D) of the normal distribution; None in the lexical representation.
    """

    latent: torch.Tensor
    mean: torch.Tensor | None = None
    log_variance: torch.Tensor | None = None


def _layer_fields(config: TemosConfig) -> dict[str, Any]:
    """Return the arguments of all transformer layers."""
    return {
        "d_model": config.latent_size,
        "nhead": config.num_attention_heads,
        "dim_feedforward": config.intermediate_size,
        "dropout": config.hidden_dropout,
        "activation": "gelu",
        "batch_first": True,
    }


class ActorEncoder(nn.Module):
    """
    A transformer over learned tokens and a sequence.

    Args:
        num_inputs: width of the sequence.
        num_tokens: learned tokens: 2 to read a distribution, 0 for a lexical head.
    """

    def __init__(self, config: TemosConfig, num_inputs: int, num_tokens: int):
        super().__init__()
        self.projection = nn.Linear(num_inputs, config.latent_size)
        self.tokens = nn.Parameter(torch.zeros(num_tokens, config.latent_size)) if num_tokens else None
        self.dropout = nn.Dropout(config.hidden_dropout)
        layer = nn.TransformerEncoderLayer(**_layer_fields(config))
        self.transformer = nn.TransformerEncoder(layer, config.num_hidden_layers, enable_nested_tensor=False)

    def forward(self, inputs: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode (B, N, num_inputs) with mask (B, N): states of tokens (B, num_tokens, D) and sequence (B, N, D)."""
        states, read = self.projection(inputs), mask.bool()
        count = 0
        if self.tokens is not None:
            count = len(self.tokens)
            states = torch.cat([self.tokens.expand(len(states), -1, -1), states], dim=1)
            read = nn.functional.pad(read, (count, 0), value=True)
        states = self.dropout(states + sinusoids(*states.shape[1:]).to(states))
        states = self.transformer(states, src_key_padding_mask=~read)
        return states[:, :count], states[:, count:]


class ActorDecoder(nn.Module):
    """Latent -> motion: each frame is a query made of its position, which attends only to the latent."""

    def __init__(self, config: TemosConfig):
        super().__init__()
        self.dropout = nn.Dropout(config.hidden_dropout)
        layer = nn.TransformerDecoderLayer(**_layer_fields(config))
        self.transformer = nn.TransformerDecoder(layer, config.num_hidden_layers)
        self.projection = nn.Linear(config.latent_size, config.num_features)

    def forward(self, latent: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Decode (B, D) to motion values (B, T, F), for the mask of frames (B, T)."""
        positions = sinusoids(mask.shape[1], latent.shape[1]).to(latent).expand(len(latent), -1, -1)
        queries, padding = self.dropout(positions), ~mask.bool()
        return self.projection(self.transformer(queries, latent[:, None], tgt_key_padding_mask=padding))  # (B, T, F)


def kl_divergence(mean, log_variance, other_mean, other_log_variance) -> torch.Tensor:
    """Return KL(N(mean, variance) || N(other)) per dimension, in the common shape of the tensors."""
    gap = log_variance - other_log_variance
    distance = (mean - other_mean).square() * (-other_log_variance).exp()
    return 0.5 * (gap.exp() + distance - 1.0 - gap)


def masked_smooth_l1(values: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the mean smooth L1 distance over the features of real frames, for (B, T, F) twice and (B, T)."""
    distance = nn.functional.smooth_l1_loss(values.float(), targets, reduction="none").sum(dim=-1)
    return global_mean((distance * mask).sum(), mask.sum() * targets.shape[-1])


class TemosModel(RetrieverModel):
    """
    Variational encoders of caption and motion with a common motion decoder. Retrieval compares the means.

        mu, sigma = encoder(caption or motion);  z ~ N(mu, sigma);  motion' = decoder(z)
        L = smoothL1(decoder(z_t)) + smoothL1(decoder(z_m)) + 1e-5 smoothL1(z_t, z_m)
            + 1e-5 (KL(t|m) + KL(m|t) + KL(t|N) + KL(m|N))

    Example:

    ```python
    >>> from lexmotion.baselines.temos import TemosConfig, TemosModel
    >>> encoder = {"model_type": "distilbert", "vocab_size": 99, "dim": 32, "n_layers": 1, "n_heads": 2,
    ...            "hidden_dim": 64}
    >>> model = TemosModel(TemosConfig(encoder_config=encoder, latent_size=16, num_hidden_layers=1)).eval()
    >>> model.get_motion_features(torch.randn(2, 40, 263)).shape
    torch.Size([2, 16])

    ```
    """

    config: TemosConfig

    def __init__(self, config: TemosConfig):
        super().__init__(config, text_width=config.latent_size, motion_width=config.latent_size)
        num_tokens = 0 if config.is_lexical else 2
        self.text_head = ActorEncoder(config, config.encoder_config.hidden_size, num_tokens)
        self.motion_encoder = ActorEncoder(config, config.num_features, num_tokens)
        self.motion_decoder = ActorDecoder(config)
        if config.is_lexical:
            self.words_to_latent = nn.Linear(config.encoder_config.hidden_size, config.latent_size)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module):
        if isinstance(module, nn.Linear):
            module.reset_parameters()  # torch's, as published; with smaller weights all latents start equal
            return
        super()._init_weights(module)
        if isinstance(module, ActorEncoder) and module.tokens is not None:
            init.normal_(module.tokens)

    def _encode(
        self, encoder: ActorEncoder, readout: LexicalReadout | None, inputs: torch.Tensor, mask: torch.Tensor
    ) -> LatentEncoding:
        tokens, states = encoder(inputs, mask)
        if readout is not None:
            weights = readout(states, mask, self.word_embeddings)  # (B, A)
            # As in the lexicon bottleneck, gradients change the choice of words, not their embeddings.
            rows = readout.head.active_rows(self.word_embeddings).detach()
            return LatentEncoding(weights, self.words_to_latent(cosine(weights).to(rows.dtype) @ rows))
        mean, log_variance = tokens.float().unbind(dim=1)
        latent = mean
        if self.training:
            latent = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        return LatentEncoding(latent, latent, mean, log_variance)

    def encode_text(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> LatentEncoding:
        states = self.text_states(input_ids, attention_mask)
        return self._encode(self.text_head, self.text_readout, states, attention_mask)

    def encode_motion(self, motion_values: torch.Tensor, motion_attention_mask: torch.Tensor) -> LatentEncoding:
        return self._encode(self.motion_encoder, self.motion_readout, motion_values, motion_attention_mask)

    def losses(
        self, text: LatentEncoding, motion: LatentEncoding, pairs: Pairs, values: torch.Tensor, mask: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        own = pairs.motion_of_text()  # (Bt,)
        latent = motion.latent[own]
        distance = nn.functional.smooth_l1_loss(text.latent.float(), latent.float(), reduction="sum")
        from_text = self.motion_decoder(text.latent, mask[own])
        parts = {
            "text_reconstruction_loss": masked_smooth_l1(from_text, values[own], mask[own]),
            "motion_reconstruction_loss": masked_smooth_l1(self.motion_decoder(motion.latent, mask), values, mask),
            "latent_loss": global_mean(distance, latent.numel()),
        }
        if text.mean is not None and motion.mean is not None:
            t = (text.mean, text.log_variance)
            m = (motion.mean[own], motion.log_variance[own])
            normal = (torch.zeros_like(text.mean), torch.zeros_like(text.mean))
            divergence = sum(kl_divergence(*p, *q) for p, q in ((t, m), (m, t), (t, normal), (m, normal)))
            parts["kl_loss"] = global_mean(divergence.sum(), divergence.numel())
        return parts
