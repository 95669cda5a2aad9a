"""
Run a recipe: train its tasks in order, each from the results of earlier ones, and resume after an interruption.

```
output_dir/
  lexmlm/ cmmm/ lexmmm/ lexcmlp/    checkpoints, log.jsonl, best weights, model/, result.json once finished
  model/                            the trained model and its processor
  run.json                          the run record
```
"""

import gc
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers.utils import logging

from lexmotion.common.files import read_json, write_json
from lexmotion.encoding_lexmotion import bind_processor
from lexmotion.evaluation.loading import copy_model, save_model

from .arguments import RunArguments
from .locks import sole_training
from .provenance import digest, folder_fingerprint, provenance, read_result
from .recipe import apply_overrides, load_recipe, run_arguments, task_values
from .tasks import TASKS
from .tasks.initialization import check_packages, check_text_model
from .trainer import note_other_precision, on_cpu, precision

logger = logging.get_logger(__name__)


def run_task(arguments: RunArguments, data: Any, reuse: Sequence[str | os.PathLike] = ()) -> dict[str, Any]:
    """
    Train one task, or return its result if it is finished.

    Args:
        arguments: all arguments of the task.
        data: training data as returned by the task's `read`.
        reuse: output folders of tasks; a finished, identical training found there is copied instead of repeated.

    Returns:
        The content of `<output_dir>/result.json`: `phase`, `fingerprint`, `arguments`, `training`, `acceptance`, and
        the `title`, `card` and `criteria` of the task.

    Raises:
        ValueError: if output_dir contains the finished task of another run.
        FolderBusyError: if another training writes to output_dir.
    """
    with sole_training(str(arguments.task.output_dir), on_cpu(arguments)):
        return _run_task(arguments, data, reuse)


def _run_task(arguments: RunArguments, data: Any, reuse: Sequence[str | os.PathLike]) -> dict[str, Any]:
    name, task = arguments.name, TASKS[arguments.name]
    output_dir = Path(str(arguments.task.output_dir))
    inherited = {key: folder_fingerprint(folder) for key, folder in arguments.handed_on().items()}
    inputs = task.inputs(arguments, data)
    inherited |= {key: value.fingerprint for key, value in inputs.items()}
    start = digest([data.fingerprint, inherited])
    fingerprint = digest([start, arguments.defining()])
    result_path = output_dir / "result.json"
    if arguments.task.resume:
        if result_path.is_file():
            result = read_result(output_dir)
            if result["fingerprint"] == fingerprint:
                logger.info(f"{name} is finished already")
                note_other_precision(output_dir, result["training"].get("precision"), precision(arguments))
                return {**task.facts(result["acceptance"]), **result}
            raise ValueError(
                f"{output_dir}: contains {name} of other arguments, data or initial weights; delete the folder to "
                "train it again, or pass another output_dir"
            )
        if (twin := finished_twin(reuse, fingerprint)) is not None:
            logger.info(f"{name} is finished already in {twin}")
            result = copy_task(twin, output_dir)
            note_other_precision(twin, result["training"].get("precision"), precision(arguments))
            return {**task.facts(result["acceptance"]), **result}
    trainer = task.make_trainer(arguments, data, start, inputs)
    if trainer.processor is not None:
        bind_processor(trainer.model, trainer.processor)
    training = trainer.train()
    acceptance = trainer.acceptance() if trainer.eval_corpus is not None else {}
    result = {
        "phase": name,
        "fingerprint": fingerprint,
        "processes": trainer.world,
        "device": str(trainer.device),
        "rows": len(trainer.order.lengths),
        "training": training,
        "acceptance": acceptance,
        "arguments": arguments.to_dict(),
        **task.facts(acceptance),
    }
    if trainer.accelerator.is_main_process:
        save_model(trainer.finished_model().cpu(), trainer.processor, output_dir / "model")
        write_json(result_path, result)
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.free_memory()
    del trainer
    gc.collect()
    return result


def finished_twin(folders: Sequence[str | os.PathLike], fingerprint: str) -> Path | None:
    """Return the first of these task folders with the same training and with its model, or None."""
    for folder in map(Path, folders):
        if not (folder / "result.json").is_file() or not (folder / "model").is_dir():
            continue
        if read_result(folder)["fingerprint"] == fingerprint:
            return folder
    return None


def copy_task(finished: Path, output_dir: Path) -> dict[str, Any]:
    """Copy a finished task and return its result, which is written last so that a partial copy is not taken for it."""
    state = PartialState()
    state.wait_for_everyone()  # no process may find the copied result before all have looked for one
    result = read_result(finished)
    if state.is_main_process:
        copy_model(finished / "model", output_dir / "model")
        if (finished / "log.jsonl").is_file():
            shutil.copy2(finished / "log.jsonl", output_dir / "log.jsonl")
        write_json(output_dir / "result.json", result)
    state.wait_for_everyone()
    return result


