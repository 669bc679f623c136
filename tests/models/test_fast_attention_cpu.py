"""CSKA's CPU kernel against the reference, in float64, on shapes of all kinds."""

import importlib.util
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._dynamo.utils import counters
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from sk_transformers.models import fast_attention_cpu
from sk_transformers.models.attention import attend, attend_from_neighborhoods, fused_attention, with_bias_as_channel
from sk_transformers.models.attention_options import AttentionOptions
from sk_transformers.models.fast_attention_cpu import (
    SAFE_LOGIT,
    logit_bound,
    tile_size,
    tiled_conv_static_key_attention,
)
from sk_transformers.models.grids import neighborhoods, sum_neighborhoods
from sk_transformers.models.reference import conv_static_key_logits, softmax_attention
from sk_transformers.models.static_key import ConvStaticKeyAttention

INPUTS = ("query", "key", "value", "bias")


def draw(batch=2, heads=3, grid=(4, 5), e=2, d=3, extra_keys=0, scale=1.0, dtype=torch.float64, seed=0):
    """Queries and values lie in memory as a projection leaves them; keys may have rows for class tokens."""
    generator = torch.Generator().manual_seed(seed)
    queries, keys = grid[0] * grid[1], grid[0] * grid[1] + extra_keys

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    return {
        "query": normal(batch, queries, heads, e).transpose(1, 2) * scale,
        "key": normal(heads, keys, 9 * e),
        "value": normal(batch, keys, heads, d).transpose(1, 2),
        "bias": normal(heads, keys) * scale,
        "mask": None,
        "grid_size": grid,
    }


def expected_of(query, key, value, bias, mask, grid_size):
    """The reference, with the arguments and the layout of the kernel."""
    logits = conv_static_key_logits(query, key, bias, grid_size)
    return softmax_attention(logits, value, mask)[0].transpose(1, 2)


def assert_same(given, rtol=1e-10):
    """Results and all gradients."""
    names = [*INPUTS, "mask"] if given["mask"] is not None else INPUTS
    leaves = [given[name].requires_grad_() for name in names]
    output, expected = tiled_conv_static_key_attention(**given), expected_of(**given)
    torch.testing.assert_close(output, expected, rtol=rtol, atol=rtol)
    cotangent = torch.randn_like(expected)
    for gradient, right in zip(
        torch.autograd.grad(output, leaves, cotangent), torch.autograd.grad(expected, leaves, cotangent)
    ):
        largest = right.abs().max().item() if right.numel() else 0
        torch.testing.assert_close(gradient, right, rtol=rtol, atol=rtol * max(1, largest))


shapes = st.fixed_dictionaries(
    {
        "batch": st.integers(0, 5),
        "heads": st.integers(1, 3),
        "grid": st.tuples(st.integers(1, 6), st.integers(1, 6)),
        "e": st.integers(1, 4),
        "d": st.integers(1, 4),
        "extra_keys": st.integers(0, 2),
        "scale": st.sampled_from([0.1, 1.0, 100.0]),
        "seed": st.integers(0, 2**16),
    }
)


@pytest.mark.slow
@given(
    shapes=shapes,
    mask=st.sampled_from(["none", "keys", "images", "heads", "all"]),
    tile_bytes=st.sampled_from([1, 500, 10**7]),
    batch_bytes=st.sampled_from([1, 3000, 10**7]),
    min_tile_queries=st.integers(1, 9),
)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_any_shape_in_any_tiles(shapes, mask, tile_bytes, batch_bytes, min_tile_queries):
    inputs = draw(**shapes)
    batch, _, queries, _ = inputs["query"].shape
    heads, keys, _ = inputs["key"].shape
    mask_shapes = {
        "keys": (1, 1, 1, keys), "images": (batch, 1, 1, keys), "heads": (1, heads, queries, keys),
        "all": (batch, heads, queries, keys),
    }  # fmt: skip
    if mask in mask_shapes:
        inputs["mask"] = torch.randn(mask_shapes[mask], dtype=torch.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fast_attention_cpu, "TILE_BYTES", tile_bytes)
        patch.setattr(fast_attention_cpu, "BATCH_TILE_BYTES", batch_bytes)
        patch.setattr(fast_attention_cpu, "MIN_TILE_QUERIES", min_tile_queries)
        assert_same(inputs, rtol=1e-9)


