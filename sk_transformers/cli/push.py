"""Check a run's folder or a repo folder, and bring it to the Hub in one commit.

sk-transformers push runs/skvit-nano-patch4-32-digits org/skvit-digits --dry_run
sk-transformers push runs/skvit-nano-patch4-32-digits org/skvit-digits --private --tag v1.0

Log in first with `hf auth login`. If it fails, run the same command again: it completes what is missing.
"""

import argparse
from collections.abc import Sequence

from .errors import exit_on_user_error


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="sk-transformers push", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", help="a run's folder, or a repo folder")
    parser.add_argument("repo_id", help="namespace/name, or a name in your own namespace")
    parser.add_argument("--private", action="store_true", help="make the repo private, if it is made now")
    parser.add_argument("--create_pr", action="store_true", help="open a pull request instead of committing to main")
    parser.add_argument("--revision", metavar="BRANCH", help="commit to this branch, made from main if there is none")
    parser.add_argument("--tag", help="give the commit a tag, by which the card then says to load it")
    parser.add_argument("--commit_message", metavar="TEXT", help="title of the commit")
    parser.add_argument(
        "--evaluations", nargs="+", default=[], metavar="FOLDER", help="what sk-transformers evaluate wrote, to show"
    )
    parser.add_argument(
        "--examples",
        nargs="+",
        default=[],
        metavar="IMAGE",
        help="pictures to show with the model's answers [those in the folder's examples/]",
    )
    parser.add_argument("--dry_run", action="store_true", help="say what would be done, and do nothing")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    with exit_on_user_error():
        from transformers.utils import logging  # seconds of imports, which --help need not wait for

        from ..hub.push import push_folder

        logging.disable_progress_bar()  # loading takes a moment; uploading shows its own
        print(push_folder(**vars(args)))


if __name__ == "__main__":
    main()
