"""
Stand-in for MDM: a denoiser of a few numbers with MDM's handling of text, by CLIP or by BERT.

Like MDM, it cuts captions to 22 tokens and pads the table with zeros to 77, keeps the encoder as `clip_model`, drops
that from its checkpoints, and has a `train()` that returns nothing.
"""

import clip
import torch
from torch import nn


class Bert(nn.Module):
    """Token states of a model of transformers, by name, and their mask."""

    def __init__(self, path):
        super().__init__()
        from transformers import AutoModel, AutoTokenizer

        self.tokenizer, self.text_model = AutoTokenizer.from_pretrained(path), AutoModel.from_pretrained(path)

    def forward(self, texts):
        inputs = self.tokenizer(texts, return_tensors="pt", padding=True)
        states = self.text_model(**inputs.to(self.text_model.device)).last_hidden_state
        return states, inputs.attention_mask.to(dtype=bool)


class MDM(nn.Module):
    def __init__(self, latent_dim=16, clip_dim=512, clip_version="ViT-B/32", text_encoder_type="clip"):
        super().__init__()
        self.motion = nn.Linear(6, latent_dim)
        if text_encoder_type == "clip":
            self.clip_model = self.load_and_freeze_clip(clip_version)
            self.encode_text = self.clip_encode_text
        else:
            self.clip_model = Bert("distilbert/distilbert-base-uncased").eval()
            self.clip_model.text_model.training = False
            for parameter in self.clip_model.parameters():
                parameter.requires_grad = False
            self.encode_text = self.bert_encode_text
            clip_dim = 768
        self.embed_text = nn.Linear(clip_dim, latent_dim)
        self.attention = nn.MultiheadAttention(latent_dim, 2)
        self.dropout = nn.Dropout(0.1)
        self.output = nn.Linear(latent_dim, 6)

    def load_and_freeze_clip(self, clip_version):
        clip_model, _ = clip.load(clip_version, device="cpu", jit=False)
        clip.model.convert_weights(clip_model)
        clip_model.eval()
        for parameter in clip_model.parameters():
            parameter.requires_grad = False
        return clip_model

    def parameters_wo_clip(self):
        return [parameter for name, parameter in self.named_parameters() if not name.startswith("clip_model.")]

    def clip_encode_text(self, raw_text):
        device = next(self.parameters()).device
        texts = clip.tokenize(raw_text, context_length=22, truncate=True).to(device)
        zeros = torch.zeros([texts.shape[0], 77 - 22], dtype=texts.dtype, device=device)
        return self.clip_model.encode_text(torch.cat([texts, zeros], dim=1)).float().unsqueeze(0), None

    def bert_encode_text(self, raw_text):
        text, mask = self.clip_model(raw_text)
        return text.permute(1, 0, 2), ~mask

    def forward(self, x, texts):
        """x (T, B, 6), captions -> (T, B, 6)."""
        text, padding = self.encode_text(texts)
        memory = self.embed_text(text)  # (1 or L, B, D)
        query = self.motion(x)
        attended, _ = self.attention(query, memory, memory, key_padding_mask=padding)
        return self.output(self.dropout(query + attended))

    def train(self, *args, **kwargs):
        super().train(*args, **kwargs)
