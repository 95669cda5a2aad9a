"""
Arguments of a run: dataclasses whose defaults a YAML recipe replaces and whose flags override the recipe.

Three layers, never mixed: architecture lives in the model configurations, the run in these dataclasses, and the
numbers of one result in a recipe (`training/recipes/*.yaml`). A recipe has top-level keys shared by all phases and one
section a phase:

```yaml
seed: 0
text_model: minilm
phases:
  lexmlm: {num_steps: 1000, learning_rate: 5.0e-5}
  lexcmlp: {num_steps: 2000, batch_size: 64}
```
"""

import dataclasses
import difflib
import json
import os
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from lexmotion.processing.skeletons import REPRESENTATIONS

PHASES = ("lexmlm", "cmmm", "lexmmm", "lexcmlp")
RECIPES = Path(__file__).parent / "recipes"
RECIPE_KEYS = ("name", "description", "phases", "baselines", "compare")  # a recipe's own; all else are arguments

# Options of a training that recipes held among the fields of a model, and the phase whose argument each is now.
MOVED_OPTIONS = {
    "model_config": {"false_negative_threshold": "lexcmlp", "hard_negative_beta": "lexcmlp"},
    "motion_config": {"contrast_temperature": "cmmm"},
}

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
class PhaseArguments:
    """One phase of training: optimisation, checkpoints, logging. A phase adds its own."""

    output_dir: str | None = argument(
        None, "Where checkpoints, the log and the phase's model are written.", volatile=True
    )
    seed: int = argument(0, "Seed of weights, batch order, augmentation, masks and dropout.")
    num_steps: int | None = argument(None, "Optimiser steps. Wins over num_epochs.")
    num_epochs: float = argument(10.0, "Passes over the split, used when num_steps is None.")
    batch_size: int = argument(
        128, "Clips (captions in phase i) in one global batch, split evenly over the processes."
    )
    bucket_batches: int = argument(
        0,
        "Sort the rows of so many batches by length before they are cut into batches. Much less is padded, but such "
        "batches are no fair sample, and a step teaches less. 0: off.",
    )
    gradient_accumulation_steps: int = argument(1, "Global batches summed into one optimiser step.")
    learning_rate: float = argument(1e-4, "Peak learning rate of everything not named below.")
    text_learning_rate: float | None = argument(None, "Peak rate of the text encoder. 0: frozen. None: learning_rate.")
    motion_learning_rate: float | None = argument(
        None, "Peak rate of the motion encoder. 0: frozen. None: learning_rate."
    )
    head_learning_rate: float | None = argument(
        None, "Peak rate of the lexical heads. 0: frozen. None: learning_rate."
    )
    decoder_learning_rate: float | None = argument(
        None, "Peak rate of the auxiliary decoders and projectors. 0: frozen. None: learning_rate."
    )
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
        "End the phase after this long, all sittings together; the steps taken are those of the full run.",
        volatile=True,
    )

    def __post_init__(self):
        positive = ("batch_size", "gradient_accumulation_steps", "logging_steps", "save_total_limit")
        for name in positive:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.num_steps is not None and self.num_steps < 1:
            raise ValueError(f"num_steps must be at least 1, got {self.num_steps}; skip the phase instead")
        if self.bucket_batches < 0:
            raise ValueError(f"bucket_batches must be 0 (off) or more, got {self.bucket_batches}")
        for name in ("warmup_ratio", "min_learning_rate_ratio", "ema_decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")


@dataclass
class LexMLMArguments(PhaseArguments):
    """Phase i, text only."""

    learning_rate: float = argument(5e-5, "Peak learning rate of everything not named below.")
    decoder_learning_rate: float | None = argument(5e-4, "Peak rate of the weak decoder. None: learning_rate.")
    lr_scheduler: Literal["cosine", "linear", "constant"] = argument("linear", "Decay after the warm-up.")
    num_epochs: float = argument(30.0, "Passes over the captions, used when num_steps is None.")
    batch_size: int = argument(256, "Captions in one global batch.")
    encoder_mask_ratio: float = argument(0.3, "Share of the words hidden from the encoder (LexMAE).")
    decoder_mask_ratio: float = argument(0.5, "Share of the words hidden from the decoder (LexMAE).")
    decoder_overlap: bool = argument(
        True, "The decoder's masks include the encoder's (LexMAE); else drawn apart (LexLIP)."
    )
    mask_weighting: Literal["uniform", "idf"] = argument("uniform", "Which words are masked more often.")
    decoder_loss_weight: float = argument(1.0, "Weight of the decoder's loss beside the encoder's.")


