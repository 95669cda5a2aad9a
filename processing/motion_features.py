"""Conversion between joint positions and the features of HumanML3D (263 per frame) and KIT-ML (251), batched in torch.

The features are those of Guo et al., "Generating Diverse and Natural 3D Human Motions from Text" (CVPR 2022). The
columns of a frame are, in this order (J joints, root first):

| number | features |
|---|---|
| 1 | half the heading change to the next frame, radians |
| 2 | root displacement to the next frame on the floor (x, z), in the heading of the next frame |
| 1 | root height |
| 3 (J - 1) | joint positions relative to the root projected on the floor, in the heading of the frame |
| 6 (J - 1) | joint rotations: first two columns of the rotation matrix relative to the parent in the chain |
| 3 J | joint displacements to the next frame, in the heading of the frame |
| 4 | foot contacts: left ankle, left toe, right ankle, right toe (sides as named by the published code) |

A motion of T frames has T - 1 feature frames, since most features use the next frame.

Four quirks of the published code are kept, since all published checkpoints and statistics depend on them:

* The heading of a frame comes from the shoulder line *minus* the hip line, smoothed by a Gaussian (sigma 20 frames).
* The heading of the first frame is always Z+.
* Every chain, including the arms, starts from the rotation of the root.
* When the heading crosses Z-, the heading change of that frame has the wrong sign. Positions recovered from features
  are off by twice that angle from there on; original joint positions are not affected.

The published code composes rotations joint by joint along each chain. Since the accumulated rotation of a joint is the
one that turns its rest direction to its bone, all joints are computed at once here.

Degenerate input:

* A bone of length zero has no direction: it stays zero in retargeting, and its rotation is the identity.
* A bone opposite to its rest direction is rotated by pi about a fixed axis (Y for X and Z bones, X for Y bones).
* A frame whose hip and shoulder lines are vertical or cancel has no heading: it does not contribute to the smoothed
  heading, and a clip without any heading faces Z+. Lying and inverted bodies thus give finite features.
* Fewer than two frames, NaN and infinity are errors that name clip and frame.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from .skeletons import Skeleton, get_skeleton

FPS_RANGE = (0.01, 100_000.0)  # frames per second of any recording; the length of a result depends on their ratio
HEADING_SIGMA = 20.0  # frames
HEADING_RADIUS = 80  # frames: four standard deviations
CHUNK_FRAMES = 8192  # frames processed at once; bounds the memory of large batches without loss of speed

# Joints that only one layout has, as (joint, joint, share of the way between them). The shares are those of an adult's
# bones: collars lie near the breastbone, and KIT-ML's midfoot half way between ankle and toes.
BETWEEN: dict[str, tuple[str, str, float]] = {
    "spine3": ("spine2", "neck", 0.2),
    **{f"{side}_collar": ("neck", f"{side}_shoulder", 0.3) for side in ("left", "right")},
    **{f"{side}_midfoot": (f"{side}_ankle", f"{side}_foot", 0.5) for side in ("left", "right")},
}


# ---------------------------------------------------------------------------------------------------------------------
# Input checks
# ---------------------------------------------------------------------------------------------------------------------


def _to_float(values) -> torch.Tensor:
    values = torch.as_tensor(values)
    return values if values.dtype in (torch.float32, torch.float64) else values.float()


def _to_batch(
    positions: torch.Tensor, skeleton: Skeleton, lengths, min_frames: int
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Check shapes and values; return (B, T, J, 3), padded with the last frame per clip, and lengths (B,) or None."""
    if positions.ndim not in (3, 4) or positions.shape[-2:] != (skeleton.num_joints, 3):
        raise ValueError(
            f"positions: got shape {tuple(positions.shape)}; pass (frames, {skeleton.num_joints}, 3) or (clips, "
            f"frames, {skeleton.num_joints}, 3) for skeleton {skeleton.name!r}"
        )
    if positions.ndim == 3:
        positions = positions[None]
    num_clips, num_frames = positions.shape[:2]

    if lengths is not None:
        lengths = torch.as_tensor(lengths, dtype=torch.int64, device=positions.device).reshape(-1)
        if len(lengths) != num_clips:
            raise ValueError(f"lengths: got {len(lengths)} for {num_clips} clips; pass one per clip")
        if num_clips and int(lengths.max()) > num_frames:
            clip = int(lengths.argmax())
            raise ValueError(f"clip {clip}: got length {int(lengths[clip])}; pass at most {num_frames}, its frames")
    shortest = num_frames if lengths is None or not num_clips else int(lengths.min())
    if shortest < min_frames:
        clip = 0 if lengths is None or not num_clips else int(lengths.argmin())
        raise ValueError(
            f"clip {clip}: got {shortest} frame(s), need at least {min_frames}; remove such clips, as features "
            "describe the step from one frame to the next"
        )
    if lengths is not None and shortest < num_frames:
        frame = torch.arange(num_frames, device=positions.device)
        last = torch.minimum(frame, lengths[:, None] - 1)
        last += torch.arange(num_clips, device=positions.device)[:, None] * num_frames
        positions = positions.flatten(0, 1).index_select(0, last.flatten()).view(positions.shape)
    # A finite sum rules out NaN and infinity at a fraction of the cost of checking every value.
    if not (torch.isfinite(positions.sum()) or torch.isfinite(positions).all()):
        clip, frame, joint, _ = (~torch.isfinite(positions)).nonzero()[0].tolist()
        raise ValueError(
            f"clip {clip}, frame {frame}: the position of joint {joint} ({skeleton.joint_names[joint]}) is "
            f"{positions[clip, frame, joint].tolist()}; repair or remove frames with NaN or infinity"
        )
    return positions, lengths


