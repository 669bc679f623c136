"""Static key attention: attention whose key is a trained parameter, the same for every image.

With tokens `x`, queries `q = x W_q`, values `v = x W_v` and `d` channels a head:

    SelfAttention            softmax(  q @ (x W_k).T   * d**-0.5 ) @ v    the key is computed from the image
    StaticKeyAttention       softmax(  q @ K.T         * d**-0.5 ) @ v    the key K is a parameter (SKA)
    ConvStaticKeyAttention   softmax( (n(q) @ K.T + b) * d**-0.5 ) @ v    n(q) is the 3x3 neighborhood of q (CSKA)

`reference.py` has the equations alone. The paper writes CSKA's logits as a grouped 3x3 convolution over the map of
queries. A convolution is a linear map of a neighborhood, so that is SKA whose query is the `9 d` numbers around it. A
static key has one row for each position of the grid that it was made for; on another grid it is resized like an image,
or the map is cut into windows of its own.

The authors' released Swin has another form of CSKA, whose keys are computed: `conv_key.py`.

In a network with rotary positions the query is turned by its own position everywhere. A static key is not: its rotation
is a part of it, so that the turned key of one image, as a static key, gives what attention gives for that image.

Source: "Static Key Attention in Vision", Hu, Zhou, Rostami, arXiv 2412.07049.
"""

import math

import torch
from torch import nn
from transformers import initialization as init

from .attention import (
    attend,
    attend_from_neighborhoods,
    check_tokens,
    mix_windows,
    project,
    scale,
    wants_reference,
)
from .attention_bias import build_attention_bias, logit_mask
from .attention_options import AttentionOptions
from .conv_projection import build_convolutions
from .grids import KERNEL_SIZE, ResizedKeys, strided_size, window_partition
from .reference import conv_static_key_logits, softmax_attention, static_key_logits
from .rotary import rotate
from .talking_heads import build_talking_heads


class SelfAttention(nn.Module):
    """Multi-head self-attention, the baseline."""

    def __init__(self, options: AttentionOptions):
        super().__init__()
        self.options, self.grid_size, self.num_class_tokens = options, options.grid_size, options.num_class_tokens
        width, inner_size, bias = options.hidden_size, options.inner_size, options.qkv_bias
        self.q_proj = nn.Linear(width, inner_size, bias=bias)
        self.k_proj = nn.Linear(width, inner_size, bias=bias and options.key_bias)
        self.v_proj = nn.Linear(width, inner_size, bias=bias)
        self.o_proj = nn.Linear(inner_size, width, bias=options.output_bias)
        self.temperature = nn.Parameter(torch.empty(1)) if options.learned_temperature else None
        self.attention_bias = build_attention_bias(options)
        self.talking_heads = build_talking_heads(options)
        self.convolutions = build_convolutions(options, "qkv")
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters that belong to no submodule."""
        if self.temperature is not None:
            init.constant_(self.temperature, math.log(self.options.head_dim**-0.5))

    def forward(
        self,
        hidden_states: torch.Tensor,
        grid_size: tuple[int, int] | None = None,
        output_attentions: bool = False,
        implementation: str = "sdpa",
        mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Mix tokens `(batch, [class tokens +] height * width, hidden_size)` on a grid; see `attend` for the others.

        Returns:
            The mixed tokens, in the same shape, and the weights `(batch, heads, tokens, tokens)` where they exist, or
            None. Where static keys work in windows, the weights' batch counts windows, not images.

        Raises:
            ValueError: if the tokens are not as many as the grid and the class tokens say.
        """
        options, grid_size = self.options, grid_size or self.grid_size
        check_tokens(self, hidden_states, grid_size)
        query, key, value = (project(self, name, hidden_states, grid_size) for name in "qkv")
        if options.rope_theta is not None:
            query, key = rotate(grid_size, self.num_class_tokens, options.rope_theta, query, key)
        query, scaling = scale(self, query)
        mask = logit_mask(self, mask, grid_size, value)
        normalization = options.attention_normalization
        output, weights = attend(
            self, query, key, value, scaling, mask, implementation, output_attentions, normalization, self.talking_heads
        )
        return self.o_proj(output.flatten(2)), weights


