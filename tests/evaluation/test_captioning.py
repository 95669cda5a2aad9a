"""Metrics of captioning: hand counts, the scorers of pycocoevalcap called directly, tokenisation, missing packages."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocoevalcap.cider.cider import Cider

from lexmotion.evaluation.metrics import captioning
from lexmotion.evaluation.metrics.captioning import evaluate_captions

PREDICTIONS = ["a person walks forward", "a man kicks with the left leg", "someone jumps"]
REFERENCES = [
    ["a person walks forward slowly", "the man walks"],
    ["a man kicks with his left foot"],
    ["someone jumps up and down", "a person jumps", "jumping jacks"],
]


def test_bleu_is_the_hand_count():
    found = evaluate_captions(["the the the cat"], [["the cat sat", "a cat is here now"]])
    # "the" counts once and "cat" once of four words; bigrams: "the cat" of three; no trigram. Closest length is 3.
    assert found["BLEU_1"] == pytest.approx(2 / 4)
    assert found["BLEU_2"] == pytest.approx(math.sqrt(2 / 4 * 1 / 3))
    assert found["BLEU_3"] == pytest.approx(0, abs=1e-4)
    short = evaluate_captions(["the cat"], [["the cat sat down"]])
    assert short["BLEU_1"] == pytest.approx(math.exp(1 - 4 / 2))  # all right, half as long


def test_rouge_is_the_hand_count():
    found = evaluate_captions(["a man walks"], [["a tall man runs and walks"]])["ROUGE_L"]
    precision, recall, weight = 3 / 3, 3 / 6, 1.2**2
    assert found == pytest.approx((1 + weight) * precision * recall / (recall + weight * precision))


def test_cider_is_that_of_pycocoevalcap():
    found = evaluate_captions(PREDICTIONS, REFERENCES)
    expected, _ = Cider().compute_score(dict(enumerate(REFERENCES)), {i: [text] for i, text in enumerate(PREDICTIONS)})
    assert found["CIDEr"] == pytest.approx(expected) and found["CIDEr"] > 0
    protocol = {"tokenizer": "whitespace", "implementation": "pycocoevalcap", "num_captions": 3, "num_references": 6}
    assert {name: found[name] for name in protocol} == protocol and found["num_empty"] == 0
    assert json.loads(json.dumps(found)) == found


def test_the_tokenizer_decides():
    predictions, references = ["A man walks.", "He kicks!"], [["a man walks"], ["he kicks, then rests"]]
    as_it_stands = evaluate_captions(predictions, references)
    words = evaluate_captions(predictions, references, tokenizer="words")
    assert as_it_stands["BLEU_1"] < words["BLEU_1"] and words["tokenizer"] == "words"

    def first_letters(text):
        return [word[0] for word in text.lower().split()]

    own = evaluate_captions(predictions, references, tokenizer=first_letters)
    assert own["tokenizer"] == "first_letters" and own["BLEU_1"] == pytest.approx(words["BLEU_1"])


def test_an_empty_prediction_counts_as_nothing():
    found = evaluate_captions(["", *PREDICTIONS[1:]], REFERENCES)
    assert found["num_empty"] == 1 and found["ROUGE_L"] < evaluate_captions(PREDICTIONS, REFERENCES)["ROUGE_L"]
    assert evaluate_captions(["", ""], REFERENCES[:2])["BLEU_1"] == 0


def test_cider_of_one_caption_warns(monkeypatch):
    said = []
    monkeypatch.setattr(captioning.logger, "warning", said.append)
    assert evaluate_captions(PREDICTIONS[:1], REFERENCES[:1])["CIDEr"] == 0
    assert "CIDEr" in said[0]


TEXT = st.lists(st.sampled_from(["a", "man", "walks", "kicks", "left", "right"]), min_size=1, max_size=6).map(" ".join)
CORPUS = st.lists(st.tuples(TEXT, st.lists(TEXT, min_size=1, max_size=3)), min_size=2, max_size=5)


@settings(max_examples=25, deadline=None)
@given(CORPUS, st.randoms(use_true_random=False))
def test_order_does_not_matter(corpus, random):
    names = ("BLEU_1", "BLEU_4", "ROUGE_L", "CIDEr")
    before = evaluate_captions(*map(list, zip(*corpus, strict=True)))
    shuffled = [(text, random.sample(group, len(group))) for text, group in random.sample(corpus, len(corpus))]
    after = evaluate_captions(*map(list, zip(*shuffled, strict=True)))
    np.testing.assert_allclose([after[name] for name in names], [before[name] for name in names], rtol=1e-9)


@pytest.mark.parametrize(
    ("predictions", "references", "options", "message"),
    [
        ([], [], {}, "predictions"),
        (["a"], [["a"], ["b"]], {}, r"\b1 predictions\b.*\b2\b"),
        (["a", "b"], [["a"], []], {}, r"(?i)caption 1\b"),
        (["a"], [["..."]], {"tokenizer": "words"}, r"(?i)caption 0\b.*'\.\.\.'"),
        (["a"], ["a man"], {}, r"(?i)references 0\b.*\['a man'\].*'a man'"),
        ([3], [["a"]], {}, r"(?i)prediction 0\b.*\bint\b"),
        ("a man", [["a"]], {}, "list of lists"),
        (["a"], [["a"]], {"tokenizer": "ptb"}, "'ptb'.*whitespace.*words"),
        (["a"], [["a"]], {"bertscore_model": "roberta-large"}, "'roberta-large'.*save_pretrained"),
    ],
)
def test_errors_say_what_to_do(predictions, references, options, message):
    with pytest.raises(ValueError, match=message):
        evaluate_captions(predictions, references, **options)


@pytest.mark.parametrize(("package", "options"), [("pycocoevalcap", {}), ("bert_score", {"bertscore_model": "."})])
def test_a_missing_package_names_the_extra(monkeypatch, package, options):
    monkeypatch.setattr(captioning.importlib.util, "find_spec", lambda name: None if name == package else name)
    with pytest.raises(ImportError, match=r"pip install 'lexmotion\[captioning\]'"):
        evaluate_captions(PREDICTIONS, REFERENCES, **options)


@pytest.fixture
def bert(tmp_path):
    """A folder with a tiny random BERT; returns a function that gives it a name and a length limit."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    def make(name="tiny", **limit):
        words = sorted({word for text in [*PREDICTIONS, *sum(REFERENCES, [])] for word in text.split()})
        vocabulary = {word: place for place, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words])}
        BertTokenizer(vocab=vocabulary, **limit).save_pretrained(tmp_path / name)
        torch.manual_seed(0)
        layers = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 16}
        BertModel(BertConfig(vocab_size=len(vocabulary), **layers)).save_pretrained(tmp_path / name)
        return tmp_path / name

    return make


