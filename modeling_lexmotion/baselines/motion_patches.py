"""
MotionPatches: a motion as a picture of its body parts, encoded by a ViT (Yu et al., CVPR 2024).

    picture = joints of each kinematic chain resampled to 16 columns;  tokens = ViT(16 x 16 patches of the picture)
    motion = head(mean tokens);  text = head([CLS]);  L = InfoNCE, both directions, learned temperature

Unlike in the paper, windows without a real frame are not tokens; the paper's ViT reads zeros up to 224 frames.
"""

import math

import torch
from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.masking_utils import create_bidirectional_mask

from ..layers_lexmotion import masked_mean, vit_layers
from ..losses_lexmotion import cosine
from .retriever import LEXICAL_ENCODERS, Encoding, Pairs, RetrieverConfig, RetrieverModel, pair_contrast

HUMANML3D_CHAINS = (
    (0, 2, 5, 8, 11),  # right leg
    (0, 1, 4, 7, 10),  # left leg
    (0, 3, 6, 9, 12, 15),  # torso and head
    (9, 14, 17, 19, 21),  # right arm
    (9, 13, 16, 18, 20),  # left arm
)
TEXT_POOLINGS = ("cls", "mean")
LOWEST_TEMPERATURE = 0.01  # as in CLIP


@strict
class MotionPatchesConfig(RetrieverConfig):
    r"""
    Configuration of [`MotionPatchesModel`]; by default the paper's for HumanML3D, with a ViT-B.

    Args:
        num_features: 3 coordinates per joint, joint by joint: 66 for HumanML3D, 63 for KIT-ML; the processor's
            representation is `positions`, which normalizes each coordinate.
        chains: joints of each body part, from the body outwards; None for the five chains of HumanML3D.
        patch_size: frames per patch, and columns to which each chain is resampled.
        hidden_size, num_hidden_layers, num_attention_heads, intermediate_size: of the ViT.
        hidden_act: activation of the ViT and of the projection heads.
        hidden_dropout, attention_dropout, drop_path_rate: regularization of the ViT, training only.
        text_pooling: caption state of the dense representation: `"cls"`, as published, or `"mean"` of the tokens, for
            which sentence encoders are trained. T5 has no [CLS] and always uses the mean.
        projection_dropout: dropout of the projection heads, training only; 0.5 for HumanML3D, 0 for KIT-ML.
        temperature: initial value of the learned temperature.
    """

    model_type = "lexmotion_motion_patches"

    num_features: int = 66
    num_frames: int = 224
    temperature: float = 0.07
    chains: list | tuple | None = None
    patch_size: int = 16
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout: float | int = 0.0
    attention_dropout: float | int = 0.0
    drop_path_rate: float | int = 0.0
    text_pooling: str = "cls"
    projection_dropout: float | int = 0.5
    layer_norm_eps: float = 1e-6

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        if self.text_pooling not in TEXT_POOLINGS:
            raise ValueError(f"text_pooling: got {self.text_pooling!r}; pass one of {TEXT_POOLINGS}")
        self.chains = [list(chain) for chain in (HUMANML3D_CHAINS if self.chains is None else self.chains)]
        if self.num_features % 3:
            raise ValueError(
                f"num_features: got {self.num_features}, not a multiple of 3; prepare motions with representation "
                "positions (3 coordinates per joint)"
            )
        joints = {joint for chain in self.chains for joint in chain}
        if not joints or not all(self.chains) or not joints <= set(range(self.num_joints)):
            raise ValueError(
                f"chains: got {self.chains}; pass non-empty lists of joints in 0..{self.num_joints - 1} (num_features="
                f"{self.num_features})"
            )
        if self.hidden_size % self.num_attention_heads:
            heads = self.num_attention_heads
            raise ValueError(f"hidden_size: got {self.hidden_size}; pass a multiple of num_attention_heads ({heads})")

    @property
    def num_joints(self) -> int:
        return self.num_features // 3

    @property
    def num_windows(self) -> int:
        """Time windows of the longest motion, rounded up."""
        return -(-self.num_frames // self.patch_size)


def chain_resampling(chains: list[list[int]], num_joints: int, columns: int) -> torch.Tensor:
    """
    Return the linear interpolation along each chain, from first to last joint, as one matrix (chains * columns, J).

    Args:
        chains: joints of each chain, in 0..num_joints - 1.
        columns: points per chain.
    """
    joints = torch.eye(num_joints)
    blocks = []
    for chain in chains:
        points = torch.arange(columns) * ((len(chain) - 1) / max(columns - 1, 1))
        hats = (1.0 - (points[:, None] - torch.arange(len(chain))).abs()).clamp(min=0.0)  # (columns, joints of it)
        blocks.append(hats @ joints[chain])
    return torch.cat(blocks)


class MotionPatchEmbeddings(nn.Module):
    """Joint positions -> patches of the picture -> tokens: one map for all patches, position embeddings, and [CLS]."""

    resampling: torch.Tensor

    def __init__(self, config: MotionPatchesConfig):
        super().__init__()
        self.config = config
        size, tokens = config.patch_size, config.num_windows * len(config.chains)
        self.register_buffer("resampling", self.resampling_matrix(), persistent=False)
        self.projection = nn.Linear(3 * size * size, config.hidden_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.position_embeddings = nn.Parameter(torch.zeros(1, tokens + 1, config.hidden_size))

    def resampling_matrix(self) -> torch.Tensor:
        """Return the resampling of the configuration's chains, (Np * P, J)."""
        return chain_resampling(self.config.chains, self.config.num_joints, self.config.patch_size)

    def reset_parameters(self) -> None:
        """Draw normal positions and [CLS]; the resampling is no weight but follows from the configuration."""
        init.copy_(self.resampling, self.resampling_matrix())
        init.normal_(self.cls_token, std=self.config.initializer_range)
        init.normal_(self.position_embeddings, std=self.config.initializer_range)

    def patches(self, motion_values: torch.Tensor) -> torch.Tensor:
        """
        Cut (B, T, 3 J), T a multiple of the patch size P, into patches (B, Nt, Np, 3 P P), flattened as by a
        convolution over a picture: coordinate, frame, column.
        """
        rows, frames, _ = motion_values.shape
        size = self.config.patch_size
        joints = motion_values.view(rows, frames, -1, 3)  # (B, T, J, 3)
        picture = torch.einsum("kj,btjc->btkc", self.resampling.to(joints.dtype), joints)  # (B, T, Np P, 3)
        windows = picture.view(rows, frames // size, size, -1, size, 3)  # (B, Nt, frame, Np, column, 3)
        return windows.permute(0, 1, 3, 5, 2, 4).flatten(3)

    def forward(self, motion_values: torch.Tensor, frame_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return tokens (B, 1 + Nt Np, D), time-major, and their mask, for zero-padded (B, T, 3 J) and (B, T)."""
        size = self.config.patch_size
        missing = -motion_values.shape[1] % size
        patches = self.patches(nn.functional.pad(motion_values, (0, 0, 0, missing)))  # (B, Nt, Np, 3 P P)
        tokens = self.projection(patches.flatten(1, 2).to(self.cls_token.dtype))  # (B, Nt Np, D)
        tokens = torch.cat([self.cls_token.expand(tokens.shape[0], -1, -1), tokens], dim=1)
        real = nn.functional.pad(frame_mask.bool(), (0, missing)).unflatten(1, (-1, size)).any(dim=-1)  # (B, Nt)
        real = nn.functional.pad(real.repeat_interleave(patches.shape[2], dim=1), (1, 0), value=True)
        return tokens + self.position_embeddings[:, : tokens.shape[1]], real


class MotionPatchesEncoder(nn.Module):
    """A ViT over the patches: pre-LayerNorm blocks and a final LayerNorm."""

    def __init__(self, config: MotionPatchesConfig):
        super().__init__()
        self.config = config
        self.embeddings = MotionPatchEmbeddings(config)
        last = max(config.num_hidden_layers - 1, 1)
        rates = [config.drop_path_rate * layer / last for layer in range(config.num_hidden_layers)]
        self.layers = vit_layers(config, rates)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, motion_values: torch.Tensor, frame_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return states (B, 1 + N, D), [CLS] first, and their mask (B, 1 + N), for (B, T, 3 J) and (B, T)."""
        tokens, real = self.embeddings(motion_values, frame_mask)
        attention_mask = create_bidirectional_mask(self.config, inputs_embeds=tokens, attention_mask=real)
        for layer in self.layers:
            tokens = layer(tokens, attention_mask)
        return self.norm(tokens), real


class ProjectionHead(nn.Module):
    """Pooled state of a tower -> shared space: y = W x, then LayerNorm(y + dropout(V act(y)))."""

    def __init__(self, config: MotionPatchesConfig, width: int):
        super().__init__()
        self.projection = nn.Linear(width, config.latent_size)
        self.activation = ACT2FN[config.hidden_act]
        self.residual = nn.Linear(config.latent_size, config.latent_size)
        self.dropout = nn.Dropout(config.projection_dropout)
        self.norm = nn.LayerNorm(config.latent_size)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """(B, width) -> (B, latent_size)."""
        projected = self.projection(pooled)
        return self.norm(projected + self.dropout(self.residual(self.activation(projected))))


class MotionPatchesModel(RetrieverModel):
    """
    A ViT over body-part patches and a text encoder, aligned as in CLIP.

    Reads joint positions, (B, T, 3 J) in the order of the joints, normalized by the processor. In the lexical
    representation all tokens contribute words; the dense one uses the mean of the patches and the caption's [CLS] or
    mean.

    Example:

    ```python
    >>> encoder = {"model_type": "distilbert", "vocab_size": 99, "dim": 32, "n_layers": 1, "n_heads": 2}
    >>> config = MotionPatchesConfig(encoder_config=encoder, hidden_size=32, num_hidden_layers=1,
    ...                              num_attention_heads=2, intermediate_size=64)
    >>> MotionPatchesModel(config).get_motion_features(torch.randn(2, 40, 66)).shape
    torch.Size([2, 256])

    ```
    """

    config: MotionPatchesConfig

    def __init__(self, config: MotionPatchesConfig):
        super().__init__(config, text_width=None, motion_width=config.hidden_size)
        self.motion_encoder = MotionPatchesEncoder(config)
        if not config.is_lexical:
            self.text_projection = ProjectionHead(config, config.encoder_config.hidden_size)
            self.motion_projection = ProjectionHead(config, config.hidden_size)
        self.logit_scale = nn.Parameter(torch.zeros(()))
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, MotionPatchEmbeddings):
            module.reset_parameters()
        elif isinstance(module, MotionPatchesModel):
            init.constant_(module.logit_scale, -math.log(self.config.temperature))

    @property
    def temperature(self) -> torch.Tensor:
        """The learned temperature, exp(-logit_scale), at least 0.01."""
        return torch.exp(-self.logit_scale).clamp(min=LOWEST_TEMPERATURE)

    def pooled_text(self, states: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Pool (Bt, L, E) to (Bt, E) according to `text_pooling`."""
        if self.config.text_pooling == "cls" and self.config.encoder_config.model_type in LEXICAL_ENCODERS:
            return states[:, 0]
        return masked_mean(states, attention_mask)

    def encode_text(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Encoding:
        """(Bt, L), (Bt, L) -> embeds (Bt, D or A)."""
        states = self.text_states(input_ids, attention_mask)  # (Bt, L, E)
        if self.text_readout is not None:
            return Encoding(self.text_readout(states, attention_mask, self.word_embeddings))
        return Encoding(self.text_projection(self.pooled_text(states, attention_mask)).float())

    def encode_motion(self, motion_values: torch.Tensor, motion_attention_mask: torch.Tensor) -> Encoding:
        """(Bm, T, 3 J), (Bm, T) -> embeds (Bm, D or A)."""
        states, real = self.motion_encoder(motion_values, motion_attention_mask)  # (Bm, 1 + N, D)
        if self.motion_readout is not None:
            return Encoding(self.motion_readout(states, real, self.word_embeddings))
        return Encoding(self.motion_projection(masked_mean(states[:, 1:], real[:, 1:])).float())

    def losses(self, text: Encoding, motion: Encoding, pairs: Pairs, values: torch.Tensor, mask: torch.Tensor) -> dict:
        """Compute InfoNCE in both directions."""
        threshold = self.config.false_negative_threshold
        loss = pair_contrast(cosine(text.embeds), cosine(motion.embeds), pairs, self.temperature, threshold)
        return {"contrastive_loss": loss}


__all__ = ["MotionPatchesConfig", "MotionPatchesModel"]
