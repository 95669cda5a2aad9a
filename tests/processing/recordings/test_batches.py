"""Arrays of generators: each of several motions is read, and a hostile pickle runs nothing."""

import contextlib
import os
import pickle
import pickletools
import subprocess

import numpy as np
import pytest
from written import walking

from lexmotion import load_motion
from lexmotion.processing.motion_features import positions_to_features
from lexmotion.processing.recordings.pickled import read_pickled
from lexmotion.processing.recordings.recording import SeveralMotionsError
from lexmotion.processing.skeletons import HUMANML3D


@pytest.fixture(scope="module")
def joints():
    return walking(30).astype(np.float32)


def saved(path, array):
    np.save(path, array, allow_pickle=True)
    return path


def test_batches_of_every_order_of_axes(joints, tmp_path):
    batch = np.stack([joints, joints + np.float32([1, 0, 0]), joints + np.float32([2, 0, 0])])
    for array in (batch, batch.transpose(0, 2, 3, 1)):
        path = saved(tmp_path / "a.npy", array)
        with pytest.raises(SeveralMotionsError, match=r"3 motions of 30, 30, 30 frames.*key=.*0 to 2"):
            load_motion(path)
        for number, expected in enumerate(batch):
            np.testing.assert_array_equal(load_motion(path, key=str(number)).positions, expected)
    for array in (batch[:1], batch[:1].transpose(0, 2, 3, 1), batch[0].transpose(1, 2, 0)):
        np.testing.assert_array_equal(load_motion(saved(tmp_path / "a.npy", array)).positions, batch[0])
    with pytest.raises(ValueError, match=r"no motion '3'.*0 to 2"):
        load_motion(saved(tmp_path / "a.npy", batch), key="3")


def test_batches_of_features(joints, tmp_path):
    features = positions_to_features(joints, HUMANML3D)
    batch = np.stack([features, features]).astype(np.float32)
    for array in (batch, batch.transpose(0, 2, 1)[:, :, None]):
        motion = load_motion(saved(tmp_path / "a.npy", array), key="1")
        np.testing.assert_array_equal(motion.features, batch[1])


def test_results_of_mdm(joints, tmp_path):
    batch = np.stack([joints, joints])
    content = {"motion": batch.transpose(0, 2, 3, 1), "text": ["walks", "runs"], "lengths": np.array([30, 12])}
    path = saved(tmp_path / "results.npy", content | {"num_samples": 2, "num_repetitions": 1})
    with pytest.raises(SeveralMotionsError, match="2 motions of 30, 12 frames"):
        load_motion(path)
    motion = load_motion(path, key="1")
    np.testing.assert_array_equal(motion.positions, joints[:12])
    assert "frames 12 to 29 are padding and were left out" in [problem.message for problem in motion.problems]
    with pytest.raises(ValueError, match=r"motion 1 has the length 31.*30 frames"):
        load_motion(saved(path, content | {"lengths": np.array([30, 31])}), key="0")
    with pytest.raises(ValueError, match=r"1 lengths for 2 motions"):
        load_motion(saved(path, content | {"lengths": np.array([30])}), key="0")


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
def test_pickles_of_every_protocol(protocol, joints, tmp_path):
    path = saved(tmp_path / "a.npy", {"motion": joints[None], "lengths": [30], "text": ["é"]})
    content = path.read_bytes()
    header = content[: content.index(b"\n") + 1]
    array = np.array({"motion": joints[None], "lengths": [np.int64(30)], "text": ["é"]}, dtype=object)
    path.write_bytes(header + pickle.dumps(array, protocol=protocol))
    if protocol < 1:  # arrays as text are not read
        with pytest.raises(ValueError, match="pickle"):
            load_motion(path)
        return
    try:
        motion = load_motion(path)
    except ValueError as error:
        assert "lengths" in str(error)
    else:
        np.testing.assert_array_equal(motion.positions, joints)


def test_motions_of_several_lengths_and_zeros_at_the_end(joints, tmp_path):
    ragged = np.empty(2, dtype=object)
    ragged[:] = [joints, joints[:20]]
    np.testing.assert_array_equal(load_motion(saved(tmp_path / "a.npy", ragged), key="1").positions, joints[:20])
    padded = np.stack([joints, joints])
    padded[1, 17:] = 0
    np.savez(tmp_path / "a.npz", motion=padded, fps=20)
    assert len(load_motion(tmp_path / "a.npz", key="1").positions) == 17
    assert len(load_motion(tmp_path / "a.npz", key="motion/0").positions) == 30
    np.savez(tmp_path / "a.npz", motion=padded, lengths=np.array([9, 10]))
    assert len(load_motion(tmp_path / "a.npz", key="1").positions) == 10


class _Runs:
    def __init__(self, call, *arguments):
        self.how = call, arguments

    def __reduce__(self):
        return self.how


def hostile(folder):
    yield _Runs(os.system, f"touch {folder / 'ran'}")
    yield _Runs(eval, "open('ran', 'w')")
    yield _Runs(subprocess.Popen, ["touch", str(folder / "ran")])
    yield _Runs(np.fromfile, "/etc/passwd")
    yield _Runs(np.load, "a.npy")
    yield {"motion": _Runs(bytearray, 2**40)}
    yield {("a", "b"): 1}


def test_a_hostile_pickle_runs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for content in hostile(tmp_path):
        array = np.empty(1, dtype=object)
        array[0] = content
        with pytest.raises(ValueError, match=r"a\.npy: not read because it contains a pickle"):
            load_motion(saved(tmp_path / "a.npy", array))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x04cos\nsystem\n\x8c\x04true\x85R.",  # a call
        b"\x80\x04r\xff\xff\xff\xff.",  # a memory of four billion places
        b"\x80\x04\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",  # an array of 2 ** 63 bytes
        b"\x80\x04]\x94h\x00a.",  # a list in itself is no motion
        b"\x80\x04(" * 5 + b".",
        b"\x80\x04t.",
        b"\x80\x04cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R(K\x01J\xff\xff\xff\x7f\x85"
        b"cnumpy\ndtype\n\x8c\x02f8\x89\x88\x87R(K\x03\x8c\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89C\x08abcdefghtb.",
        b"",
    ],
)
def test_a_crafted_pickle_is_one_line_and_takes_no_memory(content, joints, tmp_path):
    path = saved(tmp_path / "a.npy", {"motion": joints})
    header = path.read_bytes()[:128]
    path.write_bytes(header + content)
    with pytest.raises(ValueError, match=r"a\.npy"):
        load_motion(path)


def test_every_opcode_is_read_or_refused():
    """No opcode of a pickle, whatever it is given, ends in another error than a ValueError."""
    for opcode in pickletools.opcodes:
        for before in (b"", b"(", b"]", b"}", b"K\x01", b"K\x01K\x02", b"(K\x01", b"]K\x01"):
            for argument in (b"", b"\x01", b"a\n", b"1\n", b"\x01" * 12):
                with contextlib.suppress(ValueError):
                    read_pickled(before + opcode.code.encode("latin-1") + argument + b".")
