"""Check a run's folder or a repo folder, and bring it to the Hub in one commit.

sk-transformers push runs/skvit-nano-patch4-32-digits org/skvit-digits --dry_run
sk-transformers push runs/skvit-nano-patch4-32-digits org/skvit-digits --private --tag v1.0
sk-transformers push --all org         # every trained network of the zoo, a Space and a collection of them

Log in first with `hf auth login`. If it fails, run the same command again: it completes what is missing.
"""

import argparse
from collections.abc import Sequence

from .errors import exit_on_user_error

WITH_ALL = ("all", "private", "dry_run")


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="sk-transformers push", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", help="a run's folder, or a repo folder")
    parser.add_argument("repo_id", nargs="?", help="namespace/name, or a name in your own namespace")
    parser.add_argument(
        "--all", metavar="ORG", help="in place of a folder: the trained networks of the zoo, each to its own ORG/NAME"
    )
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
    args = parser.parse_args(argv)
    if args.all is None and args.repo_id is None:
        parser.error("FOLDER and REPO_ID are missing: give both, or --all ORG for the trained networks of the zoo")
    others = [name for name, value in vars(args).items() if value and name not in WITH_ALL]
    if args.all is not None and others:
        names = [name.upper() if name in ("folder", "repo_id") else f"--{name}" for name in others]
        parser.error(f"--all goes with --private and --dry_run only: leave out {' and '.join(names)}")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    with exit_on_user_error():
        from transformers.utils import logging  # seconds of imports, which --help need not wait for

        logging.disable_progress_bar()  # loading takes a moment; uploading shows its own
        if args.all is not None:
            push_trained(args.all, args.private, args.dry_run)
            return
        from ..hub.push import push_folder

        options = vars(args)
        del options["all"]
        print(push_folder(**options))


def push_trained(org: str, private: bool, dry_run: bool) -> None:
    from ..demo import page  # noqa: F401 (if what it needs is missing, that is said before anything is sent)
    from ..demo.space import save_hub_space
    from ..hub.push_all import push_all

    for done in push_all(org, save_hub_space, private=private, dry_run=dry_run):
        print(f"{done}\n", flush=True)  # as soon as it is done: what comes after it may fail


if __name__ == "__main__":
    main()
