"""Retrieval metrics on similarity matrices: ranks, recalls, median rank, and the protocols of the field.

Everything here takes arrays; no model is ever called. A similarity matrix is always text x motion: row `i` scores
caption `i` against every motion. Each result contains how it was measured (protocol, tie rule, gallery size), since
R@1 of one protocol cannot be compared with R@1 of another:

* `all-strict`: whole gallery, only the paired item is right ("normal" in TMR's code, Petrovich et al. 2023).
* `all-duplicates`: whole gallery, every item with the identical caption is right, the best of them counts
  (MotionPatches, Yu et al. 2024; "DsPair" elsewhere).
* `threshold`: whole gallery, every item with nearly the same caption is right: text similarity above 0.95 on TMR's
  scale from 0 to 1, that is, a cosine above 0.9.
* `dissimilar`: strict, on a given list of motions whose captions clearly differ (TMR's 100 pairs).
* `small-batches`: strict, mean over shuffled pools of 32 (Guo et al. 2022); MedR is the mean of the pools' medians.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers.utils import logging

logger = logging.get_logger(__name__)

PROTOCOLS = ("all-strict", "all-duplicates", "threshold", "dissimilar", "small-batches")
TIE_RULES = ("average", "expected", "optimistic", "pessimistic")
RECALL_AT = (1, 2, 3, 5, 10)
DIRECTIONS = ("t2m", "m2t")

# Cells of the similarity matrix per block; bounds the temporary memory to a few times 16 MiB.
_BLOCK_CELLS = 1 << 22
# Blocks that are read a second time are kept up to this size, and computed again beyond it.
_KEPT_BYTES = 1 << 28

# Rows [start, stop) of the boolean relevance matrix of one direction.
_RelevantRows = Callable[[int, int], np.ndarray]


@dataclass(frozen=True)
class ScoreRows:
    """
    A similarity matrix that is computed block by block when it is read, so that it never has to fit into memory.

    Args:
        shape: number of rows (captions) and columns (motions).
        rows: function from `start` and `stop` to the rows in between, (stop - start, columns).
    """

    shape: tuple[int, int]
    rows: Callable[[int, int], np.ndarray]

    def blocks(self, known: Mapping[int, np.ndarray] | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the first row and the scores of each block, floating point; `known` blocks are not computed again."""
        step = max(1, _BLOCK_CELLS // self.shape[1])
        for start in range(0, self.shape[0], step):
            if known and start in known:
                yield start, known[start]
                continue
            scores = np.ascontiguousarray(self.rows(start, min(start + step, self.shape[0])))
            yield start, scores if scores.dtype.kind == "f" else scores.astype(np.float64)

    def matrix(self) -> np.ndarray:
        """Compute the whole matrix."""
        return np.concatenate([scores for _, scores in self.blocks()])


def cosine_similarity(a: Any, b: Any, eps: float = 1e-12) -> np.ndarray:
    """
    Compute the cosine of every row of `a` with every row of `b`; an all-zero row has cosine 0 with everything.

    Args:
        a, b: vectors, arrays or `scipy.sparse` matrices (N, D) and (M, D).
        eps: the smallest length to divide by.

    Returns:
        Cosines (N, M), float32 unless an input is float64.

    Raises:
        ValueError: if an input is not two-dimensional or the widths differ.

    Example:
        >>> cosine_similarity(np.eye(2), np.array([[3.0, 0.0], [0.0, 0.0]]))
        array([[1., 0.],
               [0., 0.]])
    """
    a, b = unit_rows(a, eps), unit_rows(b, eps)
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"width of the vectors: got {a.shape[1]} and {b.shape[1]}; embed both in one space")
    product = a @ b.T
    return product.toarray() if hasattr(product, "toarray") else np.asarray(product)


