"""A folder of images as a data set: which folders are splits, which are classes, and what a table beside them says."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from .labels import ONE_LABEL, Labeling
from .listing import Folder, ImageFile, LeftOut, describe_left_out
from .tables import TABLE_NAMES, TABLE_SUFFIXES, FileNames, LabelTable, open_label_table

# What a split may be called, in any case, and what for. Where several would do, the first is taken.
SPLIT_KINDS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "eval": "test",
}
EXPECTED = (
    "expected one folder of images for each class, or such folders in train and validation, or a table of labels"
    " (metadata.csv, labels.csv, train.csv, or .jsonl, .parquet) beside the images"
)

OTHER_TABLE = "not used as a table of labels unless given as --dataset"
SPLIT_WORD = re.compile(r"(?:^|[\W_])(" + "|".join(SPLIT_KINDS) + r")(?:$|[\W_])", re.IGNORECASE)


def split_kind(name: str) -> str | None:
    """Return `"train"`, `"validation"` or `"test"` for the name of such a split, None for other names."""
    return SPLIT_KINDS.get(name.lower())


@dataclass
class Split:
    """The images of a split and the label of each; those of a split without labels are not here.

    `left_out` is what is not used of it, `empty_classes` are folders without an image, `table` is where the labels
    come from, None where it is folders.
    """

    images: list[ImageFile] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    empty_classes: list[str] = field(default_factory=list)
    table: LabelTable | None = None

    @property
    def is_unlabeled(self) -> bool:
        """Whether nothing tells the labels of its images."""
        return self.table is None and not self.images and not self.empty_classes


@dataclass(frozen=True)
class TableOptions:
    """What the user says of tables: path and columns, None for what is to be found; and how labels are read."""

    path: str | None = None
    file_column: str | None = None
    label_column: str | None = None
    labeling: Labeling = ONE_LABEL

    @property
    def says_where(self) -> bool:
        """Whether a table or a column is named."""
        return (self.path, self.file_column, self.label_column) != (None, None, None)


def read_splits(tree: Folder, asked: TableOptions, named_splits: Iterable[str] = ()) -> dict[str, Split]:
    """Return the splits of a listed folder, `train` alone if it is not divided.

    Args:
        tree: the folder.
        asked: a table, and its columns.
        named_splits: folders that are splits, whatever they are called.

    Raises:
        ValueError: if the folder holds no images, or a table does not fit.
    """
    if not tree.has_images():
        raise ValueError(f"{tree.path} holds no images{_describe_other_files(tree)}: {EXPECTED}.")
    folder = unwrap(tree, named_splits)
    split_folders = find_splits(folder, named_splits)
    tables = find_tables(folder)
    for_all = [path for path in tables if path.stem.lower() in TABLE_NAMES] if asked.path is None else [asked.path]
    labels = open_first(for_all, folder, asked)
    if labels is not None:
        return divide(labels, folder, split_folders)
    splits = {}
    for name in dict.fromkeys([*split_folders, *(path.stem for path in tables if split_kind(path.stem))]):
        split = read_split(name, folder, split_folders.get(name), asked)
        if split is not None:
            splits[name] = split
    if not splits:
        check_not_splits(folder)
        splits = {"train": read_classes(folder)}
    used = [split.table.path for split in splits.values() if split.table is not None]
    unused = [path.name for path in tables if path not in used]
    others = [path.name for path in find_tables(folder, of_any_name=True) if path not in tables]
    for split in splits.values():
        split.left_out += [LeftOut(name, "not a table of labels of these images", fault=False) for name in unused]
        if split.table is None:
            split.left_out += [LeftOut(name, OTHER_TABLE, fault=False) for name in others]
        if split.table is None and split_folders:
            split.left_out += find_beside(folder, split_folders)
    return splits


def read_split(name: str, folder: Folder, own: Folder | None, asked: TableOptions) -> Split | None:
    """Return a split that has a folder of its own, a table called so beside the images, or both; None without labels.

    Its labels are in the table beside its folder, in one within it, or are those of its class folders.
    """
    beside = [path for path in find_tables(folder) if path.stem.lower() == name.lower()]
    labels = open_first(beside, own or folder, asked)
    if labels is not None or own is None:
        return labels and read_rows(labels, own or folder)
    inner = unwrap(own)
    labels = open_first(find_tables(inner), inner, asked)
    if labels is not None:
        return read_rows(labels, inner)
    return read_classes(inner)


# Folders


def unwrap(folder: Folder, named_splits: Iterable[str] = ()) -> Folder:
    """Return the folder where splits or classes begin: archives have folders that hold nothing but another one."""
    while not folder.images and not find_tables(folder):
        inner = [child for child in folder.folders.values() if child.has_images()]
        if len(inner) != 1 or split_kind(inner[0].own_name) or inner[0].own_name in named_splits:
            break
        if not inner[0].has_folders_of_images() and not find_tables(inner[0]):
            break  # a class
        folder = inner[0]
    return folder


def find_splits(folder: Folder, named: Iterable[str] = ()) -> dict[str, Folder]:
    """Return the folders within this one that are splits: those that are called so.

    Where there are others beside them, they may be classes that happen to have such names (`bus`, `car`, `train`).
    Then they are splits only if they hold folders of images, and if there are two, or the others hold none.
    """
    children = [child for child in folder.folders.values() if child.has_images()]
    named = {name.lower() for name in named}
    splits = [child for child in children if split_kind(child.own_name) or child.own_name.lower() in named]
    others = [child for child in children if child not in splits]
    is_named = any(child.own_name.lower() in named for child in splits)
    is_divided = any(child.has_folders_of_images() and not child.images for child in splits)
    are_alike = any(child.has_folders_of_images() for child in others)
    if others and not is_named and not (is_divided and (len(splits) > 1 or not are_alike)):
        return {}
    return {child.own_name: child for child in splits}


def check_not_splits(folder: Folder) -> None:
    """Raise ValueError if the classes of a folder must be splits: `seg_train` and `seg_test`, with classes in them."""
    kinds: dict[str, list[str]] = {}
    for child in folder.folders.values():
        word = SPLIT_WORD.search(child.own_name)
        if word and child.has_folders_of_images() and not child.images:
            kinds.setdefault(SPLIT_KINDS[word[1].lower()], []).append(child.own_name)
    if "train" in kinds and len(kinds) > 1:
        train, other = kinds.pop("train")[0], next(iter(kinds.values()))[0]
        raise ValueError(
            f"{folder.path} has folders {train} and {other}, which look like splits: pass --train_split {train}"
            f" --validation_split {other}, or leave the second out where it has no classes."
        )


def find_beside(folder: Folder, split_folders: dict[str, Folder]) -> list[LeftOut]:
    """Return what lies beside the splits of a folder."""
    beside = [LeftOut(image.name, "in no split's folder") for image in folder.images]
    for name, child in folder.folders.items():
        if name not in split_folders and child.has_images():
            beside.append(LeftOut(child.name, "a folder beside the splits", fault=False))
        elif name not in split_folders and split_kind(name):
            beside.append(LeftOut(child.name, "a split without an image", fault=bool(child.all_other_files())))
    return beside


def read_classes(folder: Folder) -> Split:
    """Return the images in the folders of a folder, which are its classes: none if it has images alone."""
    if not folder.has_folders_of_images():
        return Split()
    split = Split(left_out=[LeftOut(image.name, "in no class's folder") for image in folder.images])
    split.left_out += [file for file in folder.other_files if not file.fault]
    for label, child in sorted(folder.folders.items()):
        images = child.all_images()
        split.images += images
        split.labels += [label] * len(images)
        split.left_out += child.all_other_files()
        if not images:
            split.empty_classes.append(label)
    return split


def _describe_other_files(tree: Folder) -> str:
    others = tree.all_other_files()
    if not others:
        return ""
    return f" ({describe_left_out(others)})"


# Tables


def find_tables(folder: Folder, of_any_name: bool = False) -> list[Path]:
    """Return the files directly in a folder that are called as tables of labels are, or all with their endings."""
    paths = (Path(folder.path, Path(file.name).name) for file in folder.other_files)
    return [
        path
        for path in paths
        if path.suffix.lower() in TABLE_SUFFIXES
        and (of_any_name or path.stem.lower() in TABLE_NAMES or split_kind(path.stem))
    ]


def open_first(paths: Iterable[str | Path], folder: Folder, asked: TableOptions) -> LabelTable | None:
    """Return the first of the tables that holds labels of a folder's images; None if the folder's folders tell them."""
    names = FileNames(folder.all_images(), below=folder.name)
    may_lack_labels = folder.has_folders_of_images() and not asked.says_where
    for path in paths:
        labels = open_label_table(path, names, asked.file_column, asked.label_column, asked.labeling, may_lack_labels)
        if labels is not None:
            return labels
    return None


def read_rows(labels: LabelTable, folder: Folder, rows: Iterable[int] | None = None) -> Split:
    """Return the images that rows of a table name, all when None, with their labels.

    Rows without a label or an image are left out.

    Raises:
        ValueError: if an image has two labels.
    """
    images = folder.all_images()
    files = FileNames(images, below=folder.name)
    unused = (
        LeftOut(name, f"a column of {labels.path.name} that is not 0 or 1", False) for name in labels.unused_columns
    )
    split = Split(left_out=list(unused), table=labels)
    label_of: dict[ImageFile, str] = {}
    listed: set[ImageFile] = set()
    for row in range(len(labels.files)) if rows is None else rows:
        cell, label = labels.files[row], labels.labels[row]
        found = files.find(cell)
        listed.update(found)
        if len(found) != 1:
            reason = f"the name of {len(found)} images" if found else "not there"
            split.left_out.append(LeftOut(str(cell), f"listed in {labels.path.name} and {reason}"))
        elif label is None:
            split.left_out.append(LeftOut(found[0].name, f"without a label in {labels.path.name}"))
        elif label_of.setdefault(found[0], label) != label:
            raise ValueError(f"{labels.path} gives {found[0].name} two labels, {label_of[found[0]]!r} and {label!r}.")
    split.images, split.labels = list(label_of), list(label_of.values())
    if rows is None:
        unlisted = [image.name for image in images if image not in listed]
        split.left_out += [LeftOut(name, f"not listed in {labels.path.name}", fault=False) for name in unlisted]
    return split


def divide(labels: LabelTable, folder: Folder, split_folders: dict[str, Folder]) -> dict[str, Split]:
    """Return the splits of a table for all images: by its column `split`, or by the folders that they lie in."""
    if labels.splits and all(isinstance(cell, str) and split_kind(cell) for cell in labels.splits):
        rows: dict[str, list[int]] = {}
        for row, cell in enumerate(labels.splits):
            rows.setdefault(cell, []).append(row)
        return {name: read_rows(labels, folder, of_split) for name, of_split in rows.items()}
    whole = read_rows(labels, folder)
    split_of = {image: name for name, own in split_folders.items() for image in own.all_images()}
    splits: dict[str, Split] = {}
    for image, label in zip(whole.images, whole.labels):
        split = splits.setdefault(split_of.get(image, "train"), Split(left_out=whole.left_out, table=labels))
        split.images.append(image)
        split.labels.append(label)
    return splits or {"train": whole}
