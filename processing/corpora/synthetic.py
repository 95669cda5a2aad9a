"""
A corpus made by rule, in HumanML3D's layout: a drawn body does one or two of about fifty actions, and captions say
which.

Every motion is a combination of action x side x direction x count x speed, alone or as a sequence of two.
Combinations of the held-out splits never occur in training, nor do their mirror images. Everything follows from the
seed.
"""

import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm
from transformers.utils import logging

from . import synthetic_motion as motions
from .folders import DEFAULT_SPLITS
from .synthetic_motion import FPS, Curves, Segment, render

logger = logging.get_logger(__name__)

GENERATOR_VERSION = 1
DEFAULT_NUM_MOTIONS = {"train": 1600, "validation": 100, "test": 240}
MIN_FRAMES, MAX_FRAMES = 48, 96

# Share of motions that are a sequence of two actions.
SEQUENCE_SHARE = 0.4
# At most this share of the single-action combinations, overall and of any one action, is kept for the held-out splits.
HELD_OUT_SHARE = 1 / 3

SIDES = ("left", "right")
ARMS = ("left", "right", "both")
SPEEDS = ("", "slowly", "quickly")
COUNTS = (1, 2, 3)
_MIRROR = {"left": "right", "right": "left", "clockwise": "counterclockwise", "counterclockwise": "clockwise"}
_PACE = {"": 1.0, "slowly": 0.66, "quickly": 1.5}


@dataclass(frozen=True)
class Action:
    """
    One kind of movement.

    Args:
        name (`str`): its name in `meta.csv`.
        animate (`Callable`): draws it.
        seconds (`float`): natural length of one repetition.
        phrases (`tuple[str, ...]`): verb phrases for "a person ...": `{arm}`, `{hand}`, `{leg}`, `{foot}`, `{knee}`
            stand for the limb with its side, `{dir}` for the direction, `{their}` for the possessive, `{steps}` for a
            counted step.
        sides, directions, counts, speeds: values it comes in; a count of 0 means the action is not counted.
    """

    name: str
    animate: Callable[[Curves], None]
    seconds: float
    phrases: tuple[str, ...]
    sides: tuple[str, ...] = ("",)
    directions: tuple[str, ...] = ("",)
    counts: tuple[int, ...] = (0,)
    speeds: tuple[str, ...] = SPEEDS


_HORIZONTAL = ("forward", "backward", "left", "right")
_ONE_PACE = ("",)

