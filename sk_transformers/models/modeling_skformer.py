"""SKFormer: a four-stage hybrid network with one token mixer a stage, among them static keys.

The frame is MetaFormer's ("MetaFormer Baselines for Vision", Yu et al., arXiv 2210.13452): with the mixers
convolution, convolution, attention, attention it is CAFormer.
"""

import torch
from torch import nn
from torch.nn import functional as F
from transformers.modeling_layers import GradientCheckpointingLayer

from .attention_options import AttentionOptions
from .configuration_skformer import NUM_STAGES, SKFormerConfig
from .grids import map_size, maps_to_tokens, tokens_to_maps
from .layers import MLP, DropPath, GroupNorm1, ResidualScale, StarReLU, drop_path_rates
from .modeling_common import Recorded, StaticKeyPreTrainedModel, check_pixel_values
from .modeling_stages import Stage, StagedBackbone, StagedClassifier, StagedModel
from .token_mixers import build_token_mixer

FIRST_SCALED_STAGE = 2  # residual scales from the third stage on


class SKFormerStem(nn.Module):
    """Image to the first stage's map: a convolution, 7x7 of stride 4 by default, then norm."""

    def __init__(self, config: SKFormerConfig):
        super().__init__()
        width = config.hidden_sizes[0]
        self.num_channels = config.num_channels
        self.min_image_size = config.min_image_size
        self.projection = nn.Conv2d(
            config.num_channels, width, config.stem_kernel_size, config.stem_stride, config.stem_padding
        )
        self.layernorm = nn.LayerNorm(width, eps=config.layer_norm_eps, bias=False)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return the map `(batch, channels, height, width)`."""
        check_pixel_values(pixel_values, self.projection.weight, self.num_channels)
        height, width = pixel_values.shape[2:]
        if min(height, width) < self.min_image_size:
            raise ValueError(
                f"pixel_values are {height}x{width} pixels, expected at least {self.min_image_size}x"
                f"{self.min_image_size}: the last stage's map is {self.min_image_size} times smaller than the image."
            )
        maps = self.projection(pixel_values)
        return tokens_to_maps(self.layernorm(maps_to_tokens(maps)), map_size(maps))


class SKFormerDownsampling(nn.Module):
    """One stage's map to the next's, half as high and wide: norm, then 3x3 convolution of stride 2."""

    def __init__(self, config: SKFormerConfig, stage: int):
        super().__init__()
        width, new_width = config.hidden_sizes[stage - 1 : stage + 1]
        self.layernorm = nn.LayerNorm(width, eps=config.layer_norm_eps, bias=False)
        self.projection = nn.Conv2d(width, new_width, kernel_size=3, stride=2, padding=1)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        tokens = self.layernorm(maps_to_tokens(maps))
        return self.projection(tokens_to_maps(tokens, map_size(maps)))


def build_norm(config: SKFormerConfig, width: int) -> nn.Module:
    if config.norm == "group":
        return GroupNorm1(width, eps=config.layer_norm_eps)
    return nn.LayerNorm(width, eps=config.layer_norm_eps, bias=False)


class SKFormerLayer(Recorded, GradientCheckpointingLayer):
    """A MetaFormer block: `scale(x) + mixer(norm(x))`, then `scale(x) + mlp(norm(x))`."""

    def __init__(self, config: SKFormerConfig, stage: int, drop_path_rate: float):
        super().__init__()
        self.config = config
        width, head_dim, token_mixer = config.hidden_sizes[stage], config.head_dims[stage], config.token_mixers[stage]
        scaled = stage >= FIRST_SCALED_STAGE
        self.layernorm_before = build_norm(config, width)
        options = AttentionOptions(
            width,
            config.grid_sizes[stage],
            num_heads=width // head_dim,
            head_dim=head_dim,
            query_projection=config.query_projection or not token_mixer.endswith("static_key"),
            output_bias=False,
            attention_bias=config.attention_biases[stage],
            attention_normalization=config.attention_normalization,
            static_key_resolution=config.static_key_resolution,
            initializer_range=config.initializer_range,
        )
        self.mixer = build_token_mixer(token_mixer, options)
        self.mixer_residual = ResidualScale(width, scaled)
        self.layernorm_after = build_norm(config, width)
        self.mlp = MLP(width, int(config.mlp_ratio * width), StarReLU(), bias=False)
        self.mlp_residual = ResidualScale(width, scaled)
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
        hidden_states = self.mixer_residual(hidden_states, self.drop_path(mixed))
        mlp_output = self.mlp(self.layernorm_after(hidden_states))
        return self.mlp_residual(hidden_states, self.drop_path(mlp_output)), weights


class SKFormerPreTrainedModel(StaticKeyPreTrainedModel):
    config_class = SKFormerConfig
    config: SKFormerConfig
    base_model_prefix = "skformer"
    _no_split_modules = ["SKFormerStem", "SKFormerDownsampling", "SKFormerLayer"]
    _can_record_outputs = {"hidden_states": Stage, "attentions": SKFormerLayer}


class SKFormerModel(StagedModel, SKFormerPreTrainedModel):
    """SKFormer without a head, for images from `config.min_image_size` on, 32 pixels a side by default.

    `add_pooling_layer=False` leaves out the norm of the pooled features.
    """

    def __init__(self, config: SKFormerConfig, add_pooling_layer: bool = True):
        super().__init__(config)
        self.stem = SKFormerStem(config)
        rates = iter(drop_path_rates(config.drop_path_rate, sum(config.depths)))
        self.stages = nn.ModuleList(
            Stage(
                SKFormerDownsampling(config, stage) if stage > 0 else None,
                [SKFormerLayer(config, stage, next(rates)) for _ in range(config.depths[stage])],
            )
            for stage in range(NUM_STAGES)
        )
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if add_pooling_layer else None
        self.post_init()

    def pool(self, maps: torch.Tensor, class_tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        return maps, None if self.layernorm is None else self.layernorm(maps_to_tokens(maps).mean(dim=1))


class SKFormerClassificationHead(nn.Module):
    """MetaFormer's classifier: an MLP with squared ReLU, norm and dropout before the last linear layer."""

    def __init__(self, config: SKFormerConfig, num_labels: int):
        super().__init__()
        inner_size = int(config.mlp_ratio * config.hidden_size)
        self.fc1 = nn.Linear(config.hidden_size, inner_size)
        self.layernorm = nn.LayerNorm(inner_size, eps=config.head_layer_norm_eps)
        self.dropout = nn.Dropout(config.head_dropout)
        self.fc2 = nn.Linear(inner_size, num_labels)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.dropout(self.layernorm(F.relu(self.fc1(pooled)).square())))


