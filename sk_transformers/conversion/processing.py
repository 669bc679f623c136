"""The image processor that belongs to a checkpoint."""

from math import floor
from typing import Any

from transformers import BitImageProcessor
from transformers.image_utils import PILImageResampling

from ..models.configuration_checks import size_pair

# What MetaFormer's authors evaluate with, and timm where a model says nothing else.
DEFAULT_DATA_CONFIG = {
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "crop_pct": 1.0,
    "crop_mode": "center",
    "interpolation": "bicubic",
}


def image_processor_for(image_size: int | tuple[int, int], data_config: dict[str, Any]) -> BitImageProcessor:
    """The processor that does what timm evaluates with: resize the shorter side, crop the middle, normalize.

    Args:
        image_size: pixels, one number or `(height, width)`, of what the network takes.
        data_config: `mean`, `std`, `crop_pct` (the crop's part of the resized image), `crop_mode` and
            `interpolation`, as timm names them; `DEFAULT_DATA_CONFIG` stands in for what is not there.
    """
    data_config = {**DEFAULT_DATA_CONFIG, **data_config}
    height, width = size_pair("image_size", image_size)
    scaled = [floor(side / data_config["crop_pct"]) for side in (height, width)]
    squash = data_config["crop_mode"] == "squash" or height != width
    return BitImageProcessor(
        size={"height": scaled[0], "width": scaled[1]} if squash else {"shortest_edge": scaled[0]},
        crop_size={"height": height, "width": width},
        image_mean=list(data_config["mean"]),
        image_std=list(data_config["std"]),
        resample=PILImageResampling[data_config["interpolation"].upper()],
    )
