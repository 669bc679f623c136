"""How long a training step of one network takes beside that of another."""

from functools import partial

import torch
from transformers import AutoModelForImageClassification, PretrainedConfig

from ..models.configuration_checks import size_pair
from .measure import take_turns


def measure_steps(configs: list[PretrainedConfig], batch_sizes: list[int], rounds: int) -> list[list[float]]:
    """Seconds of a step in each round, for each network: forward, backward and AdamW, on random images.

    The networks take turns, a step in each round, so that what else the machine does falls on all of them, and the
    ratio of two times of one round says more than either. A first round, in which memory is found, does not count.
    """
    models = [AutoModelForImageClassification.from_config(config).train() for config in configs]
    optimizers = [torch.optim.AdamW(model.parameters(), lr=1e-6) for model in models]
    batches = [random_batch(config, size) for config, size in zip(configs, batch_sizes)]
    steps = [partial(take_step, *given) for given in zip(models, optimizers, batches)]
    return take_turns(steps, rounds)


def take_step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, batch: dict[str, torch.Tensor]) -> None:
    model(**batch).loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def random_batch(config: PretrainedConfig, size: int) -> dict[str, torch.Tensor]:
    """`size` images and labels for a network of this configuration."""
    height, width = size_pair("image_size", config.image_size)
    return {
        "pixel_values": torch.randn(size, config.num_channels, height, width),
        "labels": torch.randint(config.num_labels, (size,)),
    }
