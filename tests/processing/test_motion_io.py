"""Motion files: what is read is the motion that was written, whatever rig, unit, axis and order it has there."""

import json
import os
import sys
import tracemalloc
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from moving_rigs import CMU, MIXAMO, RIGS, Z_UP
from scipy.spatial.transform import Rotation

from lexmotion.processing.corpora.synthetic_motion import OFFSETS, PARENTS
from lexmotion.processing.motion_features import mirror_positions, positions_to_features
from lexmotion.processing.recordings import amass as body_models
from lexmotion.processing.recordings.amass import amass_positions
from lexmotion.processing.recordings.bvh import read_bvh, save_bvh
from lexmotion.processing.recordings.detection import (
    UNITS,
    UP_AXES,
    detect_units,
    metres_per_unit,
    sides_agree,
    to_y_up,
)
from lexmotion.processing.recordings.inspection import foot_sliding, inspect_motion, measure_motion, speed_spikes
from lexmotion.processing.recordings.options import ReadingOptions
from lexmotion.processing.recordings.reading import load_motion, read_motion
from lexmotion.processing.recordings.rigs import RIG_NAMES, match_rig
from lexmotion.processing.skeletons import HUMANML3D, KIT_ML, SKELETONS, get_skeleton

few = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def moving():
    """Root path and rotations of the Mixamo-like rig, and the joint positions they make."""
    root, turns = MIXAMO.move(40, seed=0)
    return root, turns, MIXAMO.expected(MIXAMO.world(root, turns))


@pytest.fixture(scope="module")
def positions(moving):
    return moving[2].astype(np.float32)


def write(path, text):
    path.write_text(text)
    return path


# ---------------------------------------------------------------------------------------------------------------------
# BVH rigs
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["m", "cm", "in", "cmu"])
@pytest.mark.parametrize("up", ["y", "z"])
@pytest.mark.parametrize(("name", "prefix"), [*((name, "") for name in RIGS), ("mixamo", "mixamorig:")])
def test_a_rig_gives_the_features_of_its_positions(name, prefix, up, unit, tmp_path):
    rig = RIGS[name]
    root, turns = rig.move(30, seed=len(name))
    expected = rig.expected(rig.world(root, turns))
    axes = Z_UP if up == "z" else None
    text = rig.text(root, turns, order="ZXY", unit=UNITS[unit], axes=axes, fps=60, prefix=prefix)
    motion = load_motion(write(tmp_path / "a.bvh", text))
    facts = {key: fact.value for key, fact in motion.source.items()}
    known = {"mixamo": "mixamo" if prefix else "motionbuilder"}.get(name, name)
    assert facts == {
        "format": "BVH",
        "skeleton": "humanml3d",
        "mapping": known,
        "fps": 60.0,
        "units": unit,
        "up": up,
    }
    assert motion.problems == [] and motion.positions.dtype == np.float32
    np.testing.assert_allclose(motion.positions, expected, atol=2e-6)
    features = [positions_to_features(torch.as_tensor(x, dtype=torch.float64)) for x in (motion.positions, expected)]
    torch.testing.assert_close(features[0], features[1], atol=1e-4, rtol=0)


@pytest.mark.parametrize("up", UP_AXES)
def test_every_up_axis_is_found_and_is_a_rotation(up, moving, tmp_path):
    axes = to_y_up(np.eye(3), up)  # rows: the image of each axis; its inverse leads from Y-up coordinates
    assert np.linalg.det(axes) == pytest.approx(1)
    root, turns, expected = moving
    motion = load_motion(write(tmp_path / "a.bvh", MIXAMO.text(root, turns, axes=axes)))
    assert motion.source["up"].value == up and motion.source["up"].confidence == "high"
    np.testing.assert_allclose(motion.positions, expected, atol=1e-6)


def test_a_body_that_lies_is_told_by_its_rest_pose(moving, tmp_path):
    root, turns, expected = moving
    lying = Rotation.from_euler("X", 90, degrees=True)
    turns = [lying * turns[0], *turns[1:]]
    root = lying.apply(root)
    root[:, 1] -= MIXAMO.world(root, turns)[..., 1].min()
    motion = read_motion(write(tmp_path / "a.bvh", MIXAMO.text(root, turns)), ReadingOptions())
    assert motion.source["up"].value == "y"
    assert read_motion(tmp_path / "a.bvh", ReadingOptions(up="z")).source["up"] != motion.source["up"]


