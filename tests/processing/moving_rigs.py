"""Bodies of several naming conventions, moved by random rotations, as BVH text and as the positions they must give.

Positions come from SciPy's rotations, not from the code under test.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from lexmotion.processing.skeletons import HUMANML3D

JOINT = {name: number for number, name in enumerate(HUMANML3D.joint_names)}
# Offsets in metres of a standing body that faces Z+, left at X+.
OFFSETS = {
    "left_hip": (0.06, -0.09, 0.0),
    "spine1": (0.0, 0.12, 0.0),
    "left_knee": (0.0, -0.39, 0.0),
    "spine2": (0.0, 0.12, 0.0),
    "left_ankle": (0.0, -0.42, 0.0),
    "spine3": (0.0, 0.08, 0.0),
    "left_foot": (0.01, -0.06, 0.12),
    "neck": (0.0, 0.22, 0.0),
    "left_collar": (0.07, 0.12, 0.0),
    "head": (0.0, 0.1, 0.03),
    "left_shoulder": (0.11, 0.03, 0.0),
    "left_elbow": (0.26, 0.0, 0.0),
    "left_wrist": (0.25, 0.0, 0.0),
}
NOWHERE = (0.0, 0.0, 0.0)
Z_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])  # Y-up coordinates -> Z-up ones
LIMBS = (
    ("LeftUpLeg", "Hips", "left_hip"),
    ("LeftLeg", "LeftUpLeg", "left_knee"),
    ("LeftFoot", "LeftLeg", "left_ankle"),
    ("LeftToeBase", "LeftFoot", "left_foot"),
    ("LeftShoulder", "Spine2", "left_collar"),
    ("LeftArm", "LeftShoulder", "left_shoulder"),
    ("LeftForeArm", "LeftArm", "left_elbow"),
    ("LeftHand", "LeftForeArm", "left_wrist"),
)


def offset_of(joint):
    if joint is None:
        return np.zeros(3)
    x, y, z = OFFSETS[joint.replace("right_", "left_")]
    return np.array([-x if joint.startswith("right_") else x, y, z])


def both_sides(nodes):
    """Nodes of the left side, and their twins."""
    for name, parent, joint in nodes:
        yield name, parent, joint
        if name.startswith("Left") or name == "LHipJoint":
            twin = [
                word.replace("LHip", "RHip").replace("Left", "Right") if isinstance(word, str) else word
                for word in (name, parent)
            ]
            yield *twin, joint.replace("left_", "right_") if joint else None


@dataclass
class Rig:
    """Nodes (name, parent's name, joint of HumanML3D that ends here or None for a node of the same place)."""

    nodes: list
    joints: dict  # joint of HumanML3D -> name, or (name, name, fraction)

    def __post_init__(self):
        # Depth first, as the file lists them.
        ordered = []

        def add(node):
            ordered.append(node)
            for child in self.nodes:
                if child[1] == node[0]:
                    add(child)

        add(self.nodes[0])
        assert len(ordered) == len(self.nodes)
        self.nodes = ordered
        self.names = [name for name, _, _ in ordered]
        self.parents = [self.names.index(parent) if parent else -1 for _, parent, _ in ordered]
        self.offsets = np.array([offset_of(joint) if parent else NOWHERE for _, parent, joint in ordered])

    def move(self, num_frames, seed, sway=25.0):
        """Root path (T, 3) and rotations, N of T: smooth, a few tens of degrees."""
        generator = np.random.default_rng(seed)
        time = np.arange(num_frames)[:, None, None] / 20
        shape = (1, len(self.names), 3)
        wave = np.sin(generator.uniform(1, 3, shape) * time + generator.uniform(0, 6.3, shape))
        angles = wave * generator.uniform(0, sway, shape)
        angles[:, 0, 0] += 40 * time[:, 0, 0]
        root = np.array([0.0, 0.95, 0.0]) + time[:, 0] * generator.normal(size=3) * [0.5, 0.0, 0.5]
        return root, [Rotation.from_euler("YXZ", angles[:, n], degrees=True) for n in range(len(self.names))]

    def world(self, root, turns):
        """(T, N, 3) positions in metres, Y up."""
        places, total = [], []
        for parent, offset, turn in zip(self.parents, self.offsets, turns, strict=True):
            places.append(root if parent < 0 else places[parent] + total[parent].apply(offset))
            total.append(turn if parent < 0 else total[parent] * turn)
        return np.stack(places, axis=1)

    def expected(self, world):
        """(T, 22, 3) positions of HumanML3D's joints."""
        out = np.empty((len(world), HUMANML3D.num_joints, 3))
        for joint, source in self.joints.items():
            first, second, fraction = (source, source, 0.0) if isinstance(source, str) else source
            a, b = (world[:, self.names.index(name)] for name in (first, second))
            out[:, JOINT[joint]] = (1 - fraction) * a + fraction * b
        return out

    def text(self, root, turns, order="ZYX", unit=1.0, axes=None, fps=20.0, prefix="", positions_last=False):
        """The BVH file. `unit`: metres in one. `axes`: (3, 3) from Y-up coordinates to the file's."""
        axes = np.eye(3) if axes is None else axes
        frame = Rotation.from_matrix(axes)
        lines = ["HIERARCHY"]
        moves = [f"{axis}position" for axis in "XYZ"]
        turning = [f"{axis}rotation" for axis in order]

        def add(number, depth):
            lines.append(f"{'JOINT' if depth else 'ROOT'} {prefix}{self.names[number]}")
            lines.append("{")
            lines.append("OFFSET " + " ".join(f"{value:.8f}" for value in axes @ self.offsets[number] / unit))
            channels = turning if depth else turning + moves if positions_last else moves + turning
            lines.append(f"CHANNELS {len(channels)} {' '.join(channels)}")
            children = [child for child, parent in enumerate(self.parents) if parent == number]
            for child in children:
                add(child, depth + 1)
            if not children:
                lines.extend(["End Site", "{", "OFFSET 0 0.1 0", "}"])
            lines.append("}")

        add(0, 0)
        angles = [(frame * turn * frame.inv()).as_euler(order, degrees=True) for turn in turns]
        path = root @ axes.T / unit
        columns = [angles[0], path] if positions_last else [path, angles[0]]
        values = np.concatenate([*columns, *angles[1:]], axis=1)
        lines += ["MOTION", f"Frames: {len(values)}", f"Frame Time: {1 / fps:.7f}"]
        return "\n".join(lines + [" ".join(f"{value:.8f}" for value in row) for row in values]) + "\n"


def _named(**spine):
    joints = {"pelvis": "Hips", "head": "Head", **spine}
    for name, _, joint in both_sides(LIMBS):
        joints[joint] = name
    return joints


MIXAMO = Rig(
    [
        ("Hips", None, None),
        ("Spine", "Hips", "spine1"),
        ("Spine1", "Spine", "spine2"),
        ("Spine2", "Spine1", "spine3"),
        ("Neck", "Spine2", "neck"),
        ("Head", "Neck", "head"),
        ("HeadTop_End", "Head", "head"),
        *both_sides(LIMBS),
    ],
    _named(spine1="Spine", spine2="Spine1", spine3="Spine2", neck="Neck"),
)


def _renamed(rig, change):
    nodes = [(change(name), change(parent) if parent else None, joint) for name, parent, joint in rig.nodes]
    return Rig(nodes, {joint: change(name) for joint, name in rig.joints.items()})


LAFAN1 = _renamed(MIXAMO, lambda name: name.replace("ToeBase", "Toe"))
SMPL = _renamed(
    MIXAMO,
    lambda name: {
        source: joint.replace("left_", "L_").replace("right_", "R_").title() for joint, source in MIXAMO.joints.items()
    }.get(name, name),
)
CMU = Rig(
    [
        ("Hips", None, None),
        *both_sides((("LHipJoint", "Hips", None), ("LeftUpLeg", "LHipJoint", "left_hip"), *LIMBS[1:4])),
        ("LowerBack", "Hips", None),
        ("Spine", "LowerBack", "spine1"),
        ("Spine1", "Spine", "spine2"),
        ("Neck", "Spine1", None),
        ("Neck1", "Neck", "neck"),
        ("Head", "Neck1", "head"),
        *both_sides((("LeftShoulder", "Spine1", None), ("LeftArm", "LeftShoulder", "left_shoulder"), *LIMBS[6:])),
    ],
    _named(spine1="Spine", spine2=("Spine", "Spine1", 0.6), spine3="Spine1", neck="Neck1")
    | {f"{side.lower()}_collar": (f"{side}Shoulder", f"{side}Arm", 0.4) for side in ("Left", "Right")},
)
RIGS = {"mixamo": MIXAMO, "lafan1": LAFAN1, "motionbuilder": MIXAMO, "smpl": SMPL, "cmu": CMU}
