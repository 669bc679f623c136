"""Predictions drawn over their images: classes of pixels as colors with a legend, objects as boxes and masks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

from ..data.masks import IGNORED
from ..files import whole_file
from .fonts import font_file_for
from .overlay_style import OPACITY, Color, class_colors, object_color, text_color

MAX_NAMED_CLASSES = 24  # in a legend: the largest
MIN_TEXT = 12  # pixels


def draw_classes(image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return an image `(3, height, width)` of uint8 half under the colors of its pixels' classes.

    Args:
        image: of uint8.
        mask: `(height, width)`, the number of each pixel's class; where it is `IGNORED` the image stays as it is.
    """
    numbers = mask.long()
    colors = class_colors()[numbers].permute(2, 0, 1)
    blended = (image * (1 - OPACITY) + colors * OPACITY).round().to(torch.uint8)
    return torch.where(numbers == IGNORED, image, blended)


def draw_objects(image: torch.Tensor, objects: dict[str, Any], class_names: list[str]) -> torch.Tensor:
    """Return an image `(3, height, width)` of uint8 with objects on it, the best on top, each named.

    Args:
        image: of uint8.
        objects: as `find_instances` returns them, best first: `boxes` `(objects, 4)` in pixels and `labels`
            `(objects,)`, and if there are any `scores` `(objects,)` and `masks` `(objects, height, width)` of bool.
        class_names: of all classes.
    """
    if not len(objects["boxes"]):
        return image
    labels = objects["labels"].tolist()
    colors: list[Any] = [object_color(label) for label in labels]
    texts = [class_names[label] for label in labels]
    if "scores" in objects:
        texts = [f"{text} {score:.2f}" for text, score in zip(texts, objects["scores"].tolist())]
    if "masks" in objects:
        masks = objects["masks"].cpu()
        on_top = masks & (masks.cumsum(dim=0) == 1)  # torchvision blackens what is in two masks
        image = draw_segmentation_masks(image, on_top, OPACITY, colors)
    boxes, size = objects["boxes"].cpu(), text_size(image.shape[2], image.shape[1])
    picture = to_picture(draw_bounding_boxes(image, boxes.flip(0), colors=colors[::-1], width=max(1, size // 6)))
    font = ImageFont.truetype(font_file_for(tuple(class_names)), size)
    for box, text, color in [*zip(boxes.tolist(), texts, colors)][::-1]:
        write_caption(picture, text, color, font, box)
    return to_pixels(picture)


def write_caption(
    picture: Image.Image, text: str, color: Color, font: ImageFont.FreeTypeFont, box: list[float]
) -> None:
    """Write on a picture what is in a box `(left, top, right, bottom)`: above it, or in it where there is no room."""
    draw = ImageDraw.Draw(picture)
    width, height = font.getlength(text) + 4, sum(font.getmetrics())
    left = max(0, min(int(box[0]), picture.width - width))
    top = int(box[1]) - height if box[1] >= height else int(box[1])
    draw.rectangle((left, top, left + width, top + height - 1), color)
    draw.text((left + 2, top), text, text_color(color), font)


def text_size(width: int, height: int) -> int:
    """Return the height of letters, in pixels, that an image of this size is captioned with."""
    return max(MIN_TEXT, min(width, height) // 32)


def with_legend(picture: Image.Image, masks: Sequence[torch.Tensor], class_names: list[str], size: int) -> Image.Image:
    """Return a picture with the names of the classes in its masks below, each beside its color, the largest first.

    Args:
        picture: in RGB.
        masks: `(height, width)` each, the number of each pixel's class.
        class_names: of all classes.
        size: pixels of the letters.
    """
    counts = sum(mask.flatten().long().bincount(minlength=256) for mask in masks)
    assert isinstance(counts, torch.Tensor)
    counts[IGNORED] = 0
    present = [number for number in counts.argsort(descending=True, stable=True).tolist() if counts[number]]
    named = present[:MAX_NAMED_CLASSES]
    if not named:
        return picture
    font = ImageFont.truetype(font_file_for(tuple(class_names)), size)
    places, bottom = flow([2 * size + round(font.getlength(class_names[one])) for one in named], size, picture.width)
    strip = Image.new("RGB", (picture.width, bottom), "white")
    draw = ImageDraw.Draw(strip)
    for number, (x, y) in zip(named, places):
        draw.rectangle((x, y, x + size, y + size), tuple(class_colors()[number].tolist()), "gray")
        draw.text((x + size * 3 // 2, y + size // 2), class_names[number], "black", font, anchor="lm")
    whole = Image.new("RGB", (picture.width, picture.height + bottom))
    whole.paste(picture)
    whole.paste(strip, (0, picture.height))
    return whole


def flow(widths: list[int], line: int, width: int) -> tuple[list[tuple[int, int]], int]:
    """Return `(x, y)` of things of these widths, set in lines of a height like words, and the height of it all."""
    gap = line // 2
    x, y, places = gap, gap, []
    for one in widths:
        if places and x + one > width:
            x, y = gap, y + line + gap
        places.append((x, y))
        x += one + 2 * gap
    return places, y + line + gap


def to_pixels(image: Image.Image) -> torch.Tensor:
    """Return an RGB image as `(3, height, width)` of uint8."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def to_picture(pixels: torch.Tensor) -> Image.Image:
    """Return `(3, height, width)` of uint8 as an image."""
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def save_picture(picture: Image.Image, file: Path) -> None:
    """Write a picture as PNG, whole or not at all, with the folders that it is to be in."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(file) as partial:
        picture.save(partial, "PNG")
