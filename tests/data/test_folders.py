"""Which folders are splits and which are classes, in layouts that people have."""

import unicodedata
from pathlib import Path

import pytest

from ..support.image_files import load_images, write_files

TWO = ("cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png")


def below(folder, *names):
    return [f"{folder}/{name}" for name in names]


def contents(data, root, split="train"):
    """The label of each image, by its path below the root."""
    images = data.split(split)
    return {
        Path(image["path"]).relative_to(root).as_posix(): data.labels[label]
        for image, label in zip(images["image"], images["label"])
    }


@pytest.mark.parametrize(
    ("train", "validation"),
    [
        ("train", "val"), ("Training", "Testing"), ("Train", "Test"), ("TRAIN", "Valid"), ("training", "dev"),
        ("train", "eval"), ("train", "validation"), ("train", "Val"),
    ],
)  # fmt: skip
def test_splits_in_any_case(tmp_path, train, validation):
    write_files(tmp_path, *below(train, *TWO), *below(validation, "cat/3.png", "dog/3.png"))
    data = load_images(tmp_path)
    assert contents(data, tmp_path) == {f"{train}/{name}": name[:3] for name in TWO}
    assert set(contents(data, tmp_path, "validation")) == set(below(validation, "cat/3.png", "dog/3.png"))
    assert f"{train} 4, {validation} 2" in data.account


def test_splits_are_found_by_what_they_are_for(tmp_path):
    write_files(tmp_path, *below("Training", *TWO), *below("Val", *TWO), *below("Testing", "cat/9.png", "dog/9.png"))
    assert "Not used: Testing" in load_images(tmp_path).account
    for asked in ("Testing", "testing", "test"):
        data = load_images(tmp_path, validation_split=asked)
        assert set(contents(data, tmp_path, "validation")) == {"Testing/cat/9.png", "Testing/dog/9.png"}
    with pytest.raises(ValueError, match="--validation_split held: .* has Testing, Training, Val"):
        load_images(tmp_path, validation_split="held")


@pytest.mark.parametrize(
    "classes", [("bus", "car", "train"), ("test tube", "dev board", "training shoe"), ("cat_train", "cat_test")]
)
def test_classes_that_are_called_like_splits(tmp_path, classes):
    write_files(tmp_path, *(f"{label}/{number}_train.jpg" for label in classes for number in range(4)))
    data = load_images(tmp_path, train_val_split=0.5)
    assert data.labels == sorted(classes)
    assert len(data.train) + len(data.validation) == 4 * len(classes)


def test_files_that_are_called_like_splits(tmp_path):
    write_files(tmp_path, *(f"cat/{n}_train.jpg" for n in range(8)), *(f"dog/{n}.jpg" for n in range(32)))
    data = load_images(tmp_path)
    assert len(data.train) + len(data.validation) == 40


def test_signs_and_forms_of_names(tmp_path):
    root = tmp_path / "photos [2024]"
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    write_files(root, "train/cats [tabby]/a[1].jpg", f"train/{composed}/1.png", f"val/{decomposed}/2.png")
    data = load_images(root)
    assert data.labels == [composed, "cats [tabby]"]
    assert contents(data, root, "validation") == {f"val/{decomposed}/2.png": composed}


@pytest.mark.parametrize("wrapper", ["archive", "data/animals", "animals/animals"])
def test_folders_that_archives_leave(tmp_path, wrapper):
    write_files(tmp_path, *below(wrapper, *TWO), *below("__MACOSX", *TWO))
    (tmp_path / "README.txt").write_text("of the archive")
    assert load_images(tmp_path, train_val_split=0.5).labels == ["cat", "dog"]


def test_folders_that_archives_leave_within_splits(tmp_path):
    """As in Intel's scenes of Kaggle, whose splits have to be named, and the X-rays, which come twice."""
    write_files(tmp_path / "scenes", *below("seg_train/seg_train", *TWO), *below("seg_test/seg_test", *TWO))
    data = load_images(tmp_path / "scenes", train_split="seg_train", validation_split="seg_test")
    assert set(contents(data, tmp_path / "scenes")) == set(below("seg_train/seg_train", *TWO))
    assert set(contents(data, tmp_path / "scenes", "validation")) == set(below("seg_test/seg_test", *TWO))
    twice = [f"chest/{inner}{split}/{name}" for inner in ("", "chest/") for split in ("train", "test") for name in TWO]
    data = load_images(write_files(tmp_path / "xray", *twice))
    assert (len(data.train), len(data.validation)) == (4, 4)
    assert "1 a folder beside the splits (chest/chest)" in data.account


