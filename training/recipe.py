"""
Recipes: the numbers of one result as YAML, overridden by dotted keys, handed down from the top level to each task.

A recipe has top-level keys shared by all tasks and one section for each task:

```yaml
seed: 0
text_model: minilm
phases:
  lexmlm: {num_steps: 1000, learning_rate: 5.0e-5}
  lexcmlp: {num_steps: 2000, batch_size: 64}
```
"""

import argparse
import dataclasses
import difflib
import json
import os
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from .arguments import RunArguments, build, convert, plain_type
from .tasks import TASKS, find_task

RECIPES = Path(__file__).parent / "recipes"
RECIPE_KEYS = ("name", "description", "phases", "baselines", "compare")  # a recipe's own; all else are arguments


def run_arguments(name: str, values: dict[str, Any]) -> RunArguments:
    """
    The arguments of one task from a flat mapping.

    Raises:
        ValueError: an unknown task, an unknown key (with the nearest known one), or a value of the wrong type.
    """
    task = find_task(name)
    values = with_moved_options(name, values)
    known = task.argument_names()
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{name} has no argument {key!r}{hint}")
    return RunArguments(name, *(build(part, values) for part in task.parts))


def with_moved_options(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """
    The values of a recipe or of a finished run, with training options of earlier versions where they are today.

    Some options of a task were fields of the model configurations, see `Task.moved`; a task takes those that are its
    own and leaves the others out.
    """
    values = dict(values)
    for section in ("model_config", "motion_config"):
        owners = {field: task.name for task in TASKS.values() for field in task.moved.get(section, ())}
        fields = convert(section, values.get(section), dict | None)
        if fields and not owners.keys().isdisjoint(fields):
            own = {field: value for field, value in fields.items() if owners.get(field) == name}
            values = {**own, **values, section: {k: v for k, v in fields.items() if k not in owners} or None}
    return values


def load_recipe(recipe: str | os.PathLike | dict) -> dict[str, Any]:
    """
    A recipe as a mapping: by name (`tiny`, `small`, `base`), by path of a YAML file, or as it is.

    Raises:
        FileNotFoundError: neither a known name nor a file.
        ValueError: not a mapping, or a section of an unknown task.
    """
    if isinstance(recipe, dict):
        content = json.loads(json.dumps(recipe))
    else:
        path = Path(recipe)
        if not path.is_file():
            path = RECIPES / f"{recipe}.yaml"
        if not path.is_file():
            known = ", ".join(sorted(file.stem for file in RECIPES.glob("*.yaml")))
            raise FileNotFoundError(f"no recipe {str(recipe)!r}: neither a YAML file nor one of {known}")
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        content.setdefault("name", path.stem)
    if not isinstance(content, dict):
        raise ValueError(f"a recipe is a mapping, got {type(content).__name__}")
    unknown = set(content.get("phases") or {}) - set(TASKS)
    if unknown:
        raise ValueError(f"unknown tasks {sorted(unknown)} in the recipe; the tasks are {', '.join(TASKS)}")
    return content


def apply_overrides(recipe: dict[str, Any], overrides: dict[str, Any] | list[str] | None) -> dict[str, Any]:
    """
    A copy of the recipe with dotted keys replaced.

    Args:
        overrides: `{"phases.lexcmlp.num_steps": 100}` or `["lexcmlp.num_steps=100"]`; `phases.` may be left out, and
            strings are read as YAML. A task set to `false` is skipped.

    Raises:
        ValueError: an override without `=`, or a path through something that is not a mapping.
    """
    recipe = json.loads(json.dumps(recipe))
    if isinstance(overrides, list | tuple):
        pairs = [item.partition("=") for item in overrides]
        for key, separator, _ in pairs:
            if not separator:
                raise ValueError(f"an override is key=value, got {key!r}")
        overrides = {key: value for key, _, value in pairs}
    for key, value in (overrides or {}).items():
        *path, last = key.split(".")
        if (path or [last])[0] in TASKS:
            path = ["phases", *path]
        value = yaml.safe_load(value) if isinstance(value, str) else value
        node = recipe
        for depth, name in enumerate(path):
            if node.get(name) is None:
                node[name] = {}
            node = node[name]
            if not isinstance(node, dict):
                raise ValueError(f"cannot set {key}: {'.'.join(path[: depth + 1])} is {node!r}, not a section")
        node[last] = value
    return recipe


def task_values(recipe: dict[str, Any], name: str) -> dict[str, Any] | None:
    """
    The flat values of one task: top-level keys under the task's own. None when the recipe skips the task.

    A top-level key that only other tasks know is left out; `RECIPE_KEYS` are the recipe's own.
    """
    if "phases" not in recipe:
        return {key: value for key, value in recipe.items() if key not in RECIPE_KEYS}
    section = (recipe["phases"] or {}).get(name, False)
    if section is False:
        return None
    if section is None:
        section = {}
    if section.get("skip"):
        return None
    own = {key: value for key, value in section.items() if key != "skip"}
    return {**_shared_values(recipe, name), **own}


def baseline_values(recipe: dict[str, Any], system: str, vectors: str = "dense") -> dict[str, Any]:
    """
    The flat values of a baseline: the recipe's top-level keys under those of its section `baselines`.

    Args:
        system: `temos`, `t2m`, `tmr` or `motion_patches`. vectors: `dense` or `lexicon`.

    Raises:
        ValueError: the recipe has no such baseline.
    """
    sections = recipe.get("baselines") or {}
    if system not in sections:
        raise ValueError(
            f"the recipe {recipe.get('name')!r} has no baseline {system!r}, only {', '.join(sections) or 'none'}"
        )
    shared = _shared_values(recipe, "baseline")
    for name in ("text_config", "motion_config", "model_config"):  # LexMotion's sizes, which no baseline reads
        shared.pop(name, None)
    return {**shared, "system": system, "vectors": vectors, **(sections[system] or {})}


def _shared_values(recipe: dict[str, Any], name: str) -> dict[str, Any]:
    """Top-level values that the task knows, and those that no task knows, to be reported."""
    here = TASKS[name].argument_names()
    everywhere = set().union(*(task.argument_names() for task in TASKS.values()))
    return {
        key: value
        for key, value in recipe.items()
        if key not in RECIPE_KEYS and (key in here or key not in everywhere)
    }


def parse_arguments(name: str, argv: list[str] | None = None) -> RunArguments:
    """
    Arguments of `python -m lexmotion.training NAME`: `--config recipe.yaml` gives defaults, flags override them.

    Example:
        >>> parse_arguments("lexcmlp", ["--num_steps", "10", "--learning_rate", "1e-3"]).task.learning_rate
        0.001
    """
    task = find_task(name)
    parser = argparse.ArgumentParser(
        prog=f"python -m lexmotion.training {name}", description=f"{task.title}: {task.summary}"
    )
    parser.add_argument("--config", help="A recipe by name or path; every other flag overrides it.")
    for part in task.parts:
        group = parser.add_argument_group(part.__name__, (part.__doc__ or "").strip().splitlines()[0])
        hints = typing.get_type_hints(part)
        for item in dataclasses.fields(part):
            flags = dict.fromkeys((f"--{item.name}", f"--{item.name.replace('_', '-')}"))
            kind, _ = plain_type(hints[item.name])
            options: dict[str, Any] = {"help": item.metadata["help"].replace("%", "%%"), "default": argparse.SUPPRESS}
            if kind is bool:
                options.update(nargs="?", const=True, metavar="BOOL")
            elif typing.get_origin(kind) is list:
                options.update(nargs="*")
            group.add_argument(*flags, dest=item.name, **options)
    given = vars(parser.parse_args(argv))
    recipe = given.pop("config")
    values: dict[str, Any] | None = {}
    if recipe is not None:
        content = load_recipe(recipe)
        values = task_values(content, name)
        if values is None and "system" in task.argument_names():
            values = baseline_values(content, given.get("system", task.arguments.system))
    if values is None:
        raise ValueError(f"the recipe {recipe!r} skips {name}; add the section or leave --config out")
    return run_arguments(name, {**values, **given})
