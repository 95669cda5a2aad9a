"""Benchmarks: they compare before they time, divide the right figures, and measure memory where it is taken."""

import importlib
import inspect
import io
import itertools
import json
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rich.console import Console

from lexmotion import cli
from lexmotion.evaluation.benchmarks import features, harness
from lexmotion.evaluation.benchmarks.features_plain import clip_features
from lexmotion.evaluation.console import benchmark_table
from lexmotion.processing.skeletons import SKELETONS, get_skeleton

ROOT = Path(__file__).resolve().parents[2]
SHARED = next((folder for folder in (ROOT / "shared", ROOT.parent / "shared") if folder.is_dir()), ROOT / "shared")
REFERENCE = SHARED / "reference" / "humanml3d_features"

FAKE = """
import torch

from lexmotion.evaluation.benchmarks.harness import Case, require

DESCRIPTION = "a fake"
QUICK = {"megabytes": 1}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
calls = []


def cases(megabytes: int = 64, shift: float = 0.0, label: str = "fake"):
    def ours():
        calls.append("ours")
        return 1.0

    def plain():
        calls.append("plain")
        return float(torch.ones(megabytes << 18, device=DEVICE)[-1]) + shift

    def agree(mine, reference):
        require(mine == reference, f"{mine} is not {reference}")
        return "equal"

    same = Case("takes nothing", ours, ours, agree, work=3, unit="things")
    return [Case(label, ours, plain, agree, work=6, unit="things", facts=lambda: {"calls": len(calls)}), same]
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Name of a benchmark module that other processes can import as well."""
    (tmp_path / "fake_benchmark.py").write_text(FAKE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    yield "fake_benchmark"
    sys.modules.pop("fake_benchmark", None)


@pytest.fixture
def clock(monkeypatch):
    """Calls take the seconds given here, by side, instead of their own; `order` says who was called."""
    seconds, order = {"ours": itertools.repeat(1.0), "plain": itertools.repeat(1.0)}, []

    def timed(call):
        order.append(call.__name__)
        return next(seconds[call.__name__])

    monkeypatch.setattr(harness, "_timed", timed)
    return SimpleNamespace(seconds=seconds, order=order)


# ---------------------------------------------------------------------------------------------------------------------
# The harness
# ---------------------------------------------------------------------------------------------------------------------


def test_nothing_is_timed_when_the_results_differ(fake, clock, monkeypatch):
    monkeypatch.setattr(harness, "peak_memory", lambda *_: pytest.fail("memory was measured"))
    with pytest.raises(harness.DisagreementError, match=r"\b1\.0\b.*\b1\.5\b"):
        harness.run(fake, {"megabytes": 1, "shift": 0.5})
    assert importlib.import_module(fake).calls == ["ours", "plain"] and clock.order == []


def test_ratios_are_taken_pair_by_pair_and_sides_alternate(fake, clock):
    clock.seconds |= {"ours": iter([1.0, 2.0, 4.0]), "plain": iter([3.0, 10.0, 4.0])}
    fine = importlib.import_module(fake).cases
    importlib.import_module(fake).cases = lambda megabytes: fine(megabytes)[:1]
    (result,) = harness.run(fake, {"megabytes": 1}, repeats=3, memory=False)
    assert clock.order == ["ours", "plain", "plain", "ours", "ours", "plain"]
    assert result.seconds == {"ours": [1.0, 2.0, 4.0], "plain": [3.0, 10.0, 4.0]}
    assert (result.ratio, result.lowest, result.highest) == (3.0, 1.0, 5.0)  # not the ratio of the medians
    assert (result.rate("ours"), result.rate("plain")) == (3.0, 1.5)
    assert (result.case, result.agreement, result.unit, result.facts) == ("fake", "equal", "things", {"calls": 2})
    assert result.peak_bytes == {}


def test_a_call_is_timed_from_start_to_end(monkeypatch):
    readings = iter([10.0, 12.5])
    events = []
    monkeypatch.setattr(
        harness, "time", SimpleNamespace(perf_counter=lambda: events.append("clock") or next(readings))
    )
    assert harness._timed(lambda: events.append("call")) == 2.5
    assert events == ["clock", "call", "clock"]


def test_sizes(fake):
    parsed = harness.parse_sizes(fake, {"megabytes": "8", "shift": "1", "label": "7"})
    assert parsed == {"megabytes": 8, "shift": 1.0, "label": "7"} and isinstance(parsed["shift"], float)
    for value in ("8.5", "many"):
        with pytest.raises(ValueError, match=rf"megabytes\b.*\b64\b.*'{value}'"):
            harness.parse_sizes(fake, {"megabytes": value})
    with pytest.raises(ValueError, match="'megabits'.*megabytes, shift, label"):
        harness.run(fake, harness.parse_sizes(fake, {"megabits": "8"}))
    assert harness.quick_sizes(fake) == {"megabytes": 1} and harness.description(fake) == "a fake"


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_memory_is_that_of_a_call(fake):
    peaks = harness.peak_memory(fake, {"megabytes": 64, "label": "takes 64 MB"}, "plain")
    assert 50e6 < peaks["takes 64 MB"] < 100e6
    assert 0 <= peaks["takes nothing"] < 10e6


def test_memory_is_asked_for_each_side(fake, clock, monkeypatch):
    peaks = {"ours": {"fake": 1, "takes nothing": 2}, "plain": {"fake": 3, "takes nothing": None}}
    monkeypatch.setattr(harness, "peak_memory", lambda module, sizes, side: peaks[side])
    large, small = harness.run(fake, {"megabytes": 1}, repeats=1)
    assert large.peak_bytes == {"ours": 1, "plain": 3} and small.peak_bytes == {"ours": 2, "plain": None}


def test_a_failing_process_says_why(fake, tmp_path, monkeypatch):
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho 'MemoryError: no room' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    with pytest.raises(RuntimeError, match=r"fake_benchmark\b.*\bplain\b.*MemoryError: no room"):
        harness.peak_memory(fake, {}, "plain")


def test_tensors_are_compared_by_relative_difference():
    one, near, far = torch.ones(4), torch.full((4,), 1.001), torch.full((4,), 1.1)
    assert harness.compare_tensors(near, one, 2e-3) == "relative difference 1.0e-03"
    assert harness.compare_tensors((one, near), (one, one), 2e-3) == "relative difference 1.0e-03"
    with pytest.raises(harness.DisagreementError, match=r"1\.00e-01.*0\.002"):
        harness.compare_tensors((one, far), (one, one), 2e-3)
    with pytest.raises(ValueError, match="argument 2 is longer"):
        harness.compare_tensors((one,), (one, one), 2e-3)


# ---------------------------------------------------------------------------------------------------------------------
# The command
# ---------------------------------------------------------------------------------------------------------------------


def test_the_command_writes_its_figures(fake, clock, tmp_path, monkeypatch, capsys):
    clock.seconds |= {"plain": itertools.repeat(4.0)}
    monkeypatch.setitem(harness.BENCHMARKS, "fake", fake)
    file = tmp_path / "figures.json"
    words = ["--quick", "--repeats", "2", "--size", "label=another", "--no-memory", "--json", str(file)]
    with pytest.raises(SystemExit) as stop:
        cli.main(["benchmark", "fake", *words])
    assert not stop.value.code
    figures = json.loads(file.read_text(encoding="utf-8"))
    assert figures["sizes"] == {"megabytes": 1, "label": "another"}
    assert figures["machine"]["torch"] == torch.__version__ and figures["machine"]["cores"] >= 1
    large, small = figures["results"]
    assert large["case"] == "another" and large["ratio"] == 4.0 and large["seconds"]["ours"] == [1.0, 1.0]
    assert small["case"] == "takes nothing" and small["agreement"] == "equal"
    shown = capsys.readouterr().out
    assert "another" in shown and "4.00 x" in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["giant"],
            "'giant'.*lexical-head, features, encode, index, loader, train-step",
        ),
        (["features", "--size", "frames=3"], "'frames'.*clips, shortest, longest, batch, skeleton"),
        (["features", "--size", "clips=few"], r"clips\b.*\b256\b.*'few'"),
        (["features", "--size", "skeleton=dog"], "'dog'"),
    ],
)
def test_a_mistake_ends_in_one_line(words, message, monkeypatch, capsys):
    monkeypatch.delenv(cli.DEBUG_VARIABLE, raising=False)
    with pytest.raises(SystemExit) as stop:
        cli.main(["benchmark", *words])
    assert stop.value.code == 1 and re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize("width", [80, 100, 140])
