"""Search by words: equal to the dense product whatever is added, deleted and merged, and explained by its words."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from lexmotion import LexMotionIndex, cli
from lexmotion.index import embedded, scoring
from lexmotion.index import segments as index_storage
from lexmotion.index.scoring import best_rows
from lexmotion.index.segments import BLOCK, Texts, common_words, from_ranges, map_tensors, to_ranges

V = 7
ENGINES = [False, pytest.param(True, marks=pytest.mark.skipif(not scoring.compiled(), reason="no numba"))]
COLUMNS = {"postings": (0, 0), "columns": (10**6, 1e9)}


@contextlib.contextmanager
def kept_as(kind):
    """All words as postings, or all as columns."""
    with pytest.MonkeyPatch.context() as patch:
        share, extra = COLUMNS[kind]
        patch.setattr(index_storage, "COLUMN_SHARE", share)
        patch.setattr(index_storage, "COLUMN_BYTES", extra)
        yield


def dense(rows, query, k, ids=None):
    """The same by the product of a dense matrix: the ids and scores, word after word in float32."""
    rows, query = np.asarray(rows, np.float32), np.asarray(query, np.float32)
    lengths = np.sqrt(np.square(rows.astype(np.float64)).sum(axis=1, keepdims=True))
    unit = (rows * np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0)).astype(np.float32)
    weights = (query / (np.sqrt(np.square(query.astype(np.float64)).sum()) or 1.0)).astype(np.float32)
    scores = np.zeros(len(rows), np.float32)
    for word in range(rows.shape[1]):
        scores += unit[:, word] * weights[word]
    np.testing.assert_allclose(scores, unit.astype(np.float64) @ weights, atol=1e-6)
    ids = list(range(len(rows))) if ids is None else ids
    order = sorted((row for row in range(len(rows)) if scores[row] > 0), key=lambda row: (-scores[row], ids[row]))
    return [ids[row] for row in order[:k]], scores[order[:k]]


def check(index, rows, query, k, ids=None):
    found, scores = index.top_k(np.asarray(query), k)[0]
    expected, their_scores = dense(rows, query, k, ids)
    assert found == expected
    np.testing.assert_array_equal(scores, their_scores)


# Few values, so that many rows are alike and scores are equal.
weights = st.sampled_from([0.0, 0.0, 0.5, 1.0, 2.0])
vector = st.lists(weights, min_size=V, max_size=V)


# ---------------------------------------------------------------------------------------------------------------------
# Equal to the dense product
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accelerate", ENGINES)
@pytest.mark.parametrize("kind", COLUMNS)
@settings(max_examples=40, deadline=None)
@given(rows=st.lists(vector, min_size=1, max_size=20), query=vector, k=st.integers(1, 25))
def test_a_search_is_a_dense_product(kind, accelerate, rows, query, k):
    with kept_as(kind):
        index = LexMotionIndex.build(np.array(rows), accelerate=accelerate)
        check(index, rows, query, k)


@pytest.mark.parametrize("accelerate", ENGINES)
def test_many_rows_with_common_and_rare_words(accelerate):
    rng = np.random.default_rng(0)
    rows = rng.random((5000, 40), dtype=np.float32) * (rng.random((5000, 40)) < 1 / np.arange(1, 41))
    rows[3000:] = rows[:2000]  # ties everywhere
    ids = [f"{number:04d}" for number in rng.permutation(5000)]
    index = LexMotionIndex.build(rows, ids=ids, accelerate=accelerate)
    assert 0 < len(index.engine.segments()[0].common) < 40
    for query in rng.random((5, 40), dtype=np.float32) * (rng.random((5, 40)) < 0.5):
        for k in (1, 4, 10, 300):
            check(index, rows, query, k, ids)


def test_words_become_common_and_rare_in_merges():
    rng = np.random.default_rng(0)
    rows = rng.random((9 * BLOCK, 20), dtype=np.float32)
    shares = np.full((len(rows), 20), 0.01)
    shares[: 2 * BLOCK, :4] = 0.9  # common in the first segment alone
    shares[2 * BLOCK :, 10:12] = 0.9  # in the second
    shares[:, 19] = 0.9  # in both
    rows *= rng.random(rows.shape) < shares
    index = LexMotionIndex.build(rows[: 2 * BLOCK])
    index.add(rows[2 * BLOCK :])
    assert [segment.common.tolist() for segment in index.engine.segments()] == [[0, 1, 2, 3, 19], [10, 11, 19]]
    index.merge()
    one, merged = LexMotionIndex.build(rows).engine.segments()[0], index.engine.segments()[0]
    assert merged.common.tolist() == one.common.tolist() and set(merged.common) >= {10, 11, 19}
    assert not set(merged.common) >= {0, 1, 2, 3}
    ours, theirs = merged.tensors(), one.tensors()
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)
    gone = list(range(0, len(rows), 3))
    index.delete(gone)
    index.merge()
    left = LexMotionIndex.build(np.delete(rows, gone, axis=0))
    assert (index.to_csr() != left.to_csr()).nnz == 0


operations = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.lists(vector, min_size=0, max_size=4)),
        st.tuples(st.just("replace"), st.lists(vector, min_size=1, max_size=2)),
        st.tuples(st.just("delete"), st.integers(0, 10**6)),
        st.tuples(st.just("merge"), st.none()),
    ),
    max_size=12,
)


@pytest.mark.parametrize("ids_are", [int, str])
@pytest.mark.parametrize("kind", COLUMNS)
@settings(max_examples=40, deadline=None)
@given(operations=operations, query=vector, k=st.integers(1, 8))
def test_any_history_equals_the_dense_product_of_what_survives(kind, ids_are, operations, query, k):
    surviving, number = {}, 0
    with kept_as(kind), pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedded, "MERGE_FACTOR", 3)
        index = LexMotionIndex.build(sparse.csr_matrix((0, V)), accelerate=False)
        for name, value in operations:
            if name == "merge":
                index.merge()
                assert len(index.engine.segments()) <= 1
            elif name == "delete" and surviving:
                gone = sorted(surviving)[value % len(surviving)]
                del surviving[gone]
                assert index.delete(gone) == 1
            elif name in ("add", "replace") and value:
                if name == "replace" and surviving:
                    ids = sorted(surviving)[: len(value)]
                    value = value[: len(ids)]
                else:
                    ids = [ids_are(-number - 1 - place) for place in range(len(value))]
                    number += len(value)
                # Replaced by its own id, an item stays where its id is.
                metadata = [{"sum": sum(row)} for row in value]
                assert index.add(np.array(value), metadata, ids, replace=name == "replace") == ids
                surviving |= dict(zip(ids, value, strict=True))
        index.close()
        assert len(index) == len(surviving) and sorted(index.ids) == sorted(surviving)
        assert all(index.metadata(id) == {"sum": sum(row)} for id, row in surviving.items())
        if surviving:
            check(index, list(surviving.values()), query, k, list(surviving))
            one = LexMotionIndex.build(np.array([surviving[id] for id in index.ids]), accelerate=False)
            assert (index.to_csr() != one.to_csr()).nnz == 0  # not a bit is lost in merging


@given(
    values=st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=40),
    k=st.integers(1, 12),
    spread=st.integers(1, 400),
)
def test_the_best_rows_are_all_that_may_be_among_the_k_best(values, k, spread):
    scores = np.zeros(-(-len(values) * spread // BLOCK) * BLOCK, np.float32)
    scores[: len(values) * spread : spread] = values
    bound = max(sorted(scores, reverse=True)[min(k, len(scores)) - 1], np.float32(1e-30))
    assert best_rows(scores, k).tolist() == np.flatnonzero(scores >= bound).tolist()


# ---------------------------------------------------------------------------------------------------------------------
# Words
# ---------------------------------------------------------------------------------------------------------------------

CLIPS = {
    "left kick": {"left": 2, "kick": 2, "leg": 1},
    "right kick": {"right": 2, "kick": 2, "leg": 1},
    "cart": {"cart": 2, "left": 1},
    "cartwheel": {"cart": 2, "##wheel": 2, "left": 1},
    "walk": {"walk": 3, "forward": 1},
}


def bags(tokenizer, bags):
    rows = np.zeros((len(bags), len(tokenizer)), np.float32)
    for row, bag in zip(rows, bags, strict=True):
        row[tokenizer.convert_tokens_to_ids(list(bag))] = list(bag.values())
    return rows


@pytest.fixture
def clips(tiny_tokenizer):
    metadata = [{"caption": name, "number": number} for number, name in enumerate(CLIPS)]
    return LexMotionIndex.build(bags(tiny_tokenizer, CLIPS.values()), metadata, list(CLIPS), processor=tiny_tokenizer)


@pytest.fixture
def query(tiny_tokenizer):
    return bags(tiny_tokenizer, [{"kick": 2, "left": 1, "cart": 1}])[0]


def found(hits):
    return [hit.id for hit in hits]


@pytest.mark.parametrize("kind", COLUMNS)
def test_words_that_must_or_must_not_be_there(tiny_tokenizer, query, kind):
    with kept_as(kind):
        index = LexMotionIndex.build(bags(tiny_tokenizer, CLIPS.values()), None, list(CLIPS), processor=tiny_tokenizer)
    everything = found(index.search(query))
    assert set(everything) == {"left kick", "right kick", "cart", "cartwheel"}
    assert found(index.search(query, must=["kick"])) == ["left kick", "right kick"]
    assert found(index.search(query, must=["kick", "left"])) == ["left kick"]
    assert found(index.search(query, must=["left leg"])) == ["left kick"]
    assert found(index.search(query, must=["kick"], must_not=["right"])) == ["left kick"]
    # A word of two pieces is there only when both are, and both are needed to exclude it.
    assert found(index.search(query, must=["cartwheel"])) == ["cartwheel"]
    assert "cart" in found(index.search(query, must_not=["cartwheel"]))
    assert found(index.search(query, must=["walk"])) == []
    number = tiny_tokenizer.convert_tokens_to_ids("kick")
    assert found(index.search(query, must=[number])) == ["left kick", "right kick"]
    index.delete("left kick")
    assert found(index.search(query, must=["kick"])) == ["right kick"]


def test_boosting_multiplies_a_word_of_the_query(clips, query, tiny_tokenizer, caplog):
    for factor in (0, 0.5, 3):
        by_hand = query.copy()
        by_hand[tiny_tokenizer.convert_tokens_to_ids("left")] *= factor
        assert clips.search(query, boost={"left": factor}) == clips.search(by_hand)
    assert found(clips.search(query, boost={"cart": 9}))[0] == "cart"
    assert not caplog.records
    assert clips.search(query, boost={"walk": 2}) == clips.search(query)
    assert "'walk'" in caplog.text


def test_without_a_query_the_words_are_the_query(clips, tiny_tokenizer):
    alone = bags(tiny_tokenizer, [{"kick": 1, "left": 3}])[0]
    assert clips.search(must=["kick"], boost={"left": 3}) == clips.search(alone, must=["kick"])
    assert clips.search(must="kick", boost={"left": 3}) == clips.search(alone, must="kick")
    with pytest.raises(ValueError, match="text.*motion.*vector.*words"):
        clips.search()


def test_a_hit_says_which_words_made_its_score(clips, query):
    hits = clips.search(query)
    assert hits[0].words[0][0] == "kick" and {word for word, _ in hits[0].words} == {"kick", "left"}
    for hit in hits:
        assert sum(share for _, share in hit.words) == pytest.approx(hit.score, abs=1e-6)
        assert [share for _, share in hit.words] == sorted((share for _, share in hit.words), reverse=True)
        assert hit.metadata == {"caption": hit.id, "number": list(CLIPS).index(hit.id)}
    assert clips.words_of(query, 1) == [("kick", 2.0)]
    assert json.loads(json.dumps(hits[0].to_dict()))["id"] == "left kick"


def test_several_queries_at_once(clips, query):
    both = sparse.csr_matrix(np.stack([query, query[::-1]]))
    assert clips.search(both) == [clips.search(query), clips.search(query[::-1].copy())]
    assert [list(ids) for ids, _ in clips.top_k(both)] == [found(hits) for hits in clips.search(both)]
    assert clips.search(torch.from_numpy(query)) == clips.search(query)


def test_texts_and_motions_are_encoded_by_the_model(tiny_tokenizer):
    calls = []

    def encode_text(texts, processor):
        calls.append((texts, processor))
        return sparse.csr_matrix(bags(tiny_tokenizer, [{text: 1} for text in texts]))

    def encode_motion(motions, fps, processor):
        calls.append((len(motions), fps, processor))
        return sparse.csr_matrix(bags(tiny_tokenizer, [{"kick": 1}] * len(motions)))

    model = SimpleNamespace(encode_text=encode_text, encode_motion=encode_motion, name_or_path="some/model")
    index = LexMotionIndex.build(
        bags(tiny_tokenizer, CLIPS.values()), ids=list(CLIPS), processor=tiny_tokenizer, model=model
    )
    assert index.info()["model"] == "some/model"
    assert found(index.search("walk")) == found(index.search(text="walk")) == ["walk"]
    assert [found(hits) for hits in index.search(["walk", "right"])] == [["walk"], ["right kick"]]
    clip = np.zeros((5, 22, 3), np.float32)
    assert found(index.search(motion=clip, fps=20)) == ["left kick", "right kick"]
    assert len(index.search(motion=[clip, clip])) == 2
    assert calls[0] == (["walk"], tiny_tokenizer) and calls[-2] == (1, 20, tiny_tokenizer) and calls[-1][0] == 2


# ---------------------------------------------------------------------------------------------------------------------
# Mistakes
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda index, query: index.search(query, must=["kik"]), r"'kik'.*\bkick\b"),
        (lambda index, query: index.search(query, must=[10**6]), r"\b1000000\b.*\b96\b"),
        (lambda index, query: index.search(query, boost={"kick": -1}), r"'kick'.*-1\b"),
        (lambda index, query: index.search(query, boost={"kick": "2"}), r"'kick'.*'2'.*number"),
        (lambda index, query: index.search(query, 0), r"\bk\b.*\b0\b"),
        (lambda index, query: index.search(query, text="walk"), r"\bquery\b.*\btext\b"),
        (lambda index, query: index.search("walk"), "model="),
        (lambda index, query: index.search(" "), "query.*empty"),
        (lambda index, query: index.search(query[:-1]), r"\b95\b.*\b96\b"),
        (lambda index, query: index.search(-query), r"-2\.0\b"),
        (lambda index, query: index.search(np.full_like(query, np.inf)), r"\binf\b"),
        (lambda index, query: index.add(query, ids=["walk"]), "'walk'.*replace=True"),
        (lambda index, query: index.add(query), r"\bids\b.*texts"),
        (lambda index, query: index.add(query, ids=[3]), r"\bids\b.*integers.*texts.*\b3\b"),
        (lambda index, query: index.add(query, ids=["a", "b"]), r"\b2 ids\b.*\b1\b"),
        (lambda index, query: index.add(np.stack([query, query]), ids=["a", "a"]), r"\bid\b.*'a'"),
        (lambda index, query: index.add(query, [{}, {}], ["a"]), r"metadata.*\b2\b.*\b1\b"),
        (lambda index, query: index.delete(["walk", "run"]), "'run'.*delete"),
    ],
)
def test_a_mistake_is_told_and_changes_nothing(clips, query, call, message):
    before = (clips.ids, clips.info())
    with pytest.raises(ValueError, match=message):
        call(clips, query)
    assert (clips.ids, clips.info()) == before


def test_words_need_a_tokenizer():
    index = LexMotionIndex.build(np.eye(V))
    with pytest.raises(ValueError, match="tokenizer.*'kick'.*processor="):
        index.search(np.eye(V)[0], must=["kick"])
    assert index.search(np.eye(V)[2])[0].words == [("2", 1.0)]


def test_words_that_are_not_active_are_unknown(tiny_tokenizer):
    active = np.ones(len(tiny_tokenizer), bool)
    active[tiny_tokenizer.convert_tokens_to_ids("the")] = False
    processor = SimpleNamespace(tokenizer=tiny_tokenizer, lexicon=SimpleNamespace(active=active))
    index = LexMotionIndex.build(bags(tiny_tokenizer, [{"knee": 1}]), processor=processor)
    with pytest.raises(ValueError, match="'the'"):
        index.word_ids("the")
    index.engine.used = lambda: np.ones(len(tiny_tokenizer), bool)  # as of an engine
    with pytest.raises(ValueError, match="'thee'.*three.*then.*their") as caught:
        index.word_ids("thee")
    assert not {"the,", "'the',"} & set(str(caught.value).split())
    assert index.word_ids("knee") == [tiny_tokenizer.convert_tokens_to_ids("knee")]


# ---------------------------------------------------------------------------------------------------------------------
# Ids, items
# ---------------------------------------------------------------------------------------------------------------------


def test_numbers_are_given_out_once():
    index = LexMotionIndex.build(np.eye(V)[:2])
    assert index.add(np.eye(V)[2:4]) == [2, 3] and index.id_kind is int
    index.delete([3, 2])
    index.merge()
    assert index.add(np.eye(V)[:1]) == [4] and index.ids == [0, 1, 4]
    assert 4 in index and 3 not in index and "4" not in index
    assert index.delete([77, "x", 0], missing_ok=True) == 1
    with pytest.raises(KeyError):
        index.metadata(0)


def test_no_items_and_items_without_words():
    index = LexMotionIndex.build(np.zeros((0, V)))
    assert len(index) == 0 and index.search(np.ones(V)) == [] and index.to_csr().shape == (0, V)
    index.add(np.zeros((3, V)))
    assert len(index) == 3 and index.search(np.ones(V)) == [] and index.search(np.zeros(V)) == []
    assert index.info()["words_in_use"] == 0


def test_vectors_are_taken_as_they_come():
    rows = np.array([[0.0, 2.0, 1.0], [1.0, 0.0, 0.0]])
    untidy = sparse.csr_matrix(([1.0, 1.0, 1.0, 0.0, 1.0], [1, 2, 1, 0, 0], [0, 4, 5]), shape=(2, 3))
    expected = LexMotionIndex.build(rows).to_csr()
    for vectors in (
        untidy,
        sparse.coo_matrix(rows),
        torch.tensor(rows),
        torch.tensor(rows).to_sparse(),
        rows.tolist(),
    ):
        assert (LexMotionIndex.build(vectors).to_csr() != expected).nnz == 0
    assert untidy.nnz == 5  # not changed


def test_an_item_added_alone_is_the_item_added_among_others():
    rows = np.random.default_rng(0).random((50, V))
    together, alone = LexMotionIndex.build(rows), LexMotionIndex.build(rows[:1])
    for row in rows[1:]:
        alone.add(row)
    alone.merge()
    assert (together.to_csr() != alone.to_csr()).nnz == 0


@given(st.lists(st.integers(0, 60), unique=True).map(sorted))
def test_row_numbers_survive_as_text(rows):
    assert from_ranges(to_ranges(np.array(rows, np.int32))).tolist() == rows


@given(st.lists(st.tuples(st.binary(max_size=4), st.booleans()), min_size=1))
def test_texts_are_kept_and_joined(pairs):
    texts, kept = [text for text, _ in pairs], np.array([keep for _, keep in pairs])
    chosen = [text for text, keep in pairs if keep]
    both = Texts.join([Texts.of(texts).keep(kept), Texts.of(texts)])
    assert [both[row] for row in range(len(both))] == chosen + texts


def test_columns_take_hardly_more_bytes_than_postings():
    rows = 10 * BLOCK
    counts = (rows / np.arange(1, 200)).astype(np.int64)
    common = common_words(counts, rows)
    assert common.tolist() == list(range(len(common))) and 2 < len(common) <= index_storage.COLUMN_SHARE
    more = 4 * rows * len(common) - 8 * counts[common].sum()
    assert more <= index_storage.COLUMN_BYTES * 8 * counts.sum()
    assert len(common_words(np.ones(5, np.int64), BLOCK)) == 0


# ---------------------------------------------------------------------------------------------------------------------
# Saved
# ---------------------------------------------------------------------------------------------------------------------


def test_a_saved_index_is_the_index(clips, query, tmp_path):
    clips.add(query, [{"caption": "ünï"}], ["new"])
    clips.delete("cart")
    clips.save_pretrained(tmp_path / "saved")
    loaded = LexMotionIndex.from_pretrained(tmp_path / "saved")
    assert loaded.search(query, must_not=["right"]) == clips.search(query, must_not=["right"])
    assert loaded.metadata("new") == {"caption": "ünï"} and loaded.ids == clips.ids
    loaded.save_pretrained(tmp_path / "again")
    assert LexMotionIndex.from_pretrained(tmp_path / "again", verify=False).search(query) == clips.search(query)
    loaded.save_pretrained(loaded.folder)  # is there already
    clips.delete("walk")
    clips.save_pretrained(tmp_path / "again")
    assert LexMotionIndex.from_pretrained(tmp_path / "again").ids == clips.ids
    assert len(list((tmp_path / "again" / "segments").glob("*.safetensors"))) == len(clips.engine.segments())


def test_a_folder_with_an_index_is_refused_before_anything_is_read(tmp_path, capsys):
    LexMotionIndex.build(np.eye(V), folder=tmp_path / "index").close()
    with pytest.raises(SystemExit):
        cli.main(["index", "build", str(tmp_path / "index"), "--vectors", "absent"])
    assert "from_pretrained" in capsys.readouterr().err


def test_a_folder_is_built_in_once(tmp_path):
    with LexMotionIndex.build(np.eye(V), folder=tmp_path / "index") as index:
        assert index.search(np.eye(V)[3])[0].id == 3
    with pytest.raises(ValueError, match="/index.*from_pretrained.*overwrite"):
        LexMotionIndex.build(np.eye(V), folder=tmp_path / "index")
    LexMotionIndex.build(np.eye(V)[:2], folder=tmp_path / "index", overwrite=True).close()
    assert LexMotionIndex.from_pretrained(tmp_path / "index").ids == [0, 1]
    with pytest.raises(FileNotFoundError, match=r"manifest\.json.*lexmotion index build"):
        LexMotionIndex.from_pretrained(tmp_path)


def test_segments_are_safetensors_files(clips, tmp_path):
    from safetensors.numpy import load_file

    clips.save_pretrained(tmp_path)
    (path,) = (tmp_path / "segments").glob("*.safetensors")
    theirs, ours = load_file(path), map_tensors(path)
    assert theirs.keys() == ours.keys() and all((theirs[name] == ours[name]).all() for name in ours)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The Hub as a folder."""
    import huggingface_hub

    class Hub:
        def __init__(self, token):
            assert token == "secret"

        def create_repo(self, repo_id, private, exist_ok):
            assert (repo_id, private, exist_ok) == ("me/clips", True, True)

        def upload_folder(self, repo_id, folder_path, ignore_patterns, **_):
            shutil.rmtree(tmp_path / "hub", ignore_errors=True)
            shutil.copytree(folder_path, tmp_path / "hub", ignore=shutil.ignore_patterns(*ignore_patterns))
            return "commit"

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(tmp_path / "hub"))
    return tmp_path / "hub"


