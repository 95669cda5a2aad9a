"""
Cached Arrow files of a prepared folder, memory-mapped for training.

Each file is one record batch, so that the joint positions of all clips are a single buffer, used by a tensor without a
copy: a corpus opens in milliseconds without using memory, and processes on one machine share its pages. Files are in
`cache/` of the prepared folder, or in the cache of `datasets` if that is not writable. Their names contain a key from
the hashes of all inputs, so they are never out of date. A hidden file beside each has its SHA-256, which is compared
when the file is opened for the first time and after it changed. A file that differs, or is truncated, is rewritten.
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
from torch import Tensor
from transformers.utils import logging

from lexmotion.common.files import full_disk_named, remembered_digests, sha256_of, write_text
from lexmotion.processing.corpora.report import DIGESTS

logger = logging.get_logger(__name__)

FORMAT = 1  # version of the files, part of their names
READ_ROWS = 64  # clips of a Parquet file read into memory at once


class Strings(Sequence[str]):
    """Strings of an Arrow array, possibly memory-mapped, converted to Python objects on access."""

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


def as_tensor(array: pa.Array) -> Tensor:
    """Return the numbers of an Arrow array without a copy; the tensor may be memory-mapped and is read-only."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(array.to_numpy())


def as_lists(values: pa.Array, lengths: np.ndarray) -> pa.LargeListArray:
    """Split `values` into consecutive lists of the given lengths, without a copy."""
    return pa.LargeListArray.from_arrays(pa.array(np.append(0, lengths.cumsum())), values)


# ---- contents


