"""The `lexmotion` command: one verb per room, each room imported when its verb is called.

Only the command line itself is imported here, so that `lexmotion --help` answers at once.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

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
index_app = typer.Typer(help="Make and change an index of motions, to search them by words.", no_args_is_help=True)
app.add_typer(index_app, name="index")
export_app = typer.Typer(help="Write a trained model in the format of another library.", no_args_is_help=True)
app.add_typer(export_app, name="export")
report_app = typer.Typer(help="Pictures and pages of a trained model.", no_args_is_help=True)
app.add_typer(report_app, name="report")

# Mistakes a user can make and repair; anything else is a defect and keeps its traceback.
USER_ERRORS = (ValueError, OSError, ImportError, FloatingPointError)
DEBUG_VARIABLE = "LEXMOTION_DEBUG"
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
        typer.Option(min=100, help="Synthetic motions of all splits; unset, the tested size. Example: --size 1000"),
    ] = None,
) -> None:
    """Run the whole pipeline on a small synthetic corpus, from motion files to words.

    Generates the corpus, prepares it, trains the recipe `tiny` through the four phases, evaluates retrieval on motions
    the model has not seen, saves, reloads through AutoModel and AutoProcessor, and prints what it measured.

    Example: [bold]lexmotion quickstart --output-dir runs/quickstart --seed 7[/]
    """
    begin()
    from lexmotion.training.quickstart import quickstart as run

    run(output_dir, seed=seed, num_motions=size, console=Console())


@app.command()
def prepare(
    source: Annotated[
        Path, typer.Argument(help="Folder of the corpus as its project publishes it.", show_default=False)
    ],
    output_dir: Annotated[
        Path, typer.Option(help="Folder to write. Example: --output-dir prepared/humanml3d", show_default=False)
    ],
    layout: Annotated[
        str, typer.Option(help="Layout of SOURCE: humanml3d, kit-ml or files. Example: --layout kit-ml")
    ] = "humanml3d",
    split: Annotated[
        list[str] | None,
        typer.Option(
            help="SPLIT=FILE, repeatable: only these splits, each from this file of ids in SOURCE or at a path; "
            "unset, every standard split there is. Example: --split train=train_nodev.txt --split validation=dev.txt"
        ),
    ] = None,
    text_model: Annotated[
        str,
        typer.Option(
            help="Whose tokenizer to use: corpus (a word-level one built from the captions), minilm (extra `minilm`), "
            "a folder or a Hub name. Example: --text-model distilbert/distilbert-base-uncased"
        ),
    ] = "corpus",
    processor: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a finished processor to use instead of fitting one; needed without a training split. "
            "Example: --processor prepared/humanml3d/processor"
        ),
    ] = None,
    representation: Annotated[
        str,
        typer.Option(
            help="What the model sees: positions, humanml3d (263 or 251 features) or joint_angles (14 body parts in "
            "place of 5). "
            "Example: --representation humanml3d"
        ),
    ] = "positions",
    max_frames: Annotated[int, typer.Option(min=1, help="Frames kept of a motion. Example: --max-frames 196")] = 224,
    fps: Annotated[
        float | None,
        typer.Option(help="Frame rate of the model's input; unset, the corpus's own. Example: --fps 20"),
    ] = None,
    vocabulary_filter: Annotated[
        str, typer.Option(help="Words the space may use: corpus, words or all. Example: --vocabulary-filter words")
    ] = "corpus",
    min_document_frequency: Annotated[
        int,
        typer.Option(min=1, help="Captions a word must be in to count as seen. Example: --min-document-frequency 2"),
    ] = 1,
    extra_captions: Annotated[
        list[Path] | None,
        typer.Option(
            help="JSON-lines file of captions without motion, repeatable, for lexicon and phase i. "
            "Example: --extra-captions captions/train.jsonl"
        ),
    ] = None,
    exclude_ids: Annotated[
        list[Path] | None,
        typer.Option(
            help="File of ids, repeatable, whose extra captions are left out besides the held-out ones. "
            "Example: --exclude-ids dev.txt"
        ),
    ] = None,
    mirror: Annotated[
        str,
        typer.Option(
            help="Mirrored twins as rows: listed (those in the split files), derive (of every motion) or none. "
            "Example: --mirror derive"
        ),
    ] = "listed",
    num_workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Processes that read and write; unset, one for each core (and 256 motions). Example: --num-workers 8",
        ),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            help="I/N: read only this part, into OUTPUT_DIR/shards; run all N, anywhere. Example: --shard 2/8"
        ),
    ] = None,
    merge_shards: Annotated[
        int | None,
        typer.Option(min=1, help="Make the dataset of the N parts that --shard has read. Example: --merge-shards 8"),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a folder that holds something else. Example: --overwrite")
    ] = False,
) -> None:
    """Turn a motion corpus into a Parquet dataset with a fitted processor beside it.

    Reads any subset of the splits. Statistics and lexicon come from the training split alone. report.json says what
    was read, what was skipped and why. Running it again changes nothing. A large corpus can be spread over machines:
    give each the same command and its --shard, then the same command and --merge-shards; the result is the same.

    Example: [bold]lexmotion prepare HumanML3D --layout humanml3d --output-dir prepared/humanml3d[/]
    """
    # On a terminal `datasets` shows how far its workers are.
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "0" if sys.stderr.isatty() else "1")
    begin()
    from lexmotion.processing.corpora.prepare import prepare as run

    splits = parse_pairs(split or [], "--split", "train=train_nodev.txt")
    report = run(
        source,
        layout,
        output_dir,
        splits={SPLIT_NAMES.get(name, name): file for name, file in splits.items()} or None,
        text_model=text_model,
        processor=processor,
        representation=representation,
        max_frames=max_frames,
        fps=fps,
        vocabulary_filter=vocabulary_filter,
        min_document_frequency=min_document_frequency,
        extra_captions=extra_captions or (),
        exclude_ids=exclude_ids or (),
        mirror=mirror,
        num_workers=num_workers,
        shard=shard,
        merge_shards=merge_shards,
        overwrite=overwrite,
        progress=True,
    )
    console = Console(highlight=False)
    console.print(escape(report.summary()))
    place = str(output_dir) if shard is None else f"shard {shard} in {output_dir}"
    console.print(f"{'already there' if report.reused else 'written'}: {escape(place)}")


@app.command()
def train(
    dataset: DatasetOption,
    output_dir: Annotated[
        Path,
        typer.Option(
            help="Folder for checkpoints, the model and run.json. Example: --output-dir runs/small", show_default=False
        ),
    ],
    recipe: RecipeOption = "small",
    override: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="KEY=VALUE, repeatable: change a value of the recipe, dots lead into its sections. "
            "Example: --set seed=1 --set phases.lexcmlp.learning_rate=2e-4",
        ),
    ] = None,
    reuse: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of another training, repeatable: a phase that it finished, the same in every respect, is "
            "copied instead of trained again. Example: --reuse runs/small",
            exists=True,
            file_okay=False,
            show_default=False,
        ),
    ] = None,
) -> None:
    """Train the four phases in order: LexMLM, CMMM, LexMMM, LexCMLP.

    Stop it at any time and run the same command again: it goes on where it stopped. After each phase its acceptance
    figures are printed; the finished model and processor are saved in OUTPUT_DIR/model.

    Example: [bold]lexmotion train --recipe small --dataset prepared/humanml3d --output-dir runs/small[/]
    """
    parse_pairs(override or [], "--set", "phases.lexcmlp.learning_rate=2e-4")
    begin()
    from lexmotion.evaluation.console import phase_table
    from lexmotion.training.pipeline import train as run

    console = Console()
    run(
        recipe,
        dataset,
        output_dir,
        overrides=override,
        on_phase=lambda phase, result: console.print(phase_table({phase: result})),
        reuse=reuse or (),
    )
    console.print(f"model and processor: {escape(str(output_dir / 'model'))}", highlight=False)


@app.command()
def compare(
    dataset: DatasetOption,
    output_dir: Annotated[
        Path,
        typer.Option(
            help="Folder for trainings, results and tables. Example: --output-dir runs/compare", show_default=False
        ),
    ],
    recipe: RecipeOption = "small",
    rows: Annotated[
        str,
        typer.Option(
            help="Rows and groups, with commas: all (the systems), phases, head, improvements, plain "
            "(none of them), none, or single rows; a wrong name lists them. Example: --rows lexmotion,tmr,phases"
        ),
    ] = "all",
    seeds: Annotated[int, typer.Option(min=1, help="Trainings a row, seeds 0, 1, ... Example: --seeds 3")] = 3,
    budget_minutes: Annotated[
        float | None,
        typer.Option(
            help="Minutes of training every row and seed gets; steps are timed first. Unset, the recipe's steps. "
            "Example: --budget-minutes 20"
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="Split the rows are compared on. Example: --split test")] = "test",
    override: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            "--overrides",
            help="KEY=VALUE, repeatable: change a value of the recipe for all rows. "
            "Example: --set phases.lexcmlp.learning_rate=2e-4",
        ),
    ] = None,
    text_encoders: Annotated[
        str | None,
        typer.Option(
            help="Text encoders, with commas: Hub names (T5 too), folders or minilm; each is a row of dense "
            "MotionPatches. Example: --text-encoders google-t5/t5-small,distilbert/distilbert-base-uncased"
        ),
    ] = None,
    reuse: Annotated[
        list[Path] | None,
        typer.Option(
            help="Output folder of the same comparison elsewhere, or an archive of its results, repeatable: they are "
            "read where they fit. Example: --reuse other_machine/compare --reuse docs/results.zip"
        ),
    ] = None,
    keep_weights: Annotated[
        bool,
        typer.Option(
            "--keep-weights/--no-keep-weights",
            help="Keep the trained models once they are scored. Example: --keep-weights",
        ),
    ] = True,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Processor threads; unset, as torch chooses. Example: --threads 1")
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(help="Markdown page to write from all results there are. Example: --report docs/results.md"),
    ] = None,
    archive: Annotated[
        Path | None,
        typer.Option(
            help="Zip file that all results there are are added to, in place of older ones of the same row and seed; "
            "--reuse reads it. Example: --archive docs/results.zip"
        ),
    ] = None,
) -> None:
    """Train LexMotion and its rivals on one harness, and write the tables of the paper with figures measured here.

    Trains what is missing and scores it under all-strict and all-duplicates; the paper's own figures stand beside as
    "paper, other data". Stop it at any time and run the same command again. OUTPUT_DIR gets results.json, results.md,
    results.tex and the training curves; a row's result.json is all they need, so results made elsewhere, in a folder
    or an archive, can be reused.

    Example: [bold]lexmotion compare --dataset prepared/humanml3d --output-dir runs/compare --budget-minutes 20[/]
    """
    parse_pairs(override or [], "--set", "phases.lexcmlp.learning_rate=2e-4")
    begin()
    import torch

    from lexmotion.training.comparison.archive import read_archive
    from lexmotion.training.comparison.report import write_report
    from lexmotion.training.comparison.rows import select_rows
    from lexmotion.training.comparison.runner import Comparison
    from lexmotion.training.comparison.tables import overview_table, write_tables

    if threads is not None:
        torch.set_num_threads(threads)
    encoders = [] if text_encoders is None else [name.strip() for name in text_encoders.split(",") if name.strip()]
    wanted = [] if rows == "none" else [name.strip() for name in rows.split(",") if name.strip()]
    chosen = select_rows(wanted, encoders)
    if archive is not None and archive.exists():
        read_archive(archive)  # a damaged one is told of before anything is trained
    console = Console()
    comparison = Comparison(
        dataset,
        output_dir,
        recipe,
        override,
        split=SPLIT_NAMES.get(split, split),
        budget_minutes=budget_minutes,
        reuse=reuse or (),
        keep_weights=keep_weights,
        notify=lambda text: console.print(escape(text), highlight=False, soft_wrap=True),
    )

    def write(curves: bool) -> dict[str, Any]:
        return write_tables(comparison.collect(), output_dir, comparison.report.layout, curves)

    comparison.run(chosen, range(seeds), on_result=lambda _: write(curves=False))
    console.print(overview_table(write(curves=True)))
    if report is not None:
        write_report(comparison.collect(), report, comparison.command(rows, seeds, text_encoders))
        console.print(f"page: {escape(str(report))}", highlight=False)
    if archive is not None:
        added, replaced = comparison.archive(archive)
        console.print(f"archive: {escape(str(archive))}, {added} added, {replaced} replaced", highlight=False)
    console.print(f"tables: {escape(str(output_dir / 'results.md'))}", highlight=False)


@evaluate_app.callback()
def evaluate() -> None:
    """Measure a trained model on a prepared dataset."""


@evaluate_app.command("retrieval")
def evaluate_retrieval(
    model: ModelOption,
    dataset: DatasetOption,
    split: SplitOption = "val",
    protocol: Annotated[
        list[str] | None,
        typer.Option(
            help="all-strict, all-duplicates, threshold, dissimilar or small-batches, repeatable; all, the default, "
            "runs every one that the data allow. Example: --protocol all-strict --protocol small-batches"
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="JSON file for the results. Example: --output results.json")
    ] = None,
    sentence_model: Annotated[
        str | None,
        typer.Option(
            help="Sentence encoder (folder, Hub name or minilm) that says which captions mean the same, for the "
            "protocol threshold. Example: --sentence-model sentence-transformers/all-mpnet-base-v2"
        ),
    ] = None,
    dissimilar_ids: Annotated[
        Path | None,
        typer.Option(
            help="File of ids, one a line: the gallery of the protocol dissimilar. Example: --dissimilar-ids ids.txt"
        ),
    ] = None,
    batch_size: BatchSizeOption = 64,
    device: DeviceOption = None,
    seed: Annotated[int, typer.Option(help="Seed of the protocols that draw. Example: --seed 1")] = 0,
) -> None:
    """Retrieval in both directions: R@1,2,3,5,10, MedR and Rsum, each row under a named protocol.

    The first caption of each motion is the query. Beside it: how many words are active, and how many of a caption's
    words are among the top words of its motion.

    Example: [bold]lexmotion evaluate retrieval --model runs/small/model --dataset prepared/humanml3d --split val[/]
    """
    begin()
    from lexmotion.evaluation.console import lexical_table, retrieval_table
    from lexmotion.evaluation.model_report import report_model
    from lexmotion.processing.corpora.prepare import PrepareReport, load_prepared
    from lexmotion.processing.text_models import resolve_text_model

    split = SPLIT_NAMES.get(split, split)
    ids = None
    if dissimilar_ids is not None:
        ids = dissimilar_ids.read_text(encoding="utf-8").split()
    rows = load_prepared(dataset, splits=[split])[split]
    loaded, processor = load_model(model, device)
    report, _ = report_model(
        loaded,
        processor,
        rows,
        protocols=protocol or "all",
        sentence_model=None if sentence_model is None else resolve_text_model(sentence_model),
        dissimilar_ids=ids,
        batch_size=batch_size,
        seed=seed,
        progress=True,
    )
    console = Console()
    console.print(
        retrieval_table(report["retrieval"], f"Retrieval, split {escape(split)}"), lexical_table(report["lexical"])
    )
    if "retrieval_words" in report:
        console.print(retrieval_table(report["retrieval_words"], "The same by word vectors alone"))
    if output is not None:
        from importlib.metadata import version

        origin = {
            "model": model,
            "dataset": str(dataset),
            "dataset_fingerprint": PrepareReport.load(dataset).fingerprint,
            "split": split,
            "lexmotion": version("lexmotion"),
        }
        write_json(output, origin | report)
        console.print(f"results: {escape(str(output))}", highlight=False)


@evaluate_app.command("order")
def evaluate_order(
    model: ModelOption,
    dataset: DatasetOption,
    split: SplitOption = "val",
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON. Example: --json")] = False,
    output: Annotated[
        Path | None, typer.Option(help="JSON file for the results. Example: --output order.json")
    ] = None,
    batch_size: BatchSizeOption = 64,
    device: DeviceOption = None,
) -> None:
    """Whether order is heard: how often a caption beats itself with its events exchanged, with its own motion.

    Over all captions that tell several events, ties counting half: 50 % is deaf. Beside it the same with the motions
    of other captions, which is what knowing the usual order is worth.

    Example: [bold]lexmotion evaluate order --model runs/small/model --dataset prepared/humanml3d --split test[/]
    """
    begin()
    from lexmotion.evaluation.console import order_table
    from lexmotion.evaluation.order_test import evaluate_order as run
    from lexmotion.processing.corpora.prepare import load_prepared

    split = SPLIT_NAMES.get(split, split)
    rows = load_prepared(dataset, splits=[split])[split]
    figures = run(*load_model(model, device), rows, batch_size=batch_size, progress=True)
    if as_json:
        typer.echo(json.dumps(figures))
    else:
        Console().print(order_table(figures, f"Order of events, split {escape(split)}"))
    if output is not None:
        write_json(output, {"model": model, "dataset": str(dataset), "split": split, "order": figures})


@evaluate_app.command("ridge-floor")
def evaluate_ridge_floor(
    dataset: DatasetOption,
    split: Annotated[str, typer.Option(help="Split to measure on. Example: --split test")] = "val",
    output: Annotated[
        Path | None, typer.Option(help="JSON file for the results. Example: --output floor.json")
    ] = None,
    penalty: Annotated[float, typer.Option(help="Weight of the squared coefficients. Example: --penalty 100")] = 300.0,
) -> None:
    """What ridge regression from motion statistics to TF-IDF words reaches: a learned model has to clear it.

    Fitted on the training split and its mirror image, measured under all-strict and all-duplicates.

    Example: [bold]lexmotion evaluate ridge-floor --dataset prepared/humanml3d --split val[/]
    """
    begin()
    from lexmotion import LexMotionProcessor
    from lexmotion.evaluation.console import retrieval_table
    from lexmotion.evaluation.encoding import split_motions
    from lexmotion.evaluation.retrieval import evaluate_retrieval
    from lexmotion.evaluation.ridge_floor import RidgeFloor
    from lexmotion.processing.corpora.prepare import PrepareReport, load_prepared

    split = SPLIT_NAMES.get(split, split)
    splits = load_prepared(dataset, splits=["train", split])
    processor = LexMotionProcessor.from_pretrained(dataset / "processor")
    train, rows = splits["train"], splits[split]
    floor = RidgeFloor(penalty, processor.tokenizer, skeleton=processor.feature_extractor.skeleton)
    floor.fit(split_motions(train)[0], train["captions"], train["mirrored_captions"])
    captions = [texts[0] for texts in rows["captions"]]
    similarity = floor.similarity(captions, split_motions(rows)[0])
    retrieval = evaluate_retrieval(similarity, list(rows["id"]), captions, ["all-strict", "all-duplicates"])
    console = Console()
    console.print(retrieval_table(retrieval, f"Ridge floor, split {escape(split)}"))
    if output is not None:
        origin = {
            "model": f"ridge floor, penalty {penalty:g}",
            "dataset": str(dataset),
            "dataset_fingerprint": PrepareReport.load(dataset).fingerprint,
            "split": split,
        }
        write_json(output, origin | {"retrieval": retrieval})
        console.print(f"results: {escape(str(output))}", highlight=False)


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(help="Motion file: .npy, .npz, .bvh or .csv.", show_default=False)],
    fps: FpsOption = None,
    units: UnitsOption = None,
    up: UpOption = None,
    mapping: MappingOption = None,
    skeleton: Annotated[
        str | None,
        typer.Option(help="Joints wanted: humanml3d or kit-ml; unset, those there are. Example: --skeleton humanml3d"),
    ] = None,
    key: KeyOption = None,
    body_model: BodyModelOption = None,
    figure: Annotated[
        Path | None,
        typer.Option(help="Strip of stick figures to write (.png, .svg or .pdf). Example: --figure strip.png"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables. Example: --json")] = False,
) -> None:
    """Say what a motion file is, and what is wrong with it.

    Shows format, joints, frame rate, unit and vertical axis with how sure they are, measures the motion, and lists
    problems with remedies. The exit status is 0 where a model can use the motion, else 1.

    Example: [bold]lexmotion inspect kick.bvh --figure strip.png[/]
    """
    begin()
    from lexmotion.evaluation.console import inspection_tables
    from lexmotion.processing.motion_inspection import inspect_motion

    found = inspect_motion(
        file, fps=fps, skeleton=skeleton, units=units, up=up, mapping=mapping, key=key, body_model=body_model
    )
    console = Console()
    if as_json:
        print(json.dumps(found.to_dict(), indent=2))
    else:
        for table in inspection_tables(found):
            console.print(table)
    if figure is not None and found.motion is not None:
        from lexmotion.evaluation.visualization import facing_front, motion_strip, save_figure

        motion = found.motion
        picture = motion_strip(facing_front(motion.positions, motion.skeleton), motion.skeleton, motion.fps)
        place = save_figure(picture, figure)
        if not as_json:
            console.print(f"picture: {escape(str(place))}", highlight=False)
    if not found.usable:
        raise typer.Exit(1)


@app.command()
def explain(
    model: ModelOption,
    motion: Annotated[
        Path,
        typer.Option(
            help="Motion file: .npy, .npz, .bvh or .csv, as `lexmotion inspect` reads it. Example: --motion kick.bvh",
            show_default=False,
        ),
    ],
    text: Annotated[
        str | None, typer.Option(help='A caption to compare with. Example: --text "a person kicks with the left leg"')
    ] = None,
    fps: FpsOption = None,
    units: UnitsOption = None,
    up: UpOption = None,
    mapping: MappingOption = None,
    key: KeyOption = None,
    body_model: BodyModelOption = None,
    top_k: Annotated[int, typer.Option(min=1, help="How many words to show. Example: --top-k 20")] = 10,
    figure: Annotated[
        Path | None, typer.Option(help="Picture to write (.png, .svg or .pdf). Example: --figure words.png")
    ] = None,
    timeline: Annotated[
        Path | None,
        typer.Option(
            help="Picture of the words over time, with the body part each was seen in. Example: --timeline time.png"
        ),
    ] = None,
    device: DeviceOption = None,
) -> None:
    """Show the words a model sees in a motion; with a text, why the two match.

    Each shared word comes with its contribution to the score, the body part and the time window it was read from.

    Example: [bold]lexmotion explain --model quickstart/model --motion quickstart/example.npy --text "someone jumps"[/]
    """
    if not motion.is_file():
        raise FileNotFoundError(f"no motion file {str(motion)!r}; give a .npy, .npz, .bvh or .csv file")
    begin()
    from lexmotion.evaluation.console import explanation_tables
    from lexmotion.evaluation.explain import explain as run

    loaded, processor = load_model(model, device)
    options = {"units": units, "up": up, "mapping": mapping, "key": key, "body_model": body_model}
    read, rate = read_motion_for(processor, motion, fps, **options)
    explanation = run(loaded, processor, read.model_input, text=text, fps=rate, k=top_k)
    console = Console()
    for table in explanation_tables(explanation, top_k):
        console.print(table)
    if figure is not None:
        from lexmotion.evaluation.visualization import explanation_figure, facing_front, save_figure

        shown = explanation.words[:top_k]
        picture = explanation_figure(
            facing_front(read.positions, read.skeleton),
            [(item.word, item.weight) for item in shown],
            explanation.text_words[:top_k] if text is not None else None,
            caption=text,
            maps=explanation.maps[: len(shown)],
            window_seconds=explanation.window_seconds,
            fps=rate,
            score=explanation.score,
        )
        console.print(f"picture: {escape(str(save_figure(picture, figure)))}", highlight=False)
    if timeline is not None:
        from lexmotion.evaluation.figures.words_over_time import timeline_of
        from lexmotion.evaluation.visualization import facing_front, save_figure

        picture = timeline_of(explanation, facing_front(read.positions, read.skeleton), top_k, rate)
        console.print(f"picture: {escape(str(save_figure(picture, timeline)))}", highlight=False)


@report_app.callback()
def report() -> None:
    """Pictures and pages of a trained model."""


@report_app.command("figures")
def report_figures(
    model: ModelOption,
    dataset: DatasetOption,
    output_dir: Annotated[
        Path, typer.Option(help="Folder of the pictures. Example: --output-dir figures", show_default=False)
    ],
    split: SplitOption = "test",
    before: Annotated[
        str | None,
        typer.Option(
            help="Text model before any training (folder, Hub name or minilm); unset, the one the model remembers, "
            "where its folder still is. Example: --before minilm"
        ),
    ] = None,
    lexmlm: Annotated[
        str | None,
        typer.Option(
            help="Folder of the finished phase i; unset, `lexmlm` beside the model. "
            "Example: --lexmlm runs/small/lexmlm"
        ),
    ] = None,
    dense_model: Annotated[
        str | None,
        typer.Option(
            help="Folder of a trained dense baseline to compare with. Example: --dense-model runs/patches/model"
        ),
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Motions to show. Example: --count 6")] = 4,
    seed: Annotated[
        int, typer.Option(help="Seed of the motions to choose from and of the queries timed. Example: --seed 1")
    ] = 0,
    latency_items: Annotated[
        int,
        typer.Option(
            min=0, help="Motions of the index that searches are timed in, 0: none. Example: --latency-items 0"
        ),
    ] = 100_000,
    batch_size: BatchSizeOption = 64,
    device: DeviceOption = None,
) -> None:
    """Draw the paper's figures of a model: PNG with 300 dots an inch, PDF, and one HTML page with all of them.

    Words of motions and captions side by side (1, 4), principal components of the motion tokens (3), important words
    before and after LexMLM (5), accuracy and cost against the words kept (10), and words over time. The same input
    makes the same files; times are measured once and kept in latency.json.

    Example: [bold]lexmotion report figures --model runs/small/model --dataset prepared/kit --output-dir figures[/]
    """
    begin()
    from lexmotion.evaluation.figures.report import report_figures as run

    made = run(
        *load_model(model, device),
        dataset,
        output_dir,
        split=SPLIT_NAMES.get(split, split),
        before=before,
        lexmlm=lexmlm,
        dense_model=dense_model,
        count=count,
        seed=seed,
        latency_items=latency_items,
        batch_size=batch_size,
        model_name=model,
        progress=True,
    )
    console = Console(highlight=False)
    console.print(f"{len(made.files)} files in {escape(str(output_dir))}")
    console.print(f"page: {escape(str(made.page))}")


@app.command()
def encode(
    model: ModelOption,
    dataset: DatasetOption,
    output_dir: Annotated[
        Path, typer.Option(help="Folder of the shards. Example: --output-dir vectors/humanml3d", show_default=False)
    ],
    split: Annotated[
        list[str] | None, typer.Option(help="Split to encode, repeatable; unset, every one. Example: --split test")
    ] = None,
    what: Annotated[
        str, typer.Option(help="motion, text (every caption) or both, with a comma. Example: --what motion")
    ] = "motion,text",
    shard_size: Annotated[int, typer.Option(min=1, help="Motions of a shard. Example: --shard-size 1024")] = 4096,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Motions or captions a batch; unset, 64, on a GPU 512. Example: --batch-size 256"),
    ] = None,
    precision: Annotated[
        str,
        typer.Option(
            help="fp32, bf16 (twice as fast, vectors equal to about 1 %), or auto: bf16 where the processor has it. "
            "Example: --precision fp32"
        ),
    ] = "auto",
    device: DeviceOption = None,
) -> None:
    """Write the sparse vectors of a corpus as Parquet shards.

    Stop it at any time and run the same command again: finished shards are kept. Many processes, on many machines that
    share the output folder, divide the shards among them under `accelerate launch -m lexmotion encode ...`. Read the
    result with `lexmotion.evaluation.encode_shards.load_encoded`.

    Example: [bold]lexmotion encode --model runs/small/model --dataset prepared/humanml3d --output-dir vectors[/]
    """
    begin()
    from lexmotion.evaluation.encode_shards import encode_shards as run
    from lexmotion.evaluation.encode_shards import process_state

    state = process_state(cpu=device == "cpu")
    loaded, processor = load_model(model, device or str(state.device))
    started = time.perf_counter()
    report = run(
        loaded,
        processor,
        dataset,
        output_dir,
        splits=None if split is None else [SPLIT_NAMES.get(name, name) for name in split],
        kinds=[kind.strip() for kind in what.split(",")],
        shard_size=shard_size,
        batch_size=batch_size,
        precision=precision,
        progress=True,
    )
    if state.is_main_process:
        took = f"{time.perf_counter() - started:.0f} s, {state.num_processes} processes"
        console = Console(highlight=False)
        console.print(f"{report.written} shards written ({took}), {report.kept} kept")
        console.print(escape(report.summary()))
        console.print(f"vectors: {escape(str(output_dir))}")
    state.destroy_process_group()


@index_app.callback()
def index() -> None:
    """Make and change an index of motions, to search them by words."""


@index_app.command("build")
def index_build(
    index_dir: IndexArgument,
    vectors: Annotated[
        Path | None, typer.Option(help="Folder written by `lexmotion encode`. Example: --vectors vectors/humanml3d")
    ] = None,
    dataset: Annotated[
        Path | None,
        typer.Option(help="Or a prepared dataset, encoded now. Example: --dataset prepared/humanml3d"),
    ] = None,
    other: Annotated[
        Path | None,
        typer.Option("--index", help="Or another index, copied, whatever its engine. Example: --index motions.index"),
    ] = None,
    engine: Annotated[
        str, typer.Option(help="Where the rows are: embedded, milvus or postgres. Example: --engine postgres")
    ] = "embedded",
    uri: Annotated[
        str | None,
        typer.Option(
            help="Address of the engine: postgresql://USER@HOST/DATABASE, http://HOST:19530, or a .db file of Milvus "
            "Lite; unset, such a file in INDEX. Passwords are not stored. Example: --uri postgresql://me@db/motions"
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Folder or Hub name of the model that encodes queries; unset, the one of the vectors. "
            "Example: --model runs/small/model"
        ),
    ] = None,
    split: Annotated[
        list[str] | None, typer.Option(help="Split to take, repeatable; unset, every one. Example: --split test")
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Replace an index that is there; the table of Milvus or Postgres that its folder names is dropped, "
            "which a copy of an index shares with the original. Example: --overwrite",
        ),
    ] = False,
    device: DeviceOption = None,
) -> None:
    """Make an index of the motions of a corpus.

    Takes the vectors of `lexmotion encode`, or encodes a prepared dataset. Captions are kept as metadata. `--index OLD
    --engine postgres --uri ...` moves an index to another engine, or back.

    Example: [bold]lexmotion index build INDEX --dataset prepared/humanml3d --model runs/small/model[/]
    """
    if sum(source is not None for source in (vectors, dataset, other)) != 1:
        raise ValueError("give --vectors DIR or --dataset DIR or --index DIR, one of them: what is to be indexed")
    if dataset is not None and model is None:
        raise ValueError("--dataset needs --model, which encodes its motions")
    if other is not None and split is not None:
        raise ValueError("--index takes a whole index, so leave out --split")
    begin()
    from lexmotion import LexMotionIndex
    from lexmotion.evaluation.encode_shards import EncodeReport
    from lexmotion.evaluation.search import CorpusItems, dataset_items, encoded_items
    from lexmotion.retrieval_lexmotion import check_build

    check_build(engine, uri, index_dir, overwrite)
    splits = None if split is None else [SPLIT_NAMES.get(name, name) for name in split]
    started = time.perf_counter()
    name = model
    if other is not None:
        with LexMotionIndex.from_pretrained(other) as old:
            name, processor = model or old.info()["model"], old.processor
            ids, embeds, metadata = old.items()
        items = CorpusItems(ids, embeds, metadata)
    elif vectors is not None:
        name = model or EncodeReport.load(vectors).model
        items, processor = encoded_items(vectors, splits), load_processor(name)
    else:
        loaded, processor = load_model(str(model), device)
        items = dataset_items(loaded, processor, str(dataset), splits, progress=True)
    with LexMotionIndex.build(
        items.embeds,
        items.metadata,
        items.ids or None,
        folder=index_dir,
        processor=processor,
        model=os.path.abspath(name) if name is not None and Path(name).is_dir() else name,
        overwrite=overwrite,
        engine=engine,
        uri=uri,
    ) as made:
        took = time.perf_counter() - started
        Console(highlight=False).print(f"{len(made)} motions in {took:.1f} s: {escape(str(index_dir))}")


@index_app.command("add")
def index_add(
    index_dir: IndexArgument,
    motions: Annotated[
        list[Path] | None, typer.Argument(metavar="[MOTION]...", help="Motion files, named by their stems.")
    ] = None,
    vectors: Annotated[
        Path | None, typer.Option(help="Or a folder written by `lexmotion encode`. Example: --vectors vectors/more")
    ] = None,
    split: Annotated[
        list[str] | None, typer.Option(help="Split of the vectors to take, repeatable. Example: --split test")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace motions of the same id. Example: --replace")
    ] = False,
    uri: UriOption = None,
    fps: FpsOption = None,
    units: UnitsOption = None,
    up: UpOption = None,
    mapping: MappingOption = None,
    key: KeyOption = None,
    body_model: BodyModelOption = None,
    device: DeviceOption = None,
) -> None:
    """Add motion files, or more vectors. What was added stays, whatever happens afterwards.

    Example: [bold]lexmotion index add INDEX kick.bvh jump.npy[/]
    """
    if bool(motions) == (vectors is not None):
        raise ValueError("give motion files or --vectors DIR, one of the two: what is to be added")
    missing = [path for path in motions or () if not path.is_file()]
    if missing:
        raise FileNotFoundError(f"no motion file {str(missing[0])!r}; give .npy, .npz, .bvh or .csv files")
    begin()
    from lexmotion.evaluation.motion_sources import file_metadata
    from lexmotion.evaluation.search import encoded_items

    with open_index(index_dir, device=device, uri=uri) as index:
        if vectors is not None:
            items = encoded_items(vectors, None if split is None else [SPLIT_NAMES.get(name, name) for name in split])
            added = index.add(items.embeds, items.metadata, items.ids, replace=replace)
        else:
            options = {"units": units, "up": up, "mapping": mapping, "key": key, "body_model": body_model}
            read = [read_motion_for(index.processor, path, fps, **options) for path in motions or ()]
            embeds = index.encode(motion=[motion.model_input for motion, _ in read], fps=[rate for _, rate in read])
            metadata = [file_metadata(path, fps=fps, **options) for path in motions or ()]
            added = index.add(embeds, metadata, [path.stem for path in motions or ()], replace=replace)
        Console(highlight=False).print(f"{len(added)} motions added, {len(index)} in {escape(str(index_dir))}")


@index_app.command("delete")
def index_delete(
    index_dir: IndexArgument,
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Motions to delete.", show_default=False)],
    missing_ok: Annotated[
        bool, typer.Option("--missing-ok", help="Pass over ids that are not there. Example: --missing-ok")
    ] = False,
    uri: UriOption = None,
) -> None:
    """Delete motions by their ids.

    Example: [bold]lexmotion index delete INDEX 000012 000034[/]
    """
    from lexmotion.retrieval_lexmotion import LexMotionIndex

    with LexMotionIndex.from_pretrained(index_dir, uri=uri) as index:
        numbers = index.id_kind is int and all(id.removeprefix("-").isdigit() for id in ids)
        gone = index.delete([int(id) for id in ids] if numbers else ids, missing_ok=missing_ok)
        Console(highlight=False).print(f"{gone} motions deleted, {len(index)} in {escape(str(index_dir))}")


@index_app.command("info")
def index_info(
    index_dir: IndexArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON. Example: --json")] = False,
    uri: UriOption = None,
) -> None:
    """Check every file of an index against its checksum, and say what it holds and where.

    Example: [bold]lexmotion index info INDEX[/]
    """
    from lexmotion.retrieval_lexmotion import LexMotionIndex

    with LexMotionIndex.from_pretrained(index_dir, uri=uri) as index:
        info = index.info()
    if as_json:
        print(json.dumps(info, indent=2))
        return
    for name, value in info.items():
        shown = f"{value:,.1f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value
        Console(highlight=False).print(f"{name.replace('_', ' '):>15}  {escape(str(shown))}", soft_wrap=True)


@app.command()
def search(
    index_dir: Annotated[
        str, typer.Argument(metavar="INDEX", help="Folder or Hub name of an index.", show_default=False)
    ],
    text: Annotated[str | None, typer.Argument(help="What happens in the motion.", show_default=False)] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Motions to find. Example: -k 20")] = 10,
    must: Annotated[
        list[str] | None, typer.Option(help="Word every hit has, repeatable. Example: --must kick")
    ] = None,
    must_not: Annotated[
        list[str] | None, typer.Option("--not", help="Word no hit has, repeatable. Example: --not right")
    ] = None,
    boost: Annotated[
        list[str] | None,
        typer.Option(help="WORD=FACTOR, repeatable: weigh a word of the query more or less. Example: --boost left=2"),
    ] = None,
    motion: Annotated[
        Path | None, typer.Option(help="Search by example: a motion file instead of text. Example: --motion kick.bvh")
    ] = None,
    fps: FpsOption = None,
    units: UnitsOption = None,
    up: UpOption = None,
    mapping: MappingOption = None,
    key: KeyOption = None,
    body_model: BodyModelOption = None,
    model: Annotated[
        str | None,
        typer.Option(help="Model for the query instead of the index's own. Example: --model runs/small/model"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table. Example: --json")] = False,
    html: Annotated[
        Path | None, typer.Option(help="Page to write, which needs no other file. Example: --html report.html")
    ] = None,
    dataset: Annotated[
        Path | None,
        typer.Option(
            help="Prepared dataset the hits are in: on the page they move then. Example: --dataset prepared/humanml3d"
        ),
    ] = None,
    uri: UriOption = None,
    device: DeviceOption = None,
) -> None:
    """Find motions by words, or by a motion, and see which words matched.

    Without text and motion, the words of --must and --boost are the query.

    Example: [bold]lexmotion search INDEX "a person kicks with the left leg" -k 10 --must kick --not right[/]
    """
    factors = parse_factors(boost or [])
    if text is not None and motion is not None:
        raise ValueError("give a text or --motion, and not both")
    if motion is not None and not motion.is_file():
        raise FileNotFoundError(f"no motion file {str(motion)!r}; give a .npy, .npz, .bvh or .csv file")
    if dataset is not None and not dataset.is_dir():
        raise FileNotFoundError(f"no dataset {str(dataset)!r}; --dataset takes what `lexmotion prepare` wrote")
    begin()
    from lexmotion.evaluation.search import conditions_told, hits_table, search_page

    index = open_index(index_dir, model, device, uri)
    conditions = {"k": k, "must": must or [], "must_not": must_not or [], "boost": factors}
    if text is not None:
        query, title = index.encode(text=text), text
    elif motion is not None:
        options = {"units": units, "up": up, "mapping": mapping, "key": key, "body_model": body_model}
        read, rate = read_motion_for(index.processor, motion, fps, **options)
        query, title = index.encode(motion=read.model_input, fps=rate), str(motion)
    else:
        query, title = None, " ".join(dict.fromkeys([*(must or []), *factors]))
    found = index.search(query, **conditions)
    hits = found if query is None else found[0]
    told = conditions_told(k, must or [], must_not or [], factors)
    words = [] if query is None else index.words_of(query)
    if as_json:
        print(json.dumps({"query": title, **conditions, "hits": [hit.to_dict() for hit in hits]}, indent=2))
    else:
        Console().print(hits_table(hits, f"{title} ({told})"))
    if html is not None:
        moving = moving_hits(index, index_dir, hits, query, conditions, dataset) if hits else {}
        from lexmotion.hub_cards.rendering import write_text

        write_text(html, search_page(title, f"{told}; {len(index)} motions in {index_dir}", words, hits, **moving))
        if not as_json:
            Console(highlight=False).print(f"page: {escape(str(html))}")


@app.command()
def demo(
    source: Annotated[
        str | None,
        typer.Argument(
            help="Output of `lexmotion quickstart`, a model (folder or Hub name), or a folder of --export; unset, "
            "./quickstart where there is one.",
            show_default=False,
        ),
    ] = None,
    index: Annotated[
        str | None,
        typer.Option(help="Index to search, folder or Hub name; unset, the dataset's. Example: --index motions.index"),
    ] = None,
    dataset: Annotated[
        Path | None,
        typer.Option(help="Prepared dataset with the motions of the hits. Example: --dataset prepared/humanml3d"),
    ] = None,
    split: Annotated[
        list[str] | None,
        typer.Option(
            help="Split of the dataset, repeatable; unset, test, with --index every one. Example: --split test"
        ),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the page. Example: --port 7860")] = 7860,
    host: Annotated[
        str, typer.Option(help="Address to serve at; 0.0.0.0 lets other machines in. Example: --host 0.0.0.0")
    ] = "127.0.0.1",
    share: Annotated[
        bool, typer.Option("--share/--no-share", help="Open a public address through gradio. Example: --share")
    ] = False,
    export: Annotated[
        Path | None,
        typer.Option(help="Do not start, but write a folder that is a Space, or replace one. Example: --export space"),
    ] = None,
    device: DeviceOption = None,
) -> None:
    """Search motions in the browser, by words and by example, and see why each was found.

    Needs `pip install lexmotion[demo]`. Nothing leaves this machine, and nothing is loaded from elsewhere.

    Example: [bold]lexmotion demo quickstart --port 7860[/]
    """
    if source is None and index is None and Path("quickstart", "model").is_dir():
        source = "quickstart"
    begin()
    from lexmotion.evaluation.demo import open_demo

    splits = None if split is None else [SPLIT_NAMES.get(name, name) for name in split]
    console = Console(highlight=False)
    if export is None:
        from lexmotion.hub_cards.space.app import gradio_server, server

        gradio_server()  # a package that is not there is told now, and not after a corpus was encoded
    opened = open_demo(source, index, dataset, splits, device, progress=True)
    if export is not None:
        from lexmotion.hub_cards.space_folder import write_space

        moving = write_space(opened, export, progress=True)
        console.print(f"Space of {len(opened.rows)} motions, {moving} with positions: {escape(str(export))}")
        return
    console.print(f"{len(opened.rows)} motions, {len(opened.words)} words; stop with Ctrl+C")
    try:
        server(opened).launch(server_name=host, server_port=port or None, share=share)
    except OSError as error:
        raise OSError(
            f"cannot serve at {host}:{port}: the port is taken, or the address is not this machine's; choose another "
            "with --port or --host"
        ) from error


@app.command()
def card(
    model: Annotated[Path, typer.Argument(metavar="MODEL_DIR", help="Folder of a trained model.", show_default=False)],
    name: Annotated[
        str | None,
        typer.Option(
            help="Name on the Hub; unset, the one the card has, else the folder's. Example: --name user/model"
        ),
    ] = None,
    results: Annotated[
        list[Path] | None,
        typer.Option(
            help="File of `lexmotion evaluate ... --output`, repeatable; unset, results beside the model, else those "
            "of the card. Example: --results results.json"
        ),
    ] = None,
    dataset: Annotated[
        Path | None,
        typer.Option(
            help="Prepared corpus whose motions are shown with their words; unset, the one it was trained on. "
            "Example: --dataset prepared/humanml3d"
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="Split of these motions. Example: --split test")] = "test",
    picture: Annotated[
        bool, typer.Option("--picture/--no-picture", help="Draw three motions beside their words. Example: --picture")
    ] = True,
    corpus: Annotated[
        str | None, typer.Option(help="Name of the corpus; unset, as recorded. Example: --corpus HumanML3D")
    ] = None,
    corpus_license: Annotated[
        str | None,
        typer.Option(help='Its licence, in words; unset, as known. Example: --corpus-license "own recordings"'),
    ] = None,
    license: Annotated[
        str | None,
        typer.Option(help="Licence id of the weights; unset, as the corpus allows. Example: --license apache-2.0"),
    ] = None,
) -> None:
    """Write the model card again, of the run record and of results: README.md, card.json and recipe.yaml.

    The same record and results give the same card. Three held-out motions are drawn beside the words the model reads
    in them. Changes made by hand to README.md are lost: change the options instead.

    Example: [bold]lexmotion card runs/small/model --name user/small --results results.json[/]
    """
    begin()
    from lexmotion.hub_cards.model_card import ModelCard, corpus_folder, load_evaluation

    earlier = ModelCard.of_folder(model)
    evaluations = [load_evaluation(file) for file in results or ()]
    named = {"corpus": corpus, "corpus_license": corpus_license, "license": license}
    choices = {option: value for option, value in named.items() if value is not None}
    told = name or (model.resolve().name if earlier is None else earlier.name)
    made = ModelCard.collect(model, told, evaluations, **choices)
    console = Console(highlight=False)
    if picture:
        shown = dataset or corpus_folder(model)
        if shown is None:
            console.print("[yellow]no motions to show:[/] the corpus is not where it was; name it with --dataset")
        else:
            from lexmotion.evaluation.examples import draw_examples
            from lexmotion.processing.corpora.prepare import load_prepared

            split = SPLIT_NAMES.get(split, split)
            rows = load_prepared(shown, splits=[split])[split]
            examples = draw_examples(*load_model(str(model), "cpu"), rows, model / "words.png")
            made.picture = "words.png"
            made.words = [(example["caption"], [word for word, _ in example["words"]]) for example in examples]
    console.print(f"card: {escape(str(made.save(model)))}", soft_wrap=True)


@app.command()
def push(
    folder: Annotated[
        Path,
        typer.Argument(metavar="MODEL_DIR", help="Trained model, or prepared corpus.", show_default=False),
    ],
    repo_id: Annotated[str, typer.Argument(metavar="USER/NAME", help="Repository.", show_default=False)],
    private: Annotated[
        bool, typer.Option("--private", help="Make a new repository private. Example: --private")
    ] = False,
    revision: Annotated[
        str | None, typer.Option(help="Branch, made when it is not there; unset, main. Example: --revision v1")
    ] = None,
    include_code: Annotated[
        bool,
        typer.Option(
            "--include-code",
            help="Add the code, so that it loads with trust_remote_code=True where lexmotion is not installed. "
            "Example: --include-code",
        ),
    ] = False,
    license: Annotated[
        str | None,
        typer.Option(help="Licence id, instead of the one that goes with the corpus. Example: --license apache-2.0"),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would go, send nothing. Example: --dry-run")
    ] = False,
) -> None:
    """Upload a model, or a prepared corpus, to the Hub in one commit.

    A model goes with its processor, lexicon and card. Pushing the same again changes nothing; an upload that broke off
    goes on with what had not arrived. Log in with `hf auth login` or HF_TOKEN first.

    Example: [bold]lexmotion push runs/small/model user/small --private --include-code[/]
    """
    begin()
    from lexmotion.hub_cards.push import check_repo_id, pack, would_delete
    from lexmotion.hub_cards.push import push as run

    check_repo_id(repo_id)

    parcel = pack(folder, repo_id, include_code, license)
    console = Console(highlight=False, soft_wrap=True)
    sizes = parcel.sizes
    for path, size in sizes.items():
        console.print(f"{size:>14,}  {escape(path)}")
    console.print(f"{sum(sizes.values()):>14,}  bytes in {len(sizes)} files, as a {parcel.repo_type}")
    for path in parcel.left:
        console.print(f"[dim]{'stays here':>14}  {escape(path)}[/]")
    for note in [*parcel.notes, *([parcel.restricted] if parcel.restricted else [])]:
        console.print(f"[yellow]{escape(note)}[/]")
    if dry_run:
        stale = would_delete(parcel, repo_id, revision)
        if stale is None:
            console.print("[dim]the Hub cannot be asked which files of an earlier push would be deleted[/]")
        for path in stale or ():
            console.print(f"[yellow]{'deleted there':>14}  {escape(path)}[/]")
        console.print("nothing was sent (--dry-run)")
        return
    sent = run(parcel, repo_id, private=private or None, revision=revision)
    for path in sent.deleted:
        console.print(f"[yellow]{'deleted there':>14}  {escape(path)}[/]")
    state = "pushed" if sent.changed else "already there"
    console.print(f"{state}: {escape(sent.url)} (commit {sent.commit[:12]})")


@export_app.command("sentence-transformers")
def export_sentence_transformers(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Model: folder or Hub name.", show_default=False)],
    output_dir: Annotated[
        Path, typer.Argument(metavar="OUTPUT_DIR", help="Folder to write, new or empty.", show_default=False)
    ],
    drop_minimum: Annotated[
        bool,
        typer.Option(
            "--drop-minimum",
            help="Leave out the least number of words a vector has, which SparseEncoder cannot compute. "
            "Example: --drop-minimum",
        ),
    ] = False,
) -> None:
    """Write the text tower for `sentence_transformers.SparseEncoder(OUTPUT_DIR)`, which then gives the same vectors.

    Needs sentence-transformers. Both are compared before the folder appears.

    Example: [bold]lexmotion export sentence-transformers runs/small/model exported/text[/]
    """
    begin()
    from lexmotion.masked_lm_export import save_sparse_encoder

    loaded, processor = load_model(model, "cpu")
    text_model = getattr(loaded, "text_model", loaded)
    if not hasattr(text_model, "lexical_head"):
        raise ValueError(f"{model} is a {type(loaded).__name__}, which has no lexical text tower to export")
    tokenizer = getattr(processor, "tokenizer", processor)
    difference = save_sparse_encoder(text_model, tokenizer, output_dir, drop_minimum)
    console = Console(highlight=False)
    console.print(f"written: {escape(str(output_dir))}; word weights differ by {difference:.1g} at most")
    parts = {"num_segments": "segments", "dense_size": "the dense vector"}
    if text_model.lexical_head.min_words:
        console.print(f"Captions with fewer than {text_model.lexical_head.min_words} words above zero keep those.")
    left = [what for name, what in parts.items() if (getattr(loaded.config, name, None) or 0) > 1]
    if left:
        console.print(f"The words of the whole caption only: the model's own score also has {' and '.join(left)}.")


@app.command()
def benchmark(
    stage: Annotated[
        str, typer.Argument(help="lexical-head, features, loader, encode, index or train-step.", show_default=False)
    ],
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes: under 30 seconds. Example: --quick")] = False,
    repeats: Annotated[
        int | None,
        typer.Option(min=1, help="Timed pairs of ours and plain; unset, 5, or 3 of --quick. Example: --repeats 9"),
    ] = None,
    size: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE, repeatable: another size. Example: --size batch=512 --size width=768"),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--json", help="File for the figures. Example: --json head.json")
    ] = None,
    no_memory: Annotated[
        bool, typer.Option("--no-memory", help="Leave peak memory out: no further processes. Example: --no-memory")
    ] = False,
) -> None:
    """Measure a hot path against a plain implementation, in the same run.

    First the results of both are compared: if they differ, nothing is timed. Then both run in turn. Shown are the
    median of the ratios, the lowest and the highest, the rates, and the peak memory of one call.

    Example: [bold]lexmotion benchmark lexical-head --quick[/]
    """
    given = parse_pairs(size or [], "--size", "batch=512")
    begin()
    from lexmotion.evaluation.benchmarks import harness
    from lexmotion.evaluation.console import benchmark_table

    if stage not in harness.BENCHMARKS:
        raise ValueError(f"there is no benchmark {stage!r}; there are {', '.join(harness.BENCHMARKS)}")
    module = harness.BENCHMARKS[stage]
    sizes = (harness.quick_sizes(module) if quick else {}) | harness.parse_sizes(module, given)
    pairs = repeats or (3 if quick else 5)
    results = harness.run(module, sizes, repeats=pairs, memory=not no_memory, progress=True)
    console = Console()
    console.print(benchmark_table(results, harness.description(module)))
    facts = ", ".join(f"{name} {value}" for name, value in harness.machine().items() if value is not None)
    console.print(f"[dim]{escape(facts)}[/]", highlight=False)
    if output is not None:
        write_json(output, harness.to_json(results, sizes))
        console.print(f"figures: {escape(str(output))}", highlight=False)


def begin() -> None:
    """Before a room is entered: Auto classes registered, libraries quiet about what is not the user's concern."""
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    from transformers.utils import logging

    from lexmotion import register

    register()
    logging.disable_progress_bar()


