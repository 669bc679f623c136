"""Triton kernel for convolutional static key attention: neither logits nor neighborhoods are written to memory.

It has never run on a GPU: it is tested under Triton's interpreter alone, on the CPU (`TRITON_INTERPRET=1`). That says
nothing of its speed, of whether a GPU's compiler takes it, or of bfloat16, whose products the interpreter gets wrong.
So it is off unless `use_triton()` is called. It is no part of what goes to the Hub: networks that were loaded as remote
code keep to torch's kernels.

A program has a tile of the queries of one image and head, and goes over tiles of the keys with a softmax that corrects
itself, as FlashAttention's does. torch's kernels want the queries as rows, `9 e` wide, nine times the map in memory.
Here a logit is a sum of nine products, each of queries that lie `(i, j)` from the tile's own and of a ninth of the key:

    logits = scaling * (bias + sum over i, j of shifted(query, i, j) @ key[i, j].T)

The gradient is that of another way to compute the same, which runs in the backward pass.
"""

# pyright: reportMissingParameterType=false
# A kernel's parameters have Triton's types, which it finds out at its call.

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from .models.fast_paths import Attend, use_neighborhood_kernel

try:
    import triton
    import triton.language as tl
except ImportError as error:
    raise ImportError(
        "The Triton kernel of CSKA takes the package triton, which is not installed: pip install triton."
    ) from error

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
QUERY_TILE, KEY_TILE, MIN_PRODUCT = 64, 64, 16  # tl.dot takes no side below 16
MAX_WIDTH = 128  # of a head: wider tiles would not fit a GPU's shared memory


