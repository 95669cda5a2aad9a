"""The ridge floor: statistics by hand, the closed form, mirrors, and the figures measured on real motions."""

from pathlib import Path

import numpy as np
import pytest

from lexmotion.evaluation.metrics.retrieval import evaluate_retrieval
from lexmotion.evaluation.ridge_floor import RidgeFloor, UntrainedTower, motion_statistics
from lexmotion.processing.feature_extraction_lexmotion import LexMotionFeatureExtractor
from lexmotion.processing.skeletons import get_skeleton

CORPUS = Path(__file__).resolve().parents[2] / "shared" / "data" / "humanml3d_cmu"
if not CORPUS.is_dir():
    CORPUS = Path(__file__).resolve().parents[3] / "shared" / "data" / "humanml3d_cmu"
JOINTS = 22


@pytest.fixture(scope="module")
def toy():
    """Motions that drift left or right, fast or slow, and say so."""
    rng = np.random.default_rng(0)
    motions, captions = [], []
    for number in range(24):
        side, pace = (number % 2) * 2 - 1, 1 + number % 3
        motion = rng.normal(scale=0.01, size=(20 + number, JOINTS, 3)) + rng.normal(size=(1, JOINTS, 3))
        motion[..., 0] += side * 0.1 * pace * np.arange(len(motion))[:, None]
        motions.append(motion.astype(np.float32))
        captions.append(
            [f"moves to the {'left' if side > 0 else 'right'} {'very ' * (pace - 1)}fast", "someone moves"]
        )
    return motions, captions


def test_statistics_by_hand():
    motion = np.zeros((3, 2, 3))
    motion[:, 0, 0] = [0, 1, -1]  # the root goes there and further back
    motion[:, 1] = motion[:, 0] + [0, 1, 0]
    motion[2, 1, 1] = 4  # and the other joint rises at the end
    mean, std, speed, net = motion_statistics(motion).reshape(4, 2, 3)
    np.testing.assert_allclose(mean, [[0, 0, 0], [0, 2, 0]])
    np.testing.assert_allclose(std, [[0, 0, 0], [0, np.sqrt(2), 0]])
    np.testing.assert_allclose(speed, [[1.5, 0, 0], [1.5, 1.5, 0]])
    np.testing.assert_allclose(net, [[-1, 0, 0], [-1, 3, 0]])
    np.testing.assert_array_equal(motion_statistics(motion[:1])[12:], 0)


def test_statistics_errors():
    with pytest.raises(ValueError, match=r"frames, joints, 3\).*\(4, 66\)"):
        motion_statistics(np.zeros((4, 66)))
    broken = np.zeros((4, 2, 3))
    broken[2, 1, 0] = np.inf
    with pytest.raises(ValueError, match=r"(?i)frame 2\b.*NaN"):
        motion_statistics(broken)


def test_an_untrained_tower_describes_a_motion_by_its_body_parts():
    extractor = LexMotionFeatureExtractor(max_frames=64)
    motion = np.random.default_rng(0).normal(scale=0.02, size=(40, JOINTS, 3)).cumsum(axis=0)
    motion += np.random.default_rng(1).normal(size=(1, JOINTS, 3)) * 0.4
    tower = UntrainedTower(extractor)
    found = tower(motion)
    assert found.shape[0] % len(extractor.parts) == 0 and np.isfinite(found).all() and found.std() > 0
    np.testing.assert_array_equal(found, UntrainedTower(extractor)(motion))  # seeded
    assert not np.array_equal(found, UntrainedTower(extractor, seed=1)(motion))
    assert not np.allclose(found, tower(motion[::-1]))


def test_fit_is_the_closed_form_of_ridge_regression(toy):
    motions, captions = toy
    floor = RidgeFloor(penalty=5.0).fit(motions, captions, mirror=False)
    statistics = np.stack([motion_statistics(motion) for motion in motions])
    scale = np.where(statistics.std(0) > 1e-8, statistics.std(0), 1)
    inputs = (statistics - statistics.mean(0)) / scale
    targets = np.stack([(floor.encode_text(group) + floor.mean_target).mean(0) for group in captions])
    np.testing.assert_allclose(targets.mean(0), floor.mean_target, atol=1e-12)
    residual = np.concatenate([targets - floor.mean_target, np.zeros((inputs.shape[1], targets.shape[1]))])
    design = np.concatenate([inputs, np.sqrt(5.0) * np.eye(inputs.shape[1])])
    expected = np.linalg.lstsq(design, residual, rcond=None)[0]
    np.testing.assert_allclose(floor.weight, expected, atol=1e-8)


