"""Benchmarks of training; the harness is in `evaluation.benchmarks`."""
