"""The lexicon: counts, masks, filters, ids and words, and what is saved of it."""

import copy
import json
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lexmotion.processing.lexicon import STOP_WORDS, Lexicon, _from_ranges, _to_ranges

CAPTIONS = [
    "a person walks forward",
    "a man walks and then jumps, jumps twice",
    "someone cartwheels to the left.",
    "a person kicks with the left leg",
]
few = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def lexicon(tiny_tokenizer):
    return Lexicon.from_corpus(CAPTIONS, tiny_tokenizer)


def id_of(lexicon, word):
    return lexicon.tokenizer.convert_tokens_to_ids(word)


def test_document_frequency_counts_captions_not_occurrences(lexicon):
    counts = {
        word: int(lexicon.document_frequency[id_of(lexicon, word)]) for word in ("walks", "jumps", "left", "run")
    }
    assert counts == {"walks": 2, "jumps": 1, "left": 2, "run": 0}
    assert lexicon.num_documents == 4
    assert lexicon.document_frequency.dtype == np.int64


def test_idf_is_smoothed_and_positive(lexicon):
    assert lexicon.idf[id_of(lexicon, "walks")] == pytest.approx(math.log(5 / 3) + 1)
    assert lexicon.idf[id_of(lexicon, "run")] == pytest.approx(math.log(5) + 1)
    assert lexicon.idf.dtype == np.float32 and lexicon.idf.min() >= 1


def test_masks(lexicon):
    def marked(mask):
        return {lexicon.word(id) for id in np.flatnonzero(mask)}

    assert marked(lexicon.special) >= {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused0]"}
    assert marked(lexicon.subword) == {"##wheel", "##s", "##ing", "##ls", "##ways", "##2"}
    assert {"a", "person", "man", "someone", "with", "then"} <= marked(lexicon.stop_word)
    assert marked(lexicon.motion_word) == {"walks", "forward", "jumps", "twice", "left", "kicks", "leg"}
    assert marked(lexicon.piece) >= {"cart", "##wheel", "##s"}  # of cartwheels; `cart` is no word of the corpus


def test_directions_sides_numbers_and_bodies_are_content():
    content = "left right up down forward backward back over under around out off through both one two twice again "
    content += "clockwise arm leg hand body slowly before after into onto away toward"
    assert not STOP_WORDS & set(content.split())


def test_filters(tiny_tokenizer, lexicon):
    by_filter = {name: Lexicon.from_corpus(CAPTIONS, tiny_tokenizer, name) for name in ("all", "words", "corpus")}
    assert set(by_filter["corpus"].active_ids) < set(by_filter["words"].active_ids) < set(by_filter["all"].active_ids)
    assert np.array_equal(by_filter["all"].active, ~lexicon.special)
    dropped = {lexicon.word(id) for id in np.flatnonzero(by_filter["all"].active & ~by_filter["words"].active)}
    assert dropped == {".", ",", "s", "2", "360", "é", "日", "a", "##2"}
    assert lexicon.word(id_of(lexicon, "##s")) == "##s" and lexicon.active[id_of(lexicon, "##s")]
    assert not lexicon.active[id_of(lexicon, "run")]


def test_minimum_frequency_and_extra_ids(tiny_tokenizer, lexicon):
    run = id_of(lexicon, "run")
    small = Lexicon.from_corpus(CAPTIONS, tiny_tokenizer, min_document_frequency=2, extra_ids=[run, run])
    assert {small.word(id) for id in small.active_ids} == {"person", "walks", "left", "the", "run"}
    assert small.motion_word[id_of(lexicon, "walks")] and not small.motion_word[run]


def test_active_ids_are_ascending(lexicon):
    assert np.array_equal(lexicon.active_ids, np.flatnonzero(lexicon.active))
    assert lexicon.num_active_words == len(lexicon.active_ids) and len(lexicon) == lexicon.vocab_size


def test_padded_vocabulary(tiny_tokenizer):
    lexicon = Lexicon.from_corpus(CAPTIONS, tiny_tokenizer, "all", vocab_size=len(tiny_tokenizer) + 10)
    assert lexicon.vocab_size == len(tiny_tokenizer) + 10
    assert lexicon.special[-10:].all()
    assert Lexicon.from_dict(lexicon.to_dict(), tiny_tokenizer) == lexicon
    with pytest.raises(ValueError, match=r"vocab_size.*\b10\b.*\b96\b"):
        Lexicon.from_corpus(CAPTIONS, tiny_tokenizer, vocab_size=10)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"vocabulary_filter": "nouns"}, "'nouns'.*all, words, corpus"),
        ({"min_document_frequency": 0}, r"min_document_frequency.*\b0\b"),
        ({"min_document_frequency": 9}, r"'corpus'.*min_document_frequency.*\b9\b.*\b4\b"),
        ({"extra_ids": [0]}, "'[PAD]'"),
        ({"extra_ids": [100_000]}, r"\b100000\b.*\b96\b"),
    ],
)
def test_wrong_arguments(tiny_tokenizer, arguments, message):
    with pytest.raises(ValueError, match=message.replace("[", r"\[")):
        Lexicon.from_corpus(CAPTIONS, tiny_tokenizer, **arguments)


