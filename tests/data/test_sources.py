"""Where images and labels come from, and what is said when they do not."""

import gzip
import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features
from datasets import Image as ImageFeature
from PIL import Image

from sk_transformers.data import builtin
from sk_transformers.data.labeled import load_data
from sk_transformers.data.labels import check_labels_in_range
from sk_transformers.data.loaders import read_image
from sk_transformers.data.options import DataOptions
from sk_transformers.evaluation.metrics import TopKAccuracy

from ..support.image_files import load_images, write_files, write_images


def test_digits():
    data = load_images("digits")
    assert (len(data.train), len(data.validation)) == (1437, 360)
    assert data.id2label == {i: str(i) for i in range(10)}
    counts = np.bincount(data.validation["label"])
    assert counts.min() >= 34 and counts.max() <= 38  # each class in proportion
    from sklearn.datasets import load_digits

    digits = load_digits()
    known = {image.tobytes(): label for image, label in zip((digits.images * 255 / 16).astype("uint8"), digits.target)}
    for example in [*data.train.select(range(50)), *data.validation.select(range(50))]:
        pixels = np.asarray(read_image(example["image"]))[..., 0]
        assert known[pixels.tobytes()] == example["label"]


def test_the_split_depends_on_its_own_seed():
    labels = [load_images("digits", split_seed=seed).validation["label"] for seed in (0, 0, 1)]
    assert list(labels[0]) == list(labels[1]) != list(labels[2])


def test_image_folder(tmp_path):
    data = load_images(str(write_images(tmp_path)), train_val_split=0.3)
    assert data.labels == ["cat", "dog"]
    assert (len(data.train), len(data.validation)) == (14, 6)
    assert sorted(data.validation["label"]) == [0, 0, 0, 1, 1, 1]


def test_image_folder_with_a_validation_split(tmp_path):
    write_images(tmp_path / "train")
    write_images(tmp_path / "validation", images=3)
    data = load_images(tmp_path)
    assert (len(data.train), len(data.validation)) == (20, 6)


def test_folder_without_classes(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "image.png")
    with pytest.raises(ValueError, match="has 1 image and no labels: expected one folder of images for each class"):
        load_images(tmp_path)


def test_folder_with_one_class(tmp_path):
    with pytest.raises(ValueError, match=r"no labels among them|has one class"):
        load_images(str(write_images(tmp_path, classes=["cat"])))


def test_unknown_dataset():
    with pytest.raises(
        ValueError, match="--dataset org/nothing is no folder here, and could not be loaded from the Hub"
    ):
        load_images("org/nothing")


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (
            [0, 1, -1, -1],
            "2 images with label -1, which stands for an image without a label: expected 0 .ant. to 2 .cat.",
        ),
        ([0, 1, 3], "1 image with label 3: expected 0 .ant. to 2 .cat.[.]$"),
    ],
)
def test_labels_outside_the_range(labels, sentence):
    with pytest.raises(ValueError, match=f"some-set has {sentence}"):
        check_labels_in_range("some-set", labels, ["ant", "bee", "cat"])


def test_top_k_accuracy():
    metric = TopKAccuracy(keep_in_memory=True)
    metric.add_batch(predictions=[[1, 2, 3, 4, 5], [1, 2, 3, 4, 0]], references=[1, 0])
    metric.add_batch(predictions=[[9, 2, 3, 4, 5], [0, 2, 3, 4, 5]], references=[7, 0])
    assert metric.compute() == {"top1": 0.5, "top5": 0.75}


# Fashion-MNIST


@pytest.fixture
def fashion_mnist(tmp_path, monkeypatch):
    """Files like those of Debian's package, with a few images in them."""
    rng = np.random.default_rng(0)
    for prefix, count in (("train", 30), ("t10k", 10)):
        images = rng.integers(0, 255, (count, 28, 28), dtype=np.uint8)
        header = np.array([2051, count, 28, 28], dtype=">i4").tobytes()
        with gzip.open(tmp_path / f"{prefix}-images-idx3-ubyte.gz", "wb") as file:
            file.write(header + images.tobytes())
        with gzip.open(tmp_path / f"{prefix}-labels-idx1-ubyte.gz", "wb") as file:
            file.write(header[:8] + (np.arange(count) % 10).astype(np.uint8).tobytes())
        if prefix == "train":
            training_images = images
    monkeypatch.setattr(builtin, "FASHION_MNIST", tmp_path)
    return training_images


def test_fashion_mnist(fashion_mnist):
    data = load_images("fashion-mnist")
    assert (len(data.train), len(data.validation), data.labels[9]) == (30, 10, "ankle boot")
    assert np.array_equal(np.asarray(read_image(data.train[7]["image"]))[..., 0], fashion_mnist[7])
    assert list(data.train["label"])[:12] == [*range(10), 0, 1]


