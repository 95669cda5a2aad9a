"""Names of models: folders, or USER/NAME on the Hub."""

import os
from pathlib import Path


def is_hub_name(name: str) -> bool:
    """Return whether a name is USER/NAME, not a path."""
    return name.count("/") == 1 and not name.startswith((".", "/", "~"))


def checked_model_name(name: str | os.PathLike, remedy: str, subfolder: str = "") -> str:
    """
    Return the name of a model that may exist.

    Args:
        name: folder or Hub name.
        remedy: advice in the error.
        subfolder: folder of the model in `name`.

    Raises:
        FileNotFoundError: if `name` is a path without a model; the error says relative to which folder.
    """
    name = os.fspath(name)
    folder = Path(name, subfolder)
    if not Path(name).is_dir() and not is_hub_name(name):
        place = "" if Path(name).is_absolute() else f" in {Path.cwd()}"
        raise FileNotFoundError(f"no model folder {name!r}{place}; {remedy}")
    if Path(name).is_dir() and not (folder / "config.json").is_file():
        raise FileNotFoundError(f"no model in the folder {str(folder)!r} (no config.json); {remedy}")
    return name
