"""Tokens that lie on a grid: as maps, in windows, with their neighborhoods, and resized to another grid.

All but `GridCache` and `ResizedKeys` are pure functions of shapes. Grids and windows are `(height, width)`; tokens are
ordered row by row, with class tokens, if there are any, before the positions.
"""

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional as F

KERNEL_SIZE = 3  # of the convolution in CSKA
MAX_CACHED_GRIDS = 4  # whose resized keys or biases a layer remembers in evaluation


def tokens_to_maps(tokens: torch.Tensor, grid_size: tuple[int, int]) -> torch.Tensor:
    """View `(batch, height * width, channels)` as `(batch, channels, height, width)`, channels last in memory."""
    return tokens.unflatten(1, grid_size).permute(0, 3, 1, 2)


def maps_to_tokens(maps: torch.Tensor) -> torch.Tensor:
    """Undo `tokens_to_maps`; a view when the maps are channels last in memory."""
    return maps.permute(0, 2, 3, 1).flatten(1, 2)


def map_size(maps: torch.Tensor) -> tuple[int, int]:
    """Return the `(height, width)` of maps `(batch, channels, height, width)`."""
    return maps.shape[2], maps.shape[3]


def strided_size(grid_size: tuple[int, int], stride: int) -> tuple[int, int]:
    """Return the size of what a convolution of this stride makes of a map, with padding that keeps it at stride 1."""
    height, width = grid_size
    return (height - 1) // stride + 1, (width - 1) // stride + 1  # graphs round negative quotients another way


def window_partition(tokens: torch.Tensor, grid_size: tuple[int, int], window: tuple[int, int]) -> torch.Tensor:
    """Cut a map into windows, padded with zeros below and on the right.

    `(batch, height * width, channels)` becomes `(batch * windows, window_height * window_width, channels)`.
    """
    (height, width), (window_height, window_width) = grid_size, window
    maps = F.pad(tokens.unflatten(1, grid_size), (0, 0, 0, -width % window_width, 0, -height % window_height))
    windows = maps.unflatten(2, (-1, window_width)).unflatten(1, (-1, window_height)).transpose(2, 3)
    return windows.flatten(0, 2).flatten(1, 2)


