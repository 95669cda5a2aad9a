"""Arguments of a run as dataclasses with help texts, and the conversion of values from YAML and the command line."""

import dataclasses
import json
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from lexmotion.processing.skeletons import REPRESENTATIONS

Dataclass = TypeVar("Dataclass")


_ALWAYS = object()


def argument(default: Any, help: str, volatile: bool = False, before: Any = _ALWAYS) -> Any:  # noqa: A002
    """
    Return a dataclass field with a help text.

    Args:
        default: default value; a `list` or `dict` is copied for every instance.
        help: what the argument does, its unit and its source.
        volatile: the argument (a path, logging) does not affect the results and may differ when a run resumes.
        before: for an argument added later, the value that means what earlier versions did, so that their runs resume.
    """
    metadata = {"help": help, "volatile": volatile, "before": before}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class ModelArguments:
    """The model: its architecture and initial weights."""

    text_model: str | None = argument(
        None, "Pretrained text encoder: a folder, a Hub id or an alias such as minilm. None: random weights."
    )
    text_config: dict | None = argument(
        None,
        "Fields of LexMotionTextConfig (JSON). With text_model they replace the pretrained values, except for "
        "encoder_config; without it, encoder_config defines the random encoder (vocabulary size is filled in).",
    )
    motion_config: dict | None = argument(
        None, "Fields of LexMotionMotionConfig (JSON); features, parts and vocabulary come from the processor."
    )
    model_config: dict | None = argument(None, "Further fields of LexMotionConfig (JSON), e.g. temperature.")
    init_text: str | None = argument(None, "Folder of a finished phase i; initializes the text tower.")
    init_motion: str | None = argument(None, "Folder of a finished phase ii; initializes the motion tower.")
    init_model: str | None = argument(None, "Folder of a finished phase iii; initializes both towers.")


@dataclass
class DataArguments:
    """The data and its augmentation."""

    dataset: str | None = argument(None, "Prepared folder: `data/*.parquet` and `processor/`.", volatile=True)
    train_split: str = argument("train", "Split to train on.")
    eval_split: str | None = argument("validation", "Split that selects the checkpoint. None: no evaluation.")
    representation: str | None = argument(
        None,
        "Motion representation: positions, humanml3d or joint_angles, with statistics refitted on the training "
        "motions. None: that of the prepared processor.",
    )
    max_text_length: int = argument(40, "Maximum caption length in word pieces, including special tokens.")
    extra_captions: str | None = argument(
        None,
        "Additional captions for phase i: a .txt with one per line, or a .jsonl with `captions` and optionally `id`. "
        "Ids that occur in another split are left out.",
    )
    mirror_probability: float = argument(0.5, "Probability of mirroring a clip together with its caption.")
    crop_ratio: float = argument(0.8, "Shortest random temporal crop, as a share of the clip. 1: no crop.")
    speed_range: float = argument(0.1, "Playback speed is drawn from 1 -+ this value. 0: as recorded.")
    position_jitter: float = argument(0.0, "Standard deviation of noise on joint positions, in the corpus's unit.")
    feature_noise: float = argument(0.0, "Standard deviation of noise on the normalised features. 0: off.")

    def __post_init__(self):
        if self.representation is not None and self.representation not in REPRESENTATIONS:
            known = ", ".join(REPRESENTATIONS)
            raise ValueError(f"representation: got {self.representation!r}; pass one of {known}, or none")


@dataclass
class NoArguments:
    """No arguments, for tasks whose model or data has no options."""


