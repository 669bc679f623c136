"""Everything that a run consists of, made from its options and prepared for the processes and devices there are."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, set_seed
from huggingface_hub.utils import HFValidationError, validate_repo_id
from timm.utils import ModelEmaV3
from torch import nn
from torch.utils.data import DataLoader
from transformers import PretrainedConfig, PreTrainedModel
from transformers.image_processing_utils import BaseImageProcessor

from ..data.balance import balanced_weights, positive_weights, read_class_weights
from ..data.image_data import ImageData
from ..data.loaders import TrainLoader, close_loader, eval_loader
from ..data.problems import eval_images, evaluation_inputs, load_images, train_images, training_changes
from ..data.transforms import eval_transform, make_mixup
from ..devices import use_all_cores
from ..evaluation.predictions import Problem
from ..evaluation.problems import PROBLEMS
from ..models.configuration_checks import ATTENTION_MIXER_NAMES
from ..pretrained import load_detector_to_train, load_model, load_segmenter_to_train
from .attention_probe import probe_images
from .objective import LABEL_LOSSES, Objective, Teacher, own_objective
from .optimization import Schedule, make_optimizer
from .options import OptimizationOptions, ScheduleOptions, TrainOptions
from .spectral_reparam import add_spectral_reparam
from .trackers import installed_trackers
from .trainable import add_lora, freeze_backbone

LOADERS = {"segmentation": load_segmenter_to_train, "detection": load_detector_to_train}  # else a classifier's
SHARDED = (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM)


@dataclass
class Setup:
    """What a run trains, with what, and for how long.

    `model` is prepared by the accelerator; `model_class` and `config` make the same network anew, for export. `ema` is
    None unless the weights are averaged, `probe` unless the entropy of attention is logged: images for it. Steps are
    those of the optimizer.
    """

    options: TrainOptions
    accelerator: Accelerator
    data: ImageData
    problem: Problem
    processor: BaseImageProcessor
    model: nn.Module
    model_class: type[PreTrainedModel]
    config: PretrainedConfig
    ema: ModelEmaV3 | None
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    objective: Callable[..., torch.Tensor]
    train_loader: TrainLoader
    eval_loader: DataLoader
    steps_per_epoch: int
    total_steps: int
    probe: torch.Tensor | None = None

    @property
    def averaged_model(self) -> nn.Module | None:
        """The model with averaged weights, None unless they are averaged."""
        return None if self.ema is None else self.ema.module

    @property
    def batch_order(self) -> dict[str, int]:
        """What decides which images the next step takes, beside its number."""
        return {
            "--seed": self.options.run.seed,
            "--balanced_sampling": self.options.optimization.balanced_sampling,
            "a global batch of": global_batch_size(self.options.optimization, self.accelerator),
            "steps in an epoch:": self.steps_per_epoch,
        }

    def close(self) -> None:
        """End the processes that load images."""
        self.train_loader.close()
        close_loader(self.eval_loader)


def set_up(options: TrainOptions) -> Setup:
    """Load data and model, and make what trains them.

    Raises:
        ValueError: if an option does not fit the data, the model or the machine.
        ImportError: if an option needs a package that is not installed.
    """
    optimization, hardware = options.optimization, options.hardware
    accelerator = make_accelerator(options)
    set_seed(options.run.seed)
    with accelerator.local_main_process_first():  # the others find the data in the cache
        data = load_images(options.data, options.streaming.streaming)
    global_batch = global_batch_size(optimization, accelerator)
    steps_per_epoch = options.streaming.steps_per_epoch or steps_in_a_pass(data, global_batch)
    epochs = optimization.num_train_epochs + options.schedule.cooldown_epochs
    total_steps = optimization.max_train_steps or round(epochs * steps_per_epoch)

    problem = PROBLEMS[data.problem_type]
    fields = {**options.model.config_fields, "problem_type": problem.config_type}
    if data.problem_type == "detection":
        fields = {"detection_masks": not options.data.box_only, **fields}
    load = LOADERS.get(data.problem_type, load_model)
    network, processor = load(options.model.model, data.id2label, **fields)
    model_class, config = type(network), network.config
    if hardware.gradient_checkpointing:
        network.gradient_checkpointing_enable()
    if hardware.channels_last:
        network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    if options.model.freeze_backbone:
        freeze_backbone(network)
    if optimization.spectral_reparam is not None:
        check_reparam(options, accelerator)
        add_spectral_reparam(network, optimization.spectral_reparam)
    model = add_lora(network, options.lora)
    ema = make_ema(optimization, accelerator, model)
    objective = make_objective(options, accelerator, data, processor)
    learning_rate = scaled_learning_rate(options.schedule, global_batch)
    optimizer = make_optimizer(optimization, model, learning_rate)
    if accelerator.distributed_type in SHARDED:
        prepare_to_shard(accelerator, model, network)
    if hardware.compile:
        model.compile()
    loader = eval_loader(
        data.validation,
        evaluation_inputs(data.problem_type, processor),
        optimization.per_device_eval_batch_size,
        options.data.num_workers,
        options.data.skip_unreadable,
        eval_images(options.data, len(data.labels)),
        keep_workers=True,
    )
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    return Setup(
        options=options,
        accelerator=accelerator,
        data=data,
        problem=problem,
        processor=processor,
        model=model,
        model_class=model_class,
        config=config,
        ema=ema,
        optimizer=optimizer,
        schedule=Schedule(options.schedule, optimizer, learning_rate, steps_per_epoch, total_steps),
        objective=objective,
        train_loader=make_train_loader(options, accelerator, data, processor, steps_per_epoch),
        eval_loader=loader,
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
        probe=make_probe(options, data, processor, config),
    )


def check_reparam(options: TrainOptions, accelerator: Accelerator) -> None:
    """Raise ValueError if weights cannot be reparametrized in this run."""
    for name, is_set in {
        "--lora_rank": options.lora.lora_rank,
        "--freeze_backbone": options.model.freeze_backbone,
    }.items():
        if is_set:
            raise ValueError(f"--spectral_reparam goes with weights that are trained, not with {name}: leave one out.")
    if accelerator.distributed_type in SHARDED:
        raise ValueError(
            f"--spectral_reparam: {accelerator.distributed_type.value} splits the weights among processes, and a"
            " spectral norm needs them whole: leave one of the two out."
        )


def make_probe(
    options: TrainOptions, data: ImageData, processor: BaseImageProcessor, config: PretrainedConfig
) -> torch.Tensor | None:
    """Return the images that the entropy of attention is measured on, None unless it is.

    Raises:
        ValueError: if no layer of the network attends.
    """
    if not options.run.log_attention_entropy:
        return None
    if not set(config.token_mixers) & set(ATTENTION_MIXER_NAMES):
        mixers = ", ".join(dict.fromkeys(config.token_mixers))
        raise ValueError(
            f"--log_attention_entropy: no layer of {options.model.model} attends, its token mixers are {mixers}; leave"
            " the option out."
        )
    return probe_images(data.validation, eval_transform(processor), options.data.skip_unreadable)


def make_accelerator(options: TrainOptions) -> Accelerator:
    """Return the accelerator, which also keeps the trackers.

    Raises:
        ImportError: if a tracker is not installed.
        ValueError: if the device does not compute with the precision.
    """
    optimization, precision = options.optimization, options.hardware.mixed_precision
    # The launcher sets it for DeepSpeed, and it would overrule the argument.
    os.environ.pop("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", None)
    trackers: list[Any] = installed_trackers(options.run.report_to)
    accelerator = Accelerator(
        mixed_precision=precision,
        gradient_accumulation_steps=optimization.gradient_accumulation_steps,
        log_with=trackers or None,
        project_dir=options.run.output_dir,
    )
    if precision == "fp16" and accelerator.device.type == "cpu":  # accelerate would ignore it
        raise ValueError("--mixed_precision fp16 is not supported on the CPU: use bf16 or no.")
    use_all_cores(accelerator)
    if accelerator.distributed_type == DistributedType.DEEPSPEED:  # it asks a loader that accelerate prepared
        deepspeed: Any = accelerator.state.deepspeed_plugin
        deepspeed.deepspeed_config |= {
            "train_micro_batch_size_per_gpu": optimization.per_device_train_batch_size,
            "gradient_accumulation_steps": optimization.gradient_accumulation_steps,
            "gradient_clipping": optimization.max_grad_norm or 0.0,
        }
    return accelerator


def global_batch_size(options: OptimizationOptions, accelerator: Accelerator) -> int:
    """Return how many images an optimizer step takes in all processes."""
    return options.per_device_train_batch_size * accelerator.num_processes * options.gradient_accumulation_steps


def scaled_learning_rate(options: ScheduleOptions, global_batch: int) -> float:
    """Return the learning rate, in proportion to the global batch if `base_batch_size` says what batch it is for."""
    if options.base_batch_size is None:
        return options.learning_rate
    return options.learning_rate * global_batch / options.base_batch_size


def steps_in_a_pass(data: ImageData, global_batch: int) -> int:
    """Return the optimizer steps of a pass over the data in whole batches; ValueError if its length is not known."""
    if data.train_images is None:
        raise ValueError(f"--streaming: {data.name} does not tell how many images it has: give --steps_per_epoch.")
    return max(1, data.train_images // global_batch)


def make_ema(options: OptimizationOptions, accelerator: Accelerator, model: nn.Module) -> ModelEmaV3 | None:
    """Return timm's moving average of the weights, if it is asked for."""
    if options.ema_decay is None:
        return None
    if accelerator.distributed_type in SHARDED:
        raise ValueError(
            f"--ema_decay: {accelerator.distributed_type.value} splits the weights among processes, and the average"
            " needs them whole: leave one of the two out."
        )
    return ModelEmaV3(model, decay=options.ema_decay, use_warmup=options.ema_warmup).to(accelerator.device)


