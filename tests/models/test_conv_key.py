"""Attention with convolved keys beside plain loops over heads, windows and positions, in float64; what it refuses."""

import pytest
import torch
from torch.nn import functional as F

from sk_transformers import AttentionOptions, SKCvTConfig, SKSwinConfig, SKSwinModel, SKViTConfig
from sk_transformers.models.conv_key import ConvKeyAttention
from sk_transformers.models.reference import conv_key_attention

from ..support.networks import assert_close, drawn

HEADS, HEAD_DIM, SIDE = 2, 8, 4


def by_hand(mixer, tokens, grid, visible=None):
    """Return one image's output and weights, head by head; the key is a convolution of its queries."""
    mixed, all_weights = [], []
    for head in range(HEADS):
        channels = slice(HEAD_DIM * head, HEAD_DIM * (head + 1))
        query, value = (projection(tokens)[:, channels] for projection in (mixer.q_proj, mixer.v_proj))
        maps = query.T.reshape(1, HEAD_DIM, *grid)
        key = F.conv2d(maps, mixer.key_conv.weight[channels], padding=1).reshape(HEAD_DIM, -1)
        scale = HEAD_DIM**-0.5 if mixer.temperature is None else mixer.temperature.exp()
        logits = query @ key * scale
        if mixer.attention_bias is not None:
            logits = logits + mixer.attention_bias(grid)[head]
        if visible is not None:
            logits = logits.masked_fill(~visible, -torch.inf)
        all_weights.append(logits.softmax(dim=-1))
        mixed.append(all_weights[-1] @ value)
    return mixer.o_proj(torch.cat(mixed, dim=1)), torch.stack(all_weights)


@pytest.mark.parametrize(
    "options", [{}, {"qkv_bias": True, "attention_bias": "relative"}, {"learned_temperature": True}]
)
@pytest.mark.parametrize("grid", [(3, 5), (6, 4)])  # its own, and another
def test_the_key_is_a_convolution_of_the_queries(options, grid):
    mixer = drawn(ConvKeyAttention(AttentionOptions(12, (3, 5), HEADS, HEAD_DIM, **options)))
    tokens = torch.randn(2, grid[0] * grid[1], 12, dtype=torch.float64).requires_grad_()
    expected, weights = map(torch.stack, zip(*(by_hand(mixer, image, grid) for image in tokens)))
    cotangent = torch.randn_like(expected)
    parameters = [tokens, *mixer.parameters()]
    right = torch.autograd.grad(expected, parameters, cotangent)
    for implementation in ("sdpa", "eager"):
        output, _ = mixer(tokens, grid, implementation=implementation)
        assert_close(output, expected)
        for found, gradient in zip(torch.autograd.grad(output, parameters, cotangent), right):
            torch.testing.assert_close(found, gradient, rtol=1e-9, atol=1e-9)
    output, found = mixer(tokens, grid, output_attentions=True)
    assert_close(output, expected)
    assert_close(found, weights)


def test_the_reference():
    mixer = drawn(ConvKeyAttention(AttentionOptions(HEADS * HEAD_DIM, (3, 5), HEADS, HEAD_DIM, output_bias=False)))
    tokens = torch.randn(15, HEADS * HEAD_DIM, dtype=torch.float64)
    query, value = (p(tokens).unflatten(1, (HEADS, -1)).transpose(0, 1)[None] for p in (mixer.q_proj, mixer.v_proj))
    output, weights = conv_key_attention(query, mixer.key_conv.weight, value, (3, 5), HEAD_DIM**-0.5)
    expected, expected_weights = by_hand(mixer, tokens, (3, 5))
    assert_close(mixer.o_proj(output[0].transpose(0, 1).flatten(1)), expected)
    assert_close(weights[0], expected_weights)


@pytest.mark.parametrize("grid", [(8, 8), (8, 12)])
@torch.no_grad()
def test_windows_are_grids_of_their_own(grid):
    """Of a shifted layer too: keys see the whole window, and a token attends to its side of the map alone."""
    config = SKSwinConfig(
        image_size=16, patch_size=2, depths=[2], hidden_sizes=[16], head_dim=HEAD_DIM, window_size=SIDE,
        token_mixers="conv_key", downsampling=[],
    )  # fmt: skip
    plain, shifted = drawn(SKSwinModel(config)).stages[0].layers
    tokens = torch.randn(grid[0] * grid[1], 16, dtype=torch.float64)
    rows, columns = (index.flatten() for index in torch.meshgrid(*map(torch.arange, grid), indexing="ij"))
    for layer, shift in ((plain, 0), (shifted, 2)):
        expected = torch.full_like(tokens, torch.nan)
        for top in range(shift, grid[0] + shift, SIDE):
            for left in range(shift, grid[1] + shift, SIDE):
                places = [
                    (row % grid[0]) * grid[1] + column % grid[1]
                    for row in range(top, top + SIDE)
                    for column in range(left, left + SIDE)
                ]
                sides = (rows[places] < top) * 2 + (columns[places] < left)  # those that came round the map
                visible = sides[:, None] == sides
                expected[places] = by_hand(layer.mixer, tokens[places], (SIDE, SIDE), visible)[0]
        assert_close(layer.mix_windows(tokens[None], grid, False)[0][0], expected)


def test_what_it_refuses():
    with pytest.raises(ValueError, match="'conv_key' works on the grid of patches and cannot feed a class token"):
        SKViTConfig(token_mixer="conv_key")
    with pytest.raises(ValueError, match="'conv_key' makes keys of the queries around on the grid, and a class token"):
        ConvKeyAttention(AttentionOptions(16, (3, 5), HEADS, HEAD_DIM, num_class_tokens=1))
    with pytest.raises(ValueError, match="'conv_key' makes a key of every query, and key_stride=2 leaves fewer"):
        ConvKeyAttention(AttentionOptions(16, (3, 5), HEADS, HEAD_DIM, conv_kernel_size=3, key_stride=2))
    with pytest.raises(ValueError, match="Unknown token mixer 'conv_key': expected one of 'static_key'"):
        SKCvTConfig(token_mixers="conv_key")
    with pytest.raises(ValueError, match="only 'static_key' has a key for each window"):
        SKSwinConfig(token_mixers="conv_key", window_keys="separate")