def readme_example(hub, capsys):
    """What the code of the README prints."""
    code = (hub / "README.md").read_text().split("```python\n")[1].split("```")[0]
    exec(code, {})  # noqa: S102
    return capsys.readouterr().out


def test_to_the_hub_and_back(clips, query, hub, capsys):
    assert clips.push_to_hub("me/clips", private=True, token="secret") == "commit"
    assert "5 items" in (hub / "README.md").read_text() and "model=" in (hub / "README.md").read_text()
    downloaded = LexMotionIndex.from_pretrained("me/clips")
    assert downloaded.search(query) == clips.search(query) and downloaded.info()["model"] is None
    assert clips.ids[0] in readme_example(hub, capsys)
    with pytest.raises(OSError, match="/hub.*save_pretrained"):
        downloaded.add(query, ids=["new"])


def test_a_local_model_is_not_pushed_by_its_path(clips, query, hub, tmp_path, monkeypatch, capsys):
    for name in (str(tmp_path), "/gone/model", "runs/small/model", "~/model", "..", "C:\\model"):
        clips.place.state = replace(clips.place.state, model=name)
        with pytest.raises(ValueError, match=rf"{re.escape(repr(name))}.*model='OWNER/NAME'.*model=''"):
            clips.push_to_hub("me/clips", private=True, token="secret")
    assert not hub.exists()
    clips.push_to_hub("me/clips", private=True, token="secret", model="")
    assert LexMotionIndex.from_pretrained("me/clips").info()["model"] is None
    clips.push_to_hub("me/clips", private=True, token="secret", model="me/model")
    assert LexMotionIndex.from_pretrained("me/clips").info()["model"] == "me/model"
    monkeypatch.setattr(LexMotionIndex, "encode", lambda *_, **__: sparse.csr_matrix(query))
    assert "left kick" in readme_example(hub, capsys)