@triton.jit
def conv_static_key_kernel(
    query_pointer, key_pointer, bias_pointer, value_pointer, output_pointer,
    query_image, query_head, query_row, value_image, value_head, value_row,
    height, width, num_keys, scaling, heads,
    e: tl.constexpr, d: tl.constexpr, e_tile: tl.constexpr, d_tile: tl.constexpr,
    query_tile: tl.constexpr, key_tile: tl.constexpr,
):  # fmt: skip
    """Write the output `(batch, height * width, heads, d)` of one tile of queries, image and head."""
    image, head = (tl.program_id(1) // heads).to(tl.int64), (tl.program_id(1) % heads).to(tl.int64)
    num_queries = height * width
    queries = tl.program_id(0) * query_tile + tl.arange(0, query_tile)
    row, column = queries // width, queries % width
    e_channels, d_channels = tl.arange(0, e_tile), tl.arange(0, d_tile)
    query_pointer += image * query_image + head * query_head
    value_pointer += image * value_image + head * value_head
    key_pointer += head * num_keys * 9 * e
    bias_pointer += head * num_keys

    largest = tl.full([query_tile], -float("inf"), tl.float32)
    denominator = tl.zeros([query_tile], tl.float32)
    numerator = tl.zeros([query_tile, d_tile], tl.float32)
    for first in range(0, num_keys, key_tile):
        keys = first + tl.arange(0, key_tile)
        is_key = keys < num_keys
        logits = tl.zeros([query_tile, key_tile], tl.float32)
        for offset in tl.static_range(9):  # pyright: ignore[reportGeneralTypeIssues]
            i, j = row + offset // 3 - 1, column + offset % 3 - 1
            is_inside = (i >= 0) & (i < height) & (j >= 0) & (j < width) & (queries < num_queries)
            neighbors = tl.load(
                query_pointer + (i * width + j)[:, None] * query_row + e_channels[None, :],
                mask=is_inside[:, None] & (e_channels < e)[None, :],
                other=0.0,
            )
            key = tl.load(
                key_pointer + keys[None, :] * (9 * e) + offset * e + e_channels[:, None],
                mask=is_key[None, :] & (e_channels < e)[:, None],
                other=0.0,
            )
            logits += tl.dot(neighbors, key, input_precision="ieee")
        bias = tl.load(bias_pointer + keys, mask=is_key, other=0.0).to(tl.float32)
        logits = tl.where(is_key[None, :], (logits + bias[None, :]) * scaling, -float("inf"))

        larger = tl.maximum(largest, tl.max(logits, axis=1))
        exponentials, correction = tl.exp(logits - larger[:, None]), tl.exp(largest - larger)
        value = tl.load(
            value_pointer + keys[:, None] * value_row + d_channels[None, :],
            mask=is_key[:, None] & (d_channels < d)[None, :],
            other=0.0,
        )
        numerator = numerator * correction[:, None] + tl.dot(
            exponentials.to(value.dtype), value, input_precision="ieee"
        )
        denominator = denominator * correction + tl.sum(exponentials, axis=1)
        largest = larger

    output = (numerator / denominator[:, None]).to(output_pointer.dtype.element_ty)
    rows = ((image * num_queries + queries) * heads + head) * d
    is_output = (queries < num_queries)[:, None] & (d_channels < d)[None, :]
    tl.store(output_pointer + rows[:, None] + d_channels[None, :], output, mask=is_output)


def launch(
    query: torch.Tensor,
    key: torch.Tensor,
    bias: torch.Tensor,
    value: torch.Tensor,
    grid_size: tuple[int, int],
    scaling: float,
) -> torch.Tensor:
    """Return CSKA's output `(batch, height * width, heads, d)`; see `attend_by_triton`."""
    (batch, heads, queries, e), (keys, d) = query.shape, value.shape[2:]
    query, value = (x if x.stride(3) == 1 else x.contiguous() for x in (query, value))
    key, bias = key.contiguous(), bias.contiguous()
    output = value.new_empty(batch, queries, heads, d)
    if output.numel():
        e_tile, d_tile = (max(MIN_PRODUCT, triton.next_power_of_2(width)) for width in (e, d))
        kernel: Any = conv_static_key_kernel[(triton.cdiv(queries, QUERY_TILE), batch * heads)]
        kernel(
            query, key, bias, value, output, *query.stride()[:3], *value.stride()[:3], *grid_size, keys, scaling, heads,
            e=e, d=d, e_tile=e_tile, d_tile=d_tile, query_tile=QUERY_TILE, key_tile=KEY_TILE,
        )  # fmt: skip
    return output


class TritonConvStaticKey(torch.autograd.Function):
    """The kernel forward; backward, the gradients of `recompute`."""

    @staticmethod
    def forward(ctx: Any, recompute: Attend, grid_size: tuple[int, int], scaling: float, *tensors: torch.Tensor):
        ctx.recompute = recompute
        ctx.save_for_backward(*tensors)
        query, key, bias, value = (tensor.to(tensors[3].dtype) for tensor in tensors)  # as autocast would do elsewhere
        return launch(query, key, bias, value, grid_size, scaling)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        needed = ctx.needs_input_grad[3:]
        tensors = [x.detach().requires_grad_(needs) for x, needs in zip(ctx.saved_tensors, needed)]
        with torch.enable_grad():
            output = ctx.recompute(*tensors)
        computed = iter(torch.autograd.grad(output, [x for x in tensors if x.requires_grad], gradients))
        return None, None, None, *(next(computed) if needs else None for needs in needed)


def attend_by_triton(
    query: torch.Tensor,
    key: torch.Tensor,
    bias: torch.Tensor,
    value: torch.Tensor,
    grid_size: tuple[int, int],
    scaling: float,
    recompute: Attend,
) -> torch.Tensor | None:
    """Return CSKA's output `(batch, height * width, heads, d)`, differentiable in all tensors; None if not taken.

    It is not taken of other dtypes, wider heads, and tensors on the CPU but by the interpreter.

    Args:
        query: `(batch, heads, height * width, e)`, on the grid `(height, width)`.
        key: `(heads, keys, 9 e)`, in the order of `neighborhoods`.
        bias: `(heads, keys)`.
        value: `(batch, heads, keys, d)`, whose dtype the others are brought to.
        recompute: the same function of query, key, bias and value by other means, for the gradients.
    """
    is_interpreted = not isinstance(conv_static_key_kernel, triton.JITFunction)
    is_there = value.device.type == "cuda" or is_interpreted
    if not is_there or value.dtype not in DTYPES or max(query.shape[3], value.shape[3]) > MAX_WIDTH:
        return None
    return TritonConvStaticKey.apply(recompute, grid_size, scaling, query, key, bias, value)


def use_triton(enabled: bool = True) -> None:
    """Let CSKA take the kernel wherever it can, for every network of this process; or no longer."""
    use_neighborhood_kernel(attend_by_triton if enabled else None)
