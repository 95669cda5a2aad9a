"""What several rooms' tests share: a word-piece tokenizer of a few dozen words, made in memory."""

import gc
import os
import shutil
import tempfile
from pathlib import Path

import pytest

SLOW_FILES = Path(__file__).with_name("slow_files.txt")
# Where models of the package are unpacked: huggingface_hub reads the variable when it is imported.
CACHE = tempfile.mkdtemp(prefix="lexmotion-tests-")
os.environ["HF_ASSETS_CACHE"] = CACHE
SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = """
a an the person man someone is and then while with his their in to of
walk walks walking run runs jump jumps kick kicks wave waves turn turns step steps sit sits stand stands raise raises
left right forward forwards backward backwards up down around over back both
arm arms leg legs hand hands foot feet head body knee knees
slowly quickly twice once three times in place circle clockwise
cart knee kneel side ways
"""
PIECES = ["##wheel", "##s", "##ing", "##ls", "##ways", "##2"]
ODD_TOKENS = [".", ",", "s", "2", "360", "é", "日"]


def slow_files() -> set[Path]:
    """The files that `make test-fast` leaves out."""
    lines = (line.split("#")[0].strip() for line in SLOW_FILES.read_text(encoding="utf-8").splitlines())
    return {SLOW_FILES.parent / line for line in lines if line}


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not import a slow file when slow tests are left out: what it imports takes time as well."""
    return True if config.option.markexpr == "not slow" and collection_path in slow_files() else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of a slow file as slow."""
    slow = slow_files()
    for item in items:
        if item.path in slow:
            item.add_marker(pytest.mark.slow)


def pytest_collection_finish() -> None:
    """Leave what was imported out of garbage collection, which accelerate asks for after every training."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    gc.unfreeze()
    shutil.rmtree(CACHE, ignore_errors=True)


def tiny_vocabulary() -> list[str]:
    """Special tokens, unused places, words, continuations, and tokens that are no words."""
    return list(
        dict.fromkeys([*SPECIAL_TOKENS, *(f"[unused{i}]" for i in range(4)), *WORDS.split(), *PIECES, *ODD_TOKENS])
    )


@pytest.fixture(scope="session")
def tiny_tokenizer():
    """A BERT tokenizer over `tiny_vocabulary()`."""
    from transformers import BertTokenizer

    return BertTokenizer(vocab={token: id for id, token in enumerate(tiny_vocabulary())}, model_max_length=64)


@pytest.fixture(scope="session")
def workplace(tmp_path_factory):
    """A folder with what the documentation names: a quickstart of three steps per phase, a model, a corpus, files."""
    import numpy as np
    import torch
    from rich.console import Console

    from lexmotion import cli, save_bvh, shipped
    from lexmotion.training.quickstart import quickstart

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("workplace")
    phases = ("lexmlm", "cmmm", "lexmmm", "lexcmlp")
    steps = {f"phases.{phase}.num_steps": 3 for phase in phases} | {
        f"phases.{phase}.batch_size": 8 for phase in phases
    }
    sizes = {"train": 48, "validation": 12, "test": 12}
    overrides = {**steps, "progress": False, "use_cpu": True}
    quickstart(folder / "quickstart", num_motions=sizes, overrides=overrides, console=Console(quiet=True))
    shutil.copytree(folder / "quickstart" / "model", folder / "runs" / "small" / "model")
    shutil.copytree(folder / "quickstart" / "prepared", folder / "prepared" / "humanml3d")
    motion = np.load(folder / "quickstart" / "example.npy", allow_pickle=False)
    save_bvh(folder / "kick.bvh", motion, fps=20)
    np.save(folder / "jump.npy", motion)
    places = {"--model": "quickstart/model", "--dataset": "quickstart/prepared", "--output-dir": "vectors"}
    with pytest.raises(SystemExit, match="0"):
        cli.main(["encode", *(word for option, name in places.items() for word in (option, str(folder / name)))])
    shipped.copy_samples(folder / "motions")
    with pytest.raises(SystemExit, match="0"):
        cli.main(["compact", str(folder / "quickstart" / "model"), str(folder / "weights" / "small")])
    return folder
