"""
The lexical head: vocabulary projection, max over tokens and saturation, which turn token states into sparse vectors.

The maximum comes before the saturation: both are monotone, so the result is the same without the (B, N, V) tensor (see
`lexical_projection.py`).
"""

from typing import Any

import torch
from torch import nn
from transformers import initialization as init
from transformers.activations import ACT2FN

from .lexical_projection import max_pooled_projection


def saturate(scores: torch.Tensor, kind: str) -> torch.Tensor:
    """Return word weights for word scores: log(1 + ReLU(s)) for `splade`; ELU(s) + 1 of unit length for `vdr`."""
    if kind == "splade":
        return torch.log1p(torch.relu(scores))
    weights = nn.functional.elu(scores) + 1.0
    return weights / weights.norm(dim=-1, keepdim=True).clamp(min=1e-6)


def keep_top_k(embeds: torch.Tensor, k: int) -> torch.Tensor:
    """Keep the k largest entries of each row (fewer if fewer are positive) and set the others to zero."""
    if k >= embeds.shape[-1]:
        return embeds
    top = embeds.topk(k, dim=-1)
    return torch.zeros_like(embeds).scatter(-1, top.indices, top.values)


def at_least(scores: torch.Tensor, least: int) -> torch.Tensor:
    """
    Raise all scores of rows with fewer than `least` (< A) above zero until so many are, so that vectors without
    confident words consist of their best words instead of being empty; other rows stay unchanged. Scores are (..., A),
    unsaturated.
    """
    few = (scores > 0).sum(dim=-1) < least
    if not bool(few.any()):
        return scores
    level = scores[few].topk(least + 1, dim=-1).values[..., -1:].clamp(max=0.0)
    return scores.index_put((few,), scores[few] - level)


