"""Pictures: drawn without a display, the right words stressed, the right limbs coloured, written in one step."""

import ast
from pathlib import Path

import numpy as np
import pytest

from lexmotion.evaluation.explain import Explanation, WordEvidence
from lexmotion.evaluation.figures import drawing, examples, words
from lexmotion.evaluation.figures.drawing import BLUE, ORANGE, key_frames, motion_strip, project, save_figure
from lexmotion.evaluation.figures.examples import readme_picture
from lexmotion.evaluation.figures.words import explanation_figure, word_bars, word_maps
from lexmotion.processing.skeletons import get_skeleton

WORDS = [("kick", 2.0), ("left", 1.5), ("leg", 0.5), ("$x$", 0.1)]


def standing(frames=12, skeleton="humanml3d"):
    """A body at rest pose that drifts towards Z+ and swings one foot."""
    layout = get_skeleton(skeleton)
    pose = np.zeros((layout.num_joints, 3))
    for joint, parent in enumerate(layout.parents):
        if parent >= 0:
            pose[joint] = pose[parent] + 0.3 * np.asarray(layout.raw_offsets[joint])
    motion = np.repeat(pose[None], frames, axis=0)
    motion[..., 2] += 0.1 * np.arange(frames)[:, None]
    motion[:, layout.joint_names.index("left_foot"), 1] += np.linspace(0, 0.5, frames)
    return motion.astype(np.float32)


def texts(figure):
    figure.canvas.draw()
    return {text.get_text() for text in figure.findobj(match=lambda artist: hasattr(artist, "get_text"))}


def colors_of_lines(axes):
    from matplotlib.colors import to_hex

    return [
        {to_hex(color).upper() for color in lines.get_colors()}
        for lines in axes.collections
        if hasattr(lines, "get_segments")
    ]


@pytest.mark.parametrize("skeleton", ["humanml3d", "kit-ml"])
def test_strip_draws_every_bone_of_every_pose(skeleton):
    layout = get_skeleton(skeleton)
    figure = motion_strip(standing(40, skeleton), num_poses=5)
    axes = figure.axes[0]
    poses = [lines for lines in axes.collections if hasattr(lines, "get_segments")]
    assert len(poses) == 5
    assert {len(pose.get_segments()) for pose in poses} == {layout.num_joints - 1}
    assert all({BLUE, ORANGE} <= colors for colors in colors_of_lines(axes))
    last = f"{39 / layout.fps:.1f} s"
    assert {"0.0 s", last} <= texts(figure)


def test_left_side_is_blue_and_on_the_readers_right():
    seen = project(standing()[0], view=(0.0, 0.0))
    layout = get_skeleton("humanml3d")
    for left, right in layout.mirror_pairs:
        assert seen[left, 0] > seen[right, 0]
    np.testing.assert_allclose(seen[:, 1], standing()[0][:, 1], atol=1e-6)
    # A view keeps distances.
    turned = project(standing()[0])
    np.testing.assert_allclose(np.linalg.norm(turned, axis=1), np.linalg.norm(standing()[0], axis=1), atol=1e-5)


def test_figures_do_not_overlap():
    wide = standing(30)
    wide[10, 20] += [4, 0, 0]
    figure = motion_strip(wide, num_poses=30)
    poses = [lines for lines in figure.axes[0].collections if hasattr(lines, "get_segments")]
    spans = [np.concatenate(pose.get_segments())[:, 0] for pose in poses]
    assert all(before.max() < after.min() for before, after in zip(spans[:-1], spans[1:], strict=True))


def test_key_frames_follow_the_movement():
    still = np.zeros((101, 22, 3))
    np.testing.assert_array_equal(key_frames(still, 3), [0, 50, 100])
    still[60:70, :, 1] = np.sin(np.linspace(0, np.pi, 10))[:, None]  # a jump
    frames = key_frames(still, 9)
    assert frames[0] == 0 and frames[-1] == 100 and (np.diff(frames) > 0).all()
    assert ((frames >= 59) & (frames <= 70)).sum() >= 4
    np.testing.assert_array_equal(key_frames(still[:1], 9), [0])
    assert len(key_frames(still[:3], 9)) <= 3


@pytest.mark.parametrize("frames", [1, 2])
def test_very_short_motions_are_drawn(frames, tmp_path):
    assert save_figure(motion_strip(standing(frames)), tmp_path / "strip.png", dpi=40).stat().st_size > 500


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"positions": np.zeros((4, 66))}, r"frames, joints, 3\).*\(4, 66\)"),
        ({"positions": np.full((4, 22, 3), np.nan)}, "(?i)frame 0.*NaN"),
        ({"positions": np.zeros((4, 22, 3)), "skeleton": "kit-ml"}, r"\b22\b.*'kit-ml'.*\b21\b"),
        ({"positions": np.zeros((4, 22, 3)), "num_poses": 0}, r"num_poses.*\b0\b.*20\.0"),
        ({"positions": np.zeros((4, 22, 3)), "fps": 0.0}, r"fps.*\b8\b.*\b0\.0"),
    ],
)
def test_strip_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        motion_strip(**arguments)


