"""A hybrid network on images of several sizes: keys resized to the grid, beside windows of the trained grid."""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PretrainedConfig

from ..complexity import count_macs
from ..zoo import create_config, create_model
from .measure import inference_work, peak_memory, time_interleaved

SIZES = ((224, 224), (448, 448), (896, 896), (800, 1333))  # height and width, pixels
RESOLUTION_MODES = ("interpolate", "window")
HEADER = (
    "| image | interpolate: MACs, G | seconds | MiB | window: MACs, G | seconds | MiB |",
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
)


@dataclass(frozen=True)
class Cost:
    """A forward pass in float32 on one image of `size`, in one of `RESOLUTION_MODES`."""

    size: tuple[int, int]
    mode: str
    macs: int
    seconds: float  # median over the rounds
    mib: float  # allocated over the weights at the peak


def configs_by_mode(name: str, **overrides: Any) -> dict[str, PretrainedConfig]:
    """Return a network's configuration in all `RESOLUTION_MODES`, by its name with the mode.

    Without static keys that can do either, as where they are in windows anyhow, there is one, by the name alone.
    """
    config = create_config(name, **overrides)
    if config.model_type != "skformer" or not {"static_key", "conv_static_key"} & set(config.token_mixers):
        return {name: config}
    return {
        f"{name}, {mode}": create_config(name, **overrides, static_key_resolution=mode) for mode in RESOLUTION_MODES
    }


def measure_resolutions(name: str, rounds: int) -> Iterator[tuple[Cost, ...]]:
    """Yield for each size the costs of the network in all modes, taken in turns."""
    models = [create_model(name, static_key_resolution=mode) for mode in RESOLUTION_MODES]
    configs = [create_config(name, static_key_resolution=mode) for mode in RESOLUTION_MODES]
    for size in SIZES:
        image = torch.randn(1, 3, *size)
        works = [inference_work(model, image, torch.float32) for model in models]
        times = time_interleaved(works, rounds)  # the uncounted round resizes the keys
        yield tuple(
            Cost(size, mode, count_macs(config, size), statistics.median(seconds), peak_memory(work) / 2**20)
            for mode, config, work, seconds in zip(RESOLUTION_MODES, configs, works, times)
        )


def to_row(costs: tuple[Cost, ...]) -> str:
    """Return the row of one size."""
    height, width = costs[0].size
    cells = [f"{height}x{width}"]
    for cost in costs:
        cells += [f"{cost.macs / 1e9:.1f}", f"{cost.seconds:.2f}", f"{cost.mib:.0f}"]
    return f"| {' | '.join(cells)} |"
