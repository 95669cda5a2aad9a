"""The lexical head compared with `log1p(relu(h @ W.T + b)).amax(1)`, the form used by published models."""

import torch

from lexmotion.lexical_head import saturate
from lexmotion.lexical_projection import TILE_WORDS, max_pooled_projection

from .harness import Case, compare_tensors

DESCRIPTION = "lexical head: projection to the vocabulary, maximum over tokens, saturation"
QUICK = {"batch": 4, "tokens": 32, "words": 8192}


def _inputs(batch: int, tokens: int, width: int, words: int, active: int, dtype: torch.dtype, device: str):
    """Build inputs with a bias that leaves `active` words per row positive, as in a trained model."""
    torch.manual_seed(0)
    hidden = torch.randn(batch, tokens, width, dtype=dtype, device=device, requires_grad=True)
    weight = (0.05 * torch.randn(words, width, device=device)).to(dtype).requires_grad_()
    mask = torch.ones(batch, tokens, dtype=torch.bool, device=device)
    with torch.no_grad():
        sample = min(batch, 8)
        scores, _ = max_pooled_projection(hidden[:sample], weight, weight.new_zeros(words), mask[:sample])
        level = scores.flatten().topk(min(active * sample, scores.numel())).values[-1]
    bias = weight.new_full((words,), -float(level)).requires_grad_()
    return hidden, weight, bias, mask


def cases(
    batch: int = 32,
    tokens: int = 70,
    width: int = 384,
    words: int = 30522,
    active: int = 128,
    memory_batch: int = 0,
    device: str = "",
) -> list[Case]:
    """
    Build the cases of both precisions.

    Args:
        batch, tokens, width, words: B, N, D, V.
        active: positive words per row.
        memory_batch: batch size of one more training case, 0 for none (the baseline runs out of memory at 512).
        device: if empty, a GPU if available.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    found = []
    sizes = tokens, width, words, active, device
    for dtype in (torch.float32, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        found += [_training(name, dtype, batch, *sizes), _forward(name, dtype, batch, *sizes)]
    if memory_batch:
        found.append(_training(f"bfloat16, batch {memory_batch}", torch.bfloat16, memory_batch, *sizes))
    return found


def _training(name, dtype, batch, tokens, width, words, active, device) -> Case:
    held: dict = {}

    def inputs():
        if not held:
            held["inputs"] = _inputs(batch, tokens, width, words, active, dtype, device)
            held["gradient"] = torch.rand(batch, words, device=device)
        return held["inputs"]

    def differentiate(embeds, tensors):
        return torch.autograd.grad(embeds, tensors, held["gradient"].to(embeds.dtype))

    def ours():
        hidden, weight, bias, mask = inputs()
        embeds = saturate(max_pooled_projection(hidden, weight, bias, mask)[0], "splade")
        return embeds.detach(), *differentiate(embeds, (hidden, weight, bias))

    def plain():
        hidden, weight, bias, _ = inputs()
        embeds = torch.log1p(torch.relu(hidden @ weight.T + bias)).amax(dim=1)
        return embeds.detach(), *differentiate(embeds, (hidden, weight, bias))

    def agree(mine, reference):
        # Tokens whose scores round to the same bfloat16 tie, and any of them can get the gradient.
        tolerance = 1e-4 if dtype == torch.float32 else 2e-2
        return f"vectors and gradients: {compare_tensors(mine, reference, tolerance)}"

    inputs()
    return Case(f"forward and backward, {name}", ours, plain, agree, batch, "rows")


def _forward(name, dtype, batch, tokens, width, words, active, device) -> Case:
    hidden, weight, bias, mask = (
        value.detach() for value in _inputs(batch, tokens, width, words, active, dtype, device)
    )

    def ours():
        return max_pooled_projection(hidden, weight, bias, mask)[0]

    def plain():
        """Compute only the matrix product, with the same number of columns at a time."""
        flat = hidden.view(-1, width)
        logits = flat.new_empty(flat.shape[0] * TILE_WORDS)
        for start in range(0, words, TILE_WORDS):
            columns = weight[start : start + TILE_WORDS].T
            out = logits[: flat.shape[0] * columns.shape[1]].view(flat.shape[0], -1)
            torch.mm(flat, columns, out=out)
        return out

    def agree(mine, last):
        best = last.view(batch, tokens, -1).amax(dim=1).to(mine.dtype) + bias[-last.shape[1] :].to(mine.dtype)
        return compare_tensors(mine[:, -last.shape[1] :], best, 1e-5 if dtype == torch.float32 else 1e-2)

    return Case(f"forward against the bare product, {name}", ours, plain, agree, batch, "rows")
