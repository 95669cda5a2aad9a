"""
Registration with another library, when that library is imported.

Importing the models of transformers takes seconds, and much of this package works without them. So each part is
registered as soon as the module of transformers that it belongs to is imported, by whoever needs it first.
"""

import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


class Registration(MetaPathFinder):
    """
    Import hook that takes steps, each once a module of another library is imported.

    If a module of the package imported it, the step waits until that module is finished, since it may be needed.

    Args:
        package: name of the package.
        steps: name of a module -> what to do then.
    """

    def __init__(self, package: str, steps: Mapping[str, Callable[[], None]]) -> None:
        self.package, self.steps = package, dict(steps)
        self.open = dict(steps)
        self.loaded = set(steps) & set(sys.modules)
        self.thread = threading.local()  # `depth`: how many modules of the package it is importing

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        ours = name.startswith(f"{self.package}.")
        if not ours and name not in self.steps:
            return None
        others = sys.meta_path[sys.meta_path.index(self) + 1 :]
        specs = (finder.find_spec(name, path, target) for finder in others if hasattr(finder, "find_spec"))
        spec = next((found for found in specs if found is not None), None)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            before = getattr(self.thread, "depth", 0)
            self.thread.depth = before + ours
            try:
                execute(module)
            finally:
                self.thread.depth = before
            if not ours:
                self.loaded.add(name)
            self.settle()

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec

    def settle(self) -> None:
        """Take the steps whose module is loaded, unless this thread is importing a module of the package."""
        if not getattr(self.thread, "depth", 0):
            for name in [name for name in self.open if name in self.loaded]:
                if step := self.open.pop(name, None):
                    try:
                        step()
                    except BaseException:
                        self.open[name] = step  # the next import tries again
                        raise


def install(package: str, steps: Mapping[str, Callable[[], None]]) -> None:
    """Install the hook of a package, and take the steps of what is imported already."""
    if not any(isinstance(finder, Registration) and finder.package == package for finder in sys.meta_path):
        hook = Registration(package, steps)
        sys.meta_path.insert(0, hook)
        hook.settle()
