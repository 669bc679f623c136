"""Images and COCO's JSON: layouts of folders, boxes and masks, changes of both, and what is refused."""

import json
import logging
import re

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.ops import box_convert
from transformers import ViTImageProcessor

from sk_transformers.data.loaders import DataError, TrainLoader, eval_loader
from sk_transformers.data.objects import compress, decode_masks
from sk_transformers.data.options import AugmentationOptions, DataOptions
from sk_transformers.data.problems import eval_images, evaluation_inputs, load_images, train_images, training_changes
from sk_transformers.data.transforms import ObjectTransform
from sk_transformers.image_processing import detection_processor

from ..support.object_files import CLASSES, annotation, draw_objects, polygon, write_objects

PROCESSOR = detection_processor(ViTImageProcessor(resample=0), (48, 64))


def options_of(dataset, **options):
    return DataOptions(str(dataset), **{"problem_type": "detection", **options})


def read_all(options, split="validation"):
    """The batches of a split in evaluation, of one image each."""
    data = load_images(options)
    inputs, images = evaluation_inputs("detection", PROCESSOR), eval_images(options, len(data.labels))
    return data, list(eval_loader(data.split(split), inputs, 1, 0, options.skip_unreadable, images))


LAYOUTS = [
    ("{split}2017", "annotations/instances_{split}2017.json"),
    ("{split}", "{split}/_annotations.coco.json"),
    ("coco/images/{split}", "coco/labels/{split}.json"),
]


@pytest.mark.parametrize(("images", "file"), LAYOUTS)
def test_layouts_of_folders(tmp_path, images, file):
    write_objects(tmp_path, images, file)
    (tmp_path / "captions_train2017.json").write_text('{"images": [], "annotations": [{"bbox": 1}], "categories": []}')
    data, read = read_all(options_of(tmp_path))
    assert (len(data.train), len(data.validation), data.labels) == (12, 5, CLASSES)
    assert "17 images of 2 classes; train 12, validation 5." in data.account
    assert "1 not a JSON of objects (captions_train2017.json)" in data.account
    for batch, (image, expected) in zip(read, draw_objects(5, seed=1)):
        (objects,) = (label["objects"] for label in batch["labels"])
        assert objects["classes"].tolist() == [kind for kind, _ in expected]
        assert objects["boxes"].tolist() == [box for _, box in expected]
        masks = decode_masks(objects["masks"], objects["size"]).bool()
        for mask, (kind, _) in zip(masks, expected):
            assert torch.equal(mask, torch.from_numpy((image > 200 if kind == 0 else image < 60).all(2)))
        assert batch["pixel_values"].shape == (1, 3, 48, 64) and batch["pixel_mask"].shape == (1, 48, 64)


def test_a_held_out_part_and_paths_in_the_json(tmp_path):
    def with_folder(content):
        for image in content["images"]:
            image["file_name"] = f"photos/{image['file_name']}"

    write_objects(tmp_path, "photos", "objects.json", {"train": 10}, with_folder)
    parts = [load_images(options_of(tmp_path, split_seed=seed)) for seed in (0, 0, 1)]
    names = [sorted(image["path"] for image in data.validation["image"]) for data in parts]
    assert len(names[0]) == 2 and names[0] == names[1] != names[2]


def test_masks_of_all_forms_are_the_same():
    box, height, width = [3, 2, 9, 7], 10, 12
    mask = np.zeros((height, width), np.uint8)
    mask[2:7, 3:9] = 1
    columns = mask.T.flatten()  # COCO counts down the columns
    changes = np.flatnonzero(np.diff(columns)) + 1
    runs = np.diff([0, *changes, len(columns)]).tolist()
    of_polygon = compress(polygon(box), height, width)
    text = {"size": [height, width], "counts": of_polygon["counts"].decode()}
    for form in (polygon(box), {"size": [height, width], "counts": runs}, text):
        assert torch.equal(decode_masks([compress(form, height, width)], (height, width))[0], torch.from_numpy(mask))


def changed(**more):
    """What makes another of the first annotation of a JSON."""
    return lambda content: content["annotations"][0].update(more)


