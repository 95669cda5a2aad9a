"""
The parts of an index, in memory and on disk.

    manifest.json               the current state, with a checksum of every other file and of itself; replaced in one
    step
    segments/NAME.safetensors   postings and ids of some items, never changed once written
    segments/NAME.jsonl         their metadata, one line per item
    processor-NAME/             the tokenizer, or the complete processor, that defines the words
    writer.lock, writer.pid     lock of the writer
    writer.files                names of files that a writer is about to write or remove
    rows-NAME.db                file of an engine that stores the rows in a file, instead of segments

Files are on disk before a manifest names them, and the manifest is on disk before a change is acknowledged. Files that
writer.files names and the manifest does not are left over from a killed process; the next writer removes them. Only
these files, and those of a manifest that is replaced, are ever removed.
"""

import hashlib
import itertools
import json
import operator
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from scipy import sparse

from .checks import (
    IndexDamagedError,
    check_arrays,
    check_inside,
    check_manifest,
    damaged,
    parse_manifest,
    shortened,
    size_of,
)

FORMAT, FORMAT_VERSION = "lexmotion-index", 1
MANIFEST, SEGMENTS, PROCESSOR, ENGINE_ROWS = "manifest.json", "segments", "processor-", "rows-"
BLOCK = 1024  # rows per block, the unit in which the best scores are found
COLUMN_SHARE, COLUMN_BYTES = 6, 0.02  # adding a column is 6 times as fast as postings; at most 2 % more bytes
MAX_ROWS = 2**31 - BLOCK
NO_METADATA = b"{}\n"
_LARGEST_HEADER = 1 << 16  # bytes of a segment's header, which names about a dozen arrays
_CHUNK = 1 << 19  # entries in memory in addition to those of the segment
_TYPES = {"I64": np.int64, "U64": np.uint64, "I32": np.int32, "F32": np.float32, "U8": np.uint8}
_TYPE_NAMES = {np.dtype(kind): name for name, kind in _TYPES.items()}


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to disk, if the system supports that."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_file(path: Path, parts: Iterable[Any]) -> dict[str, Any]:
    """Write bytes-like parts to a file and flush it to disk; returns `bytes` and `sha256` for the manifest."""
    digest, size = hashlib.sha256(), 0
    with open(path, "wb") as file:
        for part in parts:
            file.write(part)
            digest.update(part)
            size += memoryview(part).nbytes
        file.flush()
        os.fsync(file.fileno())
    return {"bytes": size, "sha256": digest.hexdigest()}


