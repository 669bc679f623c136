"""Objects and their masks: average precision as COCO defines it, by torchmetrics and pycocotools."""

from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import send_to_device

from ..data.objects import coco_masks, decode_masks, encode_masks
from ..models.detection import DetectorOutput, find_instances
from .predictions import Predictions, Problem

KINDS: dict[str, Any] = {"box": "bbox", "mask": "segm"}  # of average precision, and torchmetrics' names


@dataclass(kw_only=True)
class DetectionPredictions(Predictions):
    """The objects that each image has, and those that were found. `labels` are 0, `(images,)`; `loss` is not measured.

    Args:
        images: of each image `size`, `(height, width)`; `right`, as `read_objects` returns them; and `found`, with
            `boxes`, `classes`, `scores`, best first, and `masks`, compressed run lengths or None.
    """

    images: list[dict[str, Any]]


def reduce_objects(
    outputs: DetectorOutput, labels: list[dict[str, Any]], label_map: torch.Tensor | None = None
) -> list[dict[str, Any] | None]:
    """Return what is kept of each image, see `DetectionPredictions`; None of one that could not be read.

    Args:
        outputs: of the detector.
        labels: the objects of each image, None in place of those of an unreadable one.
        label_map: the model's class of each of the data's.
    """
    sizes = [(1, 1) if label["objects"] is None else tuple(label["objects"]["size"]) for label in labels]
    kept = []
    for label, size, found in zip(labels, sizes, find_instances(outputs_on_cpu(outputs), 0.0, sizes)):
        if label["objects"] is None:
            kept.append(None)
            continue
        right: Any = send_to_device(label["objects"], "cpu")
        if label_map is not None:
            right["classes"] = label_map.cpu()[right["classes"]]
        masks = None if right["masks"] is None or "masks" not in found else encode_masks(found["masks"])
        answer = {"boxes": found["boxes"], "classes": found["labels"], "scores": found["scores"], "masks": masks}
        kept.append({"size": size, "right": right, "found": answer})
    return kept


def outputs_on_cpu(outputs: DetectorOutput) -> DetectorOutput:
    """Return a detector's answers in float32 on the CPU."""
    return DetectorOutput(
        logits=to_cpu(outputs.logits), pred_boxes=to_cpu(outputs.pred_boxes), pred_masks=to_cpu(outputs.pred_masks)
    )


def to_cpu(tensor: torch.Tensor | None) -> torch.Tensor | None:
    return None if tensor is None else tensor.float().cpu()


def join_images(batches: list[list[dict[str, Any] | None]]) -> tuple[dict[str, Any], int]:
    """Return the fields of `DetectionPredictions`, and how many images could not be read."""
    images = [image for batch in batches for image in batch]
    readable = [image for image in images if image is not None]
    columns = {"labels": torch.zeros(len(readable)), "loss": torch.zeros(0), "images": readable}
    return columns, len(images) - len(readable)


def average_precision(predictions: DetectionPredictions, class_metrics: bool = False) -> dict[str, dict[str, Any]]:
    """Return what torchmetrics measures of boxes, and of masks if they were found, by `KINDS`.

    Raises:
        ImportError: if pycocotools is not installed.
        ValueError: if no image has an object.
    """
    coco_masks()  # or the error would name another package
    from torchmetrics.detection import MeanAveragePrecision

    if not any((~image["right"]["crowds"]).any() for image in predictions.images):
        raise ValueError(f"none of the {len(predictions.images)} images has an object: nothing is measured.")
    has_masks = all(image["found"]["masks"] is not None for image in predictions.images)
    kinds = ["box", "mask"] if has_masks else ["box"]
    # Of both together: of masks alone, torchmetrics leaves out what was found in images without objects.
    metric = MeanAveragePrecision(iou_type=tuple(KINDS[kind] for kind in kinds), class_metrics=class_metrics)
    metric.warn_on_many_detections = False
    for image in predictions.images:
        metric.update([found_of(image, has_masks)], [right_of(image, has_masks)])
    figures = metric.compute()
    if not has_masks:
        return {"box": figures}
    return {kind: {**figures, **figures_under(figures, f"{KINDS[kind]}_")} for kind in kinds}


