"""
From token states to a sparse vector over words: vocabulary projection, max over tokens, saturation, bottleneck.

The maximum is taken before the saturation: both are monotone, so the result is the same, and the (B, N, V) tensor need
not exist (see `lexical_projection.py`).
"""

from typing import Any

import torch
from torch import nn
from transformers import initialization as init
from transformers.activations import ACT2FN

from .lexical_projection import max_pooled_projection


def saturate(scores: torch.Tensor, kind: str) -> torch.Tensor:
    """Word scores -> word weights: log(1 + ReLU(s)) for `splade`; ELU(s) + 1, unit length, for `vdr`."""
    if kind == "splade":
        return torch.log1p(torch.relu(scores))
    weights = nn.functional.elu(scores) + 1.0
    return weights / weights.norm(dim=-1, keepdim=True).clamp(min=1e-6)


def keep_top_k(embeds: torch.Tensor, k: int) -> torch.Tensor:
    """The k largest entries of each row, the others zero. Fewer stay when fewer are positive."""
    if k >= embeds.shape[-1]:
        return embeds
    top = embeds.topk(k, dim=-1)
    return torch.zeros_like(embeds).scatter(-1, top.indices, top.values)


def at_least(scores: torch.Tensor, least: int) -> torch.Tensor:
    """
    Rows of scores with fewer than `least` above zero, lifted together until so many are; the others as they are.

    A vector must not be empty because nothing in it was certain: its best words are then the answer.

    Args:
        scores: (..., A), before saturation. least: words wanted, fewer than A.
    """
    few = (scores > 0).sum(dim=-1) < least
    if not bool(few.any()):
        return scores
    level = scores[few].topk(least + 1, dim=-1).values[..., -1:].clamp(max=0.0)
    return scores.index_put((few,), scores[few] - level)