ACTIONS: tuple[Action, ...] = (
    Action(
        "walk",
        motions.walk,
        2.6,
        ("walks {dir}", "is walking {dir}", "walks {dir} at a {pace} pace"),
        directions=("forward", "backward"),
    ),
    Action(
        "step",
        motions.step,
        0.75,
        ("takes {steps} {dir}", "makes {steps} {dir}"),
        directions=("forward", "backward"),
        counts=COUNTS,
    ),
    Action("run", motions.run, 2.4, ("runs {dir}", "jogs {dir}", "is running {dir}"), directions=("forward",)),
    Action("jog in place", motions.jog_in_place, 2.4, ("jogs in place", "runs in place", "jogs on the spot")),
    Action(
        "march",
        motions.march,
        2.6,
        ("marches in place", "marches on the spot with high knees", "marches lifting {their} knees high"),
    ),
    Action(
        "sneak",
        motions.sneak,
        2.6,
        ("sneaks forward", "creeps forward in a crouch", "sneaks forward while crouching"),
        directions=("forward",),
    ),
    Action(
        "sidestep",
        motions.sidestep,
        2.4,
        ("sidesteps {dir}", "steps sideways {dir}", "shuffles {dir}"),
        directions=SIDES,
    ),
    Action(
        "circle",
        motions.circle,
        4.2,
        ("walks in a circle {dir}", "walks {dir} in a circle", "is walking around in a {dir} circle"),
        directions=("clockwise", "counterclockwise"),
        speeds=_ONE_PACE,
    ),
    Action(
        "turn",
        motions.quarter_turn,
        1.6,
        ("turns {dir}", "makes a quarter turn {dir}", "rotates {dir}"),
        directions=SIDES,
    ),
    Action(
        "turn around",
        motions.half_turn,
        1.9,
        ("turns around {dir}", "makes a half turn {dir}", "turns around {dir} to face the back"),
        directions=SIDES,
    ),
    Action(
        "spin",
        motions.spin,
        2.2,
        ("spins {dir}", "spins around {dir} in a full circle", "does a full {dir} spin with arms out"),
        directions=("clockwise", "counterclockwise"),
    ),
    Action(
        "jump",
        motions.jump,
        1.2,
        ("jumps {dir}", "leaps {dir}", "does {a_jump} {dir}"),
        directions=("up", *_HORIZONTAL),
        counts=COUNTS,
        speeds=_ONE_PACE,
    ),
    Action(
        "hop",
        motions.hop,
        0.9,
        ("hops on {leg}", "hops on {foot}", "jumps on {leg} only"),
        sides=SIDES,
        counts=COUNTS,
        speeds=_ONE_PACE,
    ),
    Action(
        "crawl",
        motions.crawl,
        3.2,
        ("crawls {dir}", "crawls {dir} on hands and knees", "gets down and crawls {dir}"),
        directions=("forward", "backward"),
    ),
    Action(
        "kick",
        motions.kick,
        1.2,
        ("kicks {dir} with {leg}", "kicks {leg} {dir}", "kicks {dir} using {foot}"),
        sides=SIDES,
        directions=("forward", "backward", "sideways"),
        counts=COUNTS,
    ),
    Action(
        "raise knee",
        motions.knee_raise,
        1.2,
        ("lifts {knee}", "raises {knee}", "brings {knee} up to the chest"),
        sides=SIDES,
        counts=COUNTS,
    ),
    Action(
        "swing leg",
        motions.leg_swing,
        1.3,
        ("swings {leg} back and forth", "swings {leg} like a pendulum"),
        sides=SIDES,
        counts=COUNTS,
    ),
    Action("squat", motions.squat, 1.4, ("squats", "squats down", "does {a_squat}"), counts=COUNTS),
    Action(
        "lunge",
        motions.lunge,
        1.5,
        ("lunges {dir} with {leg}", "does a lunge {dir} with {leg}"),
        sides=SIDES,
        directions=("forward", "backward"),
        counts=(1, 2),
    ),
    Action(
        "kneel", motions.kneel, 2.2, ("kneels on {knee}", "kneels down on {knee}", "goes down on {knee}"), sides=SIDES
    ),
    Action("sit", motions.sit, 2.2, ("sits down", "takes a seat", "sits down on a chair")),
    Action(
        "lie", motions.lie, 2.4, ("lies down on {their} back", "lies down on the floor", "lies back on the ground")
    ),
    Action(
        "stomp",
        motions.stomp,
        1.0,
        ("stomps {foot}", "stamps {foot} on the ground", "stomps with {foot}"),
        sides=SIDES,
        counts=COUNTS,
    ),
    Action(
        "balance",
        motions.balance,
        2.4,
        ("balances on {leg}", "stands on {leg} with arms out", "balances on {foot}"),
        sides=SIDES,
        speeds=_ONE_PACE,
    ),
    Action("jumping jacks", motions.jumping_jacks, 1.1, ("does {a_jack}", "performs {a_jack}"), counts=COUNTS),
    Action("wave", motions.wave, 2.2, ("waves {hand}", "waves with {hand}", "waves hello with {hand}"), sides=ARMS),
    Action(
        "raise arm",
        motions.raise_arm,
        2.0,
        ("raises {arm} {dir}", "lifts {arm} {dir}", "stretches {arm} {dir}"),
        sides=ARMS,
        directions=("up", "forward", "sideways"),
    ),
    Action(
        "point",
        motions.point,
        2.0,
        ("points {dir} with {hand}", "points {dir} using {arm}"),
        sides=SIDES,
        directions=("up", "forward", "left", "right"),
    ),
    Action(
        "punch",
        motions.punch,
        0.95,
        ("punches {dir} with {hand}", "throws {a_punch} {dir} with {hand}", "punches {dir} using {arm}"),
        sides=SIDES,
        directions=("forward", "up"),
        counts=COUNTS,
    ),
    Action("box", motions.box, 2.4, ("boxes with both fists", "is boxing", "throws punches like a boxer")),
    Action(
        "throw",
        motions.throw,
        1.8,
        ("throws a ball with {hand}", "throws something with {arm}", "tosses a ball with {hand}"),
        sides=SIDES,
    ),
    Action(
        "clap", motions.clap, 0.75, ("claps {their} hands", "claps", "claps both hands together"), counts=(2, 3, 4)
    ),
    Action(
        "circle arms",
        motions.circle_arms,
        1.2,
        ("circles {arm} {dir}", "rotates {arm} {dir} in circles", "swings {arm} {dir} in big circles"),
        sides=ARMS,
        directions=("forward", "backward"),
        counts=COUNTS,
    ),
    Action(
        "flap",
        motions.flap,
        2.4,
        ("flaps {their} arms like a bird", "flaps both arms like wings", "pretends to fly like a bird"),
    ),
    Action(
        "push",
        motions.push,
        1.4,
        ("pushes forward with both hands", "pushes something away", "pushes a heavy box forward"),
        counts=COUNTS,
    ),
    Action(
        "pull",
        motions.pull,
        1.4,
        ("pulls a rope with both hands", "pulls something back", "pulls a rope backward"),
        counts=COUNTS,
    ),
    Action(
        "pick up",
        motions.pick_up,
        2.3,
        (
            "picks something up from the ground with {hand}",
            "bends down to pick up a box with {hand}",
            "picks an object up off the floor using {hand}",
        ),
        sides=ARMS,
    ),
    Action(
        "drink",
        motions.drink,
        2.2,
        ("drinks from a cup with {hand}", "takes a drink using {hand}", "drinks with {hand}"),
        sides=SIDES,
    ),
    Action(
        "salute",
        motions.salute,
        2.0,
        ("salutes with {hand}", "gives a salute with {hand}", "salutes like a soldier with {arm}"),
        sides=SIDES,
    ),
    Action(
        "scratch",
        motions.scratch,
        2.2,
        ("scratches {their} head with {hand}", "scratches the head using {hand}"),
        sides=SIDES,
    ),
    Action("bow", motions.bow, 1.6, ("bows", "bows down politely", "takes a bow"), counts=(1, 2)),
    Action(
        "touch toes",
        motions.touch_toes,
        1.7,
        ("bends down and touches {their} toes", "reaches down to touch {their} toes", "touches {their} toes"),
        counts=(1, 2),
    ),
    Action(
        "cross arms",
        motions.cross_arms,
        2.2,
        ("crosses {their} arms", "folds {their} arms over the chest", "stands with crossed arms"),
    ),
    Action(
        "hands on hips",
        motions.hands_on_hips,
        2.2,
        ("puts {their} hands on {their} hips", "places both hands on the hips", "stands with hands on hips"),
    ),
    Action(
        "chop",
        motions.chop,
        1.1,
        ("chops with {hand}", "hammers with {hand}", "chops down with {arm}"),
        sides=SIDES,
        counts=COUNTS,
    ),
    Action(
        "swing bat",
        motions.swing_bat,
        1.9,
        ("swings a bat {dir}", "swings a golf club {dir}", "hits a ball with a bat {dir}"),
        directions=SIDES,
    ),
    Action("swim", motions.swim, 2.8, ("swims", "makes swimming motions with both arms", "pretends to swim")),
    Action(
        "lean",
        motions.lean,
        1.7,
        ("leans {dir}", "bends sideways {dir}", "stretches the side {dir}"),
        directions=SIDES,
        counts=(1, 2),
    ),
    Action(
        "twist",
        motions.twist,
        1.5,
        ("twists {their} torso {dir}", "twists the upper body {dir}", "twists at the waist {dir}"),
        directions=SIDES,
        counts=(1, 2),
    ),
    Action("nod", motions.nod, 0.8, ("nods {their} head", "nods", "nods yes"), counts=COUNTS),
    Action("shake head", motions.shake_head, 0.9, ("shakes {their} head", "shakes the head no"), counts=COUNTS),
    Action("dance", motions.dance, 2.8, ("dances", "dances swaying the hips", "is dancing")),
    Action(
        "stretch",
        motions.stretch,
        2.4,
        ("stretches both arms overhead", "stretches and reaches for the sky", "stretches up tall on tiptoes"),
    ),
    Action(
        "wipe",
        motions.wipe,
        2.2,
        ("wipes a window with {hand}", "cleans a window using {hand}", "wipes a wall with {hand}"),
        sides=SIDES,
    ),
    Action(
        "stir",
        motions.stir,
        2.2,
        ("stirs a pot with {hand}", "stirs something using {hand}", "mixes a bowl with {hand}"),
        sides=SIDES,
    ),
    Action(
        "guitar", motions.guitar, 2.4, ("plays the guitar with {hand}", "strums a guitar using {hand}"), sides=SIDES
    ),
    Action("row", motions.row, 1.7, ("sits and rows a boat", "rows a boat", "is sitting and rowing"), counts=(1, 2)),
    Action("stand", motions.stand, 2.4, ("stands still", "stands without moving", "stays in place"), speeds=_ONE_PACE),
    Action(
        "stagger",
        motions.stagger,
        2.8,
        ("staggers forward", "stumbles forward like a drunk", "stumbles forward losing balance"),
    ),
)

