"""Measure the zoo's networks.

python scripts/benchmark.py --count                # parameters and multiply-adds of all, as a Markdown table
python scripts/benchmark.py --count --models "*s18"
python scripts/benchmark.py --resolution --models cskaformer-s18   # time and memory against image size

`--count` counts with torch's FlopCounterMode; `sk_transformers/complexity.py` says why with that one. `--resolution`
runs a hybrid network on one image, float32, with resized static keys and with windows of them, in turn; its memory is
what torch allocates over the weights at the peak of a forward pass.
"""

import argparse
import statistics
import time

import torch
from torch.profiler import ProfilerActivity, profile

from sk_transformers import create_config, create_model, list_models
from sk_transformers.complexity import count_macs, count_parameters
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
    parser.add_argument("--resolution", action="store_true", help="print time and memory against image size")
    parser.add_argument("--rounds", type=int, default=5, help="of which the median time is taken")
    parser.add_argument("--models", metavar="NAME", help="part of a name, or a pattern; all networks without it")
    args = parser.parse_args(argv)
    if not (args.count or args.resolution):
        parser.error("nothing to measure: pass --count or --resolution")
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
        times = {mode: [] for mode in models}
        for mode in [*models] * (rounds + 1):
            start = time.perf_counter()
            with torch.inference_mode():
                models[mode](pixel_values)
            times[mode].append(time.perf_counter() - start)
        cells = [f"{height}x{width}"]
        for mode, model in models.items():
            seconds = statistics.median(times[mode][1:])  # the first one resizes the keys
            macs = count_macs(create_config(name, static_key_resolution=mode), (height, width))
            cells += [f"{macs / 1e9:.1f}", f"{seconds:.2f}", f"{peak_memory(model, pixel_values) / 2**20:.0f}"]
        print(f"| {' | '.join(cells)} |", flush=True)


def peak_memory(model: torch.nn.Module, pixel_values: torch.Tensor) -> int:
    """Bytes that a forward pass holds at its peak, of what it allocates."""
    with torch.inference_mode(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        model(pixel_values)
    held = peak = 0
    for event in sorted(profiler.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


def figure(value: float | None, spec: str = "g") -> str:
    return "" if value is None else format(value, spec)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    names = list_models(args.models)
    if args.count:
        print_counts(names)
    if args.resolution:
        for name in (name for name in names if get_variant(name).family == "skformer"):
            print_resolutions(name, args.rounds)


if __name__ == "__main__":
    main()
