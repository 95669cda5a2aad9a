"""C3D and TRC: the points that an independent reader sees, and the joints from which the markers were made."""

from pathlib import Path

import numpy as np
import pytest
from written import JOINT, Z_UP, c3d, markers_of, trc, walking

from lexmotion import load_motion
from lexmotion.processing.recordings.c3d import _C3D

FIXTURES = Path(__file__).parent / "fixtures"
CENTRES = [
    JOINT[f"{side}_{name}"] for side in ("left", "right") for name in ("hip", "shoulder", "elbow", "wrist", "foot")
]
HINGES = [JOINT[f"{side}_{name}"] for side in ("left", "right") for name in ("knee", "ankle")]
TRUNK = [JOINT[name] for name in ("pelvis", "spine1", "spine2", "spine3", "neck", "head", "left_collar")]


@pytest.fixture(scope="module")
def joints():
    return walking()


def markers(joints, scale=1000.0):
    return {name: scale * place for name, place in markers_of(joints @ Z_UP.T).items()}


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("kind", ["float", "int"])
@pytest.mark.parametrize("processor", [84, 85, 86])
def test_every_storage_of_c3d_is_read_as_by_ezc3d(kind, processor, joints, tmp_path):
    ezc3d = pytest.importorskip("ezc3d")
    path = write(tmp_path / "a.c3d", c3d(markers(joints), kind=kind, processor=processor))
    points, stated = _C3D(path.read_bytes()).points()
    expected = np.stack(list(markers(joints).values()), axis=1)
    np.testing.assert_allclose(points, expected, atol=0.051 if kind == "int" else 1e-3)
    if processor != 86:  # which ezc3d does not read
        np.testing.assert_allclose(points, ezc3d.c3d(str(path))["data"]["points"][:3].transpose(2, 1, 0), atol=1e-3)
    assert stated == len(joints)


@pytest.mark.parametrize("suffix", ["c3d", "trc"])
def test_plug_in_gait_markers_give_the_joints(suffix, joints, tmp_path):
    content = c3d(markers(joints)) if suffix == "c3d" else trc(markers(joints))
    motion = load_motion(write(tmp_path / f"a.{suffix}", content))
    facts = {name: fact.value for name, fact in motion.source.items()}
    assert facts["fps"] == 100 and facts["units"] == "mm" and facts["up"] == "z"
    assert facts["format"] == f"{suffix.upper()}, markers" and not motion.problems
    apart = np.linalg.norm(motion.positions - joints, axis=-1)
    assert apart[:, CENTRES].max() < 0.005 and apart[:, HINGES].max() < 0.02 and apart[:, TRUNK].max() < 0.06


def test_cmu_names_and_prefixes_of_subjects(joints, tmp_path):
    change = {"LASI": "LFWT", "RASI": "RFWT", "LPSI": "LBWT", "RPSI": "RBWT"}
    named = {f"Jim:{change.get(name, name)}": place for name, place in markers(joints).items()}
    motion = load_motion(write(tmp_path / "a.c3d", c3d(named)))
    assert np.abs(motion.positions - joints)[:, CENTRES].max() < 0.005


def test_centres_of_joints_by_their_names(joints, tmp_path):
    names = {"hip": "Hip", "knee": "Knee", "ankle": "Ankle", "foot": "BigToe", "shoulder": "Shoulder"}
    names |= {"elbow": "Elbow", "wrist": "Wrist"}
    points = {
        f"{side[0].upper()}{name}": joints[:, JOINT[f"{side}_{joint}"]]
        for side in ("left", "right")
        for joint, name in names.items()
    }
    points |= {"LHeel": joints[:, JOINT["left_ankle"]], "RHeel": joints[:, JOINT["right_ankle"]]}
    points |= {"Neck": joints[:, JOINT["neck"]], "Nose": joints[:, JOINT["head"]] + [0, 0.05, 0.08]}
    motion = load_motion(write(tmp_path / "a.trc", trc(points, rate=60, units="m")))
    assert motion.source["format"].value == "TRC, landmarks" and motion.source["up"].value == "y"
    same = [JOINT[f"{side}_{name}"] for side in ("left", "right") for name in ("hip", "knee", "wrist")]
    np.testing.assert_allclose(motion.positions[:, same], joints[:, same], atol=1e-4)


