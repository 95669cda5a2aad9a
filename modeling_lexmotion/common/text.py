"""Text in messages: numbers with nouns, and text from files and users made safe to print."""

import re
from collections.abc import Iterable

# Controls (but tab and newline), which can move the cursor or change a terminal; marks that reverse the direction of
# text; and halves of characters, which no terminal can show.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_HALVES = re.compile("[\ud800-\udfff]")


def printable(text: str) -> str:
    """
    Return text without characters that control a terminal.

    Example:
        >>> printable("a \\x1b[31mkick")
        'a [31mkick'
    """
    return _HALVES.sub("\ufffd", _CONTROLS.sub("", text))


def check_encoding(words: Iterable[str]) -> None:
    """Raise a ValueError if a word of the command line is not valid UTF-8."""
    for word in words:
        if _HALVES.search(word):
            raise ValueError(
                f"{printable(word)!r}: not valid UTF-8; rename the file, or use a UTF-8 locale (LC_ALL=C.UTF-8)"
            )


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun; without `plural`, "s" is added.

    Example:
        >>> counted(1, "motion"), counted(2500, "motion")
        ('1 motion', '2500 motions')
    """
    return f"{number} {noun if number == 1 else plural or noun + 's'}"
