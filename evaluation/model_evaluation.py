"""Evaluation of trained models on a prepared split: retrieval, words, the order of events, and the ridge floor."""

from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from lexmotion.common.pretrained import loading_from
from lexmotion.processing.corpora.prepare import PrepareReport, load_prepared

from .acceptance import evaluate_lexical_space
from .encoding.vectors import (
    EncodedSplit,
    encode_captions,
    encode_dataset,
    encode_motions,
    every_caption_similarity,
    has_parts,
    score_rows,
    score_weights,
    sentence_vectors,
    split_motions,
)
from .loading import name_of, ready_model
from .metrics.all_captions import clip_recalls, clip_scores, recall_metrics
from .metrics.lexical import caption_coverage
from .metrics.order import NO_CAPTION, multi_event_captions, order_metrics
from .metrics.retrieval import ScoreRows, evaluate_retrieval
from .metrics.scores import blend
from .ridge_floor import RidgeFloor, motion_statistics

# Clips are reported apart below and from this length; HumanML3D's are 2 to 10 s long.
SHORT_SECONDS = 6.0
FLOOR_PROTOCOLS = ("all-strict", "all-duplicates")


def evaluate(
    model: Any,
    dataset: str | Path,
    split: str = "validation",
    protocols: str | Iterable[str] = "all",
    processor: Any = None,
    sentence_model: str | None = None,
    dissimilar_ids: Sequence[str] | None = None,
    batch_size: int = 64,
    seed: int = 0,
    progress: bool = False,
    views: int = 1,
) -> dict[str, Any]:
    """
    Measure a model on a split of a prepared corpus, as `lexmotion evaluate retrieval` does.

    Args:
        model: folder or Hub name of a trained model, or a loaded `LexMotionModel`.
        dataset: folder written by `lexmotion prepare`.
        split: one of its splits.
        protocols: names of `lexmotion.evaluation.metrics.retrieval.PROTOCOLS`, or `"all"` that can run.
        processor: the model's; None loads the one saved beside it.
        sentence_model: folder or Hub name of a sentence encoder, for the protocol `threshold`.
        dissimilar_ids: gallery of the protocol `dissimilar`.
        batch_size: motions or captions encoded at a time.
        seed: seed of the protocols that draw.
        views: number of views per motion that are averaged, 1, 2 or 4, see `encode_motions`.

    Returns:
        The origin (`model`, `dataset`, `dataset_fingerprint`, `split`, `lexmotion`, `views`) and the results of
        `evaluate_split`; JSON-safe.

    Raises:
        FileNotFoundError: if the model or corpus does not exist.
        ValueError: if a protocol lacks an input, or the corpus does not have the split.

    Example:
        >>> results = evaluate("runs/small/model", "prepared/humanml3d", split="test")  # doctest: +SKIP
        >>> results["retrieval"]["all-strict"]["t2m/R1"]  # doctest: +SKIP
    """
    rows = load_prepared(dataset, splits=[split])[split]
    origin = origin_of(name_of(model), dataset, split) | {"lexmotion": version("lexmotion"), "views": views}
    model, processor = ready_model(model, processor)
    measured, _ = evaluate_split(
        model, processor, rows, protocols, sentence_model, dissimilar_ids, batch_size, seed, progress, views
    )
    return origin | measured


