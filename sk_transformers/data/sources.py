"""Where images and labels come from: scikit-learn, Debian, folders, parquet files and the Hub."""

import gzip
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import (
    ClassLabel,
    Dataset,
    DatasetBuilder,
    DatasetDict,
    Features,
    Image,
    IterableDataset,
    load_dataset,
    load_dataset_builder,
)

from ..errors import first_line
from .options import DataOptions

VALIDATION_SPLITS = ("validation", "valid", "val", "test")
LABEL_COLUMNS = ("label", "labels", "fine_label", "target")
FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")  # where Debian's package puts it
FASHION_MNIST_LABELS = [
    "T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
]  # fmt: skip


@dataclass
class ImageData:
    """Training and validation images with columns `image`, not decoded, and `label`; and the names of the classes.

    `train` is a stream if it was asked for; `train_images` is None if a stream does not tell its length. `revision` is
    the commit of a Hub dataset.
    """

    name: str
    train: Dataset | IterableDataset
    validation: Dataset
    labels: list[str]
    train_images: int | None
    revision: str | None = None

    @property
    def id2label(self) -> dict[int, str]:
        return dict(enumerate(self.labels))

    @property
    def is_stream(self) -> bool:
        return isinstance(self.train, IterableDataset)

    def split(self, name: str) -> Dataset:
        """The images called `"train"` or `"validation"`."""
        return {"train": self.train, "validation": self.validation}[name]


def load_image_data(
    name: str,
    train_val_split: float = 0.2,
    split_seed: int = 0,
    *,
    dataset_config: str | None = None,
    dataset_revision: str | None = None,
    train_split: str | None = None,
    validation_split: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    max_train_samples: int | None = None,
    max_eval_samples: int | None = None,
    streaming: bool = False,
) -> ImageData:
    """Load a data set by name.

    Args:
        name: `"digits"` (scikit-learn's, 1797 images of 8x8), `"fashion-mnist"` (Debian's package), a folder with one
            folder of images a class, or in it `train` and `validation`, a parquet file or a folder of them, or a Hub
            dataset.
        train_val_split: part of the training images held out, each class in proportion, when there is no validation
            split.
        split_seed: what that split, and the choice of `max_train_samples`, depend on.
        dataset_config: configuration of a Hub dataset.
        dataset_revision: commit, branch or tag of a Hub dataset.
        train_split: name of the training split; `train` or the first one when None.
        validation_split: name of the validation split; the first of `VALIDATION_SPLITS` that there is when None.
        image_column: where the images are; the first column of images when None.
        label_column: where the labels are; the first of `LABEL_COLUMNS` that there is when None.
        max_train_samples: how many training images to keep, chosen at random (the first ones of a stream).
        max_eval_samples: how many validation images to keep.
        streaming: read the training images as they are needed, and never hold them all. Validation images are loaded.

    Raises:
        ValueError: if there is no such data, split or column, or it has no labels, or labels outside their range.
    """
    source = BUILT_IN[name]() if name in BUILT_IN else Source.find(name, dataset_config, dataset_revision)
    if streaming and name in BUILT_IN:
        raise ValueError(f"--streaming: {name} is small and in memory; leave the flag out.")
    train_name = _pick_split(name, source.split_names, train_split, "train_split", ["train", *source.split_names])
    others = [split for split in VALIDATION_SPLITS if split in source.split_names and split != train_name]
    validation_name = _pick_split(name, source.split_names, validation_split, "validation_split", others)

    columns = (image_column, label_column)
    if streaming:
        if validation_name is None:
            raise ValueError(f"--streaming: {name} has no validation split, and a stream cannot be divided into two.")
        train = _standard_columns(name, source.stream(train_name), *columns)
        labels = _stream_labels(name, train)
    else:
        train, labels = _with_class_labels(name, _standard_columns(name, source.load(train_name), *columns))
    if validation_name is None:
        parts = _divide(name, train, train_val_split, split_seed)
        train, validation = parts["train"], parts["test"]
    else:
        validation = _number_labels(name, _standard_columns(name, source.load(validation_name), *columns), labels)

    train_images = source.length(train_name) if streaming else len(train)
    if max_train_samples is not None and not (train_images and train_images <= max_train_samples):
        train = train.take(max_train_samples) if streaming else _choose(train, max_train_samples, split_seed)
        train_images = max_train_samples
    if max_eval_samples is not None:
        validation = _choose(validation, max_eval_samples, split_seed)
    for part in (validation,) if streaming else (train, validation):
        check_labels_in_range(name, part["label"], len(labels))
    return ImageData(name, train, validation, labels, train_images, source.revision)


