"""What can be said in numbers of attention weights, of any mixer: how wide it looks, where to, and through all layers.

Weights are `(..., heads, queries, keys)`, rows are queries and sum to one; mostly both are all tokens. Class tokens
stand before the positions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F

FUSIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "mean": lambda weights: weights.mean(dim=-3),
    "max": lambda weights: weights.amax(dim=-3),
    "min": lambda weights: weights.amin(dim=-3),
}  # of heads


def attention_entropy(weights: torch.Tensor) -> torch.Tensor:
    """Return `-sum_j A_ij log A_ij` in nats, `(..., heads, tokens)`: 0 of one token, log(tokens) of all alike.

    Source: "Stabilizing Transformer Training by Preventing Attention Entropy Collapse", arXiv 2303.06296.
    """
    return torch.special.entr(weights.float()).sum(dim=-1)


@dataclass(frozen=True)
class Interactions:
    """Where each position looks on average, in positions of the grid, rows first.

    With the weights `A` of query i on positions `p`, class tokens left out:

    Args:
        arrows: `sum_j A_ij p_j - p_i`, `(rows * columns, 2)`, of the mean over heads and images.
        sizes: root of `sum_j A_ij |p_j - m_i|^2` about that mean, `(rows * columns,)`.
        spread_over_heads: root mean square distance of the heads' means from theirs together, in a mean image.
        spread_over_images: the same of images, in a mean head; 0 where the weights are no image's.
    """

    arrows: torch.Tensor
    sizes: torch.Tensor
    spread_over_heads: torch.Tensor
    spread_over_images: torch.Tensor


def interactions(
    weights: torch.Tensor, grid_size: tuple[int, int], num_class_tokens: int = 0, key_stride: int = 1
) -> Interactions:
    """Return where positions look, of weights `(images, heads, queries, keys)` on a grid `(rows, columns)`.

    Arrows and fields are drawn in "Visualizing and Understanding Patch Interactions in Vision Transformer", arXiv
    2203.05922; the formulas are ours.

    Args:
        weights, grid_size, num_class_tokens: as above.
        key_stride: positions between keys, along rows and columns.

    Raises:
        ValueError: if the tokens are not those of the grid.
    """
    expected = grid_size[0] * grid_size[1] + num_class_tokens
    if weights.shape[-2] != expected:
        raise ValueError(
            f"Attention weights are of {weights.shape[-2]} tokens, and a grid of {grid_size[0]}x{grid_size[1]} with"
            f" {num_class_tokens} class tokens has {expected}: look at images of the size that the network is for."
        )
    first = num_class_tokens
    weights = weights[..., first:, first:].float()
    positions, keys = (positions_of(grid_size, stride).to(weights.device) for stride in (1, key_stride))
    # Sparse weights may be on class tokens alone: such a position looks at its own key, or the one nearest to it.
    own = F.one_hot(torch.cdist(positions, keys).argmin(dim=1), len(keys)).to(weights.dtype)
    weights = torch.where(weights.sum(dim=-1, keepdim=True) == 0, own, weights)
    weights = weights / weights.sum(dim=-1, keepdim=True)
    means = weights @ keys  # (images, heads, positions, 2)
    mean = means.mean(dim=(0, 1))
    squares = (weights.mean(dim=(0, 1)) @ keys.square()).sum(dim=1) - mean.square().sum(dim=1)
    return Interactions(
        arrows=mean - positions,
        sizes=squares.clamp(min=0).sqrt(),
        spread_over_heads=root_mean_square(means.mean(dim=0) - mean),
        spread_over_images=root_mean_square(means.mean(dim=1) - mean),
    )


def positions_of(grid_size: tuple[int, int], stride: int) -> torch.Tensor:
    """Return row and column of every position of a grid, or of each that a stride leaves, `(positions, 2)`."""
    rows, columns = (torch.arange(0, side, stride, dtype=torch.float32) for side in grid_size)
    return torch.cartesian_prod(rows, columns)


def root_mean_square(differences: torch.Tensor) -> torch.Tensor:
    """Return the root over the first dimension of the mean squared length of vectors `(count, positions, 2)`."""
    return differences.square().sum(dim=-1).mean(dim=0).sqrt()


def attention_rollout(layers: Sequence[torch.Tensor], fusion: str = "mean", discard: float = 0.0) -> torch.Tensor:
    """Return how much of each token reaches each other through all layers, `(..., tokens, tokens)`; rows sum to one.

    Each layer is half its attention and half its residual; the layers are multiplied. Source: "Quantifying Attention
    Flow in Transformers", arXiv 2005.00928, with the fusions and the discarding that vit-explain made popular. Each row
    is divided by its own sum here, where that code divides columns by the sums of rows.

    Args:
        layers: weights, `(..., heads, tokens, tokens)`, the first layer first, of the same tokens each.
        fusion: of heads: one of `FUSIONS`.
        discard: fraction of the smallest of a layer's fused weights that are set to zero, but the first of them all.

    Raises:
        ValueError: if layers have other tokens than the first.
    """
    tokens = layers[0].shape[-1]
    if any(weights.shape[-1] != tokens for weights in layers):
        counts = ", ".join(str(weights.shape[-1]) for weights in layers)
        raise ValueError(f"Layers attend among {counts} tokens: rollout takes layers with the same tokens.")
    identity = torch.eye(tokens, dtype=layers[0].dtype, device=layers[0].device)
    result = identity
    for weights in layers:
        fused = without_smallest(FUSIONS[fusion](weights), discard)
        step = fused + identity
        result = step / step.sum(dim=-1, keepdim=True) @ result
    return result


def rollout_of_positions(
    layers: Sequence[torch.Tensor],
    grid_size: tuple[int, int],
    num_class_tokens: int = 0,
    fusion: str = "mean",
    discard: float = 0.0,
) -> torch.Tensor:
    """Return `(..., rows, columns)`, the rollout from the first class token, or from the mean position without one.

    Args:
        layers, fusion, discard: see `attention_rollout`.
        grid_size: `(rows, columns)` of the positions.
        num_class_tokens: tokens before them.
    """
    rollout = attention_rollout(layers, fusion, discard)
    rows = rollout[..., 0, num_class_tokens:] if num_class_tokens else rollout.mean(dim=-2)
    return rows.unflatten(-1, grid_size)


def without_smallest(weights: torch.Tensor, fraction: float) -> torch.Tensor:
    """Return weights `(..., tokens, tokens)` whose smallest are zero, but the first, which is a class token's own."""
    flat = weights.flatten(-2)
    count = int(flat.shape[-1] * fraction)
    if count == 0:
        return weights
    smallest = flat.topk(count, dim=-1, largest=False).indices
    kept = flat.scatter(-1, smallest, 0.0)
    kept[..., 0] = flat[..., 0]
    return kept.view_as(weights)
