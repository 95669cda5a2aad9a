"""LexMotion: human motion and language in one space whose dimensions are words."""

from importlib import import_module

from .common import moved, registration
from .common.lazy import lazy_names

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
    "pretrained": "shipped",
    "samples": "shipped",
}
__all__ = [*_HOME, "register"]
__getattr__, __dir__ = lazy_names(__name__, _HOME)


def _register_configurations() -> None:
    from transformers import AutoConfig

    from .configuration_lexmotion import LexMotionConfig, LexMotionMotionConfig, LexMotionTextConfig

    for config in (LexMotionTextConfig, LexMotionMotionConfig, LexMotionConfig):
        AutoConfig.register(config.model_type, config, exist_ok=True)


def _register_models() -> None:
    from transformers import AutoModel, AutoModelForPreTraining

    from .configuration_lexmotion import LexMotionConfig, LexMotionMotionConfig, LexMotionTextConfig
    from .modeling_lexmotion import LexMotionModel, LexMotionMotionModel, LexMotionTextModel
    from .pretraining_lexmotion import LexMotionForLexicalMaskedLM

    AutoModel.register(LexMotionTextConfig, LexMotionTextModel, exist_ok=True)
    AutoModel.register(LexMotionMotionConfig, LexMotionMotionModel, exist_ok=True)
    AutoModel.register(LexMotionConfig, LexMotionModel, exist_ok=True)
    AutoModelForPreTraining.register(LexMotionTextConfig, LexMotionForLexicalMaskedLM, exist_ok=True)


def _register_feature_extractors() -> None:
    from transformers import AutoFeatureExtractor

    from .configuration_lexmotion import LexMotionConfig, LexMotionMotionConfig
    from .processing.feature_extraction_lexmotion import LexMotionFeatureExtractor

    for config in (LexMotionConfig, LexMotionMotionConfig):
        AutoFeatureExtractor.register(config, LexMotionFeatureExtractor, exist_ok=True)


def _register_processors() -> None:
    from transformers import AutoProcessor

    from .configuration_lexmotion import LexMotionConfig
    from .processing.processing_lexmotion import LexMotionProcessor

    AutoProcessor.register(LexMotionConfig, LexMotionProcessor, exist_ok=True)


def _register_pipelines() -> None:
    from transformers import AutoModel
    from transformers.pipelines import PIPELINE_REGISTRY

    from .pipelines_lexmotion import PIPELINES

    for pipeline in PIPELINES:
        if pipeline.task_name not in PIPELINE_REGISTRY.supported_tasks:  # a second registration would warn
            PIPELINE_REGISTRY.register_pipeline(pipeline.task_name, pipeline, pt_model=AutoModel, type="multimodal")


# Module of transformers -> what is registered there once it is imported.
_REGISTERED_WITH = {
    "transformers.models.auto.configuration_auto": _register_configurations,
    "transformers.models.auto.modeling_auto": _register_models,
    "transformers.models.auto.feature_extraction_auto": _register_feature_extractors,
    "transformers.models.auto.processing_auto": _register_processors,
    "transformers.pipelines": _register_pipelines,
}


def register() -> None:
    """
    Register models, processor and pipelines with transformers now, instead of when it is imported. Idempotent.
    """
    for module in _REGISTERED_WITH:
        import_module(module)


registration.install(__name__, _REGISTERED_WITH)
moved.install()
