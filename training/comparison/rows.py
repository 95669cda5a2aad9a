"""
The rows of a comparison.

A row is a system, or LexMotion with changes to the recipe, given by dotted keys (`apply_overrides`) that are checked
when the row is run.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lexmotion import LexMotionConfig, LexMotionMotionConfig, LexMotionTextConfig

from ..recipe import run_arguments, task_values
from ..tasks import PHASES, TASKS
from ..tasks.baseline import SYSTEMS
from .paper import TABLE_2

CONFIGS = {"model_config": LexMotionConfig, "text_config": LexMotionTextConfig, "motion_config": LexMotionMotionConfig}
LEXICAL_BASELINES = ("tmr", "motion_patches")  # the paper also gives these lexical vectors (rows marked with a dagger)
BASELINE = ("baseline",)  # the only training of a baseline
REFERENCE = "lexmotion"  # reference row of the ablations


@dataclass(frozen=True)
class Option:
    """
    A value of the recipe that a row toggles: off if the recipe has it on, else on.

    Args:
        key: dotted key of the recipe.
        off, on: its two values; any value other than `off` counts as on.
        label: description in tables.
    """

    key: str
    off: Any
    on: Any
    label: str


@dataclass(frozen=True)
class Row:
    """
    One row of a table.

    Args:
        name, label: name of the folder and on the command line, and label in tables.
        system, vectors: name of a baseline (None for others), and `dense` or `lexicon`.
        tasks: tasks to train, in order; the last one yields the model.
        scorer: a key of `SCORERS`.
        overrides, option: overrides of the recipe (see `apply_overrides`), and a value to toggle.
        vocabulary_filter: filter of the lexicon, if not the prepared one.
        text_encoder: text encoder with its tokenizer, if not that of the recipe.
    """

    name: str
    label: str
    system: str | None = None
    vectors: str = "lexicon"
    tasks: tuple[str, ...] = PHASES
    scorer: str = "retrieval"
    overrides: Mapping[str, Any] = field(default_factory=dict)
    option: Option | None = None
    vocabulary_filter: str | None = None
    text_encoder: str | None = None

    @property
    def kind(self) -> str:
        """Return the kind of row in fingerprints: its scorer if nothing is trained, else `baseline` or `lexmotion`."""
        return self.scorer if not self.tasks else "lexmotion" if self.system is None else "baseline"

    def resolved(self, recipe: Mapping[str, Any]) -> "Row":
        """Return this row with its option toggled in overrides and label; raise a ValueError if it is unknown."""
        if self.option is None:
            return self
        is_on = not equal(recipe_value(recipe, self.option.key), self.option.off)
        value = self.option.off if is_on else self.option.on
        return dataclasses.replace(
            self,
            label=f"{'without' if is_on else 'with'} {self.option.label}",
            overrides={**self.overrides, self.option.key: value},
            option=None,
        )


def equal(value: Any, other: Any) -> bool:
    """Compare as in YAML, where all empty values mean off."""
    return value == other or (not value and not other)


def recipe_value(recipe: Mapping[str, Any], key: str) -> Any:
    """Return the value of a dotted key under a recipe, or its default; raise a ValueError if the key is unknown."""
    section, _, name = key.rpartition(".")
    if section in CONFIGS:
        given = recipe.get(section) or {}
        if name not in CONFIGS[section].__dataclass_fields__:
            raise ValueError(f"{CONFIGS[section].__name__}: no field {name!r}; leave this row out of --rows")
        return given.get(name, CONFIGS[section].__dataclass_fields__[name].default)
    phase = section.removeprefix("phases.") or PHASES[-1]
    arguments = run_arguments(phase, task_values(dict(recipe), phase) or {}).to_dict()
    if name not in arguments:
        raise ValueError(f"{phase}: no argument {name!r}; leave this row out of --rows")
    return arguments[name]


def _system(system: str, vectors: str) -> Row:
    if vectors == "dense":
        return Row(system, SYSTEMS[system].label, system, vectors, BASELINE)
    return Row(f"{system}-lexicon", f"†{SYSTEMS[system].label}", system, vectors, BASELINE)


def _untied(system: str) -> Row:
    key = f"baselines.{system}.baseline_config.tie_word_embeddings"
    name, label = f"{system}-untied", f"†{SYSTEMS[system].label}, random words"
    return Row(name, label, system, tasks=BASELINE, overrides={key: False})


def _phases(names: str) -> Row:
    numerals = {TASKS[phase].title.split()[0]: phase for phase in PHASES}
    return Row(names, f"phases {names}", tasks=tuple(numerals[name] for name in names.split("+")))


def _option(name: str, key: str, off: Any, on: Any, label: str) -> Row:
    return Row(name, label, option=Option(key, off, on, label))


_NO_FLOPS = {"lexcmlp.text_flops_weight": 0.0, "lexcmlp.motion_flops_weight": 0.0}
_NO_TARGETS = {"lexcmlp.text_target_words": None, "lexcmlp.motion_target_words": None}
_NO_LIMITS = {"lexcmlp.text_word_limits": None, "lexcmlp.motion_word_limits": None}
_TOP_K = {"text_config.top_k": 128, **_NO_FLOPS, **_NO_TARGETS, **_NO_LIMITS}
_VDR = {"text_config.head_kind": "vdr", "lexcmlp.motion_word_share": None} | _TOP_K  # its words are never zero
_TOP_64 = {"lexcmlp.text_word_limits": [0, 64], "lexcmlp.motion_word_limits": [0, 64]}
# The towers and training of phase iv with a plain dense read-out: what the words must beat.
_DENSE_TOWERS = {
    "model_config.dense_size": 256,
    "model_config.hybrid_weight": 1.0,
    "model_config.num_segments": 1,
    "lexcmlp.initial_active_words": None,
    "lexcmlp.motion_word_share": None,
    **{
        f"lexcmlp.{name}_weight": 0.0
        for name in ("contrastive_loss", "grounding_loss", "bow_loss", "order_loss", "mlm")
    },
    **_NO_TARGETS,
    **_NO_LIMITS,
}
_SYSTEMS = (
    *(_system(system, "dense") for system in ("temos", "t2m", "tmr", "motion_patches")),
    *(_system(system, "lexicon") for system in LEXICAL_BASELINES),
    Row(REFERENCE, "LexMotion"),
    Row("dense-towers", "same towers, dense vectors", tasks=PHASES[-1:], overrides=_DENSE_TOWERS),
    Row("ridge", "Ridge floor", vectors="none", tasks=(), scorer="ridge"),
    Row("tower-ridge", "Ridge floor, untrained tower", vectors="none", tasks=(), scorer="tower-ridge"),
)
_PHASES = tuple(_phases(names) for names in ("iv", "i+iv", "ii+iv", "iii+iv", "i+ii+iv", "i+iii+iv"))
_HEAD = (
    Row("vdr", "head VDR, top 128 words", overrides=_VDR),
    Row("top-k", "top 128 words instead of FLOPS", overrides=_TOP_K),
    Row("inference-top-k", "FLOPS, then the top 64 words", overrides=_TOP_64),
    Row("vocabulary-corpus", "vocabulary: words of the captions", vocabulary_filter="corpus"),
    Row("vocabulary-words", "vocabulary: all words", vocabulary_filter="words"),
    Row("vocabulary-all", "vocabulary: every word piece", vocabulary_filter="all"),
)  # fmt: skip
_IMPROVEMENTS = (
    _option("captions", "lexcmlp.captions_per_motion", 1, 2, "several captions per motion"),
    _option("false-negatives", "lexcmlp.false_negative_threshold", None, 0.6, "false-negative handling"),
    _option("mlm", "lexcmlp.mlm_weight", 0.0, 0.1, "masked LM while aligning"),
    _option("grounding", "lexcmlp.grounding_loss_weight", 0.0, 0.3, "contrast with bare content words"),
    _option("bag-of-words", "lexcmlp.bow_loss_weight", 0.0, 0.5, "bag-of-words grounding"),
    _option("hard-negatives", "lexcmlp.hard_negative_beta", None, 0.15, "hard-negative reweighting"),
    _option("relatives", "lexcmlp.exclude_relatives", False, True, "exclusion of same-source negatives"),
    _option("part-mix", "lexcmlp.part_mix_probability", 0.0, 0.5, "part CutMix"),
    _option("token-drop", "lexcmlp.token_drop_ratio", 0.0, 0.3, "hidden motion tokens"),
    _option("word-dropout", "lexcmlp.caption_word_dropout", 0.0, 0.1, "hidden caption words"),
    _option("segments", "model_config.num_segments", 1, 3, "time segments"),
    _option("order-loss", "lexcmlp.order_loss_weight", 0.0, 0.3, "contrast with swapped events"),
    _option("joint-angles", "representation", None, "joint_angles", "joint angles"),
    _option("hybrid", "model_config.dense_size", None, 256, "dense vector beside the lexical one"),
)
# Words that learn from a dense read-out of the same towers, which the finished model does not use.
_DENSE_ALONG = {"model_config.dense_size": 256, "model_config.hybrid_weight": 0.0}
_TAUGHT = (
    Row("dense-along", "with a dense read-out in training", overrides=_DENSE_ALONG),
    Row(
        "distilled",
        "words distilled from a dense read-out",
        overrides={**_DENSE_ALONG, "lexcmlp.distillation_loss_weight": 1.0},
    ),
)
# Phase iv with only a contrast and FLOPS, as published, since the improvements may replace the earlier phases.
_WITHOUT = {row.option.key: row.option.off for row in _IMPROVEMENTS if row.option is not None}
_PLAIN = (
    Row("plain-iv", "phase iv alone, no improvement", tasks=PHASES[-1:], overrides=_WITHOUT),
    Row("plain-lexmotion", "all phases, no improvement", overrides=_WITHOUT),
)
_UNTIED = tuple(_untied(system) for system in LEXICAL_BASELINES)

_ALL = (*_SYSTEMS, *_PHASES, *_HEAD, *_IMPROVEMENTS, *_TAUGHT, *_PLAIN, *_UNTIED)
ROWS: dict[str, Row] = {row.name: row for row in _ALL}
GROUPS: dict[str, tuple[str, ...]] = {
    "systems": tuple(row.name for row in _SYSTEMS),
    "kit": tuple(TABLE_2),
    "phases": (*(row.name for row in _PHASES), REFERENCE),
    "head": (REFERENCE, *(row.name for row in _HEAD)),
    "improvements": (REFERENCE, *(row.name for row in (*_IMPROVEMENTS, *_TAUGHT))),
    "plain": tuple(row.name for row in _PLAIN),
    "lexical-baselines": tuple(f"{name}{end}" for name in LEXICAL_BASELINES for end in ("", "-lexicon", "-untied")),
}
ENCODER_PREFIX = "text-"


def encoder_row(text_encoder: str) -> Row:
    """Return the row of dense MotionPatches with another text encoder (Table 5): a Hub name, folder or alias."""
    short = text_encoder.rstrip("/").rsplit("/", 1)[-1]
    name = ENCODER_PREFIX + re.sub(r"[^A-Za-z0-9.+-]+", "-", short).strip("-.")
    return Row(name, short, "motion_patches", "dense", BASELINE, text_encoder=text_encoder)


def select_rows(names: Sequence[str], text_encoders: Sequence[str] = ()) -> list[Row]:
    """
    Return rows by name or group in the given order, without repetition.

    Args:
        names: names of rows and groups; `all` is the group `systems`.
        text_encoders: text encoders, each for a row of its own (see `encoder_row`).

    Raises:
        ValueError: if a name is unknown, or two encoders share a short name.

    Example:
        >>> [row.name for row in select_rows(["tmr", "phases"])][:3]
        ['tmr', 'iv', 'i+iv']
    """
    chosen: dict[str, Row] = {}
    for name in names:
        group = GROUPS.get("systems" if name == "all" else name, (name,))
        for member in group:
            if member not in ROWS:
                known = f"groups: all, {', '.join(GROUPS)}; rows: {', '.join(ROWS)}"
                raise ValueError(f"--rows: unknown row or group {member!r}; {known}")
            chosen[member] = ROWS[member]
    for encoder in text_encoders:
        row = encoder_row(encoder)
        if row.name in chosen and chosen[row.name] != row:
            other = chosen[row.name].text_encoder
            raise ValueError(f"--text-encoders: {encoder!r} and {other!r} share folder {row.name!r}; pass only one")
        chosen[row.name] = row
    return list(chosen.values())
