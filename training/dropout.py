"""Dropout with one random byte per value: on a CPU, random numbers take a tenth of a text tower's training step."""

import torch
from torch import nn

STEPS = 256


class ByteDropout(nn.Dropout):
    """`nn.Dropout` on CPUs with p rounded to a 256th (0.1 becomes 0.1016); scaled by the rounded p, hence unbiased."""

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        dropped = round(self.p * STEPS)
        if not self.training or self.inplace or states.device.type != "cpu" or not 0 < dropped < STEPS:
            return super().forward(states)
        # Eight bytes per draw, from the generator seeded by `torch.manual_seed`.
        words = torch.empty(-(-states.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
        keep = words.view(torch.uint8)[: states.numel()].view(states.shape) >= dropped
        return states * keep.to(states.dtype).mul_(STEPS / (STEPS - dropped))


def use_byte_dropout(model: nn.Module) -> None:
    """Replace every `nn.Dropout` of `model` by `ByteDropout`; weights and names are unchanged."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Dropout:
                setattr(module, name, ByteDropout(child.p, child.inplace).train(child.training))