def prepare_to_shard(accelerator: Accelerator, model: nn.Module, network: PreTrainedModel) -> None:
    """Make the model ready for FSDP or DeepSpeed, which split the weights among processes.

    Each layer becomes an FSDP unit, unless FSDP's configuration names others. Accelerate's default makes a unit of
    every class in `_no_split_modules`, and would wrap the patch embeddings twice, inside another of them.

    Both keep weights in half precision, or cast images to it, and leave out the autocast that the networks expect then.
    """
    if accelerator.distributed_type == DistributedType.FSDP:
        plugin: Any = accelerator.state.fsdp_plugin
        if plugin.transformer_cls_names_to_wrap is None:
            plugin.transformer_cls_names_to_wrap = [
                name for name in network._no_split_modules or () if name.endswith("Layer")
            ]
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(accelerator.mixed_precision)
    if half is not None:
        model.forward = torch.autocast(accelerator.device.type, half)(model.forward)


def make_objective(
    options: TrainOptions, accelerator: Accelerator, data: ImageData, processor: BaseImageProcessor
) -> Callable[..., torch.Tensor]:
    """Return the loss that the options describe, with its teacher on the device."""
    if data.problem_type in LOADERS:
        return own_objective
    label_smoothing, distillation = options.optimization.label_smoothing, options.distillation
    class_weights = None
    if options.optimization.class_weights is not None:
        balanced = {
            "single_label": balanced_weights,
            "multi_label": lambda counts: positive_weights(counts, data.train_images or 0),
        }[data.problem_type]
        class_weights = read_class_weights(
            options.optimization.class_weights, data.labels, data.class_counts, balanced
        ).to(accelerator.device)
    teacher = None
    if distillation.teacher is not None:
        teacher = Teacher(distillation.teacher, processor, data.labels, distillation.trust_remote_code)
        teacher.to(accelerator.device)
    return Objective(
        LABEL_LOSSES[data.problem_type],
        make_mixup(options.augmentation, len(data.labels), label_smoothing),
        label_smoothing,
        teacher,
        distillation.distillation_weight,
        distillation.distillation_temperature,
        class_weights,
    )