class StaticKeyAttention(nn.Module):
    """SKA: the key is a parameter, `(heads, [class tokens +] height * width, head_dim)`, drawn from N(0, 1)."""

    def __init__(self, options: AttentionOptions):
        super().__init__()
        self.options, self.grid_size, self.num_class_tokens = options, options.grid_size, options.num_class_tokens
        width, inner_size, bias = options.hidden_size, options.inner_size, options.qkv_bias
        self.q_proj = nn.Linear(width, inner_size, bias=bias) if options.query_projection else nn.Identity()
        self.v_proj = nn.Linear(width, inner_size, bias=bias)
        self.o_proj = nn.Linear(inner_size, width, bias=options.output_bias)
        self.temperature = nn.Parameter(torch.empty(1)) if options.learned_temperature else None
        (rows, columns), (height, width) = options.key_windows or (1, 1), options.key_grid_size
        self.key_grid_size = (rows * height, columns * width)
        num_keys = options.num_class_tokens + rows * height * columns * width
        self.key = nn.Parameter(torch.empty(options.num_heads, num_keys, options.head_dim))
        self.resized_keys = ResizedKeys(self.key_grid_size, options.num_class_tokens)
        self.attention_bias = build_attention_bias(options)
        self.talking_heads = build_talking_heads(options)
        self.convolutions = build_convolutions(options, "qv")
        self.reset_parameters()

    def reset_parameters(self) -> None:
        init.normal_(self.key)
        if self.temperature is not None:
            init.constant_(self.temperature, math.log(self.options.head_dim**-0.5))

    def static_keys(self) -> list[nn.Parameter]:
        """Return the parameters with one row for each key position, `(heads, positions, ...)`."""
        return [self.key]

    def forward(
        self,
        hidden_states: torch.Tensor,
        grid_size: tuple[int, int] | None = None,
        output_attentions: bool = False,
        implementation: str = "sdpa",
        mask: torch.Tensor | None = None,
        windows: tuple[int, int] = (1, 1),
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """See `SelfAttention.forward`; the batch may hold `windows`, rows and columns of them, of each image."""
        options, grid_size = self.options, grid_size or self.grid_size
        check_tokens(self, hidden_states, grid_size)
        if options.static_key_resolution == "window" and grid_size != self.grid_size:
            return mix_windows(self, hidden_states, grid_size, output_attentions, implementation)
        query = project(self, "q", hidden_states, grid_size)  # (batch, heads, tokens, head_dim)
        if options.rope_theta is not None:
            (query,) = rotate(grid_size, self.num_class_tokens, options.rope_theta, query)
        value = project(self, "v", hidden_states, grid_size)
        if options.key_windows is not None:
            key = self.window_keys(grid_size, windows, value.shape[0])
        else:
            # (heads, keys, head_dim): no image is in it
            (key,) = self.resized_keys(self.static_keys(), strided_size(grid_size, options.key_stride))
        query, scaling = scale(self, query)
        mask = logit_mask(self, mask, grid_size, value)
        normalization = options.attention_normalization
        output, weights = attend(
            self, query, key, value, scaling, mask, implementation, output_attentions, normalization, self.talking_heads
        )
        return self.o_proj(output.flatten(2)), weights

    def window_keys(self, grid_size: tuple[int, int], windows: tuple[int, int], batch: int) -> torch.Tensor:
        """Return the key of each window, `(batch, heads, tokens, head_dim)`: tiles of a map, resized whole."""
        map_size = (windows[0] * grid_size[0], windows[1] * grid_size[1])
        (key,) = self.resized_keys(self.static_keys(), map_size)
        tiles = window_partition(key, map_size, grid_size).unflatten(0, (key.shape[0], -1)).transpose(0, 1)
        return tiles.repeat(batch // len(tiles), 1, 1, 1)


class ConvStaticKeyAttention(nn.Module):
    """CSKA: SKA whose query is its own 3x3 neighborhood, zero outside the map.

    The key, `(heads, positions, 9 head_dim)`, is the convolution's weight with its channels last, `(heads * positions,
    3, 3, head_dim)`, in another shape, and every key position has a bias. A class token has no neighborhood: its query
    meets a static key of its own, `class_key`, and it alone has the learned temperature: a convolution absorbs it.
    """

    def __init__(self, options: AttentionOptions):
        super().__init__()
        self.options, self.grid_size, self.num_class_tokens = options, options.grid_size, options.num_class_tokens
        width, inner_size, bias = options.hidden_size, options.inner_size, options.qkv_bias
        self.q_proj = nn.Linear(width, inner_size, bias=bias) if options.query_projection else nn.Identity()
        self.v_proj = nn.Linear(width, inner_size, bias=bias)
        self.o_proj = nn.Linear(inner_size, width, bias=options.output_bias)
        self.key_grid_size = options.key_grid_size
        rows, has_class = (options.num_heads, options.num_positions), options.num_class_tokens > 0
        self.key = nn.Parameter(torch.empty(*rows, options.head_dim * KERNEL_SIZE**2))
        self.key_bias = nn.Parameter(torch.empty(rows))
        self.class_key = nn.Parameter(torch.empty(*rows, options.head_dim)) if has_class else None
        self.temperature = nn.Parameter(torch.empty(1)) if options.learned_temperature and has_class else None
        self.resized_keys = ResizedKeys(self.key_grid_size, options.num_class_tokens)
        self.attention_bias = build_attention_bias(options)
        self.talking_heads = build_talking_heads(options)
        self.convolutions = build_convolutions(options, "qv")
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """See `SelfAttention`; the key is a convolution's weight, and drawn like one."""
        init.trunc_normal_(self.key, std=self.options.initializer_range)
        init.zeros_(self.key_bias)
        if self.class_key is not None:
            init.normal_(self.class_key)
        if self.temperature is not None:
            init.constant_(self.temperature, math.log(self.options.head_dim**-0.5))

    def static_keys(self) -> list[nn.Parameter]:
        return [key for key in (self.key, self.key_bias, self.class_key) if key is not None]

    def forward(
        self,
        hidden_states: torch.Tensor,
        grid_size: tuple[int, int] | None = None,
        output_attentions: bool = False,
        implementation: str = "sdpa",
        mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """See `SelfAttention.forward`."""
        options, grid_size = self.options, grid_size or self.grid_size
        check_tokens(self, hidden_states, grid_size)
        if options.static_key_resolution == "window" and grid_size != self.grid_size:
            return mix_windows(self, hidden_states, grid_size, output_attentions, implementation)
        query = project(self, "q", hidden_states, grid_size)  # (batch, heads, tokens, head_dim)
        if options.rope_theta is not None:
            (query,) = rotate(grid_size, self.num_class_tokens, options.rope_theta, query)
        value = project(self, "v", hidden_states, grid_size)
        key_grid_size = strided_size(grid_size, options.key_stride)
        key, key_bias, *class_key = self.resized_keys(self.static_keys(), key_grid_size)
        mask = logit_mask(self, mask, grid_size, value)
        first = options.num_class_tokens
        grid_query = query[:, :, first:]
        class_query, class_scaling = scale(self, query[:, :, :first])
        scaling = 1.0 if options.learned_temperature else options.scaling
        normalization, talking_heads = options.attention_normalization, self.talking_heads
        if wants_reference(implementation, output_attentions, normalization, talking_heads):
            logits = conv_static_key_logits(grid_query, key, key_bias, grid_size) * scaling
            if first:
                class_logits = static_key_logits(class_query, class_key[0]) * class_scaling
                logits = torch.cat([class_logits, logits], dim=2)
            output, weights = softmax_attention(logits, value, mask, normalization, talking_heads)
            return self.o_proj(output.transpose(1, 2).flatten(2)), weights

        class_mask, grid_mask = (None, None) if mask is None else (mask[:, :, :first], mask[:, :, first:])
        output = attend_from_neighborhoods(self, grid_query, key, key_bias, value, grid_size, scaling, grid_mask)
        if first:
            class_output, _ = attend(self, class_query, class_key[0], value, class_scaling, class_mask, implementation)
            output = torch.cat([class_output, output], dim=1)
        return self.o_proj(output.flatten(2)), None
