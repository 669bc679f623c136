"""Images and COCO's JSON to train detectors on: bright squares and dark bars on a gray ground, no two in one place."""

import json

import numpy as np
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
