"""Objects in a column of parquet files or of a Hub dataset, as `datasets` stores them."""

import io
from typing import Any

from datasets import ClassLabel, Dataset, Image, IterableDataset, Value

from .class_names import name_classes
from .decoding import UnreadableImage, open_image, orientation
from .fingerprint import digest
from .listed_objects import ListedObjects, add_annotations, is_finite, is_size
from .listing import LeftOut, check_faults, describe_left_out
from .options import DataOptions
from .sources import Data, LibraryDataset
from .splits import flat_columns

# What the parts of an object may be called; the first that is there is taken.
BOX = ("bbox", "bboxes", "box", "boxes")
CATEGORY = ("category", "categories", "category_id", "label", "labels", "class", "classes", "class_id")
CROWD = ("iscrowd", "is_crowd", "crowd", "difficult")
AREA = ("area", "areas")
SIDEWAYS = 5  # the first EXIF orientation of an image that lies on its side
EXPECTED = "expected boxes (`bbox`) and their classes (`category`), as lists of one length"


class LibraryObjects(LibraryDataset):
    """What `datasets` loads, with a column of images and one of objects; sizes of images if they are there."""

    kept_columns = ("width", "height")

    def __init__(self, options: DataOptions, builder: str, files: dict[str, list[str]] | None = None) -> None:
        super().__init__(options, builder, files)
        if not options.box_only:
            raise ValueError(f"{self.name} has a column of objects, which holds boxes and no masks: pass --box_only.")
        self.asked = None if options.classes is None else name_classes(options.classes)
        self.read: dict[str, ListedObjects] = {}

    def load(self, split: str) -> Dataset:
        """Return the images of a split; classes are numbered as in the first split that is loaded."""
        data = super().load(split)
        classes = next((read.classes for read in self.read.values()), self.asked)
        read, rows = read_column(self.name, split, data, classes, self.options.box_format)
        self.read[split] = read
        if not self.options.skip_unreadable:
            check_faults(self.name, read.left_out)
        if not rows:
            raise ValueError(
                f"{self.name} has no image that can be used in {split}: {describe_left_out(read.left_out)}."
            )
        labels: list[str | None] = [None] * len(data)
        for row, objects in zip(rows, read.objects):
            labels[row] = objects
        data = data.select_columns("image").add_column("label", labels, feature=Value("large_string"))
        return data if len(rows) == len(data) else data.select(rows)

    def stream(self, split: str) -> IterableDataset:
        return self.load(split).to_iterable_dataset()

    def digest(self, splits: list[str]) -> str:
        return digest([super().digest(splits), self.options.box_format])

    def _find_columns(self, data: Data) -> tuple[Data, str, str]:
        features, asked = data.features or {}, self.options
        images = [name for name, kind in features.items() if isinstance(kind, Image)]
        objects = [name for name, kind in features.items() if first_of(BOX, parts_of(kind))]
        return data, asked.image_column or (images or [""])[0], asked.label_column or (objects or [""])[0]


def parts_of(kind: Any) -> dict[str, Any]:
    """Return what an object has, and the type of each part, in a column of lists of parts or of a list of objects."""
    if isinstance(kind, dict):
        return {name: getattr(part, "feature", part) for name, part in kind.items()}
    inner = getattr(kind, "feature", None)
    return inner if isinstance(inner, dict) else {}


def first_of(names: tuple[str, ...], there: dict[str, Any]) -> str | None:
    return next((name for name in names if name in there), None)


# Reading


def read_column(
    name: str, split: str, data: Dataset, classes: list[str] | None, box_format: str
) -> tuple[ListedObjects, list[int]]:
    """Return the objects of a split, and which rows have them; of the others, `left_out` says why they cannot be used.

    Args:
        name: of the data, for messages.
        split: what `data` is of it, for messages.
        data: with columns `image`, not decoded, `label`, of objects, and if they are there `width` and `height`.
        classes: whose numbers the objects get; those that the column's type has, or the sorted names, when None.
        box_format: `--box_format`.

    Raises:
        ValueError: if the column has no boxes or classes, nothing names these, or its boxes are of the other format.
    """
    parts = parts_of(data.features["label"])
    box, category, crowd, area = (first_of(names, parts) for names in (BOX, CATEGORY, CROWD, AREA))
    if box is None or category is None:
        raise ValueError(
            f"{name}: its column of objects has {', '.join(parts) or 'no parts'}, {EXPECTED}: choose another with"
            " --label_column."
        )
    called = {"bbox": box, "category_id": category, "iscrowd": crowd, "area": area}
    listed = list_annotations(data, {part: column for part, column in called.items() if column is not None})
    whole = [(size, of_image) for size, of_image in listed.values() if not isinstance(of_image, str)]
    classes = name_categories(name, [one for _, of_image in whole for one in of_image], parts[category], classes)
    check_box_format(name, whole, box_format)
    read, rows = ListedObjects(classes), []
    numbers = {class_name: number for number, class_name in enumerate(classes)}
    for row, (size, of_image) in listed.items():
        if isinstance(of_image, str):
            read.left_out.append(LeftOut(f"row {row} of {split}", of_image))
            continue
        for one in of_image:
            one["bbox"] = as_xywh(one["bbox"], box_format)
        rows.append(row)
        add_annotations(read, f"row {row} of {split}", {"width": size[0], "height": size[1]}, of_image, numbers)
    return read, rows


