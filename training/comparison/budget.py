"""Equal minutes a row: steps are timed on this machine, each phase gets as many as its share of the time allows."""

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Mapping
from typing import Any

import torch

from ..arguments import PHASES, RunArguments
from ..pipeline import BUILDERS, TRAINERS, PreparedData

# Of a row's minutes; the phases a row has share out the whole. The recipe's `compare: {shares: ...}` replaces it.
SHARES = {"lexmlm": 0.15, "cmmm": 0.15, "lexmmm": 0.2, "lexcmlp": 0.5, "baseline": 1.0}
# Of a training under a budget: its result is the best of these. What only prepares another phase is not chosen so.
EVALUATIONS, PREPARING_EVALUATIONS = 10, 2
WARMUP_STEPS, LEAST_STEPS, TIMED_SECONDS = 2, 5, 8.0


def clock_name() -> str:
    """
    `processor` where one thread on the CPU does all the work, else `wall`.

    Processor seconds are those of a machine that has nothing else to do; with several threads, or a GPU, they would
    count waiting as work.
    """
    return "processor" if torch.get_num_threads() == 1 and not torch.cuda.is_available() else "wall"


def time_phase(phase: str, arguments: RunArguments, data: PreparedData) -> dict[str, float]:
    """
    How long a step and an evaluation of a phase take here, from its initial weights, by the clock `clock_name` says.

    Returns:
        `step_seconds`, the median, and `evaluation_seconds`, checkpoint included.
    """
    with tempfile.TemporaryDirectory(prefix="lexmotion-timing-") as folder:
        values: dict[str, Any] = {"output_dir": folder, "progress": False, "log_with": []}
        if hasattr(arguments.phase, "caption_features"):
            values["caption_features"] = False  # computed once before the steps; looking them up costs next to nothing
        phase_arguments = dataclasses.replace(arguments.phase, **values)
        arguments = dataclasses.replace(arguments, phase=phase_arguments)
        options: dict[str, Any] = {"captions": data.captions(arguments)} if phase == "lexmlm" else {}
        length = arguments.data.max_text_length
        processor = data.processor_for(arguments.data.representation)
        trainer = TRAINERS[phase](
            BUILDERS[phase](arguments, processor),
            arguments,
            processor,
            data.corpus(arguments.data.train_split, length),
            data.corpus(arguments.data.eval_split, length),
            **options,
        )
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
    Steps of each phase that together take `minutes`, evaluations included.

    Args:
        timings: phase -> what `time_phase` gave. minutes: of the whole row.
        shares: phase -> share of the time, in any unit.

    Returns:
        phase -> `num_steps`, `eval_steps` and the timings.

    Raises:
        ValueError: a phase has no share, or gets too little time for a step between two evaluations.

    Example:

        >>> timing = {"step_seconds": 1.0, "evaluation_seconds": 2.0}
        >>> plan = plan_steps({"cmmm": timing, "lexcmlp": timing}, 4.0, {"cmmm": 1, "lexcmlp": 3})
        >>> {phase: steps["num_steps"] for phase, steps in plan.items()}
        {'cmmm': 56, 'lexcmlp': 160}
    """
    lacking = [phase for phase in timings if not shares.get(phase, 0.0) > 0]
    if lacking:
        raise ValueError(f"compare.shares of the recipe gives {lacking[0]} no share of the time; leave the phase out")
    total = sum(shares[phase] for phase in timings)
    plan = {}
    for phase, timing in timings.items():
        seconds = 60.0 * minutes * shares[phase] / total
        evaluations = PREPARING_EVALUATIONS if phase in PHASES[:-1] else EVALUATIONS
        steps = int((seconds - evaluations * timing["evaluation_seconds"]) / timing["step_seconds"])
        if steps < evaluations:
            least = (evaluations * sum(timing.values())) * total / shares[phase] / 60.0
            raise ValueError(
                f"{minutes:g} minutes leave {phase} {max(steps, 0)} steps of {timing['step_seconds']:.2f} s beside "
                f"its {evaluations} evaluations; give --budget-minutes {least + 0.05:.1f} or more"
            )
        plan[phase] = {"num_steps": steps, "eval_steps": -(-steps // evaluations), **timing}
    return plan
