"""Options that several commands share, and the parsing of their values."""

from pathlib import Path
from typing import Annotated

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


# How to read a motion file, wherever a command takes one.
FpsOption = Annotated[
    float | None,
    typer.Option(help="Frames a second of the file; unset, what it says, else the model's own. Example: --fps 30"),
]


UnitsOption = Annotated[
    str | None,
    typer.Option(
        help="Unit of the file: m, cm, mm, in, ft, cmu, or metres in a unit; unset, found by the body's height. "
        "Example: --units cm"
    ),
]


UpOption = Annotated[
    str | None,
    typer.Option(help="Vertical axis of the file: y, z, x, -y, -z or -x; unset, found by the body. Example: --up z"),
]


MappingOption = Annotated[
    str | None,
    typer.Option(
        help="Which joint is which: cmu, mixamo, lafan1, motionbuilder, smpl, or a JSON or YAML file of "
        "{joint: name in the file}; unset, found by the names. Example: --mapping rig.json"
    ),
]


KeyOption = Annotated[str | None, typer.Option(help="Array of an .npz file. Example: --key positions")]


BodyModelOption = Annotated[
    Path | None,
    typer.Option(help="Your SMPL-H model, for AMASS files: a .npz file or its folder. Example: --body-model smplh"),
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
