"""
Benchmark of training steps of each phase against a plain implementation: logits of every token and word, all word
embeddings in the optimiser, captions padded to the longest of the batch.

Dropout is off on both sides, so that their losses can be compared step by step.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from lexmotion import lexical_head, modeling_lexmotion, pretraining_lexmotion
from lexmotion.evaluation.benchmarks.harness import Case, compare_tensors

from ..data import PreparedData
from ..recipe import load_recipe, run_arguments, task_values
from ..tasks import PHASES, TASKS, lexmotion_task
from ..trainer import Trainer
from .loader import scratch, synthetic

DESCRIPTION = "training step: loading, forward, backward, clipping, optimiser, weight average (dropout off)"
QUICK = {"phases": "lexcmlp", "batch_size": 16, "clips": 48, "steps": 1}

PRODUCTS = {"aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"}
PROFILED_STEPS = 3


def cases(
    dataset: str = "",
    recipe: str = "",
    phases: str = ",".join(PHASES),
    steps: int = 4,
    batch_size: int = 64,
    clips: int = 256,
    tolerance: float = 0.02,
) -> list[Case]:
    """
    Return one case per phase, whose calls continue the training.

    Args:
        dataset: prepared folder; if empty, a synthetic corpus of `clips` clips is generated.
        recipe: if empty, `small` for a given dataset and `tiny` for the synthetic one.
        phases: comma-separated names.
        steps, batch_size: steps per call, and rows per step.
        tolerance: allowed relative difference of the losses over all steps of the first call.
    """
    data = PreparedData.read(dataset or synthetic(clips))
    content = load_recipe(recipe or ("small" if dataset else "tiny"))
    found = []
    for phase in phases.split(","):
        if phase not in PHASES:
            raise ValueError(f"unknown phase {phase!r}; pass some of {', '.join(PHASES)}")
        values = {**(task_values(content, phase) or {}), "batch_size": batch_size, "caption_features": False}
        if phase != "lexcmlp":
            del values["caption_features"]
        found.append(_case(phase, values, data, steps, tolerance))
    return found


def plain_projection(hidden, weight, bias, mask):
    """Compute the fused projection by dense operations."""
    logits = (hidden @ weight.T + bias).masked_fill(~mask.bool()[:, :, None], -torch.inf)  # (B, N, A)
    scores, winner = logits.float().max(dim=1)
    return scores.masked_fill(~mask.bool().any(dim=1)[:, None], 0.0), winner


def padded(run, mask, *inputs):
    """Compute `by_length` with all rows padded to the longest."""
    return run(mask, *inputs)


@contextmanager
def plain_path() -> Iterator[None]:
    """Replace all optimizations of a step by plain implementations inside this context."""
    with (
        mock.patch.object(lexical_head, "max_pooled_projection", plain_projection),
        mock.patch.object(modeling_lexmotion, "by_length", padded),
        mock.patch.object(pretraining_lexmotion, "by_length", padded),
        mock.patch.object(lexmotion_task, "compact_vocabulary", lambda model, used_ids: nullcontext()),
    ):
        yield


def _trainer(phase: str, values: dict[str, Any], data: PreparedData) -> Trainer:
    place = {"output_dir": str(scratch() / "steps" / phase), "eval_split": None}
    trainer = TASKS[phase].make_trainer(run_arguments(phase, {**values, **place}), data)
    for module in trainer.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return trainer


class _Stepper:
    """A trainer kept inside `ready` until the end of the process."""

    def __init__(self, trainer: Trainer, path: Callable[[], Any]):
        self.trainer, self.path = trainer, path
        self.stack = ExitStack()
        with path():
            self.model, self.optimizer = self.stack.enter_context(trainer.ready())
            self.batches = self.stack.enter_context(trainer.batches())

    def __call__(self, steps: int) -> torch.Tensor:
        with self.path():
            losses = [self.trainer.step(self.model, self.optimizer, self.batches)["loss"] for _ in range(steps)]
        return torch.tensor(losses)


def _case(phase: str, values: dict[str, Any], data: PreparedData, steps: int, tolerance: float) -> Case:
    ours, plain = (_Stepper(_trainer(phase, values, data), path) for path in (nullcontext, plain_path))

    def agree(mine: torch.Tensor, reference: torch.Tensor) -> str:
        near = compare_tensors(mine, reference, tolerance)
        return f"losses of {steps} steps: {near}; the last {float(mine[-1]):.4f} and {float(reference[-1]):.4f}"

    runs = (lambda: ours(steps), lambda: plain(steps))
    return Case(phase, *runs, agree, steps, "steps", facts=lambda: step_facts(ours))


def step_facts(stepper: _Stepper) -> dict[str, Any]:
    """Return the share of matrix products in a step's time, and their speed compared with the machine's."""
    counted = {torch.ops.lexmotion.max_pooled_projection: _head_flops}
    with FlopCounterMode(display=False, custom_mapping=counted) as count:
        stepper(1)
    operations = count.get_total_flops()
    facts: dict[str, Any] = {"GFLOP a step": operations / 1e9}
    peak = peak_speed(stepper.trainer)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        started = time.perf_counter()
        stepper(PROFILED_STEPS)
        seconds = (time.perf_counter() - started) / PROFILED_STEPS
    facts["GFLOP/s of the step"] = operations / seconds / 1e9
    if stepper.trainer.device.type == "cpu":
        products = sum(event.self_cpu_time_total for event in profiler.key_averages() if event.key in PRODUCTS)
        products /= 1e6 * PROFILED_STEPS
        facts["share of matrix products"] = products / seconds
        facts["GFLOP/s of the products"] = operations / products / 1e9
    facts["GFLOP/s of one large product"] = peak
    return facts


def _head_flops(hidden, weight, bias, mask, *_, out_val=None, **__) -> int:
    """Count the products of the fused projection (valid tokens only), without the row sums of its backward pass."""
    return 2 * int(mask.sum()) * weight.shape[0] * weight.shape[1]


_head_flops._get_raw = True  # type: ignore[attr-defined]  # FlopCounterMode: pass tensors, not shapes


def peak_speed(trainer: Trainer, size: int = 2048, repeats: int = 5) -> float:
    """Return the best GFLOP/s of several products of two square matrices, in the trainer's precision."""
    kind = torch.bfloat16 if trainer.accelerator.mixed_precision == "bf16" else torch.float32
    matrix = torch.randn(size, size, device=trainer.device).to(kind)
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        torch.mm(matrix, matrix)
        if trainer.device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best / 1e9
