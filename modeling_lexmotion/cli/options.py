"""Options that several commands share, and the parsing of their values."""

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from lexmotion import shipped

DEFAULT_MODEL = shipped.DEFAULT
SPLIT_NAMES = {"val": "validation"}

DatasetOption = Annotated[
    Path,
    typer.Option(
        help="Folder written by `lexmotion prepare`. Example: --dataset prepared/humanml3d", show_default=False
    ),
]
RecipeOption = Annotated[
    str,
    typer.Option(help="tiny, small, kit (for KIT-ML), base, or your own YAML file. Example: --recipe my_recipe.yaml"),
]
ModelOption = Annotated[
    str,
    typer.Option(help="Trained model: folder, Hub name, or one of the package. Example: --model runs/small/model"),
]
SplitOption = Annotated[
    str, typer.Option(help="train, validation (or val), test or another prepared split. Example: --split test")
]
SplitsOption = Annotated[
    list[str] | None, typer.Option("--split", help="Split to use. Repeatable. If unset, all. Example: --split test")
]
BatchSizeOption = Annotated[int, typer.Option(min=1, help="Motions or captions per batch. Example: --batch-size 256")]
DeviceOption = Annotated[
    str | None, typer.Option(help="Device to compute on. If unset, a GPU if available. Example: --device cpu")
]
ViewsOption = Annotated[
    int,
    typer.Option(
        help="Views of each motion to average: 1, 2 (and its mirror image, its words swapped back) or 4 (and two "
        "crops); takes as many times longer. Example: --views 4"
    ),
]
IndexArgument = Annotated[Path, typer.Argument(metavar="INDEX", help="Folder of the index.", show_default=False)]


# Fields of an options dataclass that a command offers, with their types and examples; see `with_options`.
READING: dict[str, tuple[Any, str]] = {
    "fps": (float | None, "30"),
    "units": (str | None, "cm"),
    "up": (str | None, "z"),
    "mapping": (str | None, "rig.json"),
    "key": (str | None, "positions"),
    "body_model": (Path | None, "smplh"),
}
PREPARE: dict[str, tuple[Any, str]] = {
    "layout": (str, "kit-ml"),
    "text_model": (str, "distilbert/distilbert-base-uncased"),
    "processor": (Path | None, "prepared/humanml3d/processor"),
    "representation": (str, "humanml3d"),
    "max_frames": (int, "196"),
    "fps": (float | None, "20"),
    "units": (str | None, "cm"),
    "up": (str | None, "z"),
    "vocabulary_filter": (str, "words"),
    "min_document_frequency": (int, "2"),
    "captions": (Path | None, "kit_captions.jsonl"),
    "leave_out": (list[Path] | None, "doubtful.csv"),
    "overlay": (list[Path] | None, "repaired"),
    "whole_words": (int, "20"),
    "extra_captions": (list[Path] | None, "captions/train.jsonl"),
    "extra_motion": (list[Path] | None, "unlabelled"),
    "exclude_ids": (list[Path] | None, "dev.txt"),
    "mirror": (str, "derive"),
}

SplitFilesOption = Annotated[
    list[str] | None,
    typer.Option(
        help="SPLIT=FILE: prepare only these splits, from a file of ids in SOURCE or a path. Repeatable; files of "
        "one split add up. If unset, all standard splits. Example: --split train=train_nodev.txt --split val=dev.txt"
    ),
]
UriOption = Annotated[
    str | None,
    typer.Option(help="New address of the index's Milvus or Postgres, if it moved. Example: --uri http://HOST:19530"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON. Example: --json")]


def split_names(splits: list[str] | None) -> list[str] | None:
    """Convert names of splits to those of prepared corpora; None stays None."""
    return None if splits is None else [SPLIT_NAMES.get(name, name) for name in splits]


def with_options(options: type, offered: dict[str, tuple[Any, str]]) -> Callable[[Callable], Callable]:
    """Replace a command's parameter of an options dataclass by one option per field.

    Args:
        options: dataclass whose defaults are those of the command, with the help texts under `Args:`.
        offered: fields to offer, each with its type and an example; the other fields keep their defaults.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(options)}
    arguments = inspect.cleandoc(options.__doc__ or "").partition("Args:\n")[2]
    texts = dict(re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", arguments, re.MULTILINE))
    parameters = []
    for name, (kind, example) in offered.items():
        text = " ".join(texts.get(name, "").split()) + " Repeatable." * (defaults[name] == ())
        text += f" Example: --{name.replace('_', '-')} {example}"
        option = Annotated[kind, typer.Option(help=text)]  # type: ignore[valid-type]
        default = defaults[name] or None  # empty sequences are not shown
        parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=option))

    def decorate(verb: Callable) -> Callable:
        given_parameters = inspect.signature(verb).parameters.values()
        own = [parameter.replace(kind=parameter.KEYWORD_ONLY) for parameter in given_parameters]
        (place,) = (number for number, parameter in enumerate(own) if parameter.annotation is options)

        @functools.wraps(verb)
        def command(**given: Any) -> Any:
            values = {name: given.pop(name) for name in offered}
            chosen = options(**{name: value for name, value in values.items() if value is not None})
            return verb(**given, **{own[place].name: chosen})

        shown = [*own[:place], *parameters, *own[place + 1 :]]
        command.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
        return command

    return decorate


def without_given(context: typer.Context, values: dict[str, Any]) -> dict[str, Any]:
    """Return the values whose option is not on the command line."""
    sources = {name: context.get_parameter_source(name) for name in values}
    return {name: value for name, value in values.items() if getattr(sources[name], "name", "") != "COMMANDLINE"}


def parse_pairs(pairs: list[str], option: str, example: str) -> dict[str, str]:
    """Parse `["a=1", "b=x=y"]` as `{"a": "1", "b": "x=y"}`; a missing `=` or a repeated name is an error."""
    parsed: dict[str, str] = {}
    for name, value in _pairs(pairs, option, example):
        if name in parsed:
            raise ValueError(f"{option} {name}: got both {parsed[name]!r} and {value!r}; pass it once")
        parsed[name] = value
    return parsed


def parse_lists(pairs: list[str], option: str, example: str) -> dict[str, list[str]]:
    """Parse `["a=1", "b=2", "a=3"]` as `{"a": ["1", "3"], "b": ["2"]}`; a missing `=` is an error."""
    parsed: dict[str, list[str]] = {}
    for name, value in _pairs(pairs, option, example):
        parsed.setdefault(name, []).append(value)
    return parsed


def _pairs(pairs: list[str], option: str, example: str) -> Iterator[tuple[str, str]]:
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals and value):
            raise ValueError(f"{option}: expected NAME=VALUE, got {pair!r}; for example {option} {example}")
        yield name, value


def parse_factors(pairs: list[str]) -> dict[str, float]:
    """Parse `["left=2"]` as `{"left": 2.0}`."""
    factors = {}
    for word, value in parse_pairs(pairs, "--boost", "left=2").items():
        try:
            factors[word] = float(value)
        except ValueError as error:
            raise ValueError(f"--boost: expected WORD=NUMBER, got {word}={value}; for example left=2") from error
    return factors
