"""LexMotion: human motion and language in one space whose dimensions are words."""

from .common import moved, registration
from .common.lazy import lazy_names
from .common.registration import register

__version__ = "0.1.0"

# Public name -> the module that defines it. Imported when first asked for: transformers alone takes seconds.
_HOME = {
    "LexMotionConfig": "configuration_lexmotion",
    "LexMotionMotionConfig": "configuration_lexmotion",
    "LexMotionTextConfig": "configuration_lexmotion",
    "LexMotionForContrastiveAlignment": "pretraining_lexmotion",
    "LexMotionForContrastiveMaskedMotion": "pretraining_lexmotion",
    "LexMotionForLexicalMaskedLM": "pretraining_lexmotion",
    "LexMotionForLexicalMaskedMotion": "pretraining_lexmotion",
    "LexMotionModel": "modeling_lexmotion",
    "LexMotionMotionModel": "modeling_lexmotion",
    "LexMotionTextModel": "modeling_lexmotion",
    "LexMotionIndex": "index.lexmotion_index",
    "MotionFeatureExtractionPipeline": "pipelines_lexmotion",
    "ZeroShotMotionClassificationPipeline": "pipelines_lexmotion",
    "Lexicon": "processing.lexicon",
    "LexMotionFeatureExtractor": "processing.feature_extraction_lexmotion",
    "LexMotionProcessor": "processing.processing_lexmotion",
    "PrepareOptions": "processing.corpora.options",
    "ReadingOptions": "processing.recordings.options",
    "load_motion": "processing.recordings.reading",
    "save_bvh": "processing.recordings.bvh",
    "prepare": "processing.corpora.prepare",
    "train": "training.pipeline",
    "evaluate": "evaluation.model_evaluation",
    "explain": "evaluation.explain",
    "encode": "evaluation.encoding.shards",
    "encode_captions": "evaluation.encoding.captions",
    "build_index": "evaluation.search",
}
__all__ = [*_HOME, "register"]
__getattr__, __dir__ = lazy_names(__name__, _HOME)


registration.install()
moved.install()
