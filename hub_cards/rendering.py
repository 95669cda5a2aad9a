"""What both cards share: the template engine, numbers and cells as tables print them, files written in one step."""

import math
import os
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

TEMPLATES = Path(__file__).with_name("templates")


def render(template: str, values: dict[str, Any]) -> str:
    """The text of a template of this folder; a value it needs and does not get is an error."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {"figure": figure, "cell": cell}
    return environment.get_template(template).render(values)


def figure(value: Any) -> str:
    """A number as tables print it: integers whole, other numbers with four significant digits."""
    if value is None:
        return "-"
    if isinstance(value, bool | str):
        return str(value)
    return f"{value:.4g}" if not math.isfinite(value) or value != int(value) else str(int(value))


def cell(text: str) -> str:
    """`text` on one line, safe inside a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")


def write_text(path: Path, text: str) -> None:
    """Write a text in one step: a reader sees the old file or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