def load_model(name: str, device: str | None) -> tuple[Any, Any]:
    """A trained model in evaluation mode, and its processor.

    Args:
        name: Folder or Hub name. device: Where to put it; None takes a GPU where there is one.

    Raises:
        FileNotFoundError: `name` looks like a folder and is none.
        ValueError: the processor is another model's.
    """
    import torch
    from transformers import AutoModel, AutoProcessor

    from lexmotion.encoding_lexmotion import check_processor

    if not Path(name).is_dir() and (name.count("/") != 1 or name.startswith((".", "/", "~"))):
        raise FileNotFoundError(f"no model folder {name!r}; `lexmotion train` writes one as OUTPUT_DIR/model")
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    model, processor = AutoModel.from_pretrained(name).eval(), AutoProcessor.from_pretrained(name)
    check_processor(model.config, processor)
    return model.to(place), processor


def load_processor(name: str) -> Any:
    """The processor saved beside a model; see `load_model`."""
    from transformers import AutoProcessor

    if not Path(name).is_dir() and (name.count("/") != 1 or name.startswith((".", "/", "~"))):
        raise FileNotFoundError(f"no model folder {name!r}; name the model that encoded the vectors with --model")
    return AutoProcessor.from_pretrained(name)


def open_index(name: str | Path, model: str | None = None, device: str | None = None, uri: str | None = None) -> Any:
    """An index with its model.

    Args:
        name: Folder or Hub name. model: Instead of the one the index names. device: As of `load_model`.
        uri: Of its engine, instead of the one the index names.
    """
    from lexmotion import LexMotionIndex

    # One query is answered before numba has started.
    index = LexMotionIndex.from_pretrained(name, accelerate=False, uri=uri)
    named = model or index.info()["model"]
    if named is not None:
        index.close()
        loaded, processor = load_model(named, device)
        index = LexMotionIndex.from_pretrained(
            name, model=loaded, processor=processor if model else None, verify=False, accelerate=False, uri=uri
        )
    return index


