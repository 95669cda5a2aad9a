"""Landmarks of MediaPipe in the forms that people write, and poses of a body model on a mean body."""

import json

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from written import JOINT, landmarks, walking

from lexmotion import load_motion
from lexmotion.processing.recordings.inspection import inspect_motion
from lexmotion.processing.recordings.landmarks import _NAMES
from lexmotion.processing.recordings.mean_body import T_POSE
from lexmotion.processing.skeletons import HUMANML3D

SAME = [
    JOINT[f"{side}_{n}"] for side in ("left", "right") for n in ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")
]


@pytest.fixture(scope="module")
def joints():
    return walking(20)


@pytest.fixture(scope="module")
def centred(joints):
    return joints - joints[:, [JOINT["left_hip"], JOINT["right_hip"]]].mean(axis=1, keepdims=True)


def objects(frame):
    return [dict(zip("xyz", map(float, row), strict=True)) | {"visibility": 1.0} for row in frame]


FORMS = {
    "lists": lambda points: points.tolist(),
    "lists with visibility": lambda points: [[[*row, 0.9] for row in frame] for frame in points.tolist()],
    "objects": lambda points: [objects(frame) for frame in points],
    "tasks": lambda points: {"fps": 30, "frames": [{"poseWorldLandmarks": [objects(frame)]} for frame in points]},
    "legacy": lambda points: [{"pose_world_landmarks": {"landmark": objects(frame)}} for frame in points],
    "names": lambda points: [dict(zip(map(str.upper, _NAMES), objects(frame), strict=True)) for frame in points],
    "times": lambda points: [{"timestamp_ms": 40 * n, "landmarks": objects(frame)} for n, frame in enumerate(points)],
    "both": lambda points: {
        "frames": [{"pose_landmarks": objects(abs(f)), "pose_world_landmarks": objects(f)} for f in points]
    },
    "one key": lambda points: {"pose_world_landmarks": points.tolist(), "fps": 24},
}


@pytest.mark.parametrize("form", FORMS.values(), ids=list(FORMS))
def test_forms_of_landmarks(form, joints, centred, tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(form(landmarks(joints))))
    motion = load_motion(tmp_path / "a.json")
    np.testing.assert_allclose(motion.positions[:, SAME], centred[:, SAME], atol=1e-5)
    assert np.linalg.norm(motion.positions - centred, axis=-1).max() < 0.06
    assert motion.source["units"].value == "m" and motion.source["up"].value == "-y"
    assert any("no global translation" in problem.message for problem in motion.problems)


def test_rates_of_landmarks(joints, tmp_path):
    for form, rate in (("tasks", 30), ("times", 25), ("one key", 24)):
        (tmp_path / "a.json").write_text(json.dumps(FORMS[form](landmarks(joints))))
        assert load_motion(tmp_path / "a.json").fps == rate


def test_a_frame_without_a_person_is_filled_in(joints, centred, tmp_path):
    frames = [{"pose_world_landmarks": objects(frame)} for frame in landmarks(joints)]
    frames[4] = {"pose_world_landmarks": None}
    frames[5] = {"pose_world_landmarks": []}
    (tmp_path / "a.json").write_text(json.dumps(frames))
    motion = load_motion(tmp_path / "a.json")
    np.testing.assert_allclose(motion.positions[6:, SAME], centred[6:, SAME], atol=1e-5)
    assert any("interpolated" in problem.message for problem in motion.problems)


WRONG = {
    "image": (lambda p: [{"pose_landmarks": objects(f)} for f in p], "positions in the image.*pose_world_landmarks"),
    "image without name": (lambda p: (p + [0.5, 0.5, 0]).tolist(), r"hips are 0\.71 from the origin.*image"),
    "count": (lambda p: p[:, :17].tolist(), "frame 0: got 17 landmarks.*33"),
    "people": (lambda p: [{"pose_world_landmarks": [objects(f), objects(f)]} for f in p], "frame 0: 2 people"),
    "nothing": (lambda p: [], "no frames"),
    "number": (lambda p: 3, "no frames"),
    "other": (lambda p: {"a": 1}, "no list of frames, got a"),
    "no one": (lambda p: [{} for _ in p], "no landmarks in any of 20"),
}


@pytest.mark.parametrize(("form", "message"), WRONG.values(), ids=list(WRONG))
def test_what_is_no_landmarks_is_refused(form, message, joints, tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(form(landmarks(joints))))
    with pytest.raises(ValueError, match=message):
        load_motion(tmp_path / "a.json")


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "[NaN]", "[1e999]", '{"frames": [[[1e999,1,1]]]}', "1" * 5000])
def test_malformed_json_is_one_line(text, tmp_path):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=r"a\.json"):
        load_motion(tmp_path / "a.json")


