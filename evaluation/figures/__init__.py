"""
The paper's figures, and those of a pair: what is drawn is computed on arrays, and drawn from arrays.

One file a figure; only `report.py` knows models and data sets.
"""
