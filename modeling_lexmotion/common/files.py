"""Atomic writing of files, full disks, hashes, and what killed writers leave behind."""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Unfinished files of `atomic_path` and folders of checkpoints, also as earlier versions named them: `.NAME.PID.KIND`.
_LEFTOVER = re.compile(r"\..+\.\d+\.(partial(\..*)?|tmp|old)")
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# Writers in other languages report the error as text.
_FULL_TEXT = re.compile(
    r"No space left on device|quota exceeded|File too large|os error (28|122|27)\b|\d requested and \d+ written",
    re.IGNORECASE,
)
MOST_REMEMBERED = 10_000  # digests of earlier calls
SETTLED = 2.0  # seconds since its last change, after which the digest of a file is remembered


class DiskFullError(OSError):
    """Raised if a file could not be written since the disk, or the quota of the user, is full."""


@contextmanager
def full_disk_named(path: str | os.PathLike) -> Iterator[None]:
    """
    Replace the error of a full disk, of whatever library, by one that names a path.

    Raises:
        DiskFullError: if the body ended with such an error.
    """
    try:
        yield
    except DiskFullError:
        raise
    except Exception as error:
        if getattr(error, "errno", None) not in _FULL and not _FULL_TEXT.search(str(error)):
            raise
        raise DiskFullError(
            f"{path}: could not be written, the disk or quota is full; free some space and run the same again, what "
            "was finished is kept"
        ) from error


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Write a file atomically: readers see the complete old or new file, even if the writer is killed.

    The content is flushed to the disk before the rename. If the body raises, the old file stays and the new one is
    removed.

    Args:
        path: file to write; missing parent folders are created.

    Raises:
        DiskFullError: if there is no space for the file.

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
    aside = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    with full_disk_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
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


@contextmanager
def files_moved_in(folder: str | os.PathLike) -> Iterator[Path]:
    """
    Yield a new folder, whose files replace those of `folder` one by one when all are written; others stay.

    After an error, or if the writer is killed, `folder` is as it was; see `remove_leftovers`.

    Raises:
        DiskFullError: if there is no space for the files.
    """
    folder = Path(folder)
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    with full_disk_named(folder):
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        try:
            yield aside
            folder.mkdir(exist_ok=True)
            for file in sorted(aside.iterdir()):
                with open(file, "rb") as handle:
                    os.fsync(handle.fileno())
                os.replace(file, folder / file.name)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def read_json(path: str | os.PathLike) -> dict[str, Any]:
    """
    Read a JSON object.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it contains something else; the message names the file.
    """
    try:
        content = json.loads(Path(path).read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: damaged, no JSON ({error}); restore a copy or write it again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: damaged, no JSON object; restore a copy or write it again")
    return content


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


def remembered_digests(files: Iterable[Path], memory: Path) -> dict[Path, str]:
    """
    Return the SHA-256 of files, read only if they changed since an earlier call.

    A file counts as unchanged if its size, times of change and inode are. So a copy or an edit is read again, but not
    a file that the disk itself damaged.

    Args:
        files: existing files.
        memory: JSON file that remembers digests; a missing, damaged or read-only one is no error.
    """
    try:
        known = read_json(memory)
    except (OSError, ValueError):
        known = {}
    found, fresh = {}, {}
    for file in files:
        status, name = file.stat(), os.path.abspath(file)
        identity = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
        entry = known.get(name)
        if isinstance(entry, list) and entry[1:] == identity and isinstance(entry[0], str):
            found[file] = entry[0]
            continue
        found[file] = sha256_of(file)
        if time.time() - max(status.st_mtime, status.st_ctime) > SETTLED:  # another change may have the same time
            fresh[name] = [found[file], *identity]
    if fresh:
        kept = list(known.items())[-MOST_REMEMBERED:]
        with contextlib.suppress(OSError):
            write_json(memory, dict(kept) | fresh)
    return found
