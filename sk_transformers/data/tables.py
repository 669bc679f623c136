"""Tables of labels beside images: CSV of any separator and usual encoding, JSON Lines and parquet."""

import csv
import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow.parquet as pq

from ..errors import first_line
from .labels import Labeling, as_text
from .listing import ImageFile, to_nfc

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
TABLE_NAMES = ("metadata", "labels")  # of a table of all images; those of one split are called as the split
LABEL_COLUMNS = ("label", "labels", "fine_label", "target", "class", "category")
FILE_COLUMN = "file_name"  # that of `datasets`; other columns are told by what they hold
ROWS_TO_TRY = 200  # of a column, when looking for the one that names images
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")

# What a column of a class each may hold, one for each image
INDICATORS = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}

Table = dict[str, list[Any]]  # columns by name: text, lists of text, or None where a cell is null


def read_table(path: str | Path) -> Table:
    """Return the columns of a table. Cells are the text that they are: `007`, `NA` and `None` stay.

    Raises:
        ValueError: if the file cannot be read; the message names it.
    """
    path = Path(path)
    read = {".jsonl": _read_json_lines, ".parquet": _read_parquet}.get(path.suffix.lower(), _read_csv)
    try:
        table = read(path)
    except (OSError, ValueError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read as a table: {first_line(error)}") from error
    if not table or not len(next(iter(table.values()))):
        raise ValueError(f"{path} is an empty table: expected a line for each image.")
    return table


def _read_csv(path: Path) -> Table:
    text = read_text(path)
    header = text.lstrip().partition("\n")[0]
    separator = max(",;\t", key=header.count)
    rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True) if row]
    if not rows:
        return {}
    names = [name.strip() for name in rows[0]]
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(names):
            raise ValueError(f"row {number} has {len(row)} fields, and the header {len(names)}.")
    columns = {name: [cell.strip() for cell in cells] for name, *cells in zip(names, *rows[1:])}
    columns.pop("", None)  # the numbers of rows, as pandas writes them
    return columns


def read_text(path: Path) -> str:
    """Return the text of a file in UTF-8 or UTF-16, or else in Windows' form of Latin-1."""
    content = path.read_bytes()
    encodings = ["utf-8-sig", "cp1252"]
    if content.startswith(UTF16_MARKS):
        encodings = ["utf-16"]
    elif content[1:2] == b"\0" or content[:1] == b"\0":  # no mark, but a Latin letter in two bytes
        encodings = ["utf-16-le" if content[1:2] == b"\0" else "utf-16-be"]
    for encoding in encodings:
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise ValueError("its text is not UTF-8, UTF-16 or Latin-1: save it as UTF-8.")


