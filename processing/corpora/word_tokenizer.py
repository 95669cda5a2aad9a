"""A word-level WordPiece tokenizer from the captions themselves: no download, every frequent word one id."""

import string
from collections import Counter
from collections.abc import Iterable

from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from transformers import BertTokenizerFast

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# Endings that split an unseen inflection of a known word readably: "staggering" -> stagger ##ing.
CHARACTERS = string.ascii_lowercase + string.digits + ".,'-"
SUFFIXES = ("##s", "##es", "##ed", "##ing", "##er", "##ly", "##ward", "##wards")


def train_tokenizer(captions: Iterable[str], vocab_size: int = 8192, model_max_length: int = 128) -> BertTokenizerFast:
    """
    Build a lower-case BERT tokenizer whose vocabulary is the words of a corpus.

    Words enter by falling frequency, ties alphabetically, so the result depends on the captions only and not on their
    order. Unseen words fall into known words, common endings and single characters.

    Args:
        captions (`Iterable[str]`): training captions.
        vocab_size (`int`): upper bound on the vocabulary; special tokens, endings and characters always enter.
        model_max_length (`int`): stored with the tokenizer; longer captions are cut by `truncation=True`.

    Returns:
        `BertTokenizerFast`: `[PAD]` is 0, then `[UNK] [CLS] [SEP] [MASK]`.

    Raises:
        ValueError: there is no word in the captions.
    """
    normalizer, splitter = BertNormalizer(lowercase=True), BertPreTokenizer()
    counts: Counter[str] = Counter()
    for caption in captions:
        counts.update(word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(caption)))
    if not counts:
        raise ValueError(
            "The captions hold no word to build a tokenizer from: check the text files of the training split."
        )
    characters = sorted({*CHARACTERS, *(character for word in counts for character in word)})
    tokens = [*SPECIAL_TOKENS, *characters, *(f"##{character}" for character in characters), *SUFFIXES]
    fixed = dict.fromkeys(tokens)
    words = [word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])) if word not in fixed]
    kept = words[: max(vocab_size - len(fixed), 0)]
    vocabulary = {token: index for index, token in enumerate([*fixed, *kept])}
    return BertTokenizerFast(vocab=vocabulary, do_lower_case=True, model_max_length=model_max_length)
