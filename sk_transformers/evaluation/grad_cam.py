"""Grad-CAM of networks whose stages are maps. Source: Selvaraju et al., arXiv 1610.02391."""

import torch
from torch.nn import functional as F
from transformers import PreTrainedModel


def grad_cam(model: PreTrainedModel, pixel_values: torch.Tensor, classes: torch.Tensor) -> list[torch.Tensor]:
    """Return for the map of each stage where it speaks for a class, `(images, height, width)`, none below 0.

    Channels are weighed by the mean gradient of the class's logit; what is left speaks for the class. A last map that
    no logit is made of is left out: a class token has read the one before.

    Args:
        model: a classifier whose hidden states are maps `(images, channels, height, width)`, as SKFormer's.
        pixel_values: `(images, channels, height, width)`.
        classes: `(images,)`, whose logits are looked at.
    """
    with torch.enable_grad():
        # Of the image, since a frozen network's maps would have no gradient.
        outputs = model(pixel_values.detach().requires_grad_(), output_hidden_states=True)
        maps = outputs.hidden_states
        chosen = outputs.logits.gather(1, classes[:, None]).sum()
        gradients = torch.autograd.grad(chosen, maps, allow_unused=True)
    return [
        F.relu((gradient.mean(dim=(2, 3), keepdim=True) * hidden).sum(dim=1)).detach()
        for gradient, hidden in zip(gradients, maps)
        if gradient is not None
    ]
