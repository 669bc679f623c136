"""What our networks are compared with: timm's, transformers', and static keys by the reference."""

from typing import Any

import timm
import torch
from torch import nn
from transformers import ViTConfig, ViTForImageClassification

from ..models.attention_options import AttentionOptions
from ..models.grids import maps_to_tokens, tokens_to_maps
from ..models.static_key import ConvStaticKeyAttention


class ReferenceMixer(nn.Module):
    """A mixer computed as the equations are written: all logits are in memory, and no kernel is fused."""

    def __init__(self, mixer: nn.Module):
        super().__init__()
        self.mixer = mixer

    def forward(self, hidden_states: torch.Tensor, *args: Any, **options: Any) -> tuple[torch.Tensor, None]:
        return self.mixer(hidden_states, implementation="eager")[0], None


class OnMaps(nn.Module):
    """A mixer of tokens in the place of one of timm's, which mix maps `(batch, channels, height, width)`."""

    def __init__(self, mixer: nn.Module):
        super().__init__()
        self.mixer = mixer

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        grid_size = maps.shape[2], maps.shape[3]
        return tokens_to_maps(self.mixer(maps_to_tokens(maps), grid_size)[0], grid_size)


def plain_cskaformer_s18() -> nn.Module:
    """Return timm's CAFormer-S18 with plain CSKA in its second stage, as the authors built theirs."""
    network: Any = timm.create_model("caformer_s18")
    for block in network.stages[1].blocks:
        mixer = ConvStaticKeyAttention(AttentionOptions(128, (28, 28), num_heads=8, head_dim=16, output_bias=False))
        block.token_mixer = OnMaps(ReferenceMixer(mixer))
    return network


def transformers_vit_base() -> ViTForImageClassification:
    """Return transformers' ViT-Base classifier, with `sdpa`."""
    return ViTForImageClassification(ViTConfig.from_dict({"num_labels": 1000}))
