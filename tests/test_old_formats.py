"""
What version 0.1.0 wrote still loads and still gives the same numbers.

`fixtures/version_0.1.0.zip` holds a checkpoint of every class of that version (training options in the configuration
included) and an embedded index; `expected.json` in it is what that version computed from them.
"""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import sparse

import lexmotion
from lexmotion import LexMotionIndex

FIXTURES = Path(__file__).with_name("fixtures") / "version_0.1.0.zip"


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    folder = tmp_path_factory.mktemp("version_0.1.0")
    with zipfile.ZipFile(FIXTURES) as archive:
        archive.extractall(folder)
    return folder


def captions():
    ids = torch.randint(10, 90, (4, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1:2, 5:] = 0
    return ids, mask


def motions():
    values = torch.randn(4, 22, 12, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(4, 22, dtype=torch.int64)
    mask[2:3, 13:] = 0
    return values, mask


def logits(model):
    (ids, mask), (values, frames) = captions(), motions()
    return model(
        input_ids=ids, attention_mask=mask, motion_values=values, motion_attention_mask=frames
    ).logits_per_text


COMPUTED = {
    "lexmlm": lambda model: model.text_model(*captions()).text_embeds,
    "cmmm": lambda model: model.motion_model(*motions()).last_hidden_state,
    "lexmmm": lambda model: logits(model.model),
    "dual": logits,
    "text": lambda model: model(*captions()).text_embeds,
    "motion": lambda model: model(*motions()).motion_embeds,
}


@pytest.mark.parametrize("name", COMPUTED)
def test_a_checkpoint_of_the_last_release_computes_the_same(old, name):
    expected = json.loads((old / "expected.json").read_text())[name]
    model, report = getattr(lexmotion, expected["class"]).from_pretrained(old / name, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    with torch.no_grad():
        value = COMPUTED[name](model.eval())
    assert float(value.double().sum()) == pytest.approx(expected["sum"], rel=1e-6, abs=1e-4)
    np.testing.assert_allclose(value.flatten()[:8].numpy(), expected["head"], rtol=1e-5, atol=1e-7)


def test_its_word_limits_still_hold(old):
    model = lexmotion.LexMotionModel.from_pretrained(old / "dual")
    words = (model.get_text_features(*captions()).text_embeds > 0).sum(dim=1)
    assert words.min() >= 2 and words.max() <= 10


def test_an_index_of_the_last_release_is_searched_and_changed(old):
    expected = json.loads((old / "expected.json").read_text())["index"]
    random = np.random.default_rng(0)
    dense = random.random((60, 99)) * (random.random((60, 99)) < 0.2)
    matrix = sparse.csr_matrix(dense.astype(np.float32))
    with LexMotionIndex.from_pretrained(old / "index") as index:
        for (ids, scores), (old_ids, old_scores) in zip(index.top_k(matrix[:5], k=7), expected, strict=True):
            assert list(ids) == old_ids
            np.testing.assert_array_equal(np.asarray(scores, dtype=np.float64), old_scores)
        index.add(matrix[:1], [{"n": "new"}], [100])
        assert index.delete([5]) == 1 and len(index) == 58
    with LexMotionIndex.from_pretrained(old / "index") as index:
        assert 100 in index and 5 not in index and index.metadata(100) == {"n": "new"}
