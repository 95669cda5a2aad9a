"""From recordings and captions to prepared corpora and tensors."""

import importlib

# Public name -> the module that defines it, imported when first asked for.
_HOME = {
    "LexMotionFeatureExtractor": "feature_extraction_lexmotion",
    "LexMotionProcessor": "processing_lexmotion",
    "Lexicon": "lexicon",
    "Motion": "recordings.reading",
    "PrepareOptions": "corpora.options",
    "ReadingOptions": "recordings.options",
    "SKELETONS": "skeletons",
    "Skeleton": "skeletons",
    "canonicalize": "motion_features",
    "features_to_positions": "motion_features",
    "get_skeleton": "skeletons",
    "inspect_motion": "recordings.inspection",
    "load_motion": "recordings.reading",
    "load_prepared": "corpora.prepare",
    "mirror_positions": "motion_features",
    "positions_to_features": "motion_features",
    "prepare": "corpora.prepare",
    "resample_positions": "motion_features",
    "rotate_yaw": "motion_features",
    "save_bvh": "recordings.bvh",
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
