"""What the demo answers, without a browser."""

import base64
import html
import json
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import sparse

from lexmotion import LexMotionIndex
from lexmotion.evaluation.search import search_page
from lexmotion.evaluation.viewer import demo as demos
from lexmotion.evaluation.viewer.demo import UPLOADS, Demo, Question, open_demo
from lexmotion.evaluation.viewer.motion_sources import STORED, FileMotions, StoredMotions, file_metadata
from lexmotion.evaluation.viewer.views import bone_parts, packed_motion, page, preview, skeleton_view
from lexmotion.processing.motion_features import positions_to_features
from lexmotion.processing.recordings.bvh import save_bvh
from lexmotion.processing.recordings.options import ReadingOptions
from lexmotion.processing.skeletons import BODY_PARTS, HUMANML3D, JOINT_PARTS, KIT_ML


def unpacked(packed):
    numbers = np.frombuffer(base64.b64decode(packed["data"]), "<i2")
    return numbers.reshape(packed["frames"], packed["joints"], 3) * packed["scale"]


@given(arrays.arrays(np.float32, (3, 22, 3), elements=st.floats(-30, 30, width=32)))
def test_packed_positions_are_good_to_a_millimetre(positions):
    assert np.abs(unpacked(packed_motion(positions, 20.0)) - positions).max() < 1e-3


@given(st.lists(st.integers(1, 40), min_size=1, max_size=5), st.integers(0, 99))
def test_stored_motions_are_good_to_a_millimetre(lengths, seed):
    import tempfile
    from pathlib import Path

    random = np.random.default_rng(seed)
    clips = {}
    for number, length in enumerate(lengths):
        root = random.uniform(-20, 20, (length, 1, 3))
        clips[f"id {number}"] = (root + random.uniform(-1, 1, (length, 22, 3))).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, STORED)
        assert StoredMotions.save(file, [(id, (clip, 20.0)) for id, clip in clips.items()]) == len(clips)
        stored = StoredMotions(file)
        for id, clip in clips.items():
            positions, fps = stored.get(id, {})
            assert fps == 20.0 and positions.shape == clip.shape and np.abs(positions - clip).max() < 1.1e-3
        assert stored.get("another", {}) is None


def test_a_preview_lasts_as_long_as_the_motion(bodies):
    long = np.concatenate([bodies[0]] * 5)
    small = preview(long, 20.0)
    assert small["frames"] == 24 and (small["frames"] - 1) / small["fps"] == pytest.approx((len(long) - 1) / 20.0)


@pytest.mark.parametrize("skeleton", [HUMANML3D, KIT_ML], ids=lambda skeleton: skeleton.name)
@pytest.mark.parametrize("parts", [BODY_PARTS, JOINT_PARTS], ids=len)
def test_every_bone_lights_up_with_its_part(skeleton, parts):
    ends = [skeleton.joint_names[joint] for _, joint in skeleton.bones]
    names = dict(zip(ends, bone_parts(skeleton, len(parts)), strict=True))
    assert all(0 <= part < len(parts) for part in names.values())
    sided = {name: parts[part] for name, part in names.items() if name.startswith(("left", "right"))}
    for name, part in sided.items():
        assert part == "pelvis" or part.split("_")[0] == name.split("_")[0], (name, part)
    if parts is JOINT_PARTS:
        assert sided["left_elbow"] == "left_shoulder" and sided["right_knee"] == "right_hip"
        assert sided["left_wrist"] == "left_elbow_wrist" and parts[names["head"]] == "neck_head"
    else:
        assert sided["left_knee"] == "left_leg" and parts[names["head"]] == "torso"


def test_a_grid_of_other_parts_lights_nothing():
    assert set(skeleton_view("humanml3d", 3)["partOfBone"]) == {-1}


def test_hits_add_up_and_bring_a_picture(demo):
    found = demo.search(Question(text="a person kicks"))
    assert len(found["hits"]) == 4 and found["query"] and found["milliseconds"] > 0
    for hit in found["hits"]:
        assert hit["preview"]["frames"] > 0 and hit["title"] == hit["captions"][0]
    assert json.loads(json.dumps(found)) == found


def test_a_view_explains_the_score(demo):
    question = Question(text="a person kicks with the left leg", boost=(("kicks", 3.0),))
    hit = demo.search(question)["hits"][0]
    view = demo.view("item", hit["id"], question)
    shared = [word for word in view["words"] if word["contribution"] > 0]
    assert view["score"] == pytest.approx(hit["score"], abs=2e-3)
    assert all(word["query"] > 0 for word in shared)
    maps = view["maps"]
    values = np.frombuffer(base64.b64decode(maps["data"]), np.uint8)
    values = values.reshape(len(view["words"]), maps["windows"], maps["parts"])
    names = demo.skeleton["parts"]
    for word, grid in zip(view["words"], values, strict=True):
        window, part = np.argwhere(grid == 255)[0]
        assert (names[part], window * maps["windowSeconds"]) == (word["part"], pytest.approx(word["start"]))


