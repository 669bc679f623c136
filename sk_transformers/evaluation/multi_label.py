"""Several labels an image: average precision and F1, by class and overall, exact match and calibration."""

from dataclasses import dataclass
from statistics import mean
from typing import Any

import torch
from torch import nn
from torchmetrics.functional.classification import (
    binary_average_precision,
    binary_calibration_error,
    multilabel_exact_match,
    multilabel_f1_score,
)

from ..data.loaders import is_readable
from .predictions import CALIBRATION_BINS, Predictions, Problem

THRESHOLD = 0.5  # a class is predicted above this probability


@dataclass(kw_only=True)
class MultiLabelPredictions(Predictions):
    """What is said of every class. `labels` are `(images, classes)`, 0 and 1; `loss` is binary cross-entropy.

    Args:
        logits: `(images, classes)`.
    """

    logits: torch.Tensor

    @property
    def probabilities(self) -> torch.Tensor:
        """`(images, classes)`, of each class; in float64, where fewer of them round to 1 and tie."""
        return self.logits.double().sigmoid()


def reduce_logits(
    logits: torch.Tensor, labels: torch.Tensor, label_map: torch.Tensor | None = None
) -> dict[str, torch.Tensor]:
    """Return `logits`, `loss` and `labels` of predictions from logits, `(batch, classes)`."""
    labels = labels if label_map is None else model_labels(labels, label_map, logits.shape[-1])
    targets = labels.where(is_readable(labels)[:, None], 0.0)
    return {
        "labels": labels,
        "loss": nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(-1),
        "logits": logits,
    }


def model_labels(labels: torch.Tensor, label_map: torch.Tensor, classes: int) -> torch.Tensor:
    """Return targets of the data, `(batch, its classes)`, as those of the model.

    No image has a class that only the model knows. Targets of an unreadable image stay what they are.
    """
    mapped = labels.new_zeros(len(labels), classes)
    mapped[:, label_map.to(labels.device)] = labels
    return mapped


def average_precisions(predictions: MultiLabelPredictions) -> dict[int, float]:
    """Return the average precision of each class that an image has, by its number; of others it is not defined."""
    probabilities, labels = predictions.probabilities, predictions.labels.long()
    return {
        # which adds in float32, to a little more than 1
        index: min(1.0, binary_average_precision(probabilities[:, index], labels[:, index]).item())
        for index in labels.any(0).nonzero().flatten().tolist()
    }


def f1_scores(predictions: MultiLabelPredictions) -> torch.Tensor:
    """Return the F1 of each class, `(classes,)`; NaN of one that no image has and none is said to have."""
    labels, predicted = predictions.labels.bool(), predictions.probabilities > THRESHOLD
    scores = multilabel_f1_score(predicted.long(), labels.long(), num_labels=labels.shape[-1], average="none")
    return scores.where((labels | predicted).any(0), torch.nan)


def measure(predictions: MultiLabelPredictions) -> dict[str, float]:
    """Return `mean_average_precision` and `macro_f1`, means over classes, `micro_f1`, of all pairs of an image and a
    class together, and the mean binary cross-entropy `loss`.

    Raises:
        ValueError: if no image has a label.
    """
    precisions, labels = list(average_precisions(predictions).values()), predictions.labels.long()
    if not precisions:
        raise ValueError(f"none of the {len(labels)} images has a label: there is nothing to measure.")
    settings: dict[str, Any] = {"num_labels": labels.shape[-1], "threshold": THRESHOLD}
    return {
        "mean_average_precision": mean(precisions),
        "micro_f1": multilabel_f1_score(predictions.probabilities, labels, average="micro", **settings).item(),
        "macro_f1": f1_scores(predictions).double().nanmean().item(),
        "loss": predictions.loss.double().mean().item(),
    }


def summarize(predictions: MultiLabelPredictions, class_names: list[str]) -> dict[str, Any]:
    """Return the figures of an evaluation.

    Args:
        predictions: of every image.
        class_names: of the model's classes.

    Returns:
        `images` and `unreadable` that could not be read; of those that could, the figures of `measure`; `exact_match`,
        the fraction of images of which every class is told right; the `calibration_error` of all probabilities (15
        bins); `images_per_second` of one process, None if there was one batch; and in `per_class`, of each class that
        an image has, how many `images` have it, `average_precision` and `f1`.
    """
    labels, measured = predictions.labels.long(), predictions.measured_images
    f1 = f1_scores(predictions).tolist()
    return {
        "images": len(labels),
        "unreadable": predictions.unreadable,
        **measure(predictions),
        "exact_match": multilabel_exact_match(
            predictions.probabilities, labels, num_labels=labels.shape[-1], threshold=THRESHOLD
        ).item(),
        "calibration_error": binary_calibration_error(
            predictions.probabilities.flatten(), labels.flatten(), n_bins=CALIBRATION_BINS, norm="l1"
        ).item(),
        "images_per_second": measured / predictions.seconds if measured else None,
        "per_class": {
            class_names[index]: {
                "images": int(labels[:, index].sum()),
                "average_precision": precision,
                "f1": f1[index],
            }
            for index, precision in average_precisions(predictions).items()
        },
    }


def names_of_labels(predictions: MultiLabelPredictions, class_names: list[str]) -> list[str]:
    labels = predictions.labels.bool().tolist()
    return ["\t".join(sorted(name for name, has in zip(class_names, row) if has)) for row in labels]


MULTI_LABEL = Problem(
    config_type="multi_label_classification",
    best="mean_average_precision",
    titles={"mean_average_precision": "mean average precision", "micro_f1": "micro F1", "macro_f1": "macro F1"},
    reduce=reduce_logits,
    predictions=MultiLabelPredictions,
    measure=measure,
    summarize=summarize,
    names_of_labels=names_of_labels,
)