def test_the_table_can_be_read(width):
    fact, agreement = "measured on another machine", "largest difference 2e-05 (metres, radians), contacts equal"
    results = [
        harness.Result(
            "forward against the bare product, bfloat16",
            agreement,
            "captions",
            90000.0,
            {"ours": [2.0, 4.0, 3.0], "plain": [9.0, 9.0, 9.0]},
            3.25,
            2.5,
            4.0,
            {"ours": 2 << 20, "plain": 25 << 20},
            {fact: 12345.6},
        ),
        harness.Result("[no markup]", "equal", "rows", 1.0, {"ours": [4.0], "plain": [2.0]}, 0.5, 0.5, 0.5),
    ]
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(benchmark_table(results, "what is measured"))
    lines = [line.rstrip() for line in console.export_text().splitlines()]
    assert max(map(len, lines)) <= min(width, 100) and lines[0] == "what is measured"
    assert f"  {agreement}" in lines and f"  {fact}: 12,346" in lines
    ours, plain, ratio, slow, _, worse = (
        re.sub(" +", " ", line) for line in lines if re.search(" (ours|plain|ratio) {2}", line)
    )
    assert ours.endswith("ours 30,000 captions 2.0 MiB")
    assert plain.endswith("plain 10,000 captions 25.0 MiB")
    assert ratio.endswith("ratio 3.25 x (2.50 - 4.00) 12.50 x")
    assert "[no markup]" in slow and slow.endswith("-") and "0.50 x" in worse


