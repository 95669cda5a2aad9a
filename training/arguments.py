"""Arguments of a run: dataclasses whose fields carry a help text, and the conversion of what YAML and flags give."""

import dataclasses
import json
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from lexmotion.processing.skeletons import REPRESENTATIONS

Dataclass = TypeVar("Dataclass")


def argument(default: Any, help: str, volatile: bool = False) -> Any:  # noqa: A002
    """
    A dataclass field with a help text.

    Args:
        default: value, or a `list`/`dict` that every instance copies.
        help: what the argument does, its unit and its source.
        volatile: the argument changes no number of the run (paths, logging), so it may differ when a run resumes.
    """
    metadata = {"help": help, "volatile": volatile}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class ModelArguments:
    """What is trained: the architecture, and where the weights come from."""

    text_model: str | None = argument(
        None,
        "Pretrained text encoder: a folder, a Hub id, or a name `resolve_text_model` knows. None: random weights.",
    )
    text_config: dict | None = argument(
        None,
        "Fields of LexMotionTextConfig (JSON). With text_model they replace those of the pretrained model, except "
        "encoder_config; without it encoder_config gives the random encoder, vocabulary size filled in.",
    )
    motion_config: dict | None = argument(
        None,
        "Fields of LexMotionMotionConfig (JSON); features, parts and vocabulary are filled in from the processor.",
    )
    model_config: dict | None = argument(None, "Further fields of LexMotionConfig (JSON), e.g. temperature.")
    init_text: str | None = argument(None, "Folder of a finished phase i: the text tower starts from it.")
    init_motion: str | None = argument(None, "Folder of a finished phase ii: the motion tower starts from it.")
    init_model: str | None = argument(None, "Folder of a finished phase iii: both towers start from it.")


@dataclass
class DataArguments:
    """What is read, and how a clip varies from one epoch to the next."""

    dataset: str | None = argument(None, "Prepared folder: `data/*.parquet` and `processor/`.", volatile=True)
    train_split: str = argument("train", "Split that is trained on.")
    eval_split: str | None = argument("validation", "Split that chooses the checkpoint; None: no evaluation.")
    representation: str | None = argument(
        None,
        "What the processor makes of a motion: positions, humanml3d or joint_angles, refitted on the training "
        "motions. None: the prepared processor's own.",
    )
    max_text_length: int = argument(40, "Longest caption in word pieces, special tokens included.")
    extra_captions: str | None = argument(
        None,
        "Further captions for phase i, beside the prepared folder's: a .txt with one a line, or a .jsonl with "
        "`captions` and optionally `id`. Ids held by another split are left out.",
    )
    mirror_probability: float = argument(0.5, "How often a clip is mirrored together with its caption.")
    crop_ratio: float = argument(0.8, "Shortest random temporal crop, as a share of the clip. 1: no crop.")
    speed_range: float = argument(0.1, "Clips play at a speed drawn from 1 -+ this. 0: as recorded.")
    position_jitter: float = argument(0.0, "Standard deviation of noise on the joint positions, in the corpus's unit.")
    feature_noise: float = argument(
        0.0, "Standard deviation of noise on the normalised features, in their standard deviations. 0: off."
    )

    def __post_init__(self):
        if self.representation is not None and self.representation not in REPRESENTATIONS:
            known = ", ".join(REPRESENTATIONS)
            raise ValueError(
                f"representation must be one of {known}, or none for the prepared processor's own; got "
                f"{self.representation!r}"
            )


@dataclass
class NoArguments:
    """A task whose model or data has nothing to choose."""


