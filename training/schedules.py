"""Schedules of the learning rate, the sparsity weight, the teacher's momentum and the weight average."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch


def learning_rate_factor(
    step: int, num_steps: int, warmup_steps: int, kind: str = "cosine", minimum: float = 0.0
) -> float:
    """
    Return the learning rate at a step as a share of the peak: linear warm-up, then cosine, linear or constant.

    Args:
        step: optimiser steps already taken.
        num_steps: steps of the run, at which the decay ends.
        warmup_steps: the factor is (step + 1) / warmup_steps before this step.
        kind: `cosine`, `linear` or `constant`.
        minimum: factor at the end of the decay.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = min(1.0, (step - warmup_steps) / max(1, num_steps - warmup_steps))
    if kind == "cosine":
        decay = 0.5 * (1.0 + math.cos(math.pi * progress))
    elif kind == "linear":
        decay = 1.0 - progress
    elif kind == "constant":
        decay = 1.0
    else:
        raise ValueError(f"lr_scheduler: got {kind!r}; pass cosine, linear or constant")
    return minimum + (1.0 - minimum) * decay


def quadratic_warmup(step: int, warmup_steps: int) -> float:
    """Return the FLOPS weight at a step as a share of its final value: (step / warmup)^2, then 1 (SPLADE)."""
    return 1.0 if warmup_steps <= 0 else min(1.0, step / warmup_steps) ** 2


def cosine_momentum(step: int, num_steps: int, start: float) -> float:
    """Return the momentum of a teacher, which grows from `start` to 1 along half a cosine."""
    return 1.0 - (1.0 - start) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, step / max(1, num_steps))))


class SparsityController:
    """
    The weight of a FLOPS term: quadratic warm-up, then corrections towards a mean number of active words.

    Args:
        weight: lambda after the warm-up.
        warmup_steps: steps of the quadratic warm-up; corrections start after it.
        target: mean number of active words to hold; None: no corrections.
        interval: steps between corrections.
        factor: lambda is multiplied by `factor` if more words than `target` are active, else by 2 - `factor`.
    """

    def __init__(
        self, weight: float, warmup_steps: int, target: int | None = None, interval: int = 50, factor: float = 1.05
    ):
        if interval < 1:
            raise ValueError(f"interval: got {interval}; pass at least 1 step (sparsity_interval)")
        self.base, self.warmup_steps, self.target = weight, warmup_steps, target
        self.interval, self.factor = interval, factor
        self.scale, self.total, self.count = 1.0, 0.0, 0

    def weight(self, step: int) -> float:
        """Return lambda at a step."""
        return self.base * self.scale * quadratic_warmup(step, self.warmup_steps)

    def observe(self, step: int, active_words: float) -> None:
        """Record the mean active words of a step; every `interval` steps after the warm-up, correct lambda."""
        if self.target is None or step < self.warmup_steps:
            return
        self.total += active_words
        self.count += 1
        if self.count == self.interval:
            over = self.total / self.count > self.target
            self.scale = min(1e4, max(1e-4, self.scale * (self.factor if over else 2.0 - self.factor)))
            self.total, self.count = 0.0, 0

    def state_dict(self) -> dict[str, float]:
        return {"scale": self.scale, "total": self.total, "count": self.count}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.scale, self.total, self.count = float(state["scale"]), float(state["total"]), int(state["count"])


class WeightAverage:
    """
    Exponential moving average of trainable weights, which is evaluated and saved in their place.

    The decay is min(decay, (1 + step) / (10 + step)), so that the initial weights do not dominate short runs.

    Args:
        parameters: (name, parameter) pairs; the average is initialized with a copy.
    """

    def __init__(self, parameters: Iterable[tuple[str, torch.nn.Parameter]], decay: float):
        self.decay = decay
        self.parameters = dict(parameters)
        self.shadow = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Update the average with the weights after step number `step` (0-based)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(
            list(self.shadow.values()), [self.parameters[name].detach() for name in self.shadow], 1.0 - decay
        )

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Swap the averaged weights into the model inside this context."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def copy_to_parameters(self) -> None:
        """Replace the model's weights by their average permanently."""
        for name, parameter in self.parameters.items():
            parameter.copy_(self.shadow[name])

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self.parameters.items():
            own = parameter.detach().clone()
            parameter.copy_(self.shadow[name])
            self.shadow[name].copy_(own)

    def state_dict(self) -> dict[str, torch.Tensor]:
        return self.shadow

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        if set(state) != set(self.shadow):
            differing = sorted(set(state) ^ set(self.shadow))[:5]
            raise ValueError(f"ema.safetensors: {differing} differ from the model's weights; pass another output_dir")
        for name, tensor in state.items():
            self.shadow[name].copy_(tensor)
