"""Which images calibrate and which measure."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from ..data.fingerprint import digest
from ..data.image_data import ImageData
from ..data.labeled import load_data
from ..data.loaders import eval_loader
from ..data.options import DataOptions
from ..data.transforms import eval_transform
from ..data.unlabeled import load_unlabeled
from ..evaluation.predictions import map_labels
from ..models.static_key import SelfAttention
from ..pretrained import class_names
from .layerwise import BATCH_SIZE
from .options import FitOptions
from .source import Source

LEAST_IMAGES = 16  # a mean of fewer maps is no mean


def load_images(options: DataOptions, fit: FitOptions, source: Source) -> tuple[ImageData, torch.Tensor | None]:
    """Return the images that a source is calibrated with, and the model's class of each of their labels.

    Labels are read for a classifier, unless the options leave them out.

    Raises:
        ValueError: if there are no such images, too few, or with labels that the network does not know.
    """
    if not fit.labels or not hasattr(source.model, "classifier"):
        return divide(load_unlabeled(options), fit), None
    if options.problem_type != "single_label":
        raise ValueError(
            f"--problem_type {options.problem_type}: a calibration measures the accuracy of one label an image; pass"
            " --no-labels."
        )
    advice = "Pass --no-labels to calibrate without labels."
    try:
        data = load_data(options, min_labels=1, hold_out=False)
        return divide(data, fit), map_labels(data.labels, class_names(source.model.config))
    except ValueError as error:
        raise ValueError(
            f"{error} {advice}" if "label" in str(error) or "class" in str(error) else str(error)
        ) from error


def divide(data: ImageData, fit: FitOptions) -> ImageData:
    """Return images that calibrate as `train` and others that measure as `validation`, both at random.

    Without a validation split of their own, those held out are a part of the same images: a quarter where there are
    few.
    """
    images: Any = data.train  # no stream: none was asked for
    order = np.random.default_rng(fit.seed).permutation(len(images))
    if data.validation is images:
        held_out = min(fit.held_out, len(order) // 4)
        train, validation = images.select(order[held_out : held_out + fit.max_images]), images.select(order[:held_out])
    else:
        train = images.select(order[: fit.max_images])
        order = np.random.default_rng(fit.seed).permutation(len(data.validation))
        validation = data.validation.select(order[: fit.held_out])
    if len(train) < LEAST_IMAGES or not len(validation):
        raise ValueError(
            f"{data.name} gives {len(train)} images to calibrate with and {len(validation)} held out, expected at least"
            f" {LEAST_IMAGES} and 1: add images, or raise --max_images and --held_out."
        )
    counts = {"train": [len(train)], "validation": [len(validation)]}
    files = digest([str(data.fingerprint["files"]), f"{fit.max_images} {fit.held_out} {fit.seed}"])
    fingerprint = {**data.fingerprint, "images": counts, "files": files}
    return replace(data, train=train, validation=validation, train_images=len(train), fingerprint=fingerprint)


def check_enough(data: ImageData, kinds: list[str], source: Source) -> None:
    """Raise ValueError if images are fewer than the numbers that a fit has for each of them."""
    config: Any = source.model.config
    mixer: Any = next(module for module in source.model.modules() if isinstance(module, SelfAttention))
    conv = next((kind for kind in kinds if kind.startswith("conv")), None)
    if conv and mixer.num_class_tokens and (data.train_images or 0) < config.head_dim:
        raise ValueError(
            f"{conv} fits keys of {config.head_dim} channels to the class token, which is one query an image: expected"
            f" at least {config.head_dim} images to calibrate with, and {data.name} gives {data.train_images}."
        )


def loader_of(images: Any, source: Source, options: DataOptions, process: int = 0, processes: int = 1) -> DataLoader:
    """Return this process's share of images in batches, as the network's image processor makes them."""
    data = images.select(range(process, len(images), processes))
    transform = eval_transform(source.processor)
    return eval_loader(data, transform, BATCH_SIZE, options.num_workers, options.skip_unreadable)
