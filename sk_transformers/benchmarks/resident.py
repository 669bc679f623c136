"""How much memory a network in a runtime adds to a process of its own, whatever allocates it."""

import importlib
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from .doors import DOORS


def resident_memory(runtime: str, file: Path, shape: tuple[int, ...]) -> int | None:
    """Return the bytes by which a fresh process grows, at its peak, to load a network and run it twice.

    What it takes to import the runtime and the network's code does not count, and what it takes to compile it does.

    Args:
        runtime: one of `DOORS`.
        file: what its `write` returned.
        shape: of the images, `(batch, channels, height, width)`.

    Returns:
        None where the system does not say it: it is read from Linux's `/proc`.
    """
    if not sys.platform.startswith("linux"):
        return None
    # Neither a fork, whose memory is its parent's, nor its getrusage, whose peak is: a new program starts from its own.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(growth, runtime, file, shape, torch.get_num_threads()).result()


def growth(runtime: str, file: Path, shape: tuple[int, ...], threads: int) -> int:
    """Return by how many bytes this process grows to load a network and run it twice."""
    door = DOORS[runtime]
    for package in (door.package, "timm"):  # whose networks the baselines' files name
        importlib.import_module(package)
    torch.set_num_threads(threads)
    images, before = np.zeros(shape, np.float32), read_status("VmRSS")
    graph = door.load(file)
    graph(images)
    graph(images)
    return read_status("VmHWM") - before


def read_status(field: str) -> int:
    """Return a figure of this process in bytes: `VmRSS`, the memory that it has, or `VmHWM`, the most that it had."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (line,) = (line for line in lines if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024
