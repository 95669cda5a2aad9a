"""Figure 10: accuracy, size and speed of search against the number of words kept of every vector."""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from lexmotion.index.lexmotion_index import LexMotionIndex

from ..metrics.lexical import active_words, item_counts, top_k
from ..metrics.retrieval import cosine_similarity, evaluate_retrieval
from .drawing import BLUE, DARK, FONT, GREY, LIGHT, ORANGE, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 7.2
KEPT = (4, 8, 16, 32, 64, 128, 256, None)
PROTOCOL = "all-strict"
POSTING_BYTES = 8  # an int32 row and a float32 weight
RECALLS = ("t2m/R1", "t2m/R10", "m2t/R1", "m2t/R10", "t2m/MedR", "m2t/MedR", "Rsum")
HITS = 10


@dataclass(frozen=True)
class Kept:
    """
    Results of search with vectors cut to their heaviest words.

    Args:
        k: words kept per caption and motion; None keeps all.
        retrieval: R@1, R@10, MedR in both directions and Rsum, by the cosine of the words.
        text_words, motion_words: mean number of words per vector.
        postings: mean number of postings that a query reads in an index of the split.
        bytes_a_motion: size of a motion's postings, 8 bytes each.
        milliseconds: median time per query, if measured.
    """

    k: int | None
    retrieval: dict[str, float]
    text_words: float
    motion_words: float
    postings: float
    bytes_a_motion: float
    milliseconds: float | None = None


@dataclass(frozen=True)
class Dense:
    """
    Results of a dense model for comparison.

    Args:
        name: name of the model.
        size: numbers per vector (D).
        retrieval, bytes_a_motion, milliseconds: as in [`Kept`].
    """

    name: str
    size: int
    retrieval: dict[str, float]
    bytes_a_motion: float
    milliseconds: float | None = None


def keep_heaviest(embeds: Any, k: int | None) -> sparse.csr_array:
    """
    Cut lexical vectors (N, V), weights at least zero, to their `k` heaviest words, ties by ascending id; None keeps
    all.
    """
    if k is None:
        return sparse.csr_array(embeds)
    ids, weights = top_k(embeds, k)
    rows, places = np.nonzero(ids >= 0)
    values = weights[rows, places].astype(np.float32)
    return sparse.csr_array((values, (rows, ids[rows, places])), shape=embeds.shape)


def postings_a_query(text: Any, motion: Any) -> float:
    """Compute the mean number of postings that a query, a row of text (Q, V), reads in an index of motions (N, V)."""
    queries = sparse.csr_array(text)
    return float(item_counts(motion)[queries.indices[queries.data > 0]].sum() / max(queries.shape[0], 1))


def recalls(scores: Any, ids: Sequence[str], captions: Sequence[str]) -> dict[str, float]:
    """Compute R@1, R@10, MedR and Rsum of scores, captions x motions, under `PROTOCOL`."""
    row = evaluate_retrieval(scores, ids, captions, [PROTOCOL])[PROTOCOL]
    return {name: float(row[name]) for name in RECALLS}


def sweep(
    text: Any,
    motion: Any,
    ids: Sequence[str],
    captions: Sequence[str],
    ks: Iterable[int | None] = KEPT,
    milliseconds: Mapping[str, float] | None = None,
) -> list[Kept]:
    """
    Cut the vectors of both sides to every number of words, and search.

    Args:
        text, motion: sparse matrices (N, V), paired by row.
        ids, captions: of the pairs (N).
        ks: numbers of words to keep, None for all.
        milliseconds: `str(k)` -> measured time per query.
    """
    rows = []
    for k in ks:
        texts, motions = keep_heaviest(text, k), keep_heaviest(motion, k)
        motion_words = float(active_words(motions).mean())
        found = recalls(cosine_similarity(texts, motions), ids, captions)
        text_words, postings = float(active_words(texts).mean()), postings_a_query(texts, motions)
        took = (milliseconds or {}).get(str(k))
        rows.append(Kept(k, found, text_words, motion_words, postings, POSTING_BYTES * motion_words, took))
    return rows


def dense_search(
    name: str,
    text: np.ndarray,
    motion: np.ndarray,
    ids: Sequence[str],
    captions: Sequence[str],
    milliseconds: float | None = None,
) -> Dense:
    """Compute the same results as [`sweep`] for dense vectors (N, D)."""
    found = recalls(cosine_similarity(text, motion), ids, captions)
    return Dense(name, motion.shape[1], found, 4.0 * motion.shape[1], milliseconds)


