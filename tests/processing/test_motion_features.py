"""Motion features: equal to the published ones, invariant where they should be, defined for degenerate motion."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lexmotion.processing import motion_features
from lexmotion.processing.motion_features import (
    canonicalize,
    features_to_positions,
    mirror_positions,
    positions_to_features,
    resample_positions,
    rotate_yaw,
)
from lexmotion.processing.skeletons import SKELETONS, get_skeleton

ROOT = Path(__file__).resolve().parents[2]
SHARED = next((folder for folder in (ROOT / "shared", ROOT.parent / "shared") if folder.is_dir()), ROOT / "shared")
REFERENCE = SHARED / "reference" / "humanml3d_features"
SAMPLES = SHARED / "reference" / "official_samples"
skeletons = pytest.mark.parametrize("name", list(SKELETONS))
few = settings(max_examples=10, deadline=None)


def rest_pose(name, scale=1.0):
    """A standing body (J, 3) that faces Z+ in the published sense."""
    skeleton = get_skeleton(name)
    pose = torch.zeros(skeleton.num_joints, 3, dtype=torch.float64)
    side = 1.0 if name == "humanml3d" else -1.0  # KIT's rest directions have the sides the other way round
    for chain in skeleton.chains:
        for parent, joint in zip(chain[:-1], chain[1:], strict=True):
            length = (
                0.05 if joint in skeleton.face_joints[:2] else 0.1 + 0.02 * (joint % 5)
            )  # hips narrower than shoulders
            bone = torch.tensor(skeleton.raw_offsets[joint], dtype=torch.float64) * length
            pose[joint] = pose[parent] + bone * torch.tensor([side, 1.0, 1.0])
    return pose * scale / skeleton.metres_per_unit


def random_motion(name, num_frames, seed, sway=0.15):
    """A smooth walk-like motion (T, J, 3) in float64: every joint sways about the rest pose, the root travels."""
    generator = torch.Generator().manual_seed(seed)
    pose = rest_pose(name)
    unit = 1.0 / get_skeleton(name).metres_per_unit
    time = torch.arange(num_frames, dtype=torch.float64)[:, None, None] / 20
    shape = (1, *pose.shape)
    frequency = 1 + 2 * torch.rand(shape, generator=generator, dtype=torch.float64)
    phase = 6.3 * torch.rand(shape, generator=generator, dtype=torch.float64)
    amplitude = 0.2 * sway * torch.rand(shape, generator=generator, dtype=torch.float64)
    travel = torch.randn(3, generator=generator, dtype=torch.float64) * torch.tensor([0.5, 0.0, 1.0])
    return pose + unit * (amplitude * torch.sin(frequency * time + phase) + travel * time)


# ---------------------------------------------------------------------------------------------------------------------
# Agreement with the published code
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="reference features are not at hand (shared/reference)")
def test_reproduces_reference_files():
    target = torch.from_numpy(np.load(REFERENCE / "target_skeleton.npy", allow_pickle=False))
    clips = [np.load(path, allow_pickle=False) for path in sorted(REFERENCE.glob("*.npz"))]
    assert clips
    lengths = torch.tensor([len(clip["positions"]) for clip in clips])
    positions = torch.full((len(clips), int(lengths.max()), 22, 3), torch.nan)
    for row, clip in zip(positions, clips, strict=True):
        row[: len(clip["positions"])] = torch.from_numpy(clip["positions"])
    for dtype in (torch.float32, torch.float64):
        features, feature_lengths = positions_to_features(positions.to(dtype), "humanml3d", lengths, target)
        assert features.dtype == dtype
        for ours, length, clip in zip(features, feature_lengths, clips, strict=True):
            ours, expected = ours[:length], torch.from_numpy(clip["features"])
            assert ours.shape == expected.shape
            assert ((ours - expected).abs() < 1e-3).double().mean() >= 0.999
            assert (ours[:, -4:] == expected[:, -4:]).double().mean() >= 0.999
            assert (features_to_positions(ours) - torch.from_numpy(clip["joints"])).abs().max() < 1e-3


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="published samples are not at hand (shared/reference)")
@pytest.mark.parametrize("sample", ["012314", "000000"])
def test_round_trips_published_samples(sample):
    features = torch.from_numpy(np.load(SAMPLES / f"new_joint_vecs_{sample}.npy", allow_pickle=False))
    joints = torch.from_numpy(np.load(SAMPLES / f"new_joints_{sample}.npy", allow_pickle=False))
    assert (features_to_positions(features) - joints).abs().max() < 1e-5
    again = positions_to_features(joints)
    assert (features_to_positions(again) - joints[:-1]).abs().max() < 1e-5
    # The last frames' headings are smoothed over a frame that the published joints no longer have.
    inner = slice(0, len(again) - motion_features.HEADING_RADIUS)
    assert (again[inner] - features[:-1][inner]).abs().max() < 1e-3


def naive_features(positions, skeleton, target):
    """The published procedure frame by frame and joint by joint, in numpy: retarget, place, describe."""

    def product(a, b):
        w = a[0] * b[0] - a[1:] @ b[1:]
        return np.concatenate([[w], a[0] * b[1:] + b[0] * a[1:] + np.cross(a[1:], b[1:])])

    def inverse(q):
        return q * np.array([1, -1, -1, -1])

    def rotate(q, v):
        return product(product(q, np.concatenate([[0], v])), inverse(q))[1:]

    def between(u, v):
        q = np.concatenate([[1 + u @ v], np.cross(u, v)])
        return q / np.linalg.norm(q)

    def unit(v):
        return v / np.linalg.norm(v)

    rest, parents = np.array(skeleton.raw_offsets), skeleton.parents
    up, front = np.array([0.0, 1.0, 0.0]), np.array([0.0, 0.0, 1.0])
    one, two, three, four = skeleton.face_joints

    if target is not None:
        leg = list(skeleton.leg_joints)

        def size(pose):
            return sum(np.linalg.norm(pose[joint] - pose[parents[joint]]) for joint in leg)

        scale = size(target) / size(positions[0])
        moved = np.zeros_like(positions)
        for frame, joints in enumerate(positions):
            moved[frame, 0] = joints[0] * scale
            for chain in skeleton.chains:
                for parent, joint in zip(chain[:-1], chain[1:], strict=True):
                    turn = between(rest[joint], unit(joints[joint] - joints[parent]))
                    bone = rest[joint] * np.linalg.norm(target[joint] - target[parent])
                    moved[frame, joint] = moved[frame, parent] + rotate(turn, bone)
        positions = moved

    positions = positions.copy()
    positions[..., 1] -= positions[..., 1].min()
    positions -= positions[0, 0] * np.array([1, 0, 1])
    first = positions[0]
    across = unit(first[one] - first[two] + first[three] - first[four])
    start = between(unit(np.cross(up, across)), front)
    positions = np.array([[rotate(start, joint) for joint in joints] for joints in positions])

    forward = []
    for joints in positions:
        across = unit(joints[two] - joints[one] + joints[three] - joints[four])
        forward.append(np.cross(up, across))
    steps = np.arange(-80, 81)
    kernel = np.exp(-0.5 * (steps / 20) ** 2)
    kernel /= kernel.sum()
    heading = []
    for frame in range(len(positions)):
        near = np.clip(frame + steps, 0, len(positions) - 1)
        heading.append(between(unit(kernel @ np.array(forward)[near]), front))
    heading[0] = np.array([1.0, 0, 0, 0])

    rows = []
    for frame in range(len(positions) - 1):
        joints, following, turn = positions[frame], positions[frame + 1], heading[frame]
        spin = np.arcsin(product(heading[frame + 1], inverse(turn))[2])
        travel = rotate(heading[frame + 1], following[0] - joints[0])
        local = [rotate(turn, joint - joints[0] * np.array([1, 0, 1])) for joint in joints[1:]]
        rotations = np.zeros((skeleton.num_joints, 6))
        for chain in skeleton.chains:
            accumulated = turn
            for parent, joint in zip(chain[:-1], chain[1:], strict=True):
                whole = between(rest[joint], unit(joints[joint] - joints[parent]))
                relative = product(inverse(accumulated), whole)
                rotations[joint] = np.concatenate([rotate(relative, axis) for axis in np.eye(3)[:2]])
                accumulated = product(accumulated, relative)
        velocity = [rotate(turn, after - before) for before, after in zip(joints, following, strict=True)]
        contacts = [
            ((following[joint] - joints[joint]) ** 2).sum() < skeleton.foot_velocity_threshold
            for joint in skeleton.contact_joints
        ]
        parts = [[spin, travel[0], travel[2], joints[0, 1]], *local, *rotations[1:], *velocity, contacts]
        rows.append(np.concatenate(parts))
    return np.array(rows)


@skeletons
@pytest.mark.parametrize("retarget", [False, True])
def test_equals_the_procedure_joint_by_joint(name, retarget):
    skeleton = get_skeleton(name)
    motion = random_motion(name, 12, seed=3)
    motion = rotate_yaw(motion[None], torch.tensor([0.8]))[0]
    target = rest_pose(name, scale=1.3) if retarget else None
    expected = naive_features(motion.numpy(), skeleton, None if target is None else target.numpy())
    features = positions_to_features(motion, name, target_skeleton=target)
    unit = 1.0 / skeleton.metres_per_unit
    np.testing.assert_allclose(features.numpy(), expected, atol=1e-9 * unit)


# ---------------------------------------------------------------------------------------------------------------------
# Invariances
# ---------------------------------------------------------------------------------------------------------------------


@skeletons
@few
@given(seed=st.integers(0, 1000), angle=st.floats(-7, 7), shift=st.tuples(*[st.floats(-5, 5)] * 3))
def test_features_ignore_where_a_clip_starts(name, seed, angle, shift):
    motion = random_motion(name, 20, seed)
    moved = rotate_yaw(motion[None], torch.tensor([angle]))[0] + torch.tensor(shift, dtype=torch.float64)
    for target in (None, rest_pose(name, 0.9)):
        features = positions_to_features(motion, name, target_skeleton=target)
        torch.testing.assert_close(
            positions_to_features(moved, name, target_skeleton=target), features, atol=1e-7, rtol=1e-6
        )
    torch.testing.assert_close(canonicalize(moved, name), canonicalize(motion, name), atol=1e-7, rtol=1e-6)


@skeletons
@few
@given(seed=st.integers(0, 1000), lengths=st.lists(st.integers(2, 40), min_size=1, max_size=5))
def test_padding_changes_nothing(name, seed, lengths):
    clips = [random_motion(name, length, seed + row).float() for row, length in enumerate(lengths)]
    batch = torch.full((len(clips), max(lengths) + 3, *clips[0].shape[1:]), torch.nan)
    for row, clip in zip(batch, clips, strict=True):
        row[: len(clip)] = clip
    features, feature_lengths = positions_to_features(batch, name, torch.tensor(lengths))
    placed = canonicalize(batch, name, torch.tensor(lengths))
    tolerance = {"atol": 1e-5 / get_skeleton(name).metres_per_unit, "rtol": 1e-5}
    for row, length in enumerate(lengths):
        assert feature_lengths[row] == length - 1
        torch.testing.assert_close(features[row, : length - 1], positions_to_features(clips[row], name), **tolerance)
        assert not features[row, length - 1 :].any()
        torch.testing.assert_close(placed[row, :length], canonicalize(clips[row], name), **tolerance)
        assert torch.equal(placed[row, length:], placed[row, length - 1].expand_as(placed[row, length:]))


def test_large_batches_are_worked_on_in_pieces(monkeypatch):
    batch = torch.stack([random_motion("humanml3d", 15, seed) for seed in range(7)])
    whole = positions_to_features(batch)
    monkeypatch.setattr(motion_features, "CHUNK_FRAMES", 31)
    torch.testing.assert_close(positions_to_features(batch), whole)


@skeletons
@few
@given(seed=st.integers(0, 1000))
def test_mirroring_twice_is_identity(name, seed):
    motion = random_motion(name, 6, seed)
    mirrored = mirror_positions(motion, name)
    assert not torch.equal(mirrored, motion)
    assert torch.equal(mirror_positions(mirrored, name), motion)


@skeletons
def test_mirroring_swaps_sides_of_features(name):
    skeleton = get_skeleton(name)
    motion = random_motion(name, 20, seed=5)
    features = positions_to_features(motion, name)
    mirrored = positions_to_features(mirror_positions(motion, name), name)
    sign = torch.tensor([-1.0, -1.0, 1.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(mirrored[:, :4], features[:, :4] * sign, atol=1e-9, rtol=1e-6)
    part = skeleton.feature_slices["velocities"]
    velocities = features[:, part].unflatten(1, (-1, 3))
    torch.testing.assert_close(
        mirrored[:, part].unflatten(1, (-1, 3)), mirror_positions(velocities, name), atol=1e-9, rtol=1e-6
    )
    assert torch.equal(mirrored[:, -4:], features[:, [-2, -1, -4, -3]])


@skeletons
@few
@given(seed=st.integers(0, 1000), angle=st.floats(-3, 3))
def test_positions_come_back(name, seed, angle):
    motion = rotate_yaw(random_motion(name, 30, seed)[None], torch.tensor([angle]))[0]
    recovered = features_to_positions(positions_to_features(motion, name), name)
    torch.testing.assert_close(recovered, canonicalize(motion, name)[:-1], atol=1e-7, rtol=1e-7)


def test_retargeting_sets_bone_lengths():
    skeleton = get_skeleton("humanml3d")
    target = rest_pose("humanml3d", 1.7)
    hands = torch.cat([target, torch.randn(30, 3, dtype=torch.float64)])
    features = positions_to_features(random_motion("humanml3d", 10, 0), target_skeleton=hands)
    joints = features_to_positions(features)
    parents = list(skeleton.parents[1:])
    lengths = (joints[:, 1:] - joints[:, parents]).norm(dim=-1)
    expected = (target[1:] - target[parents]).norm(dim=-1)
    torch.testing.assert_close(lengths, expected.expand_as(lengths))


def test_dtypes_agree_and_input_is_untouched():
    motion = random_motion("humanml3d", 30, 1)
    kept = motion.clone()
    double = positions_to_features(motion)
    assert double.dtype == torch.float64
    assert torch.equal(motion, kept)
    single = positions_to_features(motion.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single, double.float(), atol=1e-4, rtol=1e-4)
    assert torch.equal(positions_to_features(motion.float().numpy()), single)
    assert positions_to_features(motion.half()).dtype == torch.float32
    assert features_to_positions(double).dtype == torch.float64


def test_recovery_is_causal_batched_and_differentiable():
    motions = torch.stack([random_motion("humanml3d", 16, seed) for seed in range(4)])
    features = positions_to_features(motions)
    whole = features_to_positions(features.view(2, 2, 15, 263))
    assert whole.shape == (2, 2, 15, 22, 3)
    torch.testing.assert_close(features_to_positions(features[3, :9]), whole[1, 1, :9])
    features.requires_grad_()
    features_to_positions(features).square().sum().backward()
    assert features.grad[:, :, 67:].abs().sum() == 0
    assert features.grad[:, :-1, :67].abs().sum(dim=(0, 1)).min() > 0


# ---------------------------------------------------------------------------------------------------------------------
# Degenerate input
# ---------------------------------------------------------------------------------------------------------------------


def check_sound(features, name="humanml3d"):
    """All values finite, and every 6-D rotation two orthonormal columns."""
    skeleton = get_skeleton(name)
    assert torch.isfinite(features).all()
    columns = features[:, skeleton.feature_slices["rotations"]].unflatten(1, (-1, 2, 3))
    expected = torch.eye(2, dtype=features.dtype).expand(*columns.shape[:2], 2, 2)
    torch.testing.assert_close(columns @ columns.mT, expected, atol=1e-5, rtol=1e-5)


@skeletons
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zero_length_bones_have_identity_rotation(name, dtype):
    skeleton = get_skeleton(name)
    motion = random_motion(name, 10, 2).to(dtype)
    chain = skeleton.chains[1]
    motion[:, chain[1]] = motion[:, 0]  # first bone of a chain
    motion[:, chain[-1]] = motion[:, chain[-2]] = motion[:, chain[-3]]  # two in a row at its end
    for target in (None, rest_pose(name, 1.2)):
        features = positions_to_features(motion, name, target_skeleton=target)
        check_sound(features, name)
        rotations = features[:, skeleton.feature_slices["rotations"]].unflatten(1, (-1, 6))
        for joint in (chain[1], chain[-2], chain[-1]):
            identity = torch.tensor([1.0, 0, 0, 0, 1, 0], dtype=dtype).expand(9, 6)
            torch.testing.assert_close(rotations[:, joint - 1], identity)
        recovered = features_to_positions(features, name)
        tolerance = 1e-4 / skeleton.metres_per_unit
        assert (recovered[:, chain[-1]] - recovered[:, chain[-3]]).abs().max() < tolerance


@skeletons
def test_all_joints_in_one_point(name):
    features = positions_to_features(torch.ones(5, get_skeleton(name).num_joints, 3), name, None, rest_pose(name))
    check_sound(features, name)
    assert not features[:, :4].any()
    assert (features[:, -4:] == 1).all()


@skeletons
@pytest.mark.parametrize("axis", [0, 2])
@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_lying_and_inverted_bodies(name, axis, quarters):
    # Quarter turns about X (on the back, on the head, on the face) and Z (on the sides, upside down), exactly.
    motion = random_motion(name, 12, 4)
    first, second = [other for other in range(3) if other != axis]
    for _ in range(quarters):
        turned = motion.clone()
        turned[..., first], turned[..., second] = -motion[..., second], motion[..., first]
        motion = turned
    features = positions_to_features(motion, name)
    check_sound(features, name)
    check_sound(positions_to_features(motion.float(), name, target_skeleton=rest_pose(name)), name)
    bones = [(motion[:, child] - motion[:, parent]).norm(dim=-1)[:-1] for parent, child in get_skeleton(name).bones]
    recovered = features_to_positions(features, name)
    for (parent, child), expected in zip(get_skeleton(name).bones, bones, strict=True):
        torch.testing.assert_close((recovered[:, child] - recovered[:, parent]).norm(dim=-1), expected)


@skeletons
def test_without_heading_a_clip_faces_forward(name):
    # Hips and shoulders on one vertical line: no heading anywhere.
    motion = random_motion(name, 8, 6)
    motion[..., list(get_skeleton(name).face_joints), 0] = 0.0
    motion[..., list(get_skeleton(name).face_joints), 2] = 0.0
    features = positions_to_features(motion, name)
    check_sound(features, name)
    assert not features[:, 0].any()
    torch.testing.assert_close(features_to_positions(features, name), canonicalize(motion, name)[:-1])


def test_bones_opposite_to_rest_turn_by_half():
    skeleton = get_skeleton("humanml3d")
    upright = rest_pose("humanml3d")
    upside_down = upright.clone()
    for parent, joint in skeleton.bones:
        upside_down[joint] = upside_down[parent] - torch.tensor(skeleton.raw_offsets[joint]) * 0.2
    features = positions_to_features(upside_down.expand(4, -1, -1))
    check_sound(features)
    # The left knee's bone points up instead of down: relative to the hip, which is turned by half itself.
    torch.testing.assert_close(features_to_positions(features), canonicalize(upside_down.expand(4, -1, -1))[:-1])


def test_too_few_frames():
    with pytest.raises(ValueError, match=r"(?i)clip 0\b.*\b1\b.*\b2\b"):
        positions_to_features(torch.zeros(1, 22, 3))
    with pytest.raises(ValueError, match=r"(?i)clip 1\b.*\b1\b.*\b2\b"):
        positions_to_features(torch.zeros(2, 5, 22, 3), lengths=torch.tensor([5, 1]))
    assert canonicalize(rest_pose("humanml3d")[None]).shape == (1, 22, 3)
    with pytest.raises(ValueError, match=r"(?i)clip 0\b.*\b0\b.*\b1\b"):
        canonicalize(torch.zeros(0, 22, 3))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_missing_values_name_clip_and_frame(value):
    batch = torch.stack([random_motion("humanml3d", 9, seed) for seed in range(3)])
    batch[2, 4, 10, 1] = value
    for function in (positions_to_features, canonicalize):
        with pytest.raises(ValueError, match=r"(?i)clip 2\b.*frame 4\b.*\b10\b.*left_foot"):
            function(batch)
    features, _ = positions_to_features(batch, lengths=torch.tensor([9, 9, 4]))
    assert torch.isfinite(features).all()


def test_wrong_shapes():
    with pytest.raises(ValueError, match=r"\(10, 21, 3\).*\(frames, 22, 3\)"):
        positions_to_features(torch.zeros(10, 21, 3))
    with pytest.raises(ValueError, match="251.*263"):
        features_to_positions(torch.zeros(10, 251))
    with pytest.raises(ValueError, match=r"\b3\b.*\b2\b"):
        positions_to_features(torch.zeros(2, 5, 22, 3), lengths=torch.tensor([5, 5, 5]))
    with pytest.raises(ValueError, match=r"(?i)clip 1\b.*\b6\b.*\b5\b"):
        positions_to_features(torch.zeros(2, 5, 22, 3), lengths=torch.tensor([5, 6]))
    with pytest.raises(ValueError, match=r"\(21, 3\).*\(22, 3\)"):
        positions_to_features(torch.zeros(5, 22, 3), target_skeleton=torch.zeros(21, 3))
    with pytest.raises(ValueError, match=r"target.skeleton.*NaN"):
        positions_to_features(torch.zeros(5, 22, 3), target_skeleton=torch.full((22, 3), torch.nan))
    with pytest.raises(ValueError, match=r"\(5, 21, 3\).*22, 3\)"):
        mirror_positions(torch.zeros(5, 21, 3))
    assert positions_to_features(torch.zeros(0, 5, 22, 3)).shape == (0, 4, 263)


# ---------------------------------------------------------------------------------------------------------------------
# Placing, turning, resampling
# ---------------------------------------------------------------------------------------------------------------------


@skeletons
def test_canonical_clips(name):
    skeleton = get_skeleton(name)
    motion = rotate_yaw(random_motion(name, 25, 8)[None], torch.tensor([2.0]))[0] + 3.0
    placed = canonicalize(motion, name)
    assert placed[..., 1].min() == 0
    assert placed[0, 0, [0, 2]].abs().max() < 1e-9
    one, two, three, four = skeleton.face_joints
    across = placed[0, one] - placed[0, two] + placed[0, three] - placed[0, four]
    forward = torch.linalg.cross(torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64), across)
    assert forward[2] > 0
    assert abs(forward[0]) < 1e-9 * forward[2]
    torch.testing.assert_close(canonicalize(placed, name), placed)


def test_rotate_yaw():
    point = torch.tensor([0.0, 1.0, 2.0]).expand(2, 1, 1, 3)
    turned = rotate_yaw(point, torch.tensor([0.0, math.pi / 2]))
    torch.testing.assert_close(turned[:, 0, 0], torch.tensor([[0.0, 1.0, 2.0], [2.0, 1.0, 0.0]]))
    with pytest.raises(ValueError, match=r"angle.*\(2, 1, 1, 3\).*\b1\b"):
        rotate_yaw(point, torch.tensor([1.0]))


def test_resampling():
    line = torch.arange(11, dtype=torch.float64)[:, None, None] * torch.tensor([1.0, 2.0, -1.0])
    halved = resample_positions(line, 20, 10)
    torch.testing.assert_close(halved, line[::2])
    torch.testing.assert_close(resample_positions(line, 10, 20)[::2], line)
    # Linear motion stays linear at any rate, and never goes past the last frame.
    kit = resample_positions(line, 20.0, 12.5)
    torch.testing.assert_close(kit[:, 0, 0], torch.arange(7, dtype=torch.float64) * 1.6)
    rounded = resample_positions(line, 1 / 0.0333333, 15)  # the frame time of a file, in seven digits
    torch.testing.assert_close(rounded, line[::2], atol=1e-4, rtol=0)
    assert resample_positions(line, 20, 20) is line
    assert len(resample_positions(line[:1], 20, 50)) == 1
    with pytest.raises(ValueError, match=r"^fps\b.*\b0\b"):
        resample_positions(line, 0, 20)
    with pytest.raises(ValueError, match="target_fps.*nan"):
        resample_positions(line, 20, math.nan)
    with pytest.raises(ValueError, match=r"\(0, 1, 3\).*frames, joints, 3\)"):
        resample_positions(line[:0], 20, 10)


@few
@given(num_frames=st.integers(2, 60), rate=st.sampled_from([10, 12.5, 25, 30, 59.94, 60, 100, 120]))
def test_resampling_keeps_duration(num_frames, rate):
    motion = torch.randn(num_frames, 2, 3)
    resampled = resample_positions(motion, rate, 20)
    assert -1e-4 < (num_frames - 1) / rate - (len(resampled) - 1) / 20 < 1 / 20
    assert torch.equal(resampled[0], motion[0])
