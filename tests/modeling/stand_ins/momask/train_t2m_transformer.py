"""Stand-in for MoMask's training script: builds both networks, twice. The tests train them."""

import torch
from models.mask_transformer.transformer import MaskTransformer, ResidualTransformer

torch.manual_seed(0)
networks = {kind.__name__: (kind(), kind()) for kind in (MaskTransformer, ResidualTransformer)}