def test_fashion_mnist_that_is_not_installed(monkeypatch, tmp_path):
    monkeypatch.setattr(builtin, "FASHION_MNIST", tmp_path / "nowhere")
    with pytest.raises(ValueError, match="install it: apt-get install dataset-fashion-mnist"):
        load_images("fashion-mnist")


# Columns, splits and samples


def save_parquet(file, images, **columns):
    """Images as bytes, as anybody may have stored them, beside columns of labels."""
    content = []
    for value in range(images):
        buffer = io.BytesIO()
        Image.new("L", (4, 4), value).save(buffer, format="PNG")
        content.append(buffer.getvalue())
    file.parent.mkdir(parents=True, exist_ok=True)
    Dataset.from_dict({"photo": content, **columns}).to_parquet(str(file))
    return file


def test_columns_by_name(tmp_path):
    file = save_parquet(tmp_path / "set.parquet", 8, animal=["b", "a"] * 4, place=[1, 2, 3, 4] * 2)
    with pytest.raises(ValueError, match="has columns photo, animal, place and no images among them: name it with"):
        load_images(file)
    with pytest.raises(ValueError, match="and no 'colour' among them: name it with --label_column"):
        load_images(file, image_column="photo", label_column="colour")
    data = load_images(file, train_val_split=0.25, image_column="photo", label_column="animal")
    assert data.labels == ["a", "b"] and len(data.validation) == 2
    for row in data.train:
        value = read_image(row["image"]).getpixel((0, 0))[0]
        assert row["label"] == 1 - value % 2
    data = load_images(file, train_val_split=0.5, image_column="photo", label_column="place")
    assert data.labels == ["1", "2", "3", "4"]


def test_validation_labels_are_matched_by_name(tmp_path):
    """Numbers without names, and a validation split that lacks a class."""
    save_parquet(tmp_path / "train-0.parquet", 6, label=[10, 2, 33, 10, 2, 33])
    save_parquet(tmp_path / "validation-0.parquet", 2, label=[33, 2])
    data = load_images(tmp_path, image_column="photo")
    assert data.labels == ["10", "2", "33"] and list(data.validation["label"]) == [2, 1]
    save_parquet(tmp_path / "validation-0.parquet", 2, label=[33, 4])
    with pytest.raises(ValueError, match="has label '4' for validation, which no training image has"):
        load_images(tmp_path, image_column="photo")


def test_folders_whose_splits_have_other_classes(tmp_path):
    write_images(tmp_path / "train", classes=("ant", "bee", "cat"), images=3)
    write_images(tmp_path / "validation", classes=("cat",), images=2)
    data = load_images(tmp_path)
    assert data.labels == ["ant", "bee", "cat"] and list(data.validation["label"]) == [2, 2]


def test_splits_by_name(tmp_path):
    write_images(tmp_path / "train")
    write_images(tmp_path / "test", images=3)
    assert len(load_images(tmp_path, validation_split="test").validation) == 6
    with pytest.raises(ValueError, match="--validation_split dev: .* has test, train"):
        load_images(tmp_path, validation_split="dev")


def test_a_part_of_the_training_split_is_held_out_beside_a_test_split(tmp_path):
    write_images(tmp_path / "train", images=10)
    write_images(tmp_path / "test", images=3)
    data = load_images(tmp_path, validation_split="train", train_val_split=0.2)
    assert (len(data.train), len(data.validation)) == (16, 4)
    assert not set(map(str, data.train["image"][:])) & set(map(str, data.validation["image"][:]))
    everything = load_data(DataOptions(str(tmp_path), validation_split="train"), hold_out=False)
    assert len(everything.validation) == 20


def test_samples_are_chosen_at_random():
    data = load_images("digits", max_train_samples=100, max_eval_samples=50)
    assert (len(data.train), len(data.validation), data.train_images) == (100, 50, 100)
    assert len(set(data.train["label"])) == 10
    again = load_images("digits", max_train_samples=100)
    assert list(again.train["label"]) == list(data.train["label"])


def test_too_few_images_to_hold_some_out(tmp_path):
    write_images(tmp_path / "few", images=2)
    with pytest.raises(ValueError, match="has 4 images of 2 classes, and holding out 0.2 of them leaves some class"):
        load_images(tmp_path / "few")
    write_images(tmp_path / "more", images=20)
    write_files(tmp_path / "more", "ray/1.png", "eel/1.png")
    with pytest.raises(ValueError, match="has one image of class 'eel', 'ray', which cannot be both trained on"):
        load_images(tmp_path / "more")


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (lambda folder: write_images(folder), "has no validation split, and a stream cannot be divided"),
        (lambda folder: save_parquet(folder / "train.parquet", 4, label=[0, 1] * 2), "no validation split"),
    ],
)
def test_streams_need_a_validation_split(tmp_path, write, sentence):
    write(tmp_path)
    with pytest.raises(ValueError, match=sentence):
        load_images(tmp_path, streaming=True, image_column=None)


