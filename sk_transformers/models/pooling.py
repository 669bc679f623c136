"""What is read of a network's tokens in the end, one vector for each image."""

import torch
from torch import nn
from transformers import initialization as init
from transformers.activations import ACT2FN

from .attention import attend, split_heads
from .configuration_skvit import SKViTConfig
from .layers import MLP


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
        implementation = "eager" if self.config._attn_implementation == "eager" else "sdpa"  # for a single query
        output, _ = attend(self, query, key, value, query.shape[-1] ** -0.5, implementation=implementation)
        pooled = self.o_proj(output.flatten(2))
        return (pooled + self.mlp(self.layernorm(pooled)))[:, 0]


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
