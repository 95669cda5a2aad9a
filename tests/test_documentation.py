"""What the documentation shows is true: docstring examples run, commands named in the README exist."""

import doctest
import importlib
import pkgutil
import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

import lexmotion
from lexmotion import cli

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("processing", "training", "evaluation", "hub_cards")


def module_names():
    """Every module of the package, found in the folders of the rooms."""
    names = [f"lexmotion.{module.name}" for module in pkgutil.iter_modules(lexmotion.__path__)]
    for room in ("baselines", "conditioning", *ROOMS):
        package = importlib.import_module(f"lexmotion.{room}")
        names += [module.name for module in pkgutil.walk_packages(package.__path__, f"lexmotion.{room}.")]
    return sorted(name for name in names if not name.endswith("__main__"))


@pytest.mark.parametrize("name", module_names())
def test_docstring_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    result = doctest.testmod(importlib.import_module(name), optionflags=flags)
    assert result.failed == 0


def shell_lines():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)
    return [line.split("#")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


@pytest.mark.parametrize("line", [line for line in shell_lines() if line.startswith("lexmotion ")])
def test_the_readme_names_real_options(line):
    words = shlex.split(line)[1:]
    command = get_command(cli.app)
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("-")} <= known


@pytest.mark.parametrize("line", [line for line in shell_lines() if line.startswith("make ")])
def test_the_readme_names_real_targets(line):
    target = line.split()[1]
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)


def test_continuous_integration_runs_commands_of_the_readme():
    lines = shell_lines()
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    steps = re.search(r"for step in (.*?); do", script).group(1).split()
    assert steps == ["quality", "test"] and all(any(line == f"make {step}" for line in lines) for step in steps)


def test_links_of_the_readme_lead_somewhere():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    assert links and [link for link in links if not (ROOT / link).exists()] == []
