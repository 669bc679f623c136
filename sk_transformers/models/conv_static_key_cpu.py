"""Convolutional static key attention on the processor, where its logits cost most: few at a time, each touched little.

Three things make it fast:

- Queries go through in blocks, so that their logits stay in cache. The gradient computes them again instead of keeping
  them, and neighbourhoods of queries are written for a block of images only.
- A softmax is the same whatever is subtracted from its logits. Their maximum is, so that no exponential overflows and
  not all of them vanish, which takes passes over the largest tensor there is. But a static key has norms that are known
  beforehand, and `|n(q) . k| <= |n(q)| |k|`. Where that is small nothing need be subtracted.
- Then a bias is a factor of the values, and the denominator is one more column of them:

      softmax(n(q) @ k.T + b) @ v  =  u[:, :-1] / u[:, -1:],    u = exp(n(q) @ k.T) @ (exp(b) * [v, 1])

Forward and backward pass are operators of their own, which `torch.compile` does not look into: it would write all
logits to memory.
"""

import math
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch.nn import functional as F

KERNEL_SIZE = 3
BLOCK_BYTES = 10 * 2**20  # of logits at a time, of a large image
BATCH_BYTES = 2**20  # of logits at a time, of several small images
MIN_QUERIES = 64  # at a time, that it pays to read a very long key
SAFE_LOGIT = 60.0  # exp(60), sums of it and exp(-60) are far from the limits of bfloat16, float32 and float64

# Networks loaded as remote code each bring a copy of this file, and an operator can be registered only once.
NAMESPACE = re.sub(r"\W", "_", __name__)


def conv_static_key_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bias: torch.Tensor,
    mask: torch.Tensor | None,
    grid_size: tuple[int, int],
) -> torch.Tensor:
    """`softmax(neighbourhoods(query) @ key.T + bias + mask) @ value`, differentiable in all but the mask.

    Args:
        query: `(batch, heads, height * width, e)`, on the grid `(height, width)`.
        key: `(heads, keys, 9 e)`.
        value: `(batch, heads, keys, d)`.
        bias: `(heads, keys)`.
        mask: additive, broadcastable to `(batch, 1, height * width, keys)`.

    Returns:
        `(batch, height * width, heads, d)`.
    """
    query, key, bias = (tensor.to(value.dtype) for tensor in (query, key, bias))  # which autocast would do elsewhere
    return attention_in_blocks(query, key, value, bias, mask, grid_size)[0]


@torch.library.custom_op(f"{NAMESPACE}::attention_in_blocks", mutates_args=(), device_types="cpu")
def attention_in_blocks(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bias: torch.Tensor,
    mask: torch.Tensor | None,
    grid_size: Sequence[int],
) -> tuple[torch.Tensor, torch.Tensor]:
    """The output, and the denominators `(batch, height * width, heads, 1)`, which the gradient needs again."""
    output, denominators = empty_results(query, value)
    for block in blocks_of(query, key, value, bias, mask, grid_size):
        sums = torch.bmm(block.values, block.exponentials).unflatten(0, (-1, key.shape[0])).permute(0, 3, 1, 2)
        denominators[block.images, block.rows] = sums[..., -1:]
        torch.div(sums[..., :-1], sums[..., -1:], out=output[block.images, block.rows])
    return output, denominators


@attention_in_blocks.register_fake
def _(query, key, value, bias, mask, grid_size):
    return empty_results(query, value)


def empty_results(query, value) -> tuple[torch.Tensor, torch.Tensor]:
    batch, heads, queries, _ = query.shape
    return value.new_empty(batch, queries, heads, value.shape[3]), value.new_empty(batch, queries, heads, 1)


