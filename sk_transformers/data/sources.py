"""Data sets by name: built in, folders of images, parquet files and the Hub."""

import glob
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
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
from .fingerprint import Fingerprint, digest, make_fingerprint
from .folders import EXPECTED, SPLIT_KINDS, TableOptions, read_splits, split_kind
from .labels import (
    ONE_LABEL,
    count_classes,
    count_without_class,
    label_numbers,
    number_labels,
    stream_labels,
)
from .listing import Folder, LeftOut, check_faults, count, describe_left_out, list_folder, name_labels
from .multi_label import SEVERAL_LABELS, gather_class_columns
from .options import DataOptions
from .parquet import find_parquet_splits
from .tables import LABEL_COLUMNS, TABLE_SUFFIXES

Data = TypeVar("Data", Dataset, IterableDataset)
STREAM_SHARDS = 128  # of a folder, which processes and workers share
LABELINGS = {"single_label": ONE_LABEL, "multi_label": SEVERAL_LABELS}  # by --problem_type


@dataclass
class ImageData:
    """Training and validation images with columns `image`, not decoded, and `label`; and the names of the classes.

    A label is the number of a class, or a list of them where `problem_type` is `multi_label`. `train` is a stream if it
    was asked for; `train_images` is None if a stream does not tell its length. `revision` is the commit of a Hub
    dataset, `validation_split` what the validation images are called there, None if they are held out. `account` says
    how much there is and what is left out.
    """

    name: str
    train: Dataset | IterableDataset
    validation: Dataset
    labels: list[str]
    train_images: int | None
    revision: str | None = None
    account: str = ""
    fingerprint: Fingerprint = field(default_factory=dict)
    problem_type: str = "single_label"
    validation_split: str | None = None

    @property
    def id2label(self) -> dict[int, str]:
        return dict(enumerate(self.labels))

    @property
    def is_stream(self) -> bool:
        return isinstance(self.train, IterableDataset)

    @property
    def class_counts(self) -> list[int] | None:
        """How many training images each class has; None of a stream."""
        return self.fingerprint["images"]["train"]

    def split(self, name: str) -> Dataset:
        """The images called `"train"` or `"validation"`."""
        return {"train": self.train, "validation": self.validation}[name]


def load_data(options: DataOptions, streaming: bool = False, min_labels: int = 2, hold_out: bool = True) -> ImageData:
    """Load the data that the options name.

    Args:
        options: the data, and how it is divided.
        streaming: read the training images as they are needed, and never hold them all. Validation images are loaded.
        min_labels: how many classes there have to be; training needs two.
        hold_out: divide the images where there is no validation split, or where it is the training split; else all of
            them are training and validation.

    Raises:
        ValueError: if there is no such data, split or column, or it has no labels, or labels outside their range, or
            files that are not images; the message says which.
    """
    name, labeling = options.dataset, LABELINGS[options.problem_type]
    if streaming and labeling is not ONE_LABEL:
        raise ValueError("--streaming reads one label an image, and --problem_type is multi_label: leave it out.")
    source = find_source(options)
    if streaming and isinstance(source, BuiltIn):
        raise ValueError(f"--streaming: {name} is small and in memory; leave the flag out.")
    train_name, validation_name = pick_splits(options, source.split_names, hold_out)
    if streaming and validation_name is None:
        raise ValueError(f"--streaming: {name} has no validation split, and a stream cannot be divided into two.")

    left_out: list[LeftOut] = []
    if streaming:
        train = source.stream(train_name)
        labels = stream_labels(name, train)
    else:
        train = without_missing(
            name, source.load(train_name), options.skip_unreadable, left_out, labeling.empty_is_missing
        )
        train, labels = number_labels(name, train, labeling)
    if len(labels) < min_labels:
        raise ValueError(f"{name} has one class, {labels[0]!r}: expected at least two to tell apart.")
    if validation_name is None and not hold_out:
        assert isinstance(train, Dataset)  # a stream was refused
        validation = train
    elif validation_name is None:
        assert isinstance(train, Dataset)
        rows = labeling.hold_out(name, train, labels, options.train_val_split, options.split_seed)
        train, validation = (train.select(part) for part in rows)
    else:
        validation = without_missing(
            name, source.load(validation_name), options.skip_unreadable, left_out, labeling.empty_is_missing
        )
        validation, _ = number_labels(name, validation, labeling, labels)

    splits = [train_name] if validation_name is None else [train_name, validation_name]
    train_images = source.length(train_name) if isinstance(train, IterableDataset) else len(train)
    held_out = len(validation) if validation is not train else 0
    no_class = sum(count_without_class(part) for part in ([train] if validation is train else [train, validation]))
    account = describe(source, splits, len(labels), train_images, held_out, no_class, left_out)
    most = options.max_train_samples
    if most is not None and not (train_images and train_images <= most):
        is_stream = isinstance(train, IterableDataset)
        train = train.take(most) if is_stream else choose_rows(train, most, options.split_seed)
        train_images = most
    if options.max_eval_samples is not None:
        validation = choose_rows(validation, options.max_eval_samples, options.split_seed)
    counts = {
        "train": count_classes(label_numbers(train), len(labels)) if isinstance(train, Dataset) else None,
        "validation": count_classes(label_numbers(validation), len(labels)),
    }
    division = f"{options.train_val_split:g} held out by --split_seed {options.split_seed}"
    fingerprint = make_fingerprint(
        labels,
        counts,
        source.digest(splits),
        "a split of their own" if validation_name else division,
        options.problem_type,
    )
    return ImageData(
        name,
        train,
        validation,
        labels,
        train_images,
        source.revision,
        account,
        fingerprint,
        options.problem_type,
        validation_name,
    )


