"""Read damaged motion files: each must be read, or refused in one line, in bounded time and memory.

    python tests/processing/mutations.py --count 10000 --folder /tmp/mutations

Each mutation of a small valid file is read in a process of its own with 5 seconds of CPU and 1 GB more memory than
before. The exit status is 1 if any of them ends in another way than a motion of finite numbers or a one-line error.
"""

import argparse
import io
import os
import random
import re
import resource
import signal
import sys
import time
import traceback
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np

SECONDS, MEMORY = 5, 2**30
EXTREMES = (
    "1e308",
    "-1e308",
    "nan",
    "inf",
    "-1",
    "0",
    "1e-320",
    "9" * 400,
    "4294967296",
    "99999999999999",
    "1,5",
    "é",
)
WORDS = (b"\0" * 4, b"\xff" * 4, b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\xff\xff")
# What the command line turns into one line.
ONE_LINE = (ValueError, OSError, ImportError)


def mutate(content: bytes, chance: random.Random) -> bytes:
    """Damage the content of a file: bytes flipped, cut out, doubled or overwritten, and numbers replaced."""
    if content[:2] == b"PK" and chance.random() < 0.6:
        return _member(content, chance)
    data = bytearray(content)
    is_text = b"\0" not in content[:4000]
    kinds = (0, 1, 4, 5, 6) if chance.random() < 0.5 else range(7)  # half of the damage keeps the size
    for _ in range(chance.choice((1, 1, 2, 5, 30))):
        if not data:
            break
        # Headers are short, and most of what can go wrong is in them.
        place = chance.randrange(len(data) if chance.random() < 0.5 else min(len(data), 2048))
        size = chance.choice((1, 4, 60, 3000))
        kind = chance.choice(kinds)
        if kind == 0:
            data[place] = chance.randrange(256)
        elif kind == 1:
            data[place] ^= 1 << chance.randrange(8)
        elif kind == 2:
            del data[place : place + size]
        elif kind == 3:
            data[place:place] = data[place : place + size]
        elif kind == 4:
            source = chance.randrange(len(data))
            piece = data[source : source + size][: len(data) - place]
            data[place : place + len(piece)] = piece
        elif is_text:
            numbers = list(re.finditer(rb"-?\d[\d.e+-]*", bytes(data[place : place + 200])))
            if numbers:
                found = chance.choice(numbers)
                data[place + found.start() : place + found.end()] = chance.choice(EXTREMES).encode()
        else:
            word = chance.choice(WORDS)
            place -= place % 2
            data[place : place + len(word)] = word
    if chance.random() < 0.1:
        del data[chance.randrange(len(data) + 1) :]
    return bytes(data)


def _member(content: bytes, chance: random.Random) -> bytes:
    """Damage one array of an archive and leave the archive whole."""
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(written, "w") as copy:
        chosen = chance.choice(archive.namelist())
        for name in archive.namelist():
            member = archive.read(name)
            copy.writestr(name, mutate(member, chance) if name == chosen else member)
    return written.getvalue()


def attempt(path: Path) -> str:
    """Read a file and return `read` or the kind of its one-line error.

    Raises:
        AssertionError: if a motion contains numbers that are not finite, or an error has no text.
    """
    from written import ASF_NAMES

    from lexmotion import load_motion

    try:
        motion = load_motion(path, mapping=ASF_NAMES if path.suffix == ".amc" else None)
    except ONE_LINE as error:
        assert str(error).strip(), "an error without a text"
        return "refused"
    assert np.isfinite(motion.positions).all() and np.isfinite(motion.fps), "numbers that are not finite"
    assert motion.features is None or np.isfinite(motion.features).all(), "features that are not finite"
    return "read"


def mutated(originals: list[Path], seed: int, folder: Path) -> Path:
    """Write the mutation of this number into a folder and return the file to read."""
    chance = random.Random(seed)
    original = originals[seed % len(originals)]
    target = folder / original.name
    target.write_bytes(mutate(original.read_bytes(), chance))
    if original.suffix == ".asf":  # which is read with its motion
        target = folder / "skeleton_1.amc"
        target.write_bytes((original.parent / target.name).read_bytes())
    elif original.suffix == ".amc":
        (folder / "skeleton.asf").write_bytes((original.parent / "skeleton.asf").read_bytes())
    return target


def in_a_child(path: Path) -> str:
    """Return what `attempt` returns, or how the process ended."""
    pages = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_AS, (pages + MEMORY, pages + MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
        signal.alarm(12 * SECONDS)
        try:
            outcome = attempt(path)
        except BaseException as error:
            lines = traceback.format_exc().splitlines()
            outcome = f"{type(error).__name__}: {error} at {lines[-3].strip() if len(lines) > 2 else ''}"
        os.write(writer, outcome.encode(errors="replace")[:2000])
        os._exit(0)
    os.close(writer)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reader, "rb") as stream:
        outcome = stream.read().decode()
    return outcome or f"ended by signal {os.WTERMSIG(status)}"


def report(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first mutation")
    parser.add_argument("--folder", type=Path, required=True)
    arguments = parser.parse_args()
    from written import files, walking

    arguments.folder.mkdir(parents=True, exist_ok=True)
    (arguments.folder / "valid").mkdir(exist_ok=True)
    originals = files(arguments.folder / "valid", walking(24))
    for path in originals:
        assert path.suffix == ".asf" or attempt(path) == "read", path
    outcomes: dict[str, Counter[str]] = {}
    slowest, wrong = 0.0, 0
    for seed in range(arguments.first, arguments.first + arguments.count):
        path = mutated(originals, seed, arguments.folder)
        start = time.perf_counter()
        outcome = in_a_child(path)
        slowest = max(slowest, time.perf_counter() - start)
        if outcome not in ("read", "refused"):
            wrong += 1
            report(f"mutation {seed} of {path.name}: {outcome}")
            path.rename(arguments.folder / f"wrong_{seed}_{path.name}")
        name = originals[seed % len(originals)].name
        outcomes.setdefault(name, Counter())[outcome if outcome in ("read", "refused") else "wrong"] += 1
    for name, counts in sorted(outcomes.items()):
        report(f"{name}: {dict(counts)}")
    report(f"{arguments.count} mutations, {wrong} wrong, the slowest took {slowest:.1f} s")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
