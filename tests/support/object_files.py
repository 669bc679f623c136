"""Images and their objects to train detectors on: bright squares and dark bars on a gray ground, no two in one place.

In COCO's JSON, Pascal VOC's XML and columns of objects.
"""

import json

import numpy as np
from datasets import ClassLabel, Dataset, Features, Image, List, Value
from PIL import Image as PILImage

CLASSES = ["square", "bar"]


def draw_objects(count, seed=0):
    """Arrays of images, of two sizes in turn, and of each its objects: class and box `(left, top, right, bottom)`."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        height, width = ((48, 64), (64, 48))[number % 2]
        image = rng.integers(100, 130, (height, width, 3), dtype=np.uint8)
        objects = []
        for kind, (high, wide) in enumerate(((22, 22), (10, 26))):
            top = rng.integers(0, height // 2 - high + 1) + kind * (height // 2)
            left = rng.integers(0, width - wide + 1)
            image[top : top + high, left : left + wide] = (230, 40)[kind]
            objects.append((kind, [int(left), int(top), int(left + wide), int(top + high)]))
        yield image, objects


def polygon(box):
    left, top, right, bottom = box
    return [[left, top, right, top, right, bottom, left, bottom]]


def annotation(number, image, kind, box, **more):
    left, top, right, bottom = box
    size = [right - left, bottom - top]
    known = {"id": number, "image_id": image, "category_id": 10 * (kind + 1), "bbox": [left, top, *size], "iscrowd": 0}
    return {**known, "area": size[0] * size[1], "segmentation": polygon(box), **more}


def draw_split(count, seed=0):
    """COCO's JSON of a split, and its images by their names."""
    content = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 10 * (kind + 1), "name": name} for kind, name in enumerate(CLASSES)],
    }
    images = {}
    for number, (image, objects) in enumerate(draw_objects(count, seed)):
        images[f"{number}.png"] = image
        height, width = image.shape[:2]
        content["images"].append({"id": number, "file_name": f"{number}.png", "height": height, "width": width})
        for kind, box in objects:
            content["annotations"].append(annotation(len(content["annotations"]), number, kind, box))
    return content, images


def write_objects(root, images="{split}2017", file="annotations/instances_{split}2017.json", counts=None, change=None):
    """Folders of them, by patterns of the images' folder and of the JSON; `change` is called with each JSON."""
    for seed, (split, count) in enumerate((counts or {"train": 12, "val": 5}).items()):
        content, arrays = draw_split(count, seed)
        if change is not None:
            change(content)
        folder, target = root / images.format(split=split), root / file.format(split=split)
        for path in (folder, target.parent):
            path.mkdir(parents=True, exist_ok=True)
        for name, array in arrays.items():
            PILImage.fromarray(array).save(folder / name)
        target.write_text(json.dumps(content))
    return root


def xml_of(name, shape, objects, **more):
    """Pascal VOC's XML of an image; `more` are parts of each object."""
    parts = "".join(f"<{tag}>{text}</{tag}>" for tag, text in more.items())
    boxes = "".join(
        f"<object><name>{CLASSES[kind]}</name>{parts}<bndbox><xmin>{left + 1}</xmin><ymin>{top + 1}</ymin>"
        f"<xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox></object>"
        for kind, (left, top, right, bottom) in objects
    )
    height, width = shape[:2]
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation><filename>{name}</filename>{size}{boxes}</annotation>"


def write_voc(root, counts=None, images="JPEGImages", annotations="Annotations", sets="ImageSets/Main"):
    """The same in Pascal VOC's form, without lists of the splits where `sets` is None."""
    for seed, (split, count) in enumerate((counts or {"train": 12, "val": 5}).items()):
        names = [f"{split}_{number}" for number in range(count)]
        folders = [root / pattern.format(split=split) for pattern in (images, annotations)]
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        for name, (image, objects) in zip(names, draw_objects(count, seed)):
            PILImage.fromarray(image).save(folders[0] / f"{name}.jpg", quality=95)
            (folders[1] / f"{name}.xml").write_text(xml_of(f"{name}.jpg", image.shape, objects))
        if sets is not None:
            (root / sets).mkdir(parents=True, exist_ok=True)
            (root / sets / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    return root


def objects_table(count, seed=0, box_format="xywh", category=None, in_lists=True):
    """The same as a data set with a column of objects, lists of parts or a list of objects."""
    category = category or ClassLabel(names=CLASSES)
    kinds = {"bbox": List(Value("float32"), length=4), "category": category}
    rows = {"image": [], "width": [], "height": [], "objects": []}
    for image, objects in draw_objects(count, seed):
        rows["image"].append(PILImage.fromarray(image))
        rows["width"].append(image.shape[1])
        rows["height"].append(image.shape[0])
        boxes = [box if box_format == "xyxy" else [*box[:2], box[2] - box[0], box[3] - box[1]] for _, box in objects]
        names = [CLASSES[kind] if category == Value("string") else kind for kind, _ in objects]
        lists = {"bbox": boxes, "category": names}
        rows["objects"].append(lists if in_lists else [dict(zip(lists, one)) for one in zip(boxes, names)])
    column = {name: List(kind) for name, kind in kinds.items()} if in_lists else List(kinds)
    sizes = {"width": Value("int64"), "height": Value("int64")}
    return Dataset.from_dict(rows, Features({"image": Image(), **sizes, "objects": column}))
