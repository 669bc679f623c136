"""A bias of the logits that is a parameter: `softmax(q @ k.T * d**-0.5 + B) @ v`, `B` the same for every image.

Two kinds, of either of which a head has its own:

    full        B[query, key] is a parameter for each pair of tokens, class tokens included
    relative    B[query, key] depends on how many rows and columns lie between the two, as in Swin (arXiv 2103.14030);
                where there are class tokens, three numbers stand for class to patch, patch to class and class to
                class, as in BEiT (arXiv 2106.08254)

A mixer adds it to its mask: it is no more than that to the kernels.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import initialization as init

from .attention_options import AttentionOptions
from .grids import GridCache, resize_grid

NUM_CLASS_BIASES = 3  # of a relative bias: class to patch, patch to class, class to class


class AttentionBias(GridCache):
    """The bias `B`, `(heads, tokens, tokens)`, of a layer on any grid; zero before training, where it changes nothing.

    The parameter `bias` is `B` itself, or the table of a relative bias, `(heads, (2 height - 1) (2 width - 1))`, row by
    row, from the key that lies farthest below and to the right of its query on, and `NUM_CLASS_BIASES` more.
    """

    def __init__(self, options: AttentionOptions, kind: str):
        super().__init__()
        self.kind, self.grid_size, self.num_class_tokens = kind, options.grid_size, options.num_class_tokens
        (height, width), count = options.grid_size, options.num_positions
        distances = (2 * height - 1) * (2 * width - 1) + (NUM_CLASS_BIASES if options.num_class_tokens else 0)
        self.bias = nn.Parameter(torch.empty(options.num_heads, *((count, count) if kind == "full" else (distances,))))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        init.zeros_(self.bias)

    def forward(self, grid_size: tuple[int, int]) -> torch.Tensor:
        """Return `B` on the grid `(height, width)`."""
        if self.kind == "full" and grid_size == self.grid_size:
            return self.bias
        return self.remember([self.bias], grid_size, lambda: [self.on_grid(grid_size)])[0]

    def on_grid(self, grid_size: tuple[int, int]) -> torch.Tensor:
        """Make `B` for a grid."""
        if self.kind == "relative":
            return relative_bias(self.bias, self.grid_size, grid_size, self.num_class_tokens)
        if grid_size == self.grid_size:
            return self.bias
        return resize_full_bias(self.bias, self.grid_size, grid_size, self.num_class_tokens)

    def extra_repr(self) -> str:
        return self.kind


def build_attention_bias(options: AttentionOptions) -> AttentionBias | None:
    """Return the bias that the options ask for, or None."""
    return None if options.attention_bias is None else AttentionBias(options, options.attention_bias)


def resize_full_bias(
    bias: torch.Tensor, grid_size: tuple[int, int], new_grid_size: tuple[int, int], num_class_tokens: int
) -> torch.Tensor:
    """Return a full bias, `(heads, tokens, tokens)`, on another grid: resized along its queries and along its keys.

    What class tokens have with each other stays; what they have with positions is resized over those.
    """
    for _ in range(2):
        bias = resize_grid(bias, grid_size, new_grid_size, num_class_tokens).transpose(1, 2)
    return bias


def relative_bias(
    table: torch.Tensor, grid_size: tuple[int, int], new_grid_size: tuple[int, int], num_class_tokens: int
) -> torch.Tensor:
    """Return the full bias that a table for `grid_size` makes on another grid, `(heads, tokens, tokens)`.

    The table is resized to the distances of that grid, bilinearly and without antialiasing, as transformers' BEiT does
    with `interpolate_pos_encoding`. Its numbers for class tokens stay.
    """
    (height, width), (new_height, new_width) = grid_size, new_grid_size
    distances = (2 * height - 1) * (2 * width - 1)
    maps = table[:, :distances].unflatten(1, (2 * height - 1, 2 * width - 1))
    if new_grid_size != grid_size:
        maps = maps.unsqueeze(0) if maps.dtype == torch.float64 else maps.unsqueeze(0).float()
        maps = F.interpolate(maps, (2 * new_height - 1, 2 * new_width - 1), mode="bilinear")[0].to(table.dtype)
    # Query (i, j) meets keys (k, l) in the height x width numbers from (i, j) on, last key first: (i - k, j - l).
    windows = maps.unfold(1, new_height, 1).unfold(2, new_width, 1)
    bias = windows.flip(3, 4).flatten(3).flatten(1, 2)
    if not num_class_tokens:
        return bias
    class_to_patch, patch_to_class, class_to_class = (
        table[:, distances + kind, None, None].expand(-1, *shape)
        for kind, shape in enumerate(
            [(num_class_tokens, bias.shape[2]), (bias.shape[1], num_class_tokens), (num_class_tokens, num_class_tokens)]
        )
    )
    class_rows = torch.cat([class_to_class, class_to_patch], dim=2)
    return torch.cat([class_rows, torch.cat([patch_to_class, bias], dim=2)], dim=1)


def logit_mask(
    mixer: Any, mask: torch.Tensor | None, grid_size: tuple[int, int], like: torch.Tensor
) -> torch.Tensor | None:
    """Return all that a mixer adds to its logits, broadcastable to `(batch, heads, tokens, tokens)`, or None.

    Args:
        mixer: its `attention_bias` and `mask_diagonal` are added.
        mask: what the caller adds, the padding of a window.
        grid_size: of the tokens.
        like: values, `(batch, heads, tokens, d)`.
    """
    if mixer.attention_bias is not None:
        bias = mixer.attention_bias(grid_size).to(like.dtype)[None]  # for all images: there is no copy of it
        mask = bias if mask is None else mask + bias
    return hide_diagonal(mask, like) if mixer.options.mask_diagonal else mask


def hide_diagonal(mask: torch.Tensor | None, like: torch.Tensor) -> torch.Tensor:
    """Return the mask that keeps tokens from attending to themselves, `(1, 1, tokens, tokens)`, added to `mask`."""
    count = like.shape[2]
    # The lowest number and not -inf, so that a lone token still attends to something.
    diagonal = torch.eye(count, dtype=like.dtype, device=like.device)[None, None] * torch.finfo(like.dtype).min
    return diagonal if mask is None else mask + diagonal
