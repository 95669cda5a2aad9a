"""Reading of a corpus folder with several workers.

A block is a fixed number of consecutive ids of one split. It is one task of a worker, one row group of a data file and
one step of fitting the processor, and a shard is a range of complete blocks, so the result depends neither on the
number of workers nor on the number of shards. The content of blocks, see `BLOCK_FEATURES`, is kept in Arrow files, not
in memory.
"""

import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import datasets
import multiprocess
import pyarrow as pa
import torch
from datasets import Dataset, Features, List, Value, concatenate_datasets

from lexmotion.common.files import sha256_of

from ..feature_extraction_lexmotion import FrameMoments, LexMotionFeatureExtractor
from .columns import records_table
from .folders import CorpusFolder
from .records import MotionRecord

# Starting a worker takes as long as reading and summing this many motions, or hashing the files of this many blocks.
MOTIONS_PER_WORKER = 256
BLOCKS_HASHED_PER_WORKER = 64

_TEXT = Value("string")
_FILES = List({"name": _TEXT, "sha256": _TEXT})
_HASHED = Features({"split": _TEXT, "number": Value("int32"), "files": _FILES})
BLOCK_FEATURES = Features(
    {
        "split": _TEXT,
        "number": Value("int32"),  # in its split
        "listed": Value("int32"),  # ids
        "files": _FILES,  # all files that were read
        "skipped": List({"split": _TEXT, "id": _TEXT, "reason": _TEXT, "detail": _TEXT}),
        "rows": Value("large_binary"),  # Arrow stream, columns of `corpus_features`
        "num_bytes": Value("int64"),  # of these rows in memory, 0 without rows
        "moments": List({"frames": Value("int64"), "mean": List(Value("float64")), "squares": List(Value("float64"))}),
    }
)


