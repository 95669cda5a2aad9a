"""Ids left out, overlays, splits of several files, and extra motion, as `prepare` options."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from lexmotion.__main__ import main
from lexmotion.processing.corpora.folders import HUMANML3D, CorpusFolder, read_id_list
from lexmotion.processing.corpora.prepare import PrepareReport, prepare
from lexmotion.processing.corpora.synthetic import generate_corpus

OPTIONS = {"max_frames": 96, "row_group_size": 4, "num_workers": 1}
WHISTLE = "a person whistles#a/DET person/NOUN whistle/VERB#0.0#0.0\n"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return generate_corpus(tmp_path_factory.mktemp("corpus") / "synthetic", {"train": 10, "validation": 3, "test": 3})


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Another corpus of the same layout, whose ids start with x."""
    source = generate_corpus(tmp_path_factory.mktemp("other") / "other", {"train": 5, "validation": 2}, seed=1)
    for folder in ("new_joints", "texts"):
        for path in sorted((source / folder).iterdir()):
            path.rename(path.with_name(f"x{path.name}"))
    for name in ("train.txt", "val.txt"):
        (source / name).write_text("".join(f"x{motion_id}\n" for motion_id in ids_of(source / name)))
    return source


def ids_of(path):
    return path.read_text().split()


def rows_of(folder, name="data/train-00000-of-00001"):
    return {row["id"]: row for row in pq.read_table(folder / f"{name}.parquet").to_pylist()}


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def overlay_of(place, motions=(), texts=()):
    """A folder with these motions, all standing still, and these captions."""
    for folder in ("new_joints", "texts"):
        (place / folder).mkdir(parents=True)
    for motion_id in motions:
        np.save(place / "new_joints" / f"{motion_id}.npy", np.ones((30, 22, 3), np.float32))
    for motion_id in texts:
        (place / "texts" / f"{motion_id}.txt").write_text(WHISTLE)
    return place


# ---- ids left out


def test_ids_left_out_are_in_no_split_and_no_captions(corpus, tmp_path, caplog):
    train, validation = ids_of(corpus / "train.txt"), ids_of(corpus / "val.txt")
    doubtful, more, extra = tmp_path / "doubtful.csv", tmp_path / "more.txt", tmp_path / "extra.jsonl"
    doubtful.write_text(f"id,reason\n{train[2]},fast\n{validation[0]},fast\n\n")
    more.write_text(f"M{train[4]}\nnowhere\n888\n")
    extra.write_text("\n".join(json.dumps({"id": name, "captions": ["a somersault"]}) for name in ("888", "999")))
    options = {**OPTIONS, "mirror": "derive", "extra_captions": [extra]}
    report = prepare(corpus, tmp_path / "out", leave_out=[doubtful, more], **options)
    assert report.left_out["train"] == [train[2], train[4], f"M{train[2]}", f"M{train[4]}"]
    assert report.left_out["validation"] == [validation[0]] and report.left_out["extra captions"] == ["888"]
    assert report.splits["train"]["listed"] == 16 and report.splits["validation"]["listed"] == 2
    assert not rows_of(tmp_path / "out").keys() & set(report.left_out["train"])
    text = pq.read_table(tmp_path / "out" / "text" / "train.parquet")["id"].to_pylist()
    assert "999" in text and not {"888", train[2], train[4]} & set(text)
    assert "left out: 4 of train, 1 of validation, 1 of extra captions" in report.summary()
    assert report.options["leave_out"] == ["doubtful.csv", "more.txt"]
    assert "'nowhere' occurs nowhere" in caplog.text and "888" not in caplog.text
    assert PrepareReport.load(tmp_path / "out").to_dict() == report.to_dict()
    plain = prepare(corpus, tmp_path / "plain", **options)
    assert plain.left_out == {} and "leave_out" not in plain.options and plain.fingerprint != report.fingerprint
    doubtful.write_text(f"id,reason\n{train[3]},fast\n")
    assert not prepare(corpus, tmp_path / "out", leave_out=[doubtful, more], **options).reused
    assert prepare(corpus, tmp_path / "out", leave_out=[doubtful, more], **options).reused


def test_excluded_ids_stay_in_the_splits(corpus, tmp_path):
    train = ids_of(corpus / "train.txt")
    (tmp_path / "ids.txt").write_text(train[0])
    report = prepare(corpus, tmp_path / "out", exclude_ids=[tmp_path / "ids.txt"], **OPTIONS)
    assert train[0] in rows_of(tmp_path / "out") and report.left_out == {}


