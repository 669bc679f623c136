"""A training run, from the options to the repo folder."""

import argparse
import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from transformers.utils import logging as transformers_logging

from ..data.seeds import STEP, seed_of, seed_step
from ..evaluation.predictions import accuracy, predict
from .checkpoints import (
    Progress,
    bring_best_checkpoint,
    check_same_batches,
    find_checkpoint,
    load_checkpoint,
    read_progress,
    save_checkpoint,
)
from .display import add_training, announce, progress_bar, say, say_epoch
from .results import finish
from .setup import Setup, check_push, check_run_folder, set_up
from .signals import Stopped, StopRequest, TrainingError, clear_worker_errors, listen_for_stop
from .trackers import start_trackers

BATCH = ("pixel_values", "labels")


def train(args: argparse.Namespace) -> Path:
    """Train a model as the options of `arguments.py` say.

    Returns:
        The run's folder: `model/`, a repo folder with the best weights, `metrics.json`, `curves.png`, and the
        checkpoints.

    Raises:
        Stopped: if a signal ended the run, after it was saved.
        TrainingError: if the loss is no number, or a process died.
        ValueError, OSError, ImportError: if an option does not fit; the message says which.
    """
    transformers_logging.disable_progress_bar()  # ours is enough
    run = Path(args.output_dir)
    checkpoint = args.resume_from_checkpoint and find_checkpoint(run, args.resume_from_checkpoint)
    if checkpoint is None or (run / "model").exists():
        check_run_folder(run)
    check_push(args.push_to_hub)
    with clear_worker_errors():
        setup = set_up(args)
        start_trackers(setup.accelerator, args, run, resumed=checkpoint is not None)
        progress = start(setup, run, checkpoint)
        announce(setup, progress)
        train_to_the_end(setup, run, progress)
        finish(setup, run, progress)
        setup.accelerator.end_training()
    return run


def start(setup: Setup, run: Path, checkpoint: Path | None) -> Progress:
    """Where the run is: at its start, or at a checkpoint, which is loaded."""
    if checkpoint is None:
        return Progress(batches=setup.batches)
    progress = read_progress(checkpoint)
    check_same_batches(checkpoint, progress.batches, setup.batches)
    load_checkpoint(setup.accelerator, checkpoint, setup.ema and setup.ema.module)
    bring_best_checkpoint(setup.accelerator, run, checkpoint, progress)
    return progress


def train_to_the_end(setup: Setup, run: Path, progress: Progress) -> None:
    """Train, evaluate and save, epoch by epoch, to the last step or the end of patience."""
    args, started = setup.args, time.time() - progress.seconds

    def save() -> None:
        progress.seconds = time.time() - started
        ema = setup.ema and setup.ema.module
        save_checkpoint(setup.accelerator, run, progress, ema, args.checkpoints_total_limit)

    with listen_for_stop() as stop, progress_bar(setup.accelerator) as bar:
        task = add_training(bar, setup, progress)
        while evaluation_is_due(progress) or not is_over(setup, progress):
            train_epoch(setup, run, progress, stop, save, report=partial(bar.update, task))
            evaluate_epoch(setup, progress)
            save()
            if is_anywhere(setup, stop.signal != 0):  # since the last step
                raise stopped(setup, progress, stop)
    if progress.step < setup.total_steps:
        say(
            setup.accelerator,
            f"No better for {progress.evaluations_since_best} evaluations: stopped early at step {progress.step} of"
            f" {setup.total_steps}.",
        )


def evaluation_is_due(progress: Progress) -> bool:
    """Whether the run was saved after the last step of an epoch and before its evaluation."""
    return bool(progress.epoch_losses)


def is_over(setup: Setup, progress: Progress) -> bool:
    """Whether all steps are done or patience is at its end, also of a run that is resumed."""
    patience = setup.args.early_stopping_patience
    return progress.step >= setup.total_steps or (patience is not None and progress.evaluations_since_best >= patience)


def is_anywhere(setup: Setup, fact: bool) -> bool:
    """Whether it is so on any process."""
    return setup.accelerator.reduce(torch.tensor(float(fact), device=setup.accelerator.device), "sum").item() > 0


def stopped(setup: Setup, progress: Progress, stop: StopRequest) -> Stopped:
    return Stopped(f"Stopped and saved at step {progress.step} of {setup.total_steps}.", stop.status)


