"""Speed and memory of the hot paths against a plain implementation, measured in the same run.

One file for each stage; `harness.py` checks, times and weighs. What needs the trainer lives in `training.benchmarks`.
"""
