"""Words that the tokenizer cuts, added to it as whole words, and word pieces kept out of what is shown and learned."""

import copy
import json

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, BertTokenizer

from lexmotion.encoding_lexmotion import tokenizer_hash
from lexmotion.processing.corpora.fitting import caption_lexicon
from lexmotion.processing.corpora.options import PrepareOptions
from lexmotion.processing.corpora.whole_words import add_whole_words, whole_words
from lexmotion.processing.lexicon import Lexicon
from lexmotion.processing.text_mirroring import mirror_caption

CAPTIONS = [
    "a person cartwheels to the left",
    "A man Cartwheels, then walks sideways.",
    "someone walks sideways and kicks",
    "a person jumps sidewaysing",
]


@pytest.fixture
def tokenizer(tiny_tokenizer):
    return copy.deepcopy(tiny_tokenizer)


def extended(tokenizer, min_captions=2):
    return add_whole_words(tokenizer, CAPTIONS, map(mirror_caption, CAPTIONS), min_captions)


def tokens(tokenizer, text):
    return tokenizer.convert_ids_to_tokens(tokenizer(text, add_special_tokens=False)["input_ids"])


def test_frequent_cut_words_become_whole_words_after_the_others(tokenizer):
    size, before = len(tokenizer), tokenizer_hash(tokenizer)
    assert tokens(tokenizer, "cartwheels") == ["cart", "##wheel", "##s"]
    assert extended(tokenizer) == ["cartwheels", "sideways"]
    assert tokenizer.convert_tokens_to_ids(["cartwheels", "sideways"]) == [size, size + 1]
    assert tokenizer_hash(tokenizer, size) == before != tokenizer_hash(tokenizer)
    pieces = tokenizer.convert_tokens_to_ids(["cart", "##wheel", "##s"])
    assert whole_words(tokenizer) == whole_words(tokenizer, size) and whole_words(tokenizer)[size] == pieces
    assert list(whole_words(tokenizer, size + 1)) == [size + 1]
    assert extended(tokenizer) == []  # they are no longer cut


def test_whole_words_are_matched_in_any_case_and_only_as_complete_words(tokenizer):
    before = {word: tokens(tokenizer, word) for word in ("sidewaysing", "cartwheelsing", "kickssideways")}
    extended(tokenizer)
    assert tokens(tokenizer, "He CARTWHEELS, cártwheels-sideways.")[-6:] == (
        ["cartwheels", ",", "cartwheels"] + tokens(tokenizer, "-") + ["sideways", "."]
    )
    assert {word: tokens(tokenizer, word) for word in before} == before


def test_they_survive_saving_and_every_way_of_loading(tokenizer, tmp_path):
    from tokenizers import Tokenizer

    extended(tokenizer)
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer_hash(again) == tokenizer_hash(tokenizer) and whole_words(again) == whole_words(tokenizer)
    for text in (*CAPTIONS, "cartwheels sidewaysing"):
        ids = tokenizer(text)["input_ids"]
        assert again(text)["input_ids"] == ids
        assert Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode(text).ids == ids


def test_words_of_mirrored_captions_become_whole_too():
    words = "[PAD] [UNK] [CLS] [SEP] [MASK] turns clockwise counter ##cl ##ock ##wise left"
    tokenizer = BertTokenizer(vocab={word: id for id, word in enumerate(words.split())})
    captions = ["turns clockwise", "turns Clockwise left"]
    mirrored = [mirror_caption(caption) for caption in captions]
    lexicon = caption_lexicon(captions, mirrored, tokenizer, "corpus", 1)
    assert lexicon.words(lexicon.content_ids(captions[0])) == ["turns", "clockwise"]
    assert lexicon.words(lexicon.content_ids(mirrored[0])) == ["turns"]
    assert lexicon.active[tokenizer.convert_tokens_to_ids("##ock")]
    assert not lexicon.displayed[tokenizer.convert_tokens_to_ids(["counter", "##ock"])].any()
    assert add_whole_words(tokenizer, captions, mirrored, 2) == ["counterclockwise"]
    lexicon = caption_lexicon(captions, mirrored, tokenizer, "corpus", 1)
    assert lexicon.words(lexicon.content_ids(mirrored[0])) == ["turns", "counterclockwise"]


