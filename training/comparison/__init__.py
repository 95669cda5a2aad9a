"""Comparison of systems on one harness: rows, their training and scoring, tables and the report."""
