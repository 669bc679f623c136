"""Measure the zoo's networks.

python scripts/benchmark.py --count                # parameters and multiply-adds of all, as a Markdown table
python scripts/benchmark.py --count --models "*s18"
python scripts/benchmark.py --speed --output speed.json            # beside timm, transformers and plain static keys
python scripts/benchmark.py --speed --models skvit --dtypes bfloat16 --modes eager compiled
python scripts/benchmark.py --speed --profile --models cskaformer  # what they spend their time on
python scripts/benchmark.py --growth --output growth.json --plot growth.png    # against image size, batch and depth
python scripts/benchmark.py --resolution --models cskaformer-s18   # resized keys beside windows of them
python scripts/benchmark.py --startup                              # the import, and loading from a file

`--count` counts with torch's FlopCounterMode; `sk_transformers/complexity.py` says why with that one. `--speed` gives
ours and a peer turns in one process; a ratio over 1 says that ours is faster. Memory is what torch allocates at the
peak over weights and optimizer. `--resolution` runs a hybrid network on one image, float32, with resized static keys
and with windows of them, in turn.
"""

import argparse
import statistics
import sys
from dataclasses import asdict
from fnmatch import fnmatch
from functools import partial
from itertools import product
from pathlib import Path

import torch

from sk_transformers import create_config, create_model, list_models
from sk_transformers.benchmarks.measure import DTYPES, MODES, TASKS, peak_memory, take_turns
from sk_transformers.cli.errors import exit_on_user_error
from sk_transformers.complexity import count_macs, count_parameters
from sk_transformers.files import write_json
from sk_transformers.zoo import get_variant

LARGE_SIZE = 384  # pixels, for networks made for 224
COUNT_HEADER = (
    "| model | parameters, M | published | image size | MACs, G | published | MACs at 384, G | published |",
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
)
RESOLUTIONS = ((224, 224), (448, 448), (896, 896), (800, 1333))
RESOLUTION_HEADER = (
    "| image | interpolate: MACs, G | seconds | MiB | window: MACs, G | seconds | MiB |",
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", action="store_true", help="print parameters and multiply-adds beside published ones")
    parser.add_argument("--speed", action="store_true", help="measure networks and mixers beside their peers")
    parser.add_argument("--growth", action="store_true", help="measure against image size, batch and depth")
    parser.add_argument("--resolution", action="store_true", help="print time and memory against image size")
    parser.add_argument("--startup", action="store_true", help="measure the import, and loading from a file")
    parser.add_argument("--models", metavar="NAME", help="part of a name, or a pattern; all networks without it")
    parser.add_argument("--rounds", type=int, default=5, help="of which the median time is taken")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS, help="for --speed")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=["eager"], help="for --speed")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=DTYPES, help="for --speed")
    parser.add_argument("--batch_sizes", nargs="+", type=int, default=[1, 8, 32], help="for --speed; 32 for SKA alone")
    parser.add_argument("--profile", action="store_true", help="what --speed's networks spend their time on, instead")
    parser.add_argument("--output", type=Path, metavar="FILE", help="where --speed or --growth writes JSON")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="where --growth draws images a second, as PNG")
    args = parser.parse_args(argv)
    if not (args.count or args.speed or args.growth or args.resolution or args.startup):
        parser.error("nothing to measure: pass --count, --speed, --growth, --resolution or --startup")
    if args.rounds < 1:
        parser.error(f"--rounds is {args.rounds}, expected at least 1")
    for file in (args.output, args.plot):
        if file is not None and not file.parent.is_dir():
            parser.error(f"{file} cannot be written: there is no folder {file.parent}")
    if args.speed and args.growth and args.output:
        parser.error("--output holds one measurement: pass --speed and --growth in two commands")
    if (args.count or args.resolution) and not list_models(args.models):
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
            f"{count_macs(config) / 1e9:#.3g}",
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


