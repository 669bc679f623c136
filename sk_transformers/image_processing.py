"""The image processor of a network: one rule for fresh and for converted ones.

Weights that were trained elsewhere keep the recipe that they were trained with. Where nothing tells one, images are
resized with bicubic interpolation, cropped in the middle and normalized with ImageNet's mean and standard deviation.
That is what MetaFormer's authors and DeiT's train and evaluate with, and timm where a model says nothing else; the
mean and standard deviation of 0.5 are those of the ViTs of "How to train your ViT?" (AugReg), whose weights bring them
along.
"""

from collections.abc import Mapping
from math import floor
from typing import Any

from transformers import BitImageProcessor, DetrImageProcessor, SegformerImageProcessor
from transformers.image_processing_utils import BaseImageProcessor
from transformers.image_utils import PILImageResampling

from .models.configuration_checks import size_pair

IMAGENET_RECIPE = {
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "crop_pct": 1.0,
    "crop_mode": "center",
    "interpolation": "bicubic",
}


def image_processor_for(
    image_size: int | tuple[int, int] | list[int], recipe: Mapping[str, Any] | None = None
) -> BitImageProcessor:
    """Return the image processor for a network: resize the shorter side, crop the middle, normalize.

    Args:
        image_size: pixels, one number or `(height, width)`, of what the network takes. Images for one that is not
            square are not cropped, but resized to it.
        recipe: what the weights were trained with, in timm's terms: `mean`, `std`, `crop_pct` (the side of the crop,
            as a fraction of the resized image's), `crop_mode` and `interpolation`. `IMAGENET_RECIPE` stands in for
            what is not there.
    """
    recipe = {**IMAGENET_RECIPE, **(recipe or {})}
    height, width = size_pair("image_size", image_size)
    scaled = [floor(side / recipe["crop_pct"]) for side in (height, width)]
    squash = recipe["crop_mode"] == "squash" or height != width
    return BitImageProcessor(
        size={"height": scaled[0], "width": scaled[1]} if squash else {"shortest_edge": scaled[0]},
        crop_size={"height": height, "width": width},
        image_mean=list(recipe["mean"]),
        image_std=list(recipe["std"]),
        resample=PILImageResampling[recipe["interpolation"].upper()],
    )


def segmentation_processor(
    image_processor: BaseImageProcessor, image_size: int | tuple[int, int] | list[int]
) -> BaseImageProcessor:
    """Return the image processor of a segmenter: resize the whole image, crop nothing, normalize as another does.

    It is SegFormer's, which turns logits into masks of the image's own size, as `pipeline("image-segmentation")` asks.

    Args:
        image_processor: whose interpolation, mean and standard deviation it gets; a segmenter's own stays as it is.
        image_size: pixels, one number or `(height, width)`, of what the network takes.
    """
    if hasattr(image_processor, "post_process_semantic_segmentation"):
        return image_processor
    height, width = size_pair("image_size", image_size)
    mean, std = normalization(image_processor)
    return SegformerImageProcessor(
        size={"height": height, "width": width},
        image_mean=mean,
        image_std=std,
        resample=undeclared(image_processor).resample,
    )


def detection_processor(
    image_processor: BaseImageProcessor, image_size: int | tuple[int, int] | list[int]
) -> BaseImageProcessor:
    """Return the image processor of a detector: resize an image to fit, fill up with zeros, normalize as another does.

    It is DETR's, which turns the answers into boxes in the image's own pixels, as `pipeline("object-detection")` asks.

    Args:
        image_processor: whose interpolation, mean and standard deviation it gets; a detector's own stays as it is.
        image_size: pixels, one number or `(height, width)`, of what the network takes.
    """
    if hasattr(image_processor, "post_process_object_detection"):
        return image_processor
    height, width = size_pair("image_size", image_size)
    mean, std = normalization(image_processor)
    return DetrImageProcessor(
        size={"max_height": height, "max_width": width},
        pad_size={"height": height, "width": width},
        image_mean=mean,
        image_std=std,
        resample=undeclared(image_processor).resample,
    )


def undeclared(image_processor: Any) -> Any:
    """Return the image processor for type checkers to trust: its base class declares neither sizes nor mean and std."""
    return image_processor


def normalization(image_processor: BaseImageProcessor) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation of each channel, by which an image processor normalizes."""
    processor = undeclared(image_processor)
    return list(processor.image_mean), list(processor.image_std)


def output_size(image_processor: BaseImageProcessor) -> tuple[int, int]:
    """Return `(height, width)` in pixels of what an image processor makes."""
    crop_size = getattr(image_processor, "crop_size", None)
    crops = crop_size is not None and getattr(image_processor, "do_center_crop", False)
    size: Any = crop_size if crops else undeclared(image_processor).size
    sides: dict[str, int] = dict(size)
    if "shortest_edge" in sides:
        return sides["shortest_edge"], sides["shortest_edge"]
    if "max_height" in sides:  # into which the whole image fits
        return sides["max_height"], sides["max_width"]
    return sides["height"], sides["width"]


def with_output_size(image_processor: BaseImageProcessor, image_size: int | list[int]) -> BaseImageProcessor:
    """Return an image processor that makes images of another size, and is otherwise the same.

    Args:
        image_processor: of any class with `size`, and with `crop_size` if it crops: the fraction that it crops stays.
        image_size: pixels, one number or `(height, width)`.
    """
    old, new = output_size(image_processor), size_pair("image_size", image_size)
    settings, sides = image_processor.to_dict(), dict(undeclared(image_processor).size)
    if "max_height" in sides:
        settings["size"] = {"max_height": new[0], "max_width": new[1]}
        settings["pad_size"] = {"height": new[0], "width": new[1]}
        return undeclared(type(image_processor)).from_dict(settings)
    resized = (sides.get("height") or sides["shortest_edge"], sides.get("width") or sides["shortest_edge"])
    height, width = (side * after // before for side, after, before in zip(resized, new, old))
    keeps_shape = "shortest_edge" in sides and new[0] == new[1]
    settings["size"] = {"shortest_edge": height} if keeps_shape else {"height": height, "width": width}
    if settings.get("crop_size"):
        settings["crop_size"] = {"height": new[0], "width": new[1]}
    return undeclared(type(image_processor)).from_dict(settings)


def without_resizing(image_processor: BaseImageProcessor) -> BaseImageProcessor:
    """Return an image processor that leaves images of any size as large as they are, and is otherwise the same."""
    settings = {**image_processor.to_dict(), "do_resize": False, "do_center_crop": False}
    return undeclared(type(image_processor)).from_dict(settings)
