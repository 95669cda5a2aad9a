"""The paper's figures, and those of a pair: computed on arrays and drawn from arrays.

One file per figure; only `report.py` uses models and data sets.
"""
