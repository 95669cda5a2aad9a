from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lexmotion.lexical_head import LexicalHead, at_least, keep_top_k


def inputs(batch=3, tokens=5, width=6, words=11):
    torch.manual_seed(0)
    mask = torch.ones(batch, tokens, dtype=torch.int64)
    mask[0, 3:] = 0
    mask[-1] = 0
    return torch.randn(batch, tokens, width), torch.randn(words, width), mask


def config(**fields):
    """What a head reads of a tower's configuration."""
    return SimpleNamespace(
        **{"num_active_words": None, "head_kind": "splade", "head_act": "gelu", "top_k": None} | fields
    )


def head(kind="splade", top_k=None, active=None):
    torch.manual_seed(1)
    module = LexicalHead(config(vocab_size=11, num_active_words=active, head_kind=kind, top_k=top_k), 6)
    torch.nn.init.normal_(module.bias)
    return module


def test_saturation_after_the_maximum_equals_before_it():
    hidden, weight, mask = inputs()
    module = head()
    scores, _ = module.pool(hidden, mask, weight)
    tokens = torch.log1p(torch.relu(module.token_logits(hidden, weight)))
    after = tokens.masked_fill(~mask.bool()[..., None], 0.0).amax(dim=1)
    torch.testing.assert_close(module.embed(scores), after)


def test_inactive_words_are_zero_and_active_ones_unchanged():
    hidden, weight, mask = inputs()
    full = head()
    embeds = full.embed(full.pool(hidden, mask, weight)[0])
    full.active_ids = torch.tensor([1, 4, 7])
    some = full.embed(full.pool(hidden, mask, weight)[0])
    torch.testing.assert_close(some[:, [1, 4, 7]], embeds[:, [1, 4, 7]])
    assert some[:, [0, 2, 3, 5, 6, 8, 9, 10]].count_nonzero() == 0


def test_training_on_active_words_has_the_gradients_of_the_full_head_masked():
    hidden, weight, mask = inputs()
    kept = torch.zeros(11)
    kept[[1, 4, 7]] = 1.0
    gradients = []
    for active in (torch.arange(11), torch.tensor([1, 4, 7])):
        module = head()
        module.active_ids = active
        leaves = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        embeds = module.embed(module.pool(leaves[0], mask, leaves[1])[0]) * kept
        embeds.square().sum().backward()
        gradients.append([*(leaf.grad for leaf in leaves), module.bias.grad, module.dense.weight.grad])
    for full, some in zip(*gradients, strict=True):
        torch.testing.assert_close(some, full)


def test_top_k_keeps_the_largest():
    kept = keep_top_k(torch.tensor([[0.1, 0.5, 0.0, 0.3]]), 2)
    assert kept.tolist() == [[0.0, 0.5, 0.0, pytest.approx(0.3)]]


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 10), st.integers(0, 99))
def test_rows_with_too_few_words_are_lifted_and_the_others_left_alone(least, seed):
    torch.manual_seed(seed)
    scores = torch.randn(6, 11) - torch.linspace(-2, 3, 6)[:, None]
    lifted = at_least(scores, least)
    enough = (scores > 0).sum(dim=1) >= least
    assert torch.equal(lifted[enough], scores[enough])
    assert ((lifted[~enough] > 0).sum(dim=1) == least).all()
    assert torch.equal(lifted.argsort(dim=1), scores.argsort(dim=1))


def test_words_of_most_items_stay_where_they_are_strongest_with_their_weights():
    torch.manual_seed(0)
    module = head()
    scores = torch.randn(20, 11) + torch.linspace(-2, 2, 11)
    before, common = module.weigh(scores), (scores > 0).sum(dim=0) > 8
    assert module.limit_frequency(scores, 0.4) == int(common.sum()) > 0
    after = module.weigh(scores)
    assert ((after > 0).sum(dim=0)[common] == 8).all()
    assert torch.equal(after[:, ~common], before[:, ~common])
    kept = scores[:, common].argsort(dim=0, descending=True)[:8]
    assert torch.equal(after[:, common].gather(0, kept), before[:, common].gather(0, kept))


def test_a_row_with_too_few_words_is_lifted_by_those_nearest_to_their_thresholds():
    module = LexicalHead(config(vocab_size=3, min_words=2), 6)
    module.limit_frequency(torch.tensor([[1.0, 5.0, -1.0], [1.0, 4.0, -1.0]]), 0.4)
    weights = module.weigh(torch.tensor([[0.9, 3.0, -0.5]]))
    assert (weights > 0).tolist() == [[True, False, True]]


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_share_of_none_or_all_is_refused(share):
    with pytest.raises(ValueError, match=rf"share\b.*\b{share}\b"):
        head().limit_frequency(torch.randn(4, 11), share)


def test_a_head_that_is_never_zero_has_no_words_to_limit():
    with pytest.raises(ValueError, match="motion_word_share.*'vdr'"):
        head("vdr").limit_frequency(torch.randn(4, 11), 0.5)


def test_vdr_form_has_unit_length_before_top_k():
    hidden, weight, mask = inputs()
    module = head("vdr")
    embeds = module.embed(module.pool(hidden, mask, weight)[0])
    torch.testing.assert_close(embeds.norm(dim=1), torch.ones(3))
    assert (head("vdr", top_k=3).embed(torch.randn(2, 11)) > 0).sum(dim=1).tolist() == [3, 3]


def test_bottleneck_is_a_mixture_of_words_and_moves_no_word():
    _, weight, _ = inputs()
    scores = torch.randn(2, 11, requires_grad=True)
    log_p, b = head().bottleneck(scores, weight)
    torch.testing.assert_close(b, log_p.exp() @ weight)
    b.sum().backward()
    assert weight.grad is None and scores.grad is not None


def test_calibration_sets_the_mean_number_of_active_words():
    hidden, weight, mask = inputs(batch=8)
    mask[:] = 1
    module = head()
    scores, _ = module.pool(hidden, mask, weight)
    module.calibrate(scores, 4)
    embeds = module.embed(module.pool(hidden, mask, weight)[0])
    assert (embeds > 0).sum(dim=1).float().mean().item() == pytest.approx(4, abs=0.2)


def test_calibration_refuses_more_words_than_there_are():
    with pytest.raises(ValueError, match=r"active_words.*\b12\b.*1\.\.11\b"):
        head().calibrate(torch.zeros(2, 11), 12)
