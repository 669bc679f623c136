"""What the classes are called."""

import json
from collections import Counter
from pathlib import Path

from .errors import CheckpointError
from .from_timm import import_timm


def read_labels(path: str | Path) -> dict[int, str]:
    """Return labels by class index, from JSON (a list, or an object of indices) or from text with one in each line.

    Raises:
        CheckpointError: if the file is not such a list, or names a label twice.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        labels = json.loads(text) if path.suffix == ".json" else text.splitlines()
        if isinstance(labels, dict):
            by_index = {int(index): label for index, label in labels.items()}
            labels = [by_index[index] for index in range(len(by_index))]
    except OSError as error:
        raise CheckpointError(f"--labels {path} cannot be read: {error.strerror}.") from error
    except (ValueError, KeyError) as error:
        raise CheckpointError(
            f"--labels {path} is neither a JSON list, nor an object with the keys 0, 1, ..., nor a label in each line."
        ) from error
    if not isinstance(labels, list) or not all(isinstance(label, str) and label.strip() for label in labels):
        raise CheckpointError(f"--labels {path} holds something other than labels: expected non-empty text for each.")
    twice = [label for label, times in Counter(labels).items() if times > 1]
    if twice:
        raise CheckpointError(f"--labels {path} names {twice[0]!r} twice.")
    return dict(enumerate(labels))


def imagenet_labels(num_labels: int) -> tuple[dict[int, str], str] | None:
    """Return labels of the ImageNet subset of that many classes, and its name; None without a subset or timm."""
    try:
        import_timm()
    except CheckpointError:
        return None
    from timm.data import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset({"num_classes": num_labels})
    if subset is None:
        return None
    info = ImageNetInfo(subset)
    descriptions = info.label_descriptions()
    times = Counter(descriptions)
    # Cranes are birds and machines: a name that two classes share gets the WordNet id with it.
    labels = [
        text if times[text] == 1 else f"{text} ({synset})" for text, synset in zip(descriptions, info.label_names())
    ]
    return dict(enumerate(labels)), subset


def choose_labels(
    num_labels: int, file: str | Path | None, of_source: dict[int, str] | None
) -> tuple[dict[int, str] | None, str]:
    """Return the labels and where they come from: a file, else the source, else the count; None if nothing names them.

    Raises:
        CheckpointError: if the file has another number of labels than the network.
    """
    if file is not None:
        labels = read_labels(file)
        if len(labels) != num_labels:
            raise CheckpointError(f"--labels {file} has {len(labels)} labels for a network of {num_labels} classes.")
        return labels, str(file)
    if of_source is not None:
        return of_source, "the source"
    return imagenet_labels(num_labels) or (None, "not known: --labels FILE names them")


def no_labels(source: str, file: str | Path | None) -> None:
    """Raise CheckpointError if a file names the classes of a source without a classifier."""
    if file is not None:
        raise CheckpointError(f"--labels {file} names classes, but {source} has no classifier: leave it out.")
