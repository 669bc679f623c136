"""SKCvT: CvT, whose projections are convolutions and whose keys are fewer than its queries, computed or static.

Source of the frame: "CvT: Introducing Convolutions to Vision Transformers", Wu et al., arXiv 2103.15808. The mixers are
those of the other families, with a convolution before each projection (`conv_projection.py`).
"""

import torch
from torch import nn
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer

from .attention_options import AttentionOptions
from .configuration_skcvt import SKCvTConfig
from .grids import map_size, maps_to_tokens, tokens_to_maps
from .layers import MLP, DropPath, drop_path_rates
from .modeling_common import Recorded, StaticKeyPreTrainedModel, check_pixel_values
from .modeling_stages import Stage, StagedBackbone, StagedClassifier, StagedModel
from .token_mixers import build_token_mixer


class SKCvTPatches(nn.Module):
    """A map, `(batch, channels, height, width)`, to a coarser one: a convolution with a stride, then norm."""

    def __init__(self, config: SKCvTConfig, stage: int):
        super().__init__()
        width = config.hidden_sizes[stage]
        self.num_channels = config.hidden_sizes[stage - 1] if stage > 0 else config.num_channels
        self.projection = nn.Conv2d(
            self.num_channels,
            width,
            config.patch_sizes[stage],
            config.patch_strides[stage],
            config.patch_paddings[stage],
        )
        self.layernorm = nn.LayerNorm(width, eps=config.layer_norm_eps)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        maps = self.projection(maps)
        return tokens_to_maps(self.layernorm(maps_to_tokens(maps)), map_size(maps))


class SKCvTStem(SKCvTPatches):
    """An image to the first stage's map."""

    def __init__(self, config: SKCvTConfig):
        super().__init__(config, 0)
        self.min_image_size = config.min_image_size

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        check_pixel_values(maps, self.projection.weight, self.num_channels)
        height, width = map_size(maps)
        if min(height, width) < self.min_image_size:
            raise ValueError(
                f"pixel_values are {height}x{width} pixels, expected at least {self.min_image_size}x"
                f"{self.min_image_size}: the last stage would have no position."
            )
        return super().forward(maps)


class SKCvTClassToken(nn.Module):
    """The class token, which joins the positions in the last stage."""

    def __init__(self, config: SKCvTConfig):
        super().__init__()
        self.initializer_range = config.initializer_range
        self.cls_token = nn.Parameter(torch.empty(1, 1, config.hidden_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        init.trunc_normal_(self.cls_token, std=self.initializer_range)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return tokens `(batch, positions, hidden_size)` with the class token before them."""
        return torch.cat([self.cls_token.expand(tokens.shape[0], -1, -1).to(tokens.dtype), tokens], dim=1)


class SKCvTLayer(Recorded, GradientCheckpointingLayer):
    """A CvT block: `x + mixer(norm(x))`, then `x + mlp(norm(x))`."""

    def __init__(self, config: SKCvTConfig, stage: int, drop_path_rate: float):
        super().__init__()
        self.config = config
        width, head_dim = config.hidden_sizes[stage], config.head_dims[stage]
        self.layernorm_before = nn.LayerNorm(width, eps=config.layer_norm_eps)
        options = AttentionOptions(
            width,
            config.grid_sizes[stage],
            num_heads=width // head_dim,
            head_dim=head_dim,
            num_class_tokens=config.class_tokens[stage],
            qkv_bias=config.qkv_bias,
            logit_scale=config.logit_scales[stage],
            attention_normalization=config.attention_normalization,
            conv_kernel_size=config.conv_kernel_size,
            key_stride=config.key_strides[stage],
            initializer_range=config.initializer_range,
        )
        self.mixer = build_token_mixer(config.token_mixers[stage], options)
        self.layernorm_after = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.mlp = MLP(width, int(config.mlp_ratio * width), ACT2FN[config.hidden_act], bias=True)
        self.drop_path = DropPath(drop_path_rate)

    def forward(
        self, hidden_states: torch.Tensor, grid_size: tuple[int, int], output_attentions: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        mixed, weights = self.mixer(
            self.layernorm_before(hidden_states),
            grid_size,
            output_attentions=output_attentions,
            implementation=self.config._attn_implementation,
        )
        hidden_states = hidden_states + self.drop_path(mixed)
        return hidden_states + self.drop_path(self.mlp(self.layernorm_after(hidden_states))), weights


class SKCvTPreTrainedModel(StaticKeyPreTrainedModel):
    config_class = SKCvTConfig
    config: SKCvTConfig
    base_model_prefix = "skcvt"
    _no_split_modules = ["SKCvTStem", "SKCvTPatches", "SKCvTLayer"]
    _can_record_outputs = {"hidden_states": Stage, "attentions": SKCvTLayer}


class SKCvTModel(StagedModel, SKCvTPreTrainedModel):
    """SKCvT without a head, for images of any size. `add_pooling_layer=False` leaves out the final norm.

    `last_hidden_state` has the positions of the last stage, `pooler_output` the class token, normalized.
    """

    def __init__(self, config: SKCvTConfig, add_pooling_layer: bool = True):
        super().__init__(config)
        self.stem = SKCvTStem(config)
        self.add_pooling_layer = add_pooling_layer
        rates = iter(drop_path_rates(config.drop_path_rate, sum(config.depths)))
        self.stages = nn.ModuleList(
            Stage(
                SKCvTPatches(config, stage) if stage > 0 else None,
                [SKCvTLayer(config, stage, next(rates)) for _ in range(depth)],
                SKCvTClassToken(config) if config.class_tokens[stage] else None,
            )
            for stage, depth in enumerate(config.depths)
        )
        has_norm = add_pooling_layer and config.final_norm is not None
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if has_norm else nn.Identity()
        self.post_init()

    def pool(self, maps: torch.Tensor, class_tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        return maps, self.layernorm(class_tokens[:, 0]) if self.add_pooling_layer else None


class SKCvTForImageClassification(StagedClassifier, SKCvTPreTrainedModel):
    """SKCvT with a linear classifier of the class token."""

    def __init__(self, config: SKCvTConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.skcvt = SKCvTModel(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels) if config.num_labels else nn.Identity()
        self.post_init()


class SKCvTBackbone(StagedBackbone, SKCvTPreTrainedModel):
    """SKCvT as a source of feature maps, at strides 4, 4, 8 and 16 by default, each normalized."""

    _keys_to_ignore_on_load_unexpected = [r"^skcvt\.layernorm\.", r"^layernorm\.", r"^classifier\."]

    def __init__(self, config: SKCvTConfig):
        super().__init__(config)
        self.skcvt = SKCvTModel(config, add_pooling_layer=False)
        self.add_feature_norms(bias=True)
        self.post_init()


__all__ = ["SKCvTBackbone", "SKCvTForImageClassification", "SKCvTModel", "SKCvTPreTrainedModel"]
