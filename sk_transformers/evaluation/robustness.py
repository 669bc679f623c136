"""Robustness to common corruptions, in the figures of Hendrycks and Dietterich, arXiv 1903.12261."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import mean

import torch
from accelerate import Accelerator
from rich.table import Table
from torch import nn

from ..data.corruptions import COMMON_CORRUPTIONS, GROUP_OF, CorruptingTransform
from .predictions import predict
from .single_label import SINGLE_LABEL, accuracy


def corrupted_accuracy(
    accelerator: Accelerator,
    model: nn.Module,
    loader: Iterable[dict[str, torch.Tensor]],
    transform: CorruptingTransform,
    corruptions: list[str],
    severities: list[int],
    label_map: torch.Tensor | None = None,
    report: Callable[[], None] = lambda: None,
) -> dict[str, list[float]]:
    """Return top-1 accuracy under each corruption, at each severity in turn.

    Args:
        accelerator: that prepared model and loader.
        model: the classifier.
        loader: of images that `transform` transforms.
        transform: told what to do before each pass over the loader.
        corruptions: names.
        severities: 1 to 5.
        label_map: the model's class of each of the data's; the same when None.
        report: called after each pass.
    """
    top1 = {}
    for corruption in corruptions:
        top1[corruption] = []
        for severity in severities:
            transform.set_condition(corruption, severity)
            top1[corruption].append(accuracy(predict(accelerator, model, loader, SINGLE_LABEL, label_map))["top1"])
            report()
    return top1


def summarize_robustness(
    clean_top1: float, top1: dict[str, list[float]], severities: list[int], baseline: dict | None = None
) -> dict:
    """Return the figures of an evaluation under corruption. Errors are fractions of wrong first predictions.

    Args:
        clean_top1: accuracy without corruption.
        top1: accuracy under each corruption, at each of the severities.
        severities: these.
        baseline: the `evaluation.json` of another model, which holds these corruptions and severities.

    Returns:
        `severities`; in `corruptions`, for each its `group`, its `top1` by severity and its `error`, the mean over
        severities; and `mean_error`, the mean over the paper's 15 corruptions, or those of them that there are.

        With a baseline, each corruption also has `ce`, its errors' sum over the baseline's, and `relative_ce`, the
        same of what corruption adds to the error; `mce` and `relative_mce` are their means. They are the paper's, whose
        baseline is AlexNet. A ratio is None where the baseline's sum is not above 0, and so is a mean with such a one.
    """
    corruptions = {
        name: {"group": GROUP_OF[name], "top1": values, "error": 1 - mean(values)} for name, values in top1.items()
    }
    figures = {
        "severities": list(severities),
        "corruptions": corruptions,
        "mean_error": common_mean(corruptions, "error"),
    }
    if baseline is not None:
        for name, row in corruptions.items():
            base_error = 1 - mean(baseline_top1(baseline, name, severities))
            row["ce"] = ratio(row["error"], base_error)
            row["relative_ce"] = ratio(row["error"] - (1 - clean_top1), base_error - (1 - baseline["top1"]))
        figures["baseline"] = baseline["model"]
        figures["mce"] = common_mean(corruptions, "ce")
        figures["relative_mce"] = common_mean(corruptions, "relative_ce")
    return figures


def ratio(part: float, whole: float) -> float | None:
    return part / whole if whole > 1e-9 else None  # a difference of equal accuracies may not be 0


def common_mean(corruptions: dict[str, dict], figure: str) -> float | None:
    """Return the mean over the paper's 15 corruptions; None without any of them, or if the figure of one is."""
    values = [row[figure] for row in corruptions.values() if row["group"] in COMMON_CORRUPTIONS]
    return mean(values) if values and None not in values else None


def baseline_top1(baseline: dict, corruption: str, severities: list[int]) -> list[float]:
    """Return a baseline's accuracy under a corruption, at these severities."""
    robustness = baseline["robustness"]
    by_severity = dict(zip(robustness["severities"], robustness["corruptions"][corruption]["top1"]))
    return [by_severity[severity] for severity in severities]


def load_baseline(file: str, corruptions: list[str], severities: list[int], image_size: list[int]) -> dict:
    """Return the `evaluation.json` of the model to compare with.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not an evaluation, or lacks one of the corruptions or severities, or is of images of
            another size, on which the corruptions are not as strong.
    """
    path = Path(file)
    if not path.is_file():
        raise FileNotFoundError(f"--baseline {file} is not there: expected the evaluation.json of another model.")
    try:
        baseline = json.loads(path.read_text())
        robustness = baseline["robustness"]
        covered = robustness["corruptions"], robustness["severities"]
        size = robustness["image_size"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"--baseline {file} is not an evaluation under --corruptions: make one by sk-transformers evaluate."
        ) from error
    for wanted, there, kind in zip((corruptions, severities), covered, ("corruption", "severity")):
        missing = [value for value in wanted if value not in there]
        if missing:
            raise ValueError(f"--baseline {file} lacks {kind} {missing[0]}: evaluate it with the same options.")
    if size != image_size:
        raise ValueError(
            f"--baseline {file} saw images of {size[0]}x{size[1]}, this model {image_size[0]}x{image_size[1]}:"
            " corruptions of one size do not compare with those of another."
        )
    return baseline


def check_same_images(baseline: dict, record: dict) -> None:
    """Raise ValueError unless both evaluations are of the same labeled images, as far as their labels tell."""
    if baseline.get("labels_sha256") != record["labels_sha256"]:
        raise ValueError(
            f"--baseline is of other images than this evaluation: {baseline['images']} of {baseline['dataset']}"
            f" ({baseline['split']}), not these {record['images']} of {record['dataset']} ({record['split']})."
        )


def robustness_table(robustness: dict, clean_top1: float) -> Table:
    """Return the figures of `summarize_robustness` as a table to print, in percent."""
    compared = "mce" in robustness
    ratios = {"ce": ("CE", "mce"), "relative_ce": ("relative CE", "relative_mce")} if compared else {}
    table = Table(title="Top-1 accuracy by severity, and errors, in percent")
    table.add_column("corruption")
    for heading in [*map(str, robustness["severities"]), "mean error", *(heading for heading, _ in ratios.values())]:
        table.add_column(heading, justify="right")
    blank = [""] * len(robustness["severities"])
    table.add_row("none", *blank, percent(1 - clean_top1))
    group = None
    for name, row in robustness["corruptions"].items():
        if row["group"] != group:
            table.add_section()
        group = row["group"]
        table.add_row(name, *map(percent, row["top1"]), percent(row["error"]), *(percent(row[key]) for key in ratios))
    table.add_section()
    means = [percent(robustness[key]) for key in ("mean_error", *(mean_key for _, mean_key in ratios.values()))]
    table.add_row("mean of the common", *blank, *means)
    if compared and None in (robustness["mce"], robustness["relative_mce"]):
        table.caption = "-: no ratio, since the corruption costs the baseline nothing"
    return table


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
