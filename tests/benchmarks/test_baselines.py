"""The baselines compute what our networks do: else a ratio of times would say nothing."""

import pytest
import torch
from torch import nn

from sk_transformers.benchmarks import baselines
from sk_transformers.models.attention_options import AttentionOptions
from sk_transformers.models.grids import maps_to_tokens, tokens_to_maps
from sk_transformers.models.static_key import ConvStaticKeyAttention, StaticKeyAttention


def mixer_of(mixer_class):
    torch.manual_seed(0)
    mixer = mixer_class(AttentionOptions(12, (3, 4), num_heads=2, head_dim=5, output_bias=False)).double()
    for parameter in mixer.parameters():
        nn.init.normal_(parameter)
    return mixer


@pytest.mark.parametrize("mixer_class", [StaticKeyAttention, ConvStaticKeyAttention])
def test_a_reference_mixer_is_ours(mixer_class):
    mixer = mixer_of(mixer_class)
    plain = baselines.ReferenceMixer(mixer)
    tokens = torch.randn(3, 12, 12, dtype=torch.float64)
    torch.testing.assert_close(plain(tokens)[0], mixer(tokens)[0])
    assert sum(p.numel() for p in plain.parameters()) == sum(p.numel() for p in mixer.parameters())
    maps = tokens_to_maps(tokens, (3, 4))
    torch.testing.assert_close(maps_to_tokens(baselines.OnMaps(plain)(maps)), mixer(tokens)[0])


def test_the_plain_network_has_the_published_size():
    with torch.device("meta"):
        network = baselines.plain_cskaformer_s18()
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(28.983e6, rel=1e-4)
