"""The command line of `sk-transformers train`, with recipes: files that set any of its options."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from ..data.options import DataOptions
from ..options import add_options

RECIPES = Path(__file__).parents[1] / "recipes"
KINDS = ("norms", "biases", "positions", "keys")  # of parameters that weight decay may leave alone
Flag = argparse.BooleanOptionalAction  # --name and --no-name, so that the command line can undo a recipe


def build_parser() -> argparse.ArgumentParser:
    """The options, in groups; the defaults suit fine-tuning on a few thousand images."""
    parser = argparse.ArgumentParser(
        prog="sk-transformers train",
        description="Train or fine-tune an image classifier, and leave a repo folder that is ready to push."
        " Without --recipe, --model and --dataset it is the digits recipe.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--recipe", help="the name of a recipe (`sk-transformers list --recipes`) or a YAML file that sets options"
    )
    add_options(parser, DataOptions, "data")
    for add_group in (
        add_streaming,
        add_model,
        add_augmentation,
        add_optimization,
        add_schedule,
        add_distillation,
        add_hardware,
        add_run,
    ):
        add_group(parser)
    return parser


def add_streaming(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("streaming").add_argument
    add("--streaming", action=Flag, default=False, help="read training images as they are needed")
    add("--shuffle_buffer", type=int, default=10000, help="images that a stream is shuffled among")
    add("--steps_per_epoch", type=int, help="optimizer steps between evaluations, in place of a pass over the data")


def add_model(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("model").add_argument
    add("--model", help="a Hub id or a repo folder to start from, or a name of the zoo for fresh weights")
    add("--config_overrides", nargs="+", metavar="FIELD=VALUE", help="fields of the configuration, values in YAML")
    add("--image_size", type=int, help="pixels a side; pretrained positions and static keys are resized")
    add("--drop_path_rate", type=float, help="stochastic depth, over the model's own")
    add("--freeze_backbone", action=Flag, default=False, help="train the head alone")
    add("--lora_rank", type=int, help="train low-rank adapters of this rank, and the head (needs PEFT)")
    add("--lora_alpha", type=float, help="scale of the adapters [the rank]")
    add("--lora_dropout", type=float, default=0.0)
    add("--lora_target_modules", nargs="+", metavar="NAME", help="layers that get adapters [all linear ones]")


def add_augmentation(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("augmentation").add_argument
    add("--crop_scale", type=float, nargs=2, default=[0.35, 1.0], help="area of random crops", metavar=("MIN", "MAX"))
    add("--crop_ratio", type=float, nargs=2, default=[0.75, 4 / 3], help="their aspect ratio", metavar=("MIN", "MAX"))
    add("--crop_padding", type=int, default=0, help="instead: resize, pad by so many pixels, and crop")
    add("--hflip", type=float, default=0.5, help="probability of a left-right flip")
    add("--vflip", type=float, default=0.0, help="probability of an up-down flip")
    add("--rotation", type=float, default=0.0, help="largest random rotation, degrees")
    add("--color_jitter", type=float, default=0.0, help="largest change of brightness, contrast and saturation")
    add("--auto_augment", metavar="POLICY", help="of timm, such as rand-m9-mstd0.5-inc1")
    add("--random_erasing", type=float, default=0.0, help="probability of erasing a rectangle")
    add("--mixup", type=float, default=0.0, metavar="ALPHA", help="of the beta distribution that images are mixed by")
    add("--cutmix", type=float, default=0.0, metavar="ALPHA", help="of the beta distribution that areas are cut by")
    add("--mixup_prob", type=float, default=1.0, help="probability that a batch is mixed or cut")
    add("--mixup_switch_prob", type=float, default=0.5, help="probability of CutMix where both are on")
    add("--mixup_mode", choices=["batch", "pair", "elem"], default="batch", help="what shares a draw")
    add("--mixup_off_epoch", type=float, help="epoch from which nothing is mixed or cut")
    add("--repeated_augmentation", type=int, default=1, help="times that each image comes in a row")


def add_optimization(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("optimization").add_argument
    add("--num_train_epochs", type=int, default=10)
    add("--max_train_steps", type=int, help="optimizer steps, over the number of epochs")
    add("--per_device_train_batch_size", type=int, default=32)
    add("--per_device_eval_batch_size", type=int, default=128)
    add("--gradient_accumulation_steps", type=int, default=1)
    add("--opt", default="adamw", help="an optimizer of timm: adamw, lamb, sgd, ...")
    add("--opt_betas", type=float, nargs="+", metavar="BETA", help="[the optimizer's]")
    add("--opt_eps", type=float, help="[the optimizer's]")
    add("--momentum", type=float, default=0.9, help="of optimizers such as sgd")
    add("--weight_decay", type=float, default=0.05)
    add(
        "--no_weight_decay", nargs="*", choices=KINDS, default=list(KINDS[:3]), help="parameters that have none",
        metavar="KIND",
    )  # fmt: skip
    add("--layer_decay", type=float, default=1.0, help="factor on the learning rate from a layer to the one below")
    add("--max_grad_norm", type=float, help="largest norm of the gradient")
    add("--label_smoothing", type=float, default=0.0)
    add("--ema_decay", type=float, help="keep an average of the weights, evaluate and export it")
    add("--ema_warmup", action=Flag, default=False, help="raise that decay from 0 over the first steps, as timm does")


def add_schedule(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("learning rate").add_argument
    add("--learning_rate", type=float, default=5e-4, help="at its peak")
    add("--base_batch_size", type=int, help="scale the learning rate: it is for this global batch size")
    add("--schedule", choices=["cosine", "linear", "constant"], default="cosine")
    add("--schedule_by", choices=["step", "epoch"], default="step", help="when the learning rate changes")
    add("--warmup_steps", type=int, default=50, help="steps in which the learning rate rises")
    add("--warmup_epochs", type=float, help="epochs of the same, in place of steps")
    add("--warmup_learning_rate", type=float, default=0.01, help="at the first step, as a part of the peak")
    add("--final_learning_rate", type=float, default=0.01, help="at the end, as a part of the peak")
    add("--cooldown_epochs", type=float, default=0, help="epochs at the final rate, on top of the others")


def add_distillation(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("distillation").add_argument
    add("--teacher", help="an image classifier to learn from: a Hub id or a repo folder")
    add("--distillation_weight", type=float, default=0.5, help="part of the loss that the teacher has")
    add("--distillation_temperature", type=float, default=1.0, help="of both softmaxes")
    add("--trust_remote_code", action=Flag, default=False, help="run code from the teacher's repo")


def add_hardware(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("speed and memory").add_argument
    add("--mixed_precision", choices=["no", "fp16", "bf16"], help="[accelerate's configuration, or no]")
    add("--gradient_checkpointing", action=Flag, default=False, help="compute activations twice instead of keeping")
    add("--compile", action=Flag, default=False, help="torch.compile the model")
    add("--channels_last", action=Flag, default=False, help="memory format of images and convolutions")


def add_run(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("run").add_argument
    add("--output_dir", help="the run's folder [runs/MODEL-DATASET]; it must be new, unless resumed")
    add("--seed", type=int, default=0)
    add("--push_to_hub", metavar="REPO_ID", help="where to push the result, as sk-transformers push does")
    add("--hub_private", action=Flag, default=False, help="as a private repo")
    add("--report_to", nargs="+", choices=["tensorboard", "wandb", "trackio", "none"], default=["none"])
    add("--checkpointing_steps", default="epoch", metavar="N|epoch", help="optimizer steps between checkpoints")
    add("--checkpoints_total_limit", type=int, default=1, help="latest checkpoints kept, beside the best")
    add("--early_stopping_patience", type=int, help="stop after so many evaluations without a better one")
    add("--resume_from_checkpoint", metavar="latest|PATH", help="go on with a run that stopped")


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a run: the parser's defaults, over them the recipe's, over them the command line's.

    Args:
        argv: the command line, `sys.argv` when None.

    Raises:
        ValueError: if the recipe, or an option in it, is unknown, or a value does not fit.
    """
    parser = build_parser()
    args = parser.parse_args(argv)
    recipe = args.recipe or (None if args.model or args.dataset else "digits")
    if recipe is not None:
        file, options = read_recipe(recipe, known=set(vars(args)) - {"recipe"})
        defaults = parse_recipe(file, options)
        parser.set_defaults(**{name: getattr(defaults, name) for name in options})
        args = parser.parse_args(argv)
    args.recipe = recipe
    check_arguments(args)
    if args.output_dir is None:
        args.output_dir = str(Path("runs", f"{Path(args.model).name}-{Path(args.dataset).name}"))
    return args


