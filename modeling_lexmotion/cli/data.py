"""Commands for motion files and corpora: `prepare`, `inspect`, `samples`."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from lexmotion.processing.corpora.options import PrepareOptions
from lexmotion.processing.recordings.options import ReadingOptions

from .base import app, terminal
from .loading import begin, in_options
from .options import PREPARE, READING, SplitFilesOption, parse_lists, with_options, without_given


@app.command()
@with_options(PrepareOptions, PREPARE)
def prepare(
    context: typer.Context,
    source: Annotated[Path, typer.Argument(help="Folder of the corpus as published.", show_default=False)],
    output_dir: Annotated[
        Path, typer.Option(help="Folder to write. Example: --output-dir prepared/humanml3d", show_default=False)
    ],
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Take text model, representation and filter from the recipe to train: tiny, small, kit, base or a "
            "YAML file. Options given here replace its values. Example: --recipe small"
        ),
    ] = None,
    split: SplitFilesOption = None,
    options: PrepareOptions = PrepareOptions(),
    num_workers: Annotated[
        int | None,
        typer.Option(help="Number of processes. If unset, one per core. Example: --num-workers 8"),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(help="Read only part I of N into OUTPUT_DIR/shards, on any machine. Example: --shard 2/8"),
    ] = None,
    merge_shards: Annotated[
        int | None,
        typer.Option(help="Merge the N parts written with --shard. Example: --merge-shards 8"),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a folder that is not a prepared corpus. Example: --overwrite")
    ] = False,
) -> None:
    """Convert a motion corpus to a Parquet dataset with a fitted processor.

    Any subset of the splits can be prepared. Statistics and lexicon come only from the training split. report.json
    contains the number of motions, and the skipped ones with reasons. A second run changes nothing. A large corpus can
    be read on several machines: run the same command on each with its --shard, then once with --merge-shards. The
    result is the same.

    Example: [bold]lexmotion prepare HumanML3D --layout humanml3d --recipe small --output-dir prepared/humanml3d[/]
    """
    # On a terminal, `datasets` shows the progress of its workers.
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "0" if sys.stderr.isatty() else "1")
    begin()
    from lexmotion.processing.corpora.prepare import prepare as run

    files = parse_lists(split or [], "--split", "train=train_nodev.txt")
    splits = {name: paths[0] if len(paths) == 1 else paths for name, paths in files.items()}
    if recipe is not None:
        from lexmotion.training.recipe import prepare_values

        options = replace(options, **without_given(context, prepare_values(recipe)))
    work: dict[str, Any] = {"num_workers": num_workers, "shard": shard, "merge_shards": merge_shards}
    report = run(source, output_dir, options, splits=splits, overwrite=overwrite, progress=True, **work)
    console = terminal(highlight=False)
    console.print(escape(report.summary()))
    place = str(output_dir) if shard is None else f"shard {shard} in {output_dir}"
    console.print(f"{'up to date' if report.reused else 'written'}: {escape(place)}")


@app.command()
def samples(
    output_dir: Annotated[
        Path, typer.Argument(metavar="OUTPUT_DIR", help="Folder to write, new or empty.", show_default=False)
    ],
) -> None:
    """Copy the sample motions of the package, twelve BVH files with captions, into a folder.

    Example: [bold]lexmotion samples motions[/]
    """
    from lexmotion.common.text import counted
    from lexmotion.shipped import copy_samples

    copied = copy_samples(output_dir)
    terminal(highlight=False).print(f"{counted(len(copied), 'motion')} in {escape(str(output_dir))}", soft_wrap=True)


@app.command()
@with_options(ReadingOptions, READING)
def inspect(
    file: Annotated[
        Path,
        typer.Argument(
            help="Motion file: .npy, .npz, .bvh, .csv, .c3d, .trc, .amc, .glb, .gltf or .json.", show_default=False
        ),
    ],
    reading: ReadingOptions = ReadingOptions(),
    skeleton: Annotated[
        str | None,
        typer.Option(help="Required joints: humanml3d or kit-ml. If unset, either. Example: --skeleton humanml3d"),
    ] = None,
    figure: Annotated[
        Path | None,
        typer.Option(help="Write a strip of stick figures (.png, .svg or .pdf). Example: --figure strip.png"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables. Example: --json")] = False,
) -> None:
    """Inspect a motion file and list its problems.

    Shows format, joints, frame rate, unit and up axis with their confidence, measures the motion, and lists
    problems with remedies. The exit status is 0 if a model can use the motion, else 1.

    Example: [bold]lexmotion inspect kick.bvh --figure strip.png[/]
    """
    from lexmotion.evaluation.console import inspection_tables
    from lexmotion.processing.recordings.inspection import inspect_motion

    found = inspect_motion(file, reading, skeleton)
    found = replace(found, problems=[in_options(problem) for problem in found.problems])
    console = terminal()
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
