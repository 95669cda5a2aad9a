"""Measuring and looking: `evaluate`, `explain`, `report`, `benchmark`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from lexmotion.common.files import write_json
from lexmotion.evaluation.loading import load_model
from lexmotion.processing.recordings.options import ReadingOptions

from .base import app, evaluate_app, report_app
from .loading import begin, read_motion_for
from .options import (
    READING,
    SPLIT_NAMES,
    BatchSizeOption,
    DatasetOption,
    DeviceOption,
    ModelOption,
    SplitOption,
    parse_pairs,
    with_options,
)

ProtocolOption = Annotated[
    list[str] | None,
    typer.Option(
        help="all-strict, all-duplicates, threshold, dissimilar or small-batches, repeatable; all, the default, "
        "runs every one that the data allow. Example: --protocol all-strict --protocol small-batches"
    ),
]
SentenceModelOption = Annotated[
    str | None,
    typer.Option(
        help="Sentence encoder (folder, Hub name or minilm) that says which captions mean the same, for the "
        "protocol threshold. Example: --sentence-model sentence-transformers/all-mpnet-base-v2"
    ),
]
DissimilarIdsOption = Annotated[
    Path | None,
    typer.Option(
        help="File of ids, one a line: the gallery of the protocol dissimilar. Example: --dissimilar-ids ids.txt"
    ),
]
FigureOption = Annotated[
    Path | None, typer.Option(help="Picture to write (.png, .svg or .pdf). Example: --figure words.png")
]
TimelineOption = Annotated[
    Path | None,
    typer.Option(
        help="Picture of the words over time, with the body part each was seen in. Example: --timeline time.png"
    ),
]
BeforeOption = Annotated[
    str | None,
    typer.Option(
        help="Text model before any training (folder, Hub name or minilm); unset, the one the model remembers, "
        "where its folder still is. Example: --before minilm"
    ),
]
LexmlmOption = Annotated[
    str | None,
    typer.Option(
        help="Folder of the finished phase i; unset, `lexmlm` beside the model. Example: --lexmlm runs/small/lexmlm"
    ),
]
DenseModelOption = Annotated[
    str | None,
    typer.Option(help="Folder of a trained dense baseline to compare with. Example: --dense-model runs/patches/model"),
]
LatencyItemsOption = Annotated[
    int,
    typer.Option(min=0, help="Motions of the index that searches are timed in, 0: none. Example: --latency-items 0"),
]


def write_results(path: Path | None, results: dict[str, Any]) -> None:
    """Write results if a file is asked for, and say where they are."""
    if path is not None:
        write_json(path, results)
        Console().print(f"results: {escape(str(path))}", highlight=False)


@evaluate_app.callback()
def evaluate() -> None:
    """Measure a trained model on a prepared dataset."""


@evaluate_app.command("retrieval")
def evaluate_retrieval(
    model: ModelOption,
    dataset: DatasetOption,
    split: SplitOption = "val",
    protocol: ProtocolOption = None,
    output: Annotated[
        Path | None, typer.Option(help="JSON file for the results. Example: --output results.json")
    ] = None,
    sentence_model: SentenceModelOption = None,
    dissimilar_ids: DissimilarIdsOption = None,
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
    from lexmotion.evaluation.model_evaluation import evaluate as run
    from lexmotion.processing.corpora.text_models import resolve_text_model

    ids = None if dissimilar_ids is None else dissimilar_ids.read_text(encoding="utf-8").split()
    loaded, processor = load_model(model, device)
    results = run(
        loaded,
        dataset,
        SPLIT_NAMES.get(split, split),
        protocol or "all",
        processor,
        None if sentence_model is None else resolve_text_model(sentence_model),
        ids,
        batch_size,
        seed,
        progress=True,
    )
    console = Console()
    title = f"Retrieval, split {escape(results['split'])}"
    console.print(retrieval_table(results["retrieval"], title), lexical_table(results["lexical"]))
    if "retrieval_words" in results:
        console.print(retrieval_table(results["retrieval_words"], "The same by word vectors alone"))
    write_results(output, results)


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
    from lexmotion.evaluation.model_evaluation import evaluate_order as run

    loaded, processor = load_model(model, device)
    results = run(loaded, dataset, SPLIT_NAMES.get(split, split), processor, batch_size, progress=True)
    if as_json:
        typer.echo(json.dumps(results["order"]))
    else:
        Console().print(order_table(results["order"], f"Order of events, split {escape(results['split'])}"))
    if output is not None:
        write_json(output, results)


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
    from lexmotion.evaluation.console import retrieval_table
    from lexmotion.evaluation.model_evaluation import evaluate_ridge_floor as run

    results = run(dataset, SPLIT_NAMES.get(split, split), penalty)
    Console().print(retrieval_table(results["retrieval"], f"Ridge floor, split {escape(results['split'])}"))
    write_results(output, results)


@app.command()
@with_options(ReadingOptions, READING)
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
    reading: ReadingOptions = ReadingOptions(),
    top_k: Annotated[int, typer.Option(min=1, help="How many words to show. Example: --top-k 20")] = 10,
    figure: FigureOption = None,
    timeline: TimelineOption = None,
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
    from lexmotion.evaluation.figures.drawing import facing_front, save_figure
    from lexmotion.evaluation.figures.words import explanation_figure
    from lexmotion.evaluation.figures.words_over_time import timeline_of

    loaded, processor = load_model(model, device)
    read, rate = read_motion_for(processor, motion, reading)
    explanation = run(loaded, read.model_input, text, processor, rate, top_k)
    console = Console(highlight=False)
    for table in explanation_tables(explanation, top_k):
        Console().print(table)
    for path, draw in ((figure, explanation_figure), (timeline, timeline_of)):
        if path is not None:
            picture = draw(explanation, facing_front(read.positions, read.skeleton), top_k, rate)
            console.print(f"picture: {escape(str(save_figure(picture, path)))}")


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
    before: BeforeOption = None,
    lexmlm: LexmlmOption = None,
    dense_model: DenseModelOption = None,
    count: Annotated[int, typer.Option(min=1, help="Motions to show. Example: --count 6")] = 4,
    seed: Annotated[
        int, typer.Option(help="Seed of the motions to choose from and of the queries timed. Example: --seed 1")
    ] = 0,
    latency_items: LatencyItemsOption = 100_000,
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
    from lexmotion.evaluation.figures.report import FigureOptions
    from lexmotion.evaluation.figures.report import report_figures as run

    split = SPLIT_NAMES.get(split, split)
    options = FigureOptions(split, before, lexmlm, dense_model, count, seed, latency_items, batch_size)
    loaded, processor = load_model(model, device)
    made = run(loaded, dataset, output_dir, options, processor, progress=True)
    console = Console(highlight=False)
    console.print(f"{len(made.files)} files in {escape(str(output_dir))}")
    console.print(f"page: {escape(str(made.page))}")


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