def unit_rows(vectors: Any, eps: float = 1e-12) -> Any:
    """Divide the rows of an array or sparse matrix (N, D) by their lengths, or by `eps` if they are shorter."""
    if hasattr(vectors, "tocsr"):
        from scipy import sparse

        norms = np.sqrt(np.asarray(vectors.multiply(vectors).sum(axis=1), dtype=np.float64)).ravel()
        dtype = np.float64 if vectors.dtype == np.float64 else np.float32
        return sparse.csr_array(sparse.diags_array((1.0 / np.maximum(norms, eps)).astype(dtype)) @ vectors)
    vectors = np.asarray(vectors)
    if vectors.ndim != 2:
        raise ValueError(f"shape of the vectors: got {vectors.shape}; pass (items, dimensions)")
    vectors = vectors.astype(np.float64 if vectors.dtype == np.float64 else np.float32, copy=False)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), eps).astype(vectors.dtype)


def ranks(similarity: Any, relevant: Any = None, ties: str = "average") -> np.ndarray:
    """
    Compute the rank of the best relevant item of each query, counted from 0.

    Items with the same score as the best relevant one are tied with it; `ties` sets its position among them:

    * `"average"`: the mean position of all tied items. TMR's rule: a two-way tie at the top has rank 0.5, which is a
      hit for R@1, and a query with equal scores everywhere gets the middle rank.
    * `"expected"`: the mean position over random orders of the tied items. The same as `"average"` with one relevant
      item; unlike there, relevant items that tie with each other do not push one another back.
    * `"optimistic"`: before the tied items that are not relevant.
    * `"pessimistic"`: after the tied items that are not relevant.

    Args:
        similarity: score of every gallery item for every query (Q, G); higher is nearer.
        relevant: bool (Q, G), or integers (Q,) with the one relevant item of each query. If None, item `i` is relevant
            to query `i`.
        ties: tie rule.

    Returns:
        Ranks (Q,), float64, from 0 to G - 1; halves if ties are averaged.

    Raises:
        ValueError: if a score is NaN (the message gives the first row), a query has no relevant item, or shapes or the
            tie rule do not fit.

    Example:
        >>> ranks([[0.9, 0.1, 0.5], [0.7, 0.7, 0.1], [0.8, 0.6, 0.2]])
        array([0. , 0.5, 2. ])
    """
    similarity = as_rows(similarity)
    relevant_rows = _relevant_rows(relevant, similarity.shape)
    _check_ties(ties)
    found = [
        row_ranks(scores, relevant_rows(start, start + len(scores)), ties, start, "query")
        for start, scores in similarity.blocks()
    ]
    return np.concatenate(found)


def as_rows(similarity: Any) -> ScoreRows:
    if isinstance(similarity, ScoreRows):
        return similarity
    similarity = np.asarray(similarity)
    if similarity.ndim != 2 or 0 in similarity.shape:
        raise ValueError(f"similarity matrix: got shape {similarity.shape}; pass (queries, gallery), neither 0")
    if similarity.dtype.kind not in "fiub":
        raise ValueError(f"similarity matrix: got dtype {similarity.dtype}; pass real numbers")
    return ScoreRows(similarity.shape, lambda start, stop: similarity[start:stop])


def _relevant_rows(relevant: Any, shape: tuple[int, int]) -> _RelevantRows:
    """Return a function for blocks of rows of the relevance matrix, which is not built as a whole."""
    num_queries, gallery_size = shape
    items = np.arange(gallery_size)
    if relevant is None:
        if num_queries != gallery_size:
            raise ValueError(f"similarity matrix: got {num_queries} queries and {gallery_size} items; pass `relevant`")
        return lambda start, stop: items[start:stop, None] == items
    relevant = np.asarray(relevant)
    if relevant.dtype == bool:
        if relevant.shape != shape:
            raise ValueError(f"relevant: got shape {relevant.shape}; pass that of the similarity matrix, {shape}")
        return lambda start, stop: relevant[start:stop]
    if relevant.dtype.kind not in "iu" or relevant.shape != (num_queries,):
        raise ValueError(
            f"relevant: expected bool {shape} or integers ({num_queries},), got {relevant.dtype} {relevant.shape}"
        )
    outside = np.flatnonzero((relevant < 0) | (relevant >= gallery_size))
    if outside.size:
        row = int(outside[0])
        raise ValueError(
            f"relevant item of query {row}: got {relevant[row]}; pass an item from 0 to {gallery_size - 1}"
        )
    return lambda start, stop: relevant[start:stop, None] == items


