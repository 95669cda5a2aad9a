"""A folder that is a Space: the app, what it needs, and what it searches."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from .push import PLACES, to_json, without
from .rendering import write_text

APP = Path(__file__).with_name("space")
APP_FILES = ("app.py", "README.md", "requirements.txt")


def write_space(demo: Any, folder: str | os.PathLike, progress: bool = False) -> int:
    """
    Write a Space folder, ready to be pushed or to run with `python app.py`.

    Args:
        demo: what it shows; its `save_pretrained` writes model, index and motions.
        folder: new, empty, or a Space folder to be replaced.

    Returns:
        How many motions have positions there; the others are found, but not shown.

    Raises:
        FileExistsError: the folder holds something else.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / APP_FILES[0]).is_file())):
        raise FileExistsError(f"{folder} is no Space folder and not empty: choose another one for --export")
    count = demo.save_pretrained(folder, progress=progress)
    for name in APP_FILES:
        shutil.copyfile(APP / name, folder / name)
    for file in folder.rglob("config.json"):
        write_text(file, to_json(without(PLACES, json.loads(file.read_text(encoding="utf-8")))))
    return count
