"""Labels as numbers of classes: what cells stand for, and how images are held out by class."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Dataset, IterableDataset
from datasets.utils.stratify import stratified_shuffle_split_generate_indices

from .listing import count, name_labels

Rows = np.ndarray  # positions of images
HOLD_OUT_ADVICE = "add images, choose another --train_val_split, or give a validation split"


@dataclass(frozen=True)
class Labeling:
    """What a column says of each image: one class (`ONE_LABEL`), or several (`multi_label.SEVERAL_LABELS`).

    Args:
        read: what cells stand for: a name or a list of names for each image, None where that is missing. The first
            argument is where the cells are, for messages.
        empty_is_missing: whether an empty text is a missing label, rather than an image of no class.
        names: every name in what was read.
        encode: what was read, with numbers in the place of names.
        feature: the type of a column of such numbers, from the names of the classes.
        hold_out: the rows to train on and to hold out, from the data, its name and classes, a fraction and a seed.
    """

    read: Callable[[str, list[Any]], list[Any]]
    empty_is_missing: bool
    names: Callable[[list[Any]], Iterable[str]]
    encode: Callable[[list[Any], dict[str, int]], list[Any]]
    feature: Callable[[list[str]], Any]
    hold_out: Callable[[str, Dataset, list[str], float, int], tuple[Rows, Rows]]


def as_text(cell: Any) -> Any:
    """Return a cell as text; a whole number that missing cells turned into a float is whole again."""
    if isinstance(cell, list):
        return [as_text(part) for part in cell]
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return None if cell is None or cell != cell else str(cell)


# One class for each image


def read_one_label(where: str, cells: list[Any]) -> list[str | None]:
    """Return the label of each image; a list of one is that one.

    Raises:
        ValueError: if an image has several.
    """
    several = next((cell for cell in cells if isinstance(cell, list) and len(cell) > 1), None)
    if several is not None:
        raise ValueError(
            f"{where} has several labels an image, such as {several}: expected one class for each image; choose"
            " another --label_column, or pass --problem_type multi_label."
        )
    labels = ((cell[0] if cell else None) if isinstance(cell, list) else cell for cell in cells)
    return [label or None for label in labels]


def hold_out_by_class(name: str, data: Dataset, labels: list[str], part: float, seed: int) -> tuple[Rows, Rows]:
    """Return the rows to train on and to hold out, a fraction of each class."""
    numbers = label_numbers(data)
    counts = count_classes(numbers, len(labels))
    small = [label for label, images in zip(labels, counts) if images == 1]
    if small:
        raise ValueError(
            f"{name} has one image of class {name_labels(small)}, which cannot be both trained on and"
            f" held out: {HOLD_OUT_ADVICE}."
        )
    present = sum(images > 0 for images in counts)
    held_out = math.ceil(len(data) * part)
    if not present <= held_out <= len(data) - present:
        raise ValueError(
            f"{name} has {len(data)} images of {present} classes, and holding out {part:g} of them leaves some class"
            f" without images: {HOLD_OUT_ADVICE}."
        )
    # The division of `Dataset.train_test_split`, which reads a label at a time: a minute for 100,000 images.
    rng, kept = np.random.default_rng(seed), math.floor(len(data) * (1 - part))
    return next(iter(stratified_shuffle_split_generate_indices(numbers, kept, held_out, rng=rng)))


ONE_LABEL = Labeling(
    read=read_one_label,
    empty_is_missing=True,
    names=iter,
    encode=lambda labels, numbers: [numbers[label] for label in labels],
    feature=lambda labels: ClassLabel(names=labels),
    hold_out=hold_out_by_class,
)


# Columns


def number_labels(
    name: str, data: Dataset, labeling: Labeling, labels: list[str] | None = None
) -> tuple[Dataset, list[str]]:
    """Return the data with labels that are numbers of classes, and the names of these.

    Args:
        name: of the data, for messages.
        data: with a column `label` of numbers, of names or of lists of these, none of them missing.
        labeling: one label an image, or several.
        labels: the classes of the training images; a split may lack some, or order them anew. None to find them.
    """
    kind = data.features["label"]
    known = class_names_of(kind)
    if known is not None:
        check_labels_in_range(name, label_numbers(data), known)
        if kind == labeling.feature(known) and labels in (None, known):
            return data, known
        if isinstance(kind, ClassLabel) and labeling is not ONE_LABEL:
            raise ValueError(f"--problem_type multi_label: {name} has one class for each image: leave the option out.")
    read = labeling.read(name, _cells(data))
    found = sorted(set(labeling.names(read)))
    unknown = [] if labels is None else sorted(set(found) - set(labels))
    if unknown:
        raise ValueError(f"{name} has label {unknown[0]!r} for validation, which no training image has.")
    labels = found if labels is None else labels
    if not labels:
        raise ValueError(f"{name} has no image with a label.")
    column = labeling.encode(read, {label: number for number, label in enumerate(labels)})
    numbered = data.remove_columns("label").add_column("label", column, feature=labeling.feature(labels))
    return numbered, labels


def class_names_of(kind: Any) -> list[str] | None:
    """Return the names that the numbers of a column stand for, or those in its lists; None if it says none."""
    inner = getattr(kind, "feature", kind)
    return inner.names if isinstance(inner, ClassLabel) else None


def _cells(data: Dataset) -> list[Any]:
    """Return labels as text, or lists of it."""
    cells, names = data["label"][:], class_names_of(data.features["label"])
    if names is None:
        return [as_text(cell) for cell in cells]
    return [[names[number] for number in cell] if isinstance(cell, list) else names[cell] for cell in cells]


def stream_labels(name: str, stream: IterableDataset) -> list[str]:
    """Return the classes of a stream; ValueError if only reading all of it would tell them."""
    kind = (stream.features or {})["label"]
    if not isinstance(kind, ClassLabel):
        raise ValueError(
            f"--streaming: the labels of {name} are {kind} without names of classes, which only"
            " reading all of it would tell: leave the flag out, or store the column as a ClassLabel."
        )
    return kind.names


def check_labels_in_range(name: str, numbers: Iterable[int], labels: list[str]) -> None:
    """Raise ValueError if a label is none of the classes."""
    wrong = [number for number in numbers if not 0 <= number < len(labels)]
    if wrong:
        means = ", which stands for an image without a label" if wrong[0] == -1 else ""
        raise ValueError(
            f"{name} has {count(len(wrong), 'image')} with label {wrong[0]}{means}: expected 0 ({labels[0]}) to"
            f" {len(labels) - 1} ({labels[-1]})."
        )


def label_numbers(data: Dataset) -> np.ndarray:
    """Return the numbers in the label column, `(labels,)`, those of lists one after the other."""
    column = _label_column(data)
    return (column.flatten() if _has_lists(column) else column).to_numpy(zero_copy_only=False)


def count_classes(numbers: Iterable[int], classes: int) -> list[int]:
    """Return how many images each class has."""
    return np.bincount(np.asarray(numbers, dtype=np.int64), minlength=classes).tolist()


def count_without_class(data: Dataset | IterableDataset) -> int:
    """Return how many images have an empty list of labels; a stream has no lists."""
    if isinstance(data, IterableDataset):
        return 0
    column = _label_column(data)
    return int((column.value_lengths().to_numpy() == 0).sum()) if _has_lists(column) else 0


def _label_column(data: Dataset) -> Any:
    table: Any = data.select_columns("label").with_format("arrow")[:]
    return table["label"].combine_chunks()


def _has_lists(column: pa.Array) -> bool:
    kind = column.type
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
