"""The Hub's side of a push: what a repo holds, how it differs, and the one commit that brings the rest."""

import hashlib
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
from huggingface_hub.hf_api import RepoFile

from .cards.merge import merge_cards, parse_card
from .errors import HUB_ERRORS, PushError, explain, may_pass
from .report import Push, Target

CARD = "README.md"
WAITS = (1, 2, 4)  # seconds before another attempt
Content = Path | bytes  # of a file in a repo
Result = TypeVar("Result")


class Hasher(Protocol):
    """One of hashlib's."""

    def update(self, data: bytes, /) -> None: ...

    def hexdigest(self) -> str: ...


@dataclass
class Remote:
    """What is on the Hub: the commit at the head, its files, and the branches and tags by name."""

    head: str
    files: dict[str, RepoFile]
    branches: dict[str, str]
    tags: dict[str, str]


def upload(
    api: HfApi, files: dict[str, Content], target: Target, message: str | None = None, dry_run: bool = False
) -> Push:
    """Make the repo hold these files, in one commit; try again from what is there then when it may help.

    Raises:
        PushError: if it did not work; nothing half was left on a branch.
    """
    made: dict[str, bool] = {}  # what an earlier attempt made
    return persist(lambda: push_once(api, files, target, message, dry_run, made), target.repo_id)


def persist(attempt: Callable[[], Result], what: str) -> Result:
    """Return what an attempt returns, after others that failed for a reason that may pass.

    Raises:
        PushError: if it did not work; `what` is what the sentence calls what was to be changed.
    """
    for wait in (*WAITS, None):
        try:
            return attempt()
        except HUB_ERRORS as error:
            if wait is None or not may_pass(error):
                raise PushError(explain(error, what)) from error
            time.sleep(wait)
    raise AssertionError("the last attempt returns or raises")


def push_once(
    api: HfApi, files: dict[str, Content], target: Target, message: str | None, dry_run: bool, made: dict[str, bool]
) -> Push:
    """Make one attempt of `upload`; `made` keeps what earlier ones made."""
    remote = fetch_remote(api, target)
    if remote is None and not dry_run:
        made["repo"] = True
        remote = create_repo(api, target)
    push = compare(api, files, target, remote)
    push.creates_repo, push.dry_run = made.get("repo", False) or remote is None, dry_run
    push.creates_branch |= made.get("branch", False)
    if dry_run or remote is None:
        return push
    if push.creates_branch and target.revision is not None and not made.get("branch"):
        made["branch"] = True
        api.create_branch(
            target.repo_id,
            branch=target.revision,
            revision=remote.head,
            repo_type=target.repo_type,
            exist_ok=True,
        )
    push.commit, push.url = remote.head, f"{api.endpoint}/{target.path}"
    if not push.is_empty:
        commit(api, push, remote, message)
    if target.tag and target.tag not in remote.tags:
        api.create_tag(target.repo_id, tag=target.tag, revision=push.commit, repo_type=target.repo_type)
    return push


def create_repo(api: HfApi, target: Target) -> Remote:
    """Make the repo, and return what is in it."""
    try:
        api.create_repo(
            target.repo_id,
            private=target.private,
            repo_type=target.repo_type,
            space_sdk="gradio" if target.repo_type == "space" else None,
        )
    except HfHubHTTPError as error:  # it may have been made meanwhile, or by an attempt whose answer was lost
        remote = fetch_remote(api, target) if error.response.status_code == 409 else None
        if remote is None:
            raise
        return remote
    remote = fetch_remote(api, target)
    if remote is None:
        raise PushError(f"the Hub does not show {target.repo_id}, which it has made: run the same command again.")
    return remote


def fetch_remote(api: HfApi, target: Target) -> Remote | None:
    """Return what is on the Hub; None if there is no such repo, or nobody is logged in who could see it.

    Raises:
        PushError: if it is not what was asked for: public, or a tag where a branch should be.
    """
    try:
        info = api.repo_info(target.repo_id, repo_type=target.repo_type)
    except RepositoryNotFoundError as error:
        if error.response.status_code == 401 and get_token() is not None:
            raise
        return None
    if target.private and not info.private:
        raise PushError(f"{target.repo_id} is there already and public: make it private first, or leave out --private.")
    refs = api.list_repo_refs(target.repo_id, repo_type=target.repo_type, include_pull_requests=True)
    branches = {ref.name: ref.target_commit for ref in refs.branches}
    branches |= {ref.ref: ref.target_commit for ref in refs.pull_requests or []}
    tags = {ref.name: ref.target_commit for ref in refs.tags}
    revision = target.revision or "main"
    if revision not in branches and (revision in tags or revision.startswith("refs/")):
        raise PushError(f"{revision} is not a branch of {target.repo_id}: choose another --revision.")
    head = branches.get(revision, branches["main"])
    return Remote(head, files_at(api, target, head), branches, tags)


def files_at(api: HfApi, target: Target, commit: str) -> dict[str, RepoFile]:
    """Return the files of a commit by their paths."""
    tree = api.list_repo_tree(target.repo_id, recursive=True, revision=commit, repo_type=target.repo_type)
    return {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}


