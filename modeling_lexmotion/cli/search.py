"""Vectors and search: `encode`, `index`, `search`, `demo`."""

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from lexmotion.common.text import counted
from lexmotion.evaluation.loading import load_model
from lexmotion.processing.recordings.options import ReadingOptions

from .base import app, index_app, terminal
from .loading import begin, read_motion_for
from .options import (
    DEFAULT_MODEL,
    READING,
    DatasetOption,
    DeviceOption,
    IndexArgument,
    JsonOption,
    ModelOption,
    SplitsOption,
    UriOption,
    ViewsOption,
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
        "Lite; if unset, a .db file in INDEX. Passwords are not stored. Example: --uri postgresql://me@db/motions"
    ),
]
OverwriteOption = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Replace an existing index. Drops its Milvus or Postgres table only if the index in this folder made it, "
        "not that of a copied index. Example: --overwrite",
    ),
]
MustOption = Annotated[
    list[str] | None, typer.Option(help="Word every hit must have, repeatable. Example: --must kick")
]
MustNotOption = Annotated[
    list[str] | None, typer.Option("--not", help="Word no hit may have, repeatable. Example: --not right")
]
BoostOption = Annotated[
    list[str] | None,
    typer.Option(help="WORD=FACTOR, repeatable: scale the weight of a query word. Example: --boost left=2"),
]
OtherModelOption = Annotated[
    str | None, typer.Option(help="Model for the query instead of the index's own. Example: --model runs/small/model")
]
HitsDatasetOption = Annotated[
    Path | None,
    typer.Option(help="Prepared dataset with the hits, to show them moving. Example: --dataset prepared/humanml3d"),
]


@app.command()
def encode(
    dataset: DatasetOption,
    output_dir: Annotated[
        Path, typer.Option(help="Folder of the shards. Example: --output-dir vectors/humanml3d", show_default=False)
    ],
    model: ModelOption = DEFAULT_MODEL,
    split: SplitsOption = None,
    what: Annotated[
        str, typer.Option(help="motion, text (every caption) or both, separated by a comma. Example: --what motion")
    ] = "motion,text",
    shard_size: Annotated[int, typer.Option(min=1, help="Motions per shard. Example: --shard-size 1024")] = 4096,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Items per batch; if unset, 64, or 512 on a GPU. Example: --batch-size 256"),
    ] = None,
    precision: Annotated[
        str,
        typer.Option(
            help="fp32, bf16 (twice as fast, vectors equal to about 1 %), or auto: bf16 if the hardware supports it. "
            "Example: --precision fp32"
        ),
    ] = "auto",
    views: ViewsOption = 1,
    device: DeviceOption = None,
) -> None:
    """Write the sparse vectors of a corpus as Parquet shards.

    If stopped, run the same command again: finished shards are kept. Under `accelerate launch -m lexmotion encode`,
    processes on machines that share the output folder divide the shards. Read the result with
    `lexmotion.evaluation.encoding.shards.load_encoded`.

    Example: [bold]lexmotion encode --model runs/small/model --dataset prepared/humanml3d --output-dir vectors[/]
    """
    begin()
    from lexmotion.evaluation.encoding import shards

    state = shards.process_state(cpu=device == "cpu")
    loaded, processor = load_model(model, device or str(state.device))
    started = time.perf_counter()
    splits, kinds = split_names(split), [kind.strip() for kind in what.split(",")]
    settings = shard_size, batch_size, precision
    report = shards.encode(loaded, dataset, output_dir, splits, kinds, *settings, processor, True, views)
    if state.is_main_process:
        took = f"{time.perf_counter() - started:.0f} s, {counted(state.num_processes, 'process', 'processes')}"
        console = terminal(highlight=False)
        console.print(f"{counted(report.written, 'shard')} written ({took}), {report.kept} kept")
        console.print(escape(report.summary()))
        console.print(f"vectors: {escape(str(output_dir))}")
    state.destroy_process_group()


@app.command()
def encode_captions(
    captions: Annotated[
        list[Path],
        typer.Option(
            help="Folder of text files (HumanML3D's texts), text file with one caption per line, or prepared corpus. "
            "Repeatable. Example: --captions HumanML3D/texts",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            help="Table to write or to add captions to; clip.py is written beside it. Example: --output table.npz",
            show_default=False,
        ),
    ],
    model: ModelOption = DEFAULT_MODEL,
    dim: Annotated[
        int | None, typer.Option(min=1, help="Width of a vector; if unset, 512. Example: --dim 768")
    ] = None,
    tokens: Annotated[
        bool,
        typer.Option("--tokens", help="Also store the state of every token, for MDM with BERT. Example: --tokens"),
    ] = False,
    context_length: Annotated[
        list[int] | None,
        typer.Option(
            help="Number of tokens that a generator truncates captions to. Repeatable. If unset, 22 (MDM) and 77. "
            "Example: --context-length 77"
        ),
    ] = None,
    device: DeviceOption = None,
) -> None:
    """Encode captions for a motion generator whose environment cannot import lexmotion.

    Writes clip.py beside the table. In the generator's environment, it replaces OpenAI's clip and looks captions up in
    the table. A second run adds captions to the table.

    Example: [bold]lexmotion encode-captions --model runs/small/model --captions HumanML3D/texts --output table.npz[/]
    """
    begin()
    from lexmotion.evaluation.encoding.captions import CONTEXT_LENGTHS
    from lexmotion.evaluation.encoding.captions import encode_captions as run

    lengths = context_length or CONTEXT_LENGTHS
    report = run(
        model, captions, output, dim=dim, tokens=tokens, context_lengths=lengths, device=device, progress=True
    )
    console = terminal(highlight=False, soft_wrap=True)
    states = " and token states" if report.tokens else ""
    console.print(f"{report.captions} captions ({report.added} added): vectors of {report.dim} numbers{states}")
    console.print(f"table: {escape(str(report.table))}")
    console.print(f"replacement of clip: {escape(str(report.clip))}")


