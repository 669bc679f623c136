"""Backbones for dense prediction beside their peers: what the maps of four stages of a large image cost.

Every network sees the same images: random pixels, padded with zeros at the right and at the bottom to whole strides of
the coarsest map, as segmenters and detectors pad them (`pad_to_multiple`). The padding itself is not timed.
"""

import copy
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import timm
import torch
from torch import nn
from transformers import AutoBackbone, AutoConfig, PretrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from ..models.grids import GridCache
from ..models.segmentation import pad_to_multiple
from .measure import DTYPES, count_module_macs, inference_work, median_ratio, peak_memory, time_interleaved
from .operators import time_by_operator
from .operators import to_table as to_operator_table
from .resolution import configs_by_mode
from .speed import count_weights
from .speed_report import to_source

NETWORKS = ("timm:caformer_s18", "caformer-s18", "skaformer-s18", "cskaformer-s18", "transformers:swin")
STAGES = 4
STRIDE = 32  # of the coarsest of four maps
HEADER = (
    "| backbone | parameters, M | MACs, G | seconds | ratio | MiB | ratio | resized keys, MiB |",
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
)
Build = Callable[[], nn.Module]


@dataclass(frozen=True)
class Cost:
    """The maps of four stages of one image, without gradients.

    Args:
        network: what it is called.
        size: height and width in pixels, before padding.
        dtype: one of `DTYPES`.
        parameters, macs: of the backbone; multiply-adds of the padded image.
        seconds: the median over the rounds.
        ratio: how many times as fast it is as the first network, the median over the rounds.
        mib: what the pass allocates at its peak over weights and resized keys.
        kept_mib: of static keys that were resized to this image's grids in the first pass, and are kept.
        operators: milliseconds by groups of operators, where it was profiled.
    """

    network: str
    size: tuple[int, int]
    dtype: str
    parameters: int
    macs: int
    seconds: float
    ratio: float
    mib: float
    kept_mib: float
    operators: dict[str, float] | None = None


def backbones_of(name: str) -> dict[str, Build]:
    """Return what makes the backbones that a name stands for, with fresh weights, by what each is called.

    Args:
        name: of the zoo, with one backbone for each mode that its static keys can do (`configs_by_mode`);
            after `timm:`, a name of timm's; after `transformers:`, a kind of model there, in its default configuration.

    Raises:
        ValueError: if there is no such network, or it has no stages.
    """
    library, _, kind = name.rpartition(":")
    if library == "timm":
        if not timm.is_model(kind):
            raise ValueError(f"{name}: timm has no model of this name; timm.list_models() has them all.")
        return {f"timm {kind}": partial(timm.create_model, kind, features_only=True)}
    if library == "transformers":
        if kind not in CONFIG_MAPPING or len(getattr(AutoConfig.for_model(kind), "stage_names", ())) <= STAGES:
            raise ValueError(f"{name}: expected a kind of backbone of transformers with {STAGES} stages, such as swin.")
        return {f"transformers {kind}": partial(build_backbone, AutoConfig.for_model(kind))}
    configs = configs_by_mode(name)
    if not all(config.has_stages and len(config.stage_names) > STAGES for config in configs.values()):
        raise ValueError(f"{name}: expected a network of {STAGES} stages, such as skaformer-s18.")
    return {label: partial(build_backbone, config) for label, config in configs.items()}


def build_backbone(config: PretrainedConfig) -> nn.Module:
    """Return the backbone that gives the maps of its last four stages."""
    config = copy.deepcopy(config)
    config.out_features = config.stage_names[-STAGES:]
    return AutoBackbone.from_config(config)


