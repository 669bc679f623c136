"""The command lines of training, with recipes: files that set any of their options."""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from ..options import add_options, read_options
from ..recipes import recipes
from .options import GROUPS, NOT_FOR, TrainOptions, parse_yaml


class OneSentenceParser(argparse.ArgumentParser):
    """A parser that raises ValueError with a sentence where others print eighty lines of usage and exit."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}.")


@dataclass(frozen=True)
class TrainCommand:
    """A command that trains.

    Args:
        name: after `sk-transformers`.
        description: what `--help` says of it.
        recipe: the one where neither a recipe nor model and data are given, None where they have to be.
        defaults: of options, in place of their own.
        hidden: options that `--help` leaves out.
    """

    name: str
    description: str
    recipe: str | None = None
    defaults: dict[str, Any] = field(default_factory=dict)
    hidden: tuple[str, ...] = ()


TRAIN = TrainCommand(
    "train",
    "Train or fine-tune an image classifier, and leave a repo folder that is ready to push. Without --recipe, --model"
    " and --dataset it is the digits recipe.",
    recipe="digits",
)
TRAIN_SEGMENTATION = TrainCommand(
    "train-segmentation",
    "Train or fine-tune a semantic segmenter, which gives each pixel a class, and leave a repo folder that is ready to"
    " push.",
    defaults={
        "problem_type": "segmentation",
        "per_device_train_batch_size": 8,  # of images that are larger than a classifier's
        "per_device_eval_batch_size": 8,
    },
    hidden=("problem_type", *NOT_FOR["segmentation"], "box_only", "box_format"),
)
TRAIN_DETECTION = TrainCommand(
    "train-detection",
    "Train or fine-tune a detector, which finds objects and their masks, and leave a repo folder that is ready to"
    " push.",
    defaults={
        "problem_type": "detection",
        "per_device_train_batch_size": 4,  # of images that are larger than a classifier's
        "per_device_eval_batch_size": 4,
    },
    hidden=("problem_type", *NOT_FOR["detection"], "ignore_index", "reduce_labels"),
)


def build_parser(command: TrainCommand = TRAIN) -> argparse.ArgumentParser:
    """Return the parser of all options of a command, in their groups."""
    parser = OneSentenceParser(
        prog=f"sk-transformers {command.name}",
        usage="%(prog)s [--recipe RECIPE] [--model MODEL] [--dataset DATASET] [OPTION ...]",
        description=command.description,
    )
    parser.add_argument(
        "--recipe", help="the name of a recipe (`sk-transformers list --recipes`) or a YAML file that sets options"
    )
    for name, group in GROUPS.items():
        add_options(parser, group, name, command.defaults, command.hidden)
    return parser


def parse_options(argv: Sequence[str] | None = None, command: TrainCommand = TRAIN) -> TrainOptions:
    """Return the options of a run: the groups' defaults, over them the recipe's, over them the command line's.

    Args:
        argv: the command line, `sys.argv` when None.
        command: whose command line it is.

    Raises:
        ValueError: if the recipe, or an option, is unknown, or a value does not fit.
    """
    parser = build_parser(command)
    args = parser.parse_args(argv)
    recipe = args.recipe or (None if args.model or args.dataset else command.recipe)
    if recipe is not None:
        file, options = read_recipe(recipe, known=set(vars(args)) - {"recipe"})
        defaults = parse_recipe(file, options)
        parser.set_defaults(**{name: getattr(defaults, name) for name in options})
        args = parser.parse_args(argv)
    for required in ("model", "dataset"):
        if getattr(args, required) is None:
            raise ValueError(f"--{required} is missing: give both --model and --dataset, or a --recipe with them.")
    return TrainOptions(**{name: read_options(group, args) for name, group in GROUPS.items()}, recipe=recipe)


def read_recipe(recipe: str, known: set[str]) -> tuple[Path, dict[str, Any]]:
    """Return the file of a recipe, and the options that it sets."""
    file = Path(recipe) if Path(recipe).is_file() else recipes().get(recipe)
    if file is None:
        raise ValueError(
            f"--recipe {recipe}: there is no such file, nor a recipe of that name among {', '.join(recipes())}."
        )
    options = parse_yaml(str(file), file.read_text(encoding="utf-8"))
    if not isinstance(options, dict):
        raise ValueError(f"{file} is not a recipe: expected lines of the form option: value.")
    unknown = sorted(set(options) - known)
    if unknown:
        raise ValueError(f"{file} sets {unknown[0]!r}, which is not an option: see --help.")
    return file, options


def parse_recipe(file: Path, options: dict[str, Any]) -> argparse.Namespace:
    """Return a recipe's options, read as the command line's would be, so that wrong values are found."""
    parser, args = build_parser(), argparse.Namespace()
    for name, value in options.items():
        try:
            parser.parse_args([*to_tokens(name, value)], args)
        except ValueError as error:
            raise ValueError(f"{file} sets {name} to {value!r}: {error}") from error
    return args


def to_tokens(name: str, value: Any) -> Iterator[str]:
    """Yield an option as the command line has it."""
    if isinstance(value, bool):
        yield f"--{name}" if value else f"--no-{name}"
    elif value is not None:
        yield f"--{name}"
        yield from map(str, value if isinstance(value, list) else [value])
