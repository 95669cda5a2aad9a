"""Words of an index: which dimensions they are, and the vectors of queries."""

import difflib
import logging
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import sparse

from .engine import IndexEngine, Query
from .folder import IndexFolder

logger = logging.getLogger(__name__)


def canonical(vectors: Any, vocab_size: int | None = None) -> sparse.csr_matrix:
    """
    Vectors of words as CSR with ascending words, each once, weights above zero; a copy where they are not yet.

    Args:
        vectors: scipy matrix, array or tensor (N, V) or (V,). vocab_size: V that is expected.

    Raises:
        ValueError: another V, or weights below zero or not finite.
    """
    if hasattr(vectors, "detach"):
        dense = vectors.detach().cpu()
        vectors = (dense.to_dense() if dense.is_sparse or dense.is_sparse_csr else dense).float().numpy()
    if not sparse.issparse(vectors):
        vectors = np.atleast_2d(np.asarray(vectors, np.float32))
    matrix = sparse.csr_matrix(vectors, dtype=np.float32)
    if vocab_size is not None and matrix.shape[1] != vocab_size:
        raise ValueError(
            f"vectors have {matrix.shape[1]} dimensions, the index has {vocab_size} words: encode with its model"
        )
    if matrix.nnz and not (matrix.has_canonical_format and matrix.data.min() > 0):
        matrix = matrix.copy()
        matrix.sum_duplicates()
        matrix.eliminate_zeros()
        wrong = matrix.data[~((matrix.data > 0) & np.isfinite(matrix.data))]
        if len(wrong):
            raise ValueError(f"weights of words must be finite and at least zero, got {wrong[0]}")
    if matrix.nnz and not math.isfinite(matrix.data.max()):
        raise ValueError("weights of words must be finite and at least zero, got inf")
    return matrix


class Words:
    """
    What reads words and encodes queries: the model and the processor of an index.

    Args:
        folder: of the index, whose state names both. engine: of the index. model: a folder, a Hub name, or the model
            itself, instead of the one that is named. processor: instead of the one that is saved.
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
                self._model = AutoModel.from_pretrained(name).eval()
            except OSError as error:
                raise OSError(f"the index names the model {str(name)!r}: {error}; pass model=... instead") from error
        return self._model

    @property
    def processor(self) -> Any:
        """See `LexMotionIndex.processor`."""
        folder, name = self._folder.path, self._folder.state.processor
        if self._processor is None and folder is not None and name is not None:
            from transformers import AutoProcessor, AutoTokenizer

            loader = AutoProcessor if (folder / name / "processor_config.json").is_file() else AutoTokenizer
            self._processor = loader.from_pretrained(folder / name)
        return self._processor

    def ids_of(self, text: str | int) -> list[int]:
        """See `LexMotionIndex.word_ids`."""
        vocab_size = self._folder.state.vocab_size
        if not isinstance(text, str):
            if not 0 <= text < vocab_size:
                raise ValueError(f"word {text} is outside of the vocabulary of {vocab_size}")
            return [int(text)]
        if self.processor is None:
            raise ValueError(f"this index has no tokenizer to read {text!r} with: build it with processor=...")
        tokenizer = getattr(self.processor, "tokenizer", self.processor)
        lexicon = getattr(self.processor, "lexicon", None)
        ids = list(dict.fromkeys(tokenizer(text, add_special_tokens=False)["input_ids"]))
        active = None if lexicon is None else lexicon.active
        unknown = [id for id in ids if id == tokenizer.unk_token_id or (active is not None and not active[id])]
        if unknown or not ids:
            candidates = np.flatnonzero(self._engine.used())
            words = self.names((candidates if active is None else candidates[active[candidates]]).tolist())
            near = difflib.get_close_matches(text.lower(), words, n=3, cutoff=0.6)
            hint = f"; near it are {', '.join(near)}" if near else ""
            raise ValueError(f"the vocabulary of this index does not have the word {text!r}{hint}")
        return ids

    def names(self, ids: Sequence[int]) -> list[str]:
        """Words of dimensions; their numbers without a processor."""
        if self.processor is None:
            return [str(id) for id in ids]
        tokenizer = getattr(self.processor, "tokenizer", self.processor)
        tokens = tokenizer.convert_ids_to_tokens(list(ids))
        return [str(id) if token is None else token for id, token in zip(ids, tokens, strict=True)]

    def encode(self, text: Any = None, motion: Any = None, fps: Any = None) -> sparse.csr_matrix:
        """See `LexMotionIndex.encode`."""
        if (text is None) == (motion is None):
            raise ValueError("pass a text or a motion, and not both")
        if any(not one.strip() for one in ([text] if isinstance(text, str) else text or ())):
            raise ValueError("the query is empty: say what happens in the motion, or give words that must be there")
        if self.model is None:
            raise ValueError("this index names no model: pass model=... when it is built or loaded, or search vectors")
        if text is not None:
            return self.model.encode_text([text] if isinstance(text, str) else list(text), self.processor)
        motions = [motion] if hasattr(motion, "ndim") else list(motion)
        return self.model.encode_motion(motions, fps, self.processor)

    def query_of(self, words: Sequence[str | int]) -> sparse.csr_matrix:
        """A query (1, V) of words alone, every one weighing 1."""
        if not words:
            raise ValueError("there is no query: pass a text, a motion, a vector, or words that must be there")
        ids = sorted({id for word in words for id in self.ids_of(word)})
        row = (np.ones(len(ids), np.float32), (np.zeros(len(ids), np.int64), ids))
        return sparse.csr_matrix(row, shape=(1, self._folder.state.vocab_size))

    def queries(self, vectors: Any, boost: Mapping[Any, float] | None) -> list[Query]:
        """Words and weights of each query, boosted, of length 1; see `LexMotionIndex.search`."""
        matrix = canonical(vectors, self._folder.state.vocab_size)
        factors: dict[int, float] = {}
        for word, factor in (boost or {}).items():
            if not (math.isfinite(factor) and factor >= 0):
                raise ValueError(f"boost of {word!r} must be a number of at least 0, got {factor}")
            ids = self.ids_of(word)
            factors |= dict.fromkeys(ids, factor)
            if not np.isin(ids, matrix.indices).any():
                logger.warning("boosting %r changes nothing: no query has it", word)
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
