"""Captions with swapped events, as hard negatives of their own motions."""

from typing import Any

import torch
from torch import Tensor

from lexmotion.processing.corpora.event_order import swap_events
from lexmotion.processing.text_mirroring import mirror_caption

from .corpus import CaptionTable


class SwappedCaptions:
    """
    The captions with several events, in the wrong order.

    Args:
        captions: C captions.
        tokenizer, max_length: those of the table.

    Raises:
        ValueError: if no caption has several events.
    """

    def __init__(self, captions: CaptionTable, tokenizer: Any, max_length: int):
        swapped = [swap_events(text) for text in captions.texts]
        texts = [text for text in swapped if text is not None]
        if not texts:
            example = "'sits down, then stands up'"
            raise ValueError(f"captions: {len(captions)} without two events ({example}); set order_loss_weight to 0")
        self.table = CaptionTable.build(texts, [mirror_caption(text) for text in texts], tokenizer, max_length)
        has_one = torch.tensor([text is not None for text in swapped])
        self.place = (has_one.cumsum(0) - 1).masked_fill(~has_one, -1)  # (C,) row of `table`

    def batch(self, captions: Tensor, mirrored: Tensor) -> dict[str, Tensor]:
        """
        Return `swapped_input_ids`, `swapped_attention_mask` and `swapped_rows` for those captions that can be swapped.

        All processes must run the same products, so at least one row is returned; -1 in `swapped_rows` marks padding.

        Args:
            captions: (B,) int64 indices.
            mirrored: (B,) bool, whether to take the mirrored text.
        """
        rows = (self.place[captions] >= 0).nonzero().squeeze(1)
        chosen, sides = self.place[captions[rows]], mirrored[rows]
        if not len(rows):
            rows, chosen, sides = torch.tensor([-1]), torch.tensor([0]), torch.tensor([False])
        input_ids, attention_mask, _ = self.table.batch(chosen, sides)
        return {"swapped_input_ids": input_ids, "swapped_attention_mask": attention_mask, "swapped_rows": rows}
