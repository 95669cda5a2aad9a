"""From raw motion and words to tensors."""

import importlib

# Public name -> the module that defines it, imported when first asked for.
_HOME = {
    "LexMotionFeatureExtractor": "feature_extraction_lexmotion",
    "LexMotionProcessor": "processing_lexmotion",
    "Lexicon": "lexicon",
    "Skeleton": "skeletons",
    "SKELETONS": "skeletons",
    "get_skeleton": "skeletons",
    "canonicalize": "motion_features",
    "features_to_positions": "motion_features",
    "mirror_positions": "motion_features",
    "positions_to_features": "motion_features",
    "resample_positions": "motion_features",
    "rotate_yaw": "motion_features",
}
__all__ = sorted(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
