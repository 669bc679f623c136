"""The layers between the mixers: what they compute. `fast_mlp.py` says how it is made fast."""

import torch
from torch import nn
from torch.nn import functional as F
from transformers import initialization as init

from .fast_mlp import fast_mlp, scaled_square_, star_relu
from .fast_paths import use_fast_paths


class StarReLU(nn.Module):
    """`scale * relu(x) ** 2 + bias`, two trained scalars ("MetaFormer Baselines for Vision", arXiv 2210.13452)."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.empty(1))
        self.bias = nn.Parameter(torch.empty(1))
        self.reset_parameters()

    def reset_parameters(self, std: float = 0.02) -> None:
        init.ones_(self.scale)
        init.zeros_(self.bias)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if use_fast_paths():
            return star_relu(hidden_states, self.scale, self.bias)
        return self.scale * F.relu(hidden_states).square() + self.bias

    def forward_(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Overwrite the argument, for a caller that owns it; there is no gradient of it."""
        return scaled_square_(hidden_states.relu_(), self.scale, self.bias)


class MLP(nn.Module):
    """`fc2(activation(fc1(x)))`, of tokens `(batch, tokens, hidden_size)`."""

    def __init__(self, hidden_size: int, inner_size: int, activation: nn.Module, bias: bool):
        super().__init__()
        self.fc1 = nn.Linear(hidden_size, inner_size, bias=bias)
        self.activation = activation
        self.fc2 = nn.Linear(inner_size, hidden_size, bias=bias)
        self.gradient_checkpointing = False  # which transformers sets on every module that has it

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if use_fast_paths():
            return fast_mlp(self.fc1, self.activation, self.fc2, hidden_states, not self.gradient_checkpointing)
        return self.fc2(self.activation(self.fc1(hidden_states)))
