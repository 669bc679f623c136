"""Data sets of images and objects: folders with COCO's JSON or Pascal VOC's XML, parquet files and the Hub."""

from pathlib import Path

from .builtin import BUILT_IN
from .image_data import ImageData, image_data
from .listing import list_folder
from .object_columns import LibraryObjects
from .object_folders import CocoFolder, VocFolder, find_jsons
from .options import DataOptions
from .parquet import find_parquet_splits
from .splits import load_splits, pick_splits
from .voc import find_voc

EXPECTED = (
    "expected a folder of images with COCO's JSON, such as train2017, val2017 and annotations/instances_train2017.json,"
    " or train/_annotations.coco.json beside the images; a folder with Pascal VOC's XML, such as JPEGImages and"
    " Annotations; or parquet or a Hub dataset with a column of objects"
)


def load_objects(options: DataOptions, hold_out: bool = True) -> ImageData:
    """Load images and their objects, in the column `label` as `ListedObjects` has them; no image is decoded.

    Args:
        options: the data, and how it is divided.
        hold_out: divide the images where there is no validation split, or where it is the training split; else all of
            them are training and validation.

    Raises:
        ValueError: if there is no such data or split, or what describes the objects is not as it should be.
    """
    source = find_source(options)
    splits = pick_splits(options, source.split_names, hold_out)
    train, validation = load_splits(options, splits, source.load, hold_out)
    read = list(source.read.values())
    left_out, empty = [one for split in read for one in split.left_out], sum(split.empty for split in read)
    return image_data(
        options, source, splits, train, validation, read[0].classes, left_out, str(options.box_only), no_class=empty
    )


def find_source(options: DataOptions) -> CocoFolder | VocFolder | LibraryObjects:
    """Return the data set of images and objects that the options name: at a path, or on the Hub.

    Raises:
        ValueError: if there is none, or none that can be used.
    """
    name, path = options.dataset, Path(options.dataset)
    if options.file_column is not None:
        raise ValueError(f"--file_column {options.file_column} is for tables of labels, not for objects: leave it out.")
    if name in BUILT_IN:
        raise ValueError(f"--dataset {name} has no objects: {EXPECTED}.")
    if path.is_dir():
        tree = list_folder(path)
        if parquet := find_parquet_splits(tree):
            return LibraryObjects(options, "parquet", parquet)
        if jsons := find_jsons(tree):
            return CocoFolder(options, tree, jsons)
        if (voc := find_voc(tree)).splits:
            return VocFolder(options, tree, voc)
        raise ValueError(f"{name} has no objects: {EXPECTED}.")
    if path.suffix.lower() == ".parquet" and path.is_file():
        return LibraryObjects(options, "parquet", {"train": [name]})
    if path.is_file():
        raise ValueError(f"--dataset {name} is a file, {EXPECTED}.")
    return LibraryObjects(options, name)