@pytest.mark.parametrize("scale", [1.0, 50.0], ids=["bounded", "shifted"])
@pytest.mark.parametrize("masked", [False, True])
def test_gradcheck(scale, masked):
    inputs = draw(batch=2, heads=2, grid=(2, 3), extra_keys=1, scale=scale)
    assert (logit_bound(inputs["query"], inputs["key"], inputs["bias"]) < SAFE_LOGIT) == (scale == 1)
    inputs["value"] = inputs["value"] * 3
    leaves = [inputs[name].requires_grad_() for name in INPUTS]
    mask = torch.randn(1, 2, 6, 7, dtype=torch.float64, requires_grad=True) if masked else None
    assert torch.autograd.gradcheck(lambda *given: tiled_conv_static_key_attention(*given, (2, 3)), [*leaves, mask])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_at_the_bound_neither_overflow_nor_vanish(dtype):
    """Logits from -59 to 59 in one map, values of 1e4: the largest and the least that is not shifted."""
    inputs = draw(batch=1, heads=1, grid=(1, 3), e=1, dtype=dtype)
    inputs["query"] = torch.tensor([[[[-1.0], [0.0], [1.0]]]], dtype=dtype)
    inputs["key"] = torch.zeros(1, 3, 9, dtype=dtype)
    inputs["key"][0, :, 4] = 19.0  # the middle of the neighborhood
    inputs["bias"] = torch.zeros(1, 3, dtype=dtype)
    inputs["value"] = inputs["value"] * 1e4
    assert 55 < logit_bound(inputs["query"], inputs["key"], inputs["bias"]) < SAFE_LOGIT
    output = tiled_conv_static_key_attention(**inputs)
    exact = expected_of(**{name: x.double() if isinstance(x, torch.Tensor) else x for name, x in inputs.items()})
    torch.testing.assert_close(output.double(), exact, rtol=4 * torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2), (torch.float16, 3e-3)])
@pytest.mark.parametrize("scale", [0.5, 20.0])
def test_low_precision_is_as_exact_as_a_softmax_in_it(dtype, tolerance, scale):
    inputs = draw(batch=2, heads=2, grid=(7, 7), e=8, d=8, scale=scale / 8, dtype=dtype)
    exact = expected_of(**{name: x.double() if isinstance(x, torch.Tensor) else x for name, x in inputs.items()})
    error = (tiled_conv_static_key_attention(**inputs).double() - exact).norm() / exact.norm()
    reference_error = (expected_of(**inputs).double() - exact).norm() / exact.norm()
    assert error < max(2 * reference_error, tolerance)


def test_the_bound_holds_and_is_infinite_where_exponentials_overflow():
    for seed in range(20):
        inputs = draw(seed=seed, scale=5.0)
        logits = torch.einsum("bhqe,hke->bhqk", neighborhoods(inputs["query"], (4, 5)), inputs["key"])
        logits = logits + inputs["bias"][:, None]
        bound = logit_bound(inputs["query"], inputs["key"], inputs["bias"])
        assert logits.abs().max() <= bound < 20 * logits.abs().max()
    half = draw(dtype=torch.float16)
    assert logit_bound(half["query"], half["key"], half["bias"]) == math.inf


def test_what_is_no_number_stays_in_its_image():
    inputs = draw(batch=3)
    inputs["query"][1, 0, 7] = math.nan
    output = tiled_conv_static_key_attention(**inputs)
    assert output[1].isnan().any()
    torch.testing.assert_close(output[[0, 2]], expected_of(**inputs)[[0, 2]])


def test_neighborhoods_are_a_convolution_and_have_an_adjoint():
    query = torch.randn(2, 3, 20, 4, dtype=torch.float64)
    columns = neighborhoods(query, (4, 5))
    maps = query.transpose(2, 3).reshape(6, 4, 4, 5)
    expected = F.unfold(maps, 3, padding=1).unflatten(1, (4, 9)).permute(0, 3, 2, 1).reshape(2, 3, 20, 36)
    assert torch.equal(columns, expected)
    other = torch.randn_like(columns)
    torch.testing.assert_close((columns * other).sum(), (query * sum_neighborhoods(other, (4, 5))).sum())


def test_tiles_are_neither_too_large_nor_too_many():
    assert tile_size(heads=8, queries=784, keys=784, bytes_per_logit=4) == (1, 392)
    assert tile_size(heads=2, queries=64, keys=64, bytes_per_logit=4) == (32, 64)
    assert tile_size(heads=8, queries=12544, keys=12544, bytes_per_logit=4) == (1, fast_attention_cpu.MIN_TILE_QUERIES)


