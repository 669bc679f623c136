"""How time, memory and multiply-adds of a piece of work are measured, and what the figures depend on."""

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from ..provenance import cpu_name, installed

TASKS = ("inference", "training")
MODES = ("eager", "compiled")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
MATMUL_SIZES = (1024, 2048, 4096)

CPU = torch.device("cpu")

Work = Callable[[], object]


def inference_work(module: nn.Module, inputs: torch.Tensor, dtype: torch.dtype, compiled: bool = False) -> Work:
    """Return a forward pass without gradients, of weights and inputs in `dtype`, on the device that these are on."""
    module, inputs = module.to(dtype).eval(), inputs.to(dtype)
    function = torch.compile(module) if compiled else module

    def work() -> None:
        with torch.inference_mode():
            function(inputs)
        synchronize(inputs.device)

    return work


def training_work(module: nn.Module, inputs: torch.Tensor, dtype: torch.dtype, compiled: bool = False) -> Work:
    """Return a step of training: forward pass, cross-entropy, backward pass and AdamW; in 16 bits under autocast."""
    module.train()
    function = torch.compile(module) if compiled else module
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-6)
    # Which classes they are does not matter to the time.
    labels = torch.zeros(len(inputs), dtype=torch.long, device=inputs.device)

    def work() -> None:
        with nullcontext() if dtype == torch.float32 else torch.autocast(inputs.device.type, dtype):
            outputs = function(inputs)
            loss = F.cross_entropy(getattr(outputs, "logits", outputs), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        synchronize(inputs.device)

    return work


def synchronize(device: torch.device) -> None:
    """Wait until an accelerator has done what it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def time_interleaved(
    works: Sequence[Work], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> list[list[float]]:
    """Return the seconds of each work in each round by a clock, after a round that does not count.

    Each round runs every work once. Other load on the machine falls on all of them, so that the ratio of two times of
    one round says more than either.
    """
    seconds: list[list[float]] = [[] for _ in works]
    for _ in range(rounds + 1):
        for work, taken in zip(works, seconds):
            start = clock()
            work()
            taken.append(clock() - start)
    return [taken[1:] for taken in seconds]


def median_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """Return the median over the rounds of a ratio of two times."""
    return statistics.median(a / b for a, b in zip(numerators, denominators))


def peak_memory(work: Work, device: torch.device = CPU) -> int:
    """Return the bytes that torch holds at the peak of the work, of what it allocates in it: weights do not count."""
    if device.type != "cpu":
        torch.accelerator.reset_peak_memory_stats(device)
        before = torch.accelerator.memory_allocated(device)
        work()
        return torch.accelerator.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    held = peak = 0
    results: Any = profiler.profiler
    for event in sorted(results.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


def peak_macs_per_second(dtype: torch.dtype, rounds: int = 7, device: torch.device = CPU) -> float:
    """Return the multiply-adds a second of the fastest of some square matrix products: what a device can do."""

    def product_of(size: int) -> Work:
        left, right = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
        return lambda: (left @ right, synchronize(device))

    seconds = time_interleaved([product_of(size) for size in MATMUL_SIZES], rounds)
    return max(size**3 / statistics.median(taken) for size, taken in zip(MATMUL_SIZES, seconds))


def count_module_macs(module: nn.Module, *inputs: torch.Tensor, **options: Any) -> int:
    """Return the multiply-adds of a module on these inputs, attention as the matrix products that it is."""
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        module(*inputs, **options)
    return counter.get_total_flops() // 2


def describe_machine(
    libraries: tuple[str, ...] = ("torch", "transformers", "timm"), device: torch.device = CPU
) -> dict[str, Any]:
    """Return what figures depend on besides the code, for JSON."""
    accelerator = {} if device.type == "cpu" else {"accelerator": accelerator_name(device)}
    return {
        **accelerator,
        "cpu": cpu_name(),
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "amx": bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()),
        "versions": installed(libraries),
    }


def accelerator_name(device: torch.device) -> str:
    """Return an accelerator as its maker calls it, with the version of what drives it, or the name torch has for it."""
    if device.type != "cuda":
        return device.type
    return f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda or torch.version.hip}"
