"""Phase ii: joint displacement as a target, and motions beside those of the split."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from lexmotion import LexMotionFeatureExtractor
from lexmotion.processing.corpora.prepare import prepare
from lexmotion.processing.corpora.synthetic import generate_corpus
from lexmotion.processing.joint_angles import column_names
from lexmotion.processing.motion_features import canonicalize
from lexmotion.processing.skeletons import get_skeleton
from lexmotion.training.batches.displacement import JointDisplacement
from lexmotion.training.data import PreparedData
from lexmotion.training.pipeline import train
from lexmotion.training.tasks import TASKS


def walk(skeleton="humanml3d", frames=24, seed=0):
    """(T, J, 3) metres: a body that drifts while its joints sway."""
    random = np.random.default_rng(seed)
    joints = get_skeleton(skeleton).num_joints
    steps = random.normal(scale=0.02, size=(frames, joints, 3)).cumsum(axis=0)
    return (random.normal(scale=0.3, size=(1, joints, 3)) + [0.0, 1.0, 0.0] + steps).astype(np.float32)


def fitted(representation, skeleton="humanml3d"):
    motions = [walk(skeleton, seed=seed) for seed in range(4)]
    return LexMotionFeatureExtractor(representation, skeleton=skeleton, max_frames=32).fit(motions), motions[0]


# ---- joint displacement


@pytest.mark.parametrize("skeleton", ["humanml3d", "kit-ml"])
def test_positions_move_in_metres_whatever_the_statistics(skeleton):
    extractor, motion = fitted("positions", skeleton)
    values = torch.as_tensor(extractor([motion], return_tensors="pt")["motion_values"])
    found = JointDisplacement(extractor)(values)
    steps = canonicalize(torch.from_numpy(motion), get_skeleton(skeleton)).flatten(1).diff(dim=0)
    torch.testing.assert_close(found[0, 1:], steps, atol=1e-5, rtol=1e-4)
    assert not found[0, 0].any()


@pytest.mark.parametrize("skeleton", ["humanml3d", "kit-ml"])
def test_features_move_by_relative_positions_and_the_root(skeleton):
    extractor, motion = fitted("humanml3d", skeleton)
    values = torch.as_tensor(extractor([motion], return_tensors="pt")["motion_values"])
    displacement = JointDisplacement(extractor)
    found, raw = displacement(values)[0], extractor.denormalize(values)[0]
    metres, slices = get_skeleton(skeleton).metres_per_unit, get_skeleton(skeleton).feature_slices
    last = slices["positions"].stop
    torch.testing.assert_close(found[1:, 3:last], metres * raw[:, 3:last].diff(dim=0), atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(found[1:, 1:3], metres * raw[:-1, 1:3])
    torch.testing.assert_close(found[1:, 0], 2 * raw[:-1, 0])  # half the turn is stored
    assert displacement.columns == set(range(last)) and not found[:, last:].any()


def test_angles_change():
    extractor, motion = fitted("joint_angles")
    values = torch.as_tensor(extractor([motion], return_tensors="pt")["motion_values"])
    displacement = JointDisplacement(extractor)
    found, raw = displacement(values)[0], extractor.denormalize(values)[0]
    own = torch.tensor([name in {"pelvis_turn"} or "velocity" in name for name in column_names()])
    torch.testing.assert_close(found[1:, own], raw[:-1, own], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found[1:, ~own], raw[:, ~own].diff(dim=0), atol=1e-5, rtol=1e-4)
    assert all(displacement.columns & set(part) for part in extractor.parts)


# ---- its place in phase ii


def test_the_target_changes_the_velocity_loss_alone(make_trainer):
    old, new = make_trainer("cmmm", "old"), make_trainer("cmmm", "new", velocity_target="displacement")
    losses = []
    for trainer in (old, new):
        with trainer.batches() as batches:
            _, batch = next(batches)
        trainer.model.eval()
        losses.append(
            {name: float(value.detach()) for name, value in trainer.compute_loss(trainer.model, batch).items()}
        )
    assert losses[0]["position_loss"] == losses[1]["position_loss"]
    assert losses[0]["velocity_loss"] != losses[1]["velocity_loss"] > 0


def test_runs_from_before_the_option_resume(make_trainer):
    first = make_trainer("cmmm", save_steps=3)
    first.train()
    checkpoint = first.checkpoints.path(first.checkpoints.steps()[-1])
    assert "velocity_target" not in (checkpoint / "trainer_state.json").read_text()
    with pytest.raises(ValueError, match="velocity_target was None, is 'displacement'"):
        make_trainer("cmmm", velocity_target="displacement").train()
    assert make_trainer("cmmm", velocity_target="differences").train()["steps"] == 6


# ---- extra motion


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The same corpus prepared with extra motion and without."""
    root = tmp_path_factory.mktemp("extra")
    source = generate_corpus(root / "source", {"train": 16, "validation": 8}, seed=0)
    (root / "more" / "new_joints").mkdir(parents=True)
    for number in range(5):
        np.save(root / "more" / "new_joints" / f"u{number}.npy", walk(seed=10 + number, frames=40))
    for name, extra in (("with", [root / "more"]), ("without", [])):
        prepare(source, root / name, extra_motion=extra, max_frames=64, num_workers=1)
    return root


