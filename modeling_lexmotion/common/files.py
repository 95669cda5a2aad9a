"""Atomic writing of files, their hashes, and what killed writers leave behind."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Unfinished files of `atomic_path` and folders of checkpoints, also as earlier versions named them: `.NAME.PID.KIND`.
_LEFTOVER = re.compile(r"\..+\.\d+\.(partial(\..*)?|tmp|old)")


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Write a file atomically: readers see the complete old or new file, even if the writer is killed.

    The content is flushed to the disk before the rename. If the body raises, the old file stays and the new one is
    removed.

    Args:
        path: file to write; missing parent folders are created.

    Yields:
        The path to write to, in the same folder and with the same suffix, which decides the format of some writers.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with atomic_path(Path(folder) / "numbers.txt") as aside:
        ...         _ = aside.write_text("1 2 3")
        ...     print(*(file.name for file in Path(folder).iterdir()))
        numbers.txt
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path}: is a folder; pass the name of a file")
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
    """Write UTF-8 text atomically, with unchanged line ends; see `atomic_path`."""
    with atomic_path(path) as aside:
        aside.write_text(text, encoding="utf-8", newline="")


def write_json(path: str | os.PathLike, content: Any) -> None:
    """Write JSON atomically, indented by two spaces; see `atomic_path`."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def remove_leftovers(folder: str | os.PathLike) -> None:
    """Delete unfinished files and folders that killed writers left in a folder; only its sole writer may call this."""
    folder = Path(folder)
    for entry in list(folder.iterdir()) if folder.is_dir() else ():
        if _LEFTOVER.fullmatch(entry.name):
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


def sha256_of(path: str | os.PathLike) -> str:
    """Compute the hexadecimal SHA-256 of a file, read in blocks."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
