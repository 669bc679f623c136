"""Images whose labels do not matter, or that have none: of any folder, parquet files, the Hub, or already in memory."""

import io
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as PILImage

from .builtin import BUILT_IN
from .fingerprint import digest, make_fingerprint
from .image_data import ImageData
from .listing import Folder, check_faults, count, describe_left_out, list_folder
from .options import DataOptions
from .parquet import find_parquet_splits
from .sources import BuiltIn, Data, LibraryDataset
from .splits import pick_split

NO_LABEL = ""  # the one class of images without labels
FEATURES = Features({"image": Image(decode=False), "label": ClassLabel(names=[NO_LABEL])})


def load_unlabeled(options: DataOptions) -> ImageData:
    """Return the images that the options name, whatever folders they lie in; all have the label `NO_LABEL`.

    Those of a validation split are `validation`; without one, all images are both `train` and `validation`.

    Raises:
        ValueError: if there is no such data, or files in it are no images.
    """
    path = Path(options.dataset)
    tree = list_folder(path) if path.is_dir() else None
    parquet = find_parquet_splits(tree) if tree else {}
    if options.dataset in BUILT_IN:
        source = BuiltIn(options.dataset)
    elif tree and not parquet:
        return from_folder(tree, options)
    elif path.suffix.lower() == ".parquet" and path.is_file():
        source = UnlabeledDataset(options, "parquet", {"train": [options.dataset]})
    else:
        source = UnlabeledDataset(options, "parquet" if parquet else options.dataset, parquet or None)
    names = source.split_names
    train = pick_split(source.name, names, options.train_split, "--train_split", ["train"]) or names[0]
    asked, others = options.validation_split, [name for name in names if name != train]
    candidates = names if asked else others
    validation = pick_split(source.name, candidates, asked, "--validation_split", ["validation", "test"])
    splits = [train] if validation is None else [train, validation]
    data = [without_labels(source.load(split)) for split in splits]
    parts = ", ".join(f"{split} {len(images)}" for split, images in zip(splits, data))
    account = f"{source.name}: {parts} images, without labels."
    return unlabeled_data(source.name, data[0], data[-1], account, source.digest(splits), source.revision)


class UnlabeledDataset(LibraryDataset):
    """What `datasets` loads, the image column alone."""

    def _standard_columns(self, data: Data) -> Data:
        features = data.features or {}
        column = self.options.image_column or next(
            (name for name, kind in features.items() if isinstance(kind, Image)), ""
        )
        if column not in features:
            missing = f"no {column!r}" if column else "no images"
            raise ValueError(
                f"{self.name} has columns {', '.join(features)} and {missing} among them: name it with --image_column."
            )
        data = data.select_columns([column])
        data = data if column == "image" else data.rename_column(column, "image")
        return data.cast_column("image", Image(decode=False))


def without_labels(data: Dataset) -> Dataset:
    """Return the images that are there, each with the label `NO_LABEL`."""
    images = data.select_columns(["image"])
    return images.add_column("label", [0] * len(images)).cast(FEATURES)


def from_folder(tree: Folder, options: DataOptions) -> ImageData:
    """Return all images below a folder."""
    images, left_out = tree.all_images(), tree.all_other_files()
    if not options.skip_unreadable:
        check_faults(options.dataset, left_out)
    if not images:
        raise ValueError(f"{options.dataset} holds no images.")
    paths = pa.array([image.path for image in images], pa.string())
    column = pa.StructArray.from_arrays([pa.nulls(len(paths), pa.binary()), paths], ["bytes", "path"])
    labels = pa.array([0] * len(paths), pa.int64())
    data = Dataset(pa.table({"image": column, "label": labels}).cast(FEATURES.arrow_schema))
    account = f"{options.dataset}: {count(len(images), 'image')}, without labels."
    if left_out:
        account += f" Left out: {describe_left_out(left_out)}."
    return unlabeled_data(options.dataset, data, data, account, digest(f"{i.name}\t{i.size}" for i in images))


def from_memory(images: Sequence[PILImage.Image], name: str = "images in memory") -> ImageData:
    """Return images that a program has, kept as PNG."""
    contents = []
    for image in images:
        file = io.BytesIO()
        image.convert("RGB").save(file, "PNG")
        contents.append(file.getvalue())
    rows = [{"bytes": content, "path": None} for content in contents]
    data = Dataset.from_dict({"image": rows, "label": [0] * len(rows)}, FEATURES)
    account = f"{count(len(images), 'image')} in memory, without labels."
    return unlabeled_data(name, data, data, account, digest(content.hex() for content in contents))


def unlabeled_data(
    name: str, train: Dataset, validation: Dataset, account: str, files: str, revision: str | None = None
) -> ImageData:
    counts: dict[str, list[int] | None] = {"train": [len(train)], "validation": [len(validation)]}
    fingerprint = make_fingerprint([NO_LABEL], counts, files, None)
    return ImageData(name, train, validation, [NO_LABEL], len(train), revision, account, fingerprint)
