"""One training per folder: a lock that outlives no process, and the leftovers of killed ones."""

import subprocess
import sys
from contextlib import ExitStack

import pytest

from lexmotion.common.files import remove_leftovers
from lexmotion.training.__main__ import main
from lexmotion.training.comparison.rows import ROWS
from lexmotion.training.comparison.runner import Comparison
from lexmotion.training.locks import FolderBusyError, sole_training
from lexmotion.training.pipeline import train

HOLDER = """
import sys, time
from lexmotion.training.locks import sole_training
with sole_training(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_second_training_is_refused_until_the_first_is_killed(prepared, recipe, recipe_file, tmp_path):
    run = tmp_path / "run"
    words = [sys.executable, "-c", HOLDER, str(run)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as holder, ExitStack() as stack:
        stack.callback(holder.kill)  # also when an assertion fails: leaving Popen waits for the process
        assert holder.stdout.readline() == "held\n"
        before = sorted(path.name for path in run.iterdir())
        with pytest.raises(FolderBusyError, match=r"run: .*output_dir"):
            train(recipe, prepared, run)
        task = ["lexmlm", "--config", str(recipe_file), "--dataset", str(prepared), "--output_dir", str(run)]
        with pytest.raises(SystemExit, match=r"run: .*output_dir"):  # the command ends in one line
            main(task)
        assert sorted(path.name for path in run.iterdir()) == before
    with sole_training(run):
        pass


def test_a_task_of_a_run_is_refused_while_the_run_trains_it(prepared, recipe, tmp_path):
    with sole_training(tmp_path / "run" / "lexmlm"), pytest.raises(FolderBusyError, match=r"run/lexmlm: .*output_dir"):
        train(recipe, prepared, tmp_path / "run")


def test_a_row_of_a_comparison_is_refused_while_another_training_has_its_folder(prepared, recipe, tmp_path):
    comparison = Comparison(prepared, tmp_path, recipe)
    with sole_training(tmp_path / "iv" / "seed0" / "run"), pytest.raises(FolderBusyError, match=r"run: .*output_dir"):
        comparison.run([ROWS["iv"]], [0])


def test_the_lock_is_released_by_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), sole_training(tmp_path):
        raise ZeroDivisionError
    with sole_training(tmp_path):
        pass


def test_leftovers_are_removed_and_files_of_the_user_stay(tmp_path):
    for name in (".run.json.99.tmp", ".run.99.partial.json", ".model.99.partial.safetensors", ".log.99.partial"):
        (tmp_path / name).write_text("{")
    for name in (".checkpoint-4.99.tmp", ".checkpoint-4.99.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").touch()
    mine = {".notes.tmp", ".env", "a.99.tmp", ".2024.old"}
    for name in mine:
        (tmp_path / name).write_text("mine")
    with sole_training(tmp_path):
        assert {path.name for path in tmp_path.iterdir()} - {".lock"} == mine
    remove_leftovers(tmp_path / "missing")


def test_leftovers_beside_the_best_weights_are_removed(make_trainer):
    trainer = make_trainer("lexmlm", num_steps=1, eval_steps=1)
    left = trainer.output_dir / "best" / ".checkpoint-1.99.tmp"
    left.mkdir(parents=True)
    trainer.train()
    assert not left.exists() and (left.parent / "checkpoint-1").is_dir()


def test_a_damaged_log_loses_its_damaged_lines_alone(tmp_path):
    from lexmotion.training.trainer import TrainingLog

    lines = [
        b'{"step": 1}',
        b'{"stfp": 2}',
        b'{"step": "3"}',
        b'{"step": \xff}',
        b"[4]",
        b'{"step": 5}',
        b'{"step": 6}',
    ]
    (tmp_path / "log.jsonl").write_bytes(b"\n".join(lines))
    TrainingLog(tmp_path / "log.jsonl", None, 1, False).trim(5)
    assert (tmp_path / "log.jsonl").read_bytes().splitlines() == [lines[0], lines[5]]