def window_reverse(windows: torch.Tensor, grid_size: tuple[int, int], window: tuple[int, int]) -> torch.Tensor:
    """Undo `window_partition`; the padding is dropped."""
    (height, width), (window_height, window_width) = grid_size, window
    rows, columns = -(-height // window_height), -(-width // window_width)
    windows = windows.unflatten(1, window).unflatten(0, (-1, rows, columns)).transpose(2, 3)
    maps = windows.flatten(3, 4).flatten(1, 2)
    return maps[:, :height, :width].flatten(1, 2)


def window_padding_mask(
    grid_size: tuple[int, int], window: tuple[int, int], batch: int, like: torch.Tensor
) -> torch.Tensor:
    """Return the additive mask, `(batch * windows, 1, 1, window_height * window_width)`, that hides the padding."""
    inside = like.new_ones(1, grid_size[0] * grid_size[1], 1)
    padding = 1 - window_partition(inside, grid_size, window)
    mask = padding.transpose(1, 2).unsqueeze(1) * torch.finfo(like.dtype).min
    return mask.repeat(batch, 1, 1, 1)


def neighborhoods(query: torch.Tensor, grid_size: Sequence[int]) -> torch.Tensor:
    """Return the 3x3 neighborhood of every query, zero outside the map.

    `(batch, heads, height * width, e)` becomes `(batch, heads, height * width, 9 e)`: row by row, the channels of each
    neighbor together, which is the order of a convolution's weight with its channels last.
    """
    return neighborhood_view(query, grid_size).flatten(4).flatten(2, 3)


def neighborhood_view(query: torch.Tensor, grid_size: Sequence[int]) -> torch.Tensor:
    """Return `neighborhoods` as a view of a padded map, `(batch, heads, height, width, 3, 3, e)`."""
    maps = F.pad(query.unflatten(2, tuple(grid_size)), (0, 0, 1, 1, 1, 1))
    return maps.unfold(2, KERNEL_SIZE, 1).unfold(3, KERNEL_SIZE, 1).permute(0, 1, 2, 3, 5, 6, 4)


def sum_neighborhoods(neighbors: torch.Tensor, grid_size: Sequence[int]) -> torch.Tensor:
    """Add up what the neighborhoods around each query hold in its place: the adjoint of `neighborhoods`."""
    height, width = grid_size
    views = neighbors.unflatten(3, (KERNEL_SIZE, KERNEL_SIZE, -1)).unflatten(2, (height, width))
    maps = neighbors.new_zeros(*neighbors.shape[:2], height + 2, width + 2, views.shape[-1])
    for i in range(KERNEL_SIZE):
        for j in range(KERNEL_SIZE):
            maps[:, :, i : i + height, j : j + width] += views[:, :, :, :, i, j]
    return maps[:, :, 1:-1, 1:-1].flatten(2, 3)


def resize_grid(
    rows: torch.Tensor,
    grid_size: tuple[int, int],
    new_grid_size: tuple[int, int],
    num_class_tokens: int = 0,
    interpolation: str = "auto",
) -> torch.Tensor:
    """Resize what has one row for each position of a grid.

    `(leading, [class tokens +] height * width, ...)` becomes `(leading, [class tokens +] new_height * new_width,
    ...)`; the class tokens' rows stay as they are.

    Args:
        interpolation: `"bicubic"`, `"bicubic_antialias"` (whose filter is another one where nothing shrinks, too),
            `"bilinear_antialias"`, or `"auto"`: bicubic, antialiased where it shrinks.
    """
    # bfloat16 and float16 would round the interpolation weights too.
    flat = rows.flatten(2) if rows.dim() > 2 else rows.unsqueeze(2)
    flat = flat if rows.dtype == torch.float64 else flat.float()
    class_rows, grid_rows = flat[:, :num_class_tokens], flat[:, num_class_tokens:]
    maps = grid_rows.transpose(1, 2).unflatten(2, grid_size)
    if interpolation == "auto":
        shrinks = new_grid_size[0] < grid_size[0] or new_grid_size[1] < grid_size[1]
        interpolation = "bicubic_antialias" if shrinks else "bicubic"
    mode, _, antialias = interpolation.partition("_")
    maps = F.interpolate(maps, size=new_grid_size, mode=mode, antialias=bool(antialias))
    resized = torch.cat([class_rows, maps.flatten(2).transpose(1, 2)], dim=1).to(rows.dtype)
    return resized.reshape(rows.shape[0], -1, *rows.shape[2:])


class GridCache(nn.Module):
    """What is made of parameters for a grid: in evaluation once for each, until a parameter changes.

    In training it is made each time, so that gradients reach the parameters. It is a module, and has no state of its
    own, to hear of `train()`, `to()` and their like.
    """

    def __init__(self):
        super().__init__()
        self.cache: dict[tuple[int, int], tuple[list, list[torch.Tensor]]] = {}  # by grid: versions, and what was made

    def remember(
        self,
        parameters: list[nn.Parameter],
        grid_size: tuple[int, int],
        make: Callable[[], list[torch.Tensor]],
    ) -> list[torch.Tensor]:
        """Return what `make` makes of the parameters for the grid `(height, width)`."""
        needs_grad = torch.is_grad_enabled() and any(parameter.requires_grad for parameter in parameters)
        if self.training or needs_grad or torch.compiler.is_compiling() or any(p.is_inference() for p in parameters):
            return make()
        version = [(id(p), p.data_ptr(), p._version, p.dtype, p.device) for p in parameters]
        cached_version, made = self.cache.pop(grid_size, (None, []))
        if cached_version != version:
            # A tensor made in inference mode could not be used outside it later.
            with torch.inference_mode(False), torch.no_grad():
                made = make()
        self.cache[grid_size] = (version, made)  # the latest is last
        if len(self.cache) > MAX_CACHED_GRIDS:
            self.cache.pop(next(iter(self.cache)))
        return made

    def train(self, mode: bool = True) -> "GridCache":
        self.cache.clear()
        return super().train(mode)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> "GridCache":
        self.cache.clear()
        return super()._apply(fn, recurse)


class ResizedKeys(GridCache):
    """Static keys on grids other than their own."""

    def __init__(self, grid_size: tuple[int, int], num_class_tokens: int):
        super().__init__()
        self.grid_size = grid_size
        self.num_class_tokens = num_class_tokens

    def forward(self, keys: list[nn.Parameter], grid_size: tuple[int, int]) -> list[torch.Tensor]:
        """Return the keys, `(heads, [class tokens +] height * width, ...)`, on the grid `(height, width)`."""
        if grid_size == self.grid_size:
            return list(keys)
        return self.remember(keys, grid_size, lambda: self.resize(keys, grid_size))

    def resize(self, keys: list[nn.Parameter], grid_size: tuple[int, int]) -> list[torch.Tensor]:
        return [resize_grid(key, self.grid_size, grid_size, self.num_class_tokens) for key in keys]
