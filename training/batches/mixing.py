"""Motions that are made of two."""

from collections.abc import Sequence

import torch

from .order import BatchRandom


class PartMixer:
    """
    Part CutMix (Yun et al. 2019, on body parts): some parts of a clip are those of another while both move.

    One to half of the parts are exchanged, over the frames that both clips have; beyond them, and in all other parts,
    the clip stays itself.

    Args:
        parts: features of each body part; a feature of several parts goes with each of them.
        probability: of a clip to be mixed.
    """

    def __init__(self, parts: Sequence[Sequence[int]], num_features: int, probability: float):
        self.members = torch.zeros(len(parts), num_features, dtype=torch.bool)
        for number, part in enumerate(parts):
            self.members[number, list(part)] = True
        self.probability = probability

    def choose(self, random: BatchRandom) -> torch.Tensor:
        """(B, P) bool: the parts that each clip takes from its partner, none for a clip that is not mixed."""
        num_parts = len(self.members)
        draws, keys = random.uniform(2), random.uniform(num_parts)
        most = max(num_parts // 2, 1)
        count = 1 + (draws[:, 1] * most).long().clamp(max=most - 1)
        return (keys.argsort(dim=1).argsort(dim=1) < count[:, None]) & (draws[:, :1] < self.probability)

    def __call__(
        self,
        values: torch.Tensor,
        frames: torch.Tensor,
        partner_values: torch.Tensor,
        partner_frames: torch.Tensor,
        taken: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Args:
            values, frames: (B, T, F) and (B, T) motion and mask. partner_values, partner_frames: (B, T', F), (B, T').
            taken: (B, P) bool.

        Returns:
            Mixed values (B, T, F), and the share of each clip that is its partner's: (B,) float32, the parts taken of
            all parts times the frames exchanged of its frames.
        """
        features = (taken.float() @ self.members.float()) > 0  # (B, F)
        both = min(frames.shape[1], partner_frames.shape[1])
        overlap = (frames[:, :both] & partner_frames[:, :both]).bool()
        exchanged = overlap[:, :, None] & features[:, None, :]
        mixed = values.clone()
        mixed[:, :both] = torch.where(exchanged, partner_values[:, :both], mixed[:, :both])
        return mixed, taken.float().mean(dim=1) * overlap.sum(dim=1) / frames.sum(dim=1).clamp(min=1)
