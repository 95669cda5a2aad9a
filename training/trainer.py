"""
The training loop of all tasks. A task defines its rows, how they become a batch, and the loss.

All randomness is a function of (seed, task, step, process): permutation, augmentation, masks, and dropout, whose
generator is reseeded for every forward pass. The checkpoint contains the rest of the state: weights, optimiser,
averaged weights and the task's own state. So a run that is killed and restarted computes the same losses as an
uninterrupted one.
"""

import json
import math
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState, GradientState
from torch import Tensor
from tqdm.auto import tqdm
from transformers.utils import logging

from lexmotion.common.files import full_disk_named, write_text
from lexmotion.encoding_lexmotion import encoding_dtype

from .arguments import RunArguments
from .batches.order import Batch, BatchOrder, BatchRandom, derive_seed
from .checkpoints import CheckpointFolder, load_unique_state, read_optimizer, read_state, read_tensors, unique_state
from .data import Splits
from .schedules import WeightAverage, learning_rate_factor

logger = logging.get_logger(__name__)


class NonFiniteLossError(FloatingPointError):
    """A loss or a gradient is NaN or infinite; the message names the step, the parts of the loss and the rows."""

    @classmethod
    def of(cls, trainer: "Trainer", values: dict[str, float], seen: list[Tensor]) -> "NonFiniteLossError":
        """Build the error of a step from its loss values and the rows seen."""
        shown = ", ".join(f"{name}={value:.4g}" for name, value in values.items())
        names = ", ".join(trainer.row_names(torch.cat(seen)))
        return cls(
            f"{trainer.name} step {trainer.state.step + 1}: {shown}; check the rows of the batch on process "
            f"{trainer.rank} for broken data: {names}; else lower learning_rate ({trainer.args.learning_rate:g}) or "
            "set mixed_precision: no"
        )


def on_cpu(arguments: RunArguments) -> bool:
    """Return whether a task is trained on the CPU."""
    return arguments.task.use_cpu or not torch.cuda.is_available()


def precision(arguments: RunArguments) -> str:
    """Return the precision of a task on this machine, `"no"` or `"bf16"`; it is logged once if chosen by `auto`."""
    asked = arguments.task.mixed_precision
    if asked != "auto":
        return asked
    device = torch.device("cpu" if on_cpu(arguments) else "cuda")
    chosen = "bf16" if encoding_dtype("auto", device) == torch.bfloat16 else "no"
    logger.info_once(f"mixed_precision: auto is {chosen!r} on this machine's {device.type}")
    return chosen


def note_other_precision(place: str | Path, before: str | None, now: str) -> None:
    """Warn if the steps in a folder were computed `before` in another precision than the steps that follow."""
    if before not in (None, now):
        logger.warning(
            f"{place}: computed with mixed_precision {before!r}, but auto is {now!r} on this machine, so the result "
            "will differ slightly from a run on one machine; for exact repetition, start over with "
            "mixed_precision: no"
        )


def make_accelerator(arguments: RunArguments) -> Accelerator:
    """Return an Accelerator for one task; tasks of one process may differ in precision."""
    task = arguments.task
    if AcceleratorState._shared_state:
        AcceleratorState._reset_state(reset_partial_state=False)
        GradientState._reset_state()
    return Accelerator(
        mixed_precision=precision(arguments),
        cpu=on_cpu(arguments),
        log_with=task.log_with or None,
        project_dir=task.output_dir,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True, broadcast_buffers=False)],
    )


@dataclass
class TrainerState:
    """State of the loop between steps, saved with every checkpoint."""

    step: int = 0
    best: dict[str, Any] | None = None
    window: dict[str, float] = field(default_factory=dict)
    window_steps: int = 0
    elapsed: float = 0.0
    last_evaluation: dict[str, float] = field(default_factory=dict)
    stopped: str | None = None


def mean_over_processes(losses: dict[str, Tensor], accelerator: Accelerator) -> dict[str, float]:
    """Return scalars, averaged over processes, as Python floats."""
    stacked = torch.stack([value.detach().float().reshape(()) for value in losses.values()])
    if accelerator.num_processes > 1:
        stacked = accelerator.reduce(stacked, "mean")
    return dict(zip(losses, stacked.tolist(), strict=True))


