"""Where a folder is pushed, and what a push did or would do; the same of a collection."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from huggingface_hub import CommitOperationAdd, CommitOperationDelete

from .cards.merge import INTRODUCTION


@dataclass(frozen=True)
class Target:
    """Where to push.

    Args:
        repo_id: `namespace/name`.
        private: make the repo private, if it is made now.
        revision: a branch, made from `main` if there is none, or `refs/pr/NUMBER`; `main` when None.
        create_pr: open a pull request against `main` instead of committing to it.
        tag: to give to the commit.
        repo_type: "model", or "space": one that runs Gradio, if it is made now.
    """

    repo_id: str
    private: bool = False
    revision: str | None = None
    create_pr: bool = False
    tag: str | None = None
    repo_type: str = "model"

    @property
    def path(self) -> str:
        """Where the Hub shows it."""
        return f"spaces/{self.repo_id}" if self.repo_type == "space" else self.repo_id


@dataclass
class Push:
    """What a push did, or would do. `str` of it is the report.

    Args:
        target: where to.
        creates_repo, creates_branch: whether they were not there.
        added, changed: sizes in bytes by the paths of files.
        deleted: paths.
        unchanged: how many files are on the Hub already.
        kept: items of the card that stay as somebody edited them on the Hub.
        card: what happens to other items of a card that is on the Hub: "added", "changed" or "removed", by their names.
        is_anonymous: whether nobody is logged in, so that private repos cannot be seen; in a dry run only.
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
    card: dict[str, str] = field(default_factory=dict)
    is_anonymous: bool = False
    dry_run: bool = False
    commit: str | None = None
    url: str | None = None
    operations: list[CommitOperationAdd | CommitOperationDelete] = field(default_factory=list, repr=False)

    @property
    def is_empty(self) -> bool:
        """Whether the repo holds all of it already."""
        return not self.operations

    def __str__(self) -> str:
        target, would = self.target, "would be " if self.dry_run else ""
        rows = []
        if self.creates_repo:
            unseen = ", unless it is private: log in to compare with it" if self.is_anonymous else ""
            title = "space" if target.repo_type == "space" else "repo"
            rows.append((title, f"{target.repo_id} {would}created{', private' if target.private else ''}{unseen}"))
        if self.creates_branch:
            rows.append(("branch", f"{target.revision} {would}created from main"))
        for what, files in (("new", self.added), ("changed", self.changed)):
            rows += [(what, f"{path}, {size:,} bytes") for path, size in files.items()]
        rows += [("removed", path) for path in self.deleted]
        rows += [("card", f"{item_title(name)} {would}{change}") for name, change in self.card.items()]
        rows += [("kept", f"{item_title(name)} of the card, as it was edited on the Hub") for name in self.kept]
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
        return as_table(rows)


@dataclass
class Gathering:
    """What was done, or would be, for a collection to hold some repos. `str` of it is the report.

    Args:
        owner, title: which collection.
        creates: whether it was not there.
        added: `(repo type, repo id)` of what it did not hold.
        unchanged: how many of the repos it holds already.
        private: whether it is private, if it is made now.
        is_anonymous, dry_run: as in `Push`.
        url: where to look at it.
    """

    owner: str
    title: str
    creates: bool
    added: Sequence[tuple[str, str]]
    unchanged: int
    private: bool = False
    is_anonymous: bool = False
    dry_run: bool = False
    url: str | None = None

    @property
    def is_empty(self) -> bool:
        """Whether the collection holds all of it already."""
        return not self.creates and not self.added

    def __str__(self) -> str:
        would = "would be " if self.dry_run else ""
        unseen = ", unless it is private: log in to compare with it" if self.is_anonymous else ""
        done = f"{would}created{', private' if self.private else ''}{unseen}" if self.creates else "is there"
        rows = [("collection", f"{self.title}, of {self.owner}, {done}")]
        rows += [("new", f"{repo_type} {repo_id}") for repo_type, repo_id in self.added]
        if self.unchanged:
            rows.append(("unchanged", f"{self.unchanged} repos"))
        if self.url:
            rows.append(("see", self.url))
        return as_table(rows)


def as_table(rows: list[tuple[str, str]]) -> str:
    """Return a report's lines."""
    return "\n".join(f"{title:<11}{text}" for title, text in rows)


def item_title(name: str) -> str:
    """Return what a report calls an item of a card: `"tags"` for `"tags:"`, `"Examples"` for `"## Examples"`."""
    return "introduction" if name == INTRODUCTION else name.strip("#: ")