def compare(api: HfApi, files: dict[str, Content], target: Target, remote: Remote | None) -> Push:
    """Return what has to be done for the repo to hold these files.

    Raises:
        PushError: if the tag is on another commit.
    """
    remote_files = {} if remote is None else remote.files
    kept, card = [], {}
    if remote is not None and CARD in remote_files:
        on_the_hub = read_card(api, target, remote.head)
        merged = merge_cards(on_the_hub, read_content(files[CARD]).decode())
        files, kept, card = {**files, CARD: merged.text.encode()}, merged.kept, card_changes(on_the_hub, merged.text)
    differing = {path: content for path, content in files.items() if not is_same(content, remote_files.get(path))}
    deleted = {path for path in remote_files if is_weight(path) and path not in files}
    if any(is_weight(path) for path in (*differing, *deleted)):
        deleted |= {path for path in remote_files if path.startswith("onnx/") and path not in files}
    deleted = sorted(deleted)
    if remote and target.tag in remote.tags and (differing or deleted or remote.tags[target.tag] != remote.head):
        raise PushError(
            f"the tag {target.tag} of {target.repo_id} is on another commit: choose a new one, since others rely on it."
        )
    sizes = {path: size_of(content) for path, content in differing.items()}
    return Push(
        target,
        creates_repo=remote is None,
        creates_branch=target.revision is not None
        and target.revision not in (remote.branches if remote else {"main": ""}),
        added={path: size for path, size in sizes.items() if path not in remote_files},
        changed={path: size for path, size in sizes.items() if path in remote_files},
        deleted=deleted,
        unchanged=len(files) - len(differing),
        kept=kept,
        card=card,
        is_anonymous=get_token() is None,
        operations=[CommitOperationAdd(path, content) for path, content in differing.items()]
        + [CommitOperationDelete(path) for path in deleted],
    )


def card_changes(old: str, new: str) -> dict[str, str]:
    """Return which items of a card differ in another, and how: `"added"`, `"changed"` or `"removed"`."""
    before, after = parse_card(old).items, parse_card(new).items
    changes = {name: "changed" if name in before else "added" for name in after if before.get(name) != after[name]}
    return changes | {name: "removed" for name in before if name not in after}


def read_card(api: HfApi, target: Target, revision: str) -> str:
    """Return the text of a repo's card."""
    with tempfile.TemporaryDirectory() as folder:
        file = api.hf_hub_download(
            target.repo_id, CARD, revision=revision, local_dir=folder, repo_type=target.repo_type
        )
        return Path(file).read_text(encoding="utf-8")


def is_weight(path: str) -> bool:
    """Return whether a file of a repo holds weights of its network, or says which files do."""
    return "/" not in path and path.endswith((".safetensors", ".safetensors.index.json"))


def is_same(content: Content, remote_file: RepoFile | None) -> bool:
    """Return whether a file on the Hub has this content, by the hash that the Hub knows it by."""
    if remote_file is None or size_of(content) != remote_file.size:
        return False
    if remote_file.lfs is not None:
        return digest_of(content, hashlib.sha256()) == remote_file.lfs.sha256
    return digest_of(content, hashlib.sha1(b"blob %d\0" % remote_file.size)) == remote_file.blob_id  # as git does


def size_of(content: Content) -> int:
    """Return the bytes of a file."""
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def digest_of(content: Content, hasher: Hasher) -> str:
    """Return the digest of a file."""
    if isinstance(content, bytes):
        hasher.update(content)
    else:
        with content.open("rb") as file:
            while block := file.read(1 << 20):
                hasher.update(block)
    return hasher.hexdigest()


def commit(api: HfApi, push: Push, remote: Remote, message: str | None) -> None:
    """Make the commit, or find the pull request that has it; then see that all of it arrived.

    Raises:
        PushError: if the Hub left something out.
    """
    target = push.target
    if target.create_pr:
        found = find_pull_request(api, push, remote)
        if found:
            push.operations, (push.commit, push.url) = [], found
            return
    does = "Update" if {"config.json", "app.py"} & {*remote.files} else "Add"
    try:
        info = api.create_commit(
            target.repo_id,
            push.operations,
            commit_message=message or f"{does} {target.repo_id.split('/')[1]}",
            repo_type=target.repo_type,
            revision=target.revision,
            create_pr=target.create_pr,
            parent_commit=remote.head,
        )
    except ValueError as error:
        if isinstance(error, HUB_ERRORS):
            raise
        raise PushError(f"the Hub refused the folder: {' '.join(str(error).split())}") from error
    push.commit, push.url = info.oid, info.pr_url or info.commit_url
    arrived = files_at(api, target, info.oid)
    missing = [o.path_in_repo for o in push.operations if isinstance(o, CommitOperationAdd)]
    missing = [path for path in missing if path not in arrived]
    if missing:
        raise PushError(
            f"the Hub took the commit without {missing[0]}: see whether the repo's .gitignore names it, and push again."
        )


def find_pull_request(api: HfApi, push: Push, remote: Remote) -> tuple[str, str] | None:
    """Return the commit and the address of an open pull request that does all that this push is to do."""
    target = push.target
    pulls = api.get_repo_discussions(
        target.repo_id, discussion_type="pull_request", discussion_status="open", repo_type=target.repo_type
    )
    for pull in pulls:
        head = remote.branches.get(f"refs/pr/{pull.num}")
        remote_files = files_at(api, target, head) if head else {}
        if head and all(
            is_same(content_of(operation), remote_files.get(operation.path_in_repo))
            if isinstance(operation, CommitOperationAdd)
            else operation.path_in_repo not in remote_files
            for operation in push.operations
        ):
            return head, pull.url
    return None


def read_content(content: Content) -> bytes:
    """Return what a file holds."""
    return content if isinstance(content, bytes) else content.read_bytes()


def content_of(operation: CommitOperationAdd) -> Content:
    """Return the content that an operation adds."""
    content = operation.path_or_fileobj
    return content if isinstance(content, bytes) else Path(content)  # pyright: ignore[reportArgumentType]
