"""Name the networks of the zoo, the recipes of `sk-transformers train`, or the configurations of `accelerate launch`.

sk-transformers list                       # every network
sk-transformers list "cska*" --parameters  # those that fit a pattern, with their parameters counted
sk-transformers list --pretrained          # those of which there are trained weights
sk-transformers list --recipes             # or, with a name, the path of one: a file to copy and change
accelerate launch --config_file "$(sk-transformers list --accelerate fsdp)" -m sk_transformers.cli.train ...

In a pipe each line is one entry, its columns separated by tabs.
"""

import argparse
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from ..recipes import accelerate_configurations, recipes, summary
from ..zoo import get_variant, list_models
from .errors import exit_on_user_error

ALL = ""  # what --recipes and --accelerate hold without a name


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="sk-transformers list", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pattern", nargs="?", help="part of a network's name, or a pattern such as 'cska*-s*'")
    parser.add_argument("--pretrained", action="store_true", help="only those of which there are trained weights")
    parser.add_argument("--parameters", action="store_true", help="count the parameters, which takes seconds")
    files = parser.add_mutually_exclusive_group()
    files.add_argument("--recipes", nargs="?", const=ALL, metavar="NAME", help="the recipes, or the path of one")
    files.add_argument(
        "--accelerate", nargs="?", const=ALL, metavar="NAME", help="configurations for accelerate, or the path of one"
    )
    args = parser.parse_args(argv)
    of_networks = args.pattern or args.parameters or args.pretrained
    if of_networks and (args.recipes is not None or args.accelerate is not None):
        parser.error(
            "PATTERN, --parameters and --pretrained are for networks, and do not go with --recipes or --accelerate"
        )
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    with exit_on_user_error():
        if args.recipes is not None:
            print_files("recipe", recipes(), args.recipes)
        elif args.accelerate is not None:
            print_files("configuration", accelerate_configurations(), args.accelerate)
        else:
            print_networks(args.pattern, args.parameters, args.pretrained)


def print_networks(pattern: str | None, with_parameters: bool, pretrained: bool) -> None:
    names = list_models(pattern, pretrained)
    if not names:
        kind = "trained network" if pretrained else "network"
        raise ValueError(f"no {kind} of the zoo fits {pattern!r}: `sk-transformers list` names them all.")
    rows = [network_row(name) for name in names]
    header = ["model", "image size", "token mixers"]
    if with_parameters:
        header.append("parameters, M")
        rows = [[*row, parameters_in_millions(name)] for name, row in zip(names, rows)]
    print_table(header, rows)


def network_row(name: str) -> list[str]:
    """Return name, image size in pixels and token mixers, each once, in the order of the layers."""
    settings = get_variant(name).settings
    mixers = settings.get("token_mixers") or [settings["token_mixer"]]
    return [name, str(settings.get("image_size", 224)), ", ".join(dict.fromkeys(mixers))]


def parameters_in_millions(name: str) -> str:
    from ..complexity import count_parameters  # seconds of imports
    from ..zoo import create_config

    return f"{count_parameters(create_config(name)) / 1e6:.2f}"


def print_files(kind: str, files: dict[str, Path], name: str) -> None:
    """Print name, path and summary of each file, or the path alone of the one called `name`."""
    if name == ALL and sys.stdout.isatty():
        print_table(["name", "what for"], [[name, summary(file)] for name, file in files.items()])
        print(f"They are in {next(iter(files.values())).parent}")
    elif name == ALL:
        print_table([], [[name, str(file), summary(file)] for name, file in files.items()])
    elif name in files:
        print(files[name])
    else:
        near = get_close_matches(name, files, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Expected one of {', '.join(files)}."
        raise ValueError(f"unknown {kind} {name!r}. {hint}")


def print_table(header: list[str], rows: list[list[str]]) -> None:
    """Print a table for readers, or, where the output is no terminal, the rows with tabs for programs."""
    if not sys.stdout.isatty():
        print("\n".join("\t".join(row) for row in rows))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in header:
        table.add_column(column, overflow="fold", justify="right" if column == "parameters, M" else "left")
    for row in rows:
        table.add_row(*row)
    Console(highlight=False).print(table)


if __name__ == "__main__":
    main()
