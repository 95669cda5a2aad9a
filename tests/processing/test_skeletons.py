"""Joint layouts: internally consistent, and the published numbers."""

import pytest

from lexmotion.processing.skeletons import (
    BODY_PARTS,
    SKELETONS,
    get_skeleton,
    skeleton_for_joints,
)

skeletons = pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=list(SKELETONS))


@pytest.mark.parametrize(
    ("name", "joints", "features", "fps", "unit"), [("humanml3d", 22, 263, 20.0, 1.0), ("kit-ml", 21, 251, 12.5, 1e-3)]
)
def test_published_numbers(name, joints, features, fps, unit):
    skeleton = get_skeleton(name)
    assert (skeleton.num_joints, skeleton.num_features) == (joints, features)
    assert (skeleton.fps, skeleton.metres_per_unit) == (fps, unit)
    assert skeleton_for_joints(joints) is skeleton
    assert get_skeleton(skeleton) is skeleton


@skeletons
def test_chains_cover_every_bone_once(skeleton):
    bones = [bone for chain in skeleton.chains for bone in zip(chain[:-1], chain[1:], strict=True)]
    assert sorted(bones) == sorted(skeleton.bones)
    assert sorted(joint for _, joint in bones) == list(range(1, skeleton.num_joints))
    assert len(skeleton.raw_offsets) == len(skeleton.parents) == skeleton.num_joints
    assert all(sorted(map(abs, offset)) == [0.0, 0.0, 1.0] for offset in skeleton.raw_offsets[1:])


@skeletons
def test_mirror_swaps_sides(skeleton):
    permutation = skeleton.mirror_permutation
    assert [permutation[joint] for joint in permutation] == list(range(skeleton.num_joints))
    for joint, other in enumerate(permutation):
        name = skeleton.joint_names[joint]
        swapped = name.replace("left", "right") if "left" in name else name.replace("right", "left")
        assert skeleton.joint_names[other] == swapped
        # The tree is symmetric: the mirror of my parent is the parent of my mirror.
        if joint:
            assert permutation[skeleton.parents[joint]] == skeleton.parents[other]


@skeletons
def test_parts_follow_names(skeleton):
    assert tuple(skeleton.parts) == BODY_PARTS
    for part, joints in skeleton.parts.items():
        side = part.split("_")[0]
        if side in ("left", "right"):
            assert all(skeleton.joint_names[joint].startswith(side) for joint in joints[1:])
    assert set().union(*skeleton.parts.values()) == set(range(skeleton.num_joints))
    sides = [skeleton.joint_names[joint].split("_")[0] for joint in skeleton.contact_joints]
    assert sorted(sides) == ["left", "left", "right", "right"]


@skeletons
@pytest.mark.parametrize("representation", ["positions", "humanml3d"])
def test_every_feature_has_a_part(skeleton, representation):
    parts = skeleton.part_feature_indices(representation)
    total = 3 * skeleton.num_joints if representation == "positions" else skeleton.num_features
    assert len(parts) == 5
    assert set().union(*parts) == set(range(total))
    assert all(part == sorted(set(part)) for part in parts)
    # A part of the mirror image is as wide as the part itself.
    assert len(parts[0]) == len(parts[1])
    assert len(parts[3]) == len(parts[4])


def test_part_feature_layout():
    parts = dict(zip(BODY_PARTS, get_skeleton("humanml3d").part_feature_indices("humanml3d"), strict=True))
    assert {0, 1, 2, 3, 193, 194, 195} <= set(parts["torso"])
    assert {259, 260} <= set(parts["left_leg"])
    assert {261, 262} <= set(parts["right_leg"])
    assert {4, 5, 6} <= set(parts["left_leg"])  # left hip position
    assert set(range(67, 73)) <= set(parts["left_leg"])  # left hip rotation
    assert 193 not in parts["left_leg"]


def test_errors_name_the_value_and_the_choices():
    with pytest.raises(ValueError, match="'smpl'.*humanml3d, kit-ml"):
        get_skeleton("smpl")
    with pytest.raises(ValueError, match=r"\b24\b.*\b22\b.*humanml3d"):
        skeleton_for_joints(24)
    with pytest.raises(ValueError, match="'rot6d'.*positions"):
        get_skeleton("kit-ml").part_feature_indices("rot6d")


def test_skeletons_are_hashable_and_frozen():
    skeleton = get_skeleton("humanml3d")
    assert {skeleton: 1}[get_skeleton("humanml3d")] == 1
    with pytest.raises(AttributeError):
        skeleton.fps = 30.0
