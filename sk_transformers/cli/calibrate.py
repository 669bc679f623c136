"""Replace the attention of some layers of a trained Vision Transformer or Swin by static keys or maps.

sk-transformers calibrate facebook/dinov2-small dinov2-small-static --dataset photos --image_size 224
sk-transformers calibrate facebook/dinov2-small dinov2-small-static --dataset photos --layers 1-4,10 --mixer static_map
sk-transformers calibrate org/vit vit-static --dataset photos --max_error 0.05 --distill_steps 250 --train all

Labels are not needed; a few hundred images do. Finished layers are kept in a work folder: the same command goes on
where it was stopped.
"""

import argparse
import sys
from collections.abc import Sequence

from ..calibration.options import DistillationOptions, FitOptions, LayerOptions
from ..data.options import DataOptions
from ..options import add_options, read_options
from ..training.signals import Stopped, TrainingError
from .errors import exit_on_user_error

GROUPS = {"layers": LayerOptions, "fit": FitOptions, "distillation": DistillationOptions, "data": DataOptions}


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="sk-transformers calibrate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "model", help="a trained network of the zoo, or a folder or Hub id of ours or of anything that convert takes"
    )
    parser.add_argument("output_dir", help="the repo folder to write; it must not exist, or be empty")
    parser.add_argument("--work_dir", help="folder for finished layers and checkpoints [OUTPUT_DIR-work]")
    parser.add_argument("--license", metavar="NAME", help="of the weights, as the Hub names it; default: the source's")
    for title, group in GROUPS.items():
        add_options(parser, group, title)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    with exit_on_user_error(TrainingError):
        groups = [read_options(group, args) for group in GROUPS.values()]
        # seconds of imports, which --help need not wait for
        from ..calibration.run import calibrate

        settings = {name: value for group in groups for name, value in vars(group).items()}
        dataset = settings.pop("dataset")
        try:
            result = calibrate(
                args.model, dataset, args.output_dir, work_dir=args.work_dir, license=args.license, **settings
            )
        except Stopped as stopped:
            print(f"{stopped} The same command goes on from there.", file=sys.stderr)
            sys.exit(stopped.status)
        print(result)


if __name__ == "__main__":
    main()
