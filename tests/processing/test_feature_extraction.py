"""The feature extractor: every accepted input, every refusal, statistics, padding, saving."""

import json

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lexmotion.processing.feature_extraction_lexmotion import LexMotionFeatureExtractor
from lexmotion.processing.motion_features import canonicalize, mirror_positions, positions_to_features
from lexmotion.processing.skeletons import get_skeleton

few = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
representations = pytest.mark.parametrize("representation", ["positions", "humanml3d"])
layouts = pytest.mark.parametrize("skeleton", ["humanml3d", "kit-ml"])


def motion(num_frames, seed=0, skeleton="humanml3d"):
    """A swaying, travelling body (T, J, 3) float32 in metres."""
    layout = get_skeleton(skeleton)
    generator = torch.Generator().manual_seed(seed)
    pose = torch.zeros(layout.num_joints, 3)
    for chain in layout.chains:
        for parent, joint in zip(chain[:-1], chain[1:], strict=True):
            pose[joint] = pose[parent] + 0.2 * torch.tensor(layout.raw_offsets[joint])
    time = torch.arange(num_frames)[:, None, None] / 20
    phase = 6 * torch.rand(pose.shape, generator=generator)
    travel = torch.tensor([0.3, 0.0, 0.8]) * torch.rand(3, generator=generator)
    return pose + 0.03 * torch.sin(3 * time + phase) + travel * time


@pytest.fixture(scope="module")
def fitted():
    """Fitted extractors by (representation, skeleton)."""
    return {
        (representation, skeleton): LexMotionFeatureExtractor(representation, skeleton, max_frames=48).fit(
            [motion(30 + 7 * seed, seed, skeleton) for seed in range(6)]
        )
        for representation in ("positions", "humanml3d")
        for skeleton in ("humanml3d", "kit-ml")
    }


@representations
@layouts
def test_shapes_and_mask(fitted, representation, skeleton):
    extractor = fitted[representation, skeleton]
    joints = get_skeleton(skeleton).num_joints
    lost = int(representation == "humanml3d")
    batch = extractor([motion(20, 1, skeleton), motion(40, 2, skeleton)], fps=extractor.fps)
    assert batch["motion_values"].shape == (2, 40 - lost, extractor.num_features)
    assert extractor.num_features == (12 * joints - 1 if lost else 3 * joints)
    assert batch["motion_values"].dtype == torch.float32 and batch["motion_attention_mask"].dtype == torch.int64
    assert batch["motion_attention_mask"].sum(dim=1).tolist() == [20 - lost, 40 - lost]
    assert not batch["motion_values"][0, 20 - lost :].any()
    assert set(range(extractor.num_features)) == set().union(*extractor.parts)


