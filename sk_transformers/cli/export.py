"""Write a trained network of the zoo, or a head of transformers over one, as a repo folder, which loads where this
package is not installed.

sk-transformers list --pretrained                      # which there are
sk-transformers export skaformer-micro-32 my-network   # to load, to change, or to push as your own
sk-transformers export saved-mask2former my-network    # what save_pretrained wrote of model and image processor
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from .errors import exit_on_user_error


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="sk-transformers export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", help="of a trained network of the zoo, or a folder that save_pretrained wrote")
    parser.add_argument("folder", help="where to write: a new folder")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    with exit_on_user_error():
        from transformers.utils import logging  # seconds of imports, which --help need not wait for

        from ..hub.heads import export_saved_head
        from ..hub.trained import export_trained
        from ..pretrained import is_trained_name

        logging.disable_progress_bar()
        is_saved = Path(args.name).is_dir() and not is_trained_name(args.name)
        print((export_saved_head if is_saved else export_trained)(args.name, args.folder))


if __name__ == "__main__":
    main()
