"""Accuracy where a patch of each image is another's to choose: an adversarial patch, optimized for each image.

Source: "Adversarial Patch", Brown et al., arXiv 1712.09665, in the form of projected gradient ascent (arXiv 1706.06083)
within a square that may hold any colors.
"""

import math
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from accelerate import Accelerator
from rich.console import Console
from rich.progress import track
from scipy.stats import binomtest
from torch import nn
from torch.nn import functional as F
from transformers.image_processing_utils import BaseImageProcessor

from ..image_processing import normalization
from .predictions import predict
from .single_label import SINGLE_LABEL

PLACES = ("corner", "random")  # the lower right corner, or anywhere
STEP = 2.5  # times the range of colors, over the number of steps: enough to get from one end to the other


@dataclass(frozen=True)
class PatchAttack:
    """A square of `size` pixels a side, changed in so many steps of gradient ascent."""

    size: int
    steps: int

    @classmethod
    def parse(cls, text: str) -> "PatchAttack":
        """Return the attack `"SIZE,STEPS"`; ValueError if it is none."""
        try:
            size, steps = (int(number) for number in text.split(","))
        except ValueError:
            size = steps = 0
        if size < 1 or steps < 1:
            raise ValueError(f"--patch_attack {text}: expected SIZE,STEPS, such as 8,20: pixels a side, and steps.")
        return cls(size, steps)


def attack_images(
    model: nn.Module,
    pixel_values: torch.Tensor,
    labels: torch.Tensor,
    attack: PatchAttack,
    corners: torch.Tensor,
    start: torch.Tensor,
    bounds: tuple[torch.Tensor, torch.Tensor],
) -> torch.Tensor:
    """Return images with the patches that came closest to another answer, or furthest into one.

    Args:
        model: a classifier in evaluation mode.
        pixel_values: `(batch, channels, height, width)`.
        labels: `(batch,)`, the right classes.
        attack: the size of the patches, and the number of steps.
        corners: `(batch, 2)`, row and column of each patch's upper left pixel.
        start: `(batch, channels, size, size)` of 0 to 1: what the patches start from, within the bounds.
        bounds: the values of black and of white, `(channels, 1, 1)` each.
    """
    low, high = bounds
    patches = low + start * (high - low)
    best, best_margin = patches, torch.full((len(labels),), -math.inf, device=labels.device)
    with torch.enable_grad():
        for step in range(attack.steps + 1):
            patches = patches.detach().requires_grad_()
            logits = model(pixel_values=with_patches(pixel_values, patches, corners)).logits.float()
            margins = margins_of_wrong_classes(logits, labels)
            is_better = margins.detach() > best_margin
            best = torch.where(is_better[:, None, None, None], patches.detach(), best)
            best_margin = torch.where(is_better, margins.detach(), best_margin)
            if step < attack.steps:
                (gradient,) = torch.autograd.grad(margins.sum(), patches)
                moved = patches + STEP / attack.steps * (high - low) * gradient.sign()
                patches = torch.minimum(torch.maximum(moved, low), high)
    return with_patches(pixel_values, best, corners)


def margins_of_wrong_classes(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the highest wrong logit less the right one, `(batch,)`: cross-entropy's gradient vanishes where it is low.

    Source: Carlini and Wagner, arXiv 1608.04644.
    """
    is_right = F.one_hot(labels, logits.shape[1]).bool()
    return logits.masked_fill(is_right, -math.inf).amax(dim=1) - logits.gather(1, labels[:, None])[:, 0]


def with_patches(pixel_values: torch.Tensor, patches: torch.Tensor, corners: torch.Tensor) -> torch.Tensor:
    """Return images `(batch, channels, height, width)` with a patch of each `(batch, channels, size, size)`."""
    steps = torch.arange(patches.shape[-1], device=corners.device)
    rows, columns = (corners[:, axis, None] + steps for axis in (0, 1))
    images = torch.arange(len(patches), device=corners.device)[:, None, None]
    changed = pixel_values.clone()
    changed[images, :, rows[:, :, None], columns[:, None, :]] = patches.permute(0, 2, 3, 1).to(changed.dtype)
    return changed


def draw_patches(pixel_values: torch.Tensor, attack: PatchAttack, place: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return corners and starts of patches, see `attack_images`; what is random depends on the image alone.

    So it is the same however many images are in a batch, and processes share them.
    """
    *_, channels, height, width = pixel_values.shape
    corners, starts = [], []
    for image in pixel_values.float().cpu():
        generator = torch.Generator().manual_seed(zlib.crc32(image.numpy().tobytes()))
        corner = [height - attack.size, width - attack.size]
        if place == "random":
            corner = [int(torch.randint(last + 1, (), generator=generator)) for last in corner]
        corners.append(corner)
        starts.append(torch.rand(channels, attack.size, attack.size, generator=generator))
    return torch.tensor(corners, device=pixel_values.device), torch.stack(starts).to(pixel_values)


def attacked_accuracy(
    accelerator: Accelerator,
    model: nn.Module,
    loader: Iterable[dict[str, torch.Tensor]],
    label_map: torch.Tensor,
    attack: PatchAttack,
    processor: BaseImageProcessor,
) -> dict[str, Any]:
    """Return what the attack was, and for each of `PLACES` the accuracy under it, with Wilson's interval at 95%.

    Args:
        accelerator: that prepared model and loader.
        model: the classifier.
        loader: of images.
        label_map: the model's class of each of the data's.
        attack: on these.
        processor: of the images, whose black and white are what a patch may reach.
    """
    mean, std = (torch.tensor(values).view(-1, 1, 1).to(accelerator.device) for values in normalization(processor))
    bounds, classes = (-mean / std, (1 - mean) / std), label_map.to(accelerator.device)

    def attacked(place: str) -> Iterator[dict[str, torch.Tensor]]:
        shown = {"console": Console(stderr=True), "disable": not accelerator.is_main_process}
        for batch in track(loader, f"patches, {place}", **shown):
            pixel_values = batch["pixel_values"]
            labels = classes[batch["labels"].clamp(min=0)]  # what could not be read is not counted
            with accelerator.autocast():
                corners, start = draw_patches(pixel_values, attack, place)
                pixel_values = attack_images(model, pixel_values, labels, attack, corners, start, bounds)
            yield {**batch, "pixel_values": pixel_values}

    figures: dict[str, Any] = asdict(attack)
    model.eval()
    for place in PLACES:
        correct = predict(accelerator, model, attacked(place), SINGLE_LABEL, label_map).correct
        interval = binomtest(int(correct.sum()), len(correct)).proportion_ci(method="wilson")
        figures[place] = {"top1": correct.float().mean().item(), "interval": [interval.low, interval.high]}
    return figures
