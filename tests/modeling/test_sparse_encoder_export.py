"""The text tower as a SparseEncoder of sentence-transformers."""

import numpy as np
import pytest
import tiny
import torch

from lexmotion import LexMotionTextModel
from lexmotion.export.sparse_encoder import save_sparse_encoder

sentence_transformers = pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")

CAPTIONS = ["a person walks forward slowly", "jump", "the man kicks with his left leg " * 20]  # one is cut at 77


def tower(active=None, **fields) -> LexMotionTextModel:
    torch.manual_seed(0)
    model = LexMotionTextModel(tiny.text_config(**fields)).eval()
    with torch.no_grad():
        model.lexical_head.bias.normal_(std=0.2)
    if active is not None:
        model.set_active_words(active)
    return model


@pytest.mark.parametrize(
    "fields", [{}, {"active": range(10, 90)}, {"top_k": 7}, {"model_type": "distilbert"}], ids=str
)
def test_a_path_is_enough_and_the_vectors_are_equal(tiny_tokenizer, tmp_path, fields):
    model = tower(**fields)
    difference = save_sparse_encoder(model, tiny_tokenizer, tmp_path / "text")
    encoder = sentence_transformers.SparseEncoder(str(tmp_path / "text"), device="cpu")
    theirs = encoder.encode(CAPTIONS).to_dense().numpy()
    ours = model.encode_text(CAPTIONS, tiny_tokenizer, precision="fp32").toarray()
    np.testing.assert_allclose(ours, theirs, atol=5e-6)
    assert np.array_equal(ours > 0, theirs > 0) and difference < 5e-6
    assert (ours > 0).any(axis=1).all() and (ours > 0).sum(axis=1).max() <= fields.get("top_k", len(ours[0]))
    assert encoder.similarity_fn_name == "cosine" and sorted(path.name for path in tmp_path.iterdir()) == ["text"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"min_words": 3}, r"min_words.*\b3\b.*--drop-minimum"), ({"head_kind": "vdr"}, "'vdr'")],
    ids=["min_words", "vdr"],
)
def test_what_it_cannot_compute_is_refused(tiny_tokenizer, tmp_path, fields, message):
    with pytest.raises(ValueError, match=message):
        save_sparse_encoder(tower(**fields), tiny_tokenizer, tmp_path / "text")
    assert not list(tmp_path.iterdir())


def test_a_minimum_of_words_can_be_dropped(tiny_tokenizer, tmp_path):
    model = tower(min_words=60)
    save_sparse_encoder(model, tiny_tokenizer, tmp_path / "text", drop_minimum=True)
    theirs = sentence_transformers.SparseEncoder(str(tmp_path / "text"), device="cpu").encode(CAPTIONS).to_dense()
    assert model.lexical_head.min_words == 60
    assert ((model.encode_text(CAPTIONS, tiny_tokenizer).toarray() > 0).sum(axis=1) >= 60).all()
    model.lexical_head.min_words = 0
    ours = model.encode_text(CAPTIONS, tiny_tokenizer, precision="fp32").toarray()
    np.testing.assert_allclose(ours, theirs, atol=5e-6)
    assert ((ours > 0).sum(axis=1) < 60).any()


def test_words_below_a_threshold_are_refused(tiny_tokenizer, tmp_path):
    model = tower()
    model.lexical_head.limit_frequency(torch.randn(20, tiny.VOCABULARY), 0.5)
    with pytest.raises(ValueError, match=r"word_share\b.*\b0\.5\b"):
        save_sparse_encoder(model, tiny_tokenizer, tmp_path / "text")


def test_a_folder_that_holds_something_is_left_alone(tiny_tokenizer, tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=tmp_path.name):
        save_sparse_encoder(tower(), tiny_tokenizer, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]
