"""
Batches as functions of the step: which rows, which crop, which mask.

Every random choice is drawn for the whole global batch from a generator seeded by (seed, phase, step), and each
process takes its rows. So a batch does not depend on what was trained before it, nor on how many processes share it:
that is what makes resuming exact and two processes equal to one.
"""

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lexmotion.processing.motion_features import mirror_positions

from .corpus import TrainingCorpus

MASK_KINDS = ("random", "tubes", "blocks")


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from anything printable; equal parts, equal seed, on every machine."""
    digest = hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class BatchRandom:
    """
    Uniform numbers for one global batch, of which this process sees its rows.

    Args:
        seed: of the generator.
        size: rows of the global batch.
        rank, world: this process takes rows rank, rank + world, ...
        rows: (size,) int64, the global batch itself, where an item is made from others too.
    """

    def __init__(self, seed: int, size: int, rank: int = 0, world: int = 1, rows: torch.Tensor | None = None):
        self.generator = torch.Generator().manual_seed(seed)
        self.size, self.rank, self.world, self.rows = size, rank, world, rows
        self.chosen: torch.Tensor | None = None

    def own(self, whole: torch.Tensor) -> torch.Tensor:
        """The rows of this process of a tensor of the global batch."""
        rows = whole[self.rank :: self.world]
        return rows if self.chosen is None else rows[self.chosen]

    def only(self, chosen: torch.Tensor) -> "BatchRandom":
        """
        The same for some rows of this process, (rows,) bool.

        It has a generator of its own: how much is drawn from it, if anything, changes nothing here.
        """
        part = copy.copy(self)
        part.generator = torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=self.generator)))
        part.chosen = chosen if self.chosen is None else self.chosen.nonzero().squeeze(1)[chosen]
        return part

    def uniform(self, *shape: int, whole: bool = False) -> torch.Tensor:
        """(rows of this process, *shape) float32 in [0, 1); `whole`: all rows, the same on every process."""
        draws = torch.rand(self.size, *shape, generator=self.generator)
        return draws if whole else self.own(draws)

    def normal(self, *shape: int) -> torch.Tensor:
        """(rows of this process, *shape) float32, standard normal."""
        return self.own(torch.randn(self.size, *shape, generator=self.generator))

    def partners(self) -> torch.Tensor:
        """(rows of this process,) int64 place in the global batch of another item; no two have the same partner."""
        shift = 1 + int(torch.rand((), generator=self.generator) * (self.size - 1))
        return self.own((torch.arange(self.size) + shift) % self.size)


class BatchOrder:
    """
    Which rows make the n-th global batch: a new permutation each epoch, the incomplete last batch dropped.

    With `bucket_batches` the permutation is cut into pools of so many batches; a pool's rows are sorted by length and
    cut into batches, which come in random order. Rows of like length need little padding, and what a pool holds, as
    well as the order among rows of equal length, still is the permutation's.

    Args:
        lengths: (R,) how long each row of the split is, in whatever padding costs.
        batch_size: rows of a global batch; at most R are used.
        world: processes; the batch is rounded down to a multiple of it.
        bucket_batches: batches of a pool; below 2 rows are not sorted.

    Raises:
        ValueError: fewer rows than processes.
    """

    def __init__(
        self,
        lengths: torch.Tensor,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        bucket_batches: int = 0,
    ):
        num_rows = len(lengths)
        self.batch_size = min(batch_size, num_rows) // world * world
        if self.batch_size == 0:
            raise ValueError(
                f"a global batch of {min(batch_size, num_rows)} rows cannot be split over {world} processes; raise "
                "batch_size or start fewer"
            )
        self.lengths, self.seed, self.rank, self.world = lengths, seed, rank, world
        self.bucket_batches = bucket_batches
        self.batches_per_epoch = num_rows // self.batch_size
        self._epoch, self._batches = -1, torch.empty(0, 0, dtype=torch.int64)

    def batch(self, number: int) -> torch.Tensor:
        """Rows of global batch `number` (0-based): (batch_size,) int64."""
        epoch, position = divmod(number, self.batches_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._batches = epoch, self._epoch_batches(epoch)
        return self._batches[position]

    def rows(self, number: int) -> torch.Tensor:
        """Those of this process: (batch_size / world,) int64."""
        return self.batch(number)[self.rank :: self.world]

    def _epoch_batches(self, epoch: int) -> torch.Tensor:
        """(batches, rows) of an epoch."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "order", epoch))
        rows = torch.randperm(len(self.lengths), generator=generator)[: self.batches_per_epoch * self.batch_size]
        batches = rows.view(self.batches_per_epoch, self.batch_size)
        if self.bucket_batches < 2:
            return batches
        pool = torch.arange(self.batches_per_epoch) // self.bucket_batches
        order = np.lexsort((self.lengths[rows].numpy(), pool.repeat_interleave(self.batch_size).numpy()))
        batches = rows[torch.from_numpy(order)].view_as(batches)
        shuffled = (pool + torch.rand(len(pool), generator=generator, dtype=torch.float64)).argsort()
        return batches[shuffled]


