import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.checkpoint import checkpoint

from lexmotion import lexical_projection
from lexmotion.lexical_head import saturate
from lexmotion.lexical_projection import max_pooled_projection


def plain(hidden, weight, bias, mask):
    logits = hidden @ weight.T + bias
    scores = logits.masked_fill(~mask.bool()[..., None], -torch.inf).amax(dim=1)
    return torch.where(mask.bool().any(dim=1)[:, None], scores, 0.0)


def inputs(batch=3, tokens=5, width=6, words=11, dtype=torch.float64, seed=0):
    """Rows of different length; the last has no token."""
    torch.manual_seed(seed)
    mask = torch.ones(batch, tokens, dtype=torch.int64)
    mask[0, 3:] = 0
    mask[-1] = 0
    return (
        torch.randn(batch, tokens, width, dtype=dtype, requires_grad=True),
        torch.randn(words, width, dtype=dtype, requires_grad=True),
        torch.randn(words, dtype=dtype, requires_grad=True),
        mask,
    )


def gradients(compute, hidden, weight, bias, mask):
    loss = saturate(compute(hidden, weight, bias, mask), "splade").square().sum()
    return torch.autograd.grad(loss, (hidden, weight, bias))


sizes = st.tuples(st.integers(1, 9), st.integers(1, 40), st.integers(1, 5), st.integers(1, 37))
tiles = st.tuples(st.integers(1, 64), st.integers(1, 40))


@settings(deadline=None, max_examples=60)
@given(sizes, tiles, st.floats(0.0, 1.0), st.integers(0, 99))
def test_tiles_of_any_size_give_the_plain_maximum(size, tile, share, seed):
    batch, tokens, width, words = size
    torch.manual_seed(seed)
    hidden, weight, bias = torch.randn(batch, tokens, width), torch.randn(words, width), torch.randn(words)
    mask = torch.rand(batch, tokens) < share
    scores, winner = max_pooled_projection(hidden, weight, bias, mask, tile)
    torch.testing.assert_close(scores, plain(hidden, weight, bias, mask))
    assert bool(mask.gather(1, winner.long())[mask.any(1)].all())


@settings(deadline=None, max_examples=30)
@given(sizes, tiles, st.integers(0, 99))
def test_the_winner_reaches_the_score_in_bfloat16(size, tile, seed):
    batch, tokens, width, words = size
    torch.manual_seed(seed)
    hidden, weight = torch.randn(batch, tokens, width).bfloat16(), torch.randn(words, width).bfloat16()
    mask = torch.rand(batch, tokens) < 0.7
    mask[:, 0] = True
    scores, winner = max_pooled_projection(hidden, weight, torch.zeros(words), mask, tile)
    logits = hidden.float() @ weight.float().T
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, logits.gather(1, winner.long()[:, None]).squeeze(1), rtol=0.02, atol=0.02)
    torch.testing.assert_close(scores, plain(hidden.float(), weight.float(), 0.0, mask), rtol=0.02, atol=0.02)


@settings(deadline=None, max_examples=30)
@given(sizes, st.integers(0, 99), st.integers(1, 50))
def test_gradients_equal_the_plain_ones(size, seed, pairs):
    batch, tokens, width, words = size
    hidden, weight, bias, mask = inputs(batch, tokens, width, words, seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lexical_projection, "BACKWARD_PAIRS", pairs)
        ours = gradients(lambda *a: max_pooled_projection(*a)[0], hidden, weight, bias, mask)
    for mine, reference in zip(ours, gradients(plain, hidden, weight, bias, mask), strict=True):
        torch.testing.assert_close(mine, reference)