@index_app.callback()
def index() -> None:
    """Build and change an index of motions to search by words."""


@index_app.command("build")
@with_options(ReadingOptions, READING)
def index_build(
    index_dir: IndexArgument,
    motions: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[MOTIONS]...",
            help="Motion files, or folders of them; with a table captions.csv in a folder, its captions are kept.",
            show_default=False,
        ),
    ] = None,
    vectors: VectorsOption = None,
    dataset: Annotated[
        Path | None, typer.Option(help="Or a prepared dataset to encode now. Example: --dataset prepared/humanml3d")
    ] = None,
    other: Annotated[
        Path | None,
        typer.Option("--index", help="Or another index of any engine to copy. Example: --index motions.index"),
    ] = None,
    engine: Annotated[
        str, typer.Option(help="Engine that stores the rows: embedded, milvus or postgres. Example: --engine postgres")
    ] = "embedded",
    uri: AddressOption = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Model that encodes queries: folder, Hub name, or one of the package; if unset, that of the vectors, "
            "else small. Example: --model runs/small/model"
        ),
    ] = None,
    split: SplitsOption = None,
    overwrite: OverwriteOption = False,
    views: Annotated[
        int | None,
        typer.Option(
            help="Views of each motion to average: 1, 2 (and its mirror image) or 4 (and two crops). "
            "If unset, 1. `index add` does the same. Example: --views 4"
        ),
    ] = None,
    reading: ReadingOptions = ReadingOptions(),
    device: DeviceOption = None,
) -> None:
    """Build an index of motions.

    Encodes motion files or a prepared dataset, or reads the vectors of `lexmotion encode`. Captions are kept as
    metadata. `--index OLD --engine postgres --uri ...` copies an index to another engine, or back.

    Example: [bold]lexmotion index build INDEX folder_of_bvh[/]
    """
    begin()
    from lexmotion.evaluation.search import build_index

    started = time.perf_counter()
    source: dict[str, Any] = {"motions": motions, "vectors": vectors, "dataset": dataset, "index": other}
    source |= {"splits": split_names(split), "reading": reading, "views": views}
    options: dict[str, Any] = {"model": model, "engine": engine, "uri": uri, "overwrite": overwrite, "device": device}
    with build_index(index_dir, **source, **options) as made:
        took = time.perf_counter() - started
        terminal(highlight=False).print(f"{counted(len(made), 'motion')} in {took:.1f} s: {escape(str(index_dir))}")


@index_app.command("add")
@with_options(ReadingOptions, READING)
def index_add(
    index_dir: IndexArgument,
    motions: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[MOTION]...",
            help="Motion files; ids are their names, or the stems if the index has those.",
        ),
    ] = None,
    vectors: VectorsOption = None,
    split: SplitsOption = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace motions with the same id. Example: --replace")
    ] = False,
    uri: UriOption = None,
    reading: ReadingOptions = ReadingOptions(),
    device: DeviceOption = None,
) -> None:
    """Add motion files or vectors to an index; they are on disk when the command returns.

    Example: [bold]lexmotion index add INDEX kick.bvh jump.npy[/]
    """
    if bool(motions) == (vectors is not None):
        raise ValueError("motions to add: pass either motion files or --vectors DIR")
    missing = [path for path in motions or () if not path.is_file()]
    if missing:
        raise FileNotFoundError(f"no motion file {str(missing[0])!r}; check the path")
    begin()
    from lexmotion.evaluation.search import add_files, add_vectors, open_index
    from lexmotion.processing.recordings.reading import motions_in, options_of_corpus

    with open_index(index_dir, device=device, uri=uri) as index:
        if vectors is not None:
            added = add_vectors(index, vectors, split_names(split), replace)
        else:
            files = [file for path in motions or () for file in motions_in(path, reading)]
            readings = options_of_corpus(files, reading, index.processor.feature_extractor.skeleton)
            pairs = zip(files, readings, strict=True)
            read = [read_motion_for(index.processor, path, options) for path, options in pairs]
            added = add_files(index, files, read, replace, readings)
        done = f"{counted(len(added), 'motion')} added"
        terminal(highlight=False).print(f"{done}, {len(index)} in {escape(str(index_dir))}")


