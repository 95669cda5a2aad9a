"""
Search by words: an exact index of lexical vectors, whose rows an engine keeps.

An engine is imported when it is asked for, so that each but the embedded one is an extra: `pip install
lexmotion[milvus]`, `pip install lexmotion[postgres]`.
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
    The engine of an index.

    Args:
        entry: `engine`, a name of `ENGINES`; `uri`, its address, None for the engine's own choice; `table`, where the
            rows are, None for a new one; and `accelerate`, see `LexMotionIndex.build`.
        folder: of the index, which a relative address starts from.

    Raises:
        ValueError: no such engine, or no address for it. ImportError: its packages are not installed.
        FileNotFoundError: no folder for its file. ConnectionError: nobody answers at the address.
    """
    name = entry["engine"]
    if name not in ENGINES:
        raise ValueError(f"there is no engine {name!r}; there are {', '.join(ENGINES)}")
    try:
        module = importlib.import_module(f".{name}", __package__)
    except ImportError as error:
        raise ImportError(
            f"engine {name!r} needs more packages ({error}): run `pip install lexmotion[{name}]`"
        ) from error
    engine: IndexEngine = getattr(module, ENGINES[name])(entry, folder)
    engine.check()
    return engine
