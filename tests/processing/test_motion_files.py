"""A folder of motion files in several formats is prepared like the same motions in HumanML3D's layout."""

import csv
import json

import numpy as np
import pytest

from lexmotion.processing.corpora.motion_files import MOTION_FILES, MotionFilesFolder
from lexmotion.processing.corpora.prepare import load_prepared, prepare
from lexmotion.processing.corpora.synthetic import generate_corpus
from lexmotion.processing.recordings.bvh import save_bvh

SIZES = {"train": 6, "validation": 2, "test": 2}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """(folder in HumanML3D's layout, the same motions as BVH, npz and npy)."""
    source = generate_corpus(tmp_path_factory.mktemp("corpus") / "synthetic", SIZES)
    folder = tmp_path_factory.mktemp("own") / "clips"
    (folder / "Mocap").mkdir(parents=True)
    rows = []
    for split in ("train", "val", "test"):
        for number, motion_id in enumerate((source / f"{split}.txt").read_text().split()):
            positions = np.load(source / "new_joints" / f"{motion_id}.npy")
            name = f"Mocap/{motion_id}." + ("bvh", "npz", "npy")[number % 3]
            if name.endswith("bvh"):
                save_bvh(folder / name, positions, fps=20)
            elif name.endswith("npz"):
                np.savez(folder / name, joints=100 * positions, fps=20)
            else:
                np.save(folder / name, positions)
            for line in (source / "texts" / f"{motion_id}.txt").read_text().splitlines():
                rows.append({"file": name, "caption": line.split("#")[0], "split": split})
    with (folder / "captions.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["file", "caption", "split"])
        writer.writeheader()
        writer.writerows(rows)
    return source, folder


def test_it_is_prepared_like_the_same_motions_elsewhere(corpus, tmp_path):
    source, folder = corpus
    report = prepare(folder, tmp_path / "files", layout="files", max_frames=96)
    assert report.skipped == [] and not report.shared
    assert {split: counts["motions"] for split, counts in report.splits.items()} == SIZES
    prepare(source, tmp_path / "usual", max_frames=96)
    ours, usual = (load_prepared(tmp_path / name).with_format("numpy") for name in ("files", "usual"))
    for split in SIZES:
        for own, theirs in zip(ours[split], usual[split], strict=True):
            assert own["id"] == f"./Mocap/{theirs['id']}" + own["id"][-4:] and not own["mirrored"]
            assert list(own["captions"]) == list(theirs["captions"])
            np.testing.assert_allclose(own["motion"], theirs["motion"], atol=1e-4)
    assert prepare(folder, tmp_path / "files", layout="files", max_frames=96).reused


def write(folder, rows, name="captions.jsonl"):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(rows if isinstance(rows, str) else "\n".join(json.dumps(row) for row in rows))
    return folder


def standing(num_frames=40):
    from lexmotion.processing.corpora.synthetic_motion import OFFSETS, PARENTS

    pose = np.zeros((22, 3))
    for joint, parent in enumerate(PARENTS):
        pose[joint] = OFFSETS[joint] + (pose[parent] if parent >= 0 else [0, 0.96, 0])
    return np.repeat(pose[None], num_frames, axis=0).astype(np.float32)


def test_rates_ranges_and_mirrors(tmp_path):
    folder = write(
        tmp_path / "own",
        [
            {"file": "a.npz", "captions": ["waves the left hand", "waves"], "split": "train"},
            {"file": "a.npz", "captions": "stands", "split": "train", "start": 0.5, "end": 1.0},
        ],
    )
    motion = standing(120)
    motion[:, 20, 1] += np.linspace(0, 0.1, 120)
    np.savez(folder / "a.npz", positions=motion, fps=60)
    reader = MotionFilesFolder(folder, MOTION_FILES, mirror="derive")
    whole, part, mirrored, _ = reader.records("train")
    assert (whole.num_frames, part.num_frames) == (40, 10) and whole.fps == 20
    assert part.id == "a.npz@0.5-1" and part.captions == ["stands"]
    np.testing.assert_allclose(whole.positions, motion[::3], atol=1e-5)
    assert mirrored.mirrored and mirrored.captions[0] == "waves the right hand" and mirrored.base_id == "a.npz"
    np.testing.assert_allclose(mirrored.positions[:, 21, 0], -whole.positions[:, 20, 0], atol=1e-6)


def test_without_a_column_motions_are_split_by_name(tmp_path):
    rows = [{"file": f"{number}.npy", "captions": ["walks"]} for number in range(300)]
    ids = MotionFilesFolder(write(tmp_path / "own", rows), MOTION_FILES).ids_of
    assert ids == MotionFilesFolder(write(tmp_path / "own", rows[::-1]), MOTION_FILES).ids_of | {
        split: [row["file"] for row in rows if row["file"] in ids[split]] for split in ids
    }
    assert 0.7 < len(ids["train"]) / 300 < 0.9 and min(map(len, ids.values())) > 10


def test_what_cannot_be_used_is_reported(tmp_path):
    files = ("good.npy", "broken.npy", "missing.npy", "huge.npy")
    folder = write(tmp_path / "own", [{"file": file, "captions": ["stands"], "split": "train"} for file in files])
    np.save(folder / "good.npy", standing())
    np.save(folder / "huge.npy", 1e5 * standing())
    (folder / "broken.npy").write_bytes(b"x")
    reader = MotionFilesFolder(folder, MOTION_FILES)
    assert [record.id for record in reader.records("train")] == ["good.npy"]
    reasons = {skipped.id: skipped.reason for skipped in reader.skipped}
    assert reasons == {
        "broken.npy": "unreadable motion file",
        "missing.npy": "missing motion file",
        "huge.npy": "doubtful motion file",
    }
    details = {skipped.id: skipped.detail for skipped in reader.skipped}
    assert "broken.npy" in details["broken.npy"] and str(tmp_path) not in str(details)
    assert "units=" in next(skipped.detail for skipped in reader.skipped if skipped.id == "huge.npy")


WRONG = {
    "file,caption\na.npy,walks, then runs\n": r"captions\.csv, line 2\b.*columns",
    "name,caption\na.npy,walks\n": r"line 2\b.*'file'.*'caption'.*\bname\b",
    "file,caption,split\na.npy,walks,dev\n": r"line 2\b.*'dev'.*train, validation, test",
    "file,caption,split\na.npy,walks,train\na.npy,runs,test\n": r"line 3\b.*a\.npy.*'train'",
    "file,caption\n../a.npy,walks\n": r"line 2\b.*'\.\./a\.npy'",
    "file,caption,start,end\na.npy,walks,2,1\n": r"line 2\b.*\b2 s\b.*\b1 s\b",
    "file,caption,start,end\na.npy,walks,soon,1\n": r"line 2\b.*start.*end.*seconds",
}


@pytest.mark.parametrize(("table", "message"), WRONG.items(), ids=range(len(WRONG)))
def test_a_wrong_table_is_told(table, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        MotionFilesFolder(write(tmp_path / "own", table, "captions.csv"), MOTION_FILES)


def test_a_wrong_folder_or_split_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"captions\.csv.*captions\.jsonl"):
        MotionFilesFolder(tmp_path, MOTION_FILES)
    with pytest.raises(ValueError, match=r"line 1\b.*\"captions\".*'{'"):
        MotionFilesFolder(write(tmp_path / "own", "{"), MOTION_FILES)
    folder = write(tmp_path / "own", [{"file": "a.npy", "captions": ["walks"], "split": "train"}])
    with pytest.raises(ValueError, match=r"splits=\{'test': 'ids\.txt'\}.*'split'.*\btrain\b"):
        MotionFilesFolder(folder, MOTION_FILES, splits={"test": "ids.txt"})
