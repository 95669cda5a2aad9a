"""
Whole words: words of the captions that a WordPiece tokenizer cuts (jo ##gs), added to it as tokens of their own.

They are added tokens, not entries of the WordPiece vocabulary: those would also be found as the beginning of longer
words, which would then be cut differently. An added token is matched after lower-casing and only as a complete word.
"""

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

from tokenizers import AddedToken
from tokenizers.models import WordPiece

_WORD = re.compile("[A-Za-z]{2,}")


def add_whole_words(
    tokenizer: Any, captions: Iterable[str], mirrored_captions: Iterable[str], min_captions: int
) -> list[str]:
    """
    Add the words of captions that a tokenizer cuts to the tokenizer, in place.

    Args:
        tokenizer: fast WordPiece tokenizer (BERT family).
        captions: training captions.
        mirrored_captions: their mirror images, whose words count separately, so that `clockwise` and
            `counterclockwise` are both added even if only one of them is frequent.
        min_captions: minimum number of captions, or of mirrored ones, that contain a word.

    Returns:
        The added words by decreasing frequency, ties alphabetically. Their ids follow those of the tokenizer.

    Raises:
        ValueError: if the tokenizer is of another kind.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(getattr(backend, "model", None), WordPiece):
        kind = type(backend.model if backend is not None else tokenizer).__name__
        raise ValueError(
            f"whole_words: got {min_captions} for a tokenizer of the kind {kind}, and only WordPiece tokenizers can "
            "get whole words; pass 0, or a text model of the BERT family"
        )
    counts: Counter[str] = Counter()
    for texts in (captions, mirrored_captions):
        counts |= Counter(word for text in texts for word in set(_words(backend, text)))
    known = tokenizer.get_vocab()
    frequent = (word for word, count in counts.items() if count >= min_captions and word not in known)
    cut = [word for word in frequent if _WORD.fullmatch(word) and tokenizer.unk_token_id not in pieces(backend, word)]
    cut.sort(key=lambda word: (-counts[word], word))
    tokenizer.add_tokens([AddedToken(word, single_word=True, normalized=True, special=False) for word in cut])
    return cut


def _words(backend: Any, text: str) -> list[str]:
    """Return the words of a text, as the tokenizer separates them before cutting them."""
    normalized = text if backend.normalizer is None else backend.normalizer.normalize_str(text)
    if backend.pre_tokenizer is None:
        return normalized.split()
    return [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(normalized)]


def pieces(backend: Any, word: str) -> list[int]:
    """Return the ids of the pieces of a word in the WordPiece vocabulary, without added tokens."""
    return [token.id for token in backend.model.tokenize(word)]


def whole_words(tokenizer: Any, first_id: int = 0) -> dict[int, list[int]]:
    """Return the ids of the words that [`add_whole_words`] added, from `first_id` on, with the ids of their pieces."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return {
        id: pieces(tokenizer.backend_tokenizer, token.content)
        for id, token in sorted(added.items())
        if id >= first_id and token.single_word and token.normalized and not token.special
    }
