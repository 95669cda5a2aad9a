"""Import paths from the README and cards of version 0.1.0, which work for one more release, with a warning."""

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType

MOVED = {
    "lexmotion.generators": "lexmotion.conditioning",
    "lexmotion.generators.clip_shim": "lexmotion.conditioning.clip_shim",
    "lexmotion.generators.conditioning": "lexmotion.conditioning.text_conditioner",
    "lexmotion.generators.word_states": "lexmotion.conditioning.word_states",
    "lexmotion.processing.motion_io": "lexmotion.processing.recordings",
    "lexmotion.evaluation.demo": "lexmotion.evaluation.viewer.demo",  # imported by Spaces that 0.1.0 exported
    "lexmotion.evaluation.encode_shards": "lexmotion.evaluation.encoding.shards",
    "lexmotion.evaluation.retrieval_encoder": "lexmotion.evaluation.encoding.retrieval_encoder",
    "lexmotion.retrieval_lexmotion": "lexmotion.index.lexmotion_index",
}
# `python -m OLD ...` is now `python -m lexmotion.training TASK ...`.
COMMANDS = {
    "lexmotion.training.lexmlm": "lexmlm",
    "lexmotion.training.cmmm": "cmmm",
    "lexmotion.training.lexmmm": "lexmmm",
    "lexmotion.training.lexcmlp": "lexcmlp",
    "lexmotion.training.baselines": "baseline",
}


class MovedModules(MetaPathFinder, Loader):
    """Import hook for modules by their old names."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name not in MOVED and name not in COMMANDS:
            return None
        new = MOVED.get(name) or f"python -m lexmotion.training {COMMANDS[name]}"
        warnings.warn(f"{name}: moved to {new}; use that, the next release removes the old name", FutureWarning, 3)
        return ModuleSpec(name, self, is_package=name == "lexmotion.generators")

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        sys.modules[name] = importlib.import_module(MOVED.get(name) or f"lexmotion.training.tasks.{COMMANDS[name]}")

    def get_code(self, name: str) -> CodeType:
        """Return the code for `python -m`."""
        call = f"main([{COMMANDS[name]!r}, *sys.argv[1:]])"
        return compile(f"import sys; from lexmotion.training.__main__ import main; {call}", name, "exec")


def install() -> None:
    """Install the hook, as the first one: otherwise a package under its old name would load its modules again."""
    if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
        sys.meta_path.insert(0, MovedModules())