class LexicalHead(nn.Module):
    """
    Token states -> scores over the vocabulary, with the word embeddings of the text encoder as output matrix.

    `splade`: u = LN(act(W h)), S = u E^T + b, z = log(1 + ReLU(max_n S)). `vdr`: S = LN(h) E^T, z = ELU(max_n S) + 1,
    unit length. E is passed to every call, so that it has one owner.

    Args:
        config: of the tower. `vocab_size` V, `num_active_words` A <= V (None: all), `head_kind`, `head_act`, `top_k`;
            `min_words` and `word_share` if it has them. `active_ids` (A,) says which words may be active; with a
            `word_share`, `thresholds` (V,) keep every word to this share of the items (`limit_frequency`).
        width: D of the states and of the word embeddings.
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
        """What no pretrained head can give: zero biases, the first A words active (until `set_active_words`)."""
        init.zeros_(self.bias)
        init.copy_(self.active_ids, torch.arange(self.active_ids.shape[0]))
        if self.word_share is not None:
            init.zeros_(self.thresholds)

    @torch.no_grad()
    def resize(self, vocab_size: int) -> None:
        """
        Follow word embeddings of another length: a new word has bias and threshold zero, and is active where all
        words were.

        Args:
            vocab_size: rows of the word embeddings now.

        Raises:
            ValueError: no active word would be left.
        """
        everything = self.active_ids.numel() == self.vocab_size
        left = self.active_ids[self.active_ids < vocab_size]
        if left.numel() == 0:
            raise ValueError(
                f"a vocabulary of {vocab_size} words holds none of the {self.active_ids.numel()} active ones, the "
                f"first of which is {int(self.active_ids[0])}; call set_active_words first"
            )

        def resized(values: torch.Tensor) -> torch.Tensor:
            kept = values[:vocab_size]
            return nn.functional.pad(kept, (0, vocab_size - kept.shape[0]))

        self.bias = nn.Parameter(resized(self.bias), requires_grad=self.bias.requires_grad)
        if self.word_share is not None:
            self.thresholds = resized(self.thresholds)
        self.active_ids = torch.arange(vocab_size, device=left.device) if everything else left
        self.vocab_size = vocab_size

    def reset_to_identity(self) -> None:
        """An encoder without a masked-LM head keeps its geometry: identity transform, unit LayerNorm, zero biases."""
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
        Shift the biases of the active words together, so that `active_words` of a row's scores are positive on
        average.

        A softmax does not see a common shift, so the bottleneck phases leave the level of the scores undetermined; the
        saturation of phase iv does see it, and would start from vectors with every word active.

        Args:
            scores: (B, A) pooled scores of a sample. active_words: wanted mean per row, at most A.

        Returns:
            The shift that was added.
        """
        if not 0 < active_words <= scores.shape[-1]:
            raise ValueError(
                f"active_words must be in 1..{scores.shape[-1]} (the active vocabulary), got {active_words}"
            )
        keep = max(round(active_words * scores.shape[0]), 1)
        shift = -float(scores.float().flatten().topk(keep).values[-1])
        self.bias[self.active_ids] += shift
        return shift

    def check_can_limit(self) -> None:
        """Raise ValueError where words are never zero, so that no share of the items could be without one."""
        if self.kind != "splade":
            raise ValueError(
                f"only a head of kind 'splade' has words at zero to be limited, this is {self.kind!r}; leave "
                "motion_word_share out"
            )

    @torch.no_grad()
    def limit_frequency(self, scores: torch.Tensor, share: float) -> int:
        """
        From now on a word counts only where it scores higher than in all but `share` of the rows.

        A word that most items light costs every search and tells nothing apart. Where it stays, it keeps its weight,
        and so its place among the first words of its item; a lower bias would take that too.

        Args:
            scores: (B, A) pooled scores of a sample, before any threshold. share: in (0, 1).

        Returns:
            How many words have a threshold above zero.

        Raises:
            ValueError: the head is of another kind than `splade`, where no word is ever zero; share is out of range.
        """
        self.check_can_limit()
        if not 0 < share < 1:
            raise ValueError(f"share must lie in (0, 1), got {share}")
        allowed = int(share * scores.shape[0])
        level = scores.float().topk(allowed + 1, dim=0).values[-1].clamp(min=0.0)  # (A,), the first row too many
        thresholds = torch.zeros(self.vocab_size, device=level.device).index_copy(0, self.active_ids, level)
        self.word_share = share
        self.register_buffer("thresholds", thresholds)
        return int((level > 0).sum())

    def gate(self, scores: torch.Tensor) -> torch.Tensor:
        """(..., A) -> the same where a word passes its threshold, at most zero where it does not, nearest first."""
        if self.word_share is None:
            return scores
        below = scores - self.thresholds[self.active_ids]
        return torch.where(below > 0, scores, torch.minimum(scores, below))

    def transform(self, hidden: torch.Tensor) -> torch.Tensor:
        """(..., D) -> (..., D), the state that meets the word embeddings."""
        if self.kind == "splade":
            hidden = self.activation(self.dense(hidden))
        return self.layer_norm(hidden)

    def active_rows(self, word_embeddings: torch.Tensor) -> torch.Tensor:
        """
        (A, D): the embeddings of the active words, in the order of `active_ids`.

        Args:
            word_embeddings: (V, D); or fewer rows, as training keeps them, of which the first A are the active words.
        """
        if word_embeddings.shape[0] < self.vocab_size:
            return word_embeddings[: self.active_ids.shape[0]]
        return word_embeddings[self.active_ids] if self.active_ids.shape[0] < self.vocab_size else word_embeddings

    def token_logits(self, hidden: torch.Tensor, word_embeddings: torch.Tensor) -> torch.Tensor:
        """(..., D) -> (..., A): scores of the active words for every token, in the order of `active_ids`."""
        hidden = self.transform(hidden)
        weight = self.active_rows(word_embeddings)
        return nn.functional.linear(hidden, weight.to(hidden.dtype), self.bias[self.active_ids].to(hidden.dtype))

    def pool(
        self, hidden: torch.Tensor, mask: torch.Tensor, word_embeddings: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, N, D), (B, N) -> max over valid tokens of the active words' scores, and the winning tokens: (B, A)."""
        weight, bias = self.active_rows(word_embeddings), self.bias[self.active_ids]
        return max_pooled_projection(self.transform(hidden), weight, bias, mask)

    def weigh(self, scores: torch.Tensor) -> torch.Tensor:
        """Pooled scores (B, A) -> weights of the active words (B, A), non-negative."""
        scores = self.gate(scores)
        if self.min_words:
            scores = at_least(scores, min(self.min_words, scores.shape[-1] - 1))
        weights = saturate(scores, self.kind)
        return weights if self.top_k is None else keep_top_k(weights, self.top_k)

    def embed(self, scores: torch.Tensor) -> torch.Tensor:
        """Pooled scores (B, A) -> lexical vectors (B, V), non-negative and zero outside the active words."""
        return self.scatter(self.weigh(scores))

    def scatter(self, values: torch.Tensor) -> torch.Tensor:
        """(B, A) in the order of `active_ids` -> (B, V), zero elsewhere."""
        if values.shape[-1] == self.vocab_size:
            return values
        return values.new_zeros(*values.shape[:-1], self.vocab_size).index_copy(-1, self.active_ids, values)

    def bottleneck(self, scores: torch.Tensor, word_embeddings: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Lexicon bottleneck (LexMAE): p = softmax(s), b = sg(E)^T p.

        Returns:
            log p (B, A) and b (B, D). The stop-gradient keeps the decoder from moving words instead of choosing them.
        """
        log_importance = scores.float().log_softmax(dim=-1)
        return log_importance, log_importance.exp() @ self.active_rows(word_embeddings).detach().float()
