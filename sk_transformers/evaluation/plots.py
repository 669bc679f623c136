"""Pictures of an evaluation."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import torch
from matplotlib.figure import Figure

from ..files import save_figure
from .detection import DetectionPredictions
from .fonts import fonts_for
from .multi_label import MultiLabelPredictions
from .predictions import CALIBRATION_BINS, Predictions
from .robustness import baseline_top1
from .segmentation import SegmentationPredictions
from .single_label import SingleLabelPredictions

matplotlib.use("agg")
MAX_NAMED_CLASSES = 40  # more names than that cannot be read
MAX_NUMBERED_CLASSES = 20  # nor more numbers
MAX_CELLS = 1000  # a side, about as many as there are pixels


def plot_single_label(
    predictions: SingleLabelPredictions, figures: dict[str, Any], class_names: list[str], folder: Path
) -> None:
    """Draw `confusion.png` and `reliability.png` of an evaluation and its figures."""
    plot_confusion(predictions, class_names, folder / "confusion.png")
    file = folder / "reliability.png"
    plot_reliability(predictions.confidence, predictions.correct, figures["calibration_error"], file)


def plot_multi_label(
    predictions: MultiLabelPredictions, figures: dict[str, Any], class_names: list[str], folder: Path
) -> None:
    """Draw `classes.png` and `reliability.png`, which is of all probabilities, of an evaluation and its figures."""
    plot_classes(figures, "mean_average_precision", "average precision", folder / "classes.png")
    probabilities, labels = predictions.probabilities.flatten(), predictions.labels.flatten()
    plot_reliability(probabilities, labels, figures["calibration_error"], folder / "reliability.png")


def plot_segmentation(
    predictions: SegmentationPredictions, figures: dict[str, Any], class_names: list[str], folder: Path
) -> None:
    """Draw `classes.png` of an evaluation's figures."""
    plot_classes(figures, "mean_iou", "intersection over union", folder / "classes.png")


def plot_detection(
    predictions: DetectionPredictions, figures: dict[str, Any], class_names: list[str], folder: Path
) -> None:
    """Draw `classes.png` of an evaluation's figures."""
    plot_classes(figures, "box_ap", "average precision of boxes", folder / "classes.png")


PLOTS: dict[type[Predictions], Callable[[Any, dict[str, Any], list[str], Path], None]] = {
    SingleLabelPredictions: plot_single_label,
    MultiLabelPredictions: plot_multi_label,
    SegmentationPredictions: plot_segmentation,
    DetectionPredictions: plot_detection,
}  # of an evaluation, by what was predicted


def plot_classes(figures: dict[str, Any], mean: str, what: str, file: Path) -> None:
    """Draw a figure of each class, best first, and its mean.

    Args:
        figures: of an evaluation.
        mean: the name of the mean among them; that of a class is the same without `mean_`.
        what: the figure in words.
        file: the picture.
    """
    per_class, average, figure_name = figures["per_class"], figures[mean], mean.removeprefix("mean_")
    names = sorted(per_class, key=lambda name: -per_class[name][figure_name])
    counted = next(unit for unit in ("images", "pixels", "objects") if unit in per_class[names[0]])
    are_named = len(names) <= MAX_NAMED_CLASSES
    figure = Figure(figsize=(7, 1.6 + 0.24 * min(len(names), MAX_NAMED_CLASSES)), layout="constrained")
    axes = figure.subplots()
    height = 0.8 if are_named else 1.0
    axes.barh(range(len(names)), [per_class[name][figure_name] for name in names], height, color="tab:blue")
    axes.axvline(average, color="gray", linestyle="--", linewidth=1, label=f"mean, {average:.3f}")
    if are_named:
        labels = [f"{name} ({per_class[name][counted]:,})" for name in names]
        axes.set_yticks(range(len(names)), labels, fontfamily=fonts_for(labels))
    axes.invert_yaxis()
    unit = f"class ({counted})" if are_named else f"{len(names)} classes"
    axes.set(xlabel=what, ylabel=unit, xlim=(0, 1), title=f"{what.capitalize()} by class")
    figure.legend(loc="outside lower center", frameon=False)
    save_figure(figure, file)


