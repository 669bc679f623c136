"""A training run, from the options to the repo folder."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import send_to_device
from transformers.utils import logging as transformers_logging

from ..data.seeds import STEP, seed_of, seed_step
from ..evaluation.predictions import predict
from .attention_probe import attention_entropies
from .checkpoints import (
    RunState,
    bring_best_checkpoint,
    check_same_batches,
    check_same_data,
    find_checkpoint,
    load_checkpoint,
    read_state,
    save_checkpoint,
)
from .display import add_training, announce, progress_bar, say, say_epoch
from .options import TrainOptions
from .results import finish
from .setup import Setup, check_repo_id, check_run_folder, set_up
from .signals import Stopped, StopRequest, explain_dead_process, listen_for_stop
from .spectral_reparam import advance
from .step_figures import StepFigures, any_process, check_losses, read_steps
from .trackers import start_trackers


def train(options: TrainOptions) -> Path:
    """Train a model as the options say.

    Returns:
        The run's folder: `model/`, a repo folder with the best weights, `metrics.json`, `curves.png`, the
        checkpoints, and of a segmenter or detector `pictures/predictions.png`.

    Raises:
        Stopped: if a signal ended the run, after it was saved.
        TrainingError: if the loss is not finite, or a process died.
        ValueError, OSError, ImportError: if an option does not fit; the message says which.
    """
    transformers_logging.disable_progress_bar()  # ours is enough
    run = Path(options.run.output_dir)
    resumed = options.run.resume_from_checkpoint
    checkpoint = None if resumed is None else find_checkpoint(run, resumed)
    if checkpoint is None or (run / "model").exists():
        check_run_folder(run)
    check_repo_id(options.run.push_to_hub)
    with explain_dead_process():
        setup = set_up(options)
        start_trackers(setup.accelerator, options.run.report_to, run, options.to_dict(), resumed=checkpoint is not None)
        state = start(setup, run, checkpoint)
        announce(setup, state)
        train_to_the_end(setup, run, state)
        finish(setup, run, state)
        setup.accelerator.end_training()
    return run


def start(setup: Setup, run: Path, checkpoint: Path | None) -> RunState:
    """Return where the run is: at its start, or at a checkpoint, which is loaded."""
    if checkpoint is None:
        return RunState(batches=setup.batch_order, data=setup.data.fingerprint, best_metric=setup.problem.best)
    state = read_state(checkpoint)
    may_change = setup.options.run.resume_on_changed_data
    is_same = check_same_data(checkpoint, state.data, setup.data.fingerprint, may_change)
    if is_same:
        check_same_batches(checkpoint, state.batches, setup.batch_order)
    load_checkpoint(setup.accelerator, checkpoint, setup.averaged_model)
    state.batches, state.data = setup.batch_order, setup.data.fingerprint
    if is_same:
        bring_best_checkpoint(setup.accelerator, run, checkpoint, state)
    else:  # what was best is no measure of the data there is now
        state.forget_best()
    return state


def train_to_the_end(
    setup: Setup, run: Path, state: RunState, evaluate: Callable[[Setup, RunState], None] | None = None
) -> None:
    """Train, evaluate and save, epoch by epoch, to the last step or the end of patience.

    `evaluate` adds the evaluation of an epoch to the state, as `evaluate_epoch` does where it is None.
    """
    evaluate = evaluate or evaluate_epoch
    started = time.time() - state.seconds

    def save() -> None:
        state.seconds = time.time() - started
        limit = setup.options.run.checkpoints_total_limit
        save_checkpoint(setup.accelerator, run, state, setup.averaged_model, limit)

    with closing(setup), listen_for_stop() as stop, progress_bar(setup.accelerator) as bar:
        task = add_training(bar, setup, state)
        while evaluation_is_due(state) or not is_over(setup, state):
            train_epoch(setup, run, state, stop, save, report=partial(bar.update, task))
            evaluate(setup, state)
            save()
            if any_process(setup.accelerator, stop.requested):  # since the last step
                raise stopped_error(setup, state, stop)
    if state.step < setup.total_steps:
        say(
            setup.accelerator,
            f"No better for {state.evaluations_since_best} evaluations: stopped early at step {state.step} of"
            f" {setup.total_steps}.",
        )


def evaluation_is_due(state: RunState) -> bool:
    """Return whether the run was saved after the last step of an epoch and before its evaluation."""
    return bool(state.epoch_losses)


def is_over(setup: Setup, state: RunState) -> bool:
    """Return whether all steps are done or patience is at its end, also of a run that is resumed."""
    patience = setup.options.run.early_stopping_patience
    return state.step >= setup.total_steps or (patience is not None and state.evaluations_since_best >= patience)


def stopped_error(setup: Setup, state: RunState, stop: StopRequest) -> Stopped:
    return Stopped(f"Stopped and saved at step {state.step} of {setup.total_steps}.", stop.status)


def train_epoch(
    setup: Setup, run: Path, state: RunState, stop: StopRequest, save: Callable[[], None], report: Callable[..., None]
) -> None:
    """Train to the end of the epoch, or of the run, from wherever in it the run is.

    The device is waited for every `logging_steps`, and where a checkpoint or an evaluation is due, not in each step.

    Args:
        setup: what is trained.
        run: the run's folder, named where a loss is not finite.
        state: where the run is, which moves on with every step.
        stop: looked at wherever losses are read; by a single process, after each step.
        save: called where a checkpoint is due.
        report: called after each step with `completed` and `last_step`, for the progress bar.
    """
    epoch, done = divmod(state.step, setup.steps_per_epoch)
    if done == 0 and evaluation_is_due(state):
        return
    every = setup.options.run.checkpointing_steps
    end = min(setup.total_steps, (epoch + 1) * setup.steps_per_epoch)
    batches = setup.train_loader.batches(epoch, done * setup.options.optimization.gradient_accumulation_steps)
    setup.model.train()
    unread: list[StepFigures] = []
    last_read, stops = "", False
    while state.step < end:
        learning_rate = setup.schedule.set(state.step)
        loss, unreadable = train_step(setup, batches, state.step)
        state.step += 1
        unread.append(StepFigures(state.step, learning_rate, loss, unreadable))
        saves = every != "epoch" and state.step % every == 0 and state.step < end
        if saves or state.step == end or reading_is_due(setup, state, stop):
            stops = take_in(setup, run, state, unread, stop)
            last_read = f"loss {state.epoch_losses[-1]:.4f}  lr {learning_rate:.2e}"
            unread.clear()
        report(completed=state.step, last_step=last_read)
        if saves or stops:
            save()
        if stops:
            raise stopped_error(setup, state, stop)


def reading_is_due(setup: Setup, state: RunState, stop: StopRequest) -> bool:
    """Return whether to read the losses after this step; all processes say the same."""
    alone = setup.accelerator.num_processes == 1  # nobody else has to hear of a signal
    return state.step % setup.options.run.logging_steps == 0 or (alone and stop.requested)


def take_in(setup: Setup, run: Path, state: RunState, unread: list[StepFigures], stop: StopRequest) -> bool:
    """Add to the state, and to the trackers, what steps computed; return whether any process was asked to stop.

    Raises:
        TrainingError: if a loss is not finite.
    """
    losses, unreadable, stops = read_steps(setup.accelerator, unread, stop.requested)
    check_losses(run, unread, losses)
    state.epoch_losses += losses
    state.unreadable += unreadable
    for figures, loss in zip(unread, losses):
        values = {"train_loss": loss, "learning_rate": figures.learning_rate}
        setup.accelerator.log(values, step=figures.step)
    return stops


def train_step(setup: Setup, batches: Iterator[dict[str, torch.Tensor]], step: int) -> tuple[torch.Tensor, int]:
    """Take one step of the optimizer, without waiting for the device or for other processes' figures.

    Returns:
        This process's mean loss, a scalar on the device, and the number of unreadable images that were skipped.
    """
    options, accelerator, model, optimizer = setup.options, setup.accelerator, setup.model, setup.optimizer
    accumulation, device = options.optimization.gradient_accumulation_steps, accelerator.device
    mixing_ends = options.augmentation.mixup_off_epoch
    mixes = mixing_ends is None or step < mixing_ends * setup.steps_per_epoch
    loss_sum, unreadable = torch.zeros((), device=device), 0
    for part in range(accumulation):
        batch = next(batches)
        unreadable += int(batch["unreadable"])  # which never leaves the CPU
        pixel_values = batch["pixel_values"].to(device, non_blocking=True)
        labels: Any = send_to_device(batch["labels"], device, non_blocking=True)  # a list, of a detector
        if options.hardware.channels_last:
            pixel_values = pixel_values.contiguous(memory_format=torch.channels_last)
        seed_step(seed_of(STEP, options.run.seed, step, part, accelerator.process_index), device)
        with accelerator.accumulate(model):
            loss = setup.objective(model, pixel_values, labels, mixes)
            accelerator.backward(loss)
            loss_sum += loss.detach()
            if accelerator.sync_gradients and options.optimization.max_grad_norm is not None:
                accelerator.clip_grad_norm_(model.parameters(), options.optimization.max_grad_norm)
            if accelerator.sync_gradients and options.optimization.spectral_reparam is not None:
                advance(model)
            optimizer.step()
            optimizer.zero_grad()
    if setup.ema is not None:
        setup.ema.update(accelerator.unwrap_model(model), step=step + 1)
    return loss_sum / accumulation, unreadable


def evaluate_epoch(setup: Setup, state: RunState) -> None:
    """Measure the model, and its average if there is one; the average is what counts then, and what is exported."""
    metrics = {"train_loss": sum(state.epoch_losses) / len(state.epoch_losses)}
    problem = setup.problem
    predictions = predict(setup.accelerator, setup.model, setup.eval_loader, problem)
    metrics |= problem.measure(predictions)
    if setup.averaged_model is not None:
        averaged = problem.measure(predict(setup.accelerator, setup.averaged_model, setup.eval_loader, problem))
        metrics |= {f"ema_{name}": value for name, value in averaged.items()}
    if setup.probe is not None:
        metrics |= attention_entropies(setup.accelerator, setup.model, setup.probe)
    if setup.options.data.skip_unreadable:
        metrics |= {"unreadable": state.unreadable, "unreadable_validation": predictions.unreadable}
    entry = {
        "epoch": state.step / setup.steps_per_epoch,
        "step": state.step,
        "learning_rate": setup.optimizer.param_groups[0]["lr"],
        **metrics,
    }
    state.add_evaluation(entry)
    setup.accelerator.log({f"eval_{name}": value for name, value in metrics.items()}, step=state.step)
    say_epoch(setup.accelerator, entry, problem.titles)
