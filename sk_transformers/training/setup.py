"""Everything that a run consists of, made from its options and prepared for the processes and devices there are."""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, set_seed
from huggingface_hub.utils import HFValidationError, validate_repo_id
from timm.utils import ModelEmaV3
from torch import nn
from torch.utils.data import DataLoader
from transformers import PretrainedConfig, PreTrainedModel
from transformers.image_processing_utils import BaseImageProcessor

from ..data.loaders import TrainLoader, eval_loader
from ..data.options import DataOptions
from ..data.sources import ImageData, load_data
from ..data.transforms import eval_transform, make_mixup, train_transform
from ..devices import use_all_cores
from ..options import read_options
from ..pretrained import load_model
from .objective import Objective, Teacher
from .optimization import Schedule, make_optimizer
from .options import parse_overrides
from .trackers import installed_trackers
from .trainable import add_lora, freeze_backbone

SHARDED = (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM)


@dataclass
class Setup:
    """What a run trains, with what, and for how long.

    `model` is prepared by the accelerator; `model_class` and `config` make the same network anew, for export. `ema` is
    None unless the weights are averaged. Steps are those of the optimizer.
    """

    args: argparse.Namespace
    accelerator: Accelerator
    data: ImageData
    processor: BaseImageProcessor
    model: nn.Module
    model_class: type[PreTrainedModel]
    config: PretrainedConfig
    ema: ModelEmaV3 | None
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    objective: Objective
    train_loader: TrainLoader
    eval_loader: DataLoader
    steps_per_epoch: int
    total_steps: int

    @property
    def batches(self) -> dict[str, int]:
        """What decides which images the next step takes, beside its number."""
        return {
            "--seed": self.args.seed,
            "a global batch of": global_batch_size(self.args, self.accelerator),
            "steps in an epoch:": self.steps_per_epoch,
        }


def set_up(args: argparse.Namespace) -> Setup:
    """Load data and model, and make what trains them.

    Raises:
        ValueError: if an option does not fit the data, the model or the machine.
        ImportError: if an option needs a package that is not installed.
    """
    accelerator = make_accelerator(args)
    set_seed(args.seed)
    with accelerator.local_main_process_first():  # the others find the data in the cache
        data = load_data(read_options(DataOptions, args), args.streaming)
    steps_per_epoch = count_steps(args, data, global_batch_size(args, accelerator))
    total_steps = args.max_train_steps or round((args.num_train_epochs + args.cooldown_epochs) * steps_per_epoch)

    network, processor = make_network(args, data)
    model_class, config = type(network), network.config
    model = choose_trainable(args, network)
    ema = make_ema(args, accelerator, model)
    objective = make_objective(args, accelerator, data, processor)
    learning_rate = scaled_learning_rate(args, accelerator)
    optimizer = make_optimizer(args, model, learning_rate)
    if accelerator.distributed_type in SHARDED:
        prepare_to_shard(accelerator, model, network)
    if args.compile:
        model.compile()
    loader = eval_loader(
        data.validation,
        eval_transform(processor),
        args.per_device_eval_batch_size,
        args.num_workers,
        args.on_unreadable == "skip",
    )
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    return Setup(
        args=args,
        accelerator=accelerator,
        data=data,
        processor=processor,
        model=model,
        model_class=model_class,
        config=config,
        ema=ema,
        optimizer=optimizer,
        schedule=Schedule(args, optimizer, learning_rate, steps_per_epoch, total_steps),
        objective=objective,
        train_loader=make_train_loader(args, accelerator, data, processor, steps_per_epoch),
        eval_loader=loader,
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
    )


def make_accelerator(args: argparse.Namespace) -> Accelerator:
    """The accelerator, which also keeps the trackers; ImportError if one of those is not installed.

    ValueError if the device does not compute with the precision.
    """
    # The launcher sets it for DeepSpeed, and it would overrule the argument.
    os.environ.pop("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", None)
    accelerator = Accelerator(
        mixed_precision=args.mixed_precision,
        gradient_accumulation_steps=args.gradient_accumulation_steps,
        log_with=installed_trackers(args) or None,
        project_dir=args.output_dir,
    )
    if args.mixed_precision == "fp16" and accelerator.device.type == "cpu":  # accelerate would pass over it
        raise ValueError("--mixed_precision fp16: the processor computes with bf16 or no.")
    use_all_cores(accelerator)
    if accelerator.distributed_type == DistributedType.DEEPSPEED:  # it asks a loader that accelerate prepared
        accelerator.state.deepspeed_plugin.deepspeed_config |= {
            "train_micro_batch_size_per_gpu": args.per_device_train_batch_size,
            "gradient_accumulation_steps": args.gradient_accumulation_steps,
            "gradient_clipping": args.max_grad_norm or 0.0,
        }
    return accelerator


def global_batch_size(args: argparse.Namespace, accelerator: Accelerator) -> int:
    """Images in an optimizer step, of all processes."""
    return args.per_device_train_batch_size * accelerator.num_processes * args.gradient_accumulation_steps


