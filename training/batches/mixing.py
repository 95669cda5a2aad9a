"""Motions mixed from two clips."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .order import BatchRandom


class PartMixer:
    """
    CutMix on body parts (after Yun et al. 2019): replace some parts of a clip by those of another.

    One to half of the parts are replaced, in the frames that both clips have.

    Args:
        parts: features of each body part; a feature shared by several parts is replaced with any of them.
        num_features: number of features.
        probability: probability of a clip to be mixed.
    """

    def __init__(self, parts: Sequence[Sequence[int]], num_features: int, probability: float):
        self.members = torch.zeros(len(parts), num_features, dtype=torch.bool)
        for number, part in enumerate(parts):
            self.members[number, list(part)] = True
        self.probability = probability

    def choose(self, random: BatchRandom) -> Tensor:
        """Draw (B, P) bool, the parts that each clip takes from its partner; none for a clip that is not mixed."""
        num_parts = len(self.members)
        draws, keys = random.uniform(2), random.uniform(num_parts)
        most = max(num_parts // 2, 1)
        count = 1 + (draws[:, 1] * most).long().clamp(max=most - 1)
        return (keys.argsort(dim=1).argsort(dim=1) < count[:, None]) & (draws[:, :1] < self.probability)

    def __call__(
        self, values: Tensor, frames: Tensor, partner_values: Tensor, partner_frames: Tensor, taken: Tensor
    ) -> tuple[Tensor, Tensor]:
        """
        Mix clips with their partners.

        Args:
            values, frames, partner_values, partner_frames: motions (B, T, F) and masks (B, T); T may differ.
            taken: (B, P) bool.

        Returns:
            Mixed values (B, T, F), and the partner's share (B,) float32: its share of the parts times of the frames.
        """
        features = (taken.float() @ self.members.float()) > 0  # (B, F)
        both = min(frames.shape[1], partner_frames.shape[1])
        overlap = (frames[:, :both] & partner_frames[:, :both]).bool()
        exchanged = overlap[:, :, None] & features[:, None, :]
        mixed = values.clone()
        mixed[:, :both] = torch.where(exchanged, partner_values[:, :both], mixed[:, :both])
        return mixed, taken.float().mean(dim=1) * overlap.sum(dim=1) / frames.sum(dim=1).clamp(min=1)
