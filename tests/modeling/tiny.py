"""Tiny configurations shared by the modelling tests."""

import torch

from lexmotion import (
    LexMotionConfig,
    LexMotionForContrastiveAlignment,
    LexMotionModel,
    LexMotionMotionConfig,
    LexMotionTextConfig,
)

VOCABULARY = 99


def text_config(model_type: str = "bert", **fields) -> LexMotionTextConfig:
    if model_type == "bert":
        encoder = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    else:
        encoder = {"dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 48}
    encoder |= {"model_type": model_type, "vocab_size": VOCABULARY}
    return LexMotionTextConfig(encoder_config=encoder, num_decoder_layers=1, **fields)


def motion_config(**fields) -> LexMotionMotionConfig:
    defaults = {
        "num_features": 12,
        "parts": [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11], [0, 1, 2]],
        "patch_frames": 4,
        "num_frames": 24,
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "vocab_size": VOCABULARY,
        "word_embedding_size": 32,
        "decoder_hidden_size": 16,
        "num_decoder_layers": 1,
        "num_feature_decoder_layers": 1,
        "num_bottleneck_decoder_layers": 1,
        "contrast_hidden_size": 16,
        "contrast_size": 8,
    }
    return LexMotionMotionConfig(**(defaults | fields))


def dual_config(**fields) -> LexMotionConfig:
    return LexMotionConfig(text_config=text_config(), motion_config=motion_config(), **fields)


def dual_model(seed: int = 0, active=range(10, 90)) -> LexMotionModel:
    torch.manual_seed(seed)
    model = LexMotionModel(dual_config())
    model.set_active_words(active)
    return model.eval()


def alignment(model: LexMotionModel, **options) -> LexMotionForContrastiveAlignment:
    """The head of phase iv around a dual encoder."""
    head = LexMotionForContrastiveAlignment(model.config, **options)
    head.model = model
    return head.train(model.training)


def captions(rows: int = 4, length: int = 9, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(10, 90, (rows, length), generator=generator)
    mask = torch.ones_like(ids)
    mask[1:2, 5:] = 0
    return ids, mask


def motions(rows: int = 4, frames: int = 22, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, frames, 12, generator=generator)
    mask = torch.ones(rows, frames, dtype=torch.int64)
    mask[2:3, 13:] = 0
    return values, mask


def labels_for(ids: torch.Tensor, columns=(2, 4)) -> torch.Tensor:
    labels = torch.full_like(ids, -100)
    labels[:, list(columns)] = ids[:, list(columns)]
    return labels