def evaluate_split(
    model: Any,
    processor: Any,
    rows: Any,
    protocols: str | Iterable[str] = "all",
    sentence_model: str | None = None,
    dissimilar_ids: Sequence[str] | None = None,
    batch_size: int = 64,
    seed: int = 0,
    progress: bool = False,
    views: int = 1,
) -> tuple[dict[str, Any], EncodedSplit]:
    """
    Measure retrieval and the words of a loaded model on one prepared split.

    Args:
        model: a `LexMotionModel` or a baseline.
        processor: its `LexMotionProcessor`.
        rows: a split of a prepared `DatasetDict`; the first caption of each motion is the query.
        protocols, sentence_model, dissimilar_ids, batch_size, seed, views: see `evaluate`.

    Returns:
        `{"retrieval": {protocol: metrics}, "all_captions": metrics, "lexical": metrics}`, JSON-safe, and the vectors.
        Retrieval is by the model's own score; if that is more than the cosine of the word vectors (segments, dense
        vectors), `"retrieval_words"` is by this cosine alone, as in an inverted index. For `"all_captions"` see
        `figures_by_clip`. `"lexical"` is missing for dense vectors; `caption_coverage_top10` counts the content words
        of the query caption, `coverage_*` those of all captions.

    Raises:
        ValueError: if a protocol lacks an input.
    """
    encoded = encode_dataset(model, processor, rows, batch_size, progress, views)
    text_similarity = None
    if sentence_model is not None:
        vectors = sentence_vectors(encoded.captions, sentence_model, batch_size, progress)
        size = len(vectors)
        text_similarity = ScoreRows((size, size), lambda start, stop: vectors[start:stop] @ vectors.T)

    def retrieval_by(scores: ScoreRows) -> dict[str, Any]:
        ids, captions = encoded.ids, encoded.captions
        return evaluate_retrieval(scores, ids, captions, protocols, text_similarity, dissimilar_ids, seed=seed)

    by_clip = figures_by_clip(every_caption_similarity(model, processor, encoded, batch_size, progress), rows)
    measured = {"retrieval": retrieval_by(score_rows(encoded)), "all_captions": by_clip["all_captions"]}
    if has_parts(model):
        measured["retrieval_words"] = retrieval_by(score_rows(encoded, segment_weight=0.0, hybrid_weight=0.0))
    if not sparse.issparse(encoded.text_embeds):
        return measured, encoded
    lexicon = processor.lexicon
    content = content_words(encoded.all_captions, lexicon)
    lexical = evaluate_lexical_space(encoded.text_embeds, encoded.motion_embeds, content, lexicon)
    first = content_words([[caption] for caption in encoded.captions], lexicon)
    lexical["caption_coverage_top10"] = caption_coverage(encoded.motion_embeds, first, k=10)
    return measured | {"lexical": lexical}, encoded


def clip_parts(seconds: np.ndarray) -> dict[str, np.ndarray]:
    """Return masks (N,) of `all`, `short` and `long` clips from their lengths in seconds (N,)."""
    short = seconds < SHORT_SECONDS
    return {"all": np.ones_like(short), "short": short, "long": ~short}


def figures_by_clip(scores: Any, rows: Any) -> dict[str, Any]:
    """
    Return retrieval figures over all captions of a split, and the score of each clip for paired comparisons.

    Args:
        scores: score of every caption, those of a clip side by side, with every motion (C, N), array or `ScoreRows`.
        rows: the prepared split.

    Returns:
        `all_captions`: figures of `recall_metrics` over `all` clips, `short` and `long` ones (None if there is none),
        each with `clips`, its number of clips; and `clips`: `id`, `seconds` and `score` of each, JSON-safe.
    """
    recalls = clip_recalls(scores, [len(texts) for texts in rows["captions"]])
    seconds = np.array(rows["num_frames"]) / np.array(rows["fps"])
    return {
        "all_captions": {
            name: recall_metrics(recalls[part]) | {"clips": int(part.sum())} if part.any() else None
            for name, part in clip_parts(seconds).items()
        },
        "clips": {
            "id": list(rows["id"]),
            "seconds": [round(value, 3) for value in seconds.tolist()],
            "score": [round(value, 4) for value in clip_scores(recalls).tolist()],
        },
    }


def content_words(captions: Iterable[Sequence[str]], lexicon: Any) -> list[list[int]]:
    """Return for each list of captions their content words: sorted ids, each once."""
    return [sorted({word for text in texts for word in lexicon.content_ids(text)}) for texts in captions]


