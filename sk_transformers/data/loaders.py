"""Images read and put into batches, in an order that depends on the seed and the epoch alone."""

import io
import itertools
import logging
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NamedTuple

import torch
from datasets import Dataset, IterableDataset
from datasets.distributed import split_dataset_by_node
from PIL import Image as PILImage
from torch import nn
from torch.utils.data import DataLoader, get_worker_info
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from ..errors import first_line
from .balance import balanced_weights
from .decoding import UnreadableImage, decode
from .image_data import ImageData
from .seeds import EPOCH, STREAM, seed_of, seed_sample
from .transforms import Transform

UNREADABLE = -100  # the label of a blank image in the place of one that could not be read

logger = logging.getLogger(__name__)


class DataError(ValueError):
    """An unreadable image, or a label outside the classes."""


class Draw(NamedTuple):
    """An image of the data set, and the seed of its augmentation."""

    row_index: int
    seed: int


def read_image(stored: dict[str, Any] | None) -> PILImage.Image:
    """Return the decoded image of the `path` or `bytes` that a data set holds; DataError names an unreadable one."""
    stored = stored or {}
    path, content = stored.get("path"), stored.get("bytes")
    if path is None and content is None:
        raise DataError("an image is missing: remove its row, or pass --on_bad_image skip.")
    try:
        with io.BytesIO(content) if content is not None else open(str(path), "rb") as file:
            return decode(file)
    except (UnreadableImage, OSError) as error:
        name, reason = path or "an image", first_line(error)
        raise DataError(f"{name} is unreadable ({reason}): mend or remove it, or pass --on_bad_image skip.") from error


def read_or_skip(stored: dict[str, Any] | None, skip: bool) -> PILImage.Image | None:
    """Return the decoded image; where `skip` is set, None in place of an unreadable one, with a warning."""
    try:
        return read_image(stored)
    except DataError as error:
        if not skip:
            raise
        logger.warning("skipped: %s", error)
        return None


class LabeledImages(torch.utils.data.Dataset):
    """Images and their targets, as a network is to see them; `skip` leaves out what cannot be read."""

    def __init__(self, data: Dataset, transform: Callable[..., Any], skip: bool = False) -> None:
        self.data, self.transform, self.skip = data, transform, skip
        self.classes = classes_of_lists(data)

    def read(self, row: dict[str, Any]) -> tuple[PILImage.Image, torch.Tensor] | None:
        """Return an image and its target; where `skip` is set, None if it cannot be read."""
        image = read_or_skip(row["image"], self.skip)
        return None if image is None else (image, to_target(row["label"], self.classes))


