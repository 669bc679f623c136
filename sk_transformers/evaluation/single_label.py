"""One label an image: accuracy, by class and overall, and calibration."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torchmetrics.functional.classification import binary_calibration_error

from ..data.loaders import UNREADABLE
from .metrics import TOP_K, TopKAccuracy, class_scores
from .predictions import CALIBRATION_BINS, Predictions, Problem


@dataclass(kw_only=True)
class SingleLabelPredictions(Predictions):
    """The likeliest classes of every image. `labels` are the right ones, `(images,)`, and `loss` is cross-entropy.

    Not the logits: of 50,000 images and 21,841 classes they would be 4 GB.

    Args:
        top: `(images, k)`, the likeliest classes, best first: five of them, or one of five classes or fewer.
        confidence: `(images,)`, the probability of the likeliest class.
    """

    top: torch.Tensor
    confidence: torch.Tensor

    @property
    def predicted(self) -> torch.Tensor:
        """`(images,)`, the likeliest class."""
        return self.top[:, 0]

    @property
    def correct(self) -> torch.Tensor:
        """`(images,)`, whether that is the right one."""
        return self.predicted == self.labels


def reduce_logits(
    logits: torch.Tensor, labels: torch.Tensor, label_map: torch.Tensor | None = None
) -> dict[str, torch.Tensor]:
    """Return `top`, `confidence`, `loss` and `labels` of predictions from logits, `(batch, classes)`."""
    labels = labels if label_map is None else model_labels(labels, label_map)
    return {
        "labels": labels,
        "loss": nn.functional.cross_entropy(logits, labels, reduction="none", ignore_index=UNREADABLE),
        "top": logits.topk(
            TOP_K if logits.shape[-1] > TOP_K else 1
        ).indices,  # of five classes or fewer, it says nothing
        # rounding may exceed 1, which torchmetrics takes for a logit
        "confidence": logits.softmax(-1).amax(-1).clamp(max=1),
    }


def model_labels(labels: torch.Tensor, label_map: torch.Tensor) -> torch.Tensor:
    """Return labels of the data as the model's classes; that of an unreadable image stays."""
    mapped = label_map.to(labels.device)[labels.clamp(min=0)]
    return mapped.where(labels != UNREADABLE, labels)


def accuracy(predictions: SingleLabelPredictions) -> dict[str, float]:
    """Return `top1` and `top5` as fractions, and the mean cross-entropy `loss`."""
    metric = TopKAccuracy(keep_in_memory=True)
    figures: Any = metric.compute(predictions=predictions.top.tolist(), references=predictions.labels.tolist())
    return {**figures, "loss": predictions.loss.double().mean().item()}


def summarize(predictions: SingleLabelPredictions, class_names: list[str]) -> dict[str, Any]:
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


def names_of_labels(predictions: SingleLabelPredictions, class_names: list[str]) -> list[str]:
    return [class_names[label] for label in predictions.labels.tolist()]


SINGLE_LABEL = Problem(
    config_type="single_label_classification",
    best="top1",
    titles={"top1": "top-1", "top5": "top-5"},
    reduce=reduce_logits,
    predictions=SingleLabelPredictions,
    measure=accuracy,
    summarize=summarize,
    names_of_labels=names_of_labels,
)
