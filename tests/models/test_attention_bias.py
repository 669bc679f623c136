"""Biases of the logits and static maps: against the reference, against each other and beside BEiT and Swin."""

import math

import pytest
import torch
from torch.nn import functional as F
from transformers import BeitConfig
from transformers.models.beit.modeling_beit import BeitLayer, BeitRelativePositionBias
from transformers.models.swin.modeling_swin import SwinRelativePositionBias

from sk_transformers.models.attention import split_heads
from sk_transformers.models.attention_bias import AttentionBias, hide_diagonal, relative_bias, resize_full_bias
from sk_transformers.models.attention_options import AttentionOptions
from sk_transformers.models.reference import static_map
from sk_transformers.models.static_key import ConvStaticKeyAttention, SelfAttention, StaticKeyAttention
from sk_transformers.models.static_map import StaticMap

WIDTH, HEADS, HEAD_DIM, GRID = 12, 3, 5, (4, 6)
WITH_KEYS = [SelfAttention, StaticKeyAttention, ConvStaticKeyAttention]
MIXERS = [*WITH_KEYS, StaticMap]
VISIBLE = {"mask_diagonal": False}


def make(mixer_class, grid=GRID, **options):
    mixer = mixer_class(AttentionOptions(WIDTH, grid, HEADS, HEAD_DIM, **options)).double()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.normal_()
    return mixer


def tokens_for(mixer, batch=2, grid=GRID):
    return torch.randn(batch, grid[0] * grid[1] + mixer.num_class_tokens, WIDTH, dtype=torch.float64)


def assert_equal_with_gradients(found, expected, leaves, tolerance=1e-9):
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    cotangent = torch.randn_like(expected)
    for gradient, right in zip(
        torch.autograd.grad(found, leaves, cotangent, retain_graph=True),
        torch.autograd.grad(expected, leaves, cotangent, retain_graph=True),
    ):
        torch.testing.assert_close(gradient, right, rtol=tolerance, atol=tolerance)


# The bias


@pytest.mark.parametrize("mixer_class", WITH_KEYS)
@pytest.mark.parametrize("kind", ["full", "relative"])
@pytest.mark.parametrize("options", [{}, {"num_class_tokens": 1, "mask_diagonal": True, "learned_temperature": True}])
def test_a_bias_is_added_to_the_logits(mixer_class, kind, options):
    """Logits of the mixer without a bias are the logarithm of its weights, to a constant of each query."""
    mixer, plain = make(mixer_class, attention_bias=kind, **options), make(mixer_class, **{**options, **VISIBLE})
    x = tokens_for(mixer).requires_grad_()
    shared = {name: parameter for name, parameter in mixer.named_parameters() if "attention_bias" not in name}
    _, weights = torch.func.functional_call(plain, shared, (x,), {"output_attentions": True}, strict=True)
    logits = weights.log() + mixer.attention_bias(GRID)
    if mixer.options.mask_diagonal:
        logits = logits.masked_fill(torch.eye(logits.shape[-1], dtype=torch.bool), -math.inf)
    value = split_heads(mixer.v_proj(x), HEADS)
    expected = mixer.o_proj((logits.softmax(dim=-1) @ value).transpose(1, 2).flatten(2))
    parameters = [x, *mixer.parameters()]
    for implementation in ("sdpa", "eager"):
        assert_equal_with_gradients(mixer(x, implementation=implementation)[0], expected, parameters)


@pytest.mark.parametrize("mixer_class", WITH_KEYS)
@pytest.mark.parametrize("kind", ["full", "relative"])
def test_a_bias_of_zero_is_no_bias(mixer_class, kind):
    mixer = mixer_class(AttentionOptions(WIDTH, GRID, HEADS, HEAD_DIM, num_class_tokens=1, attention_bias=kind))
    plain = mixer_class(AttentionOptions(WIDTH, GRID, HEADS, HEAD_DIM, num_class_tokens=1))
    plain.load_state_dict(mixer.state_dict(), strict=False)
    x = tokens_for(mixer).float()
    for output_attentions in (False, True):
        torch.testing.assert_close(mixer(x, None, output_attentions), plain(x, None, output_attentions))


