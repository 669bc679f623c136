"""Images and masks: layouts of folders, parquet, what their numbers stand for, changes of both, and what is refused."""

import json
import logging

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import SegformerImageProcessor

from sk_transformers.data.loaders import UNREADABLE, DataError, TrainLoader, eval_loader
from sk_transformers.data.masks import IGNORED, MaskFormat, read_classes
from sk_transformers.data.options import AugmentationOptions, DataOptions
from sk_transformers.data.problems import eval_images, load_images, train_images
from sk_transformers.data.transforms import JointTransform, eval_transform

from ..support.mask_files import CLASSES, draw_pairs, pairs_as_parquet, write_pairs

PROCESSOR = SegformerImageProcessor(size={"height": 24, "width": 32}, resample=0)


def options_of(dataset, **options):
    return DataOptions(str(dataset), **{"problem_type": "segmentation", "classes": CLASSES, **options})


def read_all(options, split="validation"):
    """The masks of a split as a network is to see them, with everything that was skipped in its place."""
    data = load_images(options)
    loader = eval_loader(
        data.split(split), eval_transform(PROCESSOR), 1, 0, options.skip_unreadable, eval_images(options, 2)
    )
    return data, [batch["labels"][0] for batch in loader]


LAYOUTS = [
    ("{split}/images", "{split}/masks"),
    ("images/{split}", "annotations/{split}"),
    ("streets/img/{split}", "streets/gt/{split}"),
    ("{split}", "{split}annot"),
    ("{split}", "{split}_labels"),
]


@pytest.mark.parametrize(("images", "masks"), LAYOUTS)
def test_layouts_of_folders(tmp_path, images, masks):
    write_pairs(tmp_path, images, masks)
    data, read = read_all(options_of(tmp_path))
    assert (len(data.train), len(data.validation), data.labels) == (12, 5, CLASSES)
    for mask, (_, expected) in zip(read, draw_pairs(5, seed=1)):
        assert np.array_equal(mask, expected)


def test_endings_and_a_held_out_part(tmp_path):
    write_pairs(tmp_path, "images", "masks", [("train", 10)])
    for file in (tmp_path / "masks").iterdir():
        file.rename(file.with_name(f"{file.stem}_mask.png"))
    parts = [load_images(options_of(tmp_path, split_seed=seed)) for seed in (0, 0, 1)]
    names = [sorted(image["path"] for image in data.validation["image"]) for data in parts]
    assert len(names[0]) == 2 and names[0] == names[1] != names[2]
    assert not set(names[0]) & {image["path"] for image in parts[0].train["image"]}


@pytest.mark.parametrize("column", ["annotation", "semantic_mask", "painted"])
def test_parquet(tmp_path, column):
    folder = write_pairs(tmp_path / "files", "images", "masks", [("train", 4)])
    file = pairs_as_parquet(folder, tmp_path / "train.parquet", column)
    _, read = read_all(options_of(file, train_val_split=0.5), "train")
    drawn = [mask for _, mask in draw_pairs(4)]
    assert len(read) == 2 and all(any(np.array_equal(mask, one) for one in drawn) for mask in read)


def read_numbers(tmp_path, numbers, **how):
    file = tmp_path / "mask.png"
    Image.fromarray(np.array([numbers], np.uint8)).save(file)
    return MaskFormat(**{"classes": 3, **how}).read({"path": str(file)}, (len(numbers), 1))[0].tolist()


