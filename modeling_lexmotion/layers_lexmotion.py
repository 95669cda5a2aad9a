"""
Building blocks of all model families: attention, transformer blocks, positions, batching by length, losses in outputs.

Letters in shape comments are those of `modeling_lexmotion.py`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import ModelOutput

LIKE_LENGTH, MINIMUM_GROUP = 0.75, 256  # length of rows in a group, as share of the longest; tokens of a group


@dataclass
class WithLoss(ModelOutput):
    """
    Output whose `*_loss` fields are parts of one loss.

    Args:
        loss: scalar; unless given, the unweighted sum of the parts, or None without parts. Trainers weigh each part.
    """

    loss: torch.FloatTensor | None = None

    def __post_init__(self):
        parts = [value for name, value in vars(self).items() if name.endswith("_loss") and value is not None]
        if self.loss is None and parts:
            self.loss = sum(parts[1:], parts[0])
        super().__post_init__()


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
        if torch.is_autocast_enabled(kind):  # cast once, not for each of the three products
            hidden_states = hidden_states.to(torch.get_autocast_dtype(kind))
        projections = (self.q_proj, self.k_proj, self.v_proj)
        query, key, value = (project(hidden_states).view(shape).transpose(1, 2) for project in projections)
        name, dropout = self.config._attn_implementation, self.dropout if self.training else 0.0
        attention: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(name, eager_attention_forward)
        options = {"is_causal": False, "scaling": self.scaling, "dropout": dropout}
        output, weights = attention(self, query, key, value, attention_mask, **options, **kwargs)
        return self.out_proj(output.reshape(*hidden_states.shape[:-1], -1).contiguous()), weights


class DropPath(nn.Module):
    """Stochastic depth: drops a residual branch for complete samples in training."""

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
        config: Any,
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


def vit_layers(config: Any, drop_path_rates: Sequence[float]) -> nn.ModuleList:
    """Return the blocks of a ViT with the sizes of its configuration, one per rate of stochastic depth."""
    sizes = (config.hidden_size, config.num_attention_heads, config.intermediate_size, config.hidden_act)
    dropouts, eps = (config.hidden_dropout, config.attention_dropout), config.layer_norm_eps
    return nn.ModuleList([LexMotionLayer(config, *sizes, *dropouts, rate, eps) for rate in drop_path_rates])


class LexMotionDecoder(nn.Module):
    """A short stack of blocks with a final LayerNorm; weak by design (as in LexMAE and MAE)."""

    def __init__(self, config, hidden_size: int, num_heads: int, num_layers: int):
        super().__init__()
        self.config = config
        sizes = (hidden_size, num_heads, 4 * hidden_size)
        self.layers = nn.ModuleList([LexMotionLayer(config, *sizes) for _ in range(num_layers)])
        self.norm = nn.LayerNorm(hidden_size, eps=1e-6)

    def forward(self, hidden_states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        attention_mask = create_bidirectional_mask(self.config, inputs_embeds=hidden_states, attention_mask=mask)
        for layer in self.layers:
            hidden_states = layer(hidden_states, attention_mask)
        return self.norm(hidden_states)


def by_length(run: Callable, mask: torch.Tensor, *inputs: torch.Tensor) -> torch.Tensor:
    """
    Compute token states of a padded batch in groups of rows of similar length, because padding takes time on a CPU.

    Randomly drawn captions are on average a third as long as the longest, so this saves most of a text tower's time.
    On other devices, where kernel launches dominate, the batch runs as it is.

    Args:
        run: (mask (G, n), *inputs (G, n, ...)) -> states (G, n, D).
        mask: (B, L), zero for padding, which comes last.
        inputs: (B, L, ...) each.

    Returns:
        (B, L, D), with zeros beyond the longest row of each group.
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


def masked_mean(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the mean over the tokens in the mask: (B, N, D), (B, N) -> (B, D)."""
    weight = mask.to(states.dtype)[..., None]
    return (states * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1.0)


def sinusoids(positions: int, width: int) -> torch.Tensor:
    """Return (positions, width) sines and cosines of decreasing frequency (Vaswani et al. 2017, section 3.5)."""
    frequencies = 10000.0 ** (-torch.arange(0, width, 2) / width)
    angles = torch.arange(positions)[:, None] * frequencies
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :width]


class GridPositions(nn.Module):
    """Base of modules with learned embeddings of time windows and body parts, which are added per token."""

    def add_positions(self, config: Any, width: int) -> None:
        """Register both embeddings, zero until they are initialized."""
        self.config = config
        self.time_embeddings = nn.Parameter(torch.zeros(config.num_windows, 1, width))
        self.part_embeddings = nn.Parameter(torch.zeros(1, config.num_parts, width))

    def reset_parameters(self) -> None:
        """Initialize the embeddings according to `position_init` of the configuration."""
        if self.config.position_init == "sincos":
            init.copy_(self.time_embeddings, sinusoids(*self.time_embeddings.shape[::2])[:, None])
            init.normal_(self.part_embeddings)
        else:
            init.normal_(self.time_embeddings, std=self.config.initializer_range)
            init.normal_(self.part_embeddings, std=self.config.initializer_range)


def check_motion_values(motion_values: torch.Tensor, num_features: int, num_frames: int, longest: int) -> None:
    """
    Raise ValueError if a tower cannot read these motions.

    Args:
        motion_values: (B, T, F).
        num_features: the expected F.
        num_frames: longest motion of the configuration, in frames.
        longest: frames that the tower can read, at least `num_frames`.
    """
    if motion_values.ndim != 3 or motion_values.shape[-1] != num_features:
        raise ValueError(
            f"motion_values: got shape {tuple(motion_values.shape)}, not (batch, frames, {num_features}); prepare "
            "motions with this model's processor"
        )
    if motion_values.shape[1] > longest:
        raise ValueError(
            f"motion_values: got {motion_values.shape[1]} frames; pass at most {num_frames} (the processor crops "
            "them, or cut the motion into clips)"
        )
