"""Import paths that version 0.1.0 documented still work, and say where things are now."""

import importlib
import runpy
import sys

import pytest

from lexmotion.common.moved import COMMANDS, MOVED


@pytest.mark.parametrize("old", MOVED)
def test_an_old_module_is_the_new_one(old):
    sys.modules.pop(old, None)
    with pytest.warns(FutureWarning, match=f"{MOVED[old]}\\b"):
        module = importlib.import_module(old)
    assert module is importlib.import_module(MOVED[old])
    assert module.__spec__.name == MOVED[old]


def test_what_the_readme_imported_is_still_there():
    with pytest.warns(FutureWarning):
        for name in MOVED:
            sys.modules.pop(name, None)
        from lexmotion.evaluation.encode_shards import load_encoded
        from lexmotion.generators import LexMotionTextConditioner, install_clip_shim
        from lexmotion.processing.motion_io import load_motion, save_bvh
    assert all(map(callable, (load_encoded, LexMotionTextConditioner, install_clip_shim, load_motion, save_bvh)))


def test_a_name_that_never_was_is_not_found():
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("lexmotion.processing.motion_ioo")


@pytest.mark.parametrize("old", ["lexmotion.training.lexcmlp", "lexmotion.training.baselines"])
def test_an_old_training_command_runs_the_new_one(old, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["-m", "--help"])
    sys.modules.pop(old, None)
    new = f"python -m lexmotion.training {COMMANDS[old]}"
    with pytest.warns(FutureWarning, match=new), pytest.raises(SystemExit) as done:
        runpy.run_module(old, run_name="__main__")  # as `python -m` does
    assert done.value.code == 0 and "--learning_rate" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name", ["build_index", "encode", "evaluate", "explain", "load_motion", "prepare", "save_bvh", "train"]
)
def test_the_package_offers_its_functions(name):
    import lexmotion

    assert name in dir(lexmotion) and "Args:" in getattr(lexmotion, name).__doc__
