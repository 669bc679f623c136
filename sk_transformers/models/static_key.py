"""Static key attention: attention whose key is a trained parameter, the same for every image.

With tokens `x`, queries `q = x W_q`, values `v = x W_v` and `d` channels a head:

    SelfAttention            softmax(  q @ (x W_k).T   * d**-0.5 ) @ v    the key is computed from the image
    StaticKeyAttention       softmax(  q @ K.T         * d**-0.5 ) @ v    the key K is a parameter (SKA)
    ConvStaticKeyAttention   softmax( (n(q) @ K.T + b) * d**-0.5 ) @ v    n(q) is the 3x3 neighbourhood of q (CSKA)

The paper writes CSKA's logits as a grouped 3x3 convolution over the map of queries with one output channel for each
key position. A convolution is a linear map of a neighbourhood, so that is SKA with the query replaced by the `9 d`
numbers around it, and the convolution's `(batch, heads, N, N)` output need not exist. One core, `attend`, serves all
three; on the processor `conv_static_key_cpu.py` computes CSKA faster.

A static key has one row for each position of the grid that it was made for. On another grid it is resized like an
image, or the map is cut into windows of the trained grid.

Source: "Static Key Attention in Vision", Hu, Zhou, Rostami, arXiv 2412.07049.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .conv_static_key_cpu import KERNEL_SIZE, conv_static_key_attention, neighbourhoods

MAX_CACHED_GRIDS = 4  # resized keys that a layer remembers in evaluation; each is as large as its grid


class SelfAttention(nn.Module):
    """Multi-head self-attention, the baseline, and the frame that static keys are put into.

    Args:
        hidden_size: channels of the tokens.
        grid_size: `(height, width)` of the grid of positions; it binds static keys only.
        num_heads, head_dim: number of heads and channels of a head; they need not fill `hidden_size`.
        num_class_tokens: class tokens, distillation tokens among them, that stand before the positions.
        query_projection: False makes the tokens themselves the query (static keys only).
        qkv_bias, output_bias: whether the projections have biases.
        mask_diagonal: keep a token from attending to its own position (locality self-attention).
        learned_temperature: train the scale of the logits, as a logarithm that starts at `head_dim ** -0.5`.
        static_key_resolution: what to do on another grid than `grid_size`: `"interpolate"` the static key, or cut
            the map into `"window"`s of the trained grid.
    """

    def __init__(
        self,
        hidden_size: int,
        grid_size: tuple[int, int],
        num_heads: int,
        head_dim: int,
        *,
        num_class_tokens: int = 0,
        query_projection: bool = True,
        qkv_bias: bool = False,
        output_bias: bool = True,
        mask_diagonal: bool = False,
        learned_temperature: bool = False,
        static_key_resolution: str = "interpolate",
    ):
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = head_dim
        self.grid_size = tuple(grid_size)
        self.num_class_tokens = num_class_tokens
        self.mask_diagonal = mask_diagonal
        self.static_key_resolution = static_key_resolution

        inner_size = self.num_heads * self.head_dim
        self.q_proj = nn.Linear(hidden_size, inner_size, bias=qkv_bias) if query_projection else nn.Identity()
        self.v_proj = nn.Linear(hidden_size, inner_size, bias=qkv_bias)
        self.o_proj = nn.Linear(inner_size, hidden_size, bias=output_bias)
        self.learned_temperature = learned_temperature
        self.temperature = nn.Parameter(torch.empty(1)) if learned_temperature else None
        self._add_key(hidden_size, qkv_bias)
        self.reset_parameters()

    def _add_key(self, hidden_size: int, bias: bool) -> None:
        self.k_proj = nn.Linear(hidden_size, self.num_heads * self.head_dim, bias=bias)

    def reset_parameters(self, std: float = 0.02) -> None:
        """Draw the parameters that belong to no submodule; `std` is the scale of linear weights."""
        if self.temperature is not None:
            init.constant_(self.temperature, math.log(self.head_dim**-0.5))

    def forward(
        self,
        hidden_states: torch.Tensor,
        grid_size: tuple[int, int] | None = None,
        output_attentions: bool = False,
        implementation: str = "sdpa",
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Mix tokens `(batch, [class tokens +] height * width, hidden_size)` that lie on the grid `(height, width)`.

        Returns:
            The mixed tokens, in the same shape, and the attention weights `(batch, heads, tokens, tokens)` if asked
            for, else None. In window mode on another grid, the weights' batch counts windows, not images.
        """
        grid_size = self._check_tokens(hidden_states, grid_size)
        output, weights = self._mix(
            hidden_states, grid_size, output_attentions=output_attentions, implementation=implementation
        )
        return self.o_proj(output.flatten(2)), weights

    def _check_tokens(self, hidden_states: torch.Tensor, grid_size: tuple[int, int] | None) -> tuple[int, int]:
        # Fused kernels trust the shapes they are given: a key of another length than the value is read as it comes.
        height, width = grid_size or self.grid_size
        tokens = height * width + self.num_class_tokens
        if hidden_states.shape[1] != tokens:
            first = f"{self.num_class_tokens} for classes and " if self.num_class_tokens else ""
            raise ValueError(
                f"{type(self).__name__} got {hidden_states.shape[1]} tokens, expected {tokens}: {first}a grid of"
                f" {height}x{width}. Pass grid_size=(height, width) with the grid that the tokens lie on."
            )
        return height, width

    def _mix(self, hidden_states, grid_size, **options):
        query, key, value = (
            self._split_heads(projection(hidden_states)) for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        query, scaling = self._scale(query)
        return attend(self, query, key, value, scaling=scaling, mask=self._diagonal_mask(query), **options)

    def _split_heads(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens.unflatten(2, (self.num_heads, -1)).transpose(1, 2)

    def _scale(self, query: torch.Tensor) -> tuple[torch.Tensor, float]:
        # Kernels take a scale that is a number; a trained one goes into the query.
        if self.temperature is None:
            return query, self.head_dim**-0.5
        return query * self.temperature.exp().to(query.dtype), 1.0

    def _diagonal_mask(self, tokens: torch.Tensor) -> torch.Tensor | None:
        if not self.mask_diagonal:
            return None
        count = tokens.shape[2]
        # The lowest number and not -inf, so that a lone token still attends to something.
        lowest = torch.finfo(tokens.dtype).min
        return torch.eye(count, dtype=tokens.dtype, device=tokens.device)[None, None] * lowest


class StaticKeyAttention(SelfAttention):
    """SKA: the key is a parameter, `(heads, [class tokens +] height * width, head_dim)`, drawn from N(0, 1).

    There is no key projection, and the query projection can go too. Arguments are those of `SelfAttention`.
    """

    def _add_key(self, hidden_size: int, bias: bool) -> None:
        if isinstance(self.q_proj, nn.Identity) and self.num_heads * self.head_dim != hidden_size:
            raise ValueError(
                f"query_projection=False makes the {hidden_size} channels of a token its query, but there are"
                f" {self.num_heads} heads of {self.head_dim}: choose heads that fill {hidden_size} channels."
            )
        if self.static_key_resolution == "window" and self.num_class_tokens:
            raise ValueError(
                "static_key_resolution='window' cuts the map into windows, and a class token is in none:"
                " use 'interpolate', or a network without a class token."
            )
        self._resized_keys = {}
        self._add_static_key(self.grid_size[0] * self.grid_size[1] + self.num_class_tokens)

    def _add_static_key(self, positions: int) -> None:
        self.key = nn.Parameter(torch.empty(self.num_heads, positions, self.head_dim))

    def reset_parameters(self, std: float = 0.02) -> None:
        super().reset_parameters(std)
        init.normal_(self.key)

    def static_keys(self) -> list[nn.Parameter]:
        """The parameters with one row for each key position, `(heads, positions, ...)`."""
        return [self.key]

    def _mix(self, hidden_states, grid_size, **options):
        query, value = self.q_proj(hidden_states), self.v_proj(hidden_states)
        if self.static_key_resolution == "interpolate" or grid_size == self.grid_size:
            return self._mix_grid(query, value, grid_size, padding=None, **options)
        batch = value.shape[0]
        query, value = (cut_windows(tokens, grid_size, self.grid_size) for tokens in (query, value))
        padding = window_padding_mask(grid_size, self.grid_size, value).repeat(batch, 1, 1, 1)
        output, weights = self._mix_grid(query, value, self.grid_size, padding, **options)
        return join_windows(output.flatten(2), grid_size, self.grid_size), weights

    def _mix_grid(self, query, value, grid_size, padding, **options):
        (key,) = self.static_keys_on(grid_size)
        query, scaling = self._scale(self._split_heads(query))
        mask = add_masks(self._diagonal_mask(query), padding)
        return attend(self, query, key, self._split_heads(value), scaling=scaling, mask=mask, **options)

    def static_keys_on(self, grid_size: tuple[int, int]) -> list[torch.Tensor]:
        """The static keys on the grid `(height, width)`.

        In training they are resized each time, so that gradients reach the parameters; in evaluation once for each
        grid, until a parameter changes.
        """
        parameters = self.static_keys()
        if grid_size == self.grid_size:
            return parameters
        needs_grad = torch.is_grad_enabled() and any(p.requires_grad for p in parameters)
        if self.training or needs_grad or torch.compiler.is_compiling() or any(p.is_inference() for p in parameters):
            return [resize_grid(p, self.grid_size, grid_size, self.num_class_tokens) for p in parameters]

        version = [(id(p), p.data_ptr(), p._version, p.dtype, p.device) for p in parameters]
        cached_version, keys = self._resized_keys.pop(grid_size, (None, None))
        if cached_version != version:
            # A tensor made in inference mode could not be used outside it later.
            with torch.inference_mode(False), torch.no_grad():
                keys = [resize_grid(p, self.grid_size, grid_size, self.num_class_tokens) for p in parameters]
        self._resized_keys[grid_size] = (version, keys)
        if len(self._resized_keys) > MAX_CACHED_GRIDS:
            self._resized_keys.pop(next(iter(self._resized_keys)))
        return keys

    def train(self, mode: bool = True):
        self._resized_keys.clear()
        return super().train(mode)

    def _apply(self, fn, recurse: bool = True):
        self._resized_keys.clear()
        return super()._apply(fn, recurse)


class ConvStaticKeyAttention(StaticKeyAttention):
    """CSKA: SKA whose query is its own 3x3 neighbourhood, zero outside the map.

    The key, `(heads, positions, 9 head_dim)`, is the convolution's weight with its channels last, `(heads * positions,
    3, 3, head_dim)`, in another shape, and every key position has a bias. A class token has no neighbourhood: its query
    meets a static key of its own, `class_key`, and it alone has the learned temperature: kernels train their own scale.
    """

    def _add_static_key(self, positions: int) -> None:
        self.key = nn.Parameter(torch.empty(self.num_heads, positions, self.head_dim * KERNEL_SIZE**2))
        self.key_bias = nn.Parameter(torch.empty(self.num_heads, positions))
        self.class_key = (
            nn.Parameter(torch.empty(self.num_heads, positions, self.head_dim)) if self.num_class_tokens else None
        )
        if not self.num_class_tokens:
            self.temperature = None

    def reset_parameters(self, std: float = 0.02) -> None:
        SelfAttention.reset_parameters(self, std)
        init.trunc_normal_(self.key, std=std)  # a convolution's weight, and drawn like one
        init.zeros_(self.key_bias)
        if self.class_key is not None:
            init.normal_(self.class_key)

    def static_keys(self) -> list[nn.Parameter]:
        keys = [self.key, self.key_bias]
        return keys if self.class_key is None else [*keys, self.class_key]

    def _mix_grid(self, query, value, grid_size, padding, **options):
        key, key_bias, *class_key = self.static_keys_on(grid_size)
        query, value = self._split_heads(query), self._split_heads(value)
        mask = add_masks(self._diagonal_mask(value), padding)
        first = self.num_class_tokens
        class_mask, grid_mask = (None, None) if mask is None else (mask[:, :, :first], mask[:, :, first:])
        output, weights = attend_from_neighbourhoods(
            self, query[:, :, first:], key, key_bias, value, grid_size, self._conv_scaling, grid_mask, **options
        )
        if first == 0:
            return output, weights
        class_query, scaling = self._scale(query[:, :, :first])
        class_output, class_weights = attend(
            self, class_query, class_key[0], value, scaling=scaling, mask=class_mask, **options
        )
        weights = None if weights is None else torch.cat([class_weights, weights], dim=2)
        return torch.cat([class_output, output], dim=1), weights

    @property
    def _conv_scaling(self) -> float:
        return 1.0 if self.learned_temperature else self.head_dim**-0.5


def attend(
    mixer: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    scaling: float,
    mask: torch.Tensor | None = None,
    output_attentions: bool = False,
    implementation: str = "sdpa",
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """`softmax(scaling * query @ key.T + mask) @ value`, for computed and for static keys.

    Args:
        mixer: the calling module, which transformers' attention functions ask for its mode.
        query: `(batch, heads, queries, e)`.
        key: `(heads, keys, e)` when it is static, `(batch, heads, keys, e)` when it is computed.
        value: `(batch, heads, keys, d)`.
        mask: additive, broadcastable to `(batch, 1, queries, keys)`.
        output_attentions: whether to return the weights; they exist in the plain formulation only, which then runs.
        implementation: a name in transformers' `ALL_ATTENTION_FUNCTIONS`, or `"eager"` for the plain formulation.

    Returns:
        The output, `(batch, queries, heads, d)`, and the weights, `(batch, heads, queries, keys)` or None.
    """
    if output_attentions or implementation == "eager" or _overruns_mask(implementation, mask):
        return plain_attention(query, key, value, scaling, mask=mask)
    return fused_attention(mixer, query, key, value, scaling, mask, implementation), None


def attend_from_neighbourhoods(
    mixer, query, key, bias, value, grid_size, scaling, mask, *, output_attentions=False, implementation="sdpa"
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """`attend` with `scaling * (neighbourhoods(query) @ key.T + bias)` for logits.

    The key is `(heads, keys, 9 e)`, the bias `(heads, keys)`; other arguments and results are those of `attend`.
    Queries wider than values fit neither flex attention nor most of the kernels of `sdpa`.
    """
    returns_weights = output_attentions or implementation == "eager"
    is_plain = returns_weights or torch.compiler.is_exporting()
    if not is_plain and value.device.type == "cpu":
        return conv_static_key_attention(query * scaling, key, value, bias * scaling, mask, grid_size), None
    query = neighbourhoods(query, grid_size)
    if not is_plain and value.device.type == "cuda":
        # One of them they fit: the memory-efficient one.
        query, key = with_bias_as_channel(query, key, bias)
        return fused_attention(mixer, query, key, value, scaling, mask, "sdpa"), None
    output, weights = plain_attention(query, key, value, scaling, bias, mask)
    return output, weights if returns_weights else None


def with_bias_as_channel(query, key, bias) -> tuple[torch.Tensor, torch.Tensor]:
    """Queries with ones after their channels, and keys with their bias: eight, since kernels want multiples of it."""
    query = F.pad(query, (0, 8), value=1.0)
    return query, torch.cat([key, F.pad(bias.unsqueeze(2), (0, 7))], dim=2).to(query.dtype)


def plain_attention(query, key, value, scaling, bias=None, mask=None) -> tuple[torch.Tensor, torch.Tensor]:
    """`attend` as the equations say it, with a bias `(heads, keys)` of the keys; otherwise arguments are the same."""
    key_axes = "hke" if key.dim() == 3 else "bhke"
    logits = torch.einsum(f"bhqe,{key_axes}->bhqk", query * scaling, key)
    if bias is not None:
        logits = logits + (bias * scaling).to(logits.dtype)[:, None, :]
    if mask is not None:
        logits = logits + mask
    weights = logits.softmax(dim=-1)
    return (weights @ value).transpose(1, 2), weights


def fused_attention(mixer, query, key, value, scaling, mask, implementation) -> torch.Tensor:
    """`attend` by one of transformers' attention functions, which never write the weights to memory."""
    # A static key is expanded over the batch, not copied: every image reads the same memory.
    key = key.expand(value.shape[0], -1, -1, -1)
    if implementation == "flex_attention":
        # It indexes a mask where others broadcast it, and takes a view of a parameter for something to train.
        mask = mask if mask is None else mask.expand(value.shape[0], 1, query.shape[2], key.shape[2])
        key = key if torch.is_grad_enabled() else key.detach()
    attention_function = ALL_ATTENTION_FUNCTIONS[implementation]
    return attention_function(mixer, query, key, value, mask, dropout=0.0, scaling=scaling, is_causal=False)[0]


def _overruns_mask(implementation: str, mask: torch.Tensor | None) -> bool:
    # On the CPU, torch 2.14's flex_attention reads past a mask whose sides are no multiple of its block.
    return implementation == "flex_attention" and mask is not None and mask.device.type == "cpu"


def resize_grid(
    rows: torch.Tensor, grid_size: tuple[int, int], new_grid_size: tuple[int, int], num_class_tokens: int = 0
) -> torch.Tensor:
    """Resize what has one row for each position of a grid: bicubic, antialiased where it shrinks.

    `(leading, [class tokens +] height * width, ...)` becomes `(leading, [class tokens +] new_height * new_width,
    ...)`; the class tokens' rows, if there are any, are first and stay as they are.
    """
    # bfloat16 and float16 would round the interpolation weights too.
    flat = rows.flatten(2) if rows.dim() > 2 else rows.unsqueeze(2)
    flat = flat if rows.dtype == torch.float64 else flat.float()
    class_rows, grid_rows = flat[:, :num_class_tokens], flat[:, num_class_tokens:]
    maps = grid_rows.transpose(1, 2).unflatten(2, grid_size)
    shrinks = new_grid_size[0] < grid_size[0] or new_grid_size[1] < grid_size[1]
    maps = F.interpolate(maps, size=new_grid_size, mode="bicubic", antialias=shrinks)
    resized = torch.cat([class_rows, maps.flatten(2).transpose(1, 2)], dim=1).to(rows.dtype)
    return resized.reshape(rows.shape[0], -1, *rows.shape[2:])


def cut_windows(tokens: torch.Tensor, grid_size: tuple[int, int], window: tuple[int, int]) -> torch.Tensor:
    """Cut a map into windows, padded with zeros below and on the right.

    `(batch, height * width, channels)` becomes `(batch * windows, window_height * window_width, channels)`.
    """
    (height, width), (window_height, window_width) = grid_size, window
    maps = F.pad(tokens.unflatten(1, grid_size), (0, 0, 0, -width % window_width, 0, -height % window_height))
    windows = maps.unflatten(2, (-1, window_width)).unflatten(1, (-1, window_height)).transpose(2, 3)
    return windows.flatten(0, 2).flatten(1, 2)


def join_windows(windows: torch.Tensor, grid_size: tuple[int, int], window: tuple[int, int]) -> torch.Tensor:
    """The inverse of `cut_windows`; the padding is dropped."""
    (height, width), (window_height, window_width) = grid_size, window
    rows, columns = -(-height // window_height), -(-width // window_width)
    windows = windows.unflatten(1, window).unflatten(0, (-1, rows, columns)).transpose(2, 3)
    maps = windows.flatten(3, 4).flatten(1, 2)
    return maps[:, :height, :width].flatten(1, 2)


def window_padding_mask(grid_size: tuple[int, int], window: tuple[int, int], like: torch.Tensor) -> torch.Tensor:
    """An additive mask, `(windows, 1, 1, window_height * window_width)`, that hides the padding of `cut_windows`."""
    inside = like.new_ones(1, grid_size[0] * grid_size[1], 1)
    padding = 1 - cut_windows(inside, grid_size, window)
    return padding.transpose(1, 2).unsqueeze(1) * torch.finfo(like.dtype).min


def add_masks(first: torch.Tensor | None, second: torch.Tensor | None) -> torch.Tensor | None:
    """The sum of two additive masks, either of which may be absent."""
    if first is None or second is None:
        return second if first is None else first
    return first + second
