"""ASF and AMC: forward kinematics worked out by hand, and a recording of CMU as another program converted it."""

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from written import ASF_NAMES, amc, asf

from lexmotion import load_motion
from lexmotion.processing.recordings.asf_amc import amc_recording
from lexmotion.processing.recordings.options import ReadingOptions

FIXTURES = Path(__file__).parent / "fixtures"
SMALL = """:units
  length 0.45
  angle deg
:root
  order TX TY TZ RX RY RZ
  axis XYZ
  position 0 0 0
  orientation 0 0 0
:bonedata
  begin
    name thigh
    length 4
    direction 0 -2 0
    axis 0 0 90 XYZ
    dof rx
  end
  begin
    name shank
    direction 0 -1 0
    length 3
    axis 20 30 40 XYZ
    dof rx rz
  end
:hierarchy
  begin
    root thigh
    thigh shank
  end
"""


def write(folder, skeleton, motion, name="a_1"):
    (folder / "a.asf").write_text(skeleton)
    path = folder / f"{name}.amc"
    path.write_text(motion)
    return path


def test_a_leg_worked_out_by_hand(tmp_path):
    # The axes of the thigh are turned by 90 degrees about z, so that its x is the world's y: 90 degrees about it turn
    # the shank's plane, not the thigh. The shank is turned by Rz(50) Rx(30) in its own axes.
    path = write(tmp_path, SMALL, ":DEGREES\n1\nroot 1 2 3 0 90 0\nthigh 90\nshank 30 50\n")
    found = amc_recording(path, ReadingOptions())
    places = dict(zip(found.names, found.positions[0], strict=True))
    np.testing.assert_allclose([places["root"], places["thigh"]], [[1, 2, 3]] * 2, atol=1e-12)
    np.testing.assert_allclose(places["shank"], [1, -2, 3], atol=1e-12)  # straight down: it turns about itself
    axes = Rotation.from_euler("xyz", [20, 30, 40], degrees=True)
    local = axes * Rotation.from_euler("xz", [30, 50], degrees=True) * axes.inv()
    turn = Rotation.from_euler("y", 180, degrees=True) * local
    np.testing.assert_allclose(places["shank_end"], [1, -2, 3] + turn.apply([0, -3, 0]), atol=1e-12)
    np.testing.assert_allclose(found.rest, [[0, 0, 0], [0, 0, 0], [0, -4, 0], [0, -7, 0]], atol=1e-12)
    assert found.units.value == "cmu" and found.fps.value == 120


def test_radians_and_rates(tmp_path):
    degrees = write(tmp_path, SMALL, ":DEGREES\n1\nroot 1 2 3 0 90 0\nthigh 90\nshank 30 50\n")
    expected = amc_recording(degrees, ReadingOptions()).positions
    numbers = " ".join(str(np.deg2rad(v)) for v in (30, 50))
    motion = f":RADIANS\n1\nroot 1 2 3 0 {np.pi / 2} 0\nthigh {np.pi / 2}\nshank {numbers}\n"
    found = amc_recording(write(tmp_path, SMALL, motion), ReadingOptions(fps=60))
    np.testing.assert_allclose(found.positions, expected, atol=1e-9)
    assert not found.problems


def test_a_recording_of_cmu_is_where_another_program_puts_it():
    """Subject 1, trial 1, 4 frames; the positions are from a public conversion to BVH, which lost the thorax."""
    found = amc_recording(FIXTURES / "cmu_01_01.amc", ReadingOptions())
    with np.load(FIXTURES / "cmu_01_01_bvh.npz") as expected:
        for name in expected.files:
            np.testing.assert_allclose(found.positions[:, found.names.index(name)], expected[name], atol=2e-3)


def test_a_whole_body_is_loaded(tmp_path):
    skeleton, bones = asf()
    path = write(tmp_path, skeleton, amc(bones))
    motion = load_motion(path, mapping=ASF_NAMES, fps=30)
    assert motion.positions.shape == (30, 22, 3) and motion.source["up"].value == "y" and motion.fps == 30
    assert 1.5 < motion.positions[0, :, 1].max() - motion.positions[0, :, 1].min() < 1.8


def test_the_skeleton_is_found_beside_the_motion(tmp_path):
    skeleton, bones = asf()
    (tmp_path / "07.asf").write_text(skeleton)
    (tmp_path / "07_1.asf").write_text(SMALL)
    for name in ("07_01", "07", "x"):
        (tmp_path / f"{name}.amc").write_text(amc(bones, 2))
    assert len(amc_recording(tmp_path / "07_01.amc", ReadingOptions()).names) > 20
    assert len(amc_recording(tmp_path / "07.amc", ReadingOptions()).names) > 20
    with pytest.raises(FileNotFoundError, match=r"x\.amc: no skeleton.*x\.asf"):
        amc_recording(tmp_path / "x.amc", ReadingOptions())
    with pytest.raises(ValueError, match=r"07\.asf: .*\.amc"):
        load_motion(tmp_path / "07.asf")


WRONG = {
    "unknown bone": (SMALL, "1\nroot 1 2 3 0 0 0\nthigh 1\nshank 1 2\nfoot 1\n", r"line 5: bone 'foot'"),
    "too few numbers": (SMALL, "1\nroot 1 2 3\n", r"line 2: root needs 6"),
    "text": (SMALL, "1\nroot 1 2 3 0 0 x\n", r"line 2: root needs 6.*x"),
    "bone twice": (
        SMALL,
        "1\nroot 1 2 3 0 0 0\nthigh 1\nthigh 1\nshank 1 2\n",
        r"frame 1 has values twice of 'thigh'",
    ),
    "truncated": (SMALL, "1\nroot 1 2 3 0 0 0\nthigh 1\n", r"frame 1 has no values of 'shank'"),
    "no frames": (SMALL, ":DEGREES\n", "0 frames"),
    "cycle": (SMALL.replace("root thigh", "thigh thigh"), "1\n", "before its parent|two parents|no bones"),
    "unknown parent": (SMALL.replace("root thigh", "root leg"), "1\n", r"a\.asf, line 26: unknown bone.*leg"),
    "channels": (SMALL.replace("dof rx rz", "dof rx l"), "1\n", r"a\.asf, line 22: .*rx l"),
    "infinite": (SMALL.replace("length 3", "length inf"), "1\n", r"a\.asf, line 20: length needs 1 finite"),
}


@pytest.mark.parametrize(("skeleton", "motion", "message"), WRONG.values(), ids=list(WRONG))
def test_what_is_wrong_is_named_with_its_line(skeleton, motion, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        load_motion(write(tmp_path, skeleton, motion))