@index_app.command("delete")
def index_delete(
    index_dir: IndexArgument,
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Motions to delete.", show_default=False)],
    missing_ok: Annotated[
        bool, typer.Option("--missing-ok", help="Ignore ids that do not exist. Example: --missing-ok")
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
        done = f"{counted(gone, 'motion')} deleted"
        terminal(highlight=False).print(f"{done}, {len(index)} in {escape(str(index_dir))}")


@index_app.command("info")
def index_info(index_dir: IndexArgument, as_json: JsonOption = False, uri: UriOption = None) -> None:
    """Check the files of an index against their checksums, and show its content and location.

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
        terminal(highlight=False).print(f"{name.replace('_', ' '):>15}  {escape(str(shown))}", soft_wrap=True)


@app.command()
@with_options(ReadingOptions, READING)
def search(
    index_dir: Annotated[
        str, typer.Argument(metavar="INDEX", help="Folder or Hub name of an index.", show_default=False)
    ],
    text: Annotated[str | None, typer.Argument(help="Description of the motion.", show_default=False)] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Motions to find. Example: -k 20")] = 10,
    must: MustOption = None,
    must_not: MustNotOption = None,
    boost: BoostOption = None,
    motion: Annotated[
        Path | None, typer.Option(help="Motion file to search by, instead of text. Example: --motion kick.bvh")
    ] = None,
    reading: ReadingOptions = ReadingOptions(),
    model: OtherModelOption = None,
    as_json: JsonOption = False,
    html: Annotated[
        Path | None, typer.Option(help="Self-contained HTML page to write. Example: --html report.html")
    ] = None,
    dataset: HitsDatasetOption = None,
    uri: UriOption = None,
    device: DeviceOption = None,
) -> None:
    """Find motions by text or by an example motion, and see which words matched.

    Without text and motion, the words of --must and --boost are the query.

    Example: [bold]lexmotion search INDEX "a person kicks with the left leg" -k 10 --must kick --not right[/]
    """
    factors = parse_factors(boost or [])
    if text is not None and motion is not None:
        raise ValueError("query: got a text and --motion; pass one of them")
    if motion is not None and not motion.is_file():
        raise FileNotFoundError(f"no motion file {str(motion)!r}; check the path")
    if dataset is not None and not dataset.is_dir():
        raise FileNotFoundError(f"no dataset {str(dataset)!r}; pass a folder written by `lexmotion prepare`")
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
        terminal().print(hits_table(answer.hits, f"{answer.title} ({answer.described()})"))
    if html is not None:
        from lexmotion.evaluation.viewer.demo import write_search_page

        write_search_page(html, index, index_dir, answer, dataset)
        if not as_json:
            terminal(highlight=False).print(f"page: {escape(str(html))}")


@app.command()
def demo(
    source: Annotated[
        str | None,
        typer.Argument(
            help="Output of `lexmotion quickstart`, a model (folder, Hub name, or one of the package), or a folder of "
            "--export; if unset, ./quickstart if it exists, else the package's model and sample motions.",
            show_default=False,
        ),
    ] = None,
    index: Annotated[
        str | None,
        typer.Option(help="Index (folder or Hub name); if unset, that of the dataset. Example: --index motions.index"),
    ] = None,
    dataset: HitsDatasetOption = None,
    split: Annotated[
        list[str] | None,
        typer.Option(help="Dataset split, repeatable; if unset, test, or all with --index. Example: --split test"),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the page. Example: --port 7860")] = 7860,
    host: Annotated[
        str, typer.Option(help="Address to serve at; 0.0.0.0 accepts other machines. Example: --host 0.0.0.0")
    ] = "127.0.0.1",
    share: Annotated[
        bool, typer.Option("--share/--no-share", help="Serve at a public gradio address too. Example: --share")
    ] = False,
    export: Annotated[
        Path | None,
        typer.Option(help="Write or replace a folder with a Space instead of serving. Example: --export space"),
    ] = None,
    device: DeviceOption = None,
) -> None:
    """Search motions in the browser, by text and by example, and see why each was found.

    Needs `pip install lexmotion\\[demo]`. Nothing leaves this machine without --share; the page loads no other site.

    Example: [bold]lexmotion demo --port 7860[/]
    """
    if source is None and index is None and dataset is None and Path("quickstart", "model").is_dir():
        source = "quickstart"
    begin()
    from lexmotion.evaluation.viewer.demo import open_demo

    console = terminal(highlight=False)
    if export is None:
        from lexmotion.hub_cards.space.app import gradio_server, serve

        gradio_server()  # a missing package is reported before a corpus is encoded
    opened = open_demo(source, index, dataset, split_names(split), device, progress=True)
    if export is not None:
        from lexmotion.hub_cards.space_folder import write_space

        moving = write_space(opened, export, progress=True)
        console.print(
            f"Space of {counted(len(opened.rows), 'motion')}, {moving} with positions: {escape(str(export))}"
        )
        return
    console.print(f"{counted(len(opened.rows), 'motion')}, {counted(len(opened.words), 'word')}; stop with Ctrl+C")
    serve(opened, host, port, share)