def figures_under(figures: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in figures.items() if name.startswith(prefix)}


def found_of(image: dict[str, Any], has_masks: bool) -> dict[str, torch.Tensor]:
    """Return the objects that were found in an image, as torchmetrics takes them."""
    found = image["found"]
    return {"scores": found["scores"], "labels": found["classes"], **shapes_of(image, found, has_masks)}


def right_of(image: dict[str, Any], has_masks: bool) -> dict[str, torch.Tensor]:
    """Return the objects that an image has, as torchmetrics takes them."""
    right = image["right"]
    more = {"iscrowd": right["crowds"].long(), "area": right["areas"]}
    return {"labels": right["classes"], **more, **shapes_of(image, right, has_masks)}


def shapes_of(image: dict[str, Any], objects: dict[str, Any], has_masks: bool) -> dict[str, torch.Tensor]:
    masks = {"masks": decode_masks(objects["masks"], image["size"]).bool()} if has_masks else {}
    return {"boxes": objects["boxes"], **masks}


def measure(predictions: DetectionPredictions) -> dict[str, float]:
    """Return `box_ap`, the mean of average precision over classes and overlaps from 0.5 to 0.95, `box_ap50` and
    `box_ap75`, of those overlaps; and the same of masks, if the detector has them.

    Raises:
        ImportError: if pycocotools is not installed.
        ValueError: if no image has an object.
    """
    return figures_of(average_precision(predictions))


def figures_of(measured: dict[str, dict[str, Any]]) -> dict[str, float]:
    names = {"ap": "map", "ap50": "map_50", "ap75": "map_75"}
    return {f"{kind}_{name}": figures[key].item() for kind, figures in measured.items() for name, key in names.items()}


def summarize(predictions: DetectionPredictions, class_names: list[str]) -> dict[str, Any]:
    """Return the figures of an evaluation.

    Args:
        predictions: of every image.
        class_names: of the model's classes.

    Returns:
        `images` and `unreadable` that could not be read; of those that could, the figures of `measure`, those of small,
        medium and large objects as COCO has them (None where there are none), such as `box_ap_small`;
        `images_per_second` of one process, None if there was one batch; and in `per_class`, of each class that an
        object has, how many `objects`, and `box_ap` and `mask_ap`.
    """
    measured = average_precision(predictions, class_metrics=True)
    classes = torch.cat([image["right"]["classes"][~image["right"]["crowds"]] for image in predictions.images])
    counts = classes.bincount(minlength=len(class_names)).tolist()
    of_class: dict[str, dict[int, float]] = {}
    for kind, figures in measured.items():
        indices, values = (figures[name].reshape(-1).tolist() for name in ("classes", "map_per_class"))
        of_class[kind] = dict(zip(indices, values))
    by_size = {
        f"{kind}_ap_{size}": value if (value := figures[f"map_{size}"].item()) >= 0 else None
        for kind, figures in measured.items()
        for size in ("small", "medium", "large")
    }
    timed = predictions.measured_images
    return {
        "images": len(predictions.images),
        "unreadable": predictions.unreadable,
        **figures_of(measured),
        **by_size,
        "images_per_second": timed / predictions.seconds if timed else None,
        "per_class": {
            name: {"objects": counts[index], **{f"{kind}_ap": values[index] for kind, values in of_class.items()}}
            for index, name in enumerate(class_names)
            if counts[index]
        },
    }


def names_of_labels(predictions: DetectionPredictions, class_names: list[str]) -> list[str]:
    lines = []
    for image in predictions.images:
        right = image["right"]
        rows = zip(right["classes"].tolist(), right["boxes"].tolist())
        lines.append("\t".join(sorted(f"{class_names[one]} {[round(side, 2) for side in box]}" for one, box in rows)))
    return lines


DETECTION = Problem(
    config_type=None,
    best="box_ap",
    titles={"box_ap": "box AP", "box_ap50": "box AP50", "mask_ap": "mask AP", "mask_ap50": "mask AP50"},
    reduce=reduce_objects,
    predictions=DetectionPredictions,
    measure=measure,
    summarize=summarize,
    names_of_labels=names_of_labels,
    answers=lambda outputs: outputs,
    join=join_images,
)
