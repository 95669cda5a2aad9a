"""
Word scores of parts of a sequence, which distinguish "sits, then stands" from "stands, then sits".

A sequence consists of indivisible units: the time windows of a motion, or the events of a caption. Units are assumed
to last equally long, and each of K segments pools the units in its K-th of the time. Units are first grouped into at
most K rows without overlap, which are projected onto the vocabulary; the segments and the complete sequence are maxima
over rows, so each token is projected only once.
"""

from collections.abc import Sequence

import torch

from .lexical_head import LexicalHead


def window_units(mask: torch.Tensor, num_parts: int) -> torch.Tensor:
    """Return the time window of each token of a motion, (B, N) int64, for the mask (B, N) of a time-major grid."""
    return (torch.arange(mask.shape[1], device=mask.device) // num_parts).expand(mask.shape)


def event_units(
    input_ids: torch.LongTensor, mask: torch.Tensor, event_words: Sequence[int] | None = None
) -> torch.Tensor:
    """
    Return the event number of each token of a caption, (B, L) int64, from 0 and without gaps over the valid tokens.

    Args:
        input_ids, mask: (B, L), the first token a special one.
        event_words: ids of words that begin a new event, such as "then"; the first of several in a row does. If None,
            each token is a unit, so segments are parts of the text.
    """
    valid = mask.bool()
    if event_words is None:
        return valid.cumsum(dim=1) - 1
    begins = torch.isin(input_ids, torch.as_tensor(list(event_words), device=input_ids.device)) & valid
    repeated = torch.zeros_like(begins)
    repeated[:, 1:] = begins[:, :-1]
    begins = begins & ~repeated
    begins[:, :2] = False  # the first word of a caption does not end an event
    return begins.cumsum(dim=1)


def rows_of_units(units: torch.Tensor, mask: torch.Tensor, num_rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Group units, in order, into at most `num_rows` nonempty rows.

    Args:
        units: (B, N) int64, from 0 and without gaps over the valid tokens of `mask`, (B, N).

    Returns:
        The row of each token (B, N) and the number of rows (B,), zero for a sequence without tokens.
    """
    counts = (units + 1).masked_fill(~mask.bool(), 0).amax(dim=1)
    rows = counts.clamp(max=num_rows)
    return units * rows[:, None] // counts.clamp(min=1)[:, None], rows


def rows_of_segments(rows: torch.Tensor, num_segments: int) -> torch.Tensor:
    """
    Return which rows overlap in time with which segment, if both divide it into equal parts.

    Args:
        rows: (B,) number of rows, at most K = num_segments.

    Returns:
        (B, K segments, K rows) bool: the identity for K rows; equal for all segments if there is one row.
    """
    row = torch.arange(num_segments, device=rows.device)
    segment, count = row[:, None], rows[:, None, None]
    # [row / count, (row + 1) / count) overlaps [segment / K, (segment + 1) / K)
    return (row * num_segments < (segment + 1) * count) & (segment * count < (row + 1) * num_segments) & (row < count)


def pool_segments(
    head: LexicalHead,
    hidden: torch.Tensor,
    mask: torch.Tensor,
    word_embeddings: torch.Tensor,
    units: torch.Tensor,
    num_segments: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """
    Pool scores as `LexicalHead.pool` does, for the complete sequence and for each segment.

    Args:
        hidden, mask: (B, N, D) and (B, N).
        units: (B, N) int64, see `event_units`.
        num_segments: K.

    Returns:
        scores (B, A) and winning tokens (B, A) of the complete sequence, and segment scores (B, K, A).
    """
    row_of, rows = rows_of_units(units, mask, num_segments)
    numbers = torch.arange(num_segments, device=mask.device)
    inside = (row_of[:, None] == numbers[:, None]) & mask.bool()[:, None]  # (B, K, N)
    longest = max(int(inside.sum(dim=-1).max()), 1)
    tokens = inside.int().argsort(dim=-1, descending=True, stable=True)[..., :longest]  # (B, K, M)
    batch, width = hidden.shape[0], hidden.shape[-1]
    states = hidden.gather(1, tokens.flatten(1)[..., None].expand(-1, -1, width))
    states = states.view(batch * num_segments, longest, width)
    scores, winners = head.pool(states, inside.gather(-1, tokens).view(states.shape[:2]), word_embeddings)
    scores = scores.view(batch, num_segments, -1)  # (B, K rows, A)
    winners = tokens.gather(-1, winners.view_as(scores).long())
    filled = inside.any(dim=-1)  # (B, K rows)
    filled = filled | ~filled.any(dim=1, keepdim=True)  # without any token: the zeros of empty rows
    belongs = rows_of_segments(rows, num_segments) & filled[:, None]
    belongs = belongs | (~belongs.any(dim=-1, keepdim=True) & filled[:, None])  # empty segments pool everything
    segments = torch.stack(
        [scores.masked_fill(~belongs[:, k, :, None], -torch.inf).amax(dim=1) for k in range(num_segments)], dim=1
    )
    whole, row = scores.masked_fill(~filled[..., None], -torch.inf).max(dim=1)
    return whole, winners.gather(1, row[:, None])[:, 0].int(), segments
