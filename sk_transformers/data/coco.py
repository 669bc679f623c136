"""Objects in COCO's JSON: which images it lists, what is in each, and what of it cannot be used.

The format is that of https://cocodataset.org/#format-data: `images`, `annotations`, each with a `bbox`, and
`categories`.
"""

import json
import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .listed_objects import ListedObjects, is_size, read_annotation
from .listing import ImageFile, LeftOut


def holds_objects(file: str | Path) -> bool:
    """Return whether a file may be such a JSON, by the words in it, of which it is not read."""
    if not os.path.getsize(file):
        return False
    with open(file, "rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return all(content.find(word) >= 0 for word in (b'"images"', b'"annotations"', b'"categories"', b'"bbox"'))


def read_coco(
    file: Path, find_image: Callable[[str], ImageFile | None], with_masks: bool, classes: list[str] | None = None
) -> ListedObjects:
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
    read = ListedObjects(names)
    of_image: dict[Any, list[dict[str, Any]]] = {image_id: [] for image_id in listed}
    for annotation in content["annotations"]:
        entry = listed.get(annotation.get("image_id"))
        found = read_annotation(annotation, entry, numbers, with_masks)
        if isinstance(found, dict):
            of_image[annotation["image_id"]].append(found)
        else:
            where = "" if entry is None else f" of {entry['file_name']}"
            read.leave_out(f"annotation {annotation.get('id')}{where}", found)
    for image_id, entry in listed.items():
        image = find_image(entry["file_name"])
        if image is None:
            reason = f"listed in {file.name}, and not there, or more than once"
            read.left_out.append(LeftOut(entry["file_name"], reason))
            continue
        read.images.append(image)
        read.add(entry["height"], entry["width"], of_image[image_id])
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
