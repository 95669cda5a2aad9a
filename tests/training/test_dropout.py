import pytest
import torch
from torch import nn

from lexmotion.training.dropout import ByteDropout, use_byte_dropout


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_drops_the_share_it_says_and_keeps_the_mean(p, dtype):
    torch.manual_seed(0)
    states = torch.ones(300, 301, dtype=dtype)
    out = ByteDropout(p)(states).float()
    kept = 1 - round(256 * p) / 256
    assert (out == 0).float().mean().item() == pytest.approx(1 - kept, abs=0.01)
    assert out[out != 0].unique().tolist() == [pytest.approx(1 / kept, rel=0.01)]


def test_the_gradient_flows_where_the_value_did():
    torch.manual_seed(0)
    states = torch.ones(7, 11, requires_grad=True)
    out = ByteDropout(0.5)(states)
    out.sum().backward()
    assert torch.equal(states.grad, out)


def test_the_seed_decides_and_neighbours_are_independent():
    drop, states = ByteDropout(0.5), torch.ones(40, 800)
    torch.manual_seed(3)
    first = drop(states)
    torch.manual_seed(3)
    again = drop(states)
    assert torch.equal(first, again) and not torch.equal(again, drop(states))
    kept = (again != 0).float() - 0.5
    together = [(kept[:, :-lag] * kept[:, lag:]).mean().item() for lag in range(1, 17)]
    assert together == pytest.approx([0.0] * 16, abs=0.01)


def test_evaluation_and_no_dropout_change_nothing():
    states = torch.randn(5, 6)
    assert torch.equal(ByteDropout(0.5).eval()(states), states)
    assert torch.equal(ByteDropout(0.0)(states), states)


def test_every_dropout_of_a_model_is_replaced_and_no_weight_renamed():
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.3)
    names = list(layer.state_dict())
    use_byte_dropout(layer.eval())
    kinds = [module for module in layer.modules() if isinstance(module, nn.Dropout)]
    assert kinds and all(type(module) is ByteDropout and module.p == 0.3 and not module.training for module in kinds)
    assert list(layer.state_dict()) == names
