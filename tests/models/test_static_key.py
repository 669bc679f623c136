"""The mixers against the reference, and the reference against the paper's equations, in float64."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sk_transformers.models import fast_attention_cpu
from sk_transformers.models.attention import attend, split_heads
from sk_transformers.models.attention_options import AttentionOptions
from sk_transformers.models.grids import MAX_CACHED_GRIDS, resize_grid, window_partition, window_reverse
from sk_transformers.models.reference import (
    conv_static_key_attention,
    conv_static_key_logits,
    softmax_attention,
    static_key_attention,
    static_key_logits,
)
from sk_transformers.models.rotary import rotate
from sk_transformers.models.static_key import ConvStaticKeyAttention, SelfAttention, StaticKeyAttention

WIDTH, HEADS, HEAD_DIM, GRID = 12, 3, 5, (4, 6)


def make(mixer_class, **options):
    mixer = mixer_class(AttentionOptions(WIDTH, GRID, HEADS, HEAD_DIM, **options)).double()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.normal_()
    return mixer


def tokens_for(mixer, batch=2, grid=GRID):
    return torch.randn(batch, grid[0] * grid[1] + mixer.num_class_tokens, WIDTH, dtype=torch.float64)


def expected_of(mixer, x):
    """What a mixer should return, made of the reference's logits: its output and weights."""
    query, value = split_heads(mixer.q_proj(x), HEADS), split_heads(mixer.v_proj(x), HEADS)
    scaling = HEAD_DIM**-0.5 if mixer.temperature is None else mixer.temperature.exp()
    if isinstance(mixer, StaticKeyAttention):
        logits = static_key_logits(query, mixer.key) * scaling
    else:
        first = mixer.num_class_tokens
        logits = conv_static_key_logits(query[:, :, first:], mixer.key, mixer.key_bias, GRID)
        logits = logits * (1 if mixer.options.learned_temperature else HEAD_DIM**-0.5)
        if first:
            logits = torch.cat([static_key_logits(query[:, :, :1], mixer.class_key) * scaling, logits], dim=2)
    if mixer.options.mask_diagonal:
        logits = logits.masked_fill(torch.eye(logits.shape[-1], dtype=torch.bool), -math.inf)
    output, weights = softmax_attention(logits, value)
    return mixer.o_proj(output.transpose(1, 2).flatten(2)), weights


def test_reference_is_the_paper_s_grouped_convolution():
    query = torch.randn(2, HEADS, 24, HEAD_DIM, dtype=torch.float64)
    key, bias = (torch.randn(HEADS, 25, n, dtype=torch.float64) for n in (9 * HEAD_DIM, 1))
    maps = query.transpose(2, 3).reshape(2, HEADS * HEAD_DIM, *GRID)
    kernel = key.reshape(-1, 3, 3, HEAD_DIM).permute(0, 3, 1, 2)
    logits = F.conv2d(maps, kernel, bias.flatten(), padding=1, groups=HEADS).reshape(2, HEADS, 25, 24).mT
    found = conv_static_key_logits(query, key, bias[..., 0], GRID)
    torch.testing.assert_close(found, logits, rtol=1e-12, atol=1e-12)
    value = torch.randn(2, HEADS, 25, 4, dtype=torch.float64)
    output, weights = conv_static_key_attention(query, key, bias[..., 0], value, GRID, 0.3)
    torch.testing.assert_close(output, (0.3 * logits).softmax(dim=-1) @ value, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, HEADS, 24, dtype=torch.float64))


def test_reference_of_static_keys_head_by_head():
    query, value = (torch.randn(2, HEADS, 24, HEAD_DIM, dtype=torch.float64) for _ in range(2))
    key = torch.randn(HEADS, 24, HEAD_DIM, dtype=torch.float64)
    output, _ = static_key_attention(query, key, value, 0.3)
    for image in range(2):
        for head in range(HEADS):
            weights = (query[image, head] @ key[head].T * 0.3).softmax(dim=-1)
            torch.testing.assert_close(output[image, head], weights @ value[image, head])


