"""How fast training images are loaded: our loader beside timm's and torchvision's, without a network.

All read the same image files in one process that gives them turns, with the random crop (bicubic), flip and RandAugment
of ImageNet recipes. Time is that of the CPU, of the process that loads alone: in turns in one thread it is what an
image costs, whatever else the machine does. Where a process of its own loads, the images' way to the one that trains
is in it, and what the latter spends on receiving them is told apart.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import psutil
import torch
from timm.data import create_dataset, create_loader
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import InterpolationMode, v2

from ..data.labeled import load_data
from ..data.loaders import TrainLoader, end_workers
from ..data.options import AugmentationOptions, DataOptions
from ..data.transforms import train_transform
from ..image_processing import image_processor_for
from ..provenance import provenance
from ..zoo import create_model
from . import speed_report
from .measure import describe_machine, time_interleaved, training_work

CROP_SCALE, CROP_RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
AUGMENTATIONS = {"crop and flip": None, "and RandAugment": "rand-m9-mstd0.5-inc1"}
# timm's policy makes two changes with a probability of a half each, at 9 of 10; torchvision's makes one, at 27 of 30.
TORCHVISION_CHANGES, TORCHVISION_MAGNITUDE = 1, 27
FIRST_BATCHES, LAST_BATCHES = 2, 3  # not timed: a process that loads starts, and has read ahead at the end
LIBRARIES = ("torch", "torchvision", "timm", "pillow")
STEP_BATCH, STEP_ROUNDS = 4, 3
HEADER = """\
| augmentation | loader | in the training process: images/s | ours to it | in one of its own: images/s | ours to it |
| --- | --- | ---: | ---: | ---: | ---: |"""

Epoch = Callable[[], Iterator[Any]]  # starts an epoch, and returns its batches


@dataclass(frozen=True)
class LoadingTask:
    """What is loaded: `batches` batches of a folder with `train` in it, in each round; `policy` is timm's."""

    folder: Path
    policy: str | None
    image_size: int
    batch_size: int
    batches: int
    workers: int


@dataclass(frozen=True)
class Loading:
    """CPU milliseconds an image of a loader, in each round; `receiving` is what the training process spends on it."""

    augmentation: str
    loader: str
    workers: int
    milliseconds: list[float]
    receiving: list[float]


def measure_loading(
    folder: Path, image_size: int, batch_size: int, batches: int, workers: list[int], rounds: int
) -> Iterator[Loading]:
    """Yield the figures of each loader, with each augmentation and number of processes, taken in turns.

    A round that does not count comes before.

    Raises:
        ValueError: if the folder has too few images for a round.
    """
    for augmentation, policy in AUGMENTATIONS.items():
        for number in workers:
            task = LoadingTask(folder, policy, image_size, batch_size, batches, number)
            epochs = {name: make(task) for name, make in LOADERS.items()}
            taken: dict[str, list[tuple[float, float]]] = {name: [] for name in epochs}
            for turn in range(rounds + 1):
                names = list(epochs)
                start = turn % len(names)
                for name in names[start:] + names[:start]:  # no loader always comes after the same one
                    taken[name].append(load_batches(task, epochs[name]))
            for name, times in taken.items():
                own, received = zip(*times[1:])
                yield Loading(augmentation, name, number, list(own), list(received))


def load_batches(task: LoadingTask, epoch: Epoch) -> tuple[float, float]:
    """Return the CPU milliseconds an image of what loads it, and of this process if others do."""
    iterator = epoch()
    discard(islice(iterator, FIRST_BATCHES), FIRST_BATCHES)
    processes = [psutil.Process(child.pid) for child in active_children()] if task.workers else []
    began, others_began = time.process_time(), cpu_seconds(processes)
    discard(islice(iterator, task.batches), task.batches)
    here, others = time.process_time() - began, cpu_seconds(processes) - others_began
    end_workers(iterator)
    per_image = 1000 / (task.batches * task.batch_size)
    return (others * per_image, here * per_image) if task.workers else (here * per_image, 0.0)


def discard(batches: Iterator[Any], expected: int) -> None:
    """Take batches and keep none."""
    taken = sum(1 for _ in batches)
    if taken != expected:
        raise ValueError(f"a loader gave {taken} batches of {expected}: give --dataset more images, or less --batches.")


def cpu_seconds(processes: list[psutil.Process]) -> float:
    """Return the time that processes spent on a CPU so far."""
    return sum(times.user + times.system for times in (process.cpu_times() for process in processes))


def our_epoch(task: LoadingTask) -> Epoch:
    """Return what `sk-transformers train` loads."""
    data = load_data(DataOptions(str(task.folder)), hold_out=False)
    options = AugmentationOptions(list(CROP_SCALE), list(CROP_RATIO), auto_augment=task.policy)
    transform = train_transform(image_processor_for(task.image_size), options)
    num_batches = (data.train_images or 0) // task.batch_size
    loader = TrainLoader(data, transform, task.batch_size, num_batches, seed=0, num_workers=task.workers)

    def epoch() -> Iterator[Any]:
        loader.close()
        loader.batches(0)
        assert loader.running is not None
        return loader.running

    return epoch


