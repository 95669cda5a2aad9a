"""
Ours against the plain way: first that the results agree, then time, interleaved, then peak memory, apart.

A benchmark is a module with a `DESCRIPTION`, a function `cases(**sizes)` that returns [`Case`]s, and a dictionary
`QUICK` of smaller sizes. Building the cases again must give the same ones: memory is measured in fresh processes.
"""

import ctypes
import importlib
import inspect
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from tqdm.auto import tqdm

BENCHMARKS = {
    "lexical-head": "lexmotion.evaluation.benchmarks.lexical_head",
    "features": "lexmotion.evaluation.benchmarks.features",
    "encode": "lexmotion.evaluation.benchmarks.encode",
    "index": "lexmotion.evaluation.benchmarks.index",
    "loader": "lexmotion.training.benchmarks.loader",
    "train-step": "lexmotion.training.benchmarks.train_step",
}
SIDES = ("ours", "plain")


class DisagreementError(ValueError):
    """Ours and the plain way computed different things: nothing is timed."""


@dataclass
class Case:
    """
    One comparison.

    Args:
        name: what is compared.
        ours, plain: a call without arguments each, timed as a whole; what they return is compared.
        agree: takes both results, returns in a few words how near they are; raises [`DisagreementError`] when they
            differ.
        work, unit: how much a call does, for the rates: 1000, "captions".
        facts: called once after timing, without arguments, for what else is worth a line.
    """

    name: str
    ours: Callable[[], Any]
    plain: Callable[[], Any]
    agree: Callable[[Any, Any], str]
    work: float = 1.0
    unit: str = "calls"
    facts: Callable[[], dict[str, Any]] | None = None


@dataclass
class Result:
    """
    Args:
        case, agreement, unit, work: as in [`Case`].
        seconds: of each side, every repetition. ratio, lowest, highest: plain over ours, pair by pair; the median.
        peak_bytes: of each side, above what building the case takes; None where it cannot be measured.
    """

    case: str
    agreement: str
    unit: str
    work: float
    seconds: dict[str, list[float]]
    ratio: float
    lowest: float
    highest: float
    peak_bytes: dict[str, int | None] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def rate(self, side: str) -> float:
        """Units a second, by the median call."""
        return self.work / statistics.median(self.seconds[side])


def require(near: bool, message: str) -> None:
    """Raise [`DisagreementError`] unless `near`."""
    if not near:
        raise DisagreementError(f"ours and plain disagree: {message}")


