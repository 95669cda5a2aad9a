"""glTF: positions of nodes that translate, turn and scale, and files that lie."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation, Slerp
from written import gltf, walking

from lexmotion import load_motion
from lexmotion.processing.recordings.gltf import gltf_recording
from lexmotion.processing.recordings.options import ReadingOptions
from lexmotion.processing.recordings.recording import SeveralMotionsError


@pytest.fixture(scope="module")
def joints():
    return walking()


@pytest.mark.parametrize("suffix", ["glb", "gltf"])
def test_a_body_is_where_it_was_written(suffix, joints, tmp_path):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(gltf(joints, binary=suffix == "glb"))
    motion = load_motion(path)
    np.testing.assert_allclose(motion.positions, joints, atol=1e-5)
    facts = {name: fact.value for name, fact in motion.source.items()}
    assert facts["fps"] == 30 and facts["units"] == "m" and facts["up"] == "y" and facts["mapping"] == "mixamo"


def small(rotations, times, interpolation="LINEAR", **change):
    """Two nodes: the first turns, has a scale of 2, and carries the second one unit along x."""
    values = np.asarray(rotations, dtype="<f4").tobytes()
    seconds = np.asarray(times, dtype="<f4").tobytes()
    import base64

    content = {
        "nodes": [{"name": "a", "children": [1], "scale": [2, 2, 2]}, {"translation": [1, 0, 0]}],
        "buffers": [{"uri": "data:;base64," + base64.b64encode(seconds + values).decode()}],
        "bufferViews": [{"buffer": 0}, {"buffer": 0, "byteOffset": len(seconds)}],
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": len(times), "type": "SCALAR"},
            {"bufferView": 1, "componentType": 5126, "count": len(rotations), "type": "VEC4"},
        ],
        "animations": [
            {
                "samplers": [{"input": 0, "output": 1, "interpolation": interpolation}],
                "channels": [{"sampler": 0, "target": {"node": 0, "path": "rotation"}}],
            }
        ],
    }
    return json.dumps(content | change).encode()


def read(tmp_path, content, **options):
    path = tmp_path / "a.gltf"
    path.write_bytes(content)
    return gltf_recording(path, ReadingOptions(**options))


def test_rotations_and_scales_carry_children(tmp_path):
    keys = Rotation.from_euler("z", [[0], [90], [200]], degrees=True)
    found = read(tmp_path, small(keys.as_quat(), [0.0, 0.5, 1.0]))
    times = np.arange(31) / 30
    expected = 2 * Slerp([0, 0.5, 1], keys)(times).apply([1, 0, 0])
    assert found.fps.value == 30 and found.names == ("a", "node1")
    np.testing.assert_allclose(found.positions[:, 1], expected, atol=1e-6)
    np.testing.assert_allclose(found.rest[1], [2, 0, 0])


def test_steps_and_cubic_splines(tmp_path):
    keys = Rotation.from_euler("z", [[0], [90]], degrees=True).as_quat()
    step = read(tmp_path, small(keys, [0.0, 1.0], "STEP")).positions[:, 1]
    np.testing.assert_allclose(step[:-1], np.tile([2, 0, 0], (30, 1)), atol=1e-6)
    spline = np.zeros((6, 4))
    spline[1], spline[4] = keys  # tangents of zero
    cubic = read(tmp_path, small(spline, [0.0, 1.0], "CUBICSPLINE")).positions[15, 1]
    middle = Rotation.from_quat((keys[0] + keys[1]) / 2).apply([2, 0, 0])
    np.testing.assert_allclose(cubic, middle, atol=1e-6)


def test_one_of_several_animations_is_chosen(joints, tmp_path):
    path = tmp_path / "a.gltf"
    content = json.loads(gltf(joints, binary=False))
    content["animations"].append(content["animations"][0] | {"name": "run"})
    path.write_text(json.dumps(content))
    with pytest.raises(SeveralMotionsError, match=r"2 animations.*key=.*walk, run") as error:
        load_motion(path)
    assert error.value.keys == ["0", "1"]
    for key in ("run", "1"):
        np.testing.assert_allclose(load_motion(path, key=key).positions, joints, atol=1e-5)


def test_a_real_model_keeps_the_length_of_its_bones():
    """The fox of the Khronos samples (CC BY 4.0), which gradio brings along."""
    found = importlib.util.find_spec("gradio")
    path = Path(found.origin).parent / "media_assets" / "models3d" / "Fox.gltf" if found else Path("Fox.gltf")
    if not path.is_file():
        pytest.skip("gradio's Fox.gltf is not at hand")
    fox = gltf_recording(path, ReadingOptions(key="Walk"))
    assert fox.positions.shape == (18, 24, 3) and fox.fps.value == 24
    tail = [fox.names.index(name) for name in fox.names if "Tail" in name]
    lengths = np.linalg.norm(np.diff(fox.positions[:, tail], axis=1), axis=-1)
    assert len(tail) > 2 and lengths.std(axis=0).max() < 1e-3 * lengths.mean()


TURN = Rotation.from_euler("z", [[0], [90]], degrees=True).as_quat()
WRONG = {
    "cycle": ({"nodes": [{"children": [1]}, {"children": [0]}]}, "children of each other"),
    "two parents": ({"nodes": [{"children": [2]}, {"children": [2]}, {}]}, "two parents"),
    "no animation": ({"animations": []}, "no animation"),
    "path outside": ({"buffers": [{"uri": "../../etc/passwd"}]}, r"is not a file beside it.*\.glb"),
    "absolute path": ({"buffers": [{"uri": "/etc/passwd"}]}, "is not a file beside it"),
    "address": ({"buffers": [{"uri": "https://example.org/a.bin"}]}, "is not a file beside it"),
    "missing buffer": ({"buffers": [{"uri": "a.bin"}]}, r"a\.bin: no such file"),
    "huge count": (
        {"accessors": [{"bufferView": 0, "componentType": 5126, "count": 2**30, "type": "SCALAR"}]},
        "outside",
    ),
    "no list": ({"nodes": 3}, "nodes is not a list"),
    "huge translation": ({"nodes": [{"children": [1]}, {"translation": [1e300, 0, 0]}]}, "finite"),
    "a name that is a list": ({"nodes": [{"name": [], "children": [1], "rotation": {}}, {}]}, "rotation of node 0"),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=list(WRONG))
def test_files_that_lie_are_refused(change, message, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read(tmp_path, small(TURN, [0.0, 1.0], **change))


def test_fbx_names_the_command_that_converts_it(tmp_path):
    (tmp_path / "a.fbx").write_bytes(b"Kaydara FBX Binary")
    with pytest.raises(ValueError, match=r"blender --background.*import_scene\.fbx.*\.glb"):
        load_motion(tmp_path / "a.fbx")