def evaluate_order(
    model: Any,
    dataset: str | Path,
    split: str = "validation",
    processor: Any = None,
    batch_size: int = 64,
    progress: bool = False,
) -> dict[str, Any]:
    """
    Run the order test on a split of a prepared corpus, as `lexmotion evaluate order` does.

    Args:
        model: as in `evaluate`, or a baseline.
        dataset, split, processor, batch_size: see `evaluate`.

    Returns:
        `model`, `dataset`, `split` and the `order` of `order_of_split`; JSON-safe.

    Raises:
        ValueError: if no caption of the split names several events.
    """
    rows = load_prepared(dataset, splits=[split])[split]
    order = order_of_split(*ready_model(model, processor), rows, batch_size, progress)
    return {"model": name_of(model), "dataset": str(dataset), "split": split, "order": order}


def order_of_split(
    model: Any, processor: Any, rows: Any, batch_size: int = 64, progress: bool = False
) -> dict[str, float | int]:
    """
    Run the order test on every caption of a prepared split that names several events.

    Args:
        model: a `LexMotionModel` or a baseline.
        processor: its `LexMotionProcessor`.
        rows: the split.

    Returns:
        See `order_metrics`; for a model with segments or dense vectors also `share_words`, by the word vectors alone.

    Raises:
        ValueError: if no caption of the split names several events.
    """
    captions, swapped, motions = multi_event_captions(rows["captions"])
    if not captions:
        raise ValueError(NO_CAPTION)
    own, place = np.unique(motions, return_inverse=True)
    both = encode_captions(model, processor, [*captions, *swapped], batch_size, progress)
    seen = encode_motions(model, processor, rows.select(own), batch_size, progress)
    count = len(captions)

    def shares(segment_weight: float, hybrid_weight: float) -> dict[str, float | int]:
        scores = blend(both, seen, segment_weight, hybrid_weight).matrix()
        return order_metrics(scores[:count], scores[count:], captions, place)

    measured = shares(*score_weights(model))
    if both.segments is not None or both.dense is not None:
        measured["share_words"] = shares(0.0, 0.0)["share"]
    return measured


def evaluate_ridge_floor(dataset: str | Path, split: str = "validation", penalty: float = 300.0) -> dict[str, Any]:
    """
    Fit the ridge floor on the training split of a prepared corpus and measure it on another one.

    Args:
        dataset, split: see `evaluate`.
        penalty: weight of the squared coefficients.

    Returns:
        `model`, `dataset`, `dataset_fingerprint`, `split` and `retrieval`; JSON-safe.
    """
    from lexmotion import LexMotionProcessor

    splits = load_prepared(dataset, splits=["train", split])
    with loading_from(Path(dataset) / "processor"):
        processor = LexMotionProcessor.from_pretrained(Path(dataset) / "processor", trust_remote_code=False)
    retrieval, _ = ridge_floor_of_split(processor, splits["train"], splits[split], penalty)
    return origin_of(f"ridge floor, penalty {penalty:g}", dataset, split) | {"retrieval": retrieval}


def ridge_floor_of_split(
    processor: Any,
    train: Any,
    rows: Any,
    penalty: float = 300.0,
    describe: Callable[[Any], np.ndarray] = motion_statistics,
) -> tuple[dict[str, dict[str, Any]], RidgeFloor]:
    """
    Fit the ridge floor on `train` and its mirror image; return its retrieval on `rows`, and the floor.

    Args:
        describe: description of a motion, see [`RidgeFloor`].
    """
    floor = RidgeFloor(penalty, processor.tokenizer, skeleton=processor.feature_extractor.skeleton, describe=describe)
    floor.fit(split_motions(train)[0], train["captions"], train["mirrored_captions"])
    captions = [texts[0] for texts in rows["captions"]]
    scores = floor.similarity(captions, split_motions(rows)[0])
    return evaluate_retrieval(scores, list(rows["id"]), captions, FLOOR_PROTOCOLS), floor


def origin_of(model: str, dataset: str | Path, split: str) -> dict[str, str]:
    """Return the model, data and split of a result."""
    fingerprint = PrepareReport.load(dataset).fingerprint
    return {"model": model, "dataset": str(dataset), "dataset_fingerprint": fingerprint, "split": split}