def train(
    recipe: str | os.PathLike | dict[str, Any],
    dataset: str | os.PathLike | None,
    output_dir: str | os.PathLike,
    overrides: dict[str, Any] | list[str] | None = None,
    on_task: Callable[[str, dict[str, Any]], None] | None = None,
    reuse: Sequence[str | os.PathLike] = (),
) -> dict[str, Any]:
    """
    Run all tasks of a recipe in order; finished ones are kept, an interrupted one resumes from its last checkpoint.

    Args:
        recipe: `tiny`, `small`, `kit`, `base`, a YAML file, or a mapping.
        dataset: folder written by `prepare`; None for tasks that need no prepared corpus.
        output_dir: see the module's docstring.
        overrides: see `apply_overrides`.
        on_task: called with each task's name and result, whether finished earlier or now.
        reuse: other output_dirs; a finished task with the same arguments, seed, data and initial weights is copied
            from there instead of trained.

    Returns:
        The run record, as written to `output_dir/run.json`.

    Raises:
        ImportError: if a package that the recipe needs is not installed.
        ValueError: if an argument is unknown, the corpus was prepared with another tokenizer than that of the text
            model, or output_dir belongs to another run.
        FileNotFoundError: if a folder of `reuse` does not exist.
        FolderBusyError: if another training writes to output_dir.
        NonFiniteLossError: if a loss becomes NaN or infinite.
    """
    output_dir = Path(output_dir)
    for folder in reuse:
        if not Path(folder).is_dir():
            raise FileNotFoundError(
                f"reuse: no folder {os.fspath(folder)!r}; pass the output folder of another training"
            )
    content = apply_overrides(load_recipe(recipe), overrides)
    content.setdefault("name", "recipe")
    planned = plan_tasks(content, dataset, output_dir)
    for arguments in planned.values():
        check_packages(arguments)
    sources: dict[Any, Any] = {}
    for name, arguments in planned.items():
        if TASKS[name].read not in sources:
            sources[TASKS[name].read] = TASKS[name].read(arguments)
        check_text_model(arguments, sources[TASKS[name].read].processor)
    with sole_training(output_dir):
        return _train_all(content, planned, sources, output_dir, on_task, reuse)


def _train_all(
    content: dict[str, Any],
    planned: Mapping[str, RunArguments],
    sources: Mapping[Any, Any],
    output_dir: Path,
    on_task: Callable[[str, dict[str, Any]], None] | None,
    reuse: Sequence[str | os.PathLike],
) -> dict[str, Any]:
    """Run the planned tasks, whose data is in `sources`, and return the run record."""
    record: dict[str, Any] = {
        "format": 1,
        "recipe": content,
        "seed": content.get("seed", 0),
        "dataset": sources[TASKS[list(planned)[-1]].read].facts(),
        **provenance(),
        "started": now(),
        "finished": None,
        "phases": {},
    }
    main_process = PartialState().is_main_process
    path = output_dir / "run.json"
    if path.is_file():
        record["started"] = read_json(path).get("started", record["started"])
    done: dict[str, str] = {}
    for name, arguments in planned.items():
        for earlier, argument in TASKS[name].starts_from.items():
            if earlier in done and getattr(arguments.model, argument) is None:
                setattr(arguments.model, argument, done[earlier])
        result = run_task(arguments, sources[TASKS[name].read], [Path(folder) / name for folder in reuse])
        done[name] = str(output_dir / name)
        record["phases"][name] = result
        if main_process:
            write_json(path, record)
            if on_task is not None:
                on_task(name, result)
    if main_process:
        finish(done, planned, sources, output_dir / "model")
        record["finished"] = now()
        write_json(path, record)
    PartialState().wait_for_everyone()
    return record


def plan_tasks(
    content: dict[str, Any], dataset: str | os.PathLike | None, output_dir: Path
) -> dict[str, RunArguments]:
    """
    Return the arguments of every task of a recipe in order, all checked before the first one runs.

    Raises:
        ValueError: if an argument is unknown or the recipe has no task.
    """
    if "phases" not in content:
        raise ValueError(f"recipe {content['name']!r}: no section `phases`; add one as in lexmotion/training/recipes")
    planned: dict[str, RunArguments] = {}
    for name in TASKS:
        values = task_values(content, name)
        if values is not None:
            place = {"output_dir": str(output_dir / name)} | ({} if dataset is None else {"dataset": str(dataset)})
            planned[name] = run_arguments(name, {**values, **place})
    if not planned:
        raise ValueError(f"recipe {content['name']!r}: all `phases` are skipped; keep one of {', '.join(TASKS)}")
    return planned


def finish(
    done: Mapping[str, str], arguments: Mapping[str, RunArguments], sources: Mapping[Any, Any], folder: Path
) -> None:
    """Write the final model of a run: as built by the last task's `finish`, else the last task's model."""
    last = list(done)[-1]
    task = TASKS[last]
    if task.finish is None:
        copy_model(Path(done[last]) / "model", folder)
        return
    processor = sources[task.read].load(arguments[last]).processor
    model = task.finish(done, arguments, processor)
    bind_processor(model, processor)
    save_model(model, processor, folder)


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