def test_crowds_and_images_without_objects(tmp_path):
    def change(content):
        content["annotations"] = [one for one in content["annotations"] if one["image_id"] != 1]
        box = [0, 0, 40, 40]
        crowd = {"iscrowd": 1, "segmentation": {"size": [48, 64], "counts": [0, 40, 48 * 64 - 40]}}
        content["annotations"].append(annotation(99, 0, 1, box, **crowd))

    write_objects(tmp_path, counts={"train": 3, "val": 3}, change=change)
    options = options_of(tmp_path)
    data, read = read_all(options, "train")
    assert "6 images of 2 classes, 2 of none; train 3, validation 3." in data.account
    first, second = (read[index]["labels"][0]["objects"] for index in (0, 1))
    assert first["crowds"].tolist() == [False, False, True] and len(second["boxes"]) == 0 and second["masks"] == []
    changes = training_changes("detection", PROCESSOR, AugmentationOptions(scale_jitter=[1, 1], hflip=0))
    loader = TrainLoader(data, changes, 3, 1, 0, images=train_images(options, 2))
    (batch,) = loader.batches(0)
    counts = sorted(len(labels["class_labels"]) for labels in batch["labels"])
    assert counts == [0, 2, 2] and all(len(labels["masks"]) == len(labels["boxes"]) for labels in batch["labels"])


def places(pixels, kind):
    """Where the shape of a class is in a normalized image, `(height, width)` of bool."""
    return (pixels > 0.7).all(0) if kind == 0 else (pixels < -0.5).all(0)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("has_masks", [True, False])
def test_boxes_and_masks_go_with_their_image(seed, has_masks):
    """Shapes are found anew in the changed image by their brightness."""
    processor = detection_processor(
        ViTImageProcessor(resample=0, image_mean=[0.45] * 3, image_std=[0.35] * 3), (40, 56)
    )
    transform = ObjectTransform(processor, AugmentationOptions(scale_jitter=[0.6, 2.0], hflip=0.5, vflip=0.5))
    (image, expected), *_ = draw_objects(1, seed)
    objects = {
        "boxes": torch.tensor([box for _, box in expected], dtype=torch.float32),
        "classes": torch.tensor([kind for kind, _ in expected]),
    }
    if has_masks:
        whole = torch.zeros(2, *image.shape[:2], dtype=torch.uint8)
        for mask, (_, (left, top, right, bottom)) in zip(whole, expected):
            mask[top:bottom, left:right] = 1
        objects["masks"] = whole
    torch.manual_seed(seed)
    for _ in range(5):
        pixels, labels = transform(Image.fromarray(image), objects)
        assert pixels.shape == (3, 40, 56)
        kinds = [kind for kind in (0, 1) if min(side_lengths(places(pixels, kind))) > 1]
        assert set(kinds) <= set(labels["class_labels"].tolist())  # a rest of one pixel may count, or not
        corners = box_convert(labels["boxes"], "cxcywh", "xyxy") * torch.tensor([56, 40, 56, 40])
        for index, kind in enumerate(labels["class_labels"].tolist()):
            seen = places(pixels, kind)
            if kind in kinds:
                assert (corners[index] - torch.tensor(bounds(seen))).abs().max() <= 1
            if has_masks:
                assert (labels["masks"][index].bool() != seen).float().mean() < 0.02


