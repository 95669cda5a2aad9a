"""Read JSON files in bounded time and memory."""

from __future__ import annotations

import json
import math
from typing import Any

MAX_JSON = 48 * 2**20  # bytes
MAX_BRACKETS = 1_500_000  # objects and lists, each of which takes some hundred bytes


def parse_json(content: bytes, name: str) -> Any:
    """Parse JSON.

    Raises:
        ValueError: if it is malformed, too large, too deep, or contains NaN; the message begins with `name`.
    """
    if len(content) > MAX_JSON:
        size = len(content) / 2**20
        raise ValueError(
            f"{name}: got {size:.0f} MB of JSON, at most {MAX_JSON >> 20} are read; split it into several files"
        )
    if content.count(b"[") + content.count(b"{") > MAX_BRACKETS:
        raise ValueError(f"{name}: more than {MAX_BRACKETS:,} lists and objects; split it into several files")
    try:
        return json.loads(content, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name}: malformed JSON ({error}); write or export it again") from error


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not valid JSON")


def as_number(value: Any) -> float:
    """Return a JSON number as a float, NaN for null and everything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan
