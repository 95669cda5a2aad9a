"""Files that look like motions and are none, or state impossible values: refused, doubted or converted by name."""

import io
import json
import os
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from moving_rigs import MIXAMO

from lexmotion.processing.corpora.folders import HUMANML3D as HUMANML3D_LAYOUT
from lexmotion.processing.corpora.folders import CorpusFolder, read_ids
from lexmotion.processing.corpora.motion_files import MOTION_FILES, MotionFilesFolder
from lexmotion.processing.motion_features import positions_to_features
from lexmotion.processing.recordings.detection import JOINT_ORDERS
from lexmotion.processing.recordings.inspection import inspect_motion
from lexmotion.processing.recordings.options import ReadingOptions
from lexmotion.processing.recordings.reading import load_motion
from lexmotion.processing.skeletons import HUMANML3D

SHARED = Path(os.environ.get("LEXMOTION_SHARED", Path(__file__).parents[3] / "shared"))
CASES, TROUBLE = SHARED / "cases" / "files", SHARED / "data" / "more" / "reader_trouble_files"


@pytest.fixture(scope="module")
def rig():
    """Root path, rotations and joint positions of a moving body."""
    root, turns = MIXAMO.move(40, seed=0)
    return root, turns, MIXAMO.expected(MIXAMO.world(root, turns)).astype(np.float32)


@pytest.fixture(scope="module")
def positions(rig):
    return rig[2]


def write(path, text):
    path.write_text(text)
    return path


def saved(path, array):
    np.save(path, array)
    return path


def warnings_of(motion):
    return " ".join(str(problem) for problem in motion.problems if problem.severity == "warning")


# --- values ---


@pytest.mark.parametrize("value", [1e300, 1e39, -1e39, 3e38, 1e9])
@pytest.mark.parametrize("everywhere", [True, False])
def test_positions_beyond_float32_are_refused(value, everywhere, positions, tmp_path, recwarn):
    array = positions.astype(np.float64)
    array[slice(None) if everywhere else 3] = value * np.random.default_rng(0).uniform(0.5, 1, (22, 3))
    for name, stored in (("a", array), ("flat", array.reshape(40, -1))):
        with pytest.raises(ValueError, match=r"e\+.*(100 km|1e\+08).*units="):
            load_motion(saved(tmp_path / f"{name}.npy", stored))
    assert not inspect_motion(tmp_path / "a.npy").usable
    assert not [warning for warning in recwarn if warning.category is RuntimeWarning]


def test_values_of_a_bvh_beyond_float32_are_refused(rig, tmp_path):
    text = MIXAMO.text(*rig[:2])
    first = text.splitlines()[-40].split()
    for column in (0, 5):
        words = [*first[:column], "1e300", *first[column + 1 :]]
        with pytest.raises(ValueError, match=r"a\.bvh, line \d+.*'1e300'.*export"):
            load_motion(write(tmp_path / "a.bvh", text.replace(" ".join(first), " ".join(words))))


def test_a_unit_that_puts_the_body_too_far_away_is_refused(positions, tmp_path):
    path = saved(tmp_path / "a.npy", positions)
    with pytest.raises(ValueError, match=r"100 km.*units="):
        load_motion(path, units=1e6)
    with pytest.raises(ValueError, match=r"a\.npy.*one place.*export"):
        load_motion(saved(path, np.ones((20, 22, 3))))


def features_of(positions):
    return positions_to_features(torch.from_numpy(positions).double(), "humanml3d").numpy()


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
@pytest.mark.parametrize("column", [0, 3, 40, 100, 200, 262])
def test_broken_features_are_refused_in_every_column(value, column, positions, tmp_path):
    features = features_of(positions)
    features[7, column] = value
    with pytest.raises(ValueError, match=r"of 39 frames contain NaN or infinity.*\b7\b"):
        load_motion(saved(tmp_path / "a.npy", features))


def test_normalised_features_are_refused(positions, tmp_path):
    features = features_of(positions)
    assert load_motion(saved(tmp_path / "a.npy", features)).features is not None
    mean, deviation = features.mean(axis=0), features.std(axis=0) + 0.1
    for scale in (1.0, 5.0):  # the published loaders divide the deviation of contacts by 5
        with pytest.raises(ValueError, match=r"a\.npy.*normalised.*std \+ mean"):
            load_motion(saved(tmp_path / "a.npy", scale * (features - mean) / deviation))


