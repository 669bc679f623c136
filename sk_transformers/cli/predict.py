"""Write a table of the classes, the features or the masks of image files, or COCO's JSON of the objects in them.

sk-transformers predict runs/skvit-nano-patch4-32-digits/model photos -o classes.csv
sk-transformers predict org/skvit-digits photos/a.png photos/b.png -o classes.jsonl --top_k 1
sk-transformers predict org/skvit-digits photos -o features.parquet --embeddings
sk-transformers predict runs/streets/model photos -o masks.csv --masks masks
sk-transformers predict exported photos -o classes.csv --runtime onnxruntime    # what export-onnx wrote
sk-transformers predict runs/cars/model photos -o objects.json --objects
accelerate launch -m sk_transformers.cli.predict org/skvit-digits photos -o classes.csv

A table is CSV, JSON lines or Parquet by its ending. Every file has a row, in order; that of an unreadable one says why.
After a stop the same command goes on.
"""

import argparse
from collections.abc import Sequence

from ..evaluation.options import PredictionOptions
from ..options import add_options, read_options
from .errors import exit_on_user_error


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="sk-transformers predict", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="a repo folder, a Hub id or the name of a trained network of the zoo")
    parser.add_argument("inputs", nargs="+", metavar="FILE_OR_FOLDER", help="images, and folders of images")
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="TABLE",
        help="the table: a new .csv, .jsonl or .parquet file, or of objects .json",
    )
    add_options(parser, PredictionOptions, "prediction")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    with exit_on_user_error():
        from ..evaluation.predict_files import predict_files  # seconds of imports, which --help need not wait for

        summary = predict_files(args.model, args.inputs, args.output, read_options(PredictionOptions, args))
        if summary is not None:
            print(f"{args.output}: {summary.files} files, {summary.unreadable} of them unreadable")


if __name__ == "__main__":
    main()
