"""Write a classifier as ONNX, as ONNX Runtime, Optimum and transformers.js read it.

sk-transformers export-onnx runs/skvit-nano-patch4-32-digits/model runs/skvit-nano-patch4-32-digits/onnx
sk-transformers export-onnx path/to/repo path/to/repo                # adds the folder onnx/ to the repo
sk-transformers export-onnx path/to/repo exported --dataset digits   # and measures both files on the validation split
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from ..data.options import DataOptions
from ..options import add_options, read_options
from .errors import exit_on_user_error


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="sk-transformers export-onnx", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="a repo folder, a Hub id or the name of a trained network of the zoo")
    parser.add_argument("output_dir", help="the model's repo folder, or a new folder")
    parser.add_argument("--dynamic_size", action="store_true", help="take images of all sizes from the trained one on")
    parser.add_argument("--save_page", metavar="FOLDER", help="write a page that runs it in the browser (needs npm)")
    add_options(parser, DataOptions, "data to measure both files on, by its validation split")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    with exit_on_user_error():
        from ..evaluation.onnx import run_export
        from ..files import check_free  # seconds of imports, which --help need not wait for

        if args.save_page:
            check_free(Path(args.save_page))
        data = None if args.dataset is None else read_options(DataOptions, args)
        print(json.dumps(run_export(args.model, args.output_dir, args.dynamic_size, data), indent=2))
        if args.save_page:
            from ..demo.space import example_images, save_browser_space

            print(save_browser_space(args.output_dir, args.save_page, example_images(Path(args.model, "examples"))))


if __name__ == "__main__":
    main()
