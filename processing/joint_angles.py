"""Conversion of joint positions to joint angles in 14 body parts, batched in torch: representation `"joint_angles"`.

Written from the description of the joint-angle image of MotionColBert (29 angles in 14 parts). No angle wraps: a joint
with two or three degrees of freedom is the **unit direction of its bone in the frame of the previous bone**, so that
flexion and abduction are continuous everywhere. The columns of a frame, by part:

| part | columns |
|---|---|
| pelvis | trajectory (see below); vertical axis in the pelvis frame: tilt |
| spine | bones of the spine below the chest, in the pelvis frame |
| chest | up and left of the chest in the pelvis frame: flexion, side bend and twist as a continuous rotation |
| neck head | neck to head, in the chest frame |
| collar | base of the arm to shoulder, in the chest frame |
| shoulder | upper arm in the chest frame; rotation |
| elbow wrist | flexion (rad); forearm in the chest frame |
| hip | thigh in the pelvis frame; rotation |
| knee ankle | flexion (rad); shank in the pelvis frame; ankle to toe in the shank frame |

* The trajectory is the height of the root above the floor of the clip (m), its displacement to the next frame along
  left, up and forward of the heading of hips and shoulders (m), and the heading change to the next frame (rad, left).
* Flexion is the angle between the two bones of a limb, 0 for a straight limb. It is in [0, pi], so it cannot wrap.
* Rotation, the twist of the upper arm or thigh, is visible in the plane in which the limb is bent. It is the direction
  of that plane times the sine of the flexion: two numbers that vanish for a straight limb, whose twist is unknown,
  instead of an angle that would jump there.
* The frame of a thigh, shank or upper arm is that of pelvis or chest, rotated the shortest way from the rest direction
  of the limb (thighs down, arms sideways) to the bone.
* Limbs of both sides are measured outward, up and forward. Mirroring a motion thus swaps the columns of left and right
  parts, and negates leftward components of the middle parts.
* All columns are independent of position and heading; only height and displacement depend on body size.
* Coincident joints have no direction: such a bone gets its rest direction; without hips or spine the values are zero.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F

from .motion_features import canonicalize
from .skeletons import JOINT_PARTS, Skeleton, get_skeleton

SHORTEST_BONE = 1e-6  # metres; shorter bones have no direction
CHUNK_FRAMES = 8192  # frames processed at once; bounds the memory of large batches

MIDDLE = ("left", "up", "forward")
SIDE = ("out", "up", "forward")


class Quantity(NamedTuple):
    """Related columns of one part: a number, or components along `axes`."""

    part: str
    name: str
    axes: tuple[str, ...] = ()

    @property
    def is_direction(self) -> bool:
        """Whether the columns are a unit vector."""
        return len(self.axes) == 3 and self.name != "velocity"


def quantities(skeleton: str | Skeleton) -> list[Quantity]:
    """Return the quantities of a frame, in the order of the columns and of [`JOINT_PARTS`]."""
    spine = _spine(get_skeleton(skeleton))
    found = [
        Quantity("pelvis", "height"),
        Quantity("pelvis", "velocity", MIDDLE),
        Quantity("pelvis", "turn"),
        Quantity("pelvis", "vertical", MIDDLE),
        *(Quantity("spine", f"bone{number + 1}", MIDDLE) for number in range(len(spine) - 1)),
        Quantity("chest", "up", MIDDLE),
        Quantity("chest", "left", MIDDLE),
        Quantity("neck_head", "head", MIDDLE),
    ]
    limbs = {
        "collar": (("collar", SIDE),),
        "shoulder": (("upper_arm", SIDE), ("rotation", ("up", "forward"))),
        "elbow_wrist": (("flexion", ()), ("forearm", SIDE)),
        "hip": (("thigh", SIDE), ("rotation", ("out", "forward"))),
        "knee_ankle": (("flexion", ()), ("shank", SIDE), ("foot", SIDE)),
    }
    for joint, measured in limbs.items():
        for side in ("left", "right"):
            found += [Quantity(f"{side}_{joint}", name, axes) for name, axes in measured]
    return found


def column_names(skeleton: str | Skeleton = "humanml3d") -> list[str]:
    """Return the name of every column: part, quantity and axis.

    Example:

    ```python
    >>> column_names()[:3], len(column_names()), len(column_names("kit-ml"))
    (['pelvis_height', 'pelvis_velocity_left', 'pelvis_velocity_up'], 71, 68)

    ```
    """
    return [
        "_".join((part, name, axis)) if axis else f"{part}_{name}"
        for part, name, axes in quantities(skeleton)
        for axis in axes or ("",)
    ]


def part_columns(skeleton: str | Skeleton = "humanml3d") -> list[list[int]]:
    """Return the columns of each body part, in the order of [`JOINT_PARTS`]; every column belongs to one part."""
    owners = [quantity.part for quantity in quantities(skeleton) for _ in quantity.axes or ("",)]
    return [[column for column, owner in enumerate(owners) if owner == part] for part in JOINT_PARTS]


def direction_columns(skeleton: str | Skeleton = "humanml3d") -> list[int]:
    """Return the columns of unit vectors, in groups of three; small distances between them are angles in radians."""
    kinds = [quantity.is_direction for quantity in quantities(skeleton) for _ in quantity.axes or ("",)]
    return [column for column, is_direction in enumerate(kinds) if is_direction]


def _spine(skeleton: Skeleton) -> tuple[int, ...]:
    """Return the joints above the pelvis, up to the one at the chest."""
    return skeleton.parts["torso"][1:-2]


class Landmarks(NamedTuple):
    """Joint numbers; limbs as (left, right). Joints of a limb are in order from the body: hip, knee, ankle, toe."""

    spine: list[int]
    neck: int
    head: int
    chest: list[int]
    collars: list[list[int]]
    arms: list[list[int]]
    legs: list[list[int]]

    @classmethod
    def of(cls, skeleton: Skeleton) -> Landmarks:
        def both(*joints: str) -> list[list[int]]:
            return [[skeleton.joint_names.index(f"{side}_{joint}") for side in ("left", "right")] for joint in joints]

        arms, legs = both("shoulder", "elbow", "wrist"), both("hip", "knee", "ankle", "foot")
        base = [skeleton.parents[joint] for joint in arms[0]]
        chest = base if base[0] != base[1] else arms[0]  # collars, if any, are part of the chest
        *_, neck, head = skeleton.parts["torso"]
        return cls(list(_spine(skeleton)), neck, head, chest, [base, arms[0]], arms, legs)


# ---------------------------------------------------------------------------------------------------------------------
# Vectors are (..., 3, N); frames are (..., 3, 3, N) with rows left (or out), up and forward, all unit vectors.
# ---------------------------------------------------------------------------------------------------------------------


def _dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a * b).sum(dim=-2, keepdim=True)


def _unit(vectors: torch.Tensor, rest: torch.Tensor | float = 0.0) -> torch.Tensor:
    """Return unit directions, or `rest` for vectors that are too short."""
    length = _dot(vectors, vectors).sqrt()
    return torch.where(length < SHORTEST_BONE, rest, vectors / length.clamp(min=SHORTEST_BONE))


def _frame(left: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    left = _unit(left)
    up = _unit(up - _dot(up, left) * left)
    return torch.stack([left, up, torch.linalg.cross(left, up, dim=-2)], dim=-3)


def _within(vectors: torch.Tensor, frame: torch.Tensor) -> torch.Tensor:
    """Return the (..., 3, N) components of vectors along the axes of a frame."""
    return _dot(vectors.unsqueeze(-3), frame).squeeze(-2)


def _carried(frame: torch.Tensor, start: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
    """Rotate a frame by the shortest rotation from unit vector `start` to `end`.

    For opposite vectors no shortest rotation exists; the result is still a frame, but flips.
    """
    start, end = start.unsqueeze(-3), end.unsqueeze(-3)
    half = start + end
    # 1 + cos = |start + end|^2 / 2, without cancellation near the opposite direction.
    share = 2.0 * _dot(frame, half) / _dot(half, half).clamp(min=torch.finfo(frame.dtype).tiny)
    return frame - share * half + 2.0 * _dot(frame, start) * end


def _flexion(across: torch.Tensor, along: torch.Tensor) -> torch.Tensor:
    return torch.atan2(across.square().sum(dim=-2, keepdim=True).sqrt(), along)


def _root(joints: torch.Tensor, at: Landmarks, pelvis: torch.Tensor, num_frames: int) -> list[torch.Tensor]:
    """Return the rows of the part "pelvis"; the last frame of a clip gets zero displacement."""
    (left_hip, right_hip), (left_shoulder, right_shoulder) = at.legs[0], at.arms[0]
    across = joints[left_hip] - joints[right_hip] + joints[left_shoulder] - joints[right_shoulder]
    floor = _unit(torch.stack([across[0], torch.zeros_like(across[1]), across[2]]))
    left_x, left_z = (floor[axis].unflatten(-1, (-1, num_frames)) for axis in (0, 2))
    x, y, z = joints[0].unflatten(-1, (-1, num_frames)).diff(dim=-1)
    now_x, now_z, next_x, next_z = left_x[:, :-1], left_z[:, :-1], left_x[:, 1:], left_z[:, 1:]
    steps = torch.stack(
        [
            x * now_x + z * now_z,
            y,
            z * now_x - x * now_z,
            torch.atan2(now_z * next_x - now_x * next_z, now_x * next_x + now_z * next_z),
        ]
    )
    return [joints[0, 1:2], F.pad(steps, (0, 1)).flatten(1), pelvis[:, 1]]


def _extract(positions: torch.Tensor, at: Landmarks) -> torch.Tensor:
    """Compute (B, T, F) columns of (B, T, J, 3) positions, with left at X+ for a body facing Z+."""
    num_clips, num_frames = positions.shape[:2]
    joints = positions.flatten(0, 1).permute(1, 2, 0).contiguous()  # (J, 3, N)
    pelvis = _frame(joints[at.legs[0][0]] - joints[at.legs[0][1]], joints[at.spine[0]] - joints[0])
    chest = _frame(joints[at.chest[0]] - joints[at.chest[1]], joints[at.neck] - joints[at.spine[-1]])
    rows = _root(joints, at, pelvis, num_frames)

    frame = pelvis
    for start, end in zip(at.spine[:-1], at.spine[1:], strict=True):
        bone = _unit(joints[end] - joints[start], frame[1])
        rows.append(_within(bone, frame))
        frame = _carried(frame, frame[1], bone)
    rows += [_within(chest[1], pelvis), _within(chest[0], pelvis)]
    rows.append(_within(_unit(joints[at.head] - joints[at.neck], chest[1]), chest))

    # Limbs: left and right at once, (2, 3, N), in frames whose first axis points outward.
    outwards = joints.new_tensor([[1.0, 1.0, 1.0], [-1.0, 1.0, 1.0]])[..., None, None]
    chest, pelvis = chest * outwards, pelvis * outwards
    base, shoulder, elbow, wrist = (joints[pair] for pair in (at.collars[0], *at.arms))
    collar = _within(_unit(shoulder - base, chest[:, 0]), chest)
    upper = _unit(elbow - shoulder, chest[:, 0])
    forearm = _unit(wrist - elbow, upper)
    bent = _within(forearm, _carried(chest, chest[:, 0], upper))
    along, across = bent[:, :1], bent[:, 1:]
    arm = [collar, torch.cat([_within(upper, chest), across], dim=1)]
    arm.append(torch.cat([_flexion(across, along), _within(forearm, chest)], dim=1))

    hip, knee, ankle, toe = (joints[pair] for pair in at.legs)
    thigh = _unit(knee - hip, -pelvis[:, 1])
    shank = _unit(ankle - knee, thigh)
    frame = _carried(pelvis, -pelvis[:, 1], thigh)
    bent = _within(shank, frame)
    along, across = -bent[:, 1:2], bent[:, ::2]
    frame = _carried(frame, thigh, shank)
    foot = _within(_unit(toe - ankle, frame[:, 2]), frame)
    leg = [torch.cat([_within(thigh, pelvis), across], dim=1)]
    leg.append(torch.cat([_flexion(across, along), _within(shank, pelvis), foot], dim=1))

    rows += [limb.flatten(0, 1) for limb in (*arm, *leg)]
    return torch.cat(rows).t().unflatten(0, (num_clips, num_frames))


@torch.no_grad()
def positions_to_joint_angles(
    positions: torch.Tensor,
    skeleton: str | Skeleton = "humanml3d",
    lengths: torch.Tensor | None = None,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """Convert joint positions to joint angles by body part; see the module docstring for the columns.

    Args:
        positions: (T, J, 3) or (B, T, J, 3) joint positions in metres, Y up. float64 stays float64, everything else
            is computed in float32. Not differentiable.
        skeleton: joint layout or its name.
        lengths: (B,) number of real frames per clip; frames beyond it are ignored, even NaN.

    Returns:
        (T - 1, F) or (B, T - 1, F), since velocities use the next frame; F is 71 for `"humanml3d"`, 68 for
        `"kit-ml"`. With `lengths` also `lengths - 1`, with zeros beyond them.

    Raises:
        ValueError: if the shape is wrong, a clip has fewer than two frames, or a real frame has NaN or infinity.

    Example:

    ```python
    >>> import torch
    >>> values, lengths = positions_to_joint_angles(torch.randn(2, 40, 22, 3), lengths=torch.tensor([40, 25]))
    >>> values.shape, lengths.tolist()
    (torch.Size([2, 39, 71]), [39, 24])

    ```
    """
    skeleton = get_skeleton(skeleton)
    positions = canonicalize(positions, skeleton, lengths)
    single = positions.ndim == 3
    if single:
        positions = positions[None]
    if skeleton.is_left_handed:  # reflect it to match the other layouts
        positions = positions * positions.new_tensor([-1.0, 1.0, 1.0])
    num_clips, num_frames = positions.shape[:2]
    counts = None if lengths is None else torch.as_tensor(lengths, dtype=torch.int64, device=positions.device).view(-1)
    shortest = num_frames if counts is None or not num_clips else int(counts.min())
    if shortest < 2:
        clip = 0 if counts is None else int(counts.argmin())
        raise ValueError(
            f"clip {clip}: got {shortest} frame, need at least 2; remove such clips, as velocities describe the step "
            "from one frame to the next"
        )
    at = Landmarks.of(skeleton)
    values = positions.new_empty(num_clips, num_frames - 1, len(column_names(skeleton)))
    step = max(1, CHUNK_FRAMES // num_frames)
    for start in range(0, num_clips, step):
        values[start : start + step] = _extract(positions[start : start + step], at)[:, :-1]
    if counts is None:
        return values[0] if single else values
    counts = counts - 1
    values *= (torch.arange(num_frames - 1, device=values.device) < counts[:, None]).unsqueeze(-1)
    return (values[0] if single else values), counts