def make_train_loader(
    options: TrainOptions,
    accelerator: Accelerator,
    data: ImageData,
    processor: BaseImageProcessor,
    steps_per_epoch: int,
) -> TrainLoader:
    """Return this process's batches."""
    return TrainLoader(
        data,
        training_changes(data.problem_type, processor, options.augmentation),
        options.optimization.per_device_train_batch_size,
        steps_per_epoch * options.optimization.gradient_accumulation_steps,
        options.run.seed,
        rank=accelerator.process_index,
        num_processes=accelerator.num_processes,
        repeats=options.augmentation.repeated_augmentation,
        balanced=options.optimization.balanced_sampling,
        shuffle_buffer=options.streaming.shuffle_buffer,
        skip_unreadable=options.data.skip_unreadable,
        num_workers=options.data.num_workers,
        pin_memory=accelerator.device.type == "cuda",
        images=train_images(options.data, len(data.labels)),
    )


def check_repo_id(repo_id: str | None) -> None:
    """Raise ValueError if the result could not be pushed there, which is better known before training than after."""
    try:
        if repo_id is not None:
            validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(f"--push_to_hub {repo_id}: {error}") from error


def check_run_folder(run: Path) -> None:
    """Raise FileExistsError if the folder holds a run."""
    if (run / "model").exists():
        raise FileExistsError(f"{run} holds a finished run: choose another --output_dir.")
    if run.exists() and (not run.is_dir() or any(run.iterdir())):
        raise FileExistsError(
            f"{run} holds another run: choose another --output_dir, or go on by --resume_from_checkpoint latest."
        )