@dataclass
class CMMMArguments(PhaseArguments):
    """Phase ii, motion only."""

    learning_rate: float = argument(1.5e-4, "Peak learning rate of everything not named below.")
    weight_decay: float = argument(0.05, "AdamW decay; biases and normalisations are never decayed.")
    adam_beta2: float = argument(0.95, "AdamW beta 2.")
    num_epochs: float = argument(200.0, "Passes over the clips, used when num_steps is None.")
    batch_size: int = argument(256, "Clips in one global batch.")
    mask_ratio: float = argument(0.65, "Share of the tokens hidden from the student.")
    mask_kinds: list[str] = argument(["random", "tubes", "blocks"], "Mask kinds, mixed evenly.")
    contrast_temperature: float = argument(0.07, "Temperature of the student-teacher contrast (CMAE).")
    teacher_momentum: float = argument(0.996, "Momentum of the teacher at the start; it grows to 1 along a cosine.")
    velocity_loss_weight: float = argument(1.0, "Weight of the temporal-difference target.")
    contrastive_loss_weight: float = argument(1.0, "Weight of the student-teacher contrast. 0: reconstruction only.")
    reconstruction_loss_weight: float = argument(1.0, "Weight of position and velocity. 0: contrast only.")


@dataclass
class LexMMMArguments(PhaseArguments):
    """Phase iii, motion and captions."""

    text_learning_rate: float | None = argument(0.0, "Peak rate of the text encoder. 0: frozen. None: learning_rate.")
    head_learning_rate: float | None = argument(
        5e-5, "Peak rate of the lexical heads. 0: frozen. None: learning_rate."
    )
    num_epochs: float = argument(50.0, "Passes over the clips, used when num_steps is None.")
    mask_ratio: float = argument(0.5, "Share of the tokens hidden from the motion encoder.")
    decoder_motion_mask_ratio: float = argument(0.75, "Share of the tokens hidden from the weak motion decoder.")
    mask_kinds: list[str] = argument(["random", "tubes", "blocks"], "Mask kinds, mixed evenly.")
    encoder_mask_ratio: float = argument(0.3, "Share of the words hidden from the text encoder (its own masked LM).")
    decoder_mask_ratio: float = argument(0.5, "Share of the words hidden from the text decoder.")
    mask_weighting: Literal["uniform", "idf"] = argument("uniform", "Which words are masked more often.")
    caption_loss_weight: float = argument(1.0, "Weight of filling the caption from the motion's words (reading A).")
    motion_loss_weight: float = argument(0.5, "Weight of rebuilding the motion from its words (reading B).")
    bow_loss_weight: float = argument(0.2, "Weight of the bag-of-words grounding.")
    mlm_weight: float = argument(0.2, "Weight of the masked LM that keeps the words in place. 0: off.")


@dataclass
class AlignmentArguments(PhaseArguments):
    """What phase iv and the baselines share: captions and motions near each other, lexical vectors sparse."""

    captions_per_motion: int = argument(1, "Captions of each clip in a batch, 1 to 3.")
    caption_features: bool = argument(
        True,
        "Drop caption pairs that say the same from the denominators: sentence vectors of caption_feature_model.",
    )
    caption_feature_model: str | None = argument(
        None, "Encoder of those sentence vectors. None: text_model, or the text tower as this phase finds it."
    )
    initial_active_words: int | None = argument(
        256, "Mean active words both heads start with: their biases are shifted together. None: as they are."
    )
    text_flops_weight: float = argument(1e-3, "FLOPS weight of the captions after its warm-up.")
    motion_flops_weight: float = argument(2e-3, "FLOPS weight of the motions after its warm-up.")
    flops_warmup_ratio: float = argument(1 / 3, "Share of the steps over which the FLOPS weights grow quadratically.")
    text_target_words: int | None = argument(
        64, "Mean active words of a caption the controller holds. None: no control."
    )
    motion_target_words: int | None = argument(
        128, "Mean active words of a motion the controller holds. None: no control."
    )
    sparsity_interval: int = argument(50, "Steps between corrections of the FLOPS weights by 1.05 or 0.95.")

    def __post_init__(self):
        super().__post_init__()
        if not 1 <= self.captions_per_motion <= 3:
            raise ValueError(f"captions_per_motion must be 1, 2 or 3, got {self.captions_per_motion}")