def test_it_learns_sides_and_mirrors_teach_both(toy):
    motions, captions = toy
    only_left = [(m, c) for m, c in zip(motions, captions, strict=True) if "left" in c[0]]
    floor = RidgeFloor(penalty=1.0).fit(*zip(*only_left, strict=True))
    queries = ["moves to the left fast", "moves to the right fast"]
    pair = [motions[1], motions[0]]  # to the left, to the right
    similarity = floor.similarity(queries, pair)
    assert similarity.shape == (2, 2)
    assert similarity[0, 0] > similarity[0, 1] and similarity[1, 1] > similarity[1, 0]
    np.testing.assert_allclose(np.linalg.norm(floor.encode_motion(pair), axis=1), 1.0)


def test_mirrored_captions_may_be_given(toy):
    motions, captions = toy
    given = [
        [text.replace("left", "L").replace("right", "left").replace("L", "right") for text in c] for c in captions
    ]
    own, other = RidgeFloor().fit(motions, captions), RidgeFloor().fit(iter(motions), iter(captions), iter(given))
    assert own.pieces == other.pieces
    np.testing.assert_allclose(own.weight, other.weight, atol=1e-12)


def test_rare_pieces_stay_out_and_unknown_captions_are_legal(toy):
    motions, captions = toy
    floor = RidgeFloor(min_count=2).fit(motions, [[*captions[0], "xylophone"], *captions[1:]], mirror=False)
    assert "xylophone" not in floor.pieces and "left" in floor.pieces
    np.testing.assert_allclose(floor.encode_text(["xylophone"])[0], -floor.mean_target)


def test_errors(toy):
    motions, captions = toy
    with pytest.raises(ValueError, match=r"\bfit\b"):
        RidgeFloor().encode_text(["a"])
    with pytest.raises(ValueError, match=r"penalty.*\b0\b"):
        RidgeFloor(penalty=0)
    with pytest.raises(ValueError, match=r"\b24\b.*\b23\b"):
        RidgeFloor().fit(motions, captions[1:])
    with pytest.raises(ValueError, match=r"(?i)motion 1\b.*caption"):
        RidgeFloor().fit(motions, [captions[0], [], *captions[2:]])
    with pytest.raises(ValueError, match=r"\b1000000\b.*\bmin_count\b"):
        RidgeFloor(min_count=10**6).fit(motions, captions)
    with pytest.raises(ValueError, match="motions"):
        RidgeFloor().fit([], [])
    with pytest.raises(ValueError, match=r"\b22\b.*'kit-ml'.*\b21\b.*mirror=False"):
        RidgeFloor(skeleton=get_skeleton("kit-ml").name).fit(motions, captions)


def test_measured_figures_on_real_motions():
    """Recalls of the corpus's own notes: t2m 11.7 22.7 29.3 37.7 47.0, m2t 7.7 13.0 17.3 23.3 36.7, Rsum 246.4."""
    if not CORPUS.is_dir():
        pytest.skip("the motion corpus humanml3d_cmu is not here")
    transformers = pytest.importorskip("transformers")
    from lexmotion.processing.corpora.text_models import resolve_text_model

    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(resolve_text_model("minilm"))
    except ImportError as error:
        pytest.skip(str(error))

    def read(split):
        ids = (CORPUS / f"{split}.txt").read_text().split()
        texts = [(CORPUS / "texts" / f"{motion_id}.txt").read_text().splitlines() for motion_id in ids]
        captions = [[line.split("#")[0] for line in lines if line.strip()] for lines in texts]
        return ids, (np.load(CORPUS / "new_joints" / f"{motion_id}.npy") for motion_id in ids), captions

    _, motions, captions = read("train_nodev")
    floor = RidgeFloor(penalty=300.0, tokenizer=tokenizer).fit(motions, captions)
    assert len(floor.pieces) == 2383
    ids, motions, captions = read("dev")
    first = [group[0] for group in captions]
    result = evaluate_retrieval(floor.similarity(first, motions), ids, first, ["all-strict"])["all-strict"]
    assert result["Rsum"] == pytest.approx(246.4, abs=2)
    assert (result["t2m/MedR"], result["m2t/MedR"]) == (12, 18)
