"""
Training of only those word embeddings that the corpus uses.

A caption corpus uses a tenth of a BERT vocabulary. The gradient of all other rows (neither active words nor tokens of
a caption) is always zero, but clipping, Adam and the weight average would still process them. So during training a
model has only the used rows, active words first; results are the same.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lexmotion import LexMotionMotionModel, LexMotionTextModel
from lexmotion.baselines.retriever import RetrieverModel
from lexmotion.lexical_head import LexicalHead

TOWERS = (LexMotionTextModel, LexMotionMotionModel, RetrieverModel)


class CompactEmbedding(nn.Embedding):
    """
    Some rows of an embedding, addressed by their original ids.

    Args:
        full: full embedding (V, D).
        rows: (V',) int64 distinct ids, in the order of `weight` (V', D).
    """

    position: Tensor

    def __init__(self, full: nn.Embedding, rows: Tensor):
        position = torch.full((full.num_embeddings,), -1, device=rows.device)
        position[rows] = torch.arange(len(rows), device=rows.device)
        padding = None if full.padding_idx is None else int(position[full.padding_idx])
        padding, weight = None if padding == -1 else padding, full.weight.detach()[rows].clone()
        super().__init__(len(rows), full.embedding_dim, padding, _weight=weight)
        self.weight.requires_grad_(full.weight.requires_grad)
        self.register_buffer("position", position, persistent=False)
        self.full, self.rows = [full], rows  # in a list so that it is not a submodule

    def forward(self, input_ids: Tensor) -> Tensor:
        """Map ids of the full vocabulary (...) to embeddings (..., D)."""
        rows = self.position[input_ids]
        if not rows.is_cuda and bool((rows < 0).any()):  # a GPU has its own check, without a message
            unknown = int(input_ids[rows < 0][0])
            raise ValueError(f"token {unknown}: neither in used_ids nor an active word; add it to used_ids")
        return super().forward(rows)

    @torch.no_grad()
    def restore(self) -> nn.Embedding:
        """Return the full embedding, updated with the trained rows."""
        full = self.full[0]
        full.weight[self.rows] = self.weight.to(full.weight)
        full.weight.requires_grad_(self.weight.requires_grad)
        return full


@contextmanager
def compact_vocabulary(model: nn.Module, used_ids: Tensor) -> Iterator[None]:
    """
    Restrict the embeddings of a model's towers to active words and `used_ids` inside this context.

    Args:
        model: model on its device, with a text tower, a motion tower or both, or a baseline.
        used_ids: all tokens that will be read.

    Raises:
        ValueError: if the model has no such tower.
    """
    towers = [module for module in model.modules() if isinstance(module, TOWERS)]
    if not towers:
        known = ", ".join(tower.__name__ for tower in TOWERS)
        raise ValueError(f"{type(model).__name__}: no tower ({known}); train it without compact_vocabulary")
    full = towers[0].get_input_embeddings()
    heads = [module for module in model.modules() if isinstance(module, LexicalHead)]
    active_ids = heads[0].active_ids if heads else used_ids.new_empty(0, dtype=torch.int64)  # none for dense vectors
    others = torch.zeros(full.num_embeddings, dtype=torch.bool, device=full.weight.device)
    others[used_ids.to(others.device).long()] = True
    others[active_ids] = False
    rows = torch.cat([active_ids.to(others.device), others.nonzero().squeeze(1)])
    if len(rows) == full.num_embeddings:  # all rows are used
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