def clip_batch(clips: pa.Table, lengths: np.ndarray, frames: pa.Array) -> pa.RecordBatch:
    """
    Return one row per clip: `id`, `base` (equal for clips of one motion), `fps`, `captions` (their number), `motion`
    (T, 3 J); the skeleton is in the metadata.

    Args:
        clips: columns `id`, `base_id`, `fps`, `skeleton` and `captions` (their number).
        lengths: (R,) int64 frames of each clip.
        frames: flat float32 joint positions of all clips; not copied.

    Raises:
        ValueError: if there is no clip, or there are several skeletons.
    """
    if not clips.num_rows:
        raise ValueError("split: 0 clips with a caption; prepare it with captions")
    skeletons = sorted(clips["skeleton"].unique().to_pylist())
    if len(skeletons) > 1:
        raise ValueError(f"split: several skeletons {skeletons}; prepare one folder for each")
    bases = clips["base_id"].combine_chunks().dictionary_encode().indices
    columns = {
        "id": clips["id"].combine_chunks().cast(pa.large_string()),
        "base": bases.cast(pa.int64()),
        "fps": clips["fps"].combine_chunks().cast(pa.float32()),
        "captions": clips["captions"].combine_chunks().cast(pa.int64()),
        "motion": as_lists(pa.FixedSizeListArray.from_arrays(frames, len(frames) // int(lengths.sum())), lengths),
    }
    return pa.record_batch(columns, metadata={"skeleton": skeletons[0]})


def pack_clips(files: Sequence[Path], scratch: Path, captioned_only: bool = True) -> pa.RecordBatch:
    """
    Return the clips of Parquet files (see `clip_batch`), with their frames in the file `scratch`.

    Args:
        files: Parquet files of prepared motions.
        scratch: file to write.
        captioned_only: leave clips without captions out, with a warning.
    """
    parts: list[pa.Table] = []
    lengths: list[np.ndarray] = []
    columns, skipped = ["id", "base_id", "fps", "skeleton", "captions", "motion"], 0
    with open(scratch, "wb") as frames:
        for file in files:
            for rows in pq.ParquetFile(file).iter_batches(READ_ROWS, columns=columns):
                counts = pc.list_value_length(rows["captions"])
                rows = rows.set_column(rows.schema.get_field_index("captions"), "captions", counts)
                if captioned_only:
                    captioned = pc.greater(counts, 0)
                    skipped += len(rows) - captioned.true_count
                    rows = rows.filter(captioned)
                motion = rows["motion"]
                motion = motion.storage if isinstance(motion, pa.ExtensionArray) else motion
                lengths.append(pc.list_value_length(motion).to_numpy().astype(np.int64))
                frames.write(motion.flatten().flatten().to_numpy())
                parts.append(pa.Table.from_batches([rows]).drop_columns("motion"))
    if skipped:
        logger.warning(f"{skipped} clips have no caption and are left out")
    size = scratch.stat().st_size
    values = pa.memory_map(str(scratch)).read_buffer() if size else pa.py_buffer(b"")
    positions = pa.Array.from_buffers(pa.float32(), size // 4, [None, values])
    return clip_batch(pa.concat_tables(parts), np.concatenate(lengths), positions)


def read_captions(files: Sequence[Path]) -> tuple[Strings, Strings]:
    """Return all captions of Parquet files in order, and the mirrored ones."""
    table = pq.read_table([str(file) for file in files], columns=["captions", "mirrored_captions"])
    own, mirrored = (Strings(pc.list_flatten(table[name])) for name in table.column_names)
    return own, mirrored


# ---- files


def cached_batch(folder: Path, name: str, key: str, make: Callable[[Path], pa.RecordBatch]) -> pa.RecordBatch:
    """
    Return a record batch from a memory-mapped file, which is written first if it is missing or damaged.

    Several processes may call this at once; one of them writes atomically, the others wait.

    Args:
        folder: prepared folder.
        name: first part of the file's name.
        key: hexadecimal hash of all inputs of the batch.
        make: returns the batch; it may store columns in the temporary file at the path it is given.

    Raises:
        PermissionError: if neither the folder nor the cache of `datasets` is writable.
    """
    file = f"{name}-{FORMAT}-{key[:16]}.arrow"
    places = (folder / "cache", Path(datasets.config.HF_DATASETS_CACHE) / "lexmotion")
    for place in places:
        batch = read_batch(place / file, key)
        if batch is not None:
            return batch
    path = next((place / file for place in places if _can_write(place)), None)
    if path is None:
        raise PermissionError(f"not writable: {places[0]} and {places[1]}; set HF_DATASETS_CACHE to a writable folder")
    aside, scratch, lock = (path.with_name(f".{file}.{end}") for end in ("tmp", "scratch", "lock"))
    with FileLock(lock):
        batch = read_batch(path, key)
        if batch is None:
            logger.info(f"writing {path}")
            with full_disk_named(path):
                try:
                    write_batch(aside, make(scratch), key)
                    write_text(_digest_file(path), sha256_of(aside))
                    os.replace(aside, path)
                finally:
                    aside.unlink(missing_ok=True)
                    scratch.unlink(missing_ok=True)
            batch = read_batch(path, key)
    if batch is None:
        raise OSError(f"{path}: cannot be read after writing; check the disk or set HF_DATASETS_CACHE")
    return batch


def read_batch(path: Path, key: str) -> pa.RecordBatch | None:
    """Return the memory-mapped record batch of a file; None if it is missing or, with a warning, damaged."""
    if not path.is_file():
        return None
    try:
        digest = _digest_file(path)
        if digest.is_file() and remembered_digests([path], DIGESTS)[path] != digest.read_text(encoding="ascii"):
            raise ValueError("its checksum changed")
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        batch = reader.get_batch(0)
        batch.validate(full=True)
        if batch.schema.metadata[b"key"] != key.encode():
            raise ValueError("it was made from other inputs")
    except (OSError, ValueError, TypeError, KeyError, pa.ArrowException) as error:
        logger.warning_once(f"{path} is damaged and will be rewritten: {error}")
        return None
    return batch


def write_batch(path: Path, batch: pa.RecordBatch, key: str) -> None:
    """Write a record batch, with its key in the metadata, to disk."""
    batch = batch.replace_schema_metadata({**(batch.schema.metadata or {}), "key": key})
    with open(path, "wb") as file:
        with pa.ipc.new_file(file, batch.schema) as writer:
            writer.write_batch(batch)
        file.flush()
        os.fsync(file.fileno())


def _digest_file(path: Path) -> Path:
    return path.with_name(f".{path.name}.sha256")


def _can_write(place: Path) -> bool:
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(place, os.W_OK)