def _check_ties(ties: str) -> None:
    if ties not in TIE_RULES:
        raise ValueError(f"ties: got {ties!r}; choose one of {', '.join(TIE_RULES)}")


def row_ranks(scores: np.ndarray, relevant: np.ndarray, ties: str, start: int, query: str) -> np.ndarray:
    """Rank the items of each row of a block (q, G) that begins at row `start`; errors name the row as a `query`."""
    invalid = np.isnan(scores).any(axis=1)
    if invalid.any():
        row = start + int(invalid.argmax())
        raise ValueError(
            f"similarity of {query} {row}: got NaN; look for a division by zero: empty vectors need an epsilon, "
            "see `cosine_similarity`"
        )
    _check_relevant(np.any(relevant, axis=1), start, query)
    best = np.where(relevant, scores, -np.inf).max(axis=1, keepdims=True)
    tied = scores == best
    counts = [np.count_nonzero(cells, axis=1) for cells in (scores > best, tied, tied & relevant)]
    return _positions(np.stack(counts), ties)


def _check_relevant(has_item: np.ndarray, start: int, query: str) -> None:
    if not has_item.all():
        raise ValueError(f"{query} {start + int(has_item.argmin())}: no item is relevant; drop it or add its item")


def _positions(counts: np.ndarray, ties: str) -> np.ndarray:
    """
    Return the rank of the best relevant item.

    Args:
        counts: numbers (3, q) of items with a higher score than it, of items with its score (itself included), and of
            relevant ones among the latter.
        ties: tie rule.
    """
    before, tied, right = counts
    if ties == "average":
        return before + (tied - 1) / 2
    if ties == "expected":
        # Mean position of the first of `right` marked items in a random order of `tied` items.
        return before + (tied - right) / (right + 1)
    return before + (tied - right if ties == "pessimistic" else 0.0)


class _Ranking:
    """
    Ranks of one relevance in both directions, from two readings of the blocks: the second one needs the best relevant
    score of each column.
    """

    def __init__(self, shape: tuple[int, int], relevant_rows: _RelevantRows, ties: str):
        _check_ties(ties)
        self.relevant_rows, self.ties = relevant_rows, ties
        self.t2m = np.empty(shape[0])
        self.best: Any = -np.inf  # of each motion
        self.has_item = np.zeros(shape[1], dtype=bool)
        self.counts = np.zeros((3, shape[1]), dtype=np.int64)  # before, tied, right

    def first(self, start: int, scores: np.ndarray) -> None:
        """Rank the motions of a block of captions, and update the best relevant caption of each motion."""
        relevant = self.relevant_rows(start, start + len(scores))
        self.t2m[start : start + len(scores)] = row_ranks(scores, relevant, self.ties, start, "caption")
        self.has_item |= relevant.any(axis=0)
        self.best = np.maximum(self.best, np.where(relevant, scores, -np.inf).max(axis=0))

    def second(self, start: int, scores: np.ndarray) -> None:
        """Count the captions of a block that are before the best relevant one of each motion, or tied with it."""
        tied = scores == self.best
        relevant = self.relevant_rows(start, start + len(scores))
        for number, cells in enumerate((scores > self.best, tied, tied & relevant)):
            self.counts[number] += np.count_nonzero(cells, axis=0)

    def result(self) -> dict[str, Any]:
        """Return the metrics of both directions."""
        return _assemble(self.t2m[None], _positions(self.counts, self.ties)[None])


