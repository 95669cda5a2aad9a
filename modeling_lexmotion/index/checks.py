"""
Checks of a manifest and of the arrays that it names, either of which may have been written by anyone.

They run before a file is opened and before an array is computed with, in time and memory that the size of the files
limits. What fails them raises `IndexDamagedError`.
"""

import errno
import json
import os
import re
import stat
from collections.abc import Callable, Mapping, Set
from pathlib import Path
from typing import Any

import numpy as np

from ..views_lexmotion import VIEWS

MOST_WORDS = 1 << 24  # words of an index; every segment has two arrays of this length in memory
MOST_WORDS_OF_SEGMENTS = 1 << 27  # the same for all segments together
LARGEST_MANIFEST, MOST_VALUES = 1 << 28, 1 << 20  # bytes, and values in it; ranges of deleted rows are one text
LARGEST_NUMBER = 1 << 63
LARGEST_WEIGHT = 1.001  # weights belong to vectors of length 1
PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")
_HASH = re.compile(r"[0-9a-f]{64}")


class IndexDamagedError(ValueError):
    """Raised if a file of the index differs from what was written, or could not have been written by an index."""


def _number(value: Any) -> bool:
    return type(value) is int and 0 <= value <= LARGEST_NUMBER


def _text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= 4096 and not re.search(r"[\x00-\x1f\x7f]", value)


def _name(value: Any) -> bool:
    return isinstance(value, str) and PLAIN_NAME.fullmatch(value) is not None


def _files(value: Any) -> bool:
    return isinstance(value, dict) and all(_name(name) and _matches(file, _FILE) for name, file in value.items())


def _segments(value: Any) -> bool:
    return isinstance(value, list) and all(_matches(one, _SEGMENT) and _own_files(one) for one in value)


def _own_files(segment: Mapping[str, Any]) -> bool:
    """Return whether the files of a segment are those that its name implies."""
    rows = f"{segment['name']}.safetensors"
    return rows in segment["files"] and segment["files"].keys() <= {rows, f"{segment['name']}.jsonl"}


Fields = Mapping[str, Callable[[Any], bool]]
_FILE: Fields = {"bytes": _number, "sha256": lambda value: isinstance(value, str) and bool(_HASH.fullmatch(value))}
_SEGMENT: Fields = {
    "name": _name,
    "rows": _number,
    "entries": _number,
    "ascending": lambda value: isinstance(value, bool),
    "deleted": lambda value: isinstance(value, str),
    "files": _files,
}
_ENGINE: Fields = {"engine": _text, "uri": _text, "table": _name, "mark": _text}
_MANIFEST: Fields = {
    "vocab_size": lambda value: _number(value) and value <= MOST_WORDS,
    "id_kind": lambda value: value in (None, "int", "str"),
    "next_number": _number,
    "model": lambda value: value is None or _text(value),
    "processor": lambda value: value is None or (_name(value) and value.startswith("processor-")),
    "processor_files": _files,
    "generation": _number,
    "segments": _segments,
    "score": lambda value: value == "cosine",
    "engine": lambda value: _matches(value, _ENGINE, {"mark"}),
    "views": lambda value: type(value) is int and value in VIEWS,
}


def _matches(value: Any, fields: Fields, optional: Set[str] = frozenset()) -> bool:
    """Return whether a value is a dictionary of these fields, each of them right."""
    return isinstance(value, dict) and not _differing(value, fields, optional) and _wrong(value, fields) is None


def _differing(content: Mapping[str, Any], fields: Fields, optional: Set[str] = frozenset()) -> set[str]:
    """Return the keys that are unknown or missing."""
    return (content.keys() ^ fields.keys()) - (optional - content.keys())


def _wrong(content: Mapping[str, Any], fields: Fields) -> str | None:
    return next((name for name, fits in fields.items() if name in content and not fits(content[name])), None)


def damaged(path: Path, fault: str) -> IndexDamagedError:
    """Return the error that names a damaged file."""
    return IndexDamagedError(f"{path} is damaged: {fault}; restore it or build again")


def parse_manifest(path: Path) -> dict[str, Any]:
    """Return the JSON object of a manifest; raises IndexDamagedError if it is none or too large."""
    size = path.stat().st_size
    if size > LARGEST_MANIFEST:
        raise damaged(path, f"{size} bytes, of at most {LARGEST_MANIFEST}")
    content = path.read_bytes()
    values = sum(content.count(mark) for mark in (b",", b"[", b"{"))
    if values > MOST_VALUES:
        raise damaged(path, f"{values} values, of at most {MOST_VALUES}")
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"unreadable ({error})") from error
    if not isinstance(found, dict):
        raise damaged(path, "unreadable (no JSON object)")
    return found


def check_manifest(path: Path, content: Mapping[str, Any]) -> None:
    """Check names, types and ranges of a manifest without its format, version and checksum."""
    fault = None
    if names := _differing(content, _MANIFEST, {"engine", "views"}):
        fault = f"keys that are missing or unknown: {sorted(names)!r:.200}"
    elif (name := _wrong(content, _MANIFEST)) is not None:
        fault = f"{name!r} is {shortened(content[name])}"
    elif content["segments"] and content["id_kind"] is None:
        fault = "'segments' without 'id_kind'"
    elif content["vocab_size"] * len(content["segments"]) > MOST_WORDS_OF_SEGMENTS:
        fault = f"'vocab_size' is {content['vocab_size']} for {len(content['segments'])} segments"
    elif len({entry["name"] for entry in content["segments"]}) < len(content["segments"]):
        fault = "two of 'segments' have one name"
    if fault is not None:
        raise damaged(path, fault)


