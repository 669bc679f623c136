"""What mixers and networks cost: multiply-adds, parameters and measured time."""

import statistics
import time
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

ROUNDS = 7
TIMED_IMAGES = 8


@torch.no_grad()
def mixer_costs(candidate: Any, attention: Any, tokens: torch.Tensor, grid_size: tuple[int, int]) -> dict[str, Any]:
    """Return what a mixer costs beside a layer's attention, on the tokens of one image.

    Args:
        candidate, attention: the mixers.
        tokens: `(1, tokens, channels)`, or `(windows, tokens, channels)` where the image is cut into windows.
        grid_size: of the tokens.

    Returns:
        `macs` and `saved_macs`, `parameters` and `saved_parameters`, and the milliseconds that both take for eight
        images, in turns: `milliseconds` and `attention_milliseconds`.
    """
    macs, attention_macs = (count_macs_of(mixer, tokens, grid_size) for mixer in (candidate, attention))
    parameters, attention_parameters = (sum(p.numel() for p in mixer.parameters()) for mixer in (candidate, attention))
    images = tokens.repeat(TIMED_IMAGES, 1, 1)
    seconds = time_in_turns([lambda m=mixer: m(images, grid_size) for mixer in (candidate, attention)])
    return {
        "macs": macs,
        "saved_macs": attention_macs - macs,
        "parameters": parameters,
        "saved_parameters": attention_parameters - parameters,
        "milliseconds": round(1000 * seconds[0], 3),
        "attention_milliseconds": round(1000 * seconds[1], 3),
    }


def count_macs_of(mixer: Any, tokens: torch.Tensor, grid_size: tuple[int, int]) -> int:
    """Return the multiply-adds of a mixer, in its plain formulation."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        mixer(tokens, grid_size, implementation="eager")
    return counter.get_total_flops() // 2


def time_in_turns(works: list[Any], rounds: int = ROUNDS) -> list[float]:
    """Return the median seconds of each work. They take turns, so that other load falls on all of them."""
    taken: list[list[float]] = [[] for _ in works]
    for _ in range(rounds + 1):
        for work, times in zip(works, taken):
            start = time.perf_counter()
            work()
            if torch.accelerator.is_available():
                torch.accelerator.synchronize()
            times.append(time.perf_counter() - start)
    return [statistics.median(times[1:]) for times in taken]  # the first one warms up


@torch.inference_mode()
def images_per_second(networks: list[nn.Module], pixel_values: torch.Tensor) -> list[float]:
    """Return how many images a second each network takes, in batches such as `pixel_values`."""
    seconds = time_in_turns([lambda n=network: n(pixel_values) for network in networks])
    return [len(pixel_values) / one for one in seconds]
