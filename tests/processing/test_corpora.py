import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexmotion.processing.corpora.folders import (
    HUMANML3D,
    KIT_ML,
    CaptionLine,
    CorpusFolder,
    parse_caption_line,
    read_source_clips,
)
from lexmotion.processing.motion_features import mirror_positions, positions_to_features
from lexmotion.processing.skeletons import get_skeleton
from lexmotion.processing.text_mirroring import mirror_caption


def walking(frames=40, joints=22, seed=0):
    rng = np.random.default_rng(seed)
    pose = rng.normal(size=(1, joints, 3)) * 0.3 + [0, 1, 0]
    return (pose + np.linspace(0, 1, frames)[:, None, None] * [0, 0, 1]).astype(np.float32)


def line(caption, start="0.0", end="0.0"):
    return f"{caption}#a/DET man/NOUN#{start}#{end}\n"


def write_corpus(folder, motions, texts, splits, vectors=()):
    for name in ("new_joints", "texts"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for motion_id, motion in motions.items():
        np.save(folder / "new_joints" / f"{motion_id}.npy", motion)
    if vectors:
        (folder / "new_joint_vecs").mkdir()
        for motion_id, motion in vectors.items():
            np.save(folder / "new_joint_vecs" / f"{motion_id}.npy", motion)
    for motion_id, text in texts.items():
        (folder / "texts" / f"{motion_id}.txt").write_text(text, encoding="utf-8")
    for file, ids in splits.items():
        (folder / file).write_text("\n".join(ids) + "\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("caption", "mirrored"),
    [
        ("a man kicks with his left leg", "a man kicks with his right leg"),
        ("Left, then RIGHT.", "Right, then LEFT."),
        ("turns clockwise", "turns counterclockwise"),
        ("a counter-clockwise turn", "a clockwise turn"),
        ("turns counter clock wise", "turns clockwise"),
        ("walks in an anti-clockwise circle", "walks in a clockwise circle"),
        ("Counterclockwise", "Clockwise"),
        ("left-handed, rightwards and leftside", "right-handed, leftwards and rightside"),
        ("stands upright on a bright frightened night", "stands upright on a bright frightened night"),
        ("all right, goes right away at right angles", "all right, goes right away at right angles"),
        ("turns rigth", "turns left"),
        ("spins ccw", "spins cw"),
        ("lefts and rights", "rights and lefts"),
        ("", ""),
    ],
)
def test_mirror_caption(caption, mirrored):
    assert mirror_caption(caption) == mirrored


@given(
    st.lists(
        st.sampled_from(
            [
                "a",
                "man",
                "turns",
                "Left",
                "left",
                "right",
                "RIGHT",
                "clockwise",
                "Counterclockwise",
                "upright",
                "to",
                "the",
                ".",
            ]
        )
    )
)
def test_mirroring_twice_gives_the_caption_back(words):
    caption = " ".join(words)
    assert mirror_caption(mirror_caption(caption)) == caption


def test_parse_caption_line():
    assert parse_caption_line("a  man walks. #a/DET#0.0#0.0\n") == CaptionLine("a man walks.", 0.0, 0.0)
    assert parse_caption_line("x#x/X#nan#nan") == CaptionLine("x", 0.0, 0.0)
    assert parse_caption_line("x#x/X#1.5#4") == CaptionLine("x", 1.5, 4.0)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("only words", r"\b1\b.*'#'.*\b4\b.*'only words'"),
        ("x#y#a#b", "'a'.*'b'"),
        ("x#y#4#2", r"\b4\b.*\b2\b"),
        ("x#y#-1#2", r"-1\b.*\b2\b"),
    ],
)
def test_malformed_caption_line(text, told):
    with pytest.raises(ValueError, match=told):
        parse_caption_line(text)


def test_sub_ranges_are_crops_of_their_own(tmp_path):
    motion = walking(80)
    text = (
        line("a man walks")
        + line("he turns left", "1.0", "2.5")
        + line("turning left", "1.0", "2.5")
        + line("x", "0", "9")
    )
    write_corpus(tmp_path, {"000001": motion}, {"000001": text}, {"train.txt": ["000001"]})
    records = list(CorpusFolder(tmp_path, HUMANML3D).records("train"))
    assert [record.id for record in records] == ["000001", "000001@0-9", "000001@1-2.5"]
    assert [record.num_frames for record in records] == [80, 80, 30]
    assert {record.base_id for record in records} == {"000001"}
    assert (records[2].start, records[2].end, records[1].end) == (1.0, 2.5, 4.0)
    np.testing.assert_array_equal(records[2].positions, motion[20:50])
    assert records[2].captions == ["he turns left", "turning left"]
    assert records[2].mirrored_captions == ["he turns right", "turning right"]
    assert (records[0].fps, records[0].skeleton, records[0].split) == (20.0, "humanml3d", "train")


