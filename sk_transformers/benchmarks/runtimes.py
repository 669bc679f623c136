"""Networks in turns in the runtimes that they are deployed in: latency, throughput, size and accuracy."""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch

from ..complexity import count_macs
from ..data.labeled import load_data
from ..data.loaders import eval_loader
from ..data.options import DataOptions
from ..data.transforms import eval_transform
from ..evaluation.onnx import BATCH_SIZE, count_right
from ..evaluation.predictions import map_labels
from ..hub.graph_runtimes import Graph
from ..models.configuration_checks import size_pair
from ..pretrained import class_names, load_classifier, load_model, resize
from ..zoo import create_model
from .doors import DOORS, Logits, Network
from .measure import count_module_macs, describe_machine, median_ratio, time_interleaved
from .resident import resident_memory
from .speed_report import to_source

LABELS = {0: "no", 1: "yes"}  # of the classifier that networks without one get, whose cost does not show
GROUPS = {  # what the page shows: the baseline first
    "hybrids": ["timm:caformer_s18", "caformer-s18", "skaformer-s18", "cskaformer-s18"],
    "vits": ["timm:vit_base_patch16_224", "skvit-base-patch16-224"],
    "trained": [
        "model_cards/vit-micro-patch4-32",
        "model_cards/skvit-micro-patch4-32",
        "model_cards/caformer-micro-32",
        "model_cards/skaformer-micro-32",
        "model_cards/cskaformer-micro-32",
    ],
}
Key = tuple[Network, str]  # with a runtime


@dataclass(frozen=True)
class Timing:
    """Inference of a network in one runtime at one batch size.

    Args:
        network: its name, and its multiply-adds `macs` for an image.
        runtime: one of `DOORS`.
        batch: images in a batch.
        milliseconds, milliseconds_99: of a batch, the median and the 99th percentile.
        ratio: how many times as fast it is as the first network in the same runtime, the median over rounds.
        gain: how many times as fast it is as itself in float32, or None where that was not measured.
        bytes: of the file.
        top1: the fraction of a data set's images that it classifies right, where it was measured.
        memory: bytes, see `resident_memory`, where it was measured.
    """

    network: str
    macs: int
    runtime: str
    batch: int
    milliseconds: float
    milliseconds_99: float
    ratio: float
    gain: float | None
    bytes: int
    top1: float | None = None
    memory: int | None = None


def load_network(name: str, folder: Path, image_size: int | None = None) -> Network:
    """Return a network by its name in the zoo or, after `timm:`, in timm, with fresh weights, or from a repo folder.

    Args:
        name: of the network.
        folder: for what is written of it.
        image_size: pixels a side, of one of ours; the network's own when None.
    """
    if name.startswith("timm:"):
        module: Any = timm.create_model(name.removeprefix("timm:")).eval()
        height, width = module.default_cfg["input_size"][1:]
        macs = count_module_macs(module, torch.zeros(1, 3, height, width))
        return Network(name.replace(":", " "), module, (height, width), macs, folder)
    model: Any
    processor = None
    if not Path(name).is_dir():
        model = create_model(name) if image_size is None else create_model(name, image_size=image_size)
    else:
        try:
            model, processor = load_classifier(name)
        except ValueError:  # it has no head, whose cost does not show
            model, processor = load_model(name, LABELS)
        if image_size is not None and model.config.image_size != image_size:
            model, processor = resize(model, processor, image_size)
    model, size = model.float().eval(), size_pair("image_size", model.config.image_size)
    return Network(Path(name).name, Logits(model), size, count_macs(model.config), folder, model, processor)


def measure_runtimes(
    names: Sequence[str],
    runtimes: Sequence[str],
    batch_sizes: Sequence[int],
    rounds: int,
    image_size: int | None = None,
    latency_rounds: int = 0,
    data: DataOptions | None = None,
    clock: Callable[[], float] = time.perf_counter,
    memory: bool = False,
) -> Iterator[Timing]:
    """Yield the timings of networks, the first of which is what the others are compared with.

    Args:
        names: of networks, see `load_network`.
        runtimes: some of `DOORS`.
        batch_sizes: images in a batch.
        rounds: in each of which every network and runtime has its turn.
        image_size: pixels a side; the networks' own when None.
        latency_rounds: rounds at batch 1, if they are more.
        data: images whose classes the networks know, to measure accuracies on.
        clock: seconds.
        memory: whether to measure it at the largest batch size, in a process for each network and runtime.
    """
    with tempfile.TemporaryDirectory() as folder:
        networks = []
        for number, name in enumerate(names):
            Path(folder, str(number)).mkdir()
            networks.append(load_network(name, Path(folder, str(number)), image_size))
        files = {(network, runtime): DOORS[runtime].write(network) for runtime in runtimes for network in networks}
        graphs = {(network, runtime): DOORS[runtime].load(file) for (network, runtime), file in files.items()}
        accuracies = {} if data is None else measure_accuracies(networks, graphs, data)
        for batch in batch_sizes:
            count = max(rounds, latency_rounds) if batch == 1 else rounds
            taken, measured = time_graphs(graphs, batch, count, clock), memory and batch == max(batch_sizes)
            for (network, runtime), seconds in taken.items():
                float32, file = taken.get((network, DOORS[runtime].float32)), files[network, runtime]
                yield Timing(
                    network.name,
                    network.macs,
                    runtime,
                    batch,
                    milliseconds=round(1e3 * float(np.median(seconds)), 3),
                    milliseconds_99=round(1e3 * float(np.percentile(seconds, 99)), 3),
                    ratio=round(median_ratio(taken[networks[0], runtime], seconds), 3),
                    gain=None if float32 is None else round(median_ratio(float32, seconds), 3),
                    bytes=file.stat().st_size,
                    top1=accuracies.get((network, runtime)),
                    memory=resident_memory(runtime, file, (batch, 3, *network.image_size)) if measured else None,
                )


