"""From a folder to a repo on the Hub, in one commit, however often it takes.

Whatever fails, `main` holds what it held before or all that was pushed: the repo is made first, large files are
uploaded where no branch shows them, and one commit brings everything. So running the same command again completes what
was cut off: files that are there already are not uploaded again, and where nothing differs nothing is committed. The
commit names the one that it was made from; if somebody else commits in between, the Hub refuses it, and it is made anew
from theirs.

A card that was edited on the Hub is merged with the new one: `cards/merge.py` has the rule. Files on the Hub that the
folder does not have stay, except for weights: those of an earlier push under other names, or as ONNX, would be loaded
in place of the new ones.

The token is the one that huggingface_hub finds (`hf auth login`, `HF_TOKEN`); it is neither read here nor written.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from .cards.completion import evaluation_of, example_of
from .errors import PushError, raise_push_errors
from .gather import add_card, collect_files, find_examples, open_folder
from .preflight import check_files, check_loading
from .remote import upload
from .report import Push, Target

REF_NAME = re.compile(r"\w([\w./-]*\w)?")  # git takes more


def push_folder(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    create_pr: bool = False,
    revision: str | None = None,
    tag: str | None = None,
    dry_run: bool = False,
    commit_message: str | None = None,
    evaluations: Sequence[str | Path] = (),
    examples: Sequence[str | Path] = (),
) -> Push:
    """Check a run's folder or a repo folder, and bring it to the Hub in one commit.

    Args:
        folder: a run's folder, as `sk-transformers train` leaves it, or a repo folder, as `export()` writes it.
        repo_id: `namespace/name`, or a name in the namespace of who is logged in.
        private, create_pr, revision, tag: see `Target`.
        dry_run: read, compare and report only; nobody need be logged in.
        commit_message: the commit's title, or the pull request's; that it adds or updates NAME when None.
        evaluations: folders that `sk-transformers evaluate` wrote; their figures and plots go onto the card.
        examples: images to show on the card, with what the model answers to them; those in the folder's `examples/`
            if there are none.

    Raises:
        PreflightError: if the folder is not fit to be published; nothing was sent.
        PushError: if the Hub refused, or could not be reached; the same call completes it later.
        ValueError: if the arguments do not fit together.
    """
    folder, record = open_folder(Path(folder))
    target = Target(repo_id, private, revision, create_pr, tag)
    check_target(target)
    images = find_examples(folder, examples)
    measured = [evaluation_of(Path(evaluation)) for evaluation in evaluations]
    collected = collect_files(folder, measured)
    check_files(folder, collected)
    answers = check_loading(folder, images, record.get("fingerprint"))
    api = HfApi()
    with raise_push_errors(repo_id):
        target = add_namespace(api, target, dry_run)
    answered = [example_of(image, answer) for image, answer in zip(images, answers)]
    files = add_card(collected, folder, target, measured, answered)
    return upload(api, files, target, commit_message, dry_run)


def check_target(target: Target) -> None:
    """Raise ValueError unless the arguments fit together."""
    try:
        validate_repo_id(target.repo_id)
    except HFValidationError as error:
        raise ValueError(
            f"the repo is {target.repo_id!r}, expected namespace/name of letters, digits, '-', '_' and '.'."
        ) from error
    for option in ("revision", "tag"):
        name = getattr(target, option)
        if name is not None and (not REF_NAME.fullmatch(name) or ".." in name):
            raise ValueError(f"--{option} is {name!r}, expected letters, digits, '-', '_', '.' and '/'.")
    if target.create_pr and (target.revision or target.tag):
        raise ValueError("--create_pr opens a pull request against main: leave out --revision and --tag.")
    if target.revision and target.revision.startswith("refs/") and not target.revision.startswith("refs/pr/"):
        raise ValueError(f"--revision is {target.revision!r}, expected the name of a branch, or refs/pr/NUMBER.")


def add_namespace(api: HfApi, target: Target, dry_run: bool) -> Target:
    """Return the target with its full id; whoever it is must be logged in, unless a dry run needs no name of theirs.

    Raises:
        PushError: if their token may not write.
    """
    if dry_run and "/" in target.repo_id and get_token() is None:
        return target
    user = api.whoami()
    if ((user.get("auth") or {}).get("accessToken") or {}).get("role") == "read" and not dry_run:
        raise PushError(f"your token may only read: make one that may write to {target.repo_id}, and log in with it.")
    return target if "/" in target.repo_id else replace(target, repo_id=f"{user['name']}/{target.repo_id}")
