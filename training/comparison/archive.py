"""
Finished results where they lie: in the output folder of a comparison, or in one zip archive that is read in place.

An archive holds `<row>/seed<k>/result.json`, as an output folder does, and nothing else. It may come from anywhere, so
it is not trusted: what it would take to read is bounded before it is read.
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
# Neither absolute nor with `..`: a row's name begins with a letter or a digit and has no separator.
MEMBER = re.compile(rf"[A-Za-z0-9][\w.+-]{{0,99}}/seed[0-9]{{1,9}}/{re.escape(RESULT)}", re.ASCII)
# A result has some 40 kB, and a tenth of that in an archive.
MAX_ARCHIVE, MAX_MEMBER, MAX_TOTAL = 8 * 2**20, 4 * 2**20, 64 * 2**20
# What reading a damaged zip file raises, beside what is found wrong here (ValueError).
DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError)


def read_results(source: Path) -> list[tuple[Path, dict[str, Any]]]:
    """
    Results with their places, sorted; in an archive these are `archive.zip/<row>/seed<k>/result.json`.

    Args:
        source: output folder of a comparison, which need not be there, or an archive.

    Raises:
        ValueError: the archive is damaged, holds what is no result or would unpack to too much; a result is no JSON.
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
    """
    Member -> result.

    Raises:
        ValueError: see `read_results`.
    """
    with refused(path, f"restore the file, or delete it and write it anew with `lexmotion compare --archive {path}`"):
        if path.stat().st_size > MAX_ARCHIVE:  # bounds the list of members, which is read in any case
            raise ValueError(f"it is larger than {MAX_ARCHIVE:,} bytes")
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            check_members((member.filename, member.file_size) for member in members)
            return {member.filename: read_member(archive, member) for member in members}


def read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> dict[str, Any]:
    """The result in a member whose name and size are checked."""
    try:
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others unpack without a bound
            raise ValueError(f"compression {member.compress_type} is not read")
        with archive.open(member) as stream:
            return parse(stream.read(member.file_size + 1))  # a bound of its own, should the size be a lie
    except DAMAGE as error:
        raise ValueError(f"member {member.filename!r}: {error}") from error


def check_members(members: Iterable[tuple[str, int]]) -> None:
    """
    Refuse names and sizes that results do not have.

    Args:
        members: names, and bytes when unpacked.

    Raises:
        ValueError: says which member.
    """
    names, total = set(), 0
    for name, size in members:
        total += size
        if not MEMBER.fullmatch(name):
            raise ValueError(f"member {name!r:.120} is no <row>/seed<k>/{RESULT}")
        if name in names:
            raise ValueError(f"member {name!r} is there twice")
        if size > MAX_MEMBER or total > MAX_TOTAL:
            raise ValueError(
                f"member {name!r} unpacks to {size:,} bytes, with those before to {total:,}; at most {MAX_MEMBER:,} "
                f"and {MAX_TOTAL:,} are read"
            )
        names.add(name)


def parse(text: bytes) -> dict[str, Any]:
    """
    A result from its JSON.

    Raises:
        ValueError: no JSON, or nothing that tells which row's result it is.
    """
    try:
        result = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"no valid JSON ({error})") from error
    kinds = {"row": str, "seed": int, "definition": dict}
    for name, kind in kinds.items():
        if not isinstance(result, dict) or not isinstance(result.get(name), kind):
            raise ValueError(f"no result of a row: its {name} is missing")
    return result


@contextlib.contextmanager
def refused(place: Path, remedy: str) -> Iterator[None]:
    """Say which file is damaged, and what to do about it."""
    try:
        yield
    except DAMAGE as error:
        raise ValueError(f"{place} cannot be used: {str(error)[:400]}; {remedy}") from error


def add_results(path: Path, results: Iterable[Mapping[str, Any]]) -> tuple[int, int]:
    """
    Add results to an archive, which is made where there is none. The same results give the same bytes.

    Whoever reads meanwhile, or after a writer was killed, finds the old archive or the new one, whole.

    Args:
        results: one of a row and seed that the archive has takes that one's place; all others stay.

    Returns:
        How many were added, and how many took the place of another one.

    Raises:
        ValueError: there is no result, the archive that is there cannot be read, or the new one could not be.
    """
    given = {f"{result['row']}/seed{result['seed']}/{RESULT}": result for result in results}
    if not given:
        raise ValueError("there is no result to archive; train a row first")
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):  # of two writers, one adds to what the other has written
        old: Mapping[str, Mapping[str, Any]] = read_archive(path) if path.exists() else {}
        new = {**old, **given}
        if new != old:  # else the bytes stay, though another zlib may pack the same results otherwise
            with refused(path, "write to another archive, or delete this one and write it anew"):
                content = pack(new)
            with atomic_path(path) as aside:
                aside.write_bytes(content)
    return len(new) - len(old), sum(old[name] != new[name] for name in old)


def pack(results: Mapping[str, Mapping[str, Any]]) -> bytes:
    """
    The archive of these members: in order, without times, and with the JSON that an output folder has.

    Raises:
        ValueError: it would not be read again.
    """
    texts = {name: f"{json.dumps(results[name], indent=2, ensure_ascii=False)}\n".encode() for name in sorted(results)}
    check_members((name, len(text)) for name, text in texts.items())
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in texts.items():
            member = zipfile.ZipInfo(name)  # dated 1980, whenever it is written
            member.create_system, member.external_attr = 3, 0o644 << 16  # the same on every system
            archive.writestr(member, text, zipfile.ZIP_DEFLATED, compresslevel=9)
    if content.tell() > MAX_ARCHIVE:
        raise ValueError(f"it would be larger than {MAX_ARCHIVE:,} bytes")
    return content.getvalue()