def test_gradcheck_in_double_precision():
    hidden, weight, bias, mask = inputs()
    assert torch.autograd.gradcheck(
        lambda h, w, b: max_pooled_projection(h, w, b, mask, (4, 4))[0], (hidden, weight, bias)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_first_of_tied_tokens_wins_and_takes_the_gradient(dtype):
    hidden = torch.ones(1, 4, 2, dtype=dtype, requires_grad=True)
    weight = torch.ones(3, 2, dtype=dtype)
    scores, winner = max_pooled_projection(hidden, weight, torch.zeros(3), torch.tensor([[0, 1, 1, 1]]))
    assert winner.tolist() == [[1, 1, 1]]
    (gradient,) = torch.autograd.grad(scores.sum(), hidden)
    assert gradient[0].sum(dim=1).tolist() == [0, 6, 0, 0]


def test_rows_without_tokens_are_zero_and_send_no_gradient():
    hidden, weight, bias, _ = inputs()
    scores, _ = max_pooled_projection(hidden, weight, bias, torch.zeros(3, 5))
    assert not scores.any()
    assert not any(gradient.any() for gradient in torch.autograd.grad(scores.sum(), (hidden, weight, bias)))


@pytest.mark.parametrize("shape", [(0, 5, 6), (2, 0, 6)])
def test_an_empty_batch_gives_an_empty_result(shape):
    _, weight, bias, _ = inputs()
    hidden = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    scores, winner = max_pooled_projection(hidden, weight, bias, torch.ones(shape[:2]))
    assert scores.shape == winner.shape == (shape[0], 11)
    torch.autograd.grad(scores.sum(), (hidden, weight, bias))


def test_strided_and_broadcast_inputs_equal_contiguous_ones():
    hidden, weight, bias, mask = inputs()
    strided = hidden.detach().transpose(0, 2).contiguous().transpose(0, 2).requires_grad_()
    turned = weight.detach().T.contiguous().T.requires_grad_()
    spread = mask[0].expand(3, 5)
    ours = gradients(lambda *a: max_pooled_projection(*a)[0], strided, turned, bias, spread)
    for mine, reference in zip(ours, gradients(plain, hidden, weight, bias, spread), strict=True):
        torch.testing.assert_close(mine, reference)


@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_frozen_inputs_get_no_gradient_and_change_none(frozen):
    arguments = inputs()
    wanted = gradients(plain, *arguments)
    detached = [value.detach() if place == frozen else value for place, value in enumerate(arguments)]
    rest = [value for place, value in enumerate(arguments[:3]) if place != frozen]
    loss = saturate(max_pooled_projection(*detached)[0], "splade").square().sum()
    for mine, reference in zip(
        torch.autograd.grad(loss, rest), [g for place, g in enumerate(wanted) if place != frozen], strict=True
    ):
        torch.testing.assert_close(mine, reference)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nan_is_passed_on(dtype):
    hidden, weight, bias, mask = (value.detach() for value in inputs(dtype=dtype))
    hidden[1, 2] = torch.nan
    scores, winner = max_pooled_projection(hidden, weight, bias, mask)
    assert scores[1].isnan().all() and not scores[0].isnan().any()
    assert (winner >= 0).all() and (winner < 5).all()


def test_autocast_multiplies_in_bfloat16_and_stays_near():
    hidden, weight, bias, mask = inputs(dtype=torch.float32)
    exact, _ = max_pooled_projection(hidden, weight, bias, mask)
    with torch.autocast("cpu", torch.bfloat16):
        rough, _ = max_pooled_projection(hidden, weight, bias, mask)
        gradient = torch.autograd.grad(rough.sum(), weight)[0]
    assert rough.dtype == torch.float32 and gradient.dtype == torch.float32
    assert not torch.equal(rough, exact)
    torch.testing.assert_close(rough, exact, atol=0.1, rtol=0.05)


def test_half_precision_works_on_a_cpu():
    hidden, weight, bias, mask = inputs(dtype=torch.float16)
    scores, _ = max_pooled_projection(hidden, weight, bias, mask)
    torch.testing.assert_close(scores, plain(*(v.float() for v in (hidden, weight, bias)), mask), atol=2e-3, rtol=2e-3)
    assert torch.autograd.grad(scores.sum(), hidden)[0].dtype == torch.float16


def test_compiled_as_one_opaque_operator():
    hidden, weight, bias, mask = inputs()

    def loss(hidden, weight, bias):
        return max_pooled_projection(hidden * 2, weight, bias, mask)[0].square().sum()

    wanted = torch.autograd.grad(loss(hidden, weight, bias), (hidden, weight, bias))
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for mine, reference in zip(
        torch.autograd.grad(compiled(hidden, weight, bias), (hidden, weight, bias)), wanted, strict=True
    ):
        torch.testing.assert_close(mine, reference)


def test_the_operators_keep_the_contract_of_torch():
    hidden, weight, bias, mask = inputs()
    torch.library.opcheck(lexical_projection._forward, (hidden, weight, bias, mask.bool(), 4, 4))


def test_gradient_checkpointing_gives_the_same_gradients():
    hidden, weight, bias, mask = inputs()

    def again(*arguments):
        return checkpoint(lambda *a: max_pooled_projection(*a)[0], *arguments, use_reentrant=False)

    for mine, reference in zip(
        gradients(again, hidden, weight, bias, mask), gradients(plain, hidden, weight, bias, mask), strict=True
    ):
        torch.testing.assert_close(mine, reference)


@pytest.mark.parametrize(
    "change",
    [
        lambda h, w, b, m: (h[0], w, b, m),
        lambda h, w, b, m: (h, w[:, :4], b, m),
        lambda h, w, b, m: (h, w, b[:3], m),
        lambda h, w, b, m: (h, w, b, m[:, :2]),
    ],
)
def test_shapes_that_do_not_fit_are_named(change):
    with pytest.raises(ValueError, match=r"\(\d+, \d+.*\), \(\d+, \d+\), \(\d+,\).*\(\d+, \d+\).*hidden \(B, N, D\)"):
        max_pooled_projection(*change(*inputs()))


# ---- Triton ------------------------------------------------------------


def test_the_triton_kernel_equals_the_plain_maximum():
    pytest.importorskip("triton", reason="Triton is not installed")
    script = Path(__file__).with_name("interpreted_triton.py")
    done = subprocess.run(
        [sys.executable, str(script)], env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gpu_gives_the_result_of_the_cpu(dtype):
    hidden, weight, bias, mask = inputs(8, 70, 128, 1003, dtype)
    reference = gradients(lambda *a: max_pooled_projection(*a)[0], hidden, weight, bias, mask)
    places = [value.detach().cuda().requires_grad_() for value in (hidden, weight, bias)]
    ours = gradients(lambda *a: max_pooled_projection(*a)[0], *places, mask.cuda())
    for mine, wanted in zip(ours, reference, strict=True):
        difference = (mine.cpu().double() - wanted.double()).norm() / wanted.double().norm()
        assert difference < (1e-4 if dtype == torch.float32 else 2e-2)