# ---------------------------------------------------------------------------------------------------------------------
# poses of a body model
# ---------------------------------------------------------------------------------------------------------------------


def posed(seed=0, num_frames=10):
    """Axis angles (T, 66) of a body that stands along z, and translations (T, 3)."""
    generator = np.random.default_rng(seed)
    angles = 0.2 * generator.normal(size=(num_frames, 22, 3))
    upright = Rotation.from_euler("x", 90, degrees=True)
    angles[:, 0] = (upright * Rotation.from_rotvec(0.1 * angles[:, 0])).as_rotvec()
    return angles.reshape(num_frames, -1), np.array([1.0, 2.0, 0.9]) + 0.01 * np.arange(num_frames)[:, None]


def expected(angles, trans):
    places, total = [], []
    for joint, parent in enumerate(HUMANML3D.parents):
        turn = Rotation.from_rotvec(angles[:, 3 * joint : 3 * joint + 3])
        offset = T_POSE[joint] - T_POSE[parent]
        places.append(trans if parent < 0 else places[parent] + total[parent].apply(offset))
        total.append(turn if parent < 0 else total[parent] * turn)
    return np.stack(places, axis=1)


def test_poses_without_a_body_model_move_a_mean_body(tmp_path):
    angles, trans = posed()
    places = expected(angles, trans)[..., [0, 2, 1]] * [1, 1, -1]
    padded = np.pad(angles, ((0, 0), (0, 90)))
    forms = (
        {"poses": padded, "trans": trans, "mocap_framerate": 120.0},  # AMASS of SMPL-H
        {"root_orient": angles[:, :3], "pose_body": angles[:, 3:], "trans": trans, "mocap_frame_rate": 120.0},
    )
    for form in forms:
        np.savez(tmp_path / "a.npz", **form)
        motion = load_motion(tmp_path / "a.npz")
        np.testing.assert_allclose(motion.positions, places, atol=1e-5)
        assert motion.fps == 120 and motion.source["up"].value == "z"
        assert any("mean body" in problem.message and "body_model=" in problem.remedy for problem in motion.problems)
    assert any("mean body" in str(problem) for problem in inspect_motion(tmp_path / "a.npz").problems)


def test_rotations_of_other_tools_are_read_if_they_are_named(tmp_path):
    angles, trans = posed()
    body = angles[:, 3:].reshape(len(angles), 21, 3)
    matrices = Rotation.from_rotvec(body.reshape(-1, 3)).as_matrix().reshape(len(angles), 21, 3, 3)
    places = expected(angles, trans)
    for form in (body.reshape(len(angles), -1), body, matrices):
        np.savez(tmp_path / "a.npz", global_orient=angles[:, :3], body_pose=form, transl=trans, fps=30)
        with pytest.raises(ValueError, match=r"rotations of SMPL.*key='body_pose'"):
            load_motion(tmp_path / "a.npz")
        motion = load_motion(tmp_path / "a.npz", key="body_pose", up="y")
        np.testing.assert_allclose(motion.positions, places, atol=1e-5)
    np.savez(tmp_path / "a.npz", global_orient=angles[:, :3], body_pose=body)
    assert any("in place" in p.message for p in load_motion(tmp_path / "a.npz", key="body_pose").problems)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"poses": np.zeros((10, 9))}, r"poses \(10, 9\).*66"),
        ({"poses": np.full((10, 66), np.inf)}, "finite axis angles"),
        ({"poses": np.full((10, 66), "a")}, "save rotations as numbers"),
        ({"trans": np.zeros((9, 3))}, r"trans \(9, 3\)"),
    ],
)
def test_wrong_poses_are_one_line(change, message, tmp_path):
    angles, trans = posed()
    np.savez(tmp_path / "a.npz", **({"poses": angles, "trans": trans} | change))
    with pytest.raises(ValueError, match=message):
        load_motion(tmp_path / "a.npz")


def test_the_mean_body_has_the_proportions_of_its_tables():
    at = dict(zip(HUMANML3D.joint_names, T_POSE, strict=True))
    for start, end, share in (
        ("left_hip", "left_knee", 0.245),
        ("left_knee", "left_ankle", 0.246),
        ("left_shoulder", "left_elbow", 0.186),
        ("left_elbow", "left_wrist", 0.146),
    ):
        assert np.linalg.norm(at[end] - at[start]) == pytest.approx(1.7 * share)
    np.testing.assert_allclose(T_POSE[HUMANML3D.mirror_permutation] * [-1, 1, 1], T_POSE, atol=1e-12)
    assert at["left_foot"][2] > 0.1  # it faces Z+
