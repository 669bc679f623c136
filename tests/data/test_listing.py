"""Folders as other people leave them: what is listed, and what is said of the rest."""

import os
import unicodedata

import pytest
from PIL import Image

from sk_transformers.data import decoding
from sk_transformers.data.listing import NOT_AN_IMAGE, describe_left_out, list_folder

from ..support.image_files import write_files


def names(folder):
    return [image.name for image in folder.all_images()]


def left_out(folder):
    return {file.name: file.reason for file in folder.all_other_files()}


def test_images_are_told_by_their_content_where_the_ending_does_not(tmp_path):
    formats = {"a": "JPEG", "b.image": "PNG", "c.x": "WEBP", "d.avif": "AVIF", "e.jp2": "JPEG2000", "f": "TIFF",
               "g.data": "BMP", "h": "PPM", "i.JPG": "JPEG", "j": "AVIF", "k.pcx": "PCX"}  # fmt: skip
    for name, kind in formats.items():
        Image.new("RGB", (8, 8), "red").save(tmp_path / name, format=kind)
    (tmp_path / "notes.txt").write_text("of these images")
    (tmp_path / "table.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))  # which Pillow identifies and cannot read
    folder = list_folder(tmp_path)
    assert names(folder) == sorted(formats)
    assert left_out(folder) == {"notes.txt": NOT_AN_IMAGE, "table.h5": NOT_AN_IMAGE}


def test_sizes_and_paths(tmp_path):
    write_files(tmp_path, "a/b/1.png")
    (image,) = list_folder(tmp_path).all_images()
    file = tmp_path / "a" / "b" / "1.png"
    assert image == (str(file), "a/b/1.png", file.stat().st_size)


def test_hidden_and_system_files_are_passed_over(tmp_path):
    write_files(tmp_path, "cat/1.png", "cat/._1.png", ".git/2.png", "__MACOSX/cat/1.png", "@eaDir/1.png")
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "cat/Thumbs.db"):
        (tmp_path / name).write_text("of the system")
    folder = list_folder(tmp_path)
    assert names(folder) == ["cat/1.png"] and left_out(folder) == {}


def test_signs_that_patterns_would_read(tmp_path):
    root = tmp_path / "photos [2024]"
    write_files(root, "cats [tabby]/photo[1].jpg", "dogs*/a?.png", "{a,b}/#.png")
    assert names(list_folder(root)) == ["cats [tabby]/photo[1].jpg", "dogs*/a?.png", "{a,b}/#.png"]


def test_links_are_followed_and_circles_are_not(tmp_path):
    write_files(tmp_path / "elsewhere", "1.png", "more/2.png")
    write_files(tmp_path / "root", "dog/3.png")
    (tmp_path / "root" / "cat").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root" / "dog" / "up").symlink_to(tmp_path / "root")
    (tmp_path / "root" / "dog" / "4.png").symlink_to(tmp_path / "elsewhere" / "1.png")
    (tmp_path / "root" / "dog" / "5.png").symlink_to(tmp_path / "nowhere.png")
    folder = list_folder(tmp_path / "root")
    assert names(folder) == ["cat/1.png", "cat/more/2.png", "dog/3.png", "dog/4.png"]
    assert left_out(folder) == {"dog/up": "linked to a folder that it lies in", "dog/5.png": "linked to nothing"}


def test_two_forms_of_a_name_are_one(tmp_path):
    for form, file in (("NFC", "1.png"), ("NFD", "2.png")):
        write_files(tmp_path / unicodedata.normalize(form, "café"), file)
    folder = list_folder(tmp_path)
    assert list(folder.folders) == [unicodedata.normalize("NFC", "café")]
    assert all(os.path.isfile(image.path) for image in folder.all_images()) and len(folder.all_images()) == 2


@pytest.mark.parametrize("make", [lambda file: file.touch(), os.mkfifo])
def test_what_holds_nothing_and_what_would_wait_for_ever(tmp_path, make):
    make(tmp_path / "1.png")
    assert list(left_out(list_folder(tmp_path)).values()) in (["empty"], ["not a file"])


def test_names_that_are_not_unicode(tmp_path):
    write_files(tmp_path, "cat/1.png")
    os.mkdir(os.fsencode(tmp_path) + b"/\x83l\x83R")  # Japanese, as an old archive has it
    assert left_out(list_folder(tmp_path)) == {r"\udc83l\udc83R": "named in an encoding that is not UTF-8"}


def test_heic(tmp_path, monkeypatch):
    """Which has no signature of its own at its start, and is named where it cannot be read."""
    monkeypatch.setattr(decoding, "available_formats", lambda: ("JPEG", "PNG"))
    for name, brand in (("1.HEIC", b"heic"), ("2", b"mif1")):
        (tmp_path / name).write_bytes(b"\0\0\0\x18ftyp" + brand + bytes(20))
    reasons = left_out(list_folder(tmp_path))
    assert set(reasons) == {"1.HEIC", "2"}
    assert all(reason.startswith("HEIC, which needs") and "pip install" in reason for reason in reasons.values())


def test_heic_is_read_where_pillow_heif_is_installed(tmp_path):
    pytest.importorskip("pillow_heif")
    Image.new("RGB", (64, 48), "red").save(tmp_path / "1.heic")
    (image,) = list_folder(tmp_path).all_images()
    with Image.open(image.path) as opened:
        assert opened.size == (64, 48) and opened.convert("RGB").getpixel((9, 9))[0] > 250


def test_the_account_groups_by_reason_and_gives_examples(tmp_path):
    for number in range(5):
        (tmp_path / f"{number}.txt").write_text("text")
    (tmp_path / "x.png").touch()
    others = list_folder(tmp_path).all_other_files()
    assert describe_left_out(others) == "5 not an image (0.txt, 1.txt, 2.txt and 2 more); 1 empty (x.png)"


def test_a_folder_that_cannot_be_read(tmp_path):
    with pytest.raises(ValueError, match="nowhere cannot be read: No such file or directory"):
        list_folder(tmp_path / "nowhere")