def test_motion_with_sub_ranges_only(tmp_path):
    write_corpus(
        tmp_path,
        {"1": walking(60)},
        {"1": line("turns", "0.0", "1.0") + line("hops", "1.9", "2.0")},
        {"train.txt": ["1"]},
    )
    folder = CorpusFolder(tmp_path, HUMANML3D)
    assert [record.id for record in folder.records("train")] == ["1@0-1"]
    assert [(item.id, item.reason) for item in folder.skipped] == [("1@1.9-2", "too short")]


def test_stored_and_derived_mirrored_motions(tmp_path):
    skeleton = get_skeleton("humanml3d")
    motion = walking(30)
    stored = walking(30, seed=5)
    texts = {"1": line("left leg"), "2": line("left arm"), "M2": line("right arm, as written")}
    write_corpus(tmp_path, {"1": motion, "2": motion, "M2": stored}, texts, {"train.txt": ["1", "M1", "2", "M2"]})
    records = {record.id: record for record in CorpusFolder(tmp_path, HUMANML3D).records("train")}
    derived = records["M1"]
    assert (derived.base_id, derived.mirrored, derived.captions) == ("1", True, ["right leg"])
    assert derived.mirrored_captions == ["left leg"]
    np.testing.assert_allclose(derived.positions[:, :, 0], -motion[:, list(skeleton.mirror_permutation), 0])
    np.testing.assert_allclose(derived.positions[:, :, 1:], motion[:, list(skeleton.mirror_permutation), 1:])
    assert records["M2"].captions == ["right arm, as written"]
    np.testing.assert_array_equal(records["M2"].positions, stored)
    assert not records["1"].mirrored


def test_mirror_modes(tmp_path):
    texts = {"1": line("left"), "2": line("right")}
    splits = {"train.txt": ["1", "2", "M2"], "val.txt": ["2"]}
    write_corpus(tmp_path, {"1": walking(), "2": walking()}, texts, splits)
    for mode, ids in (("listed", ["1", "2", "M2"]), ("none", ["1", "2"]), ("derive", ["1", "2", "M2", "M1"])):
        folder = CorpusFolder(tmp_path, HUMANML3D, mirror=mode)
        assert [record.id for record in folder.records("train")] == ids
        assert [record.id for record in folder.records("validation")] == ["2"]
    with pytest.raises(ValueError, match="'x'.*listed, derive, none"):
        CorpusFolder(tmp_path, HUMANML3D, mirror="x")


def test_everything_skipped_is_reported(tmp_path):
    bad = walking()
    bad[7, 3, 1] = np.nan
    motions = {
        "nan": bad,
        "short": walking(5),
        "long": walking(300),
        "joints": walking(40, 21),
        "empty": np.zeros((0, 22, 3), np.float32),
        "words": np.array([["x"]]),
        "untold": walking(),
        "silent": walking(),
        "torn": walking(),
        "fine": walking(),
    }
    texts = {name: line("a man") for name in [*motions, "gone"]}
    texts["silent"] = line(" ") + "\n"
    texts["torn"] = "no fields\n" + line("a man hops")
    del texts["untold"]
    write_corpus(tmp_path, motions, texts, {"train.txt": [*motions, "gone"]})
    (tmp_path / "new_joints" / "garbage.npy").write_bytes(b"nothing")
    (tmp_path / "texts" / "garbage.txt").write_text(line("x"))
    (tmp_path / "train.txt").open("a").write("garbage\nfine\n")
    folder = CorpusFolder(tmp_path, HUMANML3D, max_frames=200)
    assert [record.id for record in folder.records("train")] == ["torn", "fine"]
    reasons = {(item.id, item.reason) for item in folder.skipped}
    assert reasons == {
        ("nan", "NaN or infinite values"),
        ("short", "too short"),
        ("long", "too long"),
        ("joints", "wrong shape"),
        ("empty", "too short"),
        ("words", "wrong shape"),
        ("untold", "missing text file"),
        ("silent", "empty caption"),
        ("silent", "no caption"),
        ("torn", "malformed caption"),
        ("gone", "missing motion file"),
        ("garbage", "unreadable motion file"),
    }
    assert next(item.detail for item in folder.skipped if item.id == "nan") == "first in frame 7"