def test_what_is_pushed_names_no_place_of_this_machine(tiny_tokenizer, tmp_path, hub):
    metadata = [
        {"file": "/home/me/secret/kick.bvh", "read": {"mapping": "/home/me/map.json", "up": "z", "fps": 30}},
        {"file": "C:\\Users\\me\\jump.bvh", "more": [{"source": "file:///home/me/raw/"}, "~/me/x.npy"]},
        {"captions": ["/ a caption", "walks and/or runs"], "take": "a/b", "n": 3},
        {"file": "/home/me/deleted.bvh"},
    ]
    place = tmp_path / "private_folder"
    with LexMotionIndex.build(
        bags(tiny_tokenizer, [{"kick": 1}] * 4), metadata, list("abcd"), folder=place, processor=tiny_tokenizer
    ) as index:
        index.delete("d")
    LexMotionIndex.from_pretrained(place).push_to_hub("me/clips", private=True, token="secret")
    pushed = LexMotionIndex.from_pretrained("me/clips")
    assert pushed.metadata("a") == {"file": "kick.bvh", "read": {"mapping": "map.json", "up": "z", "fps": 30}}
    assert pushed.metadata("b") == {"file": "jump.bvh", "more": [{"source": "raw"}, "x.npy"]}
    assert pushed.metadata("c") == metadata[2] and pushed.ids == ["a", "b", "c"]
    for path in (path for path in hub.rglob("*") if path.is_file()):
        content = path.read_bytes()
        assert not any(word in content for word in (b"/home/me", b"Users", b"deleted.bvh", str(tmp_path).encode())), (
            path
        )