def test_what_is_given_goes_before_what_is_found(moving, tmp_path):
    root, turns, expected = moving
    path = write(tmp_path / "a.bvh", MIXAMO.text(root, turns, unit=0.01))
    motion = load_motion(path, fps=30, units=0.02, up="y")
    assert motion.fps == 30 and {motion.source[name].confidence for name in ("fps", "units", "up")} == {"given"}
    np.testing.assert_allclose(motion.positions, 2 * expected, atol=1e-5)


def test_a_mapping_names_what_no_table_knows(moving, tmp_path):
    root, turns, expected = moving
    text = MIXAMO.text(root, turns, prefix="bone").replace("boneLeft", "kepa").replace("boneRight", "oikea")
    path = write(tmp_path / "a.bvh", text)
    with pytest.raises(ValueError, match="cmu, mixamo.*left_hip.*mapping='rig.json'"):
        load_motion(path)
    names = {joint: name.replace("Left", "kepa").replace("Right", "oikea") for joint, name in MIXAMO.joints.items()}
    mapping = {
        joint: name if name.startswith(("kepa", "oikea")) else f"bone{name}"
        for joint, name in names.items()
        if joint != "spine2"
    } | {"spine2": ["boneSpine", "boneSpine2", 0.6]}
    (tmp_path / "rig.json").write_text(json.dumps(mapping))
    (tmp_path / "rig.yaml").write_text("\n".join(f"{joint}: {json.dumps(name)}" for joint, name in mapping.items()))
    for given_mapping in (mapping, tmp_path / "rig.json", str(tmp_path / "rig.yaml")):
        motion = load_motion(path, mapping=given_mapping)
        kept = [joint for joint, name in enumerate(HUMANML3D.joint_names) if name != "spine2"]
        np.testing.assert_allclose(motion.positions[:, kept], expected[:, kept], atol=1e-6)
        spine = [HUMANML3D.joint_names.index(f"spine{number}") for number in (1, 2, 3)]
        low, middle, top = (motion.positions[:, joint] for joint in spine)
        np.testing.assert_allclose(middle, low + 0.6 * (top - low), atol=1e-6)
    assert "spine2" in motion.source["mapping"].reason


def test_a_mapping_may_correct_single_joints_of_a_known_rig(moving, tmp_path):
    root, turns, expected = moving
    path = write(tmp_path / "a.bvh", MIXAMO.text(root, turns).replace("LeftToeBase", "LeftBall"))
    with pytest.raises(ValueError, match=r"\b1\b.*\b22\b.*motionbuilder.*left_foot"):
        load_motion(path)
    motion = load_motion(path, mapping={"left_foot": "LeftBall"})
    np.testing.assert_allclose(motion.positions, expected, atol=1e-6)


MAPPINGS = {
    "unknown joint": ({"left_nee": "LeftLeg"}, "'left_nee'.*humanml3d.*left_knee"),
    "unknown source": ({"left_knee": "LeftLegg"}, r"'LeftLegg'.*\bLeftLeg\b"),
    "fraction": ({"left_knee": ["LeftLeg", "LeftFoot", 2]}, r"left_knee.*\b0 to 1\b.*'LeftFoot', 2\b"),
    "number": ({"left_knee": 3}, r"left_knee.*\b3\b"),
}


@pytest.mark.parametrize(("mapping", "message"), MAPPINGS.values(), ids=list(MAPPINGS))
def test_a_wrong_mapping_is_told(mapping, message, moving, tmp_path):
    path = write(tmp_path / "a.bvh", MIXAMO.text(*moving[:2]))
    with pytest.raises(ValueError, match=message):
        load_motion(path, mapping=mapping)


@pytest.mark.parametrize(("name", "content"), [("a.json", "{"), ("a.yaml", "a: ["), ("a.json", "[]")])
def test_a_malformed_mapping_file_is_told(name, content, moving, tmp_path):
    path = write(tmp_path / "a.bvh", MIXAMO.text(*moving[:2]))
    with pytest.raises(ValueError, match=name):
        load_motion(path, mapping=write(tmp_path / name, content))
    with pytest.raises(FileNotFoundError, match="nowhere.json.*cmu, mixamo"):
        load_motion(path, mapping="nowhere.json")


def test_rigs_can_be_forced_by_name():
    names = [name for name in CMU.names]
    assert match_rig(names).rig == "cmu" and match_rig(names, "motionbuilder").rig == "motionbuilder"
    assert match_rig(names).between == ["spine2", "left_collar", "right_collar"]
    with pytest.raises(ValueError, match=r"\b14\b.*\b22\b.*smpl.*left_hip"):
        match_rig(names, "smpl")
    assert set(RIG_NAMES) >= {"cmu", "mixamo", "lafan1", "motionbuilder", "smpl", "kit-ml"}