def shortened(value: Any) -> str:
    """Return a value as text of one line, cut after 80 characters."""
    text = repr(value[:80] if isinstance(value, str) else value if not isinstance(value, list | dict) else type(value))
    return text if len(text) <= 80 else f"{text[:80]}..."


def check_inside(path: Path, folder: Path) -> None:
    """
    Check that a path leads to a file or folder inside the index `folder`, if links are followed. Links into the blobs
    of a snapshot of the Hub's cache are allowed.

    Raises IndexDamagedError if it leads elsewhere, FileNotFoundError if it does not exist.
    """
    try:
        found, roots = Path(os.path.realpath(path, strict=True)), [folder.resolve()]
    except OSError as error:
        if isinstance(error, NotADirectoryError) or error.errno == errno.ELOOP:
            raise damaged(path, "not a file") from error
        raise
    if roots[0].parent.name == "snapshots":
        roots.append(roots[0].parent.parent / "blobs")
    if not any(found.is_relative_to(root) for root in roots):
        raise damaged(path, "a link that leads out of the index")


def size_of(path: Path) -> int:
    """Return the bytes of a regular file; raises IndexDamagedError for a folder, pipe or device."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise damaged(path, "not a file")
    return found.st_size


def check_arrays(arrays: Mapping[str, np.ndarray], vocab_size: int, block: int, metadata_bytes: int | None) -> None:
    """
    Check shapes and ranges of the arrays of a segment, see `Segment`.

    Args:
        arrays: by name, as in its file.
        vocab_size: V.
        block: rows to a multiple of which columns are padded.
        metadata_bytes: bytes of its metadata; None without metadata.

    Raises ValueError with the array at fault.
    """
    kinds: dict[str, tuple[type, int]] = {name: (np.int32, 1) for name in ("documents", "common", "key_rows")}
    kinds |= {"words": (np.int32, 1), "word_counts": (np.int32, 1), "keys": (np.uint64, 1)}
    kinds |= {"weights": (np.float32, 1), "columns": (np.float32, 2)}
    texts = {"id_text": (np.uint8, 1), "id_ends": (np.int64, 1)}
    kinds |= texts if "id_text" in arrays else {"id_numbers": (np.int64, 1)}
    if metadata_bytes is not None:
        kinds["metadata_ends"] = (np.int64, 1)
    if arrays.keys() != kinds.keys():
        raise ValueError(f"arrays that are missing or unknown: {sorted(arrays.keys() ^ kinds.keys())!r:.200}")
    for name, (kind, axes) in kinds.items():
        if arrays[name].dtype != kind or arrays[name].ndim != axes:
            raise ValueError(f"{name} is {arrays[name].dtype} with {arrays[name].ndim} axes")
    rows, entries, counts = len(arrays["key_rows"]), len(arrays["documents"]), arrays["word_counts"]
    common, padded = arrays["common"], -(-rows // block) * block
    postings = ~np.isin(arrays["words"], common)
    ends = arrays.get("id_ends", np.zeros(rows))
    right = {
        "key_rows": 0 < rows < 2**31 - block
        and _within(arrays["key_rows"], 0, rows - 1)
        and np.bincount(arrays["key_rows"], minlength=rows).max() == 1,
        "keys": len(arrays["keys"]) == rows and bool((arrays["keys"][1:] >= arrays["keys"][:-1]).all()),
        "words": _ascending(arrays["words"], vocab_size),
        "word_counts": len(counts) == len(postings)
        and _within(counts, 1, rows)
        and counts[postings].sum(dtype=np.int64) == entries,
        "common": _ascending(common, vocab_size) and bool(np.isin(common, arrays["words"]).all()),
        "columns": arrays["columns"].shape == (len(common), padded) and _within(arrays["columns"], 0, LARGEST_WEIGHT),
        "documents": _within(arrays["documents"], 0, rows - 1),
        "weights": len(arrays["weights"]) == entries and _within(arrays["weights"], 0, LARGEST_WEIGHT),
        "id_numbers": len(arrays.get("id_numbers", ends)) == rows,
        "id_ends": "id_ends" not in arrays or _ends(ends, rows, len(arrays["id_text"])),
        "metadata_ends": metadata_bytes is None
        or metadata_bytes > 0
        and _ends(arrays["metadata_ends"], rows, metadata_bytes),
    }
    wrong = [name for name, fits in right.items() if not fits]
    if wrong:
        raise ValueError(f"{', '.join(wrong)}: values out of range for {rows} rows and {vocab_size} words")
    if "id_text" in arrays:
        text = arrays["id_text"]
        text.tobytes().decode()  # raises UnicodeDecodeError, a ValueError
        starts = ends[:-1][ends[:-1] < len(text)]
        if (text[starts] & 0xC0 == 0x80).any():
            raise ValueError("id_ends: values within a character")


def _within(array: np.ndarray, least: float, most: float) -> bool:
    """Return whether all values are in a range; False for NaN."""
    return not array.size or bool(array.min() >= least and array.max() <= most)


def _ascending(words: np.ndarray, vocab_size: int) -> bool:
    return _within(words, 0, vocab_size - 1) and bool((words[1:] > words[:-1]).all())


def _ends(ends: np.ndarray, rows: int, length: int) -> bool:
    """Return whether these are the ends of `rows` strings of `length` bytes in total."""
    return (
        len(ends) == rows and _within(ends, 0, length) and bool((ends[1:] >= ends[:-1]).all()) and ends[-1] == length
    )