def test_a_corpus_folder_skips_impossible_values(positions, tmp_path):
    for name in ("new_joint_vecs", "texts"):
        (tmp_path / name).mkdir()
    features = features_of(positions)
    far = features.copy()
    far[5, 1] = 1e7
    normalised = (features - features.mean(axis=0)) / (features.std(axis=0) + 0.1)
    over = features.copy()
    over[3, 9] = 1e300
    for name, array in (("fine", features), ("far", far), ("normalised", normalised), ("over", over)):
        np.save(tmp_path / "new_joint_vecs" / f"{name}.npy", array)
        (tmp_path / "texts" / f"{name}.txt").write_text("a man#a/DET#0.0#0.0\n")
    (tmp_path / "train.txt").write_text("fine far normalised over")
    folder = CorpusFolder(tmp_path, HUMANML3D_LAYOUT)
    assert [record.id for record in folder.records("train")] == ["fine"]
    assert {item.id: item.reason for item in folder.skipped} == {
        "far": "impossible positions",
        "normalised": "normalised features",
        "over": "NaN or infinite values",
    }


# --- arrays that are no positions ---


def axis_angles(width):
    seconds = np.linspace(0, 4, 60)[:, None]
    generator = np.random.default_rng(0)
    return np.sin(seconds * generator.uniform(0.5, 2, width) + generator.uniform(0, 6, width)) * 0.6


@pytest.mark.parametrize("width", [66, 63])
def test_axis_angles_are_refused(width, tmp_path):
    with pytest.raises(ValueError, match=rf"a\.npy.*{width}\b.*axis angles"):
        load_motion(saved(tmp_path / "a.npy", axis_angles(width)))
    still = np.repeat(axis_angles(width)[:1], 30, axis=0)
    with pytest.raises(ValueError, match=rf"a\.npy.*{width}\b.*axis angles.*left and right"):
        load_motion(saved(tmp_path / "a.npy", still))


@pytest.mark.parametrize("name", ["body_pose", "pose_body", "thetas"])
def test_rotations_of_a_body_model_are_no_motion(name, positions, tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, **{name: axis_angles(63)}, transl=np.zeros((60, 3)))
    with pytest.raises(ValueError, match=rf"a\.npz.*{name}: rotations of SMPL.*22 joints"):
        load_motion(path)
    np.savez(path, **{name: axis_angles(63)[:40]}, joints=positions)
    np.testing.assert_array_equal(load_motion(path).positions, positions)


@pytest.mark.parametrize("kind", ["npy", "flat", "csv"])
def test_joints_in_the_order_of_lafan1_are_sorted(kind, positions, tmp_path):
    lafan = positions[:, [HUMANML3D.joint_names.index(name) for name in JOINT_ORDERS["LAFAN1"]]]
    if kind == "csv":
        header = ",".join(f"joint{number}_{axis}" for number in range(22) for axis in "xyz")
        rows = [",".join(f"{value:.7f}" for value in row) for row in lafan.reshape(40, -1)]
        path = write(tmp_path / "a.csv", "\n".join([header, *rows]))
    else:
        path = saved(tmp_path / "a.npy", lafan.reshape(40, -1) if kind == "flat" else lafan)
    motion = load_motion(path)
    np.testing.assert_allclose(motion.positions, positions, atol=1e-6)
    assert any("LAFAN1" in problem.message for problem in motion.problems) and not warnings_of(motion)


def test_bones_that_change_their_length_are_doubted_wherever_a_file_is_read(positions, tmp_path):
    shuffled = positions[:, np.random.default_rng(1).permutation(22)]
    assert "length" in warnings_of(load_motion(saved(tmp_path / "a.npy", shuffled)))
    (tmp_path / "captions.csv").write_text("file,caption,split\na.npy,walks,train\n")
    folder = MotionFilesFolder(tmp_path, MOTION_FILES)
    assert list(folder.records("train")) == [] and folder.skipped[0].reason == "doubtful motion file"
    inspection = inspect_motion(tmp_path / "a.npy")
    assert sum("length of a bone" in str(problem) for problem in inspection.problems) == 1
    trembling = positions * (1 + 0.08 * np.sin(np.arange(40)))[:, None, None].astype(np.float32)
    assert "pose estimation" in " ".join(map(str, inspect_motion(saved(tmp_path / "b.npy", trembling)).problems))
    assert not warnings_of(load_motion(tmp_path / "b.npy"))


# --- frame rates ---


@pytest.mark.parametrize("seconds", ["33.3333", "5e-324", "1e9", "1e-9", "0", "-0.03", "0.0001"])
def test_an_impossible_frame_time_is_doubted_unless_a_rate_is_given(seconds, rig, tmp_path):
    text = MIXAMO.text(*rig[:2]).replace("Frame Time: 0.0500000", f"Frame Time: {seconds}")
    motion = load_motion(write(tmp_path / "a.bvh", text))
    assert motion.fps == 20 and not motion.fps_is_known
    assert f"{float(seconds):g} seconds" in warnings_of(motion) and "fps=" in warnings_of(motion)
    assert ("milliseconds" in warnings_of(motion)) == (seconds == "33.3333")
    assert not warnings_of(load_motion(tmp_path / "a.bvh", fps=60))
    (tmp_path / "captions.csv").write_text("file,caption,split\na.bvh,walks,train\n")
    folder = MotionFilesFolder(tmp_path, MOTION_FILES)
    assert list(folder.records("train")) == [] and folder.skipped[0].reason == "doubtful motion file"


