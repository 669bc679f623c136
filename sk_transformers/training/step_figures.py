"""What the steps of a run computed, which is read from the device every few steps, so that no step waits for it."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator

from .checkpoints import find_checkpoint
from .signals import TrainingError


@dataclass
class StepFigures:
    """Of one step of this process: its number, counted from 1, and what it left."""

    step: int
    learning_rate: float
    loss: torch.Tensor  # a scalar on the device, which nobody has waited for
    unreadable: int  # images that were skipped


def read_steps(accelerator: Accelerator, steps: list[StepFigures], flag: bool) -> tuple[list[float], int, bool]:
    """Read what steps left, by one reduction over the processes and one wait for the device.

    Args:
        accelerator: of the run; each process calls this after the same steps.
        steps: in order.
        flag: of this process.

    Returns:
        The mean loss of each step over all processes, the number of unreadable images in all, and whether the flag is
        set on any process.
    """
    unreadable = sum(figures.unreadable for figures in steps)
    counts = torch.tensor([unreadable, flag], dtype=torch.float32, device=accelerator.device)
    losses = [figures.loss for figures in steps]
    *totals, unreadable, flags = sum_processes(accelerator, torch.cat([torch.stack(losses), counts]))
    return [total / accelerator.num_processes for total in totals], int(unreadable), flags > 0


def any_process(accelerator: Accelerator, flag: bool) -> bool:
    """Return whether the flag is set on any process; each has to call it."""
    (count,) = sum_processes(accelerator, torch.tensor([float(flag)], device=accelerator.device))
    return count > 0


def sum_processes(accelerator: Accelerator, values: torch.Tensor) -> list[float]:
    """Return each of `values` `(count,)` summed over all processes, by one reduction and one wait for the device."""
    sums = accelerator.reduce(values, "sum")
    assert isinstance(sums, torch.Tensor)
    return sums.tolist()


def check_losses(run: Path, steps: list[StepFigures], losses: list[float]) -> None:
    """Raise TrainingError at the first loss that is not finite, with what to do and where to go on from."""
    for figures, loss in zip(steps, losses):
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss is {loss} at step {figures.step}, with a learning rate of {figures.learning_rate:.3g};"
                f" {last_good_checkpoint(run)}. A lower --learning_rate, a longer warm-up, --max_grad_norm 1 or"
                " --mixed_precision no may help."
            )


def last_good_checkpoint(run: Path) -> str:
    """Return what there is to go on from: nothing is saved before the losses of its steps were read."""
    try:
        return f"{find_checkpoint(run, 'latest')} is the last good checkpoint"
    except FileNotFoundError:
        return "there is no checkpoint yet"
