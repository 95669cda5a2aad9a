"""Comparison of ours with a baseline: agreement first, then time, interleaved, then peak memory, in separate
processes.

A benchmark is a module with a `DESCRIPTION`, a function `cases(**sizes)` that returns [`Case`]s, and a dictionary
`QUICK` of smaller sizes. `cases` must be deterministic, since memory is measured in fresh processes.
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
    """Ours and the baseline computed different results, so nothing is timed."""


@dataclass
class Case:
    """
    One comparison.

    Args:
        name: name of the comparison.
        ours, plain: functions without arguments, each timed as a whole, whose results are compared.
        agree: takes both results and returns a short description of their agreement; raises [`DisagreementError`] if
            they differ.
        work, unit: amount of work per call, for the rates: 1000, "captions".
        facts: function without arguments, called once after timing, that returns further facts to show.
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
    Measurements of one case.

    Args:
        case, agreement, unit, work: as in [`Case`].
        seconds: times of every repetition, per side.
        ratio, lowest, highest: median and limits of baseline over ours, pair by pair.
        peak_bytes: peak memory per side beyond that of building the case; None if it cannot be measured.
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
        """Return units per second, from the median call."""
        return self.work / statistics.median(self.seconds[side])


def require(near: bool, message: str) -> None:
    """Raise [`DisagreementError`] unless `near`."""
    if not near:
        raise DisagreementError(f"ours and the baseline disagree: {message}; fix one before timing them")


def compare_tensors(ours: Any, plain: Any, tolerance: float) -> str:
    """
    Check that the relative difference |ours - plain| / |plain| of tensors, or tuples of them, is at most `tolerance`.
    """
    pairs = [(ours, plain)] if isinstance(ours, torch.Tensor) else list(zip(ours, plain, strict=True))
    shapes = [(tuple(a.shape), tuple(b.shape)) for a, b in pairs if a.shape != b.shape]
    require(not shapes, f"shapes {shapes}")
    worst = max(float((a.double() - b.double()).norm() / b.double().norm().clamp(min=1e-12)) for a, b in pairs)
    require(worst <= tolerance, f"relative difference {worst:.2e}, at most {tolerance:g} expected")
    return f"relative difference {worst:.1e}"


def machine() -> dict[str, Any]:
    """Describe the machine that figures are measured on."""
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
    """Build the cases of a benchmark module; ValueError for a size that it does not have."""
    cases = importlib.import_module(module).cases
    known = inspect.signature(cases).parameters
    unknown = sorted(set(sizes) - set(known))
    if unknown:
        raise ValueError(f"this benchmark has no size {unknown[0]!r}; pass one of {', '.join(known)}")
    return cases(**sizes)


def description(module: str) -> str:
    """Return the one-line description of a benchmark."""
    return importlib.import_module(module).DESCRIPTION


def quick_sizes(module: str) -> dict[str, Any]:
    """Return sizes that take less than half a minute."""
    return dict(importlib.import_module(module).QUICK)


def parse_sizes(module: str, sizes: dict[str, str]) -> dict[str, Any]:
    """Convert values from the command line to numbers if the default of the size is one."""
    known = inspect.signature(importlib.import_module(module).cases).parameters
    parsed: dict[str, Any] = {}
    for name, value in sizes.items():
        default = known[name].default if name in known else value
        kind = type(default) if isinstance(default, int | float) else str
        try:
            parsed[name] = kind(value)
        except ValueError as error:
            raise ValueError(f"size {name}: expected a number like {default}, got {value!r}") from error
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
        module: import path of the benchmark.
        sizes: arguments of `cases`.
        repeats: timed pairs, after one warm-up of each side.
        memory: whether to measure peak memory, in a fresh process per side.

    Raises:
        DisagreementError: if the results differ.
    """
    results = []
    cases = build(module, sizes)
    total = len(cases) * (1 + repeats) + len(SIDES) * memory
    with tqdm(total=total, disable=None if progress else True, leave=False, desc="benchmark") as bar:
        for case in cases:
            agreement = case.agree(case.ours(), case.plain())  # also the warm-up
            bar.update()
            seconds: dict[str, list[float]] = {side: [] for side in SIDES}
            for number in range(repeats):
                # Alternate the order, so that neither side always runs on the other's warm cache.
                for side in SIDES if number % 2 == 0 else SIDES[::-1]:
                    seconds[side].append(_timed(getattr(case, side)))
                bar.update()
            ratios = [plain / ours for ours, plain in zip(seconds["ours"], seconds["plain"], strict=True)]
            middle, facts = statistics.median(ratios), case.facts() if case.facts else {}
            limits = min(ratios), max(ratios)
            results.append(Result(case.name, agreement, case.unit, case.work, seconds, middle, *limits, facts=facts))
        if memory:
            # Both at once, since neither is timed.
            with ThreadPoolExecutor(len(SIDES)) as pool:
                peaks = pool.map(lambda side: peak_memory(module, sizes, side), SIDES)
                for side, peak in zip(SIDES, peaks, strict=True):
                    for result in results:
                        result.peak_bytes[side] = peak[result.case]
                    bar.update()
    return results


def to_json(results: list[Result], sizes: dict[str, Any]) -> dict[str, Any]:
    """Return the content of the `--json` file."""
    return {"machine": machine(), "sizes": sizes, "results": [asdict(result) for result in results]}


# ---- memory ---------------------------------------------------------------------------------------------------------


def peak_memory(module: str, sizes: dict[str, Any], side: str) -> dict[str, int | None]:
    """
    Measure the peak bytes that one call of each case takes beyond the memory in use before it.

    A fresh process is used, so that nothing left by the other side counts; on a GPU, its memory is measured.
    """
    command = [sys.executable, "-m", __name__, module, json.dumps(sizes), side]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        error = done.stderr.strip()[-500:]
        raise RuntimeError(f"memory of {module} ({side}) was not measured; pass --no-memory to skip it: {error}")
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
        # Return freed memory, which would hide the call's own, and reset the high-water mark.
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
