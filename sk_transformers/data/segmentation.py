"""Data sets of images and masks: folders, parquet files and the Hub."""

from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
from datasets import Dataset, Features, Image, IterableDataset

from .builtin import BUILT_IN
from .fingerprint import digest
from .image_data import ImageData, image_data
from .listing import Folder, LeftOut, check_faults, describe_left_out, list_folder
from .mask_folders import find_pairs
from .masks import MaskFormat, read_classes
from .options import DataOptions
from .parquet import find_parquet_splits
from .sources import Data, LibraryDataset, Source
from .splits import load_splits, pick_splits, without_missing

MASK_COLUMNS = ("annotation", "annotations", "mask", "masks", "label", "labels", "segmentation", "semantic_mask")


def load_masks(options: DataOptions, hold_out: bool = True) -> ImageData:
    """Load images and masks, the masks in the column `label`; neither is decoded.

    Args:
        options: the data, and how it is divided.
        hold_out: divide the images where there is no validation split, or where it is the training split; else all of
            them are training and validation.

    Raises:
        ValueError: if there is no such data, split or column, or nothing tells the classes, or an image has no mask.
    """
    name, source = options.dataset, find_source(options)
    labels = read_classes(options.classes, Path(name))
    splits = pick_splits(options, source.split_names, hold_out)
    left_out: list[LeftOut] = []

    def load(split: str) -> Dataset:
        return without_missing(name, source.load(split), options.skip_unreadable, left_out)

    train, validation = load_splits(options, splits, load, hold_out)
    read_as = str(asdict(mask_format(options, len(labels))))
    return image_data(options, source, splits, train, validation, labels, left_out, read_as)


def mask_format(options: DataOptions, classes: int) -> MaskFormat:
    """Return how the options say that masks are read."""
    return MaskFormat(classes, options.ignore_index, options.reduce_labels)


# Sources


def find_source(options: DataOptions) -> Source:
    """Return the data set of images and masks that the options name: at a path, or on the Hub.

    Raises:
        ValueError: if there is none, or none that can be used.
    """
    name, path = options.dataset, Path(options.dataset)
    if name in BUILT_IN:
        raise ValueError(f"--dataset {name} has no masks: give a folder of images and masks, parquet or a Hub dataset.")
    if options.file_column is not None:
        raise ValueError(f"--file_column {options.file_column} is for tables of labels, not for masks: leave it out.")
    if path.is_dir():
        tree = list_folder(path)
        parquet = find_parquet_splits(tree)
        return LibraryPairs(options, "parquet", parquet) if parquet else PairFolder(name, tree, options)
    if path.suffix.lower() == ".parquet" and path.is_file():
        return LibraryPairs(options, "parquet", {"train": [name]})
    if path.is_file():
        raise ValueError(f"--dataset {name} is a file, expected a folder, a parquet file or a Hub dataset.")
    return LibraryPairs(options, name)


class PairFolder:
    """Images and masks in folders; see `mask_folders.py`."""

    revision: str | None = None

    def __init__(self, name: str, tree: Folder, options: DataOptions) -> None:
        for option in ("image_column", "label_column"):
            if getattr(options, option) is not None:
                raise ValueError(
                    f"--{option} {getattr(options, option)}: {name} is a folder of images and masks, which has no"
                    " columns: leave the option out."
                )
        self.name, self.skip, self.splits = name, options.skip_unreadable, find_pairs(tree)
        self.split_names = list(self.splits)

    def load(self, split: str) -> Dataset:
        pairs = self.splits[split]
        if not self.skip:
            check_faults(self.name, pairs.left_out)
        if not pairs.images:
            raise ValueError(f"{self.name} has no image with a mask in {split}: {describe_left_out(pairs.left_out)}.")
        features = Features({"image": Image(decode=False), "label": Image(decode=False)})
        columns = {
            column: pa.StructArray.from_arrays(
                [pa.nulls(len(files), pa.binary()), pa.array([file.path for file in files], pa.string())],
                ["bytes", "path"],
            )
            for column, files in (("image", pairs.images), ("label", pairs.masks))
        }
        return Dataset(pa.table(columns).cast(features.arrow_schema))

    def stream(self, split: str) -> IterableDataset:
        return self.load(split).to_iterable_dataset()

    def length(self, split: str) -> int:
        return len(self.splits[split].images)

    def left_out(self, splits: list[str]) -> list[LeftOut]:
        return [file for split in splits for file in self.splits[split].left_out]

    def digest(self, splits: list[str]) -> str:
        pairs = [self.splits[split] for split in splits]
        files = [file for one in pairs for file in [*one.images, *one.masks]]
        return digest(f"{file.name}\t{file.size}" for file in files)


class LibraryPairs(LibraryDataset):
    """What `datasets` loads, with a column of images and one of masks."""

    def _standard_columns(self, data: Data) -> Data:
        return super()._standard_columns(data).cast_column("label", Image(decode=False))

    def _find_columns(self, data: Data) -> tuple[Data, str, str]:
        features, asked = data.features or {}, self.options
        pictures = [name for name, kind in features.items() if isinstance(kind, Image)]
        mask = asked.label_column or next((name for name in MASK_COLUMNS if name in pictures), "")
        others = [name for name in pictures if name != mask]
        return data, asked.image_column or (others or [""])[0], mask or (others[1:2] or [""])[0]
