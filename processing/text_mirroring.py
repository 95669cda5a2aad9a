"""Captions and words of mirrored motions: swap left with right, and clockwise with counterclockwise."""

import functools
import re

_SUFFIXES = (
    "s|y|ward|wards|hand|handed|hander|side|sided|sideways|sidestep|sidesteps|sidekick|foot|footed|leg|legged|arm|armed"
    "|most"
)
# These misspellings are frequent in HumanML3D; their mirrored words are spelled correctly.
_SIDE = re.compile(rf"(?<![a-z])(left|right|rigth|rihgt|righ)(?=(?:{_SUFFIXES})?(?![a-z]))", re.IGNORECASE)
_IDIOM_AFTER = re.compile(r"[\s-]+(?:away|now|angles?|angled|triangles?)(?![a-z])", re.IGNORECASE)
_IDIOM_BEFORE = re.compile(r"(?<![a-z])all\s+$", re.IGNORECASE)
_ROTATION = re.compile(
    r"(?<![a-z])(?P<article>an\s+)?(?P<against>(?:counter|conter|anti?|contra)[\s-]*)?clock[\s-]?wise(?![a-z])"
    r"|(?<![a-z])(?P<short>c?cw)(?![a-z])",
    re.IGNORECASE,
)


def _like(word: str, model: str) -> str:
    """Return `word` in the letter case of `model`: lower, Capitalised or UPPER."""
    if len(model) > 1 and model.isupper():
        return word.upper()
    return word.capitalize() if model[:1].isupper() else word


def _swap_side(match: re.Match) -> str:
    word = match.group(1)
    if word.lower() == "left":
        return _like("right", word)
    text = match.string
    if _IDIOM_AFTER.match(text, match.end()) or _IDIOM_BEFORE.search(text[max(0, match.start() - 8) : match.start()]):
        return word
    return _like("left", word)


def _swap_rotation(match: re.Match) -> str:
    found = match.group(0)
    if match.group("short"):
        return _like("cw" if found.lower() == "ccw" else "ccw", found)
    article = match.group("article") or ""
    word = found[len(article) :]
    if match.group("against"):
        # "an anticlockwise turn" becomes "a clockwise turn".
        return article.replace("n", "", 1).replace("N", "", 1) + _like("clockwise", word)
    return article + _like("counterclockwise", word)


def mirror_caption(text: str) -> str:
    """
    Describe the mirror image of a motion: swap left with right and clockwise with counterclockwise.

    Compounds ("left-handed", "rightwards", "lefthand") are swapped too, and letter case is kept. Words that merely
    contain these letters ("upright", "brightly") or do not mean a side ("right away", "right angle", "all right") are
    unchanged. All spellings of the opposite rotation ("anti-clockwise", "counter clockwise") become "clockwise", which
    becomes "counterclockwise".

    HumanML3D and KIT-ML provide such captions under ids that start with `M`; use this function if they are missing.

    Example:

        >>> mirror_caption("Left hand up, the man turns clockwise to the right.")
        'Right hand up, the man turns counterclockwise to the left.'
    """
    return _ROTATION.sub(_swap_rotation, _SIDE.sub(_swap_side, text))


@functools.lru_cache(maxsize=4)
def mirrored_places(tokens: tuple[str, ...]) -> tuple[int, ...]:
    """
    Find the mirrored word of each entry of a vocabulary, by [`mirror_caption`].

    A word stays where it is if it has no side, if its mirrored word is not in the vocabulary, or if that word's own is
    another (misspellings of `right`, other words for `counterclockwise`).

    Args:
        tokens: V entries, in the order of their ids.

    Returns:
        V places, a permutation that is its own inverse.

    Example:

        >>> mirrored_places(("walk", "left", "right", "rigth", "clockwise"))
        (0, 2, 1, 3, 4)
    """
    places = {token: place for place, token in reversed(list(enumerate(tokens)))}
    found = list(range(len(tokens)))
    for token, place in places.items():
        twin = mirror_caption(token)
        if twin in places and mirror_caption(twin) == token:
            found[place] = places[twin]
    return tuple(found)
