"""
Text encoder for T2M (Guo et al., CVPR 2022), whose generator receives word vectors instead of captions.

Its data loader looks up a GloVe vector for every word. The inverse of that table recovers the words for LexMotion; the
rest of T2M (motion length estimator, evaluator) keeps its vectors.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from .text_conditioner import LexMotionTextConditioner


class T2MTextEncoder(nn.Module):
    """
    Replacement of T2M's recurrent text encoder: frozen word and sentence states, two trained linear maps.

    Args:
        conditioner: text encoder; not trained, and registered as `clip_model`.
        word_vectors: word -> vector, the table of the data loader (`WordVectorizer.word2vec`).
        hidden_size: width per direction of the replaced recurrent encoder; states are twice as wide.
        unknown: word whose vector stands for all words missing from the table.

    Raises:
        ValueError: if the table is empty or its vectors differ in width.
    """

    def __init__(
        self,
        conditioner: LexMotionTextConditioner,
        word_vectors: Mapping[str, np.ndarray],
        hidden_size: int = 512,
        unknown: str = "unk",
    ):
        super().__init__()
        table = {word: np.asarray(vector, dtype=np.float32) for word, vector in word_vectors.items()}
        shapes = {vector.shape for vector in table.values()}
        if len(shapes) != 1 or len(next(iter(shapes))) != 1:
            raise ValueError(f"word_vectors: got shapes {sorted(shapes)}; pass vectors of one width")
        self.clip_model = conditioner
        self.words: dict[bytes, str] = {}
        for word, vector in table.items():
            self.words.setdefault(vector.tobytes(), conditioner.tokenizer.unk_token if word == unknown else word)
        config = conditioner.config
        self.word_head = nn.Linear(config.text_config.hidden_size, 2 * hidden_size)
        self.sentence_head = nn.Linear(config.dim or config.text_config.vocab_size, 2 * hidden_size)

    def forward(
        self, word_embs: torch.Tensor, pos_onehot: torch.Tensor, cap_lens: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Encode captions given as word vectors.

        Args:
            word_embs: (B, T, W) vectors from the table: start, words, end, padding.
            pos_onehot: parts of speech, ignored, since the text tower infers them from the sentence.
            cap_lens: (B,) words per caption, including start and end.

        Returns:
            word states (B, max(cap_lens), 2 * hidden_size), zero in the padding, and sentence states
            (B, 2 * hidden_size).

        Raises:
            ValueError: if a vector is not in the table.
        """
        sentences = self.read(word_embs, cap_lens)
        states, mask, sentence = self.clip_model.encode_words(sentences)
        dtype = self.word_head.weight.dtype
        return self.word_head(states.to(dtype)) * mask[..., None], self.sentence_head(sentence.to(dtype))

    def read(self, word_embs: torch.Tensor, cap_lens: torch.Tensor) -> list[list[str]]:
        """Return the words between start and end, from vectors as in `forward`."""
        vectors = word_embs.detach().float().cpu().numpy()
        sentences: list[list[str]] = []
        for row, length in zip(vectors, torch.as_tensor(cap_lens).tolist(), strict=True):
            words = [self.words.get(vector.tobytes()) for vector in row[1 : length - 1]]
            if None in words:
                raise ValueError(
                    f"word {words.index(None) + 1} of caption {len(sentences)}: its vector is not in the table; "
                    "build T2MTextEncoder with the table of the data loader (WordVectorizer.word2vec)"
                )
            sentences.append([word for word in words if word is not None])
        return sentences


__all__ = ["T2MTextEncoder"]
