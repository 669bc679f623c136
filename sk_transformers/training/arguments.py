"""The command line of `scripts/finetune.py`, with recipes: files that set any of its options."""

import argparse
from pathlib import Path

import yaml


def build_parser() -> argparse.ArgumentParser:
    """The options, in groups; the defaults suit fine-tuning on a few thousand images."""
    parser = argparse.ArgumentParser(
        description="Train or fine-tune an image classifier, and leave a repo folder that is ready to push."
        " Without --recipe, --model and --dataset it is the digits recipe.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--recipe", help="a file in scripts/recipes (its name will do) or a YAML file that sets options"
    )

    data = parser.add_argument_group("data and model")
    data.add_argument("--model", help="a Hub id or a repo folder to start from, or a name of the zoo for fresh weights")
    data.add_argument("--dataset", help="'digits', a folder with one folder of images a class, or a Hub dataset")
    data.add_argument(
        "--train_val_split", type=float, default=0.2, help="part held out when there is no validation split"
    )
    data.add_argument("--split_seed", type=int, default=0, help="seed of that split, apart from the run's")
    data.add_argument("--num_workers", type=int, default=0, help="processes that load images")

    augmentation = parser.add_argument_group("augmentation")
    augmentation.add_argument(
        "--crop_scale", type=float, nargs=2, default=[0.35, 1.0], help="area of random crops", metavar=("MIN", "MAX")
    )
    augmentation.add_argument("--hflip", type=float, default=0.5, help="probability of a left-right flip")
    augmentation.add_argument("--rotation", type=float, default=0.0, help="largest random rotation, degrees")

    optimization = parser.add_argument_group("optimization")
    optimization.add_argument("--num_train_epochs", type=int, default=10)
    optimization.add_argument("--max_train_steps", type=int, help="optimizer steps, over the number of epochs")
    optimization.add_argument("--per_device_train_batch_size", type=int, default=32)
    optimization.add_argument("--per_device_eval_batch_size", type=int, default=128)
    optimization.add_argument("--gradient_accumulation_steps", type=int, default=1)
    optimization.add_argument("--opt", default="adamw", help="an optimizer of timm")
    optimization.add_argument("--learning_rate", type=float, default=5e-4, help="at its peak; it falls along a cosine")
    optimization.add_argument("--weight_decay", type=float, default=0.05, help="of weights; norms and biases have none")
    optimization.add_argument("--warmup_steps", type=int, default=50, help="steps in which the learning rate rises")
    optimization.add_argument("--max_grad_norm", type=float, help="largest norm of the gradient")
    optimization.add_argument("--drop_path_rate", type=float, help="stochastic depth, over the model's own")
    optimization.add_argument("--mixed_precision", choices=["no", "fp16", "bf16"], default="no")

    run = parser.add_argument_group("run")
    run.add_argument("--output_dir", help="the run's folder [runs/MODEL-DATASET]; it must be new, unless resumed")
    run.add_argument("--seed", type=int, default=0)
    run.add_argument("--resume_from_checkpoint", metavar="latest|PATH", help="go on with a run that stopped")
    return parser


def parse_arguments(argv: list[str] | None = None, recipes: Path | None = None) -> argparse.Namespace:
    """The options of a run: the parser's defaults, over them the recipe's, over them the command line's.

    Args:
        argv: the command line, `sys.argv` when None.
        recipes: folder of the named recipes.

    Raises:
        ValueError: if the recipe, or an option in it, is unknown, or a value does not fit.
    """
    parser = build_parser()
    given = parser.parse_args(argv)
    recipe = given.recipe or (None if given.model or given.dataset else "digits")
    if recipe is not None:
        parser.set_defaults(**read_recipe(recipe, recipes, known=set(vars(given)) - {"recipe"}))
    args = parser.parse_args(argv)
    args.recipe = recipe
    check_arguments(args)
    if args.output_dir is None:
        args.output_dir = str(Path("runs", f"{Path(args.model).name}-{Path(args.dataset).name}"))
    return args


def read_recipe(recipe: str, folder: Path | None, known: set[str]) -> dict:
    """The options that a recipe sets."""
    file = Path(recipe)
    if not file.is_file() and folder is not None:
        file = folder / f"{recipe}.yaml"
    if not file.is_file():
        names = sorted(path.stem for path in folder.glob("*.yaml")) if folder else []
        raise ValueError(
            f"--recipe {recipe}: there is no such file, nor a recipe of that name among {', '.join(names)}."
        )
    options = yaml.safe_load(file.read_text())
    if not isinstance(options, dict):
        raise ValueError(f"{file} is no recipe: expected lines of the form option: value.")
    unknown = sorted(set(options) - known)
    if unknown:
        raise ValueError(f"{file} sets {unknown[0]!r}, which is not an option: see --help.")
    return options


def check_arguments(args: argparse.Namespace) -> None:
    """Raise ValueError unless the values fit."""
    for required in ("model", "dataset"):
        if getattr(args, required) is None:
            raise ValueError(f"--{required} is missing: give both --model and --dataset, or a --recipe with them.")
    for name in ("num_train_epochs", "per_device_train_batch_size", "per_device_eval_batch_size",
                 "gradient_accumulation_steps"):  # fmt: skip
        if getattr(args, name) < 1:
            raise ValueError(f"--{name} is {getattr(args, name)}, expected at least 1.")
    if args.max_train_steps is not None and args.max_train_steps < 1:
        raise ValueError(f"--max_train_steps is {args.max_train_steps}, expected at least 1.")
    if not 0 < args.train_val_split < 1:
        raise ValueError(f"--train_val_split is {args.train_val_split}, expected a part between 0 and 1.")
    if not 0 < args.crop_scale[0] <= args.crop_scale[1] <= 1:
        raise ValueError(
            f"--crop_scale is {args.crop_scale}, expected two parts of the area, smaller first, of at most 1."
        )