OPTIONS = [
    {},
    {"num_class_tokens": 1},
    {"mask_diagonal": True},
    {"learned_temperature": True, "qkv_bias": True},
    {"num_class_tokens": 1, "mask_diagonal": True, "learned_temperature": True, "output_bias": False},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "+".join(options) or "plain")
@pytest.mark.parametrize(
    ("mixer_class", "implementation"),
    [
        (StaticKeyAttention, "sdpa"),
        (StaticKeyAttention, "eager"),
        (ConvStaticKeyAttention, "sdpa"),
        (ConvStaticKeyAttention, "sdpa in tiles"),
        (ConvStaticKeyAttention, "eager"),
    ],
)
def test_mixer_is_the_reference(mixer_class, implementation, options, monkeypatch):
    if implementation == "sdpa in tiles":
        implementation = "sdpa"
        monkeypatch.setattr(fast_attention_cpu, "TILE_BYTES", 1)
        monkeypatch.setattr(fast_attention_cpu, "MIN_TILE_QUERIES", 7)  # which does not divide 24
    mixer = make(mixer_class, **options)
    x = tokens_for(mixer).requires_grad_()
    output, _ = mixer(x, implementation=implementation)
    _, weights = mixer(x, output_attentions=True, implementation=implementation)
    expected, expected_weights = expected_of(mixer, x)
    torch.testing.assert_close(output, expected, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(weights, expected_weights, rtol=1e-11, atol=1e-11)

    cotangent = torch.randn_like(expected)
    parameters = [x, *mixer.parameters()]
    for gradient, right in zip(
        torch.autograd.grad(output, parameters, cotangent), torch.autograd.grad(expected, parameters, cotangent)
    ):
        torch.testing.assert_close(gradient, right, rtol=1e-9, atol=1e-9)


@given(
    batch=st.integers(1, 4),
    heads=st.integers(1, 3),
    queries=st.integers(1, 70),
    keys=st.integers(1, 70),
    width=st.integers(1, 9),
    is_static=st.booleans(),
    masked=st.booleans(),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_attend_is_a_softmax_for_any_shape(batch, heads, queries, keys, width, is_static, masked, seed):
    """The fused kernel's numbers and gradients, with keys that stand in memory once."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    query, value = (normal(batch, n, heads, width).transpose(1, 2).requires_grad_() for n in (queries, keys))
    key = (normal(heads, keys, width) if is_static else normal(batch, heads, keys, width)).requires_grad_()
    mask = normal(batch, 1, queries, keys) if masked else None
    output, weights = attend(torch.nn.Module(), query, key, value, 0.7, mask)
    assert weights is None
    logits = 0.7 * (query.unsqueeze(3) * key.unsqueeze(-3)).sum(-1) + (mask if masked else 0)
    expected = (logits.softmax(-1) @ value).transpose(1, 2)
    torch.testing.assert_close(output, expected)
    cotangent = torch.randn_like(expected)
    for gradient, right in zip(
        torch.autograd.grad(output, (query, key, value), cotangent),
        torch.autograd.grad(expected, (query, key, value), cotangent),
    ):
        torch.testing.assert_close(gradient, right)


def test_conv_static_key_of_a_1x1_kernel_is_static_key():
    conv, plain = make(ConvStaticKeyAttention), make(StaticKeyAttention)
    with torch.no_grad():
        for name in ("q_proj", "v_proj", "o_proj"):
            getattr(plain, name).load_state_dict(getattr(conv, name).state_dict())
        conv.key_bias.zero_()
        kernel = conv.key.view(HEADS, -1, 3, 3, HEAD_DIM)
        kernel.zero_()
        kernel[:, :, 1, 1] = plain.key
    x = tokens_for(conv)
    torch.testing.assert_close(conv(x)[0], plain(x)[0], rtol=1e-12, atol=1e-12)


def test_no_query_projection_makes_the_tokens_the_query():
    mixer = StaticKeyAttention(AttentionOptions(15, GRID, HEADS, HEAD_DIM, query_projection=False)).double()
    assert not any(name.startswith("q_proj") for name, _ in mixer.named_parameters())
    x = torch.randn(2, 24, 15, dtype=torch.float64)
    torch.testing.assert_close(mixer(x)[0], expected_of(mixer, x)[0], rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match="3 heads of 5: choose heads that fill 12 channels"):
        AttentionOptions(12, GRID, HEADS, HEAD_DIM, query_projection=False)


def test_static_key_is_not_copied_over_the_batch(monkeypatch):
    """Every image reads the same memory: the fused kernel is given a key of batch stride 0."""
    given = []

    def attention(query, key, value, **kwargs):
        given.append(key)
        return query @ key.transpose(2, 3) @ value

    monkeypatch.setattr(F, "scaled_dot_product_attention", attention)
    mixer = make(StaticKeyAttention)
    mixer(tokens_for(mixer, batch=7))
    (key,) = given
    assert key.shape == (7, HEADS, 24, HEAD_DIM)
    assert key.stride(0) == 0
    assert key.data_ptr() == mixer.key.data_ptr()


class NumbersWritten(TorchDispatchMode):
    """Counts the numbers in the tensors that operators make."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        outputs = function(*args, **kwargs or {})
        self.count += sum(t.numel() for t in tree_leaves(outputs) if isinstance(t, torch.Tensor))
        return outputs


@pytest.mark.parametrize("mixer_class", [SelfAttention, StaticKeyAttention, ConvStaticKeyAttention])
def test_the_gradient_takes_as_long_for_each_image_of_a_large_batch(mixer_class):
    mixer, written = make(mixer_class), []
    for batch in (8, 64):
        loss = mixer(tokens_for(mixer, batch))[0].sum()
        with NumbersWritten() as numbers:
            loss.backward()
        written.append(numbers.count / batch)
    assert written[1] < 1.1 * written[0]


@pytest.mark.parametrize("mixer_class", [SelfAttention, StaticKeyAttention, ConvStaticKeyAttention])
def test_token_count_is_checked_before_any_kernel(mixer_class, monkeypatch):
    mixer = make(mixer_class, num_class_tokens=1)
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *a, **k: pytest.fail("a kernel ran"))
    with pytest.raises(ValueError, match=r"got 24 tokens, expected 25: 1 for classes and a grid of 4x6"):
        mixer(torch.randn(1, 24, WIDTH, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"got 25 tokens, expected 26: 1 for classes and a grid of 5x5"):
        mixer(torch.randn(1, 25, WIDTH, dtype=torch.float64), (5, 5))


def test_a_lone_token_with_masked_diagonal_attends_to_itself():
    mixer = StaticKeyAttention(AttentionOptions(8, (1, 1), 2, 4, mask_diagonal=True))
    output, weights = mixer(torch.randn(1, 1, 8), output_attentions=True)
    assert output.isfinite().all()
    assert (weights == 1).all()


# Other grids


def test_resize_grid_is_torch_interpolation_and_leaves_the_class_row():
    rows = torch.randn(3, 1 + 24, 5, 2, dtype=torch.float64)
    for new, antialias in (((7, 9), False), ((3, 9), True), ((2, 2), True)):
        resized = resize_grid(rows, GRID, new, num_class_tokens=1)
        assert resized.shape == (3, 1 + new[0] * new[1], 5, 2)
        assert torch.equal(resized[:, 0], rows[:, 0])
        maps = rows[:, 1:].reshape(3, *GRID, 10).permute(0, 3, 1, 2)
        expected = F.interpolate(maps, size=new, mode="bicubic", antialias=antialias)
        torch.testing.assert_close(resized[:, 1:].reshape(3, *new, 10).permute(0, 3, 1, 2), expected)


def test_resize_grid_keeps_constants():
    bias = torch.full((2, 24), 3.0, dtype=torch.float64)
    for new in ((5, 13), (2, 3), (1, 1)):
        torch.testing.assert_close(resize_grid(bias, GRID, new), bias.new_full((2, new[0] * new[1]), 3.0))


@pytest.mark.parametrize("mixer_class", [StaticKeyAttention, ConvStaticKeyAttention])
def test_resized_mixer_is_the_mixer_with_resized_keys(mixer_class):
    new_grid = (5, 3)
    mixer = make(mixer_class, num_class_tokens=1)
    resized = mixer_class(AttentionOptions(WIDTH, new_grid, HEADS, HEAD_DIM, num_class_tokens=1)).double()
    state = {
        name: resize_grid(tensor, GRID, new_grid, num_class_tokens=1) if "key" in name else tensor
        for name, tensor in mixer.state_dict().items()
    }
    resized.load_state_dict(state)
    x = tokens_for(mixer, grid=new_grid)
    torch.testing.assert_close(mixer(x, new_grid)[0], resized(x)[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mixer_class", [StaticKeyAttention, ConvStaticKeyAttention])
def test_gradients_reach_resized_keys_in_training(mixer_class):
    mixer = make(mixer_class, num_class_tokens=1)
    x = tokens_for(mixer, grid=(3, 3))
    mixer(x, (3, 3))[0].square().sum().backward()
    assert all(key.grad is not None and key.grad.abs().sum() > 0 for key in mixer.static_keys())


def count_resizes(monkeypatch):
    calls = []
    interpolate = F.interpolate
    monkeypatch.setattr(F, "interpolate", lambda *a, **k: calls.append(k["size"]) or interpolate(*a, **k))
    return calls


def test_keys_are_resized_once_for_each_grid_in_evaluation(monkeypatch):
    calls = count_resizes(monkeypatch)
    mixer = make(StaticKeyAttention).eval()
    with torch.no_grad():
        for grid in [(3, 3), (5, 5), (3, 3), (5, 5), (3, 3)]:
            mixer(tokens_for(mixer, grid=grid), grid)
    assert calls == [(3, 3), (5, 5)]


CHANGES = {
    "in place": lambda mixer: mixer.key.mul_(2),
    "data": lambda mixer: setattr(mixer.key, "data", mixer.key.data * 2),
    "parameter": lambda mixer: setattr(mixer, "key", torch.nn.Parameter(mixer.key * 2)),
    "state dict": lambda mixer: mixer.load_state_dict({**mixer.state_dict(), "key": mixer.key * 2}),
    "dtype": lambda mixer: mixer.float().double(),
}


@pytest.mark.parametrize("change", CHANGES)
@torch.no_grad()
def test_changed_keys_are_resized_again(change):
    mixer = make(StaticKeyAttention).eval()
    x = tokens_for(mixer, grid=(3, 3))
    mixer(x, (3, 3))
    CHANGES[change](mixer)
    fresh = StaticKeyAttention(AttentionOptions(WIDTH, GRID, HEADS, HEAD_DIM)).double()
    fresh.load_state_dict(mixer.state_dict())
    assert torch.equal(mixer(x, (3, 3))[0], fresh(x, (3, 3))[0])


def test_keys_resized_in_inference_mode_serve_a_frozen_layer_in_training():
    mixer = make(StaticKeyAttention).eval().requires_grad_(False)
    x = tokens_for(mixer, grid=(3, 3))
    with torch.inference_mode():
        mixer(x, (3, 3))
    x.requires_grad_()
    mixer(x, (3, 3))[0].sum().backward()
    assert x.grad.abs().sum() > 0


@torch.no_grad()
def test_a_layer_remembers_few_grids():
    mixer = make(StaticKeyAttention).eval()
    for side in range(1, 3 * MAX_CACHED_GRIDS):
        mixer(tokens_for(mixer, grid=(side, side)), (side, side))
    assert len(mixer.resized_keys.cache) == MAX_CACHED_GRIDS
    mixer.train()
    assert not mixer.resized_keys.cache


# Windows


def test_windows_are_cut_and_joined():
    tokens = torch.arange(2 * 5 * 7 * 3.0).view(2, 35, 3)
    windows = window_partition(tokens, (5, 7), (4, 6))
    assert windows.shape == (2 * 2 * 2, 24, 3)
    maps = tokens.view(2, 5, 7, 3)
    assert torch.equal(windows[0].view(4, 6, 3), maps[0, :4, :6])
    assert torch.equal(windows[5].view(4, 6, 3)[:, 0], maps[1, :4, 6])
    assert (windows[5].view(4, 6, 3)[:, 1:] == 0).all()
    assert torch.equal(window_reverse(windows, (5, 7), (4, 6)), tokens)


@pytest.mark.parametrize("mixer_class", [StaticKeyAttention, ConvStaticKeyAttention])
def test_each_window_is_mixed_as_an_image_of_the_trained_size(mixer_class):
    mixer = make(mixer_class, static_key_resolution="window")
    x = tokens_for(mixer, grid=(8, 12))
    mixed = mixer(x, (8, 12))[0].view(2, 8, 12, WIDTH)
    maps = x.view(2, 8, 12, WIDTH)
    for top, left in ((0, 0), (0, 6), (4, 0), (4, 6)):
        window = maps[:, top : top + 4, left : left + 6].reshape(2, 24, WIDTH)
        expected = mixer(window)[0].view(2, 4, 6, WIDTH)
        torch.testing.assert_close(mixed[:, top : top + 4, left : left + 6], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mixer_class", [StaticKeyAttention, ConvStaticKeyAttention])
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_padding_of_a_window_is_not_attended_to(mixer_class, implementation):
    mixer = make(mixer_class, static_key_resolution="window")
    x = tokens_for(mixer, grid=(5, 7))
    output, _ = mixer(x, (5, 7), implementation=implementation)
    plain, weights = mixer(x, (5, 7), output_attentions=True)
    torch.testing.assert_close(output, plain, rtol=1e-11, atol=1e-11)
    right_windows = weights.view(2, 2, 2, HEADS, 24, 4, 6)[:, :, 1]  # one column of seven is theirs
    assert (right_windows[..., 1:] == 0).all()
    torch.testing.assert_close(right_windows[..., 0].sum(-1)[:, 0], torch.ones(2, HEADS, 24, dtype=torch.float64))


def test_windows_have_no_class_token():
    with pytest.raises(ValueError, match="static_key_resolution='window'"):
        make(StaticKeyAttention, num_class_tokens=1, static_key_resolution="window")


def test_the_turned_key_of_an_image_is_a_static_key():
    """With rotary positions: the query is turned, and a static key holds its own rotation."""
    options = AttentionOptions(24, (2, 3), 3, 8, num_class_tokens=2, rope_theta=50.0)
    attention, static = SelfAttention(options).double().eval(), StaticKeyAttention(options).double().eval()
    tokens = torch.randn(1, 8, 24, dtype=torch.float64)
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
        shared = {name: value for name, value in attention.state_dict().items() if not name.startswith("k_proj")}
        static.load_state_dict({**shared, "key": static.key})
        key = attention.k_proj(tokens).unflatten(2, (3, 8)).transpose(1, 2)
        (turned,) = rotate((2, 3), 2, 50.0, key)
        static.key.copy_(turned[0])
        assert not torch.allclose(turned, key)
        torch.testing.assert_close(static(tokens)[0], attention(tokens)[0], rtol=1e-12, atol=1e-12)


def test_rotary_positions_depend_on_the_distance_alone():
    query = key = torch.randn(1, 1, 1, 8, dtype=torch.float64).expand(1, 1, 35, 8)
    query, key = rotate((5, 7), 0, 100.0, query, key)
    logits = (query @ key.mT)[0, 0].unflatten(0, (5, 7)).unflatten(2, (5, 7))
    torch.testing.assert_close(logits[1, 1, 2, 3], logits[3, 4, 4, 6], rtol=1e-5, atol=1e-5)  # angles are of float32
    assert (logits[1, 1, 2, 3] - logits[1, 1, 3, 2]).abs() > 1e-3
