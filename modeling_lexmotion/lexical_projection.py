"""
The vocabulary projection fused with its max pooling: max over tokens of (hidden @ weight.T), the dominant product of a
lexical model, stored as one score and one winning token per row and word.

Only one tile of the (B, N, A) logits exists at a time. Rows of similar length are multiplied together, so padding
costs little; on CUDA a Triton kernel (`lexical_projection_triton.py`) does the same in registers. The gradient flows
through the winning tokens only, as two weighted sums of table rows over the (row, word) pairs that have a gradient, so
the backward pass is cheap if the output is sparse. Related work: Sparton (arXiv 2603.25011), FlashSPLADE; this is an
independent implementation of the idea.
"""

from dataclasses import dataclass

import torch
from torch import nn

from .lexical_projection_triton import max_over_tokens_triton, supports_triton

TILE_TOKENS, TILE_WORDS = 4096, 512  # logits of one matrix product
BLOCK_TOKENS = 1024  # tokens reduced at a time, so that their logits stay in the L2 cache of a core
LIKE_LENGTH = 0.75  # rows of at least this share of the longest in a block are padded to its length
BACKWARD_PAIRS = 1 << 20  # (row, word) pairs at a time; bounds memory while the output is still dense
PLACES = 0xFFFF  # the free bits of a bfloat16 stored as float32


@dataclass
class _Tile:
    """
    Rows whose tokens are multiplied together.

    Args:
        begin, end: range of rows, in the order of the tiles.
        tokens: (end - begin, n) int64, the valid tokens of each row, padded to the longest row by repeating the first,
            which changes no maximum.
        blocks: (first row, end row, first state, n) of rows of similar length, with n tokens each.
        states: (S, D), the tokens of all blocks.
    """

    begin: int
    end: int
    tokens: torch.Tensor
    blocks: list[tuple[int, int, int, int]]
    states: torch.Tensor


