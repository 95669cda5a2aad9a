"""Processing of recordings and captions to prepared corpora and tensors."""

from lexmotion.common.lazy import lazy_names

# Public name -> module that defines it, imported on first access.
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
    "retarget_positions": "motion_features",
    "rotate_yaw": "motion_features",
    "save_bvh": "recordings.bvh",
}
__all__ = sorted(_HOME)
__getattr__, __dir__ = lazy_names(__name__, _HOME)
