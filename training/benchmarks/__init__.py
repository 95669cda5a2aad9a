"""Speed and memory of what needs the trainer; the harness is in `evaluation.benchmarks`."""
