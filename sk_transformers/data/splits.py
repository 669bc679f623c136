"""Splits by name, and the rows of one that can be used."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset

from .folders import SPLIT_KINDS, split_kind
from .labels import HOLD_OUT_ADVICE
from .listing import LeftOut, check_faults
from .options import DataOptions


def pick_splits(options: DataOptions, there: list[str], hold_out: bool) -> tuple[str, str | None]:
    """Return the names of the training and the validation split, None where a part of the first is held out.

    Raises:
        ValueError: if a split that is asked for is not there.
    """
    name = options.dataset
    train = pick_split(name, there, options.train_split, "--train_split", ["train"]) or there[0]
    candidates = there if options.validation_split else [split for split in there if split != train]
    kinds = ["validation", "test"]
    validation = pick_split(name, candidates, options.validation_split, "--validation_split", kinds)
    return train, None if validation == train and hold_out else validation


def pick_split(name: str, there: list[str], asked: str | None, option: str, kinds: list[str]) -> str | None:
    """Return the split asked for, in whatever case or form of its name; else the first of these kinds, if there is one.

    Raises:
        ValueError: if the split asked for is not there.
    """
    if asked is None:
        usual = [word for kind in kinds for word, of_kind in SPLIT_KINDS.items() if of_kind == kind]
        return next((split for word in usual for split in there if split.lower() == word), None)
    for fits in (
        lambda split: split == asked,
        lambda split: split.lower() == asked.lower(),
        lambda split: split_kind(asked) and split_kind(split) == split_kind(asked),
    ):
        found = [split for split in there if fits(split)]
        if len(found) == 1:
            return found[0]
    raise ValueError(f"{option} {asked}: {name} has {', '.join(there)}.")


def load_splits(
    options: DataOptions, splits: tuple[str, str | None], load: Callable[[str], Dataset], hold_out: bool
) -> tuple[Dataset, Dataset]:
    """Return training and validation images, where no class says which are held out.

    Args:
        options: how many are held out, and by what seed.
        splits: as `pick_splits` returns them.
        load: returns the images of a split.
        hold_out: divide the images where there is no validation split at random; else all of them are both.
    """
    (train_name, validation_name), part = splits, options.train_val_split
    data = load(train_name)
    if validation_name is not None:
        return data, load(validation_name)
    if not hold_out:
        return data, data
    held_out = round(len(data) * part)
    if not 0 < held_out < len(data):
        raise ValueError(
            f"{options.dataset} has {len(data)} images, of which {part:g} cannot be held out: {HOLD_OUT_ADVICE}."
        )
    order = np.random.default_rng(options.split_seed).permutation(len(data))
    return data.select(np.sort(order[held_out:])), data.select(np.sort(order[:held_out]))


def without_missing(
    name: str, data: Dataset, skip: bool, left_out: list[LeftOut], empty_is_missing: bool = False
) -> Dataset:
    """Return the rows that have both an image and a label; the others are added to `left_out`.

    Args:
        name: of the data, for messages.
        data: with the columns `image` and `label`.
        skip: whether rows may be left out.
        left_out: what is left out so far.
        empty_is_missing: whether a label of no letters is none.

    Raises:
        ValueError: if there are others, unless they are to be skipped.
    """
    if not len(data):
        raise ValueError(f"{name} has no rows.")
    columns = flat_columns(data)
    is_null = {name: column.is_null().to_numpy() for name, column in columns.items()}
    no_image, no_label = (
        is_null[name] if name in is_null else is_null[f"{name}.bytes"] & is_null[f"{name}.path"]
        for name in ("image", "label")  # a mask is a picture, too
    )
    if empty_is_missing and pa.types.is_string(columns["label"].type):
        no_label |= columns["label"].to_numpy() == ""
    missing = [
        LeftOut(f"row {row}", f"without {what}")
        for what, mask in (("an image", no_image), ("a label", no_label))
        for row in np.flatnonzero(mask)
    ]
    if not missing:
        return data
    if not skip:
        check_faults(name, missing)
    left_out += missing
    return data.select(np.flatnonzero(~(no_image | no_label)))


def flat_columns(data: Dataset) -> dict[str, Any]:
    """Return the columns as Arrow has them, those of an image (`image.bytes`, `image.path`) apart."""
    table: Any = data.with_format("arrow")[:]
    table = table.flatten()
    return dict(zip(table.column_names, table.columns))


def choose_rows(data: Dataset, images: int, seed: int) -> Dataset:
    return data.shuffle(seed=seed).select(range(min(images, len(data))))
