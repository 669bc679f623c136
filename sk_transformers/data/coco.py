"""Objects in COCO's JSON: which images it lists, what is in each, and what of it cannot be used.

The format is that of https://cocodataset.org/#format-data: `images`, `annotations`, each with a `bbox`, and
`categories`.
"""

import json
import math
import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .listing import ImageFile, LeftOut

NO_AREA = "a box of no area"
MIN_CORNERS = 3  # of a polygon


@dataclass
class CocoImages:
    """The images that a JSON lists, in its order, and the objects of each; what is left out of both.

    `objects` are JSON, to be read with `objects.py`: of an image `size`, `[height, width]`, and a list of `objects`.
    Each has `class`, its number in `classes`; `box`, two corners in pixels within the image; `area`; whether it is a
    `crowd`, a region of objects that nobody told apart; and, if masks are asked for, its `mask` as COCO has it.
    """

    classes: list[str]
    images: list[ImageFile] = field(default_factory=list)
    objects: list[str] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    empty: int = 0  # images without objects


def holds_objects(file: str | Path) -> bool:
    """Return whether a file may be such a JSON, by the words in it, of which it is not read."""
    if not os.path.getsize(file):
        return False
    with open(file, "rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return all(content.find(word) >= 0 for word in (b'"images"', b'"annotations"', b'"categories"', b'"bbox"'))


def read_coco(
    file: Path, find_image: Callable[[str], ImageFile | None], with_masks: bool, classes: list[str] | None = None
) -> CocoImages:
    """Return the images and objects of a JSON.

    Args:
        file: the JSON.
        find_image: returns the image of a `file_name`, None if there is none.
        with_masks: whether objects are to have masks, too.
        classes: whose numbers the objects get; the JSON's categories in the order of their ids when None.

    Raises:
        ValueError: if it is not such a JSON, or names categories twice or others than `classes`.
    """
    content = read_json(file)
    numbers, names = number_categories(file, content["categories"], classes)
    listed = list_images(file, content["images"])
    read = CocoImages(names)
    of_image: dict[Any, list[dict[str, Any]]] = {image_id: [] for image_id in listed}
    for annotation in content["annotations"]:
        entry = listed.get(annotation.get("image_id"))
        found = read_annotation(annotation, entry, numbers, with_masks)
        if isinstance(found, dict):
            of_image[annotation["image_id"]].append(found)
        else:
            where = "" if entry is None else f" of {entry['file_name']}"
            name = f"annotation {annotation.get('id')}{where}"
            read.left_out.append(LeftOut(name, found, fault=found not in (NO_AREA, "a mask of no area")))
    for image_id, entry in listed.items():
        image = find_image(entry["file_name"])
        if image is None:
            reason = f"listed in {file.name}, and not there, or more than once"
            read.left_out.append(LeftOut(entry["file_name"], reason))
            continue
        read.images.append(image)
        read.empty += not of_image[image_id]
        size = [entry["height"], entry["width"]]
        read.objects.append(json.dumps({"size": size, "objects": of_image[image_id]}, separators=(",", ":")))
    return read


def read_json(file: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the object in a JSON of COCO; ValueError if it is something else."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not valid JSON: {error}.") from error
    for name in ("images", "annotations", "categories"):
        entries = content.get(name) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise ValueError(f"{file} has no list of {name}, expected COCO's JSON: images, annotations and categories.")
    return content


def number_categories(
    file: Path, categories: list[dict[str, Any]], classes: list[str] | None
) -> tuple[dict[Any, int], list[str]]:
    """Return the number of the class of each category's id, and the names of the classes."""
    try:
        named = {entry["id"]: str(entry["name"]) for entry in sorted(categories, key=lambda entry: entry["id"])}
    except (KeyError, TypeError) as error:
        raise ValueError(f"{file}: each of its categories needs an id, a number, and a name.") from error
    names = list(named.values())
    if not names or len(set(names)) < len(categories):
        raise ValueError(f"{file} has {len(categories)} categories of {len(set(names))} names, expected one each.")
    classes = names if classes is None else classes
    unknown = [name for name in names if name not in classes]
    if unknown:
        raise ValueError(
            f"{file} has the category {unknown[0]!r}, which the training images do not: name it there, too."
        )
    return {category_id: classes.index(name) for category_id, name in named.items()}, classes


def list_images(file: Path, images: list[dict[str, Any]]) -> dict[Any, dict[str, Any]]:
    """Return the entries of images by their ids; ValueError if one is not whole, or listed twice."""
    listed: dict[Any, dict[str, Any]] = {}
    names = set()
    for entry in images:
        sizes = [entry.get(side) for side in ("height", "width")]
        if "id" not in entry or not isinstance(entry.get("file_name"), str) or not all(map(is_size, sizes)):
            raise ValueError(
                f"{file} lists the image {json.dumps(entry)[:120]}, expected an id, a file_name, a height and a width."
            )
        if entry["id"] in listed or entry["file_name"] in names:
            raise ValueError(f"{file} lists {entry['file_name']}, or its id {entry['id']}, twice: give each image one.")
        listed[entry["id"]] = entry
        names.add(entry["file_name"])
    return listed


def is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def read_annotation(
    annotation: dict[str, Any], image: dict[str, Any] | None, numbers: dict[Any, int], with_masks: bool
) -> dict[str, Any] | str:
    """Return an object as `CocoImages` has it, or why it cannot be used."""
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
    return polygons or "a mask of no area"


def is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
