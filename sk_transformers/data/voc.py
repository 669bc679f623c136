"""Objects in Pascal VOC's XML: of which split each is, what is in each image, and what of it cannot be used.

The format is that of http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/: an `annotation` of each image, with its
`size` and a `bndbox` of each `object`, and lists of the images of each split in `ImageSets/Main`.
"""

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from xml.etree import ElementTree

from .folders import split_kind
from .listed_objects import ListedObjects, add_annotations, is_size
from .listing import Folder, ImageFile, LeftOut, to_nfc
from .mask_folders import place_of
from .parquet import split_of_file
from .tables import read_text

Place = tuple[str, ...]  # the folders of a file without that which says what it holds, and the file's stem
DOCUMENT_TYPE = "an XML with a document type, which is not read: remove <!DOCTYPE ...>"
ORDER = ("train", "trainval")  # of splits: the first is trained on where none is named


class VocEntry(NamedTuple):
    """An image of a split: its XML's name below the data set's folder, its place, and the XML, None if it has none."""

    name: str
    place: Place
    path: str | None


@dataclass
class VocFiles:
    """The images of each split, and what is not used."""

    splits: dict[str, list[VocEntry]] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)


# Folders


def find_voc(tree: Folder) -> VocFiles:
    """Return the XML files of a listed folder by split; no split if there is none.

    Where there are `ImageSets`, they say what is in a split; elsewhere folders do, and it is `train` where none does.

    Raises:
        ValueError: if two files are of one place, or an image is listed twice.
    """
    entries: dict[Place, VocEntry] = {}
    others: list[LeftOut] = []
    for folder in tree.walk():
        for file in folder.other_files:
            if not is_xml(file.name):
                others += [] if is_image_set(file.name) else [LeftOut(file.name, file.reason, fault=False)]
                continue
            place = place_of_annotated(file.name)
            if place in entries:
                raise ValueError(
                    f"{tree.path} has {entries[place].name} and {file.name}, which one image stands for: keep one."
                )
            entries[place] = VocEntry(file.name, place, os.path.join(folder.path, os.path.basename(file.name)))
    if not entries:
        return VocFiles()
    splits, roots = read_image_sets(tree, entries)
    listed = {entry.place for of_split in splits.values() for entry in of_split}
    for place, entry in entries.items():
        if place in listed:
            continue
        if any(place[: len(root)] == root for root in roots):
            others.append(LeftOut(entry.name, "in no image set", fault=False))
        else:
            splits.setdefault(split_of_file(os.path.dirname(entry.name)), []).append(entry)
    names = sorted(splits, key=lambda split: ORDER.index(split) if split in ORDER else len(ORDER))
    return VocFiles({name: splits[name] for name in names}, others)


def place_of_annotated(name: str) -> Place:
    """Return the place of an XML or of an image: `place_of`, but that no ending of a mask's name is cut off."""
    return (*place_of(name)[0][:-1], PurePosixPath(name).stem)


def is_xml(name: str) -> bool:
    return name.lower().endswith(".xml")


def is_image_set(name: str) -> bool:
    return any(folder.lower() == "imagesets" for folder in name.split("/")[:-1])


def read_image_sets(tree: Folder, entries: dict[Place, VocEntry]) -> tuple[dict[str, list[VocEntry]], list[Place]]:
    """Return the images that `ImageSets` list by split, and the places of the folders that have some."""
    splits: dict[str, list[VocEntry]] = {}
    roots = []
    for folder in tree.walk():
        if folder.own_name.lower() != "imagesets":
            continue
        root: Place = tuple(folder.name.split("/")[:-1])
        main = folder.folders.get("Main", folder)
        for file in main.other_files:
            path = Path(main.path, os.path.basename(file.name))
            split = path.stem.lower()
            if path.suffix.lower() != ".txt" or not (split in ORDER or split_kind(split)):
                continue  # lists of the images of a class
            roots.append(root)
            names = [to_nfc(line.strip()) for line in read_text(path).splitlines() if line.strip()]
            twice = [name for name, times in Counter(names).items() if times > 1]
            if twice:
                raise ValueError(f"{path} lists {twice[0]} twice: give each image one line.")
            places = [(*root, *name.split("/")) for name in names]
            missing = (VocEntry(f"{name} of {file.name}", place, None) for name, place in zip(names, places))
            splits.setdefault(split, []).extend(entries.get(one.place, one) for one in missing)
    return {split: found for split, found in splits.items() if found}, roots