def test_bars_stress_shared_words():
    from matplotlib.colors import to_hex

    figure = word_bars(*zip(*WORDS, strict=True), highlight={"left"}, title="words")
    axes = figure.axes[0]
    assert [to_hex(bar.get_facecolor()).upper() == BLUE for bar in axes.patches] == [False, True, False, False]
    assert [bar.get_width() for bar in axes.patches] == [2.0, 1.5, 0.5, 0.1]
    assert [label.get_fontweight() for label in axes.get_yticklabels()] == ["normal", "bold", "normal", "normal"]
    low, high = axes.get_ylim()
    assert low > high  # the first word is on top
    figure.canvas.draw()  # a dollar sign is no formula


def test_no_active_word_is_said_so():
    assert "no active word" in texts(word_bars([], []))
    with pytest.raises(ValueError, match=r"\b1\b.*\b2\b"):
        word_bars(["a"], [1, 2])


def test_maps_have_one_panel_a_body_part():
    maps = np.arange(3 * 4 * 5, dtype=float).reshape(3, 4, 5)
    maps[0, 0, 0] = -np.inf  # a token that is padding
    figure = word_maps(maps, ["kick", "left", "leg"], window_seconds=0.8, highlight={"left"})
    panels = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in panels] == ["right leg", "left leg", "torso", "right arm", "left arm"]
    np.testing.assert_array_equal(panels[1].images[0].get_array(), maps[:, :, 1])
    assert panels[0].images[0].get_array()[0, 0] == 0
    assert {axes.images[0].get_clim() for axes in panels} == {(0.0, 59.0)}  # one scale for all
    assert panels[0].get_xlim() == (0.0, pytest.approx(3.2))
    assert {"kick", "left", "leg", "seconds"} <= texts(figure)
    assert [axes.get_title() for axes in word_maps(maps[..., :2], ["a", "b", "c"]).axes[:2]] == ["part 1", "part 2"]


def test_maps_errors():
    with pytest.raises(ValueError, match=r"\(2, 4, 5\)"):
        word_maps(np.zeros((2, 4, 5)), ["a"])
    with pytest.raises(ValueError, match=r"\b1\b.*\b5\b"):
        word_maps(np.zeros((1, 4, 5)), ["a"], parts=["leg"])


def explained(found, **caption):
    evidence = [WordEvidence(word, weight, 0.0, 0.0, "torso", 0.0, 0.8) for word, weight in found]
    maps = np.random.default_rng(0).random((len(found), 6, 5))
    return Explanation(evidence, (6, 5), 0.8, maps, **caption)


def test_explanation_with_and_without_caption(tmp_path):
    caption = {"text": "a person kicks", "text_words": [("left", 1.0), ("foot", 0.5)], "score": 0.42}
    figure = explanation_figure(explained(WORDS, **caption), standing())
    found = texts(figure)
    assert {"words of the motion", "words of the caption", "torso", "foot"} <= found
    assert any("a person kicks" in text and "0.42" in text for text in found)
    assert save_figure(figure, tmp_path / "new" / "explanation.png", dpi=50).read_bytes().startswith(b"\x89PNG")

    alone = texts(explanation_figure(explained(WORDS), standing(), k=1))
    assert "words of the motion" in alone and "words of the caption" not in alone and "torso" in alone
    assert "kick" in alone and "left" not in alone
    assert "torso" not in texts(explanation_figure(explained([]), standing()))


def test_readme_picture(tmp_path):
    path = tmp_path / "picture.png"
    examples = [
        {"positions": standing(), "words": WORDS, "caption": "Kick, with the LEFT leg!"},
        {"positions": standing(skeleton="kit-ml"), "words": WORDS[:1], "highlight": []},
    ]
    figure = readme_picture(examples, path, num_words=3, dpi=40)
    bars = [axes for axes in figure.axes if axes.patches]
    assert [len(axes.patches) for axes in bars] == [3, 1]
    assert [label.get_fontweight() for label in bars[0].get_yticklabels()] == ["bold"] * 3
    assert bars[1].get_yticklabels()[0].get_fontweight() == "normal"
    written = path.read_bytes()
    readme_picture(examples, path, num_words=3, dpi=40)
    assert path.read_bytes() == written  # the same data give the same file
    assert [file.name for file in tmp_path.iterdir()] == ["picture.png"]
    with pytest.raises(ValueError, match="example"):
        readme_picture([])


def test_a_failed_write_leaves_the_old_picture(tmp_path, monkeypatch):
    path = tmp_path / "bars.png"
    path.write_bytes(b"old")
    figure = word_bars(["kick"], [1.0])
    monkeypatch.setattr(figure, "savefig", lambda file, **_: file.write_bytes(b"half") and 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_figure(figure, path)
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(ValueError, match="'.docx'"):
        save_figure(figure, tmp_path / "bars.docx")


def test_vector_formats(tmp_path):
    for ending in ("svg", "pdf"):
        assert save_figure(word_bars(["kick"], [1.0]), tmp_path / f"bars.{ending}").stat().st_size > 500


@pytest.mark.parametrize("module", [drawing, words, examples], ids=lambda module: module.__name__.split(".")[-1])
def test_matplotlib_is_imported_when_drawing(module):
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    modules = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert "numpy" in modules and not any(module.startswith("matplotlib") for module in modules)
