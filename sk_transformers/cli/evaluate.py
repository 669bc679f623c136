"""Measure a classifier on labeled images, a segmenter on images and masks, or a detector on images and objects.

sk-transformers evaluate --model runs/skvit-nano-patch4-32-digits/model --dataset digits
sk-transformers evaluate --model runs/streets/model --dataset streets --problem_type segmentation
sk-transformers evaluate --model runs/streets/model --dataset streets --problem_type segmentation --sliding_window 512
sk-transformers evaluate --model runs/cars/model --dataset cars --problem_type detection

With --corruptions also under the common corruptions of images (arXiv 1903.12261), each at five severities: 75 passes.
With --baseline, the mean corruption error relative to another model's.
"""

import argparse
import json
from collections.abc import Sequence

from ..data.options import DataOptions
from ..evaluation.options import EvaluationOptions
from ..options import add_options, read_options
from .errors import exit_on_user_error


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="sk-transformers evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser, EvaluationOptions, "evaluation")
    add_options(parser, DataOptions, "data")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    with exit_on_user_error():
        options, data = read_options(EvaluationOptions, args), read_options(DataOptions, args)
        # seconds of imports, which --help need not wait for
        from rich.console import Console

        from ..evaluation.robustness import robustness_table
        from ..evaluation.run import evaluate_model

        folder, figures = evaluate_model(options, data)
        if folder is not None:
            overall = {name: value for name, value in figures.items() if name not in ("per_class", "robustness")}
            print(json.dumps(overall, indent=2))
            if "robustness" in figures:
                Console().print(robustness_table(figures["robustness"], figures["top1"]))
            print(f"Plots and figures by class: {folder}")


if __name__ == "__main__":
    main()