def _tiles(hidden: torch.Tensor, mask: torch.Tensor, tile_tokens: int) -> tuple[list[_Tile], torch.Tensor]:
    """
    Cut the nonempty rows, longest first, into blocks and the blocks into tiles of at most `tile_tokens` tokens.
    Returns the tiles and the order of the rows, empty ones last, (B,) int64.
    """
    batch, size, width = hidden.shape
    if hidden.numel() == 0:
        return [], torch.arange(batch, device=hidden.device)
    lengths = mask.sum(dim=1)
    by_length = lengths.argsort(descending=True, stable=True)
    longest_first = [length for length in lengths[by_length].tolist() if length]
    first = mask.int().argsort(dim=1, descending=True, stable=True)  # valid tokens first, in order
    tokens = torch.where(torch.arange(size, device=mask.device) < lengths[:, None], first, first[:, :1])
    flat = hidden.reshape(batch * size, width)
    tiles: list[_Tile] = []
    start = 0
    while start < len(longest_first):
        blocks: list[tuple[int, int, int, int]] = []
        used, row = 0, start
        while row < len(longest_first):
            length, begin = longest_first[row], row
            fits = max(min(BLOCK_TOKENS, tile_tokens - used) // length, 0 if blocks else 1)
            while row < len(longest_first) and row - begin < fits and longest_first[row] >= LIKE_LENGTH * length:
                row += 1
            if row == begin:
                break
            blocks.append((begin - start, row - start, used, length))
            used += (row - begin) * length
        rows = by_length[start:row]
        at = tokens[rows, : longest_first[start]]
        states = torch.cat([(rows[a:b, None] * size + at[a:b, :length]).flatten() for a, b, _, length in blocks])
        tiles.append(_Tile(start, row, at, blocks, flat[states]))
        start = row
    return tiles, by_length


def _views(
    tile: _Tile, width: int, logits_of: torch.Tensor, wide_of: torch.Tensor
) -> tuple[torch.Tensor, list[tuple[slice, torch.Tensor, torch.Tensor]]]:
    """Return the buffer for a tile's logits, (S, C), and per block its rows, logits (G, n, C) and widened copy."""
    logits = logits_of[: tile.states.shape[0] * width].view(-1, width)
    grids = []
    for a, b, first, length in tile.blocks:
        grid = logits[first : first + (b - a) * length].view(b - a, length, width)
        wide = wide_of[: grid.numel()].view(grid.shape) if len(wide_of) else grid
        grids.append((slice(tile.begin + a, tile.begin + b), grid, wide))
    return logits, grids


def _max_over_tokens_tiled(
    hidden: torch.Tensor, weight: torch.Tensor, mask: torch.Tensor, tile_tokens: int, tile_words: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Compute scores and winners on a CPU: `torch.max` with indices is not vectorized over a middle axis; these passes
    are, and take a tenth of the time.

    A bfloat16 is widened and its position written into the free bits, so that one maximum yields both. Wider numbers
    have no free bits: the maximum comes first, then the first position that equals it.
    """
    words = weight.shape[0]
    packed = hidden.dtype == torch.bfloat16 and hidden.shape[1] <= PLACES
    if not packed and hidden.dtype.itemsize < 4:
        hidden = hidden.float()  # 16 bits cannot hold the positions, and float16 is slower than float32 on CPUs
    kind = torch.promote_types(hidden.dtype, torch.float32)
    code = PLACES - torch.arange(hidden.shape[1], dtype=torch.int32, device=hidden.device)[:, None]
    if not packed:
        code = code.to(kind)
    tiles, rows = _tiles(hidden, mask, tile_tokens)
    logits_of = hidden.new_empty(max((tile.states.shape[0] for tile in tiles), default=0) * tile_words)
    block = max((((b - a) * length) for tile in tiles for a, b, _, length in tile.blocks), default=0)
    wide_of = torch.empty(block * tile_words if packed else 0, device=hidden.device)
    scores = hidden.new_empty(hidden.shape[0], words, dtype=kind)
    scores[tiles[-1].end if tiles else 0 :] = 0.0
    coded = scores.view(torch.int32) if packed else torch.zeros_like(scores)
    views: list[tuple[_Tile, torch.Tensor, list[tuple[slice, torch.Tensor, torch.Tensor]]]] = []
    for start in range(0, words, tile_words):
        columns = slice(start, min(start + tile_words, words))
        word_states = weight[columns].to(hidden.dtype).T  # (D, C)
        if start == 0 or columns.stop - start < tile_words:  # only the last columns are fewer
            views = [(tile, *_views(tile, word_states.shape[1], logits_of, wide_of)) for tile in tiles]
        for tile, logits, grids in views:
            torch.mm(tile.states, word_states, out=logits)
            for where, grid, wide in grids:
                top = scores[where, columns]
                places = code[: grid.shape[1]]
                if packed:
                    wide.copy_(grid).view(torch.int32).bitwise_or_(places)
                    torch.amax(wide, dim=1, out=top)
                else:
                    torch.amax(grid, dim=1, out=top)
                    torch.amax(grid.eq_(top[:, None]).mul_(places), dim=1, out=coded[where, columns])
    winner = torch.bitwise_xor(coded, PLACES).bitwise_and_(PLACES) if packed else (PLACES - coded).to(torch.int32)
    if packed:
        coded.bitwise_and_(~PLACES)
    # A position past the end is a repetition of the first token; NaN has no position.
    winner.mul_(winner < mask.sum(dim=1, dtype=torch.int32)[rows][:, None])
    if bool((mask[:, 1:] & ~mask[:, :-1]).any()):  # with gaps in the mask, positions are not token numbers
        for tile in tiles:
            places = winner[tile.begin : tile.end]
            places.copy_(tile.tokens.gather(1, places.long()))
    if bool((rows.diff() != 1).any()):
        order = rows.argsort()
        scores, winner = scores[order], winner[order]
    return scores, winner


@torch.library.custom_op("lexmotion::max_pooled_projection", mutates_args=())
def _forward(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    mask: torch.Tensor,
    tile_tokens: int,
    tile_words: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    if supports_triton(hidden):
        scores, winner = max_over_tokens_triton(hidden, weight, mask)
    else:
        scores, winner = _max_over_tokens_tiled(hidden, weight, mask, tile_tokens, tile_words)
    scores += bias.to(scores.dtype)
    return scores.index_fill_(0, (~mask.any(dim=1)).nonzero().squeeze(1), 0.0), winner


@_forward.register_fake
def _(hidden, weight, bias, mask, tile_tokens, tile_words):
    shape = (hidden.shape[0], weight.shape[0])
    scores = hidden.new_empty(shape, dtype=torch.promote_types(hidden.dtype, torch.float32))
    return scores, hidden.new_empty(shape, dtype=torch.int32)


def _sum_rows(table: torch.Tensor, rows: torch.Tensor, weights: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Return weighted sums of table rows, (len(counts), D): first over the first counts[0] of `rows`, and so on."""
    offsets = counts.cumsum(0) - counts
    return nn.functional.embedding_bag(rows, table, offsets, mode="sum", per_sample_weights=weights)


@torch.library.custom_op("lexmotion::max_pooled_projection_backward", mutates_args=())
def _backward(
    gradient: torch.Tensor,
    hidden: torch.Tensor,
    weight: torch.Tensor,
    winner: torch.Tensor,
    mask: torch.Tensor,
    wants_hidden: bool,
    wants_weight: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    batch, tokens, width = hidden.shape
    flat = hidden.reshape(batch * tokens, width).to(gradient.dtype)
    grad_flat = torch.zeros_like(flat if wants_hidden else flat[:0])
    grad_weight = torch.zeros_like(weight if wants_weight else weight[:0])
    useful = (gradient != 0) & mask.any(dim=1)[:, None]
    # Words are cut into blocks of at most BACKWARD_PAIRS pairs; a sparse output makes a single block.
    pairs = useful.sum(dim=0).cumsum(0)
    blocks = torch.arange(1, int(pairs[-1]) // BACKWARD_PAIRS + 1, device=pairs.device) * BACKWARD_PAIRS
    edges = [0, *torch.searchsorted(pairs, blocks).tolist(), len(pairs)] if len(pairs) else [0]
    for start, stop in zip(edges[:-1], edges[1:], strict=True):
        word, row = useful[:, start:stop].T.contiguous().nonzero(as_tuple=True)
        if not len(word):
            continue
        present, place, counts = torch.unique_consecutive(word + start, return_inverse=True, return_counts=True)
        value = gradient[row, word + start]
        token = row * tokens + winner[row, word + start]
        if wants_weight:
            grad_weight[present] = _sum_rows(flat, token, value, counts).to(weight.dtype)
        if wants_hidden:
            token, order = token.sort()
            winners, counts = torch.unique_consecutive(token, return_counts=True)
            words = weight[present].to(gradient.dtype)
            grad_flat[winners] += _sum_rows(words, place[order], value[order], counts)
    return grad_flat.view(batch if wants_hidden else 0, tokens, width).to(hidden.dtype), grad_weight


@_backward.register_fake
def _(gradient, hidden, weight, winner, mask, wants_hidden, wants_weight):
    return (
        hidden.new_empty(hidden.shape if wants_hidden else (0, *hidden.shape[1:])),
        weight.new_empty(weight.shape if wants_weight else (0, weight.shape[1])),
    )


def _setup_context(ctx, inputs, output):
    hidden, weight, bias, mask, *_ = inputs
    ctx.save_for_backward(hidden, weight, mask, output[1])
    ctx.bias_dtype = bias.dtype
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx, gradient, _):
    hidden, weight, mask, winner = ctx.saved_tensors
    wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
    grad_hidden = grad_weight = grad_bias = None
    if wants_bias:
        grad_bias = (gradient * mask.any(dim=1)[:, None]).sum(dim=0).to(ctx.bias_dtype)
    if wants_hidden or wants_weight:
        grad_hidden, grad_weight = _backward(gradient, hidden, weight, winner, mask, wants_hidden, wants_weight)
    return grad_hidden if wants_hidden else None, grad_weight if wants_weight else None, grad_bias, None, None, None


_forward.register_autograd(_differentiate, setup_context=_setup_context)


def max_pooled_projection(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    mask: torch.Tensor,
    tile: tuple[int, int] = (TILE_TOKENS, TILE_WORDS),
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Compute max over valid tokens of (hidden @ weight.T) + bias, without the (B, N, A) tensor.

    Under autocast the product uses autocast's dtype. For `torch.compile` this is one opaque operator.

    Args:
        hidden: (B, N, D).
        weight, bias: (A, D) and (A,).
        mask: (B, N), zero for padding.
        tile: tokens and words of the logits computed at a time on a CPU; bounds memory without changing results.

    Returns:
        scores (B, A), at least float32, zero in rows without valid tokens; and the winning tokens (B, A) int32. One of
        several tied tokens wins and gets the complete gradient; for positive scores, the first.

    Raises:
        ValueError: if the shapes do not match.
    """
    matching = hidden.ndim == 3 and weight.ndim == 2 and weight.shape[1] == hidden.shape[2]
    if not matching or bias.shape != weight.shape[:1] or mask.shape != hidden.shape[:2]:
        shapes = [tuple(tensor.shape) for tensor in (hidden, weight, bias, mask)]
        raise ValueError(f"shapes: got {shapes}; pass hidden (B, N, D), weight (A, D), bias (A,) and mask (B, N)")
    kind = hidden.device.type
    if torch.is_autocast_enabled(kind):
        hidden = hidden.to(torch.get_autocast_dtype(kind))
    with torch.autocast(kind, enabled=False):
        return _forward(hidden, weight, bias, mask.bool(), *tile)
