"""
Recipes: the arguments behind one result as YAML, with overrides by dotted keys.

Top-level keys apply to all tasks; each task has a section of its own, and `prepare` are the options of the corpus:

```yaml
seed: 0
text_model: minilm
prepare: {representation: humanml3d}
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

from lexmotion.processing.corpora.options import PrepareOptions

from .arguments import RunArguments, build, convert, plain_type
from .tasks import TASKS, find_task

RECIPES = Path(__file__).parent / "recipes"
RECIPE_KEYS = (
    "name",
    "description",
    "prepare",
    "phases",
    "baselines",
    "compare",
)  # others are arguments


def run_arguments(name: str, values: dict[str, Any]) -> RunArguments:
    """
    Build the arguments of one task from a flat mapping.

    Raises:
        ValueError: if the task or a key is unknown (the message suggests a near one), or a value has the wrong type.
    """
    task = find_task(name)
    values = with_moved_options(name, values)
    known = task.argument_names()
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            help_command = f"see `python -m lexmotion.training {name} --help`"
            remedy = f"did you mean {near[0]!r}?" if near else help_command
            raise ValueError(f"{name}: unknown argument {key!r}; {remedy}")
    return RunArguments(name, *(build(part, values) for part in task.parts))


def with_moved_options(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """
    Move training options of earlier versions, in the values of a recipe or a finished run, to their current place.

    Some task arguments used to be fields of the model configurations (`Task.moved`); those of other tasks are dropped.
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
    Load a recipe by name (`tiny`, `small`, `kit`, `base`) or from a YAML file, or copy one given as a mapping.

    Raises:
        FileNotFoundError: if it is neither a known name nor a file.
        ValueError: if it is not a mapping or has a section for an unknown task.
    """
    if isinstance(recipe, dict):
        content = json.loads(json.dumps(recipe))
    else:
        path = Path(recipe)
        if not path.is_file():
            path = RECIPES / f"{recipe}.yaml"
        if not path.is_file():
            known = ", ".join(sorted(file.stem for file in RECIPES.glob("*.yaml")))
            raise FileNotFoundError(f"no recipe {str(recipe)!r}; pass one of {known} or the path of a YAML file")
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        content.setdefault("name", path.stem)
    if not isinstance(content, dict):
        raise ValueError(f"recipe: got {type(content).__name__}; write it as a mapping of keys to values")
    unknown = set(content.get("phases") or {}) - set(TASKS)
    if unknown:
        raise ValueError(f"recipe: unknown tasks {sorted(unknown)} in `phases`; use {', '.join(TASKS)}")
    return content


def prepare_values(recipe: str | os.PathLike | dict) -> dict[str, Any]:
    """
    Return the options of `prepare` that a recipe names: its `text_model`, and those in its section `prepare`.

    Raises:
        FileNotFoundError, ValueError: as in `load_recipe`; ValueError also for an unknown option.
    """
    content = load_recipe(recipe)
    values = {"text_model": content.get("text_model"), **(content.get("prepare") or {})}
    known = [item.name for item in dataclasses.fields(PrepareOptions)]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ValueError(f"recipe: unknown option {unknown[0]!r} in `prepare`; use {', '.join(known)}")
    return {name: value for name, value in values.items() if value is not None}


def apply_overrides(recipe: dict[str, Any], overrides: dict[str, Any] | list[str] | None) -> dict[str, Any]:
    """
    Return a copy of the recipe with dotted keys replaced.

    Args:
        overrides: `{"phases.lexcmlp.num_steps": 100}` or `["lexcmlp.num_steps=100"]`; `phases.` is optional, and
            strings are parsed as YAML. A task set to `false` is skipped.

    Raises:
        ValueError: if an override has no `=`, or its key leads through a value that is not a section.
    """
    recipe = json.loads(json.dumps(recipe))
    if isinstance(overrides, str):
        overrides = [overrides]
    if isinstance(overrides, list | tuple):
        pairs = [item.partition("=") for item in overrides]
        for key, separator, _ in pairs:
            if not separator:
                raise ValueError(f"override: got {key!r}; write it as key=value")
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
                parent = ".".join(path[: depth + 1])
                raise ValueError(f"override {key}: {parent} is {node!r}, not a section; override {parent} instead")
        node[last] = value
    return recipe


def task_values(recipe: dict[str, Any], name: str) -> dict[str, Any] | None:
    """
    Return the flat values of one task, its own section over the top-level keys; None if the recipe skips the task.

    Top-level keys that only other tasks have are left out.
    """
    if "phases" not in recipe:
        return {key: value for key, value in recipe.items() if key not in RECIPE_KEYS}
    section = (recipe["phases"] or {}).get(name, False)
    if section is False:
        return None
    section = dict(section or {})
    return None if section.pop("skip", None) else {**_shared_values(recipe, name), **section}


def baseline_values(recipe: dict[str, Any], system: str, vectors: str = "dense") -> dict[str, Any]:
    """
    Return the flat values of a baseline, its entry in the section `baselines` over the top-level keys.

    Args:
        system: `temos`, `t2m`, `tmr` or `motion_patches`.
        vectors: `dense` or `lexicon`.

    Raises:
        ValueError: if the recipe has no such baseline.
    """
    sections = recipe.get("baselines") or {}
    if system not in sections:
        known = f"only {', '.join(sections)}" if sections else "and no other"
        raise ValueError(f"recipe {recipe.get('name')!r}: no baseline {system!r}, {known}; add it to `baselines`")
    shared = _shared_values(recipe, "baseline")
    for name in ("text_config", "motion_config", "model_config"):  # sizes of LexMotion, not of baselines
        shared.pop(name, None)
    return {**shared, "system": system, "vectors": vectors, **(sections[system] or {})}


def _shared_values(recipe: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the top-level values that the task has, and those that no task has so that they are reported."""
    here = TASKS[name].argument_names()
    everywhere = set().union(*(task.argument_names() for task in TASKS.values()))
    return {
        key: value
        for key, value in recipe.items()
        if key not in RECIPE_KEYS and (key in here or key not in everywhere)
    }


def parse_arguments(name: str, argv: list[str] | None = None) -> RunArguments:
    """
    Parse the command line of `python -m lexmotion.training NAME`; flags override the recipe given by `--config`.

    Example:
        >>> parse_arguments("lexcmlp", ["--num_steps", "10", "--learning_rate", "1e-3"]).task.learning_rate
        0.001
    """
    task = find_task(name)
    parser = argparse.ArgumentParser(
        prog=f"python -m lexmotion.training {name}",
        usage="%(prog)s [--config RECIPE] [--ARGUMENT VALUE ...]",
        description=f"{task.title}: {task.summary}",
    )
    parser.add_argument("--config", help="Recipe, by name or path; all other flags override it.")
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
        raise ValueError(f"recipe {recipe!r} skips {name}; add a section for it or leave out --config")
    return run_arguments(name, {**values, **given})
