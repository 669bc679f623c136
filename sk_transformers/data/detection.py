"""Data sets of images and objects: folders of images with COCO's JSON."""

import os
from pathlib import Path

import pyarrow as pa
from datasets import Dataset, Features, Image, IterableDataset, Value

from .coco import holds_objects, read_coco
from .fingerprint import digest
from .image_data import ImageData, image_data
from .listed_objects import ListedObjects
from .listing import Folder, ImageFile, LeftOut, check_faults, describe_left_out, list_folder, to_nfc
from .options import DataOptions
from .parquet import split_of_file
from .splits import load_splits, pick_splits

OTHER_JSON = ("captions", "keypoints", "panoptic", "stuff", "image_info")  # what else comes with COCO
EXPECTED = (
    "expected a folder of images with COCO's JSON, such as train2017, val2017 and annotations/instances_train2017.json,"
    " or train/_annotations.coco.json beside the images"
)


def load_objects(options: DataOptions, hold_out: bool = True) -> ImageData:
    """Load images and their objects, these in the column `label` as `coco.py` keeps them; no image is decoded.

    Args:
        options: the data, and how it is divided.
        hold_out: divide the images where there is no validation split, or where it is the training split; else all of
            them are training and validation.

    Raises:
        ValueError: if there is no such data or split, or a JSON, or what it lists, is not as it should be.
    """
    source = CocoFolder(options)
    splits = pick_splits(options, source.split_names, hold_out)
    train, validation = load_splits(options, splits, source.load, hold_out)
    read = list(source.read.values())
    left_out, empty = [one for split in read for one in split.left_out], sum(split.empty for split in read)
    return image_data(
        options, source, splits, train, validation, read[0].classes, left_out, str(options.box_only), no_class=empty
    )


class CocoFolder:
    """A folder of images with a JSON for each split, of which only those that are asked for are read."""

    revision: str | None = None

    def __init__(self, options: DataOptions) -> None:
        self.name = options.dataset
        for option in ("image_column", "label_column", "file_column"):
            if getattr(options, option) is not None:
                raise ValueError(f"--{option} {getattr(options, option)}: COCO's JSON has no columns: leave it out.")
        if not Path(self.name).is_dir():
            raise ValueError(f"--dataset {self.name} is not a folder: {EXPECTED}.")
        self.skip, self.with_masks = options.skip_unreadable, not options.box_only
        self.tree = list_folder(self.name)
        self.files = find_jsons(self.tree)
        self.split_names = list(self.files)
        self.read: dict[str, ListedObjects] = {}

    def load(self, split: str) -> Dataset:
        """Return the images of a split; classes are numbered as in the first split that is loaded."""
        file = self.files[split]
        finder = ImageFinder(self.tree, file, split)
        classes = next((read.classes for read in self.read.values()), None)
        read = read_coco(file, finder.find, self.with_masks, classes)
        self.read[split] = read
        if not self.skip:
            check_faults(str(file), read.left_out)
        if not read.images:
            raise ValueError(f"{file} lists no image that is there: {describe_left_out(read.left_out)}.")
        features = Features({"image": Image(decode=False), "label": Value("large_string")})
        paths = pa.array([image.path for image in read.images], pa.string())
        images = pa.StructArray.from_arrays([pa.nulls(len(paths), pa.binary()), paths], ["bytes", "path"])
        objects = pa.array(read.objects, pa.large_string())
        return Dataset(pa.table({"image": images, "label": objects}).cast(features.arrow_schema))

    def stream(self, split: str) -> IterableDataset:
        return self.load(split).to_iterable_dataset()

    def length(self, split: str) -> int:
        return len(self.read[split].images)

    def left_out(self, splits: list[str]) -> list[LeftOut]:
        """Return the files that are not used; images that no JSON lists only if all of these were read."""
        jsons = {str(file) for file in self.files.values()}
        others = [
            LeftOut(file.name, "not a JSON of objects" if file.name.endswith(".json") else file.reason, fault=False)
            for folder in self.tree.walk()
            for file in folder.other_files
            if os.path.join(folder.path, os.path.basename(file.name)) not in jsons
        ]
        if len(self.read) < len(self.files):
            return others
        listed = {image.path for read in self.read.values() for image in read.images}
        unlisted = [image.name for image in self.tree.all_images() if image.path not in listed]
        return others + [LeftOut(name, "listed in no JSON", fault=False) for name in unlisted]

    def digest(self, splits: list[str]) -> str:
        return digest(
            f"{image.name}\t{image.size}\t{objects}"
            for split in splits
            for image, objects in zip(self.read[split].images, self.read[split].objects)
        )


def find_jsons(tree: Folder) -> dict[str, Path]:
    """Return the JSON of each split of a listed folder, `train` alone if its name, or its folder's, tells none.

    Raises:
        ValueError: if there is none, or one split has several.
    """
    found: dict[str, Path] = {}
    for folder in tree.walk():
        for file in folder.other_files:
            base = os.path.basename(file.name)
            path = Path(folder.path, base)
            if not base.lower().endswith(".json") or any(word in base.lower() for word in OTHER_JSON):
                continue
            if not holds_objects(path):
                continue
            split = split_of_file(file.name.removesuffix(".json"))
            if split in found:
                raise ValueError(
                    f"{tree.path} has two JSON files of objects for {split}, {found[split].name} and {base}: keep one"
                    " of them there."
                )
            found[split] = path
    if not found:
        raise ValueError(f"{tree.path} has no JSON of objects: {EXPECTED}.")
    return found


class ImageFinder:
    """The images of a folder by the names that a JSON gives them.

    A name is a path from the JSON's folder, or from the data set's, or else the end of one path only: of those in a
    folder of the JSON's split, if there are several.
    """

    def __init__(self, tree: Folder, file: Path, split: str) -> None:
        self.split, self.by_name = split, {image.name: image for image in tree.all_images()}
        self.beside = os.path.relpath(file.parent, tree.path).replace(os.sep, "/")
        self.by_last: dict[str, list[ImageFile]] = {}
        for image in self.by_name.values():
            self.by_last.setdefault(os.path.basename(image.name), []).append(image)

    def find(self, name: str) -> ImageFile | None:
        """Return the image of a name; None if there is none, or several might be meant."""
        name = to_nfc(os.path.normpath(name).replace(os.sep, "/"))
        from_json = os.path.normpath(f"{self.beside}/{name}").replace(os.sep, "/")
        exact = self.by_name.get(from_json) or self.by_name.get(name)
        if exact is not None:
            return exact
        ends = [one for one in self.by_last.get(os.path.basename(name), []) if f"/{one.name}".endswith(f"/{name}")]
        of_split = [one for one in ends if split_of_file(one.name) == self.split]
        fitting = of_split or ends
        return fitting[0] if len(fitting) == 1 else None
