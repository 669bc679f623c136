"""Our networks and mixers beside their peers: images a second, memory, and the share of what the processor can do."""

import math
import os
import statistics
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version

import timm
import torch
from torch import nn
from torch.nn import functional as F

from ..models.static_key import ConvStaticKeyAttention, StaticKeyAttention
from ..zoo import create_model
from . import baselines
from .measure import DTYPES, MODES, TASKS, Work, count_module_macs, matmul_peak, median_ratio, peak_memory, take_turns
from .operators import time_by_kind

IMAGE = (3, 224, 224)
LIBRARIES = ("torch", "transformers", "timm")

Make = Callable[[], nn.Module]


@dataclass(frozen=True)
class Contest:
    """One of ours and a peer, on inputs `(batch, *shape)`.

    `peer` makes its module from ours where it is to have the same weights.
    """

    name: str
    peer_name: str
    ours: Make
    peer: Callable[[nn.Module], nn.Module]
    shape: tuple[int, ...] = IMAGE
    batch_sizes: tuple[int, ...] = (8, 1)
    tasks: tuple[str, ...] = ("inference",)


def _hybrid(name: str, tasks: tuple[str, ...] = ("inference",)) -> Contest:
    return Contest(
        name, "timm caformer_s18", partial(create_model, name), lambda _: timm.create_model("caformer_s18"), tasks=tasks
    )


CONTESTS = (
    Contest(
        "SKA mixer, 320 wide, 14x14",
        "plain SKA",
        partial(StaticKeyAttention, 320, (14, 14), 10, 32, output_bias=False),
        baselines.PlainStaticKeyAttention,
        (196, 320),
        (32,),
    ),
    Contest(
        "CSKA mixer, 128 wide, 28x28",
        "plain CSKA",
        partial(ConvStaticKeyAttention, 128, (28, 28), 8, 16, output_bias=False),
        baselines.PlainConvStaticKeyAttention,
        (784, 128),
        (8, 1),
    ),
    Contest(
        "skvit-base-patch16-224",
        "transformers ViT-Base",
        partial(create_model, "skvit-base-patch16-224"),
        lambda _: baselines.transformers_vit_base(),
        tasks=TASKS,
    ),
    Contest(
        "skvit-base-patch16-224",
        "timm vit_base_patch16_224",
        partial(create_model, "skvit-base-patch16-224"),
        lambda _: timm.create_model("vit_base_patch16_224"),
    ),
    _hybrid("skaformer-s18"),
    _hybrid("caformer-s18", TASKS),
    _hybrid("cskaformer-s18"),
    Contest(
        "cskaformer-s18",
        "plain CSKAFormer-S18",
        partial(create_model, "cskaformer-s18"),
        lambda _: baselines.plain_cskaformer_s18(),
        tasks=TASKS,
    ),
)


@dataclass(frozen=True)
class Result:
    """Figures of ours and of the peer, in this order, where there are two.

    `ratio` is the median over the rounds of the peer's time to ours; `memory_mib` is allocated over the weights (and,
    in training, the optimizer's state) at the peak; `share_of_peak` is of the multiply-adds a second of the fastest
    matrix product, in inference.
    """

    ours: str
    peer: str
    task: str
    mode: str
    dtype: str
    batch: int
    images_per_second: tuple[float, float]
    ratio: float
    memory_mib: tuple[float, float]
    parameters: tuple[int, int]
    macs: tuple[int, int]
    share_of_peak: tuple[float, float] | None


def compare(contests, tasks, modes, dtypes, batch_sizes, rounds: int) -> Iterator[Result]:
    """A `Result` for each combination that a contest has."""
    peaks = {dtype: matmul_peak(DTYPES[dtype]) for dtype in dtypes}
    for contest in contests:
        for dtype in dtypes:
            for task in (task for task in tasks if task in contest.tasks):
                for mode in modes:
                    for batch in (batch for batch in contest.batch_sizes if batch in batch_sizes):
                        yield run(contest, task, mode, dtype, batch, rounds, peaks[dtype])


def profile_kinds(contest: Contest, task: str, dtype: str, batch: int, rounds: int) -> dict[str, dict[str, float]]:
    """Milliseconds of ours and of the peer by the kind of operator."""
    modules, inputs = make_pair(contest, batch)
    works = [WORKS[task](module, inputs, DTYPES[dtype], False) for module in modules]
    names = (contest.name, contest.peer_name)
    return {name: time_by_kind(work, rounds) for name, work in zip(names, works)}


def make_pair(contest: Contest, batch: int) -> tuple[list[nn.Module], torch.Tensor]:
    """Ours, the peer, and their inputs."""
    torch.manual_seed(0)
    ours = contest.ours()
    nn.init.normal_(ours.key, std=0.1) if hasattr(ours, "key") else None  # a bare mixer comes without weights
    return [ours, contest.peer(ours)], torch.randn(batch, *contest.shape)