def test_streams_need_names_of_classes(tmp_path):
    for split in ("train", "validation"):
        save_parquet(tmp_path / f"{split}.parquet", 4, label=[0, 1] * 2)
    with pytest.raises(ValueError, match="without names of classes, which only reading all of it would tell"):
        load_images(tmp_path, streaming=True, image_column="photo")
    with pytest.raises(ValueError, match="--streaming: digits is small and in memory"):
        load_images("digits", streaming=True)


def test_a_file_of_another_kind(tmp_path):
    (tmp_path / "set.zip").write_text("images")
    with pytest.raises(ValueError, match="set.zip is a file, expected a folder, a parquet file, a table of labels"):
        load_images(tmp_path / "set.zip")


# Parquet


def test_parquet_files_by_split_in_a_folder_with_other_files(tmp_path):
    root = tmp_path / "photos [2024]"
    save_parquet(root / "data" / "train-00000-of-00001.parquet", 6, label=["a", "b"] * 3)
    save_parquet(root / "data" / "test-00000-of-00001.parquet", 2, label=["a", "b"])
    write_files(root, "assets/sample.png")
    (root / "README.md").write_text("a data set")
    (root / "stray.parquet").write_bytes(b"PAR1 is how it begins")
    data = load_images(root, image_column="photo")
    assert (len(data.train), len(data.validation), data.labels) == (6, 2, ["a", "b"])


def test_labels_of_parquet_stay_the_text_that_they_are(tmp_path):
    labels = ["NA", "None", "null", "007", "7"]
    file = save_parquet(tmp_path / "set.parquet", 10, label=labels * 2)
    data = load_images(file, image_column="photo", train_val_split=0.5)
    assert data.labels == sorted(labels)
    for row in [*data.train, *data.validation]:
        assert data.labels[row["label"]] == labels[read_image(row["image"]).getpixel((0, 0))[0] % 5]


@pytest.mark.parametrize(("column", "what"), [("photo", "an image"), ("label", "a label")])
def test_missing_cells_obey_and_are_counted(tmp_path, column, what):
    file = save_parquet(tmp_path / "set.parquet", 10, label=["a", "b"] * 5)
    table = pq.read_table(file)
    cells = table[column].to_pylist()
    cells[3] = cells[4] = None
    table = table.set_column(table.schema.get_field_index(column), column, pa.array(cells, table[column].type))
    pq.write_table(table, file)
    with pytest.raises(ValueError, match=rf"holds what cannot be used: 2 without {what} \(row 3, row 4\)"):
        load_images(file, image_column="photo")
    data = load_images(file, image_column="photo", on_bad_image="skip")
    assert len(data.train) + len(data.validation) == 8 and data.labels == ["a", "b"]
    assert f"Left out: 2 without {what} (row 3, row 4)." in data.account
    shown = {read_image(row["image"]).getpixel((0, 0))[0] for row in [*data.train, *data.validation]}
    assert shown == set(range(10)) - {3, 4}


def test_a_class_that_has_no_images_label(tmp_path):
    features = Features({"image": ImageFeature(), "label": ClassLabel(names=["ant", "bee"])})
    for label, sentence in [(-1, "5 images with label -1, which stands for"), (None, "5 without a label")]:
        rows = {"image": [Image.new("L", (4, 4))] * 10, "label": [0, 1, 0, 1, 0] + [label] * 5}
        Dataset.from_dict(rows, features).to_parquet(str(tmp_path / "set.parquet"))
        with pytest.raises(ValueError, match=sentence):
            load_images(tmp_path / "set.parquet")


def test_options_that_the_data_does_not_have():
    with pytest.raises(ValueError, match="--label_column kind: digits is built in, leave the option out"):
        load_images("digits", label_column="kind")


@pytest.mark.parametrize("part", [0.2, 0.31])
def test_the_division_is_that_of_datasets(part):
    data, whole = load_images("digits", train_val_split=part, split_seed=3), builtin.load_digits()["train"]
    expected = whole.train_test_split(part, seed=3, stratify_by_column="label")
    for images, of_datasets in ((data.train, expected["train"]), (data.validation, expected["test"])):
        assert [image["bytes"] for image in images["image"]] == [image["bytes"] for image in of_datasets["image"]]