@pytest.mark.parametrize("fps", [1e-9, 0.033, 1e9, np.nan, np.inf, 0.0, -30.0])
def test_an_impossible_rate_is_doubted_in_archives_and_refused_as_an_option(fps, positions, tmp_path):
    np.savez(tmp_path / "a.npz", joints=positions, fps=fps)
    motion = load_motion(tmp_path / "a.npz")
    assert motion.fps == 20 and "'fps'" in warnings_of(motion)
    with pytest.raises(ValueError, match=r"fps: got .*\b1 to 2000\b"):
        load_motion(tmp_path / "a.npz", fps=fps)


def timed(positions, times, name="time", separator=",", comma=False):
    header = [name, *(f"{joint}_{axis}" for joint in HUMANML3D.joint_names for axis in "xyz")]
    rows = [
        [moment, *(f"{value:.6f}" for value in row)]
        for moment, row in zip(times, positions.reshape(len(positions), -1), strict=True)
    ]
    lines = [separator.join(row) for row in rows]
    lines = [line.replace(".", ",") for line in lines] if comma else lines
    return "\n".join([separator.join(header), *lines])


@pytest.mark.parametrize(
    ("name", "scale", "digits"),
    [
        ("time", 1, 3),
        ("Time (Seconds)", 1, 5),
        ("time [s]", 1, 4),
        ("timestamp_ms", 1000, 0),
        ("Time (ms)", 1000, 2),
        ("time_s", 1, 3),
    ],
)
@pytest.mark.parametrize("fps", [60, 120, 25])
def test_times_in_seconds_and_milliseconds(name, scale, digits, fps, positions, tmp_path):
    if scale == 1000 and digits == 0 and fps == 120:
        fps = 100  # rounded to whole milliseconds, 120 frames per second are uneven
    times = [f"{number * scale / fps:.{digits}f}" for number in range(40)]
    motion = load_motion(write(tmp_path / "a.csv", timed(positions, times, name)))
    assert motion.fps == pytest.approx(fps, rel=2e-3) and motion.fps_is_known and not warnings_of(motion)


def test_unnamed_milliseconds_are_refused(positions, tmp_path):
    times = [f"{16.6667 * number:.4f}" for number in range(40)]
    with pytest.raises(ValueError, match=r"'time'.*16\.6667.*time_ms"):
        load_motion(write(tmp_path / "a.csv", timed(positions, times)))


@pytest.mark.parametrize("separator", [";", "\t"])
def test_decimal_commas_are_read(separator, positions, tmp_path):
    times = [f"{number / 30:.4f}" for number in range(40)]
    motion = load_motion(write(tmp_path / "a.csv", timed(positions, times, "time", separator, comma=True)))
    np.testing.assert_allclose(motion.positions, positions, atol=1e-6)
    assert motion.fps == 30
    with pytest.raises(ValueError, match=r"line 2\b.*\b134\b.*\b67\b.*decimal comma"):
        load_motion(write(tmp_path / "b.csv", timed(positions, times, comma=True)))


# --- bounds ---


class Limits:
    """Bounds the seconds of a block, or, which slows it down, its memory."""

    def __init__(self, seconds=2.0, megabytes=None):
        self.seconds, self.megabytes = seconds, megabytes

    def __enter__(self):
        if self.megabytes is not None:
            tracemalloc.start()
        self.start = time.process_time()

    def __exit__(self, *error):
        took = time.process_time() - self.start
        if self.megabytes is not None:
            peak = tracemalloc.get_traced_memory()[1] / 2**20
            tracemalloc.stop()
            assert peak < self.megabytes
        else:
            assert took < self.seconds


@pytest.mark.parametrize("character", list('_ .:-[(x])9jtZ"|'))
def test_a_long_name_of_a_column_is_read_in_linear_time(character, positions, tmp_path):
    lines = timed(positions, ["0"] * 40).splitlines()
    long = character * 100_000
    header = lines[0].replace("time", '"' + long.replace('"', '""') + '"')
    with Limits():
        inspection = inspect_motion(write(tmp_path / "a.csv", "\n".join([header, *lines[1:]])))
    assert all(len(str(problem)) < 600 for problem in inspection.problems)


def end_sites(count, frames=1):
    site = "End Site\n{\nOFFSET 0 1 0\n}\n"
    motion = f"MOTION\nFrames: {frames}\nFrame Time: 0.1\n" + "0 1 0\n" * frames
    return (
        f"HIERARCHY\nROOT Hips\n{{\nOFFSET 0 0 0\nCHANNELS 3 Xposition Yposition Zposition\n{site * count}}}\n{motion}"
    )