@dataclass
class LexCMLPArguments(AlignmentArguments):
    """Phase iv, alignment."""

    text_learning_rate: float | None = argument(2e-5, "Peak rate of the text encoder. 0: frozen. None: learning_rate.")
    weight_decay: float = argument(0.1, "AdamW decay; biases and normalisations are never decayed.")
    num_epochs: float = argument(60.0, "Passes over the clips, used when num_steps is None.")
    ema_decay: float = argument(0.999, "Decay of the weight average that is evaluated and saved. 0: no average.")
    grounding_loss_weight: float = argument(
        0.0, "Weight of the contrast between motions and the bare content words of their captions (VDR). 0: off."
    )
    bow_loss_weight: float = argument(
        0.0, "Weight of phase iii's bag-of-words grounding, kept on: alignment alone wears the words off. 0: off."
    )
    order_loss_weight: float = argument(
        0.0, "Weight of telling a caption from itself with its events exchanged ('stands up, then sits down'). 0: off."
    )
    dense_loss_weight: float = argument(
        1.0, "Weight of the contrast of the dense vectors, of a model with dense_size, beside that of the words."
    )
    text_word_limits: list[int] | None = argument(
        None, "The finished model's captions have at least and at most so many words. None: all that are active."
    )
    motion_word_limits: list[int] | None = argument(None, "Likewise its motions.")
    motion_word_share: float | None = argument(
        None,
        "No word of the finished model is active in more than this share of the training motions. None: no limit.",
    )
    encoder_mask_ratio: float = argument(0.3, "Share of the words hidden in the masked LM.")
    mask_weighting: Literal["uniform", "idf"] = argument("uniform", "Which words are masked more often.")
    mlm_weight: float = argument(0.2, "Weight of the masked LM that keeps the words in place. 0: off.")
    false_negative_threshold: float | None = argument(
        0.6,
        "With caption_features: cosine above which two captions say the same (TMR). None: no caption does.",
    )
    hard_negative_beta: float | None = argument(
        None, "Weight of hard-negative reweighting in the contrast (0.15 in MGA-CLAP). None: off."
    )
    exclude_relatives: bool = argument(
        True,
        "No negatives are clips of one source (mirror twins, sub-ranges) and motions of which any caption is word for "
        "word the same.",
    )
    part_mix_probability: float = argument(
        0.0,
        "How often a clip takes some body parts from another of the batch (part CutMix); it is then a positive of the "
        "captions of both, by their shares. 0: off.",
    )
    token_drop_ratio: float = argument(0.0, "Share of the motion tokens hidden from the motion tower. 0: none.")
    caption_word_dropout: float = argument(0.0, "How often a word of the aligned caption becomes [MASK]. 0: never.")

    def __post_init__(self):
        super().__post_init__()
        for name in ("part_mix_probability", "caption_word_dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a probability in [0, 1], got {getattr(self, name)}")
        for name in ("text_word_limits", "motion_word_limits"):
            limits = getattr(self, name)
            if limits is not None and (len(limits) != 2 or not 0 <= limits[0] <= limits[1]):
                raise ValueError(f"{name} is least, most with 0 <= least <= most, got {limits}")
        if self.motion_word_share is not None and not 0 < self.motion_word_share < 1:
            raise ValueError(f"motion_word_share must lie in (0, 1), got {self.motion_word_share}")
        if not 0 <= self.token_drop_ratio < 1:
            raise ValueError(f"token_drop_ratio must lie in [0, 1), got {self.token_drop_ratio}")


@dataclass
class BaselineArguments(AlignmentArguments):
    """A baseline: one training, no phases before it."""

    system: Literal["temos", "t2m", "tmr", "motion_patches"] = argument("motion_patches", "Which baseline.")
    vectors: Literal["dense", "lexicon"] = argument(
        "dense", "What is compared: dense embeddings as published, or lexical vectors in their place (dagger rows)."
    )
    baseline_config: dict | None = argument(
        None, "Fields of the baseline's configuration (JSON); features and frames are filled in from the processor."
    )
    ema_decay: float = argument(0.0, "Decay of the weight average that is evaluated and saved. 0: no average.")


PHASE_ARGUMENTS: dict[str, type[PhaseArguments]] = {
    "lexmlm": LexMLMArguments,
    "cmmm": CMMMArguments,
    "lexmmm": LexMMMArguments,
    "lexcmlp": LexCMLPArguments,
    "baseline": BaselineArguments,
}