def test_boosting_a_word_weighs_it_more(demo):
    plain, more = (Question(text="a person kicks", boost=boost) for boost in ((), (("kicks", 3.0),)))
    weights = [dict(demo.search(question)["query"]) for question in (plain, more)]
    others = [word for word in weights[0] if word != "kicks"]
    assert weights[1]["kicks"] == pytest.approx(3 * weights[0]["kicks"], rel=1e-3)
    assert [weights[0][word] for word in others] == [weights[1][word] for word in others]


def test_words_alone_are_a_question_and_conditions_hold(demo):
    word = demo.words[0]
    having = {hit["id"] for hit in demo.search(Question(must=(word,)))["hits"]}
    without = {hit["id"] for hit in demo.search(Question(text="a person kicks", must_not=(word,)))["hits"]}
    assert having and not having & without


def test_a_wrong_word_is_told_with_words_like_it(demo):
    answer = demo.word(" Kickss ")
    assert "'kickss'" in answer["error"] and "kicks" in answer["near"]
    assert demo.word("kicks") == {"word": "kicks"}
    with pytest.raises(ValueError, match=r"'kickss'.*\bkicks\b"):
        demo.search(Question(text="a person kicks", must_not=("kickss",)))


def test_an_upload_finds_itself(demo, bodies, tmp_path):
    np.save(tmp_path / "own.npy", bodies[2])
    taken = demo.upload("own.npy", (tmp_path / "own.npy").read_bytes(), fps=20.0)
    question = Question(example=("upload", taken["key"]))
    best = demo.search(question)["hits"][0]
    assert best["id"] == "clip2" and best["score"] == pytest.approx(1.0, abs=2e-2)
    view = demo.view("upload", taken["key"], question)
    assert view["motion"]["frames"] == len(bodies[2]) and view["score"] == pytest.approx(1.0, abs=1e-3)