class Source:
    """A data set that `datasets` can load, by split, whole or as a stream."""

    def __init__(self, builder: DatasetBuilder, loading: dict[str, Any]) -> None:
        self.builder, self.loading = builder, loading
        files = builder.config.data_files
        self.split_names = [str(split) for split in files or builder.info.splits or ()]
        commit = re.search("@([0-9a-f]{40})/", str(dict(files or {})))
        self.revision = commit.group(1) if commit else None

    @classmethod
    def find(cls, name: str, config: str | None, revision: str | None) -> "Source":
        """The data set at a path, or called so on the Hub."""
        path = Path(name)
        if path.is_dir() and any(path.rglob("*.parquet")):
            loading = {"path": "parquet", "data_dir": name}
        elif path.is_dir():
            if not any(child.is_dir() for child in path.iterdir()):
                raise ValueError(f"{path} has no folders: expected one folder of images for each class.")
            loading = {"path": "imagefolder", "data_dir": name}
            if not any(path.rglob("metadata.*")):  # which may hold the labels
                loading["drop_labels"] = False  # as it would those of a split with one class
        elif path.is_file():
            if path.suffix != ".parquet":
                raise ValueError(f"--dataset {name} is a file, expected a folder, a parquet file or a Hub dataset.")
            loading = {"path": "parquet", "data_files": {"train": name}}
        else:
            loading = {"path": name, "name": config, "revision": revision}
        try:
            return cls(load_dataset_builder(**loading), loading)
        except Exception as error:  # the Hub's client raises many kinds
            reason = first_line(error)
            where = "could not be read" if path.exists() else "is no folder here, and could not be loaded from the Hub"
            raise ValueError(f"--dataset {name} {where}: {reason}") from error

    def load(self, split: str) -> Dataset:
        """A split, and no file of another one."""
        files = self.builder.config.data_files
        if files is None:
            return load_dataset(**self.loading, split=split)
        settings = {name: value for name, value in self.loading.items() if name == "drop_labels"}
        return load_dataset(self.builder.name, data_files={split: list(files[split])}, split=split, **settings)

    def stream(self, split: str) -> IterableDataset:
        return load_dataset(**self.loading, split=split, streaming=True)

    def length(self, split: str) -> int | None:
        """How many images the split holds, if the source says so without being read."""
        info = (self.builder.info.splits or {}).get(split)
        return info.num_examples if info else None


class LoadedSource:
    """Splits in memory."""

    revision = None

    def __init__(self, splits: DatasetDict) -> None:
        self.splits, self.split_names = splits, list(splits)

    def load(self, split: str) -> Dataset:
        return self.splits[split]


def load_digits() -> LoadedSource:
    """scikit-learn's handwritten digits (UCI, 8x8 pixels of 17 grey levels) as 8-bit images."""
    from sklearn import datasets

    digits = datasets.load_digits()
    images = (digits.images * (255 / 16)).astype(np.uint8)
    return LoadedSource(DatasetDict(train=_grey_images(images, digits.target, [str(n) for n in digits.target_names])))


def load_fashion_mnist() -> LoadedSource:
    """Fashion-MNIST (Zalando, 28x28 grey pixels, 60000 for training and 10000 for testing), from Debian's package."""
    if not FASHION_MNIST.is_dir():
        raise ValueError(
            f"--dataset fashion-mnist: {FASHION_MNIST} is not there; install it: apt-get install dataset-fashion-mnist"
        )

    def read(file: str, header: int) -> np.ndarray:
        with gzip.open(FASHION_MNIST / file) as opened:
            return np.frombuffer(opened.read(), np.uint8, offset=header)

    splits = DatasetDict()
    for split, prefix in (("train", "train"), ("test", "t10k")):
        images = read(f"{prefix}-images-idx3-ubyte.gz", header=16).reshape(-1, 28, 28)
        splits[split] = _grey_images(images, read(f"{prefix}-labels-idx1-ubyte.gz", header=8), FASHION_MNIST_LABELS)
    return LoadedSource(splits)


BUILT_IN = {"digits": load_digits, "fashion-mnist": load_fashion_mnist}


