"""The options of a training run, in groups; the defaults suit fine-tuning on a few thousand images."""

from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from ..data.options import AugmentationOptions, DataOptions
from ..options import (
    fraction,
    image_size,
    non_negative,
    non_negative_int,
    number,
    option,
    positive,
    positive_int,
    proper_fraction,
)

ONE_LABEL_ALONE = ("mixup", "cutmix", "label_smoothing", "balanced_sampling", "teacher")
NOT_FOR_PIXELS = (
    *ONE_LABEL_ALONE, "class_weights", "streaming", "file_column", "lora_rank", "lora_target_modules",
    "log_attention_entropy", "crop_scale", "crop_ratio", "crop_padding", "rotation", "auto_augment", "random_erasing",
)  # fmt: skip
NOT_FOR = {  # options by --problem_type
    "single_label": ("scale_jitter",),
    "multi_label": (*ONE_LABEL_ALONE, "scale_jitter"),
    "segmentation": NOT_FOR_PIXELS,
    "detection": NOT_FOR_PIXELS,
}
PARAMETER_KINDS = ("norms", "biases", "positions", "keys")  # of parameters that weight decay may leave alone


def steps_or_epoch(text: str) -> int | str:
    """Return a number of steps, or the word."""
    if text == "epoch":
        return text
    return number(int, "a number of steps or epoch", lambda value: value >= 1)(text)


@dataclass
class ModelOptions:
    """The network, what its weights start from, and which of them are trained."""

    model: str = option(help="a Hub id or a repo folder to start from, or a name of the zoo for fresh weights")
    config_overrides: list[str] | None = option(
        None, "fields of the configuration, values in YAML", nargs="+", metavar="FIELD=VALUE"
    )
    image_size: int | list[int] | None = option(
        None,
        "pixels a side, or height and width; pretrained positions and static keys are resized",
        type=image_size,
        metavar="N|HEIGHTxWIDTH",
    )
    drop_path_rate: float | None = option(None, "stochastic depth, over the model's own", type=float)
    freeze_backbone: bool = option(False, "train the head alone")

    @property
    def config_fields(self) -> dict[str, Any]:
        """All fields of the configuration that the options set."""
        own = {"image_size": self.image_size, "drop_path_rate": self.drop_path_rate}
        return parse_overrides(self.config_overrides) | {
            name: value for name, value in own.items() if value is not None
        }


@dataclass
class LoraOptions:
    """Low-rank adapters."""

    lora_rank: int | None = option(
        None, "train low-rank adapters of this rank, and the head (needs PEFT)", type=positive_int
    )
    lora_alpha: float | None = option(None, "scale of the adapters [the rank]", type=positive)
    lora_dropout: float = option(0.0, "of what goes into the adapters", type=fraction)
    lora_target_modules: list[str] | None = option(
        None, "layers that get adapters [all linear ones]", nargs="+", metavar="NAME"
    )


@dataclass
class StreamingOptions:
    """Training images that are not held all at once."""

    streaming: bool = option(False, "read training images as they are needed")
    shuffle_buffer: int = option(10000, "images that a stream is shuffled among", type=positive_int)
    steps_per_epoch: int | None = option(
        None, "optimizer steps between evaluations, in place of a pass over the data", type=positive_int
    )


