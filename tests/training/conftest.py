"""A tiny prepared corpus, its processor and a recipe of one-layer towers."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
import yaml

MODEL = {
    "text_config": {
        "encoder_config": {
            "model_type": "bert",
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "max_position_embeddings": 64,
            "hidden_dropout_prob": 0.1,
            "attention_probs_dropout_prob": 0.1,
        },
        "num_decoder_layers": 1,
    },
    "motion_config": {
        "patch_frames": 8,
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "hidden_dropout": 0.1,
        "decoder_hidden_size": 32,
        "num_decoder_layers": 1,
        "num_feature_decoder_layers": 1,
        "num_bottleneck_decoder_layers": 1,
        "contrast_hidden_size": 32,
        "contrast_size": 16,
    },
}
SETTINGS = {
    "max_text_length": 32,
    "batch_size": 8,
    "num_steps": 6,
    "logging_steps": 1,
    "eval_steps": 3,
    "learning_rate": 1e-3,
    "text_learning_rate": 1e-3,
    "head_learning_rate": 1e-3,
    "decoder_learning_rate": 1e-3,
    "use_cpu": True,
    "progress": False,
    "prefetch": 0,
}


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """Folder of a prepared synthetic corpus: 48 training, 12 validation and 12 test motions."""
    from lexmotion.processing.corpora.prepare import prepare
    from lexmotion.processing.corpora.synthetic import generate_corpus

    root = tmp_path_factory.mktemp("corpus")
    source = generate_corpus(root / "source", {"train": 48, "validation": 12, "test": 12}, seed=0)
    prepare(source, root / "prepared", max_frames=64, progress=False)
    return root / "prepared"


@pytest.fixture(scope="session")
def data(prepared):
    """The same folder, read as the pipeline reads it."""
    from lexmotion.training.data import PreparedData

    return PreparedData.read(prepared)


@pytest.fixture
def recipe():
    """A recipe of four short phases."""
    return {
        "name": "test",
        "seed": 0,
        **MODEL,
        **SETTINGS,
        "phases": {"lexmlm": {}, "cmmm": {}, "lexmmm": {}, "lexcmlp": {"caption_features": False, "ema_decay": 0.9}},
    }


@pytest.fixture
def recipe_file(recipe, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return path


@pytest.fixture
def make_trainer(data, recipe, tmp_path):
    """make_trainer(phase, **settings) -> a trainer on the tiny corpus, in `tmp_path / name`."""
    from lexmotion.training.data import Splits
    from lexmotion.training.recipe import run_arguments, task_values
    from lexmotion.training.tasks import TASKS

    def make(phase, name="run", train_corpus=None, **settings):
        values = {**task_values(recipe, phase), "output_dir": str(tmp_path / name), **settings}
        arguments = run_arguments(phase, values)
        corpus = train_corpus or data.corpus("train", 32)
        validation = data.corpus(arguments.data.eval_split, 32)
        splits = Splits(corpus, validation, data.processor)
        return TASKS[phase].trainer(TASKS[phase].build(arguments, data.processor), arguments, splits)

    return make


@pytest.fixture
def read_log():
    """read_log(folder) -> lines of log.jsonl without the wall-clock column."""
    import json

    def read(folder):
        lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        for line in lines:
            line.pop("seconds", None)
        return lines

    return read
