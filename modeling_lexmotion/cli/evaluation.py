"""Measuring and looking: `evaluate`, `explain`, `report`, `benchmark`."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from lexmotion.common.files import write_json
from lexmotion.processing.recordings.options import ReadingOptions

from .base import app, evaluate_app, report_app
from .loading import begin, load_model, read_motion_for
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
    from lexmotion.processing.corpora.text_models import resolve_text_model

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
    from lexmotion.evaluation.metrics.order import evaluate_order as run
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
    from lexmotion.evaluation.encoding.vectors import split_motions
    from lexmotion.evaluation.metrics.retrieval import evaluate_retrieval
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
    read, rate = read_motion_for(processor, motion, reading)
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
