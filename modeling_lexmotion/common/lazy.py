"""Lazy import of the public names of a package, which keeps the import of the package fast."""

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def lazy_names(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Create `__getattr__` and `__dir__` of a package.

    Args:
        package: `__name__` of the package.
        homes: public name -> the module that defines it, relative to the package.

    Example:
        >>> __getattr__, __dir__ = lazy_names("json", {"JSONEncoder": "encoder"})
        >>> __getattr__("JSONEncoder").__module__
        'json.encoder'
    """
    content = vars(sys.modules[package])

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        content[name] = getattr(importlib.import_module(f".{homes[name]}", package), name)
        return content[name]

    return get, lambda: sorted({*content, *homes})
