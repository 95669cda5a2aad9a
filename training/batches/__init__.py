"""Batches: order, clips, captions, masks, mixing."""
