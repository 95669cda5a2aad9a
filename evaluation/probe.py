"""The linear probe of a motion tower: what its tokens tell about the captions, against random weights."""

from pathlib import Path
from typing import Any

import numpy as np

from lexmotion.processing.corpora.prepare import load_prepared

from .encoding.vectors import split_motions
from .loading import load_motion_encoder
from .metrics.all_captions import paired_interval
from .model_evaluation import figures_by_clip, origin_of, ridge_floor_of_split
from .ridge_floor import TowerTokens, UntrainedTower


def evaluate_probe(
    model: str | Path, dataset: str | Path, split: str = "validation", penalty: float = 300.0, seeds: int = 3
) -> dict[str, Any]:
    """
    Measure how much a linear map reads from the tokens of a motion tower, and from those of random weights.

    The map is ridge regression from the mean tokens of each body part to the words of the captions, fitted on the
    training split and its mirror image (see `RidgeFloor`). A pre-training of the tower that does not beat random
    weights here has not learned what captions are about.

    Args:
        model: folder of a finished phase ii, iii or iv, or of a trained model.
        dataset: folder written by `lexmotion prepare`, with a training split.
        split: one of its splits.
        penalty: weight of the squared coefficients.
        seeds: number of towers with random weights.

    Returns:
        `model`, `dataset`, `dataset_fingerprint`, `split`; for the `trained` tower and the `untrained` ones (a list)
        `retrieval` and `all_captions` as in `evaluate`; `difference`: mean difference of the Rsum over all captions
        between the trained tower and the mean of the others, with its 95 % interval (`low`, `high`). JSON-safe.

    Raises:
        FileNotFoundError: if the model or corpus does not exist.
        ValueError: if the model has no motion tower, the corpus does not have the split, or `seeds` is below 1.
    """
    if seeds < 1:
        raise ValueError(f"seeds: got {seeds}; pass at least 1")
    encoder, processor = load_motion_encoder(model)
    splits = load_prepared(dataset, splits=["train", split])
    train, rows = splits["train"], splits[split]
    captions, motions = [text for texts in rows["captions"] for text in texts], split_motions(rows)[0]

    def probe(describe: TowerTokens) -> dict[str, Any]:
        retrieval, floor = ridge_floor_of_split(processor, train, rows, penalty, describe)
        return {"retrieval": retrieval, **figures_by_clip(floor.similarity(captions, motions), rows)}

    extractor = processor.feature_extractor
    trained = probe(TowerTokens(encoder, extractor))
    untrained = [probe(UntrainedTower(extractor, seed, encoder.config)) for seed in range(seeds)]
    scores = trained.pop("clips")["score"], np.array([found.pop("clips")["score"] for found in untrained])
    difference = dict(zip(("mean", "low", "high"), paired_interval(*scores), strict=True))
    origin = origin_of(str(model), dataset, split)
    return origin | {"trained": trained, "untrained": untrained, "difference": difference}