def list_annotations(
    data: Dataset, called: dict[str, str]
) -> dict[int, tuple[tuple[int, int], list[dict[str, Any]] | str]]:
    """Return of each row the size of its image, `(width, height)`, and its objects with COCO's names of parts, or why
    it cannot be used."""
    image = flat_columns(data.select_columns("image"))
    no_image = image["image.bytes"].is_null().to_numpy() & image["image.path"].is_null().to_numpy()
    table: Any = data.remove_columns("image").with_format("arrow")[:]
    listed = {}
    for row, cells in enumerate(table.to_pylist()):
        size = (cells.get("width"), cells.get("height"))
        objects: list[dict[str, Any]] | str = "without an image"
        if not no_image[row]:
            objects = split_parts(cells["label"], called)
            if not all(map(is_size, size)):
                size = read_size(data[row]["image"])
                objects = "of an image that cannot be read" if size is None else objects
        listed[row] = (size, objects)
    return listed


def split_parts(cell: Any, called: dict[str, str]) -> list[dict[str, Any]] | str:
    """Return the objects in a cell, a list of them or lists of their parts, or why it cannot be used."""
    if cell is None:
        return "without a list of objects"
    if isinstance(cell, list):
        return [{part: (one or {}).get(name) for part, name in called.items()} for one in cell]
    lists = {part: cell[name] if isinstance(cell[name], list) else [] for part, name in called.items()}
    if len(lists["bbox"]) != len(lists["category_id"]):
        return "with boxes and classes of different numbers"
    lists = {part: values for part, values in lists.items() if len(values) == len(lists["bbox"])}
    return [dict(zip(lists, values)) for values in zip(*lists.values())]


def read_size(stored: dict[str, Any]) -> tuple[int, int] | None:
    """Return the `(width, height)` of an image once it is upright, of which no pixel is read; None of a damaged one."""
    try:
        with io.BytesIO(stored["bytes"]) if stored["bytes"] is not None else open(stored["path"], "rb") as file:
            image = open_image(file)
            width, height = image.size
            return (height, width) if orientation(image) >= SIDEWAYS else (width, height)
    except (UnreadableImage, OSError):
        return None


def name_categories(name: str, annotations: list[dict[str, Any]], kind: Any, classes: list[str] | None) -> list[str]:
    """Return the names of the classes, and put them in the place of numbers in the objects."""
    values = {one["category_id"] for one in annotations} - {None}
    names: dict[Any, str] = {}
    if isinstance(kind, ClassLabel):
        found = kind.names
        names = dict(enumerate(found))
    elif classes is not None and all(isinstance(value, int) for value in values):
        found = classes
        names = dict(enumerate(found))
    elif values and all(isinstance(value, str) for value in values):
        found = sorted(values)
    else:
        raise ValueError(
            f"--classes is missing: the objects of {name} have no names of classes, such as"
            f" {next(iter(values), 'no class at all')}, so give the names in the order of their numbers, how many there"
            " are, or a file with one a line."
        )
    for one in annotations:
        one["category_id"] = names.get(one["category_id"], one["category_id"])
    return found if classes is None else classes


# Boxes


def as_xywh(box: Any, box_format: str) -> Any:
    """Return a box as COCO has it; what is no box as it is."""
    if box_format == "xywh" or not is_box(box):
        return box
    left, top, right, bottom = box
    return [left, top, right - left, bottom - top]


def is_box(box: Any) -> bool:
    return isinstance(box, list) and len(box) == 4 and all(map(is_finite, box))


def check_box_format(name: str, listed: list[tuple[tuple[int, int], list[dict[str, Any]]]], box_format: str) -> None:
    """Raise ValueError if boxes do not lie in their images as `--box_format` reads them, and do in the other form."""
    other = {"xywh": "xyxy", "xyxy": "xywh"}[box_format]
    boxes = [(size, one["bbox"]) for size, of_image in listed for one in of_image if is_box(one["bbox"])]
    wrong, wrong_as_other = (
        sum(not fits(as_xywh(box, form), *size) for size, box in boxes) for form in (box_format, other)
    )
    if wrong > len(boxes) / 4 and wrong_as_other < wrong / 10:
        raise ValueError(
            f"{name}: of its {len(boxes)} boxes {wrong} do not lie in their images as --box_format {box_format} reads"
            f" them, and {wrong_as_other} as {other}: pass --box_format {other}."
        )


def fits(box: list[float], width: int, height: int) -> bool:
    """Return whether a box has an area and lies in its image, but for a pixel."""
    left, top, wide, high = box
    return min(wide, high) > 0 and min(left, top) >= -1 and left + wide <= width + 1 and top + high <= height + 1
