"""Start of a command, and reading of its motion file."""

import os
from pathlib import Path
from typing import Any

from rich.markup import escape

from lexmotion.evaluation import loading
from lexmotion.processing.recordings.options import ReadingOptions

from .base import terminal


def begin() -> None:
    """Disable the libraries' own progress bars."""
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    from transformers.utils import logging

    logging.disable_progress_bar()


def read_motion_for(processor: Any, path: Path, reading: ReadingOptions) -> tuple[Any, float]:
    """Read a motion file for a model and print warnings; see `lexmotion.evaluation.loading`."""
    motion, rate = loading.read_motion_for(processor, path, reading)
    for problem in motion.problems:
        if problem.severity == "warning":
            terminal(stderr=True).print(f"[yellow]{escape(str(problem))}[/]", highlight=False)
    return motion, rate
