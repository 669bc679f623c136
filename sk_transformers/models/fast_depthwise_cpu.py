"""A depthwise convolution that is trained on a CPU: the gradient of a wide kernel is computed in narrow strips.

oneDNN has a kernel for the gradient of depthwise weights up to 3 wide. A wider one falls back to the kernel of grouped
convolutions, which takes ten times as long, so 7 columns are taken as 3, 3 and 1.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from .fast_mlp import is_hooked
from .fast_paths import use_fast_paths

STRIP_WIDTH = 3


def depthwise_convolution(conv: nn.Conv2d, maps: torch.Tensor) -> torch.Tensor:
    """Return `conv(maps)` of a depthwise convolution without bias and strides, `(batch, channels, height, width)`."""
    is_wide = conv.kernel_size[1] > STRIP_WIDTH
    is_trained_here = conv.training and torch.is_grad_enabled() and maps.device.type == "cpu"
    if not (is_wide and is_trained_here and use_fast_paths()) or is_hooked(conv):
        return conv(maps)
    weight = conv.weight
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        maps, weight = maps.to(dtype), weight.to(dtype)
    return _StripwiseConvolution.apply(maps, weight, [int(pixels) for pixels in conv.padding])


class _StripwiseConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: torch.Tensor, weight: torch.Tensor, padding: list[int]) -> torch.Tensor:
        ctx.save_for_backward(maps, weight)
        ctx.padding = padding
        return F.conv2d(maps, weight, padding=padding, groups=len(weight))

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gradient: torch.Tensor
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
        maps, weight = ctx.saved_tensors
        of_maps, of_weight, _ = ctx.needs_input_grad
        maps_gradient = weight_gradient = None
        if of_maps:
            maps_gradient = convolution_backward(gradient, maps, weight, ctx.padding, wanted=0)
        if of_weight:
            weight_gradient = stripwise_weight_gradient(gradient, maps, weight, ctx.padding)
        return maps_gradient, weight_gradient, None


def stripwise_weight_gradient(
    gradient: torch.Tensor, maps: torch.Tensor, weight: torch.Tensor, padding: list[int]
) -> torch.Tensor:
    """Return the gradient of weights `(channels, 1, height, width)`, strip by strip: each sees the maps moved aside."""
    rows, columns = padding
    padded = F.pad(maps, (columns, columns))
    strips = []
    for start in range(0, weight.shape[-1], STRIP_WIDTH):
        strip = weight[..., start : start + STRIP_WIDTH]
        moved = padded[..., start : start + gradient.shape[-1] + strip.shape[-1] - 1]
        strips.append(convolution_backward(gradient, moved, strip, [rows, 0], wanted=1))
    return torch.cat(strips, dim=-1)


def convolution_backward(
    gradient: torch.Tensor, maps: torch.Tensor, weight: torch.Tensor, padding: list[int], wanted: int
) -> torch.Tensor:
    """Return the gradient of a depthwise convolution's maps (`wanted` 0) or weight (1)."""
    mask = [wanted == 0, wanted == 1, False]
    return torch.ops.aten.convolution_backward(
        gradient, maps, weight, None, [1, 1], padding, [1, 1], False, [0, 0], len(weight), mask
    )[wanted]