def test_one_string_is_no_corpus(tiny_tokenizer):
    with pytest.raises(ValueError, match="'a person walks'.*list"):
        Lexicon.from_corpus("a person walks", tiny_tokenizer)


def test_empty_corpus_leaves_the_words_filter(tiny_tokenizer):
    lexicon = Lexicon.from_corpus([], tiny_tokenizer, "words")
    assert lexicon.num_documents == 0 and not lexicon.motion_word.any() and np.all(lexicon.idf == 1)


def test_pieces_are_merged_for_display(lexicon):
    ids = lexicon.ids("Someone cartwheels, walking")
    assert lexicon.words(ids) == ["someone", "cartwheels", ",", "walking"]
    assert lexicon.words([id_of(lexicon, "##ing")]) == ["ing"]
    with pytest.raises(ValueError, match=r"-1\b.*\b96\b"):
        lexicon.word(-1)


def test_content_ids(lexicon):
    caption = "A person walks and walks to the left, then runs"
    words = [lexicon.word(id) for id in lexicon.content_ids(caption)]
    assert words == ["walks", "left"]  # `runs` is not of the corpus
    assert lexicon.content_ids(caption) == lexicon.content_ids_of([caption, "", caption])[2]
    lexicon.content_ids(caption).clear()
    assert lexicon.content_ids(caption)  # the cache is not the caller's
    assert lexicon.content_ids("") == []


def test_bag_of_words(lexicon):
    bags = lexicon.bow_weights([["a person walks left", "walks"], ["a person"], []])
    walks, left = id_of(lexicon, "walks"), id_of(lexicon, "left")
    assert bags.shape == (3, lexicon.vocab_size) and bags.dtype == np.float32
    assert bags[0, walks] / bags[0, left] == pytest.approx(2 * lexicon.idf[walks] / lexicon.idf[left])
    assert bags[0].sum() == pytest.approx(1) and np.count_nonzero(bags[0]) == 2
    assert not bags[1:].any()


def test_top_words_hides_pieces_and_inactive_ids(lexicon):
    embeds = torch.zeros(2, lexicon.vocab_size)
    for word, weight in {"walks": 2.0, "##s": 9.0, "run": 8.0, "[CLS]": 7.0, "left": 1.0, "person": 3.0}.items():
        embeds[0, id_of(lexicon, word)] = weight
    assert lexicon.top_words(embeds, 2) == [[("person", 3.0), ("walks", 2.0)], []]
    assert lexicon.top_words(embeds[0].numpy(), 5, skip_stop_words=True) == [[("walks", 2.0), ("left", 1.0)]]


@pytest.mark.parametrize("k", [1, 2, 3, 50])
def test_ties_go_to_the_lower_id(lexicon, k):
    embeds = torch.full((1, lexicon.vocab_size), 0.5)
    words = [word for word, _ in lexicon.top_words(embeds, k)[0]]
    expected = [lexicon.word(id) for id in lexicon.active_ids if not lexicon.piece[id]][:k]
    assert words == expected


def test_top_words_refuses_other_shapes(lexicon):
    with pytest.raises(ValueError, match=r"\(1, 3\).*\(B, 96\)"):
        lexicon.top_words(torch.zeros(1, 3), 2)
    with pytest.raises(ValueError, match=r"\bk\b.*\b0\b"):
        lexicon.top_words(torch.zeros(1, lexicon.vocab_size), 0)


def test_description_is_small_json(lexicon):
    text = json.dumps(lexicon.to_dict())
    assert len(text) < 800
    assert json.loads(text) == lexicon.to_dict()


def test_description_of_another_tokenizer_is_refused(lexicon):
    from transformers import BertTokenizer

    tokens = lexicon.tokenizer.convert_ids_to_tokens(list(range(len(lexicon))))
    tokens[20], tokens[21] = tokens[21], tokens[20]
    other = BertTokenizer(vocab={token: id for id, token in enumerate(tokens)})
    with pytest.raises(ValueError, match=r"BertTokenizer.*\b96\b"):
        Lexicon.from_dict(lexicon.to_dict(), other)


