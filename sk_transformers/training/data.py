"""Images and labels: where they come from, and how they become batches."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, load_dataset
from PIL import Image as PILImage
from PIL import UnidentifiedImageError
from torchvision.transforms import v2
from transformers.image_processing_utils import BaseImageProcessor

VALIDATION_SPLITS = ("validation", "valid", "val", "test")


class DataError(ValueError):
    """An image or a label that is broken."""


@dataclass
class ImageData:
    """Training and validation images with columns `image`, not decoded, and `label`; and the names of the classes."""

    name: str
    train: Dataset
    validation: Dataset
    labels: list[str]

    @property
    def id2label(self) -> dict[int, str]:
        return dict(enumerate(self.labels))

    def split(self, name: str) -> Dataset:
        """The images called `"train"` or `"validation"`."""
        return {"train": self.train, "validation": self.validation}[name]


def load_image_data(name: str, train_val_split: float = 0.2, split_seed: int = 0) -> ImageData:
    """Load a data set by name.

    Args:
        name: `"digits"` (scikit-learn's, 1797 images of 8x8), a folder with one folder of images a class, or in it
            `train` and `validation`, or a Hub dataset with an image and a label column.
        train_val_split: part of the training images held out, each class in proportion, when there is no validation
            split.
        split_seed: what that split depends on.

    Raises:
        ValueError: if there is no such data, or it has no labels, or labels outside their range.
    """
    splits = load_digits() if name == "digits" else _load_splits(name)
    train = splits["train"] if "train" in splits else next(iter(splits.values()))
    train, labels = _with_class_labels(name, _standard_columns(name, train))
    held_out = next((splits[split] for split in VALIDATION_SPLITS if split in splits), None)
    if held_out is None:
        parts = train.train_test_split(train_val_split, seed=split_seed, stratify_by_column="label")
        train, held_out = parts["train"], parts["test"]
    else:
        held_out = _standard_columns(name, held_out).cast_column("label", ClassLabel(names=labels))
    for part in (train, held_out):
        check_labels_in_range(name, part["label"], len(labels))
    raw = Image(decode=False)
    return ImageData(name, train.cast_column("image", raw), held_out.cast_column("image", raw), labels)


def load_digits() -> DatasetDict:
    """scikit-learn's handwritten digits (UCI, 8x8 pixels of 17 grey levels) as 8-bit images."""
    from sklearn import datasets

    digits = datasets.load_digits()
    images = [PILImage.fromarray((image * (255 / 16)).astype("uint8")) for image in digits.images]
    features = Features({"image": Image(), "label": ClassLabel(names=[str(n) for n in digits.target_names])})
    return DatasetDict(train=Dataset.from_dict({"image": images, "label": digits.target.tolist()}, features))


def _load_splits(name: str) -> DatasetDict:
    folder = Path(name)
    if folder.is_dir():
        if not any(child.is_dir() for child in folder.iterdir()):
            raise ValueError(f"{folder} has no folders: expected one folder of images for each class.")
        return load_dataset("imagefolder", data_dir=str(folder))
    try:
        return load_dataset(name)
    except Exception as error:  # the Hub's client raises many kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"--dataset {name} is no folder here, and could not be loaded from the Hub: {reason}"
        ) from error


def _standard_columns(name: str, data: Dataset) -> Dataset:
    """The image and the label column under these names, and no others."""
    image = next((column for column, kind in data.features.items() if isinstance(kind, Image)), None)
    label = next((column for column in ("label", "labels", "fine_label", "target") if column in data.features), None)
    if image is None or label is None:
        missing = "image" if image is None else "label"
        raise ValueError(f"{name} has columns {', '.join(data.column_names)} and no {missing}s among them.")
    data = data.select_columns([image, label])
    for column, standard in ((image, "image"), (label, "label")):
        data = data if column == standard else data.rename_column(column, standard)
    return data


def _with_class_labels(name: str, data: Dataset) -> tuple[Dataset, list[str]]:
    if not isinstance(data.features["label"], ClassLabel):
        data = data.class_encode_column("label")
    labels = data.features["label"].names
    if len(labels) < 2:
        raise ValueError(f"{name} has one class, {labels[0]!r}: expected at least two to tell apart.")
    return data, labels


def check_labels_in_range(name: str, labels: list[int], num_labels: int) -> None:
    """Raise ValueError if a label is none of the classes."""
    wrong = sorted({label for label in labels if label is None or not 0 <= label < num_labels}, key=str)
    if wrong:
        raise ValueError(
            f"{name} has label {wrong[0]}, expected classes 0 to {num_labels - 1}: is it a set without labels?"
        )


# Batches


def decode(image: dict) -> PILImage.Image:
    """An RGB image from the `path` or the `bytes` that a data set holds; DataError names the file if it is broken."""
    try:
        with PILImage.open(io.BytesIO(image["bytes"]) if image["bytes"] else image["path"]) as opened:
            return opened.convert("RGB")
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise DataError(f"{image['path'] or 'an image'} is broken ({error}): mend or remove it.") from error


def train_transform(
    processor: BaseImageProcessor, crop_scale: list[float], hflip: float, rotation: float
) -> Callable[[PILImage.Image], torch.Tensor]:
    """Random rotation, crop and flip, then the processor's own scaling of values; `(channels, height, width)`."""
    height, width = image_size(processor)
    return v2.Compose(
        [
            v2.RandomRotation(rotation, interpolation=v2.InterpolationMode.BILINEAR),
            v2.RandomResizedCrop((height, width), scale=tuple(crop_scale), interpolation=v2.InterpolationMode.BICUBIC),
            v2.RandomHorizontalFlip(hflip),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(processor.image_mean, processor.image_std),
        ]
    )


def eval_transform(processor: BaseImageProcessor) -> Callable[[PILImage.Image], torch.Tensor]:
    """Exactly what the saved image processor does; `(channels, height, width)`."""
    return lambda image: processor(image, return_tensors="pt").pixel_values[0]


def image_size(processor: BaseImageProcessor) -> tuple[int, int]:
    """`(height, width)` of what the processor makes."""
    size = processor.size
    if "shortest_edge" in size:
        return size["shortest_edge"], size["shortest_edge"]
    return size["height"], size["width"]


def collate(examples: list[dict], transform: Callable[[PILImage.Image], torch.Tensor]) -> dict[str, torch.Tensor]:
    """`pixel_values`, `(batch, channels, height, width)`, and `labels`, `(batch,)`."""
    return {
        "pixel_values": torch.stack([transform(decode(example["image"])) for example in examples]),
        "labels": torch.tensor([example["label"] for example in examples]),
    }


def data_loader(
    data: Dataset, transform, batch_size: int, shuffle: bool, num_workers: int
) -> torch.utils.data.DataLoader:
    """Batches of `collate`, in random order if `shuffle`."""
    return torch.utils.data.DataLoader(
        data,
        batch_size=batch_size,
        shuffle=shuffle,
        num_workers=num_workers,
        collate_fn=partial(collate, transform=transform),
        persistent_workers=num_workers > 0,
    )