@dataclass
class ClipSampler:
    """
    Clips as the motion tower wants them, varied by mirror, crop, speed and jitter, or as recorded.

    Args:
        feature_extractor: its `values_from_positions` canonicalises, converts and normalises a batch.
        mirror_probability, crop_ratio, speed_range, position_jitter, feature_noise: see `DataArguments`.
        frame_multiple: batches are padded to a multiple of this many frames (the tower's window).

    There is no random turn about the vertical: every representation is told from the direction the body faces, so it
    would change nothing.
    """

    feature_extractor: Any
    mirror_probability: float = 0.5
    crop_ratio: float = 0.8
    speed_range: float = 0.1
    position_jitter: float = 0.0
    frame_multiple: int = 1
    feature_noise: float = 0.0

    @property
    def longest(self) -> int:
        """Frames of a clip that the extractor uses at most: features lose one."""
        return self.feature_extractor.max_frames + (self.feature_extractor.representation != "positions")

    def frames(self, kept: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        """(B,) int64 frames of the extractor in `kept` recorded ones, `step` apart."""
        return (((kept - 1) / step + 1e-6).floor().long() + 1).clamp(max=self.longest)

    def windows(self, corpus: TrainingCorpus) -> torch.Tensor:
        """(R,) int64 windows of `frame_multiple` frames in every clip as recorded: what its place in a batch costs."""
        frames = self.frames(corpus.lengths, corpus.fps.double() / self.feature_extractor.fps)
        return -(-(frames - self.longest + self.feature_extractor.max_frames) // self.frame_multiple)

    def mirrored(self, random: BatchRandom, whole: bool = False) -> torch.Tensor:
        """(B,) bool: which clips are mirrored, together with their captions; `whole`: of the global batch."""
        return random.uniform(whole=whole) < self.mirror_probability

    def positions(
        self, corpus: TrainingCorpus, rows: torch.Tensor, mirrored: torch.Tensor, random: BatchRandom | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Joint positions at the extractor's frame rate, and their lengths.

        Args:
            rows: (B,) int64. mirrored: (B,) bool.
            random: source of crop, speed and jitter; None takes the start of the clip as recorded.

        Returns:
            (B, T, J, 3) float32, the last pose repeated after the end, and (B,) int64.
        """
        extractor = self.feature_extractor
        available = corpus.lengths[rows]
        step = corpus.fps[rows].double() / extractor.fps
        start = torch.zeros_like(step)
        kept = available.double()
        if random is not None:
            draws = random.uniform(3).double()
            if self.speed_range > 0:
                step = step * (1.0 - self.speed_range + 2.0 * self.speed_range * draws[:, 0])
            needed = extractor.min_frames + self.longest - extractor.max_frames
            least = torch.minimum(available, ((needed - 1) * step).ceil() + 1)
            kept = available * (self.crop_ratio + (1.0 - self.crop_ratio) * draws[:, 1])
            kept = torch.maximum(torch.minimum(kept.floor(), 1 + ((self.longest - 1) * step).ceil()), least)
            start = ((available - kept) * draws[:, 2]).round()
        lengths = self.frames(kept, step)
        frame = torch.minimum(torch.arange(int(lengths.max())), lengths[:, None] - 1)
        at = start[:, None] + frame * step[:, None]
        last = available[:, None] - 1
        before = torch.minimum(at.long(), last)
        share = (at - before).clamp(0.0, 1.0).float()
        # Whole frames side by side: selecting rows copies memory, indexing (B, T) goes number by number.
        frames, first = corpus.frames.flatten(1), corpus.offsets[rows, None]
        positions = frames.index_select(0, (first + before).flatten())
        if bool(share.any()):
            after = torch.minimum(before + 1, last)
            positions.lerp_(frames.index_select(0, (first + after).flatten()), share.view(-1, 1))
        positions = positions.view(*at.shape, *corpus.frames.shape[1:])
        if bool(mirrored.any()):
            turned = mirrored.nonzero().squeeze(1)
            positions.index_copy_(0, turned, mirror_positions(positions.index_select(0, turned), corpus.skeleton))
        if random is not None and self.position_jitter > 0:
            noise = random.normal(self.longest, *positions.shape[2:])[:, : positions.shape[1]]
            positions += self.position_jitter * noise
        return positions, lengths

    def values(
        self, corpus: TrainingCorpus, rows: torch.Tensor, mirrored: torch.Tensor, random: BatchRandom | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`motion_values` (B, T, F) and `motion_attention_mask` (B, T) int64; arguments as in `positions`."""
        positions, lengths = self.positions(corpus, rows, mirrored, random)
        values, lengths = self.feature_extractor.values_from_positions(positions, lengths)
        frames = -(-int(lengths.max()) // self.frame_multiple) * self.frame_multiple
        if values.shape[1] < frames:
            values = torch.nn.functional.pad(values, (0, 0, 0, frames - values.shape[1]))
        values, real = values[:, :frames], torch.arange(frames) < lengths[:, None]
        if random is not None and self.feature_noise > 0:
            noise = random.normal(self.longest + self.frame_multiple, values.shape[2])[:, :frames]
            values = values + self.feature_noise * noise * real[..., None]
        return values, real.long()


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


@dataclass
class MaskedCaptions:
    """Captions with words hidden: `input_ids` and `labels` (B, L), -100 where nothing is asked."""

    input_ids: torch.Tensor
    labels: torch.Tensor


class CaptionMasker:
    """
    Whole-word masking of captions for an encoder and, more heavily, for a weak decoder.

    A word can be masked when all its pieces are active; labels are therefore always active words, and the first token
    is never touched. The encoder's masked pieces become [MASK] (80 %), a random active piece (10 %) or stay (10 %);
    the decoder's always become [MASK].

    Args:
        lexicon: arrays of size V: `active`, `special`, `subword` masks and `idf`.
        mask_token_id: id of [MASK].
        encoder_ratio, decoder_ratio: shares of the maskable words hidden; every caption loses at least one.
        overlap: the decoder's masks include the encoder's (LexMAE).
        weighting: `uniform`, or `idf`: words are drawn with odds proportional to their highest IDF.
        max_length: tokens of the longest caption; fixes how many random numbers a batch draws.
    """

    def __init__(
        self,
        lexicon,
        mask_token_id: int,
        encoder_ratio: float = 0.3,
        decoder_ratio: float = 0.5,
        overlap: bool = True,
        weighting: str = "uniform",
        max_length: int = 40,
    ):
        if not 0 < encoder_ratio <= 1 or not 0 < decoder_ratio <= 1:
            raise ValueError(f"mask ratios must lie in (0, 1], got {encoder_ratio} and {decoder_ratio}")
        if overlap and decoder_ratio < encoder_ratio:
            raise ValueError(f"overlapping masks need decoder_ratio {decoder_ratio} >= encoder_ratio {encoder_ratio}")
        self.active = torch.tensor(lexicon.active)
        self.special = torch.tensor(lexicon.special)
        self.subword = torch.tensor(lexicon.subword)
        self.idf = torch.tensor(lexicon.idf).float().clamp(min=1e-3)
        self.active_ids = self.active.nonzero().squeeze(1)
        self.mask_token_id = mask_token_id
        self.encoder_ratio, self.decoder_ratio = encoder_ratio, decoder_ratio
        self.overlap, self.weighting, self.max_length = overlap, weighting, max_length

    def words(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, L) bool, tokens that are words or pieces of one, and (B, L) int64, the number of a token's word."""
        words_at = attention_mask.bool() & ~self.special[input_ids]
        words_at[:, 0] = False
        starts = words_at & ~self.subword[input_ids]
        starts |= words_at & ~torch.nn.functional.pad(words_at[:, :-1], (1, 0))  # a cut word may begin with a piece
        return words_at, (starts.long().cumsum(1) - 1).clamp(min=0)

    def drop(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, probability: float, draws: torch.Tensor
    ) -> torch.Tensor:
        """
        Captions with whole words replaced by [MASK], each alone by `probability`; one word at least stays.

        Args:
            input_ids, attention_mask: (B, L). draws: (B, at least L) uniform in [0, 1), one number a word.
        """
        words_at, word = self.words(input_ids, attention_mask)
        drawn = draws.gather(1, word).masked_fill(~words_at, -1.0)
        dropped = words_at & (drawn < probability) & (drawn < drawn.amax(dim=1, keepdim=True))
        return input_ids.masked_fill(dropped, self.mask_token_id)

    def choose(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, random: BatchRandom) -> list[torch.Tensor]:
        """Encoder's and decoder's masked positions, (B, L) bool each."""
        batch, length = input_ids.shape
        words_at, word = self.words(input_ids, attention_mask)
        fits = torch.zeros(batch, length).scatter_reduce(1, word, words_at.float(), "amax")
        broken = torch.zeros(batch, length).scatter_reduce(
            1, word, (words_at & ~self.active[input_ids]).float(), "amax"
        )
        maskable = (fits > 0) & (broken == 0)  # (B, L) by number of word
        if self.weighting == "idf":
            weight = torch.zeros(batch, length).scatter_reduce(1, word, self.idf[input_ids] * words_at, "amax")
            bonus = weight.clamp(min=1e-3).log()
        else:
            bonus = torch.zeros(batch, length)
        count = maskable.sum(dim=1)
        chosen = []
        keys = None
        for ratio in (self.encoder_ratio, self.decoder_ratio):
            if keys is None or not self.overlap:
                uniform = random.uniform(self.max_length)[:, :length].clamp(1e-9, 1 - 1e-7)
                keys = bonus - (-uniform.log()).log()  # Gumbel top-k: drawn without replacement, odds exp(bonus)
                keys = keys.masked_fill(~maskable, -torch.inf)
                rank = keys.argsort(dim=1, descending=True).argsort(dim=1)
                dither = random.uniform()
            hidden = (ratio * count + dither).floor().long().clamp(min=1)  # the ratio holds on average
            chosen.append(((rank < hidden[:, None]) & maskable).gather(1, word) & words_at)
        return chosen

    def __call__(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, random: BatchRandom
    ) -> tuple[MaskedCaptions, MaskedCaptions]:
        """
        Mask a batch for the encoder and for the decoder.

        Args:
            input_ids, attention_mask: (B, L) with L at most `max_length`.
        """
        encoder, decoder = self.choose(input_ids, attention_mask, random)
        draws = random.uniform(2, self.max_length)[:, :, : input_ids.shape[1]]
        drawn = self.active_ids[(draws[:, 1] * len(self.active_ids)).long().clamp(max=len(self.active_ids) - 1)]
        masked = torch.full_like(input_ids, self.mask_token_id)
        replaced = torch.where(draws[:, 0] < 0.8, masked, torch.where(draws[:, 0] < 0.9, drawn, input_ids))
        nothing = torch.full_like(input_ids, -100)
        return (
            MaskedCaptions(torch.where(encoder, replaced, input_ids), torch.where(encoder, input_ids, nothing)),
            MaskedCaptions(torch.where(decoder, masked, input_ids), torch.where(decoder, input_ids, nothing)),
        )


class MotionMasker:
    """
    Which tokens of the (time x part) grid are hidden: random tokens, spatial tubes or temporal blocks, mixed evenly.

    Tubes hide 1 to 3 parts for all time, blocks hide all parts for 2 to 6 windows; the rest of the ratio is filled
    with random tokens, so every clip hides the same share of its valid tokens and keeps at least one.

    Args:
        num_windows, num_parts: the full grid; n = t * num_parts + p.
        kinds: of `random`, `tubes`, `blocks`.
    """

    def __init__(self, num_windows: int, num_parts: int, kinds: Sequence[str] = MASK_KINDS):
        unknown = set(kinds) - set(MASK_KINDS)
        if unknown or not kinds:
            raise ValueError(f"mask kinds are {', '.join(MASK_KINDS)}, got {list(kinds)}")
        self.num_windows, self.num_parts, self.kinds = num_windows, num_parts, tuple(kinds)

    def __call__(
        self, valid: torch.Tensor, ratios: Sequence[float], random: BatchRandom
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """
        Nested masks, one a ratio: a larger ratio hides what a smaller one hides, and more.

        Args:
            valid: (B, Nt * Np) bool, tokens with enough real frames; Nt at most `num_windows`.

        Returns:
            Masks (B, Nt * Np) bool, True = hidden, valid tokens only; and each clip's kind (B,) int64 into `kinds`.
        """
        parts = self.num_parts
        batch, windows = valid.shape[0], valid.shape[1] // parts
        scores = random.uniform(self.num_windows, parts)[:, :windows]  # (B, Nt, Np)
        draws = random.uniform(4)
        part_keys = random.uniform(parts)
        kind = (draws[:, 0] * len(self.kinds)).long().clamp(max=len(self.kinds) - 1)
        valid_windows = valid.view(batch, windows, parts).any(dim=2).sum(dim=1)
        smallest = min(ratios)
        # never more structure than the smallest mask can hold
        most_parts = min(3, max(1, int(smallest * parts)))
        num_tubes = 1 + (draws[:, 1] * most_parts).long().clamp(max=most_parts - 1)
        in_tube = part_keys.argsort(dim=1).argsort(dim=1) < num_tubes[:, None]
        most_windows = (smallest * valid_windows).long().clamp(1, 6)
        least_windows = torch.minimum(most_windows, torch.full_like(most_windows, 2))
        block = least_windows + (draws[:, 2] * (most_windows - least_windows + 1)).long()
        first = (draws[:, 3] * (valid_windows - block + 1).clamp(min=1)).long()
        time = torch.arange(windows)
        in_block = (time >= first[:, None]) & (time < (first + block)[:, None])
        names = torch.tensor([MASK_KINDS.index(name) for name in self.kinds])[kind]
        scores = scores + 2.0 * ((names == 1)[:, None, None] & in_tube[:, None, :])
        scores = scores + 2.0 * ((names == 2)[:, None, None] & in_block[:, :, None])
        rank = scores.reshape(batch, -1).masked_fill(~valid, -1.0).argsort(dim=1, descending=True).argsort(dim=1)
        count = valid.sum(dim=1)
        masks = []
        for ratio in ratios:
            hidden = torch.minimum((ratio * count).round().long().clamp(min=1), (count - 1).clamp(min=1))
            masks.append((rank < hidden[:, None]) & valid)
        return masks, kind


class PartMixer:
    """
    Part CutMix (Yun et al. 2019, on body parts): some parts of a clip are those of another while both move.

    One to half of the parts are exchanged, over the frames that both clips have; beyond them, and in all other parts,
    the clip stays itself.

    Args:
        parts: features of each body part; a feature of several parts goes with each of them.
        probability: of a clip to be mixed.
    """

    def __init__(self, parts: Sequence[Sequence[int]], num_features: int, probability: float):
        self.members = torch.zeros(len(parts), num_features, dtype=torch.bool)
        for number, part in enumerate(parts):
            self.members[number, list(part)] = True
        self.probability = probability

    def choose(self, random: BatchRandom) -> torch.Tensor:
        """(B, P) bool: the parts that each clip takes from its partner, none for a clip that is not mixed."""
        num_parts = len(self.members)
        draws, keys = random.uniform(2), random.uniform(num_parts)
        most = max(num_parts // 2, 1)
        count = 1 + (draws[:, 1] * most).long().clamp(max=most - 1)
        return (keys.argsort(dim=1).argsort(dim=1) < count[:, None]) & (draws[:, :1] < self.probability)

    def __call__(
        self,
        values: torch.Tensor,
        frames: torch.Tensor,
        partner_values: torch.Tensor,
        partner_frames: torch.Tensor,
        taken: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Args:
            values, frames: (B, T, F) and (B, T) motion and mask. partner_values, partner_frames: (B, T', F), (B, T').
            taken: (B, P) bool.

        Returns:
            Mixed values (B, T, F), and the share of each clip that is its partner's: (B,) float32, the parts taken of
            all parts times the frames exchanged of its frames.
        """
        features = (taken.float() @ self.members.float()) > 0  # (B, F)
        both = min(frames.shape[1], partner_frames.shape[1])
        overlap = (frames[:, :both] & partner_frames[:, :both]).bool()
        exchanged = overlap[:, :, None] & features[:, None, :]
        mixed = values.clone()
        mixed[:, :both] = torch.where(exchanged, partner_values[:, :both], mixed[:, :both])
        return mixed, taken.float().mean(dim=1) * overlap.sum(dim=1) / frames.sum(dim=1).clamp(min=1)


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


def valid_tokens(motion_attention_mask: torch.Tensor, patch_frames: int, num_parts: int) -> torch.Tensor:
    """
    Tokens the motion tower reads: windows with at least a quarter of real frames, and the first of any motion.

    Args:
        motion_attention_mask: (B, T), T a multiple of `patch_frames`.

    Returns:
        (B, Nt * Np) bool.
    """
    windows = motion_attention_mask.view(len(motion_attention_mask), -1, patch_frames).sum(dim=2)
    valid = windows * 4 >= patch_frames
    valid[:, 0] |= windows[:, 0] > 0
    return valid.repeat_interleave(num_parts, dim=1)