def describe(
    source: "Source",
    splits: list[str],
    classes: int,
    train: int | None,
    validation: int,
    no_class: int,
    left_out: list[LeftOut],
) -> str:
    """Return one line of account: how many images, classes and splits there are, and what is left out and why."""
    images = "a stream of images" if train is None else count(train + validation, "image")
    line = f"{source.name}: {images} of {count(classes, 'class', 'classes')}"
    if no_class:
        line += f", {no_class} of none"
    if validation:
        other = "held out" if len(splits) == 1 else splits[1]
        line += f"; {splits[0]} {'' if train is None else f'{train}, '}{other} {validation}"
    line += "."
    unused = [split for split in source.split_names if split not in splits]
    if unused:
        line += f" Not used: {', '.join(unused)}."
    everything = list(dict.fromkeys([*source.left_out(splits), *left_out]))
    return f"{line} Left out: {describe_left_out(everything)}." if everything else line


# Sources


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
    """What `datasets` loads: parquet files, by split, or a data set of the Hub."""

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
        """Return the image and the label column under these names, and no others."""
        data, image, label = self._find_columns(data)
        features = data.features or {}
        for column, what in ((image, "image"), (label, "label")):
            if column not in features:
                missing = f"no {column!r}" if column else f"no {what}s"
                raise ValueError(
                    f"{self.name} has columns {', '.join(features)} and {missing} among them: name it with"
                    f" --{what}_column."
                )
        data = data.select_columns([image, label])
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


# Splits, columns and labels


def pick_splits(options: DataOptions, there: list[str], hold_out: bool) -> tuple[str, str | None]:
    """Return the names of the training and the validation split, None where a part of the first is held out.

    Raises:
        ValueError: if a split that is asked for is not there.
    """
    name = options.dataset
    train = pick_split(name, there, options.train_split, "--train_split", ["train"]) or there[0]
    candidates = there if options.validation_split else [split for split in there if split != train]
    kinds = ["validation", "test"]
    validation = pick_split(name, candidates, options.validation_split, "--validation_split", kinds)
    return train, None if validation == train and hold_out else validation


def pick_split(name: str, there: list[str], asked: str | None, option: str, kinds: list[str]) -> str | None:
    """Return the split asked for, in whatever case or form of its name; else the first of these kinds, if there is one.

    Raises:
        ValueError: if the split asked for is not there.
    """
    if asked is None:
        usual = [word for kind in kinds for word, of_kind in SPLIT_KINDS.items() if of_kind == kind]
        return next((split for word in usual for split in there if split.lower() == word), None)
    for fits in (
        lambda split: split == asked,
        lambda split: split.lower() == asked.lower(),
        lambda split: split_kind(asked) and split_kind(split) == split_kind(asked),
    ):
        found = [split for split in there if fits(split)]
        if len(found) == 1:
            return found[0]
    raise ValueError(f"{option} {asked}: {name} has {', '.join(there)}.")


def without_missing(
    name: str, data: Dataset, skip: bool, left_out: list[LeftOut], empty_is_missing: bool = False
) -> Dataset:
    """Return the rows that have both an image and a label; the others are added to `left_out`.

    Args:
        name: of the data, for messages.
        data: with the columns `image` and `label`.
        skip: whether rows may be left out.
        left_out: what is left out so far.
        empty_is_missing: whether a label of no letters is none.

    Raises:
        ValueError: if there are others, unless they are to be skipped.
    """
    if not len(data):
        raise ValueError(f"{name} has no rows.")
    columns = flat_columns(data)
    is_null = {name: column.is_null().to_numpy() for name, column in columns.items()}
    no_image, no_label = (
        is_null[name] if name in is_null else is_null[f"{name}.bytes"] & is_null[f"{name}.path"]
        for name in ("image", "label")  # a mask is a picture, too
    )
    if empty_is_missing and pa.types.is_string(columns["label"].type):
        no_label |= columns["label"].to_numpy() == ""
    missing = [
        LeftOut(f"row {row}", f"without {what}")
        for what, mask in (("an image", no_image), ("a label", no_label))
        for row in np.flatnonzero(mask)
    ]
    if not missing:
        return data
    if not skip:
        check_faults(name, missing)
    left_out += missing
    return data.select(np.flatnonzero(~(no_image | no_label)))


def flat_columns(data: Dataset) -> dict[str, Any]:
    """Return the columns as Arrow has them, those of an image (`image.bytes`, `image.path`) apart."""
    table: Any = data.with_format("arrow")[:]
    table = table.flatten()
    return dict(zip(table.column_names, table.columns))


def choose_rows(data: Dataset, images: int, seed: int) -> Dataset:
    return data.shuffle(seed=seed).select(range(min(images, len(data))))
