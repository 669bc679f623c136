"""Folders of images and objects, of which a split is read when it is asked for."""

import os
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
from datasets import Dataset, Features, Image, IterableDataset, Value

from .class_names import name_classes
from .coco import holds_objects, read_coco
from .fingerprint import digest
from .listed_objects import ListedObjects
from .listing import Folder, ImageFile, LeftOut, check_faults, describe_left_out, to_nfc
from .options import DataOptions
from .parquet import split_of_file
from .splits import pick_split
from .voc import ImagesByPlace, VocFiles, read_voc

OTHER_JSON = ("captions", "keypoints", "panoptic", "stuff", "image_info")  # what else comes with COCO


class ObjectFolder:
    """What COCO's and VOC's folders have in common. `form` is what they are called in messages."""

    form: ClassVar[str]
    revision: str | None = None

    def __init__(self, options: DataOptions, tree: Folder, split_names: list[str]) -> None:
        for option in ("image_column", "label_column"):
            if getattr(options, option) is not None:
                raise ValueError(f"--{option} {getattr(options, option)}: {self.form} has no columns: leave it out.")
        if options.box_format != "xywh":
            raise ValueError(
                f"--box_format {options.box_format} is for columns of objects, and {self.form} has a form of its own:"
                " leave it out."
            )
        self.name, self.tree, self.split_names, self.skip = options.dataset, tree, split_names, options.skip_unreadable
        self.read: dict[str, ListedObjects] = {}

    def read_split(self, split: str, classes: list[str] | None) -> ListedObjects:
        """Return what a split holds, with the classes of those that were read before."""
        raise NotImplementedError

    def where(self, split: str) -> str:
        """Return what messages call a split."""
        raise NotImplementedError

    def load(self, split: str) -> Dataset:
        """Return the images of a split; classes are numbered as in the first split that is loaded."""
        read = self.read_split(split, next((read.classes for read in self.read.values()), None))
        self.read[split] = read
        if not self.skip:
            check_faults(self.where(split), read.left_out)
        if not read.images:
            raise ValueError(f"{self.where(split)} lists no image that is there: {describe_left_out(read.left_out)}.")
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
        raise NotImplementedError

    def digest(self, splits: list[str]) -> str:
        return digest(
            f"{image.name}\t{image.size}\t{objects}"
            for split in splits
            for image, objects in zip(self.read[split].images, self.read[split].objects)
        )


# COCO


class CocoFolder(ObjectFolder):
    """A folder of images with a JSON for each split."""

    form = "COCO's JSON"

    def __init__(self, options: DataOptions, tree: Folder, files: dict[str, Path]) -> None:
        super().__init__(options, tree, list(files))
        if options.classes is not None:
            raise ValueError(f"--classes {options.classes[0]}: COCO's JSON names its categories: leave it out.")
        self.files, self.with_masks = files, not options.box_only

    def read_split(self, split: str, classes: list[str] | None) -> ListedObjects:
        file = self.files[split]
        return read_coco(file, ImageFinder(self.tree, file, split).find, self.with_masks, classes)

    def where(self, split: str) -> str:
        return str(self.files[split])

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


def find_jsons(tree: Folder) -> dict[str, Path]:
    """Return the JSON of each split of a listed folder, `train` alone if its name, or its folder's, tells
    none; nothing if there is no JSON.

    Raises:
        ValueError: if one split has several.
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


# VOC


class VocFolder(ObjectFolder):
    """A folder of images with an XML for each of them."""

    form = "Pascal VOC's XML"

    def __init__(self, options: DataOptions, tree: Folder, files: VocFiles) -> None:
        there = list(files.splits)
        super().__init__(options, tree, there)
        if not options.box_only:
            raise ValueError(f"{self.name} has Pascal VOC's XML, which holds boxes and no masks: pass --box_only.")
        if options.validation_split is None:  # `val` is a part of `trainval`, and neither validates the other
            train = pick_split(self.name, there, options.train_split, "--train_split", ["train"]) or there[0]
            own = {entry.place for entry in files.splits[train]}
            self.split_names = [
                split
                for split in there
                if split == train or own.isdisjoint(entry.place for entry in files.splits[split])
            ]
        self.files, self.images = files, ImagesByPlace(tree)
        self.asked = None if options.classes is None else name_classes(options.classes)

    def read_split(self, split: str, classes: list[str] | None) -> ListedObjects:
        read = read_voc(self.files.splits[split], self.images.find, classes or self.asked)
        if read.images and not read.classes:
            raise ValueError(f"{self.where(split)} has no object that names a class: name them with --classes.")
        return read

    def where(self, split: str) -> str:
        return f"{self.name}, split {split},"

    def left_out(self, splits: list[str]) -> list[LeftOut]:
        """Return the files that are not used."""
        places = {entry.place for entries in self.files.splits.values() for entry in entries}
        used = {image.path for read in self.read.values() for image in read.images}
        images = [
            LeftOut(image.name, "without an annotation", fault=False)
            for place, images in self.images.by_place.items()
            for image in images
            if place not in places and image.path not in used
        ]
        return [*self.files.left_out, *images, *self.images.masks]
