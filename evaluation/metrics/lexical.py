"""What a lexical vector says, measured on arrays: coverage of captions, sparsity, universal words, opposites.

Vectors come as numpy arrays or scipy sparse matrices of shape `(N, V)`, weights at least zero; a word is active where
its weight is above zero. Captions come as ids of their content words, one list an item, as `Lexicon.content_ids` gives
them. Shares are fractions from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from scipy import sparse

# Opposites of side, height, direction, turn, pace and force; several forms of one word stand together.
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
    """What these reports ask of `lexmotion.processing.lexicon.Lexicon`."""

    stop_word: np.ndarray
    active: np.ndarray

    def ids(self, text: str) -> list[int]:
        """Ids of a text without special tokens."""


# ---------------------------------------------------------------- top words


def _as_embeds(embeds: Any) -> Any:
    """Canonical `csr_array` or a floating-point array; an error for other shapes and NaN."""
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
        raise ValueError(f"Lexical vectors must have shape (items, words), got {embeds.shape}.")
    if np.isnan(values).any():
        where = int(np.isnan(embeds.sum(axis=1)).argmax())
        raise ValueError(f"The vector of item {where} holds NaN.")
    return embeds


def _pick(embeds: Any, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """One value for each (row, column), in float64."""
    if sparse.issparse(embeds):
        embeds = sparse.csr_matrix(
            embeds
        )  # Indexing a csr_array this way returns a dense or a sparse vector by version.
    return np.asarray(embeds[rows, columns], dtype=np.float64).ravel()


def top_k(embeds: Any, k: int) -> tuple[np.ndarray, np.ndarray]:
    """
    The `k` heaviest active words of every vector.

    Args:
        embeds (`np.ndarray` or `scipy.sparse` matrix of shape `(N, V)`): lexical vectors.
        k (`int`): words a vector, at least 1.

    Returns:
        `tuple` of ids, int64 of shape `(N, k)`, heaviest first and ties by ascending id, -1 where fewer words are
        active; and their weights, float64 of the same shape, 0 there.

    Raises:
        ValueError: `k` is below 1, the shape is another one, or a weight is NaN.

    Example:

        >>> top_k(np.array([[0.0, 2.0, 3.0], [1.0, 0.0, 0.0]]), 2)[0]
        array([[ 2,  1],
               [ 0, -1]])
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}.")
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
                # Only what is as heavy as the k-th needs sorting.
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
    """(item, word) of every content word of every item, each once an item."""
    sizes = [len(words) for words in content]
    items = np.repeat(np.arange(len(content)), sizes)
    words = np.fromiter((word for row in content for word in row), dtype=np.int64, count=sum(sizes))
    if not len(words):
        return items, words
    width = int(words.max()) + 1
    if words.min() < 0:
        raise ValueError(f"A content word has the id {int(words.min())}: ids start at 0.")
    return np.divmod(np.unique(items * width + words), width)


def _check_paired(embeds: Any, content: Sequence[Sequence[int]]) -> None:
    if embeds.shape[0] != len(content):
        raise ValueError(f"{embeds.shape[0]} vectors, but content words of {len(content)} items: give one list each.")


def item_coverage(embeds: Any, content: Sequence[Sequence[int]], k: int = 20) -> np.ndarray:
    """
    For every item the share of its content words that are among the top `k` words of its vector.

    Args:
        embeds (`np.ndarray` or `scipy.sparse` matrix of shape `(N, V)`): lexical vectors.
        content (`Sequence[Sequence[int]]` of length N): ids of each item's content words; repeated ids count once.
        k (`int`, *optional*, defaults to 20): words a vector.

    Returns:
        `np.ndarray` of shape `(N,)`: shares; NaN for an item without content words.
    """
    embeds = _as_embeds(embeds)
    _check_paired(embeds, content)
    return _covered(top_k(embeds, k)[0], content, embeds.shape[1])


def _covered(ids: np.ndarray, content: Sequence[Sequence[int]], vocab_size: int) -> np.ndarray:
    items, words = _flat(content)
    if len(words) and words.max() >= vocab_size:
        raise ValueError(f"A content word has the id {int(words.max())}; the vectors have {vocab_size} dimensions.")
    rows, places = np.nonzero(ids >= 0)
    found = np.isin(items * vocab_size + words, rows * vocab_size + ids[rows, places])
    total = np.bincount(items, minlength=len(content))
    hits = np.bincount(items, weights=found, minlength=len(content))
    return np.divide(hits, total, out=np.full(len(content), np.nan), where=total > 0)