@dataclass
class OptimizationOptions:
    """How long, in which batches, and by what rule the weights change."""

    num_train_epochs: int = option(10, type=positive_int)
    max_train_steps: int | None = option(None, "optimizer steps, over the number of epochs", type=positive_int)
    per_device_train_batch_size: int = option(32, type=positive_int)
    per_device_eval_batch_size: int = option(128, type=positive_int)
    gradient_accumulation_steps: int = option(1, type=positive_int)
    opt: str = option("adamw", "an optimizer of timm: adamw, lamb, sgd, ...")
    opt_betas: list[float] | None = option(
        None,
        "[the optimizer's]",
        type=number(float, "a decay of at least 0 and less than 1", lambda value: 0 <= value < 1),
        nargs="+",
        metavar="BETA",
    )
    opt_eps: float | None = option(None, "[the optimizer's]", type=positive)
    momentum: float = option(0.9, "of optimizers such as sgd", type=fraction)
    weight_decay: float = option(0.05, type=non_negative)
    no_weight_decay: list[str] = option(
        list(PARAMETER_KINDS[:3]), "parameters that have none", nargs="*", choices=PARAMETER_KINDS, metavar="KIND"
    )
    layer_decay: float = option(1.0, "factor on the learning rate from a layer to the one below", type=positive)
    max_grad_norm: float | None = option(None, "largest norm of the gradient", type=positive)
    spectral_reparam: list[str] | None = option(
        None,
        "train weights with their spectral norm as a number of its own: those of modules that fit a pattern"
        " [without one: linear layers, convolutions and static keys but the head]",
        nargs="*",
        metavar="PATTERN",
    )
    label_smoothing: float = option(0.0, "fraction of a label that is spread over all classes", type=fraction)
    class_weights: str | None = option(
        None, "of the classes in the loss: a YAML file, or by how few images they have", metavar="balanced|FILE"
    )
    balanced_sampling: bool = option(False, "draw images of each class equally often")
    ema_decay: float | None = option(
        None,
        "keep an average of the weights, evaluate and export it: 0.9999, or less for few steps",
        type=proper_fraction,
    )
    ema_warmup: bool = option(False, "raise that decay from 0 over the first steps, as timm does")


@dataclass
class ScheduleOptions:
    """The learning rate of each step."""

    learning_rate: float = option(5e-4, "at its peak", type=positive)
    base_batch_size: int | None = option(
        None, "scale the learning rate: it is for this global batch size", type=positive_int
    )
    schedule: Literal["cosine", "linear", "constant"] = option("cosine", choices=["cosine", "linear", "constant"])
    schedule_by: Literal["step", "epoch"] = option("step", "when the learning rate changes", choices=["step", "epoch"])
    warmup_steps: int = option(50, "steps in which the learning rate rises", type=non_negative_int)
    warmup_epochs: float | None = option(None, "epochs of the same, in place of steps", type=non_negative)
    warmup_learning_rate: float = option(0.01, "at the first step, as a fraction of the peak", type=fraction)
    final_learning_rate: float = option(0.01, "at the end, as a fraction of the peak", type=fraction)
    cooldown_epochs: float = option(0, "epochs at the final rate, on top of the others", type=non_negative)


@dataclass
class DistillationOptions:
    """A teacher to learn from."""

    teacher: str | None = option(None, "an image classifier to learn from: a Hub id or a repo folder")
    distillation_weight: float = option(0.5, "fraction of the loss that the teacher has", type=fraction)
    distillation_temperature: float = option(1.0, "of both softmaxes", type=positive)
    trust_remote_code: bool = option(False, "run code from the teacher's repo")


@dataclass
class HardwareOptions:
    """Speed and memory."""

    mixed_precision: Literal["no", "fp16", "bf16"] | None = option(
        None, "[accelerate's configuration, or no]", choices=["no", "fp16", "bf16"]
    )
    gradient_checkpointing: bool = option(False, "compute activations twice instead of keeping them")
    compile: bool = option(False, "torch.compile the model")
    channels_last: bool = option(False, "memory format of images and convolutions")


@dataclass
class RunOptions:
    """Where a run goes, and when it is saved and ended."""

    output_dir: str = option("", "the run's folder [runs/MODEL-DATASET]; it must be new, unless resumed")
    seed: int = option(0, type=non_negative_int)
    push_to_hub: str | None = option(None, "where to push the result, as sk-transformers push does", metavar="REPO_ID")
    hub_private: bool = option(False, "as a private repo")
    report_to: list[str] = option(["none"], nargs="+", choices=["tensorboard", "wandb", "trackio", "none"])
    logging_steps: int = option(
        10, "optimizer steps between waits for the device, to read losses and hear of signals", type=positive_int
    )
    log_attention_entropy: bool = option(
        False, "evaluate also how wide each layer's attention is, on the first validation images"
    )
    checkpointing_steps: int | Literal["epoch"] = option(
        "epoch", "optimizer steps between checkpoints", type=steps_or_epoch, metavar="N|epoch"
    )
    checkpoints_total_limit: int = option(1, "latest checkpoints kept, beside the best", type=positive_int)
    early_stopping_patience: int | None = option(
        None, "stop after so many evaluations without a better one", type=positive_int
    )
    resume_from_checkpoint: str | None = option(None, "go on with a run that stopped", metavar="latest|PATH")
    resume_on_changed_data: bool = option(False, "go on although images were added, removed or changed")


