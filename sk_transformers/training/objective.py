"""What training minimizes: cross-entropy, with soft or hard labels, of each class or pixel, a detector's losses,
and the distance to a teacher.
"""

from collections.abc import Callable
from typing import Any

import torch
from timm.data import Mixup
from torch import nn
from torch.nn import functional as F
from transformers import AutoImageProcessor, AutoModelForImageClassification
from transformers.image_processing_utils import BaseImageProcessor

from ..errors import first_line
from ..evaluation.predictions import map_labels
from ..image_processing import normalization, output_size
from ..pretrained import class_names


class Teacher(nn.Module):
    """A trained classifier that sees the student's images as its own image processor would scale them.

    Args:
        name: a repo folder or a Hub id of any image classifier of transformers.
        processor: the student's, whose scaling is undone.
        labels: the student's classes, in order; the teacher has to know them all.
        trust_remote_code: whether code in the teacher's repo may run.

    Raises:
        ValueError: if it cannot be loaded, or lacks a class.
    """

    own_mean: torch.Tensor
    own_std: torch.Tensor
    given_mean: torch.Tensor
    given_std: torch.Tensor

    def __init__(
        self, name: str, processor: BaseImageProcessor, labels: list[str], trust_remote_code: bool = False
    ) -> None:
        super().__init__()
        try:
            self.model = AutoModelForImageClassification.from_pretrained(
                name, dtype=torch.float32, trust_remote_code=trust_remote_code
            )
            own = AutoImageProcessor.from_pretrained(name)
        except (OSError, ValueError) as error:
            reason = first_line(error)
            raise ValueError(f"--teacher {name} could not be loaded: {reason}") from error
        try:
            classes = map_labels(labels, class_names(self.model.config))
        except ValueError as error:
            raise ValueError(f"--teacher {name}: {error}") from error
        self.register_buffer("classes", classes)
        self.size = output_size(own)
        self.resizes = self.size != output_size(processor)
        for name, image_processor in (("own", own), ("given", processor)):
            mean, std = (torch.tensor(values).view(-1, 1, 1) for values in normalization(image_processor))
            self.register_buffer(f"{name}_mean", mean)
            self.register_buffer(f"{name}_std", std)
        self.requires_grad_(False)
        self.eval()

    @torch.no_grad()
    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return logits of the student's classes, `(batch, classes)`, of images `(batch, channels, height, width)`."""
        if self.resizes:
            pixel_values = F.interpolate(pixel_values, self.size, mode="bicubic", antialias=True, align_corners=False)
        pixels = pixel_values * self.given_std + self.given_mean
        return self.model(pixel_values=(pixels - self.own_mean) / self.own_std).logits[:, self.classes]


LabelLoss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None, float], torch.Tensor]


def cross_entropy(
    logits: torch.Tensor, targets: torch.Tensor, class_weights: torch.Tensor | None, smoothing: float
) -> torch.Tensor:
    """Return the mean cross-entropy of logits `(batch, classes)` and classes `(batch,)` or fractions of them
    `(batch, classes)`.
    """
    # Not its own mean, which divides by the weights that happen to be in the batch.
    losses = F.cross_entropy(logits, targets, class_weights, reduction="none", label_smoothing=smoothing)
    return losses.mean()


def binary_cross_entropy(
    logits: torch.Tensor, targets: torch.Tensor, class_weights: torch.Tensor | None, smoothing: float
) -> torch.Tensor:
    """Return the mean binary cross-entropy of logits and targets `(batch, classes)`; labels are not smoothed.

    The weight of a class is that of the images that have it.
    """
    return F.binary_cross_entropy_with_logits(logits, targets, pos_weight=class_weights)


LABEL_LOSSES: dict[str, LabelLoss] = {"single_label": cross_entropy, "multi_label": binary_cross_entropy}


def own_objective(model: nn.Module, pixel_values: torch.Tensor, labels: Any, mix: bool) -> torch.Tensor:
    """Return the own loss, a scalar, of a segmenter or detector, of images `(batch, channels, height, width)` and their
    masks `(batch, height, width)` or a list of labels; nothing is mixed.
    """
    return model(pixel_values=pixel_values, labels=labels).loss


class Objective:
    """The loss of a batch.

    Args:
        label_loss: of logits, targets, weights of classes and a fraction by which labels are smoothed.
        mixup: mixes images and labels, None to leave them.
        label_smoothing: fraction of a label spread over all classes; Mixup spreads its labels itself.
        teacher: gives soft targets, None for labels alone.
        distillation_weight: fraction of the loss that the teacher has, the labels having the rest.
        temperature: of both softmaxes in distillation (arXiv 1503.02531, with the factor of its square).
        class_weights: `(classes,)`, of the labels; all 1 when None.
    """

    def __init__(
        self,
        label_loss: LabelLoss = cross_entropy,
        mixup: Mixup | None = None,
        label_smoothing: float = 0.0,
        teacher: nn.Module | None = None,
        distillation_weight: float = 0.5,
        temperature: float = 1.0,
        class_weights: torch.Tensor | None = None,
    ) -> None:
        self.label_loss, self.class_weights = label_loss, class_weights
        self.mixup, self.label_smoothing, self.teacher = mixup, label_smoothing, teacher
        self.distillation_weight, self.temperature = distillation_weight, temperature

    def __call__(self, model: nn.Module, pixel_values: torch.Tensor, labels: torch.Tensor, mix: bool) -> torch.Tensor:
        """Return the mean loss, a scalar, of images `(batch, channels, height, width)` and their labels."""
        targets, smoothing = labels, self.label_smoothing
        if self.mixup is not None and mix:
            pixel_values, targets = self.mixup(pixel_values, labels)
            smoothing = 0.0
        logits = model(pixel_values=pixel_values).logits.float()
        loss = self.label_loss(logits, targets, self.class_weights, smoothing)
        if self.teacher is None:
            return loss
        soft = self.teacher(pixel_values).float()
        return (1 - self.distillation_weight) * loss + self.distillation_weight * self.distance(logits, soft)

    def distance(self, logits: torch.Tensor, soft: torch.Tensor) -> torch.Tensor:
        """Return the mean KL divergence of softened outputs `(batch, classes)`, times the temperature squared."""
        student = F.log_softmax(logits / self.temperature, -1)
        teacher = F.log_softmax(soft / self.temperature, -1)
        return F.kl_div(student, teacher, log_target=True, reduction="batchmean") * self.temperature**2
