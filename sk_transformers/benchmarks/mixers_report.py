"""What a comparison of mixers found: a table with the spread over the seeds, and a plot."""

import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import t as student_t

from ..errors import first_line
from ..files import save_figure

matplotlib.use("agg")
CONFIDENCE = 0.95
COLUMNS = ("mixer", "parameters, k", "MACs, M", "top-1, %", "spread", "less {baseline}")
TIME_COLUMNS = ("step time", "s an epoch")  # only where steps were timed


@dataclass(frozen=True)
class Row:
    """One network of a family. Accuracies and differences are in per cent, times in seconds.

    `spread` is the standard deviation over the seeds, None with one seed. `step_ratio` and `epoch_seconds` are None if
    no steps were timed.
    """

    mixer: str
    parameters: int
    macs: int
    seeds: list[int]
    top1: list[float]
    mean: float
    spread: float | None
    difference: float
    step_ratio: float | None
    epoch_seconds: float | None


@dataclass(frozen=True)
class Family:
    """Networks of one kind. `resolution` is the half-width of every difference's interval, None with one seed."""

    name: str
    rows: list[Row]
    resolution: float | None


def read_results(file: Path) -> dict[str, Any]:
    """Return the content of a `results.json`, or raise ValueError if it is something else."""
    try:
        results = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not valid JSON: {first_line(error)}.") from error
    if not isinstance(results, dict) or not {"networks", "baseline", "data"} <= set(results):
        raise ValueError(f"{file} does not hold the results of a comparison, as compare_mixers.py writes them.")
    return results


def summarize(results: dict[str, Any]) -> list[Family]:
    """Return means, spreads and differences from the baseline, of the seeds that all networks of a family have."""
    families = []
    for name in dict.fromkeys(network["family"] for network in results["networks"]):
        networks = [network for network in results["networks"] if network["family"] == name]
        seeds = sorted(set.intersection(*({run["seed"] for run in network["runs"]} for network in networks)))
        if seeds:
            scores = np.array([scores_of(network, seeds) for network in networks])
            baseline = [network["mixer"] for network in networks].index(results["baseline"])
            rows = [
                summarize_network(network, seeds, scores[i], scores[baseline], networks[baseline], results)
                for i, network in enumerate(networks)
            ]
            families.append(Family(name, rows, resolution(scores)))
    return families


def scores_of(network: dict[str, Any], seeds: list[int]) -> list[float]:
    """Return the top-1 accuracy with each seed, in per cent."""
    by_seed = {run["seed"]: 100 * run["top1"] for run in network["runs"]}
    return [by_seed[seed] for seed in seeds]


def summarize_network(
    network: dict[str, Any],
    seeds: list[int],
    scores: np.ndarray,
    baseline_scores: np.ndarray,
    baseline: dict[str, Any],
    results: dict[str, Any],
) -> Row:
    """Return a network's row of the table."""
    step_ratio = epoch_seconds = None
    if "step_seconds" in network:
        step_ratio = statistics.median(a / b for a, b in zip(network["step_seconds"], baseline["step_seconds"]))
        steps = results["data"]["train_images"] / network["batch_size"]
        epoch_seconds = statistics.median(network["step_seconds"]) * steps
    return Row(
        mixer=network["mixer"],
        parameters=network["parameters"],
        macs=network["macs"],
        seeds=seeds,
        top1=scores.tolist(),
        mean=scores.mean().item(),
        spread=scores.std(ddof=1).item() if len(seeds) > 1 else None,
        difference=(scores - baseline_scores).mean().item(),
        step_ratio=step_ratio,
        epoch_seconds=epoch_seconds,
    )