def plot_confusion(predictions: SingleLabelPredictions, class_names: list[str], file: Path) -> None:
    """Draw which fraction of each class's images (rows) was taken for each class (columns)."""
    merged = -(-len(class_names) // MAX_CELLS)  # classes to a row
    count = -(-len(class_names) // merged)
    pairs = predictions.labels // merged * count + predictions.predicted // merged
    counts = pairs.bincount(minlength=count * count).view(count, count).float()
    fractions = counts / counts.sum(1, keepdim=True).clamp(min=1)

    side = 3.2 + 0.28 * min(count, MAX_NAMED_CLASSES)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    if count <= MAX_NAMED_CLASSES:
        fonts = fonts_for(class_names)
        axes.set_xticks(range(count), class_names, rotation=90, fontfamily=fonts)
        axes.set_yticks(range(count), class_names, fontfamily=fonts)
    if count <= MAX_NUMBERED_CLASSES:
        for row, column in (fractions > 0).nonzero().tolist():
            color = "white" if fractions[row, column] > 0.5 else "black"
            axes.text(column, row, f"{fractions[row, column]:.2f}", ha="center", va="center", color=color, fontsize=7)
    unit = f" ({merged} classes to a cell)" if merged > 1 else ""
    axes.set(xlabel=f"predicted{unit}", ylabel=f"right{unit}", title=f"Confusion of {counts.sum():.0f} images")
    figure.colorbar(image, label="fraction of the right class's images", shrink=0.8)
    save_figure(figure, file)


def plot_reliability(confidence: torch.Tensor, correct: torch.Tensor, calibration_error: float, file: Path) -> None:
    """Draw how often predictions `(predictions,)` of a confidence are right, and how many of them there are."""
    bins = (confidence * CALIBRATION_BINS).long().clamp(max=CALIBRATION_BINS - 1)
    counts = bins.bincount(minlength=CALIBRATION_BINS).float()
    accuracy = torch.zeros(CALIBRATION_BINS).index_add_(0, bins, correct.float()) / counts
    centers = (torch.arange(CALIBRATION_BINS) + 0.5) / CALIBRATION_BINS

    figure = Figure(figsize=(5, 5.6), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    top.plot([0, 1], [0, 1], color="gray", linestyle="--", linewidth=1, label="as confident as right")
    top.bar(centers, accuracy.nan_to_num(0), width=0.9 / CALIBRATION_BINS, color="tab:blue", label="measured")
    top.set(ylabel="accuracy", ylim=(0, 1), title=f"Reliability: calibration error {calibration_error:.3f}")
    bottom.bar(centers, counts, width=0.9 / CALIBRATION_BINS, color="tab:gray")
    bottom.set(xlabel="confidence", ylabel="predictions", xlim=(0, 1))
    figure.legend(loc="outside lower center", ncols=2, frameon=False)  # inside, it would cover bars
    save_figure(figure, file)


def plot_robustness(robustness: dict, clean_top1: float, file: Path, baseline: dict | None = None) -> None:
    """Draw accuracy against severity, a panel for each group of corruptions, from none on the left.

    Args:
        robustness: the figures of `summarize_robustness`.
        clean_top1: accuracy without corruption.
        file: to write.
        baseline: the `evaluation.json` they compare with, drawn as the mean of each group.
    """
    corruptions = robustness["corruptions"]
    severities = [0, *robustness["severities"]]
    groups = list(dict.fromkeys(row["group"] for row in corruptions.values()))
    figure = Figure(figsize=(0.8 + 2.9 * len(groups), 4.2), layout="constrained")
    panels = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
    for axes, group in zip(panels, groups):
        names = [name for name, row in corruptions.items() if row["group"] == group]
        for name in names:
            axes.plot(severities, [clean_top1, *corruptions[name]["top1"]], marker="o", markersize=4, label=name)
        if baseline is not None:
            rows = [baseline_top1(baseline, name, severities[1:]) for name in names]
            means = [sum(values) / len(values) for values in zip(*rows)]
            axes.plot(severities, [baseline["top1"], *means], color="gray", linestyle="--", label="baseline, mean")
        axes.set(title=group, xlabel="severity", xticks=severities, ylim=(0, 1.02))
        axes.grid(alpha=0.3)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), fontsize=8, frameon=False)
    panels[0].set_ylabel("top-1 accuracy")
    error = robustness["mean_error"]
    figure.suptitle("Accuracy under corruption" + (f": mean error {error:.1%}" if error is not None else ""))
    save_figure(figure, file)
