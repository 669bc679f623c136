"""What an image's target is, by `--problem_type`: how data are loaded, read and changed."""

from collections.abc import Callable
from functools import partial
from typing import Any

from datasets import Dataset
from transformers.image_processing_utils import BaseImageProcessor

from .detection import load_objects
from .image_data import ImageData
from .labeled import load_data
from .loaders import EvalImages, TrainImages
from .masks import IGNORED, EvalPairs, TrainPairs
from .objects import EvalObjects, TrainObjects
from .options import AugmentationOptions, DataOptions
from .segmentation import load_masks, mask_format
from .transforms import JointTransform, ObjectTransform, detection_inputs, eval_transform, train_transform


def load_images(options: DataOptions, streaming: bool = False, min_labels: int = 2, hold_out: bool = True) -> ImageData:
    """Load the data that the options name, with labels, masks or objects; see `load_data`."""
    if options.problem_type == "segmentation":
        return load_masks(options, hold_out)
    if options.problem_type == "detection":
        return load_objects(options, hold_out)
    return load_data(options, streaming, min_labels, hold_out)


def train_images(options: DataOptions, classes: int) -> Callable[[Dataset, Any, bool], TrainImages]:
    """Return what makes training images with their targets of a data set, as `TrainLoader` asks."""
    if options.problem_type == "segmentation":
        return partial(TrainPairs, masks=mask_format(options, classes))
    if options.problem_type == "detection":
        return partial(TrainObjects, with_masks=not options.box_only)
    return TrainImages


def eval_images(options: DataOptions, classes: int) -> Callable[[Dataset, Any, bool], EvalImages]:
    """Return what makes images with their targets of a data set, as `eval_loader` asks."""
    if options.problem_type == "segmentation":
        return partial(EvalPairs, masks=mask_format(options, classes))
    if options.problem_type == "detection":
        return partial(EvalObjects, with_masks=not options.box_only)
    return EvalImages


def training_changes(
    problem_type: str, processor: BaseImageProcessor, options: AugmentationOptions
) -> Callable[..., Any]:
    """Return what happens to training images, and to their targets if it concerns these, at random."""
    if problem_type == "segmentation":
        return JointTransform(processor, options, IGNORED)
    if problem_type == "detection":
        return ObjectTransform(processor, options)
    return train_transform(processor, options)


def evaluation_inputs(problem_type: str, processor: BaseImageProcessor) -> Callable[..., Any]:
    """Return what makes of an image what its network takes in evaluation, as the saved image processor does."""
    return detection_inputs(processor) if problem_type == "detection" else eval_transform(processor)