def time_graphs(
    graphs: dict[Key, Graph], batch: int, rounds: int, clock: Callable[[], float]
) -> dict[Key, list[float]]:
    """Return the seconds of each round of each network in each runtime, on the same random images."""
    generator = np.random.default_rng(0)
    sizes = {network.image_size for network, _ in graphs}
    images = {size: generator.standard_normal((batch, 3, *size)).astype(np.float32) for size in sizes}
    works = [partial(graph, images[network.image_size]) for (network, _), graph in graphs.items()]
    return dict(zip(graphs, time_interleaved(works, rounds, clock)))


def measure_accuracies(networks: Sequence[Network], graphs: dict[Key, Graph], options: DataOptions) -> dict[Key, float]:
    """Return the fraction of a data set's validation images that each network classifies right in each runtime.

    Raises:
        ValueError: if a network is not trained, or does not know the classes.
    """
    data, accuracies = load_data(options), {}
    for network in networks:
        if network.model is None or network.processor is None:
            raise ValueError(f"--dataset: {network.name} is not trained: name folders of trained classifiers.")
        keys = [key for key in graphs if key[0] is network]
        loader = eval_loader(data.validation, eval_transform(network.processor), BATCH_SIZE)
        label_map = map_labels(data.labels, class_names(network.model.config))
        right, images = count_right([graphs[key] for key in keys], loader, label_map)
        accuracies |= dict(zip(keys, (right / images).tolist()))
    return accuracies


def describe() -> dict[str, Any]:
    """Return the machine and the versions that figures depend on."""
    return describe_machine(("torch", "timm", "onnxruntime", "openvino"))


def from_json(run: dict[str, Any]) -> list[Timing]:
    """Return the timings of one of the runs in a file of figures."""
    return [Timing(**timing) for timing in run["timings"]]


def to_text(figures: dict[str, Any]) -> str:
    """Return the table of each run, with its command and its machine below."""
    return "\n\n".join(f"{to_table(from_json(run))}\n\n{to_source(run)}" for run in figures["runs"])


def to_table(timings: Sequence[Timing]) -> str:
    """Return a row for each runtime and network: at batch 1 latencies, at other batches images a second."""
    batches = list(dict.fromkeys(timing.batch for timing in timings))
    optional = [  # the heads of columns that only some runs have, and their cells
        (head, cell) for head, cell in OPTIONAL_CELLS.items() if any(cell(timing) for timing in timings)
    ]
    heads = ["runtime", "network", *(head for batch in batches for head in heads_of(batch)), "of float32", "MiB"]
    heads += [head for head, _ in optional]
    rows: dict[tuple[str, str], list[Timing]] = {}
    for timing in timings:
        rows.setdefault((timing.runtime, timing.network), []).append(timing)
    lines = [line(heads), line(["---", "---", *("---:" for _ in heads[2:])])]
    for (runtime, network), of_batches in rows.items():
        last = of_batches[-1]
        cells = [cell for timing in of_batches for cell in cells_of(timing)]
        gain = "" if last.gain is None or DOORS[runtime].float32 == runtime else f"{last.gain:.2f}"
        more = [cell(last) for _, cell in optional]
        lines.append(line([DOORS[runtime].title, network, *cells, gain, f"{last.bytes / 2**20:.1f}", *more]))
    return "\n".join(lines)


def to_summary(figures: dict[str, Any]) -> str:
    """Return a row for each network beside its baseline: ratios in float32 at the largest batch, by runtime."""
    doors = [name for name, door in DOORS.items() if door.float32 == name]
    measured = {timing.runtime for run in figures["runs"] for timing in from_json(run)}
    doors = [name for name in doors if name in measured]
    lines = [
        line(["", "beside", *(DOORS[door].title for door in doors)]),
        line(["---", "---", *("---:" for _ in doors)]),
    ]
    for run in figures["runs"]:
        timings = from_json(run)
        largest, baseline = max(timing.batch for timing in timings), timings[0].network
        ratios = {(t.network, t.runtime): f"{t.ratio:.2f}x" for t in timings if t.batch == largest}
        for network in dict.fromkeys(timing.network for timing in timings if timing.network != baseline):
            cells = [ratios.get((network, door), "") for door in doors]
            lines.append(line([f"{network}, batch {largest}", baseline, *cells]))
    return "\n".join(lines)


OPTIONAL_CELLS: dict[str, Callable[[Timing], str]] = {
    "memory, MiB": lambda timing: "" if timing.memory is None else f"{timing.memory / 2**20:.0f}",
    "top-1, %": lambda timing: "" if timing.top1 is None else f"{100 * timing.top1:.2f}",
}


def line(cells: Sequence[str]) -> str:
    """Return a line of a table."""
    return f"| {' | '.join(cells)} |"


def heads_of(batch: int) -> list[str]:
    """Return the heads of the columns of a batch size."""
    return ["batch 1: ms", "99%", "ratio"] if batch == 1 else [f"batch {batch}: images/s", "ratio"]


def cells_of(timing: Timing) -> list[str]:
    """Return what stands below `heads_of`."""
    ratio = f"{timing.ratio:.2f}"
    if timing.batch == 1:
        return [f"{timing.milliseconds:.3g}", f"{timing.milliseconds_99:.3g}", ratio]
    return [f"{1e3 * timing.batch / timing.milliseconds:.4g}", ratio]
