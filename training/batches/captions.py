"""The captions of a batch: which are read, which words they contain, and which motions they are no negatives of."""

import numpy as np
import torch

from .corpus import TrainingCorpus
from .order import BatchRandom


def choose_captions(
    corpus: TrainingCorpus, rows: torch.Tensor, per_clip: int, random: BatchRandom | None
) -> torch.Tensor:
    """
    Indices of captions, `per_clip` for each row: a random one and those after it, around the clip's list.

    Returns:
        (B, per_clip) int64; a clip with fewer captions repeats them. Without `random`, the first ones.
    """
    counts = corpus.caption_counts[rows]
    first = torch.zeros_like(counts) if random is None else (random.uniform() * counts).long().clamp(max=counts - 1)
    return corpus.caption_starts[rows, None] + (first[:, None] + torch.arange(per_clip)) % counts[:, None]


class BagOfWords:
    """
    The content words of each clip's captions as a distribution: share of the captions with the word, times its IDF.

    Args:
        lexicon: `active`, `stop_word`, `special` masks and `idf`, arrays of size V.
    """

    def __init__(self, corpus: TrainingCorpus, lexicon):
        self.vocab_size = len(lexicon.idf)
        content = np.asarray(lexicon.active & ~lexicon.stop_word & ~lexicon.special)
        idf = np.asarray(lexicon.idf, dtype=np.float64)
        counts = corpus.caption_counts.numpy()
        clip_of_caption = np.repeat(np.arange(len(corpus)), counts)
        self.starts, self.sizes, self.words, self.weights = [], [], [], []
        for side in range(2):
            lengths = corpus.captions.lengths[side].numpy()
            first = int(corpus.captions.starts[side, 0])
            ids = corpus.captions.tokens[first : first + int(lengths.sum())].numpy()
            mask = content[ids]
            caption = np.repeat(np.arange(len(lengths)), lengths)[mask]
            once = np.unique(caption * self.vocab_size + ids[mask])  # a word counts once a caption
            caption, word = np.divmod(once, self.vocab_size)
            pairs, mentions = np.unique(clip_of_caption[caption] * self.vocab_size + word, return_counts=True)
            clip, word = np.divmod(pairs, self.vocab_size)
            weight = mentions / counts[clip] * np.maximum(idf[word], 1e-6)
            total = np.bincount(clip, weight, minlength=len(corpus))
            size = np.bincount(clip, minlength=len(corpus))
            self.starts.append(torch.from_numpy(np.cumsum(size) - size))
            self.sizes.append(torch.from_numpy(size))
            self.words.append(torch.from_numpy(word))
            self.weights.append(torch.from_numpy((weight / total[clip]).astype(np.float32)))

    def words_of(self, side: int = 0) -> list[list[int]]:
        """Content word ids of every clip; `side` 1 for the mirrored captions."""
        words, starts, sizes = (part[side].tolist() for part in (self.words, self.starts, self.sizes))
        return [words[start : start + size] for start, size in zip(starts, sizes, strict=True)]

    def batch(self, rows: torch.Tensor, mirrored: torch.Tensor) -> torch.Tensor:
        """(B, V) float32, rows sum to one; a clip without content words is a row of zeros."""
        bags = torch.zeros(len(rows), self.vocab_size)
        for side in range(2):
            chosen = (mirrored.long() == side).nonzero().squeeze(1)
            starts, sizes = self.starts[side][rows[chosen]], self.sizes[side][rows[chosen]]
            local = torch.arange(int(sizes.sum())) - torch.repeat_interleave(sizes.cumsum(0) - sizes, sizes)
            at = torch.repeat_interleave(starts, sizes) + local
            bags[torch.repeat_interleave(chosen, sizes), self.words[side][at]] = self.weights[side][at]
        return bags


class Relatives:
    """
    Ids that a caption shares with the motions it may describe as well as its own: such pairs are no negatives.

    They are the motions of the same source (sub-ranges, the mirror twin, where the caption does not tell left from
    right or both are turned the same way), and those of which any caption, chosen or not, is this one word for word.

    Args:
        corpus: its `base_ids` say what comes from one source; an id that begins with `M` is a mirror twin's.
    """

    def __init__(self, corpus: TrainingCorpus):
        self.corpus = corpus
        self.twin = torch.tensor([name.startswith("M") for name in corpus.ids])
        self.most_captions = int(corpus.caption_counts.max())

    def of_texts(self, rows: torch.Tensor, mirrored: torch.Tensor, captions: torch.Tensor) -> torch.Tensor:
        """rows (B,), mirrored (B,) bool, captions (B, C) indices -> (B * C, 2) int64."""
        hashes = self.corpus.captions.hashes[:, captions]  # (2, B, C)
        one_sided = hashes[0] != hashes[1]
        turned = (mirrored ^ self.twin[rows])[:, None].long()
        source = 3 * self.corpus.base_ids[rows, None] + one_sided * (1 + turned)
        own = torch.where(mirrored[:, None], hashes[1], hashes[0])
        return torch.stack([source, own], dim=-1).flatten(0, 1)

    def of_motions(self, rows: torch.Tensor, mirrored: torch.Tensor) -> torch.Tensor:
        """rows (B,), mirrored (B,) bool -> (B, 2 + most captions of a clip) int64."""
        captions = choose_captions(self.corpus, rows, self.most_captions, None)
        hashes = self.corpus.captions.hashes[mirrored.long()[:, None], captions]
        source = 3 * self.corpus.base_ids[rows]
        turned = (mirrored ^ self.twin[rows]).long()
        return torch.cat([source[:, None], (source + 1 + turned)[:, None], hashes], dim=1)
