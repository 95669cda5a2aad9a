"""Joint angles: invariant to where a body stands, mirrored with it, continuous, and what anatomy calls them."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lexmotion.processing import joint_angles
from lexmotion.processing.feature_extraction_lexmotion import LexMotionFeatureExtractor
from lexmotion.processing.joint_angles import (
    column_names,
    direction_columns,
    part_columns,
    positions_to_joint_angles,
)
from lexmotion.processing.motion_features import mirror_positions, positions_to_features, rotate_yaw
from lexmotion.processing.skeletons import JOINT_PARTS, SKELETONS, get_skeleton, part_names

skeletons = pytest.mark.parametrize("name", list(SKELETONS))
few = settings(max_examples=15, deadline=None)
NAMED_BONES = {"hip": (0.1, 0.0, 0.0), "shoulder": (0.15, 0.0, 0.0), "collar": (0.05, 0.1, 0.0), "foot": (0, 0, 0.1)}


def standing(name):
    """A body (J, 3) float64 in metres: arms sideways, facing Z+, left at the side where its layout has it."""
    layout = get_skeleton(name)
    left = -1.0 if name == "kit-ml" else 1.0
    pose = torch.zeros(layout.num_joints, 3, dtype=torch.float64)
    for parent, joint in sorted(
        layout.bones, key=lambda bone: [c.index(bone[1]) for c in layout.chains if bone[1] in c]
    ):
        side, _, label = layout.joint_names[joint].rpartition("_")
        if label in ("knee", "ankle"):
            bone = (0.0, -0.4, 0.0)
        elif label in ("elbow", "wrist"):
            bone = (0.25, 0.0, 0.0)
        else:
            bone = NAMED_BONES.get(label, (0.0, 0.0, 0.1) if label == "midfoot" else (0.0, 0.12, 0.0))
        across = left * (-1.0 if side == "right" else 1.0)
        pose[joint] = pose[parent] + torch.tensor(bone, dtype=torch.float64) * torch.tensor([across, 1.0, 1.0])
    return pose


def swaying(name, num_frames=20, seed=0, sway=0.05):
    """A travelling, turning body (T, J, 3) float64 whose joints all sway."""
    generator = torch.Generator().manual_seed(seed)
    pose = standing(name)
    draw = torch.rand(3, *pose.shape, generator=generator, dtype=torch.float64)
    time = torch.arange(num_frames, dtype=torch.float64)[:, None, None] / 20
    motion = pose + sway * draw[0] * torch.sin((1 + 2 * draw[1]) * time + 6 * draw[2])
    motion += time * torch.tensor([0.3, 0.05, 0.9], dtype=torch.float64)
    return torch.cat([rotate_yaw(frame[None, None], [0.08 * step])[0] for step, frame in enumerate(motion)])


def value(values, column, name="humanml3d"):
    """A column by its name, or the three of a vector."""
    names = column_names(name)
    if column in names:
        return values[..., names.index(column)]
    return torch.stack([values[..., at] for at, known in enumerate(names) if known.rpartition("_")[0] == column], -1)


@skeletons
def test_parts_share_the_columns_among_them(name):
    parts, names = part_columns(name), column_names(name)
    assert len(parts) == len(JOINT_PARTS) == 14
    assert sorted(column for part in parts for column in part) == list(range(len(names)))
    assert len(set(names)) == len(names)
    assert all(
        names[column].startswith(part) for part, columns in zip(JOINT_PARTS, parts, strict=True) for column in columns
    )
    assert part_names(14)[3] == "neck head" and part_names(5)[2] == "torso" and part_names(2) == ["part 1", "part 2"]


@skeletons
def test_directions_are_unit_vectors(name):
    values = positions_to_joint_angles(swaying(name), name)
    directions = values[..., direction_columns(name)].unflatten(-1, (-1, 3))
    torch.testing.assert_close(directions.norm(dim=-1), torch.ones_like(directions[..., 0]))


@skeletons
@few
@given(st.floats(-math.pi, math.pi), st.floats(-5, 5), st.floats(0.3, 3.0), st.integers(0, 99))
def test_place_heading_and_size_do_not_matter(name, angle, shift, scale, seed):
    motion = swaying(name, seed=seed)
    values = positions_to_joint_angles(motion, name)
    moved = rotate_yaw(motion[None], [angle])[0] + torch.tensor([shift, -shift, 2 * shift], dtype=torch.float64)
    torch.testing.assert_close(positions_to_joint_angles(moved, name), values, atol=1e-9, rtol=0)
    sized = positions_to_joint_angles(scale * motion, name)
    metres = [column for column, label in enumerate(column_names(name)) if "height" in label or "velocity" in label]
    values[:, metres] *= scale
    torch.testing.assert_close(sized, values, atol=1e-9, rtol=0)


@skeletons
def test_mirroring_swaps_the_sides_and_turns_what_points_left(name):
    names = column_names(name)
    opposite = {"left": "right", "right": "left"}
    source, sign = [], []
    for label in names:
        side, _, rest = label.partition("_")
        source.append(names.index(f"{opposite[side]}_{rest}" if side in opposite else label))
        pointing = label.endswith("_left") or label == "pelvis_turn"
        # The chest's left is itself mirrored: it is its other components that turn.
        sign.append(-1.0 if pointing != label.startswith("chest_left_") else 1.0)
    motion = swaying(name, seed=3)
    expected = positions_to_joint_angles(motion, name)[:, source] * torch.tensor(sign, dtype=torch.float64)
    torch.testing.assert_close(positions_to_joint_angles(mirror_positions(motion, name), name), expected)
    assert (expected - positions_to_joint_angles(motion, name)).abs().max() > 0.05


@skeletons
def test_known_poses(name):
    layout = get_skeleton(name)
    left = -1.0 if name == "kit-ml" else 1.0
    at = {joint: number for number, joint in enumerate(layout.joint_names)}

    def angles(**bones):
        """Left limbs with some bones pointing elsewhere: left, up, forward."""
        pose = standing(name)
        for joint, bone in bones.items():
            number = at[f"left_{joint}"]
            turned = torch.tensor(bone, dtype=torch.float64) * torch.tensor([left, 1.0, 1.0])
            below = [number]
            below += [j for j in range(layout.num_joints) if layout.parents[j] in below and j != number]
            below += [j for j in range(layout.num_joints) if layout.parents[j] in below and j not in below]
            pose[below] += pose[layout.parents[number]] + turned - pose[number]
        values = positions_to_joint_angles(pose.expand(3, -1, -1), name)[0]
        return lambda column: [round(float(x), 6) + 0.0 for x in value(values, f"left_{column}", name).reshape(-1)]

    rest = angles()
    assert rest("knee_ankle_flexion") == rest("elbow_wrist_flexion") == [0.0]
    assert rest("shoulder_upper_arm") == [1.0, 0.0, 0.0] and rest("hip_thigh") == [0.0, -1.0, 0.0]
    assert rest("knee_ankle_foot") == [0.0, 0.0, 1.0]

    kneeling = angles(ankle=(0, 0, -0.4))
    assert kneeling("knee_ankle_flexion") == [round(math.pi / 2, 6)]
    assert kneeling("hip_rotation") == [0.0, -1.0] and kneeling("hip_thigh") == [0.0, -1.0, 0.0]
    turned_out = angles(ankle=(-0.4, 0, 0))  # the shank points across the body: the thigh is turned outwards
    assert turned_out("hip_rotation") == [-1.0, 0.0] and turned_out("knee_ankle_flexion") == [round(math.pi / 2, 6)]

    hanging = angles(elbow=(0, -0.25, 0), wrist=(0, 0, 0.25))
    assert hanging("shoulder_upper_arm") == [0.0, -1.0, 0.0]
    assert hanging("shoulder_rotation") == [0.0, 1.0]
    assert hanging("elbow_wrist_flexion") == [round(math.pi / 2, 6)]
    assert hanging("elbow_wrist_forearm") == [0.0, 0.0, 1.0]


def test_the_root_is_measured_where_the_body_faces():
    pose, quarter = standing("humanml3d"), 3
    steps = torch.tensor([[0.1, 0.0, 0.0], [0.1, 0.02, 0.0], [0.2, 0.02, 0.0]], dtype=torch.float64)  # along X+
    motion = rotate_yaw(pose.expand(1, quarter, -1, -1), [math.pi / 2])[0] + steps[:, None]  # facing X+
    values = positions_to_joint_angles(motion)
    torch.testing.assert_close(
        value(values, "pelvis_velocity"), torch.tensor([[0.0, 0.02, 0.0], [0.0, 0.0, 0.1]], dtype=torch.float64)
    )
    assert value(values, "pelvis_height")[0] == pytest.approx(0.8)
    turning = torch.cat([rotate_yaw(pose[None, None], [angle])[0] for angle in (3.0, 3.1, 3.3, 3.2)])
    torch.testing.assert_close(
        value(positions_to_joint_angles(turning), "pelvis_turn"), torch.tensor([0.1, 0.2, -0.1], dtype=torch.float64)
    )


def test_kit_is_the_same_body_with_left_at_the_other_side():
    """A left arm raised reads the same in both layouts, though the coordinates are mirror images."""
    raised = {}
    for name in SKELETONS:
        pose = standing(name)
        joints = get_skeleton(name).joint_names
        pose[joints.index("left_wrist")] = pose[joints.index("left_elbow")] + torch.tensor([0, 0.25, 0])
        values = positions_to_joint_angles(pose.expand(2, -1, -1), name)[0]
        raised[name] = [
            values[column_names(name).index(f"{side}_elbow_wrist_forearm_up")] for side in ("left", "right")
        ]
    assert raised["humanml3d"] == pytest.approx([1.0, 0.0]) and raised["kit-ml"] == pytest.approx([1.0, 0.0])


@skeletons
def test_nothing_jumps_when_a_limb_goes_round(name):
    """Every column moves little between near poses, where an angle would wrap."""
    at = {joint: number for number, joint in enumerate(get_skeleton(name).joint_names)}
    turn = torch.linspace(0, 2 * math.pi, 400, dtype=torch.float64)
    circle = torch.stack([0 * turn, turn.sin(), turn.cos()], dim=-1)
    motion = standing(name).repeat(len(turn), 1, 1)
    for side in ("left", "right"):  # arms circle forwards with the elbows bent
        motion[:, at[f"{side}_elbow"]] = motion[:, at[f"{side}_shoulder"]] + 0.3 * circle
        motion[:, at[f"{side}_wrist"]] = motion[:, at[f"{side}_elbow"]] + 0.2 * circle.roll(100, dims=0)
    motion = rotate_yaw(motion[:, None], turn)[:, 0]
    values = positions_to_joint_angles(motion, name)
    assert values.diff(dim=0).abs().max() < 0.05
    assert (values.amax(dim=0) - values.amin(dim=0)).max() > 1.9


@skeletons
@pytest.mark.parametrize("flat", ["point", "limbs", "line", "overhead"])
def test_degenerate_bodies_are_finite(name, flat):
    motion = swaying(name)
    layout = get_skeleton(name)
    if flat == "point":
        motion = motion[:, :1].expand(-1, layout.num_joints, -1)
    elif flat == "limbs":
        for _ in range(3):
            for joint, parent in enumerate(layout.parents):
                if layout.joint_names[joint].endswith(("elbow", "wrist", "knee", "ankle", "foot")):
                    motion[:, joint] = motion[:, parent]
    elif flat == "line":
        motion[..., 0] = motion[..., 2] = 0.0
    else:
        motion = standing(name).repeat(4, 1, 1)
        motion[:, [layout.joint_names.index(f"{side}_knee") for side in ("left", "right")], 1] = 0.4
    values = positions_to_joint_angles(motion.float(), name)
    assert torch.isfinite(values).all()
    if flat == "limbs":
        assert value(values, "left_knee_ankle_flexion", name).abs().max() < 1e-6


@skeletons
def test_padding_batch_and_chunks_do_not_matter(name, monkeypatch):
    clips = [swaying(name, length, seed).float() for seed, length in enumerate((20, 9, 2))]
    padded = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True, padding_value=math.nan)
    lengths = torch.tensor([len(clip) for clip in clips])
    values, counts = positions_to_joint_angles(padded, name, lengths)
    assert counts.tolist() == [19, 8, 1] and values.dtype == torch.float32
    for row, count, clip in zip(values, counts, clips, strict=True):
        torch.testing.assert_close(row[:count], positions_to_joint_angles(clip, name), atol=1e-5, rtol=0)
        assert not row[count:].any()
    monkeypatch.setattr(joint_angles, "CHUNK_FRAMES", 20)
    torch.testing.assert_close(positions_to_joint_angles(padded, name, lengths)[0], values, atol=1e-5, rtol=0)


def test_errors_name_the_clip_and_the_remedy():
    with pytest.raises(ValueError, match=r"(?i)clip 1\b.*\b1\b.*\b2\b"):
        positions_to_joint_angles(torch.rand(2, 5, 22, 3), lengths=torch.tensor([5, 1]))
    with pytest.raises(ValueError, match=r"(?i)clip 0\b.*frame 1\b.*left_hip"):
        broken = torch.rand(5, 22, 3)
        broken[1, 1] = math.nan
        positions_to_joint_angles(broken)
    with pytest.raises(ValueError, match="'smpl'.*humanml3d, kit-ml"):
        positions_to_joint_angles(torch.rand(5, 24, 3), "smpl")


@skeletons
def test_the_feature_extractor_fits_saves_and_mirrors(name, tmp_path):
    extractor = LexMotionFeatureExtractor("joint_angles", name, max_frames=24)
    clips = [swaying(name, 20 + 2 * seed, seed).float() for seed in range(6)]
    extractor.fit(clips, mirror=True)
    batch = extractor(clips, fps=extractor.fps)
    assert batch["motion_values"].shape == (6, 24, len(column_names(name)))
    assert batch["motion_attention_mask"].sum(dim=1).tolist() == [19, 21, 23, 24, 24, 24]
    raw = extractor.denormalize(batch["motion_values"][0, :19])
    torch.testing.assert_close(raw, positions_to_joint_angles(clips[0], name), atol=1e-5, rtol=0)
    padded = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
    values, lengths = extractor.values_from_positions(padded, torch.tensor([len(clip) for clip in clips]))
    torch.testing.assert_close(values, batch["motion_values"])
    assert lengths.tolist() == batch["motion_attention_mask"].sum(dim=1).tolist()

    means = dict(zip(column_names(name), extractor.mean, strict=True))
    assert means["left_hip_thigh_forward"] == pytest.approx(means["right_hip_thigh_forward"], abs=1e-5)
    assert means["pelvis_turn"] == pytest.approx(0.0, abs=1e-6)

    extractor.save_pretrained(tmp_path)
    again = LexMotionFeatureExtractor.from_pretrained(tmp_path)
    assert again.parts == extractor.parts == part_columns(name) and again.statistics_hash == extractor.statistics_hash
    with pytest.raises(ValueError, match=r"(?i)joint.angles.*positions"):
        again.values_to_positions(values)


def test_published_features_become_joint_angles():
    clip = swaying("humanml3d", 30).float()
    extractor = LexMotionFeatureExtractor("joint_angles").fit([clip])
    ours = extractor(clip, fps=20)["motion_values"][0]
    from_features = extractor(positions_to_features(clip), fps=20)["motion_values"][0]
    torch.testing.assert_close(
        extractor.denormalize(from_features), extractor.denormalize(ours)[:-1], atol=1e-3, rtol=0
    )
