"""A tiny trained model beside its run record, a loopback Hub, and the client that talks to it."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from loopback_hub import TOKEN, LoopbackHub  # noqa: E402

PHASE = {
    "text_config": {
        "encoder_config": {
            "model_type": "bert",
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "max_position_embeddings": 64,
        },
        "num_decoder_layers": 1,
    },
    "motion_config": {
        "patch_frames": 16,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "decoder_hidden_size": 16,
        "num_decoder_layers": 1,
        "num_feature_decoder_layers": 1,
        "num_bottleneck_decoder_layers": 1,
        "contrast_hidden_size": 16,
        "contrast_size": 8,
    },
}
RECIPE = {
    "name": "test",
    "seed": 3,
    **PHASE,
    "num_steps": 2,
    "batch_size": 8,
    "use_cpu": True,
    "progress": False,
    "prefetch": 0,
    "max_text_length": 32,
    "phases": {"lexmlm": False, "cmmm": False, "lexmmm": False, "lexcmlp": {"caption_features": False}},
}


@pytest.fixture(scope="session")
def hub_recipe():
    """The recipe of the model these tests push."""
    return RECIPE


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """Folder with `prepared` (24, 6 and 6 motions) and `run/model`, after two steps of phase iv."""
    import torch

    from lexmotion.processing.corpora.prepare import prepare
    from lexmotion.processing.corpora.synthetic import generate_corpus
    from lexmotion.training.pipeline import train

    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("hub")
    source = generate_corpus(root / "source", {"train": 24, "validation": 6, "test": 6}, seed=0)
    prepare(source, root / "prepared", max_frames=48, source_name="synthetic", progress=False)
    train(RECIPE, root / "prepared", root / "run")
    return root


@pytest.fixture
def model_dir(trained, tmp_path):
    """A copy of the model to change, with the run record above it."""
    import shutil

    shutil.copytree(trained / "run" / "model", tmp_path / "run" / "model")
    shutil.copy(trained / "run" / "run.json", tmp_path / "run" / "run.json")
    return tmp_path / "run" / "model"


@pytest.fixture
def hub(monkeypatch):
    """A Hub that nobody has pushed to; the client's other way of uploading, Xet, is switched off."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with LoopbackHub() as server:
        yield server


@pytest.fixture
def api(hub):
    """The real client, logged in to it."""
    from huggingface_hub import HfApi

    return HfApi(endpoint=hub.url, token=TOKEN)
