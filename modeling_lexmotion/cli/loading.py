"""Start of a command, and reading of its motion file."""

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from lexmotion.evaluation import loading
from lexmotion.processing.recordings.options import ReadingOptions

from .base import terminal, with_flags
from .options import READING

if TYPE_CHECKING:
    from lexmotion.processing.recordings.recording import Problem


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
            terminal(stderr=True).print(f"[yellow]{escape(str(in_options(problem)))}[/]", highlight=False)
    return motion, rate


def in_options(problem: "Problem") -> "Problem":
    """Return a problem of a motion file that names options where that of Python names fields of `ReadingOptions`."""
    flags = {name: f"--{name.replace('_', '-')}" for name in READING}
    return replace(problem, message=with_flags(problem.message, flags), remedy=with_flags(problem.remedy, flags))
