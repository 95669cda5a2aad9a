"""The scripts in examples/ run on a tiny quickstart, and each has a --help."""

import ast
import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
RUNS = {
    "encode_captions.py": (["a person walks forward", "someone kicks twice", "-k", "3"], "someone kicks twice"),
    "inspect_your_motion.py": (["kick.bvh", "--bvh", "copy.bvh", "--figure", "strip.png"], "written: strip.png"),
    "load_and_search.py": (["a person kicks", "-k", "3", "--boost", "left=2", "--index", "example.index"], "000"),
}


def run(script, words, monkeypatch):
    monkeypatch.setattr(sys, "argv", [str(EXAMPLES / script), *words])
    runpy.run_path(str(EXAMPLES / script), run_name="__main__")


@pytest.mark.slow
@pytest.mark.parametrize("script", RUNS)
def test_an_example_runs(script, workplace, monkeypatch, capsys):
    monkeypatch.chdir(workplace)
    words, printed = RUNS[script]
    run(script, words, monkeypatch)
    assert printed in capsys.readouterr().out


@pytest.mark.parametrize("script", RUNS)
def test_an_example_has_help_with_a_command(script, monkeypatch, capsys):
    with pytest.raises(SystemExit) as stop:
        run(script, ["--help"], monkeypatch)
    assert stop.value.code == 0 and f"python examples/{script}" in capsys.readouterr().out


@pytest.mark.parametrize("script", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_an_example_says_what_it_does(script):
    documentation = ast.get_docstring(ast.parse((EXAMPLES / script).read_text(encoding="utf-8")))
    assert documentation and documentation.splitlines()[0].endswith(".")
