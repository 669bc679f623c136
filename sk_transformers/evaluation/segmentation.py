"""A class for every pixel: intersection over union and accuracy, by class and overall."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..data.loaders import UNREADABLE
from ..data.masks import IGNORED
from .predictions import Predictions, Problem


@dataclass(kw_only=True)
class SegmentationPredictions(Predictions):
    """How many pixels of each image are of each class. `labels` are 0, `(images,)`; `loss` is cross-entropy.

    Not the masks, which are of any size; nor pairs of classes, of which 150 have 22,500. Pixels without a class are
    not counted.

    Args:
        labeled: `(images, classes)`, the pixels that are of a class.
        predicted: `(images, classes)`, those that are said to be.
        shared: `(images, classes)`, those that are both.
    """

    labeled: torch.Tensor
    predicted: torch.Tensor
    shared: torch.Tensor


def reduce_logits(
    logits: torch.Tensor, labels: torch.Tensor, label_map: torch.Tensor | None = None
) -> dict[str, torch.Tensor]:
    """Return what is kept of a batch, measured on the pixels of the masks.

    Args:
        logits: `(batch, classes, height, width)`, which are resized to each mask.
        labels: `(batch, rows, columns)`; `UNREADABLE` at the right and at the bottom is beyond a mask, and all over it
            stands for an image that could not be read.
        label_map: the model's class of each of the data's.
    """
    images = [count_pixels(of_one, mask, label_map) for of_one, mask in zip(logits, labels)]
    return {name: torch.stack([image[name] for image in images]) for name in images[0]}


def count_pixels(
    logits: torch.Tensor, mask: torch.Tensor, label_map: torch.Tensor | None = None
) -> dict[str, torch.Tensor]:
    """Return `labels`, `loss` and pixels by class of an image, from its logits `(classes, height, width)` and mask."""
    inside = mask != UNREADABLE
    height, width = int(inside.any(1).sum()), int(inside.any(0).sum())
    classes = len(logits)
    if height == 0:
        none = torch.zeros(classes, dtype=torch.int64, device=mask.device)
        label = torch.tensor(UNREADABLE, device=mask.device)
        return {"labels": label, "loss": logits.new_zeros(()), "labeled": none, "predicted": none, "shared": none}
    resized = nn.functional.interpolate(logits[None], (height, width), mode="bilinear", align_corners=False)[0]
    mask = mask[:height, :width]
    has_class = mask != IGNORED
    right, said = mask[has_class], resized[:, has_class]
    right = right if label_map is None else label_map.to(right.device)[right]
    predicted = said.argmax(0)
    return {
        "labels": torch.tensor(0, device=mask.device),
        "loss": nn.functional.cross_entropy(said.T, right, reduction="sum") / max(len(right), 1),
        "labeled": right.bincount(minlength=classes),
        "predicted": predicted.bincount(minlength=classes),
        "shared": right[predicted == right].bincount(minlength=classes),
    }


def of_each_class(predictions: SegmentationPredictions) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return intersection over union, accuracy and number of pixels of each class, `(classes,)`, over all images.

    The first two are not a number where there is nothing to divide by: a class of no pixel and said of none.
    """
    labeled, predicted, shared = (
        counts.sum(0).double() for counts in (predictions.labeled, predictions.predicted, predictions.shared)
    )
    return shared / (labeled + predicted - shared), shared / labeled, labeled


def measure(predictions: SegmentationPredictions) -> dict[str, float]:
    """Return `mean_iou`, over the classes that a pixel has or is said to have; `mean_accuracy`, over those that a pixel
    has; `pixel_accuracy`, of all pixels together; and the images' mean cross-entropy `loss`.

    Raises:
        ValueError: if no pixel has a class.
    """
    iou, accuracy, labeled = of_each_class(predictions)
    if not labeled.any():
        raise ValueError(f"none of the {len(predictions.labels)} masks has a pixel with a class: nothing is measured.")
    return {
        "mean_iou": iou.nanmean().item(),
        "mean_accuracy": accuracy.nanmean().item(),
        "pixel_accuracy": (predictions.shared.sum() / labeled.sum()).item(),
        "loss": predictions.loss.double().mean().item(),
    }


def summarize(predictions: SegmentationPredictions, class_names: list[str]) -> dict[str, Any]:
    """Return the figures of an evaluation.

    Args:
        predictions: of every image.
        class_names: of the model's classes.

    Returns:
        `images` and `unreadable` that could not be read; of those that could, the figures of `measure`;
        `images_per_second` of one process, None if there was one batch; and in `per_class`, of each class that a pixel
        has, how many `pixels`, `iou` and `accuracy`.
    """
    iou, accuracy, labeled = (values.tolist() for values in of_each_class(predictions))
    measured = predictions.measured_images
    return {
        "images": len(predictions.labels),
        "unreadable": predictions.unreadable,
        **measure(predictions),
        "images_per_second": measured / predictions.seconds if measured else None,
        "per_class": {
            name: {"pixels": int(labeled[index]), "iou": iou[index], "accuracy": accuracy[index]}
            for index, name in enumerate(class_names)
            if labeled[index]
        },
    }


def names_of_labels(predictions: SegmentationPredictions, class_names: list[str]) -> list[str]:
    rows = predictions.labeled.tolist()
    return ["\t".join(sorted(f"{name} {pixels}" for name, pixels in zip(class_names, row) if pixels)) for row in rows]


SEGMENTATION = Problem(
    config_type=None,
    best="mean_iou",
    titles={"mean_iou": "mean IoU", "mean_accuracy": "mean accuracy", "pixel_accuracy": "pixel accuracy"},
    reduce=reduce_logits,
    predictions=SegmentationPredictions,
    measure=measure,
    summarize=summarize,
    names_of_labels=names_of_labels,
)
