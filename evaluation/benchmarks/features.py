"""Motion features: our batches compared with one clip at a time, both on one core and with one thread."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from lexmotion.processing.corpora.synthetic import ACTION, action_specs
from lexmotion.processing.corpora.synthetic_motion import Segment, render
from lexmotion.processing.feature_extraction_lexmotion import LexMotionFeatureExtractor
from lexmotion.processing.motion_features import retarget_positions
from lexmotion.processing.skeletons import Skeleton, get_skeleton

from .features_plain import clip_features
from .harness import Case, require

DESCRIPTION = "motion features: joint positions to the published features, on one core"
QUICK = {"clips": 64}

TOLERANCE = 1e-3
PUBLISHED = "85 clips/s of 159 frames (13,500 frames/s)"


def _draw(clips: int, shortest: int, longest: int) -> list[np.ndarray]:
    """Draw synthetic motions of consecutive actions: (T, 22, 3) float32 in metres."""
    rng = np.random.default_rng(0)
    specs = [spec for spec in action_specs() if not spec.speed]
    drawn = []
    for length in rng.integers(shortest, longest + 1, clips).tolist():
        segments: list[Segment] = []
        while sum(segment.frames for segment in segments) < length:
            spec = specs[int(rng.integers(len(specs)))]
            animate = ACTION[spec.action].animate
            segments.append(Segment(animate, spec.frames, spec.side, spec.direction, max(spec.count, 1)))
        drawn.append(render(segments, rng)[:length])
    return drawn


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _compare(ours: np.ndarray, plain: np.ndarray, layout: Skeleton) -> str:
    """
    Require features (frames, F) equal within `TOLERANCE` (metres and radians), with the same contacts.

    A few rotations may differ more: a bone opposite to its direction at rest can turn about any axis, so near there
    rounding decides, as it does if a foot's step is as long as the threshold.
    """
    metres = np.ones(layout.num_features)
    for part in (slice(1, 4), layout.feature_slices["positions"], layout.feature_slices["velocities"]):
        metres[part] = layout.metres_per_unit
    contacts = layout.feature_slices["contacts"]
    difference = (np.abs(ours - plain) * metres)[:, : contacts.start]
    share = float((difference <= TOLERANCE).mean())
    require(share >= 0.9999, f"{1 - share:.2%} of the values differ by more than {TOLERANCE:g}")
    feet = plain[:, layout.feature_slices["velocities"]].reshape(len(plain), -1, 3)[:, list(layout.contact_joints)]
    clear = np.abs(np.square(feet).sum(axis=-1) / layout.foot_velocity_threshold - 1) > 0.01
    changed = int((ours[:, contacts] != plain[:, contacts])[clear].sum())
    require(changed == 0, f"{changed} foot contacts differ")
    return f"largest difference {difference.max():.0e} (metres, radians), contacts equal"


def cases(
    clips: int = 256, shortest: int = 40, longest: int = 200, batch: int = 32, skeleton: str = "humanml3d"
) -> list[Case]:
    """
    Build the cases of both sides.

    Args:
        clips: number of clips.
        shortest, longest: limits of their drawn numbers of frames.
        batch: clips per batch of ours, in the order drawn.
        skeleton: humanml3d or kit-ml.
    """
    layout = get_skeleton(skeleton)
    drawn = _draw(clips, shortest, longest)
    if layout.name == "kit-ml":
        drawn = [retarget_positions(torch.from_numpy(positions)).numpy() for positions in drawn]
    target = 1.1 * drawn[0][0]  # bones that every clip is retargeted to
    motions = [torch.from_numpy(positions) for positions in drawn]
    published = [positions / np.float32(layout.metres_per_unit) for positions in drawn]
    extractor = LexMotionFeatureExtractor(
        "humanml3d", skeleton, min_frames=1, max_frames=longest, target_skeleton=target
    )

    def ours() -> list[tuple[torch.Tensor, torch.Tensor]]:
        with _one_thread():
            batches = [motions[start : start + batch] for start in range(0, clips, batch)]
            lengths = [torch.tensor([len(motion) for motion in group]) for group in batches]
            padded = (pad_sequence(group, batch_first=True) for group in batches)
            return list(map(extractor.values_from_positions, padded, lengths))

    def plain() -> list[np.ndarray]:
        return [clip_features(positions, layout, target / layout.metres_per_unit) for positions in published]

    def agree(mine: list[tuple[torch.Tensor, torch.Tensor]], reference: list[np.ndarray]) -> str:
        rows = (row[:length] for values, lengths in mine for row, length in zip(values, lengths, strict=True))
        return _compare(torch.cat(list(rows)).numpy(), np.concatenate(reference), layout)

    def facts() -> dict[str, Any]:
        mean = float(np.mean([len(positions) for positions in drawn]))
        return {"frames per clip, mean": mean, "published implementation, on another machine": PUBLISHED}

    name = f"{layout.name}, {layout.num_features} features per frame"
    return [Case(name, ours, plain, agree, clips, "clips", facts)]