def compare_tensors(ours: Any, plain: Any, tolerance: float) -> str:
    """Relative difference of two tensors or tuples of them, |ours - plain| / |plain|; at most `tolerance`."""
    pairs = [(ours, plain)] if isinstance(ours, torch.Tensor) else list(zip(ours, plain, strict=True))
    shapes = [(tuple(a.shape), tuple(b.shape)) for a, b in pairs if a.shape != b.shape]
    require(not shapes, f"shapes {shapes}")
    worst = max(float((a.double() - b.double()).norm() / b.double().norm().clamp(min=1e-12)) for a, b in pairs)
    require(worst <= tolerance, f"relative difference {worst:.2e}, at most {tolerance:g} expected")
    return f"relative difference {worst:.1e}"


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    name = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            name = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), name)
    facts = {
        "processor": name,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
    return facts


def build(module: str, sizes: dict[str, Any]) -> list[Case]:
    """
    The cases of a benchmark module.

    Raises:
        ValueError: a size the benchmark does not have, with those it has.
    """
    cases = importlib.import_module(module).cases
    known = inspect.signature(cases).parameters
    unknown = sorted(set(sizes) - set(known))
    if unknown:
        raise ValueError(f"this benchmark has no size {unknown[0]!r}; it has {', '.join(known)}")
    return cases(**sizes)


def description(module: str) -> str:
    """One line on what a benchmark measures."""
    return importlib.import_module(module).DESCRIPTION


def quick_sizes(module: str) -> dict[str, Any]:
    """Sizes with which it takes less than half a minute."""
    return dict(importlib.import_module(module).QUICK)


def parse_sizes(module: str, sizes: dict[str, str]) -> dict[str, Any]:
    """Words of a command line as numbers where the default of the size is one."""
    known = inspect.signature(importlib.import_module(module).cases).parameters
    parsed: dict[str, Any] = {}
    for name, value in sizes.items():
        default = known[name].default if name in known else value
        kind = type(default) if isinstance(default, int | float) else str
        try:
            parsed[name] = kind(value)
        except ValueError as error:
            raise ValueError(f"size {name} must be a number like {default}, got {value!r}") from error
    return parsed


def _timed(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def run(
    module: str, sizes: dict[str, Any], repeats: int = 5, memory: bool = True, progress: bool = False
) -> list[Result]:
    """
    Run a benchmark.

    Args:
        module: where the benchmark is. sizes: of `cases`. repeats: timed pairs, after one warm-up of each side.
        memory: measure peak memory, in a fresh process for each side.

    Raises:
        DisagreementError: the results differ.
    """
    results = []
    cases = build(module, sizes)
    total = len(cases) * (1 + repeats) + len(SIDES) * memory
    with tqdm(total=total, disable=None if progress else True, leave=False, desc="benchmark") as bar:
        for case in cases:
            agreement = case.agree(case.ours(), case.plain())  # the warm-up as well
            bar.update()
            seconds: dict[str, list[float]] = {side: [] for side in SIDES}
            for number in range(repeats):
                # Alternate who goes first, so that neither always runs on the other's warm cache.
                for side in SIDES if number % 2 == 0 else SIDES[::-1]:
                    seconds[side].append(_timed(getattr(case, side)))
                bar.update()
            ratios = [plain / ours for ours, plain in zip(seconds["ours"], seconds["plain"], strict=True)]
            result = Result(
                case.name,
                agreement,
                case.unit,
                case.work,
                seconds,
                statistics.median(ratios),
                min(ratios),
                max(ratios),
                facts=case.facts() if case.facts else {},
            )
            results.append(result)
        if memory:
            # Both at once: neither is timed, and much of it is the same imports.
            with ThreadPoolExecutor(len(SIDES)) as pool:
                peaks = pool.map(lambda side: peak_memory(module, sizes, side), SIDES)
                for side, peak in zip(SIDES, peaks, strict=True):
                    for result in results:
                        result.peak_bytes[side] = peak[result.case]
                    bar.update()
    return results


def to_json(results: list[Result], sizes: dict[str, Any]) -> dict[str, Any]:
    """What `--json` writes."""
    return {"machine": machine(), "sizes": sizes, "results": [asdict(result) for result in results]}


# ---- memory ---------------------------------------------------------------------------------------------------------


def peak_memory(module: str, sizes: dict[str, Any], side: str) -> dict[str, int | None]:
    """
    Bytes that one call of each case takes at its peak beyond what was there before it.

    Measured in a fresh process, so that nothing the other side left behind is used; on a GPU, its memory.
    """
    command = [sys.executable, "-m", __name__, module, json.dumps(sizes), side]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"measuring the memory of {module} ({side}) failed: {done.stderr.strip()[-500:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _resident(name: str) -> int:
    with open("/proc/self/status", encoding="ascii") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith(name))


def _peak(call: Callable[[], Any]) -> int | None:
    if torch.cuda.is_available():
        call()  # compiles and tunes
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    try:
        # Freed memory the allocator kept would hide what the call takes; then the high-water mark begins anew.
        ctypes.CDLL(None).malloc_trim(0)
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")
    except (OSError, AttributeError):  # not Linux
        return None
    before = _resident("VmRSS")
    call()
    return _resident("VmHWM") - before


if __name__ == "__main__":
    found = {case.name: _peak(getattr(case, sys.argv[3])) for case in build(sys.argv[1], json.loads(sys.argv[2]))}
    sys.stdout.write(json.dumps(found) + "\n")
