from collections import Counter

import numpy as np
import pytest

from lexmotion.processing.corpora import synthetic_motion as motions
from lexmotion.processing.corpora.folders import HUMANML3D, CorpusFolder
from lexmotion.processing.corpora.synthetic import (
    ACTION,
    ACTIONS,
    ActionSpec,
    action_specs,
    generate_corpus,
    iterate_motions,
    write_captions,
)
from lexmotion.processing.corpora.synthetic_motion import OFFSETS, PARENTS, Segment, render
from lexmotion.processing.skeletons import get_skeleton
from lexmotion.processing.text_mirroring import mirror_caption


def draw(name, side="", direction="", count=1, frames=60, pace=1.0, seed=0):
    return render([Segment(ACTION[name].animate, frames, side, direction, count, pace)], np.random.default_rng(seed))


def test_there_are_enough_actions_and_attributes():
    assert len(ACTIONS) >= 30
    specs = action_specs()
    assert len(set(specs)) == len(specs) > 400
    assert {spec.side for spec in specs} >= {"left", "right", "both"}
    assert {spec.direction for spec in specs} >= {"forward", "backward", "left", "right", "up"}
    assert {spec.speed for spec in specs} == {"", "slowly", "quickly"}
    assert {spec.count for spec in specs} >= {1, 2, 3}


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.name)
def test_every_action_keeps_its_bones_and_stands_on_the_floor(action):
    for direction in action.directions:
        clip = draw(action.name, action.sides[0], direction, max(action.counts))
        assert clip.shape == (60, 22, 3)
        assert clip.dtype == np.float32
        assert np.isfinite(clip).all()
        bones = np.linalg.norm(clip[:, 1:] - clip[:, list(PARENTS[1:])], axis=-1)
        np.testing.assert_allclose(
            bones, np.broadcast_to(np.linalg.norm(OFFSETS[1:], axis=-1), bones.shape), atol=1e-4
        )
        assert clip[..., 1].min() == pytest.approx(0, abs=1e-5)
        np.testing.assert_allclose(clip[0, 0, [0, 2]], 0, atol=1e-6)
        # No joint flies faster than a fast punch or an arm circle.
        assert np.linalg.norm(np.diff(clip, axis=0), axis=-1).max() * 20 < 16


def test_parents_agree_with_the_skeleton():
    assert tuple(get_skeleton("humanml3d").parents) == PARENTS


@pytest.mark.parametrize(("direction", "axis", "sign"), [("forward", 2, 1), ("backward", 2, -1)])
def test_walking_goes_where_the_caption_says(direction, axis, sign):
    way = draw("walk", direction=direction)[-1, 0]
    assert sign * way[axis] > 0.7
    assert abs(way[0]) < 0.3


def test_sidesteps_and_jumps_go_to_their_side():
    for name in ("sidestep", "jump"):
        assert draw(name, direction="left")[-1, 0, 0] > 0.4
        assert draw(name, direction="right")[-1, 0, 0] < -0.4
    assert draw("jump", direction="forward")[-1, 0, 2] > 0.4
    assert draw("jump", direction="up")[:, :, 1].min(axis=1).max() > 0.25


def test_the_standing_foot_does_not_skate():
    clip = draw("walk", direction="forward")
    feet = clip[:, [10, 11]]
    lower = feet[..., 1].argmin(axis=1)
    steady = lower[1:] == lower[:-1]
    moved = np.linalg.norm(np.diff(feet, axis=0)[..., [0, 2]], axis=-1)
    assert np.median(moved[np.arange(len(moved)), lower[1:]][steady]) < 0.005


def test_turns_and_circles_have_the_right_sense():
    def facing(clip):
        across = clip[-1, 1] - clip[-1, 2]
        return np.degrees(np.arctan2(across[2], across[0]))

    assert facing(draw("turn", direction="left")) == pytest.approx(-90, abs=10)
    assert facing(draw("turn", direction="right")) == pytest.approx(90, abs=10)
    path = draw("circle", direction="clockwise", frames=84)[:, 0, [0, 2]]
    assert path[:, 0].mean() < -0.1