class TrainingLog:
    """
    `log.jsonl` of a run, and its trackers.

    Args:
        path: path of the file, written by the main process of `accelerator`.
        steps: training steps averaged in one line.
        trackers: also write to the accelerator's trackers.
    """

    def __init__(self, path: Path, accelerator: Accelerator, steps: int, trackers: bool):
        self.path, self.accelerator, self.steps, self.trackers = path, accelerator, steps, trackers

    def gather(self, state: TrainerState, losses: dict[str, float]) -> bool:
        """Add a step to the window; return True if the window is full."""
        for name, value in losses.items():
            state.window[name] = state.window.get(name, 0.0) + value
        state.window_steps += 1
        return state.step % self.steps == 0

    def flush(self, state: TrainerState, **facts: float) -> None:
        """Write `facts` and the means of the window, and start a new window."""
        means = {name: value / state.window_steps for name, value in state.window.items()}
        self.write({"step": state.step, **facts, **means, "seconds": round(state.elapsed, 2)})
        state.window, state.window_steps = {}, 0

    def write(self, line: dict[str, Any]) -> None:
        """Append a line."""
        if self.accelerator.is_main_process:
            with full_disk_named(self.path), open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        if self.trackers:
            self.accelerator.log({name: value for name, value in line.items() if name != "step"}, step=line["step"])

    def trim(self, step: int) -> None:
        """Drop the lines written after the checkpoint of a step, since those steps are repeated."""
        if not self.path.is_file():
            return
        kept = []
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line)
            except (ValueError, KeyError, TypeError):  # cut short by the crash, or damaged
                continue
        write_text(self.path, "".join(f"{line}\n" for line in kept))


