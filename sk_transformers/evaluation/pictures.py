"""A picture of what a segmenter or detector says of the first held-out images, beside what is right.

It shows photographs of a data set, on terms that are not known here. So it lies in a folder of its own, which pushing
passes over, and not among the plots, which go onto the card.
"""

from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from PIL import Image, ImageDraw, ImageFont
from torch.nn import functional as F
from transformers.image_processing_utils import BaseImageProcessor

from ..data.masks import IGNORED
from ..data.objects import decode_masks
from ..data.options import DataOptions
from ..data.problems import eval_images, evaluation_inputs
from ..hub.preflight import UNPUBLISHED
from ..models.detection import find_instances
from ..pretrained import class_names
from .detection import outputs_on_cpu
from .fonts import font_file_for
from .mask_files import predict_mask
from .overlay_style import MIN_SCORE, fitted
from .overlays import draw_classes, draw_objects, save_picture, text_size, to_picture, to_pixels, with_legend
from .predictions import map_labels
from .sliding_window import SlidingWindow, logits_of_image

PICTURE = Path(UNPUBLISHED)
IMAGES = 4
SIDE = 512  # pixels of an image's longer side in the picture
GAP = 8
TITLES = ("right", "predicted")


class Example(NamedTuple):
    """An image, its mask or objects, and what the network takes of it."""

    image: Image.Image
    target: Any
    inputs: dict[str, torch.Tensor]


@torch.no_grad()
def draw_predictions(
    network: Any,
    processor: BaseImageProcessor,
    images: Dataset,
    labels: list[str],
    options: DataOptions,
    folder: Path,
    window: SlidingWindow | None = None,
) -> None:
    """Draw `pictures/predictions.png` of a segmenter or detector, and nothing of a classifier.

    Args:
        network: in evaluation mode.
        processor: its image processor.
        images: of which the first that can be read are drawn.
        labels: the names of the data's classes.
        options: the data.
        folder: to write into.
        window: in which a segmenter sees images; as a whole when None.
    """
    if options.problem_type not in ("segmentation", "detection"):
        return
    examples = first_examples(network.device, processor, images, len(labels), options)
    names = class_names(network.config)
    label_map = map_labels(labels, names)
    if options.problem_type == "segmentation":
        picture = picture_of_masks(network, examples, label_map, names, window)
    else:
        picture = picture_of_objects(network, examples, label_map, names)
    save_picture(picture, folder / PICTURE)


def first_examples(
    device: torch.device, processor: BaseImageProcessor, images: Dataset, classes: int, options: DataOptions
) -> list[Example]:
    """Return the first images that can be read."""
    transform = evaluation_inputs(options.problem_type, processor)
    reader = eval_images(options, classes)(images, transform, options.skip_unreadable)
    found = (reader.read(reader.data[index]) for index in range(len(reader.data)))
    examples = []
    for image, target in islice((one for one in found if one is not None), IMAGES):
        made = transform(image)
        inputs = made if isinstance(made, dict) else {"pixel_values": made}
        examples.append(Example(image, target, {name: tensor.to(device) for name, tensor in inputs.items()}))
    return examples


def picture_of_masks(
    network: Any, examples: list[Example], label_map: torch.Tensor, names: list[str], window: SlidingWindow | None
) -> Image.Image:
    """Return images under the colors of their classes, with a legend."""
    numbers = torch.full((256,), IGNORED)
    numbers[: len(label_map)] = label_map
    rows, masks = [], []
    for image, target, inputs in examples:
        shown = fitted(image, SIDE)
        size = (shown.height, shown.width)
        right = numbers[F.interpolate(target[None, None].float(), size)[0, 0].long()]
        said = predict_mask(logits_of_image(network, inputs["pixel_values"], window), size)
        rows.append([to_picture(draw_classes(to_pixels(shown), mask)) for mask in (right, said)])
        masks += [right, said]
    return with_legend(table(rows), masks, names, text_size(SIDE, SIDE))


def picture_of_objects(network: Any, examples: list[Example], label_map: torch.Tensor, names: list[str]) -> Image.Image:
    """Return images with their objects, those that were found with their scores; crowds are left out."""
    rows = []
    for image, target, inputs in examples:
        shown = fitted(image, SIDE)
        size = (shown.height, shown.width)
        outputs = network(**{name: tensor[None] for name, tensor in inputs.items()})
        (said,) = find_instances(outputs_on_cpu(outputs), MIN_SCORE, [size])
        single = ~target["crowds"]
        scale = torch.tensor([shown.width / image.width, shown.height / image.height]).repeat(2)
        right = {"boxes": target["boxes"][single] * scale, "labels": label_map[target["classes"][single]]}
        if target["masks"] is not None and single.any():
            masks = decode_masks(target["masks"], target["size"])[single]
            right["masks"] = F.interpolate(masks[None].float(), size)[0] > 0
        rows.append([to_picture(draw_objects(to_pixels(shown), objects, names)) for objects in (right, said)])
    return table(rows)


def table(rows: list[list[Image.Image]]) -> Image.Image:
    """Return pictures in rows of two, under `TITLES`."""
    text = text_size(SIDE, SIDE)
    column = max(picture.width for row in rows for picture in row)
    height = text + 2 * GAP + sum(row[0].height + GAP for row in rows)
    whole = Image.new("RGB", (2 * column + 3 * GAP, height), "white")
    draw, font = ImageDraw.Draw(whole), ImageFont.truetype(font_file_for(TITLES), text)
    lefts = (GAP, column + 2 * GAP)
    for left, title in zip(lefts, TITLES):
        draw.text((left, GAP), title, "black", font)
    top = text + 2 * GAP
    for row in rows:
        for left, picture in zip(lefts, row):
            whole.paste(picture, (left, top))
        top += row[0].height + GAP
    return whole
