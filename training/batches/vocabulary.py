"""
Train the rows of the word embeddings that the corpus can reach, and leave the others where they are.

A caption corpus speaks a tenth of a BERT vocabulary. Rows that are neither active words nor tokens of a caption get a
zero gradient in every step, yet gradients, clipping, Adam and the weight average would walk over them all. While it
trains, a model therefore holds the reachable rows only, active words first; results are the same.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from lexmotion import LexMotionMotionModel, LexMotionTextModel
from lexmotion.baselines.retriever import RetrieverModel
from lexmotion.lexical_head import LexicalHead

TOWERS = (LexMotionTextModel, LexMotionMotionModel, RetrieverModel)


class CompactEmbedding(nn.Embedding):
    """
    Some rows of an embedding under their old ids.

    Args:
        full: (V, D), kept aside. rows: (V',) int64 distinct ids, in the order in which `weight` (V', D) holds them.
    """

    position: torch.Tensor

    def __init__(self, full: nn.Embedding, rows: torch.Tensor):
        position = torch.full((full.num_embeddings,), -1, device=rows.device)
        position[rows] = torch.arange(len(rows), device=rows.device)
        padding = None if full.padding_idx is None else int(position[full.padding_idx])
        super().__init__(
            len(rows),
            full.embedding_dim,
            None if padding == -1 else padding,
            _weight=full.weight.detach()[rows].clone(),
        )
        self.weight.requires_grad_(full.weight.requires_grad)
        self.register_buffer("position", position, persistent=False)
        self.full, self.rows = [full], rows  # in a list: not a part of this module

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """(...) ids of the whole vocabulary -> (..., D)."""
        rows = self.position[input_ids]
        if not rows.is_cuda and bool((rows < 0).any()):  # a GPU checks by itself, without a message
            unknown = int(input_ids[rows < 0][0])
            raise ValueError(f"token {unknown} is in no caption the run was started with, nor an active word")
        return super().forward(rows)

    @torch.no_grad()
    def restore(self) -> nn.Embedding:
        """The whole embedding, its trained rows put back."""
        full = self.full[0]
        full.weight[self.rows] = self.weight.to(full.weight)
        full.weight.requires_grad_(self.weight.requires_grad)
        return full


@contextmanager
def compact_vocabulary(model: nn.Module, used_ids: torch.Tensor) -> Iterator[None]:
    """
    Inside, the towers of `model` hold only the embeddings of active words and of `used_ids`; after it, all again.

    Args:
        model: with a text tower, a motion tower or both, or a baseline, on its device.
        used_ids: every token that will be read.

    Raises:
        ValueError: the model has no such tower.
    """
    towers = [module for module in model.modules() if isinstance(module, TOWERS)]
    if not towers:
        known = ", ".join(tower.__name__ for tower in TOWERS)
        raise ValueError(
            f"{type(model).__name__}: no tower with word embeddings, which {known} have; train it without this context"
        )
    full = towers[0].get_input_embeddings()
    heads = [module for module in model.modules() if isinstance(module, LexicalHead)]
    active_ids = heads[0].active_ids if heads else used_ids.new_empty(0, dtype=torch.int64)  # dense vectors: no words
    others = torch.zeros(full.num_embeddings, dtype=torch.bool, device=full.weight.device)
    others[used_ids.to(others.device).long()] = True
    others[active_ids] = False
    rows = torch.cat([active_ids.to(others.device), others.nonzero().squeeze(1)])
    if len(rows) == full.num_embeddings:  # nothing to save; the order of the rows would only confuse
        yield
        return
    compact = CompactEmbedding(full, rows)
    for tower in towers:
        tower.set_input_embeddings(compact)
    try:
        yield
    finally:
        full = compact.restore()
        for tower in towers:
            tower.set_input_embeddings(full)