def test_files_of_a_table_can_be_left_out(tmp_path):
    (tmp_path / "own").mkdir()
    rows = ["file,caption,split"]
    for name, split in (("Mia.npy", "train"), ("tom.npy", "train"), ("ada.npy", "test")):
        motion = np.random.default_rng(0).normal(scale=0.01, size=(40, 22, 3)).cumsum(axis=0)
        np.save(tmp_path / "own" / name, motion.astype(np.float32))
        rows.append(f"{name},a person walks,{split}")
    (tmp_path / "own" / "captions.csv").write_text("\n".join(rows))
    (tmp_path / "ids.txt").write_text("Mia.npy\n")
    from lexmotion.processing.corpora.options import PrepareOptions
    from lexmotion.processing.corpora.plan import make_plan

    plan = make_plan(tmp_path / "own", PrepareOptions(layout="files", leave_out=[tmp_path / "ids.txt"]), None)
    assert plan.ids == {"train": ["tom.npy"], "test": ["ada.npy"]} and plan.left_out == {"train": ["./Mia.npy"]}
    with pytest.raises(ValueError, match="overlay: got .*'files'.*own"):
        make_plan(tmp_path / "own", PrepareOptions(layout="files", overlay=[tmp_path]), None)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "name,reason\n1,x\n", "a.csv: no column 'id'.*name, reason"),
        ("a.csv", "", "a.csv: no column 'id'"),
        ("a.csv", "id\n\n", "a.csv: the file lists no ids"),
        ("a.csv", 'id\n"1', None),
        ("a.txt", " \n", "a.txt: the file lists no ids"),
        ("a.txt", "../../etc/passwd\n", r"a.txt: got the id '\.\./\.\./etc/passwd'.*outside"),
        ("a.txt", "/etc/passwd\n", "a.txt: got the id '/etc/passwd'.*outside"),
    ],
)
def test_lists_of_ids(name, text, words, tmp_path):
    (tmp_path / name).write_text(text)
    if words is None:
        assert read_id_list(tmp_path / name) == ["1"]
        return
    with pytest.raises(ValueError, match=words):
        read_id_list(tmp_path / name)


def test_a_split_keeps_a_motion(corpus, tmp_path):
    with pytest.raises(ValueError, match="leave_out: names all 3 ids of the split 'validation'"):
        prepare(corpus, tmp_path / "out", leave_out=[corpus / "val.txt"], **OPTIONS)
    with pytest.raises(FileNotFoundError, match="leave_out: no file 'none.txt'"):
        prepare(corpus, tmp_path / "out", leave_out=["none.txt"], **OPTIONS)
    assert not (tmp_path / "out").exists()


# ---- overlays


def test_files_of_the_last_overlay_come_first(corpus, tmp_path):
    ids = ids_of(corpus / "train.txt")
    first = overlay_of(tmp_path / "first", motions=ids[:2], texts=ids[:1])
    last = overlay_of(tmp_path / "last", motions=ids[1:2], texts=ids[1:2])
    np.save(last / "new_joints" / f"{ids[1]}.npy", np.full((33, 22, 3), 2.0, np.float32))
    report = prepare(corpus, tmp_path / "out", overlay=[first, last], **OPTIONS)
    rows, plain = rows_of(tmp_path / "out"), prepare(corpus, tmp_path / "plain", **OPTIONS)
    assert [rows[name]["num_frames"] for name in ids[:2]] == [30, 33]
    assert [rows[name]["captions"] for name in ids[:2]] == [["a person whistles"]] * 2
    assert rows[ids[2]] == rows_of(tmp_path / "plain")[ids[2]]
    assert report.overlays == [
        {"name": "first", "motions": 1, "captions": 1},
        {"name": "last", "motions": 1, "captions": 1},
    ]
    assert "overlay first: 1 motion and captions of 1" in report.summary()
    assert report.options["overlay"] == ["first", "last"] and report.fingerprint != plain.fingerprint
    assert prepare(corpus, tmp_path / "out", overlay=[first, last], **OPTIONS).reused
    np.save(last / "new_joints" / f"{ids[1]}.npy", np.full((34, 22, 3), 2.0, np.float32))
    assert not prepare(corpus, tmp_path / "out", overlay=[first, last], **OPTIONS).reused


def test_an_overlay_replaces_stored_mirror_images_too(corpus, tmp_path):
    ids = ids_of(corpus / "train.txt")
    source = shutil.copytree(corpus, tmp_path / "source")
    shutil.copy(source / "new_joints" / f"{ids[0]}.npy", source / "new_joints" / f"M{ids[0]}.npy")
    overlay = overlay_of(tmp_path / "overlay", motions=ids[:1])
    path, mirror = CorpusFolder(source, HUMANML3D, overlays=[overlay])._motion_path(f"M{ids[0]}")
    assert path.is_relative_to(overlay) and mirror


