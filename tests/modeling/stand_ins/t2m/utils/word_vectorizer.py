"""Stand-in for T2M's table of word vectors: random ones, float64, under the same name and names."""

import numpy as np

POS_enumerator = {"VERB": 0, "NOUN": 1, "OTHER": 2}
WORDS = ("sos", "eos", "unk", "a", "person", "walks", "forward", "cartwheel", "left", "jump")


class WordVectorizer:
    def __init__(self, meta_root, prefix):
        vectors = np.random.default_rng(0).normal(size=(len(WORDS), 300))
        self.word2vec = dict(zip(WORDS, vectors, strict=True))

    def __getitem__(self, item):
        word, pos = item.split("/")
        one_hot = np.zeros(len(POS_enumerator))
        one_hot[POS_enumerator.get(pos, 2)] = 1
        return self.word2vec.get(word, self.word2vec["unk"]), one_hot
