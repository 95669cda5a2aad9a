"""LexMotion: human motion and language in one space whose dimensions are words."""

import sys
from pathlib import Path

from .common import moved
from .common.lazy import lazy_names

__version__ = "0.1.0"

# Public name -> the module that defines it. Imported when first asked for, so that `lexmotion --help` stays quick.
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


def register() -> None:
    """Register models, processor and pipelines with transformers. Idempotent; done when the package is imported."""
    from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForPreTraining, AutoProcessor
    from transformers.pipelines import PIPELINE_REGISTRY

    from .configuration_lexmotion import LexMotionConfig, LexMotionMotionConfig, LexMotionTextConfig
    from .modeling_lexmotion import LexMotionModel, LexMotionMotionModel, LexMotionTextModel
    from .pipelines_lexmotion import PIPELINES
    from .pretraining_lexmotion import LexMotionForLexicalMaskedLM
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
    for pipeline in PIPELINES:
        if pipeline.task_name not in PIPELINE_REGISTRY.supported_tasks:  # a second registration would warn
            PIPELINE_REGISTRY.register_pipeline(pipeline.task_name, pipeline, pt_model=AutoModel, type="multimodal")


moved.install()

# `lexmotion --help` answers in under a second; importing torch and transformers alone would take four. So the command
# registers the classes later. While `python -m lexmotion...` imports its package, sys.argv[0] is "-m".
if Path(sys.argv[0]).name not in ("lexmotion", "-m"):
    register()
