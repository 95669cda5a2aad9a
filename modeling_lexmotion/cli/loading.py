"""What commands load and write."""

import json
import os
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from lexmotion.evaluation import loading


def begin() -> None:
    """Before a room is entered: Auto classes registered, libraries quiet about what is not the user's concern."""
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    from transformers.utils import logging

    from lexmotion import register

    register()
    logging.disable_progress_bar()


def read_motion_for(processor: Any, path: Path, fps: float | None = None, **options: Any) -> tuple[Any, float]:
    """Read a motion file in the joints of a model and show doubtful findings; see `lexmotion.evaluation.loading`."""
    motion, rate = loading.read_motion_for(processor, path, fps, **options)
    for problem in motion.problems:
        if problem.severity == "warning":
            Console(stderr=True).print(f"[yellow]{escape(str(problem))}[/]", highlight=False)
    return motion, rate


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write `content` in one step, so that an interrupted command leaves no half file."""
    from lexmotion.hub_cards.rendering import write_text

    write_text(path, json.dumps(content, indent=2) + "\n")
