"""From a folder to a repo on the Hub, in one commit, however often it takes.

Whatever fails, `main` holds what it held before or all that was pushed: the repo is made first, large files are
uploaded where no branch shows them, and one commit brings everything. So running the same command again completes what
was cut off: files that are there already are not uploaded again, and where nothing differs nothing is committed. The
commit names the one that it was made from; if somebody else commits in between, the Hub refuses it, and it is made anew
from theirs.

A card that was edited on the Hub is merged with the new one: `card_merge.py` has the rule. Files on the Hub that the
folder does not have stay, except for weights: those of an earlier push under other names, or as ONNX, would be loaded
in place of the new ones.

The token is the one that huggingface_hub finds (`hf auth login`, `HF_TOKEN`); it is neither read here nor written.
"""

import hashlib
import json
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import validate_repo_id

from .cards.completion import EXAMPLES, complete_card, evaluation_of, example_of
from .cards.merge import INTRODUCTION, merge_cards
from .preflight import PICTURES, PreflightError, check_card, check_file, check_folder, read_object, repo_files

CARD = "README.md"
# What the client raises: of the Hub's answers, of connections and of answers that are none; the last two of uploads and
# downloads, whose reason is their cause.
HUB_ERRORS = (
    HTTPError,
    OfflineModeIsEnabled,
    LocalTokenNotFoundError,
    json.JSONDecodeError,
    RuntimeError,
    LocalEntryNotFoundError,
)
REF_NAME = re.compile(r"\w([\w./-]*\w)?")  # git takes more
WAITS = (1, 2, 4)  # seconds before another attempt
Result = TypeVar("Result")
Source = Path | bytes


class PushError(OSError):
    """What the Hub or the way to it refused; its message is one sentence that says why and what to do."""


@dataclass(frozen=True)
class Target:
    """Where to push.

    Args:
        repo_id: `namespace/name`.
        private: make the repo private, if it is made now.
        revision: a branch, made from `main` if there is none, or `refs/pr/NUMBER`; `main` when None.
        create_pr: open a pull request against `main` instead of committing to it.
        tag: to give to the commit.
    """

    repo_id: str
    private: bool = False
    revision: str | None = None
    create_pr: bool = False
    tag: str | None = None


@dataclass
class Remote:
    """What is on the Hub: the commit at the head, its files, and the branches and tags by name."""

    head: str
    files: dict[str, RepoFile]
    branches: dict[str, str]
    tags: dict[str, str]


@dataclass
class Push:
    """What a push did, or would do. `str` of it is the report.

    Args:
        target: where to.
        creates_repo, creates_branch: whether they were not there.
        added, changed: sizes in bytes by the paths of files.
        deleted: paths.
        unchanged: how many files are on the Hub already.
        kept: parts of the card that stay as somebody edited them on the Hub.
        dry_run: whether it is all in the conditional.
        commit, url: the commit with all of it, new or not, and where to look at it.
    """

    target: Target
    creates_repo: bool
    creates_branch: bool
    added: dict[str, int]
    changed: dict[str, int]
    deleted: list[str]
    unchanged: int
    kept: list[str]
    dry_run: bool = False
    commit: str | None = None
    url: str | None = None
    operations: list = field(default_factory=list, repr=False)

    @property
    def is_empty(self) -> bool:
        return not self.operations

    def __str__(self) -> str:
        target, would = self.target, "would be " if self.dry_run else ""
        rows = []
        if self.creates_repo:
            rows.append(("repo", f"{target.repo_id} {would}created{', private' if target.private else ''}"))
        if self.creates_branch:
            rows.append(("branch", f"{target.revision} {would}created from main"))
        for what, files in (("new", self.added), ("changed", self.changed)):
            rows += [(what, f"{path}, {size:,} bytes") for path, size in files.items()]
        rows += [("removed", path) for path in self.deleted]
        kept = ["introduction" if name == INTRODUCTION else name.strip("#: ") for name in self.kept]
        rows += [("kept", f"{name} of the card, as it was edited on the Hub") for name in kept]
        if self.unchanged:
            rows.append(("unchanged", f"{self.unchanged} files"))
        if self.is_empty:
            rows.append(("commit", f"none: {target.repo_id} holds all of it already"))
        else:
            where = "a pull request" if target.create_pr else target.revision or "main"
            rows.append(("commit", f"one {would}made on {where}"))
        if target.tag:
            rows.append(("tag", f"{target.tag} {would}on it"))
        if self.url:
            rows.append(("see", self.url))
        return "\n".join(f"{title:<11}{text}" for title, text in rows)


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
        dry_run: read, compare and report only.
        commit_message: the commit's title, or the pull request's; that it adds or updates NAME when None.
        evaluations: folders that `sk-transformers evaluate` wrote; their figures and plots go onto the card.
        examples: pictures to show on the card, with what the model answers to them; those in the folder's `examples/`
            if there are none.

    Raises:
        PreflightError: if the folder is not fit to be published; nothing was sent.
        PushError: if the Hub refused, or could not be reached; the same call completes it later.
        ValueError: if the arguments do not fit together.
    """
    folder, record = open_folder(Path(folder))
    target = Target(repo_id, private, revision, create_pr, tag)
    check_target(target)
    images = [Path(example) for example in examples] or pictures_in(folder / EXAMPLES)
    for image in images:
        if not image.is_file() or image.suffix.lower() not in PICTURES:
            raise PreflightError(f"{image} is no picture ({', '.join(PICTURES)}): choose other examples.")
        check_file(image.name, image)
    measured = [evaluation_of(Path(evaluation)) for evaluation in evaluations]
    answers = check_folder(folder, images, record.get("fingerprint"))
    api = HfApi()
    target = explained(repo_id, with_namespace, api, target)
    shown = [example_of(image, answer) for image, answer in zip(images, answers)]
    files = wanted_files(folder, target, shown, measured)
    return upload(api, files, target, commit_message, dry_run)


def open_folder(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The repo folder in a run's folder, and the run's record; a repo folder itself, and nothing."""
    if (folder / "config.json").is_file():
        run = folder.parent if folder.name == "model" and (folder.parent / "metrics.json").is_file() else None
    elif (folder / "model" / "config.json").is_file():
        folder, run = folder / "model", folder
    else:
        raise PreflightError(
            f"{folder} is neither a run's folder (with model/ in it) nor a repo folder (with config.json in it): give"
            " what sk-transformers train or sk-transformers convert wrote."
        )
    if run is None or not (run / "metrics.json").is_file():
        return folder, {}
    record = read_object(run / "metrics.json")
    numbers = record.get("fingerprint", [])
    if not isinstance(numbers, list) or not all(isinstance(number, int | float) for number in numbers):
        raise PreflightError(f"{run / 'metrics.json'}: fingerprint is {numbers!r}, expected numbers: restore the file.")
    return folder, record