def trainer_of(folder, recipe, phase, place):
    from lexmotion.training.recipe import run_arguments, task_values

    arguments = run_arguments(phase, {**task_values(recipe, phase), "output_dir": str(place)})
    return TASKS[phase].make_trainer(arguments, PreparedData.read(folder))


def test_only_phase_ii_sees_extra_motion(folders, recipe, tmp_path):
    for phase in ("cmmm", "lexmmm", "lexcmlp"):
        plain, more = (trainer_of(folders / name, recipe, phase, tmp_path / name) for name in ("without", "with"))
        assert len(plain.order.lengths) == 16
        assert len(more.order.lengths) == (21 if phase == "cmmm" else 16)
        assert list(more.train_corpus.ids) == list(plain.train_corpus.ids)
    more = trainer_of(folders / "with", recipe, "cmmm", tmp_path / "with")
    assert list(more.motions.ids)[16:] == [f"u{number}" for number in range(5)]
    assert torch.equal(more.motions.frames[: len(more.train_corpus.frames)], more.train_corpus.frames)
    assert len(set(more.motions.base_ids.tolist())) == 21
    assert more.row_names(torch.tensor([0, 20])) == [more.train_corpus.ids[0], "u4"]
    start = int(more.motions.offsets[17])
    stored = np.load(folders / "more" / "new_joints" / "u1.npy")
    np.testing.assert_array_equal(more.motions.frames[start : start + 40].numpy(), stored)


def test_phases_train_with_extra_motion(folders, recipe, tmp_path):
    short = {"num_steps": 3, "eval_steps": 3, "cmmm.velocity_target": "displacement"}
    record = train(recipe, folders / "with", tmp_path / "run", short)
    assert record["phases"]["cmmm"]["rows"] == 21 and record["phases"]["lexmmm"]["rows"] == 16
    assert record["dataset"]["rows"] == {"train": 16, "validation": 8, "extra motions": 5}
    lines = [json.loads(line) for line in (tmp_path / "run" / "cmmm" / "log.jsonl").read_text().splitlines()]
    assert lines[0] == {"step": 0, "split_clips": 16, "extra_motions": 5}
    assert [line["step"] for line in lines].count(0) == 1
    assert "extra_motions" not in (tmp_path / "run" / "lexmmm" / "log.jsonl").read_text()


def test_extra_motion_changes_the_fingerprint_of_the_data(folders):
    plain, more = (PreparedData.read(folders / name) for name in ("without", "with"))
    assert more.fingerprint != plain.fingerprint
    assert more.hashes["motion/train.parquet"] and "motion/train.parquet" not in plain.hashes
    assert pq.read_metadata(folders / "with" / "motion" / "train.parquet").num_rows == 5
