"""What a push says that it did, or would do."""

import pytest

from sk_transformers.hub.cards.merge import INTRODUCTION
from sk_transformers.hub.report import Push, Target

CHANGES = {"creates_repo": False, "creates_branch": False, "added": {}, "changed": {}, "deleted": [], "unchanged": 0,
           "kept": []}  # fmt: skip


def push(target=None, **changes):
    return Push(target or Target("org/tiny"), **{**CHANGES, **changes})


def test_a_first_push_that_nobody_is_logged_in_for():
    said = push(
        Target("org/tiny", private=True, tag="v1"),
        creates_repo=True, added={"model.safetensors": 1234567}, operations=["add"], dry_run=True, is_anonymous=True,
    )  # fmt: skip
    assert str(said).splitlines() == [
        "repo       org/tiny would be created, private, unless it is private: log in to compare with it",
        "new        model.safetensors, 1,234,567 bytes",
        "commit     one would be made on main",
        "tag        v1 would be on it",
    ]


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_push_over_an_older_one(dry_run):
    said = push(
        changed={"README.md": 10}, deleted=["old.py"], unchanged=3, kept=["tags:", "## Examples"],
        card={INTRODUCTION: "changed", "widget:": "removed"}, operations=["add"], dry_run=dry_run, url="https://see",
    )  # fmt: skip
    would = "would be " if dry_run else ""
    assert str(said).splitlines() == [
        "changed    README.md, 10 bytes",
        "removed    old.py",
        f"card       introduction {would}changed",
        f"card       widget {would}removed",
        "kept       tags of the card, as it was edited on the Hub",
        "kept       Examples of the card, as it was edited on the Hub",
        "unchanged  3 files",
        f"commit     one {would}made on main",
        "see        https://see",
    ]


def test_where_a_commit_goes():
    assert push().is_empty and str(push()) == "commit     none: org/tiny holds all of it already"
    assert "made on a pull request" in str(push(Target("org/tiny", create_pr=True), operations=["add"]))
    said = str(push(Target("org/tiny", revision="try"), creates_branch=True, operations=["add"]))
    assert said.splitlines() == ["branch     try created from main", "commit     one made on try"]
