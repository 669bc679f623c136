"""Measure a classifier on labelled images.

accelerate launch scripts/evaluate_model.py --model runs/skvit-nano-patch4-32-digits/model --dataset digits
"""

import argparse
import json
from pathlib import Path

from sk_transformers.command_line import one_sentence_errors


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a repo folder or a Hub id")
    parser.add_argument("--dataset", required=True, help="'digits', a folder of class folders, or a Hub dataset")
    parser.add_argument("--split", choices=["train", "validation"], default="validation")
    parser.add_argument(
        "--train_val_split", type=float, default=0.2, help="as in training, when there is no such split"
    )
    parser.add_argument("--split_seed", type=int, default=0, help="as in training")
    parser.add_argument("--per_device_eval_batch_size", type=int, default=128)
    parser.add_argument("--num_workers", type=int, default=0)
    parser.add_argument("--mixed_precision", choices=["no", "fp16", "bf16"], default="no")
    parser.add_argument("--output_dir", help="folder for evaluation.json and the plots [evaluations/MODEL-DATASET]")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    from sk_transformers.training.evaluation_run import (
        evaluate_model,
    )  # seconds of imports, which --help need not wait for

    folder, figures = evaluate_model(args)
    if folder is not None:
        figures = {name: value for name, value in figures.items() if name != "per_class"}
        print(json.dumps(figures, indent=2), f"Plots and figures by class: {Path(folder)}", sep="\n")


if __name__ == "__main__":
    with one_sentence_errors():
        main()
