"""Word-level WordPiece tokenizer trained on the captions: no download, one id per frequent word."""

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

    Words are added by decreasing frequency, ties alphabetically, so the result is independent of the caption order.
    Unseen words are split into known words, common endings and single characters.

    Args:
        captions: training captions.
        vocab_size: maximum vocabulary size; special tokens, endings and characters are always included.
        model_max_length: saved with the tokenizer; `truncation=True` truncates captions to it.

    Returns:
        tokenizer with `[PAD]` as id 0, followed by `[UNK] [CLS] [SEP] [MASK]`.

    Raises:
        ValueError: if the captions contain no words.
    """
    normalizer, splitter = BertNormalizer(lowercase=True), BertPreTokenizer()
    counts: Counter[str] = Counter()
    for caption in captions:
        counts.update(word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(caption)))
    if not counts:
        raise ValueError(
            "captions: got no words to build a tokenizer from; check the text files of the training split"
        )
    characters = sorted({*CHARACTERS, *(character for word in counts for character in word)})
    tokens = [*SPECIAL_TOKENS, *characters, *(f"##{character}" for character in characters), *SUFFIXES]
    fixed = dict.fromkeys(tokens)
    words = [word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])) if word not in fixed]
    kept = words[: max(vocab_size - len(fixed), 0)]
    vocabulary = {token: index for index, token in enumerate([*fixed, *kept])}
    return BertTokenizerFast(vocab=vocabulary, do_lower_case=True, model_max_length=model_max_length)
