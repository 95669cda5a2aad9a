"""
The maximum over tokens of hidden @ weight.T as a Triton kernel: logits stay in registers and never reach memory.

Triton comes with the CUDA builds of PyTorch; without it, the tiled product of `lexical_projection.py` is used. With
`TRITON_INTERPRET=1` the kernel runs on a CPU, one operation at a time, for tests.
"""

import os

import torch

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = None

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def supports_triton(hidden: torch.Tensor) -> bool:
    """Return whether the kernel can run on this tensor; double precision and empty batches are not supported."""
    kinds = (torch.float32, torch.float16) if INTERPRETED else (torch.float32, torch.bfloat16, torch.float16)
    return (
        triton is not None
        and (hidden.is_cuda or INTERPRETED)
        and hidden.dtype in kinds  # Triton 3.9's interpreter multiplies the bits of bfloat16 numbers as integers
        and hidden.numel() > 0
    )


if triton is not None:
    SHAPES = [(128, 64, 4, 3), (128, 64, 8, 3), (256, 64, 8, 3), (128, 128, 8, 2), (64, 64, 4, 4)]
    CONFIGURATIONS = [
        triton.Config({"BLOCK_WORDS": words, "BLOCK_WIDTH": width}, num_warps=warps, num_stages=stages)
        for words, width, warps, stages in SHAPES
    ]

    def _tuned(kernel):
        key = ["width", "words", "BLOCK_TOKENS", "num_blocks"]  # the interpreter's times are not worth tuning
        return triton.autotune(CONFIGURATIONS[:1] if INTERPRETED else CONFIGURATIONS, key=key)(kernel)

    @_tuned
    @triton.jit
    def _max_over_tokens(
        hidden,
        tokens,
        lengths,
        weight,
        scores,
        winner,
        words,
        row_tokens,
        width,
        num_blocks,
        BLOCK_TOKENS: tl.constexpr,  # noqa: N803  (compile-time constants, in Triton's spelling)
        BLOCK_WORDS: tl.constexpr,  # noqa: N803
        BLOCK_WIDTH: tl.constexpr,  # noqa: N803
        PRECISION: tl.constexpr,  # noqa: N803
    ):
        # One program handles one row, BLOCK_WORDS words and all tokens of the row. Rows vary fastest, so that programs
        # that run together share their words in the cache.
        row = tl.program_id(0)
        word = tl.program_id(1) * BLOCK_WORDS + tl.arange(0, BLOCK_WORDS)
        word_ok = word < words
        length = tl.load(lengths + row)
        best = tl.full([BLOCK_WORDS], float("-inf"), tl.float32)
        place = tl.zeros([BLOCK_WORDS], tl.int32)
        for block in range(num_blocks):
            if block * BLOCK_TOKENS < length:
                position = block * BLOCK_TOKENS + tl.arange(0, BLOCK_TOKENS)
                token_ok = position < length
                token = tl.load(tokens + row * row_tokens + position, mask=token_ok, other=0)
                state = hidden + (row * row_tokens + token).to(tl.int64)[None, :] * width
                logits = tl.zeros([BLOCK_WORDS, BLOCK_TOKENS], tl.float32)
                for start in range(0, width, BLOCK_WIDTH):
                    column = start + tl.arange(0, BLOCK_WIDTH)
                    column_ok = column < width
                    cells = weight + word.to(tl.int64)[:, None] * width + column[None, :]
                    left = tl.load(cells, mask=word_ok[:, None] & column_ok[None, :], other=0.0)
                    right = tl.load(state + column[:, None], mask=column_ok[:, None] & token_ok[None, :], other=0.0)
                    logits = tl.dot(left, right, logits, input_precision=PRECISION)
                logits = tl.where(token_ok[None, :], logits, float("-inf"))
                here, at = tl.max(logits, axis=1, return_indices=True)
                better = here > best  # of ties, the first token wins
                best = tl.where(better, here, best)
                place = tl.where(better, block * BLOCK_TOKENS + at.to(tl.int32), place)
        token = tl.load(tokens + row * row_tokens + place, mask=word_ok, other=0)
        out = row.to(tl.int64) * words + word
        tl.store(scores + out, best, mask=word_ok)
        tl.store(winner + out, token, mask=word_ok)


def max_over_tokens_triton(
    hidden: torch.Tensor, weight: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Compute maxima over valid tokens, (B, A) float32 (-inf in rows without any), and the winning tokens, (B, A) int32.

    Args:
        hidden: (B, N, D) float32, bfloat16 or float16.
        weight, mask: (A, D) and (B, N) bool.
    """
    batch, tokens, width = hidden.shape
    words = weight.shape[0]
    hidden, weight = hidden.contiguous(), weight.to(hidden.dtype).contiguous()
    scores = hidden.new_empty(batch, words, dtype=torch.float32)
    winner = hidden.new_empty(batch, words, dtype=torch.int32)
    if words == 0:
        return scores, winner
    lengths = mask.sum(dim=1, dtype=torch.int32)
    valid_first = mask.int().argsort(dim=1, descending=True, stable=True).to(torch.int32)
    # Padding 70 tokens to blocks of 64 costs more than smaller products lose.
    block = 64 if tokens > 96 else 16 if tokens <= 16 else 32
    exact = hidden.dtype == torch.float32 and torch.get_float32_matmul_precision() == "highest"

    def grid(options):
        return (batch, triton.cdiv(words, options["BLOCK_WORDS"]))

    tensors, sizes = (hidden, valid_first, lengths, weight, scores, winner), (words, tokens, width)
    options = {"BLOCK_TOKENS": block, "PRECISION": "ieee" if exact else "tf32"}
    _max_over_tokens[grid](*tensors, *sizes, triton.cdiv(tokens, block), **options)
    return scores, winner
