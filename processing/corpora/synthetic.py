"""
Synthetic corpus in HumanML3D's or KIT-ML's layout: an animated body performs one or two of about fifty captioned
actions.

Every motion is a combination of action x side x direction x count x speed, or a sequence of two such combinations.
Combinations of the held-out splits never occur in training, nor do their mirror images. The corpus is determined by
the seed.
"""

import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from tqdm.auto import tqdm
from transformers.utils import logging

from ..motion_features import resample_positions, retarget_positions
from ..skeletons import get_skeleton
from . import synthetic_motion as motions
from .folders import DEFAULT_SPLITS
from .synthetic_motion import FPS, Curves, Segment, render

logger = logging.get_logger(__name__)

GENERATOR_VERSION = 1
DEFAULT_NUM_MOTIONS = {"train": 1600, "validation": 100, "test": 240}
SKELETON = "humanml3d"  # of the animated body
MIN_FRAMES, MAX_FRAMES = 48, 96

# Fraction of motions that are a sequence of two actions.
SEQUENCE_SHARE = 0.4
# Maximum fraction of single-action combinations, in total and per action, reserved for the held-out splits.
HELD_OUT_SHARE = 1 / 3

SIDES = ("left", "right")
SPEEDS = ("", "slowly", "quickly")
COUNTS = (1, 2, 3)
_MIRROR = {"left": "right", "right": "left", "clockwise": "counterclockwise", "counterclockwise": "clockwise"}
_PACE = {"": 1.0, "slowly": 0.66, "quickly": 1.5}


@dataclass(frozen=True)
class Action:
    """
    Kind of movement.

    Args:
        name: name in `meta.csv`.
        animate: function that animates it.
        seconds: natural duration of one repetition.
        phrases: verb phrases for "a person ...": `{arm}`, `{hand}`, `{leg}`, `{foot}`, `{knee}` stand for the limb
            with its side, `{dir}` for the direction, `{their}` for the possessive, `{steps}` for a counted step.
        sides, directions, counts, speeds: possible values; a count of 0 means that the action is not counted.
    """

    name: str
    animate: Callable[[Curves], None]
    seconds: float
    phrases: tuple[str, ...]
    sides: tuple[str, ...] = ("",)
    directions: tuple[str, ...] = ("",)
    counts: tuple[int, ...] = (0,)
    speeds: tuple[str, ...] = SPEEDS


def read_actions() -> tuple[Action, ...]:
    """Read the actions of `synthetic_actions.yaml`; lists become tuples."""
    table = yaml.safe_load(Path(__file__).with_name("synthetic_actions.yaml").read_text(encoding="utf-8"))
    rows: list[dict[str, Any]]
    rows = [{name: tuple(value) if isinstance(value, list) else value for name, value in row.items()} for row in table]
    return tuple(Action(**row | {"animate": getattr(motions, row["animate"])}) for row in rows)


ACTIONS = read_actions()
ACTION = {action.name: action for action in ACTIONS}


@dataclass(frozen=True, order=True)
class ActionSpec:
    """Action with its attributes, as described by one clause of a caption."""

    action: str
    side: str = ""
    direction: str = ""
    count: int = 0
    speed: str = ""

    def mirrored(self) -> "ActionSpec":
        return ActionSpec(
            self.action,
            _MIRROR.get(self.side, self.side),
            _MIRROR.get(self.direction, self.direction),
            self.count,
            self.speed,
        )

    @property
    def frames(self) -> int:
        """Length at 20 frames per second, before the random tempo is applied."""
        return round(ACTION[self.action].seconds * max(self.count, 1) / _PACE[self.speed] * FPS)

    def __str__(self) -> str:
        values = (self.action, self.side, self.direction, f"x{self.count}" if self.count else "", self.speed)
        return " ".join(value for value in values if value)


Spec = tuple[ActionSpec, ...]


def _canonical(spec: Spec) -> Spec:
    """Return a key that is equal for a motion and its mirror image."""
    return min(spec, tuple(part.mirrored() for part in spec))


