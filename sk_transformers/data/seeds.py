"""Random numbers that depend on the run's seed and on a place in the run alone.

Every draw of a sample, and every step of a process, seeds the generators anew from where it is. So a resumed run goes
on as an uninterrupted one, and a batch is the same however many processes and workers share it, with no state to save.
"""

import random

import numpy as np
import torch
from accelerate.utils import set_seed

EPOCH, STEP, STREAM = range(3)  # what a seed is for, so that no two uses share numbers


def seed_of(*place: int) -> int:
    """A 63-bit seed that depends on all of these non-negative numbers, and on their order."""
    low, high = np.random.SeedSequence(place).generate_state(2, np.uint32)
    return int(high) << 31 ^ int(low)


def seed_sample(seed: int) -> None:
    """Seed what transforms draw from: Python, NumPy and torch on the CPU."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would also queue seeds for devices, which costs


def seed_step(seed: int, device: torch.device) -> None:
    """Seed everything that a training step on this device draws from."""
    if device.type == "cpu":
        seed_sample(seed)
    else:
        set_seed(seed % 2**32)
