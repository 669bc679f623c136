"""What a run says on the terminal; the main process alone speaks."""

from accelerate import Accelerator
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from .checkpoints import RunState
from .setup import Setup

console = Console(stderr=True)


def say(accelerator: Accelerator, line: str) -> None:
    """Print a line once, whatever number of processes there are."""
    if accelerator.is_main_process:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def progress_bar(accelerator: Accelerator) -> Progress:
    """Return the bar of a run, of the main process alone."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[last_step]}"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, disable=not accelerator.is_main_process)


def add_training(bar: Progress, setup: Setup, state: RunState) -> TaskID:
    """Add the bar's line of training, from where the run is; `last_step` is what it says of a step."""
    return bar.add_task("training", total=setup.total_steps, completed=state.step, last_step="")


def announce(setup: Setup, state: RunState) -> None:
    """Print what is trained, on which data and where, before the first step."""
    accelerator, data, parameters = setup.accelerator, setup.data, list(setup.model.parameters())
    total, trained = sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)
    part = "" if trained == total else f" ({trained / 1e6:.2f} M of them trained)"
    say(accelerator, data.account)
    say(
        accelerator,
        f"{setup.options.model.model}: {total / 1e6:.2f} M parameters{part}. Steps {state.step} to"
        f" {setup.total_steps} on {accelerator.num_processes} x {accelerator.device.type}.",
    )


def say_epoch(accelerator: Accelerator, entry: dict[str, float], titles: dict[str, str]) -> None:
    """Print the line of an evaluation: loss, and the figures that have `titles`, of averaged weights the first only."""
    loss = f"  loss {entry['loss']:.4f}" if "loss" in entry else ""  # a detector's is not measured
    figures = "".join(f"  {title} {entry[name]:.2%}" for name, title in titles.items() if name in entry)
    best = f"ema_{next(iter(titles))}"
    averaged = f"  averaged {entry[best]:.2%}" if best in entry else ""
    counts = [entry.get("unreadable"), entry.get("unreadable_validation")]
    unreadable = f"  unreadable images {counts[0]}, in validation {counts[1]}" if any(counts) else ""
    say(
        accelerator,
        f"epoch {entry['epoch']:5.1f}  train loss {entry['train_loss']:.4f}{loss}{figures}{averaged}{unreadable}",
    )
