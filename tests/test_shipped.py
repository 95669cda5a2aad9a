"""What comes with the package: sample motions, and the trained model if this checkout has its weights."""

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import lexmotion
from lexmotion import cli, shipped
from lexmotion.processing.corpora.motion_files import captions_in
from lexmotion.training.ship import check_retrieval, check_samples_are_new

CORPUS = Path(__file__).resolve().parents[2] / "shared" / "data" / "humanml3d_cmu"
LARGEST_SAMPLES, LARGEST_MODEL = 1_000_000, 30_000_000
NAMES = [sample.name for sample in shipped.samples()]
needs_weights = pytest.mark.skipif(
    shipped.DEFAULT not in shipped.names(), reason="this checkout has no weights; lexmotion.training.ship writes them"
)


def sample(name):
    return next(sample for sample in lexmotion.samples() if sample.name == name)


# ---- samples --------------------------------------------------------------------------------------------------------


def test_samples_are_small_and_different():
    assert len(set(NAMES)) == len({sample.id for sample in lexmotion.samples()}) == 12
    assert {"walk", "run", "jump", "kick", "punch", "sit", "pick_up"} <= set(NAMES)
    assert sum(file.stat().st_size for file in shipped.SAMPLES.iterdir()) < LARGEST_SAMPLES
    assert {path.stem for path in shipped.SAMPLES.glob("*.bvh")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_is_read_without_a_doubt(name):
    motion = lexmotion.load_motion(sample(name).path)
    assert motion.problems == [] and motion.fps == 20 and motion.skeleton == "humanml3d"
    assert motion.source["units"].confidence == motion.source["up"].confidence == "high"
    assert 20 <= len(motion.positions) < 200 and len(sample(name).captions) == 3
    lowest = motion.positions[..., 1].min()
    assert abs(lowest) < 0.1 and 0.3 < np.median(motion.positions[..., 1].max(axis=1) - lowest) < 2.1


@pytest.mark.skipif(not CORPUS.is_dir(), reason="the real clips of ../shared are not here")
@pytest.mark.parametrize("name", NAMES)
def test_a_sample_is_the_recording(name):
    recorded = np.load(CORPUS / "new_joints" / f"{sample(name).id}.npy", allow_pickle=False)
    assert np.abs(lexmotion.load_motion(sample(name).path).positions - recorded).max() < 1e-3
    lines = (CORPUS / "texts" / f"{sample(name).id}.txt").read_text(encoding="utf-8").splitlines()
    assert sample(name).captions == tuple(" ".join(line.split("#")[0].split()) for line in lines)
    assert sample(name).id in (CORPUS / "dev.txt").read_text().split()


def test_samples_have_licences_and_ids_beside_them():
    page = (shipped.SAMPLES / "README.md").read_text(encoding="utf-8")
    assert all(words in page for words in ("mocap.cs.cmu.edu", "free for all uses", "MIT License", "Chuan Guo"))
    assert all(f"| `{one.path.name}` | {one.id} |" in page for one in lexmotion.samples())


def test_samples_are_copied_with_their_captions(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="0"):
        cli.main(["samples", "motions"])
    assert "12 motions in motions" in capsys.readouterr().out
    assert captions_in(Path("motions")) == {one.path.name: list(one.captions) for one in lexmotion.samples()}
    with pytest.raises(SystemExit, match="1"):
        cli.main(["samples", "motions"])
    assert "motions: not empty" in capsys.readouterr().err


def test_a_training_that_has_seen_a_sample_is_refused():
    check_samples_are_new(["000001", "M000001", "walks/000002.npy"])
    for id in (sample("kick").id, f"M{sample('kick').id}", f"cmu/{sample('kick').id}.npy", "004744"):
        with pytest.raises(ValueError, match=r"kick \((013691|004744)\)"):
            check_samples_are_new(["000001", id])


@pytest.mark.parametrize(
    ("recall", "rsum", "message"), [(40.5, 300, None), (42, 300, "2.00 points"), (40, 304, "1.33")]
)
def test_a_compact_model_that_retrieves_differently_is_refused(recall, rsum, message):
    full = {f"{way}/{name}": 40.0 for way in ("t2m", "m2t") for name in ("R1", "R5", "R10")} | {"Rsum": 300.0}
    small = full | {"t2m/R5": float(recall), "Rsum": float(rsum)}
    if message is None:
        check_retrieval(full, small)
    else:
        with pytest.raises(ValueError, match=message):
            check_retrieval(full, small)


def test_importing_the_package_imports_no_heavy_library():
    code = (
        "import sys, lexmotion; lexmotion.pretrained; lexmotion.samples()\n"
        "found = {'torch', 'transformers', 'numpy', 'huggingface_hub'} & set(sys.modules)\n"
        "sys.exit(f'loaded {found}' if found else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


# ---- weights --------------------------------------------------------------------------------------------------------


@needs_weights
def test_the_model_of_the_package_is_small_and_has_a_card():
    folder = shipped.WEIGHTS / shipped.DEFAULT
    assert sum(file.stat().st_size for file in folder.iterdir()) <= LARGEST_MODEL
    card = (folder / "README.md").read_text(encoding="utf-8")
    for words in ("CC BY 3.0", "The Ohio State University", "free for all uses", "MIT", "Apache-2.0"):
        assert words in card
    assert (
        "lexmotion train --recipe" in card and "lexmotion compact" in card and 'lexmotion.pretrained("small")' in card
    )


@needs_weights
def test_the_model_of_the_package_reads_its_samples():
    from transformers import AutoModel, AutoProcessor

    model = AutoModel.from_pretrained(lexmotion.pretrained("small")).eval()
    processor = AutoProcessor.from_pretrained(lexmotion.pretrained("small"))
    words = {}
    for one in lexmotion.samples():
        output = model.get_motion_features(**processor(motion=lexmotion.load_motion(one.path)))
        words[one.name] = " ".join(word for word, _ in processor.top_words(output.motion_embeds, k=10)[0])
    expected = {"walk": "walk", "run": "run", "jump": "jump", "kick": "kick", "stairs": "stair"}
    assert [name for name, stem in expected.items() if stem not in words[name]] == [], words


@needs_weights
def test_four_commands_need_no_training(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    shutil.copy(sample("kick").path, "kick.bvh")
    for words, shown in (
        (["explain", "kick.bvh"], "kick"),
        (["index", "build", "my.index", str(shipped.SAMPLES)], "12 motions"),
        (["search", "my.index", "a person kicks"], "kick.bvh"),
    ):
        with pytest.raises(SystemExit, match="0"):
            cli.main(words)
        assert shown in capsys.readouterr().out


def test_the_table_of_captions_is_complete():
    with (shipped.SAMPLES / "captions.csv").open(encoding="utf-8", newline="") as table:
        rows = list(csv.DictReader(table))
    assert len(rows) == 36 and all(row["file"] and row["caption"] and len(row["id"]) == 6 for row in rows)
