import math

import pytest
import torch

from lexmotion.training.schedules import (
    SparsityController,
    WeightAverage,
    cosine_momentum,
    learning_rate_factor,
    quadratic_warmup,
)


def test_learning_rate_warms_up_then_decays():
    factors = [learning_rate_factor(step, 100, 10) for step in range(101)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9] == factors[10] == 1.0
    assert factors[55] == pytest.approx(0.5)
    assert factors[100] == pytest.approx(0.0)
    assert factors[10:] == sorted(factors[10:], reverse=True)


def test_linear_constant_and_floor():
    assert learning_rate_factor(55, 100, 10, "linear") == pytest.approx(0.5)
    assert learning_rate_factor(99, 100, 10, "constant") == 1.0
    assert learning_rate_factor(100, 100, 0, "cosine", minimum=0.1) == pytest.approx(0.1)
    with pytest.raises(ValueError, match="lr_scheduler.*'step'.*cosine"):
        learning_rate_factor(5, 10, 0, "step")


def test_quadratic_warmup_and_cosine_momentum():
    assert [quadratic_warmup(step, 4) for step in (0, 2, 4, 9)] == [0.0, 0.25, 1.0, 1.0]
    assert quadratic_warmup(0, 0) == 1.0
    assert cosine_momentum(0, 10, 0.996) == pytest.approx(0.996)
    assert cosine_momentum(5, 10, 0.996) == pytest.approx(0.998)
    assert cosine_momentum(10, 10, 0.996) == 1.0


def test_controller_waits_for_the_warmup_then_corrects_every_interval():
    controller = SparsityController(1e-3, warmup_steps=4, target=10, interval=2)
    assert controller.weight(2) == pytest.approx(0.25e-3)
    for step in range(4):
        controller.observe(step, 99.0)
    assert controller.scale == 1.0
    controller.observe(4, 30.0)
    controller.observe(5, 30.0)
    assert controller.weight(6) == pytest.approx(1.05e-3)
    controller.observe(6, 5.0)
    controller.observe(7, 5.0)
    assert controller.weight(8) == pytest.approx(1.05 * 0.95 * 1e-3)


def test_controller_holds_a_plant_at_its_target():
    controller = SparsityController(1.0, warmup_steps=0, target=64, interval=5)
    active = 400.0
    for step in range(2000):
        active = 100.0 / controller.weight(step)  # heavier weight, fewer words
        controller.observe(step, active)
    assert active == pytest.approx(64, rel=0.1)


def test_controller_state_survives_in_the_middle_of_an_interval():
    one, two = (SparsityController(1.0, 0, 10, 4) for _ in range(2))
    for step in range(6):
        one.observe(step, 20.0 + step)
    two.load_state_dict(one.state_dict())
    for step in range(6, 30):
        one.observe(step, 3.0 * step)
        two.observe(step, 3.0 * step)
    assert one.state_dict() == two.state_dict()


def test_controller_without_target_keeps_its_weight():
    controller = SparsityController(2.0, 0, None, 1)
    controller.observe(0, 1e6)
    assert controller.weight(1) == 2.0
    with pytest.raises(ValueError, match=r"interval\b.*\b0\b"):
        SparsityController(1.0, 0, 10, 0)


def test_average_follows_swaps_and_restores():
    layer = torch.nn.Linear(2, 2)
    average = WeightAverage(layer.named_parameters(), 0.9)
    start = layer.weight.detach().clone()
    with torch.no_grad():
        layer.weight.add_(1.0)
    average.update(step=10**6)
    own = layer.weight.detach().clone()
    with average.applied():
        assert torch.allclose(layer.weight, start + 0.1)
    assert torch.equal(layer.weight, own)
    average.copy_to_parameters()
    assert torch.allclose(layer.weight, start + 0.1)
    with pytest.raises(ValueError, match=r"\['bias'\]"):
        average.load_state_dict({"weight": start})


def test_average_forgets_the_initial_weights_in_short_runs():
    layer = torch.nn.Linear(1, 1, bias=False)
    average = WeightAverage(layer.named_parameters(), 0.999)
    with torch.no_grad():
        layer.weight.fill_(5.0)
    for step in range(50):
        average.update(step)
    assert math.isclose(float(average.shadow["weight"]), 5.0, rel_tol=1e-3)
