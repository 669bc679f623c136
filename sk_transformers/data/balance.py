"""Classes of unlike sizes: their weights in the loss, and how often their images are drawn."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import yaml

from .listing import name_labels


def read_class_weights(
    source: str, labels: list[str], counts: list[int] | None, balanced: Callable[[list[int]], torch.Tensor]
) -> torch.Tensor:
    """Return the weight of each class in the loss, `(classes,)`.

    Args:
        source: `balanced`, or a YAML or JSON file with a weight for each class by its name.
        labels: the classes, in order.
        counts: how many training images each has, None if a stream does not tell.
        balanced: the weights that these counts come to.

    Raises:
        ValueError: if the file does not hold a positive weight for each of the classes, and nothing else.
    """
    if source == "balanced":
        if counts is None:
            raise ValueError("--class_weights balanced: a stream does not tell the sizes of classes, give a file.")
        return balanced(counts)
    try:
        text = Path(source).read_text(encoding="utf-8")
        weights = yaml.load(text, yaml.BaseLoader)  # nosec B506: it makes text of everything, such as classes 007 and no
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"--class_weights {source} cannot be read: {' '.join(str(error).split())}.") from error
    if not isinstance(weights, dict):
        raise ValueError(f"--class_weights {source}: expected a weight for each class, as lines of the form name: 1.5.")
    for which, names in (("no weight for", set(labels) - set(weights)), ("a weight for", set(weights) - set(labels))):
        if names:
            unknown = ", which the data does not have" if which == "a weight for" else ""
            raise ValueError(f"--class_weights {source} has {which} {name_labels(sorted(names))}{unknown}.")
    return torch.tensor([_read_weight(source, label, weights[label]) for label in labels])


def _read_weight(source: str, label: str, text: str) -> float:
    try:
        weight = float(text)
    except (TypeError, ValueError):
        weight = 0.0
    if not 0 < weight < float("inf"):
        raise ValueError(f"--class_weights {source}: the weight of {label!r} is {text}, expected a number above 0.")
    return weight


def balanced_weights(counts: Sequence[int]) -> torch.Tensor:
    """Return scikit-learn's balanced weights, `(classes,)`: 1 in the mean of all images, 0 of a class without any."""
    images = torch.tensor(counts, dtype=torch.float64)
    weights = images.sum() / ((images > 0).sum() * images)
    return torch.where(images > 0, weights, 0.0).float()


def positive_weights(counts: Sequence[int], images: int) -> torch.Tensor:
    """Return how many images lack each class for each one that has it, `(classes,)`; 1 of a class without any.

    They are the `pos_weight` of binary cross-entropy by which having a class weighs as much as lacking it.
    """
    having = torch.tensor(counts, dtype=torch.float64)
    return torch.where(having > 0, (images - having) / having, 1.0).float()
