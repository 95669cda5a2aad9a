"""
Kill the writer of an index again and again, and look whether anything acknowledged is lost.

    python tests/modeling/index_trials.py --trials 500

A process adds, replaces, deletes, merges and saves a copy, and says so before and after each. It gets SIGKILL at some
moment, or kills itself at a step that matters: in the middle of writing a file, before or after one is brought to the
disk, renamed or removed. Then the index must open with all checksums right, and hold either what was acknowledged or
that and the one change under way, whole, bit for bit.
"""

import argparse
import builtins
import itertools
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lexmotion.index import embedded, segments
from lexmotion.index.lexmotion_index import LexMotionIndex

VOCABULARY, WORDS = 96, 8
STEPS = 240  # of the system, at one of which a process kills itself
CHANGES, DONE = 40, "done"
LONGEST = 0.2  # seconds until a process is killed from outside
Items = dict[int, int]  # id -> version of its vector


@dataclass
class TrialReport:
    """
    Args:
        trials: processes killed. finished: of them, had done everything before.
        acknowledged: changes that had returned. interrupted: changes under way, by their name. kept, undone: whether
            these were there afterwards.
        faults: what was lost or wrong; empty as it should be.
    """

    trials: int = 0
    finished: int = 0
    acknowledged: int = 0
    kept: int = 0
    undone: int = 0
    interrupted: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def vectors(items: Items) -> np.ndarray:
    """Weights of words (N, V) that an id and its version determine."""
    found = np.zeros((len(items), VOCABULARY), np.float32)
    for row, (id, version) in enumerate(items.items()):
        rng = np.random.default_rng([id, version])
        found[row, rng.choice(VOCABULARY, WORDS, replace=False)] = rng.random(WORDS) + 0.1
    return found


def _metadata(items: Items) -> list[dict[str, Any]]:
    return [{"version": version} for version in items.values()]


@dataclass
class _Change:
    """What is done to an index: items that are new or replaced, and ids that go."""

    kind: str
    new: Items = field(default_factory=dict)
    gone: list[int] = field(default_factory=list)

    @classmethod
    def drawn(cls, items: Items, rng: random.Random) -> "_Change":
        kind = rng.choices(["add", "replace", "delete", "merge", "save"], [8, 2, 3, 1, 1])[0]
        known = rng.sample(sorted(items), min(len(items), rng.randint(1, 9)))
        if kind == "delete":
            return cls(kind, gone=known)
        if kind == "replace":
            return cls(kind, {id: items[id] + 1 for id in known})
        if kind == "add":
            first = rng.randrange(10**9)
            return cls(kind, {id: 1 for id in range(first, first + rng.randint(1, 5)) if id not in items})
        return cls(kind)

    @classmethod
    def read(cls, line: str) -> "_Change":
        kind, new, gone = json.loads(line)
        return cls(kind, {int(id): version for id, version in new.items()}, gone)

    def __str__(self) -> str:
        return json.dumps([self.kind, self.new, self.gone])

    def of(self, items: Items) -> Items:
        """What the index holds afterwards."""
        return {id: version for id, version in items.items() if id not in self.gone} | self.new

    def do(self, index: LexMotionIndex, copy: Path) -> None:
        if self.kind == "merge":
            index.merge()
        elif self.kind == "save":
            index.save_pretrained(copy)
        elif self.kind == "delete":
            index.delete(self.gone)
        else:
            index.add(vectors(self.new), _metadata(self.new), list(self.new), replace=self.kind == "replace")