def test_words_of_other_tokenizers_cannot_be_added(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel()
    with pytest.raises(ValueError, match=r"whole_words: got 2 .*BPE.*pass 0"):
        add_whole_words(PreTrainedTokenizerFast(tokenizer_object=core), CAPTIONS, CAPTIONS, 2)
    with pytest.raises(ValueError, match=r"whole_words: got -1"):
        PrepareOptions(whole_words=-1)


def lexicon_of(tokenizer):
    return caption_lexicon(CAPTIONS, [mirror_caption(text) for text in CAPTIONS], tokenizer, "corpus", 1)


@pytest.mark.parametrize("whole", [False, True], ids=["cut", "whole"])
def test_no_word_piece_is_displayed_or_in_a_bag_of_words(tokenizer, whole):
    if whole:
        extended(tokenizer)
    lexicon = lexicon_of(tokenizer)
    everything = torch.ones(lexicon.vocab_size)
    shown = {word for word, _ in lexicon.top_words(everything, lexicon.vocab_size)[0]}
    bags = lexicon.bow_weights([[caption] for caption in CAPTIONS])
    words = {lexicon.word(id) for id in np.flatnonzero(bags.any(axis=0))}
    for found in (shown, words):
        assert not any(word.startswith("##") for word in found) and not found & {"cart", "side"}
        assert ("cartwheels" in found) == whole and {"walks", "kicks"} <= found
    # Word pieces stay in the space, since captions are read with them.
    assert lexicon.active[tokenizer.convert_tokens_to_ids("##ing")]
    assert ("cartwheels" in [lexicon.word(id) for id in lexicon.content_ids(CAPTIONS[0])]) == whole


def test_a_word_that_is_also_the_beginning_of_a_cut_word_counts_only_where_it_is_whole(tiny_tokenizer):
    lexicon = Lexicon.from_corpus(["a cart", "someone cartwheels"], tiny_tokenizer)
    cart = tiny_tokenizer.convert_tokens_to_ids("cart")
    assert lexicon.displayed[cart] and lexicon.content[cart]
    assert lexicon.content_ids("a cart") == [cart] and lexicon.content_ids("cartwheels") == []
    ids = np.array(tiny_tokenizer(["a cart", "cartwheels"])["input_ids"][1])
    assert not lexicon.content_tokens(ids).any()


def test_lexicons_of_earlier_versions_are_unchanged(tiny_tokenizer):
    new = lexicon_of(tiny_tokenizer)
    saved = {name: value for name, value in new.to_dict().items() if name not in ("piece_ids", "hash")}
    old = Lexicon.from_dict(saved, tiny_tokenizer)
    assert old.piece_ids is None and "piece_ids" not in old.to_dict() and old.hash != new.hash
    names = ["cart", "##wheel", "##s"]
    assert [old.word(id) for id in old.content_ids("cartwheels")] == names
    assert old.motion_word[tiny_tokenizer.convert_tokens_to_ids("cart")]
    again = Lexicon.from_dict(json.loads(json.dumps(old.to_dict())), tiny_tokenizer)
    assert again == old and np.array_equal(again.content, old.content)
    assert Lexicon.from_dict(json.loads(json.dumps(new.to_dict())), tiny_tokenizer) == new


def test_impossible_pieces_are_refused(tiny_tokenizer):
    content = {name: value for name, value in lexicon_of(tiny_tokenizer).to_dict().items() if name != "hash"}
    with pytest.raises(ValueError, match=r"piece_ids: got 5000\b.*\b96\b"):
        Lexicon.from_dict({**content, "piece_ids": "5000"}, tiny_tokenizer)
