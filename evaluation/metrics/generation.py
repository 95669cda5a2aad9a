"""Metrics of motion generation on embeddings: FID, R-precision, multimodal distance, diversity, multimodality.

Everything here takes arrays; no model is ever called. The embeddings are those of an evaluator: one network for text
and one for motion that share a space. Published figures use the evaluator of Guo et al. 2022 (`text_mot_match`), whose
weights are not part of this package: embed with it if you have it, or with any retrieval model of your own. Figures of
two evaluators cannot be compared.

The protocol is that of Guo et al. 2022: Euclidean distances, pools of 32 with the remainder dropped, 300 pairs for
diversity, 100 texts x 30 motions x 10 pairs for multimodality, 20 replications and `1.96 * std / sqrt(20)` around
their mean. R-precision is a fraction, as the field prints it, not a percentage. Every function raises ValueError if
shapes do not fit, a value is not finite, or there are too few items.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import svdvals
from scipy.spatial.distance import cdist

from .retrieval import DIRECTIONS, ranks


def frechet_distance(real: Any, generated: Any) -> float:
    """
    Compute FID: the Fréchet distance of the Gaussians fitted to two sets of embeddings.

    `|m1 - m2|^2 + tr(C1) + tr(C2) - 2 tr((C1 C2)^(1/2))` in float64. With `C1 = R1' R1` and `C2 = R2' R2` the last
    trace is the sum of the singular values of `R1 R2'`, so no matrix root is taken: the result is real even if there
    are fewer items than dimensions, and needs no constant on the diagonal.

    Args:
        real: embeddings of recorded motions (N, D), N at least 2.
        generated: embeddings of generated motions (M, D), M at least 2.

    Returns:
        The distance, 0 for equal sets. It shrinks as the number of items grows: compare only sets of one size.

    Example:
        >>> frechet_distance([[0.0], [2.0]], [[3.0], [5.0]])
        9.0
    """
    real, generated = _embeds(real, "real"), _embeds(generated, "generated")
    _same_width(real=real, generated=generated)
    for name, embeds in (("real", real), ("generated", generated)):
        if len(embeds) < 2:
            raise ValueError(f"{name}: got {len(embeds)} embedding; pass at least 2, which a covariance needs")
    means, roots = zip(*(_gaussian(embeds) for embeds in (real, generated)), strict=True)
    spread = sum(float(np.square(root).sum()) for root in roots)
    distance = float(np.square(means[0] - means[1]).sum()) + spread - 2.0 * float(svdvals(roots[0] @ roots[1].T).sum())
    return max(distance, 0.0)  # rounding can go slightly below zero


def _gaussian(embeds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean (D,) and a root R of the covariance, `R' R = C`."""
    mean = embeds.mean(axis=0)
    root = np.linalg.qr((embeds - mean) / np.sqrt(len(embeds) - 1), mode="r")
    return mean, np.asarray(root)


