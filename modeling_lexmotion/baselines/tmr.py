"""
TMR (Petrovich, Black and Varol, ICCV 2023): TEMOS with a contrast between the latents of a batch, which excludes
captions of similar meaning from the negatives.
"""

import torch
from huggingface_hub.dataclasses import strict

from ..losses_lexmotion import cosine
from .retriever import Pairs, pair_contrast
from .temos import LOSS_WEIGHTS, LatentEncoding, TemosConfig, TemosModel


@strict
class TmrConfig(TemosConfig):
    r"""
    Configuration of [`TmrModel`]; the published temperature, filter and loss weights by default.

    The paper's filter, similarity above 0.8, uses a scale on which orthogonal sentence vectors have 0.5: a cosine of
    0.6.
    """

    model_type = "lexmotion_tmr"

    temperature: float = 0.1
    false_negative_threshold: float | None = 0.6

    def __post_init__(self, **kwargs):
        self.loss_weights = self.loss_weights or LOSS_WEIGHTS | {"contrastive_loss": 0.1}
        super().__post_init__(**kwargs)


class TmrModel(TemosModel):
    """
    TEMOS with a contrast: L = L_TEMOS + 0.1 InfoNCE(cosine(z_t, z_m) / 0.1), both directions.

    A motion is not a negative of a caption if one of its own captions is similar to that caption; without
    `caption_features` all other motions are negatives.

    Example:

    ```python
    >>> from lexmotion.baselines.tmr import TmrConfig, TmrModel
    >>> encoder = {"model_type": "distilbert", "vocab_size": 99, "dim": 32, "n_layers": 1, "n_heads": 2,
    ...            "hidden_dim": 64}
    >>> model = TmrModel(TmrConfig(encoder_config=encoder, latent_size=16, num_hidden_layers=1))
    >>> output = model(torch.tensor([[2, 7, 3], [2, 9, 3]]), torch.randn(2, 40, 263), return_loss=True)
    >>> output.logits_per_text.shape, output.contrastive_loss.shape
    (torch.Size([2, 2]), torch.Size([]))

    ```
    """

    config: TmrConfig

    def losses(
        self, text: LatentEncoding, motion: LatentEncoding, pairs: Pairs, values: torch.Tensor, mask: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        threshold = self.config.false_negative_threshold
        contrast = pair_contrast(cosine(text.embeds), cosine(motion.embeds), pairs, self.temperature, threshold)
        return super().losses(text, motion, pairs, values, mask) | {"contrastive_loss": contrast}
