"""CPU kernel for convolutional static key attention: tiled over queries, recomputed in the backward pass.

As FlashAttention does, it never writes the logits `(batch, heads, N, N)` to memory. Three things make it fast:

- Logits are made a tile at a time, so that they stay in cache: all keys by some queries of one image, or all queries of
  several small images. The gradient computes them again instead of keeping them.

              keys
            +------+------+--
            |      |      |         one image and head; a tile is all keys
            | tile | tile |  ...    by `rows` of the queries
            |      |      |
            +------+------+--
             rows    queries

- Softmax is shift-invariant; the row maximum is usually subtracted for numerical stability, at the cost of extra passes
  over the logits. The norms of static keys are known beforehand, so that Cauchy-Schwarz bounds the logits:
  `|n(q) . k| <= |n(q)| |k|`. Below SAFE_LOGIT nothing need be subtracted.
- Then a bias is a factor of the values, and the denominator is one more column of them:

      softmax(n(q) @ k.T + b) @ v  =  u[:, :-1] / u[:, -1:],    u = exp(n(q) @ k.T) @ (exp(b) * [v, 1])

Forward and backward pass are operators of their own, which `torch.compile` does not look into: it would write all
logits to memory.
"""

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch

from .grids import KERNEL_SIZE, neighborhood_view, sum_neighborhoods

TILE_BYTES = 10 * 2**20  # of logits at a time, of a large image
BATCH_TILE_BYTES = 2**20  # of logits at a time, of several small images
MIN_TILE_QUERIES = 64  # fewer would make the product memory-bound: the whole key is read once a tile
SAFE_LOGIT = 60.0  # exp(60), sums of it and exp(-60) are far from the limits of bfloat16, float32 and float64

# Each trust_remote_code repo imports its own copy of this file under another module name, and an operator can be
# registered only once: its namespace is the module's name.
NAMESPACE = re.sub(r"\W", "_", __name__)


def tiled_conv_static_key_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bias: torch.Tensor,
    mask: torch.Tensor | None,
    grid_size: tuple[int, int],
) -> torch.Tensor:
    """Return `softmax(neighborhoods(query) @ key.T + bias + mask) @ value`, differentiable in all of them.

    Args:
        query: `(batch, heads, height * width, e)`, on the grid `(height, width)`.
        key: `(heads, keys, 9 e)`.
        value: `(batch, heads, keys, d)`.
        bias: `(heads, keys)`.
        mask: additive, `(batch or 1, heads or 1, height * width or 1, keys)`.

    Returns:
        `(batch, height * width, heads, d)`.
    """
    query, key, bias = (tensor.to(value.dtype) for tensor in (query, key, bias))  # which autocast would do elsewhere
    return tiled_attention(query, key, value, bias, mask, grid_size)[0]


