"""Extension of griffe: docstrings as mkdocstrings expects them."""

import re
from typing import Any

import griffe


class Docstrings(griffe.Extension):
    """Show what follows `Example:` as code, and [`Name`] as `Name`."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            text = re.sub(r"^(\s*)Example:$", r"\1Examples:", obj.docstring.value, flags=re.MULTILINE)
            obj.docstring.value = re.sub(r"\[(`[^`\n]+`)\](?![\[(])", r"\1", text)