def test_many_end_sites_are_read_in_linear_time(tmp_path):
    with Limits():
        inspection = inspect_motion(write(tmp_path / "a.bvh", end_sites(5000)))
    assert inspection.facts["joints"]["value"] == 5001 and "left_hip" in str(inspection.problems[0])
    with pytest.raises(ValueError, match=r"a\.bvh, line \d+.*10,000 joints"), Limits():
        load_motion(write(tmp_path / "a.bvh", end_sites(10_000)))
    with pytest.raises(ValueError, match=r"a\.bvh.*24,012,000 values.*20,000,000"), Limits():
        load_motion(write(tmp_path / "a.bvh", end_sites(6002, frames=4000)))


@pytest.mark.parametrize("count", ["9" * 5000, "²", "1e3", "999999999999"])
def test_an_impossible_number_of_frames_is_refused(count, tmp_path):
    text = end_sites(1, frames=3).replace("Frames: 3", f"Frames: {count}")
    with pytest.raises(ValueError, match=r"a\.bvh.*frames"):
        load_motion(write(tmp_path / "a.bvh", text))


def header_of(shape, descr="<f4"):
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (63 - (len(text) + 10) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


LYING = ["(99999999999999999999, 22, 3)", "(1000000000, 22, 3)", "(-4, 22, 3)", "(39, 22, 3)", "(41, 22, 3)", "((((4,"]


@pytest.mark.parametrize("shape", LYING)
def test_a_header_that_lies_is_refused(shape, positions, tmp_path):
    content = header_of(shape) + positions.tobytes()
    (tmp_path / "a.npy").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("joints.npy", content)
    for name, options in (("a.npy", {}), ("a.npz", {"key": "joints"})):
        with pytest.raises(ValueError, match=rf"{name}.*NumPy.*np\.save"), Limits(megabytes=50):
            load_motion(tmp_path / name, **options)


def test_a_bomb_is_neither_expanded_nor_read(positions, tmp_path):
    path, good = tmp_path / "a.npz", io.BytesIO()
    np.save(good, positions)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, shape in (("video", "(400000000,)"), ("large", "(1515152, 22, 3)")):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                stream.write(header_of(shape, "|u1"))
                for _ in range(4):
                    stream.write(bytes(100_000_000 if name == "video" else 1515152 * 66 // 4))
        archive.writestr("joints.npy", good.getvalue())
    with Limits(megabytes=50):
        np.testing.assert_array_equal(load_motion(path, key="joints").positions, positions)
        np.testing.assert_array_equal(load_motion(path).positions, positions)
    with pytest.raises(ValueError, match=r"a\.npz.*'large'.*100,000,032 values.*20,000,000"), Limits(megabytes=50):
        load_motion(path, key="large")


@pytest.mark.parametrize("kind", ["text", "flipped", "cut", "encrypted", "duplicate"])
def test_a_damaged_archive_is_one_error(kind, positions, tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, joints=positions)
    content = bytearray(path.read_bytes())
    if kind == "flipped":
        content[500:540] = bytes(40)
    elif kind == "cut":
        content = content[: len(content) // 2]
    elif kind == "encrypted":
        content[6] |= 1
        place = content.index(b"PK\x01\x02")
        content[place + 8] |= 1
    path.write_bytes(bytes(content))
    if kind in ("text", "duplicate"):
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("notes.txt" if kind == "text" else "empty.npy", "by hand")
        np.testing.assert_array_equal(load_motion(path).positions, positions)
        with pytest.raises(ValueError, match=r"a\.npz.*NumPy"):
            load_motion(path, key="notes.txt" if kind == "text" else "empty")
        return
    with pytest.raises(ValueError, match=r"a\.npz.*(NumPy|no array can be a motion).*save"):
        load_motion(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "[" * 10_000, "500 brackets"),
        ("a.json", "[" * 100_000, "65,536 bytes"),
        ("a.json", '{"left_hip": "LeftUpLeg", "left_hip": "RightUpLeg"}', "'left_hip'.*twice"),
        ("a.yaml", "left_hip: LeftUpLeg\nleft_hip: RightUpLeg", "'left_hip'.*twice"),
        ("a.yaml", "[" * 5_000, "500 brackets"),
        ("a.yaml", "- " * 5_000, "malformed"),
        ("a.json", " " * 2_000_000 + "{}", "65,536 bytes"),
        ("a.json", '{"left_hip": ' + "[" * 400 + "]" * 400 + "}", r"left_hip.*\[\[\["),
        ("a.json", json.dumps({"left_hip": "x" * 50_000}), "left_hip"),
    ],
)
def test_a_hostile_mapping_is_one_short_error(name, content, message, rig, tmp_path):
    path = write(tmp_path / "m.bvh", MIXAMO.text(*rig[:2]))
    with pytest.raises(ValueError, match=rf"(?s){message}") as error, Limits(3.0):
        load_motion(path, mapping=write(tmp_path / name, content))
    assert "\n" not in str(error.value).split("malformed")[0]


def test_an_open_quote_is_one_error(positions, tmp_path):
    lines = timed(positions, ["0"] * 40).splitlines()
    lines[3] = '"' + lines[3]
    for text in ("\n".join(lines), "\n".join([*lines, *lines[4:] * 20])):
        with pytest.raises(ValueError, match=r"a\.csv, line \d+"):
            load_motion(write(tmp_path / "a.csv", text))


# --- one bad file among good ones ---


BAD = {
    "text.npz": "could not be read",
    "damaged.npz": "damaged",
    "quote.csv": "quote",
    "header.npy": "header",
    "deep.bvh": "HIERARCHY",
    "x" * 300 + ".npy": "long",
}


def bad_folder(folder, positions):
    np.savez_compressed(folder / "damaged.npz", joints=positions)
    content = bytearray((folder / "damaged.npz").read_bytes())
    content[500:540] = bytes(40)
    (folder / "damaged.npz").write_bytes(bytes(content))
    with zipfile.ZipFile(folder / "text.npz", "w") as archive:
        archive.writestr("notes", "by hand")
    lines = timed(positions, ["0"] * 40).splitlines()
    write(folder / "quote.csv", "\n".join([*lines, '"' + lines[4], *lines * 9]))
    (folder / "header.npy").write_bytes(header_of("(10000000000, 22, 3)") + positions.tobytes())
    write(folder / "deep.bvh", "HIERARCHY ROOT a {" * 1000)


def test_bad_files_are_lines_of_the_report(positions, tmp_path, monkeypatch):
    from lexmotion.processing.corpora.prepare import load_prepared, prepare

    folder = tmp_path / "own"
    folder.mkdir()
    bad_folder(folder, positions)
    rows = [{"file": name, "captions": ["a person walks"], "split": "train"} for name in BAD]
    rows += [
        {"file": f"good{number}.npy", "captions": ["a person turns left"], "split": "train"} for number in range(2)
    ]
    rows += [{"file": "good2.npy", "captions": ["a person turns right", 5, None], "split": "test"}]
    rows += [{"file": "good3.npy", "captions": 7, "split": "validation"}]
    for number in range(4):
        np.save(folder / f"good{number}.npy", positions)
    write(folder / "captions.jsonl", "\n".join(map(json.dumps, rows)))
    report = prepare(folder, tmp_path / "out", layout="files")
    assert {split: counts["motions"] for split, counts in report.splits.items()} == {"train": 2, "test": 1}
    reasons = {(item["id"], item["reason"]) for item in report.skipped}
    assert {(name, "unreadable motion file") for name in list(BAD)[:5]} < reasons
    assert {
        ("x" * 300 + ".npy", "missing motion file"),
        ("good2.npy", "malformed caption"),
        ("good3.npy", "malformed caption"),
        ("good3.npy", "no caption"),
        ("", "split without readable motions"),
    } < reasons
    details = " ".join(item["detail"] for item in report.skipped)
    assert "captions.jsonl, line 10: got 7 for a caption" in details and str(tmp_path) not in details
    assert load_prepared(tmp_path / "out", cache_dir=tmp_path / "cache")["test"][0]["captions"] == [
        "a person turns right"
    ]
    assert prepare(folder, tmp_path / "out", layout="files").reused


def test_a_training_split_without_any_motion_is_one_error(positions, tmp_path):
    from lexmotion.processing.corpora.prepare import prepare

    (tmp_path / "own").mkdir()
    np.save(tmp_path / "own" / "a.npy", positions)
    write(tmp_path / "own" / "captions.jsonl", '{"file": "a.npy", "captions": 5, "split": "train"}')
    with pytest.raises(ValueError, match=r"'train'.*1 malformed caption.*a\.npy: captions\.jsonl, line 1: got 5\b"):
        prepare(tmp_path / "own", tmp_path / "out", layout="files")


TABLES = {
    "quote": ('file,caption\na.npy,"' + "walks " * 50_000, r"captions\.csv, line \d+.*quotes"),
    "alias": ("file,caption,split\na.npy,walks,train\n./a.npy,walks,test", r"line 3\b.*a\.npy.*'train'"),
    "link": (
        "file,caption,split\na.npy,walks,train\nb.npy,walks,test",
        r"b\.npy \(test\) and a\.npy \(train\).*one split",
    ),
}


@pytest.mark.parametrize(("text", "message"), TABLES.values(), ids=list(TABLES))
def test_one_motion_is_in_one_split(text, message, positions, tmp_path):
    np.save(tmp_path / "a.npy", positions)
    (tmp_path / "b.npy").symlink_to("a.npy")
    write(tmp_path / "captions.csv", text)
    with pytest.raises(ValueError, match=message):
        MotionFilesFolder(tmp_path, MOTION_FILES)


def test_a_start_without_an_end_is_the_rest(positions, tmp_path):
    np.save(tmp_path / "a.npy", positions)
    write(tmp_path / "captions.csv", "file,caption,split,start\na.npy,walks,train,0.5\n")
    (record,) = MotionFilesFolder(tmp_path, MOTION_FILES).records("train")
    assert (record.id, record.num_frames, record.end) == ("a.npy@0.5-end", 30, 2.0)
    np.testing.assert_array_equal(record.positions, positions[10:])


def test_ids_that_name_one_file_twice_are_one(positions, tmp_path):
    (tmp_path / "ids.txt").write_text("\ufeffa ./a b//c")
    assert read_ids(tmp_path / "ids.txt") == ["a", "b/c"]


# --- bodies and their first frame ---


def test_two_bodies_under_one_root_are_refused(rig, tmp_path):
    lines = MIXAMO.text(*rig[:2]).splitlines()
    start = lines.index("MOTION")
    body = "\n".join(lines[1:start]).replace("ROOT", "JOINT")
    tree = "".join(body.replace("JOINT ", f"JOINT {name}:") + "\n" for name in "AB")
    values = [f"0 0 0 {row} {row}" for row in lines[start + 3 :]]
    stage = "HIERARCHY\nROOT Stage\n{\nOFFSET 0 0 0\nCHANNELS 3 Xposition Yposition Zposition\n"
    path = write(tmp_path / "a.bvh", "\n".join([stage + tree + "}", *lines[start : start + 3], *values]))
    with pytest.raises(ValueError, match=r"A:Hips and B:Hips.*pelvis.*mapping='rig.json'"):
        load_motion(path)
    mapping = {joint: f"B:{name}" for joint, name in MIXAMO.joints.items()}
    np.testing.assert_allclose(load_motion(path, mapping=mapping).positions, rig[2], atol=1e-6)


@pytest.mark.parametrize(
    "joints", [("hip",), ("hip", "knee", "ankle", "foot"), ("shoulder", "elbow", "wrist"), ("knee",)]
)
def test_a_mapping_that_exchanges_sides_is_doubted(joints, rig, tmp_path):
    path = write(tmp_path / "a.bvh", MIXAMO.text(*rig[:2]))
    sides = {"left": "right", "right": "left"}
    mapping = {f"{a}_{joint}": MIXAMO.joints[f"{b}_{joint}"] for joint in joints for a, b in sides.items()}
    assert "exchanged" in warnings_of(load_motion(path, mapping=mapping)) and not warnings_of(load_motion(path))


def test_one_joint_for_two_is_doubted(rig, tmp_path):
    path = write(tmp_path / "a.bvh", MIXAMO.text(*rig[:2]))
    told = warnings_of(load_motion(path, mapping={"spine2": "Spine"}))
    assert "spine1 and spine2 are both 'Spine'" in told and "mapping" in told


@pytest.mark.parametrize("kind", ["bvh", "npy"])
def test_a_rest_pose_before_the_motion_is_left_out_and_told(kind, rig, tmp_path):
    root, turns, expected = rig
    text = MIXAMO.text(root, turns)
    lines = text.splitlines()
    zeros = " ".join(["0"] * len(lines[-1].split()))
    lines[-41] = lines[-41]
    lines[-42] = "Frames: 41"
    with_rest = write(tmp_path / "a.bvh", "\n".join([*lines[:-40], zeros, *lines[-40:]]))
    path = with_rest
    if kind == "npy":
        still = MIXAMO.expected(MIXAMO.world(root[:1] * 0, [turn[:1] * turn[:1].inv() for turn in turns]))
        path = saved(tmp_path / "a.npy", np.concatenate([still.astype(np.float32), expected]))
    motion = load_motion(path)
    np.testing.assert_allclose(motion.positions, expected, atol=1e-6)
    assert any("rest pose" in problem.message and problem.severity == "note" for problem in motion.problems)
    write(tmp_path / "captions.csv", f"file,caption,split\n{path.name},walks,train\n")
    folder = MotionFilesFolder(tmp_path, MOTION_FILES)
    (record,) = folder.records("train")
    assert record.num_frames == 40 and folder.skipped[0].reason == "changed while reading"


def test_a_motion_that_starts_in_a_t_pose_is_kept(rig, tmp_path):
    root, turns, expected = rig
    still = MIXAMO.expected(MIXAMO.world(root[:1], [turn[:1] * turn[:1].inv() for turn in turns]))
    weights = np.linspace(0, 1, 30)[:, None, None]
    slow = still + weights * (expected[:1] - still)
    assert len(load_motion(saved(tmp_path / "a.npy", np.concatenate([slow, expected]))).positions) == 70


# --- names ---

LIMB = ("UpLeg", "Leg", "Foot", "ToeBase", "Shoulder", "Arm", "ForeArm", "Hand")
# Pelvis, Spine, Spine1, Spine2, Neck, Head, then hip to toe and collar to hand; {s}, {S} and {side} are the side.
NAMES = {
    "unity": "Hips Spine Chest UpperChest Neck Head|{Side}UpperLeg {Side}LowerLeg {Side}Foot {Side}Toes "
    "{Side}Shoulder {Side}UpperArm {Side}LowerArm {Side}Hand",
    "unity Bandai": "Hips Spine Spine_2 Chest Neck Head|UpperLeg_{S} LowerLeg_{S} Foot_{S} Toes_{S} "
    "Shoulder_{S} UpperArm_{S} LowerArm_{S} Hand_{S}",
    "unreal": "pelvis spine_01 spine_02 spine_03 neck_01 head|thigh_{s} calf_{s} foot_{s} ball_{s} "
    "clavicle_{s} upperarm_{s} lowerarm_{s} hand_{s}",
    "iclone": "CC_Base_Hip CC_Base_Waist CC_Base_Spine01 CC_Base_Spine02 CC_Base_NeckTwist01 CC_Base_Head|"
    "CC_Base_{S}_Thigh CC_Base_{S}_Calf CC_Base_{S}_Foot CC_Base_{S}_ToeBase "
    "CC_Base_{S}_Clavicle CC_Base_{S}_Upperarm CC_Base_{S}_Forearm CC_Base_{S}_Hand",
    "biped": "Bip01~Pelvis Bip01~Spine Bip01~Spine1 Bip01~Spine2 Bip01~Neck Bip01~Head|"
    "Bip01~{S}~Thigh Bip01~{S}~Calf Bip01~{S}~Foot Bip01~{S}~Toe0 "
    "Bip01~{S}~Clavicle Bip01~{S}~UpperArm Bip01~{S}~Forearm Bip01~{S}~Hand",
    "rigify": "DEF-spine DEF-spine.001 DEF-spine.002 DEF-spine.003 DEF-spine.004 DEF-spine.006|"
    "DEF-thigh.{S} DEF-shin.{S} DEF-foot.{S} DEF-toe.{S} "
    "DEF-shoulder.{S} DEF-upper_arm.{S} DEF-forearm.{S} DEF-hand.{S}",
    "xsens": "Hips Chest Chest2 Chest4 Neck Head|{Side}Hip {Side}Knee {Side}Ankle {Side}Toe "
    "{Side}Collar {Side}Shoulder {Side}Elbow {Side}Wrist",
    "xsens 3ds Max": "Hips Chest Chest2 LowerNeck Neck Head|{Side}Hip {Side}Knee {Side}Ankle {Side}Toe "
    "{Side}Collar {Side}Shoulder {Side}Elbow {Side}Wrist",
    "daz": "hip abdomen middle chest neck head|{s}Thigh {s}Shin {s}Foot {s}Toe {s}Collar {s}Shldr {s}ForeArm {s}Hand",
    "asf": "root upperback middle thorax upperneck head|{s}femur {s}tibia {s}foot {s}toes "
    "{s}clavicle {s}humerus {s}radius {s}wrist",
    "makehuman": "root spine05 spine03 spine02 neck01 head|upperleg01.{S} lowerleg01.{S} foot.{S} toe1-1.{S} "
    "clavicle.{S} upperarm01.{S} lowerarm01.{S} wrist.{S}",
    "makehuman old": "Hips Spine1 Spine2 Spine3 Neck Head|UpLeg_{S} LoLeg_{S} Foot_{S} Toe_{S} "
    "Clavicle_{S} UpArm_{S} LoArm_{S} Hand_{S}",
    "xsens Biovision": "Hips Chest a b Neck Head|{Side}Hip {Side}LowLeg {Side}Foot {Side}Toe "
    "{Side}Collar {Side}UpArm {Side}LowArm {Side}Hand",
}
DERIVED = {"daz": {"spine2", "left_collar", "right_collar"}, "xsens Biovision": {"spine2", "spine3"}}
DERIVED["asf"] = DERIVED["daz"]


def named(text, names):
    """A BVH text with the joints of Mixamo's rig renamed."""
    middle, limbs = names.replace("{Side}", "{side}").split("|")
    new = dict(zip(("Hips", "Spine", "Spine1", "Spine2", "Neck", "Head"), middle.split(), strict=True))
    for side in ("Left", "Right"):
        for old, word in zip(LIMB, limbs.split(), strict=True):
            new[side + old] = word.format(side=side, S=side[0], s=side[0].lower())
    lines = []
    for line in text.splitlines():
        kind, _, name = line.partition(" ")
        lines.append(f"{kind} {new.get(name, name).replace('~', ' ')}" if kind in ("ROOT", "JOINT") else line)
    return "\n".join(lines)


@pytest.mark.parametrize("name", list(NAMES))
def test_rigs_of_other_programs_are_read(name, rig, tmp_path):
    path = write(tmp_path / "a.bvh", named(MIXAMO.text(*rig[:2]), NAMES[name]).replace("HeadTop_End", "crown"))
    motion = load_motion(path)
    assert motion.source["mapping"].value == name.split()[0] and not warnings_of(motion)
    exact = [n for n, joint in enumerate(HUMANML3D.joint_names) if joint not in DERIVED.get(name, ())]
    np.testing.assert_allclose(motion.positions[:, exact], rig[2][:, exact], atol=1e-6)
    np.testing.assert_allclose(motion.positions, rig[2], atol=0.15)


CHANGES = {
    "DEF-": lambda name, number: f"DEF-{name}",
    "_joint": lambda name, number: f"{name}_joint",
    "prefix and suffix": lambda name, number: f"rig {name}-bone",
    "numbers": lambda name, number: f"{name}_{number:02d}",
    "copies": lambda name, number: f"{name}.001",
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_common_prefixes_suffixes_and_numbers_are_ignored(change, rig, tmp_path):
    text = MIXAMO.text(*rig[:2])
    lines = text.splitlines()
    for number, line in enumerate(lines):
        kind, _, name = line.partition(" ")
        if kind in ("ROOT", "JOINT"):
            lines[number] = f"{kind} {change(name, number)}"
    motion = load_motion(write(tmp_path / "a.bvh", "\n".join(lines)))
    np.testing.assert_allclose(motion.positions, rig[2], atol=1e-6)


def test_a_missing_neck_lies_between_spine_and_head(rig, tmp_path):
    motion = load_motion(write(tmp_path / "a.bvh", MIXAMO.text(*rig[:2]).replace("JOINT Neck", "JOINT Collar")))
    assert "neck" in motion.source["mapping"].reason
    spine, neck, head = (HUMANML3D.joint_names.index(name) for name in ("spine3", "neck", "head"))
    np.testing.assert_allclose(motion.positions[:, neck], motion.positions[:, [spine, head]].mean(axis=1), atol=1e-6)


# --- the shared cases and the real files, if they are at hand ---

REFUSED = {
    "axis_angle_66": "axis angles",
    "body_pose_hmr_npz": "rotations of SMPL",
    "body_without_size": "one place",
    "inf_after_cast_bvh": "1e300",
    "overflow_npy": "100 km",
    "normalised_features": "normalised",
    "npy_shape_overflow": "header",
    "two_bodies_mixed": "A:Hips and B:Hips",
    "mapping_deep_json": "rig.json",
    "mapping_duplicate_key": "'left_hip' is named twice",
}
DOUBTED = {"mapping_swapped_hips": "exchanged", "frame_time_5e-324": "Frame Time"}
READ = [
    *("csv_decimal_comma", "csv_time_60fps_ms", "csv_time_seconds_header", "header_one_frame_long"),
    *("header_one_frame_short", "lafan_order_npy", "no_neck", "prefix_DEF", "suffix_joint", "rig_bandai_names"),
    *("rig_biped_names", "rig_cmu_3dsmax_names", "rig_iclone_names", "rig_unreal_names", "rig_xsens_names"),
]


@pytest.mark.skipif(not CASES.is_dir(), reason="the shared cases are not here")
@pytest.mark.parametrize("name", [*REFUSED, *DOUBTED, *READ])
def test_shared_case(name):
    mapping = CASES / name / "rig.json"
    path = next((CASES / name).glob("m.*"))
    inspection = inspect_motion(path, ReadingOptions(mapping=mapping if mapping.is_file() else None))
    if name in REFUSED:
        assert not inspection.usable and REFUSED[name] in str(inspection.problems[0])
    elif name in DOUBTED:
        assert DOUBTED[name] in warnings_of(inspection)
    else:
        assert inspection.usable
        base = load_motion(CASES / "base.bvh").positions
        if name.startswith(("rig", "prefix", "suffix")):
            np.testing.assert_allclose(inspection.motion.positions, base, atol=1e-6)


@pytest.mark.skipif(not TROUBLE.is_dir(), reason="the shared real files are not here")
@pytest.mark.parametrize("name", ["bandai_namco", "cmu_3dsmax", "cmu_daz", "cmu_iclone"])
def test_rig_of_a_real_file(name):
    path = TROUBLE / f"{name}_rig.bvh"
    if not path.is_file():
        pytest.skip(f"{path.name} is not here")
    mapped = load_motion(path, mapping=TROUBLE / "mappings" / f"{name}.json").positions
    np.testing.assert_allclose(load_motion(path).positions, mapped, atol=1e-6)


@pytest.mark.skipif(not TROUBLE.is_dir(), reason="the shared real files are not here")
def test_rest_pose_of_a_real_file():
    motion = load_motion(TROUBLE / "cmu_t_pose_first_frame.bvh")
    assert any("rest pose" in problem.message for problem in motion.problems)
    assert load_motion(TROUBLE / "mhad_480fps_ok.bvh").problems == []
