"""Inverse kinematics: from joint positions to a BVH skeleton with rotations, by the directions of the bones.

The rest pose is a T-pose, except that bones which leave one joint together (hips and spine, neck and collars) keep
their angles of the motion. A joint with several bones has the rotation that fits them best (Davenport's q-method), a
joint with one bone the smallest rotation that gives its direction.
"""

from __future__ import annotations

import numpy as np

from ..skeletons import Skeleton
from .kinematics import BVH, END_SUFFIX, multiply, rotate

RIGID = 1e-5  # metres; bones of one joint that move further against each other get a helper joint each
LEAF_LENGTH = 0.1  # metres from the last joint of a chain to its end site
HELPER_SUFFIX = "_base"
ROOT_CHANNELS = ("Xposition", "Yposition", "Zposition", "Zrotation", "Yrotation", "Xrotation")
JOINT_CHANNELS = ROOT_CHANNELS[3:]

_SMALL = 1e-9
_FITS = 3  # rounds of aligning all frames with their mean


def positions_to_bvh(positions: np.ndarray, skeleton: Skeleton, fps: float, metres_per_unit: float = 1.0) -> BVH:
    """Find offsets and rotations that reproduce joint positions.

    Args:
        positions: (T, J, 3) metres, Y up, finite.
        skeleton: joint layout.
        fps: frames per second.
        metres_per_unit: unit of the result.

    Returns:
        The skeleton's joints by name, and helper joints at the place of their parent. Bones have their median length.
    """
    solver = _Solver(np.asarray(positions, dtype=np.float64), skeleton)
    solver.add(0, -1, np.zeros(3))
    values = np.concatenate([solver.positions[:, 0] / metres_per_unit, *solver.angles], axis=1)
    return BVH(
        names=tuple(solver.names),
        parents=tuple(solver.parents),
        offsets=np.array(solver.offsets) / metres_per_unit,
        channels=tuple(solver.channels),
        values=values,
        frame_time=1.0 / fps,
        end_sites=frozenset(number for number, channels in enumerate(solver.channels) if not channels),
    )


class _Solver:
    """Traversal of the tree that collects nodes: name, parent, offset, channels and angles."""

    def __init__(self, positions: np.ndarray, skeleton: Skeleton):
        self.positions, self.skeleton = positions, skeleton
        self.bones = positions - positions[:, [max(parent, 0) for parent in skeleton.parents]]  # (T, J, 3)
        self.lengths = np.median(np.linalg.norm(self.bones, axis=-1), axis=0)
        self.children: list[list[int]] = [[] for _ in skeleton.parents]
        for parent, joint in skeleton.bones:
            self.children[parent].append(joint)
        self.names: list[str] = []
        self.parents: list[int] = []
        self.offsets: list[np.ndarray] = []
        self.channels: list[tuple[str, ...]] = []
        self.angles: list[np.ndarray] = []  # (T, 3) degrees of each node with channels
        self.turns: list[np.ndarray] = []  # (T, 4) global rotation of each node

    def add(self, joint: int, parent: int, offset: np.ndarray) -> None:
        """Add a joint at `offset` from the node `parent`, and all its descendants."""
        name, children = self.skeleton.joint_names[joint], self.children[joint]
        above = self.turns[parent] if parent >= 0 else _identity(len(self.positions))
        rests = {child: self.lengths[child] * _rest_direction(child, self.skeleton) for child in children}
        if not children:
            node = self._node(name, parent, offset, _identity(len(self.positions)))
            end = LEAF_LENGTH * _rest_direction(joint, self.skeleton)
            self._node(name + END_SUFFIX, node, end, None)
        elif len(children) == 1:
            child = children[0]
            turn = _swing(rests[child], rotate(_inverse(above), self.bones[:, child]))
            self.add(child, self._node(name, parent, offset, turn), rests[child])
        else:
            rest, turn = _fit_shape(self.bones[:, children], self.lengths[children], self._sides(children))
            node = self._node(name, parent, offset, multiply(_inverse(above), turn))
            for child, own in zip(children, rest, strict=True):
                self._branch(child, node, own)

    def _branch(self, child: int, node: int, rest: np.ndarray) -> None:
        """Add one of several bones of a joint, with a helper joint if it moves against the others."""
        seen = rotate(_inverse(self.turns[node]), self.bones[:, child])
        helper = _swing(rest, seen)
        if np.linalg.norm(rotate(helper, rest) - rest, axis=-1).max() > RIGID:
            node = self._node(self.skeleton.joint_names[child] + HELPER_SUFFIX, node, np.zeros(3), helper)
        self.add(child, node, rest)

    def _sides(self, joints: list[int]) -> np.ndarray:
        """Return 1 for each left joint, -1 for right, 0 for the middle."""
        names = [self.skeleton.joint_names[joint] for joint in joints]
        return np.array([name.startswith("left") - float(name.startswith("right")) for name in names])

    def _node(self, name: str, parent: int, offset: np.ndarray, local: np.ndarray | None) -> int:
        self.names.append(name)
        self.parents.append(parent)
        self.offsets.append(offset)
        self.channels.append(() if local is None else JOINT_CHANNELS if parent >= 0 else ROOT_CHANNELS)
        if local is None:
            self.turns.append(np.empty((0, 4)))
        else:
            self.angles.append(_to_euler(local))
            self.turns.append(local if parent < 0 else multiply(self.turns[parent], local))
        return len(self.names) - 1


