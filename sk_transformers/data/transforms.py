"""What happens to images on their way to the model: timm's augmentation, or the image processor in evaluation."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image as PILImage
from timm.data import Mixup, create_transform
from timm.data.random_erasing import RandomErasing
from timm.data.transforms import RandomResizedCropAndInterpolation
from torch import nn
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


def detection_inputs(processor: BaseImageProcessor) -> Callable[[PILImage.Image], dict[str, torch.Tensor]]:
    """The same for a detector: `pixel_values` `(channels, height, width)`, and `pixel_mask` `(height, width)`."""

    def inputs(image: PILImage.Image) -> dict[str, torch.Tensor]:
        made = processor(image, return_tensors="pt")
        return {name: made[name][0] for name in ("pixel_values", "pixel_mask") if name in made}

    return inputs


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


class TorchResizedCrop:
    """timm's random resized crop of an RGB image, resized by torch.

    That takes a third of Pillow's time, and is what image processors do in evaluation. A few values of a thousand
    differ from Pillow's by one of 255, seldom by two.
    """

    def __init__(self, crop: RandomResizedCropAndInterpolation, interpolation: str) -> None:
        self.crop, self.interpolation = crop, interpolation

    def __call__(self, image: PILImage.Image) -> PILImage.Image:
        top, left, height, width = self.crop.get_params(image, self.crop.scale, self.crop.ratio)
        part = torch.from_numpy(np.array(image.crop((left, top, left + width, top + height))))
        maps = part.permute(2, 0, 1).unsqueeze(0)
        resized = nn.functional.interpolate(maps, self.crop.size, mode=self.interpolation, antialias=True)
        return PILImage.fromarray(resized[0].permute(1, 2, 0).numpy())


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
    if interpolation in ("bilinear", "bicubic"):  # which torch has for bytes
        crop.transforms[0] = TorchResizedCrop(crop.transforms[0], interpolation)
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
        self.size = output_size(processor)
        mean, std = normalization(processor)
        self.interpolation = InterpolationMode(INTERPOLATIONS[int(undeclared(processor).resample)])
        fill: Any = {tv_tensors.Image: [255 * value for value in mean], tv_tensors.Mask: ignored}
        self.scale_jitter = options.scale_jitter
        jitter = [options.color_jitter] * 3
        self.changes = v2.Compose(
            [
                v2.RandomCrop(self.size, pad_if_needed=True, fill=fill),
                v2.RandomHorizontalFlip(options.hflip),
                v2.RandomVerticalFlip(options.vflip),
                *([v2.ColorJitter(*jitter)] if options.color_jitter else []),
                v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True),
                v2.Normalize(mean, std),
            ]
        )

    def change(self, image: PILImage.Image, *targets: torch.Tensor) -> list[torch.Tensor]:
        """Return an image `(channels, height, width)` and its targets, tensors of torchvision, all changed alike."""
        low, high = self.scale_jitter
        scale = low + torch.rand(1).item() * (high - low)
        # Not v2.ScaleJitter, which mistakes the height of what an image fits into for its width.
        factor = scale * min(self.size[0] / image.height, self.size[1] / image.width)
        size = [max(1, int(side * factor)) for side in (image.height, image.width)]
        parts = (v2.functional.to_image(image), *targets)
        resized = [v2.functional.resize(part, size, self.interpolation, antialias=True) for part in parts]
        changed = self.changes(*resized) if targets else [self.changes(*resized)]
        return [part.as_subclass(torch.Tensor) for part in changed]

    def __call__(self, image: PILImage.Image, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return an image `(channels, height, width)` and its mask `(height, width)` of int64, of the crop's size."""
        changed, classes = self.change(image, tv_tensors.Mask(mask.to(torch.uint8)))
        return changed, classes.to(torch.int64)


class ObjectTransform(JointTransform):
    """The same changes of an image and its objects, which become labels of a detector.

    What a crop leaves of a box is cut to what it leaves of the object's mask, if there is one. Objects of which less
    than a pixel a side is left are no more.
    """

    def __init__(self, processor: BaseImageProcessor, options: AugmentationOptions) -> None:
        super().__init__(processor, options, ignored=0)

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride] (another target)
        self, image: PILImage.Image, objects: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return an image `(channels, height, width)` and its labels, see `Detector.forward`.

        Args:
            image: as it was read.
            objects: `boxes` `(objects, 4)` of two corners in pixels, `classes` `(objects,)`, and `masks`
                `(objects, height, width)` of uint8 if the detector is to have them.
        """
        canvas = (image.height, image.width)
        boxes: Any = tv_tensors.BoundingBoxes(objects["boxes"], format="XYXY", canvas_size=canvas)  # pyright: ignore[reportCallIssue]
        masks = [tv_tensors.Mask(objects["masks"])] if "masks" in objects else []
        changed, corners, *masks = self.change(image, boxes, *masks)
        height, width = self.size
        corners = torch.minimum(corners.clamp(min=0), corners.new_tensor([width, height, width, height]))
        if masks:
            corners = cut_to_masks(corners, masks[0])
        keep = (corners[:, 2:] - corners[:, :2] >= 1).all(dim=1)
        low, high = corners[keep].split(2, dim=1)
        boxes = torch.cat([(low + high) / 2, high - low], dim=1) / corners.new_tensor([width, height, width, height])
        labels = {"boxes": boxes, "class_labels": objects["classes"][keep]}
        return changed, labels | ({"masks": masks[0][keep]} if masks else {})


def cut_to_masks(corners: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Return boxes `(objects, 4)` that reach at most a pixel beyond their masks `(objects, height, width)`.

    Those of empty masks have no area. A box that was right to a part of a pixel stays so.
    """
    sides = []
    for axis in (1, 2):  # what is left of the rows, that is columns, and of the columns
        inside = masks.bool().any(dim=axis)
        places = torch.arange(inside.shape[1]).expand_as(inside)
        first = places.masked_fill(~inside, inside.shape[1]).amin(dim=1)
        last = places.masked_fill(~inside, -1).amax(dim=1)
        sides.append((first - 1, last + 2))
    (left, right), (top, bottom) = sides
    low = torch.maximum(corners[:, :2], torch.stack([left, top], dim=1))
    return torch.cat([low, torch.minimum(corners[:, 2:], torch.stack([right, bottom], dim=1))], dim=1)


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