def print_resolutions(name: str, rounds: int) -> None:
    """Print a Markdown table of one image's multiply-adds, time and memory, keys resized and map cut into windows."""
    models = {mode: create_model(name, static_key_resolution=mode).eval() for mode in ("interpolate", "window")}
    print(f"{name}, {torch.get_num_threads()} threads\n", *RESOLUTION_HEADER, sep="\n")
    for height, width in RESOLUTIONS:
        pixel_values = torch.randn(1, 3, height, width)
        works = {mode: partial(run, model, pixel_values) for mode, model in models.items()}
        times = dict(zip(works, take_turns(list(works.values()), rounds)))  # an uncounted round resizes the keys
        cells = [f"{height}x{width}"]
        for mode, work in works.items():
            seconds = statistics.median(times[mode])
            macs = count_macs(create_config(name, static_key_resolution=mode), (height, width))
            cells += [f"{macs / 1e9:.1f}", f"{seconds:.2f}", f"{peak_memory(work) / 2**20:.0f}"]
        print(f"| {' | '.join(cells)} |", flush=True)


@torch.inference_mode()
def run(model: torch.nn.Module, pixel_values: torch.Tensor) -> None:
    model(pixel_values)


def print_speed(args: argparse.Namespace) -> None:
    """Measure, print a Markdown table, and write the figures after each of them, since all take long."""
    from sk_transformers.benchmarks import (
        operators,
        speed,  # timm is asked for only here
    )

    pattern = "*" if args.models is None else args.models if "*" in args.models else f"*{args.models}*"
    contests = [contest for contest in speed.CONTESTS if fnmatch(contest.name, pattern)]
    if not contests:
        names = ", ".join(dict.fromkeys(contest.name for contest in speed.CONTESTS))
        sys.exit(f"error: --models {args.models} is none of those measured: {names}.")
    if not any(set(contest.tasks) & set(args.tasks) for contest in contests):
        sys.exit(f"error: --tasks {' '.join(args.tasks)}: {args.models} is measured in inference only.")
    if args.profile:
        for contest in contests:
            for task, dtype in product((task for task in args.tasks if task in contest.tasks), args.dtypes):
                batch = max(contest.batch_sizes)
                times = speed.profile_kinds(contest, task, dtype, batch, args.rounds)
                print(f"\n{task}, {dtype}, batch {batch}\n\n{operators.to_table(times)}", flush=True)
        return
    if not any(set(contest.batch_sizes) & set(args.batch_sizes) for contest in contests):
        sizes = sorted({size for contest in contests for size in contest.batch_sizes})
        given = " ".join(map(str, args.batch_sizes))
        sys.exit(f"error: --batch_sizes {given}: expected of {' '.join(map(str, sizes))}, which these are measured at.")
    results = []
    for result in speed.compare(contests, args.tasks, args.modes, args.dtypes, args.batch_sizes, args.rounds):
        results.append(result)
        print(speed.to_row(result), flush=True)
        if args.output:
            write_json(speed.to_json(results), args.output)
    print(f"\n{speed.to_table(results)}")


def print_growth(args: argparse.Namespace) -> None:
    from sk_transformers.benchmarks import scaling
    from sk_transformers.benchmarks.speed import describe_machine

    points = []
    for point in scaling.measure_growth(args.rounds):
        points.append(point)
        print(point, flush=True)
        rows = [asdict(point) for point in points]
        if args.output:
            write_json(
                {"machine": describe_machine(), "points": rows, "exponents": scaling.exponents(points)}, args.output
            )
    print(f"\n{scaling.to_table(points)}\n\n{scaling.to_exponent_table(points)}")
    if args.plot:
        scaling.plot_throughput(points, args.plot)


def print_startup(rounds: int) -> None:
    from sk_transformers.benchmarks.startup import import_seconds, loading_seconds

    print(f"import sk_transformers, after transformers: {import_seconds(rounds) * 1000:.0f} ms")
    ours, peer, ratio = loading_seconds(rounds)
    print(f"loading SKViT-Base: {ours:.3f} s; transformers' ViT-Base: {peer:.3f} s; ratio {ratio:.2f}")


def figure(value: float | None, spec: str = "g") -> str:
    return "" if value is None else format(value, spec)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if args.speed:
        print_speed(args)
    if args.growth:
        print_growth(args)
    if args.startup:
        print_startup(args.rounds)
    names = list_models(args.models)
    if args.count:
        print_counts(names)
    if args.resolution:
        for name in (name for name in names if get_variant(name).family == "skformer"):
            print_resolutions(name, args.rounds)


if __name__ == "__main__":
    with exit_on_user_error():
        main()