class Trainer:
    """
    Train one task. A subclass defines `collate`, `compute_loss` and any other hooks it needs.

    Args:
        model: the task's model with its initial weights.
        arguments: all arguments of the run; `arguments.task.output_dir` must be set.
        splits: the data; without an evaluation split the last weights are kept.
        fingerprint: hash of everything beyond the arguments that affects results (data, initial weights); a checkpoint
            with another fingerprint is rejected.
        accelerator: built from the arguments if not given.
    """

    metric = "loss"  # value of `evaluate` that selects the best checkpoint
    greater_is_better = False
    undecayed: tuple[str, ...] = ()  # name endings of parameters without weight decay, beside biases and norms

    def __init__(
        self,
        model: Any,
        arguments: RunArguments,
        splits: Splits,
        fingerprint: str = "",
        accelerator: Accelerator | None = None,
    ):
        self.name, self.arguments, self.args, self.data = arguments.name, arguments, arguments.task, arguments.data
        if self.args.output_dir is None:
            raise ValueError("output_dir: got None; pass a folder for checkpoints")
        self.model, self.processor = model, splits.processor
        self.train_corpus, self.eval_corpus = splits.train, splits.evaluation
        self.fingerprint = fingerprint
        self.accelerator = accelerator or make_accelerator(arguments)
        self.device = self.accelerator.device
        self.rank, self.world = self.accelerator.process_index, self.accelerator.num_processes
        self.output_dir = Path(self.args.output_dir)
        self.checkpoints = CheckpointFolder(self.output_dir, self.args.save_total_limit)
        self.state = TrainerState()
        self.log = TrainingLog(
            self.output_dir / "log.jsonl", self.accelerator, self.args.logging_steps, bool(self.args.log_with)
        )
        self.setup()
        self.order = BatchOrder(
            self.row_lengths(), self.args.batch_size, self.args.seed, self.rank, self.world, self.args.bucket_batches
        )
        accumulation = self.args.gradient_accumulation_steps
        self.num_steps = self.args.num_steps or max(
            1, round(self.args.num_epochs * self.order.batches_per_epoch / accumulation)
        )
        self.eval_steps = self.args.eval_steps or max(1, math.ceil(self.num_steps / 10))
        self.save_steps = self.eval_steps if self.args.save_steps is None else self.args.save_steps
        self.warmup_steps = round(self.args.warmup_ratio * self.num_steps)
        self.prepare_schedules()

    # ---- hooks of a task ------------------------------------------------------------------------------------------

    def setup(self) -> None:
        """Build what `collate` needs; the number of steps is not yet known."""

    def prepare_schedules(self) -> None:
        """Build what depends on `num_steps`: schedules and controllers."""

    def row_lengths(self) -> Tensor:
        """Return the length of each training row, in the unit that padding costs: (R,)."""
        return torch.ones(len(self.train_corpus))

    def row_names(self, rows: Tensor) -> list[str]:
        """Return names of rows for messages."""
        return [str(row) for row in rows.tolist()]

    def parameter_groups(self) -> dict[str, tuple[str, float | None]]:
        """Return parameter name -> (group, peak rate); 0 freezes, None and missing names use `learning_rate`."""
        return {}

    def training_context(self) -> AbstractContextManager:
        """Wrap the training of the model on its device, up to the final weights."""
        return nullcontext()

    def trainable_state(self) -> dict[str, Tensor]:
        """Return the tensors of a checkpoint, on the CPU."""
        return unique_state(self.model)

    def load_trainable_state(self, state: dict[str, Tensor]) -> None:
        """Load the result of `trainable_state` in place."""
        load_unique_state(self.model, state)

    def collate(self, corpus: Any, rows: Tensor, random: BatchRandom, augment: bool) -> Batch:
        """Return the model's arguments for these rows of a split, on the CPU, as a pure function of the arguments."""
        raise NotImplementedError

    def compute_loss(self, model: torch.nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return named scalars; `loss` is minimised, and the global value is the mean over processes."""
        raise NotImplementedError

    def finished_model(self) -> Any:
        """Return the model to save: all of it, or the part that later tasks need."""
        return self.model

    def after_step(self, losses: dict[str, float]) -> None:
        """Update after each optimiser step (`self.state.step` includes it), given the step's mean values."""

    def phase_state(self) -> dict[str, Any]:
        """Return the JSON-safe state of `after_step`."""
        return {}

    def load_phase_state(self, state: dict[str, Any]) -> None:
        """Load the result of `phase_state`."""

    def evaluate(self) -> dict[str, float]:
        """Return the means of `compute_loss` over the evaluation split, unaugmented and with fixed masks."""
        totals: dict[str, float] = {}
        rows_seen = 0
        for count, batch in self.evaluation_batches():
            with self.accelerator.autocast():
                losses = self.compute_loss(self.model, batch)
            for name, value in mean_over_processes(losses, self.accelerator).items():
                totals[name] = totals.get(name, 0.0) + value * count
            rows_seen += count
        return {name: value / rows_seen for name, value in totals.items()}

    def acceptance(self) -> dict[str, float]:
        """Return acceptance figures beyond the loss, measured with the final weights on the evaluation split."""
        return {}

    # ---- the loop -------------------------------------------------------------------------------------------------

    def train(self) -> dict[str, Any]:
        """
        Run or resume the task; the model ends with its best (or last, or averaged) weights.

        Returns:
            `steps`, `best` (step and metric), the last `evaluation`, `seconds`, the reason if `stopped` early, and
            the `precision`, `"no"` or `"bf16"`.

        Raises:
            NonFiniteLossError: if a loss or gradient is NaN or infinite.
            ValueError: if output_dir contains checkpoints of a run with other arguments.
        """
        if self.accelerator.is_main_process:
            self.output_dir.mkdir(parents=True, exist_ok=True)
            for checkpoints in (self.checkpoints, CheckpointFolder(self.output_dir / "best")):
                checkpoints.clean()
        self.accelerator.wait_for_everyone()
        with self.ready() as (model, optimizer):
            self.run_steps(model, optimizer)
            self.load_final_weights()
        self.model = self.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
        self.model.eval()
        return {
            "steps": self.state.step,
            "best": self.state.best,
            "evaluation": self.state.last_evaluation,
            "seconds": round(self.state.elapsed, 1),
            "stopped": self.state.stopped,
            "precision": self.accelerator.mixed_precision,
        }

    @contextmanager
    def ready(self) -> Iterator[tuple[torch.nn.Module, Any]]:
        """Yield the prepared model and optimiser, resumed from the last checkpoint."""
        self.model.to(self.device)
        with self.training_context():
            self.optimizer = self.make_optimizer()
            self.average = None
            if self.args.ema_decay > 0:
                trainable = [(name, weight) for name, weight in self.model.named_parameters() if weight.requires_grad]
                self.average = WeightAverage(trainable, self.args.ema_decay)
            self.resume()
            yield self.accelerator.prepare(self.model, self.optimizer)

    def run_steps(self, model: torch.nn.Module, optimizer: Any) -> None:
        """Step, log, evaluate and save until the task ends."""
        if self.args.log_with:
            config = {
                name: value if isinstance(value, int | float | str | bool) else str(value)
                for name, value in self.arguments.to_dict().items()
                if value is not None
            }
            self.accelerator.init_trackers(f"lexmotion-{self.name}", config)
        started, before = time.monotonic(), self.state.elapsed
        progress = tqdm(
            total=self.num_steps,
            initial=self.state.step,
            desc=self.name,
            disable=not (self.args.progress and self.accelerator.is_main_process),
            dynamic_ncols=True,
        )
        accumulation = self.args.gradient_accumulation_steps
        finished = self.state.step >= self.num_steps or self.state.stopped is not None
        with progress, self.batches() as batches:
            while not finished:
                losses = self.step(model, optimizer, batches)
                self.state.elapsed = before + time.monotonic() - started
                finished = self.state.step >= self.num_steps
                if not finished and self.out_of_time():
                    finished, self.state.stopped = True, f"max_minutes={self.args.max_minutes}"
                    logger.warning(f"{self.name}: max_minutes reached at step {self.state.step} of {self.num_steps}")
                progress.update()
                shown = {name: f"{value:.3g}" for name, value in losses.items() if name != "grad_norm"}
                progress.set_postfix(shown, refresh=False)
                if self.log.gather(self.state, losses) or finished:
                    self.log.flush(
                        self.state,
                        epoch=round(self.state.step * accumulation / self.order.batches_per_epoch, 4),
                        learning_rate=max(group["lr"] for group in self.optimizer.param_groups),
                    )
                if self.eval_corpus is not None and (finished or self.state.step % self.eval_steps == 0):
                    self.choose_best()
                if self.save_steps and (finished or self.state.step % self.save_steps == 0):
                    self.save_checkpoint()
        if self.args.log_with:
            self.accelerator.end_training()

    def step(self, model: torch.nn.Module, optimizer: Any, batches: Iterator) -> dict[str, float]:
        """One optimiser step: forward and backward over the accumulated batches, clip, update, average."""
        self.model.train()
        factor = learning_rate_factor(
            self.state.step,
            self.num_steps,
            self.warmup_steps,
            self.args.lr_scheduler,
            self.args.min_learning_rate_ratio,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_learning_rate"] * factor
        accumulation = self.args.gradient_accumulation_steps
        means: dict[str, float] = {}
        seen: list[Tensor] = []
        for micro in range(accumulation):
            number = self.state.step * accumulation + micro
            rows, batch = next(batches)
            seen.append(rows)
            torch.manual_seed(derive_seed(self.args.seed, self.name, "dropout", number, self.rank))
            last = micro == accumulation - 1
            with nullcontext() if last else self.accelerator.no_sync(model):
                with self.accelerator.autocast():
                    losses = self.compute_loss(model, self.to_device(batch))
                values = mean_over_processes(losses, self.accelerator)
                if not all(math.isfinite(value) for value in values.values()):
                    raise NonFiniteLossError.of(self, values, seen)
                self.accelerator.backward(losses["loss"] / accumulation)
            for name, value in values.items():
                means[name] = means.get(name, 0.0) + value / accumulation
        parameters = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        limit = self.args.max_grad_norm or math.inf
        means["grad_norm"] = float(torch.nn.utils.clip_grad_norm_(parameters, limit))
        if not math.isfinite(means["grad_norm"]):
            raise NonFiniteLossError.of(self, means, seen)
        optimizer.step()
        optimizer.zero_grad()
        if self.average is not None:
            self.average.update(self.state.step)
        self.state.step += 1
        self.after_step(means)
        return means

    @contextmanager
    def batches(self) -> Iterator[Iterator[tuple[Tensor, Batch]]]:
        """Yield an iterator of (rows, batch) of the coming steps, prefetched by a thread if an accelerator is used."""
        first = self.state.step * self.args.gradient_accumulation_steps

        def assemble(number: int, whole: Tensor):
            seed = derive_seed(self.args.seed, self.name, "batch", number)
            random = BatchRandom(seed, self.order.batch_size, self.rank, self.world, whole)
            rows = random.own(whole)
            return rows, self.collate(self.train_corpus, rows, random, augment=True)

        def ahead(pool: ThreadPoolExecutor):
            pending: deque = deque()
            number = first
            while True:
                while len(pending) <= self.args.prefetch:
                    pending.append(pool.submit(assemble, number, self.order.batch(number)))
                    number += 1
                yield pending.popleft().result()

        def in_turn():
            number = first
            while True:
                yield assemble(number, self.order.batch(number))
                number += 1

        if self.device.type == "cpu" or self.args.prefetch < 1:
            yield in_turn()
        else:
            with ThreadPoolExecutor(max_workers=1) as pool:
                try:
                    yield ahead(pool)
                finally:
                    pool.shutdown(wait=True, cancel_futures=True)

    def make_optimizer(self) -> torch.optim.Optimizer:
        """AdamW with a learning rate per parameter group, see `parameter_groups` and `undecayed`."""
        named = self.parameter_groups()
        groups: dict[tuple[str, bool], dict[str, Any]] = {}
        for name, weight in self.model.named_parameters():
            if not weight.requires_grad:
                continue
            kind, rate = named.get(name, ("other", None))
            rate = self.args.learning_rate if rate is None else rate
            if rate == 0:
                weight.requires_grad_(False)
                continue
            decays = weight.ndim > 1 and not name.endswith(self.undecayed)
            decay = self.args.weight_decay if decays else 0.0
            group: dict[str, Any] = {"params": [], "lr": rate, "peak_learning_rate": rate, "weight_decay": decay}
            groups.setdefault((kind, decays), group)["params"].append(weight)
        if not groups:
            raise ValueError("learning_rate: all rates are 0, which freezes all weights; raise one of them")
        return torch.optim.AdamW(
            [groups[key] for key in sorted(groups)],
            lr=self.args.learning_rate,
            betas=(self.args.adam_beta1, self.args.adam_beta2),
            eps=self.args.adam_epsilon,
            fused=True,
        )

    # ---- helpers --------------------------------------------------------------------------------------------------

    def evaluation_batches(self, limit: int | None = None, shared: bool = True) -> Iterator[tuple[int, Batch]]:
        """
        Iterate over the evaluation split in order, unaugmented and with fixed masks.

        Args:
            limit: maximum number of rows.
            shared: split the rows over the processes, padding the last batch so that all take part in every
                collective; else every process gets all rows.

        Yields:
            Number of rows of the batch over all processes, and the model's arguments on the device.
        """
        rank, world = (self.rank, self.world) if shared else (0, 1)
        corpus, size = self.eval_corpus, self.args.eval_batch_size or self.args.batch_size
        total = min(len(corpus), limit or len(corpus))
        for number, start in enumerate(range(0, total, size)):
            count = min(size, total - start)
            wanted = -(-count // world) * world
            rows = (torch.arange(start, start + wanted) % len(corpus))[rank::world]
            random = BatchRandom(derive_seed("evaluation", self.name, number), wanted, rank, world)
            yield count, self.to_device(self.collate(corpus, rows, random, augment=False))

    def to_device(self, batch: Batch) -> Batch:
        return {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}

    def out_of_time(self) -> bool:
        if self.args.max_minutes is None:
            return False
        late = self.state.elapsed > 60.0 * self.args.max_minutes
        if self.world > 1:
            votes = torch.tensor(float(late and self.accelerator.is_main_process), device=self.device)
            late = bool(self.accelerator.reduce(votes, "sum") > 0)
        return late

    # ---- evaluation, log, checkpoints -----------------------------------------------------------------------------

    def choose_best(self) -> None:
        """Evaluate, and save the weights if they are the best so far."""
        self.model.eval()
        averaged = self.average.applied() if self.average is not None else nullcontext()
        with averaged, torch.no_grad():
            values = self.evaluate()
            self.state.last_evaluation = values
            if self.metric not in values:
                raise KeyError(f"{type(self).__name__}.evaluate: {sorted(values)} lacks {self.metric!r}; return it")
            value = values[self.metric]
            best = self.state.best
            sign = 1.0 if self.greater_is_better else -1.0
            if math.isfinite(value) and (best is None or sign * value > sign * best[self.metric]):
                self.state.best = {"step": self.state.step, **values}
                if self.args.load_best_model and self.accelerator.is_main_process:
                    CheckpointFolder(self.output_dir / "best", limit=1).save(
                        self.state.step, self.state.best, self.trainable_state()
                    )
        self.log.write({"step": self.state.step, **{f"eval_{name}": value for name, value in values.items()}})

    def save_checkpoint(self) -> None:
        """Save everything `resume` needs, on the main process."""
        if self.accelerator.is_main_process:
            state = {
                **vars(self.state),
                "phase": self.name,
                "precision": self.accelerator.mixed_precision,
                "phase_state": self.phase_state(),
                "arguments": self.arguments.defining(),
                "fingerprint": self.fingerprint,
            }
            self.checkpoints.save(
                self.state.step,
                state,
                self.trainable_state(),
                self.optimizer.state_dict(),
                self.average.state_dict() if self.average is not None else None,
            )
        self.accelerator.wait_for_everyone()

    def resume(self) -> None:
        """Continue from the newest intact checkpoint, or start with an empty log."""
        folder = self.checkpoints.latest() if self.args.resume else None
        if folder is None and self.args.resume and self.checkpoints.steps():
            step = self.checkpoints.steps()[-1]
            raise ValueError(
                f"{self.checkpoints.path(step)}: {self.checkpoints.fault(step)}, and no earlier checkpoint is intact; "
                "restore a copy, pass another output_dir, or discard the run with resume: false"
            )
        if folder is not None:
            saved = read_state(folder)
            ours = json.loads(json.dumps(self.arguments.defining()))
            old = saved["arguments"]
            changed = sorted(name for name in {*ours, *old} if ours.get(name, "(none)") != old.get(name, "(none)"))
            if changed or saved["fingerprint"] != self.fingerprint:
                what = ", ".join(f"{name} was {old.get(name)!r}, is {ours.get(name)!r}" for name in changed)
                raise ValueError(
                    f"{folder}: {what or 'the corpus or the initial weights differ'}; pass another output_dir, "
                    "restore the arguments, or start over with resume: false"
                )
            note_other_precision(folder, saved.get("precision"), self.accelerator.mixed_precision)
            self.load_trainable_state(read_tensors(folder, "model.safetensors"))
            self.optimizer.load_state_dict(read_optimizer(folder))
            if self.average is not None:
                self.average.load_state_dict(read_tensors(folder, "ema.safetensors"))
            self.load_phase_state(saved["phase_state"])
            self.state = TrainerState(**{name: saved[name] for name in vars(self.state)})
            if self.state.stopped is not None and not self.out_of_time():
                self.state.stopped = None  # more time was granted
            logger.info(f"{self.name}: resumed from {folder} at step {self.state.step} of {self.num_steps}")
        if self.accelerator.is_main_process:
            # Everything after the resumed step is damaged or will be computed again.
            self.checkpoints.discard_after(self.state.step)
            CheckpointFolder(self.output_dir / "best").discard_after(self.state.step)
            self.log.trim(self.state.step)
        self.accelerator.wait_for_everyone()

    def load_final_weights(self) -> None:
        """Load the best weights on the evaluation split, else the averaged weights, else keep the last."""
        best = CheckpointFolder(self.output_dir / "best", limit=1)
        if self.args.load_best_model and self.state.best is not None:
            self.accelerator.wait_for_everyone()
            step = self.state.best["step"]
            fault = best.fault(step)
            if fault is None:
                self.load_trainable_state(read_tensors(best.path(step), "model.safetensors"))
                return
            logger.warning(f"{best.path(step)}: {fault}; using the last weights instead of the best")
        if self.average is not None:
            self.average.copy_to_parameters()