def test_features_are_turned_back_into_positions(tmp_path):
    import torch

    positions = torch.from_numpy(walking(40))
    features = positions_to_features(positions, "humanml3d").numpy()
    write_corpus(tmp_path, {}, {"1": line("left")}, {"train.txt": ["1", "M1"]}, vectors={"1": features})
    (tmp_path / "new_joints").rmdir()
    record, mirrored = CorpusFolder(tmp_path, HUMANML3D).records("train")
    assert record.positions.shape == (39, 22, 3)
    np.testing.assert_allclose(
        mirrored.positions, mirror_positions(torch.from_numpy(record.positions), "humanml3d").numpy(), atol=1e-6
    )


def test_kit_ml_is_turned_into_metres(tmp_path):
    motion = walking(50, 21) * 1000
    write_corpus(tmp_path, {"00001": motion}, {"00001": line("A person walks", "1", "2")}, {"test.txt": ["00001"]})
    (record,) = CorpusFolder(tmp_path, KIT_ML).records("test")
    assert (record.fps, record.skeleton, record.num_frames) == (12.5, "kit-ml", 13)
    np.testing.assert_allclose(record.positions, motion[12:25] / 1000, rtol=1e-6)
    assert KIT_ML.skeleton.metres_per_unit == pytest.approx(0.001)


def test_split_files(tmp_path):
    write_corpus(
        tmp_path,
        {"1": walking()},
        {"1": line("x")},
        {"train.txt": ["1"], "val.txt": ["1"], "dev.txt": ["1"], "none.txt": [""]},
    )
    assert list(CorpusFolder(tmp_path, HUMANML3D).splits) == ["train", "validation"]
    folder = CorpusFolder(tmp_path, HUMANML3D, {"validation": "dev.txt", "train": None})
    assert folder.splits == {"train": [tmp_path / "train.txt"], "validation": [tmp_path / "dev.txt"]}
    (tmp_path / "more.txt").write_text("2 1 3")
    several = CorpusFolder(tmp_path, HUMANML3D, {"train": ["train.txt", "more.txt"], "val": "dev.txt"})
    assert several.ids("train") == ["1", "2", "3"] and several.ids("validation") == ["1"]
    assert list(CorpusFolder(tmp_path, HUMANML3D, {"val": None}).splits) == ["validation"]
    (tmp_path / "apart").mkdir()
    apart = tmp_path / "apart" / "ids.txt"
    apart.write_text("1")
    assert CorpusFolder(tmp_path, HUMANML3D, {"test": str(apart)}).splits == {"test": [apart]}
    with pytest.raises(FileNotFoundError, match="other.txt.*dev.txt"):
        CorpusFolder(tmp_path, HUMANML3D, {"test": "other.txt"})
    with pytest.raises(ValueError, match=r"'mine'.*splits=\{'mine': 'mine.txt'\}"):
        CorpusFolder(tmp_path, HUMANML3D, {"mine": None})
    with pytest.raises(ValueError, match="'a-b'"):
        CorpusFolder(tmp_path, HUMANML3D, {"a-b": "dev.txt"})
    with pytest.raises(ValueError, match=r"none\.txt.*splits="):
        list(CorpusFolder(tmp_path, HUMANML3D, {"test": "none.txt"}).records("test"))


def test_missing_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        CorpusFolder(tmp_path / "nowhere", HUMANML3D)
    with pytest.raises(FileNotFoundError, match="'texts'"):
        CorpusFolder(tmp_path, HUMANML3D)
    (tmp_path / "texts").mkdir()
    with pytest.raises(FileNotFoundError, match="new_joint_vecs"):
        CorpusFolder(tmp_path, HUMANML3D)
    (tmp_path / "new_joints").mkdir()
    with pytest.raises(FileNotFoundError, match=r"val\.txt.*splits=\{'test': "):
        CorpusFolder(tmp_path, HUMANML3D)


def test_source_clips(tmp_path):
    assert read_source_clips(tmp_path) == {}
    (tmp_path / "index.csv").write_text("source_path,start_frame,end_frame,new_name\n./a/b.npy,0,-1,000001.npy\n")
    assert read_source_clips(tmp_path) == {"000001": "./a/b.npy"}
    (tmp_path / "meta.csv").write_text("id,source_clip\n000001,80_63\n")
    assert read_source_clips(tmp_path) == {"000001": "80_63"}
    write_corpus(tmp_path, {"000001": walking()}, {"000001": line("x")}, {"train.txt": ["000001", "M000001"]})
    assert [record.source_clip for record in CorpusFolder(tmp_path, HUMANML3D).records("train")] == ["80_63", "80_63"]