def test_bertscore_with_a_local_model(bert):
    folder = bert(model_max_length=64)
    found = evaluate_captions(PREDICTIONS, REFERENCES, bertscore_model=folder)
    same = evaluate_captions([group[0] for group in REFERENCES], REFERENCES, bertscore_model=str(folder))
    assert 0 < found["BERTScore"] < same["BERTScore"] == pytest.approx(1, abs=1e-5)
    assert (found["bertscore_model"], found["bertscore_layers"], found["bertscore_rescaled"]) == ("tiny", 2, False)
    empty = evaluate_captions(["", *PREDICTIONS[1:]], REFERENCES, bertscore_model=folder, bertscore_layers=1)
    assert empty["BERTScore"] < 2 / 3 + 1e-6 and empty["bertscore_layers"] == 1


def test_bertscore_is_rescaled_where_a_baseline_is_known(bert):
    plain = evaluate_captions(PREDICTIONS, REFERENCES, bertscore_model=bert(model_max_length=64), bertscore_layers=1)
    named = bert("bert-base-uncased", model_max_length=64)
    found = evaluate_captions(PREDICTIONS, REFERENCES, bertscore_model=named, bertscore_layers=1)
    assert found["bertscore_rescaled"] and found["BERTScore"] < plain["BERTScore"]


def test_bertscore_needs_a_length_limit(bert):
    with pytest.raises(ValueError, match="tiny.*model_max_length"):
        evaluate_captions(PREDICTIONS, REFERENCES, bertscore_model=bert())