@dataclass
class RunArguments:
    """All arguments of one phase."""

    model: ModelArguments
    data: DataArguments
    phase: PhaseArguments

    def __post_init__(self):
        kinds = [(fields or {}).get("head_kind") for fields in (self.model.text_config, self.model.motion_config)]
        if getattr(self.phase, "motion_word_share", None) is not None and "vdr" in kinds:
            raise ValueError(
                "motion_word_share cannot be kept by head_kind 'vdr', whose words are never zero; leave one out"
            )

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self.model), **vars(self.data), **vars(self.phase)}

    def defining(self) -> dict[str, Any]:
        """The arguments that decide the numbers of a run; a run may only resume under equal ones."""
        return {
            item.name: getattr(part, item.name)
            for part in (self.model, self.data, self.phase)
            for item in dataclasses.fields(part)
            if not item.metadata.get("volatile") and not item.name.startswith("init_")
        }


def _plain_type(hint: Any) -> tuple[Any, bool]:
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
    kind, optional = _plain_type(hint)
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


def with_moved_options(phase: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """
    The values of a recipe or of a finished run, its training options where they are arguments today.

    `false_negative_threshold`, `hard_negative_beta` and `contrast_temperature` were fields of the model
    configurations; a phase takes those that are its own and leaves the others out.
    """
    values = dict(values)
    for section, owners in MOVED_OPTIONS.items():
        fields = convert(section, values.get(section), dict | None)
        if fields and not owners.keys().isdisjoint(fields):
            own = {name: value for name, value in fields.items() if owners.get(name) == phase}
            values = {**own, **values, section: {k: v for k, v in fields.items() if k not in owners} or None}
    return values


def run_arguments(phase: str, values: dict[str, Any]) -> RunArguments:
    """
    The arguments of one phase from a flat mapping.

    Raises:
        ValueError: an unknown phase, an unknown key (with the nearest known one), or a value of the wrong type.
    """
    if phase not in PHASE_ARGUMENTS:
        raise ValueError(f"unknown phase {phase!r}; the phases are {', '.join(PHASE_ARGUMENTS)}")
    values = with_moved_options(phase, values)
    parts = (ModelArguments, DataArguments, PHASE_ARGUMENTS[phase])
    known = {item.name for part in parts for item in dataclasses.fields(part)}
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{phase} has no argument {name!r}{hint}")
    model, data, arguments = (build(part, values) for part in parts)
    return RunArguments(model, data, arguments)  # type: ignore[arg-type]


def load_recipe(recipe: str | os.PathLike | dict) -> dict[str, Any]:
    """
    A recipe as a mapping: by name (`tiny`, `small`, `base`), by path of a YAML file, or as it is.

    Raises:
        FileNotFoundError: neither a known name nor a file.
        ValueError: not a mapping, or a section of an unknown phase.
    """
    if isinstance(recipe, dict):
        content = json.loads(json.dumps(recipe))
    else:
        path = Path(recipe)
        if not path.is_file():
            path = RECIPES / f"{recipe}.yaml"
        if not path.is_file():
            known = ", ".join(sorted(file.stem for file in RECIPES.glob("*.yaml")))
            raise FileNotFoundError(f"no recipe {str(recipe)!r}: neither a YAML file nor one of {known}")
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        content.setdefault("name", path.stem)
    if not isinstance(content, dict):
        raise ValueError(f"a recipe is a mapping, got {type(content).__name__}")
    unknown = set(content.get("phases") or {}) - set(PHASES)
    if unknown:
        raise ValueError(f"unknown phases {sorted(unknown)} in the recipe; the phases are {', '.join(PHASES)}")
    return content


def apply_overrides(recipe: dict[str, Any], overrides: dict[str, Any] | list[str] | None) -> dict[str, Any]:
    """
    A copy of the recipe with dotted keys replaced.

    Args:
        overrides: `{"phases.lexcmlp.num_steps": 100}` or `["lexcmlp.num_steps=100"]`; `phases.` may be left out, and
            strings are read as YAML. A phase set to `false` is skipped.

    Raises:
        ValueError: an override without `=`, or a path through something that is not a mapping.
    """
    recipe = json.loads(json.dumps(recipe))
    if isinstance(overrides, list | tuple):
        pairs = [item.partition("=") for item in overrides]
        for key, separator, _ in pairs:
            if not separator:
                raise ValueError(f"an override is key=value, got {key!r}")
        overrides = {key: value for key, _, value in pairs}
    for key, value in (overrides or {}).items():
        *path, last = key.split(".")
        if (path or [last])[0] in PHASES:
            path = ["phases", *path]
        value = yaml.safe_load(value) if isinstance(value, str) else value
        node = recipe
        for depth, name in enumerate(path):
            if node.get(name) is None:
                node[name] = {}
            node = node[name]
            if not isinstance(node, dict):
                raise ValueError(f"cannot set {key}: {'.'.join(path[: depth + 1])} is {node!r}, not a section")
        node[last] = value
    return recipe


def phase_values(recipe: dict[str, Any], phase: str) -> dict[str, Any] | None:
    """
    The flat values of one phase: top-level keys under the phase's own. None when the recipe skips the phase.

    A top-level key that only other phases know is left out; `RECIPE_KEYS` are the recipe's own.
    """
    if "phases" not in recipe:
        return {name: value for name, value in recipe.items() if name not in RECIPE_KEYS}
    section = (recipe["phases"] or {}).get(phase, False)
    if section is False:
        return None
    if section is None:
        section = {}
    if section.get("skip"):
        return None
    own = {name: value for name, value in section.items() if name != "skip"}
    return {**_shared_values(recipe, phase), **own}


def baseline_values(recipe: dict[str, Any], system: str, vectors: str = "dense") -> dict[str, Any]:
    """
    The flat values of a baseline: the recipe's top-level keys under those of its section `baselines`.

    Args:
        system: `temos`, `t2m`, `tmr` or `motion_patches`. vectors: `dense` or `lexicon`.

    Raises:
        ValueError: the recipe has no such baseline.
    """
    sections = recipe.get("baselines") or {}
    if system not in sections:
        raise ValueError(
            f"the recipe {recipe.get('name')!r} has no baseline {system!r}, only {', '.join(sections) or 'none'}"
        )
    shared = _shared_values(recipe, "baseline")
    for name in ("text_config", "motion_config", "model_config"):  # LexMotion's sizes, which no baseline reads
        shared.pop(name, None)
    return {**shared, "system": system, "vectors": vectors, **(sections[system] or {})}


def _shared_values(recipe: dict[str, Any], phase: str) -> dict[str, Any]:
    """Top-level values that `phase` knows, and those that nobody knows, to be reported."""

    def known(*phases: str) -> set[str]:
        parts = (ModelArguments, DataArguments, *(PHASE_ARGUMENTS[name] for name in phases))
        return {item.name for part in parts for item in dataclasses.fields(part)}

    here, everywhere = known(phase), known(*PHASE_ARGUMENTS)
    return {
        name: value
        for name, value in recipe.items()
        if name not in RECIPE_KEYS and (name in here or name not in everywhere)
    }


def parse_arguments(phase: str, argv: list[str] | None = None) -> RunArguments:
    """
    Arguments of `python -m lexmotion.training.<phase>`: `--config recipe.yaml` gives defaults, flags override them.

    Example:
        >>> parse_arguments("lexcmlp", ["--num_steps", "10", "--learning_rate", "1e-3"]).phase.learning_rate
        0.001
    """
    import argparse

    parser = argparse.ArgumentParser(prog=f"lexmotion.training.{phase}", description=PHASE_ARGUMENTS[phase].__doc__)
    parser.add_argument("--config", help="A recipe by name or path; every other flag overrides it.")
    for part in (ModelArguments, DataArguments, PHASE_ARGUMENTS[phase]):
        group = parser.add_argument_group(part.__name__, (part.__doc__ or "").strip().splitlines()[0])
        hints = typing.get_type_hints(part)
        for item in dataclasses.fields(part):
            flags = dict.fromkeys((f"--{item.name}", f"--{item.name.replace('_', '-')}"))
            kind, _ = _plain_type(hints[item.name])
            options: dict[str, Any] = {"help": item.metadata["help"].replace("%", "%%"), "default": argparse.SUPPRESS}
            if kind is bool:
                options.update(nargs="?", const=True, metavar="BOOL")
            elif typing.get_origin(kind) is list:
                options.update(nargs="*")
            group.add_argument(*flags, dest=item.name, **options)
    flags_given = vars(parser.parse_args(argv))
    recipe = flags_given.pop("config")
    if recipe is None:
        values: dict[str, Any] | None = {}
    elif phase == "baseline":
        values = baseline_values(load_recipe(recipe), flags_given.get("system", BaselineArguments.system))
    else:
        values = phase_values(load_recipe(recipe), phase)
    if values is None:
        raise ValueError(f"the recipe {recipe!r} skips {phase}; add the section or leave --config out")
    return run_arguments(phase, {**values, **flags_given})
