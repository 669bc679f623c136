"""Where images and labels come from, and what is said when they do not."""

import gzip
import io

import numpy as np
import pytest
from datasets import Dataset
from PIL import Image

from sk_transformers.data import sources
from sk_transformers.data.loaders import read_image
from sk_transformers.data.sources import check_labels_in_range, load_image_data
from sk_transformers.evaluation.metrics import TopKAccuracy

from ..support.image_files import write_images


def test_digits():
    data = load_image_data("digits")
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
    labels = [load_image_data("digits", split_seed=seed).validation["label"] for seed in (0, 0, 1)]
    assert list(labels[0]) == list(labels[1]) != list(labels[2])


def test_image_folder(tmp_path):
    data = load_image_data(str(write_images(tmp_path)), train_val_split=0.3)
    assert data.labels == ["cat", "dog"]
    assert (len(data.train), len(data.validation)) == (14, 6)
    assert sorted(data.validation["label"]) == [0, 0, 0, 1, 1, 1]


def test_image_folder_with_a_validation_split(tmp_path):
    write_images(tmp_path / "train")
    write_images(tmp_path / "validation", images=3)
    data = load_image_data(str(tmp_path))
    assert (len(data.train), len(data.validation)) == (20, 6)


def test_folder_without_classes(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "image.png")
    with pytest.raises(ValueError, match="has no folders: expected one folder of images for each class"):
        load_image_data(str(tmp_path))


def test_folder_with_one_class(tmp_path):
    with pytest.raises(ValueError, match=r"no labels among them|has one class"):
        load_image_data(str(write_images(tmp_path, classes=["cat"])))


def test_unknown_dataset():
    with pytest.raises(
        ValueError, match="--dataset org/nothing is no folder here, and could not be loaded from the Hub"
    ):
        load_image_data("org/nothing")


@pytest.mark.parametrize("label", [-1, 3, None])
def test_labels_outside_the_range(label):
    with pytest.raises(ValueError, match=f"some-set has label {label}, expected classes 0 to 2"):
        check_labels_in_range("some-set", [0, 1, label], 3)


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
    monkeypatch.setattr(sources, "FASHION_MNIST", tmp_path)
    return training_images


def test_fashion_mnist(fashion_mnist):
    data = load_image_data("fashion-mnist")
    assert (len(data.train), len(data.validation), data.labels[9]) == (30, 10, "ankle boot")
    assert np.array_equal(np.asarray(read_image(data.train[7]["image"]))[..., 0], fashion_mnist[7])
    assert list(data.train["label"])[:12] == [*range(10), 0, 1]


def test_fashion_mnist_that_is_not_installed(monkeypatch, tmp_path):
    monkeypatch.setattr(sources, "FASHION_MNIST", tmp_path / "nowhere")
    with pytest.raises(ValueError, match="install it: apt-get install dataset-fashion-mnist"):
        load_image_data("fashion-mnist")


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
        load_image_data(str(file))
    with pytest.raises(ValueError, match="and no 'colour' among them: name it with --label_column"):
        load_image_data(str(file), image_column="photo", label_column="colour")
    data = load_image_data(str(file), 0.25, image_column="photo", label_column="animal")
    assert data.labels == ["a", "b"] and len(data.validation) == 2
    for row in data.train:
        value = read_image(row["image"]).getpixel((0, 0))[0]
        assert row["label"] == 1 - value % 2
    assert load_image_data(str(file), 0.5, image_column="photo", label_column="place").labels == ["1", "2", "3", "4"]


def test_validation_labels_are_matched_by_name(tmp_path):
    """Numbers without names, and a validation split that lacks a class."""
    save_parquet(tmp_path / "train-0.parquet", 6, label=[10, 2, 33, 10, 2, 33])
    save_parquet(tmp_path / "validation-0.parquet", 2, label=[33, 2])
    data = load_image_data(str(tmp_path), image_column="photo")
    assert data.labels == ["10", "2", "33"] and list(data.validation["label"]) == [2, 1]
    save_parquet(tmp_path / "validation-0.parquet", 2, label=[33, 4])
    with pytest.raises(ValueError, match="has label 4 for validation, which no training image has"):
        load_image_data(str(tmp_path), image_column="photo")


def test_folders_whose_splits_have_other_classes(tmp_path):
    write_images(tmp_path / "train", classes=("ant", "bee", "cat"), images=3)
    write_images(tmp_path / "validation", classes=("cat",), images=2)
    data = load_image_data(str(tmp_path))
    assert data.labels == ["ant", "bee", "cat"] and list(data.validation["label"]) == [2, 2]


def test_splits_by_name(tmp_path):
    write_images(tmp_path / "train")
    write_images(tmp_path / "test", images=3)
    assert len(load_image_data(str(tmp_path), validation_split="test").validation) == 6
    with pytest.raises(ValueError, match="--validation_split dev: .* has train, test"):
        load_image_data(str(tmp_path), validation_split="dev")


def test_samples_are_chosen_at_random():
    data = load_image_data("digits", max_train_samples=100, max_eval_samples=50)
    assert (len(data.train), len(data.validation), data.train_images) == (100, 50, 100)
    assert len(set(data.train["label"])) == 10
    again = load_image_data("digits", max_train_samples=100)
    assert list(again.train["label"]) == list(data.train["label"])


def test_too_few_images_to_hold_some_out(tmp_path):
    with pytest.raises(ValueError, match="has 4 images, too few to hold out 0.2 of each class"):
        load_image_data(str(write_images(tmp_path, images=2)))


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
        load_image_data(str(tmp_path), streaming=True, image_column=None)


def test_streams_need_names_of_classes(tmp_path):
    for split in ("train", "validation"):
        save_parquet(tmp_path / f"{split}.parquet", 4, label=[0, 1] * 2)
    with pytest.raises(ValueError, match="without names of classes, which only reading all of it would tell"):
        load_image_data(str(tmp_path), streaming=True, image_column="photo")
    with pytest.raises(ValueError, match="--streaming: digits is small and in memory"):
        load_image_data("digits", streaming=True)


def test_a_file_of_another_kind(tmp_path):
    (tmp_path / "set.csv").write_text("image,label")
    with pytest.raises(ValueError, match="set.csv is a file, expected a folder, a parquet file or a Hub dataset"):
        load_image_data(str(tmp_path / "set.csv"))