def test_two_corpora_become_one(corpus, other, tmp_path, capsys):
    """Ids that only an overlay has, in a split of two files."""
    with pytest.raises(SystemExit) as ended:
        main(
            [
                *("prepare", str(corpus), "--output-dir", str(tmp_path / "out"), "--overlay", str(other)),
                *("--split", "train=train.txt", "--split", f"train={other / 'train.txt'}"),
                *("--split", "val=val.txt", "--num-workers", "1"),
            ]
        )
    printed = " ".join(capsys.readouterr().out.split())
    assert ended.value.code == 0 and "train: 15 of 15 motions" in printed and "overlay other: 5 motions" in printed
    ids = [*ids_of(corpus / "train.txt"), *ids_of(other / "train.txt")]
    rows = rows_of(tmp_path / "out")
    assert list(rows) == ids
    for motion_id, folder in ((ids[0], corpus), (ids[-1], other)):
        stored = np.load(folder / "new_joints" / f"{motion_id}.npy")
        np.testing.assert_array_equal(np.reshape(rows[motion_id]["motion"], (-1, 22, 3)), stored)
    report = PrepareReport.load(tmp_path / "out")
    assert report.splits["train"]["file"] == report.options["splits"]["train"] == ["train.txt", "train.txt"]


def test_held_out_ids_of_an_overlay_stay_out(corpus, other, tmp_path):
    (tmp_path / "extra.jsonl").write_text(json.dumps({"id": ids_of(other / "val.txt")[0], "captions": ["a secret"]}))
    options = {**OPTIONS, "extra_captions": [tmp_path / "extra.jsonl"]}
    report = prepare(corpus, tmp_path / "out", overlay=[other], extra_motion=[other / "val.txt"], **options)
    assert report.text["extra_motions_left_out"] == 1 and report.motion["left_out"] == 2


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda place: place / "none", FileNotFoundError, "overlay: no folder '.*none'"),
        (lambda place: place, ValueError, "overlay: no file in new_joints, new_joint_vecs or texts of"),
        (lambda place: overlay_of(place / "o"), ValueError, "overlay: no file in new_joints"),
    ],
)
def test_overlays_without_content(corpus, tmp_path, make, error, words):
    with pytest.raises(error, match=words):
        prepare(corpus, tmp_path / "out", overlay=[make(tmp_path)], **OPTIONS)


def test_ids_outside_the_folder(corpus, tmp_path):
    np.save(tmp_path / "secret.npy", np.ones((30, 22, 3), np.float32))
    (tmp_path / "secret.txt").write_text(WHISTLE)
    (tmp_path / "ids.txt").write_text(f"{ids_of(corpus / 'train.txt')[0]}\n../../secret\n")
    with pytest.raises(ValueError, match=r"ids\.txt: got the id '\.\./\.\./secret'.*outside"):
        prepare(corpus, tmp_path / "out", splits={"train": str(tmp_path / "ids.txt")}, **OPTIONS)


# ---- extra motion


def test_extra_motion_is_written_beside_the_splits(corpus, other, tmp_path):
    unlabelled = overlay_of(tmp_path / "unlabelled", motions=["b1", "a1", "bad"])
    shutil.rmtree(unlabelled / "texts")
    (unlabelled / "new_joints" / "bad.npy").write_bytes(b"nothing")
    out = tmp_path / "out"
    report = prepare(corpus, out, extra_motion=[other, unlabelled], **OPTIONS)
    plain = prepare(corpus, tmp_path / "plain", **OPTIONS)
    rows, names = rows_of(out, "motion/train"), ids_of(other / "train.txt")
    assert list(rows) == [*names, "a1", "b1"]
    data = pq.read_schema(out / "data" / "train-00000-of-00001.parquet")
    assert pq.read_schema(out / "motion" / "train.parquet").names == data.names
    assert rows["a1"]["captions"] == [] and rows["a1"]["source"] == "unlabelled" and rows[names[0]]["captions"]
    np.testing.assert_array_equal(
        np.reshape(rows[names[1]]["motion"], (-1, 22, 3)), np.load(other / "new_joints" / f"{names[1]}.npy")
    )
    assert {key: report.motion[key] for key in ("listed", "motions", "left_out", "repeated")} == {
        "listed": 8, "motions": 7, "left_out": 0, "repeated": 0,
    }  # fmt: skip
    assert report.skipped_by_reason == {"unreadable motion file": 1}
    assert "extra motion: 7 of 8 motions, 15 captions" in report.summary()
    # Captions count for the text and the words, motions not for the statistics.
    text = pq.read_table(out / "text" / "train.parquet")["id"].to_pylist()
    assert set(names) <= set(text) and "a1" not in text
    assert report.text["captions"] == plain.text["captions"] + 15
    assert (out / "data" / "train-00000-of-00001.parquet").read_bytes() == (
        tmp_path / "plain" / "data" / "train-00000-of-00001.parquet"
    ).read_bytes()
    assert report.processor["statistics_hash"] == plain.processor["statistics_hash"]
    assert plain.motion == {} and not (tmp_path / "plain" / "motion").exists()
    assert prepare(corpus, out, extra_motion=[other, unlabelled], **OPTIONS).reused
    np.save(unlabelled / "new_joints" / "a1.npy", np.zeros((31, 22, 3), np.float32))
    assert not prepare(corpus, out, extra_motion=[other, unlabelled], **OPTIONS).reused