def test_repetitions_can_be_counted():
    for count in (1, 2, 3):
        height = draw("kick", "left", "forward", count, frames=30 * count)[:, 10, 1]
        high = height > 0.6
        assert np.sum(high[1:] & ~high[:-1]) == count


def test_mirrored_action_is_the_mirror_image():
    permutation = list(get_skeleton("humanml3d").mirror_permutation)

    def still(side):
        curves = motions.Curves(50, side, "forward", 1, 1.0, 1.0)
        motions.kick(curves)
        return motions.forward_kinematics(curves.sheet)

    left, right = still("left"), still("right")
    np.testing.assert_allclose(left[:, permutation] * [-1, 1, 1], right, atol=1e-5)


def test_captions_name_every_attribute():
    spec = (ActionSpec("kick", "left", "forward", 2, "quickly"), ActionSpec("turn", direction="right"))
    captions = write_captions(spec, np.random.default_rng(1), 3)
    assert len(set(captions)) == 3
    for caption in captions:
        assert caption.endswith(".")
        for words in (("left",), ("forward", "forwards"), ("twice", "two times"), ("quickly", "fast"), ("right",)):
            assert any(word in caption for word in words), caption
        assert "{" not in caption


def test_captions_of_every_action_are_well_formed():
    for number, spec in enumerate(action_specs()):
        for caption in write_captions((spec,), np.random.default_rng(number), 2):
            assert "{" not in caption
            assert "  " not in caption
            if spec.side in ("left", "right"):
                assert spec.side in caption
            assert mirror_caption(mirror_caption(caption)) == caption


def test_same_seed_same_bytes_and_another_seed_others(tmp_path):
    folders = [generate_corpus(tmp_path / name, 24, seed) for name, seed in (("a", 3), ("b", 3), ("c", 4))]
    files = [
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in folders
    ]
    assert files[0] == files[1]
    assert files[0] != files[2]


def test_written_corpus_is_read_back(tmp_path):
    folder = generate_corpus(tmp_path / "corpus", {"train": 12, "validation": 3, "test": 5}, seed=1)
    for split, number in (("train", 12), ("validation", 3), ("test", 5)):
        records = list(CorpusFolder(folder, HUMANML3D).records(split))
        assert len(records) == number
        assert all(len(record.captions) == 3 for record in records)
        assert all(48 <= record.num_frames <= 96 for record in records)
    before = (folder / "corpus.json").stat().st_mtime_ns
    generate_corpus(folder, {"train": 12, "validation": 3, "test": 5}, seed=1)
    assert (folder / "corpus.json").stat().st_mtime_ns == before
    generate_corpus(folder, {"test": 2}, seed=1)
    assert not (folder / "train.txt").exists()


def test_refuses_to_replace_other_files(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(FileExistsError, match=f"{tmp_path.name}.*synthetic"):
        generate_corpus(tmp_path, 5)
    with pytest.raises(ValueError, match=r"num_motions.*\b0\b"):
        generate_corpus(tmp_path / "x", 0)
    with pytest.raises(ValueError, match="'dev'.*train, validation, test"):
        generate_corpus(tmp_path / "x", {"dev": 3})


def test_held_out_combinations_are_not_in_training():
    def canonical(spec):
        return min(spec, tuple(part.mirrored() for part in spec))

    specs = {"train": Counter(), "validation": Counter(), "test": Counter()}
    captions = []
    for split, _, spec, _, told in iterate_motions({"train": 300, "validation": 30, "test": 60}, seed=2):
        specs[split][canonical(spec)] += 1
        captions += told[:1] if split == "test" else []
    assert not specs["train"].keys() & specs["test"].keys()
    assert not specs["train"].keys() & specs["validation"].keys()
    assert not specs["validation"].keys() & specs["test"].keys()
    assert len(set(captions)) == len(captions)
    assert {part.action for spec in specs["train"] for part in spec} == set(ACTION)