def test_exchanged_sides_are_noticed(positions, tmp_path):
    swapped = positions[:, HUMANML3D.mirror_permutation]
    np.save(tmp_path / "a.npy", swapped)
    assert sides_agree(positions, HUMANML3D) > 0.8 > -0.8 > sides_agree(swapped, HUMANML3D)
    assert any("left and right" in str(problem) for problem in load_motion(tmp_path / "a.npy", up="y").problems)
    assert sides_agree(mirror_positions(torch.from_numpy(positions)).numpy(), HUMANML3D) > 0.8


# ---------------------------------------------------------------------------------------------------------------------
# Arrays
# ---------------------------------------------------------------------------------------------------------------------


def test_positions_of_an_array(positions, tmp_path):
    np.save(tmp_path / "a.npy", positions)
    motion = load_motion(tmp_path / "a.npy")
    np.testing.assert_array_equal(motion.positions, positions)
    assert motion.skeleton == "humanml3d" and motion.fps == 20 and not motion.fps_is_known
    assert load_motion(tmp_path / "a.npy", fps=30).fps_is_known and motion.model_input is motion.positions
    np.save(tmp_path / "flat.npy", positions.reshape(len(positions), -1))
    np.testing.assert_array_equal(load_motion(tmp_path / "flat.npy").positions, positions)
    positions = positions + np.float32([0, 0, 2])
    np.save(tmp_path / "z.npy", 100 * positions @ Z_UP.T.astype(np.float32))
    turned = load_motion(tmp_path / "z.npy")
    assert (turned.source["units"].value, turned.source["up"].value) == ("cm", "z")
    np.testing.assert_allclose(turned.positions, positions, atol=1e-5)


def test_a_body_that_lies_on_the_floor_keeps_its_axis(positions, tmp_path):
    lying = Rotation.from_euler("X", 90, degrees=True).apply(positions.reshape(-1, 3)).reshape(positions.shape)
    lying[..., 1] -= lying[..., 1].min()
    np.save(tmp_path / "a.npy", lying.astype(np.float32))
    motion = load_motion(tmp_path / "a.npy")
    assert motion.source["up"].value == "y"
    np.testing.assert_allclose(motion.positions, lying, atol=1e-6)


@pytest.mark.parametrize("skeleton", list(SKELETONS))
def test_features_are_kept_and_become_positions(skeleton, tmp_path):
    layout = get_skeleton(skeleton)
    generator = torch.Generator().manual_seed(0)
    features = torch.rand(30, layout.num_features, generator=generator)
    np.save(tmp_path / "a.npy", features.numpy())
    motion = load_motion(tmp_path / "a.npy")
    assert motion.positions.shape == (30, layout.num_joints, 3) and motion.skeleton == skeleton
    np.testing.assert_array_equal(motion.model_input, features.numpy())
    height = features[:, 3].numpy() * layout.metres_per_unit
    np.testing.assert_allclose(motion.positions[:, 0, 1], height, rtol=1e-5)
    assert motion.source["units"].confidence == "read"
    with pytest.raises(ValueError, match=r"a\.npy.*\bunits\b.*\bup\b"):
        load_motion(tmp_path / "a.npy", units="cm")


def test_the_motion_of_an_archive_is_found_or_named(positions, tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, weights=np.zeros((3, 3)), body=positions, fps=np.array(25))
    motion = load_motion(path)
    assert motion.fps == 25 and motion.fps_is_known
    np.testing.assert_array_equal(motion.positions, positions)
    np.savez(path, first=positions, second=2 * positions)
    with pytest.raises(ValueError, match=r"a\.npz.*key=.*first, second"):
        load_motion(path)
    np.testing.assert_array_equal(load_motion(path, key="second", units="m").positions, 2 * positions)
    np.savez(path, joints=positions, features=np.zeros((10, 263)))
    np.testing.assert_array_equal(load_motion(path).positions, positions)
    with pytest.raises(ValueError, match="'third'.*joints, features"):
        load_motion(path, key="third")


class Malicious:
    def __reduce__(self):
        return os.system, ("touch owned",)


