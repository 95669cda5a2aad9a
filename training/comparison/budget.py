"""Equal minutes a row: steps are timed on this machine, each task gets as many as its share of the time allows."""

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

# Of a training under a budget: its result is the best of these. What only prepares another task is not chosen so.
EVALUATIONS, PREPARING_EVALUATIONS = 10, 2
WARMUP_STEPS, LEAST_STEPS, TIMED_SECONDS = 2, 5, 8.0


def clock_name() -> str:
    """
    `processor` where one thread on the CPU does all the work, else `wall`.

    Processor seconds are those of a machine that has nothing else to do; with several threads, or a GPU, they would
    count waiting as work.
    """
    return "processor" if torch.get_num_threads() == 1 and not torch.cuda.is_available() else "wall"


def time_task(arguments: RunArguments, data: PreparedData) -> dict[str, float]:
    """
    How long a step and an evaluation of a task take here, from its initial weights, by the clock `clock_name` says.

    Returns:
        `step_seconds`, the median, and `evaluation_seconds`, checkpoint included.
    """
    with tempfile.TemporaryDirectory(prefix="lexmotion-timing-") as folder:
        values: dict[str, Any] = {"output_dir": folder, "progress": False, "log_with": []}
        if hasattr(arguments.task, "caption_features"):
            values["caption_features"] = False  # computed once before the steps; looking them up costs next to nothing
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
    Steps of each task that together take `minutes`, evaluations included.

    Args:
        timings: task -> what `time_task` gave. minutes: of the whole row.
        shares: task -> share of the time, in any unit.

    Returns:
        task -> `num_steps`, `eval_steps` and the timings.

    Raises:
        ValueError: a task has no share, or gets too little time for a step between two evaluations.

    Example:

        >>> timing = {"step_seconds": 1.0, "evaluation_seconds": 2.0}
        >>> plan = plan_steps({"cmmm": timing, "lexcmlp": timing}, 4.0, {"cmmm": 1, "lexcmlp": 3})
        >>> {name: steps["num_steps"] for name, steps in plan.items()}
        {'cmmm': 56, 'lexcmlp': 160}
    """
    lacking = [name for name in timings if not shares.get(name, 0.0) > 0]
    if lacking:
        raise ValueError(f"compare.shares of the recipe gives {lacking[0]} no share of the time; leave the task out")
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
                f"{minutes:g} minutes leave {name} {max(steps, 0)} steps of {timing['step_seconds']:.2f} s beside "
                f"its {evaluations} evaluations; give --budget-minutes {least + 0.05:.1f} or more"
            )
        plan[name] = {"num_steps": steps, "eval_steps": -(-steps // evaluations), **timing}
    return plan
