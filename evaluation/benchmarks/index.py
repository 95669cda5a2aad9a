"""The index compared with a hand-written loop over postings, with scipy, and with faiss over the same number of dense
vectors.

Vectors are drawn from a Zipf-Mandelbrot law as concentrated as motion captions: the most frequent word is in 84 % of
the items. Latency is that of one query at a time, on one thread.
"""

import functools
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import sparse

from lexmotion.index.embedded import EmbeddedEngine
from lexmotion.index.lexmotion_index import LexMotionIndex
from lexmotion.index.words import canonical

from .harness import Case, require

DESCRIPTION = "index: exact search in postings against a loop by hand and dense faiss"
QUICK = {"items": 20000, "queries": 20, "curve": "5000"}
MOST_FREQUENT = 0.84
K = 10
Ranking = tuple[list[int], np.ndarray]


def inclusion(vocabulary: int, words: int) -> np.ndarray:
    """
    Return the share of items with each word (V,): c / (rank + b), `MOST_FREQUENT` for the first, with the sum `words`.
    """
    low, high = 1e-3, 1e6
    for _ in range(200):
        scale = (low * high) ** 0.5
        shares = scale / (np.arange(vocabulary) + scale / MOST_FREQUENT)
        low, high = (low, scale) if shares.sum() > words else (scale, high)
    return shares


def draw(items: int, words: int, vocabulary: int, seed: int = 0) -> sparse.csr_matrix:
    """Draw vectors of at most `words` words: one word from each of `words` groups of equal share."""
    # Word frequencies are the same for items and queries, whatever the seed.
    bounds = np.cumsum(np.random.default_rng(0).permutation(inclusion(vocabulary, words)))
    rng = np.random.default_rng(seed)
    bounds *= words / bounds[-1]
    indices = np.empty((items, words), np.int32)
    for group in range(words):
        first, last = np.searchsorted(bounds, [group, group + 1])
        places = group + rng.random(items, dtype=np.float32).astype(np.float64)
        indices[:, group] = np.minimum(first + np.searchsorted(bounds[first:last], places), vocabulary - 1)
    weights = rng.gamma(2.0, 0.5, (items, words)).astype(np.float32) + np.float32(1e-3)
    starts = np.arange(items + 1, dtype=np.int32) * words
    return canonical(sparse.csr_matrix((weights.ravel(), indices.ravel(), starts), shape=(items, vocabulary)))


def draw_queries(rows: sparse.csr_matrix, queries: int, words: int, seed: int = 1) -> list[sparse.csr_matrix]:
    """Draw queries of `words` words of other items each."""
    rng = np.random.default_rng(seed)
    found = []
    for row in rows[rng.integers(rows.shape[0], size=queries)]:
        chosen = np.sort(rng.choice(row.nnz, min(words, row.nnz), replace=False))
        entries = (row.data[chosen], row.indices[chosen], [0, len(chosen)])
        found.append(sparse.csr_matrix(entries, shape=row.shape))
    return found


@functools.cache
def _loop() -> Callable:
    try:
        import numba
    except ImportError as error:
        raise ImportError("the loop by hand needs numba; run `pip install lexmotion[index]`") from error

    @numba.njit
    def loop(starts, documents, weights, words, query, scores, best, values):
        scores[:] = 0
        for place in range(len(words)):
            word = words[place]
            for entry in range(starts[word], starts[word + 1]):
                scores[documents[entry]] += query[place] * weights[entry]
        values[:] = 0
        for row in range(len(scores)):
            if scores[row] > values[-1]:
                place = len(values) - 1
                while place > 0 and scores[row] > values[place - 1]:
                    values[place], best[place] = values[place - 1], best[place - 1]
                    place -= 1
                values[place], best[place] = scores[row], row

    return loop


class ByHand:
    """Term-at-a-time search over columns of normalised rows, with the best kept by insertion, in one compiled loop."""

    def __init__(self, rows: sparse.csr_matrix):
        lengths = np.sqrt(np.asarray(rows.multiply(rows).sum(axis=1))).ravel()
        columns = (sparse.diags(1 / np.maximum(lengths, 1e-12)) @ rows).tocsc().astype(np.float32)
        self.postings = columns.indptr.astype(np.int64), columns.indices, columns.data
        self.scores = np.zeros(rows.shape[0], np.float32)

    def search(self, query: sparse.csr_matrix) -> Ranking:
        weights = query.data / np.sqrt(np.square(query.data).sum())
        best, values = np.empty(K, np.int64), np.empty(K, np.float32)
        _loop()(*self.postings, query.indices, weights, self.scores, best, values)
        return best[values > 0].tolist(), values[values > 0]


def _same(ours: list[Ranking], plain: list[Ranking]) -> str:
    """Require the same scores, and the same ids unless scores are equal up to rounding."""
    require(all(len(a[0]) == len(b[0]) for a, b in zip(ours, plain, strict=True)), "numbers of hits differ")
    worst = max(float(np.abs(a[1] - b[1]).max()) for a, b in zip(ours, plain, strict=True))
    require(worst < 1e-5, f"scores differ by up to {worst:.1e}")
    equal = sum(a[0] == b[0] for a, b in zip(ours, plain, strict=True))
    swapped = [
        number
        for number, (a, b) in enumerate(zip(ours, plain, strict=True))
        if sorted(a[0][:-1]) != sorted(b[0][:-1]) and np.abs(np.diff(b[1])).min() > 1e-5
    ]
    require(not swapped, f"query {swapped[0] if swapped else 0} has other hits")
    return f"scores to {worst:.0e}; {equal} of {len(ours)} queries have the same {K} ids in order"


