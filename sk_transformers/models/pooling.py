"""What is read of a network's tokens in the end, one vector for each image."""

import torch
from torch import nn
from transformers import initialization as init
from transformers.activations import ACT2FN

from .attention import attend, split_heads
from .attention_options import AttentionOptions
from .configuration_skvit import SKViTConfig
from .layers import MLP
from .talking_heads import build_talking_heads


class AttentionPooling(nn.Module):
    """A trained query, the probe, that attends to the patches; then an MLP.

    Source: "Set Transformer", Lee et al., arXiv 1810.00825; as in SigLIP (arXiv 2303.15343).
    """

    def __init__(self, config: SKViTConfig):
        super().__init__()
        self.config = config
        width, self.num_heads = config.hidden_size, config.num_attention_heads
        self.initializer_range = config.initializer_range
        self.probe = nn.Parameter(torch.empty(1, 1, width))
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.o_proj = nn.Linear(width, width)
        self.layernorm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.mlp = MLP(width, config.intermediate_size, ACT2FN[config.hidden_act], bias=True)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        init.trunc_normal_(self.probe, std=self.initializer_range)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Return `(batch, hidden_size)` of tokens `(batch, tokens, hidden_size)`."""
        query = split_heads(self.q_proj(self.probe.to(patches.dtype)), self.num_heads)
        query = query.expand(patches.shape[0], -1, -1, -1)
        key = split_heads(self.k_proj(patches), self.num_heads)
        value = split_heads(self.v_proj(patches), self.num_heads)
        implementation = for_one_query(self.config._attn_implementation)
        output, _ = attend(self, query, key, value, query.shape[-1] ** -0.5, implementation=implementation)
        pooled = self.o_proj(output.flatten(2))
        return (pooled + self.mlp(self.layernorm(pooled)))[:, 0]


class ClassAttention(nn.Module):
    """Attention of the first token to all tokens, with keys computed from them.

    Source: "Going Deeper with Image Transformers", Touvron et al., arXiv 2103.17239.
    """

    def __init__(self, options: AttentionOptions):
        super().__init__()
        self.options = options
        width, inner_size, bias = options.hidden_size, options.inner_size, options.qkv_bias
        self.q_proj = nn.Linear(width, inner_size, bias=bias)
        self.k_proj = nn.Linear(width, inner_size, bias=bias and options.key_bias)
        self.v_proj = nn.Linear(width, inner_size, bias=bias)
        self.o_proj = nn.Linear(inner_size, width, bias=options.output_bias)
        self.talking_heads = build_talking_heads(options)

    def forward(
        self, tokens: torch.Tensor, output_attentions: bool = False, implementation: str = "sdpa"
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Mix tokens `(batch, tokens, hidden_size)` into `(batch, 1, hidden_size)`; see `attend` for the others.

        The weights, where they exist, are `(batch, heads, 1, tokens)`.
        """
        heads, normalization = self.options.num_heads, self.options.attention_normalization
        query = split_heads(self.q_proj(tokens[:, :1]), heads)
        key = split_heads(self.k_proj(tokens), heads)
        value = split_heads(self.v_proj(tokens), heads)
        scaling, implementation = query.shape[-1] ** -0.5, for_one_query(implementation)
        output, weights = attend(
            self, query, key, value, scaling, None, implementation, output_attentions, normalization, self.talking_heads
        )
        return self.o_proj(output.flatten(2)), weights


def for_one_query(implementation: str | None) -> str:
    """Return the attention implementation for a single query, which not every kernel takes."""
    return "eager" if implementation == "eager" else "sdpa"


def pool(tokens: torch.Tensor, config: SKViTConfig, attention: nn.Module | None = None) -> torch.Tensor:
    """Return what `config.pooling` says of tokens `(batch, tokens, hidden_size)`: `(batch, pooled_size)`.

    Args:
        attention: the module of attention pooling, where it is that.
    """
    if config.pooling == "cls":
        return tokens[:, 0]
    patches = tokens[:, config.num_prefix_tokens :]
    if attention is not None:
        return attention(patches)
    mean = patches.mean(dim=1)
    return mean if config.pooling == "mean" else torch.cat([tokens[:, 0], mean], dim=1)
