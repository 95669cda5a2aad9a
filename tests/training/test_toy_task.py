"""A task of forty lines, without a tower or a prepared corpus, goes all the way: help, training, a kill, a card."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from transformers import PretrainedConfig, PreTrainedModel

from lexmotion.training.__main__ import main
from lexmotion.training.checkpoints import CheckpointFolder
from lexmotion.training.data import Splits
from lexmotion.training.pipeline import train
from lexmotion.training.recipe import run_arguments
from lexmotion.training.tasks import TASKS, Task, register_task
from lexmotion.training.trainer import Trainer


class ToyConfig(PretrainedConfig):
    model_type = "toy"


class ToyModel(PreTrainedModel):
    config_class = ToyConfig

    def __init__(self, config):
        super().__init__(config)
        self.encoder = torch.nn.Conv1d(4, 2, 3, padding=1)
        self.dropout = torch.nn.Dropout(0.1)
        self.decoder = torch.nn.Conv1d(2, 4, 3, padding=1)
        self.post_init()

    def forward(self, values):
        return self.decoder(self.dropout(self.encoder(values)))


class ToyTrainer(Trainer):
    """A convolutional autoencoder of arrays with noise."""

    def collate(self, corpus, rows, random, augment):
        values = corpus[rows]
        return {"noisy": values + 0.1 * random.normal(*values.shape[1:]) * augment, "values": values}

    def compute_loss(self, model, batch):
        return {"loss": torch.nn.functional.mse_loss(model(batch["noisy"]), batch["values"])}

    @torch.no_grad()
    def acceptance(self):
        return {"error": self.evaluate()["loss"], "variance": float(self.eval_corpus.var())}


def build_toy(arguments, processor):
    torch.manual_seed(arguments.task.seed)
    return ToyModel(ToyConfig())


def read_toy(arguments):
    values = torch.randn(40, 4, 16, generator=torch.Generator().manual_seed(0)).cumsum(dim=2)
    return Splits(values[:32], values[32:])


ERROR = ("error", "<", "variance", "error {value:.2f}, variance {reference:.2f}")
TOY = Task("toy", "Toy autoencoder", ToyTrainer, build_toy, read_toy, criteria=[ERROR])


@pytest.fixture(autouse=True)
def registered():
    register_task(TOY)
    yield
    del TASKS["toy"]


SETTINGS = {"num_steps": 60, "batch_size": 8, "learning_rate": 1e-2, "save_steps": 5, "eval_steps": 10}
SETTINGS |= {"logging_steps": 1, "ema_decay": 0.9, "use_cpu": True, "progress": False}


def command(folder, **more):
    settings = {**SETTINGS, **more, "output_dir": folder}
    return ["toy", *(word for name, value in settings.items() for word in (f"--{name}", str(value)))]


def test_it_trains_and_is_judged(tmp_path, read_log):
    result = main(command(tmp_path))
    losses = [line["loss"] for line in read_log(tmp_path) if "loss" in line]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    assert result["title"] == "Toy autoencoder" and [criterion["met"] for criterion in result["criteria"]] == [True]
    assert isinstance(ToyModel.from_pretrained(tmp_path / "model"), ToyModel)
    assert main(command(tmp_path)) == result  # finished already


def test_kill_minus_nine_changes_nothing(tmp_path, read_log):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    worker = subprocess.Popen(
        [sys.executable, __file__, *command(killed, num_steps=300)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 120
    while worker.poll() is None and time.monotonic() < deadline:
        if (killed / "log.jsonl").is_file() and (killed / "log.jsonl").read_bytes().count(b"\n") >= 22:
            break
        time.sleep(0.001)
    worker.send_signal(signal.SIGKILL)
    _, error = worker.communicate()
    assert worker.returncode == -signal.SIGKILL, error.decode()[-2000:]
    assert not (killed / "result.json").exists() and 5 <= CheckpointFolder(killed).steps()[-1] < 300
    one, two = (main(command(folder, num_steps=300)) for folder in (whole, killed))
    assert read_log(killed) == read_log(whole)
    assert one["training"]["best"] == two["training"]["best"] and one["acceptance"] == two["acceptance"]
    weights = [(folder / "model" / "model.safetensors").read_bytes() for folder in (whole, killed)]
    assert weights[0] == weights[1]


def test_it_has_an_entry_in_the_help(capsys):
    for words, shown in (
        (["--help"], "toy (Toy autoencoder): A convolutional"),
        (["toy", "--help"], "--learning_rate"),
    ):
        with pytest.raises(SystemExit, match="0"):
            main(words)
        assert shown in capsys.readouterr().out
    with pytest.raises(ValueError, match="toy.*'text_model'"):
        run_arguments("toy", {"text_model": "minilm"})


def test_a_recipe_runs_it_and_its_model_has_a_card(tmp_path):
    from lexmotion.hub_cards.model_card import ModelCard

    seen = []
    recipe = {"name": "toys", "seed": 3, "phases": {"toy": SETTINGS}}
    record = train(recipe, None, tmp_path, on_task=lambda name, result: seen.append((name, result["title"])))
    assert seen == [("toy", "Toy autoencoder")] and record["dataset"]["rows"] == {"train": 32, "evaluation": 8}
    card = ModelCard.collect(tmp_path / "model", "user/toy").render()
    assert "# user/toy" in card and "Toy autoencoder" in card and "| toy | error |" in card
    assert "* error " in card and "LexMotion" not in card.split("## Training")[0]


def test_a_name_is_given_once():
    assert register_task(TOY) is TOY
    with pytest.raises(ValueError, match="'toy'.*another name"):
        register_task(Task("toy", "Another", ToyTrainer, build_toy, read_toy))


if __name__ == "__main__":
    register_task(TOY)
    main()
