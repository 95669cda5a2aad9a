"""
Stand-in for T2M-GPT's training script: the text encoder outside the network, a table of 77 tokens, a vector of 512.

What the test looks at is left in the names of this module.
"""

import clip
import torch
from torch import nn

CLIP_DIM, CODES, STEPS = 512, 8, 3


class Text2MotionTransformer(nn.Module):
    def __init__(self, clip_dim=CLIP_DIM, embed_dim=16):
        super().__init__()
        self.tok_emb = nn.Embedding(CODES, embed_dim)
        self.cond_emb = nn.Linear(clip_dim, embed_dim)
        self.rnn = nn.GRU(embed_dim, embed_dim, batch_first=True)
        self.head = nn.Linear(embed_dim, CODES)

    def forward(self, idxs, clip_feature):
        tokens = torch.cat([self.cond_emb(clip_feature).unsqueeze(1), self.tok_emb(idxs)], dim=1)
        return self.head(self.rnn(tokens)[0])


def encode(texts):
    text = clip.tokenize(texts, truncate=True).to(device)
    return clip_model.encode_text(text).float()


device = torch.device("cpu")
clip_model, clip_preprocess = clip.load("ViT-B/32", device=device, jit=False)
clip.model.convert_weights(clip_model)
clip_model.eval()
for parameter in clip_model.parameters():
    parameter.requires_grad = False

network = Text2MotionTransformer().train()
optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
clip_text = ["a person walks forward", "jump", ""]
codes = torch.randint(CODES, (3, 5), generator=torch.Generator().manual_seed(0))
losses = []
for _ in range(STEPS):
    logits = network(codes[:, :-1], encode(clip_text))
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), codes.flatten())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(float(loss.detach()))