def scaled_learning_rate(args: argparse.Namespace, accelerator: Accelerator) -> float:
    """`--learning_rate`, in proportion to the global batch if `--base_batch_size` says what batch it is for."""
    if args.base_batch_size is None:
        return args.learning_rate
    return args.learning_rate * global_batch_size(args, accelerator) / args.base_batch_size


def count_steps(args: argparse.Namespace, data: ImageData, global_batch: int) -> int:
    """Optimizer steps between evaluations: a pass over the data in whole batches, unless an option says otherwise."""
    if args.steps_per_epoch is not None:
        return args.steps_per_epoch
    if data.train_images is None:
        raise ValueError(f"--streaming: {data.name} does not tell how many images it has: give --steps_per_epoch.")
    return max(1, data.train_images // global_batch)


def make_network(args: argparse.Namespace, data: ImageData) -> tuple[PreTrainedModel, BaseImageProcessor]:
    """The network that the options name, with the image processor that goes with it."""
    overrides = parse_overrides(args.config_overrides)
    for field in ("image_size", "drop_path_rate"):
        if getattr(args, field) is not None:
            overrides[field] = getattr(args, field)
    return load_model(args.model, data.id2label, **overrides)


def choose_trainable(args: argparse.Namespace, model: PreTrainedModel) -> nn.Module:
    """The model with the parameters frozen, adapters added and memory arranged as the options say."""
    if args.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    if args.channels_last:
        model = model.to(memory_format=torch.channels_last)
    if args.freeze_backbone:
        freeze_backbone(model)
    return add_lora(model, args) if args.lora_rank else model


def make_ema(args: argparse.Namespace, accelerator: Accelerator, model: nn.Module) -> ModelEmaV3 | None:
    """timm's moving average of the weights, if it is asked for."""
    if args.ema_decay is None:
        return None
    if accelerator.distributed_type in SHARDED:
        raise ValueError(
            f"--ema_decay: {accelerator.distributed_type.value} splits the weights among processes, and the average"
            " needs them whole: leave one of the two out."
        )
    return ModelEmaV3(model, decay=args.ema_decay, use_warmup=args.ema_warmup).to(accelerator.device)


def prepare_to_shard(accelerator: Accelerator, model: nn.Module, network: PreTrainedModel) -> None:
    """Make the model ready for FSDP or DeepSpeed, which split the weights among processes.

    FSDP gets each layer for itself, unless its configuration says what else. By itself accelerate would choose all
    modules that are not to be divided, and then the patch embeddings, which are in one of them, once more.

    Both keep weights in half precision, or cast images to it, and leave out the autocast that the networks expect then.
    """
    if accelerator.distributed_type == DistributedType.FSDP:
        plugin = accelerator.state.fsdp_plugin
        if plugin.transformer_cls_names_to_wrap is None:
            plugin.transformer_cls_names_to_wrap = [
                name for name in network._no_split_modules if name.endswith("Layer")
            ]
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(accelerator.mixed_precision)
    if half is not None:
        model.forward = torch.autocast(accelerator.device.type, half)(model.forward)


def make_objective(
    args: argparse.Namespace, accelerator: Accelerator, data: ImageData, processor: BaseImageProcessor
) -> Objective:
    """The loss that the options describe, with its teacher on the device."""
    teacher = None
    if args.teacher is not None:
        teacher = Teacher(args.teacher, processor, data.labels, args.trust_remote_code).to(accelerator.device)
    mixup = make_mixup(args, len(data.labels))
    return Objective(mixup, args.label_smoothing, teacher, args.distillation_weight, args.distillation_temperature)


def make_train_loader(
    args: argparse.Namespace,
    accelerator: Accelerator,
    data: ImageData,
    processor: BaseImageProcessor,
    steps_per_epoch: int,
) -> TrainLoader:
    """This process's batches."""
    return TrainLoader(
        data,
        train_transform(processor, args),
        args.per_device_train_batch_size,
        steps_per_epoch * args.gradient_accumulation_steps,
        args.seed,
        rank=accelerator.process_index,
        num_processes=accelerator.num_processes,
        repeats=args.repeated_augmentation,
        shuffle_buffer=args.shuffle_buffer,
        skip_unreadable=args.on_unreadable == "skip",
        num_workers=args.num_workers,
        pin_memory=accelerator.device.type == "cuda",
    )


def check_push(repo_id: str | None) -> None:
    """ValueError if the result could not be pushed there, which is better known before training than after."""
    try:
        if repo_id is not None:
            validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(f"--push_to_hub {repo_id}: {error}") from error


def check_run_folder(run: Path) -> None:
    """FileExistsError if the folder holds a run."""
    if (run / "model").exists():
        raise FileExistsError(f"{run} holds a finished run: choose another --output_dir.")
    if run.exists() and (not run.is_dir() or any(run.iterdir())):
        raise FileExistsError(
            f"{run} holds another run: choose another --output_dir, or go on by --resume_from_checkpoint latest."
        )
