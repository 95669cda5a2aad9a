"""
Registration of models, processor and pipelines with transformers.

Importing transformers' models takes seconds, and much of this package works without them. So each part is registered
as soon as the module of transformers that it belongs to is imported, by whoever needs it first.
"""

import importlib
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

PACKAGE = __package__.rpartition(".")[0]
AUTO = "transformers.models.auto"


def _load(module: str) -> ModuleType:
    return importlib.import_module(f"{PACKAGE}.{module}")


def _configurations() -> None:
    from transformers import AutoConfig

    for config in _configs():
        AutoConfig.register(config.model_type, config, exist_ok=True)


def _configs() -> list[Any]:
    names = ("LexMotionTextConfig", "LexMotionMotionConfig", "LexMotionConfig")
    return [getattr(_load("configuration_lexmotion"), name) for name in names]


def _models() -> None:
    from transformers import AutoModel, AutoModelForPreTraining

    models = _load("modeling_lexmotion")
    classes = models.LexMotionTextModel, models.LexMotionMotionModel, models.LexMotionModel
    for config, model in zip(_configs(), classes, strict=True):
        AutoModel.register(config, model, exist_ok=True)
    pretraining = _load("pretraining_lexmotion").LexMotionForLexicalMaskedLM
    AutoModelForPreTraining.register(_configs()[0], pretraining, exist_ok=True)


def _feature_extractors() -> None:
    from transformers import AutoFeatureExtractor

    extractor = _load("processing.feature_extraction_lexmotion").LexMotionFeatureExtractor
    for config in _configs()[1:]:
        AutoFeatureExtractor.register(config, extractor, exist_ok=True)


def _processors() -> None:
    from transformers import AutoProcessor

    AutoProcessor.register(_configs()[2], _load("processing.processing_lexmotion").LexMotionProcessor, exist_ok=True)


def _pipelines() -> None:
    from transformers import AutoModel
    from transformers.pipelines import PIPELINE_REGISTRY

    for pipeline in _load("pipelines_lexmotion").PIPELINES:
        if pipeline.task_name not in PIPELINE_REGISTRY.supported_tasks:  # a second registration would warn
            PIPELINE_REGISTRY.register_pipeline(pipeline.task_name, pipeline, pt_model=AutoModel, type="multimodal")


# Module of transformers -> what is registered there.
STEPS: dict[str, Callable[[], None]] = {
    f"{AUTO}.configuration_auto": _configurations,
    f"{AUTO}.modeling_auto": _models,
    f"{AUTO}.feature_extraction_auto": _feature_extractors,
    f"{AUTO}.processing_auto": _processors,
    "transformers.pipelines": _pipelines,
}


class Registration(MetaPathFinder):
    """
    Import hook that takes each of the `STEPS` once its module is imported.

    If a module of this package imported it, the step waits until that module is finished, since it may be needed.
    """

    def __init__(self) -> None:
        self.open = dict(STEPS)
        self.loaded = set(STEPS) & set(sys.modules)
        self.thread = threading.local()  # `depth`: how many modules of this package it is importing

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        ours = name.startswith(f"{PACKAGE}.")
        if not ours and name not in STEPS:
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
        """Take the steps whose module is loaded, unless this thread is importing a module of this package."""
        if not getattr(self.thread, "depth", 0):
            for name in [name for name in self.open if name in self.loaded]:
                if step := self.open.pop(name, None):
                    try:
                        step()
                    except BaseException:
                        self.open[name] = step  # the next import tries again
                        raise


def install() -> None:
    """Install the hook, and register with what is imported already."""
    if not any(isinstance(finder, Registration) for finder in sys.meta_path):
        hook = Registration()
        sys.meta_path.insert(0, hook)
        hook.settle()


def register() -> None:
    """
    Register models, processor and pipelines with transformers now.

    Importing `lexmotion` is enough for `AutoModel` and the like; this only imports transformers earlier. Idempotent.
    """
    for name in STEPS:
        importlib.import_module(name)
