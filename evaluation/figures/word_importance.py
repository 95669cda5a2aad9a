"""Figure 5: the words that a text model finds important in the captions of a split, before and after LexMLM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..metrics.lexical import MASS_CLASSES, LexiconLike, mass_by_class
from .drawing import BLUE, DARK, FONT, GREY, ORANGE, escape_text, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 7.2
CLASS_COLORS = dict(zip(MASS_CLASSES, (GREY, BLUE, ORANGE, "#F0E442"), strict=True))
TEXT_COLORS = CLASS_COLORS | {"stop_word": "#6F6F6F", "other": "#A08A00"}  # dark enough to be read
CLASS_NAMES = {
    "stop_word": "stop word",
    "caption_content": "content word in the caption",
    "expansion": "expansion word",
    "other": "other",
}


@dataclass(frozen=True)
class WordImportance:
    """
    The importance p of words to a text model, summed over captions; a caption's p sums to 1.

    Args:
        mass: sum per word (V,).
        present: part of `mass` from captions that have the word as a content word (V,).
        classes: share of the total mass per class, see `MASS_CLASSES`.
        captions: number of captions.
    """

    mass: np.ndarray
    present: np.ndarray
    classes: dict[str, float]
    captions: int


class ImportanceSum:
    """
    Sums for a [`WordImportance`], batch by batch.

    Args:
        lexicon: defines stop words and the words of the space.
    """

    def __init__(self, lexicon: LexiconLike):
        self.lexicon = lexicon
        self.mass, self.present = np.zeros(len(lexicon.active)), np.zeros(len(lexicon.active))
        self.classes = dict.fromkeys(MASS_CLASSES, 0.0)
        self.captions = 0

    def add(self, importance: Any, content: Sequence[Sequence[int]]) -> None:
        """
        Add captions.

        Args:
            importance: importance of each word for each caption (B, V), rows that sum to 1.
            content: ids of each caption's content words (B).
        """
        importance = np.asarray(importance, dtype=np.float64)
        shares = mass_by_class(importance, content, self.lexicon.stop_word, self.lexicon.active)
        for name, share in shares.items():
            self.classes[name] += share * float(importance.sum())
        self.mass += importance.sum(axis=0)
        for row, words in zip(importance, content, strict=True):
            unique = np.unique(np.asarray(words, dtype=np.int64))
            self.present[unique] += row[unique]
        self.captions += len(importance)

    def result(self) -> WordImportance:
        """Return the sums so far; ValueError if there were no captions."""
        if not self.captions:
            raise ValueError("captions: got none; add at least one")
        total = sum(self.classes.values())
        classes = {name: value / total for name, value in self.classes.items()}
        return WordImportance(self.mass, self.present, classes, self.captions)


def ranked(importance: WordImportance, k: int) -> np.ndarray:
    """Return the ids of the k most important words, the heaviest first, ties by id."""
    ids = np.argsort(-importance.mass, kind="stable")[:k]
    return ids[importance.mass[ids] > 0]


def word_class(importance: WordImportance, lexicon: LexiconLike, id: int) -> str:
    """Return the class that most of a word's mass belongs to."""
    if lexicon.stop_word[id]:
        return "stop_word"
    if not lexicon.active[id]:
        return "other"
    return "caption_content" if importance.present[id] >= importance.mass[id] / 2 else "expansion"


def ranked_figure(models: Mapping[str, WordImportance], lexicon: Any, k: int = 30) -> Figure:
    """
    Draw the most important words of every model as bars, in percent of all importance, and its mass by class.

    Args:
        models: name -> importance, in the order of the columns, at least one.
        lexicon: lexicon with the names of the words.
        k: words per model.

    Returns:
        Figure of 7.2 inches width.
    """
    from matplotlib import rc_context

    _check(models)
    with rc_context(FONT | {"font.size": 7.5, "axes.titlesize": 8.5}):
        height = 0.27 * len(models) + 0.6
        figure = new_figure(WIDTH, 0.155 * k + 0.35 + height)
        top, bottom = figure.subfigures(2, 1, squeeze=False, height_ratios=(0.155 * k + 0.35, height))[:, 0]
        axes = top.subplots(1, len(models), squeeze=False)[0]
        widest = max(100 * one.mass[ranked(one, 1)].max(initial=0.0) / one.mass.sum() for one in models.values())
        for ax, (name, one) in zip(axes, models.items(), strict=True):
            _bars(ax, one, lexicon, k, widest)
            ax.set_title(escape_text(name), loc="left", color=DARK, fontweight="bold")
        mass_bars(models, bottom.add_subplot())
    return figure


def _check(models: Mapping[str, WordImportance]) -> None:
    if not models:
        raise ValueError("models: got none; pass the importance of at least one")


