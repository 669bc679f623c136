"""What a run's data is known by, and how it differs from what it was: a checkpoint goes with its data alone."""

import hashlib
from collections.abc import Iterable
from typing import Any

from .listing import name_labels, name_some

Fingerprint = dict[str, Any]


def make_fingerprint(
    labels: list[str],
    images: dict[str, list[int] | None],
    files: str,
    division: str | None,
    problem_type: str = "single_label",
) -> Fingerprint:
    """Return what identifies data.

    Args:
        labels: the names of the classes, in order.
        images: of each split, how many images each class has; None of a stream.
        files: digest of names and sizes.
        division: how validation images were held out; None if they have a split of their own.
        problem_type: whether an image has one label or several.
    """
    return {"labels": labels, "images": images, "files": files, "division": division, "problem_type": problem_type}


def digest(lines: Iterable[str]) -> str:
    """Return a short hash of lines."""
    whole = hashlib.sha256()
    for line in lines:
        whole.update(line.encode() + b"\n")
    return whole.hexdigest()[:16]


def describe_change(before: Fingerprint, now: Fingerprint) -> str | None:
    """Return how the data differs from what it was, None if it does not."""
    old, new = before["labels"], now["labels"]
    problem_types = [fingerprint.get("problem_type", "single_label") for fingerprint in (before, now)]
    if problem_types[0] != problem_types[1]:
        return f"--problem_type was {problem_types[0]}, and is {problem_types[1]}"
    gone, came = [label for label in old if label not in new], [label for label in new if label not in old]
    changes = [f"{name_labels(labels)} {what}" for labels, what in ((gone, "gone"), (came, "new")) if labels]
    if changes:
        return f"classes differ: {', '.join(changes)}"
    if old != new:
        return "the classes are in another order"
    if before["division"] != now["division"]:
        return f"validation images were {before['division']}, and are {now['division']}"
    for split, counts in now["images"].items():
        had = before["images"].get(split)
        if had != counts and had is not None and counts is not None:
            differing = [f"{label!r} {a} -> {b}" for label, a, b in zip(new, had, counts) if a != b]
            what = "images" if problem_types[1] == "single_label" else "labels"
            return f"{split} had {sum(had)} {what} and has {sum(counts)} ({name_some(differing)})"
    return None if before["files"] == now["files"] else "files have other names, sizes or labels"
