"""Draw what a trained network looks at in images: PNG and JSON.

sk-transformers explain skaformer-micro-32 photos/cat.png photos/dog.png -o explained

The folder has the entropy of each head, where positions look, static keys and biases, and for each image attention
rollout (where all layers attend among the same tokens) and, of classifiers with stages, Grad-CAM.
"""

import argparse
from collections.abc import Sequence

from ..options import fraction
from .errors import exit_on_user_error


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="sk-transformers explain", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="a repo folder, a Hub id or the name of a trained network of the zoo")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image files")
    parser.add_argument("-o", "--output_dir", required=True, help="a new folder")
    parser.add_argument(
        "--rollout_fusion", choices=["mean", "max", "min"], default="mean", help="of the heads, in rollout [mean]"
    )
    parser.add_argument(
        "--rollout_discard",
        type=fraction,
        default=0.0,
        metavar="FRACTION",
        help="of the smallest weights of a layer, which rollout leaves out [0]",
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    with exit_on_user_error():
        from ..explanation.run import explain  # seconds of imports, which --help need not wait for

        print(explain(args.model, args.images, args.output_dir, args.rollout_fusion, args.rollout_discard))


if __name__ == "__main__":
    main()
