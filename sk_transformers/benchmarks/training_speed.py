"""How fast `sk-transformers train` trains beside transformers' `run_image_classification.py` and timm's `train.py`.

All three train copies of one network on the same image files, with the same random resized crop (bilinear), flip and
scaling, batch size, AdamW and number of loader processes, in one process that gives them turns. What differs is theirs:
how they load, order a step and keep account of it. None clips gradients, evaluates or saves in the measured time.
"""

import contextlib
import io
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import datasets
import torch
from timm.data import create_dataset, create_loader
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import AverageMeter
from torch import nn
from torchvision import transforms
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments, set_seed

from ..image_processing import image_processor_for
from ..provenance import installed
from ..training.checkpoints import RunState
from ..training.command_line import parse_options
from ..training.display import add_training, progress_bar
from ..training.loop import train_epoch
from ..training.setup import Setup, set_up
from ..training.signals import StopRequest
from ..zoo import create_model
from .example_images import write_images

LEARNING_RATE, WEIGHT_DECAY = 1e-4, 0.05
CROP_SCALE, CROP_RATIO = (0.35, 1.0), (3 / 4, 4 / 3)
# Steps of a round that are not timed: two at its start, in which loader processes start and memory is allocated, and
# the last one, in which loops that read a batch ahead have none to read.
FIRST_STEPS, LAST_STEPS = 2, 1
LIBRARIES = ("torch", "torchvision", "transformers", "timm", "accelerate", "datasets")

Tick = Callable[[], None]  # called after each step
Loop = Callable[[Tick], None]  # trains for an epoch


@dataclass(frozen=True)
class Task:
    """What is trained: a network of the zoo, on `batch_size * steps` images in each round.

    `images` is a kind of `example_images.write_images`. `workers` are processes that load images, none if 0.
    """

    model: str
    batch_size: int
    image_size: int
    steps: int
    images: str = "photos"
    workers: int = 0


def compare_loops(task: Task, rounds: int) -> dict[str, Any]:
    """Return the images a second of each loop in each round, taken in turns after a round that does not count.

    Returns:
        `images_per_second`, the rounds' figures by the name of the loop; `median` of each; `ratio`, the median over the
        rounds of ours to another's; `task`, `threads` of torch and `versions`.

    Raises:
        ValueError: if there are too few steps to time.
    """
    untimed = FIRST_STEPS + LAST_STEPS
    if task.steps <= untimed:
        raise ValueError(f"--steps is {task.steps}, expected more than the {untimed} of a round that are not timed.")
    datasets.disable_progress_bars()
    with TemporaryDirectory() as folder:
        write_images(Path(folder), task.images, task.batch_size * task.steps)
        # Ours comes last: transformers' TrainingArguments discards the accelerators made before.
        loops = {"transformers": trainer_loop, "timm": timm_loop, "sk_transformers": our_loop}
        loops = {name: make(task, Path(folder)) for name, make in loops.items()}
        speeds: dict[str, list[float]] = {name: [] for name in loops}
        for turn in range(rounds + 1):
            names = list(loops)
            for name in names[turn % 3 :] + names[: turn % 3]:  # no loop always comes after the same one
                speeds[name].append(images_per_second(task, loops[name]))
    speeds = {name: figures[1:] for name, figures in speeds.items()}
    ours = speeds["sk_transformers"]
    return {
        "task": asdict(task),
        "images_per_second": speeds,
        "median": {name: statistics.median(figures) for name, figures in speeds.items()},
        "ratio": {
            name: statistics.median(own / other for own, other in zip(ours, figures))
            for name, figures in speeds.items()
            if name != "sk_transformers"
        },
        "threads": torch.get_num_threads(),
        "versions": installed(LIBRARIES),
    }


def to_table(figures: dict[str, Any]) -> str:
    """Return Markdown: what was trained, and a row for each loop."""
    task, ratios = figures["task"], {"sk_transformers": 1.0, **figures["ratio"]}
    lines = [
        f"{task['model']}, {task['image_size']} px, {task['images']}, batch {task['batch_size']}, {task['steps']}"
        f" steps, {task['workers']} loader processes, {figures['threads']} threads; "
        + ", ".join(f"{name} {number}" for name, number in figures["versions"].items()),
        "",
        "| loop | images a second, median | rounds | ours to it |",
        "| --- | ---: | --- | ---: |",
    ]
    for name, rounds in figures["images_per_second"].items():
        each = " ".join(f"{speed:.1f}" for speed in rounds)
        lines.append(f"| {name} | {figures['median'][name]:.1f} | {each} | {ratios[name]:.3f} |")
    return "\n".join(lines)


def images_per_second(task: Task, loop: Loop) -> float:
    """Return the images a second of the timed steps of an epoch."""
    ends: list[float] = []
    loop(lambda: ends.append(time.perf_counter()))
    if len(ends) != task.steps:
        raise RuntimeError(f"a loop took {len(ends)} steps of {task.steps}: its figures would not compare.")
    timed = task.steps - FIRST_STEPS - LAST_STEPS
    return timed * task.batch_size / (ends[-1 - LAST_STEPS] - ends[FIRST_STEPS - 1])


