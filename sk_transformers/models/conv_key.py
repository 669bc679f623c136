"""Attention whose key is a convolution of its queries: the authors' released form of CSKA, in their Swin.

    ConvKeyAttention    softmax( q @ conv(q).T * d**-0.5 ) @ v    conv: 3x3, each head by itself, zero outside the grid

The paper's CSKA (`static_key.py`) has the same convolution but for its outputs: one for each position of a key, which
are the logits. Here they are `d` channels, a key of the usual size. What is static is the convolution's weight. The key
itself differs from image to image, and its weight belongs to no grid: on any other one nothing is resized.

The convolution has no bias: every key would have the same, and a number that all keys share leaves the weights as they
are.
"""

import math

import torch
from torch import nn
from transformers import initialization as init

from .attention import attend, check_tokens, project, scale, split_heads
from .attention_bias import build_attention_bias, logit_mask
from .attention_options import AttentionOptions
from .conv_projection import build_convolutions
from .grids import KERNEL_SIZE, maps_to_tokens, tokens_to_maps
from .rotary import rotate
from .talking_heads import build_talking_heads


class ConvKeyAttention(nn.Module):
    """Attention whose key is a 3x3 convolution of the queries; in windows, of the queries of a window.

    Raises:
        ValueError: if there are class tokens, which lie on no grid, or fewer keys than queries.
    """

    def __init__(self, options: AttentionOptions):
        super().__init__()
        check_options(options)
        self.options, self.grid_size, self.num_class_tokens = options, options.grid_size, options.num_class_tokens
        width, inner_size, bias = options.hidden_size, options.inner_size, options.qkv_bias
        self.q_proj = nn.Linear(width, inner_size, bias=bias) if options.query_projection else nn.Identity()
        self.key_conv = nn.Conv2d(
            inner_size, inner_size, KERNEL_SIZE, padding=KERNEL_SIZE // 2, groups=options.num_heads, bias=False
        )
        self.v_proj = nn.Linear(width, inner_size, bias=bias)
        self.o_proj = nn.Linear(inner_size, width, bias=options.output_bias)
        self.temperature = nn.Parameter(torch.empty(1)) if options.learned_temperature else None
        self.attention_bias = build_attention_bias(options)
        self.talking_heads = build_talking_heads(options)
        self.convolutions = build_convolutions(options, "qv")
        self.reset_parameters()

    def reset_parameters(self) -> None:
        if self.temperature is not None:
            init.constant_(self.temperature, math.log(self.options.head_dim**-0.5))

    def forward(
        self,
        hidden_states: torch.Tensor,
        grid_size: tuple[int, int] | None = None,
        output_attentions: bool = False,
        implementation: str = "sdpa",
        mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """See `SelfAttention.forward`."""
        options, grid_size = self.options, grid_size or self.grid_size
        check_tokens(self, hidden_states, grid_size)
        query, value = (project(self, name, hidden_states, grid_size) for name in "qv")
        key = convolved_keys(self.key_conv, query, grid_size)
        if options.rope_theta is not None:
            query, key = rotate(grid_size, 0, options.rope_theta, query, key)
        query, scaling = scale(self, query)
        mask = logit_mask(self, mask, grid_size, value)
        normalization = options.attention_normalization
        output, weights = attend(
            self, query, key, value, scaling, mask, implementation, output_attentions, normalization, self.talking_heads
        )
        return self.o_proj(output.flatten(2)), weights


def convolved_keys(convolution: nn.Module, query: torch.Tensor, grid_size: tuple[int, int]) -> torch.Tensor:
    """Return the keys that a grouped convolution makes of the queries, both `(batch, heads, positions, head_dim)`."""
    maps = tokens_to_maps(query.transpose(1, 2).flatten(2), grid_size)
    return split_heads(maps_to_tokens(convolution(maps)), query.shape[1])


def check_options(options: AttentionOptions) -> None:
    """Raise unless every token has a query on the grid, and every query a key."""
    if options.num_class_tokens:
        raise ValueError(
            "The token mixer 'conv_key' makes keys of the queries around on the grid, and a class token lies on none:"
            " use 'conv_static_key', which has a key for it, or a network without a class token."
        )
    if options.key_stride != 1:
        raise ValueError(
            f"The token mixer 'conv_key' makes a key of every query, and key_stride={options.key_stride} leaves fewer"
            " values: use key_stride=1."
        )
