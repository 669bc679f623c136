"""Images with labels, of whatever the options name."""

from datasets import Dataset, IterableDataset

from .image_data import ImageData, image_data
from .labels import ONE_LABEL, count_classes, count_without_class, label_numbers, number_labels, stream_labels
from .listing import LeftOut
from .options import DataOptions
from .sources import LABELINGS, BuiltIn, find_source
from .splits import pick_splits, without_missing


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
    splits = pick_splits(options, source.split_names, hold_out)
    train_name, validation_name = splits
    if streaming and validation_name is None:
        raise ValueError(f"--streaming: {name} has no validation split, and a stream cannot be divided into two.")

    left_out: list[LeftOut] = []

    def load(split: str, labels: list[str] | None = None) -> tuple[Dataset, list[str]]:
        data = source.load(split)
        data = without_missing(name, data, options.skip_unreadable, left_out, labeling.empty_is_missing)
        return number_labels(name, data, labeling, labels)

    if streaming:
        train = source.stream(train_name)
        labels = stream_labels(name, train)
    else:
        train, labels = load(train_name)
    if len(labels) < min_labels:
        raise ValueError(f"{name} has one class, {labels[0]!r}: expected at least two to tell apart.")
    if validation_name is not None:
        validation, _ = load(validation_name, labels)
    else:
        assert isinstance(train, Dataset)  # a stream was refused
        validation = train
        if hold_out:
            rows = labeling.hold_out(name, train, labels, options.train_val_split, options.split_seed)
            train, validation = (train.select(part) for part in rows)
    parts: list[Dataset | IterableDataset] = [train] if validation is train else [train, validation]
    return image_data(
        options, source, splits, train, validation, labels, left_out, None,
        lambda data: count_classes(label_numbers(data), len(labels)), sum(map(count_without_class, parts)),
    )  # fmt: skip
