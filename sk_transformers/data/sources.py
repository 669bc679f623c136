"""Data sets by name: built in, folders of images, parquet files and the Hub."""

import glob
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa
from datasets import (
    Dataset,
    Features,
    Image,
    IterableDataset,
    load_dataset,
    load_dataset_builder,
)

from ..errors import first_line
from .builtin import BUILT_IN
from .fingerprint import digest
from .folders import EXPECTED, TableOptions, read_splits
from .labels import ONE_LABEL
from .listing import Folder, LeftOut, check_faults, count, describe_left_out, list_folder, name_labels
from .multi_label import SEVERAL_LABELS, gather_class_columns
from .options import DataOptions
from .parquet import find_parquet_splits
from .tables import LABEL_COLUMNS, TABLE_SUFFIXES

Data = TypeVar("Data", Dataset, IterableDataset)
STREAM_SHARDS = 128  # of a folder, which processes and workers share
LABELINGS = {"single_label": ONE_LABEL, "multi_label": SEVERAL_LABELS}  # by --problem_type


class Source(Protocol):
    """Splits by name, with the columns `image` and `label`. `revision` is the commit of a Hub dataset."""

    name: str
    split_names: list[str]
    revision: str | None

    def load(self, split: str) -> Dataset:
        """Return a split, and read no file of another one."""
        ...

    def stream(self, split: str) -> IterableDataset:
        """Return a split whose images are read as they are needed."""
        ...

    def length(self, split: str) -> int | None:
        """Return how many images a split holds, if the source says so without being read."""
        ...

    def left_out(self, splits: list[str]) -> list[LeftOut]:
        """Return what of these splits is not used."""
        ...

    def digest(self, splits: list[str]) -> str:
        """Return what identifies the content of these splits, without reading it."""
        ...


def find_source(options: DataOptions) -> Source:
    """Return the data set that the options name: built in, at a path, or on the Hub.

    Raises:
        ValueError: if there is none, or none that can be used.
    """
    name = options.dataset
    path = Path(name)
    if name in BUILT_IN:
        for option in ("image_column", "label_column", "file_column", "dataset_config", "dataset_revision"):
            if getattr(options, option) is not None:
                raise ValueError(f"--{option} {getattr(options, option)}: {name} is built in, leave the option out.")
        return BuiltIn(name)
    if path.is_dir():
        tree = list_folder(path)
        parquet = find_parquet_splits(tree)
        return LibraryDataset(options, "parquet", parquet) if parquet else ImageFolder(name, tree, options)
    if path.suffix.lower() == ".parquet" and path.is_file():
        return LibraryDataset(options, "parquet", {"train": [name]})
    if path.suffix.lower() in TABLE_SUFFIXES and path.is_file():
        return ImageFolder(name, list_folder(path.parent), options, table=name)
    if path.is_file():
        raise ValueError(
            f"--dataset {name} is a file, expected a folder, a parquet file, a table of labels"
            f" ({', '.join(TABLE_SUFFIXES)}) or a Hub dataset."
        )
    return LibraryDataset(options, name)


class BuiltIn:
    """A data set in memory."""

    revision: str | None = None

    def __init__(self, name: str) -> None:
        self.name, self.splits = name, BUILT_IN[name]()
        self.split_names = list(self.splits)

    def load(self, split: str) -> Dataset:
        return self.splits[split]

    def stream(self, split: str) -> IterableDataset:
        return self.splits[split].to_iterable_dataset()

    def length(self, split: str) -> int:
        return len(self.splits[split])

    def left_out(self, splits: list[str]) -> list[LeftOut]:
        return []

    def digest(self, splits: list[str]) -> str:
        return self.name