@torch.library.custom_op(f"{NAMESPACE}::tiled_attention", mutates_args=(), device_types="cpu")
def tiled_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bias: torch.Tensor,
    mask: torch.Tensor | None,
    grid_size: Sequence[int],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the output, and the denominators `(batch, height * width, heads, 1)`, which the gradient needs again."""
    output, denominators = empty_results(query, value)
    for tile in logit_tiles(query, key, value, bias, mask, grid_size):
        sums = torch.bmm(tile.values, tile.exponentials).unflatten(0, (-1, key.shape[0])).permute(0, 3, 1, 2)
        denominators[tile.images, tile.rows] = sums[..., -1:]
        torch.div(sums[..., :-1], sums[..., -1:], out=output[tile.images, tile.rows])
    return output, denominators


@tiled_attention.register_fake
def _(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bias: torch.Tensor,
    mask: torch.Tensor | None,
    grid_size: Sequence[int],
) -> tuple[torch.Tensor, torch.Tensor]:
    return empty_results(query, value)


def empty_results(query: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    batch, heads, queries, _ = query.shape
    return value.new_empty(batch, queries, heads, value.shape[3]), value.new_empty(batch, queries, heads, 1)


@torch.library.custom_op(f"{NAMESPACE}::tiled_attention_backward", mutates_args=(), device_types="cpu")
def tiled_attention_backward(
    gradient: torch.Tensor,
    output: torch.Tensor,
    denominators: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bias: torch.Tensor,
    mask: torch.Tensor | None,
    grid_size: Sequence[int],
    mask_needs_gradient: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the gradients of `query`, `key`, `value`, `bias` and `mask`, if it needs one, given that of the output."""
    heads, kept_mask = key.shape[0], mask if mask_needs_gradient else None
    gradients = empty_gradients(query, key, value, bias, kept_mask)
    query_gradient, key_gradient, value_gradient, bias_gradient, mask_gradient = gradients
    for total in (key_gradient, bias_gradient, mask_gradient):
        total.zero_()
    # The gradient of a numerator, and of the denominator that is the last column.
    sums_gradient = torch.cat([gradient, -(gradient * output).sum(dim=3, keepdim=True)], dim=3).div_(denominators)
    logits_memory, keys_memory, neighbors_memory = (query.new_empty(0) for _ in range(3))
    values_gradient = neighbors_gradient = query.new_empty(0)
    for tile in logit_tiles(query, key, value, bias, mask, grid_size):
        if tile.rows.start == 0:  # the first of these images
            values_gradient = torch.zeros_like(tile.values)
            neighbors_gradient = neighbors_memory.resize_(tile.neighbors.shape)
        tile_gradient = sums_gradient[tile.images, tile.rows].permute(0, 2, 3, 1).flatten(0, 1)
        values_gradient.baddbmm_(tile_gradient, tile.exponentials.mT)
        logits_gradient = logits_memory.resize_(tile.exponentials.shape)
        torch.bmm(tile.values.mT, tile_gradient, out=logits_gradient)
        logits_gradient *= tile.exponentials
        if mask_needs_gradient:
            total = mask_tile(mask_gradient, tile.images, tile.rows).mT
            total += logits_gradient.unflatten(0, (-1, heads)).sum_to_size(total.shape)
        keys_gradient = keys_memory.resize_(tile.keys.shape)
        torch.bmm(logits_gradient, tile.neighbors[:, tile.rows], out=keys_gradient)
        add_over_images(key_gradient, keys_gradient)
        torch.bmm(logits_gradient.mT, tile.keys, out=neighbors_gradient[:, tile.rows])

        if tile.rows.stop == query.shape[2]:  # the last of these images
            maps_gradient = sum_neighborhoods(neighbors_gradient.unflatten(0, (-1, heads)), grid_size)
            query_gradient[tile.images] = maps_gradient
            # d(bias) is the sum of dlogits over queries, which equals sum(dvalues * values) and is already here.
            add_over_images(bias_gradient, (values_gradient * tile.values).sum(dim=1))
            values_gradient = values_gradient[:, :-1].unflatten(0, (-1, heads))
            torch.mul(values_gradient, tile.exp_bias, out=value_gradient[tile.images].mT)
    return gradients