def test_changed_or_broken_description_is_refused(lexicon, tiny_tokenizer):
    content = lexicon.to_dict()
    with pytest.raises(ValueError, match=r"hash.*\b[0-9a-f]{64}\b.*\b[0-9a-f]{64}\b.*\bhash\b"):
        Lexicon.from_dict({**content, "num_documents": 99}, tiny_tokenizer)
    del content["active_ids"]
    with pytest.raises(ValueError, match=r"'active_ids'.*Lexicon\.to_dict"):
        Lexicon.from_dict(content, tiny_tokenizer)


def test_copies_and_pickles_are_equal(lexicon):
    assert copy.deepcopy(lexicon) is lexicon
    again = pickle.loads(pickle.dumps(lexicon))
    assert again == lexicon and hash(again) == hash(lexicon)
    assert again.content_ids("walks") == lexicon.content_ids("walks") != []
    assert "active of" in repr(lexicon)


@few
@given(st.sets(st.integers(0, 500)))
def test_ranges_round_trip(ids):
    ascending = np.array(sorted(ids), dtype=np.int64)
    assert np.array_equal(_from_ranges(_to_ranges(ascending)), ascending)


@few
@given(
    words=st.lists(
        st.lists(st.sampled_from(["a", "person", "walks", "jumps", "left", "cartwheels", "kneeling", "."]), max_size=6)
    ),
    vocabulary_filter=st.sampled_from(["all", "words"]),
)
def test_description_round_trips(tiny_tokenizer, words, vocabulary_filter):
    lexicon = Lexicon.from_corpus((" ".join(row) for row in words), tiny_tokenizer, vocabulary_filter)
    again = Lexicon.from_dict(json.loads(json.dumps(lexicon.to_dict())), tiny_tokenizer)
    assert again == lexicon and again.hash == lexicon.hash
    masks = ("special", "stop_word", "subword", "motion_word", "active")
    for name in ("document_frequency", "idf", "active_ids", *masks):
        assert np.array_equal(getattr(again, name), getattr(lexicon, name)), name


def test_hash_depends_on_the_corpus(lexicon, tiny_tokenizer):
    assert lexicon.hash == Lexicon.from_corpus(iter(CAPTIONS), tiny_tokenizer).hash
    assert lexicon.hash != Lexicon.from_corpus(CAPTIONS[:3], tiny_tokenizer).hash
    assert lexicon != "lexicon"


def _fast(model, pre_tokenizer, trainer):
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(model)
    core.pre_tokenizer = pre_tokenizer
    core.train_from_iterator(CAPTIONS * 20, trainer)
    special = {"pad_token": "<pad>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=core, **special)


def _other_tokenizers():
    from tokenizers import models, pre_tokenizers, trainers

    special = ["<pad>", "<unk>"]
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    prefixed = pre_tokenizers.ByteLevel(add_prefix_space=True)
    bpe = trainers.BpeTrainer(vocab_size=500, special_tokens=special, show_progress=False)
    unigram = trainers.UnigramTrainer(vocab_size=90, special_tokens=special, unk_token="<unk>", show_progress=False)
    return {
        "byte-level BPE (ModernBERT)": (models.BPE(), byte_level, bpe),
        "byte-level BPE with a space before (RoBERTa)": (models.BPE(), prefixed, bpe),
        "sentencepiece BPE": (models.BPE(unk_token="<unk>"), pre_tokenizers.Metaspace(), bpe),
        "sentencepiece unigram (T5)": (models.Unigram(), pre_tokenizers.Metaspace(), unigram),
    }


@pytest.mark.parametrize("kind", list(_other_tokenizers()))
@pytest.mark.parametrize("vocabulary_filter", ["corpus", "words", "all"])
def test_words_are_read_from_other_tokenizers(kind, vocabulary_filter):
    tokenizer = _fast(*_other_tokenizers()[kind])
    lexicon = Lexicon.from_corpus(CAPTIONS, tokenizer, vocabulary_filter)
    assert not lexicon.special[lexicon.active_ids].any()
    assert lexicon.words(lexicon.ids("a person walks left"))[-1] == "left"
    content = lexicon.words(lexicon.content_ids("a person kicks left"))
    assert content[-1] == "left" and ("unigram" in kind or content == ["kicks", "left"])
    assert not any("\u0120" in word or "\u2581" in word for word in lexicon.words(lexicon.active_ids))
    assert Lexicon.from_dict(lexicon.to_dict(), tokenizer) == lexicon
    weights = np.zeros(lexicon.vocab_size, np.float32)
    weights[lexicon.content_ids("a person kicks left")] = 1
    assert lexicon.top_words(weights)[0]
