"""Joint layouts of the public motion-language corpora.

A [`Skeleton`] says, for one layout, what the joints are called, how they hang together, which of them mirror each
other, how fast and in which unit the corpus was recorded, and the constants its published feature pipeline uses.
Everything else in the package asks a skeleton instead of knowing joint numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

REPRESENTATIONS = ("positions", "humanml3d", "joint_angles")

BODY_PARTS = ("right_leg", "left_leg", "torso", "right_arm", "left_arm")

# Parts of the representation "joint_angles": a joint, or neighbours that move as one.
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
        name: Identifier, `"humanml3d"` or `"kit-ml"`.
        joint_names: Name of each joint; index = joint number. Left and right are those of the source recordings.
        parents: Parent joint of each joint, -1 for the root. Parents come before their children along every chain.
        chains: The five kinematic chains, in the order of the published code (legs, spine, arms). A chain starts at
            the joint it hangs from; the inverse kinematics starts every chain from the root's rotation.
        parts: Joints of each body part, keyed by [`BODY_PARTS`] in that order. Parts overlap where limbs attach.
        mirror_pairs: (left, right) joints that swap when a motion is mirrored; the others lie on the body's middle.
        fps: Frames per second of the corpus.
        metres_per_unit: Length of one position unit in metres.
        raw_offsets: Direction (unit axis) of each joint from its parent in the rest pose, zero for the root.
        face_joints: Hips, then shoulders, ordered such that up x (first - second) points forward for both pairs.
        contact_joints: Ankle and toe joints in the order of the last four features.
        foot_velocity_threshold: A foot touches the ground where the squared length of its displacement over one
            frame, in units squared, is below this.
        leg_joints: Lower-leg joints whose bone lengths scale the root trajectory when a motion is retargeted.

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
        """4 for the root, 3 + 6 for each other joint, 3 velocities a joint, 4 foot contacts: 12 J - 1."""
        return 12 * self.num_joints - 1

    @cached_property
    def mirror_permutation(self) -> list[int]:
        """`permutation[j]` is the joint whose mirrored position joint `j` takes; its own inverse."""
        permutation = list(range(self.num_joints))
        for left, right in self.mirror_pairs:
            permutation[left], permutation[right] = right, left
        return permutation

    @cached_property
    def bones(self) -> tuple[tuple[int, int], ...]:
        """(parent, joint) of every bone, joints ascending."""
        return tuple((parent, joint) for joint, parent in enumerate(self.parents) if parent >= 0)

    @cached_property
    def feature_slices(self) -> dict[str, slice]:
        """Where `root`, `positions`, `rotations`, `velocities` and `contacts` lie in the 12 J - 1 features."""
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
        """Flat feature numbers that belong to each body part, in the order of [`BODY_PARTS`].

        Every feature belongs to at least one part. The root's own features and velocity go with the torso, foot
        contacts with their leg.

        Args:
            representation: `"positions"` (3 J features, joint-major) or `"humanml3d"` (12 J - 1 features).

        Returns:
            Five ascending lists of indices.

        Raises:
            ValueError: The representation is unknown.
        """
        if representation == "positions":
            return [sorted(3 * joint + axis for joint in part for axis in range(3)) for part in self.parts.values()]
        if representation != "humanml3d":
            raise ValueError(f"{representation!r} has no body parts by joint: choose 'positions' or 'humanml3d'.")

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

# The recordings name joints 5-7 and 11-15 left ("LS" ... "LF" in the Master Motor Map files), and so does this layout:
# captions were written about the recordings. In the corpus a body that faces Z+ has these joints at X-, so the
# published feature code, which assumes a right-handed frame, calls them right. Only the order of `face_joints`,
# `contact_joints` and `chains` follows from that; it is kept, because feature columns depend on it.
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
    """Look a skeleton up by name; a [`Skeleton`] is handed through.

    Raises:
        ValueError: No skeleton has this name.
    """
    if isinstance(name, Skeleton):
        return name
    try:
        return SKELETONS[name]
    except (KeyError, TypeError):
        raise ValueError(f"Unknown skeleton {name!r}: choose one of {', '.join(SKELETONS)}.") from None


def part_names(num_parts: int) -> list[str]:
    """Body parts as words, of a grid with this many: [`BODY_PARTS`], [`JOINT_PARTS`], else numbers from 1."""
    for names in (BODY_PARTS, JOINT_PARTS):
        if num_parts == len(names):
            return [name.replace("_", " ") for name in names]
    return [f"part {number + 1}" for number in range(num_parts)]


def skeleton_for_joints(num_joints: int) -> Skeleton:
    """The skeleton with this many joints.

    Raises:
        ValueError: No skeleton has this many joints.
    """
    for skeleton in SKELETONS.values():
        if skeleton.num_joints == num_joints:
            return skeleton
    known = ", ".join(f"{skeleton.num_joints} ({skeleton.name})" for skeleton in SKELETONS.values())
    raise ValueError(f"No skeleton has {num_joints} joints; known are {known}. Retarget the motion to one of them.")
