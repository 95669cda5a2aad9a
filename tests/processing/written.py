"""Small valid files of every motion format, written by code that is independent of the readers."""

import base64
import io
import json
import struct

import numpy as np

from lexmotion.processing.corpora.synthetic_motion import OFFSETS, Segment, render, walk
from lexmotion.processing.motion_features import positions_to_features
from lexmotion.processing.recordings.bvh import save_bvh
from lexmotion.processing.recordings.landmarks import _NAMES as LANDMARK_NAMES
from lexmotion.processing.skeletons import HUMANML3D

JOINT = {name: number for number, name in enumerate(HUMANML3D.joint_names)}
Z_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])  # Y-up coordinates -> Z-up ones
SIDES = (("left", "L", 1.0), ("right", "R", -1.0))


def walking(num_frames=40):
    """(T, 22, 3) metres, Y up."""
    return render([Segment(walk, num_frames)], np.random.default_rng(0), num_frames)[:num_frames].astype(np.float64)


def _unit(vector):
    return vector / np.linalg.norm(vector, axis=-1, keepdims=True)


def markers_of(joints):
    """Plug-in Gait's markers (name -> (T, 3)) from which the published regressions give these joints."""
    at = {name: joints[:, number] for name, number in JOINT.items()}
    across = at["left_hip"] - at["right_hip"]
    left, width = _unit(across), np.linalg.norm(across, axis=-1, keepdims=True) / 0.72
    up = at["spine1"] - at["pelvis"]
    up = _unit(up - (up * left).sum(-1, keepdims=True) * left)
    forward = np.cross(left, up)
    front = (at["left_hip"] + at["right_hip"]) / 2 + width * (0.19 * forward + 0.30 * up)
    found = {}
    down = _unit(at["left_hip"] + at["right_hip"] - at["left_shoulder"] - at["right_shoulder"])
    for side, letter, sign in SIDES:
        found[f"{letter}ASI"] = front + sign * width / 2 * left
        found[f"{letter}PSI"] = front - 0.6 * width * forward + sign * width / 6 * left
        knee, ankle, toe = (at[f"{side}_{name}"] for name in ("knee", "ankle", "foot"))
        heel = ankle - 0.4 * (toe - ankle)
        outward = (
            sign * np.linalg.norm(knee - ankle, axis=-1, keepdims=True) * _unit(np.cross(knee - ankle, toe - heel))
        )
        found |= {f"{letter}KNE": knee + 0.14 * outward, f"{letter}ANK": ankle + 0.10 * outward}
        found |= {f"{letter}HEE": heel, f"{letter}TOE": toe}
        spread = np.linalg.norm(at["left_shoulder"] - at["right_shoulder"], axis=-1, keepdims=True)
        found[f"{letter}SHO"] = at[f"{side}_shoulder"] - 0.17 * spread * down
        found[f"{letter}ELB"] = at[f"{side}_elbow"]
        found |= {f"{letter}WRA": at[f"{side}_wrist"] + 0.03 * left, f"{letter}WRB": at[f"{side}_wrist"] - 0.03 * left}
        for name, place in (("FHD", 0.08), ("BHD", -0.08)):
            centre = at["neck"] + (at["head"] - at["neck"]) / 0.6
            found[f"{letter}{name}"] = centre + place * forward + sign * 0.07 * left
    chest = at["spine2"] + 0.13 * forward
    found |= {"STRN": chest, "T10": chest - 0.2 * forward}
    return found | {"C7": at["neck"] - 0.035 * forward, "CLAV": at["neck"] + 0.065 * forward}


