"""Evaluation and inspection of models: `evaluate`, `explain`, `report`, `benchmark`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from lexmotion.common.files import write_json
from lexmotion.common.text import counted
from lexmotion.evaluation.loading import load_model
from lexmotion.processing.recordings.options import ReadingOptions

from .base import app, evaluate_app, report_app, terminal
from .loading import begin, read_motion_for
from .options import (
    DEFAULT_MODEL,
    READING,
    SPLIT_NAMES,
    BatchSizeOption,
    DatasetOption,
    DeviceOption,
    ModelOption,
    SplitOption,
    ViewsOption,
    parse_pairs,
    with_options,
)

ProtocolOption = Annotated[
    list[str] | None,
    typer.Option(
        help="all-strict, all-duplicates, threshold, dissimilar or small-batches, repeatable; if unset, every "
        "protocol that can run. Example: --protocol all-strict --protocol small-batches"
    ),
]
SentenceModelOption = Annotated[
    str | None,
    typer.Option(
        help="Sentence encoder (folder, Hub name or minilm) that compares captions for the protocol threshold. "
        "Example: --sentence-model sentence-transformers/all-mpnet-base-v2"
    ),
]
DissimilarIdsOption = Annotated[
    Path | None,
    typer.Option(help="File of one id per line, gallery of protocol dissimilar. Example: --dissimilar-ids ids.txt"),
]
FigureOption = Annotated[
    Path | None, typer.Option(help="Picture to write (.png, .svg or .pdf). Example: --figure words.png")
]
TimelineOption = Annotated[
    Path | None,
    typer.Option(help="Picture to write of the words over time and body parts. Example: --timeline time.png"),
]
BeforeOption = Annotated[
    str | None,
    typer.Option(
        help="Text model before any training (folder, Hub name or minilm); if unset, the one that the model was "
        "built from, if its folder exists. Example: --before minilm"
    ),
]
LexmlmOption = Annotated[
    str | None,
    typer.Option(
        help="Folder of finished phase i; if unset, `lexmlm` beside the model. Example: --lexmlm runs/small/lexmlm"
    ),
]
DenseModelOption = Annotated[
    str | None,
    typer.Option(help="Folder of a trained dense baseline to compare with. Example: --dense-model runs/patches/model"),
]
LatencyItemsOption = Annotated[
    int,
    typer.Option(min=0, help="Motions in the index that searches are timed in; 0 skips. Example: --latency-items 0"),
]


def write_results(path: Path | None, results: dict[str, Any]) -> None:
    """Write results if a file is given, and print its path."""
    if path is not None:
        write_json(path, results)
        terminal().print(f"results: {escape(str(path))}", highlight=False)


@evaluate_app.callback()
def evaluate() -> None:
    """Measure a trained model on a prepared dataset."""


@evaluate_app.command("retrieval")
def evaluate_retrieval(
    dataset: DatasetOption,
    model: ModelOption = DEFAULT_MODEL,
    split: SplitOption = "validation",
    protocol: ProtocolOption = None,
    output: Annotated[
        Path | None, typer.Option(help="JSON file for the results. Example: --output results.json")
    ] = None,
    sentence_model: SentenceModelOption = None,
    dissimilar_ids: DissimilarIdsOption = None,
    batch_size: BatchSizeOption = 64,
    device: DeviceOption = None,
    seed: Annotated[int, typer.Option(help="Seed of the protocols that draw. Example: --seed 1")] = 0,
    views: ViewsOption = 1,
) -> None:
    """Measure retrieval in both directions: R@1,2,3,5,10, MedR and Rsum, each row under a named protocol.

    The first caption of each motion is the query; a second table averages over all captions, for all clips and
    separately for short and long ones. The command also prints how many words are active, and how many of a
    caption's words are among the top words of its motion.

    Example: [bold]lexmotion evaluate retrieval --model runs/small/model --dataset prepared/humanml3d --split test[/]
    """
    begin()
    from lexmotion.evaluation.console import all_captions_table, lexical_table, retrieval_table
    from lexmotion.evaluation.model_evaluation import evaluate as run
    from lexmotion.processing.corpora.text_models import resolve_text_model

    ids = None if dissimilar_ids is None else dissimilar_ids.read_text(encoding="utf-8").split()
    loaded, processor = load_model(model, device)
    encoder = None if sentence_model is None else resolve_text_model(sentence_model)
    split, protocols = SPLIT_NAMES.get(split, split), protocol or "all"
    results = run(loaded, dataset, split, protocols, processor, encoder, ids, batch_size, seed, True, views)
    console = terminal()
    title = f"Retrieval, split {escape(results['split'])}"
    console.print(retrieval_table(results["retrieval"], title), all_captions_table(results["all_captions"]))
    if "lexical" in results:
        console.print(lexical_table(results["lexical"]))
    if "retrieval_words" in results:
        console.print(retrieval_table(results["retrieval_words"], "By word vectors only"))
    write_results(output, results)


@evaluate_app.command("order")
def evaluate_order(
    dataset: DatasetOption,
    model: ModelOption = DEFAULT_MODEL,
    split: SplitOption = "validation",
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON. Example: --json")] = False,
    output: Annotated[
        Path | None, typer.Option(help="JSON file for the results. Example: --output order.json")
    ] = None,
    batch_size: BatchSizeOption = 64,
    device: DeviceOption = None,
) -> None:
    """Measure whether a model reads order: how often a caption beats its version with events exchanged.

    Compares both with the caption's motion, for all captions that name several events; ties count half, so 50 % means
    that order is ignored. Motions of other captions show how much the usual order alone explains.

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
        terminal().print(order_table(results["order"], f"Order of events, split {escape(results['split'])}"))
    if output is not None:
        write_json(output, results)


