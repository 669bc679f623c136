"""Objects in images: read with them from what `ListedObjects` keeps, to learn from or to be measured on."""

import json
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from PIL import Image as PILImage

from .loaders import DataError, EvalImages, LabeledImages, TrainImages, read_image

Objects = dict[str, Any]


def coco_masks() -> Any:
    """Return pycocotools' module of masks; ImportError with what to do if it is not installed."""
    try:
        from pycocotools import mask
    except ImportError as error:
        raise ImportError(
            "Masks in COCO's form need pycocotools, which is not installed: pip install 'sk-transformers[detection]',"
            " or pass --box_only."
        ) from error
    return mask


def read_objects(stored: str, name: str, size: tuple[int, int]) -> Objects:
    """Return the objects of an image.

    Args:
        stored: of the image, see `ListedObjects`.
        name: of the image, for messages.
        size: `(width, height)` of the image as it was read.

    Returns:
        `size`, `(height, width)`; `boxes` `(objects, 4)` of two corners; `classes` `(objects,)`; `areas`, `crowds` of
        bool; and `masks`, a list of COCO's compressed run lengths, None where there are none.

    Raises:
        DataError: if the image has another size than is said of it.
    """
    content = json.loads(stored)
    height, width = content["size"]
    if (width, height) != size:
        raise DataError(
            f"{name} is {size[0]}x{size[1]} pixels, upright, and its annotation says {width}x{height}: correct either,"
            " or pass --on_bad_image skip."
        )
    objects = content["objects"]
    has_masks = bool(objects) and "mask" in objects[0]
    return {
        "size": (height, width),
        "boxes": torch.tensor([one["box"] for one in objects], dtype=torch.float32).reshape(-1, 4),
        "classes": torch.tensor([one["class"] for one in objects], dtype=torch.int64),
        "areas": torch.tensor([one["area"] for one in objects], dtype=torch.float32),
        "crowds": torch.tensor([one["crowd"] for one in objects], dtype=torch.bool),
        "masks": [compress(one["mask"], height, width) for one in objects] if has_masks else None,
    }


def compress(mask: list[Any] | dict[str, Any], height: int, width: int) -> dict[str, Any]:
    """Return a mask, polygons or run lengths, as COCO's compressed run lengths."""
    if isinstance(mask, dict) and isinstance(mask["counts"], str):
        return {"size": [height, width], "counts": mask["counts"].encode()}
    runs = coco_masks().frPyObjects(mask, height, width)
    return coco_masks().merge(runs) if isinstance(runs, list) else runs


def decode_masks(masks: list[dict[str, Any]], size: tuple[int, int]) -> torch.Tensor:
    """Return compressed run lengths as `(objects, height, width)` of uint8, zeros and ones."""
    if not masks:
        return torch.zeros(0, *size, dtype=torch.uint8)
    return torch.from_numpy(np.ascontiguousarray(coco_masks().decode(masks).transpose(2, 0, 1)))


def encode_masks(masks: torch.Tensor) -> list[dict[str, Any]]:
    """Return masks `(objects, height, width)` of bool as compressed run lengths."""
    if not len(masks):
        return []
    return coco_masks().encode(np.asfortranarray(masks.to(torch.uint8).permute(1, 2, 0).numpy()))


class ImagesOfObjects(LabeledImages):
    """Images and their objects, the target of an image; with masks if that is asked for."""

    def __init__(self, data: Dataset, transform: Callable[..., Any], skip: bool, with_masks: bool) -> None:
        super().__init__(data, transform, skip)
        self.with_masks = with_masks

    def read(self, row: dict[str, Any]) -> Any:
        """Return an image and its objects; where `skip` is set, None if it cannot be used, with a warning."""
        try:
            image = read_image(row["image"])
            objects = read_objects(row["label"], row["image"].get("path") or "an image", image.size)
        except DataError as error:
            if not self.skip:
                raise
            logging.getLogger(__name__).warning("skipped: %s", error)
            return None
        if self.with_masks and objects["masks"] is None:
            objects["masks"] = []  # of an image without objects
        return image, objects


class TrainObjects(ImagesOfObjects, TrainImages):
    """Images and what a detector learns of them, changed at random together by an `ObjectTransform`; no crowds."""

    def augment(self, image: PILImage.Image, target: Any) -> tuple[torch.Tensor, Any]:
        single = ~target["crowds"]
        objects = {"boxes": target["boxes"][single], "classes": target["classes"][single]}
        if target["masks"] is not None:
            masks = [mask for mask, is_single in zip(target["masks"], single.tolist()) if is_single]
            objects["masks"] = decode_masks(masks, target["size"])
        return self.transform(image, objects)


class EvalObjects(ImagesOfObjects, EvalImages):
    """Images as the image processor makes them, and their objects as they are; an unreadable one has None."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        found = self.read(self.data[index])
        image, objects = (PILImage.new("RGB", (32, 32)), None) if found is None else found
        return {**self.transform(image), "label": {"objects": objects}}
