"""The encoding benchmark compares like with like, and notices when it does not."""

import numpy as np
import pytest

from lexmotion.evaluation.benchmarks import encode
from lexmotion.evaluation.benchmarks.harness import DisagreementError

TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


@pytest.fixture
def tiny(monkeypatch):
    """Random weights of tiny towers, as where MiniLM is not installed."""

    def missing(_):
        raise ImportError

    monkeypatch.setattr(encode, "resolve_text_model", missing)
    monkeypatch.setattr(encode, "MINILM", TINY | {"vocab_size": 400})
    monkeypatch.setattr(encode, "SMALL", TINY | {"vocab_size": 400, "word_embedding_size": 16})


def test_every_case_agrees(tiny):
    found = encode.cases(captions=7, motions=5, batch=2, active=20)
    assert [(case.name, case.work) for case in found] == [
        (f"{kind}, {precision}", count)
        for kind, count in (("captions", 7), ("motions", 5))
        for precision in ("float32", "bfloat16", "default precision, baseline float32")
    ] + [(f"motions, 4 views, {name}", 5) for name in ("float32", "default precision, baseline float32")]
    for case in found:
        exact = case.name.endswith(", float32") and "views" not in case.name
        assert ("weights to" if exact else "cosine") in case.agree(case.ours(), case.plain())


def test_other_vectors_are_noticed(tiny):
    for case in encode.cases(captions=4, motions=0, batch=2, active=20):
        ours = case.ours()
        with pytest.raises(DisagreementError):
            case.agree(ours[::-1], case.plain())


def test_sizes_are_what_was_asked_for(tiny):
    texts = encode._captions(50, "")
    assert len(set(texts)) == 50 and texts == encode._captions(50, "")
    model, tokenizer = encode._text_model(texts, words=60, active=12)
    vectors = model.encode_text(texts, tokenizer, precision="fp32")
    assert model.lexical_head.active_ids.numel() == 60
    assert np.diff(vectors.indptr).mean() == pytest.approx(12, abs=1)


def test_captions_come_from_a_file_too(tmp_path):
    path = tmp_path / "captions.txt"
    path.write_text("a person walks\n\nsomeone jumps\na third\n")
    assert encode._captions(2, str(path)) == ["a person walks", "someone jumps"]
