"""Lexicon of the vocabulary space: active words, their document frequencies, and decoding of vectors to words."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

VOCABULARY_FILTERS = ("all", "words", "corpus")

# English function words. Excluded are words of direction, side, place, number, order and manner, which describe
# motion: left, up, back, over, around, into, out, off, through, both, one, twice, again, slowly, ...
_FUNCTION_WORDS = """
    a an the this that these those some any such
    i me my mine myself we us our ours ourselves you your yours yourself
    he him his himself she her hers herself they them their theirs themselves it its itself
    who whom whose which what where when why how there here
    am is are was were be been being do does did doing done has have had having
    can could may might must shall should will would
    and or but nor so yet if as than then while because since until although though whether
    of to in on at by for from with without within upon
    not no very just also too only even still almost quite rather really other others another own
    something anything nothing everything thing things somewhat like seems seem appears appear
"""
# Subjects of captions, which never distinguish two motions.
_SUBJECT_WORDS = """
    person persons people man men woman women guy human humans humanoid figure individual individuals
    someone somebody anyone everyone character subject
"""
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())
SUBJECT_WORDS = frozenset(_SUBJECT_WORDS.split())
STOP_WORDS = FUNCTION_WORDS | SUBJECT_WORDS

# Corpus words in more than this share of captions do not distinguish motions.
MOTION_WORD_MAX_SHARE = 0.5
CHUNK_CAPTIONS = 4096
CACHED_CAPTIONS = 1 << 17

WORD_STARTS = ("\u0120", "\u2581")
_UNUSED = re.compile(r"\[unused\d+\]")
_LETTER = re.compile("[A-Za-z]")


def _to_ranges(ids: np.ndarray) -> str:
    """Format ascending ids as ranges: `1010-1024 1030`."""
    if not len(ids):
        return ""
    ends = np.flatnonzero(np.diff(ids) != 1)
    starts = ids[np.concatenate([[0], ends + 1])].tolist()
    stops = ids[np.concatenate([ends, [len(ids) - 1]])].tolist()
    return " ".join(
        str(start) if start == stop else f"{start}-{stop}" for start, stop in zip(starts, stops, strict=True)
    )


def _from_ranges(text: str) -> np.ndarray:
    bounds = [[int(bound) for bound in part.split("-")] for part in text.split()]
    ranges = [np.arange(bound[0], bound[-1] + 1, dtype=np.int64) for bound in bounds]
    return np.concatenate(ranges) if ranges else np.zeros(0, dtype=np.int64)


def _is_word(token: str) -> bool:
    """Return whether a token is ASCII with a letter; single letters count only as continuations (`##s`)."""
    piece = token.removeprefix("##")
    return piece.isascii() and _LETTER.search(piece) is not None and len(token) > 1


class Lexicon:
    """Immutable lexicon with the properties of every dimension of the vocabulary space.

    Build it with [`Lexicon.from_corpus`]. Ids are the V ids of a WordPiece (BERT family), byte-level BPE or
    sentencepiece tokenizer. A document is one caption.

    Args:
        tokenizer: tokenizer of the ids.
        document_frequency: (V,) number of captions that contain each id.
        num_documents: number of captions counted.
        active_ids: ids that are dimensions of the space, see [`Lexicon.from_corpus`].
        vocabulary_filter: filter that selected them: `"all"`, `"words"` or `"corpus"`.
        min_document_frequency: minimum number of captions with an id for it to count as a corpus word.
        piece_ids: ids that are word pieces, never a word by themselves: continuations, and first pieces that occur
            only as the beginning of a cut word (`jo` of jo ##gs). None, as in lexicons saved by earlier versions:
            continuations only, and they count as content words.

    Attributes:
        document_frequency: (V,) int64.
        idf: (V,) float32, ln((1 + N) / (1 + df)) + 1, at least 1.
        special: (V,) bool, special tokens and `[unusedN]` tokens.
        stop_word: (V,) bool, English function words and the subjects of captions (`person`, `man`, `someone`, ...),
            which metrics on content words exclude.
        subword: (V,) bool, continuations `##x`.
        piece: (V,) bool, word pieces, see `piece_ids`. They are in the space, but not displayed.
        content: (V,) bool, active ids that are content words: no stop words and no pieces (see `piece_ids`).
        displayed: (V,) bool, active ids that are words to show: no pieces.
        motion_word: (V,) bool, active whole words of the corpus that are not stop words and occur in at most half of
            the captions: body parts, directions, actions, manners, counts.
        active: (V,) bool.
        active_ids: (A,) int64, ascending.

    Example:

        >>> from transformers import AutoTokenizer
        >>> tokenizer = AutoTokenizer.from_pretrained("bert-base-uncased")  # doctest: +SKIP
        >>> lexicon = Lexicon.from_corpus(["a person walks forward", "a man jumps twice"], tokenizer)  # doctest: +SKIP
        >>> lexicon.words(lexicon.content_ids("a person walks forward"))  # doctest: +SKIP
        ['walks', 'forward']
    """

    def __init__(
        self,
        tokenizer: Any,
        document_frequency: np.ndarray,
        num_documents: int,
        active_ids: np.ndarray,
        vocabulary_filter: str = "corpus",
        min_document_frequency: int = 1,
        piece_ids: np.ndarray | None = None,
    ):
        _check_filter(vocabulary_filter)
        self.tokenizer = tokenizer
        self.vocabulary_filter = vocabulary_filter
        self.min_document_frequency = int(min_document_frequency)
        self.num_documents = int(num_documents)
        self.document_frequency = np.asarray(document_frequency, dtype=np.int64).copy()
        vocab_size = len(self.document_frequency)
        entries = _vocabulary(tokenizer, vocab_size)
        self._vocabulary_hash = _vocabulary_hash(entries)
        self._tokens = _word_pieces(entries)
        self.idf = (np.log((1 + self.num_documents) / (1 + self.document_frequency)) + 1).astype(np.float32)
        self.special = _special_mask(tokenizer, entries)
        self.subword = np.fromiter((token.startswith("##") for token in self._tokens), bool, vocab_size)
        # Without WordPiece, the first word of a text may have no mark of a beginning, like a continuation.
        words = self._tokens if self._tokens is entries else [token.removeprefix("##") for token in self._tokens]
        self.stop_word = np.fromiter((token.lower() in STOP_WORDS for token in words), bool, vocab_size)
        self.active_ids = np.unique(np.asarray(active_ids, dtype=np.int64))
        if not len(self.active_ids):
            raise ValueError(
                f"active_ids: got none from the filter {vocabulary_filter!r} with min_document_frequency "
                f"{min_document_frequency} over {num_documents} captions; pass more captions or a wider filter"
            )
        outside = self.active_ids[(self.active_ids < 0) | (self.active_ids >= vocab_size)]
        if len(outside):
            raise ValueError(f"active_ids: got {outside[0]}; pass ids of the vocabulary, below {vocab_size}")
        if self.special[self.active_ids].any():
            token = self._tokens[self.active_ids[self.special[self.active_ids]][0]]
            raise ValueError(f"active_ids: got the special token {token!r}; remove it")
        self.active = np.zeros(vocab_size, dtype=bool)
        self.active[self.active_ids] = True
        corpus_words = self.document_frequency >= max(1, self.min_document_frequency)
        telling = self.document_frequency <= MOTION_WORD_MAX_SHARE * max(self.num_documents, 2)
        valid = np.fromiter(map(_is_word, self._tokens), bool, vocab_size)
        self.piece_ids = None if piece_ids is None else np.unique(np.asarray(piece_ids, dtype=np.int64))
        self.piece = self.subword.copy()
        if self.piece_ids is not None:
            outside = self.piece_ids[(self.piece_ids < 0) | (self.piece_ids >= vocab_size)]
            if len(outside):
                raise ValueError(f"piece_ids: got {outside[0]}; pass ids of the vocabulary, below {vocab_size}")
            self.piece = np.zeros(vocab_size, dtype=bool)
            self.piece[self.piece_ids] = True
        self.content = self.active & ~self.stop_word & ~self.special
        if self.piece_ids is not None:
            self.content &= ~self.piece
        self.displayed = self.active & ~self.subword & ~self.piece & ~self.special
        self.motion_word = self.displayed & corpus_words & telling & valid & ~self.stop_word
        self._display_ids = np.flatnonzero(self.displayed)
        self._cache: dict[str, tuple[int, ...]] = {}
        self._hash: str | None = None

    @classmethod
    def from_corpus(
        cls,
        captions: Iterable[str],
        tokenizer: Any,
        vocabulary_filter: str = "corpus",
        min_document_frequency: int = 1,
        extra_ids: Iterable[int] = (),
        extra_words: Iterable[str] = (),
        vocab_size: int | None = None,
    ) -> Lexicon:
        """Count the words of a corpus and select the active vocabulary.

        Args:
            captions: iterable of captions, read once and in chunks. Pass training captions only.
            tokenizer: tokenizer of the ids.
            vocabulary_filter: `"all"`: all tokens except special and `[unusedN]` ones; `"words"`: those in ASCII with
                a letter, single letters only as continuations; `"corpus"`: those that also occur in at least
                `min_document_frequency` captions.
            min_document_frequency: see above; at least 1.
            extra_ids: additional active ids, for example neighbours of corpus words.
            extra_words: additional words whose ids are active, for example those of mirrored captions.
            vocab_size: V if the vocabulary of the model is padded. Defaults to `len(tokenizer)`.

        Raises:
            ValueError: if the filter is unknown, `captions` is a string, or no active word is left.
        """
        _check_filter(vocabulary_filter)
        if isinstance(captions, str):
            raise ValueError(f"captions: got the string {captions!r}; pass it in a list")
        if min_document_frequency < 1:
            raise ValueError(f"min_document_frequency: got {min_document_frequency}; pass at least 1")
        vocab_size = len(tokenizer) if vocab_size is None else vocab_size
        tokens = _vocabulary(tokenizer, vocab_size)
        special = _special_mask(tokenizer, tokens)
        tokens = _word_pieces(tokens)
        subword = np.fromiter((token.startswith("##") for token in tokens), bool, vocab_size)
        counts = np.zeros(vocab_size, dtype=np.int64)
        complete = np.zeros(vocab_size, dtype=np.int64)  # occurrences as a word that is not cut
        num_documents = 0
        remaining = iter(captions)
        while chunk := list(itertools.islice(remaining, CHUNK_CAPTIONS)):
            rows, ids = _flat_ids(tokenizer, chunk)
            once = np.unique(rows * vocab_size + ids)
            counts += np.bincount(once % vocab_size, minlength=vocab_size)
            complete += np.bincount(ids[_uncut(rows, subword[ids])], minlength=vocab_size)
            num_documents += len(chunk)
        rows, more = _flat_ids(tokenizer, list(extra_words))
        complete += np.bincount(more[_uncut(rows, subword[more])], minlength=vocab_size)
        seen = counts > 0
        seen[more] = True

        active = ~special
        if vocabulary_filter != "all":
            active &= np.fromiter(map(_is_word, tokens), bool, vocab_size)
        if vocabulary_filter == "corpus":
            active &= counts >= min_document_frequency
        extra = np.fromiter(extra_ids, dtype=np.int64)
        active_ids = np.concatenate([np.flatnonzero(active), extra, more[~special[more]]])
        pieces = (subword | seen) & (complete == 0)
        return cls(
            tokenizer,
            counts,
            num_documents,
            active_ids,
            vocabulary_filter,
            min_document_frequency,
            np.intersect1d(active_ids, np.flatnonzero(pieces)),
        )

    # ------------------------------------------------------------------ size and identity

    def __len__(self) -> int:
        return len(self._tokens)

    @property
    def vocab_size(self) -> int:
        """Vocabulary size V, including inactive ids."""
        return len(self._tokens)

    @property
    def num_active_words(self) -> int:
        return len(self.active_ids)

    @property
    def hash(self) -> str:
        """SHA-256 (hex) of vocabulary, counts, filter and active ids. Equal hashes mean equal spaces."""
        if self._hash is None:
            content = json.dumps(self._content_dict(), sort_keys=True, separators=(",", ":"))
            self._hash = hashlib.sha256(content.encode()).hexdigest()
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Lexicon) and self.hash == other.hash

    def __hash__(self) -> int:
        return hash(self.hash)

    def __repr__(self) -> str:
        return (
            f"Lexicon({self.num_active_words} active of {self.vocab_size} ids, filter {self.vocabulary_filter!r}, "
            f"{self.num_documents} captions)"
        )

    def __deepcopy__(self, memo: dict) -> Lexicon:
        return self  # immutable

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_cache": {}}

    def _content_dict(self) -> dict[str, Any]:
        seen = np.flatnonzero(self.document_frequency)
        content = {
            "vocabulary_filter": self.vocabulary_filter,
            "vocab_size": self.vocab_size,
            "vocabulary_hash": self._vocabulary_hash,
            "num_documents": self.num_documents,
            "min_document_frequency": self.min_document_frequency,
            "seen_ids": _to_ranges(seen),
            "seen_counts": " ".join(map(str, self.document_frequency[seen].tolist())),
            "active_ids": _to_ranges(self.active_ids),
        }
        if self.piece_ids is not None:  # lexicons of earlier versions keep their hash
            content["piece_ids"] = _to_ranges(self.piece_ids)
        return content

    def to_dict(self) -> dict[str, Any]:
        """Return all but the tokenizer as compact JSON: ids as ranges (`"1010-1024 1030"`), counts only if seen."""
        return {**self._content_dict(), "hash": self.hash}

    @classmethod
    def from_dict(cls, content: dict[str, Any], tokenizer: Any) -> Lexicon:
        """Build a lexicon from the result of [`Lexicon.to_dict`].

        Args:
            content: dictionary of the lexicon.
            tokenizer: tokenizer the lexicon was built with.

        Raises:
            ValueError: if a field is missing, the tokenizer differs, or the dictionary was modified.
        """
        try:
            counts = np.zeros(int(content["vocab_size"]), dtype=np.int64)
            counts[_from_ranges(content["seen_ids"])] = np.array(content["seen_counts"].split(), dtype=np.int64)
            lexicon = cls(
                tokenizer,
                counts,
                content["num_documents"],
                _from_ranges(content["active_ids"]),
                content["vocabulary_filter"],
                content["min_document_frequency"],
                _from_ranges(content["piece_ids"]) if "piece_ids" in content else None,
            )
            vocabulary_hash = content["vocabulary_hash"]
        except (KeyError, TypeError, IndexError) as error:
            raise ValueError(f"content: not a lexicon ({error!r}); pass the result of `Lexicon.to_dict`") from error
        if vocabulary_hash != lexicon._vocabulary_hash:
            raise ValueError(
                f"tokenizer: the lexicon has another vocabulary than {type(tokenizer).__name__} ({len(tokenizer)} "
                "tokens); load the tokenizer saved with it, or rebuild the lexicon"
            )
        if content.get("hash", lexicon.hash) != lexicon.hash:
            raise ValueError(
                f"hash: {lexicon.hash} of the lexicon differs from the saved {content['hash']}, so it was modified; "
                "rebuild it, or remove `hash` to accept the change"
            )
        return lexicon

    # ------------------------------------------------------------------ words and ids

    def word(self, id: int) -> str:
        """Return the vocabulary entry of an id; continuations of a word begin with `##`."""
        index = int(id)
        if not 0 <= index < len(self._tokens):
            raise ValueError(f"id: got {index}; pass an id of the vocabulary, below {len(self._tokens)}")
        return self._tokens[index]

    def words(self, ids: Iterable[int]) -> list[str]:
        """Return the words of ids in text order, with continuations merged: cart ##wheel -> cartwheel."""
        words: list[str] = []
        for id in ids:
            word = self.word(id)
            if word.startswith("##") and words:
                words[-1] += word[2:]
            else:
                words.append(word.removeprefix("##"))
        return words

    def ids(self, text: str) -> list[int]:
        """Return the ids of a text, in order, without special tokens."""
        return _encode(self.tokenizer, [text])[0]

    def content_ids(self, caption: str) -> list[int]:
        """Return the distinct ids of content words in order of appearance, see [`Lexicon.content_tokens`]. Cached."""
        return self.content_ids_of([caption])[0]

    def content_ids_of(self, captions: Sequence[str]) -> list[list[int]]:
        """Return [`Lexicon.content_ids`] of many captions; new captions are tokenized in one batch."""
        fresh = [caption for caption in dict.fromkeys(captions) if caption not in self._cache]
        found: dict[str, tuple[int, ...]] = {}
        if fresh:
            for caption, ids in zip(fresh, _encode(self.tokenizer, fresh), strict=True):
                tokens = np.array(ids, dtype=np.int64)
                found[caption] = tuple(dict.fromkeys(tokens[self.content_tokens(tokens)].tolist()))
            if len(self._cache) + len(found) <= CACHED_CAPTIONS:
                self._cache.update(found)
        return [list(found[caption] if caption in found else self._cache[caption]) for caption in captions]

    def content_tokens(self, ids: np.ndarray) -> np.ndarray:
        """Return which tokens of a text are content words: active, no stop words, and not cut.

        A word that the tokenizer cuts into pieces is not a content word, since none of its pieces is a word, even if
        the first one (`counter` of counter ##cl ##ock ##wise) is a word elsewhere. Only lexicons saved by earlier
        versions count the pieces.

        Args:
            ids: (N,) token ids of a text, or of several with special tokens between them.

        Returns:
            (N,) bool.
        """
        ids = np.asarray(ids, dtype=np.int64)
        content = self.content[ids]
        if self.piece_ids is not None:
            content[:-1] &= ~self.subword[ids[1:]]
        return content

    def bow_weights(self, captions: Sequence[Sequence[str]]) -> np.ndarray:
        """Compute bag-of-words targets: per clip, a distribution over the content words of all its captions.

        The weight of a word is the fraction of the clip's captions that contain it, times its IDF.

        Args:
            captions: captions of each of B clips.

        Returns:
            (B, V) float32; rows sum to 1, or to 0 for clips without content words.
        """
        bags = np.zeros((len(captions), self.vocab_size), dtype=np.float32)
        ids = self.content_ids_of([caption for clip in captions for caption in clip])
        sizes = [len(clip) for clip in captions]
        clip_of_caption = np.repeat(np.arange(len(captions)), sizes)
        rows = np.repeat(clip_of_caption, [len(row) for row in ids])
        columns = np.fromiter(itertools.chain.from_iterable(ids), dtype=np.int64)
        np.add.at(bags, (rows, columns), self.idf[columns])
        total = bags.sum(axis=1, keepdims=True, dtype=np.float64)
        return (bags / np.where(total == 0, 1, total)).astype(np.float32)

    def top_words(
        self, embeds: torch.Tensor | np.ndarray, k: int = 10, skip_stop_words: bool = False
    ) -> list[list[tuple[str, float]]]:
        """Return the words with the largest weights in lexical vectors.

        Args:
            embeds: (B, V) or (V,) vectors of non-negative weights.
            k: maximum number of words per vector; words of weight zero are not listed.
            skip_stop_words: whether to exclude function words and subjects. Inactive ids and word pieces, which have
                no meaning alone, are always excluded.

        Returns:
            (word, weight) pairs per vector, largest weight first; ties by ascending id.

        Raises:
            ValueError: if the last dimension is not V, or k is below one.
        """
        weights = torch.as_tensor(embeds).detach().to(device="cpu", dtype=torch.float32)
        weights = weights[None] if weights.ndim == 1 else weights
        if weights.ndim != 2 or weights.shape[1] != self.vocab_size:
            raise ValueError(f"embeds: got shape {tuple(weights.shape)}; pass (B, {self.vocab_size})")
        if k < 1:
            raise ValueError(f"k: got {k}; pass at least 1")
        shown = self._display_ids
        if skip_stop_words:
            shown = shown[~self.stop_word[shown]]
        weights = weights[:, torch.from_numpy(shown)]
        if k < weights.shape[1] // 4:
            # Ties at rank k are broken by id: all weights equal to the k-th are kept for a stable sort.
            least = weights.topk(k, dim=1).values[:, -1:].clamp(min=0)
            weights = torch.where(weights >= least, weights, 0.0)
        lists = []
        for row in weights:
            kept = row.gt(0).nonzero().squeeze(1)
            values, order = row[kept].sort(descending=True, stable=True)
            places = kept[order[:k]].tolist()
            lists.append([(self._tokens[shown[p]], w) for p, w in zip(places, values[:k].tolist(), strict=True)])
        return lists


def _check_filter(vocabulary_filter: str) -> None:
    if vocabulary_filter not in VOCABULARY_FILTERS:
        raise ValueError(f"vocabulary_filter: got {vocabulary_filter!r}; pass one of {', '.join(VOCABULARY_FILTERS)}")


def _vocabulary(tokenizer: Any, vocab_size: int) -> list[str]:
    """Return the token of every id; ids outside the tokenizer are `[unusedN]`."""
    if vocab_size < len(tokenizer):
        raise ValueError(
            f"vocab_size: got {vocab_size}; pass at least {len(tokenizer)}, the tokens of {type(tokenizer).__name__}"
        )
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    tokens += [None] * (vocab_size - len(tokens))
    return [f"[unused{id}]" if token is None else token for id, token in enumerate(tokens)]


def _word_pieces(tokens: list[str]) -> list[str]:
    """
    Return vocabulary entries in the form of WordPiece, whose continuations begin with `##`.

    Byte-level BPE (RoBERTa, ModernBERT) and sentencepiece (T5) mark the beginning of a word instead, by `Ġ` or `▁`.
    Entries of byte-level BPE that are not ASCII stay as they are.
    """
    marker = next((mark for mark in WORD_STARTS if sum(map(str.startswith, tokens, itertools.repeat(mark))) > 1), None)
    if marker is None:
        return tokens
    return [token[1:] if token.startswith(marker) else f"##{token}" if token.isalnum() else token for token in tokens]


def _vocabulary_hash(tokens: list[str]) -> str:
    return hashlib.sha256("\n".join(tokens).encode()).hexdigest()


def _special_mask(tokenizer: Any, tokens: list[str]) -> np.ndarray:
    special = np.fromiter((_UNUSED.fullmatch(token) is not None for token in tokens), bool, len(tokens))
    special[list(tokenizer.all_special_ids)] = True
    return special


def _uncut(rows: np.ndarray, subword: np.ndarray) -> np.ndarray:
    """Return which tokens are a whole word, given the text and the mark of a continuation of each: (N,) bool each."""
    same = rows[1:] == rows[:-1]
    # A first word has no mark of a beginning in byte-level BPE.
    whole = ~subword | np.concatenate([[True], ~same])[: len(rows)]
    whole[:-1] &= ~(same & subword[1:])
    return whole


def _encode(tokenizer: Any, captions: list[str]) -> list[list[int]]:
    if not captions:
        return []
    encoded = tokenizer(
        captions, add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False, verbose=False
    )
    return encoded["input_ids"]


def _flat_ids(tokenizer: Any, captions: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the caption index and id of every token, (N,) int64 each."""
    ids = _encode(tokenizer, captions)
    rows = np.repeat(np.arange(len(ids), dtype=np.int64), [len(row) for row in ids])
    return rows, np.fromiter(itertools.chain.from_iterable(ids), dtype=np.int64, count=len(rows))
