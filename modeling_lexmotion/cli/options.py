"""Options that several commands share, and the parsing of their values."""

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

SPLIT_NAMES = {"val": "validation"}


# What many commands take.
DatasetOption = Annotated[
    Path,
    typer.Option(
        help="Folder written by `lexmotion prepare`. Example: --dataset prepared/humanml3d", show_default=False
    ),
]

RecipeOption = Annotated[
    str, typer.Option(help="tiny, small, base, or a YAML file of your own. Example: --recipe my_recipe.yaml")
]

ModelOption = Annotated[
    str,
    typer.Option(help="Folder or Hub name of a trained model. Example: --model runs/small/model", show_default=False),
]

SplitOption = Annotated[str, typer.Option(help="train, val, test or another prepared one. Example: --split test")]
SplitsOption = Annotated[
    list[str] | None,
    typer.Option("--split", help="Split to take, repeatable; unset, every one. Example: --split test"),
]
BatchSizeOption = Annotated[int, typer.Option(min=1, help="Motions or captions a batch. Example: --batch-size 256")]

DeviceOption = Annotated[
    str | None, typer.Option(help="Where to compute; unset, a GPU where there is one. Example: --device cpu")
]

IndexArgument = Annotated[Path, typer.Argument(metavar="INDEX", help="Folder of the index.", show_default=False)]


# Fields of an options dataclass that a command offers, with their types there and examples; see `with_options`.
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
    "vocabulary_filter": (str, "words"),
    "min_document_frequency": (int, "2"),
    "extra_captions": (list[Path] | None, "captions/train.jsonl"),
    "exclude_ids": (list[Path] | None, "dev.txt"),
    "mirror": (str, "derive"),
}

SplitFilesOption = Annotated[
    list[str] | None,
    typer.Option(
        help="SPLIT=FILE, repeatable: only these splits, each from this file of ids in SOURCE or at a path; "
        "unset, every standard split there is. Example: --split train=train_nodev.txt --split validation=dev.txt"
    ),
]

UriOption = Annotated[
    str | None,
    typer.Option(
        help="Where the index's Milvus or Postgres is now, if it has moved. Example: --uri http://HOST:19530"
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON. Example: --json")]


def split_names(splits: list[str] | None) -> list[str] | None:
    """The names of splits as corpora have them; None stays None."""
    return None if splits is None else [SPLIT_NAMES.get(name, name) for name in splits]


def with_options(options: type, offered: dict[str, tuple[Any, str]]) -> Callable[[Callable], Callable]:
    """
    Give a command the options of a dataclass in place of its parameter of this type.

    Args:
        options: A dataclass; its defaults are those of the command, and the texts under `Args:` are its help.
        offered: Fields to offer, each with its type and an example; the other fields keep their defaults.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(options)}
    arguments = inspect.cleandoc(options.__doc__ or "").partition("Args:\n")[2]
    texts = dict(re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", arguments, re.MULTILINE))
    parameters = []
    for name, (kind, example) in offered.items():
        text = " ".join(texts.get(name, "").split()) + " Repeatable." * (defaults[name] == ())
        text += f" Example: --{name.replace('_', '-')} {example}"
        option = Annotated[kind, typer.Option(help=text, min=1 if kind is int else None)]  # type: ignore[valid-type]
        default = defaults[name] or None  # an empty sequence is nothing to show
        parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=option))

    def decorate(verb: Callable) -> Callable:
        own = [
            parameter.replace(kind=parameter.KEYWORD_ONLY) for parameter in inspect.signature(verb).parameters.values()
        ]
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


def parse_pairs(pairs: list[str], option: str, example: str) -> dict[str, str]:
    """`["a=1", "b=x=y"]` -> `{"a": "1", "b": "x=y"}`; a word without `=` or a name given twice is an error."""
    parsed: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals and value):
            raise ValueError(f"{option} takes NAME=VALUE, got {pair!r}; for example {option} {example}")
        if name in parsed:
            raise ValueError(f"{option} {name} is given twice: {parsed[name]!r} and {value!r}")
        parsed[name] = value
    return parsed


def parse_factors(pairs: list[str]) -> dict[str, float]:
    """`["left=2"]` -> `{"left": 2.0}`."""
    factors = {}
    for word, value in parse_pairs(pairs, "--boost", "left=2").items():
        try:
            factors[word] = float(value)
        except ValueError as error:
            raise ValueError(f"--boost takes WORD=NUMBER, got {word}={value}; for example --boost left=2") from error
    return factors
