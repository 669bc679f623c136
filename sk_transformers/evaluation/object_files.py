"""Objects of image files, as COCO's JSON."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..data.objects import encode_masks

DIGITS = 2  # of pixels, after the point


def describe_objects(found: dict[str, Any], size: tuple[int, int]) -> str:
    """Return the objects of an image as JSON, for `write_coco`.

    Args:
        found: as `find_instances` returns them.
        size: `(height, width)` of the image.
    """
    boxes, scores, labels = (found[name].cpu().tolist() for name in ("boxes", "scores", "labels"))
    objects: list[dict[str, Any]] = []
    for (left, top, right, bottom), score, label in zip(boxes, scores, labels):
        width, height = right - left, bottom - top
        objects.append(
            {
                "category_id": label + 1,
                "bbox": [round(side, DIGITS) for side in (left, top, width, height)],
                "score": float(f"{score:.6g}"),
                "area": round(width * height, DIGITS),
            }
        )
    if "masks" in found:
        masks = found["masks"].cpu()
        for one, mask, area in zip(objects, encode_masks(masks), masks.flatten(1).sum(1).tolist()):
            one["segmentation"] = {**mask, "counts": mask["counts"].decode()}
            one["area"] = area
    return json.dumps({"size": size, "objects": objects}, separators=(",", ":"))


def write_coco(file: Path, schema: pa.Schema, tables: Iterator[pa.Table], classes: list[str]) -> None:
    """Write the objects in chunks of a prediction's table as COCO's JSON.

    `images` are those that could be read, `unreadable` names the others; an annotation has a `score`. Ids count from 1,
    those of categories in the order of the model's classes.
    """
    content: dict[str, list[dict[str, Any]]] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": number, "name": name} for number, name in enumerate(classes, 1)],
        "unreadable": [],
    }
    for table in tables:
        for row in table.to_pylist():
            if row["error"] is not None:
                content["unreadable"].append({"file_name": row["file"], "error": row["error"]})
                continue
            image = json.loads(row["objects"])
            height, width = image["size"]
            image_id = len(content["images"]) + 1
            content["images"].append({"id": image_id, "file_name": row["file"], "height": height, "width": width})
            for one in image["objects"]:
                ids = {"id": len(content["annotations"]) + 1, "image_id": image_id}
                content["annotations"].append({**ids, **one, "iscrowd": 0})
    file.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
