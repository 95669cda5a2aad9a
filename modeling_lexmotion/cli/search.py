"""Vectors and search: `encode`, `index`, `search`, `demo`."""

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from lexmotion.evaluation.loading import load_model
from lexmotion.processing.recordings.options import ReadingOptions

from .base import app, index_app
from .loading import begin, read_motion_for
from .options import (
    READING,
    DatasetOption,
    DeviceOption,
    IndexArgument,
    JsonOption,
    ModelOption,
    SplitsOption,
    UriOption,
    parse_factors,
    split_names,
    with_options,
)

VectorsOption = Annotated[
    Path | None, typer.Option(help="Folder written by `lexmotion encode`. Example: --vectors vectors/humanml3d")
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        help="Address of the engine: postgresql://USER@HOST/DATABASE, http://HOST:19530, or a .db file of Milvus "
        "Lite; unset, such a file in INDEX. Passwords are not stored. Example: --uri postgresql://me@db/motions"
    ),
]
OverwriteOption = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Replace an index that is there; the table of Milvus or Postgres that its folder names is dropped, which "
        "a copy of an index shares with the original. Example: --overwrite",
    ),
]
MustOption = Annotated[list[str] | None, typer.Option(help="Word every hit has, repeatable. Example: --must kick")]
MustNotOption = Annotated[
    list[str] | None, typer.Option("--not", help="Word no hit has, repeatable. Example: --not right")
]
BoostOption = Annotated[
    list[str] | None,
    typer.Option(help="WORD=FACTOR, repeatable: weigh a word of the query more or less. Example: --boost left=2"),
]
OtherModelOption = Annotated[
    str | None, typer.Option(help="Model for the query instead of the index's own. Example: --model runs/small/model")
]
HitsDatasetOption = Annotated[
    Path | None,
    typer.Option(
        help="Prepared dataset the hits are in: on the page they move then. Example: --dataset prepared/humanml3d"
    ),
]