def test_a_pickle_is_never_run(positions, tmp_path, monkeypatch):
    import pickle

    monkeypatch.chdir(tmp_path)
    Path("raw.npy").write_bytes(pickle.dumps(Malicious()))
    np.save("object.npy", np.array([Malicious()], dtype=object), allow_pickle=True)
    np.savez("object.npz", positions=np.array([Malicious()], dtype=object))
    Path("a.pkl").write_bytes(pickle.dumps(Malicious()))
    for name in ("raw.npy", "object.npy", "object.npz"):
        with pytest.raises(ValueError, match=name) as error:
            load_motion(name, key="positions" if name.endswith("npz") else None)
        assert (
            "pickle" in str(error.value) and "np.save" in str(error.value) and "allow_pickle" not in str(error.value)
        )
    with pytest.raises(ValueError, match=r"a\.pkl.*(?i:pickle).*np\.save"):
        load_motion("a.pkl")
    assert not Path("owned").exists()


def bad(positions, name):
    frames = positions.copy()
    if name == "nan":
        frames[7, 3] = np.nan
    return {
        "nan": frames,
        "all nan": np.full_like(frames, np.nan),
        "24 joints": np.zeros((5, 24, 3)),
        "batch": np.stack([frames, frames]),
        "no frames": frames[:0],
        "text": np.full((4, 22, 3), "a"),
        "table": np.zeros((5, 100)),
    }[name]


BAD_ARRAYS = {
    "nan": r"\b1\b.*\b40\b.*NaN.*\b7\b",
    "all nan": r"all\b.*\b40\b.*NaN",
    "24 joints": r"\(5, 24, 3\).*22, 3\).*array\[:, :22\]",
    "batch": r"2 motions of 40, 40 frames.*key=",
    "no frames": r"\b0 frames\b",
    "text": "<U1",
    "table": r"\(5, 100\).*263",
}


@pytest.mark.parametrize(("name", "message"), BAD_ARRAYS.items(), ids=list(BAD_ARRAYS))
def test_a_wrong_array_is_told(name, message, positions, tmp_path):
    np.save(tmp_path / "a.npy", bad(positions, name))
    with pytest.raises(ValueError, match=message) as error:
        load_motion(tmp_path / "a.npy")
    assert "a.npy" in str(error.value) and "\n" not in str(error.value)


def test_options_are_an_object_or_keywords(positions, tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, positions * 100)
    options = ReadingOptions(fps=30, units="cm", up="y")
    motion = load_motion(path, options, "humanml3d")
    assert motion.fps == 30 and motion.source["units"].confidence == "given"
    np.testing.assert_array_equal(motion.positions, load_motion(path, fps=30, units="cm", up="y").positions)
    assert load_motion(path, options, fps=25).fps == 25
    with pytest.raises(TypeError, match="'unit'.*fps, units"):
        load_motion(path, unit="cm")
    with pytest.raises(TypeError, match=r"30.*ReadingOptions\(\.\.\.\)"):
        load_motion(path, 30)


def test_wrong_options_and_files_are_told(positions, tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, positions)
    for options, message in (
        ({"units": "cubit"}, "'cubit'.*m, cm"),
        ({"units": -1}, r"-1\b.*m, cm"),
        ({"up": "w"}, "'w'.*y, -y"),
        ({"fps": 0}, "fps.*0"),
        ({"skeleton": "kit-ml"}, r"\b22\b.*'humanml3d'.*'kit-ml'"),
        ({"skeleton": "cat"}, "'cat'.*humanml3d, kit-ml"),
        ({"mapping": "cmu"}, r"a\.npy.*mapping"),
        ({"key": "x"}, r"a\.npy.*one motion.*key='x'"),
    ):
        with pytest.raises(ValueError, match=message):
            load_motion(path, **options)
    with pytest.raises(FileNotFoundError, match="nowhere.npy"):
        load_motion(tmp_path / "nowhere.npy")
    with pytest.raises(IsADirectoryError, match="folder.*motion file"):
        load_motion(tmp_path)
    with pytest.raises(ValueError, match=r"a\.obj.*\.npy, \.npz, \.bvh, \.csv"):
        load_motion(write(tmp_path / "a.obj", ""))
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"a\.npy.*NumPy.*np\.save"):
        load_motion(path)
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04half")
    with pytest.raises(ValueError, match=r"a\.npz.*NumPy.*np\.save"):
        load_motion(tmp_path / "a.npz")


def test_kit_ml_in_millimetres(tmp_path):
    from test_motion_features import random_motion

    millimetres = random_motion("kit-ml", 30, 0).numpy()
    np.save(tmp_path / "a.npy", millimetres)
    motion = load_motion(tmp_path / "a.npy", units="mm", up="y")
    assert motion.skeleton == "kit-ml" and motion.fps == 12.5
    np.testing.assert_allclose(motion.positions, millimetres / 1000, atol=1e-5)


