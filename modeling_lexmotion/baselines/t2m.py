"""
T2M: the joint embedding of text and motion that Guo et al. (CVPR 2022) train with a margin.

    snippets = conv(motion);  motion = BiGRU(snippets);  text = BiGRU(words)
    L = d(pair)^2 + max(0, margin - d(non-pair))^2

This differs from the paper in two ways: words are the states of a frozen text encoder instead of GloVe vectors with
part-of-speech tags, and d is the distance of unit vectors, as all models here compare embeddings by cosine.
"""

import torch
from huggingface_hub.dataclasses import strict
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from transformers import initialization as init

from ..losses_lexmotion import cosine, gather, global_mean
from .retriever import Encoding, Pairs, RetrieverConfig, RetrieverModel

SLOPE = 0.2  # of the leaky ReLUs


@strict
class T2MConfig(RetrieverConfig):
    r"""
    Configuration of [`T2MModel`]; sizes that are not in [`RetrieverConfig`] follow the paper's supplement.

    Args:
        movement_size: width of a movement snippet.
        motion_hidden_size, text_hidden_size: width per direction of the recurrent encoders.
        movement_dropout: dropout after each convolution, training only.
        margin: distance of unit vectors, 0 to 2, below which non-pairs repel each other; 1 is an angle of 60 degrees.
            The paper's 10 applies to vectors of any length.
    """

    model_type = "lexmotion_t2m"

    train_text_encoder: bool = False
    latent_size: int = 512
    movement_size: int = 512
    motion_hidden_size: int = 1024
    text_hidden_size: int = 512
    movement_dropout: float | int = 0.2
    margin: float | int = 1.0

    def __post_init__(self, **kwargs):
        self.loss_weights = self.loss_weights or {"margin_loss": 1.0}
        super().__post_init__(**kwargs)
        if not 0 < self.margin <= 2:
            raise ValueError(f"margin: got {self.margin}; pass a distance of unit vectors, above 0 and at most 2")
        if self.false_negative_threshold is not None:
            raise ValueError(
                f"false_negative_threshold: got {self.false_negative_threshold}, which the margin loss cannot use; "
                "pass None"
            )


def margin_loss(text: torch.Tensor, motion: torch.Tensor, pairs: Pairs, margin: float) -> torch.Tensor:
    """
    Contrastive loss of Hadsell et al. (2006): mean of d^2 over pairs and of max(0, margin - d)^2 over non-pairs.

    The paper draws one non-pair for each pair of the batch; the mean over all non-pairs is the expectation of that.

    Args:
        text: (Bt, D), unit length; captions of this process, compared with the motions of all processes.
        motion: (Bm, D), unit length.
    """
    paired = pairs.text_ids[:, None] == gather(pairs.motion_ids)[None, :]  # (Bt, all Bm)
    squared = 2.0 - 2.0 * text @ gather(motion).T  # (Bt, all Bm)
    distance = squared.clamp(min=1e-6).sqrt()  # the square root has no gradient at zero
    repelled = (margin - distance).clamp(min=0.0).square()
    attraction = global_mean((squared * paired).sum(), paired.sum())
    return attraction + global_mean((repelled * ~paired).sum(), (~paired).sum())


