"""Labels in tables beside images, as people and programs write them."""

import json
from pathlib import Path

import pandas as pd
import pytest
from datasets import Dataset, Image

from sk_transformers.data.tables import read_table

from ..support.image_files import load_images, write_files

FILES = ("1.jpg", "2.jpg", "3.jpg", "4.jpg")
LABELS = ("cat", "dog", "cat", "dog")


def read_labels(root, **options):
    """The label of each image, by its path below the root, of both parts of a set that is divided in halves."""
    data = load_images(root, train_val_split=0.5, **options)
    return {
        Path(image["path"]).relative_to(root if root.is_dir() else root.parent).as_posix(): data.labels[label]
        for part in (data.train, data.validation)
        for image, label in zip(part["image"], part["label"])
    }


def lines(header, names, labels, separator=","):
    return "\n".join([separator.join(header), *(separator.join(row) for row in zip(names, labels))]) + "\n"


@pytest.mark.parametrize("folder", ["", "images/", "images/all/"])
@pytest.mark.parametrize("kind", ["metadata.csv", "metadata.jsonl", "metadata.parquet", "labels.csv", "Labels.TSV"])
def test_kinds_of_tables(tmp_path, kind, folder):
    write_files(tmp_path, *(folder + name for name in FILES))
    names = [folder + name for name in FILES]
    file = tmp_path / kind
    if kind.endswith("jsonl"):
        file.write_text("".join(json.dumps({"file_name": n, "label": v}) + "\n" for n, v in zip(names, LABELS)))
    elif kind.endswith("parquet"):
        pd.DataFrame({"file_name": names, "label": LABELS}).to_parquet(file)
    else:
        file.write_text(lines(["file_name", "label"], names, LABELS, "\t" if kind.endswith("TSV") else ","))
    assert read_labels(tmp_path) == dict(zip(names, LABELS))
    assert read_labels(file) == dict(zip(names, LABELS)) if not kind.endswith("parquet") else True


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1"])
def test_separators_and_encodings(tmp_path, separator, encoding):
    labels = ["Zürich, groß", "Łódź; 猫"] if encoding != "latin-1" else ["Zürich, groß", "façade; ñ"]
    write_files(tmp_path, *FILES)
    quoted = [f'"{label}"' for label in labels * 2]
    (tmp_path / "metadata.csv").write_bytes(lines(["file_name", "label"], FILES, quoted, separator).encode(encoding))
    assert read_labels(tmp_path) == dict(zip(FILES, labels * 2))


def test_a_table_that_cannot_be_read_is_named(tmp_path):
    write_files(tmp_path, *FILES)
    file = tmp_path / "metadata.csv"
    for content, reason in [
        (
            "file_name,label\n1.jpg,猫 \n".encode("shift-jis") + b"\x81\x8d\x9d",
            "its text is not UTF-8, UTF-16 or Latin-1",
        ),
        (b"file_name,label\n1.jpg,cat,dog\n", "row 2 has 3 fields, and the header 2"),
    ]:
        file.write_bytes(content)
        with pytest.raises(ValueError, match=f"metadata.csv cannot be read as a table: {reason}"):
            load_images(tmp_path)
    file.write_bytes(b"file_name,label\n")
    with pytest.raises(ValueError, match="metadata.csv is an empty table: expected a line for each image"):
        load_images(tmp_path)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_labels_stay_the_text_that_they_are(tmp_path, kind):
    labels = ["NA", "None", "null", "007", "7", "nan", "true", "1e3"]
    names = [f"{number}.jpg" for number in range(16)]
    write_files(tmp_path, *names)
    table = pd.DataFrame({"file_name": names, "label": labels * 2})
    file = tmp_path / f"metadata.{kind}"
    if kind == "csv":
        table.to_csv(file)  # with a column of row numbers, which has no name
    elif kind == "jsonl":
        table.to_json(file, orient="records", lines=True)
    else:
        table.to_parquet(file)
    assert read_labels(tmp_path) == dict(zip(names, labels * 2))


def test_numbers_are_whole_where_missing_ones_made_floats_of_them(tmp_path):
    file = tmp_path / "labels.parquet"
    pd.DataFrame({"label": [1.0, None, 2.5], "flag": [True, None, False]}).to_parquet(file)
    assert read_table(file) == {"label": ["1", None, "2.5"], "flag": ["True", None, "False"]}