@evaluate_app.command("ridge-floor")
def evaluate_ridge_floor(
    dataset: DatasetOption,
    split: SplitOption = "validation",
    output: Annotated[
        Path | None, typer.Option(help="JSON file for the results. Example: --output floor.json")
    ] = None,
    penalty: Annotated[float, typer.Option(help="Weight of the squared coefficients. Example: --penalty 100")] = 300.0,
) -> None:
    """Measure ridge regression from motion statistics to TF-IDF words, a floor for learned models.

    It is fitted on the training split and its mirror image and measured under all-strict and all-duplicates.

    Example: [bold]lexmotion evaluate ridge-floor --dataset prepared/humanml3d --split test[/]
    """
    begin()
    from lexmotion.evaluation.console import retrieval_table
    from lexmotion.evaluation.model_evaluation import evaluate_ridge_floor as run

    results = run(dataset, SPLIT_NAMES.get(split, split), penalty)
    terminal().print(retrieval_table(results["retrieval"], f"Ridge floor, split {escape(results['split'])}"))
    write_results(output, results)


@evaluate_app.command("probe")
def evaluate_probe(
    model: Annotated[
        str,
        typer.Option(
            help="Folder of a finished phase ii, iii or iv, or of a trained model. Example: --model runs/small/cmmm",
            show_default=False,
        ),
    ],
    dataset: DatasetOption,
    split: SplitOption = "validation",
    output: Annotated[
        Path | None, typer.Option(help="JSON file for the results. Example: --output probe.json")
    ] = None,
    penalty: Annotated[float, typer.Option(help="Weight of the squared coefficients. Example: --penalty 100")] = 300.0,
    seeds: Annotated[int, typer.Option(min=1, help="Towers with random weights. Example: --seeds 5")] = 3,
) -> None:
    """Measure a linear probe of a motion tower: ridge regression from its mean tokens to TF-IDF words.

    Towers of the same size with random weights are measured beside it: a pre-training that does not beat them has not
    helped. Fitted on the training split and its mirror image; the interval is a paired bootstrap over clips.

    Example: [bold]lexmotion evaluate probe --model runs/small/cmmm --dataset prepared/humanml3d --split test[/]
    """
    begin()
    from lexmotion.evaluation.console import probe_table
    from lexmotion.evaluation.probe import evaluate_probe as run

    results = run(model, dataset, SPLIT_NAMES.get(split, split), penalty, seeds)
    title = f"Linear probe, split {escape(results['split'])}, Rsum all-strict"
    terminal().print(probe_table(results, title))
    write_results(output, results)


@app.command()
@with_options(ReadingOptions, READING)
def explain(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[MOTION]", help="Motion file, read as by `lexmotion inspect`.", show_default=False),
    ] = None,
    motion: Annotated[
        Path | None, typer.Option(help="The motion file, as an option. Example: --motion kick.bvh")
    ] = None,
    model: ModelOption = DEFAULT_MODEL,
    text: Annotated[
        str | None, typer.Option(help='A caption to compare with. Example: --text "a person kicks with the left leg"')
    ] = None,
    reading: ReadingOptions = ReadingOptions(),
    top_k: Annotated[int, typer.Option(min=1, help="Number of words to show. Example: --top-k 20")] = 10,
    figure: FigureOption = None,
    timeline: TimelineOption = None,
    device: DeviceOption = None,
) -> None:
    """Show the words that a model reads in a motion; with a text, why the two match.

    Each shared word is listed with its contribution to the score and the body part and time window it was read from.

    Example: [bold]lexmotion explain kick.bvh --text "a person kicks"[/]
    """
    if (file is None) == (motion is None):
        raise ValueError("motion to explain: pass one file, as in `lexmotion explain kick.bvh`")
    motion = Path(file or motion or "")
    if not motion.is_file():
        raise FileNotFoundError(f"no motion file {str(motion)!r}; check the path")
    begin()
    from lexmotion.evaluation.console import explanation_tables
    from lexmotion.evaluation.explain import explain as run
    from lexmotion.evaluation.figures.drawing import facing_front, save_figure
    from lexmotion.evaluation.figures.words import explanation_figure
    from lexmotion.evaluation.figures.words_over_time import timeline_of

    loaded, processor = load_model(model, device)
    read, rate = read_motion_for(processor, motion, reading)
    explanation = run(loaded, read.model_input, text, processor, rate, top_k)
    console = terminal(highlight=False)
    for table in explanation_tables(explanation, top_k):
        terminal().print(table)
    for path, draw in ((figure, explanation_figure), (timeline, timeline_of)):
        if path is not None:
            picture = draw(explanation, facing_front(read.positions, read.skeleton), top_k, rate)
            console.print(f"picture: {escape(str(save_figure(picture, path)))}")