class _Pools:
    """Scores of small galleries (P, size), collected from the blocks."""

    def __init__(self, pools: np.ndarray, ties: str):
        self.pools, self.ties = pools, ties
        self.row, self.columns = pools.ravel(), np.repeat(pools, pools.shape[1], axis=0)
        self.scores: np.ndarray | None = None

    def first(self, start: int, scores: np.ndarray) -> None:
        """Copy the scores of a block that are within a pool."""
        if self.scores is None:
            self.scores = np.empty(self.columns.shape, dtype=scores.dtype)
        inside = np.flatnonzero((self.row >= start) & (self.row < start + len(scores)))
        self.scores[inside] = scores[self.row[inside, None] - start, self.columns[inside]]

    def result(self) -> dict[str, Any]:
        """Return the metrics of both directions, averaged over the pools."""
        assert self.scores is not None
        size = self.pools.shape[1]
        scores = self.scores.reshape(-1, size, size)  # (pools, captions, motions)
        paired = np.tile(np.arange(size), len(scores))
        directions = (
            ranks(block.reshape(-1, size), paired, self.ties).reshape(-1, size)
            for block in (scores, scores.transpose(0, 2, 1))
        )
        return _assemble(*directions)


def _read(similarity: ScoreRows, collectors: Sequence[_Ranking | _Pools]) -> None:
    """Show the blocks of a similarity matrix to all collectors, twice."""
    kept: dict[int, np.ndarray] = {}
    size = 0
    for start, scores in similarity.blocks():
        size += scores.nbytes
        if size <= _KEPT_BYTES:
            kept[start] = scores
        for collector in collectors:
            collector.first(start, scores)
    rankings = [collector for collector in collectors if isinstance(collector, _Ranking)]
    for ranking in rankings:
        _check_relevant(ranking.has_item, 0, "motion")
    for start, scores in similarity.blocks(kept) if rankings else ():
        for ranking in rankings:
            ranking.second(start, scores)


def _direction_metrics(ranks: np.ndarray) -> dict[str, float]:
    """Compute recalls and MedR of ranks (pools, queries) in each pool, then average over the pools."""
    metrics = {f"R{k}": 100.0 * float(np.mean(ranks < k)) for k in RECALL_AT}
    metrics["MedR"] = float(np.mean(np.median(ranks, axis=1))) + 1.0
    return metrics


def _assemble(t2m: np.ndarray, m2t: np.ndarray) -> dict[str, Any]:
    result: dict[str, Any] = {
        f"{direction}/{name}": value
        for direction, direction_ranks in zip(DIRECTIONS, (t2m, m2t), strict=True)
        for name, value in _direction_metrics(direction_ranks).items()
    }
    result["Rsum"] = sum(result[f"{direction}/R{k}"] for direction in DIRECTIONS for k in RECALL_AT)
    return result


def retrieval_metrics(
    similarity: Any, relevant: Any = None, ties: str = "average", protocol: str = "all-strict", seed: int | None = None
) -> dict[str, Any]:
    """
    Compute recalls and median rank of one gallery in both directions.

    Args:
        similarity: score of every caption with every motion (num_captions, num_motions), an array or [`ScoreRows`].
        relevant: bool of the same shape, or for each caption the index of its motion (if several captions share one,
            the best of them counts from motion to text). If None, caption `i` belongs to motion `i`.
        ties: tie rule of [`ranks`].
        protocol, seed: copied into the result.

    Returns:
        `t2m/R1`, `t2m/R2`, `t2m/R3`, `t2m/R5`, `t2m/R10` (percent), `t2m/MedR`, the same under `m2t/`, `Rsum` (sum of
        the ten recalls, at most 1000), then `protocol`, `ties`, `gallery_size` (motions), `num_captions` and `seed`.
        Raises what [`ranks`] raises.

    Example:
        >>> retrieval_metrics([[0.9, 0.1], [0.2, 0.3]])["Rsum"]
        1000.0
    """
    similarity = as_rows(similarity)
    ranking = _Ranking(similarity.shape, _relevant_rows(relevant, similarity.shape), ties)
    _read(similarity, [ranking])
    return ranking.result() | _facts(similarity.shape, ties, protocol, seed)


