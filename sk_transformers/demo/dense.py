"""What a segmenter or detector says of an image, and HTML that shows it over the image."""

import html
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from ..evaluation.mask_files import predict_mask
from ..evaluation.overlay_style import MIN_SCORE, OPACITY, Color, class_colors, fitted, object_color, text_color
from .pictures import image_source

SIDE = 768  # pixels of a picture's longer side
MAX_NAMED_CLASSES = 12  # in a legend: the largest


@dataclass
class Mask:
    """A class for each pixel.

    Args:
        image: as it is shown.
        classes: of its pixels, `(height, width)`.
        id2label: the names of the classes.
    """

    image: Image.Image
    classes: np.ndarray
    id2label: Mapping[int, str]


@dataclass
class Objects:
    """The objects with a score of at least `MIN_SCORE`, best first.

    Args:
        image: as it is shown.
        labels: `(objects,)`, the numbers of their classes.
        scores: `(objects,)`.
        boxes: `(objects, 4)`, left, top, right and bottom in pixels of `image`.
        masks: `(objects, height, width)` of bool, or None of a detector without.
        best: the highest score of all.
        id2label: the names of the classes.
    """

    image: Image.Image
    labels: list[int]
    scores: list[float]
    boxes: np.ndarray
    masks: np.ndarray | None
    best: float
    id2label: Mapping[int, str]


Scene = Mask | Objects


def scene_of(model: Any, inputs: Mapping[str, torch.Tensor], image: Image.Image) -> Scene:
    """Return what a segmenter or detector says of an image.

    Args:
        model: in evaluation mode.
        inputs: what its image processor makes of the image.
        image: in RGB.
    """
    shown = fitted(image, SIDE)
    outputs, size, id2label = model(**inputs), (shown.height, shown.width), model.config.id2label
    if hasattr(model, "upernet"):
        return Mask(shown, predict_mask(outputs.logits[0].float(), size).numpy(), id2label)
    (found,) = model.post_process_instance_segmentation(outputs, MIN_SCORE, [size])
    return Objects(
        shown,
        found["labels"].tolist(),
        found["scores"].tolist(),
        found["boxes"].numpy(),
        found["masks"].numpy() if "masks" in found else None,
        outputs.logits[0].softmax(dim=-1)[:, :-1].max().item(),
        id2label,
    )


def padded(model: Any, pixel_values: torch.Tensor) -> torch.Tensor:
    """Return images as a segmenter or detector pads them, with zeros at the right and at the bottom."""
    stride = getattr(model.config, "total_stride", 1)
    rows, columns = getattr(model, "padded_multiples", (stride, stride))  # of segmenters alone
    height, width = pixel_values.shape[2:]
    return F.pad(pixel_values, (0, -width % columns, 0, -height % rows))


def scene_html(title: str, subtitle: str, scene: Scene) -> str:
    """Return HTML of an image under the colors of its classes with a legend, or with the objects that were found."""
    body = mask_html(scene) if isinstance(scene, Mask) else objects_html(scene)
    return (
        f'<section class="sk-classes"><div class="sk-title">{html.escape(title)}</div>'
        f'<div class="sk-caption">{html.escape(subtitle)}</div>{body}</section>'
    )


def mask_html(mask: Mask) -> str:
    pixels, colors = np.asarray(mask.image, dtype=np.float32), class_colors().numpy()
    blended = (1 - OPACITY) * pixels + OPACITY * colors[mask.classes]
    shares = np.bincount(mask.classes.ravel(), minlength=256) / mask.classes.size
    ranked = [int(number) for number in np.argsort(-shares, kind="stable") if shares[number]]
    entries = [
        f'<li><i style="background: {css_color(colors[number].tolist())}"></i>{html.escape(mask.id2label[number])}'
        f" <span>{100 * shares[number]:.1f} %</span></li>"
        for number in ranked[:MAX_NAMED_CLASSES]
    ]
    rest = len(ranked) - MAX_NAMED_CLASSES
    entries += [f"<li>and {rest} more</li>"] if rest > 0 else []
    alternative = f"The image under the colors of {len(ranked)} classes"
    return f'{picture_html(blended, alternative)}<ul class="sk-legend">{"".join(entries)}</ul>'


def objects_html(objects: Objects) -> str:
    pixels = np.asarray(objects.image, dtype=np.float32).copy()
    for number, mask in reversed([*zip(objects.labels, () if objects.masks is None else objects.masks)]):
        pixels[mask] = (1 - OPACITY) * pixels[mask] + OPACITY * np.array(object_color(number))
    count = len(objects.labels)
    if count:
        said = f"{count} {'object' if count == 1 else 'objects'} with a score of at least {MIN_SCORE:.0%}."
    else:
        said = f"No object with a score of at least {MIN_SCORE:.0%}. The highest is {objects.best:.1%}."
    boxes = [box_html(objects, index) for index in reversed(range(count))]  # the best on top
    return f'{picture_html(pixels, said, boxes)}<p class="sk-count">{said}</p>'


def box_html(objects: Objects, index: int) -> str:
    """Return HTML of one object's box, with its name and score above, or in it where there is no room."""
    sides = np.array([objects.image.width, objects.image.height] * 2)
    left, top, right, bottom = (100 * objects.boxes[index] / sides).tolist()
    number = objects.labels[index]
    color = object_color(number)
    text = f"{html.escape(objects.id2label[number])} {100 * objects.scores[index]:.0f} %"
    place = ("sk-in" if top < 8 else "sk-above") + (" sk-right" if left > 60 else "")
    return (
        f'<div class="sk-box" style="left: {left:.2f}%; top: {top:.2f}%; width: {right - left:.2f}%;'
        f' height: {bottom - top:.2f}%; border-color: {css_color(color)}">'
        f'<span class="{place}" style="background: {css_color(color)};'
        f' color: {text_color(color)}">{text}</span></div>'
    )


def css_color(color: Color) -> str:
    red, green, blue = color
    return f"rgb({red} {green} {blue})"


def picture_html(pixels: np.ndarray, alternative: str, boxes: list[str] | None = None) -> str:
    """Return HTML of pixels `(height, width, 3)` of 0 to 255, with boxes over them."""
    source = image_source(Image.fromarray(pixels.round().astype(np.uint8)))
    return f'<div class="sk-scene"><img src="{source}" alt="{html.escape(alternative)}">{"".join(boxes or [])}</div>'