@report_app.callback()
def report() -> None:
    """Pictures and pages of a trained model."""


@report_app.command("figures")
def report_figures(
    dataset: DatasetOption,
    output_dir: Annotated[
        Path, typer.Option(help="Folder of the pictures. Example: --output-dir figures", show_default=False)
    ],
    model: ModelOption = DEFAULT_MODEL,
    split: SplitOption = "test",
    before: BeforeOption = None,
    lexmlm: LexmlmOption = None,
    dense_model: DenseModelOption = None,
    count: Annotated[int, typer.Option(min=1, help="Motions to show. Example: --count 6")] = 4,
    seed: Annotated[
        int, typer.Option(help="Seed of the candidate motions and of the timed queries. Example: --seed 1")
    ] = 0,
    latency_items: LatencyItemsOption = 100_000,
    batch_size: BatchSizeOption = 64,
    device: DeviceOption = None,
) -> None:
    """Draw the paper's figures of a model: PNG with 300 dots per inch, PDF, and one HTML page with all of them.

    Words of motions and captions side by side (1, 4), principal components of the motion tokens (3), important words
    before and after LexMLM (5), accuracy and cost against the words kept (10), and words over time. The same input
    yields the same files; times are measured once and kept in latency.json.

    Example: [bold]lexmotion report figures --model runs/small/model --dataset prepared/kit --output-dir figures[/]
    """
    begin()
    from lexmotion.evaluation.figures.report import FigureOptions
    from lexmotion.evaluation.figures.report import report_figures as run

    split = SPLIT_NAMES.get(split, split)
    options = FigureOptions(split, before, lexmlm, dense_model, count, seed, latency_items, batch_size)
    loaded, processor = load_model(model, device)
    made = run(loaded, dataset, output_dir, options, processor, progress=True)
    console = terminal(highlight=False)
    console.print(f"{counted(len(made.files), 'file')} in {escape(str(output_dir))}")
    console.print(f"page: {escape(str(made.page))}")


@app.command()
def benchmark(
    stage: Annotated[
        str, typer.Argument(help="lexical-head, features, loader, encode, index or train-step.", show_default=False)
    ],
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes, under 30 seconds. Example: --quick")] = False,
    repeats: Annotated[
        int | None,
        typer.Option(min=1, help="Timed pairs of calls; if unset, 5, or 3 with --quick. Example: --repeats 9"),
    ] = None,
    size: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE, repeatable: change a size. Example: --size batch=512 --size width=768"),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--json", help="JSON file for the results. Example: --json head.json")
    ] = None,
    no_memory: Annotated[
        bool, typer.Option("--no-memory", help="Do not measure peak memory in further processes. Example: --no-memory")
    ] = False,
) -> None:
    """Compare a hot path with a plain baseline in the same run.

    First checks that both agree; nothing is timed if they differ. Then both run in turn. Ratios are baseline over
    ours: median, lowest and highest, with rates and the peak memory of one call.

    Example: [bold]lexmotion benchmark lexical-head --quick[/]
    """
    given = parse_pairs(size or [], "--size", "batch=512")
    begin()
    from lexmotion.evaluation.benchmarks import harness
    from lexmotion.evaluation.console import benchmark_table

    if stage not in harness.BENCHMARKS:
        raise ValueError(f"no benchmark {stage!r}; choose one of {', '.join(harness.BENCHMARKS)}")
    module = harness.BENCHMARKS[stage]
    sizes = (harness.quick_sizes(module) if quick else {}) | harness.parse_sizes(module, given)
    pairs = repeats or (3 if quick else 5)
    results = harness.run(module, sizes, repeats=pairs, memory=not no_memory, progress=True)
    console = terminal()
    console.print(benchmark_table(results, harness.description(module)))
    facts = ", ".join(f"{name} {value}" for name, value in harness.machine().items() if value is not None)
    console.print(f"[dim]{escape(facts)}[/]", highlight=False)
    if output is not None:
        write_json(output, harness.to_json(results, sizes))
        console.print(f"results: {escape(str(output))}", highlight=False)
