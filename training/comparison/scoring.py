"""Scoring of a trained row: retrieval under both protocols, and figures of its words."""

import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import sparse

from lexmotion import LexMotionModel, LexMotionProcessor
from lexmotion.common.pretrained import loading_from
from lexmotion.encoding_lexmotion import check_processor
from lexmotion.evaluation.acceptance import evaluate_lexical_space, word_frequency
from lexmotion.evaluation.encoding.vectors import (
    EncodedSplit,
    encode_dataset,
    every_caption_similarity,
    has_parts,
    score_rows,
    split_motions,
)
from lexmotion.evaluation.metrics.lexical import active_words, caption_coverage, prior_coverage
from lexmotion.evaluation.metrics.order import multi_event_captions
from lexmotion.evaluation.metrics.retrieval import evaluate_retrieval
from lexmotion.evaluation.model_evaluation import (
    content_words,
    figures_by_clip,
    order_of_split,
    ridge_floor_of_split,
)
from lexmotion.evaluation.ridge_floor import UntrainedTower, motion_statistics

from ..tasks.baseline import SYSTEMS

PROTOCOLS = ("all-strict", "all-duplicates")
RIDGE_PENALTY = 300.0
# Desired range of active words per item: fewer carry too little meaning, more are not sparse.
WORDS_WANTED = {"text": (10, 100), "motion": (40, 200)}


def score_model(
    folder: Path, system: str | None, train: Any, rows: Any, galleries: Mapping[str, Any]
) -> dict[str, Any]:
    """
    Score a trained model on a split by retrieval and, if its vectors are lexical, by its words.

    Args:
        folder: folder of the model and processor.
        system: name of a baseline; None for LexMotion.
        train, rows: prepared splits; the first gives the word frequencies of the prior.
        galleries: name -> further prepared split.

    Returns:
        `retrieval` (protocol -> figures) by the model's score, `retrieval_words` by its words only if the score uses
        more, `all_captions` and `clips` (see `figures_by_clip`), `lexical` and `order` (figures or None), `galleries`
        (name -> `all_captions` and `clips`), `parameters`.
    """
    model_class: Any = LexMotionModel if system is None else SYSTEMS[system].model
    with loading_from(folder):
        model = model_class.from_pretrained(folder).eval().to("cuda" if torch.cuda.is_available() else "cpu")
        processor = LexMotionProcessor.from_pretrained(folder, trust_remote_code=False)
    check_processor(model.config, processor)
    encoded = encode_dataset(model, processor, rows)

    def retrieval(scores: Any) -> dict[str, Any]:
        return evaluate_retrieval(scores, encoded.ids, encoded.captions, PROTOCOLS)

    def by_clip(split: Any, found: EncodedSplit | None = None) -> dict[str, Any]:
        found = encode_dataset(model, processor, split) if found is None else found
        return figures_by_clip(every_caption_similarity(model, processor, found), split)

    has_words = sparse.issparse(encoded.text_embeds) and encoded.hybrid_weight < 1.0
    words_alone = lexical = None
    if has_words and has_parts(model):
        words_alone = retrieval(score_rows(encoded, segment_weight=0.0, hybrid_weight=0.0))
    if has_words:
        lexical = lexical_figures(encoded, processor.lexicon, train["captions"])
    several_events = multi_event_captions(encoded.all_captions)[0]
    return {
        "retrieval": retrieval(score_rows(encoded)),
        **by_clip(rows, encoded),
        "retrieval_words": words_alone,
        "lexical": lexical,
        "order": order_of_split(model, processor, rows) if several_events else None,
        "galleries": {name: by_clip(split) for name, split in galleries.items()},
        "parameters": sum(weight.numel() for weight in model.parameters()),
    }


def score_ridge(
    folder: Path, system: str | None, train: Any, rows: Any, galleries: Mapping[str, Any], tower: bool = False
) -> dict[str, Any]:
    """Score the ridge floor fitted on `train` and its mirror image; `folder` only has a processor."""
    with loading_from(folder):
        processor = LexMotionProcessor.from_pretrained(folder, trust_remote_code=False)
    describe = UntrainedTower(processor.feature_extractor) if tower else motion_statistics
    retrieval, floor = ridge_floor_of_split(processor, train, rows, RIDGE_PENALTY, describe)

    def by_clip(split: Any) -> dict[str, Any]:
        captions = [text for texts in split["captions"] for text in texts]
        return figures_by_clip(floor.similarity(captions, split_motions(split)[0]), split)

    missing = dict.fromkeys(("retrieval_words", "lexical", "order"))
    further = {name: by_clip(split) for name, split in galleries.items()}
    figures = {"retrieval": retrieval, **by_clip(rows), **missing, "galleries": further}
    return {**figures, "parameters": int(np.size(floor.weight))}


class Scorer(NamedTuple):
    """
    A way to score rows.

    Args:
        score: returns the figures, given the folder of the model (or processor, if nothing is trained), the name of a
            baseline, the prepared splits of training and comparison, and further ones by name.
        headline: summarizes the figures in a few words.
    """

    score: Callable[[Path, str | None, Any, Any, Mapping[str, Any]], dict[str, Any]]
    headline: Callable[[dict[str, Any]], str]


def rsum(result: dict[str, Any]) -> str:
    """Summarize retrieval figures."""
    return f"Rsum {result['retrieval']['all-strict']['Rsum']:.1f}"


SCORERS = {
    "retrieval": Scorer(score_model, rsum),
    "ridge": Scorer(score_ridge, rsum),
    "tower-ridge": Scorer(partial(score_ridge, tower=True), rsum),
}


def lexical_figures(encoded: EncodedSplit, lexicon: Any, train_captions: Any) -> dict[str, float]:
    """
    Return the figures of `evaluate_lexical_space` with the prior of the training captions, and further ones.

    These are, for both sides, `least_words`, `most_words`, `in_range` (share of items with a desired number of words)
    and `universal_share` (of the words in use); and for the query captions `caption_coverage_top20` and
    `caption_prior_top20`.
    """
    content = content_words(encoded.all_captions, lexicon)
    prior = word_frequency(content_words(train_captions, lexicon), lexicon.vocab_size)
    figures = evaluate_lexical_space(encoded.text_embeds, encoded.motion_embeds, content, lexicon, prior)
    for side, embeds in (("text", encoded.text_embeds), ("motion", encoded.motion_embeds)):
        counts, (least, most) = active_words(embeds), WORDS_WANTED[side]
        figures[f"{side}_least_words"], figures[f"{side}_most_words"] = float(counts.min()), float(counts.max())
        figures[f"{side}_in_range"] = float(np.mean((counts >= least) & (counts <= most)))
        figures[f"{side}_universal_share"] = figures[f"{side}_universal"] / max(figures[f"{side}_distinct_words"], 1.0)
    first = content_words([[caption] for caption in encoded.captions], lexicon)
    figures["caption_coverage_top20"] = caption_coverage(encoded.motion_embeds, first, k=20)
    figures["caption_prior_top20"] = prior_coverage(prior, first, k=20)
    return figures


def drop_weights(folder: Path, keep_models: bool) -> None:
    """Delete checkpoints of finished trainings, and their models unless `keep_models`, but not logs and results."""
    for path in list(folder.rglob("*")):
        doomed = path.name.startswith("checkpoint-") or (path.name == "model" and not keep_models)
        if path.is_dir() and doomed:
            shutil.rmtree(path)
        elif path.name == "caption_features.safetensors":
            path.unlink()