def _rest_direction(joint: int, skeleton: Skeleton) -> np.ndarray:
    """Return the unit direction of the bone that ends at `joint` in a T-pose."""
    part = next(name for name, joints in skeleton.parts.items() if joint in joints[1:])
    if part == "torso":
        return np.array([0.0, 1.0, 0.0])
    if part.endswith("arm"):
        return np.array([1.0 if part.startswith("left") else -1.0, 0.0, 0.0])
    is_toe = skeleton.parts[part].index(joint) > 3  # root, hip, knee, ankle, then toes
    return np.array([0.0, 0.0, 1.0]) if is_toe else np.array([0.0, -1.0, 0.0])


# --- rotations as quaternions, w first ---


def _identity(count: int) -> np.ndarray:
    return np.tile([1.0, 0.0, 0.0, 0.0], (count, 1))


def _inverse(turn: np.ndarray) -> np.ndarray:
    return turn * [1.0, -1.0, -1.0, -1.0]


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Normalise vectors (..., 3) to length one; zero vectors stay zero."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(length > _SMALL, length, 1.0)


def _swing(rest: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Compute the (T, 4) smallest rotations from the direction `rest` (3,) to the directions `seen` (T, 3)."""
    start, goal = _unit(rest), _unit(seen)
    cosine = goal @ start
    turn = np.concatenate([1 + cosine[:, None], np.cross(start, goal)], axis=1)
    across = np.cross(start, np.eye(3)[np.abs(start).argmin()])
    turn[1 + cosine < _SMALL] = [0.0, *_unit(across)]
    turn[(np.abs(goal).sum(axis=1) == 0) | (np.abs(start).sum() == 0)] = [1.0, 0.0, 0.0, 0.0]
    return turn / np.linalg.norm(turn, axis=1, keepdims=True)


def _best_turn(rest: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Compute (T, 4) rotations that bring `rest` (C, 3) nearest to `seen` (T, C, 3), by least squares."""
    dot = np.einsum("tci,ci->t", seen, rest)
    outer = np.einsum("tci,cj->tij", seen, rest)
    quadratic = np.empty((len(seen), 4, 4))
    quadratic[:, 0, 0] = dot
    quadratic[:, 0, 1:] = quadratic[:, 1:, 0] = np.cross(rest, seen).sum(axis=1)
    quadratic[:, 1:, 1:] = outer + outer.transpose(0, 2, 1) - dot[:, None, None] * np.eye(3)
    return np.linalg.eigh(quadratic)[1][..., -1]


def _fit_shape(bones: np.ndarray, lengths: np.ndarray, sides: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Estimate the rest pose of bones that leave one joint, and their common rotation in each frame.

    Args:
        bones: (T, C, 3) vectors along the bones.
        lengths: (C,) lengths in the rest pose.
        sides: (C,) 1 for left, -1 for right, 0 for the middle.

    Returns:
        Offsets (C, 3) with left at X+ and the middle at Y+, and rotations (T, 4).
    """
    first = bones[0]
    x = _unit(sides @ first)
    middle = (sides == 0) @ first
    y = _unit(middle - (middle @ x) * x)
    frame = np.stack([x, y, np.cross(x, y)])
    rest = first @ frame.T if abs(np.linalg.det(frame) - 1) < 1e-6 else first
    for _ in range(_FITS):
        turn = _best_turn(rest, bones)
        rest = rotate(_inverse(turn)[:, None], bones).mean(axis=0)
    rest = _unit(rest) * lengths[:, None]
    return rest, _best_turn(rest, bones)


def _to_euler(turn: np.ndarray) -> np.ndarray:
    """Convert to (T, 3) degrees about Z, Y, X, composed in this order, without jumps of 360 degrees."""
    w, x, y, z = turn.T
    r00, r10, r20 = 1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)
    flat = np.hypot(r00, r10)
    locked = flat < _SMALL  # Y at 90 degrees: Z and X rotate about the same axis
    about_y = np.arctan2(-r20, flat)
    about_z = np.where(locked, np.arctan2(2 * (w * z - x * y), 1 - 2 * (x * x + z * z)), np.arctan2(r10, r00))
    about_x = np.where(locked, 0.0, np.arctan2(2 * (y * z + w * x), 1 - 2 * (x * x + y * y)))
    return np.rad2deg(np.unwrap(np.stack([about_z, about_y, about_x], axis=1), axis=0))
