"""Stand-in for T2M's training script: words to vectors in the data loader, longest caption first, three steps."""

import numpy as np
import torch
from networks.modules import *  # noqa: F403
from networks.modules import AttLayer, TextDecoder, TextEncoderBiGRU
from torch.nn.utils import clip_grad_norm_
from utils.word_vectorizer import POS_enumerator, WordVectorizer

MAX_TEXT_LEN, TEXT_HIDDEN = 20, 512
CAPTIONS = ["a/DET person/NOUN walks/VERB forward/ADV", "person/NOUN cartwheel/VERB zigzag/NOUN", "jump/VERB"]


def collate(captions, w_vectorizer):
    embeddings, one_hots, lengths = [], [], []
    for caption in captions:
        tokens = ["sos/OTHER", *caption.split()[:MAX_TEXT_LEN], "eos/OTHER"]
        lengths.append(len(tokens))
        tokens += ["unk/OTHER"] * (MAX_TEXT_LEN + 2 - len(tokens))
        vectors, tags = zip(*(w_vectorizer[token] for token in tokens), strict=True)
        embeddings.append(np.stack(vectors))
        one_hots.append(np.stack(tags))
    return torch.tensor(np.stack(embeddings)), torch.tensor(np.stack(one_hots)), torch.tensor(lengths)


def generate(batch):
    word_emb, pos_ohot, cap_lens = batch
    word_emb = word_emb.detach().to("cpu").float()
    pos_ohot = pos_ohot.detach().to("cpu").float()
    word_hids, hidden = text_enc(word_emb, pos_ohot, cap_lens)
    state = seq_dec.get_init_hidden(hidden)
    movement, movements = torch.zeros(len(word_emb), 4), []
    for _ in range(3):
        movement, state = seq_dec(torch.cat([movement, att_layer(state, word_hids)], dim=-1), state)
        movements.append(movement)
    return word_hids, hidden, torch.stack(movements, dim=1)


text_enc = TextEncoderBiGRU(
    word_size=300, pos_size=len(POS_enumerator), hidden_size=TEXT_HIDDEN, device=torch.device("cpu")
)
att_layer = AttLayer(query_dim=16, key_dim=2 * TEXT_HIDDEN, value_dim=8)
seq_dec = TextDecoder(text_size=2 * TEXT_HIDDEN, input_size=4 + 8, hidden_size=16, output_size=4)
networks = [text_enc, att_layer, seq_dec]
optimizers = [torch.optim.Adam(network.parameters(), lr=1e-4) for network in networks]
w_vectorizer = WordVectorizer("./glove", "our_vab")
batch = collate(CAPTIONS, w_vectorizer)
target = torch.randn(3, 3, 4, generator=torch.Generator().manual_seed(0))
losses = []
for _ in range(3):
    for network in networks:
        network.train()
    loss = (generate(batch)[2] - target).square().mean()
    for optimizer in optimizers:
        optimizer.zero_grad()
    loss.backward()
    for network in networks:
        clip_grad_norm_(network.parameters(), 0.5)
    for optimizer in optimizers:
        optimizer.step()
    losses.append(float(loss.detach()))
