"""Equal training time per row: steps are timed on this machine, and each task gets as many as fit its share."""

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Mapping
from typing import Any

import torch

from ..arguments import RunArguments
from ..data import PreparedData
from ..tasks import TASKS

# Evaluations per training; tasks that only prepare another need fewer, as their best checkpoint matters less.
EVALUATIONS, PREPARING_EVALUATIONS = 10, 2
WARMUP_STEPS, LEAST_STEPS, TIMED_SECONDS = 2, 5, 8.0


def clock_name() -> str:
    """
    Return `processor` if a single CPU thread does all the work, else `wall`.

    Processor time is independent of other load, but with several threads or a GPU it would count waiting as work.
    """
    return "processor" if torch.get_num_threads() == 1 and not torch.cuda.is_available() else "wall"


def time_task(arguments: RunArguments, data: PreparedData) -> dict[str, float]:
    """Measure the median `step_seconds`, and `evaluation_seconds` with a checkpoint, by the clock of `clock_name`."""
    with tempfile.TemporaryDirectory(prefix="lexmotion-timing-") as folder:
        values: dict[str, Any] = {"output_dir": folder, "progress": False, "log_with": []}
        if hasattr(arguments.task, "caption_features"):
            values["caption_features"] = False  # computed once before the steps, then almost free
        arguments = dataclasses.replace(arguments, task=dataclasses.replace(arguments.task, **values))
        trainer = TASKS[arguments.name].make_trainer(arguments, data)
        seconds: list[float] = []
        clock = time.process_time if clock_name() == "processor" else time.perf_counter
        with trainer.ready() as (model, optimizer), trainer.batches() as batches:
            for _ in range(WARMUP_STEPS):
                trainer.step(model, optimizer, batches)
            while len(seconds) < LEAST_STEPS or sum(seconds) < TIMED_SECONDS:
                started = clock()
                trainer.step(model, optimizer, batches)
                seconds.append(clock() - started)
            started = clock()
            if trainer.eval_corpus is not None:
                trainer.choose_best()
            trainer.save_checkpoint()
            evaluation = clock() - started
        trainer.accelerator.free_memory()
    return {"step_seconds": statistics.median(seconds), "evaluation_seconds": evaluation}


def plan_steps(
    timings: Mapping[str, Mapping[str, float]], minutes: float, shares: Mapping[str, float]
) -> dict[str, dict[str, Any]]:
    """
    Choose each task's steps so that all tasks together take `minutes`, including evaluations.

    Args:
        timings: task -> result of `time_task`.
        minutes: time of the whole row.
        shares: task -> share of the time, in any unit.

    Returns:
        task -> `num_steps`, `eval_steps` and the timings.

    Raises:
        ValueError: if a task has no share, or no time for a step between two evaluations.

    Example:
        >>> timing = {"step_seconds": 1.0, "evaluation_seconds": 2.0}
        >>> plan = plan_steps({"cmmm": timing, "lexcmlp": timing}, 4.0, {"cmmm": 1, "lexcmlp": 3})
        >>> {name: steps["num_steps"] for name, steps in plan.items()}
        {'cmmm': 56, 'lexcmlp': 160}
    """
    lacking = [name for name in timings if not shares.get(name, 0.0) > 0]
    if lacking:
        raise ValueError(f"compare.shares.{lacking[0]}: got {shares.get(lacking[0])}; set it above 0 or skip the task")
    total = sum(shares[name] for name in timings)
    plan = {}
    for name, timing in timings.items():
        seconds = 60.0 * minutes * shares[name] / total
        prepares = any(name in task.starts_from for task in TASKS.values())
        evaluations = PREPARING_EVALUATIONS if prepares else EVALUATIONS
        steps = int((seconds - evaluations * timing["evaluation_seconds"]) / timing["step_seconds"])
        if steps < evaluations:
            least = (evaluations * sum(timing.values())) * total / shares[name] / 60.0
            raise ValueError(
                f"--budget-minutes: {minutes:g} leaves {name} {max(steps, 0)} steps of {timing['step_seconds']:.2f} s "
                f"beside {evaluations} evaluations; pass --budget-minutes {least + 0.05:.1f} or more"
            )
        plan[name] = {"num_steps": steps, "eval_steps": -(-steps // evaluations), **timing}
    return plan