def action_specs() -> list[ActionSpec]:
    """Return all single actions with all combinations of attributes that fit into a clip, in a fixed order."""
    specs = (
        ActionSpec(action.name, side, direction, count, speed)
        for action in ACTIONS
        for side in action.sides
        for direction in action.directions
        for count in action.counts
        for speed in action.speeds
    )
    return [spec for spec in specs if spec.frames <= MAX_FRAMES]


# --- captions ---

_SUBJECTS = (
    ("a person", "their"),
    ("someone", "their"),
    ("the person", "their"),
    ("a man", "his"),
    ("a figure", "the"),
)
_SUBJECT_WEIGHTS = (0.5, 0.1, 0.1, 0.2, 0.1)
_SPEED_WORDS = {"slowly": ("slowly",), "quickly": ("quickly", "quickly", "fast")}
_PACE_WORDS = {"": "normal", "slowly": "slow", "quickly": "quick"}
_TIMES = {1: ("once", "one time"), 2: ("twice", "two times"), 3: ("three times",), 4: ("four times",)}
_NUMBER = {1: "a", 2: "two", 3: "three"}
_DIRECTIONS = {
    "forward": ("forward", "forward", "forwards"),
    "backward": ("backward", "backwards", "back"),
    "left": ("to the left", "to {their} left", "left"),
    "right": ("to the right", "to {their} right", "right"),
    "up": ("up", "upwards", "up in the air"),
    "sideways": ("to the side", "sideways"),
    "clockwise": ("clockwise",),
    "counterclockwise": ("counterclockwise",),
}
_LINKS = ("{a}, then {b}", "{a} and then {b}", "{a}, and then {b}", "{a} then {b}", "first {a}, then {b}")


def _clause(spec: ActionSpec, phrase: str, their: str, rng: np.random.Generator) -> str:
    """Return a verb phrase that expresses all attributes of the spec."""

    def pick(options: Sequence[str]) -> str:
        return options[int(rng.integers(len(options)))]

    owner = their if rng.random() < 0.6 else "the"
    counted, fast = spec.count > 0, bool(spec.speed)
    slots = {"their": their}
    for noun in ("arm", "hand", "leg", "foot", "knee"):
        slots[noun] = f"both {noun}s" if spec.side == "both" else f"{owner} {spec.side} {noun}"
    said_direction = pick(_DIRECTIONS[spec.direction]).format(their=their) if spec.direction else ""
    if spec.direction in _MIRROR and ("{dir} circle" in phrase or "{dir} spin" in phrase):
        said_direction = spec.direction
    slots["dir"] = said_direction
    slots["pace"] = _PACE_WORDS[spec.speed]
    for slot, noun in (
        ("steps", "step"),
        ("a_jump", "jump"),
        ("a_squat", "squat"),
        ("a_punch", "punch"),
        ("a_jack", "jumping jack"),
    ):
        if f"{{{slot}}}" in phrase:
            number = "one" if slot == "steps" and spec.count == 1 else _NUMBER[spec.count]
            plural = {"punch": "punches"}.get(noun, f"{noun}s")
            slots[slot] = f"{number} {noun if spec.count == 1 else plural}"
            counted = False
    fast = fast and "{pace}" not in phrase
    clause = phrase.format(**slots)
    tail = []
    if counted:
        tail.append(pick(_TIMES[spec.count]))
    if fast:
        word = pick(_SPEED_WORDS[spec.speed])
        if word != "fast" and not clause.startswith("is ") and rng.random() < 0.4:
            clause = f"{word} {clause}"
        else:
            tail.insert(int(rng.integers(len(tail) + 1)), word)
    return " ".join([clause, *tail])


