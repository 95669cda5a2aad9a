"""
Arrow files between a prepared folder and the training loop: written once, memory-mapped ever after.

A file holds one record batch, so that the joint positions of all clips are one buffer on which a tensor can stand
without a copy: opening a corpus takes milliseconds and no memory, and the processes of one machine share its pages.
Files live in `cache/` of the prepared folder, or among the caches of `datasets` where that folder cannot be written.
Their names carry a key, made from the hashes of all they were made from, so they are never out of date; one that was
cut short or does not fit together is written anew. Opening does not read the numbers: a flipped bit among them is not
noticed.
"""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import overload

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from filelock import FileLock
from transformers.utils import logging

logger = logging.get_logger(__name__)

FORMAT = 1  # of the files; part of their names
READ_ROWS = 64  # clips of a Parquet file in memory at once


class Strings(Sequence[str]):
    """The strings of an Arrow array, which may be a file: Python objects only when asked for."""

    def __init__(self, array: pa.Array | pa.ChunkedArray):
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index):
        return self.array[index].to_pylist() if isinstance(index, slice) else self.array[index].as_py()

    def __iter__(self) -> Iterator[str]:
        return iter(self.array.to_pylist())


def as_tensor(array: pa.Array) -> torch.Tensor:
    """The numbers of an Arrow array without a copy. They may be in a file, so the tensor must not be written to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(array.to_numpy())


def as_lists(values: pa.Array, lengths: np.ndarray) -> pa.LargeListArray:
    """Lists of the given lengths, one after another in `values`, without a copy."""
    return pa.LargeListArray.from_arrays(pa.array(np.append(0, lengths.cumsum())), values)


# ---- what is kept


def clip_batch(clips: pa.Table, lengths: np.ndarray, frames: pa.Array) -> pa.RecordBatch:
    """
    Clips as a corpus keeps them, a row each: `id`, `base` (equal for clips of one motion), `fps`, `captions` (how
    many) and `motion` (T, 3 J); the skeleton is in the metadata.

    Args:
        clips: columns `id`, `base_id`, `fps`, `skeleton` and `captions`, the number of them.
        lengths: (R,) int64 frames. frames: float32 joint positions of all clips, flat; not copied.

    Raises:
        ValueError: there is no clip, or there are several skeletons.
    """
    if not clips.num_rows:
        raise ValueError("the split has no clip with a caption")
    skeletons = sorted(clips["skeleton"].unique().to_pylist())
    if len(skeletons) > 1:
        raise ValueError(f"one run trains on one skeleton, the split holds {skeletons}; prepare them apart")
    bases = clips["base_id"].combine_chunks().dictionary_encode().indices
    columns = {
        "id": clips["id"].combine_chunks().cast(pa.large_string()),
        "base": bases.cast(pa.int64()),
        "fps": clips["fps"].combine_chunks().cast(pa.float32()),
        "captions": clips["captions"].combine_chunks().cast(pa.int64()),
        "motion": as_lists(pa.FixedSizeListArray.from_arrays(frames, len(frames) // int(lengths.sum())), lengths),
    }
    return pa.record_batch(columns, metadata={"skeleton": skeletons[0]})


def pack_clips(files: Sequence[Path], scratch: Path) -> pa.RecordBatch:
    """The clips of Parquet files that have a caption, see `clip_batch`; their frames stand in the file `scratch`."""
    parts: list[pa.Table] = []
    lengths: list[np.ndarray] = []
    silent = 0
    with open(scratch, "wb") as frames:
        for file in files:
            for rows in pq.ParquetFile(file).iter_batches(
                READ_ROWS, columns=["id", "base_id", "fps", "skeleton", "captions", "motion"]
            ):
                counts = pc.list_value_length(rows["captions"])
                spoken = pc.greater(counts, 0)
                silent += len(rows) - spoken.true_count
                rows = rows.set_column(rows.schema.get_field_index("captions"), "captions", counts).filter(spoken)
                motion = rows["motion"]
                motion = motion.storage if isinstance(motion, pa.ExtensionArray) else motion
                lengths.append(pc.list_value_length(motion).to_numpy().astype(np.int64))
                frames.write(motion.flatten().flatten().to_numpy())
                parts.append(pa.Table.from_batches([rows]).drop_columns("motion"))
    if silent:
        logger.warning(f"{silent} clips have no caption and are left out")
    size = scratch.stat().st_size
    values = pa.memory_map(str(scratch)).read_buffer() if size else pa.py_buffer(b"")
    return clip_batch(
        pa.concat_tables(parts),
        np.concatenate(lengths),
        pa.Array.from_buffers(pa.float32(), size // 4, [None, values]),
    )


def read_captions(files: Sequence[Path]) -> tuple[Strings, Strings]:
    """All captions of Parquet files, in order, and the mirrored ones."""
    table = pq.read_table([str(file) for file in files], columns=["captions", "mirrored_captions"])
    own, mirrored = (Strings(pc.list_flatten(table[name])) for name in table.column_names)
    return own, mirrored


# ---- where it is kept


def cached_batch(folder: Path, name: str, key: str, make: Callable[[Path], pa.RecordBatch]) -> pa.RecordBatch:
    """
    A record batch in a memory-mapped file; where there is none, or a damaged one, it is made and written.

    Several processes may ask at once: one writes, aside and then renamed, the others wait and read.

    Args:
        folder: prepared folder. name: first part of the file's name.
        key: hexadecimal hash of all that the batch is made from.
        make: gives the batch; it may keep columns in the file it is told, which is then deleted.

    Raises:
        PermissionError: neither the folder nor the cache of `datasets` can be written.
    """
    file = f"{name}-{FORMAT}-{key[:16]}.arrow"
    places = (folder / "cache", Path(datasets.config.HF_DATASETS_CACHE) / "lexmotion")
    for place in places:
        batch = read_batch(place / file, key)
        if batch is not None:
            return batch
    path = next((place / file for place in places if _can_write(place)), None)
    if path is None:
        raise PermissionError(f"neither {places[0]} nor {places[1]} can be written; set HF_DATASETS_CACHE to a folder")
    aside, scratch, lock = (path.with_name(f".{file}.{end}") for end in ("tmp", "scratch", "lock"))
    with FileLock(lock):
        batch = read_batch(path, key)
        if batch is None:
            logger.info(f"writing {path}")
            try:
                write_batch(aside, make(scratch), key)
                os.replace(aside, path)
            finally:
                aside.unlink(missing_ok=True)
                scratch.unlink(missing_ok=True)
            batch = read_batch(path, key)
    if batch is None:
        raise OSError(f"{path} cannot be read back; is the disk sound?")
    return batch


def read_batch(path: Path, key: str) -> pa.RecordBatch | None:
    """The memory-mapped record batch of a file; None when there is none or, with a warning, when it is damaged."""
    if not path.is_file():
        return None
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        batch = reader.get_batch(0)
        batch.validate(full=True)
        if batch.schema.metadata[b"key"] != key.encode():
            raise ValueError("it was made from something else")
    except (OSError, ValueError, TypeError, KeyError, pa.ArrowException) as error:
        logger.warning_once(f"{path} is damaged and is written anew: {error}")
        return None
    return batch


def write_batch(path: Path, batch: pa.RecordBatch, key: str) -> None:
    """Write a record batch, its key among the metadata, to the disk."""
    batch = batch.replace_schema_metadata({**(batch.schema.metadata or {}), "key": key})
    with open(path, "wb") as file:
        with pa.ipc.new_file(file, batch.schema) as writer:
            writer.write_batch(batch)
        file.flush()
        os.fsync(file.fileno())


def _can_write(place: Path) -> bool:
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(place, os.W_OK)
