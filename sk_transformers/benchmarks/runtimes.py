"""Networks in turns on several runtimes: as they are, compiled, and in ONNX Runtime in float32 and in 8 bits."""

import statistics
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from ..complexity import count_macs
from ..hub.graph_runtimes import load_onnxruntime
from ..hub.onnx_export import write_onnx_files
from ..models.configuration_checks import size_pair
from ..pretrained import load_model, resize
from ..zoo import create_model
from .measure import Work, inference_work, median_ratio, time_interleaved

RUNTIMES = {  # by the one in float32 that a ratio is taken of
    "eager": "eager",
    "compiled": "compiled",
    "onnx": "onnx",
    "int8": "onnx",
}
TITLES = {
    "eager": "eager",
    "compiled": "compiled",
    "onnx": "ONNX Runtime",
    "int8": "ONNX Runtime, 8 bits",
}
LABELS = {0: "no", 1: "yes"}  # of the classifier that networks without one get, whose cost does not show


@dataclass(frozen=True)
class Timing:
    """Inference in float32 or 8 bits at one batch size.

    Args:
        network: its name, and its multiply-adds `macs`.
        runtime: one of `RUNTIMES`.
        batch: images in a batch.
        images_per_second: by the median over the rounds.
        ratio: how many times as fast it is as the first network in float32 on the same runtime, the median over rounds.
    """

    network: str
    macs: int
    runtime: str
    batch: int
    images_per_second: float
    ratio: float


def load_network(name: str, image_size: int | None = None) -> PreTrainedModel:
    """Return a classifier by its name in the zoo, with fresh weights, or from a folder, at an image size."""
    if not Path(name).is_dir():
        model = create_model(name) if image_size is None else create_model(name, image_size=image_size)
        return model.eval()
    model, processor = load_model(name, LABELS)
    if image_size is not None and model.config.image_size != image_size:
        model, processor = resize(model, processor, image_size)
    return model.float().eval()


class Logits(nn.Module):
    """A network whose output is its logits."""

    def __init__(self, network: PreTrainedModel) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.network(pixel_values).logits


def measure_runtimes(
    names: Sequence[str],
    runtimes: Sequence[str],
    batch_sizes: Sequence[int],
    rounds: int,
    image_size: int | None = None,
) -> Iterator[Timing]:
    """Yield the timings of networks, the first of which is what the others are compared with.

    Args:
        names: of networks of the zoo, or folders.
        runtimes: some of `RUNTIMES`; one in 8 bits needs its one in float32.
        batch_sizes: images in a batch.
        rounds: in each of which every network and runtime has its turn.
        image_size: pixels a side; the networks' own when None.
    """
    networks = {Path(name).name: load_network(name, image_size) for name in names}
    first, macs = next(iter(networks)), {name: count_macs(model.config) for name, model in networks.items()}
    with tempfile.TemporaryDirectory() as folder:
        sessions = {}
        if {"onnx", "int8"} & set(runtimes):
            for number, (name, model) in enumerate(networks.items()):
                sessions |= export_sessions(name, model, Path(folder, str(number)))
        for batch in batch_sizes:
            height, width = size_pair("image_size", next(iter(networks.values())).config.image_size)
            pixel_values = torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(0))
            works = {
                (name, runtime): make_work(model, runtime, sessions.get((name, runtime)), pixel_values)
                for runtime in runtimes
                for name, model in networks.items()
            }
            taken = dict(zip(works, time_interleaved(list(works.values()), rounds)))
            for (name, runtime), seconds in taken.items():
                ratio = median_ratio(taken[first, RUNTIMES[runtime]], seconds)
                speed = batch / statistics.median(seconds)
                yield Timing(name, macs[name], runtime, batch, round(speed, 2), round(ratio, 3))


def export_sessions(name: str, model: PreTrainedModel, folder: Path) -> dict[tuple[str, str], Any]:
    """Return functions of ONNX Runtime for a network, in float32 and in 8 bits, by its name and the runtime."""
    folder.mkdir()
    write_onnx_files(model, None, folder)
    files = {"onnx": "model.onnx", "int8": "model_quantized.onnx"}
    return {(name, runtime): load_onnxruntime(folder / file) for runtime, file in files.items()}


def make_work(model: PreTrainedModel, runtime: str, session: Any, pixel_values: torch.Tensor) -> Work:
    """Return a pass of a network on a runtime."""
    if session is not None:
        images: np.ndarray = pixel_values.numpy()
        return lambda: session(images)
    return inference_work(Logits(model), pixel_values, torch.float32, compiled=runtime == "compiled")


def to_json(timings: Sequence[Timing]) -> list[dict[str, Any]]:
    return [asdict(timing) for timing in timings]


def from_json(rows: Sequence[dict[str, Any]]) -> list[Timing]:
    return [Timing(**row) for row in rows]


def to_table(timings: Sequence[Timing]) -> str:
    """Return a row for each network and runtime, and two columns for each batch size."""
    batches = list(dict.fromkeys(timing.batch for timing in timings))
    rows: dict[tuple[str, str], dict[int, Timing]] = {}
    for timing in timings:
        rows.setdefault((timing.runtime, timing.network), {})[timing.batch] = timing
    lines = [
        "| runtime | network | MACs, G | " + " | ".join(f"batch {batch}: images/s | ratio" for batch in batches) + " |",
        "| --- | --- | ---: | " + " | ".join("---: | ---:" for _ in batches) + " |",
    ]
    for (runtime, network), of_batch in rows.items():
        cells = " | ".join(f"{of_batch[b].images_per_second:.1f} | {of_batch[b].ratio:.2f}" for b in batches)
        macs = next(iter(of_batch.values())).macs
        lines.append(f"| {TITLES[runtime]} | {network} | {macs / 1e9:.2f} | {cells} |")
    return "\n".join(lines)
