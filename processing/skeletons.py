"""Joint layouts of the public motion-language corpora.

A [`Skeleton`] holds, for one layout, joint names, parents and mirror pairs, frame rate and unit of the corpus, and the
constants of its published feature pipeline. The rest of the package uses it instead of hard-coded joint numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

REPRESENTATIONS = ("positions", "humanml3d", "joint_angles")

BODY_PARTS = ("right_leg", "left_leg", "torso", "right_arm", "left_arm")

# Parts of the representation "joint_angles": a joint, or neighbouring joints that move together.
JOINT_PARTS = (
    "pelvis",
    "spine",
    "chest",
    "neck_head",
    "left_collar",
    "right_collar",
    "left_shoulder",
    "right_shoulder",
    "left_elbow_wrist",
    "right_elbow_wrist",
    "left_hip",
    "right_hip",
    "left_knee_ankle",
    "right_knee_ankle",
)


@dataclass(frozen=True)
class Skeleton:
    """One joint layout and the constants of its published feature pipeline.

    Args:
        name: identifier, `"humanml3d"` or `"kit-ml"`.
        joint_names: name of each joint; index = joint number. Left and right are those of the source recordings.
        parents: parent of each joint, -1 for the root. Parents precede their children in every chain.
        chains: the five kinematic chains, in the order of the published code (legs, spine, arms). A chain starts at
            the joint it is attached to; inverse kinematics starts every chain from the rotation of the root.
        parts: body part -> joints, in the order of [`BODY_PARTS`]. Parts overlap where limbs attach.
        mirror_pairs: (left, right) joints that swap when a motion is mirrored; all others are on the midline.
        fps: frames per second of the corpus.
        metres_per_unit: length of one position unit in metres.
        raw_offsets: direction (unit axis) of each joint from its parent in the rest pose, zero for the root.
        face_joints: hips, then shoulders, ordered so that up x (first - second) points forward for both pairs.
        contact_joints: ankle and toe joints in the order of the last four features.
        foot_velocity_threshold: a foot is in contact if its squared displacement per frame, in squared units, is
            below this.
        leg_joints: lower-leg joints whose bone lengths scale the root trajectory in retargeting.

    Example:

    ```python
    >>> skeleton = get_skeleton("humanml3d")
    >>> skeleton.num_joints, skeleton.num_features
    (22, 263)
    >>> skeleton.joint_names[skeleton.parts["left_leg"][-1]]
    'left_foot'

    ```
    """

    name: str
    joint_names: tuple[str, ...]
    parents: tuple[int, ...]
    chains: tuple[tuple[int, ...], ...]
    parts: dict[str, tuple[int, ...]]
    mirror_pairs: tuple[tuple[int, int], ...]
    fps: float
    metres_per_unit: float
    raw_offsets: tuple[tuple[float, float, float], ...]
    face_joints: tuple[int, int, int, int]
    contact_joints: tuple[int, int, int, int]
    foot_velocity_threshold: float
    leg_joints: tuple[int, int]

    def __hash__(self) -> int:
        return hash(self.name)

    @property
    def num_joints(self) -> int:
        return len(self.joint_names)

    @property
    def num_features(self) -> int:
        """12 J - 1: 4 for the root, 3 + 6 per other joint, 3 velocities per joint, 4 foot contacts."""
        return 12 * self.num_joints - 1

    @property
    def is_left_handed(self) -> bool:
        """Whether the coordinates are a mirror image: the left of a body that faces Z+ is at X-, not at X+."""
        return self.joint_names[self.face_joints[0]].startswith("left")

    @cached_property
    def mirror_permutation(self) -> list[int]:
        """Self-inverse permutation: joint `j` of a mirrored motion is joint `permutation[j]` of the original."""
        permutation = list(range(self.num_joints))
        for left, right in self.mirror_pairs:
            permutation[left], permutation[right] = right, left
        return permutation

    @cached_property
    def bones(self) -> tuple[tuple[int, int], ...]:
        """(parent, joint) of every bone, in ascending order of joints."""
        return tuple((parent, joint) for joint, parent in enumerate(self.parents) if parent >= 0)

    @cached_property
    def feature_slices(self) -> dict[str, slice]:
        """Slices of `root`, `positions`, `rotations`, `velocities` and `contacts` in the 12 J - 1 features."""
        sizes = {
            "root": 4,
            "positions": 3 * (self.num_joints - 1),
            "rotations": 6 * (self.num_joints - 1),
            "velocities": 3 * self.num_joints,
            "contacts": 4,
        }
        slices, start = {}, 0
        for group, size in sizes.items():
            slices[group] = slice(start, start + size)
            start += size
        return slices

    def part_feature_indices(self, representation: str) -> list[list[int]]:
        """Return the feature indices of each body part, in the order of [`BODY_PARTS`].

        Every feature belongs to at least one part: features and velocity of the root to the torso, foot contacts to
        their leg.

        Args:
            representation: `"positions"` (3 J features, joint-major) or `"humanml3d"` (12 J - 1 features).

        Returns:
            five ascending lists of indices.

        Raises:
            ValueError: if the representation is unknown.
        """
        if representation == "positions":
            return [sorted(3 * joint + axis for joint in part for axis in range(3)) for part in self.parts.values()]
        if representation != "humanml3d":
            raise ValueError(f"representation: {representation!r} has no body parts; pass 'positions' or 'humanml3d'")

        start = {group: part.start for group, part in self.feature_slices.items()}
        indices = []
        for part, joints in self.parts.items():
            features: list[int] = []
            for joint in joints:
                if joint > 0:
                    features += range(start["positions"] + 3 * (joint - 1), start["positions"] + 3 * joint)
                    features += range(start["rotations"] + 6 * (joint - 1), start["rotations"] + 6 * joint)
                if joint > 0 or part == "torso":
                    features += range(start["velocities"] + 3 * joint, start["velocities"] + 3 * joint + 3)
            if part == "torso":
                features += range(4)
            if part.endswith("leg"):
                features += [
                    start["contacts"] + place for place, joint in enumerate(self.contact_joints) if joint in joints
                ]
            indices.append(sorted(features))
        return indices


def _parents(chains: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
    parents = {0: -1}
    for chain in chains:
        parents.update(zip(chain[1:], chain[:-1], strict=True))
    return tuple(parents[joint] for joint in range(len(parents)))


_X, _Y, _Z = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
_NEG_X, _NEG_Y, _ORIGIN = (-1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, 0.0)

_HUMANML3D_CHAINS = (
    (0, 2, 5, 8, 11),
    (0, 1, 4, 7, 10),
    (0, 3, 6, 9, 12, 15),
    (9, 14, 17, 19, 21),
    (9, 13, 16, 18, 20),
)

HUMANML3D = Skeleton(
    name="humanml3d",
    joint_names=(
        "pelvis",
        "left_hip",
        "right_hip",
        "spine1",
        "left_knee",
        "right_knee",
        "spine2",
        "left_ankle",
        "right_ankle",
        "spine3",
        "left_foot",
        "right_foot",
        "neck",
        "left_collar",
        "right_collar",
        "head",
        "left_shoulder",
        "right_shoulder",
        "left_elbow",
        "right_elbow",
        "left_wrist",
        "right_wrist",
    ),
    parents=_parents(_HUMANML3D_CHAINS),
    chains=_HUMANML3D_CHAINS,
    parts=dict(zip(BODY_PARTS, _HUMANML3D_CHAINS, strict=True)),
    mirror_pairs=((1, 2), (4, 5), (7, 8), (10, 11), (13, 14), (16, 17), (18, 19), (20, 21)),
    fps=20.0,
    metres_per_unit=1.0,
    raw_offsets=(
        _ORIGIN,  # pelvis
        _X,  # hips
        _NEG_X,
        _Y,  # spine1
        _NEG_Y,  # knees
        _NEG_Y,
        _Y,  # spine2
        _NEG_Y,  # ankles
        _NEG_Y,
        _Y,  # spine3
        _Z,  # feet
        _Z,
        _Y,  # neck
        _X,  # collars
        _NEG_X,
        _Z,  # head
        _NEG_Y,  # shoulders, elbows, wrists
        _NEG_Y,
        _NEG_Y,
        _NEG_Y,
        _NEG_Y,
        _NEG_Y,
    ),
    face_joints=(2, 1, 17, 16),
    contact_joints=(7, 10, 8, 11),
    foot_velocity_threshold=0.002,
    leg_joints=(5, 8),
)

_KIT_ML_CHAINS = ((0, 11, 12, 13, 14, 15), (0, 16, 17, 18, 19, 20), (0, 1, 2, 3, 4), (3, 5, 6, 7), (3, 8, 9, 10))

# The recordings name joints 5-7 and 11-15 left ("LS" ... "LF" in the Master Motor Map files), and so does this layout,
# since captions describe the recordings. In the corpus a body facing Z+ has these joints at X-, so the published
# feature code, which assumes a right-handed frame, calls them right. This affects only the order of `face_joints`,
# `contact_joints` and `chains`, which is kept because feature columns depend on it.
KIT_ML = Skeleton(
    name="kit-ml",
    joint_names=(
        "pelvis",
        "spine1",
        "spine2",
        "neck",
        "head",
        "left_shoulder",
        "left_elbow",
        "left_wrist",
        "right_shoulder",
        "right_elbow",
        "right_wrist",
        "left_hip",
        "left_knee",
        "left_ankle",
        "left_midfoot",
        "left_foot",
        "right_hip",
        "right_knee",
        "right_ankle",
        "right_midfoot",
        "right_foot",
    ),
    parents=_parents(_KIT_ML_CHAINS),
    chains=_KIT_ML_CHAINS,
    parts={
        "right_leg": _KIT_ML_CHAINS[1],
        "left_leg": _KIT_ML_CHAINS[0],
        "torso": _KIT_ML_CHAINS[2],
        "right_arm": _KIT_ML_CHAINS[4],
        "left_arm": _KIT_ML_CHAINS[3],
    },
    mirror_pairs=((5, 8), (6, 9), (7, 10), (11, 16), (12, 17), (13, 18), (14, 19), (15, 20)),
    fps=12.5,
    metres_per_unit=0.001,
    raw_offsets=(
        _ORIGIN,  # pelvis
        _Y,  # spine1, spine2, neck, head
        _Y,
        _Y,
        _Y,
        _X,  # left arm
        _NEG_Y,
        _NEG_Y,
        _NEG_X,  # right arm
        _NEG_Y,
        _NEG_Y,
        _X,  # left leg
        _NEG_Y,
        _NEG_Y,
        _Z,
        _Z,
        _NEG_X,  # right leg
        _NEG_Y,
        _NEG_Y,
        _Z,
        _Z,
    ),
    face_joints=(11, 16, 5, 8),
    contact_joints=(19, 20, 14, 15),
    foot_velocity_threshold=0.05,
    leg_joints=(17, 18),
)

SKELETONS: dict[str, Skeleton] = {skeleton.name: skeleton for skeleton in (HUMANML3D, KIT_ML)}


def get_skeleton(name: str | Skeleton) -> Skeleton:
    """Return the skeleton with this name; a [`Skeleton`] is returned as is.

    Raises:
        ValueError: if no skeleton has this name.
    """
    if isinstance(name, Skeleton):
        return name
    try:
        return SKELETONS[name]
    except (KeyError, TypeError):
        raise ValueError(f"skeleton: got {name!r}; pass one of {', '.join(SKELETONS)}") from None


def part_names(num_parts: int) -> list[str]:
    """Return readable names for this many body parts: [`BODY_PARTS`], [`JOINT_PARTS`], else numbers from 1."""
    for names in (BODY_PARTS, JOINT_PARTS):
        if num_parts == len(names):
            return [name.replace("_", " ") for name in names]
    return [f"part {number + 1}" for number in range(num_parts)]


def skeleton_for_joints(num_joints: int) -> Skeleton:
    """Return the skeleton with this many joints.

    Raises:
        ValueError: if no skeleton has this many joints.
    """
    for skeleton in SKELETONS.values():
        if skeleton.num_joints == num_joints:
            return skeleton
    known = ", ".join(f"{skeleton.num_joints} ({skeleton.name})" for skeleton in SKELETONS.values())
    raise ValueError(f"no skeleton has {num_joints} joints; retarget the motion to one of {known}")