class ImagesByPlace:
    """The images of a folder by the places of their XML; `masks` are pictures that lie in folders of masks."""

    def __init__(self, tree: Folder) -> None:
        self.by_place: dict[Place, list[ImageFile]] = {}
        self.masks: list[LeftOut] = []
        for folder in tree.walk():
            holds_xml = any(is_xml(file.name) for file in folder.other_files)
            for image in folder.images:
                if place_of(image.name)[1] and not holds_xml:
                    self.masks.append(LeftOut(image.name, "a mask", fault=False))
                else:
                    self.by_place.setdefault(place_of_annotated(image.name), []).append(image)

    def find(self, place: Place, file_name: str) -> ImageFile | None:
        """Return the image of an XML's place, or of its `filename` there; None if there is none, or several are."""
        for stem in (place[-1], PurePosixPath(file_name).stem):
            found = self.by_place.get((*place[:-1], stem), [])
            named = [image for image in found if os.path.basename(image.name) == file_name]
            if len(named or found) == 1:
                return (named or found)[0]
        return None


# Files


def read_voc(
    entries: list[VocEntry], find_image: Callable[[Place, str], ImageFile | None], classes: list[str] | None = None
) -> ListedObjects:
    """Return the images and objects of a split.

    Args:
        entries: what it has.
        find_image: returns the image of a place and a `filename`, None if there is none.
        classes: whose numbers the objects get; the sorted names of all objects when None.
    """
    annotations: list[tuple[VocEntry, dict[str, Any]]] = []
    left_out = []
    for entry in entries:
        content = "in an image set, and without an annotation" if entry.path is None else read_xml(entry.path)
        if isinstance(content, str):
            left_out.append(LeftOut(entry.name, content))
        else:
            annotations.append((entry, content))
    if classes is None:
        classes = sorted({name for _, content in annotations for name in names_of(content)})
    read = ListedObjects(classes, left_out=left_out)
    numbers = {name: number for number, name in enumerate(classes)}
    for entry, content in annotations:
        image = find_image(entry.place, content["file_name"])
        if image is None:
            name = content["file_name"] or PurePosixPath(entry.name).stem
            read.left_out.append(
                LeftOut(f"{name} of {entry.name}", "named in an XML, and not there, or more than once")
            )
            continue
        read.images.append(image)
        add_annotations(read, entry.name, content, content["objects"], numbers)
    return read


def names_of(content: dict[str, Any]) -> list[str]:
    return [one["category_id"] for one in content["objects"] if one["category_id"] is not None]


class NoDocumentType(ElementTree.TreeBuilder):
    """What builds the tree of an XML, and stops at a document type, whose entities may grow without end."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError(DOCUMENT_TYPE)


def read_xml(path: str) -> dict[str, Any] | str:
    """Return of an XML the `file_name`, `height` and `width` of its image, and `objects` as COCO has them; or why it
    cannot be used."""
    try:
        root = ElementTree.parse(path, ElementTree.XMLParser(target=NoDocumentType())).getroot()
    except OSError as error:
        return f"unreadable ({error.strerror})"
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # the last ones are of its encoding
        return DOCUMENT_TYPE if str(error) == DOCUMENT_TYPE else "damaged, or not XML"
    if root.tag != "annotation":
        return "an XML that is not Pascal VOC's annotation of an image"
    height, width = (as_number(root.findtext(f"size/{side}")) for side in ("height", "width"))
    if not is_size(height) or not is_size(width):
        return "an XML without the size of its image"
    file_name = to_nfc((root.findtext("filename") or "").strip().replace("\\", "/").rpartition("/")[2])
    objects = [read_object(one) for one in root.findall("object")]
    return {"file_name": file_name, "height": height, "width": width, "objects": objects}


def read_object(node: ElementTree.Element) -> dict[str, Any]:
    """Return an object as COCO has it, named by its class.

    Corners count pixels from 1 and belong to the box. What is difficult neither counts in VOC's evaluation, and so is
    as a crowd.
    """
    corners = [as_number(node.findtext(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")]
    left, top, right, bottom = corners
    box = None if None in corners else [left - 1, top - 1, right - left + 1, bottom - top + 1]
    name = (node.findtext("name") or "").strip()
    difficult = (node.findtext("difficult") or "0").strip().lower() not in ("0", "false", "")
    return {"category_id": name or None, "bbox": box, "iscrowd": difficult}


def as_number(text: str | None) -> Any:
    """Return the number that a text is, whole if it is; None if it is none."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return int(value) if value.is_integer() else value