def bounds(seen):
    rows, columns = (seen.any(axis).nonzero().flatten().tolist() for axis in (1, 0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


def side_lengths(seen):
    return [int(seen.any(axis).sum()) for axis in (0, 1)]


FAULTS = [
    (changed(bbox=[5, 5, 0, 4]), None, r"1 a box of no area \(annotation 0 of 0.png\)"),
    (changed(bbox=[500, 5, 4, 4]), "1 a box outside its image", "1 a box outside its image"),
    (changed(bbox=[5, 5, 4]), "1 without a box of four numbers", "1 without a box of four numbers"),
    (changed(category_id=7), "1 of a category that is not listed", "1 of a category that is not listed"),
    (changed(image_id=77), "1 of an image that is not listed", "1 of an image that is not listed"),
    (changed(segmentation=[]), "1 without a mask", "1 without a mask"),
    (changed(segmentation=[[1, 2, 3, 4]]), None, "1 a mask of no area"),
    (changed(segmentation={"size": [4, 4], "counts": "a"}), "not of its image's size", "not of its image's size"),
    (changed(segmentation={"size": [48, 64], "counts": [5]}), "do not fill its image", "do not fill its image"),
    (
        lambda content: content["images"].append({"id": 9, "file_name": "x.png", "height": 4, "width": 4}),
        r"1 listed in instances_train2017.json, and not there, or more than once \(x.png\)",
        "1 listed in instances_train2017.json",
    ),
]


@pytest.mark.parametrize(("change", "refused", "told"), FAULTS)
def test_what_cannot_be_used_is_named(tmp_path, change, refused, told):
    write_objects(tmp_path, counts={"train": 4}, change=change)
    if refused is not None:
        with pytest.raises(ValueError, match=f"holds what cannot be used: .*{refused}.*Mend or remove it, or pass"):
            load_images(options_of(tmp_path))
    account = load_images(options_of(tmp_path, on_bad_image="skip" if refused else "error")).account
    assert len(re.findall(told, account)) == 1 and account.startswith(f"{tmp_path}: 4 images")


def test_masks_are_not_asked_for(tmp_path):
    def without_masks(content):
        for one in content["annotations"]:
            del one["segmentation"]

    write_objects(tmp_path, counts={"train": 4, "val": 2}, change=without_masks)
    _, read = read_all(options_of(tmp_path, box_only=True))
    assert read[0]["labels"][0]["objects"]["masks"] is None
    with pytest.raises(ValueError, match="8 without a mask"):
        load_images(options_of(tmp_path))


def test_an_image_of_another_size(tmp_path, caplog):
    write_objects(tmp_path, counts={"train": 4, "val": 2})
    file = tmp_path / "val2017" / "0.png"
    Image.open(file).transpose(Image.Transpose.ROTATE_90).save(file)
    with pytest.raises(
        DataError, match=r"0.png is 48x64 pixels, upright, and its annotation says 64x48: correct either"
    ):
        read_all(options_of(tmp_path))
    with caplog.at_level(logging.WARNING):
        _, read = read_all(options_of(tmp_path, on_bad_image="skip"))
    assert read[0]["labels"] == [{"objects": None}] and "skipped: " in caplog.text
    assert len(read[1]["labels"][0]["objects"]["boxes"]) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"images": [], "annotations": [{"bbox"', "is not valid JSON"),
        (
            '{"images": {}, "annotations": [], "categories": [], "bbox": 0}',
            "has no list of images, expected COCO's JSON",
        ),
        (
            '{"images": [], "annotations": [], "categories": [{"id": 1}], "bbox": 0}',
            "needs an id, a number, and a name",
        ),
        ('{"images": [], "annotations": [], "categories": [], "bbox": 0}', "has 0 categories of 0 names"),
        (
            '{"images": [{"id": 1}], "annotations": [], "categories": [{"id": 1, "name": "a"}], "bbox": 0}',
            r'lists the image {"id": 1}, expected an id, a file_name, a height and a width',
        ),
    ],
)
def test_what_is_not_cocos_json(tmp_path, text, said):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "train.json").write_text(text if said != "is not valid JSON" else text + '"categories"')
    with pytest.raises(ValueError, match=said):
        load_images(options_of(tmp_path))


def test_what_else_is_refused(tmp_path):
    write_objects(tmp_path)
    file = tmp_path / "annotations" / "instances_val2017.json"
    content = json.loads(file.read_text())
    content["categories"][0]["name"] = "circle"
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="has the category 'circle', which the training images do not"):
        load_images(options_of(tmp_path))
    (tmp_path / "annotations" / "more_val.json").write_text(file.read_text())
    with pytest.raises(ValueError, match="two JSON files of objects for validation"):
        load_images(options_of(tmp_path))
    (tmp_path / "annotations" / "more_val.json").unlink()
    with pytest.raises(ValueError, match="has no objects: expected a folder of images with COCO's JSON"):
        load_images(options_of(tmp_path / "train2017"))
    with pytest.raises(ValueError, match="--label_column a: COCO's JSON has no columns"):
        load_images(options_of(tmp_path, label_column="a"))
    with pytest.raises(ValueError, match="--classes a: COCO's JSON names its categories: leave it out"):
        load_images(options_of(tmp_path, classes=["a"]))
    with pytest.raises(ValueError, match="--box_format xyxy is for columns of objects, and COCO's JSON has a form"):
        load_images(options_of(tmp_path, box_format="xyxy"))
    with pytest.raises(ValueError, match="--classes is for masks and objects, and --problem_type is single_label"):
        DataOptions("images", classes=["a"])
    with pytest.raises(ValueError, match="--box_only is for objects, and --problem_type is single_label"):
        DataOptions("images", box_only=True)
    with pytest.raises(ValueError, match="--dataset digits has no objects: expected a folder"):
        load_images(options_of("digits"))
