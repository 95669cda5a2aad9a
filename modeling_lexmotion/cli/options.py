"""Options that several commands share, and the parsing of their values."""

import dataclasses
import functools
import inspect
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


BatchSizeOption = Annotated[int, typer.Option(min=1, help="Motions or captions a batch. Example: --batch-size 256")]


DeviceOption = Annotated[
    str | None, typer.Option(help="Where to compute; unset, a GPU where there is one. Example: --device cpu")
]


IndexArgument = Annotated[Path, typer.Argument(metavar="INDEX", help="Folder of the index.", show_default=False)]


# What `prepare` makes of a corpus.
PREPARE: dict[str, Any] = {
    "layout": Annotated[
        str, typer.Option(help="Layout of SOURCE: humanml3d, kit-ml or files. Example: --layout kit-ml")
    ],
    "text_model": Annotated[
        str,
        typer.Option(
            help="Whose tokenizer to use: corpus (a word-level one built from the captions), minilm (extra `minilm`), "
            "a folder or a Hub name. Example: --text-model distilbert/distilbert-base-uncased"
        ),
    ],
    "processor": Annotated[
        Path | None,
        typer.Option(
            help="Folder of a finished processor to use instead of fitting one; needed without a training split. "
            "Example: --processor prepared/humanml3d/processor"
        ),
    ],
    "representation": Annotated[
        str,
        typer.Option(
            help="What the model sees: positions, humanml3d (263 or 251 features) or joint_angles (14 body parts in "
            "place of 5). "
            "Example: --representation humanml3d"
        ),
    ],
    "max_frames": Annotated[int, typer.Option(min=1, help="Frames kept of a motion. Example: --max-frames 196")],
    "fps": Annotated[
        float | None,
        typer.Option(help="Frame rate of the model's input; unset, the corpus's own. Example: --fps 20"),
    ],
    "vocabulary_filter": Annotated[
        str, typer.Option(help="Words the space may use: corpus, words or all. Example: --vocabulary-filter words")
    ],
    "min_document_frequency": Annotated[
        int,
        typer.Option(min=1, help="Captions a word must be in to count as seen. Example: --min-document-frequency 2"),
    ],
    "extra_captions": Annotated[
        list[Path] | None,
        typer.Option(
            help="JSON-lines file of captions without motion, repeatable, for lexicon and phase i. "
            "Example: --extra-captions captions/train.jsonl"
        ),
    ],
    "exclude_ids": Annotated[
        list[Path] | None,
        typer.Option(
            help="File of ids, repeatable, whose extra captions are left out besides the held-out ones. "
            "Example: --exclude-ids dev.txt"
        ),
    ],
    "mirror": Annotated[
        str,
        typer.Option(
            help="Mirrored twins as rows: listed (those in the split files), derive (of every motion) or none. "
            "Example: --mirror derive"
        ),
    ],
}

SplitFilesOption = Annotated[
    list[str] | None,
    typer.Option(
        help="SPLIT=FILE, repeatable: only these splits, each from this file of ids in SOURCE or at a path; "
        "unset, every standard split there is. Example: --split train=train_nodev.txt --split validation=dev.txt"
    ),
]


# How to read a motion file, wherever a command takes one.
READING: dict[str, Any] = {
    "fps": Annotated[
        float | None,
        typer.Option(help="Frames a second of the file; unset, what it says, else the model's own. Example: --fps 30"),
    ],
    "units": Annotated[
        str | None,
        typer.Option(
            help="Unit of the file: m, cm, mm, in, ft, cmu, or metres in a unit; unset, found by the body's height. "
            "Example: --units cm"
        ),
    ],
    "up": Annotated[
        str | None,
        typer.Option(
            help="Vertical axis of the file: y, z, x, -y, -z or -x; unset, found by the body. Example: --up z"
        ),
    ],
    "mapping": Annotated[
        str | None,
        typer.Option(
            help="Which joint is which: cmu, mixamo, lafan1, motionbuilder, smpl, or a JSON or YAML file of "
            "{joint: name in the file}; unset, found by the names. Example: --mapping rig.json"
        ),
    ],
    "key": Annotated[str | None, typer.Option(help="Array of an .npz file. Example: --key positions")],
    "body_model": Annotated[
        Path | None,
        typer.Option(
            help="Your SMPL-H model, for AMASS files: a .npz file or its folder. Example: --body-model smplh"
        ),
    ],
}


UriOption = Annotated[
    str | None,
    typer.Option(
        help="Where the index's Milvus or Postgres is now, if it has moved. Example: --uri http://HOST:19530"
    ),
]


def with_options(options: type, annotations: dict[str, Any]) -> Callable[[Callable], Callable]:
    """
    Give a command the options of a dataclass in place of its parameter of this type.

    Args:
        options: A dataclass; its defaults are those of the command.
        annotations: Fields to offer, each with its type and help; the other fields keep their defaults.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(options)}

    def decorate(verb: Callable) -> Callable:
        @functools.wraps(verb)
        def command(**given: Any) -> Any:
            values = {name: given.pop(name) for name in annotations}
            chosen = options(**{name: value for name, value in values.items() if value is not None})
            return verb(**given, **{place: chosen})

        place, parameters = "", []
        for parameter in inspect.signature(verb).parameters.values():
            if parameter.annotation is options:
                place = parameter.name
                parameters += [
                    # An empty sequence is no default that a command can show.
                    inspect.Parameter(name, parameter.KEYWORD_ONLY, default=defaults[name] or None, annotation=kind)
                    for name, kind in annotations.items()
                ]
            else:
                parameters.append(parameter.replace(kind=parameter.KEYWORD_ONLY))
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
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