def _mean(values: np.ndarray) -> float:
    """Mean over the items that have a value; NaN when none has."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")


def caption_coverage(embeds: Any, content: Sequence[Sequence[int]], k: int = 20) -> float:
    """
    Mean share of an item's content words that are among the top `k` words of its vector.

    Args:
        embeds (`np.ndarray` or `scipy.sparse` matrix of shape `(N, V)`): lexical vectors, of motions or of captions.
        content (`Sequence[Sequence[int]]` of length N): ids of each item's content words; an item without any is left
            out.
        k (`int`, *optional*, defaults to 20): words a vector.

    Returns:
        `float`: from 0 to 1; NaN when no item has content words.

    Raises:
        ValueError: numbers of items differ, an id is outside of the vocabulary, `k` is below 1, a weight is NaN.

    Example:

        >>> caption_coverage(np.array([[0.0, 2.0, 3.0, 0.1]]), [[0, 2]], k=2)
        0.5
    """
    return _mean(item_coverage(embeds, content, k))


def prior_words(document_frequency: Any, k: int = 20, content_mask: Any = None) -> np.ndarray:
    """
    The corpus prior: the `k` content words that most training captions have.

    Args:
        document_frequency (`np.ndarray` of shape `(V,)`): in how many training captions (or clips) each word occurs.
        k (`int`, *optional*, defaults to 20): how many words.
        content_mask (`np.ndarray` of shape `(V,)`, bool, *optional*): words to choose from, such as
            `lexicon.active & ~lexicon.stop_word`.

    Returns:
        `np.ndarray` of shape `(<= k,)`, int64: ids, most frequent first, ties by ascending id.
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
    The coverage reached by naming the corpus prior for every item: what [`caption_coverage`] must exceed.

    Args:
        document_frequency, k, content_mask: as in [`prior_words`].
        content (`Sequence[Sequence[int]]` of length N): as in [`caption_coverage`].

    Returns:
        `float`: from 0 to 1; NaN when no item has content words.
    """
    words = prior_words(document_frequency, k, content_mask)
    ids = np.broadcast_to(words, (len(content), len(words)))
    return _mean(_covered(ids, content, len(np.asarray(document_frequency))))


# ---------------------------------------------------------------- the space as a whole


def item_counts(embeds: Any) -> np.ndarray:
    """In how many of the N items each word is active: int64 of shape `(V,)`."""
    embeds = _as_embeds(embeds)
    if sparse.issparse(embeds):
        return np.bincount(embeds.indices[embeds.data > 0], minlength=embeds.shape[1])
    return np.count_nonzero(embeds > 0, axis=0)


def active_words(embeds: Any) -> np.ndarray:
    """How many words are active in each item: int64 of shape `(N,)`."""
    embeds = _as_embeds(embeds)
    if sparse.issparse(embeds):
        rows = np.repeat(np.arange(embeds.shape[0]), np.diff(embeds.indptr))
        return np.bincount(rows[embeds.data > 0], minlength=embeds.shape[0])
    return np.count_nonzero(embeds > 0, axis=1)


def dimension_usage(embeds: Any, universal_share: float = 0.5) -> dict[str, float]:
    """
    Is the space sparse and alive?

    Args:
        embeds (`np.ndarray` or `scipy.sparse` matrix of shape `(N, V)`): lexical vectors.
        universal_share (`float`, *optional*, defaults to 0.5): a word active in more of the items is universal.

    Returns:
        `dict`: `active_words`, the mean number of active words an item; `distinct_words`, words active in at least one
        item; `universal`, words active in over `universal_share` of them; `empty`, items without any active word.

    Raises:
        ValueError: no items, the shape is another one, or a weight is NaN.
    """
    embeds = _as_embeds(embeds)
    if not embeds.shape[0]:
        raise ValueError("No vectors given.")
    counts, sizes = item_counts(embeds), active_words(embeds)
    return {
        "active_words": float(sizes.mean()),
        "distinct_words": float(np.count_nonzero(counts)),
        "universal": float(np.count_nonzero(counts > universal_share * embeds.shape[0])),
        "empty": float(np.count_nonzero(sizes == 0)),
    }


def _top_indicator(embeds: Any, k: int) -> sparse.csr_array:
    """(N, V) with 1 at each item's top words."""
    ids, _ = top_k(embeds, k)
    rows, places = np.nonzero(ids >= 0)
    return sparse.csr_array((np.ones(len(rows)), (rows, ids[rows, places])), shape=embeds.shape)


def top_k_overlap(text_embeds: Any, motion_embeds: Any, k: int = 20) -> float:
    """
    Mean share of a caption's top `k` words that are also among the top `k` of its motion.

    Args:
        text_embeds, motion_embeds (`np.ndarray` or `scipy.sparse` matrix of shape `(N, V)`): paired by row.
        k (`int`, *optional*, defaults to 20): words a vector. The share is of `k`, or of the larger of the two lists
            where both have fewer active words.

    Returns:
        `float`: from 0 to 1; a pair without any active word counts 0.

    Raises:
        ValueError: shapes differ or are empty, `k` is below 1, a weight is NaN.
    """
    text_embeds, motion_embeds = _as_embeds(text_embeds), _as_embeds(motion_embeds)
    if text_embeds.shape != motion_embeds.shape or not text_embeds.shape[0]:
        raise ValueError(f"Vectors must be paired: text {text_embeds.shape}, motion {motion_embeds.shape}.")
    text, motion = _top_indicator(text_embeds, k), _top_indicator(motion_embeds, k)
    size = np.maximum(np.maximum(text.sum(axis=1), motion.sum(axis=1)), 1)
    return float((text.multiply(motion).sum(axis=1) / size).mean())