@representations
def test_values_are_those_of_the_functions(fitted, representation):
    extractor = fitted[representation, "humanml3d"]
    clip = motion(30, 3)
    raw = canonicalize(clip).flatten(1) if representation == "positions" else positions_to_features(clip)
    expected = (raw - torch.tensor(extractor.mean)) / torch.tensor(extractor.std)
    values = extractor(clip, fps=20)["motion_values"][0]
    torch.testing.assert_close(values, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(extractor.denormalize(values), raw, atol=1e-5, rtol=1e-4)


def test_kit_features_are_those_of_millimetres(fitted):
    extractor = fitted["humanml3d", "kit-ml"]
    clip = motion(30, 3, "kit-ml")
    values = extractor.denormalize(extractor(clip, fps=12.5)["motion_values"][0])
    torch.testing.assert_close(values, positions_to_features(clip * 1000, "kit-ml"), atol=1e-2, rtol=1e-3)
    recovered = extractor.values_to_positions(extractor(clip, fps=12.5)["motion_values"])[0]
    torch.testing.assert_close(recovered, canonicalize(clip, "kit-ml")[:-1], atol=2e-3, rtol=0)


@pytest.mark.parametrize(
    "convert",
    [
        lambda clip: clip.numpy(),
        lambda clip: clip.double().numpy(),
        lambda clip: clip.tolist(),
        lambda clip: list(clip.numpy()),
        lambda clip: clip[None],
        lambda clip: [clip],
        lambda clip: [clip[None].numpy()],
        lambda clip: clip.flatten(1),
        lambda clip: clip.flatten(1)[None].numpy(),
        lambda clip: list(clip.flatten(1)),
        lambda clip: clip.clone().requires_grad_(),
        lambda clip: np.asfortranarray(clip.numpy())[::1],
        lambda clip: clip.numpy()[::-1][::-1],
    ],
)
def test_every_form_of_input_gives_the_same(fitted, convert):
    extractor = fitted["positions", "humanml3d"]
    expected = extractor(motion(25), fps=20)["motion_values"]
    assert torch.equal(extractor(convert(motion(25)), fps=20)["motion_values"], expected)


def test_features_are_taken_as_published(fitted):
    extractor = fitted["humanml3d", "humanml3d"]
    clip = motion(30)
    features = positions_to_features(clip)
    expected = extractor(clip, fps=20)["motion_values"]
    for given_features in (features, features.numpy(), [features], features[None], features.tolist()):
        torch.testing.assert_close(extractor(given_features, fps=20)["motion_values"], expected, atol=1e-5, rtol=0)


def test_features_become_positions(fitted):
    extractor = fitted["positions", "humanml3d"]
    clip = motion(30)
    values = extractor.denormalize(extractor(positions_to_features(clip), fps=20)["motion_values"][0])
    # Features look one frame ahead, so the last frame is lost.
    torch.testing.assert_close(values.view(29, 22, 3)[0], canonicalize(clip)[0], atol=1e-4, rtol=0)
    assert len(values) == 29


def test_kinds_may_be_mixed(fitted):
    extractor = fitted["humanml3d", "humanml3d"]
    first, second = motion(30), motion(24, 5)
    both = extractor([positions_to_features(first), second], fps=20)
    alone = [extractor(clip, fps=20)["motion_values"][0] for clip in (first, second)]
    for row, expected in zip(both["motion_values"], alone, strict=True):
        torch.testing.assert_close(row[: len(expected)], expected, atol=1e-5, rtol=0)


@representations
def test_resampling(fitted, representation):
    extractor = fitted[representation, "humanml3d"]
    clip = motion(30)
    doubled = torch.stack([clip[:-1], (clip[:-1] + clip[1:]) / 2], dim=1).flatten(0, 1)
    doubled = torch.cat([doubled, clip[-1:]])
    expected = extractor(clip, fps=20.0)["motion_values"]
    torch.testing.assert_close(extractor(doubled, fps=40)["motion_values"], expected, atol=1e-4, rtol=1e-4)
    mixed = extractor([clip, doubled], fps=[20, np.float32(40)])
    torch.testing.assert_close(mixed["motion_values"][1:], expected, atol=1e-4, rtol=1e-4)
    features = extractor(positions_to_features(doubled), fps=40)["motion_values"]
    assert features.shape[1] in (expected.shape[1], expected.shape[1] - 1)


def test_no_fps_means_the_extractors(fitted, caplog):
    extractor = fitted["positions", "humanml3d"]
    assert torch.equal(extractor(motion(25))["motion_values"], extractor(motion(25), fps=20.0)["motion_values"])


@representations
def test_truncation(fitted, representation):
    extractor = fitted[representation, "humanml3d"]
    lost = int(representation == "humanml3d")
    clip = motion(60)
    start = extractor(clip, fps=20)["motion_values"]
    assert start.shape[1] == 48
    assert torch.equal(start, extractor(clip[: 48 + lost], fps=20)["motion_values"])
    assert torch.equal(start, extractor(clip, fps=20, truncation=True)["motion_values"])
    first = (60 - 48 - lost) // 2
    centre = extractor(clip, fps=20, truncation="center")["motion_values"]
    assert torch.equal(centre, extractor(clip[first : first + 48 + lost], fps=20)["motion_values"])
    with pytest.raises(ValueError, match=rf"\b{60 - lost}\b.*\b48\b.*truncation=.*max_frames"):
        extractor(clip, fps=20, truncation=False)
    assert extractor(clip, fps=20, truncation=False, max_frames=80)["motion_values"].shape[1] == 60 - lost
    with pytest.raises(ValueError, match="truncation.*'end'.*'start'.*'center'"):
        extractor(clip, fps=20, truncation="end")


def test_padding(fitted):
    extractor = fitted["positions", "humanml3d"]
    clips = [motion(20), motion(33)]
    assert extractor(clips, fps=20, padding="longest")["motion_values"].shape[1] == 33
    assert extractor(clips, fps=20, padding="max_length")["motion_attention_mask"].shape == (2, 48)
    assert extractor(clips, fps=20, pad_to_multiple_of=16)["motion_values"].shape[1] == 48
    ragged = extractor(clips, fps=20, padding=False, return_tensors=None)
    assert [row.shape for row in ragged["motion_values"]] == [(20, 66), (33, 66)]
    assert [row.tolist() for row in ragged["motion_attention_mask"]] == [[1] * 20, [1] * 33]
    assert isinstance(extractor(clips, fps=20, return_tensors="np")["motion_values"], np.ndarray)
    with pytest.raises(ValueError, match=r"\b20\b.*\b33\b.*padding=True.*return_tensors=None"):
        extractor(clips, fps=20, padding=False)
    with pytest.raises(ValueError, match="padding.*'left'.*'longest'"):
        extractor(clips, fps=20, padding="left")
    with pytest.raises(ValueError, match=r"pad_to_multiple_of.*\b0\b"):
        extractor(clips, fps=20, pad_to_multiple_of=0)


@few
@given(
    lengths=st.lists(st.integers(9, 60), min_size=1, max_size=4),
    representation=st.sampled_from(["positions", "humanml3d"]),
    padding=st.sampled_from(["longest", "max_length"]),
)
def test_a_motion_does_not_see_its_neighbours(fitted, lengths, representation, padding):
    extractor = fitted[representation, "humanml3d"]
    clips = [motion(length, seed) for seed, length in enumerate(lengths)]
    batch = extractor(clips, fps=20, padding=padding)
    for clip, values, mask in zip(clips, batch["motion_values"], batch["motion_attention_mask"], strict=True):
        alone = extractor(clip, fps=20)["motion_values"][0]
        assert int(mask.sum()) == len(alone) and bool(mask[: len(alone)].all())
        torch.testing.assert_close(values[: len(alone)], alone, atol=1e-5, rtol=1e-5)
        assert not values[len(alone) :].any()


@representations
@layouts
def test_training_path_equals_calling(fitted, representation, skeleton):
    extractor = fitted[representation, skeleton]
    clips = [motion(length, length, skeleton) for length in (30, 12, 60)]
    lengths = torch.tensor([30, 12, 60])
    padded = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True, padding_value=float("nan"))
    values, value_lengths = extractor.values_from_positions(padded, lengths)
    called = extractor(clips, fps=extractor.fps)
    torch.testing.assert_close(values, called["motion_values"], atol=1e-6, rtol=1e-6)
    assert value_lengths.tolist() == called["motion_attention_mask"].sum(dim=1).tolist()


