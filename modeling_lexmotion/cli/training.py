"""Training: `quickstart`, `train`, `compare`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from .base import app, terminal
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
        typer.Option(min=100, help="Number of synthetic motions; if unset, the tested size. Example: --size 1000"),
    ] = None,
    layout: Annotated[
        str,
        typer.Option(help="Layout of the corpus: humanml3d (22 joints) or kit-ml (21). Example: --layout kit-ml"),
    ] = "humanml3d",
) -> None:
    """Run the whole pipeline on a small synthetic corpus, from motion files to words.

    Generates and prepares the corpus, trains the four phases of the recipe `tiny`, saves the model, reloads it through
    AutoModel and AutoProcessor, evaluates it on held-out motions, and prints the results. Then the trained model of
    the package reads sample recordings.

    Example: [bold]lexmotion quickstart --output-dir runs/quickstart --seed 7[/]
    """
    begin()
    from lexmotion.training.quickstart import quickstart as run

    run(output_dir, seed=seed, num_motions=size, console=terminal(), layout=layout)


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
            help="KEY=VALUE, repeatable. Change a value of the recipe; dots separate sections. "
            "Example: --set seed=1 --set phases.lexcmlp.learning_rate=2e-4",
        ),
    ] = None,
    reuse: Annotated[
        list[Path] | None,
        typer.Option(
            help="Output folder of another training, repeatable. Finished phases are copied if they are identical in "
            "every respect. Example: --reuse runs/small",
            exists=True,
            file_okay=False,
            show_default=False,
        ),
    ] = None,
) -> None:
    """Train the four phases in order: LexMLM, CMMM, LexMMM, LexCMLP.

    Stop it at any time, and run the same command again to resume. The acceptance figures of each phase are printed;
    the final model and processor are saved in OUTPUT_DIR/model.

    Example: [bold]lexmotion train --recipe small --dataset prepared/humanml3d --output-dir runs/small[/]
    """
    parse_pairs(override or [], "--set", "phases.lexcmlp.learning_rate=2e-4")
    begin()
    from lexmotion.evaluation.console import phase_table
    from lexmotion.training.pipeline import train as run

    console = terminal()
    run(
        recipe,
        dataset,
        output_dir,
        overrides=override,
        on_task=lambda _, result: console.print(phase_table([result])),
        reuse=reuse or (),
    )
    console.print(f"model and processor: {escape(str(output_dir / 'model'))}", highlight=False)


# Options of `compare`.
ComparisonFolderOption = Annotated[
    Path, typer.Option(help="Folder for trainings, results and tables. Example: --output-dir runs/compare")
]
RowsOption = Annotated[
    str,
    typer.Option(
        help="Comma-separated rows and groups: all (the systems), kit (those of the paper's Table 2, for a corpus of "
        "the layout kit-ml), phases, head, improvements, plain (without them), lexical-baselines, none, or single "
        "rows; a wrong name lists them. Example: --rows lexmotion,tmr,phases"
    ),
]
SeedsOption = Annotated[
    str,
    typer.Option(help="Number of trainings per row (seeds 0, 1, ...), or a list of seeds. Example: --seeds 3,7,11"),
]
TestDatasetOption = Annotated[
    Path | None,
    typer.Option(
        help="Folder of another prepared corpus to evaluate the rows on. Example: --test-dataset prepared/kit"
    ),
]
GalleriesOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--gallery",
        help="Folder of a further prepared corpus on whose split every row is also measured, over all captions. "
        "Repeatable. Example: --gallery prepared/short",
    ),
]
BudgetOption = Annotated[
    float | None,
    typer.Option(
        help="Minutes of training per row and seed; steps are timed first. If unset, the recipe's steps are used. "
        "Example: --budget-minutes 20"
    ),
]
ComparedSplitOption = Annotated[str, typer.Option(help="Split for the comparison. Example: --split test")]
RowOverridesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "--overrides",
        help="KEY=VALUE, repeatable. Change a value of the recipe for all rows. "
        "Example: --set phases.lexcmlp.learning_rate=2e-4",
    ),
]
TextEncodersOption = Annotated[
    str | None,
    typer.Option(
        help="Comma-separated text encoders: Hub names (including T5), folders or minilm; each is a row of dense "
        "MotionPatches. Example: --text-encoders google-t5/t5-small,distilbert/distilbert-base-uncased"
    ),
]
ReusedResultsOption = Annotated[
    list[Path] | None,
    typer.Option(
        help="Output folder or archive of the same comparison, repeatable. Its results are used if they are valid "
        "here. Example: --reuse other_machine/compare --reuse docs/results.zip"
    ),
]
KeepWeightsOption = Annotated[
    bool,
    typer.Option(
        "--keep-weights/--no-keep-weights", help="Keep the trained models after scoring. Example: --keep-weights"
    ),
]
ThreadsOption = Annotated[
    int | None, typer.Option(min=1, help="CPU threads; if unset, torch's default. Example: --threads 1")
]
ReportOption = Annotated[
    Path | None, typer.Option(help="Markdown page to write from all results. Example: --report docs/results.md")
]
ArchiveOption = Annotated[
    Path | None,
    typer.Option(
        help="Zip file to add all results to, replacing those of the same row and seed; --reuse reads it. "
        "Example: --archive docs/results.zip"
    ),
]


@app.command()
def compare(
    dataset: DatasetOption,
    output_dir: ComparisonFolderOption,
    recipe: RecipeOption = "small",
    rows: RowsOption = "all",
    seeds: SeedsOption = "3",
    budget_minutes: BudgetOption = None,
    split: ComparedSplitOption = "test",
    test_dataset: TestDatasetOption = None,
    gallery: GalleriesOption = None,
    override: RowOverridesOption = None,
    text_encoders: TextEncodersOption = None,
    reuse: ReusedResultsOption = None,
    keep_weights: KeepWeightsOption = True,
    threads: ThreadsOption = None,
    report: ReportOption = None,
    archive: ArchiveOption = None,
) -> None:
    """Train LexMotion and baselines on one harness, and write the tables of the paper with measured figures.

    Missing rows are trained, and scored under all-strict and all-duplicates; the paper's figures are shown as "paper,
    other data". Stop it at any time, and run the same command again to resume. OUTPUT_DIR gets results.json,
    results.md, results.tex and the training curves. They only need the result.json of each row, so results from other
    machines can be reused from a folder or an archive.

    Example: [bold]lexmotion compare --dataset prepared/humanml3d --output-dir runs/compare --budget-minutes 20[/]
    """
    parse_pairs(override or [], "--set", "phases.lexcmlp.learning_rate=2e-4")
    begin()
    import torch

    from lexmotion.training.comparison.compare import compare as run
    from lexmotion.training.comparison.runner import Comparison
    from lexmotion.training.comparison.tables import overview_table

    if threads is not None:
        torch.set_num_threads(threads)
    console = terminal()
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
        test_dataset=test_dataset,
        galleries=gallery or (),
    )
    console.print(overview_table(run(comparison, rows, seeds, text_encoders, report, archive)))