def write_captions(spec: Spec, rng: np.random.Generator, number: int = 3) -> list[str]:
    """
    Describe a motion in `number` different ways.

    Args:
        spec: one or two actions.
        rng: random generator for subject, synonyms and word order.
        number: maximum number of captions; fewer are returned if no more distinct ones are found.

    Returns:
        distinct captions in lower case, each naming every attribute.

    Example:

        >>> write_captions((ActionSpec("kick", "left", "forward", 2),), np.random.default_rng(0), 1)
        ['a person kicks forward using their left foot two times.']
    """
    captions: dict[str, None] = {}
    orders = [rng.permutation(len(ACTION[part.action].phrases)) for part in spec]
    for attempt in range(4 * number):
        if len(captions) == number:
            break
        subject, their = _SUBJECTS[int(rng.choice(len(_SUBJECTS), p=_SUBJECT_WEIGHTS))]
        clauses = []
        for part, order in zip(spec, orders, strict=True):
            phrases = ACTION[part.action].phrases
            phrase = phrases[order[attempt % len(order)]]
            if "{pace}" in phrase and not part.speed:
                phrase = phrases[0]
            clauses.append(_clause(part, phrase, their, rng))
        predicate = clauses[0]
        if len(clauses) == 2:
            link = _LINKS[int(rng.integers(len(_LINKS)))]
            predicate = link.format(a=clauses[0], b=clauses[1])
        captions[f"{subject} {predicate}."] = None
    return list(captions)


_TAGS = {
    "DET": "a an the both their his one two three four",
    "ADP": "with on in to of from at over like for using off down",
    "ADV": "slowly quickly fast forward forwards backward backwards back up upwards sideways once twice then first "
    "together away",
    "CCONJ": "and",
    "AUX": "is",
    "ADJ": "left right high big full quick slow normal heavy upper crossed clockwise counterclockwise",
    "PRON": "someone something",
}
_TAG_OF = {word: tag for tag, words in _TAGS.items() for word in words.split()}


def _caption_line(caption: str) -> str:
    """Format a caption as in HumanML3D's text files, with part-of-speech tags from a small list."""
    words = caption.rstrip(".").replace(",", "").split()
    tagged = []
    for position, word in enumerate(words):
        tag = _TAG_OF.get(word) or ("VERB" if word.endswith(("s", "ing")) and position > 0 else "NOUN")
        tagged.append(f"{word}/{tag}")
    return f"{caption}#{' '.join(tagged)}#0.0#0.0"


# --- assignment of motions to splits ---


