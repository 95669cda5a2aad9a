"""Some motions of a prepared split beside the words a model reads in them, as lists and as a picture."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from .encoding.vectors import EncodedSplit, encode_dataset
from .visualization import facing_front, readme_picture


def spread(total: int, count: int) -> list[int]:
    """At most `count` places of `total`, evenly spread, the first and the last among them."""
    return np.linspace(0, total - 1, min(count, total)).round().astype(int).tolist()


def read_words(processor: Any, encoded: EncodedSplit, rows: list[int], num_words: int = 10) -> list[dict[str, Any]]:
    """
    Top words of some motions, and which of them stand in the caption.

    Args:
        processor: the model's. encoded: motions and captions. rows: which of them. num_words: of each.

    Returns:
        for each row `id`, `caption`, `words` (pairs of word and weight, heaviest first) and `shared`.
    """
    tops = processor.top_words(encoded.motion_embeds[rows].toarray(), k=num_words)
    lexicon = processor.lexicon
    examples = []
    for row, top in zip(rows, tops, strict=True):
        said = {lexicon.word(word) for word in lexicon.ids(encoded.captions[row])}
        examples.append(
            {
                "id": encoded.ids[row],
                "caption": encoded.captions[row],
                "words": [[word, round(float(weight), 4)] for word, weight in top],
                "shared": [word for word, _ in top if word in said],
            }
        )
    return examples


def draw_examples(
    model: Any, processor: Any, dataset: Any, path: str | os.PathLike, count: int = 3, num_words: int = 8
) -> list[dict[str, Any]]:
    """
    Draw some motions of a split beside their words.

    Args:
        model: a `LexMotionModel`. processor: its own. dataset: a split of a prepared corpus.
        path: picture to write. count: motions, evenly spread over the split. num_words: of each.

    Returns:
        What was drawn, see `read_words`.
    """
    chosen = dataset.select(spread(len(dataset), count))
    encoded = encode_dataset(model, processor, chosen)
    examples = read_words(processor, encoded, list(range(len(chosen))), num_words)
    extractor = processor.feature_extractor
    rows = chosen.with_format("numpy")
    drawn = [
        {
            "positions": facing_front(row["motion"].reshape(len(row["motion"]), -1, 3), extractor.skeleton),
            "caption": example["caption"],
            "words": example["words"],
            "highlight": example["shared"],
            "skeleton": extractor.skeleton,
            "fps": float(row["fps"]),
        }
        for row, example in zip(rows, examples, strict=True)
    ]
    readme_picture(drawn, Path(path), num_words=num_words)
    return examples
