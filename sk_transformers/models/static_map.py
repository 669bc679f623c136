"""Static map: attention whose weights are parameters, the same for every image; only the value is computed from it.

    StaticMap    softmax(B) @ v    B is a parameter

It is static key attention with a bias `B` whose key is zero: there is no query, and in evaluation no softmax either,
since `softmax(B)` is kept. As a matrix over the positions that is trained it is the token mixing of MLP-Mixer
(arXiv 2105.01601) with one row-stochastic matrix a head.
"""

import torch
from torch import nn

from .attention import check_tokens, mix_windows, split_heads, wants_reference
from .attention_bias import AttentionBias, hide_diagonal
from .attention_options import AttentionOptions
from .grids import GridCache
from .normalizations import normalize
from .reference import static_map
from .talking_heads import build_talking_heads


class StaticMap(nn.Module):
    """A static map; `B` is full unless the options ask for a relative one.

    Of the options, those of the query and its temperature do not matter.
    """

    def __init__(self, options: AttentionOptions):
        super().__init__()
        if options.conv_kernel_size is not None:
            raise ValueError("A static map has no convolutions before its projections: leave conv_kernel_size out.")
        self.options, self.grid_size, self.num_class_tokens = options, options.grid_size, options.num_class_tokens
        self.v_proj = nn.Linear(options.hidden_size, options.inner_size, bias=options.qkv_bias)
        self.o_proj = nn.Linear(options.inner_size, options.hidden_size, bias=options.output_bias)
        self.attention_bias = AttentionBias(options, options.attention_bias or "full")
        self.talking_heads = build_talking_heads(options)
        self.convolutions = None  # before its projection
        self.kept_weights = GridCache()

    def forward(
        self,
        hidden_states: torch.Tensor,
        grid_size: tuple[int, int] | None = None,
        output_attentions: bool = False,
        implementation: str = "sdpa",
        mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """See `SelfAttention.forward`; the weights are the same for every image."""
        options, grid_size = self.options, grid_size or self.grid_size
        check_tokens(self, hidden_states, grid_size)
        if options.static_key_resolution == "window" and grid_size != self.grid_size:
            return mix_windows(self, hidden_states, grid_size, output_attentions, implementation)
        value = split_heads(self.v_proj(hidden_states), options.num_heads)  # (batch, heads, tokens, head_dim)
        if mask is not None or wants_reference(implementation, output_attentions):
            mask = hide_diagonal(mask, value) if options.mask_diagonal else mask
            bias = self.attention_bias(grid_size).to(value.dtype)
            output, weights = static_map(bias, value, mask, options.attention_normalization, self.talking_heads)
            return self.o_proj(output.transpose(1, 2).flatten(2)), weights if output_attentions else None
        weights = self.weights(grid_size).to(value.dtype)
        output = torch.einsum("hqk,bhkd->bqhd", weights, value)  # one product a head, for all images
        return self.o_proj(output.flatten(2)), None

    def weights(self, grid_size: tuple[int, int]) -> torch.Tensor:
        """Return what values are weighted by on a grid, `(heads, tokens, tokens)`."""
        talking_heads = self.talking_heads

        def make() -> list[torch.Tensor]:
            bias = self.attention_bias.on_grid(grid_size)[None]
            bias = bias if talking_heads is None else talking_heads.before.mix(bias)
            bias = hide_diagonal(bias, bias) if self.options.mask_diagonal else bias
            weights = normalize(bias[0], self.options.attention_normalization)
            return [weights if talking_heads is None else talking_heads.after.mix(weights[None])[0]]

        parameters = [self.attention_bias.bias, *(talking_heads.parameters() if talking_heads is not None else ())]
        return self.kept_weights.remember(parameters, grid_size, make)[0]
