import pytest

from lexmotion.evaluation.explain import explain


@pytest.fixture(scope="module")
def explanation(model, processor, motions, captions):
    return explain(model, motions[0], text=captions[0], processor=processor, fps=20.0, k=5)


def test_contributions_of_the_shared_words_add_up_to_the_score(explanation):
    assert explanation.score == pytest.approx(sum(word.contribution for word in explanation.shared), abs=1e-4)


def test_each_word_comes_from_where_its_map_is_highest(explanation):
    windows, parts = explanation.grid
    names = ["right leg", "left leg", "torso", "right arm", "left arm"]
    for word, grid in zip(explanation.words, explanation.maps, strict=True):
        window, part = divmod(int(grid.argmax()), parts)
        assert (word.part, word.start) == (names[part], pytest.approx(window * explanation.window_seconds))
        assert word.weight == pytest.approx(float(grid.max()), abs=1e-4)
    assert (windows, parts) == (4, 5)


def test_without_a_caption_there_is_no_score(model, processor, motions):
    alone = explain(model, motions[1], processor=processor, fps=20.0, k=3)
    assert alone.score is None and not alone.shared and len(alone.words) == 3
    assert [word.weight for word in alone.words] == sorted((word.weight for word in alone.words), reverse=True)


def test_an_empty_caption_is_refused(model, processor, motions):
    with pytest.raises(ValueError, match="^text: .*caption.*omit"):
        explain(model, motions[0], text=" ", processor=processor, fps=20.0)