class LexicalHead(nn.Module):
    """
    Scores over the vocabulary from token states, with the word embeddings E of the text encoder as output matrix.

    `splade`: u = LN(act(W h)), S = u E^T + b, z = log(1 + ReLU(max_n S)). `vdr`: S = LN(h) E^T, z = ELU(max_n S) + 1,
    unit length. E is an argument of every call, so that it has one owner.

    Args:
        config: configuration of the tower with `vocab_size` V, `num_active_words` A <= V (None for all), `head_kind`,
            `head_act` and `top_k`, and optionally `min_words` and `word_share`. The buffer `active_ids` (A,) contains
            the words that may be active; with `word_share`, `thresholds` (V,) limit each word to this share of the
            items, see `limit_frequency`.
        width: D, size of the states and the word embeddings.
    """

    active_ids: torch.Tensor
    thresholds: torch.Tensor

    def __init__(self, config: Any, width: int):
        super().__init__()
        self.kind, self.top_k, self.vocab_size = config.head_kind, config.top_k, config.vocab_size
        self.min_words, self.word_share = getattr(config, "min_words", 0), getattr(config, "word_share", None)
        if self.kind == "splade":
            self.dense = nn.Linear(width, width)
            self.activation = ACT2FN[config.head_act]
        self.layer_norm = nn.LayerNorm(width, eps=1e-12)
        self.bias = nn.Parameter(torch.zeros(self.vocab_size), requires_grad=self.kind == "splade")
        self.register_buffer("active_ids", torch.arange(config.num_active_words or self.vocab_size))
        if self.word_share is not None:
            self.register_buffer("thresholds", torch.zeros(self.vocab_size))

    def reset_parameters(self) -> None:
        """Set zero biases and thresholds, and activate the first A words (until `set_active_words`)."""
        init.zeros_(self.bias)
        init.copy_(self.active_ids, torch.arange(self.active_ids.shape[0]))
        if self.word_share is not None:
            init.zeros_(self.thresholds)

    @torch.no_grad()
    def resize(self, vocab_size: int) -> None:
        """
        Adapt to word embeddings with `vocab_size` rows: new words have bias and threshold zero, and are active only if
        all words were. Raises ValueError if no active word would remain.
        """
        everything = self.active_ids.numel() == self.vocab_size
        left = self.active_ids[self.active_ids < vocab_size]
        if left.numel() == 0:
            count, first = self.active_ids.numel(), int(self.active_ids[0])
            raise ValueError(f"vocab_size {vocab_size}: {count} active words start at {first}; call set_active_words")

        def resized(values: torch.Tensor) -> torch.Tensor:
            kept = values[:vocab_size]
            return nn.functional.pad(kept, (0, vocab_size - kept.shape[0]))

        self.bias = nn.Parameter(resized(self.bias), requires_grad=self.bias.requires_grad)
        if self.word_share is not None:
            self.thresholds = resized(self.thresholds)
        self.active_ids = torch.arange(vocab_size, device=left.device) if everything else left
        self.vocab_size = vocab_size

    def reset_to_identity(self) -> None:
        """Set an identity transform, unit LayerNorm and zero biases, for encoders without a masked-LM head."""
        with torch.no_grad():
            if self.kind == "splade":
                self.dense.weight.copy_(torch.eye(self.dense.weight.shape[0]))
                self.dense.bias.zero_()
            self.layer_norm.weight.fill_(1.0)
            self.layer_norm.bias.zero_()
            self.bias.zero_()

    @torch.no_grad()
    def calibrate(self, scores: torch.Tensor, active_words: float) -> float:
        """
        Shift the biases of all active words so that on average `active_words` scores per row are positive; returns the
        shift.

        Softmax ignores a common shift, so the bottleneck phases leave the level of the scores undetermined; the
        saturation of phase iv depends on it and would start from vectors with all words active.

        Args:
            scores: (B, A) pooled scores of a sample.
            active_words: target mean per row, at most A.
        """
        if not 0 < active_words <= scores.shape[-1]:
            most = scores.shape[-1]
            raise ValueError(f"active_words: got {active_words}; pass a number in 1..{most}, the active vocabulary")
        keep = max(round(active_words * scores.shape[0]), 1)
        shift = -float(scores.float().flatten().topk(keep).values[-1])
        self.bias[self.active_ids] += shift
        return shift

    def check_can_limit(self) -> None:
        """Raise ValueError if words are never zero, so that their frequency cannot be limited."""
        if self.kind != "splade":
            raise ValueError(f"motion_word_share: got a head of kind {self.kind!r}; leave it out, or train a 'splade'")

    @torch.no_grad()
    def limit_frequency(self, scores: torch.Tensor, share: float) -> int:
        """
        Set thresholds so that a word counts only if its score is higher than in all but a `share` (in (0, 1)) of the
        rows, and return the number of thresholds above zero.

        A word that is active in most items slows down every search and distinguishes nothing. Where it remains active,
        it keeps its weight and its rank in the item, which a lower bias would change.

        Args:
            scores: (B, A) pooled scores of a sample, before any threshold.

        Raises:
            ValueError: if the head is not of kind `splade`, so that no word is ever zero, or `share` is out of range.
        """
        self.check_can_limit()
        if not 0 < share < 1:
            raise ValueError(f"share: got {share}; pass a number between 0 and 1")
        allowed = int(share * scores.shape[0])
        level = scores.float().topk(allowed + 1, dim=0).values[-1].clamp(min=0.0)  # (A,), of the first excess row
        thresholds = torch.zeros(self.vocab_size, device=level.device).index_copy(0, self.active_ids, level)
        self.word_share = share
        self.register_buffer("thresholds", thresholds)
        return int((level > 0).sum())

    def gate(self, scores: torch.Tensor) -> torch.Tensor:
        """Return scores (..., A) unchanged if above the word's threshold, otherwise at most zero, nearest first."""
        if self.word_share is None:
            return scores
        below = scores - self.thresholds[self.active_ids]
        return torch.where(below > 0, scores, torch.minimum(scores, below))

    def transform(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the states, (..., D), that are multiplied with the word embeddings."""
        if self.kind == "splade":
            hidden = self.activation(self.dense(hidden))
        return self.layer_norm(hidden)

    def active_rows(self, word_embeddings: torch.Tensor) -> torch.Tensor:
        """
        Return the embeddings of the active words, (A, D), in the order of `active_ids`. `word_embeddings` is (V, D),
        or has fewer rows, as kept in training, the first A of which are the active words.
        """
        if word_embeddings.shape[0] < self.vocab_size:
            return word_embeddings[: self.active_ids.shape[0]]
        return word_embeddings[self.active_ids] if self.active_ids.shape[0] < self.vocab_size else word_embeddings

    def token_logits(self, hidden: torch.Tensor, word_embeddings: torch.Tensor) -> torch.Tensor:
        """Return the active words' scores for each token, (..., D) -> (..., A), in the order of `active_ids`."""
        hidden = self.transform(hidden)
        weight = self.active_rows(word_embeddings)
        return nn.functional.linear(hidden, weight.to(hidden.dtype), self.bias[self.active_ids].to(hidden.dtype))

    def pool(
        self, hidden: torch.Tensor, mask: torch.Tensor, word_embeddings: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (B, A) maxima of the active words' scores over valid tokens (B, N, D), and the winning tokens."""
        weight, bias = self.active_rows(word_embeddings), self.bias[self.active_ids]
        return max_pooled_projection(self.transform(hidden), weight, bias, mask)

    def weigh(self, scores: torch.Tensor) -> torch.Tensor:
        """Return the weights of the active words for pooled scores: (B, A) -> (B, A), non-negative."""
        scores = self.gate(scores)
        if self.min_words:
            scores = at_least(scores, min(self.min_words, scores.shape[-1] - 1))
        weights = saturate(scores, self.kind)
        return weights if self.top_k is None else keep_top_k(weights, self.top_k)

    def embed(self, scores: torch.Tensor) -> torch.Tensor:
        """Return lexical vectors (B, V) for pooled scores (B, A): non-negative, zero except for active words."""
        return self.scatter(self.weigh(scores))

    def scatter(self, values: torch.Tensor) -> torch.Tensor:
        """Return (B, V) with the values (B, A) at `active_ids` and zeros elsewhere."""
        if values.shape[-1] == self.vocab_size:
            return values
        return values.new_zeros(*values.shape[:-1], self.vocab_size).index_copy(-1, self.active_ids, values)

    def bottleneck(self, scores: torch.Tensor, word_embeddings: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Compute the lexicon bottleneck (LexMAE): p = softmax(s), b = sg(E)^T p.

        Returns log p (B, A) and b (B, D). The stop-gradient keeps the decoder from moving words instead of choosing
        them.
        """
        log_importance = scores.float().log_softmax(dim=-1)
        return log_importance, log_importance.exp() @ self.active_rows(word_embeddings).detach().float()