def fresh_model(task: Task, folder: Path) -> PreTrainedModel:
    """Return the network with a head for the classes of the folder, the same weights each time."""
    set_seed(0)
    labels = sorted(path.name for path in (folder / "train").iterdir())
    return create_model(task.model, image_size=task.image_size, id2label=dict(enumerate(labels))).train()


def our_loop(task: Task, folder: Path) -> Loop:
    """Return the loop of `sk-transformers train`: its own set-up, and its own epoch with the progress bar."""
    setup = our_setup(task, folder)
    state, stop = RunState(), StopRequest()

    def train(tick: Tick) -> None:
        with progress_bar(setup.accelerator) as bar:
            shown = add_training(bar, setup, state)

            def report(**fields: Any) -> None:
                bar.update(shown, **fields)
                tick()

            train_epoch(setup, folder, state, stop, save=lambda: None, report=report)
        state.epoch_losses.clear()  # as an evaluation does

    return train


def our_setup(task: Task, folder: Path) -> Setup:
    """Return what `sk-transformers train` makes of the task."""
    options = {
        "--model": [task.model],
        "--dataset": [folder],
        "--image_size": [task.image_size],
        "--per_device_train_batch_size": [task.batch_size],
        "--num_workers": [task.workers],
        "--learning_rate": [LEARNING_RATE],
        "--weight_decay": [WEIGHT_DECAY],
        "--crop_scale": CROP_SCALE,
        "--crop_ratio": CROP_RATIO,
        "--num_train_epochs": [1000],
        "--output_dir": [folder / "run"],
    }
    return set_up(parse_options([str(token) for name, values in options.items() for token in (name, *values)]))


class TickAfterStep(TrainerCallback):
    """Calls `tick` after each step of a trainer."""

    def __init__(self, tick: Tick) -> None:
        self.tick = tick

    def on_step_end(self, *args: Any, **options: Any) -> None:
        self.tick()


def trainer_loop(task: Task, folder: Path) -> Loop:
    """Return `transformers.Trainer`'s loop over a folder that `datasets` decodes, with torchvision's transforms."""
    model = fresh_model(task, folder)
    processor = image_processor_for(model.config.image_size)
    augment = transforms.Compose(
        [
            transforms.RandomResizedCrop(task.image_size, CROP_SCALE, CROP_RATIO),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(processor.image_mean, processor.image_std),
        ]
    )

    def augment_batch(rows: dict) -> dict[str, Any]:
        return {"pixel_values": [augment(image.convert("RGB")) for image in rows["image"]], "label": rows["label"]}

    def collate(examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        return {
            "pixel_values": torch.stack([example["pixel_values"] for example in examples]),
            "labels": torch.tensor([example["label"] for example in examples]),
        }

    data = datasets.load_dataset("imagefolder", data_dir=str(folder), split="train")
    data.set_transform(augment_batch)
    arguments = TrainingArguments(
        output_dir=str(folder / "trainer"),
        use_cpu=not torch.accelerator.is_available(),
        per_device_train_batch_size=task.batch_size,
        num_train_epochs=1,
        learning_rate=LEARNING_RATE,
        weight_decay=WEIGHT_DECAY,
        max_grad_norm=0.0,
        dataloader_drop_last=True,
        dataloader_num_workers=task.workers,
        remove_unused_columns=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )

    def train(tick: Tick) -> None:
        trainer = Trainer(model, arguments, data_collator=collate, train_dataset=data, callbacks=[TickAfterStep(tick)])
        with contextlib.redirect_stdout(io.StringIO()):  # where it prints its last metrics
            trainer.train()

    return train


def timm_loop(task: Task, folder: Path) -> Loop:
    """Return a loop in the order of timm's `train.py`, with its data set, loader, optimizer and schedule."""
    model = fresh_model(task, folder)
    processor = image_processor_for(model.config.image_size)
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    device = accelerator or torch.device("cpu")
    model.to(device)  # pyright: ignore[reportArgumentType]  (a decorator of transformers hides self)
    images: Any = create_dataset("", root=str(folder), split="train", is_training=True)
    loader = create_loader(
        images,
        input_size=(3, task.image_size, task.image_size),
        batch_size=task.batch_size,
        is_training=True,
        scale=CROP_SCALE,
        ratio=CROP_RATIO,
        color_jitter=None,  # pyright: ignore[reportArgumentType]  (which timm takes for none)
        interpolation="bilinear",
        mean=tuple(processor.image_mean),
        std=tuple(processor.image_std),
        num_workers=task.workers,
        device=device,
    )
    optimizer = create_optimizer_v2(model, opt="adamw", lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = CosineLRScheduler(optimizer, t_initial=1000 * task.steps, t_in_epochs=False)
    criterion = nn.CrossEntropyLoss()
    updates = 0

    def train(tick: Tick) -> None:
        nonlocal updates
        losses = AverageMeter()
        model.train()
        optimizer.zero_grad()
        for pixel_values, labels in loader:
            loss = criterion(model(pixel_values=pixel_values).logits, labels)
            loss.backward()
            optimizer.step()
            updates += 1
            optimizer.zero_grad()
            losses.update(loss.item(), len(labels))
            schedule.step_update(num_updates=updates, metric=losses.avg)
            tick()

    return train
