"""Convolutions before the projections of queries, keys and values, as in CvT: each position sees its neighbors first.

Source: "CvT: Introducing Convolutions to Vision Transformers", Wu et al., arXiv 2103.15808.
"""

import torch
from torch import nn

from .attention_options import AttentionOptions
from .grids import maps_to_tokens, tokens_to_maps


class ConvProjection(nn.Module):
    """A depthwise convolution and batch norm of the positions; class tokens pass by as they are."""

    def __init__(self, hidden_size: int, kernel_size: int, stride: int, num_class_tokens: int):
        super().__init__()
        self.num_class_tokens = num_class_tokens
        self.depthwise = nn.Conv2d(
            hidden_size, hidden_size, kernel_size, stride, padding=kernel_size // 2, groups=hidden_size, bias=False
        )
        self.batchnorm = nn.BatchNorm2d(hidden_size)

    def forward(self, tokens: torch.Tensor, grid_size: tuple[int, int]) -> torch.Tensor:
        """Return tokens `(batch, [class tokens +] height * width, hidden_size)`, with a stride on a coarser grid."""
        first = self.num_class_tokens
        maps = self.batchnorm(self.depthwise(tokens_to_maps(tokens[:, first:], grid_size)))
        positions = maps_to_tokens(maps)
        return torch.cat([tokens[:, :first], positions], dim=1) if first else positions


def build_convolutions(options: AttentionOptions, projections: str) -> nn.ModuleDict | None:
    """Return the convolutions that the options ask for by the projection that each comes before, or None.

    Args:
        projections: some of `"qkv"`; the stride is that of keys and values.
    """
    if options.conv_kernel_size is None:
        return None
    width, kernel_size, first = options.hidden_size, options.conv_kernel_size, options.num_class_tokens
    strides = {"q": 1, "k": options.key_stride, "v": options.key_stride}
    return nn.ModuleDict({name: ConvProjection(width, kernel_size, strides[name], first) for name in projections})
