"""What happens to images on their way to the model: timm's augmentation, or the image processor in evaluation."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image as PILImage
from timm.data import Mixup, create_transform
from timm.data.random_erasing import RandomErasing
from torchvision import transforms, tv_tensors
from torchvision.transforms import InterpolationMode, v2
from transformers.image_processing_utils import BaseImageProcessor

from ..image_processing import normalization, output_size, undeclared
from .options import AugmentationOptions

Transform = Callable[[PILImage.Image], torch.Tensor]
# PIL's numbers, which image processors hold
INTERPOLATIONS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}


def eval_transform(processor: BaseImageProcessor) -> Transform:
    """Exactly what the saved image processor does; `(channels, height, width)`."""
    return lambda image: processor(image, return_tensors="pt").pixel_values[0]


class Scaling:
    """From an RGB image to float32 `(channels, height, width)` of this mean and standard deviation.

    As torchvision's ToTensor and Normalize, to rounding, in a quarter of their time for small images.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean = torch.tensor(mean).view(-1, 1, 1) * 255
        self.factor = 1 / (torch.tensor(std).view(-1, 1, 1) * 255)

    def __call__(self, image: PILImage.Image) -> torch.Tensor:
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        return pixels.to(torch.float32, memory_format=torch.contiguous_format).sub_(self.mean).mul_(self.factor)


def train_transform(processor: BaseImageProcessor, options: AugmentationOptions) -> Transform:
    """Random changes, then the image processor's own scaling of values; `(channels, height, width)`.

    In order: rotation, crop (resized, or padded), flips, color jitter, RandAugment or the like, scaling, erasing.

    Args:
        processor: whose size, interpolation, mean and standard deviation the images get.
        options: which changes, and how much.

    Raises:
        ValueError: if timm does not know the `auto_augment` policy.
    """
    if options.auto_augment is not None:
        check_policy(options.auto_augment)
    size = output_size(processor)
    interpolation = INTERPOLATIONS[int(undeclared(processor).resample)]
    mean, std = normalization(processor)
    settings: dict[str, Any] = {
        "scale": tuple(options.crop_scale),
        "ratio": tuple(options.crop_ratio),
        "hflip": options.hflip,
        "vflip": options.vflip,
        "color_jitter": None,
        "auto_augment": options.auto_augment,
        "interpolation": interpolation,
        "mean": tuple(mean),  # which fills what RandAugment leaves empty
        "std": tuple(std),
    }
    try:
        timms: Any = create_transform((3, *size), is_training=True, separate=True, **settings)
    except (AssertionError, KeyError) as error:
        raise ValueError(describe_bad_policy(str(options.auto_augment))) from error
    crop, colors, _ = timms
    steps = [crop, colors, Scaling(mean, std)]
    if options.random_erasing:
        steps.append(RandomErasing(options.random_erasing, mode="pixel", device="cpu"))
    if options.color_jitter:  # timm leaves it out beside RandAugment
        steps.insert(1, transforms.ColorJitter(*[options.color_jitter] * 3))
    if options.crop_padding:
        flips = crop.transforms[1:]
        resize = transforms.Resize(size, InterpolationMode(interpolation))
        steps[:1] = [resize, transforms.RandomCrop(size, padding=options.crop_padding), *flips]
    if options.rotation:
        steps.insert(0, transforms.RandomRotation(options.rotation, InterpolationMode.BILINEAR))
    return transforms.Compose(steps)


class JointTransform:
    """Random changes of an image and its mask together, then the image processor's own scaling of values.

    In order: large-scale jitter (arXiv 2012.07177), crop, flips, color jitter. The jitter resizes an image to a random
    factor on the size at which it fits into the crop; what a smaller one leaves of the crop is the mean color, without
    a class.

    Args:
        processor: whose size, interpolation, mean and standard deviation the images get.
        options: which changes, and how much.
        ignored: the number of pixels without a class.
    """

    def __init__(self, processor: BaseImageProcessor, options: AugmentationOptions, ignored: int) -> None:
        size = output_size(processor)
        mean, std = normalization(processor)
        interpolation = InterpolationMode(INTERPOLATIONS[int(undeclared(processor).resample)])
        fill: Any = {tv_tensors.Image: [255 * value for value in mean], tv_tensors.Mask: ignored}
        low, high = options.scale_jitter
        jitter = [options.color_jitter] * 3
        self.changes = v2.Compose(
            [
                v2.ScaleJitter(size, (low, high), interpolation),
                v2.RandomCrop(size, pad_if_needed=True, fill=fill),
                v2.RandomHorizontalFlip(options.hflip),
                v2.RandomVerticalFlip(options.vflip),
                *([v2.ColorJitter(*jitter)] if options.color_jitter else []),
                v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True),
                v2.Normalize(mean, std),
            ]
        )

    def __call__(self, image: PILImage.Image, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return an image `(channels, height, width)` and its mask `(height, width)` of int64, of the crop's size."""
        changed, classes = self.changes(v2.functional.to_image(image), tv_tensors.Mask(mask.to(torch.uint8)))
        return changed.as_subclass(torch.Tensor), classes.as_subclass(torch.Tensor).to(torch.int64)


def check_policy(policy: str) -> None:
    """ValueError if timm would pass over a section of the policy: one that is neither a number nor a set's name."""
    if not all(re.fullmatch(r"[a-z]+\d+(\.\d+)?|t[a-z0-9]*", section) for section in policy.split("-")[1:]):
        raise ValueError(describe_bad_policy(policy))


def describe_bad_policy(policy: str) -> str:
    return (
        f"--auto_augment {policy} is not a policy of timm: expected one such as rand-m9-mstd0.5-inc1, augmix-m3-w3 or"
        " original."
    )


def make_mixup(options: AugmentationOptions, num_labels: int, label_smoothing: float = 0.0) -> Mixup | None:
    """Return timm's Mixup and CutMix as the options say, None if neither is on."""
    if not options.mixes:
        return None
    return Mixup(
        mixup_alpha=options.mixup,
        cutmix_alpha=options.cutmix,
        prob=options.mixup_prob,
        switch_prob=options.mixup_switch_prob,
        mode=options.mixup_mode,
        label_smoothing=label_smoothing,
        num_classes=num_labels,
    )
