"""Hook of mkdocs: `::: lexmotion.NAME` on a page stands for the module that defines the public name NAME.

The package imports its public names when they are first used, so a tool that only reads the source cannot follow them.
"""

import ast
import re
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parents[1] / "modeling_lexmotion" / "__init__.py"


def homes() -> dict[str, str]:
    """Public name -> the module that defines it, as the package says it."""
    for node in ast.parse(PACKAGE.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "_HOME":
            return ast.literal_eval(node.value)
    raise ValueError(f"{PACKAGE} has no table _HOME; this hook reads public names from it")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace public names; an identifier with its module is left as it is."""
    table = homes()
    return re.sub(
        r"^::: lexmotion\.([A-Za-z_]+)$",
        lambda found: f"::: lexmotion.{table.get(found[1], '')}.{found[1]}".replace("..", "."),
        markdown,
        flags=re.MULTILINE,
    )
