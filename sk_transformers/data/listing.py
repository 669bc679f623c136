"""The files of a folder: which of them are images, and what is left out and why."""

import os
import stat
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from .decoding import UnreadableImage, open_image

SYSTEM_NAMES = {
    "__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information", "@eadir",
    "lost+found", "icon\r",
}  # fmt: skip
# Endings that only images have: such files are not opened here. All others are told by their content.
IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".pbm", ".pgm",
    ".ppm", ".pnm", ".pfm", ".jp2", ".j2k", ".jpx", ".avif", ".tga", ".ico",
)  # fmt: skip
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")
NOT_AN_IMAGE = "not an image"
SHOWN_NAMES = 3


class ImageFile(NamedTuple):
    """An image: its path on disk, its name below the data set's folder in Unicode's form NFC, and its bytes."""

    path: str
    name: str
    size: int


class LeftOut(NamedTuple):
    """A file or folder that is not used. A `fault` is one that `--on_bad_image` decides about."""

    name: str
    reason: str
    fault: bool = True


@dataclass
class Folder:
    """What a folder holds, hidden and system files aside. `folders` are by name, in NFC; `name` is as of `ImageFile`.

    Two folders whose names are the same in NFC are one.
    """

    path: str
    name: str = ""
    images: list[ImageFile] = field(default_factory=list)
    other_files: list[LeftOut] = field(default_factory=list)
    folders: dict[str, "Folder"] = field(default_factory=dict)

    @property
    def own_name(self) -> str:
        return self.name.rpartition("/")[2]

    def walk(self) -> Iterator["Folder"]:
        """Yield this folder and all below it."""
        yield self
        for folder in self.folders.values():
            yield from folder.walk()

    def all_images(self) -> list[ImageFile]:
        return [image for folder in self.walk() for image in folder.images]

    def all_other_files(self) -> list[LeftOut]:
        return [file for folder in self.walk() for file in folder.other_files]

    def has_images(self) -> bool:
        return any(folder.images for folder in self.walk())

    def has_folders_of_images(self) -> bool:
        return any(folder.has_images() for folder in self.folders.values())


def list_folder(path: str | os.PathLike[str]) -> Folder:
    """Return the tree of a folder, in the order of names. Links are followed, except to a folder that they lie in.

    Raises:
        ValueError: if a folder cannot be read.
    """
    folder = Folder(os.fspath(path))
    _read(folder, folder.path, frozenset())
    return folder


def _read(folder: Folder, path: str, above: frozenset[tuple[int, int]]) -> None:
    """Add what lies at `path` to `folder`; `above` identifies the folders that it lies in."""
    try:
        status = os.stat(path)
        with os.scandir(path) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from error
    above |= {(status.st_dev, status.st_ino)}
    for entry in found:
        if entry.name.startswith(".") or entry.name.lower() in SYSTEM_NAMES:
            continue
        own_name = to_nfc(entry.name)
        name = f"{folder.name}/{own_name}" if folder.name else own_name
        if not _is_unicode(own_name):
            folder.other_files.append(LeftOut(ascii(name)[1:-1], "named in an encoding that is not UTF-8"))
        elif not entry.is_dir():
            _add_file(folder, entry, name)
        elif entry.is_symlink() and (entry.stat().st_dev, entry.stat().st_ino) in above:
            folder.other_files.append(LeftOut(name, "linked to a folder that it lies in", fault=False))
        else:
            _read(folder.folders.setdefault(own_name, Folder(entry.path, name)), entry.path, above)


def _add_file(folder: Folder, entry: os.DirEntry[str], name: str) -> None:
    try:
        status = entry.stat()
    except OSError:
        folder.other_files.append(LeftOut(name, "linked to nothing"))
        return
    if not stat.S_ISREG(status.st_mode):  # a pipe would wait for ever
        reason = "not a file"
    elif status.st_size == 0:
        reason = "empty"
    elif entry.name.lower().endswith(IMAGE_SUFFIXES):
        reason = None
    else:
        reason = find_fault(entry.path)
    if reason is None:
        folder.images.append(ImageFile(entry.path, name, status.st_size))
    else:
        folder.other_files.append(LeftOut(name, reason))


def find_fault(path: str) -> str | None:
    """Return why a file is not an image that Pillow reads, by its first bytes; None if it is one."""
    try:
        with open(path, "rb") as file:
            start = file.read(16)
            if start.startswith(SIGNATURES) or (start[:4] == b"RIFF" and start[8:12] == b"WEBP"):
                return None
            file.seek(0)
            open_image(file).close()
    except OSError as error:
        return f"unreadable ({error.strerror})"
    except UnreadableImage as error:
        return NOT_AN_IMAGE if str(error).startswith(NOT_AN_IMAGE) else str(error)
    return None


def to_nfc(name: str) -> str:
    """Return a name in the form NFC: macOS writes letters with accents as two characters, other systems as one."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # bytes that Python could not decode
        return False
    return True


# What is said


def count(number: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun: `1 class`, `2 classes`."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def name_some(names: list[str]) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return ", ".join(names[:SHOWN_NAMES]) + more


def name_labels(labels: list[str]) -> str:
    """Return the first labels in quotes, and how many more there are."""
    return name_some([repr(label) for label in labels])


def describe_left_out(left_out: Iterable[LeftOut]) -> str:
    """Return how many are left out for each reason, with examples."""
    names: dict[str, list[str]] = {}
    for file in left_out:
        names.setdefault(file.reason, []).append(file.name)
    return "; ".join(f"{len(of_reason)} {reason} ({name_some(of_reason)})" for reason, of_reason in names.items())


def check_faults(where: str, left_out: Iterable[LeftOut]) -> None:
    """Raise ValueError if a file is left out that the user may not know of."""
    faults = [file for file in left_out if file.fault]
    if faults:
        raise ValueError(
            f"{where} holds what cannot be used: {describe_left_out(faults)}. Mend or remove it, or pass"
            " --on_bad_image skip to go on without it."
        )