@dataclass
class TaskArguments:
    """Optimisation, checkpoints and logging, shared by all tasks."""

    output_dir: str | None = argument(None, "Folder for checkpoints, the log and the trained model.", volatile=True)
    seed: int = argument(0, "Seed of weights, batch order, augmentation, masks and dropout.")
    num_steps: int | None = argument(None, "Optimiser steps. Takes precedence over num_epochs.")
    num_epochs: float = argument(10.0, "Passes over the split, used if num_steps is None.")
    batch_size: int = argument(128, "Rows (clips; captions in phase i) per global batch, split over the processes.")
    bucket_batches: int = argument(
        0,
        "Number of batches whose rows are sorted by length together. This saves padding, but the batches are no "
        "longer random samples, and each step learns less. 0: off.",
    )
    gradient_accumulation_steps: int = argument(1, "Global batches per optimiser step.")
    learning_rate: float = argument(1e-4, "Peak learning rate of all parameters without a rate of their own.")
    weight_decay: float = argument(0.01, "AdamW weight decay; biases and normalisation layers are exempt.")
    adam_beta1: float = argument(0.9, "AdamW beta 1.")
    adam_beta2: float = argument(0.999, "AdamW beta 2.")
    adam_epsilon: float = argument(1e-8, "AdamW epsilon.")
    max_grad_norm: float = argument(1.0, "Maximum gradient norm for clipping. 0: no clipping.")
    lr_scheduler: Literal["cosine", "linear", "constant"] = argument("cosine", "Decay after the warm-up.")
    warmup_ratio: float = argument(0.1, "Share of the steps used for linear warm-up.")
    min_learning_rate_ratio: float = argument(0.0, "Final learning rate as a share of the peak.")
    mixed_precision: Literal["no", "bf16", "auto"] = argument(
        "no",
        "bf16: autocast the forward pass; weights stay float32. auto: bf16 if the processor multiplies it faster than "
        "float32, otherwise no.",
    )
    use_cpu: bool = argument(False, "Train on the CPU even if an accelerator is available.")
    ema_decay: float = argument(0.0, "Decay of the weight average that is evaluated and saved. 0: no average.")
    eval_steps: int | None = argument(None, "Steps between evaluations. None: ten per run.")
    eval_batch_size: int | None = argument(None, "Global batch size of the evaluation. None: batch_size.")
    load_best_model: bool = argument(True, "End with the weights that are best on eval_split instead of the last.")
    save_steps: int | None = argument(None, "Steps between checkpoints. None: eval_steps. 0: none.", volatile=True)
    save_total_limit: int = argument(2, "Newest checkpoints to keep, beside the best weights.", volatile=True)
    resume: bool = argument(True, "Continue from the newest intact checkpoint in output_dir.", volatile=True)
    logging_steps: int = argument(10, "Steps per line of log.jsonl, which holds their means.", volatile=True)
    log_with: list[str] = argument([], "Accelerate trackers: tensorboard, trackio.", volatile=True)
    progress: bool = argument(True, "Show a progress bar.", volatile=True)
    prefetch: int = argument(2, "Batches prefetched by a thread if an accelerator is used.", volatile=True)
    max_minutes: float | None = argument(
        None, "Stop after this many minutes in total, resumed runs included; schedules are unaffected.", volatile=True
    )

    def __post_init__(self):
        for name in ("batch_size", "gradient_accumulation_steps", "logging_steps", "save_total_limit"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}; pass at least 1")
        if self.num_steps is not None and self.num_steps < 1:
            raise ValueError(f"num_steps: got {self.num_steps}; pass at least 1, or skip the task")
        if self.bucket_batches < 0:
            raise ValueError(f"bucket_batches: got {self.bucket_batches}; pass 0 (off) or more")
        for name in ("warmup_ratio", "min_learning_rate_ratio", "ema_decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: got {getattr(self, name)}; pass a value in [0, 1]")

    def check(self, run: "RunArguments") -> None:
        """Raise a ValueError if values conflict with those of the model or the data."""


@dataclass
class RunArguments:
    """
    All arguments of one run.

    Args:
        name: name of the task.
        model, data, task: arguments of the model, of the data, and of the training.
    """

    name: str
    model: Any
    data: Any
    task: Any

    def __post_init__(self):
        self.task.check(self)

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self.model), **vars(self.data), **vars(self.task)}

    def defining(self) -> dict[str, Any]:
        """Return the arguments that decide the results; a run resumes only if they are equal."""
        return {
            item.name: getattr(part, item.name)
            for part in (self.model, self.data, self.task)
            for item in dataclasses.fields(part)
            if not item.metadata.get("volatile")
            and not item.name.startswith("init_")
            and getattr(part, item.name) != item.metadata.get("before", _ALWAYS)
        }

    def handed_on(self) -> dict[str, str]:
        """Return the folders of earlier tasks that initialize the model: `init_...` -> folder."""
        return {name: value for name, value in vars(self.model).items() if name.startswith("init_") and value}


def plain_type(hint: Any) -> tuple[Any, bool]:
    """Split a type hint: `X | None` -> (X, True); `X` -> (X, False)."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        choices = [choice for choice in typing.get_args(hint) if choice is not type(None)]
        return choices[0], len(choices) < len(typing.get_args(hint))
    return hint, False


def convert(name: str, value: Any, hint: Any) -> Any:
    """
    Convert a value from YAML or the command line to the type of its field.

    Floats that YAML 1.1 reads as strings (`1e-4`) or integers (`5`) are converted; `none` and `null` are None for an
    optional field. Raises a ValueError if the value does not fit the type.
    """
    kind, optional = plain_type(hint)
    if value is None or (isinstance(value, str) and optional and value.lower() in ("none", "null")):
        if not optional:
            raise ValueError(f"{name}: got {value!r}; pass a value, or leave it out for the default")
        return None
    origin = typing.get_origin(kind)
    try:
        if origin is Literal:
            if value is False and "no" in typing.get_args(kind):  # YAML 1.1 reads `no` as false
                value = "no"
            if value not in typing.get_args(kind):
                raise ValueError(f"pass one of {', '.join(map(str, typing.get_args(kind)))}")
            return value
        if origin is list:
            items = value if isinstance(value, list | tuple) else [item for item in str(value).split(",") if item]
            return [convert(name, item, typing.get_args(kind)[0]) for item in items]
        if kind is dict:
            value = json.loads(value) if isinstance(value, str) else value
            if not isinstance(value, dict):
                raise ValueError("pass a mapping, as JSON on the command line")
            return value
        if kind is bool:
            if isinstance(value, str):
                if value.lower() not in ("true", "false", "yes", "no", "1", "0"):
                    raise ValueError("pass true or false")
                return value.lower() in ("true", "yes", "1")
            return bool(value)
        if kind is int:
            if float(value) != int(float(value)):
                raise ValueError("pass a whole number")
            return int(float(value))
        return kind(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: got {value!r}, not a valid {getattr(kind, '__name__', kind)}; {error}") from error


def build(cls: type[Dataclass], values: dict[str, Any]) -> Dataclass:
    """Build a dataclass from those values that are its fields; `run_arguments` reports unknown ones."""
    hints = typing.get_type_hints(cls)
    names = {item.name for item in dataclasses.fields(cls)}  # type: ignore[arg-type]
    return cls(**{name: convert(name, value, hints[name]) for name, value in values.items() if name in names})