# ---------------------------------------------------------------------------------------------------------------------
# Units
# ---------------------------------------------------------------------------------------------------------------------


@given(st.floats(1.45, 2.0), st.sampled_from([unit for unit in UNITS if unit != "cmu"]))
def test_the_unit_of_a_grown_body_is_found(height, unit):
    fact = detect_units(height / UNITS[unit])
    assert fact.value == unit and fact.confidence == "high"


def test_units_by_name_or_number():
    assert metres_per_unit("Inches") == 0.0254 and metres_per_unit("0.3") == metres_per_unit(0.3) == 0.3
    assert detect_units(0.0).confidence == "low" and detect_units(1e5).confidence == "low"


# ---------------------------------------------------------------------------------------------------------------------
# CSV
# ---------------------------------------------------------------------------------------------------------------------


def table(positions, columns, extra=()):
    values = np.concatenate([*(values[:, None] for _, values in extra), positions.reshape(len(positions), -1)], axis=1)
    header = [*(name for name, _ in extra), *columns]
    return "\n".join([",".join(header), *(",".join(f"{value:.7f}" for value in row) for row in values)]) + "\n"


def columns(style, names):
    return [style.format(joint=name, axis=axis, number=n) for n, name in enumerate(names) for axis in "xyz"]


@pytest.mark.parametrize("style", ["{joint}_{axis}", "{joint}.{axis}", "{joint} [{axis}]", "joint{number}_{axis}"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_tables_of_joints(style, separator, positions, tmp_path):
    time = ("time", np.arange(len(positions)) / 25)
    text = table(positions, columns(style, HUMANML3D.joint_names), [time]).replace(",", separator)
    motion = load_motion(write(tmp_path / "a.csv", text))
    assert motion.fps == 25 and motion.skeleton == "humanml3d"
    np.testing.assert_allclose(motion.positions, positions, atol=1e-6)


@pytest.mark.parametrize("header", ["x{0},y{0},z{0}", "x,y,z"])
def test_tables_without_names_are_in_the_order_of_the_skeleton(header, positions, tmp_path):
    names = [name for n in range(22) for name in header.format(n).split(",")]
    motion = load_motion(write(tmp_path / "a.csv", table(positions, names)))
    np.testing.assert_allclose(motion.positions, positions, atol=1e-6)
    assert not motion.fps_is_known


def test_joints_of_a_table_are_found_by_name_in_any_order(moving, tmp_path):
    root, turns, expected = moving
    shuffled = np.random.default_rng(0).permutation(len(MIXAMO.names))
    world = MIXAMO.world(root, turns)[:, shuffled] * 100
    names = [f"mixamorig:{MIXAMO.names[number]}" for number in shuffled]
    frame = ("frame", np.arange(len(world), dtype=float))
    motion = load_motion(write(tmp_path / "a.csv", table(world, columns("{joint}_{axis}", names), [frame])))
    assert motion.source["units"].value == "cm" and motion.source["mapping"].value == "mixamo"
    np.testing.assert_allclose(motion.positions, expected, atol=1e-6)


def test_a_wrong_table_is_told(positions, tmp_path):
    good = table(positions, columns("{joint}_{axis}", HUMANML3D.joint_names))
    lines = good.splitlines()
    wrong = {
        r"line 3\b.*\b65\b.*\b66\b": "\n".join([*lines[:2], lines[2].rsplit(",", 1)[0], *lines[3:]]),
        r"line 4\b.*'abc'": good.replace(lines[3].split(",")[5], "abc"),
        r"'pelvis'.*\bz\b": good.replace("pelvis_z", "pelvis_w"),
        r"\ba, b\b.*left_hip_x": "a,b\n1,2\n",
        r"a\.csv.*empty": "",
        r"\b0 frames\b": lines[0] + "\n",
        r"\b1\b.*\b22\b.*\bhead\b": good.replace("head_", "hat_"),
        r"time\b.*\b40\b": table(
            positions, columns("{joint}_{axis}", HUMANML3D.joint_names), [("time", np.arange(40) * 40.0)]
        ),
    }
    for message, text in wrong.items():
        with pytest.raises(ValueError, match=message):
            load_motion(write(tmp_path / "a.csv", text))
    gap = good.replace(lines[3].split(",")[5], "")
    with pytest.raises(ValueError, match=r"\b1\b.*\b40\b.*NaN.*\b2\b"):
        load_motion(write(tmp_path / "a.csv", gap))


# ---------------------------------------------------------------------------------------------------------------------
# AMASS
# ---------------------------------------------------------------------------------------------------------------------


def amass(path, num_frames=6):
    """A recording, and the joints that SciPy's rotations give a body of `OFFSETS`, five per cent larger, Z up."""
    generator = np.random.default_rng(0)
    angles = 0.3 * generator.normal(size=(num_frames, 52, 3))
    angles[:, 0] = (Rotation.from_euler("X", 90, degrees=True) * Rotation.from_rotvec(angles[:, 0])).as_rotvec()
    trans = generator.normal(size=(num_frames, 3))
    np.savez(
        path,
        poses=angles.reshape(num_frames, -1),
        trans=trans,
        betas=np.array([0.5, *np.zeros(15)]),
        gender=np.array(b"male"),
        mocap_framerate=np.array(120.0),
    )
    places, total = [], []
    for joint, parent in enumerate(PARENTS):
        turn = Rotation.from_rotvec(angles[:, joint])
        places.append(trans if parent < 0 else places[parent] + total[parent].apply(1.05 * OFFSETS[joint]))
        total.append(turn if parent < 0 else total[parent] * turn)
    return to_y_up(np.stack(places, axis=1), "z")


def body_model(folder):
    """A SMPL-H model of sixty vertices, whose joints are vertices."""
    rest = np.zeros((60, 3))
    for joint, parent in enumerate(PARENTS):
        rest[joint] = 0 if parent < 0 else rest[parent] + OFFSETS[joint]
    shapes = np.zeros((60, 3, 16))
    shapes[..., 0] = 0.1 * rest
    hands = {f"hands_components{side}": np.eye(45) for side in "lr"} | {
        f"hands_mean{side}": np.zeros(45) for side in "lr"
    }
    (folder / "male").mkdir(parents=True)
    np.savez(
        folder / "male" / "model.npz",
        v_template=rest,
        shapedirs=shapes,
        posedirs=np.zeros((60, 3, 459)),
        J_regressor=np.eye(52, 60),
        kintree_table=np.stack([[2**32 - 1, *PARENTS[1:], *[20] * 15, *[21] * 15], np.arange(52)]),
        weights=np.full((60, 52), 1 / 52),
        f=np.zeros((1, 3), dtype=np.int64),
        **hands,
    )


def test_amass_without_smplx_says_what_to_install(tmp_path, monkeypatch):
    amass(tmp_path / "a.npz")
    monkeypatch.setitem(sys.modules, "smplx", None)
    with pytest.raises(ImportError, match=r"AMASS.*pip install smplx.*body_model=.*mano\.is\.tue\.mpg\.de"):
        load_motion(tmp_path / "a.npz", body_model=tmp_path)


def test_a_wrong_body_model_says_where_to_get_one(tmp_path, monkeypatch):
    amass(tmp_path / "a.npz")
    monkeypatch.setitem(sys.modules, "smplx", types.ModuleType("smplx"))
    with pytest.raises(FileNotFoundError, match=r"'male'.*male/model\.npz.*SMPLH_MALE\.npz"):
        load_motion(tmp_path / "a.npz", body_model=tmp_path)
    (tmp_path / "SMPLH_MALE.npz").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"SMPLH_MALE\.npz.*SMPL-H"):
        load_motion(tmp_path / "a.npz", body_model=tmp_path)
    with pytest.raises(ValueError, match=r"a\.npz.*poses.*\(4, 9\).*\b66\b"):
        amass_positions({"poses": np.zeros((4, 9)), "trans": np.zeros((4, 3))}, None, "a.npz")


def test_amass_through_smplx(tmp_path):
    pytest.importorskip("smplx")
    expected = amass(tmp_path / "a.npz")
    body_model(tmp_path / "smplh")
    motion = load_motion(tmp_path / "a.npz", body_model=tmp_path)
    assert motion.fps == 120 and motion.source["format"].value == "AMASS"
    np.testing.assert_allclose(motion.positions, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("value", "gender"), [(b"female", "female"), ("Male", "male"), (None, "neutral"), ("x", "neutral")]
)
def test_gender_as_amass_stores_it(value, gender):
    assert body_models._gender(None if value is None else np.array(value)) == gender


# ---------------------------------------------------------------------------------------------------------------------
# Positions -> BVH
# ---------------------------------------------------------------------------------------------------------------------


@few
@given(
    seed=st.integers(0, 10**6), sway=st.floats(0, 170), frames=st.integers(1, 30), unit=st.sampled_from(list(UNITS))
)
def test_poses_survive_bvh(seed, sway, frames, unit, tmp_path):
    positions = MIXAMO.expected(MIXAMO.world(*MIXAMO.move(frames, seed, sway)))
    apart = save_bvh(tmp_path / "a.bvh", positions, "humanml3d", fps=30, units=unit)
    again = load_motion(tmp_path / "a.bvh", units=unit, up="y")
    assert apart < 1e-5 and again.fps == 30
    np.testing.assert_allclose(again.positions, positions, atol=2e-5)


@few
@given(seed=st.integers(0, 10**6))
def test_bones_that_share_a_joint_may_move_against_each_other(seed, tmp_path):
    generator = np.random.default_rng(seed)
    for skeleton in (HUMANML3D, KIT_ML):
        lengths = generator.uniform(0.05, 0.5, skeleton.num_joints)
        steps = generator.normal(size=(5, skeleton.num_joints, 3))
        steps *= lengths[:, None] / np.linalg.norm(steps, axis=-1, keepdims=True)
        positions = np.zeros_like(steps)
        for parent, joint in (bone for chain in skeleton.chains for bone in zip(chain, chain[1:], strict=False)):
            positions[:, joint] = positions[:, parent] + steps[:, joint]
        assert save_bvh(tmp_path / "a.bvh", positions, skeleton) < 1e-5
        again = load_motion(tmp_path / "a.bvh", units="cm", up="y")
        assert again.skeleton == skeleton.name
        np.testing.assert_allclose(again.positions, positions, atol=2e-5)


def test_the_rest_pose_of_a_written_file_is_a_t_pose(positions, tmp_path):
    save_bvh(tmp_path / "a.bvh", positions, units="m")
    bvh = read_bvh(tmp_path / "a.bvh")
    rest = dict(zip(bvh.names, bvh.rest_positions, strict=True))
    assert rest["left_wrist"][0] > 0.5 > -0.5 > rest["right_wrist"][0]
    assert rest["left_wrist"][1] == pytest.approx(rest["left_shoulder"][1], abs=1e-6)
    assert rest["head"][1] > rest["pelvis"][1] > rest["left_ankle"][1] and rest["left_foot"][2] > rest["left_ankle"][2]
    assert not any(name.endswith("_base") for name in bvh.names)


def test_bones_that_change_their_length_are_told(positions, tmp_path):
    stretched = positions.copy()
    stretched[5, HUMANML3D.joint_names.index("left_wrist")] += 0.3
    assert 0.1 < save_bvh(tmp_path / "a.bvh", stretched) < 1.0


def test_degenerate_motion_is_written(tmp_path):
    assert save_bvh(tmp_path / "a.bvh", np.zeros((3, 22, 3))) == 0
    for wrong, message in ((np.zeros((3, 21, 3)), r"\(3, 21, 3\)"), (np.full((1, 22, 3), np.nan), "(?i)frame 0")):
        with pytest.raises(ValueError, match=message):
            save_bvh(tmp_path / "b.bvh", wrong)
    assert not (tmp_path / "b.bvh").exists()


# ---------------------------------------------------------------------------------------------------------------------
# Inspection
# ---------------------------------------------------------------------------------------------------------------------


def found(path, **options):
    inspection = inspect_motion(path, ReadingOptions(**options))
    return inspection, " ".join(str(problem) for problem in inspection.problems)


def test_a_good_file_is_usable(moving, tmp_path):
    root, turns, expected = moving
    inspection, told = found(write(tmp_path / "a.bvh", MIXAMO.text(root, turns, unit=0.01)))
    assert inspection.usable and inspection.measures["frames"] == 40 and inspection.measures["seconds"] == 2
    assert inspection.measures["height"] == pytest.approx(1.15 * (0.81 + 0.64), abs=0.02)
    assert inspection.measures["bone_change"] < 1e-5 and inspection.facts["units"]["value"] == "cm"
    json.dumps(inspection.to_dict())


def test_problems_are_named_with_remedies(positions, tmp_path):
    path = tmp_path / "a.npy"

    def told(values, **options):
        np.save(path, values)
        return found(path, **options)

    broken = positions.copy()
    broken[3] = np.nan
    inspection, text = told(broken)
    assert not inspection.usable and inspection.measures["nan_frames"] == 1 and "NaN" in text
    spike = positions.copy()
    spike[20, 5] += 3
    inspection, text = told(spike)
    assert inspection.measures["speed_spikes"] == 2 and "2 frame(s)" in text and inspection.usable
    assert "bone" in text
    inspection, text = told(positions[:4])
    assert not inspection.usable and all(word in text for word in ("4 frames", "20", "8"))
    inspection, text = told(np.repeat(positions[:1], 20, axis=0))
    assert "moves" in text
    inspection, text = told(np.tile(positions, (10, 1, 1)))
    assert "11.2 s" in text and inspection.usable
    inspection, text = told(positions, units="ft")
    assert "0.5" in text and "units=" in text
    inspection, text = told(positions, fps=5)
    assert "5 frames per second" in text
    inspection, text = told(np.zeros((9, 7, 3)))
    assert not inspection.usable and "(9, 7, 3)" in text
    with pytest.raises(FileNotFoundError):
        inspect_motion(tmp_path / "nowhere.npy")


def test_what_is_known_of_an_unknown_rig_is_kept(moving, tmp_path):
    text = MIXAMO.text(*moving[:2], fps=50).replace("Left", "kepa")
    inspection, told = found(write(tmp_path / "a.bvh", text))
    assert not inspection.usable and "left_hip" in told
    facts = {name: fact["value"] for name, fact in inspection.facts.items()}
    assert facts == {"format": "BVH", "frames": 40, "joints": 28, "fps": 50.0}


def test_foot_sliding_is_the_share_of_low_and_fast_toes():
    standing = np.zeros((11, 22, 3))
    standing[:, [10, 11], 1] = 0.5
    standing[:, 10, 1] = 0.01
    standing[5:, 10, 0] = np.arange(6) * 0.1  # 2 m/s from the sixth step on
    assert foot_sliding(standing, 20.0, HUMANML3D) == pytest.approx(5 / 10)
    assert foot_sliding(standing, 2.0, HUMANML3D) == 0  # 0.2 m/s
    assert foot_sliding(standing, 20.0, HUMANML3D, floor=-1.0) == 0
    assert foot_sliding(standing[:1], 20.0, HUMANML3D) == 0


def test_a_fast_throw_is_no_spike_but_a_jump_is():
    throw = np.array([1.0, 6.0, 15.0, 24.0, 15.0, 6.0, 1.0])[:, None]
    glitch = np.array([1.0, 1.0, 40.0, 1.0, 1.0])[:, None]
    back = np.array([1.0, 1.0, 40.0, 40.0, 1.0])[:, None]
    assert speed_spikes(throw).sum() == 0
    assert speed_spikes(glitch).tolist() == [False, False, True, False, False]
    assert speed_spikes(back).sum() == 2


def test_measures_are_those_of_the_motion():
    standing = np.cumsum(np.full((21, 22, 3), [0.1, 0.0, 0.0]), axis=0)
    measures = measure_motion(standing, 10.0)
    assert measures["top_speed"] == pytest.approx(1) and measures["path_length"] == pytest.approx(2)
    assert measures["seconds"] == 2.1 and measures["foot_sliding"] == 1


def test_the_command_tells_draws_and_exits(moving, positions, tmp_path, monkeypatch, capsys):
    from lexmotion import cli

    monkeypatch.setenv("COLUMNS", "160")

    def command(*words):
        with pytest.raises(SystemExit) as stop:
            cli.main(["inspect", *map(str, words)])
        return stop.value.code, capsys.readouterr().out

    path = write(tmp_path / "a.bvh", MIXAMO.text(*moving[:2], unit=0.01, axes=Z_UP, prefix="mixamorig:"))
    status, told = command(path, "--figure", tmp_path / "strip.png", "--fps", "25")
    assert status == 0
    for word in ("BVH", "mixamo", "cm", "z", "humanml3d", "usable"):
        assert word in told
    assert (tmp_path / "strip.png").stat().st_size > 1000
    status, told = command(write(tmp_path / "b.bvh", path.read_text()[:5000]), "--json")
    content = json.loads(told)
    assert status == 1 and not content["usable"] and "b.bvh" in content["problems"][0]["message"]
    np.save(tmp_path / "c.npy", positions)
    assert "with --fps" in command(tmp_path / "c.npy", "--json")[1]
    np.save(tmp_path / "d.npy", np.stack([positions] * 2))
    told = command(tmp_path / "d.npy")[1]
    assert "pass --key" in told and "key=" not in told


def test_a_long_motion_is_read_in_a_few_times_its_memory(positions, tmp_path):
    motion = np.tile(positions, (50, 1, 1))
    np.save(tmp_path / "long.npy", motion)
    load_motion(tmp_path / "long.npy")  # what is imported on the way
    tracemalloc.start()
    try:
        load_motion(tmp_path / "long.npy")
        assert tracemalloc.get_traced_memory()[1] < 9 * motion.nbytes
    finally:
        tracemalloc.stop()
