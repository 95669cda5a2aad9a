"""
The rows of the comparison, as data.

A row is a system, or the recipe's LexMotion with something changed. What a row changes are dotted keys of the recipe
(`apply_overrides`); whether a key exists is found out when its row is run, not before.
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

CONFIGS = {
    "model_config": LexMotionConfig,
    "text_config": LexMotionTextConfig,
    "motion_config": LexMotionMotionConfig,
}
DAGGERS = ("tmr", "motion_patches")  # whose dense vector the paper also replaces by a lexical one
BASELINE = ("baseline",)  # the one training of a rival
REFERENCE = "lexmotion"  # what an ablation is compared with


@dataclass(frozen=True)
class Option:
    """
    A value of the recipe that a row turns around: off where the recipe has it on, on where it has not.

    Args:
        key: dotted key of the recipe. off, on: its two values; a recipe with any other value than `off` has it on.
        label: what is on, as a table says it.
    """

    key: str
    off: Any
    on: Any
    label: str


@dataclass(frozen=True)
class Row:
    """
    One line of a table.

    Args:
        name: of the folder and on the command line. label: in a table.
        tasks: that are trained, in order; the last one makes the model.
        scorer: of the model, a name of `SCORERS`.
        system: of a baseline; None for others. vectors: `dense` or `lexicon`.
        overrides: of the recipe, see `apply_overrides`. option: one more, its direction decided by the recipe.
        vocabulary_filter: of the lexicon, where it is another than the prepared one.
        text_encoder: in place of the recipe's, with its own tokenizer.
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
        """What a result's fingerprint calls the row: its scorer if nothing is trained, `baseline` or `lexmotion`."""
        return self.scorer if not self.tasks else "lexmotion" if self.system is None else "baseline"

    def resolved(self, recipe: Mapping[str, Any]) -> "Row":
        """
        This row with its option's direction decided: overrides and label are final.

        Raises:
            ValueError: the option is unknown here.
        """
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
    """As YAML means it: an empty value is off whichever way it is written."""
    return value == other or (not value and not other)


def recipe_value(recipe: Mapping[str, Any], key: str) -> Any:
    """
    The value of a dotted key under a recipe, defaults included.

    Raises:
        ValueError: no argument, and no field of a configuration, has this name.
    """
    section, _, name = key.rpartition(".")
    if section in CONFIGS:
        given = recipe.get(section) or {}
        if name not in CONFIGS[section].__dataclass_fields__:
            raise ValueError(f"{CONFIGS[section].__name__} has no field {name!r}: this row cannot be run")
        return given.get(name, CONFIGS[section].__dataclass_fields__[name].default)
    phase = section.removeprefix("phases.") or PHASES[-1]
    arguments = run_arguments(phase, task_values(dict(recipe), phase) or {}).to_dict()
    if name not in arguments:
        raise ValueError(f"{phase} has no argument {name!r}: this row cannot be run")
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


