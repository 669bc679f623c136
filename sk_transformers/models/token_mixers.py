"""Every token mixer by name, and those that do not attend.

A mixer takes tokens `(batch, [class tokens +] height * width, hidden_size)` and the grid `(height, width)` that they
lie on, and returns the mixed tokens and its attention weights, or None if it has none. To add one: write the class, put
it in a table below, and put its name in the table of the same name in `configuration_checks.py`.

Source of the convolution, pooling, random and identity mixers: "MetaFormer Baselines for Vision", Yu et al.,
arXiv 2210.13452.
"""

import torch
from torch import nn
from torch.nn import functional as F
from transformers import initialization as init

from .attention_options import AttentionOptions
from .conv_key import ConvKeyAttention
from .fast_depthwise_cpu import depthwise_convolution
from .fast_mlp import linear_act
from .grids import maps_to_tokens, resize_grid, tokens_to_maps
from .layers import StarReLU
from .static_key import ConvStaticKeyAttention, SelfAttention, StaticKeyAttention
from .static_map import StaticMap


class SeparableConvolution(nn.Module):
    """Inverted separable convolution: expand twofold, StarReLU, 7x7 depthwise, project."""

    def __init__(self, hidden_size: int, grid_size: tuple[int, int]):
        super().__init__()
        self.grid_size, inner_size = grid_size, 2 * hidden_size
        self.fc1 = nn.Linear(hidden_size, inner_size, bias=False)
        self.activation = StarReLU()
        self.depthwise = nn.Conv2d(inner_size, inner_size, kernel_size=7, padding=3, groups=inner_size, bias=False)
        self.fc2 = nn.Linear(inner_size, hidden_size, bias=False)

    def forward(self, hidden_states: torch.Tensor, grid_size: tuple[int, int], **_) -> tuple[torch.Tensor, None]:
        hidden_states = linear_act(self.fc1, self.activation, hidden_states)
        hidden_states = maps_to_tokens(depthwise_convolution(self.depthwise, tokens_to_maps(hidden_states, grid_size)))
        return self.fc2(hidden_states), None


class Pooling(nn.Module):
    """Mean of the 3x3 neighborhood inside the map, less the token itself (PoolFormer)."""

    def __init__(self, hidden_size: int, grid_size: tuple[int, int]):
        super().__init__()

    def forward(self, hidden_states: torch.Tensor, grid_size: tuple[int, int], **_) -> tuple[torch.Tensor, None]:
        maps = tokens_to_maps(hidden_states, grid_size)
        means = F.avg_pool2d(maps, 3, stride=1, padding=1, count_include_pad=False)
        return maps_to_tokens(means) - hidden_states, None


class RandomMixing(nn.Module):
    """A random row-stochastic matrix over the positions, drawn once and not trained (RandFormer)."""

    matrix: torch.Tensor

    def __init__(self, hidden_size: int, grid_size: tuple[int, int]):
        super().__init__()
        self.grid_size = (grid_size[0], grid_size[1])
        positions = grid_size[0] * grid_size[1]
        self.register_buffer("matrix", torch.empty(positions, positions))  # a loaded parameter would be trained
        self.reset_parameters()

    def reset_parameters(self) -> None:
        init.copy_(self.matrix, torch.rand_like(self.matrix).softmax(dim=-1))

    def forward(self, hidden_states: torch.Tensor, grid_size: tuple[int, int], **_) -> tuple[torch.Tensor, None]:
        matrix = self.matrix
        if grid_size != self.grid_size:
            # Rows and columns are positions both; the rows must still sum to one and weigh nothing negatively.
            matrix = resize_grid(matrix[None], self.grid_size, grid_size)
            matrix = resize_grid(matrix.transpose(1, 2), self.grid_size, grid_size)[0].T.clamp(min=0)
            matrix = matrix / matrix.sum(dim=-1, keepdim=True)
        return matrix @ hidden_states, None


class Identity(nn.Module):
    """Mixes nothing: what the rest of the network can do alone (IdentityFormer)."""

    def __init__(self, hidden_size: int, grid_size: tuple[int, int]):
        super().__init__()

    def forward(self, hidden_states: torch.Tensor, grid_size: tuple[int, int], **_) -> tuple[torch.Tensor, None]:
        return hidden_states, None


ATTENTION_MIXERS = {
    "attention": SelfAttention,
    "static_key": StaticKeyAttention,
    "conv_static_key": ConvStaticKeyAttention,
    "static_map": StaticMap,
    "conv_key": ConvKeyAttention,
}
SPATIAL_MIXERS = {
    "separable_conv": SeparableConvolution,
    "pooling": Pooling,
    "identity": Identity,
    "random": RandomMixing,
}


def build_token_mixer(name: str, options: AttentionOptions) -> nn.Module:
    """Return the mixer called `name`; those that do not attend take the width and the grid of the options alone."""
    if name in SPATIAL_MIXERS:
        return SPATIAL_MIXERS[name](options.hidden_size, options.grid_size)
    return ATTENTION_MIXERS[name](options)
