"""Images and labels, good and bad."""

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value
from PIL import Image
from transformers import ViTImageProcessor

from sk_transformers.training.data import (
    DataError,
    check_labels_in_range,
    collate,
    decode,
    eval_transform,
    image_size,
    load_image_data,
    train_transform,
)
from sk_transformers.training.metrics import TopKAccuracy


def write_images(folder, classes=("cat", "dog"), images=10):
    rng = np.random.default_rng(0)
    for label in classes:
        (folder / label).mkdir(parents=True)
        for i in range(images):
            Image.fromarray(rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(folder / label / f"{i}.png")
    return folder


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
        pixels = np.asarray(decode(example["image"]))[..., 0]
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
    with pytest.raises(ValueError, match="--dataset org/nothing is no folder here, and could not be loaded"):
        load_image_data("org/nothing")


@pytest.mark.parametrize("damage", ["truncated", "text", "empty"])
def test_broken_images_are_named(tmp_path, damage):
    file = write_images(tmp_path) / "cat" / "3.png"
    content = file.read_bytes()
    file.write_bytes({"truncated": content[:200], "text": b"not an image", "empty": b""}[damage])
    data = load_image_data(str(tmp_path), train_val_split=0.2)
    processor = ViTImageProcessor(size={"height": 8, "width": 8})
    with pytest.raises(DataError, match=r"cat/3.png is broken \(.+\): mend or remove it"):
        for split in (data.train, data.validation):
            collate(list(split), eval_transform(processor))


@pytest.mark.parametrize("label", [-1, 3, None])
def test_labels_outside_the_range(label):
    with pytest.raises(ValueError, match=f"some-set has label {label}, expected classes 0 to 2"):
        check_labels_in_range("some-set", [0, 1, label], 3)


def test_string_labels_become_classes(monkeypatch):
    from sk_transformers.training import data as module

    table = Dataset.from_dict(
        {"picture": [{"bytes": None, "path": "x.png"}] * 4, "target": ["b", "a", "b", "a"]},
        Features({"picture": module.Image(), "target": Value("string")}),
    )
    monkeypatch.setattr(module, "load_dataset", lambda name: {"train": table, "test": table})
    data = load_image_data("org/set")
    assert data.labels == ["a", "b"] and list(data.train["label"]) == [1, 0, 1, 0]
    assert data.train.features["label"] == ClassLabel(names=["a", "b"])


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "I;16"])
def test_every_kind_of_image_becomes_rgb(tmp_path, mode):
    Image.new(mode, (5, 4)).save(tmp_path / "image.png")
    assert decode({"bytes": None, "path": str(tmp_path / "image.png")}).mode == "RGB"


def test_transforms():
    processor = ViTImageProcessor(size={"height": 8, "width": 6})
    image = Image.effect_noise((20, 24), 50).convert("RGB")
    assert image_size(processor) == (8, 6)
    evaluated = eval_transform(processor)(image)
    assert torch.equal(evaluated, processor(image, return_tensors="pt").pixel_values[0])
    trained = train_transform(processor, [1.0, 1.0], hflip=0.0, rotation=0)(image)
    assert trained.shape == evaluated.shape == (3, 8, 6)
    assert abs(trained.mean() - evaluated.mean()) < 0.05  # the same scaling of values
    flipped = train_transform(processor, [1.0, 1.0], hflip=1.0, rotation=0)(image)
    torch.manual_seed(0)
    assert abs(flipped - trained.flip(-1)).mean() < abs(flipped - trained).mean()


def test_top_k_accuracy():
    metric = TopKAccuracy(keep_in_memory=True)
    metric.add_batch(predictions=[[1, 2, 3, 4, 5], [1, 2, 3, 4, 0]], references=[1, 0])
    metric.add_batch(predictions=[[9, 2, 3, 4, 5], [0, 2, 3, 4, 5]], references=[7, 0])
    assert metric.compute() == {"top1": 0.5, "top5": 0.75}