def test_folders_with_a_split_in_their_names_are_not_classes(tmp_path):
    """As Intel's scenes, and the traffic signs, whose test images have no classes."""
    write_files(tmp_path / "scenes", *below("seg_train/seg_train", *TWO), *below("seg_test/seg_test", *TWO))
    with pytest.raises(ValueError, match="pass --train_split seg_train --validation_split seg_test"):
        load_images(tmp_path / "scenes")
    signs = write_files(
        tmp_path / "signs", *below("Final_Training/Images", *TWO), *below("Final_Test/Images", "1.png", "2.png")
    )
    with pytest.raises(ValueError, match="pass --train_split Final_Training"):
        load_images(signs, on_bad_image="skip")
    assert load_images(signs, train_split="Final_Training", train_val_split=0.5).labels == ["cat", "dog"]


def test_a_table_of_another_name_beside_classes_is_named(tmp_path):
    """As in HAM10000, whose two folders of images are no classes: the table is to be given."""
    write_files(tmp_path, "part_1/1.png", "part_1/2.png", "part_2/3.png", "part_2/4.png")
    table = tmp_path / "HAM10000_metadata.csv"
    table.write_text("lesion_id,image_id,dx\n7,1,nv\n7,2,mel\n8,3,nv\n9,4,mel\n")
    account = load_images(tmp_path, train_val_split=0.5).account
    assert "1 not used as a table of labels unless given as --dataset (HAM10000_metadata.csv)" in account
    assert load_images(table, label_column="dx", train_val_split=0.5).labels == ["mel", "nv"]


def test_images_in_folders_of_a_class(tmp_path):
    write_files(tmp_path, "cat/front/1.png", "cat/back/1.png", "cat/2.png", "dog/a/b/c/1.png", "dog/2.png")
    data = load_images(tmp_path, train_val_split=0.4)
    assert data.labels == ["cat", "dog"] and len(data.train) + len(data.validation) == 5


def test_folders_of_something_else_beside_the_images(tmp_path):
    """As in Stanford's dogs."""
    write_files(tmp_path, *below("images/Images", *TWO))
    (tmp_path / "annotations" / "cat").mkdir(parents=True)
    (tmp_path / "annotations" / "cat" / "1").write_text("<annotation/>")
    assert load_images(tmp_path, train_val_split=0.5).labels == ["cat", "dog"]


def test_a_linked_class(tmp_path):
    write_files(tmp_path / "elsewhere", "1.png", "2.png")
    write_files(tmp_path / "root", "cat/1.png", "cat/2.png")
    (tmp_path / "root" / "dog").symlink_to(tmp_path / "elsewhere")
    assert load_images(tmp_path / "root", train_val_split=0.5).labels == ["cat", "dog"]


# What is left out


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("cat/notes.txt", r"1 not an image \(cat/notes.txt\)"),
        ("cat/3.png", r"1 empty \(cat/3.png\)"),
    ],
)
def test_what_is_not_an_image_obeys(tmp_path, name, sentence):
    write_files(tmp_path, *TWO)
    (tmp_path / name).write_text("text" if name.endswith("txt") else "")
    with pytest.raises(ValueError, match=rf"holds what cannot be used: {sentence}. Mend or remove it, or pass"):
        load_images(tmp_path, train_val_split=0.5)
    data = load_images(tmp_path, train_val_split=0.5, on_bad_image="skip")
    assert data.labels == ["cat", "dog"] and len(data.train) + len(data.validation) == 4
    assert data.account.startswith(f"{tmp_path}: 4 images of 2 classes; train 2, held out 2. Left out: 1 ")


