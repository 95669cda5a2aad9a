"""
Finished results in the output folder of a comparison or in a zip archive.

An archive contains only `<row>/seed<k>/result.json`, as in an output folder. Archives are not trusted: the cost of
reading one is bounded before it is read.
"""

import contextlib
import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from lexmotion.common.files import atomic_path

RESULT = "result.json"
# Names of rows start with a letter or digit and have no separator, so that no path is absolute or has `..`.
MEMBER = re.compile(rf"[A-Za-z0-9][\w.+-]{{0,99}}/seed[0-9]{{1,9}}/{re.escape(RESULT)}", re.ASCII)
# A result is about 40 kB, and a tenth of that in an archive.
MAX_ARCHIVE, MAX_MEMBER, MAX_TOTAL = 8 * 2**20, 4 * 2**20, 64 * 2**20
# Raised by reading a damaged zip file (ValueError: by the checks here).
DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError)


def read_results(source: Path) -> list[tuple[Path, dict[str, Any]]]:
    """
    Return results with their paths, sorted; paths in an archive are `archive.zip/<row>/seed<k>/result.json`.

    Args:
        source: archive, or output folder of a comparison, which may be missing.

    Raises:
        ValueError: if the archive is damaged, contains other files or is too large, or a result is invalid.
    """
    if source.is_file():
        results = {source / name: result for name, result in read_archive(source).items()}
        return [(place, results[place]) for place in sorted(results)]
    found = []
    for path in sorted(source.glob(f"*/seed*/{RESULT}")):
        with refused(path, f"restore the file, or delete {path.parent} to train the row again"):
            found.append((path, parse(path.read_bytes())))
    return found


def read_archive(path: Path) -> dict[str, dict[str, Any]]:
    """Return member -> result; raise a ValueError as `read_results` does."""
    with refused(path, f"restore the file, or delete it and rewrite it with `lexmotion compare --archive {path}`"):
        if path.stat().st_size > MAX_ARCHIVE:  # bounds the list of members, which is always read
            raise ValueError(f"it is larger than {MAX_ARCHIVE:,} bytes")
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            check_members((member.filename, member.file_size) for member in members)
            return {member.filename: read_member(archive, member) for member in members}


def read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> dict[str, Any]:
    """Return the result in a member whose name and size are checked."""
    try:
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others unpack without a bound
            raise ValueError(f"compression {member.compress_type} is not supported")
        with archive.open(member) as stream:
            return parse(stream.read(member.file_size + 1))  # bounded even if the declared size is wrong
    except DAMAGE as error:
        raise ValueError(f"member {member.filename!r}: {error}") from error


def check_members(members: Iterable[tuple[str, int]]) -> None:
    """Raise a ValueError if a member (name, unpacked bytes) cannot be a result."""
    names, total = set(), 0
    for name, size in members:
        total += size
        if not MEMBER.fullmatch(name):
            raise ValueError(f"member {name!r:.120} is not named <row>/seed<k>/{RESULT}")
        if name in names:
            raise ValueError(f"member {name!r} occurs twice")
        if size > MAX_MEMBER or total > MAX_TOTAL:
            limits = f"at most {MAX_MEMBER:,} and {MAX_TOTAL:,} in total are read"
            raise ValueError(f"member {name!r} unpacks to {size:,} bytes, {total:,} in total so far; {limits}")
        names.add(name)


def parse(text: bytes) -> dict[str, Any]:
    """Parse the JSON of a result; raise a ValueError if it is invalid or does not identify its row."""
    try:
        result = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"invalid JSON ({error})") from error
    for name, kind in {"row": str, "seed": int, "definition": dict}.items():
        if not isinstance(result, dict) or not isinstance(result.get(name), kind):
            raise ValueError(f"not a result of a row: its {name} is missing")
    return result


@contextlib.contextmanager
def refused(place: Path, remedy: str) -> Iterator[None]:
    """Add the path and a remedy to errors of damaged files."""
    try:
        yield
    except DAMAGE as error:
        raise ValueError(f"{place}: {str(error)[:400]}; {remedy}") from error


def add_results(path: Path, results: Iterable[Mapping[str, Any]]) -> tuple[int, int]:
    """
    Add results to an archive atomically, creating it if needed. Equal results give equal bytes.

    Args:
        results: results to add, replacing those of the same row and seed.

    Returns:
        How many results were added, and how many replaced.

    Raises:
        ValueError: if there is no result, the existing archive is damaged, or the new one would be too large.
    """
    given = {f"{result['row']}/seed{result['seed']}/{RESULT}": result for result in results}
    if not given:
        raise ValueError(f"{path}: 0 results to archive; train a row first, see `lexmotion compare --rows`")
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):  # concurrent writers add to each other's results
        old: Mapping[str, Mapping[str, Any]] = read_archive(path) if path.exists() else {}
        new = {**old, **given}
        if new != old:  # keep the bytes of equal results, which another zlib may pack differently
            with refused(path, "write to another archive, or delete this one and rewrite it"):
                content = pack(new)
            with atomic_path(path) as aside:
                aside.write_bytes(content)
    return len(new) - len(old), sum(old[name] != new[name] for name in old)


def pack(results: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Pack members into a reproducible archive (sorted, without times); raise a ValueError if it is too large."""
    texts = {name: f"{json.dumps(results[name], indent=2, ensure_ascii=False)}\n".encode() for name in sorted(results)}
    check_members((name, len(text)) for name, text in texts.items())
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in texts.items():
            member = zipfile.ZipInfo(name)  # always dated 1980
            member.create_system, member.external_attr = 3, 0o644 << 16  # the same on every system
            archive.writestr(member, text, zipfile.ZIP_DEFLATED, compresslevel=9)
    if content.tell() > MAX_ARCHIVE:
        raise ValueError(f"it would be larger than {MAX_ARCHIVE:,} bytes")
    return content.getvalue()