def _grey_images(images: np.ndarray, labels: np.ndarray, names: list[str]) -> Dataset:
    """A data set of `(images, height, width)` bytes, kept as PGM files: those need no compression."""
    header = b"P5 %d %d 255\n" % images.shape[:0:-1]
    column = [{"bytes": header + image.tobytes(), "path": None} for image in images]
    features = Features({"image": Image(decode=False), "label": ClassLabel(names=names)})
    return Dataset.from_dict({"image": column, "label": labels.tolist()}, features)


def _pick_split(name: str, there: list[str], asked: str | None, option: str, usual: list[str]) -> str | None:
    if asked is not None and asked not in there:
        raise ValueError(f"--{option} {asked}: {name} has {', '.join(there)}.")
    return asked or next((split for split in usual if split in there), None)


def _standard_columns(name: str, data, image: str | None, label: str | None):
    """The image and the label column under these names, and no others."""
    features = data.features or {}
    image = image or next((column for column, kind in features.items() if isinstance(kind, Image)), None)
    label = label or next((column for column in LABEL_COLUMNS if column in features), None)
    for column, what in ((image, "image"), (label, "label")):
        if column not in features:
            missing = f"no {column!r}" if column else f"no {what}s"
            raise ValueError(
                f"{name} has columns {', '.join(features)} and {missing} among them: name it with --{what}_column."
            )
    data = data.select_columns([image, label])
    for column, standard in ((image, "image"), (label, "label")):
        data = data if column == standard else data.rename_column(column, standard)
    return data.cast_column("image", Image(decode=False))


def _with_class_labels(name: str, data: Dataset) -> tuple[Dataset, list[str]]:
    if not isinstance(data.features["label"], ClassLabel):
        data = data.class_encode_column("label")
    labels = data.features["label"].names
    if len(labels) < 2:
        raise ValueError(f"{name} has one class, {labels[0]!r}: expected at least two to tell apart.")
    return data, labels


def _number_labels(name: str, data: Dataset, labels: list[str]) -> Dataset:
    """Validation labels as positions in the training labels, by name: a split may lack a class, or order them anew."""
    column, kind = data["label"], data.features["label"]
    if isinstance(kind, ClassLabel):
        if kind.names == labels:
            return data
        column = [kind.names[label] if label is not None and label >= 0 else label for label in column]
    positions = {label: position for position, label in enumerate(labels)}
    unknown = next((label for label in column if str(label) not in positions), None)
    if unknown is not None:
        raise ValueError(f"{name} has label {unknown!r} for validation, which no training image has.")
    numbers = [positions[str(label)] for label in column]
    return data.remove_columns("label").add_column("label", numbers).cast_column("label", ClassLabel(names=labels))


def _stream_labels(name: str, stream: IterableDataset) -> list[str]:
    if not isinstance(stream.features["label"], ClassLabel):
        raise ValueError(
            f"--streaming: the labels of {name} are {stream.features['label']} without names of classes, which only"
            " reading all of it would tell: leave the flag out, or store the column as a ClassLabel."
        )
    return stream.features["label"].names


def _divide(name: str, train: Dataset, part: float, seed: int) -> DatasetDict:
    try:
        return train.train_test_split(part, seed=seed, stratify_by_column="label")
    except ValueError as error:
        raise ValueError(
            f"{name} has {len(train)} images, too few to hold out {part:g} of each class: add images, or choose another"
            " --train_val_split."
        ) from error


def _choose(data: Dataset, images: int, seed: int) -> Dataset:
    return data.shuffle(seed=seed).select(range(min(images, len(data))))


def check_labels_in_range(name: str, labels: list[int], num_labels: int) -> None:
    """Raise ValueError if a label is none of the classes."""
    wrong = sorted({label for label in labels if label is None or not 0 <= label < num_labels}, key=str)
    if wrong:
        raise ValueError(
            f"{name} has label {wrong[0]}, expected classes 0 to {num_labels - 1}: is it a set without labels?"
        )


def load_data(options: DataOptions, streaming: bool = False) -> ImageData:
    """Load the data that the options name; `streaming` is for training."""
    return load_image_data(
        options.dataset,
        options.train_val_split,
        options.split_seed,
        dataset_config=options.dataset_config,
        dataset_revision=options.dataset_revision,
        train_split=options.train_split,
        validation_split=options.validation_split,
        image_column=options.image_column,
        label_column=options.label_column,
        max_train_samples=options.max_train_samples,
        max_eval_samples=options.max_eval_samples,
        streaming=streaming,
    )
