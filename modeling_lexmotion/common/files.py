"""Files that are either the old one or the new one, whole: the only place that writes aside and renames."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """
    Write a file in one step: a reader sees the old file or the new one, whole, even if the writer is killed.

    The content is brought to the disk before the rename. If the body raises, the old file stays and nothing is left
    beside it.

    Args:
        path: the file to write; missing parent folders are made.

    Yields:
        Where to write: a name in the same folder with the same suffix, so that writers which choose a format by the
        suffix choose the right one.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with atomic_path(Path(folder) / "numbers.txt") as aside:
        ...         _ = aside.write_text("1 2 3")
        ...     print(*(file.name for file in Path(folder).iterdir()))
        numbers.txt
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield aside
        with open(aside, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write UTF-8 text atomically, line ends as they are; see `atomic_path`."""
    with atomic_path(path) as aside:
        aside.write_text(text, encoding="utf-8", newline="")


def write_json(path: str | os.PathLike, content: Any) -> None:
    """Write JSON atomically, indented by two spaces; see `atomic_path`."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def sha256_of(path: str | os.PathLike) -> str:
    """SHA-256 of a file's content, hexadecimal; the file is read in blocks."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
