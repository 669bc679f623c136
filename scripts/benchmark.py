"""Measure the zoo's networks.

python scripts/benchmark.py --count                # parameters and multiply-adds of all, as a Markdown table
python scripts/benchmark.py --count --models "*s18"

`--count` counts with torch's FlopCounterMode; `sk_transformers/complexity.py` says why with that one.
"""

import argparse

from sk_transformers import create_config, list_models
from sk_transformers.complexity import count_macs, count_parameters
from sk_transformers.zoo import get_variant

LARGE_SIZE = 384  # pixels, for networks made for 224
COUNT_HEADER = (
    "| model | parameters, M | published | image size | MACs, G | published | MACs at 384, G | published |",
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", action="store_true", help="print parameters and multiply-adds beside published ones")
    parser.add_argument("--models", metavar="NAME", help="part of a name, or a pattern; all networks without it")
    args = parser.parse_args(argv)
    if not args.count:
        parser.error("nothing to measure: pass --count")
    if not list_models(args.models):
        parser.error(f"no network of the zoo is called {args.models!r}")
    return args


def print_counts(names: list[str]) -> None:
    """Print a Markdown table, and below it why published figures differ from counted ones."""
    print(*COUNT_HEADER, sep="\n")
    notes = {}
    for name in names:
        config, published = create_config(name), get_variant(name).published
        at_384 = count_macs(config, LARGE_SIZE) / 1e9 if config.image_size == 224 else None
        cells = [
            f"`{name}`",
            f"{count_parameters(config) / 1e6:.2f}",
            figure(published.parameters),
            str(config.image_size),
            f"{count_macs(config) / 1e9:.3g}",
            figure(published.macs),
            figure(at_384, ".1f"),
            figure(published.macs_384),
        ]
        print(f"| {' | '.join(cells)} |")
        if published.note:
            notes.setdefault(published.note, []).append(f"`{name}`")
    print()
    for note, named in notes.items():
        print(f"- {', '.join(named)}: {note}")


def figure(value: float | None, spec: str = "g") -> str:
    return "" if value is None else format(value, spec)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    print_counts(list_models(args.models))


if __name__ == "__main__":
    main()
