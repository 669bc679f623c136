"""What trained classifiers lose on images that are shifted, enlarged or corrupted.

A static key stands at a place of the grid, and attention compares contents, so static keys might lose more by a shift.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torchmetrics.functional.classification import binary_calibration_error
from transformers import PreTrainedModel
from transformers.image_processing_utils import BaseImageProcessor

from ..data.corruptions import choose_corruptions, corrupt, seed_of, seen_image
from ..data.labeled import load_data
from ..data.loaders import read_image
from ..data.options import DataOptions
from ..evaluation.predictions import CALIBRATION_BINS, map_labels
from ..pretrained import class_names, load_classifier, resize

BATCH_SIZE = 100
DIRECTIONS = ((0, 1), (0, -1), (1, 0), (-1, 0))  # down and right
CONFIDENCE = 1.96  # standard errors to either side, that hold the mean at 95%
HEADER = "| network | as it is |{} corrupted | calibration error | corrupted |"


class Condition(NamedTuple):
    """What is done to an image as a network sees it, in 8 bits.

    `kind` is `"none"`, `"shift"`, by `amount` pixels in each direction in turn; `"size"`, enlarged to `amount` pixels a
    side; or the name of a corruption, whose severity is `amount`.
    """

    kind: str
    amount: int = 0


SHIFTS, SIZES = (1, 2, 4, 8), (40, 48)  # pixels


def conditions_of(severities: Sequence[int]) -> list[Condition]:
    """Return all conditions, with the 15 common corruptions at these severities."""
    corruptions = [Condition(name, severity) for name in choose_corruptions([]) for severity in severities]
    changes = [*(Condition("shift", pixels) for pixels in SHIFTS), *(Condition("size", pixels) for pixels in SIZES)]
    return [Condition("none"), *changes, *corruptions]


class Answers(NamedTuple):
    """Of each image, in the mean over what was made of it, `(images,)`: whether it was right, and the confidence."""

    correct: torch.Tensor
    confidence: torch.Tensor


def measure_displacements(
    names: Sequence[str], data_options: DataOptions, images: int, conditions: Sequence[Condition]
) -> Iterator[tuple[Condition, list[Answers]]]:
    """Yield what each network answers under each condition, on the same images, drawn at random.

    Args:
        names: of classifiers: folders, Hub ids or names of the zoo.
        data_options: the images, those that the data set has to validate on.
        images: at most so many are used.
        conditions: `"none"` among them, to compare with.

    Raises:
        ValueError: if the networks do not see the same pixels, or lack a class of the data.
    """
    data = load_data(data_options)
    networks = [load_classifier(name) for name in names]
    label_maps = [map_labels(data.labels, class_names(model.config)) for model, _ in networks]
    chosen = np.random.default_rng(0).permutation(len(data.validation))[:images]
    rows = [data.validation[int(index)] for index in chosen]
    pictures = [read_image(row["image"]) for row in rows]
    labels = torch.tensor([row["label"] for row in rows])
    seen = [np.stack([seen_image(processor, picture) for picture in pictures]) for _, processor in networks]
    for name, pixels in zip(names, seen):
        if pixels.shape != seen[0].shape or (pixels != seen[0]).any():
            raise ValueError(f"{name} sees other pixels than {names[0]}: compare networks of one image processor.")
    for condition in conditions:
        changed = [pixels_under(condition, pixels, picture) for pixels, picture in zip(seen[0], pictures)]
        pixels = torch.from_numpy(np.stack(changed))
        fitting = [resize(*network, condition.amount) if condition.kind == "size" else network for network in networks]
        yield (
            condition,
            [answers(*network, pixels, label_map[labels]) for network, label_map in zip(fitting, label_maps)],
        )


def pixels_under(condition: Condition, pixels: np.ndarray, picture: Any) -> np.ndarray:
    """Return `(variants, height, width, 3)`, uint8, of pixels `(height, width, 3)`; `picture` seeds a corruption."""
    kind, amount = condition
    if kind == "none":
        return pixels[None]
    if kind == "shift":
        return np.stack([shifted(pixels, amount * down, amount * right) for down, right in DIRECTIONS])
    if kind == "size":
        maps = torch.from_numpy(pixels).permute(2, 0, 1)[None]
        larger = F.interpolate(maps, size=(amount, amount), mode="bicubic", antialias=True)
        return larger.permute(0, 2, 3, 1).numpy()
    return corrupt(pixels, kind, amount, seed_of(picture, kind, amount))[None]


def shifted(pixels: np.ndarray, down: int, right: int) -> np.ndarray:
    """Return pixels `(height, width, 3)` moved within their frame; what comes in is the image's reflection."""
    rows, columns = (max(down, 0), max(-down, 0)), (max(right, 0), max(-right, 0))
    padded = np.pad(pixels, (rows, columns, (0, 0)), mode="reflect")
    height, width = pixels.shape[:2]
    return padded[rows[1] :][:height, columns[1] :][:, :width]


