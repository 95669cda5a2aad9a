"""From training to a clean machine: three processes with environments of their own, and a Hub between them.

1. with the package: train, push, load by name, by tag and the text tower alone, `push_to_hub`, stream the corpus;
2. without the package: load with `trust_remote_code=True`, and the text tower in sentence-transformers;
3. with the package, without a network: import every module, load what the first one has cached.
"""

import json
import os
import subprocess
import sys
import sysconfig

import numpy as np
import pytest
from loopback_hub import TOKEN, LoopbackHub

MODEL, TEXT, PARTS, CORPUS = "user/lexmotion-tiny", "user/lexmotion-text", "user/by-hand", "user/motions"
CAPTIONS = ["a person walks forward", "a person jumps twice and then turns left"]

COMMON = f"""
import json, os, sys
from pathlib import Path
import numpy as np
import torch
torch.set_num_threads(1)
MODEL, TEXT, PARTS, CORPUS = {(MODEL, TEXT, PARTS, CORPUS)!r}
CAPTIONS = {CAPTIONS!r}
root = Path(sys.argv[1])

def vectors(model, processor):
    inputs = processor(text=CAPTIONS, motion=np.load(root / "motion.npy"), fps=20, return_tensors="pt")
    with torch.no_grad():
        output = model(**inputs)
    return {{"text": output.text_embeds.numpy(), "motion": output.motion_embeds.numpy()}}

def tokens(processor):
    inputs = processor(text=CAPTIONS, return_tensors="pt")
    return {{name: inputs[name] for name in ("input_ids", "attention_mask")}}
"""

WITH_PACKAGE = """
recipe = json.loads(sys.argv[2])
from transformers import AutoModel, AutoProcessor
from lexmotion import LexMotionModel, LexMotionProcessor, LexMotionTextModel
from lexmotion.__main__ import main
from lexmotion.export.sparse_encoder import as_masked_lm
from lexmotion.processing.corpora.prepare import prepare
from lexmotion.processing.corpora.synthetic import generate_corpus
from lexmotion.training.pipeline import train

source = generate_corpus(root / "source", {"train": 24, "validation": 6, "test": 6}, seed=0)
prepare(source, root / "prepared", max_frames=48, source_name="synthetic", progress=False)
train(recipe, root / "prepared", root / "run")
np.save(root / "motion.npy", np.load(sorted((source / "new_joints").glob("*.npy"))[0]))

def command(*words):
    try:
        main([str(word) for word in words])
    except SystemExit as stop:
        assert not stop.code, words

folder = root / "run" / "model"
command("push", folder, MODEL, "--include-code")
command("push", folder, MODEL, "--include-code")
command("push", root / "prepared", CORPUS)
from huggingface_hub import HfApi
HfApi().create_tag(MODEL, tag="v1")

local = LexMotionModel.from_pretrained(folder).eval()
processor = LexMotionProcessor.from_pretrained(folder)
expected = vectors(local, processor)
np.savez(root / "expected.npz", **expected)
found = {"from the Hub": vectors(AutoModel.from_pretrained(MODEL).eval(), AutoProcessor.from_pretrained(MODEL))}
found["at a tag"] = vectors(AutoModel.from_pretrained(MODEL, revision="v1").eval(), processor)
tower = LexMotionTextModel.from_pretrained(MODEL).eval()
with torch.no_grad():
    found["the text tower"] = {"text": tower(**tokens(processor)).text_embeds.numpy()}

local.push_to_hub(PARTS)
processor.push_to_hub(PARTS)
found["pushed by hand"] = vectors(AutoModel.from_pretrained(PARTS).eval(), AutoProcessor.from_pretrained(PARTS))
text = as_masked_lm(local.text_model)
text.push_to_hub(TEXT)
processor.tokenizer._set_processor_class(None)
processor.tokenizer.push_to_hub(TEXT)

missing = None
try:
    AutoModel.from_pretrained("user/nothing")
except OSError as error:
    missing = str(error)
from datasets import load_dataset
rows = list(load_dataset(CORPUS, split="test", streaming=True))
equal = {name: all(np.array_equal(value, expected[side]) for side, value in sides.items())
         for name, sides in found.items()}
facts = {"equal": equal, "missing": missing, "rows": len(rows), "motion": np.shape(rows[0]["motion"])[1],
         "captions": rows[0]["captions"], "words": int((expected["text"] > 0).sum())}
(root / "with.json").write_text(json.dumps(facts))
"""

WITHOUT_PACKAGE = """
import importlib.util
for name in ("lexmotion", "modeling_lexmotion", "processing"):
    assert importlib.util.find_spec(name) is None, name
from transformers import AutoConfig, AutoModel, AutoProcessor
from sentence_transformers import SparseEncoder
expected = np.load(root / "expected.npz")
remote = {"trust_remote_code": True}
model = AutoModel.from_pretrained(MODEL, **remote).eval()
processor = AutoProcessor.from_pretrained(MODEL, **remote)
found = {"whole": vectors(model, processor)}
tower = AutoModel.from_pretrained(MODEL, config=AutoConfig.from_pretrained(MODEL, **remote).text_config, **remote)
with torch.no_grad():
    found["the text tower"] = {"text": tower.eval()(**tokens(processor)).text_embeds.numpy()}
equal = {name: all(np.array_equal(value, expected[side]) for side, value in sides.items())
         for name, sides in found.items()}
from transformers import pipeline
classify = pipeline("zero-shot-motion-classification", model=MODEL, **remote)
labels = classify(np.load(root / "motion.npy"), candidate_labels=["walks", "kicks"], fps=20)
encoder = SparseEncoder(TEXT)
encoded = encoder.encode(CAPTIONS, convert_to_tensor=True, convert_to_sparse_tensor=False).float().numpy()
facts = {"equal": equal, "sentence_transformers": float(np.abs(encoded - expected["text"]).max()),
         "module": type(model).__module__, "encoded": int(model.encode_text(CAPTIONS, precision="fp32").nnz),
         "labels": labels, "known": "lexmotion" in sys.modules}
(root / "without.json").write_text(json.dumps(facts))
"""