def build_head(config: SKFormerConfig) -> nn.Module:
    if not config.num_labels:
        return nn.Identity()
    if config.use_mlp_head:
        return SKFormerClassificationHead(config, config.num_labels)
    return nn.Linear(config.hidden_size, config.num_labels)


class SKFormerForImageClassification(StagedClassifier, SKFormerPreTrainedModel):
    """SKFormer with MetaFormer's classifier: an MLP, or with `use_mlp_head=False` one linear layer."""

    def __init__(self, config: SKFormerConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.skformer = SKFormerModel(config)
        self.classifier = build_head(config)
        self.post_init()


class SKFormerBackbone(StagedBackbone, SKFormerPreTrainedModel):
    """SKFormer as a source of feature maps at strides 4, 4, 8, 16 and 32, each normalized (see `StagedBackbone`)."""

    _keys_to_ignore_on_load_unexpected = [r"^skformer\.layernorm\.", r"^layernorm\.", r"^classifier\."]

    def __init__(self, config: SKFormerConfig):
        super().__init__(config)
        self.skformer = SKFormerModel(config, add_pooling_layer=False)
        self.add_feature_norms(bias=False)
        self.post_init()


__all__ = ["SKFormerBackbone", "SKFormerForImageClassification", "SKFormerModel", "SKFormerPreTrainedModel"]
