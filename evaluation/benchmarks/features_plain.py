"""Motion features of one clip at a time, in NumPy, in the steps of their publication.

Guo et al., "Generating Diverse and Natural 3D Human Motions from Text" (CVPR 2022). Baseline of
`lexmotion.processing.motion_features`: rotations are quaternions (w, x, y, z), composed joint by joint along the
kinematic chains. Input must be valid: at least two frames, no bone of length zero.
"""

import numpy as np
from scipy.ndimage import gaussian_filter1d

from lexmotion.processing.skeletons import Skeleton

UP, FRONT = np.array([0.0, 1.0, 0.0], np.float32), np.array([0.0, 0.0, 1.0], np.float32)
ON_FLOOR = np.array([1.0, 0.0, 1.0], np.float32)


def _unit(values: np.ndarray) -> np.ndarray:
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Multiply quaternions, (..., 4) x (..., 4)."""
    aw, ax, ay, az = np.moveaxis(a, -1, 0)
    bw, bx, by, bz = np.moveaxis(b, -1, 0)
    w = aw * bw - ax * bx - ay * by - az * bz
    x = aw * bx + ax * bw + ay * bz - az * by
    y = aw * by - ax * bz + ay * bw + az * bx
    z = aw * bz + ax * by - ay * bx + az * bw
    return np.stack([w, x, y, z], axis=-1)


def _inverse(quaternion: np.ndarray) -> np.ndarray:
    return quaternion * np.array([1.0, -1.0, -1.0, -1.0], quaternion.dtype)


def _rotate(quaternion: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Rotate vectors (..., 3)."""
    w, axis = quaternion[..., :1], quaternion[..., 1:]
    twice = 2 * np.cross(axis, vectors)
    return vectors + w * twice + np.cross(axis, twice)


def _between(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return the shortest rotation from one unit vector to another, quaternions (..., 4)."""
    w = 1 + (start * end).sum(axis=-1, keepdims=True)
    return _unit(np.concatenate([w, np.cross(start, end)], axis=-1))


def _forward(positions: np.ndarray, joints: tuple[int, ...]) -> np.ndarray:
    """Return the direction that bodies (..., J, 3) face, from their hips and shoulders; not of unit length."""
    hip_1, hip_2, shoulder_1, shoulder_2 = (positions[..., joint, :] for joint in joints)
    return np.cross(UP, _unit(hip_1 - hip_2 + shoulder_1 - shoulder_2))


def _inverse_kinematics(positions: np.ndarray, skeleton: Skeleton, smooth: bool) -> np.ndarray:
    """
    Return the rotation of every joint relative to its predecessor in the chain, (T, J, 4); the root's is its heading.
    """
    hip_1, hip_2, *shoulders = skeleton.face_joints
    # The published features swap the hips only here.
    forward = _forward(positions, (hip_2, hip_1, *shoulders))
    if smooth:
        forward = gaussian_filter1d(forward, 20, axis=0, mode="nearest")
    root = _between(_unit(forward), FRONT)
    root[0] = (1.0, 0.0, 0.0, 0.0)
    rest = np.array(skeleton.raw_offsets, positions.dtype)
    rotations = np.zeros((*positions.shape[:2], 4), positions.dtype)
    rotations[:, 0] = root
    for chain in skeleton.chains:
        accumulated = root
        for parent, joint in zip(chain[:-1], chain[1:], strict=True):
            turn = _between(rest[joint], _unit(positions[:, joint] - positions[:, parent]))
            rotations[:, joint] = _product(_inverse(accumulated), turn)
            accumulated = _product(accumulated, rotations[:, joint])
    return rotations


def _forward_kinematics(root: np.ndarray, rotations: np.ndarray, bones: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """Return joint positions (T, J, 3) from the root's path (T, 3), rotations (T, J, 4) and bones at rest (J, 3)."""
    positions = np.empty((len(root), skeleton.num_joints, 3), root.dtype)
    positions[:, 0] = root
    for chain in skeleton.chains:
        accumulated = rotations[:, 0]
        for parent, joint in zip(chain[:-1], chain[1:], strict=True):
            accumulated = _product(accumulated, rotations[:, joint])
            positions[:, joint] = positions[:, parent] + _rotate(accumulated, bones[joint])
    return positions


def _retarget(positions: np.ndarray, skeleton: Skeleton, target: np.ndarray) -> np.ndarray:
    """Return the motion of a body with the target's bones."""
    parents = list(skeleton.parents[1:])
    lengths = np.zeros((skeleton.num_joints, 1), positions.dtype)
    lengths[1:] = np.linalg.norm(target[1:] - target[parents], axis=-1, keepdims=True)
    own = np.linalg.norm(positions[0, 1:] - positions[0, parents], axis=-1)
    leg = list(skeleton.leg_joints)
    scale = lengths[leg].sum() / own[[joint - 1 for joint in leg]].sum()
    rotations = _inverse_kinematics(positions, skeleton, smooth=False)
    bones = np.array(skeleton.raw_offsets, positions.dtype) * lengths
    return _forward_kinematics(positions[:, 0] * scale, rotations, bones, skeleton)


def clip_features(positions: np.ndarray, skeleton: Skeleton, target: np.ndarray) -> np.ndarray:
    """
    Compute the features (T - 1, 12 J - 1) of one clip.

    Args:
        positions: (T, J, 3) in the skeleton's unit.
        target: (J, 3), whose bone lengths the clip gets.
    """
    # A uniform skeleton, on the floor, from the origin, facing Z+.
    positions = _retarget(positions, skeleton, target)
    positions = positions - UP * positions[..., 1].min()
    positions = positions - positions[0, 0] * ON_FLOOR
    start = _between(_unit(_forward(positions[0], skeleton.face_joints)), FRONT)
    positions = _rotate(np.broadcast_to(start, (*positions.shape[:2], 4)), positions)
    steps = positions[1:] - positions[:-1]
    contacts = (steps[:, list(skeleton.contact_joints)] ** 2).sum(axis=-1) < skeleton.foot_velocity_threshold
    rotations = _inverse_kinematics(positions, skeleton, smooth=True)
    heading = rotations[:, 0]
    six = np.concatenate([_rotate(rotations, axis) for axis in np.eye(3, dtype=positions.dtype)[:2]], axis=-1)
    # Motion of the root, and everything else relative to the root.
    turn = np.arcsin(_product(heading[1:], _inverse(heading[:-1]))[:, 2])
    travel = _rotate(heading[1:], steps[:, 0])
    headings = np.repeat(heading[:, None], skeleton.num_joints, axis=1)
    local = _rotate(headings, positions - positions[:, :1] * ON_FLOOR)
    velocities = _rotate(headings[:-1], steps)
    frames = len(positions) - 1
    root = np.stack([turn, travel[:, 0], travel[:, 2], positions[:-1, 0, 1]], axis=-1)
    parts = (root, local[:-1, 1:], six[:-1, 1:], velocities, contacts)
    return np.concatenate([part.reshape(frames, -1) for part in parts], axis=-1)