def _bars(ax: Axes, one: WordImportance, lexicon: Any, k: int, widest: float) -> None:
    ids, total = ranked(one, k), one.mass.sum()
    present = 100 * one.present[ids] / total
    absent = 100 * (one.mass - one.present)[ids] / total
    rest = ["stop_word" if lexicon.stop_word[id] else "expansion" for id in ids.tolist()]
    places = np.arange(len(ids))
    ax.barh(places, present, height=0.74, color=CLASS_COLORS["caption_content"], linewidth=0)
    ax.barh(places, absent, left=present, height=0.74, color=[CLASS_COLORS[name] for name in rest], linewidth=0)
    ax.set_yticks(places, [escape_text(lexicon.word(id)) for id in ids.tolist()])
    ax.set_ylim(k - 0.4, -0.6)
    ax.set_xlim(0, 1.05 * widest)
    ax.tick_params(axis="y", length=0)
    ax.tick_params(axis="x", labelsize=7, colors="#777777", length=2)
    ax.set_xlabel("% of all importance", fontsize=7, color="#777777")
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.spines["bottom"].set_color(GREY)


def mass_bars(models: Mapping[str, WordImportance], ax: Axes) -> None:
    """Draw the mass by class of every model as one bar of 100 % labelled with the shares, and a legend."""
    names = list(models)
    left = np.zeros(len(names))
    places = range(len(names))
    for kind in MASS_CLASSES:
        shares = np.array([100 * models[name].classes[kind] for name in names])
        if shares.max() < 0.05:
            continue  # rounding
        ax.barh(places, shares, left=left, height=0.7, color=CLASS_COLORS[kind], linewidth=0, label=CLASS_NAMES[kind])
        for place, start, share in zip(places, left, shares, strict=True):
            if share >= 5:
                color = "black" if kind in ("stop_word", "other") else "white"
                ax.text(start + share / 2, place, f"{share:.1f} %", ha="center", va="center", fontsize=7, color=color)
        left += shares
    ax.set_yticks(places, [escape_text(name) for name in names])
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xlim(0, 100)
    ax.set_xticks([])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=4, frameon=False, fontsize=7.5, handlelength=1)


def words_figure(models: Mapping[str, WordImportance], lexicon: Any, k: int = 120) -> Figure:
    """
    Draw the k most important words of every model in the order of importance; larger means more important.

    Args:
        models, lexicon, k: see [`ranked_figure`].

    Returns:
        Figure of 7.2 inches width.
    """
    from matplotlib import rc_context
    from matplotlib.patches import Patch

    _check(models)
    width = WIDTH / len(models) - 0.2
    with rc_context(FONT):
        figure = new_figure(WIDTH, 1.0)
        figure.set_layout_engine("none")
        blocks = [_flowed(figure, one, lexicon, k, width) for one in models.values()]
        body = max(bottom for _, bottom in blocks)
        height = 0.35 + body + 0.35
        figure.set_size_inches(WIDTH, height)
        for number, (name, (words, _)) in enumerate(zip(models, blocks, strict=True)):
            left = 0.1 + number * WIDTH / len(models)
            figure.text(left / WIDTH, 1 - 0.2 / height, escape_text(name), fontsize=8.5, color=DARK, weight="bold")
            for text, size, kind, x, y in words:
                place, color = ((left + x) / WIDTH, 1 - (0.35 + y) / height), TEXT_COLORS[kind]
                figure.text(*place, escape_text(text), fontsize=size, color=color, va="baseline")
        kinds = sorted({word[2] for words, _ in blocks for word in words}, key=MASS_CLASSES.index)
        handles = [Patch(color=TEXT_COLORS[kind], label=CLASS_NAMES[kind]) for kind in kinds]
        figure.legend(handles=handles, loc="lower center", ncols=4, frameon=False, fontsize=7.5, handlelength=1)
    return figure


def _flowed(
    figure: Figure, one: WordImportance, lexicon: Any, k: int, width: float
) -> tuple[list[tuple[str, float, str, float, float]], float]:
    """Set words in lines of `width` inches: (text, points, class, left, baseline) in inches, and the height used."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    ids = ranked(one, k)
    # The area of a word is proportional to its importance, so its height to the square root.
    scale = np.sqrt(one.mass[ids] / one.mass[ids].max(initial=1e-12))
    placed: list[tuple[str, float, str, float, float]] = []
    line: list[tuple[str, float, str, float]] = []
    x = y = 0.0

    def finish() -> None:
        nonlocal x, y
        y += 1.25 * max(size for _, size, _, _ in line) / 72
        placed.extend((text, size, kind, left, y) for text, size, kind, left in line)
        line.clear()
        x = 0.0

    for id, factor in zip(ids.tolist(), scale, strict=True):
        size = float(np.clip(19 * factor, 5.0, 19.0))
        text = lexicon.word(id)
        long = TextPath((0, 0), escape_text(text), size=size, prop=FontProperties("DejaVu Sans"))
        extent = long.get_extents().width / 72
        if line and x + extent > width:
            finish()
        line.append((text, size, word_class(one, lexicon, id), x))
        x += extent + 0.3 * size / 72 + 0.03
    if line:
        finish()
    return placed, y + 0.05
