"""Figures 1 and 4: a motion and its caption in the words of the space, side by side."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from .drawing import BLUE, DARK, FONT, GREY, escape_text, motion_strip, new_figure
from .words import split_pairs, word_bars

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 7.2  # inches: both columns of a paper
SHOWN = 20


@dataclass(frozen=True)
class LexicalPair:
    """
    A caption and a motion in word space.

    Args:
        motion_words, text_words: (word, weight), heaviest first, at most `SHOWN`.
        shared: (word, product) of every word that both have, largest first; the products sum to `cosine`.
        cosine: cosine of the two vectors.
    """

    motion_words: list[tuple[str, float]]
    text_words: list[tuple[str, float]]
    shared: list[tuple[str, float]]
    cosine: float


def shared_products(text: Any, motion: Any) -> tuple[np.ndarray, np.ndarray]:
    """
    Compute the contribution of each shared word to the cosine of two vectors.

    Args:
        text, motion: weights of words, at least zero, (V,) or a sparse row.

    Returns:
        Ids, int64, and products, float64, both (S,): largest product first, ties by id; they sum to the cosine. Empty
        if no word is shared.
    """
    z_t, z_m = (
        np.asarray(row.toarray() if sparse.issparse(row) else row, dtype=np.float64).ravel() for row in (text, motion)
    )
    if z_t.shape != z_m.shape:
        raise ValueError(f"width of the vectors: got {len(z_t)} and {len(z_m)}; embed both in one space")
    ids = np.flatnonzero((z_t > 0) & (z_m > 0))
    products = z_t[ids] * z_m[ids] / max(float(np.linalg.norm(z_t) * np.linalg.norm(z_m)), 1e-12)
    order = np.lexsort((ids, -products))
    return ids[order], products[order]


def lexical_pair(text: Any, motion: Any, words: Sequence[str], k: int = SHOWN) -> LexicalPair:
    """
    Return the words of a caption and of a motion.

    Args:
        text, motion: see [`shared_products`].
        words: word of every dimension (V).
        k: words per side.
    """

    def heaviest(row: Any) -> list[tuple[str, float]]:
        weights = np.asarray(row.toarray() if sparse.issparse(row) else row, dtype=np.float64).ravel()
        ids = np.argsort(-weights, kind="stable")[:k]
        return [(words[id], float(weights[id])) for id in ids if weights[id] > 0]

    ids, products = shared_products(text, motion)
    shared = [(words[id], float(product)) for id, product in zip(ids.tolist(), products, strict=True)]
    return LexicalPair(heaviest(motion), heaviest(text), shared, float(products.sum()))


def pair_figure(
    positions: Any,
    caption: str,
    pair: LexicalPair,
    fps: float | None = None,
    skeleton: str | None = None,
    k: int = SHOWN,
) -> Figure:
    """
    Draw figure 4: stick figures, the motion's words, the contribution of shared words to the cosine, the caption's
    words.

    Args:
        positions: joint positions (T, J, 3), Y up.
        caption: caption above the figure.
        pair: words of both sides.
        fps, skeleton: see [`motion_strip`].
        k: rows per list.

    Returns:
        Figure of 7.2 inches width.
    """
    from matplotlib import rc_context

    shared = {word for word, _ in pair.shared}
    shown = pair.shared if len(pair.shared) <= k else pair.shared[: k - 1]
    rest = pair.shared[len(shown) :]
    names, values = [word for word, _ in shown], [product for _, product in shown]
    if rest:
        names.append(f"{len(rest)} more words")
        values.append(sum(product for _, product in rest))
    longest = max(len(names), *(len(words[:k]) for words in (pair.motion_words, pair.text_words)), 3)
    with rc_context(FONT | {"font.size": 8.0, "axes.titlesize": 8.5}):
        figure = new_figure(WIDTH, 2.2 + 0.165 * longest)
        top, bottom = figure.subfigures(2, 1, squeeze=False, height_ratios=(1.5, 0.3 + 0.165 * longest))[:, 0]
        motion_strip(positions, skeleton, fps, 9, ax=top.add_subplot())
        figure.suptitle(
            escape_text(textwrap.fill(f"“{caption.strip()}”", 95)), fontsize=9.5, color=DARK, style="italic"
        )
        columns = bottom.subplots(1, 3)
        word_bars(*split_pairs(pair.motion_words[:k]), shared, columns[0], "words of the motion", longest)
        word_bars(names, values, shared, columns[1], f"what they share: cosine {pair.cosine:.2f}", longest, 3)
        word_bars(*split_pairs(pair.text_words[:k]), shared, columns[2], "words of the caption", longest)
    return figure


@dataclass(frozen=True)
class Intensities:
    """
    A pair as two rows of colour.

    Args:
        caption: caption of the pair.
        words: the columns (K).
        weights: weights of motion and caption (2, K), each relative to its heaviest word.
        shared: whether both have the word, bool (K,).
        dense: vectors of a dense model (2, D), each relative to its largest absolute value.
    """

    caption: str
    words: list[str]
    weights: np.ndarray
    shared: np.ndarray
    dense: np.ndarray | None = None


def intensities(
    caption: str, text: Any, motion: Any, words: Sequence[str], dense: Any = None, k: int = 28
) -> Intensities:
    """
    Return the heaviest words of either side, heaviest first.

    Args:
        caption, text, motion, words: see [`lexical_pair`].
        dense: motion and caption in a dense model (2, D).
        k: number of columns.
    """
    rows = [np.asarray(row.toarray() if sparse.issparse(row) else row).ravel() for row in (motion, text)]
    weights = np.stack([row / max(float(row.max()), 1e-12) for row in rows])
    ids = np.argsort(-weights.sum(axis=0), kind="stable")[:k]
    ids = ids[weights[:, ids].sum(axis=0) > 0]
    if dense is not None:
        dense = np.asarray(dense, dtype=np.float64)
        dense = dense / np.maximum(np.abs(dense).max(axis=1, keepdims=True), 1e-12)
    chosen = weights[:, ids]
    return Intensities(caption, [words[id] for id in ids], chosen, np.all(chosen > 0, axis=0), dense)


def intensity_figure(panels: Sequence[Intensities], dense_name: str = "dense") -> Figure:
    """
    Draw figure 1 (a): every pair as rows of colour over named words, and over a dense model's unnamed dimensions.

    Args:
        panels: one per pair, at least one.
        dense_name: name of the dense model.

    Returns:
        Figure of 7.2 inches width.
    """
    from matplotlib import rc_context

    if not panels:
        raise ValueError("pairs: got none; pass at least one")
    titles = [escape_text(textwrap.fill(f"“{panel.caption.strip()}”", 92)) for panel in panels]
    # Inches per panel: its caption, the dense rows and their name, the rows, the longest word below them.
    heads = [0.12 + 0.16 * (title.count("\n") + 1) for title in titles]
    middles = [0.0 if panel.dense is None else 0.34 + 0.24 for panel in panels]
    tails = [0.12 + 0.066 * max(map(len, panel.words), default=0) for panel in panels]
    total = sum(heads) + sum(middles) + sum(tails) + 0.34 * len(panels)
    with rc_context(FONT | {"font.size": 7.5}):
        figure = new_figure(WIDTH, total)
        figure.set_layout_engine("none")
        top = 0.0

        def axes_at(place: float) -> Axes:
            return figure.add_axes((0.6 / WIDTH, 1 - (place + 0.34) / total, (WIDTH - 0.7) / WIDTH, 0.34 / total))

        for panel, title, head, middle, tail in zip(panels, titles, heads, middles, tails, strict=True):
            height = 1 - (top + head - 0.05) / total
            figure.text(0.6 / WIDTH, height, title, style="italic", fontsize=8.5, color=DARK, va="bottom")
            top += head
            if panel.dense is not None:
                ax = axes_at(top)
                _colour_rows(ax, panel.dense, "RdBu_r", -1.0)
                name = f"{panel.dense.shape[1]} dimensions of {dense_name}"
                ax.set_xlabel(name, fontsize=7, color="#777777", labelpad=1)
            ax = axes_at(top + middle)
            _colour_rows(ax, panel.weights, "Blues", 0.0)
            ax.set_xticks(range(len(panel.words)), [escape_text(word) for word in panel.words], rotation=90)
            ax.set_xticks(np.arange(len(panel.words) + 1) - 0.5, minor=True)
            ax.grid(which="minor", axis="x", color="white", lw=0.8)
            for label, shared in zip(ax.get_xticklabels(), panel.shared, strict=True):
                label.set(color=BLUE if shared else DARK, fontweight="bold" if shared else "normal")
            top += middle + 0.34 + tail
    return figure


def _colour_rows(ax: Axes, rows: Any, cmap: str, low: float) -> None:
    ax.imshow(rows, cmap=cmap, vmin=low, vmax=1.0, aspect="auto", interpolation="nearest")
    ax.set_yticks([0, 1], ["motion", "caption"])
    ax.set_xticks([])
    ax.axhline(0.5, color="white", lw=1.5)
    ax.tick_params(which="both", length=0)
    for spine in ax.spines.values():
        spine.set(color=GREY, lw=0.5)
