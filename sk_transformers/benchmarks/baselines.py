"""What networks and mixers are compared with: timm's, transformers', and static keys as the equations are written.

The plain mixers are what one would write first, and what the authors' code does: keys copied over the batch, and logits
from a grouped convolution, `(batch, heads, positions, positions)`, that go through a softmax as a whole.
"""

from typing import Any

import timm
import torch
from torch import nn
from transformers import ViTConfig, ViTForImageClassification

from ..models.static_key import ConvStaticKeyAttention, StaticKeyAttention
from ..models.token_mixers import maps_to_tokens, tokens_to_maps


class PlainStaticKeyAttention(nn.Module):
    """SKA, `softmax(q @ K.T * d**-0.5) @ v`, of a mixer without class tokens, with its weights."""

    def __init__(self, mixer: StaticKeyAttention):
        super().__init__()
        self.q_proj, self.v_proj, self.o_proj, self.key = mixer.q_proj, mixer.v_proj, mixer.o_proj, mixer.key
        self.num_heads, self.head_dim = mixer.num_heads, mixer.head_dim

    def forward(self, hidden_states: torch.Tensor, *args: Any, **options: Any) -> tuple[torch.Tensor, None]:
        query, value = (
            projection(hidden_states).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for projection in (self.q_proj, self.v_proj)
        )
        key = self.key.unsqueeze(0).repeat(len(hidden_states), 1, 1, 1)
        weights = (query @ key.transpose(2, 3) * self.head_dim**-0.5).softmax(dim=-1)
        return self.o_proj((weights @ value).transpose(1, 2).flatten(2)), None


class PlainConvStaticKeyAttention(nn.Module):
    """CSKA: the same with the logits of a grouped 3x3 convolution over the map of queries."""

    def __init__(self, mixer: ConvStaticKeyAttention):
        super().__init__()
        self.q_proj, self.v_proj, self.o_proj = mixer.q_proj, mixer.v_proj, mixer.o_proj
        self.num_heads, self.head_dim, self.grid_size = mixer.num_heads, mixer.head_dim, mixer.grid_size
        heads, positions, _ = mixer.key.shape
        self.conv = nn.Conv2d(
            heads * self.head_dim, heads * positions, kernel_size=3, padding=1, groups=heads, dtype=mixer.key.dtype
        )
        with torch.no_grad():
            self.conv.weight.copy_(mixer.key.view(-1, 3, 3, self.head_dim).permute(0, 3, 1, 2))
            self.conv.bias.copy_(mixer.key_bias.flatten())

    def forward(self, hidden_states: torch.Tensor, *args: Any, **options: Any) -> tuple[torch.Tensor, None]:
        batch, positions, _ = hidden_states.shape
        query = self.q_proj(hidden_states).transpose(1, 2).unflatten(2, self.grid_size)
        value = self.v_proj(hidden_states).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
        logits = self.conv(query).reshape(batch, self.num_heads, positions, positions).transpose(2, 3)
        weights = (logits * self.head_dim**-0.5).softmax(dim=-1)
        return self.o_proj((weights @ value).transpose(1, 2).flatten(2)), None


class OnMaps(nn.Module):
    """A mixer of tokens in the place of one of timm's, which mix maps `(batch, channels, height, width)`."""

    def __init__(self, mixer: nn.Module):
        super().__init__()
        self.mixer = mixer

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        grid_size = tuple(maps.shape[2:])
        return tokens_to_maps(self.mixer(maps_to_tokens(maps), grid_size)[0], grid_size)


def plain_cskaformer_s18() -> nn.Module:
    """Return timm's CAFormer-S18 with plain CSKA in its second stage, as the authors built theirs."""
    network = timm.create_model("caformer_s18")
    for block in network.stages[1].blocks:
        mixer = ConvStaticKeyAttention(128, (28, 28), num_heads=8, head_dim=16, output_bias=False)
        block.token_mixer = OnMaps(PlainConvStaticKeyAttention(mixer))
    return network


def transformers_vit_base() -> nn.Module:
    """Return transformers' ViT-Base classifier, with `sdpa`."""
    return ViTForImageClassification(ViTConfig(num_labels=1000))
