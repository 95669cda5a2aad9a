"""BVH files: channels in any order, positions as SciPy's rotations give them, errors that name the line."""

import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from moving_rigs import CMU, MIXAMO
from scipy.spatial.transform import Rotation

from lexmotion.processing.recordings.bvh import bvh_recording, format_bvh, parse_bvh, read_bvh
from lexmotion.processing.recordings.kinematics import BVH
from lexmotion.processing.recordings.options import ReadingOptions

LINES = """HIERARCHY
ROOT Hips
{
  OFFSET 0 0 0
  CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
  JOINT Left Leg
  {
    OFFSET 1 -2 3
    CHANNELS 3 Yrotation Xrotation Zrotation
    End Site
    {
      OFFSET 0 -4 0
    }
  }
}
MOTION
Frames: 2
Frame Time: 0.05
1 2 3 10 20 30 40 50 60
0 0 0 0 0 0 90 0 0""".splitlines()


def text(**changes):
    """The file above with lines replaced, by number from 1; None leaves one out."""
    lines = {number: line for number, line in enumerate(LINES, start=1)}
    lines |= {int(number[1:]): line for number, line in changes.items()}
    return "\n".join(line for line in lines.values() if line is not None)


def test_tree_channels_and_values():
    bvh = parse_bvh(text())
    assert bvh.names == ("Hips", "Left Leg", "Left Leg_end")
    assert bvh.parents == (-1, 0, 1) and bvh.end_sites == {2} and bvh.frame_time == 0.05
    assert bvh.channels[1] == ("Yrotation", "Xrotation", "Zrotation") and bvh.values.shape == (2, 9)
    assert bvh.rest_positions.tolist() == [[0, 0, 0], [1, -2, 3], [1, -6, 3]]


def test_rotations_are_composed_in_the_order_of_the_channels():
    places = parse_bvh(text()).positions()
    root, knee = Rotation.from_euler("ZXY", [10, 20, 30], degrees=True), [1, -2, 3]
    shin = Rotation.from_euler("YXZ", [40, 50, 60], degrees=True)
    expected = np.array([1, 2, 3]) + root.apply(knee)
    assert places[0, 1] == pytest.approx(expected)
    assert places[0, 2] == pytest.approx(expected + (root * shin).apply([0, -4, 0]))


@pytest.mark.parametrize("order", ["".join(order) for order in itertools.permutations("XYZ")])
@pytest.mark.parametrize("last", [False, True], ids=["positions first", "positions last"])
def test_every_channel_order_gives_the_same_body(order, last):
    root, turns = CMU.move(12, seed=3)
    bvh = parse_bvh(CMU.text(root, turns, order=order, positions_last=last))
    places = bvh.positions([bvh.names.index(name) for name in CMU.names])
    np.testing.assert_allclose(places, CMU.world(root, turns), atol=1e-6)


def test_only_some_joints_are_the_same_as_all():
    bvh = parse_bvh(MIXAMO.text(*MIXAMO.move(5, seed=1)))
    chosen = [bvh.names.index(name) for name in ("RightHand", "Hips", "Head")]
    np.testing.assert_array_equal(bvh.positions(chosen), bvh.positions()[:, chosen])


def test_a_position_channel_takes_the_place_of_the_offset():
    changed = text(l9="CHANNELS 1 Yposition", l19="0 0 0 0 0 0 7", l20="0 0 0 0 0 0 8")
    assert parse_bvh(changed).positions([1])[:, 0].tolist() == [[1, 7, 3], [1, 8, 3]]


@pytest.mark.parametrize(
    "variant",
    [
        text().replace("\n", "\r\n"),
        "\ufeff" + text(),
        text(l2="root Hips {", l3=None),
        text(l5="  CHANNELS 6 XPOSITION yposition ZPosition zrotation XRotation Yrotation"),
        text(l17="Frames:2", l18="Frame Time:\t.05"),
        text(l20=LINES[19] + "\n\n"),
        text(l6="\n  JOINT Left Leg"),
    ],
    ids=["crlf", "mark", "brace", "case", "spaces", "end", "blank"],
)
def test_harmless_variants_are_read(variant, tmp_path):
    path = tmp_path / "a.bvh"
    path.write_bytes(variant.encode())
    np.testing.assert_array_equal(read_bvh(path).positions(), parse_bvh(text()).positions())


