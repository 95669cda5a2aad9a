"""Readers of motion-caption corpora, the synthetic corpus, and the preparation of both for training."""