@torch.library.custom_op(f"{NAMESPACE}::attention_in_blocks_backward", mutates_args=(), device_types="cpu")
def attention_in_blocks_backward(
    gradient: torch.Tensor,
    output: torch.Tensor,
    denominators: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bias: torch.Tensor,
    mask: torch.Tensor | None,
    grid_size: Sequence[int],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The gradients of `query`, `key`, `value` and `bias`, given that of the output."""
    heads = key.shape[0]
    query_gradient, key_gradient, value_gradient, bias_gradient = empty_gradients(query, key, value, bias)
    key_gradient.zero_()
    bias_gradient.zero_()
    # The gradient of a numerator, and of the denominator that is the last column.
    sums_gradient = torch.cat([gradient, -(gradient * output).sum(dim=3, keepdim=True)], dim=3).div_(denominators)
    logits_memory, keys_memory, neighbours_memory = (query.new_empty(0) for _ in range(3))
    for block in blocks_of(query, key, value, bias, mask, grid_size):
        if block.rows.start == 0:  # the first of these images
            values_gradient = torch.zeros_like(block.values)
            neighbours_gradient = neighbours_memory.resize_(block.neighbours.shape)
        block_gradient = sums_gradient[block.images, block.rows].permute(0, 2, 3, 1).flatten(0, 1)
        values_gradient.baddbmm_(block_gradient, block.exponentials.mT)
        logits_gradient = logits_memory.resize_(block.exponentials.shape)
        torch.bmm(block.values.mT, block_gradient, out=logits_gradient)
        logits_gradient *= block.exponentials
        keys_gradient = keys_memory.resize_(block.keys.shape)
        torch.bmm(logits_gradient, block.neighbours[:, block.rows], out=keys_gradient)
        add_over_images(key_gradient, keys_gradient)
        torch.bmm(logits_gradient.mT, block.keys, out=neighbours_gradient[:, block.rows])

        if block.rows.stop == query.shape[2]:  # the last of these images
            maps_gradient = add_neighbourhoods(neighbours_gradient.unflatten(0, (-1, heads)), grid_size)
            query_gradient[block.images] = maps_gradient
            # What the logits of a key add up to in all queries, its values and theirs do.
            add_over_images(bias_gradient, (values_gradient * block.values).sum(dim=1))
            values_gradient = values_gradient[:, :-1].unflatten(0, (-1, heads))
            torch.mul(values_gradient, block.factor, out=value_gradient[block.images].mT)
    return query_gradient, key_gradient, value_gradient, bias_gradient


@attention_in_blocks_backward.register_fake
def _(gradient, output, denominators, query, key, value, bias, mask, grid_size):
    return empty_gradients(query, key, value, bias)


def empty_gradients(query, key, value, bias) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    # Queries and values lie in memory as projections of tokens do, (batch, tokens, heads, d).
    query_gradient, value_gradient = (x.new_empty(x.transpose(1, 2).shape).transpose(1, 2) for x in (query, value))
    return query_gradient, key.new_empty(key.shape), value_gradient, bias.new_empty(bias.shape)


def add_over_images(total: torch.Tensor, parts: torch.Tensor) -> None:
    """Add `parts`, `(images * heads, ...)`, to `total`, `(heads, ...)`."""
    total += parts if parts.shape == total.shape else parts.unflatten(0, (-1, total.shape[0])).sum(dim=0)


def _save_for_backward(ctx, inputs, output):
    *tensors, ctx.grid_size = inputs
    ctx.save_for_backward(*output, *tensors)
    ctx.mark_non_differentiable(output[1])


def _backward(ctx, gradient, _):
    return *attention_in_blocks_backward(gradient, *ctx.saved_tensors, ctx.grid_size), None, None


attention_in_blocks.register_autograd(_backward, setup_context=_save_for_backward)


class Block(NamedTuple):
    """Some queries of some images, and the exponentials of their logits, less any shift of a query."""

    images: slice
    rows: slice
    neighbours: torch.Tensor  # (images * heads, height * width, 9 e), of all queries
    exponentials: torch.Tensor  # (images * heads, keys, rows); the next block overwrites them
    keys: torch.Tensor  # (images * heads, keys, 9 e)
    values: torch.Tensor  # (images * heads, d + 1, keys): the values and ones, times the factor
    factor: torch.Tensor  # (heads, 1, keys): the exponential of a bias that is not in the logits


def blocks_of(query, key, value, bias, mask, grid_size) -> Iterator[Block]:
    """All queries in blocks, those of a block of images one after the other."""
    batch, heads, queries, _ = query.shape
    is_bounded = mask is None and largest_logit(query, key, bias) < SAFE_LOGIT
    factor = (bias if is_bounded else torch.zeros_like(bias)).exp().unsqueeze(1)
    num_images, num_rows = block_size(heads, queries, key.shape[1], query.element_size())
    logits_memory, neighbours_memory = query.new_empty(0), query.new_empty(0)  # new memory for each block is slow
    for first in range(0, batch, num_images):
        images = slice(first, min(first + num_images, batch))
        windows = windows_around(query[images], grid_size)
        neighbours = neighbours_memory.resize_(windows.shape).copy_(windows).view(-1, queries, key.shape[2])
        keys, biases = (x.expand(len(windows), *x.shape).flatten(0, 1) for x in (key, bias.unsqueeze(2)))
        values = with_ones(value[images].mT, factor).flatten(0, 1)
        for first_row in range(0, queries, num_rows):
            rows = slice(first_row, min(first_row + num_rows, queries))
            logits = logits_memory.resize_(*keys.shape[:2], rows.stop - first_row)
            if is_bounded:
                torch.bmm(keys, neighbours[:, rows].mT, out=logits)
            else:
                torch.baddbmm(biases, keys, neighbours[:, rows].mT, out=logits)
                if mask is not None:
                    logits.unflatten(0, (-1, heads)).add_(block_of_mask(mask, images, rows).mT)
                logits.sub_(logits.amax(dim=1, keepdim=True))
            yield Block(images, rows, neighbours, logits.exp_(), keys, values, factor)


def with_ones(values: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """`(images, heads, d, keys)` and a row of ones, `(images, heads, d + 1, keys)`, times the factor."""
    extended = values.new_empty(*values.shape[:2], values.shape[2] + 1, values.shape[3])
    torch.mul(values, factor, out=extended[:, :, :-1])
    extended[:, :, -1:] = factor
    return extended


def block_size(heads: int, queries: int, keys: int, bytes_per_logit: int) -> tuple[int, int]:
    """How many images, and how many queries of each, have their logits computed at a time."""
    image_bytes = max(1, heads * queries * keys * bytes_per_logit)
    num_blocks = -(-image_bytes // BLOCK_BYTES)
    return max(1, BATCH_BYTES // image_bytes), min(queries, max(MIN_QUERIES, -(-queries // num_blocks)))


def block_of_mask(mask: torch.Tensor, images: slice, rows: slice) -> torch.Tensor:
    """The part of a mask, broadcastable to `(batch, 1, queries, keys)`, for a block."""
    mask = mask if mask.shape[0] == 1 else mask[images]
    return mask if mask.shape[2] == 1 else mask[:, :, rows]


def largest_logit(query: torch.Tensor, key: torch.Tensor, bias: torch.Tensor) -> float:
    """An upper bound of the magnitude of all logits; infinite where float16 could not hold their exponentials."""
    if query.dtype == torch.float16:
        return math.inf
    if query.numel() == 0:  # no images
        return 0.0
    query_norms = torch.linalg.vector_norm(query.transpose(1, 2), dim=3).amax(dim=(0, 1))
    key_norms = torch.linalg.vector_norm(key, dim=2).amax(dim=1)
    # A neighbourhood is no longer than KERNEL_SIZE times its longest query.
    return KERNEL_SIZE * (query_norms * key_norms).amax().item() + bias.abs().amax().item()


def neighbourhoods(query: torch.Tensor, grid_size: Sequence[int]) -> torch.Tensor:
    """The 3x3 neighbourhood of every query, zero outside the map.

    `(batch, heads, height * width, e)` becomes `(batch, heads, height * width, 9 e)`: row by row, the channels of each
    neighbour together, which is the order of a convolution's weight with its channels last.
    """
    return windows_around(query, grid_size).flatten(4).flatten(2, 3)


def windows_around(query: torch.Tensor, grid_size: Sequence[int]) -> torch.Tensor:
    """`neighbourhoods` as a view of a padded map, `(batch, heads, height, width, 3, 3, e)`."""
    maps = F.pad(query.unflatten(2, tuple(grid_size)), (0, 0, 1, 1, 1, 1))
    return maps.unfold(2, KERNEL_SIZE, 1).unfold(3, KERNEL_SIZE, 1).permute(0, 1, 2, 3, 5, 6, 4)


def add_neighbourhoods(neighbours: torch.Tensor, grid_size: Sequence[int]) -> torch.Tensor:
    """The adjoint of `neighbourhoods`: what the neighbourhoods around each query hold in its place, added up."""
    height, width = grid_size
    windows = neighbours.unflatten(3, (KERNEL_SIZE, KERNEL_SIZE, -1)).unflatten(2, (height, width))
    maps = neighbours.new_zeros(*neighbours.shape[:2], height + 2, width + 2, windows.shape[-1])
    for i in range(KERNEL_SIZE):
        for j in range(KERNEL_SIZE):
            maps[:, :, i : i + height, j : j + width] += windows[:, :, :, :, i, j]
    return maps[:, :, 1:-1, 1:-1].flatten(2, 3)