# ---------------------------------------------------------------- opposites


def roc_auc(scores: Any, positive: Any) -> float:
    """
    Area under the ROC curve: the chance that a positive item scores above a negative one, ties counting half.

    Args:
        scores (`np.ndarray` of shape `(N,)`), positive (`np.ndarray` of shape `(N,)`, bool).

    Returns:
        `float`: 0.5 means not told apart; NaN when one side is empty.
    """
    from scipy.stats import rankdata

    scores, positive = np.asarray(scores, dtype=np.float64), np.asarray(positive, dtype=bool)
    number, other = int(positive.sum()), int((~positive).sum())
    if not number or not other:
        return float("nan")
    return float((rankdata(scores)[positive].sum() - number * (number + 1) / 2) / (number * other))


def antonym_ids(lexicon: LexiconLike) -> dict[str, tuple[list[int], list[int]]]:
    """
    Ids of the opposites in a lexicon.

    Args:
        lexicon (`Lexicon`): words that are not active, or that are split into pieces, are left out.

    Returns:
        `dict`: name such as `"left/right"` -> ids of the forms of either word; pairs with an empty side are left out.
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
    How well vectors tell opposite words apart, pair by pair.

    Of the items whose captions name exactly one side, those that name the first are positive; an item's score is its
    weight of the first side (the heaviest of its forms) minus that of the second.

    Args:
        embeds (`np.ndarray` or `scipy.sparse` matrix of shape `(N, V)`): lexical vectors of motions.
        content (`Sequence[Sequence[int]]` of length N): ids of each item's content words.
        pairs (`Mapping[str, tuple]`): name -> ids of either side, as [`antonym_ids`] gives them.
        min_items (`int`, *optional*, defaults to 1): a pair with fewer items on a side is left out.

    Returns:
        `dict`: name -> `auc` (0.5 = not told apart), `first` and `second`, the number of items on either side.

    Raises:
        ValueError: numbers of items differ, or a weight is NaN.
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
    Mean AUC with which vectors tell opposite words apart, over [`antonym_report`]'s pairs.

    Args:
        embeds, content, min_items: as in [`antonym_report`].
        lexicon (`Lexicon`): gives the ids of left/right, up/down, forward/backward and the others of `ANTONYMS`.
        pairs (`Mapping[str, tuple]`, *optional*): other pairs.

    Returns:
        `float`: 0.5 = not told apart; `None` when no pair has `min_items` items on both sides.
    """
    pairs = antonym_ids(lexicon) if pairs is None else pairs
    report = antonym_report(embeds, content, pairs, min_items)
    return float(np.mean([row["auc"] for row in report.values()])) if report else None


# ---------------------------------------------------------------- importance of a text model (Figure 5)


def stop_word_share(importance: Any, stop_word: Any, k: int = 10) -> float:
    """
    Share of stop words among the top `k` words.

    Args:
        importance (`np.ndarray` or `scipy.sparse` matrix of shape `(N, V)`): importance of each word for each caption.
        stop_word (`np.ndarray` of shape `(V,)`, bool): `lexicon.stop_word`.
        k (`int`, *optional*, defaults to 10): words a caption.

    Returns:
        `float`: mean over captions, from 0 to 1; a caption without active words is left out, NaN when all are.
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
    Where the importance goes: the table beside the paper's Figure 5.

    Args:
        importance (`np.ndarray` or `scipy.sparse` matrix of shape `(N, V)`): importance of each word for each caption.
        content (`Sequence[Sequence[int]]` of length N): ids of each caption's content words.
        stop_word (`np.ndarray` of shape `(V,)`, bool): `lexicon.stop_word`.
        content_mask (`np.ndarray` of shape `(V,)`, bool): the words of the space, `lexicon.active`.

    Returns:
        `dict`: share of the total importance on `stop_word`; `caption_content`, content words the caption has;
        `expansion`, content words it does not have; `other`, everything outside of the space. They sum to 1.

    Raises:
        ValueError: numbers of items differ, a weight is NaN or negative, or all importance is zero.
    """
    importance = _as_embeds(importance)
    _check_paired(importance, content)
    values = importance.data if sparse.issparse(importance) else importance
    if values.size and values.min() < 0:
        raise ValueError(f"Importance must not be negative, got {values.min()}.")
    column = np.asarray(importance.sum(axis=0, dtype=np.float64))
    total = column.sum()
    if not total > 0:
        raise ValueError("All importance is zero.")
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
