"""How good a classifier is on a data set: accuracy, by class and overall, calibration, and speed."""

import time
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import nn
from torchmetrics.functional.classification import multiclass_calibration_error

from .metrics import TOP_K

CALIBRATION_BINS = 15


@dataclass
class Predictions:
    """What a model said of every image, on the CPU, in the model's own classes.

    Args:
        logits: `(images, classes)`, float32.
        labels: `(images,)`, the right classes.
        seconds: spent in the model on the process that measured.
        measured_images: images in those seconds.
    """

    logits: torch.Tensor
    labels: torch.Tensor
    seconds: float
    measured_images: int


@torch.no_grad()
def predict(accelerator: Accelerator, model: nn.Module, loader, label_map: torch.Tensor) -> Predictions:
    """Run a model over a prepared loader, each image once however many processes there are.

    Args:
        accelerator: that prepared model and loader.
        model: the classifier.
        loader: batches of `pixel_values` and `labels`.
        label_map: the model's class of each of the data's.
    """
    model.eval()
    logits, labels, seconds, measured = [], [], 0.0, 0
    for index, batch in enumerate(loader):
        start = time.perf_counter()
        batch_logits = model(pixel_values=batch["pixel_values"]).logits.float()
        if accelerator.device.type != "cpu":
            torch.accelerator.synchronize()
        if index > 0:  # the first batch warms up
            seconds += time.perf_counter() - start
            measured += len(batch_logits)
        batch_logits, batch_labels = accelerator.gather_for_metrics((batch_logits, batch["labels"]))
        logits.append(batch_logits.cpu())
        labels.append(batch_labels.cpu())
    return Predictions(torch.cat(logits), label_map[torch.cat(labels)], seconds, measured)


def summarize(predictions: Predictions, class_names: list[str]) -> dict:
    """The figures of an evaluation.

    Args:
        predictions: of every image.
        class_names: of the model's classes.

    Returns:
        `top1`, `top5` and `per_class` as parts of 1, the mean cross-entropy `loss`, the expected `calibration_error`
        (15 bins, arXiv 1706.04599), `images`, and `images_per_second` of one process, None if there was one batch.
    """
    logits, labels = predictions.logits, predictions.labels
    ranked = logits.topk(min(TOP_K, logits.shape[-1])).indices
    right = ranked == labels[:, None]
    per_class = {
        class_names[index]: right[labels == index, 0].float().mean().item() for index in labels.unique().tolist()
    }
    measured = predictions.measured_images
    return {
        "images": len(labels),
        "top1": right[:, 0].float().mean().item(),
        "top5": right.any(-1).float().mean().item(),
        "loss": nn.functional.cross_entropy(logits, labels).item(),
        "calibration_error": multiclass_calibration_error(
            logits.softmax(-1), labels, num_classes=logits.shape[-1], n_bins=CALIBRATION_BINS, norm="l1"
        ).item(),
        "images_per_second": measured / predictions.seconds if measured else None,
        "per_class": per_class,
    }


def map_labels(data_labels: list[str], id2label: dict[int, str]) -> torch.Tensor:
    """The model's class of each of the data's, by their names.

    Raises:
        ValueError: if the model has no class of a name.
    """
    known = {label: index for index, label in id2label.items()}
    unknown = [label for label in data_labels if label not in known]
    if unknown:
        raise ValueError(
            f"the data has class {unknown[0]!r}, which the model does not: it knows {', '.join(list(known)[:5])}"
            + (", ..." if len(known) > 5 else ".")
        )
    return torch.tensor([known[label] for label in data_labels])