def test_what_numbers_stand_for(tmp_path):
    assert read_numbers(tmp_path, [0, 2, 255]) == [0, 2, IGNORED]
    assert read_numbers(tmp_path, [0, 2, 11], ignore_index=11) == [0, 2, IGNORED]
    assert read_numbers(tmp_path, [0, 2, 1], ignore_index=1) == [0, 2, IGNORED]
    assert read_numbers(tmp_path, [0, 1, 3, 255], reduce_labels=True) == [IGNORED, 0, 2, IGNORED]
    with pytest.raises(DataError, match=r"mask.png holds 7, expected classes 0 to 2, and 255 .* --ignore_index 7 if"):
        read_numbers(tmp_path, [0, 7])
    with pytest.raises(DataError, match=r"mask.png holds 4, expected classes 1 to 3"):
        read_numbers(tmp_path, [0, 4], reduce_labels=True)
    Image.fromarray(np.array([[1, 256]], np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(DataError, match=r"deep.png holds 256, expected classes 1 to 3"):
        MaskFormat(3, reduce_labels=True).read({"path": str(tmp_path / "deep.png")}, (2, 1))


def test_a_palette_is_numbers_and_a_picture_is_refused(tmp_path):
    mask = Image.fromarray(np.array([[0, 1]], np.uint8))
    mask.putpalette([0, 0, 0, 200, 10, 10])
    mask.save(tmp_path / "palette.png")
    assert MaskFormat(2).read({"path": str(tmp_path / "palette.png")}, (2, 1)).tolist() == [[0, 1]]
    mask.convert("RGB").save(tmp_path / "picture.png")
    with pytest.raises(DataError, match=r"picture.png is a picture in RGB, expected one number a pixel"):
        MaskFormat(2).read({"path": str(tmp_path / "picture.png")}, (2, 1))


def test_classes(tmp_path):
    (tmp_path / "classes.txt").write_text("road\n\nsky\n")
    (tmp_path / "id2label.json").write_text(json.dumps({"0": "a", "1": "b"}))
    assert read_classes(None, tmp_path) == read_classes([str(tmp_path / "classes.txt")], tmp_path) == ["road", "sky"]
    assert read_classes([str(tmp_path / "id2label.json")], tmp_path) == ["a", "b"]
    assert read_classes(["2"], tmp_path) == ["LABEL_0", "LABEL_1"]
    for asked, folder, said in (
        (None, tmp_path / "none", "--classes is missing"),
        (["a", "b", "a"], tmp_path, "names 'a' twice"),
        (["a"], tmp_path, "names 1, expected 2 to 255"),
        (["256"], tmp_path, "names 256, expected 2 to 255"),
    ):
        with pytest.raises(ValueError, match=said):
            read_classes(asked, folder)


@pytest.fixture
def damaged(tmp_path):
    """Five validation images: one has a mask of another size, one a class too many, one a damaged mask, one none."""
    write_pairs(tmp_path)
    masks = tmp_path / "val" / "masks"
    Image.new("L", (9, 9)).save(masks / "0.png")
    Image.new("L", (40, 48), 2).save(masks / "1.png")
    (masks / "2.png").write_bytes((masks / "2.png").read_bytes()[:60])
    (masks / "3.png").unlink()
    return tmp_path


def test_what_cannot_be_used_is_named(damaged):
    with pytest.raises(ValueError, match=r"1 without a mask \(val/images/3.png\)"):
        load_images(options_of(damaged))
    (damaged / "val" / "images" / "3.png").unlink()
    for name, said in (
        ("0", r"masks/0.png is 9x9 pixels and its image 56x40, expected the same size"),
        ("1", r"masks/1.png holds 2, expected classes 0 to 1"),
        ("2", r"masks/2.png is unreadable"),
    ):
        with pytest.raises(DataError, match=said):
            read_all(options_of(damaged))
        for kind in ("images", "masks"):
            (damaged / "val" / kind / f"{name}.png").unlink()
    assert len(read_all(options_of(damaged))[1]) == 1


def test_what_cannot_be_used_is_skipped_and_told(damaged, caplog):
    with caplog.at_level(logging.WARNING):
        data, read = read_all(options_of(damaged, on_bad_image="skip"))
    assert "1 without a mask (val/images/3.png)" in data.account and len(data.validation) == 4
    assert [bool((mask == UNREADABLE).all()) for mask in read] == [True, True, True, False]
    assert all(f"masks/{number}.png" in caplog.text for number in range(3))


def test_data_that_does_not_fit(tmp_path):
    for name in ("images/a.png", "masks/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (8, 8)).save(tmp_path / name)
    with pytest.raises(ValueError, match="has 1 images and 1 masks, none of the same"):
        load_images(options_of(tmp_path))
    with pytest.raises(ValueError, match="--dataset digits has no masks"):
        load_images(options_of("digits"))
    with pytest.raises(ValueError, match="--label_column mask: .* is a folder .* which has no columns"):
        load_images(options_of(tmp_path, label_column="mask"))
    with pytest.raises(ValueError, match="--ignore_index is for masks, and --problem_type is single_label"):
        DataOptions("digits", ignore_index=0)


def test_image_and_mask_change_together():
    """Where the image says its class by its brightness, it says the mask's after any change, and has no color else."""
    change = JointTransform(PROCESSOR, AugmentationOptions(vflip=0.5), IGNORED)
    mask = torch.randint(0, 3, (40, 48), generator=torch.Generator().manual_seed(0))
    image = Image.fromarray((mask * 100).to(torch.uint8).numpy()).convert("RGB")
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (PROCESSOR.image_mean, PROCESSOR.image_std))
    seen = set()
    for seed in range(30):
        torch.manual_seed(seed)
        pixel_values, changed = change(image, mask)
        assert pixel_values.shape == (3, 24, 32) and changed.shape == (24, 32) and changed.dtype == torch.int64
        values = (pixel_values * std + mean) * 255
        has_class = changed != IGNORED
        torch.testing.assert_close(values[:, has_class], 100.0 * changed[has_class].expand(3, -1), rtol=0, atol=1e-3)
        assert (values - 255 * mean)[:, ~has_class].abs().max() < 1 if (~has_class).any() else True
        seen.add(bool(has_class.all()))
    assert seen == {True, False}  # crops, and smaller images in them


def test_batches_depend_on_the_seed_alone_and_masks_of_several_sizes_share_one(tmp_path):
    options = options_of(write_pairs(tmp_path))
    data = load_images(options)
    change = JointTransform(PROCESSOR, AugmentationOptions(), IGNORED)
    loader = TrainLoader(data, change, 4, 3, seed=5, images=train_images(options, 2))
    first, again = (list(loader.batches(epoch=1)) for _ in range(2))
    for one, other in zip(first, again):
        assert torch.equal(one["pixel_values"], other["pixel_values"]) and torch.equal(one["labels"], other["labels"])
    assert first[0]["labels"].shape == (4, 24, 32)
    batch = next(iter(eval_loader(data.validation, eval_transform(PROCESSOR), 5, images=eval_images(options, 2))))
    assert batch["pixel_values"].shape == (5, 3, 24, 32) and batch["labels"].shape == (5, 48, 56)
    assert (batch["labels"][0, 40:] == UNREADABLE).all() and (batch["labels"][1, :, 40:] == UNREADABLE).all()
