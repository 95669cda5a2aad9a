"""Metrics of motion generation: closed forms, chance, invariances, and the protocol written into the result."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from lexmotion.evaluation.metrics.generation import (
    diversity,
    evaluate_generation,
    frechet_distance,
    multimodal_distance,
    multimodality,
    r_precision,
)

RNG = np.random.default_rng(0)
TEXTS, REAL = RNG.normal(size=(2, 70, 8))
GENERATED = TEXTS + 0.8 * RNG.normal(size=(3, 70, 8))
SEVERAL = RNG.normal(size=(6, 12, 8))
SEEDS = st.integers(0, 2**32 - 1)


def gaussian(mean, deviations, seed, items=40):
    """A set whose sample mean is `mean` and whose sample covariance is diagonal, to rounding."""
    sample = np.random.default_rng(seed).normal(size=(items, len(mean)))
    sample -= sample.mean(axis=0)
    sample = np.linalg.qr(sample)[0] * math.sqrt(items - 1)  # uncorrelated, of variance 1
    return sample * deviations + mean


def test_frechet_distance_of_two_gaussians_is_the_closed_form():
    real = gaussian([0.0, 1.0, 2.0], [1.0, 2.0, 0.5], seed=1)
    generated = gaussian([3.0, 1.0, -2.0], [4.0, 2.0, 1.5], seed=2, items=90)
    assert frechet_distance(real, generated) == pytest.approx(9 + 16 + 9 + 0 + 1)  # means, then (s1 - s2)^2


def test_frechet_distance_is_that_of_the_matrix_root():
    real, generated = RNG.normal(size=(200, 6)) @ RNG.normal(size=(6, 6)), RNG.normal(size=(150, 6)) + 0.3
    covariances = [np.cov(embeds, rowvar=False) for embeds in (real, generated)]
    root = sqrtm(covariances[0] @ covariances[1]).real
    expected = np.square(real.mean(0) - generated.mean(0)).sum() + np.trace(sum(covariances) - 2 * root)
    assert frechet_distance(real, generated) == pytest.approx(expected)


def test_frechet_distance_with_fewer_items_than_dimensions():
    few = RNG.normal(size=(5, 64)).astype(np.float32)
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(few, few + 1) == pytest.approx(64, rel=1e-5)
    assert frechet_distance(np.zeros((4, 3)), np.zeros((6, 3))) == 0


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.floats(-1e3, 1e3))
def test_frechet_distance_is_of_sets_and_their_difference(seed, shift):
    rng = np.random.default_rng(seed)
    real, generated = rng.normal(size=(12, 4)), 2 * rng.normal(size=(9, 4)) + 1
    distance = frechet_distance(real, generated)
    rotation = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    assert frechet_distance(real + shift, generated + shift) == pytest.approx(distance)
    assert frechet_distance(real @ rotation, generated @ rotation) == pytest.approx(distance)
    assert frechet_distance(rng.permutation(real), generated) == pytest.approx(distance)
    assert frechet_distance(generated, real) == pytest.approx(distance)


def test_r_precision_by_hand():
    texts = np.array([[0.0], [1.0], [10.0], [20.0], [5.0]])
    motions = np.array([[0.2], [0.1], [19.0], [11.0], [5.0]])  # the fifth fills no pool
    # Pool one: text 0 is nearer to motion 1, text 1 to motion 0. Pool two: each is nearer to the other's.
    np.testing.assert_array_equal(r_precision(texts, motions, pool_size=2, top_k=2), [0.0, 1.0])
    # In one pool of four, motion 0 is second for both texts 0 and 1.
    np.testing.assert_array_equal(r_precision(texts, motions, pool_size=4, top_k=3), [0.0, 1.0, 1.0])


def test_r_precision_of_equal_and_of_unrelated_embeddings():
    equal = RNG.normal(size=(320, 16))
    assert r_precision(equal, equal).tolist() == [1, 1, 1]
    chance = [r_precision(equal, RNG.permutation(equal), seed=seed) for seed in range(20)]
    np.testing.assert_allclose(np.mean(chance, axis=0), np.arange(1, 4) / 32, atol=0.02)
    constant = np.ones_like(equal)
    assert r_precision(equal, constant).tolist() == [0, 0, 0]  # all motions alike are no hits
    assert r_precision(equal, constant, ties="optimistic").tolist() == [1, 1, 1]


def test_r_precision_directions():
    texts, motions = np.array([[0.0], [1.0], [2.0]]), np.array([[0.0], [0.1], [2.0]])
    t2m = r_precision(texts, motions, pool_size=3, top_k=1)
    m2t = r_precision(texts, motions, pool_size=3, top_k=1, direction="m2t")
    assert (t2m[0], m2t[0]) == (1.0, pytest.approx(2 / 3))  # motion 1 is nearest to text 0, yet text 1's nearest is it


@settings(max_examples=25, deadline=None)
@given(SEEDS)
def test_order_of_pools_and_inside_them_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    pools = rng.permutation(8)[:, None] * 8 + rng.permuted(np.tile(np.arange(8), (8, 1)), axis=1)
    order = pools.ravel()
    texts, motions = TEXTS[:64], GENERATED[0][:64]
    expected = r_precision(texts, motions, pool_size=8)
    np.testing.assert_array_equal(r_precision(texts[order], motions[order], pool_size=8), expected)
    np.testing.assert_array_equal(r_precision(texts + 1, motions + 1, pool_size=8), expected)


def test_seed_shuffles_the_pools():
    neighbours = np.repeat(RNG.normal(size=(32, 8)), 8, axis=0) + 0.1 * RNG.normal(size=(256, 8))
    noisy = neighbours + 0.5 * RNG.normal(size=(256, 8))
    in_order, shuffled = (r_precision(neighbours, noisy, seed=seed)[0] for seed in (None, 3))
    assert in_order < shuffled  # items of one group stand in one pool
    assert shuffled == r_precision(neighbours, noisy, seed=3)[0]


def test_distances_by_hand():
    assert multimodal_distance([[0.0, 0.0], [1.0, 1.0]], [[3.0, 4.0], [1.0, 1.0]]) == 2.5
    line = np.array([[0.0], [6.0]])
    values = {diversity(line, pairs=2, seed=seed) for seed in range(30)}
    assert values == {0.0, 6.0}  # both selections in one order, or in opposite ones
    assert multimodality(np.broadcast_to(line, (5, 2, 1)), pairs=1, seed=1) in (0.0, 6.0)
    assert multimodality(np.ones((5, 12, 3))) == 0


def test_evaluate_gives_means_and_intervals():
    result = evaluate_generation(TEXTS, GENERATED, REAL, SEVERAL, pool_size=16, pairs=50, seed=7)
    distances = [frechet_distance(REAL, one) for one in GENERATED]
    assert result["FID"] == pytest.approx(np.mean(distances))
    assert result["FID/ci95"] == pytest.approx(1.96 * np.std(distances) / math.sqrt(3))
    tops = [r_precision(TEXTS, one, 16, 3, seed=7 + run) for run, one in enumerate(GENERATED)]
    np.testing.assert_allclose([result[f"R_precision_top_{k}"] for k in (1, 2, 3)], np.mean(tops, axis=0))
    assert result["real/Diversity"] == pytest.approx(np.mean([diversity(REAL, 50, seed) for seed in (7, 8, 9)]))
    assert result["MultiModality"] == pytest.approx(np.mean([multimodality(SEVERAL, 10, s) for s in (7, 8, 9)]))
    assert result["R_precision_top_1"] > result["real/R_precision_top_1"]
    protocol = {
        "num_texts": 70, "pool_size": 16, "num_dropped": 6, "pairs": 50, "multimodality_texts": 6,
        "multimodality_samples": 12, "multimodality_pairs": 10, "replications": 3, "generated_sets": 3, "seed": 7,
        "direction": "t2m", "ties": "average", "distance": "euclidean",
    }  # fmt: skip
    assert {name: result[name] for name in protocol} == protocol
    assert json.loads(json.dumps(result)) == result


def test_one_generated_set_has_twenty_replications_and_no_interval_of_fid():
    result = evaluate_generation(TEXTS, GENERATED[0], REAL, pairs=50)
    assert result["replications"] == 20 and result["generated_sets"] == 1
    assert result["FID/ci95"] == pytest.approx(0, abs=1e-12) and result["Diversity/ci95"] > 0
    assert "MultiModality" not in result and result["multimodality_pairs"] is None


def poisoned(embeds, value=np.nan):
    embeds = embeds.copy()
    embeds[..., 4, 2] = value
    return embeds


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: frechet_distance(REAL[0], REAL), r"\breal\b.*\(items, dimensions\).*\(8,\)"),
        (lambda: frechet_distance(REAL, REAL[:, :3]), "'real': 8.*'generated': 3"),
        (lambda: frechet_distance(REAL, REAL[:1]), r"\bgenerated\b.*\b1\b.*\b2\b"),
        (lambda: frechet_distance(poisoned(REAL), REAL), r"\breal\b.*NaN.*\(4,\)"),
        (lambda: multimodality(poisoned(SEVERAL, np.inf)), r"\bmultimodality_embeds\b.*infinity.*\(0, 4\)"),
        (lambda: diversity(REAL.astype(str)), r"\bembeds\b.*<U32"),
        (lambda: diversity(REAL), r"\b300\b.*\b70\b.*\bpairs\b"),
        (lambda: multimodality(SEVERAL, pairs=13), r"\b13\b.*\b12\b.*\bmultimodality_pairs\b"),
        (lambda: r_precision(TEXTS[:31], REAL[:31]), r"\b31\b.*\b32\b.*\bpool_size\b"),
        (lambda: r_precision(TEXTS, REAL, pool_size=0, top_k=0), r"\btop_k\b.*\b1\b.*\b0\b"),
        (lambda: r_precision(TEXTS, REAL, direction="both"), "'both'.*t2m.*m2t"),
        (lambda: multimodal_distance(TEXTS, REAL[:5]), r"\b70\b.*\btext_embeds\b.*\b5\b.*\bmotion_embeds\b"),
        (lambda: evaluate_generation(TEXTS, GENERATED, REAL[:5]), r"\b70\b.*\btext_embeds\b.*\b5\b.*\breal\b"),
        (lambda: evaluate_generation(TEXTS, GENERATED, REAL, replications=20), r"\b20\b.*\b3\b"),
        (lambda: evaluate_generation(TEXTS[:8], GENERATED[0, :8], REAL[:8]), r"\b8\b.*\b32\b.*\bpool_size\b"),
    ],
)
def test_errors_say_what_to_do(call, message):
    with pytest.raises(ValueError, match=message):
        call()
