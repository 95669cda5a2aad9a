"""Unit and vertical axis: from one file with an honest confidence, from all files of a rig together in a corpus."""

import csv

import numpy as np
import pytest
from moving_rigs import JOINT, MIXAMO
from scipy.spatial.transform import Rotation
from test_wrong_files import CASES, TROUBLE, saved, warnings_of, write

from lexmotion.processing.corpora import motion_files
from lexmotion.processing.corpora.motion_files import MOTION_FILES, MotionFilesFolder
from lexmotion.processing.corpora.prepare import prepare
from lexmotion.processing.recordings.detection import UP_AXES, sides_agree, to_y_up
from lexmotion.processing.recordings.options import ReadingOptions
from lexmotion.processing.recordings.orientation import decide, decide_sources, facts_of, traits_of
from lexmotion.processing.recordings.reading import load_motion, options_of_corpus
from lexmotion.processing.skeletons import HUMANML3D

LIE_DOWN = Rotation.from_euler("X", -90, degrees=True)  # on the back, head at Z-


def standing(seed=0, travel=1.0):
    """(40, 22, 3): a body that walks on the floor y = 0 with its arms swinging."""
    rig = MIXAMO
    root, turns = rig.move(40, seed, sway=15.0)
    turns[0] = Rotation.from_euler("Y", np.full((40, 1), 20.0 * seed), degrees=True)
    positions = rig.expected(rig.world(root * [0, 1, 0], turns))
    positions[..., 1] -= positions[..., 1].min(axis=1, keepdims=True)
    return positions + np.linspace(0, travel, 40)[:, None, None] * [1.0, 0.0, 0.5]


def lying(seed=0, height=0.0):
    """(40, 22, 3): a body that lies on a surface and hardly moves, its head at Z-."""
    still = np.repeat(standing(seed, travel=0.0)[:1], 40, axis=0)
    still[:, JOINT["left_wrist"], 2] += np.linspace(0, 0.05, 40)
    positions = LIE_DOWN.apply(still.reshape(-1, 3)).reshape(still.shape)
    positions[..., 1] += height - positions[..., 1].min()
    return positions + [0.3, 0.0, 0.2]


def in_axes(positions, up):
    """The same positions in a file with the vertical axis `up`."""
    return positions @ to_y_up(np.eye(3), up).T


def named_csv(path, positions):
    """A file with named joints and without a rest pose."""
    header = [f"{joint}_{axis}" for joint in MIXAMO_NAMES for axis in "xyz"]
    rows = [[f"{value:.5f}" for value in row] for row in positions.reshape(len(positions), -1)]
    return write(path, "\n".join(",".join(row) for row in [header, *rows]))


MIXAMO_NAMES = [MIXAMO.joints[joint] for joint in HUMANML3D.joint_names]


def corpus(folder, motions, options=None):
    """Write named CSV files and their table; return the reader with its decisions and the records by name."""
    folder.mkdir(exist_ok=True)
    for name, positions in motions.items():
        named_csv(folder / f"{name}.csv", positions)
    with (folder / "captions.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(
            [("file", "caption", "split"), *((f"{name}.csv", "a person moves", "train") for name in motions)]
        )
    reader = MotionFilesFolder(folder, MOTION_FILES, reading=options)
    decided = reader.decide(workers=1, progress=False)
    return reader, decided, {record.id.removesuffix(".csv"): record.positions for record in reader.records("train")}


# --- one file ---


@pytest.mark.parametrize("up", UP_AXES)
def test_a_body_that_walks_shows_its_axis_without_a_rest_pose(up):
    fact = decide([traits_of(in_axes(standing(), up), HUMANML3D)]).up
    assert (fact.value, fact.confidence) == (up, "high") and up.strip("-") in fact.reason


