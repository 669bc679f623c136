"""How time, memory and multiply-adds are measured: in turns, as allocated, and as matrix products come to."""

import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

TASKS = ("inference", "training")
MODES = ("eager", "compiled")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
MATMUL_SIZES = (1024, 2048, 4096)

Work = Callable[[], object]


def take_turns(works: Sequence[Work], rounds: int) -> list[list[float]]:
    """Seconds of each work in each round, after a round that does not count.

    What else the machine does falls on all of them, so that the ratio of two times of a round says more than either.
    """
    seconds: list[list[float]] = [[] for _ in works]
    for _ in range(rounds + 1):
        for work, taken in zip(works, seconds):
            start = time.perf_counter()
            work()
            taken.append(time.perf_counter() - start)
    return [taken[1:] for taken in seconds]


def median_ratio(numerators: list[float], denominators: list[float]) -> float:
    """The median over the rounds of a ratio of two times."""
    return statistics.median(a / b for a, b in zip(numerators, denominators))


def peak_memory(work: Work) -> int:
    """Bytes that torch holds at the peak of the work, of what it allocates during it: the weights do not count."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    held = peak = 0
    for event in sorted(profiler.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


def matmul_peak(dtype: torch.dtype, rounds: int = 7) -> float:
    """Multiply-adds a second of the fastest square matrix product, of several sizes: what the processor can do."""
    factors = [[torch.randn(size, size, dtype=dtype) for _ in range(2)] for size in MATMUL_SIZES]
    seconds = take_turns([lambda pair=pair: pair[0] @ pair[1] for pair in factors], rounds)
    return max(size**3 / statistics.median(taken) for size, taken in zip(MATMUL_SIZES, seconds))


def count_module_macs(module: nn.Module, *inputs: torch.Tensor, **options) -> int:
    """Multiply-adds of a module on these inputs, attention as the matrix products that it is."""
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        module(*inputs, **options)
    return counter.get_total_flops() // 2