def read_recipe(recipe: str, known: set[str]) -> tuple[Path, dict[str, Any]]:
    """The file of a recipe, and the options that it sets."""
    file = Path(recipe)
    if not file.is_file():
        file = RECIPES / f"{recipe}.yaml"
    if not file.is_file():
        names = sorted(path.stem for path in RECIPES.glob("*.yaml"))
        raise ValueError(
            f"--recipe {recipe}: there is no such file, nor a recipe of that name among {', '.join(names)}."
        )
    options = parse_yaml(str(file), file.read_text())
    if not isinstance(options, dict):
        raise ValueError(f"{file} is no recipe: expected lines of the form option: value.")
    unknown = sorted(set(options) - known)
    if unknown:
        raise ValueError(f"{file} sets {unknown[0]!r}, which is not an option: see --help.")
    return file, options


def parse_yaml(source: str, text: str) -> Any:
    """The value that YAML stands for; ValueError names its source if it is none."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{source} is no YAML: {' '.join(str(error).split())}.") from error


def parse_recipe(file: Path, options: dict[str, Any]) -> argparse.Namespace:
    """A recipe's options, read as the command line's would be, so that wrong values are found."""
    parser, args = build_parser(), argparse.Namespace()

    def refuse(message: str) -> None:
        raise ValueError(f"{file} sets {name} to {value!r}: {message}.")

    parser.error = refuse
    for name, value in options.items():
        parser.parse_args([*to_tokens(name, value)], args)
    return args


def to_tokens(name: str, value: Any) -> Iterator[str]:
    """An option as the command line has it."""
    if isinstance(value, bool):
        yield f"--{name}" if value else f"--no-{name}"
    elif value is not None:
        yield f"--{name}"
        yield from map(str, value if isinstance(value, list) else [value])


def check_arguments(args: argparse.Namespace) -> None:
    """Raise ValueError unless the values fit."""
    for required in ("model", "dataset"):
        if getattr(args, required) is None:
            raise ValueError(f"--{required} is missing: give both --model and --dataset, or a --recipe with them.")
    for name in AT_LEAST_ONE:
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name} is {value}, expected at least 1.")
    for name in PARTS:
        if not 0 <= getattr(args, name) <= 1:
            raise ValueError(f"--{name} is {getattr(args, name)}, expected a part between 0 and 1.")
    for name in POSITIVE:
        value = getattr(args, name)
        if value is not None and not value > 0:
            raise ValueError(f"--{name} is {value}, expected more than 0.")
    for name in NOT_NEGATIVE:
        value = getattr(args, name)
        if value is not None and value < 0:
            raise ValueError(f"--{name} is {value}, expected at least 0.")
    if not 0 < args.crop_scale[0] <= args.crop_scale[1] <= 1:
        raise ValueError(
            f"--crop_scale is {args.crop_scale}, expected two parts of the area, smaller first, of at most 1."
        )
    if not 0 < args.crop_ratio[0] <= args.crop_ratio[1]:
        raise ValueError(f"--crop_ratio is {args.crop_ratio}, expected two ratios of width to height, smaller first.")
    if not all(0 <= beta < 1 for beta in args.opt_betas or ()):
        raise ValueError(f"--opt_betas is {args.opt_betas}, expected decays of at least 0 and less than 1.")
    if args.ema_decay is not None and not 0 < args.ema_decay < 1:
        raise ValueError(f"--ema_decay is {args.ema_decay}, expected a decay between 0 and 1, such as 0.9999.")
    if args.checkpointing_steps != "epoch" and not (
        args.checkpointing_steps.isdigit() and int(args.checkpointing_steps) > 0
    ):
        raise ValueError(f"--checkpointing_steps is {args.checkpointing_steps}, expected a number of steps or epoch.")
    if (args.mixup or args.cutmix) and args.per_device_train_batch_size % 2:
        raise ValueError(
            f"--per_device_train_batch_size is {args.per_device_train_batch_size}, expected an even number: Mixup and"
            " CutMix pair the images of a batch."
        )
    if args.streaming and args.repeated_augmentation > 1:
        raise ValueError(
            f"--repeated_augmentation {args.repeated_augmentation}: a stream gives each image once; leave it or"
            " --streaming out."
        )
    if args.freeze_backbone and args.lora_rank:
        raise ValueError("--freeze_backbone and --lora_rank are both given: adapters leave the backbone as it is.")


AT_LEAST_ONE = (
    "num_train_epochs",
    "max_train_steps",
    "steps_per_epoch",
    "per_device_train_batch_size",
    "per_device_eval_batch_size",
    "gradient_accumulation_steps",
    "shuffle_buffer",
    "image_size",
    "lora_rank",
    "repeated_augmentation",
    "base_batch_size",
    "checkpoints_total_limit",
    "early_stopping_patience",
)
PARTS = (
    "hflip",
    "vflip",
    "random_erasing",
    "mixup_prob",
    "mixup_switch_prob",
    "momentum",
    "lora_dropout",
    "label_smoothing",
    "distillation_weight",
    "warmup_learning_rate",
    "final_learning_rate",
)
POSITIVE = ("learning_rate", "layer_decay", "distillation_temperature", "max_grad_norm", "opt_eps", "lora_alpha")
NOT_NEGATIVE = (
    "seed",
    "weight_decay",
    "crop_padding",
    "rotation",
    "color_jitter",
    "mixup",
    "cutmix",
    "mixup_off_epoch",
    "warmup_steps",
    "warmup_epochs",
    "cooldown_epochs",
)


def parse_overrides(pairs: list[str] | None) -> dict[str, Any]:
    """`["depths=[1, 2]", ...]` as fields of a configuration; the values are YAML. ValueError without a `=`."""
    overrides = {}
    for pair in pairs or []:
        field, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"--config_overrides {pair}: expected field=value.")
        overrides[field] = parse_yaml(f"--config_overrides {pair}", value)
    return overrides