ACTION = {action.name: action for action in ACTIONS}


@dataclass(frozen=True, order=True)
class ActionSpec:
    """One action with its attributes, what a single clause of a caption says."""

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
        """Length before personal tempo, at 20 frames a second."""
        return round(ACTION[self.action].seconds * max(self.count, 1) / _PACE[self.speed] * FPS)

    def __str__(self) -> str:
        values = (self.action, self.side, self.direction, f"x{self.count}" if self.count else "", self.speed)
        return " ".join(value for value in values if value)


Spec = tuple[ActionSpec, ...]


def _canonical(spec: Spec) -> Spec:
    """The same for a movement and its mirror image."""
    return min(spec, tuple(part.mirrored() for part in spec))


def action_specs() -> list[ActionSpec]:
    """Every single action with every combination of its attributes that fits into a clip, in a fixed order."""
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
    """A verb phrase that says everything the spec holds."""

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
        spec (`tuple[ActionSpec, ...]`): one or two actions.
        rng (`np.random.Generator`): chooses subject, synonyms and word order.
        number (`int`): captions wanted; fewer come back when the words run out.

    Returns:
        `list[str]`: distinct captions in lower case, each naming every attribute.

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
        told = clauses[0]
        if len(clauses) == 2:
            link = _LINKS[int(rng.integers(len(_LINKS)))]
            told = link.format(a=clauses[0], b=clauses[1])
        captions[f"{subject} {told}."] = None
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
    """The caption in HumanML3D's text format; part-of-speech tags come from a small list."""
    words = caption.rstrip(".").replace(",", "").split()
    tagged = []
    for position, word in enumerate(words):
        tag = _TAG_OF.get(word) or ("VERB" if word.endswith(("s", "ing")) and position > 0 else "NOUN")
        tagged.append(f"{word}/{tag}")
    return f"{caption}#{' '.join(tagged)}#0.0#0.0"


