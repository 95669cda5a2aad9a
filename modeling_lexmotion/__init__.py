"""LexMotion: human motion and language in one space whose dimensions are words."""

import importlib
import sys
from pathlib import Path

__version__ = "0.1.0"

# Public name -> the module that defines it. Imported when first asked for, so that `lexmotion --help` stays quick.
_HOME = {
    "LexMotionConfig": "configuration_lexmotion",
    "LexMotionMotionConfig": "configuration_lexmotion",
    "LexMotionTextConfig": "configuration_lexmotion",
    "LexMotionForContrastiveMaskedMotion": "modeling_lexmotion",
    "LexMotionForLexicalMaskedLM": "modeling_lexmotion",
    "LexMotionForLexicalMaskedMotion": "modeling_lexmotion",
    "LexMotionModel": "modeling_lexmotion",
    "LexMotionMotionModel": "modeling_lexmotion",
    "LexMotionTextModel": "modeling_lexmotion",
    "LexMotionIndex": "index.lexmotion_index",
    "Lexicon": "processing.lexicon",
    "LexMotionFeatureExtractor": "processing.feature_extraction_lexmotion",
    "LexMotionProcessor": "processing.processing_lexmotion",
}
__all__ = [*_HOME, "register"]


def register() -> None:
    """Make the Auto classes of transformers know LexMotion. Idempotent; done on import of the package."""
    from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForPreTraining, AutoProcessor

    from .configuration_lexmotion import LexMotionConfig, LexMotionMotionConfig, LexMotionTextConfig
    from .modeling_lexmotion import (
        LexMotionForLexicalMaskedLM,
        LexMotionModel,
        LexMotionMotionModel,
        LexMotionTextModel,
    )
    from .processing.feature_extraction_lexmotion import LexMotionFeatureExtractor
    from .processing.processing_lexmotion import LexMotionProcessor

    for config, model in (
        (LexMotionTextConfig, LexMotionTextModel),
        (LexMotionMotionConfig, LexMotionMotionModel),
        (LexMotionConfig, LexMotionModel),
    ):
        AutoConfig.register(config.model_type, config, exist_ok=True)
        AutoModel.register(config, model, exist_ok=True)
    AutoModelForPreTraining.register(LexMotionTextConfig, LexMotionForLexicalMaskedLM, exist_ok=True)
    for config in (LexMotionConfig, LexMotionMotionConfig):
        AutoFeatureExtractor.register(config, LexMotionFeatureExtractor, exist_ok=True)
    AutoProcessor.register(LexMotionConfig, LexMotionProcessor, exist_ok=True)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


# The command answers `--help` in under a second, which torch and transformers alone would take four of: there the
# registration is left to the rooms. `-m` is what sys.argv holds while `python -m lexmotion...` imports its package.
if Path(sys.argv[0]).name not in ("lexmotion", "-m"):
    register()
