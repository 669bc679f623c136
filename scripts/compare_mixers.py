"""Train networks that differ in their token mixer under one recipe, several seeds each, and compare them.

python scripts/compare_mixers.py                              # the plan scripts/comparisons/mixers.yaml
python scripts/compare_mixers.py --report docs/mixers.json    # its table and plot again, from the figures

Stopped, it goes on with what is not done when it is started again. Finished runs leave `metrics.json` and
`curves.png`, all of them together `results.json`, the table and `results.png`.
"""

import argparse
import sys
from pathlib import Path

from sk_transformers.cli.errors import exit_on_user_error
from sk_transformers.options import non_negative_int, positive_int


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", default="mixers", help="a file in scripts/comparisons (its name will do) or another")
    parser.add_argument("--output_dir", type=Path, help="folder of the runs [runs/PLAN]")
    parser.add_argument("--keep_weights", action="store_true", help="keep models and checkpoints of finished runs")
    parser.add_argument(
        "--timed_rounds", type=non_negative_int, default=20, help="training steps to time of each network, or 0"
    )
    parser.add_argument("--threads", type=positive_int, help="of the CPU [torch's choice]")
    parser.add_argument("--report", type=Path, metavar="FILE", help="only report a results.json, and plot it beside it")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> Path:
    """Do the plan's runs, and return the file of their results."""
    import torch

    from sk_transformers.benchmarks.mixers import RESULTS, compare, find_plan, read_plan

    if args.threads is not None:
        torch.set_num_threads(args.threads)
    file = find_plan(args.plan)
    folder = args.output_dir or Path("runs", file.stem)
    compare(read_plan(file), folder, keep_weights=args.keep_weights, timed_rounds=args.timed_rounds)
    return folder / RESULTS


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    from sk_transformers.benchmarks.mixers_report import markdown, plot_comparison, read_results

    file = args.report or run(args)
    results = read_results(file)
    print(markdown(results))
    plot_comparison(results, file.with_suffix(".png"))


if __name__ == "__main__":
    from sk_transformers.training.signals import Stopped, TrainingError

    with exit_on_user_error(TrainingError):
        try:
            main()
        except Stopped as stopped:
            print(f"{stopped} Start it again to go on.", file=sys.stderr)
            sys.exit(stopped.status)
