"""Predictions of a classifier for a data set, and their figures: accuracy, by class and overall, calibration, speed."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from torchmetrics.functional.classification import binary_calibration_error

from ..data.loaders import UNREADABLE
from .metrics import TOP_K, TopKAccuracy, class_scores

CALIBRATION_BINS = 15


@dataclass
class Predictions:
    """A model's predictions for every readable image, on the CPU, with the labels mapped to the model's classes.

    A few numbers an image, not its logits: of 50,000 images and 21,841 classes they would be 4 GB.

    Args:
        top: `(images, k)`, the likeliest classes, best first: five of them, or one of five classes or fewer.
        confidence: `(images,)`, the probability of the likeliest class.
        loss: `(images,)`, the cross-entropy.
        labels: `(images,)`, the right classes.
        seconds: spent in the model on the process that measured.
        measured_images: images in those seconds.
        unreadable: how many images could not be read; none of the above has them.
    """

    top: torch.Tensor
    confidence: torch.Tensor
    loss: torch.Tensor
    labels: torch.Tensor
    seconds: float
    measured_images: int
    unreadable: int = 0

    @property
    def predicted(self) -> torch.Tensor:
        """`(images,)`, the likeliest class."""
        return self.top[:, 0]

    @property
    def correct(self) -> torch.Tensor:
        """`(images,)`, whether that is the right one."""
        return self.predicted == self.labels


@torch.no_grad()
def predict(
    accelerator: Accelerator,
    model: nn.Module,
    loader: Iterable[dict[str, torch.Tensor]],
    label_map: torch.Tensor | None = None,
) -> Predictions:
    """Run a model over a prepared loader, each image once however many processes there are.

    Args:
        accelerator: that prepared model and loader.
        model: the classifier, which is left in evaluation mode.
        loader: batches of `pixel_values` and `labels`; label -100 marks an image that could not be read.
        label_map: the model's class of each of the data's; the same when None.

    Raises:
        ValueError: if no image could be read.
    """
    model.eval()
    gathered, seconds, measured = [], 0.0, 0
    for index, batch in enumerate(loader):
        start = time.perf_counter()
        logits = model(pixel_values=batch["pixel_values"]).logits.float()
        if accelerator.device.type != "cpu":
            torch.accelerator.synchronize()
        if index > 0:  # the first batch warms up
            seconds += time.perf_counter() - start
            measured += len(logits)
        labels = batch["labels"] if label_map is None else model_labels(batch["labels"], label_map)
        of_all_processes = accelerator.gather_for_metrics(reduce_logits(logits, labels))
        gathered.append([tensor.cpu() for tensor in of_all_processes])
    top, confidence, loss, labels = (torch.cat(batches) for batches in zip(*gathered))
    readable = labels != UNREADABLE
    if not readable.any():
        raise ValueError(f"none of the {len(labels)} images could be read: there is nothing to measure.")
    unreadable = len(labels) - int(readable.sum())
    return Predictions(
        top[readable], confidence[readable], loss[readable], labels[readable], seconds, measured, unreadable
    )


def reduce_logits(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return `top`, `confidence`, `loss` and `labels` of `Predictions` from logits, `(batch, classes)`."""
    top = logits.topk(TOP_K if logits.shape[-1] > TOP_K else 1).indices  # of five classes or fewer, it says nothing
    confidence = logits.softmax(-1).amax(-1).clamp(max=1)  # rounding may exceed 1, which torchmetrics takes for a logit
    loss = nn.functional.cross_entropy(logits, labels, reduction="none", ignore_index=UNREADABLE)
    return top, confidence, loss, labels


def model_labels(labels: torch.Tensor, label_map: torch.Tensor) -> torch.Tensor:
    """Return labels of the data as the model's classes; that of an unreadable image stays."""
    mapped = label_map.to(labels.device)[labels.clamp(min=0)]
    return mapped.where(labels != UNREADABLE, labels)


def accuracy(predictions: Predictions) -> dict[str, float]:
    """Return `top1` and `top5` as fractions, and the mean cross-entropy `loss`."""
    metric = TopKAccuracy(keep_in_memory=True)
    figures: Any = metric.compute(predictions=predictions.top.tolist(), references=predictions.labels.tolist())
    return {**figures, "loss": predictions.loss.double().mean().item()}


def summarize(predictions: Predictions, class_names: list[str]) -> dict:
    """Return the figures of an evaluation.

    Args:
        predictions: of every image.
        class_names: of the model's classes.

    Returns:
        `images` and `unreadable` that could not be read; of those that could, `top1`, `top5` and `per_class` as
        fractions, the mean cross-entropy `loss`, and the expected `calibration_error` (15 bins, arXiv 1706.04599); and
        `images_per_second` of one process, None if there was one batch.
    """
    correct, labels, measured = predictions.correct, predictions.labels, predictions.measured_images
    return {
        "images": len(labels),
        "unreadable": predictions.unreadable,
        **accuracy(predictions),
        **class_scores(predictions.predicted, labels),
        "calibration_error": binary_calibration_error(
            predictions.confidence, correct.long(), n_bins=CALIBRATION_BINS, norm="l1"
        ).item(),
        "images_per_second": measured / predictions.seconds if measured else None,
        "per_class": {
            class_names[index]: correct[labels == index].float().mean().item() for index in labels.unique().tolist()
        },
    }


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
