"""The `lexmotion` command: one verb per room, each room imported when its verb is called.

Only the command line itself is imported here, so that `lexmotion --help` answers at once.
"""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    from rich.table import Table

app = typer.Typer(
    name="lexmotion",
    help="Human motion and language in one space whose dimensions are words.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
evaluate_app = typer.Typer(help="Measure a trained model on a prepared dataset.", no_args_is_help=True)
app.add_typer(evaluate_app, name="evaluate")

# Mistakes a user can make and repair; anything else is a defect and keeps its traceback.
USER_ERRORS = (ValueError, OSError, ImportError, FloatingPointError)
DEBUG_VARIABLE = "LEXMOTION_DEBUG"
SPLIT_NAMES = {"val": "validation", "dev": "validation"}


def main(arguments: list[str] | None = None) -> None:
    """Run the command; errors of use end in one line and exit status 1.

    Args:
        arguments: Words after `lexmotion`; None reads them from the shell.
    """
    try:
        app(args=arguments, prog_name="lexmotion")
    except USER_ERRORS as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        fail(error)
    except KeyboardInterrupt:
        Console(stderr=True).print(
            "[yellow]Stopped.[/] `lexmotion train` continues when the same command is run again."
        )
        sys.exit(130)


def fail(error: BaseException) -> NoReturn:
    """Show `error` as one line on the error stream and exit with status 1."""
    text = " ".join(str(error).split()) or type(error).__name__
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print(f"[bold red]error:[/] {escape(text)}")
    console.print(f"[dim]lexmotion --debug ... (or {DEBUG_VARIABLE}=1) shows the traceback.[/]")
    sys.exit(1)


def show_version(wanted: bool) -> None:
    """Print the version and stop."""
    if wanted:
        from importlib.metadata import version

        Console().print(f"lexmotion {version('lexmotion')}", highlight=False)
        raise typer.Exit


@app.callback()
def common(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version and stop.")
    ] = False,
) -> None:
    """Human motion and language in one space whose dimensions are words.

    Begin with [bold]lexmotion quickstart[/]. Then [bold]prepare[/] a motion corpus, [bold]train[/] the four phases,
    [bold]evaluate[/] retrieval and [bold]explain[/] what the model sees in a motion.
    """
    if debug:
        os.environ[DEBUG_VARIABLE] = "1"


@app.command()
def quickstart(
    output_dir: Annotated[
        Path, typer.Option(help="Folder for corpus, model and results.json. Example: --output-dir runs/quickstart")
    ] = Path("quickstart"),
    seed: Annotated[int, typer.Option(help="Seed of corpus and training. Example: --seed 7")] = 0,
    size: Annotated[
        int | None,
        typer.Option(min=1, help="Number of synthetic motions; unset, the tested size. Example: --size 1200"),
    ] = None,
    held_out: Annotated[
        int | None, typer.Option(min=1, help="How many of them are held out for the test. Example: --held-out 200")
    ] = None,
) -> None:
    """Run the whole pipeline on a small synthetic corpus, from motion files to words.

    Generates the corpus, prepares it, trains the recipe `tiny` through the four phases, evaluates retrieval on motions
    the model has not seen, saves, reloads through AutoModel and AutoProcessor, and prints what it measured.

    Example: [bold]lexmotion quickstart --output-dir runs/quickstart --seed 7[/]
    """
    from lexmotion.training.quickstart import quickstart as run

    choices = {"num_motions": size, "num_test": held_out}
    run(output_dir, seed=seed, console=Console(), **{name: value for name, value in choices.items() if value})


@app.command()
def prepare(
    source: Annotated[
        Path, typer.Argument(help="Folder of the corpus as its project publishes it.", show_default=False)
    ],
    output_dir: Annotated[
        Path, typer.Option(help="Folder to write. Example: --output-dir prepared/humanml3d", show_default=False)
    ],
    layout: Annotated[
        str, typer.Option(help="Layout of SOURCE: humanml3d or kit-ml. Example: --layout kit-ml")
    ] = "humanml3d",
    split: Annotated[
        list[str] | None,
        typer.Option(
            help="SPLIT=FILE, repeatable: a split file other than the standard one, inside SOURCE or a path. "
            "Example: --split train=train_nodev.txt --split test=dev.txt"
        ),
    ] = None,
    text_model: Annotated[
        str | None,
        typer.Option(
            help="Tokenizer for the processor: a folder, a Hub name, or `minilm` (extra `minilm`); unset, a "
            "vocabulary is built from the captions. Example: --text-model distilbert-base-uncased"
        ),
    ] = None,
    processor: Annotated[
        str | None,
        typer.Option(
            help="Folder of a finished processor to use instead of fitting one; needed when SOURCE has no "
            "training split. Example: --processor runs/small/processor"
        ),
    ] = None,
    representation: Annotated[
        str,
        typer.Option(help="Motion input of the model: positions or humanml3d. Example: --representation humanml3d"),
    ] = "positions",
    vocabulary_filter: Annotated[
        str, typer.Option(help="Words the space may use: corpus, words or all. Example: --vocabulary-filter words")
    ] = "corpus",
    max_frames: Annotated[int, typer.Option(min=1, help="Longest input in frames. Example: --max-frames 196")] = 224,
    extra_captions: Annotated[
        Path | None,
        typer.Option(
            help="JSON-lines file of captions without motion, for lexicon and phase i. "
            "Example: --extra-captions captions/train.jsonl"
        ),
    ] = None,
    exclude_ids: Annotated[
        list[Path] | None,
        typer.Option(
            help="File of motion ids, repeatable, whose extra captions are left out. Example: --exclude-ids dev.txt"
        ),
    ] = None,
) -> None:
    """Turn a motion corpus into a Parquet dataset with a fitted processor beside it.

    Reads any subset of the splits. Statistics and lexicon come from the training split alone. report.json says what
    was read, what was skipped and why. Running it again changes nothing.

    Example: [bold]lexmotion prepare HumanML3D --layout humanml3d --output-dir prepared/humanml3d[/]
    """
    from lexmotion.processing.corpora.prepare import prepare as run

    report = run(
        source,
        layout,
        output_dir,
        splits=parse_pairs(split or [], "--split", "train=train_nodev.txt"),
        text_model=text_model,
        processor=processor,
        representation=representation,
        vocabulary_filter=vocabulary_filter,
        max_frames=max_frames,
        extra_captions=extra_captions,
        exclude_ids=exclude_ids or [],
    )
    Console().print(report)


