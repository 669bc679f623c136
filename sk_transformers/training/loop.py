"""A training run, from the options to the repo folder."""

import argparse
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, set_seed
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar
from safetensors.torch import load_file
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from transformers.image_processing_utils import BaseImageProcessor
from transformers.utils import logging as transformers_logging

from ..hub.export import export
from .checkpoints import Progress, bring_best_checkpoint, checkpoint_folder, find_checkpoint, save_checkpoint
from .data import ImageData, data_loader, eval_transform, load_image_data, train_transform
from .metrics import TOP_K, TopKAccuracy
from .model import load_model
from .record import run_card, run_record

console = Console(stderr=True)
FINAL_LEARNING_RATE = 0.01  # of the peak
WARMUP_LEARNING_RATE = 0.01  # of the peak


@dataclass
class Setup:
    """What a run trains, with what, and for how long."""

    accelerator: Accelerator
    data: ImageData
    processor: BaseImageProcessor
    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: CosineLRScheduler
    train_loader: torch.utils.data.DataLoader
    eval_loader: torch.utils.data.DataLoader
    steps_per_epoch: int
    total_steps: int


def train(args: argparse.Namespace) -> Path:
    """Train a model as the options of `arguments.py` say.

    Returns:
        The run's folder: `model/`, a repo folder with the best weights, `metrics.json`, and the checkpoints.
    """
    started = time.time()
    transformers_logging.disable_progress_bar()  # ours is enough
    run = Path(args.output_dir)
    checkpoint = check_run_folder(run, args.resume_from_checkpoint)
    setup = set_up(args)
    accelerator, progress = setup.accelerator, Progress()
    accelerator.register_for_checkpointing(progress)
    if checkpoint is not None:
        accelerator.load_state(str(checkpoint))
        if accelerator.is_main_process:
            bring_best_checkpoint(run, checkpoint, progress)
    announce(args, setup, progress)
    with progress_bar(accelerator) as bar:
        task = bar.add_task("training", total=setup.total_steps, completed=progress.step, loss=math.nan, lr=0.0)
        while progress.step < setup.total_steps:
            loss = train_epoch(args, setup, progress, report=partial(bar.update, task))
            metrics = evaluate(accelerator, setup.model, setup.eval_loader)
            record_epoch(setup, progress, {"train_loss": loss, **metrics})
            save_checkpoint(accelerator, run, progress)

    if accelerator.is_main_process:
        finish(args, run, setup, progress, time.time() - started)
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return run


def set_up(args: argparse.Namespace) -> Setup:
    """Load data and model and prepare them for the processes and devices that there are."""
    accelerator = Accelerator(
        mixed_precision=args.mixed_precision,
        gradient_accumulation_steps=args.gradient_accumulation_steps,
        dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True, data_seed=args.seed),
    )
    use_all_cores(accelerator)
    set_seed(args.seed)
    data = load_image_data(args.dataset, args.train_val_split, args.split_seed)
    model, processor = load_model(args.model, data.id2label, args.drop_path_rate)
    augment = train_transform(processor, args.crop_scale, args.hflip, args.rotation)
    train_loader = data_loader(data.train, augment, args.per_device_train_batch_size, True, args.num_workers)
    eval_loader = data_loader(
        data.validation, eval_transform(processor), args.per_device_eval_batch_size, False, args.num_workers
    )
    groups = parameter_groups(model, args.weight_decay)
    optimizer = create_optimizer_v2(groups, opt=args.opt, lr=args.learning_rate, weight_decay=args.weight_decay)
    model, optimizer, train_loader, eval_loader = accelerator.prepare(model, optimizer, train_loader, eval_loader)
    steps_per_epoch = math.ceil(len(train_loader) / args.gradient_accumulation_steps)
    total_steps = args.max_train_steps or args.num_train_epochs * steps_per_epoch
    scheduler = make_scheduler(args, optimizer.optimizer, total_steps)
    return Setup(
        accelerator,
        data,
        processor,
        model,
        optimizer,
        scheduler,
        train_loader,
        eval_loader,
        steps_per_epoch,
        total_steps,
    )


def check_run_folder(run: Path, resume: str | None) -> Path | None:
    """The checkpoint to go on from, if any; FileExistsError if the folder holds another run."""
    if (run / "model").exists():
        raise FileExistsError(f"{run} holds a finished run: choose another --output_dir.")
    if resume is not None:
        return find_checkpoint(run, resume)
    if run.exists() and (not run.is_dir() or any(run.iterdir())):
        raise FileExistsError(
            f"{run} holds another run: choose another --output_dir, or go on by --resume_from_checkpoint latest."
        )
    return None


def use_all_cores(accelerator: Accelerator) -> None:
    """Share the processor among this machine's processes, where `accelerate launch` gives each a single thread."""
    if accelerator.device.type == "cpu" and os.environ.get("OMP_NUM_THREADS") == "1":
        local_processes = int(os.environ.get("LOCAL_WORLD_SIZE", accelerator.num_processes))
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // local_processes))


def parameter_groups(model: torch.nn.Module, weight_decay: float) -> list[dict]:
    """Every trained parameter once: norms, biases, scalars, positions and the class token without weight decay."""
    decayed, plain = [], []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_plain = parameter.ndim <= 1 or name.endswith(("bias", "position_embeddings", "cls_token"))
            (plain if is_plain else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]


