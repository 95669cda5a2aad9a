"""Stand-in for T2M's modules: its text encoder, which is to be replaced, and the two that read its states."""

import torch
from torch import nn


class TextEncoderBiGRU(nn.Module):
    def __init__(self, word_size, pos_size, hidden_size, device):
        raise AssertionError("T2M's own text encoder was built")


class AttLayer(nn.Module):
    def __init__(self, query_dim, key_dim, value_dim):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(size, value_dim) for size in (query_dim, key_dim, key_dim))

    def forward(self, query, key_mat):
        """query (B, Q), key_mat (B, T, K) -> (B, value_dim)."""
        weights = torch.softmax(self.key(key_mat) @ self.query(query).unsqueeze(-1), dim=1)
        return (weights * self.value(key_mat)).sum(dim=1)


class TextDecoder(nn.Module):
    def __init__(self, text_size, input_size, hidden_size, output_size):
        super().__init__()
        self.z2init = nn.Linear(text_size, hidden_size)
        self.gru = nn.GRUCell(input_size, hidden_size)
        self.output = nn.Linear(hidden_size, output_size)

    def get_init_hidden(self, latent):
        return self.z2init(latent)

    def forward(self, inputs, hidden):
        hidden = self.gru(inputs, hidden)
        return self.output(hidden), hidden