def timm_epoch(task: LoadingTask) -> Epoch:
    """Return timm's data set and loader, as its `train.py` makes them with `--no-prefetcher`."""
    images: Any = create_dataset("", root=str(task.folder), split="train", is_training=True)
    loader = create_loader(
        images,
        input_size=(3, task.image_size, task.image_size),
        batch_size=task.batch_size,
        is_training=True,
        scale=CROP_SCALE,
        ratio=CROP_RATIO,
        color_jitter=None,  # pyright: ignore[reportArgumentType]  (which timm takes for none)
        auto_augment=task.policy,
        interpolation="bicubic",
        mean=MEAN,
        std=STD,
        num_workers=task.workers,
        use_prefetcher=False,
        persistent_workers=False,
        device=torch.device("cpu"),
    )
    return lambda: iter(loader)


def torchvision_epoch(task: LoadingTask, as_tensors: bool) -> Epoch:
    """Return torchvision's `ImageFolder` and transforms, of Pillow's images or of tensors of uint8."""
    bicubic, bilinear = InterpolationMode.BICUBIC, InterpolationMode.BILINEAR
    changes: list[Any] = [
        v2.RandomResizedCrop(task.image_size, CROP_SCALE, CROP_RATIO, bicubic, antialias=True),
        v2.RandomHorizontalFlip(),
    ]
    if task.policy is not None:
        # Tensors are rotated and sheared without bicubic interpolation.
        changes.append(v2.RandAugment(TORCHVISION_CHANGES, TORCHVISION_MAGNITUDE, interpolation=bilinear))
    to_tensor = v2.ToImage()
    changes = [to_tensor, *changes] if as_tensors else [*changes, to_tensor]
    transform = v2.Compose([*changes, v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])
    images = ImageFolder(str(task.folder / "train"), transform)
    loader = DataLoader(images, task.batch_size, shuffle=True, drop_last=True, num_workers=task.workers)
    return lambda: iter(loader)


LOADERS: dict[str, Callable[[LoadingTask], Epoch]] = {
    "sk_transformers": our_epoch,
    "timm": timm_epoch,
    "torchvision": lambda task: torchvision_epoch(task, as_tensors=False),
    "torchvision, tensors": lambda task: torchvision_epoch(task, as_tensors=True),
}


def measure_step(name: str, image_size: int) -> float:
    """Return the CPU milliseconds an image of a training step of a network in float32."""
    model, images = create_model(name, image_size=image_size), torch.randn(STEP_BATCH, 3, image_size, image_size)
    (seconds,) = time_interleaved([training_work(model, images, torch.float32)], STEP_ROUNDS, time.process_time)
    return 1000 * statistics.median(seconds) / STEP_BATCH


def to_json(figures: list[Loading], model: str, step: float) -> dict[str, Any]:
    """Return all figures as JSON has them; `step` is a training step's of the model, milliseconds an image."""
    return {
        "provenance": provenance(),
        "machine": describe_machine(LIBRARIES),
        "loading": [asdict(figure) for figure in figures],
        "step": {"model": model, "milliseconds": step},
    }


def to_text(figures: dict[str, Any]) -> str:
    """Return Markdown: a row for each augmentation and loader, and what share of a training step loading is."""
    by_row: dict[tuple[str, str], dict[int, list[float]]] = {}
    for one in figures["loading"]:
        by_row.setdefault((one["augmentation"], one["loader"]), {})[min(one["workers"], 1)] = one["milliseconds"]
    lines = [HEADER]
    for (augmentation, loader), times in by_row.items():
        cells = [augmentation, loader]
        for workers in (0, 1):
            cells += speed_cells(times.get(workers), by_row[augmentation, "sk_transformers"].get(workers))
        lines.append(f"| {' | '.join(cells)} |")
    source = f"`{figures['provenance']['command']}`: {speed_report.to_sentence(figures['machine'])} Time of the CPU."
    return "\n".join([*lines, "", to_sentence(figures), "", source])


def speed_cells(theirs: list[float] | None, ours: list[float] | None) -> list[str]:
    """Return images a second of CPU time, and the median over the rounds of a loader's time to ours."""
    if theirs is None or ours is None:
        return ["", ""]
    ratio = statistics.median(their / our for their, our in zip(theirs, ours))
    return [f"{1000 / statistics.median(theirs):.0f}", f"{ratio:.2f}"]


def to_sentence(figures: dict[str, Any]) -> str:
    """Return what loading is of a training step, from the medians."""
    step = figures["step"]
    ours = {
        one["augmentation"]: statistics.median(one["milliseconds"])
        for one in figures["loading"]
        if one["loader"] == "sk_transformers" and one["workers"] == 0
    }
    if not ours:
        return f"A training step of {step['model']} takes {step['milliseconds']:.0f} ms of CPU time an image."
    shares = ", ".join(f"{name} {own:.1f} ms ({own / (own + step['milliseconds']):.1%})" for name, own in ours.items())
    return (
        f"A training step of {step['model']} takes {step['milliseconds']:.0f} ms of CPU time an image, loading in that"
        f" process (and its share of both together): {shares}."
    )