def test_target_skeleton_sets_the_bones():
    tall = (1.5 * motion(1)[0]).numpy()
    extractor = LexMotionFeatureExtractor("humanml3d", target_skeleton=tall)
    clip = motion(20)
    expected = positions_to_features(clip, target_skeleton=torch.from_numpy(tall))
    torch.testing.assert_close(extractor(clip, fps=20)["motion_values"][0], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: motion(20)[:, :21], r"(?i)motion 0\b.*\(20, 21, 3\).*\b22\b"),
        (lambda: torch.rand(20, 251), r"(?i)motion 0\b.*\(20, 251\).*\(frames, 263\)"),
        (lambda: torch.rand(20), r"(?i)motion 0\b.*\(20,\).*\(frames, 263\)"),
        (lambda: [motion(20), torch.rand(20, 7)], r"(?i)motion 1\b.*\(20, 7\).*\(frames, 263\)"),
        (lambda: motion(20).index_fill(0, torch.tensor([7]), float("nan")), r"(?i)motion 0\b.*frame 7\b.*NaN"),
        (
            lambda: [motion(20), motion(20).index_fill(0, torch.tensor([3]), torch.inf)],
            r"(?i)motion 1\b.*frame 3\b.*NaN",
        ),
        (lambda: motion(5), r"(?i)motion 0\b.*\b5\b.*\b20\b.*\b8\b"),
        (lambda: motion(0), r"(?i)motion 0\b.*\b0\b.*\b20\b.*\b8\b"),
        (lambda: motion(20) * 1000, r"(?i)motion 0\b.*\b1248 m\b.*\b0\.001\b"),
        (lambda: [], "empty.*list"),
        (lambda: torch.zeros(0, 20, 22, 3), "empty.*batch"),
        (lambda: "walk.npy", r"motion.*\bstr\b"),
        (lambda: None, "motion.*NoneType"),
        (lambda: np.array(["a"]), "motion.*<U1"),
        (lambda: [[[0.0, 0.0], [0.0]]], "motion 0.*(ragged|shape|object)"),
    ],
)
def test_refusals(fitted, wrong, message):
    with pytest.raises(ValueError, match=message):
        fitted["positions", "humanml3d"](wrong(), fps=20)


