"""Retrievers that LexMotion is compared with, one readable file each, dense as published or lexical."""

from transformers import AutoConfig, AutoModel

from .motion_patches import MotionPatchesConfig, MotionPatchesModel
from .t2m import T2MConfig, T2MModel
from .temos import TemosConfig, TemosModel
from .tmr import TmrConfig, TmrModel

__all__ = [
    "MotionPatchesConfig",
    "MotionPatchesModel",
    "T2MConfig",
    "T2MModel",
    "TemosConfig",
    "TemosModel",
    "TmrConfig",
    "TmrModel",
]

for config, model in (
    (MotionPatchesConfig, MotionPatchesModel),
    (T2MConfig, T2MModel),
    (TemosConfig, TemosModel),
    (TmrConfig, TmrModel),
):
    AutoConfig.register(config.model_type, config, exist_ok=True)
    AutoModel.register(config, model, exist_ok=True)