# ---------------------------------------------------------------------------------------------------------- latency


def repeated(rows: Any, items: int, seed: int) -> Any:
    """
    Build a gallery of `items` rows that repeats `rows`, an array or sparse matrix, with every number changed by about
    10 %.
    """
    places = np.arange(items) % rows.shape[0]
    random = np.random.default_rng(seed)
    many = sparse.csr_array(rows)[places] if sparse.issparse(rows) else np.asarray(rows, dtype=np.float32)[places]
    values = many.data if sparse.issparse(many) else many
    values *= np.exp(0.1 * random.standard_normal(values.shape, dtype=np.float32))
    return many


def query_milliseconds(search: Callable[[Any], Any], queries: Sequence[Any], rounds: int = 3) -> float:
    """Measure the median time per query, run one by one; the first one is not counted."""
    search(queries[0])
    took = []
    for _ in range(rounds):
        for query in queries:
            started = time.perf_counter()
            search(query)
            took.append(1000 * (time.perf_counter() - started))
    return statistics.median(took)


def lexical_milliseconds(text: Any, motion: Any, k: int | None, items: int, queries: int = 50, seed: int = 0) -> float:
    """Measure the median time of a top-10 query in a `LexMotionIndex` of `items` motions with `k` words each."""
    gallery = repeated(keep_heaviest(motion, k), items, seed)
    asked = keep_heaviest(text, k)
    chosen = drawn(asked.shape[0], queries, seed)
    index = LexMotionIndex.build(gallery)
    return query_milliseconds(lambda row: index.top_k(row, HITS), [asked[[row]] for row in chosen])


def dense_milliseconds(text: np.ndarray, motion: np.ndarray, items: int, queries: int = 50, seed: int = 0) -> float:
    """Measure the same for the product with every dense vector, in NumPy."""
    gallery = repeated(motion, items, seed)
    gallery /= np.maximum(np.linalg.norm(gallery, axis=1, keepdims=True), 1e-12)
    asked = np.asarray(text, dtype=np.float32)

    def search(query: np.ndarray) -> np.ndarray:
        scores = gallery @ query
        best = np.argpartition(scores, -HITS)[-HITS:]
        return best[np.argsort(-scores[best])]

    return query_milliseconds(search, [asked[row] for row in drawn(len(asked), queries, seed)])


def drawn(size: int, count: int, seed: int) -> list[int]:
    """Draw `count` of `size` rows without replacement."""
    return np.random.default_rng(seed).permutation(size)[:count].tolist()


def vectors_key(*parts: Any) -> str:
    """Hash vectors and settings, as the key of a measured time."""
    hashed = hashlib.sha256()
    for part in parts:
        if sparse.issparse(part):
            part = sparse.csr_array(part)
            for array in (part.indptr.astype(np.int64), part.indices.astype(np.int64), part.data):
                hashed.update(np.ascontiguousarray(array).tobytes())
        elif isinstance(part, np.ndarray):
            hashed.update(np.ascontiguousarray(part).tobytes())
        else:
            hashed.update(json.dumps(part).encode())
    return hashed.hexdigest()


# ---------------------------------------------------------------------------------------------------------- picture