def test_numba_is_asked_for_by_name(monkeypatch):
    monkeypatch.setattr(scoring, "compiled", lambda: None)
    with pytest.raises(ImportError, match=r"pip install lexmotion\[index\]"):
        LexMotionIndex.build(np.eye(V), accelerate=True)
    monkeypatch.setattr(scoring, "ACCELERATED_ENTRIES", 0)
    assert LexMotionIndex.build(np.eye(V)).search(np.eye(V)[0])[0].id == 0


def test_many_items_are_deleted_in_linear_time():
    count = 40_000
    vectors = sparse.csr_matrix((np.ones(count), np.arange(count) % V, np.arange(count + 1)), shape=(count, V))
    ids = [f"clip {number}" for number in range(count)]
    index = LexMotionIndex.build(vectors, ids=ids)
    started = time.perf_counter()
    assert index.delete(ids[::2]) == count // 2 and len(index) == count // 2
    assert time.perf_counter() - started < 5


@pytest.mark.slow
def test_compiled_code_is_kept_for_the_next_process(tmp_path):
    pytest.importorskip("numba", reason="lexmotion[index] is not installed")
    code = (
        "import sys; sys.argv = ['-m']\n"
        "import numpy as np\n"
        "from lexmotion import LexMotionIndex\n"
        "from lexmotion.index import scoring\n"
        "print(LexMotionIndex.build(np.eye(3), accelerate=True).search(np.eye(3)[0])[0].score)\n"
        "print(sum(scoring.compiled().stats.cache_hits.values()))"
    )

    def run(**environment):
        done = subprocess.run(
            [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, timeout=100
        )
        return done.stdout.split() or pytest.fail(done.stderr)

    assert run(NUMBA_CACHE_DIR=str(tmp_path / "cache")) == ["1.0", "0"]
    assert run(NUMBA_CACHE_DIR=str(tmp_path / "cache")) == ["1.0", "1"]


def test_compiling_needs_no_writable_folder(monkeypatch):
    numba = pytest.importorskip("numba", reason="lexmotion[index] is not installed")
    njit = numba.njit

    def without_cache(**options):
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return njit(**options)

    monkeypatch.setattr(numba, "njit", without_cache)
    assert scoring.compiled.__wrapped__() is not None


def test_an_index_is_searched_without_torch():
    code = (
        "import sys; sys.argv = ['-m']\n"
        "import numpy as np\n"
        "from lexmotion import LexMotionIndex\n"
        "LexMotionIndex.build(np.eye(3)).search(np.eye(3)[0])\n"
        "sys.exit('loaded torch' if 'torch' in sys.modules else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
