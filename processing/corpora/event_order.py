"""
Captions that describe several events in order, and the same captions with the events swapped.

"a person sits down then stands up" and "a person stands up then sits down" contain the same words but describe
different motions: the hardest negatives for a bag of words, and a test of whether a model encodes order at all.
"""

import re
from collections.abc import Sequence
from typing import Any

# Words that introduce the next event. "and", commas and full stops often join simultaneous events.
EVENT_WORDS = ("then", "next", "finally", "afterwards", "afterward", "followed", "before", "after")

# Captions are user text: every pattern takes linear time. Runs of spaces are possessive (`\s++`), and begin where no
# space precedes (`(?<!\s)`), so that no run is tried from each of its places.
_SUBJECT = (
    r"(?:(?:a|an|the|this|one)\s++)?(?:(?:young|old|stick|human)\s++)?"
    r"(?:person|persons|man|woman|men|women|boy|girl|guy|human|figure|character|individual|toon|dancer|player|actor"
    r"|subject|someone|somebody|he|she|it|they)"
)
_HEAD = re.compile(rf"(?:{_SUBJECT})\s++(?:first\s++)?(?=\S)", re.IGNORECASE)
_AUXILIARY = re.compile(r"(?:is|are|was|were)\s++(?=\w+ing\b)", re.IGNORECASE)
# The words between two events, including a repeated subject, stay in place: "..., and then he ...".
_SEQUENCE = re.compile(
    rf"(?<!\s)(?:(?:\s*+[,;.]\s++|\s++)(?:and,?\s++|but\s++)?"
    rf"|(?:\s*+[,;.]\s++(?:and\s++)?|\s++and\s++){_SUBJECT}\s++)"
    rf"(?:then|next|finally|afterwards?|followed\s++by)\b,?\s++(?:finally\s++)?(?:{_SUBJECT}\s++)?",
    re.IGNORECASE,
)
_TIME_RELATION = re.compile(rf"\b(before|after)(?=\s++(?:(?:\w+ly\s++)?\w+ing\b|(?:{_SUBJECT})\s))", re.IGNORECASE)
_NO_VERBS = ("something", "anything", "nothing", "thing", "everything")
_PLURAL = re.compile(r"\bthey\b", re.IGNORECASE)
# An event that begins with one of these words depends on the words before it and cannot come first.
_LEANING = re.compile(
    r"(?:a|an|the|his|her|their|its|both|each|one|two|three|four|once|twice|again|also|who|whos|that|which|whose|it"
    r"|this|these|those|himself|herself|themselves|with|without|while|as|and|or|but|then|to|in|on|at|by|from|for|of"
    r"|into|onto|over|under|around|up|down|out|off|back|left|right|sideways|(?:back|for|up|down)wards?|counter"
    r"|anti|(?:counter|anti)?clockwise)"
)
_END = re.compile(r"[\s.!?;,]*")  # of the reversed caption


def swap_events(caption: str) -> str | None:
    """
    Reverse the order of events in a caption; subjects, connectives and the full stop stay in place.

    Events joined by "then", "next", "finally", "afterwards" or "followed by" are swapped. Without such a word,
    "before" and "after" are replaced by each other, and the events stay in place.

    Args:
        caption: one or more sentences.

    Returns:
        a caption of the same words (except "before" and "after"), which this function maps back to the original; None
        if the caption has a single event, its events are equal, or swapping them would be ungrammatical.

    Example:

        >>> swap_events("a person sits down, then stands up.")
        'a person stands up, then sits down.'
        >>> swap_events("a man walks forward before turning around")
        'a man walks forward after turning around'
        >>> swap_events("a man walks and waves") is None
        True
    """
    swapped = _exchange(caption) if _SEQUENCE.search(caption) else _turn_round(caption)
    return None if swapped is None or swapped.lower() == caption.lower() else swapped


def _split(caption: str) -> tuple[str, list[str], list[str], str]:
    """Split a caption into head (subject), events, connectives and end."""
    end = _END.match(caption[::-1])
    stop = len(caption) - (end.end() if end else 0)
    head = _HEAD.match(caption, 0, stop)
    start = head.end() if head else 0
    events, joints, place = [], [], start
    for joint in _SEQUENCE.finditer(caption, start, stop):
        events.append(caption[place : joint.start()])
        joints.append(joint.group())
        place = joint.end()
    events.append(caption[place:stop])
    begin = caption[:start]
    auxiliary = _AUXILIARY.match(events[0])
    if auxiliary and all(map(_is_participle, events[1:])):  # "is walking then turning": one "is" for both
        begin, events[0] = begin + auxiliary.group(), events[0][auxiliary.end() :]
    return begin, events, joints, caption[stop:]


def _first_word(event: str) -> str:
    words = re.findall(r"[\w'-]+", event.lower())
    return next((word for word in words if not word.endswith("ly")), "")


def _is_participle(event: str) -> bool:
    word = _first_word(event)
    return word.endswith("ing") and word not in _NO_VERBS


def _stands_alone(event: str) -> bool:
    return event[:1].isalpha() and not _LEANING.fullmatch(_first_word(event))


def _exchange(caption: str) -> str | None:
    begin, events, joints, end = _split(caption)
    if len(events) < 2 or not all(map(_stands_alone, events)):
        return None
    if len({_is_participle(event) for event in events}) > 1:
        return None
    if any(_PLURAL.search(joint) for joint in joints) and not _PLURAL.search(begin):  # "he sits, then they stand"
        return None
    if not begin and events[0][0].isupper():
        events[0] = events[0][0].lower() + events[0][1:]
        events[-1] = events[-1][0].upper() + events[-1][1:]
    events.reverse()
    swapped = begin + "".join(event + joint for event, joint in zip(events, [*joints, ""], strict=True)) + end
    # Adjacent words can change the parse: the result must split into the same parts.
    return swapped if _split(swapped) == (begin, events, joints, end) else None


def _turn_round(caption: str) -> str | None:
    if len(_TIME_RELATION.findall(caption)) != 1:
        return None

    def other(match: re.Match) -> str:
        word = match.group()
        return {"b": "after", "B": "After", "a": "before", "A": "Before"}[word[0]]

    return _TIME_RELATION.sub(other, caption)


def event_word_ids(tokenizer: Any, words: Sequence[str] = EVENT_WORDS) -> list[int]:
    """Return the ids of words that introduce an event and are single tokens of the tokenizer, for `event_words`."""
    ids = tokenizer.convert_tokens_to_ids(list(words))
    return sorted({number for number in ids if number is not None and number != tokenizer.unk_token_id})
