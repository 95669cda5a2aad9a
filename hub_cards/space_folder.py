"""Space folder: the app, its requirements, and the model, index and motions it searches."""

import os
import shutil
from pathlib import Path
from typing import Any

APP = Path(__file__).with_name("space")
APP_FILES = ("app.py", "README.md", "requirements.txt")


def write_space(demo: Any, folder: str | os.PathLike, progress: bool = False) -> int:
    """
    Write a Space folder, ready to push or to run with `python app.py`.

    Args:
        demo: demo to show; its `save_pretrained` writes model, index and motions.
        folder: new or empty folder, or a Space folder to replace.

    Returns:
        Number of motions with positions; the others are found but not drawn.

    Raises:
        FileExistsError: if the folder contains anything else.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / APP_FILES[0]).is_file())):
        raise FileExistsError(f"{folder}: neither empty nor a Space folder; pass another folder to --export")
    count = demo.save_pretrained(folder, progress=progress)
    for name in APP_FILES:
        shutil.copyfile(APP / name, folder / name)
    return count
