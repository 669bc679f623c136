"""Masks: pictures that hold the number of a class for each pixel of an image, read with it and put into batches."""

import io
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from PIL import Image as PILImage

from ..errors import first_line
from .class_names import name_classes
from .loaders import UNREADABLE, DataError, EvalImages, LabeledImages, TrainImages, read_image

IGNORED = 255  # of pixels that have no class, here and in `segmentation_ignore_index`
CLASSES_FILE = "classes.txt"
MODES = ("1", "L", "P", "I", "I;16", "I;16B")  # of Pillow: pictures with one number a pixel
ADVICE = "mend or remove it, or pass --on_bad_image skip"


@dataclass(frozen=True)
class MaskFormat:
    """What the numbers in masks stand for.

    Args:
        classes: how many there are.
        ignore_index: the number, beside 255, of pixels without a class.
        reduce_labels: whether classes are counted from 1, 0 being a pixel without one, as in ADE20K.
    """

    classes: int
    ignore_index: int | None = None
    reduce_labels: bool = False

    def read(self, stored: dict[str, Any] | None, size: tuple[int, int]) -> torch.Tensor:
        """Return the class of each pixel, `(height, width)` of int64, `IGNORED` where there is none.

        Args:
            stored: the `path` or `bytes` of the mask.
            size: `(width, height)` of its image.

        Raises:
            DataError: if it cannot be read, has another size, or holds a class that there is not.
        """
        stored = stored or {}
        name = stored.get("path") or "a mask"
        numbers = read_numbers(stored, name)
        if numbers.shape != (size[1], size[0]):
            height, width = numbers.shape
            raise DataError(
                f"{name} is {width}x{height} pixels and its image {size[0]}x{size[1]}, expected the same size:"
                f" {ADVICE}."
            )
        ignored = numbers == IGNORED
        if self.ignore_index is not None:
            ignored |= numbers == self.ignore_index
        if self.reduce_labels:
            ignored |= numbers == 0
        first = int(self.reduce_labels)
        classes = numbers - first
        wrong = numbers[~ignored & ((classes < 0) | (classes >= self.classes))]
        if wrong.size:
            raise DataError(
                f"{name} holds {int(wrong[0])}, expected classes {first} to {self.classes - 1 + first}, and 255 for"
                f" pixels without one: pass --ignore_index {int(wrong[0])} if those have none, name all --classes, or"
                " mend it."
            )
        return torch.from_numpy(np.where(ignored, IGNORED, classes))


def read_numbers(stored: dict[str, Any], name: str) -> np.ndarray:
    """Return the numbers of a mask as they are stored, `(height, width)` of int64; DataError if there are none."""
    path, content = stored.get("path"), stored.get("bytes")
    if path is None and content is None:
        raise DataError("a mask is missing: remove the row of its image, or pass --on_bad_image skip.")
    try:
        with io.BytesIO(content) if content is not None else open(str(path), "rb") as file:
            image = PILImage.open(file)
            image.load()
    except Exception as error:  # Pillow's decoders raise many kinds
        raise DataError(f"{name} is unreadable ({first_line(error)}): {ADVICE}.") from error
    if image.mode not in MODES:
        raise DataError(f"{name} is a picture in {image.mode}, expected one number a pixel, its class: {ADVICE}.")
    return np.asarray(image).astype(np.int64)


def read_classes(asked: list[str] | None, folder: Path) -> list[str]:
    """Return the names of classes, in the order of their numbers.

    Args:
        asked: `--classes`: names, or a file with one a line or of JSON, or how many there are.
        folder: where `classes.txt` is, if it is None.

    Raises:
        ValueError: if nothing tells them, or they are fewer than 2, more than 255, or two have one name.
    """
    if asked is None and not (folder / CLASSES_FILE).is_file():
        raise ValueError(
            f"--classes is missing: masks hold numbers, so give the names in their order, how many there are, or a file"
            f" with one a line, such as {CLASSES_FILE} in the data's folder."
        )
    names = name_classes(asked or [str(folder / CLASSES_FILE)])
    if not 2 <= len(names) <= IGNORED:
        raise ValueError(f"--classes names {len(names)}, expected 2 to {IGNORED}: 255 in a mask is no class.")
    return names


def read_pair(row: dict[str, Any], masks: MaskFormat, skip: bool) -> tuple[PILImage.Image, torch.Tensor] | None:
    """Return an image with its mask; where `skip` is set, None in place of what cannot be used, with a warning."""
    try:
        image = read_image(row["image"])
        return image, masks.read(row["label"], image.size)
    except DataError as error:
        if not skip:
            raise
        logging.getLogger(__name__).warning("skipped: %s", error)
        return None


class Pairs(LabeledImages):
    """Images and masks, the target of an image being its mask."""

    def __init__(self, data: Dataset, transform: Callable[..., Any], skip: bool, masks: MaskFormat) -> None:
        super().__init__(data, transform, skip)
        self.masks = masks

    def read(self, row: dict[str, Any]) -> tuple[PILImage.Image, torch.Tensor] | None:
        return read_pair(row, self.masks, self.skip)


class TrainPairs(Pairs, TrainImages):
    """Images and masks, changed at random together by a `JointTransform`."""

    def augment(self, image: PILImage.Image, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.transform(image, target)


class EvalPairs(Pairs, EvalImages):
    """Images as the image processor makes them, and masks as they are; that of an unreadable one is `UNREADABLE`."""

    def blank(self) -> tuple[PILImage.Image, torch.Tensor]:
        image = PILImage.new("RGB", (32, 32))
        return image, torch.full((32, 32), UNREADABLE)
