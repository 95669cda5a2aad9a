"""Motion inputs from clips of a corpus: cropped, mirrored, resampled and padded."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lexmotion.processing.motion_features import mirror_positions

from .corpus import TrainingCorpus
from .order import BatchRandom


@dataclass
class ClipSampler:
    """
    Motion inputs of a batch, augmented by mirroring, cropping, speed and noise, or as recorded.

    Random rotation about the vertical is omitted because all representations are relative to the facing direction.

    Args:
        feature_extractor: its `values_from_positions` canonicalises, converts and normalises a batch.
        mirror_probability, crop_ratio, speed_range, position_jitter, feature_noise: see `DataArguments`.
        frame_multiple: batches are padded to a multiple of this many frames (the tower's window).
    """

    feature_extractor: Any
    mirror_probability: float = 0.5
    crop_ratio: float = 0.8
    speed_range: float = 0.1
    position_jitter: float = 0.0
    frame_multiple: int = 1
    feature_noise: float = 0.0

    @property
    def longest(self) -> int:
        """Return the maximum frames of a clip that the extractor uses; features lose one."""
        return self.feature_extractor.max_frames + (self.feature_extractor.representation != "positions")

    def frames(self, kept: Tensor, step: Tensor) -> Tensor:
        """Return (B,) int64, the number of resampled frames, `step` recorded ones apart, in `kept` recorded ones."""
        return (((kept - 1) / step + 1e-6).floor().long() + 1).clamp(max=self.longest)

    def windows(self, corpus: TrainingCorpus) -> Tensor:
        """Return (R,) int64, the windows of `frame_multiple` frames in every unaugmented clip."""
        frames = self.frames(corpus.lengths, corpus.fps.double() / self.feature_extractor.fps)
        return -(-(frames - self.longest + self.feature_extractor.max_frames) // self.frame_multiple)

    def mirrored(self, random: BatchRandom, whole: bool = False) -> Tensor:
        """Draw (B,) bool, the clips mirrored together with their captions; `whole`: for the global batch."""
        return random.uniform(whole=whole) < self.mirror_probability

    def positions(
        self, corpus: TrainingCorpus, rows: Tensor, mirrored: Tensor, random: BatchRandom | None
    ) -> tuple[Tensor, Tensor]:
        """
        Return joint positions (B, T, J, 3) float32 at the extractor's frame rate, and their lengths (B,) int64.

        Args:
            rows: (B,) int64.
            mirrored: (B,) bool.
            random: source of crop, speed and jitter; None: the start of the clip as recorded.
        """
        extractor = self.feature_extractor
        available = corpus.lengths[rows]
        step = corpus.fps[rows].double() / extractor.fps
        start = torch.zeros_like(step)
        kept = available.double()
        if random is not None:
            draws = random.uniform(3).double()
            if self.speed_range > 0:
                step = step * (1.0 - self.speed_range + 2.0 * self.speed_range * draws[:, 0])
            needed = extractor.min_frames + self.longest - extractor.max_frames
            least = torch.minimum(available, ((needed - 1) * step).ceil() + 1)
            kept = available * (self.crop_ratio + (1.0 - self.crop_ratio) * draws[:, 1])
            kept = torch.maximum(torch.minimum(kept.floor(), 1 + ((self.longest - 1) * step).ceil()), least)
            start = ((available - kept) * draws[:, 2]).round()
        lengths = self.frames(kept, step)
        frame = torch.minimum(torch.arange(int(lengths.max())), lengths[:, None] - 1)
        at = start[:, None] + frame * step[:, None]
        last = available[:, None] - 1
        before = torch.minimum(at.long(), last)
        share = (at - before).clamp(0.0, 1.0).float()
        # Frames are flattened because selecting rows copies memory, while indexing by (B, T) goes element by element.
        frames, first = corpus.frames.flatten(1), corpus.offsets[rows, None]
        positions = frames.index_select(0, (first + before).flatten())
        if bool(share.any()):
            after = torch.minimum(before + 1, last)
            positions.lerp_(frames.index_select(0, (first + after).flatten()), share.view(-1, 1))
        positions = positions.view(*at.shape, *corpus.frames.shape[1:])
        if bool(mirrored.any()):
            turned = mirrored.nonzero().squeeze(1)
            positions.index_copy_(0, turned, mirror_positions(positions.index_select(0, turned), corpus.skeleton))
        if random is not None and self.position_jitter > 0:
            noise = random.normal(self.longest, *positions.shape[2:])[:, : positions.shape[1]]
            positions += self.position_jitter * noise
        return positions, lengths

    def values(
        self, corpus: TrainingCorpus, rows: Tensor, mirrored: Tensor, random: BatchRandom | None
    ) -> tuple[Tensor, Tensor]:
        """Return `motion_values` (B, T, F) and `motion_attention_mask` (B, T) int64; arguments as in `positions`."""
        positions, lengths = self.positions(corpus, rows, mirrored, random)
        values, lengths = self.feature_extractor.values_from_positions(positions, lengths)
        frames = -(-int(lengths.max()) // self.frame_multiple) * self.frame_multiple
        if values.shape[1] < frames:
            values = torch.nn.functional.pad(values, (0, 0, 0, frames - values.shape[1]))
        values, real = values[:, :frames], torch.arange(frames) < lengths[:, None]
        if random is not None and self.feature_noise > 0:
            noise = random.normal(self.longest + self.frame_multiple, values.shape[2])[:, :frames]
            values = values + self.feature_noise * noise * real[..., None]
        return values, real.long()
