"""Measure a classifier on labelled images.

sk-transformers evaluate --model runs/skvit-nano-patch4-32-digits/model --dataset digits

With --corruptions also under the common corruptions of images (arXiv 1903.12261), each at five severities: 75 passes.
With --baseline, the mean corruption error relative to another model's.
"""

import argparse
import json

from ..training.options import add_data
from .errors import one_sentence_errors


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a repo folder or a Hub id")
    parser.add_argument("--split", choices=["train", "validation"], default="validation")
    parser.add_argument("--per_device_eval_batch_size", type=int, default=128)
    parser.add_argument("--mixed_precision", choices=["no", "fp16", "bf16"], default="no")
    parser.add_argument("--output_dir", help="folder for evaluation.json and the plots [evaluations/MODEL-DATASET]")
    parser.add_argument(
        "--corruptions",
        nargs="*",
        metavar="NAME",
        help="accuracy under these corruptions: noise, blur, weather, digital, extra, all, or single ones"
        " [without a name: the paper's 15]",
    )
    parser.add_argument("--severities", nargs="+", type=int, choices=range(1, 6), help="of corruption [1 2 3 4 5]")
    parser.add_argument("--baseline", help="another model's evaluation.json to compare corruption errors with")
    add_data(parser)
    args = parser.parse_args(argv)
    if args.dataset is None:
        parser.error("--dataset is missing")
    if args.corruptions is None and (args.severities or args.baseline):
        parser.error("--severities and --baseline go with --corruptions")
    args.severities = sorted(set(args.severities or range(1, 6)))
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    with one_sentence_errors():
        # seconds of imports, which --help need not wait for
        from rich.console import Console

        from ..evaluation.robustness import robustness_table
        from ..evaluation.run import evaluate_model

        folder, figures = evaluate_model(args)
        if folder is not None:
            overall = {name: value for name, value in figures.items() if name not in ("per_class", "robustness")}
            print(json.dumps(overall, indent=2))
            if "robustness" in figures:
                Console().print(robustness_table(figures["robustness"], figures["top1"]))
            print(f"Plots and figures by class: {folder}")


if __name__ == "__main__":
    main()