@dataclass(frozen=True)
class Shard:
    """One of `count` equal parts of every split; `number` starts at 1.

    Example:
        >>> Shard.parse("2/8").name
        '00002-of-00008'
        >>> [list(Shard(number, 2).part_of(5)) for number in (1, 2)]
        [[0, 1], [2, 3, 4]]
    """

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Parse `"2/8"` as the second of eight; anything else raises `ValueError`."""
        match = re.fullmatch("([0-9]+)/([0-9]+)", text)
        shard = cls(*map(int, match.groups())) if match else cls(0)
        if not 1 <= shard.number <= shard.count:
            raise ValueError(f"shard: expected I/N with I from 1 to N, for example 2/8, got {text!r}")
        return shard

    @property
    def argument(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def name(self) -> str:
        return f"{self.number:05d}-of-{self.count:05d}"

    def part_of(self, length: int) -> range:
        return range(length * (self.number - 1) // self.count, length * self.number // self.count)


def plan_blocks(
    folders: Sequence[CorpusFolder], ids: Iterable[tuple[str, int, Sequence[str]]], size: int, shard: Shard
) -> list[dict]:
    """List the blocks of a shard: `split`, `number`, `reader`, `ids`, `clips` (the recording of each id).

    Args:
        folders: readers of the corpus.
        ids: split, place of its reader in `folders`, ids. Blocks of a split are numbered over all its readers.
        size: ids per block.
        shard: part of every entry of `ids` to list.
    """
    blocks = []
    first: dict[str, int] = {}
    for split, reader, listed in ids:
        count = -(-len(listed) // size)
        for number in shard.part_of(count):
            part = list(listed[number * size : (number + 1) * size])
            clips = [folders[reader].source_clip(motion_id) for motion_id in part]
            place = first.get(split, 0) + number
            blocks.append({"split": split, "number": place, "reader": reader, "ids": part, "clips": clips})
        first[split] = first.get(split, 0) + count
    return blocks


def count_workers(wanted: int | None, motions: int) -> int:
    """Return `wanted`; if None, the number of available cores, at most one per `MOTIONS_PER_WORKER` motions."""
    if wanted is not None:
        if wanted < 1:
            raise ValueError(f"num_workers: got {wanted}; pass at least 1")
        return wanted
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, motions // MOTIONS_PER_WORKER))


def hash_blocks(
    blocks: list[dict], cache: Path, folders: Sequence[CorpusFolder], workers: int, progress: bool
) -> Dataset:
    """Return `split`, `number` and `files` of every block, in order."""
    workers = max(1, min(workers, len(blocks) // BLOCKS_HASHED_PER_WORKER))
    return spread(_hash_block, blocks, workers, "hashing blocks", progress, cache, _HASHED, folders=folders)


def read_blocks(
    blocks: list[dict],
    cache: Path,
    folders: Sequence[CorpusFolder],
    extractor: LexMotionFeatureExtractor | None,
    workers: int,
    progress: bool,
) -> Dataset:
    """Read every block into Arrow files.

    Args:
        blocks: blocks from [`plan_blocks`].
        cache: folder for the files, see [`open_blocks`].
        folders: readers of the corpus.
        extractor: feature extractor for the moments of the training motions and their mirror images; None: no moments.
        workers: number of processes; 1: read in this process.
        progress: show a progress bar on a terminal.

    Returns:
        `BLOCK_FEATURES` in the format `arrow`, in the order of `blocks`.
    """
    options = {"folders": folders, "extractor": extractor}
    return spread(_read_block, blocks, workers, "reading blocks", progress, cache, BLOCK_FEATURES, **options)


def open_blocks(caches: Sequence[Path], splits: Sequence[str]) -> Dataset:
    """Open the blocks that [`read_blocks`] wrote to these folders, by split and number."""
    paths = [path for cache in caches for path in sorted(cache.glob("*.arrow"))]
    if not paths:
        return _empty(BLOCK_FEATURES)
    return _in_order(concatenate_datasets([Dataset.from_file(str(path)) for path in paths]), splits)


def block_rows(block: pa.Table, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the rows of one block, without reading the bytes of other columns."""
    buffer = block["rows"][0].as_buffer()
    if columns is None:
        return pa.ipc.open_stream(buffer).read_all()
    schema = pa.ipc.open_stream(buffer).schema
    fields = [schema.get_field_index(column) for column in columns]
    return pa.ipc.open_stream(buffer, options=pa.ipc.IpcReadOptions(included_fields=fields)).read_all()


def block_moments(block: pa.Table) -> Iterator[FrameMoments]:
    for term in block["moments"][0].as_py():
        yield FrameMoments(**term)


def spread(
    function: Callable[..., dict | None],
    tasks: list[dict],
    workers: int,
    description: str,
    progress: bool,
    cache: Path | None = None,
    features: Features | None = None,
    **options: Any,
) -> Dataset:
    """Call `function(task, **options)` for every task, by `datasets` workers with one thread each.

    Args:
        function: module-level function that returns a row, or None without a result.
        tasks: tasks with `split` and `number`, in order.
        workers: number of processes; 1: run in this process.
        description: text of the progress bar.
        progress: show a progress bar on a terminal.
        cache: empty folder for Arrow files of the rows.
        features: columns of a row.
        options: further arguments of `function`.

    Returns:
        The rows in the order of the tasks, in the format `arrow`.

    Raises:
        OSError: if a worker was killed; errors of `function` are raised unchanged.
    """
    if not tasks:
        return _empty(features or Features())
    workers = min(workers, len(tasks))
    # `datasets` assigns consecutive tasks; every n-th task instead gives each worker a part of the training split.
    striped = Dataset.from_list([task for start in range(workers) for task in tasks[start::workers]])
    threads = torch.get_num_threads()
    try:
        with _progress_bars(progress):
            done = striped.map(
                _single_threaded,
                fn_kwargs={"function": function, "apart": workers > 1, **options},
                num_proc=workers if workers > 1 else None,
                remove_columns=[name for name in striped.column_names if features and name not in features],
                features=features,
                cache_file_name=cache and str(cache / "blocks.arrow"),
                load_from_cache_file=False,
                writer_batch_size=1,  # a block has some megabytes
                new_fingerprint="blocks",  # instead of hashing all options
                desc=description,
            )
    except RuntimeError as error:
        if "abruptly died" not in str(error):
            raise
        message = f"a worker was killed while {description}, perhaps for lack of memory"
        raise OSError(f"{message}; pass fewer than {workers} with num_workers=...") from error
    except multiprocess.TimeoutError as error:
        # `datasets` raises it while closing the workers; its cause (most likely Ctrl-C) is what matters.
        raise error.__context__ or error from None
    finally:
        torch.set_num_threads(threads)
    return _in_order(done, list(dict.fromkeys(task["split"] for task in tasks)))


