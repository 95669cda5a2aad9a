"""The skeleton and channels of a BVH file, joint positions by forward kinematics, and quaternions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

AXES = "XYZ"
CHANNELS = tuple(f"{axis}{kind}" for kind in ("position", "rotation") for axis in AXES)
END_SUFFIX = "_end"


@dataclass(frozen=True)
class BVH:
    """Content of a BVH file, in its own unit and axes.

    Args:
        names: N joints and end sites; parents precede their children. An end site has the name of its joint and
            `_end`.
        parents: parent of each joint, -1 for the root.
        offsets: (N, 3) from the parent.
        channels: channels of each joint in the order of the file, as in `CHANNELS`; none for end sites.
        values: (T, C) float64 channel values, joint by joint; rotations in degrees.
        frame_time: seconds per frame as stated in the file, which can be 0.
        end_sites: numbers of the joints that are end sites.
        stated_frames: number of frames in the header, which can differ from T by one.
    """

    names: tuple[str, ...]
    parents: tuple[int, ...]
    offsets: np.ndarray
    channels: tuple[tuple[str, ...], ...]
    values: np.ndarray
    frame_time: float
    end_sites: frozenset[int] = frozenset()
    stated_frames: int | None = None

    @property
    def rest_positions(self) -> np.ndarray:
        """(N, 3) positions if every channel is zero: sums of offsets."""
        rest = np.array(self.offsets, dtype=np.float64)
        for joint, parent in enumerate(self.parents):
            if parent >= 0:
                rest[joint] += rest[parent]
        return rest

    def positions(self, joints: Sequence[int] | None = None) -> np.ndarray:
        """Compute (T, len(joints), 3) positions in the file's unit and axes; None: of all joints."""
        wanted = list(range(len(self.names))) if joints is None else list(joints)
        needed = self._with_ancestors(wanted)
        num_frames = len(self.values)
        places = np.zeros((len(self.names), num_frames, 3))
        turns: dict[int, np.ndarray] = {}  # global rotations as quaternions (T, 4), w first
        half = np.deg2rad(self.values) / 2
        cos, sin = np.cos(half), np.sin(half)
        column = 0
        for joint, parent in enumerate(self.parents):
            channels = self.channels[joint]
            if joint in needed:
                offset = np.broadcast_to(self.offsets[joint], (num_frames, 3)).copy()
                turn = turns.get(parent)
                local = None
                for number, channel in enumerate(channels, start=column):
                    axis = AXES.index(channel[0])
                    if channel.endswith("position"):
                        offset[:, axis] = self.values[:, number]
                    else:
                        local = turn_about(local, axis, cos[:, number], sin[:, number])
                places[joint] = offset if turn is None else places[parent] + rotate(turn, offset)
                if local is not None:
                    turn = local if turn is None else multiply(turn, local)
                if turn is not None:
                    turns[joint] = turn
            column += len(channels)
        return places[wanted].transpose(1, 0, 2)

    def _with_ancestors(self, joints: Iterable[int]) -> set[int]:
        found: set[int] = set()
        for joint in joints:
            while joint >= 0 and joint not in found:
                found.add(joint)
                joint = self.parents[joint]
        return found


# --- quaternions, w first ---


def multiply(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Multiply quaternions (..., 4): the rotation `right`, then `left`."""
    aw, ax, ay, az = np.moveaxis(left, -1, 0)
    bw, bx, by, bz = np.moveaxis(right, -1, 0)
    w, x = aw * bw - ax * bx - ay * by - az * bz, aw * bx + ax * bw + ay * bz - az * by
    y, z = aw * by - ax * bz + ay * bw + az * bx, aw * bz + ax * by - ay * bx + az * bw
    return np.stack([w, x, y, z], axis=-1)


def rotate(turn: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Rotate vectors (..., 3) by unit quaternions (..., 4)."""
    w, axis = turn[..., :1], turn[..., 1:]
    twice = 2 * np.cross(axis, vector)
    return vector + w * twice + np.cross(axis, twice)


def turn_about(turn: np.ndarray | None, axis: int, cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
    """Compose `turn` with a rotation about an axis of its frame, by cos and sin (T,) of half the angle."""
    step = np.zeros((len(cos), 4))
    step[:, 0], step[:, 1 + axis] = cos, sin
    return step if turn is None else multiply(turn, step)
