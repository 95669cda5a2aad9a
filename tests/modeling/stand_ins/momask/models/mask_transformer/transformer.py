"""
Stand-in for MoMask's two transformers: 77 tokens, vectors of 512 in two dimensions, dropped at random as a whole.

Like MoMask, they draw their own weights with `apply` before the text encoder is there, and encode under `no_grad`.
"""

import clip
import torch
from torch import nn

CODES = 8


class MaskTransformer(nn.Module):
    def __init__(self, clip_dim=512, latent_dim=16, cond_drop_prob=0.1, clip_version="ViT-B/32"):
        super().__init__()
        self.cond_drop_prob = cond_drop_prob
        self.cond_emb = nn.Linear(clip_dim, latent_dim)
        self.token_emb = nn.Embedding(CODES + 2, latent_dim)
        self.encoder = nn.TransformerEncoderLayer(latent_dim, 2, 32, batch_first=True)
        self.output_process = nn.Linear(latent_dim, CODES)
        self.apply(self.__init_weights)
        self.clip_model = self.load_and_freeze_clip(clip_version)

    def __init_weights(self, module):
        if isinstance(module, nn.Linear | nn.Embedding):
            module.weight.data.normal_(std=0.2)

    def load_and_freeze_clip(self, clip_version):
        clip_model, _ = clip.load(clip_version, device="cpu", jit=False)
        clip.model.convert_weights(clip_model)
        clip_model.eval()
        for parameter in clip_model.parameters():
            parameter.requires_grad = False
        return clip_model

    def parameters_wo_clip(self):
        return [parameter for name, parameter in self.named_parameters() if not name.startswith("clip_model.")]

    def encode_text(self, raw_text):
        device = next(self.parameters()).device
        text = clip.tokenize(raw_text, truncate=True).to(device)
        return self.clip_model.encode_text(text).float()

    def mask_cond(self, cond):
        bs, d = cond.shape
        if self.training and self.cond_drop_prob > 0.0:
            mask = torch.bernoulli(torch.ones(bs) * self.cond_drop_prob).view(bs, 1)
            return cond * (1.0 - mask)
        return cond

    def embed(self, ids):
        return self.token_emb(ids)

    def forward(self, ids, y):
        """ids (B, N), captions -> logits (B, N, CODES)."""
        with torch.no_grad():
            cond_vector = self.encode_text(y)
        cond = self.cond_emb(self.mask_cond(cond_vector)).unsqueeze(1)
        return self.output_process(self.encoder(torch.cat([cond, self.embed(ids)], dim=1))[:, 1:])


class ResidualTransformer(MaskTransformer):
    def embed(self, ids):
        """The sum over the layers of codes so far: ids (B, N, Q)."""
        return self.token_emb(ids).sum(dim=2)
