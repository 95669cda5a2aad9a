"""Two gloo processes compute what one computes on the whole batch: losses, gradients, negatives of both."""

import importlib.util
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from lexmotion.training.tasks import PHASES

WORKER = Path(__file__).with_name("distributed_worker.py")


@pytest.fixture(scope="module")
def both(prepared, tmp_path_factory):
    """Output folders of the single process and of the pair."""
    from lexmotion.training.recipe import apply_overrides

    conftest = importlib.util.spec_from_file_location("training_conftest", WORKER.with_name("conftest.py"))
    module = importlib.util.module_from_spec(conftest)
    conftest.loader.exec_module(module)
    root = tmp_path_factory.mktemp("distributed")
    content = {
        "seed": 0,
        **module.MODEL,
        **module.SETTINGS,
        "num_steps": 2,
        "eval_steps": 2,
        "max_grad_norm": 0,
        "phases": {
            "lexmlm": {},
            "cmmm": {},
            "lexmmm": {},
            "lexcmlp": {
                "captions_per_motion": 2,
                "grounding_loss_weight": 0.1,
                "flops_warmup_ratio": 0.0,
                "part_mix_probability": 0.6,
                "token_drop_ratio": 0.3,
                "caption_word_dropout": 0.2,
            },
        },
    }
    # Dropout is drawn by each process for its own rows: without it the two runs are comparable.
    content = apply_overrides(
        content,
        {
            "text_config.encoder_config.hidden_dropout_prob": 0.0,
            "text_config.encoder_config.attention_probs_dropout_prob": 0.0,
            "motion_config.hidden_dropout": 0.0,
        },
    )
    recipe = root / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(content))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
    }
    command = [sys.executable, str(WORKER), str(prepared), str(recipe), str(root / "pair")]
    workers = [
        subprocess.Popen(
            command,
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for rank in range(2)
    ]
    spec = importlib.util.spec_from_file_location("distributed_worker", WORKER)
    worker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(worker)
    worker.run(str(prepared), str(recipe), str(root / "one"))
    try:
        outputs = [process.communicate(timeout=180)[0].decode() for process in workers]
    finally:
        for process in workers:
            process.kill()
    assert [process.returncode for process in workers] == [0, 0], "\n".join(output[-3000:] for output in outputs)
    return root / "one", root / "pair"


def test_there_were_two_processes_with_half_a_batch_each(both):
    assert [(folder / "lexcmlp" / "shape.txt").read_text() for folder in both] == ["1 8", "2 4"]


@pytest.mark.parametrize("phase", PHASES)
def test_gradients_of_two_processes_equal_the_big_batch(both, phase):
    one, pair = (load_file(folder / phase / "gradients.safetensors") for folder in both)
    assert set(one) == set(pair)
    assert one
    for name, gradient in one.items():
        scale = gradient.abs().max().item()
        assert torch.allclose(pair[name], gradient, rtol=1e-3, atol=1e-5 * scale + 1e-7), name


@pytest.mark.parametrize("phase", PHASES)
def test_losses_and_evaluation_of_two_processes_equal_one(both, phase, read_log):
    one, pair = (read_log(folder / phase) for folder in both)
    assert len(one) == len(pair) == 3
    for line, other in zip(one, pair, strict=True):
        assert line.keys() == other.keys()
        for name, value in line.items():
            assert other[name] == pytest.approx(value, rel=2e-3, abs=1e-4), (line["step"], name)
