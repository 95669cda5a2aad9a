import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lexmotion.lexical_head import LexicalHead, keep_top_k, max_pooled_projection, saturate


def plain(hidden, weight, bias, mask):
    logits = hidden @ weight.T + bias
    scores = logits.masked_fill(~mask.bool()[..., None], -torch.inf).amax(dim=1)
    return torch.where(mask.bool().any(dim=1)[:, None], scores, 0.0)


def inputs(batch=3, tokens=5, width=6, words=11, dtype=torch.float64):
    torch.manual_seed(0)
    mask = torch.ones(batch, tokens, dtype=torch.int64)
    mask[0, 3:] = 0
    mask[-1] = 0
    return (
        torch.randn(batch, tokens, width, dtype=dtype, requires_grad=True),
        torch.randn(words, width, dtype=dtype, requires_grad=True),
        torch.randn(words, dtype=dtype, requires_grad=True),
        mask,
    )


@settings(deadline=None, max_examples=25)
@given(
    st.integers(1, 4), st.integers(1, 7), st.integers(1, 5), st.integers(1, 13), st.integers(1, 16), st.integers(0, 99)
)
def test_chunked_maximum_equals_the_plain_one(batch, tokens, width, words, chunk, seed):
    torch.manual_seed(seed)
    hidden, weight, bias = torch.randn(batch, tokens, width), torch.randn(words, width), torch.randn(words)
    mask = torch.rand(batch, tokens) < 0.7
    scores, winners = max_pooled_projection(hidden, weight, bias, mask, chunk)
    torch.testing.assert_close(scores, plain(hidden, weight, bias, mask))
    assert bool(mask.gather(1, winners)[mask.any(1)].all())


@pytest.mark.parametrize("chunk", [4, 64])
def test_gradients_equal_the_plain_ones(chunk):
    hidden, weight, bias, mask = inputs()
    grads = []
    for compute in (lambda *a: max_pooled_projection(*a, chunk)[0], plain):
        loss = saturate(compute(hidden, weight, bias, mask), "splade").square().sum()
        grads.append(torch.autograd.grad(loss, (hidden, weight, bias)))
    for ours, reference in zip(*grads, strict=True):
        torch.testing.assert_close(ours, reference)


def test_gradcheck_in_double_precision():
    hidden, weight, bias, mask = inputs()
    assert torch.autograd.gradcheck(lambda h, w, b: max_pooled_projection(h, w, b, mask, 4)[0], (hidden, weight, bias))


def test_bfloat16_autocast_stays_near_float32():
    hidden, weight, bias, mask = inputs(dtype=torch.float32)
    exact, _ = max_pooled_projection(hidden, weight, bias, mask)
    with torch.autocast("cpu", torch.bfloat16):
        rough, _ = max_pooled_projection(hidden, weight, bias, mask)
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, atol=0.1, rtol=0.05)


def head(kind="splade", top_k=None, active=None):
    torch.manual_seed(1)
    module = LexicalHead(6, 11, active, kind, "gelu", top_k, 4)
    torch.nn.init.normal_(module.bias)
    return module


def test_saturation_after_the_maximum_equals_before_it():
    hidden, weight, _, mask = inputs(dtype=torch.float32)
    module = head()
    scores, _ = module.pool(hidden, mask, weight)
    tokens = torch.log1p(torch.relu(module.token_logits(hidden, weight)))
    after = tokens.masked_fill(~mask.bool()[..., None], 0.0).amax(dim=1)
    torch.testing.assert_close(module.embed(scores), after)


def test_inactive_words_are_zero_and_active_ones_unchanged():
    hidden, weight, _, mask = inputs(dtype=torch.float32)
    full = head()
    embeds = full.embed(full.pool(hidden, mask, weight)[0])
    full.active_ids = torch.tensor([1, 4, 7])
    some = full.embed(full.pool(hidden, mask, weight)[0])
    torch.testing.assert_close(some[:, [1, 4, 7]], embeds[:, [1, 4, 7]])
    assert some[:, [0, 2, 3, 5, 6, 8, 9, 10]].count_nonzero() == 0


def test_top_k_keeps_the_largest():
    kept = keep_top_k(torch.tensor([[0.1, 0.5, 0.0, 0.3]]), 2)
    assert kept.tolist() == [[0.0, 0.5, 0.0, pytest.approx(0.3)]]


def test_vdr_form_has_unit_length_before_top_k():
    hidden, weight, _, mask = inputs(dtype=torch.float32)
    module = head("vdr")
    embeds = module.embed(module.pool(hidden, mask, weight)[0])
    torch.testing.assert_close(embeds.norm(dim=1), torch.ones(3))
    assert (head("vdr", top_k=3).embed(torch.randn(2, 11)) > 0).sum(dim=1).tolist() == [3, 3]


def test_bottleneck_is_a_mixture_of_words_and_moves_no_word():
    _, weight, _, _ = inputs(dtype=torch.float32)
    scores = torch.randn(2, 11, requires_grad=True)
    log_p, b = head().bottleneck(scores, weight)
    torch.testing.assert_close(b, log_p.exp() @ weight)
    b.sum().backward()
    assert weight.grad is None and scores.grad is not None


def test_calibration_sets_the_mean_number_of_active_words():
    hidden, weight, _, mask = inputs(batch=8, dtype=torch.float32)
    mask[:] = 1
    module = head()
    scores, _ = module.pool(hidden, mask, weight)
    module.calibrate(scores, 4)
    embeds = module.embed(module.pool(hidden, mask, weight)[0])
    assert (embeds > 0).sum(dim=1).float().mean().item() == pytest.approx(4, abs=0.2)


def test_calibration_refuses_more_words_than_there_are():
    with pytest.raises(ValueError, match="1..11"):
        head().calibrate(torch.zeros(2, 11), 12)