@app.command()
def train(
    dataset: Annotated[
        Path,
        typer.Option(
            help="Folder written by `lexmotion prepare`. Example: --dataset prepared/humanml3d", show_default=False
        ),
    ],
    output_dir: Annotated[
        Path,
        typer.Option(
            help="Folder for checkpoints, the model and run_record.json. Example: --output-dir runs/small",
            show_default=False,
        ),
    ],
    recipe: Annotated[
        str, typer.Option(help="tiny, small, base, or a YAML file of your own. Example: --recipe my_recipe.yaml")
    ] = "small",
    override: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="PHASE.SETTING=VALUE, repeatable: change one value of the recipe. "
            "Example: --set lexcmlp.learning_rate=2e-4 --set seed=1",
        ),
    ] = None,
) -> None:
    """Train the four phases in order: LexMLM, CMMM, LexMMM, LexCMLP.

    Stop it at any time and run the same command again: it goes on at the unfinished step. After each phase its
    acceptance figures are printed; the finished model and processor are saved in OUTPUT_DIR.

    Example: [bold]lexmotion train --recipe small --dataset prepared/humanml3d --output-dir runs/small[/]
    """
    from lexmotion.training.pipeline import train as run

    run(recipe, dataset, output_dir, overrides=parse_pairs(override or [], "--set", "lexcmlp.learning_rate=2e-4"))


@evaluate_app.callback()
def evaluate() -> None:
    """Measure a trained model on a prepared dataset."""


@evaluate_app.command("retrieval")
def evaluate_retrieval(
    model: Annotated[
        str,
        typer.Option(
            help="Folder or Hub name of a trained model. Example: --model runs/small/model", show_default=False
        ),
    ],
    dataset: Annotated[
        Path,
        typer.Option(
            help="Folder written by `lexmotion prepare`. Example: --dataset prepared/humanml3d", show_default=False
        ),
    ],
    split: Annotated[str, typer.Option(help="train, val or test. Example: --split test")] = "val",
    protocol: Annotated[
        list[str] | None,
        typer.Option(
            help="all-strict, all-duplicates, threshold, dissimilar or small-batches, repeatable; all runs every "
            "one that the data allow. Example: --protocol all-strict --protocol small-batches"
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="JSON file for the results. Example: --output results.json")
    ] = None,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Motions or captions a batch. Example: --batch-size 256")
    ] = 64,
    device: Annotated[
        str | None, typer.Option(help="Where to compute; unset, a GPU where there is one. Example: --device cpu")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the protocols that draw. Example: --seed 1")] = 0,
) -> None:
    """Retrieval in both directions: R@1,2,3,5,10, MedR and Rsum, each row under a named protocol.

    Example: [bold]lexmotion evaluate retrieval --model runs/small/model --dataset prepared/humanml3d --split val[/]
    """


@app.command()
def explain(
    model: Annotated[
        str,
        typer.Option(
            help="Folder or Hub name of a trained model. Example: --model runs/small/model", show_default=False
        ),
    ],
    motion: Annotated[
        Path,
        typer.Option(
            help="Motion file (.npy): positions (frames, joints, 3) or features. Example: --motion kick.npy",
            show_default=False,
        ),
    ],
    text: Annotated[
        str | None, typer.Option(help='A caption to compare with. Example: --text "a person kicks with the left leg"')
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option(min=0, help="Frames a second of the file; unset, the model's own. Example: --fps 30"),
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, help="How many words to show. Example: --top-k 20")] = 10,
    figure: Annotated[
        Path | None, typer.Option(help="Picture to write (.png, .svg, .pdf). Example: --figure words.png")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Where to compute; unset, a GPU where there is one. Example: --device cpu")
    ] = None,
) -> None:
    """Show the words a model sees in a motion; with a text, why the two match.

    Each shared word comes with its contribution to the score, the body part and the time window it was read from.

    Example: [bold]lexmotion explain --model quickstart/model --motion quickstart/example.npy --text "someone jumps"[/]
    """


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


if __name__ == "__main__":
    main()