@pytest.mark.parametrize("fps", [0, -20, float("nan"), float("inf"), "20", True, [20.0, 20.0], [None]])
def test_wrong_fps(fitted, fps):
    with pytest.raises(ValueError, match="fps"):
        fitted["positions", "humanml3d"](motion(20), fps=fps)


def test_too_short_after_resampling(fitted):
    with pytest.raises(ValueError, match=r"(?i)motion 0\b.*\b5\b.*\b20\b.*\b8\b"):
        fitted["positions", "humanml3d"](motion(25), fps=120)


def test_kind_decides(fitted):
    extractor = fitted["humanml3d", "humanml3d"]
    assert extractor(motion(20), fps=20, kind="positions")["motion_values"].shape[1] == 19
    assert extractor(positions_to_features(motion(20)), fps=20, kind="features")["motion_values"].shape[1] == 19
    with pytest.raises(ValueError, match=r"\(20, 22, 3\).*\(frames, 263\)"):
        extractor(motion(20), fps=20, kind="features")
    with pytest.raises(ValueError, match=r"\(20, 263\).*\(frames, 22, 3\)"):
        extractor(torch.rand(20, 263), fps=20, kind="positions")
    with pytest.raises(ValueError, match="'angles'.*positions, features"):
        extractor(motion(20), fps=20, kind="angles")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"representation": "angles"}, "'angles'.*positions, humanml3d, joint_angles"),
        ({"skeleton": "dog"}, "'dog'.*humanml3d, kit-ml"),
        ({"fps": -1}, r"fps\b.*-1\b"),
        ({"min_frames": 9, "max_frames": 8}, r"min_frames.*max_frames.*\b9\b.*\b8\b"),
        ({"mean": [0.0] * 66}, "mean.*std"),
        ({"mean": [0.0] * 3, "std": [1.0] * 3}, r"\b3\b.*\b66\b.*'positions'.*'humanml3d'"),
        ({"mean": [float("nan")] * 66, "std": [1.0] * 66}, r"\bmean\b.*\bnan\b"),
        ({"mean": [0.0] * 66, "std": [0.0] * 66}, r"\bstd\b.*\b0\.0\b"),
        ({"target_skeleton": [[0.0, 0.0, 0.0]]}, r"target_skeleton.*\(1, 3\).*\(22, 3\)"),
    ],
)
def test_wrong_fields(fields, message):
    with pytest.raises(ValueError, match=message):
        LexMotionFeatureExtractor(**fields)


# ---------------------------------------------------------------------------------------------------------------------
# Statistics
# ---------------------------------------------------------------------------------------------------------------------


