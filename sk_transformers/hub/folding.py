"""A network as a graph of images of one size computes it best: what no image changes is computed beforehand.

A graph has no kernels of ours, and its sizes are known. So scales go into weights, keys are kept transposed, the
softmax of a static map is a constant, and what StarReLU multiplies and adds goes into the linear layer behind it:

    static key         softmax(q @ (scale * K.T)) @ v
    conv. static key   softmax([n(q), 1] @ (scale * [K.T; b])) @ v     the bias is a row of the key
    attention          softmax((scale * q) @ k.T) @ v                  the scale is in the query's weights
    convolved key      softmax(q @ (scale * conv)(q).T) @ v            the scale is in the convolution's weights
    static map         softmax(B) @ v                                  softmax(B) is a constant
    StarReLU, linear   relu(x)**2 @ (scale * W) + bias * W.sum(0)

The logits are the network's own but for rounding.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from ..models.attention import project
from ..models.attention_bias import logit_mask
from ..models.conv_key import ConvKeyAttention, convolved_keys
from ..models.grids import KERNEL_SIZE, maps_to_tokens
from ..models.layers import MLP, StarReLU
from ..models.reference import softmax_attention
from ..models.rotary import rotate
from ..models.static_key import ConvStaticKeyAttention, SelfAttention, StaticKeyAttention
from ..models.static_map import StaticMap
from ..models.token_mixers import SeparableConvolution


@torch.no_grad()
def fold(model: PreTrainedModel) -> PreTrainedModel:
    """Return a copy of a network that computes the same on images of `config.image_size`, and on no others."""
    model = copy.deepcopy(model).eval()
    for name, module in list(model.named_modules()):
        if type(module) in FOLDED:
            model.set_submodule(name, FOLDED[type(module)](module))
    return model


class FoldedMixer(nn.Module, ABC):
    """A mixer with constants in place of what it computes of its parameters.

    On a grid that is not the trained one, and in windows with keys of their own, the mixer does it itself.
    """

    def __init__(self, mixer: Any) -> None:
        super().__init__()
        self.mixer, self.options, self.num_heads = mixer, mixer.options, mixer.options.num_heads
        bias = logit_mask(
            mixer, None, mixer.grid_size, mixer.v_proj.weight.new_empty(1, 1, mixer.options.num_positions, 1)
        )
        self.bias = None if bias is None else nn.Buffer(bias.clone())

    def forward(
        self,
        hidden_states: torch.Tensor,
        grid_size: tuple[int, int] | None = None,
        output_attentions: bool = False,
        implementation: str = "sdpa",
        mask: torch.Tensor | None = None,
        **windows: tuple[int, int],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """See `SelfAttention.forward`; there are no weights."""
        mixer, grid_size = self.mixer, grid_size or self.mixer.grid_size
        if grid_size != mixer.grid_size or self.options.key_windows is not None:
            return mixer(hidden_states, grid_size, output_attentions, implementation, mask, **windows)
        value = project(mixer, "v", hidden_states, mixer.grid_size)  # (batch, heads, tokens, head_dim)
        output = self.mix(hidden_states, value, mask)
        return mixer.o_proj(output.transpose(1, 2).flatten(2)), None

    def mix(self, hidden_states: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Return what the heads make of the values, `(batch, heads, tokens, head_dim)`."""
        mask = self.bias if mask is None or self.bias is None else mask + self.bias
        normalization, talking_heads = self.options.attention_normalization, self.mixer.talking_heads
        return softmax_attention(self.logits(hidden_states), value, mask, normalization, talking_heads)[0]

    @abstractmethod
    def logits(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Return the scaled logits, `(batch, heads, queries, keys)`."""

    def project(self, name: str, hidden_states: torch.Tensor, projection: nn.Module | None = None) -> torch.Tensor:
        """Return queries or keys, q or k, `(batch, heads, tokens, head_dim)`, turned by their positions."""
        projected = project(self.mixer, name, hidden_states, self.mixer.grid_size, projection)
        if self.options.rope_theta is None:
            return projected
        return rotate(self.mixer.grid_size, self.mixer.num_class_tokens, self.options.rope_theta, projected)[0]


def scale_of(mixer: Any) -> torch.Tensor | float:
    """Return the factor of a mixer's logits, trained or not."""
    return mixer.options.scaling if mixer.temperature is None else mixer.temperature.exp()


def as_right_side(key: torch.Tensor) -> nn.Buffer:
    """Return a key `(heads, keys, channels)` as `(1, heads, channels, keys)`, which queries are multiplied by."""
    return nn.Buffer(key.mT.contiguous()[None])


class FoldedAttention(FoldedMixer):
    """Attention whose scale is in the query's weights."""

    def __init__(self, mixer: SelfAttention) -> None:
        super().__init__(mixer)
        self.q_proj = copy.deepcopy(mixer.q_proj)
        for parameter in self.q_proj.parameters():
            parameter.mul_(scale_of(mixer))

    def logits(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.project("q", hidden_states, self.q_proj) @ self.project("k", hidden_states).mT


class FoldedConvKey(FoldedMixer):
    """Attention with a convolved key whose scale is in the convolution."""

    def __init__(self, mixer: ConvKeyAttention) -> None:
        super().__init__(mixer)
        self.key_conv = copy.deepcopy(mixer.key_conv)
        self.key_conv.weight.mul_(scale_of(mixer))

    def logits(self, hidden_states: torch.Tensor) -> torch.Tensor:
        mixer = self.mixer
        query = project(mixer, "q", hidden_states, mixer.grid_size)
        key = convolved_keys(self.key_conv, query, mixer.grid_size)
        if self.options.rope_theta is not None:
            query, key = rotate(mixer.grid_size, 0, self.options.rope_theta, query, key)
        return query @ key.mT


class FoldedStaticKey(FoldedMixer):
    """SKA whose scale is in the key."""

    def __init__(self, mixer: StaticKeyAttention) -> None:
        super().__init__(mixer)
        self.key = as_right_side(mixer.key * scale_of(mixer))

    def logits(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.project("q", hidden_states) @ self.key


class FoldedConvStaticKey(FoldedMixer):
    """CSKA whose scale is in the key, and whose bias is the key of a channel of ones."""

    def __init__(self, mixer: ConvStaticKeyAttention) -> None:
        super().__init__(mixer)
        scaling = 1.0 if mixer.options.learned_temperature else mixer.options.scaling
        self.key = as_right_side(torch.cat([mixer.key, mixer.key_bias[:, :, None]], dim=2) * scaling)
        self.ones = nn.Buffer(mixer.key.new_ones(1, self.num_heads, *mixer.grid_size, 1))
        self.class_key = None if mixer.class_key is None else as_right_side(mixer.class_key * scale_of(mixer))

    def logits(self, hidden_states: torch.Tensor) -> torch.Tensor:
        query, first = self.project("q", hidden_states), self.mixer.num_class_tokens
        logits = self.with_neighbors(query[:, :, first:]) @ self.key
        if self.class_key is None:
            return logits
        return torch.cat([query[:, :, :first] @ self.class_key, logits], dim=2)

    def with_neighbors(self, query: torch.Tensor) -> torch.Tensor:
        """Return `neighborhoods` of queries and a channel of ones: a slice for each neighbor, which graphs do fast."""
        height, width = self.mixer.grid_size
        maps = F.pad(query.unflatten(2, (height, width)), (0, 0, 1, 1, 1, 1))
        neighbors = [
            maps[:, :, row : row + height, column : column + width]
            for row in range(KERNEL_SIZE)
            for column in range(KERNEL_SIZE)
        ]
        return torch.cat([*neighbors, self.ones.expand(query.shape[0], -1, -1, -1, -1)], dim=4).flatten(2, 3)


class FoldedStaticMap(FoldedMixer):
    """A static map whose softmax is a constant, but where a mask is added to it."""

    def __init__(self, mixer: StaticMap) -> None:
        super().__init__(mixer)
        self.weights = nn.Buffer(mixer.weights(mixer.grid_size)[None].clone())

    def mix(self, hidden_states: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        return self.weights @ value if mask is None else super().mix(hidden_states, value, mask)

    def logits(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return hidden_states.new_zeros(())  # beside the bias, which is the map


class SquaredReLU(nn.Module):
    """`relu(x) ** 2`: StarReLU without its two numbers."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return F.relu(hidden_states).square()


def fold_mlp(mlp: MLP) -> MLP:
    """Return an MLP that has StarReLU's two numbers in its second layer, or as it is with another activation."""
    star_relu, linear = mlp.activation, mlp.fc2
    if not isinstance(star_relu, StarReLU):
        return mlp
    mlp.activation = SquaredReLU()
    mlp.fc2 = nn.Linear(linear.in_features, linear.out_features, dtype=linear.weight.dtype)
    mlp.fc2.weight.copy_(linear.weight * star_relu.scale)
    mlp.fc2.bias.copy_(star_relu.bias * linear.weight.sum(dim=1) + (0 if linear.bias is None else linear.bias))
    return mlp


class PlusTokens(nn.Module):
    """A linear layer and the same tokens added for every image."""

    def __init__(self, linear: nn.Module, tokens: torch.Tensor) -> None:
        super().__init__()
        self.linear, self.tokens = linear, nn.Buffer(tokens)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.linear(hidden_states) + self.tokens


def fold_convolution(mixer: Any) -> SeparableConvolution:
    """Return a separable convolution without StarReLU's two numbers.

    The factor is in its kernel. What the bias comes to, near the border less than inside, is added in the end, where
    the tokens are narrower.
    """
    star_relu, depthwise = mixer.activation, mixer.depthwise
    bias = star_relu.bias.expand(1, depthwise.in_channels)[:, :, None, None]
    tokens = mixer.fc2(maps_to_tokens(depthwise(bias.expand(-1, -1, *mixer.grid_size))))
    depthwise.weight.mul_(star_relu.scale)
    mixer.activation, mixer.fc2 = SquaredReLU(), PlusTokens(mixer.fc2, tokens)
    return mixer


FOLDED: dict[type[nn.Module], Callable[[Any], nn.Module]] = {
    SelfAttention: FoldedAttention,
    ConvKeyAttention: FoldedConvKey,
    StaticKeyAttention: FoldedStaticKey,
    ConvStaticKeyAttention: FoldedConvStaticKey,
    StaticMap: FoldedStaticMap,
    MLP: fold_mlp,
    SeparableConvolution: fold_convolution,
}
