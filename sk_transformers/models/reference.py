"""Static key attention as the paper has it: the equations and nothing else.

What runs in a network is faster (`attention.py` chooses) and is tested against these functions.

Source: "Static Key Attention in Vision", Hu, Zhou, Rostami, arXiv 2412.07049. With `d` channels a head,

    SKA    out = softmax(q @ K.T * d**-0.5) @ v
    CSKA   out = softmax((conv3x3(q) with the weight K + b) * d**-0.5) @ v

The authors' released Swin has, in CSKA's place, a key of the usual size that is a convolution of the queries:

    key    out = softmax(q @ conv3x3(q).T * d**-0.5) @ v

Without a source in the paper: a bias `B` of the logits that is a parameter, added to those of either as a mask, and

    map    out = softmax(B) @ v

Any of them may have another of `normalizations.py` in softmax's place, and talking heads around it.
"""

import torch
from torch.nn import functional as F

from .normalizations import normalize
from .talking_heads import TalkingHeads


def static_key_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return SKA's output `(batch, heads, N, d)` and weights `(batch, heads, N, N)`; the key is `(heads, N, d)`."""
    return softmax_attention(static_key_logits(query, key) * scaling, value)


def conv_static_key_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    bias: torch.Tensor,
    value: torch.Tensor,
    grid_size: tuple[int, int],
    scaling: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return CSKA's output and weights, as above; the key is `(heads, N, 9 d)`, the bias `(heads, N)`."""
    return softmax_attention(conv_static_key_logits(query, key, bias, grid_size) * scaling, value)


def conv_key_attention(
    query: torch.Tensor, weight: torch.Tensor, value: torch.Tensor, grid_size: tuple[int, int], scaling: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the released form's output and weights, as above; the convolution's weight is `(heads * d, d, 3, 3)`."""
    maps = query.transpose(2, 3).flatten(1, 2).unflatten(2, grid_size)  # (batch, heads * d, height, width)
    key = F.conv2d(maps, weight, padding=1, groups=query.shape[1])
    logits = query @ key.flatten(2).unflatten(1, (query.shape[1], -1))
    return softmax_attention(logits * scaling, value)


def static_map(
    bias: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None = None,
    normalization: str = "softmax",
    talking_heads: TalkingHeads | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a static map's output and weights, as above; the bias is `(heads, N, N)`."""
    return softmax_attention(bias.expand(value.shape[0], -1, -1, -1), value, mask, normalization, talking_heads)


def static_key_logits(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """Return `q @ K.T`: `(batch, heads, queries, d)` by `(heads, keys, d)` is `(batch, heads, queries, keys)`."""
    return torch.einsum("bhqd,hkd->bhqk", query, key)


def conv_static_key_logits(
    query: torch.Tensor, key: torch.Tensor, bias: torch.Tensor, grid_size: tuple[int, int]
) -> torch.Tensor:
    """Return `logits[q, k] = bias[k] + sum over 3x3 offsets o and channels c of key[k, o, c] * query[q + o, c]`.

    It is a grouped convolution with one group a head and one output channel a key, zero outside the map.

    Args:
        query: `(batch, heads, height * width, d)`, on the grid `(height, width)`.
        key: `(heads, keys, 9 d)`: the weight of the convolution, channels last.
        bias: `(heads, keys)`.
    """
    maps = query.transpose(2, 3).flatten(1, 2).unflatten(2, grid_size)  # (batch, heads * d, height, width)
    neighbors = F.unfold(maps, kernel_size=3, padding=1).unflatten(1, (key.shape[0], -1, 9))
    return torch.einsum("bhcoq,hkoc->bhqk", neighbors, key.unflatten(2, (9, -1))) + bias[:, None]


def softmax_attention(
    logits: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None = None,
    normalization: str = "softmax",
    talking_heads: TalkingHeads | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return `softmax(logits + mask) @ value` and the weights; the mask is additive.

    `normalization` names what takes softmax's place, see `normalizations.py`. With talking heads the weights are those
    before the heads are mixed again: of each query they sum to one.
    """
    logits = logits if talking_heads is None else talking_heads.before.mix(logits)
    weights = normalize(logits if mask is None else logits + mask, normalization)
    mixed = weights if talking_heads is None else talking_heads.after.mix(weights)
    return mixed @ value, weights
