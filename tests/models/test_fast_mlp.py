"""Activations and the linear layers around them, against formulas and against what autograd makes of the plain ones."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers.activations import ACT2FN

from sk_transformers.models import fast_mlp as fast_mlp_module
from sk_transformers.models.fast_mlp import fast_mlp, linear_act
from sk_transformers.models.layers import ResidualScale, StarReLU


def star_relu(dtype=torch.float64):
    activation = StarReLU().to(dtype)
    with torch.no_grad():
        activation.scale.fill_(0.8)
        activation.bias.fill_(-0.4)
    return activation


def plain_star_relu(activation, x):
    return activation.scale * x.clamp(min=0) ** 2 + activation.bias


ACTIVATIONS = {
    "star_relu": (star_relu, plain_star_relu),
    "gelu": (lambda dtype: ACT2FN["gelu"], lambda activation, x: F.gelu(x)),
    "silu": (lambda dtype: ACT2FN["silu"], lambda activation, x: x * x.sigmoid()),
}


def layers(name, dtype=torch.float64, bias=True):
    torch.manual_seed(0)
    make, formula = ACTIVATIONS[name]
    return nn.Linear(6, 24, bias=bias, dtype=dtype), make(dtype), nn.Linear(24, 6, bias=bias, dtype=dtype), formula


@pytest.mark.parametrize("grad", [True, False])
def test_star_relu(grad):
    activation, x = star_relu(), torch.randn(3, 7, 5, dtype=torch.float64)
    expected = plain_star_relu(activation, x)
    with torch.set_grad_enabled(grad):
        before = x.clone()
        torch.testing.assert_close(activation(x), expected)
        assert torch.equal(x, before)


def test_gradient_of_star_relu():
    activation = star_relu()
    x = torch.randn(2, 9, dtype=torch.float64, requires_grad=True)

    def function(x, scale, bias):
        return torch.func.functional_call(activation, {"scale": scale, "bias": bias}, (x,))

    assert torch.autograd.gradcheck(function, (x, activation.scale, activation.bias))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("recompute", [True, False])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_mlp_and_its_gradients(name, recompute, bias):
    fc1, activation, fc2, formula = layers(name, bias=bias)
    x = torch.randn(2, 5, 6, dtype=torch.float64, requires_grad=True)
    leaves = [x, *fc1.parameters(), *activation.parameters(), *fc2.parameters()]
    output, expected = fast_mlp(fc1, activation, fc2, x, recompute), fc2(formula(activation, fc1(x)))
    torch.testing.assert_close(output, expected)
    cotangent = torch.randn_like(expected)
    for gradient, right in zip(
        torch.autograd.grad(output, leaves, cotangent), torch.autograd.grad(expected, leaves, cotangent), strict=True
    ):
        torch.testing.assert_close(gradient, right)
    with torch.no_grad():
        before = x.clone()
        torch.testing.assert_close(fast_mlp(fc1, activation, fc2, x, recompute), expected)
        assert torch.equal(x, before)


@pytest.mark.parametrize(("recompute", "kept"), [(True, 1), (False, 2)])
@pytest.mark.parametrize("name", ["star_relu", "gelu"])
def test_what_is_kept_for_the_gradient(name, recompute, kept):
    """Of the wide tensors: the activation's input, and its output only if it is not computed again."""
    fc1, activation, fc2, _ = layers(name)
    alive = torch.randn(2, 5, 6, dtype=torch.float64, requires_grad=True)
    wide = set()

    def keep(saved):
        if saved.numel() == 2 * 5 * 24:
            wide.add(saved.data_ptr())
        return saved

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved):
        output = fast_mlp(fc1, activation, fc2, alive, recompute)  # an inner hook hides what it computes again
    assert len(wide) == kept
    output.sum().backward()


def test_memory_of_the_output_is_free_before_the_backward_pass():
    import gc
    import weakref

    fc1, activation, fc2, _ = layers("gelu")
    references = []
    handle = fc2.register_forward_pre_hook(lambda module, args: references.append(weakref.ref(args[0])))
    output = fast_mlp(fc1, activation, fc2, torch.randn(2, 5, 6, dtype=torch.float64), recompute=True)
    handle.remove()
    gc.collect()
    assert references[0]() is None
    output.sum().backward()


@pytest.mark.parametrize(("most", "chunks"), [(2, 5), (4, 3), (10, 1)])
@pytest.mark.parametrize("name", ["star_relu", "gelu"])
def test_many_tokens_go_through_in_chunks(name, most, chunks, monkeypatch):
    """Where no gradient is taken; the result is the same, and a hook sees all tokens at once."""
    fc1, activation, fc2, formula = layers(name)
    x = torch.randn(2, 5, 6, dtype=torch.float64)
    monkeypatch.setattr(fast_mlp_module, "CHUNK_BYTES", 0)
    monkeypatch.setattr(fast_mlp_module, "MIN_CHUNK_TOKENS", most)
    seen = []
    monkeypatch.setattr(fast_mlp_module, "linear_act", lambda *given: seen.append(len(given[2])) or linear_act(*given))
    with torch.no_grad():
        torch.testing.assert_close(fast_mlp(fc1, activation, fc2, x, True), fc2(formula(activation, fc1(x))))
        assert len(seen) == chunks
        for module in (fc1, activation, fc2):
            handle = module.register_forward_hook(lambda module, args, output: seen.append(args[0].shape[:-1]))
            fast_mlp(fc1, activation, fc2, x, True)
            handle.remove()
            assert seen[-1] == (2, 5)


@pytest.mark.parametrize("name", ["star_relu", "gelu"])
def test_autocast(name):
    fc1, activation, fc2, formula = layers(name, torch.float32)
    x = torch.randn(2, 5, 6)
    exact = fc2(formula(activation, fc1(x)))
    exact_gradient = torch.autograd.grad(exact.sum(), fc1.weight)[0]
    for recompute in (True, False):
        with torch.autocast("cpu", torch.bfloat16):
            output = fast_mlp(fc1, activation, fc2, x, recompute)
            with torch.no_grad():
                torch.testing.assert_close(fast_mlp(fc1, activation, fc2, x, recompute), output)
        torch.testing.assert_close(output.float(), exact, rtol=3e-2, atol=3e-2)
        gradient = torch.autograd.grad(output.float().sum(), fc1.weight)[0]
        assert (gradient - exact_gradient).norm() < 0.03 * exact_gradient.norm()


@pytest.mark.parametrize("branch_dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scaled", [True, False])
def test_residual(scaled, branch_dtype):
    residual = ResidualScale(4, scaled)
    if scaled:
        nn.init.constant_(residual.scale, 0.3)
    branch, hidden_states = torch.randn(2, 3, 4).to(branch_dtype), torch.randn(2, 3, 4)
    output = residual(hidden_states, branch)
    assert output.dtype == torch.float32  # also where autocast left the branch in bfloat16
    torch.testing.assert_close(output, branch + (0.3 if scaled else 1) * hidden_states)
