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

    def reset_parameters(self) -> None:
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


class GatedMLP(nn.Module):
    """`fc2(activation(gate(x)) * fc1(x))`, of tokens `(batch, tokens, hidden_size)`; SwiGLU with the activation SiLU.

    Source: "GLU Variants Improve Transformer", Shazeer, arXiv 2002.05202.
    """

    def __init__(self, hidden_size: int, inner_size: int, activation: nn.Module, bias: bool):
        super().__init__()
        self.gate = nn.Linear(hidden_size, inner_size, bias=bias)
        self.activation = activation
        self.fc1 = nn.Linear(hidden_size, inner_size, bias=bias)
        self.fc2 = nn.Linear(inner_size, hidden_size, bias=bias)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.activation(self.gate(hidden_states)) * self.fc1(hidden_states))


class LayerScale(nn.Module):
    """A trained factor for each channel of a residual branch, all equal to `initial_value` before training.

    Source: "Going Deeper with Image Transformers", Touvron et al., arXiv 2103.17239.
    """

    def __init__(self, width: int, initial_value: float = 1.0):
        super().__init__()
        self.initial_value = initial_value
        self.scale = nn.Parameter(torch.empty(width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        init.constant_(self.scale, self.initial_value)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return hidden_states * self.scale


class ResidualScale(nn.Module):
    """`scale * hidden_states + branch`, with a trained factor for each channel, or 1.

    It is the shortcut that is scaled, where layer scale scales the branch.
    """

    def __init__(self, width: int, scaled: bool):
        super().__init__()
        self.scale = nn.Parameter(torch.empty(width)) if scaled else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        if self.scale is not None:
            init.ones_(self.scale)

    def forward(self, hidden_states: torch.Tensor, branch: torch.Tensor) -> torch.Tensor:
        if self.scale is None:
            return hidden_states + branch
        return torch.addcmul(branch, hidden_states, self.scale)  # one pass


class GroupNorm1(nn.Module):
    """Group norm of one group, without bias: over the channels of all tokens of an image together."""

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        init.ones_(self.weight)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(hidden_states, hidden_states.shape[1:], eps=self.eps) * self.weight


class DropPath(nn.Module):
    """Stochastic depth: in training, drop an image's whole residual branch at a rate, and scale up the others.

    Source: "Deep Networks with Stochastic Depth", Huang et al., arXiv 1603.09382.
    """

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, branch: torch.Tensor) -> torch.Tensor:
        if not self.training or self.rate == 0:
            return branch
        keep = 1 - self.rate
        kept_images = branch.new_empty(branch.shape[0], *[1] * (branch.dim() - 1)).bernoulli_(keep)
        return branch * kept_images / keep

    def extra_repr(self) -> str:
        return f"rate={self.rate:g}"


def drop_path_rates(last: float, depth: int) -> list[float]:
    """Return the rate of each of `depth` layers, growing linearly from 0 to `last`."""
    return [last * layer / max(depth - 1, 1) for layer in range(depth)]