def test_loose_images(tmp_path):
    write_files(tmp_path, *TWO, *(f"{number}.png" for number in range(5)))
    with pytest.raises(ValueError, match=r"5 in no class's folder \(0.png, 1.png, 2.png and 2 more\)"):
        load_images(tmp_path)
    assert load_images(tmp_path, train_val_split=0.5, on_bad_image="skip").labels == ["cat", "dog"]
    write_files(tmp_path / "divided", *below("train", *TWO), *below("val", *TWO), "logo.png")
    with pytest.raises(ValueError, match=r"1 in no split's folder \(logo.png\)"):
        load_images(tmp_path / "divided")


@pytest.mark.parametrize("files", [[], ["notes.txt"]])
def test_an_empty_class_is_an_error(tmp_path, files):
    write_files(tmp_path, *TWO)
    (tmp_path / "eel").mkdir()
    for name in files:
        (tmp_path / "eel" / name).write_text("text")
    for how in ["skip"] if files else ["skip", "error"]:
        with pytest.raises(ValueError, match="has no usable image of class 'eel' in train: add images, or remove"):
            load_images(tmp_path, on_bad_image=how)


@pytest.mark.parametrize("names", [(), ("notes.txt", "cat/table.doc")])
def test_folders_without_images(tmp_path, names):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text")
    others = r" \(2 not an image \(notes.txt, cat/table.doc\)\)" if names else ""
    with pytest.raises(ValueError, match=f"holds no images{others}: expected one folder of images for each class"):
        load_images(tmp_path)


def test_images_without_labels(tmp_path):
    write_files(tmp_path / "loose", "1.png", "2.png")
    write_files(tmp_path / "splits", "train/1.png", "test/1.png")
    for name in ("loose", "splits"):
        with pytest.raises(ValueError, match="has 2 images and no labels: expected one folder of images for each"):
            load_images(tmp_path / name)


def test_a_split_without_labels_is_not_used(tmp_path):
    """As the test images of a competition."""
    write_files(tmp_path, *below("train", *TWO), *(f"test/{number}.png" for number in range(9)))
    data = load_images(tmp_path, train_val_split=0.5)
    assert (len(data.train), len(data.validation)) == (2, 2)
    assert "1 without labels (test)" in data.account
    with pytest.raises(ValueError, match="--validation_split test: .* has train"):
        load_images(tmp_path, validation_split="test")


def test_a_split_whose_files_cannot_be_read_is_not_passed_over(tmp_path):
    write_files(tmp_path, *below("train", *TWO))
    (tmp_path / "val" / "cat").mkdir(parents=True)
    assert "1 a split without an image (val)" in load_images(tmp_path, train_val_split=0.5).account
    (tmp_path / "val" / "cat" / "1.doc").write_text("text")
    with pytest.raises(ValueError, match=r"1 a split without an image \(val\)"):
        load_images(tmp_path, train_val_split=0.5)


def test_a_stray_parquet_file(tmp_path):
    write_files(tmp_path, *TWO)
    (tmp_path / "stray.parquet").write_bytes(b"PAR1 is how it begins")
    assert load_images(tmp_path, train_val_split=0.5).labels == ["cat", "dog"]


# Streams and the fingerprint


def test_a_stream_of_a_folder(tmp_path):
    write_files(
        tmp_path, *(f"{split}/{label}/{n}.png" for split in ("train", "val") for label in "ab" for n in range(9))
    )
    data = load_images(tmp_path, streaming=True)
    assert data.labels == ["a", "b"] and data.train_images == 18
    rows = [(Path(row["image"]["path"]).relative_to(tmp_path).as_posix(), row["label"]) for row in data.train]
    assert sorted(rows) == sorted((f"train/{label}/{n}.png", i) for i, label in enumerate("ab") for n in range(9))
    assert {label for _, label in rows[:6]} == {0, 1}  # no class comes last


def test_the_fingerprint_is_of_names_sizes_and_labels(tmp_path):
    for copy in ("a", "b"):
        write_files(tmp_path / copy, *TWO)
    prints = [load_images(tmp_path / copy, train_val_split=0.5).fingerprint for copy in ("a", "b")]
    assert prints[0] == prints[1]  # wherever it lies
    (tmp_path / "b" / "cat" / "2.png").write_bytes(b"another size")
    assert load_images(tmp_path / "b", train_val_split=0.5).fingerprint != prints[0]
