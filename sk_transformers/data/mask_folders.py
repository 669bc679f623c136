"""Folders of images and masks: which picture is the mask of which image, and of which split they are.

A mask lies where its image does, but for one folder's name, which says what it holds:

| images | masks | as in |
| --- | --- | --- |
| `images/a.jpg` | `masks/a.png` | most |
| `train/images/a.jpg` | `train/masks/a.png` | most |
| `images/training/a.jpg` | `annotations/training/a.png` | ADE20K |
| `train/a.png` | `trainannot/a.png` | CamVid |
"""

import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from .folders import split_kind
from .listing import Folder, ImageFile, LeftOut

IMAGES = re.compile(r"(images?|imgs?|jpegimages|photos?)", re.IGNORECASE)
# What comes before it, as in `trainannot` and `val_masks`, is the split, and the name of the images' folder.
MASKS = re.compile(r"(.*?)[-_]?(masks?|annot|annotations?|labels?|segmentations?|segmentationclass|gt)", re.IGNORECASE)
ENDING = re.compile(r"[-_](mask|label|annotation|gt|seg|L)$")  # of a mask's name, beside its image's
EXPECTED = "expected folders such as images and masks, or train/images and train/masks, with the same names of files"


@dataclass
class SplitFiles:
    """The images of a split, each with its mask, and what is not used of it."""

    images: list[ImageFile] = field(default_factory=list)
    masks: list[ImageFile] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)


def find_pairs(tree: Folder) -> dict[str, SplitFiles]:
    """Return the pairs of a listed folder by split, `train` alone if it is not divided.

    Raises:
        ValueError: if no image has a mask, or two pictures could be the same one.
    """
    images: dict[tuple[str, ...], ImageFile] = {}
    masks: dict[tuple[str, ...], ImageFile] = {}
    for file in tree.all_images():
        place, is_mask = place_of(file.name)
        kind = masks if is_mask else images
        if place in kind:
            raise ValueError(
                f"{tree.path} has {kind[place].name} and {file.name}, which one name stands for: rename one."
            )
        kind[place] = file
    if not images.keys() & masks.keys():
        raise ValueError(f"{tree.path} has {len(images)} images and {len(masks)} masks, none of the same: {EXPECTED}.")
    splits: dict[str, SplitFiles] = {}
    for place, image in images.items():
        split = splits.setdefault(split_of(place), SplitFiles())
        if place in masks:
            split.images.append(image)
            split.masks.append(masks[place])
        else:
            split.left_out.append(LeftOut(image.name, "without a mask"))
    for place, mask in masks.items():
        if place not in images:
            splits.setdefault(split_of(place), SplitFiles()).left_out.append(
                LeftOut(mask.name, "a mask without an image")
            )
    for folder in tree.walk():
        for file in folder.other_files:  # a list of names beside the folders is no fault
            split = splits.get(split_of(place_of(file.name)[0])) or next(iter(splits.values()))
            split.left_out.append(LeftOut(file.name, file.reason, file.fault and bool(folder.images)))
    return {name: pairs for name, pairs in splits.items() if pairs.images or pairs.left_out}


def place_of(name: str) -> tuple[tuple[str, ...], bool]:
    """Return what an image and its mask have in common, folders and the file's name; and whether this is the mask."""
    *folders, file = name.split("/")
    stem = PurePosixPath(file).stem
    for position in reversed(range(len(folders))):
        match = MASKS.fullmatch(folders[position])
        if match and (not match[1] or split_kind(match[1])):
            folders[position : position + 1] = [match[1]] if match[1] else []
            return (*folders, ENDING.sub("", stem)), True
        if IMAGES.fullmatch(folders[position]):
            del folders[position]
            break
    return (*folders, stem), False


def split_of(place: tuple[str, ...]) -> str:
    """Return the split of a place: the first of its folders that is called as one, else `train`."""
    return next((folder for folder in place[:-1] if split_kind(folder)), "train")
