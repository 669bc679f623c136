"""Masks as PNG files: the number of each pixel's class, shown in a color of its own."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.nn import functional as F

from ..files import whole_file


def mask_names(files: Sequence[str]) -> list[str]:
    """Return the names of the masks or overlays of image files: theirs below the folder that all are in, with `.png`.

    Raises:
        ValueError: if two would be the same.
    """
    root = os.path.commonpath([os.path.dirname(os.path.abspath(file)) for file in files])
    names: dict[str, str] = {}
    for file in files:
        name = os.path.splitext(os.path.relpath(file, root))[0] + ".png"
        if name in names:
            raise ValueError(f"{names[name]} and {file} would be written to one file, {name}: predict them apart.")
        names[name] = file
    return list(names)


def predict_mask(logits: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Return the class of each pixel of an image, `size` of uint8, from logits `(classes, height, width)`."""
    return F.interpolate(logits[None], size, mode="bilinear", align_corners=False)[0].argmax(0).to(torch.uint8).cpu()


def save_mask(mask: torch.Tensor, file: Path) -> None:
    """Write a mask `(height, width)` of uint8 as a PNG whose palette's numbers are the classes."""
    height, width = mask.shape
    image = Image.frombytes("P", (width, height), mask.contiguous().numpy().tobytes())
    image.putpalette(palette())
    file.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(file) as partial:
        image.save(partial, "PNG")


def palette() -> list[int]:
    """Return red, green and blue of 256 colors, neighbors far apart, as Pascal VOC paints its classes."""
    colors = []
    for number in range(256):
        color = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                color[channel] |= (number >> (3 * bit + channel) & 1) << (7 - bit)
        colors += color
    return colors


def largest_classes(mask: torch.Tensor, id2label: dict[int, str], top_k: int) -> dict[str, Any]:
    """Return the `top_k` classes with the most pixels of a mask, and the fraction that each has."""
    counts = mask.flatten().bincount(minlength=len(id2label))
    row: dict[str, Any] = {}
    for rank, number in enumerate(counts.argsort(descending=True, stable=True)[:top_k].tolist(), 1):
        row[f"label_{rank}"] = id2label[number]
        row[f"fraction_{rank}"] = float(f"{counts[number].item() / mask.numel():.6g}")
    return row