def pictures_in(folder: Path) -> list[Path]:
    return sorted(file for file in folder.glob("*") if file.suffix.lower() in PICTURES)


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


def with_namespace(api: HfApi, target: Target) -> Target:
    """The target with its full id; whoever it is must be logged in."""
    user = api.whoami()
    if ((user.get("auth") or {}).get("accessToken") or {}).get("role") == "read":
        raise PushError(f"your token may only read: make one that may write to {target.repo_id}, and log in with it.")
    if "/" in target.repo_id:
        return target
    return Target(**{**vars(target), "repo_id": f"{user['name']}/{target.repo_id}"})


def wanted_files(
    folder: Path, target: Target, examples: list[dict[str, Any]], evaluations: list[dict[str, Any]]
) -> dict[str, Source]:
    """What the repo is to hold, by path: the folder, the run's plots, and the card with all of it.

    Raises:
        PreflightError: if a picture or the card is not fit to be published.
    """
    files: dict[str, Source] = {
        path: file for path, file in repo_files(folder).items() if not path.startswith(f"{EXAMPLES}/")
    }
    plots = {}
    if folder.name == "model":  # plots of the run lie beside it
        for file in sorted(folder.parent.glob("*.png")):
            plots[file.name] = file.stem.replace("_", " ").capitalize()
            files.setdefault(file.name, file)
    for one in evaluations:
        files |= one["files"]
    for example in examples:
        files[example["file"]] = example["picture"]
    for name, source in files.items():
        if isinstance(source, Path):
            check_file(name, source)
    card = complete_card(folder, target.repo_id, target.tag, plots, evaluations, examples)
    check_card(card)
    files[CARD] = card.encode()
    return files


def upload(
    api: HfApi, files: dict[str, Source], target: Target, message: str | None = None, dry_run: bool = False
) -> Push:
    """Make the repo hold these files, in one commit; try again from what is there then when it may help.

    Raises:
        PushError: if it did not work; nothing half was left on a branch.
    """
    made: dict[str, bool] = {}  # what an earlier attempt made
    for wait in (*WAITS, None):
        try:
            return attempt(api, files, target, message, dry_run, made)
        except HUB_ERRORS as error:
            if wait is None or not may_pass(error):
                raise PushError(explain(error, target.repo_id)) from error
            time.sleep(wait)
    raise AssertionError("the last attempt returns or raises")