@pytest.mark.parametrize("up", ["y", "z"])
def test_a_body_that_lies_is_told_by_its_rest_pose(up):
    rest = in_axes(MIXAMO.expected(MIXAMO.world(np.zeros((1, 3)), [Rotation.identity(1)] * len(MIXAMO.names))), up)[0]
    fact = decide([traits_of(in_axes(lying(), up), HUMANML3D, rest=rest)]).up
    assert fact.value == up and fact.confidence != "low" and "rest pose" in fact.reason


@pytest.mark.parametrize("up", ["y", "z"])
def test_a_body_that_lies_is_told_by_the_offset_of_its_root(up):
    rest = np.zeros((22, 3)) + in_axes(np.array([0.0, 0.95, 0.0]), up)  # all bones folded
    fact = decide([traits_of(in_axes(lying() + [0, 0, -0.5], up), HUMANML3D, rest=rest)]).up
    assert fact.value == up and "offset of the root" in fact.reason


@pytest.mark.parametrize("height", [0.0, 0.5])
def test_a_single_file_of_a_body_that_lies_is_never_stood_up_with_confidence(height, tmp_path):
    path = named_csv(tmp_path / "a.csv", lying(height=height))
    motion = load_motion(path)
    assert motion.source["up"].value == "y" or "up axis is unclear" in warnings_of(motion)
    np.testing.assert_allclose(load_motion(path, up="y").positions, lying(height=height), atol=1e-4)
    array = load_motion(saved(tmp_path / "a.npy", lying(height=height)))
    assert array.source["up"].value == "y" and (height == 0 or "up=" in warnings_of(array))


def test_an_accident_of_the_floor_does_not_turn_a_body_that_stands():
    off_floor = standing() - [0, 0.3, 0]
    off_floor[..., 2] -= off_floor[..., 2].min()
    fact = decide([traits_of(off_floor, HUMANML3D)]).up
    assert fact.value == "y" and fact.confidence != "low"


# --- files of one rig ---


@pytest.mark.parametrize("up", ["y", "z", "-y"])
@pytest.mark.parametrize("height", [0.0, 0.5])
def test_clips_of_a_corpus_that_lie_are_read_like_the_others(up, height, tmp_path):
    motions = {"walk": standing(1), "run": standing(2, travel=3.0), "turn": standing(3), "sleep": lying(height=height)}
    files = {name: 100 * in_axes(positions, up) for name, positions in motions.items()}
    reader, decided, read = corpus(tmp_path / "own", files)
    (entry,) = decided
    assert entry["files"] == 4 and (entry["up"]["value"], entry["units"]["value"]) == (up, "cm")
    assert "4 files of CSV, motionbuilder" in entry["up"]["reason"] and reader.skipped == []
    for name, positions in motions.items():
        np.testing.assert_allclose(read[name], positions, atol=1e-4)


def test_one_body_that_walks_is_enough_for_one_that_lies():
    walks, lies = (traits_of(positions, HUMANML3D) for positions in (standing(), lying(height=0.5)))
    assert decide([lies]).up.confidence == "low" and lies.clear_axis[0] == "-z"
    assert (decide([walks, lies]).up.value, decide([walks, lies]).up.confidence) == ("y", "high")


def test_rigs_and_formats_are_decided_apart():
    z_up = [traits_of(in_axes(standing(n), "z"), HUMANML3D, "BVH", "unreal") for n in range(3)]
    y_up = [traits_of(standing(n), HUMANML3D, "BVH", "mixamo") for n in range(3)]
    decisions = decide_sources([*z_up, *y_up])
    assert {source: decision.up.value for source, decision in decisions.items()} == {
        "BVH, unreal": "z",
        "BVH, mixamo": "y",
    }
    other = traits_of(lying(), HUMANML3D, "BVH", "unity")
    assert facts_of(other, decisions) == decide([other]).facts(other)