class ImageFolder:
    """Images in folders, or beside a table; see `folders.py`."""

    revision: str | None = None

    def __init__(self, name: str, tree: Folder, options: DataOptions, table: str | None = None) -> None:
        self.name, self.skip = name, options.skip_unreadable
        self.labeling = LABELINGS[options.problem_type]
        asked = TableOptions(table, options.file_column, options.label_column, self.labeling)
        named_splits = [split for split in (options.train_split, options.validation_split) if split is not None]
        splits = read_splits(tree, asked, named_splits)
        if options.image_column is not None:
            raise ValueError(
                f"--image_column {options.image_column}: {name} is a folder of images, whose table has --file_column."
            )
        if (options.label_column or options.file_column) and not any(split.table for split in splits.values()):
            raise ValueError(f"--label_column and --file_column are of tables, and {name} has none beside its images.")
        self.splits = {split: content for split, content in splits.items() if not content.is_unlabeled}
        self.unlabeled = [split for split in splits if split not in self.splits]
        if not self.splits:
            raise ValueError(f"{name} has {count(len(tree.all_images()), 'image')} and no labels: {EXPECTED}.")
        if self.labeling is not ONE_LABEL and any(split.table is None for split in self.splits.values()):
            raise ValueError(
                f"--problem_type multi_label: the folders of {name} are classes, which give an image one label each:"
                " give a table with the labels of each image as --dataset, or leave the option out."
            )
        self.split_names = list(self.splits)

    def load(self, split: str) -> Dataset:
        content, labeling = self.splits[split], self.labeling
        if not self.skip:
            check_faults(self.name, content.left_out)
        if content.empty_classes:
            raise ValueError(
                f"{self.name} has no usable image of class {name_labels(content.empty_classes)} in {split}: add images,"
                " or remove the folder."
            )
        if not content.images:
            raise ValueError(
                f"{self.name} has no image that can be used in {split}: {describe_left_out(content.left_out)}."
            )
        labels = sorted(set(labeling.names(content.labels)))
        numbers = labeling.encode(content.labels, {label: number for number, label in enumerate(labels)})
        features = Features({"image": Image(decode=False), "label": labeling.feature(labels)})
        paths = pa.array([image.path for image in content.images], pa.string())
        images = pa.StructArray.from_arrays([pa.nulls(len(paths), pa.binary()), paths], ["bytes", "path"])
        column = pa.array(numbers, features.arrow_schema.field("label").type)
        return Dataset(pa.table({"image": images, "label": column}).cast(features.arrow_schema))

    def stream(self, split: str) -> IterableDataset:
        """Return shards that each have images of all classes."""
        data = self.load(split)
        mixed = data.data.table.take(np.random.default_rng(0).permutation(len(data)))
        return Dataset(mixed, data.info).to_iterable_dataset(min(len(data), STREAM_SHARDS))

    def length(self, split: str) -> int:
        return len(self.splits[split].images)

    def left_out(self, splits: list[str]) -> list[LeftOut]:
        unlabeled = [LeftOut(split, "without labels", fault=False) for split in self.unlabeled]
        return [file for split in splits for file in self.splits[split].left_out] + unlabeled

    def digest(self, splits: list[str]) -> str:
        contents = [self.splits[split] for split in splits]
        return digest(
            f"{image.name}\t{image.size}\t{label}"
            for content in contents
            for image, label in zip(content.images, content.labels)
        )


class LibraryDataset:
    """What `datasets` loads: parquet files, by split, or a data set of the Hub.

    `kept_columns` are those that stay beside the images' and the labels', where they are there.
    """

    kept_columns: tuple[str, ...] = ()

    def __init__(self, options: DataOptions, builder: str, files: dict[str, list[str]] | None = None) -> None:
        self.name, self.options = options.dataset, options
        self.loading: dict[str, Any] = {
            "path": builder,
            "name": options.dataset_config,
            "revision": options.dataset_revision,
            "data_files": files and {split: _escape(paths) for split, paths in files.items()},
        }
        try:
            self.builder = load_dataset_builder(**self.loading)
        except Exception as error:  # the Hub's client raises many kinds
            where = "could not be read" if files else "is no folder here, and could not be loaded from the Hub"
            raise ValueError(f"--dataset {self.name} {where}: {first_line(error)}") from error
        self.files = self.builder.config.data_files
        self.split_names = [str(split) for split in self.files or self.builder.info.splits or ()]
        commit = re.search("@([0-9a-f]{40})/", str(dict(self.files or {})))
        self.revision = commit.group(1) if commit else None

    def load(self, split: str) -> Dataset:
        if self.files is None:
            data = load_dataset(**self.loading, split=split)
        else:
            data = load_dataset(self.builder.name, data_files={split: _escape(self.files[split])}, split=split)
        return self._standard_columns(data)

    def stream(self, split: str) -> IterableDataset:
        return self._standard_columns(load_dataset(**self.loading, split=split, streaming=True))

    def length(self, split: str) -> int | None:
        info = (self.builder.info.splits or {}).get(split)
        return info.num_examples if info else None

    def left_out(self, splits: list[str]) -> list[LeftOut]:
        return []

    def digest(self, splits: list[str]) -> str:
        if self.files is None:
            return digest([self.name, str(self.loading), str(self.builder.hash)])
        paths = [path for split in splits for path in self.files[split]]
        return digest(
            f"{os.path.basename(path)} {os.path.getsize(path) if os.path.exists(path) else path}" for path in paths
        )

    def _standard_columns(self, data: Data) -> Data:
        """Return the image and the label column under these names, and no others but `kept_columns`."""
        data, image, label = self._find_columns(data)
        features = data.features or {}
        for column, what in ((image, "image"), (label, "label")):
            if column not in features:
                missing = f"no {column!r}" if column else f"no {what}s"
                raise ValueError(
                    f"{self.name} has columns {', '.join(features)} and {missing} among them: name it with"
                    f" --{what}_column."
                )
        data = data.select_columns([image, label, *(name for name in self.kept_columns if name in features)])
        for column, standard in ((image, "image"), (label, "label")):
            data = data if column == standard else data.rename_column(column, standard)
        return data.cast_column("image", Image(decode=False))

    def _find_columns(self, data: Data) -> tuple[Data, str, str]:
        """Return the data, which may get a column of labels, and the names of both columns, empty if there is none."""
        features, asked = data.features or {}, self.options
        image = asked.image_column or next((name for name, kind in features.items() if isinstance(kind, Image)), "")
        label = asked.label_column or next((name for name in LABEL_COLUMNS if name in features), "")
        if image in features and not label and asked.problem_type == "multi_label" and isinstance(data, Dataset):
            data = gather_class_columns(data, image)
            label = "label" if "label" in data.features else ""
        return data, image, label


def _escape(paths: Iterable[str]) -> list[str]:
    """Return paths as patterns that stand for them alone."""
    return [glob.escape(path) for path in paths]