class MovementEncoder(nn.Module):
    """Motion (B, T, F) -> movement snippets (B, ceil(T / 4), M): two convolutions, each of which halves the frames."""

    def __init__(self, config: T2MConfig):
        super().__init__()
        width = config.movement_size
        self.convolutions = nn.ModuleList(
            [nn.Conv1d(size, width, kernel_size=4, stride=2, padding=1) for size in (config.num_features, width)]
        )
        self.dropout = nn.Dropout(config.movement_dropout)
        self.activation = nn.LeakyReLU(SLOPE)
        self.output = nn.Linear(width, width)

    def forward(self, motion_values: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, T, F) zero in the padding, (B,) frames -> (B, N, M) zero in the padding, (B,) snippets."""
        states = nn.functional.pad(motion_values.mT, (0, -motion_values.shape[1] % 4))  # (B, F, 4 N)
        for convolution in self.convolutions:
            lengths = (lengths + 1) // 2
            states = self.activation(self.dropout(convolution(states)))
            # The bias makes the padding nonzero, which would reach the last real snippet in the next convolution.
            real = torch.arange(states.shape[-1], device=states.device) < lengths[:, None]
            states = states * real[:, None]
        return self.output(states.mT), lengths


class RecurrentEncoder(nn.Module):
    """
    A bidirectional GRU with a learned initial state.

    Args:
        latent_size: size of the embedding made of its two last states; None for token states only.
    """

    def __init__(self, input_size: int, hidden_size: int, latent_size: int | None):
        super().__init__()
        self.input = nn.Linear(input_size, hidden_size)
        self.start = nn.Parameter(torch.zeros(2, 1, hidden_size))
        self.gru = nn.GRU(hidden_size, hidden_size, batch_first=True, bidirectional=True)
        self.output = None
        if latent_size is not None:
            self.output = nn.Sequential(
                nn.Linear(2 * hidden_size, hidden_size),
                nn.LayerNorm(hidden_size),
                nn.LeakyReLU(SLOPE),
                nn.Linear(hidden_size, latent_size),
            )

    def reset_parameters(self) -> None:
        """Draw a normal initial state, and gates as torch does."""
        init.normal_(self.start)
        bound = self.gru.hidden_size**-0.5
        for parameter in self.gru.parameters():
            init.uniform_(parameter, -bound, bound)

    def forward(self, tokens: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Encode (B, N, W) with (B,) real tokens as states (B, N, 2 H), zero in the padding, and embeddings (B, D)."""
        rows, size, _ = tokens.shape
        packed = pack_padded_sequence(self.input(tokens), lengths.cpu(), batch_first=True, enforce_sorted=False)
        states, last = self.gru(packed, self.start.expand(-1, rows, -1).contiguous())
        states, _ = pad_packed_sequence(states, batch_first=True, total_length=size)
        if self.output is None:
            return states, None
        return states, self.output(last.transpose(0, 1).flatten(1))  # both directions: (B, 2 H) -> (B, D)


class T2MModel(RetrieverModel):
    """
    Convolutions and a bidirectional GRU over the motion and a GRU over the words, trained with a margin.

    In the lexical representation, all states of the recurrent encoders contribute words, not only the last ones.

    Example:

    ```python
    >>> encoder = {"model_type": "distilbert", "vocab_size": 99, "dim": 32, "n_layers": 1, "n_heads": 2}
    >>> model = T2MModel(T2MConfig(encoder_config=encoder, motion_hidden_size=16, text_hidden_size=16))
    >>> model.get_motion_features(torch.randn(2, 40, 263)).shape
    torch.Size([2, 512])

    ```
    """

    config: T2MConfig

    def __init__(self, config: T2MConfig):
        super().__init__(config, text_width=2 * config.text_hidden_size, motion_width=2 * config.motion_hidden_size)
        latent_size = None if config.is_lexical else config.latent_size
        self.movement_encoder = MovementEncoder(config)
        self.motion_encoder = RecurrentEncoder(config.movement_size, config.motion_hidden_size, latent_size)
        self.word_encoder = RecurrentEncoder(config.encoder_config.hidden_size, config.text_hidden_size, latent_size)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, RecurrentEncoder):
            module.reset_parameters()
        if isinstance(module, RecurrentEncoder | MovementEncoder):
            # These layers have no normalization, so weights that ignore the width would let the signal fade.
            for part in module.modules():
                if isinstance(part, nn.Linear | nn.Conv1d):
                    init.xavier_normal_(part.weight)

    def encode_text(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Encoding:
        """(Bt, L), (Bt, L) -> embeds (Bt, D or A)."""
        words = self.text_states(input_ids, attention_mask)  # (Bt, L, E)
        states, embeds = self.word_encoder(words, attention_mask.sum(dim=1).clamp(min=1))
        if self.text_readout is not None:
            embeds = self.text_readout(states, attention_mask, self.word_embeddings)
        return Encoding(embeds.float())

    def encode_motion(self, motion_values: torch.Tensor, motion_attention_mask: torch.Tensor) -> Encoding:
        """(Bm, T, F), (Bm, T) -> embeds (Bm, D or A)."""
        snippets, lengths = self.movement_encoder(motion_values, motion_attention_mask.sum(dim=1).clamp(min=1))
        states, embeds = self.motion_encoder(snippets, lengths)  # (Bm, ceil(T / 4), 2 H)
        if self.motion_readout is not None:
            real = torch.arange(states.shape[1], device=states.device) < lengths[:, None]
            embeds = self.motion_readout(states, real, self.word_embeddings)
        return Encoding(embeds.float())

    def losses(self, text: Encoding, motion: Encoding, pairs: Pairs, values: torch.Tensor, mask: torch.Tensor) -> dict:
        """The margin loss between unit vectors."""
        return {"margin_loss": margin_loss(cosine(text.embeds), cosine(motion.embeds), pairs, self.config.margin)}


__all__ = ["T2MConfig", "T2MModel"]