def resolution(scores: np.ndarray) -> float | None:
    """Return half the width of the interval around the difference of a network and the baseline; None with one seed.

    The intervals of all differences hold together at `CONFIDENCE` (Bonferroni). A seed is a block: it decides the order
    of the images and adds the same to every network. What is left after networks and seeds is taken to be noise of one
    size for all networks, which is a bold assumption, and a necessary one with few seeds.

    Args:
        scores: `(networks, seeds)`, in per cent.
    """
    networks, seeds = scores.shape
    if seeds < 2 or networks < 2:
        return None
    noise = scores - scores.mean(1, keepdims=True) - scores.mean(0, keepdims=True) + scores.mean()
    degrees = (networks - 1) * (seeds - 1)
    standard_error = np.sqrt((noise**2).sum() / degrees * 2 / seeds)
    return (student_t.ppf(1 - (1 - CONFIDENCE) / 2 / (networks - 1), degrees) * standard_error).item()


def markdown(results: dict[str, Any]) -> str:
    """Return the tables of all families, in Markdown."""
    return "\n\n".join(family_table(family, results["baseline"]) for family in summarize(results))


def family_table(family: Family, baseline: str) -> str:
    """Return the table of one family."""
    timed = family.rows[0].step_ratio is not None
    names = [name.format(baseline=baseline) for name in COLUMNS + (TIME_COLUMNS if timed else ())]
    lines = [table_line(names), table_line(["---", *["---:"] * (len(names) - 1)])]
    for row in family.rows:
        cells = [
            row.mixer,
            f"{row.parameters / 1e3:.1f}",
            f"{row.macs / 1e6:.2f}",
            f"{row.mean:.2f}",
            "" if row.spread is None else f"{row.spread:.2f}",
            "" if row.mixer == baseline else difference(row.difference, family.resolution),
        ]
        if timed:
            cells += [f"{row.step_ratio:.2f}", f"{row.epoch_seconds:.0f}"]
        lines.append(table_line(cells))
    return "\n".join([f"**{family.name}**", "", *lines])


def table_line(cells: list[str]) -> str:
    """Return a line of a table."""
    return f"| {' | '.join(cells)} |"


def difference(value: float, half_width: float | None) -> str:
    """Return a difference in percentage points, with its interval if there is one."""
    return f"{value:+.2f}" if half_width is None else f"{value:+.2f} ± {half_width:.2f}"


def plot_comparison(results: dict[str, Any], file: Path) -> None:
    """Draw a panel for each family: every seed's accuracy, their mean, and what the network costs."""
    families = summarize(results)
    height = 1.1 + 0.36 * max(len(family.rows) for family in families)
    figure = Figure(figsize=(4.7 * len(families), height), layout="constrained")
    for panel, family in zip(np.atleast_1d(figure.subplots(1, len(families))), families):
        plot_family(panel, family, results["baseline"])
    save_figure(figure, file, dpi=200)


def plot_family(axes: Axes, family: Family, baseline: str) -> None:
    """Draw one family."""
    positions = range(len(family.rows))
    reference = next(row for row in family.rows if row.mixer == baseline)
    if family.resolution is not None:
        axes.axvspan(
            reference.mean - family.resolution, reference.mean + family.resolution, color="0.92", zorder=0, linewidth=0
        )
    axes.axvline(reference.mean, color="0.6", linewidth=0.8, linestyle=":", zorder=1)
    for position, row in zip(positions, family.rows):
        axes.plot(row.top1, [position] * len(row.top1), "o", color="tab:blue", alpha=0.6, markersize=4.5, mew=0)
        axes.plot(row.mean, position, "|", color="black", markersize=15, markeredgewidth=1.6)
        axes.annotate(
            f"{row.parameters / 1e3:.0f} k   {row.macs / 1e6:.1f} M",
            (1.02, position), xycoords=("axes fraction", "data"), va="center", fontsize=8,
        )  # fmt: skip
    axes.annotate("params   MACs", (1.02, 1.02), xycoords="axes fraction", va="bottom", fontsize=8, color="0.35")
    axes.set_yticks(positions, [row.mixer.replace("_", " ") for row in family.rows], fontsize=9)
    axes.set_ylim(len(family.rows) - 0.5, -0.5)
    axes.set_xlabel("top-1, %", fontsize=9)
    axes.set_title(family.name, fontsize=10, loc="left")
    axes.tick_params(axis="x", labelsize=8)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
