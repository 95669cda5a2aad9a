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

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from transformers.utils import logging

logger = logging.get_logger(__name__)

PROTOCOLS = ("all-strict", "all-duplicates", "threshold", "dissimilar", "small-batches")
TIE_RULES = ("average", "expected", "optimistic", "pessimistic")
RECALL_AT = (1, 2, 3, 5, 10)
DIRECTIONS = ("t2m", "m2t")

# Cells of the similarity matrix per block; bounds the temporary memory to a few times 4 MiB.
_BLOCK_CELLS = 1 << 22

# Rows [start, stop) of the boolean relevance matrix of one direction.
_RelevantRows = Callable[[int, int], np.ndarray]


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
    similarity = _as_matrix(similarity)
    return _ranks(similarity, _relevant_rows(relevant, similarity.shape), ties, "query")


def _as_matrix(similarity: Any) -> np.ndarray:
    similarity = np.asarray(similarity)
    if similarity.ndim != 2 or 0 in similarity.shape:
        raise ValueError(f"similarity matrix: got shape {similarity.shape}; pass (queries, gallery), neither 0")
    if similarity.dtype.kind not in "fiub":
        raise ValueError(f"similarity matrix: got dtype {similarity.dtype}; pass real numbers")
    return similarity


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


def _ranks(similarity: np.ndarray, relevant_rows: _RelevantRows, ties: str, query: str) -> np.ndarray:
    if ties not in TIE_RULES:
        raise ValueError(f"ties: got {ties!r}; choose one of {', '.join(TIE_RULES)}")
    num_queries, gallery_size = similarity.shape
    result = np.empty(num_queries, dtype=np.float64)
    step = max(1, _BLOCK_CELLS // gallery_size)
    for start in range(0, num_queries, step):
        stop = min(start + step, num_queries)
        scores = np.ascontiguousarray(similarity[start:stop])  # (q, G)
        if scores.dtype.kind != "f":
            scores = scores.astype(np.float64)
        relevant = relevant_rows(start, stop)  # (q, G)
        invalid = np.isnan(scores).any(axis=1)
        if invalid.any():
            row = start + int(invalid.argmax())
            raise ValueError(
                f"similarity of {query} {row}: got NaN; look for a division by zero: empty vectors need an epsilon, "
                "see `cosine_similarity`"
            )
        alone = ~relevant.any(axis=1)
        if alone.any():
            raise ValueError(f"{query} {start + int(alone.argmax())}: no item is relevant; drop it or add its item")
        best = np.where(relevant, scores, -np.inf).max(axis=1, keepdims=True)
        before = np.count_nonzero(scores > best, axis=1)
        tied_cells = scores == best
        tied = np.count_nonzero(tied_cells, axis=1)
        right = np.count_nonzero(tied_cells & relevant, axis=1)
        if ties == "average":
            among = (tied - 1) / 2
        elif ties == "expected":
            # Mean position of the first of `right` marked items in a random order of `tied` items.
            among = (tied - right) / (right + 1)
        elif ties == "pessimistic":
            among = tied - right
        else:
            among = np.zeros(len(tied))
        result[start:stop] = before + among
    return result


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
        similarity: score of every caption with every motion (num_captions, num_motions).
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
    similarity = _as_matrix(similarity)
    num_captions, num_motions = similarity.shape
    forward = _relevant_rows(relevant, similarity.shape)
    if relevant is None:
        backward = forward
    elif (relevant := np.asarray(relevant)).dtype == bool:
        backward = _relevant_rows(relevant.T, (num_motions, num_captions))
    else:
        motions = np.arange(num_motions)

        def backward(start: int, stop: int) -> np.ndarray:
            return motions[start:stop, None] == relevant

    return _metrics(similarity, forward, backward, ties, protocol, seed)


def _metrics(
    similarity: np.ndarray, forward: _RelevantRows, backward: _RelevantRows, ties: str, protocol: str, seed: int | None
) -> dict[str, Any]:
    t2m = _ranks(similarity, forward, ties, "caption")
    m2t = _ranks(similarity.T, backward, ties, "motion")
    result = _assemble(t2m[None], m2t[None])
    num_captions, num_motions = similarity.shape
    result.update(protocol=protocol, ties=ties, gallery_size=num_motions, num_captions=num_captions, seed=seed)
    return result


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
            field uses the first caption of each motion.
        ids: id of each motion (N).
        captions: caption of each motion (N); `all-duplicates` compares them letter by letter.
        protocols: names from `PROTOCOLS`; `"all"` runs every protocol that the arguments allow and logs the others.
        text_similarity: cosine of every caption with every caption (N, N) under a sentence encoder, for `threshold`.
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
    similarity = _as_matrix(similarity)
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
    results: dict[str, dict[str, Any]] = {}
    for protocol in protocols:
        if protocol not in PROTOCOLS:
            raise ValueError(f"protocol: got {protocol!r}; choose from {', '.join(PROTOCOLS)}, or all")
        if lacking.get(protocol):
            if not wants_all:
                raise ValueError(f"protocol {protocol!r} cannot run: {lacking[protocol]}")
            logger.info(f"protocol {protocol!r} is skipped: {lacking[protocol]}")
            continue
        rule = ties or ("expected" if protocol == "all-duplicates" else "average")
        if protocol == "all-strict":
            results[protocol] = retrieval_metrics(similarity, None, rule, protocol)
        elif protocol == "all-duplicates":
            _, group = np.unique(np.asarray(captions, dtype=object).astype(str), return_inverse=True)
            same = _same_group(group)
            results[protocol] = _metrics(similarity, same, same, rule, protocol, None)
        elif protocol == "threshold":
            results[protocol] = _threshold_metrics(similarity, text_similarity, threshold, rule)
        elif protocol == "dissimilar":
            chosen = np.asarray([place[motion_id] for motion_id in dissimilar or ()])
            results[protocol] = retrieval_metrics(similarity[np.ix_(chosen, chosen)], None, rule, protocol)
        else:
            results[protocol] = _small_batch_metrics(similarity, ids, batch_size, seed, rule)
    return results


def _same_group(group: np.ndarray) -> _RelevantRows:
    return lambda start, stop: group[start:stop, None] == group


def _threshold_metrics(similarity: np.ndarray, text_similarity: Any, threshold: float, ties: str) -> dict[str, Any]:
    near = np.asarray(text_similarity)
    if near.shape != similarity.shape:
        raise ValueError(f"text_similarity: got shape {near.shape}; pass that of the similarity, {similarity.shape}")
    items = np.arange(len(near))
    cosine = round(2.0 * threshold - 1.0, 12)  # 0.9, not the 0.8999999999999999 of floating point

    def rows(start: int, stop: int) -> np.ndarray:
        # A caption is always near itself, even if its sentence vector is empty.
        return (near[start:stop] > cosine) | (items[start:stop, None] == items)

    result = _metrics(similarity, rows, rows, ties, "threshold", None)
    return result | {"threshold": threshold}


def _small_batch_metrics(
    similarity: np.ndarray, ids: Sequence[str], batch_size: int, seed: int, ties: str
) -> dict[str, Any]:
    pools = small_batches(ids, batch_size, seed)
    paired = np.tile(np.arange(batch_size), len(pools))
    scores = similarity[pools[:, :, None], pools[:, None, :]]  # (pools, captions, motions)
    t2m, m2t = (
        ranks(block.reshape(-1, batch_size), paired, ties).reshape(pools.shape)
        for block in (scores, scores.transpose(0, 2, 1))
    )
    result = _assemble(t2m, m2t)
    result.update(protocol="small-batches", ties=ties, gallery_size=batch_size, num_captions=batch_size, seed=seed)
    return result | {"batch_size": batch_size, "num_batches": len(pools), "num_dropped": len(ids) - pools.size}