def attempt(
    api: HfApi, files: dict[str, Source], target: Target, message: str | None, dry_run: bool, made: dict[str, bool]
) -> Push:
    remote = look(api, target)
    if remote is None and not dry_run:
        made["repo"] = True
        remote = create_repo(api, target)
    push = compare(api, files, target, remote)
    push.creates_repo, push.dry_run = made.get("repo", False) or remote is None, dry_run
    push.creates_branch |= made.get("branch", False)
    if dry_run:
        return push
    if push.creates_branch and not made.get("branch"):
        made["branch"] = True
        api.create_branch(target.repo_id, branch=target.revision, revision=remote.head, exist_ok=True)
    push.commit, push.url = remote.head, f"{api.endpoint}/{target.repo_id}"
    if not push.is_empty:
        commit(api, files, push, remote, message)
    if target.tag and target.tag not in remote.tags:
        api.create_tag(target.repo_id, tag=target.tag, revision=push.commit)
    return push


def create_repo(api: HfApi, target: Target) -> Remote:
    try:
        api.create_repo(target.repo_id, private=target.private)
    except HfHubHTTPError as error:  # it may have been made meanwhile, or by an attempt whose answer was lost
        remote = look(api, target) if error.response.status_code == 409 else None
        if remote is None:
            raise
        return remote
    return look(api, target)


def look(api: HfApi, target: Target) -> Remote | None:
    """What is on the Hub; None if there is no such repo.

    Raises:
        PushError: if it is not what was asked for: public, or a tag where a branch should be.
    """
    try:
        info = api.repo_info(target.repo_id)
    except RepositoryNotFoundError as error:
        if error.response.status_code == 401:
            raise
        return None
    if target.private and not info.private:
        raise PushError(f"{target.repo_id} is there already and public: make it private first, or leave out --private.")
    refs = api.list_repo_refs(target.repo_id, include_pull_requests=True)
    branches = {ref.name: ref.target_commit for ref in refs.branches}
    branches |= {ref.ref: ref.target_commit for ref in refs.pull_requests or []}
    tags = {ref.name: ref.target_commit for ref in refs.tags}
    revision = target.revision or "main"
    if revision not in branches and (revision in tags or revision.startswith("refs/")):
        raise PushError(f"{revision} is no branch of {target.repo_id}: choose another --revision.")
    head = branches.get(revision, branches["main"])
    return Remote(head, files_at(api, target.repo_id, head), branches, tags)


def files_at(api: HfApi, repo_id: str, commit: str) -> dict[str, RepoFile]:
    tree = api.list_repo_tree(repo_id, recursive=True, revision=commit)
    return {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}


def compare(api: HfApi, files: dict[str, Source], target: Target, remote: Remote | None) -> Push:
    """What has to be done for the repo to hold these files.

    Raises:
        PushError: if the tag is on another commit.
    """
    there, kept = {} if remote is None else remote.files, []
    if CARD in there:
        merged = merge_cards(read_card(api, target.repo_id, remote.head), files[CARD].decode())
        files, kept = {**files, CARD: merged.text.encode()}, merged.kept
    differing = {path: source for path, source in files.items() if not is_same(source, there.get(path))}
    deleted = {path for path in there if is_weight(path) and path not in files}
    if any(is_weight(path) for path in (*differing, *deleted)):
        deleted |= {path for path in there if path.startswith("onnx/") and path not in files}
    deleted = sorted(deleted)
    if remote and target.tag in remote.tags and (differing or deleted or remote.tags[target.tag] != remote.head):
        raise PushError(
            f"the tag {target.tag} of {target.repo_id} is on another commit: choose a new one, since others rely on it."
        )
    sizes = {path: size_of(source) for path, source in differing.items()}
    return Push(
        target,
        creates_repo=remote is None,
        creates_branch=target.revision is not None
        and target.revision not in (remote.branches if remote else {"main": ""}),
        added={path: size for path, size in sizes.items() if path not in there},
        changed={path: size for path, size in sizes.items() if path in there},
        deleted=deleted,
        unchanged=len(files) - len(differing),
        kept=kept,
        operations=[CommitOperationAdd(path, source) for path, source in differing.items()]
        + [CommitOperationDelete(path) for path in deleted],
    )