@dataclass
class TaskArguments:
    """Training, whatever the model: optimisation, checkpoints, logging. A task adds its own."""

    output_dir: str | None = argument(
        None, "Where checkpoints, the log and the trained model are written.", volatile=True
    )
    seed: int = argument(0, "Seed of weights, batch order, augmentation, masks and dropout.")
    num_steps: int | None = argument(None, "Optimiser steps. Wins over num_epochs.")
    num_epochs: float = argument(10.0, "Passes over the split, used when num_steps is None.")
    batch_size: int = argument(
        128, "Rows (clips; captions in phase i) in one global batch, split evenly over the processes."
    )
    bucket_batches: int = argument(
        0,
        "Sort the rows of so many batches by length before they are cut into batches. Much less is padded, but such "
        "batches are no fair sample, and a step teaches less. 0: off.",
    )
    gradient_accumulation_steps: int = argument(1, "Global batches summed into one optimiser step.")
    learning_rate: float = argument(1e-4, "Peak learning rate of everything not named below.")
    weight_decay: float = argument(0.01, "AdamW decay; biases and normalisations are never decayed.")
    adam_beta1: float = argument(0.9, "AdamW beta 1.")
    adam_beta2: float = argument(0.999, "AdamW beta 2.")
    adam_epsilon: float = argument(1e-8, "AdamW epsilon.")
    max_grad_norm: float = argument(1.0, "Gradients are clipped to this norm. 0: not clipped.")
    lr_scheduler: Literal["cosine", "linear", "constant"] = argument("cosine", "Decay after the warm-up.")
    warmup_ratio: float = argument(0.1, "Share of the steps that warm up linearly.")
    min_learning_rate_ratio: float = argument(0.0, "Where the decay ends, as a share of the peak.")
    mixed_precision: Literal["no", "bf16"] = argument("no", "bf16: autocast the forward pass; weights stay float32.")
    use_cpu: bool = argument(False, "Stay on the CPU where an accelerator is present.")
    ema_decay: float = argument(0.0, "Decay of the weight average that is evaluated and saved. 0: no average.")
    eval_steps: int | None = argument(None, "Steps between evaluations. None: ten a run.")
    eval_batch_size: int | None = argument(None, "Global batch of the evaluation. None: batch_size.")
    load_best_model: bool = argument(
        True, "End with the weights that were best on eval_split, not with the last ones."
    )
    save_steps: int | None = argument(None, "Steps between checkpoints. None: as eval_steps. 0: none.", volatile=True)
    save_total_limit: int = argument(
        2, "Newest checkpoints kept; the best weights are kept beside them.", volatile=True
    )
    resume: bool = argument(True, "Continue from the newest sound checkpoint in output_dir.", volatile=True)
    logging_steps: int = argument(
        10, "Steps between lines of log.jsonl; each holds the mean since the last.", volatile=True
    )
    log_with: list[str] = argument([], "Accelerate trackers: tensorboard, trackio.", volatile=True)
    progress: bool = argument(True, "Show a progress bar.", volatile=True)
    prefetch: int = argument(2, "Batches assembled ahead in a thread when an accelerator is used.", volatile=True)
    max_minutes: float | None = argument(
        None,
        "End the task after this long, all sittings together; the steps taken are those of the full run.",
        volatile=True,
    )

    def __post_init__(self):
        positive = ("batch_size", "gradient_accumulation_steps", "logging_steps", "save_total_limit")
        for name in positive:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.num_steps is not None and self.num_steps < 1:
            raise ValueError(f"num_steps must be at least 1, got {self.num_steps}; skip the task instead")
        if self.bucket_batches < 0:
            raise ValueError(f"bucket_batches must be 0 (off) or more, got {self.bucket_batches}")
        for name in ("warmup_ratio", "min_learning_rate_ratio", "ema_decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")

    def check(self, run: "RunArguments") -> None:
        """Refuse values that do not go together with those of the model and the data, by a ValueError."""


@dataclass
class RunArguments:
    """
    All arguments of one run of a task.

    Args:
        name: of the task. model, data, task: what is trained, what is read, and how.
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
        """The arguments that decide the numbers of a run; a run may only resume under equal ones."""
        return {
            item.name: getattr(part, item.name)
            for part in (self.model, self.data, self.task)
            for item in dataclasses.fields(part)
            if not item.metadata.get("volatile") and not item.name.startswith("init_")
        }

    def handed_on(self) -> dict[str, str]:
        """Result folders of earlier tasks that the model starts from: `init_...` -> folder."""
        return {name: value for name, value in vars(self.model).items() if name.startswith("init_") and value}


def plain_type(hint: Any) -> tuple[Any, bool]:
    """`X | None` -> (X, True); `X` -> (X, False)."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        choices = [choice for choice in typing.get_args(hint) if choice is not type(None)]
        return choices[0], len(choices) < len(typing.get_args(hint))
    return hint, False


def convert(name: str, value: Any, hint: Any) -> Any:
    """
    A value from YAML or the command line as the type of its field.

    YAML 1.1 reads `1e-4` as a string and `5` where `5.0` is meant; both are converted. `none` and `null` mean None for
    an optional field.

    Raises:
        ValueError: the value cannot be the field's type.
    """
    kind, optional = plain_type(hint)
    if value is None or (isinstance(value, str) and optional and value.lower() in ("none", "null")):
        if not optional:
            raise ValueError(f"{name} may not be empty; leave it out to take the default")
        return None
    origin = typing.get_origin(kind)
    try:
        if origin is Literal:
            if value is False and "no" in typing.get_args(kind):  # YAML 1.1 reads `no` as false
                value = "no"
            if value not in typing.get_args(kind):
                raise ValueError(f"not one of {', '.join(map(str, typing.get_args(kind)))}")
            return value
        if origin is list:
            items = value if isinstance(value, list | tuple) else [item for item in str(value).split(",") if item]
            return [convert(name, item, typing.get_args(kind)[0]) for item in items]
        if kind is dict:
            value = json.loads(value) if isinstance(value, str) else value
            if not isinstance(value, dict):
                raise ValueError("not a mapping")
            return value
        if kind is bool:
            if isinstance(value, str):
                if value.lower() not in ("true", "false", "yes", "no", "1", "0"):
                    raise ValueError("not true or false")
                return value.lower() in ("true", "yes", "1")
            return bool(value)
        if kind is int:
            if float(value) != int(float(value)):
                raise ValueError("not a whole number")
            return int(float(value))
        return kind(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}={value!r} is not a valid {getattr(kind, '__name__', kind)}: {error}") from error


def build(cls: type[Dataclass], values: dict[str, Any]) -> Dataclass:
    """A dataclass from the values that belong to it; the others are ignored here (see `run_arguments`)."""
    hints = typing.get_type_hints(cls)
    names = {item.name for item in dataclasses.fields(cls)}  # type: ignore[arg-type]
    return cls(**{name: convert(name, value, hints[name]) for name, value in values.items() if name in names})
