"""Several labels an image: every form of a table and of a data set, what is refused, and what is held out."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image, List, Value

from sk_transformers.data.labels import number_labels
from sk_transformers.data.loaders import collate, eval_loader, is_readable
from sk_transformers.data.multi_label import SEVERAL_LABELS, hold_out_by_rarest_label, read_several_labels

from ..support.image_files import load_images, write_files, write_images

FILES = tuple(f"{number}.jpg" for number in range(8))
LABELS = [["cat"], ["cat", "dog"], [], ["dog", "eel"]] * 2


def read_labels(root, **options):
    """The names of the labels of each image, by its file's name, of both parts of a set that is divided."""
    options = {"train_val_split": 0.5, "problem_type": "multi_label", **options}
    data = load_images(root, **options)
    found = {}
    for part in (data.train, data.validation):
        for image, numbers in zip(part["image"], part["label"]):
            found[image["path"].rpartition("/")[2]] = sorted(data.labels[number] for number in numbers)
    return data, found


@pytest.mark.parametrize("form", ["|", ";", ",", " ", "python", "json", "jsonl", "parquet", "0 and 1", "0.0 and 1.0"])
def test_forms_of_tables(tmp_path, form):
    write_files(tmp_path, *FILES)
    file = tmp_path / "labels.csv"
    if form in ("jsonl", "parquet"):
        file = tmp_path / f"labels.{form}"
        table = pd.DataFrame({"file_name": FILES, "label": LABELS})
        table.to_parquet(file) if form == "parquet" else table.to_json(file, orient="records", lines=True)
    elif form.startswith("0"):
        kind = float if "." in form else int
        columns = {name: [kind(name in labels) for labels in LABELS] for name in ("eel", "cat", "dog")}
        pd.DataFrame({"image": [name.removesuffix(".jpg") for name in FILES], "age": range(8), **columns}).to_csv(file)
    else:
        write = {"python": str, "json": json.dumps}.get(form, form.join)
        pd.DataFrame({"file_name": FILES, "label": [write(labels) for labels in LABELS]}).to_csv(file, index=False)
    data, found = read_labels(tmp_path)
    assert found == dict(zip(FILES, LABELS))
    assert data.labels == ["cat", "dog", "eel"] and data.problem_type == "multi_label"
    assert "8 images of 3 classes, 2 of none" in data.account
    assert ("1 a column of labels.csv that is not 0 or 1 (age)" in data.account) == form.startswith("0")


def test_one_separator_for_a_column():
    assert read_several_labels("it", ["traffic light|car", "traffic light", " a , b ", ""]) == [
        ["traffic light", "car"], ["traffic light"], ["a , b"], [],
    ]  # fmt: skip
    assert read_several_labels("it", ["a b", "b  a a", None, ["x y", "x y"]]) == [["a", "b"], ["b", "a"], None, ["x y"]]
    with pytest.raises(ValueError, match=r"it has \[\[a\], b\], expected a list of names"):
        read_several_labels("it", ["[[a], b]"])
    with pytest.raises(ValueError, match=r"it has \['a' 'b'\], which is not a list of labels"):
        read_several_labels("it", ["['a' 'b']"])


def stored(images, labels, kind):
    return Dataset.from_dict({"image": images, "label": labels}, Features({"image": Image(), "label": kind}))


@pytest.mark.parametrize(
    "kind", [List(ClassLabel(names=["eel", "dog", "cat"])), List(Value("string")), Value("string")]
)
def test_columns_of_parquet(tmp_path, kind):
    write_files(tmp_path, *FILES)
    images = [{"path": name, "bytes": (tmp_path / name).read_bytes()} for name in FILES]
    labels = [";".join(names) for names in LABELS] if isinstance(kind, Value) else LABELS
    stored(images, labels, kind).to_parquet(str(tmp_path / "train.parquet"))
    # another order of classes, and one of them missing, in validation
    if isinstance(kind, List) and isinstance(kind.feature, ClassLabel):
        kind = List(ClassLabel(names=["cat", "dog"]))
    labels = ["cat;dog", "dog"] if isinstance(kind, Value) else [["cat", "dog"], ["dog"]]
    stored(images[:2], labels, kind).to_parquet(str(tmp_path / "test.parquet"))
    data = load_images(tmp_path, problem_type="multi_label")
    for part, expected in ((data.train, LABELS), (data.validation, [["cat", "dog"], ["dog"]])):
        assert [[data.labels[number] for number in numbers] for numbers in part["label"][:]] == expected
    assert data.class_counts == [LABELS.count(["cat"]) * 2 if name == "cat" else 4 if name == "dog" else 2
                                 for name in data.labels]  # fmt: skip


def test_columns_of_classes_in_parquet(tmp_path):
    write_files(tmp_path, *FILES)
    images = [{"path": name, "bytes": (tmp_path / name).read_bytes()} for name in FILES]
    classes = {"eel": [int("eel" in labels) for labels in LABELS], "cat": ["cat" in labels for labels in LABELS],
               "dog": [float("dog" in labels) for labels in LABELS]}  # fmt: skip
    kinds = {"id": Value("int64"), "eel": Value("int8"), "cat": Value("bool"), "dog": Value("float32")}
    columns = {"image": images, "id": range(8), **classes}
    Dataset.from_dict(columns, Features({"image": Image(), **kinds})).to_parquet(str(tmp_path / "train.parquet"))
    data, found = read_labels(tmp_path / "train.parquet")
    assert found == dict(zip(FILES, LABELS)) and data.labels == ["cat", "dog", "eel"]

    columns["dog"] = [*classes["dog"][:7], None]
    Dataset.from_dict(columns, Features({"image": Image(), **kinds})).to_parquet(str(tmp_path / "train.parquet"))
    with pytest.raises(ValueError, match=r"1 without a label \(row 7\)"):
        read_labels(tmp_path / "train.parquet")
    with pytest.raises(ValueError, match="has columns image, id, eel, cat, dog and no labels among them"):
        load_images(tmp_path / "train.parquet")


