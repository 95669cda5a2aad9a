"""KIT-ML's skeleton end to end, on motions retargeted to its 21 joints, 12.5 frames per second and millimetres."""

import base64
import json
import shutil

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from lexmotion import cli
from lexmotion.evaluation.figures.drawing import facing_front, on_the_floor
from lexmotion.processing.corpora.prepare import load_prepared, prepare
from lexmotion.processing.corpora.synthetic import generate_corpus, iterate_motions
from lexmotion.processing.motion_features import positions_to_features, retarget_positions
from lexmotion.processing.processing_lexmotion import LexMotionProcessor
from lexmotion.processing.skeletons import HUMANML3D, KIT_ML

SIZES = {"train": 32, "validation": 10, "test": 10}
PHASES = ("lexmlm", "cmmm", "lexmmm", "lexcmlp")
SYSTEMS = ("temos", "t2m", "tmr", "motion_patches")
SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
SIDES = [KIT_ML.joint_names.index(f"{side}_shoulder") for side in ("left", "right")]


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    """A folder with the corpus, its preparation and a text model with its words."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("kit")
    corpus = generate_corpus(folder / "KIT-ML", SIZES, skeleton="kit-ml")
    (corpus / "new_joint_vecs").mkdir()
    for path in (corpus / "new_joints").iterdir():
        features = positions_to_features(torch.from_numpy(np.load(path)), "kit-ml")
        np.save(corpus / "new_joint_vecs" / path.name, features.numpy())
    run("prepare", corpus, "--recipe", "kit", "--text-model", "corpus", "--output-dir", folder / "prepared")
    tokenizer = LexMotionProcessor.from_pretrained(folder / "prepared" / "processor").tokenizer
    BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **SMALL)).save_pretrained(folder / "text_model")
    tokenizer.save_pretrained(folder / "text_model")
    return folder


@pytest.fixture(scope="module")
def settings(kit):
    """Options that make the recipe tiny, without changing what it says about the skeleton."""
    values = {f"motion_config.{name}": size for name, size in SMALL.items()}
    values |= {"motion_config.decoder_hidden_size": 32, "motion_config.contrast_hidden_size": 32}
    values |= {f"phases.{phase}.{name}": 2 for phase in PHASES for name in ("num_steps", "eval_steps")}
    values |= {f"baselines.{system}.{name}": 2 for system in SYSTEMS for name in ("num_steps", "eval_steps")}
    values |= {f"baselines.{system}.baseline_config.latent_size": 32 for system in SYSTEMS}
    values |= {f"baselines.motion_patches.baseline_config.{name}": size for name, size in SMALL.items()}
    values |= {"text_model": kit / "text_model", "batch_size": 8, "phases.lexcmlp.caption_features": "false"}
    values |= {"mixed_precision": "no", "use_cpu": "true", "progress": "false"}
    return [word for name, value in values.items() for word in ("--set", f"{name}={value}")]


@pytest.fixture(scope="module")
def model(kit, settings):
    """Folder of a model trained by the recipe `kit`."""
    run("train", "--recipe", "kit", "--dataset", kit / "prepared", "--output-dir", kit / "run", *settings)
    return kit / "run" / "model"


def run(*words):
    with pytest.raises(SystemExit) as stop:
        cli.main([str(word) for word in words])
    assert stop.value.code == 0, words


def joints(kit, number=0):
    """A held-out motion as published, (T, 21, 3) in millimetres, and its file."""
    file = kit / "KIT-ML" / "new_joints" / f"{(kit / 'KIT-ML' / 'test.txt').read_text().split()[number]}.npy"
    return np.load(file), file


def test_the_corpus_is_the_animated_body_in_kits_layout(kit):
    written = {path.stem: np.load(path) for path in (kit / "KIT-ML" / "new_joints").iterdir()}
    for _, name, _, positions, _ in iterate_motions(SIZES):
        millimetres = written[name]
        assert millimetres.shape == (int((len(positions) - 1) / 20 * 12.5 + 1e-6) + 1, 21, 3)
        first = retarget_positions(torch.from_numpy(millimetres[:1]) / 1000, "kit-ml", "humanml3d")[0]
        named = [number for number, joint in enumerate(HUMANML3D.joint_names) if joint in KIT_ML.joint_names]
        np.testing.assert_allclose(first[named], positions[0, named], atol=1e-5)
        left, right = on_the_floor(millimetres, "kit-ml")[0, SIDES, 0]
        assert left < 0 < right  # as in the published files


def test_retargeting_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"\(4, 21, 3\).*22.*'humanml3d'"):
        retarget_positions(torch.zeros(4, 21, 3))
    assert torch.equal(retarget_positions(torch.ones(4, 21, 3), "kit-ml", "kit-ml"), torch.ones(4, 21, 3))


def test_the_recipe_fits_the_skeleton(kit):
    report = json.loads((kit / "prepared" / "report.json").read_text())
    extractor = LexMotionProcessor.from_pretrained(kit / "prepared" / "processor").feature_extractor
    assert (report["layout"], report["skeleton"], report["fps"]) == ("kit-ml", "kit-ml", 12.5)
    assert (extractor.num_features, extractor.fps, extractor.max_frames) == (251, 12.5, 200)
    row = load_prepared(kit / "prepared", ["test"])["test"].with_format("numpy")[0]
    np.testing.assert_allclose(row["motion"].reshape(-1, 21, 3), joints(kit)[0] / 1000, atol=1e-5)


def test_given_features_are_those_of_our_extractor(kit, tmp_path):
    """Features from positions equal those of the corpus, from which the same positions are recovered."""
    only = tmp_path / "features"
    shutil.copytree(kit / "KIT-ML", only, ignore=shutil.ignore_patterns("new_joints"))
    prepare(only, tmp_path / "out", layout="kit-ml", processor=kit / "prepared" / "processor", splits={"test": None})
    extractor = LexMotionProcessor.from_pretrained(kit / "prepared" / "processor").feature_extractor
    compared = 0
    for row in load_prepared(tmp_path / "out")["test"].with_format("numpy"):
        given = np.load(only / "new_joint_vecs" / f"{row['id']}.npy")
        positions = np.load(kit / "KIT-ML" / "new_joints" / f"{row['id']}.npy") / np.float32(1000)
        computed = extractor.denormalize(extractor([positions], fps=12.5, return_tensors="np")["motion_values"])[0]
        assert given.shape == computed.shape == (len(positions) - 1, 251)
        np.testing.assert_allclose(computed, given, atol=0.05)  # millimetres
        if np.abs(2 * given[:, 0].cumsum()).max() > 2:  # recovered positions are wrong once the heading crosses Z-
            continue
        compared += 1
        recovered = row["motion"].reshape(-1, 21, 3)  # without the last frame
        np.testing.assert_allclose(recovered, on_the_floor(positions, "kit-ml")[:-1], atol=1e-3)
    assert compared >= 5


def test_the_model_reads_windows_of_kits_frame_rate(model):
    config = json.loads((model / "config.json").read_text())["motion_config"]
    assert (config["patch_frames"], config["num_features"], config["num_frames"]) == (10, 251, 200)
    cmmm = json.loads((model.parent / "cmmm" / "result.json").read_text())["acceptance"]
    assert 0.001 < cmmm["mean_pose_error"] < 2  # metres, although the features are in millimetres


def test_retrieval_is_evaluated(kit, model, tmp_path):
    output = tmp_path / "results.json"
    run("evaluate", "retrieval", "--model", model, "--dataset", kit / "prepared", "--split", "test",
        "--output", output, "--device", "cpu")  # fmt: skip
    assert json.loads(output.read_text())["retrieval"]["all-strict"]["gallery_size"] == 10
    run("card", model, "--name", "user/kit", "--results", output)
    card = (model / "README.md").read_text()
    assert "kit-ml (21 joints; left-handed" in card and "fps=12.5" in card and "--layout kit-ml" in card


def test_an_index_answers_words_and_files(kit, model, tmp_path, capsys):
    place = tmp_path / "index"
    run("index", "build", place, "--dataset", kit / "prepared", "--model", model, "--split", "test", "--device", "cpu")
    capsys.readouterr()
    millimetres, file = joints(kit)
    run("search", place, "a person kicks", "-k", "3", "--json")
    assert len(json.loads(capsys.readouterr().out)["hits"]) == 3
    for example in (file, kit / "KIT-ML" / "new_joint_vecs" / file.name):
        run("search", place, "--motion", example, "--fps", "12.5", "-k", "1", "--json")
        (hit,) = json.loads(capsys.readouterr().out)["hits"]
        assert hit["id"] == file.stem and hit["score"] == pytest.approx(1, abs=1e-2)
    np.save(tmp_path / "other.npy", np.zeros((30, 22, 3), np.float32))
    with pytest.raises(SystemExit):
        cli.main(["search", str(place), "--motion", str(tmp_path / "other.npy")])
    assert "kit-ml" in capsys.readouterr().err


def test_pictures_show_the_left_side_on_the_left(kit, model, tmp_path):
    millimetres, file = joints(kit)
    front = facing_front(millimetres / 1000, "kit-ml")
    left, right = front[0, SIDES, 0]
    assert left > 0 > right and np.ptp(front[0, :, 1]) == pytest.approx(np.ptp(millimetres[0, :, 1]) / 1000, abs=1e-4)
    run("explain", "--model", model, "--motion", file, "--timeline", tmp_path / "time.png")
    run("inspect", file, "--figure", tmp_path / "strip.png")
    assert all((tmp_path / name).stat().st_size > 1000 for name in ("strip.png", "time.png"))


def test_the_viewer_shows_21_joints_and_an_export_keeps_them(kit, model, tmp_path):
    from lexmotion import LexMotionIndex
    from lexmotion.evaluation.viewer.demo import Demo
    from lexmotion.evaluation.viewer.motion_sources import DatasetMotions

    run("index", "build", tmp_path / "index", "--dataset", kit / "prepared", "--model", model, "--split", "test")
    index = LexMotionIndex.from_pretrained(tmp_path / "index")
    demo = Demo(index, [DatasetMotions(kit / "prepared", ["test"])])
    assert len(demo.skeleton["bones"]) == 20 and demo.skeleton["head"] == KIT_ML.joint_names.index("head")
    shown = demo.view("item", joints(kit)[1].stem)["motion"]
    assert (shown["joints"], shown["fps"]) == (21, 12.5)
    pose = np.frombuffer(base64.b64decode(shown["data"]), "<i2").reshape(-1, 21, 3)[0]
    assert pose[SIDES[0], 0] > 0 > pose[SIDES[1], 0]
    for name, (positions, _) in demo.clips():
        left, right = positions[0, SIDES, 0]
        assert left < 0 < right, name  # what is stored is read by the model, so it keeps the corpus's coordinates
    index.close()


def test_compare_trains_systems_of_table_2(kit, settings, tmp_path):
    out = tmp_path / "compare"
    run("compare", "--dataset", kit / "prepared", "--recipe", "kit", "--rows", "t2m,motion_patches", "--seeds", "1",
        "--output-dir", out, *settings)  # fmt: skip
    tables = (out / "results.md").read_text()
    assert "## KIT-ML, Table 2 of the paper, all-strict" in tables
    assert "| MotionPatches (paper, other data) |  | 14.0 | 21.1 |" in tables
    patches = json.loads((out / "motion_patches" / "seed0" / "run" / "model" / "config.json").read_text())
    assert patches["chains"] == [list(chain) for chain in KIT_ML.chains] and patches["num_features"] == 63
    assert (patches["patch_size"], patches["projection_dropout"]) == (10, 0.0)