def _median_ms(calls: list[Callable[[], Any]], rounds: int = 3) -> float:
    took = []
    for _ in range(rounds):
        for call in calls:
            started = time.perf_counter()
            call()
            took.append(1000 * (time.perf_counter() - started))
    return statistics.median(took)


def cases(
    items: int = 1_000_000,
    words: int = 64,
    vocabulary: int = 30522,
    queries: int = 50,
    query_words: int = 25,
    curve: str = "10000,100000",
    dense: int = 256,
) -> list[Case]:
    """
    Build the cases of all sizes.

    Args:
        items, words, vocabulary: number of vectors, words per vector, and size of the vocabulary.
        queries, query_words: number of queries and words per query.
        curve: other numbers of items to search, separated by commas.
        dense: width of faiss's vectors, 0 for none.
    """
    rows = draw(items, words, vocabulary)
    asked = draw_queries(draw(max(queries, 64), words, vocabulary, seed=2), queries, query_words)
    found = [_build_case(rows)]
    for count in sorted({*(int(number) for number in curve.split(",") if number), items}):
        part = rows[:count]
        index = LexMotionIndex.build(part, accelerate=True)
        found.append(_search_case(index, part, asked))
        if dense:
            found += _dense_case(index, asked, dense)
    return found


def _build_case(rows: sparse.csr_matrix) -> Case:
    def plain() -> sparse.csc_matrix:
        lengths = np.sqrt(np.asarray(rows.multiply(rows).sum(axis=1))).ravel()
        return (sparse.diags(1 / np.maximum(lengths, 1e-12)) @ rows).tocsc()

    def agree(index: LexMotionIndex, columns: sparse.csc_matrix) -> str:
        worst = float(np.abs(index.to_csr() - columns).max())
        require(worst < 1e-5, f"weights differ by up to {worst:.1e}")
        return f"weights to {worst:.0e}"

    def facts() -> dict[str, Any]:
        index = LexMotionIndex.build(rows)
        tensors = [array.nbytes for segment in index.engine.segments() for array in segment.tensors().values()]
        info = index.info()
        return {
            "postings, 8 bytes an entry, MiB": info["postings_bytes"] / 2**20,
            "all arrays of the index over the postings": sum(tensors) / info["postings_bytes"],
            "words an item": info["words_an_item"],
        }

    name, count = f"build {rows.shape[0]:,} items (scipy)", rows.shape[0]
    return Case(name, lambda: LexMotionIndex.build(rows), plain, agree, count, "items", facts)


def _search_case(index: LexMotionIndex, rows: sparse.csr_matrix, asked: list[sparse.csr_matrix]) -> Case:
    by_hand = ByHand(rows)
    plain_index = LexMotionIndex(index.place, EmbeddedEngine({"accelerate": False}, index.place))

    def top(query: sparse.csr_matrix) -> Ranking:
        return index.top_k(query, K)[0]

    def facts() -> dict[str, Any]:
        calls = {
            "median ms": top,
            "median ms with words and metadata": lambda query: index.search(query, K),
            "median ms without numba": lambda query: plain_index.top_k(query, K),
            "median ms by hand": by_hand.search,
        }
        touched = sum(int(index.engine.segments()[0].counts[query.indices].sum()) for query in asked) / len(asked)
        times = {name: _median_ms([functools.partial(call, query) for query in asked]) for name, call in calls.items()}
        return {"postings of a query's words, mean": touched} | times

    def ours() -> list[Ranking]:
        return [top(query) for query in asked]

    def plain() -> list[Ranking]:
        return [by_hand.search(query) for query in asked]

    return Case(f"top {K} of {rows.shape[0]:,} (loop by hand)", ours, plain, _same, len(asked), "queries", facts)


def _dense_case(index: LexMotionIndex, asked: list[sparse.csr_matrix], width: int) -> list[Case]:
    try:
        import faiss
    except ImportError:
        sys.stderr.write("faiss is not installed and is skipped; run `pip install faiss-cpu`\n")
        return []
    faiss.omp_set_num_threads(1)
    rng = np.random.default_rng(3)
    vectors = rng.standard_normal((len(index), width), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    dense = faiss.IndexFlatIP(width)
    dense.add(vectors)
    queries = rng.standard_normal((len(asked), 1, width), dtype=np.float32)
    probe = vectors[-1:].copy()
    del vectors

    def agree(_: Any, found: list[Any]) -> str:
        scores, ids = dense.search(probe, 1)
        require(int(ids[0, 0]) == len(index) - 1, "faiss does not find a vector by itself")
        require(all(len(each[1][0]) == K for each in found), f"faiss does not return {K} hits")
        return f"other vectors: {width} random dense numbers; both return {K} hits"

    def facts() -> dict[str, Any]:
        return {"median ms of faiss": _median_ms([functools.partial(dense.search, q, K) for q in queries], 1)}

    def ours() -> list[Any]:
        return [index.top_k(query, K) for query in asked]

    def plain() -> list[Any]:
        return [dense.search(query, K) for query in queries]

    name = f"top {K} of {len(index):,} (faiss {width}-d)"
    return [Case(name, ours, plain, agree, len(asked), "queries", facts)]
