"""A few numbers by which to tell whether a model is the one that was measured."""

import torch
from transformers import PreTrainedModel

from ..models.configuration_checks import size_pair

LENGTH = 16


@torch.no_grad()
def fingerprint(model: PreTrainedModel) -> list[float]:
    """Return the first of a model's logits, or a detector's scores, for an image of noise that is always the same.

    Args:
        model: on the CPU; its mode is left as it was.
    """
    was_training = model.training
    generator = torch.Generator().manual_seed(0)
    size = size_pair("image_size", model.config.image_size)
    image = torch.randn(1, model.config.num_channels, *size, generator=generator).to(model.dtype)
    logits = model.eval()(image).logits.float()
    model.train(was_training)
    numbers = object_scores(logits) if is_detector(model) else logits
    return numbers[0].flatten()[:LENGTH].tolist()


def is_detector(model: PreTrainedModel) -> bool:
    return "ForObjectDetection" in type(model).__name__


def object_scores(logits: torch.Tensor) -> torch.Tensor:
    """Return a detector's scores of objects, `(batch, objects)`, best first, of its logits."""
    return logits.softmax(-1)[..., :-1].amax(-1)
