"""Talking heads: attention heads that hear each other, before softmax and after it.

    weights = softmax(A @ logits + a + mask)      over the heads, at each pair of tokens
    output  = (C @ weights + c) @ v

Two kinds: `"linear"` has the matrices `A` and `C`, `"affine"` their biases too, one number a head, as CaiT. Every logit
and every weight is read by all heads, so both have to exist: there is no fused kernel of them.

Source: "Talking-Heads Attention", Shazeer et al., arXiv 2003.02436.
"""

import torch
from torch import nn
from transformers import initialization as init

from .attention_options import AttentionOptions


class HeadMixing(nn.Module):
    """A linear map over heads; before training it changes nothing.

    It has a method and no forward: hooks would take a static map, which is a parameter and may be what is mixed, for
    a leaf.
    """

    def __init__(self, num_heads: int, bias: bool):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_heads, num_heads))
        self.bias = nn.Parameter(torch.empty(num_heads)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        init.copy_(self.weight, torch.eye(self.weight.shape[0]))
        if self.bias is not None:
            init.zeros_(self.bias)

    def mix(self, heads: torch.Tensor) -> torch.Tensor:
        """Return heads `(batch, heads, queries, keys)`, each made of all."""
        mixed = torch.einsum("gh,bhqk->bgqk", self.weight, heads)
        return mixed if self.bias is None else mixed + self.bias[:, None, None]


class TalkingHeads(nn.Module):
    """The two maps of a layer: `before`, of the logits, and `after`, of the weights."""

    def __init__(self, num_heads: int, kind: str):
        super().__init__()
        self.before = HeadMixing(num_heads, bias=kind == "affine")
        self.after = HeadMixing(num_heads, bias=kind == "affine")


def build_talking_heads(options: AttentionOptions) -> TalkingHeads | None:
    """Return the maps that the options ask for, or None."""
    return None if options.talking_heads is None else TalkingHeads(options.num_heads, options.talking_heads)
