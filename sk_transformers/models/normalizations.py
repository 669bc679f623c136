"""What makes attention weights of logits: softmax, and two that can give keys a weight of exactly zero.

    softmax      exp(z - tau)
    sparsemax    max(z - tau, 0)             "From Softmax to Sparsemax", arXiv 1602.02068
    entmax15     max(z / 2 - tau, 0) ** 2    "Sparse Sequence-to-Sequence Models", arXiv 1905.05702

`tau` is the number of each row with which its weights sum to one. The sparse two are exact: sorting finds which keys
have weight, and given those `tau` is a formula of their logits, which autograd differentiates. They compute in float32
or float64, and there is no fused kernel of them.
"""

import torch


def normalize(logits: torch.Tensor, normalization: str = "softmax") -> torch.Tensor:
    """Return weights over the last axis, of the logits' shape and dtype, by a name of `ATTENTION_NORMALIZATIONS`."""
    if normalization == "softmax":
        return logits.softmax(dim=-1)
    weights = {"sparsemax": sparsemax, "entmax15": entmax15}[normalization]
    return weights(logits if logits.dtype == torch.float64 else logits.float()).to(logits.dtype)


def sparsemax(logits: torch.Tensor) -> torch.Tensor:
    """Return the point of the simplex that is nearest to the logits, over the last axis."""
    logits = from_largest(logits)
    with torch.no_grad():
        ordered, _ = logits.sort(dim=-1, descending=True)
        has_weight = ordered > (ordered.cumsum(dim=-1) - 1) / counts_to(ordered)
        support = logits >= smallest(ordered, has_weight)
    threshold = ((logits * support).sum(dim=-1, keepdim=True) - 1) / support.sum(dim=-1, keepdim=True)
    return (logits - threshold).clamp(min=0)


def entmax15(logits: torch.Tensor) -> torch.Tensor:
    """Return 1.5-entmax over the last axis, between softmax and sparsemax."""
    logits = from_largest(logits / 2)
    with torch.no_grad():
        ordered, _ = logits.sort(dim=-1, descending=True)
        counts = counts_to(ordered)
        means = ordered.cumsum(dim=-1) / counts
        deviations = ordered.square().cumsum(dim=-1) - counts * means.square()
        has_weight = ordered > means - ((1 - deviations) / counts).clamp(min=0).sqrt()
        support = logits >= smallest(ordered, has_weight)
    count = support.sum(dim=-1, keepdim=True)
    mean = (logits * support).sum(dim=-1, keepdim=True) / count
    deviation = ((logits - mean) * support).square().sum(dim=-1, keepdim=True)
    threshold = mean - ((1 - deviation) / count).sqrt()
    return (logits - threshold).clamp(min=0).square()


def from_largest(logits: torch.Tensor) -> torch.Tensor:
    """Return logits less the largest of their row, and at least -2.

    There is no weight from -1 on, and at -2 no rounding makes any: a mask may be as low as it likes.
    """
    return (logits - logits.detach().amax(dim=-1, keepdim=True)).clamp(min=-2)


def counts_to(ordered: torch.Tensor) -> torch.Tensor:
    """Return 1, 2, ... along the last axis."""
    return torch.arange(1, ordered.shape[-1] + 1, dtype=ordered.dtype, device=ordered.device)


def smallest(ordered: torch.Tensor, has_weight: torch.Tensor) -> torch.Tensor:
    """Return the smallest logit of each row that has weight, `(..., 1)`; the first always has."""
    return ordered.gather(-1, has_weight.sum(dim=-1, keepdim=True) - 1)
