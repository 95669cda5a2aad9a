"""The documented path from HumanML3D to a model that reads words, typed as it stands, on a few real clips."""

import importlib.util
import json
import os
import shlex
from pathlib import Path

import pytest

from lexmotion import cli
from lexmotion.processing.corpora.text_models import MINILM_PACKAGE

ROOT = Path(__file__).resolve().parents[1]
PLACES = [Path(os.environ["LEXMOTION_SHARED"])] if "LEXMOTION_SHARED" in os.environ else []
PLACES += [ROOT / "shared", *(folder / "shared" for folder in ROOT.parents[:2])]
CORPUS = next((place / "data" / "humanml3d_cmu" for place in PLACES if place.is_dir()), PLACES[-1])
SIZES = {"train": 16, "val": 4, "test": 6}
PHASES = ("lexmlm", "cmmm", "lexmmm", "lexcmlp")
SHORT = [f"phases.{phase}.{name}" for phase in PHASES for name in ("num_steps=1", "batch_size=4")]
SHORT += [f"phases.{phase}.eval_steps=1" for phase in PHASES]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CORPUS.is_dir(), reason="the real clips of ../shared are not here"),
    pytest.mark.skipif(importlib.util.find_spec(MINILM_PACKAGE) is None, reason="the extra `minilm` is not installed"),
]


def documented(page, command):
    """The words after `lexmotion` of the first line in a page that starts with this command."""
    lines = [line.partition("#")[0].strip() for line in (ROOT / page).read_text(encoding="utf-8").splitlines()]
    return shlex.split(next(line for line in lines if line.startswith(command)))[1:]


@pytest.fixture(scope="module")
def walk(tmp_path_factory):
    """A folder with a small `HumanML3D`, and what each documented command printed there."""
    import torch

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("walk")
    (folder / "HumanML3D").mkdir()
    for part in ("new_joints", "texts"):
        (folder / "HumanML3D" / part).symlink_to(CORPUS / part)
    held_out = (CORPUS / "dev.txt").read_text().split()
    ids = {"train": (CORPUS / "train_nodev.txt").read_text().split(), "val": held_out[:4], "test": held_out[4:]}
    for name, size in SIZES.items():
        (folder / "HumanML3D" / f"{name}.txt").write_text("\n".join(ids[name][:size]))
    prepare = documented("docs/data.md", "lexmotion prepare HumanML3D --layout humanml3d --recipe small")
    train = documented("docs/training.md", "lexmotion train --recipe small --dataset prepared/humanml3d")
    evaluate = documented("docs/training.md", "lexmotion evaluate retrieval --model runs/small/model")
    short = [word for value in SHORT for word in ("--set", value)]
    before = Path.cwd()
    os.chdir(folder)
    try:
        for words in ([*prepare, "--num-workers", "1"], [*train, *short], evaluate):
            with pytest.raises(SystemExit, match="0"):
                cli.main(words)
    finally:
        os.chdir(before)
    return folder


def test_the_path_ends_in_figures_of_the_held_out_clips(walk):
    results = json.loads((walk / "results.json").read_text())
    assert results["split"] == "test" and results["retrieval"]["all-strict"]["gallery_size"] == SIZES["test"]


def test_text_is_read_with_the_tokenizer_of_the_text_weights(walk):
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(walk / "runs" / "small" / "model")
    caption = "a person walks forward"
    ids = processor(text=[caption], return_tensors="pt")["input_ids"][0]
    assert processor.tokenizer.decode(ids, skip_special_tokens=True) == caption
    assert len(processor.tokenizer) == 30522  # MiniLM's own


def test_the_words_read_in_a_held_out_clip_are_words_of_the_training_captions(walk):
    from transformers import AutoTokenizer

    from lexmotion import explain
    from lexmotion.processing.text_mirroring import mirror_caption

    held_out = (walk / "HumanML3D" / "test.txt").read_text().split()[0]
    motion = CORPUS / "new_joints" / f"{held_out}.npy"
    words = [found.word for found in explain(walk / "runs" / "small" / "model", motion, fps=20).words[:10]]
    texts = [CORPUS / "texts" / f"{id}.txt" for id in (walk / "HumanML3D" / "train.txt").read_text().split()]
    captions = [line.partition("#")[0].lower() for text in texts for line in text.read_text().splitlines()]
    tokenizer = AutoTokenizer.from_pretrained(walk / "runs" / "small" / "model")
    known = set(tokenizer.tokenize(" ".join([*captions, *map(mirror_caption, captions)])))
    assert len(words) == 10 and set(words) <= known
