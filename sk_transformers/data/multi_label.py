"""Several labels an image: what a cell stands for, and how images are held out."""

import itertools
from typing import Any

import numpy as np
import yaml
from datasets import ClassLabel, Dataset, Features, List, Value, concatenate_datasets

from ..errors import first_line
from .labels import HOLD_OUT_ADVICE, Labeling, Rows, count_classes, label_numbers
from .listing import name_labels

SEPARATORS = ("|", ";", ",")


def read_several_labels(where: str, cells: list[Any]) -> list[list[str] | None]:
    """Return the labels of each image, each once; none for an empty list or text, None where the cell is missing.

    A text is a list as Python, JSON or YAML write it, or names divided by the first of `|`, `;` and `,` that is
    anywhere in the column, else by spaces.

    Raises:
        ValueError: if a cell is written as a list and is not one of names.
    """
    texts = [cell for cell in cells if isinstance(cell, str) and cell]
    if texts and all(text.startswith("[") and text.endswith("]") for text in texts):
        cells = [_parse_list(where, cell) if isinstance(cell, str) else cell for cell in cells]
    separator = next((separator for separator in SEPARATORS if any(separator in text for text in texts)), None)

    def read(cell: Any) -> list[str] | None:
        if cell is None:
            return None
        names = [name.strip() for name in (cell.split(separator) if isinstance(cell, str) else cell) if name]
        return list(dict.fromkeys(name for name in names if name))

    return [read(cell) for cell in cells]


def _parse_list(where: str, text: str) -> list[str]:
    """Return the names in a text such as `['cat', 'dog']`, as pandas writes lists into CSV."""
    try:
        names = yaml.load(text or "[]", yaml.BaseLoader)  # nosec B506: it makes text of everything
    except yaml.YAMLError as error:
        raise ValueError(f"{where} has {text}, which is not a list of labels: {first_line(error)}.") from error
    if not all(isinstance(name, str) for name in names):
        raise ValueError(f"{where} has {text}, expected a list of names.")
    return names


def gather_class_columns(data: Dataset, image_column: str) -> Dataset:
    """Return data whose columns of 0 and 1, one for each class, became the column `label` of lists of their names.

    Where one of them is null, so is the list. Without two such columns, the data as it is.
    """
    columns = {name: data.select_columns(name)[name][:] for name in data.column_names if name != image_column}
    classes = {
        name: cells
        for name, cells in columns.items()
        if all(cell is None or (isinstance(cell, int | float) and cell in (0, 1)) for cell in cells)
        and any(cell is not None for cell in cells)
    }
    if len(classes) < 2:
        return data
    rows = zip(*classes.values())
    labels = [None if None in row else [name for name, cell in zip(classes, row) if cell] for row in rows]
    column = Dataset.from_dict({"label": labels}, Features({"label": List(Value("string"))}))
    return concatenate_datasets([data.select_columns(image_column), column], axis=1)


def hold_out_by_rarest_label(name: str, data: Dataset, labels: list[str], part: float, seed: int) -> tuple[Rows, Rows]:
    """Return the rows to train on and to hold out: a fraction of the images of each rarest label.

    An image counts for the one of its labels that fewest images have. Of each of these, one image at least is trained
    on, so that a label of a single image is, too.
    """
    counts = count_classes(label_numbers(data), len(labels))
    lists: list[list[int]] = data["label"][:]
    no_label = len(labels)
    rarest = np.array([min(numbers, key=lambda n: (counts[n], n), default=no_label) for numbers in lists])
    rng, owed = np.random.default_rng(seed), 0.0
    held_out: list[int] = []
    for stratum in sorted(set(rarest.tolist()), key=lambda n: (n == no_label, n < no_label and counts[n], n)):
        rows = rng.permutation(np.flatnonzero(rarest == stratum))
        owed += part * len(rows)
        taken = min(int(owed + 0.5), len(rows) - 1)  # what rounding leaves over passes to the next
        held_out += rows[:taken].tolist()
        owed -= taken
    kept = np.setdiff1d(np.arange(len(data)), held_out)
    trained = {number for row in kept.tolist() for number in lists[row]}
    lost = [label for number, label in enumerate(labels) if counts[number] and number not in trained]
    if lost or not held_out:
        what = f"all images of class {name_labels(lost)}" if lost else "none"
        raise ValueError(
            f"{name} has {len(data)} images, and holding out {part:g} of them takes {what}: {HOLD_OUT_ADVICE}."
        )
    return kept, np.sort(held_out)


SEVERAL_LABELS = Labeling(
    read=read_several_labels,
    empty_is_missing=False,
    names=itertools.chain.from_iterable,
    encode=lambda labels, numbers: [[numbers[label] for label in of_image] for of_image in labels],
    feature=lambda labels: List(ClassLabel(names=labels)),
    hold_out=hold_out_by_rarest_label,
)