@torch.inference_mode()
def answers(
    model: PreTrainedModel, processor: BaseImageProcessor, pixels: torch.Tensor, labels: torch.Tensor
) -> Answers:
    """Return what a classifier answers to pixels `(images, variants, height, width, 3)` of its classes `labels`."""
    model.eval()
    images, variants = pixels.shape[:2]
    right, confidence = [], []
    for part, truth in zip(
        pixels.flatten(0, 1).split(BATCH_SIZE), labels.repeat_interleave(variants).split(BATCH_SIZE)
    ):
        maps = list(part.permute(0, 3, 1, 2))
        inputs = processor(maps, do_resize=False, do_center_crop=False, return_tensors="pt")
        likeliest = model(inputs["pixel_values"]).logits.softmax(-1).max(-1)
        right.append(likeliest.indices == truth)
        confidence.append(likeliest.values)
    return Answers(
        torch.cat(right).float().view(images, variants).mean(1), torch.cat(confidence).view(images, variants).mean(1)
    )


def summarize(name: str, answered: dict[Condition, Answers]) -> dict[str, Any]:
    """Return a network's figures.

    Returns:
        `top1`; in `shift` and `size`, by the amount, `top1` and how much it is above that as it is, `change`, with the
        half of a 95% interval, `interval`, of the images' own differences; `corruptions`, by name and severity;
        `mean_error` over them; `calibration_error` of the images as they are, and in `corrupted_calibration_error`
        of all that were corrupted.
    """
    plain = answered[Condition("none")]
    figures: dict[str, Any] = {"network": Path(name).name, "images": len(plain.correct), "top1": mean(plain.correct)}
    for kind in ("shift", "size"):
        figures[kind] = {
            str(condition.amount): compare(answers_there.correct, plain.correct)
            for condition, answers_there in answered.items()
            if condition.kind == kind
        }
    figures["calibration_error"] = calibration_error([plain])
    corrupted = {one: there for one, there in answered.items() if one.kind not in ("none", "shift", "size")}
    if corrupted:
        figures["corruptions"] = {}
        for (kind, severity), there in corrupted.items():
            figures["corruptions"].setdefault(kind, {})[str(severity)] = mean(there.correct)
        figures["mean_error"] = 1 - mean(torch.cat([there.correct for there in corrupted.values()]))
        figures["corrupted_calibration_error"] = calibration_error(list(corrupted.values()))
    return figures


def compare(correct: torch.Tensor, plain: torch.Tensor) -> dict[str, float]:
    """Return `top1`, its `change`, and the `interval` of that."""
    change = (correct - plain).double()
    return {
        "top1": mean(correct),
        "change": change.mean().item(),
        "interval": CONFIDENCE * (change.std() / len(change) ** 0.5).item(),
    }


def calibration_error(answered: Sequence[Answers]) -> float:
    """Return the expected calibration error of images that were answered to once each."""
    confidence = torch.cat([there.confidence for there in answered]).clamp(max=1)
    correct = torch.cat([there.correct for there in answered]).long()
    return binary_calibration_error(confidence, correct, n_bins=CALIBRATION_BINS).item()


def mean(values: torch.Tensor) -> float:
    return values.double().mean().item()


def to_text(figures: dict[str, Any]) -> str:
    """Return the table of the networks of all runs, which saw the same images."""
    return to_table([network for run in figures["runs"] for network in run["networks"]])


def to_table(networks: Sequence[dict[str, Any]]) -> str:
    """Return a row of Markdown for each network: percent, and points with their intervals."""
    first = networks[0]
    changes = [(kind, amount) for kind in ("shift", "size") for amount in first[kind]]
    titles = [f" {'shifted ' if kind == 'shift' else ''}{amount} px |" for kind, amount in changes]
    header = HEADER.format("".join(titles))
    lines = [header, "| --- |" + " ---: |" * (header.count("|") - 2)]
    for figures in networks:
        cells = [f"`{figures['network']}`", f"{100 * figures['top1']:.1f}"]
        for kind, amount in changes:
            there = figures[kind][amount]
            cells.append(f"{100 * there['change']:+.1f} ± {100 * there['interval']:.1f}")
        cells.append(f"{100 * (1 - figures['mean_error']):.1f}" if "mean_error" in figures else "")
        cells.append(f"{100 * figures['calibration_error']:.1f}")
        cells.append(f"{100 * figures['corrupted_calibration_error']:.1f}" if "mean_error" in figures else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