@representations
def test_fit_is_the_mean_and_deviation_of_all_frames(representation):
    clips = [motion(10 + seed % 50, seed) for seed in range(150)]  # several batches
    raw = LexMotionFeatureExtractor(representation)
    rows = [raw(clip, fps=20, return_tensors="np")["motion_values"][0] for clip in clips]
    frames = np.concatenate(rows).astype(float)
    fitted = LexMotionFeatureExtractor(representation).fit(iter(clips), fps=20.0)
    np.testing.assert_allclose(fitted.mean, frames.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(fitted.std, frames.std(axis=0), atol=1e-6)
    values = fitted(clips, fps=20)
    real = values["motion_values"][values["motion_attention_mask"].bool()]
    torch.testing.assert_close(real.mean(dim=0), torch.zeros(fitted.num_features), atol=1e-3, rtol=0)


def test_constant_features_are_centred_not_divided():
    frozen = motion(1).expand(30, 22, 3)
    fitted = LexMotionFeatureExtractor().fit([frozen])
    assert set(fitted.std) == {1.0}
    assert fitted(frozen, fps=20)["motion_values"].abs().max() < 1e-4
    features = LexMotionFeatureExtractor("humanml3d").fit([frozen])
    assert features.mean[-4:] == features.std[-4:] == [1.0] * 4  # feet that never leave the floor


def test_fit_with_mirrors_is_symmetric():
    clips = [motion(30, seed) for seed in range(5)]
    fitted = LexMotionFeatureExtractor().fit(clips, mirror=True)
    twice = LexMotionFeatureExtractor().fit([*clips, *(mirror_positions(clip) for clip in clips)])
    np.testing.assert_allclose(fitted.mean, twice.mean, atol=1e-6)
    np.testing.assert_allclose(fitted.std, twice.std, atol=1e-6)
    features = LexMotionFeatureExtractor("humanml3d").fit([positions_to_features(clip) for clip in clips], mirror=True)
    assert features.is_fitted


def test_fit_takes_one_fps_for_each():
    clips = [motion(30, seed) for seed in range(3)]
    same = LexMotionFeatureExtractor().fit(clips, fps=[20.0, 20.0, 20.0])
    assert same.mean == LexMotionFeatureExtractor().fit(clips, fps=20).mean
    with pytest.raises(ValueError, match=r"\bfps\b.*\b2\b"):
        LexMotionFeatureExtractor().fit(clips, fps=[20.0, 20.0])


def test_fit_refuses_nothing_and_names_the_broken_item(fitted):
    with pytest.raises(ValueError, match="motions"):
        LexMotionFeatureExtractor().fit([])
    extractor = LexMotionFeatureExtractor()
    with pytest.raises(ValueError, match=r"item 2\b.*\b8\b"):
        extractor.fit([motion(20), motion(20), motion(2)])
    with pytest.raises(ValueError, match=r"item 1\b.*frame 4\b"):
        extractor.fit([motion(20), motion(20).index_fill(0, torch.tensor([4]), float("nan"))])
    with pytest.raises(ValueError, match=r"item 0\b.*\b2\b"):
        extractor.fit([torch.stack([motion(20), motion(20)])])
    assert not extractor.is_fitted and extractor.statistics_hash is None


def test_without_statistics_nothing_is_normalised():
    extractor = LexMotionFeatureExtractor()
    values = extractor(motion(20), fps=20)["motion_values"][0]
    torch.testing.assert_close(values, canonicalize(motion(20)).flatten(1))
    assert extractor.denormalize(values) is values


def test_denormalize_keeps_the_kind_of_array(fitted):
    extractor = fitted["positions", "humanml3d"]
    values = extractor(motion(20), fps=20)["motion_values"]
    restored = extractor.denormalize(values.numpy())
    assert isinstance(restored, np.ndarray) and restored.dtype == np.float32
    np.testing.assert_allclose(restored, extractor.denormalize(values).numpy(), atol=1e-6)
    torch.testing.assert_close(extractor.values_to_positions(values)[0], canonicalize(motion(20)), atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match=r"\(1, 20, 3\).*\b66\)"):
        extractor.denormalize(values[..., :3])


# ---------------------------------------------------------------------------------------------------------------------
# Saving
# ---------------------------------------------------------------------------------------------------------------------


@representations
@layouts
def test_saved_and_loaded_is_bit_equal(fitted, tmp_path, representation, skeleton):
    extractor = fitted[representation, skeleton]
    extractor.save_pretrained(tmp_path)
    loaded = LexMotionFeatureExtractor.from_pretrained(tmp_path)
    assert loaded.to_dict() == extractor.to_dict() and loaded.statistics_hash == extractor.statistics_hash
    clip = motion(30, 9, skeleton)
    expected = extractor(clip, fps=extractor.fps)["motion_values"]
    assert torch.equal(loaded(clip, fps=extractor.fps)["motion_values"], expected)
    assert LexMotionFeatureExtractor.from_pretrained(tmp_path, max_frames=12).max_frames == 12


def test_target_skeleton_is_saved(tmp_path):
    extractor = LexMotionFeatureExtractor("humanml3d", target_skeleton=motion(1)[0]).fit([motion(30)])
    extractor.save_pretrained(tmp_path)
    assert LexMotionFeatureExtractor.from_pretrained(tmp_path).target_skeleton == motion(1)[0].tolist()


def test_changed_statistics_are_noticed(fitted, tmp_path):
    extractor = fitted["positions", "humanml3d"]
    extractor.save_pretrained(tmp_path)
    file = tmp_path / "preprocessor_config.json"
    content = json.loads(file.read_text())
    content["mean"][0] += 1.0
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="statistics_hash=None"):
        LexMotionFeatureExtractor.from_pretrained(tmp_path)
    assert LexMotionFeatureExtractor.from_pretrained(tmp_path, statistics_hash=None).is_fitted


def test_hash_depends_on_what_the_statistics_depend_on(fitted):
    extractor = fitted["positions", "humanml3d"]
    content = {**extractor.to_dict(), "statistics_hash": None}
    assert LexMotionFeatureExtractor(**content).statistics_hash == extractor.statistics_hash
    assert LexMotionFeatureExtractor(**{**content, "fps": 10.0}).statistics_hash != extractor.statistics_hash
    assert LexMotionFeatureExtractor(**{**content, "max_frames": 9}).statistics_hash == extractor.statistics_hash