# --- which motion is in which split ---


def _plan(num_motions: Mapping[str, int], rng: np.random.Generator) -> dict[str, list[Spec]]:
    """
    Choose the motions of every split.

    No held-out single action (with all its attributes) is a motion of another split, nor is its mirror image; the
    same holds for held-out sequences. The halves of a training sequence may be any action.
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

    # Halves of a sequence must leave room for each other and must not end on the floor before something upright.
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
        # Once through all before any comes twice; a held-out split repeats none and takes sequences for the rest.
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
    """Reorder so that every action comes once before any comes twice."""
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
    Make the corpus motion by motion, without writing it.

    Args:
        num_motions (`int` or `Mapping[str, int]`): motions of each split, or of all together (82 % train, 5 %
            validation, 13 % test).
        seed (`int`): everything follows from it.
        captions_per_motion (`int`): paraphrases of each motion.

    Yields:
        `(split, id, spec, positions, captions)` with positions (T, 22, 3) float32 in metres at 20 frames a second, 48
        <= T <= 96.
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
            raise ValueError(f"Unknown splits {sorted(unknown)}: choose among {', '.join(DEFAULT_SPLITS)}.")
        counts = {name: int(num_motions.get(name, 0)) for name in DEFAULT_SPLITS}
    else:
        everything = sum(DEFAULT_NUM_MOTIONS.values())
        counts = {name: round(num_motions * share / everything) for name, share in DEFAULT_NUM_MOTIONS.items()}
        counts["train"] += num_motions - sum(counts.values())
    if min(counts.values()) < 0 or sum(counts.values()) == 0:
        raise ValueError(f"num_motions must be positive, got {num_motions!r}.")
    return counts


def generate_corpus(
    output_dir: str | Path,
    num_motions: int | Mapping[str, int] = DEFAULT_NUM_MOTIONS,
    seed: int = 0,
    captions_per_motion: int = 3,
    progress: bool = False,
) -> Path:
    """
    Write the synthetic corpus in HumanML3D's folder layout.

    The folder appears complete or not at all, and a folder that already holds the same corpus is left alone.

    Args:
        output_dir (`str` or `Path`): folder to write.
        num_motions (`int` or `Mapping[str, int]`): see [`iterate_motions`].
        seed (`int`): same seed and sizes, same bytes.
        captions_per_motion (`int`): captions of each motion.
        progress (`bool`): show a progress bar on a terminal.

    Returns:
        `Path`: the folder, with `new_joints`, `texts`, `train.txt`, `val.txt`, `test.txt`, `meta.csv` (id,
        source_clip, what is shown) and `corpus.json` (how it was made).

    Raises:
        FileExistsError: the folder holds something that this function did not write.

    Example:

        >>> folder = generate_corpus("synthetic", num_motions=200)  # doctest: +SKIP
    """
    output_dir = Path(output_dir)
    counts = _per_split(num_motions)
    recipe = {
        "generator": "lexmotion synthetic",
        "version": GENERATOR_VERSION,
        "num_motions": counts,
        "seed": seed,
        "captions_per_motion": captions_per_motion,
    }
    recipe_file = output_dir / "corpus.json"
    if recipe_file.is_file():
        if json.loads(recipe_file.read_text(encoding="utf-8")) == recipe:
            logger.info("%s already holds this corpus", output_dir)
            return output_dir
    elif output_dir.is_dir() and any(output_dir.iterdir()):
        raise FileExistsError(
            f"{output_dir} holds files that are not a synthetic corpus: choose an empty or new folder."
        )

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