def c3d(markers, rate=100.0, units="mm", kind="float", processor=84, screen="+Z"):
    """A C3D file of markers (name -> (T, 3)); `kind` is float or int, processor 84 (Intel), 85 (DEC) or 86 (MIPS)."""
    order = ">" if processor == 86 else "<"

    def real(values):
        raw = np.asarray(values, dtype=np.float32)
        if processor != 85:
            return raw.astype(f"{order}f4").tobytes()
        return (raw * 4).astype("<f4").view("<u2").reshape(-1, 2)[:, ::-1].tobytes()

    def parameter(name, group, kind, shape, data):
        body = struct.pack("bB", kind, len(shape)) + bytes(shape) + data + b"\0"
        return struct.pack("2b", len(name), group) + name.encode() + struct.pack(f"{order}h", len(body) + 2) + body

    names = list(markers)
    points = np.stack([markers[name] for name in names], axis=1)
    scale = -0.1 if kind == "float" else 0.1
    group = struct.pack("2b", 5, -1) + b"POINT" + struct.pack(f"{order}h", 3) + b"\0"
    labels = "".join(f"{name:<12}" for name in names).encode()
    group += parameter("LABELS", 1, -1, (12, len(names)), labels) + parameter("UNITS", 1, -1, (2,), units.encode())
    group += parameter("Y_SCREEN", 1, -1, (2,), screen.encode())
    for name, value in (("RATE", rate), ("SCALE", scale)):
        group += parameter(name, 1, 4, (), real([value]))
    for name, value in (("USED", len(names)), ("DATA_START", 5)):
        group += parameter(name, 1, 2, (), struct.pack(f"{order}H", value))
    parameters = (bytes([1, 80, 3, processor]) + group + b"\0\0").ljust(3 * 512, b"\0")
    assert len(parameters) == 3 * 512
    header = bytes([2, 80]) + struct.pack(f"{order}5H", len(names), 0, 1, len(points), 10)
    header += real([scale]) + struct.pack(f"{order}2H", 5, 0) + real([rate])
    seen = np.isfinite(points).all(axis=-1, keepdims=True)
    values = np.concatenate([np.where(seen, points, 0), np.where(seen, 0.0, -1.0)], axis=-1)
    if kind == "float":
        data = real(values.reshape(-1))
    else:
        values[..., :3] /= scale
        data = values.round().astype(f"{order}i2").tobytes()
    return header.ljust(512, b"\0") + parameters + data.ljust(-(-len(data) // 512) * 512, b"\0")


def trc(markers, rate=100.0, units="mm"):
    names = list(markers)
    points = np.stack([markers[name] for name in names], axis=1)
    frames = len(points)
    lines = [
        "PathFileType\t4\t(X/Y/Z)\ta.trc",
        "DataRate\tCameraRate\tNumFrames\tNumMarkers\tUnits\tOrigDataRate\tOrigDataStartFrame\tOrigNumFrames",
        f"{rate}\t{rate}\t{frames}\t{len(names)}\t{units}\t{rate}\t1\t{frames}",
        "Frame#\tTime\t" + "\t\t\t".join(names) + "\t\t",
        "\t\t" + "\t".join(f"{axis}{n + 1}" for n in range(len(names)) for axis in "XYZ"),
    ]
    for number, frame in enumerate(points):
        cells = ["" if np.isnan(value) else f"{value:.5f}" for value in frame.reshape(-1)]
        lines.append("\t".join([str(number + 1), f"{number / rate:.4f}", *cells]))
    return "\n".join(lines) + "\n"


ASF_NAMES = {
    "pelvis": "root",
    "spine1": "upperback",
    "spine2": ["upperback", "thorax", 0.5],
    "spine3": "thorax",
    "neck": "upperneck",
    "head": "head",
} | {
    f"{side}_{joint}": f"{side[0]}{bone}"
    for side in ("left", "right")
    for joint, bone in {
        **{"hip": "femur", "knee": "tibia", "ankle": "foot", "foot": "toes"},
        **{"collar": "clavicle", "shoulder": "humerus", "elbow": "radius", "wrist": "wrist"},
    }.items()
}


def asf():
    """The skeleton of `OFFSETS` with CMU's names of bones, in CMU's unit."""
    bones = [("lowerback", "root", 3), ("upperback", "lowerback", 6), ("thorax", "upperback", 9)]
    bones += [("lowerneck", "thorax", 12), ("upperneck", "lowerneck", 15), ("head", "upperneck", 15)]
    for letter, first in (("l", 0), ("r", 1)):
        bones += [(f"{letter}hipjoint", "root", 1 + first), (f"{letter}femur", f"{letter}hipjoint", 4 + first)]
        bones += [(f"{letter}tibia", f"{letter}femur", 7 + first), (f"{letter}foot", f"{letter}tibia", 10 + first)]
        bones += [(f"{letter}toes", f"{letter}foot", 10 + first)]
        bones += [(f"{letter}clavicle", "thorax", 16 + first), (f"{letter}humerus", f"{letter}clavicle", 18 + first)]
        bones += [
            (f"{letter}radius", f"{letter}humerus", 20 + first),
            (f"{letter}wrist", f"{letter}radius", 20 + first),
        ]
    lines = [":version 1.10", ":name test", ":units", "  mass 1.0", "  length 0.45", "  angle deg", ":root"]
    lines += ["  order TX TY TZ RX RY RZ", "  axis XYZ", "  position 0 0 0", "  orientation 0 0 0", ":bonedata"]
    for number, (name, _, joint) in enumerate(bones):
        offset = OFFSETS[joint]
        length = np.linalg.norm(offset)
        direction = " ".join(f"{value:.6f}" for value in offset / length)
        lines += ["  begin", f"    id {number + 1}", f"    name {name}", f"    direction {direction}"]
        lines += [f"    length {length * 0.45 / 0.0254:.6f}", "    axis 0 0 20 XYZ", "    dof rx ry rz", "  end"]
    lines += [":hierarchy", "  begin", *(f"    {parent} {name}" for name, parent, _ in bones), "  end"]
    return "\n".join(lines) + "\n", [name for name, _, _ in bones]


def amc(bones, num_frames=30):
    lines = ["#!OML:ASF test.asf", ":FULLY-SPECIFIED", ":DEGREES"]
    for frame in range(num_frames):
        lines += [str(frame + 1), f"root {0.1 * frame:.3f} 16.5 0 0 {2 * frame} 0"]
        lines += [f"{name} {5 * np.sin(frame / 5 + number):.3f} 0 0" for number, name in enumerate(bones)]
    return "\n".join(lines) + "\n"


GLTF_NAMES = {
    joint: "mixamorig:" + name
    for joint, name in {
        **{
            "pelvis": "Hips",
            "spine1": "Spine",
            "spine2": "Spine1",
            "spine3": "Spine2",
            "neck": "Neck",
            "head": "Head",
        },
        **{
            f"{side}_{joint}": f"{side.title()}{name}"
            for side in ("left", "right")
            for joint, name in {
                **{"hip": "UpLeg", "knee": "Leg", "ankle": "Foot", "foot": "ToeBase"},
                **{"collar": "Shoulder", "shoulder": "Arm", "elbow": "ForeArm", "wrist": "Hand"},
            }.items()
        },
    }.items()
}


def gltf(joints, rate=30.0, binary=True):
    """A glTF file of nodes that are moved by translations; the armature has a scale of 0.01 as Mixamo's."""
    content, blob, names = {"asset": {"version": "2.0"}}, b"", [*GLTF_NAMES]
    accessors, views = [], []

    def accessor(values, kind):
        nonlocal blob
        raw = np.asarray(values, dtype="<f4").tobytes()
        views.append({"buffer": 0, "byteOffset": len(blob), "byteLength": len(raw)})
        accessors.append({"bufferView": len(views) - 1, "componentType": 5126, "count": len(values), "type": kind})
        blob += raw
        return len(accessors) - 1

    order = [JOINT[name] for name in names]
    nodes, samplers, channels = [], [], []
    times = accessor(np.arange(len(joints)) / rate, "SCALAR")
    for place, number in enumerate(order):
        parent = HUMANML3D.parents[number]
        local = 100 * (joints[:, number] - (joints[:, parent] if parent >= 0 else 0))
        children = [n for n, other in enumerate(order) if HUMANML3D.parents[other] == number]
        nodes.append({"name": GLTF_NAMES[names[place]], "translation": local[0].tolist()})
        nodes[-1] |= {"children": children} if children else {}
        samplers.append({"input": times, "output": accessor(local, "VEC3"), "interpolation": "LINEAR"})
        channels.append({"sampler": place, "target": {"node": place, "path": "translation"}})
    nodes.append({"name": "Armature", "scale": [0.01, 0.01, 0.01], "children": [names.index("pelvis")]})
    content |= {"nodes": nodes, "accessors": accessors, "bufferViews": views, "scenes": [{"nodes": [len(nodes) - 1]}]}
    content |= {"animations": [{"name": "walk", "samplers": samplers, "channels": channels}]}
    if not binary:
        uri = "data:application/octet-stream;base64," + base64.b64encode(blob).decode()
        return json.dumps(content | {"buffers": [{"byteLength": len(blob), "uri": uri}]}).encode()
    text = json.dumps(content | {"buffers": [{"byteLength": len(blob)}]}).encode()
    text += b" " * (-len(text) % 4)
    parts = struct.pack("<II", len(text), 0x4E4F534A) + text + struct.pack("<II", len(blob), 0x004E4942) + blob
    return struct.pack("<III", 0x46546C67, 2, 12 + len(parts)) + parts


def landmarks(joints):
    """(T, 33, 3) as MediaPipe's world landmarks: metres around the hips, y down."""
    at = {name: joints[:, number] for name, number in JOINT.items()}
    points = np.zeros((len(joints), len(LANDMARK_NAMES), 3))
    for number, name in enumerate(LANDMARK_NAMES):
        side = name.partition("_")[0]
        known = {"heel": "ankle", "pinky": "wrist", "index": "wrist", "thumb": "wrist"}
        part = name.partition("_")[2]
        if f"{side}_{known.get(part, part)}" in at:
            points[:, number] = at[f"{side}_{known.get(part, part)}"]
            points[:, number, 1] -= 0.06 if part == "heel" else 0
        elif part == "foot_index":
            heel = at[f"{side}_ankle"] - [0, 0.06, 0]
            points[:, number] = heel + (at[f"{side}_foot"] - heel) / 0.75
        else:
            points[:, number] = at["neck"] + (at["head"] - at["neck"]) / 0.6
    points -= (at["left_hip"] + at["right_hip"])[:, None] / 2
    return points * [1, -1, -1]


def landmarks_json(joints, fps=30):
    frames = [
        {
            "pose_world_landmarks": [
                dict(zip("xyz", map(float, row), strict=True)) | {"visibility": 0.9} for row in frame
            ]
        }
        for frame in landmarks(joints)
    ]
    return json.dumps({"fps": fps, "frames": frames})


def saved(save, *arguments, **named):
    stream = io.BytesIO()
    save(stream, *arguments, **named)
    return stream.getvalue()


def files(folder, joints):
    """Write one file of every format and kind into a folder, and return their paths."""
    turned = joints @ Z_UP.T
    markers = {name: 1000 * place for name, place in markers_of(turned).items()}
    batch = np.stack([joints, joints])
    poses = np.zeros((len(joints), 156))
    poses[:, 0] = np.pi / 2
    poses[:, 3:66] = 0.1 * np.sin(np.arange(len(joints)) / 5)[:, None]
    skeleton, bones = asf()
    columns = [f"{name}_{axis}" for name in HUMANML3D.joint_names for axis in "xyz"]
    table = [",".join(["time", *columns])]
    table += [",".join(f"{v:.5f}" for v in [n / 20, *row]) for n, row in enumerate(joints.reshape(len(joints), -1))]
    mdm = {"motion": batch[:1].transpose(0, 2, 3, 1), "text": ["walks"], "lengths": np.array([len(joints) - 5])}
    written = {
        "positions.npy": saved(np.save, joints.astype(np.float32)),
        "features.npy": saved(np.save, positions_to_features(joints.astype(np.float32), HUMANML3D).numpy()),
        "one.npy": saved(np.save, batch[:1].astype(np.float32)),
        "results.npy": saved(np.save, np.array(mdm, dtype=object)),
        "positions.npz": saved(np.savez, joints=joints.astype(np.float32), fps=20),
        "amass.npz": saved(np.savez, poses=poses, trans=joints[:, 0] @ Z_UP.T, mocap_framerate=60.0),
        "table.csv": "\n".join(table).encode(),
        "markers.c3d": c3d(markers),
        "integers.c3d": c3d(markers, kind="int", processor=86),
        "markers.trc": trc(markers).encode(),
        "skeleton.asf": skeleton.encode(),
        "skeleton_1.amc": amc(bones, len(joints)).encode(),
        "walk.glb": gltf(joints),
        "walk.gltf": gltf(joints, binary=False),
        "landmarks.json": landmarks_json(joints).encode(),
    }
    for name, content in written.items():
        (folder / name).write_bytes(content)
    save_bvh(folder / "walk.bvh", joints, fps=20)
    return [folder / name for name in (*written, "walk.bvh")]
