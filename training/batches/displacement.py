"""Joint displacement between frames, the second target of phase ii (MAMP, Mao et al., ICCV 2023)."""

from typing import Any

import torch
from torch import Tensor

from lexmotion.processing.joint_angles import quantities
from lexmotion.processing.skeletons import get_skeleton


class JointDisplacement:
    """
    Compute the displacement from the frame before from normalised motion values.

    Columns with a displacement, by representation; all others, such as velocities and rotations, have none:

    * `positions`: the positions of all joints;
    * `humanml3d`: the positions of the joints relative to the root, its height, and its own displacement and turn;
    * `joint_angles`: no joint has a position, so the change of all angles and unit vectors (radians if small), the
      height of the root, and its own displacement and turn.

    Lengths are in metres and turns in radians, whatever the statistics of the values. The root's own columns of a
    frame are its displacement to the *next* frame, so those of the frame before are taken.

    Args:
        feature_extractor: a `LexMotionFeatureExtractor`; without statistics, the values are not normalised.

    Attributes:
        columns: the columns with a displacement.
    """

    def __init__(self, feature_extractor: Any):
        skeleton, kind = get_skeleton(feature_extractor.skeleton), feature_extractor.representation
        count = feature_extractor.num_features
        unit = torch.zeros(count)  # of a column in metres or radians; 0 without a displacement
        forward = torch.zeros(count, dtype=torch.bool)  # displacements to the next frame already
        if kind == "positions":
            unit[:] = 1.0
        elif kind == "humanml3d":
            slices = skeleton.feature_slices
            unit[slices["root"]] = unit[slices["positions"]] = skeleton.metres_per_unit
            unit[0] = 2.0  # half the turn
            forward[:3] = True
        else:
            unit[:] = 1.0
            names = [each.name for each in quantities(skeleton) for _ in each.axes or ("",)]
            forward |= torch.tensor([name in ("velocity", "turn") for name in names])
        mean, std = feature_extractor.mean, feature_extractor.std
        self.columns = frozenset(unit.nonzero().flatten().tolist())
        self.forward = forward
        self.scale = unit if std is None else unit * torch.tensor(std)
        self.offset = torch.zeros(count) if mean is None else unit * torch.tensor(mean)

    def __call__(self, motion_values: Tensor) -> Tensor:
        """Return the displacement from the frame before (B, T, F) for (B, T, F); zero in the first frame."""
        scale, offset, forward = (part.to(motion_values.device) for part in (self.scale, self.offset, self.forward))
        earlier, later = (motion_values[:, frames] * scale + offset for frames in (slice(None, -1), slice(1, None)))
        return torch.nn.functional.pad(torch.where(forward, earlier, later - earlier), (0, 0, 1, 0))
