"""Training: `quickstart`, `train`, `compare`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from .base import app
from .loading import begin
from .options import SPLIT_NAMES, DatasetOption, RecipeOption, parse_pairs


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