def kept_figure(
    rows: Sequence[Kept],
    gallery: int,
    dense: Dense | None = None,
    own: Mapping[str, float] | None = None,
    items: int = 0,
) -> Figure:
    """
    Draw six panels over the number of kept words: accuracy in both directions, words, bytes, postings, milliseconds.

    Args:
        rows: results of [`sweep`], at least one.
        gallery: number of motions searched, which is also the number of queries.
        dense: drawn as horizontal lines.
        own: retrieval by the model's own score, if it uses more than the words.
        items: motions of the index that times were measured in.

    Returns:
        Figure of 7.2 inches width.
    """
    from matplotlib import rc_context
    from matplotlib.ticker import FuncFormatter, LogLocator

    if not rows:
        raise ValueError("rows: got none; pass at least one number of words")
    timed = all(row.milliseconds is not None for row in rows)
    with rc_context(FONT | {"font.size": 7.5, "axes.titlesize": 8.5}):
        figure = new_figure(WIDTH, 4.3)
        axes = figure.subplots(2, 3).ravel()
        for ax, side, name in ((axes[0], "t2m", "text to motion"), (axes[1], "m2t", "motion to text")):
            _recalls(ax, rows, side, gallery, dense, own)
            ax.set_title(f"{name}, recall in %", loc="left", color=DARK)
        _curve(axes[2], rows, "words per vector", [row.motion_words for row in rows], "motion")
        axes[2].plot([row.text_words for row in rows], color=ORANGE, marker="s", ms=3, lw=1.3, label="caption")
        _curve(axes[3], rows, "bytes per motion", [row.bytes_a_motion for row in rows], "postings")
        _curve(axes[4], rows, f"postings per query, {gallery} motions", [row.postings for row in rows], "read")
        if timed:
            title = f"ms per query, {items:,} motions"
            _curve(axes[5], rows, title, [row.milliseconds for row in rows], "inverted index")
        else:
            axes[5].set_axis_off()
        if dense is not None:
            _across(axes[2], dense.size, f"dense, {dense.size} numbers")
            _across(axes[3], dense.bytes_a_motion, f"dense, {dense.size} numbers")
            _across(axes[4], gallery * dense.size, "dense: all numbers")
            if timed and dense.milliseconds is not None:
                _across(axes[5], dense.milliseconds, "dense")
        for ax in axes[2 : 6 if timed else 5]:
            ax.set_yscale("log")
            low, high = ax.get_ylim()
            ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 100 * low else (1.0,)))
            ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
            ax.minorticks_off()
            # More words cost more: the curves leave this corner free. "best" does not see the dense line.
            ax.legend(frameon=False, fontsize=6.5, loc="lower right", handlelength=1.6)
        for ax in axes[3 : 6 if timed else 5]:
            ax.set_xlabel("words kept", fontsize=7.5, color="#777777")
        handles, labels = axes[0].get_legend_handles_labels()
        # Legends fill columns first: R@10 above R@1.
        order = sorted(range(len(labels)), key=lambda place: labels[place].split(", ")[1])
        handles, labels = [handles[place] for place in order], [labels[place] for place in order]
        style: dict[str, Any] = {"ncols": len(labels) // 2, "frameon": False, "fontsize": 7, "handlelength": 1.8}
        figure.legend(handles, labels, loc="outside upper center", **style)
    return figure


def _style(ax: Axes, rows: Sequence[Kept]) -> None:
    ax.set_xticks(range(len(rows)), ["all" if row.k is None else str(row.k) for row in rows])
    ax.tick_params(labelsize=7, colors="#555555", length=2, which="both")
    ax.grid(axis="y", color=LIGHT, lw=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(GREY)


def _curve(ax: Axes, rows: Sequence[Kept], title: str, values: Sequence[Any], label: str) -> None:
    _style(ax, rows)
    ax.plot(values, color=BLUE, marker="o", ms=3, lw=1.3, label=label)
    ax.set_title(title, loc="left", color=DARK)


def _across(ax: Axes, value: float, label: str, color: str = DARK, style: str = "--") -> None:
    ax.axhline(value, color=color, lw=1.1, ls=style, label=label)


def _recalls(
    ax: Axes, rows: Sequence[Kept], side: str, gallery: int, dense: Dense | None, own: Mapping[str, float] | None
) -> None:
    _style(ax, rows)
    for name, color, marker in (("R10", BLUE, "o"), ("R1", ORANGE, "s")):
        values = np.array([row.retrieval[f"{side}/{name}"] for row in rows])
        label = f"R@{name[1:]}"
        half = 1.96 * np.sqrt(values * (100 - values) / gallery)
        ax.fill_between(range(len(rows)), values - half, values + half, color=color, alpha=0.13, lw=0)
        ax.plot(values, color=color, marker=marker, ms=3, lw=1.3, label=f"{label}, words")
        if own is not None:
            ax.plot(
                len(rows) - 1, own[f"{side}/{name}"], marker="*", ms=7, color=color, ls="", label=f"{label}, own score"
            )
        if dense is not None:
            _across(ax, dense.retrieval[f"{side}/{name}"], f"{label}, {dense.name}", color)
    ax.set_ylim(bottom=0)


def to_json(rows: Sequence[Kept], dense: Dense | None, own: Mapping[str, float] | None) -> dict[str, Any]:
    """Return the numbers of the figure."""
    return {
        "protocol": PROTOCOL,
        "kept": [asdict(row) for row in rows],
        "own_score": None if own is None else dict(own),
        "dense": None if dense is None else asdict(dense),
    }