BROKEN = {
    "empty": ("", r"line 1\b.*MOTION"),
    "binary": ("\x89PNG\r\n", r"line 1\b.*HIERARCHY.*PNG"),
    "cut in the tree": ("\n".join(LINES[:8]), r"line 8\b.*'Left Leg'"),
    "cut before frames": ("\n".join(LINES[:16]), r"line 16\b.*'Frames: N'"),
    "no frames": ("\n".join(LINES[:18]), r"\b2\b.*\b0\b"),
    "no frame of one": ("\n".join([*LINES[:16], "Frames: 1", LINES[17]]), r"\b1\b.*\b0\b"),
    "cut in the frames": (text(l17="Frames: 4"), r"\b4\b.*\b2\b.*'Frames: 2'"),
    "cut in a frame": (text(l20="0 0 0 0"), r"line 20\b.*\b4\b.*\b9\b"),
    "too many frames": (text(l17="Frames: 1", l20=f"{LINES[19]}\n" * 2), r"\b1\b.*\b3\b.*'Frames: 3'"),
    "no number": (text(l19=LINES[18].replace("20", "2O")), r"line 19\b.*'2O'"),
    "nan": (text(l19=LINES[18].replace("20", "nan")), r"line 19\b.*\bnan\b"),
    "frame count": (text(l17="Frames: two"), r"line 17\b.*\b1\b.*'two'"),
    "frame time": (text(l18="Frame Time: fast"), r"line 18\b.*Frame Time.*'fast'"),
    "channel": (text(l9="CHANNELS 3 Yrotatoin Xrotation Zrotation"), r"line 9\b.*'Yrotatoin'.*Yrotation"),
    "channel count": (
        text(l9="CHANNELS 4 Yrotation Xrotation Zrotation"),
        r"line 9\b.*'Left Leg'.*\b4\b.*\b3\b",
    ),
    "channel twice": (text(l9="CHANNELS 2 Xrotation Xrotation"), r"line 9\b.*'Left Leg'.*Xrotation"),
    "offset": (text(l8="OFFSET 1 2"), r"line 8\b.*OFFSET.*'Left Leg'.*\b3\b.*\b2\b"),
    "no offset": (text(l8=None), r"'Left Leg'.*line 6\b.*OFFSET"),
    "no name": (text(l6="JOINT"), r"line 6\b.*JOINT.*name"),
    "name twice": (text(l6="JOINT Hips"), r"line 6\b.*'Hips'.*line 2\b"),
    "no brace": (text(l7=None), r"line 7\b.*'{'.*OFFSET 1 -2 3"),
    "second root": (text(l6="ROOT Other"), r"line 6\b.*ROOT.*\bOther\b"),
    "word": (text(l8="OFSET 1 2 3"), r"line 8\b.*JOINT, End Site, OFFSET, CHANNELS.*\bOFSET\b"),
    "joint outside": (text(l2="JOINT Hips"), r"line 2\b.*brace"),
    "channels of an end": (text(l12="CHANNELS 0"), r"line 12\b.*End Site.*channels"),
    "no channels": (text(l5="CHANNELS 0", l9=None), "channels"),
}


@pytest.mark.parametrize("stated", [1, 3])
def test_one_frame_more_or_less_than_stated_is_a_notice(stated, tmp_path):
    (tmp_path / "a.bvh").write_text(text(l17=f"Frames: {stated}"))
    recording = bvh_recording(tmp_path / "a.bvh", ReadingOptions())
    np.testing.assert_array_equal(recording.positions, parse_bvh(text()).positions())
    (problem,) = recording.problems
    assert problem.severity == "note" and f"{stated} frames" in problem.message and " 2," in problem.message


@pytest.mark.parametrize(("content", "message"), BROKEN.values(), ids=list(BROKEN))
def test_errors_name_the_line_and_what_is_due(content, message):
    with pytest.raises(ValueError, match=message):
        parse_bvh(content, "kick.bvh")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damage_is_an_error_or_a_body_but_never_a_crash(data):
    lines = list(LINES)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(lines) - 1))
        match data.draw(st.sampled_from(["drop", "double", "cut", "replace"])):
            case "drop" if len(lines) > 1:
                del lines[place]
            case "double":
                lines.insert(place, lines[place])
            case "cut":
                lines[place] = lines[place][: data.draw(st.integers(0, len(lines[place])))]
            case _:
                lines[place] = data.draw(st.text(alphabet="{}0-9 .eEJOINTMxyzrotation\n", max_size=12))
    try:
        bvh = parse_bvh("\n".join(lines))
    except ValueError as error:
        assert str(error).startswith("BVH")
    else:
        assert np.isfinite(bvh.positions()).all() and len(bvh.values) >= 1


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_writing_and_reading_gives_the_same_file(data, tmp_path):
    count = data.draw(st.integers(1, 6))
    parents = (-1, *(data.draw(st.integers(0, joint - 1)) for joint in range(1, count)))
    names = [*("XYZ"[i] + "position" for i in range(3)), *("XYZ"[i] + "rotation" for i in range(3))]
    channels = [tuple(data.draw(st.permutations(names))[: data.draw(st.integers(1, 6))]) for _ in range(count)]
    width = sum(map(len, channels))
    numbers = st.floats(-500, 500).map(lambda value: round(value, 5))
    bvh = BVH(
        names=tuple(f"joint {number}" for number in range(count)),
        parents=parents,
        offsets=data.draw(arrays.arrays(float, (count, 3), elements=numbers)),
        channels=tuple(channels),
        values=data.draw(arrays.arrays(float, (data.draw(st.integers(1, 4)), width), elements=numbers)),
        frame_time=1 / 30,
    )
    (tmp_path / "a.bvh").write_text(format_bvh(bvh))
    again = read_bvh(tmp_path / "a.bvh")
    order = [again.names.index(name) for name in bvh.names]
    np.testing.assert_allclose(again.positions(order), bvh.positions(), atol=1e-3)
    assert again.frame_time == pytest.approx(bvh.frame_time, abs=1e-8)
    assert format_bvh(again) == format_bvh(parse_bvh(format_bvh(again)))
