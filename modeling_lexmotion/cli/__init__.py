"""The command line: a file per group of verbs."""

from . import data, evaluation, search, sharing, training
from .base import DEBUG_VARIABLE, app, main

__all__ = ["DEBUG_VARIABLE", "app", "main", "data", "evaluation", "search", "sharing", "training"]
