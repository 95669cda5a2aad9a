"""Reports on lexical vectors, worked by hand; sparse and dense input give the same."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse

import lexmotion.evaluation.metrics.lexical as reports
from lexmotion.evaluation.metrics.lexical import (
    active_words,
    antonym_auc,
    antonym_ids,
    antonym_report,
    caption_coverage,
    dimension_usage,
    item_counts,
    item_coverage,
    mass_by_class,
    prior_coverage,
    prior_words,
    roc_auc,
    stop_word_share,
    top_k,
    top_k_overlap,
)

WORDS = ["[PAD]", "the", "left", "right", "walks", "jumps", "up", "down", "##ing"]
LEFT, RIGHT, WALKS, JUMPS = 2, 3, 4, 5


@pytest.fixture
def lexicon():
    active = np.array([False, True, True, True, True, True, True, True, True])
    return SimpleNamespace(
        stop_word=np.array([word == "the" for word in WORDS]),
        special=np.array([word == "[PAD]" for word in WORDS]),
        active=active,
        document_frequency=np.array([0, 50, 20, 18, 30, 5, 9, 9, 1]),
        ids=lambda text: [WORDS.index(word) if word in WORDS else 0 for word in text.split()],
    )


EMBEDS = np.array(
    [
        [0, 0.1, 3.0, 1.0, 2.0, 0, 0, 0, 0],  # left, walks, right
        [0, 0.0, 0.5, 2.0, 0.0, 1.5, 0, 0, 0],  # right, jumps, left
        [0, 0.2, 0.0, 0.0, 1.0, 0, 0, 0, 0],  # walks, the
        [0, 0.0, 0.0, 0.0, 0.0, 0, 0, 0, 0],  # nothing
    ]
)
CONTENT = [[LEFT, WALKS], [LEFT, JUMPS, JUMPS], [RIGHT], []]


@pytest.fixture(params=["dense", "float32", "csr_matrix", "csr_array", "integers"])
def form(request):
    """Turns an array into each accepted kind of matrix."""
    return {
        "dense": np.asarray,
        "float32": lambda a: np.asarray(a, dtype=np.float32),
        "csr_matrix": sparse.csr_matrix,
        "csr_array": sparse.csr_array,
        "integers": lambda a: (np.asarray(a) * 10).astype(np.int64),
    }[request.param]


def test_top_k_by_hand(form):
    ids, weights = top_k(form(EMBEDS), 3)
    np.testing.assert_array_equal(ids, [[LEFT, WALKS, RIGHT], [RIGHT, JUMPS, LEFT], [WALKS, 1, -1], [-1, -1, -1]])
    assert (weights[ids < 0] == 0).all() and (weights[ids >= 0] > 0).all()


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(np.float64, st.tuples(st.integers(1, 6), st.integers(1, 30)), elements=st.sampled_from([0, 1, 2, 3])),
    st.integers(1, 12),
    st.sampled_from([1, 64, 1 << 22]),
)
def test_top_k_is_a_stable_sort(embeds, k, cells):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reports, "_BLOCK_CELLS", cells)
        dense, thin = top_k(embeds, k), top_k(sparse.csr_matrix(embeds), k)
    for row, found in zip(embeds, dense[0], strict=True):
        order = [i for i in np.argsort(-row, kind="stable") if row[i] > 0][:k]
        assert found[found >= 0].tolist() == order
    np.testing.assert_array_equal(dense[0], thin[0])
    np.testing.assert_array_equal(dense[1], thin[1])


def test_repeated_entries_of_a_sparse_matrix_add_up():
    twice = sparse.csr_array((np.array([1.0, 1.5, 2.0]), (np.array([0, 0, 0]), np.array([0, 1, 0]))), shape=(1, 3))
    raw = sparse.csr_array((np.array([1.0, 2.0, 1.5]), np.array([0, 0, 1]), np.array([0, 3])), shape=(1, 3))
    for matrix in (twice, raw):
        assert top_k(matrix, 2)[1].tolist() == [[3.0, 1.5]]
    assert raw.nnz == 3  # the caller's matrix is left alone


def test_coverage_by_hand(form):
    np.testing.assert_array_equal(item_coverage(form(EMBEDS), CONTENT, 2), [1.0, 0.5, 0.0, np.nan])
    assert caption_coverage(form(EMBEDS), CONTENT, 2) == 0.5
    assert caption_coverage(form(EMBEDS), CONTENT, 1) == pytest.approx((0.5 + 0 + 0) / 3)
    assert np.isnan(caption_coverage(form(EMBEDS[:1]), [[]], 2))


def test_prior_coverage_by_hand(lexicon):
    content_words = lexicon.active & ~lexicon.stop_word
    np.testing.assert_array_equal(prior_words(lexicon.document_frequency, 2, content_words), [WALKS, LEFT])
    np.testing.assert_array_equal(prior_words(lexicon.document_frequency, 2), [1, WALKS])
    assert prior_coverage(lexicon.document_frequency, CONTENT, 2, content_words) == pytest.approx((1 + 0.5 + 0) / 3)
    # Naming the prior is a coverage like any other.
    same = np.tile(lexicon.document_frequency * content_words, (4, 1))
    assert caption_coverage(same, CONTENT, 2) == prior_coverage(lexicon.document_frequency, CONTENT, 2, content_words)


def test_usage_by_hand(form):
    embeds = form(EMBEDS)
    np.testing.assert_array_equal(item_counts(embeds), [0, 2, 2, 2, 2, 1, 0, 0, 0])
    np.testing.assert_array_equal(active_words(embeds), [4, 3, 2, 0])
    assert dimension_usage(embeds) == {"active_words": 2.25, "distinct_words": 5, "universal": 0, "empty": 1}
    assert dimension_usage(embeds, universal_share=0.25)["universal"] == 4
    assert dimension_usage(form(EMBEDS[:3]))["universal"] == 4


def test_stored_zeros_are_not_active():
    embeds = sparse.csr_matrix(EMBEDS)
    embeds.data[:2] = 0
    assert active_words(embeds)[0] == 2 and item_counts(embeds)[1] == 1


def test_overlap_by_hand(form):
    text = np.zeros_like(EMBEDS)
    text[0, [LEFT, WALKS]] = 1
    text[1, [LEFT, RIGHT, JUMPS]] = [3, 2, 1]
    text[2, [JUMPS]] = 1
    # k = 2: {left, walks} = {left, walks}; {left, right} and {right, jumps}; nothing in common; both empty.
    assert top_k_overlap(form(text), form(EMBEDS), 2) == pytest.approx((1 + 0.5 + 0 + 0) / 4)
    assert top_k_overlap(form(EMBEDS[:3]), form(EMBEDS[:3]), 20) == 1.0


def test_auc_equals_counting_pairs():
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(0, 5, 40), rng.random(40) < 0.4
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[positive] for b in scores[~positive]]
    assert roc_auc(scores, positive) == pytest.approx(np.mean(pairs))
    assert roc_auc([0, 0, 0], [True, False, False]) == 0.5
    assert np.isnan(roc_auc([1, 2], [True, True]))


def test_antonyms_by_hand(form, lexicon):
    pairs = antonym_ids(lexicon)
    assert pairs["left/right"] == ([LEFT], [RIGHT])
    assert pairs["up/down"] == ([6], [7])
    embeds = form(np.array([EMBEDS[0], EMBEDS[1], EMBEDS[0], EMBEDS[1]]))
    content = [[LEFT], [RIGHT, WALKS], [RIGHT], [LEFT, RIGHT]]  # the last names both and is left out
    report = antonym_report(embeds, content, pairs)
    assert report == {"left/right": {"auc": 0.75, "first": 1, "second": 2}}  # one of the two rights is tied
    assert antonym_auc(embeds, content, lexicon, min_items=1) == 0.75
    assert antonym_auc(embeds, content, lexicon) is None
    several = {"side/other": ([LEFT, WALKS], [RIGHT])}
    assert antonym_auc(embeds, [[WALKS], [RIGHT], [LEFT], []], lexicon, several, min_items=1) == 1.0


def test_stop_word_share_by_hand(form, lexicon):
    # Of the top 2: none of left, walks; none of right, jumps; one of walks, the. The empty caption is left out.
    assert stop_word_share(form(EMBEDS), lexicon.stop_word, 2) == pytest.approx(0.5 / 3)
    assert np.isnan(stop_word_share(form(EMBEDS[3:]), lexicon.stop_word, 2))


def test_mass_by_class_by_hand(form, lexicon):
    importance = np.zeros((2, 9))
    importance[0, [0, 1, LEFT, WALKS]] = [1, 2, 3, 4]
    importance[1, [LEFT, JUMPS]] = [4, 6]
    shares = mass_by_class(form(importance), [[LEFT], [JUMPS, JUMPS, 6]], lexicon.stop_word, lexicon.active)
    assert shares == pytest.approx({"stop_word": 0.1, "caption_content": 0.45, "expansion": 0.4, "other": 0.05})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: top_k(EMBEDS, 0), r"\bk\b.*\b0\b"),
        (lambda: top_k(EMBEDS[0], 1), r"\(9,\)"),
        (lambda: top_k(np.array([[0.0], [np.nan]]), 1), "(?i)item 1.*NaN"),
        (lambda: top_k(sparse.csr_matrix([[0.0], [np.nan]]), 1), "(?i)item 1.*NaN"),
        (lambda: caption_coverage(EMBEDS, CONTENT[:2]), r"\b4\b.*\b2\b"),
        (lambda: caption_coverage(EMBEDS[:1], [[9]]), r"\b9\b.*\b9\b"),
        (lambda: caption_coverage(EMBEDS[:1], [[-1]]), r"-1\b"),
        (lambda: dimension_usage(EMBEDS[:0]), "vectors"),
        (lambda: top_k_overlap(EMBEDS, EMBEDS[:2]), r"\(4, 9\).*\(2, 9\)"),
        (lambda: mass_by_class(-EMBEDS, CONTENT, np.zeros(9), np.ones(9)), r"-3\.0"),
        (lambda: mass_by_class(0 * EMBEDS, CONTENT, np.zeros(9), np.ones(9)), "zero"),
    ],
)
def test_errors_say_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()