def test_a_bvh_file_is_taken(demo, bodies, tmp_path):
    save_bvh(tmp_path / "own.bvh", bodies[0], fps=20)
    taken = demo.upload("own.bvh", (tmp_path / "own.bvh").read_bytes())
    assert taken["seconds"] == pytest.approx(len(bodies[0]) / 20, abs=0.01)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("own.npy", b"no array", "own.npy"),
        ("own.bvh", b"HIERARCHY\n", "own.bvh"),
        ("..", b"text", ".bvh"),
        ("a\0b" + 300 * "c" + ".npy", b"no array", "c.npy"),
        ("own.txt", b"text", ".bvh"),
        ("../../etc/passwd.csv", b"a,b\n1,2\n", "passwd.csv"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_in_one_line(demo, name, content, message):
    with pytest.raises(ValueError, match=re.escape(message)) as told:
        demo.upload(name, content)
    assert "\n" not in str(told.value) and "/tmp" not in str(told.value)


def test_a_packed_file_must_not_unpack_to_more_than_is_taken(demo, tmp_path, monkeypatch):
    monkeypatch.setattr(demos, "UPLOAD_BYTES", 20_000)
    np.savez_compressed(tmp_path / "own.npz", positions=np.zeros((200, 22, 3), np.float32))
    content = (tmp_path / "own.npz").read_bytes()
    assert len(content) < 20_000
    with pytest.raises(ValueError, match=r"own\.npz.*\bMB\b"):
        demo.upload("own.npz", content)


def test_a_motion_file_is_read_again_as_it_was(demo, bodies, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    turned = bodies[0][..., [0, 2, 1]] * [100, -100, 100]  # centimetres, Z up
    np.savez("own.npz", first=np.zeros(3), own=turned.astype(np.float32))
    options = ReadingOptions(fps=60.0, units="cm", up="z", key="own")
    metadata = json.loads(json.dumps(file_metadata("own.npz", options)))
    monkeypatch.chdir("/")
    files = FileMotions(demo.extractor.skeleton, 20.0)
    positions, fps = files.get("own", metadata)
    assert fps == 60.0 and np.allclose(np.ptp(positions, axis=(0, 1)), np.ptp(bodies[0], axis=(0, 1)), atol=1e-4)
    (tmp_path / "own.npz").write_bytes(b"nothing")
    assert files.get("own", metadata) is None and "own.npz" in caplog.text


def test_features_of_a_file_are_explained(model, processor, bodies, tmp_path, monkeypatch):
    features = positions_to_features(torch.from_numpy(bodies[0])).numpy()
    np.save(tmp_path / "own.npy", features)
    embeds = model.encode_motion(bodies[:1], 20.0, processor)
    metadata = [file_metadata(tmp_path / "own.npy", ReadingOptions(fps=20.0))]
    demo = Demo(LexMotionIndex.build(embeds, metadata, processor=processor, model=model))
    given = []
    monkeypatch.setattr(demos, "explain", lambda model, motion, **_: given.append(motion))
    demo._explanation("item", 0)
    assert np.array_equal(given[0], features) and demo.clip(0)[0].shape[1:] == (22, 3)


def test_an_index_of_another_model_is_refused(model, processor, bodies):
    width = model.config.motion_config.vocab_size + 1
    index = LexMotionIndex.build(sparse.identity(width, format="csr")[:2], processor=processor, model=model)
    with pytest.raises(ValueError, match=rf"\b{width}\b.*\b{width - 1}\b"):
        Demo(index)


def test_only_captions_of_an_item_are_told(model, processor, bodies):
    metadata = [{"captions": "kicks a ball"}] + [{"file": f"/home/me/{number}.npy"} for number in (1, 2, 3)]
    embeds = model.encode_motion(bodies, 20.0, processor)
    demo = Demo(LexMotionIndex.build(embeds, metadata, processor=processor, model=model))
    found = demo.search(Question(text="a person kicks"))
    captions = {hit["id"]: (hit["title"], hit["captions"]) for hit in found["hits"]}
    assert captions == {0: ("kicks a ball", ["kicks a ball"]), 1: ("1", []), 2: ("2", []), 3: ("3", [])}
    assert "/home/me" not in json.dumps(found)


def test_the_oldest_upload_is_forgotten(model, processor, bodies, tmp_path, monkeypatch):
    index = LexMotionIndex.build(model.encode_motion(bodies, 20.0, processor), processor=processor, model=model)
    demo = Demo(index)
    np.save(tmp_path / "own.npy", bodies[0])
    content = (tmp_path / "own.npy").read_bytes()
    keys = [demo.upload(f"{number}.npy", content)["key"] for number in range(UPLOADS + 1)]
    assert len(set(keys)) == UPLOADS + 1 and len(demo._uploads) == UPLOADS
    demo.upload_of(keys[-1])
    with pytest.raises(ValueError, match="upload"):
        demo.upload_of(keys[0])
    with pytest.raises(ValueError, match="--dataset"):
        demo.view("item", 0)
    assert demo.search(Question(must=(demo.words[0],)))["hits"][0]["preview"] is None
    monkeypatch.setattr(demos, "UPLOADS_BYTES", 2 * demo.upload_of(keys[-1]).nbytes)
    demo.upload("last.npy", content)
    assert len(demo._uploads) == 2


WRONG = [
    ({}, "upload"),
    ({"text": 3}, "text.*1,000"),
    ({"text": "a", "must": "kicks"}, "must.*'kicks'"),
    ({"text": "a", "boost": {"kicks": -1}}, "boost.*100.*-1"),
    ({"text": "a", "boost": {"kicks": "much"}}, "boost.*100.*'much'"),
    ({"example": {"kind": "folder", "id": "x"}}, "item.*upload.*'folder'"),
    ({"example": {"kind": "item", "id": ["x"]}}, r"\bid\b.*\['x'\]"),
    ({"example": {"kind": "item", "id": "nowhere"}}, "'nowhere'"),
    ({"example": {"kind": "upload", "id": "nowhere"}}, "upload"),
]


@pytest.mark.parametrize(("content", "message"), WRONG, ids=[message for _, message in WRONG])
def test_a_question_that_makes_no_sense_is_refused(demo, content, message):
    with pytest.raises(ValueError, match=message):
        demo.search(Question.from_dict(content))


def test_a_saved_demo_answers_the_same_without_a_dataset(demo, tmp_path):
    demo.save_pretrained(tmp_path / "space")
    question = Question(text="a person kicks")
    again = open_demo(tmp_path / "space", device="cpu")
    first, second = (some.search(question)["hits"] for some in (demo, again))
    assert [(hit["id"], hit["score"], hit["captions"]) for hit in first] == [
        (hit["id"], hit["score"], hit["captions"]) for hit in second
    ]
    assert len(list(again.clips())) == 4
    positions, _ = again.clip("clip0")
    assert np.abs(positions[:, 0, [0, 2]][0]).max() < 1e-6  # as it is shown: from the origin
    assert not [entry for entry in (tmp_path / "space").rglob("*") if entry.suffix == ".partial"]


def test_a_page_needs_nothing_else_and_holds_any_caption():
    nasty = "</script><script>alert('x')</script>\u2028$title"
    text = page("demo", nasty, {"title": nasty, "words": []})
    assert "alert('x')</script>" not in text and f"<title>{html.escape(nasty)}</title>" in text
    assert not re.search(r"(?:src|href)=\"(?!data:)", text) and "import(" not in text


def test_the_report_moves_where_motions_are_at_hand(demo):
    question = Question(text="a person kicks")
    hits = demo.index.search(text="a person kicks", k=2)
    vector = demo.vector(question)
    views = [demo.explained("item", hits[0].id, vector, hits[0]), None]
    text = search_page("a person kicks", "2 best", demo.index.words_of(vector), hits, views, demo.skeleton)
    data = json.loads(re.search(r"const LEXMOTION_DATA = (.*);\n", text)[1])
    assert data["views"][0]["motion"]["frames"] > 0 and data["views"][1] is None
    assert text.count("<article") == 2 and all(hit.id in text for hit in hits)
