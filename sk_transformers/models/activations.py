"""What happens between two linear layers, in few passes over what is the widest tensor of a network.

Without gradients, an activation overwrites its input or, in bfloat16 on the processor, is computed in the matrix
product before it, and many tokens go through an MLP in parts. With them, the output of an activation is not kept for
the backward pass, which computes it again from the input.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.activations import GELUActivation

PART_BYTES = 16 * 2**20  # of the hidden layer of an MLP at a time
PART_TOKENS = 2048  # at a time, that it pays to read the weights


class StarReLU(nn.Module):
    """`scale * relu(x) ** 2 + bias`, two trained scalars ("MetaFormer Baselines for Vision", arXiv 2210.13452).

    Where no gradient is taken it overwrites its input.
    """

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.empty(1))
        self.bias = nn.Parameter(torch.empty(1))
        self.reset_parameters()

    def reset_parameters(self, std: float = 0.02) -> None:
        init.ones_(self.scale)
        init.zeros_(self.bias)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if torch.compiler.is_compiling():
            return self.scale * F.relu(hidden_states).square() + self.bias
        if torch.is_grad_enabled():
            return _StarReLU.apply(hidden_states, self.scale, self.bias)
        return scaled_square_(hidden_states.relu_(), self.scale, self.bias)


def scaled_square_(x: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """`scale * x ** 2 + bias` in place of `x`."""
    scale, bias = scale.to(x.dtype), bias.to(x.dtype)
    if x.device.type == "cpu":  # where a scale can be read without waiting
        return torch.addcmul(bias, x, x, value=scale.item(), out=x)
    return torch.addcmul(bias, x.square_(), scale, out=x)


class _StarReLU(torch.autograd.Function):
    """Keeps its input alone, where autograd would keep two tensors as large."""

    @staticmethod
    def forward(ctx, hidden_states, scale, bias):
        ctx.save_for_backward(hidden_states, scale)
        return scaled_square_(F.relu(hidden_states), scale, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        hidden_states, scale = ctx.saved_tensors
        rectified = F.relu(hidden_states)
        product = gradient * rectified
        scale_gradient = rectified.mul_(product).sum(dtype=scale.dtype).reshape(1)
        bias_gradient = gradient.sum(dtype=scale.dtype).reshape(1)
        return product.mul_(2 * scale.to(product.dtype)), scale_gradient, bias_gradient


def mlp(
    fc1: nn.Module, activation: nn.Module, fc2: nn.Module, hidden_states: torch.Tensor, recompute: bool
) -> torch.Tensor:
    """`fc2(activation(fc1(hidden_states)))`.

    Args:
        recompute: in training, compute the activation again in the backward pass and do not keep its output.
    """
    if not torch.is_grad_enabled() or torch.compiler.is_compiling():
        parts = parts_of_tokens(fc1, activation, fc2, hidden_states)
        outputs = [fc2(activated(fc1, activation, part)) for part in parts]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs).view(hidden_states.shape)
    hidden_states = fc1(hidden_states)
    output = activation(hidden_states)
    if not recompute:
        return fc2(output)
    with recomputed(output, activation, hidden_states.detach()):
        return fc2(output)


def parts_of_tokens(
    fc1: nn.Module, activation: nn.Module, fc2: nn.Module, tokens: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """The tokens `(batch, tokens, channels)`, or parts of them, `(tokens, channels)`, for one pass through an MLP each.

    On the processor, new memory costs more than what is computed in it, and little memory is used again.
    """
    whole = (tokens,)
    layers = (fc1, activation, fc2)
    if tokens.device.type != "cpu" or torch.compiler.is_compiling() or any(map(_is_hooked, layers)):
        return whole
    width = getattr(fc1, "out_features", tokens.shape[2])
    most = max(PART_TOKENS, PART_BYTES // (width * tokens.element_size()))
    count = -(-tokens.shape[0] * tokens.shape[1] // most)
    if count < 2:
        return whole
    return tokens.flatten(0, 1).tensor_split(count)


def activated(linear: nn.Module, activation: nn.Module, hidden_states: torch.Tensor) -> torch.Tensor:
    """`activation(linear(hidden_states))`, in one pass if it can be."""
    if not _fuses(linear, activation, hidden_states):
        hidden_states = linear(hidden_states)
        is_free = not (torch.is_grad_enabled() or torch.compiler.is_compiling() or _is_hooked(linear))
        overwrites = is_free and _is_gelu(activation) and not _is_hooked(activation)
        return torch.ops.aten.gelu_(hidden_states) if overwrites else activation(hidden_states)
    if _is_gelu(activation):
        return _LINEAR_POINTWISE(hidden_states, linear.weight, linear.bias, "gelu", [], "none")
    rectified = _LINEAR_POINTWISE(hidden_states, linear.weight, linear.bias, "relu", [], "")
    return scaled_square_(rectified, activation.scale, activation.bias)


def _is_gelu(activation: nn.Module) -> bool:
    return type(activation) is GELUActivation and activation.act is F.gelu


# What torch.compile makes of a linear layer and an activation: one call of oneDNN. It is not documented, so it is used
# only where it is what it was when this was written, and where the processor computes in bfloat16.
_LINEAR_POINTWISE = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
_SIGNATURE = "(Tensor X, Tensor W, Tensor? B, str attr, Scalar?[] scalars, str? algorithm) -> Tensor Y"
if _LINEAR_POINTWISE is not None and not (
    str(_LINEAR_POINTWISE.default._schema).endswith(_SIGNATURE)
    and hasattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported")
    and torch.ops.mkldnn._is_mkldnn_bf16_supported()
):
    _LINEAR_POINTWISE = None


def _fuses(linear: nn.Module, activation: nn.Module, hidden_states: torch.Tensor) -> bool:
    """Whether one call can do both: in bfloat16 only, since torch's own product is the faster one in float32."""
    return (
        not torch.compiler.is_compiling()  # first, for torch.compile can not trace all of the rest
        and _LINEAR_POINTWISE is not None
        and (isinstance(activation, StarReLU) or _is_gelu(activation))
        and hidden_states.dtype == torch.bfloat16
        and hidden_states.device.type == "cpu"
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        and not torch.is_grad_enabled()
        # A plain layer, without an adapter, or weights in another format or place.
        and type(linear) is nn.Linear
        and type(linear.weight) is nn.Parameter
        and linear.weight.dtype == hidden_states.dtype
        and linear.weight.device == hidden_states.device
        and not _is_hooked(linear)
        and not _is_hooked(activation)
    )


def _is_hooked(module: nn.Module) -> bool:
    """Whether its call does more than its class says, such as to fetch weights that lie elsewhere."""
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))


def recomputed(
    tensor: torch.Tensor, function: Callable[[torch.Tensor], torch.Tensor], source: torch.Tensor
) -> AbstractContextManager:
    """Within it, autograd does not keep `tensor`, which is `function(source)`, but computes it again when needed."""
    address = tensor.data_ptr()

    def pack(saved: torch.Tensor):
        if saved.untyped_storage().data_ptr() != address:
            return saved
        return saved.size(), saved.stride(), saved.storage_offset()

    def unpack(packed):
        if isinstance(packed, torch.Tensor):
            return packed
        with torch.enable_grad():  # without it, an activation may overwrite its input
            return function(source).detach().as_strided(*packed)

    return torch.autograd.graph.saved_tensors_hooks(pack, unpack)
