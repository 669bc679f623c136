"""The entropy of attention in the course of a run, on the same few images each time.

Where it drops to 0, heads look at one token each, and training may become unstable: "Stabilizing Transformer Training
by Preventing Attention Entropy Collapse", arXiv 2303.06296.
"""

import torch
from accelerate import Accelerator
from datasets import Dataset
from torch import nn

from ..data.loaders import EvalImages
from ..data.transforms import Transform
from ..evaluation.attention_quantities import attention_entropy

PROBE_IMAGES = 16
PREFIX = "attention_entropy_layer_"  # of its names in the history and in trackers, before the layer's number


def probe_images(data: Dataset, transform: Transform, skip_unreadable: bool) -> torch.Tensor:
    """Return the first validation images, `(images, channels, height, width)`, on every process the same."""
    images = EvalImages(data, transform, skip_unreadable)
    return torch.stack([images[index]["pixel_values"] for index in range(min(PROBE_IMAGES, len(images)))])


@torch.no_grad()
def attention_entropies(accelerator: Accelerator, model: nn.Module, images: torch.Tensor) -> dict[str, float]:
    """Return the mean entropy of each layer that attends, in nats, over images, heads and queries.

    The model is left in evaluation mode.
    """
    model.eval()
    with accelerator.autocast():
        layers = model(pixel_values=images.to(accelerator.device), output_attentions=True).attentions
    return {f"{PREFIX}{number}": attention_entropy(weights).mean().item() for number, weights in enumerate(layers, 1)}
