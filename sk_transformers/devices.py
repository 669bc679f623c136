"""Threads and devices of a process."""

import os

import torch
from accelerate import Accelerator


def use_all_cores(accelerator: Accelerator) -> None:
    """Share the CPU among this machine's processes, where `accelerate launch` gives each a single thread."""
    if accelerator.device.type == "cpu" and os.environ.get("OMP_NUM_THREADS") == "1":
        local_processes = int(os.environ.get("LOCAL_WORLD_SIZE") or accelerator.num_processes)
        torch.set_num_threads(max(1, available_cores() // local_processes))


def available_cores() -> int:
    """Return the cores that this process may use: a container or `taskset` may leave it fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