def test_held_out_repeated_and_left_out_extra_motions(corpus, tmp_path):
    train, validation, test = (ids_of(corpus / f"{name}.txt") for name in ("train", "val", "test"))
    extra = overlay_of(
        tmp_path / "extra", motions=[train[0], validation[0], test[0], f"M{test[1]}", "bad", "excluded", "new", "Mnew"]
    )
    again = overlay_of(tmp_path / "again", motions=["new", "old"])
    (tmp_path / "bad.txt").write_text("bad")
    (tmp_path / "excluded.txt").write_text("excluded")
    lists = {"leave_out": [tmp_path / "bad.txt"], "exclude_ids": [tmp_path / "excluded.txt"]}
    # test.txt is not prepared, but its motions stay out all the same.
    splits = {"train": None, "validation": None}
    report = prepare(corpus, tmp_path / "out", splits=splits, extra_motion=[extra, again], **lists, **OPTIONS)
    assert list(rows_of(tmp_path / "out", "motion/train")) == ["new", "old"]
    assert report.motion["left_out"] == 4 and report.motion["repeated"] == 2
    assert report.left_out == {"extra motion": ["bad"]}


def test_a_list_of_ids_selects_extra_motions(corpus, other, tmp_path):
    names = ids_of(other / "train.txt")
    folder = shutil.copytree(other, tmp_path / "chosen")
    (folder / "some.txt").write_text("\n".join(names[1:3]))
    prepare(corpus, tmp_path / "out", extra_motion=[folder / "some.txt"], **OPTIONS)
    assert list(rows_of(tmp_path / "out", "motion/train")) == names[1:3]


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda place: place / "none", FileNotFoundError, "extra_motion: no folder or list of ids '.*none'"),
        (lambda place: place, FileNotFoundError, "extra_motion: no folder new_joints or new_joint_vecs"),
        (lambda place: overlay_of(place / "o"), ValueError, "extra_motion: no motion in"),
    ],
)
def test_extra_motion_without_content(corpus, tmp_path, make, error, words):
    with pytest.raises(error, match=words):
        prepare(corpus, tmp_path / "out", extra_motion=[make(tmp_path)], **OPTIONS)


def test_extra_motion_needs_a_training_split(corpus, other, tmp_path):
    prepare(corpus, tmp_path / "out", **OPTIONS)
    processor = tmp_path / "out" / "processor"
    with pytest.raises(ValueError, match="extra_motion: .*'train'"):
        prepare(corpus, tmp_path / "test", splits={"test": None}, processor=processor, extra_motion=[other], **OPTIONS)


# ---- shards


def test_shards_with_all_of_it_are_the_unsharded_corpus(corpus, other, tmp_path):
    ids = ids_of(corpus / "train.txt")
    (tmp_path / "bad.txt").write_text(f"{ids[0]}\n{ids_of(other / 'train.txt')[0]}\n")
    options = {
        **OPTIONS,
        "row_group_size": 2,
        "leave_out": [tmp_path / "bad.txt"],
        "overlay": [overlay_of(tmp_path / "overlay", motions=ids[3:4])],
        "extra_motion": [other, overlay_of(tmp_path / "extra", motions=["a", "b", "c"])],
    }
    prepare(corpus, tmp_path / "whole", **options)
    for number in (1, 2, 3):
        prepare(corpus, tmp_path / "parts", shard=f"{number}/3", **options)
    prepare(corpus, tmp_path / "parts", merge_shards=3, **options)
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    assert len(rows_of(tmp_path / "whole", "motion/train")) == 7


@pytest.mark.parametrize("option", ["--leave-out", "--overlay", "--extra-motion"])
def test_the_command_names_the_option(corpus, tmp_path, capsys, option):
    with pytest.raises(SystemExit) as ended:
        main(["prepare", str(corpus), "--output-dir", str(tmp_path / "out"), option, "missing"])
    printed = " ".join(capsys.readouterr().err.split())
    assert ended.value.code == 1 and f"error: {option}: no" in printed and "'missing'" in printed
