"""LexMotion's text tower as the text encoder of unmodified motion generators."""

from transformers import AutoConfig, AutoModel

from .caption_table import CaptionTableReport, save_caption_table
from .clip_shim import ClipShim, install_clip_shim
from .text_conditioner import LexMotionTextConditioner, LexMotionTextConditionerConfig
from .word_states import T2MTextEncoder

__all__ = [
    "CaptionTableReport",
    "ClipShim",
    "LexMotionTextConditioner",
    "LexMotionTextConditionerConfig",
    "T2MTextEncoder",
    "install_clip_shim",
    "save_caption_table",
]

AutoConfig.register(LexMotionTextConditionerConfig.model_type, LexMotionTextConditionerConfig, exist_ok=True)
AutoModel.register(LexMotionTextConditionerConfig, LexMotionTextConditioner, exist_ok=True)
