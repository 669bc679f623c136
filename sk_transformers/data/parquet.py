"""The parquet files of a folder: whether they are its data, and of which split each is."""

import os
import re

import pyarrow as pa
import pyarrow.parquet as pq

from .listing import Folder

# A word of a file's or folder's name. Unlike folders of images, shards have more than the split in their names.
SPLIT_WORDS = {
    "train": r"train(ing)?",
    "validation": r"val(id(ation)?)?|dev",
    "test": r"test(ing)?|eval(uation)?",
}


def find_parquet_splits(tree: Folder) -> dict[str, list[str]]:
    """Return the paths of a folder's parquet files by split; none if its image files are the data, as they are more.

    A file that names no split is of `train`.
    """
    splits: dict[str, list[str]] = {}
    rows = 0
    for folder in tree.walk():
        for file in folder.other_files:
            path = os.path.join(folder.path, file.name.rpartition("/")[2])
            if path.lower().endswith(".parquet") and (length := _count_images(path)):
                splits.setdefault(split_of_file(file.name), []).append(path)
                rows += length
    return splits if rows > len(tree.all_images()) else {}


def _count_images(path: str) -> int:
    """Return the rows of a parquet file with a column of bytes or of images, 0 of others and of damaged ones."""
    try:
        metadata = pq.read_metadata(path)
        types = metadata.schema.to_arrow_schema().types
    except (OSError, ValueError):
        return 0
    return metadata.num_rows if any(map(_may_hold_images, types)) else 0


def _may_hold_images(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or (
        pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
    )  # fmt: skip


def split_of_file(name: str) -> str:
    """Return the split that a file is of: what its name says, or that of its folder, or of the one above it."""
    for part in reversed(name.lower().removesuffix(".parquet").split("/")):
        for split, word in SPLIT_WORDS.items():
            if re.search(rf"(^|[\W_])({word})($|[\W_\d])", part):
                return split
    return "train"