def _read_json_lines(path: Path) -> Table:
    rows = [json.loads(line) for line in read_text(path).split("\n") if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("expected an object of JSON, {...}, in each line.")
    names = list(dict.fromkeys(name for row in rows for name in row))
    return {name: [as_text(row.get(name)) for row in rows] for name in names}


def _read_parquet(path: Path) -> Table:
    return {name: [as_text(cell) for cell in cells] for name, cells in pq.read_table(path).to_pydict().items()}


# Which column is what


@dataclass
class LabelTable:
    """What a table calls the images, the label or labels of each, and its column `split`, if it has one.

    `unused_columns` are those that are no classes, where there is a column for each class.
    """

    path: Path
    files: list[Any]
    labels: list[Any]
    splits: list[Any] | None
    unused_columns: list[str] = field(default_factory=list)


def open_label_table(
    path: str | Path,
    files: "FileNames",
    file_column: str | None,
    label_column: str | None,
    labeling: Labeling,
    may_lack_labels: bool,
) -> LabelTable | None:
    """Return the labels in a table.

    Args:
        path: the table.
        files: the images there are.
        file_column: `--file_column`; where None, the one most of whose cells are names of images.
        label_column: `--label_column`; where None, one of `LABEL_COLUMNS`, or the only one beside the images', or those
            that have 0 or 1 for each image, each a class.
        labeling: one label an image, or several.
        may_lack_labels: whether the table may be of something else, such as captions: then None is returned.

    Raises:
        ValueError: if the file cannot be read, or has no such columns.
    """
    path = Path(path)
    try:
        table = read_table(path)
        file_column = _file_column(path, table, files, file_column)
        label_columns = _label_columns(path, table, file_column, label_column, may_lack_labels)
    except ValueError:
        if may_lack_labels:
            return None
        raise
    splits = next((cells for name, cells in table.items() if name.lower() == "split"), None)
    if len(label_columns) == 1:
        labels = labeling.read(f"{path}, column {label_columns[0]},", table[label_columns[0]])
        return LabelTable(path, table[file_column], labels, splits)
    rows = zip(*(table[name] for name in label_columns))
    lists = [[name for name, cell in zip(label_columns, row) if INDICATORS[cell.lower()]] for row in rows]
    unused = [name for name in table if name not in (file_column, *label_columns) and table[name] is not splits]
    return LabelTable(path, table[file_column], labeling.read(str(path), lists), splits, unused)


def _file_column(path: Path, table: Table, files: "FileNames", asked: str | None) -> str:
    if asked is not None:
        return _check_column(path, table, "--file_column", asked)
    if FILE_COLUMN in table:
        return FILE_COLUMN
    found = {name: sum(bool(files.find(cell)) for cell in cells[:ROWS_TO_TRY]) for name, cells in table.items()}
    best = max(found, key=lambda name: found[name])
    if not found[best]:
        example = ", ".join(f"{name} ({cells[0]})" for name, cells in table.items())
        raise ValueError(
            f"{path} has columns {example}, and none of them names images below its folder: name it with --file_column,"
            " or put the images where the table says."
        )
    return best


def _label_columns(path: Path, table: Table, file_column: str, asked: str | None, may_lack_labels: bool) -> list[str]:
    """Return the column of labels, or those of a class each."""
    if asked is not None:
        return [_check_column(path, table, "--label_column", asked)]
    others = [name for name in table if name != file_column]
    usual = [name for name in LABEL_COLUMNS if name in others]
    if usual:
        return usual[:1]
    # Beside class folders it may be one of captions, few of which are the same.
    if len(others) == 1 and not (may_lack_labels and 2 * len(set(table[others[0]])) > len(table[others[0]])):
        return others
    classes = [name for name in others if all(str(cell).lower() in INDICATORS for cell in table[name])]
    if len(classes) > 1 and not may_lack_labels:
        return classes
    raise ValueError(f"{path} has columns {', '.join(table)}: name the one of labels with --label_column.")


def _check_column(path: Path, table: Table, option: str, name: str) -> str:
    if name not in table:
        raise ValueError(f"{option} {name}: {path} has columns {', '.join(table)}.")
    return name


# Which image is meant


class FileNames:
    """Images by what a table may call them: with or without folders before the name, with or without its ending."""

    def __init__(self, images: Sequence[ImageFile], below: str = "") -> None:
        """Take the names of images below the folder called `below`."""
        self.by_name: dict[str, list[tuple[list[str], ImageFile]]] = {}
        self.by_stem: dict[str, list[tuple[list[str], ImageFile]]] = {}
        start = len(below) + 1 if below else 0
        for image in images:
            *folders, name = image.name[start:].split("/")
            self.by_name.setdefault(name, []).append((folders, image))
            self.by_stem.setdefault(PurePosixPath(name).stem, []).append((folders, image))

    def find(self, cell: Any) -> list[ImageFile]:
        """Return the images that a cell may mean: none if none is there, more than one if it does not tell."""
        if not isinstance(cell, str):
            return []
        *folders, name = to_nfc(cell).replace("\\", "/").split("/")
        folders = [folder for folder in folders if folder not in ("", ".")]
        there = self.by_name.get(name) or self.by_stem.get(name, [])
        fitting = [(own, image) for own, image in there if _is_tail(folders, own) or _is_tail(own, folders)]
        exact = [image for own, image in fitting if own == folders]
        if not fitting and os.path.isabs(cell) and os.path.isfile(cell):
            return [ImageFile(cell, to_nfc(cell), os.path.getsize(cell))]
        return exact or [image for _, image in fitting]


def _is_tail(tail: list[str], path: list[str]) -> bool:
    """Return whether a path ends so."""
    return not tail or path[-len(tail) :] == tail