def run(contest: Contest, task: str, mode: str, dtype: str, batch: int, rounds: int, peak: float) -> Result:
    modules, inputs = make_pair(contest, batch)
    macs = [
        count_module_macs(module.eval(), inputs[:1], **options)
        for module, options in zip(modules, ({"output_attentions": True}, {}))
    ]
    torch.compiler.reset()
    works = [WORKS[task](module, inputs, DTYPES[dtype], mode == "compiled") for module in modules]
    seconds = take_turns(works, rounds)
    speeds = [batch / statistics.median(taken) for taken in seconds]
    return Result(
        contest.name,
        contest.peer_name,
        task,
        mode,
        dtype,
        batch,
        tuple(speeds),
        median_ratio(seconds[1], seconds[0]),
        tuple(peak_memory(work) / 2**20 for work in works),
        tuple(sum(p.numel() for p in module.parameters()) for module in modules),
        tuple(macs),
        tuple(speed * count / peak for speed, count in zip(speeds, macs)) if task == "inference" else None,
    )


def inference_work(module: nn.Module, inputs: torch.Tensor, dtype: torch.dtype, compiled: bool) -> Work:
    module, inputs = module.to(dtype).eval(), inputs.to(dtype)
    function = torch.compile(module) if compiled else module

    def work():
        with torch.inference_mode():
            function(inputs)

    return work


def training_work(module: nn.Module, inputs: torch.Tensor, dtype: torch.dtype, compiled: bool) -> Work:
    """Forward pass, cross-entropy, backward pass and AdamW, in bfloat16 under autocast."""
    module.train()
    function = torch.compile(module) if compiled else module
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-6)
    labels = torch.randint(1000, (len(inputs),))

    def work():
        with nullcontext() if dtype == torch.float32 else torch.autocast("cpu", dtype):
            outputs = function(inputs)
            loss = F.cross_entropy(getattr(outputs, "logits", outputs), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return work


WORKS = {"inference": inference_work, "training": training_work}


def describe_machine() -> dict:
    """What the figures depend on besides the code."""
    with open("/proc/cpuinfo") if os.path.exists("/proc/cpuinfo") else nullcontext([]) as lines:
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else "unknown",
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "amx": bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()),
        "versions": {name: version(name) for name in LIBRARIES},
    }


def to_table(results: list[Result]) -> str:
    """Markdown: a row for each result, a table for each task and mode."""
    tables = []
    for task in TASKS:
        for mode in MODES:
            chosen = [result for result in results if (result.task, result.mode) == (task, mode)]
            if chosen:
                tables.append(f"**{task}, {mode}**\n\n" + "\n".join([*HEADER, *map(to_row, chosen)]))
    return "\n\n".join(tables)


HEADER = (
    "| ours | peer | dtype | batch | images/s | peer's | ratio | MiB | peer's | of peak | peer's |",
    "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
)


def to_row(result: Result) -> str:
    shares = result.share_of_peak or (math.nan, math.nan)
    cells = [
        result.ours,
        result.peer,
        result.dtype,
        str(result.batch),
        *(f"{speed:.4g}" for speed in result.images_per_second),
        f"{result.ratio:.2f}",
        *(f"{memory:.0f}" for memory in result.memory_mib),
        *("" if math.isnan(share) else f"{share:.0%}" for share in shares),
    ]
    return f"| {' | '.join(cells)} |"


def to_summary(results: list[Result]) -> str:
    """Markdown: the ratios of the eager networks at their largest batch, a row for each peer and task."""
    eager = [result for result in results if result.mode == "eager"]
    lines = ["| | beside | float32 | bfloat16 | memory |", "| --- | --- | ---: | ---: | ---: |"]
    for task, ours, peer in dict.fromkeys((r.task, r.ours, r.peer) for r in sorted(eager, key=lambda r: r.task)):
        rows = [result for result in eager if (result.task, result.ours, result.peer) == (task, ours, peer)]
        batch = max(result.batch for result in rows)
        ratios = {result.dtype: f"{result.ratio:.2f}x" for result in rows if result.batch == batch}
        mine, theirs = next(result.memory_mib for result in rows if result.batch == batch)
        name = f"{ours}, batch {batch}" if task == "inference" else f"{ours}, batch {batch}, training"
        cells = [name, peer, *(ratios.get(dtype, "") for dtype in DTYPES), f"{mine / theirs:.2f}x"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def to_sentence(machine: dict) -> str:
    """The machine and the versions, as the last line of a table."""
    amx = " with AMX" if machine["amx"] else ""
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    return f"{machine['processor']}, {machine['threads']} threads, {machine['capability']}{amx}; {versions}."


def from_json(figures: dict) -> list[Result]:
    """What `to_json` made a dictionary of."""
    fields = ("images_per_second", "memory_mib", "parameters", "macs", "share_of_peak")
    return [
        Result(**result | {name: result[name] and tuple(result[name]) for name in fields})
        for result in figures["results"]
    ]


def to_json(results: list[Result]) -> dict:
    return {"machine": describe_machine(), "results": [asdict(result) for result in results]}