def _single_threaded(task: dict, function: Callable[..., dict | None], apart: bool, **options: Any) -> dict | None:
    torch.set_num_threads(1)  # one worker per core, and sums independent of the number of threads
    if apart:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process handles Ctrl-C and ends the workers
    return function(task, **options)


def _empty(features: Features) -> Dataset:
    return Dataset.from_dict({name: [] for name in features}, features=features).with_format("arrow")


def _in_order(blocks: Dataset, splits: Sequence[str]) -> Dataset:
    split, number = (blocks.data.column(name).to_pylist() for name in ("split", "number"))
    places = list(zip(map(splits.index, split), number, strict=True))
    return blocks.select(sorted(range(len(places)), key=places.__getitem__)).with_format("arrow")


@contextmanager
def _progress_bars(progress: bool) -> Iterator[None]:
    """Show the progress bars of `datasets` only on a terminal, unless its environment variable is set."""
    progress = progress and sys.stderr.isatty()
    shown = not datasets.are_progress_bars_disabled()
    if progress == shown or datasets.config.HF_DATASETS_DISABLE_PROGRESS_BARS is not None:
        yield
        return
    switch = {True: datasets.enable_progress_bars, False: datasets.disable_progress_bars}
    switch[progress]()
    try:
        yield
    finally:
        switch[shown]()


def _hash_block(block: dict, folders: Sequence[CorpusFolder]) -> dict:
    reader = block["reader"]
    prefix = f"{reader}/" if reader else ""  # files of extra motions may have the names of the corpus's
    # `os.path.relpath` would look up the working directory for each of millions of files.
    paths = dict.fromkeys(path for motion_id in block["ids"] for path in folders[reader].files_of(motion_id))
    return {"files": [{"name": f"{prefix}{path.parent.name}/{path.name}", "sha256": _hash_of(path)} for path in paths]}


def _hash_of(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError:  # the motion is reported as unreadable
        return ""


def _moments(records: Sequence[MotionRecord], extractor: LexMotionFeatureExtractor) -> Iterable[FrameMoments]:
    try:
        # Training mirrors motions, so the moments include their mirror images.
        positions, rates = (record.positions for record in records), (record.fps for record in records)
        yield from extractor.moments(positions, fps=rates, mirror=True)
    except ValueError as error:
        raise ValueError(f"training motions from {records[0].id!r} on: {error}") from error


def _read_block(block: dict, folders: Sequence[CorpusFolder], extractor: LexMotionFeatureExtractor | None) -> dict:
    folder = folders[block["reader"]]
    folder.skipped.clear()
    records = [
        record
        for motion_id, clip in zip(block["ids"], block["clips"], strict=True)
        for record in folder.read(motion_id, block["split"], clip)
    ]
    moments = _moments(records, extractor) if extractor is not None and block["split"] == "train" else ()
    table = records_table(records, folder.skeleton)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return {
        "listed": len(block["ids"]),
        **_hash_block(block, folders),
        "skipped": [asdict(item) for item in folder.skipped],
        "rows": sink.getvalue().to_pybytes(),
        "num_bytes": table.nbytes,
        "moments": [term._asdict() for term in moments],
    }
