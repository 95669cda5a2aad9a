"""Measures of lexical vectors, computed on arrays: coverage of captions, sparsity, universal words, opposites.

Vectors are numpy arrays or scipy sparse matrices of shape (N, V), weights at least zero; a word is active if its
weight is above zero. Captions are given by the ids of their content words, one list per item, as `Lexicon.content_ids`
returns them. Shares are fractions from 0 to 1. Functions raise ValueError if numbers of items differ, a weight is NaN,
an id is outside of the vocabulary, or `k` is below 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from scipy import sparse

# Opposites of side, height, direction, turn, pace and force; forms of one word are grouped.
ANTONYMS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("left",), ("right",)),
    (("up", "upward", "upwards"), ("down", "downward", "downwards")),
    (("forward", "forwards"), ("backward", "backwards", "back")),
    (("clockwise",), ("counterclockwise", "anticlockwise")),
    (("raise", "raises", "raising", "lift", "lifts"), ("lower", "lowers", "lowering")),
    (("fast", "quickly", "quick"), ("slow", "slowly")),
    (("push", "pushes", "pushing"), ("pull", "pulls", "pulling")),
)

# The classes of the table beside the paper's Figure 5.
MASS_CLASSES = ("stop_word", "caption_content", "expansion", "other")

_BLOCK_CELLS = 1 << 22


class LexiconLike(Protocol):
    """What these reports use of `lexmotion.processing.lexicon.Lexicon`."""

    stop_word: np.ndarray
    active: np.ndarray

    def ids(self, text: str) -> list[int]:
        """Return the ids of a text without special tokens."""


# ---------------------------------------------------------------- top words


def _as_embeds(embeds: Any) -> Any:
    """Return a canonical `csr_array` or a floating-point array; raise for other shapes and NaN."""
    if sparse.issparse(embeds):
        embeds = sparse.csr_array(embeds)
        if not embeds.has_canonical_format:
            embeds = embeds.copy()
            embeds.sum_duplicates()
        values = embeds.data
    else:
        embeds = np.asarray(embeds)
        embeds = values = embeds if embeds.dtype.kind == "f" else embeds.astype(np.float64)
    if embeds.ndim != 2:
        raise ValueError(f"shape of the lexical vectors: got {embeds.shape}; pass (items, words)")
    if np.isnan(values).any():
        row = int(np.isnan(embeds.sum(axis=1)).argmax())
        raise ValueError(f"vector of item {row}: got NaN; pass finite weights")
    return embeds


def _pick(embeds: Any, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return one value for each (row, column), in float64."""
    if sparse.issparse(embeds):
        # Whether indexing a csr_array this way returns a dense or a sparse vector depends on the version.
        embeds = sparse.csr_matrix(embeds)
    return np.asarray(embeds[rows, columns], dtype=np.float64).ravel()


