"""The one switch of all fast paths: off, a network computes as its layers and `reference.py` say.

Where a result looks wrong, compute it again with `SK_TRANSFORMERS_FAST=0` or after `use_fast_paths(False)`: if it
differs, a fast path has a fault.
"""

from collections.abc import Callable
from os import environ

import torch

_enabled = environ.get("SK_TRANSFORMERS_FAST", "1") != "0"

# CSKA's output of query, key, bias and value; a kernel for it takes `(query, key, bias, value, grid_size, scaling,
# attend)`, of which the last does the same without it, and returns None where it does not take such tensors.
Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
NeighborhoodKernel = Callable[..., torch.Tensor | None]
_neighborhood_kernel: NeighborhoodKernel | None = None


def use_fast_paths(enabled: bool | None = None) -> bool:
    """Return whether fast paths are taken; with `enabled`, set it first, for every network of this process.

    A copy of this file that was loaded as remote code has a switch of its own; the environment variable turns all off.
    """
    global _enabled
    if enabled is not None:
        _enabled = enabled
    return _enabled


def use_neighborhood_kernel(kernel: NeighborhoodKernel | None) -> None:
    """Set what CSKA tries before its own ways, for every network of this process; None for nothing, the default."""
    global _neighborhood_kernel
    _neighborhood_kernel = kernel


def neighborhood_kernel() -> NeighborhoodKernel | None:
    """Return what CSKA tries before its own ways; nothing in a graph, which could not look into it."""
    return None if torch.compiler.is_compiling() else _neighborhood_kernel
