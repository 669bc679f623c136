"""Parameters and multiply-adds of a network, counted.

The counter is torch's own `FlopCounterMode`. It sees the operators that run, inside functions and in any formulation,
where counters that hook modules miss the products of attention; it works on the meta device, so that the largest
network at any size takes a second and no memory; and it comes with torch. It counts matrix products and convolutions
and nothing else, two operations for each multiply-add, as the literature does. A calculation by hand agrees to the
last digit (tests/test_complexity.py), and fvcore does to the rounding of its own formulas.
"""

import copy
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModelForImageClassification,
    AutoModelForObjectDetection,
    AutoModelForSemanticSegmentation,
    PretrainedConfig,
)

from .models.configuration_checks import size_pair


def count_parameters(config: PretrainedConfig) -> int:
    """Return the parameters of the image classifier with this configuration."""
    return _on_meta(config).num_parameters()


def count_macs(
    config: PretrainedConfig,
    image_size: int | tuple[int, int] | None = None,
    auto_class: Any = AutoModelForImageClassification,
) -> int:
    """Return the multiply-adds of the network with this configuration, for one image; see `macs_by_operator`."""
    return sum(macs_by_operator(config, image_size, auto_class).values())


def macs_by_operator(
    config: PretrainedConfig,
    image_size: int | tuple[int, int] | None = None,
    auto_class: Any = AutoModelForImageClassification,
) -> dict[str, int]:
    """Return the multiply-adds of the network with this configuration, for one image, by torch's names of operators.

    Layers are `addmm`, `mm` and `convolution`; `bmm` is the products in attention, with static keys too, which runs in
    its plain formulation and computes there what fused kernels compute. Resizing static keys or positions to another
    image size is not counted: in evaluation it happens once and not for each image.

    Args:
        config: of one of this package's networks.
        image_size: pixels, one number or `(height, width)`; None is the configuration's.
        auto_class: which makes the network: a classifier, a segmenter, a detector, or with AutoModel what is below
            their heads. A detector is counted with 1000 proposals and the masks of `detection_max_objects`.
    """
    height, width = size_pair("image_size", image_size or config.image_size)
    model = _on_meta(config, auto_class)
    asks = not config.has_stages and auto_class is not AutoModelForSemanticSegmentation
    options = {"interpolate_pos_encoding": True} if asks else {}
    pixel_values = torch.empty(1, config.num_channels, height, width, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        if auto_class is AutoModelForObjectDetection:  # whose proposals depend on the image
            model.run_each_part(pixel_values)
        else:
            model(pixel_values, **options)
    flops: dict[Any, int] = counter.get_flop_counts()["Global"]
    return {operator.__name__: count // 2 for operator, count in flops.items()}


def _on_meta(config: PretrainedConfig, auto_class: Any = AutoModelForImageClassification) -> Any:
    with torch.device("meta"):
        model = auto_class.from_config(copy.deepcopy(config), attn_implementation="eager")  # which it notes there
    return model.float().eval()  # whatever the weights are kept in, the count is the same
