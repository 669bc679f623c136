"""Training end to end with the loop of `training`: the network with replaced layers learns from the untouched one."""

import copy
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from ..data.image_data import ImageData
from ..data.loaders import is_readable
from ..data.options import AugmentationOptions, DataOptions
from ..evaluation.problems import PROBLEMS
from ..training.checkpoints import RunState, checkpoint_folder, find_checkpoint
from ..training.display import say
from ..training.loop import start, train_to_the_end
from ..training.optimization import Schedule
from ..training.options import (
    HardwareOptions,
    ModelOptions,
    OptimizationOptions,
    RunOptions,
    ScheduleOptions,
    TrainOptions,
)
from ..training.results import best_model
from ..training.setup import Setup, make_ema, make_train_loader
from ..training.trackers import start_trackers
from .damage import Reference, measure_damage
from .layerwise import Outputs, run
from .options import DistillationOptions
from .source import Source

POOLED_WEIGHT = 0.2  # of the pooled output beside the last hidden states, whose part it is
EVALUATIONS = 10
BEST = "explained"  # the variance of the last hidden states that is, which chooses the best weights


class TeacherDistance:
    """The loss: how far a network's last hidden states, pooled output and logits are from the untouched network's.

    The first two are unexplained variances; logits, where there are any, add the divergence of their probabilities.
    """

    def __init__(self, teacher: PreTrainedModel, network: PreTrainedModel) -> None:
        self.teacher, self.network = teacher, network

    def __call__(self, model: nn.Module, pixel_values: torch.Tensor, labels: torch.Tensor, mix: bool) -> torch.Tensor:
        """Return the loss, a scalar, of images `(batch, channels, height, width)`."""
        with torch.no_grad():
            wanted = run(self.teacher, pixel_values)
        seen = run(model, pixel_values, self.network)
        loss = unexplained(seen.last_hidden_state, wanted.last_hidden_state)
        loss = loss + POOLED_WEIGHT * unexplained(seen.pooled, wanted.pooled)
        if seen.logits is not None and wanted.logits is not None:
            loss = loss + self.divergence(seen.logits.float(), wanted.logits.float())
        return loss

    def divergence(self, logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """Return the divergence of the classes' probabilities, of logits `(batch, classes)`."""
        if self.network.config.problem_type == "multi_label_classification":
            targets = wanted.sigmoid()
            return F.binary_cross_entropy_with_logits(logits, targets) - F.binary_cross_entropy(targets, targets)
        return F.kl_div(logits.log_softmax(-1), wanted.log_softmax(-1), log_target=True, reduction="batchmean")


def unexplained(output: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Return the unexplained variance of a batch, `(batch, ..., channels)`."""
    rows = wanted.float().flatten(0, -2)
    return F.mse_loss(output.float(), wanted.float()) / rows.var(dim=0, correction=0).mean()


def train_options(
    source: Source, data: DataOptions, options: DistillationOptions, seed: int, run: Path
) -> TrainOptions:
    """Return the options of training that those of distillation stand for."""
    return TrainOptions(
        ModelOptions(source.name),
        data,
        augmentation=AugmentationOptions(crop_scale=[options.crop_scale, 1.0], color_jitter=options.color_jitter),
        optimization=OptimizationOptions(
            max_train_steps=options.distill_steps,
            per_device_train_batch_size=options.distill_batch_size,
            ema_decay=options.ema_decay,
            ema_warmup=True,
            max_grad_norm=1.0,
        ),
        schedule=ScheduleOptions(
            learning_rate=options.learning_rate, warmup_steps=min(50, options.distill_steps // 10)
        ),
        hardware=HardwareOptions(mixed_precision=options.mixed_precision),
        run=RunOptions(
            output_dir=str(run), seed=seed, report_to=options.report_to, checkpointing_steps=options.checkpointing_steps
        ),
    )


def distill(
    accelerator: Accelerator,
    source: Source,
    network: PreTrainedModel,
    new: list[str],
    data: ImageData,
    held_out: DataLoader,
    reference: Reference,
    options: DistillationOptions,
    training: TrainOptions,
) -> tuple[PreTrainedModel, list[dict[str, Any]]]:
    """Train a network with replaced layers to give what its source gives, from its latest checkpoint on.

    Args:
        accelerator: made for these options.
        source: the untouched network, and its image processor.
        network: with replaced layers.
        new: names of its parameters that the source does not have.
        data: `train` are the images.
        held_out: this process's share of the others, in the order of the reference.
        reference: what the source makes of those.
        options: of the distillation.
        training: what they stand for.

    Returns:
        The network of the best evaluation, and the figures of each.
    """
    run_folder, total = Path(training.run.output_dir), options.distill_steps
    pass_steps = max(1, (data.train_images or 0) // (options.distill_batch_size * accelerator.num_processes))
    steps_per_epoch = min(total, max(pass_steps, -(-total // EVALUATIONS)))
    network = copy.deepcopy(network)
    optimizer = make_optimizer(network, new, options)
    ema = make_ema(training.optimization, accelerator, network)
    model, optimizer = accelerator.prepare(network, optimizer)
    setup = Setup(
        options=training,
        accelerator=accelerator,
        data=data,
        processor=source.processor,
        model=model,
        model_class=type(network),
        config=network.config,
        ema=ema,
        optimizer=optimizer,
        schedule=Schedule(training.schedule, optimizer, options.learning_rate, steps_per_epoch, total),
        objective=TeacherDistance(source.model, network),
        problem=PROBLEMS[data.problem_type],
        train_loader=make_train_loader(training, accelerator, data, source.processor, steps_per_epoch),
        eval_loader=held_out,
        steps_per_epoch=steps_per_epoch,
        total_steps=total,
    )

    def evaluate(setup: Setup, state: RunState) -> None:
        averaged: Any = setup.averaged_model
        measured = setup.model.eval() if averaged is None else averaged.eval()
        inner = network if averaged is None else averaged
        figures = measure_damage(accelerator, outputs_on(measured, inner, held_out), reference)
        loss = sum(state.epoch_losses) / len(state.epoch_losses)
        entry = {"step": state.step, "train_loss": loss, **figures, BEST: 1 - figures["error"]}
        state.add_evaluation(entry)
        accelerator.log({f"eval_{name}": value for name, value in figures.items()}, step=state.step)
        say(accelerator, f"step {state.step}  loss {loss:.4f}  error {figures['error']:.4f}")

    checkpoint = find_checkpoint(run_folder, "latest") if any(run_folder.glob("checkpoint-*")) else None
    start_trackers(accelerator, training.run.report_to, run_folder, training.to_dict(), resumed=checkpoint is not None)
    state = start(setup, run_folder, checkpoint)
    state.best_metric = BEST
    train_to_the_end(setup, run_folder, state, evaluate)
    best = best_model(setup, checkpoint_folder(run_folder, state.best_step))
    accelerator.end_training()
    return best.to(accelerator.device), state.history


def make_optimizer(network: PreTrainedModel, new: list[str], options: DistillationOptions) -> torch.optim.Optimizer:
    """Return AdamW over the new parameters, and with `--train all` over the others at a rate of their own."""
    groups: dict[float, list[nn.Parameter]] = {}
    others = options.other_learning_rate / options.learning_rate
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in new or options.train == "all")
        if parameter.requires_grad:
            groups.setdefault(1.0 if name in new else others, []).append(parameter)
    return torch.optim.AdamW(
        [{"params": parameters, "lr_scale": scale} for scale, parameters in groups.items()],
        lr=options.learning_rate,
        weight_decay=0.0,
    )


@torch.no_grad()
def outputs_on(model: nn.Module, network: PreTrainedModel, loader: DataLoader) -> Any:
    """Yield a network's outputs on the readable images of a loader."""
    for batch in loader:
        readable = is_readable(batch["labels"])
        if readable.any():
            yield Outputs(*run(model, batch["pixel_values"][readable].to(network.device), network))