def make_scheduler(args: argparse.Namespace, optimizer: torch.optim.Optimizer, total_steps: int) -> CosineLRScheduler:
    """Warm-up, then a cosine. It depends on the step alone, so that a resumed run needs no state of it."""
    return CosineLRScheduler(
        optimizer,
        t_initial=total_steps,
        lr_min=FINAL_LEARNING_RATE * args.learning_rate,
        warmup_t=min(args.warmup_steps, total_steps - 1),
        warmup_lr_init=WARMUP_LEARNING_RATE * args.learning_rate,
        t_in_epochs=False,
    )


def train_epoch(args: argparse.Namespace, setup: Setup, progress: Progress, report: Callable) -> float:
    """Train to the end of the epoch or of the run, and report each step; the mean loss."""
    accelerator, model, optimizer, loader = setup.accelerator, setup.model, setup.optimizer, setup.train_loader
    model.train()
    loader.set_epoch(progress.step // setup.steps_per_epoch)
    done = progress.step % setup.steps_per_epoch * args.gradient_accumulation_steps
    losses = []
    for batch in accelerator.skip_first_batches(loader, done) if done else loader:
        with accelerator.accumulate(model):
            setup.scheduler.step_update(progress.step)
            loss = model(**batch).loss
            accelerator.backward(loss)
            if accelerator.sync_gradients and args.max_grad_norm is not None:
                accelerator.clip_grad_norm_(model.parameters(), args.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.detach())
        if accelerator.sync_gradients:
            progress.step += 1
            report(completed=progress.step, loss=losses[-1].item(), lr=optimizer.param_groups[0]["lr"])
            if progress.step == setup.total_steps:
                break
    return accelerator.gather(torch.stack(losses)).mean().item()


@torch.no_grad()
def evaluate(accelerator: Accelerator, model: torch.nn.Module, loader) -> dict[str, float]:
    """`top1`, `top5` and mean `loss` over the loader, each image counted once however many processes there are."""
    model.eval()
    metric = TopKAccuracy(keep_in_memory=True)
    losses = []
    for batch in loader:
        logits = model(pixel_values=batch["pixel_values"]).logits.float()
        loss = torch.nn.functional.cross_entropy(logits, batch["labels"], reduction="none")
        predicted = logits.topk(min(TOP_K, logits.shape[-1])).indices
        predicted, labels, loss = accelerator.gather_for_metrics((predicted, batch["labels"], loss))
        metric.add_batch(predictions=predicted.tolist(), references=labels.tolist())
        losses.append(loss)
    return {**metric.compute(), "loss": torch.cat(losses).mean().item()}


def record_epoch(setup: Setup, progress: Progress, metrics: dict[str, float]) -> None:
    """Add an evaluation to the history, and say it in a line."""
    epoch = progress.step / setup.steps_per_epoch
    learning_rate = setup.optimizer.param_groups[0]["lr"]
    progress.history.append({"epoch": epoch, "step": progress.step, "learning_rate": learning_rate, **metrics})
    if metrics["top1"] > progress.best_top1:
        progress.best_top1, progress.best_step = metrics["top1"], progress.step
    if setup.accelerator.is_main_process:
        console.print(
            f"epoch {epoch:5.1f}  train loss {metrics['train_loss']:.4f}  loss {metrics['loss']:.4f}"
            f"  top-1 {metrics['top1']:.2%}  top-5 {metrics['top5']:.2%}",
            highlight=False,
            soft_wrap=True,
        )


def progress_bar(accelerator: Accelerator) -> ProgressBar:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4f}  lr {task.fields[lr]:.2e}"),
        TimeRemainingColumn(),
    )
    return ProgressBar(*columns, console=console, disable=not accelerator.is_main_process)


def announce(args: argparse.Namespace, setup: Setup, progress: Progress) -> None:
    accelerator, data = setup.accelerator, setup.data
    if accelerator.is_main_process:
        parameters = sum(p.numel() for p in setup.model.parameters())
        console.print(
            f"{args.model}: {parameters / 1e6:.2f} M parameters, {len(data.labels)} classes. {data.name}:"
            f" {len(data.train)} training and {len(data.validation)} validation images. Steps {progress.step} to"
            f" {setup.total_steps} on {accelerator.num_processes} x {accelerator.device.type}.",
            highlight=False,
            soft_wrap=True,
        )


def finish(args: argparse.Namespace, run: Path, setup: Setup, progress: Progress, seconds: float) -> None:
    """Leave `metrics.json` and the repo folder with the weights of the best checkpoint."""
    model = setup.accelerator.unwrap_model(setup.model)
    model.load_state_dict(load_file(checkpoint_folder(run, progress.best_step) / "model.safetensors"))
    model.cpu().eval()
    record = run_record(args, model, setup.data, progress, seconds)
    (run / "metrics.json").write_text(json.dumps(record, indent=2) + "\n")
    repo = export(model, setup.processor, run / "model", run_card(model, run.name, record))
    console.print(f"Best top-1 {progress.best_top1:.2%}. Ready to push: {repo}", highlight=False, soft_wrap=True)