def test_a_recording_of_pose2sim_is_a_body():
    motion = load_motion(FIXTURES / "pose2sim_balancing.trc")
    at = dict(zip(JOINT, motion.positions[0], strict=True))
    assert motion.fps == 60 and [motion.source[name].value for name in ("units", "up")] == ["m", "y"]
    np.testing.assert_allclose(at["left_wrist"], [0.3546, 0.9377, -1.4580])
    for side in ("left", "right"):
        shank, thigh = (
            np.linalg.norm(at[f"{side}_{a}"] - at[f"{side}_{b}"]) for a, b in (("ankle", "knee"), ("knee", "hip"))
        )
        assert 0.35 < shank < 0.45 and 0.35 < thigh < 0.45
    heights = [at[name][1] for name in ("left_hip", "pelvis", "spine1", "spine2", "spine3", "neck", "head")]
    assert heights == sorted(heights) and 1.5 < heights[-1] < 1.65


def test_short_gaps_are_filled_in_and_long_ones_named(joints, tmp_path):
    gap = markers(joints)
    whole = load_motion(write(tmp_path / "a.c3d", c3d(gap))).positions
    gap["LKNE"][10:12] = np.nan
    gap["C7"][20] = 0.0  # a lost marker of many programs
    motion = load_motion(write(tmp_path / "a.c3d", c3d(gap)))
    assert [problem.message for problem in motion.problems] == [
        "gaps of at most 0.2 s were interpolated, 3 marker positions in total"
    ]
    assert 0 < np.abs(motion.positions - whole).max() < 0.05
    gap["LKNE"][5:32] = np.nan
    with pytest.raises(ValueError, match=r"27 of 40 frames.*NaN.*5, 6"):
        load_motion(write(tmp_path / "a.c3d", c3d(gap)))


def test_unknown_markers_are_named(joints, tmp_path):
    unknown = {f"Marker {n}": place for n, place in enumerate(markers(joints).values())}
    with pytest.raises(ValueError, match=r"Marker 0, Marker 1.*mapping='rig.json'"):
        load_motion(write(tmp_path / "a.c3d", c3d(unknown)))
    some = markers(joints)
    del some["LELB"], some["RHEE"]
    with pytest.raises(
        ValueError, match=r"right_knee, right_ankle.*left_elbow|left_elbow.*right_knee.*LASI.*mapping='rig.json'"
    ):
        load_motion(write(tmp_path / "a.c3d", c3d(some)))
    two = markers(joints)
    two |= {f"other:{name}": place + 900 for name, place in two.items()}
    with pytest.raises(ValueError, match=r"LASI and other:LASI.*split"):
        load_motion(write(tmp_path / "a.trc", trc(two)))


def test_a_mapping_names_markers_of_any_set(joints, tmp_path):
    points = {f"m{number}": joints[:, number] for number in range(22)}
    mapping = {name: f"m{number}" for name, number in JOINT.items()}
    motion = load_motion(write(tmp_path / "a.trc", trc(points, units="m")), mapping=mapping)
    np.testing.assert_allclose(motion.positions, joints, atol=1e-4)


def test_the_stated_axis_decides_for_a_lying_body_alone(joints, tmp_path):
    lying = {name: 1000 * place for name, place in markers_of(joints).items()}  # Y-up numbers in a Z-up file
    motion = load_motion(write(tmp_path / "a.c3d", c3d(lying, screen="+Z")))
    assert motion.source["up"].value == "y"  # it walks, so the header is wrong
    bent = np.linspace(0, np.pi / 2, len(joints))  # from standing to lying on the back
    turn = np.stack([[np.ones_like(bent), 0 * bent, 0 * bent], [0 * bent, np.cos(bent), -np.sin(bent)],
                     [0 * bent, np.sin(bent), np.cos(bent)]]).transpose(2, 0, 1)  # fmt: skip
    falling = np.einsum("tij,tnj->tni", turn, joints - joints[:, :1]) + [0.0, 1.0, 0.0]
    motion = load_motion(write(tmp_path / "a.c3d", c3d(markers(falling))))
    assert motion.source["up"].value == "z" and motion.source["up"].confidence == "read"


def test_wrong_headers_are_one_line(joints, tmp_path):
    good = c3d(markers(joints))
    for content, message in (
        (b"x" * 2000, "not a C3D file"),
        (good[:3000], r"states 40 frames.*truncated"),
        (good[:1024], "truncated or damaged|no point data"),
        (
            good.replace(b"RATE\x15", b"RATE\x15").replace(bytes([1, 80, 3, 84]), bytes([1, 80, 3, 99])),
            "processor type 99",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            load_motion(write(tmp_path / "a.c3d", content))
    text = trc(markers(joints))
    for content, message in (
        ("a,b\n1,2\n", "no header of a TRC"),
        (text.replace("\t40\t", "\t90\t", 1), r"states 90 frames.*has 40.*truncated"),
        (text.replace("LASI", "RASI"), "each once"),
        (text.replace("0.0100\t", "0.0100\tx", 1), r"line 7.*'x"),
    ):
        with pytest.raises(ValueError, match=message):
            load_motion(write(tmp_path / "a.trc", content))