@tiled_attention_backward.register_fake
def _(
    gradient: torch.Tensor,
    output: torch.Tensor,
    denominators: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bias: torch.Tensor,
    mask: torch.Tensor | None,
    grid_size: Sequence[int],
    mask_needs_gradient: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    return empty_gradients(query, key, value, bias, mask if mask_needs_gradient else None)


def empty_gradients(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor, mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    # Queries and values lie in memory as projections of tokens do, (batch, tokens, heads, d).
    query_gradient, value_gradient = (x.new_empty(x.transpose(1, 2).shape).transpose(1, 2) for x in (query, value))
    # Logits are made (keys, queries), and the mask's gradient is summed that way.
    mask_gradient = query.new_empty(0) if mask is None else mask.new_empty(mask.mT.shape).mT
    return query_gradient, key.new_empty(key.shape), value_gradient, bias.new_empty(bias.shape), mask_gradient


def add_over_images(total: torch.Tensor, parts: torch.Tensor) -> None:
    """Add `parts`, `(images * heads, ...)`, to `total`, `(heads, ...)`."""
    total += parts if parts.shape == total.shape else parts.unflatten(0, (-1, total.shape[0])).sum(dim=0)


def _save_for_backward(ctx: Any, inputs: tuple, output: tuple[torch.Tensor, torch.Tensor]) -> None:
    *tensors, ctx.grid_size = inputs
    ctx.save_for_backward(*output, *tensors)
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, gradient: torch.Tensor, _: None) -> tuple[torch.Tensor | None, ...]:
    mask_needs_gradient = ctx.needs_input_grad[4]
    *gradients, mask_gradient = tiled_attention_backward(
        gradient, *ctx.saved_tensors, ctx.grid_size, mask_needs_gradient
    )
    return *gradients, mask_gradient if mask_needs_gradient else None, None


tiled_attention.register_autograd(_backward, setup_context=_save_for_backward)


class LogitTile(NamedTuple):
    """Some queries of some images, and the exponentials of their logits, less any shift of a query."""

    images: slice
    rows: slice
    neighbors: torch.Tensor  # (images * heads, height * width, 9 e), of all queries
    exponentials: torch.Tensor  # (images * heads, keys, rows); the next tile overwrites them
    keys: torch.Tensor  # (images * heads, keys, 9 e)
    values: torch.Tensor  # (images * heads, d + 1, keys): the values and ones, times the exp_bias
    exp_bias: torch.Tensor  # (heads, 1, keys): the exponential of a bias that is not in the logits


def logit_tiles(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bias: torch.Tensor,
    mask: torch.Tensor | None,
    grid_size: Sequence[int],
) -> Iterator[LogitTile]:
    """Yield all queries in tiles; those of some images come one after the other."""
    batch, heads, queries, _ = query.shape
    can_skip_max = mask is None and logit_bound(query, key, bias) < SAFE_LOGIT
    exp_bias = (bias if can_skip_max else torch.zeros_like(bias)).exp().unsqueeze(1)
    num_images, num_rows = tile_size(heads, queries, key.shape[1], query.element_size())
    logits_memory, neighbors_memory = query.new_empty(0), query.new_empty(0)  # new memory for each tile is slow
    for first in range(0, batch, num_images):
        images = slice(first, min(first + num_images, batch))
        view = neighborhood_view(query[images], grid_size)
        neighbors = neighbors_memory.resize_(view.shape).copy_(view).view(-1, queries, key.shape[2])
        keys, biases = (x.expand(len(view), *x.shape).flatten(0, 1) for x in (key, bias.unsqueeze(2)))
        values = append_normalizer_row(value[images].mT, exp_bias).flatten(0, 1)
        for first_row in range(0, queries, num_rows):
            rows = slice(first_row, min(first_row + num_rows, queries))
            logits = logits_memory.resize_(*keys.shape[:2], rows.stop - first_row)
            if can_skip_max:
                torch.bmm(keys, neighbors[:, rows].mT, out=logits)
            else:
                torch.baddbmm(biases, keys, neighbors[:, rows].mT, out=logits)
                if mask is not None:
                    logits.unflatten(0, (-1, heads)).add_(mask_tile(mask, images, rows).mT)
                logits.sub_(logits.amax(dim=1, keepdim=True))
            yield LogitTile(images, rows, neighbors, logits.exp_(), keys, values, exp_bias)


def append_normalizer_row(values: torch.Tensor, exp_bias: torch.Tensor) -> torch.Tensor:
    """`(images, heads, d, keys)` and a row of ones, `(images, heads, d + 1, keys)`, times the exp_bias."""
    extended = values.new_empty(*values.shape[:2], values.shape[2] + 1, values.shape[3])
    torch.mul(values, exp_bias, out=extended[:, :, :-1])
    extended[:, :, -1:] = exp_bias
    return extended


def tile_size(heads: int, queries: int, keys: int, bytes_per_logit: int) -> tuple[int, int]:
    """How many images, and how many queries of each, have their logits computed at a time."""
    image_bytes = max(1, heads * queries * keys * bytes_per_logit)
    num_tiles = -(-image_bytes // TILE_BYTES)
    return max(1, BATCH_TILE_BYTES // image_bytes), min(queries, max(MIN_TILE_QUERIES, -(-queries // num_tiles)))


def mask_tile(mask: torch.Tensor, images: slice, rows: slice) -> torch.Tensor:
    """The part of a mask, `(batch or 1, heads or 1, queries or 1, keys)`, for a tile."""
    mask = mask if mask.shape[0] == 1 else mask[images]
    return mask if mask.shape[2] == 1 else mask[:, :, rows]


def logit_bound(query: torch.Tensor, key: torch.Tensor, bias: torch.Tensor) -> float:
    """An upper bound of the magnitude of all logits; infinite where float16 could not hold their exponentials."""
    if query.dtype == torch.float16:
        return math.inf
    if query.numel() == 0:  # no images
        return 0.0
    query_norms = torch.linalg.vector_norm(query.transpose(1, 2), dim=3).amax(dim=(0, 1))
    key_norms = torch.linalg.vector_norm(key, dim=2).amax(dim=1)
    # A neighborhood is no longer than KERNEL_SIZE times its longest query.
    return KERNEL_SIZE * (query_norms * key_norms).amax().item() + bias.abs().amax().item()
