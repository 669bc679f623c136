"""Measure how fast finetune.py trains beside transformers' run_image_classification.py and timm's train.py.

python scripts/benchmark_training.py                                          # photographs at 224 pixels
python scripts/benchmark_training.py --images digits --model skvit-nano-patch4-32 --image_size 32 --batch_size 64

One network, data, batch size and augmentation; the three loops take turns. A ratio over 1 says that ours is faster.
"""

import argparse
import json
from pathlib import Path

from sk_transformers.cli.errors import exit_on_user_error


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="skvit-tiny-patch16-224", help="a name of the zoo")
    parser.add_argument("--image_size", type=int, default=224, help="pixels a side")
    parser.add_argument("--images", choices=["photos", "digits"], default="photos", help="500x375 JPEG or 8x8 PNG")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10, help="of each loop in a round; three of them are not timed")
    parser.add_argument("--rounds", type=int, default=5, help="that count; one more comes before")
    parser.add_argument("--workers", type=int, default=0, help="processes that load images, for each loop")
    parser.add_argument("--output", type=Path, metavar="FILE", help="where to write the figures as JSON")
    args = parser.parse_args(argv)
    for name in ("image_size", "batch_size", "steps", "rounds"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} is {getattr(args, name)}, expected at least 1")
    if args.workers < 0:
        parser.error(f"--workers is {args.workers}, expected at least 0")
    return args


def table(figures: dict) -> str:
    """The figures as Markdown: a row for each loop."""
    task, ratios = figures["task"], {"sk_transformers": 1.0, **figures["ratio"]}
    lines = [
        f"{task['model']}, {task['image_size']} px, {task['images']}, batch {task['batch_size']}, {task['steps']}"
        f" steps, {task['workers']} loader processes, {figures['threads']} threads; "
        + ", ".join(f"{name} {number}" for name, number in figures["versions"].items()),
        "",
        "| loop | images a second, median | rounds | ours to it |",
        "| --- | ---: | --- | ---: |",
    ]
    for name, rounds in figures["images_per_second"].items():
        each = " ".join(f"{speed:.1f}" for speed in rounds)
        lines.append(f"| {name} | {figures['median'][name]:.1f} | {each} | {ratios[name]:.3f} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    from sk_transformers.benchmarks.training_speed import Task, compare_loops  # seconds of imports

    task = Task(args.model, args.batch_size, args.image_size, args.steps, args.images, args.workers)
    figures = compare_loops(task, args.rounds)
    print(table(figures))
    if args.output is not None:
        partial = args.output.with_name(f".{args.output.name}.partial")
        partial.write_text(json.dumps(figures, indent=2) + "\n")
        partial.rename(args.output)


if __name__ == "__main__":
    with exit_on_user_error():
        main()
