"""Networks and mixers beside their baselines: images a second, memory, and the fraction of what the CPU can do."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import timm
import torch
from torch import nn

from ..models.attention_options import AttentionOptions
from ..models.static_key import ConvStaticKeyAttention, StaticKeyAttention
from ..zoo import create_model
from . import baselines
from .measure import (
    CPU,
    DTYPES,
    TASKS,
    count_module_macs,
    describe_machine,
    inference_work,
    median_ratio,
    peak_macs_per_second,
    peak_memory,
    time_interleaved,
    training_work,
)
from .operators import time_by_operator

IMAGE = (3, 224, 224)
WORKS = {"inference": inference_work, "training": training_work}


@dataclass(frozen=True)
class Comparison:
    """A module of ours and a baseline, on inputs `(batch, *shape)`.

    `baseline` makes its module from ours, so that it can take over the weights.
    """

    name: str
    baseline_name: str
    ours: Callable[[], nn.Module]
    baseline: Callable[[Any], nn.Module]
    shape: tuple[int, ...] = IMAGE
    batch_sizes: tuple[int, ...] = (8, 1)
    tasks: tuple[str, ...] = ("inference",)


def hybrid(name: str, tasks: tuple[str, ...] = ("inference",)) -> Comparison:
    """Return a hybrid network beside timm's CAFormer of its size."""
    return Comparison(
        name, "timm caformer_s18", partial(create_model, name), lambda _: timm.create_model("caformer_s18"), tasks=tasks
    )


COMPARISONS = (
    Comparison(
        "SKA mixer, 320 wide, 14x14",
        "plain SKA",
        partial(StaticKeyAttention, AttentionOptions(320, (14, 14), 10, 32, output_bias=False)),
        baselines.ReferenceMixer,
        (196, 320),
        (32,),
    ),
    Comparison(
        "CSKA mixer, 128 wide, 28x28",
        "plain CSKA",
        partial(ConvStaticKeyAttention, AttentionOptions(128, (28, 28), 8, 16, output_bias=False)),
        baselines.ReferenceMixer,
        (784, 128),
        (8, 1),
    ),
    Comparison(
        "skvit-base-patch16-224",
        "transformers ViT-Base",
        partial(create_model, "skvit-base-patch16-224"),
        lambda _: baselines.transformers_vit_base(),
        tasks=TASKS,
    ),
    Comparison(
        "skvit-base-patch16-224",
        "timm vit_base_patch16_224",
        partial(create_model, "skvit-base-patch16-224"),
        lambda _: timm.create_model("vit_base_patch16_224"),
    ),
    hybrid("skaformer-s18"),
    hybrid("caformer-s18", TASKS),
    hybrid("cskaformer-s18"),
    Comparison(
        "cskaformer-s18",
        "plain CSKAFormer-S18",
        partial(create_model, "cskaformer-s18"),
        lambda _: baselines.plain_cskaformer_s18(),
        tasks=TASKS,
    ),
)


@dataclass(frozen=True)
class Result:
    """Figures of one comparison in one setting; of ours and of the baseline, in this order, where there are two.

    `ratio` is the median over the rounds of the baseline's time to ours; `memory_mib` is allocated over the weights
    (and, in training, the optimizer's state) at the peak; `fraction_of_peak` is of the multiply-adds a second of the
    fastest matrix product, in inference.
    """

    ours: str
    baseline: str
    task: str
    mode: str
    dtype: str
    batch: int
    images_per_second: tuple[float, float]
    ratio: float
    memory_mib: tuple[float, float]
    parameters: tuple[int, int]
    macs: tuple[int, int]
    fraction_of_peak: tuple[float, float] | None


def compare(
    comparisons: Sequence[Comparison],
    tasks: Sequence[str],
    modes: Sequence[str],
    dtypes: Sequence[str],
    batch_sizes: Sequence[int],
    rounds: int,
    device: torch.device = CPU,
) -> Iterator[Result]:
    """Yield a `Result` for each combination of settings that a comparison has."""
    peaks = {dtype: peak_macs_per_second(DTYPES[dtype], device=device) for dtype in dtypes}
    for comparison in comparisons:
        for dtype in dtypes:
            for task in (task for task in tasks if task in comparison.tasks):
                for mode in modes:
                    for batch in (batch for batch in comparison.batch_sizes if batch in batch_sizes):
                        yield measure(comparison, task, mode, dtype, batch, rounds, peaks[dtype], device)


def measure(
    comparison: Comparison,
    task: str,
    mode: str,
    dtype: str,
    batch: int,
    rounds: int,
    peak: float,
    device: torch.device = CPU,
) -> Result:
    """Return the figures of one comparison in one setting; `peak` is the device's multiply-adds a second."""
    modules, inputs = make_pair(comparison, batch)
    modules, inputs = [module.to(device) for module in modules], inputs.to(device)
    # With their weights as an output, all mixers run as the matrix products that are counted.
    options: tuple[dict[str, Any], ...] = ({"output_attentions": True}, {})
    ours, baseline = (count_module_macs(module.eval(), inputs[:1], **given) for module, given in zip(modules, options))
    torch.compiler.reset()
    works = [WORKS[task](module, inputs, DTYPES[dtype], mode == "compiled") for module in modules]
    own, others = time_interleaved(works, rounds)
    speeds = batch / statistics.median(own), batch / statistics.median(others)
    return Result(
        ours=comparison.name,
        baseline=comparison.baseline_name,
        task=task,
        mode=mode,
        dtype=dtype,
        batch=batch,
        images_per_second=speeds,
        ratio=median_ratio(others, own),
        memory_mib=(peak_memory(works[0], device) / 2**20, peak_memory(works[1], device) / 2**20),
        parameters=(count_weights(modules[0]), count_weights(modules[1])),
        macs=(ours, baseline),
        fraction_of_peak=(speeds[0] * ours / peak, speeds[1] * baseline / peak) if task == "inference" else None,
    )


def make_pair(comparison: Comparison, batch: int) -> tuple[list[nn.Module], torch.Tensor]:
    """Return ours, the baseline, and their inputs."""
    torch.manual_seed(0)
    ours = comparison.ours()
    if isinstance(key := getattr(ours, "key", None), nn.Parameter):  # a bare mixer comes without weights
        nn.init.normal_(key, std=0.1)
    return [ours, comparison.baseline(ours)], torch.randn(batch, *comparison.shape)


def count_weights(module: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def profile_operators(
    comparison: Comparison, task: str, dtype: str, batch: int, rounds: int
) -> dict[str, dict[str, float]]:
    """Return the milliseconds of ours and of the baseline by groups of operators."""
    modules, inputs = make_pair(comparison, batch)
    works = [WORKS[task](module, inputs, DTYPES[dtype]) for module in modules]
    names = (comparison.name, comparison.baseline_name)
    return {name: time_by_operator(work, rounds) for name, work in zip(names, works)}


def to_json(results: Sequence[Result], device: torch.device = CPU) -> dict[str, Any]:
    """Return the machine and the results as JSON has them."""
    return {"machine": describe_machine(device=device), "results": [asdict(result) for result in results]}


def from_json(figures: dict[str, Any]) -> list[Result]:
    """Return the results that `to_json` made a dictionary of."""
    pairs = ("images_per_second", "memory_mib", "parameters", "macs", "fraction_of_peak")
    return [
        Result(**result | {name: result[name] and tuple(result[name]) for name in pairs})
        for result in figures["results"]
    ]