def _facts(shape: tuple[int, int], ties: str, protocol: str, seed: int | None = None) -> dict[str, Any]:
    """Return how a result was measured."""
    captions, motions = shape
    return {"protocol": protocol, "ties": ties, "gallery_size": motions, "num_captions": captions, "seed": seed}


def small_batches(ids: Sequence[str], batch_size: int = 32, seed: int = 0) -> np.ndarray:
    """
    Return the pools of the `small-batches` protocol: ids sorted, shuffled with a seeded generator and cut; the rest
    drops.

    Args:
        ids: ids of the gallery (N).
        batch_size: items per pool.
        seed: seed of numpy's legacy generator, as in TMR's code.

    Returns:
        Indices into `ids`, int64 (N // batch_size, batch_size). The pools depend on the set of ids, not on their
        order.

    Raises:
        ValueError: if the ids do not fill one pool, or if the batch size is below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size: got {batch_size}; pass at least 1")
    if len(ids) < batch_size:
        raise ValueError(f"gallery: {len(ids)} items do not fill one pool of {batch_size}; lower batch_size")
    order = np.asarray(sorted(range(len(ids)), key=ids.__getitem__), dtype=np.int64)
    shuffled = np.arange(len(ids))
    np.random.RandomState(seed).shuffle(shuffled)
    pools = len(ids) // batch_size
    return order[shuffled[: pools * batch_size]].reshape(pools, batch_size)


def evaluate_retrieval(
    similarity: Any,
    ids: Sequence[str],
    captions: Sequence[str],
    protocols: str | Iterable[str] = "all",
    text_similarity: Any = None,
    dissimilar_ids: Iterable[str] | None = None,
    batch_size: int = 32,
    seed: int = 0,
    threshold: float = 0.95,
    ties: str | None = None,
) -> dict[str, dict[str, Any]]:
    """
    Evaluate retrieval under named protocols, each in both directions.

    Args:
        similarity: score of caption `i` (row) with motion `j` (column), (N, N); caption `i` describes motion `i`. The
            field uses the first caption of each motion. [`ScoreRows`] need no memory for the whole matrix.
        ids: id of each motion (N).
        captions: caption of each motion (N); `all-duplicates` compares them letter by letter.
        protocols: names from `PROTOCOLS`; `"all"` runs every protocol that the arguments allow and logs the others.
        text_similarity: cosine of every caption with every caption (N, N) under a sentence encoder, for `threshold`;
            an array or [`ScoreRows`].
        dissimilar_ids: ids of the gallery of `dissimilar`.
        batch_size, seed: pools of `small-batches`, see [`small_batches`].
        threshold: text similarity of `threshold` on a scale from 0 to 1; the cosine must be above `2 * threshold - 1`.
        ties: tie rule of [`ranks`]; if None, `"expected"` for `all-duplicates` and TMR's `"average"` for the others.

    Returns:
        Protocol -> result of [`retrieval_metrics`], in the order of `protocols`, with `batch_size`, `num_batches` and
        `num_dropped` added for small-batches and `threshold` for threshold. JSON-safe.

    Raises:
        ValueError: if a protocol is unknown or lacks an input, lengths differ, an id repeats, or a score is NaN.

    Example:
        >>> results = evaluate_retrieval(np.eye(2), ["a", "b"], ["a man walks", "a man runs"], ["all-strict"])
        >>> results["all-strict"]["t2m/R1"]
        100.0
    """
    similarity = as_rows(similarity)
    size = len(ids)
    if similarity.shape != (size, size) or len(captions) != size:
        raise ValueError(
            f"inputs: got {size} ids, {len(captions)} captions and a similarity matrix {similarity.shape}; pass one "
            "caption per motion"
        )
    place = {motion_id: index for index, motion_id in enumerate(ids)}
    if len(place) != size:
        twice = next(motion_id for index, motion_id in enumerate(ids) if place[motion_id] != index)
        raise ValueError(f"ids: {twice!r} is given twice; pass unique ids")
    dissimilar = None if dissimilar_ids is None else list(dict.fromkeys(dissimilar_ids))
    absent = [motion_id for motion_id in dissimilar or () if motion_id not in place]
    lacking = {
        "threshold": "" if text_similarity is not None else "pass `text_similarity`",
        "dissimilar": "" if dissimilar else "pass `dissimilar_ids`",
        "small-batches": "" if size >= batch_size else f"{size} items do not fill one pool of {batch_size}",
    }
    if dissimilar and absent:
        lacking["dissimilar"] = f"not in the gallery: {len(absent)} of {len(dissimilar)} ids, such as {absent[0]!r}"
    if isinstance(protocols, str):
        protocols = PROTOCOLS if protocols == "all" else (protocols,)
        wants_all = protocols is PROTOCOLS
    else:
        protocols, wants_all = tuple(protocols), False
        if "all" in protocols:
            protocols, wants_all = PROTOCOLS, True
    for protocol in protocols:
        if protocol not in PROTOCOLS:
            raise ValueError(f"protocol: got {protocol!r}; choose from {', '.join(PROTOCOLS)}, or all")
        if lacking.get(protocol) and not wants_all:
            raise ValueError(f"protocol {protocol!r} cannot run: {lacking[protocol]}")
        if lacking.get(protocol):
            logger.info(f"protocol {protocol!r} is skipped: {lacking[protocol]}")
    rules = {name: ties or ("expected" if name == "all-duplicates" else "average") for name in protocols}

    def collector(protocol: str, rule: str) -> _Ranking | _Pools:
        if protocol == "dissimilar":
            return _Pools(np.asarray([[place[motion_id] for motion_id in dissimilar or ()]]), rule)
        if protocol == "small-batches":
            return _Pools(small_batches(ids, batch_size, seed), rule)
        if protocol == "threshold":
            return _Ranking((size, size), _near_rows(text_similarity, size, threshold), rule)
        if protocol == "all-duplicates":
            _, group = np.unique(np.asarray(captions, dtype=object).astype(str), return_inverse=True)
            return _Ranking((size, size), lambda start, stop: group[start:stop, None] == group, rule)
        return _Ranking((size, size), _relevant_rows(None, (size, size)), rule)

    collectors = {name: collector(name, rule) for name, rule in rules.items() if not lacking.get(name)}
    _read(similarity, list(collectors.values()))
    results = {}
    for name, found in collectors.items():
        gallery = found.pools.shape[1] if isinstance(found, _Pools) else size
        results[name] = found.result() | _facts((gallery, gallery), rules[name], name)
        if name == "threshold":
            results[name]["threshold"] = threshold
        elif name == "small-batches" and isinstance(found, _Pools):
            dropped = size - found.pools.size
            results[name] |= {"seed": seed, "batch_size": batch_size, "num_batches": len(found.pools)}
            results[name]["num_dropped"] = dropped
    return results


def _near_rows(text_similarity: Any, size: int, threshold: float) -> _RelevantRows:
    """Return the relevance of the protocol `threshold`."""
    near = text_similarity if isinstance(text_similarity, ScoreRows) else np.asarray(text_similarity)
    if near.shape != (size, size):
        raise ValueError(f"text_similarity: got shape {near.shape}; pass that of the similarity, {(size, size)}")
    read = near.rows if isinstance(near, ScoreRows) else lambda start, stop: near[start:stop]
    items = np.arange(size)
    cosine = round(2.0 * threshold - 1.0, 12)  # 0.9, not the 0.8999999999999999 of floating point

    def rows(start: int, stop: int) -> np.ndarray:
        # A caption is always near itself, even if its sentence vector is empty.
        return (read(start, stop) > cosine) | (items[start:stop, None] == items)

    return rows
