"""Training and validation images as loading leaves them, and what is said of them."""

from collections.abc import Callable
from dataclasses import dataclass, field

from datasets import Dataset, IterableDataset

from .fingerprint import Fingerprint, digest, make_fingerprint
from .listing import LeftOut, count, describe_left_out
from .options import DataOptions
from .sources import Source
from .splits import choose_rows


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


def image_data(
    options: DataOptions,
    source: Source,
    splits: tuple[str, str | None],
    train: Dataset | IterableDataset,
    validation: Dataset,
    labels: list[str],
    left_out: list[LeftOut],
    read_as: str | None,
    class_counts: Callable[[Dataset], list[int] | None] = lambda data: None,
    no_class: int = 0,
) -> ImageData:
    """Return as many of the images as the options ask for, with the account of all of them.

    Args:
        options: how images are divided, and how many are used.
        source: where they are from.
        splits: the names of the training and the validation split, None where that is held out.
        train: all training images.
        validation: all validation images, `train` itself where images are both.
        labels: the names of the classes.
        left_out: images without a label, and the like.
        read_as: how targets are read that no count of classes tells of, which belongs to what identifies the data.
        class_counts: how many images each class has; None if only reading every file would tell.
        no_class: how many images there are of no class.
    """
    train_name, validation_name = splits
    names = [train_name] if validation_name is None else [train_name, validation_name]
    train_images = source.length(train_name) if isinstance(train, IterableDataset) else len(train)
    held_out = len(validation) if validation is not train else 0
    account = describe(source, names, len(labels), train_images, held_out, no_class, left_out)
    most = options.max_train_samples
    if most is not None and not (train_images and train_images <= most):
        is_stream = isinstance(train, IterableDataset)
        train = train.take(most) if is_stream else choose_rows(train, most, options.split_seed)
        train_images = most
    if options.max_eval_samples is not None:
        validation = choose_rows(validation, options.max_eval_samples, options.split_seed)
    counts = {
        "train": class_counts(train) if isinstance(train, Dataset) else None,
        "validation": class_counts(validation),
    }
    held_out_by = f"{options.train_val_split:g} held out by --split_seed {options.split_seed}"
    division = "a split of their own" if validation_name else held_out_by
    files = source.digest(names)
    files = files if read_as is None else digest([files, read_as, str(train_images)])
    fingerprint = make_fingerprint(labels, counts, files, division, options.problem_type)
    return ImageData(
        options.dataset, train, validation, labels, train_images, source.revision, account, fingerprint,
        options.problem_type, validation_name,
    )  # fmt: skip


def describe(
    source: Source,
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