@dataclass
class TrainOptions:
    """Everything that a run depends on. `TrainOptions(ModelOptions("skvit-nano-patch4-32"), DataOptions("digits"))`
    has the defaults for the rest; `recipe` says where options came from.

    Raises:
        ValueError: if options of two groups contradict each other.
    """

    model: ModelOptions
    data: DataOptions
    lora: LoraOptions = field(default_factory=LoraOptions)
    streaming: StreamingOptions = field(default_factory=StreamingOptions)
    augmentation: AugmentationOptions = field(default_factory=AugmentationOptions)
    optimization: OptimizationOptions = field(default_factory=OptimizationOptions)
    schedule: ScheduleOptions = field(default_factory=ScheduleOptions)
    distillation: DistillationOptions = field(default_factory=DistillationOptions)
    hardware: HardwareOptions = field(default_factory=HardwareOptions)
    run: RunOptions = field(default_factory=RunOptions)
    recipe: str | None = None

    def __post_init__(self) -> None:
        batch_size, repeats = self.optimization.per_device_train_batch_size, self.augmentation.repeated_augmentation
        if self.augmentation.mixes and batch_size % 2:
            raise ValueError(
                f"--per_device_train_batch_size is {batch_size}, expected an even number: Mixup and CutMix pair the"
                " images of a batch."
            )
        if self.streaming.streaming and repeats > 1:
            raise ValueError(
                f"--repeated_augmentation {repeats}: a stream gives each image once; leave it or --streaming out."
            )
        self._check_problem()
        if self.streaming.streaming and self.optimization.balanced_sampling:
            raise ValueError("--balanced_sampling: a stream comes in its own order; leave it or --streaming out.")
        if not self.run.output_dir:
            self.run.output_dir = str(Path("runs", f"{Path(self.model.model).name}-{Path(self.data.dataset).name}"))
        if self.model.freeze_backbone and self.lora.lora_rank:
            raise ValueError("--freeze_backbone and --lora_rank are both given: adapters leave the backbone as it is.")

    def _check_problem(self) -> None:
        problem_type, defaults, given = self.data.problem_type, default_values(), self.to_dict()
        for name in NOT_FOR[problem_type]:
            if given[name] != defaults[name]:
                raise ValueError(f"--{name} does not go with --problem_type {problem_type}: leave it out.")
        if problem_type == "segmentation" and self.optimization.per_device_train_batch_size == 1:
            raise ValueError(
                "--per_device_train_batch_size is 1, expected at least 2: the head of a segmenter normalizes over the"
                " images of a batch."
            )

    def to_dict(self) -> dict[str, Any]:
        """Return every option by its name."""
        groups = [asdict(getattr(self, name)) for name in GROUPS]
        return {"recipe": self.recipe} | {name: value for group in groups for name, value in group.items()}


GROUPS: dict[str, Any] = {member.name: member.type for member in fields(TrainOptions) if is_dataclass(member.type)}


def default_values() -> dict[str, Any]:
    """Return the default of every option that has one, by its name."""
    return {
        member.name: member.default if member.default_factory is MISSING else member.default_factory()
        for group in GROUPS.values()
        for member in fields(group)
    }


def parse_overrides(pairs: list[str] | None) -> dict[str, Any]:
    """Return `["depths=[1, 2]", ...]` as fields of a configuration; the values are YAML. ValueError without a `=`."""
    overrides = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"--config_overrides {pair}: expected field=value.")
        overrides[name] = parse_yaml(f"--config_overrides {pair}", value)
    return overrides


def parse_yaml(source: str, text: str) -> Any:
    """Return the value that YAML stands for; ValueError names its source if it is not valid."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{source} is not valid YAML: {' '.join(str(error).split())}.") from error
