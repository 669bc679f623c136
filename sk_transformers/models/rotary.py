"""Rotary positions of a grid: queries and keys are turned by angles that tell where they are.

Each half of a head's channels is turned against the other by angles of the row and of the column; the coordinates of
the outermost patches' edges are -1 and 1, on a grid of any size. Class tokens and registers are not turned.

Sources: "RoFormer", Su et al., arXiv 2104.09864; in two dimensions as in "DINOv3", Siméoni et al., arXiv 2508.10104.
"""

import math

import torch


def rotate(
    grid_size: tuple[int, int], num_class_tokens: int, theta: float, *heads: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """Return tokens in heads, each `(batch, heads, [class tokens +] height * width, head_dim)`, turned.

    Args:
        grid_size: `(height, width)` of the positions after the class tokens.
        theta: the longest period of the angles is `theta` times the shortest.
    """
    angles = grid_angles(grid_size, heads[0].shape[-1], theta, heads[0])
    cosine, sine = angles.cos().to(heads[0].dtype), angles.sin().to(heads[0].dtype)
    rotated = []
    for tokens in heads:
        first, positions = tokens[:, :, :num_class_tokens], tokens[:, :, num_class_tokens:]
        left, right = positions.chunk(2, dim=-1)
        turned = positions * cosine + torch.cat([-right, left], dim=-1) * sine
        rotated.append(torch.cat([first, turned], dim=2))
    return tuple(rotated)


def grid_angles(grid_size: tuple[int, int], head_dim: int, theta: float, like: torch.Tensor) -> torch.Tensor:
    """Return the angles of a grid, `(height * width, head_dim)`, in float32, or in float64 for a tensor of that."""
    options = {"dtype": torch.float32, "device": like.device}
    axes = [2 * (torch.arange(0.5, side, **options) / side) - 1 for side in grid_size]
    coordinates = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 1)  # (height * width, 2)
    frequencies = 1 / theta ** torch.arange(0, 1, 4 / head_dim, **options)  # (head_dim / 4,)
    frequencies = frequencies.to(torch.promote_types(like.dtype, torch.float32))
    return (2 * math.pi * coordinates[:, :, None] * frequencies).flatten(1).tile(2)