def test_the_tables_of_competitions(tmp_path):
    """Names without endings, and test images that have no labels, as of Kaggle's dog breeds."""
    write_files(tmp_path / "dogs", *(f"train/{name}" for name in FILES), "test/5.jpg", "test/6.jpg")
    names = [name.removesuffix(".jpg") for name in FILES]
    (tmp_path / "dogs" / "labels.csv").write_text(lines(["id", "breed"], names, LABELS))
    (tmp_path / "dogs" / "sample_submission.csv").write_text("id,cat,dog\n5,0.5,0.5\n")
    assert read_labels(tmp_path / "dogs") == {f"train/{name}": label for name, label in zip(FILES, LABELS)}
    assert (
        "2 not listed in labels.csv (test/5.jpg, test/6.jpg)"
        in load_images(tmp_path / "dogs", train_val_split=0.5).account
    )

    write_files(tmp_path / "leaves", *(f"train_images/{name}" for name in FILES), "test_images/5.jpg")
    (tmp_path / "leaves" / "train.csv").write_text(lines(["image_id", "label"], FILES, LABELS))
    (tmp_path / "leaves" / "test.csv").write_text("image_id\n5.jpg\n")
    assert read_labels(tmp_path / "leaves") == {f"train_images/{name}": label for name, label in zip(FILES, LABELS)}


@pytest.mark.parametrize(
    "prefix",
    ["C:\\Users\\me\\pets\\images\\", "/home/me/pets/images/", "images\\", "./images/", "images/", "pets/images/"],
)
def test_paths_of_another_machine(tmp_path, prefix):
    root = write_files(tmp_path / "pets", *(f"images/{name}" for name in FILES), "other/1.jpg")
    (root / "metadata.csv").write_text(lines(["path", "label"], [prefix + name for name in FILES], LABELS))
    assert read_labels(root) == {f"images/{name}": label for name, label in zip(FILES, LABELS)}


def test_absolute_paths(tmp_path):
    write_files(tmp_path / "elsewhere", *FILES)
    write_files(tmp_path / "root", "5.jpg")
    names = [str(tmp_path / "elsewhere" / name) for name in FILES]
    (tmp_path / "root" / "metadata.csv").write_text(lines(["file_name", "label"], names, LABELS))
    data = load_images(tmp_path / "root", train_val_split=0.5)
    assert sorted(image["path"] for part in (data.train, data.validation) for image in part["image"]) == names


def test_a_name_that_may_be_two_images_is_not_guessed(tmp_path):
    write_files(tmp_path, "a/1.jpg", "b/1.jpg", "a/2.jpg")
    (tmp_path / "metadata.csv").write_text(lines(["file_name", "label"], ["1.jpg", "2.jpg"], "xy"))
    with pytest.raises(ValueError, match=r"1 listed in metadata.csv and the name of 2 images \(1.jpg\)"):
        load_images(tmp_path)
    (tmp_path / "metadata.csv").write_text(lines(["file_name", "label"], ["c/2.jpg"] * 2, "xy"))
    with pytest.raises(ValueError, match=r"2 listed in metadata.csv and not there \(c/2.jpg, c/2.jpg\)"):
        load_images(tmp_path)


def test_rows_that_cannot_be_used_obey(tmp_path):
    write_files(tmp_path, *FILES, "5.jpg", "6.jpg")
    (tmp_path / "metadata.csv").write_text(
        lines(["file_name", "label"], [*FILES, "5.jpg", "7.jpg"], [*LABELS, "", "dog"])
    )
    with pytest.raises(ValueError, match=r"1 without a label in metadata.csv \(5.jpg\); 1 listed in"):
        load_images(tmp_path)
    data = load_images(tmp_path, train_val_split=0.5, on_bad_image="skip")
    assert len(data.train) + len(data.validation) == 4
    for sentence in (
        "1 without a label in metadata.csv (5.jpg)",
        "not there (7.jpg)",
        "1 not listed in metadata.csv (6",
    ):
        assert sentence in data.account


def test_an_image_with_two_labels(tmp_path):
    write_files(tmp_path, *FILES)
    (tmp_path / "metadata.csv").write_text(lines(["file_name", "label"], [*FILES, "1.jpg"], [*LABELS, "dog"]))
    with pytest.raises(ValueError, match="metadata.csv gives 1.jpg two labels, 'cat' and 'dog'"):
        load_images(tmp_path)


