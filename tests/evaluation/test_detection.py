"""Average precision of boxes and masks: that of pycocotools on a small case, and what is told of it."""

import contextlib
import io
import json
from pathlib import Path

import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sk_transformers.data.objects import decode_masks, encode_masks
from sk_transformers.evaluation.detection import DETECTION, DetectionPredictions, join_images, reduce_objects
from sk_transformers.models.detection import DetectorOutput

CASE = json.loads((Path(__file__).parent / "objects_case.json").read_text())
SIZE = (60, 80)


def mask_of(box):
    """An ellipse in a box, as wide and not as high."""
    left, top, right, bottom = box
    rows, columns = torch.meshgrid(torch.arange(SIZE[0]) + 0.5, torch.arange(SIZE[1]) + 0.5, indexing="ij")
    across, down = (columns - (left + right) / 2) / (right - left), (rows - (top + bottom) / 2) / (bottom - top)
    return across.square() + (2 * down).square() <= 0.25


def masks_of(boxes):
    return encode_masks(torch.stack([mask_of(box) for box in boxes])) if boxes else []


def predictions_of_case():
    images = []
    for right, found in zip(CASE["right"], CASE["found"]):
        boxes = [one["box"] for one in right]
        objects = {
            "size": SIZE,
            "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            "classes": torch.tensor([one["class"] for one in right], dtype=torch.int64),
            "areas": torch.tensor([float(one["area"]) for one in right]),
            "crowds": torch.tensor([one["crowd"] for one in right], dtype=torch.bool),
            "masks": masks_of(boxes),
        }
        answer = {
            "boxes": torch.tensor([one["box"] for one in found], dtype=torch.float32).reshape(-1, 4),
            "classes": torch.tensor([one["class"] for one in found], dtype=torch.int64),
            "scores": torch.tensor([one["score"] for one in found]),
            "masks": masks_of([one["box"] for one in found]),
        }
        images.append({"size": SIZE, "right": objects, "found": answer})
    columns, _ = join_images([images])
    return DetectionPredictions(**columns, seconds=1.0, measured_images=0)


def by_pycocotools(kind):
    """COCO's own figures of the case."""
    ids = range(1, len(CASE["right"]) + 1)
    content = {"info": {}, "images": [{"id": i, "height": SIZE[0], "width": SIZE[1]} for i in ids], "annotations": []}
    content["categories"] = [{"id": one, "name": str(one)} for one in range(3)]
    results = []
    for image, right, found in zip(ids, CASE["right"], CASE["found"]):
        for rows, kept in ((right, content["annotations"]), (found, results)):
            for one in rows:
                left, top, *corner = one["box"]
                row = {"id": len(kept) + 1, "image_id": image, "category_id": one["class"]}
                row["bbox"] = [left, top, corner[0] - left, corner[1] - top]
                row["segmentation"] = encode_masks(mask_of(one["box"])[None])[0]
                row |= {"score": one["score"]} if "score" in one else {"area": one["area"], "iscrowd": one["crowd"]}
                kept.append(row)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = content
        coco.createIndex()
        other = "segmentation" if kind == "bbox" else "bbox"  # which areas would be taken from
        results = [{name: value for name, value in row.items() if name != other} for row in results]
        evaluation = COCOeval(coco, coco.loadRes(results), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


def test_figures_are_those_of_pycocotools():
    figures = DETECTION.summarize(predictions_of_case(), ["cat", "dog", "hen"])
    assert DETECTION.measure(predictions_of_case()) == {
        name: figures[name] for name in ("box_ap", "box_ap50", "box_ap75", "mask_ap", "mask_ap50", "mask_ap75")
    }
    for kind, name in (("box", "bbox"), ("mask", "segm")):
        stats = by_pycocotools(name)
        names = ("ap", "ap50", "ap75", "ap_small", "ap_medium")
        assert [figures[f"{kind}_{one}"] for one in names] == pytest.approx(stats[:5].tolist(), abs=1e-6)
        assert stats[5] == -1 and figures[f"{kind}_ap_large"] is None
    assert 0.2 < figures["box_ap"] < 0.9 and figures["box_ap"] != figures["mask_ap"]
    assert figures["box_ap"] == pytest.approx(CASE["box_ap"], abs=1e-6)  # which pycocotools once gave
    assert figures["per_class"]["cat"]["objects"] == 3 and "hen" not in figures["per_class"]
    mean = sum(one["box_ap"] for one in figures["per_class"].values()) / len(figures["per_class"])
    assert mean == pytest.approx(figures["box_ap"], abs=1e-6)
    lines = DETECTION.names_of_labels(predictions_of_case(), ["cat", "dog", "hen"])
    assert lines[0].startswith("cat [5.0, 5.0, 45.0, 50.0]") and lines[2] == ""


def test_what_is_kept_of_a_batch():
    logits = torch.full((2, 2, 3), -1000.0)
    logits[..., -1] = 0
    logits[0, 0] = torch.tensor([0.9, 0, 0.1]).log().clamp(min=-1000)
    boxes = torch.zeros(2, 2, 4)
    boxes[0, 0] = torch.tensor([0.5, 0.5, 0.5, 1.0])
    masks = torch.zeros(2, 2, 28, 28)
    masks[0, 0] = 1
    right = {
        "size": SIZE, "boxes": torch.tensor([[20.0, 0, 60, 60]]), "classes": torch.tensor([1]),
        "areas": torch.tensor([2400.0]), "crowds": torch.tensor([False]), "masks": masks_of([[20, 0, 60, 60]]),
    }  # fmt: skip
    outputs = DetectorOutput(logits=logits, pred_boxes=boxes, pred_masks=masks)
    kept = reduce_objects(outputs, [{"objects": right}, {"objects": None}], torch.tensor([1, 0]))
    assert kept[1] is None and kept[0]["right"]["classes"].tolist() == [0]
    found = kept[0]["found"]
    torch.testing.assert_close(found["boxes"], torch.tensor([[20.0, 0, 60, 60]]))
    assert found["classes"].tolist() == [0] and found["scores"].tolist() == pytest.approx([0.9])
    assert decode_masks(found["masks"], SIZE)[0, :, 20:60].float().mean() > 0.95
    columns, unreadable = join_images([kept])
    predictions = DetectionPredictions(**columns, seconds=1.0, measured_images=0, unreadable=unreadable)
    assert DETECTION.measure(predictions)["box_ap"] == pytest.approx(1) and unreadable == 1


def test_nothing_to_measure():
    predictions = predictions_of_case()
    for image in predictions.images:
        image["right"]["crowds"] |= True
    with pytest.raises(ValueError, match="none of the 4 images has an object: nothing is measured"):
        DETECTION.measure(predictions)
