"""What a model says of every image of a data set, each once however many processes there are."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch import nn

from ..data.loaders import is_readable

CALIBRATION_BINS = 15


@dataclass(kw_only=True)
class Predictions:
    """What is kept of every readable image, on the CPU: a problem adds its own, a few numbers an image.

    Args:
        labels: the targets, in terms of the model's classes.
        loss: `(images,)`, or of none where it is not measured.
        seconds: spent in the model on the process that measured.
        measured_images: images in those seconds.
        unreadable: how many images could not be read; nothing else has them.
    """

    labels: torch.Tensor
    loss: torch.Tensor
    seconds: float
    measured_images: int
    unreadable: int = 0


def logits_of(outputs: Any) -> torch.Tensor:
    return outputs.logits.float()


def join_columns(batches: list[dict[str, torch.Tensor]]) -> tuple[dict[str, torch.Tensor], int]:
    """Return what was kept of the images that could be read, by name; and how many could not be."""
    columns = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
    readable = is_readable(columns["labels"])
    return {name: column[readable] for name, column in columns.items()}, int((~readable).sum())


@dataclass(frozen=True)
class Problem:
    """What a model is asked, and how its answers are measured; `problems.PROBLEMS` has those that there are.

    Args:
        config_type: what `config.problem_type` is, from which transformers takes loss and scores; None where it
            takes them from the model's class.
        best: the figure by which the best weights are chosen, the higher the better.
        titles: what figures are called while a network trains, that of `best` first.
        reduce: what to keep of a batch, `labels` and `loss` among it, from logits `(batch, classes, ...)`, targets, and
            the model's class of each of the data's (the same when None).
        predictions: the class that holds all of it.
        measure: the figures by which a training run is judged, from predictions.
        summarize: all figures of an evaluation, from predictions and the names of the model's classes.
        names_of_labels: of each image, as a line of text, from predictions and the names of the model's classes.
        answers: what `reduce` gets of a model's outputs, the logits but for detectors.
        join: what `predictions` gets of what `reduce` kept of each batch, and how many images could not be read.
    """

    config_type: str | None
    best: str
    titles: dict[str, str]
    reduce: Callable[[Any, Any, torch.Tensor | None], Any]
    predictions: type[Any]
    measure: Callable[[Any], dict[str, float]]
    summarize: Callable[[Any, list[str]], dict[str, Any]]
    names_of_labels: Callable[[Any, list[str]], list[str]]
    answers: Callable[[Any], Any] = logits_of
    join: Callable[[list[Any]], tuple[dict[str, Any], int]] = join_columns

    @property
    def best_title(self) -> str:
        return self.titles[self.best]


@torch.no_grad()
def predict(
    accelerator: Accelerator,
    model: nn.Module,
    loader: Iterable[dict[str, Any]],
    problem: Problem,
    label_map: torch.Tensor | None = None,
) -> Any:
    """Run a model over a prepared loader.

    Args:
        accelerator: that prepared model and loader.
        model: which is left in evaluation mode.
        loader: batches of `pixel_values`, for detectors `pixel_mask`, and `labels`; label -100, or no objects of a
            detector's, marks an image that could not be read.
        problem: what the model is asked.
        label_map: the model's class of each of the data's; the same when None.

    Returns:
        The problem's kind of `Predictions`.

    Raises:
        ValueError: if no image could be read.
    """
    model.eval()
    gathered, seconds, measured = [], 0.0, 0
    for index, batch in enumerate(loader):
        start = time.perf_counter()
        inputs = {name: batch[name] for name in ("pixel_values", "pixel_mask") if name in batch}
        answers = problem.answers(model(**inputs))
        if accelerator.device.type != "cpu":
            torch.accelerator.synchronize()
        if index > 0:  # the first batch warms up
            seconds += time.perf_counter() - start
            measured += len(batch["pixel_values"])
        of_all_processes: Any = accelerator.gather_for_metrics(problem.reduce(answers, batch["labels"], label_map))
        gathered.append(send_to_device(of_all_processes, "cpu"))
    columns, unreadable = problem.join(gathered)
    if not len(columns["labels"]):
        raise ValueError(f"none of the {unreadable} images could be read: there is nothing to measure.")
    return problem.predictions(**columns, seconds=seconds, measured_images=measured, unreadable=unreadable)


def map_labels(data_labels: list[str], class_names: list[str]) -> torch.Tensor:
    """Return the model's class of each of the data's, by their names.

    Raises:
        ValueError: if the model has no class of a name.
    """
    known = {label: index for index, label in enumerate(class_names)}
    unknown = [label for label in data_labels if label not in known]
    if unknown:
        raise ValueError(
            f"the data has class {unknown[0]!r}, which the model does not: it knows {', '.join(list(known)[:5])}"
            + (", ..." if len(known) > 5 else ".")
        )
    return torch.tensor([known[label] for label in data_labels])
