"""
Word search: an exact index over lexical vectors, whose rows are stored by an engine.

An engine is imported when it is requested; all but the embedded one are extras: `pip install lexmotion[milvus]`, `pip
install lexmotion[postgres]`.
"""

import importlib
from collections.abc import Mapping
from typing import Any

from .engine import IndexEngine
from .folder import IndexFolder

EMBEDDED = "embedded"
ENGINES = {EMBEDDED: "EmbeddedEngine", "milvus": "MilvusEngine", "postgres": "PostgresEngine"}


def connect(entry: Mapping[str, Any], folder: IndexFolder) -> IndexEngine:
    """
    Return the engine of an index.

    Args:
        entry: `engine`, a key of `ENGINES`; `uri`, its address (None for the engine's default); `table` with the rows
            (None for a new one); and `accelerate`, see `LexMotionIndex.build`.
        folder: folder of the index, which relative addresses refer to.

    Raises ValueError if the engine is unknown or lacks an address, ImportError if its packages are not installed,
    FileNotFoundError if the folder of its file does not exist, ConnectionError if no server answers.
    """
    name = entry["engine"]
    if name not in ENGINES:
        raise ValueError(f"unknown engine {name!r}; pass one of {', '.join(ENGINES)}")
    try:
        module = importlib.import_module(f".{name}", __package__)
    except ImportError as error:
        raise ImportError(f"engine {name!r}: {error}; run `pip install lexmotion[{name}]`") from error
    engine: IndexEngine = getattr(module, ENGINES[name])(entry, folder)
    engine.check()
    return engine