def r_precision(
    text_embeds: Any,
    motion_embeds: Any,
    pool_size: int = 32,
    top_k: int = 3,
    seed: int | None = None,
    direction: str = "t2m",
    ties: str = "average",
) -> np.ndarray:
    """
    Compute the share of queries whose partner is among the nearest of a small pool.

    Args:
        text_embeds, motion_embeds: embeddings of captions and of their motions (N, D), paired by row.
        pool_size: items per pool; a remainder that fills no pool is dropped.
        top_k: number of precisions to return.
        seed: shuffles the items before they are cut into pools. If None, pools are cut in the given order, which is
            right only if neighbours are unrelated.
        direction: `"t2m"` ranks the motions of the pool for each text, as the code of Guo et al. does; `"m2t"` the
            texts for each motion, as TM2T's evaluation of captions does.
        ties: position of a partner among equally distant items, see [`~evaluation.metrics.retrieval.ranks`]. A
            generator that always returns the same motion has precision 0 under `"average"`.

    Returns:
        Precision at 1, 2, ..., `top_k` (top_k,), each from 0 to 1; chance is `k / pool_size`.

    Example:
        >>> r_precision(np.eye(4), np.eye(4), pool_size=2, top_k=2)
        array([1., 1.])
    """
    texts, motions = _pairs(text_embeds, motion_embeds)
    if direction not in DIRECTIONS:
        raise ValueError(f"direction: got {direction!r}; choose one of {', '.join(DIRECTIONS)}")
    if not 1 <= top_k <= pool_size:
        raise ValueError(f"top_k: expected 1 to the pool size {pool_size}, got {top_k}; lower top_k")
    _check_pool(len(texts), pool_size)
    order = np.arange(len(texts)) if seed is None else np.random.default_rng(seed).permutation(len(texts))
    pools = order[: len(order) // pool_size * pool_size].reshape(-1, pool_size)
    queries, gallery = (texts, motions) if direction == "t2m" else (motions, texts)
    distances = np.concatenate([cdist(queries[pool], gallery[pool]) for pool in pools])  # (pools * P, P)
    found = ranks(-distances, np.tile(np.arange(pool_size), len(pools)), ties)
    return np.asarray([np.mean(found < k) for k in range(1, top_k + 1)])


def multimodal_distance(text_embeds: Any, motion_embeds: Any) -> float:
    """
    Compute MM-Dist (matching score): mean Euclidean distance of each text (N, D) to its motion (N, D); lower is
    better.
    """
    texts, motions = _pairs(text_embeds, motion_embeds)
    return float(np.linalg.norm(texts - motions, axis=1).mean())


def diversity(embeds: Any, pairs: int = 300, seed: int = 0) -> float:
    """
    Compute the mean Euclidean distance between two random selections from all motions.

    Args:
        embeds: embeddings of motions (N, D).
        pairs: items per selection; an item occurs once in each and may meet itself, as in the code of Guo et al.
        seed: seed of the two selections.

    Returns:
        The distance; it should be that of recorded motions.
    """
    embeds = _embeds(embeds, "embeds")
    first, second = _selections(len(embeds), pairs, seed, "pairs")
    return float(np.linalg.norm(embeds[first] - embeds[second], axis=1).mean())


def multimodality(embeds: Any, pairs: int = 10, seed: int = 0) -> float:
    """
    Compute the mean Euclidean distance between motions generated for one text.

    Args:
        embeds: embeddings of several motions for each text (texts, samples, D); the field uses 100 texts and 30
            motions.
        pairs: items in each of two selections from the samples of a text.
        seed: seed of the two selections, which are the same for all texts.

    Returns:
        The distance; 0 if a text always yields the same motion.
    """
    embeds = _embeds(embeds, "multimodality_embeds", "(texts, samples, dimensions)")
    first, second = _selections(embeds.shape[1], pairs, seed, "multimodality_pairs")
    return float(np.linalg.norm(embeds[:, first] - embeds[:, second], axis=2).mean())


@dataclass(frozen=True)
class GenerationProtocol:
    """
    Settings that the metrics of motion generation are measured with.

    Args:
        pool_size, top_k: of [`r_precision`].
        pairs, multimodality_pairs: of [`diversity`] and [`multimodality`].
        replications: if None, the number of generated sets, or 20 for a single set.
        seed: replication `r` shuffles and draws with `seed + r`.
        ties: tie rule of [`r_precision`].
    """

    pool_size: int = 32
    top_k: int = 3
    pairs: int = 300
    multimodality_pairs: int = 10
    replications: int | None = None
    seed: int = 0
    ties: str = "average"


def evaluate_generation(
    text_embeds: Any, generated: Any, real: Any, multimodality_embeds: Any = None, **protocol: Any
) -> dict[str, Any]:
    """
    Compute all metrics of motion generation, each as the mean over replications with its 95 % interval.

    Args:
        text_embeds: embeddings of the captions (N, D).
        generated: embeddings of the motion generated for each caption, (N, D) or (replications, N, D). The field
            generates new motions in every replication, hence the second shape; with the first, the intervals reflect
            only pools and pairs, and FID has none.
        real: embeddings of the recorded motion of each caption (N, D).
        multimodality_embeds: several motions for each of some texts (texts, samples, D), see [`multimodality`], which
            is skipped if None.
        protocol: fields of [`GenerationProtocol`].

    Returns:
        JSON-safe: `FID`, `R_precision_top_1` to `R_precision_top_{top_k}` (from 0 to 1), `MM_Dist`, `Diversity`, with
        multimodality_embeds `MultiModality`, all but FID and MultiModality also for the recorded motions under
        `real/`; half the width of the interval of each under `NAME/ci95`. Then the protocol: `num_texts`, `pool_size`,
        `num_dropped`, `pairs`, `multimodality_texts`, `multimodality_samples`, `multimodality_pairs`, `replications`,
        `generated_sets`, `seed`, `direction`, `ties`, `distance`.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> texts = rng.normal(size=(64, 8))
        >>> evaluate_generation(texts, texts, texts, pairs=32)["R_precision_top_1"]
        1.0
    """
    chosen = GenerationProtocol(**protocol)
    pool_size, pairs, seed, replications = chosen.pool_size, chosen.pairs, chosen.seed, chosen.replications
    sets = np.asarray(generated)
    sets = _embeds(sets if sets.ndim == 3 else sets[None], "generated", "(replications, items, dimensions)")
    texts, recorded = _pairs(text_embeds, real, "real")
    _pairs(texts, sets[0], "generated")
    replications = (len(sets) if len(sets) > 1 else 20) if replications is None else replications
    if replications < 1 or len(sets) not in (1, replications):
        raise ValueError(f"replications: got {replications} for {len(sets)} generated sets; pass one set or one each")
    _check_pool(len(texts), pool_size)
    distances = [frechet_distance(recorded, motions) for motions in sets]

    def one(run: int) -> dict[str, float]:
        values = {"FID": distances[run % len(sets)]}
        for name, motions in (("", sets[run % len(sets)]), ("real/", recorded)):
            precisions = r_precision(texts, motions, pool_size, chosen.top_k, seed + run, ties=chosen.ties)
            values |= {f"{name}R_precision_top_{k}": value for k, value in enumerate(precisions, start=1)}
            values[f"{name}MM_Dist"] = multimodal_distance(texts, motions)
            values[f"{name}Diversity"] = diversity(motions, pairs, seed + run)
        if multimodality_embeds is not None:
            values["MultiModality"] = multimodality(multimodality_embeds, chosen.multimodality_pairs, seed + run)
        return values

    runs = [one(run) for run in range(replications)]
    result: dict[str, Any] = {}
    for name in runs[0]:
        values = np.asarray([run[name] for run in runs])
        result[name] = float(values.mean())
        result[f"{name}/ci95"] = 1.96 * float(values.std()) / float(np.sqrt(replications))
    several = None if multimodality_embeds is None else np.shape(multimodality_embeds)
    return result | {
        "num_texts": len(texts),
        "pool_size": pool_size,
        "num_dropped": len(texts) % pool_size,
        "pairs": pairs,
        "multimodality_texts": several and several[0],
        "multimodality_samples": several and several[1],
        "multimodality_pairs": several and chosen.multimodality_pairs,
        "replications": replications,
        "generated_sets": len(sets),
        "seed": seed,
        "direction": "t2m",
        "ties": chosen.ties,
        "distance": "euclidean",
    }


def _embeds(embeds: Any, name: str, axes: str = "(items, dimensions)") -> np.ndarray:
    embeds = np.asarray(embeds)
    if embeds.ndim != axes.count(",") + 1 or 0 in embeds.shape:
        raise ValueError(f"{name}: expected shape {axes}, none of them 0, got {embeds.shape}")
    if embeds.dtype.kind not in "fiub":
        raise ValueError(f"{name}: got dtype {embeds.dtype}; pass real numbers")
    embeds = embeds.astype(np.float64, copy=False)
    if not np.isfinite(embeds).all():
        place = tuple(int(index) for index in np.argwhere(~np.isfinite(embeds))[0][:-1])
        found = "NaN" if np.isnan(embeds).any() else "infinity"
        raise ValueError(f"{name}: got {found}, first in row {place}; pass finite embeddings")
    return embeds


def _same_width(**embeds: np.ndarray) -> None:
    widths = {name: array.shape[-1] for name, array in embeds.items()}
    if len(set(widths.values())) > 1:
        raise ValueError(f"width of the embeddings: got {widths}; embed all with one evaluator")


def _pairs(text_embeds: Any, motion_embeds: Any, name: str = "motion_embeds") -> tuple[np.ndarray, np.ndarray]:
    texts, motions = _embeds(text_embeds, "text_embeds"), _embeds(motion_embeds, name)
    if len(texts) != len(motions):
        raise ValueError(
            f"rows: got {len(texts)} text_embeds and {len(motions)} {name}; pass pairs by row (`frechet_distance` "
            "alone takes sets of different size)"
        )
    _same_width(text_embeds=texts, **{name: motions})
    return texts, motions


def _check_pool(items: int, pool_size: int) -> None:
    if pool_size < 1:
        raise ValueError(f"pool_size: got {pool_size}; pass at least 1")
    if items < pool_size:
        raise ValueError(f"items: {items} do not fill one pool of {pool_size}; lower pool_size")


def _selections(items: int, count: int, seed: int, name: str) -> tuple[np.ndarray, np.ndarray]:
    if not 1 <= count <= items:
        raise ValueError(f"{count} pairs cannot be drawn from {items} items; set {name} from 1 to {items}")
    rng = np.random.default_rng(seed)
    return rng.choice(items, count, replace=False), rng.choice(items, count, replace=False)
