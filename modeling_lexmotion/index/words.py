"""Words of an index: their dimensions, and the vectors of queries."""

import difflib
import logging
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import sparse

from lexmotion.common.pretrained import loading_from

from .engine import IndexEngine, Query
from .folder import IndexFolder

logger = logging.getLogger(__name__)

SHOWN_UNKNOWN = 8
ENDINGS = ("s", "d")  # continuations of one letter that do not make a word unknown


def canonical(vectors: Any, vocab_size: int | None = None) -> sparse.csr_matrix:
    """
    Return word vectors as CSR with ascending words, each once, and weights above zero; copied only if they are not
    canonical yet.

    Args:
        vectors: scipy matrix, array or tensor, (N, V) or (V,).
        vocab_size: the expected V.

    Raises:
        ValueError: if V differs, or weights are negative or not finite.
    """
    if hasattr(vectors, "detach"):
        dense = vectors.detach().cpu()
        vectors = (dense.to_dense() if dense.is_sparse or dense.is_sparse_csr else dense).float().numpy()
    if not sparse.issparse(vectors):
        vectors = np.atleast_2d(np.asarray(vectors, np.float32))
    matrix = sparse.csr_matrix(vectors, dtype=np.float32)
    if vocab_size is not None and matrix.shape[1] != vocab_size:
        raise ValueError(f"vectors: got {matrix.shape[1]} words for an index of {vocab_size}; encode with its model")
    if matrix.nnz and not (matrix.has_canonical_format and matrix.data.min() > 0):
        matrix = matrix.copy()
        matrix.sum_duplicates()
        matrix.eliminate_zeros()
    if matrix.nnz and not (matrix.data.min() > 0 and math.isfinite(matrix.data.max())):
        wrong = matrix.data[~((matrix.data > 0) & np.isfinite(matrix.data))]
        raise ValueError(f"vectors: got a weight of {wrong[0]}; pass finite weights of at least 0")
    return matrix


def unknown_note(known: Sequence[str], unknown: Sequence[str]) -> str:
    """Return the notice about the unknown words of a query."""
    names = ", ".join(map(repr, unknown[:SHOWN_UNKNOWN])) + ", ..." * (len(unknown) > SHOWN_UNKNOWN)
    effect = "they are not searched for" if known else "no word of the query is known, so nothing is found"
    return f"unknown words: {names}; {effect}; use words of the captions"


def _is_known(pieces: Sequence[tuple[int, str]], unknown_id: int | None, seen: np.ndarray | None) -> bool:
    """
    Return whether a tokenizer knows a word.

    Args:
        pieces: ids and texts of its pieces. A word in several pieces is known if they are longer than single letters.
        unknown_id: id of the token for unknown words.
        seen: (V,) number of training captions with each id, None if not known.
    """
    (_, first), *rest = pieces
    ids = [id for id, _ in pieces]
    if unknown_id in ids:
        return False
    is_seen = seen is not None and bool((seen[ids] > 0).all())
    if not rest:
        return len(first) > 1 or is_seen or seen is None
    whole = all(len(piece) > 1 or piece in ENDINGS for _, piece in rest)
    return whole and (len(first) > 2 or (len(first) > 1 and is_seen))


def _without(matrix: sparse.csr_matrix, dropped: Sequence[bool]) -> sparse.csr_matrix:
    """Return a matrix with these rows empty."""
    if any(dropped):
        matrix = matrix.copy()
        matrix.data[np.repeat(np.array(dropped), np.diff(matrix.indptr))] = 0
        matrix.eliminate_zeros()
    return matrix


def is_one_motion(motion: Any) -> bool:
    """Return whether this is one motion, an array (T, J, 3) or (T, F) or a `Motion`, not several."""
    return hasattr(motion, "model_input") or getattr(motion, "ndim", 0) == 2 or np.shape(motion)[2:] == (3,)


