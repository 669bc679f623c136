"""How time and memory scale with the size of the image, the batch and the depth, beside the multiply-adds.

An exponent is the slope between two measurements in logarithms: time as `size ** exponent`. Where a network's time
grows faster than its multiply-adds, something is wrong with it.
"""

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib
import timm
import torch
from matplotlib.figure import Figure
from torch import nn

from ..complexity import count_macs
from ..files import save_figure
from ..zoo import create_model
from .measure import count_module_macs, describe_machine, inference_work, peak_memory, time_interleaved

matplotlib.use("agg")

SIZES = (224, 448, 672, 896, 1344)
BATCHES = (1, 2, 4, 8, 16, 32, 64)
DEPTHS = (3, 6, 12, 24)
SIDE = 224  # pixels, where the size does not grow
HYBRIDS = ("skaformer-s18", "cskaformer-s18")
VIT = "skvit-small-patch16-224"


@dataclass(frozen=True)
class Point:
    """One network at one place of an axis; `mib` is allocated over the weights at the peak of a forward pass."""

    axis: str  # "pixels" a side, "batch" or "depth"
    network: str
    value: int
    seconds: float
    mib: float
    macs: int


def measure_scaling(
    rounds: int,
    sizes: Sequence[int] = SIZES,
    batches: Sequence[int] = BATCHES,
    depths: Sequence[int] = DEPTHS,
) -> Iterator[Point]:
    """Yield the points of forward passes in float32; the networks of each value of an axis take turns."""
    for size in sizes:
        networks: dict[str, nn.Module] = {
            f"{name}, {mode}": create_model(name, static_key_resolution=mode)
            for name in HYBRIDS
            for mode in ("interpolate", "window")
        }
        networks["timm caformer_s18"] = timm.create_model("caformer_s18")
        yield from measure_networks("pixels", size, networks, rounds, torch.randn(1, 3, size, size))
    for batch in batches:
        networks = {name: create_model(name) for name in (*HYBRIDS, VIT)}
        yield from measure_networks("batch", batch, networks, rounds, torch.randn(batch, 3, SIDE, SIDE))
    for depth in depths:
        networks = {VIT: create_model(VIT, num_hidden_layers=depth)}
        yield from measure_networks("depth", depth, networks, rounds, torch.randn(1, 3, SIDE, SIDE))


def measure_networks(
    axis: str, value: int, networks: dict[str, nn.Module], rounds: int, images: torch.Tensor
) -> list[Point]:
    """Return a point for each network, at one value of an axis."""
    works = {name: inference_work(network, images, torch.float32) for name, network in networks.items()}
    seconds = time_interleaved(list(works.values()), rounds)  # the first, uncounted pass resizes the keys
    return [
        Point(axis, name, value, statistics.median(taken), peak_memory(works[name]) / 2**20, macs_of(network, images))
        for (name, network), taken in zip(networks.items(), seconds)
    ]


def macs_of(network: nn.Module, images: torch.Tensor) -> int:
    """Return the multiply-adds of a pass over the images."""
    config = getattr(network, "config", None)
    if config is None:
        return len(images) * count_module_macs(network, images[:1])
    return len(images) * count_macs(config, (images.shape[2], images.shape[3]))


def exponents(points: list[Point]) -> list[dict[str, Any]]:
    """Return for each network and axis the slopes of time, memory and multiply-adds between the last two values."""
    rows = []
    for axis, network in dict.fromkeys((point.axis, point.network) for point in points):
        line = [point for point in points if (point.axis, point.network) == (axis, network)]
        if len(line) > 1:
            before, last = line[-2:]
            slope = {
                name: math.log(getattr(last, name) / getattr(before, name)) / math.log(last.value / before.value)
                for name in ("seconds", "mib", "macs")
            }
            rows.append({"axis": axis, "network": network, "from": before.value, "to": last.value, **slope})
    return rows


def to_json(points: list[Point]) -> dict[str, Any]:
    """Return the machine, the points and the exponents as JSON has them."""
    rows = [asdict(point) for point in points]
    return {"machine": describe_machine(), "points": rows, "exponents": exponents(points)}


def from_json(figures: dict[str, Any]) -> list[Point]:
    """Return the points that `to_json` made a dictionary of."""
    return [Point(**point) for point in figures["points"]]


def to_table(points: list[Point]) -> str:
    """Return Markdown: all measurements."""
    lines = ["| axis | network | value | seconds | MiB | MACs, G |", "| --- | --- | ---: | ---: | ---: | ---: |"]
    lines += [
        f"| {p.axis} | {p.network} | {p.value} | {p.seconds:.3g} | {p.mib:.0f} | {p.macs / 1e9:.4g} |" for p in points
    ]
    return "\n".join(lines)


def to_exponent_table(points: list[Point]) -> str:
    """Return Markdown: the exponents."""
    lines = ["| axis | network | between | time | memory | MACs |", "| --- | --- | --- | ---: | ---: | ---: |"]
    lines += [
        f"| {row['axis']} | {row['network']} | {row['from']} and {row['to']} |"
        f" {row['seconds']:.2f} | {row['mib']:.2f} | {row['macs']:.2f} |"
        for row in exponents(points)
    ]
    return "\n".join(lines)


def plot_throughput(points: list[Point], file: Path) -> None:
    """Draw images a second against the size of the image, as PNG."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    points = [point for point in points if point.axis == "pixels"]
    for network in dict.fromkeys(point.network for point in points):
        line = [point for point in points if point.network == network]
        style = ":" if network.startswith("timm") else "--" if "window" in network else "-"
        speeds = [1 / point.seconds for point in line]
        axes.plot([point.value for point in line], speeds, style, marker="o", markersize=4, label=network)
    axes.set(xscale="log", yscale="log", xlabel="image, pixels a side", ylabel="images a second")
    sizes = sorted({point.value for point in points})
    axes.set_xticks(sizes, map(str, sizes))
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    save_figure(figure, file)
