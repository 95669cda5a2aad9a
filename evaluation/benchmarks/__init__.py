"""Speed and memory of the hot paths compared with a plain implementation in the same run.

One file per stage; `harness.py` checks, times and measures memory. Stages of the trainer are in `training.benchmarks`.
"""
