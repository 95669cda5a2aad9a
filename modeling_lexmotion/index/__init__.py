"""
Where the rows of an index can be kept instead of in its folder.

An engine is imported when it is asked for, so that each is an extra: `pip install lexmotion[milvus]`,
`pip install lexmotion[postgres]`.
"""

import importlib
from pathlib import Path
from typing import Any

from .engine import IndexEngine

ENGINES = {"milvus": "MilvusEngine", "postgres": "PostgresEngine"}


def connect(entry: dict[str, Any], folder: Path) -> IndexEngine:
    """
    The engine of an index.

    Args:
        entry: `engine`, a name of `ENGINES`; `uri`, its address, None for the engine's own choice; and `table`, where
            the rows are, None for a new one.
        folder: of the index, which a relative address starts from.

    Raises:
        ValueError: no such engine, or no address for it. ImportError: its packages are not installed.
        FileNotFoundError: no folder for its file. ConnectionError: nobody answers at the address.
    """
    name = entry["engine"]
    if name not in ENGINES:
        raise ValueError(f"there is no engine {name!r}; there are embedded, {', '.join(ENGINES)}")
    try:
        module = importlib.import_module(f".{name}", __package__)
    except ImportError as error:
        raise ImportError(
            f"engine {name!r} needs more packages ({error}): run `pip install lexmotion[{name}]`"
        ) from error
    engine: IndexEngine = getattr(module, ENGINES[name])(entry.get("uri"), entry.get("table"), folder)
    engine.check()
    return engine