@pytest.mark.parametrize("mixer_class", WITH_KEYS)
def test_the_logarithm_of_the_weights_of_an_image_reproduces_it(mixer_class):
    """With `K = 0` and `B = log A` the layer is what attention did to that image, and so is a static map."""
    attention = make(SelfAttention, num_class_tokens=1)
    x = tokens_for(attention, batch=1)
    expected, weights = attention(x, output_attentions=True)
    projections = {n: p for n, p in attention.state_dict().items() if n.startswith(("v_proj", "o_proj"))}
    mixer, static = (make(c, num_class_tokens=1, attention_bias="full") for c in (mixer_class, StaticMap))
    with torch.no_grad():
        for layer in (mixer, static):
            layer.load_state_dict(projections, strict=False)
            layer.attention_bias.bias.copy_(weights[0].log())
        for name, parameter in mixer.named_parameters():
            if "key" in name or "k_proj" in name:
                parameter.zero_()
    for layer in (mixer, static):
        torch.testing.assert_close(layer(x)[0], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("mixer_class", MIXERS)
@pytest.mark.parametrize("num_class_tokens", [0, 1, 2])
def test_a_relative_table_is_the_full_bias_made_of_it(mixer_class, num_class_tokens):
    relative = make(mixer_class, num_class_tokens=num_class_tokens, attention_bias="relative")
    full = make(mixer_class, num_class_tokens=num_class_tokens, attention_bias="full")
    state = {name: p for name, p in relative.state_dict().items() if "attention_bias" not in name}
    full.load_state_dict({**state, "attention_bias.bias": pair_by_pair(relative.attention_bias)})
    x = tokens_for(relative)
    torch.testing.assert_close(relative(x)[0], full(x)[0], rtol=1e-11, atol=1e-11)


def pair_by_pair(attention_bias):
    """The full bias of a relative one, a pair of positions at a time."""
    (height, width), first, table = attention_bias.grid_size, attention_bias.num_class_tokens, attention_bias.bias
    positions = [None] * first + [(row, column) for row in range(height) for column in range(width)]
    bias = table.new_empty(len(table), len(positions), len(positions))
    for n, query in enumerate(positions):
        for m, key in enumerate(positions):
            if query and key:
                entry = (query[0] - key[0] + height - 1) * (2 * width - 1) + query[1] - key[1] + width - 1
            else:
                entry = -1 if not query and not key else (-2 if query else -3)
            bias[:, n, m] = table[:, entry].detach()
    return bias


def test_relative_biases_beside_beit():
    # With sdpa, because BEiT's eager softmax is in float32.
    config = BeitConfig(
        image_size=40, patch_size=8, hidden_size=24, num_attention_heads=3, intermediate_size=8, num_hidden_layers=1,
        use_relative_position_bias=True, layer_scale_init_value=0.3, attn_implementation="sdpa",
    )  # fmt: skip
    beit = BeitRelativePositionBias(config).double()
    beit.relative_position_bias_table.data.normal_()
    table = beit.relative_position_bias_table.T
    for grid in ((5, 5), (7, 7), (3, 3), (4, 6)):
        found = relative_bias(table, (5, 5), grid, num_class_tokens=1)
        torch.testing.assert_close(found, beit(grid)[0], rtol=1e-12, atol=1e-12)

    layer = BeitLayer(config).double().eval()
    for parameter in layer.parameters():
        parameter.data.normal_()
    mixer = SelfAttention(
        AttentionOptions(24, (5, 5), 3, 8, num_class_tokens=1, qkv_bias=True, attention_bias="relative")
    ).double()
    state = dict(layer.attention.state_dict())
    state["k_proj.bias"] = torch.zeros(24, dtype=torch.float64)
    state["attention_bias.bias"] = layer.relative_position_bias.relative_position_bias_table.T
    mixer.load_state_dict(state)
    x = torch.randn(2, 26, 24, dtype=torch.float64)
    expected = layer(x, resolution=(40, 40))
    hidden = x + layer.lambda_1 * mixer(layer.layernorm_before(x))[0]
    found = hidden + layer.lambda_2 * layer.mlp(layer.layernorm_after(hidden))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_relative_bias_beside_swin():
    swin = SwinRelativePositionBias(HEADS, GRID).double()
    swin.relative_position_bias_table.data.normal_()
    found = relative_bias(swin.relative_position_bias_table.T, GRID, GRID, num_class_tokens=0)
    torch.testing.assert_close(found, swin()[0], rtol=1e-12, atol=1e-12)


def test_a_bias_is_not_copied_over_the_batch(monkeypatch):
    given = []

    def attention(query, key, value, attn_mask=None, **kwargs):
        given.append(attn_mask)
        return (query @ key.transpose(2, 3) + attn_mask) @ value

    monkeypatch.setattr(F, "scaled_dot_product_attention", attention)
    mixer = make(StaticKeyAttention, attention_bias="full")
    mixer(tokens_for(mixer, batch=7))
    (mask,) = given
    assert mask.shape[0] == 1 or mask.stride(0) == 0
    assert mask.data_ptr() == mixer.attention_bias.bias.data_ptr()


# Other grids


@pytest.mark.parametrize("num_class_tokens", [0, 1])
@pytest.mark.parametrize("new_grid", [(7, 9), (2, 3), (6, 4)])
def test_full_bias_is_resized_over_queries_and_over_keys(new_grid, num_class_tokens):
    first, count = num_class_tokens, num_class_tokens + 24
    bias = torch.randn(HEADS, count, count, dtype=torch.float64)
    resized = resize_full_bias(bias, GRID, new_grid, num_class_tokens)
    assert torch.equal(resized[:, :first, :first], bias[:, :first, :first])
    shrinks = new_grid[0] < GRID[0] or new_grid[1] < GRID[1]

    def resize_last(rows):  # (..., 24)
        maps = rows.reshape(1, -1, *GRID)
        maps = F.interpolate(maps, size=new_grid, mode="bicubic", antialias=shrinks)
        return maps.reshape(*rows.shape[:-1], -1)

    if first:
        torch.testing.assert_close(resized[:, :first, first:], resize_last(bias[:, :first, first:]))
        torch.testing.assert_close(resized[:, first:, :first], resize_last(bias[:, first:, :first].mT).mT)
    torch.testing.assert_close(resized[:, first:, first:], resize_last(resize_last(bias[:, first:, first:]).mT).mT)


@pytest.mark.parametrize("mixer_class", MIXERS)
@pytest.mark.parametrize("kind", ["full", "relative"])
def test_each_window_is_mixed_as_an_image_and_its_padding_is_not_attended_to(mixer_class, kind):
    if mixer_class is SelfAttention:
        pytest.skip("attention works on the whole map")
    mixer = make(mixer_class, attention_bias=kind, static_key_resolution="window")
    x = tokens_for(mixer, grid=(5, 12))
    output, _ = mixer(x, (5, 12))
    plain, weights = mixer(x, (5, 12), output_attentions=True)
    torch.testing.assert_close(output, plain, rtol=1e-11, atol=1e-11)
    top_left = mixer(x.view(2, 5, 12, WIDTH)[:, :4, :6].flatten(1, 2))[0].view(2, 4, 6, WIDTH)
    torch.testing.assert_close(output.view(2, 5, 12, WIDTH)[:, :4, :6], top_left, rtol=1e-11, atol=1e-11)
    below = weights.view(2, 2, 2, HEADS, 24, 4, 6)[:, 1]  # of whose four rows the map fills one
    assert (below[..., 1:, :] == 0).all()
    torch.testing.assert_close(below.sum((-1, -2))[..., :6], torch.ones(2, 2, HEADS, 6, dtype=torch.float64))


# The static map


@pytest.mark.parametrize("kind", [None, "full", "relative"])
@pytest.mark.parametrize("options", [{}, {"num_class_tokens": 1}, {"num_class_tokens": 2, "mask_diagonal": True}])
@pytest.mark.parametrize("training", [True, False])
def test_static_map_is_the_reference(kind, options, training):
    mixer = make(StaticMap, attention_bias=kind, **options).train(training)
    x = tokens_for(mixer).requires_grad_()
    value = split_heads(mixer.v_proj(x), HEADS)
    mask = hide_diagonal(None, value) if mixer.options.mask_diagonal else None
    output, weights = static_map(mixer.attention_bias(GRID), value, mask)
    expected = mixer.o_proj(output.transpose(1, 2).flatten(2))
    parameters = [x, *mixer.parameters()]
    for implementation in ("sdpa", "eager"):
        assert_equal_with_gradients(mixer(x, implementation=implementation)[0], expected, parameters)
    found = mixer(x, output_attentions=True)[1]
    assert found.shape == (2, HEADS, x.shape[1], x.shape[1])
    torch.testing.assert_close(found, weights)
    with torch.no_grad():
        torch.testing.assert_close(mixer(x)[0], expected, rtol=1e-11, atol=1e-11)


def test_static_map_keeps_its_softmax_in_evaluation(monkeypatch):
    mixer = make(StaticMap, attention_bias="relative", num_class_tokens=1).eval()
    made = []
    softmax = torch.Tensor.softmax
    monkeypatch.setattr(torch.Tensor, "softmax", lambda tensor, **k: made.append(tensor.shape) or softmax(tensor, **k))
    x = tokens_for(mixer)
    with torch.no_grad():
        for _ in range(3):
            mixer(x)
        assert made == [(HEADS, 25, 25)]
        before = mixer(x)[0]
        mixer.attention_bias.bias.mul_(2)
        assert not torch.equal(mixer(x)[0], before)
        for grid in (GRID, (3, 3), GRID, (3, 3)):
            mixer(tokens_for(mixer, grid=grid), grid)
        assert made == [(HEADS, 25, 25)] * 2 + [(HEADS, 10, 10)]
        mixer.train()(x)
        mixer(x)
        assert len(made) == 5


def test_biases_are_resized_once_for_each_grid_in_evaluation(monkeypatch):
    mixer, calls = make(StaticKeyAttention, attention_bias="full").eval(), []
    interpolate = F.interpolate
    monkeypatch.setattr(F, "interpolate", lambda *a, **k: calls.append(1) or interpolate(*a, **k))
    with torch.no_grad():
        for _ in range(3):
            mixer(tokens_for(mixer, grid=(3, 3)), (3, 3))
    assert len(calls) == 3  # the keys, and the bias both ways


def test_a_bias_starts_without_effect():
    for kind in ("full", "relative"):
        assert (AttentionBias(AttentionOptions(WIDTH, GRID, HEADS, HEAD_DIM), kind).bias == 0).all()