OFFLINE = """
def refuse(event, arguments):
    internet = event == "socket.connect" and not isinstance(arguments[1], (str, bytes))
    if internet or event in ("socket.getaddrinfo", "socket.sendto"):
        raise AssertionError(f"the network was used: {event} {arguments}")

sys.addaudithook(refuse)
import importlib
import pkgutil
import lexmotion
for name in lexmotion.__all__:
    getattr(lexmotion, name)
imported = []
names = [f"lexmotion.{module.name}" for module in pkgutil.iter_modules(lexmotion.__path__)]
for room in ("baselines", "processing", "training", "evaluation", "hub_cards"):
    package = importlib.import_module(f"lexmotion.{room}")
    names += [module.name for module in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]
for name in names:
    if name.endswith(("__main__", "space.app")):
        continue
    try:
        importlib.import_module(name)
        imported.append(name)
    except ImportError as error:
        assert not str(error.name).startswith("lexmotion"), error
from transformers import AutoModel, AutoProcessor
expected = np.load(root / "expected.npz")
again = vectors(AutoModel.from_pretrained(MODEL).eval(), AutoProcessor.from_pretrained(MODEL))
facts = {"imported": len(imported), "equal": all(np.array_equal(again[side], expected[side]) for side in again)}
(root / "offline.json").write_text(json.dumps(facts))
"""


def run(code, *words, python=(), **environment):
    """Run a script in a process of its own, and end the test with its words when it fails."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTHON", "COV_"))}
    done = subprocess.run(
        [sys.executable, *python, "-c", COMMON + code, *map(str, words)],
        env={**kept, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", **environment},
        cwd=words[0],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.fixture(scope="module")
def world(tmp_path_factory, hub_recipe):
    """Where the processes leave what they found, and the Hub as it is in the end."""
    root = tmp_path_factory.mktemp("world")
    with LoopbackHub() as hub:
        client = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(root / "home")}
        run(WITH_PACKAGE, root, json.dumps(hub_recipe), **client)
        packages = os.pathsep.join(dict.fromkeys(sysconfig.get_paths()[name] for name in ("purelib", "platlib")))
        # -S passes over the .pth file that makes this checkout importable; the other packages come by PYTHONPATH.
        clean = {**client, "HF_HOME": str(root / "clean"), "HF_TOKEN": "", "PYTHONPATH": packages}
        run(WITHOUT_PACKAGE, root, python=("-S",), **clean)
    run(OFFLINE, root, HF_HUB_OFFLINE="1", HF_HOME=str(root / "home"))
    facts = {name: json.loads((root / f"{name}.json").read_text()) for name in ("with", "without", "offline")}
    return root, hub, facts


def test_all_ways_of_loading_give_the_same_vectors(world):
    facts = world[2]
    names = {"from the Hub", "at a tag", "the text tower", "pushed by hand"}
    assert facts["with"]["equal"] == dict.fromkeys(names, True) and facts["with"]["words"] > 0


def test_a_machine_without_the_package_gets_the_same_vectors(world):
    facts = world[2]["without"]
    assert facts["equal"] == {"whole": True, "the text tower": True} and not facts["known"]
    assert facts["module"].startswith("transformers_modules.") and facts["encoded"] > 0


def test_a_machine_without_the_package_runs_the_pipeline(world):
    labels = world[2]["without"]["labels"]
    assert {entry["label"] for entry in labels} == {"walks", "kicks"}
    assert sum(entry["score"] for entry in labels) == pytest.approx(1.0)


def test_sentence_transformers_gets_the_same_vectors(world):
    assert world[2]["without"]["sentence_transformers"] < 1e-5


def test_the_second_push_made_no_commit(world):
    hub = world[1]
    assert hub.repositories["model", MODEL].messages == ["initial commit", "Upload model"]
    assert hub.repositories["dataset", CORPUS].messages == ["initial commit", "Upload dataset"]


def test_the_corpus_is_streamed(world):
    facts = world[2]["with"]
    assert facts["rows"] == 6 and facts["motion"] == 66 and facts["captions"]


def test_a_missing_repository_is_named(world):
    assert "user/nothing" in world[2]["with"]["missing"]


def test_nothing_needs_the_network_to_be_imported_or_read_from_the_cache(world):
    facts = world[2]["offline"]
    assert facts["imported"] > 60 and facts["equal"]


def test_the_card_names_the_model_and_its_code(world):
    files = world[1].repositories["model", MODEL]
    card = files.commits[files.branches["main"]]["README.md"].decode()
    assert f'from_pretrained("{MODEL}", trust_remote_code=True)' in card and "| seeds | 3 |" in card
    assert np.load(world[0] / "expected.npz")["motion"].shape[0] == 1