@pytest.mark.parametrize("form", ["metadata.jsonl", "metadata.parquet", "images.parquet"])
def test_several_labels_an_image(tmp_path, form):
    """Lists of labels are refused as such, not as what happens to go wrong with them later."""
    write_files(tmp_path, *FILES)
    labels = [["cat", "dog"], ["cat"], [], ["dog"]]
    if form == "metadata.jsonl":
        rows = [{"file_name": name, "label": label} for name, label in zip(FILES, labels)]
        (tmp_path / form).write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif form == "metadata.parquet":
        pd.DataFrame({"file_name": FILES, "label": labels}).to_parquet(tmp_path / form)
    else:
        content = [(tmp_path / name).read_bytes() for name in FILES]
        images = Dataset.from_dict({"image": content, "label": labels}).cast_column("image", Image())
        images.to_parquet(str(tmp_path / form))
    with pytest.raises(ValueError, match=r"has several labels an image, such as \['cat', 'dog'\]: expected one class"):
        load_images(tmp_path / form if form == "images.parquet" else tmp_path)


def test_columns_by_name(tmp_path):
    write_files(tmp_path, *FILES)
    table = {"thumb": FILES, "photo": FILES[::-1], "animal": LABELS, "place": ["in", "in", "out", "out"]}
    pd.DataFrame(table).to_csv(tmp_path / "metadata.csv", index=False)
    with pytest.raises(ValueError, match="has columns thumb, photo, animal, place: name the one of labels with"):
        load_images(tmp_path)
    assert read_labels(tmp_path, label_column="place") == dict(zip(FILES, table["place"]))
    assert read_labels(tmp_path, label_column="place", file_column="photo") == dict(zip(FILES[::-1], table["place"]))
    for option in ("label_column", "file_column"):
        with pytest.raises(ValueError, match=f"--{option} colour: .*metadata.csv has columns thumb, photo"):
            load_images(tmp_path, **{"label_column": "place", option: "colour"})
    with pytest.raises(ValueError, match="--image_column photo: .* is a folder of images, whose table has"):
        load_images(tmp_path, image_column="photo", label_column="place")


def test_no_column_names_images(tmp_path):
    write_files(tmp_path, *FILES)
    (tmp_path / "metadata.csv").write_text("number,kind\n12,cat\n")
    with pytest.raises(ValueError, match=r"columns number \(12\), kind \(cat\), and none of them names images"):
        load_images(tmp_path)


def test_captions_beside_class_folders(tmp_path):
    names = [f"{label}/{name}" for label in ("cat", "dog") for name in FILES[:2]]
    write_files(tmp_path, *names)
    captions = [f"picture {number}" for number in range(4)]
    (tmp_path / "metadata.csv").write_text(lines(["file_name", "text"], names, captions))
    assert read_labels(tmp_path) == {name: name[:3] for name in names}
    assert "not a table of labels of these images (metadata.csv)" in load_images(tmp_path, train_val_split=0.5).account
    pd.DataFrame({"file_name": names, "kind": [*"abba"]}).to_csv(tmp_path / "metadata.csv", index=False)
    assert read_labels(tmp_path, label_column="kind") == dict(zip(names, "abba"))
    (tmp_path / "metadata.csv").unlink()
    with pytest.raises(ValueError, match="--label_column and --file_column are of tables, and .* has none beside its"):
        load_images(tmp_path, label_column="kind")


def test_splits_of_tables(tmp_path):
    """A table for each split, in its folder or beside it, and one table with a column that tells them."""
    for way in ("within", "beside", "column"):
        root = write_files(tmp_path / way, *(f"{split}/{name}" for split in ("train", "val") for name in FILES))
        for split in ("train", "val"):
            table = {"within": f"{split}/metadata.csv", "beside": f"{split}.csv"}.get(way)
            if table is not None:
                (root / table).write_text(lines(["file_name", "label"], FILES, LABELS))
        if way == "column":
            names = [f"{split}/{name}" for split in ("train", "val") for name in FILES]
            table = {"file_name": names, "label": LABELS * 2, "split": ["val"] * 4 + ["train"] * 4}
            pd.DataFrame(table).to_csv(root / "metadata.csv", index=False)
        data = load_images(root)
        for split, images in (("train", data.train), ("val", data.validation)):
            found = {Path(image["path"]).relative_to(root).as_posix(): label
                     for image, label in zip(images["image"], images["label"])}  # fmt: skip
            own = split if way != "column" else {"train": "val", "val": "train"}[split]
            assert found == {f"{own}/{name}": int(label == "dog") for name, label in zip(FILES, LABELS)}