def test_a_missing_list_obeys(tmp_path):
    write_files(tmp_path, *FILES)
    images = [{"path": name, "bytes": (tmp_path / name).read_bytes()} for name in FILES]
    stored(images, [*LABELS[:7], None], List(Value("string"))).to_parquet(str(tmp_path / "train.parquet"))
    with pytest.raises(ValueError, match=r"1 without a label \(row 7\)"):
        read_labels(tmp_path / "train.parquet")
    data = load_images(tmp_path / "train.parquet", problem_type="multi_label", train_val_split=0.5, on_bad_image="skip")
    assert len(data.train) + len(data.validation) == 7 and "Left out: 1 without a label (row 7)" in data.account


@pytest.mark.parametrize("missing", ["", None])
def test_an_empty_text_is_a_missing_label_where_there_is_one_label(tmp_path, missing):
    write_files(tmp_path, *FILES)
    images = [{"path": name, "bytes": (tmp_path / name).read_bytes()} for name in FILES]
    stored(images, [*"abababa", missing], Value("string")).to_parquet(str(tmp_path / "train.parquet"))
    with pytest.raises(ValueError, match=r"1 without a label \(row 7\)"):
        load_images(tmp_path / "train.parquet")


def test_a_column_for_each_class_tells_one_label_too(tmp_path):
    """As of ISIC 2019."""
    write_files(tmp_path, *FILES)
    table = pd.DataFrame({"image": FILES, "MEL": [1.0, 0.0] * 4, "NV": [0.0, 1.0] * 4})
    table.to_csv(tmp_path / "ground_truth.csv", index=False)
    data = load_images(tmp_path / "ground_truth.csv", train_val_split=0.5)
    assert data.labels == ["MEL", "NV"] and sorted(data.train["label"]) == [0, 0, 1, 1]
    table.loc[2, "NV"] = 1.0
    table.to_csv(tmp_path / "ground_truth.csv", index=False)
    with pytest.raises(ValueError, match=r"has several labels an image, such as \['MEL', 'NV'\]: expected one class"):
        load_images(tmp_path / "ground_truth.csv")


def test_what_has_one_label_is_refused(tmp_path):
    write_images(tmp_path / "folders")
    with pytest.raises(ValueError, match=r"--problem_type multi_label: the folders of .*folders are classes"):
        load_images(tmp_path / "folders", problem_type="multi_label")
    with pytest.raises(ValueError, match="--problem_type multi_label: digits has one class for each image"):
        load_images("digits", problem_type="multi_label")
    with pytest.raises(ValueError, match="--streaming reads one label an image"):
        load_images(tmp_path / "folders", problem_type="multi_label", streaming=True)


def with_labels(lists):
    labels = sorted({label for names in lists for label in names})
    data = Dataset.from_dict({"image": [""] * len(lists), "label": lists})
    return number_labels("it", data, SEVERAL_LABELS)[0], labels


def test_what_is_held_out_has_every_label_in_proportion():
    rng = np.random.default_rng(0)
    shares = {"common": 0.6, "usual": 0.3, "rare": 0.05, "rarest": 0.01}
    lists = [[name for name, share in shares.items() if rng.random() < share] for _ in range(2000)]
    data, labels = with_labels(lists)
    train, held_out = hold_out_by_rarest_label("it", data, labels, 0.2, 0)
    assert sorted([*train, *held_out]) == list(range(2000)) and len(held_out) == pytest.approx(400, abs=2)
    for name in labels:
        images = sum(name in names for names in lists)
        tolerance = 1 if name == "rarest" else 0.03 * images + 1
        assert sum(name in lists[row] for row in held_out) == pytest.approx(0.2 * images, abs=tolerance)
    again = hold_out_by_rarest_label("it", data, labels, 0.2, 0)
    other = hold_out_by_rarest_label("it", data, labels, 0.2, 1)
    assert held_out.tolist() == again[1].tolist() != other[1].tolist()


def test_a_label_of_one_image_is_trained_on():
    data, labels = with_labels([["a"]] * 10 + [["a", "b"]])
    train, _ = hold_out_by_rarest_label("it", data, labels, 0.5, 0)
    assert 10 in train
    data, labels = with_labels([["a"], ["b"]])
    with pytest.raises(ValueError, match="it has 2 images, and holding out 0.2 of them takes none"):
        hold_out_by_rarest_label("it", data, labels, 0.2, 0)


def test_targets_of_batches(tmp_path):
    write_files(tmp_path, *FILES)
    (tmp_path / "3.jpg").write_bytes(b"\xff\xd8\xff damaged")
    rows = [{"path": str(tmp_path / name), "bytes": None} for name in FILES[:4]]
    data, _ = number_labels("it", stored(rows, LABELS[:4], List(Value("string"))), SEVERAL_LABELS)
    data = data.cast_column("image", Image(decode=False))
    (batch,) = eval_loader(data, lambda image: torch.zeros(3, 4, 4), 4, skip_unreadable=True)
    assert batch["labels"].tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 0], [-100, -100, -100]]
    assert batch["labels"].dtype == torch.float32
    assert is_readable(batch["labels"]).tolist() == [True, True, True, False]
    assert is_readable(torch.tensor([0, -100])).tolist() == [True, False]
    one = collate([{"pixel_values": torch.zeros(3, 4, 4), "label": 3}])
    assert one is not None and one["labels"].tolist() == [3] and one["labels"].dtype == torch.int64
