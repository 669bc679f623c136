"""An MLP in less memory and fewer passes over its hidden layer, the widest tensor of a network.

In training, the output of an activation is not kept for the backward pass, which computes it again from the input.
Without gradients on the CPU, an activation works in place on what a linear layer has just returned, and many tokens go
through in chunks, as with transformers' `chunk_size_feed_forward`.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.module import _global_forward_hooks as _global_hooks
from torch.nn.modules.module import _global_forward_pre_hooks as _global_pre_hooks

from .fast_paths import use_fast_paths

CHUNK_BYTES = 16 * 2**20  # of the hidden layer at a time
MIN_CHUNK_TOKENS = 2048  # fewer would make the product memory-bound: the weights are read once a chunk


def fast_mlp(
    fc1: nn.Module, activation: nn.Module, fc2: nn.Module, hidden_states: torch.Tensor, recompute: bool
) -> torch.Tensor:
    """Return `fc2(activation(fc1(hidden_states)))` of tokens `(batch, tokens, channels)`.

    Args:
        recompute: in training, compute the activation again in the backward pass and do not keep its output.
    """
    if torch.compiler.is_compiling():
        return fc2(activation(fc1(hidden_states)))
    if not torch.is_grad_enabled():
        chunks = chunks_of_tokens((fc1, activation, fc2), hidden_states)
        outputs = [fc2(linear_act(fc1, activation, chunk)) for chunk in chunks]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs).view(hidden_states.shape)
    hidden_states = fc1(hidden_states)
    output = activation(hidden_states)
    if not recompute:
        return fc2(output)
    with recompute_in_backward(output, activation.forward, hidden_states.detach()):
        return fc2(output)


def linear_act(linear: nn.Module, activation: nn.Module, hidden_states: torch.Tensor) -> torch.Tensor:
    """Return `activation(linear(hidden_states))`, in place of the linear layer's output where nobody else has it."""
    hidden_states = linear(hidden_states)
    is_free = not torch.is_grad_enabled() and use_fast_paths() and not torch.compiler.is_compiling()
    is_ours = type(linear) is nn.Linear and not is_hooked(linear) and not is_hooked(activation)
    in_place = in_place_of(activation) if is_free and is_ours else None
    return activation(hidden_states) if in_place is None else in_place(hidden_states)


def in_place_of(activation: nn.Module) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """Return what overwrites its argument with the activation of it: the module's own `forward_`, or GELU's."""
    if getattr(activation, "act", None) is F.gelu:  # transformers' GELUActivation
        return torch.ops.aten.gelu_
    return getattr(activation, "forward_", None)


def chunks_of_tokens(layers: Sequence[nn.Module], tokens: torch.Tensor) -> Sequence[torch.Tensor]:
    """Return the tokens `(batch, tokens, channels)`, or chunks of them, `(tokens, channels)`, to take one by one.

    On the CPU, page faults on fresh allocations dominate, and the allocator uses the memory of small chunks again.
    """
    if tokens.device.type != "cpu" or any(map(is_hooked, layers)):
        return [tokens]
    width = getattr(layers[0], "out_features", tokens.shape[2])
    chunk = max(MIN_CHUNK_TOKENS, CHUNK_BYTES // (width * tokens.element_size()))
    count = -(-tokens.shape[0] * tokens.shape[1] // chunk)
    return [tokens] if count < 2 else tokens.flatten(0, 1).tensor_split(count)


def is_hooked(module: nn.Module) -> bool:
    """Return whether the module has forward hooks or a patched `forward`, such as accelerate's offloading."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, _global_hooks, _global_pre_hooks)
    return any(hooks) or "forward" in vars(module)


def star_relu(x: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Return `scale * relu(x) ** 2 + bias` in two passes over `x`, which alone is kept for the gradient."""
    if torch.compiler.is_compiling():  # and fuses it better
        return scale * F.relu(x).square() + bias
    return _StarReLU.apply(x, scale, bias)


def scaled_square_(x: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Overwrite `x` with `scale * x ** 2 + bias`."""
    scale, bias = scale.to(x.dtype), bias.to(x.dtype)
    if x.device.type == "cpu":  # where a scale can be read without waiting
        return torch.addcmul(bias, x, x, value=scale.item(), out=x)
    return torch.addcmul(bias, x.square_(), scale, out=x)


class _StarReLU(torch.autograd.Function):
    """Keeps its input alone, where autograd would keep two tensors as large."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, scale)
        return scaled_square_(F.relu(x), scale, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gradient: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        x, scale = ctx.saved_tensors
        rectified = F.relu(x)
        product = gradient * rectified
        scale_gradient = rectified.mul_(product).sum(dtype=scale.dtype).reshape(1)
        bias_gradient = gradient.sum(dtype=scale.dtype).reshape(1)
        return product.mul_(2 * scale.to(product.dtype)), scale_gradient, bias_gradient


def recompute_in_backward(
    tensor: torch.Tensor, function: Callable[[torch.Tensor], torch.Tensor], source: torch.Tensor
) -> AbstractContextManager:
    """Within it, autograd does not keep `tensor`, which is `function(source)`, but computes it again when needed."""
    # Whatever autograd saves of that storage is a view of `tensor`, which lives as long as this context: no other
    # tensor can have the address.
    address = tensor.data_ptr()

    def pack(saved: torch.Tensor) -> Any:
        if saved.untyped_storage().data_ptr() != address:
            return saved
        return saved.size(), saved.stride(), saved.storage_offset()

    def unpack(packed: Any) -> torch.Tensor:
        if isinstance(packed, torch.Tensor):
            return packed
        return function(source).as_strided(*packed)

    return torch.autograd.graph.saved_tensors_hooks(pack, unpack)