def test_files_that_do_not_agree_are_decided_one_by_one():
    files = [traits_of(in_axes(standing(n), "yz"[n % 2]), HUMANML3D, "BVH", "mixamo") for n in range(4)]
    decision = decide(files)
    assert decision.up is None and "do not agree" in decision.to_dict()["up"]["reason"]
    assert [decision.facts(traits)[1].value for traits in files] == ["y", "z", "y", "z"]


@pytest.mark.parametrize(
    ("heights", "units"),
    [
        ((170.0, 165.0, 100.0, 240.0), ["cm"] * 4),  # a child and a giant
        ((67.0, 65.0, 38.0), ["in"] * 3),  # alone, 38 would be CMU's unit
        ((170.0, 165.0, 1.7, 67.0), ["cm", "cm", "m", "in"]),  # the exporter's unit was changed
        ((170.0, 165.0, 338.0), ["cm", "cm", "cm"]),
    ],
)
def test_the_unit_is_that_of_the_rig_unless_no_body_has_that_size(heights, units):
    files = [traits_of(standing() * height / 1.7, HUMANML3D, "BVH", "mixamo") for height in heights]
    scale = files[0].height / heights[0]
    decision = decide(files)
    found = [decision.facts(traits)[0] for traits in files]
    assert [fact.value for fact in found] == units and scale == pytest.approx(1, abs=0.1)
    assert [fact.confidence for fact in found].count("low") == (338.0 in heights)


def test_given_units_and_axes_go_before_decided_ones(tmp_path):
    motions = {"walk": in_axes(standing(), "z") * 200, "sleep": in_axes(lying(), "z") * 200}
    _, decided, read = corpus(tmp_path / "own", motions, ReadingOptions(units="0.005", up="z"))
    assert decided == []
    np.testing.assert_allclose(read["sleep"], lying(), atol=1e-4)


def test_prepare_tells_what_it_decided_and_takes_options(tmp_path):
    motions = {f"walk{n}": 200 * standing(n) for n in range(3)} | {"sleep": 200 * lying()}
    folder = tmp_path / "own"
    corpus(folder, motions)
    report = prepare(folder, tmp_path / "out", layout="files", units="cm", num_workers=1)
    assert report.splits["train"]["motions"] == 4 and report.skipped == [] and report.options["units"] == "cm"
    assert [entry["up"]["value"] for entry in report.decided] == [
        "y"
    ] and "CSV, motionbuilder (4 files): units cm" in report.summary()
    with pytest.raises(ValueError, match="humanml3d.*layout='files'"):
        prepare(folder, tmp_path / "other", units="cm")


def test_shards_decide_from_the_whole_corpus(tmp_path):
    motions = {"a": standing(1), "b": standing(2), "c": standing(3), "z": lying(height=0.5)}
    folder = tmp_path / "own"
    corpus(folder, motions)
    options = {"layout": "files", "num_workers": 1, "row_group_size": 1}
    whole = prepare(folder, tmp_path / "whole", **options)
    for shard in ("1/2", "2/2"):
        prepare(folder, tmp_path / "parts", shard=shard, **options)
    merged = prepare(folder, tmp_path / "parts", merge_shards=2, **options)
    assert merged.to_dict() == whole.to_dict() and whole.splits["train"]["motions"] == 4


def test_a_large_corpus_is_decided_from_evenly_spaced_files(tmp_path, monkeypatch):
    monkeypatch.setattr(motion_files, "MAX_SURVEYED", 3)
    _, decided, read = corpus(
        tmp_path / "own", {f"walk{n}": standing(n) for n in range(7)} | {"zz": lying(height=0.5)}
    )
    assert [entry["files"] for entry in decided] == [3] and len(read) == 8


def test_files_added_to_an_index_are_decided_together(tmp_path):
    motions = {"walk": standing(1), "run": standing(2, travel=3.0), "turn": standing(3), "sleep": lying(height=0.5)}
    paths = [named_csv(tmp_path / f"{name}.csv", positions) for name, positions in motions.items()]
    (tmp_path / "broken.csv").write_text("broken")
    given = ReadingOptions(fps=30)
    *clear, sleep, broken = options_of_corpus([*paths, tmp_path / "broken.csv"], given)
    assert clear == [given] * 3 and broken == given and (sleep.up, sleep.fps) == ("y", 30)
    np.testing.assert_allclose(load_motion(paths[3], sleep).positions, motions["sleep"], atol=1e-4)
    assert options_of_corpus(paths[3:], given) == [given]


# --- left and right ---


def feet(positions, toes):
    """The same motion with toes at `toes` (3,) from the ankles."""
    positions = positions.copy()
    for side in ("left", "right"):
        positions[:, JOINT[f"{side}_foot"]] = positions[:, JOINT[f"{side}_ankle"]] + toes
    return positions


def runner():
    """A body whose lower legs are swung back, so that its toes point down and back."""
    positions = standing(0, travel=4.0)
    for side in ("left", "right"):
        knee = positions[:, JOINT[f"{side}_knee"]]
        positions[:, JOINT[f"{side}_ankle"]] = knee + [0, -0.1, -0.4]
        positions[:, JOINT[f"{side}_foot"]] = positions[:, JOINT[f"{side}_ankle"]] + [0, -0.12, -0.03]
    return positions


POSES = {
    "standing": (standing(0), 0.9),
    "runner": (runner(), 0.7),
    "lying": (lying(), 0.9),
    "foot below the ankle": (feet(standing(0), [0.0, -0.08, -0.01]), 0.0),
}


@pytest.mark.parametrize(("positions", "agree"), POSES.values(), ids=list(POSES))
def test_left_and_right_are_told_by_the_feet_in_any_pose(positions, agree, tmp_path):
    assert "left and right" not in warnings_of(load_motion(saved(tmp_path / "a.npy", positions), up="y"))
    assert agree <= sides_agree(positions, HUMANML3D) <= agree + 0.3
    mirrored = saved(tmp_path / "b.npy", positions * [-1, 1, 1])
    assert ("left and right" in warnings_of(load_motion(mirrored, up="y"))) == (agree > 0)


# --- the shared cases and the real files, if they are at hand ---


@pytest.mark.skipif(not TROUBLE.is_dir(), reason="the shared real files are not here")
def test_real_files_of_bodies_that_lie(tmp_path):
    names = sorted(path.name for path in TROUBLE.glob("accad_*.bvh"))
    for name in names:
        assert load_motion(TROUBLE / name).source["up"].value == "y"
    rows = "".join(f"{TROUBLE.name}/{name},moves,train\n" for name in names)
    (tmp_path / TROUBLE.name).symlink_to(TROUBLE)
    write(tmp_path / "captions.csv", f"file,caption,split\n{rows}")
    reader = MotionFilesFolder(tmp_path, MOTION_FILES)
    assert [entry["up"]["value"] for entry in reader.decide(1, False)] == ["y"]
    assert len(list(reader.records("train"))) == len(names) and reader.skipped == []


@pytest.mark.skipif(not CASES.is_dir(), reason="the shared cases are not here")
@pytest.mark.parametrize(("case", "units"), [("runner_heels_up", None), ("prepare_tall_character", "cm")])
def test_shared_case_of_a_corpus(case, units):
    reader = MotionFilesFolder(CASES / case, MOTION_FILES, reading=ReadingOptions(units=units))
    reader.decide(1, False)
    assert len(list(reader.records("train"))) == 4 and reader.skipped == []


@pytest.mark.skipif(not CASES.is_dir(), reason="the shared cases are not here")
def test_shared_case_of_a_body_in_bed():
    motion = load_motion(CASES / "lying_on_bed_npy" / "m.npy")
    assert motion.source["up"].value == "y" and "up axis is unclear" in warnings_of(motion)
    assert motion.positions[..., 1].min() == pytest.approx(0.5, abs=0.01)
