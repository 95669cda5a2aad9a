"""Recalls per clip over all captions, and the paired interval of two systems."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lexmotion.evaluation.metrics.all_captions import clip_recalls, clip_scores, paired_interval, recall_metrics
from lexmotion.evaluation.metrics.retrieval import retrieval_metrics


def plain_recalls(similarity, counts):
    """The definition, loop by loop."""
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    found = np.zeros((len(counts), 2, 5))
    for clip, (start, count) in enumerate(zip(starts, counts, strict=True)):
        shown = {}
        for turn in range(max(counts)):
            gallery = [first + turn % number for first, number in zip(starts, counts, strict=True)]
            scores = similarity[gallery, clip]
            above = np.sum(scores > scores[clip]) + (np.sum(scores == scores[clip]) - 1) / 2
            shown.setdefault(gallery[clip], []).append([above < k for k in (1, 2, 3, 5, 10)])
        for caption in range(start, start + count):
            scores = similarity[caption]
            above = np.sum(scores > scores[clip]) + (np.sum(scores == scores[clip]) - 1) / 2
            found[clip, 0] += np.array([above < k for k in (1, 2, 3, 5, 10)]) / count
            found[clip, 1] += np.mean(shown[caption], axis=0) / count
    return found


@settings(deadline=None, max_examples=40)
@given(counts=st.lists(st.integers(1, 4), min_size=1, max_size=14), seed=st.integers(0, 999))
def test_it_is_the_definition(counts, seed):
    similarity = np.random.default_rng(seed).integers(0, 6, size=(sum(counts), len(counts))).astype(np.float32)
    np.testing.assert_allclose(clip_recalls(similarity, counts), plain_recalls(similarity, counts))


def test_one_caption_each_is_all_strict():
    similarity = np.random.default_rng(0).normal(size=(30, 30))
    wanted = retrieval_metrics(similarity)
    found = recall_metrics(clip_recalls(similarity, [1] * 30))
    assert found == pytest.approx({name: wanted[name] for name in found})
    assert clip_scores(clip_recalls(similarity, [1] * 30)).mean() == pytest.approx(wanted["Rsum"])


def test_a_clip_counts_once_whatever_its_captions():
    similarity = np.zeros((4, 2))
    similarity[:3, 0], similarity[3, 0] = 1.0, 1.0  # the three captions of clip 0 are right, that of clip 1 is not
    recalls = clip_recalls(similarity, [3, 1])
    assert recalls[:, 0, 0].tolist() == [1.0, 0.0]


@pytest.mark.parametrize(("shape", "counts"), [((3, 3), [1, 1]), ((2, 2), [2, 0]), ((3, 2), [1, 1]), ((4,), [4])])
def test_shapes_that_do_not_fit_are_refused(shape, counts):
    with pytest.raises(ValueError, match="similarity matrix.*pass"):
        clip_recalls(np.zeros(shape), counts)


def test_the_interval_holds_the_difference_and_narrows_with_clips():
    random = np.random.default_rng(0)
    one, two = random.normal(30, 100, size=(3, 400)), random.normal(0, 100, size=(3, 400))
    mean, low, high = paired_interval(one, two)
    assert low < mean < high and mean == pytest.approx((one - two).mean())
    fewer = paired_interval(one[:, :40], two[:, :40])
    assert fewer[2] - fewer[1] > 2 * (high - low)


def test_the_interval_covers_as_often_as_it_says():
    random = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        _, low, high = paired_interval(random.normal(5, 20, size=60), np.zeros(60), resamples=500)
        covered += low <= 5 <= high
    assert 175 <= covered <= 199


def test_pairing_removes_what_clips_have_in_common():
    random = np.random.default_rng(2)
    hard = random.normal(0, 100, size=200)
    _, low, high = paired_interval(hard + 5 + random.normal(0, 1, size=200), hard)
    assert 4 < low < high < 6


def test_other_clips_are_refused():
    with pytest.raises(ValueError, match="3 and 4 clips.*same clips"):
        paired_interval(np.zeros(3), np.zeros(4))
