"""Captions of a batch: their choice, their content words, and the motions that are not their negatives."""

import numpy as np
import torch
from torch import Tensor

from .corpus import TrainingCorpus
from .order import BatchRandom


def choose_captions(corpus: TrainingCorpus, rows: Tensor, per_clip: int, random: BatchRandom | None) -> Tensor:
    """
    Choose captions of each row: a random one and those after it, cyclically; without `random`, the first ones.

    Returns:
        (B, per_clip) int64 indices; a clip with fewer captions repeats them.
    """
    counts = corpus.caption_counts[rows]
    first = torch.zeros_like(counts) if random is None else (random.uniform() * counts).long().clamp(max=counts - 1)
    return corpus.caption_starts[rows, None] + (first[:, None] + torch.arange(per_clip)) % counts[:, None]


class BagOfWords:
    """
    Content words of each clip's captions as a distribution: share of the captions with the word, times its IDF.

    Args:
        lexicon: the processor's `Lexicon`, or an object with its `idf` and `content_tokens`.
    """

    def __init__(self, corpus: TrainingCorpus, lexicon):
        self.vocab_size = len(lexicon.idf)
        idf = np.asarray(lexicon.idf, dtype=np.float64)
        counts = corpus.caption_counts.numpy()
        clip_of_caption = np.repeat(np.arange(len(corpus)), counts)
        self.starts, self.sizes, self.words, self.weights = [], [], [], []
        for side in range(2):
            lengths = corpus.captions.lengths[side].numpy()
            first = int(corpus.captions.starts[side, 0])
            ids = corpus.captions.tokens[first : first + int(lengths.sum())].numpy()
            mask = lexicon.content_tokens(ids)
            caption = np.repeat(np.arange(len(lengths)), lengths)[mask]
            once = np.unique(caption * self.vocab_size + ids[mask])  # count a word once per caption
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
        """Return the content word ids of every clip; `side` 1: of the mirrored captions."""
        words, starts, sizes = (part[side].tolist() for part in (self.words, self.starts, self.sizes))
        return [words[start : start + size] for start, size in zip(starts, sizes, strict=True)]

    def batch(self, rows: Tensor, mirrored: Tensor) -> Tensor:
        """Return (B, V) float32; rows sum to one, or are zero for clips without content words."""
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
    Ids shared by captions and other motions they may describe, so that such pairs are not used as negatives.

    These are motions of the same source (sub-ranges; the mirror twin, unless the caption distinguishes left from right
    and the two are mirrored differently), and motions with an identical caption, chosen or not.

    Args:
        corpus: `base_ids` are equal for clips of one source; ids of mirror twins start with `M`.
    """

    def __init__(self, corpus: TrainingCorpus):
        self.corpus = corpus
        self.twin = torch.tensor([name.startswith("M") for name in corpus.ids])
        self.most_captions = int(corpus.caption_counts.max())

    def of_texts(self, rows: Tensor, mirrored: Tensor, captions: Tensor) -> Tensor:
        """Map rows (B,), mirrored (B,) bool and indices of captions (B, C) to ids (B * C, 2) int64."""
        hashes = self.corpus.captions.hashes[:, captions]  # (2, B, C)
        one_sided = hashes[0] != hashes[1]
        turned = (mirrored ^ self.twin[rows])[:, None].long()
        source = 3 * self.corpus.base_ids[rows, None] + one_sided * (1 + turned)
        own = torch.where(mirrored[:, None], hashes[1], hashes[0])
        return torch.stack([source, own], dim=-1).flatten(0, 1)

    def of_motions(self, rows: Tensor, mirrored: Tensor) -> Tensor:
        """Map rows (B,) and mirrored (B,) bool to ids (B, 2 + maximum captions per clip) int64."""
        captions = choose_captions(self.corpus, rows, self.most_captions, None)
        hashes = self.corpus.captions.hashes[mirrored.long()[:, None], captions]
        source = 3 * self.corpus.base_ids[rows]
        turned = (mirrored ^ self.twin[rows]).long()
        return torch.cat([source[:, None], (source + 1 + turned)[:, None], hashes], dim=1)