def _die_at(step: int) -> None:
    """Have this process kill itself at the step-th write, synchronisation, renaming or removal."""
    count = itertools.count(1)

    def killed(call: Callable) -> Callable:
        def counted(*args: Any, **kwargs: Any) -> Any:
            if next(count) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return counted

    class Half:
        """A file whose writing may end in the middle."""

        def __init__(self, file: Any):
            self.file = file

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

        def __enter__(self) -> "Half":
            return self

        def __exit__(self, *_: Any) -> None:
            self.file.close()

        def write(self, part: Any) -> None:
            if next(count) == step:
                self.file.write(bytes(part)[: len(part) // 2])
                self.file.flush()
                os.kill(os.getpid(), signal.SIGKILL)
            self.file.write(part)

    for name in ("fsync", "replace", "unlink"):
        setattr(os, name, killed(getattr(os, name)))

    def opened(path: Any, mode: str = "r") -> Any:
        file = builtins.open(path, mode)  # noqa: SIM115
        return Half(file) if "w" in mode else file

    segments.open = opened  # type: ignore[attr-defined]


def _work(folder: Path, items: Items, seed: int, say: Callable[[str], Any]) -> None:
    """What the process that is killed does, until it is."""
    rng = random.Random(seed)
    embedded.MERGE_FACTOR = 3  # merges all the time
    index = LexMotionIndex.from_pretrained(folder / "index")
    if seed % 2:
        _die_at(rng.randint(1, STEPS))
    for _ in range(CHANGES):
        change = _Change.drawn(items, rng)
        say(str(change))
        change.do(index, folder / "copy")
        say(DONE)
        items = change.of(items)
    index.close()


def _run_and_kill(folder: Path, items: Items, seed: int) -> list[str]:
    """Lines a process could say before it was killed."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            os.close(reading)
            _work(folder, items, seed, lambda line: os.write(writing, f"{line}\n".encode()))
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    if not seed % 2:
        time.sleep(random.Random(seed).random() * LONGEST)
        os.kill(child, signal.SIGKILL)
    with os.fdopen(reading, encoding="ascii") as pipe:
        lines = pipe.read().split("\n")[:-1]  # what has no end was never said
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise RuntimeError(f"the writer of trial {seed} failed by itself after {len(lines)} lines")
    return lines


def _differs(folder: Path, items: Items) -> str:
    """How an index differs from the items it should hold; "" when it does not."""
    index = LexMotionIndex.from_pretrained(folder)
    if set(index.ids) != set(items) or len(index) != len(items):
        return f"{len(index)} items in place of {len(items)}"
    ordered = {id: items[id] for id in index.ids}
    if any(index.metadata(id) != {"version": version} for id, version in ordered.items()):
        return "metadata of an earlier version"
    if not items:
        return ""
    plain = LexMotionIndex.build(vectors(ordered), ids=list(ordered))
    if (index.to_csr() != plain.to_csr()).nnz:
        return "vectors have changed"
    query = vectors({0: 0})
    (ids, scores), (expected, their_scores) = index.top_k(query, 20)[0], plain.top_k(query, 20)[0]
    return "" if ids == expected and (scores == their_scores).all() else "a search finds something else"


def run_trials(folder: str | Path, trials: int, seed: int = 0) -> TrialReport:
    """
    Kill `trials` writers of one index, one after the other.

    Args:
        folder: an empty folder for the index and a copy of it. seed: of the changes and of the moments.
    """
    folder = Path(folder)
    items: Items = {id: 1 for id in range(5)}
    with LexMotionIndex.build(vectors(items), _metadata(items), list(items), folder=folder / "index") as index:
        index.save_pretrained(folder / "copy")
    copies = [items]  # what the copy may hold
    report = TrialReport()
    for number in range(seed, seed + trials):
        lines = _run_and_kill(folder, items, number)
        report.trials += 1
        changes = [_Change.read(line) for line in lines if line != DONE]
        done = lines.count(DONE)
        report.acknowledged += done
        report.finished += done == CHANGES
        for change in changes[:done]:
            items = change.of(items)
            copies = [items] if change.kind == "save" else copies
        try:
            fault = _differs(folder / "index", items)
            for change in changes[done:]:  # one at most
                report.interrupted[change.kind] = report.interrupted.get(change.kind, 0) + 1
                copies += [items] if change.kind == "save" else []
                if fault and not _differs(folder / "index", change.of(items)):
                    items, fault = change.of(items), ""
                    report.kept += 1
                else:
                    report.undone += 1
            # The copy is the one before or the one under way.
            faults = [fault, *([] if any(not _differs(folder / "copy", one) for one in copies) else ["the copy"])]
        except (ValueError, OSError) as error:
            faults = [repr(error)]
        report.faults += [f"trial {number}: {one}" for one in faults if one]
        if report.faults:
            break  # what follows would be built on it
    return report


def main(arguments: list[str] | None = None) -> int:
    """The command; its exit status is 1 when anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=500, help="writers to kill")
    parser.add_argument("--seed", type=int, default=0, help="of changes and moments")
    given = parser.parse_args(arguments)
    if not hasattr(os, "fork"):
        parser.error("this system has no fork: run it on Linux or macOS")
    with tempfile.TemporaryDirectory() as folder:
        report = run_trials(folder, given.trials, given.seed)
    sys.stdout.write(json.dumps(asdict(report)) + "\n")
    return int(bool(report.faults))


if __name__ == "__main__":
    sys.exit(main())