def moving_hits(
    index: Any, name: str, hits: list[Any], query: Any, conditions: dict[str, Any], dataset: Path | None
) -> dict[str, Any]:
    """What `search_page` needs to show hits in motion; nothing where no model could explain them."""
    from tqdm.auto import tqdm

    from lexmotion.evaluation.demo import Demo, Question, stored_beside
    from lexmotion.evaluation.motion_sources import DatasetMotions

    if index.model is None or getattr(index.processor, "lexicon", None) is None:
        return {}
    shown = Demo(index, [*stored_beside(name), *([DatasetMotions(dataset)] if dataset is not None else [])])
    must, must_not, boost = (conditions[key] for key in ("must", "must_not", "boost"))
    steering = Question(must=tuple(must), must_not=tuple(must_not), boost=tuple(boost.items()))
    vector = shown.vector(steering, query)
    views = [
        shown.explained("item", hit.id, vector, hit)
        for hit in tqdm(hits, desc="motions explained", disable=None, leave=False)
    ]
    return {"views": views, "skeleton": shown.skeleton} if any(views) else {}


def read_motion_for(processor: Any, path: Path, fps: float | None = None, **options: Any) -> tuple[Any, float]:
    """A motion file in the joints of a model.

    Args:
        processor: The model's. path: Motion file. fps: Frames a second; None, what the file says.
        options: As of `load_motion`.

    Returns:
        The motion, and its frames a second: given, the file's, else the model's. Doubtful findings are shown.
    """
    from lexmotion.processing.motion_io import load_motion

    motion = load_motion(path, fps, processor.feature_extractor.skeleton, **options)
    for problem in motion.problems:
        if problem.severity == "warning":
            Console(stderr=True).print(f"[yellow]{escape(str(problem))}[/]", highlight=False)
    return motion, motion.fps if motion.fps_is_known else processor.feature_extractor.fps


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write `content` in one step, so that an interrupted command leaves no half file."""
    from lexmotion.hub_cards.rendering import write_text

    write_text(path, json.dumps(content, indent=2) + "\n")


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


if __name__ == "__main__":
    main()