def read_card(api: HfApi, repo_id: str, revision: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        return Path(api.hf_hub_download(repo_id, CARD, revision=revision, local_dir=folder)).read_text(encoding="utf-8")


def is_weight(path: str) -> bool:
    return "/" not in path and path.endswith((".safetensors", ".safetensors.index.json"))


def is_same(source: Source, there: RepoFile | None) -> bool:
    """Whether a file on the Hub has this content, by the hash that the Hub knows it by."""
    if there is None or size_of(source) != there.size:
        return False
    if there.lfs is not None:
        return digest_of(source, hashlib.sha256()) == there.lfs.sha256
    return digest_of(source, hashlib.sha1(b"blob %d\0" % there.size)) == there.blob_id  # as git does


def size_of(source: Source) -> int:
    return len(source) if isinstance(source, bytes) else source.stat().st_size


def digest_of(source: Source, hasher) -> str:
    if isinstance(source, bytes):
        hasher.update(source)
    else:
        with source.open("rb") as file:
            while block := file.read(1 << 20):
                hasher.update(block)
    return hasher.hexdigest()


def commit(api: HfApi, files: dict[str, Source], push: Push, remote: Remote, message: str | None) -> None:
    """Make the commit, or find the pull request that has it; then see that all of it arrived.

    Raises:
        PushError: if the Hub left something out.
    """
    target = push.target
    if target.create_pr:
        found = find_pull_request(api, target.repo_id, push, remote)
        if found:
            push.operations, (push.commit, push.url) = [], found
            return
    does = "Update" if "config.json" in remote.files else "Add"
    try:
        info = api.create_commit(
            target.repo_id,
            push.operations,
            commit_message=message or f"{does} {target.repo_id.split('/')[1]}",
            revision=target.revision,
            create_pr=target.create_pr,
            parent_commit=remote.head,
        )
    except ValueError as error:
        if isinstance(error, HUB_ERRORS):
            raise
        raise PushError(f"the Hub refused the folder: {' '.join(str(error).split())}") from error
    push.commit, push.url = info.oid, info.pr_url or info.commit_url
    arrived = files_at(api, target.repo_id, info.oid)
    missing = [o.path_in_repo for o in push.operations if isinstance(o, CommitOperationAdd)]
    missing = [path for path in missing if path not in arrived]
    if missing:
        raise PushError(
            f"the Hub took the commit without {missing[0]}: see whether the repo's .gitignore names it, and push again."
        )


def find_pull_request(api: HfApi, repo_id: str, push: Push, remote: Remote) -> tuple[str, str] | None:
    """The commit and the address of an open pull request that does all that this push is to do."""
    for pull in api.get_repo_discussions(repo_id, discussion_type="pull_request", discussion_status="open"):
        head = remote.branches.get(f"refs/pr/{pull.num}")
        there = files_at(api, repo_id, head) if head else {}
        if head and all(
            is_same(as_source(operation), there.get(operation.path_in_repo))
            if isinstance(operation, CommitOperationAdd)
            else operation.path_in_repo not in there
            for operation in push.operations
        ):
            return head, pull.url
    return None


def as_source(operation: CommitOperationAdd) -> Source:
    content = operation.path_or_fileobj
    return content if isinstance(content, bytes) else Path(content)


def explained(repo_id: str, call: Callable[..., Result], *arguments: Any) -> Result:
    """What a call returns; whatever the Hub's client raises becomes a PushError."""
    try:
        return call(*arguments)
    except HUB_ERRORS as error:
        raise PushError(explain(error, repo_id)) from error


def reason_of(error: BaseException) -> BaseException:
    """What the Hub or the connection said, in the chain of what an error comes from; the error itself if nothing."""
    cause = error
    while cause is not None and not isinstance(cause, HUB_ERRORS[:3]):
        cause = cause.__cause__
    return error if cause is None else cause


def may_pass(error: Exception) -> bool:
    """Whether the same may work a little later, from what is on the Hub then."""
    error = reason_of(error)
    if isinstance(error, (OfflineModeIsEnabled, LocalTokenNotFoundError)):
        return False
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in (408, 409, 412, 429) or error.response.status_code >= 500
    return True


def explain(error: Exception, repo_id: str) -> str:
    """One sentence on why the Hub, or the way to it, refused, and what to do."""
    error = reason_of(error)
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, and nothing can be pushed offline: unset it."
    if isinstance(error, LocalTokenNotFoundError):
        return "there is no token to push with: log in by `hf auth login`, or set HF_TOKEN."
    if not isinstance(error, HfHubHTTPError):
        return (
            f"the connection to the Hub broke off ({type(error).__name__}): run the same command again, and it goes on"
            " from what was uploaded."
        )
    status = error.response.status_code
    said = " ".join((error.server_message or error.response.headers.get("X-Error-Message") or "").split())
    said = f" ({said})" if said else ""
    if status == 401:
        return f"the Hub does not accept the token{said}: it may have expired; log in anew by `hf auth login`."
    if status == 403:
        return f"the token may not write to {repo_id}{said}: choose another namespace, or a token with that right."
    if status == 404:
        return f"the Hub has no {repo_id}, or does not show it to this token{said}: see that the name is right."
    if status in (409, 412):
        return f"somebody else changes {repo_id} at the same time{said}: run the same command again."
    if status == 429:
        return f"the Hub asks for patience{said}: run the same command again in some minutes."
    if status >= 500:
        return f"the Hub is in trouble (status {status}){said}: run the same command again later."
    return f"the Hub refused with status {status}{said}."
