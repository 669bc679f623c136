"""What the attention mixers share: their heads and windows, and the choice of a kernel for `softmax(logits) @ value`.

The reference runs where it is asked for and where the weights are, which exist in it only; else the fastest kernel that
fits.
"""

from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .fast_attention_cpu import tiled_conv_static_key_attention
from .fast_paths import neighborhood_kernel, use_fast_paths
from .grids import neighborhoods, window_padding_mask, window_partition, window_reverse
from .reference import softmax_attention, static_key_logits
from .talking_heads import TalkingHeads

# Whether the CPU has AMX; True where this torch cannot tell. Asked here, since a call would break a compiled graph.
HAS_TILE_UNITS = bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: True)())
MOST_WEIGHTS = 1024**2  # of a head that are written to memory where that is faster
MOST_WEIGHTS_WITH_TILES = 128**2  # the same, on a CPU with AMX


def check_tokens(mixer: Any, hidden_states: torch.Tensor, grid_size: tuple[int, int]) -> None:
    """Raise ValueError unless the tokens are as many as the grid and the mixer's class tokens say."""
    # Kernels of sdpa do not check that key and value have the same length.
    tokens = grid_size[0] * grid_size[1] + mixer.num_class_tokens
    if hidden_states.shape[1] != tokens:
        first = f"{mixer.num_class_tokens} for classes and " if mixer.num_class_tokens else ""
        raise ValueError(
            f"{type(mixer).__name__} got {hidden_states.shape[1]} tokens, expected {tokens}: {first}a grid of"
            f" {grid_size[0]}x{grid_size[1]}. Pass grid_size=(height, width) with the grid that the tokens lie on."
        )


def split_heads(tokens: torch.Tensor, num_heads: int) -> torch.Tensor:
    """Return tokens `(batch, tokens, num_heads * head_dim)` as `(batch, num_heads, tokens, head_dim)`."""
    return tokens.unflatten(2, (num_heads, -1)).transpose(1, 2)


def project(
    mixer: Any,
    name: str,
    hidden_states: torch.Tensor,
    grid_size: tuple[int, int],
    projection: nn.Module | None = None,
) -> torch.Tensor:
    """Return the mixer's queries, keys or values, `(batch, num_heads, tokens, head_dim)`, by `name`: q, k or v.

    Where there is a convolution before the projection, keys and values are fewer if it has a stride. `projection` takes
    the place of the mixer's own.
    """
    convolutions = mixer.convolutions
    hidden_states = hidden_states if convolutions is None else convolutions[name](hidden_states, grid_size)
    return split_heads((projection or getattr(mixer, f"{name}_proj"))(hidden_states), mixer.options.num_heads)


