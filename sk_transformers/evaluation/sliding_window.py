"""Segmentation of large images in windows: logits of overlapping crops, averaged where they overlap.

As mmsegmentation does it with `test_cfg=dict(mode="slide", crop_size=..., stride=...)`: of the rows of windows, as of
the columns, the last is shifted back into the image, and a side on which the image is smaller is taken whole.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..data.masks import EvalPairs
from ..models.configuration_checks import size_pair


@dataclass(frozen=True)
class SlidingWindow:
    """Which crops of an image a segmenter is asked.

    Args:
        size: `(height, width)` of a window in pixels.
        stride: `(rows, columns)` from a window to the next, at most its size.
        batch_size: windows of an image that go through the network at once.
    """

    size: tuple[int, int]
    stride: tuple[int, int]
    batch_size: int

    def corners(self, height: int, width: int) -> list[tuple[int, int]]:
        """Return `(top, left)` of the windows of an image, which cover all of it."""
        rows, columns = (first_pixels(*side) for side in zip((height, width), self.size, self.stride))
        return [(top, left) for top in rows for left in columns]


def sliding_window(size: int | list[int], stride: int | list[int] | None, batch_size: int) -> SlidingWindow:
    """Return windows of this size; their stride is two thirds of it when None, as mmsegmentation's is for ADE20K.

    Raises:
        ValueError: if a size is not of pixels, or pixels between two windows would be in neither.
    """
    sides = size_pair("--sliding_window", size)
    default = (max(1, sides[0] * 2 // 3), max(1, sides[1] * 2 // 3))
    steps = default if stride is None else size_pair("--window_stride", stride)
    if steps[0] > sides[0] or steps[1] > sides[1]:
        raise ValueError(
            f"--window_stride {steps[0]}x{steps[1]} leaves pixels between windows of {sides[0]}x{sides[1]}, expected at"
            " most their size: choose a smaller stride, or larger windows."
        )
    return SlidingWindow(sides, steps, batch_size)


def first_pixels(length: int, size: int, stride: int) -> list[int]:
    """Return where windows of `size` begin along a side of `length`; a single one at 0 if it is no longer than that."""
    last = max(length - size, 0)
    return [*range(0, last, stride), last]


def sliding_window_logits(
    segment: Callable[[torch.Tensor], torch.Tensor], image: torch.Tensor, window: SlidingWindow
) -> torch.Tensor:
    """Return logits `(classes, height, width)` of an image `(channels, height, width)`, in float32 at least.

    Args:
        segment: logits `(windows, classes, rows, columns)` of crops `(windows, channels, rows, columns)`.
        image: as the network takes it.
        window: which crops.
    """
    height, width = image.shape[1:]
    rows, columns = min(window.size[0], height), min(window.size[1], width)
    corners = window.corners(height, width)
    places = [(slice(top, top + rows), slice(left, left + columns)) for top, left in corners]
    total: torch.Tensor | None = None
    windows = torch.zeros(height, width, device=image.device)  # over each pixel
    for start in range(0, len(places), window.batch_size):
        some = places[start : start + window.batch_size]
        logits = segment(torch.stack([image[:, down, across] for down, across in some]))
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if total is None:
            total = logits.new_zeros(logits.shape[1], height, width)
        for (down, across), of_window in zip(some, logits):
            total[:, down, across] += of_window
            windows[down, across] += 1
    assert total is not None
    return total / windows


def logits_of_image(network: nn.Module, image: torch.Tensor, window: SlidingWindow | None) -> torch.Tensor:
    """Return a segmenter's logits `(classes, height, width)` of an image, as a whole without a window."""
    if window is None:
        return network(pixel_values=image[None]).logits[0].float()
    return sliding_window_logits(lambda crops: network(pixel_values=crops).logits, image, window)


class SlidingWindowSegmenter(nn.Module):
    """A segmenter that is asked window by window.

    To be wrapped for several processes like the segmenter itself: each call counts as one, however many windows its
    images have, so that processes whose images have more of them than others' stay together.
    """

    def __init__(self, segmenter: nn.Module, window: SlidingWindow) -> None:
        super().__init__()
        self.segmenter, self.window = segmenter, window

    def forward(self, pixel_values: torch.Tensor, pixel_mask: torch.Tensor) -> list[torch.Tensor]:
        """Return logits `(classes, height, width)` of each image, without what fills it up in its batch.

        Args:
            pixel_values: `(batch, channels, height, width)`, filled up at the right and at the bottom.
            pixel_mask: `(batch, height, width)`, 1 where the image is.
        """
        sizes = [(int(mask.any(1).sum()), int(mask.any(0).sum())) for mask in pixel_mask]
        images = [image[:, :height, :width] for image, (height, width) in zip(pixel_values, sizes)]
        return [logits_of_image(self.segmenter, image, self.window) for image in images]


class SizedPairs(EvalPairs):
    """Images and masks with the `pixel_mask` by which images of unlike sizes are told from what fills their batch."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = super().__getitem__(index)
        return {**example, "pixel_mask": torch.ones(example["pixel_values"].shape[1:], dtype=torch.bool)}
