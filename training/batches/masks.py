"""Masks of words of captions and of tokens of motions."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .order import Batch, BatchRandom

MASK_KINDS = ("random", "tubes", "blocks")
MASK_WEIGHTINGS = ("uniform", "idf", "content")
MASK_WEIGHTING_HELP = (
    "Odds of masking a word: equal (uniform), by IDF (idf), or equal among content words and zero for stop words and "
    "words that the tokenizer cuts (content)."
)


@dataclass
class MaskedCaptions:
    """Captions with masked words: `input_ids` and `labels` (B, L), -100 at positions without a label."""

    input_ids: Tensor
    labels: Tensor

    def inputs(self, prefix: str, attention_mask: Tensor) -> Batch:
        """Return `input_ids`, `attention_mask` and `labels` as arguments of a model, with a prefix to their names."""
        named = {"input_ids": self.input_ids, "attention_mask": attention_mask, "labels": self.labels}
        return {f"{prefix}{name}": value for name, value in named.items()}


class CaptionMasker:
    """
    Whole-word masking of captions for an encoder and, more heavily, for a weak decoder.

    Only words whose pieces are all active are masked, so labels are always active words; the first token is never
    masked. With the weighting `content`, only words whose pieces are all content words are masked; a caption without
    any has no mask. Masked pieces of the encoder become [MASK] (80 %), a random active piece (10 %) or stay (10 %);
    those of the decoder always become [MASK].

    Args:
        lexicon: object with arrays of size V: masks `active`, `special` and `subword`, `idf`, and for the weighting
            `content` the mask `content`.
        mask_token_id: id of [MASK].
        encoder_ratio, decoder_ratio: shares of the maskable words to mask; at least one per caption.
        overlap: the decoder's masks include the encoder's (LexMAE).
        weighting: `uniform`, `idf` for odds proportional to a word's highest IDF, or `content` for equal odds of the
            content words.
        max_length: tokens of the longest caption, which sets the number of random draws per batch.
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
            raise ValueError(f"mask ratios: got {encoder_ratio} and {decoder_ratio}; pass values in (0, 1]")
        if overlap and decoder_ratio < encoder_ratio:
            raise ValueError(f"decoder_ratio: got {decoder_ratio}; pass at least encoder_ratio ({encoder_ratio})")
        if weighting not in MASK_WEIGHTINGS:
            raise ValueError(f"mask_weighting: got {weighting!r}; pass one of {', '.join(MASK_WEIGHTINGS)}")
        masks = (lexicon.active, lexicon.special, lexicon.subword)
        self.active, self.special, self.subword = map(torch.tensor, masks)
        self.maskable = torch.tensor(lexicon.content) if weighting == "content" else self.active
        self.idf = torch.tensor(lexicon.idf).float().clamp(min=1e-3)
        self.active_ids = self.active.nonzero().squeeze(1)
        self.mask_token_id = mask_token_id
        self.encoder_ratio, self.decoder_ratio = encoder_ratio, decoder_ratio
        self.overlap, self.weighting, self.max_length = overlap, weighting, max_length

    def words(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return (B, L) bool, tokens that belong to words, and (B, L) int64, the index of each token's word."""
        words_at = attention_mask.bool() & ~self.special[input_ids]
        words_at[:, 0] = False
        starts = words_at & ~self.subword[input_ids]
        starts |= words_at & ~torch.nn.functional.pad(words_at[:, :-1], (1, 0))  # a truncated word starts mid-word
        return words_at, (starts.long().cumsum(1) - 1).clamp(min=0)

    def drop(self, input_ids: Tensor, attention_mask: Tensor, probability: float, draws: Tensor) -> Tensor:
        """
        Replace whole words of captions (B, L) by [MASK], each with `probability`, keeping at least one word.

        Args:
            draws: (B, at least L) uniform in [0, 1), one per word.
        """
        words_at, word = self.words(input_ids, attention_mask)
        drawn = draws.gather(1, word).masked_fill(~words_at, -1.0)
        dropped = words_at & (drawn < probability) & (drawn < drawn.amax(dim=1, keepdim=True))
        return input_ids.masked_fill(dropped, self.mask_token_id)

    def choose(self, input_ids: Tensor, attention_mask: Tensor, random: BatchRandom) -> list[Tensor]:
        """Return the masked positions of the encoder and of the decoder, each (B, L) bool."""
        batch, length = input_ids.shape
        words_at, word = self.words(input_ids, attention_mask)
        fits = torch.zeros(batch, length).scatter_reduce(1, word, words_at.float(), "amax")
        broken = torch.zeros(batch, length).scatter_reduce(
            1, word, (words_at & ~self.maskable[input_ids]).float(), "amax"
        )
        maskable = (fits > 0) & (broken == 0)  # (B, L) by index of word
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
                keys = bonus - (-uniform.log()).log()  # Gumbel top-k: sampling without replacement, odds exp(bonus)
                keys = keys.masked_fill(~maskable, -torch.inf)
                rank = keys.argsort(dim=1, descending=True).argsort(dim=1)
                dither = random.uniform()
            hidden = (ratio * count + dither).floor().long().clamp(min=1)  # the ratio holds on average
            chosen.append(((rank < hidden[:, None]) & maskable).gather(1, word) & words_at)
        return chosen

    def __call__(
        self, input_ids: Tensor, attention_mask: Tensor, random: BatchRandom
    ) -> tuple[MaskedCaptions, MaskedCaptions]:
        """Mask a batch (B, L), L at most `max_length`, for the encoder and for the decoder."""
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
    Masks of the (time x part) token grid: random tokens, spatial tubes or temporal blocks, used equally often.

    Tubes mask 1 to 3 parts throughout, blocks all parts for 2 to 6 windows; random tokens fill up the ratio, so that
    the same share of valid tokens is masked in every clip. At least one token is kept.

    Args:
        num_windows, num_parts: size of the full grid; n = t * num_parts + p.
        kinds: subset of `random`, `tubes`, `blocks`.
    """

    def __init__(self, num_windows: int, num_parts: int, kinds: Sequence[str] = MASK_KINDS):
        unknown = set(kinds) - set(MASK_KINDS)
        if unknown or not kinds:
            raise ValueError(f"mask_kinds: got {list(kinds)}; pass some of {', '.join(MASK_KINDS)}")
        self.num_windows, self.num_parts, self.kinds = num_windows, num_parts, tuple(kinds)

    def __call__(self, valid: Tensor, ratios: Sequence[float], random: BatchRandom) -> tuple[list[Tensor], Tensor]:
        """
        Draw nested masks, one per ratio; a larger ratio masks a superset of a smaller one's tokens.

        Args:
            valid: (B, Nt * Np) bool, tokens with enough real frames; Nt at most `num_windows`.

        Returns:
            Masks (B, Nt * Np) bool, True for masked tokens, and each clip's kind (B,) int64, an index into `kinds`.
        """
        parts = self.num_parts
        batch, windows = valid.shape[0], valid.shape[1] // parts
        scores = random.uniform(self.num_windows, parts)[:, :windows]  # (B, Nt, Np)
        draws = random.uniform(4)
        part_keys = random.uniform(parts)
        kind = (draws[:, 0] * len(self.kinds)).long().clamp(max=len(self.kinds) - 1)
        valid_windows = valid.view(batch, windows, parts).any(dim=2).sum(dim=1)
        smallest = min(ratios)  # tubes and blocks must fit into the smallest mask
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


def valid_tokens(motion_attention_mask: Tensor, patch_frames: int, num_parts: int) -> Tensor:
    """
    Return the tokens that the motion tower reads: windows with at least a quarter of real frames, and the first one.

    Args:
        motion_attention_mask: (B, T), T a multiple of `patch_frames`.

    Returns:
        (B, Nt * Np) bool.
    """
    windows = motion_attention_mask.view(len(motion_attention_mask), -1, patch_frames).sum(dim=2)
    valid = windows * 4 >= patch_frames
    valid[:, 0] |= windows[:, 0] > 0
    return valid.repeat_interleave(num_parts, dim=1)
