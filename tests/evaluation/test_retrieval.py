"""Retrieval metrics against hand-computed matrices, slow reference code and their invariances."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse

import lexmotion.evaluation.metrics.retrieval as retrieval
from lexmotion.evaluation.metrics.retrieval import (
    PROTOCOLS,
    ScoreRows,
    cosine_similarity,
    evaluate_retrieval,
    ranks,
    retrieval_metrics,
    small_batches,
)
from lexmotion.evaluation.metrics.scores import ScoreParts, blend

# Worked by hand. t2m: rank of the diagonal in each row; m2t: in each column.
HAND = np.array(
    [
        [0.9, 0.8, 0.1, 0.0],  # 0
        [0.7, 0.6, 0.5, 0.4],  # 1: after 0.7
        [0.9, 0.8, 0.2, 0.7],  # 3: last
        [0.3, 0.3, 0.3, 0.3],  # 1.5: all alike
    ]
)
HAND_T2M, HAND_M2T = [0.0, 1.0, 3.0, 1.5], [0.5, 2.0, 2.0, 2.0]


@pytest.fixture(scope="module")
def rng():
    return np.random.default_rng(0)


def slow_ranks(similarity, relevant, ties):
    """The definition, item by item."""
    result = []
    for scores, right in zip(similarity, relevant, strict=True):
        best = max(score for score, ok in zip(scores, right, strict=True) if ok)
        before = sum(score > best for score in scores)
        tied = [ok for score, ok in zip(scores, right, strict=True) if score == best]
        hits = sum(tied)
        among = {
            "average": np.mean(np.arange(len(tied))),
            "expected": (len(tied) - hits) / (hits + 1),
            "optimistic": 0,
            "pessimistic": len(tied) - hits,
        }[ties]
        result.append(before + among)
    return np.array(result)


def test_hand_computed_ranks():
    np.testing.assert_array_equal(ranks(HAND), HAND_T2M)
    np.testing.assert_array_equal(ranks(HAND.T), HAND_M2T)
    np.testing.assert_array_equal(ranks(HAND, ties="optimistic"), [0, 1, 3, 0])
    np.testing.assert_array_equal(ranks(HAND, ties="pessimistic"), [0, 1, 3, 3])


def test_hand_computed_metrics():
    metrics = retrieval_metrics(HAND)
    assert [metrics[f"t2m/R{k}"] for k in (1, 2, 3, 5, 10)] == [25.0, 75.0, 75.0, 100.0, 100.0]
    assert [metrics[f"m2t/R{k}"] for k in (1, 2, 3, 5, 10)] == [25.0, 25.0, 100.0, 100.0, 100.0]
    assert metrics["t2m/MedR"] == 2.25 and metrics["m2t/MedR"] == 3.0
    assert metrics["Rsum"] == 375.0 + 350.0
    assert (metrics["protocol"], metrics["ties"], metrics["gallery_size"]) == ("all-strict", "average", 4)
    json.dumps(metrics)


def test_a_two_way_tie_at_the_top_is_a_hit_and_an_empty_row_gets_the_middle():
    assert retrieval_metrics([[0.5, 0.5], [0.0, 1.0]])["t2m/R1"] == 100.0
    np.testing.assert_array_equal(ranks(np.zeros((5, 5))), [2.0] * 5)


def test_best_of_several_relevant_items_counts():
    similarity = np.array([[0.9, 0.8, 0.7, 0.6]])
    assert ranks(similarity, np.array([[False, False, True, True]]))[0] == 2
    assert ranks(similarity, np.array([[False, True, False, True]]))[0] == 1
    assert ranks(similarity, np.array([3]))[0] == 3


def test_relevant_items_tied_with_each_other():
    similarity, relevant = np.array([[1.0, 1.0, 1.0, 0.0]]), np.array([[True, True, True, False]])
    assert ranks(similarity, relevant, "average")[0] == 1.0  # TMR counts the mean of the tied columns
    assert ranks(similarity, relevant, "expected")[0] == ranks(similarity, relevant, "pessimistic")[0] == 0.0


@pytest.mark.parametrize("ties", ["average", "expected", "optimistic", "pessimistic"])
def test_ranks_equal_the_definition_in_blocks_of_any_size(rng, ties, monkeypatch):
    similarity = rng.integers(0, 6, size=(17, 11)).astype(np.float32)
    relevant = rng.random((17, 11)) < 0.3
    relevant[np.arange(17), np.arange(17) % 11] = True
    expected = slow_ranks(similarity, relevant, ties)
    for cells in (1, 40, 1 << 22):
        monkeypatch.setattr(retrieval, "_BLOCK_CELLS", cells)
        np.testing.assert_allclose(ranks(similarity, relevant, ties), expected)


def test_expected_rank_is_the_mean_over_random_orders(rng):
    right = np.array([True, True, False, False, False])
    first = [np.flatnonzero(rng.permutation(right))[0] for _ in range(20_000)]
    assert ranks(np.ones((1, 5)), right[None], "expected")[0] == pytest.approx(np.mean(first), abs=0.03)


matrices = hnp.arrays(
    np.float64, st.integers(1, 12).map(lambda n: (n, n)), elements=st.integers(-8, 8).map(lambda n: n / 4)
)


@settings(max_examples=60, deadline=None)
@given(matrices, st.randoms(use_true_random=False))
def test_metrics_do_not_depend_on_the_order_of_the_gallery(similarity, random):
    order = random.sample(range(len(similarity)), len(similarity))
    np.testing.assert_array_equal(ranks(similarity[np.ix_(order, order)]), ranks(similarity)[order])
    assert retrieval_metrics(similarity[np.ix_(order, order)]) == pytest.approx(retrieval_metrics(similarity))


@settings(max_examples=60, deadline=None)
@given(matrices)
def test_only_the_order_of_scores_matters(similarity):
    expected = ranks(similarity)
    for transformed in (3 * similarity + 7, similarity**3, np.exp(similarity), similarity.astype(np.float32)):
        np.testing.assert_array_equal(ranks(transformed), expected)


@settings(max_examples=60, deadline=None)
@given(matrices)
def test_tie_rules_and_directions_agree_with_each_other(similarity):
    low, mean, high = (ranks(similarity, None, ties) for ties in ("optimistic", "average", "pessimistic"))
    np.testing.assert_array_equal(mean, (low + high) / 2)
    np.testing.assert_array_equal(mean, ranks(similarity, None, "expected"))
    assert (low >= 0).all() and (high < len(similarity)).all()
    forward, backward = retrieval_metrics(similarity), retrieval_metrics(similarity.T)
    assert {name: forward[f"t2m/{name}"] for name in ("R1", "R10", "MedR")} == {
        name: backward[f"m2t/{name}"] for name in ("R1", "R10", "MedR")
    }


def test_many_captions_a_motion():
    similarity = np.array([[0.9, 0.1], [0.8, 0.2], [0.95, 0.3]])
    metrics = retrieval_metrics(similarity, np.array([0, 0, 1]))
    assert metrics["t2m/R1"] == pytest.approx(200 / 3) and metrics["t2m/R2"] == 100.0
    assert metrics["m2t/R1"] == 50.0 and metrics["m2t/R2"] == 100.0  # the third caption wins both columns
    assert (metrics["gallery_size"], metrics["num_captions"]) == (2, 3)
    same = retrieval_metrics(similarity, np.array([[True, False], [True, False], [False, True]]))
    assert same == metrics


@pytest.mark.parametrize(
    ("similarity", "relevant", "ties", "message"),
    [
        ([[0.0, 1.0], [np.nan, 0.0]], None, "average", r"(?i)query 1\b.*NaN"),
        ([[0.0, 1.0]], None, "average", r"\b1\b.*\b2\b.*\brelevant\b"),
        ([[0.0, 1.0]], [[False, False]], "average", r"(?i)query 0\b"),
        ([[0.0, 1.0]], [2], "average", r"(?i)query 0\b.*\b2\b.*\b1\b"),
        ([[0.0, 1.0]], [0.5], "average", r"\brelevant\b.*bool.*float64"),
        ([[0.0, 1.0]], [[True]], "average", r"\brelevant\b.*\(1, 1\).*\(1, 2\)"),
        ([[0.0]], None, "lucky", "'lucky'.*average.*pessimistic"),
        (np.zeros((0, 3)), None, "average", r"\(0, 3\)"),
        ([["a"]], None, "average", "<U1"),
    ],
)
def test_errors_say_what_is_wrong(similarity, relevant, ties, message):
    with pytest.raises(ValueError, match=message):
        ranks(np.asarray(similarity), None if relevant is None else np.asarray(relevant), ties)


def test_nan_in_one_row_is_found_in_later_blocks(monkeypatch):
    monkeypatch.setattr(retrieval, "_BLOCK_CELLS", 8)
    similarity = np.zeros((9, 9))
    similarity[7, 2] = np.nan
    with pytest.raises(ValueError, match="(?i)caption 7.*NaN"):
        retrieval_metrics(similarity)


def test_cosine_of_empty_vectors_is_zero(rng):
    a = np.abs(rng.standard_normal((4, 6))).astype(np.float32)
    a[1] = 0
    b = np.abs(rng.standard_normal((3, 6))).astype(np.float32)
    cosine = cosine_similarity(a, b)
    assert cosine.shape == (4, 3) and cosine.dtype == np.float32
    np.testing.assert_array_equal(cosine[1], 0)
    np.testing.assert_allclose(cosine[0, 0], a[0] @ b[0] / np.linalg.norm(a[0]) / np.linalg.norm(b[0]), rtol=1e-5)
    for form in (sparse.csr_matrix, sparse.csr_array):
        np.testing.assert_allclose(cosine_similarity(form(a), form(b)), cosine, atol=1e-6)
    assert np.isfinite(ranks(cosine_similarity(a[:3], b))).all()
    with pytest.raises(ValueError, match=r"\b6\b.*\b5\b"):
        cosine_similarity(a, b[:, :5])
    with pytest.raises(ValueError, match=r"\(6,\)"):
        cosine_similarity(a[0], b)


CAPTIONS = ["a man walks", "a man jumps", "a man walks", "a man turns"]


def test_identical_captions_count_as_right():
    similarity = np.array(
        [[0.1, 0.2, 0.9, 0.3], [0.0, 0.9, 0.0, 0.0], [0.2, 0.5, 0.4, 0.3], [0.0, 0.0, 0.0, 1.0]], dtype=np.float32
    )
    results = evaluate_retrieval(similarity, list("abcd"), CAPTIONS, ["all-strict", "all-duplicates"])
    strict, duplicates = results["all-strict"], results["all-duplicates"]
    assert strict["t2m/R1"] == 50.0  # 3, 0, 1, 0
    assert duplicates["t2m/R1"] == 75.0  # 0, 0, 1, 0: caption 0 finds motion 2
    assert strict["m2t/R1"] == 50.0  # 1, 0, 1, 0
    assert duplicates["m2t/R1"] == 100.0
    assert (duplicates["protocol"], duplicates["ties"]) == ("all-duplicates", "expected")


@settings(max_examples=40, deadline=None)
@given(matrices, st.randoms(use_true_random=False))
def test_duplicates_never_score_below_strict(similarity, random):
    captions = [random.choice("abc") for _ in similarity]
    ids = [str(index) for index in range(len(similarity))]
    results = evaluate_retrieval(similarity, ids, captions, ["all-strict", "all-duplicates"])
    assert results["all-duplicates"]["Rsum"] >= results["all-strict"]["Rsum"]
    unique = evaluate_retrieval(similarity, ids, ids, ["all-duplicates"])["all-duplicates"]
    assert unique["Rsum"] == results["all-strict"]["Rsum"]


def test_threshold_is_strictly_above_a_cosine_of_0_9():
    similarity = np.array([[0.1, 0.9, 0.5], [0.9, 0.5, 0.1], [0.9, 0.5, 0.1]])
    text_similarity = np.array([[1.0, 0.91, 0.9], [0.91, 1.0, 0.0], [0.9, 0.0, 1.0]])
    result = evaluate_retrieval(similarity, list("abc"), CAPTIONS[:3], "threshold", text_similarity=text_similarity)
    # Caption 0 may find motion 1, not motion 2; caption 1 may find motion 0; caption 2 only itself.
    expected = ranks(similarity, text_similarity > 0.9)
    np.testing.assert_array_equal(expected, [0, 0, 2])
    assert result["threshold"]["t2m/R1"] == 100 * np.mean(expected < 1)
    assert result["threshold"]["m2t/MedR"] == 1 + np.median(ranks(similarity.T, text_similarity > 0.9))
    assert result["threshold"]["threshold"] == 0.95
    # An empty sentence vector is still near itself.
    evaluate_retrieval(similarity, list("abc"), CAPTIONS[:3], "threshold", text_similarity=np.zeros((3, 3)))


def test_dissimilar_is_strict_on_the_given_ids(rng):
    similarity, ids = rng.random((6, 6)), list("abcdef")
    result = evaluate_retrieval(similarity, ids, ids, ["dissimilar"], dissimilar_ids=["e", "b", "c", "e"])
    part = similarity[np.ix_([4, 1, 2], [4, 1, 2])]
    expected = retrieval_metrics(part, protocol="dissimilar")
    assert result["dissimilar"] == expected and expected["gallery_size"] == 3


def test_small_batches_as_published(rng):
    ids = [f"{index:03d}" for index in rng.permutation(70)]
    pools = small_batches(ids)
    assert pools.shape == (2, 32)
    np.random.seed(0)  # the published code's generator  # noqa: NPY002
    order = np.arange(70)
    np.random.shuffle(order)  # noqa: NPY002
    names = sorted(ids)
    assert [[ids[index] for index in pool] for pool in pools] == [
        [names[index] for index in order[32 * batch : 32 * (batch + 1)]] for batch in range(2)
    ]

    similarity = rng.random((70, 70))
    result = evaluate_retrieval(similarity, ids, ids, ["small-batches"])["small-batches"]
    one_by_one = [retrieval_metrics(similarity[np.ix_(pool, pool)]) for pool in pools]
    for name in ("t2m/R1", "t2m/R10", "t2m/MedR", "m2t/R3", "m2t/MedR", "Rsum"):
        assert result[name] == pytest.approx(np.mean([metrics[name] for metrics in one_by_one]))
    assert (result["num_batches"], result["num_dropped"], result["gallery_size"], result["seed"]) == (2, 6, 32, 0)

    shuffled = rng.permutation(70)
    again = evaluate_retrieval(
        similarity[np.ix_(shuffled, shuffled)],
        [ids[index] for index in shuffled],
        [""] * 70,
        ["small-batches"],
    )
    assert again["small-batches"] == pytest.approx(result)


def test_all_runs_what_the_arguments_allow(rng):
    similarity, ids = rng.random((8, 8)), list("abcdefgh")
    assert list(evaluate_retrieval(similarity, ids, ids)) == ["all-strict", "all-duplicates"]
    everything = evaluate_retrieval(
        similarity, ids, ids, text_similarity=np.eye(8), dissimilar_ids=["a", "b"], batch_size=4, seed=3
    )
    assert tuple(everything) == PROTOCOLS == tuple(result["protocol"] for result in everything.values())
    assert everything["threshold"]["Rsum"] == everything["all-strict"]["Rsum"]
    assert everything["small-batches"]["seed"] == 3
    json.dumps(everything)
    assert list(evaluate_retrieval(similarity, ids, ids, ["all"], ties="optimistic")) == [
        "all-strict",
        "all-duplicates",
    ]
    # A list of dissimilar pairs of another split is left out, not half used.
    assert "dissimilar" not in evaluate_retrieval(similarity, ids, ids, dissimilar_ids=["a", "z"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"protocols": ["guo"]}, "'guo'.*all-strict.*small-batches"),
        ({"protocols": "threshold"}, "'threshold'.*text_similarity"),
        ({"protocols": ["dissimilar"]}, "'dissimilar'.*dissimilar_ids"),
        ({"protocols": ["dissimilar"], "dissimilar_ids": ["a", "z"]}, r"'dissimilar'.*\b1\b.*\b2\b.*'z'"),
        ({"protocols": ["small-batches"]}, r"'small-batches'.*\b3\b.*\b32\b"),
        ({"captions": ["a"]}, r"\b3 ids\b.*\b1 captions\b.*\(3, 3\)"),
        ({"ids": ["a", "b", "a"]}, "'a'"),
        ({"protocols": "threshold", "text_similarity": np.eye(2)}, r"text_similarity.*\(2, 2\).*\(3, 3\)"),
    ],
)
def test_protocols_that_cannot_run(arguments, message):
    with pytest.raises(ValueError, match=message):
        evaluate_retrieval(**({"similarity": np.eye(3), "ids": list("abc"), "captions": CAPTIONS[:3]} | arguments))


def test_small_batches_errors():
    with pytest.raises(ValueError, match=r"\b1\b.*\b2\b.*batch_size"):
        small_batches(["a"], 2)
    with pytest.raises(ValueError, match=r"batch.size.*\b0\b"):
        small_batches(["a"], 0)


def test_scores_in_blocks_of_rows_give_the_same_figures_in_bounded_memory(rng, monkeypatch):
    scores = rng.integers(0, 9, size=(40, 40)).astype(np.float32)
    near = np.where(scores + scores.T > 12, 0.95, 0.0)
    ids, captions = [f"{i:02d}" for i in range(40)], [f"caption {i % 30}" for i in range(40)]
    arguments = {"dissimilar_ids": ids[5:17], "batch_size": 8}
    whole = evaluate_retrieval(scores, ids, captions, text_similarity=near, **arguments)
    assert list(whole) == list(PROTOCOLS)
    read = []

    def rows(start, stop):
        read.append(stop - start)
        return scores[start:stop]

    monkeypatch.setattr(retrieval, "_BLOCK_CELLS", 120)
    monkeypatch.setattr(retrieval, "_KEPT_BYTES", 4 * 40 * 20)  # half of the matrix
    lazy = ScoreRows((40, 40), rows)
    near_rows = ScoreRows((40, 40), lambda start, stop: near[start:stop])
    assert evaluate_retrieval(lazy, ids, captions, text_similarity=near_rows, **arguments) == whole
    assert max(read) == 3 and sum(read) == 40 + 22  # 18 of the rows were kept for the second reading
    np.testing.assert_array_equal(lazy.matrix(), scores)


def test_a_product_in_blocks_is_the_whole_product_bit_for_bit(rng, monkeypatch):
    words, segments = (
        [sparse.random_array((30, 50), density=0.3, format="csr", dtype=np.float32, rng=rng) for _ in range(2)]
        for _ in range(2)
    )
    dense = rng.normal(size=(2, 30, 4)).astype(np.float32)
    texts, motions = (ScoreParts(*parts) for parts in zip(words, segments, dense, strict=True))
    expected = 0.6 * (0.7 * cosine_similarity(*words) + 0.3 * (segments[0] @ segments[1].T).toarray())
    expected += 0.4 * dense[0] @ dense[1].T
    np.testing.assert_allclose(blend(texts, motions, 0.3, 0.4).matrix(), expected, atol=1e-5)
    plain = blend(ScoreParts(words[0]), ScoreParts(words[1]), 0.0, 0.0)
    monkeypatch.setattr(retrieval, "_BLOCK_CELLS", 120)
    np.testing.assert_array_equal(plain.matrix(), cosine_similarity(*words))
