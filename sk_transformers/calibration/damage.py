"""How far a network with replaced layers is from the untouched one, on images that it was not calibrated on."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch.nn import functional as F

from .layerwise import LayeredNetwork, Outputs


@dataclass
class Reference:
    """What the untouched network makes of the images held out, in the CPU's memory.

    Args:
        outputs: of all of them.
        labels: `(images,)`, the right classes, or None where they are not known.
        variance: of the last hidden states, summed over images, tokens and channels, and over processes.
    """

    outputs: Outputs
    labels: torch.Tensor | None
    variance: float


def make_reference(
    accelerator: Accelerator, network: LayeredNetwork, tokens: torch.Tensor, labels: torch.Tensor | None
) -> Reference:
    """Return the outputs of a network on images kept as tokens before its first layer."""
    batches = list(network.outputs_from(0, tokens))
    hidden = torch.cat([batch.last_hidden_state.cpu() for batch in batches])
    pooled = torch.cat([batch.pooled.cpu() for batch in batches])
    of_classifier = [batch.logits.cpu() for batch in batches if batch.logits is not None]
    logits = torch.cat(of_classifier) if of_classifier else None
    rows = hidden.double().flatten(0, 1)
    sums = torch.cat([torch.tensor([len(rows)]), rows.sum(0), rows.square().sum(0)])
    count, first, second = sum_over_processes(accelerator, sums).split([1, hidden.shape[-1], hidden.shape[-1]])
    variance = float((second - first.square() / count).sum())
    return Reference(Outputs(hidden, pooled, logits), labels, variance)


def measure_damage(accelerator: Accelerator, outputs: Iterable[Outputs], reference: Reference) -> dict[str, float]:
    """Return how far outputs, in batches, are from the reference.

    Returns:
        `error`, the unexplained variance of the last hidden states, `sum (o - t)^2 / sum (t - mean t)^2`; `cosine`, the
        mean cosine of the pooled outputs; of a classifier `agreement`, the fraction of images that get the same class;
        and with labels `top1`.
    """
    sums = torch.zeros(5, dtype=torch.float64)
    end = 0
    for batch in outputs:
        start, end = end, end + len(batch.pooled)
        wanted = reference.outputs.images(start, end)
        sums[0] += len(wanted.pooled)
        sums[1] += (batch.last_hidden_state.cpu().double() - wanted.last_hidden_state.double()).square().sum()
        sums[2] += F.cosine_similarity(batch.pooled.cpu().double(), wanted.pooled.double(), dim=-1).sum()
        if batch.logits is not None and wanted.logits is not None:
            classes = batch.logits.argmax(-1).cpu()
            sums[3] += (classes == wanted.logits.argmax(-1)).sum()
            if reference.labels is not None:
                sums[4] += (classes == reference.labels[start:end]).sum()
    images, squares, cosine, same, right = sum_over_processes(accelerator, sums).tolist()
    damage = {"error": squares / reference.variance, "cosine": cosine / images}
    if reference.outputs.logits is not None:
        damage["agreement"] = same / images
        if reference.labels is not None:
            damage["top1"] = right / images
    return damage


def sum_over_processes(accelerator: Accelerator, sums: torch.Tensor) -> torch.Tensor:
    """Return sums of all processes, in float64 where the device has it."""
    if accelerator.num_processes == 1:
        return sums
    dtype = torch.float32 if accelerator.device.type == "mps" else torch.float64
    summed = accelerator.reduce(sums.to(accelerator.device, dtype), "sum")
    assert isinstance(summed, torch.Tensor)
    return summed.cpu().double()
