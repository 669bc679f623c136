"""The problems that a model is trained for and measured on, by `--problem_type`."""

from transformers import PretrainedConfig, PreTrainedModel
from transformers.image_processing_utils import BaseImageProcessor

from ..pretrained import load_classifier, load_detector, load_segmenter
from .detection import DETECTION
from .multi_label import MULTI_LABEL
from .predictions import Problem
from .segmentation import SEGMENTATION
from .single_label import SINGLE_LABEL

PROBLEMS: dict[str, Problem] = {
    "single_label": SINGLE_LABEL,
    "multi_label": MULTI_LABEL,
    "segmentation": SEGMENTATION,
    "detection": DETECTION,
}


def load_for(problem_type: str, name: str) -> tuple[PreTrainedModel, BaseImageProcessor, Problem]:
    """Return a trained model for a problem of this type, its image processor, and the problem.

    Raises:
        ValueError: if it cannot be loaded, or was trained for another problem.
    """
    if problem_type == "segmentation":
        return *load_segmenter(name), SEGMENTATION
    if problem_type == "detection":
        return *load_detector(name), DETECTION
    model, processor = load_classifier(name)
    return model, processor, choose_problem(problem_type, name, model.config)


def choose_problem(problem_type: str, model: str, config: PretrainedConfig) -> Problem:
    """Return the problem of this type; ValueError if the classifier was trained for another one."""
    own = "multi_label" if config.problem_type == MULTI_LABEL.config_type else "single_label"
    if own != problem_type:
        raise ValueError(f"model {model} was trained with --problem_type {own}, and the data is {problem_type}.")
    return PROBLEMS[problem_type]
