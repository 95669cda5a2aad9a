"""What several rooms' tests share: a word-piece tokenizer of a few dozen words, made in memory."""

import pytest

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = """
a an the person man someone is and then while with his their in to of
walk walks walking run runs jump jumps kick kicks wave waves turn turns step steps sit sits stand stands raise raises
left right forward forwards backward backwards up down around over back both
arm arms leg legs hand hands foot feet head body knee knees
slowly quickly twice once three times in place circle clockwise
cart knee kneel side ways
"""
PIECES = ["##wheel", "##s", "##ing", "##ls", "##ways", "##2"]
ODD_TOKENS = [".", ",", "s", "2", "360", "é", "日"]


def tiny_vocabulary() -> list[str]:
    """Special tokens, unused places, words, continuations, and tokens that are no words."""
    return list(
        dict.fromkeys([*SPECIAL_TOKENS, *(f"[unused{i}]" for i in range(4)), *WORDS.split(), *PIECES, *ODD_TOKENS])
    )


@pytest.fixture(scope="session")
def tiny_tokenizer():
    """A BERT tokenizer over `tiny_vocabulary()`."""
    from transformers import BertTokenizer

    return BertTokenizer(vocab={token: id for id, token in enumerate(tiny_vocabulary())}, model_max_length=64)