def test_the_gradient_keeps_no_logits():
    """Of a layer with 400 positions, what is saved for the gradient is far smaller than the logits of one image."""
    mixer = ConvStaticKeyAttention(AttentionOptions(16, (20, 20), 2, 8)).train()
    saved = []
    tokens = torch.randn(4, 400, 16, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x) or x, lambda x: x):
        mixer(tokens)
    parameters = {p.data_ptr() for p in mixer.parameters()}
    kept = {x.data_ptr(): x.numel() for x in saved if x.data_ptr() not in parameters}
    assert sum(kept.values()) < 2 * 400 * 400


@pytest.mark.slow
def test_compiled_without_a_break():
    torch.compiler.reset()
    counters.clear()
    inputs = draw()
    leaves = [inputs[name].requires_grad_() for name in INPUTS]
    compiled = torch.compile(tiled_conv_static_key_attention, fullgraph=True, backend="aot_eager")
    output, expected = compiled(**inputs), expected_of(**inputs)
    torch.testing.assert_close(output, expected)
    for gradient, right in zip(
        torch.autograd.grad(output.sum(), leaves), torch.autograd.grad(expected.sum(), leaves), strict=True
    ):
        torch.testing.assert_close(gradient, right)
    assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.slow
def test_the_operator_keeps_torch_library_s_rules():
    for scale in (1.0, 50.0):
        inputs = draw(scale=scale)
        for name in INPUTS:
            inputs[name].requires_grad_()
        torch.library.opcheck(fast_attention_cpu.tiled_attention, tuple(inputs.values()))


def test_two_copies_of_the_file_do_not_share_an_operator():
    """As two networks do that are loaded as remote code, and a file that is loaded again."""
    for name in ("copy_of_one", "copy_of_another", "copy_of_one"):
        full_name = f"sk_transformers.models.{name}"
        spec = importlib.util.spec_from_file_location(full_name, Path(fast_attention_cpu.__file__))
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        assert str(module.tiled_attention._opoverload) == f"sk_transformers_models_{name}.tiled_attention.default"
        inputs = draw()
        torch.testing.assert_close(module.tiled_conv_static_key_attention(**inputs), expected_of(**inputs))


def test_on_cuda_the_bias_is_a_channel():
    """What is computed there, on this device: the same, by attention of queries wider than the values."""
    inputs = draw()
    given = (inputs["key"], inputs["bias"], inputs["value"], inputs["grid_size"], 1.0, None)
    mixer = torch.nn.Module()
    output = attend_from_neighborhoods(mixer, inputs["query"], *given)
    torch.testing.assert_close(output, expected_of(**inputs))
    query, key = with_bias_as_channel(neighborhoods(inputs["query"], (4, 5)), inputs["key"], inputs["bias"])
    assert (query.shape[-1] - 9 * 2) == (key.shape[-1] - 9 * 2) == 8
    fused = fused_attention(mixer, query, key, inputs["value"], 1.0, None, "sdpa")
    torch.testing.assert_close(fused, output)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_cuda_kernels_are_given(dtype, monkeypatch):
    """On tensors without numbers, since no device is at hand: widths that kernels take, and one key for all images."""
    given = []
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *args, **_: given.append(args[:3]) or args[2])
    with FakeTensorMode(), torch.device("cuda"):
        query, value = (torch.empty(3, 20, 2, 16, dtype=dtype).transpose(1, 2) for _ in range(2))
        key, bias = torch.empty(2, 20, 9 * 16, dtype=dtype), torch.empty(2, 20, dtype=dtype)
        attend(torch.nn.Module(), query, key[:, :, :16], value, 1.0)
        attend_from_neighborhoods(torch.nn.Module(), query, key, bias, value, (4, 5), 1.0, None)
    for (query, key, value), width in zip(given, (16, 9 * 16 + 8), strict=True):
        assert query.device.type == key.device.type == "cuda" and query.dtype == key.dtype == value.dtype == dtype
        assert query.shape[3] == key.shape[3] == width and width % 8 == value.shape[3] % 8 == 0
        assert query.stride(3) == key.stride(3) == value.stride(3) == 1
        assert key.shape[0] == 3 and key.stride(0) == 0
