"""How predictions are drawn over images, in files as on the demo's page: colors, and the size of the image."""

from functools import cache

import torch
from PIL import Image

from .mask_files import palette

OPACITY = 0.5  # of classes and masks over an image
MIN_SCORE = 0.5  # of the objects that are drawn, as `predict --objects` has it

Color = tuple[int, int, int]


@cache
def class_colors() -> torch.Tensor:
    """Return `(256, 3)` of uint8, the colors that classes have in mask files."""
    return torch.tensor(palette(), dtype=torch.uint8).view(256, 3)


def object_color(label: int) -> Color:
    """Return the color of objects of a class; none is black, which is a mask's first."""
    red, green, blue = class_colors()[label % 255 + 1].tolist()
    return red, green, blue


def text_color(background: Color) -> str:
    """Return the color, `"black"` or `"white"`, that can be read on another."""
    red, green, blue = background
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 127 else "white"


def fitted(image: Image.Image, side: int) -> Image.Image:
    """Return an image with a longer side of so many pixels; those of a smaller image stay squares."""
    scale = side / max(image.size)
    width, height = (max(1, round(length * scale)) for length in image.size)
    return image.resize((width, height), Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS)