class TrainImages(LabeledImages):
    """Augmented images by `Draw`. Where `skip` is set, the next readable image stands in for an unreadable one."""

    def __getitems__(self, draws: list[Draw]) -> list[dict[str, Any]]:
        rows = self.data[[draw.row_index for draw in draws]]
        return [
            self._example(draw, {"image": image, "label": label})
            for draw, image, label in zip(draws, rows["image"], rows["label"])
        ]

    def augment(self, image: PILImage.Image, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return an image as `(channels, height, width)`, changed at random, and its target."""
        return self.transform(image), target

    def _example(self, draw: Draw, row: dict[str, Any]) -> dict[str, Any]:
        for unreadable in range(len(self.data)):
            found = self.read(row)
            if found is not None:
                seed_sample(draw.seed)
                pixel_values, target = self.augment(*found)
                return {"pixel_values": pixel_values, "label": target, "unreadable": unreadable}
            row = self.data[(draw.row_index + unreadable + 1) % len(self.data)]
        raise DataError("not one training image can be read.")


class EvalImages(LabeledImages):
    """Images as the image processor makes them; with `skip`, an unreadable one is blank and its label `UNREADABLE`."""

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        found = self.read(self.data[index])
        image, target = self.blank() if found is None else found
        return {"pixel_values": self.transform(image), "label": target}

    def blank(self) -> tuple[PILImage.Image, torch.Tensor]:
        """Return what stands for an image that cannot be read."""
        return PILImage.new("RGB", (32, 32)), to_target(UNREADABLE, self.classes)


def classes_of_lists(data: Dataset) -> int | None:
    """Return how many classes the lists in the label column are of; None if a label is a number."""
    kind: Any = data.features["label"]
    return len(kind.feature.names) if hasattr(kind, "feature") else None


def to_target(label: Any, classes: int | None) -> torch.Tensor:
    """Return a label as what a network is to say: its number, or of a list `(classes,)` ones and zeros.

    `UNREADABLE` stays what it is, as often as there are classes.
    """
    if classes is None:
        return torch.tensor(label)
    if label == UNREADABLE:
        return torch.full((classes,), float(UNREADABLE))
    target = torch.zeros(classes)
    target[label] = 1
    return target


def is_readable(targets: torch.Tensor) -> torch.Tensor:
    """Return of targets `(images,)` or `(images, classes)` which `(images,)` are of images that could be read."""
    return (targets != UNREADABLE).reshape(len(targets), -1).all(dim=1)


class EpochBatches(torch.utils.data.Sampler):
    """Lists of `Draw`, this process's share of an epoch's whole batches from `first_batch` on.

    All processes share one order: of every `batch_size * num_processes` draws, each takes its `batch_size` in turn. So
    the steps are those of one process with the whole batch. What is left of the images after the last whole step
    waits for another epoch; fewer images than one step are drawn more than once. With `weights` of the images
    `(num_images,)`, each draw is any of them, as often as its weight says.
    """

    def __init__(
        self,
        num_images: int,
        batch_size: int,
        num_batches: int,
        seed: int,
        repeats: int = 1,
        rank: int = 0,
        num_processes: int = 1,
        weights: torch.Tensor | None = None,
    ) -> None:
        self.weights = weights
        self.num_images, self.batch_size, self.num_batches = num_images, batch_size, num_batches
        self.seed, self.repeats, self.rank, self.num_processes = seed, repeats, rank, num_processes
        self.epoch = self.first_batch = 0

    def set_epoch(self, epoch: int, first_batch: int) -> None:
        """Choose what the next pass yields, as samplers of torch do."""
        self.epoch, self.first_batch = epoch, first_batch

    def __iter__(self) -> Iterator[list[Draw]]:
        draws = self._draws(self.num_batches * self.batch_size * self.num_processes)
        for batch in range(self.first_batch, self.num_batches):
            first = (batch * self.num_processes + self.rank) * self.batch_size
            yield draws[first : first + self.batch_size]

    def _draws(self, count: int) -> list[Draw]:
        """Return `count` images in random order, each `repeats` times in a row (arXiv 1901.09335)."""
        generator = torch.Generator().manual_seed(seed_of(EPOCH, self.seed, self.epoch))
        order: list[int] = []
        while len(order) < count:
            if self.weights is None:
                images = torch.randperm(self.num_images, generator=generator)
            else:
                images = torch.multinomial(self.weights, self.num_images, replacement=True, generator=generator)
            order += images.repeat_interleave(self.repeats).tolist()
        seeds = torch.randint(2**63 - 1, (count,), generator=generator).tolist()
        return [Draw(index, seed) for index, seed in zip(order, seeds)]


class StreamedImages(torch.utils.data.IterableDataset):
    """Augmented images of a stream, from `first_batch` of the epoch on, without an end: it starts over, shuffled anew.

    A stream cannot jump: what a resumed run had already is read again, and comes as None.
    """

    def __init__(
        self,
        stream: IterableDataset,
        transform: Transform,
        batch_size: int,
        num_labels: int,
        seed: int,
        shuffle_buffer: int,
        skip: bool,
    ) -> None:
        self.stream, self.transform, self.batch_size = stream, transform, batch_size
        self.num_labels, self.seed, self.shuffle_buffer, self.skip = num_labels, seed, shuffle_buffer, skip
        self.epoch = self.first_batch = 0

    def set_epoch(self, epoch: int, first_batch: int) -> None:
        """Choose what the next pass yields, as samplers of torch do."""
        self.epoch, self.first_batch = epoch, first_batch

    def __iter__(self) -> Iterator[dict[str, Any] | None]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        # Workers deliver batches in turn; this one had its share of those before the first.
        had = len(range(worker, self.first_batch, workers)) * self.batch_size
        position = unreadable = 0
        for row in self._rows():
            image = None
            if position >= had or self.skip:  # an unreadable image has no position, so all have to be tried
                image = self._read(row)
                if image is None:
                    unreadable += 1
                    continue
            if position < had or image is None:
                yield None
            else:
                seed_sample(seed_of(STREAM, self.seed, self.epoch, worker, position))
                yield {"pixel_values": self.transform(image), "label": self._label(row), "unreadable": unreadable}
            position += 1
            unreadable = 0

    def _rows(self) -> Iterator[dict[str, Any]]:
        """Yield rows of one pass after the other."""
        for repetition in itertools.count():
            # Not `set_epoch`: a stream's epoch lies in memory that all workers share, and each is in a pass of its own.
            order = seed_of(STREAM, self.seed, self.epoch, repetition)
            is_empty = True
            for row in self.stream.shuffle(seed=order, buffer_size=self.shuffle_buffer):
                is_empty = False
                yield row
            if is_empty:
                raise DataError("the stream holds no image for one of the processes that read it.")

    def _read(self, row: dict[str, Any]) -> PILImage.Image | None:
        """Return the image of a row; where `skip` is set, None if image or label is missing, or it is unreadable."""
        if row["label"] is not None:
            return read_or_skip(row["image"], self.skip)
        if not self.skip:
            raise DataError("an image of the stream has no label: remove its row, or pass --on_bad_image skip.")
        logger.warning("skipped: an image of the stream has no label.")
        return None

    def _label(self, row: dict[str, Any]) -> int:
        if not 0 <= row["label"] < self.num_labels:
            raise DataError(f"the stream has label {row['label']}, expected classes 0 to {self.num_labels - 1}.")
        return row["label"]


# Loaders


class TrainLoader:
    """This process's training batches of any epoch, from any step of it on, on any device."""

    def __init__(
        self,
        data: ImageData,
        transform: Callable[..., Any],
        batch_size: int,
        num_batches: int,
        seed: int,
        *,
        rank: int = 0,
        num_processes: int = 1,
        repeats: int = 1,
        balanced: bool = False,
        shuffle_buffer: int = 10000,
        skip_unreadable: bool = False,
        num_workers: int = 0,
        pin_memory: bool = False,
        images: Callable[[Dataset, Any, bool], TrainImages] = TrainImages,
    ) -> None:
        self.num_batches = num_batches
        self.running: Iterator[Any] | None = None
        workers: dict[str, Any] = {"num_workers": num_workers, "pin_memory": pin_memory, "collate_fn": collate}
        if isinstance(data.train, IterableDataset):
            stream = split_dataset_by_node(data.train, rank, num_processes)
            shards = stream.shuffle(buffer_size=shuffle_buffer).num_shards  # datasets 5.0 shuffles many into one
            workers["num_workers"] = min(num_workers, shards)  # the others would have nothing to read
            self.order = StreamedImages(
                stream, transform, batch_size, len(data.labels), seed, shuffle_buffer, skip_unreadable
            )
            self.loader = DataLoader(self.order, batch_size, worker_init_fn=leave_signals, **workers)
        else:
            weights = balanced_weights(data.class_counts or [])[data.train["label"][:]] if balanced else None
            self.order = EpochBatches(
                len(data.train), batch_size, num_batches, seed, repeats, rank, num_processes, weights
            )
            self.loader = DataLoader(
                images(data.train, transform, skip_unreadable),
                batch_sampler=self.order,
                worker_init_fn=leave_signals,
                persistent_workers=num_workers > 0,
                **workers,
            )

    def batches(self, epoch: int, first_batch: int = 0) -> Iterator[dict[str, torch.Tensor]]:
        """Return the batches of an epoch: `pixel_values`, `labels`, and how many images were skipped, `unreadable`."""
        self.order.set_epoch(epoch, first_batch)
        self.running = iter(self.loader)
        wanted = (batch for batch in self.running if batch is not None)
        return itertools.islice(wanted, self.num_batches - first_batch)

    def close(self) -> None:
        """End the processes that load images; `batches` starts them again."""
        end_workers(self.running)
        self.running = self.loader._iterator = None


def eval_loader(
    data: Dataset,
    transform: Transform,
    batch_size: int,
    num_workers: int = 0,
    skip_unreadable: bool = False,
    images: Callable[[Dataset, Transform, bool], EvalImages] = EvalImages,
    keep_workers: bool = False,
) -> DataLoader:
    """Return batches of `pixel_values` and `labels` in the order of the data.

    With `keep_workers` the processes that load images wait for the next pass, and live through a first SIGTERM, as
    training asks: `close_loader` ends them.
    """
    return DataLoader(
        images(data, transform, skip_unreadable),
        batch_size,
        num_workers=num_workers,
        collate_fn=collate,
        worker_init_fn=leave_signals if keep_workers else leave_interrupts,
        persistent_workers=keep_workers and num_workers > 0,
    )


def close_loader(loader: DataLoader) -> None:
    """End the processes that load images for a loader, or for accelerate's wrapper of one; a pass starts them again."""
    loader = getattr(loader, "base_dataloader", loader)
    end_workers(loader._iterator)
    loader._iterator = None


def end_workers(batches: Iterator[Any] | None) -> None:
    """End the processes behind a loader's iterator, which torch leaves to the collection of garbage.

    That may be never: the traceback of an error holds the iterator, and what is forked later holds its pipes.
    """
    if isinstance(batches, _MultiProcessingDataLoaderIter):
        batches._shutdown_workers()


def collate(examples: list[dict[str, Any] | None]) -> dict[str, Any] | None:
    """Return `pixel_values` `(batch, channels, height, width)`, `labels` `(batch,)` or, of several labels an image,
    `(batch, classes)`, or of masks `(batch, height, width)`, or of objects a list; for these `pixel_mask`
    `(batch, height, width)`, if images come with it; and how many were `unreadable`.
    """
    images = [example for example in examples if example is not None]
    if not images:
        return None
    batch: dict[str, Any] = {
        "pixel_values": stack_filled([image["pixel_values"] for image in images]),
        "unreadable": torch.tensor(sum(image.get("unreadable", 0) for image in images)),
    }
    if "pixel_mask" in images[0]:
        batch["pixel_mask"] = stack_filled([image["pixel_mask"] for image in images])
    labels = [image["label"] for image in images]
    is_objects = isinstance(labels[0], dict)
    batch["labels"] = labels if is_objects else stack_labels([torch.as_tensor(label) for label in labels])
    return batch


def stack_filled(maps: list[torch.Tensor]) -> torch.Tensor:
    """Return maps `(..., height, width)` as one tensor, filled up with zeros at the right and at the bottom."""
    height, width = (max(one.shape[side] for one in maps) for side in (-2, -1))
    sides = [(0, width - one.shape[-1], 0, height - one.shape[-2]) for one in maps]
    return torch.stack([nn.functional.pad(one, side) if any(side) else one for one, side in zip(maps, sides)])


def stack_labels(labels: list[torch.Tensor]) -> torch.Tensor:
    """Return labels as one tensor; masks of several sizes get `UNREADABLE` at the right and at the bottom."""
    if labels[0].ndim == 2:
        height, width = (max(label.shape[side] for label in labels) for side in (0, 1))
        sides = [(0, width - label.shape[1], 0, height - label.shape[0]) for label in labels]
        labels = [nn.functional.pad(label, side, value=UNREADABLE) for label, side in zip(labels, sides)]
    return torch.stack(labels)


def leave_interrupts(worker: int) -> None:
    """Let the main process alone decide what happens on Ctrl-C, which the terminal sends to all."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def leave_signals(worker: int) -> None:
    """Let the main process alone decide what happens on Ctrl-C and SIGTERM; it has to end this one itself."""
    leave_interrupts(worker)
    signal.signal(signal.SIGTERM, leave_the_first)


def leave_the_first(number: int, frame: FrameType | None) -> None:
    """Schedulers signal every process of a run, and the main one needs its loaders still."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
