"""Loading of models, tokenizers and processors from folders that users name."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_WITH_CLASSES = ("config.json", "processor_config.json", "preprocessor_config.json", "tokenizer_config.json")
_LONGEST = 300  # letters of another library's message


@contextmanager
def loading_from(name: str | os.PathLike) -> Iterator[None]:
    """
    Replace the error of a `from_pretrained` in the body, of whatever kind, by one line.

    Pass `trust_remote_code=False` to it: otherwise transformers asks on standard input whether to run a folder's code.

    Args:
        name: folder or Hub name that is loaded.

    Raises:
        ValueError: if the files are damaged, or name a class that is not part of lexmotion and transformers.
        OSError, ImportError, MemoryError: unchanged.
    """
    try:
        yield
    except (OSError, ImportError, MemoryError):
        raise
    except Exception as error:
        text = " ".join(str(error).split())
        if "trust_remote_code" in text:
            raise ValueError(
                f"{name}: {_custom_class(name)}, and code from a model folder is never run; pass a model of lexmotion "
                "or transformers, or remove its `auto_map`"
            ) from error
        if type(error) is ValueError and len(text) <= _LONGEST:  # subclasses are of JSON and UTF-8
            raise
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise ValueError(
            f"{name}: cannot be loaded ({kind}{text[:_LONGEST]}{' ...' * (len(text) > _LONGEST)}); restore its files, "
            "or save the model again"
        ) from error


def _custom_class(name: str | os.PathLike) -> str:
    """Describe the first class with code of its own that the files of a folder name."""
    for file in _WITH_CLASSES:
        try:
            found = _auto_map(json.loads(Path(name, file).read_bytes()))
        except (OSError, ValueError, RecursionError):
            continue
        if found is not None:
            return f"its {file} names the class {str(found)[:80]!r}"
    return "it names a class of its own"


def _auto_map(content: Any) -> Any:
    """Return the first class of the first `auto_map` in a configuration, None if there is none."""
    if not isinstance(content, dict):
        return None
    classes = content.get("auto_map")
    if isinstance(classes, dict) and classes:
        first = next(iter(classes.values()))
        return next((name for name in first if name), first) if isinstance(first, list) else first
    return next((found for part in content.values() if (found := _auto_map(part)) is not None), None)
