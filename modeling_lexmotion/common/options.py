"""Options that a function takes as an object, as keywords, or both."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, TypeVar

T = TypeVar("T")


def merge_options(kind: type[T], options: T | None, values: Mapping[str, Any]) -> T:
    """Return options in which these values replace those of `options`.

    Args:
        kind: dataclass of the options.
        options: an instance of it; None for its defaults.
        values: values by field name.

    Raises:
        TypeError: if `options` is something else, or a name is unknown.
    """
    if options is not None and not isinstance(options, kind):
        raise TypeError(f"options: got {options!r}; pass {kind.__name__}(...), or its fields by name")
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    unknown = [name for name in values if name not in names]
    if unknown:
        raise TypeError(f"unknown option {unknown[0]!r}; pass one of {', '.join(names)}")
    return replace(options or kind(), **values)  # type: ignore[type-var]