# ---------------------------------------------------------------------------------------------------------------------
# Heading. A rotation about Y is stored as (cos, sin) of its angle: x' = cos x + sin z, z' = cos z - sin x.
# ---------------------------------------------------------------------------------------------------------------------


def _turn(
    x: torch.Tensor,
    z: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    out: tuple[torch.Tensor | None, torch.Tensor | None] = (None, None),
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return x' and z', written to `out` if given; `out` must not be x or z."""
    return torch.mul(cos, x, out=out[0]).addcmul_(sin, z), torch.mul(cos, z, out=out[1]).addcmul_(sin, x, value=-1)


def _forward(across: torch.Tensor) -> torch.Tensor:
    """Return the floor components (x, z) of up x unit(across); `across` (3, ...) points from left to right."""
    length = across.square().sum(dim=0).sqrt_()
    return torch.stack([across[2], -across[0]]) / length.masked_fill_(length == 0, 1.0)


def _unit_heading(forward: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalise (2, ...) directions on the floor to x, z; directions of almost zero length become Z+."""
    length = forward.square().sum(dim=0).sqrt_()
    missing = length < 1e-6
    length = length.masked_fill_(missing, 1.0)
    x, z = forward[0] / length, forward[1] / length
    return x.masked_fill_(missing, 0.0), z.masked_fill_(missing, 1.0)


def _facing(joints: torch.Tensor, skeleton: Skeleton) -> tuple[torch.Tensor, torch.Tensor]:
    """Return cos and sin of the rotation that makes a pose (J, 3, ...) face Z+."""
    hip_1, hip_2, shoulder_1, shoulder_2 = skeleton.face_joints
    across = joints[hip_1] - joints[hip_2] + joints[shoulder_1] - joints[shoulder_2]
    x, z = _unit_heading(_forward(across))
    return z, -x


def _smoothed_heading(joints: torch.Tensor, skeleton: Skeleton) -> tuple[torch.Tensor, torch.Tensor]:
    """Return cos and sin (B, T) of the rotations that make all frames of (J, 3, B, T) face Z+, smoothed over time."""
    hip_1, hip_2, shoulder_1, shoulder_2 = skeleton.face_joints
    # The published code swaps the hips only here.
    forward = _forward(joints[hip_2] - joints[hip_1] + joints[shoulder_1] - joints[shoulder_2])
    steps = torch.arange(-HEADING_RADIUS, HEADING_RADIUS + 1, dtype=forward.dtype, device=forward.device)
    kernel = torch.exp(-0.5 * (steps / HEADING_SIGMA).square())
    padded = F.pad(forward, (HEADING_RADIUS, HEADING_RADIUS), mode="replicate")
    x, z = _unit_heading(padded.unfold(-1, len(kernel), 1) @ (kernel / kernel.sum()))
    cos, sin = z, -x
    cos[:, 0], sin[:, 0] = 1.0, 0.0
    return cos, sin


def _half_angle(cos: torch.Tensor, sin: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the quaternion (w, y) of a rotation about Y, w >= 0, accurate for every angle."""
    large = ((1 + cos.abs()) / 2).sqrt_()
    small = sin.abs() / (2 * large)
    acute = cos >= 0
    return torch.where(acute, large, small), torch.where(acute, small, large).copysign_(sin)


# ---------------------------------------------------------------------------------------------------------------------
# Bones and rotations
# ---------------------------------------------------------------------------------------------------------------------


def _rest_maps(skeleton: Skeleton, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return per bone with rest direction u: the (4, 3) map d -> (u . d, u x d), and an axis (3,) orthogonal to u."""
    rest = like.new_tensor(skeleton.raw_offsets[1:])
    x, y, z = rest.unbind(dim=1)
    zero = torch.zeros_like(x)
    maps = torch.stack([x, y, z, zero, -z, y, z, zero, -x, -y, x, zero], dim=1).view(-1, 4, 3)
    orthogonal = torch.stack([y.abs(), x.abs() + z.abs(), zero], dim=1)
    return maps, orthogonal


def _chain_parents(skeleton: Skeleton) -> list[int]:
    """Return the joint that each joint's rotation is relative to; the root for the first joint of a chain."""
    parents = [0] * skeleton.num_joints
    for chain in skeleton.chains:
        for parent, joint in zip(chain[1:-1], chain[2:], strict=True):
            parents[joint] = parent
    return parents[1:]


def _local_rotations(
    directions: torch.Tensor,
    missing: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    skeleton: Skeleton,
    out: torch.Tensor,
) -> None:
    """Compute continuous 6-D rotations of all joints except the root.

    Args:
        directions: (J - 1, 3, N) unit bone directions.
        missing: (J - 1, N), True for a bone of length zero.
        cos, sin: (N,) of the heading angle of the root.
        out: (J - 1, 6, N) output.
    """
    num_joints, num_frames = skeleton.num_joints, directions.shape[-1]
    maps, orthogonal = _rest_maps(skeleton, directions)

    # Accumulated rotations as quaternions (w, x, y, z): the shortest rotation from the rest direction to the bone.
    turns = directions.new_empty(num_joints, 4, num_frames)
    root_w, root_y = _half_angle(cos, sin)
    turns[0, 0], turns[0, 1], turns[0, 2], turns[0, 3] = root_w, 0.0, root_y, 0.0
    torch.bmm(maps, directions, out=turns[1:])
    cosine, axis = turns[1:, 0], turns[1:, 1:]
    sine_squared = axis.square().sum(dim=1)
    # cos^2 of the half angle is (1 + cos) / 2; near pi the sine gives it without cancellation.
    half = torch.where(cosine < 0, sine_squared / (1 - cosine), 1 + cosine).mul_(0.5).sqrt_()
    opposite = half < 2 * torch.finfo(half.dtype).eps
    axis.mul_((0.5 / half).unsqueeze(1))
    cosine.copy_(half)
    if opposite.any():
        cosine.masked_fill_(opposite, 0.0)
        axis.copy_(torch.where(opposite.unsqueeze(1), orthogonal.unsqueeze(-1), axis))

    parents = _chain_parents(skeleton)
    if missing.any():
        for chain in skeleton.chains:
            for joint in chain[1:]:
                turns[joint] = torch.where(missing[joint - 1], turns[parents[joint - 1]], turns[joint])

    base = turns.index_select(0, torch.tensor(parents, device=turns.device))
    aw, ax, ay, az = base.unbind(dim=1)
    bw, bx, by, bz = turns[1:].unbind(dim=1)
    w = (aw * bw).addcmul_(ax, bx).addcmul_(ay, by).addcmul_(az, bz)
    x = (aw * bx).addcmul_(ax, bw, value=-1).addcmul_(ay, bz, value=-1).addcmul_(az, by)
    y = (aw * by).addcmul_(ax, bz).addcmul_(ay, bw, value=-1).addcmul_(az, bx, value=-1)
    z = (aw * bz).addcmul_(ax, by, value=-1).addcmul_(ay, bx).addcmul_(az, bw, value=-1)

    one = torch.ones((), dtype=w.dtype, device=w.device)
    torch.addcmul(torch.addcmul(one, y, y, value=-2), z, z, value=-2, out=out[:, 0])
    torch.mul(x, y, out=out[:, 1]).addcmul_(w, z).mul_(2)
    torch.mul(x, z, out=out[:, 2]).addcmul_(w, y, value=-1).mul_(2)
    torch.mul(x, y, out=out[:, 3]).addcmul_(w, z, value=-1).mul_(2)
    torch.addcmul(torch.addcmul(one, x, x, value=-2), z, z, value=-2, out=out[:, 4])
    torch.mul(y, z, out=out[:, 5]).addcmul_(w, x).mul_(2)


def _chain_up(root: torch.Tensor, bones: torch.Tensor, skeleton: Skeleton) -> torch.Tensor:
    """Return joints (J, 3, ...) from the root position (3, ...) and the bone vectors (J - 1, 3, ...)."""
    joints = root.new_empty(skeleton.num_joints, *root.shape)
    joints[0] = root
    for chain in skeleton.chains:
        for parent, joint in zip(chain[:-1], chain[1:], strict=True):
            torch.add(joints[parent], bones[joint - 1], out=joints[joint])
    return joints


def _bone_lengths(target_skeleton, skeleton: Skeleton, like: torch.Tensor) -> torch.Tensor:
    """Return the (J - 1,) bone lengths of a reference pose."""
    pose = torch.as_tensor(target_skeleton).to(device=like.device, dtype=torch.float64)
    if pose.ndim != 2 or pose.shape[0] < skeleton.num_joints or pose.shape[1] != 3:
        raise ValueError(
            f"target_skeleton: got shape {tuple(pose.shape)}; pass ({skeleton.num_joints}, 3), the joints of one "
            "reference frame"
        )
    lengths = (pose[1 : skeleton.num_joints] - pose[list(skeleton.parents[1:])]).square().sum(dim=1).sqrt()
    if not torch.isfinite(lengths).all():
        raise ValueError("target_skeleton: got NaN or infinite joints; pass finite joint positions")
    return lengths.to(like.dtype)


# ---------------------------------------------------------------------------------------------------------------------
# Positions to features
# ---------------------------------------------------------------------------------------------------------------------


def _canonical_joints(
    joints: torch.Tensor, skeleton: Skeleton, target_lengths: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Retarget joints and move them to the floor, starting at the origin and facing Z+.

    Args:
        joints: (J, 3, B, T), overwritten.
        target_lengths: (J - 1,) bone lengths, or None to keep those of the clip.

    Returns:
        joints (J, 3, B, T), unit bone directions (J - 1, 3, B, T), and a mask of zero-length bones (J - 1, B, T).
    """
    parents = torch.tensor(skeleton.parents[1:], device=joints.device)
    bones = joints[1:] - joints.index_select(0, parents)
    lengths = bones.square().sum(dim=1).sqrt_()
    missing = lengths == 0
    bones /= lengths.masked_fill(missing, 1.0).unsqueeze(1)
    root = joints[0]
    if target_lengths is None:
        first = joints[..., 0]
    else:
        leg = [joint - 1 for joint in skeleton.leg_joints]
        source_leg = lengths[leg, :, 0].sum(dim=0)
        scale = torch.where(source_leg == 0, 1.0, target_lengths[leg].sum() / source_leg)
        root = root * scale[:, None]
        target_lengths = target_lengths[:, None, None, None]
        first = _chain_up(root[..., 0], bones[..., 0] * target_lengths[..., 0], skeleton)

    cos, sin = (part[:, None] for part in _facing(first, skeleton))
    bones[:, 0], bones[:, 2] = _turn(bones[:, 0], bones[:, 2], cos, sin)
    if target_lengths is None:
        x, z = joints[:, 0] - root[0, :, :1], joints[:, 2] - root[2, :, :1]
        joints[:, 0], joints[:, 2] = _turn(x, z, cos, sin)
    else:
        x, z = _turn(root[0] - root[0, :, :1], root[2] - root[2, :, :1], cos, sin)
        joints = _chain_up(torch.stack([x, root[1], z]), bones * target_lengths, skeleton)
    joints[:, 1] -= joints[:, 1].amin(dim=(0, 2))[:, None]
    return joints, bones, missing


def _planes(positions: torch.Tensor) -> torch.Tensor:
    """Rearrange (B, T, J, 3) to (J, 3, B, T): one contiguous plane per coordinate of each joint."""
    num_clips, num_frames, num_joints, _ = positions.shape
    rows = positions.reshape(num_clips * num_frames, num_joints * 3)
    return rows.t().contiguous().view(num_joints, 3, num_clips, num_frames)


def _extract(
    positions: torch.Tensor, skeleton: Skeleton, target_lengths: torch.Tensor | None, out: torch.Tensor
) -> None:
    """Write the features of (B, T, J, 3) positions to `out` (B, T - 1, 12 J - 1)."""
    num_clips, num_frames, num_joints, _ = positions.shape
    joints, directions, missing = _canonical_joints(_planes(positions), skeleton, target_lengths)
    cos, sin = _smoothed_heading(joints, skeleton)
    features = joints.new_empty(skeleton.num_features, num_clips, num_frames - 1)
    groups = {group: features[part] for group, part in skeleton.feature_slices.items()}
    steps = joints[..., 1:] - joints[..., :-1]

    root = groups["root"]
    w, y = _half_angle(cos, sin)
    # y part of the quaternion from one heading to the next. As w >= 0, a heading that crosses Z- gets the wrong sign,
    # as in the published features.
    torch.asin((w[:, :-1] * y[:, 1:]).addcmul_(y[:, :-1], w[:, 1:], value=-1).clamp_(-1.0, 1.0), out=root[0])
    _turn(steps[0, 0], steps[0, 2], cos[:, 1:], sin[:, 1:], out=(root[1], root[2]))
    root[3] = joints[0, 1, :, :-1]
    cos, sin = cos[:, :-1], sin[:, :-1]

    local = groups["positions"].view(num_joints - 1, 3, num_clips, num_frames - 1)
    place = joints[0, :, :, :-1]
    others = joints[1:, :, :, :-1]
    _turn(others[:, 0] - place[0], others[:, 2] - place[2], cos, sin, out=(local[:, 0], local[:, 2]))
    local[:, 1] = others[:, 1]

    rotations = groups["rotations"].view(num_joints - 1, 6, num_clips * (num_frames - 1))
    directions = directions[..., :-1].reshape(num_joints - 1, 3, -1)
    missing = missing[..., :-1].reshape(num_joints - 1, -1)
    _local_rotations(directions, missing, cos.reshape(-1), sin.reshape(-1), skeleton, out=rotations)

    velocities = groups["velocities"].view(num_joints, 3, num_clips, num_frames - 1)
    _turn(steps[:, 0], steps[:, 2], cos, sin, out=(velocities[:, 0], velocities[:, 2]))
    velocities[:, 1] = steps[:, 1]

    feet = torch.stack([steps[joint] for joint in skeleton.contact_joints])
    groups["contacts"].copy_(feet.square_().sum(dim=1) < skeleton.foot_velocity_threshold)

    out.view(-1, skeleton.num_features).copy_(features.view(skeleton.num_features, -1).t())


@torch.no_grad()
def positions_to_features(
    positions: torch.Tensor,
    skeleton: str | Skeleton = "humanml3d",
    lengths: torch.Tensor | None = None,
    target_skeleton: torch.Tensor | None = None,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """Convert joint positions to the published features.

    Args:
        positions: (T, J, 3) or (B, T, J, 3) joint positions in the unit and frame rate of the skeleton, Y up.
            float64 stays float64, everything else is computed in float32. Not differentiable.
        skeleton: joint layout or its name.
        lengths: (B,) number of real frames per clip; frames beyond it are ignored, even NaN.
        target_skeleton: (J, 3) joints of a reference frame whose bone lengths every clip is retargeted to, as in the
            published pipeline: bone directions are kept, and the root trajectory is scaled by the ratio of lower-leg
            lengths in the first frame. `None` keeps bones and scale. Joints beyond the first J (hands) are ignored.

    Returns:
        (T - 1, F) or (B, T - 1, F) features, F = 12 J - 1; with `lengths` also the feature lengths `lengths - 1`, with
        zeros beyond them.

    Raises:
        ValueError: if the shape is wrong, a clip has fewer than two frames, or a real frame has NaN or infinity.

    Example:

    ```python
    >>> import torch
    >>> features, lengths = positions_to_features(torch.randn(2, 40, 22, 3), lengths=torch.tensor([40, 25]))
    >>> features.shape, lengths.tolist()
    (torch.Size([2, 39, 263]), [39, 24])

    ```
    """
    skeleton = get_skeleton(skeleton)
    positions = _to_float(positions)
    single = positions.ndim == 3
    positions, lengths = _to_batch(positions, skeleton, lengths, min_frames=2)
    target_lengths = None if target_skeleton is None else _bone_lengths(target_skeleton, skeleton, positions)

    num_clips, num_frames = positions.shape[:2]
    features = positions.new_empty(num_clips, num_frames - 1, skeleton.num_features)
    step = max(1, CHUNK_FRAMES // num_frames)
    for start in range(0, num_clips, step):
        _extract(positions[start : start + step], skeleton, target_lengths, features[start : start + step])
    if lengths is None:
        return features[0] if single else features

    lengths = lengths - 1
    if num_clips and int(lengths.min()) < num_frames - 1:
        frame = torch.arange(num_frames - 1, device=features.device)
        features *= (frame < lengths[:, None]).unsqueeze(-1)
    return (features[0] if single else features), lengths


# ---------------------------------------------------------------------------------------------------------------------
# Features to positions
# ---------------------------------------------------------------------------------------------------------------------


def features_to_positions(features: torch.Tensor, skeleton: str | Skeleton = "humanml3d") -> torch.Tensor:
    """Recover joint positions from root and local-position features, the inverse of [`positions_to_features`].

    Differentiable. Trailing padding is allowed, since a frame depends on earlier frames only.

    Args:
        features: (..., T, F) features, not normalised; only the first 3 J + 1 of the 12 J - 1 features are used.
        skeleton: joint layout or its name.

    Returns:
        (..., T, J, 3) joint positions; the root of the first frame is above the origin.

    Raises:
        ValueError: if the last dimension is not the number of features of the skeleton.
    """
    skeleton = get_skeleton(skeleton)
    features = _to_float(features)
    if features.ndim < 2 or features.shape[-1] != skeleton.num_features:
        raise ValueError(
            f"features: got shape {tuple(features.shape)}; pass (..., frames, {skeleton.num_features}) for skeleton "
            f"{skeleton.name!r}"
        )
    turn, step_x, step_z, height = features[..., :4].unbind(dim=-1)
    # Frame t accumulates the heading changes and displacements of all frames before it.
    angle = F.pad(2 * turn[..., :-1], (1, 0)).cumsum(dim=-1)
    cos, sin = angle.cos(), angle.sin()
    local = features[..., skeleton.feature_slices["positions"]].unflatten(-1, (skeleton.num_joints - 1, 3))
    x, y, z = local.unbind(dim=-1)

    step_x, step_z = F.pad(step_x[..., :-1], (1, 0)), F.pad(step_z[..., :-1], (1, 0))
    root_x = (cos * step_x - sin * step_z).cumsum(dim=-1)
    root_z = (cos * step_z + sin * step_x).cumsum(dim=-1)
    cos, sin = cos.unsqueeze(-1), sin.unsqueeze(-1)
    others = torch.stack(
        [cos * x - sin * z + root_x.unsqueeze(-1), y, cos * z + sin * x + root_z.unsqueeze(-1)], dim=-1
    )
    root = torch.stack([root_x, height, root_z], dim=-1)
    return torch.cat([root.unsqueeze(-2), others], dim=-2)


# ---------------------------------------------------------------------------------------------------------------------
# Positions to positions
# ---------------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def canonicalize(
    positions: torch.Tensor, skeleton: str | Skeleton = "humanml3d", lengths: torch.Tensor | None = None
) -> torch.Tensor:
    """Move each clip to the floor (lowest joint of all frames at 0), with its first root at the origin, facing Z+.

    Args:
        positions: (T, J, 3) or (B, T, J, 3) joint positions, Y up. Not differentiable.
        skeleton: joint layout or its name.
        lengths: (B,) number of real frames per clip; frames beyond it are ignored, even NaN.

    Returns:
        positions of the same shape; frames beyond the length of a clip repeat its last one.

    Raises:
        ValueError: if the shape is wrong, a clip has no frames, or a real frame has NaN or infinity.
    """
    skeleton = get_skeleton(skeleton)
    positions = _to_float(positions)
    single = positions.ndim == 3
    positions, _ = _to_batch(positions, skeleton, lengths, min_frames=1)
    first = positions[:, 0]
    cos, sin = (part[:, None, None] for part in _facing(first.permute(1, 2, 0), skeleton))
    x, y, z = positions.unbind(dim=-1)
    out = torch.empty_like(positions)
    out[..., 0], out[..., 2] = _turn(x - first[:, :1, None, 0], z - first[:, :1, None, 2], cos, sin)
    out[..., 1] = y - y.amin(dim=(1, 2), keepdim=True)
    return out[0] if single else out


def mirror_positions(positions: torch.Tensor, skeleton: str | Skeleton = "humanml3d") -> torch.Tensor:
    """Mirror motions left to right: negate x and swap the joints of each pair. Self-inverse.

    Args:
        positions: (..., J, 3) joint positions.
        skeleton: joint layout or its name.

    Raises:
        ValueError: if the last dimensions are not (J, 3).
    """
    skeleton = get_skeleton(skeleton)
    positions = _to_float(positions)
    if positions.shape[-2:] != (skeleton.num_joints, 3):
        raise ValueError(
            f"positions: got shape {tuple(positions.shape)}; pass (..., {skeleton.num_joints}, 3) for skeleton "
            f"{skeleton.name!r}"
        )
    swap = torch.tensor(skeleton.mirror_permutation, device=positions.device)
    columns = (3 * swap[:, None] + torch.arange(3, device=positions.device)).flatten()
    mirrored = positions.flatten(-2).index_select(-1, columns).view(positions.shape)
    mirrored[..., 0].neg_()
    return mirrored


def retarget_positions(
    positions: torch.Tensor, source: str | Skeleton = "humanml3d", target: str | Skeleton = "kit-ml"
) -> torch.Tensor:
    """Convert joint positions to another joint layout. The body keeps its size, and its left side stays the left one.

    Joints of the same name keep their place, others are interpolated between two joints, see `BETWEEN`. If only one of
    the layouts is left-handed (`Skeleton.is_left_handed`), x is negated. The frame rate is kept, see
    [`resample_positions`].

    Args:
        positions: (..., J, 3) joint positions in metres.
        source: joint layout of the positions, or its name.
        target: joint layout of the result, or its name.

    Returns:
        (..., J', 3) joint positions in metres.

    Raises:
        ValueError: if the shape is not that of the source layout, or a layout is unknown.

    Example:

    ```python
    >>> retarget_positions(torch.zeros(40, 22, 3), "humanml3d", "kit-ml").shape
    torch.Size([40, 21, 3])

    ```
    """
    source, target = get_skeleton(source), get_skeleton(target)
    positions = _to_float(positions)
    if positions.shape[-2:] != (source.num_joints, 3):
        raise ValueError(
            f"positions: got shape {tuple(positions.shape)}; pass (..., {source.num_joints}, 3) for skeleton "
            f"{source.name!r}"
        )
    place = {name: number for number, name in enumerate(source.joint_names)}
    sources = [(name, name, 0.0) if name in place else BETWEEN[name] for name in target.joint_names]
    first = [place[one] for one, _, _ in sources]
    second = [place[other] for _, other, _ in sources]
    share = positions.new_tensor([way for _, _, way in sources])[:, None]
    converted = torch.lerp(positions[..., first, :], positions[..., second, :], share)
    if source.is_left_handed != target.is_left_handed:
        converted[..., 0].neg_()
    return converted


def resampled_length(num_frames: int, fps: float, target_fps: float) -> int:
    """Return the number of frames after `resample_positions`; arguments as there."""
    for name, rate in (("fps", fps), ("target_fps", target_fps)):
        if not FPS_RANGE[0] <= rate <= FPS_RANGE[1]:  # also NaN
            low, high = FPS_RANGE
            raise ValueError(f"{name}: got {rate}; pass a positive number of frames per second, {low:g} to {high:g}")
    if fps == target_fps:
        return num_frames
    # A rate with few digits (1 / 0.0333333) must not drop a last frame just beyond the end of the clip.
    return math.floor((num_frames - 1) * target_fps / fps + 1e-3) + 1


def resample_positions(
    positions: torch.Tensor, fps: float, target_fps: float, start: int = 0, most: int | None = None
) -> torch.Tensor:
    """Resample to another frame rate by linear interpolation; frames at common times keep their values.

    Args:
        positions: (T, J, 3) joint positions of one clip.
        fps: frames per second of `positions`.
        target_fps: frames per second of the result.
        start, most: first frame of the result to compute, and how many; None computes all others.

    Returns:
        (T', J, 3), one frame every 1 / target_fps seconds from the first frame to at most the last (tolerance 0.001
        frames, as rates are often given with few digits).

    Raises:
        ValueError: if a rate is not in `FPS_RANGE`, or positions have no frames.
    """
    positions = _to_float(positions)
    if positions.ndim != 3 or not len(positions):
        raise ValueError(f"positions: got shape {tuple(positions.shape)}; pass (frames, joints, 3)")
    num_frames = resampled_length(len(positions), fps, target_fps)
    end = num_frames if most is None else min(start + most, num_frames)
    if fps == target_fps:
        return positions if (start, end) == (0, num_frames) else positions[start:end]
    last = len(positions) - 1
    time = torch.arange(start, end, dtype=torch.float64, device=positions.device) * (fps / target_fps)
    before = time.floor().long().clamp_(max=last)
    weight = (time - before).clamp_(0.0, 1.0).to(positions.dtype)[:, None, None]
    return torch.lerp(positions[before], positions[(before + 1).clamp_(max=last)], weight)


def rotate_yaw(positions: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Rotate clips about the vertical axis through the origin, counter-clockwise seen from above.

    Args:
        positions: (B, T, J, 3) joint positions, Y up.
        angles: (B,) radians; pi / 2 turns Z+ to X+.

    Raises:
        ValueError: if the shape is wrong, or the number of angles is not the number of clips.
    """
    positions = _to_float(positions)
    angles = torch.as_tensor(angles, dtype=positions.dtype, device=positions.device).reshape(-1)
    if positions.ndim != 4 or positions.shape[-1] != 3 or len(angles) != len(positions):
        raise ValueError(
            f"positions, angles: got shape {tuple(positions.shape)} and {len(angles)} angle(s); pass (clips, frames, "
            "joints, 3) and one angle per clip"
        )
    x, y, z = positions.unbind(dim=-1)
    cos, sin = angles.cos()[:, None, None], angles.sin()[:, None, None]
    return torch.stack([cos * x + sin * z, y, cos * z - sin * x], dim=-1)
