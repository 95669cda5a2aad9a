"""Helpers shared by both cards: template engine, formatting of table cells, atomic writes."""

import math
import os
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

TEMPLATES = Path(__file__).with_name("templates")


def render(template: str, values: dict[str, Any]) -> str:
    """Render a template of this folder; a missing value is an error."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {"figure": figure, "cell": cell}
    return environment.get_template(template).render(values)


def figure(value: Any) -> str:
    """Format a number for a table: integers in full, other numbers with four significant digits."""
    if value is None:
        return "-"
    if isinstance(value, bool | str):
        return str(value)
    return f"{value:.4g}" if not math.isfinite(value) or value != int(value) else str(int(value))


def cell(text: str) -> str:
    """Return `text` on one line, escaped for a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically: readers see either the old or the new content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
