"""Motion files and corpora: `prepare`, `inspect`."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from lexmotion.processing.corpora.options import PrepareOptions
from lexmotion.processing.recordings.options import ReadingOptions

from .base import app
from .loading import begin
from .options import PREPARE, READING, SplitFilesOption, parse_pairs, with_options


@app.command()
@with_options(PrepareOptions, PREPARE)
def prepare(
    source: Annotated[
        Path, typer.Argument(help="Folder of the corpus as its project publishes it.", show_default=False)
    ],
    output_dir: Annotated[
        Path, typer.Option(help="Folder to write. Example: --output-dir prepared/humanml3d", show_default=False)
    ],
    split: SplitFilesOption = None,
    options: PrepareOptions = PrepareOptions(),
    num_workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes that read and write; unset, one per core. Example: --num-workers 8"),
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
        output_dir,
        options,
        splits=splits,
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
@with_options(ReadingOptions, READING)
def inspect(
    file: Annotated[Path, typer.Argument(help="Motion file: .npy, .npz, .bvh or .csv.", show_default=False)],
    reading: ReadingOptions = ReadingOptions(),
    skeleton: Annotated[
        str | None,
        typer.Option(help="Joints wanted: humanml3d or kit-ml; unset, those there are. Example: --skeleton humanml3d"),
    ] = None,
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
    from lexmotion.processing.recordings.inspection import inspect_motion

    found = inspect_motion(file, reading, skeleton)
    console = Console()
    if as_json:
        print(json.dumps(found.to_dict(), indent=2))
    else:
        for table in inspection_tables(found):
            console.print(table)
    if figure is not None and found.motion is not None:
        from lexmotion.evaluation.figures.drawing import facing_front, motion_strip, save_figure

        motion = found.motion
        picture = motion_strip(facing_front(motion.positions, motion.skeleton), motion.skeleton, motion.fps)
        place = save_figure(picture, figure)
        if not as_json:
            console.print(f"picture: {escape(str(place))}", highlight=False)
    if not found.usable:
        raise typer.Exit(1)