def describe_file(path: Path) -> dict[str, Any]:
    """Flush an existing file to disk and return its `bytes` and `sha256`."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    return {"bytes": path.stat().st_size, "sha256": digest}


def check_file(path: Path, entry: dict[str, Any], content: bool) -> None:
    """
    Compare the size of a file in a folder of the index, and with `content` its checksum, with its entry in the
    manifest; raises IndexDamagedError if they differ, FileNotFoundError if the file is missing.
    """
    check_inside(path, path.parent.parent)
    size = size_of(path)
    if size != entry["bytes"]:
        raise damaged(path, f"{size} bytes, not {entry['bytes']}")
    if content:
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != entry["sha256"]:
            raise damaged(path, "its checksum changed")


def metadata_line(id: Any, metadata: dict[str, Any]) -> bytes:
    """Return the metadata of an item as a line of JSON that every engine can store; raises ValueError if it is not."""
    try:
        if not isinstance(metadata, dict):
            raise ValueError(f"got {shortened(metadata)}")
        line = json.dumps(metadata, ensure_ascii=False, allow_nan=False).encode()
        if b"\\u0000" in line and re.search(rb"(?<!\\)(\\\\)*\\u0000", line):
            raise ValueError("a text contains NUL")
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(
            f"metadata of {id!r}: not JSON compliant ({error}); pass a dictionary of finite numbers, and of texts "
            "without NUL and surrogates"
        ) from error
    return line + b"\n"


def tensor_parts(tensors: dict[str, np.ndarray]) -> Iterator[Any]:
    """Yield the bytes of a safetensors file without copying the arrays."""
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].itemsize, item[0]))  # keeps every array aligned
    header: dict[str, Any] = {}
    end = 0
    for name, array in ordered:
        start, end = end, end + array.nbytes
        header[name] = {"dtype": _TYPE_NAMES[array.dtype], "shape": list(array.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for _, array in ordered:
        if array.size:
            yield np.ascontiguousarray(array).data.cast("B")


def map_tensors(path: Path) -> dict[str, Any]:
    """Return the arrays of a safetensors file as memory maps; raises IndexDamagedError if it is not such a file."""
    try:
        whole = np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))
        size = int.from_bytes(whole[:8].tobytes(), "little")
        if size > _LARGEST_HEADER:
            raise ValueError(f"a header of {size} bytes")
        header = json.loads(whole[8 : 8 + size].tobytes())
        header.pop("__metadata__", None)
        found = {}
        for name, entry in header.items():
            start, end = (8 + size + offset for offset in entry["data_offsets"])
            if not 8 + size <= start <= end <= len(whole):
                raise ValueError(f"{name} outside of the file")
            found[name] = whole[start:end].view(_TYPES[entry["dtype"]]).reshape(entry["shape"])
        return found
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise IndexDamagedError(
            f"{path} is damaged: not a safetensors file ({shortened(str(error))}); build again"
        ) from error


@dataclass(frozen=True, eq=False)
class Texts:
    """N byte strings, end to end: `data` (bytes,) uint8, and `ends` (N,) int64, the end of each."""

    data: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, strings: Sequence[bytes]) -> "Texts":
        ends = np.cumsum(np.fromiter(map(len, strings), np.int64, len(strings)))
        return cls(np.frombuffer(b"".join(strings), np.uint8), ends)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, row: int) -> bytes:
        start = self.ends[row - 1] if row else 0
        return self.data[start : self.ends[row]].tobytes()

    def keep(self, kept: np.ndarray) -> "Texts":
        """Return the strings for which `kept`, (N,) bool, is True."""
        lengths = np.diff(self.ends, prepend=0)
        return Texts(self.data[np.repeat(kept, lengths)], np.cumsum(lengths[kept]))

    @classmethod
    def join(cls, parts: Sequence["Texts"]) -> "Texts":
        bases = np.cumsum([0, *(len(part.data) for part in parts)])
        ends = [part.ends + base for part, base in zip(parts, bases, strict=False)]
        return cls(np.concatenate([part.data for part in parts]), np.concatenate(ends))


def id_keys(ids: Any) -> np.ndarray:
    """Return lookup keys of ids, (N,) uint64: integers themselves, a 64-bit hash of strings."""
    if isinstance(ids, np.ndarray) or (ids and isinstance(ids[0], int)):
        return np.asarray(ids, np.int64).view(np.uint64)
    hashes = (hashlib.blake2b(id.encode(), digest_size=8).digest() for id in ids)
    return np.frombuffer(b"".join(hashes), np.dtype("<u8")).astype(np.uint64)


@dataclass(frozen=True, eq=False)
class Segment:
    """
    A subset of the items of an index, one row each.

    Args:
        starts (V + 1,) int64, documents (entries,) int32, weights (entries,) float32: the postings, word by word; the
        rows of a word ascend.
        common (C,) int32 ascending, columns (C, R) float32, R = N rounded up to full blocks: words so frequent that
        their weights are stored as dense columns, which are faster to add; they have no postings.
        counts (V,) int32: number of rows of each word.
        keys (N,) uint64 ascending, key_rows (N,) int32: rows by the key of their id.
        ids: (N,) int64 or `Texts`; `ascending` is True if they ascend with the rows.
        metadata: JSON lines; None if no item has any.
        deleted: (D,) int32, deleted rows.
        name, files: name of the segment on disk, and the entries of its files in the manifest.
    """

    starts: np.ndarray
    documents: np.ndarray
    weights: np.ndarray
    common: np.ndarray
    columns: np.ndarray
    counts: np.ndarray
    keys: np.ndarray
    key_rows: np.ndarray
    ids: np.ndarray | Texts
    ascending: bool
    metadata: Texts | None = None
    deleted: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    name: str = ""
    files: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Number of items, including deleted ones."""
        return len(self.key_rows)

    @property
    def alive(self) -> int:
        return self.rows - len(self.deleted)

    @property
    def entries(self) -> int:
        """Number of pairs of an item and a word."""
        return int(self.counts.sum(dtype=np.int64))

    def id(self, row: int) -> Any:
        return self.ids[row].decode() if isinstance(self.ids, Texts) else int(self.ids[row])

    def item_metadata(self, row: int) -> dict[str, Any]:
        if self.metadata is None:
            return {}
        try:
            found = json.loads(self.metadata[row])
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise IndexDamagedError(f"metadata of {self.id(row)!r} is damaged: no JSON object; build the index again")
        return found

    def slots(self, words: np.ndarray) -> np.ndarray:
        """Return the column of each word, (len(words),) int64; -1 for words with postings."""
        places = np.searchsorted(self.common, words)
        found = places < len(self.common)
        found[found] = self.common[places[found]] == words[found]
        return np.where(found, places, -1)

    def posting(self, word: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows and weights of a word."""
        slot = int(self.slots(np.array([word]))[0])
        if slot >= 0:
            rows = np.flatnonzero(self.columns[slot]).astype(np.int32)
            return rows, self.columns[slot, rows]
        part = slice(int(self.starts[word]), int(self.starts[word + 1]))
        return self.documents[part], self.weights[part]

    def weights_of(self, words: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return the weight of each word in each row, (len(words), len(rows)) float32; 0 if a row lacks the word."""
        found = np.zeros((len(words), len(rows)), np.float32)
        for place, (word, slot) in enumerate(zip(words.tolist(), self.slots(words).tolist(), strict=True)):
            if slot >= 0:
                found[place] = self.columns[slot, rows]
                continue
            documents, weights = self.posting(word)
            if len(documents):
                entries = np.minimum(np.searchsorted(documents, rows), len(documents) - 1)
                found[place] = np.where(documents[entries] == rows, weights[entries], 0)
        return found

    def kept(self) -> np.ndarray:
        """Return (N,) bool: rows that are not deleted."""
        kept = np.ones(self.rows, bool)
        kept[self.deleted] = False
        return kept

    def find(self, ids: Sequence[Any], keys: np.ndarray) -> np.ndarray:
        """Return the rows (len(ids),) of items that are not deleted; -1 for unknown ids."""
        found = np.full(len(ids), -1, np.int32)
        first, last = (np.searchsorted(self.keys, keys, side) for side in ("left", "right"))
        for place in np.flatnonzero(first < last).tolist():
            for row in self.key_rows[first[place] : last[place]].tolist():
                if self.id(row) == ids[place]:
                    found[place] = row
        if len(self.deleted):
            found[np.isin(found, self.deleted)] = -1
        return found

    def without(self, rows: np.ndarray) -> "Segment":
        """Return the segment with these rows deleted too; the arrays are shared."""
        return replace(self, deleted=np.union1d(self.deleted, rows).astype(np.int32))

    def to_csr(self) -> sparse.csr_matrix:
        """Return all rows, including deleted ones, as (N, V)."""
        used = np.flatnonzero(self.counts).astype(np.int32)
        parts = [self.posting(word) for word in used.tolist()]
        words = np.repeat(used, [len(rows) for rows, _ in parts])
        rows, weights = (np.concatenate(part) for part in zip(*parts, strict=True)) if parts else (words, words)
        return sparse.csr_matrix((weights, (rows, words)), shape=(self.rows, len(self.counts)), dtype=np.float32)

    def tensors(self) -> dict[str, np.ndarray]:
        """Return the arrays of the safetensors file."""
        names = ("documents", "weights", "common", "columns", "keys", "key_rows")
        found = {name: getattr(self, name) for name in names}
        found["words"] = np.flatnonzero(self.counts).astype(np.int32)  # few, in a small segment
        found["word_counts"] = self.counts[found["words"]]
        if isinstance(self.ids, Texts):
            found |= {"id_text": self.ids.data, "id_ends": self.ids.ends}
        else:
            found["id_numbers"] = self.ids
        if self.metadata is not None:
            found["metadata_ends"] = self.metadata.ends
        return found

    def save(self, folder: Path, name: str) -> "Segment":
        """Write the segment under a new name, and return it as mapped from there."""
        files = {f"{name}.safetensors": write_file(folder / f"{name}.safetensors", tensor_parts(self.tensors()))}
        if self.metadata is not None:
            files[f"{name}.jsonl"] = write_file(folder / f"{name}.jsonl", [self.metadata.data.data])
        saved = replace(self, name=name, files=files)
        loaded = Segment.load(folder, saved.to_entry(), len(self.counts), verify=False)
        return replace(loaded, deleted=self.deleted)

    @classmethod
    def load(cls, folder: Path, entry: dict[str, Any], vocab_size: int, verify: bool = True) -> "Segment":
        """Map the segment of a manifest's entry, after comparing sizes and, with `verify`, checksums of its files."""
        for name, expected in entry["files"].items():
            check_file(folder / name, expected, verify)
        path, lines = folder / f"{entry['name']}.safetensors", folder / f"{entry['name']}.jsonl"
        tensors = map_tensors(path)
        try:
            size = entry["files"][lines.name]["bytes"] if lines.name in entry["files"] else None
            check_arrays(tensors, vocab_size, BLOCK, size)
            found = len(tensors["key_rows"]), int(tensors["word_counts"].sum(dtype=np.int64))
            if found != (entry["rows"], entry["entries"]):
                raise ValueError(f"{found[0]} rows and {found[1]} entries, not as in {MANIFEST}")
        except ValueError as error:
            raise damaged(path, str(error)) from error
        numbers, ends = tensors.pop("id_numbers", None), tensors.pop("metadata_ends", None)
        ids = numbers if numbers is not None else Texts(tensors.pop("id_text"), tensors.pop("id_ends"))
        metadata = None if ends is None else Texts(np.asarray(np.memmap(lines, dtype=np.uint8, mode="r")), ends)
        counts = np.zeros(vocab_size, np.int32)
        counts[tensors.pop("words")] = tensors.pop("word_counts")
        own = {"name": entry["name"], "ascending": entry["ascending"], "files": entry["files"]}
        own |= {"counts": counts, "starts": _starts(counts, tensors["common"])}
        return cls(**tensors, ids=ids, metadata=metadata, **own)

    def to_entry(self) -> dict[str, Any]:
        """Return the entry in the manifest."""
        entry = {"name": self.name, "rows": self.rows, "entries": self.entries, "ascending": self.ascending}
        return entry | {"deleted": to_ranges(self.deleted), "files": self.files}


def to_ranges(rows: np.ndarray) -> str:
    """Format ascending numbers as ranges: `3-14 20`."""
    if not len(rows):
        return ""
    breaks = np.flatnonzero(np.diff(rows) != 1)
    first, last = rows[np.concatenate([[0], breaks + 1])], rows[np.concatenate([breaks, [len(rows) - 1]])]
    return " ".join(f"{a}-{b}" if a < b else str(a) for a, b in zip(first.tolist(), last.tolist(), strict=True))


def from_ranges(text: str, rows: int = MAX_ROWS) -> np.ndarray:
    """Parse the format of `to_ranges`, to int32. Raises ValueError if these are no ascending numbers below `rows`."""
    parts = text.split(" ", rows) if text else []
    if len(text) > 22 * rows or len(parts) > rows:
        raise ValueError(f"deleted rows {shortened(text)} of {rows}")
    arrays, following = [np.zeros(0, np.int32)], 0
    for part in parts:
        match = re.fullmatch(r"([0-9]{1,10})(?:-([0-9]{1,10}))?", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (-1, -1)
        if not following <= first <= last < rows:
            raise ValueError(f"deleted rows {shortened(part)} of {rows}")
        arrays.append(np.arange(first, last + 1, dtype=np.int32))
        following = last + 1
    return np.concatenate(arrays)


def inverse_norms(matrix: sparse.csr_matrix) -> np.ndarray:
    """Return 1 / Euclidean length of each row, (N,) float64; 0 for empty rows."""
    inverse = np.zeros(matrix.shape[0])
    filled = np.flatnonzero(np.diff(matrix.indptr))
    if len(filled):
        squares = np.square(matrix.data.astype(np.float64))
        inverse[filled] = 1 / np.sqrt(np.add.reduceat(squares, matrix.indptr[filled]))
    return inverse


def common_words(counts: np.ndarray, rows: int) -> np.ndarray:
    """
    Choose the words to store as columns, ascending: the most frequent ones, as long as adding a column of zeros and
    weights is faster than adding postings, and the total size grows by at most `COLUMN_BYTES`.

    Args:
        counts: (V,) number of rows of each word.
        rows: number of rows, rounded up to full blocks.
    """
    order = np.argsort(-counts, kind="stable")[: COLUMN_SHARE * 1000]
    more_bytes = np.cumsum(4 * rows - 8 * counts[order].astype(np.int64))
    worth = (counts[order] * COLUMN_SHARE > rows) & (more_bytes <= COLUMN_BYTES * 8 * counts.sum(dtype=np.int64))
    return np.sort(order[: len(order) if worth.all() else int(worth.argmin())]).astype(np.int32)


def _starts(counts: np.ndarray, common: np.ndarray) -> np.ndarray:
    """Return (V + 1,) int64: the start of each word's postings, if those of common words are columns."""
    own = counts.copy()
    own[common] = 0
    return np.concatenate([[0], np.cumsum(own, dtype=np.int64)])


@dataclass(frozen=True, eq=False)
class _Part:
    """Postings that become part of a segment: `starts`, `rows`, `weights`, and those of single words in `apart`."""

    starts: np.ndarray
    rows: np.ndarray
    weights: np.ndarray
    apart: dict[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    def counts(self) -> np.ndarray:
        counts = np.diff(self.starts)
        for word, (rows, _) in self.apart.items():
            counts[word] += len(rows)
        return counts


def _assemble(parts: Iterable[_Part], counts: np.ndarray, rows: int) -> dict[str, Any]:
    """
    Build the arrays of a segment of `rows` items, part by part so that nothing is in memory twice. `counts` (V,) is
    the number of rows of each word in all parts, which are in the order of their rows.
    """
    if rows > MAX_ROWS:
        raise ValueError(f"items: got {rows} for a segment of at most {MAX_ROWS}; add them in several calls")
    padded = -(-rows // BLOCK) * BLOCK
    common = common_words(counts, padded)
    slots = {word: slot for slot, word in enumerate(common.tolist())}
    starts = _starts(counts, common)
    columns = np.zeros((len(common), padded), np.float32)
    documents, weights = np.empty(starts[-1], np.int32), np.empty(starts[-1], np.float32)
    free = starts[:-1].copy()
    for part in parts:
        singles = sorted({*slots, *part.apart})
        for word in singles:
            own = slice(part.starts[word], part.starts[word + 1])
            found, values = part.apart.get(word, (part.rows[own], part.weights[own]))
            if word in slots:
                columns[slots[word], found] = values
            else:
                place = slice(free[word], free[word] + len(found))
                documents[place], weights[place] = found, values
                free[word] += len(found)
        # All other words, in chunks of entries, as each entry needs a 64-bit position.
        steps = np.searchsorted(part.starts, np.arange(0, len(part.rows), _CHUNK))
        edges = np.unique([0, len(free), *steps.tolist(), *singles, *(word + 1 for word in singles)])
        known = set(singles)
        for first, last in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            some = slice(int(part.starts[first]), int(part.starts[last]))
            if first in known or some.start == some.stop:
                continue
            lengths = np.diff(part.starts[first : last + 1])
            places = np.repeat(free[first:last] - part.starts[first:last], lengths)
            places += np.arange(some.start, some.stop)
            documents[places], weights[places] = part.rows[some], part.weights[some]
            free[first:last] += lengths
    arrays = {"starts": starts, "documents": documents, "weights": weights, "common": common, "columns": columns}
    return arrays | {"counts": counts.astype(np.int32)}


def make_segment(matrix: sparse.csr_matrix, ids: Any, metadata: Sequence[dict] | None) -> Segment:
    """
    Build a segment from vectors, normalized to length 1.

    Args:
        matrix: (N, V) canonical float32 CSR, entries above zero, N > 0.
        ids: (N,) int64, or N strings.
        metadata: N dictionaries that can be written as JSON.
    """
    keys = id_keys(ids)
    order = np.argsort(keys, kind="stable").astype(np.int32)
    lines = None
    if metadata is not None and any(metadata):
        lines = Texts.of([metadata_line(id, item) for id, item in zip(ids, metadata, strict=True)])
    numbers = isinstance(ids, np.ndarray)
    ascending = (np.diff(ids) > 0).all() if numbers else all(map(operator.lt, ids, itertools.islice(ids, 1, None)))
    return Segment(
        **_assemble(_row_parts(matrix), _word_counts(matrix), matrix.shape[0]),
        keys=keys[order],
        key_rows=order,
        ids=ids if numbers else Texts.of([id.encode() for id in ids]),
        ascending=bool(ascending),
        metadata=lines,
    )


def _word_counts(matrix: sparse.csr_matrix) -> np.ndarray:
    counts = np.zeros(matrix.shape[1], np.int64)
    for start in range(0, matrix.nnz, _CHUNK):
        counts += np.bincount(matrix.indices[start : start + _CHUNK], minlength=len(counts))
    return counts


def _row_parts(matrix: sparse.csr_matrix) -> Iterator[_Part]:
    start = 0
    while start < matrix.shape[0]:
        stop = int(np.searchsorted(matrix.indptr, int(matrix.indptr[start]) + _CHUNK))
        stop = min(max(stop, start + 1), matrix.shape[0])
        rows = matrix[start:stop]
        inverse = inverse_norms(rows)
        columns = rows.tocsc()
        weights = (columns.data * inverse[columns.indices]).astype(np.float32)  # rounded once
        yield _Part(columns.indptr.astype(np.int64), columns.indices + np.int32(start), weights)
        start = stop


def merge_segments(segments: Sequence[Segment]) -> Segment:
    """Merge the items of several segments that are not deleted, in order; weights are copied without rounding."""
    kept = [segment.kept() for segment in segments]
    bases = np.cumsum([0, *(int(mask.sum()) for mask in kept)])
    row_numbers = [
        np.where(mask, np.cumsum(mask) - 1 + base, -1).astype(np.int32)
        for mask, base in zip(kept, bases, strict=False)
    ]
    parts = [_surviving(segment, numbers) for segment, numbers in zip(segments, row_numbers, strict=True)]
    arrays = _assemble(parts, np.sum([part.counts() for part in parts], axis=0), int(bases[-1]))
    keys = np.empty(int(bases[-1]), np.uint64)
    for segment, numbers in zip(segments, row_numbers, strict=True):
        rows = numbers[segment.key_rows]
        keys[rows[rows >= 0]] = segment.keys[rows >= 0]
    order = np.argsort(keys, kind="stable").astype(np.int32)
    lines = None
    if any(segment.metadata is not None for segment in segments):
        lines = _join([segment.metadata or Texts.of([NO_METADATA] * segment.rows) for segment in segments], kept)
    ends = [np.flatnonzero(mask)[[0, -1]].tolist() for mask in kept]
    ends_of = [[segment.id(row) for row in rows] for segment, rows in zip(segments, ends, strict=True)]
    in_order = all(a[1] < b[0] for a, b in itertools.pairwise(ends_of))
    return Segment(
        **arrays,
        keys=keys[order],
        key_rows=order,
        ids=_join([segment.ids for segment in segments], kept),
        ascending=in_order and all(segment.ascending for segment in segments),
        metadata=lines,
    )


def _surviving(segment: Segment, row_numbers: np.ndarray) -> _Part:
    """Return the postings of rows whose new number is not -1."""
    apart = {}
    for word in segment.common.tolist():
        rows, values = segment.posting(word)
        numbers = row_numbers[rows]
        apart[word] = numbers[numbers >= 0], values[numbers >= 0]
    rows = row_numbers[segment.documents]
    if not len(segment.deleted):
        return _Part(segment.starts, rows, segment.weights, apart)
    left = rows >= 0
    starts = np.concatenate([[0], np.cumsum(left, dtype=np.int64)])[segment.starts]
    return _Part(starts, rows[left], segment.weights[left], apart)


def _join(parts: Sequence[Any], kept: Sequence[np.ndarray]) -> Any:
    if isinstance(parts[0], Texts):
        return Texts.join([part.keep(mask) for part, mask in zip(parts, kept, strict=True)])
    return np.concatenate([part[mask] for part, mask in zip(parts, kept, strict=True)])


@dataclass(frozen=True, eq=False)
class State:
    """
    The content of an index at one moment.

    Args:
        vocab_size: V.
        segments: segments with at least one item that is not deleted.
        id_kind: `"int"` or `"str"`; None before the first item.
        next_number: the next id to assign if none are passed.
        model: folder or Hub name of the model that encodes queries.
        processor, processor_files: name of its folder (None without), and the entries of its files in the manifest.
        generation: number of changes since the index was built.
        checksum: checksum of the manifest; "" in memory.
        engine: name, address and table of an engine that stores the rows instead of segments.
        views: number of views per motion that the model encodes, see `encode_motion`.
    """

    vocab_size: int
    segments: tuple[Segment, ...] = ()
    id_kind: str | None = None
    next_number: int = 0
    model: str | None = None
    processor: str | None = None
    processor_files: dict[str, dict[str, Any]] = field(default_factory=dict)
    generation: int = 0
    checksum: str = ""
    engine: dict[str, Any] | None = None
    views: int = 1


def _checksum(content: dict[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def write_manifest(folder: Path, state: State) -> State:
    """Make a state current, on disk when this returns. Its files must have been written before."""
    names = ("vocab_size", "id_kind", "next_number", "model", "processor", "processor_files", "generation")
    content: dict[str, Any] = {"format": FORMAT, "version": FORMAT_VERSION, "score": "cosine"}
    content |= {name: getattr(state, name) for name in names}
    content["segments"] = [segment.to_entry() for segment in state.segments]
    if state.engine is not None:
        content["engine"] = state.engine
    if state.views > 1:  # older versions read indexes with one view
        content["views"] = state.views
    checksum = _checksum(content)
    aside = folder / f"{MANIFEST}.tmp"
    write_file(aside, [json.dumps(content | {"sha256": checksum}, indent=1, ensure_ascii=False).encode() + b"\n"])
    os.replace(aside, folder / MANIFEST)
    sync_folder(folder)
    return replace(state, checksum=checksum)


def read_manifest(folder: Path) -> dict[str, Any]:
    """
    Return the manifest of an index.

    Raises:
        FileNotFoundError: if it does not exist.
        IndexDamagedError: if it was changed.
        ValueError: if its format is another.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f"no index in {str(folder)!r} (no {MANIFEST}); build one with `lexmotion index build`")
    content = parse_manifest(path)
    expected = content.pop("sha256", None)
    try:
        intact = expected == _checksum(content)
    except RecursionError as error:
        raise damaged(path, "unreadable (nested too deeply)") from error
    if not intact:
        raise damaged(path, "its checksum changed")
    form, version = content.pop("format", None), content.pop("version", None)
    if (form, version) != (FORMAT, FORMAT_VERSION):
        found = f"{shortened(form)} version {shortened(version)}"
        raise ValueError(f"{path}: got {found}, not {FORMAT} version {FORMAT_VERSION}; build the index again")
    check_manifest(path, content)
    return content | {"checksum": expected}


def open_state(folder: Path, verify: bool = True, known: State | None = None) -> State:
    """
    Return the current state.

    Args:
        verify: compare the checksums of all files; otherwise only their sizes.
        known: an earlier state, whose segments are not opened again.
    """
    content = read_manifest(folder)
    while True:
        try:
            return _open(folder, content, verify, known)
        except FileNotFoundError as error:
            # A merge may have removed a file since the manifest was read; then a newer manifest exists.
            newer = read_manifest(folder)
            if newer["checksum"] == content["checksum"]:
                name = error.filename or error
                raise IndexDamagedError(f"{name} is missing; restore it or build the index again") from error
            content = newer


def _open(folder: Path, content: dict[str, Any], verify: bool, known: State | None) -> State:
    if known is not None and known.checksum == content["checksum"]:
        return known
    same_words = known is not None and known.vocab_size == content["vocab_size"]
    opened = {segment.name: segment for segment in known.segments} if known is not None and same_words else {}
    segments = []
    for entry in content.pop("segments"):
        segment = opened.get(entry["name"])
        if segment is None:
            segment = Segment.load(folder / SEGMENTS, entry, content["vocab_size"], verify)
        path = folder / SEGMENTS / f"{segment.name}.safetensors"
        if (kind := "str" if isinstance(segment.ids, Texts) else "int") != content["id_kind"]:
            raise damaged(path, f"ids of kind {kind}, not {content['id_kind']}")
        try:
            segments.append(replace(segment, deleted=from_ranges(entry["deleted"], segment.rows)))
        except ValueError as error:
            raise damaged(path, str(error)) from error
    if content["processor"] is not None and (known is None or known.processor != content["processor"]):
        for path in (folder / content["processor"]).iterdir():
            check_inside(path, folder)
        for name, expected in content["processor_files"].items():
            check_file(folder / content["processor"] / name, expected, verify)
    uri = (content.get("engine") or {}).get("uri")
    if is_rows_file(uri) and os.path.lexists(folder / uri):
        check_inside(folder / uri, folder)
    content.pop("score")
    return State(segments=tuple(segments), **content)


def is_rows_file(uri: Any) -> TypeGuard[str]:
    """Return whether an engine's address is a file in the folder of the index."""
    return isinstance(uri, str) and re.fullmatch(rf"{ENGINE_ROWS}[0-9a-f]+\.db", uri) is not None


def listed_files(content: Mapping[str, Any]) -> list[str]:
    """Return the files and folders that a manifest lists, as paths within the folder of the index."""
    listed = [f"{SEGMENTS}/{name}" for entry in content["segments"] for name in entry["files"]]
    if content["processor"] is not None:
        listed += [*(f"{content['processor']}/{name}" for name in content["processor_files"]), content["processor"]]
    uri = (content.get("engine") or {}).get("uri")
    return listed + ([uri] if is_rows_file(uri) else [])
