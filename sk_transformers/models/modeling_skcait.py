"""SKCaiT: CaiT, whose class token comes after the layers of patches, with computed or with static keys in those.

Source of the frame: "Going Deeper with Image Transformers", Touvron et al., arXiv 2103.17239. The layers of patches are
SKViT's, with talking heads and layer scale: what is CaiT's own is how the class token reads the patches.
"""

from dataclasses import replace

import torch
from torch import nn
from transformers import initialization as init
from transformers.utils.output_capturing import OutputRecorder

from .configuration_skcait import SKCaiTConfig
from .modeling_skvit import (
    SKViTForImageClassification,
    SKViTLayer,
    SKViTModel,
    SKViTPreTrainedModel,
    attention_options,
)
from .pooling import ClassAttention


class SKCaiTClassLayer(SKViTLayer):
    """A layer of the class token, `c + attention(norm([c, x]))`, then `c + mlp(norm(c))`; the patches `x` stay."""

    def __init__(self, config: SKCaiTConfig):
        options = replace(attention_options(config, "attention", None), talking_heads=config.class_talking_heads)
        super().__init__(config, ClassAttention(options), drop_path_rate=0.0)
        self.normalize_patches = config.normalize_patches

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride] (there is no grid)
        self, class_token: torch.Tensor, patches: torch.Tensor, output_attentions: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the class token `(batch, 1, hidden_size)` with what it reads of the patches, and its weights."""
        seen = self.layernorm_before(patches) if self.normalize_patches else patches
        tokens = torch.cat([self.layernorm_before(class_token), seen], dim=1)
        mixed, weights = self.mixer(tokens, output_attentions, self.config._attn_implementation)
        return self.add_branches(class_token, mixed), weights


class SKCaiTPooler(nn.Module):
    """The class token and its layers."""

    def __init__(self, config: SKCaiTConfig):
        super().__init__()
        self.cls_token = nn.Parameter(torch.empty(1, 1, config.hidden_size))
        self.class_layers = nn.ModuleList(SKCaiTClassLayer(config) for _ in range(config.num_class_layers))
        self.initializer_range = config.initializer_range
        self.reset_parameters()

    def reset_parameters(self) -> None:
        init.trunc_normal_(self.cls_token, std=self.initializer_range)

    def forward(self, patches: torch.Tensor, output_attentions: bool = False) -> torch.Tensor:
        """Return the class token `(batch, hidden_size)`."""
        class_token = self.cls_token.repeat(patches.shape[0], 1, 1).to(patches.dtype)  # a view is a leaf to hooks
        for layer in self.class_layers:
            class_token, _ = layer(class_token, patches, output_attentions)
        return class_token[:, 0]


class SKCaiTPreTrainedModel(SKViTPreTrainedModel):
    config_class = SKCaiTConfig
    base_model_prefix = "skcait"
    _no_split_modules = ["SKViTEmbeddings", "SKViTLayer", "SKCaiTClassLayer"]
    # A layer of the class token is an SKViTLayer, too, whose weights are recorded and whose token is not.
    _can_record_outputs = {
        "hidden_states": OutputRecorder(SKViTLayer, layer_name="layers"),
        "attentions": SKViTLayer,
    }


class SKCaiTModel(SKCaiTPreTrainedModel, SKViTModel):
    """SKCaiT without a head: `last_hidden_state` has the patches, `pooler_output` the class token, normalized.

    The attention weights of the layers of the class token, `(batch, heads, 1, 1 + patches)`, are the last.
    """

    def __init__(self, config: SKCaiTConfig):
        super().__init__(config)
        self.pooler = SKCaiTPooler(config)
        self.post_init()

    def pool(self, tokens: torch.Tensor, output_attentions: bool = False) -> torch.Tensor:
        return self.pooler(tokens, output_attentions)


class SKCaiTForImageClassification(SKCaiTPreTrainedModel, SKViTForImageClassification):
    """SKCaiT with a linear classifier of the class token."""

    model_class = SKCaiTModel


__all__ = ["SKCaiTForImageClassification", "SKCaiTModel", "SKCaiTPreTrainedModel"]
