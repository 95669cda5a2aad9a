"""Run by `test_lexical_projection.py` with TRITON_INTERPRET=1, which has to be set before Triton is imported."""

import torch

from lexmotion.lexical_projection import max_pooled_projection
from lexmotion.lexical_projection_triton import supports_triton


def check(batch: int, tokens: int, width: int, words: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    hidden = torch.randn(batch, tokens, width).to(dtype).requires_grad_()
    weight = torch.randn(words, width).to(dtype).requires_grad_()
    bias = torch.randn(words, requires_grad=True)
    mask = torch.rand(batch, tokens) < 0.6
    mask[:-1, -1] = True
    mask[-1] = False
    assert supports_triton(hidden)
    scores, winner = max_pooled_projection(hidden, weight, bias, mask)
    logits = hidden.float() @ weight.float().T + bias
    wanted = logits.masked_fill(~mask[..., None], -torch.inf).amax(dim=1)
    wanted = torch.where(mask.any(dim=1)[:, None], wanted, 0.0)
    torch.testing.assert_close(scores, wanted, rtol=1e-4, atol=1e-4)
    at_winner = logits.gather(1, winner.long()[:, None]).squeeze(1)
    torch.testing.assert_close(scores[:-1], at_winner[:-1], rtol=1e-4, atol=1e-4)
    near = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 0.02, "atol": 0.02}
    ours, plain = (torch.autograd.grad(result.sum(), (hidden, weight, bias)) for result in (scores, wanted))
    for mine, reference in zip(ours, plain, strict=True):
        torch.testing.assert_close(mine, reference, **near)


if __name__ == "__main__":
    for shape in [(3, 5, 6, 11), (2, 70, 33, 130), (1, 1, 1, 1), (2, 100, 64, 129)]:
        for kind in (torch.float32, torch.float16):
            check(*shape, kind)
    for unsupported in (torch.float64, torch.bfloat16):
        assert not supports_triton(torch.zeros(1, 2, 3, dtype=unsupported))
    assert not supports_triton(torch.zeros(0, 2, 3))