def train_epoch(
    setup: Setup, run: Path, progress: Progress, stop: StopRequest, save: Callable[[], None], report: Callable
) -> None:
    """Train to the end of the epoch, or of the run, from wherever in it the run is."""
    epoch, done = divmod(progress.step, setup.steps_per_epoch)
    if done == 0 and evaluation_is_due(progress):
        return
    every = 0 if setup.args.checkpointing_steps == "epoch" else int(setup.args.checkpointing_steps)
    end = min(setup.total_steps, (epoch + 1) * setup.steps_per_epoch)
    batches = setup.train_loader.batches(epoch, done * setup.args.gradient_accumulation_steps)
    setup.model.train()
    while progress.step < end:
        learning_rate = setup.schedule.set(progress.step)
        loss, unreadable, stops = train_step(setup, batches, progress.step, stop)
        if not math.isfinite(loss):
            raise TrainingError(describe_bad_loss(run, loss, progress.step, learning_rate))
        progress.step += 1
        progress.epoch_losses.append(loss)
        progress.unreadable += unreadable
        report(completed=progress.step, last_step=f"loss {loss:.4f}  lr {learning_rate:.2e}")
        setup.accelerator.log({"train_loss": loss, "learning_rate": learning_rate}, step=progress.step)
        if stops:
            save()
            raise stopped(setup, progress, stop)
        if every and progress.step % every == 0 and progress.step < end:
            save()


def train_step(
    setup: Setup, batches: Iterator[dict[str, torch.Tensor]], step: int, stop: StopRequest
) -> tuple[float, int, bool]:
    """One step of the optimizer, unless the loss is no number.

    Returns:
        The mean loss over all processes, the number of unreadable images that were passed over, and whether any
        process was asked to stop.
    """
    args, accelerator, model, optimizer = setup.args, setup.accelerator, setup.model, setup.optimizer
    mixes = args.mixup_off_epoch is None or step < args.mixup_off_epoch * setup.steps_per_epoch
    facts = torch.tensor([0.0, 0.0, float(stop.signal != 0)], device=accelerator.device)
    for part in range(args.gradient_accumulation_steps):
        batch = next(batches)
        pixel_values, labels = (batch[name].to(accelerator.device, non_blocking=True) for name in BATCH)
        if args.channels_last:
            pixel_values = pixel_values.contiguous(memory_format=torch.channels_last)
        seed_step(seed_of(STEP, args.seed, step, part, accelerator.process_index), accelerator.device)
        with accelerator.accumulate(model):
            loss = setup.objective(model, pixel_values, labels, mixes)
            accelerator.backward(loss)
            facts[0] += loss.detach() / args.gradient_accumulation_steps / accelerator.num_processes
            facts[1] += batch["unreadable"]
            if accelerator.sync_gradients:
                mean_loss, unreadable, stops = accelerator.reduce(facts, "sum").tolist()
                if not math.isfinite(mean_loss):  # before it reaches the weights
                    return mean_loss, 0, False
                if args.max_grad_norm is not None:
                    accelerator.clip_grad_norm_(model.parameters(), args.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
    if setup.ema is not None:
        setup.ema.update(accelerator.unwrap_model(model), step=step + 1)
    return mean_loss, int(unreadable), stops > 0


def describe_bad_loss(run: Path, loss: float, step: int, learning_rate: float) -> str:
    """What happened, and where to go on from."""
    try:
        last_good = f"{find_checkpoint(run, 'latest')} is the last good checkpoint"
    except FileNotFoundError:
        last_good = "there is no checkpoint yet"
    return (
        f"the loss is {loss} at step {step + 1}, with a learning rate of {learning_rate:.3g}; {last_good}. A lower"
        " --learning_rate, a longer warm-up, --max_grad_norm 1 or --mixed_precision no may help."
    )


def evaluate_epoch(setup: Setup, progress: Progress) -> None:
    """Measure the model, and its average if there is one; the average is what counts then, and what is exported."""
    metrics = {"train_loss": sum(progress.epoch_losses) / len(progress.epoch_losses)}
    predictions = predict(setup.accelerator, setup.model, setup.eval_loader)
    metrics |= accuracy(predictions)
    if setup.ema is not None:
        averaged = accuracy(predict(setup.accelerator, setup.ema.module, setup.eval_loader))
        metrics |= {f"ema_{name}": value for name, value in averaged.items()}
    if setup.args.on_unreadable == "skip":
        metrics |= {"unreadable": progress.unreadable, "unreadable_validation": predictions.unreadable}
    entry = {
        "epoch": progress.step / setup.steps_per_epoch,
        "step": progress.step,
        "learning_rate": setup.optimizer.param_groups[0]["lr"],
        **metrics,
    }
    progress.history.append(entry)
    progress.epoch_losses, progress.unreadable = [], 0
    progress.evaluations_since_best += 1
    judged = metrics.get("ema_top1", metrics["top1"])
    if judged > progress.best_top1:
        progress.best_top1, progress.best_step, progress.evaluations_since_best = judged, progress.step, 0
    setup.accelerator.log({f"eval_{name}": value for name, value in metrics.items()}, step=progress.step)
    say_epoch(setup.accelerator, entry)