def _plan(num_motions: Mapping[str, int], rng: np.random.Generator) -> dict[str, list[Spec]]:
    """
    Choose the motions of every split.

    No held-out single action (with all its attributes) or its mirror image occurs in another split; the same holds for
    held-out sequences. The halves of a training sequence may be any action.
    """
    groups: dict[Spec, list[Spec]] = {}
    for spec in action_specs():
        groups.setdefault(_canonical((spec,)), []).append((spec,))
    keys = list(groups)
    to_spare = {name: 0 for name in ACTION}
    for key in keys:
        to_spare[key[0].action] += 1
    to_spare = {name: int(number * HELD_OUT_SHARE) for name, number in to_spare.items()}

    held_out = [name for name, number in num_motions.items() if name != "train" and number > 0]
    wanted = {name: number - round(number * SEQUENCE_SHARE) for name, number in num_motions.items()}
    available = round(len(action_specs()) * HELD_OUT_SHARE)
    scale = min(1.0, available / max(sum(wanted[name] for name in held_out), 1))
    singles: dict[str, list[Spec]] = {name: [] for name in ("train", *held_out)}
    for index in rng.permutation(len(keys)):
        key = keys[index]
        open_splits = [name for name in held_out if len(singles[name]) < scale * wanted[name]]
        if open_splits and to_spare[key[0].action] > 0:
            to_spare[key[0].action] -= 1
            singles[open_splits[0]] += groups[key]
        else:
            singles["train"] += groups[key]

    # Each half of a sequence fits in half a clip, and the first must not end on the floor.
    firsts = [
        s for s in action_specs() if s.frames <= MAX_FRAMES // 2 and s.action not in ("lie", "kneel", "sit", "stand")
    ]
    seconds = [s for s in action_specs() if s.frames <= MAX_FRAMES // 2 and s.action != "stand"]
    taken: set[Spec] = set()
    plan: dict[str, list[Spec]] = {}
    for name in (*held_out, "train"):
        total = num_motions.get(name, 0)
        pool = singles[name]
        chosen: list[Spec] = []
        # Use every action once before repeating any; held-out splits never repeat, and fill up with sequences.
        while pool and len(chosen) < wanted.get(name, 0):
            chosen += _spread([pool[index] for index in rng.permutation(len(pool))])[: wanted[name] - len(chosen)]
            if name != "train":
                break
        mine: set[Spec] = set()
        while len(chosen) < total:
            first, second = firsts[int(rng.integers(len(firsts)))], seconds[int(rng.integers(len(seconds)))]
            pair = (first, second)
            key = _canonical(pair)
            may_repeat = name == "train" or 4 * len(mine) > len(firsts) * len(seconds)
            if first.action == second.action or key in taken or (key in mine and not may_repeat):
                continue
            mine.add(key)
            chosen.append(pair)
        taken |= mine
        plan[name] = [chosen[index] for index in rng.permutation(len(chosen))]
    return {name: plan[name] for name in num_motions if name in plan}


def _spread(specs: list[Spec]) -> list[Spec]:
    """Reorder so that every action occurs once before any occurs twice."""
    seen: Counter[str] = Counter()
    turns = []
    for spec in specs:
        turns.append(seen[spec[0].action])
        seen[spec[0].action] += 1
    return [specs[index] for index in sorted(range(len(specs)), key=turns.__getitem__)]


def iterate_motions(
    num_motions: int | Mapping[str, int] = DEFAULT_NUM_MOTIONS, seed: int = 0, captions_per_motion: int = 3
) -> Iterator[tuple[str, str, Spec, np.ndarray, list[str]]]:
    """
    Generate the corpus motion by motion, without writing it.

    Args:
        num_motions: number of motions per split, or in total (82 % train, 5 % validation, 13 % test).
        seed: random seed.
        captions_per_motion: number of captions per motion.

    Yields:
        `(split, id, spec, positions, captions)` with positions (T, 22, 3) float32 in metres at 20 frames per second,
        48 <= T <= 96.
    """
    num_motions = _per_split(num_motions)
    plan = _plan(num_motions, np.random.default_rng([seed, 0]))
    number = 0
    for split, specs in plan.items():
        for spec in specs:
            rng = np.random.default_rng([seed, 1, number])
            tempo = rng.uniform(0.92, 1.08, len(spec))
            limit = MAX_FRAMES // len(spec)
            segments = [
                Segment(
                    ACTION[part.action].animate,
                    min(round(part.frames / own), limit),
                    part.side,
                    part.direction,
                    max(part.count, 1),
                    _PACE[part.speed] * own,
                )
                for part, own in zip(spec, tempo, strict=True)
            ]
            positions = render(segments, rng, MIN_FRAMES)
            yield split, f"{number:06d}", spec, positions, write_captions(spec, rng, captions_per_motion)
            number += 1


def _per_split(num_motions: int | Mapping[str, int]) -> dict[str, int]:
    if isinstance(num_motions, Mapping):
        unknown = set(num_motions) - set(DEFAULT_SPLITS)
        if unknown:
            raise ValueError(f"num_motions: got splits {sorted(unknown)}; pass splits of {', '.join(DEFAULT_SPLITS)}")
        counts = {name: int(num_motions.get(name, 0)) for name in DEFAULT_SPLITS}
    else:
        everything = sum(DEFAULT_NUM_MOTIONS.values())
        counts = {name: round(num_motions * share / everything) for name, share in DEFAULT_NUM_MOTIONS.items()}
        counts["train"] += num_motions - sum(counts.values())
    if min(counts.values()) < 0 or sum(counts.values()) == 0:
        raise ValueError(f"num_motions: got {num_motions!r}; pass positive numbers")
    return counts


def generate_corpus(
    output_dir: str | Path,
    num_motions: int | Mapping[str, int] = DEFAULT_NUM_MOTIONS,
    seed: int = 0,
    captions_per_motion: int = 3,
    progress: bool = False,
    skeleton: str = "humanml3d",
) -> Path:
    """
    Write the synthetic corpus in the folder layout of HumanML3D or KIT-ML.

    The folder is written atomically; a folder that already contains the same corpus is left unchanged.

    Args:
        output_dir: folder to write.
        num_motions: see [`iterate_motions`].
        seed: random seed; the same seed and sizes give the same bytes.
        captions_per_motion: number of captions per motion.
        progress: whether to show a progress bar on a terminal.
        skeleton: joint layout of the files, `"humanml3d"` or `"kit-ml"`, with its frame rate and unit; motions are
            retargeted.

    Returns:
        the folder, with `new_joints`, `texts`, `train.txt`, `val.txt`, `test.txt`, `meta.csv` (id, source_clip,
        frames, actions) and `corpus.json` (the settings).

    Raises:
        FileExistsError: if the folder contains other files.
        ValueError: if a number or the skeleton is wrong.

    Example:

        >>> folder = generate_corpus("synthetic", num_motions=200)  # doctest: +SKIP
    """
    output_dir = Path(output_dir)
    counts, layout = _per_split(num_motions), get_skeleton(skeleton)
    recipe = {
        "generator": "lexmotion synthetic",
        "version": GENERATOR_VERSION,
        "num_motions": counts,
        "seed": seed,
        "captions_per_motion": captions_per_motion,
    }
    if layout.name != SKELETON:  # corpora of earlier versions, without this entry, stay valid
        recipe["skeleton"] = layout.name
    recipe_file = output_dir / "corpus.json"
    if recipe_file.is_file():
        if json.loads(recipe_file.read_text(encoding="utf-8")) == recipe:
            logger.info("%s already contains this corpus", output_dir)
            return output_dir
    elif output_dir.is_dir() and any(output_dir.iterdir()):
        raise FileExistsError(f"{output_dir}: not empty and not a synthetic corpus; choose an empty or new folder")

    output_dir.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{output_dir.name}.", dir=output_dir.parent))
    try:
        for folder in ("new_joints", "texts"):
            (temporary / folder).mkdir()
        ids: dict[str, list[str]] = {name: [] for name, count in counts.items() if count}
        rows = ["id,source_clip,frames,actions"]
        made = iterate_motions(counts, seed, captions_per_motion)
        bar = tqdm(
            made, total=sum(counts.values()), desc="drawing motions", unit="motion", disable=None if progress else True
        )
        for split, motion_id, spec, positions, captions in bar:
            if layout.name != SKELETON:
                moved = resample_positions(torch.from_numpy(positions), FPS, layout.fps)
                positions = (retarget_positions(moved, SKELETON, layout) / layout.metres_per_unit).numpy()
            np.save(temporary / "new_joints" / f"{motion_id}.npy", positions, allow_pickle=False)
            lines = "\n".join(_caption_line(caption) for caption in captions)
            (temporary / "texts" / f"{motion_id}.txt").write_text(lines + "\n", encoding="utf-8")
            ids[split].append(motion_id)
            rows.append(f"{motion_id},{motion_id},{len(positions)},{' + '.join(str(part) for part in spec)}")
        for split, listed in ids.items():
            (temporary / DEFAULT_SPLITS[split]).write_text("\n".join(listed) + "\n", encoding="utf-8")
        (temporary / "meta.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
        (temporary / "corpus.json").write_text(json.dumps(recipe, indent=2) + "\n", encoding="utf-8")
        os.chmod(temporary, 0o755)
        if output_dir.exists():
            shutil.rmtree(output_dir)
        os.replace(temporary, output_dir)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return output_dir