def scale(mixer: Any, query: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Return the query and the scale of its logits. Kernels take a number: a trained scale goes into the query."""
    if mixer.temperature is None:
        return query, mixer.options.scaling
    return query * mixer.temperature.exp().to(query.dtype), 1.0


def wants_reference(
    implementation: str,
    output_attentions: bool,
    normalization: str = "softmax",
    talking_heads: TalkingHeads | None = None,
) -> bool:
    """Return whether the weights have to exist, or the plain way was asked for.

    Raises:
        ValueError: if a kernel was asked for by name that cannot normalize so, or mix heads.
    """
    if normalization == "softmax" and talking_heads is None:
        return output_attentions or implementation == "eager" or not use_fast_paths()
    if implementation not in ("eager", "sdpa"):  # sdpa is the default, and no more than a wish for what is fastest
        beyond = f"attention_normalization is {normalization!r}" if talking_heads is None else "talking_heads is set"
        raise ValueError(f"attn_implementation={implementation!r} computes softmax only, and {beyond}: use 'eager'.")
    return True


def attend(
    mixer: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float,
    mask: torch.Tensor | None = None,
    implementation: str = "sdpa",
    output_attentions: bool = False,
    normalization: str = "softmax",
    talking_heads: TalkingHeads | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return `softmax(scaling * query @ key.T + mask) @ value`, for computed and for static keys.

    Args:
        mixer: the calling module, which transformers' attention functions ask for its mode.
        query: `(batch, heads, queries, e)`.
        key: `(heads, keys, e)` when it is static, `(batch, heads, keys, e)` when it is computed.
        value: `(batch, heads, keys, d)`.
        mask: additive, broadcastable to `(batch, heads, queries, keys)`.
        implementation: a name in transformers' `ALL_ATTENTION_FUNCTIONS`, or `"eager"` for the reference.
        output_attentions: whether to return the weights.
        normalization: what takes softmax's place, see `normalizations.py`.
        talking_heads: the maps that mix heads, see `talking_heads.py`.

    Returns:
        The output, `(batch, queries, heads, d)`, and the weights, `(batch, heads, queries, keys)` or None.
    """
    keeps_weights = wants_reference(implementation, output_attentions, normalization, talking_heads)
    keeps_weights = keeps_weights or overruns_mask(implementation, mask)
    if keeps_weights or products_beat_kernel(implementation, query, key) or exports_mask(mask):
        query = query * scaling
        logits = static_key_logits(query, key) if key.dim() == 3 else query @ key.mT
        output, weights = softmax_attention(logits, value, mask, normalization, talking_heads)
        return output.transpose(1, 2), weights if keeps_weights else None
    return fused_attention(mixer, query, key, value, scaling, mask, implementation), None


def fused_attention(
    mixer: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float,
    mask: torch.Tensor | None,
    implementation: str,
) -> torch.Tensor:
    """Return `attend`'s output by one of transformers' attention functions, which never write the weights to memory."""
    # A static key is expanded over the batch, not copied: every image reads the same memory.
    key = key.expand(value.shape[0], -1, -1, -1)
    if implementation == "flex_attention":
        # It does not broadcast masks, and treats an expanded parameter as requiring grad.
        mask = mask if mask is None else mask.expand(value.shape[0], -1, query.shape[2], key.shape[2])
        key = key if torch.is_grad_enabled() else key.detach()
    attention_function = ALL_ATTENTION_FUNCTIONS[implementation]
    return attention_function(mixer, query, key, value, mask, dropout=0.0, scaling=scaling, is_causal=False)[0]


def overruns_mask(implementation: str, mask: torch.Tensor | None) -> bool:
    """Return whether a kernel would read past the mask: flex attention of torch 2.14 does on the CPU.

    It does so where a side of the mask is not a multiple of its block.
    """
    return implementation == "flex_attention" and mask is not None and mask.device.type == "cpu"


def products_beat_kernel(implementation: str, query: torch.Tensor, key: torch.Tensor) -> bool:
    """Return whether the plain way is faster than sdpa: in training in bfloat16 on a CPU.

    There sdpa's backward pass takes 1.3 to 8 times as long with torch 2.14, on a CPU with units for tiles (AMX) only on
    small grids (docs/performance.md). The weights, which a backward pass keeps, have to fit into memory.
    """
    return (
        implementation == "sdpa"
        and torch.is_grad_enabled()
        and query.device.type == "cpu"
        and query.dtype == torch.bfloat16
        and query.shape[2] * key.shape[-2] <= (MOST_WEIGHTS_WITH_TILES if HAS_TILE_UNITS else MOST_WEIGHTS)
    )


def exports_mask(mask: torch.Tensor | None) -> bool:
    """Return whether a graph is exported with a mask in it: ONNX's decomposition of sdpa fails with one in torch 2.14.

    Its output has other strides than the CPU kernel's, whose views were traced.
    """
    return mask is not None and torch.compiler.is_exporting()


def attend_from_neighborhoods(
    mixer: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    bias: torch.Tensor,
    value: torch.Tensor,
    grid_size: tuple[int, int],
    scaling: float,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the output `(batch, queries, heads, d)` of CSKA: SKA whose query is its own 3x3 neighborhood.

    The key is `(heads, keys, 9 e)`, the bias `(heads, keys)`; the other arguments are those of `attend`.
    """
    by_torch = partial(attend_by_torch, mixer, grid_size=grid_size, scaling=scaling, mask=mask)
    kernel = neighborhood_kernel() if mask is None else None
    output = None if kernel is None else kernel(query, key, bias, value, grid_size, scaling, by_torch)
    return by_torch(query, key, bias, value) if output is None else output


def attend_by_torch(
    mixer: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    bias: torch.Tensor,
    value: torch.Tensor,
    grid_size: tuple[int, int],
    scaling: float,
    mask: torch.Tensor | None,
) -> torch.Tensor:
    """Do as `attend_from_neighborhoods` does, by what is here."""
    if value.device.type == "cpu" and not torch.compiler.is_exporting():
        return tiled_conv_static_key_attention(query * scaling, key, value, bias * scaling, mask, grid_size)
    query = neighborhoods(query, grid_size)
    if value.device.type == "cuda" and not torch.compiler.is_exporting():
        # Queries wider than values fit one kernel of sdpa alone, the memory-efficient one; flex and flash reject them.
        query, key = with_bias_as_channel(query, key, bias)
        return fused_attention(mixer, query, key, value, scaling, mask, "sdpa")
    logits = static_key_logits(query * scaling, key) + (bias * scaling).to(value.dtype)[:, None]
    return softmax_attention(logits, value, mask)[0].transpose(1, 2)


def with_bias_as_channel(
    query: torch.Tensor, key: torch.Tensor, bias: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return queries with ones after their channels, keys with their bias: eight, a multiple of which kernels want."""
    query = F.pad(query, (0, 8), value=1.0)
    return query, torch.cat([key, F.pad(bias.unsqueeze(2), (0, 7))], dim=2).to(query.dtype)


def mix_windows(
    mixer: Any,
    hidden_states: torch.Tensor,
    grid_size: tuple[int, int],
    output_attentions: bool,
    implementation: str,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Mix windows of the mixer's own grid as if each were an image; the last ones are padded with zeros, as Swin's are.

    Arguments and results are those of the mixer's `forward`, but that the weights' batch counts windows.
    """
    window = mixer.grid_size
    windows = window_partition(hidden_states, grid_size, window)
    is_padded = grid_size[0] % window[0] or grid_size[1] % window[1]
    mask = window_padding_mask(grid_size, window, hidden_states.shape[0], windows) if is_padded else None
    # Not by a call, whose hooks would see windows first and images then.
    mixed, weights = mixer.forward(windows, None, output_attentions, implementation, mask)
    return window_reverse(mixed, grid_size, window), weights
