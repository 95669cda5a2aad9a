"""
Train one task: `accelerate launch -m lexmotion.training TASK --config small --dataset DIR --output_dir DIR`.

`python -m lexmotion.training --help` lists the tasks, `python -m lexmotion.training TASK --help` their arguments.
"""

import argparse
import os
import sys
import textwrap
from typing import Any

from lexmotion.common.text import check_encoding, printable

from .pipeline import run_task
from .recipe import parse_arguments
from .tasks import TASKS

EXAMPLE = "example: accelerate launch -m lexmotion.training lexcmlp --config small --dataset DIR --output_dir DIR"
REQUIRED = ("dataset", "output_dir")  # if the task has them


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """
    Train the task named on the command line, and return its result (see `run_task`); a user's error ends in one line.

    Args:
        argv: command-line arguments; None: those of the process.
    """
    words = sys.argv[1:] if argv is None else argv
    wrap = textwrap.TextWrapper(100, initial_indent="  ", subsequent_indent="    ")
    lines = [wrap.fill(f"{task.name} ({task.title}): {task.summary}") for task in TASKS.values()]
    parser = argparse.ArgumentParser(
        prog="python -m lexmotion.training",
        usage="%(prog)s TASK [--config RECIPE] [--ARGUMENT VALUE ...]",
        description="Train one task, resuming from its checkpoints if any. TASK --help lists its arguments.",
        epilog="\n".join(["tasks:", *lines, "", EXAMPLE]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("task", choices=TASKS, metavar="TASK")
    name = parser.parse_args(words[:1]).task
    try:
        check_encoding(words)
        arguments = parse_arguments(name, words[1:])
        for key, value in arguments.to_dict().items():
            if key in REQUIRED and value is None:
                raise ValueError(f"--{key}: no value; pass --{key} or set {key} in the recipe")
        return run_task(arguments, TASKS[name].read(arguments))
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        if os.environ.get("LEXMOTION_DEBUG"):
            raise
        raise SystemExit(f"error: {printable(str(error))} (LEXMOTION_DEBUG=1 shows the traceback)") from error


if __name__ == "__main__":
    main()
