"""Captions with their events exchanged."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexmotion.evaluation.metrics.captioning import TOKENIZERS
from lexmotion.evaluation.metrics.order import CONNECTIVE
from lexmotion.processing.corpora.event_order import event_word_ids, swap_events
from lexmotion.processing.text_mirroring import mirror_caption

SUBJECTS = st.sampled_from(["", "a person ", "the man ", "someone ", "she ", "a person slowly "])
EVENTS = st.sampled_from(
    [
        "sits down",
        "stands up again",
        "walks forward and waves with the left hand",
        "turns around 180 degrees",
        "slowly picks up a box, holds it",
        "jumps",
        "raises both arms above their head",
    ]
)
JOINTS = st.sampled_from([" then ", ", then ", " and then ", ", and then ", ". then ", ", he then ", ", and finally "])
ENDS = st.sampled_from(["", ".", " ", ". "])


@st.composite
def multi_event_captions(draw) -> str:
    events = draw(st.lists(EVENTS, min_size=2, max_size=4, unique=True))
    joints = draw(st.lists(JOINTS, min_size=len(events) - 1, max_size=len(events) - 1))
    told = "".join(event + joint for event, joint in zip(events, [*joints, ""], strict=True))
    return draw(SUBJECTS) + told + draw(ENDS)


def words(text: str) -> list[str]:
    return sorted(re.findall(r"\w+", text.lower()))


@given(multi_event_captions())
def test_swapping_keeps_the_words_and_is_its_own_inverse(caption):
    swapped = swap_events(caption)
    assert swapped is not None and swapped != caption
    assert words(swapped) == words(caption)
    assert swap_events(swapped) == caption


@given(multi_event_captions())
def test_the_subject_stays_first(caption):
    subject = re.match(r"(a person|the man|someone|she) ", caption)
    if subject:
        assert swap_events(caption).startswith(subject.group())


@given(st.text(alphabet="abst ,.'-then", max_size=60) | st.text(max_size=40))
def test_no_text_breaks_it_and_what_is_swapped_swaps_back(text):
    swapped = swap_events(text)
    if swapped is not None:
        assert words(swapped) == words(text)
        assert swap_events(swapped) is not None


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a person sits down then stands up", "a person stands up then sits down"),
        ("he crouches, and then he jumps.", "he jumps, and then he crouches."),
        ("a man walks, then turns, then sits.", "a man sits, then turns, then walks."),
        ("a man is walking then turning around", "a man is turning around then walking"),
        ("Walks forward then sits.", "Sits then walks forward."),
        ("a man walks forward before turning around", "a man walks forward after turning around"),
        ("after he sits down, he waves", "before he sits down, he waves"),
    ],
)
def test_known_captions(caption, expected):
    assert swap_events(caption) == expected
    assert swap_events(expected) == caption


@pytest.mark.parametrize(
    "caption",
    [
        "a person walks forward",
        "a man walks and waves",  # at once, or in turn: not said
        "a man jumps then jumps",
        "a person waves with the left hand, then with the right hand",  # the second event has no verb of its own
        "a person who is standing walks, then stops",
        "a person is walking, then turning, then sits",
        "a man sits down, then they both stand",
        "then a man",
        "",
    ],
)
def test_captions_that_cannot_be_exchanged(caption):
    assert swap_events(caption) is None


def test_event_words_are_ids_of_the_tokenizer():
    class Tokenizer:
        unk_token_id = 0

        def convert_tokens_to_ids(self, tokens):
            return [{"then": 7, "before": 3}.get(token, 0) for token in tokens]

    assert event_word_ids(Tokenizer()) == [3, 7]


LONG = 100_000
RUNS = [
    " ",
    "\t\n",
    "\u00a0",
    "a",
    "A",
    "7",
    "_",
    ",",
    ".",
    "-",
    "'",
    "é",
    "日",
    "🙂",
    "\x00",
    "(",
    "ly",
    "ing",
    ", ",
    " ,",
]
RUNS += [
    "then ",
    " and ",
    ", then ",
    "then, ",
    "before ",
    "a person ",
    "he ",
    "an ",
    "left ",
    "counter ",
    "right-",
    "is ",
]
AROUND = ["{}", "a person walks{}then sits", "a man is{}walking before{}sitting", "an{}right{}", "he sits,{}and he{}x"]


@pytest.mark.parametrize("around", AROUND)
def test_long_runs_of_every_kind_take_linear_time(around):
    started = time.perf_counter()
    for run in RUNS:
        text = around.replace("{}", (run * LONG)[:LONG])
        for read in (swap_events, mirror_caption, CONNECTIVE.findall, TOKENIZERS["words"]):
            read(text)
            assert time.perf_counter() - started < 5, (run, read)
            started = time.perf_counter()
