"""Utilities for all parts of the package; they depend only on the standard library."""
