"""Figures: what is drawn was computed, the choice of motions is a rule, the same input makes the same files."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from lexmotion import cli
from lexmotion.evaluation.figures import kept_words, report
from lexmotion.evaluation.figures.clips import drawn_candidates, representative
from lexmotion.evaluation.figures.kept_words import (
    Dense,
    dense_search,
    keep_heaviest,
    kept_figure,
    postings_a_query,
    recalls,
    repeated,
    sweep,
)
from lexmotion.evaluation.figures.page import Picture, Section, figures_page
from lexmotion.evaluation.figures.representations import (
    intensities,
    intensity_figure,
    lexical_pair,
    pair_figure,
    shared_products,
)
from lexmotion.evaluation.figures.token_colors import TokenMoments, token_figure
from lexmotion.evaluation.figures.word_importance import (
    ImportanceSum,
    ranked,
    ranked_figure,
    words_figure,
)
from lexmotion.evaluation.figures.words_over_time import over_time, short_part, words_over_time
from lexmotion.evaluation.metrics.lexical import mass_by_class
from lexmotion.evaluation.metrics.retrieval import cosine_similarity

PARTS = ["right leg", "left leg", "torso", "right arm", "left arm"]


def lexical(rows, words, density=0.3, seed=0):
    """(rows, words) CSR, weights at least zero."""
    random = np.random.default_rng(seed)
    return sparse.csr_array(random.random((rows, words)) * (random.random((rows, words)) < density)).astype(np.float32)


def texts(figure):
    figure.canvas.draw()
    return {text.get_text() for text in figure.findobj(match=lambda artist: hasattr(artist, "get_text"))}


# --------------------------------------------------------------------------------------------- motions that are shown


def test_chosen_motions_stand_for_all_and_do_not_repeat_each_other():
    bags = np.zeros((11, 4))
    bags[:6, 0], bags[6:10, 1], bags[10, 2] = 1, 1, 1  # three contents, of six, four and one motion
    assert representative(bags, 3).tolist() == [0, 6, 10]
    assert representative(bags, 2, candidates=[10, 7, 3]).tolist() == [3, 7]
    assert len(set(representative(np.zeros((4, 2)), 4).tolist())) == 4  # captions without words: nobody twice
    with pytest.raises(ValueError, match=r"\b5\b.*\b4\b"):
        representative(bags, 5, candidates=[0, 1, 2, 3])


def test_candidates_are_drawn_by_the_seed():
    np.testing.assert_array_equal(drawn_candidates(300, 1, 20), drawn_candidates(300, 1, 20))
    assert drawn_candidates(300, 1, 20).tolist() != drawn_candidates(300, 2, 20).tolist()
    np.testing.assert_array_equal(drawn_candidates(5, 3), np.arange(5))


# --------------------------------------------------------------------------------------------------- figures 1 and 4


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_products_of_shared_words_sum_to_the_cosine(seed):
    text, motion = lexical(1, 40, 0.3, seed), lexical(1, 40, 0.3, seed + 1)
    ids, products = shared_products(text, motion)
    assert products.sum() == pytest.approx(float(cosine_similarity(text, motion)[0, 0]), abs=1e-6)
    assert (products > 0).all() and (np.diff(products) <= 0).all()
    assert set(ids.tolist()) == set(text.indices[text.data > 0]) & set(motion.indices[motion.data > 0])


def test_a_pair_lists_heaviest_words_and_all_that_is_shared(motions):
    words = [f"w{number}" for number in range(60)]
    text, motion = lexical(1, 60, 0.9), lexical(1, 60, 0.9, 1)
    pair = lexical_pair(text, motion, words, k=20)
    assert len(pair.text_words) == len(pair.motion_words) == 20 < len(pair.shared)
    assert pair.text_words[0] == (words[text.toarray().argmax()], pytest.approx(text.max()))
    figure = pair_figure(motions[0], "a person $ walks", pair, fps=20.0)
    bars = [axes for axes in figure.axes if axes.patches]
    assert len(bars) == 3 and f"{len(pair.shared) - 19} more words" in texts(figure)
    # What is drawn of the products is all of the cosine.
    assert sum(bar.get_width() for bar in bars[1].patches) == pytest.approx(pair.cosine)


def test_a_pair_without_shared_words_is_drawn(motions):
    pair = lexical_pair(np.eye(4)[0], np.eye(4)[1], list("abcd"))
    assert pair.shared == [] and pair.cosine == 0
    assert "no active word" in texts(pair_figure(motions[0], "nothing", pair))
    with pytest.raises(ValueError, match=r"\b4\b.*\b3\b"):
        shared_products(np.eye(4)[0], np.eye(3)[0])


def test_intensities_are_of_the_heaviest_words(motions):
    words = list("abcdef")
    panel = intensities(
        "a", [0, 4, 2, 0, 1, 0], [3, 0, 1.5, 0, 0, 0], words, dense=np.array([[1, -2.0, 0], [0, 1, 4]]), k=3
    )
    assert panel.words == ["a", "b", "c"] and panel.shared.tolist() == [False, False, True]
    np.testing.assert_allclose(panel.weights, [[1, 0, 0.5], [0, 1, 0.5]])
    assert np.abs(panel.dense).max(axis=1).tolist() == [1, 1]
    figure = intensity_figure([panel, panel], "dense Model")
    assert sum(bool(axes.images) for axes in figure.axes) == 4 and "3 dimensions of dense Model" in texts(figure)
    with pytest.raises(ValueError, match="pairs"):
        intensity_figure([])


# ---------------------------------------------------------------------------------------------------------- figure 3


def moments(states, windows, parts, chunks=1):
    total = TokenMoments(states.shape[1])
    for rows in np.array_split(np.arange(len(states)), chunks):
        total.add(states[rows], windows[rows], parts[rows])
    return total.fit()


def test_colours_do_not_depend_on_the_order_of_tokens():
    random = np.random.default_rng(0)
    states = random.normal(size=(200, 8)) * [5, 3, 2, 1, 1, 1, 1, 1] + random.normal(size=8)
    windows, parts = random.integers(4, size=200), random.integers(5, size=200)
    order = random.permutation(200)
    one, other = moments(states, windows, parts), moments(states[order], windows[order], parts[order], chunks=7)
    np.testing.assert_allclose(one.colors(states), other.colors(states), atol=1e-8)
    assert one.between_parts == pytest.approx(other.between_parts)
    scores = one.scores(states)
    np.testing.assert_allclose(scores.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(scores.std(axis=0), 1, atol=1e-9)
    np.testing.assert_allclose(np.cov(scores.T, bias=True), np.eye(3), atol=1e-9)
    shares = np.linalg.eigvalsh(np.cov(states.T))[::-1]
    np.testing.assert_allclose(one.explained, (shares / shares.sum())[:3], rtol=1e-9)


def test_variance_between_parts_and_windows_is_told_apart():
    parts, windows = (grid.ravel() for grid in np.meshgrid(np.arange(5), np.arange(6)))
    own = np.random.default_rng(0).normal(size=(5, 4))
    pca = moments(own[parts], windows, parts)  # a token says its body part, and nothing else
    assert pca.between_parts == pytest.approx(1) and pca.between_windows == pytest.approx(0, abs=1e-9)
    with pytest.raises(ValueError, match="NaN"):
        TokenMoments(4).add(np.full((1, 4), np.nan), [0], [0])
    with pytest.raises(ValueError, match=r"\b3 tokens\b.*\b4\b"):
        moments(np.ones((3, 4)), np.zeros(3, int), np.zeros(3, int))


def test_the_token_grid_is_drawn_under_its_windows(motions):
    random = np.random.default_rng(0)
    states = random.normal(size=(4, 5, 6))
    windows, parts = np.divmod(np.arange(20), 5)
    pca = moments(states.reshape(20, 6), windows, parts)
    figure = token_figure(motions[0], states, pca, 0.4, PARTS, "a person walks", fps=20.0)
    strip, colored, first = figure.axes
    colors = colored.collections[0].get_array()
    np.testing.assert_allclose(np.reshape(colors, (5, 4, 3)), pca.colors(states).swapaxes(0, 1))
    # Every figure stands over its window.
    poses = [np.concatenate(lines.get_segments()) for lines in strip.collections if hasattr(lines, "get_segments")]
    assert len(poses) == 4
    for number, pose in enumerate(poses):
        left, right = (colored.transData.transform((number + side, 0))[0] for side in (0, 1))
        assert left < strip.transData.transform(pose)[:, 0].mean() < right
    assert {"seconds", "1.6", *PARTS} <= texts(figure)
    assert first.get_position().width == colored.get_position().width == strip.get_position().width
    with pytest.raises(ValueError, match=r"windows, 5, D\).*\(4, 2, 6\)"):
        token_figure(motions[0], states[:, :2], pca, 0.4, PARTS)


# ---------------------------------------------------------------------------------------------------------- figure 5


class Words:
    """A lexicon of ten words: two stop words, one outside of the space."""

    stop_word = np.arange(10) < 2
    active = np.arange(10) < 9
    special = np.zeros(10, dtype=bool)
    document_frequency = np.ones(10)

    def word(self, id):
        return f"word{id}"

    def ids(self, text):
        return []


@pytest.fixture(scope="module")
def importance():
    random = np.random.default_rng(0)
    p = random.random((23, 10)) ** 3
    p /= p.sum(axis=1, keepdims=True)
    content = [sorted(set(random.integers(2, 9, size=3).tolist())) for _ in range(23)]
    return p, content


def test_mass_by_class_is_that_of_all_captions_whatever_the_batches(importance):
    p, content = importance
    found = []
    for size in (1, 7, 23):
        total = ImportanceSum(Words())
        for start in range(0, len(p), size):
            total.add(p[start : start + size], content[start : start + size])
        found.append(total.result())
        assert sum(found[-1].classes.values()) == pytest.approx(1)
        assert found[-1].classes == pytest.approx(mass_by_class(p, content, Words.stop_word, Words.active))
        assert found[-1].mass.sum() == pytest.approx(found[-1].captions) == 23
        assert found[-1].present.sum() / 23 == pytest.approx(found[-1].classes["caption_content"])
        assert (found[-1].present <= found[-1].mass + 1e-12).all()
    with pytest.raises(ValueError, match="captions"):
        ImportanceSum(Words()).result()


def test_importance_is_drawn_as_it_is(importance):
    total = ImportanceSum(Words())
    total.add(*importance)
    one = total.result()
    figure = ranked_figure({"before": one, "after": one}, Words(), k=6)
    bars, _, shares = figure.axes
    drawn = np.zeros(6)
    for bar in bars.patches:
        drawn[round(bar.get_y() + bar.get_height() / 2)] += bar.get_width()
    np.testing.assert_allclose(drawn, 100 * one.mass[ranked(one, 6)] / one.mass.sum())
    assert sum(bar.get_width() for bar in shares.patches) == pytest.approx(200)  # two models of 100 %
    words = words_figure({"before": one, "after": one}, Words(), k=8)
    sizes = [text.get_fontsize() for text in words.texts if text.get_text().startswith("word")]
    assert len(sizes) == 16 and sizes[:8] == sorted(sizes[:8], reverse=True)
    boxes = [text.get_window_extent() for text in words.texts]
    assert not any(one.overlaps(other) for place, one in enumerate(boxes) for other in boxes[:place])
    with pytest.raises(ValueError, match="models"):
        ranked_figure({}, Words())


# --------------------------------------------------------------------------------------------------------- figure 10


@pytest.fixture(scope="module")
def vectors():
    motion = lexical(40, 60, 0.4)
    noise = lexical(40, 60, 0.2, 1)
    return (
        sparse.csr_array(motion + 2 * noise),
        motion,
        [str(row) for row in range(40)],
        [f"c{row}" for row in range(40)],
    )


def test_all_words_kept_is_the_uncut_search(vectors):
    text, motion, ids, captions = vectors
    rows = sweep(text, motion, ids, captions, (1, 4, 1000, None))
    uncut = recalls(cosine_similarity(text, motion), ids, captions)
    assert rows[-1].retrieval == rows[-2].retrieval == uncut != rows[0].retrieval
    assert rows[-1].motion_words == pytest.approx(motion.nnz / 40) and rows[0].motion_words == 1
    assert rows[-1].bytes_a_motion == pytest.approx(8 * motion.nnz / 40)
    assert [row.postings for row in rows] == sorted(row.postings for row in rows)


def test_the_heaviest_words_are_kept(vectors):
    cut = keep_heaviest(vectors[0], 5).toarray()
    for row, kept in zip(vectors[0].toarray(), cut, strict=True):
        assert sorted(kept[kept > 0]) == pytest.approx(sorted(row)[-5:])
        np.testing.assert_array_equal(kept[kept > 0], row[kept > 0])


def test_postings_are_counted_as_an_index_reads_them(vectors):
    text, motion = vectors[:2]
    read = [sum((motion.toarray()[:, word] > 0).sum() for word in np.flatnonzero(row)) for row in text.toarray()]
    assert postings_a_query(text, motion) == pytest.approx(np.mean(read))


def test_a_repeated_gallery_has_no_equal_rows(vectors):
    many = repeated(vectors[1], 100, seed=0)
    assert many.shape == (100, 60) and len(np.unique(many.toarray(), axis=0)) == 100
    assert np.array_equal(many.toarray()[45] > 0, vectors[1].toarray()[5] > 0)
    assert repeated(np.ones((3, 4)), 7, seed=0).shape == (7, 4)


def test_the_sweep_is_drawn_with_the_dense_model_across(vectors):
    text, motion, ids, captions = vectors
    rows = sweep(text, motion, ids, captions, (2, 8, None), {"2": 0.1, "8": 0.2, "None": 0.3})
    dense = dense_search("dense Model", text.toarray(), motion.toarray(), ids, captions, 2.0)
    assert isinstance(dense, Dense) and dense.size == 60 and dense.retrieval == rows[-1].retrieval
    figure = kept_figure(rows, 40, dense, rows[-1].retrieval, 1000)
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    np.testing.assert_array_equal(lines["R@10, words"].get_ydata(), [row.retrieval["t2m/R10"] for row in rows])
    assert lines["R@1, dense Model"].get_ydata()[0] == dense.retrieval["t2m/R1"]
    assert {"all", "dense, 60 numbers", "ms per query, 1,000 motions"} <= texts(figure)
    assert "ms per query, 1,000 motions" not in texts(kept_figure(sweep(text, motion, ids, captions, (2, None)), 40))


# --------------------------------------------------------------------------------------------------- words over time


def test_words_over_time_names_the_part_of_the_highest_score(motions):
    maps = np.zeros((2, 4, 5))
    maps[0, 1, 3], maps[0, 2, 4], maps[1, 3, 2], maps[1, 0, 0] = 2.0, 1.8, 0.5, -np.inf
    scores, best = over_time(maps)
    assert scores[0].tolist() == [0, 2.0, 1.8, 0] and best[0, 1:3].tolist() == [3, 4]
    figure = words_over_time(motions[0], maps, ["wave", "bow"], 0.4, PARTS, {"wave": 0.25}, {"wave"}, "hello", 20.0)
    axes = figure.axes[1]
    named = {text.get_text(): (text.get_position(), text.get_fontweight()) for text in axes.texts}
    assert named["R arm"] == ((1.5, 0.52), "bold") and named["L arm"] == ((2.5, 0.52), "normal")
    assert named["torso"] == ((3.5, 1.52), "bold") and "+0.250" in named
    assert "R leg" not in named
    with pytest.raises(ValueError, match=r"\b3 words\b.*\b5\b.*\(2, 4, 5\)"):
        words_over_time(motions[0], maps, ["a", "b", "c"], 0.4, PARTS)


def test_short_names_of_parts():
    assert [short_part(name) for name in ("right leg", "torso", "left knee ankle", "part 3", "neck head")] == [
        "R leg",
        "torso",
        "L ankle",
        "part 3",
        "head",
    ]


# --------------------------------------------------------------------------------------------------------- the report


def test_the_page_holds_its_pictures(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    section = Section("A <b>", "text", [Picture([tmp_path / "a.png", tmp_path / "a.pdf"], "caption & more.")])
    section.tables.append([["k", "v"], ["all", "1"]])
    page = figures_page("Title", {"split": "test"}, [section])
    assert "data:image/png;base64,iVBORw==" in page and "A &lt;b&gt;" in page and "a.png, a.pdf" in page
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)  # nothing is fetched


@pytest.fixture(scope="module")
def command(trained):
    return ["report", "figures", "--model", str(trained / "model"), "--dataset", str(trained / "prepared")]


def run(words, message=None, capsys=None):
    if message is None:
        return cli.main(words)
    with pytest.raises(SystemExit):
        cli.main(words)
    assert re.search(message, " ".join(capsys.readouterr().err.split()))


@pytest.fixture(scope="module")
def drawn(command, tmp_path_factory):
    """Folder of a report."""
    folder = tmp_path_factory.mktemp("figures")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stop:
        patch.setattr(kept_words, "KEPT", (2, None))
        patch.setattr(report, "DPI", 40)
        cli.main([*command, "--output-dir", str(folder), "--count", "1", "--latency-items", "50"])
    assert stop.value.code == 0
    return folder


def test_the_report_holds_every_figure(drawn):
    names = {path.name for path in drawn.iterdir()}
    stems = ["figure1", "figure3_1", "figure4_1", "figure5_ranked", "figure5_words", "figure10", "timeline_1"]
    files = {"index.html", "figures.json", "latency.json"}
    assert names == files | {f"{stem}{kind}" for stem in stems for kind in (".png", ".pdf")}
    numbers = json.loads((drawn / "figures.json").read_text())
    pair = numbers["representations"]["pairs"][0]
    assert sum(product for _, product in pair["shared"]) == pytest.approx(pair["cosine"], abs=1e-5)
    timed = numbers["words_over_time"]["pairs"][0]
    assert timed["cosine"] == pytest.approx(pair["cosine"], abs=1e-5)
    assert timed["model_score"] == pytest.approx(pair["score"], abs=1e-4)  # the words alone are not the model's score
    assert numbers["tokens"]["tokens"] > 4 and numbers["kept_words"]["kept"][-1]["k"] is None
    assert sum(numbers["importance"]["after all phases"]["classes"].values()) == pytest.approx(1)
    page = (drawn / "index.html").read_text()
    assert page.count("data:image/png;base64,") == len(stems) and "test: 4 motions, 8 captions" in page
    assert "--before" in page


def test_the_same_input_makes_the_same_files(drawn, command, tmp_path, monkeypatch):
    monkeypatch.setattr(kept_words, "KEPT", (2, None))
    monkeypatch.setattr(report, "DPI", 40)
    (tmp_path / "latency.json").write_bytes((drawn / "latency.json").read_bytes())
    with pytest.raises(SystemExit):
        cli.main([*command, "--output-dir", str(tmp_path), "--count", "1", "--latency-items", "50"])
    for path in drawn.iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--split", "evening"], "'evening'"),
        (["--count", "5"], r"\b5\b.*\btest\b.*\b4\b"),
        (["--dense-model", "nowhere"], "'nowhere'.*lexmotion compare"),
        (["--before", "./nowhere"], "'./nowhere'.*minilm"),
    ],
)
def test_mistakes_are_told(command, tmp_path, capsys, options, message):
    run([*command, "--output-dir", str(tmp_path / "out"), *options], message, capsys)
    assert not (tmp_path / "out").exists()


def test_a_lexical_model_is_no_dense_one(command, trained, tmp_path, capsys):
    words = [*command, "--output-dir", str(tmp_path), "--dense-model", str(trained / "model")]
    run(words, "dense.*LexMotionModel", capsys)


def test_explain_draws_words_over_time(trained, tmp_path, capsys):
    motion = str(next((trained / "new_joints").glob("*.npy")))
    words = ["explain", "--model", str(trained / "model"), "--motion", motion, "--text", "a person walks 3 times"]
    with pytest.raises(SystemExit) as stop:
        cli.main([*words, "--timeline", str(tmp_path / "time.png")])
    output = " ".join(capsys.readouterr().out.split())
    assert stop.value.code == 0 and (tmp_path / "time.png").read_bytes().startswith(b"\x89PNG")
    assert "cosine of the words" in output and "The model ranks by" in output
    assert Path(tmp_path / "time.png").stat().st_size > 5000