def measure_backbones(
    names: Sequence[str],
    sizes: Sequence[tuple[int, int]],
    dtypes: Sequence[str],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
    with_operators: bool = False,
) -> Iterator[Cost]:
    """Yield the costs of backbones, which take turns; the first is what the others are compared with.

    Args:
        names: of networks, see `backbones_of`.
        sizes: of images, height and width in pixels.
        dtypes: of weights and images, some of `DTYPES`.
        rounds: that are timed, after one that resizes static keys.
        clock: seconds.
        with_operators: whether to profile them, too, at the last size.
    """
    builds: dict[str, Build] = {}
    for name in names:
        builds |= backbones_of(name)
    networks = {name: build().eval() for name, build in builds.items()}
    for dtype in dtypes:
        for size in sizes:
            image = pad_to_multiple(torch.randn(1, 3, *size), (STRIDE, STRIDE))
            works = [inference_work(network, image, DTYPES[dtype]) for network in networks.values()]
            times = time_interleaved(works, rounds, clock)
            for (name, network), work, seconds in zip(networks.items(), works, times):
                yield Cost(
                    network=name,
                    size=size,
                    dtype=dtype,
                    parameters=count_weights(network),
                    macs=count_macs(builds[name], image),
                    seconds=statistics.median(seconds),
                    ratio=median_ratio(times[0], seconds),
                    mib=peak_memory(work) / 2**20,
                    kept_mib=kept_bytes(network) / 2**20,
                    operators=time_by_operator(work, 1) if with_operators and size == sizes[-1] else None,
                )
                clear(network)


def count_macs(build: Build, image: torch.Tensor) -> int:
    """Return the multiply-adds of a pass over the image, counted without doing them."""
    with torch.device("meta"):
        network = build().eval()
    return count_module_macs(network, image.to("meta"))


def kept_bytes(network: nn.Module) -> int:
    """Return the bytes of what the layers made of their static keys for this image, and keep."""
    caches = [module.cache for module in network.modules() if isinstance(module, GridCache)]
    return sum(tensor.nbytes for cache in caches for _, made in cache.values() for tensor in made)


def clear(network: nn.Module) -> None:
    """Have the network forget the keys that it resized for images of one size."""
    network.train().eval()


def from_json(run: dict[str, Any]) -> list[Cost]:
    """Return the costs of one of the runs in a file of figures."""
    return [Cost(**cost | {"size": tuple(cost["size"])}) for cost in run["costs"]]


def to_json(costs: Sequence[Cost]) -> list[dict[str, Any]]:
    """Return costs as JSON has them, without digits that say nothing."""
    return [
        asdict(cost)
        | {name: round(getattr(cost, name), 4) for name in ("seconds", "ratio", "mib", "kept_mib")}
        | {"operators": cost.operators and {name: round(spent, 2) for name, spent in cost.operators.items()}}
        for cost in costs
    ]


def to_text(figures: dict[str, Any]) -> str:
    """Return the tables of each run, with its command and its machine below."""
    return "\n\n".join(f"{to_tables(from_json(run))}\n\n{to_source(run)}" for run in figures["runs"])


def to_tables(costs: Sequence[Cost]) -> str:
    """Return tables for each size and dtype: a row for each backbone and, where profiled, where its time goes."""
    tables = []
    for size, dtype in dict.fromkeys((cost.size, cost.dtype) for cost in costs):
        chosen = [cost for cost in costs if (cost.size, cost.dtype) == (size, dtype)]
        title = f"**{size[0]}x{size[1]}, {dtype}**"
        tables.append(f"{title}\n\n" + "\n".join([*HEADER, *(to_row(cost, chosen[0]) for cost in chosen)]))
        operators = {cost.network: cost.operators for cost in chosen if cost.operators}
        if operators:
            tables.append(f"{title}, by groups of operators\n\n{to_operator_table(operators)}")
    return "\n\n".join(tables)


def to_row(cost: Cost, baseline: Cost) -> str:
    """Return the row of a backbone: a ratio of times is over 1 if it is faster, one of memory if it holds more."""
    cells = [
        cost.network,
        f"{cost.parameters / 1e6:.1f}",
        f"{cost.macs / 1e9:.1f}",
        f"{cost.seconds:#.3g}",
        f"{cost.ratio:.2f}",
        f"{cost.mib:.0f}",
        f"{cost.mib / baseline.mib:.2f}",
        f"{cost.kept_mib:.0f}" if cost.kept_mib else "",
    ]
    return f"| {' | '.join(cells)} |"