# ---------------------------------------------------------------------------------------------------------------------
# The benchmarks
# ---------------------------------------------------------------------------------------------------------------------

TINY = {
    "lexical-head": [{"batch": 3, "tokens": 5, "width": 16, "words": 200, "active": 4}],
    "index": [{"items": 300, "queries": 3, "vocabulary": 500, "words": 12, "query_words": 5, "curve": "200"}],
    "features": [{"clips": 3, "shortest": 10, "longest": 30, "batch": 2, "skeleton": name} for name in SKELETONS],
}


@pytest.mark.parametrize("stage", harness.BENCHMARKS)
def test_every_benchmark_is_described_and_quick_sizes_exist(stage):
    module = importlib.import_module(harness.BENCHMARKS[stage])
    sizes = inspect.signature(module.cases).parameters
    assert isinstance(module.DESCRIPTION, str) and len(module.DESCRIPTION) <= 100
    assert module.QUICK and set(module.QUICK) <= set(sizes)
    for name, size in sizes.items():
        assert size.default is not inspect.Parameter.empty, f"size {name} has no default"
        assert type(module.QUICK.get(name, size.default)) is type(size.default)
        assert type(size.default) in (int, float, str), f"size {name} cannot be given in words"


@pytest.mark.parametrize(
    ("stage", "sizes"), [(stage, sizes) for stage, many in TINY.items() for sizes in many], ids=str
)
def test_both_sides_agree_and_are_built_alike(stage, sizes):
    first, second = (
        [(case.name, case.agree(case.ours(), case.plain())) for case in harness.build(module, quick | sizes)]
        for module, quick in [(harness.BENCHMARKS[stage], harness.quick_sizes(harness.BENCHMARKS[stage]))] * 2
    )
    assert first and first == second


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="reference features are not at hand (shared/reference)")
def test_plain_features_are_the_published_ones():
    target = np.load(REFERENCE / "target_skeleton.npy", allow_pickle=False)[:22].astype(np.float32)
    for path in sorted(REFERENCE.glob("*.npz"))[:4]:
        clip = np.load(path, allow_pickle=False)
        found = clip_features(clip["positions"].astype(np.float32), get_skeleton("humanml3d"), target)
        np.testing.assert_allclose(found, clip["features"], atol=1e-3)


@pytest.mark.parametrize("name", SKELETONS)
def test_wrong_features_are_noticed(name):
    (case,) = features.cases(clips=2, shortest=20, longest=30, skeleton=name)
    layout = get_skeleton(name)
    reference = case.plain()
    contacts = layout.feature_slices["contacts"]
    [(values, lengths)] = case.ours()
    assert case.agree([(values, lengths)], reference).endswith("contacts equal")
    turned = values.clone()
    turned[0, 3, contacts] = 1 - turned[0, 3, contacts]
    with pytest.raises(harness.DisagreementError, match=r"\b4\b.*contacts"):
        case.agree([(turned, lengths)], reference)
    with pytest.raises(harness.DisagreementError, match=r"\b0\.001\b"):
        case.agree([(values + 0.002 / layout.metres_per_unit, lengths)], reference)
    with pytest.raises(ValueError, match="broadcast"):
        case.agree([(values, lengths - 1)], reference)


def test_features_use_one_thread_and_give_the_others_back(monkeypatch):
    (case,) = features.cases(clips=1, shortest=10, longest=10)
    seen = []
    monkeypatch.setattr(features, "pad_sequence", lambda *_, **__: seen.append(torch.get_num_threads()) or 1 / 0)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with pytest.raises(ZeroDivisionError):
            case.ours()
        assert seen == [1] and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
