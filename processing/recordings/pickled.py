"""Read arrays and strings from a pickle as data: nothing in it is ever called, imported or executed.

Generators of motion save a dictionary with `np.save`, which pickles it. The opcodes of a pickle are interpreted here
one by one, calls are only noted down, and NumPy arrays are built from the bytes of those notes. Whatever else a pickle
can contain is refused, as are contents that would take more memory than the file has bytes.
"""

from __future__ import annotations

import math
import pickletools
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

MAX_PICKLE = 2**28  # bytes
MAX_STEPS = 1_000_000  # opcodes; numbers of an array are one
_OBJECTS = {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")} | {
    (module, name)
    for module in ("numpy.core.multiarray", "numpy._core.multiarray")
    for name in ("_reconstruct", "scalar")
}
_DTYPE = re.compile(r"[fiu][1248]|b1|O8?")
_MARK = object()
_VALUES = {
    *("NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"),
    *("FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE"),
    *("BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}


class UnsafePickleError(ValueError):
    """Error for a pickle that contains more than arrays, numbers, strings, lists and dictionaries."""


@dataclass
class _Call:
    """A call that a pickle asks for, which is not carried out."""

    name: str
    arguments: Any
    state: Any = None


def read_pickled(content: bytes) -> Any:
    """Return the value of a pickle: numbers, texts, lists, tuples, dictionaries and calls of these, see [`as_array`].

    Raises:
        UnsafePickleError: if it contains anything else.
        ValueError: if it is damaged or too large.
    """
    if len(content) > MAX_PICKLE:
        raise ValueError(f"got {len(content) / 2**20:.0f} MB, at most {MAX_PICKLE >> 20} are read")
    machine = _Machine()
    try:
        for step, (opcode, argument, _) in enumerate(pickletools.genops(content)):
            if step > MAX_STEPS:
                raise ValueError(f"more than {MAX_STEPS:,} steps")
            if opcode.name == "STOP":
                return machine.stack.pop()
            machine.run(opcode.name, argument)
    except UnsafePickleError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"damaged ({error})") from error
    raise ValueError("truncated")


class _Machine:
    """The stack and the memory of a pickle."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memory: dict[int, Any] = {}

    def run(self, name: str, argument: Any) -> None:
        """Carry out one opcode."""
        stack = self.stack
        match name:
            case "PROTO" | "FRAME":
                pass
            case "EMPTY_LIST" | "EMPTY_TUPLE" | "EMPTY_DICT":
                stack.append({"EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_DICT": dict}[name]())
            case "MARK":
                stack.append(_MARK)
            case "TUPLE":
                stack.append(tuple(self._since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(name[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "LIST":
                stack.append(self._since_mark())
            case "APPEND":
                self._append([stack.pop()])
            case "APPENDS":
                self._append(self._since_mark())
            case "SETITEM":
                self._set([stack.pop(-2), stack.pop()])
            case "SETITEMS":
                self._set(self._since_mark())
            case "MEMOIZE":
                self.memory[len(self.memory)] = stack[-1]
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self.memory[argument] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(self.memory[argument])
            case "GLOBAL":
                self._name(*argument.split(" ", 1))
            case "STACK_GLOBAL":
                self._name(stack.pop(-2), stack.pop())
            case "REDUCE":
                self._call()
            case "BUILD":
                self._build()
            case _ if name in _VALUES:
                stack.append(_CONSTANTS.get(name, argument))
            case _:
                raise UnsafePickleError(f"the opcode {name}")

    def _since_mark(self) -> list[Any]:
        place = len(self.stack) - 1
        while self.stack[place] is not _MARK:
            place -= 1
            if place < 0:
                raise IndexError("no mark")
        found = self.stack[place + 1 :]
        del self.stack[place:]
        return found

    def _append(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise UnsafePickleError("an object that is not a list")
        self.stack[-1].extend(items)

    def _set(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or any(not isinstance(key, (str, int)) for key in items[::2]):
            raise UnsafePickleError("a dictionary with keys that are not strings or integers")
        target.update(zip(items[::2], items[1::2], strict=True))

    def _name(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str) or (module, name) not in _OBJECTS:
            raise UnsafePickleError(f"the object {f'{module}.{name}'[:60]!r}")
        self.stack.append(_Call(name, None))

    def _call(self) -> None:
        arguments, target = self.stack.pop(), self.stack.pop()
        if not isinstance(target, _Call) or target.arguments is not None or not isinstance(arguments, tuple):
            raise UnsafePickleError("a call")
        self.stack.append(_Call(target.name, arguments))

    def _build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if not isinstance(target, _Call) or target.arguments is None:
            raise UnsafePickleError("a state of an unknown object")
        target.state = state


def as_array(value: Any) -> Any:
    """Return the array that a [`_Call`] stands for: numbers as `numpy.ndarray`, objects as a list; others as they are.

    Raises:
        ValueError: if its shape, type and bytes do not agree.
    """
    if not isinstance(value, _Call):
        return value
    try:
        if value.name == "scalar":
            dtype, content = value.arguments
            return np.frombuffer(_bytes(content), _dtype(dtype), count=1)[0]
        if value.name != "_reconstruct":
            raise ValueError(f"the object {value.name}")
        _, shape, dtype, fortran, content = value.state
        kind = _dtype(dtype)
        count = math.prod(int(size) for size in shape)
        if kind.hasobject:
            if not isinstance(content, list) or len(content) != count:
                raise ValueError("the number of objects does not match the shape")
            return content
        data = _bytes(content)
        if min(shape, default=0) < 0 or count * kind.itemsize != len(data):
            raise ValueError(f"the shape {shape} of {kind}, but {len(data)} bytes")
        return np.frombuffer(data, kind).reshape(shape, order="F" if fortran else "C")
    except (TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        raise ValueError(f"a damaged array ({error})") from error


def _dtype(value: Any) -> np.dtype:
    name = value.arguments[0] if isinstance(value, _Call) and value.name == "dtype" else ""
    if not isinstance(name, str) or not _DTYPE.fullmatch(name):
        raise ValueError(f"values of type {str(name)[:20]!r}")
    order = value.state[1] if value.state is not None else "="
    return np.dtype(f"{order}{name}" if order in ("<", ">") else name)


def _bytes(value: Any) -> bytes:
    """Return the bytes of an array; old pickles contain them as a text to be encoded."""
    if isinstance(value, _Call) and value.name == "encode" and isinstance(value.arguments[0], str):
        return value.arguments[0].encode("latin-1")
    if isinstance(value, str):
        return value.encode("latin-1")
    if not isinstance(value, bytes):
        raise ValueError("data that are not bytes")
    return value
