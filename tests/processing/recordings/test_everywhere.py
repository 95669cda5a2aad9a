"""Every format reaches `prepare`, `inspect` and `index add` through the one reader."""

import json

import numpy as np
import pytest
from written import files, walking

from lexmotion import LexMotionIndex, load_motion
from lexmotion.evaluation.search import motion_id
from lexmotion.evaluation.viewer.motion_sources import FileMotions, file_metadata
from lexmotion.processing.corpora.motion_files import MOTION_FILES, MotionFilesFolder
from lexmotion.processing.recordings.inspection import inspect_motion
from lexmotion.processing.recordings.options import ReadingOptions
from lexmotion.processing.recordings.reading import FORMATS, motions_in, split_key

FORMATS_PREPARED = ("one.npy", "amass.npz", "markers.c3d", "markers.trc", "walk.glb", "landmarks.json", "results.npy")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    files(folder, walking())
    batch = np.stack([walking(), walking() * [1, 1, -1] * [-1, 1, 1]])
    np.save(folder / "batch.npy", batch.astype(np.float32))
    return folder


def test_every_format_is_written_for_the_tests(folder):
    assert {path.suffix for path in folder.iterdir()} == set(FORMATS)


def test_prepare_reads_every_format(folder):
    names = [*FORMATS_PREPARED, "batch.npy#0", "batch.npy#1", "batch.npy#2"]
    rows = [json.dumps({"file": name, "captions": ["a person walks"], "split": "train"}) for name in names]
    (folder / "captions.jsonl").write_text("\n".join(rows))
    try:
        reader = MotionFilesFolder(folder, MOTION_FILES)
        found = {record.id: record for record in reader.records("train")}
    finally:
        (folder / "captions.jsonl").unlink()
    reasons = {skipped.id: skipped.detail for skipped in reader.skipped if skipped.reason != "changed while reading"}
    assert set(found) == set(names) - {"batch.npy#2"} and "no motion '2'" in reasons["batch.npy#2"]
    assert not np.allclose(found["batch.npy#0"].positions, found["batch.npy#1"].positions)
    assert all(record.positions.shape[1:] == (22, 3) for record in found.values())


def test_inspect_tells_what_it_found(folder):
    found = inspect_motion(folder / "markers.c3d")
    assert found.usable and found.facts["format"]["value"] == "C3D, markers"
    several = inspect_motion(folder / "batch.npy")
    assert not several.usable and "2 motions of 40, 40 frames" in several.problems[0].message
    assert inspect_motion(folder / "batch.npy#1").usable


def test_each_motion_of_a_batch_has_an_id_and_is_read_again(folder):
    batch, single = folder / "batch.npy", folder / "walk.bvh"
    paths = [path for file in (batch, single) for path in motions_in(file, ReadingOptions())]
    index = LexMotionIndex.build(np.ones((1, 3)), ids=["walk"])
    assert [motion_id(path, index) for path in paths] == ["batch.npy#0", "batch.npy#1", "walk"]
    assert motions_in(batch, ReadingOptions(key="1")) == [batch]
    assert motions_in(folder / "missing.npy", ReadingOptions()) == [folder / "missing.npy"]
    again = FileMotions("humanml3d", 20).get("batch.npy#1", file_metadata(paths[1], ReadingOptions()))
    np.testing.assert_array_equal(again[0], load_motion(batch, key="1").positions)


def test_a_number_sign_in_a_name_is_no_key(tmp_path):
    (tmp_path / "a#1.npy").touch()
    assert split_key(tmp_path / "a#1.npy") == (tmp_path / "a#1.npy", None)
    (tmp_path / "a.npy#1").touch()
    assert split_key(tmp_path / "a.npy#1") == (tmp_path / "a.npy#1", None)
    assert split_key(tmp_path / "b.npy#1") == (tmp_path / "b.npy", "1")
    assert split_key(tmp_path / "walk.bvh#1") == (tmp_path / "walk.bvh#1", None)
