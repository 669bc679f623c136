"""Objects as every source gives them: what is kept of each image, and why an object cannot be used.

A source describes an object as COCO does, https://cocodataset.org/#format-data, and `read_annotation` makes of it what
is kept.
"""

import json
import math
from dataclasses import dataclass, field
from typing import Any

from .listing import ImageFile, LeftOut

NO_AREA, NO_MASK_AREA = "a box of no area", "a mask of no area"
HARMLESS = (NO_AREA, NO_MASK_AREA)  # left out without an error: COCO itself has some
MIN_CORNERS = 3  # of a polygon


@dataclass
class ListedObjects:
    """The images of a split and the objects of each; what is left out of both.

    `objects` are JSON, to be read with `objects.py`: of an image `size`, `[height, width]`, and a list of `objects`.
    Each has `class`, its number in `classes`; `box`, two corners in pixels within the image; `area`; whether it is a
    `crowd`, which is neither learned nor counted; and, if masks are asked for, its `mask` as COCO has it. `images` are
    the files; none of columns, which hold their images.
    """

    classes: list[str]
    images: list[ImageFile] = field(default_factory=list)
    objects: list[str] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    empty: int = 0  # images without objects

    def add(self, height: int, width: int, objects: list[dict[str, Any]]) -> None:
        """Add the objects of the next image."""
        self.empty += not objects
        self.objects.append(json.dumps({"size": [height, width], "objects": objects}, separators=(",", ":")))

    def leave_out(self, name: str, reason: str) -> None:
        """Note an object that `read_annotation` refused."""
        self.left_out.append(LeftOut(name, reason, fault=reason not in HARMLESS))


def add_annotations(
    read: ListedObjects, name: str, image: dict[str, Any], annotations: list[dict[str, Any]], numbers: dict[Any, int]
) -> None:
    """Add the boxes of the next image, described as COCO does.

    Args:
        read: what has been read so far.
        name: of what describes the image, for messages.
        image: its `height` and `width`.
        annotations: its objects, whose `category_id` is the name of a class, None if that is missing.
        numbers: of the classes, by name.
    """
    objects = []
    for number, annotation in enumerate(annotations, 1):
        category = annotation["category_id"]
        if category is None:
            found = "without a class"
        elif category not in numbers:
            found = f"of class {category!r}, which is not among --classes, or else those of the training images"
        else:
            found = read_annotation(annotation, image, numbers, with_masks=False)
        if isinstance(found, str):
            read.leave_out(f"object {number} of {name}", found)
        else:
            objects.append(found)
    read.add(image["height"], image["width"], objects)


def is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def read_annotation(
    annotation: dict[str, Any], image: dict[str, Any] | None, numbers: dict[Any, int], with_masks: bool
) -> dict[str, Any] | str:
    """Return an object as `ListedObjects` has it, or why it cannot be used."""
    if image is None:
        return "of an image that is not listed"
    if annotation.get("category_id") not in numbers:
        return "of a category that is not listed"
    bbox = annotation.get("bbox")
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(is_finite(value) for value in bbox):
        return "without a box of four numbers"
    left, top, width, height = bbox
    if width <= 0 or height <= 0:
        return NO_AREA
    box = [max(left, 0), max(top, 0), min(left + width, image["width"]), min(top + height, image["height"])]
    if box[0] >= box[2] or box[1] >= box[3]:
        return "a box outside its image"
    crowd, area = bool(annotation.get("iscrowd", 0)), annotation.get("area")
    found = {
        "class": numbers[annotation["category_id"]],
        "box": box,
        "area": area if is_finite(area) else width * height,
        "crowd": crowd,
    }
    if not with_masks:
        return found
    mask = read_mask(annotation.get("segmentation"), image)
    return mask if isinstance(mask, str) else {**found, "mask": mask}


def read_mask(segmentation: Any, image: dict[str, Any]) -> list[Any] | dict[str, Any] | str:
    """Return a mask as COCO has it, polygons or run lengths, or why it cannot be used."""
    if isinstance(segmentation, dict):
        size, counts = [image["height"], image["width"]], segmentation.get("counts")
        if segmentation.get("size") != size or not isinstance(counts, list | str):
            return "a mask of run lengths that is not of its image's size"
        is_damaged = isinstance(counts, list) and (
            not all(isinstance(run, int) and run >= 0 for run in counts) or sum(counts) != size[0] * size[1]
        )
        return "a mask of run lengths that do not fill its image" if is_damaged else segmentation
    if not isinstance(segmentation, list) or not segmentation:
        return "without a mask"
    if not all(isinstance(polygon, list) and all(is_finite(value) for value in polygon) for polygon in segmentation):
        return "a mask that is neither polygons nor run lengths"
    if any(len(polygon) % 2 for polygon in segmentation):
        return "a mask with half a corner"
    polygons = [polygon for polygon in segmentation if len(polygon) >= 2 * MIN_CORNERS]
    return polygons or NO_MASK_AREA


def is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