@app.command()
def encode(
    model: ModelOption,
    dataset: DatasetOption,
    output_dir: Annotated[
        Path, typer.Option(help="Folder of the shards. Example: --output-dir vectors/humanml3d", show_default=False)
    ],
    split: SplitsOption = None,
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
    result with `lexmotion.evaluation.encoding.shards.load_encoded`.

    Example: [bold]lexmotion encode --model runs/small/model --dataset prepared/humanml3d --output-dir vectors[/]
    """
    begin()
    from lexmotion.evaluation.encoding import shards

    state = shards.process_state(cpu=device == "cpu")
    loaded, processor = load_model(model, device or str(state.device))
    started = time.perf_counter()
    report = shards.encode(
        loaded,
        dataset,
        output_dir,
        splits=split_names(split),
        kinds=[kind.strip() for kind in what.split(",")],
        shard_size=shard_size,
        batch_size=batch_size,
        precision=precision,
        processor=processor,
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
    vectors: VectorsOption = None,
    dataset: Annotated[
        Path | None, typer.Option(help="Or a prepared dataset, encoded now. Example: --dataset prepared/humanml3d")
    ] = None,
    other: Annotated[
        Path | None,
        typer.Option("--index", help="Or another index, copied, whatever its engine. Example: --index motions.index"),
    ] = None,
    engine: Annotated[
        str, typer.Option(help="Where the rows are: embedded, milvus or postgres. Example: --engine postgres")
    ] = "embedded",
    uri: AddressOption = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Folder or Hub name of the model that encodes queries; unset, the one of the vectors. "
            "Example: --model runs/small/model"
        ),
    ] = None,
    split: SplitsOption = None,
    overwrite: OverwriteOption = False,
    device: DeviceOption = None,
) -> None:
    """Make an index of the motions of a corpus.

    Takes the vectors of `lexmotion encode`, or encodes a prepared dataset. Captions are kept as metadata. `--index OLD
    --engine postgres --uri ...` moves an index to another engine, or back.

    Example: [bold]lexmotion index build INDEX --dataset prepared/humanml3d --model runs/small/model[/]
    """
    begin()
    from lexmotion.evaluation.search import build_index

    started = time.perf_counter()
    with build_index(
        index_dir,
        vectors=vectors,
        dataset=dataset,
        index=other,
        model=model,
        splits=split_names(split),
        engine=engine,
        uri=uri,
        overwrite=overwrite,
        device=device,
    ) as made:
        took = time.perf_counter() - started
        Console(highlight=False).print(f"{len(made)} motions in {took:.1f} s: {escape(str(index_dir))}")


@index_app.command("add")
@with_options(ReadingOptions, READING)
def index_add(
    index_dir: IndexArgument,
    motions: Annotated[
        list[Path] | None, typer.Argument(metavar="[MOTION]...", help="Motion files, named by their stems.")
    ] = None,
    vectors: VectorsOption = None,
    split: SplitsOption = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace motions of the same id. Example: --replace")
    ] = False,
    uri: UriOption = None,
    reading: ReadingOptions = ReadingOptions(),
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
    from lexmotion.evaluation.search import add_files, encoded_items, open_index

    with open_index(index_dir, device=device, uri=uri) as index:
        if vectors is not None:
            items = encoded_items(vectors, split_names(split))
            added = index.add(items.embeds, items.metadata, items.ids, replace=replace)
        else:
            read = [read_motion_for(index.processor, path, reading) for path in motions or ()]
            added = add_files(index, motions or (), read, replace, reading)
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
    from lexmotion.index.lexmotion_index import LexMotionIndex

    with LexMotionIndex.from_pretrained(index_dir, uri=uri) as index:
        numbers = index.id_kind is int and all(id.removeprefix("-").isdigit() for id in ids)
        gone = index.delete([int(id) for id in ids] if numbers else ids, missing_ok=missing_ok)
        Console(highlight=False).print(f"{gone} motions deleted, {len(index)} in {escape(str(index_dir))}")


@index_app.command("info")
def index_info(index_dir: IndexArgument, as_json: JsonOption = False, uri: UriOption = None) -> None:
    """Check every file of an index against its checksum, and say what it holds and where.

    Example: [bold]lexmotion index info INDEX[/]
    """
    from lexmotion.index.lexmotion_index import LexMotionIndex

    with LexMotionIndex.from_pretrained(index_dir, uri=uri) as index:
        info = index.info()
    if as_json:
        print(json.dumps(info, indent=2))
        return
    for name, value in info.items():
        shown = f"{value:,.1f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value
        Console(highlight=False).print(f"{name.replace('_', ' '):>15}  {escape(str(shown))}", soft_wrap=True)


@app.command()
@with_options(ReadingOptions, READING)
def search(
    index_dir: Annotated[
        str, typer.Argument(metavar="INDEX", help="Folder or Hub name of an index.", show_default=False)
    ],
    text: Annotated[str | None, typer.Argument(help="What happens in the motion.", show_default=False)] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Motions to find. Example: -k 20")] = 10,
    must: MustOption = None,
    must_not: MustNotOption = None,
    boost: BoostOption = None,
    motion: Annotated[
        Path | None, typer.Option(help="Search by example: a motion file instead of text. Example: --motion kick.bvh")
    ] = None,
    reading: ReadingOptions = ReadingOptions(),
    model: OtherModelOption = None,
    as_json: JsonOption = False,
    html: Annotated[
        Path | None, typer.Option(help="Page to write, which needs no other file. Example: --html report.html")
    ] = None,
    dataset: HitsDatasetOption = None,
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
    from lexmotion.evaluation.search import ask, hits_table, open_index

    index = open_index(index_dir, model, device, uri)
    conditions: dict[str, Any] = {"k": k, "must": must or (), "must_not": must_not or (), "boost": factors}
    if motion is None:
        answer = ask(index, text, **conditions)
    else:
        read, rate = read_motion_for(index.processor, motion, reading)
        answer = ask(index, motion=read.model_input, fps=rate, title=str(motion), **conditions)
    if as_json:
        print(json.dumps(answer.to_dict(), indent=2))
    else:
        Console().print(hits_table(answer.hits, f"{answer.title} ({answer.described()})"))
    if html is not None:
        from lexmotion.evaluation.viewer.demo import write_search_page

        write_search_page(html, index, index_dir, answer, dataset)
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
    dataset: HitsDatasetOption = None,
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
    from lexmotion.evaluation.viewer.demo import open_demo

    console = Console(highlight=False)
    if export is None:
        from lexmotion.hub_cards.space.app import gradio_server, serve

        gradio_server()  # a package that is not there is told now, and not after a corpus was encoded
    opened = open_demo(source, index, dataset, split_names(split), device, progress=True)
    if export is not None:
        from lexmotion.hub_cards.space_folder import write_space

        moving = write_space(opened, export, progress=True)
        console.print(f"Space of {len(opened.rows)} motions, {moving} with positions: {escape(str(export))}")
        return
    console.print(f"{len(opened.rows)} motions, {len(opened.words)} words; stop with Ctrl+C")
    serve(opened, host, port, share)