_TOP_K = {
    "text_config.top_k": 128,
    "lexcmlp.text_flops_weight": 0.0,
    "lexcmlp.motion_flops_weight": 0.0,
    "lexcmlp.text_target_words": None,
    "lexcmlp.motion_target_words": None,
    "lexcmlp.text_word_limits": None,
    "lexcmlp.motion_word_limits": None,
}
_VDR = {"text_config.head_kind": "vdr", "lexcmlp.motion_word_share": None} | _TOP_K  # its words are never zero
_TOP_64 = {"lexcmlp.text_word_limits": [0, 64], "lexcmlp.motion_word_limits": [0, 64]}
_SYSTEMS = (
    _system("temos", "dense"),
    _system("t2m", "dense"),
    _system("tmr", "dense"),
    _system("motion_patches", "dense"),
    *(_system(system, "lexicon") for system in DAGGERS),
    Row(REFERENCE, "LexMotion"),
    Row("ridge", "Ridge floor", vectors="none", tasks=(), scorer="ridge"),
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
    _option("captions", "lexcmlp.captions_per_motion", 1, 2, "several captions a motion"),
    _option("false-negatives", "lexcmlp.false_negative_threshold", None, 0.6, "false-negative handling"),
    _option("mlm", "lexcmlp.mlm_weight", 0.0, 0.1, "masked LM while aligning"),
    _option("grounding", "lexcmlp.grounding_loss_weight", 0.0, 0.3, "contrast with bare content words"),
    _option("bag-of-words", "lexcmlp.bow_loss_weight", 0.0, 0.5, "bag-of-words grounding"),
    _option("hard-negatives", "lexcmlp.hard_negative_beta", None, 0.15, "hard-negative reweighting"),
    _option("relatives", "lexcmlp.exclude_relatives", False, True, "clips of one source kept out of the negatives"),
    _option("part-mix", "lexcmlp.part_mix_probability", 0.0, 0.5, "part CutMix"),
    _option("token-drop", "lexcmlp.token_drop_ratio", 0.0, 0.3, "hidden motion tokens"),
    _option("word-dropout", "lexcmlp.caption_word_dropout", 0.0, 0.1, "hidden caption words"),
    _option("segments", "model_config.num_segments", 1, 3, "time segments"),
    _option("order-loss", "lexcmlp.order_loss_weight", 0.0, 0.3, "contrast with swapped events"),
    _option("joint-angles", "representation", None, "joint_angles", "joint angles"),
    _option("hybrid", "model_config.dense_size", None, 256, "dense vector beside the lexical one"),
)
# What phase iv then is: a contrast and FLOPS, as published. The improvements may do what the earlier phases are for.
_WITHOUT = {row.option.key: row.option.off for row in _IMPROVEMENTS if row.option is not None}
_PLAIN = (
    Row("plain-iv", "phase iv alone, no improvement", tasks=PHASES[-1:], overrides=_WITHOUT),
    Row("plain-lexmotion", "all phases, no improvement", overrides=_WITHOUT),
)
_UNTIED = tuple(_untied(system) for system in DAGGERS)

ROWS: dict[str, Row] = {row.name: row for row in (*_SYSTEMS, *_PHASES, *_HEAD, *_IMPROVEMENTS, *_PLAIN, *_UNTIED)}
GROUPS: dict[str, tuple[str, ...]] = {
    "systems": tuple(row.name for row in _SYSTEMS),
    "phases": (*(row.name for row in _PHASES), REFERENCE),
    "head": (REFERENCE, *(row.name for row in _HEAD)),
    "improvements": (REFERENCE, *(row.name for row in _IMPROVEMENTS)),
    "plain": tuple(row.name for row in _PLAIN),
    "daggers": tuple(name for system in DAGGERS for name in (system, f"{system}-lexicon", f"{system}-untied")),
}
ENCODER_PREFIX = "text-"


def encoder_row(text_encoder: str) -> Row:
    """
    Dense MotionPatches with another text encoder (the paper's Table 5).

    Args:
        text_encoder: Hub name, folder, or a name `resolve_text_model` knows.
    """
    short = text_encoder.rstrip("/").rsplit("/", 1)[-1]
    name = ENCODER_PREFIX + re.sub(r"[^A-Za-z0-9.+-]+", "-", short).strip("-.")
    return Row(name, short, "motion_patches", "dense", BASELINE, text_encoder=text_encoder)


def select_rows(names: Sequence[str], text_encoders: Sequence[str] = ()) -> list[Row]:
    """
    Rows by name or group, each once, in the order asked for.

    Args:
        names: of rows and groups; `all` stands for the group `systems`.
        text_encoders: one row each, see `encoder_row`.

    Raises:
        ValueError: an unknown name, with those there are, or two encoders of one short name.

    Example:

        >>> [row.name for row in select_rows(["tmr", "phases"])][:3]
        ['tmr', 'iv', 'i+iv']
    """
    chosen: dict[str, Row] = {}
    for name in names:
        group = GROUPS.get("systems" if name == "all" else name, (name,))
        for member in group:
            if member not in ROWS:
                raise ValueError(
                    f"there is no row or group {member!r}; groups: all, {', '.join(GROUPS)}; rows: {', '.join(ROWS)}"
                )
            chosen[member] = ROWS[member]
    for encoder in text_encoders:
        row = encoder_row(encoder)
        if row.name in chosen and chosen[row.name] != row:
            raise ValueError(f"{encoder!r} and {chosen[row.name].text_encoder!r} would share the folder {row.name!r}")
        chosen[row.name] = row
    return list(chosen.values())
