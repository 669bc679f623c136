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

Work = Callable[[], object]


def inference_work(module: nn.Module, inputs: torch.Tensor, dtype: torch.dtype, compiled: bool = False) -> Work:
    """Return a forward pass without gradients, of weights and inputs in `dtype`."""
    module, inputs = module.to(dtype).eval(), inputs.to(dtype)
    function = torch.compile(module) if compiled else module

    def work() -> None:
        with torch.inference_mode():
            function(inputs)

    return work


def training_work(module: nn.Module, inputs: torch.Tensor, dtype: torch.dtype, compiled: bool = False) -> Work:
    """Return a step of training: forward pass, cross-entropy, backward pass and AdamW; in bfloat16 under autocast."""
    module.train()
    function = torch.compile(module) if compiled else module
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-6)
    labels = torch.zeros(len(inputs), dtype=torch.long)  # which classes they are does not matter to the time

    def work() -> None:
        with nullcontext() if dtype == torch.float32 else torch.autocast("cpu", dtype):
            outputs = function(inputs)
            loss = F.cross_entropy(getattr(outputs, "logits", outputs), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return work


def time_interleaved(works: Sequence[Work], rounds: int) -> list[list[float]]:
    """Return the seconds of each work in each round, after a round that does not count.

    Each round runs every work once. Other load on the machine falls on all of them, so that the ratio of two times of
    one round says more than either.
    """
    seconds: list[list[float]] = [[] for _ in works]
    for _ in range(rounds + 1):
        for work, taken in zip(works, seconds):
            start = time.perf_counter()
            work()
            taken.append(time.perf_counter() - start)
    return [taken[1:] for taken in seconds]


def median_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """Return the median over the rounds of a ratio of two times."""
    return statistics.median(a / b for a, b in zip(numerators, denominators))


def peak_memory(work: Work) -> int:
    """Return the bytes that torch holds at the peak of the work, of what it allocates in it: weights do not count."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    held = peak = 0
    results: Any = profiler.profiler
    for event in sorted(results.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


def peak_macs_per_second(dtype: torch.dtype, rounds: int = 7) -> float:
    """Return the multiply-adds a second of the fastest square matrix product, of several sizes: what the CPU can do."""
    factors = [[torch.randn(size, size, dtype=dtype) for _ in range(2)] for size in MATMUL_SIZES]
    seconds = time_interleaved([lambda pair=pair: pair[0] @ pair[1] for pair in factors], rounds)
    return max(size**3 / statistics.median(taken) for size, taken in zip(MATMUL_SIZES, seconds))


def count_module_macs(module: nn.Module, *inputs: torch.Tensor, **options: Any) -> int:
    """Return the multiply-adds of a module on these inputs, attention as the matrix products that it is."""
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        module(*inputs, **options)
    return counter.get_total_flops() // 2


def describe_machine(libraries: tuple[str, ...] = ("torch", "transformers", "timm")) -> dict[str, Any]:
    """Return what figures depend on besides the code, for JSON."""
    return {
        "cpu": cpu_name(),
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "amx": bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()),
        "versions": installed(libraries),
    }
