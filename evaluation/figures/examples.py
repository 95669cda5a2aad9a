"""Some motions of a prepared split beside the words that a model reads in them, as lists and as a picture."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..encoding.vectors import EncodedSplit, encode_dataset, split_motions
from .drawing import DARK, FONT, VIEW, escape_text, facing_front, motion_strip, new_figure, save_figure
from .words import split_pairs, word_bars

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def spread(total: int, count: int) -> list[int]:
    """Return at most `count` evenly spread positions of `total`, including the first and the last."""
    return np.linspace(0, total - 1, min(count, total)).round().astype(int).tolist()


def read_words(processor: Any, encoded: EncodedSplit, rows: list[int], num_words: int = 10) -> list[dict[str, Any]]:
    """
    Return the top words of some motions, and those of them that are in the caption.

    Args:
        processor: the model's.
        encoded: motions and captions.
        rows: rows to read.
        num_words: words per motion.

    Returns:
        Per row `id`, `caption`, `words` (pairs of word and weight, heaviest first) and `shared`.
    """
    tops = processor.top_words(encoded.motion_embeds[rows].toarray(), k=num_words)
    lexicon = processor.lexicon
    examples = []
    for row, top in zip(rows, tops, strict=True):
        present = {lexicon.word(word) for word in lexicon.ids(encoded.captions[row])}
        words = [[word, round(float(weight), 4)] for word, weight in top]
        shared = [word for word, _ in top if word in present]
        examples.append({"id": encoded.ids[row], "caption": encoded.captions[row], "words": words, "shared": shared})
    return examples


def draw_examples(
    model: Any, processor: Any, dataset: Any, path: str | os.PathLike, count: int = 3, num_words: int = 8
) -> list[dict[str, Any]]:
    """
    Draw some motions of a split beside their words, and return them as `read_words` does.

    Args:
        model: a `LexMotionModel`.
        processor: its processor.
        dataset: a split of a prepared corpus.
        path: picture to write.
        count: number of motions, evenly spread over the split.
        num_words: words per motion.
    """
    chosen = dataset.select(spread(len(dataset), count))
    encoded = encode_dataset(model, processor, chosen)
    examples = read_words(processor, encoded, list(range(len(chosen))), num_words)
    skeleton = processor.feature_extractor.skeleton
    drawn = [
        {
            "positions": facing_front(motion, skeleton),
            "caption": example["caption"],
            "words": example["words"],
            "highlight": example["shared"],
            "skeleton": skeleton,
            "fps": fps,
        }
        for motion, fps, example in zip(*split_motions(chosen), examples, strict=True)
    ]
    readme_picture(drawn, path, num_words=num_words)
    return examples


def readme_picture(
    examples: Sequence[Mapping[str, Any]],
    path: str | os.PathLike | None = None,
    num_words: int = 8,
    num_poses: int = 9,
    dpi: int = 150,
) -> Figure:
    """
    Draw motions beside the words that a model reads in them, one per row: the picture of the README.

    Args:
        examples: one per row, at least one, with `positions` (T, J, 3), `words` (pairs of word and weight, heaviest
            first), and optionally `caption`, `highlight` (words to highlight; by default those that occur literally in
            the caption), `skeleton` and `fps`.
        path: file to write.
        num_words, num_poses: words and stick figures per row.
        dpi: dots per inch.

    Returns:
        The figure.
    """
    from matplotlib import rc_context

    if not examples:
        raise ValueError("examples: got none; pass at least one motion")
    with rc_context(FONT):
        figure = new_figure(10.0, 2.25 * len(examples) + 0.2)
        rows = figure.subplots(len(examples), 2, squeeze=False, width_ratios=(3.2, 1.0))
        for (left, right), example in zip(rows, examples, strict=True):
            motion_strip(
                example["positions"], example.get("skeleton"), example.get("fps"), num_poses, ax=left, view=VIEW
            )
            caption = example.get("caption")
            words = list(example["words"])[:num_words]
            highlight = example.get("highlight")
            if highlight is None:
                present = set("".join(c if c.isalnum() else " " for c in (caption or "").lower()).split())
                highlight = [word for word, _ in words if word.lower() in present]
            if caption:
                quoted = escape_text(textwrap.fill(f"“{caption.strip()}”", 90))
                left.set_title(quoted, fontsize=10, color=DARK, style="italic", loc="left")
            word_bars(*split_pairs(words), highlight, right, num_rows=num_words)
        legend = "body: right side orange, left side blue  ·  words: read by the model, blue if in the caption"
        figure.supxlabel(legend, fontsize=8, color="#777777")
    if path is not None:
        save_figure(figure, path, dpi)
    return figure