def top_k(embeds: Any, k: int) -> tuple[np.ndarray, np.ndarray]:
    """
    Return the `k` heaviest active words of every vector.

    Args:
        embeds: lexical vectors (N, V).
        k: words per vector, at least 1.

    Returns:
        Ids, int64 (N, k), heaviest first and ties by ascending id, -1 if fewer words are active; and their weights,
        float64 of the same shape, 0 there.

    Example:
        >>> top_k(np.array([[0.0, 2.0, 3.0], [1.0, 0.0, 0.0]]), 2)[0]
        array([[ 2,  1],
               [ 0, -1]])
    """
    if k < 1:
        raise ValueError(f"k: got {k}; pass at least 1")
    embeds = _as_embeds(embeds)
    num_items, vocab_size = embeds.shape
    ids = np.full((num_items, k), -1, dtype=np.int64)
    weights = np.zeros((num_items, k), dtype=np.float64)
    step = max(1, _BLOCK_CELLS // max(1, vocab_size))
    for start in range(0, num_items, step):
        block = embeds[start : start + step]
        if sparse.issparse(block):
            block = block.tocoo()
            rows, columns, values = block.row, block.col, block.data
        else:
            if k < vocab_size // 4:
                # Only words at least as heavy as the k-th need sorting.
                least = -np.partition(-block, k - 1, axis=1)[:, k - 1 : k]
                rows, columns = np.nonzero((block >= least) & (block > 0))
            else:
                rows, columns = np.nonzero(block > 0)
            values = block[rows, columns]
        active = values > 0
        rows, columns, values = rows[active], columns[active], values[active]
        order = np.lexsort((columns, -values.astype(np.float64), rows))
        rows, columns, values = rows[order], columns[order], values[order]
        first = np.searchsorted(rows, np.arange(block.shape[0]))
        place = np.arange(len(rows)) - first[rows]
        kept = place < k
        ids[start + rows[kept], place[kept]] = columns[kept]
        weights[start + rows[kept], place[kept]] = values[kept]
    return ids, weights


def _flat(content: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Return (item, word) of every content word of every item, each once per item."""
    sizes = [len(words) for words in content]
    items = np.repeat(np.arange(len(content)), sizes)
    words = np.fromiter((word for row in content for word in row), dtype=np.int64, count=sum(sizes))
    if not len(words):
        return items, words
    width = int(words.max()) + 1
    if words.min() < 0:
        raise ValueError(f"id of a content word: got {int(words.min())}; pass ids from 0")
    return np.divmod(np.unique(items * width + words), width)


def _check_paired(embeds: Any, content: Sequence[Sequence[int]]) -> None:
    if embeds.shape[0] != len(content):
        raise ValueError(f"content: got {embeds.shape[0]} vectors but {len(content)} lists; pass one list per vector")


def item_coverage(embeds: Any, content: Sequence[Sequence[int]], k: int = 20) -> np.ndarray:
    """
    Compute for every item the share of its content words that are among the top `k` words of its vector.

    Args:
        embeds: lexical vectors of motions or of captions (N, V).
        content: ids of each item's content words (N); repeated ids count once.
        k: words per vector.

    Returns:
        Shares (N,); NaN for an item without content words.
    """
    embeds = _as_embeds(embeds)
    _check_paired(embeds, content)
    return _covered(top_k(embeds, k)[0], content, embeds.shape[1])


def _covered(ids: np.ndarray, content: Sequence[Sequence[int]], vocab_size: int) -> np.ndarray:
    items, words = _flat(content)
    if len(words) and words.max() >= vocab_size:
        raise ValueError(f"id of a content word: got {int(words.max())}; pass ids below {vocab_size}, the vector size")
    rows, places = np.nonzero(ids >= 0)
    found = np.isin(items * vocab_size + words, rows * vocab_size + ids[rows, places])
    total = np.bincount(items, minlength=len(content))
    hits = np.bincount(items, weights=found, minlength=len(content))
    return np.divide(hits, total, out=np.full(len(content), np.nan), where=total > 0)


def _mean(values: np.ndarray) -> float:
    """Average over the items that have a value; NaN if none has."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")


def caption_coverage(embeds: Any, content: Sequence[Sequence[int]], k: int = 20) -> float:
    """
    Average [`item_coverage`] over the items that have content words; NaN if none has.

    Example:
        >>> caption_coverage(np.array([[0.0, 2.0, 3.0, 0.1]]), [[0, 2]], k=2)
        0.5
    """
    return _mean(item_coverage(embeds, content, k))


def prior_words(document_frequency: Any, k: int = 20, content_mask: Any = None) -> np.ndarray:
    """
    Return the corpus prior: the `k` content words that occur in the most training captions.

    Args:
        document_frequency: number of training captions (or clips) that each word occurs in (V,).
        k: number of words.
        content_mask: words to choose from, bool (V,), such as `lexicon.active & ~lexicon.stop_word`.

    Returns:
        Ids, int64 (<= k,), most frequent first, ties by ascending id.
    """
    frequency = np.asarray(document_frequency, dtype=np.float64)
    if content_mask is not None:
        frequency = np.where(np.asarray(content_mask, dtype=bool), frequency, 0.0)
    ids = top_k(frequency[None], k)[0][0]
    return ids[ids >= 0]


def prior_coverage(
    document_frequency: Any, content: Sequence[Sequence[int]], k: int = 20, content_mask: Any = None
) -> float:
    """
    Compute the coverage reached by naming the [`prior_words`] for every item: the floor for [`caption_coverage`].
    """
    words = prior_words(document_frequency, k, content_mask)
    ids = np.broadcast_to(words, (len(content), len(words)))
    return _mean(_covered(ids, content, len(np.asarray(document_frequency))))


# ---------------------------------------------------------------- the space as a whole


def item_counts(embeds: Any) -> np.ndarray:
    """Count the items that each word is active in: int64 (V,)."""
    embeds = _as_embeds(embeds)
    if sparse.issparse(embeds):
        return np.bincount(embeds.indices[embeds.data > 0], minlength=embeds.shape[1])
    return np.count_nonzero(embeds > 0, axis=0)


def active_words(embeds: Any) -> np.ndarray:
    """Count the words that are active in each item: int64 (N,)."""
    embeds = _as_embeds(embeds)
    if sparse.issparse(embeds):
        rows = np.repeat(np.arange(embeds.shape[0]), np.diff(embeds.indptr))
        return np.bincount(rows[embeds.data > 0], minlength=embeds.shape[0])
    return np.count_nonzero(embeds > 0, axis=1)


def dimension_usage(embeds: Any, universal_share: float = 0.5) -> dict[str, float]:
    """
    Measure whether the space is sparse and uses its words.

    Args:
        embeds: lexical vectors (N, V), N at least 1.
        universal_share: a word that is active in more than this share of the items is universal.

    Returns:
        `active_words`, the mean number of active words per item; `distinct_words`, words active in at least one item;
        `universal`, words active in over `universal_share` of them; `empty`, items without any active word.
    """
    embeds = _as_embeds(embeds)
    if not embeds.shape[0]:
        raise ValueError("vectors: got none; pass at least one item")
    counts, sizes = item_counts(embeds), active_words(embeds)
    return {
        "active_words": float(sizes.mean()),
        "distinct_words": float(np.count_nonzero(counts)),
        "universal": float(np.count_nonzero(counts > universal_share * embeds.shape[0])),
        "empty": float(np.count_nonzero(sizes == 0)),
    }


def _top_indicator(embeds: Any, k: int) -> sparse.csr_array:
    """Return (N, V) with 1 at each item's top words."""
    ids, _ = top_k(embeds, k)
    rows, places = np.nonzero(ids >= 0)
    return sparse.csr_array((np.ones(len(rows)), (rows, ids[rows, places])), shape=embeds.shape)


def top_k_overlap(text_embeds: Any, motion_embeds: Any, k: int = 20) -> float:
    """
    Compute the mean share of a caption's top `k` words that are also among the top `k` of its motion.

    Args:
        text_embeds, motion_embeds: lexical vectors (N, V), paired by row, N at least 1.
        k: words per vector. The share is of `k`, or of the longer of the two lists if both have fewer active words.

    Returns:
        From 0 to 1; a pair without any active word counts 0.
    """
    text_embeds, motion_embeds = _as_embeds(text_embeds), _as_embeds(motion_embeds)
    if text_embeds.shape != motion_embeds.shape or not text_embeds.shape[0]:
        raise ValueError(f"vectors: got text {text_embeds.shape}, motion {motion_embeds.shape}; pass pairs by row")
    text, motion = _top_indicator(text_embeds, k), _top_indicator(motion_embeds, k)
    size = np.maximum(np.maximum(text.sum(axis=1), motion.sum(axis=1)), 1)
    return float((text.multiply(motion).sum(axis=1) / size).mean())


# ---------------------------------------------------------------- opposites


def roc_auc(scores: Any, positive: Any) -> float:
    """
    Compute the area under the ROC curve: the chance that a positive item scores above a negative one, ties counting
    half.

    Args:
        scores: one score per item (N,).
        positive: bool (N,).

    Returns:
        0.5 means that the sides cannot be distinguished; NaN if one side is empty.
    """
    from scipy.stats import rankdata

    scores, positive = np.asarray(scores, dtype=np.float64), np.asarray(positive, dtype=bool)
    number, other = int(positive.sum()), int((~positive).sum())
    if not number or not other:
        return float("nan")
    return float((rankdata(scores)[positive].sum() - number * (number + 1) / 2) / (number * other))


def antonym_ids(lexicon: LexiconLike) -> dict[str, tuple[list[int], list[int]]]:
    """
    Look up the ids of the opposites in a lexicon.

    Words that are not active or that are split into pieces are skipped, and so are pairs with an empty side.

    Returns:
        Name such as `"left/right"` -> ids of the forms of either word.
    """
    found = {}
    for pair in ANTONYMS:
        sides = []
        for forms in pair:
            pieces = [lexicon.ids(form) for form in forms]
            sides.append([ids[0] for ids in pieces if len(ids) == 1 and lexicon.active[ids[0]]])
        if all(sides):
            found[f"{pair[0][0]}/{pair[1][0]}"] = (sides[0], sides[1])
    return found


def antonym_report(
    embeds: Any,
    content: Sequence[Sequence[int]],
    pairs: Mapping[str, tuple[Sequence[int], Sequence[int]]],
    min_items: int = 1,
) -> dict[str, dict[str, float]]:
    """
    Measure how well vectors distinguish opposite words, pair by pair.

    Of the items whose captions name exactly one side, those that name the first are positive; an item's score is its
    weight of the first side (the heaviest of its forms) minus that of the second.

    Args:
        embeds: lexical vectors of motions (N, V).
        content: ids of each item's content words (N).
        pairs: name -> ids of either side, as [`antonym_ids`] returns them.
        min_items: a pair with fewer items on a side is skipped.

    Returns:
        Name -> `auc` (0.5 = not distinguished), `first` and `second`, the number of items on either side.
    """
    embeds = _as_embeds(embeds)
    _check_paired(embeds, content)
    items, words = _flat(content)
    report = {}
    for name, sides in pairs.items():
        named, weight = [], []
        for ids in sides:
            named.append(np.bincount(items[np.isin(words, ids)], minlength=len(content)) > 0)
            columns = embeds[:, np.asarray(ids, dtype=np.int64)]
            columns = columns.toarray() if sparse.issparse(columns) else columns
            weight.append(columns.max(axis=1).astype(np.float64))
        one_side = named[0] ^ named[1]
        first, second = int((named[0] & one_side).sum()), int((named[1] & one_side).sum())
        if min(first, second) >= max(1, min_items):
            auc = roc_auc((weight[0] - weight[1])[one_side], named[0][one_side])
            report[name] = {"auc": auc, "first": float(first), "second": float(second)}
    return report


def antonym_auc(
    embeds: Any,
    content: Sequence[Sequence[int]],
    lexicon: LexiconLike,
    pairs: Mapping[str, tuple[Sequence[int], Sequence[int]]] | None = None,
    min_items: int = 3,
) -> float | None:
    """
    Compute the mean AUC over [`antonym_report`]'s pairs (default: the `ANTONYMS` that the lexicon has); None without
    pairs.
    """
    pairs = antonym_ids(lexicon) if pairs is None else pairs
    report = antonym_report(embeds, content, pairs, min_items)
    return float(np.mean([row["auc"] for row in report.values()])) if report else None


# ---------------------------------------------------------------- importance of a text model (Figure 5)


def stop_word_share(importance: Any, stop_word: Any, k: int = 10) -> float:
    """
    Compute the share of stop words among the top `k` words.

    Args:
        importance: importance of each word for each caption (N, V).
        stop_word: `lexicon.stop_word`, bool (V,).
        k: words per caption.

    Returns:
        Mean over captions, from 0 to 1; a caption without active words is skipped, NaN if all are.
    """
    ids, _ = top_k(importance, k)
    listed = ids >= 0
    size = listed.sum(axis=1)
    stop = (np.asarray(stop_word, dtype=bool)[ids] & listed).sum(axis=1)
    return _mean(np.divide(stop, size, out=np.full(len(ids), np.nan), where=size > 0))


def mass_by_class(
    importance: Any, content: Sequence[Sequence[int]], stop_word: Any, content_mask: Any
) -> dict[str, float]:
    """
    Compute the share of importance per class of words: the table beside the paper's Figure 5.

    Args:
        importance: importance of each word for each caption (N, V), not negative and not all zero.
        content: ids of each caption's content words (N).
        stop_word: `lexicon.stop_word`, bool (V,).
        content_mask: the words of the space, `lexicon.active`, bool (V,).

    Returns:
        Share of the total importance on `stop_word`; `caption_content`, content words that the caption has;
        `expansion`, content words that it does not have; `other`, everything outside of the space. They sum to 1.
    """
    importance = _as_embeds(importance)
    _check_paired(importance, content)
    values = importance.data if sparse.issparse(importance) else importance
    if values.size and values.min() < 0:
        raise ValueError(f"importance: got {values.min()}; pass values of at least 0")
    column = np.asarray(importance.sum(axis=0, dtype=np.float64))
    total = column.sum()
    if not total > 0:
        raise ValueError("importance: got only zeros; pass at least one positive value")
    stop = np.asarray(stop_word, dtype=bool)
    inside = np.asarray(content_mask, dtype=bool) & ~stop
    items, words = _flat(content)
    kept = inside[words]
    present = _pick(importance, items[kept], words[kept]).sum()
    shares = {
        "stop_word": float(column[stop].sum() / total),
        "caption_content": float(present / total),
        "expansion": float(max(column[inside].sum() - present, 0.0) / total),
    }
    return shares | {"other": max(0.0, 1.0 - sum(shares.values()))}
