"""Large and hostile files: every reader works in linear time and states its limits."""

import json
import struct
import time

import numpy as np
import pytest
from written import amc, asf, c3d, gltf, markers_of, trc, walking

from lexmotion import load_motion
from lexmotion.processing.recordings import json_files, recording


@pytest.mark.parametrize("suffix", ["bvh", "csv", "trc", "asf", "amc"])
def test_a_line_without_an_end_is_refused_before_it_is_split(suffix, tmp_path, monkeypatch):
    monkeypatch.setattr(recording, "MAX_LINE", 1000)
    (tmp_path / "a.asf").write_text(asf()[0])
    path = tmp_path / f"a.{suffix}"
    path.write_text(":units\n" + "1 " * 600)
    if suffix == "asf":
        (tmp_path / "a.amc").write_text(amc([]))
        path = tmp_path / "a.amc"
    with pytest.raises(ValueError, match=r"a\.\w+, line 2: longer than 1,000 characters"):
        load_motion(path)


def test_json_states_its_limits(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([[0.5, 0.5]] * 100))
    monkeypatch.setattr(json_files, "MAX_BRACKETS", 50)
    with pytest.raises(ValueError, match="more than 50 lists and objects"):
        load_motion(path)
    monkeypatch.setattr(json_files, "MAX_JSON", 100)
    with pytest.raises(ValueError, match="MB of JSON, at most"):
        load_motion(path)


def test_more_values_than_fit_are_refused_from_the_header(tmp_path, monkeypatch):
    joints = walking()
    for name, content in (
        ("a.c3d", c3d(markers_of(joints))),
        ("a.trc", trc(markers_of(joints)).encode()),
        ("a.glb", gltf(joints)),
    ):
        (tmp_path / name).write_bytes(content)
        monkeypatch.setattr(recording, "MAX_VALUES", 500)
        with pytest.raises(ValueError, match="at most 500 are read"):
            load_motion(tmp_path / name)


def test_a_gltf_animation_of_a_thousand_years_is_refused(tmp_path):
    content = bytearray(gltf(walking()))
    length = struct.unpack_from("<I", content, 12)[0]
    last = 20 + length + 8 + 4 * 39  # the last of 40 times, the first values of the binary part
    content[last : last + 4] = struct.pack("<f", 9e7)
    (tmp_path / "a.glb").write_bytes(content)
    with pytest.raises(ValueError, match="at most 20,000,000 are read"):
        load_motion(tmp_path / "a.glb")


def test_parameters_of_c3d_that_overlap_take_no_time(tmp_path):
    content = bytearray(c3d(markers_of(walking())))
    start = content.index(b"LABELS") - 2
    for number in range(2000):  # each claims all that follows
        parameter = (
            struct.pack("2b", 2, 1) + b"AB" + struct.pack("<h", 6) + struct.pack("bB", 1, 2) + bytes([255, 255])
        )
        content[start + 10 * number : start + 10 * number] = parameter
    start = time.process_time()
    (tmp_path / "a.c3d").write_bytes(content + bytes(2**22))
    with pytest.raises(ValueError, match=r"a\.c3d"):
        load_motion(tmp_path / "a.c3d")
    assert time.process_time() - start < 1


def test_long_amc_files_are_read_in_linear_time(tmp_path):
    skeleton, bones = asf()
    (tmp_path / "a.asf").write_text(skeleton)
    seconds = []
    for frames in (100, 800):
        (tmp_path / "a.amc").write_text(amc(bones, frames))
        start = time.process_time()
        with pytest.raises(ValueError, match=r"names? them in a mapping|rig"):
            load_motion(tmp_path / "a.amc", mapping="kit-ml")
        seconds.append(time.process_time() - start)
    assert seconds[1] < 24 * max(seconds[0], 0.01)
    assert np.isfinite(seconds).all()