class Words:
    """
    The vocabulary and query encoder of an index: its processor and its model.

    Args:
        folder: folder of the index, whose state names both.
        engine: engine of the index.
        model: a folder, a Hub name or a loaded model, used instead of the named one.
        processor: used instead of the saved one.
    """

    def __init__(self, folder: IndexFolder, engine: IndexEngine, model: Any = None, processor: Any = None):
        self._folder, self._engine, self._model, self._processor = folder, engine, model, processor

    @property
    def model(self) -> Any:
        """See `LexMotionIndex.model`."""
        if self._model is None or isinstance(self._model, str | os.PathLike):
            name = self._model or self._folder.state.model
            if name is None:
                return None
            from transformers import AutoModel

            try:
                with loading_from(name):
                    self._model = AutoModel.from_pretrained(name, trust_remote_code=False).eval()
            except OSError as error:
                raise OSError(f"model {str(name)!r} of the index: {error}; pass model=... instead") from error
        return self._model

    @property
    def processor(self) -> Any:
        """See `LexMotionIndex.processor`."""
        folder, name = self._folder.path, self._folder.state.processor
        if self._processor is None and folder is not None and name is not None:
            from transformers import AutoProcessor, AutoTokenizer

            loader = AutoProcessor if (folder / name / "processor_config.json").is_file() else AutoTokenizer
            with loading_from(folder / name):
                self._processor = loader.from_pretrained(folder / name, trust_remote_code=False)
        return self._processor

    def ids_of(self, text: str | int) -> list[int]:
        """See `LexMotionIndex.word_ids`."""
        vocab_size = self._folder.state.vocab_size
        if not isinstance(text, str):
            if not 0 <= text < vocab_size:
                raise ValueError(f"word: got number {text}; pass one below {vocab_size}, the size of the vocabulary")
            return [int(text)]
        if self.processor is None:
            raise ValueError(f"no tokenizer in this index to read {text!r}; build the index with processor=...")
        tokenizer = getattr(self.processor, "tokenizer", self.processor)
        lexicon = getattr(self.processor, "lexicon", None)
        ids = list(dict.fromkeys(tokenizer(text, add_special_tokens=False)["input_ids"]))
        active = None if lexicon is None else lexicon.active
        unknown = [id for id in ids if id == tokenizer.unk_token_id or (active is not None and not active[id])]
        if unknown or not ids:
            candidates = np.flatnonzero(self._engine.used())
            words = self.names((candidates if active is None else candidates[active[candidates]]).tolist())
            near = difflib.get_close_matches(text.lower(), words, n=3, cutoff=0.6)
            hint = f"one of {', '.join(near)}" if near else "a word of its vocabulary"
            raise ValueError(f"word {text!r} is not in the vocabulary of this index; use {hint}")
        return ids

    def names(self, ids: Sequence[int]) -> list[str]:
        """Return the words of dimensions; without a processor, their numbers."""
        if self.processor is None:
            return [str(id) for id in ids]
        tokenizer = getattr(self.processor, "tokenizer", self.processor)
        tokens = tokenizer.convert_ids_to_tokens(list(ids))
        return [str(id) if token is None else token for id, token in zip(ids, tokens, strict=True)]

    def whole(self, ids: Sequence[int]) -> list[bool]:
        """Return which dimensions are words to show, not word pieces, which have no meaning alone."""
        pieces = getattr(getattr(self.processor, "lexicon", None), "piece", None)
        return [True] * len(ids) if pieces is None else (~pieces[np.asarray(ids, dtype=np.int64)]).tolist()

    def encode(self, text: Any = None, motion: Any = None, fps: Any = None) -> sparse.csr_matrix:
        """See `LexMotionIndex.encode`."""
        if (text is None) == (motion is None):
            raise ValueError("query: got both or neither of text and motion; pass exactly one")
        if any(not one.strip() for one in ([text] if isinstance(text, str) else text or ())):
            raise ValueError("query: got an empty text; describe the motion, or pass words with must=... or --must")
        if self.model is None:
            raise ValueError("no model in this index; pass model=... when building or loading it, or search vectors")
        if text is not None:
            texts = [text] if isinstance(text, str) else list(text)
            read = [self.read(one) for one in texts]
            for known, unknown in read:
                if unknown:
                    logger.warning("%s", unknown_note(known, unknown))
            return _without(self.model.encode_text(texts, self.processor), [bool(b and not a) for a, b in read])
        motions, views = [motion] if is_one_motion(motion) else motion, self._folder.state.views
        options = {"views": views} if views > 1 else {}  # other models need to take it only then
        return self.model.encode_motion(motions, fps, self.processor, **options)

    def read(self, text: str) -> tuple[list[str], list[str]]:
        """
        Return the words of a text that the tokenizer knows, and those that it does not know: it has no token for them,
        or only letters and fragments. Without a fast tokenizer every word is known.
        """
        tokenizer = getattr(self.processor, "tokenizer", self.processor)
        if not getattr(tokenizer, "is_fast", False):
            return text.split(), []
        encoded = tokenizer(text, add_special_tokens=False, verbose=False)
        pieces: dict[int, list[tuple[int, str]]] = {}
        places = zip(encoded["input_ids"], encoded.word_ids(), range(len(encoded["input_ids"])), strict=True)
        for id, word, place in places:
            span = encoded.token_to_chars(place)
            if word is not None and span is not None:
                pieces.setdefault(word, []).append((id, text[span.start : span.end].strip()))
        found: tuple[dict[str, None], dict[str, None]] = ({}, {})
        seen = getattr(getattr(self.processor, "lexicon", None), "document_frequency", None)
        for parts in pieces.values():
            name = "".join(part for _, part in parts)
            if any(character.isalpha() for character in name):
                found[not _is_known(parts, tokenizer.unk_token_id, seen)][name] = None
        return list(found[0]), list(found[1])

    def notes(self, text: str) -> list[str]:
        """Return what a user should know about the text of a query: its unknown words, and whether it is cut."""
        from ..encoding_lexmotion import text_positions

        known, unknown = self.read(text)
        notes = [unknown_note(known, unknown)] if unknown else []
        tokenizer = getattr(self.processor, "tokenizer", self.processor)
        if tokenizer is not None and self.model is not None:
            limit = min(text_positions(self.model.config), tokenizer.model_max_length)
            count = len(tokenizer(text, verbose=False)["input_ids"])
            if count > limit:
                notes.append(f"the text is too long, and the model reads its first {limit} of {count} tokens")
        return notes

    def query_of(self, words: Sequence[str | int]) -> sparse.csr_matrix:
        """Return a query (1, V) with weight 1 for each word."""
        if not words:
            raise ValueError("query: got nothing; pass a text, a motion, a vector, or words with must=... or --must")
        ids = sorted({id for word in words for id in self.ids_of(word)})
        row = (np.ones(len(ids), np.float32), (np.zeros(len(ids), np.int64), ids))
        return sparse.csr_matrix(row, shape=(1, self._folder.state.vocab_size))

    def queries(self, vectors: Any, boost: Mapping[Any, float] | None) -> list[Query]:
        """Return the words and weights of each query, boosted and of length 1; see `LexMotionIndex.search`."""
        matrix = canonical(vectors, self._folder.state.vocab_size)
        factors: dict[int, float] = {}
        for word, factor in (boost or {}).items():
            if not (isinstance(factor, int | float | np.number) and math.isfinite(factor) and factor >= 0):
                raise ValueError(f"boost of {word!r}: got {factor!r}; pass a finite number of at least 0")
            ids = self.ids_of(word)
            factors |= dict.fromkeys(ids, factor)
            if not np.isin(ids, matrix.indices).any():
                logger.warning("boost of %r has no effect: no query contains it; boost words of the query", word)
        prepared = []
        for start, stop in zip(matrix.indptr, matrix.indptr[1:], strict=False):
            words, weights = matrix.indices[start:stop], matrix.data[start:stop].astype(np.float64)
            if factors:
                weights = weights * [factors.get(word, 1.0) for word in words.tolist()]
            length = np.sqrt(np.square(weights).sum())
            kept = weights > 0
            weights = (weights[kept] / (length or 1.0)).astype(np.float32)
            prepared.append((words[kept].astype(np.int64), weights))
        return prepared
